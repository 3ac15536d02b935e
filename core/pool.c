/*
 * Pool: see pool.h.
 *
 * Thread: one worker. The pool owns what is idle; a taken connection belongs to the taker until it
 * is given back or closed. The list is short (max_idle) and singly linked, newest first, so the
 * connection at its end is always the one that has been idle longest.
 *
 * The read event stays armed in epoll from the first request to the close. Whatever arrives while a
 * connection is idle ends it: an HTTP/1.1 server has nothing to say unasked but 408 and the end.
 * Since the loop may not have told of it yet, the socket is asked once more when a connection is
 * taken. That costs 0.2 us, and keeps an answer that nobody asked for from being given to the next
 * client.
 */
#include "pool.h"
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PIECES_PER_WRITE 64

/* ---- connection ---- */

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct pl_connection *self = arg;
    self->on_event(self->on_event_arg, what);
}

struct pl_connection *pl_connection_new(struct pl_pool *pool, int fd)
{
    struct pl_connection *self = pl_xcalloc(1, sizeof(*self));
    self->pool = pool;
    self->fd = fd;
    event_assign(&self->read_event, pool->base, fd, EV_READ | EV_PERSIST, on_socket_event, self);
    return self;
}

void pl_connection_close(struct pl_connection *connection)
{
    event_del(&connection->read_event);
    pl_connection_want_write(connection, false);
    if (connection->ssl != NULL) {
        pl_tls_close(connection->ssl);
    }
    close(connection->fd);
    free(connection);
}

void pl_connection_want_read(struct pl_connection *connection, bool wanted)
{
    if (connection->reading == wanted) {
        return;
    }
    connection->reading = wanted;
    if (wanted) {
        event_add(&connection->read_event, NULL);
    } else {
        event_del(&connection->read_event);
    }
}

void pl_connection_want_write(struct pl_connection *connection, bool wanted)
{
    if (wanted == (connection->write_event != NULL)) {
        return;
    }
    if (!wanted) {
        event_free(connection->write_event);
        connection->write_event = NULL;
        return;
    }
    connection->write_event = event_new(connection->pool->base, connection->fd,
                                        EV_WRITE | EV_PERSIST, on_socket_event, connection);
    if (connection->write_event == NULL) {
        abort(); /* out of memory, as pl_xmalloc */
    }
    event_add(connection->write_event, NULL);
}

