/*
 * VM, ticker: makes sure that the clock is looked at in time. A hook fires after so many
 * instructions, and a single one may take milliseconds (joining or comparing texts of megabytes):
 * ten thousand of them would be minutes. So each worker's thread has a timer on its own CPU clock,
 * whose signal has the hook fire at the next instruction. It costs nothing while the thread rests,
 * and nothing per request.
 *
 * Thread: one per thread that runs policies. Without it, as in tests, hooks work as ever.
 */
#ifndef PL_VM_TICKER_H
#define PL_VM_TICKER_H

#include "base.h"

struct pl_vm;

/** Starts the calling thread's. 0, or PL_ERR_SYSTEM where the system has no such timers. */
PL_NODISCARD int pl_vm_ticker_start(void);
/** Ends the calling thread's. Idempotent. */
void pl_vm_ticker_stop(void);

/** The VM that runs on this thread from now on; NULL: none does. */
void pl_vm_ticker_watch(struct pl_vm *vm);

#endif
