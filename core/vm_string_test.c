/*
 * Tests of vm_string.c, pattern.c and vm_table.c: they do what LuaJIT's own functions do, to the
 * last message, and none of what they do runs longer than the budget.
 *
 * The comparison runs in one VM: luaopen_string puts the stock functions back beside ours.
 */
#include "vm.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BURST_US 50000

static int set_up(void **state)
{
    *state = pl_vm_new(&(struct pl_vm_limits){.memory_bytes = 64 << 20, .burst_us = BURST_US});
    return *state != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    pl_vm_free(*state);
    return 0;
}

struct run {
    const char *source;
    bool in_sandbox;
    double number;
};

static void run_source(lua_State *L, void *arg)
{
    struct run *run = arg;
    if (run->in_sandbox)
        pl_vm_load_policy(L, run->source, strlen(run->source), "policy.lua");
    else if (luaL_loadbuffer(L, run->source, strlen(run->source), "=test") != 0)
        lua_error(L);
    lua_call(L, 0, 1);
    run->number = lua_tonumber(L, -1);
}

static double run_text(struct pl_vm *vm, const char *source)
{
    struct run run = {.source = source};
    char error[1024] = "";
    if (pl_vm_call(vm, run_source, &run, error, sizeof(error)) != PL_OK)
        fail_msg("%s", error);
    return run.number;
}

/* ---- against the stock functions ---- */

static void open_both(lua_State *L, void *arg)
{
    (void)arg;
    static const char *const names[] = {"find", "match", "gmatch", "gsub"};
    lua_newtable(L);
    lua_getglobal(L, "string");
    for (size_t i = 0; i < PL_COUNT(names); i++) {
        lua_getfield(L, 2, names[i]);
        lua_setfield(L, 1, names[i]);
    }
    lua_pop(L, 1);
    lua_setglobal(L, "ours");
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushnil(L);
    lua_setfield(L, -2, LUA_STRLIBNAME); /* else it fills the table that is there */
    lua_pushcfunction(L, luaopen_string);
    lua_pushliteral(L, LUA_STRLIBNAME);
    lua_call(L, 1, 0);
    lua_getglobal(L, "string");
    lua_getfield(L, -1, "find");
    lua_getglobal(L, "ours");
    lua_getfield(L, -1, "find");
    assert_false(lua_rawequal(L, -1, -3));
    lua_settop(L, 0);
    lua_getglobal(L, "string");
    lua_setglobal(L, "stock");
}

/* same(name, ...): the functions of that name give the same results or errors, called as a policy
 * would and called by pcall itself, which shows in what a message begins with. */
#define COMPARE                                                                                    \
    "local function pack(...) return { n = select('#', ...), ... } end\n"                          \
    "local function show(t)\n"                                                                     \
    "  local out = {}\n"                                                                           \
    "  for i = 1, t.n do out[i] = type(t[i]) .. ':' .. tostring(t[i]) end\n"                       \
    "  return table.concat(out, ' ')\n"                                                            \
    "end\n"                                                                                        \
    "local function compare(a, b, ...)\n"                                                          \
    "  a, b = show(a), show(b)\n"                                                                  \
    "  if a ~= b then\n"                                                                           \
    "    local given = show(pack(...))\n"                                                          \
    "    error(('%s\\nours:  %s\\nstock: %s'):format(given:sub(1, 400), a:sub(1, 200),\n"          \
    "      b:sub(1, 200)), 0)\n"                                                                   \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "local strings\n"                                                                              \
    "local function through(name, ...) local r = pack(strings[name](...)) return r end\n"          \
    "local function each(...)\n"                                                                   \
    "  local out = {}\n"                                                                           \
    "  for a, b, c in strings.gmatch(...) do\n"                                                    \
    "    out[#out + 1] = show({ n = 3, a, b, c })\n"                                               \
    "    if #out > 200 then break end\n"                                                           \
    "  end\n"                                                                                      \
    "  return table.concat(out, ';')\n"                                                            \
    "end\n"                                                                                        \
    "local function call(ok, ...)\n"                                                               \
    "  if ok and type((...)) == 'table' then return pack(ok, show((...))) end\n"                   \
    "  return pack(ok, ...)\n"                                                                     \
    "end\n"                                                                                        \
    "local function same(name, ...)\n"                                                             \
    "  strings = ours\n"                                                                           \
    "  local a = name == 'gmatch' and pack(pcall(each, ...)) or call(pcall(through, name, ...))\n" \
    "  local direct = name ~= 'gmatch' and pack(pcall(ours[name], ...)) or pack()\n"               \
    "  strings = stock\n"                                                                          \
    "  local b = name == 'gmatch' and pack(pcall(each, ...)) or call(pcall(through, name, ...))\n" \
    "  compare(a, b, name, ...)\n"                                                                 \
    "  compare(direct, name ~= 'gmatch' and pack(pcall(stock[name], ...)) or pack(), name, ...)\n" \
    "  return a[1]\n"                                                                              \
    "end\n"

