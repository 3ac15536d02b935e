/*
 * What the parts of server share: a listener's connections and the exchanges on them. Nobody else
 * includes this.
 */
#ifndef PL_SERVER_INTERNAL_H
#define PL_SERVER_INTERNAL_H

#include "server.h"
#include <event2/bufferevent.h>
#include <event2/event_struct.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <sys/queue.h>
#include <sys/time.h>

enum connection_state {
    CONNECTION_READING,   /* a request is awaited, or comes in */
    CONNECTION_BUSY,      /* a request is with the owner */
    CONNECTION_FLUSHING,  /* the answer is whole, its last bytes wait to be sent */
    CONNECTION_CLOSING,   /* bytes wait to be sent, then the connection ends */
    CONNECTION_REFUSED,   /* an error of ours waits to be sent */
    CONNECTION_LINGERING, /* our side is shut; the peer's bytes are read and dropped */
    CONNECTION_DOOMED,    /* on the doomed list */
};

struct connection {
    struct pl_server *server;
    struct bufferevent *bev;         /* evhttp's; from the first loop turn on without a socket */
    struct evhttp_connection *evcon; /* known from the first loop turn on; closes the socket */
    int fd;
    SSL *ssl; /* NULL for plain TCP */
    struct event read_event, write_event;
    bool listens;                     /* read_event is armed */
    struct evbuffer *output;          /* not sent yet; NULL until the first loop turn */
    bool stalled;                     /* the kernel takes no more of it */
    struct server_exchange *exchange; /* from the first byte of a request on */
    enum connection_state state;
    struct pl_guard guard;
    size_t early_bytes; /* that came behind the request which is being answered */
    uint64_t since_ms;  /* start of what the state waits for */
    uint64_t last_read_ms;
    uint64_t last_drain_ms; /* when the client last took bytes, if it is stalled */
    int unacked_bytes;      /* in the kernel, at the last sweep */
    bool surplus;           /* one too many */
    bool has_served;        /* a request, before the one that it waits for */
    bool cut_short;         /* its last answer is not whole */
    bool reset_on_close;
    bool flush_due, writable_due;
    struct timeval write_turn; /* the loop turn of the last write ... */
    uint32_t writes_in_turn;   /* ... and how many there were in it */
    TAILQ_ENTRY(connection) link;
    SLIST_ENTRY(connection) queue_link; /* of the queue that it is in: one at a time */
    bool queued;
};

/** An exchange on a connection; what owners see of it is `base`, at its head. The arena of its
 *  headers is the request's head, in which path and query lie. */
struct server_exchange {
    struct pl_exchange base;
    struct connection *connection;
    bool is_whole; /* the owner has it */
    char *body;    /* as far as it has come */
    size_t body_len, body_cap;
    bool is_old; /* HTTP/1.0 */
    bool started, chunked, bodiless, close_after, eof_framed;
    struct server_exchange *next_free;
};

/** How a connection answers, see exchange.h. */
extern const struct pl_exchange_class pl_server_exchange_class;

SLIST_HEAD(connection_queue, connection);

struct pl_server {
    struct event_base *base;
    struct evhttp *http;
    struct evhttp_bound_socket *bound;
    struct evconnlistener *listener; /* NULL once draining */
    SSL_CTX *tls;
    struct pl_server_limits limits;
    struct pl_server_ops ops;
    void *arg;
    TAILQ_HEAD(, connection) connections;
    size_t connection_count, exchange_count;
    struct connection_queue newcomers, to_flush, flushing, doomed;
    struct event *queue_event; /* works the queues off */
    bool in_queues;
    struct event *sweep_timer;
    struct event *accept_timer; /* re-enables accept after EMFILE; ends it when draining */
    bool draining;
    uint32_t drain_turns; /* for which accepting went on since */
    struct server_exchange *free_exchanges;
    struct pl_server *next_on_thread;
};

/* ---- server.c ---- */

/** Has the connection closed in this turn of the loop. Idempotent. */
void pl_server_doom(struct connection *self);
/** Writes what waits at the end of this turn of the loop, or at once when it is much. */
void pl_server_flush_soon(struct connection *self);
/** The client has taken bytes of the `before_bytes` that were waiting. */
void pl_server_drained(struct connection *self, size_t before_bytes);
/** After an answer: waits for the next request, if all of it is sent. */
void pl_server_await_next(struct connection *self);

/* ---- server_socket.c ---- */

/** Takes over reading and writing on `fd`, which evhttp closes. */
void pl_server_socket_open(struct connection *self, int fd);
/** Lets go of it. Idempotent where it was never open. */
void pl_server_socket_close(struct connection *self);
/** Whether pl_server_read is to be called when there is something to read. */
void pl_server_socket_listen(struct connection *self, bool wanted);
/** Bytes (> 0), 0 at the end, PL_ERR_ABSENT when nothing is there, another error when it broke. */
PL_NODISCARD long pl_server_socket_read(struct connection *self, char *data, size_t size);
/** Writes at once what waits; what the kernel does not take is left to the event loop. */
void pl_server_try_flush(struct connection *self);
void pl_server_socket_reset(struct connection *self);
/** Says close_notify, without which a client of TLS must take the end for a cut. */
void pl_server_socket_say_goodbye(struct connection *self);

/* ---- server_input.c ---- */

/** Reads once, and serves or refuses what is whole. */
void pl_server_read(struct connection *self);
/** Answers a message that is not to be served, and ends the connection. */
void pl_server_refuse(struct connection *self, int status, const char *reason);
/** The refusal is out: waits a little for the client to close. */
void pl_server_linger(struct connection *self);

/* ---- server_exchange.c ---- */

/** An exchange for the request that begins. */
struct server_exchange *pl_server_new_exchange(struct connection *connection);
/** Takes an exchange off its connection and keeps its memory for the next one. */
void pl_server_release_exchange(struct server_exchange *self, struct pl_server *server);
/** Keeps a copy of body bytes. */
void pl_server_keep_body(struct server_exchange *self, struct pl_str bytes);
/** Whether method and path are known, though the request is not whole; finds them. */
bool pl_server_has_target(struct server_exchange *self);
/** The request is whole: what the owner may ask for is found. */
void pl_server_complete_exchange(struct server_exchange *self);

#endif
