/*
 * Exchange: one request of a client and the answer to it, whoever the client is: a connection of
 * the server (server_exchange.c), or a client that is only played (stage_client.c). What both have
 * stands here; what differs goes through the class.
 *
 * Thread: that of whoever made it. It is answered exactly once, or on_gone tells that the client
 * has left. `pl_exchange_reply`, `_end` and `_abort` end it: it is gone afterwards.
 */
#ifndef PL_EXCHANGE_H
#define PL_EXCHANGE_H

#include "base.h"
#include "headers.h"

struct pl_exchange;

struct pl_exchange_ops {
    /** The client has left, or was given up; the exchange is dead once this returns. */
    void (*on_gone)(void *arg);
    /** What was unsent has fallen well under the high mark again. Never from inside a write. */
    void (*on_writable)(void *arg);
};

struct pl_exchange_class {
    struct pl_str (*body)(struct pl_exchange *self);
    struct pl_str (*peer)(const struct pl_exchange *self);
    void (*forget_request)(struct pl_exchange *self);
    void (*reply)(struct pl_exchange *self, int status, const struct pl_headers *headers,
                  const char *body, size_t len);
    void (*start)(struct pl_exchange *self, int status, const struct pl_headers *headers,
                  int64_t content_length_bytes);
    bool (*write)(struct pl_exchange *self, const char *data, size_t len);
    void (*end)(struct pl_exchange *self);
    void (*abort)(struct pl_exchange *self, bool at_once);
};

struct pl_exchange {
    const struct pl_exchange_class *class;
    const char *method;
    struct pl_str path, query;
    struct pl_headers headers;
    const struct pl_exchange_ops *ops;
    void *ops_arg;
};

/** Request side. Valid until the exchange ends. */
static inline struct pl_str pl_exchange_method(const struct pl_exchange *self)
{
    return pl_str_of(self->method);
}

/** Before '?'. */
static inline struct pl_str pl_exchange_path(const struct pl_exchange *self)
{
    return self->path;
}

/** After '?', may be empty. */
static inline struct pl_str pl_exchange_query(const struct pl_exchange *self)
{
    return self->query;
}

static inline const struct pl_headers *pl_exchange_headers(const struct pl_exchange *self)
{
    return &self->headers;
}

/** One contiguous run. */
static inline struct pl_str pl_exchange_body(struct pl_exchange *self)
{
    return self->class->body(self);
}

/** Numeric address. */
static inline struct pl_str pl_exchange_peer(const struct pl_exchange *self)
{
    return self->class->peer(self);
}

/** Frees what was read of the request: headers and body are gone, method and path stay. */
static inline void pl_exchange_forget_request(struct pl_exchange *self)
{
    self->class->forget_request(self);
}

/** Who hears of the client's leaving. Must be set before on_request returns, if not answered. */
static inline void pl_exchange_set_ops(struct pl_exchange *self, const struct pl_exchange_ops *ops,
                                       void *arg)
{
    self->ops = ops;
    self->ops_arg = arg;
}

/** Whole answer. The exchange is gone afterwards. Adds Content-Length, Date, Connection. */
static inline void pl_exchange_reply(struct pl_exchange *self, int status,
                                     const struct pl_headers *headers, const char *body, size_t len)
{
    self->class->reply(self, status, headers, body, len);
}

/** Head of a streamed answer; content_length_bytes < 0: chunked (or until close, HTTP/1.0). */
static inline void pl_exchange_start(struct pl_exchange *self, int status,
                                     const struct pl_headers *headers, int64_t content_length_bytes)
{
    self->class->start(self, status, headers, content_length_bytes);
}

/** Body bytes, copied. Returns false when the owner should pause until on_writable. */
static inline bool pl_exchange_write(struct pl_exchange *self, const char *data, size_t len)
{
    return self->class->write(self, data, len);
}

/** Clean end of a streamed answer. The exchange is gone afterwards. */
static inline void pl_exchange_end(struct pl_exchange *self)
{
    self->class->end(self);
}

/**
 * Ends it so that no client can take it for complete: what was written is flushed, then the
 * connection is broken without the final chunk (reset for answers that a close would end).
 * The exchange is gone afterwards. `at_once`: reset now, nothing is flushed.
 */
static inline void pl_exchange_abort(struct pl_exchange *self, bool at_once)
{
    self->class->abort(self, at_once);
}

#endif