static void run_comparison(struct pl_vm *vm, const char *source)
{
    char error[64];
    vm->limits.burst_us = 600 * 1000 * 1000;
    assert_int_equal(pl_vm_call(vm, open_both, NULL, error, sizeof(error)), PL_OK);
    size_t size = strlen(COMPARE) + strlen(source) + 1;
    char *whole = malloc(size);
    assert_non_null(whole);
    snprintf(whole, size, "%s%s", COMPARE, source);
    double count = run_text(vm, whole);
    free(whole);
    assert_true(count >= 1);
}

/** Each message, each argument check, each edge that random patterns do not find. */
static void test_edges_are_those_of_luajit(void **state)
{
    run_comparison(
        *state,
        "local long = ('a'):rep(260)\n"
        "local patterns = { '%', '[a', '[', '[]', '[%', '(', 'a)', ')', '%1', '(%1)', '(a)%2',\n"
        "  '%b', '%bx', '%bxy', '%bxx', '%f', '%fa', '%f[a', '%f[%w]', '%f[%z]', '%f[^a]', '[^',\n"
        "  '[^]', '()%1', '()', '(())', ('('):rep(33), ('()'):rep(32), ('()'):rep(33), '%9', "
        "'%0',\n"
        "  ('a?'):rep(199), ('a?'):rep(200), ('a?'):rep(201), ('(a'):rep(32) .. (')'):rep(32),\n"
        "  ('a-'):rep(210), ('a*'):rep(199), ('a*'):rep(200), ('x?'):rep(300), '[]]', '[^]]',\n"
        "  '[a-]', '[a-b-c]', '[%a-z]', '[a-%%]', '[%-x]', '[-a]', '[]-a]', '[--a]', '%z', '%Z',\n"
        "  '[%z]', '[^%z]', '%@', '%[', '%`', '%{', '%\\0', '[\\0]', 'a\\0b', '\\0', '%b\\0\\1',\n"
        "  '.\\0x', '^', '^^', '^a', 'a^', '$', '$$', 'a$', '$a', '^$', '^()$', '-', '*', '+', "
        "'?',\n"
        "  '**', 'a**', '.-', '.-$', '.*', '^.*$', '(.)%1', '(.-)%1', '((.)%2)', '(a*(.)b)', '',\n"
        "  'a', 'b', 'aaa', ('a'):rep(259), '%g+', '%e', '%é', '\\255', '[\\128-\\255]', 5, 1.5 }\n"
        "local subjects = { '', 'a', 'aab', 'a]b[c', 'THE (quick) fox', 'a\\0b\\0', '\\0', long,\n"
        "  '((a)(b))', '^a^a$', 'a%b', '\\255\\128é', 5, 12.25, 'xyxy', 'a-b-c' }\n"
        "local count = 0\n"
        "for _, p in ipairs(patterns) do\n"
        "  for _, s in ipairs(subjects) do\n"
        "    same('find', s, p) same('match', s, p) same('gmatch', s, p)\n"
        "    for _, r in ipairs({ '<%0>', '%1', '%2', '%', 'x%%', '%x', 7, '%1%1', '\\0' }) do\n"
        "      same('gsub', s, p, r) same('gsub', s, p, r, 1)\n"
        "    end\n"
        "    same('gsub', s, p, function(...) return select('#', ...) end)\n"
        "    same('gsub', s, p, { a = 'A', ['('] = false, [1] = 'one' })\n"
        "    for _, i in ipairs({ -1e9, -3, -1, 0, 1, 2, 3, 4, 260, 261, 262, 1.9, '2', 2^31,\n"
        "      2^32 + 1, -2^40, 1 / 0, -1 / 0 }) do\n"
        "      same('find', s, p, i) same('match', s, p, i) same('find', s, p, i, true)\n"
        "    end\n"
        "    count = count + 1\n"
        "  end\n"
        "end\n"
        "return count");
}

