/*
 * Tests of json_walk.c.
 */
#include "json_walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* "key=value;" of each member, "=value;" of each item. */
static void assert_walk(const char *text, const char *expected)
{
    struct pl_json_walk walk;
    struct pl_str key, value;
    char found[512] = "";
    size_t len = 0;
    pl_json_walk_init(&walk, pl_str_of(text));
    while (pl_json_walk_next(&walk, &key, &value))
        len += (size_t)snprintf(found + len, sizeof(found) - len, "%.*s=%.*s;", (int)key.len,
                                key.data, (int)value.len, value.data);
    assert_string_equal(found, expected);
    assert_false(pl_json_walk_next(&walk, NULL, &value));
}

static void test_walk(void **state)
{
    (void)state;
    assert_walk("{}", "");
    assert_walk(" [ ] ", "");
    assert_walk("{\"a\":1,\"b\":\"x\"}", "a=1;b=\"x\";");
    assert_walk(" { \"a\" : [1,{\"b\":2}] ,\n\"c\" : null } ", "a=[1,{\"b\":2}];c=null;");
    assert_walk("[1, \"a,]\" ,{\"x\":\"}\"},[[],[]]]", "=1;=\"a,]\";={\"x\":\"}\"};=[[],[]];");
    assert_walk("{\"a\\\"b\":\"c\\\\\",\"\":true}", "a\\\"b=\"c\\\\\";=true;");
    assert_walk("17", "");
    assert_walk("\"{}\"", "");
    assert_walk("", "");
}

static void test_member(void **state)
{
    (void)state;
    struct pl_str object = PL_STR("{\"a\":1,\"b\":{\"a\":2},\"a\":3}");
    assert_true(pl_str_equal(pl_json_walk_member(object, PL_STR("a")), PL_STR("3")));
    assert_true(pl_str_equal(pl_json_walk_member(object, PL_STR("b")), PL_STR("{\"a\":2}")));
    assert_int_equal(pl_json_walk_member(object, PL_STR("c")).len, 0);
    assert_int_equal(pl_json_walk_member(PL_STR("[1]"), PL_STR("")).len, 0);
}

static void test_blank(void **state)
{
    (void)state;
    static const char *const blank[] = {"", "null", "false", "\"\"", "[]", "{}", "[ ]", "{\n}"};
    static const char *const other[] = {"0", "true", "\" \"", "[null]", "{\"a\":null}"};
    for (size_t i = 0; i < PL_COUNT(blank); i++)
        assert_true(pl_json_is_blank(pl_str_of(blank[i])));
    for (size_t i = 0; i < PL_COUNT(other); i++)
        assert_false(pl_json_is_blank(pl_str_of(other[i])));
    assert_true(pl_str_equal(pl_json_string_bytes(PL_STR("\"a\"")), PL_STR("a")));
    assert_int_equal(pl_json_string_bytes(PL_STR("17")).len, 0);
    assert_int_equal(pl_json_string_bytes(PL_STR("\"")).len, 0);
}

/* Whatever the text, cut anywhere: no byte beyond it is read, and the walk ends. */
static void test_broken_text(void **state)
{
    (void)state;
    static const char text[] = "{\"a\\\\\":[1,\"b\\\"\"],\"c\" : {\"d\":null} , \"e\":\"f\"}";
    for (size_t start = 0; start < sizeof(text) - 1; start++) {
        for (size_t len = 0; start + len < sizeof(text); len++) {
            char *copy = malloc(len + 1);
            struct pl_json_walk walk;
            struct pl_str key, value;
            size_t count = 0;
            assert_non_null(copy);
            memmove(copy + 1, text + start, len); /* ends where the memory ends */
            pl_json_walk_init(&walk, (struct pl_str){copy + 1, len});
            while (pl_json_walk_next(&walk, &key, &value))
                assert_true(++count <= len);
            free(copy);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_member),
        cmocka_unit_test(test_blank),
        cmocka_unit_test(test_broken_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
