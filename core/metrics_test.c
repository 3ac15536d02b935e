/*
 * Tests of metrics.c and its parts: what counts as what, bounds on keys, exact totals over several
 * threads, and the text that is made of it.
 */
#include "metrics.h"
#include "metrics_write.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pl_metrics *metrics;

static int set_up(void **state)
{
    (void)state;
    metrics = pl_metrics_new(4);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pl_metrics_free(metrics);
    return 0;
}

/* A request that one target served well; tests change what they are about. */
static struct pl_record good_record(const struct pl_record_attempt *attempts, size_t count)
{
    return (struct pl_record){
        .route = "chat",
        .model_match = "gpt-*",
        .policy = "fallback",
        .target = attempts ? attempts[count - 1].target : NULL,
        .status = 200,
        .end = PL_END_COMPLETE,
        .duration_ms = 40,
        .first_token_ms = PL_UNKNOWN_MS,
        .input_tokens = -1,
        .output_tokens = -1,
        .cached_tokens = -1,
        .reasoning_tokens = -1,
        .attempts = attempts,
        .attempt_count = count,
    };
}

static struct pl_record_attempt attempt_of(const char *target, int status, enum pl_class class)
{
    return (struct pl_record_attempt){
        .target = target,
        .provider = "p",
        .status = status,
        .class = class,
        .connect_ms = 1,
        .head_ms = 20,
        .first_token_ms = 20,
        .total_ms = 30,
    };
}

/* One cell of a series, summed over the workers; 0 when there is no such series. */
static uint64_t cell(enum pl_metrics_kind kind, const char *a, const char *b, size_t at)
{
    uint64_t cells[PL_METRICS_CELLS_MAX];
    for (size_t i = 0; i < pl_metrics_series_count(metrics, kind); i++) {
        const char *key[2];
        pl_metrics_key(metrics, kind, i, key);
        if (strcmp(key[0], a) == 0 && strcmp(key[1], b) == 0) {
            pl_metrics_read(metrics, kind, i, cells);
            return cells[at];
        }
    }
    return 0;
}

/* The whole text, written in pieces of `max_bytes`; to be freed. */
static char *text_in_pieces(size_t max_bytes)
{
    struct pl_metrics_text text;
    struct pl_metrics_cursor cursor = {0};
    pl_metrics_text_init(&text);
    while (pl_metrics_write(metrics, &cursor, max_bytes, &text))
        ;
    char *copy = pl_xstrndup(text.data, text.len);
    pl_metrics_text_deinit(&text);
    return copy;
}

static void assert_line(const char *line)
{
    char *text = text_in_pieces(SIZE_MAX / 2);
    char needle[512];
    snprintf(needle, sizeof(needle), "\n%s\n", line);
    if (!strstr(text, needle))
        fail_msg("no line %s in:\n%s", line, text);
    free(text);
}

static void assert_no_line_with(const char *part)
{
    char *text = text_in_pieces(SIZE_MAX / 2);
    if (strstr(text, part))
        fail_msg("%s is in:\n%s", part, text);
    free(text);
}

/* ---- what counts as what ---- */

static void test_one_request(void **state)
{
    (void)state;
    struct pl_record_attempt attempt = attempt_of("a/m", 200, PL_CLASS_OK);
    struct pl_record record = good_record(&attempt, 1);
    record.input_tokens = 7;
    record.output_tokens = 11;
    record.cached_tokens = 3;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_requests_total{route=\"chat\",model=\"gpt-*\",status_class=\"2xx\","
                "end=\"complete\"} 1");
    assert_line("perilune_retries_total{route=\"chat\"} 0");
    assert_line("perilune_fallbacks_total{route=\"chat\"} 0");
    assert_line("perilune_attempts_total{target=\"a/m\",class=\"ok\"} 1");
    assert_line("perilune_attempt_responses_total{target=\"a/m\",status_class=\"2xx\"} 1");
    assert_line("perilune_attempt_connections_total{target=\"a/m\",reused=\"false\"} 1");
    assert_line("perilune_tokens_total{target=\"a/m\",type=\"input\"} 7");
    assert_line("perilune_tokens_total{target=\"a/m\",type=\"output\"} 11");
    assert_line("perilune_cached_tokens_total{target=\"a/m\"} 3");
    assert_line("perilune_reasoning_tokens_total{target=\"a/m\"} 0");
    assert_line("perilune_policy_errors_total{policy=\"fallback\",kind=\"error\"} 0");
    assert_line("perilune_policy_floor_total{policy=\"fallback\"} 0");
    assert_no_line_with("\"other\"");
    assert_no_line_with("time_to_first_token_seconds_bucket");
}

