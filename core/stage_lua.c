/*
 * perilune.stage: see stage_lua.h. This file: the module, worlds, and what is asked of a spec;
 * stage_lua_answer.c: answers; stage_lua_client.c: clients.
 *
 * - stage.new{ directory, files, env, seed, start_wall_ms, on_call, on_call_end } gives a world.
 * - stage.answer{ status, headers, chunked, length_bytes, pieces, after_ms, ending, end_after_ms,
 *   failure, hangs } gives what on_call returns.
 * - world:start{ method, target, headers, body, peer } gives a client.
 * - world:run(until_ms, client) gives what ended it: "time", "end", "idle" or "stuck".
 *
 * What the spec's functions raise inside on_call is kept, ends the run, and is raised from there:
 * no error crosses the request code. A world's functions lie in its environment table, not in the
 * registry, so that a world and the spec that refers to it are garbage together.
 */
#include "stage_lua.h"
#include "bind.h"
#include "stage_lua_internal.h"
#include <stdlib.h>
#include <string.h>

/* ---- calls ---- */

static void push_request_text(lua_State *L, const struct pl_stage_call *call)
{
    luaL_Buffer body;
    lua_pushlstring(L, call->pieces[0].iov_base, call->pieces[0].iov_len);
    lua_setfield(L, -2, "head");
    luaL_buffinit(L, &body);
    for (size_t i = 1; i < call->piece_count; i++)
        luaL_addlstring(&body, call->pieces[i].iov_base, call->pieces[i].iov_len);
    luaL_pushresult(&body);
    lua_setfield(L, -2, "body");
}

static void push_call(lua_State *L, const struct pl_stage_call *call)
{
    lua_createtable(L, 0, 10);
    lua_pushnumber(L, (lua_Number)call->number);
    lua_setfield(L, -2, "number");
    lua_pushstring(L, call->target->name);
    lua_setfield(L, -2, "target");
    lua_pushstring(L, call->provider->name);
    lua_setfield(L, -2, "provider");
    lua_pushnumber(L, (lua_Number)call->at_us / 1000);
    lua_setfield(L, -2, "at_ms");
    push_request_text(L, call);
}

/* ask(table, call) -> answer | nil: calls the spec's on_call(call). */
static int ask(lua_State *L)
{
    const struct pl_stage_call *call = lua_touserdata(L, 2);
    lua_getfield(L, 1, "on_call");
    push_call(L, call);
    lua_call(L, 1, 1);
    if (!lua_isnil(L, -1))
        luaL_checkudata(L, -1, PL_STAGE_ANSWER_CLASS);
    return 1;
}

static struct pl_stage_answer *on_call(struct pl_stage_call *call, void *arg)
{
    struct world *self = arg;
    struct pl_stage_answer *answer = NULL;
    lua_State *L = self->L;
    lua_pushcfunction(L, ask);
    lua_pushvalue(L, self->table);
    lua_pushlightuserdata(L, call);
    if (lua_pcall(L, 2, 1, 0) != 0) {
        self->failed = true;
        lua_setfield(L, self->table, "failure");
        pl_stage_stop(self->stage);
        return NULL;
    }
    if (!lua_isnil(L, -1)) {
        answer = *(struct pl_stage_answer **)lua_touserdata(L, -1);
        pl_stage_answer_ref(answer);
    }
    lua_pop(L, 1);
    return answer;
}

/* tell(table, call): calls the spec's on_call_end(number, at_ms, outcome). */
static int tell(lua_State *L)
{
    const struct pl_stage_call *call = lua_touserdata(L, 2);
    lua_getfield(L, 1, "on_call_end");
    lua_pushnumber(L, (lua_Number)call->number);
    lua_pushnumber(L, (lua_Number)call->ended_us / 1000);
    lua_pushstring(L, call->state == PL_STAGE_CALL_CANCELLED ? "cancelled"
                                                             : pl_failure_name(call->failure));
    lua_call(L, 3, 0);
    return 0;
}

static void on_call_end(struct pl_stage_call *call, void *arg)
{
    struct world *self = arg;
    lua_State *L = self->L;
    lua_pushcfunction(L, tell);
    lua_pushvalue(L, self->table);
    lua_pushlightuserdata(L, call);
    if (lua_pcall(L, 2, 0, 0) == 0)
        return;
    self->failed = true;
    lua_setfield(L, self->table, "failure");
    pl_stage_stop(self->stage);
}

/* ---- worlds ---- */

static struct world *check_world(lua_State *L, int index)
{
    struct world *self = luaL_checkudata(L, index, PL_STAGE_WORLD_CLASS);
    if (!self->stage)
        luaL_error(L, "this world has been closed");
    return self;
}

