/*
 * VM, tables: table.sort, insert and concat, which are LuaJIT's but count what they do: in C no
 * hook fires, and a million elements make a call long, or ten thousand calls very long.
 */
#ifndef PL_VM_TABLE_H
#define PL_VM_TABLE_H

#include <lua.h>

/** Puts them into the table library, which must be open. Raises Lua errors. */
void pl_vm_open_table(lua_State *L);

#endif
