/*
 * Testing: see testing.h. What the command line means and what is said of it is Lua's work:
 * perilune.testing.command.
 */
#include "testing.h"
#include "bundle.h"
#include "stage_lua.h"
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int luaopen_cjson(lua_State *L);
int luaopen_cjson_safe(lua_State *L);

static const struct pl_bundle_file *find_embedded(const char *name)
{
    for (const struct pl_bundle_file *file = pl_embedded_files; file->name; file++) {
        if (strcmp(file->name, name) == 0)
            return file;
    }
    return NULL;
}

/* A loader of package.loaders: the embedded library. */
static int load_embedded(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const struct pl_bundle_file *file = find_embedded(name);
    if (!file) {
        lua_pushfstring(L, "\n\tno module '%s' in perilune", name);
        return 1;
    }
    lua_pushfstring(L, "=%s", name);
    if (luaL_loadbuffer(L, file->data, file->len, lua_tostring(L, -1)) != 0)
        return lua_error(L);
    return 1;
}

/* After package.preload, before files: what is tested is what this binary has. */
static void add_loader(lua_State *L)
{
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "insert");
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaders");
    lua_remove(L, -2);
    lua_pushinteger(L, 2);
    lua_pushcfunction(L, load_embedded);
    lua_call(L, 3, 0);
    lua_pop(L, 1);
}

static int open_state(lua_State *L)
{
    static const luaL_Reg preloaded[] = {{"perilune.stage", pl_stage_lua_open},
                                         {"cjson", luaopen_cjson},
                                         {"cjson.safe", luaopen_cjson_safe},
                                         {NULL, NULL}};
    luaL_openlibs(L);
    add_loader(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    for (const luaL_Reg *module = preloaded; module->name; module++) {
        lua_pushcfunction(L, module->func);
        lua_setfield(L, -2, module->name);
    }
    lua_pop(L, 2);
    return 0;
}

lua_State *pl_testing_new_state(void)
{
    lua_State *L = luaL_newstate();
    if (!L || lua_cpcall(L, open_state, NULL) != 0)
        abort();
    return L;
}

int pl_testing_call_command(lua_State *L, const char *module, int argument_count,
                            char *const *arguments)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, module);
    lua_call(L, 1, 1);
    lua_createtable(L, argument_count, 0);
    for (int i = 0; i < argument_count; i++) {
        lua_pushstring(L, arguments[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_call(L, 1, 1);
    return (int)lua_tointeger(L, -1);
}

struct command {
    int argument_count;
    char **arguments;
    int status;
};

static int run_command(lua_State *L)
{
    struct command *self = lua_touserdata(L, 1);
    self->status = pl_testing_call_command(L, "perilune.testing.command", self->argument_count,
                                           self->arguments);
    return 0;
}

int pl_testing_main(int argument_count, char **arguments)
{
    struct command command = {argument_count, arguments, 2};
    lua_State *L = pl_testing_new_state();
    if (lua_cpcall(L, run_command, &command) != 0)
        fprintf(stderr, "perilune test: %s\n",
                lua_isstring(L, -1) ? lua_tostring(L, -1) : "(an error without a message)");
    lua_close(L);
    return command.status;
}
