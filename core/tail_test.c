/*
 * Tests of tail.c: against a sorted list of the same durations.
 */
#include "tail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pl_tail tail;

static void begin(void)
{
    memset(&tail, 0, sizeof(tail));
}

static void test_too_few_say_nothing(void **state)
{
    (void)state;
    begin();
    assert_true(pl_tail_quantile_ms(&tail, 0.95, 0) == 0);
    for (int i = 0; i < 19; i++)
        pl_tail_add(&tail, 100);
    assert_true(pl_tail_quantile_ms(&tail, 0.95, 20) == 0);
    pl_tail_add(&tail, 100);
    assert_true(pl_tail_quantile_ms(&tail, 0.95, 20) > 0);
}

static void test_short_ones_are_exact(void **state)
{
    (void)state;
    for (uint32_t ms = 0; ms < 8; ms++) {
        begin();
        pl_tail_add(&tail, ms);
        double got_ms = pl_tail_quantile_ms(&tail, 0.5, 1);
        assert_true(got_ms >= ms && got_ms <= ms + 1);
    }
}

static void test_any_duration_is_told_within_an_eighth(void **state)
{
    (void)state;
    for (uint32_t ms = 8; ms < 520000; ms += 1 + ms / 50) {
        begin();
        for (int i = 0; i < 100; i++)
            pl_tail_add(&tail, ms);
        double low_ms = pl_tail_quantile_ms(&tail, 0, 1),
               high_ms = pl_tail_quantile_ms(&tail, 1, 1);
        assert_true(low_ms <= ms && high_ms >= ms);
        assert_true(high_ms - low_ms <= ms / 8.0 + 1);
    }
}

static void test_what_is_longest_is_kept_in_the_last_bucket(void **state)
{
    (void)state;
    begin();
    pl_tail_add(&tail, UINT32_MAX);
    pl_tail_add(&tail, 1u << 19);
    assert_true(pl_tail_quantile_ms(&tail, 0.5, 1) >= 400000);
    assert_true(pl_tail_quantile_ms(&tail, 1, 1) <= 1 << 19);
}

static int compare(const void *a, const void *b)
{
    uint32_t first = *(const uint32_t *)a, second = *(const uint32_t *)b;
    return first < second ? -1 : first > second;
}

static void test_quantiles_of_many(void **state)
{
    enum { COUNT = 1000 };
    static const double ratios[] = {0.1, 0.5, 0.9, 0.95, 0.99};
    uint32_t all_ms[COUNT], seed = 7;
    (void)state;
    begin();
    for (size_t i = 0; i < COUNT; i++) {
        seed = seed * 1664525u + 1013904223u;
        all_ms[i] = 20 + (seed >> 8) % (i % 20 == 0 ? 9000 : 400);
        pl_tail_add(&tail, all_ms[i]);
    }
    qsort(all_ms, COUNT, sizeof(all_ms[0]), compare);
    for (size_t i = 0; i < PL_COUNT(ratios); i++) {
        /* where they lie far apart, the neighbours are as good */
        size_t rank = (size_t)(ratios[i] * COUNT);
        double low_ms = all_ms[rank - 5] * 0.87, high_ms = all_ms[rank + 5] * 1.14 + 1;
        double got_ms = pl_tail_quantile_ms(&tail, ratios[i], 20);
        assert_true(got_ms >= low_ms && got_ms <= high_ms);
    }
}

static void test_old_ones_are_forgotten(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 5000; i++)
        pl_tail_add(&tail, 8000);
    for (int i = 0; i < 1500; i++)
        pl_tail_add(&tail, 100);
    assert_true(tail.sum_count <= PL_TAIL_MAX_COUNT);
    assert_true(pl_tail_quantile_ms(&tail, 0.5, 20) < 120);
    for (int i = 0; i < 6000; i++)
        pl_tail_add(&tail, 100);
    assert_true(pl_tail_quantile_ms(&tail, 0.95, 20) < 120);
}

static void test_singles_in_every_bucket_stay_bounded(void **state)
{
    (void)state;
    begin();
    for (uint32_t round = 0; round < 50; round++) {
        for (uint32_t ms = 1; ms < 1u << 20; ms += 1 + ms / 10)
            pl_tail_add(&tail, ms);
    }
    uint32_t sum_count = 0;
    for (size_t i = 0; i < PL_TAIL_BUCKETS; i++)
        sum_count += tail.counts[i];
    assert_int_equal(sum_count, tail.sum_count);
    assert_true(sum_count <= PL_TAIL_MAX_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_too_few_say_nothing),
        cmocka_unit_test(test_short_ones_are_exact),
        cmocka_unit_test(test_any_duration_is_told_within_an_eighth),
        cmocka_unit_test(test_what_is_longest_is_kept_in_the_last_bucket),
        cmocka_unit_test(test_quantiles_of_many),
        cmocka_unit_test(test_old_ones_are_forgotten),
        cmocka_unit_test(test_singles_in_every_bucket_stay_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
