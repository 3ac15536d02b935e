/*
 * Tests of otlp.c: whole documents, byte by byte, and hostile texts in them.
 */
#include "json.h"
#include "otlp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pl_record chat_record(void)
{
    static const struct pl_record_attempt attempts[] = {
        {.target = "primary/gpt-4",
         .provider = "primary",
         .model = "gpt-4",
         .endpoint_host = "10.0.0.1",
         .endpoint_port = 8443,
         .class = PL_CLASS_CONNECT,
         .start_ms = 1,
         .wait_ms = 1,
         .connect_ms = PL_UNKNOWN_MS,
         .head_ms = PL_UNKNOWN_MS,
         .first_token_ms = PL_UNKNOWN_MS,
         .total_ms = 30,
         .detail = "connect to 10.0.0.1:8443: Connection refused",
         .span_id = 0x11},
        {.target = "fallback/small",
         .provider = "fallback",
         .endpoint_host = "fallback.internal",
         .endpoint_port = 80,
         .status = 200,
         .class = PL_CLASS_OK,
         .start_ms = 131,
         .wait_ms = 100,
         .connect_ms = PL_UNKNOWN_MS,
         .head_ms = 20,
         .first_token_ms = 25,
         .total_ms = 369,
         .body_bytes = 2048,
         .reused = true,
         .resumes = "continue",
         .span_id = 0x22},
    };
    return (struct pl_record){
        .id = "req-1",
        .start_wall_ms = 1767614400123,
        .duration_ms = 500,
        .method = PL_STR("POST"),
        .path = PL_STR("/v1/chat/completions"),
        .peer = PL_STR("127.0.0.1"),
        .operation = "chat",
        .route = "main",
        .policy = "fallback",
        .model = PL_STR("virtual"),
        .response_model = "small-2026",
        .provider = "fallback",
        .target = "fallback/small",
        .stream = true,
        .status = 200,
        .end = PL_END_COMPLETE,
        .first_token_ms = 156,
        .request_body_bytes = 100,
        .response_body_bytes = 2048,
        .generation = 3,
        .input_tokens = 12,
        .output_tokens = 34,
        .cached_tokens = -1,
        .reasoning_tokens = 0,
        .trace = {.id_high = 0x4bf92f3577b34da6u,
                  .id_low = 0xa3ce929d0e0e4736u,
                  .span_id = 0x0123456789abcdefu,
                  .parent_span_id = 0x00f067aa0ba902b7u,
                  .sampled = true,
                  .random = true},
        .attempts = attempts,
        .attempt_count = PL_COUNT(attempts),
    };
}

#define S(key, value) "{\"key\":\"" key "\",\"value\":{\"stringValue\":\"" value "\"}}"
#define I(key, value) "{\"key\":\"" key "\",\"value\":{\"intValue\":\"" #value "\"}}"
#define T(key)        "{\"key\":\"" key "\",\"value\":{\"boolValue\":true}}"
#define D(key, value) "{\"key\":\"" key "\",\"value\":{\"doubleValue\":" #value "}}"
#define TRACE         "\"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\""

