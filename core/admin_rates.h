/*
 * Admin rates: what happened in each of the last sixty seconds, all generations together: requests,
 * how they ended, first tokens. From figures that only grow (figures.h), looked at once a second.
 *
 * Thread: the main thread.
 */
#ifndef PL_ADMIN_RATES_H
#define PL_ADMIN_RATES_H

#include "figures.h"
#include "reload.h"

#define PL_RATES_SECONDS 60

/** How the figures of an edition stood. */
struct pl_rates_seen {
    uint64_t number;
    struct pl_figures_view view;
};

struct pl_rates {
    struct pl_figures_view seconds[PL_RATES_SECONDS]; /* a ring */
    uint64_t lengths_ms[PL_RATES_SECONDS];            /* how long each really was; 0: not yet */
    size_t next;
    uint64_t ticked_ms;
    struct pl_rates_seen *seen;
    size_t seen_count;
};

void pl_rates_deinit(struct pl_rates *self);
/** A second has passed. */
void pl_rates_tick(struct pl_rates *self, const struct pl_reload_state *state, uint64_t now_ms);
/** The sum of the last `count` seconds, and how long they were. */
void pl_rates_sum(const struct pl_rates *self, size_t count, struct pl_figures_view *out,
                  uint64_t *length_ms);
/** One of them; 0 is the last. NULL when there is none yet. */
const struct pl_figures_view *pl_rates_second(const struct pl_rates *self, size_t ago);

#endif