static void test_refused_request(void **state)
{
    (void)state;
    struct pl_record record = good_record(NULL, 0);
    record.route = record.model_match = record.policy = NULL;
    record.model = PL_STR("whatever a client writes");
    record.status = 400;
    record.end = PL_END_REFUSED;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_requests_total{route=\"none\",model=\"other\",status_class=\"4xx\","
                "end=\"refused\"} 1");
    assert_no_line_with("a client writes");
    assert_no_line_with("policy_errors_total{");
}

static void test_no_answer_at_all(void **state)
{
    (void)state;
    struct pl_record_attempt attempt = attempt_of("a", 0, PL_CLASS_NONE);
    attempt.connect_ms = attempt.total_ms = PL_UNKNOWN_MS;
    struct pl_record record = good_record(&attempt, 1);
    record.target = NULL;
    record.status = 0;
    record.end = PL_END_CLIENT_GONE;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_requests_total{route=\"chat\",model=\"gpt-*\",status_class=\"none\","
                "end=\"client_gone\"} 1");
    assert_line("perilune_attempts_total{target=\"a\",class=\"abandoned\"} 1");
    assert_line("perilune_attempt_responses_total{target=\"a\",status_class=\"none\"} 1");
    assert_line("perilune_attempt_duration_seconds_count{target=\"a\"} 0");
    assert_line("perilune_attempt_connections_total{target=\"a\",reused=\"false\"} 0");
}

static void test_retry_at_the_same_target(void **state)
{
    (void)state;
    struct pl_record_attempt attempts[] = {attempt_of("a", 503, PL_CLASS_OVERLOADED),
                                           attempt_of("a", 503, PL_CLASS_OVERLOADED),
                                           attempt_of("a", 200, PL_CLASS_OK)};
    struct pl_record record = good_record(attempts, 3);
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_retries_total{route=\"chat\"} 2");
    assert_line("perilune_retry_success_total{route=\"chat\"} 1");
    assert_line("perilune_fallbacks_total{route=\"chat\"} 0");
    assert_line("perilune_attempts_total{target=\"a\",class=\"overloaded\"} 2");
    assert_line("perilune_attempt_responses_total{target=\"a\",status_class=\"5xx\"} 2");
}

static void test_fallback(void **state)
{
    (void)state;
    struct pl_record_attempt attempts[] = {attempt_of("a", 0, PL_CLASS_CONNECT),
                                           attempt_of("b", 200, PL_CLASS_OK)};
    struct pl_record record = good_record(attempts, 2);
    record.input_tokens = 5;
    attempts[1].reused = true;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_retries_total{route=\"chat\"} 1");
    assert_line("perilune_retry_success_total{route=\"chat\"} 1");
    assert_line("perilune_fallbacks_total{route=\"chat\"} 1");
    assert_line("perilune_attempts_total{target=\"a\",class=\"connect\"} 1");
    assert_line("perilune_tokens_total{target=\"a\",type=\"input\"} 0");
    assert_line("perilune_tokens_total{target=\"b\",type=\"input\"} 5");
    assert_line("perilune_attempt_connections_total{target=\"b\",reused=\"true\"} 1");
    assert_line("perilune_attempt_connections_total{target=\"b\",reused=\"false\"} 0");
}

/* The first choice was out, so nothing was tried there. */
static void test_fallback_at_once(void **state)
{
    (void)state;
    struct pl_record_attempt attempt = attempt_of("b", 200, PL_CLASS_OK);
    struct pl_record record = good_record(&attempt, 1);
    attempt.is_fallback = true;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_retries_total{route=\"chat\"} 0");
    assert_line("perilune_fallbacks_total{route=\"chat\"} 1");
}

