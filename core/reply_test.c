/*
 * Tests of reply.c.
 */
#include "reply.h"

#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define DATE_PATTERN                                                                               \
    "Date: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3][0-9] [JFMASOND][a-z]{2} [0-9]{4} "                 \
    "[0-2][0-9]:[0-5][0-9]:[0-6][0-9] GMT\r\n"

/** The head's text, its Date line taken out. A new string. */
static char *head_of(const struct pl_reply *reply)
{
    struct evbuffer *out = evbuffer_new();
    pl_reply_write_head(out, reply);
    size_t len = evbuffer_get_length(out);
    char *text = pl_xstrndup((const char *)evbuffer_pullup(out, -1), len);
    evbuffer_free(out);
    assert_int_equal(strlen(text), len);
    char *date = strstr(text, "Date: ");
    assert_non_null(date);
    char *end = strstr(date, "\r\n") + 2;
    memmove(date, end, strlen(end) + 1);
    return text;
}

static void assert_head(const struct pl_reply *reply, const char *expected)
{
    char *text = head_of(reply);
    assert_string_equal(text, expected);
    free(text);
}

static void test_length(void **state)
{
    (void)state;
    assert_head(&(struct pl_reply){.status = 200, .minor_version = 1, .content_length_bytes = 12},
                "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n");
    assert_head(&(struct pl_reply){.status = 429, .minor_version = 1, .content_length_bytes = 0},
                "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n");
    assert_head(
        &(struct pl_reply){.status = 200, .minor_version = 1, .content_length_bytes = INT64_MAX},
        "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n");
}

static void test_no_framing(void **state)
{
    (void)state;
    assert_head(&(struct pl_reply){.status = 204, .minor_version = 1, .content_length_bytes = -1},
                "HTTP/1.1 204 No Content\r\n\r\n");
}

static void test_chunked(void **state)
{
    (void)state;
    assert_head(
        &(struct pl_reply){
            .status = 200, .minor_version = 1, .content_length_bytes = -1, .chunked = true},
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

/** Never both (RFC 9112 6.2). */
static void test_chunked_has_no_length(void **state)
{
    (void)state;
    assert_head(
        &(struct pl_reply){
            .status = 200, .minor_version = 1, .content_length_bytes = 5, .chunked = true},
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

static void test_connection(void **state)
{
    (void)state;
    assert_head(
        &(struct pl_reply){
            .status = 200, .minor_version = 1, .content_length_bytes = 1, .close = true},
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n");
    assert_head(&(struct pl_reply){.status = 200, .content_length_bytes = 1},
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n");
    assert_head(&(struct pl_reply){.status = 200, .content_length_bytes = -1, .close = true},
                "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n");
}

static void test_headers_in_order(void **state)
{
    (void)state;
    struct pl_headers headers;
    pl_headers_init(&headers);
    assert_int_equal(pl_headers_add(&headers, PL_STR("X-B"), PL_STR("1")), PL_OK);
    assert_int_equal(pl_headers_add(&headers, PL_STR("x-a"), PL_STR("")), PL_OK);
    assert_int_equal(pl_headers_add(&headers, PL_STR("X-B"), PL_STR("\xc3\xa9")), PL_OK);
    assert_head(
        &(struct pl_reply){
            .status = 503, .minor_version = 1, .headers = &headers, .content_length_bytes = 3},
        "HTTP/1.1 503 Service Unavailable\r\nX-B: 1\r\nx-a: \r\nX-B: \xc3\xa9\r\n"
        "Content-Length: 3\r\n\r\n");
    pl_headers_deinit(&headers);
}

/** More than any block that a buffer may have at hand, behind bytes that are there already. */
static void test_many_headers_behind_other_bytes(void **state)
{
    (void)state;
    char value[1000];
    struct pl_headers headers;
    struct evbuffer *out = evbuffer_new();
    memset(value, 'v', sizeof(value));
    pl_headers_init(&headers);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(
            pl_headers_add(&headers, PL_STR("n"), (struct pl_str){value, sizeof(value)}), PL_OK);
    }
    struct pl_reply reply = {
        .status = 200, .minor_version = 1, .headers = &headers, .content_length_bytes = 0};
    evbuffer_add(out, "before", 6);
    pl_reply_write_head(out, &reply);
    evbuffer_add(out, "after", 5);
    size_t head_bytes = strlen("HTTP/1.1 200 OK\r\n") + 200 * (sizeof(value) + 5) +
                        strlen("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n") +
                        strlen("Content-Length: 0\r\n\r\n");
    assert_int_equal(evbuffer_get_length(out), 6 + head_bytes + 5);
    const char *text = (const char *)evbuffer_pullup(out, -1);
    assert_memory_equal(text, "beforeHTTP/1.1 200 OK\r\nn: vvv", 29);
    assert_memory_equal(text + 6 + head_bytes - 4, "\r\n\r\nafter", 9);
    pl_headers_deinit(&headers);
    evbuffer_free(out);
}

static void test_date(void **state)
{
    (void)state;
    struct evbuffer *out = evbuffer_new();
    struct pl_reply reply = {.status = 200, .minor_version = 1, .content_length_bytes = 0};
    time_t before_s = time(NULL);
    pl_reply_write_head(out, &reply);
    time_t after_s = time(NULL);
    evbuffer_add(out, "", 1);
    const char *date = strstr((const char *)evbuffer_pullup(out, -1), "Date: ");
    regex_t regex;
    assert_int_equal(regcomp(&regex, "^" DATE_PATTERN, REG_EXTENDED | REG_NOSUB), 0);
    assert_int_equal(regexec(&regex, date, 0, NULL, 0), 0);
    regfree(&regex);
    struct tm tm;
    memset(&tm, 0, sizeof(tm));
    assert_non_null(strptime(date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm));
    assert_in_range(timegm(&tm), before_s, after_s);
    evbuffer_free(out);
}

static void test_phrases(void **state)
{
    (void)state;
    assert_string_equal(pl_reply_phrase(200), "OK");
    assert_string_equal(pl_reply_phrase(418), "Unknown");
    assert_string_equal(pl_reply_phrase(529), "Overloaded");
    assert_string_equal(pl_reply_phrase(-1), "Unknown");
    assert_head(&(struct pl_reply){.status = 599, .minor_version = 1, .content_length_bytes = 0},
                "HTTP/1.1 599 Unknown\r\nContent-Length: 0\r\n\r\n");
}

static void test_bodiless(void **state)
{
    (void)state;
    static const int without[] = {100, 101, 103, 199, 204, 304};
    static const int with[] = {200, 201, 205, 206, 300, 302, 400, 404, 500, 599};
    for (size_t i = 0; i < PL_COUNT(without); i++) {
        assert_true(pl_reply_is_bodiless(without[i]));
    }
    for (size_t i = 0; i < PL_COUNT(with); i++) {
        assert_false(pl_reply_is_bodiless(with[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_no_framing),
        cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_chunked_has_no_length),
        cmocka_unit_test(test_connection),
        cmocka_unit_test(test_headers_in_order),
        cmocka_unit_test(test_many_headers_behind_other_bytes),
        cmocka_unit_test(test_date),
        cmocka_unit_test(test_phrases),
        cmocka_unit_test(test_bodiless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
