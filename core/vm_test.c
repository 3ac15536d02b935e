/*
 * Tests of vm.c: a memory cap that holds, a CPU budget that nothing catches, and what policies can
 * reach (the environment is lua/perilune/sandbox.lua's).
 */
#include "bind.h"
#include "vm.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BURST_US 20000

static const struct pl_vm_limits LIMITS = {.memory_bytes = 16 << 20, .burst_us = BURST_US};

static int set_up(void **state)
{
    *state = pl_vm_new(&LIMITS);
    return *state != NULL ? 0 : -1;
}

/* with all that policies get from C */
static int set_up_bound(void **state)
{
    *state = pl_bind_vm_new(&LIMITS, NULL);
    return *state != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    pl_vm_free(*state);
    return 0;
}

/* ---- running text ---- */

struct run {
    const char *source;
    bool in_sandbox;
    double number; /* the chunk's first result */
    char text[4096];
};

static void run_source(lua_State *L, void *arg)
{
    struct run *run = arg;
    if (run->in_sandbox) {
        pl_vm_load_policy(L, run->source, strlen(run->source), "policy.lua");
    } else if (luaL_loadstring(L, run->source) != 0) {
        lua_error(L);
    }
    lua_call(L, 0, 1);
    run->number = lua_tonumber(L, -1);
    snprintf(run->text, sizeof(run->text), "%s", lua_isstring(L, -1) ? lua_tostring(L, -1) : "");
}

/** Runs it as library code or as a policy; it must end well. */
static struct run run_text(struct pl_vm *vm, const char *source, bool in_sandbox)
{
    struct run run = {.source = source, .in_sandbox = in_sandbox};
    char error[512] = "";
    if (pl_vm_call(vm, run_source, &run, error, sizeof(error)) != PL_OK) {
        fail_msg("%s: %s", source, error);
    }
    return run;
}

/** Runs it; it must fail with a message that contains `expected`. */
static void assert_fails(struct pl_vm *vm, const char *source, bool in_sandbox,
                         const char *expected)
{
    struct run run = {.source = source, .in_sandbox = in_sandbox};
    char error[512] = "";
    if (pl_vm_call(vm, run_source, &run, error, sizeof(error)) == PL_OK) {
        fail_msg("%s: did not fail", source);
    }
    if (strstr(error, expected) == NULL) {
        fail_msg("%s: \"%s\" lacks \"%s\"", source, error, expected);
    }
    assert_int_equal(lua_gettop(vm->state), 0);
}

static void assert_usable(struct pl_vm *vm)
{
    assert_true(
        run_text(vm, "local n = 0 for i = 1, 1000 do n = n + i end return n", false).number ==
        500500);
}

static void test_call(void **state)
{
    assert_usable(*state);
    assert_int_equal(lua_gettop(((struct pl_vm *)*state)->state), 0);
    assert_fails(*state, "error('why', 0)", false, "why");
    assert_fails(*state, "error({})", false, "(no message)");
    assert_fails(*state, "local x = nil; return x.y", false, "attempt to index");
    assert_fails(*state, "return +", false, "unexpected symbol");
    assert_usable(*state);
}

static void test_error_is_cut_to_its_room(void **state)
{
    struct run run = {.source = "error(('x'):rep(5000), 0)"};
    char error[16];
    memset(error, '#', sizeof(error));
    assert_int_equal(pl_vm_call(*state, run_source, &run, error, 8), PL_ERR_SYNTAX);
    assert_string_equal(error, "xxxxxxx");
    assert_int_equal(error[8], '#');
}

static void leave_things(lua_State *L, void *arg)
{
    assert_ptr_equal(pl_vm_of(L), arg);
    assert_ptr_equal(pl_vm_of(lua_newthread(L)), arg);
    lua_pushinteger(L, 1);
    lua_pushinteger(L, 2);
}

static void test_what_a_call_leaves_is_dropped(void **state)
{
    struct pl_vm *vm = *state;
    char error[64];
    assert_int_equal(pl_vm_call(vm, leave_things, vm, error, sizeof(error)), PL_OK);
    assert_int_equal(lua_gettop(vm->state), 0);
}

/* ---- memory ---- */

#define EAT "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end"