/* The one that serves is the last, so the loser may stand before it whichever was asked first. */
static void test_hedged(void **state)
{
    (void)state;
    uint8_t hedges[PL_HEDGE_COUNT] = {[PL_HEDGE_FIRST] = 1, [PL_HEDGE_NO_BUDGET] = 2};
    struct pl_record_attempt attempts[] = {attempt_of("b", 0, PL_CLASS_HEDGE_LOST),
                                           attempt_of("a", 200, PL_CLASS_OK)};
    struct pl_record record = good_record(attempts, 2);
    attempts[0].is_hedge = true;
    attempts[0].input_tokens = 9;
    attempts[0].output_tokens = -1;
    record.target = "a";
    record.input_tokens = 5;
    record.hedges = hedges;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_hedges_total{route=\"chat\",result=\"first\"} 1");
    assert_line("perilune_hedges_total{route=\"chat\",result=\"second\"} 0");
    assert_line("perilune_hedges_total{route=\"chat\",result=\"no_budget\"} 2");
    assert_line("perilune_retries_total{route=\"chat\"} 0");
    assert_line("perilune_fallbacks_total{route=\"chat\"} 0");
    assert_line("perilune_attempts_total{target=\"b\",class=\"hedge_lost\"} 1");
    assert_line("perilune_tokens_total{target=\"b\",type=\"input\"} 9");
    assert_line("perilune_tokens_total{target=\"b\",type=\"output\"} 0");
    assert_line("perilune_tokens_total{target=\"a\",type=\"input\"} 5");
}

/* Two failed at once, a third one answered: that one is a retry. */
static void test_retry_after_a_hedge(void **state)
{
    (void)state;
    uint8_t hedges[PL_HEDGE_COUNT] = {[PL_HEDGE_NONE] = 1};
    struct pl_record_attempt attempts[] = {attempt_of("b", 503, PL_CLASS_OVERLOADED),
                                           attempt_of("a", 500, PL_CLASS_SERVER_ERROR),
                                           attempt_of("c", 200, PL_CLASS_OK)};
    struct pl_record record = good_record(attempts, 3);
    attempts[0].is_hedge = true;
    record.hedges = hedges;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_hedges_total{route=\"chat\",result=\"none\"} 1");
    assert_line("perilune_retries_total{route=\"chat\"} 1");
    assert_line("perilune_retry_success_total{route=\"chat\"} 1");
    assert_line("perilune_fallbacks_total{route=\"chat\"} 1");
}

static void test_retries_without_success(void **state)
{
    (void)state;
    struct pl_record_attempt attempts[] = {attempt_of("a", 503, PL_CLASS_OVERLOADED),
                                           attempt_of("b", 500, PL_CLASS_SERVER_ERROR)};
    struct pl_record record = good_record(attempts, 2);
    record.status = 500;
    pl_metrics_add(metrics, 0, &record);
    /* a good head and then a broken stream is no success, either */
    attempts[1].class = PL_CLASS_OK;
    record.end = PL_END_CUT;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_retries_total{route=\"chat\"} 2");
    assert_line("perilune_retry_success_total{route=\"chat\"} 0");
    assert_line("perilune_fallbacks_total{route=\"chat\"} 2");
}

static void test_rescues(void **state)
{
    (void)state;
    struct pl_record_attempt attempts[] = {attempt_of("a", 200, PL_CLASS_TRUNCATED),
                                           attempt_of("b", 200, PL_CLASS_OK)};
    struct pl_record record = good_record(attempts, 2);
    pl_metrics_add(metrics, 0, &record); /* another try is not a rescue yet */
    assert_line("perilune_rescues_total{route=\"chat\",end=\"complete\"} 0");
    attempts[1].resumes = "continue";
    attempts[0].malformed_event_count = 3;
    pl_metrics_add(metrics, 0, &record);
    record.end = PL_END_CUT;
    pl_metrics_add(metrics, 0, &record);
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_rescues_total{route=\"chat\",end=\"complete\"} 1");
    assert_line("perilune_rescues_total{route=\"chat\",end=\"cut\"} 2");
    assert_line("perilune_malformed_events_total{target=\"a\"} 9");
    assert_line("perilune_malformed_events_total{target=\"b\"} 0");
}

