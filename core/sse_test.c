/*
 * Tests of sse.c. Every stream is fed whole, byte by byte, and cut in two at every place; what is
 * found in the end must be the same each time.
 */
#include "sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct outcome {
    size_t boundary_bytes; /* where the last whole event ends, from the start of the stream */
    uint64_t event_count;
    bool seen_data, seen_terminal, seen_error, in_event;
};

/* Feeds one piece from memory of its own, so that a sanitizer sees every byte read beyond it. */
static size_t feed_piece(struct pl_sse *sse, struct pl_str piece)
{
    char *copy = malloc(piece.len);
    assert_non_null(copy);
    memcpy(copy, piece.data, piece.len);
    size_t boundary = pl_sse_feed(sse, copy, piece.len);
    free(copy);
    assert_true(boundary <= piece.len);
    assert_int_equal(sse->in_event, boundary < piece.len);
    return boundary;
}

static struct outcome feed(struct pl_str stream, size_t first_bytes, size_t step_bytes)
{
    struct pl_sse sse;
    struct outcome outcome = {0};
    pl_sse_init(&sse);
    for (size_t at = 0; at < stream.len;) {
        size_t want = at == 0 && first_bytes > 0 ? first_bytes : step_bytes;
        struct pl_str piece = {stream.data + at, PL_MIN(want, stream.len - at)};
        size_t boundary = feed_piece(&sse, piece);
        outcome.boundary_bytes = boundary > 0 ? at + boundary : outcome.boundary_bytes;
        at += piece.len;
    }
    outcome.event_count = sse.event_count;
    outcome.seen_data = sse.seen_data;
    outcome.seen_terminal = sse.seen_terminal;
    outcome.seen_error = sse.seen_error;
    outcome.in_event = sse.in_event;
    return outcome;
}

static void assert_same(struct outcome a, struct outcome b)
{
    assert_int_equal(a.boundary_bytes, b.boundary_bytes);
    assert_int_equal(a.event_count, b.event_count);
    assert_int_equal(a.seen_data, b.seen_data);
    assert_int_equal(a.seen_terminal, b.seen_terminal);
    assert_int_equal(a.seen_error, b.seen_error);
    assert_int_equal(a.in_event, b.in_event);
}

static struct outcome watch(const char *text)
{
    struct pl_str stream = {text, strlen(text)};
    struct outcome whole = feed(stream, 0, stream.len);
    assert_same(whole, feed(stream, 0, 1));
    for (size_t first_bytes = 1; first_bytes < stream.len; first_bytes++) {
        assert_same(whole, feed(stream, first_bytes, stream.len));
    }
    assert_int_equal(whole.seen_data, whole.event_count > 0);
    return whole;
}

/* Expects that the last event ends where `whole` ends, and that `event_count` had data. */
static void expect(const char *whole, const char *rest, uint64_t event_count)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "%s%s", whole, rest);
    struct outcome outcome = watch(text);
    assert_int_equal(outcome.boundary_bytes, strlen(whole));
    assert_int_equal(outcome.event_count, event_count);
}

static void test_finds_the_end_of_events(void **state)
{
    (void)state;
    expect("", "data: a", 0);
    expect("", "data: a\n", 0);
    expect("data: a\n\n", "", 1);
    expect("data: a\n\n", "d", 1);
    expect("data: a\n\n", "data: b\n", 1);
    expect("data: a\n\ndata: b\n\n", "", 2);
    expect("data: a\ndata: b\n\n", "", 1);
    expect("id: 1\nevent: x\ndata: a\nretry: 5\n\n", "id", 1);
}

static void test_takes_every_line_end(void **state)
{
    (void)state;
    expect("data: a\r\n\r\n", "", 1);
    expect("data: a\r\r", "", 1);
    expect("data: a\r\rdata: b\r\r", "", 2);
    expect("data: a\n\r", "", 1);
    expect("data: a\r\n\r", "", 1);
    expect("data: a\r\n\n", "", 1);
    expect("data: a\n\r\n", "data: b\r\n", 1);
    expect("data: a\r\r\n", "data", 1);
    expect("\r\n\r\n", "", 0);
    expect("", "data: a\r\n", 0);
}

static void test_an_lf_behind_a_boundary_belongs_to_it(void **state)
{
    (void)state;
    struct pl_sse sse;
    pl_sse_init(&sse);
    assert_int_equal(pl_sse_feed(&sse, "data: a\r\n\r", 10), 10);
    assert_int_equal(sse.event_count, 1);
    assert_false(sse.in_event);
    assert_int_equal(pl_sse_feed(&sse, "\ndata: b", 8), 1);
    assert_int_equal(sse.event_count, 1);
    assert_true(sse.in_event);
}

