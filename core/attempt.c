/*
 * Attempt: see attempt.h.
 *
 * Thread: one worker. An attempt owns its connection (or the dial that makes one), its response
 * head and, only when bytes cannot be handed on at once (half a head, or paused), a small buffer
 * with these bytes. Everything else is read into one buffer per thread, parsed where it lies and
 * handed to on_body from there; so an idle stream costs well under a page.
 *
 * Callbacks are made only from events of the loop, never from start, cancel, pause or resume; each
 * event's function brackets its work with enter and leave, and leave frees an attempt that ended
 * meanwhile. After every callback the state is looked at again: the owner may have cancelled or
 * paused. The buffer of the thread is safe because none of the exported functions reads.
 *
 * Sending and reading are independent: an answer may come before the request is written. From
 * status 300 on it is the last word, and sending stops.
 *
 * One timer per attempt, armed lazily: progress only notes the time; when the timer fires, it is
 * seen what is due and, if nothing is, the timer is armed again. An attempt that has ended leaves
 * it as it is: its memory, timer and all, waits in its pool for the next attempt, whose limits are
 * hardly ever due before.
 */
#include "attempt.h"
#include "dial.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INTERIM_HEADS 8
#define SCRATCH_BYTES     65536

#define SPARE_COUNT_MAX      64 /* per pool */
#define SPARE_HEAD_MAX_BYTES 4096

enum state { STATE_DIAL, STATE_HEAD, STATE_BODY, STATE_ENDED };

struct pl_attempt {
    struct pl_pool *pool;
    struct pl_attempt *next_spare;
    struct pl_dial *dial;             /* while connecting */
    struct pl_connection *connection; /* from then to the end */
    struct pl_attempt_ops ops;
    void *arg;
    struct pl_attempt_request request;
    struct pl_attempt_limits limits;
    enum state state;
    int depth; /* how many of its own event functions are on the stack: 0 or 1 */
    bool paused, redialled, answered, compacted;
    uint8_t interim_heads;
    int write_errno;      /* why sending was given up, if it was */
    size_t piece, offset; /* where writing goes on */
    struct pl_chunked chunked;
    uint64_t left_bytes; /* of a body with a length */
    char *held;          /* bytes read that cannot be handed on yet */
    size_t held_start, held_end, held_cap;
    uint64_t start_ms, now_ms; /* now: when the event began that is being dealt with */
    uint64_t progress_ms, paused_at_ms;
    struct pl_attempt_stats stats;
    /* from here on it is kept for the next attempt that has this memory; see take_or_make */
    struct pl_response_head head;
    struct event timer;
    uint64_t timer_due_ms; /* 0: not armed */
};

static _Thread_local char scratch[SCRATCH_BYTES];

static const char *const FAILURE_NAMES[] = {
    [PL_FAIL_NONE] = "ok",
    [PL_FAIL_RATE_LIMITED] = "rate_limited",
    [PL_FAIL_AUTH] = "auth",
    [PL_FAIL_BILLING] = "billing",
    [PL_FAIL_MODEL_NOT_FOUND] = "model_not_found",
    [PL_FAIL_CONTEXT_LENGTH] = "context_length",
    [PL_FAIL_CONTENT_FILTER] = "content_filter",
    [PL_FAIL_CLIENT_FAULT] = "client_fault",
    [PL_FAIL_OVERLOADED] = "overloaded",
    [PL_FAIL_SERVER_ERROR] = "server_error",
    [PL_FAIL_DNS] = "dns",
    [PL_FAIL_CONNECT] = "connect",
    [PL_FAIL_TLS] = "tls",
    [PL_FAIL_RESET] = "reset",
    [PL_FAIL_TIMEOUT_CONNECT] = "timeout_connect",
    [PL_FAIL_TIMEOUT_HEAD] = "timeout_head",
    [PL_FAIL_TIMEOUT_FIRST_TOKEN] = "timeout_first_token",
    [PL_FAIL_TIMEOUT_IDLE] = "timeout_idle",
    [PL_FAIL_TIMEOUT_TRY] = "timeout_try",
    [PL_FAIL_TIMEOUT_DEADLINE] = "timeout_deadline",
    [PL_FAIL_TRUNCATED] = "truncated",
    [PL_FAIL_MALFORMED] = "malformed",
    [PL_FAIL_EMPTY] = "empty",
};

const char *pl_failure_name(enum pl_failure failure)
{
    size_t index = (size_t)failure;
    return index < PL_COUNT(FAILURE_NAMES) ? FAILURE_NAMES[index] : "unknown";
}

