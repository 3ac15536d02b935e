/*
 * Server: see server.h. The listener's connections, from accept to close.
 *
 * evhttp accepts, and owns each connection; what is said on it is ours. Its bufferevent is given no
 * socket, so to evhttp every connection waits for a first request for ever. Requests are read by
 * the guard (guard.h), which is strict where evhttp's parser is not; answers are written straight
 * to the socket when nothing is waiting.
 *
 *   server.c           accept, close, limits in time
 *   server_socket.c    bytes in and out, plain or TLS
 *   server_input.c     messages, and the refusal of what is none
 *   server_exchange.c  what the owner sees: a request, and its answer
 *
 * Ownership: evhttp owns its connection, and closes the socket; `struct connection` lives from
 * on_bev until evhttp's close callback; an exchange lives from the first byte of a request to its
 * answer or to on_gone. Nothing is freed in its own callback: a connection to be closed goes to the
 * doomed list, which an event empties in the same loop turn.
 *
 * Deliberately not done: pipelining (bytes after a request are dropped and the connection is closed
 * after the answer; RFC 9112 9.3.2 makes the client send again), HTTP/2, upgrades.
 */
#include "log.h"
#include "server_internal.h"
#include <assert.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define LINGER_MS           2000
#define DRAIN_IDLE_MS       1000 /* for the first request of a client that came before the drain */
#define ACCEPT_PAUSE_MS     50
#define DRAIN_TURNS_MAX     100
#define FLUSH_AT_ONCE_BYTES 16384

/* evconnlistener's error callback gets evhttp's pointer, so servers are found by it. */
static _Thread_local struct pl_server *servers_on_thread;

/* ---- queues ------------------------------------------------------------------------------- */

static void enqueue(struct connection *self, struct connection_queue *queue)
{
    struct pl_server *server = self->server;
    if (self->queued)
        return;
    self->queued = true;
    SLIST_INSERT_HEAD(queue, self, queue_link);
    if (!server->in_queues) {
        event_active(server->queue_event, EV_TIMEOUT, 0);
    } else { /* in the next turn, so that one connection cannot keep the loop to itself */
        struct timeval at_once = {0, 0};
        event_add(server->queue_event, &at_once);
    }
}

static void dequeue(struct connection *self)
{
    if (!self->queued)
        return;
    struct pl_server *server = self->server;
    struct connection_queue *queues[] = {&server->newcomers, &server->to_flush, &server->flushing,
                                         &server->doomed};
    for (size_t i = 0; i < PL_COUNT(queues); i++) {
        struct connection *other;
        SLIST_FOREACH(other, queues[i], queue_link)
        {
            if (other == self) {
                SLIST_REMOVE(queues[i], self, connection, queue_link);
                self->queued = false;
                return;
            }
        }
    }
}

static struct connection *queue_pop(struct connection_queue *queue)
{
    struct connection *first = SLIST_FIRST(queue);
    if (first) {
        SLIST_REMOVE_HEAD(queue, queue_link);
        first->queued = false;
    }
    return first;
}

/* ---- output ------------------------------------------------------------------------------- */

void pl_server_drained(struct connection *self, size_t before_bytes)
{
    size_t left_bytes = evbuffer_get_length(self->output);
    uint32_t high_bytes = self->server->limits.unsent_high_bytes;
    if (left_bytes == 0 && self->state == CONNECTION_CLOSING) {
        pl_server_doom(self);
    } else if (left_bytes == 0 && self->state == CONNECTION_REFUSED) {
        pl_server_linger(self);
    } else if (left_bytes == 0 && self->state == CONNECTION_FLUSHING) { /* from a fresh call */
        enqueue(self, &self->server->to_flush);
    } else if (self->exchange && left_bytes <= high_bytes / 2 && before_bytes > high_bytes / 2) {
        self->writable_due = true; /* the owner may be in the middle of a write */
        enqueue(self, &self->server->to_flush);
    }
}

void pl_server_await_next(struct connection *self)
{
    if (self->state != CONNECTION_FLUSHING || evbuffer_get_length(self->output) > 0)
        return;
    pl_guard_reset(&self->guard, NULL);
    self->has_served = true;
    self->state = CONNECTION_READING;
    self->since_ms = pl_last_now_ms();
    if (self->early_bytes > 0 || self->server->draining)
        pl_server_doom(self);
}