/* One that does not run: inside an answer's function it does. */
struct world *pl_stage_lua_check_world_at_rest(lua_State *L, int index)
{
    struct world *self = check_world(L, index);
    if (pl_stage_is_running(self->stage))
        luaL_error(L, "the world is running: an answer's function cannot move it");
    return self;
}

void pl_stage_lua_begin(struct world *self, lua_State *L, int index)
{
    luaL_checkstack(L, 32, "perilune.stage");
    lua_getfenv(L, index);
    self->L = L;
    self->table = lua_gettop(L);
}

/* Raises what the spec's function has raised meanwhile. */
void pl_stage_lua_finish(struct world *self, lua_State *L)
{
    int table = self->table;
    self->L = NULL;
    if (!self->failed)
        return;
    self->failed = false;
    lua_getfield(L, table, "failure");
    lua_error(L);
}

/* The source borrows from the tables; two arrays are left on the stack as userdata. */
static void read_source(lua_State *L, int index, struct pl_config_source *out)
{
    lua_getfield(L, index, "directory");
    out->directory = lua_tostring(L, -1);
    lua_getfield(L, index, "files");
    luaL_checktype(L, -1, LUA_TTABLE);
    int files = lua_gettop(L);
    lua_getfield(L, index, "env");
    luaL_checktype(L, -1, LUA_TTABLE);
    int env = lua_gettop(L);
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, files); lua_pop(L, 1))
        count++;
    for (lua_pushnil(L); lua_next(L, env); lua_pop(L, 1))
        count++;
    struct pl_config_file *file = lua_newuserdata(L, (count + 1) * sizeof(*file));
    struct pl_config_variable *variable = lua_newuserdata(L, (count + 1) * sizeof(*variable));
    out->files = file;
    out->environment = variable;
    out->offline = true;
    for (lua_pushnil(L); lua_next(L, files); lua_pop(L, 1), out->file_count++) {
        file[out->file_count].name = (char *)luaL_checkstring(L, -2);
        file[out->file_count].data = (char *)luaL_checklstring(L, -1, &file[out->file_count].len);
    }
    for (lua_pushnil(L); lua_next(L, env); lua_pop(L, 1), out->variable_count++)
        variable[out->variable_count] =
            (struct pl_config_variable){luaL_checkstring(L, -2), luaL_checkstring(L, -1)};
}

static struct world *push_world(lua_State *L)
{
    struct world *self = lua_newuserdata(L, sizeof(*self));
    *self = (struct world){0};
    pl_headers_init(&self->headers);
    luaL_getmetatable(L, PL_STAGE_WORLD_CLASS);
    lua_setmetatable(L, -2);
    lua_createtable(L, 0, 4);
    lua_getfield(L, 1, "on_call");
    lua_setfield(L, -2, "on_call");
    lua_getfield(L, 1, "on_call_end");
    lua_setfield(L, -2, "on_call_end");
    lua_setfenv(L, -2);
    return self;
}

/* new(options) -> world | nil, problems */
static int new_world(lua_State *L)
{
    static const struct pl_stage_ops ops = {.on_call = on_call, .on_call_end = on_call_end};
    struct pl_config_source source = {0};
    char *problems;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "seed");
    lua_getfield(L, 1, "start_wall_ms");
    lua_Number seed = luaL_checknumber(L, -2), start_wall_ms = luaL_checknumber(L, -1);
    read_source(L, 1, &source);
    struct world *self = push_world(L);
    struct pl_stage_options options = {.source = &source,
                                       .seed = (uint64_t)(int64_t)seed,
                                       .start_wall_ms = (uint64_t)start_wall_ms,
                                       .ops = &ops,
                                       .arg = self};
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
    struct world *self = luaL_checkudata(L, 1, PL_STAGE_WORLD_CLASS);
    if (self->stage && pl_stage_is_running(self->stage))
        return luaL_error(L, "the world is running: an answer's function cannot close it");
    pl_stage_free(self->stage);
    self->stage = NULL;
    pl_headers_deinit(&self->headers);
    pl_headers_init(&self->headers);
    return 0;
}

/* run(world, until_ms | nil, client | nil) -> what has ended it */
static int world_run(lua_State *L)
{
    static const char *const names[] = {[PL_STAGE_AT_TIME] = "time",
                                        [PL_STAGE_AT_END] = "end",
                                        [PL_STAGE_IDLE] = "idle",
                                        [PL_STAGE_STUCK] = "stuck",
                                        [PL_STAGE_STOPPED] = "stopped"};
    struct world *self = pl_stage_lua_check_world_at_rest(L, 1);
    uint64_t until_us = lua_isnoneornil(L, 2) ? UINT64_MAX : pl_stage_lua_check_us(L, 2);
    struct pl_stage_client **client = NULL;
    if (!lua_isnoneornil(L, 3))
        client = luaL_checkudata(L, 3, PL_STAGE_CLIENT_CLASS);
    pl_stage_lua_begin(self, L, 1);
    enum pl_stage_pause pause = pl_stage_run(self->stage, until_us, client ? *client : NULL);
    pl_stage_lua_finish(self, L);
    lua_pushstring(L, names[pause]);
    return 1;
}

