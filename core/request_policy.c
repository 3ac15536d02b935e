/*
 * Request, its policy: see request.h. Runs it, wakes it, and serves the request with the built-in
 * floor policy (lua/perilune/floor.lua) when it has failed before anything went to the client.
 *
 * What the failed policy has done to the request is undone first: its try, its edits, its deadline,
 * its places in queues and in the retry budget. Tries that it has made stay in the trail and in the
 * health of their targets: nothing of their answers was seen by the client. The floor policy runs
 * in a coroutine of its own, with a CPU budget of its own, what is left of the route's deadline,
 * and a reserve of memory. When it fails, too, there is no third.
 *
 * Re-entry: running Lua may start, drop or answer anything; after it the request may be gone. So
 * every caller does that last and touches nothing afterwards.
 */
#include "bind.h"
#include "log.h"
#include "request.h"
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* Pushes entry(pointer, floor) onto a new thread: none of that can fail for want of memory. */
static int open_policy(struct pl_request *self)
{
    pl_coroutine_init(&self->coroutine, self->generation->vm);
    self->coroutine.has_reserve = self->floor;
    if (pl_coroutine_open(&self->coroutine) != PL_OK)
        return PL_ERR_LIMIT;
    lua_State *L = self->coroutine.thread;
    lua_rawgeti(L, LUA_REGISTRYINDEX, self->generation->entry_ref);
    lua_pushlightuserdata(L, self);
    lua_pushboolean(L, self->floor);
    return PL_OK;
}

/* ---- failure ------------------------------------------------------------------------------- */

static enum pl_policy_fault fault_of(const struct pl_request *self, enum pl_coroutine_result result)
{
    if (result == PL_COROUTINE_DONE)
        return PL_POLICY_FAULT_NO_ANSWER;
    if (result == PL_COROUTINE_WAITS)
        return PL_POLICY_FAULT_ERROR;
    switch (self->coroutine.failure) {
    case PL_COROUTINE_CPU_BURST:
        return PL_POLICY_FAULT_CPU_BURST;
    case PL_COROUTINE_CPU_REQUEST:
        return PL_POLICY_FAULT_CPU_TOTAL;
    case PL_COROUTINE_MEMORY:
        return PL_POLICY_FAULT_MEMORY;
    case PL_COROUTINE_RAISED:
        break;
    }
    return PL_POLICY_FAULT_ERROR;
}

/* Once per request; a deadline that has passed fails every wait, and is not the policy's fault. */
static void charge(struct pl_request *self, enum pl_policy_fault fault)
{
    if (self->policy_fault != PL_POLICY_FAULT_NONE || self->past_deadline)
        return;
    self->policy_fault = fault;
    self->fault_ms = (uint32_t)(pl_now_ms() - self->start_ms);
    self->fault_trail_index = self->trail_count;
    pl_generation_charge(self->generation, fault, self->coroutine.error);
}

static bool may_fall_to_floor(const struct pl_request *self)
{
    return self->exchange && !self->committed && !self->past_deadline && !self->floor &&
           !self->refuses_floor && !self->runtime->is_simulator;
}

static void log_failure(const struct pl_request *self, enum pl_policy_fault fault)
{
    const char *name = self->floor ? "floor" : self->policy ? self->policy : "(none yet)";
    pl_log(PL_LOG_ERROR, "request %s: policy %s failed (%s)%s: %s", self->id, name,
           pl_policy_fault_name(fault),
           may_fall_to_floor(self) ? ", the floor policy takes over" : "", self->coroutine.error);
}

static void answer_for_policy_error(struct pl_request *self)
{
    if (!self->exchange)
        return;
    if (self->at_seam)
        pl_request_give_up(self);
    else if (self->committed)
        pl_request_abort(self, false);
    else if (self->past_deadline)
        pl_request_fail(self, 504, "timeout_deadline",
                        "The request's deadline passed before there was an answer.");
    else
        pl_request_fail(self, 500, "policy_error",
                        "The gateway's policy failed while it handled this request.");
}

/* ---- the floor ----------------------------------------------------------------------------- */

static void undo(struct pl_request *self)
{
    pl_request_leave_queue(self);
    pl_request_leave_retries(self);
    pl_request_drop_edits(self);
    pl_request_stop_timer(self);
    self->give_up_code[0] = '\0';
    self->give_up_retry_ms = 0;
    self->keep_ms = self->within_ms = 0;
    self->wait = PL_WAIT_NONE;
    self->serial++; /* what the failed policy has kept is stale */
    if (self->route_deadline_ms > 0)
        pl_request_set_deadline(self, self->route_deadline_ms);
}

static int start_floor(struct pl_request *self)
{
    undo(self);
    self->floor = true;
    int rc = open_policy(self);
    if (rc != PL_OK)
        pl_log(PL_LOG_ERROR, "request %s: policy floor failed (memory): it cannot begin", self->id);
    return rc;
}

/* ---- running ------------------------------------------------------------------------------- */

static void run(struct pl_request *self, int arg_count);

static void policy_failed(struct pl_request *self, enum pl_policy_fault fault)
{
    pl_request_drop_answer(self); /* tries that are still at work belong before the fault */
    charge(self, fault);
    log_failure(self, fault);
    if (may_fall_to_floor(self) && start_floor(self) == PL_OK) {
        run(self, 2);
        return;
    }
    answer_for_policy_error(self);
    pl_request_end(self);
}

static void policy_ended(struct pl_request *self, enum pl_coroutine_result result)
{
    struct pl_coroutine *coroutine = &self->coroutine;
    if (result == PL_COROUTINE_WAITS && self->wait != PL_WAIT_NONE)
        return;
    if (result == PL_COROUTINE_WAITS) {
        snprintf(coroutine->error, PL_VM_ERROR_BYTES, "yielded by itself");
        pl_coroutine_close(coroutine);
    }
    if (result == PL_COROUTINE_DONE && self->exchange)
        snprintf(coroutine->error, PL_VM_ERROR_BYTES, "it returned without an answer");
    if (result != PL_COROUTINE_DONE || self->exchange)
        policy_failed(self, fault_of(self, result));
    else
        pl_request_end(self);
}

static void run(struct pl_request *self, int arg_count)
{
    struct pl_runtime *runtime = self->runtime;
    assert(!runtime->running);
    runtime->running = self;
    if (runtime->watch)
        pl_watch_enter(runtime->watch, self->id);
    enum pl_coroutine_result result = pl_coroutine_resume(&self->coroutine, arg_count);
    if (runtime->watch)
        pl_watch_leave(runtime->watch);
    runtime->running = NULL;
    policy_ended(self, result);
}

void pl_request_run_policy(struct pl_request *self)
{
    if (open_policy(self) == PL_OK) {
        run(self, 2);
        return;
    }
    snprintf(self->coroutine.error, PL_VM_ERROR_BYTES,
             "not enough memory to begin: other requests or the policies' files hold it");
    policy_failed(self, PL_POLICY_FAULT_MEMORY);
}

void pl_request_wake(struct pl_request *self, enum pl_wait wait)
{
    if (self->wait != wait || self->coroutine.state != PL_COROUTINE_WAITING)
        return;
    self->wait = PL_WAIT_NONE;
    run(self, 0);
}