/* ---- ending ---- */

static uint32_t since_start_ms(const struct pl_attempt *self)
{
    return (uint32_t)PL_MIN(self->now_ms - self->start_ms, UINT32_MAX);
}

/** One look at the clock per event; more of them would show in the profile. */
static void enter(struct pl_attempt *self)
{
    self->depth++;
    self->now_ms = pl_now_ms();
}

static void free_attempt(struct pl_attempt *self)
{
    event_del(&self->timer);
    pl_response_head_deinit(&self->head);
    free(self);
}

/** Keeps the memory for the next attempt, within bounds. */
static void recycle(struct pl_attempt *self)
{
    struct pl_pool *pool = self->pool;
    free(self->held);
    self->held = NULL;
    if (pool->closed || pool->spare_count == SPARE_COUNT_MAX ||
        self->head.headers.arena_cap > SPARE_HEAD_MAX_BYTES) {
        free_attempt(self);
    } else {
        self->next_spare = pool->spare_attempts;
        pool->spare_attempts = self;
        pool->spare_count++;
    }
    pl_pool_unref(pool);
}

static struct pl_attempt *take_spare(struct pl_pool *pool)
{
    struct pl_attempt *spare = pool->spare_attempts;
    if (spare != NULL) {
        pool->spare_attempts = spare->next_spare;
        pool->spare_count--;
    }
    return spare;
}

static void free_spare_attempts(struct pl_pool *pool)
{
    struct pl_attempt *spare;
    while ((spare = take_spare(pool)) != NULL) {
        free_attempt(spare);
    }
}

/** Lets go of the network; what the timer still does is nothing. */
static void detach(struct pl_attempt *self)
{
    self->state = STATE_ENDED;
    if (self->dial != NULL) {
        pl_dial_cancel(self->dial);
    }
    if (self->connection != NULL) {
        pl_connection_close(self->connection);
    }
    self->dial = NULL;
    self->connection = NULL;
}

/** Tells the owner; the connection has been dealt with, so a new attempt may be started there. */
static void finish(struct pl_attempt *self, enum pl_failure failure)
{
    detach(self);
    self->stats.total_ms = since_start_ms(self);
    self->ops.on_done(self, failure, self->arg);
}

PL_PRINTF(3, 4)
static void fail(struct pl_attempt *self, enum pl_failure failure, const char *format, ...)
{
    const struct pl_endpoint *endpoint = self->pool->endpoint;
    char *detail = self->stats.detail;
    size_t size = sizeof(self->stats.detail);
    int used = snprintf(detail, size,
                        strchr(endpoint->host, ':') ? "[%s]:%u: " : "%s:%u: ", endpoint->host,
                        endpoint->port);
    if (used > 0 && (size_t)used < size) {
        va_list args;
        va_start(args, format);
        vsnprintf(detail + used, size - (size_t)used, format, args);
        va_end(args);
    }
    finish(self, failure);
}

static bool is_written(const struct pl_attempt *self)
{
    return self->piece == self->request.piece_count;
}

/** A whole answer. The connection is kept if both sides are exactly between two messages. */
static void succeed(struct pl_attempt *self, bool nothing_left)
{
    struct pl_connection *connection = self->connection;
    if (nothing_left && self->head.keep_alive && self->head.framing != PL_FRAMING_EOF &&
        is_written(self) && !pl_connection_has_unread(connection)) {
        self->connection = NULL;
        pl_pool_give(self->pool, connection);
    }
    finish(self, PL_FAIL_NONE);
}

/* ---- timer ---- */

static uint64_t earlier(uint64_t due_ms, uint64_t from_ms, uint32_t limit_ms)
{
    if (limit_ms == 0) {
        return due_ms;
    }
    return due_ms == 0 ? from_ms + limit_ms : PL_MIN(due_ms, from_ms + limit_ms);
}

/** When the silence that is allowed in this state is over; 0: never. */
static uint64_t silence_due_ms(const struct pl_attempt *self)
{
    if (self->state == STATE_HEAD) {
        return earlier(0, self->progress_ms, self->limits.head_ms);
    }
    if (self->state == STATE_BODY && !self->paused) {
        return earlier(0, self->progress_ms, self->limits.idle_ms);
    }
    return 0;
}

