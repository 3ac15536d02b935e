/*
 * Targets for the admin listener: their health as JSON, and what an operator may do to it.
 *
 * Thread: the main thread. Reads and moves the shared health block; nothing else.
 */
#ifndef PL_ADMIN_TARGETS_H
#define PL_ADMIN_TARGETS_H

#include "base.h"
#include "json_write.h"
#include "target.h"

/** {"targets":[...],"providers":[...]}; routes that share a target show it once. */
void pl_admin_targets_write(const struct pl_topology *topology, struct pl_json_text *out);

/**
 * Does `action` ("eject", "drain", "restore") to what `query` names: target=NAME or provider=NAME,
 * and for=DURATION ("30s"; without it, until restored). Returns a status: 200, 400 or 404, with a
 * sentence in `message`.
 */
int pl_admin_targets_act(const struct pl_topology *topology, struct pl_str action,
                         struct pl_str query, char *message, size_t message_size);

#endif
