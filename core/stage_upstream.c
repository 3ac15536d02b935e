/*
 * The upstream's side of a stage: see stage.h and transport.h. Plays a call's answer on the virtual
 * clock, within the limits that attempt.c keeps on the real one; the rest of the gateway cannot
 * tell the two apart.
 *
 * One timer per call: for its next step, or for the limit that comes first. Where both fall on the
 * same moment the limit has been reached. Steps are at absolute times, since an upstream goes on
 * writing while the gateway does not read: what was held back comes at once after a pause.
 */
#include "stage_internal.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum state { STATE_CALLED, STATE_HEAD, STATE_BODY, STATE_ENDED };

struct play {
    struct pl_stage *stage;
    struct pl_stage_call call;
    struct pl_stage_answer *answer; /* NULL: it hangs, or was not asked yet */
    struct pl_attempt_ops ops;
    void *arg;
    struct pl_attempt_request request;
    struct pl_timer timer;
    enum state state;
    bool in_callback, paused;
    size_t next_piece;
    uint64_t start_us;
    uint64_t step_us; /* when the next step is; UINT64_MAX: never */
    uint64_t progress_us, paused_at_us;
    struct pl_response_head head;
    struct pl_attempt_stats stats;
};

static struct play *of(const struct pl_attempt *attempt)
{
    return (struct play *)attempt;
}

static struct pl_attempt *as_attempt(struct play *self)
{
    return (struct pl_attempt *)self;
}

static uint64_t now_us(const struct play *self)
{
    return self->stage->timeline.clock.now_us;
}

static uint64_t later(uint64_t from_us, uint64_t duration_us)
{
    return duration_us < UINT64_MAX - from_us ? from_us + duration_us : UINT64_MAX;
}

static uint32_t since_start_ms(const struct play *self)
{
    return (uint32_t)PL_MIN((now_us(self) - self->start_us) / 1000, UINT32_MAX);
}

/* ---- the end ---- */

static void play_free(struct play *self)
{
    pl_response_head_deinit(&self->head);
    pl_stage_answer_unref(self->answer);
    free(self);
}

/* Only a call that its upstream has heard of is told of. */
static void end_call(struct play *self, enum pl_stage_call_state state, enum pl_failure failure)
{
    const struct pl_stage *stage = self->stage;
    pl_timer_stop(&self->timer);
    self->state = STATE_ENDED;
    self->call.ended_us = pl_stage_now_us(stage);
    self->call.state = state;
    self->call.failure = failure;
    if (self->call.number > 0 && stage->ops.on_call_end)
        stage->ops.on_call_end(&self->call, stage->arg);
}

static void finish(struct play *self, enum pl_failure failure)
{
    self->stats.total_ms = since_start_ms(self);
    end_call(self, PL_STAGE_CALL_ENDED, failure);
    self->ops.on_done(as_attempt(self), failure, self->arg);
}

PL_PRINTF(3, 4)
static void fail(struct play *self, enum pl_failure failure, const char *format, ...)
{
    size_t size = sizeof(self->stats.detail);
    int used = snprintf(self->stats.detail, size, "%s: ", self->call.provider->host_header);
    if (used > 0 && (size_t)used < size) {
        va_list args;
        va_start(args, format);
        vsnprintf(self->stats.detail + used, size - (size_t)used, format, args);
        va_end(args);
    }
    finish(self, failure);
}

static void fail_as_scripted(struct play *self, enum pl_failure failure)
{
    switch (failure) {
    case PL_FAIL_DNS:
        fail(self, failure, "the name could not be resolved");
        break;
    case PL_FAIL_CONNECT:
        fail(self, failure, "Connection refused");
        break;
    case PL_FAIL_TLS:
        fail(self, failure, "the certificate could not be verified");
        break;
    case PL_FAIL_MALFORMED:
        fail(self, failure, "the response head is not HTTP/1.1");
        break;
    default:
        fail(self, failure, "connection closed before the response");
        break;
    }
}

/* ---- limits ---- */

static bool is_connecting(const struct play *self)
{
    enum pl_failure failure = self->answer ? self->answer->failure : PL_FAIL_NONE;
    return failure == PL_FAIL_DNS || failure == PL_FAIL_CONNECT || failure == PL_FAIL_TLS;
}

static uint64_t limit_us(uint64_t from_us, uint32_t limit_ms)
{
    return limit_ms == 0 ? UINT64_MAX : later(from_us, (uint64_t)limit_ms * 1000);
}

