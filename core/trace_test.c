/*
 * Tests of trace.c: what W3C Trace Context says of traceparent and tracestate, ids and sampling.
 */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID     "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static bool parse(const char *text, struct pl_trace *out)
{
    return pl_trace_parse(pl_str_of(text), out);
}

static void add(struct pl_headers *headers, const char *name, const char *value)
{
    assert_int_equal(pl_headers_add(headers, pl_str_of(name), pl_str_of(value)), PL_OK);
}

static void test_a_parent_is_read(void **state)
{
    (void)state;
    struct pl_trace trace;
    assert_true(parse("00-" ID "-" PARENT "-01", &trace));
    assert_true(trace.id_high == 0x4bf92f3577b34da6u);
    assert_true(trace.id_low == 0xa3ce929d0e0e4736u);
    assert_true(trace.parent_span_id == 0x00f067aa0ba902b7u);
    assert_true(trace.span_id == 0);
    assert_true(trace.sampled);
    assert_false(trace.random);
}

static void test_flags(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool sampled, random;
    } cases[] = {
        {"00-" ID "-" PARENT "-00", false, false}, {"00-" ID "-" PARENT "-02", false, true},
        {"00-" ID "-" PARENT "-03", true, true},   {"00-" ID "-" PARENT "-09", true, false},
        {"00-" ID "-" PARENT "-ff", true, true},   {"00-" ID "-" PARENT "-fc", false, false},
    };
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct pl_trace trace;
        assert_true(parse(cases[i].text, &trace));
        assert_int_equal(trace.sampled, cases[i].sampled);
        assert_int_equal(trace.random, cases[i].random);
    }
}

static void test_what_is_not_valid_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "00",
        "00-" ID "-" PARENT "-0",
        "00-" ID "-" PARENT "-",
        "00-" ID "-" PARENT,
        "00-" ID "-" PARENT "-01-",
        "00-" ID "-" PARENT "-01-what-the-future-will-be-like",
        "00-" ID "-" PARENT "-01.",
        "00-" ID "-" PARENT "-011",
        "00-" ID "-" PARENT "-1g",
        "00-" ID "-" PARENT "-0X",
        "0-" ID "-" PARENT "-01",
        "000-" ID "-" PARENT "-01",
        ".0-" ID "-" PARENT "-01",
        "0.-" ID "-" PARENT "-01",
        "ff-" ID "-" PARENT "-01",
        "FE-" ID "-" PARENT "-01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" ID "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
        "00-" ID "-00F067AA0BA902B7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473.-" PARENT "-01",
        "00-.bf92f3577b34da6a3ce929d0e0e4736-" PARENT "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47361-" PARENT "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-" PARENT "-01",
        "00-" ID "-00f067aa0ba902b-01",
        "00-" ID "-00f067aa0ba902b71-01",
        "00-" ID "-.0f067aa0ba902b7-01",
        "00_" ID "_" PARENT "_01",
        " 00-" ID "-" PARENT "-01",
        "cc-" ID "-" PARENT "-01.what-the-future-will-not-be-like",
        "cc-" ID "-" PARENT "-011",
    };
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct pl_trace trace = {.span_id = 7};
        if (parse(cases[i], &trace))
            fail_msg("accepted: %s", cases[i]);
        assert_true(trace.span_id == 7);
    }
}

static void test_versions_to_come(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "01-" ID "-" PARENT "-01",   "cc-" ID "-" PARENT "-01",
        "cc-" ID "-" PARENT "-01-",  "cc-" ID "-" PARENT "-01-what-the-future-will-be-like",
        "fe-" ID "-" PARENT "-01-!",
    };
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct pl_trace trace;
        assert_true(parse(cases[i], &trace));
        assert_true(trace.id_low == 0xa3ce929d0e0e4736u);
        assert_true(trace.sampled);
    }
}

static void test_a_parent_is_written(void **state)
{
    (void)state;
    struct pl_trace trace;
    char text[PL_TRACEPARENT_BYTES + 1] = "";
    assert_true(parse("cc-" ID "-" PARENT "-01-x", &trace));
    pl_trace_put_parent(text, &trace, 0x0123456789abcdefu);
    assert_string_equal(text, "00-" ID "-0123456789abcdef-01");
    trace.sampled = false;
    trace.random = true;
    pl_trace_put_parent(text, &trace, 1);
    assert_string_equal(text, "00-" ID "-0000000000000001-02");
}

static void test_a_clients_trace_is_gone_on_with(void **state)
{
    (void)state;
    struct pl_headers headers;
    struct pl_trace trace;
    pl_headers_init(&headers);
    add(&headers, "TraceParent", "00-" ID "-" PARENT "-00");
    pl_trace_begin(&trace, &headers, 1);
    assert_true(trace.id_high == 0x4bf92f3577b34da6u);
    assert_true(trace.parent_span_id == 0x00f067aa0ba902b7u);
    assert_true(trace.span_id != 0 && trace.span_id != trace.parent_span_id);
    assert_false(trace.sampled); /* its decision holds */
    pl_headers_clear(&headers);
    add(&headers, "traceparent", "00-" ID "-" PARENT "-01");
    pl_trace_begin(&trace, &headers, 0);
    assert_true(trace.sampled);
    pl_headers_deinit(&headers);
}

