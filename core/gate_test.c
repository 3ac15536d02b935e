/*
 * Tests of gate.c and gate_judge.c. Every stream is fed whole, byte by byte, and cut in two at
 * every place; the verdict must be the same each time, and so must the data of the event that made
 * it.
 */
#include "gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum pl_gate_verdict feed(struct pl_gate *gate, struct pl_str stream, size_t first_bytes,
                                 size_t step_bytes)
{
    pl_gate_init(gate);
    for (size_t at = 0; at < stream.len;) {
        size_t want = at == 0 && first_bytes > 0 ? first_bytes : step_bytes;
        size_t len = PL_MIN(want, stream.len - at);
        char *copy = malloc(len); /* so that a sanitizer sees every byte read beyond it */
        assert_non_null(copy);
        memcpy(copy, stream.data + at, len);
        enum pl_gate_verdict verdict = pl_gate_feed(gate, copy, len);
        assert_int_equal(verdict, gate->verdict);
        free(copy);
        at += len;
    }
    return gate->verdict;
}

static void assert_cut_alike(struct pl_str stream, const struct pl_gate *whole, size_t first_bytes,
                             size_t step_bytes)
{
    struct pl_gate gate;
    assert_int_equal(feed(&gate, stream, first_bytes, step_bytes), whole->verdict);
    assert_true(pl_str_equal(pl_gate_data(&gate), pl_gate_data(whole)));
    pl_gate_deinit(&gate);
}

static enum pl_gate_verdict verdict_of(const char *text, bool ends)
{
    struct pl_str stream = pl_str_of(text);
    struct pl_gate whole;
    feed(&whole, stream, 0, stream.len);
    for (size_t cut = 1; cut < stream.len; cut++)
        assert_cut_alike(stream, &whole, cut, stream.len);
    assert_cut_alike(stream, &whole, 0, 1);
    enum pl_gate_verdict verdict = ends ? pl_gate_end(&whole) : whole.verdict;
    pl_gate_deinit(&whole);
    return verdict;
}

struct sample {
    const char *text;
    enum pl_gate_verdict verdict;
};

#define WAIT       PL_GATE_WAIT
#define MEANINGFUL PL_GATE_MEANINGFUL
#define ERROR      PL_GATE_ERROR
#define EMPTY      PL_GATE_EMPTY
#define MALFORMED  PL_GATE_MALFORMED

/* Each sample is the JSON of one event. */
static void check_events(const struct sample *samples, size_t count)
{
    char text[1024];
    for (size_t i = 0; i < count; i++) {
        snprintf(text, sizeof(text), "data: %s\n\n", samples[i].text);
        if (verdict_of(text, false) != samples[i].verdict)
            fail_msg("%s: %d", samples[i].text, (int)verdict_of(text, false));
    }
}

static void check_streams(const struct sample *samples, size_t count, bool ends)
{
    for (size_t i = 0; i < count; i++) {
        if (verdict_of(samples[i].text, ends) != samples[i].verdict)
            fail_msg("%s: %d", samples[i].text, (int)verdict_of(samples[i].text, ends));
    }
}

#define CHECK_EVENTS(samples)        check_events(samples, PL_COUNT(samples))
#define CHECK_STREAMS(samples, ends) check_streams(samples, PL_COUNT(samples), ends)

#define DELTA(fields)     "{\"choices\":[{\"index\":0,\"delta\":{" fields "},\"finish_reason\":null}]}"
#define FINISH(reason)    "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" reason "\"}]}"
#define TYPED(type, rest) "{\"type\":\"" type "\"" rest "}"
#define ROLE              "data: " DELTA("\"role\":\"assistant\",\"content\":\"\"") "\n\n"
#define WORD              "data: " DELTA("\"content\":\"a\"") "\n\n"

static void test_chat(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {DELTA("\"role\":\"assistant\",\"content\":\"\",\"refusal\":null"), WAIT},
        {DELTA("\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]"), WAIT},
        {DELTA(""), WAIT},
        {DELTA("\"content\":\"a\""), MEANINGFUL},
        {DELTA("\"content\":\"\\u00e9\""), MEANINGFUL},
        {DELTA("\"content\":[{\"type\":\"text\",\"text\":\"a\"}]"), MEANINGFUL},
        {DELTA("\"content\":\"\",\"reasoning_content\":\"hm\""), MEANINGFUL},
        {DELTA("\"refusal\":\"no\""), MEANINGFUL},
        {DELTA("\"tool_calls\":[{\"index\":0}]"), MEANINGFUL},
        {DELTA("\"function_call\":{\"name\":\"f\"}"), MEANINGFUL},
        {FINISH("stop"), EMPTY},
        {FINISH("length"), EMPTY},
        {FINISH("content_filter"), MEANINGFUL},
        {FINISH("error"), ERROR},
        {"{\"choices\":[]}", WAIT},
        {"{\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}", WAIT},
        {"{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}",
         MEANINGFUL},
        {"{\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":null}]}", WAIT},
        {"{\"choices\":[{\"index\":0,\"text\":\"a\"}]}", MEANINGFUL},
        {"{\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"stop\"}]}", EMPTY},
        {"{\"choices\":[{\"index\":1,\"text\":\"\",\"finish_reason\":\"stop\"}]}", WAIT},
        {"{\"choices\":[{\"unheard\":\"of\"}]}", MEANINGFUL},
        {"{\"choices\":[7]}", MEANINGFUL},
        {"{\"choices\":\"none\"}", MEANINGFUL},
        {"{\"id\":\"{\\\"choices\\\"\",\"choices\":[{\"delta\":{\"role\":\"a\"}}]}", WAIT},
    };
    CHECK_EVENTS(samples);
}

