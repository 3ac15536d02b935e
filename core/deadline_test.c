/*
 * Unit tests of deadline.c.
 */
#include "deadline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void expect_unit(const char *list, const char *name, enum pl_deadline_unit unit)
{
    assert_int_equal(pl_deadline_unit_of(list, pl_str_of(name)), unit);
}

static void test_units(void **state)
{
    static const char list[] = "x-a-ms:ms,x-b:s,grpc-timeout:grpc";
    (void)state;
    expect_unit(list, "x-a-ms", PL_DEADLINE_MS);
    expect_unit(list, "X-B", PL_DEADLINE_S);
    expect_unit(list, "Grpc-Timeout", PL_DEADLINE_GRPC);
    expect_unit(list, "x-a", PL_DEADLINE_NONE);
    expect_unit(list, "x-a-ms:ms", PL_DEADLINE_NONE);
    expect_unit(list, "ms", PL_DEADLINE_NONE);
    expect_unit(list, "", PL_DEADLINE_NONE);
    expect_unit(NULL, "x-a-ms", PL_DEADLINE_NONE);
    expect_unit("", "x-a-ms", PL_DEADLINE_NONE);
    expect_unit("x-b:s", "x-b", PL_DEADLINE_S);
}

static void expect_text(enum pl_deadline_unit unit, uint64_t ms, const char *expected)
{
    char text[PL_DEADLINE_MAX_BYTES];
    size_t len = pl_deadline_put(text, unit, ms);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(text, expected, len);
}

static void test_texts(void **state)
{
    (void)state;
    expect_text(PL_DEADLINE_MS, 1500, "1500");
    expect_text(PL_DEADLINE_MS, UINT64_MAX, "18446744073709551615");
    expect_text(PL_DEADLINE_S, 1, "1");
    expect_text(PL_DEADLINE_S, 1000, "1");
    expect_text(PL_DEADLINE_S, 1001, "2");
    expect_text(PL_DEADLINE_S, UINT64_MAX, "18446744073709552");
    expect_text(PL_DEADLINE_GRPC, 1500, "1500m");
    expect_text(PL_DEADLINE_GRPC, 99999999, "99999999m");
    expect_text(PL_DEADLINE_GRPC, 100000001, "100001S");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_units), cmocka_unit_test(test_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