static void test_memory_is_capped(void **state)
{
    static const char *const bombs[] = {
        EAT,
        "return ('x'):rep(1e9)",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} while true do t = { t, t } end",
        "return table.concat({ ('x'):rep(9e6), ('y'):rep(9e6) })",
        "local function f(...) return f(1, ...) end return f()",
    };
    struct pl_vm *vm = *state;
    struct run run = {.source = NULL};
    char error[512];
    vm->limits.burst_us = 60 * 1000 * 1000;
    for (size_t i = 0; i < PL_COUNT(bombs); i++) {
        run.source = bombs[i];
        assert_int_equal(pl_vm_call(vm, run_source, &run, error, sizeof(error)), PL_ERR_SYNTAX);
        assert_true(strstr(error, "not enough memory") || strstr(error, "overflow"));
        assert_true(vm->memory_used_bytes <= LIMITS.memory_bytes);
        assert_usable(vm);
    }
}

/** What a policy that catches the failure leaves behind is not the next one's burden. */
static void test_memory_failure_may_be_caught(void **state)
{
    struct pl_vm *vm = *state;
    vm->limits.burst_us = 60 * 1000 * 1000;
    for (int i = 0; i < 3; i++) {
        struct run run =
            run_text(vm, "local _, why = pcall(function() " EAT " end) return why", true);
        assert_string_equal(run.text, "not enough memory");
        assert_true(vm->starved);
        assert_usable(vm);
        assert_false(vm->starved);
        assert_true(vm->memory_used_bytes < LIMITS.memory_bytes / 4);
    }
}

static void test_memory_is_counted_exactly(void **state)
{
    struct pl_vm *vm = *state;
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    size_t before = vm->memory_used_bytes;
    assert_true(before > 1000 && before < 200000);
    size_t counted = (size_t)lua_gc(vm->state, LUA_GCCOUNT, 0) * 1024 +
                     (size_t)lua_gc(vm->state, LUA_GCCOUNTB, 0);
    assert_int_equal(before, counted);
    vm->limits.burst_us = 60 * 1000 * 1000;
    run_text(vm, "local t = {} for i = 1, 20000 do t[i] = {} end return #t", false);
    assert_true(vm->memory_used_bytes > before + 100000);
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    assert_true(vm->memory_used_bytes < before + 10000);
}

/** However little there is, making a VM either succeeds or gives back all it took. */
static void test_new_with_too_little(void **state)
{
    (void)state;
    size_t too_little_count = 0;
    struct pl_vm *vm = NULL;
    for (size_t bytes = 0; vm == NULL; bytes += 199) {
        assert_true(bytes < 200000);
        vm = pl_vm_new(&(struct pl_vm_limits){.memory_bytes = bytes, .burst_us = BURST_US});
        too_little_count += vm == NULL;
    }
    assert_true(too_little_count > 50);
    assert_true(vm->memory_used_bytes <= vm->limits.memory_bytes);
    pl_vm_free(vm);
    pl_vm_free(NULL);
}

/** Memory runs out at every place between an entry and a policy's result. */
static void test_a_policy_with_too_little(void **state)
{
    struct pl_vm *vm = *state;
    struct run run = {.source = "local f = function(x) return { x = x } end return f(7).x",
                      .in_sandbox = true};
    char error[256];
    size_t fail_count = 0;
    int result;
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    size_t base_bytes = vm->memory_used_bytes;
    for (size_t more_bytes = 0;; more_bytes += 97) {
        assert_true(more_bytes < 400000);
        vm->limits.memory_bytes = base_bytes + more_bytes;
        result = pl_vm_call(vm, run_source, &run, error, sizeof(error));
        if (result == PL_OK) {
            break;
        }
        assert_string_equal(error, "not enough memory");
        fail_count++;
    }
    assert_true(fail_count > 50);
    assert_true(run.number == 7);
}

/* ---- the CPU budget ---- */

/** It must be stopped, soon, and the VM must be as good as before. */
static void assert_stopped(struct pl_vm *vm, const char *source, bool in_sandbox)
{
    uint64_t start_us = pl_thread_cpu_us();
    assert_fails(vm, source, in_sandbox, "the CPU budget of 20 ms is used up");
    uint64_t used_us = pl_thread_cpu_us() - start_us;
    assert_true(used_us >= BURST_US);
    assert_true(used_us < 5000000);
    assert_usable(vm);
}

