/*
 * For tests of the network layer: a scripted upstream, a scripted name server and a recorder of one
 * attempt's callbacks, all in one event loop and on loopback ports that the system picks.
 *
 * A script is an array of steps per accepted connection, in the order of accepting; a connection
 * without a script, or at the end of it, keeps reading and says nothing.
 */
#ifndef PL_ATTEMPT_TEST_H
#define PL_ATTEMPT_TEST_H

#include "attempt.h"
#include "clock_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/dns.h>
#include <event2/dns_struct.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define TEST_UNUSED    __attribute__((unused))
#define MAX_PEERS      16
#define GIVE_UP_MS     20000 /* a test that takes this long has failed */
#define RECORDED_BYTES 65536

/* ---- the scripted upstream ---- */

enum op {
    OP_END,     /* nothing more is said */
    OP_REQUEST, /* wait for a whole request, by its Content-Length */
    OP_HEAD,    /* wait for a request's head only */
    OP_SEND,    /* write the text */
    OP_TRICKLE, /* write the text byte by byte, one per turn of the loop */
    OP_FLOOD,   /* write `count` times the letter x */
    OP_GATE,    /* wait for upstream_open_gate */
    OP_DEAF,    /* read no more */
    OP_CLOSE,   /* close; with TLS: close_notify first */
    OP_CUT,     /* close without close_notify */
    OP_RESET,   /* close with RST */
};

struct step {
    enum op op;
    const char *text;
    size_t count;
};

struct upstream;

struct peer {
    struct upstream *upstream;
    const struct step *step;
    int fd;
    SSL *ssl;
    struct event *read_event, *write_event;
    char head[8192];
    size_t head_len;
    size_t body_left_bytes;
    size_t heads_seen, heads_taken, requests_seen, requests_taken;
    size_t written; /* of the step */
    bool ended;     /* the other side has closed */
};

struct upstream {
    struct event_base *base;
    int fd;
    uint16_t port;
    struct event *accept_event;
    const struct step *const *scripts;
    size_t script_count;
    SSL_CTX *tls;
    struct peer peers[MAX_PEERS];
    size_t accepted_count, resumed_count, ended_count;
    size_t gates_open;
    size_t sent_bytes, received_bytes;
};

static void peer_run(struct peer *peer);

static void peer_close(struct peer *peer)
{
    if (peer->fd < 0) {
        return;
    }
    event_free(peer->read_event);
    event_free(peer->write_event);
    SSL_free(peer->ssl);
    close(peer->fd);
    peer->fd = -1;
}

static void peer_reset(struct peer *peer)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    peer_close(peer);
}

static bool peer_has_to_wait(const struct peer *peer, int result)
{
    if (peer->ssl == NULL) {
        return errno == EAGAIN;
    }
    int error = SSL_get_error(peer->ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/** Bytes, 0 at the end, -1 when it has to wait. */
static long peer_read(struct peer *peer, char *data, size_t size)
{
    if (peer->ssl == NULL) {
        ssize_t got = recv(peer->fd, data, size, 0);
        return got < 0 ? (errno == EAGAIN ? -1 : 0) : got;
    }
    int got = SSL_read(peer->ssl, data, (int)size);
    return got > 0 ? got : (peer_has_to_wait(peer, got) ? -1 : 0);
}

/** Bytes, or 0 when it has to wait. A broken connection plays the rest of the script to nobody. */
static size_t peer_write(struct peer *peer, const char *data, size_t len)
{
    long put = peer->ssl != NULL ? SSL_write(peer->ssl, data, (int)len)
                                 : send(peer->fd, data, len, MSG_NOSIGNAL);
    if (put <= 0) {
        return peer_has_to_wait(peer, (int)put) ? 0 : len;
    }
    peer->upstream->sent_bytes += (size_t)put;
    return (size_t)put;
}

static void peer_take_head(struct peer *peer)
{
    peer->heads_seen++;
    const char *length = strcasestr(peer->head, "content-length:");
    peer->body_left_bytes = length != NULL ? strtoul(length + 15, NULL, 10) : 0;
    peer->head_len = 0;
}

static void peer_take_byte(struct peer *peer, char byte)
{
    assert_true(peer->head_len + 1 < sizeof(peer->head));
    peer->head[peer->head_len++] = byte;
    peer->head[peer->head_len] = '\0';
    if (peer->head_len < 4 || memcmp(peer->head + peer->head_len - 4, "\r\n\r\n", 4) != 0) {
        return;
    }
    peer_take_head(peer);
    if (peer->body_left_bytes == 0) {
        peer->requests_seen++;
    }
}

static void peer_take(struct peer *peer, const char *data, size_t len)
{
    peer->upstream->received_bytes += len;
    while (len > 0) {
        size_t take = PL_MIN(len, peer->body_left_bytes);
        if (take == 0) {
            peer_take_byte(peer, *data);
            take = 1;
        } else {
            peer->body_left_bytes -= take;
            peer->requests_seen += peer->body_left_bytes == 0;
        }
        data += take;
        len -= take;
    }
}

static void on_peer_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    static char buffer[65536];
    struct peer *peer = arg;
    long got;
    while ((got = peer_read(peer, buffer, sizeof(buffer))) > 0) {
        peer_take(peer, buffer, (size_t)got);
    }
    if (got == 0 && !peer->ended) {
        peer->ended = true;
        peer->upstream->ended_count++;
        event_del(peer->read_event);
    }
    if (peer->ssl != NULL && SSL_session_reused(peer->ssl) && SSL_is_init_finished(peer->ssl) &&
        peer->heads_seen == 1) {
        peer->upstream->resumed_count = 1;
    }
    peer_run(peer);
}

static void on_peer_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    peer_run(arg);
}