/** Arms the timer if something is due earlier than it will fire. */
static void schedule(struct pl_attempt *self)
{
    uint64_t due_ms = earlier(silence_due_ms(self), self->start_ms, self->limits.try_ms);
    if (due_ms == 0 || (self->timer_due_ms != 0 && self->timer_due_ms <= due_ms)) {
        return;
    }
    uint64_t after_ms = due_ms > self->now_ms ? due_ms - self->now_ms : 0;
    struct timeval when = {.tv_sec = (time_t)(after_ms / 1000),
                           .tv_usec = (suseconds_t)(after_ms % 1000 * 1000)};
    self->timer_due_ms = due_ms;
    event_add(&self->timer, &when);
}

static void fail_for_silence(struct pl_attempt *self)
{
    if (self->state == STATE_BODY) {
        fail(self, PL_FAIL_TIMEOUT_IDLE, "no more of the body for %u ms", self->limits.idle_ms);
    } else if (!is_written(self)) {
        fail(self, PL_FAIL_TIMEOUT_HEAD, "the request was not accepted for %u ms",
             self->limits.head_ms);
    } else {
        fail(self, PL_FAIL_TIMEOUT_HEAD, "no response head after %u ms", self->limits.head_ms);
    }
}

/** Ends the attempt if one of its limits has been reached. */
static void check_limits(struct pl_attempt *self)
{
    uint64_t silence_ms = silence_due_ms(self);
    if (self->limits.try_ms != 0 && self->now_ms - self->start_ms >= self->limits.try_ms) {
        fail(self, PL_FAIL_TIMEOUT_TRY, "not finished after %u ms", self->limits.try_ms);
    } else if (silence_ms != 0 && self->now_ms >= silence_ms) {
        fail_for_silence(self);
    }
}

/** The head of a stream may stay in memory for minutes: without the room to grow. */
static void compact_head(struct pl_attempt *self)
{
    struct pl_headers *headers = &self->head.headers;
    self->compacted = true;
    if (headers->count == 0) {
        return;
    }
    headers->arena = pl_xrealloc(headers->arena, headers->arena_len);
    headers->arena_cap = headers->arena_len;
    headers->items = pl_xrealloc(headers->items, headers->count * sizeof(*headers->items));
    headers->cap = headers->count;
}

static void leave(struct pl_attempt *self)
{
    self->depth--;
    if (self->state == STATE_ENDED) {
        recycle(self);
        return;
    }
    if (self->state == STATE_BODY && !self->compacted) {
        compact_head(self);
    }
    schedule(self);
}

/* ---- reading the answer ---- */

static void take_final_head(struct pl_attempt *self)
{
    self->stats.head_ms = since_start_ms(self);
    self->progress_ms = self->now_ms;
    self->state = STATE_BODY;
    self->left_bytes = self->head.content_length_bytes;
    pl_chunked_init(&self->chunked);
    if (self->head.status >= 300) {
        pl_connection_want_write(self->connection, false);
    }
    self->ops.on_head(self, self->arg);
}

static void fail_for_head(struct pl_attempt *self, long error)
{
    if (error == PL_ERR_LIMIT) {
        fail(self, PL_FAIL_MALFORMED, "the response head is larger than %d bytes or %d fields",
             PL_HTTP1_MAX_HEAD_BYTES, PL_HTTP1_MAX_HEADERS);
    } else {
        fail(self, PL_FAIL_MALFORMED, "the response head is not HTTP/1.1");
    }
}

/** Interim heads are skipped, within bounds. (The parser refuses 101, which nobody asked for.) */
static bool skip_interim_head(struct pl_attempt *self)
{
    if (self->interim_heads++ < MAX_INTERIM_HEADS) {
        return true;
    }
    fail(self, PL_FAIL_MALFORMED, "more than %d interim answers", MAX_INTERIM_HEADS);
    return false;
}

/** Returns the bytes used; 0 with the state unchanged means that more are needed. */
static size_t take_head(struct pl_attempt *self, const char *data, size_t len)
{
    size_t used = 0;
    while (used < len) {
        long head_bytes =
            pl_response_head_parse(&self->head, data + used, len - used, self->request.is_head);
        if (head_bytes == 0) {
            return used;
        }
        if (head_bytes < 0) {
            fail_for_head(self, head_bytes);
            return used;
        }
        used += (size_t)head_bytes;
        if (self->head.status >= 200) {
            take_final_head(self);
            return used;
        }
        if (!skip_interim_head(self)) {
            return used;
        }
    }
    return used;
}