static void test_stream_times(void **state)
{
    (void)state;
    struct pl_record_attempt attempt = attempt_of("a", 200, PL_CLASS_OK);
    struct pl_record record = good_record(&attempt, 1);
    attempt.first_token_ms = 100;
    attempt.total_ms = 400;
    record.stream = true;
    record.first_token_ms = 250; /* exactly on a bound: within */
    record.output_tokens = 11;   /* ten gaps in 300 ms */
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_time_to_first_token_seconds_bucket{route=\"chat\",target=\"a\","
                "le=\"0.1\"} 0");
    assert_line("perilune_time_to_first_token_seconds_bucket{route=\"chat\",target=\"a\","
                "le=\"0.25\"} 1");
    assert_line("perilune_time_to_first_token_seconds_sum{route=\"chat\",target=\"a\"} 0.25");
    assert_line("perilune_time_per_output_token_seconds_bucket{target=\"a\",le=\"0.02\"} 0");
    assert_line("perilune_time_per_output_token_seconds_bucket{target=\"a\",le=\"0.03\"} 1");
    assert_line("perilune_time_per_output_token_seconds_sum{target=\"a\"} 0.03");
}

/* One token has no time between tokens, and an answer that broke off has not told its count. */
static void test_times_that_are_not_known(void **state)
{
    (void)state;
    struct pl_record_attempt attempt = attempt_of("a", 200, PL_CLASS_OK);
    struct pl_record record = good_record(&attempt, 1);
    record.stream = true;
    record.output_tokens = 1;
    pl_metrics_add(metrics, 0, &record);
    record.output_tokens = 20;
    record.end = PL_END_CUT;
    pl_metrics_add(metrics, 0, &record);
    record.end = PL_END_COMPLETE;
    attempt.first_token_ms = PL_UNKNOWN_MS;
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_time_per_output_token_seconds_count{target=\"a\"} 0");
    assert_no_line_with("time_to_first_token_seconds_count");
}

static void test_histogram_ends(void **state)
{
    (void)state;
    struct pl_record record = good_record(NULL, 0);
    const uint32_t durations_ms[] = {0, 5, 6, 120000, 120001, 4000000000u};
    for (size_t i = 0; i < PL_COUNT(durations_ms); i++) {
        record.duration_ms = durations_ms[i];
        pl_metrics_add(metrics, i % 4, &record);
    }
    assert_line("perilune_request_duration_seconds_bucket{route=\"chat\",le=\"0.005\"} 2");
    assert_line("perilune_request_duration_seconds_bucket{route=\"chat\",le=\"0.01\"} 3");
    assert_line("perilune_request_duration_seconds_bucket{route=\"chat\",le=\"60\"} 3");
    assert_line("perilune_request_duration_seconds_bucket{route=\"chat\",le=\"120\"} 4");
    assert_line("perilune_request_duration_seconds_bucket{route=\"chat\",le=\"+Inf\"} 6");
    assert_line("perilune_request_duration_seconds_count{route=\"chat\"} 6");
    assert_line("perilune_request_duration_seconds_sum{route=\"chat\"} 4000240.012");
}

static void test_policy_failures(void **state)
{
    (void)state;
    struct pl_record record = good_record(NULL, 0);
    record.policy_fault = "cpu_burst";
    record.floor = true;
    pl_metrics_add(metrics, 0, &record);
    record.policy_fault = "of a kind to come";
    record.floor = false;
    pl_metrics_add(metrics, 1, &record);
    assert_line("perilune_policy_errors_total{policy=\"fallback\",kind=\"cpu_burst\"} 1");
    assert_line("perilune_policy_errors_total{policy=\"fallback\",kind=\"memory\"} 0");
    assert_line("perilune_policy_errors_total{policy=\"fallback\",kind=\"other\"} 1");
    assert_line("perilune_policy_floor_total{policy=\"fallback\"} 1");
}

static void test_statuses(void **state)
{
    (void)state;
    static const struct {
        int status;
        enum pl_metrics_status class;
    } cases[] = {{0, PL_METRICS_STATUS_NONE},
                 {99, PL_METRICS_STATUS_NONE},
                 {100, PL_METRICS_1XX},
                 {204, PL_METRICS_2XX},
                 {399, PL_METRICS_3XX},
                 {499, PL_METRICS_4XX},
                 {500, PL_METRICS_5XX},
                 {599, PL_METRICS_5XX},
                 {600, 0},
                 {-1, 0}};
    uint64_t expected[PL_METRICS_STATUSES] = {0};
    struct pl_record record = good_record(NULL, 0);
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        record.status = cases[i].status;
        expected[cases[i].class]++;
        pl_metrics_add(metrics, 0, &record);
    }
    for (size_t status = 0; status < PL_METRICS_STATUSES; status++)
        assert_int_equal(cell(PL_METRICS_REQUESTS, "chat", "gpt-*",
                              PL_METRICS_REQUEST_CELL(status, PL_END_COMPLETE)),
                         expected[status]);
}