static void test_several_parents_are_none(void **state)
{
    (void)state;
    struct pl_headers headers;
    struct pl_trace trace;
    pl_headers_init(&headers);
    add(&headers, "traceparent", "00-" ID "-" PARENT "-01");
    add(&headers, "traceparent", "00-" ID "-" PARENT "-01");
    assert_false(pl_trace_from_headers(&headers, &trace));
    pl_trace_begin(&trace, &headers, 0);
    assert_true(trace.id_high != 0x4bf92f3577b34da6u);
    assert_true(trace.parent_span_id == 0);
    assert_true(trace.random);
    pl_headers_deinit(&headers);
}

static void test_shares_of_roots_are_sampled(void **state)
{
    (void)state;
    static const double ratios[] = {0, 0.1, 0.5, 0.9, 1};
    struct pl_headers headers;
    pl_headers_init(&headers);
    pl_random_seed(1);
    for (size_t i = 0; i < PL_COUNT(ratios); i++) {
        size_t sampled_count = 0, all_count = 20000;
        for (size_t j = 0; j < all_count; j++) {
            struct pl_trace trace;
            pl_trace_begin(&trace, &headers, ratios[i]);
            assert_true((trace.id_high | trace.id_low) != 0 && trace.span_id != 0);
            sampled_count += trace.sampled;
        }
        double share = (double)sampled_count / (double)all_count;
        assert_true(share > ratios[i] - 0.02 && share < ratios[i] + 0.02);
        if (ratios[i] == 0 || ratios[i] == 1)
            assert_true(share == ratios[i]);
    }
    pl_headers_deinit(&headers);
}

/* What is written of fields that hold those values; NULL ends them. */
static const char *state_of(const char *const *values)
{
    static char out[PL_TRACESTATE_MAX_BYTES + 1];
    struct pl_headers headers;
    pl_headers_init(&headers);
    add(&headers, "x-other", "a=1");
    for (; *values; values++)
        add(&headers, "tracestate", *values);
    size_t len = pl_trace_put_state(out, &headers);
    assert_true(len <= PL_TRACESTATE_MAX_BYTES);
    out[len] = '\0';
    pl_headers_deinit(&headers);
    return out;
}

#define STATE_OF(...) state_of((const char *const[]){__VA_ARGS__, NULL})

static void test_states_become_one(void **state)
{
    (void)state;
    assert_string_equal(STATE_OF("foo=1"), "foo=1");
    assert_string_equal(STATE_OF("foo=1,bar=2"), "foo=1,bar=2");
    assert_string_equal(STATE_OF("foo=1 \t , \tbar=2"), "foo=1,bar=2");
    assert_string_equal(STATE_OF("foo=1", "bar=2,rojo=3"), "foo=1,bar=2,rojo=3");
    assert_string_equal(STATE_OF("foo=1,", "", ",bar=2"), "foo=1,bar=2");
    assert_string_equal(STATE_OF(""), "");
    assert_string_equal(STATE_OF("tenant@vendor=a b:c"), "tenant@vendor=a b:c");
}

static void test_broken_states_are_left_out(void **state)
{
    (void)state;
    char many[200] = "";
    assert_string_equal(STATE_OF("foo"), "");
    assert_string_equal(STATE_OF("foo=1", "=2"), "");
    assert_string_equal(STATE_OF("foo=\xc3\xa4"), "");
    for (int i = 0; i < 32; i++)
        strcat(many, i > 0 ? ",a=1" : "a=1");
    assert_string_equal(STATE_OF(many), many);
    assert_string_equal(STATE_OF(many, "b=1"), "");
}

static void test_states_are_bounded(void **state)
{
    (void)state;
    char member[200], field[700] = "", expected[700] = "";
    memset(member, 'x', sizeof(member));
    memcpy(member, "a=", 2);
    member[100] = '\0';
    for (int i = 0; i < 6; i++) { /* 6 times 100 bytes: the last one goes */
        strcat(strcat(field, i > 0 ? "," : ""), member);
        if (i < 5)
            strcat(strcat(expected, i > 0 ? "," : ""), member);
    }
    assert_string_equal(STATE_OF(field), expected);
    member[100] = 'x';
    member[150] = '\0'; /* a long one in front goes before that */
    assert_string_equal(STATE_OF(member, expected), expected);
    assert_string_equal(STATE_OF(member, "b=1"), strcat(strcpy(field, member), ",b=1"));
    char whole[513];
    memset(whole, 'y', sizeof(whole));
    memcpy(whole, "b=", 2);
    whole[512] = '\0';
    assert_string_equal(STATE_OF(whole), whole);
    assert_string_equal(STATE_OF(whole, "c=1"), "c=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_parent_is_read),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_what_is_not_valid_is_refused),
        cmocka_unit_test(test_versions_to_come),
        cmocka_unit_test(test_a_parent_is_written),
        cmocka_unit_test(test_a_clients_trace_is_gone_on_with),
        cmocka_unit_test(test_several_parents_are_none),
        cmocka_unit_test(test_shares_of_roots_are_sampled),
        cmocka_unit_test(test_states_become_one),
        cmocka_unit_test(test_broken_states_are_left_out),
        cmocka_unit_test(test_states_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
