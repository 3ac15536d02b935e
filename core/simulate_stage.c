/*
 * perilune.simulate.stage: see simulate.h. A stage for many requests: no object per client or
 * answer, numbers instead of tables where it can be.
 *
 *   stage.new{ directory, seed, start_wall_ms, on_call, on_call_end, on_client_end, on_check }
 *       -> world | nil, problems
 *   world:start(headers, body, patience_ms | nil, path | nil) -> the client's number, from 1 on
 *   world:run(until_ms | nil) -> "time" | "idle" | "stuck"
 *   world:targets(), world:providers() -> names;  world:ejections() -> name -> how often it was out
 *   world:faults() -> kind -> count, of policies' failures; how many requests the floor served
 *   world:log() -> its first error lines;  world:close()
 *
 *   on_call(number, client, target, provider, at_ms, max_tokens | nil) -> plan, see
 *       perilune.simulate.faults, with `stream`; client 0: one that has its answer already
 *   on_call_end(number, ended_ms, outcome): "ok", a failure's class, "cancelled"
 *   on_check(provider, at_ms, timeout_ms) -> the status of its answer, 0 for none
 *   on_client_end(number, ended, status, first_byte_ms | nil, ended_ms, text | nil): text of an
 *       error, its first bytes
 *
 * What these functions raise is kept, ends the run, and is raised from there.
 */
#include "log.h"
#include "simulate_internal.h"
#include <lauxlib.h>
#include <stdlib.h>

#define WORLD_CLASS    "perilune.simulate.world"
#define LOG_LINE_MAX   5
#define BODY_MAX_BYTES 4096 /* enough for an error's code */

/* ---- entering ---- */

static void begin(struct pl_simulate_world *self, lua_State *L, int index)
{
    luaL_checkstack(L, 32, WORLD_CLASS);
    lua_getfenv(L, index);
    self->L = L;
    self->table = lua_gettop(L);
}

static void finish(struct pl_simulate_world *self)
{
    lua_State *L = self->L;
    self->L = NULL;
    if (!self->failed)
        return;
    self->failed = false;
    lua_getfield(L, self->table, "failure");
    lua_error(L);
}

/* ---- worlds ---- */

static struct pl_simulate_world *check_world(lua_State *L)
{
    struct pl_simulate_world *self = luaL_checkudata(L, 1, WORLD_CLASS);
    if (!self->stage)
        luaL_error(L, "this world has been closed");
    return self;
}

static struct pl_simulate_world *check_still_world(lua_State *L)
{
    struct pl_simulate_world *self = check_world(L);
    if (pl_stage_is_running(self->stage))
        luaL_error(L, "the world is running");
    return self;
}

static struct pl_simulate_world *push_world(lua_State *L)
{
    static const char *const functions[] = {"on_call", "on_call_end", "on_client_end", "on_check"};
    struct pl_simulate_world *self = lua_newuserdata(L, sizeof(*self));
    *self = (struct pl_simulate_world){0};
    pl_headers_init(&self->headers);
    pl_json_init(&self->json);
    LIST_INIT(&self->waiting);
    luaL_getmetatable(L, WORLD_CLASS);
    lua_setmetatable(L, -2);
    lua_createtable(L, 0, 4);
    for (size_t i = 0; i < PL_COUNT(functions); i++) {
        lua_getfield(L, 1, functions[i]);
        luaL_checktype(L, -1, LUA_TFUNCTION);
        lua_setfield(L, -2, functions[i]);
    }
    lua_setfenv(L, -2);
    return self;
}

static double check_number(lua_State *L, const char *key, double max)
{
    lua_getfield(L, 1, key);
    double value = luaL_checknumber(L, -1);
    if (!(value >= 0 && value <= max))
        luaL_error(L, "%s is out of range", key);
    lua_pop(L, 1);
    return value;
}

static int world_new(lua_State *L)
{
    char *problems;
    luaL_checktype(L, 1, LUA_TTABLE);
    double seed = check_number(L, "seed", 9007199254740992.0);
    double start_wall_ms = check_number(L, "start_wall_ms", 1e15);
    lua_getfield(L, 1, "directory");
    struct pl_config_source source = {.directory = luaL_checkstring(L, -1), .offline = true};
    struct pl_simulate_world *self = push_world(L);
    struct pl_stage_options options = {.source = &source,
                                       .seed = (uint64_t)seed,
                                       .start_wall_ms = (uint64_t)start_wall_ms,
                                       .log_line_max = LOG_LINE_MAX,
                                       .body_max_bytes = BODY_MAX_BYTES,
                                       .is_mute = true,
                                       .ops = &pl_simulate_ops,
                                       .arg = self};
    pl_log_set_level(PL_LOG_ERROR);
    self->stage = pl_stage_new(&options, &problems);
    if (self->stage)
        return 1;
    lua_pushnil(L);
    lua_pushstring(L, problems);
    free(problems);
    return 2;
}

static int world_close(lua_State *L)
{
    struct pl_simulate_world *self = luaL_checkudata(L, 1, WORLD_CLASS);
    if (self->stage && pl_stage_is_running(self->stage))
        return luaL_error(L, "the world is running");
    pl_simulate_forget_patience(self);
    pl_stage_free(self->stage);
    pl_headers_deinit(&self->headers);
    pl_json_deinit(&self->json);
    free(self->body);
    *self = (struct pl_simulate_world){0};
    pl_headers_init(&self->headers);
    pl_json_init(&self->json);
    LIST_INIT(&self->waiting);
    return 0;
}

