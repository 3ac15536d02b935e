/*
 * Server: see server.h. The listener's connections, from accept to close.
 *
 * A connection is evhttp's, with a guard (guard.h) on its input buffer that sees each byte before
 * evhttp does. What the guard refuses never reaches evhttp: the read callback is taken away and a
 * JSON error is written. What it accepts, evhttp frames and hands to on_evhttp_request. Answers are
 * written here, straight to the socket when nothing is waiting; evhttp only learns that they ended
 * (evhttp_send_reply_end), and goes on to the next request.
 *
 * Ownership: evhttp owns its connection and request; `struct connection` lives from on_bev until
 * evhttp's close callback; an exchange lives from on_request to its answer or to on_gone. Nothing
 * is freed in its own callback: a connection to be closed goes to the doomed list, which an event
 * empties in the same loop turn.
 *
 * Deliberately not done: pipelining (bytes after a request are dropped and the connection is closed
 * after the answer; RFC 9112 9.3.2 makes the client send again), HTTP/2, upgrades.
 */
#include "json.h"
#include "log.h"
#include "reply.h"
#include "server_internal.h"
#include <assert.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define LINGER_MS           2000
#define DRAIN_IDLE_MS       1000 /* for the first request of a client that came before the drain */
#define ACCEPT_PAUSE_MS     50
#define DRAIN_TURNS_MAX     100
#define FLUSH_AT_ONCE_BYTES 16384
#define READ_AHEAD_BYTES    65536 /* input kept while an answer is being made */

/* evconnlistener's error callback gets evhttp's pointer, so servers are found by it. */
static _Thread_local struct pl_server *servers_on_thread;

static void say_goodbye(struct connection *self);

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

/* ---- exchanges ---------------------------------------------------------------------------- */

static struct server_exchange *exchange_new(struct connection *connection,
                                            struct evhttp_request *req)
{
    struct pl_server *server = connection->server;
    struct server_exchange *self = server->free_exchanges;
    if (self) {
        server->free_exchanges = self->next_free;
    } else {
        self = pl_xcalloc(1, sizeof(*self));
        pl_headers_init(&self->base.headers);
    }
    struct pl_headers headers = self->base.headers;
    *self =
        (struct server_exchange){.base = {.class = &pl_server_exchange_class, .headers = headers},
                                 .connection = connection,
                                 .request = req};
    server->exchange_count++;
    return self;
}

void pl_server_release_exchange(struct server_exchange *self, struct pl_server *server)
{
    if (self->connection)
        self->connection->exchange = NULL;
    self->connection = NULL;
    self->request = NULL;
    self->base.ops = NULL;
    pl_headers_clear(&self->base.headers);
    self->next_free = server->free_exchanges;
    server->free_exchanges = self;
    server->exchange_count--;
}

static const char *method_name(enum evhttp_cmd_type type)
{
    switch (type) {
    case EVHTTP_REQ_GET:
        return "GET";
    case EVHTTP_REQ_HEAD:
        return "HEAD";
    case EVHTTP_REQ_POST:
        return "POST";
    case EVHTTP_REQ_PUT:
        return "PUT";
    case EVHTTP_REQ_PATCH:
        return "PATCH";
    case EVHTTP_REQ_DELETE:
        return "DELETE";
    case EVHTTP_REQ_OPTIONS:
        return "OPTIONS";
    default:
        return "UNKNOWN";
    }
}

/* Copies what the owner may ask for out of evhttp's request. */
static int exchange_fill(struct server_exchange *self)
{
    struct evhttp_request *req = self->request;
    struct evkeyval *field;
    TAILQ_FOREACH(field, evhttp_request_get_input_headers(req), next)
    {
        /* evhttp strips spaces before a value, but no tabs */
        const char *value = field->value + strspn(field->value, " \t");
        if (pl_headers_add(&self->base.headers, pl_str_of(field->key), pl_str_of(value)) != PL_OK)
            return PL_ERR_SYNTAX;
    }
    const char *uri = evhttp_request_get_uri(req);
    const char *question = strchr(uri, '?');
    self->base.path = question ? (struct pl_str){uri, (size_t)(question - uri)} : pl_str_of(uri);
    self->base.query = question ? pl_str_of(question + 1) : PL_STR("");
    self->base.method = method_name(evhttp_request_get_command(req));
    self->bodiless = evhttp_request_get_command(req) == EVHTTP_REQ_HEAD;
    if (req->minor == 0)
        self->close_after =
            !pl_headers_list_token(&self->base.headers, PL_STR("connection"), PL_STR("keep-alive"));
    else
        self->close_after =
            pl_headers_list_token(&self->base.headers, PL_STR("connection"), PL_STR("close"));
    return PL_OK;
}

