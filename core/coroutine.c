/*
 * Coroutine: see coroutine.h. Threads that ended well are kept for the next request, in a table of
 * the registry, because making one costs more than a short policy does.
 */
#include "coroutine.h"
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#define IDLE_THREADS_MAX 64

static const char idle_key;

void pl_coroutine_init(struct pl_coroutine *self, struct pl_vm *vm)
{
    *self = (struct pl_coroutine){.vm = vm, .ref = LUA_NOREF, .state = PL_COROUTINE_IDLE};
}

/* Leaves the table of idle threads. */
static void push_idle(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&idle_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushlightuserdata(L, (void *)&idle_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

static int open_protected(lua_State *L)
{
    struct pl_coroutine *self = lua_touserdata(L, 1);
    push_idle(L);
    int count = (int)lua_objlen(L, -1);
    if (count > 0) {
        lua_rawgeti(L, -1, count);
        lua_pushnil(L);
        lua_rawseti(L, -3, count);
        self->thread = lua_tothread(L, -1);
    } else {
        self->thread = lua_newthread(L);
    }
    self->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

int pl_coroutine_open(struct pl_coroutine *self)
{
    assert(self->state == PL_COROUTINE_IDLE);
    pl_vm_recover(self->vm);
    if (lua_cpcall(self->vm->state, open_protected, self) != 0) {
        lua_pop(self->vm->state, 1);
        return PL_ERR_LIMIT;
    }
    self->state = PL_COROUTINE_WAITING;
    return PL_OK;
}

static int recycle_protected(lua_State *L)
{
    struct pl_coroutine *self = lua_touserdata(L, 1);
    push_idle(L);
    int count = (int)lua_objlen(L, -1);
    if (count < IDLE_THREADS_MAX) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, self->ref);
        lua_rawseti(L, -2, count + 1);
    }
    return 0;
}

static void recycle(struct pl_coroutine *self)
{
    lua_settop(self->thread, 0);
    if (lua_cpcall(self->vm->state, recycle_protected, self) != 0)
        lua_pop(self->vm->state, 1);
}

static void drop(struct pl_coroutine *self)
{
    luaL_unref(self->vm->state, LUA_REGISTRYINDEX, self->ref);
    self->ref = LUA_NOREF;
    self->thread = NULL;
    self->state = PL_COROUTINE_IDLE;
    self->waits_for = NULL;
}

static void take_error(struct pl_coroutine *self)
{
    const char *text = "(an error without a message)";
    if (lua_gettop(self->thread) > 0 && lua_type(self->thread, -1) == LUA_TSTRING)
        text = lua_tostring(self->thread, -1);
    snprintf(self->error, sizeof(self->error), "%s", text);
    self->error[strcspn(self->error, "\r\n")] = '\0';
}

enum pl_coroutine_result pl_coroutine_resume(struct pl_coroutine *self, int arg_count)
{
    assert(self->state == PL_COROUTINE_WAITING);
    pl_vm_begin_burst(self->vm);
    self->state = PL_COROUTINE_RUNNING;
    self->waits_for = NULL;
    int status = lua_resume(self->thread, arg_count);
    if (self->vm->overrun) {
        snprintf(self->error, sizeof(self->error),
                 "%s: used more than %u ms of CPU without a pause", self->vm->overrun_at,
                 self->vm->limits.burst_us / 1000);
        drop(self);
        pl_vm_begin_burst(self->vm); /* back to the usual hook */
        return PL_COROUTINE_OVERRUN;
    }
    if (status == LUA_YIELD) {
        self->state = PL_COROUTINE_WAITING;
        return PL_COROUTINE_WAITS;
    }
    if (status == 0) {
        recycle(self);
        drop(self);
        return PL_COROUTINE_DONE;
    }
    take_error(self);
    drop(self);
    return PL_COROUTINE_FAILED;
}

void pl_coroutine_close(struct pl_coroutine *self)
{
    assert(self->state != PL_COROUTINE_RUNNING);
    if (self->state != PL_COROUTINE_IDLE)
        drop(self);
}

int pl_coroutine_yield(struct pl_coroutine *self, lua_State *L, const char *waits_for)
{
    self->waits_for = waits_for;
    return lua_yield(L, 0);
}
