/*
 * Server: the listener side. evhttp behind a strict guard; the only file that knows evhttp.
 *
 * Thread: one worker (or the main thread, for the admin listener). Gives whole requests to its
 * owner as exchanges; the owner answers each exactly once. Timers for slow heads, slow bodies, idle
 * connections and clients that do not read; a cap on connections; a client that leaves is noticed
 * at once.
 */
#ifndef PL_SERVER_H
#define PL_SERVER_H

#include "base.h"
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
struct pl_exchange;

struct pl_server_ops {
    /** A whole request. Called from the loop; may answer at once. */
    void (*on_request)(struct pl_exchange *exchange, void *arg);
};

struct pl_exchange_ops {
    /** The client has left, or was given up; the exchange is dead once this returns. */
    void (*on_gone)(void *arg);
    /** What was unsent has fallen well under the high mark again. Never from inside a write. */
    void (*on_writable)(void *arg);
};

/** Listens on `fd` (already listening, non-blocking), which it takes. `tls` may be NULL. */
struct pl_server *pl_server_new(struct event_base *base, int fd, SSL_CTX *tls,
                                const struct pl_server_limits *limits,
                                const struct pl_server_ops *ops, void *arg);
/** Stops accepting, closes idle connections, and makes every answer the last on its connection. Who
 *  has connected before is still served. */
void pl_server_drain(struct pl_server *self);
/** Whether that is done: nobody is left, and nobody can come. */
bool pl_server_is_drained(const struct pl_server *self);
/** Open connections and requests in work. */
size_t pl_server_connection_count(const struct pl_server *self);
size_t pl_server_exchange_count(const struct pl_server *self);
/** Closes everything; exchanges in work get on_gone. Not from inside a callback. */
void pl_server_free(struct pl_server *self);

/** Request side. Valid until the exchange ends. `body` is one contiguous run. */
struct pl_str pl_exchange_method(const struct pl_exchange *self);
struct pl_str pl_exchange_path(const struct pl_exchange *self);  /* before '?' */
struct pl_str pl_exchange_query(const struct pl_exchange *self); /* after '?', may be empty */
const struct pl_headers *pl_exchange_headers(const struct pl_exchange *self);
struct pl_str pl_exchange_body(struct pl_exchange *self);
struct pl_str pl_exchange_peer(const struct pl_exchange *self); /* numeric address */

/** Frees what was read of the request: headers and body are gone, method and path stay. */
void pl_exchange_forget_request(struct pl_exchange *self);
/** Who hears of the client's leaving. Must be set before on_request returns, if not answered. */
void pl_exchange_set_ops(struct pl_exchange *self, const struct pl_exchange_ops *ops, void *arg);

/** Whole answer. The exchange is gone afterwards. Adds Content-Length, Date, Connection. */
void pl_exchange_reply(struct pl_exchange *self, int status, const struct pl_headers *headers,
                       const char *body, size_t len);
/** Head of a streamed answer; content_length_bytes < 0: chunked (or until close, HTTP/1.0). */
void pl_exchange_start(struct pl_exchange *self, int status, const struct pl_headers *headers,
                       int64_t content_length_bytes);
/** Body bytes, copied. Returns false when the owner should pause until on_writable. */
bool pl_exchange_write(struct pl_exchange *self, const char *data, size_t len);
/** Clean end of a streamed answer. The exchange is gone afterwards. */
void pl_exchange_end(struct pl_exchange *self);
/**
 * Ends it so that no client can take it for complete: what was written is flushed, then the
 * connection is broken without the final chunk (reset for answers that a close would end).
 * The exchange is gone afterwards. `at_once`: reset now, nothing is flushed.
 */
void pl_exchange_abort(struct pl_exchange *self, bool at_once);

#endif