static void test_arguments_are_checked_as_by_luajit(void **state)
{
    run_comparison(
        *state,
        "local object = setmetatable({}, { __index = function(_, k) return k .. k end,\n"
        "  __call = function() return 'x' end, __tostring = function() return 'a' end })\n"
        "local values = { 'abc', 'b', 1, 2.5, true, false, {}, print, object, pcall, '%1', 0 / 0 "
        "}\n"
        "local none = {}\n"
        "values[#values + 1] = none\n"
        "local function value(v) if v == none then return nil end return v end\n"
        "local count = 0\n"
        "for _, name in ipairs({ 'find', 'match', 'gmatch', 'gsub' }) do\n"
        "  same(name)\n"
        "  for _, a in ipairs(values) do\n"
        "    same(name, value(a))\n"
        "    for _, b in ipairs(values) do\n"
        "      same(name, value(a), value(b))\n"
        "      for _, c in ipairs(values) do\n"
        "        same(name, value(a), value(b), value(c))\n"
        "        for _, d in ipairs(values) do\n"
        "          same(name, value(a), value(b), value(c), value(d)) count = count + 1\n"
        "        end\n"
        "      end\n"
        "    end\n"
        "  end\n"
        "end\n"
        "for _, n in ipairs({ -1, 0, 1, 2, 2.9, '1', 2^31, 2^32, 2^33 + 1, 1 / 0, -1 / 0 }) do\n"
        "  same('gsub', 'abc', '', '-', n) same('gsub', 'abcabc', '%w', '<%0>', n)\n"
        "end\n"
        "for _, v in ipairs({ true, {}, print, 'x', 1.25, false, none }) do\n"
        "  same('gsub', 'abc', 'b', function() return value(v) end)\n"
        "  same('gsub', 'abc', '(b)()', { b = value(v) })\n"
        "end\n"
        "same('gsub', 'abc', 'b', object) same('gsub', 'hello', '', object)\n"
        "same('gsub', 'abc', 'b', function() error('mine') end)\n"
        "same('gsub', 'abc', 'b', function() error() end)\n"
        "return count");
}

static void test_an_iterator_ends_as_that_of_luajit(void **state)
{
    run_comparison(
        *state, "for _, p in ipairs({ '.', '', 'x*', '^.', '$', '()', '(', '%' }) do\n"
                "  for _, s in ipairs({ '', 'a', 'axxb' }) do\n"
                "    local a, b = ours.gmatch(s, p), stock.gmatch(s, p)\n"
                "    for i = 1, 9 do compare(pack(pcall(a, i)), pack(pcall(b, i)), s, p, i) end\n"
                "  end\n"
                "end\n"
                "return 1");
}

/** Thousands of them, most valid, over an alphabet that makes them match often. */
static void test_random_patterns_are_matched_as_by_luajit(void **state)
{
    run_comparison(
        *state,
        "math.randomseed(7)\n"
        "local random = math.random\n"
        "local function pick(t) return t[random(#t)] end\n"
        "local letters = { 'a', 'b', 'c', ' ', '(', ')', '1', '.', ']', '\\0', '\\200', 'A', '-' "
        "}\n"
        "local items = { 'a', 'b', 'c', '.', '%a', '%d', '%s', '%w', '%S', '%A', '%p', '%u', "
        "'%z',\n"
        "  '[ab]', '[^a]', '[a-c]', '[%a1]', '[^%s]', '[]a]', '[%]]', ' ', '%.', '%(', '[a-]' }\n"
        "local odd = { '%1', '%2', '%b()', '%bab', '%f[%a]', '%f[^a]', '()', '%', '[', ')', '$',\n"
        "  '^', '(', '%b', '%f', '\\0', '[^' }\n"
        "local repeats = { '', '', '', '', '*', '+', '-', '?' }\n"
        "local function pattern()\n"
        "  local out, open = { random(8) == 1 and '^' or '' }, 0\n"
        "  for _ = 1, random(0, 7) do\n"
        "    local what = random(20)\n"
        "    if what <= 3 then out[#out + 1] = '(' open = open + 1\n"
        "    elseif what <= 6 and open > 0 then out[#out + 1] = ')' open = open - 1\n"
        "    elseif what == 7 then out[#out + 1] = pick(odd)\n"
        "    elseif what == 8 and open == 0 then out[#out + 1] = '%' .. random(2)\n"
        "    else out[#out + 1] = pick(items) .. pick(repeats) end\n"
        "  end\n"
        "  out[#out + 1] = (')'):rep(random(20) == 1 and open - 1 or open)\n"
        "  out[#out + 1] = random(8) == 1 and '$' or ''\n"
        "  return table.concat(out)\n"
        "end\n"
        "local function subject()\n"
        "  local out = {}\n"
        "  for i = 1, random(0, 16) do\n"
        "    out[i] = letters[random(2) == 1 and random(3) or random(#letters)]\n"
        "  end\n"
        "  return table.concat(out)\n"
        "end\n"
        "local tried, fine = 0, 0\n"
        "for _ = 1, 12000 do\n"
        "  local s, p = subject(), pattern()\n"
        "  local init = random(3) == 1 and random(-20, 20) or nil\n"
        "  tried = tried + 1\n"
        "  if same('find', s, p, init) then fine = fine + 1 end\n"
        "  same('match', s, p, init) same('gmatch', s, p) same('gsub', s, p, '<%1%0>')\n"
        "  same('gsub', s, p, function(a, b) return b or a ~= 'a' and a end, random(0, 5))\n"
        "  same('gsub', s, p, { a = 'AA', b = false, [1] = 'one' })\n"
        "  same('find', s, subject(), init, true)\n"
        "end\n"
        "assert(fine > tried / 2, fine)\n"
        "return fine");
}

