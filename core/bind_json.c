/*
 * What a Lua value takes as JSON, found out before it is encoded: lua-cjson's buffer grows outside
 * of the VM's memory limit, and the process ends when it cannot. See bind.h.
 */
#include "bind.h"
#include <lauxlib.h>

#define DEPTH_MAX      1000 /* lua-cjson refuses deeper ones by itself */
#define SCALAR_BYTES   8
#define STEPS_PER_ITEM 4

static size_t text_bytes(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TSTRING ? lua_objlen(L, index) + 4 : SCALAR_BYTES;
}

/* Takes what the value on top of the stack needs from `left_bytes`; false when that is not enough.
 * A table that is reached by several ways counts as often. */
static bool take(lua_State *L, size_t *left_bytes, int depth)
{
    size_t bytes = text_bytes(L, -1);
    pl_vm_spend(L, STEPS_PER_ITEM);
    if (bytes > *left_bytes)
        return false;
    *left_bytes -= bytes;
    if (!lua_istable(L, -1) || depth == DEPTH_MAX)
        return true;
    luaL_checkstack(L, 3, "a JSON value");
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        size_t key_bytes = text_bytes(L, -2);
        if (key_bytes > *left_bytes)
            return false;
        *left_bytes -= key_bytes;
        if (!take(L, left_bytes, depth + 1))
            return false;
        lua_pop(L, 1);
    }
    return true;
}

/* json_is_within(value, max_bytes) -> boolean */
static int json_is_within(lua_State *L)
{
    size_t left_bytes = (size_t)luaL_checkinteger(L, 2);
    lua_settop(L, 1);
    lua_pushboolean(L, take(L, &left_bytes, 0));
    return 1;
}

void pl_bind_json(lua_State *L)
{
    lua_pushcfunction(L, json_is_within);
    lua_setfield(L, -2, "json_is_within");
}