static const char *const LOOPS[] = {
    "while true do end",
    "for i = 1, math.huge do end",
    "repeat until false",
    "local function f() return f() end return f()",
    "while true do pcall(error) end",
    "while true do pcall(function() while true do end end) end",
    "local function f() pcall(f) while true do end end while true do pcall(f) end",
    "pcall(pcall, pcall, function() while true do end end) while true do end",
    "local t = setmetatable({}, { __index = function() while true do end end }) return t.x",
    "local t = setmetatable({}, { __tostring = function() while true do end end })\n"
    "return tostring(t)",
    "table.sort({ 3, 2, 1, 4, 5 }, function() while true do end end)",
    "table.sort({ 3, 2, 1, 4, 5 }, function()\n"
    "  while true do pcall(function() while true do end end) end\n"
    "end)",
    "(('x'):rep(10)):gsub('x', function() while true do end end)",
    "while true do pcall(string.gsub, 'x', 'x', function() while true do end end) end",
    "while true do pcall(table.sort, { 2, 1 }, function() while true do end end) end",
    "local s = '' while true do s = ('x'):rep(1000) end",
    "local t = {} while true do t[1] = {} end",
    "while true do local f = function() end f() end",
    "while true do for _ in pairs({ 1, 2, 3 }) do end end",
};

static void test_library_loops_are_stopped(void **state)
{
    for (size_t i = 0; i < PL_COUNT(LOOPS); i++) {
        assert_stopped(*state, LOOPS[i], false);
    }
}

static void test_policy_loops_are_stopped(void **state)
{
    for (size_t i = 0; i < PL_COUNT(LOOPS); i++) {
        assert_stopped(*state, LOOPS[i], true);
    }
}

/** What runs while a file is loaded, and loaded by what is loaded. */
static void test_a_module_that_loops_is_stopped(void **state)
{
    assert_stopped(*state, "local f = loadstring('while true do end') while true do pcall(f) end",
                   false);
}

/** A burst is what one entry uses, not all of them together. */
static void test_each_call_has_the_whole_budget(void **state)
{
    struct pl_vm *vm = *state;
    uint64_t until_us = pl_thread_cpu_us() + 3 * BURST_US;
    while (pl_thread_cpu_us() < until_us) {
        assert_usable(vm);
    }
}

static void test_a_longer_budget_is_longer(void **state)
{
    struct pl_vm *vm = *state;
    vm->limits.burst_us = 10 * 1000 * 1000;
    struct run run = run_text(vm, "local n = 0 for i = 1, 3e6 do n = n + 1 end return n", false);
    assert_true(run.number == 3e6);
}

/* ---- source, not bytecode ---- */

struct bytes {
    char data[4096];
    size_t len;
};

static int write_bytes(lua_State *L, const void *data, size_t len, void *arg)
{
    (void)L;
    struct bytes *bytes = arg;
    assert_true(bytes->len + len <= sizeof(bytes->data));
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
    return 0;
}

static void load_bytecode(lua_State *L, void *arg)
{
    struct bytes *bytes = arg;
    assert_int_equal(luaL_loadstring(L, "return 1"), 0);
    assert_int_equal(lua_dump(L, write_bytes, bytes), 0);
    assert_memory_equal(bytes->data, "\033LJ", 3);
    pl_vm_load_policy(L, bytes->data, bytes->len, "evil.lua");
}

static void test_bytecode_is_refused(void **state)
{
    struct bytes bytes = {.len = 0};
    char error[256];
    assert_int_equal(pl_vm_call(*state, load_bytecode, &bytes, error, sizeof(error)),
                     PL_ERR_SYNTAX);
    assert_string_equal(error, "evil.lua: is compiled code; only the text of a script is read");
}

static void test_messages_name_file_and_line(void **state)
{
    assert_fails(*state, "\n\nerror('why')", true, "policy.lua:3: why");
    assert_fails(*state, "\nlocal = 1", true, "policy.lua:2: ");
}

/* ---- modules ---- */

static int open_counted(lua_State *L)
{
    lua_getglobal(L, "opened");
    lua_pushinteger(L, lua_tointeger(L, -1) + 1);
    lua_setglobal(L, "opened");
    lua_newtable(L);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "name");
    return 1;
}

static void test_modules_are_made_once(void **state)
{
    pl_vm_preload(*state, "native", open_counted);
    assert_true(run_text(*state,
                         "local a, b = require('native'), require('native')\n"
                         "assert(a == b and a.name == 'native') return opened",
                         false)
                    .number == 1);
    assert_true(run_text(*state, "require('native') return opened", false).number == 1);
}

static void test_embedded_modules(void **state)
{
    struct run run = run_text(*state, "return require('perilune.duration').parse('1.5s')", false);
    assert_true(run.number == 1500);
    assert_fails(*state, "require('perilune.no_such')", false,
                 "module 'perilune.no_such' not found");
    assert_fails(*state, "require()", false, "bad argument #1 to 'require'");
}

