/*
 * Tests of coroutine.c.
 */
#include "coroutine.h"

#include <lauxlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BURST_US     20000
#define IDLE_MAX     64 /* threads kept, as in coroutine.c */
#define MEMORY_BYTES (4u << 20)

static const struct pl_vm_limits LIMITS = {.memory_bytes = MEMORY_BYTES, .burst_us = BURST_US};

/* wait(coroutine, label) yields. */
static int wait_for(lua_State *L)
{
    static const char *const LABELS[] = {"a timer", "an answer"};
    struct pl_coroutine *coroutine = lua_touserdata(L, 1);
    int label = luaL_checkint(L, 2);
    return pl_coroutine_yield(coroutine, L, LABELS[label]);
}

static int read_value(lua_State *L)
{
    lua_pushinteger(L, *(int *)lua_touserdata(L, 1));
    return 1;
}

static int write_value(lua_State *L)
{
    *(int *)lua_touserdata(L, 1) = luaL_checkint(L, 2);
    return 0;
}

static void set_globals(lua_State *L, void *arg)
{
    (void)arg;
    lua_register(L, "wait", wait_for);
    lua_register(L, "read", read_value);
    lua_register(L, "write", write_value);
}

static int set_up(void **state)
{
    char error[64];
    struct pl_vm *vm = pl_vm_new(&LIMITS);
    *state = vm;
    return vm != NULL ? pl_vm_call(vm, set_globals, NULL, error, sizeof(error)) : -1;
}

static int tear_down(void **state)
{
    pl_vm_free(*state);
    return 0;
}

struct source {
    const char *text;
    int ref;
};

static void compile(lua_State *L, void *arg)
{
    struct source *source = arg;
    if (luaL_loadstring(L, source->text) != 0) {
        lua_error(L);
    }
    source->ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

/** A reference to the text as a function. */
static int make_function(struct pl_vm *vm, const char *text)
{
    struct source source = {.text = text};
    char error[256];
    if (pl_vm_call(vm, compile, &source, error, sizeof(error)) != PL_OK) {
        fail_msg("%s", error);
    }
    return source.ref;
}

/** Opens it with the function on its stack, called with (coroutine, value). */
static void open_with(struct pl_coroutine *self, int function_ref, int *value)
{
    assert_int_equal(pl_coroutine_open(self), PL_OK);
    assert_int_equal(self->state, PL_COROUTINE_WAITING);
    assert_int_equal(lua_gettop(self->thread), 0);
    lua_rawgeti(self->thread, LUA_REGISTRYINDEX, function_ref);
    lua_pushlightuserdata(self->thread, self);
    lua_pushlightuserdata(self->thread, value);
}

/** As open_with, and runs up to the first wait or the end. */
static enum pl_coroutine_result start(struct pl_coroutine *self, struct pl_vm *vm, const char *text,
                                      int *value)
{
    pl_coroutine_init(self, vm);
    open_with(self, make_function(vm, text), value);
    return pl_coroutine_resume(self, 2);
}

static void assert_idle(const struct pl_coroutine *self)
{
    assert_int_equal(self->state, PL_COROUTINE_IDLE);
    assert_null(self->thread);
    assert_null(self->waits_for);
}

static void assert_usable(struct pl_vm *vm)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, vm,
                           "local co, v = ... local n = 0 for i = 1, 100 do n = n + 1 end\n"
                           "write(v, n)",
                           &value),
                     PL_COROUTINE_DONE);
    assert_int_equal(value, 100);
    assert_int_equal(lua_gettop(vm->state), 0);
}

/* ---- life ---- */

static void test_runs_to_its_end(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, *state, "local _, v = ... write(v, 7) return v, 1", &value),
                     PL_COROUTINE_DONE);
    assert_int_equal(value, 7);
    assert_idle(&coroutine);
}

