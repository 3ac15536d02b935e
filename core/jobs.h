/*
 * Jobs: what a worker is asked to do on its own thread, between two events: a list under a lock.
 * The worker is woken by mail (worker.h).
 *
 * Thread: jobs are added by the main thread, run by the worker.
 */
#ifndef PL_JOBS_H
#define PL_JOBS_H

#include "base.h"
#include <pthread.h>
#include <sys/queue.h>

/** Belongs to whoever adds it; must stay until it has run. */
struct pl_job {
    void (*run)(struct pl_job *self, void *context);
    STAILQ_ENTRY(pl_job) link;
};

STAILQ_HEAD(pl_job_list, pl_job);

struct pl_jobs {
    pthread_mutex_t lock;
    struct pl_job_list list;
    bool closed;
};

void pl_jobs_init(struct pl_jobs *self);
void pl_jobs_deinit(struct pl_jobs *self);
/** False when nothing will run any more. */
PL_NODISCARD bool pl_jobs_add(struct pl_jobs *self, struct pl_job *job);
/** Runs what was added, in order. */
void pl_jobs_run(struct pl_jobs *self, void *context);
/** Runs what was added, a last time. */
void pl_jobs_close(struct pl_jobs *self, void *context);

#endif
