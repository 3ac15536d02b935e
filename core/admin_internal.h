/*
 * What the parts of admin share. Nobody else includes this.
 */
#ifndef PL_ADMIN_INTERNAL_H
#define PL_ADMIN_INTERNAL_H

#include "admin.h"
#include "admin_rates.h"
#include "json_write.h"
#include "reload.h"
#include "server.h"
#include "worker.h"

struct pl_survey;
TAILQ_HEAD(pl_survey_list, pl_survey);

struct pl_admin {
    struct event_base *base;
    struct pl_server *server;
    const struct pl_config *config; /* in force; borrowed */
    const char *address;            /* that it listens on */
    struct pl_admin_parts parts;
    bool draining;
    uint64_t start_ms;

    int answers_fd; /* workers write to it when they have answered */
    struct event *answers_event;
    struct pl_survey_list surveys; /* asked for, or answered by some too late */
    size_t survey_count;

    struct event *second_timer;
    struct pl_rates rates;
};

/* admin.c */

/** `headers`, which may be NULL, get those that all answers have. */
void pl_admin_reply(struct pl_exchange *exchange, int status, struct pl_headers *headers,
                    const char *type, const char *body, size_t len);
void pl_admin_reply_json(struct pl_exchange *exchange, int status, const char *body);
void pl_admin_refuse(struct pl_exchange *exchange, int status, const char *code,
                     const char *message);

/* admin_access.c */

/** Whether the request comes from where requests may come from; else it is answered. */
bool pl_admin_let_in(const struct pl_admin *self, struct pl_exchange *exchange);
/** Whether it has the token, where one is needed. */
bool pl_admin_is_authorized(const struct pl_admin *self, const struct pl_headers *headers);

/* admin_dashboard.c */

/** GET /, /dashboard.css, /dashboard.js. */
void pl_admin_get_dashboard(struct pl_admin *self, struct pl_exchange *exchange);

/* admin_ready.c */

void pl_admin_get_readyz(struct pl_admin *self, struct pl_exchange *exchange);
/** Whether requests should come here: not draining, and a route has a target that is fit. */
bool pl_admin_is_ready(const struct pl_admin *self);

/* admin_requests.c */

void pl_admin_requests_init(struct pl_admin *self);
void pl_admin_requests_deinit(struct pl_admin *self);
/** GET /admin/requests: what is in flight, as the workers say. */
void pl_admin_get_requests(struct pl_admin *self, struct pl_exchange *exchange);
/** GET /admin/requests/recent: the last ones that ended. */
void pl_admin_get_recent(struct pl_admin *self, struct pl_exchange *exchange);
/** Writes "last" and "records": those that ended after the number since=N of the query. */
void pl_admin_write_recent(const struct pl_admin *self, struct pl_str query, size_t limit,
                           struct pl_json_text *out);

/* admin_explain.c */

/** POST /admin/explain: what would become of a request; nothing is sent. */
void pl_admin_post_explain(struct pl_admin *self, struct pl_exchange *exchange);

/* admin_summary.c */

/** GET /admin/summary: what the dashboard shows. */
void pl_admin_get_summary(struct pl_admin *self, struct pl_exchange *exchange);

/* admin_generations.c */

/** GET /admin/generations: all that are remembered, with their figures. */
void pl_admin_get_generations(struct pl_reload *reload, struct pl_exchange *exchange);
/** POST /admin/reload, rollback, promote: answered when it is done. */
void pl_admin_post_reload(struct pl_reload *reload, struct pl_exchange *exchange);
void pl_admin_post_rollback(struct pl_reload *reload, struct pl_exchange *exchange);
void pl_admin_post_promote(struct pl_reload *reload, struct pl_exchange *exchange);

#endif