/** What was waited for is fetched inside, after the wait. */
static void test_waits_and_goes_on(void **state)
{
    struct pl_coroutine coroutine;
    int value = 1;
    assert_int_equal(start(&coroutine, *state,
                           "local co, v = ... wait(co, 0) local first = read(v)\n"
                           "wait(co, 1) write(v, first * 100 + read(v))",
                           &value),
                     PL_COROUTINE_WAITS);
    assert_int_equal(coroutine.state, PL_COROUTINE_WAITING);
    assert_string_equal(coroutine.waits_for, "a timer");
    value = 2;
    assert_int_equal(pl_coroutine_resume(&coroutine, 0), PL_COROUTINE_WAITS);
    assert_string_equal(coroutine.waits_for, "an answer");
    value = 3;
    assert_int_equal(pl_coroutine_resume(&coroutine, 0), PL_COROUTINE_DONE);
    assert_int_equal(value, 203);
    assert_idle(&coroutine);
}

static void test_waits_within_pcall(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, *state,
                           "local co, v = ... pcall(function() wait(co, 0) error('x') end)\n"
                           "write(v, 5)",
                           &value),
                     PL_COROUTINE_WAITS);
    assert_int_equal(pl_coroutine_resume(&coroutine, 0), PL_COROUTINE_DONE);
    assert_int_equal(value, 5);
}

/** Within a sort no wait is possible: an error, not a crash. */
static void test_cannot_wait_within_a_c_function(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, *state,
                           "local co = ... table.sort({ 2, 1 }, function() wait(co, 0) end)",
                           &value),
                     PL_COROUTINE_FAILED);
    assert_non_null(strstr(coroutine.error, "attempt to yield across C-call boundary"));
    assert_idle(&coroutine);
    assert_usable(*state);
}

static void test_many_wait_at_once(void **state)
{
    struct pl_coroutine coroutines[100];
    int values[PL_COUNT(coroutines)];
    int function = make_function(*state, "local co, v = ... local x = read(v) wait(co, 0)\n"
                                         "write(v, x + read(v))");
    for (int i = 0; i < (int)PL_COUNT(coroutines); i++) {
        values[i] = i;
        pl_coroutine_init(&coroutines[i], *state);
        open_with(&coroutines[i], function, &values[i]);
        assert_int_equal(pl_coroutine_resume(&coroutines[i], 2), PL_COROUTINE_WAITS);
    }
    for (int i = (int)PL_COUNT(coroutines) - 1; i >= 0; i--) {
        values[i] = 1000;
        assert_int_equal(pl_coroutine_resume(&coroutines[i], 0), PL_COROUTINE_DONE);
        assert_int_equal(values[i], 1000 + i);
    }
}

/* ---- failure ---- */

static void assert_fails(struct pl_vm *vm, const char *text, const char *expected)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, vm, text, &value), PL_COROUTINE_FAILED);
    assert_string_equal(coroutine.error, expected);
    assert_idle(&coroutine);
    assert_usable(vm);
}

static void test_failure(void **state)
{
    assert_fails(*state, "error('why', 0)", "why");
    assert_fails(*state, "error('one line\\nand another\\n', 0)", "one line");
    assert_fails(*state, "error('one line\\r\\nand another', 0)", "one line");
    assert_fails(*state, "error({})", "(an error without a message)");
    assert_fails(*state, "error()", "(an error without a message)");
    assert_fails(
        *state, "local t = nil return t.x",
        "[string \"local t = nil return t.x\"]:1: attempt to index local 't' (a nil value)");
}

static void test_a_long_message_is_cut(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, *state, "error(('x'):rep(5000), 0)", &value),
                     PL_COROUTINE_FAILED);
    assert_int_equal(strlen(coroutine.error), PL_VM_ERROR_BYTES - 1);
}

static void test_failure_after_a_wait(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, *state, "wait((...), 0) error('late', 0)", &value),
                     PL_COROUTINE_WAITS);
    assert_int_equal(pl_coroutine_resume(&coroutine, 0), PL_COROUTINE_FAILED);
    assert_string_equal(coroutine.error, "late");
    assert_idle(&coroutine);
}

