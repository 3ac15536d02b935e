/*
 * Send: one try of a request, see request.h. Starts it, and keeps the answer until the policy has
 * judged it; each try's outcome goes to the health of its target.
 */
#include "keys.h"
#include "log.h"
#include "request.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ------------------------------------------------------------------------------------ */

static void on_gate_timer(void *arg);

void pl_try_init(struct pl_try *self, struct pl_request *request)
{
    struct pl_runtime *runtime = request->runtime;
    *self = (struct pl_try){.request = request, .trail_index = PL_NO_TRAIL_ENTRY};
    pl_json_splice_init(&self->splice);
    pl_headers_init(&self->response.headers);
    pl_timer_init(&self->gate_timer, runtime->base, runtime->timeline, on_gate_timer, self);
}

void pl_try_deinit(struct pl_try *self)
{
    assert(!self->attempt && !self->place.of);
    pl_json_splice_deinit(&self->splice);
    pl_headers_deinit(&self->response.headers);
    free(self->response.detail);
    free(self->response.tail);
    pl_rescue_text_deinit(&self->prefix);
    free(self->stream_options);
    free(self->head);
    free(self->pieces);
}

static const struct pl_transport *transport_of(const struct pl_try *self)
{
    return self->request->runtime->transport;
}

/* ---- the trail ------------------------------------------------------------------------------ */

struct pl_trail_entry *pl_try_entry(const struct pl_try *self)
{
    return self->trail_index == PL_NO_TRAIL_ENTRY ? NULL : &self->request->trail[self->trail_index];
}

/* 502 and 504 come from between: who says so does not know what its own upstream did. */
static enum pl_work work_of_status(int status)
{
    if (status < 300 || status == 304)
        return PL_WORK_NONE;
    return status == 502 || status == 504 ? PL_WORK_UNCERTAIN : PL_WORK_REFUSED;
}

/* Of a good answer that broke off. What is gated has not said anything yet. */
static enum pl_work work_of_cut(const struct pl_try *self)
{
    bool has_begun = self->response.status > 0 && self->response.status < 300 &&
                     self->so_far.body_bytes > 0 && self->response.intake != PL_INTAKE_GATED;
    return has_begun ? PL_WORK_PARTLY_GENERATED : PL_WORK_UNCERTAIN;
}

static enum pl_work work_of_failure(const struct pl_try *self, enum pl_failure failure)
{
    if (failure >= PL_FAIL_RATE_LIMITED && failure <= PL_FAIL_SERVER_ERROR)
        return PL_WORK_REFUSED; /* an error in place of an answer */
    if (!self->so_far.sent)
        return PL_WORK_NOT_SENT;
    /* these say that it had no content, however much has come */
    if (failure == PL_FAIL_EMPTY || failure == PL_FAIL_MALFORMED)
        return PL_WORK_UNCERTAIN;
    return work_of_cut(self);
}

/* Writes the try down as ended with that status or failure. */
static struct pl_trail_entry *add_trail(struct pl_try *self, int status, enum pl_failure failure)
{
    struct pl_request *request = self->request;
    if (request->trail_count == request->trail_cap) {
        request->trail_cap = request->trail_cap ? request->trail_cap * 2 : 1;
        request->trail = pl_xrealloc(request->trail, request->trail_cap * sizeof(*request->trail));
    }
    self->trail_index = request->trail_count++;
    struct pl_trail_entry *entry = pl_try_entry(self);
    *entry = self->so_far;
    entry->target = self->target;
    entry->status = status;
    entry->failure = failure;
    entry->class =
        failure != PL_FAIL_NONE ? pl_request_class_of(failure) : pl_class_of_status(status);
    entry->work = failure != PL_FAIL_NONE ? work_of_failure(self, failure) : work_of_status(status);
    entry->start_ms = (uint32_t)(self->start_ms - request->start_ms);
    entry->duration_ms = entry->total_ms = (uint32_t)(pl_last_now_ms() - self->start_ms);
    return entry;
}

