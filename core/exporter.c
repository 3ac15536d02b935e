/*
 * Exporter: see exporter.h.
 *
 * Either idle (no batch), sending (a batch and an attempt) or waiting (a batch and the timer). In
 * idle and in waiting the timer is armed, in sending it is not.
 */
#include "exporter.h"
#include "attempt.h"
#include "log.h"
#include "timer.h"
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <time.h>

#define COMPLAIN_MS      60000
#define KEPT_BYTES       4096  /* of an answer, to be read */
#define ANSWER_MAX_BYTES 65536 /* more is not waited for */

const struct pl_exporter_times pl_exporter_usual_times = {.batch_ms = 1000,
                                                          .backoff_ms = 1000,
                                                          .max_backoff_ms = 30000,
                                                          .max_retry_after_ms = 60000,
                                                          .give_up_ms = 60000};

struct answer {
    int status;               /* 0: none yet */
    int64_t retry_after_ms;   /* -1: not said */
    size_t bytes, kept_count; /* of its body */
    char kept[KEPT_BYTES];
};

struct pl_exporter {
    struct event_base *base;
    struct pl_resolver *resolver;
    struct pl_spans *spans;
    struct pl_exporter_times times;
    struct pl_tracing *tracing, *next; /* next: in force when nothing is under way; or NULL */
    struct pl_pool *pool;              /* NULL: nothing is exported */
    struct event *wake;                /* a batch is full */
    struct pl_timer timer;
    struct pl_span_batch *batch; /* the one at hand */
    struct pl_attempt *attempt;
    uint64_t first_try_ms;
    unsigned try_count;
    struct pl_otlp_text head, json_head, json_tail; /* of the request */
    struct iovec *pieces;
    struct answer answer;
    bool flushing;
    uint64_t complained_ms, dropped_since; /* the last log line; spans not told of since */
};

/* ---- what goes wrong ------------------------------------------------------------------------ */

/* Once a minute at most: a collector that is down for a day is no news each second. */
static void complain(struct pl_exporter *self, const char *why)
{
    uint64_t now_ms = pl_now_ms();
    if (self->complained_ms != 0 && now_ms - self->complained_ms < COMPLAIN_MS)
        return;
    self->complained_ms = now_ms;
    pl_log(PL_LOG_WARN, "traces are not exported to %s: %s; %llu spans dropped since the last word",
           self->tracing->host_header, why, (unsigned long long)self->dropped_since);
    self->dropped_since = 0;
}

static void drop(struct pl_exporter *self, enum pl_span_drop reason, const char *why)
{
    self->dropped_since += self->batch->span_count;
    pl_spans_drop(self->spans, self->batch, reason);
    self->batch = NULL;
    complain(self, why);
}

/* ---- one request ---------------------------------------------------------------------------- */

static void put(struct pl_otlp_text *text, const char *data, size_t len)
{
    if (text->cap - text->len < len) {
        text->cap = text->cap * 2 + len;
        text->data = pl_xrealloc(text->data, text->cap);
    }
    memcpy(text->data + text->len, data, len);
    text->len += len;
}

static void put_text(struct pl_otlp_text *text, const char *data)
{
    put(text, data, strlen(data));
}

static void write_head(struct pl_exporter *self, size_t body_bytes)
{
    struct pl_otlp_text *head = &self->head;
    const struct pl_tracing *to = self->tracing;
    char number[PL_NUMBER_MAX];
    head->len = 0;
    put_text(head, "POST ");
    put_text(head, to->path);
    put_text(head, " HTTP/1.1\r\nHost: ");
    put_text(head, to->host_header);
    put_text(head, "\r\nUser-Agent: perilune/" PERILUNE_VERSION
                   "\r\nContent-Type: application/json\r\nAccept-Encoding: identity\r\n");
    for (size_t i = 0; i < to->headers.count; i++) {
        struct pl_str name = pl_headers_name(&to->headers, i);
        struct pl_str value = pl_headers_value(&to->headers, i);
        put(head, name.data, name.len);
        put_text(head, ": ");
        put(head, value.data, value.len);
        put_text(head, "\r\n");
    }
    put_text(head, "Content-Length: ");
    put(head, number, pl_put_decimal(number, body_bytes));
    put_text(head, "\r\n\r\n");
}