static void test_endless_recursion(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    ((struct pl_vm *)*state)->limits.burst_us = 60 * 1000 * 1000;
    assert_int_equal(start(&coroutine, *state, "local function f() return 1 + f() end f()", &value),
                     PL_COROUTINE_FAILED);
    assert_usable(*state);
}

/* ---- the CPU budget ---- */

static void assert_overruns(struct pl_coroutine *coroutine, enum pl_coroutine_result result)
{
    assert_int_equal(result, PL_COROUTINE_OVERRUN);
    assert_int_equal(coroutine->failure, PL_COROUTINE_CPU_BURST);
    assert_non_null(strstr(coroutine->error, "]:1: used more than 20 ms of CPU without a pause"));
    assert_idle(coroutine);
    assert_false(coroutine->vm->overrun);
    assert_usable(coroutine->vm);
}

static void test_overrun(void **state)
{
    static const char *const loops[] = {
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do pcall(error) end",
        "table.sort({ 3, 2, 1 }, function() while true do end end)",
        "while true do pcall(table.sort, { 2, 1 }, function() while true do end end) end",
        "while true do ('x'):gsub('x', function() pcall(function() while true do end end) end) end",
    };
    struct pl_coroutine coroutine;
    int value = 0;
    for (size_t i = 0; i < PL_COUNT(loops); i++) {
        uint64_t start_us = pl_thread_cpu_us();
        assert_overruns(&coroutine, start(&coroutine, *state, loops[i], &value));
        assert_in_range(pl_thread_cpu_us() - start_us, BURST_US, 5000000);
    }
}

static void test_overrun_after_a_wait(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, *state, "wait((...), 0) while true do end", &value),
                     PL_COROUTINE_WAITS);
    assert_overruns(&coroutine, pl_coroutine_resume(&coroutine, 0));
}

/** The budget is for each run between two waits, however many there are. */
/** Bursts of half the burst budget each, until they are too much together. */
static void test_overrun_of_all_bursts_together(void **state)
{
    struct pl_vm *vm = *state;
    struct pl_coroutine coroutine, other;
    int value = 0, resume_count = 0;
    vm->limits.request_us = 4 * BURST_US;
    enum pl_coroutine_result result =
        start(&coroutine, vm, "while true do for i = 1, 2e5 do end wait((...), 0) end", &value);
    while (result == PL_COROUTINE_WAITS && ++resume_count < 100000)
        result = pl_coroutine_resume(&coroutine, 0);
    assert_int_equal(result, PL_COROUTINE_OVERRUN);
    assert_int_equal(coroutine.failure, PL_COROUTINE_CPU_REQUEST);
    assert_non_null(strstr(coroutine.error, "]:1: used more than 80 ms of CPU in all"));
    assert_in_range(coroutine.spent_us, 4 * BURST_US, 8 * BURST_US);
    assert_true(resume_count > 4);
    assert_usable(vm);
    /* nobody else's account */
    assert_int_equal(start(&other, vm, "for i = 1, 1e5 do end", &value), PL_COROUTINE_DONE);
    assert_true(other.spent_us < BURST_US);
}

/** What never reaches the hook is not counted, whatever the number of bursts. */
static void test_short_bursts_are_free(void **state)
{
    struct pl_vm *vm = *state;
    struct pl_coroutine coroutine;
    int value = 0;
    vm->limits.request_us = 1000;
    enum pl_coroutine_result result =
        start(&coroutine, vm, "for i = 1, 100 do wait((...), 0) end", &value);
    assert_int_equal(coroutine.spent_us, 0);
    while (result == PL_COROUTINE_WAITS)
        result = pl_coroutine_resume(&coroutine, 0);
    assert_int_equal(result, PL_COROUTINE_DONE);
    assert_int_equal(coroutine.spent_us, 0);
}

