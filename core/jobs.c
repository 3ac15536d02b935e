/*
 * Jobs: see jobs.h.
 */
#include "jobs.h"

void pl_jobs_init(struct pl_jobs *self)
{
    pthread_mutex_init(&self->lock, NULL);
    STAILQ_INIT(&self->list);
}

void pl_jobs_deinit(struct pl_jobs *self)
{
    pthread_mutex_destroy(&self->lock);
}

bool pl_jobs_add(struct pl_jobs *self, struct pl_job *job)
{
    pthread_mutex_lock(&self->lock);
    bool open = !self->closed;
    if (open)
        STAILQ_INSERT_TAIL(&self->list, job, link);
    pthread_mutex_unlock(&self->lock);
    return open;
}

/* A job may be gone, or be added again, once it has run. */
static void run_all(struct pl_jobs *self, void *context, bool close)
{
    struct pl_job_list list = STAILQ_HEAD_INITIALIZER(list);
    struct pl_job *job;
    pthread_mutex_lock(&self->lock);
    STAILQ_CONCAT(&list, &self->list);
    self->closed = self->closed || close;
    pthread_mutex_unlock(&self->lock);
    while ((job = STAILQ_FIRST(&list))) {
        STAILQ_REMOVE_HEAD(&list, link);
        job->run(job, context);
    }
}

void pl_jobs_run(struct pl_jobs *self, void *context)
{
    run_all(self, context, false);
}

void pl_jobs_close(struct pl_jobs *self, void *context)
{
    run_all(self, context, true);
}
