/*
 * Tests of usage.c: each form of answer, cut at every byte, and what only looks like usage.
 */
#include "usage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NAMES "\"model\":\"gpt-4\""

/* Feeds `text` in parts of `part_len` bytes. */
static void feed(struct pl_usage_scan *scan, const char *text, size_t part_len)
{
    size_t len = strlen(text);
    for (size_t at = 0; at < len; at += part_len) {
        size_t part = PL_MIN(part_len, len - at);
        char *copy = malloc(part); /* so that a read beyond it is found */
        memcpy(copy, text + at, part);
        pl_usage_scan_feed(scan, copy, part);
        free(copy);
    }
}

static void expect(bool is_sse, const char *text, const char *model, int64_t input, int64_t output,
                   int64_t cached, int64_t reasoning)
{
    size_t part_lens[] = {1, 2, 3, 7, 64, 100000};
    for (size_t i = 0; i < PL_COUNT(part_lens); i++) {
        struct pl_usage_scan scan;
        pl_usage_scan_init(&scan, is_sse);
        feed(&scan, text, part_lens[i]);
        if (model)
            assert_string_equal(scan.model ? scan.model : "(none)", model);
        else
            assert_null(scan.model);
        assert_int_equal(scan.found.input_tokens, input);
        assert_int_equal(scan.found.output_tokens, output);
        assert_int_equal(scan.found.cached_tokens, cached);
        assert_int_equal(scan.found.reasoning_tokens, reasoning);
        pl_usage_scan_deinit(&scan);
    }
}

static void test_a_chat_completion(void **state)
{
    (void)state;
    expect(false,
           "{\"id\":\"x\",\"object\":\"chat.completion\"," NAMES ",\"choices\":[{\"index\":0,"
           "\"message\":{\"role\":\"assistant\",\"content\":\"Hi, \\\"you\\\" \\\\\"},"
           "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34,"
           "\"total_tokens\":46,\"prompt_tokens_details\":{\"cached_tokens\":5,\"audio_tokens\":0},"
           "\"completion_tokens_details\":{\"reasoning_tokens\":7}}}",
           "gpt-4", 12, 34, 5, 7);
}

static void test_with_white_space(void **state)
{
    (void)state;
    expect(false,
           "{\n  \"model\" : \"a/b\" ,\n  \"usage\" : {\n \"prompt_tokens\" : 1 ,\r\n "
           "\"completion_tokens\" : 2 } }\n",
           "a/b", 1, 2, -1, -1);
}

static void test_a_stream(void **state)
{
    (void)state;
    expect(true,
           ": hello {\"usage\":{\"prompt_tokens\":99}}\n\n"
           "data: {\"id\":\"x\"," NAMES ",\"choices\":[{\"delta\":{\"content\":\"a\"}}],"
           "\"usage\":null}\n\n"
           "data: {\"id\":\"x\"," NAMES ",\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\n\r\n"
           "data:{\"id\":\"x\"," NAMES ",\"choices\":[],\"usage\":{\"prompt_tokens\":3,"
           "\"completion_tokens\":4}}\n\n"
           "data: [DONE]\n\n",
           "gpt-4", 3, 4, -1, -1);
}

/* Azure's first event is about the prompt and names no model. */
static void test_a_model_that_is_told_late(void **state)
{
    (void)state;
    expect(true,
           "data: {\"id\":\"\",\"model\":\"\",\"choices\":[]}\n\n"
           "data: {\"id\":\"x\"," NAMES ",\"choices\":[]}\n\n"
           "data: {\"choices\":[],\"usage\" : {\"prompt_tokens\":3}}\n\n",
           "gpt-4", 3, -1, -1, -1);
}

static void test_anthropic_messages(void **state)
{
    (void)state;
    expect(true,
           "event: message_start\n"
           "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude\","
           "\"content\":[],\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":6,"
           "\"output_tokens\":1}}}\n\n"
           "event: content_block_delta\n"
           "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
           "\"text\":\"usage: {\"}}\n\n"
           "event: message_delta\n"
           "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},"
           "\"usage\":{\"output_tokens\":15}}\n\n"
           "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
           "claude", 25, 15, 6, -1);
}