/* What the attempt knows of itself, while it is there to be asked. */
static void ask_attempt(struct pl_try *self)
{
    const struct pl_attempt_stats *stats = transport_of(self)->stats(self->attempt);
    struct pl_trail_entry *so_far = &self->so_far;
    so_far->reused = stats->reused;
    so_far->sent = stats->request_sent;
    so_far->connect_ms = stats->reused || !stats->request_sent ? PL_UNKNOWN_MS : stats->connect_ms;
    so_far->body_bytes = stats->body_bytes;
}

void pl_try_note_cut(struct pl_try *self)
{
    struct pl_trail_entry *entry = pl_try_entry(self);
    if (entry->work == PL_WORK_NONE)
        entry->work = entry->sent ? work_of_cut(self) : PL_WORK_NOT_SENT;
}

/* It is over, some time after it was judged. */
static void close_trail(struct pl_try *self, bool is_whole)
{
    if (!self->trail_is_open)
        return;
    struct pl_trail_entry *entry = pl_try_entry(self);
    entry->total_ms = (uint32_t)(pl_last_now_ms() - self->start_ms);
    entry->body_bytes = self->so_far.body_bytes;
    self->trail_is_open = false;
    if (!is_whole)
        pl_try_note_cut(self);
}

void pl_try_abandon(struct pl_try *self, enum pl_class class)
{
    ask_attempt(self);
    add_trail(self, 0, PL_FAIL_NONE)->class = class;
    self->trail_is_open = true;
}

/* ---- the answer ----------------------------------------------------------------------------- */

/* The one that comes next is another, for Lua, too. */
static void reset_response(struct pl_try *self)
{
    struct pl_response *response = &self->response;
    if (response->held)
        evbuffer_free(response->held);
    response->held = NULL;
    pl_gate_deinit(&response->gate);
    response->error = PL_STR("");
    response->held_whole_bytes = 0;
    response->live = false;
    response->intake = PL_INTAKE_HELD;
    response->status = 0;
    response->complete = false;
    response->failure = PL_FAIL_NONE;
    free(response->detail);
    response->detail = NULL;
    free(response->tail);
    response->tail = NULL;
    response->tail_len = response->tail_cap = 0;
    response->tail_is_cut = false;
    response->serial = ++self->request->answer_serial;
}

void pl_response_explain(struct pl_response *self, const char *detail)
{
    if (!self->detail && detail[0] != '\0')
        self->detail = pl_xstrdup(detail);
}

void pl_try_cancel(struct pl_try *self)
{
    if (self->attempt) {
        ask_attempt(self);
        transport_of(self)->cancel(self->attempt);
        pl_timer_stop(&self->gate_timer);
    }
    close_trail(self, false);
    self->attempt = NULL;
    self->paused = false;
}

void pl_try_drop(struct pl_try *self)
{
    pl_try_cancel(self);
    pl_try_leave(self);
    reset_response(self);
    free(self->stream_options);
    self->stream_options = NULL;
    self->trail_index = PL_NO_TRAIL_ENTRY;
    self->is_judged = self->key_is_marked = self->is_unsettled = false;
}

void pl_request_drop_answer(struct pl_request *self)
{
    struct pl_try *try = self->current;
    if (try->attempt && !try->is_judged) /* it is given up before it told anything */
        pl_try_abandon(try, PL_CLASS_NONE);
    /* the client has had nothing of it: the counts are those of the parts that it has had */
    if (self->at_seam && pl_try_entry(try) && try->response.intake != PL_INTAKE_RELAYING)
        pl_try_forget_usage(try);
    pl_hedge_abandon(self);
    pl_try_drop(try);
}

/* Its policy can judge it; and does, when it waits for that. */
static void judged(struct pl_try *self)
{
    struct pl_request *request = self->request;
    self->is_judged = true;
    if (request->wait == PL_WAIT_ANSWER && request->current != self)
        pl_hedge_turn(request);
    pl_request_wake(request, PL_WAIT_ANSWER);
}

static void end_without_answer(struct pl_try *self, enum pl_failure failure, const char *detail)
{
    struct pl_response *response = &self->response;
    struct pl_trail_entry *entry = pl_try_entry(self);
    if (!entry->detail && detail[0] != '\0')
        entry->detail = pl_xstrdup(detail);
    response->live = false;
    response->failure = failure;
    pl_response_explain(response, detail);
    pl_timer_stop(&self->gate_timer);
}

