/*
 * Upstream: a fake model provider that costs as little as possible.
 *
 *   upstream COUNTERS_FILE
 *
 * Listens on loopback ports that the system picks and prints one line "NAME PORT" for each:
 * ok_a and ok_b answer, fail_503_a, fail_503_b and fail_429 only ever give that status, collector
 * takes traces (bodies of any length) and says 200. Ends on SIGTERM. What it answers is in the request: `"stream":true` gives SSE, and the body fields
 * "bench_events" (100), "bench_interval_ms" (0) and "bench_delay_ms" (0, before the answer) shape
 * it.
 *
 * A stream opens with the head, a role event and the first content event in one write, goes on with
 * one write per content event (many per write when the interval is 0) and closes with a finish
 * event and [DONE]: bench_events + 3 events in all.
 *
 * One thread, edge-triggered epoll, registered once per connection. Every byte sent comes from a
 * buffer made at start, so nothing is formatted or copied per request. Timers sit in a wheel of 1
 * ms slots. It reads HTTP as gateways write it (Content-Length, no chunked requests); what it
 * cannot read is answered 411, counted and closed. Not a server for anything else.
 */
#include "answers.h"
#include "counters.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define INPUT_BYTES     16384
#define WHEEL_SLOTS     1024
#define EPOLL_BATCH     256
#define DEFAULT_EVENTS  100
#define CLOSING_EVENTS  (EPOLLRDHUP | EPOLLHUP | EPOLLERR)
#define REWRITTEN_MODEL "\"upstream-model\""

enum stage {
    STAGE_IDLE,    /* reading a request */
    STAGE_DELAYED, /* waiting before the answer */
    STAGE_WHOLE,   /* a whole answer is next */
    STAGE_OPENING, /* head and first events of a stream are next */
    STAGE_EVENTS,  /* events_left more, as far as allowed */
    STAGE_LAST     /* the last bytes are on their way */
};

struct connection {
    int fd;
    enum listener listener;
    enum stage stage;
    enum stage after_delay;
    bool close_after;
    uint32_t events_left;
    uint32_t events_allowed;
    uint32_t interval_ms;
    uint64_t due_ms; /* 0: no timer */
    struct connection *timer_next;
    struct connection *timer_prev;
    const char *out;
    size_t out_len;
    size_t in_len;
    size_t skip_len; /* of a body that is not kept, still to come; then in_len is 0 */
    char in[INPUT_BYTES + 1];
};

static const char *const LISTENER_NAMES[LISTENER_COUNT] = {"ok_a", "ok_b", "fail_503_a",
                                                           "fail_503_b", "fail_429", "collector"};

static struct counters *counters;
static struct answers answers;
static struct connection *wheel[WHEEL_SLOTS];
static size_t timer_count;
static uint64_t wheel_ms;
static int epoll_fd;
static volatile sig_atomic_t stopping;