static int world_run(lua_State *L)
{
    struct pl_simulate_world *self = check_still_world(L);
    uint64_t until_us = UINT64_MAX;
    if (!lua_isnoneornil(L, 2)) {
        lua_Number ms = luaL_checknumber(L, 2);
        luaL_argcheck(L, ms >= 0 && ms <= 1e12, 2, "out of range");
        until_us = (uint64_t)(ms * 1000 + 0.5);
    }
    begin(self, L, 1);
    enum pl_stage_pause pause = pl_stage_run(self->stage, until_us, NULL);
    finish(self);
    lua_pushstring(L, pause == PL_STAGE_AT_TIME ? "time"
                      : pause == PL_STAGE_STUCK ? "stuck"
                                                : "idle");
    return 1;
}

/* { name = value } at index 2 */
static void read_headers(lua_State *L, struct pl_headers *out)
{
    pl_headers_clear(out);
    luaL_checktype(L, 2, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        struct pl_str name, value;
        luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING, 2, "names must be strings");
        name.data = lua_tolstring(L, -2, &name.len);
        value.data = luaL_checklstring(L, -1, &value.len);
        if (pl_headers_add(out, name, value) != PL_OK)
            luaL_error(L, "the header '%s' has an invalid name or value", name.data);
    }
    if (pl_headers_count(out, PL_STR("content-type")) == 0 &&
        pl_headers_add(out, PL_STR("Content-Type"), PL_STR("application/json")) != PL_OK)
        abort();
}

static int world_start(lua_State *L)
{
    struct pl_simulate_world *self = check_still_world(L);
    struct pl_stage_request request = {.method = PL_STR("POST"),
                                       .target = PL_STR("/v1/chat/completions"),
                                       .peer = PL_STR("127.0.0.1"),
                                       .headers = &self->headers};
    read_headers(L, &self->headers);
    request.body.data = luaL_checklstring(L, 3, &request.body.len);
    lua_Number patience_ms = luaL_optnumber(L, 4, -1);
    luaL_argcheck(L, patience_ms <= 1e12, 4, "out of range");
    if (!lua_isnoneornil(L, 5))
        request.target.data = luaL_checklstring(L, 5, &request.target.len);
    begin(self, L, 1);
    struct pl_stage_client *client = pl_stage_start(self->stage, &request);
    lua_Number number = (lua_Number)client->number;
    if (patience_ms >= 0 && client->end == PL_STAGE_OPEN)
        pl_simulate_leave_after(self, client, patience_ms);
    pl_stage_client_free(client); /* an open one goes on unseen, and is freed at its end */
    finish(self);
    lua_pushnumber(L, number);
    return 1;
}

/* ---- asking ---- */

static int world_targets(lua_State *L)
{
    const struct pl_topology *topology = pl_stage_topology(check_world(L)->stage);
    lua_createtable(L, (int)topology->target_count, 0);
    for (size_t i = 0; i < topology->target_count; i++) {
        lua_pushstring(L, topology->targets[i].name);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static int world_providers(lua_State *L)
{
    const struct pl_topology *topology = pl_stage_topology(check_world(L)->stage);
    lua_createtable(L, (int)topology->provider_count, 0);
    for (size_t i = 0; i < topology->provider_count; i++) {
        lua_pushstring(L, topology->providers[i].name);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static void set_ejections(lua_State *L, struct pl_stage *stage, const char *name,
                          pl_health_slot slot)
{
    struct pl_health_view view;
    pl_stage_look(stage, slot, &view);
    lua_getfield(L, -1, name); /* a target that keeps the model has its provider's name */
    lua_pushnumber(L, lua_tonumber(L, -1) + (lua_Number)view.ejection_total);
    lua_setfield(L, -3, name);
    lua_pop(L, 1);
}

static int world_ejections(lua_State *L)
{
    struct pl_stage *stage = check_world(L)->stage;
    const struct pl_topology *topology = pl_stage_topology(stage);
    lua_newtable(L);
    for (size_t i = 0; i < topology->provider_count; i++)
        set_ejections(L, stage, topology->providers[i].name, topology->providers[i].slot);
    for (size_t i = 0; i < topology->target_count; i++)
        set_ejections(L, stage, topology->targets[i].name, topology->targets[i].slot);
    return 1;
}

/* faults(world) -> the kind of a policy's failure -> in how many requests; how many of them the
 * floor policy served */
static int world_faults(lua_State *L)
{
    struct pl_figures_view view;
    pl_stage_read_figures(check_world(L)->stage, &view);
    lua_newtable(L);
    for (int kind = PL_POLICY_FAULT_NONE + 1; kind < PL_POLICY_FAULT_COUNT; kind++) {
        if (view.policy_fault_counts[kind] == 0)
            continue;
        lua_pushnumber(L, (lua_Number)view.policy_fault_counts[kind]);
        lua_setfield(L, -2, pl_policy_fault_name((enum pl_policy_fault)kind));
    }
    lua_pushnumber(L, (lua_Number)view.floor_count);
    return 2;
}

static int world_active_count(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)pl_stage_active_count(check_world(L)->stage));
    return 1;
}

static int world_log(lua_State *L)
{
    size_t count;
    const char *const *lines = pl_stage_log(check_world(L)->stage, &count);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(L, lines[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

int pl_simulate_stage_open(lua_State *L)
{
    static const luaL_Reg methods[] = {{"start", world_start},
                                       {"run", world_run},
                                       {"targets", world_targets},
                                       {"providers", world_providers},
                                       {"ejections", world_ejections},
                                       {"log", world_log},
                                       {"active_count", world_active_count},
                                       {"faults", world_faults},
                                       {"close", world_close},
                                       {NULL, NULL}};
    luaL_newmetatable(L, WORLD_CLASS);
    lua_pushcfunction(L, world_close);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    luaL_register(L, NULL, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushcfunction(L, world_new);
    lua_setfield(L, -2, "new");
    return 1;
}
