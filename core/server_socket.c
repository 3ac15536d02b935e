/*
 * Server: a connection's socket, see server_internal.h. Plain bytes or TLS, looking the same to the
 * others.
 *
 * Both events live as long as the connection: the one for reading stays registered, so that no
 * system call is spent on it per request; the one for writing is armed only while the kernel does
 * not take what waits.
 */
#include "server_internal.h"
#include "tls.h"
#include <errno.h>
#include <openssl/err.h>
#include <sys/socket.h>

#define PIECES_PER_WRITE 16

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct connection *self = arg;
    if ((what & EV_WRITE) || self->ssl)
        pl_server_try_flush(self);
    if ((what & EV_READ) || self->ssl)
        pl_server_read(self);
}

/* A handshake that cannot even begin ends the connection like any that fails. */
static void start_tls(struct connection *self)
{
    self->ssl = SSL_new(self->server->tls);
    if (!self->ssl || SSL_set_fd(self->ssl, self->fd) != 1) {
        pl_server_doom(self);
        return;
    }
    SSL_set_accept_state(self->ssl);
}

void pl_server_socket_open(struct connection *self, int fd)
{
    struct event_base *base = self->server->base;
    self->fd = fd;
    event_assign(&self->read_event, base, fd, EV_READ | EV_PERSIST, on_socket, self);
    event_assign(&self->write_event, base, fd, EV_WRITE, on_socket, self);
    self->output = evbuffer_new();
    if (!self->output)
        abort();
    pl_server_socket_listen(self, true);
    if (self->server->tls)
        start_tls(self);
}

void pl_server_socket_close(struct connection *self)
{
    if (!self->output)
        return;
    event_del(&self->read_event);
    event_del(&self->write_event);
    evbuffer_free(self->output);
    SSL_free(self->ssl);
}

void pl_server_socket_listen(struct connection *self, bool wanted)
{
    if (self->listens == wanted)
        return;
    self->listens = wanted;
    if (wanted)
        event_add(&self->read_event, NULL);
    else
        event_del(&self->read_event);
}

static long read_plain(struct connection *self, char *data, size_t size)
{
    ssize_t got;
    do {
        got = recv(self->fd, data, size, 0);
    } while (got < 0 && errno == EINTR);
    if (got >= 0)
        return got;
    return errno == EAGAIN || errno == EWOULDBLOCK ? PL_ERR_ABSENT : PL_ERR_SYSTEM;
}

long pl_server_socket_read(struct connection *self, char *data, size_t size)
{
    bool wants_write = false;
    if (!self->ssl)
        return read_plain(self, data, size);
    long got = pl_tls_read(self->ssl, data, size, &wants_write);
    if (wants_write)
        event_add(&self->write_event, NULL);
    if (got > 0 && SSL_has_pending(self->ssl)) /* no event will tell of the rest */
        event_active(&self->read_event, EV_READ, 0);
    return got;
}

static long write_plain(struct connection *self)
{
    long put = evbuffer_write(self->output, self->fd);
    if (put >= 0)
        return put;
    bool again = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (again)
        event_add(&self->write_event, NULL);
    return again ? PL_ERR_ABSENT : PL_ERR_SYSTEM;
}

static long write_tls(struct connection *self)
{
    struct evbuffer_iovec pieces[PIECES_PER_WRITE];
    bool wants_write = false;
    int count = evbuffer_peek(self->output, -1, NULL, pieces, PIECES_PER_WRITE);
    long put =
        pl_tls_write(self->ssl, pieces, (size_t)PL_MIN(count, PIECES_PER_WRITE), 0, &wants_write);
    if (put > 0)
        evbuffer_drain(self->output, (size_t)put);
    if (wants_write)
        event_add(&self->write_event, NULL);
    return put;
}

/* As much as the kernel takes. Returns PL_ERR_SYSTEM when the connection is broken. */
static long write_output(struct connection *self)
{
    long put = 1;
    while (put > 0 && evbuffer_get_length(self->output) > 0)
        put = self->ssl ? write_tls(self) : write_plain(self);
    return put;
}

void pl_server_try_flush(struct connection *self)
{
    size_t before_bytes = evbuffer_get_length(self->output);
    self->flush_due = false;
    if (before_bytes == 0 || self->state == CONNECTION_DOOMED)
        return;
    long put = write_output(self);
    size_t left_bytes = evbuffer_get_length(self->output);
    if (left_bytes > 0 && (left_bytes < before_bytes || !self->stalled))
        self->last_drain_ms = pl_now_ms();
    self->stalled = left_bytes > 0;
    if (put == PL_ERR_SYSTEM)
        pl_server_doom(self);
    else if (left_bytes < before_bytes)
        pl_server_drained(self, before_bytes);
}

/* RST now: the only end that a client of an answer without length cannot take for a clean one. */
void pl_server_socket_reset(struct connection *self)
{
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    (void)connect(self->fd, &nowhere, sizeof(nowhere));
}

void pl_server_socket_say_goodbye(struct connection *self)
{
    SSL *ssl = self->ssl;
    if (!ssl || SSL_in_init(ssl) || (SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        return;
    ERR_clear_error();
    (void)SSL_shutdown(ssl);
    ERR_clear_error();
}