static void test_an_lf_within_an_event_is_no_boundary(void **state)
{
    (void)state;
    struct pl_sse sse;
    pl_sse_init(&sse);
    assert_int_equal(pl_sse_feed(&sse, "data: a\r", 8), 0);
    assert_int_equal(pl_sse_feed(&sse, "\n", 1), 0);
    assert_int_equal(pl_sse_feed(&sse, "\r\n", 2), 2);
}

static void test_counts_only_events_with_data(void **state)
{
    (void)state;
    expect("data\n\n", "", 1);
    expect("data:\n\n", "", 1);
    expect("data:a\n\n", "", 1);
    expect("event: x\n\n", "", 0);
    expect("dat: a\n\n", "", 0);
    expect("datax: a\n\n", "", 0);
    expect(" data: a\n\n", "", 0);
    expect("Data: a\n\n", "", 0);
    expect("\n\n\n", "", 0);
    expect("data: a\n\nevent: x\n\n", "", 1);
}

static void test_comments_stand_alone_outside_events(void **state)
{
    (void)state;
    expect(": ping\n", "", 0);
    expect(":\r\n", "", 0);
    expect("", ": pin", 0);
    expect(": ping\n\n", "", 0);
    expect(": a\n: b\n", ": c", 0);
    expect(": ping\n", "data: a\n", 0);
    expect("data: a\n\n: ping\n", "", 1);
    expect("", "data: a\n: ping\n", 0);
    expect("data: a\n: ping\n\n", "", 1);
    expect(":data: a\n\n", "", 0);
}

static void test_skips_a_byte_order_mark(void **state)
{
    (void)state;
    expect("\xEF\xBB\xBF"
           "data: a\n\n",
           "", 1);
    expect("\xEF\xBB\xBF: ping\n", "", 0);
    expect("\xEF\xBB\xBF\n", "", 0);
    expect("\n\xEF\xBB\xBF"
           "data: a\n\n",
           "", 0);
    expect("\xEF\xBB\xBF"
           "data: a line that is longer than what is kept of a line\n\n",
           "", 1);
    assert_true(watch("\xEF\xBB\xBF"
                      "event: response.incomplete\n\n")
                    .seen_terminal);
    assert_false(watch("\xEF\xBB\xBF\xEF\xBB\xBF"
                       "data: [DONE]\n\n")
                     .seen_terminal);
}

static void test_knows_terminal_events(void **state)
{
    (void)state;
    const char *terminal[] = {
        "data: [DONE]\n\n",
        "data:[DONE]\r\n\r\n",
        "data: a\n\ndata: [DONE]\n\n",
        "data: [DONE]\n\ndata: a\n\n",
        "event: message_stop\ndata: {}\n\n",
        "event:message_stop\rdata: {}\r\r",
        "event: response.completed\ndata: {}\n\n",
        "event: response.failed\ndata: {}\n\n",
        "event: response.incomplete\ndata: {}\n\n",
        "data: {}\nevent: message_stop\n\n",
    };
    for (size_t i = 0; i < PL_COUNT(terminal); i++) {
        assert_true(watch(terminal[i]).seen_terminal);
    }
}

static void test_knows_what_is_not_terminal(void **state)
{
    (void)state;
    const char *others[] = {
        "data: [DONE]",
        "data: [DONE]\n",
        "data:  [DONE]\n\n",
        "data: [DONE] \n\n",
        "data: [DONE]x\n\n",
        "data: [DON\n\n",
        "data: \"[DONE]\"\n\n",
        ": [DONE]\n\n",
        "Data: [DONE]\n\n",
        "event: [DONE]\n\n",
        "data: message_stop\n\n",
        "event: message_stopped\n\n",
        "event: message_start\n\n",
        "event: response.incomplete_and_a_tail_longer_than_what_is_kept\n\n",
        "event: response.output_text.delta\ndata: {}\n\n",
        "event: response.complete\n\n",
        "event\n\n",
    };
    for (size_t i = 0; i < PL_COUNT(others); i++) {
        assert_false(watch(others[i]).seen_terminal);
    }
}