static bool is_body_complete(const struct pl_attempt *self)
{
    switch (self->head.framing) {
    case PL_FRAMING_NONE:
        return true;
    case PL_FRAMING_LENGTH:
        return self->left_bytes == 0;
    case PL_FRAMING_CHUNKED:
        return self->chunked.done;
    case PL_FRAMING_EOF:
        return false;
    }
    return false;
}

/** Finds the next run of body bytes. Returns bytes used, or an error of the chunked coding. */
static long next_run(struct pl_attempt *self, const char *data, size_t len, struct pl_str *run)
{
    if (self->head.framing == PL_FRAMING_CHUNKED) {
        return pl_chunked_next(&self->chunked, data, len, run);
    }
    size_t take = len;
    if (self->head.framing == PL_FRAMING_LENGTH) {
        take = (size_t)PL_MIN(self->left_bytes, (uint64_t)len);
        self->left_bytes -= take;
    }
    *run = (struct pl_str){data, take};
    return (long)take;
}

static size_t take_body(struct pl_attempt *self, const char *data, size_t len)
{
    struct pl_str run = {NULL, 0};
    long used = next_run(self, data, len, &run);
    if (used < 0 || (used == 0 && !self->chunked.done)) {
        fail(self, PL_FAIL_MALFORMED, "the chunked coding of the body is broken");
        return 0;
    }
    if (run.len > 0) {
        self->stats.body_bytes += run.len;
        self->ops.on_body(self, run.data, run.len, self->arg);
    }
    return (size_t)used;
}

/** Hands on what can be handed on. Returns the bytes used; meaningless once ended. */
static size_t consume(struct pl_attempt *self, const char *data, size_t len)
{
    size_t used = self->state == STATE_HEAD ? take_head(self, data, len) : 0;
    while (self->state == STATE_BODY && !self->paused) {
        if (is_body_complete(self)) {
            succeed(self, used == len);
        } else if (used == len) {
            break;
        } else {
            used += take_body(self, data + used, len - used);
        }
    }
    return used;
}

static void hold(struct pl_attempt *self, const char *data, size_t len)
{
    if (self->held_end + len > self->held_cap) {
        size_t doubled = self->held_cap * 2;
        self->held_cap = PL_MAX(self->held_end + len, doubled);
        self->held = pl_xrealloc(self->held, self->held_cap);
    }
    memcpy(self->held + self->held_end, data, len);
    self->held_end += len;
}

static void consume_held(struct pl_attempt *self)
{
    const char *data = self->held != NULL ? self->held + self->held_start : "";
    size_t used = consume(self, data, self->held_end - self->held_start);
    if (self->state == STATE_ENDED) {
        return;
    }
    self->held_start += used;
    if (self->held_start < self->held_end) {
        return;
    }
    free(self->held);
    self->held = NULL;
    self->held_start = self->held_end = self->held_cap = 0;
}

/** A head that trickles in is not parsed anew for bytes that cannot complete it. */
static bool may_complete_head(const struct pl_attempt *self, const char *data, size_t len)
{
    return self->held_end + len >= PL_HTTP1_MAX_HEAD_BYTES || memchr(data, '\n', len) != NULL;
}

static void take_bytes(struct pl_attempt *self, const char *data, size_t len)
{
    self->answered = true;
    if (self->held != NULL) {
        bool parse = may_complete_head(self, data, len);
        hold(self, data, len);
        if (parse) {
            consume_held(self);
        }
        return;
    }
    size_t used = consume(self, data, len);
    if (self->state != STATE_ENDED && used < len) {
        hold(self, data + used, len - used);
    }
}

/* ---- the connection's end ---- */

static void dial(struct pl_attempt *self);

/** Whether the request may go out again: a kept connection that turned out to be dead. */
static bool is_stale_reuse(const struct pl_attempt *self)
{
    bool may_be_served = self->request.sends_once && self->stats.request_sent;
    return self->connection->reused && !self->answered && !self->redialled && !may_be_served;
}

static void redial(struct pl_attempt *self)
{
    pl_connection_close(self->connection);
    self->connection = NULL;
    self->redialled = true;
    self->stats.reused = false;
    self->write_errno = 0;
    self->piece = self->offset = 0;
    dial(self);
}

static void on_closed(struct pl_attempt *self, const char *how)
{
    if (self->state == STATE_BODY) {
        fail(self, PL_FAIL_TRUNCATED, "%s within the body, after %" PRIu64 " bytes", how,
             self->stats.body_bytes);
    } else if (is_stale_reuse(self)) {
        redial(self);
    } else if (self->answered) {
        fail(self, PL_FAIL_RESET, "%s within the response head", how);
    } else {
        fail(self, PL_FAIL_RESET, "%s before the response", how);
    }
}

