/*
 * Strikes: have a generation's policies failed `max_count` times within `window_ms`?
 *
 * Thread: one (the main thread merges what the workers report). Pure: times come in, no clock, no
 * allocation. Both edges are exact: that many failures whose first and last lie exactly window_ms
 * apart are struck, one millisecond more and they are not.
 *
 * Reports of several workers may come out of order; a time may be up to window_ms older than the
 * newest one and still finds its place. One that is older than that is left out, in which case a
 * strike wholly in that past goes unseen. Once struck it stays struck until the next init.
 */
#ifndef PL_STRIKES_H
#define PL_STRIKES_H

#include "base.h"

#define PL_STRIKES_MAX_COUNT 64

struct pl_strikes {
    uint64_t window_ms;
    uint32_t max_count; /* 0: never struck */
    uint32_t kept_count;
    bool struck;
    uint64_t times_ms[2 * PL_STRIKES_MAX_COUNT]; /* the latest ones, ascending */
};

/** Empties it. PL_ERR_LIMIT, and then never struck, when max_count is above PL_STRIKES_MAX_COUNT;
 *  max_count 0 switches the rule off. */
PL_NODISCARD int pl_strikes_init(struct pl_strikes *self, uint32_t max_count, uint64_t window_ms);
/** One failure. True when this one made it struck, which happens once. */
bool pl_strikes_add(struct pl_strikes *self, uint64_t at_ms);
bool pl_strikes_is_struck(const struct pl_strikes *self);
/** Failures in the window that ends at now_ms; of what is kept, at most 2 x max_count - 1. */
uint32_t pl_strikes_recent_count(const struct pl_strikes *self, uint64_t now_ms);

#endif
