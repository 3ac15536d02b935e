/*
 * Tests of http1.c. Heads are parsed whole and from a buffer that grows by one byte; chunked bodies
 * are decoded whole, byte by byte, and cut in two at every place.
 */
#include "http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pl_response_head head;

static int set_up(void **state)
{
    (void)state;
    pl_response_head_init(&head);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pl_response_head_deinit(&head);
    return 0;
}

/* Parses the first `len` bytes from memory of their own, so that a sanitizer sees every byte read
 * beyond them. */
static long parse_copy(const char *text, size_t len, bool is_head_request)
{
    char *copy = malloc(len);
    assert_non_null(copy);
    memcpy(copy, text, len);
    long result = pl_response_head_parse(&head, copy, len, is_head_request);
    free(copy);
    return result;
}

/* The result of a buffer that grows by one byte; the whole at once must give the same. */
static long parse_span(struct pl_str text, bool is_head_request)
{
    long grown = 0;
    for (size_t len = 1; len <= text.len && grown == 0; len++) {
        grown = parse_copy(text.data, len, is_head_request);
    }
    if (grown == 0) { /* not whole: start anew */
        pl_response_head_deinit(&head);
        pl_response_head_init(&head);
    }
    long whole = parse_copy(text.data, text.len, is_head_request);
    assert_int_equal(whole, grown);
    return whole;
}

static long parse(const char *text)
{
    return parse_span((struct pl_str){text, strlen(text)}, false);
}

static void expect_head(const char *text)
{
    long result = parse(text);
    if (result != (long)strlen(text)) {
        print_error("%ld for: %s\n", result, text);
    }
    assert_int_equal(result, strlen(text));
}

static void expect_syntax(const char *text)
{
    long result = parse(text);
    if (result != PL_ERR_SYNTAX) {
        print_error("%ld for: %s\n", result, text);
    }
    assert_int_equal(result, PL_ERR_SYNTAX);
}

/* Expects the refusal of a response with these fields. */
static void expect_bad_fields(const char *fields)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s\r\n\r\n", fields);
    expect_syntax(text);
}

static void expect_fields(const char *fields, enum pl_framing framing, uint64_t length_bytes,
                          bool keep_alive)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s\r\n\r\n", fields);
    expect_head(text);
    assert_int_equal(head.framing, framing);
    assert_int_equal(head.content_length_bytes, length_bytes);
    assert_int_equal(head.keep_alive, keep_alive);
}

/* ---- the status line ---- */

static void test_reads_a_head(void **state)
{
    (void)state;
    expect_head("HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\nX-A:\t a b \t\r\nX-B:\r\n\r\n");
    assert_int_equal(head.status, 404);
    assert_int_equal(head.minor_version, 1);
    assert_true(head.keep_alive);
    assert_int_equal(head.framing, PL_FRAMING_LENGTH);
    assert_int_equal(head.content_length_bytes, 12);
    assert_int_equal(head.headers.count, 3);
    assert_true(pl_str_equal(pl_headers_name(&head.headers, 1), PL_STR("X-A")));
    assert_true(pl_str_equal(pl_headers_value(&head.headers, 1), PL_STR("a b")));
    assert_int_equal(pl_headers_value(&head.headers, 2).len, 0);
}

static void test_reads_status_lines(void **state)
{
    (void)state;
    expect_head("HTTP/1.1 200 \r\n\r\n");
    expect_head("HTTP/1.1 200\r\n\r\n");
    expect_head("HTTP/1.0 599 caf\xc3\xa9\tand more\r\n\r\n");
    assert_int_equal(head.status, 599);
    assert_int_equal(head.minor_version, 0);
}

static void test_refuses_status_lines(void **state)
{
    (void)state;
    const char *lines[] = {
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000",
        "HTTP/1.1 099 X",
        "HTTP/1.1 600 X",
        "HTTP/1.1 999 X",
        "HTTP/1.1 +20 X",
        "HTTP/1.1 2 0 X",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1200 OK",
        "HTTP/1.1",
        "HTTP/1.",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 ",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 a\x01",
        "ICY 200 OK",
        "SSH-2.0-OpenSSH",
        "",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.1 200 a\rb",
    };
    char text[128];
    for (size_t i = 0; i < PL_COUNT(lines); i++) {
        (void)snprintf(text, sizeof(text), "%s\r\n\r\n", lines[i]);
        expect_syntax(text);
    }
}

