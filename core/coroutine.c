/*
 * Coroutine: see coroutine.h. Threads that ended well are kept for the next request, with their
 * place in the registry, because making one costs more than a short policy does.
 */
#include "coroutine.h"
#include "vm_ticker.h"
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

void pl_coroutine_init(struct pl_coroutine *self, struct pl_vm *vm)
{
    *self = (struct pl_coroutine){
        .vm = vm, .ref = LUA_NOREF, .state = PL_COROUTINE_IDLE, .error = vm->error};
}

static int open_protected(lua_State *L)
{
    struct pl_coroutine *self = lua_touserdata(L, 1);
    self->thread = lua_newthread(L);
    self->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static bool take_idle(struct pl_coroutine *self)
{
    struct pl_vm *vm = self->vm;
    if (vm->idle_count == 0)
        return false;
    struct pl_vm_thread *idle = &vm->idle[--vm->idle_count];
    self->thread = idle->state;
    self->ref = idle->ref;
    return true;
}

int pl_coroutine_open(struct pl_coroutine *self)
{
    assert(self->state == PL_COROUTINE_IDLE);
    pl_vm_recover(self->vm);
    self->vm->reserve_bytes = self->has_reserve ? PL_VM_RESERVE_BYTES : 0;
    int status = take_idle(self) ? 0 : lua_cpcall(self->vm->state, open_protected, self);
    self->vm->reserve_bytes = 0;
    if (status != 0) {
        lua_pop(self->vm->state, 1);
        return PL_ERR_LIMIT;
    }
    self->state = PL_COROUTINE_WAITING;
    return PL_OK;
}

static void drop(struct pl_coroutine *self)
{
    luaL_unref(self->vm->state, LUA_REGISTRYINDEX, self->ref);
    self->ref = LUA_NOREF;
    self->thread = NULL;
    self->state = PL_COROUTINE_IDLE;
    self->waits_for = NULL;
}

/* As drop, for a thread that ended well. */
static void recycle(struct pl_coroutine *self)
{
    struct pl_vm *vm = self->vm;
    if (vm->idle_count < PL_COUNT(vm->idle)) {
        lua_settop(self->thread, 0);
        vm->idle[vm->idle_count++] = (struct pl_vm_thread){self->thread, self->ref};
        self->ref = LUA_NOREF; /* which drop leaves alone */
    }
    drop(self);
}

/* Whether the text begins with a policy's file and line: "fallback.lua:12: ". */
static bool has_place(const char *text)
{
    size_t len = strcspn(text, ": ");
    return len > 4 && strncmp(text + len - 4, ".lua", 4) == 0 && text[len] == ':' &&
           text[len + 1] >= '0' && text[len + 1] <= '9';
}

/* What a function fails at by itself, not in one that it calls, leaves no line behind: the
 * function's own is better than none. */
static void find_function(lua_State *L, char *out, size_t size)
{
    lua_Debug record;
    for (int level = 0; lua_getstack(L, level, &record) && level < 16; level++) {
        if (lua_getinfo(L, "S", &record) && *record.source == '@' && record.linedefined > 0) {
            snprintf(out, size, "%s:%d: in this function", record.short_src, record.linedefined);
            return;
        }
    }
}

/* Where in the library an error was raised says nothing to who wrote the policy. */
static const char *without_library_place(const char *text)
{
    static const char LIBRARY[] = "perilune";
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz_.");
    size_t digits = text[len] == ':' ? strspn(text + len + 1, "0123456789") : 0;
    const char *after = text + len + 1 + digits;
    bool is_place = strncmp(text, LIBRARY, sizeof(LIBRARY) - 1) == 0 && digits > 0;
    return is_place && strncmp(after, ": ", 2) == 0 ? after + 2 : text;
}

/* The thread's stack is still as it was when it failed. */
static void take_error(struct pl_coroutine *self, int status)
{
    const char *text = "(an error without a message)";
    char place[128] = "";
    if (lua_gettop(self->thread) > 0 && lua_type(self->thread, -1) == LUA_TSTRING)
        text = without_library_place(lua_tostring(self->thread, -1));
    bool is_memory = status == LUA_ERRMEM || strcmp(text, "not enough memory") == 0;
    self->failure = is_memory ? PL_COROUTINE_MEMORY : PL_COROUTINE_RAISED;
    if (!has_place(text))
        pl_vm_find_place(self->thread, place, sizeof(place));
    if (!has_place(text) && place[0] == '\0')
        find_function(self->thread, place, sizeof(place));
    snprintf(self->error, PL_VM_ERROR_BYTES, "%s%s%s", place, place[0] ? ": " : "", text);
    self->error[strcspn(self->error, "\r\n")] = '\0';
}

static void take_overrun(struct pl_coroutine *self)
{
    const struct pl_vm *vm = self->vm;
    bool burst = vm->overrun == PL_OVERRUN_BURST;
    self->failure = burst ? PL_COROUTINE_CPU_BURST : PL_COROUTINE_CPU_REQUEST;
    snprintf(self->error, PL_VM_ERROR_BYTES, "%s: used more than %u ms of CPU %s", vm->overrun_at,
             (burst ? vm->limits.burst_us : vm->limits.request_us) / 1000,
             burst ? "without a pause" : "in all");
}

enum pl_coroutine_result pl_coroutine_resume(struct pl_coroutine *self, int arg_count)
{
    struct pl_vm *vm = self->vm;
    assert(self->state == PL_COROUTINE_WAITING);
    pl_vm_begin_burst(vm);
    vm->spent_us = self->spent_us;
    vm->reserve_bytes = self->has_reserve ? PL_VM_RESERVE_BYTES : 0;
    self->state = PL_COROUTINE_RUNNING;
    self->waits_for = NULL;
    pl_vm_ticker_watch(vm);
    int status = lua_resume(self->thread, arg_count);
    pl_vm_ticker_watch(NULL);
    self->spent_us += pl_vm_burst_us(vm);
    vm->reserve_bytes = 0;
    if (vm->overrun != PL_OVERRUN_NONE) {
        take_overrun(self);
        drop(self);
        pl_vm_begin_burst(vm); /* back to the usual hook */
        return PL_COROUTINE_OVERRUN;
    }
    if (status == LUA_YIELD) {
        self->state = PL_COROUTINE_WAITING;
        return PL_COROUTINE_WAITS;
    }
    if (status == 0) {
        recycle(self);
        return PL_COROUTINE_DONE;
    }
    take_error(self, status);
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
