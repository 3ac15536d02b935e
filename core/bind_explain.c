/*
 * What perilune.explain asks of the core: looks at targets, without a request and without any
 * effect, and what a target's upstream request would be. See bind.h.
 */
#include "bind.h"
#include "keys.h"
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

static void put_number(lua_State *L, const char *key, lua_Number value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, key);
}

static void put_boolean(lua_State *L, const char *key, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, key);
}

static void put_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

/* How long it is out, when that is known. */
static void put_out_for(lua_State *L, const char *key, const struct pl_health_view *view,
                        uint64_t now_ms)
{
    if (view->until_ms > now_ms && view->until_ms != UINT64_MAX)
        put_number(L, key, (lua_Number)(view->until_ms - now_ms));
}

static void put_target(lua_State *L, const struct pl_topology *topology,
                       const struct pl_target *target)
{
    struct pl_health_view view;
    uint64_t now_ms = pl_now_ms();
    pl_health_look(topology->health, target->slot, now_ms, &view);
    put_boolean(L, "fit", pl_health_is_fit(topology->health, target->slot, now_ms));
    put_string(L, "state", pl_health_state_name(view.state));
    put_string(L, "reason", pl_health_reason_name(view.reason));
    put_out_for(L, "out_for_ms", &view, now_ms);
    put_boolean(L, "probe_in_flight", view.probe_in_flight);
    put_number(L, "in_flight", (lua_Number)view.in_flight);
    put_number(L, "ramp", view.ramp_ratio);
    put_number(L, "max_in_flight", target->max_in_flight);
    put_number(L, "queue_count", target->queue_count);
    put_number(L, "queue_ms", target->queue_ms);
    put_number(L, "queued",
               pl_gauge_queued(topology->gauge, (uint32_t)(target - topology->targets)));
}

static void put_provider(lua_State *L, const struct pl_topology *topology,
                         const struct pl_provider *provider)
{
    struct pl_health_view view;
    uint64_t now_ms = pl_now_ms();
    put_boolean(L, "provider_fit",
                pl_keys_look_at_provider(provider, topology->health, now_ms, &view));
    put_string(L, "provider_state", pl_health_state_name(view.state));
    put_string(L, "provider_reason", pl_health_reason_name(view.reason));
    put_out_for(L, "provider_out_for_ms", &view, now_ms);
}

/* look(target) -> table */
static int look(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    const struct pl_topology *topology = pl_bind_generation(L)->topology;
    lua_createtable(L, 0, 16);
    put_target(L, topology, target);
    put_provider(L, topology, &topology->providers[target->provider_index]);
    return 1;
}

/* The spliced body on the stack; nil and why when it is no JSON object. May raise an error for want
 * of memory: what it holds then is small and lost. */
static int push_body(lua_State *L, const struct pl_target *target, const char *text, size_t len)
{
    struct pl_json json;
    struct pl_json_splice splice;
    struct pl_json_edit *edits = lua_newuserdata(L, (target->edit_count + 1) * sizeof(*edits));
    pl_json_init(&json);
    pl_json_splice_init(&splice);
    int rc = pl_json_scan(&json, text, len);
    if (rc == PL_OK)
        rc = pl_json_splice_make(&splice, &json, edits, pl_forward_edits(target, edits));
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (size_t i = 0; rc == PL_OK && i < splice.count; i++)
        luaL_addlstring(&buffer, splice.pieces[i].iov_base, splice.pieces[i].iov_len);
    luaL_pushresult(&buffer);
    pl_json_splice_deinit(&splice);
    pl_json_deinit(&json);
    if (rc == PL_OK)
        return 1;
    lua_pushnil(L);
    lua_pushliteral(L, "the body is not a JSON object that can be changed");
    return 2;
}

/* preview(target, path, body) -> URL, body as this target would get it | nil, why. An empty body
 * stays empty. */
static int preview(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    const struct pl_provider *provider =
        &pl_bind_generation(L)->topology->providers[target->provider_index];
    struct pl_str path, body;
    path.data = luaL_checklstring(L, 2, &path.len);
    body.data = luaL_checklstring(L, 3, &body.len);
    path = pl_forward_path(path);
    lua_pushfstring(L, "%s://%s%s", provider->endpoint.tls ? "https" : "http",
                    provider->host_header, provider->base_path);
    lua_pushlstring(L, path.data, path.len);
    lua_concat(L, 2);
    if (body.len == 0)
        return 1;
    int url = lua_gettop(L), count = push_body(L, target, body.data, body.len);
    lua_pushvalue(L, url);
    lua_insert(L, -count - 1);
    return count + 1;
}

void pl_bind_explain(lua_State *L)
{
    static const luaL_Reg functions[] = {{"look", look}, {"preview", preview}, {NULL, NULL}};
    luaL_register(L, NULL, functions);
}
