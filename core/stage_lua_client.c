/*
 * Clients as specs see them. See stage_lua.h.
 */
#include "stage_lua_internal.h"

int pl_stage_lua_start_client(lua_State *L)
{
    struct world *self = pl_stage_lua_check_world_at_rest(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct pl_stage_request request = {.method = pl_stage_lua_field_str(L, 2, "method"),
                                       .target = pl_stage_lua_field_str(L, 2, "target"),
                                       .body = pl_stage_lua_field_str(L, 2, "body"),
                                       .peer = pl_stage_lua_field_str(L, 2, "peer"),
                                       .headers = &self->headers};
    struct pl_stage_client **box = lua_newuserdata(L, sizeof(struct pl_stage_client *));
    *box = NULL;
    luaL_getmetatable(L, PL_STAGE_CLIENT_CLASS);
    lua_setmetatable(L, -2);
    lua_createtable(L, 1, 0); /* keeps the world while the client is held */
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    int client = lua_gettop(L);
    pl_headers_clear(&self->headers);
    pl_stage_lua_read_headers(L, 2, &self->headers);
    pl_stage_lua_begin(self, L, 1);
    *box = pl_stage_start(self->stage, &request);
    pl_stage_lua_finish(self, L);
    lua_pushvalue(L, client);
    return 1;
}

static void push_headers(lua_State *L, const struct pl_headers *headers)
{
    lua_createtable(L, (int)headers->count, 0);
    for (size_t i = 0; i < headers->count; i++) {
        struct pl_str name = pl_headers_name(headers, i), value = pl_headers_value(headers, i);
        lua_createtable(L, 2, 0);
        lua_pushlstring(L, name.data, name.len);
        lua_rawseti(L, -2, 1);
        lua_pushlstring(L, value.data, value.len);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static struct pl_stage_client *check_client(lua_State *L)
{
    return *(struct pl_stage_client **)luaL_checkudata(L, 1, PL_STAGE_CLIENT_CLASS);
}

int pl_stage_lua_free_client(lua_State *L)
{
    struct pl_stage_client **box = luaL_checkudata(L, 1, PL_STAGE_CLIENT_CLASS);
    pl_stage_client_free(*box);
    *box = NULL;
    return 0;
}

static void push_time(lua_State *L, bool known, uint64_t us, const char *key)
{
    if (known)
        lua_pushnumber(L, (lua_Number)us / 1000);
    else
        lua_pushnil(L);
    lua_setfield(L, -2, key);
}

/* look(client) -> { ended, status, started_ms, first_byte_ms, ended_ms } */
static int client_look(lua_State *L)
{
    static const char *const ends[] = {[PL_STAGE_OPEN] = "open",
                                       [PL_STAGE_COMPLETE] = "complete",
                                       [PL_STAGE_BROKEN] = "cut",
                                       [PL_STAGE_RESET] = "reset",
                                       [PL_STAGE_LEFT] = "left"};
    const struct pl_stage_client *self = check_client(L);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, ends[self->end]);
    lua_setfield(L, -2, "ended");
    if (self->begun) {
        lua_pushinteger(L, self->status);
        lua_setfield(L, -2, "status");
    }
    push_time(L, true, self->started_us, "started_ms");
    push_time(L, self->begun, self->first_byte_us, "first_byte_ms");
    push_time(L, self->end != PL_STAGE_OPEN, self->ended_us, "ended_ms");
    return 1;
}

static int client_headers(lua_State *L)
{
    push_headers(L, &check_client(L)->headers);
    return 1;
}

static int client_body(lua_State *L)
{
    const struct pl_stage_client *self = check_client(L);
    lua_pushlstring(L, self->body ? self->body : "", self->body_len);
    return 1;
}

static int client_waits_for(lua_State *L)
{
    lua_pushstring(L, pl_stage_waits_for(check_client(L)));
    return 1;
}

static int client_leave(lua_State *L)
{
    struct pl_stage_client *self = check_client(L);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, 1);
    struct world *world = pl_stage_lua_check_world_at_rest(L, lua_gettop(L));
    pl_stage_lua_begin(world, L, lua_gettop(L));
    pl_stage_leave(self);
    pl_stage_lua_finish(world, L);
    return 0;
}

const luaL_Reg pl_stage_lua_client_methods[] = {
    {"look", client_look},           {"headers", client_headers}, {"body", client_body},
    {"waits_for", client_waits_for}, {"leave", client_leave},     {NULL, NULL}};
