/*
 * VM: see vm.h.
 *
 * The allocator's user data is the VM itself, which is how pl_vm_of finds it from any coroutine
 * without a lookup. Hooks are global to a LuaJIT state, so one count hook covers every coroutine.
 */
#include "vm.h"
#include "bundle.h"
#include "vm_string.h"
#include "vm_table.h"
#include "vm_ticker.h"
#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOOK_INSTRUCTION_COUNT 10000
#define UNCHECKED_MAX_BYTES    (8 * 1024 * 1024)
#define PLACE_LEVELS_MAX       64
#define WORK_BURSTS            10 /* for work in C that takes memory: decoding a large body */

static const char loaded_key, preload_key;

static void on_count(lua_State *L, lua_Debug *record);

/* One instruction can fill megabytes, and ten thousand of them take minutes: so much memory asked
 * for brings the next look at the clock forward. (LuaJIT lets a hook be set at any moment.) */
static void count_work(struct pl_vm *self, size_t bytes)
{
    self->unchecked_bytes += bytes;
    if (self->unchecked_bytes < UNCHECKED_MAX_BYTES || !self->state ||
        self->overrun != PL_OVERRUN_NONE)
        return;
    self->unchecked_bytes = 0;
    self->check_soon = true;
    lua_sethook(self->state, on_count, LUA_MASKCOUNT, 1);
}

static void *allocate(void *ud, void *block, size_t old_bytes, size_t new_bytes)
{
    struct pl_vm *self = ud;
    if (new_bytes == 0) {
        free(block);
        self->memory_used_bytes -= old_bytes;
        return NULL;
    }
    count_work(self, new_bytes);
    size_t limit_bytes = self->limits.memory_bytes + self->reserve_bytes;
    if (new_bytes > old_bytes && self->memory_used_bytes + (new_bytes - old_bytes) > limit_bytes) {
        self->starved = true;
        return NULL;
    }
    void *moved = realloc(block, new_bytes);
    if (moved)
        self->memory_used_bytes += new_bytes - old_bytes;
    return moved;
}

struct pl_vm *pl_vm_of(lua_State *L)
{
    void *ud;
    lua_getallocf(L, &ud);
    return ud;
}

/* Looks at the clock: which budget is used up, if any, where `burst_count` times the burst's budget
 * may be taken since `*start_us`. The first time in a burst it takes that mark, so that the usual
 * request, which never gets here, pays no clock call. */
static enum pl_overrun find_overrun(const struct pl_vm *self, uint64_t *start_us,
                                    uint64_t burst_count)
{
    uint64_t cpu_us = pl_thread_cpu_us();
    (void)pl_now_ms(); /* a policy that computes for long must not act by an old time */
    if (*start_us == 0)
        *start_us = cpu_us;
    uint64_t burst_us = cpu_us - *start_us;
    if (burst_us >= self->limits.burst_us * burst_count)
        return PL_OVERRUN_BURST;
    if (self->limits.request_us > 0 &&
        self->spent_us + self->ticked_us + burst_us >= self->limits.request_us)
        return PL_OVERRUN_REQUEST;
    return PL_OVERRUN_NONE;
}

/* Chunks of policies are named after their files, "@fallback.lua", those of the library "=". */
void pl_vm_find_place(lua_State *L, char *out, size_t size)
{
    lua_Debug record;
    out[0] = '\0';
    for (int level = 0; level < PLACE_LEVELS_MAX && lua_getstack(L, level, &record); level++) {
        if (lua_getinfo(L, "Sl", &record) && *record.source == '@' && record.currentline > 0) {
            snprintf(out, size, "%s:%d", record.short_src, record.currentline);
            return;
        }
    }
}

