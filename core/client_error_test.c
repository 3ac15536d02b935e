/*
 * Unit tests of client_error.c.
 */
#include "client_error.h"
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct pl_client_error no_model = {
    .status = 404,
    .message = {"No \"x\"", 6},
    .code = "model_not_found",
    .param = "model",
    .request_id = "req-1",
};

static void expect_body(enum pl_dialect dialect, const struct pl_client_error *error,
                        const char *expected)
{
    size_t len;
    char *body = pl_client_error_body(dialect, error, &len);
    assert_string_equal(body, expected);
    assert_int_equal(len, strlen(expected));
    assert_int_equal(pl_json_validate(body, len), PL_OK);
    free(body);
}

static void expect_event(enum pl_dialect dialect, uint64_t sequence_number, const char *expected)
{
    size_t len;
    char *event = pl_client_error_event(dialect, &no_model, sequence_number, &len);
    assert_string_equal(event, expected);
    assert_int_equal(len, strlen(expected));
    free(event);
}

static void test_bodies(void **state)
{
    const char *openai =
        "{\"error\":{\"message\":\"No \\\"x\\\"\",\"type\":\"invalid_request_error\","
        "\"param\":\"model\",\"code\":\"model_not_found\"}}";
    (void)state;
    expect_body(PL_DIALECT_OPENAI, &no_model, openai);
    expect_body(PL_DIALECT_RESPONSES, &no_model, openai);
    expect_body(PL_DIALECT_ANTHROPIC, &no_model,
                "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"No "
                "\\\"x\\\"\",\"details\":{\"error_code\":\"model_not_found\"}},"
                "\"request_id\":\"req-1\"}");
}

/** What is not known is null, or left out where the form has no place for null. */
static void test_bare_bodies(void **state)
{
    struct pl_client_error bare = {.status = 500, .message = PL_STR("")};
    (void)state;
    expect_body(
        PL_DIALECT_OPENAI, &bare,
        "{\"error\":{\"message\":\"\",\"type\":\"server_error\",\"param\":null,\"code\":null}}");
    expect_body(
        PL_DIALECT_ANTHROPIC, &bare,
        "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"\"},\"request_id\":"
        "null}");
}

/** Whatever bytes a message has, the body is JSON. */
static void test_any_bytes(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char bytes[] = {'a', (char)byte, 'z', (char)byte};
        struct pl_client_error error = {.status = 502, .message = {bytes, sizeof(bytes)}};
        size_t len;
        char *body = pl_client_error_body(PL_DIALECT_ANTHROPIC, &error, &len);
        assert_int_equal(pl_json_validate(body, len), PL_OK);
        free(body);
    }
}

static void test_events(void **state)
{
    (void)state;
    expect_event(
        PL_DIALECT_OPENAI, 7,
        "data: {\"error\":{\"message\":\"No \\\"x\\\"\",\"type\":\"invalid_request_error\","
        "\"param\":\"model\",\"code\":\"model_not_found\"}}\n\n");
    expect_event(PL_DIALECT_RESPONSES, 7,
                 "event: error\ndata: {\"type\":\"error\",\"code\":\"model_not_found\","
                 "\"message\":\"No \\\"x\\\"\",\"param\":\"model\",\"sequence_number\":7,"
                 "\"error\":{\"message\":\"No \\\"x\\\"\",\"type\":\"invalid_request_error\","
                 "\"param\":\"model\",\"code\":\"model_not_found\"}}\n\n");
    expect_event(PL_DIALECT_ANTHROPIC, 7,
                 "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"not_found_error\","
                 "\"message\":\"No \\\"x\\\"\",\"details\":{\"error_code\":\"model_not_found\"}},"
                 "\"request_id\":\"req-1\"}\n\n");
}