static void test_responses(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {TYPED("response.created", ",\"response\":{\"error\":null,\"output\":[]}"), WAIT},
        {TYPED("response.in_progress", ""), WAIT},
        {TYPED("response.output_item.added", ",\"item\":{\"type\":\"message\",\"content\":[]}"),
         WAIT},
        {TYPED("response.output_item.added", ",\"item\":{\"type\":\"reasoning\",\"summary\":[]}"),
         WAIT},
        {TYPED("response.output_item.added", ",\"item\":{\"type\":\"function_call\"}"), MEANINGFUL},
        {TYPED("response.content_part.added",
               ",\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}"),
         WAIT},
        {TYPED("response.output_text.delta", ",\"delta\":\"a\""), MEANINGFUL},
        {TYPED("response.output_text.delta", ",\"delta\":\"\""), WAIT},
        {TYPED("response.output_text.done", ",\"text\":\"\""), WAIT},
        {TYPED("response.refusal.delta", ",\"delta\":\"no\""), MEANINGFUL},
        {TYPED("response.function_call_arguments.delta", ",\"delta\":\"{\""), MEANINGFUL},
        {TYPED("response.reasoning_summary_text.delta", ",\"delta\":\"hm\""), MEANINGFUL},
        {TYPED("response.failed", ",\"response\":{\"error\":{\"code\":\"server_error\"}}"), ERROR},
        {TYPED("error", ",\"code\":\"rate_limit_exceeded\""), ERROR},
        {TYPED("response.completed", ",\"response\":{\"output\":[]}"), EMPTY},
        {TYPED("response.incomplete",
               ",\"response\":{\"output\":[],\"incomplete_details\":{\"reason\":\"max_tokens\"}}"),
         EMPTY},
        {TYPED("response.incomplete",
               ",\"response\":{\"incomplete_details\":{\"reason\":\"content_filter\"}}"),
         MEANINGFUL},
        {TYPED("response.completed", ",\"response\":{\"output\":[{\"type\":\"message\",\"content\":"
                                     "[{\"type\":\"output_text\",\"text\":\"a\"}]}]}"),
         MEANINGFUL},
        {TYPED("response.web_search_call.searching", ""), MEANINGFUL},
        {TYPED("keepalive", ",\"sequence_number\":3"), WAIT},
    };
    CHECK_EVENTS(samples);
}

static void test_messages(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {TYPED("message_start", ",\"message\":{\"role\":\"assistant\",\"content\":[]}"), WAIT},
        {TYPED("ping", ""), WAIT},
        {TYPED("content_block_start", ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}"),
         WAIT},
        {TYPED("content_block_start",
               ",\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}"),
         WAIT},
        {TYPED("content_block_start", ",\"content_block\":{\"type\":\"tool_use\",\"input\":{}}"),
         MEANINGFUL},
        {TYPED("content_block_delta", ",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}"),
         MEANINGFUL},
        {TYPED("content_block_delta", ",\"delta\":{\"type\":\"text_delta\",\"text\":\"\"}"), WAIT},
        {TYPED("content_block_delta",
               ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\"}"),
         MEANINGFUL},
        {TYPED("content_block_delta",
               ",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}"),
         MEANINGFUL},
        {TYPED("content_block_delta",
               ",\"delta\":{\"type\":\"signature_delta\",\"signature\":\"x\"}"),
         WAIT},
        {TYPED("content_block_stop", ",\"index\":0"), WAIT},
        {TYPED("message_delta", ",\"delta\":{\"stop_reason\":null}"), WAIT},
        {TYPED("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"}"), EMPTY},
        {TYPED("message_delta", ",\"delta\":{\"stop_reason\":\"refusal\"}"), MEANINGFUL},
        {TYPED("message_stop", ""), EMPTY},
        {TYPED("error", ",\"error\":{\"type\":\"overloaded_error\"}"), ERROR},
        {"{\"throttlingException\":{\"message\":\"Too many requests\"}}", ERROR},
        {"{\"Exception\":{\"message\":\"m\"}}", MEANINGFUL},
        {"{\"throttlingException\":\"a word\"}", MEANINGFUL},
        {TYPED("something_new", ""), MEANINGFUL},
    };
    CHECK_EVENTS(samples);
}

