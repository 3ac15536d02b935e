/*
 * Tests of record_text.c: the lines of records, whole and with nothing known, and hostile texts.
 */
#include "json.h"
#include "record_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define START_WALL_MS 1740830400123u /* 2025-03-01T12:00:00.123Z */

static const struct pl_record_attempt attempts[] = {
    {.target = "a/gpt-4",
     .provider = "a",
     .class = PL_CLASS_CONNECT,
     .connect_ms = PL_UNKNOWN_MS,
     .head_ms = PL_UNKNOWN_MS,
     .first_token_ms = PL_UNKNOWN_MS,
     .total_ms = 3,
     .detail = "refused"},
    {.target = "b/gpt-4",
     .provider = "b",
     .status = 200,
     .class = PL_CLASS_OK,
     .start_ms = 10,
     .wait_ms = 7,
     .connect_ms = PL_UNKNOWN_MS,
     .head_ms = 20,
     .first_token_ms = 30,
     .total_ms = 40,
     .reused = true,
     .resumes = "restart",
     .parted = true,
     .malformed_event_count = 2},
};

static const struct pl_record whole = {
    .id = "abc",
    .start_wall_ms = START_WALL_MS,
    .duration_ms = 50,
    .method = {"POST", 4},
    .path = {"/v1/chat/completions", 20},
    .peer = {"127.0.0.1", 9},
    .operation = "chat",
    .route = "main",
    .policy = "fallback",
    .model = {"gpt-4", 5},
    .response_model = "gpt-4-0613",
    .provider = "b",
    .target = "b/gpt-4",
    .endpoint_host = "api.example.com",
    .endpoint_port = 443,
    .stream = true,
    .status = 200,
    .end = PL_END_COMPLETE,
    .first_token_ms = 41,
    .request_body_bytes = 100,
    .response_body_bytes = 2000,
    .generation = 3,
    .input_tokens = 9,
    .output_tokens = 8,
    .cached_tokens = 7,
    .reasoning_tokens = 6,
    .trace = {.id_high = 0x0af7651916cd43ddu, .id_low = 0x8448eb211c80319cu, .span_id = 0xb7u},
    .attempts = attempts,
    .attempt_count = 2,
};

static const struct pl_record unknown = {.start_wall_ms = START_WALL_MS,
                                         .end = PL_END_REFUSED,
                                         .first_token_ms = PL_UNKNOWN_MS,
                                         .input_tokens = -1,
                                         .output_tokens = -1,
                                         .cached_tokens = -1,
                                         .reasoning_tokens = -1};

static void expect_text(void (*put)(struct pl_record_text *, const struct pl_record *),
                        const struct pl_record *record, const char *expected)
{
    struct pl_record_text text;
    pl_record_text_init(&text);
    put(&text, record);
    pl_record_put(&text, "", 1);
    assert_string_equal(text.data, expected);
    pl_record_text_deinit(&text);
}

static void test_json(void **state)
{
    (void)state;
    expect_text(
        pl_record_put_json, &whole,
        "{\"time\":\"2025-03-01T12:00:00.173Z\",\"level\":\"info\",\"scope\":\"request\","
        "\"id\":\"abc\",\"http.request.method\":\"POST\",\"url.path\":\"/v1/chat/completions\","
        "\"client.address\":\"127.0.0.1\",\"http.response.status_code\":200,\"end\":\"complete\","
        "\"duration_ms\":50,\"first_token_ms\":41,\"http.request.body.size\":100,"
        "\"http.response.body.size\":2000,\"route\":\"main\",\"policy\":\"fallback\","
        "\"target\":\"b/gpt-4\",\"endpoint\":\"api.example.com:443\",\"generation\":3,"
        "\"stream\":true,\"gen_ai.operation.name\":\"chat\",\"gen_ai.provider.name\":\"b\","
        "\"gen_ai.request.model\":\"gpt-4\",\"gen_ai.response.model\":\"gpt-4-0613\","
        "\"gen_ai.usage.input_tokens\":9,\"gen_ai.usage.output_tokens\":8,"
        "\"gen_ai.usage.cache_read.input_tokens\":7,\"gen_ai.usage.reasoning.output_tokens\":6,"
        "\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"span_id\":\"00000000000000b7\","
        "\"attempts\":[{\"target\":\"a/gpt-4\",\"provider\":\"a\",\"class\":\"connect\","
        "\"start_ms\":0,\"wait_ms\":0,\"total_ms\":3,\"reused\":false,\"detail\":\"refused\"},"
        "{\"target\":\"b/gpt-4\",\"provider\":\"b\",\"status\":200,\"class\":\"ok\","
        "\"start_ms\":10,\"wait_ms\":7,\"head_ms\":20,\"first_token_ms\":30,\"total_ms\":40,"
        "\"reused\":true,\"resumes\":\"restart\",\"parted\":true,"
        "\"malformed_events\":2}]}");
}

