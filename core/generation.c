/*
 * Generation: see generation.h.
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
    self->entry_ref = self->targets_ref = LUA_NOREF;
    self->vm = pl_bind_vm_new(limits, self);
    if (self->vm)
        return self;
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
}

void pl_generation_charge(struct pl_generation *self, enum pl_policy_fault fault, const char *text)
{
    if (self->charges)
        pl_charges_add(self->charges, fault, text);
}

void pl_generation_free(struct pl_generation *self)
{
    if (!self)
        return;
    assert(self->request_count == 0);
    for (size_t i = 0; self->pools && i < self->topology->provider_count; i++)
        pl_pool_free(self->pools[i]);
    free(self->pools);
    pl_vm_free(self->vm);
    free(self);
}
