/*
 * Tests of guard.c. Every message is fed whole, byte by byte, and cut in two at every place; the
 * outcome, with the fields and the body that were found, must be the same each time.
 */
#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct pl_guard_limits LIMITS = {
    .request_line_bytes = 200,
    .head_bytes = 1000,
    .header_count = 10,
    .body_bytes = 100,
};

struct outcome {
    enum pl_guard_verdict verdict;
    int status;
    size_t consumed_bytes;
    uint64_t body_bytes, body_hash;
    bool expects_continue;
    enum pl_guard_phase phase;
    char reason[128];
    char found[2048]; /* the target, the fields and the body, each in brackets */
};

/* What a guard has found in a message so far. */
struct finds {
    struct pl_headers fields;
    char body[64]; /* its first bytes ... */
    size_t body_len;
    uint64_t body_hash; /* ... and all of them */
};

static void note(struct finds *finds, struct pl_str head, struct pl_str body)
{
    pl_headers_keep_bytes(&finds->fields, head.data, head.len);
    for (size_t i = 0; i < body.len; i++) {
        if (finds->body_len < sizeof(finds->body))
            finds->body[finds->body_len] = body.data[i];
        finds->body_len++;
        finds->body_hash = (finds->body_hash ^ (uint8_t)body.data[i]) * 0x100000001b3u;
    }
}

/* Feeds one piece from memory of its own, so that a sanitizer sees every byte read beyond it. */
static enum pl_guard_verdict feed_piece(struct pl_guard *guard, struct pl_str piece, size_t *taken,
                                        struct finds *finds)
{
    char *copy = malloc(piece.len);
    enum pl_guard_verdict verdict = PL_GUARD_MORE;
    assert_non_null(copy);
    memcpy(copy, piece.data, piece.len);
    for (size_t at = 0; verdict == PL_GUARD_MORE && at < piece.len;) {
        size_t consumed_bytes = SIZE_MAX;
        struct pl_str body = {NULL, SIZE_MAX};
        bool in_head = guard->phase <= PL_GUARD_IN_HEAD;
        verdict = pl_guard_feed(guard, copy + at, piece.len - at, &consumed_bytes, &body);
        assert_true(consumed_bytes <= piece.len - at);
        assert_true(body.len <= consumed_bytes);
        assert_true(verdict != PL_GUARD_MORE || consumed_bytes > 0);
        assert_true(!in_head || body.len == 0);
        note(finds, (struct pl_str){copy + at, in_head ? consumed_bytes : 0}, body);
        at += consumed_bytes;
        *taken += consumed_bytes;
    }
    free(copy);
    return verdict;
}

/* Feeds all of it, of which nobody asks what it holds. */
static enum pl_guard_verdict take(struct pl_guard *guard, const char *data, size_t len,
                                  size_t *taken)
{
    enum pl_guard_verdict verdict;
    size_t at = 0;
    do {
        struct pl_str body;
        size_t used;
        verdict = pl_guard_feed(guard, data + at, len - at, &used, &body);
        at += used;
    } while (verdict == PL_GUARD_MORE && at < len);
    *taken = at;
    return verdict;
}

static void print(struct outcome *outcome, struct pl_str text)
{
    size_t used = strlen(outcome->found);
    (void)snprintf(outcome->found + used, sizeof(outcome->found) - used, "[%.*s]", (int)text.len,
                   text.data);
}

/* Of a message whose head is whole: what the guard says lies where. */
static void print_finds(struct outcome *outcome, const struct pl_guard *guard, struct finds *finds)
{
    if (guard->phase <= PL_GUARD_IN_HEAD || guard->status != 0) {
        return;
    }
    pl_headers_trim(&finds->fields);
    print(outcome, (struct pl_str){pl_guard_method(guard), strlen(pl_guard_method(guard))});
    print(outcome, (struct pl_str){finds->fields.arena + guard->target_offset, guard->target_len});
    for (size_t i = 0; i < finds->fields.count; i++) {
        print(outcome, pl_headers_name(&finds->fields, i));
        print(outcome, pl_headers_value(&finds->fields, i));
    }
    print(outcome, (struct pl_str){finds->body, PL_MIN(finds->body_len, sizeof(finds->body))});
}

static struct outcome describe(const struct pl_guard *guard, enum pl_guard_verdict verdict,
                               size_t consumed_bytes, struct finds *finds)
{
    struct outcome outcome = {
        .verdict = verdict,
        .status = guard->status,
        .consumed_bytes = consumed_bytes,
        .body_bytes = guard->body_bytes,
        .body_hash = finds->body_hash,
        .expects_continue = guard->expects_continue,
        .phase = guard->phase,
    };
    if (verdict == PL_GUARD_REFUSED) {
        assert_non_null(guard->reason);
        (void)snprintf(outcome.reason, sizeof(outcome.reason), "%s", guard->reason);
    }
    assert_int_equal(finds->body_len, guard->body_bytes);
    print_finds(&outcome, guard, finds);
    return outcome;
}

