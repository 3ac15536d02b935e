/*
 * Charges: what is counted, what is told, from several threads.
 */
#include "charges.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define THREAD_COUNT 4
#define EACH_COUNT   2000

static void count_call(void *arg)
{
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
}

static void test_nothing_yet(void **state)
{
    (void)state;
    struct pl_charges *charges = pl_charges_new(NULL, NULL);
    struct pl_charges_view view;
    pl_charges_look(charges, &view);
    assert_int_equal(view.count, 0);
    assert_int_equal(view.last_fault, PL_POLICY_FAULT_NONE);
    pl_charges_free(charges);
    pl_charges_free(NULL);
}

static void test_tells_once_until_taken(void **state)
{
    (void)state;
    int calls = 0;
    struct pl_charges *charges = pl_charges_new(count_call, &calls);
    struct pl_charges_view view;
    pl_charges_add(charges, PL_POLICY_FAULT_ERROR, "a.lua:1: first");
    pl_charges_add(charges, PL_POLICY_FAULT_MEMORY, "a.lua:2: second");
    assert_int_equal(calls, 1);
    pl_charges_look(charges, &view);
    assert_int_equal(view.new_count, 2);
    pl_charges_take(charges, &view);
    assert_int_equal(view.new_count, 2);
    assert_int_equal(view.last_fault, PL_POLICY_FAULT_MEMORY);
    assert_string_equal(view.last_text, "a.lua:2: second");
    assert_true(view.last_wall_ms > 0);
    pl_charges_add(charges, PL_POLICY_FAULT_NO_ANSWER, "a.lua: third");
    assert_int_equal(calls, 2);
    pl_charges_take(charges, &view);
    assert_int_equal(view.new_count, 1);
    assert_int_equal(view.count, 3);
    pl_charges_free(charges);
}

static void test_long_texts_are_cut(void **state)
{
    (void)state;
    char text[2000];
    struct pl_charges *charges = pl_charges_new(NULL, NULL);
    struct pl_charges_view view;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    pl_charges_add(charges, PL_POLICY_FAULT_ERROR, text);
    pl_charges_look(charges, &view);
    assert_int_equal(strlen(view.last_text), PL_CHARGES_TEXT_BYTES - 1);
    pl_charges_free(charges);
}

static void *add_many(void *arg)
{
    for (int i = 0; i < EACH_COUNT; i++)
        pl_charges_add(arg, PL_POLICY_FAULT_ERROR, "a.lua:1: again");
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    int calls = 0;
    struct pl_charges *charges = pl_charges_new(count_call, &calls);
    pthread_t threads[THREAD_COUNT];
    struct pl_charges_view view;
    uint64_t taken = 0;
    for (size_t i = 0; i < THREAD_COUNT; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, charges), 0);
    while (taken < THREAD_COUNT * EACH_COUNT) {
        pl_charges_take(charges, &view);
        taken += view.new_count;
    }
    for (size_t i = 0; i < THREAD_COUNT; i++)
        pthread_join(threads[i], NULL);
    pl_charges_take(charges, &view);
    assert_int_equal(view.new_count, 0);
    assert_int_equal(view.count, THREAD_COUNT * EACH_COUNT);
    assert_true(calls >= 1);
    pl_charges_free(charges);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_yet),
        cmocka_unit_test(test_tells_once_until_taken),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
