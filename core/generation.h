/*
 * Generation: one configuration in force at one worker: its topology, the VM that its policies run
 * in, the pools of its upstream connections. Each request pins the generation it began on and ends
 * on it, whatever comes into force meanwhile.
 *
 * Thread: made and loaded on the main thread, which then hands it to its worker; from
 * pl_generation_open on it is the worker's alone.
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

struct pl_runtime;

struct pl_generation {
    const struct pl_topology *topology; /* borrowed */
    struct pl_runtime *runtime;         /* NULL until open */
    struct pl_vm *vm;
    int entry_ref;          /* registry: function(pointer) that runs the handler */
    int targets_ref;        /* registry: array of target objects */
    struct pl_pool **pools; /* by provider index; NULL until open */
    size_t request_count;   /* that pin it */
    /* shared with the other workers' generations of the same number; either may be NULL */
    struct pl_figures *figures;
    struct pl_charges *charges;
};

/** A VM over `topology`, empty yet. NULL when it does not fit its memory. */
struct pl_generation *pl_generation_new(const struct pl_vm_limits *limits,
                                        const struct pl_topology *topology);
/** Gives it to a worker's runtime, on the worker's thread or before that has started. */
void pl_generation_open(struct pl_generation *self, struct pl_runtime *runtime,
                        struct event_base *base, struct pl_resolver *resolver);
/** A policy of this generation has failed: `text` says where and why ("fallback.lua:12: ..."). Once
 *  per request at most; the request's policy_fault is for the caller to set. */
void pl_generation_charge(struct pl_generation *self, enum pl_policy_fault fault, const char *text);
/** Frees VM and pools. No request may be left. NULL is let pass. */
void pl_generation_free(struct pl_generation *self);

#endif
