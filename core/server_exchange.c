/*
 * Exchange: one request and its answer on a connection of the server, see server.h.
 */
#include "reply.h"
#include "server_internal.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BODY_FIRST_BYTES 1024
#define BODY_KEEP_BYTES  4096 /* of a released exchange's, for the next one */

/* ---- life ---------------------------------------------------------------------------------- */

struct server_exchange *pl_server_new_exchange(struct connection *connection)
{
    struct pl_server *server = connection->server;
    struct server_exchange *self = server->free_exchanges;
    if (self)
        server->free_exchanges = self->next_free;
    else
        self = pl_xcalloc(1, sizeof(*self));
    *self = (struct server_exchange){
        .base = {.class = &pl_server_exchange_class, .headers = self->base.headers},
        .connection = connection,
        .body = self->body,
        .body_cap = self->body_cap};
    return self;
}

static void drop_body(struct server_exchange *self)
{
    free(self->body);
    self->body = NULL;
    self->body_len = self->body_cap = 0;
}

void pl_server_release_exchange(struct server_exchange *self, struct pl_server *server)
{
    if (self->is_whole)
        server->exchange_count--;
    self->connection->exchange = NULL;
    self->connection = NULL;
    self->base.ops = NULL;
    pl_headers_clear(&self->base.headers);
    if (self->body_cap > BODY_KEEP_BYTES)
        drop_body(self);
    self->next_free = server->free_exchanges;
    server->free_exchanges = self;
}

void pl_server_keep_body(struct server_exchange *self, struct pl_str bytes)
{
    if (bytes.len == 0)
        return;
    if (self->body_len + bytes.len > self->body_cap) {
        self->body_cap = PL_MAX(PL_MAX(self->body_cap * 2, self->body_len + bytes.len),
                                (size_t)BODY_FIRST_BYTES);
        self->body = pl_xrealloc(self->body, self->body_cap);
    }
    memcpy(self->body + self->body_len, bytes.data, bytes.len);
    self->body_len += bytes.len;
}

/* The target lies in the head, wherever that has been moved to. */
static void find_target(struct server_exchange *self)
{
    const struct pl_guard *guard = &self->connection->guard;
    const char *target = self->base.headers.arena + guard->target_offset;
    const char *end = target + guard->target_len;
    const char *question = memchr(target, '?', guard->target_len);
    const char *path_end = question ? question : end;
    self->base.path = (struct pl_str){target, (size_t)(path_end - target)};
    self->base.query =
        question ? (struct pl_str){question + 1, (size_t)(end - question - 1)} : PL_STR("");
}

bool pl_server_has_target(struct server_exchange *self)
{
    const struct pl_guard *guard = &self->connection->guard;
    if (guard->target_len == 0 ||
        self->base.headers.arena_len < (size_t)guard->target_offset + guard->target_len)
        return false;
    find_target(self);
    self->base.method = pl_guard_method(guard);
    return true;
}

void pl_server_complete_exchange(struct server_exchange *self)
{
    const struct pl_guard *guard = &self->connection->guard;
    const struct pl_headers *headers = &self->base.headers;
    const struct pl_str connection = PL_STR("connection");
    self->is_whole = true;
    self->connection->server->exchange_count++;
    pl_headers_trim(&self->base.headers);
    find_target(self);
    self->base.method = pl_guard_method(guard);
    self->bodiless = guard->is_head;
    self->is_old = guard->minor_version == 0;
    self->close_after = self->is_old
                            ? !pl_headers_list_token(headers, connection, PL_STR("keep-alive"))
                            : pl_headers_list_token(headers, connection, PL_STR("close"));
}

/* ---- the request side of an exchange ------------------------------------------------------- */

static struct server_exchange *of(struct pl_exchange *exchange)
{
    return (struct server_exchange *)exchange; /* `base` is at its head */
}

static struct pl_str body(struct pl_exchange *exchange)
{
    const struct server_exchange *self = of(exchange);
    return self->body_len > 0 ? (struct pl_str){self->body, self->body_len} : PL_STR("");
}

static struct pl_str peer(const struct pl_exchange *exchange)
{
    const struct server_exchange *self = (const struct server_exchange *)exchange;
    char *address = NULL;
    ev_uint16_t port;
    evhttp_connection_get_peer(self->connection->evcon, &address, &port);
    return address ? pl_str_of(address) : PL_STR("");
}

static void forget_request(struct pl_exchange *exchange)
{
    struct server_exchange *self = of(exchange);
    const struct pl_guard *guard = &self->connection->guard;
    drop_body(self);
    pl_headers_cut(&self->base.headers, guard->target_offset + guard->target_len);
    find_target(self);
}

/* ---- the answer side ----------------------------------------------------------------------- */

static void write_head(struct server_exchange *self, int status, const struct pl_headers *headers,
                       int64_t content_length_bytes)
{
    assert(!self->started);
    struct connection *connection = self->connection;
    self->started = true;
    self->bodiless = self->bodiless || pl_reply_is_bodiless(status);
    bool old_client = self->is_old;
    bool has_length = content_length_bytes >= 0;
    self->chunked = !has_length && !old_client && !self->bodiless;
    self->eof_framed = !has_length && old_client && !self->bodiless;
    self->close_after = self->close_after || connection->server->draining || self->eof_framed;
    struct pl_reply reply = {.status = status,
                             .minor_version = old_client ? 0 : 1,
                             .headers = headers,
                             .content_length_bytes =
                                 pl_reply_is_bodiless(status) ? -1 : content_length_bytes,
                             .chunked = self->chunked,
                             .close = self->close_after};
    pl_reply_write_head(connection->output, &reply);
}