static void test_other_forms(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {"{\"error\":{\"message\":\"m\"}}", ERROR},
        {"{\"error\":\"out of memory\"}", ERROR},
        {"[{\"error\":{\"code\":429}}]", ERROR},
        {"{\"error\":null,\"token\":\"a\"}", MEANINGFUL},
        {"{\"choices\":[],\"error\":{\"code\":502}}", ERROR},
        {"{\"candidates\":[]}", MEANINGFUL},
        {"[1,2]", MEANINGFUL},
        {"[]", MEANINGFUL},
        {"\"text\"", MEANINGFUL},
        {"17", MEANINGFUL},
        {"{}", WAIT},
        {"[DONE]", EMPTY},
        {" [DONE] ", EMPTY},
        {"{garbage", MALFORMED},
        {"<html>", MALFORMED},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\"}}]} trailing", MALFORMED},
        {"\"\xff\"", MALFORMED},
        {" ", WAIT},
        {"", WAIT},
    };
    CHECK_EVENTS(samples);
}

static void test_lines(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {ROLE WORD, MEANINGFUL},
        {ROLE, WAIT},
        {": keep-alive\n\n: keep-alive\n\n", WAIT},
        {"data:" DELTA("\"content\":\"a\"") "\n\n", MEANINGFUL},
        {"data: " DELTA("\"content\":\"a\"") "\r\n\r\n", MEANINGFUL},
        {"data: " DELTA("\"content\":\"a\"") "\r\r", MEANINGFUL},
        {"data: " DELTA("\"content\":\"a\"") "\n\r\n", MEANINGFUL},
        {"data: " DELTA("\"content\":\"a\"") "\r\n", WAIT},
        {"data: " DELTA("\"content\":\"a\"") "\n", WAIT},
        {"\xEF\xBB\xBF" WORD, MEANINGFUL},
        {"\xEF\xBB\xBF\n" WORD, MEANINGFUL},
        {ROLE "\xEF\xBB\xBF" WORD, WAIT},
        {"data: {\"choices\":\ndata: [{\"delta\":\ndata:{\"content\":\"a\"}}]}\n\n", MEANINGFUL},
        {"id: 7\nretry: 100\nevent: x\nunheard: of\n" WORD, MEANINGFUL},
        {"event: error\ndata: whatever\n\n", ERROR},
        {"event:error\n\n", WAIT},
        {"event: error\n\n" ROLE, WAIT},
        {"event: error\nevent: x\n" ROLE, WAIT},
        {"event: errors are many and this is long\ndata: 1\n\n", MEANINGFUL},
        {"event: ping\ndata: {\"time\":1}\n\n", WAIT},
        {"data\n\n", WAIT},
        {"data\ndata: 1\n\n", MEANINGFUL},
        {"data: \ndata: \n\n", WAIT},
        {"dataX: {garbage\n\n", WAIT},
        {ROLE "data: [DONE]\n\n" WORD, EMPTY},
        {"data: " DELTA("\"content\":\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"") "\n\n", MEANINGFUL},
    };
    CHECK_STREAMS(samples, false);
}

static void test_end(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {"", EMPTY},
        {": hi\n\n", EMPTY},
        {ROLE, EMPTY},
        {WORD, MEANINGFUL},
        {"data: {\"cho", EMPTY},
        {"<html>\n</html>\n", MALFORMED},
        {"<html>", MALFORMED},
        {"{\"error\":", MALFORMED},
        {"id: 1\n\nevent: x\n\n", EMPTY},
        {ROLE "x: y\n\n", EMPTY},
    };
    CHECK_STREAMS(samples, true);
}

/* Of several choices one may end without having said anything. */
static void test_several_choices(void **state)
{
    (void)state;
    static const char both[] =
        "data: {\"choices\":[{\"index\":1,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    char text[1024];
    snprintf(text, sizeof(text), "%sdata: " FINISH("stop") "\n\n", both);
    assert_int_equal(verdict_of(text, false), PL_GATE_WAIT);
    assert_int_equal(verdict_of(text, true), PL_GATE_EMPTY);
    strcat(text, WORD);
    assert_int_equal(verdict_of(text, false), PL_GATE_MEANINGFUL);
}