/** Writes on; true when the step is complete. */
static bool peer_send(struct peer *peer, size_t len, size_t at_once)
{
    static char flood[65536];
    memset(flood, 'x', sizeof(flood));
    while (peer->written < len) {
        const char *from = peer->step->text ? peer->step->text + peer->written : flood;
        size_t left = PL_MIN(len - peer->written, sizeof(flood));
        size_t put = peer_write(peer, from, PL_MIN(left, at_once));
        peer->written += put;
        if (put == 0 || at_once == 1) {
            break;
        }
    }
    if (peer->written < len) {
        event_add(peer->write_event, NULL);
        return false;
    }
    event_del(peer->write_event);
    peer->written = 0;
    return true;
}

/** One step; false when it has to wait, or the connection is gone. */
static bool peer_step(struct peer *peer)
{
    const struct step *step = peer->step;
    switch (step->op) {
    case OP_END:
        return false;
    case OP_REQUEST:
        return peer->requests_seen > peer->requests_taken && ++peer->requests_taken;
    case OP_HEAD:
        return peer->heads_seen > peer->heads_taken && ++peer->heads_taken;
    case OP_SEND:
        return peer_send(peer, strlen(step->text), SIZE_MAX);
    case OP_TRICKLE:
        return peer_send(peer, strlen(step->text), 1);
    case OP_FLOOD:
        return peer_send(peer, step->count, SIZE_MAX);
    case OP_GATE:
        return peer->upstream->gates_open > 0 && peer->upstream->gates_open--;
    case OP_DEAF:
        event_del(peer->read_event);
        return true;
    case OP_CLOSE:
        if (peer->ssl != NULL) {
            SSL_shutdown(peer->ssl);
        }
        peer_close(peer);
        return false;
    case OP_CUT:
        peer_close(peer);
        return false;
    case OP_RESET:
        peer_reset(peer);
        return false;
    }
    return false;
}

