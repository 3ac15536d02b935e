/*
 * For tests of server.c: a server, and clients that are plain sockets, in one event loop. Answers
 * are made by the test's own function, from inside on_request or later.
 */
#ifndef PL_SERVER_TEST_H
#define PL_SERVER_TEST_H

#include "clock_test.h"
#include "listen.h"
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event_struct.h>
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

#define TEST_UNUSED  __attribute__((unused))
#define MAX_REQUESTS 64
#define GIVE_UP_MS   20000 /* a test that takes this long has failed */
#define HIGH_BYTES   65536

/* ---- the server ---- */

struct net;

/* One request as the owner sees it. */
struct served {
    struct net *net;
    struct pl_exchange *exchange;
    size_t gone_count, writable_count;
    void (*at_gone)(struct served *served);
    void (*at_writable)(struct served *served);
};

struct net {
    struct event_base *base;
    struct pl_server *server;
    uint16_t port;
    void (*answer)(struct served *served); /* NULL: the test answers later */
    struct served served[MAX_REQUESTS];
    size_t served_count;
    size_t turns;
};

static void on_served_gone(void *arg)
{
    struct served *served = arg;
    served->gone_count++;
    if (served->at_gone != NULL) {
        served->at_gone(served);
    }
    served->exchange = NULL;
}

static void on_served_writable(void *arg)
{
    struct served *served = arg;
    assert_non_null(served->exchange);
    served->writable_count++;
    if (served->at_writable != NULL) {
        served->at_writable(served);
    }
}

static void on_served_request(struct pl_exchange *exchange, void *arg)
{
    static const struct pl_exchange_ops OPS = {on_served_gone, on_served_writable};
    struct net *net = arg;
    assert_true(net->served_count < MAX_REQUESTS);
    struct served *served = &net->served[net->served_count++];
    served->net = net;
    served->exchange = exchange;
    pl_exchange_set_ops(exchange, &OPS, served);
    if (net->answer != NULL) {
        net->answer(served);
    }
}

static const struct pl_server_limits PATIENT = {.message = {.request_line_bytes = 8192,
                                                            .head_bytes = 65536,
                                                            .header_count = 100,
                                                            .body_bytes = 64 << 20},
                                                .connections = 100,
                                                .head_ms = 15000,
                                                .body_idle_ms = 15000,
                                                .keepalive_idle_ms = 15000,
                                                .write_stall_ms = 15000,
                                                .unsent_high_bytes = HIGH_BYTES};

static void net_init_with(struct net *self, const struct pl_server_limits *limits, SSL_CTX *tls,
                          void (*answer)(struct served *))
{
    static const struct pl_server_ops OPS = {.on_request = on_served_request};
    char error[256] = "";
    memset(self, 0, sizeof(*self));
    signal(SIGPIPE, SIG_IGN);
    struct event_config *config = event_config_new();
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    self->base = event_base_new_with_config(config);
    event_config_free(config);
    self->answer = answer;
    int fd = pl_listen("127.0.0.1", &self->port, false, error, sizeof(error));
    assert_string_equal(error, "");
    self->server = pl_server_new(self->base, fd, tls, limits, &OPS, self);
}

static TEST_UNUSED void net_init(struct net *self, void (*answer)(struct served *))
{
    net_init_with(self, &PATIENT, NULL, answer);
}

/** Ends the server; its clients may still look at what they got. */
static void net_free_server(struct net *self)
{
    pl_server_free(self->server);
    self->server = NULL;
    event_base_loop(self->base, EVLOOP_NONBLOCK);
}

/** After all clients are closed. */
static void net_deinit(struct net *self)
{
    if (self->server != NULL) {
        net_free_server(self);
    }
    event_base_free(self->base);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

/** One turn of the loop, that ends by itself after a while. */
static void turn(struct net *net, uint64_t give_up_ms)
{
    struct event timer;
    struct timeval tick = {0, 20000};
    event_assign(&timer, net->base, -1, 0, on_tick, NULL);
    event_add(&timer, &tick);
    event_base_loop(net->base, EVLOOP_ONCE);
    event_del(&timer);
    net->turns++;
    assert_true(real_now_ms() < give_up_ms);
}

#define RUN_UNTIL(net, condition)                                                                  \
    do {                                                                                           \
        for (uint64_t give_up_ms_ = real_now_ms() + GIVE_UP_MS; !(condition);) {                   \
            turn(net, give_up_ms_);                                                                \
        }                                                                                          \
    } while (0)

static TEST_UNUSED void run_for_ms(struct net *net, uint64_t duration_ms)
{
    uint64_t until_ms = real_now_ms() + duration_ms;
    RUN_UNTIL(net, real_now_ms() >= until_ms);
}

/** What the last request's owner sees. */
static TEST_UNUSED struct served *last_served(struct net *net)
{
    assert_true(net->served_count > 0);
    return &net->served[net->served_count - 1];
}

/* ---- clients ---- */

struct client {
    struct net *net;
    int fd;
    struct event *event;
    bool ended; /* the server has ended its side, or reset the connection */
    bool reset;
    char *text; /* what has come, terminated */
    size_t len, cap;
};

static void on_client_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct client *self = arg;
    for (;;) {
        if (self->cap - self->len < 65536) {
            self->cap = 2 * self->cap + 65536;
            self->text = pl_xrealloc(self->text, self->cap + 1);
        }
        ssize_t got = recv(fd, self->text + self->len, self->cap - self->len, 0);
        if (got < 0 && errno == EAGAIN) {
            return;
        }
        if (got <= 0) {
            self->ended = true;
            self->reset = got < 0;
            event_del(self->event);
            return;
        }
        self->len += (size_t)got;
        self->text[self->len] = '\0';
    }
}

