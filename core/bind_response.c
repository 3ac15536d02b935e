/*
 * An upstream's answer as Lua sees it: status, headers, target, head_ms, and its body. An answer is
 * live until the next send; afterwards its fields raise an error. See bind.h.
 */
#include "bind.h"
#include "keys.h"
#include <lauxlib.h>
#include <string.h>

static const char RESPONSE_CLASS[] = "perilune.response";
static const char HEADERS_CLASS[] = "perilune.response.headers";

struct box {
    struct pl_bind_box head;
    struct pl_request *request;
    uint64_t request_serial;
    uint32_t response_serial;
};

static bool is_live(const struct box *box)
{
    const struct pl_try *try = box->request->current;
    return box->request->serial == box->request_serial &&
           try->response.serial == box->response_serial && try->response.live && try->is_judged;
}

static struct pl_request *check(lua_State *L, int index, const char *class)
{
    struct box *box = pl_bind_check_box(L, index, class);
    if (!is_live(box))
        luaL_error(L, "this answer was dropped by a later send, or its request has ended");
    if (box->request->runtime->running != box->request)
        luaL_error(L, "this answer belongs to another run of the policy");
    return box->request;
}

static void push_box(lua_State *L, struct pl_request *request, const char *class)
{
    struct box *box = pl_bind_push_box(L, sizeof(*box), class);
    box->request = request;
    box->request_serial = request->serial;
    box->response_serial = request->current->response.serial;
}

/* An answer has one object, however often it is asked for. */
void pl_bind_push_response(lua_State *L, struct pl_request *request)
{
    if (!request->current->response.live) {
        lua_pushnil(L);
        return;
    }
    const struct box *kept = pl_bind_push_kept_box(L, &request->current);
    if (kept && is_live(kept))
        return;
    if (kept)
        lua_pop(L, 1);
    push_box(L, request, RESPONSE_CLASS);
    pl_bind_keep_box(L, &request->current);
}

void pl_bind_check_response(lua_State *L, int index, struct pl_request *request)
{
    if (check(L, index, RESPONSE_CLASS) != request)
        luaL_error(L, "this answer belongs to another request");
}

/* Whether any header may say how long to wait: Lua need not ask for each of them by name. */
static bool has_header_hint(const struct pl_headers *headers)
{
    static const struct pl_str starts[] = {
        {"retry-after", 11}, {"x-ms-retry-after", 16}, {"x-ratelimit-reset", 17}};
    for (size_t i = 0; i < headers->count; i++) {
        struct pl_str name = pl_headers_name(headers, i);
        for (size_t j = 0; j < PL_COUNT(starts); j++) {
            if (name.len >= starts[j].len &&
                pl_str_equal_nocase((struct pl_str){name.data, starts[j].len}, starts[j]))
                return true;
        }
    }
    return false;
}

/* Gemini says it in the body: google.rpc.RetryInfo. */
static bool has_body_hint(const struct pl_response *self)
{
    static const char key[] = "\"retryDelay\"";
    size_t len = self->held ? evbuffer_get_length(self->held) : 0;
    if ((self->status != 429 && self->status != 503) || len == 0)
        return false;
    struct evbuffer_ptr at = evbuffer_search(self->held, key, sizeof(key) - 1, NULL);
    return at.pos >= 0;
}

static bool has_wait_hint(const struct pl_response *self)
{
    return has_header_hint(&self->headers) || has_body_hint(self);
}

static void push_work(lua_State *L, const struct pl_try *try)
{
    const struct pl_trail_entry *entry = pl_try_entry(try);
    entry && entry->work ? lua_pushstring(L, pl_work_name(entry->work)) : lua_pushnil(L);
}

static int response_index(lua_State *L)
{
    const char *key = luaL_checkstring(L, 2);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1)); /* the methods */
    if (!lua_isnil(L, -1))
        return 1;
    struct pl_request *request = check(L, 1, RESPONSE_CLASS);
    const struct pl_response *self = &request->current->response;
    if (strcmp(key, "status") == 0)
        lua_pushinteger(L, self->status);
    else if (strcmp(key, "headers") == 0)
        push_box(L, request, HEADERS_CLASS);
    else if (strcmp(key, "target") == 0)
        pl_bind_push_target(L, request->generation, request->current->target);
    else if (strcmp(key, "has_wait_hint") == 0)
        lua_pushboolean(L, has_wait_hint(self));
    else if (strcmp(key, "work") == 0)
        push_work(L, request->current);
    else if (strcmp(key, "head_ms") == 0)
        lua_pushinteger(L, self->head_ms);
    else
        return luaL_error(L, "an answer has no field '%s'", key);
    return 1;
}

static int read_only(lua_State *L)
{
    return luaL_error(L, "an answer's fields cannot be set");
}

