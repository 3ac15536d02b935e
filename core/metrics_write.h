/*
 * Metrics write: all that pl_metrics has counted, as families of Prometheus' text. Pure. What is
 * read elsewhere (health, generations, sinks) is written by admin_metrics.c.
 */
#ifndef PL_METRICS_WRITE_H
#define PL_METRICS_WRITE_H

#include "metrics_text.h"

/** Where writing goes on; all 0 at the start. */
struct pl_metrics_cursor {
    size_t family, series;
};

/** Writes from the cursor on, until about `max_bytes` more stand in `out`, and moves the cursor.
 *  True when there is more to write. */
bool pl_metrics_write(const struct pl_metrics *self, struct pl_metrics_cursor *cursor,
                      size_t max_bytes, struct pl_metrics_text *out);

#endif