/** A full VM still runs what has the reserve. */
static void test_reserve(void **state)
{
    struct pl_vm *vm = *state;
    struct pl_coroutine holding, other;
    int value = 0;
    const char *holds = "local co, v = ... local t = {} "
                        "pcall(function() for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end end) "
                        "wait(co, 0) write(v, #t)";
    int function = make_function(vm, "local t = {} for i = 1, 10000 do t[i] = { i } end");
    vm->limits.burst_us = 60 * 1000 * 1000;
    assert_int_equal(start(&holding, vm, holds, &value), PL_COROUTINE_WAITS);
    pl_coroutine_init(&other, vm);
    other.has_reserve = true;
    assert_int_equal(pl_coroutine_open(&other), PL_OK);
    lua_rawgeti(other.thread, LUA_REGISTRYINDEX, function);
    assert_int_equal(pl_coroutine_resume(&other, 0), PL_COROUTINE_DONE);
    assert_int_equal(vm->reserve_bytes, 0);
    pl_coroutine_close(&holding);
}

static void test_work_in_small_pieces_is_no_overrun(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    uint64_t start_us = pl_thread_cpu_us();
    enum pl_coroutine_result result = start(
        &coroutine, *state,
        "local co, v = ... while read(v) == 0 do for i = 1, 2000 do end wait(co, 0) end", &value);
    while (result == PL_COROUTINE_WAITS) {
        value = pl_thread_cpu_us() - start_us > 3 * BURST_US;
        result = pl_coroutine_resume(&coroutine, 0);
    }
    assert_int_equal(result, PL_COROUTINE_DONE);
}

static void test_overrun_is_nobody_elses(void **state)
{
    struct pl_coroutine waiting, looping;
    int value = 0;
    assert_int_equal(start(&waiting, *state, "local co, v = ... wait(co, 0) write(v, 9)", &value),
                     PL_COROUTINE_WAITS);
    assert_overruns(&looping, start(&looping, *state, "while true do end", &value));
    assert_int_equal(pl_coroutine_resume(&waiting, 0), PL_COROUTINE_DONE);
    assert_int_equal(value, 9);
}

/* ---- closing ---- */

static void test_close_while_waiting(void **state)
{
    struct pl_vm *vm = *state;
    struct pl_coroutine coroutine;
    int value = 0;
    vm->limits.burst_us = 60 * 1000 * 1000;
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    size_t before = vm->memory_used_bytes;
    assert_int_equal(
        start(&coroutine, vm,
              "local co, v = ... local t = {} for i = 1, 20000 do t[i] = {} end wait(co, 0)\n"
              "write(v, #t)",
              &value),
        PL_COROUTINE_WAITS);
    assert_true(vm->memory_used_bytes > before + 100000);
    pl_coroutine_close(&coroutine);
    assert_idle(&coroutine);
    pl_coroutine_close(&coroutine);
    assert_idle(&coroutine);
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    assert_true(vm->memory_used_bytes < before + 20000);
    assert_int_equal(value, 0);
    assert_usable(vm);
}

static void test_close_before_the_start(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    pl_coroutine_init(&coroutine, *state);
    pl_coroutine_close(&coroutine);
    assert_idle(&coroutine);
    open_with(&coroutine, make_function(*state, "write(select(2, ...), 1)"), &value);
    pl_coroutine_close(&coroutine);
    assert_idle(&coroutine);
    assert_int_equal(value, 0);
    assert_usable(*state);
}

/** A VM may be freed with coroutines that wait. */
static void test_vm_ends_first(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    assert_int_equal(start(&coroutine, *state, "wait((...), 0)", &value), PL_COROUTINE_WAITS);
}

/* ---- threads are used again ---- */

static lua_State *thread_of_next(struct pl_vm *vm)
{
    struct pl_coroutine coroutine;
    pl_coroutine_init(&coroutine, vm);
    assert_int_equal(pl_coroutine_open(&coroutine), PL_OK);
    lua_State *thread = coroutine.thread;
    assert_int_equal(lua_gettop(thread), 0);
    assert_int_equal(lua_status(thread), 0);
    pl_coroutine_close(&coroutine);
    return thread;
}

