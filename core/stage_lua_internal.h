/*
 * What the parts of stage_lua share. Nobody else includes this. All raise Lua errors.
 */
#ifndef PL_STAGE_LUA_INTERNAL_H
#define PL_STAGE_LUA_INTERNAL_H

#include "stage_internal.h"
#include <lauxlib.h>
#include <lua.h>

#define PL_STAGE_WORLD_CLASS  "perilune.stage.world"
#define PL_STAGE_CLIENT_CLASS "perilune.stage.client"
#define PL_STAGE_ANSWER_CLASS "perilune.stage.answer"

struct world {
    struct pl_stage *stage;
    lua_State *L; /* while it is entered: whose stack has the world's table at `table` */
    int table;
    struct pl_headers headers; /* of the request being started */
    bool failed;               /* on_call has raised an error, which is in the table */
};

/* ---- stage_lua.c ---- */

/** The world in argument `index`, if it does not run: inside an answer's function it does. */
struct world *pl_stage_lua_check_world_at_rest(lua_State *L, int index);
/** Before the stage is let run: `index` is the world, whose table is left on the stack. */
void pl_stage_lua_begin(struct world *self, lua_State *L, int index);
/** Afterwards: raises what the spec's function has raised meanwhile. */
void pl_stage_lua_finish(struct world *self, lua_State *L);

/* ---- stage_lua_answer.c ---- */

/** A number of milliseconds as microseconds. */
uint64_t pl_stage_lua_check_us(lua_State *L, int index);
/** A text of the table at `index`, "" where there is none; it stays on the stack. */
struct pl_str pl_stage_lua_field_str(lua_State *L, int index, const char *key);
/** Appends the table's field `headers`: { { name, value }, ... } */
void pl_stage_lua_read_headers(lua_State *L, int index, struct pl_headers *out);
/** answer(options) */
int pl_stage_lua_new_answer(lua_State *L);
int pl_stage_lua_free_answer(lua_State *L);

/* ---- stage_lua_client.c ---- */

/** start(world, options) -> client */
int pl_stage_lua_start_client(lua_State *L);
int pl_stage_lua_free_client(lua_State *L);
extern const luaL_Reg pl_stage_lua_client_methods[];

#endif
