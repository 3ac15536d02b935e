/*
 * VM: one Lua state with a memory cap, a CPU budget, and nothing a policy could hurt others with.
 *
 * Thread: one; a VM never moves. No sockets, no HTTP. The JIT compiler stays off: compiled code
 * calls no hooks, so nothing could stop a policy that loops (and it was measured to bring nothing).
 * Library modules are embedded sources (bundle.h) and run with the full set of safe libraries;
 * policies run in an environment of their own, see pl_vm_load_policy.
 */
#ifndef PL_VM_H
#define PL_VM_H

#include "base.h"
#include "pattern.h"
#include <lua.h>

/* Of string patterns, between two looks at the clock: some 0.1 ms, which no usual match reaches. */
#define PL_VM_STEPS_PER_LOOK 50000

struct pl_vm_limits {
    size_t memory_bytes; /* for everything the state allocates */
    uint32_t burst_us;   /* CPU between two yields */
    uint32_t request_us; /* CPU of a coroutine over all its bursts; 0: no limit */
};

/** Which budget stopped a burst. */
enum pl_overrun { PL_OVERRUN_NONE, PL_OVERRUN_BURST, PL_OVERRUN_REQUEST };

/** CPU of the thread between two ticks of vm_ticker.h. */
#define PL_VM_TICK_US 10000

/** More memory than its limit, for what must run when a VM is full: see pl_vm_begin_burst. */
#define PL_VM_RESERVE_BYTES (4u * 1024 * 1024)

/** Of the message of a failed coroutine, its end included. */
#define PL_VM_ERROR_BYTES 512

/** A thread of the state, for coroutine.c. */
struct pl_vm_thread {
    lua_State *state;
    int ref; /* its place in the registry */
};

struct pl_vm {
    lua_State *state;
    struct pl_vm_limits limits;
    size_t memory_used_bytes;
    uint64_t burst_start_us; /* thread CPU at the first hook of this burst; 0: none yet */
    uintptr_t stack_start;   /* where the C stack was when this burst began */
    size_t unchecked_bytes;  /* asked for since the clock was last looked at for it */
    bool check_soon;         /* it has been enough to look at the clock at once */
    volatile bool tick;      /* a signal wants the clock looked at, see vm_ticker.h */
    uint64_t ticked_us;      /* charged to this burst for ticks that came before its start mark */
    uint64_t work_start_us;  /* as burst_start_us, at the first such look */
    struct pl_pattern_budget patterns; /* steps left until the clock is looked at for them */
    uint64_t spent_us;                 /* by the running coroutine in its earlier bursts */
    uint64_t burst_count;              /* so far; tells apart what was begun in which */
    size_t reserve_bytes;              /* what this burst may take above its limit */
    enum pl_overrun overrun;           /* the running burst was stopped by that budget */
    char overrun_at[128];              /* "file:line" where that happened */
    bool starved;                      /* memory has run out since the last full collection */
    uint32_t log_line_count;           /* written while no request runs */
    char error[PL_VM_ERROR_BYTES];     /* of the coroutine that has failed last */
    void *user;                        /* the owner's; see pl_vm_of */
    struct pl_vm_thread idle[64];      /* coroutines that wait for work */
    size_t idle_count;
};

/** NULL when the state does not fit its memory. */
struct pl_vm *pl_vm_new(const struct pl_vm_limits *limits);
void pl_vm_free(struct pl_vm *self);
/** The VM that a state or coroutine belongs to. */
struct pl_vm *pl_vm_of(lua_State *L);

/** Makes `require "name"` in library code return what `open` (a lua_CFunction) leaves. */
void pl_vm_preload(struct pl_vm *self, const char *name, lua_CFunction open);

/**
 * Runs `fn(L, arg)` protected; what it leaves is dropped. 0, or PL_ERR_SYNTAX with the message in
 * `error`.
 */
PL_NODISCARD int pl_vm_call(struct pl_vm *self, void (*fn)(lua_State *L, void *arg), void *arg,
                            char *error, size_t error_size);

/**
 * Compiles a policy's source (text only, never bytecode) and leaves its chunk on the stack, with an
 * environment that holds the safe functions and refuses new globals. Raises Lua errors: call inside
 * pl_vm_call. `name` is what messages show ("fallback.lua").
 */
void pl_vm_load_policy(lua_State *L, const char *source, size_t len, const char *name);

/**
 * From now on what was compiled of the library is kept for the VMs that are made later. For
 * commands that make many of them, on one thread.
 */
void pl_vm_keep_compiled(void);

/** `require` for library code, from C: leaves the module on the stack. Raises Lua errors. */
void pl_vm_require(lua_State *L, const char *name);

/**
 * Collects all garbage if memory has run out: LuaJIT does not try that itself before it fails, so
 * what one policy left behind would fail the next ones.
 */
void pl_vm_recover(struct pl_vm *self);
/** Starts a new burst, after pl_vm_recover: called before each entry. */
void pl_vm_begin_burst(struct pl_vm *self);
/**
 * CPU that the burst has taken, as far as it is known: from the first time that the clock was
 * looked at in it, and a whole tick for one that came before. That is exact on average, however
 * short the bursts are; a burst without a look, which is the usual one, takes none here either, and
 * is 0.
 */
uint64_t pl_vm_burst_us(const struct pl_vm *self);

/**
 * Where in a policy's file the thread is, or was when it failed: "fallback.lua:12". "" when in
 * none, or when the line is not known.
 */
void pl_vm_find_place(lua_State *L, char *out, size_t size);
/** Has the hook fire at the next instruction, to look at the clock. From signal handlers, too. */
void pl_vm_look_soon(struct pl_vm *self);
/**
 * For C code that computes for long where no hook fires: looks at the clock, and when the burst's
 * budget is used up marks the VM as overrun and raises an error. A policy that catches it is
 * stopped at its next instruction.
 */
void pl_vm_check_budget(lua_State *L);
/** Takes steps for such work; every so many, pl_vm_check_budget. May raise its error. */
void pl_vm_spend(lua_State *L, size_t step_count);

#endif
