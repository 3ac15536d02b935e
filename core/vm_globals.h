/*
 * VM, globals: which globals a policy's code names, found without running it.
 */
#ifndef PL_VM_GLOBALS_H
#define PL_VM_GLOBALS_H

#include <lua.h>

/**
 * Pushes a list of { name, line, is_set }: each global once for reads and once for writes, by its
 * first place in the code; at most 256. Of a source that does not compile it is empty. Raises only
 * for want of memory.
 */
void pl_vm_push_globals(lua_State *L, const char *source, size_t len);

#endif