/* From now on the hook fires at every instruction. `record` is of where Lua code is. */
static void mark_overrun(struct pl_vm *self, enum pl_overrun overrun, lua_State *L,
                         lua_Debug *record)
{
    if (self->overrun == PL_OVERRUN_NONE) {
        self->overrun = overrun;
        pl_vm_find_place(L, self->overrun_at, sizeof(self->overrun_at));
        if (self->overrun_at[0] == '\0' && lua_getinfo(L, "Sl", record) != 0)
            snprintf(self->overrun_at, sizeof(self->overrun_at), "%s:%d", record->short_src,
                     record->currentline);
    }
    self->check_soon = false;
    lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
}

static void raise_overrun(struct pl_vm *self, lua_State *L)
{
    bool is_burst = self->overrun == PL_OVERRUN_BURST;
    uint32_t limit_us = is_burst ? self->limits.burst_us : self->limits.request_us;
    lua_pushfstring(L, "%s: the CPU budget of %d ms is used up", self->overrun_at,
                    (int)(limit_us / 1000));
    lua_error(L);
}

/*
 * Fires every so many instructions. Past a budget it yields, because an error could be caught by
 * the policy's pcall, and fires at every instruction from then on.
 */
static void on_count(lua_State *L, lua_Debug *record)
{
    struct pl_vm *self = pl_vm_of(L);
    enum pl_overrun overrun = self->overrun;
    bool for_work = self->check_soon && !self->tick;
    if (self->tick && self->burst_start_us == 0)
        self->ticked_us += PL_VM_TICK_US;
    if (self->check_soon || self->tick) {
        self->check_soon = self->tick = false;
        lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_INSTRUCTION_COUNT);
    }
    if (overrun == PL_OVERRUN_NONE)
        overrun = find_overrun(self, for_work ? &self->work_start_us : &self->burst_start_us,
                               for_work ? WORK_BURSTS : 1);
    if (overrun == PL_OVERRUN_NONE)
        return;
    mark_overrun(self, overrun, L, record);
    if (L == self->state)
        raise_overrun(self, L);
    lua_yield(L, 0);
}

void pl_vm_look_soon(struct pl_vm *self)
{
    self->tick = true;
    lua_sethook(self->state, on_count, LUA_MASKCOUNT, 1);
}

/* The innermost Lua function, since C functions have no lines; else what is called first. */
static void find_lua_code(lua_State *L, lua_Debug *record)
{
    for (int level = 0; lua_getstack(L, level, record); level++) {
        if (lua_getinfo(L, "l", record) && record->currentline > 0)
            return;
    }
    lua_getstack(L, 0, record);
}

void pl_vm_check_budget(lua_State *L)
{
    struct pl_vm *self = pl_vm_of(L);
    lua_Debug record;
    enum pl_overrun overrun = self->overrun;
    if (overrun == PL_OVERRUN_NONE)
        overrun = find_overrun(self, &self->burst_start_us, 1);
    if (overrun == PL_OVERRUN_NONE)
        return;
    find_lua_code(L, &record);
    mark_overrun(self, overrun, L, &record);
    raise_overrun(self, L);
}

void pl_vm_spend(lua_State *L, size_t step_count)
{
    struct pl_vm *self = pl_vm_of(L);
    self->patterns.left_count -= (int64_t)step_count;
    if (self->patterns.left_count >= 0)
        return;
    pl_vm_check_budget(L);
    self->patterns.left_count = PL_VM_STEPS_PER_LOOK;
}

uint64_t pl_vm_burst_us(const struct pl_vm *self)
{
    uint64_t start_us = self->burst_start_us;
    if (start_us == 0 || (self->work_start_us != 0 && self->work_start_us < start_us))
        start_us = self->work_start_us;
    return self->ticked_us + (start_us == 0 ? 0 : pl_thread_cpu_us() - start_us);
}

void pl_vm_recover(struct pl_vm *self)
{
    if (!self->starved)
        return;
    size_t memory_bytes = self->limits.memory_bytes;
    /* collecting may need some itself, and is not protected */
    self->limits.memory_bytes = SIZE_MAX - PL_VM_RESERVE_BYTES;
    lua_gc(self->state, LUA_GCCOLLECT, 0);
    self->limits.memory_bytes = memory_bytes;
    self->starved = false;
}

