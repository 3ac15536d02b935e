/*
 * Gauge: the few counts that all workers share besides health: requests in work, how many of them
 * are retrying, and who waits in a target's queue.
 *
 * Thread: any; lock-free. One flat block without pointers. Each count is moved by its own pair of
 * functions, and whoever took a place gives it back.
 */
#ifndef PL_GAUGE_H
#define PL_GAUGE_H

#include "base.h"

struct pl_gauge;

/** Room for `slot_count` queues, by the health slots of their targets: so requests of two
 *  generations count together. */
struct pl_gauge *pl_gauge_new(uint32_t slot_count);
void pl_gauge_free(struct pl_gauge *self);

void pl_gauge_request_begin(struct pl_gauge *self);
void pl_gauge_request_end(struct pl_gauge *self);

/**
 * Takes a place among the retrying requests: at most `ratio` of the requests in work, but never
 * fewer than `min_count` (Envoy's retry budget). False when there is none.
 */
PL_NODISCARD bool pl_gauge_retry_begin(struct pl_gauge *self, double ratio, uint32_t min_count);
void pl_gauge_retry_end(struct pl_gauge *self);

/** Requests in work, and how many of them are retrying. */
uint32_t pl_gauge_requests(const struct pl_gauge *self);
uint32_t pl_gauge_retries(const struct pl_gauge *self);

/** Takes a place in a target's queue; false when `max_count` wait there already. */
PL_NODISCARD bool pl_gauge_queue_enter(struct pl_gauge *self, uint32_t slot, uint32_t max_count);
void pl_gauge_queue_leave(struct pl_gauge *self, uint32_t slot);
uint32_t pl_gauge_queued(const struct pl_gauge *self, uint32_t slot);

#endif
