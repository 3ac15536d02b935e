/*
 * SSE load: many streams at once, each checked to its last byte.
 *
 *   sse_load [-m MODE] [-n STREAMS] [-t SECONDS] [-e EVENTS] [-i INTERVAL_MS] [-b MODEL] PORT
 *
 * run    STREAMS connections; each asks for one stream after another for SECONDS, then lets the
 * last one end. once   STREAMS connections, one stream each; ends with the last one. idle   STREAMS
 * connections, one plain answer each, then kept open.
 *
 * Prints "ready" when every connection has its first event (idle: its answer) or has failed, and at
 * the end, or on SIGTERM, one line: streams= failed= events= bytes= first_p50_us= first_p99_us=
 * seconds=. A stream has failed when it was refused, was not status 200, broke its framing, did not
 * end with [DONE], or had another number of events than EVENTS + 3 (see upstream.c). Those still
 * open at SIGTERM count neither way. A failed connection is not opened again. Time to the first
 * event runs from the request written, on a new connection from connect().
 *
 * One thread, edge-triggered epoll. At most RAMP connections wait for their first byte while the
 * streams are opened, so that no listen queue overflows and hides the gateway behind SYN repeats.
 */
#include "response.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RAMP           64
#define EPOLL_BATCH    256
#define READ_BYTES     65536
#define REQUEST_BYTES  1024
#define EXTRA_EVENTS   3 /* role, finish and [DONE]; see upstream.c */
#define MAX_CLIENTS    20000
#define CLOSING_EVENTS (EPOLLRDHUP | EPOLLHUP | EPOLLERR)
#define GRACE_US       (15 * UINT64_C(1000000)) /* for the last streams to end */

enum mode { MODE_RUN, MODE_ONCE, MODE_IDLE };

struct client {
    int fd;            /* -1: not open */
    bool busy;         /* an answer is awaited or being read */
    bool started;      /* had a first event, ever */
    bool reused;       /* the connection has carried an answer before */
    bool request_sent; /* false while connecting */
    bool first_seen;   /* the first event of this answer */
    uint64_t begun_us;
    struct response response;
};

static enum mode mode = MODE_RUN;
static uint32_t client_count = 100, event_count = 100, interval_ms;
static uint64_t run_us = 3 * UINT64_C(1000000);
static const char *model = "bench-model";
static struct sockaddr_in address;
static char request[REQUEST_BYTES];
static size_t request_len;

static struct client *clients;
static int epoll_fd;
static uint32_t opened_count, started_count, unstarted_failed_count, busy_count;
static uint64_t started_us;
static uint64_t stream_total, failed_total, event_total, byte_total;
static uint32_t *first_us;
static size_t first_count, first_room;
static volatile sig_atomic_t stopping;