static uint32_t connect_limit_ms(const struct play *self)
{
    const struct pl_attempt_limits *limits = &self->call.target->limits;
    return self->answer->failure == PL_FAIL_TLS ? limits->tls_ms : limits->connect_ms;
}

/* When the silence that is allowed in this state is over. */
static uint64_t silence_us(const struct play *self)
{
    const struct pl_attempt_limits *limits = &self->call.target->limits;
    if (self->state == STATE_HEAD && is_connecting(self))
        return limit_us(self->start_us, connect_limit_ms(self));
    if (self->state == STATE_HEAD)
        return limit_us(self->start_us, limits->head_ms);
    if (self->state == STATE_BODY && !self->paused)
        return limit_us(self->progress_us, limits->idle_ms);
    return UINT64_MAX;
}

static uint64_t try_us(const struct play *self)
{
    return limit_us(self->start_us, self->call.target->limits.try_ms);
}

static void fail_for_silence(struct play *self)
{
    const struct pl_attempt_limits *limits = &self->call.target->limits;
    if (self->state == STATE_BODY)
        fail(self, PL_FAIL_TIMEOUT_IDLE, "no more of the body for %u ms", limits->idle_ms);
    else if (is_connecting(self))
        fail(self, PL_FAIL_TIMEOUT_CONNECT, "no connection after %u ms", connect_limit_ms(self));
    else
        fail(self, PL_FAIL_TIMEOUT_HEAD, "no response head after %u ms", limits->head_ms);
}

/* Ends the call if one of its limits has been reached. */
static void check_limits(struct play *self)
{
    if (now_us(self) >= try_us(self))
        fail(self, PL_FAIL_TIMEOUT_TRY, "not finished after %u ms",
             self->call.target->limits.try_ms);
    else if (now_us(self) >= silence_us(self))
        fail_for_silence(self);
}

/* ---- steps ---- */

/* The upstream hears of the call and makes up its mind. */
static void ask(struct play *self)
{
    struct pl_stage *stage = self->stage;
    self->call.number = ++stage->call_count;
    self->call.pieces = self->request.pieces;
    self->call.piece_count = self->request.piece_count;
    self->answer = stage->ops.on_call(&self->call, stage->arg);
    self->call.pieces = NULL;
    self->state = STATE_HEAD;
    self->stats.request_sent = !is_connecting(self);
    self->step_us = UINT64_MAX;
    if (self->answer && !self->answer->hangs)
        self->step_us = later(self->start_us, self->answer->head_after_us);
}

static bool is_bodiless(const struct play *self)
{
    int status = self->answer->status;
    return self->request.is_head || status == 204 || status == 304;
}

static void plan_next(struct play *self)
{
    const struct pl_stage_answer *answer = self->answer;
    if (is_bodiless(self))
        return; /* at once */
    if (self->next_piece < answer->piece_count)
        self->step_us = later(self->step_us, answer->pieces[self->next_piece].after_us);
    else if (answer->ending == PL_STAGE_STALL)
        self->step_us = UINT64_MAX;
    else
        self->step_us = later(self->step_us, answer->end_after_us);
}

static void fill_head(struct play *self)
{
    struct pl_response_head *head = &self->head;
    const struct pl_stage_answer *answer = self->answer;
    char length[PL_NUMBER_MAX];
    pl_headers_copy(&head->headers, &answer->headers);
    head->status = answer->status;
    head->minor_version = 1;
    head->framing = is_bodiless(self) ? PL_FRAMING_NONE
                    : answer->chunked ? PL_FRAMING_CHUNKED
                                      : PL_FRAMING_LENGTH;
    head->content_length_bytes = answer->length_bytes ? answer->length_bytes : answer->byte_count;
    if (answer->chunked || pl_headers_count(&head->headers, PL_STR("content-length")) > 0)
        return;
    struct pl_str value = {length, pl_put_decimal(length, head->content_length_bytes)};
    if (pl_headers_add(&head->headers, PL_STR("Content-Length"), value) != PL_OK)
        abort();
}

static void take_head(struct play *self)
{
    if (self->answer->failure != PL_FAIL_NONE) {
        fail_as_scripted(self, self->answer->failure);
        return;
    }
    fill_head(self);
    self->state = STATE_BODY;
    self->stats.head_ms = since_start_ms(self);
    self->progress_us = now_us(self);
    plan_next(self);
    self->ops.on_head(as_attempt(self), self->arg);
}

static void take_piece(struct play *self)
{
    const struct pl_stage_answer *answer = self->answer;
    const struct pl_stage_piece *piece = &answer->pieces[self->next_piece++];
    self->progress_us = now_us(self);
    self->stats.body_bytes += piece->len;
    plan_next(self);
    if (piece->len > 0)
        self->ops.on_body(as_attempt(self), answer->bytes + piece->offset, piece->len, self->arg);
}

