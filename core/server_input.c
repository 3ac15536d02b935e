/*
 * Server: what clients send, see server_internal.h. Bytes are read into one buffer per thread and
 * scanned there by the guard, which finds the target, the fields and the body; the exchange keeps
 * them. What the guard refuses is answered with a JSON error, in the client's dialect as far as the
 * path or the headers have come.
 */
#include "client_error.h"
#include "reply.h"
#include "server_internal.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define READ_BYTES       65536
#define READ_AHEAD_BYTES 65536 /* taken, and dropped, while an answer is being made */

static _Thread_local char scratch[READ_BYTES];

/* ---- refusing ----------------------------------------------------------------------------- */

static const char *refusal_code(int status)
{
    switch (status) {
    case 405:
        return "method_not_allowed";
    case 408:
        return "request_timeout";
    case 413:
        return "request_too_large";
    case 414:
        return "uri_too_long";
    case 417:
        return "expectation_failed";
    case 431:
        return "headers_too_large";
    case 501:
        return "not_implemented";
    case 505:
        return "http_version_not_supported";
    default:
        return "bad_request";
    }
}

/* What of the target has come, without a query; nothing while its path may go on. */
static struct pl_str path_so_far(const struct connection *self)
{
    const struct pl_headers *head = &self->exchange->base.headers;
    const struct pl_guard *guard = &self->guard;
    if (guard->target_offset == 0 || guard->target_offset > head->arena_len)
        return PL_STR("");
    struct pl_str target = {head->arena + guard->target_offset,
                            head->arena_len - guard->target_offset};
    if (guard->target_len > 0)
        target.len = PL_MIN(target.len, guard->target_len);
    const char *question = memchr(target.data, '?', target.len);
    if (question)
        target.len = (size_t)(question - target.data);
    else if (guard->target_len == 0)
        target.len = 0;
    return target;
}

static enum pl_dialect dialect_of(const struct connection *self)
{
    if (!self->exchange)
        return PL_DIALECT_OPENAI;
    return pl_client_error_dialect(path_so_far(self), &self->exchange->base.headers);
}

static void write_refusal(struct connection *self, int status, const char *reason)
{
    struct pl_client_error error = {
        .status = status, .message = pl_str_of(reason), .code = refusal_code(status)};
    struct pl_headers headers;
    size_t len;
    char *body = pl_client_error_body(dialect_of(self), &error, &len);
    pl_headers_init(&headers);
    int rc = pl_headers_add(&headers, PL_STR("Content-Type"), PL_STR("application/json"));
    if (status == 405)
        rc |= pl_headers_add(&headers, PL_STR("Allow"),
                             PL_STR("GET, HEAD, POST, PUT, PATCH, DELETE"));
    assert(rc == PL_OK);
    struct pl_reply reply = {.status = status,
                             .minor_version = 1,
                             .headers = &headers,
                             .content_length_bytes = (int64_t)len,
                             .close = true};
    pl_reply_write_head(self->output, &reply);
    evbuffer_add(self->output, body, len);
    pl_headers_deinit(&headers);
    free(body);
}

static void tell_refused(struct connection *self, int status, uint64_t started_ms)
{
    struct pl_refusal refusal = {.status = status,
                                 .code = refusal_code(status),
                                 .duration_ms = (uint32_t)(self->since_ms - started_ms),
                                 .body_bytes = self->guard.body_bytes};
    if (self->exchange) {
        refusal.peer = pl_exchange_peer(&self->exchange->base);
        if (pl_server_has_target(self->exchange)) {
            refusal.method = pl_exchange_method(&self->exchange->base);
            refusal.path = pl_exchange_path(&self->exchange->base);
        }
    }
    self->server->ops.on_refused(&refusal, self->server->arg);
}

/* Nothing is read until the answer is out: a client that does not take it could fill our memory. */
void pl_server_refuse(struct connection *self, int status, const char *reason)
{
    uint64_t started_ms = self->since_ms;
    self->state = CONNECTION_REFUSED;
    self->since_ms = pl_now_ms();
    write_refusal(self, status, reason);
    if (self->server->ops.on_refused)
        tell_refused(self, status, started_ms);
    if (self->exchange)
        pl_server_release_exchange(self->exchange, self->server);
    pl_server_socket_listen(self, false);
    pl_server_try_flush(self);
}

/* The error is out: shut our side and drop what still comes, so that no reset destroys it. */
void pl_server_linger(struct connection *self)
{
    self->state = CONNECTION_LINGERING;
    self->since_ms = pl_now_ms();
    pl_server_socket_say_goodbye(self);
    shutdown(self->fd, SHUT_WR);
    pl_server_socket_listen(self, true);
}

/* ---- a message ---------------------------------------------------------------------------- */

static void serve(struct connection *self)
{
    struct pl_server *server = self->server;
    self->state = CONNECTION_BUSY;
    pl_server_complete_exchange(self->exchange);
    server->ops.on_request(&self->exchange->base, server->arg);
}

static void send_continue(struct connection *self)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    evbuffer_add(self->output, line, sizeof(line) - 1);
    pl_server_try_flush(self);
}

static void begin_message(struct connection *self)
{
    self->since_ms = self->last_read_ms;
    self->exchange = pl_server_new_exchange(self);
    pl_guard_reset(&self->guard, &self->exchange->base.headers);
}

/* Takes what belongs to the message. What comes behind it is dropped, and counted. */
static void read_message(struct connection *self, const char *data, size_t len)
{
    enum pl_guard_verdict verdict = PL_GUARD_MORE;
    if (self->guard.phase == PL_GUARD_IDLE)
        begin_message(self);
    while (len > 0 && verdict == PL_GUARD_MORE) {
        struct pl_str body;
        size_t used;
        bool in_head = self->guard.phase <= PL_GUARD_IN_HEAD;
        verdict = pl_guard_feed(&self->guard, data, len, &used, &body);
        if (in_head)
            pl_headers_keep_bytes(&self->exchange->base.headers, data, used);
        pl_server_keep_body(self->exchange, body);
        data += used;
        len -= used;
        if (in_head && len == 0 && self->guard.phase == PL_GUARD_IN_BODY &&
            self->guard.expects_continue)
            send_continue(self);
    }
    if (verdict == PL_GUARD_REFUSED) {
        pl_server_refuse(self, self->guard.status, self->guard.reason);
    } else if (verdict == PL_GUARD_DONE) {
        self->early_bytes = len;
        serve(self);
    }
}

/* ---- reading ------------------------------------------------------------------------------ */

static void take_bytes(struct connection *self, const char *data, size_t len)
{
    self->last_read_ms = pl_now_ms();
    switch (self->state) {
    case CONNECTION_READING:
        read_message(self, data, len);
        break;
    case CONNECTION_BUSY:
    case CONNECTION_FLUSHING:
    case CONNECTION_CLOSING:
        self->early_bytes += len;
        if (self->early_bytes >= READ_AHEAD_BYTES)
            pl_server_socket_listen(self, false);
        break;
    case CONNECTION_REFUSED:
    case CONNECTION_LINGERING:
    case CONNECTION_DOOMED:
        break;
    }
}

void pl_server_read(struct connection *self)
{
    if (!self->listens)
        return;
    long got = pl_server_socket_read(self, scratch, sizeof(scratch));
    if (got > 0)
        take_bytes(self, scratch, (size_t)got);
    else if (got != PL_ERR_ABSENT) /* the client has left, in one way or another */
        pl_server_doom(self);
}
