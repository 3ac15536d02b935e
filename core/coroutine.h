/*
 * Coroutine: one policy run. Start, wait, resume; cancelling is dropping.
 *
 * Thread: the VM's. At most one pending operation at a time, named by a static label ("head of
 * openai-eu"). Whoever ends the wait calls pl_coroutine_resume and passes no values: the
 * operation's result is fetched by C code inside the coroutine (its continuation), where an
 * allocation failure is an ordinary Lua error.
 */
#ifndef PL_COROUTINE_H
#define PL_COROUTINE_H

#include "base.h"
#include "vm.h"

enum pl_coroutine_state {
    PL_COROUTINE_IDLE,    /* no Lua thread */
    PL_COROUTINE_RUNNING, /* inside lua_resume */
    PL_COROUTINE_WAITING, /* yielded */
};

enum pl_coroutine_result {
    PL_COROUTINE_DONE,    /* the function returned */
    PL_COROUTINE_WAITS,   /* it yielded; resume it later */
    PL_COROUTINE_FAILED,  /* it raised an error; see error */
    PL_COROUTINE_OVERRUN, /* a CPU budget stopped it */
};

/** Why a coroutine has failed or was stopped. */
enum pl_coroutine_failure {
    PL_COROUTINE_RAISED,      /* an error of its own */
    PL_COROUTINE_CPU_BURST,   /* too long without a pause */
    PL_COROUTINE_CPU_REQUEST, /* too long in all */
    PL_COROUTINE_MEMORY,      /* the VM's memory did not suffice */
};

struct pl_coroutine {
    struct pl_vm *vm;
    lua_State *thread;
    int ref;
    enum pl_coroutine_state state;
    const char *waits_for; /* static label, NULL when not waiting */
    uint64_t spent_us;     /* CPU of the bursts so far, as far as pl_vm_burst_us tells */
    bool has_reserve;      /* may use the VM's reserve of memory; set before open */
    enum pl_coroutine_failure failure; /* the kind of the last failure */
    char *error; /* and its message, one line, which begins with "file:line" or our own. The VM's,
                    until the next failure in it: PL_VM_ERROR_BYTES */
};

void pl_coroutine_init(struct pl_coroutine *self, struct pl_vm *vm);
/** Takes a thread from the VM. 0, or PL_ERR_LIMIT when memory is out. */
PL_NODISCARD int pl_coroutine_open(struct pl_coroutine *self);
/** Runs or goes on with what is on the thread's stack: function and `arg_count` arguments at first.
 */
enum pl_coroutine_result pl_coroutine_resume(struct pl_coroutine *self, int arg_count);
/** Drops the thread. Idempotent. Not while running. */
void pl_coroutine_close(struct pl_coroutine *self);
/** Inside a lua_CFunction: marks what is waited for and yields. */
int pl_coroutine_yield(struct pl_coroutine *self, lua_State *L, const char *waits_for);

#endif