static void test_long_texts_are_matched_as_by_luajit(void **state)
{
    run_comparison(
        *state,
        "local s = ('lorem ipsum\\n'):rep(20000) .. 'end'\n"
        "for _, p in ipairs({ ('lorem ipsum\\n'):rep(12000) .. 'e', ('\\nlorem ipsum'):rep(9) .. "
        "'x',\n"
        "  ('lorem ipsum\\n'):rep(9000) .. 'x', ('lorem ipsum\\n'):rep(20) .. 'e' }) do\n"
        "  same('find', s, p) same('find', s, p, 1, true)\n"
        "end\n"
        "for _, p in ipairs({ 'end', 'ipsum\\nend', 'x', '%a+$', '^.*(e)nd', '%s+', 'm i', 'e.d',\n"
        "  '%.', '%%', 'm?i', '.-\\n', '%l*' }) do\n"
        "  same('find', s, p) same('find', s, p, 1, true) same('match', s, p, -30)\n"
        "  same('gsub', s, p, '<%0>') same('gsub', s, p, function(w) return w:upper() end)\n"
        "end\n"
        "same('gsub', s, '.', { l = ('L'):rep(40) }) same('gsub', s, '', '-')\n"
        "return 1");
}

/* ---- what would take for ever ---- */

#define TEXT "local s = ('a'):rep(5000)\n"

static const char *const CATASTROPHES[] = {
    TEXT "return s:find('.-.-.-.-.-b')",
    TEXT "return s:match('.*.*.*.*.*b')",
    TEXT "return s:match('(.-)*(.-)(.-)(.-)(.-)b')",
    TEXT "return s:gsub('.-.-.-.-b', 'x')",
    TEXT "for _ in s:gmatch('a-a-a-a-b') do end",
    TEXT "return s:find('a+a+a+a+$b')",
    TEXT "return s:match('(a*)(a*)%1%2%1%2b')",
    TEXT "return s:find(('[%a-z]*'):rep(8) .. 'b')",
    "return ('('):rep(300000):find('%b()')",
    "return ('(' .. ('()'):rep(3000)):find('%b().-%b().-%b().-%b()x')",
    "return ('('):rep(300000):gsub('%b()', 'x')",
    "return ('a'):rep(100000):find('[' .. ('b'):rep(100000) .. ']')",
    "return ('a'):rep(100000):find('%f[' .. ('b'):rep(100000) .. ']')",
    "return ('a'):rep(100000):find('a?[' .. ('b'):rep(100000) .. ']')",
    "local s = ('a'):rep(200000) return (s .. s):find('^(' .. ('a'):rep(100) .. '.-)%1.-%1b')",
    TEXT "while true do s:find('.-.-b') end",
    TEXT "while true do s:find('.-b') end",
    "local s, t = ('a'):rep(1e6), ('a'):rep(5e5) .. 'b' while true do s:find(t, 1, true) end",
    TEXT "while true do pcall(string.find, s, '.-.-.-.-b') end",
    TEXT "while true do pcall(function() return s:find('.-.-.-.-b') end) end",
    TEXT "local t = {} for i = 1, 100 do t[i] = i end\n"
         "table.sort(t, function(a, b) s:find('.-.-.-b') return a < b end)",
    TEXT "local t = {} for i = 1, 100 do t[i] = i end\n"
         "table.sort(t, function(a, b) pcall(s.find, s, '.-.-.-b') return a < b end)",
    TEXT "return s:gsub('a', function() s:find('.-.-.-b') end)",
    TEXT "return s:gsub('a', function() pcall(s.find, s, '.-.-.-b') end)",
    TEXT "return s:gsub('a', function() return (s:gsub('.-.-.-b', '')) end)",
    TEXT "return (s .. ' ' .. ('.-'):rep(5) .. 'b'):gsub('(.*) (.*)', string.find)",
    TEXT "local t = setmetatable({}, { __index = function(_, k) return s:match('.-.-.-b') end })\n"
         "return s:gsub('.', t)",
    "local s = ('a'):rep(3e6) while true do s:gsub('.', '%0') end",
    "local s = ('a'):rep(3e6) while true do s:gsub('.', string.lower) end",
};