/** Connects; `receive_bytes` 0 leaves the socket's buffer to the kernel. */
static TEST_UNUSED void client_open_with(struct client *self, struct net *net, int receive_bytes)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(net->port)};
    int on = 1;
    memset(self, 0, sizeof(*self));
    self->net = net;
    self->text = pl_xstrdup("");
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    self->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (receive_bytes > 0) {
        setsockopt(self->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    }
    assert_int_equal(connect(self->fd, (struct sockaddr *)&in, sizeof(in)), 0);
    fcntl(self->fd, F_SETFL, O_NONBLOCK);
    self->event = event_new(net->base, self->fd, EV_READ | EV_PERSIST, on_client_readable, self);
    event_add(self->event, NULL);
}

static TEST_UNUSED void client_open(struct client *self, struct net *net)
{
    client_open_with(self, net, 0);
}

/** Reads no more, or again. */
static TEST_UNUSED void client_deafen(struct client *self)
{
    event_del(self->event);
}

static TEST_UNUSED void client_listen(struct client *self)
{
    event_add(self->event, NULL);
}

/** Sends all of it, turning the loop; false when the connection breaks before. */
static bool client_try_send(struct client *self, const char *data, size_t len)
{
    uint64_t give_up_ms = real_now_ms() + GIVE_UP_MS;
    while (len > 0) {
        ssize_t put = send(self->fd, data, len, MSG_NOSIGNAL);
        if (put < 0 && errno != EAGAIN) {
            return false;
        }
        if (put < 0) {
            turn(self->net, give_up_ms);
            continue;
        }
        data += put;
        len -= (size_t)put;
    }
    return true;
}

static TEST_UNUSED void client_send(struct client *self, const char *text)
{
    assert_true(client_try_send(self, text, strlen(text)));
}

/** Leaves, by closing or by a reset. */
static TEST_UNUSED void client_close(struct client *self)
{
    if (self->fd < 0) {
        return;
    }
    event_free(self->event);
    close(self->fd);
    free(self->text);
    self->text = NULL;
    self->fd = -1;
}

static TEST_UNUSED void client_break(struct client *self)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(self->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    client_close(self);
}

/** Forgets what has come. */
static TEST_UNUSED void client_forget(struct client *self)
{
    self->len = 0;
    self->text[0] = '\0';
}

static TEST_UNUSED void client_await(struct client *self, const char *text)
{
    RUN_UNTIL(self->net, strstr(self->text, text) != NULL || self->ended);
    if (strstr(self->text, text) == NULL) {
        fail_msg("\"%s\" did not come, but \"%s\"", text, self->text);
    }
}

static TEST_UNUSED void client_await_bytes(struct client *self, size_t len)
{
    RUN_UNTIL(self->net, self->len >= len || self->ended);
    assert_int_equal(self->len, len);
}

static TEST_UNUSED void client_await_end(struct client *self)
{
    RUN_UNTIL(self->net, self->ended);
}

/** All that has come, but for its Date lines. */
static TEST_UNUSED void assert_received(struct client *self, const char *expected)
{
    char *date;
    while ((date = strstr(self->text, "Date: ")) != NULL) {
        char *end = strstr(date, "\r\n");
        assert_non_null(end);
        memmove(date, end + 2, strlen(end + 2) + 1);
    }
    assert_string_equal(self->text, expected);
    self->len = strlen(self->text);
}

/** As assert_received, once as many bytes have come, and nothing else comes. */
static TEST_UNUSED void client_expect(struct client *self, const char *expected)
{
    static const char DATE[] = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    size_t head_count = 0, date_bytes = sizeof(DATE) - 1;
    for (const char *at = expected; (at = strstr(at, "HTTP/1.")) != NULL; at++) {
        head_count += strncmp(at + 9, "100", 3) != 0;
    }
    RUN_UNTIL(self->net, self->len >= strlen(expected) + head_count * date_bytes || self->ended);
    assert_received(self, expected);
    client_forget(self);
}

/** Nothing is left of any client in the server. */
static TEST_UNUSED void await_no_connections(struct net *net)
{
    RUN_UNTIL(net, pl_server_connection_count(net->server) == 0);
    assert_int_equal(pl_server_exchange_count(net->server), 0);
}

#endif
