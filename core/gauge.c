/*
 * Gauge: see gauge.h. Relaxed order everywhere: the counts stand for themselves, nothing else is
 * published through them. A place is taken by compare-and-swap, so that a bound is never passed.
 */
#include "gauge.h"
#include <stdatomic.h>
#include <stdlib.h>

struct pl_gauge {
    _Atomic uint32_t request_count; /* written by every worker at begin and end of a request */
    _Atomic uint32_t retry_count;   /* written by candidates, given back at the request's end */
    uint32_t slot_count;
    _Atomic uint32_t queued[]; /* by health slot */
};

struct pl_gauge *pl_gauge_new(uint32_t slot_count)
{
    struct pl_gauge *self =
        pl_xcalloc(1, sizeof(*self) + (size_t)slot_count * sizeof(self->queued[0]));
    self->slot_count = slot_count;
    return self;
}

void pl_gauge_free(struct pl_gauge *self)
{
    free(self);
}

static bool take_place(_Atomic uint32_t *count, uint32_t max_count)
{
    uint32_t seen = atomic_load_explicit(count, memory_order_relaxed);
    while (seen < max_count) {
        if (atomic_compare_exchange_weak_explicit(count, &seen, seen + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

static void give_back(_Atomic uint32_t *count)
{
    atomic_fetch_sub_explicit(count, 1, memory_order_relaxed);
}

void pl_gauge_request_begin(struct pl_gauge *self)
{
    atomic_fetch_add_explicit(&self->request_count, 1, memory_order_relaxed);
}

void pl_gauge_request_end(struct pl_gauge *self)
{
    give_back(&self->request_count);
}

bool pl_gauge_retry_begin(struct pl_gauge *self, double ratio, uint32_t min_count)
{
    double share = ratio * atomic_load_explicit(&self->request_count, memory_order_relaxed);
    uint32_t allowed = share > min_count ? (uint32_t)share : min_count;
    return take_place(&self->retry_count, allowed);
}

void pl_gauge_retry_end(struct pl_gauge *self)
{
    give_back(&self->retry_count);
}

uint32_t pl_gauge_requests(const struct pl_gauge *self)
{
    return atomic_load_explicit(&self->request_count, memory_order_relaxed);
}

uint32_t pl_gauge_retries(const struct pl_gauge *self)
{
    return atomic_load_explicit(&self->retry_count, memory_order_relaxed);
}

bool pl_gauge_queue_enter(struct pl_gauge *self, uint32_t slot, uint32_t max_count)
{
    return slot < self->slot_count && take_place(&self->queued[slot], max_count);
}

void pl_gauge_queue_leave(struct pl_gauge *self, uint32_t slot)
{
    give_back(&self->queued[slot]);
}

uint32_t pl_gauge_queued(const struct pl_gauge *self, uint32_t slot)
{
    if (slot >= self->slot_count)
        return 0;
    return atomic_load_explicit(&self->queued[slot], memory_order_relaxed);
}
