/*
 * VM, ticker: see vm_ticker.h. LuaJIT lets lua_sethook be called from a signal handler (its own
 * command line does so); beyond that the handler writes nothing but a flag of the VM.
 */
#include "vm_ticker.h"
#include "vm.h"
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS (PL_VM_TICK_US * 1000)

#ifndef sigev_notify_thread_id /* glibc before 2.37 does not name it */
#define sigev_notify_thread_id _sigev_un._tid
#endif

static _Thread_local struct pl_vm *volatile watched;
static _Thread_local timer_t timer;
static _Thread_local bool started;

static void on_tick(int signal_number)
{
    (void)signal_number;
    struct pl_vm *vm = watched;
    if (vm)
        pl_vm_look_soon(vm);
}

void pl_vm_ticker_watch(struct pl_vm *vm)
{
    watched = vm;
    atomic_signal_fence(memory_order_seq_cst);
}

int pl_vm_ticker_start(void)
{
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerspec interval = {.it_interval = {0, TICK_NS}, .it_value = {0, TICK_NS}};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    event.sigev_notify_thread_id = gettid();
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGRTMIN, &action, NULL) != 0 ||
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) != 0)
        return PL_ERR_SYSTEM;
    started = true;
    if (timer_settime(timer, 0, &interval, NULL) == 0)
        return PL_OK;
    pl_vm_ticker_stop();
    return PL_ERR_SYSTEM;
}

void pl_vm_ticker_stop(void)
{
    if (started)
        timer_delete(timer);
    started = false;
}