static void test_a_thread_that_ended_well_is_used_again(void **state)
{
    struct pl_coroutine coroutine;
    int value = 0;
    int function = make_function(*state, "local co = ... wait(co, 0) return 1, 2, 3");
    lua_State *first = NULL;
    for (int i = 0; i < 5; i++) {
        pl_coroutine_init(&coroutine, *state);
        open_with(&coroutine, function, &value);
        first = i == 0 ? coroutine.thread : first;
        assert_ptr_equal(coroutine.thread, first);
        assert_int_equal(pl_coroutine_resume(&coroutine, 2), PL_COROUTINE_WAITS);
        assert_int_equal(pl_coroutine_resume(&coroutine, 0), PL_COROUTINE_DONE);
    }
}

/** Its thread is not what the next one gets; another one that waits keeps the memory in use. */
static void assert_not_used_again(struct pl_vm *vm, const char *text)
{
    struct pl_coroutine coroutine;
    int value = 0;
    pl_coroutine_init(&coroutine, vm);
    open_with(&coroutine, make_function(vm, text), &value);
    lua_State *thread = coroutine.thread;
    if (pl_coroutine_resume(&coroutine, 2) == PL_COROUTINE_WAITS) {
        pl_coroutine_close(&coroutine);
    }
    lua_gc(vm->state, LUA_GCSTOP, 0); /* its memory is not given out again either */
    assert_ptr_not_equal(thread_of_next(vm), thread);
    lua_gc(vm->state, LUA_GCRESTART, 0);
}

static void test_other_threads_are_not_used_again(void **state)
{
    assert_not_used_again(*state, "error('x')");
    assert_not_used_again(*state, "while true do end");
    assert_not_used_again(*state, "wait((...), 0)");
}

static void test_only_so_many_are_kept(void **state)
{
    struct pl_coroutine coroutines[IDLE_MAX + 10];
    lua_State *threads[PL_COUNT(coroutines)];
    int value = 0;
    int function = make_function(*state, "wait((...), 0)");
    for (int round = 0; round < 3; round++) {
        size_t used_again_count = 0;
        for (size_t i = 0; i < PL_COUNT(coroutines); i++) {
            pl_coroutine_init(&coroutines[i], *state);
            open_with(&coroutines[i], function, &value);
            for (size_t k = 0; round > 0 && k < PL_COUNT(threads); k++) {
                used_again_count += coroutines[i].thread == threads[k];
            }
            assert_int_equal(pl_coroutine_resume(&coroutines[i], 2), PL_COROUTINE_WAITS);
        }
        assert_true(round == 0 || used_again_count >= IDLE_MAX);
        for (size_t i = 0; i < PL_COUNT(coroutines); i++) {
            threads[i] = coroutines[i].thread;
            assert_int_equal(pl_coroutine_resume(&coroutines[i], 0), PL_COROUTINE_DONE);
        }
    }
}

/* ---- memory ---- */

#define EAT "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end"

static void test_out_of_memory_inside(void **state)
{
    struct pl_vm *vm = *state;
    struct pl_coroutine waiting, eating;
    int value = 0;
    vm->limits.burst_us = 60 * 1000 * 1000;
    assert_int_equal(start(&waiting, vm, "local co, v = ... wait(co, 0) write(v, 3)", &value),
                     PL_COROUTINE_WAITS);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(start(&eating, vm, EAT, &value), PL_COROUTINE_FAILED);
        assert_string_equal(eating.error, "not enough memory");
        assert_int_equal(eating.failure, PL_COROUTINE_MEMORY);
        assert_idle(&eating);
        assert_usable(vm);
        assert_true(vm->memory_used_bytes < MEMORY_BYTES / 4);
    }
    assert_int_equal(pl_coroutine_resume(&waiting, 0), PL_COROUTINE_DONE);
    assert_int_equal(value, 3);
}