/* Returns how many pieces there are. */
static size_t lay_out(struct pl_exporter *self)
{
    const struct pl_span_batch *batch = self->batch;
    size_t count = 0;
    write_head(self, self->json_head.len + batch->bytes + self->json_tail.len);
    self->pieces = pl_xrealloc(self->pieces, (batch->block_count + 3) * sizeof(self->pieces[0]));
    self->pieces[count++] = (struct iovec){self->head.data, self->head.len};
    self->pieces[count++] = (struct iovec){self->json_head.data, self->json_head.len};
    for (size_t i = 0; i < batch->block_count; i++)
        self->pieces[count++] = batch->blocks[i];
    self->pieces[count++] = (struct iovec){self->json_tail.data, self->json_tail.len};
    return count;
}

static void on_head(struct pl_attempt *attempt, void *arg);
static void on_body(struct pl_attempt *attempt, const char *data, size_t len, void *arg);
static void on_done(struct pl_attempt *attempt, enum pl_failure failure, void *arg);

static void send_batch(struct pl_exporter *self)
{
    static const struct pl_attempt_ops ops = {
        .on_head = on_head, .on_body = on_body, .on_done = on_done};
    uint32_t timeout_ms = self->tracing->timeout_ms;
    struct pl_attempt_limits limits = {
        .connect_ms = timeout_ms, .tls_ms = timeout_ms, .try_ms = timeout_ms};
    struct pl_attempt_request request = {.piece_count = lay_out(self)};
    request.pieces = self->pieces;
    if (self->try_count++ == 0)
        self->first_try_ms = pl_now_ms();
    self->answer.status = 0;
    self->answer.retry_after_ms = -1;
    self->answer.bytes = self->answer.kept_count = 0;
    pl_timer_stop(&self->timer);
    self->attempt = pl_attempt_start(self->pool, &request, &limits, &ops, self);
}

/* Takes the next batch and sends it, or waits for one. */
static void go_on(struct pl_exporter *self, bool is_partial_too)
{
    if (self->pool && !self->batch)
        self->batch = pl_spans_take(self->spans, is_partial_too);
    self->try_count = 0;
    if (self->batch)
        send_batch(self);
    else
        pl_timer_start_ms(&self->timer, self->times.batch_ms);
}

/* ---- the answer ----------------------------------------------------------------------------- */

/* Delay in seconds, or a date (RFC 9110 10.2.3); -1: neither. */
static int64_t read_retry_after(struct pl_str text, uint32_t max_ms)
{
    char buffer[64], *end;
    struct tm date = {0};
    if (text.len == 0 || text.len >= sizeof(buffer))
        return -1;
    memcpy(buffer, text.data, text.len);
    buffer[text.len] = '\0';
    if (buffer[0] >= '0' && buffer[0] <= '9') {
        unsigned long long seconds = strtoull(buffer, &end, 10);
        if (*end != '\0')
            return -1;
        return (int64_t)(seconds > max_ms / 1000 ? max_ms : seconds * 1000);
    }
    end = strptime(buffer, "%a, %d %b %Y %H:%M:%S GMT", &date);
    if (!end || *end != '\0')
        return -1;
    int64_t wait_ms = (int64_t)timegm(&date) * 1000 - (int64_t)pl_now_wall_ms();
    return PL_MAX(0, PL_MIN(wait_ms, (int64_t)max_ms));
}

static bool may_try_again(const struct pl_exporter *self)
{
    int status = self->answer.status;
    return status == 0 || status == 429 || status == 502 || status == 503 || status == 504;
}

static uint32_t wait_before_next(const struct pl_exporter *self)
{
    uint64_t wait_ms = self->times.backoff_ms;
    for (unsigned i = 1; i < self->try_count && wait_ms < self->times.max_backoff_ms; i++)
        wait_ms *= 2;
    wait_ms = PL_MIN(wait_ms, self->times.max_backoff_ms);
    wait_ms = wait_ms / 2 + (uint64_t)((double)wait_ms / 2 * pl_random_unit());
    return (uint32_t)PL_MAX(wait_ms, (uint64_t)PL_MAX(self->answer.retry_after_ms, 0));
}