static void test_library_code_has_no_way_out(void **state)
{
    static const char *const absent[] = {"io",       "os",        "debug",  "package",    "jit",
                                         "ffi",      "coroutine", "dofile", "loadfile",   "print",
                                         "newproxy", "module",    "gcinfo", "string.dump"};
    for (size_t i = 0; i < PL_COUNT(absent); i++) {
        char source[80];
        snprintf(source, sizeof(source), "return tostring(%s)", absent[i]);
        assert_string_equal(run_text(*state, source, false).text, "nil");
    }
}

/* ---- what policies reach ---- */

static void test_policies_lack(void **state)
{
    static const char *const absent[] = {
        "_G",
        "io",
        "os",
        "debug",
        "load",
        "loadstring",
        "loadfile",
        "dofile",
        "xpcall",
        "package",
        "module",
        "jit",
        "collectgarbage",
        "coroutine",
        "getfenv",
        "setfenv",
        "rawget",
        "rawset",
        "ffi",
        "newproxy",
        "print",
        "gcinfo",
        "native",
        "cjson",
        "rawlen",
        "warn",
        "string.dump",
        "('').dump",
        "math.randomseed",
    };
    for (size_t i = 0; i < PL_COUNT(absent); i++) {
        char source[80];
        snprintf(source, sizeof(source), "return tostring(%s)", absent[i]);
        assert_string_equal(run_text(*state, source, true).text, "nil");
    }
}

static void test_policies_have(void **state)
{
    struct run run =
        run_text(*state,
                 "local t = setmetatable({}, { __index = { x = 1 } })\n"
                 "assert(t.x == 1 and select('#', unpack({ 1, 2 })) == 2 and next({}) == nil)\n"
                 "assert(bit.bor(1, 2) == 3 and math.floor(1.5) == 1 and ('x'):upper() == 'X')\n"
                 "assert(tostring(1) == '1' and tonumber('0x10') == 16 and type(nil) == 'nil')\n"
                 "assert(rawequal(t, t) and not pcall(error) and table.concat({ 1, 2 }) == '12')\n"
                 "for _, x in ipairs({ 5 }) do for _, y in pairs({ x }) do return y end end",
                 true);
    assert_true(run.number == 5);
}

static void test_policies_require_only_the_public_module(void **state)
{
    static const char *const withheld[] = {
        "perilune.native", "perilune.sandbox", "cjson.safe", "perilune.boot", "string", "_G", ""};
    for (size_t i = 0; i < PL_COUNT(withheld); i++) {
        char source[80], expected[120];
        snprintf(source, sizeof(source), "local x = require('%s')", withheld[i]);
        snprintf(expected, sizeof(expected),
                 "policy.lua:1: module '%s' is not available to policies (only 'perilune')",
                 withheld[i]);
        assert_fails(*state, source, true, expected);
    }
    assert_string_equal(run_text(*state, "return type(require('perilune'))", true).text, "table");
    assert_fails(*state, "require()", true, "module 'nil' is not available");
    assert_fails(*state, "require({})", true, "is not available to policies");
}

static void test_globals_cannot_be_made(void **state)
{
    assert_fails(*state, "x = 1", true,
                 "policy.lua:1: global 'x' cannot be set: declare it with 'local'");
    assert_fails(*state, "function helper() end", true, "global 'helper' cannot be set");
    assert_fails(*state, "string = nil", true, "global 'string' cannot be set");
    assert_fails(*state, "string.find = nil", true, "library field 'find' cannot be set");
    assert_fails(*state, "math.pi = 3", true, "library field 'pi' cannot be set");
    assert_fails(*state, "require('perilune').sleep = nil", true, "read-only");
}

static void test_metatables_are_locked(void **state)
{
    static const char *const things[] = {"''", "string", "math", "table", "bit"};
    char source[120];
    for (size_t i = 0; i < PL_COUNT(things); i++) {
        snprintf(source, sizeof(source), "return tostring(getmetatable(%s))", things[i]);
        assert_string_equal(run_text(*state, source, true).text, "locked");
        snprintf(source, sizeof(source), "return tostring(pcall(setmetatable, %s, {}))", things[i]);
        assert_string_equal(run_text(*state, source, true).text, "false");
    }
    assert_string_equal(
        run_text(*state,
                 "return tostring(getmetatable(print)) .. tostring(getmetatable(1)) ..\n"
                 "  tostring(getmetatable(nil)) .. tostring(getmetatable(pcall)) ..\n"
                 "  tostring(pcall(setmetatable, '', {}))",
                 true)
            .text,
        "nilnilnilnilfalse");
}