static void peer_run(struct peer *peer)
{
    while (peer->fd >= 0 && peer_step(peer)) {
        peer->step++;
    }
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    static const struct step SILENCE[] = {{OP_END, NULL, 0}};
    (void)what;
    struct upstream *self = arg;
    int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(accepted >= 0 && self->accepted_count < MAX_PEERS);
    size_t index = self->accepted_count++;
    struct peer *peer = &self->peers[index];
    int on = 1;
    setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    peer->upstream = self;
    peer->fd = accepted;
    peer->step = index < self->script_count ? self->scripts[index] : SILENCE;
    if (self->tls != NULL) {
        peer->ssl = SSL_new(self->tls);
        SSL_set_fd(peer->ssl, accepted);
        SSL_set_accept_state(peer->ssl);
        SSL_set_mode(peer->ssl,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    peer->read_event =
        event_new(self->base, accepted, EV_READ | EV_PERSIST, on_peer_readable, peer);
    peer->write_event =
        event_new(self->base, accepted, EV_WRITE | EV_PERSIST, on_peer_writable, peer);
    event_add(peer->read_event, NULL);
    peer_run(peer);
}

static int listen_on(const char *address, uint16_t *port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t len = sizeof(in);
    inet_pton(AF_INET, address, &in.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    int receive_bytes = 65536; /* so that a large request does not fit into the kernel */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

static void upstream_init(struct upstream *self, struct event_base *base,
                          const struct step *const *scripts, size_t script_count, SSL_CTX *tls)
{
    memset(self, 0, sizeof(*self));
    self->base = base;
    self->scripts = scripts;
    self->script_count = script_count;
    self->tls = tls;
    self->fd = listen_on("127.0.0.1", &self->port);
    for (size_t i = 0; i < MAX_PEERS; i++) {
        self->peers[i].fd = -1;
    }
    self->accept_event = event_new(base, self->fd, EV_READ | EV_PERSIST, on_accept, self);
    event_add(self->accept_event, NULL);
}

static void upstream_deinit(struct upstream *self)
{
    for (size_t i = 0; i < MAX_PEERS; i++) {
        peer_close(&self->peers[i]);
    }
    event_free(self->accept_event);
    close(self->fd);
}

/** Lets one OP_GATE pass, on any connection. */
static TEST_UNUSED void upstream_open_gate(struct upstream *self)
{
    self->gates_open++;
    for (size_t i = 0; i < self->accepted_count; i++) {
        peer_run(&self->peers[i]);
    }
}

/* ---- a network to test in ---- */

struct net {
    struct event_base *base;
    struct pl_resolver *resolver;
    struct upstream upstream;
    struct pl_endpoint endpoint;
    struct pl_pool *pool;
};

static TEST_UNUSED void net_init(struct net *self, const struct step *const *scripts,
                                 size_t script_count, SSL_CTX *server_tls, SSL_CTX *client_tls)
{
    struct event_config *config = event_config_new();
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    self->base = event_base_new_with_config(config);
    event_config_free(config);
    self->resolver = pl_resolver_new(self->base);
    upstream_init(&self->upstream, self->base, scripts, script_count, server_tls);
    self->endpoint = (struct pl_endpoint){.host = "127.0.0.1",
                                          .port = self->upstream.port,
                                          .tls = client_tls,
                                          .server_name = "127.0.0.1",
                                          .max_idle = 4,
                                          .idle_ms = 60000};
    self->pool = pl_pool_new(self->base, self->resolver, &self->endpoint);
}

static TEST_UNUSED void net_deinit(struct net *self)
{
    pl_pool_free(self->pool);
    upstream_deinit(&self->upstream);
    pl_resolver_free(self->resolver);
    event_base_loop(self->base, EVLOOP_NONBLOCK);
    event_base_free(self->base);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    assert_true(real_now_ms() < *(uint64_t *)arg);
}

/** Turns the loop until `*count` is at least `wanted`. Returns the number of turns. */
static size_t run_until_count(struct event_base *base, const size_t *count, size_t wanted)
{
    uint64_t give_up_ms = real_now_ms() + GIVE_UP_MS;
    struct timeval tick = {0, 100000};
    struct event timer;
    size_t turns = 0;
    event_assign(&timer, base, -1, EV_PERSIST, on_tick, &give_up_ms);
    event_add(&timer, &tick);
    for (; *count < wanted; turns++) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    event_del(&timer);
    return turns;
}

/** Turns the loop until `*count` has not moved for many turns: nothing is on its way any more. */
static TEST_UNUSED void run_until_still(struct event_base *base, const size_t *count)
{
    size_t before = *count;
    for (int still = 0; still < 200; still++) {
        event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
        if (*count != before) {
            before = *count;
            still = 0;
        }
    }
}

/* ---- a name server that gives every name the same addresses, or never answers ---- */

struct name_server {
    int fd;
    struct evdns_server_port *port;
    const char *addresses[4];
    size_t address_count;
    size_t repeat_count; /* how often each is given; 0 is 1 */
    const char *v6_address;
    size_t question_count;
    bool silent;
    char resolv_conf[32];
};

static void on_question(struct evdns_server_request *request, void *arg)
{
    struct name_server *self = arg;
    self->question_count++;
    if (self->silent) {
        evdns_server_request_drop(request);
        return;
    }
    struct evdns_server_question *question = request->questions[0];
    size_t count = self->address_count * PL_MAX(self->repeat_count, 1);
    for (size_t i = 0; question->type == EVDNS_TYPE_A && i < count; i++) {
        struct in_addr in;
        inet_pton(AF_INET, self->addresses[i % self->address_count], &in);
        evdns_server_request_add_a_reply(request, question->name, 1, &in, 60);
    }
    if (question->type == EVDNS_TYPE_AAAA && self->v6_address != NULL) {
        struct in6_addr in6;
        inet_pton(AF_INET6, self->v6_address, &in6);
        evdns_server_request_add_aaaa_reply(request, question->name, 1, &in6, 60);
    }
    evdns_server_request_respond(request, 0);
}

/** Starts it and makes the net resolve with it. */
static TEST_UNUSED void name_server_init(struct name_server *self, struct net *net)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t len = sizeof(in);
    inet_pton(AF_INET, "127.0.0.1", &in.sin_addr);
    self->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(self->fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(getsockname(self->fd, (struct sockaddr *)&in, &len), 0);
    self->port = evdns_add_server_port_with_base(net->base, self->fd, 0, on_question, self);
    strcpy(self->resolv_conf, "/tmp/resolv.conf.XXXXXX");
    int file = mkstemp(self->resolv_conf);
    dprintf(file, "nameserver 127.0.0.1:%u\n", ntohs(in.sin_port));
    close(file);
    pl_resolver_free(net->resolver);
    net->resolver = pl_resolver_new_from(net->base, self->resolv_conf);
    net->pool->resolver = net->resolver;
    net->endpoint.host = "upstream.test";
}

static TEST_UNUSED void name_server_deinit(struct name_server *self)
{
    evdns_close_server_port(self->port);
    close(self->fd);
    unlink(self->resolv_conf);
}

/* ---- one recorded attempt ---- */

struct record {
    struct net *net;
    struct pl_attempt *attempt;
    size_t head_count, body_calls, body_bytes;
    int status;
    char body[RECORDED_BYTES + 1]; /* the first bytes */
    size_t done;                   /* 0 or 1 */
    enum pl_failure failure;
    struct pl_attempt_stats stats;
    void (*at_head)(struct record *self); /* run inside the callbacks */
    void (*at_body)(struct record *self);
    void (*at_done)(struct record *self);
};

static void record_head(struct pl_attempt *attempt, void *arg)
{
    struct record *self = arg;
    self->attempt = attempt;
    self->head_count++;
    self->status = pl_attempt_head(attempt)->status;
    self->stats = *pl_attempt_stats(attempt);
    assert_true(self->stats.total_ms >= self->stats.head_ms);
    if (self->at_head != NULL) {
        self->at_head(self);
    }
}

static void record_body(struct pl_attempt *attempt, const char *data, size_t len, void *arg)
{
    struct record *self = arg;
    (void)attempt;
    assert_true(len > 0);
    assert_int_equal(self->done, 0);
    self->body_calls++;
    if (self->body_bytes < RECORDED_BYTES) {
        size_t take = PL_MIN(len, RECORDED_BYTES - self->body_bytes);
        memcpy(self->body + self->body_bytes, data, take);
        self->body[self->body_bytes + take] = '\0';
    }
    self->body_bytes += len;
    if (self->at_body != NULL) {
        self->at_body(self);
    }
}

static void record_done(struct pl_attempt *attempt, enum pl_failure failure, void *arg)
{
    struct record *self = arg;
    assert_int_equal(self->done, 0);
    self->done = 1;
    self->failure = failure;
    self->stats = *pl_attempt_stats(attempt);
    if (self->at_done != NULL) {
        self->at_done(self);
    }
    self->attempt = NULL;
}

static const struct pl_attempt_ops RECORD_OPS = {record_head, record_body, record_done};

static const struct pl_attempt_limits PATIENT = {
    .connect_ms = 10000, .tls_ms = 10000, .head_ms = 10000, .idle_ms = 10000, .try_ms = 15000};

static char GET_TEXT[] = "GET /v1/models HTTP/1.1\r\nHost: upstream\r\n\r\n";
static const struct iovec GET_PIECES[] = {{GET_TEXT, sizeof(GET_TEXT) - 1}};
static const struct pl_attempt_request GET = {GET_PIECES, 1, false, 1, false};

static TEST_UNUSED void record_start(struct record *self, struct net *net,
                                     const struct pl_attempt_request *request,
                                     const struct pl_attempt_limits *limits)
{
    self->net = net;
    self->attempt = pl_attempt_start(net->pool, request, limits, &RECORD_OPS, self);
    assert_int_equal(self->done, 0);
    assert_int_equal(self->head_count, 0);
}

/** Starts a GET and waits for its end. */
static TEST_UNUSED void record_run(struct record *self, struct net *net,
                                   const struct pl_attempt_limits *limits)
{
    record_start(self, net, &GET, limits);
    run_until_count(net->base, &self->done, 1);
}

#endif