/* Two at once: the loser says what it has cost, the winner's counts are the record's. */
static void test_hedged_json(void **state)
{
    struct pl_record_attempt attempts[2] = {whole.attempts[1], whole.attempts[1]};
    struct pl_record record = unknown;
    struct pl_record_text text = {0};
    (void)state;
    attempts[0].class = PL_CLASS_HEDGE_LOST;
    attempts[0].status = 0;
    attempts[0].is_hedge = true;
    for (size_t i = 0; i < 2; i++) {
        attempts[i].resumes = NULL;
        attempts[i].parted = false;
        attempts[i].malformed_event_count = 0;
    }
    attempts[0].input_tokens = 12;
    attempts[0].output_tokens = -1;
    attempts[1].input_tokens = attempts[1].output_tokens = 5;
    record.attempts = attempts;
    record.attempt_count = 2;
    pl_record_put_json(&text, &record);
    char *line = pl_xstrndup(text.data, text.len);
    const char *start = strstr(line, "\"attempts\":");
    assert_non_null(start);
    assert_string_equal(start, "\"attempts\":[{\"target\":\"b/gpt-4\",\"provider\":\"b\","
                               "\"class\":\"hedge_lost\",\"start_ms\":10,\"wait_ms\":7,"
                               "\"head_ms\":20,\"first_token_ms\":30,\"total_ms\":40,"
                               "\"reused\":true,\"hedge\":true,\"input_tokens\":12},"
                               "{\"target\":\"b/gpt-4\",\"provider\":\"b\",\"status\":200,"
                               "\"class\":\"ok\",\"start_ms\":10,\"wait_ms\":7,\"head_ms\":20,"
                               "\"first_token_ms\":30,\"total_ms\":40,\"reused\":true}]}");
    free(line);
    pl_record_text_deinit(&text);
}

static void test_nothing_known(void **state)
{
    (void)state;
    expect_text(pl_record_put_json, &unknown,
                "{\"time\":\"2025-03-01T12:00:00.123Z\",\"level\":\"info\",\"scope\":\"request\","
                "\"end\":\"refused\",\"duration_ms\":0,\"http.request.body.size\":0,"
                "\"http.response.body.size\":0,\"attempts\":[]}");
    expect_text(pl_record_put_plain, &unknown, "2025-03-01T12:00:00.123Z - refused 0ms - -");
}

/* Where there are no spans of ours the client's trace is still told. */
static void test_trace_of_others(void **state)
{
    (void)state;
    struct pl_record record = unknown;
    record.trace = (struct pl_trace){.id_low = 0xabcu, .parent_span_id = 0xb7u};
    expect_text(pl_record_put_json, &record,
                "{\"time\":\"2025-03-01T12:00:00.123Z\",\"level\":\"info\",\"scope\":\"request\","
                "\"end\":\"refused\",\"duration_ms\":0,\"http.request.body.size\":0,"
                "\"http.response.body.size\":0,\"trace_id\":\"00000000000000000000000000000abc\","
                "\"attempts\":[]}");
}

static void test_plain(void **state)
{
    (void)state;
    expect_text(pl_record_put_plain, &whole,
                "2025-03-01T12:00:00.173Z 200 complete 50ms POST /v1/chat/completions gpt-4 -> "
                "b/gpt-4 first_token=41ms input_tokens=9 output_tokens=8 "
                "tries=a/gpt-4;connect;3ms,b/gpt-4;200;40ms client=127.0.0.1 id=abc");
}

static void expect_quoted(struct pl_str text, size_t max_bytes, const char *expected)
{
    struct pl_record_text out;
    pl_record_text_init(&out);
    pl_record_put_string(&out, text, max_bytes);
    assert_int_equal(pl_json_validate(out.data, out.len), PL_OK);
    pl_record_put(&out, "", 1);
    assert_string_equal(out.data, expected);
    pl_record_text_deinit(&out);
}

static void test_strings(void **state)
{
    (void)state;
    expect_quoted(PL_STR(""), 10, "\"\"");
    expect_quoted(PL_STR("a\"b\\c\nd\te\r\b\f"), 100, "\"a\\\"b\\\\c\\nd\\te\\r\\b\\f\"");
    expect_quoted(PL_STR("\0\x1f\x7f"), 100, "\"\\u0000\\u001f\\u007f\"");
    expect_quoted(PL_STR("\xc3\xa9\xf0\x9f\x98\x80"), 100, "\"\xc3\xa9\xf0\x9f\x98\x80\"");
    expect_quoted(PL_STR("a\xff\xc3"), 100, "\"a\xEF\xBF\xBD\xEF\xBF\xBD\"");
    expect_quoted(PL_STR("\xc0\xaf"), 100, "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");   /* overlong */
    expect_quoted(PL_STR("\xed\xa0\x80"), 3, "\"\xEF\xBF\xBD\xE2\x80\xA6\""); /* a surrogate */
    expect_quoted(PL_STR("abcdef"), 3, "\"abc\xE2\x80\xA6\"");
    expect_quoted(PL_STR("abcdef"), 6, "\"abcdef\"");
    expect_quoted(PL_STR("ab\xc3\xa9"), 3, "\"ab\xE2\x80\xA6\""); /* never half a character */
    expect_quoted(PL_STR("ab\xff"), 4, "\"ab\xE2\x80\xA6\"");     /* nor half of U+FFFD */
}

/* Any bytes, at any length, give one line of valid JSON. */
static void test_any_bytes(void **state)
{
    (void)state;
    char bytes[300];
    pl_random_seed(7);
    for (int turn = 0; turn < 2000; turn++) {
        struct pl_record record = whole;
        struct pl_record_text text;
        size_t len = pl_random_u64() % sizeof(bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)pl_random_u64();
        record.path = record.model = record.response_body = (struct pl_str){bytes, len};
        pl_record_text_init(&text);
        pl_record_put_json(&text, &record);
        assert_int_equal(pl_json_validate(text.data, text.len), PL_OK);
        assert_null(memchr(text.data, '\n', text.len));
        text.len = 0;
        pl_record_put_plain(&text, &record);
        assert_null(memchr(text.data, '\n', text.len));
        pl_record_text_deinit(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),      cmocka_unit_test(test_hedged_json),
        cmocka_unit_test(test_json),      cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_plain),     cmocka_unit_test(test_strings),
        cmocka_unit_test(test_any_bytes), cmocka_unit_test(test_trace_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