static void on_end_of_stream(struct pl_attempt *self)
{
    if (self->state == STATE_BODY && self->head.framing == PL_FRAMING_EOF) {
        finish(self, PL_FAIL_NONE);
    } else {
        on_closed(self, "connection closed");
    }
}

static void on_broken(struct pl_attempt *self)
{
    char reason[96];
    pl_connection_error(self->connection, reason, sizeof(reason));
    on_closed(self, reason);
}

/** Bytes of the body are left where they are while the owner has paused, or has not yet got what
 *  was read before. */
static bool may_read(const struct pl_attempt *self)
{
    return self->state != STATE_BODY || (!self->paused && self->held == NULL);
}

/** OpenSSL may hold bytes that epoll knows nothing of. */
static void announce_unread(struct pl_attempt *self)
{
    if (pl_connection_has_unread(self->connection)) {
        event_active(&self->connection->read_event, EV_READ, 0);
    }
}

static void continue_reading(struct pl_attempt *self)
{
    pl_connection_want_read(self->connection, true);
    announce_unread(self);
}

static void read_answer(struct pl_attempt *self)
{
    if (!may_read(self)) {
        pl_connection_want_read(self->connection, false);
        return;
    }
    long got = pl_connection_read(self->connection, scratch, sizeof(scratch));
    if (got > 0) {
        if (self->state == STATE_BODY) {
            self->progress_ms = self->now_ms;
        }
        take_bytes(self, scratch, (size_t)got);
    } else if (got == 0) {
        on_end_of_stream(self);
    } else if (got == PL_ERR_CLOSED) {
        on_closed(self, "connection closed without close_notify");
    } else if (got == PL_ERR_SYSTEM) {
        on_broken(self);
    } else if (self->write_errno != 0) {
        on_closed(self, strerror(self->write_errno));
    }
    if (got > 0 && self->state != STATE_ENDED && may_read(self)) {
        announce_unread(self);
    }
}

/* ---- writing the request ---- */

static bool is_writing(const struct pl_attempt *self)
{
    return !is_written(self) && self->write_errno == 0 &&
           (self->state == STATE_HEAD || (self->state == STATE_BODY && self->head.status < 300));
}

static void skip_written(struct pl_attempt *self, size_t bytes)
{
    const struct iovec *pieces = self->request.pieces;
    while (!is_written(self) && bytes >= pieces[self->piece].iov_len - self->offset) {
        bytes -= pieces[self->piece].iov_len - self->offset;
        self->offset = 0;
        self->piece++;
    }
    self->offset += bytes;
}

/** Sends what the socket takes. An error is not the end yet: an answer may lie in the socket, and
 *  the read event that is activated here finds it, or the end. */
static void write_request(struct pl_attempt *self)
{
    struct pl_connection *connection = self->connection;
    while (is_writing(self)) {
        long put = pl_connection_write(connection, self->request.pieces + self->piece,
                                       self->request.piece_count - self->piece, self->offset);
        if (put == PL_ERR_ABSENT) {
            return;
        }
        if (put < 0) {
            self->write_errno = errno != 0 ? errno : EIO;
            event_active(&connection->read_event, EV_READ, 0);
            break;
        }
        self->stats.request_sent = true;
        self->progress_ms = self->now_ms;
        skip_written(self, (size_t)put);
    }
    pl_connection_want_write(connection, false);
}

/* ---- events ---- */

static void on_socket(void *arg, short what)
{
    struct pl_attempt *self = arg;
    enter(self);
    bool tls = self->connection->ssl != NULL;
    if (is_writing(self) && (tls || (what & EV_WRITE) != 0)) {
        write_request(self);
    } else if ((what & EV_WRITE) != 0) {
        pl_connection_want_write(self->connection, false);
    }
    if (tls || (what & EV_READ) != 0) {
        read_answer(self);
    }
    leave(self);
}

static void attach(struct pl_attempt *self, struct pl_connection *connection)
{
    self->connection = connection;
    connection->credential_tag = self->request.credential_tag;
    connection->on_event = on_socket;
    connection->on_event_arg = self;
    self->state = STATE_HEAD;
    self->progress_ms = self->now_ms;
    write_request(self);
}