static void die(const char *what)
{
    fprintf(stderr, "sse_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool time_is_up(void)
{
    return now_us() - started_us >= run_us;
}

/* --- results --------------------------------------------------------------------------------- */

static void note_first_event(uint64_t waited_us)
{
    if (first_count == first_room) {
        first_room = first_room == 0 ? 4096 : first_room * 2;
        first_us = realloc(first_us, first_room * sizeof(*first_us));
        if (first_us == NULL)
            die("memory");
    }
    first_us[first_count++] = (uint32_t)waited_us;
}

static int compare_u32(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

static uint32_t first_percentile(size_t percent)
{
    return first_count == 0 ? 0 : first_us[(first_count - 1) * percent / 100];
}

static void print_ready_once_all_began(void)
{
    if (started_count + unstarted_failed_count != client_count)
        return;
    printf("ready\n");
    fflush(stdout);
}

static void print_summary(void)
{
    if (first_count > 0)
        qsort(first_us, first_count, sizeof(*first_us), compare_u32);
    printf("streams=%llu failed=%llu events=%llu bytes=%llu first_p50_us=%u first_p99_us=%u "
           "seconds=%.3f\n",
           (unsigned long long)stream_total, (unsigned long long)failed_total,
           (unsigned long long)event_total, (unsigned long long)byte_total, first_percentile(50),
           first_percentile(99), (double)(now_us() - started_us) / 1e6);
}

/* --- one client ------------------------------------------------------------------------------ */

static void client_begin(struct client *self)
{
    response_reset(&self->response);
    self->busy = true;
    self->request_sent = false;
    self->first_seen = false;
    self->begun_us = now_us();
    busy_count++;
}

/** The answer has ended, well or not. */
static void client_end(struct client *self)
{
    self->busy = false;
    busy_count--;
}

static void client_close(struct client *self)
{
    close(self->fd);
    self->fd = -1;
}

static void client_fail(struct client *self)
{
    failed_total++;
    client_close(self);
    if (self->busy)
        client_end(self);
    if (!self->started) {
        unstarted_failed_count++;
        print_ready_once_all_began();
    }
}

static void client_send(struct client *self)
{
    ssize_t sent = send(self->fd, request, request_len, MSG_NOSIGNAL);

    if (sent == (ssize_t)request_len)
        self->request_sent = true;
    else if (sent >= 0 || errno != EAGAIN)
        client_fail(self); /* so small a request goes out whole or not at all */
}

static void client_open(struct client *self)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = self};
    int one = 1;

    client_begin(self);
    self->reused = false;
    self->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (self->fd < 0)
        die("socket");
    setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(self->fd, (struct sockaddr *)&address, sizeof(address)) != 0 &&
        errno != EINPROGRESS)
        client_fail(self);
    else if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, self->fd, &event) != 0)
        die("epoll_ctl");
}

static void client_reopen(struct client *self)
{
    client_close(self);
    client_open(self);
}

static void client_on_first(struct client *self)
{
    self->first_seen = true;
    note_first_event(now_us() - self->begun_us);
    if (self->started)
        return;
    self->started = true;
    started_count++;
    print_ready_once_all_began();
}

static bool answer_is_right(const struct response *answer)
{
    if (answer->state != RESPONSE_WHOLE || answer->status != 200)
        return false;
    return mode == MODE_IDLE || (answer->done && answer->events == event_count + EXTRA_EVENTS);
}

static void client_on_answer(struct client *self)
{
    if (!answer_is_right(&self->response)) {
        client_fail(self);
        return;
    }
    stream_total++;
    client_end(self);
    if (mode == MODE_ONCE || (mode == MODE_RUN && time_is_up())) {
        client_close(self);
    } else if (mode == MODE_RUN && self->response.close_after) {
        client_reopen(self);
    } else if (mode == MODE_RUN) {
        self->reused = true;
        client_begin(self);
        client_send(self);
    }
}

static void client_on_closed(struct client *self)
{
    bool untouched = self->response.state == RESPONSE_HEAD && self->response.head_len == 0;

    if (self->busy && self->reused && untouched) {
        client_end(self); /* closed between two streams: allowed, so ask again */
        client_reopen(self);
    } else if (self->busy) {
        response_close(&self->response);
        client_on_answer(self);
    } else {
        client_fail(self); /* an idle connection was not kept */
    }
}

static void client_on_bytes(struct client *self, const char *data, size_t len)
{
    uint64_t events_before = self->response.events;

    byte_total += len;
    response_feed(&self->response, data, len);
    event_total += self->response.events - events_before;
    if (!self->first_seen && (self->response.events > 0 || self->response.state == RESPONSE_WHOLE))
        client_on_first(self);
    if (self->response.state == RESPONSE_WHOLE || self->response.state == RESPONSE_BROKEN)
        client_on_answer(self);
}

static void client_on_event(struct client *self, uint32_t events)
{
    static char data[READ_BYTES];
    int fd = self->fd;
    ssize_t got;

    if (self->busy && !self->request_sent && (events & EPOLLOUT))
        client_send(self);
    /* The client may close its connection, or open another, while bytes are handled. */
    while (self->fd >= 0 && self->fd == fd) {
        got = recv(fd, data, sizeof(data), 0);
        if (got > 0 && self->busy)
            client_on_bytes(self, data, (size_t)got);
        else if (got >= 0)
            client_on_closed(self);
        else if (errno == EAGAIN)
            return;
        else
            client_fail(self);
        if (got > 0 && (size_t)got < sizeof(data) && !(events & CLOSING_EVENTS))
            return; /* drained: the next byte is a new edge */
    }
}