static void end_as_failed(struct pl_try *self, enum pl_failure failure, const char *detail)
{
    (void)add_trail(self, 0, failure);
    self->is_unsettled = self->request->gate.settles && failure != PL_FAIL_TIMEOUT_DEADLINE;
    if (!self->is_unsettled) {
        pl_try_report_failure(self, failure);
        pl_try_leave(self);
    }
    end_without_answer(self, failure, detail);
}

void pl_try_fail_quietly(struct pl_try *self, enum pl_failure failure, const char *detail)
{
    pl_try_cancel(self);
    end_as_failed(self, failure, detail);
    self->is_judged = true;
}

/* The try ended without an answer that could be judged. */
static void fail(struct pl_try *self, enum pl_failure failure, const char *detail)
{
    end_as_failed(self, failure, detail);
    judged(self);
}

static uint32_t first_token_ms(const struct pl_try *self)
{
    return self->response.is_sse ? pl_try_entry(self)->duration_ms : self->response.head_ms;
}

static void leave_at_end(struct pl_try *self)
{
    if (!self->attempt)
        pl_try_leave(self);
}

void pl_request_settle_class(struct pl_request *self, enum pl_class class)
{
    struct pl_try *try = self->current;
    struct pl_trail_entry *entry = pl_try_entry(try);
    if (!try->is_unsettled || !entry)
        return;
    try->is_unsettled = false;
    if (entry->status > 0 && (class == PL_CLASS_OK || class == pl_class_of_status(entry->status)))
        pl_try_report_status(try, class == PL_CLASS_OK ? 200 : entry->status, first_token_ms(try));
    else
        pl_try_report_class(try, class, entry->status > 0);
    entry->class = class;
    leave_at_end(try);
}

/* There is an answer to judge. */
static void have_answer(struct pl_try *self)
{
    struct pl_response *response = &self->response;
    if (response->intake == PL_INTAKE_GATED)
        pl_gate_deinit(&response->gate);
    if (response->intake == PL_INTAKE_GATED || self->answer_by_ms > 0)
        pl_timer_stop(&self->gate_timer);
    self->timer_cuts = false;
    if (response->intake != PL_INTAKE_COLLECTING)
        response->intake = PL_INTAKE_HELD;
    if (self->attempt)
        ask_attempt(self);
    struct pl_trail_entry *entry = add_trail(self, response->status, PL_FAIL_NONE);
    self->trail_is_open = self->attempt != NULL;
    if (response->is_sse)
        entry->first_token_ms = entry->duration_ms;
    self->is_unsettled = self->request->gate.settles;
    if (!self->is_unsettled) {
        pl_try_report_status(self, response->status, first_token_ms(self));
        leave_at_end(self);
    }
    judged(self);
}

static void cancel_and_fail(struct pl_try *self, enum pl_failure failure, const char *detail)
{
    pl_try_cancel(self);
    fail(self, failure, detail);
}

/* An error in place of an answer: Lua tells its class, as it does for the bodies of errors. */
static void fail_for_error(struct pl_try *self, struct pl_str error)
{
    pl_try_cancel(self);
    (void)add_trail(self, 0, PL_FAIL_SERVER_ERROR);
    self->response.error = error.len > 0 ? error : PL_STR("{}");
    end_without_answer(self, PL_FAIL_SERVER_ERROR, "an error in place of an answer");
    judged(self);
}

void pl_request_settle_error(struct pl_request *self, enum pl_failure failure)
{
    struct pl_try *try = self->current;
    if (try->response.error.len == 0)
        return;
    struct pl_trail_entry *entry = pl_try_entry(try);
    try->response.error = PL_STR("");
    try->response.failure = failure;
    entry->failure = failure;
    entry->class = pl_request_class_of(failure);
    pl_request_learn_of_break(self, failure);
    if (!try->place.good) /* else that is how the answer ended: leaving tells it */
        pl_try_report_failure(try, failure);
    pl_try_leave(try);
}

/* ---- its time -------------------------------------------------------------------------------- */