/* the same of what is done to tables in C */
static const char *const LONG_WORK[] = {
    "local a, b = ('x'):rep(2e6) .. 'a', ('x'):rep(2e6) .. 'b'\n"
    "local t = {} for i = 1, 2000 do t[i] = i % 2 == 0 and a or b end table.sort(t)",
    "local t = {} for i = 1, 30000 do t[i] = i end while true do table.sort(t) end",
    "local t = {} for i = 1, 30000 do t[i] = i end while true do table.sort(t, rawequal) end",
    "local t = {} for i = 1, 30000 do t[i] = i end while true do table.insert(t, 1, 1) end",
    "local t = {} for i = 1, 30000 do t[i] = '' end while true do table.concat(t) end",
};

static void assert_stopped(struct pl_vm *vm, const char *source, bool in_sandbox)
{
    struct run run = {.source = source, .in_sandbox = in_sandbox};
    char error[512] = "";
    uint64_t start_us = pl_thread_cpu_us();
    if (pl_vm_call(vm, run_source, &run, error, sizeof(error)) == PL_OK)
        fail_msg("%s: was not stopped", source);
    uint64_t used_us = pl_thread_cpu_us() - start_us;
    if (!strstr(error, "the CPU budget of 50 ms is used up"))
        fail_msg("%s: %s", source, error);
    if (used_us < BURST_US || used_us >= 2 * BURST_US)
        fail_msg("%s: took %u us", source, (unsigned)used_us);
    assert_true(vm->overrun);
    assert_true(run_text(vm, "return (('a1'):find('%d'))") == 2);
    assert_false(vm->overrun);
}

static void test_patterns_without_end_are_stopped(void **state)
{
    for (size_t i = 0; i < PL_COUNT(CATASTROPHES); i++) {
        assert_stopped(*state, CATASTROPHES[i], false);
        assert_stopped(*state, CATASTROPHES[i], true);
    }
}

static void test_long_work_on_tables_is_stopped(void **state)
{
    for (size_t i = 0; i < PL_COUNT(LONG_WORK); i++) {
        assert_stopped(*state, LONG_WORK[i], false);
        assert_stopped(*state, LONG_WORK[i], true);
    }
}

static void test_tables_are_sorted_as_before(void **state)
{
    assert_true(
        run_text(*state,
                 "local t = { 3, 1, 2 } table.sort(t) assert(table.concat(t, ',') == '1,2,3')\n"
                 "table.sort(t, function(a, b) return a > b end)\n"
                 "table.insert(t, 2, 9) assert(table.concat(t, ',') == '3,9,2,1')\n"
                 "local function fails(why, f, ...)\n"
                 "  local ok, got = pcall(f, ...) assert(not ok and got:find(why, 1, true), got)\n"
                 "end\n"
                 "fails('table expected, got no value', table.sort)\n"
                 "fails('function expected, got number', table.sort, {}, 1)\n"
                 "fails('attempt to compare', table.sort, { 1, {} })\n"
                 "fails('attempt to compare', table.sort, { 1, 'x' })\n"
                 "fails('number expected, got string', table.insert, {}, 'x', 1)\n"
                 "fails('at index 1', table.concat, { {} })\n"
                 "fails(\"test:14: bad argument #1 to 'insert'\", function()\n"
                 "  table.insert(nil, 1)\n"
                 "end)\n"
                 "return 1") == 1);
}

