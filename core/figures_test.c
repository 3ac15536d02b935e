/*
 * Tests of figures.c: what counts as what, buckets against their promise, quantiles, and exact
 * totals under several threads with a reader who never sees a contradiction.
 */
#include "figures.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

static struct pl_figures *figures;

static int set_up(void **state)
{
    (void)state;
    figures = pl_figures_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pl_figures_free(figures);
    return 0;
}

static struct pl_figures_view look(void)
{
    struct pl_figures_view view;
    pl_figures_read(figures, &view);
    return view;
}

static void whole_request(struct pl_request_end end)
{
    pl_figures_begin(figures);
    pl_figures_end(figures, &end);
}

/* ---- results ---- */

static void assert_result(struct pl_request_end end, enum pl_request_result expected)
{
    assert_int_equal(pl_figures_result_of(&end), expected);
}

static void test_results(void **state)
{
    (void)state;
    assert_result((struct pl_request_end){.status = 200}, PL_RESULT_SUCCESS);
    assert_result((struct pl_request_end){.status = 302}, PL_RESULT_SUCCESS);
    assert_result((struct pl_request_end){.status = 399}, PL_RESULT_SUCCESS);
    assert_result((struct pl_request_end){.status = 400}, PL_RESULT_CLIENT_FAULT);
    assert_result((struct pl_request_end){.status = 499}, PL_RESULT_CLIENT_FAULT);
    assert_result((struct pl_request_end){.status = 500}, PL_RESULT_FAILURE);
    assert_result((struct pl_request_end){.status = 599}, PL_RESULT_FAILURE);
    assert_result((struct pl_request_end){.status = 0}, PL_RESULT_FAILURE);
    assert_result((struct pl_request_end){.status = 200, .broken = true}, PL_RESULT_FAILURE);
    assert_result((struct pl_request_end){.status = 404, .broken = true}, PL_RESULT_FAILURE);
    assert_result((struct pl_request_end){.status = 200, .broken = true, .client_gone = true},
                  PL_RESULT_CLIENT_GONE);
    assert_result((struct pl_request_end){.client_gone = true}, PL_RESULT_CLIENT_GONE);
}

static void test_counts(void **state)
{
    (void)state;
    whole_request((struct pl_request_end){.status = 200});
    whole_request((struct pl_request_end){.status = 200, .floor = true, .policy_fault = 1});
    whole_request((struct pl_request_end){.status = 503});
    whole_request((struct pl_request_end){.status = 404});
    whole_request((struct pl_request_end){.client_gone = true, .policy_fault = 2});
    pl_figures_begin(figures);
    struct pl_figures_view view = look();
    assert_int_equal(view.begun_count, 6);
    assert_int_equal(view.in_flight_count, 1);
    assert_int_equal(view.success_count, 2);
    assert_int_equal(view.failure_count, 1);
    assert_int_equal(view.client_fault_count, 1);
    assert_int_equal(view.client_gone_count, 1);
    assert_int_equal(view.floor_count, 1);
    assert_int_equal(pl_figures_ended_count(&view), 5);
    assert_int_equal(pl_figures_policy_fault_count(&view), 2);
    assert_int_equal(view.policy_fault_counts[PL_POLICY_FAULT_ERROR], 1);
    assert_int_equal(view.policy_fault_counts[PL_POLICY_FAULT_CPU_BURST], 1);
}

static void test_every_policy_fault_has_its_count_and_name(void **state)
{
    (void)state;
    static const char *const names[] = {"none",      "error",  "cpu_burst",
                                        "cpu_total", "memory", "no_answer"};
    for (int i = 0; i < PL_POLICY_FAULT_COUNT; i++) {
        whole_request((struct pl_request_end){.status = 500, .policy_fault = i});
        assert_string_equal(pl_policy_fault_name(i), names[i]);
    }
    struct pl_figures_view view = look();
    for (int i = 0; i < PL_POLICY_FAULT_COUNT; i++) {
        assert_int_equal(view.policy_fault_counts[i], i == PL_POLICY_FAULT_NONE ? 0 : 1);
    }
}