/* clang-format off */
static const char CHAT_SPANS[] =
    "{" TRACE ",\"spanId\":\"0123456789abcdef\",\"parentSpanId\":\"00f067aa0ba902b7\","
    "\"flags\":771,\"name\":\"POST /v1/chat/completions\",\"kind\":2,"
    "\"startTimeUnixNano\":\"1767614400123000000\","
    "\"endTimeUnixNano\":\"1767614400623000000\","
    "\"attributes\":["
    S("url.scheme", "http") ","
    S("http.request.method", "POST") ","
    S("url.path", "/v1/chat/completions") ","
    S("http.route", "/v1/chat/completions") ","
    S("client.address", "127.0.0.1") ","
    I("http.response.status_code", 200) ","
    I("http.request.body.size", 100) ","
    I("http.response.body.size", 2048) ","
    S("gen_ai.operation.name", "chat") ","
    S("gen_ai.provider.name", "fallback") ","
    S("gen_ai.request.model", "virtual") ","
    T("gen_ai.request.stream") ","
    S("gen_ai.response.model", "small-2026") ","
    I("gen_ai.usage.input_tokens", 12) ","
    I("gen_ai.usage.output_tokens", 34) ","
    I("gen_ai.usage.reasoning.output_tokens", 0) ","
    D("gen_ai.response.time_to_first_chunk", 0.156) ","
    S("perilune.request_id", "req-1") ","
    S("perilune.route", "main") ","
    S("perilune.policy", "fallback") ","
    S("perilune.target", "fallback/small") ","
    I("perilune.generation", 3) ","
    I("perilune.attempts", 2) ","
    S("perilune.end", "complete")
    "]}"
    ",{" TRACE ",\"spanId\":\"0000000000000011\",\"parentSpanId\":\"0123456789abcdef\","
    "\"flags\":259,\"name\":\"chat gpt-4\",\"kind\":3,"
    "\"startTimeUnixNano\":\"1767614400124000000\","
    "\"endTimeUnixNano\":\"1767614400154000000\","
    "\"attributes\":["
    S("perilune.target", "primary/gpt-4") ","
    S("gen_ai.operation.name", "chat") ","
    S("gen_ai.provider.name", "primary") ","
    S("gen_ai.request.model", "gpt-4") ","
    T("gen_ai.request.stream") ","
    S("server.address", "10.0.0.1") ","
    I("server.port", 8443) ","
    S("http.request.method", "POST") ","
    S("perilune.class", "connect") ","
    I("perilune.wait_ms", 1) ","
    S("error.type", "connect")
    "],\"status\":{\"code\":2,\"message\":\"connect to 10.0.0.1:8443: Connection refused\"}}"
    ",{" TRACE ",\"spanId\":\"0000000000000022\",\"parentSpanId\":\"0123456789abcdef\","
    "\"flags\":259,\"name\":\"chat fallback/small\",\"kind\":3,"
    "\"startTimeUnixNano\":\"1767614400254000000\","
    "\"endTimeUnixNano\":\"1767614400623000000\","
    "\"attributes\":["
    S("perilune.target", "fallback/small") ","
    S("gen_ai.operation.name", "chat") ","
    S("gen_ai.provider.name", "fallback") ","
    S("gen_ai.request.model", "virtual") ","
    T("gen_ai.request.stream") ","
    S("server.address", "fallback.internal") ","
    I("server.port", 80) ","
    S("http.request.method", "POST") ","
    I("http.response.status_code", 200) ","
    I("http.request.resend_count", 1) ","
    I("http.response.body.size", 2048) ","
    S("perilune.class", "ok") ","
    T("perilune.connection.reused") "," S("perilune.resumes", "continue") ","
    I("perilune.wait_ms", 100) ","
    I("perilune.head_ms", 20) ","
    S("gen_ai.response.model", "small-2026") ","
    I("gen_ai.usage.input_tokens", 12) ","
    I("gen_ai.usage.output_tokens", 34) ","
    I("gen_ai.usage.reasoning.output_tokens", 0)
    "],\"events\":[{\"timeUnixNano\":\"1767614400279000000\","
    "\"name\":\"perilune.first_token\"}]}";
/* clang-format on */

static const char *put(struct pl_otlp_text *text, const struct pl_record *record)
{
    text->len = 0;
    pl_otlp_put_spans(text, record, "http");
    text->data[text->len] = '\0';
    return text->data;
}

/* The spans of a record in a whole document, which any JSON reader must accept. */
static void assert_is_json(const struct pl_record *record)
{
    struct pl_otlp_text text;
    pl_otlp_text_init(&text);
    pl_otlp_put_head(&text, NULL, 0);
    assert_int_equal(pl_otlp_put_spans(&text, record, "https"), 1 + record->attempt_count);
    pl_otlp_put_tail(&text);
    assert_int_equal(pl_json_validate(text.data, text.len), PL_OK);
    pl_otlp_text_deinit(&text);
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no %s in %s", part, text);
}

static void assert_has_not(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("%s in %s", part, text);
}

static void test_a_chat_over_two_targets(void **state)
{
    (void)state;
    struct pl_otlp_text text;
    struct pl_record record = chat_record();
    pl_otlp_text_init(&text);
    assert_string_equal(put(&text, &record), CHAT_SPANS);
    assert_is_json(&record);
    pl_otlp_text_deinit(&text);
}