static int headers_index(lua_State *L)
{
    const struct pl_request *request = check(L, 1, HEADERS_CLASS);
    struct pl_str name, value;
    name.data = luaL_checklstring(L, 2, &name.len);
    if (pl_headers_get(&request->current->response.headers, name, &value))
        lua_pushlstring(L, value.data, value.len);
    else
        lua_pushnil(L);
    return 1;
}

/* collect_begin(res): reads the body to its end; yields while it is not there. */
static int collect_begin(lua_State *L)
{
    struct pl_request *request = check(L, 1, RESPONSE_CLASS);
    if (request->current->response.intake == PL_INTAKE_RELAYING)
        return luaL_error(L, "the answer is being relayed");
    if (request->current->response.status >= 400 || !request->current->attempt)
        return 0;
    pl_bind_check_yieldable(L);
    if (pl_request_collect(request))
        return 0;
    request->wait = PL_WAIT_BODY;
    return pl_coroutine_yield(&request->coroutine, L, "the body of an answer");
}

/* collect_result(res): the body, or nil, "too_large" | failure class. */
static int collect_result(lua_State *L)
{
    struct pl_request *request = check(L, 1, RESPONSE_CLASS);
    struct pl_response *self = &request->current->response;
    size_t len = self->held ? evbuffer_get_length(self->held) : 0;
    const char *failed = NULL;
    if (self->status < 400 && len > PL_COLLECT_MAX_BYTES)
        failed = "too_large";
    else if (self->status < 400 && self->failure != PL_FAIL_NONE)
        failed = pl_failure_name(self->failure);
    if (failed) {
        lua_pushnil(L);
        lua_pushstring(L, failed);
        return 2;
    }
    if (self->status >= 400) /* however much has come at once */
        len = PL_MIN(len, (size_t)PL_HELD_MAX_BYTES);
    if (len == 0)
        lua_pushliteral(L, "");
    else
        lua_pushlstring(L, (const char *)evbuffer_pullup(self->held, (ev_ssize_t)len), len);
    return 1;
}

static void make_class(lua_State *L, const char *name, lua_CFunction newindex)
{
    pl_bind_push_class(L, name);
    lua_pushcfunction(L, newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushliteral(L, "locked");
    lua_setfield(L, -2, "__metatable");
}

/* classed(class): what the last answer's body says of it, which its status alone does not. */
static int classed(lua_State *L)
{
    const struct pl_generation *generation = pl_bind_generation(L);
    struct pl_request *self = generation->runtime ? generation->runtime->running : NULL;
    size_t len;
    const char *name = luaL_checklstring(L, 1, &len);
    struct pl_trail_entry *entry = self ? pl_try_entry(self->current) : NULL;
    if (entry && entry->status != 0)
        entry->class = pl_class_from_name((struct pl_str){name, len});
    return 0;
}

/* last_try() -> which try of the request it was, the index of its target, class, status | nil,
 * whether that target can be had with another key at once; nothing before the first */
static int last_try(lua_State *L)
{
    const struct pl_request *self = pl_bind_running_request(L);
    if (self->trail_count == 0)
        return 0;
    const struct pl_trail_entry *entry = &self->trail[self->trail_count - 1];
    lua_pushinteger(L, (lua_Integer)self->trail_count);
    lua_pushinteger(L, entry->target - self->generation->topology->targets + 1);
    lua_pushstring(L, pl_class_name(entry->class));
    entry->status > 0 ? lua_pushinteger(L, entry->status) : lua_pushnil(L);
    const struct pl_topology *topology = self->generation->topology;
    lua_pushboolean(L, self->current->key_is_marked &&
                           pl_keys_any_fit(&topology->providers[entry->target->provider_index],
                                           topology->health, pl_last_now_ms()));
    return 5;
}

/* last_work() -> what became of the work of the last try, when it failed; nil otherwise */
static int last_work(lua_State *L)
{
    const struct pl_request *self = pl_bind_running_request(L);
    const struct pl_trail_entry *entry = pl_try_entry(self->current);
    if (!entry && self->trail_count > 0)
        entry = &self->trail[self->trail_count - 1];
    if (!entry || entry->work == PL_WORK_NONE)
        return 0;
    lua_pushstring(L, pl_work_name(entry->work));
    return 1;
}

void pl_bind_response(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"collect_begin", collect_begin}, {"collect_result", collect_result}, {"classed", classed},
        {"last_try", last_try},           {"last_work", last_work},           {NULL, NULL}};
    luaL_register(L, NULL, functions);

    make_class(L, HEADERS_CLASS, read_only);
    lua_pushcfunction(L, headers_index);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);

    make_class(L, RESPONSE_CLASS, read_only);
    lua_newtable(L); /* native.response_methods, completed by perilune.boot */
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, response_index, 1);
    lua_setfield(L, -3, "__index");
    lua_setfield(L, -3, "response_methods");
    lua_pop(L, 1);
}