static void tell_writable(struct connection *self)
{
    const struct pl_exchange_ops *ops = self->exchange->base.ops;
    self->writable_due = false;
    if (ops && ops->on_writable)
        ops->on_writable(self->exchange->base.ops_arg);
}

/* What is written in one turn of the loop goes out in one system call, at the end of the turn. */
void pl_server_flush_soon(struct connection *self)
{
    if (evbuffer_get_length(self->output) >= FLUSH_AT_ONCE_BYTES) {
        pl_server_try_flush(self);
    } else if (!self->flush_due) {
        self->flush_due = true;
        enqueue(self, &self->server->to_flush);
    }
}

/* ---- closing ------------------------------------------------------------------------------ */

void pl_server_doom(struct connection *self)
{
    if (self->state == CONNECTION_DOOMED)
        return;
    self->state = CONNECTION_DOOMED;
    pl_server_socket_listen(self, false);
    event_del(&self->write_event);
    dequeue(self);
    enqueue(self, &self->server->doomed);
}

/* evhttp never ends one by itself, but when it is freed. */
static void connection_end(struct connection *self)
{
    if (self->reset_on_close)
        pl_server_socket_reset(self);
    else if (!self->cut_short)
        pl_server_socket_say_goodbye(self);
    evhttp_connection_free(self->evcon);
}

/* evhttp is about to free its connection. */
static void on_evcon_close(struct evhttp_connection *evcon, void *arg)
{
    (void)evcon;
    struct connection *self = arg;
    struct pl_server *server = self->server;
    struct server_exchange *exchange = self->exchange;
    dequeue(self);
    TAILQ_REMOVE(&server->connections, self, link);
    server->connection_count--;
    pl_server_socket_close(self);
    if (exchange) {
        if (exchange->base.ops && exchange->base.ops->on_gone)
            exchange->base.ops->on_gone(exchange->base.ops_arg);
        pl_server_release_exchange(exchange, server);
    }
    free(self);
}

/* ---- the queues' event --------------------------------------------------------------------- */

/* Takes the socket away from evhttp's bufferevent, which stays without one. */
static void connection_adopt(struct connection *self)
{
    bufferevent_getcb(self->bev, NULL, NULL, NULL, (void **)&self->evcon);
    evhttp_connection_set_closecb(self->evcon, on_evcon_close, self);
    pl_server_socket_open(self, bufferevent_getfd(self->bev));
    bufferevent_setfd(self->bev, -1);
    if (self->surplus)
        pl_server_doom(self);
}

static void on_queue(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_server *server = arg;
    struct connection *self;
    (void)pl_now_ms();
    server->in_queues = true;
    while ((self = queue_pop(&server->newcomers)))
        connection_adopt(self);
    server->flushing = server->to_flush;
    SLIST_INIT(&server->to_flush);
    while ((self = queue_pop(&server->flushing))) {
        if (self->flush_due)
            pl_server_try_flush(self);
        if (self->writable_due)
            tell_writable(self);
        else
            pl_server_await_next(self);
    }
    while ((self = queue_pop(&server->doomed)))
        connection_end(self);
    server->in_queues = false;
}

/* ---- accepting ----------------------------------------------------------------------------- */

static struct bufferevent *on_bev(struct event_base *base, void *arg)
{
    struct pl_server *server = arg;
    struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);
    if (!bev)
        abort();
    struct connection *self = pl_xcalloc(1, sizeof(*self));
    self->server = server;
    self->bev = bev;
    self->since_ms = self->last_read_ms = pl_now_ms();
    pl_guard_init(&self->guard, &server->limits.message);
    TAILQ_INSERT_TAIL(&server->connections, self, link);
    server->connection_count++;
    self->surplus = server->connection_count > server->limits.connections;
    enqueue(self, &server->newcomers);
    return bev;
}

/* Who connects from now on is refused at once, and can go elsewhere. */
static void end_accepting(struct pl_server *self)
{
    struct connection *connection, *next;
    evhttp_del_accept_socket(self->http, self->bound);
    self->listener = NULL;
    for (connection = TAILQ_FIRST(&self->connections); connection; connection = next) {
        next = TAILQ_NEXT(connection, link);
        if (connection->state == CONNECTION_READING && connection->guard.phase == PL_GUARD_IDLE &&
            connection->has_served)
            pl_server_doom(connection);
    }
}

