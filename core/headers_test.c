/*
 * Tests of headers.c.
 */
#include "headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct pl_str str(const char *text)
{
    return (struct pl_str){text, strlen(text)};
}

static void assert_str(struct pl_str actual, const char *expected)
{
    assert_int_equal(actual.len, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.len);
}

static int set_up(void **state)
{
    static struct pl_headers headers;
    pl_headers_init(&headers);
    *state = &headers;
    return 0;
}

static int tear_down(void **state)
{
    pl_headers_deinit(*state);
    return 0;
}

static void add(struct pl_headers *headers, const char *name, const char *value)
{
    assert_int_equal(pl_headers_add(headers, str(name), str(value)), PL_OK);
}

/* ---- the list ---- */

static void test_keeps_order_spelling_and_duplicates(void **state)
{
    struct pl_headers *headers = *state;
    add(headers, "Content-Type", "text/plain");
    add(headers, "X-A", "1");
    add(headers, "x-a", "");
    assert_int_equal(headers->count, 3);
    assert_str(pl_headers_name(headers, 0), "Content-Type");
    assert_str(pl_headers_value(headers, 0), "text/plain");
    assert_str(pl_headers_name(headers, 2), "x-a");
    assert_str(pl_headers_value(headers, 2), "");
}

static void test_fields_of_a_head_by_their_places(void **state)
{
    struct pl_headers *headers = *state;
    pl_headers_keep_bytes(headers, "GET / HTTP/1.1\r\nA:", 18);
    pl_headers_add_place(headers, (struct pl_header){16, 1, 18, 4});
    pl_headers_keep_bytes(headers, " \tb\t\r\nC:\r\n\r\n", 12);
    pl_headers_add_place(headers, (struct pl_header){24, 1, 26, 0});
    pl_headers_trim(headers);
    assert_str(pl_headers_name(headers, 0), "A");
    assert_str(pl_headers_value(headers, 0), "b");
    assert_str(pl_headers_name(headers, 1), "C");
    assert_str(pl_headers_value(headers, 1), "");
    add(headers, "d", "e");
    assert_str(pl_headers_value(headers, 0), "b");
    pl_headers_cut(headers, 5);
    assert_int_equal(headers->count, 0);
    assert_memory_equal(headers->arena, "GET /", 5);
    add(headers, "d", "e");
    assert_str(pl_headers_value(headers, 0), "e");
    pl_headers_cut(headers, 0);
    assert_null(headers->arena);
}

static void test_get_is_without_case_and_gives_the_first(void **state)
{
    struct pl_headers *headers = *state;
    struct pl_str found;
    add(headers, "X-One", "first");
    add(headers, "x-one", "second");
    assert_true(pl_headers_get(headers, str("x-ONE"), &found));
    assert_str(found, "first");
    assert_false(pl_headers_get(headers, str("x-on"), &found));
    assert_false(pl_headers_get(headers, str("x-one1"), &found));
    assert_int_equal(pl_headers_count(headers, str("X-ONE")), 2);
    assert_int_equal(pl_headers_count(headers, str("other")), 0);
}

static void test_remove_takes_all_of_a_name_and_keeps_the_order(void **state)
{
    struct pl_headers *headers = *state;
    add(headers, "a", "1");
    add(headers, "B", "2");
    add(headers, "A", "3");
    add(headers, "c", "4");
    assert_int_equal(pl_headers_remove(headers, str("a")), 2);
    assert_int_equal(pl_headers_remove(headers, str("a")), 0);
    assert_int_equal(headers->count, 2);
    assert_str(pl_headers_name(headers, 0), "B");
    assert_str(pl_headers_value(headers, 1), "4");
    assert_int_equal(pl_headers_remove(headers, str("b")), 1);
    assert_int_equal(pl_headers_remove(headers, str("C")), 1);
    assert_int_equal(headers->count, 0);
}

static void test_clear_empties_and_can_be_filled_again(void **state)
{
    struct pl_headers *headers = *state;
    struct pl_str found;
    pl_headers_clear(headers);
    add(headers, "a", "1");
    pl_headers_clear(headers);
    assert_int_equal(headers->count, 0);
    assert_false(pl_headers_get(headers, str("a"), &found));
    add(headers, "b", "2");
    assert_str(pl_headers_value(headers, 0), "2");
}