static void accepted(struct pl_exporter *self)
{
    char why[120], line[200];
    uint64_t rejected_count =
        pl_otlp_read_rejected(self->answer.kept, self->answer.kept_count, why, sizeof(why));
    self->dropped_since += PL_MIN(rejected_count, self->batch->span_count);
    pl_spans_settle(self->spans, self->batch, rejected_count);
    self->batch = NULL;
    if (rejected_count == 0)
        return;
    snprintf(line, sizeof(line), "the collector has refused some: %s", why[0] ? why : "(no word)");
    complain(self, line);
}

/* Whether the batch is kept for another try. */
static bool failed(struct pl_exporter *self, const char *why)
{
    uint32_t wait_ms = wait_before_next(self);
    bool in_time =
        pl_now_ms() + wait_ms - self->first_try_ms <= self->times.give_up_ms && !self->flushing;
    pl_spans_count_failure(self->spans);
    if (may_try_again(self) && in_time) {
        complain(self, why);
        pl_timer_start_ms(&self->timer, wait_ms);
        return true;
    }
    if (!may_try_again(self))
        drop(self, PL_SPAN_DROP_REJECTED, why);
    else
        drop(self, self->flushing ? PL_SPAN_DROP_SHUTDOWN : PL_SPAN_DROP_UNREACHABLE, why);
    return false;
}

/* The request is over, `why` says how if it failed. */
static void end_request(struct pl_exporter *self, const char *why)
{
    int status = self->answer.status;
    self->attempt = NULL;
    bool waits = false;
    if (status >= 200 && status < 300)
        accepted(self);
    else
        waits = failed(self, why);
    if (self->next)
        pl_timer_fire_soon(&self->timer); /* the attempt unwinds, and may look at its endpoint */
    else if (!waits)
        go_on(self, self->flushing);
}

static void on_head(struct pl_attempt *attempt, void *arg)
{
    struct pl_exporter *self = arg;
    const struct pl_response_head *head = pl_attempt_head(attempt);
    struct pl_str text;
    self->answer.status = head->status;
    if (pl_headers_get(&head->headers, PL_STR("retry-after"), &text))
        self->answer.retry_after_ms = read_retry_after(text, self->times.max_retry_after_ms);
}

static void on_body(struct pl_attempt *attempt, const char *data, size_t len, void *arg)
{
    struct pl_exporter *self = arg;
    struct answer *answer = &self->answer;
    size_t part = PL_MIN(len, sizeof(answer->kept) - answer->kept_count);
    memcpy(answer->kept + answer->kept_count, data, part);
    answer->kept_count += part;
    answer->bytes += len;
    if (answer->bytes <= ANSWER_MAX_BYTES)
        return;
    char why[80];
    snprintf(why, sizeof(why), "status %d, with an endless answer", answer->status);
    pl_attempt_cancel(attempt);
    end_request(self, why);
}

static void on_done(struct pl_attempt *attempt, enum pl_failure failure, void *arg)
{
    struct pl_exporter *self = arg;
    char why[240];
    if (self->answer.status != 0)
        snprintf(why, sizeof(why), "status %d", self->answer.status);
    else
        snprintf(why, sizeof(why), "%s: %s", pl_failure_name(failure),
                 pl_attempt_stats(attempt)->detail);
    end_request(self, why);
}

/* ---- from one collector to the next ---------------------------------------------------------- */

static void leave(struct pl_exporter *self)
{
    if (self->pool)
        pl_pool_free(self->pool);
    self->pool = NULL;
    pl_tracing_unref(self->tracing);
    self->tracing = NULL;
}

/* Takes the reference. */
static void enter(struct pl_exporter *self, struct pl_tracing *tracing)
{
    self->tracing = tracing;
    self->json_head.len = 0;
    if (!tracing->endpoint.host)
        return;
    self->pool = pl_pool_new(self->base, self->resolver, &tracing->endpoint);
    pl_otlp_put_head(&self->json_head, tracing->resource, tracing->resource_count);
}