static void test_the_place_is_named(void **state)
{
    struct pl_vm *vm = *state;
    assert_stopped(vm, "local s = ('a'):rep(5000)\n\npcall(s.find, s, '.-.-.-.-b')\nreturn {}",
                   true);
    assert_string_equal(vm->overrun_at, "policy.lua:3");
}

/** The usual pattern must not cost a system call. */
static void test_short_matches_do_not_look_at_the_clock(void **state)
{
    struct pl_vm *vm = *state;
    run_text(vm,
             "for i = 1, 100 do\n"
             "  local s = 'Bearer sk-abcdef'\n"
             "  assert(s:match('^%s*(%a+)%s+(.-)%s*$') and s:gsub('%-', '_') and s:find('sk'))\n"
             "end");
    assert_int_equal(vm->burst_start_us, 0);
    assert_in_range(vm->patterns.left_count, 1, PL_VM_STEPS_PER_LOOK - 1000);
}

/* ---- callbacks ---- */

static void test_gsub_within_gsub_is_bounded(void **state)
{
    struct pl_vm *vm = *state;
    vm->limits.burst_us = 60 * 1000 * 1000;
    assert_true(run_text(vm, "local depth, deepest = 0, 0\n"
                             "local function f(c)\n"
                             "  depth = depth + 1 deepest = math.max(deepest, depth)\n"
                             "  local r = c:gsub('.', f) depth = depth - 1 return r\n"
                             "end\n"
                             "local ok, why = pcall(f, 'x')\n"
                             "assert(not ok and (why:find('within itself too often', 1, true)\n"
                             "  or why:find('overflow', 1, true)), why)\n"
                             "return deepest") > 100);
    assert_true(run_text(vm,
                         "local function f(n)\n"
                         "  if n == 0 then return 'end' end\n"
                         "  return (('x'):rep(600):gsub('^x', function() return f(n - 1) end))\n"
                         "end\n"
                         "assert(#f(100) == 100 * 599 + 3) return 1") == 1);
}

/** Memory ends at each place within a gsub that calls back; nothing stays behind. */
static void test_gsub_may_run_out_of_memory(void **state)
{
    struct pl_vm *vm = *state;
    struct run run = {.source = "local s = ('ab'):rep(2000)\n"
                                "local r, n = s:gsub('(a)(b)', function(a, b)\n"
                                "  return b .. ('z'):rep(4) .. a .. tostring({}):sub(1, 1)\n"
                                "end)\n"
                                "assert(#r == 14000) return n"};
    char error[256];
    size_t fail_count = 0;
    vm->limits.burst_us = 60 * 1000 * 1000;
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    size_t base_bytes = vm->memory_used_bytes;
    for (size_t more_bytes = 0;; more_bytes += 1009) {
        assert_true(more_bytes < 4000000);
        vm->limits.memory_bytes = base_bytes + more_bytes;
        if (pl_vm_call(vm, run_source, &run, error, sizeof(error)) == PL_OK)
            break;
        assert_string_equal(error, "not enough memory");
        fail_count++;
    }
    assert_true(fail_count > 10 && run.number == 2000);
    vm->limits.memory_bytes = 64 << 20;
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    assert_true(vm->memory_used_bytes < base_bytes + 20000);
}

static void test_strings_reach_them_as_methods(void **state)
{
    assert_true(run_text(*state, "for _, name in ipairs({ 'find', 'match', 'gmatch', 'gsub' }) do\n"
                                 ""
                                 "  assert((('')[name]) == string[name])\n"
                                 "end\n"
                                 "return 1") == 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_edges_are_those_of_luajit),
        TEST(test_arguments_are_checked_as_by_luajit),
        TEST(test_an_iterator_ends_as_that_of_luajit),
        TEST(test_random_patterns_are_matched_as_by_luajit),
        TEST(test_long_texts_are_matched_as_by_luajit),
        TEST(test_patterns_without_end_are_stopped),
        TEST(test_long_work_on_tables_is_stopped),
        TEST(test_tables_are_sorted_as_before),
        TEST(test_the_place_is_named),
        TEST(test_short_matches_do_not_look_at_the_clock),
        TEST(test_gsub_within_gsub_is_bounded),
        TEST(test_gsub_may_run_out_of_memory),
        TEST(test_strings_reach_them_as_methods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