static void test_refuses_another_protocol_at_once(void **state)
{
    (void)state;
    assert_int_equal(parse_copy("HTTQ", 4, false), PL_ERR_SYNTAX);
    assert_int_equal(parse_copy("\x15\x03\x01", 3, false), PL_ERR_SYNTAX);
    assert_int_equal(parse_copy("HTTP/1.1 200 OK\n", 16, false), PL_ERR_SYNTAX);
    assert_int_equal(parse_copy("HTTP/1.1 200 OK\r", 16, false), 0);
}

/* ---- fields ---- */

static void test_refuses_fields(void **state)
{
    (void)state;
    const char *fields[] = {"X : a",      "X\t: a",        ": a",         "X",
                            " X: a",      "X: a\r\n b: c", "X: a\r\n\tb", "X: a\x7f",
                            "X: a\rb",    "X\r: a",        "X(y): a",     "\xc3\xa9: a",
                            "X: a\nY: b", "X: a\r\r\nY",   "A: 1\r\nB",   "X: \x01 abc"};
    for (size_t i = 0; i < PL_COUNT(fields); i++) {
        expect_bad_fields(fields[i]);
    }
    assert_int_equal(parse_span(PL_STR("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"), false),
                     PL_ERR_SYNTAX);
    assert_int_equal(parse_span(PL_STR("HTTP/1.1 200 OK\r\nX\0: a\r\n\r\n"), false), PL_ERR_SYNTAX);
    expect_syntax("HTTP/1.1 200 OK\r\n\n");
    expect_syntax("HTTP/1.1 200 OK\r\nA: b\r\n\n");
}

/* ---- framing ---- */

static void test_frames_the_body(void **state)
{
    (void)state;
    expect_fields("Content-Length: 0", PL_FRAMING_LENGTH, 0, true);
    expect_fields("content-length:\t5 ", PL_FRAMING_LENGTH, 5, true);
    expect_fields("Content-Length: 9223372036854775807", PL_FRAMING_LENGTH, INT64_MAX, true);
    expect_fields("Content-Length: 5\r\nContent-Length: 5", PL_FRAMING_LENGTH, 5, true);
    expect_fields("Content-Length: 5, 5 ,05", PL_FRAMING_LENGTH, 5, true);
    expect_fields("Transfer-Encoding: chunked", PL_FRAMING_CHUNKED, 0, true);
    expect_fields("TRANSFER-ENCODING: Chunked", PL_FRAMING_CHUNKED, 0, true);
    expect_fields("X: y", PL_FRAMING_EOF, 0, false);
    expect_fields("Connection: keep-alive", PL_FRAMING_EOF, 0, false);
}