/* A batch that waits goes to the new collector at once; without one, there is nowhere to go. */
static void follow_next(struct pl_exporter *self)
{
    leave(self);
    enter(self, self->next);
    self->next = NULL;
    pl_timer_stop(&self->timer);
    if (!self->pool) {
        if (self->batch)
            pl_spans_drop(self->spans, self->batch, PL_SPAN_DROP_SHUTDOWN);
        self->batch = NULL;
        pl_spans_drop_all(self->spans, PL_SPAN_DROP_SHUTDOWN);
    } else {
        go_on(self, self->flushing);
    }
}

/* ---- when something is due ------------------------------------------------------------------ */

static void on_timer(void *arg)
{
    struct pl_exporter *self = arg;
    if (self->next)
        follow_next(self);
    else if (self->batch)
        send_batch(self);
    else
        go_on(self, true);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct pl_exporter *self = arg;
    eventfd_t count;
    (void)!eventfd_read(fd, &count);
    if (!self->batch)
        go_on(self, false);
}

/* ---- life ------------------------------------------------------------------------------------ */

void pl_exporter_follow(struct pl_exporter *self, struct pl_tracing *tracing)
{
    pl_spans_set_limit(self->spans, tracing->endpoint.host ? tracing->queue_bytes : 0);
    if (tracing == (self->next ? self->next : self->tracing))
        return;
    pl_tracing_unref(self->next);
    self->next = pl_tracing_ref(tracing);
    if (!self->attempt)
        follow_next(self);
}

struct pl_exporter *pl_exporter_new(struct event_base *base, struct pl_resolver *resolver,
                                    struct pl_spans *spans, struct pl_tracing *tracing,
                                    const struct pl_exporter_times *times)
{
    struct pl_exporter *self = pl_xcalloc(1, sizeof(*self));
    *self =
        (struct pl_exporter){.base = base, .resolver = resolver, .spans = spans, .times = *times};
    pl_timer_init(&self->timer, base, NULL, on_timer, self);
    pl_otlp_put_tail(&self->json_tail);
    self->wake = event_new(base, pl_spans_wake_fd(spans), EV_READ | EV_PERSIST, on_wake, self);
    if (!self->wake || event_add(self->wake, NULL) != 0)
        abort();
    pl_spans_set_limit(spans, tracing->endpoint.host ? tracing->queue_bytes : 0);
    enter(self, pl_tracing_ref(tracing));
    if (self->pool)
        go_on(self, false);
    return self;
}

static void on_flush_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(bool *)arg = true;
}

void pl_exporter_flush(struct pl_exporter *self, uint32_t max_ms)
{
    bool is_over = false;
    struct timeval tv = {max_ms / 1000, (suseconds_t)(max_ms % 1000) * 1000};
    struct event *guard = event_new(self->base, -1, 0, on_flush_over, &is_over);
    if (!guard || event_add(guard, &tv) != 0)
        abort();
    pl_spans_set_limit(self->spans, 0);
    self->flushing = true;
    if (!self->attempt) {
        pl_timer_stop(&self->timer);
        go_on(self, true);
    }
    while (self->attempt && !is_over)
        event_base_loop(self->base, EVLOOP_ONCE);
    event_free(guard);
    if (self->attempt)
        pl_attempt_cancel(self->attempt);
    self->attempt = NULL;
    pl_timer_stop(&self->timer);
    if (self->batch)
        drop(self, PL_SPAN_DROP_SHUTDOWN, "no answer before the end");
    pl_spans_drop_all(self->spans, PL_SPAN_DROP_SHUTDOWN);
}

void pl_exporter_free(struct pl_exporter *self)
{
    if (!self)
        return;
    if (self->attempt)
        pl_attempt_cancel(self->attempt);
    if (self->batch)
        pl_spans_drop(self->spans, self->batch, PL_SPAN_DROP_SHUTDOWN);
    pl_timer_stop(&self->timer);
    event_free(self->wake);
    leave(self);
    pl_tracing_unref(self->next);
    pl_otlp_text_deinit(&self->head);
    pl_otlp_text_deinit(&self->json_head);
    pl_otlp_text_deinit(&self->json_tail);
    free(self->pieces);
    free(self);
}