static int world_now_ms(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)pl_stage_now_us(check_world(L, 1)->stage) / 1000);
    return 1;
}

static int world_active_count(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)pl_stage_active_count(check_world(L, 1)->stage));
    return 1;
}

/* targets(world) -> { { name, provider, model }, ... } */
static int world_targets(lua_State *L)
{
    const struct pl_topology *topology = pl_stage_topology(check_world(L, 1)->stage);
    lua_createtable(L, (int)topology->target_count, 0);
    for (size_t i = 0; i < topology->target_count; i++) {
        const struct pl_target *target = &topology->targets[i];
        lua_createtable(L, 0, 3);
        lua_pushstring(L, target->name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, topology->providers[target->provider_index].name);
        lua_setfield(L, -2, "provider");
        lua_pushstring(L, target->model);
        lua_setfield(L, -2, "model");
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* providers(world) -> { name, ... } */
static int world_providers(lua_State *L)
{
    const struct pl_topology *topology = pl_stage_topology(check_world(L, 1)->stage);
    lua_createtable(L, (int)topology->provider_count, 0);
    for (size_t i = 0; i < topology->provider_count; i++) {
        lua_pushstring(L, topology->providers[i].name);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static const struct pl_target *find_target(lua_State *L, const struct pl_topology *topology,
                                           const char *name)
{
    for (size_t i = 0; i < topology->target_count; i++) {
        if (strcmp(topology->targets[i].name, name) == 0)
            return &topology->targets[i];
    }
    luaL_error(L, "there is no target '%s'", name);
    return NULL;
}

/* A target's slot, else a provider's. */
static pl_health_slot find_slot(lua_State *L, const struct pl_topology *topology, const char *name)
{
    for (size_t i = 0; i < topology->target_count; i++) {
        if (strcmp(topology->targets[i].name, name) == 0)
            return topology->targets[i].slot;
    }
    for (size_t i = 0; i < topology->provider_count; i++) {
        if (strcmp(topology->providers[i].name, name) == 0)
            return topology->providers[i].slot;
    }
    luaL_error(L, "there is no target or provider '%s'", name);
    return PL_HEALTH_NO_SLOT;
}

/* health(world, target's name) -> as target:health() in a policy */
static int world_health(lua_State *L)
{
    struct pl_stage *stage = check_world(L, 1)->stage;
    const struct pl_topology *topology = pl_stage_topology(stage);
    const struct pl_target *target = find_target(L, topology, luaL_checkstring(L, 2));
    pl_stage_enter(stage);
    pl_bind_push_health(L, topology, target);
    pl_stage_exit(stage);
    return 1;
}

/* eject(world, name, ms | nil) */
static int world_eject(lua_State *L)
{
    struct pl_stage *stage = check_world(L, 1)->stage;
    pl_health_slot slot = find_slot(L, pl_stage_topology(stage), luaL_checkstring(L, 2));
    uint64_t duration_ms =
        lua_isnoneornil(L, 3) ? UINT64_MAX : (pl_stage_lua_check_us(L, 3) + 999) / 1000;
    pl_stage_eject(stage, slot, duration_ms);
    return 0;
}

static int world_restore(lua_State *L)
{
    struct pl_stage *stage = check_world(L, 1)->stage;
    pl_stage_restore(stage, find_slot(L, pl_stage_topology(stage), luaL_checkstring(L, 2)));
    return 0;
}

static int world_log(lua_State *L)
{
    size_t count;
    const char *const *lines = pl_stage_log(check_world(L, 1)->stage, &count);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(L, lines[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* ---- the module ---- */

static void add_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    luaL_register(L, NULL, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int pl_stage_lua_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"new", new_world}, {"answer", pl_stage_lua_new_answer}, {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg world_methods[] = {{"start", pl_stage_lua_start_client},
                                             {"run", world_run},
                                             {"now_ms", world_now_ms},
                                             {"active_count", world_active_count},
                                             {"targets", world_targets},
                                             {"providers", world_providers},
                                             {"health", world_health},
                                             {"eject", world_eject},
                                             {"restore", world_restore},
                                             {"log", world_log},
                                             {"close", world_close},
                                             {NULL, NULL}};
    add_class(L, PL_STAGE_WORLD_CLASS, world_methods, world_close);
    add_class(L, PL_STAGE_CLIENT_CLASS, pl_stage_lua_client_methods, pl_stage_lua_free_client);
    add_class(L, PL_STAGE_ANSWER_CLASS, none, pl_stage_lua_free_answer);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