/* --- the whole ------------------------------------------------------------------------------- */

static void make_request(uint16_t port)
{
    char body[REQUEST_BYTES / 2];
    int body_len = snprintf(
        body, sizeof(body),
        "{\"model\":\"%s\",\"stream\":%s,\"temperature\":0.7,\"bench_events\":%u,"
        "\"bench_interval_ms\":%u,\"messages\":[{\"role\":\"system\",\"content\":\"You are a "
        "helpful assistant.\"},{\"role\":\"user\",\"content\":\"Is the far side dark?\"}]}",
        model, mode == MODE_IDLE ? "false" : "true", event_count, interval_ms);
    int len = snprintf(request, sizeof(request),
                       "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                       "Content-Type: application/json\r\nAuthorization: Bearer sk-bench\r\n"
                       "Content-Length: %d\r\n\r\n%s",
                       port, body_len, body);

    if (body_len >= (int)sizeof(body) || len >= (int)sizeof(request)) {
        fprintf(stderr, "sse_load: the model name is too long\n");
        exit(2);
    }
    request_len = (size_t)len;
}

static void usage(void)
{
    fprintf(stderr, "usage: sse_load [-m run|once|idle] [-n STREAMS] [-t SECONDS] [-e EVENTS]\n"
                    "                [-i INTERVAL_MS] [-b MODEL] PORT\n");
    exit(2);
}

static uint32_t parse_number(const char *text, uint32_t min, uint32_t max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end != '\0' || value < min || value > max)
        usage();
    return (uint32_t)value;
}

static enum mode parse_mode(const char *text)
{
    static const char *const names[] = {"run", "once", "idle"};

    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum mode)i;
    usage();
    return MODE_RUN;
}

static void parse_arguments(int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "m:n:t:e:i:b:")) != -1) {
        if (option == 'm')
            mode = parse_mode(optarg);
        else if (option == 'n')
            client_count = parse_number(optarg, 1, MAX_CLIENTS);
        else if (option == 't')
            run_us = parse_number(optarg, 1, 3600) * UINT64_C(1000000);
        else if (option == 'e')
            event_count = parse_number(optarg, 1, 1000000);
        else if (option == 'i')
            interval_ms = parse_number(optarg, 0, 60000);
        else if (option == 'b')
            model = optarg;
        else
            usage();
    }
    if (optind + 1 != argc)
        usage();
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)parse_number(argv[optind], 1, UINT16_MAX));
    make_request(ntohs(address.sin_port));
}

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static void open_more(void)
{
    while (opened_count < client_count &&
           opened_count - started_count - unstarted_failed_count < RAMP)
        client_open(&clients[opened_count++]);
}

static bool finished(void)
{
    if (stopping)
        return true;
    if (mode != MODE_IDLE && opened_count == client_count && busy_count == 0)
        return true;
    return now_us() - started_us >= run_us + GRACE_US;
}

static void serve(void)
{
    struct epoll_event events[EPOLL_BATCH];

    while (!finished()) {
        int count;

        open_more();
        count = epoll_wait(epoll_fd, events, EPOLL_BATCH, 100);
        for (int i = 0; i < count; i++)
            client_on_event(events[i].data.ptr, events[i].events);
    }
    if (!stopping)
        failed_total += busy_count + (client_count - opened_count);
}

int main(int argc, char **argv)
{
    struct rlimit limit;

    parse_arguments(argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    signal(SIGTERM, on_signal);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc(client_count, sizeof(*clients));
    if (epoll_fd < 0 || clients == NULL)
        die("start");
    started_us = now_us();
    serve();
    print_summary();
    return failed_total == 0 ? 0 : 1;
}
