/*
 * Generation: see generation.h.
 *
 * Atomics: `closed` is written once, by the worker (release), as its last touch; the main thread
 * reads it (acquire) and may then free what the worker has used.
 */
#include "generation.h"
#include "bind.h"
#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>

struct pl_generation *pl_generation_new(const struct pl_vm_limits *limits,
                                        const struct pl_topology *topology)
{
    struct pl_generation *self = pl_xcalloc(1, sizeof(*self));
    self->topology = topology;
    self->key_turns = pl_xcalloc(topology->provider_count + 1, sizeof(*self->key_turns));
    self->entry_ref = self->targets_ref = LUA_NOREF;
    self->vm = pl_bind_vm_new(limits, self);
    if (self->vm)
        return self;
    free(self->key_turns);
    free(self);
    return NULL;
}

void pl_generation_open(struct pl_generation *self, struct pl_runtime *runtime,
                        struct event_base *base, struct pl_resolver *resolver)
{
    size_t count = self->topology->provider_count;
    self->runtime = runtime;
    self->pools = pl_xcalloc(count + 1, sizeof(struct pl_pool *));
    for (size_t i = 0; i < count; i++)
        self->pools[i] = pl_pool_new(base, resolver, &self->topology->providers[i].endpoint);
    TAILQ_INSERT_TAIL(&runtime->generations, self, link);
}

/* ---- warm connections ---- */

/* The same place, under the same name, with the same headers. Keys do not matter: each request
 * carries its own, and a connection is bound to none of them. */
static bool is_same_provider(const struct pl_provider *a, const struct pl_provider *b)
{
    if (strcmp(a->name, b->name) != 0 || !pl_endpoint_equal(&a->endpoint, &b->endpoint) ||
        a->auth != b->auth || a->headers.count != b->headers.count)
        return false;
    for (size_t i = 0; i < a->headers.count; i++) {
        if (!pl_str_equal(pl_headers_name(&a->headers, i), pl_headers_name(&b->headers, i)) ||
            !pl_str_equal(pl_headers_value(&a->headers, i), pl_headers_value(&b->headers, i)))
            return false;
    }
    return true;
}

void pl_generation_inherit(struct pl_generation *self, struct pl_generation *from)
{
    const struct pl_topology *ours = self->topology, *theirs = from->topology;
    for (size_t i = 0; i < ours->provider_count; i++) {
        for (size_t j = 0; j < theirs->provider_count; j++) {
            if (is_same_provider(&ours->providers[i], &theirs->providers[j]))
                pl_pool_move_idle(self->pools[i], from->pools[j]);
        }
    }
}

/* ---- requests ---- */

struct pl_generation *pl_generation_pin(struct pl_runtime *runtime)
{
    struct pl_generation *self = runtime->current;
    if (runtime->canary && pl_random_unit() < runtime->canary_ratio)
        self = runtime->canary;
    self->request_count++;
    if (self->topology->gauge)
        pl_gauge_request_begin(self->topology->gauge);
    if (self->figures)
        pl_figures_begin(self->figures);
    return self;
}

void pl_generation_unpin(struct pl_generation *self)
{
    assert(self->request_count > 0);
    if (self->topology->gauge)
        pl_gauge_request_end(self->topology->gauge);
    if (--self->request_count == 0 && self->retired && self->runtime->retire_event)
        event_active(self->runtime->retire_event, EV_TIMEOUT, 0);
}

void pl_generation_charge(struct pl_generation *self, enum pl_policy_fault fault, const char *text)
{
    if (self->charges)
        pl_charges_add(self->charges, fault, text);
}

/* ---- the end ---- */

bool pl_generation_is_idle(const struct pl_generation *self)
{
    if (self->request_count > 0)
        return false;
    for (size_t i = 0; i < self->topology->provider_count; i++) {
        if (!pl_pool_is_quiet(self->pools[i]))
            return false;
    }
    return true;
}

static void free_pools(struct pl_generation *self)
{
    for (size_t i = 0; self->pools && i < self->topology->provider_count; i++)
        pl_pool_free(self->pools[i]);
    free(self->pools);
    self->pools = NULL;
}

void pl_generation_close(struct pl_generation *self)
{
    assert(self->request_count == 0);
    free_pools(self);
    TAILQ_REMOVE(&self->runtime->generations, self, link);
    atomic_store_explicit(&self->closed, true, memory_order_release);
}

bool pl_generation_is_closed(const struct pl_generation *self)
{
    return atomic_load_explicit(&self->closed, memory_order_acquire);
}

void pl_generation_free(struct pl_generation *self)
{
    if (!self)
        return;
    assert(self->request_count == 0);
    free_pools(self);
    pl_vm_free(self->vm);
    free(self->key_turns);
    free(self);
}