static void on_dialled(void *arg, struct pl_connection *connection, enum pl_failure failure,
                       const char *detail)
{
    struct pl_attempt *self = arg;
    enter(self);
    self->dial = NULL;
    if (connection != NULL) {
        self->stats.connect_ms = since_start_ms(self);
        attach(self, connection);
    } else {
        snprintf(self->stats.detail, sizeof(self->stats.detail), "%s", detail);
        finish(self, failure);
    }
    leave(self);
}

static void dial(struct pl_attempt *self)
{
    self->state = STATE_DIAL;
    self->dial =
        pl_dial_start(self->pool, self->limits.connect_ms, self->limits.tls_ms, on_dialled, self);
}

/** The limits' timer, which resume also uses to come back from the loop. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct pl_attempt *self = arg;
    self->timer_due_ms = 0; /* libevent disarms it before the call, however it was activated */
    if (self->state == STATE_ENDED) {
        return; /* a spare one */
    }
    enter(self);
    if ((what & EV_READ) != 0 && self->state == STATE_BODY && !self->paused) {
        consume_held(self);
    }
    if (self->state == STATE_BODY && may_read(self)) {
        continue_reading(self);
    }
    if (self->state != STATE_ENDED) {
        check_limits(self);
    }
    leave(self);
}

/* ---- exported ---- */

static struct pl_attempt *take_or_make(struct pl_pool *pool)
{
    struct pl_attempt *self = take_spare(pool);
    if (self == NULL) {
        self = pl_xcalloc(1, sizeof(*self));
        event_assign(&self->timer, pool->base, -1, 0, on_timer, self);
        pool->free_spare_attempts = free_spare_attempts;
        return self;
    }
    struct pl_headers headers = self->head.headers;
    pl_headers_clear(&headers);
    memset(self, 0, offsetof(struct pl_attempt, head));
    self->head = (struct pl_response_head){.headers = headers};
    return self;
}

struct pl_attempt *pl_attempt_start(struct pl_pool *pool, const struct pl_attempt_request *request,
                                    const struct pl_attempt_limits *limits,
                                    const struct pl_attempt_ops *ops, void *arg)
{
    struct pl_attempt *self = take_or_make(pool);
    pl_pool_ref(pool);
    self->pool = pool;
    self->ops = *ops;
    self->arg = arg;
    self->request = *request;
    self->limits = *limits;
    self->start_ms = self->now_ms = pl_now_ms();
    struct pl_connection *connection = pl_pool_take(pool, request->credential_tag);
    self->stats.reused = connection != NULL;
    if (connection != NULL) {
        attach(self, connection);
    } else {
        dial(self);
    }
    schedule(self);
    return self;
}

void pl_attempt_cancel(struct pl_attempt *attempt)
{
    if (attempt->state == STATE_ENDED) {
        return; /* from inside on_done: it is on its way out */
    }
    detach(attempt);
    if (attempt->depth == 0) {
        recycle(attempt);
    }
}

void pl_attempt_pause(struct pl_attempt *attempt)
{
    if (attempt->paused) {
        return;
    }
    attempt->paused = true;
    attempt->now_ms = attempt->paused_at_ms = pl_now_ms();
}

void pl_attempt_resume(struct pl_attempt *attempt)
{
    if (!attempt->paused) {
        return;
    }
    attempt->paused = false;
    if (attempt->state != STATE_BODY) {
        return;
    }
    uint64_t since_ms = PL_MAX(attempt->paused_at_ms, attempt->progress_ms);
    attempt->now_ms = pl_now_ms();
    attempt->progress_ms += attempt->now_ms - since_ms;
    if (attempt->depth > 0) {
        return; /* the loop that hands on looks again, and leave() arms the timer */
    }
    schedule(attempt);
    if (attempt->held == NULL && !is_body_complete(attempt)) {
        continue_reading(attempt);
    } else { /* not EV_TIMEOUT: with it a later event_add would take the activation back */
        event_active(&attempt->timer, EV_READ, 0);
    }
}

bool pl_attempt_is_sent(const struct pl_attempt *attempt)
{
    return is_written(attempt);
}

const struct pl_response_head *pl_attempt_head(const struct pl_attempt *attempt)
{
    return &attempt->head;
}

const struct pl_attempt_stats *pl_attempt_stats(struct pl_attempt *attempt)
{
    if (attempt->state != STATE_ENDED) {
        attempt->now_ms = pl_now_ms();
        attempt->stats.total_ms = since_start_ms(attempt);
    }
    return &attempt->stats;
}
