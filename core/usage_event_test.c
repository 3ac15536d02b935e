/*
 * Tests of usage_event.c: what is asked for, and which event goes again.
 */
#include "usage_event.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect_ask(const char *body, enum pl_usage_wish wish, const char *expected)
{
    struct pl_json json;
    char *options = NULL;
    pl_json_init(&json);
    assert_int_equal(pl_json_scan(&json, body, strlen(body)), PL_OK);
    assert_int_equal(pl_usage_ask(&json, &options), wish);
    if (expected)
        assert_string_equal(options, expected);
    else
        assert_null(options);
    free(options);
    pl_json_deinit(&json);
}

static void test_asking(void **state)
{
    (void)state;
    const char *whole = "{\"include_usage\":true}";
    expect_ask("{}", PL_USAGE_UNASKED, whole);
    expect_ask("{\"stream_options\":null}", PL_USAGE_UNASKED, whole);
    expect_ask("{\"stream_options\":{}}", PL_USAGE_UNASKED, whole);
    expect_ask("{\"stream_options\":{\"include_usage\":false}}", PL_USAGE_UNASKED, whole);
    expect_ask("{\"stream_options\":{\"x\":[1, 2]}}", PL_USAGE_UNASKED,
               "{\"x\":[1, 2],\"include_usage\":true}");
    expect_ask("{\"stream_options\":{\"include_usage\":true}}", PL_USAGE_ASKED, NULL);
    expect_ask("{\"stream_options\":7}", PL_USAGE_BROKEN, NULL);
}

static void expect_length(const char *text, size_t expected)
{
    assert_int_equal(pl_usage_event_length(text, strlen(text)), expected);
}

static void test_lengths(void **state)
{
    (void)state;
    expect_length("data: a\n\ndata: b\n\n", 9);
    expect_length("data: a\r\n\r\ndata: b\r\n\r\n", 11);
    expect_length("data: a\r\rdata: b", 9);
    expect_length("data: a\n", 8);
    expect_length("\ndata: a\n\n", 1);
    expect_length("x", 1);
}

#define USAGE "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}"

static void expect_extra(const char *event, bool expected)
{
    size_t len = strlen(event);
    char *copy = malloc(len);
    memcpy(copy, event, len);
    assert_int_equal(pl_usage_event_is_extra(copy, len), expected);
    free(copy);
}

static void test_events(void **state)
{
    (void)state;
    expect_extra("data: {\"choices\":[]," USAGE "}\n\n", true);
    expect_extra("data:{\"choices\":[ ]," USAGE "}\r\n\r\n", true);
    expect_extra(": note\nid: 1\ndata: {" USAGE ",\"choices\":[]}\n\n", true);
    expect_extra("data: {\"choices\":[{}]," USAGE "}\n\n", false);
    expect_extra("data: {\"choices\":[],\"usage\":null,\"x\":\"_tokens\"}\n\n", false);
    expect_extra("data: {" USAGE "}\n\n", false);
    expect_extra("data: [DONE]\n\n", false);
    expect_extra("data: {\"choices\":[]," USAGE "\n\n", false);
    expect_extra("data: {\"choices\":[],\ndata: " USAGE "}\n\n", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asking),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
