/*
 * Server: the listener side. evhttp's connections, a strict guard that reads them; with its parts
 * the only one that knows evhttp.
 *
 * Thread: one worker (or the main thread, for the admin listener). Gives whole requests to its
 * owner as exchanges; the owner answers each exactly once. Timers for slow heads, slow bodies, idle
 * connections and clients that do not read; a cap on connections; a client that leaves is noticed
 * at once.
 */
#ifndef PL_SERVER_H
#define PL_SERVER_H

#include "base.h"
#include "exchange.h"
#include "guard.h"
#include "headers.h"
#include <event2/buffer.h>
#include <event2/event.h>
#include <openssl/ssl.h>
#include <sys/uio.h>

struct pl_server_limits {
    struct pl_guard_limits message;
    uint32_t connections;       /* per server; more are closed at accept */
    uint32_t head_ms;           /* from the first byte of a request to the end of its head */
    uint32_t body_idle_ms;      /* between two reads of a request body */
    uint32_t keepalive_idle_ms; /* between requests */
    uint32_t write_stall_ms;    /* without a byte taken by the client while some wait */
    uint32_t unsent_high_bytes; /* write_ready turns false above this */
};

struct pl_server;

/** A message that the server does not hand out. Valid during the call. */
struct pl_refusal {
    int status;
    const char *code;           /* "request_too_large", ... */
    struct pl_str method, path; /* empty: the head was not whole */
    struct pl_str peer;         /* numeric address */
    uint32_t duration_ms;       /* since its first byte */
    uint64_t body_bytes;        /* taken so far */
};

struct pl_server_ops {
    /** A whole request. Called from the loop; may answer at once. */
    void (*on_request)(struct pl_exchange *exchange, void *arg);
    /** What came is no request, or too much, or too slow; it is answered here. May be NULL. */
    void (*on_refused)(const struct pl_refusal *refusal, void *arg);
};

/** Listens on `fd` (already listening, non-blocking), which it takes. `tls` may be NULL. */
struct pl_server *pl_server_new(struct event_base *base, int fd, SSL_CTX *tls,
                                const struct pl_server_limits *limits,
                                const struct pl_server_ops *ops, void *arg);
/** Other limits, from now on; a message that is half read keeps its sizes. */
void pl_server_set_limits(struct pl_server *self, const struct pl_server_limits *limits);
/** Stops accepting, closes idle connections, and makes every answer the last on its connection. Who
 *  has connected before is still served. */
void pl_server_drain(struct pl_server *self);
/** Whether that is done: nobody is left, and nobody can come. */
bool pl_server_is_drained(const struct pl_server *self);
/** Open connections and requests in work. */
size_t pl_server_connection_count(const struct pl_server *self);
size_t pl_server_exchange_count(const struct pl_server *self);
/** Bytes in memory that were read and not taken, or wait to be sent. Goes through all connections.
 */
size_t pl_server_buffered_bytes(const struct pl_server *self);
/** Closes everything; exchanges in work get on_gone. Not from inside a callback. */
void pl_server_free(struct pl_server *self);

#endif
