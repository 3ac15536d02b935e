/*
 * Boxes: the objects that Lua holds, and how they are told apart. See bind.h.
 *
 * A class is known by the address of its name, which each of its boxes begins with and under which
 * the registry has its metatable: to check one costs no lookup by name. Policies cannot make
 * userdata of their own, nor change what is in one.
 */
#include "bind.h"
#include <lauxlib.h>

void pl_bind_push_class(lua_State *L, const char *class)
{
    lua_pushlightuserdata(L, (void *)class);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    luaL_newmetatable(L, class);
    lua_pushlightuserdata(L, (void *)class);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

void *pl_bind_push_box(lua_State *L, size_t size, const char *class)
{
    struct pl_bind_box *box = lua_newuserdata(L, size);
    box->class = class;
    pl_bind_push_class(L, class);
    lua_setmetatable(L, -2);
    return box;
}

void *pl_bind_check_box(lua_State *L, int index, const char *class)
{
    if (lua_type(L, index) == LUA_TUSERDATA && lua_objlen(L, index) >= sizeof(struct pl_bind_box)) {
        struct pl_bind_box *box = lua_touserdata(L, index);
        if (box->class == class)
            return box;
    }
    luaL_typerror(L, index, class);
    return NULL;
}

void pl_bind_keep_box(lua_State *L, const void *owner)
{
    lua_pushlightuserdata(L, (void *)owner);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

void *pl_bind_push_kept_box(lua_State *L, const void *owner)
{
    lua_pushlightuserdata(L, (void *)owner);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return lua_touserdata(L, -1);
    lua_pop(L, 1);
    return NULL;
}
