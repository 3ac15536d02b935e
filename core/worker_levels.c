/*
 * Levels of a worker: see worker_levels.h.
 */
#include "worker_levels.h"
#include <stdlib.h>

#define INTERVAL_US (500 * 1000)

/* Going through all connections takes 0.1 ms for some thousands of them. */
static void publish(const struct pl_worker_levels *self)
{
    const struct pl_runtime *runtime = self->runtime;
    struct pl_metrics_levels levels = {
        .client_connections = pl_server_connection_count(self->server),
        .buffered_bytes = pl_server_buffered_bytes(self->server),
    };
    const struct pl_generation *generation;
    TAILQ_FOREACH(generation, &runtime->generations, link)
    {
        levels.vm_memory_bytes += generation->vm->memory_used_bytes;
        for (size_t i = 0; i < generation->topology->provider_count; i++) {
            const struct pl_pool *pool = generation->pools[i];
            levels.idle_upstream_connections += pool->idle_count;
            levels.upstream_connections += pool->user_count - 1;
        }
    }
    for (size_t i = 0; i < PL_WORKER_LAG_COUNT; i++)
        levels.loop_lag_us = PL_MAX(levels.loop_lag_us, self->lags_us[i]);
    pl_metrics_publish(runtime->metrics, runtime->worker_index, &levels);
}

static void arm(struct pl_worker_levels *self)
{
    static const struct timeval interval = {0, INTERVAL_US};
    self->due_us = pl_now_us() + INTERVAL_US;
    event_add(self->timer, &interval);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_worker_levels *self = arg;
    uint64_t now_us = pl_now_us();
    self->lags_us[self->next_lag] = now_us > self->due_us ? now_us - self->due_us : 0;
    self->next_lag = (self->next_lag + 1) % PL_WORKER_LAG_COUNT;
    publish(self);
    arm(self);
}

void pl_worker_levels_init(struct pl_worker_levels *self, const struct pl_runtime *runtime)
{
    self->runtime = runtime;
}

void pl_worker_levels_start(struct pl_worker_levels *self, const struct pl_server *server)
{
    if (!self->runtime)
        return;
    self->server = server;
    self->timer = event_new(self->runtime->base, -1, 0, on_timer, self);
    if (!self->timer)
        abort();
    publish(self);
    arm(self);
}

void pl_worker_levels_stop(struct pl_worker_levels *self)
{
    if (self->timer)
        event_free(self->timer);
    self->timer = NULL;
}