/* Feeds `message`, first `first_bytes` of it and then `step_bytes` at a time. */
static struct outcome feed(struct pl_str message, const struct pl_guard_limits *limits,
                           size_t first_bytes, size_t step_bytes)
{
    struct pl_guard guard;
    enum pl_guard_verdict verdict = PL_GUARD_MORE;
    size_t taken = 0;
    struct finds finds = {.body_len = 0};
    pl_headers_init(&finds.fields);
    pl_guard_init(&guard, limits);
    pl_guard_reset(&guard, &finds.fields);
    for (size_t at = 0; verdict == PL_GUARD_MORE && at < message.len;) {
        size_t want = at == 0 && first_bytes > 0 ? first_bytes : step_bytes;
        struct pl_str piece = {message.data + at, PL_MIN(want, message.len - at)};
        at += piece.len;
        verdict = feed_piece(&guard, piece, &taken, &finds);
    }
    struct outcome outcome = describe(&guard, verdict, taken, &finds);
    pl_headers_deinit(&finds.fields);
    return outcome;
}

static void assert_same(struct outcome a, struct outcome b)
{
    assert_int_equal(a.verdict, b.verdict);
    assert_int_equal(a.status, b.status);
    assert_int_equal(a.consumed_bytes, b.consumed_bytes);
    assert_int_equal(a.body_bytes, b.body_bytes);
    assert_int_equal(a.body_hash, b.body_hash);
    assert_int_equal(a.expects_continue, b.expects_continue);
    assert_int_equal(a.phase, b.phase);
    assert_string_equal(a.reason, b.reason);
    assert_string_equal(a.found, b.found);
}

static struct outcome judge_with(struct pl_str message, const struct pl_guard_limits *limits)
{
    struct outcome whole = feed(message, limits, 0, message.len);
    assert_same(whole, feed(message, limits, 0, 1));
    for (size_t first_bytes = 1; first_bytes < message.len; first_bytes++) {
        assert_same(whole, feed(message, limits, first_bytes, message.len));
    }
    return whole;
}

static struct outcome judge(const char *text)
{
    return judge_with((struct pl_str){text, strlen(text)}, &LIMITS);
}

static void expect_done(const char *text, uint64_t body_bytes)
{
    struct outcome outcome = judge(text);
    if (outcome.verdict != PL_GUARD_DONE) {
        print_error("not accepted: %s (%d %s)\n", text, outcome.status, outcome.reason);
    }
    assert_int_equal(outcome.verdict, PL_GUARD_DONE);
    assert_int_equal(outcome.phase, PL_GUARD_COMPLETE);
    assert_int_equal(outcome.consumed_bytes, strlen(text));
    assert_int_equal(outcome.body_bytes, body_bytes);
    assert_int_equal(outcome.status, 0);
}

static void expect_more(const char *text)
{
    struct outcome outcome = judge(text);
    assert_int_equal(outcome.verdict, PL_GUARD_MORE);
    assert_int_equal(outcome.consumed_bytes, strlen(text));
}

static void expect_refusal_of(struct pl_str message, int status, const char *words)
{
    struct outcome outcome = judge_with(message, &LIMITS);
    if (outcome.verdict != PL_GUARD_REFUSED || outcome.status != status ||
        strstr(outcome.reason, words) == NULL) {
        print_error("%s\nverdict %d, status %d: %s\n", message.data, outcome.verdict,
                    outcome.status, outcome.reason);
    }
    assert_int_equal(outcome.verdict, PL_GUARD_REFUSED);
    assert_int_equal(outcome.status, status);
    assert_non_null(strstr(outcome.reason, words));
}

static void expect_refusal(const char *text, int status, const char *words)
{
    expect_refusal_of((struct pl_str){text, strlen(text)}, status, words);
}

/* Expects the refusal of a request with that field, or those fields. */
static void refuse_fields(const char *fields, int status, const char *words)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\nxxxxxx", fields);
    expect_refusal(text, status, words);
}

static void refuse_line(const char *line, int status, const char *words)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "%s\r\nHost: a\r\n\r\n", line);
    expect_refusal(text, status, words);
}

#define GET_HEAD  "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST_HEAD "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED   POST_HEAD "Transfer-Encoding: chunked\r\n\r\n"

/* ---- what is accepted ---- */

