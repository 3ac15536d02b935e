/*
 * VM, globals: see vm_globals.h.
 *
 * The source is compiled once more, in a Lua state of its own that never runs it: what looks into
 * compiled code (jit.util) is not for the VM that policies run in. LuaJIT's instructions have a
 * number that depends on its version; those that matter are learnt from code whose instructions
 * are known.
 */
#include "vm_globals.h"
#include "base.h"
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#define FOUND_MAX     256
#define DEPTH_MAX     200 /* of functions within functions; the compiler allows fewer */
#define UTIL          1   /* where jit.util is on the stack */
#define OPERAND_SHIFT 16
#define OPCODE_MASK   0xff

struct found {
    char name[64];
    int line;
    bool is_set;
};

struct scan {
    const char *source;
    size_t len;
    struct found *list;
    size_t count;
    uint32_t read_opcode, set_opcode;
    int depth;
};

/* util.NAME(code, number): one result, for the code at the top of the stack, which stays. */
static void ask(lua_State *L, const char *name, int number)
{
    lua_getfield(L, UTIL, name);
    lua_pushvalue(L, -2);
    lua_pushinteger(L, number);
    lua_call(L, 2, 1);
}

static uint32_t instruction_at(lua_State *L, int position)
{
    ask(L, "funcbc", position);
    uint32_t instruction = (uint32_t)(int64_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return instruction;
}

/* A field of what util.funcinfo(code, position) gives. */
static int number_of(lua_State *L, int position, const char *field)
{
    ask(L, "funcinfo", position);
    lua_getfield(L, -1, field);
    int number = (int)lua_tointeger(L, -1);
    lua_pop(L, 2);
    return number;
}

static bool is_known(const struct scan *self, const char *name, bool is_set)
{
    for (size_t i = 0; i < self->count; i++) {
        if (self->list[i].is_set == is_set && strcmp(self->list[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Notes the global that the instruction names, if it does. */
static void look_at(lua_State *L, struct scan *self, int position)
{
    uint32_t instruction = instruction_at(L, position);
    uint32_t opcode = instruction & OPCODE_MASK;
    if (opcode != self->read_opcode && opcode != self->set_opcode)
        return;
    bool is_set = opcode == self->set_opcode;
    ask(L, "funck", -(int)(instruction >> OPERAND_SHIFT) - 1);
    const char *name = lua_tostring(L, -1);
    if (name && strlen(name) < sizeof(self->list->name) && self->count < FOUND_MAX &&
        !is_known(self, name, is_set)) {
        struct found *found = &self->list[self->count++];
        snprintf(found->name, sizeof(found->name), "%s", name);
        found->is_set = is_set;
        lua_pop(L, 1);
        found->line = number_of(L, position, "currentline");
        return;
    }
    lua_pop(L, 1);
}

/* Goes through the code at the top of the stack, and that of the functions in it. */
static void scan_code(lua_State *L, struct scan *self)
{
    if (self->depth >= DEPTH_MAX)
        return;
    self->depth++;
    luaL_checkstack(L, 8, "functions within functions");
    int count = number_of(L, 0, "bytecodes");
    for (int position = 1; position < count; position++)
        look_at(L, self, position);
    for (int constant = -1;; constant--) {
        ask(L, "funck", constant);
        bool is_last = lua_isnil(L, -1);
        if (strcmp(luaL_typename(L, -1), "proto") == 0)
            scan_code(L, self);
        lua_pop(L, 1);
        if (is_last)
            break;
    }
    self->depth--;
}

/* The number of the instruction at that position of a known text. */
static uint32_t opcode_of(lua_State *L, const char *text, int position)
{
    if (luaL_loadstring(L, text) != 0)
        lua_error(L);
    uint32_t opcode = instruction_at(L, position) & OPCODE_MASK;
    lua_pop(L, 1);
    return opcode;
}

static int scan_protected(lua_State *L)
{
    struct scan *self = lua_touserdata(L, 1);
    luaL_openlibs(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "jit.util");
    lua_call(L, 1, 1);
    lua_replace(L, UTIL);
    self->read_opcode = opcode_of(L, "return a", 1);
    self->set_opcode = opcode_of(L, "a = 1", 2);
    if (luaL_loadbufferx(L, self->source, self->len, "=source", "t") == 0)
        scan_code(L, self);
    return 0;
}

void pl_vm_push_globals(lua_State *L, const char *source, size_t len)
{
    struct scan scan = {.source = source, .len = len};
    lua_State *own = luaL_newstate();
    scan.list = lua_newuserdata(L, FOUND_MAX * sizeof(*scan.list));
    if (own) {
        (void)lua_cpcall(own, scan_protected, &scan);
        lua_close(own);
    }
    lua_createtable(L, (int)scan.count, 0);
    for (size_t i = 0; i < scan.count; i++) {
        lua_createtable(L, 0, 3);
        lua_pushstring(L, scan.list[i].name);
        lua_setfield(L, -2, "name");
        lua_pushinteger(L, scan.list[i].line);
        lua_setfield(L, -2, "line");
        lua_pushboolean(L, scan.list[i].is_set);
        lua_setfield(L, -2, "is_set");
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_remove(L, -2);
}