/* Sends what waits, then ends the connection. */
static void close_when_sent(struct connection *self)
{
    if (self->state == CONNECTION_DOOMED)
        return;
    self->state = CONNECTION_CLOSING;
    pl_server_try_flush(self);
    if (evbuffer_get_length(self->output) == 0)
        pl_server_doom(self);
}

static void let_go(struct server_exchange *self)
{
    self->connection->writable_due = false;
    pl_server_release_exchange(self, self->connection->server);
}

/* The answer is whole: lets go of the exchange, and sees what becomes of the connection. */
static void finish(struct server_exchange *self)
{
    struct connection *connection = self->connection;
    bool close_after = self->close_after;
    let_go(self);
    if (close_after) {
        close_when_sent(connection);
        return;
    }
    pl_server_try_flush(connection);
    if (connection->state == CONNECTION_DOOMED)
        return;
    connection->state = CONNECTION_FLUSHING;
    pl_server_await_next(connection);
}

static void reply(struct pl_exchange *exchange, int status, const struct pl_headers *headers,
                  const char *data, size_t len)
{
    struct server_exchange *self = of(exchange);
    write_head(self, status, headers, (int64_t)len);
    if (!self->bodiless)
        evbuffer_add(self->connection->output, data, len);
    finish(self);
}

static void start(struct pl_exchange *exchange, int status, const struct pl_headers *headers,
                  int64_t content_length_bytes)
{
    struct server_exchange *self = of(exchange);
    struct connection *connection = self->connection;
    write_head(self, status, headers, content_length_bytes);
    pl_server_flush_soon(connection);
}

/* Whether a write is better sent at once than gathered with others of its loop turn: if it is the
 * turn's first one, and no others followed the first one of the last turn. */
static bool is_lone_write(struct connection *self)
{
    struct timeval turn;
    event_base_gettimeofday_cached(self->server->base, &turn);
    if (turn.tv_usec == self->write_turn.tv_usec && turn.tv_sec == self->write_turn.tv_sec) {
        self->writes_in_turn++;
        return false;
    }
    bool followed = self->writes_in_turn > 1;
    self->write_turn = turn;
    self->writes_in_turn = 1;
    return !followed;
}

/* Straight from where the bytes lie. Returns how many the kernel took. */
static size_t write_at_once(struct connection *self, struct iovec *pieces, int count)
{
    bool lone = is_lone_write(self);
    if (!lone || self->ssl || evbuffer_get_length(self->output) > 0)
        return 0;
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    ssize_t sent = sendmsg(self->fd, &message, MSG_NOSIGNAL);
    return sent > 0 ? (size_t)sent : 0; /* an error comes again where it is dealt with */
}

static void write_pieces(struct connection *self, struct iovec *pieces, int count)
{
    struct evbuffer *output = self->output;
    size_t sent = write_at_once(self, pieces, count);
    for (int i = 0; i < count; i++) {
        size_t skip = PL_MIN(sent, pieces[i].iov_len);
        sent -= skip;
        if (pieces[i].iov_len > skip)
            evbuffer_add(output, (char *)pieces[i].iov_base + skip, pieces[i].iov_len - skip);
    }
    if (evbuffer_get_length(output) > 0)
        pl_server_flush_soon(self);
}

static bool write_body(struct pl_exchange *exchange, const char *data, size_t len)
{
    struct server_exchange *self = of(exchange);
    struct connection *connection = self->connection;
    if (len > 0 && !self->bodiless) {
        char size_line[PL_NUMBER_MAX + 2];
        size_t size_len = pl_put_hex(size_line, len);
        memcpy(size_line + size_len, "\r\n", 2);
        struct iovec pieces[] = {
            {size_line, size_len + 2}, {(void *)data, len}, {(void *)"\r\n", 2}};
        if (self->chunked)
            write_pieces(connection, pieces, 3);
        else
            write_pieces(connection, pieces + 1, 1);
    }
    return evbuffer_get_length(connection->output) <= connection->server->limits.unsent_high_bytes;
}

static void end(struct pl_exchange *exchange)
{
    struct server_exchange *self = of(exchange);
    if (self->chunked)
        evbuffer_add(self->connection->output, "0\r\n\r\n", 5);
    finish(self);
}

static void abort_answer(struct pl_exchange *exchange, bool at_once)
{
    struct server_exchange *self = of(exchange);
    struct connection *connection = self->connection;
    connection->cut_short = true;
    connection->reset_on_close = at_once || self->eof_framed || !self->started;
    let_go(self);
    if (at_once)
        pl_server_doom(connection);
    else
        close_when_sent(connection);
}

const struct pl_exchange_class pl_server_exchange_class = {.body = body,
                                                           .peer = peer,
                                                           .forget_request = forget_request,
                                                           .reply = reply,
                                                           .start = start,
                                                           .write = write_body,
                                                           .end = end,
                                                           .abort = abort_answer};
