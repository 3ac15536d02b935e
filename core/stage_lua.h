/*
 * Stages for specs: the native module `perilune.stage`, on which perilune.testing is built. The
 * spec's Lua state is a trusted one, apart from the VM that a stage's policies run in.
 */
#ifndef PL_STAGE_LUA_H
#define PL_STAGE_LUA_H

#include <lua.h>

/** For package.preload: leaves the module. */
int pl_stage_lua_open(lua_State *L);

#endif