void pl_vm_begin_burst(struct pl_vm *self)
{
    pl_vm_recover(self);
    self->burst_start_us = self->work_start_us = self->ticked_us = 0;
    self->patterns.left_count = PL_VM_STEPS_PER_LOOK;
    self->burst_count++;
    self->stack_start = (uintptr_t)__builtin_frame_address(0);
    if (self->overrun != PL_OVERRUN_NONE) {
        self->overrun = PL_OVERRUN_NONE;
        lua_sethook(self->state, on_count, LUA_MASKCOUNT, HOOK_INSTRUCTION_COUNT);
    }
}

static void get_table(lua_State *L, const char *key)
{
    lua_pushlightuserdata(L, (void *)key);
    lua_rawget(L, LUA_REGISTRYINDEX);
}

static const struct pl_bundle_file *find_embedded(const char *name)
{
    for (const struct pl_bundle_file *file = pl_embedded_files; file->name; file++) {
        if (strcmp(file->name, name) == 0)
            return file;
    }
    return NULL;
}

/* ---- the library, compiled ---- */

/* Bytecode of an embedded file; nothing until it was compiled once. */
struct compiled {
    char *data;
    size_t len;
};

static struct compiled *compiled; /* by file; NULL: nothing is kept */

void pl_vm_keep_compiled(void)
{
    size_t count = 0;
    if (compiled)
        return;
    while (pl_embedded_files[count].name)
        count++;
    compiled = pl_xcalloc(count + 1, sizeof(*compiled));
}

static int append_code(lua_State *L, const void *data, size_t len, void *arg)
{
    (void)L;
    struct compiled *self = arg;
    self->data = pl_xrealloc(self->data, self->len + len);
    memcpy(self->data + self->len, data, len);
    self->len += len;
    return 0;
}

/* Leaves the file's chunk, or raises an error. */
static void load_embedded(lua_State *L, const struct pl_bundle_file *file)
{
    char chunk_name[128];
    struct compiled *code = compiled ? &compiled[file - pl_embedded_files] : NULL;
    bool is_known = code && code->data;
    snprintf(chunk_name, sizeof(chunk_name), "=%s", file->name);
    int rc = is_known ? luaL_loadbufferx(L, code->data, code->len, chunk_name, "b")
                      : luaL_loadbufferx(L, file->data, file->len, chunk_name, "t");
    if (rc != 0)
        lua_error(L);
    if (code && !is_known)
        lua_dump(L, append_code, code);
}

/* Leaves the function that makes the module: a preloaded C function or a compiled source. */
static void push_loader(lua_State *L, const char *name)
{
    get_table(L, &preload_key);
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    const struct pl_bundle_file *file = find_embedded(name);
    if (!file)
        luaL_error(L, "module '%s' not found", name);
    load_embedded(L, file);
}

void pl_vm_require(lua_State *L, const char *name)
{
    luaL_checkstack(L, 8, "require");
    get_table(L, &loaded_key);
    lua_getfield(L, -1, name);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        push_loader(L, name);
        lua_pushstring(L, name);
        lua_call(L, 1, 1);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, name);
    }
    lua_remove(L, -2);
}

static int lua_require(lua_State *L)
{
    pl_vm_require(L, luaL_checkstring(L, 1));
    return 1;
}