static void test_a_request_of_which_little_is_known(void **state)
{
    (void)state;
    /* clang-format off */
    static const char expected[] =
        "{" TRACE ",\"spanId\":\"0123456789abcdef\",\"flags\":257,\"name\":\"HTTP\",\"kind\":2,"
        "\"startTimeUnixNano\":\"1767614400123000000\","
        "\"endTimeUnixNano\":\"1767614400123000000\",\"attributes\":["
        S("url.scheme", "http") ","
        I("http.response.status_code", 400) ","
        I("perilune.attempts", 0) ","
        S("perilune.end", "refused") ","
        S("perilune.reason", "invalid_body") "]}";
    /* clang-format on */
    struct pl_otlp_text text;
    struct pl_record record = chat_record();
    struct pl_trace trace = record.trace;
    trace.parent_span_id = 0;
    trace.random = false;
    record = (struct pl_record){.start_wall_ms = 1767614400123,
                                .status = 400,
                                .end = PL_END_REFUSED,
                                .reason = "invalid_body",
                                .first_token_ms = PL_UNKNOWN_MS,
                                .input_tokens = -1,
                                .output_tokens = -1,
                                .cached_tokens = -1,
                                .reasoning_tokens = -1,
                                .trace = trace};
    pl_otlp_text_init(&text);
    assert_string_equal(put(&text, &record), expected);
    pl_otlp_text_deinit(&text);
}

static void test_statuses_of_server_spans(void **state)
{
    (void)state;
    static const struct {
        enum pl_end end;
        int status;
        const char *reason, *expected; /* NULL: no status */
    } cases[] = {
        {PL_END_COMPLETE, 200, NULL, NULL},
        {PL_END_COMPLETE, 429, NULL, NULL},
        {PL_END_COMPLETE, 502, NULL, S("error.type", "502") "],\"status\":{\"code\":2}}"},
        {PL_END_REFUSED, 404, "no_route", NULL},
        {PL_END_CLIENT_GONE, 0, "client_gone", NULL},
        {PL_END_CUT, 200, "truncated",
         S("error.type", "truncated") "],\"status\":{\"code\":2,\"message\":\"truncated\"}}"},
        {PL_END_KILLED, 200, NULL,
         S("error.type", "killed") "],\"status\":{\"code\":2,\"message\":\"killed\"}}"},
        {PL_END_FAILED, 503, "queue_full",
         S("error.type", "queue_full") "],\"status\":{\"code\":2,\"message\":\"queue_full\"}}"},
    };
    struct pl_otlp_text text;
    pl_otlp_text_init(&text);
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct pl_record record = chat_record();
        record.end = cases[i].end;
        record.status = cases[i].status;
        record.reason = cases[i].reason;
        record.attempt_count = 0;
        put(&text, &record);
        if (cases[i].expected)
            assert_has(text.data, cases[i].expected);
        else
            assert_has_not(text.data, "\"status\":");
        assert_is_json(&record);
    }
    pl_otlp_text_deinit(&text);
}

static void test_a_try_that_lost_to_another(void **state)
{
    (void)state;
    struct pl_otlp_text text;
    struct pl_record record = chat_record();
    struct pl_record_attempt attempt = record.attempts[0];
    attempt.class = PL_CLASS_HEDGE_LOST;
    attempt.detail = NULL;
    attempt.is_hedge = true;
    attempt.input_tokens = 17;
    attempt.output_tokens = -1;
    record.attempts = &attempt;
    record.attempt_count = 1;
    record.target = NULL;
    record.input_tokens = record.output_tokens = -1;
    pl_otlp_text_init(&text);
    put(&text, &record);
    assert_has(text.data, S("perilune.class", "hedge_lost"));
    assert_has(text.data, T("perilune.hedge"));
    assert_has(text.data, "gen_ai.usage.input_tokens");
    assert_has_not(text.data, "gen_ai.usage.output_tokens");
    assert_has_not(text.data, "error.type");
    assert_has_not(text.data, "\"status\":");
    pl_otlp_text_deinit(&text);
}

static void test_a_try_that_was_given_up(void **state)
{
    (void)state;
    struct pl_otlp_text text;
    struct pl_record record = chat_record();
    struct pl_record_attempt attempt = record.attempts[0];
    attempt.class = PL_CLASS_NONE;
    attempt.detail = NULL;
    attempt.total_ms = PL_UNKNOWN_MS;
    record.attempts = &attempt;
    record.attempt_count = 1;
    pl_otlp_text_init(&text);
    put(&text, &record);
    assert_has(text.data, S("perilune.class", "abandoned"));
    assert_has_not(text.data, "error.type");
    assert_has_not(text.data, "\"status\":");
    pl_otlp_text_deinit(&text);
}

