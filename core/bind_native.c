/*
 * perilune.native: clocks, random numbers, the log, and the classes, for library code. See bind.h.
 */
#include "bind.h"
#include "log.h"
#include "vm_globals.h"
#include <lauxlib.h>
#include <stdlib.h>

#define LOAD_LOG_LINES_MAX 100

struct pl_generation *pl_bind_generation(lua_State *L)
{
    return pl_vm_of(L)->user;
}

static int now_ms(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)pl_now_us() / 1000.0);
    return 1;
}

static int now_wall_ms(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)pl_now_wall_ms());
    return 1;
}

/* random() -> [0, 1); random(n) -> 1..n */
static int random_number(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_pushnumber(L, pl_random_unit());
        return 1;
    }
    lua_Number n = luaL_checknumber(L, 1);
    luaL_argcheck(L, n >= 1 && n <= 9007199254740992.0, 1, "must be at least 1");
    lua_pushnumber(L, 1 + (lua_Number)(pl_random_u64() % (uint64_t)n));
    return 1;
}

/* While files are checked or loaded nobody counts per request. */
static bool may_log(lua_State *L)
{
    struct pl_generation *generation = pl_bind_generation(L);
    struct pl_runtime *runtime = generation ? generation->runtime : NULL;
    if (runtime && runtime->running)
        return pl_bind_may_log(runtime->running);
    return pl_vm_of(L)->log_line_count++ < LOAD_LOG_LINES_MAX;
}

static int log_text(lua_State *L)
{
    int level = pl_log_level_from_name(luaL_checkstring(L, 1));
    luaL_argcheck(L, level >= 0, 1, "error, warn, info or debug");
    const char *text = luaL_checkstring(L, 2);
    if (may_log(L))
        pl_log((enum pl_log_level)level, "%s", text);
    return 0;
}

/* json_validate(text) -> true | nil, message */
static int json_validate(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    if (pl_json_validate(text, len) == PL_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushliteral(L, "not valid JSON");
    return 2;
}

/* The most that a text may take once it is decoded: tables double as they grow, the old part beside
 * the new. What lies within strings is counted too, which errs on the safe side. */
static size_t decoded_bytes_max(const char *text, size_t len)
{
    static const uint8_t cost_bytes[256] = {
        ['['] = 128, ['{'] = 128, [','] = 40, [':'] = 80, ['"'] = 32};
    size_t sum_bytes = len;
    for (size_t i = 0; i < len; i++)
        sum_bytes += cost_bytes[(uint8_t)text[i]];
    return sum_bytes;
}

static size_t room_bytes(const struct pl_vm *vm)
{
    return vm->limits.memory_bytes - PL_MIN(vm->limits.memory_bytes, vm->memory_used_bytes);
}

/* json_fits(text): whether there is memory to decode it. cjson must not run out of it: an error for
 * want of memory leaves its own buffer behind, which is as long as the text. */
static int json_fits(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    const struct pl_vm *vm = pl_vm_of(L);
    size_t need_bytes = decoded_bytes_max(text, len);
    if (need_bytes > room_bytes(vm))
        lua_gc(L, LUA_GCCOLLECT, 0);
    lua_pushboolean(L, need_bytes <= room_bytes(vm));
    return 1;
}

/* load_policy(source, name): the policy's chunk, in its sandbox. */
static int load_policy(lua_State *L)
{
    size_t len;
    const char *source = luaL_checklstring(L, 1, &len);
    pl_vm_load_policy(L, source, len, luaL_checkstring(L, 2));
    return 1;
}

/* globals(source) -> list of { name, line, is_set }, see vm_globals.h */
static int globals(lua_State *L)
{
    size_t len;
    const char *source = luaL_checklstring(L, 1, &len);
    pl_vm_push_globals(L, source, len);
    return 1;
}

/* run_file(chunk) -> what it returns first; through C, so that nothing can wait in it. */
static int run_file(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_call(L, 0, 1);
    return 1;
}

/* burst(): differs between two entries into Lua. */
static int burst(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)pl_vm_of(L)->burst_count);
    return 1;
}

/* targets(): the array of target objects. */
static int targets(lua_State *L)
{
    pl_bind_make_targets(L, pl_bind_generation(L));
    return 1;
}

static int get_environment(lua_State *L)
{
    lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
    return 1;
}

static int native_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"now_ms", now_ms},
                                         {"getenv", get_environment},
                                         {"now_wall_ms", now_wall_ms},
                                         {"random", random_number},
                                         {"log", log_text},
                                         {"json_validate", json_validate},
                                         {"load_policy", load_policy},
                                         {"run_file", run_file},
                                         {"burst", burst},
                                         {"targets", targets},
                                         {"json_fits", json_fits},
                                         {"globals", globals},
                                         {NULL, NULL}};
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    pl_bind_target(L);
    pl_bind_response(L);
    pl_bind_request(L);
    pl_bind_stream(L);
    pl_bind_health(L);
    pl_bind_hedge(L);
    pl_bind_json(L);
    pl_bind_explain(L);
    return 1;
}

int luaopen_cjson(lua_State *L);
int luaopen_cjson_safe(lua_State *L);

struct pl_vm *pl_bind_vm_new(const struct pl_vm_limits *limits, struct pl_generation *generation)
{
    struct pl_vm *vm = pl_vm_new(limits);
    if (!vm)
        return NULL;
    vm->user = generation;
    pl_vm_preload(vm, "perilune.native", native_open);
    pl_vm_preload(vm, "cjson", luaopen_cjson);
    pl_vm_preload(vm, "cjson.safe", luaopen_cjson_safe);
    return vm;
}