static void test_error_data(void **state)
{
    (void)state;
    struct pl_gate gate;
    static const char stream[] =
        ROLE "data: {\"error\":\ndata: {}, \"x\":1,\"type\":\"error\"}\n\n";
    assert_int_equal(feed(&gate, PL_STR(stream), 0, 5), PL_GATE_ERROR);
    assert_true(
        pl_str_equal(pl_gate_data(&gate), PL_STR("{\"error\":\n{}, \"x\":1,\"type\":\"error\"}")));
    pl_gate_deinit(&gate);
    pl_gate_deinit(&gate);
    assert_int_equal(gate.verdict, PL_GATE_ERROR);
    assert_int_equal(pl_gate_data(&gate).len, 0);
}

/* A line without an end is taken to mean something, and is not kept. */
static void test_large_event(void **state)
{
    (void)state;
    static const char filler[4096] = {0};
    for (size_t step = 1; step <= sizeof(filler); step *= 64) {
        struct pl_gate gate;
        size_t fed = 0;
        pl_gate_init(&gate);
        pl_gate_feed(&gate, "data: ", 6);
        for (; fed <= PL_GATE_EVENT_MAX_BYTES; fed += step) {
            assert_int_equal(gate.verdict, PL_GATE_WAIT);
            pl_gate_feed(&gate, filler, step);
        }
        assert_int_equal(gate.verdict, PL_GATE_MEANINGFUL);
        assert_true(gate.events.data_cap <= 2 * PL_GATE_EVENT_MAX_BYTES);
        pl_gate_deinit(&gate);
    }
}

static void test_many_events(void **state)
{
    (void)state;
    size_t count = 10000, one = strlen(ROLE);
    char *text = malloc(count * one + strlen(WORD) + 1);
    struct pl_gate gate;
    assert_non_null(text);
    for (size_t i = 0; i < count; i++)
        memcpy(text + i * one, ROLE, one);
    strcpy(text + count * one, WORD);
    pl_gate_init(&gate);
    assert_int_equal(pl_gate_feed(&gate, text, count * one), PL_GATE_WAIT);
    assert_int_equal(pl_gate_feed(&gate, text + count * one, strlen(WORD)), PL_GATE_MEANINGFUL);
    pl_gate_deinit(&gate);
    free(text);
}

static void test_bodies(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {"{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"a\"}}]}", MEANINGFUL},
        {"{\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{}]}}]}", MEANINGFUL},
        {"{\"choices\":[{\"message\":{\"content\":\"\"},\"finish_reason\":\"stop\"}]}", EMPTY},
        {"{\"choices\":[{\"message\":{},\"finish_reason\":\"content_filter\"}]}", MEANINGFUL},
        {"{\"choices\":[{\"text\":\"a\"}]}", MEANINGFUL},
        {"{\"choices\":[{\"text\":\"\"}]}", EMPTY},
        {"{\"output\":[{\"type\":\"reasoning\"}]}", EMPTY},
        {"{\"error\":null,\"output\":[{\"type\":\"message\",\"content\":[{\"text\":\"a\"}]}]}",
         MEANINGFUL},
        {"{\"output\":[],\"incomplete_details\":{\"reason\":\"content_filter\"}}", MEANINGFUL},
        {"{\"content\":[{\"type\":\"text\",\"text\":\"a\"}],\"type\":\"message\"}", MEANINGFUL},
        {"{\"content\":[],\"stop_reason\":\"end_turn\"}", EMPTY},
        {"{\"content\":[],\"stop_reason\":\"refusal\"}", MEANINGFUL},
        {"{\"content\":[{\"type\":\"tool_use\",\"input\":{}}]}", MEANINGFUL},
        {"{\"data\":[{\"embedding\":[1]}]}", MEANINGFUL},
        {"{\"data\":[]}", EMPTY},
        {"{\"error\":{\"message\":\"m\"}}", ERROR},
        {"[{\"error\":{\"message\":\"m\"}}]", ERROR},
        {"{\"type\":\"error\",\"error\":{}}", ERROR},
        {"{}", EMPTY},
        {"", EMPTY},
        {" \n", EMPTY},
        {"[]", MALFORMED},
        {"\"a\"", MALFORMED},
        {"<html>", MALFORMED},
        {"{\"choices\":[", MALFORMED},
    };
    for (size_t i = 0; i < PL_COUNT(samples); i++) {
        if (pl_gate_judge_body(pl_str_of(samples[i].text)) != samples[i].verdict)
            fail_msg("%s", samples[i].text);
    }
}

/* Nested too deeply for our scan, not for everyone's: it is passed on. */
static void test_depth(void **state)
{
    (void)state;
    char text[2048] = "data: ";
    size_t len = strlen(text);
    memset(text + len, '[', 900);
    memset(text + len + 900, ']', 900);
    strcpy(text + len + 1800, "\n\n");
    assert_int_equal(verdict_of(text, false), PL_GATE_MEANINGFUL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_other_forms),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_several_choices),
        cmocka_unit_test(test_error_data),
        cmocka_unit_test(test_large_event),
        cmocka_unit_test(test_many_events),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