static void test_since_subtracts_all_but_what_is_in_flight(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        pl_figures_begin(figures);
    }
    pl_figures_first_token(figures, 10);
    pl_figures_end(figures, &(struct pl_request_end){.status = 200, .floor = true});
    struct pl_figures_view then = look();
    pl_figures_first_token(figures, 20);
    pl_figures_first_token(figures, 10);
    pl_figures_end(figures, &(struct pl_request_end){.status = 500, .policy_fault = 4});
    whole_request((struct pl_request_end){.status = 400});
    whole_request((struct pl_request_end){.client_gone = true, .floor = true});
    struct pl_figures_view since = look();
    pl_figures_since(&since, &then, &since);
    assert_int_equal(since.begun_count, 2);
    assert_int_equal(since.in_flight_count, 3);
    assert_int_equal(since.success_count, 0);
    assert_int_equal(since.failure_count, 1);
    assert_int_equal(since.client_fault_count, 1);
    assert_int_equal(since.client_gone_count, 1);
    assert_int_equal(since.floor_count, 1);
    assert_int_equal(pl_figures_policy_fault_count(&since), 1);
    assert_int_equal(pl_figures_ttft_count(&since), 2);
    assert_int_equal(since.ttft_counts[10], 1);
}

/* ---- buckets ---- */

static void test_every_time_is_in_its_bucket(void **state)
{
    (void)state;
    size_t last = 0;
    for (uint64_t ms = 0; ms < PL_FIGURES_TTFT_MAX_MS; ms++) {
        size_t bucket = pl_figures_ttft_bucket(ms);
        assert_true(bucket == last || bucket == last + 1);
        last = bucket;
        double error_ms = fabs(pl_figures_ttft_middle_ms(bucket) - (double)ms);
        if (ms < 16) {
            assert_true(error_ms == 0);
        } else {
            assert_true(error_ms <= (double)ms / 16);
        }
    }
    assert_int_equal(last, PL_FIGURES_TTFT_BUCKETS - 1);
}

static void test_the_last_bucket_takes_the_rest(void **state)
{
    (void)state;
    size_t last = PL_FIGURES_TTFT_BUCKETS - 1;
    assert_int_equal(pl_figures_ttft_bucket(PL_FIGURES_TTFT_MAX_MS), last);
    assert_int_equal(pl_figures_ttft_bucket(PL_FIGURES_TTFT_MAX_MS * 10ull), last);
    assert_int_equal(pl_figures_ttft_bucket(UINT64_MAX), last);
    assert_true(pl_figures_ttft_middle_ms(last) == PL_FIGURES_TTFT_MAX_MS);
}

static void test_quantiles(void **state)
{
    (void)state;
    struct pl_figures_view view = look();
    assert_true(pl_figures_ttft_ms(&view, 0.5) == 0);
    for (uint64_t ms = 1; ms <= 10; ms++) {
        pl_figures_first_token(figures, ms);
    }
    view = look();
    assert_true(pl_figures_ttft_ms(&view, 0) == 1);
    assert_true(pl_figures_ttft_ms(&view, 0.1) == 1);
    assert_true(pl_figures_ttft_ms(&view, 0.11) == 2);
    assert_true(pl_figures_ttft_ms(&view, 0.5) == 5);
    assert_true(pl_figures_ttft_ms(&view, 0.9) == 9);
    assert_true(pl_figures_ttft_ms(&view, 1) == 10);
    pl_figures_first_token(figures, UINT64_MAX);
    view = look();
    assert_true(pl_figures_ttft_ms(&view, 1) == PL_FIGURES_TTFT_MAX_MS);
}

