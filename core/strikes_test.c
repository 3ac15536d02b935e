/*
 * Tests of strikes.c: the edges, lateness, and a comparison with the definition itself over random
 * times (all failures remembered, every group of neighbours looked at).
 */
#include "strikes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct pl_strikes strikes;

static void use(uint32_t max_count, uint64_t window_ms)
{
    assert_int_equal(pl_strikes_init(&strikes, max_count, window_ms), 0);
}

/* Adds all; only the last one may strike, and must if `strikes_at_last`. */
static void add_all(size_t count, const uint64_t *times_ms, bool strikes_at_last)
{
    for (size_t i = 0; i < count; i++) {
        bool expected = strikes_at_last && i == count - 1;
        assert_int_equal(pl_strikes_add(&strikes, times_ms[i]), expected);
        assert_int_equal(pl_strikes_is_struck(&strikes), expected);
    }
}
#define ADD(strikes_at_last, ...)                                                                  \
    add_all(PL_COUNT(((uint64_t[]){__VA_ARGS__})), (uint64_t[]){__VA_ARGS__}, strikes_at_last)

static void test_edges(void **state)
{
    (void)state;
    use(3, 100);
    ADD(true, 1000, 1050, 1100);
    use(3, 100);
    ADD(false, 1000, 1050, 1101);
    ADD(true, 1150);
    use(3, 0);
    ADD(false, 5, 5, 6);
    ADD(true, 6, 6);
    use(3, 100);
    ADD(true, 0, 0, 0);
    use(2, 100);
    ADD(true, UINT64_MAX - 100, UINT64_MAX);
    use(2, UINT64_MAX);
    ADD(true, 0, UINT64_MAX);
}

static void test_one_is_enough_when_the_count_is_one(void **state)
{
    (void)state;
    use(1, 0);
    ADD(true, 42);
    assert_false(pl_strikes_add(&strikes, 43));
    assert_true(pl_strikes_is_struck(&strikes));
}

static void test_zero_is_off_and_too_many_is_refused(void **state)
{
    (void)state;
    use(0, 100);
    ADD(false, 1, 1, 1, 1);
    assert_int_equal(pl_strikes_init(&strikes, PL_STRIKES_MAX_COUNT + 1, 100), PL_ERR_LIMIT);
    ADD(false, 1, 1, 1, 1);
    use(PL_STRIKES_MAX_COUNT, 100);
    for (int i = 1; i < PL_STRIKES_MAX_COUNT; i++) {
        ADD(false, 7);
    }
    ADD(true, 7);
}

static void test_struck_stays_struck_until_init(void **state)
{
    (void)state;
    use(2, 10);
    ADD(true, 1, 2);
    for (uint64_t ms = 3; ms < 300; ms++) {
        assert_false(pl_strikes_add(&strikes, ms));
    }
    assert_true(pl_strikes_is_struck(&strikes));
    use(2, 10);
    assert_false(pl_strikes_is_struck(&strikes));
    ADD(false, 300);
}

static void test_late_ones_count(void **state)
{
    (void)state;
    /* 100 late, completes what is behind it, around it, before it. */
    use(3, 100);
    ADD(false, 1000, 1200, 1190);
    ADD(true, 1100);
    use(3, 100);
    ADD(false, 1000, 1050, 1150);
    ADD(true, 1051);
    /* All of the strike lies in the past. */
    use(3, 100);
    ADD(false, 900, 910, 1011);
    ADD(true, 911);
    /* Later than the window: left out. */
    use(3, 100);
    ADD(false, 900, 910, 1011, 910);
}

static void test_recent_count(void **state)
{
    (void)state;
    use(10, 100);
    assert_int_equal(pl_strikes_recent_count(&strikes, 1000), 0);
    ADD(false, 1000, 1050, 1050, 1100);
    assert_int_equal(pl_strikes_recent_count(&strikes, 999), 0);
    assert_int_equal(pl_strikes_recent_count(&strikes, 1000), 1);
    assert_int_equal(pl_strikes_recent_count(&strikes, 1100), 4);
    assert_int_equal(pl_strikes_recent_count(&strikes, 1101), 3);
    assert_int_equal(pl_strikes_recent_count(&strikes, 1150), 3);
    assert_int_equal(pl_strikes_recent_count(&strikes, 1200), 1);
    assert_int_equal(pl_strikes_recent_count(&strikes, 1201), 0);
}

/* ---- against the definition ---- */

#define HISTORY_MAX 400

static uint64_t history_ms[HISTORY_MAX];
static size_t history_count;

static void remember(uint64_t at_ms)
{
    size_t place = history_count++;
    for (; place > 0 && history_ms[place - 1] > at_ms; place--) {
        history_ms[place] = history_ms[place - 1];
    }
    history_ms[place] = at_ms;
}

static bool has_strike(uint32_t max_count, uint64_t window_ms)
{
    for (size_t i = 0; i + max_count <= history_count; i++) {
        if (history_ms[i + max_count - 1] - history_ms[i] <= window_ms) {
            return true;
        }
    }
    return false;
}

/* Adds random times, none later than the window, until struck or the history is full. */
static bool run_to_strike(uint32_t max_count, uint64_t window_ms, uint64_t step_ms)
{
    uint64_t newest_ms = 100000;
    use(max_count, window_ms);
    history_count = 0;
    while (history_count < HISTORY_MAX) {
        bool late = history_count > 0 && pl_random_u64() % 4 == 0;
        uint64_t at_ms = late ? newest_ms - pl_random_u64() % (window_ms + 1)
                              : newest_ms + pl_random_u64() % step_ms;
        newest_ms = PL_MAX(newest_ms, at_ms);
        remember(at_ms);
        bool expected = has_strike(max_count, window_ms);
        assert_int_equal(pl_strikes_add(&strikes, at_ms), expected);
        if (expected) {
            return true;
        }
    }
    return false;
}

static void test_random_times_against_the_definition(void **state)
{
    (void)state;
    pl_random_seed(7);
    unsigned struck_count = 0;
    const unsigned run_count = 3000;
    for (unsigned i = 0; i < run_count; i++) {
        uint32_t max_count = 1 + (uint32_t)(pl_random_u64() % 9);
        uint64_t window_ms = pl_random_u64() % 200;
        uint64_t step_ms = 1 + pl_random_u64() % (8 * window_ms / max_count + 40);
        struck_count += (unsigned)run_to_strike(max_count, window_ms, step_ms);
    }
    /* Both ends must have been seen, or the comparison says little. */
    assert_in_range(struck_count, run_count / 10, run_count - run_count / 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_one_is_enough_when_the_count_is_one),
        cmocka_unit_test(test_zero_is_off_and_too_many_is_refused),
        cmocka_unit_test(test_struck_stays_struck_until_init),
        cmocka_unit_test(test_late_ones_count),
        cmocka_unit_test(test_recent_count),
        cmocka_unit_test(test_random_times_against_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