/* Walks whatever a policy can get at by reading: tables, and metatables whether locked or not. */
struct walk {
    const void *forbidden[32];
    const char *forbidden_names[32];
    size_t forbidden_count;
    size_t function_count;
};

static void visit(lua_State *L, struct walk *walk);

/** The value on top; leaves the stack as it was. `seen` is at index 1. */
static void visit_table(lua_State *L, struct walk *walk)
{
    lua_pushvalue(L, -1);
    lua_rawget(L, 1);
    bool seen = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (seen) {
        return;
    }
    lua_pushvalue(L, -1);
    lua_pushboolean(L, 1);
    lua_rawset(L, 1);
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        visit(L, walk);
        lua_pop(L, 1);
        visit(L, walk);
    }
}

static void visit(lua_State *L, struct walk *walk)
{
    luaL_checkstack(L, 8, "walk");
    if (lua_getmetatable(L, -1)) {
        visit_table(L, walk);
        lua_pop(L, 1);
    }
    if (lua_type(L, -1) == LUA_TTABLE) {
        visit_table(L, walk);
    }
    walk->function_count += lua_isfunction(L, -1);
    for (size_t i = 0; i < walk->forbidden_count; i++) {
        if (lua_topointer(L, -1) == walk->forbidden[i]) {
            fail_msg("a policy can reach %s", walk->forbidden_names[i]);
        }
    }
}

static void forbid(lua_State *L, struct walk *walk, const char *name)
{
    lua_getglobal(L, name);
    assert_false(lua_isnil(L, -1));
    walk->forbidden[walk->forbidden_count] = lua_topointer(L, -1);
    walk->forbidden_names[walk->forbidden_count++] = name;
    lua_pop(L, 1);
}

static void walk_environment(lua_State *L, void *arg)
{
    static const char *const names[] = {"_G",      "load",          "loadstring", "xpcall",
                                        "rawget",  "rawset",        "getfenv",    "setfenv",
                                        "require", "collectgarbage"};
    struct walk *walk = arg;
    for (size_t i = 0; i < PL_COUNT(names); i++) {
        forbid(L, walk, names[i]);
    }
    lua_newtable(L); /* seen */
    pl_vm_load_policy(L, "return require('perilune')", 26, "policy.lua");
    lua_getfenv(L, -1);
    visit(L, walk);
    lua_pop(L, 1);
    lua_call(L, 0, 1);
    visit(L, walk);
    lua_pushliteral(L, "");
    visit(L, walk);
}

static void test_nothing_else_is_reachable(void **state)
{
    struct walk walk = {.forbidden_count = 0};
    char error[256] = "";
    if (pl_vm_call(*state, walk_environment, &walk, error, sizeof(error)) != PL_OK) {
        fail_msg("%s", error);
    }
    assert_in_range(walk.function_count, 60, 160);
}

/** What a policy leaves in a table of the library, it would leave for all others. */
static void test_policies_do_not_see_each_other(void **state)
{
    run_text(*state, "pcall(table.insert, string, 1) pcall(function() shared = 1 end)", true);
    assert_string_equal(run_text(*state, "return tostring(shared)", true).text, "nil");
}

#define TEST(test)       cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define BOUND_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_bound, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_call),
        TEST(test_error_is_cut_to_its_room),
        TEST(test_what_a_call_leaves_is_dropped),
        TEST(test_memory_is_capped),
        TEST(test_memory_failure_may_be_caught),
        TEST(test_memory_is_counted_exactly),
        TEST(test_new_with_too_little),
        TEST(test_a_policy_with_too_little),
        TEST(test_library_loops_are_stopped),
        TEST(test_policy_loops_are_stopped),
        TEST(test_a_module_that_loops_is_stopped),
        TEST(test_each_call_has_the_whole_budget),
        TEST(test_a_longer_budget_is_longer),
        TEST(test_bytecode_is_refused),
        TEST(test_messages_name_file_and_line),
        TEST(test_modules_are_made_once),
        TEST(test_embedded_modules),
        TEST(test_library_code_has_no_way_out),
        BOUND_TEST(test_policies_lack),
        BOUND_TEST(test_policies_have),
        BOUND_TEST(test_policies_require_only_the_public_module),
        BOUND_TEST(test_globals_cannot_be_made),
        BOUND_TEST(test_metatables_are_locked),
        BOUND_TEST(test_nothing_else_is_reachable),
        BOUND_TEST(test_policies_do_not_see_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
