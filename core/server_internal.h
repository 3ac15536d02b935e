/*
 * What the parts of server share: a listener's connections and the exchanges on them. Nobody else
 * includes this.
 */
#ifndef PL_SERVER_INTERNAL_H
#define PL_SERVER_INTERNAL_H

#include "server.h"
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/listener.h>
#include <sys/queue.h>
#include <sys/time.h>

enum connection_state {
    CONNECTION_READING,   /* the guard scans, evhttp parses */
    CONNECTION_BUSY,      /* a request is with the owner */
    CONNECTION_FLUSHING,  /* the answer is whole, its last bytes wait to be sent; evhttp goes on */
    CONNECTION_CLOSING,   /* bytes wait to be sent, then the connection ends */
    CONNECTION_REFUSED,   /* an error of ours waits to be sent */
    CONNECTION_LINGERING, /* our side is shut; the peer's bytes are read and dropped */
    CONNECTION_DOOMED,    /* on the doomed list */
};

struct connection {
    struct pl_server *server;
    struct bufferevent *bev;
    struct evhttp_connection *evcon; /* known from the first loop turn on */
    struct evbuffer_cb_entry *input_entry, *output_entry;
    struct server_exchange *exchange;
    enum connection_state state;
    struct pl_guard guard;
    uint64_t since_ms; /* start of what the state waits for */
    uint64_t last_read_ms;
    uint64_t last_drain_ms; /* when the client last took bytes */
    int unacked_bytes;      /* in the kernel, at the last sweep */
    bool surplus;           /* one too many */
    bool has_served;        /* a request, before the one that it waits for */
    bool cut_short;         /* its last answer is not whole */
    bool reset_on_close;
    bool flush_due, writable_due;
    struct timeval write_turn;       /* the loop turn of the last write ... */
    uint32_t writes_in_turn;         /* ... and how many there were in it */
    struct evhttp_request *answered; /* its answer is whole, but not all of it is sent */
    TAILQ_ENTRY(connection) link;
    SLIST_ENTRY(connection) queue_link; /* of the queue that it is in: one at a time */
    bool queued;
};

/** An exchange on a connection; what owners see of it is `base`, at its head. */
struct server_exchange {
    struct pl_exchange base;
    struct connection *connection;
    struct evhttp_request *request;
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
    struct connection *completing; /* set by the guard just before evhttp's callback */
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

/** Has the connection closed in this turn of the loop. Idempotent. */
void pl_server_doom(struct connection *self);
/** Writes at once what waits; what the kernel does not take is left to the event loop. */
void pl_server_try_flush(struct connection *self);
/** Writes what waits at the end of this turn of the loop, or at once when it is much. */
void pl_server_flush_soon(struct connection *self);
/** Takes an exchange off its connection and keeps its memory for the next one. */
void pl_server_release_exchange(struct server_exchange *self, struct pl_server *server);
/** Gives the connection back to evhttp, which ends the answer and waits for the next request. */
void pl_server_hand_back(struct connection *self);

#endif
