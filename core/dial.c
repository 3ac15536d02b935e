/*
 * Dial: see dial.h.
 *
 * Thread: one worker. The dial owns the connection until it hands it over, and the query while a
 * lookup is under way. Addresses are tried one after the other; each gets an even share of the time
 * that is left, so that a silent address cannot use up what the next ones need.
 *
 * Every end comes from the loop: what is decided inside start is reported by the activated timer.
 */
#include "dial.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum phase { PHASE_LOOKUP, PHASE_CONNECT, PHASE_HANDSHAKE, PHASE_READY, PHASE_FAILED };

struct pl_dial {
    struct pl_pool *pool;
    enum phase phase;
    enum pl_failure failure;
    uint32_t connect_ms, tls_ms;
    uint64_t start_ms;
    struct pl_resolve_query *query;
    struct pl_connection *connection;
    struct event timer;
    size_t next_address;
    pl_dial_cb cb;
    void *arg;
    struct pl_addresses addresses;
    char detail[160];
};

/* ---- words ---- */

static void describe_address(const struct pl_address *address, char *out, size_t out_size)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(out, out_size, "%s:%u", host, ntohs(in->sin_port));
    } else {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(out, out_size, "[%s]:%u", host, ntohs(in6->sin6_port));
    }
}

PL_PRINTF(2, 3) static void explain(struct pl_dial *self, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(self->detail, sizeof(self->detail), format, args);
    va_end(args);
}

static void explain_connect(struct pl_dial *self, const char *reason)
{
    char address[INET6_ADDRSTRLEN + 16];
    describe_address(&self->addresses.items[self->next_address - 1], address, sizeof(address));
    explain(self, "connect to %s: %s", address, reason);
}

/* ---- ends ---- */

static void drop_connection(struct pl_dial *self)
{
    if (self->connection != NULL) {
        pl_connection_close(self->connection);
    }
    self->connection = NULL;
}

static void release(struct pl_dial *self)
{
    if (self->query != NULL) {
        pl_resolve_cancel(self->query);
    }
    drop_connection(self);
    event_del(&self->timer);
    free(self);
}

/** The only place that calls back. */
static void report(struct pl_dial *self)
{
    struct pl_connection *connection = self->connection;
    self->connection = NULL;
    if (connection != NULL) {
        pl_connection_want_read(connection, true);
    }
    self->cb(self->arg, connection, self->failure, self->detail);
    release(self);
}

/** Decides the end; `report` follows from the loop. */
static void end_with(struct pl_dial *self, enum phase phase, enum pl_failure failure)
{
    self->phase = phase;
    self->failure = failure;
    if (phase == PHASE_FAILED) {
        drop_connection(self);
    }
    event_del(&self->timer);
    event_active(&self->timer, EV_TIMEOUT, 0);
}

static void arm_timer(struct pl_dial *self, uint64_t after_ms)
{
    struct timeval when = {.tv_sec = (time_t)(after_ms / 1000),
                           .tv_usec = (suseconds_t)(after_ms % 1000 * 1000)};
    event_add(&self->timer, &when);
}

/* ---- handshake ---- */

static void fail_handshake(struct pl_dial *self, int result)
{
    char reason[96] = "the peer closed the connection";
    if (result != PL_ERR_CLOSED) {
        pl_tls_error(self->connection->ssl, reason, sizeof(reason));
    }
    const struct pl_endpoint *endpoint = self->pool->endpoint;
    explain(self, "TLS with %s:%u: %s", endpoint->host, endpoint->port, reason);
    end_with(self, PHASE_FAILED, PL_FAIL_TLS);
}

static void shake_hands(struct pl_dial *self)
{
    bool wants_write = false;
    int result = pl_tls_handshake(self->connection->ssl, &wants_write);
    if (result == PL_ERR_ABSENT) {
        pl_connection_want_write(self->connection, wants_write);
    } else if (result != PL_OK) {
        fail_handshake(self, result);
    } else {
        pl_connection_want_write(self->connection, false);
        end_with(self, PHASE_READY, PL_FAIL_NONE);
    }
}

static void start_handshake(struct pl_dial *self)
{
    struct pl_pool *pool = self->pool;
    struct pl_connection *connection = self->connection;
    self->phase = PHASE_HANDSHAKE;
    connection->ssl = pl_tls_client_new(pool->endpoint->tls, connection->fd,
                                        pool->endpoint->server_name, pool->session);
    if (connection->ssl == NULL) {
        fail_handshake(self, PL_ERR_SYSTEM);
        return;
    }
    pl_tls_keep_session(connection->ssl, &pool->session);
    event_del(&self->timer);
    if (self->tls_ms != 0) {
        arm_timer(self, self->tls_ms);
    }
    shake_hands(self);
}

/* ---- connect ---- */

static void on_connected(struct pl_dial *self)
{
    pl_connection_want_write(self->connection, false);
    pl_connection_want_read(self->connection, true);
    if (self->pool->endpoint->tls != NULL) {
        start_handshake(self);
    } else {
        end_with(self, PHASE_READY, PL_FAIL_NONE);
    }
}

