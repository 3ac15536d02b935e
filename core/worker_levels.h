/*
 * Levels of a worker: how it is, said twice a second to the metrics: connections, memory, and how
 * late its loop runs.
 *
 * Thread: the worker's. Embedded in it.
 */
#ifndef PL_WORKER_LEVELS_H
#define PL_WORKER_LEVELS_H

#include "request.h"
#include "server.h"

/** Of the last so many measurements the worst lag is shown: 15 s, a usual time between scrapes. */
#define PL_WORKER_LAG_COUNT 30

struct pl_worker_levels {
    const struct pl_runtime *runtime; /* NULL: nobody wants to know */
    const struct pl_server *server;
    struct event *timer;
    uint64_t due_us; /* when it should fire */
    uint64_t lags_us[PL_WORKER_LAG_COUNT];
    size_t next_lag;
};

/** Before the thread is started. Borrows the runtime, which has the metrics. */
void pl_worker_levels_init(struct pl_worker_levels *self, const struct pl_runtime *runtime);
/** On the thread, before its loop runs. Does nothing if it was not readied. */
void pl_worker_levels_start(struct pl_worker_levels *self, const struct pl_server *server);
/** On the thread, after its loop. */
void pl_worker_levels_stop(struct pl_worker_levels *self);

#endif
