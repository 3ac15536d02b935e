/* Tests of recent.h. */
#include "recent.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void add(struct pl_recent *recent, size_t worker, const char *text)
{
    pl_recent_add(recent, worker, text, strlen(text));
}

/* What is read, joined: "1:a 2:b ". */
static char *read_all(struct pl_recent *recent, uint64_t since, size_t limit, uint64_t *last)
{
    static char text[4096];
    size_t count, len = 0;
    struct pl_recent_item *items = pl_recent_read(recent, since, limit, &count, last);
    text[0] = '\0';
    for (size_t i = 0; i < count; i++)
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "%llu:%.*s ",
                             (unsigned long long)items[i].number, (int)items[i].len, items[i].json);
    pl_recent_free_items(items, count);
    return text;
}

static void test_order_over_workers(void **state)
{
    (void)state;
    uint64_t last;
    struct pl_recent *recent = pl_recent_new(2, 10);
    assert_string_equal(read_all(recent, 0, 10, &last), "");
    assert_int_equal(last, 0);
    add(recent, 0, "a");
    add(recent, 1, "b");
    add(recent, 0, "c");
    assert_string_equal(read_all(recent, 0, 10, &last), "1:a 2:b 3:c ");
    assert_int_equal(last, 3);
    assert_string_equal(read_all(recent, 0, 2, &last), "2:b 3:c ");
    assert_string_equal(read_all(recent, last, 10, &last), "");
    add(recent, 1, "d");
    assert_string_equal(read_all(recent, last, 10, &last), "4:d ");
    assert_int_equal(pl_recent_last(recent), 4);
    pl_recent_free(recent);
}

static void test_the_oldest_goes(void **state)
{
    (void)state;
    uint64_t last;
    struct pl_recent *recent = pl_recent_new(1, 3);
    for (char text[2] = "a"; text[0] < 'h'; text[0]++)
        add(recent, 0, text);
    assert_string_equal(read_all(recent, 0, 10, &last), "5:e 6:f 7:g ");
    pl_recent_free(recent);
}

static void test_nothing_is_kept(void **state)
{
    (void)state;
    uint64_t last;
    struct pl_recent *recent = pl_recent_new(1, 0);
    add(recent, 0, "a");
    assert_string_equal(read_all(recent, 0, 10, &last), "");
    pl_recent_free(recent);
}

static void test_too_long_is_left_out(void **state)
{
    (void)state;
    uint64_t last;
    struct pl_recent *recent = pl_recent_new(1, 2);
    char *text = calloc(1, PL_RECENT_TEXT_MAX_BYTES + 1);
    memset(text, 'x', PL_RECENT_TEXT_MAX_BYTES + 1);
    pl_recent_add(recent, 0, text, PL_RECENT_TEXT_MAX_BYTES + 1);
    pl_recent_add(recent, 0, text, 0);
    add(recent, 0, "a");
    assert_string_equal(read_all(recent, 0, 10, &last), "1:a ");
    free(text);
    pl_recent_free(recent);
}

/* 10,000 places of 32 KiB would be 320 MB: the oldest go before. */
static void test_bytes_are_bounded(void **state)
{
    (void)state;
    uint64_t last;
    size_t count, sum_bytes = 0;
    struct pl_recent *recent = pl_recent_new(1, 10000);
    char *text = malloc(PL_RECENT_TEXT_MAX_BYTES);
    memset(text, 'x', PL_RECENT_TEXT_MAX_BYTES);
    for (int i = 0; i < 3000; i++)
        pl_recent_add(recent, 0, text, PL_RECENT_TEXT_MAX_BYTES);
    struct pl_recent_item *items = pl_recent_read(recent, 0, 10000, &count, &last);
    for (size_t i = 0; i < count; i++)
        sum_bytes += items[i].len;
    assert_true(sum_bytes <= PL_RECENT_BYTES_MAX);
    assert_true(sum_bytes > PL_RECENT_BYTES_MAX / 2);
    assert_int_equal(items[count - 1].number, 3000);
    pl_recent_free_items(items, count);
    free(text);
    pl_recent_free(recent);
}

struct writer {
    struct pl_recent *recent;
    size_t index;
};

static void *write_many(void *arg)
{
    struct writer *self = arg;
    for (int i = 0; i < 20000; i++)
        add(self->recent, self->index, "{}");
    return NULL;
}

/* A reader that asks from where it left off sees each number once, in order. */
static void test_readers_miss_nothing(void **state)
{
    (void)state;
    struct pl_recent *recent = pl_recent_new(2, 20000);
    struct writer writers[2] = {{recent, 0}, {recent, 1}};
    pthread_t threads[2];
    uint64_t last = 0, expected = 1;
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, write_many, &writers[i]);
    while (expected <= 40000) {
        size_t count;
        struct pl_recent_item *items = pl_recent_read(recent, last, 100000, &count, &last);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(items[i].number, expected++);
        pl_recent_free_items(items, count);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pl_recent_free(recent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_over_workers), cmocka_unit_test(test_the_oldest_goes),
        cmocka_unit_test(test_nothing_is_kept),    cmocka_unit_test(test_too_long_is_left_out),
        cmocka_unit_test(test_bytes_are_bounded),  cmocka_unit_test(test_readers_miss_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