/** One that holds all the memory while it waits: others fail, nothing breaks, until it ends. */
static void test_out_of_memory_while_another_holds_it(void **state)
{
    struct pl_vm *vm = *state;
    struct pl_coroutine holding, other;
    int value = 0;
    int function = make_function(vm, "local t = {} for i = 1, 1000 do t[i] = { i } end");
    vm->limits.burst_us = 60 * 1000 * 1000;
    assert_int_equal(
        start(&holding, vm,
              "local co, v = ... local t = {} for i = 1, 1000 do t[i] = ('x'):rep(1000) .. i end\n"
              "wait(co, 0) write(v, #t)",
              &value),
        PL_COROUTINE_WAITS);
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    vm->limits.memory_bytes = vm->memory_used_bytes;
    pl_coroutine_init(&other, vm);
    assert_int_equal(pl_coroutine_open(&other), PL_ERR_LIMIT);
    assert_idle(&other);
    vm->limits.memory_bytes += 8192;
    open_with(&other, function, &value);
    assert_int_equal(pl_coroutine_resume(&other, 2), PL_COROUTINE_FAILED);
    assert_string_equal(other.error, "not enough memory");
    assert_int_equal(pl_coroutine_resume(&holding, 0), PL_COROUTINE_DONE);
    assert_int_equal(value, 1000);
    open_with(&other, function, &value);
    vm->limits.memory_bytes = MEMORY_BYTES;
    assert_int_equal(pl_coroutine_resume(&other, 2), PL_COROUTINE_DONE);
}

/** Memory ends at each place between opening and the end of a run. */
static void test_out_of_memory_anywhere(void **state)
{
    struct pl_vm *vm = *state;
    struct pl_coroutine coroutine;
    int value = 0;
    size_t open_fails = 0, run_fails = 0;
    enum pl_coroutine_result result = PL_COROUTINE_FAILED;
    int function = make_function(vm, "local co, v = ... local t = { co, v } wait(t[1], 0)\n"
                                     "write(t[2], #{ 1, 2, { 3 } })");
    lua_gc(vm->state, LUA_GCCOLLECT, 0);
    size_t base_bytes = vm->memory_used_bytes;
    for (size_t more_bytes = 0; value == 0; more_bytes += 61) {
        assert_true(more_bytes < 100000);
        vm->limits.memory_bytes = base_bytes + more_bytes;
        pl_coroutine_init(&coroutine, vm);
        if (pl_coroutine_open(&coroutine) != PL_OK) {
            assert_idle(&coroutine);
            open_fails++;
            continue;
        }
        lua_rawgeti(coroutine.thread, LUA_REGISTRYINDEX, function);
        lua_pushlightuserdata(coroutine.thread, &coroutine);
        lua_pushlightuserdata(coroutine.thread, &value);
        result = pl_coroutine_resume(&coroutine, 2);
        if (result == PL_COROUTINE_WAITS) {
            result = pl_coroutine_resume(&coroutine, 0);
        }
        assert_idle(&coroutine);
        run_fails += result == PL_COROUTINE_FAILED;
    }
    assert_int_equal(value, 3);
    assert_true(open_fails > 2 && run_fails > 2);
    vm->limits.memory_bytes = MEMORY_BYTES;
    assert_usable(vm);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_runs_to_its_end),
        TEST(test_waits_and_goes_on),
        TEST(test_waits_within_pcall),
        TEST(test_cannot_wait_within_a_c_function),
        TEST(test_many_wait_at_once),
        TEST(test_failure),
        TEST(test_a_long_message_is_cut),
        TEST(test_failure_after_a_wait),
        TEST(test_endless_recursion),
        TEST(test_overrun),
        TEST(test_overrun_of_all_bursts_together),
        TEST(test_short_bursts_are_free),
        TEST(test_reserve),
        TEST(test_overrun_after_a_wait),
        TEST(test_work_in_small_pieces_is_no_overrun),
        TEST(test_overrun_is_nobody_elses),
        TEST(test_close_while_waiting),
        TEST(test_close_before_the_start),
        TEST(test_vm_ends_first),
        TEST(test_a_thread_that_ended_well_is_used_again),
        TEST(test_other_threads_are_not_used_again),
        TEST(test_only_so_many_are_kept),
        TEST(test_out_of_memory_inside),
        TEST(test_out_of_memory_while_another_holds_it),
        TEST(test_out_of_memory_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
