/*
 * Listen: listening sockets from addresses. Main thread.
 */
#ifndef PL_LISTEN_H
#define PL_LISTEN_H

#include "base.h"

/**
 * A listening, non-blocking socket on a numeric address. `*port` 0 lets the system pick; it gets
 * the real port. With `shared`, several sockets may listen on the same port (one per worker). -1
 * with a sentence in `error`.
 */
int pl_listen(const char *address, uint16_t *port, bool shared, char *error, size_t error_size);
/**
 * The same on a unix socket, which only this user may open. One that nobody listens on any more is
 * replaced. -1 with a sentence in `error`.
 */
int pl_listen_unix(const char *path, char *error, size_t error_size);
/** Splits "ADDR:PORT" or "[V6]:PORT". PL_ERR_SYNTAX when it is not one. `*address` is new. */
PL_NODISCARD int pl_listen_parse(const char *text, char **address, uint16_t *port);

#endif