static void test_takes_plain_requests(void **state)
{
    (void)state;
    expect_done(GET_HEAD "\r\n", 0);
    expect_done("GET / HTTP/1.0\r\n\r\n", 0);
    expect_done("GET / HTTP/1.0\r\nHost: a\r\n\r\n", 0);
    expect_done(
        "HEAD /v1/models?a=b%20c&d=/?:@!$'()*+,;=\"<>[]^`{|}~\\ HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    expect_done("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    expect_done("OPTIONS /v1 HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    expect_done("DELETE /a//b HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    expect_done("PATCH /: HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    expect_done("PUT /x HTTP/1.1\r\nHost: a\r\n\r\n", 0);
}

static void test_takes_any_field(void **state)
{
    (void)state;
    expect_done(GET_HEAD "X:\r\nY: \r\nZ: \t \r\n!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n", 0);
    expect_done(GET_HEAD "X:a\tb  c \r\nY:\tv\t\r\nUpgrade: websocket\r\n\r\n", 0);
    expect_done(GET_HEAD "X: caf\xc3\xa9 \xff\x80 and some more text behind it\r\n\r\n", 0);
    expect_done(GET_HEAD "X: 1234567\t1234567\t12345678\t\r\n\r\n", 0);
    expect_done(GET_HEAD "Hos: b\r\nHostt: c\r\nContent-Lengt: 1\r\nTransfer-Encodin: x\r\n\r\n",
                0);
    expect_done(GET_HEAD "a-name-that-is-longer-than-anything-that-is-compared: v\r\n\r\n", 0);
    expect_done(GET_HEAD "1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n9:\r\n\r\n", 0);
}

static void test_takes_hosts(void **state)
{
    (void)state;
    expect_done("GET / HTTP/1.1\r\nhOST:a.b-c_d.example:8080\r\n\r\n", 0);
    expect_done("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 0);
    expect_done("GET / HTTP/1.1\r\nHost:   127.0.0.1 \t \r\n\r\n", 0);
    expect_done("GET / HTTP/1.1\r\nHost: a-host-name.that-is.longer-than.anything-compared.org\r\n"
                "\r\n",
                0);
}

static void test_takes_bodies_with_a_length(void **state)
{
    (void)state;
    expect_done(POST_HEAD "Content-Length: 0\r\n\r\n", 0);
    expect_done(POST_HEAD "Content-Length: 5\r\n\r\nhello", 5);
    expect_done(POST_HEAD "content-length:5  \t \r\n\r\n\r\n\r\n\n", 5);
    expect_done(POST_HEAD "Content-Length: 0000000000000000002\r\n\r\nab", 2);
    expect_done("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 3);
    expect_done("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 0);
    expect_done(GET_HEAD "Content-Length: 1\r\n\r\nx", 1);
    expect_done("DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 1);
    expect_done("OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 1);
}

static void test_takes_chunked_bodies(void **state)
{
    (void)state;
    expect_done(CHUNKED "0\r\n\r\n", 0);
    expect_done(CHUNKED "5\r\nhello\r\n0\r\n\r\n", 5);
    expect_done(CHUNKED "a\r\n\r\n0\r\n\r\nab\n\r\n1\r\nx\r\n0\r\n\r\n", 11);
    expect_done(CHUNKED "000000000000000A\r\n0123456789\r\n0000000000000000\r\n\r\n", 10);
    expect_done(POST_HEAD "TRANSFER-ENCODING:  ChunkeD \r\n\r\n1\r\nx\r\n0\r\n\r\n", 1);
    expect_done(GET_HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 1);
}

static void test_reports_an_expectation(void **state)
{
    (void)state;
    const char *http11 = POST_HEAD "Content-Length: 2\r\nexpect: 100-Continue\r\n\r\n";
    const char *http10 = "POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    assert_true(judge(http11).expects_continue);
    assert_false(judge(http10).expects_continue);
    assert_false(judge(POST_HEAD "Content-Length: 2\r\n\r\n").expects_continue);
}

static void test_waits_for_the_rest(void **state)
{
    (void)state;
    expect_more("P");
    expect_more("POST");
    expect_more("POST / HTTP/1.1");
    expect_more(POST_HEAD "\r");
    expect_more(POST_HEAD "Content-Length: 5\r\n\r\nhell");
    expect_more(CHUNKED);
    expect_more(CHUNKED "5");
    expect_more(CHUNKED "5\r\nhell");
    expect_more(CHUNKED "5\r\nhello\r\n");
    expect_more(CHUNKED "0\r\n");
    expect_more(CHUNKED "0\r\n\r");
}

/* ---- phases, pipelining, reset ---- */

static enum pl_guard_phase phase_after(const char *text)
{
    return judge(text).phase;
}

static void test_tells_the_phase(void **state)
{
    (void)state;
    struct pl_guard guard;
    size_t taken;
    pl_guard_init(&guard, &LIMITS);
    assert_int_equal(guard.phase, PL_GUARD_IDLE);
    assert_int_equal(take(&guard, NULL, 0, &taken), PL_GUARD_MORE);
    assert_int_equal(guard.phase, PL_GUARD_IDLE);
    assert_int_equal(phase_after("P"), PL_GUARD_IN_HEAD);
    assert_int_equal(phase_after(POST_HEAD "Content-Length: 1\r\n\r"), PL_GUARD_IN_HEAD);
    assert_int_equal(phase_after(POST_HEAD "Content-Length: 1\r\n\r\n"), PL_GUARD_IN_BODY);
    assert_int_equal(phase_after(CHUNKED), PL_GUARD_IN_BODY);
    assert_int_equal(phase_after(CHUNKED "0\r\n\r\n"), PL_GUARD_COMPLETE);
    assert_int_equal(phase_after(POST_HEAD "\r\n"), PL_GUARD_COMPLETE);
}

static void test_stops_at_the_end_of_a_message(void **state)
{
    (void)state;
    const char *first = POST_HEAD "Content-Length: 2\r\n\r\nab";
    const char *messages[] = {
        first,
        CHUNKED "1\r\nx\r\n0\r\n\r\n",
        GET_HEAD "\r\n",
    };
    char text[512];
    struct pl_guard guard;
    size_t at = 0;
    (void)snprintf(text, sizeof(text), "%s%s%s", messages[0], messages[1], messages[2]);
    pl_guard_init(&guard, &LIMITS);
    for (size_t i = 0; i < PL_COUNT(messages); i++) {
        size_t taken = 0;
        assert_int_equal(take(&guard, text + at, strlen(text) - at, &taken), PL_GUARD_DONE);
        assert_int_equal(taken, strlen(messages[i]));
        at += taken;
        pl_guard_reset(&guard, NULL);
    }
    assert_int_equal(at, strlen(text));
    assert_int_equal(judge_with((struct pl_str){text, strlen(text)}, &LIMITS).consumed_bytes,
                     strlen(first));
}

static void test_a_verdict_stays_until_the_reset(void **state)
{
    (void)state;
    struct pl_guard guard;
    size_t taken;
    pl_guard_init(&guard, &LIMITS);
    assert_int_equal(take(&guard, GET_HEAD "\r\n", 27, &taken), PL_GUARD_DONE);
    assert_int_equal(take(&guard, "GET", 3, &taken), PL_GUARD_DONE);
    assert_int_equal(taken, 0);
    pl_guard_reset(&guard, NULL);
    assert_int_equal(guard.phase, PL_GUARD_IDLE);
    assert_int_equal(take(&guard, "\r\n", 2, &taken), PL_GUARD_REFUSED);
    assert_int_equal(take(&guard, GET_HEAD "\r\n", 27, &taken), PL_GUARD_REFUSED);
    assert_int_equal(taken, 0);
    assert_int_equal(guard.status, 400);
    pl_guard_reset(&guard, NULL);
    assert_null(guard.reason);
    assert_int_equal(take(&guard, GET_HEAD "\r\n", 27, &taken), PL_GUARD_DONE);
}

static void test_nothing_of_a_message_is_left_for_the_next(void **state)
{
    (void)state;
    const char *first =
        POST_HEAD "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    const char *second = POST_HEAD "Content-Length: 1\r\n\r\nx";
    struct pl_guard guard;
    size_t taken;
    pl_guard_init(&guard, &LIMITS);
    assert_int_equal(take(&guard, first, strlen(first), &taken), PL_GUARD_DONE);
    pl_guard_reset(&guard, NULL);
    assert_int_equal(take(&guard, second, strlen(second), &taken), PL_GUARD_DONE);
    assert_int_equal(taken, strlen(second));
    assert_int_equal(guard.body_bytes, 1);
    assert_false(guard.expects_continue);
}

/* ---- the request line ---- */

static void test_refuses_methods(void **state)
{
    (void)state;
    const char *unsupported[] = {"CONNECT",
                                 "TRACE",
                                 "get",
                                 "GETT",
                                 "GE",
                                 "PRI",
                                 "G-E.T",
                                 "POSTS",
                                 "Head",
                                 "HEAD0",
                                 "AN-ENDLESSLY-LONG-METHOD-NAME"};
    char line[128];
    for (size_t i = 0; i < PL_COUNT(unsupported); i++) {
        (void)snprintf(line, sizeof(line), "%s / HTTP/1.1", unsupported[i]);
        refuse_line(line, 405, "method is not supported");
    }
    refuse_line(" GET / HTTP/1.1", 400, "method");
    refuse_line("G(T / HTTP/1.1", 400, "method");
    refuse_line("GET\t/ HTTP/1.1", 400, "method");
    refuse_line("GET", 400, "method");
    expect_refusal("\r\nGET / HTTP/1.1\r\n", 400, "method");
    expect_refusal("\nGET / HTTP/1.1\r\n", 400, "LF without CR");
    expect_refusal("\x16\x03\x01", 400, "method");
}

static void test_refuses_targets(void **state)
{
    (void)state;
    refuse_line("GET http://a/ HTTP/1.1", 400, "start with a slash");
    refuse_line("GET * HTTP/1.1", 400, "start with a slash");
    refuse_line("GET  / HTTP/1.1", 400, "start with a slash");
    refuse_line("GET a HTTP/1.1", 400, "start with a slash");
    refuse_line("OPTIONS *x HTTP/1.1", 400, "target");
    refuse_line("GET //a HTTP/1.1", 400, "two slashes");
    refuse_line("GET /a#b HTTP/1.1", 400, "target");
    refuse_line("GET /a\tb HTTP/1.1", 400, "target");
    refuse_line("GET /\x7f HTTP/1.1", 400, "target");
    refuse_line("GET /\xc3\xa9 HTTP/1.1", 400, "target");
    refuse_line("GET /a b HTTP/1.1", 400, "HTTP version");
    refuse_line("GET /", 400, "HTTP version");
    expect_refusal("GET /a\n", 400, "LF without CR");
    expect_refusal_of(PL_STR("GET /a\0b HTTP/1.1\r\n\r\n"), 400, "NUL");
}

static void test_refuses_versions(void **state)
{
    (void)state;
    const char *unsupported[] = {"HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"};
    const char *malformed[] = {"HTTP/1",
                               "HTTP/1.",
                               "HTTP/1.11",
                               "HTTP/11.1",
                               "http/1.1",
                               "HTTP/1.1 ",
                               "HTTP/-1.1",
                               "HTTP/1.1\t",
                               "HTTP 1.1",
                               "HTTP/1,1",
                               "",
                               "HTTPS/1.1",
                               "HTTP/1.1-and-more-than-could-ever-be-compared-with-anything",
                               "HTTP/+1.1"};
    char line[128];
    for (size_t i = 0; i < PL_COUNT(unsupported); i++) {
        (void)snprintf(line, sizeof(line), "GET / %s", unsupported[i]);
        refuse_line(line, 505, "neither 1.0 nor 1.1");
    }
    for (size_t i = 0; i < PL_COUNT(malformed); i++) {
        (void)snprintf(line, sizeof(line), "GET / %s", malformed[i]);
        refuse_line(line, 400, "HTTP version");
    }
}

/* ---- lines and fields ---- */

static void test_refuses_line_ends(void **state)
{
    (void)state;
    expect_refusal("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "LF without CR");
    expect_refusal("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400, "CR");
    expect_refusal("GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "CR");
    expect_refusal("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "LF without CR");
    expect_refusal("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "CR");
    expect_refusal(GET_HEAD "X: a\n\r\n", 400, "LF without CR");
    expect_refusal(GET_HEAD "X: a\rb\r\n\r\n", 400, "CR");
    expect_refusal(GET_HEAD "X: a\r\r\n\r\n", 400, "CR");
    expect_refusal(GET_HEAD "\n", 400, "LF without CR");
    expect_refusal(GET_HEAD "\rX: b\r\n\r\n", 400, "CR");
    expect_refusal(GET_HEAD "\r\r\n", 400, "CR");
}

static void test_refuses_names(void **state)
{
    (void)state;
    refuse_fields("X : a", 400, "colon");
    refuse_fields("X\t: a", 400, "colon");
    refuse_fields("Content-Length : 1", 400, "colon");
    refuse_fields(": a", 400, "colon");
    refuse_fields("X", 400, "colon");
    refuse_fields("X a", 400, "colon");
    refuse_fields("X(y): a", 400, "colon");
    refuse_fields("\xc3\xa9: a", 400, "colon");
    refuse_fields("X\n: a", 400, "LF without CR");
    refuse_fields("X: a\r\n b", 400, "folding");
    refuse_fields("X: a\r\n\tb: c", 400, "folding");
    expect_refusal("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "folding");
    expect_refusal_of(PL_STR(GET_HEAD "X\0: a\r\n\r\n"), 400, "NUL");
}

static void test_refuses_control_bytes_in_values(void **state)
{
    (void)state;
    char text[128];
    for (size_t place = 0; place < 24; place++) {
        for (int byte = 0; byte < 256; byte++) {
            int len = snprintf(text, sizeof(text), "%sX: %s\r\n\r\n", GET_HEAD,
                               place % 2 == 0 ? "123456789012345678901234"
                                              : "\xff\x80 caf\xc3\xa9 tea and ni\xc3\xb1o ag");
            text[strlen(GET_HEAD "X: ") + place] = (char)byte;
            struct outcome outcome =
                feed((struct pl_str){text, (size_t)len}, &LIMITS, 0, (size_t)len);
            bool fits = (byte >= 0x20 && byte != 0x7f) || byte == '\t';
            assert_int_equal(outcome.verdict, fits ? PL_GUARD_DONE : PL_GUARD_REFUSED);
        }
    }
    refuse_fields("X: a\x01", 400, "control byte");
    refuse_fields("Expect: \x7f", 400, "control byte");
    expect_refusal_of(PL_STR(GET_HEAD "X: a\0b\r\n\r\n"), 400, "NUL");
    expect_refusal_of(PL_STR(GET_HEAD "Content-Length: 1\0\r\n\r\n"), 400, "NUL");
}

static void test_refuses_hosts(void **state)
{
    (void)state;
    const char *malformed[] = {"a b", "a/b", "u@a", "a,b", "a\tb", "\xc3\xa9",
                               "a\"", "a?",  "a#",  "\ta", "a\\b", "<a>"};
    char text[128];
    for (size_t i = 0; i < PL_COUNT(malformed); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", malformed[i]);
        expect_refusal(text, 400, "host name");
    }
    expect_refusal("GET / HTTP/1.1\r\n\r\n", 400, "no Host");
    expect_refusal("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "Host field is empty");
    expect_refusal("GET / HTTP/1.1\r\nHost:  \r\n\r\n", 400, "Host field is empty");
    expect_refusal(GET_HEAD "Host: a\r\n\r\n", 400, "more than one Host");
    expect_refusal("GET / HTTP/1.0\r\nHost: a\r\nHOST: b\r\n\r\n", 400, "more than one Host");
}

/* ---- framing ---- */

static void test_refuses_lengths(void **state)
{
    (void)state;
    const char *malformed[] = {"+3",
                               "-3",
                               "3,3",
                               "3 3",
                               "0x3",
                               "3.0",
                               "3a",
                               "\t3",
                               "3;",
                               "12345678901234567890",
                               "00000000000000000000000000000000000000000000003",
                               "3, 3",
                               "\"3\""};
    char field[128];
    for (size_t i = 0; i < PL_COUNT(malformed); i++) {
        (void)snprintf(field, sizeof(field), "Content-Length: %s", malformed[i]);
        refuse_fields(field, 400, "Content-Length is not a number");
    }
    refuse_fields("Content-Length:", 400, "Content-Length field is empty");
    refuse_fields("Content-Length: 3\r\nContent-Length: 4", 400, "more than one Content-Length");
    refuse_fields("Content-Length: 3\r\ncontent-length: 3", 400, "more than one Content-Length");
}

static void test_refuses_codings(void **state)
{
    (void)state;
    refuse_fields("Transfer-Encoding: gzip", 501, "other than \"chunked\"");
    refuse_fields("Transfer-Encoding: gzip, chunked", 501, "other than \"chunked\"");
    refuse_fields("Transfer-Encoding: identity", 501, "other than \"chunked\"");
    refuse_fields("Transfer-Encoding: xchunked", 501, "other than \"chunked\"");
    refuse_fields("Transfer-Encoding: \tchunked", 501, "other than \"chunked\"");
    refuse_fields("Transfer-Encoding: chunk", 501, "other than \"chunked\"");
    refuse_fields("Transfer-Encoding: ,chunked", 501, "other than \"chunked\"");
    refuse_fields("Transfer-Encoding: chunked, gzip", 400, "behind \"chunked\"");
    refuse_fields("Transfer-Encoding: chunked,chunked", 400, "behind \"chunked\"");
    refuse_fields("Transfer-Encoding: chunked;q=1", 400, "behind \"chunked\"");
    refuse_fields("Transfer-Encoding: chunked a", 400, "behind \"chunked\"");
    refuse_fields("Transfer-Encoding: chunkedx", 400, "behind \"chunked\"");
    refuse_fields("Transfer-Encoding: chunked   \t   , a very long list that is cut", 400,
                  "behind \"chunked\"");
    refuse_fields("Transfer-Encoding:", 400, "Transfer-Encoding field is empty");
    refuse_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400,
                  "more than one Transfer-Encoding");
}

static void test_refuses_contradictions(void **state)
{
    (void)state;
    refuse_fields("Transfer-Encoding: chunked\r\nContent-Length: 3", 400, "both");
    refuse_fields("Content-Length: 0\r\nTransfer-Encoding: chunked", 400, "both");
    expect_refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0");
    expect_refusal("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 400, "HEAD");
    expect_refusal("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
                   "HEAD");
    refuse_fields("Expect: 200-ok", 417, "Expect");
    refuse_fields("Expect: 100-continue, x", 417, "Expect");
    refuse_fields("Expect: 100-continue-with-a-very-long-tail-behind-it", 417, "Expect");
    refuse_fields("Expect: 100-continue\r\nExpect: 100-continue", 400, "more than one Expect");
}

static void test_refuses_chunks(void **state)
{
    (void)state;
    const char *lines[] = {"\r\n",   "x\r\n",   "0x5\r\n", "+5\r\n",  "-5\r\n", " 5\r\n",
                           "5 \r\n", "5;a\r\n", "5\n",     "5\t\r\n", "g\r\n",  "\n"};
    char text[256];
    for (size_t i = 0; i < PL_COUNT(lines); i++) {
        (void)snprintf(text, sizeof(text), "%s%shello\r\n0\r\n\r\n", CHUNKED, lines[i]);
        expect_refusal(text, 400, "chunk size line");
    }
    expect_refusal(CHUNKED "5\r\rhello", 400, "CR and LF");
    expect_refusal(CHUNKED "00000000000000005\r\n", 400, "16 digits");
    expect_refusal(CHUNKED "5\r\nhellox\r\n", 400, "CR and LF");
    expect_refusal(CHUNKED "5\r\nhello\n", 400, "CR and LF");
    expect_refusal(CHUNKED "5\r\nhello\rx", 400, "CR and LF");
    expect_refusal(CHUNKED "5\r\nhello0\r\n\r\n", 400, "CR and LF");
    expect_refusal(CHUNKED "0\r\nX: y\r\n\r\n", 400, "trailer");
    expect_refusal(CHUNKED "0\r\n\n", 400, "trailer");
    expect_refusal(CHUNKED "0\r\n\rx", 400, "CR and LF");
}

/* ---- limits ---- */

/* A request whose line, with its line end, has `line_bytes`. */
static struct outcome judge_line_of(size_t line_bytes)
{
    static char text[4096];
    size_t path_bytes = line_bytes - strlen("GET / HTTP/1.1\r\n");
    char path[2048];
    memset(path, 'x', path_bytes);
    path[path_bytes] = '\0';
    (void)snprintf(text, sizeof(text), "GET /%s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    return judge(text);
}

static void test_limits_the_request_line(void **state)
{
    (void)state;
    assert_int_equal(judge_line_of(200).verdict, PL_GUARD_DONE);
    for (size_t line_bytes = 201; line_bytes < 230; line_bytes++) {
        struct outcome outcome = judge_line_of(line_bytes);
        assert_int_equal(outcome.status, 414);
        assert_string_equal(outcome.reason, "The request line is larger than 200 bytes.");
    }
    assert_int_equal(judge_line_of(1500).status, 414);
}

/* A request whose head has `head_bytes`, the last of them in a value. */
static struct outcome judge_head_of(size_t head_bytes)
{
    static char text[4096];
    size_t value_bytes = head_bytes - strlen(GET_HEAD "X: \r\n\r\n");
    char value[2048];
    memset(value, 'v', value_bytes);
    value[value_bytes] = '\0';
    (void)snprintf(text, sizeof(text), "%sX: %s\r\n\r\n", GET_HEAD, value);
    return judge(text);
}

static void test_limits_the_head(void **state)
{
    (void)state;
    assert_int_equal(judge_head_of(1000).verdict, PL_GUARD_DONE);
    for (size_t head_bytes = 1001; head_bytes < 1010; head_bytes++) {
        struct outcome outcome = judge_head_of(head_bytes);
        assert_int_equal(outcome.status, 431);
        assert_string_equal(outcome.reason, "The request head is larger than 1000 bytes.");
    }
}

static void test_what_lies_behind_a_limit_decides_nothing(void **state)
{
    (void)state;
    char text[1200];
    memset(text, 'x', sizeof(text));
    memcpy(text, GET_HEAD "X:", strlen(GET_HEAD "X:"));
    text[1000] = '\0';
    assert_int_equal(judge_with((struct pl_str){text, sizeof(text)}, &LIMITS).status, 431);
    text[999] = '\0';
    assert_int_equal(judge_with((struct pl_str){text, sizeof(text)}, &LIMITS).status, 400);
}

static void test_limits_the_fields(void **state)
{
    (void)state;
    const char *ten = GET_HEAD "1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n9:\r\n";
    char text[256];
    (void)snprintf(text, sizeof(text), "%s10:\r\n\r\n", ten);
    expect_refusal(text, 431, "more than 10 header fields");
}

static void test_limits_the_body(void **state)
{
    (void)state;
    char text[512];
    char body[128];
    memset(body, 'b', 100);
    body[100] = '\0';
    (void)snprintf(text, sizeof(text), "%sContent-Length: 100\r\n\r\n%s", POST_HEAD, body);
    expect_done(text, 100);
    expect_refusal(POST_HEAD "Content-Length: 101\r\n\r\n", 413, "larger than 100 bytes");
    expect_refusal(POST_HEAD "Content-Length: 9999999999999999999\r\n\r\n", 413, "larger than 100");
    (void)snprintf(text, sizeof(text), "%s64\r\n%s\r\n0\r\n\r\n", CHUNKED, body);
    expect_done(text, 100);
    (void)snprintf(text, sizeof(text), "%s64\r\n%s\r\n1\r\n", CHUNKED, body);
    expect_refusal(text, 413, "larger than 100 bytes");
    expect_refusal(CHUNKED "65\r\n", 413, "larger than 100 bytes");
    expect_refusal(CHUNKED "FFFFFFFFFFFFFFFF\r\n", 413, "larger than 100 bytes");
}

/* A body of `count` chunks of `chunk_bytes` each, the last chunk apart. */
static struct outcome judge_chunks(size_t count, size_t chunk_bytes)
{
    const struct pl_guard_limits limits = {200, 1000, 10, 100 << 20};
    char *text = malloc(sizeof(CHUNKED) + count * (chunk_bytes + 10) + 10);
    assert_non_null(text);
    int len = sprintf(text, "%s", CHUNKED);
    for (size_t i = 0; i < count; i++) {
        len += sprintf(text + len, "%zx\r\n", chunk_bytes);
        memset(text + len, 'x', chunk_bytes);
        len += (int)chunk_bytes;
        len += sprintf(text + len, "\r\n");
    }
    len += sprintf(text + len, "0\r\n\r\n");
    struct pl_str message = {text, (size_t)len};
    struct outcome whole = feed(message, &limits, 0, message.len);
    assert_same(whole, feed(message, &limits, 0, 1));
    free(text);
    return whole;
}

/* Each costs the work of its framing, which a body limit alone would not bound. */
static void test_limits_small_chunks(void **state)
{
    (void)state;
    assert_int_equal(judge_chunks(4096, 1).verdict, PL_GUARD_DONE);
    struct outcome outcome = judge_chunks(4200, 1);
    assert_int_equal(outcome.status, 400);
    assert_string_equal(outcome.reason, "The request body comes in too many small chunks.");
    assert_int_equal(judge_chunks(9000, 200).status, 0);
    assert_int_equal(judge_chunks(10000, 100).status, 400);
    assert_int_equal(judge_chunks(20000, 256).verdict, PL_GUARD_DONE);
}

/* Sizes are handed on as signed numbers. */
static void test_no_limit_is_above_63_bits(void **state)
{
    (void)state;
    const struct pl_guard_limits none = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT64_MAX};
    const struct {
        const char *text;
        enum pl_guard_verdict verdict;
    } cases[] = {
        {POST_HEAD "Content-Length: 9223372036854775807\r\n\r\n", PL_GUARD_MORE},
        {POST_HEAD "Content-Length: 9223372036854775808\r\n\r\n", PL_GUARD_REFUSED},
        {CHUNKED "7fffffffffffffff\r\n", PL_GUARD_MORE},
        {CHUNKED "8000000000000000\r\n", PL_GUARD_REFUSED},
        {CHUNKED "1\r\nx\r\n7ffffffffffffffe\r\n", PL_GUARD_MORE},
        {CHUNKED "1\r\nx\r\n7fffffffffffffff\r\n", PL_GUARD_REFUSED},
    };
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct pl_str message = {cases[i].text, strlen(cases[i].text)};
        struct outcome outcome = judge_with(message, &none);
        assert_int_equal(outcome.verdict, cases[i].verdict);
        assert_int_equal(outcome.status, outcome.verdict == PL_GUARD_REFUSED ? 413 : 0);
    }
}

static void expect_found(const char *text, const char *found)
{
    assert_string_equal(judge(text).found, found);
}

static void test_tells_where_target_fields_and_body_lie(void **state)
{
    (void)state;
    expect_found("GET /v1/models?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
                 "[GET][/v1/models?x=1][Host][a][]");
    expect_found("OPTIONS * HTTP/1.0\r\n\r\n", "[OPTIONS][*][]");
    expect_found("POST /a HTTP/1.1\r\nHost:a\r\nX-Empty:\r\nx-Padded: \t b c\t \r\n"
                 "Content-Length:   3  \r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\nxyzGET",
                 "[POST][/a][Host][a][X-Empty][][x-Padded][b c][Content-Length][3]"
                 "[X-Twice][1][X-Twice][2][xyz]");
    expect_found(CHUNKED "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
                 "[POST][/][Host][a][Transfer-Encoding][chunked][abcde]");
    expect_found(CHUNKED "3\r\nabc\r\n2\r\nd",
                 "[POST][/][Host][a][Transfer-Encoding][chunked][abcd]");
}

static void test_a_limit_of_zero_refuses_everything_over_it(void **state)
{
    (void)state;
    const struct pl_guard_limits zero = {0, 0, 0, 0};
    const struct pl_guard_limits no_fields = {100, 100, 0, 0};
    assert_int_equal(judge_with(PL_STR(GET_HEAD "\r\n"), &zero).status, 414);
    assert_int_equal(judge_with(PL_STR(GET_HEAD "\r\n"), &no_fields).status, 431);
    assert_int_equal(judge_with(PL_STR("GET / HTTP/1.0\r\n\r\n"), &no_fields).verdict,
                     PL_GUARD_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_plain_requests),
        cmocka_unit_test(test_takes_any_field),
        cmocka_unit_test(test_takes_hosts),
        cmocka_unit_test(test_takes_bodies_with_a_length),
        cmocka_unit_test(test_takes_chunked_bodies),
        cmocka_unit_test(test_reports_an_expectation),
        cmocka_unit_test(test_waits_for_the_rest),
        cmocka_unit_test(test_tells_the_phase),
        cmocka_unit_test(test_stops_at_the_end_of_a_message),
        cmocka_unit_test(test_a_verdict_stays_until_the_reset),
        cmocka_unit_test(test_nothing_of_a_message_is_left_for_the_next),
        cmocka_unit_test(test_refuses_methods),
        cmocka_unit_test(test_refuses_targets),
        cmocka_unit_test(test_refuses_versions),
        cmocka_unit_test(test_refuses_line_ends),
        cmocka_unit_test(test_refuses_names),
        cmocka_unit_test(test_refuses_control_bytes_in_values),
        cmocka_unit_test(test_refuses_hosts),
        cmocka_unit_test(test_refuses_lengths),
        cmocka_unit_test(test_refuses_codings),
        cmocka_unit_test(test_refuses_contradictions),
        cmocka_unit_test(test_refuses_chunks),
        cmocka_unit_test(test_limits_the_request_line),
        cmocka_unit_test(test_limits_the_head),
        cmocka_unit_test(test_what_lies_behind_a_limit_decides_nothing),
        cmocka_unit_test(test_limits_the_fields),
        cmocka_unit_test(test_limits_the_body),
        cmocka_unit_test(test_limits_small_chunks),
        cmocka_unit_test(test_no_limit_is_above_63_bits),
        cmocka_unit_test(test_tells_where_target_fields_and_body_lie),
        cmocka_unit_test(test_a_limit_of_zero_refuses_everything_over_it),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