/* No content came within the first-token limit, or no answer within what the try was given. */
static void on_gate_timer(void *arg)
{
    (void)pl_now_ms();
    struct pl_try *self = arg;
    char detail[80];
    if (self->watches_silence) {
        pl_try_check_silence(self);
        return;
    }
    self->cut = self->timer_cuts;
    if (self->cut) {
        snprintf(detail, sizeof(detail), "no answer within the %u ms that it was given",
                 (unsigned)(self->answer_by_ms - self->start_ms));
        cancel_and_fail(self, PL_FAIL_TIMEOUT_TRY, detail);
        return;
    }
    snprintf(detail, sizeof(detail), "no content within %u ms",
             self->target->limits.first_token_ms);
    cancel_and_fail(self, PL_FAIL_TIMEOUT_FIRST_TOKEN, detail);
}

/* Runs the timer until a limit, 0 for none, or until the answer must have begun. */
static void arm_gate_timer(struct pl_try *self, uint64_t limit_ms)
{
    uint64_t now_ms = pl_last_now_ms();
    uint64_t left_ms = self->answer_by_ms > now_ms ? self->answer_by_ms - now_ms : 0;
    self->timer_cuts = self->answer_by_ms > 0 && (limit_ms == 0 || left_ms <= limit_ms);
    if (self->timer_cuts)
        pl_timer_start_ms(&self->gate_timer, left_ms);
    else if (limit_ms > 0)
        pl_timer_start_ms(&self->gate_timer, limit_ms);
}

/* How soon its answer must begin: as the policy says, else with what is kept for others left over.
 * 0: when it likes. Each is said for one try. */
static uint64_t take_within_ms(struct pl_request *self)
{
    uint64_t left_ms = pl_request_remaining_ms(self);
    uint64_t within_ms = self->within_ms, keep_ms = self->keep_ms;
    self->within_ms = self->keep_ms = 0;
    if (within_ms == 0 && keep_ms > 0)
        within_ms = left_ms > keep_ms + PL_TRY_MIN_MS ? left_ms - keep_ms : PL_TRY_MIN_MS;
    return within_ms < left_ms ? within_ms : 0;
}

static void limit_answer(struct pl_try *self)
{
    uint64_t within_ms = take_within_ms(self->request);
    self->cut = false;
    self->answer_by_ms = within_ms > 0 ? self->start_ms + within_ms : 0;
    if (within_ms > 0)
        arm_gate_timer(self, 0);
}

void pl_request_expire_answer(struct pl_request *self)
{
    static const char detail[] = "the request's deadline has passed";
    struct pl_try *try = self->current;
    if (!try->is_judged) {
        if (self->rival && self->rival->attempt && !self->rival->is_judged)
            pl_try_fail_quietly(self->rival, PL_FAIL_TIMEOUT_DEADLINE, detail);
        cancel_and_fail(try, PL_FAIL_TIMEOUT_DEADLINE, detail);
        return;
    }
    pl_try_cancel(try);
    pl_try_leave(try);
    try->response.failure = PL_FAIL_TIMEOUT_DEADLINE;
    pl_response_explain(&try->response, detail);
    pl_request_wake(self, PL_WAIT_BODY);
}

static void copy_head(struct pl_response *self, const struct pl_response_head *head)
{
    pl_headers_copy(&self->headers, &head->headers);
    self->live = true;
    self->status = head->status;
    self->framing = head->framing;
    /* without a body, too: an answer to HEAD tells the length of the one to GET */
    bool has_length = pl_headers_count(&head->headers, PL_STR("content-length")) > 0;
    self->content_length_bytes = has_length ? (int64_t)head->content_length_bytes : -1;
    self->is_sse = head->framing != PL_FRAMING_NONE && pl_headers_say_events(&self->headers);
    pl_sse_init(&self->sse);
    pl_gate_init(&self->gate);
}

/* ---- the gate ------------------------------------------------------------------------------- */

/* Endpoints whose good answers are JSON with something in it. */
static bool has_checked_path(const struct pl_request *self)
{
    static const struct pl_str ends[] = {PL_STR("/completions"), PL_STR("/responses"),
                                         PL_STR("/messages"), PL_STR("/embeddings")};
    struct pl_str path = pl_exchange_path(self->exchange);
    for (size_t i = 0; i < PL_COUNT(ends); i++) {
        if (path.len >= ends[i].len &&
            memcmp(path.data + path.len - ends[i].len, ends[i].data, ends[i].len) == 0)
            return true;
    }
    return false;
}

