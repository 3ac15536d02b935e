/*
 * Admin: the operators' listener, on the main thread. GET /healthz and /readyz; /admin/targets: the
 * health of targets and providers, and what operators do to it; /admin/generations: which
 * configurations serve, and /admin/reload, rollback and promote, which change that; /metrics for
 * Prometheus.
 *
 * Loopback unless a token is set. A browser is kept out: a Host that is not this listener's own
 * address (DNS rebinding) and any Origin of another site are refused.
 */
#ifndef PL_ADMIN_H
#define PL_ADMIN_H

#include "base.h"
#include "config.h"
#include <event2/event.h>

struct pl_admin;
struct pl_metrics;
struct pl_reload;

/** Takes `listen_fd`. `config` is the one that the process was started with; it is borrowed, as are
 *  `reload` and `metrics`, which may be NULL. */
struct pl_admin *pl_admin_new(struct event_base *base, int listen_fd,
                              const struct pl_config *config, struct pl_reload *reload,
                              struct pl_metrics *metrics);
/** The configuration in force from now on: its targets, its token. */
void pl_admin_set_config(struct pl_admin *self, const struct pl_config *config);
/** From here on /readyz says 503. */
void pl_admin_set_draining(struct pl_admin *self);
void pl_admin_free(struct pl_admin *self);

#endif
