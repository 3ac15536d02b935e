/*
 * VM, strings: string.find, match, gmatch and gsub over our own matcher (pattern.h), which the
 * burst's budget stops. LuaJIT's own run in C, where no hook fires; results, checks and messages
 * are theirs.
 */
#ifndef PL_VM_STRING_H
#define PL_VM_STRING_H

#include <lua.h>

/** Puts them into the string library, which must be open. Raises Lua errors. */
void pl_vm_open_string(lua_State *L);

#endif