static bool checks_body(const struct pl_try *self)
{
    const struct pl_request *request = self->request;
    return request->gate.check_body && self->response.status == 200 && !self->response.is_sse &&
           pl_str_equal(pl_exchange_method(request->exchange), PL_STR("POST")) &&
           has_checked_path(request);
}

static size_t held_bytes(const struct pl_response *self)
{
    return self->held ? evbuffer_get_length(self->held) : 0;
}

/* A stream is one with its first content; when nobody can tell, with so many bytes. */
static void judge_stream(struct pl_try *self, enum pl_gate_verdict verdict)
{
    struct pl_response *response = &self->response;
    uint32_t said_bytes = self->request->gate.max_bytes;
    size_t max_bytes = said_bytes ? said_bytes : PL_HELD_MAX_BYTES;
    switch (verdict) {
    case PL_GATE_WAIT:
        if (held_bytes(response) >= max_bytes)
            have_answer(self);
        break;
    case PL_GATE_MEANINGFUL:
        have_answer(self);
        break;
    case PL_GATE_ERROR:
        fail_for_error(self, pl_gate_data(&response->gate));
        break;
    case PL_GATE_EMPTY:
        cancel_and_fail(self, PL_FAIL_EMPTY, "the stream ended without content");
        break;
    case PL_GATE_MALFORMED:
        cancel_and_fail(self, PL_FAIL_MALFORMED, "the stream holds what is not JSON");
        break;
    }
}

/* The verdict by the first whole event, whatever it says. */
static enum pl_gate_verdict verdict_by_event(const struct pl_response *self)
{
    return self->sse.seen_data ? PL_GATE_MEANINGFUL : PL_GATE_WAIT;
}

static void judge_stream_end(struct pl_try *self)
{
    bool by_event = self->request->gate.on == PL_GATE_ON_EVENT;
    judge_stream(self, by_event ? PL_GATE_EMPTY : pl_gate_end(&self->response.gate));
}

/* The body of a good answer that does not stream is there. */
static void judge_body(struct pl_try *self)
{
    struct pl_response *response = &self->response;
    size_t len = held_bytes(response);
    const char *data = len ? (const char *)evbuffer_pullup(response->held, (ev_ssize_t)len) : "";
    switch (pl_gate_judge_body((struct pl_str){data, len})) {
    case PL_GATE_WAIT:
    case PL_GATE_MEANINGFUL:
        have_answer(self);
        break;
    case PL_GATE_ERROR:
        fail_for_error(self, (struct pl_str){data, PL_MIN(len, (size_t)PL_HELD_MAX_BYTES)});
        break;
    case PL_GATE_EMPTY:
        fail(self, PL_FAIL_EMPTY, "the answer has no content");
        break;
    case PL_GATE_MALFORMED:
        fail(self, PL_FAIL_MALFORMED, "the answer is not JSON");
        break;
    }
}

/* The policy reads that of the try at hand only. */
static void wake_for_body(struct pl_try *self)
{
    if (self == self->request->current)
        pl_request_wake(self->request, PL_WAIT_BODY);
}

/* ---- what the attempt tells ----------------------------------------------------------------- */

static void on_head(struct pl_attempt *attempt, void *arg)
{
    struct pl_try *self = arg;
    struct pl_response *response = &self->response;
    copy_head(response, transport_of(self)->head(attempt));
    response->head_ms = (uint32_t)(pl_last_now_ms() - self->start_ms);
    self->so_far.head_ms = response->head_ms;
    pl_try_read_usage(self);
    bool good = response->status < 300;
    bool is_empty = response->framing == PL_FRAMING_NONE ||
                    (response->framing == PL_FRAMING_LENGTH && response->content_length_bytes == 0);
    bool is_checked = checks_body(self);
    bool asked_for_stream = self->request->stream;
    if (good && is_empty && (asked_for_stream || is_checked)) {
        cancel_and_fail(self, PL_FAIL_EMPTY,
                        asked_for_stream ? "a stream was asked for, the answer has no body"
                                         : "the answer has no body");
        return;
    }
    if (good && response->is_sse && self->request->gate.on != PL_GATE_ON_HEAD) {
        response->intake = PL_INTAKE_GATED;
        arm_gate_timer(self, self->target->limits.first_token_ms);
        return;
    }
    response->intake = is_checked ? PL_INTAKE_CHECKED : PL_INTAKE_HELD;
    if (is_checked)
        return;
    if (response->status < 400 || response->framing == PL_FRAMING_NONE)
        have_answer(self);
    /* an error's body is read first, so that it can be judged by what it says: on_done, on_body */
}

