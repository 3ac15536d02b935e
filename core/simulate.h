/*
 * Simulate: `perilune simulate`, which plays many requests through policies under a virtual clock
 * and counts what becomes of them. What is asked and answered, and what is counted, is Lua's work
 * (perilune.simulate); here are the stage it drives and the sandbox that scenarios are read in.
 *
 *   simulate.c         the command, and reading scenarios
 *   simulate_stage.c   the module perilune.simulate.stage: a stage with as little Lua as can be
 *   simulate_events.c  what that stage tells, as calls of Lua
 *   simulate_answer.c  from Lua's plan of an answer to the stage's data
 */
#ifndef PL_SIMULATE_H
#define PL_SIMULATE_H

#include "stage.h"
#include <lua.h>

/**
 * Runs the command; `arguments` are those of the command line after the command's name. Returns the
 * exit status: 0, 1 when a file is not good, 2 when the usage is not followed.
 */
int pl_simulate_main(int argument_count, char **arguments);

/** For package.preload: leaves the module perilune.simulate.stage. */
int pl_simulate_stage_open(lua_State *L);

/**
 * The answer that the table at `index` describes, see perilune.simulate.faults, to a call of
 * `target`; a new reference. Raises Lua errors, and leaks nothing then.
 */
struct pl_stage_answer *pl_simulate_answer(lua_State *L, int index, const struct pl_target *target);

#endif