/*
 * Watches for the client's leaving while the answer is being made: evhttp's event callback stays,
 * its read callback goes (a pipelined request would make it exit), reading goes on up to a mark.
 * Its write callback goes too: evhttp leaves the completion function of what it wrote last in place
 * (of a 100 Continue, for one), and would run it as soon as the first bytes are out; over TLS even
 * before, as libevent delays write callbacks there. It learns of the end in pl_server_hand_back.
 */
static void watch_client(struct connection *self)
{
    bufferevent_data_cb read_cb, write_cb;
    bufferevent_event_cb event_cb;
    void *arg;
    bufferevent_getcb(self->bev, &read_cb, &write_cb, &event_cb, &arg);
    bufferevent_setcb(self->bev, NULL, NULL, event_cb, arg);
    bufferevent_setwatermark(self->bev, EV_READ, 0, READ_AHEAD_BYTES);
    bufferevent_enable(self->bev, EV_READ);
    if (evbuffer_get_length(bufferevent_get_output(self->bev)) == 0) /* no 100 Continue */
        bufferevent_disable(self->bev, EV_WRITE);
}

/* evhttp has sent the last byte of an answer and is about to wait for the next request. */
static void on_reply_sent(struct evhttp_request *req, void *arg)
{
    struct connection *self = arg;
    (void)req;
    bufferevent_setwatermark(self->bev, EV_READ, 0, 0);
    struct evbuffer *input = bufferevent_get_input(self->bev);
    bool early_bytes = evbuffer_get_length(input) > 0;
    if (early_bytes)
        evbuffer_drain(input, evbuffer_get_length(input));
    pl_guard_reset(&self->guard);
    self->has_served = true;
    self->state = CONNECTION_READING;
    self->since_ms = pl_now_ms();
    if (early_bytes || self->server->draining)
        pl_server_doom(self);
}

/* evhttp has read a message that the guard did not see the end of: it must not be served. */
static void close_unguarded(struct pl_server *server, struct evhttp_connection *evcon)
{
    struct connection *self;
    pl_log(PL_LOG_ERROR, "server: guard and parser disagree about a message; connection closed");
    TAILQ_FOREACH(self, &server->connections, link)
    {
        if (self->evcon == evcon)
            pl_server_doom(self);
    }
}

static void on_evhttp_request(struct evhttp_request *req, void *arg)
{
    struct pl_server *server = arg;
    struct connection *connection = server->completing;
    server->completing = NULL;
    struct evhttp_connection *evcon = evhttp_request_get_connection(req);
    if (!connection || connection->evcon != evcon) {
        close_unguarded(server, evcon);
        return;
    }
    struct server_exchange *exchange = exchange_new(connection, req);
    connection->exchange = exchange;
    connection->state = CONNECTION_BUSY;
    connection->last_drain_ms = connection->last_read_ms;
    evhttp_request_set_on_complete_cb(req, on_reply_sent, connection);
    watch_client(connection);
    if (exchange_fill(exchange) != PL_OK) {
        static const char body[] = "{\"error\":{\"message\":\"invalid header value\",\"type\":"
                                   "\"invalid_request_error\",\"param\":null,\"code\":null}}";
        pl_exchange_reply(&exchange->base, 400, NULL, body, sizeof(body) - 1);
        return;
    }
    server->ops.on_request(&exchange->base, server->arg);
}

/* ---- refusing ----------------------------------------------------------------------------- */

static void on_refused_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    (void)what;
    pl_server_doom(arg);
}

