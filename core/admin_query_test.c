/*
 * Query: what is found, decoded, understood; what is not.
 */
#include "admin_query.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define QUERY(text) PL_STR(text)

static void test_find(void **state)
{
    (void)state;
    struct pl_str value;
    assert_true(pl_query_find(QUERY("a=1&bb=two&c="), "bb", &value));
    assert_true(pl_str_equal(value, PL_STR("two")));
    assert_true(pl_query_find(QUERY("a=1&bb=two&c="), "c", &value));
    assert_int_equal(value.len, 0);
    assert_false(pl_query_find(QUERY("a=1&bb=two"), "b", &value));
    assert_false(pl_query_find(QUERY("a&b"), "a", &value));
    assert_false(pl_query_find(QUERY(""), "a", &value));
    assert_true(pl_query_find(QUERY("a=1&a=2"), "a", &value)); /* the first one */
    assert_true(pl_str_equal(value, PL_STR("1")));
}

static bool has_only(const char *query, const char *stranger)
{
    static const char *const keys[] = {"canary", "for", NULL};
    struct pl_str found;
    if (pl_query_has_only(pl_str_of(query), keys, &found))
        return true;
    assert_true(pl_str_equal(found, pl_str_of(stranger)));
    return false;
}

static void test_has_only(void **state)
{
    (void)state;
    assert_true(has_only("", ""));
    assert_true(has_only("canary=1", ""));
    assert_true(has_only("for=&canary=1", ""));
    assert_false(has_only("canari=1", "canari=1"));
    assert_false(has_only("canary=1&fo=2&x=3", "fo=2"));
    assert_false(has_only("canary", "canary"));
    assert_false(has_only("canary=1&&for=2", ""));
    assert_false(has_only("canary=1&for=2&canary=3", "canary=1"));
    assert_false(has_only("canary2=1", "canary2=1"));
}

static void test_value(void **state)
{
    (void)state;
    char out[PL_QUERY_VALUE_BYTES], long_query[PL_QUERY_VALUE_BYTES + 8];
    assert_true(pl_query_value(QUERY("t=a%2Fb%20c"), "t", out));
    assert_string_equal(out, "a/b c");
    assert_false(pl_query_value(QUERY("t=a%2"), "t", out));
    assert_false(pl_query_value(QUERY("t=%zz"), "t", out));
    assert_false(pl_query_value(QUERY("t=%00"), "t", out));
    memset(long_query, 'x', sizeof(long_query));
    long_query[0] = 't';
    long_query[1] = '=';
    struct pl_str query = {long_query, 2 + PL_QUERY_VALUE_BYTES - 1};
    assert_true(pl_query_value(query, "t", out));
    query.len++;
    assert_false(pl_query_value(query, "t", out));
}

static void test_duration(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"250ms", 250}, {"30s", 30000}, {"1.5m", 90000}, {"2h", 7200000}, {"0s", 0}};
    static const char *const bad[] = {"",    "5",   "s",     "-5s", "5 s",   "5d",   "nan",
                                      "inf", "5ss", "1e99h", "0x",  "0x10s", "1e1s", "1.2.3s"};
    uint64_t ms;
    for (size_t i = 0; i < PL_COUNT(good); i++) {
        assert_true(pl_query_duration_ms(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < PL_COUNT(bad); i++)
        assert_false(pl_query_duration_ms(bad[i], &ms));
}

static void test_percent(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "10", "%", "-10%", "10%%", "x%", "nan%", "10%26"};
    double ratio;
    assert_true(pl_query_percent(PL_STR("10%"), &ratio));
    assert_true(ratio > 0.0999 && ratio < 0.1001);
    assert_true(pl_query_percent(PL_STR("0.5%25"), &ratio));
    assert_true(ratio > 0.00499 && ratio < 0.00501);
    for (size_t i = 0; i < PL_COUNT(bad); i++)
        assert_false(pl_query_percent(pl_str_of(bad[i]), &ratio));
    assert_false(pl_query_percent(PL_STR("1000000000000000000000000000000000%"), &ratio));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),    cmocka_unit_test(test_has_only),
        cmocka_unit_test(test_value),   cmocka_unit_test(test_duration),
        cmocka_unit_test(test_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
