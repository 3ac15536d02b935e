/*
 * Targets as Lua sees them: read-only objects, one per target and VM, so that they compare by
 * identity and can be table keys. See bind.h.
 */
#include "bind.h"
#include <lauxlib.h>
#include <string.h>

static const char TARGET_CLASS[] = "perilune.target";

struct box {
    struct pl_bind_box head;
    const struct pl_target *target;
};

const struct pl_target *pl_bind_check_target(lua_State *L, int index)
{
    const struct box *box = pl_bind_check_box(L, index, TARGET_CLASS);
    return box->target;
}

void pl_bind_push_target(lua_State *L, struct pl_generation *generation,
                         const struct pl_target *target)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, generation->targets_ref);
    lua_rawgeti(L, -1, (int)(target - generation->topology->targets) + 1);
    lua_remove(L, -2);
}

static int target_index(lua_State *L)
{
    const char *key = luaL_checkstring(L, 2);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1)); /* the methods */
    if (!lua_isnil(L, -1))
        return 1;
    const struct pl_target *self = pl_bind_check_target(L, 1);
    const struct pl_topology *topology = pl_bind_generation(L)->topology;
    if (strcmp(key, "name") == 0)
        lua_pushstring(L, self->name);
    else if (strcmp(key, "model") == 0)
        self->model ? lua_pushstring(L, self->model) : lua_pushnil(L);
    else if (strcmp(key, "provider") == 0)
        lua_pushstring(L, topology->providers[self->provider_index].name);
    else if (strcmp(key, "priority") == 0)
        lua_pushinteger(L, self->priority);
    else if (strcmp(key, "weight") == 0)
        lua_pushnumber(L, self->weight);
    else if (strcmp(key, "context_tokens") == 0)
        self->context_tokens > 0 ? lua_pushnumber(L, self->context_tokens) : lua_pushnil(L);
    else if (strcmp(key, "index") == 0)
        lua_pushinteger(L, self - topology->targets + 1);
    else
        return luaL_error(L, "a target has no field '%s'", key);
    return 1;
}

static int target_newindex(lua_State *L)
{
    return luaL_error(L, "a target's fields cannot be set");
}

static int target_tostring(lua_State *L)
{
    lua_pushfstring(L, "target %s", pl_bind_check_target(L, 1)->name);
    return 1;
}

void pl_bind_target(lua_State *L)
{
    pl_bind_push_class(L, TARGET_CLASS);
    static const luaL_Reg methods[] = {
        {"__newindex", target_newindex}, {"__tostring", target_tostring}, {NULL, NULL}};
    luaL_register(L, NULL, methods);
    lua_newtable(L); /* native.target_methods, completed by perilune.boot */
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, target_index, 1);
    lua_setfield(L, -3, "__index");
    lua_setfield(L, -3, "target_methods");
    lua_pushliteral(L, "locked");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void pl_bind_make_targets(lua_State *L, struct pl_generation *generation)
{
    const struct pl_topology *topology = generation->topology;
    lua_createtable(L, (int)topology->target_count, 0);
    for (size_t i = 0; i < topology->target_count; i++) {
        struct box *box = pl_bind_push_box(L, sizeof(*box), TARGET_CLASS);
        box->target = &topology->targets[i];
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_pushvalue(L, -1);
    generation->targets_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}
