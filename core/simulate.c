/*
 * Simulate: see simulate.h. This file: the command, and reading scenarios.
 *
 * The command runs in a trusted Lua state, without the JIT compiler: the same input gives the same
 * bytes, whatever is compiled when. A scenario is evaluated elsewhere, in a VM with the limits of a
 * configuration, and comes out of it as JSON.
 */
#include "simulate.h"
#include "bind.h"
#include "testing.h"
#include <lauxlib.h>
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>

#define COMMAND_MODULE  "perilune.simulate.command"
#define SCENARIO_MODULE "perilune.simulate.scenario"

/* As for a configuration. */
static const struct pl_vm_limits scenario_limits = {.memory_bytes = 64u * 1024 * 1024,
                                                    .burst_us = 2000 * 1000};

/* ---- scenarios ---- */

struct reading {
    struct pl_str source, file;
    bool needs_requests;
    char *json, *problems; /* one of them is set */
};

static void read_scenario(lua_State *L, void *arg)
{
    struct reading *self = arg;
    pl_vm_require(L, SCENARIO_MODULE);
    lua_getfield(L, -1, "to_json");
    lua_pushlstring(L, self->source.data, self->source.len);
    lua_pushlstring(L, self->file.data, self->file.len);
    lua_pushboolean(L, self->needs_requests);
    lua_call(L, 3, 3);
    if (lua_isnil(L, -3))
        self->problems = pl_xstrdup(lua_tostring(L, -1));
    else
        self->json = pl_xstrdup(lua_tostring(L, -3));
}

/* read(source, file, needs_requests) -> JSON | nil, "invalid", problems */
static int sandbox_read(lua_State *L)
{
    struct reading reading = {.needs_requests = lua_toboolean(L, 3)};
    char error[1024];
    reading.source.data = luaL_checklstring(L, 1, &reading.source.len);
    reading.file.data = luaL_checklstring(L, 2, &reading.file.len);
    struct pl_vm *vm = pl_bind_vm_new(&scenario_limits, NULL);
    if (!vm)
        abort();
    int rc = pl_vm_call(vm, read_scenario, &reading, error, sizeof(error));
    pl_vm_free(vm);
    if (rc == PL_OK && reading.json) {
        lua_pushstring(L, reading.json);
        free(reading.json);
        return 1;
    }
    lua_pushnil(L);
    lua_pushliteral(L, "invalid");
    if (reading.problems)
        lua_pushstring(L, reading.problems);
    else
        lua_pushfstring(L, "%s: %s", reading.file.data, error);
    free(reading.problems);
    return 3;
}

static int sandbox_open(lua_State *L)
{
    lua_newtable(L);
    lua_pushcfunction(L, sandbox_read);
    lua_setfield(L, -2, "read");
    return 1;
}

/* ---- the command ---- */

struct command {
    int argument_count;
    char **arguments;
    int status;
};

static void preload(lua_State *L, const char *name, lua_CFunction open)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, open);
    lua_setfield(L, -2, name);
    lua_pop(L, 2);
}

static int run_command(lua_State *L)
{
    struct command *self = lua_touserdata(L, 1);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    preload(L, "perilune.simulate.stage", pl_simulate_stage_open);
    preload(L, "perilune.simulate.sandbox", sandbox_open);
    self->status =
        pl_testing_call_command(L, COMMAND_MODULE, self->argument_count, self->arguments);
    return 0;
}

int pl_simulate_main(int argument_count, char **arguments)
{
    struct command command = {argument_count, arguments, 1};
    lua_State *L = pl_testing_new_state();
    if (lua_cpcall(L, run_command, &command) != 0)
        fprintf(stderr, "perilune simulate: %s\n",
                lua_isstring(L, -1) ? lua_tostring(L, -1) : "(an error without a message)");
    lua_close(L);
    return command.status;
}
