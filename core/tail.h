/*
 * Tail: how long something takes, as a distribution, in a few bytes: so that "longer than 95 in 100
 * of the last ones" can be told.
 *
 * Pure, any thread, one at a time; no pointers. Durations fall into buckets whose width grows with
 * them: exact below 8 ms, then eight to each doubling, so a quantile is off by at most an eighth.
 * What is old counts for less and less: whenever there are PL_TAIL_MAX_COUNT, all are halved.
 */
#ifndef PL_TAIL_H
#define PL_TAIL_H

#include "base.h"

#define PL_TAIL_MAX_COUNT 1024 /* from then on half of them are forgotten */
#define PL_TAIL_BUCKETS   136

struct pl_tail {
    uint16_t counts[PL_TAIL_BUCKETS];
    uint16_t sum_count;
};

void pl_tail_add(struct pl_tail *self, uint32_t duration_ms);
/** The duration that `ratio` (0..1) of them do not exceed; 0 while there are fewer than
 *  `min_count`. */
double pl_tail_quantile_ms(const struct pl_tail *self, double ratio, uint32_t min_count);

#endif
