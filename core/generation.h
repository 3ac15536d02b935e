/*
 * Generation: one configuration in force at one worker: its topology, the VM that its policies run
 * in, the pools of its upstream connections. Each request pins the generation it began on and ends
 * on it, whatever comes into force meanwhile.
 *
 *     new -> open -> (in force) -> retired -> closed -> freed
 *
 * Thread: made and loaded on the main thread (or one of its helpers), which then hands it to its
 * worker; from open to closed it is the worker's alone. A closed one belongs to the main thread
 * again, which frees it: the worker spends no time on taking a VM apart.
 */
#ifndef PL_GENERATION_H
#define PL_GENERATION_H

#include "base.h"
#include "charges.h"
#include "figures.h"
#include "pool.h"
#include "target.h"
#include "vm.h"
#include <event2/event.h>
#include <stdatomic.h>
#include <sys/queue.h>

struct pl_runtime;

struct pl_generation {
    const struct pl_topology *topology; /* borrowed */
    struct pl_runtime *runtime;         /* NULL until open */
    struct pl_vm *vm;
    int entry_ref;          /* registry: function(pointer) that runs the handler */
    int targets_ref;        /* registry: array of target objects */
    struct pl_pool **pools; /* by provider index; NULL until open */
    uint32_t *key_turns;    /* by provider index: whose turn it is, of its keys */
    size_t request_count;   /* that pin it */
    bool retired;           /* gets no new requests; closed with its last one */
    uint64_t end_at_ms;     /* when retired: its last requests are ended then */
    uint64_t number;        /* what operators know it by */
    /* shared with the other workers' generations of the same number; either may be NULL */
    struct pl_figures *figures;
    struct pl_charges *charges;
    TAILQ_ENTRY(pl_generation) link; /* in runtime->generations, from open to closed */
    _Atomic bool closed;
};

TAILQ_HEAD(pl_generation_list, pl_generation);

/** A VM over `topology`, empty yet. NULL when it does not fit its memory. */
struct pl_generation *pl_generation_new(const struct pl_vm_limits *limits,
                                        const struct pl_topology *topology);
/** Gives it to a worker's runtime, on the worker's thread or before that has started. */
void pl_generation_open(struct pl_generation *self, struct pl_runtime *runtime,
                        struct event_base *base, struct pl_resolver *resolver);
/** Takes over the idle upstream connections of `from` where both lead to the same place. */
void pl_generation_inherit(struct pl_generation *self, struct pl_generation *from);
/** The one that a new request of this runtime begins on; its request is counted. */
struct pl_generation *pl_generation_pin(struct pl_runtime *runtime);
/** A request that pinned it has ended. When it was a retired one's last, the runtime is told in a
 *  later turn of the loop. */
void pl_generation_unpin(struct pl_generation *self);
/** A policy of this generation has failed: `text` says where and why ("fallback.lua:12: ..."). Once
 *  per request at most; the request's policy_fault is for the caller to set. */
void pl_generation_charge(struct pl_generation *self, enum pl_policy_fault fault, const char *text);
/** Whether nothing needs it any more: no request, no attempt that is on its way out. */
bool pl_generation_is_idle(const struct pl_generation *self);
/** Frees the pools and takes leave of the runtime. It must be idle. The worker's last touch. */
void pl_generation_close(struct pl_generation *self);
/** Any thread. */
bool pl_generation_is_closed(const struct pl_generation *self);
/** Frees the VM, and the pools if it was never closed. No request may be left. NULL is let pass. */
void pl_generation_free(struct pl_generation *self);

#endif
