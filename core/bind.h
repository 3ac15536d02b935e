/*
 * Bind: the Lua classes over requests, answers and targets, and the library's way down into C.
 *
 * Thread: the runtime's worker. Every object that Lua holds is a box with a serial number: what has
 * ended is recognised and refused, never reached. Functions that wait come in two halves,
 * `..._begin` which yields and `..._result` which runs inside the coroutine afterwards;
 * perilune.boot joins them into methods. Nothing here is visible to policies but through those
 * methods.
 */
#ifndef PL_BIND_H
#define PL_BIND_H

#include "request.h"
#include <lua.h>

/**
 * A VM with the library's native modules. `generation` may be NULL where no request will run
 * (checking a configuration). NULL when it does not fit its memory.
 */
struct pl_vm *pl_bind_vm_new(const struct pl_vm_limits *limits, struct pl_generation *generation);

/** The generation of a state. */
struct pl_generation *pl_bind_generation(lua_State *L);

/* ---- bind_box.c ---- */

/** What every object that Lua holds begins with: its class, by the address of its name. */
struct pl_bind_box {
    const char *class;
};
/** Pushes the class's metatable, which is new and empty the first time. */
void pl_bind_push_class(lua_State *L, const char *class);
/** Pushes a new object of `size` bytes, of which the caller fills all but the head. */
void *pl_bind_push_box(lua_State *L, size_t size, const char *class);
/** The object in argument `index`; raises an error for anything else. */
void *pl_bind_check_box(lua_State *L, int index, const char *class);
/** Keeps the object on top of the stack as that of `owner`, instead of the one before. */
void pl_bind_keep_box(lua_State *L, const void *owner);
/** Pushes the object kept for `owner`; without one, nothing, and returns NULL. */
void *pl_bind_push_kept_box(lua_State *L, const void *owner);

/* ---- bind_request.c ---- */

/** Adds the request's functions and its class to the native table on top of the stack. */
void pl_bind_request(lua_State *L);
/** The request whose policy runs right now; raises an error when none does. */
struct pl_request *pl_bind_running_request(lua_State *L);
/** Counts a log line of the request's policy; false, after one line that says so, when it has had
 * all that it may. */
PL_NODISCARD bool pl_bind_may_log(struct pl_request *request);
/** The live request in argument `index`; raises an error when it has ended. */
struct pl_request *pl_bind_check_request(lua_State *L, int index);
/** Raises an error where the request's policy cannot wait: within table.sort and the like. */
void pl_bind_check_yieldable(lua_State *L);
/** The same, and once the request's deadline has passed: nothing would end the wait. */
void pl_bind_check_wait(lua_State *L, const struct pl_request *request);
/** Reads a Lua table of headers (name = value) at `index` into `out`; raises on invalid ones. */
void pl_bind_check_headers(lua_State *L, int index, struct pl_headers *out);

/**
 * Starts a try of the request in argument 1 at the target in argument 2; the caller then waits for
 * PL_WAIT_ANSWER. NULL, and nothing to wait for, when the deadline has passed. Raises an error when
 * it may not be sent, or not now.
 */
struct pl_request *pl_bind_check_send(lua_State *L);

/* ---- bind_hedge.c ---- */

void pl_bind_hedge(lua_State *L);

/* ---- bind_json.c ---- */

void pl_bind_json(lua_State *L);

/* ---- bind_response.c ---- */

void pl_bind_response(lua_State *L);
/** Pushes the request's live answer, or nil. */
void pl_bind_push_response(lua_State *L, struct pl_request *request);
/** Raises an error unless argument `index` is the request's live answer. */
void pl_bind_check_response(lua_State *L, int index, struct pl_request *request);

/* ---- bind_stream.c ---- */

void pl_bind_stream(lua_State *L);

/* ---- bind_health.c ---- */

void pl_bind_health(lua_State *L);
/** Pushes what target:health() gives. Any Lua state. */
void pl_bind_push_health(lua_State *L, const struct pl_topology *topology,
                         const struct pl_target *target);
/** The milliseconds in argument `index`, rounded up; raises an error for what is no duration. */
uint64_t pl_bind_check_duration_ms(lua_State *L, int index);

/* ---- bind_explain.c ---- */

void pl_bind_explain(lua_State *L);

/* ---- bind_target.c ---- */

void pl_bind_target(lua_State *L);
/** Makes the registry's array of target objects. */
void pl_bind_make_targets(lua_State *L, struct pl_generation *generation);
/** The target in argument `index`; raises an error for anything else. */
const struct pl_target *pl_bind_check_target(lua_State *L, int index);
void pl_bind_push_target(lua_State *L, struct pl_generation *generation,
                         const struct pl_target *target);

#endif