/* ---- keys ---- */

static void test_keys_are_bounded(void **state)
{
    (void)state;
    char target[32];
    const size_t beyond = 1000;
    for (size_t i = 0; i < PL_METRICS_TARGETS_MAX - 1 + beyond; i++) {
        snprintf(target, sizeof(target), "t%zu", i);
        struct pl_record_attempt attempt = attempt_of(target, 200, PL_CLASS_OK);
        struct pl_record record = good_record(&attempt, 1);
        pl_metrics_add(metrics, i % 4, &record);
    }
    assert_int_equal(pl_metrics_series_count(metrics, PL_METRICS_TARGET), PL_METRICS_TARGETS_MAX);
    assert_int_equal(cell(PL_METRICS_TARGET, "other", "", PL_CLASS_OK), beyond);
    assert_int_equal(cell(PL_METRICS_TARGET, "t0", "", PL_CLASS_OK), 1);
    snprintf(target, sizeof(target), "t%d", PL_METRICS_TARGETS_MAX - 2);
    assert_int_equal(cell(PL_METRICS_TARGET, target, "", PL_CLASS_OK), 1);
    /* one that is known is found among the full, by each worker */
    struct pl_record_attempt attempt = attempt_of("t0", 200, PL_CLASS_OK);
    struct pl_record record = good_record(&attempt, 1);
    pl_metrics_add(metrics, 3, &record);
    assert_int_equal(cell(PL_METRICS_TARGET, "t0", "", PL_CLASS_OK), 2);
}

static void test_pairs_are_told_apart(void **state)
{
    (void)state;
    struct pl_record record = good_record(NULL, 0);
    record.route = "ab";
    record.model_match = "c";
    pl_metrics_add(metrics, 0, &record);
    record.route = "a";
    record.model_match = "bc";
    pl_metrics_add(metrics, 0, &record);
    record.route = "bc";
    record.model_match = "a";
    pl_metrics_add(metrics, 0, &record);
    size_t at = PL_METRICS_REQUEST_CELL(PL_METRICS_2XX, PL_END_COMPLETE);
    assert_int_equal(cell(PL_METRICS_REQUESTS, "ab", "c", at), 1);
    assert_int_equal(cell(PL_METRICS_REQUESTS, "a", "bc", at), 1);
    assert_int_equal(cell(PL_METRICS_REQUESTS, "bc", "a", at), 1);
    assert_int_equal(pl_metrics_series_count(metrics, PL_METRICS_REQUESTS), 4);
}

/* The names that a record borrows are gone after the call. */
static void test_keys_are_copied(void **state)
{
    (void)state;
    char route[] = "first";
    struct pl_record record = good_record(NULL, 0);
    record.route = route;
    pl_metrics_add(metrics, 0, &record);
    memcpy(route, "other", sizeof(route));
    assert_line("perilune_retries_total{route=\"first\"} 0");
}

/* ---- the text ---- */

static void test_label_values_are_escaped(void **state)
{
    (void)state;
    struct pl_record record = good_record(NULL, 0);
    record.route = "a\"b\\c\nd\t\xc3\xa4\xff\xe2\x82";
    pl_metrics_add(metrics, 0, &record);
    assert_line("perilune_retries_total{route=\"a\\\"b\\\\c\\nd\t\xc3\xa4???\"} 0");
}

static void test_pieces_make_the_same_text(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 100, 1000, 10000};
    char target[32];
    for (int i = 0; i < 50; i++) {
        snprintf(target, sizeof(target), "t%d", i);
        struct pl_record_attempt attempt = attempt_of(target, 200, PL_CLASS_OK);
        struct pl_record record = good_record(&attempt, 1);
        record.stream = true;
        record.first_token_ms = 20;
        pl_metrics_add(metrics, 0, &record);
    }
    char *whole = text_in_pieces(SIZE_MAX / 2);
    for (size_t i = 0; i < PL_COUNT(sizes); i++) {
        char *pieces = text_in_pieces(sizes[i]);
        assert_string_equal(pieces, whole);
        free(pieces);
    }
    free(whole);
}