void pl_response_hold(struct pl_response *self, const char *data, size_t len)
{
    if (!self->held)
        self->held = evbuffer_new();
    if (!self->held || evbuffer_add(self->held, data, len) != 0)
        abort();
}

static void hold_events(struct pl_response *self, const char *data, size_t len)
{
    size_t before = self->held ? evbuffer_get_length(self->held) : 0;
    size_t whole = pl_sse_feed(&self->sse, data, len);
    pl_response_hold(self, data, len);
    if (whole > 0)
        self->held_whole_bytes = before + whole;
}

static void on_body(struct pl_attempt *attempt, const char *data, size_t len, void *arg)
{
    struct pl_try *self = arg;
    struct pl_response *response = &self->response;
    if (self->reads_usage)
        pl_usage_scan_feed(&self->usage, data, len);
    if (response->intake == PL_INTAKE_RELAYING) {
        pl_request_relay_bytes(self->request, data, len);
        return;
    }
    if (response->is_sse)
        hold_events(response, data, len);
    else
        pl_response_hold(response, data, len);
    size_t have_bytes = held_bytes(response);
    switch (response->intake) {
    case PL_INTAKE_GATED:
        judge_stream(self, self->request->gate.on == PL_GATE_ON_EVENT
                               ? verdict_by_event(response)
                               : pl_gate_feed(&response->gate, data, len));
        break;
    case PL_INTAKE_CHECKED:
        if (have_bytes <= PL_COLLECT_MAX_BYTES)
            break;
        transport_of(self)->pause(attempt);
        have_answer(self);
        break;
    case PL_INTAKE_HELD:
        if (have_bytes < PL_HELD_MAX_BYTES)
            break;
        transport_of(self)->pause(attempt);
        if (!self->is_judged)
            have_answer(self);
        break;
    case PL_INTAKE_COLLECTING:
        if (have_bytes > PL_COLLECT_MAX_BYTES) {
            transport_of(self)->pause(attempt);
            response->intake = PL_INTAKE_HELD;
            wake_for_body(self);
        }
        break;
    case PL_INTAKE_RELAYING:
        break;
    }
}

static void on_done(struct pl_attempt *attempt, enum pl_failure failure, void *arg)
{
    struct pl_try *self = arg;
    struct pl_response *response = &self->response;
    /* it is the attempt's, which is there until this returns */
    const char *detail = failure != PL_FAIL_NONE ? transport_of(self)->stats(attempt)->detail : "";
    ask_attempt(self);
    close_trail(self, failure == PL_FAIL_NONE);
    self->attempt = NULL;
    if (!response->live) {
        fail(self, failure, detail);
        return;
    }
    bool is_checked = response->intake == PL_INTAKE_CHECKED;
    if (response->intake == PL_INTAKE_GATED && failure == PL_FAIL_NONE) {
        judge_stream_end(self);
        return;
    }
    if (response->intake == PL_INTAKE_GATED || (is_checked && failure != PL_FAIL_NONE)) {
        fail(self, failure, detail);
        return;
    }
    response->complete = failure == PL_FAIL_NONE;
    response->failure = failure;
    pl_response_explain(response, detail);
    if (response->intake == PL_INTAKE_RELAYING) {
        pl_request_relay_done(self->request, failure);
        return;
    }
    if (is_checked) {
        judge_body(self);
        return;
    }
    if (!self->is_judged) {
        have_answer(self);
        return;
    }
    if (!self->is_unsettled)
        pl_try_leave(self);
    wake_for_body(self);
}

static const struct pl_attempt_ops attempt_ops = {
    .on_head = on_head, .on_body = on_body, .on_done = on_done};