static void test_hostile_texts(void **state)
{
    (void)state;
    struct pl_otlp_text text;
    struct pl_record record = chat_record();
    record.method = PL_STR("BREW");
    record.model = PL_STR("a\"\\\n\x01\x7f\xc3\xa4\xff\xed\xa0\x80\xf0\x9f\x8c\x99\xc3");
    pl_otlp_text_init(&text);
    put(&text, &record);
    assert_has(text.data,
               S("http.request.method", "_OTHER") "," S("http.request.method_original", "BREW"));
    assert_has(text.data, "\"name\":\"HTTP /v1/chat/completions\"");
    assert_has(text.data, S("gen_ai.request.model",
                            "a\\\"\\\\\\u000a\\u0001\\u007f\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd"
                            "\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x8c\x99\xef\xbf\xbd"));
    assert_is_json(&record);
    pl_otlp_text_deinit(&text);
}

static void test_long_texts_are_cut_between_characters(void **state)
{
    (void)state;
    char path[PL_OTLP_STRING_MAX_BYTES * 2], expected[PL_OTLP_STRING_MAX_BYTES + 64];
    struct pl_otlp_text text;
    struct pl_record record = chat_record();
    memset(path, 'x', sizeof(path));
    memcpy(path + PL_OTLP_STRING_MAX_BYTES - 1, "\xc3\xa4", 2);
    record.path = (struct pl_str){path, sizeof(path)};
    snprintf(expected, sizeof(expected), "\"url.path\",\"value\":{\"stringValue\":\"%.*s\"}",
             PL_OTLP_STRING_MAX_BYTES - 1, path);
    pl_otlp_text_init(&text);
    assert_has(put(&text, &record), expected);
    assert_is_json(&record);
    pl_otlp_text_deinit(&text);
}

static void test_a_whole_document(void **state)
{
    (void)state;
    static const struct pl_otlp_attribute resource[] = {
        {PL_STR("service.name"), PL_STR("perilune")}, {PL_STR("a\"b"), PL_STR("c\\d")}};
    static const char expected[] =
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":[" S("service.name", "perilune") "," S(
            "a\\\"b", "c\\\\d") "]},\"scopeSpans\":[{\"scope\":{\"name\":\"perilune\","
                                "\"version\":\"" PERILUNE_VERSION "\"},\"spans\":[]}]}]}";
    struct pl_otlp_text text;
    pl_otlp_text_init(&text);
    pl_otlp_put_head(&text, resource, PL_COUNT(resource));
    pl_otlp_put_tail(&text);
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.data, expected, text.len);
    pl_otlp_text_deinit(&text);
}

static void test_what_a_collector_refused(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *why;
        uint64_t count;
    } cases[] = {
        {"", "", 0},
        {"{}", "", 0},
        {"not JSON", "", 0},
        {"{\"partialSuccess\":{}}", "", 0},
        {"{\"partialSuccess\":null}", "", 0},
        {"{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"too old\"}}", "too old",
         3},
        {"{\"partialSuccess\":{\"rejectedSpans\":12}}", "", 12},
        {"{\"partialSuccess\":{\"rejectedSpans\":-1,\"errorMessage\":7}}", "", 0},
        {"{\"partialSuccess\":{\"rejectedSpans\":\"99999999999999999999999\"}}", "", 0},
        {"{\"partialSuccess\":{\"errorMessage\":\"a\\nb \\u00e4 and a long end\"}}",
         "a?b ?? and a l", 0},
    };
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        char why[15];
        assert_int_equal(
            pl_otlp_read_rejected(cases[i].answer, strlen(cases[i].answer), why, sizeof(why)),
            cases[i].count);
        assert_string_equal(why, cases[i].why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chat_over_two_targets),
        cmocka_unit_test(test_a_request_of_which_little_is_known),
        cmocka_unit_test(test_statuses_of_server_spans),
        cmocka_unit_test(test_a_try_that_lost_to_another),
        cmocka_unit_test(test_a_try_that_was_given_up),
        cmocka_unit_test(test_hostile_texts),
        cmocka_unit_test(test_long_texts_are_cut_between_characters),
        cmocka_unit_test(test_a_whole_document),
        cmocka_unit_test(test_what_a_collector_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
