/*
 * Upstreams' answers as specs give them, and how their tables are read. See stage_lua.h.
 */
#include "stage_lua_internal.h"
#include <string.h>

/* ---- reading tables ---- */

uint64_t pl_stage_lua_check_us(lua_State *L, int index)
{
    lua_Number ms = luaL_checknumber(L, index);
    luaL_argcheck(L, ms >= 0 && ms <= 1e12, index, "out of range");
    return (uint64_t)(ms * 1000 + 0.5);
}

static uint64_t field_us(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    uint64_t us = lua_isnil(L, -1) ? 0 : pl_stage_lua_check_us(L, lua_gettop(L));
    lua_pop(L, 1);
    return us;
}

/* The text stays on the stack. */
struct pl_str pl_stage_lua_field_str(lua_State *L, int index, const char *key)
{
    struct pl_str text = {"", 0};
    lua_getfield(L, index, key);
    if (!lua_isnil(L, -1))
        text.data = luaL_checklstring(L, lua_gettop(L), &text.len);
    return text;
}

static bool field_boolean(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* { { name, value }, ... } */
void pl_stage_lua_read_headers(lua_State *L, int index, struct pl_headers *out)
{
    lua_getfield(L, index, "headers");
    for (int i = 1; lua_istable(L, -1) && i <= (int)lua_objlen(L, -1); i++) {
        struct pl_str name, value;
        lua_rawgeti(L, -1, i);
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        name.data = luaL_checklstring(L, -2, &name.len);
        value.data = luaL_checklstring(L, -1, &value.len);
        if (pl_headers_add(out, name, value) != PL_OK)
            luaL_error(L, "the header '%s' has an invalid name or value", name.data);
        lua_pop(L, 3);
    }
    lua_pop(L, 1);
}

/* ---- answers ---- */

static enum pl_failure failure_of(lua_State *L, const char *name)
{
    for (int failure = PL_FAIL_DNS; failure <= PL_FAIL_EMPTY; failure++) {
        if (strcmp(pl_failure_name((enum pl_failure)failure), name) == 0)
            return (enum pl_failure)failure;
    }
    luaL_error(L, "there is no failure '%s'", name);
    return PL_FAIL_NONE;
}

/* { { after_ms, text }, ... } */
static void read_pieces(lua_State *L, int index, struct pl_stage_answer *self)
{
    lua_getfield(L, index, "pieces");
    for (int i = 1; lua_istable(L, -1) && i <= (int)lua_objlen(L, -1); i++) {
        size_t len;
        lua_rawgeti(L, -1, i);
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        const char *data = luaL_checklstring(L, -1, &len);
        pl_stage_answer_add(self, pl_stage_lua_check_us(L, lua_gettop(L) - 1), data, len);
        lua_pop(L, 3);
    }
    lua_pop(L, 1);
}

int pl_stage_lua_new_answer(lua_State *L)
{
    static const char *const endings[] = {"whole", "cut", "stall", NULL};
    luaL_checktype(L, 1, LUA_TTABLE);
    struct pl_stage_answer **box = lua_newuserdata(L, sizeof(struct pl_stage_answer *));
    struct pl_stage_answer *self = *box = pl_stage_answer_new();
    luaL_getmetatable(L, PL_STAGE_ANSWER_CLASS);
    lua_setmetatable(L, -2);
    lua_getfield(L, 1, "failure");
    if (!lua_isnil(L, -1))
        self->failure = failure_of(L, luaL_checkstring(L, -1));
    lua_getfield(L, 1, "status");
    self->status = luaL_optint(L, -1, 200);
    lua_getfield(L, 1, "ending");
    self->ending = (enum pl_stage_ending)luaL_checkoption(L, lua_gettop(L), "whole", endings);
    lua_pop(L, 3);
    lua_getfield(L, 1, "length_bytes");
    self->length_bytes = (uint64_t)luaL_optnumber(L, -1, 0);
    lua_pop(L, 1);
    self->hangs = field_boolean(L, 1, "hangs");
    self->chunked = field_boolean(L, 1, "chunked");
    self->head_after_us = field_us(L, 1, "after_ms");
    self->end_after_us = field_us(L, 1, "end_after_ms");
    pl_stage_lua_read_headers(L, 1, &self->headers);
    read_pieces(L, 1, self);
    return 1;
}

int pl_stage_lua_free_answer(lua_State *L)
{
    struct pl_stage_answer **box = luaL_checkudata(L, 1, PL_STAGE_ANSWER_CLASS);
    pl_stage_answer_unref(*box);
    *box = NULL;
    return 0;
}