static void test_numbers(void **state)
{
    (void)state;
    struct pl_metrics_text text;
    pl_metrics_text_init(&text);
    pl_metrics_text_family(&text, "x", "gauge", "Help.");
    pl_metrics_text_count(&text, UINT64_MAX);
    pl_metrics_text_seconds(&text, 1234567, 1000000);
    pl_metrics_text_seconds(&text, 120000, 1000);
    pl_metrics_text_seconds(&text, 5, 1000000);
    pl_metrics_text_label(&text, "a", "b");
    size_t len = text.labels_len;
    pl_metrics_text_label(&text, "c", "");
    pl_metrics_text_number(&text, 0.25);
    pl_metrics_text_relabel(&text, len);
    pl_metrics_text_count(&text, 1);
    char *copy = pl_xstrndup(text.data, text.len);
    assert_string_equal(copy, "# HELP perilune_x Help.\n"
                              "# TYPE perilune_x gauge\n"
                              "perilune_x 18446744073709551615\n"
                              "perilune_x 1.234567\n"
                              "perilune_x 120\n"
                              "perilune_x 0.000005\n"
                              "perilune_x{a=\"b\",c=\"\"} 0.250000\n"
                              "perilune_x{a=\"b\"} 1\n");
    free(copy);
    pl_metrics_text_deinit(&text);
}

static void test_levels(void **state)
{
    (void)state;
    struct pl_metrics_levels levels = {1, 2, 3, 4, 5, 6}, seen;
    pl_metrics_publish(metrics, 2, &levels);
    pl_metrics_levels_of(metrics, 2, &seen);
    assert_memory_equal(&seen, &levels, sizeof(levels));
    pl_metrics_levels_of(metrics, 1, &seen);
    assert_int_equal(seen.loop_lag_us, 0);
    assert_int_equal(pl_metrics_worker_count(metrics), 4);
}

/* ---- threads ---- */

#define THREAD_REQUESTS 20000

static void *count_many(void *arg)
{
    size_t worker = (size_t)(uintptr_t)arg;
    char target[32];
    for (size_t i = 0; i < THREAD_REQUESTS; i++) {
        snprintf(target, sizeof(target), "t%zu", i % 300);
        struct pl_record_attempt attempts[] = {attempt_of(target, 503, PL_CLASS_OVERLOADED),
                                               attempt_of("last", 200, PL_CLASS_OK)};
        struct pl_record record = good_record(attempts, 2);
        pl_metrics_add(metrics, worker, &record);
    }
    return NULL;
}

/* While they count, a reader sees counts that only grow; in the end nothing is lost. */
static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    uint64_t last = 0;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_many, (void *)(uintptr_t)i), 0);
    while (last < 4 * THREAD_REQUESTS) {
        uint64_t now = cell(PL_METRICS_TARGET, "last", "", PL_CLASS_OK);
        assert_true(now >= last);
        last = now;
        free(text_in_pieces(SIZE_MAX / 2));
    }
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    uint64_t sum = 0;
    for (size_t i = 0; i < 300; i++) {
        char target[32];
        snprintf(target, sizeof(target), "t%zu", i);
        sum += cell(PL_METRICS_TARGET, target, "", PL_CLASS_OVERLOADED);
    }
    assert_int_equal(sum, 4 * THREAD_REQUESTS);
    assert_int_equal(cell(PL_METRICS_ROUTE, "chat", "", PL_METRICS_ROUTE_FALLBACKS),
                     4 * THREAD_REQUESTS);
    assert_int_equal(pl_metrics_series_count(metrics, PL_METRICS_TARGET), 302);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_one_request),
        TEST(test_refused_request),
        TEST(test_no_answer_at_all),
        TEST(test_retry_at_the_same_target),
        TEST(test_fallback),
        TEST(test_fallback_at_once),
        TEST(test_hedged),
        TEST(test_retry_after_a_hedge),
        TEST(test_retries_without_success),
        TEST(test_rescues),
        TEST(test_stream_times),
        TEST(test_times_that_are_not_known),
        TEST(test_histogram_ends),
        TEST(test_policy_failures),
        TEST(test_statuses),
        TEST(test_keys_are_bounded),
        TEST(test_pairs_are_told_apart),
        TEST(test_keys_are_copied),
        TEST(test_label_values_are_escaped),
        TEST(test_pieces_make_the_same_text),
        TEST(test_numbers),
        TEST(test_levels),
        TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
