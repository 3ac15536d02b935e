/*
 * Streams that heartbeats have opened, for Lua: what can still be said in them. See bind.h and
 * request_heartbeat.c; who decides is lua/perilune/heartbeat.lua.
 */
#include "bind.h"
#include <lauxlib.h>
#include <stdlib.h>

/* A request of which no answer has been begun. */
static struct pl_request *check_uncommitted(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    if (!self->exchange)
        luaL_error(L, "this request has been answered");
    if (self->committed)
        luaL_error(L, "an answer has been begun already");
    return self;
}

static int check_status(lua_State *L, int index)
{
    int status = luaL_checkint(L, index);
    luaL_argcheck(L, status >= 200 && status <= 599, index, "a status is within 200..599");
    return status;
}

/* can_relay(req, res): whether it can follow what the client has had, see request_heartbeat.c */
static int can_relay(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    if (self->at_seam) { /* what cannot go on there is refused there */
        lua_pushboolean(L, 1);
        return 1;
    }
    self = check_uncommitted(L);
    const struct pl_response *response = &self->current->response;
    pl_bind_check_response(L, 2, self);
    bool is_stream = response->is_sse && response->status < 300;
    lua_pushboolean(L, !self->stream_is_open || is_stream);
    return 1;
}

/* stream_is_open(req): heartbeats have begun a stream of events, and the answer is a part of it */
static int stream_is_open(lua_State *L)
{
    const struct pl_request *self = pl_bind_check_request(L, 1);
    lua_pushboolean(L, self->stream_is_open && !self->committed);
    return 1;
}

static struct pl_request *check_stream(lua_State *L)
{
    struct pl_request *self = check_uncommitted(L);
    if (!self->stream_is_open)
        luaL_error(L, "no stream is open");
    return self;
}

/* end_stream(req, status, bytes): ends the open stream with these events. */
static int end_stream(lua_State *L)
{
    struct pl_request *self = check_stream(L);
    int status = check_status(L, 2);
    size_t len;
    const char *data = luaL_checklstring(L, 3, &len);
    pl_request_drop_answer(self);
    pl_request_end_stream(self, status, data, len);
    lua_pushboolean(L, 1);
    return 1;
}

/* fail_as(req, status, json, is_relayed): ends it with an error in the words of whoever wrote this
 * body; is_relayed: the target of the last try did. */
static int fail_as(lua_State *L)
{
    struct pl_request *self = check_stream(L);
    int status = check_status(L, 2);
    struct pl_str json;
    json.data = luaL_checklstring(L, 3, &json.len);
    size_t len;
    char *event = pl_client_error_wrap(self->dialect, json, &len);
    self->served_by = lua_toboolean(L, 4) ? self->current->target : NULL;
    pl_request_drop_answer(self);
    pl_request_end_stream(self, status, event, len);
    free(event);
    lua_pushboolean(L, 1);
    return 1;
}

void pl_bind_stream(lua_State *L)
{
    static const luaL_Reg functions[] = {{"can_relay", can_relay},
                                         {"stream_is_open", stream_is_open},
                                         {"end_stream", end_stream},
                                         {"fail_as", fail_as},
                                         {NULL, NULL}};
    luaL_register(L, NULL, functions);
}
