/*
 * Testing: `perilune test`, which runs an operator's specs with busted in a Lua state of its own,
 * with the whole standard library and the system's modules, apart from any policy's VM.
 */
#ifndef PL_TESTING_H
#define PL_TESTING_H

#include <lua.h>

/**
 * Runs the specs under DIR/spec; `arguments` are those of the command line after the command's
 * name. Returns the exit status: 0, 1 when a spec fails, 2 when none could be run.
 */
int pl_testing_main(int argument_count, char **arguments);

/**
 * A trusted Lua state: the standard library, package.path and cpath as LUA_PATH and LUA_CPATH say,
 * `perilune.*` from the embedded library before all else, and the module perilune.stage. The caller
 * closes it.
 */
lua_State *pl_testing_new_state(void);
/** Calls what `module` returns with the list of arguments; gives the exit status it returns. Raises
 *  errors. */
int pl_testing_call_command(lua_State *L, const char *module, int argument_count,
                            char *const *arguments);

#endif
