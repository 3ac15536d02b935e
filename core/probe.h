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

#endif