static void take_end(struct play *self)
{
    if (self->answer->ending == PL_STAGE_CUT && !is_bodiless(self))
        fail(self, PL_FAIL_TRUNCATED, "connection closed within the body, after %" PRIu64 " bytes",
             self->stats.body_bytes);
    else
        finish(self, PL_FAIL_NONE);
}

static void step(struct play *self)
{
    if (self->state == STATE_CALLED)
        ask(self);
    else if (self->state == STATE_HEAD)
        take_head(self);
    else if (self->next_piece < self->answer->piece_count && !is_bodiless(self))
        take_piece(self);
    else
        take_end(self);
}

/* ---- the timer ---- */

static bool is_held_back(const struct play *self)
{
    return self->paused && self->state == STATE_BODY;
}

static void arm(struct play *self)
{
    uint64_t due_us = PL_MIN(silence_us(self), try_us(self));
    if (!is_held_back(self))
        due_us = PL_MIN(due_us, self->step_us);
    if (due_us == UINT64_MAX)
        pl_timer_stop(&self->timer);
    else
        pl_timer_start_us(&self->timer, due_us > now_us(self) ? due_us - now_us(self) : 0);
}

static void on_due(void *arg)
{
    struct play *self = arg;
    self->in_callback = true;
    if (self->state != STATE_CALLED)
        check_limits(self);
    while (self->state != STATE_ENDED && !is_held_back(self) && self->step_us <= now_us(self))
        step(self);
    self->in_callback = false;
    if (self->state == STATE_ENDED)
        play_free(self);
    else
        arm(self);
}

/* ---- the transport ---- */

/* A try is made by the policy that runs. */
static uint64_t running_client(const struct pl_stage *stage)
{
    const struct pl_request *request = stage->runtime.running;
    return request && request->exchange
               ? ((const struct pl_stage_client *)request->exchange)->number
               : 0;
}

static struct pl_attempt *start(const struct pl_transport *transport, struct pl_pool *pool,
                                const struct pl_target *target,
                                const struct pl_attempt_request *request,
                                const struct pl_attempt_ops *ops, void *arg)
{
    (void)pool;
    struct pl_stage *stage = (struct pl_stage *)transport;
    struct play *self = pl_xcalloc(1, sizeof(*self));
    self->stage = stage;
    self->ops = *ops;
    self->arg = arg;
    self->request = *request;
    self->call = (struct pl_stage_call){
        .target = target,
        .provider = &stage->config->topology.providers[target->provider_index],
        .at_us = pl_stage_now_us(stage),
        .client_number = running_client(stage)};
    self->start_us = now_us(self);
    pl_response_head_init(&self->head);
    pl_timer_init(&self->timer, NULL, &stage->timeline, on_due, self);
    pl_timer_fire_soon(&self->timer);
    return as_attempt(self);
}

static void cancel(struct pl_attempt *attempt)
{
    struct play *self = of(attempt);
    if (self->state == STATE_ENDED)
        return; /* from inside on_done: it is on its way out */
    end_call(self, PL_STAGE_CALL_CANCELLED, PL_FAIL_NONE);
    if (!self->in_callback)
        play_free(self);
}

static void pause_reading(struct pl_attempt *attempt)
{
    struct play *self = of(attempt);
    if (self->paused)
        return;
    self->paused = true;
    self->paused_at_us = now_us(self);
}

static void resume(struct pl_attempt *attempt)
{
    struct play *self = of(attempt);
    if (!self->paused)
        return;
    self->paused = false;
    if (self->state != STATE_BODY)
        return;
    self->progress_us += now_us(self) - PL_MAX(self->paused_at_us, self->progress_us);
    if (!self->in_callback)
        arm(self);
}

static bool is_sent(const struct pl_attempt *attempt)
{
    return of(attempt)->state == STATE_BODY;
}

static const struct pl_response_head *head(const struct pl_attempt *attempt)
{
    return &of(attempt)->head;
}

static const struct pl_attempt_stats *stats(struct pl_attempt *attempt)
{
    struct play *self = of(attempt);
    if (self->state != STATE_ENDED)
        self->stats.total_ms = since_start_ms(self);
    return &self->stats;
}

const struct pl_transport pl_stage_transport = {.start = start,
                                                .cancel = cancel,
                                                .pause = pause_reading,
                                                .resume = resume,
                                                .is_sent = is_sent,
                                                .head = head,
                                                .stats = stats};