static void test_grows(void **state)
{
    struct pl_headers *headers = *state;
    char name[32];
    char value[400];
    memset(value, 'v', sizeof(value));
    for (int i = 0; i < 500; i++) {
        struct pl_str bytes = {value, (size_t)(i % 400)};
        (void)snprintf(name, sizeof(name), "x-%d", i);
        assert_int_equal(pl_headers_add(headers, str(name), bytes), PL_OK);
    }
    for (int i = 0; i < 500; i++) {
        struct pl_str found;
        (void)snprintf(name, sizeof(name), "X-%d", i);
        assert_true(pl_headers_get(headers, str(name), &found));
        assert_int_equal(found.len, i % 400);
        assert_memory_equal(found.data, value, found.len);
    }
}

static void test_may_copy_from_itself_while_it_grows(void **state)
{
    struct pl_headers *headers = *state;
    add(headers, "name", "a value");
    for (size_t i = 0; i < 2000; i++) {
        struct pl_str name = pl_headers_name(headers, i);
        struct pl_str value = pl_headers_value(headers, i);
        assert_int_equal(pl_headers_add(headers, name, value), PL_OK);
    }
    assert_str(pl_headers_name(headers, 2000), "name");
    assert_str(pl_headers_value(headers, 2000), "a value");
}

static void test_copies(void **state)
{
    struct pl_headers *headers = *state;
    struct pl_headers copy;
    pl_headers_init(&copy);
    add(&copy, "gone", "x");
    add(headers, "a", "1");
    add(headers, "b", "2");
    pl_headers_remove(headers, str("a"));
    pl_headers_copy(&copy, headers);
    pl_headers_clear(headers);
    assert_int_equal(copy.count, 1);
    add(&copy, "C", "3");
    assert_str(pl_headers_name(&copy, 0), "b");
    assert_str(pl_headers_value(&copy, 0), "2");
    assert_str(pl_headers_value(&copy, 1), "3");
    pl_headers_copy(&copy, headers);
    assert_int_equal(copy.count, 0);
    pl_headers_deinit(&copy);
}

static void test_takes_empty_spans_without_data(void **state)
{
    struct pl_headers *headers = *state;
    struct pl_str nothing = {NULL, 0};
    assert_int_equal(pl_headers_add(headers, str("a"), nothing), PL_OK);
    assert_int_equal(pl_headers_add(headers, nothing, str("a")), PL_ERR_SYNTAX);
    assert_int_equal(pl_headers_value(headers, 0).len, 0);
    assert_false(pl_header_lists_token(nothing, str("close")));
}

/* ---- what may be stored ---- */

static void test_a_name_is_a_token(void **state)
{
    (void)state;
    const char *tokens = "!#$%&'*+-.^_`|~";
    for (int byte = 0; byte < 256; byte++) {
        char name[2] = {'x', (char)byte};
        bool is_alnum = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
                        (byte >= 'A' && byte <= 'Z');
        bool expected = is_alnum || (byte != 0 && strchr(tokens, byte) != NULL);
        assert_int_equal(pl_header_name_is_valid((struct pl_str){name, 2}), expected);
    }
    assert_false(pl_header_name_is_valid(str("")));
}

static void test_a_value_has_no_control_byte_but_tab(void **state)
{
    (void)state;
    char value[40];
    for (size_t len = 1; len < sizeof(value); len++) {
        for (int byte = 0; byte < 256; byte++) {
            bool expected = (byte >= 0x20 && byte != 0x7f) || byte == '\t';
            memset(value, (len & 1) != 0 ? 'v' : 0xff, len);
            value[len - 1] = (char)byte;
            assert_int_equal(pl_header_value_is_valid((struct pl_str){value, len}), expected);
            value[len - 1] = ' ';
            value[len / 2] = (char)byte;
            assert_int_equal(pl_header_value_is_valid((struct pl_str){value, len}), expected);
        }
    }
}

static void test_add_refuses_what_could_break_a_message_apart(void **state)
{
    struct pl_headers *headers = *state;
    assert_int_equal(pl_headers_add(headers, str("a b"), str("x")), PL_ERR_SYNTAX);
    assert_int_equal(pl_headers_add(headers, str("a:"), str("x")), PL_ERR_SYNTAX);
    assert_int_equal(pl_headers_add(headers, str(""), str("x")), PL_ERR_SYNTAX);
    assert_int_equal(pl_headers_add(headers, str("a"), str("x\r\ny: z")), PL_ERR_SYNTAX);
    assert_int_equal(pl_headers_add(headers, str("a"), str("x\ny")), PL_ERR_SYNTAX);
    assert_int_equal(pl_headers_add(headers, str("a"), (struct pl_str){"x\0y", 3}), PL_ERR_SYNTAX);
    assert_int_equal(headers->count, 0);
}