/* At a seam: how the target is asked, if its body can be made so. */
static enum pl_resume wanted_resume(const struct pl_try *self)
{
    const struct pl_request *request = self->request;
    if (!request->at_seam)
        return PL_RESUME_NONE;
    return request->resumes_afresh || self->target->refuses_prefix ? PL_RESUME_RESTART
                                                                   : PL_RESUME_CONTINUE;
}

/* That of the place, or, when even force got none, the one whose turn it is. */
static size_t key_index(const struct pl_try *self, const struct pl_provider *provider)
{
    const struct pl_generation *generation = self->request->generation;
    if (self->place.of)
        return self->place.key_index;
    return pl_keys_pick(provider, generation->topology->health,
                        generation->key_turns[self->target->provider_index], pl_last_now_ms());
}

int pl_try_start(struct pl_try *self, const struct pl_target *target)
{
    struct pl_request *request = self->request;
    const struct pl_generation *generation = request->generation;
    const struct pl_provider *provider = &generation->topology->providers[target->provider_index];
    struct pl_attempt_request wanted = {
        .is_head = pl_str_equal(pl_exchange_method(request->exchange), PL_STR("HEAD")),
        .sends_once = target->sends_once,
        .credential_tag = pl_request_credential_tag(request, provider)};
    if (request->trail_count >= PL_TRAIL_MAX)
        return PL_ERR_LIMIT;
    bool reserved = self->place.of == target && !self->place.reported && !self->place.good;
    pl_try_cancel(self);
    /* without a reservation the policy insists: it is let through whatever its health */
    if (!reserved)
        (void)pl_try_admit(self, target, true);
    reset_response(self);
    self->target = target;
    self->start_ms = pl_last_now_ms();
    self->trail_index = PL_NO_TRAIL_ENTRY;
    self->is_judged = self->key_is_marked = self->is_unsettled = false;
    self->watches_silence = false;
    self->resume = wanted_resume(self);
    self->so_far = (struct pl_trail_entry){
        .key = provider->key_count > 0 ? (uint8_t)(key_index(self, provider) + 1) : 0,
        .span_id = generation->topology->traces ? pl_trace_new_span_id() : 0,
        .connect_ms = PL_UNKNOWN_MS,
        .head_ms = PL_UNKNOWN_MS,
        .input_tokens = -1,
        .output_tokens = -1,
        .first_token_ms = PL_UNKNOWN_MS};
    pl_try_forget_usage(self);
    if (pl_try_build(self, &wanted.piece_count) != PL_OK)
        return PL_ERR_SYNTAX;
    self->so_far.resume = self->resume;
    wanted.pieces = self->pieces;
    const struct pl_transport *transport = transport_of(self);
    self->attempt = transport->start(
        transport, generation->pools ? generation->pools[target->provider_index] : NULL, target,
        &wanted, &attempt_ops, self);
    limit_answer(self);
    return PL_OK;
}

static void log_move(const struct pl_request *self, const struct pl_target *target)
{
    const struct pl_trail_entry *last = &self->trail[self->trail_count - 1];
    if (last->target != target && !self->runtime->is_simulator)
        pl_log(PL_LOG_WARN, "request %s: moved from %s to %s: %s", self->id, last->target->name,
               target->name, pl_class_name(last->class));
}

int pl_request_send(struct pl_request *self, const struct pl_target *target)
{
    if (self->trail_count >= PL_TRAIL_MAX)
        return PL_ERR_LIMIT;
    if (self->trail_count > 0)
        log_move(self, target);
    pl_hedge_abandon(self);
    pl_try_cancel(self->current);
    pl_request_free_old_edits(self);
    return pl_try_start(self->current, target);
}

bool pl_request_collect(struct pl_request *self)
{
    struct pl_try *try = self->current;
    struct pl_response *response = &try->response;
    if (self->past_deadline && try->attempt) /* there is no timer left that would end it */
        pl_request_expire_answer(self);
    if (!try->attempt)
        return true;
    if (held_bytes(response) > PL_COLLECT_MAX_BYTES)
        return true;
    response->intake = PL_INTAKE_COLLECTING;
    self->runtime->transport->resume(try->attempt);
    return false;
}