/** The even share of what is left of connect_ms for the address tried now. */
static void arm_connect_timer(struct pl_dial *self)
{
    if (self->connect_ms == 0) {
        return;
    }
    uint64_t spent_ms = pl_now_ms() - self->start_ms;
    uint64_t left_ms = spent_ms < self->connect_ms ? self->connect_ms - spent_ms : 0;
    arm_timer(self, left_ms / (self->addresses.count - self->next_address + 1));
}

/** A model may think for minutes without a byte; keep-alive probes hold the way through NATs open,
 *  and find out when there is nobody left. None of it is worth failing for. */
static void set_options(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 60}, {IPPROTO_TCP, TCP_KEEPINTVL, 20},
        {IPPROTO_TCP, TCP_KEEPCNT, 3},
    };
    for (size_t i = 0; i < PL_COUNT(options); i++) {
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
    }
}

/** False when this address is out of the question; errno says why. */
static bool begin_connect(struct pl_dial *self, const struct pl_address *address)
{
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    set_options(fd);
    int result = connect(fd, (const struct sockaddr *)&address->storage, address->len);
    if (result < 0 && errno != EINPROGRESS && errno != EINTR) {
        int reason = errno;
        close(fd);
        errno = reason;
        return false;
    }
    self->connection = pl_connection_new(self->pool, fd);
    return true;
}

static void on_socket(void *arg, short what);

static void connect_next(struct pl_dial *self)
{
    self->phase = PHASE_CONNECT;
    drop_connection(self);
    while (self->next_address < self->addresses.count) {
        const struct pl_address *address = &self->addresses.items[self->next_address++];
        if (begin_connect(self, address)) {
            self->connection->on_event = on_socket;
            self->connection->on_event_arg = self;
            pl_connection_want_write(self->connection, true);
            arm_connect_timer(self);
            return;
        }
        explain_connect(self, strerror(errno));
    }
    end_with(self, PHASE_FAILED, PL_FAIL_CONNECT);
}

static void on_connect_result(struct pl_dial *self)
{
    int reason = 0;
    socklen_t len = sizeof(reason);
    if (getsockopt(self->connection->fd, SOL_SOCKET, SO_ERROR, &reason, &len) < 0) {
        reason = errno;
    }
    if (reason == 0) {
        on_connected(self);
        return;
    }
    explain_connect(self, strerror(reason));
    connect_next(self);
}

static void on_socket(void *arg, short what)
{
    (void)what;
    struct pl_dial *self = arg;
    if (self->phase == PHASE_CONNECT) {
        on_connect_result(self);
    } else if (self->phase == PHASE_HANDSHAKE) {
        shake_hands(self);
    } else { /* bytes before the handover, which arms reading again: it is level-triggered */
        pl_connection_want_read(self->connection, false);
    }
}

/* ---- lookup and timeouts ---- */

static void on_addresses(void *arg, const struct pl_addresses *addresses, const char *error)
{
    struct pl_dial *self = arg;
    self->query = NULL;
    if (error != NULL) {
        explain(self, "lookup of %s: %s", self->pool->endpoint->host, error);
        end_with(self, PHASE_FAILED, PL_FAIL_DNS);
        return;
    }
    self->addresses = *addresses;
    connect_next(self);
}

static bool is_connect_overdue(const struct pl_dial *self)
{
    return self->next_address == self->addresses.count ||
           pl_now_ms() - self->start_ms >= self->connect_ms;
}

static void on_overdue(struct pl_dial *self)
{
    const struct pl_endpoint *endpoint = self->pool->endpoint;
    if (self->phase == PHASE_HANDSHAKE) {
        explain(self, "TLS with %s:%u: no handshake after %u ms", endpoint->host, endpoint->port,
                self->tls_ms);
    } else if (self->phase == PHASE_LOOKUP) {
        explain(self, "lookup of %s: no answer after %u ms", endpoint->host, self->connect_ms);
    } else {
        char reason[64];
        snprintf(reason, sizeof(reason), "no answer, gave up after %u ms",
                 (unsigned)(pl_now_ms() - self->start_ms));
        explain_connect(self, reason);
        if (!is_connect_overdue(self)) {
            connect_next(self);
            return;
        }
    }
    end_with(self, PHASE_FAILED, PL_FAIL_TIMEOUT_CONNECT);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_dial *self = arg;
    if (self->phase == PHASE_READY || self->phase == PHASE_FAILED) {
        report(self);
    } else {
        on_overdue(self);
    }
}

/* ---- exported ---- */

struct pl_dial *pl_dial_start(struct pl_pool *pool, uint32_t connect_ms, uint32_t tls_ms,
                              pl_dial_cb cb, void *arg)
{
    struct pl_dial *self = pl_xcalloc(1, sizeof(*self));
    self->pool = pool;
    self->connect_ms = connect_ms;
    self->tls_ms = tls_ms;
    self->start_ms = pl_now_ms();
    self->cb = cb;
    self->arg = arg;
    event_assign(&self->timer, pool->base, -1, 0, on_timer, self);
    self->query = pl_resolve_start(pool->resolver, pool->endpoint->host, pool->endpoint->port,
                                   &self->addresses, on_addresses, self);
    if (self->query == NULL) {
        connect_next(self);
    } else if (connect_ms != 0) {
        arm_timer(self, connect_ms);
    }
    return self;
}

void pl_dial_cancel(struct pl_dial *dial)
{
    release(dial);
}