static void die(const char *what)
{
    fprintf(stderr, "upstream: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- timers ---------------------------------------------------------------------------------- */

static void timer_start(struct connection *self, uint64_t due_ms)
{
    struct connection **slot = &wheel[due_ms % WHEEL_SLOTS];

    self->due_ms = due_ms;
    self->timer_prev = NULL;
    self->timer_next = *slot;
    if (*slot != NULL)
        (*slot)->timer_prev = self;
    *slot = self;
    timer_count++;
}

static void timer_cancel(struct connection *self)
{
    if (self->due_ms == 0)
        return;
    if (self->timer_prev != NULL)
        self->timer_prev->timer_next = self->timer_next;
    else
        wheel[self->due_ms % WHEEL_SLOTS] = self->timer_next;
    if (self->timer_next != NULL)
        self->timer_next->timer_prev = self->timer_prev;
    self->due_ms = 0;
    timer_count--;
}

/* --- one connection -------------------------------------------------------------------------- */

static void connection_free(struct connection *self)
{
    timer_cancel(self);
    close(self->fd);
    free(self);
}

/** Picks the next bytes of the answer. False: none now, because none is due or all is sent. */
static bool next_bytes(struct connection *self)
{
    const struct bytes *source;
    uint32_t count;

    switch (self->stage) {
    case STAGE_WHOLE:
        source = &answers.whole[self->listener];
        self->stage = STAGE_LAST;
        break;
    case STAGE_OPENING:
        source = &answers.opening;
        self->stage = STAGE_EVENTS;
        counter_add(&counters->events, 2);
        break;
    case STAGE_EVENTS:
        if (self->events_left == 0) {
            source = &answers.closing;
            self->stage = STAGE_LAST;
            counter_add(&counters->events, 2);
            break;
        }
        count = self->events_left < self->events_allowed ? self->events_left : self->events_allowed;
        if (count == 0)
            return false;
        if (count > ANSWERS_EVENTS_PER_WRITE)
            count = ANSWERS_EVENTS_PER_WRITE;
        self->events_left -= count;
        if (self->interval_ms > 0)
            self->events_allowed -= count;
        counter_add(&counters->events, count);
        self->out = answers.content.data;
        self->out_len = count * (answers.content.len / ANSWERS_EVENTS_PER_WRITE);
        return true;
    case STAGE_LAST:
        self->stage = STAGE_IDLE;
        return false;
    default:
        return false;
    }
    self->out = source->data;
    self->out_len = source->len;
    return true;
}

/** Sends what may be sent. False: the connection has failed, or is to be closed. */
static bool pump(struct connection *self)
{
    while (self->out_len > 0 || next_bytes(self)) {
        ssize_t sent = send(self->fd, self->out, self->out_len, MSG_NOSIGNAL);

        if (sent < 0)
            return errno == EAGAIN;
        self->out += sent;
        self->out_len -= (size_t)sent;
    }
    return self->stage != STAGE_IDLE || !self->close_after;
}

/** The number after `key` in the body, or `fallback`. The body ends with a zero byte or a brace. */
static uint32_t body_number(const char *body, size_t len, const char *key, uint32_t fallback)
{
    const char *at = memmem(body, len, key, strlen(key));

    return at == NULL ? fallback : (uint32_t)strtoul(at + strlen(key), NULL, 10);
}

static bool body_has(const char *body, size_t len, const char *text)
{
    return memmem(body, len, text, strlen(text)) != NULL;
}

static void plan_stream(struct connection *self, const char *body, size_t len)
{
    uint32_t events = body_number(body, len, "\"bench_events\":", DEFAULT_EVENTS);

    self->interval_ms = body_number(body, len, "\"bench_interval_ms\":", 0);
    self->events_left = events > 0 ? events - 1 : 0; /* one is in the opening */
    self->events_allowed = self->interval_ms == 0 ? UINT32_MAX : 0;
}

/** Decides the answer to a whole request and arms its timer. */
static void plan_answer(struct connection *self, const char *body, size_t len)
{
    bool answers_well = self->listener == LISTENER_OK_A || self->listener == LISTENER_OK_B;
    uint32_t delay_ms = body_number(body, len, "\"bench_delay_ms\":", 0);

    counter_add(&counters->requests[self->listener], 1);
    if (body_has(body, len, REWRITTEN_MODEL))
        counter_add(&counters->rewritten, 1);
    self->stage = STAGE_WHOLE;
    if (answers_well &&
        (body_has(body, len, "\"stream\":true") || body_has(body, len, "\"stream\": true"))) {
        plan_stream(self, body, len);
        self->stage = STAGE_OPENING;
    }
    if (delay_ms > 0) {
        self->after_delay = self->stage;
        self->stage = STAGE_DELAYED;
        timer_start(self, now_ms() + delay_ms);
    } else if (self->stage == STAGE_OPENING && self->interval_ms > 0 && self->events_left > 0) {
        /* Streams that start together must not tick together. */
        timer_start(self, now_ms() + 1 + (uint64_t)rand() % self->interval_ms);
    }
}

static void on_timer(struct connection *self, uint64_t at_ms)
{
    uint64_t due_ms = self->due_ms;

    timer_cancel(self);
    if (self->stage == STAGE_DELAYED) {
        self->stage = self->after_delay;
        if (self->stage == STAGE_OPENING && self->interval_ms > 0)
            timer_start(self, at_ms + self->interval_ms);
    } else {
        self->events_allowed++;
        if (self->events_allowed < self->events_left) {
            due_ms += self->interval_ms;
            timer_start(self, due_ms > at_ms ? due_ms : at_ms + 1);
        }
    }
    if (!pump(self))
        connection_free(self);
}

/** Length of the request's body, from its head. -1: not given in a way that is read here. */
static long body_length(const char *head, const char *head_end)
{
    const char *at = strcasestr(head, "\r\ncontent-length:");

    if (at != NULL && at < head_end)
        return strtol(at + strlen("\r\ncontent-length:"), NULL, 10);
    at = strcasestr(head, "\r\ntransfer-encoding:");
    return at != NULL && at < head_end ? -1 : 0;
}

static void refuse(struct connection *self)
{
    counter_add(&counters->refused, 1);
    (void)!send(self->fd, answers.unreadable.data, answers.unreadable.len, MSG_NOSIGNAL);
}

/** Drops what has come of a collector's body. */
static void skip_body(struct connection *self)
{
    size_t len = self->skip_len < self->in_len ? self->skip_len : self->in_len;

    memmove(self->in, self->in + len, self->in_len - len);
    self->in_len -= len;
    self->skip_len -= len;
    if (self->skip_len > 0)
        return;
    counter_add(&counters->requests[self->listener], 1);
    self->stage = STAGE_WHOLE;
}

/** Takes one whole request from the input, if there is one. False: the input is unreadable. */
static bool take_request(struct connection *self)
{
    const char *close_at, *head_end;
    size_t head_len, total;
    long length;

    self->in[self->in_len] = '\0';
    head_end = strstr(self->in, "\r\n\r\n");
    if (head_end == NULL)
        return self->in_len < INPUT_BYTES;
    length = body_length(self->in, head_end);
    head_len = (size_t)(head_end - self->in) + 4;
    if (length > 0 && self->listener == LISTENER_COLLECTOR) {
        self->skip_len = head_len + (size_t)length;
        skip_body(self);
        return true;
    }
    if (length < 0 || (size_t)length > INPUT_BYTES - head_len)
        return false;
    total = head_len + (size_t)length;
    if (self->in_len < total)
        return true;
    close_at = strcasestr(self->in, "\r\nconnection: close");
    self->close_after = close_at != NULL && close_at < head_end + 2;
    plan_answer(self, self->in + head_len, (size_t)length);
    memmove(self->in, self->in + total, self->in_len - total);
    self->in_len -= total;
    return true;
}

/** Reads all there is and starts the answer. `closing`: up to the end. False: the connection is to
 * be freed. */
static bool on_readable(struct connection *self, bool closing)
{
    for (;;) {
        size_t space = INPUT_BYTES - self->in_len;
        ssize_t got = recv(self->fd, self->in + self->in_len, space, 0);

        if (got < 0)
            return errno == EAGAIN;
        if (got == 0)
            return false;
        self->in_len += (size_t)got;
        while (self->stage == STAGE_IDLE && self->in_len > 0) {
            size_t before = self->in_len;

            if (self->skip_len > 0) {
                skip_body(self);
            } else if (!take_request(self)) {
                refuse(self);
                return false;
            }
            if (self->in_len == before)
                break; /* the request is not whole yet */
            if (!pump(self))
                return false;
        }
        if ((size_t)got < space && !closing)
            return true; /* drained: the next byte is a new edge */
    }
}

/* --- the loop -------------------------------------------------------------------------------- */

static void on_connection_event(struct connection *self, uint32_t events)
{
    bool open = true;

    if (events & (EPOLLIN | CLOSING_EVENTS))
        open = on_readable(self, (events & CLOSING_EVENTS) != 0);
    if (open && (events & EPOLLOUT))
        open = pump(self);
    if (!open)
        connection_free(self);
}

static void accept_all(int listen_fd, enum listener listener)
{
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *self = calloc(1, sizeof(*self));
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                    .data.ptr = self};

        if (self == NULL)
            die("memory");
        self->fd = fd;
        self->listener = listener;
        counter_add(&counters->connections, 1);
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
            die("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

static int listen_on_loopback(enum listener listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_len = sizeof(address);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fd, 4096) != 0 || getsockname(fd, (struct sockaddr *)&address, &address_len) != 0)
        die("listen");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* accepted sockets inherit it */
    printf("%s %u\n", LISTENER_NAMES[listener], ntohs(address.sin_port));
    return fd;
}

static void run_timers(void)
{
    uint64_t now = now_ms();

    if (timer_count == 0 || now - wheel_ms > WHEEL_SLOTS)
        wheel_ms = timer_count == 0 ? now : now - WHEEL_SLOTS;
    while (wheel_ms < now) {
        struct connection *next;

        wheel_ms++;
        for (struct connection *at = wheel[wheel_ms % WHEEL_SLOTS]; at != NULL; at = next) {
            next = at->timer_next;
            if (at->due_ms <= now)
                on_timer(at, now);
        }
    }
}

static void map_counters(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || ftruncate(fd, sizeof(*counters)) != 0)
        die(path);
    counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counters == MAP_FAILED)
        die("mmap");
    close(fd);
}

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

int main(int argc, char **argv)
{
    int listen_fds[LISTENER_COUNT];
    struct epoll_event events[EPOLL_BATCH];

    if (argc != 2) {
        fprintf(stderr, "usage: upstream COUNTERS_FILE\n");
        return 2;
    }
    signal(SIGTERM, on_signal);
    raise_file_limit();
    map_counters(argv[1]);
    answers_make(&answers);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < LISTENER_COUNT; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listen_fds[i]};

        listen_fds[i] = listen_on_loopback((enum listener)i);
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fds[i], &event) != 0)
            die("epoll_ctl");
    }
    fflush(stdout);
    wheel_ms = now_ms();
    while (!stopping) {
        int count = epoll_wait(epoll_fd, events, EPOLL_BATCH, timer_count > 0 ? 1 : -1);

        for (int i = 0; i < count; i++) {
            int *listener = events[i].data.ptr;

            if (listener >= listen_fds && listener < listen_fds + LISTENER_COUNT)
                accept_all(*listener, (enum listener)(listener - listen_fds));
            else
                on_connection_event(events[i].data.ptr, events[i].events);
        }
        run_timers();
    }
    return 0;
}
