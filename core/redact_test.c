/*
 * Tests of redact.c: what is taken out of bodies, and what stays.
 */
#include "redact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *text, char *const *names, const char *expected)
{
    size_t len, text_len = strlen(text);
    char *copy = malloc(text_len + 1); /* without an end, so that a read beyond it is found */
    memcpy(copy, text, text_len);
    char *out = pl_redact((struct pl_str){copy, text_len}, names, &len);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(out, expected, len);
    free(out);
    free(copy);
}

static void test_members(void **state)
{
    (void)state;
    expect("{\"api_key\":\"sk-1\",\"a\":1}", NULL, "{\"api_key\":\"[redacted]\",\"a\":1}");
    expect("{\"OPENAI-API-KEY\" : \"sk-1\"}", NULL, "{\"OPENAI-API-KEY\" : \"[redacted]\"}");
    expect("{\"password\":12,\"b\":2}", NULL, "{\"password\":\"[redacted]\",\"b\":2}");
    expect("{\"token\":{\"a\":\"x}\"},\"b\":2}", NULL, "{\"token\":\"[redacted]\"");
    expect("{\"secret\":\"a\\\"b\",\"c\":1}", NULL, "{\"secret\":\"[redacted]\",\"c\":1}");
    expect("{\"pass\\u0077ord\":\"x\"}", NULL, "{\"pass\\u0077ord\":\"[redacted]\"}");
}

static void test_what_stays(void **state)
{
    (void)state;
    expect("{\"max_tokens\":5,\"model\":\"m\"}", NULL, "{\"max_tokens\":5,\"model\":\"m\"}");
    expect("a: b", NULL, "a: b");
    expect(":", NULL, ":");
    expect("\":", NULL, "\":");
    expect("", NULL, "");
}

static void test_cut_texts(void **state)
{
    (void)state;
    expect("{\"api_key\":\"sk-12", NULL, "{\"api_key\":\"[redacted]");
    expect("{\"api_key\":", NULL, "{\"api_key\":\"[redacted]\"");
    expect("{\"api_key\"", NULL, "{\"api_key\"");
}

static void test_json_in_json(void **state)
{
    (void)state;
    expect("{\"arguments\":\"{\\\"password\\\": \\\"hunter2\\\",\\\"n\\\":1}\"}", NULL,
           "{\"arguments\":\"{\\\"password\\\": \\\"[redacted]\\\",\\\"n\\\":1}\"}");
}

static void test_own_names(void **state)
{
    (void)state;
    char *names[] = {pl_redact_name("Social-Id"), NULL};
    expect("{\"socialId\":\"1\",\"social\":\"2\"}", names,
           "{\"socialId\":\"[redacted]\",\"social\":\"2\"}");
    free(names[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members),   cmocka_unit_test(test_what_stays),
        cmocka_unit_test(test_cut_texts), cmocka_unit_test(test_json_in_json),
        cmocka_unit_test(test_own_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