static void on_linger_read(struct bufferevent *bev, void *arg)
{
    (void)arg;
    struct evbuffer *input = bufferevent_get_input(bev);
    evbuffer_drain(input, evbuffer_get_length(input));
}

/* The error is out: shut our side and drop what still comes, so that no reset destroys it. */
static void on_refusal_sent(struct bufferevent *bev, void *arg)
{
    struct connection *self = arg;
    bool waits = evbuffer_get_length(bufferevent_get_output(bev)) > 0; /* over TLS: a late call */
    if (self->state != CONNECTION_REFUSED || waits)
        return;
    self->state = CONNECTION_LINGERING;
    self->since_ms = pl_now_ms();
    if (self->server->tls)
        say_goodbye(self); /* reading goes on */
    shutdown(bufferevent_getfd(bev), SHUT_WR);
    bufferevent_setcb(bev, on_linger_read, NULL, on_refused_event, self);
    bufferevent_enable(bev, EV_READ);
}

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

/* Answers a message that is not to be served, and ends the connection. Nothing is read until the
 * answer is out: a client that does not take it could fill our memory. */
static void refuse(struct connection *self, int status, const char *reason)
{
    char body[512];
    size_t json_len;
    char *json = pl_json_encode_string(reason, strlen(reason), &json_len);
    int len = snprintf(body, sizeof(body),
                       "{\"error\":{\"message\":%s,\"type\":\"invalid_request_error\","
                       "\"param\":null,\"code\":\"%s\"}}",
                       json, refusal_code(status));
    assert(len > 0 && (size_t)len < sizeof(body));
    free(json);
    struct pl_headers headers;
    pl_headers_init(&headers);
    int rc = pl_headers_add(&headers, PL_STR("Content-Type"), PL_STR("application/json"));
    if (status == 405)
        rc |= pl_headers_add(&headers, PL_STR("Allow"),
                             PL_STR("GET, HEAD, POST, PUT, PATCH, DELETE"));
    assert(rc == PL_OK);
    struct pl_reply reply = {.status = status,
                             .minor_version = 1,
                             .headers = &headers,
                             .content_length_bytes = len,
                             .close = true};
    self->state = CONNECTION_REFUSED;
    self->since_ms = pl_now_ms();
    self->last_drain_ms = self->since_ms;
    bufferevent_setcb(self->bev, NULL, on_refusal_sent, on_refused_event, self);
    struct evbuffer *output = bufferevent_get_output(self->bev);
    pl_reply_write_head(output, &reply);
    evbuffer_add(output, body, (size_t)len);
    bufferevent_disable(self->bev, EV_READ);
    bufferevent_enable(self->bev, EV_WRITE);
    pl_headers_deinit(&headers);
}

/* ---- input -------------------------------------------------------------------------------- */

/* Feeds the guard with bytes that have just been added; evhttp has not seen them yet. What lies
 * within a body is skipped: to find it takes longer with each piece that evhttp leaves waiting. */
static void scan(struct connection *self, struct evbuffer *input, size_t added)
{
    struct evbuffer_ptr at;
    struct evbuffer_iovec pieces[32];
    size_t skipped = pl_guard_skip(&self->guard, added);
    size_t skip = evbuffer_get_length(input) - added + skipped;
    added -= skipped;
    while (added > 0) {
        if (evbuffer_ptr_set(input, &at, skip, EVBUFFER_PTR_SET) < 0)
            return;
        int count = evbuffer_peek(input, (ev_ssize_t)added, &at, pieces, PL_COUNT(pieces));
        for (int i = 0; i < PL_MIN(count, (int)PL_COUNT(pieces)); i++) {
            size_t used;
            size_t len = PL_MIN(pieces[i].iov_len, added);
            enum pl_guard_verdict verdict =
                pl_guard_feed(&self->guard, pieces[i].iov_base, len, &used);
            if (verdict == PL_GUARD_REFUSED) {
                refuse(self, self->guard.status, self->guard.reason);
                return;
            }
            if (verdict == PL_GUARD_DONE) {
                self->server->completing = self;
                return;
            }
            added -= len;
            skip += len;
        }
    }
}