static void test_knows_plain_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_error;
    } samples[] = {
        {"data: {\"error\":{\"message\":\"m\"}}\n\n", true},
        {"data:{\"error\": \"m\"}\n\n", true},
        {"data: {\"type\":\"error\",\"error\":{}}\n\n", true},
        {"event: error\ndata: {}\n\n", true},
        {"\xEF\xBB\xBF"
         "data: {\"error\":{}}\r\r",
         true},
        {"data: {\"error\":{}}\n\ndata: [DONE]\n\n", true},
        {"data: {\"error\":null,\"choices\":[]}\n\n", false},
        {"data: {\"error\": null}\n\n", false},
        {"data: {\"error\":", false},
        {"data: {\"error\":\n\n", false},
        {"data: {\"errors\":[]}\n\n", false},
        {"data: {\"type\":\"errors\"}\n\n", false},
        {"event: error\n\n", false},
        {": {\"error\":{}}\n\n", false},
        {"data: {\"id\":1,\"error\":{}}\n\n", false},
    };
    for (size_t i = 0; i < PL_COUNT(samples); i++) {
        if (watch(samples[i].text).seen_error != samples[i].is_error) {
            fail_msg("%s", samples[i].text);
        }
    }
}

static void test_lines_may_be_of_any_length(void **state)
{
    (void)state;
    char text[512];
    for (size_t value_bytes = 0; value_bytes < 100; value_bytes++) {
        memset(text, 'x', sizeof(text));
        memcpy(text, "data: ", 6);
        strcpy(text + 6 + value_bytes, "\n\n");
        expect(text, "data: y", 1);
    }
}

/* A line of 100 MB costs a pass over its bytes, and nothing is kept of it. */
static void test_an_event_may_be_of_any_size(void **state)
{
    (void)state;
    const size_t piece_bytes = 65536, piece_count = 1600;
    char *piece = malloc(piece_bytes);
    struct pl_sse sse;
    assert_non_null(piece);
    memset(piece, 'x', piece_bytes);
    pl_sse_init(&sse);
    assert_int_equal(pl_sse_feed(&sse, "data: a\n\ndata: ", 15), 9);
    for (size_t i = 0; i < piece_count; i++) {
        assert_int_equal(pl_sse_feed(&sse, piece, piece_bytes), 0);
        assert_true(sse.in_event);
    }
    assert_int_equal(pl_sse_feed(&sse, "\n\ndata", 6), 2);
    assert_int_equal(sse.event_count, 2);
    free(piece);
}

static void test_a_piece_may_have_many_events(void **state)
{
    (void)state;
    static const char one[] = "event: x\r\ndata: {}\r\n\r\n";
    const size_t count = 10000, one_bytes = sizeof(one) - 1;
    char *text = malloc(count * one_bytes + 1);
    assert_non_null(text);
    for (size_t i = 0; i < count; i++)
        memcpy(text + i * one_bytes, one, one_bytes);
    struct pl_str stream = {text, count * one_bytes};
    struct outcome whole = feed(stream, 0, stream.len);
    assert_int_equal(whole.event_count, count);
    assert_int_equal(whole.boundary_bytes, stream.len);
    assert_same(whole, feed(stream, 0, 7));
    free(text);
}

/* Searching for the next LF anew at each CR would take minutes. */
static void test_a_piece_of_line_ends_takes_linear_time(void **state)
{
    (void)state;
    const size_t len = 4 << 20;
    char *text = malloc(len);
    struct pl_sse sse;
    assert_non_null(text);
    memset(text, '\r', len);
    pl_sse_init(&sse);
    uint64_t start_us = pl_thread_cpu_us();
    assert_int_equal(pl_sse_feed(&sse, text, len), len);
    assert_true(pl_thread_cpu_us() - start_us < 20 * 1000 * 1000);
    free(text);
}

static void test_takes_nothing(void **state)
{
    (void)state;
    struct pl_sse sse;
    pl_sse_init(&sse);
    assert_int_equal(pl_sse_feed(&sse, NULL, 0), 0);
    assert_false(sse.in_event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_the_end_of_events),
        cmocka_unit_test(test_takes_every_line_end),
        cmocka_unit_test(test_an_lf_behind_a_boundary_belongs_to_it),
        cmocka_unit_test(test_an_lf_within_an_event_is_no_boundary),
        cmocka_unit_test(test_counts_only_events_with_data),
        cmocka_unit_test(test_comments_stand_alone_outside_events),
        cmocka_unit_test(test_skips_a_byte_order_mark),
        cmocka_unit_test(test_knows_terminal_events),
        cmocka_unit_test(test_knows_what_is_not_terminal),
        cmocka_unit_test(test_knows_plain_errors),
        cmocka_unit_test(test_lines_may_be_of_any_length),
        cmocka_unit_test(test_an_event_may_be_of_any_size),
        cmocka_unit_test(test_a_piece_may_have_many_events),
        cmocka_unit_test(test_a_piece_of_line_ends_takes_linear_time),
        cmocka_unit_test(test_takes_nothing),
    };
    return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
