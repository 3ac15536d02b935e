/*
 * What the parts of admin share. Nobody else includes this.
 */
#ifndef PL_ADMIN_INTERNAL_H
#define PL_ADMIN_INTERNAL_H

#include "json_write.h"
#include "reload.h"
#include "server.h"

/* admin.c */

void pl_admin_reply_json(struct pl_exchange *exchange, int status, const char *body);
void pl_admin_refuse(struct pl_exchange *exchange, int status, const char *code,
                     const char *message);

/* admin_generations.c */

/** GET /admin/generations: all that are remembered, with their figures. */
void pl_admin_get_generations(struct pl_reload *reload, struct pl_exchange *exchange);
/** POST /admin/reload, rollback, promote: answered when it is done. */
void pl_admin_post_reload(struct pl_reload *reload, struct pl_exchange *exchange);
void pl_admin_post_rollback(struct pl_reload *reload, struct pl_exchange *exchange);
void pl_admin_post_promote(struct pl_reload *reload, struct pl_exchange *exchange);

#endif
