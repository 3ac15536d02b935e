/*
 * Probe: active health checks. One request to each provider that has a check configured, again and
 * again, and its result into the provider's health slot. With `readmits` good ones also bring back
 * those of its targets that failed last by not being reached.
 *
 * Thread: the main thread. Own pools: what the workers do is not disturbed, and a check that hangs
 * holds up nobody. The interval is jittered, so that gateways started together do not check
 * together.
 */
#ifndef PL_PROBE_H
#define PL_PROBE_H

#include "base.h"
#include "resolve.h"
#include "target.h"
#include <event2/event.h>

struct pl_prober;

/** Starts checking. All arguments are borrowed until pl_prober_free, `topology` until another one
 *  follows. */
struct pl_prober *pl_prober_new(struct event_base *base, struct pl_resolver *resolver,
                                const struct pl_topology *topology);
/** Goes on with another topology's checks. One that stays as it is keeps its time and its count; if
 *  it is under way, it is made again at once. The topology before is not used any more. */
void pl_prober_follow(struct pl_prober *self, const struct pl_topology *topology);
void pl_prober_free(struct pl_prober *self);

/* ---- for who plays checks instead of making them ---- */

/** How long to wait for the next check, jittered; for the first one not even an interval. */
uint64_t pl_probe_wait_us(const struct pl_provider *provider, bool is_first);
/** Whether that status of an answer counts as good. */
bool pl_probe_is_good(const struct pl_provider *provider, int status);
/** A check's result into the health of the provider, and of targets of it; logs when it goes out or
 *  comes back. `good_count`: of good ones in a row, which is moved. */
void pl_probe_take_result(const struct pl_topology *topology, const struct pl_provider *provider,
                          bool good, const char *detail, uint32_t *good_count);

#endif