static void test_add_refuses_more_than_the_offsets_can_tell(void **state)
{
    struct pl_headers *headers = *state;
    add(headers, "a", "1");
    /* Only the length is looked at before the refusal; no such value is ever read. */
    headers->arena_len = UINT32_MAX - 2;
    assert_int_equal(pl_headers_add(headers, str("ab"), str("c")), PL_ERR_LIMIT);
    assert_int_equal(pl_headers_add(headers, str("abc"), str("")), PL_ERR_LIMIT);
    headers->arena_len = 2;
    assert_int_equal(headers->count, 1);
}

/* ---- the rules of a proxy ---- */

static void test_hop_by_hop(void **state)
{
    (void)state;
    const char *hops[] = {"Connection",
                          "keep-alive",
                          "Transfer-Encoding",
                          "TE",
                          "trailer",
                          "UPGRADE",
                          "Proxy-Authorization",
                          "proxy-x",
                          "Proxy-",
                          "Proxy-Authenticate",
                          "proxy-connection"};
    const char *others[] = {"", "t", "proxy", "Prox-", "Content-Length", "Host", "xTE", "trailers"};
    for (size_t i = 0; i < PL_COUNT(hops); i++) {
        assert_true(pl_header_is_hop_by_hop(str(hops[i])));
    }
    for (size_t i = 0; i < PL_COUNT(others); i++) {
        assert_false(pl_header_is_hop_by_hop(str(others[i])));
    }
}

static void test_credentials(void **state)
{
    (void)state;
    const char *secrets[] = {
        "Authorization",  "Proxy-Authorization", "COOKIE", "x-api-key", "api-key",
        "X-Goog-Api-Key", "X-AMZ-Security-Token"};
    const char *others[] = {"", "Accept", "x-request-id", "Authorization-Info", "set-cookie"};
    for (size_t i = 0; i < PL_COUNT(secrets); i++) {
        assert_true(pl_header_is_credential(str(secrets[i])));
    }
    for (size_t i = 0; i < PL_COUNT(others); i++) {
        assert_false(pl_header_is_credential(str(others[i])));
    }
}

static void test_lists_token(void **state)
{
    (void)state;
    const struct pl_str close = PL_STR("close");
    const char *with[] = {"close",   "Close",          " close ", "a, CLOSE",
                          "close,a", "a ,\tclose\t,b", ",,close", "closed, close"};
    const char *without[] = {"", ",", "closed", "clos", "a, b", "close;x", "clo se", "x close"};
    for (size_t i = 0; i < PL_COUNT(with); i++) {
        assert_true(pl_header_lists_token(str(with[i]), close));
    }
    for (size_t i = 0; i < PL_COUNT(without); i++) {
        assert_false(pl_header_lists_token(str(without[i]), close));
    }
}

static void test_lists_token_in_any_field(void **state)
{
    struct pl_headers *headers = *state;
    const struct pl_str name = PL_STR("connection");
    assert_false(pl_headers_list_token(headers, name, str("close")));
    add(headers, "Connection", "a, b");
    add(headers, "Other", "other");
    add(headers, "CONNECTION", "Close");
    assert_true(pl_headers_list_token(headers, name, str("b")));
    assert_true(pl_headers_list_token(headers, name, str("close")));
    assert_false(pl_headers_list_token(headers, name, str("other")));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_keeps_order_spelling_and_duplicates),
        TEST(test_fields_of_a_head_by_their_places),
        TEST(test_get_is_without_case_and_gives_the_first),
        TEST(test_remove_takes_all_of_a_name_and_keeps_the_order),
        TEST(test_clear_empties_and_can_be_filled_again),
        TEST(test_grows),
        TEST(test_may_copy_from_itself_while_it_grows),
        TEST(test_copies),
        TEST(test_takes_empty_spans_without_data),
        TEST(test_a_name_is_a_token),
        TEST(test_a_value_has_no_control_byte_but_tab),
        TEST(test_add_refuses_what_could_break_a_message_apart),
        TEST(test_add_refuses_more_than_the_offsets_can_tell),
        TEST(test_hop_by_hop),
        TEST(test_credentials),
        TEST(test_lists_token),
        TEST(test_lists_token_in_any_field),
    };
    return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