void pl_vm_preload(struct pl_vm *self, const char *name, lua_CFunction open)
{
    lua_State *L = self->state;
    get_table(L, &preload_key);
    lua_pushcfunction(L, open);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

static void open_library(lua_State *L, const char *name, lua_CFunction open)
{
    lua_pushcfunction(L, open);
    lua_pushstring(L, name);
    lua_call(L, 1, 0);
}

/* Library code gets what it needs to compute, and no way to files, processes or the JIT. */
static int open_libraries(lua_State *L)
{
    static const char *const dropped[] = {"dofile",   "loadfile", "print",  "coroutine",
                                          "newproxy", "module",   "gcinfo", NULL};
    open_library(L, "", luaopen_base);
    open_library(L, LUA_STRLIBNAME, luaopen_string);
    open_library(L, LUA_TABLIBNAME, luaopen_table);
    open_library(L, LUA_MATHLIBNAME, luaopen_math);
    open_library(L, LUA_BITLIBNAME, luaopen_bit);
    for (const char *const *name = dropped; *name; name++) {
        lua_pushnil(L);
        lua_setglobal(L, *name);
    }
    pl_vm_open_string(L);
    pl_vm_open_table(L);
    lua_pushcfunction(L, lua_require);
    lua_setglobal(L, "require");
    get_table(L, &loaded_key); /* library code asks for it by name */
    lua_getglobal(L, LUA_BITLIBNAME);
    lua_setfield(L, -2, LUA_BITLIBNAME);
    lua_pop(L, 1);
    /* ("").x reaches the string library through this metatable, from policies too: nobody may
     * change it, and nobody makes bytecode with it */
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushliteral(L, "locked");
    lua_setfield(L, -2, "__metatable");
    lua_getfield(L, -1, "__index");
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    lua_pop(L, 3);
    return 0;
}

static int open_state(lua_State *L)
{
    const char *keys[] = {&loaded_key, &preload_key};
    for (size_t i = 0; i < PL_COUNT(keys); i++) {
        lua_pushlightuserdata(L, (void *)keys[i]);
        lua_newtable(L);
        lua_rawset(L, LUA_REGISTRYINDEX);
    }
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    return open_libraries(L);
}

struct pl_vm *pl_vm_new(const struct pl_vm_limits *limits)
{
    struct pl_vm *self = pl_xcalloc(1, sizeof(*self));
    /* not capped yet: LuaJIT 2.1 crashes when memory ends within lua_newstate (lj_gc_freeall) */
    self->limits.memory_bytes = SIZE_MAX - PL_VM_RESERVE_BYTES;
    self->state = lua_newstate(allocate, self);
    if (!self->state)
        abort();
    self->limits = *limits;
    if (self->memory_used_bytes > limits->memory_bytes ||
        lua_cpcall(self->state, open_state, NULL) != 0) {
        pl_vm_free(self);
        return NULL;
    }
    lua_sethook(self->state, on_count, LUA_MASKCOUNT, HOOK_INSTRUCTION_COUNT);
    return self;
}

void pl_vm_free(struct pl_vm *self)
{
    if (!self)
        return;
    lua_close(self->state);
    free(self);
}

struct call {
    void (*fn)(lua_State *L, void *arg);
    void *arg;
};

static int call_protected(lua_State *L)
{
    struct call *call = lua_touserdata(L, 1);
    lua_settop(L, 0);
    call->fn(L, call->arg);
    return 0;
}

int pl_vm_call(struct pl_vm *self, void (*fn)(lua_State *L, void *arg), void *arg, char *error,
               size_t error_size)
{
    struct call call = {fn, arg};
    lua_State *L = self->state;
    self->spent_us = 0;
    pl_vm_begin_burst(self);
    pl_vm_ticker_watch(self);
    int status = lua_cpcall(L, call_protected, &call);
    pl_vm_ticker_watch(NULL);
    if (status == 0)
        return PL_OK;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "(no message)";
    snprintf(error, error_size, "%s", text);
    lua_pop(L, 1);
    return PL_ERR_SYNTAX;
}

void pl_vm_load_policy(lua_State *L, const char *source, size_t len, const char *name)
{
    char chunk_name[256];
    snprintf(chunk_name, sizeof(chunk_name), "@%s", name);
    if (len > 0 && source[0] == LUA_SIGNATURE[0]) {
        lua_pushfstring(L, "%s: is compiled code; only the text of a script is read", name);
        lua_error(L);
    }
    if (luaL_loadbufferx(L, source, len, chunk_name, "t") != 0)
        lua_error(L);
    pl_vm_require(L, "perilune.sandbox");
    lua_getfield(L, -1, "environment");
    lua_call(L, 0, 1);
    lua_setfenv(L, -3);
    lua_pop(L, 1);
}