static void test_responses(void **state)
{
    (void)state;
    expect(true,
           "event: response.completed\n"
           "data: {\"type\":\"response.completed\",\"response\":{\"model\":\"o3\",\"output\":[],"
           "\"usage\":{\"input_tokens\":8,\"input_tokens_details\":{\"cached_tokens\":2},"
           "\"output_tokens\":9,\"output_tokens_details\":{\"reasoning_tokens\":4}}}}\n\n",
           "o3", 8, 9, 2, 4);
}

static void test_what_a_model_writes_is_not_usage(void **state)
{
    (void)state;
    expect(false,
           "{\"choices\":[{\"message\":{\"content\":\"{\\\"usage\\\":{\\\"prompt_tokens\\\":1}}\","
           "\"usage\":{\"prompt_tokens\":2},\"model\":\"fake\"},\"model\":\"fake\"}],"
           "\"metadata\":{\"usage\":{\"prompt_tokens\":3},\"model\":\"fake\"},"
           "\"message\":[{\"usage\":{\"prompt_tokens\":4}}]}",
           NULL, -1, -1, -1, -1);
}

static void test_odd_values(void **state)
{
    (void)state;
    expect(false, "{\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":1.5}}", NULL, -1, -1, -1,
           -1);
    expect(false, "{\"usage\":{\"prompt_tokens\":\"7\",\"completion_tokens\":1e3}}", NULL, -1, -1,
           -1, -1);
    expect(false, "{\"usage\":{\"prompt_tokens\":99999999999999999999}}", NULL, -1, -1, -1, -1);
    expect(false, "{\"usage\":\"none\",\"model\":5}", NULL, -1, -1, -1, -1);
    expect(false, "{\"usage\":[1,2],\"model\":null}", NULL, -1, -1, -1, -1);
    expect(false, "{\"usage\":{broken},\"model\":\"\"}", NULL, -1, -1, -1, -1);
    expect(false, "]]}}{\"model\":\"m\"", "m", -1, -1, -1, -1);
    expect(false, "", NULL, -1, -1, -1, -1);
}

static void test_a_broken_event_does_not_hide_the_next(void **state)
{
    (void)state;
    expect(true,
           "data: {\"model\":\"a\",\"choices\":[{\"delta\":{\"content\":\"cut\n\n"
           "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
           "a", 1, 2, -1, -1);
}

static void test_bounds(void **state)
{
    (void)state;
    size_t size = 3 * PL_USAGE_OBJECT_MAX_BYTES;
    char *text = malloc(size), *filler = malloc(size);
    memset(filler, 'x', size);
    filler[PL_USAGE_OBJECT_MAX_BYTES] = '\0';
    snprintf(text, size, "{\"usage\":{\"prompt_tokens\":1,\"x\":\"%s\"},\"model\":\"m\"}", filler);
    expect(false, text, "m", -1, -1, -1, -1);
    filler[PL_USAGE_MODEL_MAX_BYTES + 1] = '\0';
    snprintf(text, size, "{\"model\":\"%s\",\"usage\":{\"prompt_tokens\":1}}", filler);
    expect(false, text, NULL, 1, -1, -1, -1);
    free(text);
    free(filler);
}

static void test_nesting_without_end(void **state)
{
    (void)state;
    size_t len = 200000;
    char *text = malloc(len + 1);
    memset(text, '[', len);
    text[len] = '\0';
    struct pl_usage_scan scan;
    pl_usage_scan_init(&scan, false);
    feed(&scan, text, len);
    pl_usage_scan_deinit(&scan);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chat_completion),
        cmocka_unit_test(test_with_white_space),
        cmocka_unit_test(test_a_stream),
        cmocka_unit_test(test_a_model_that_is_told_late),
        cmocka_unit_test(test_anthropic_messages),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_what_a_model_writes_is_not_usage),
        cmocka_unit_test(test_odd_values),
        cmocka_unit_test(test_a_broken_event_does_not_hide_the_next),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_nesting_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