static void test_quantiles_keep_their_error(void **state)
{
    (void)state;
    for (uint64_t ms = 1; ms <= 20000; ms++) {
        pl_figures_first_token(figures, ms);
    }
    struct pl_figures_view view = look();
    for (int percent = 1; percent <= 100; percent++) {
        double true_ms = percent * 200.0;
        double ms = pl_figures_ttft_ms(&view, percent / 100.0);
        assert_true(fabs(ms - true_ms) <= true_ms / 16 + 1);
    }
}

/* ---- threads ---- */

#define WRITER_COUNT  4
#define REQUEST_COUNT 40000u

static atomic_int writers_left;

static void *write_requests(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < REQUEST_COUNT; i++) {
        struct pl_request_end end = {
            .status = i % 4 == 0   ? 500
                      : i % 4 == 1 ? 404
                                   : 200,
            .client_gone = i % 4 == 3,
            .floor = i % 5 == 0,
            .policy_fault = i % PL_POLICY_FAULT_COUNT,
        };
        pl_figures_begin(figures);
        pl_figures_first_token(figures, (i * 7 + seed) % 5000);
        pl_figures_end(figures, &end);
    }
    atomic_fetch_sub(&writers_left, 1);
    return NULL;
}

static void assert_no_contradiction(const struct pl_figures_view *view)
{
    uint64_t ended_count = pl_figures_ended_count(view);
    assert_true(view->begun_count >= ended_count);
    assert_int_equal(view->in_flight_count, view->begun_count - ended_count);
    assert_true(pl_figures_policy_fault_count(view) <= ended_count);
    assert_true(view->floor_count <= ended_count);
    assert_true(pl_figures_ttft_count(view) <= view->begun_count);
}

static void test_threads_lose_nothing(void **state)
{
    (void)state;
    pthread_t writers[WRITER_COUNT];
    atomic_store(&writers_left, WRITER_COUNT);
    for (uintptr_t i = 0; i < WRITER_COUNT; i++) {
        assert_int_equal(pthread_create(&writers[i], NULL, write_requests, (void *)i), 0);
    }
    struct pl_figures_view before = look();
    while (atomic_load(&writers_left) > 0) {
        struct pl_figures_view view = look();
        assert_no_contradiction(&view);
        assert_true(view.begun_count >= before.begun_count);
        assert_true(view.success_count >= before.success_count);
        before = view;
    }
    for (size_t i = 0; i < WRITER_COUNT; i++) {
        assert_int_equal(pthread_join(writers[i], NULL), 0);
    }
    struct pl_figures_view view = look();
    assert_int_equal(view.begun_count, WRITER_COUNT * REQUEST_COUNT);
    assert_int_equal(view.in_flight_count, 0);
    assert_int_equal(view.failure_count, WRITER_COUNT * REQUEST_COUNT / 4);
    assert_int_equal(view.client_fault_count, WRITER_COUNT * REQUEST_COUNT / 4);
    assert_int_equal(view.success_count, WRITER_COUNT * REQUEST_COUNT / 4);
    assert_int_equal(view.client_gone_count, WRITER_COUNT * REQUEST_COUNT / 4);
    assert_int_equal(view.floor_count, WRITER_COUNT * REQUEST_COUNT / 5);
    assert_int_equal(view.policy_fault_counts[PL_POLICY_FAULT_NONE], 0);
    /* 40000 is no multiple of 6: the kinds 0 to 3 come once more. */
    assert_int_equal(view.policy_fault_counts[PL_POLICY_FAULT_ERROR], WRITER_COUNT * 6667);
    assert_int_equal(view.policy_fault_counts[PL_POLICY_FAULT_NO_ANSWER], WRITER_COUNT * 6666);
    assert_int_equal(pl_figures_ttft_count(&view), WRITER_COUNT * REQUEST_COUNT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_results),
        TEST(test_counts),
        TEST(test_every_policy_fault_has_its_count_and_name),
        TEST(test_since_subtracts_all_but_what_is_in_flight),
        TEST(test_every_time_is_in_its_bucket),
        TEST(test_the_last_bucket_takes_the_rest),
        TEST(test_quantiles),
        TEST(test_quantiles_keep_their_error),
        TEST(test_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