static void test_refuses_framings(void **state)
{
    (void)state;
    const char *fields[] = {
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length:",
        "Content-Length: 5,",
        "Content-Length: ,5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: 9223372036854775808",
        "Content-Length: 00000000000000000005",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
    };
    for (size_t i = 0; i < PL_COUNT(fields); i++) {
        expect_bad_fields(fields[i]);
    }
    expect_syntax("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

static void test_knows_answers_without_a_body(void **state)
{
    (void)state;
    const char *with_length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    const char *chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_true(parse_span((struct pl_str){with_length, strlen(with_length)}, true) > 0);
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    assert_true(head.keep_alive);
    assert_true(parse_span((struct pl_str){chunked, strlen(chunked)}, true) > 0);
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    assert_true(head.keep_alive);
    expect_head("HTTP/1.1 204 No Content\r\n\r\n");
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    assert_true(head.keep_alive);
    expect_head("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n");
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    assert_true(head.keep_alive);
    expect_head("HTTP/1.1 100 Continue\r\n\r\n");
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    expect_head("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    assert_int_equal(head.status, 103);
}

/* Such a server may send the body it announces; the next answer would start with it. */
static void test_distrusts_a_body_announced_where_none_may_be(void **state)
{
    (void)state;
    expect_head("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    assert_true(head.keep_alive);
    expect_head("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    assert_false(head.keep_alive);
    expect_head("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_int_equal(head.framing, PL_FRAMING_NONE);
    assert_false(head.keep_alive);
}

static void test_knows_when_the_connection_may_be_kept(void **state)
{
    (void)state;
    expect_fields("Content-Length: 1\r\nConnection: close", PL_FRAMING_LENGTH, 1, false);
    expect_fields("Content-Length: 1\r\nconnection: x, Close", PL_FRAMING_LENGTH, 1, false);
    expect_fields("Content-Length: 1\r\nConnection: x\r\nConnection: close", PL_FRAMING_LENGTH, 1,
                  false);
    expect_fields("Content-Length: 1\r\nConnection: keep-alive", PL_FRAMING_LENGTH, 1, true);
    expect_fields("Content-Length: 1\r\nConnection: keep-alive, close", PL_FRAMING_LENGTH, 1,
                  false);
    expect_fields("Content-Length: 1\r\nConnection: closed", PL_FRAMING_LENGTH, 1, true);
    expect_head("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n");
    assert_false(head.keep_alive);
    expect_head("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\n");
    assert_true(head.keep_alive);
}

/* ---- incremental use and limits ---- */

static void test_leaves_what_follows_the_head(void **state)
{
    (void)state;
    const char *first = "HTTP/1.1 100 Continue\r\nA: 1\r\n\r\n";
    const char *second = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    char text[256];
    (void)snprintf(text, sizeof(text), "%s%sok\n", first, second);
    assert_int_equal(pl_response_head_parse(&head, text, strlen(text), false), strlen(first));
    assert_int_equal(head.status, 100);
    const char *rest = text + strlen(first);
    assert_int_equal(pl_response_head_parse(&head, rest, strlen(rest), false), strlen(second));
    assert_int_equal(head.status, 200);
    assert_int_equal(head.headers.count, 1);
    assert_int_equal(head.content_length_bytes, 2);
}

static void test_waits_for_a_whole_head(void **state)
{
    (void)state;
    assert_int_equal(pl_response_head_parse(&head, NULL, 0, false), 0);
    assert_int_equal(parse("H"), 0);
    assert_int_equal(parse("HTTP/1.1 200 OK"), 0);
    assert_int_equal(parse("HTTP/1.1 200 OK\r\n"), 0);
    assert_int_equal(parse("HTTP/1.1 200 OK\r\nA: b\r\n\r"), 0);
}

/* A head of `head_bytes`, most of them in one value, followed by some bytes of a body. */
static long parse_head_of(size_t head_bytes)
{
    const char *start = "HTTP/1.1 200 OK\r\nX: ";
    char *text = malloc(head_bytes + 10);
    assert_non_null(text);
    memset(text, 'v', head_bytes + 10);
    memcpy(text, start, strlen(start));
    memcpy(text + head_bytes - 4, "\r\n\r\n", 4);
    long whole = pl_response_head_parse(&head, text, head_bytes + 10, false);
    for (size_t len = head_bytes - 10; len < head_bytes + 10; len++) {
        long grown = pl_response_head_parse(&head, text, len, false);
        if (grown != 0) {
            assert_int_equal(grown, whole);
            break;
        }
    }
    free(text);
    return whole;
}

static void test_limits_the_head(void **state)
{
    (void)state;
    assert_int_equal(parse_head_of(PL_HTTP1_MAX_HEAD_BYTES), PL_HTTP1_MAX_HEAD_BYTES);
    assert_int_equal(parse_head_of(PL_HTTP1_MAX_HEAD_BYTES + 1), PL_ERR_LIMIT);
    assert_int_equal(parse_head_of(PL_HTTP1_MAX_HEAD_BYTES + 4), PL_ERR_LIMIT);
    assert_int_equal(parse_head_of(PL_HTTP1_MAX_HEAD_BYTES * 2), PL_ERR_LIMIT);
}

static void test_limits_the_fields(void **state)
{
    (void)state;
    char text[4096] = "HTTP/1.1 200 OK\r\n";
    for (int i = 0; i < PL_HTTP1_MAX_HEADERS; i++) {
        strcat(text, "a: b\r\n");
    }
    char *end = text + strlen(text);
    strcpy(end, "\r\n");
    expect_head(text);
    assert_int_equal(head.headers.count, PL_HTTP1_MAX_HEADERS);
    strcpy(end, "a: b\r\n\r\n");
    assert_int_equal(parse(text), PL_ERR_LIMIT);
}

/* ---- the chunked coding ---- */

struct decoded {
    long err; /* PL_OK, or what stopped it */
    bool done;
    size_t used_bytes;
    size_t body_bytes;
    char body[256];
};

static void decode_piece(struct pl_chunked *decoder, struct pl_str piece, struct decoded *out)
{
    size_t at = 0;
    while (at < piece.len && out->err == PL_OK) {
        struct pl_str body;
        size_t left = piece.len - at;
        char *copy = malloc(left);
        assert_non_null(copy);
        memcpy(copy, piece.data + at, left);
        long used = pl_chunked_next(decoder, copy, left, &body);
        if (used < 0) {
            out->err = used;
        } else {
            assert_true((size_t)used <= left);
            assert_true(body.data >= copy && body.data + body.len <= copy + used);
            assert_true(out->body_bytes + body.len <= sizeof(out->body));
            memcpy(out->body + out->body_bytes, body.data, body.len);
            out->body_bytes += body.len;
            out->used_bytes += (size_t)used;
            at += (size_t)used;
        }
        free(copy);
        if (used <= 0 || decoder->done) {
            break;
        }
    }
    out->done = decoder->done;
}

static struct decoded decode_in(struct pl_str text, size_t first_bytes, size_t step_bytes)
{
    struct pl_chunked decoder;
    struct decoded out = {.err = PL_OK};
    pl_chunked_init(&decoder);
    for (size_t at = 0; at < text.len && out.err == PL_OK && !out.done;) {
        size_t want = at == 0 && first_bytes > 0 ? first_bytes : step_bytes;
        struct pl_str piece = {text.data + at, PL_MIN(want, text.len - at)};
        decode_piece(&decoder, piece, &out);
        at += piece.len;
    }
    return out;
}

static void assert_same(const struct decoded *a, const struct decoded *b)
{
    assert_int_equal(a->err, b->err);
    assert_int_equal(a->done, b->done);
    assert_int_equal(a->body_bytes, b->body_bytes);
    assert_memory_equal(a->body, b->body, a->body_bytes);
    if (a->err == PL_OK) {
        assert_int_equal(a->used_bytes, b->used_bytes);
    }
}

static struct decoded decode_span(struct pl_str text)
{
    struct decoded whole = decode_in(text, 0, text.len);
    struct decoded other = decode_in(text, 0, 1);
    assert_same(&whole, &other);
    for (size_t first_bytes = 1; first_bytes < text.len; first_bytes++) {
        other = decode_in(text, first_bytes, text.len);
        assert_same(&whole, &other);
    }
    return whole;
}

static void expect_body(const char *text, const char *body, const char *rest)
{
    struct decoded out = decode_span((struct pl_str){text, strlen(text)});
    assert_int_equal(out.err, PL_OK);
    assert_true(out.done);
    assert_int_equal(out.used_bytes, strlen(text) - strlen(rest));
    assert_int_equal(out.body_bytes, strlen(body));
    assert_memory_equal(out.body, body, out.body_bytes);
}

static void expect_chunked_error(const char *text, long err)
{
    struct decoded out = decode_span((struct pl_str){text, strlen(text)});
    if (out.err != err) {
        print_error("%ld for: %s\n", out.err, text);
    }
    assert_int_equal(out.err, err);
}

static void test_decodes_chunks(void **state)
{
    (void)state;
    expect_body("0\r\n\r\n", "", "");
    expect_body("5\r\nhello\r\n0\r\n\r\n", "hello", "");
    expect_body("5\r\nhello\r\n1\r\n \r\nA\r\nmany\r\nmore\r\n00\r\n\r\nHTTP/1.1",
                "hello many\r\nmore", "HTTP/1.1");
    expect_body("000000000000000c\r\n0\r\n\r\n0\r\n\r\n!!\r\n0\r\n\r\n\r\n", "0\r\n\r\n0\r\n\r\n!!",
                "\r\n");
}

static void test_skips_extensions_and_trailers(void **state)
{
    (void)state;
    expect_body("2;a\r\nab\r\n2 ; b=\"c;d\"\t\r\ncd\r\n0;e\r\n\r\n", "abcd", "");
    expect_body("2 \t\r\nab\r\n0\r\n\r\n", "ab", "");
    expect_body("1\r\na\r\n0\r\nX-A: b\r\nY:\r\n\r\nrest", "a", "rest");
}

static void test_refuses_chunks(void **state)
{
    (void)state;
    const char *texts[] = {"\r\n",
                           ";a\r\n",
                           " 5\r\n",
                           "g\r\n",
                           "-1\r\n",
                           "0x5\r\n",
                           "5\n",
                           "5\rx",
                           "5 x\r\n",
                           "5;a\n",
                           "5;\x01\r\n",
                           "5\r\nhellox",
                           "5\r\nhello\n",
                           "5\r\nhello\rx",
                           "0\r\n\n",
                           "0\r\n\rx",
                           "0\r\nX\r\n",
                           "0\r\n: a\r\n",
                           "0\r\n X: a\r\n",
                           "0\r\nX : a\r\n",
                           "0\r\nX: a\n",
                           "0\r\nX: \x7f",
                           "0\r\nX: a\r\n b",
                           "0\r\nX: a\rb",
                           "00000000000000005\r\n",
                           "5\r\nhello5\r",
                           "1\r\na\r\n\r\n"};
    for (size_t i = 0; i < PL_COUNT(texts); i++) {
        expect_chunked_error(texts[i], PL_ERR_SYNTAX);
    }
    assert_int_equal(decode_span(PL_STR("5;a\0b\r\n")).err, PL_ERR_SYNTAX);
}

static void test_waits_for_more_chunks(void **state)
{
    (void)state;
    const char *text = "5;x\r\nhello\r\n0\r\nX: y\r\n\r\n";
    for (size_t len = 1; len < strlen(text); len++) {
        struct decoded out = decode_span((struct pl_str){text, len});
        assert_int_equal(out.err, PL_OK);
        assert_false(out.done);
        assert_int_equal(out.used_bytes, len);
    }
}

static void test_takes_nothing_when_done_or_empty(void **state)
{
    (void)state;
    struct pl_chunked decoder;
    struct pl_str body;
    pl_chunked_init(&decoder);
    assert_int_equal(pl_chunked_next(&decoder, NULL, 0, &body), 0);
    assert_int_equal(body.len, 0);
    assert_int_equal(pl_chunked_next(&decoder, "0\r\n\r\n", 5, &body), 5);
    assert_true(decoder.done);
    assert_int_equal(pl_chunked_next(&decoder, "0\r\n\r\n", 5, &body), 0);
    assert_int_equal(body.len, 0);
}

static void test_limits_chunk_sizes(void **state)
{
    (void)state;
    struct pl_chunked decoder;
    struct pl_str body;
    pl_chunked_init(&decoder);
    assert_int_equal(pl_chunked_next(&decoder, "7fffffffffffffff\r\nab", 20, &body), 20);
    assert_int_equal(body.len, 2);
    assert_int_equal(decoder.left_bytes, INT64_MAX - 2);
    expect_chunked_error("8000000000000000\r\n", PL_ERR_LIMIT);
    expect_chunked_error("ffffffffffffffff\r\n", PL_ERR_LIMIT);
}

/* `start`, and `fill_bytes` times 'x', and `end`. */
static long decode_filled(const char *start, size_t fill_bytes, const char *end)
{
    static char text[20000];
    size_t start_bytes = strlen(start);
    struct pl_chunked decoder;
    struct pl_str body;
    memcpy(text, start, start_bytes);
    memset(text + start_bytes, 'x', fill_bytes);
    strcpy(text + start_bytes + fill_bytes, end);
    pl_chunked_init(&decoder);
    return pl_chunked_next(&decoder, text, strlen(text), &body);
}

static void test_limits_extensions_and_trailers(void **state)
{
    (void)state;
    assert_int_equal(decode_filled("1;", 8192 - 4, "\r\na"), 8193);
    assert_int_equal(decode_filled("1;", 8192 - 3, "\r\na"), PL_ERR_LIMIT);
    assert_int_equal(decode_filled("1;", 15000, ""), PL_ERR_LIMIT);
    assert_int_equal(decode_filled("0\r\nX:", 8192 - 6, "\r\n\r\n"), 8192 + 3);
    assert_int_equal(decode_filled("0\r\nX:", 8192 - 5, "\r\n\r\n"), PL_ERR_LIMIT);
    assert_int_equal(decode_filled("0\r\n", 15000, ""), PL_ERR_LIMIT);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reads_a_head),
        TEST(test_reads_status_lines),
        TEST(test_refuses_status_lines),
        TEST(test_refuses_another_protocol_at_once),
        TEST(test_refuses_fields),
        TEST(test_frames_the_body),
        TEST(test_refuses_framings),
        TEST(test_knows_answers_without_a_body),
        TEST(test_distrusts_a_body_announced_where_none_may_be),
        TEST(test_knows_when_the_connection_may_be_kept),
        TEST(test_leaves_what_follows_the_head),
        TEST(test_waits_for_a_whole_head),
        TEST(test_limits_the_head),
        TEST(test_limits_the_fields),
        TEST(test_decodes_chunks),
        TEST(test_skips_extensions_and_trailers),
        TEST(test_refuses_chunks),
        TEST(test_waits_for_more_chunks),
        TEST(test_takes_nothing_when_done_or_empty),
        TEST(test_limits_chunk_sizes),
        TEST(test_limits_extensions_and_trailers),
    };
    return cmocka_run_group_tests_name("http1", tests, NULL, NULL);
}
