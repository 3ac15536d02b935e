/*
 * Admin: the operators' listener, on the main thread: whether the gateway lives and is ready, how
 * its targets are, what it is doing and has done, what it would do with a request, which
 * configurations serve; and what operators change: reloads, targets, the drain. And the dashboard,
 * which shows it; and /metrics for Prometheus.
 *
 * Loopback or a unix socket unless a token is set. A browser is kept out but for the dashboard's
 * own page: see admin_access.c. Whatever takes long, workers do, and the answer waits
 * (admin_requests.c, admin_generations.c); nothing here makes a worker wait.
 */
#ifndef PL_ADMIN_H
#define PL_ADMIN_H

#include "base.h"
#include "config.h"
#include "recent.h"
#include <event2/event.h>

struct pl_admin;
struct pl_metrics;
struct pl_spans;
struct pl_reload;
struct pl_worker;
struct pl_sink;

/** What it shows and acts on; all borrowed until pl_admin_free. */
struct pl_admin_parts {
    struct pl_reload *reload;
    struct pl_recent *recent;   /* NULL: none are kept */
    struct pl_metrics *metrics; /* NULL: nothing is counted */
    struct pl_sink *access_log; /* NULL: there is none */
    struct pl_spans *spans;     /* NULL: there are none */
    struct pl_worker *const *workers;
    size_t worker_count;
    void (*drain)(void *arg); /* as the first stop signal; again: nothing */
    void *arg;
};

/** Takes `listen_fd`. `config` is the one that the process was started with; it is borrowed. */
struct pl_admin *pl_admin_new(struct event_base *base, int listen_fd,
                              const struct pl_config *config, const struct pl_admin_parts *parts);
/** The configuration in force from now on: its targets, its token. */
void pl_admin_set_config(struct pl_admin *self, const struct pl_config *config);
/** From here on /readyz says 503. */
void pl_admin_set_draining(struct pl_admin *self);
/** The workers must have ended. NULL is let pass. */
void pl_admin_free(struct pl_admin *self);

#endif