static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
    struct connection *self = arg;
    if (info->n_added == 0)
        return;
    self->last_read_ms = pl_now_ms();
    if (self->state != CONNECTION_READING)
        return;
    if (!self->evcon) { /* bytes before the first queue turn: learn the connection now */
        bufferevent_getcb(self->bev, NULL, NULL, NULL, (void **)&self->evcon);
    }
    if (self->guard.phase == PL_GUARD_IDLE)
        self->since_ms = self->last_read_ms;
    if (self->guard.phase != PL_GUARD_COMPLETE)
        scan(self, input, info->n_added);
}

/* ---- output ------------------------------------------------------------------------------- */

static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    struct connection *self = arg;
    if (info->n_deleted == 0)
        return;
    self->last_drain_ms = pl_now_ms();
    size_t left = evbuffer_get_length(output);
    if (self->state == CONNECTION_CLOSING && left == 0) {
        pl_server_doom(self);
        return;
    }
    if (self->answered && left == 0) { /* we are inside the buffer: from a fresh call */
        enqueue(self, &self->server->to_flush);
        return;
    }
    uint32_t high = self->server->limits.unsent_high_bytes;
    if (self->exchange && left <= high / 2 && left + info->n_deleted > high / 2) {
        self->writable_due = true; /* the owner may be in the middle of a write */
        enqueue(self, &self->server->to_flush);
    }
}

/* Writes at once what waits; what the kernel does not take is left to the event loop. */
void pl_server_try_flush(struct connection *self)
{
    struct evbuffer *output = bufferevent_get_output(self->bev);
    self->flush_due = false;
    if (evbuffer_get_length(output) == 0)
        return;
    if (!self->server->tls) {
        evbuffer_unfreeze(output, 1);
        evbuffer_write(output, bufferevent_getfd(self->bev));
        evbuffer_freeze(output, 1);
    }
    if (evbuffer_get_length(output) > 0)
        bufferevent_enable(self->bev, EV_WRITE);
}

