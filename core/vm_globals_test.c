/*
 * Tests of vm_globals.c: which globals code names, where, and whether it sets them.
 */
#include "vm_globals.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* "name:line" of each, with "=" behind those that are set. */
static void assert_globals(const char *source, const char *expected)
{
    char text[4096] = "";
    lua_State *L = luaL_newstate();
    pl_vm_push_globals(L, source, strlen(source));
    assert_int_equal(lua_gettop(L), 1);
    for (int i = 1; i <= (int)lua_objlen(L, 1); i++) {
        size_t used = strlen(text);
        lua_rawgeti(L, 1, i);
        lua_getfield(L, -1, "name");
        lua_getfield(L, -2, "line");
        lua_getfield(L, -3, "is_set");
        snprintf(text + used, sizeof(text) - used, "%s%s:%d%s", i > 1 ? " " : "",
                 lua_tostring(L, -3), (int)lua_tointeger(L, -2), lua_toboolean(L, -1) ? "=" : "");
        lua_settop(L, 1);
    }
    assert_string_equal(text, expected);
    lua_close(L);
}

static void test_reads_and_writes(void **state)
{
    (void)state;
    assert_globals("", "");
    assert_globals("return 1", "");
    assert_globals("local a = 1\nreturn a", "");
    assert_globals("return foo", "foo:1");
    assert_globals("\n\nfoo.bar.baz = 1", "foo:3");
    assert_globals("foo = 1", "foo:1=");
    assert_globals("local x = foo\nfoo = x\nfoo = foo", "foo:1 foo:2=");
    assert_globals("function foo() end", "foo:1=");
    assert_globals("if a then b() elseif c == d then e = f .. g end",
                   "a:1 b:1 c:1 d:1 f:1 g:1 e:1=");
}

static void test_functions_within_functions(void **state)
{
    (void)state;
    assert_globals("local a = 1\n"
                   "return function(req)\n"
                   "  local function inner() return a + foo end\n"
                   "  return { handle = function() return inner() + bar end }\n"
                   "end",
                   "foo:3 bar:4");
}

static void test_more_than_can_be_kept(void **state)
{
    (void)state;
    char *source = calloc(1, 1 << 16);
    for (int i = 0; i < 1000; i++)
        sprintf(source + strlen(source), "g%d()\n", i);
    lua_State *L = luaL_newstate();
    pl_vm_push_globals(L, source, strlen(source));
    assert_int_equal(lua_objlen(L, 1), 256);
    lua_close(L);
    free(source);
}

static void test_what_does_not_compile(void **state)
{
    (void)state;
    assert_globals("return return", "");
    assert_globals("\033LJ\2", "");
    lua_State *L = luaL_newstate();
    pl_vm_push_globals(L, "x = 1\0y = 1", 11);
    assert_int_equal(lua_objlen(L, 1), 0);
    lua_close(L);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_and_writes),
        cmocka_unit_test(test_functions_within_functions),
        cmocka_unit_test(test_more_than_can_be_kept),
        cmocka_unit_test(test_what_does_not_compile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