/* Whether someone has connected whom the loop does not know yet: closing would reset the
 * connection. */
static bool has_callers(const struct pl_server *self)
{
    struct pollfd listener = {.fd = evconnlistener_get_fd(self->listener), .events = POLLIN};
    return poll(&listener, 1, 0) > 0;
}

static void on_accept_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_server *server = arg;
    struct timeval at_once = {0, 0};
    if (!server->listener)
        return;
    if (!server->draining)
        evconnlistener_enable(server->listener);
    else if (has_callers(server) && server->drain_turns++ < DRAIN_TURNS_MAX)
        event_add(server->accept_timer, &at_once);
    else
        end_accepting(server);
}

/* Out of descriptors: without a pause the listener would spin. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    for (struct pl_server *server = servers_on_thread; server; server = server->next_on_thread) {
        if ((void *)server->http != arg)
            continue;
        pl_log(PL_LOG_ERROR, "server: accept failed: %s; pausing for %d ms",
               evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()), ACCEPT_PAUSE_MS);
        evconnlistener_disable(listener);
        struct timeval pause = {0, ACCEPT_PAUSE_MS * 1000};
        event_add(server->accept_timer, &pause);
    }
}

/* ---- limits in time ------------------------------------------------------------------------ */

static bool passed(uint64_t now_ms, uint64_t since_ms, uint32_t limit_ms)
{
    return limit_ms > 0 && now_ms > since_ms && now_ms - since_ms >= limit_ms;
}

static void sweep_reading(struct connection *self, uint64_t now_ms)
{
    const struct pl_server_limits *limits = &self->server->limits;
    switch (self->guard.phase) {
    case PL_GUARD_IDLE:
        if (passed(now_ms, self->since_ms, limits->keepalive_idle_ms) ||
            (self->server->draining && passed(now_ms, self->since_ms, DRAIN_IDLE_MS)))
            pl_server_doom(self);
        break;
    case PL_GUARD_IN_HEAD:
        if (passed(now_ms, self->since_ms, limits->head_ms))
            pl_server_refuse(self, 408, "the request head took too long to arrive");
        break;
    case PL_GUARD_IN_BODY:
        if (passed(now_ms, self->last_read_ms, limits->body_idle_ms))
            pl_server_refuse(self, 408, "the request body stopped arriving");
        break;
    case PL_GUARD_COMPLETE: /* then it is not reading any more */
        break;
    }
}

/* A socket has room again only after a third of its buffer, which takes a slow client long. */
static bool has_taken_bytes(struct connection *self)
{
    int before = self->unacked_bytes;
    return ioctl(self->fd, SIOCOUTQ, &self->unacked_bytes) == 0 && self->unacked_bytes < before;
}