/* The last byte is out: evhttp goes on to the next request. */
void pl_server_hand_back(struct connection *self)
{
    struct evhttp_request *req = self->answered;
    if (!req || evbuffer_get_length(bufferevent_get_output(self->bev)) > 0)
        return;
    self->answered = NULL;
    /* evhttp would write its own last chunk if the flag of a chunked request were left on */
    req->chunked = 0;
    evhttp_send_reply_end(req);
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
    if (evbuffer_get_length(bufferevent_get_output(self->bev)) >= FLUSH_AT_ONCE_BYTES) {
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
    bufferevent_disable(self->bev, EV_READ | EV_WRITE);
    dequeue(self);
    enqueue(self, &self->server->doomed);
}

/* RST now: the only end that a client of an answer without length cannot take for a clean one. */
static void reset_socket(struct connection *self)
{
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int fd = bufferevent_getfd(self->bev);
    if (fd >= 0)
        (void)connect(fd, &nowhere, sizeof(nowhere));
}

/* Says close_notify, without which a client of TLS must take the end for a cut. */
static void say_goodbye(struct connection *self)
{
    SSL *ssl = bufferevent_openssl_get_ssl(self->bev);
    if (SSL_in_init(ssl) || (SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        return;
    (void)SSL_shutdown(ssl);
    ERR_clear_error();
}

/* The end of a connection that is not evhttp's idea. */
static void connection_end(struct connection *self)
{
    if (self->reset_on_close)
        reset_socket(self);
    else if (self->server->tls && !self->cut_short)
        say_goodbye(self);
    evhttp_connection_free(self->evcon);
}

/* evhttp is about to free its connection, whatever the reason. */
static void on_evcon_close(struct evhttp_connection *evcon, void *arg)
{
    (void)evcon;
    struct connection *self = arg;
    struct pl_server *server = self->server;
    struct server_exchange *exchange = self->exchange;
    dequeue(self);
    TAILQ_REMOVE(&server->connections, self, link);
    server->connection_count--;
    if (server->completing == self)
        server->completing = NULL;
    evbuffer_remove_cb_entry(bufferevent_get_input(self->bev), self->input_entry);
    evbuffer_remove_cb_entry(bufferevent_get_output(self->bev), self->output_entry);
    if (exchange) {
        const struct pl_exchange_ops *ops = exchange->base.ops;
        void *ops_arg = exchange->base.ops_arg;
        /* on EOF evhttp has let go of the request: it is ours to free */
        struct evhttp_request *orphan =
            evhttp_request_get_connection(exchange->request) ? NULL : exchange->request;
        if (ops && ops->on_gone)
            ops->on_gone(ops_arg);
        pl_server_release_exchange(exchange, server);
        if (orphan)
            evhttp_request_free(orphan);
    }
    free(self);
}

/* ---- the queues' event --------------------------------------------------------------------- */

static void connection_adopt(struct connection *self)
{
    if (!self->evcon)
        bufferevent_getcb(self->bev, NULL, NULL, NULL, (void **)&self->evcon);
    evhttp_connection_set_closecb(self->evcon, on_evcon_close, self);
    if (self->surplus)
        pl_server_doom(self);
}

static void on_queue(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_server *server = arg;
    struct connection *self;
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
            pl_server_hand_back(self); /* after either it may be gone */
    }
    while ((self = queue_pop(&server->doomed)))
        connection_end(self);
    server->in_queues = false;
}

/* ---- accepting ----------------------------------------------------------------------------- */

static struct bufferevent *on_bev(struct event_base *base, void *arg)
{
    struct pl_server *server = arg;
    struct bufferevent *bev;
    if (server->tls)
        bev = bufferevent_openssl_socket_new(base, -1, SSL_new(server->tls),
                                             BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    else
        bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (!bev)
        abort();
    if (server->tls)
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    struct connection *self = pl_xcalloc(1, sizeof(*self));
    self->server = server;
    self->bev = bev;
    self->since_ms = self->last_read_ms = pl_now_ms();
    pl_guard_init(&self->guard, &server->limits.message);
    self->input_entry = evbuffer_add_cb(bufferevent_get_input(bev), on_input, self);
    self->output_entry = evbuffer_add_cb(bufferevent_get_output(bev), on_output, self);
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
            refuse(self, 408, "the request head took too long to arrive");
        break;
    case PL_GUARD_IN_BODY:
        if (passed(now_ms, self->last_read_ms, limits->body_idle_ms))
            refuse(self, 408, "the request body stopped arriving");
        break;
    case PL_GUARD_COMPLETE: /* whole, and yet not given to us: evhttp sees it in another way */
        if (passed(now_ms, self->last_read_ms, limits->body_idle_ms))
            pl_server_doom(self);
        break;
    }
}

/* A socket has room again only after a third of its buffer, which takes a slow client long. */
static bool has_taken_bytes(struct connection *self)
{
    int before = self->unacked_bytes;
    return ioctl(bufferevent_getfd(self->bev), SIOCOUTQ, &self->unacked_bytes) == 0 &&
           self->unacked_bytes < before;
}

static void sweep_connection(struct connection *self, uint64_t now_ms)
{
    const struct pl_server_limits *limits = &self->server->limits;
    bool unsent = evbuffer_get_length(bufferevent_get_output(self->bev)) > 0;
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
        if (unsent && has_taken_bytes(self))
            self->last_drain_ms = now_ms;
        if (unsent && passed(now_ms, self->last_drain_ms, limits->write_stall_ms)) {
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

static void start_http(struct pl_server *self, int fd)
{
    self->http = evhttp_new(self->base);
    if (!self->http)
        abort();
    evhttp_set_bevcb(self->http, on_bev, self);
    evhttp_set_gencb(self->http, on_evhttp_request, self);
    evhttp_set_default_content_type(self->http, NULL);
    evhttp_set_allowed_methods(self->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
                                               EVHTTP_REQ_PUT | EVHTTP_REQ_PATCH |
                                               EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS);
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
    uint32_t sweep_ms = sweep_interval_ms(limits);
    struct timeval interval = {sweep_ms / 1000, (sweep_ms % 1000) * 1000};
    event_add(self->sweep_timer, &interval);
    self->next_on_thread = servers_on_thread;
    servers_on_thread = self;
    return self;
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
        free(exchange);
    }
    free(self);
}