static void test_types(void **state)
{
    static const struct {
        int status;
        const char *openai, *anthropic;
    } cases[] = {
        {400, "invalid_request_error", "invalid_request_error"},
        {401, "invalid_request_error", "authentication_error"},
        {402, "invalid_request_error", "billing_error"},
        {403, "invalid_request_error", "permission_error"},
        {404, "invalid_request_error", "not_found_error"},
        {405, "invalid_request_error", "invalid_request_error"},
        {408, "timeout_error", "timeout_error"},
        {413, "invalid_request_error", "request_too_large"},
        {429, "rate_limit_error", "rate_limit_error"},
        {431, "invalid_request_error", "invalid_request_error"},
        {500, "server_error", "api_error"},
        {501, "invalid_request_error", "invalid_request_error"},
        {502, "upstream_error", "api_error"},
        {503, "server_error", "overloaded_error"},
        {504, "timeout_error", "timeout_error"},
        {505, "invalid_request_error", "invalid_request_error"},
        {529, "server_error", "overloaded_error"},
        {599, "server_error", "api_error"},
    };
    (void)state;
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct pl_client_error error = {.status = cases[i].status, .message = PL_STR("m")};
        char expected[256];
        snprintf(expected, sizeof(expected),
                 "{\"error\":{\"message\":\"m\",\"type\":\"%s\",\"param\":null,\"code\":null}}",
                 cases[i].openai);
        expect_body(PL_DIALECT_OPENAI, &error, expected);
        snprintf(expected, sizeof(expected),
                 "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"m\"},"
                 "\"request_id\":null}",
                 cases[i].anthropic);
        expect_body(PL_DIALECT_ANTHROPIC, &error, expected);
    }
}

static void test_dialects(void **state)
{
    static const struct {
        const char *path;
        enum pl_dialect plain, with_version;
    } cases[] = {
        {"/v1/chat/completions", PL_DIALECT_OPENAI, PL_DIALECT_OPENAI},
        {"/v1/completions", PL_DIALECT_OPENAI, PL_DIALECT_OPENAI},
        {"/v1/embeddings", PL_DIALECT_OPENAI, PL_DIALECT_OPENAI},
        {"/v1/responses", PL_DIALECT_RESPONSES, PL_DIALECT_RESPONSES},
        {"/v1/messages", PL_DIALECT_ANTHROPIC, PL_DIALECT_ANTHROPIC},
        {"/v1/messages/count_tokens", PL_DIALECT_ANTHROPIC, PL_DIALECT_ANTHROPIC},
        {"/v1/messages/batches", PL_DIALECT_ANTHROPIC, PL_DIALECT_ANTHROPIC},
        {"/anthropic/v1/messages", PL_DIALECT_ANTHROPIC, PL_DIALECT_ANTHROPIC},
        {"/messages", PL_DIALECT_ANTHROPIC, PL_DIALECT_ANTHROPIC},
        {"/v1/threads/thread_1/messages", PL_DIALECT_OPENAI, PL_DIALECT_ANTHROPIC},
        {"/v1/chat/completions/c_1/messages", PL_DIALECT_OPENAI, PL_DIALECT_ANTHROPIC},
        {"/v1/models", PL_DIALECT_OPENAI, PL_DIALECT_ANTHROPIC},
        {"/v1/nomessages", PL_DIALECT_OPENAI, PL_DIALECT_ANTHROPIC},
        {"", PL_DIALECT_OPENAI, PL_DIALECT_ANTHROPIC},
    };
    struct pl_headers none, version;
    (void)state;
    pl_headers_init(&none);
    pl_headers_init(&version);
    assert_int_equal(pl_headers_add(&version, PL_STR("Anthropic-Version"), PL_STR("2023-06-01")),
                     PL_OK);
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct pl_str path = pl_str_of(cases[i].path);
        assert_int_equal(pl_client_error_dialect(path, NULL), cases[i].plain);
        assert_int_equal(pl_client_error_dialect(path, &none), cases[i].plain);
        assert_int_equal(pl_client_error_dialect(path, &version), cases[i].with_version);
    }
    pl_headers_deinit(&version);
    pl_headers_deinit(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),    cmocka_unit_test(test_bare_bodies),
        cmocka_unit_test(test_any_bytes), cmocka_unit_test(test_events),
        cmocka_unit_test(test_types),     cmocka_unit_test(test_dialects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