static void sweep_connection(struct connection *self, uint64_t now_ms)
{
    const struct pl_server_limits *limits = &self->server->limits;
    switch (self->state) {
    case CONNECTION_READING:
        sweep_reading(self, now_ms);
        break;
    case CONNECTION_LINGERING:
        if (passed(now_ms, self->since_ms, LINGER_MS))
            pl_server_doom(self);
        break;
    case CONNECTION_BUSY:
    case CONNECTION_FLUSHING:
    case CONNECTION_CLOSING:
    case CONNECTION_REFUSED:
        if (self->stalled && has_taken_bytes(self))
            self->last_drain_ms = now_ms;
        if (self->stalled && passed(now_ms, self->last_drain_ms, limits->write_stall_ms)) {
            self->reset_on_close = true;
            pl_server_doom(self);
        }
        break;
    case CONNECTION_DOOMED:
        break;
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_server *server = arg;
    uint64_t now_ms = pl_now_ms();
    struct connection *self, *next;
    for (self = TAILQ_FIRST(&server->connections); self; self = next) {
        next = TAILQ_NEXT(self, link);
        sweep_connection(self, now_ms);
    }
}

/* A quarter of the shortest limit, within 10 ms and 1 s: how late a limit may strike. */
static uint32_t sweep_interval_ms(const struct pl_server_limits *limits)
{
    uint32_t all[] = {limits->head_ms, limits->body_idle_ms, limits->keepalive_idle_ms,
                      limits->write_stall_ms};
    uint32_t shortest_ms = 4000;
    for (size_t i = 0; i < PL_COUNT(all); i++) {
        if (all[i] > 0)
            shortest_ms = PL_MIN(shortest_ms, all[i]);
    }
    return PL_MAX(10u, shortest_ms / 4);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void arm_sweep(struct pl_server *self)
{
    uint32_t sweep_ms = sweep_interval_ms(&self->limits);
    struct timeval interval = {sweep_ms / 1000, (sweep_ms % 1000) * 1000};
    event_add(self->sweep_timer, &interval);
}

static void start_http(struct pl_server *self, int fd)
{
    self->http = evhttp_new(self->base);
    if (!self->http)
        abort();
    evhttp_set_bevcb(self->http, on_bev, self);
    self->bound = evhttp_accept_socket_with_handle(self->http, fd);
    if (!self->bound)
        abort();
    self->listener = evhttp_bound_socket_get_listener(self->bound);
    evconnlistener_set_error_cb(self->listener, on_accept_error);
}

struct pl_server *pl_server_new(struct event_base *base, int fd, SSL_CTX *tls,
                                const struct pl_server_limits *limits,
                                const struct pl_server_ops *ops, void *arg)
{
    struct pl_server *self = pl_xcalloc(1, sizeof(*self));
    self->base = base;
    self->tls = tls;
    self->limits = *limits;
    self->ops = *ops;
    self->arg = arg;
    TAILQ_INIT(&self->connections);
    self->queue_event = event_new(base, -1, 0, on_queue, self);
    self->accept_timer = event_new(base, -1, 0, on_accept_timer, self);
    self->sweep_timer = event_new(base, -1, EV_PERSIST, on_sweep, self);
    start_http(self, fd);
    arm_sweep(self);
    self->next_on_thread = servers_on_thread;
    servers_on_thread = self;
    return self;
}

void pl_server_set_limits(struct pl_server *self, const struct pl_server_limits *limits)
{
    bool same_pace = sweep_interval_ms(limits) == sweep_interval_ms(&self->limits);
    self->limits = *limits;
    if (!same_pace) /* else frequent reloads would keep the timer from ever being due */
        arm_sweep(self);
}

void pl_server_drain(struct pl_server *self)
{
    if (self->draining)
        return;
    self->draining = true;
    /* one turn later: what the kernel holds by now, connections and requests, is still taken in */
    struct timeval at_once = {0, 0};
    evconnlistener_enable(self->listener);
    event_add(self->accept_timer, &at_once);
}

bool pl_server_is_drained(const struct pl_server *self)
{
    return self->draining && !self->listener && self->connection_count == 0;
}

size_t pl_server_connection_count(const struct pl_server *self)
{
    return self->connection_count;
}

size_t pl_server_exchange_count(const struct pl_server *self)
{
    return self->exchange_count;
}

size_t pl_server_buffered_bytes(const struct pl_server *self)
{
    const struct connection *connection;
    size_t bytes = 0;
    TAILQ_FOREACH(connection, &self->connections, link)
    {
        bytes += evbuffer_get_length(bufferevent_get_input(connection->bev));
        bytes += evbuffer_get_length(bufferevent_get_output(connection->bev));
    }
    return bytes;
}

static void forget_on_thread(struct pl_server *self)
{
    for (struct pl_server **at = &servers_on_thread; *at; at = &(*at)->next_on_thread) {
        if (*at == self) {
            *at = self->next_on_thread;
            return;
        }
    }
}

void pl_server_free(struct pl_server *self)
{
    struct connection *connection;
    forget_on_thread(self);
    on_queue(-1, 0, self);
    while ((connection = TAILQ_FIRST(&self->connections)))
        evhttp_connection_free(connection->evcon);
    evhttp_free(self->http);
    event_free(self->queue_event);
    event_free(self->accept_timer);
    event_free(self->sweep_timer);
    struct server_exchange *exchange;
    while ((exchange = self->free_exchanges)) {
        self->free_exchanges = exchange->next_free;
        pl_headers_deinit(&exchange->base.headers);
        free(exchange->body);
        free(exchange);
    }
    free(self);
}
