/*
 * VM, tables: see vm_table.h.
 *
 * The stock functions are called as C functions, in the frame that the caller made for ours, so
 * that checks and messages stay theirs. They use no upvalues of their own.
 */
#include "vm_table.h"
#include "vm.h"
#include <lauxlib.h>
#include <lualib.h>

#define BYTES_PER_STEP       4 /* of texts that are compared */
#define ELEMENTS_PER_STEP    2 /* that are moved or joined */
#define SORT_STACK_MAX_BYTES (128 * 1024)
#define STEPS_PER_COMPARE    16 /* a call from within the sort */

static lua_CFunction stock(lua_State *L, int upvalue)
{
    return lua_tocfunction(L, lua_upvalueindex(upvalue));
}

static size_t text_bytes(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TSTRING ? lua_objlen(L, index) : 0;
}

/* Upvalue: a C function, or nil for "<". */
static int counted_compare(lua_State *L)
{
    size_t least_bytes = PL_MIN(text_bytes(L, 1), text_bytes(L, 2));
    pl_vm_spend(L, STEPS_PER_COMPARE + least_bytes / BYTES_PER_STEP);
    if (lua_isnil(L, lua_upvalueindex(1))) {
        lua_pushboolean(L, lua_lessthan(L, 1, 2));
        return 1;
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

/* LuaJIT bounds its own stack alone, and thousands of C frames take long to unwind. */
static void check_stack(lua_State *L)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (pl_vm_of(L)->stack_start > here + SORT_STACK_MAX_BYTES)
        luaL_error(L, "table.sort: called within itself too often");
}

/* An order function in Lua is stopped by the hook; others are quadratic in the worst case, and
 * texts of megabytes take milliseconds to compare. */
static int table_sort(lua_State *L)
{
    check_stack(L);
    if (lua_istable(L, 1) && (lua_isnoneornil(L, 2) || lua_iscfunction(L, 2))) {
        lua_settop(L, 2);
        lua_pushcclosure(L, counted_compare, 1);
    }
    return stock(L, 1)(L);
}

/* As many elements as it may move. It writes past metatables, so the views that all requests share
 * would not be read-only. */
static int table_insert(lua_State *L)
{
    if (lua_istable(L, 1) && luaL_getmetafield(L, 1, "__metatable"))
        luaL_error(L, "table.insert: this table is read-only");
    if (lua_istable(L, 1) && lua_gettop(L) > 2)
        pl_vm_spend(L, 1 + lua_objlen(L, 1) / ELEMENTS_PER_STEP);
    return stock(L, 1)(L);
}

static int table_concat(lua_State *L)
{
    if (lua_istable(L, 1))
        pl_vm_spend(L, 1 + lua_objlen(L, 1) / ELEMENTS_PER_STEP);
    return stock(L, 1)(L);
}

void pl_vm_open_table(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"sort", table_sort}, {"insert", table_insert}, {"concat", table_concat}};
    lua_getglobal(L, LUA_TABLIBNAME);
    for (size_t i = 0; i < PL_COUNT(functions); i++) {
        lua_getfield(L, -1, functions[i].name);
        if (!lua_tocfunction(L, -1)) /* another LuaJIT may have it in assembly */
            luaL_error(L, "table.%s is no C function", functions[i].name);
        lua_pushcclosure(L, functions[i].func, 1);
        lua_setfield(L, -2, functions[i].name);
    }
    lua_pop(L, 1);
}