long pl_connection_read(struct pl_connection *self, char *data, size_t size)
{
    if (self->ssl != NULL) {
        bool wants_write = false;
        long got = pl_tls_read(self->ssl, data, size, &wants_write);
        if (wants_write) {
            pl_connection_want_write(self, true);
        }
        return got;
    }
    ssize_t got;
    do {
        got = recv(self->fd, data, size, 0);
    } while (got < 0 && errno == EINTR);
    if (got >= 0) {
        return got;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK ? PL_ERR_ABSENT : PL_ERR_SYSTEM;
}

bool pl_connection_has_unread(const struct pl_connection *self)
{
    return self->ssl != NULL && SSL_has_pending(self->ssl);
}

long pl_connection_write(struct pl_connection *self, const struct iovec *pieces, size_t piece_count,
                         size_t first_offset)
{
    if (self->ssl != NULL) {
        bool wants_write = false;
        long put = pl_tls_write(self->ssl, pieces, piece_count, first_offset, &wants_write);
        if (wants_write) {
            pl_connection_want_write(self, true);
        }
        return put;
    }
    struct iovec rest[MAX_PIECES_PER_WRITE];
    size_t count = PL_MIN(piece_count, PL_COUNT(rest));
    memcpy(rest, pieces, count * sizeof(*pieces));
    rest[0].iov_base = (char *)rest[0].iov_base + first_offset;
    rest[0].iov_len -= first_offset;
    struct msghdr message = {.msg_iov = rest, .msg_iovlen = count};
    ssize_t sent;
    do {
        sent = sendmsg(self->fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        return sent;
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
        return PL_ERR_SYSTEM;
    }
    pl_connection_want_write(self, true);
    return PL_ERR_ABSENT;
}

void pl_connection_error(const struct pl_connection *self, char *out, size_t out_size)
{
    if (self->ssl != NULL) {
        pl_tls_error(self->ssl, out, out_size);
    } else {
        evutil_snprintf(out, out_size, "%s", strerror(errno));
    }
}

/* ---- idle connections ---- */

static void unlink_idle(struct pl_pool *self, struct pl_connection *connection)
{
    struct pl_connection **link = &self->idle;
    while (*link != connection) {
        link = &(*link)->next;
    }
    *link = connection->next;
    connection->next = NULL;
    self->idle_count--;
}

/** Whether the peer has said or closed anything. TLS housekeeping (tickets, key updates) is read
 *  and is no reason to part. */
static bool has_spoken(struct pl_connection *connection)
{
    char byte;
    ssize_t got = recv(connection->fd, &byte, 1, MSG_PEEK);
    if (got < 0) {
        return errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
    }
    if (got == 0 || connection->ssl == NULL) {
        return true;
    }
    bool wants_write = false;
    return pl_tls_read(connection->ssl, &byte, 1, &wants_write) != PL_ERR_ABSENT || wants_write;
}

static void on_idle_event(void *arg, short what)
{
    (void)what;
    struct pl_connection *connection = arg;
    if (!has_spoken(connection)) {
        return;
    }
    unlink_idle(connection->pool, connection);
    pl_connection_close(connection);
}

struct pl_connection *pl_pool_take(struct pl_pool *self, uint64_t credential_tag)
{
    struct pl_connection *next;
    for (struct pl_connection *at = self->idle; at != NULL; at = next) {
        next = at->next;
        if (at->credential_tag != credential_tag) {
            continue;
        }
        unlink_idle(self, at);
        if (!has_spoken(at)) {
            return at;
        }
        pl_connection_close(at);
    }
    return NULL;
}

static void arm_sweep(struct pl_pool *self, uint64_t after_ms)
{
    struct timeval when = {.tv_sec = (time_t)(after_ms / 1000),
                           .tv_usec = (suseconds_t)(after_ms % 1000 * 1000)};
    event_add(self->sweep_timer, &when);
}

/** Closes the connections from `*link` to the end of the list: the oldest. */
static void close_tail(struct pl_pool *self, struct pl_connection **link)
{
    struct pl_connection *at = *link, *next;
    *link = NULL;
    for (; at != NULL; at = next) {
        next = at->next;
        self->idle_count--;
        pl_connection_close(at);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_pool *self = arg;
    uint64_t now_ms = pl_now_ms(), oldest_ms = 0;
    uint32_t idle_ms = self->endpoint->idle_ms;
    struct pl_connection **link = &self->idle;
    for (; *link != NULL && now_ms - (*link)->idle_since_ms < idle_ms; link = &(*link)->next) {
        oldest_ms = (*link)->idle_since_ms;
    }
    close_tail(self, link);
    if (self->idle != NULL) {
        arm_sweep(self, oldest_ms + idle_ms - now_ms);
    }
}

static void close_oldest(struct pl_pool *self)
{
    struct pl_connection **link = &self->idle;
    while ((*link)->next != NULL) {
        link = &(*link)->next;
    }
    close_tail(self, link);
}

void pl_pool_give(struct pl_pool *self, struct pl_connection *connection)
{
    const struct pl_endpoint *endpoint = self->endpoint;
    if (self->closed || endpoint->max_idle == 0) {
        pl_connection_close(connection);
        return;
    }
    if (self->idle_count >= endpoint->max_idle) {
        close_oldest(self);
    }
    connection->on_event = on_idle_event;
    connection->on_event_arg = connection;
    connection->idle_since_ms = pl_last_now_ms();
    connection->reused = true;
    pl_connection_want_write(connection, false);
    pl_connection_want_read(connection, true);
    connection->next = self->idle;
    self->idle = connection;
    self->idle_count++;
    if (endpoint->idle_ms != 0 && !event_pending(self->sweep_timer, EV_TIMEOUT, NULL)) {
        arm_sweep(self, endpoint->idle_ms);
    }
}

/* ---- the pool itself ---- */

struct pl_pool *pl_pool_new(struct event_base *base, struct pl_resolver *resolver,
                            const struct pl_endpoint *endpoint)
{
    struct pl_pool *self = pl_xcalloc(1, sizeof(*self));
    self->base = base;
    self->resolver = resolver;
    self->endpoint = endpoint;
    self->user_count = 1;
    self->sweep_timer = evtimer_new(base, on_sweep, self);
    if (self->sweep_timer == NULL) {
        abort(); /* out of memory, as pl_xmalloc */
    }
    return self;
}

void pl_pool_free(struct pl_pool *self)
{
    if (self == NULL) {
        return;
    }
    self->closed = true;
    if (self->free_spare_attempts != NULL) {
        self->free_spare_attempts(self);
    }
    close_tail(self, &self->idle);
    event_free(self->sweep_timer);
    self->sweep_timer = NULL;
    pl_pool_unref(self);
}

static bool is_same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

bool pl_endpoint_equal(const struct pl_endpoint *a, const struct pl_endpoint *b)
{
    return a->port == b->port && is_same(a->host, b->host) && is_same(a->trust, b->trust) &&
           (a->tls == NULL) == (b->tls == NULL) &&
           (a->tls == NULL || is_same(a->server_name, b->server_name));
}

static struct pl_connection *take_oldest(struct pl_pool *self)
{
    struct pl_connection *at = self->idle;
    while (at->next != NULL) {
        at = at->next;
    }
    unlink_idle(self, at);
    return at;
}

void pl_pool_move_idle(struct pl_pool *self, struct pl_pool *from)
{
    while (from->idle != NULL) {
        struct pl_connection *connection = take_oldest(from);
        uint64_t since_ms = connection->idle_since_ms;
        connection->pool = self;
        if (connection->ssl != NULL) {
            pl_tls_keep_session(connection->ssl, &self->session);
        }
        pl_pool_give(self, connection);
        if (self->idle == connection) { /* it has not become fresher by moving */
            connection->idle_since_ms = since_ms;
        }
    }
}

bool pl_pool_is_quiet(const struct pl_pool *self)
{
    return self->user_count == 1;
}

void pl_pool_ref(struct pl_pool *self)
{
    self->user_count++;
}

void pl_pool_unref(struct pl_pool *self)
{
    if (--self->user_count > 0) {
        return;
    }
    SSL_SESSION_free(self->session);
    free(self);
}
