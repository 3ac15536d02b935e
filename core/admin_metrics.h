/*
 * GET /metrics: what pl_metrics has counted, and what is read at the moment of the scrape: health,
 * generations, workers.
 *
 * Thread: the main thread. A long text (5 MB for 1,000 targets in use) is written in pieces, one a
 * turn of the loop and not before the last one has gone out, so that neither the loop nor the
 * memory has to bear it whole.
 */
#ifndef PL_ADMIN_METRICS_H
#define PL_ADMIN_METRICS_H

#include "metrics.h"
#include "reload.h"
#include "server.h"
#include "sink.h"
#include "spans.h"
#include "target.h"

/** Where the numbers come from; all borrowed. */
struct pl_admin_metrics {
    struct event_base *base;
    const struct pl_metrics *metrics; /* must outlive the exchange */
    const struct pl_topology *topology;
    const struct pl_reload *reload;
    struct pl_sink *access_log; /* NULL: there is none */
    struct pl_spans *spans;     /* NULL: there are none */
};

/** Answers; now, or over the next turns of the loop. */
void pl_admin_get_metrics(const struct pl_admin_metrics *self, struct pl_exchange *exchange);

#endif
