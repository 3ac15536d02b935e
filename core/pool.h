/*
 * Pool: idle connections to one upstream, kept for the next request with the same credential.
 *
 * Thread: one worker; not shared. A connection in the pool has nothing unread and nothing owed; it
 * is watched, so that one that the peer closes (or speaks on) is dropped at once. LIFO.
 *
 * Also the connection itself: plain or TLS bytes over one non-blocking socket, looking the same to
 * whoever owns it.
 */
#ifndef PL_POOL_H
#define PL_POOL_H

#include "base.h"
#include "resolve.h"
#include "tls.h"
#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/uio.h>

struct pl_attempt;
struct pl_pool;

/** Where an upstream is and how it is reached. Immutable; shared by all workers. */
struct pl_endpoint {
    char *host; /* name or numeric address, without brackets */
    uint16_t port;
    SSL_CTX *tls;      /* NULL: plain TCP */
    char *server_name; /* for SNI and verification; usually the host */
    uint32_t max_idle; /* idle connections kept per worker */
    uint32_t idle_ms;  /* after that an idle connection is closed; 0: never */
    char *trust;       /* what TLS was set up from: equal texts, equal checks; NULL: plain TCP */
};

/** One TCP or TLS connection. Belongs to a dial, to an attempt or to the pool. */
struct pl_connection {
    struct pl_pool *pool;
    int fd;
    bool reused;               /* has served a request before */
    bool reading;              /* read_event is armed */
    SSL *ssl;                  /* NULL for plain TCP */
    struct event read_event;   /* persistent; stays armed while pooled */
    struct event *write_event; /* persistent; exists only while writing has to wait */
    uint64_t credential_tag;   /* which credential it was used with */
    uint64_t idle_since_ms;
    struct pl_connection *next;
    void (*on_event)(void *arg, short what); /* the owner's; the pool's own while idle */
    void *on_event_arg;
};

struct pl_pool {
    struct event_base *base;
    struct pl_resolver *resolver;
    const struct pl_endpoint *endpoint;
    struct pl_connection *idle; /* newest first */
    size_t idle_count;
    size_t user_count;    /* attempts under way, and 1 for the owner until pl_pool_free */
    bool closed;          /* pl_pool_free was called: nothing is kept any more */
    SSL_SESSION *session; /* the newest session ticket, for resumption */
    struct event *sweep_timer;
    struct pl_attempt *spare_attempts; /* ended; attempt.c keeps them for the next ones ... */
    size_t spare_count;
    void (*free_spare_attempts)(struct pl_pool *self); /* ... and frees them; NULL: none yet */
};

/** Borrows all three; they must outlive the pool and the attempts on it. */
struct pl_pool *pl_pool_new(struct event_base *base, struct pl_resolver *resolver,
                            const struct pl_endpoint *endpoint);
/** Closes what is idle. Connections in use are closed by their attempts when these end; the memory
 *  goes with the last of them. */
void pl_pool_free(struct pl_pool *self);
/** Moves the idle connections of `from` here, which must lead to the same place in the same way
 * (see pl_endpoint_equal); those past max_idle are closed. */
void pl_pool_move_idle(struct pl_pool *self, struct pl_pool *from);
/** Whether no attempt is under way. */
bool pl_pool_is_quiet(const struct pl_pool *self);
/** Whether a connection to one is as good as a connection to the other. */
bool pl_endpoint_equal(const struct pl_endpoint *a, const struct pl_endpoint *b);
/** For attempts: keep the pool's memory until the matching unref. */
void pl_pool_ref(struct pl_pool *self);
void pl_pool_unref(struct pl_pool *self);
/** Takes the newest idle connection last used with that credential, or NULL. */
struct pl_connection *pl_pool_take(struct pl_pool *self, uint64_t credential_tag);
/** Gives a clean connection back. May close it or an older one, if enough are idle. */
void pl_pool_give(struct pl_pool *self, struct pl_connection *connection);

/** Takes the non-blocking `fd`. Nothing is armed yet; the owner sets on_event first. */
struct pl_connection *pl_connection_new(struct pl_pool *pool, int fd);
/** Closes and frees. */
void pl_connection_close(struct pl_connection *connection);
/** Arms or disarms an event. Level-triggered; cheap when nothing changes. */
void pl_connection_want_read(struct pl_connection *connection, bool wanted);
void pl_connection_want_write(struct pl_connection *connection, bool wanted);
/**
 * Reads what is there. Returns bytes (> 0), 0 at a proper end of stream, PL_ERR_ABSENT when nothing
 * is there, PL_ERR_CLOSED when TLS ended without close_notify, PL_ERR_SYSTEM when it broke (see
 * pl_connection_error). Arms the write event itself where TLS needs one to go on reading.
 */
PL_NODISCARD long pl_connection_read(struct pl_connection *self, char *data, size_t size);
/** Whether bytes are left that no event will announce (decrypted, or read ahead by OpenSSL). */
bool pl_connection_has_unread(const struct pl_connection *self);
/**
 * Writes a part of the pieces, from `first_offset` of the first one. Returns bytes (>= 0),
 * PL_ERR_ABSENT when the peer is slow (the write event has been armed) or PL_ERR_SYSTEM. After
 * PL_ERR_ABSENT the next write must begin at the same place.
 */
PL_NODISCARD long pl_connection_write(struct pl_connection *self, const struct iovec *pieces,
                                      size_t piece_count, size_t first_offset);
/** Why the last read or write on this thread broke, as a few words. */
void pl_connection_error(const struct pl_connection *self, char *out, size_t out_size);

#endif
