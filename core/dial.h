/*
 * Dial: one fresh connection to an upstream: lookup, connect to its addresses in turn, handshake.
 *
 * Thread: one worker. Life: start -> one callback, after which the dial is gone; or cancel, after
 * which none comes. Never calls back from inside start. Must not be cancelled from its callback.
 */
#ifndef PL_DIAL_H
#define PL_DIAL_H

#include "attempt.h"

struct pl_dial;

/**
 * `connection` is the callback's to keep, with reading armed, when `failure` is PL_FAIL_NONE;
 * otherwise NULL, and `detail` (borrowed for the call) says why, for people.
 */
typedef void (*pl_dial_cb)(void *arg, struct pl_connection *connection, enum pl_failure failure,
                           const char *detail);

/** `connect_ms` bounds lookup and connect together, `tls_ms` the handshake; 0: no bound. */
struct pl_dial *pl_dial_start(struct pl_pool *pool, uint32_t connect_ms, uint32_t tls_ms,
                              pl_dial_cb cb, void *arg);
void pl_dial_cancel(struct pl_dial *dial);

#endif
