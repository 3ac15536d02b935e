/*
 * Relay of streams: see relay.h. Passed on event by event: bytes after the last whole event are
 * kept back, so that when the upstream is cut, what the client has is well-formed and an error
 * event, or another target's events, can follow.
 *
 * How a stream has ended is up to what it says. It is whole with its terminal event, or when the
 * answer in it is finished: then the terminal event is added. Without either it was cut, however
 * cleanly its connection ended. Unread streams keep the bytes of their last events for that; where
 * their API is not known, the connection decides.
 */
#include "log.h"
#include "relay.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- to the client --------------------------------------------------------------------------- */

static void pause_for_client(struct pl_request *self)
{
    struct pl_try *try = self->current;
    if (try->attempt && !try->paused) {
        try->paused = true;
        self->runtime->transport->pause(try->attempt);
    }
}

void pl_relay_write(struct pl_request *self, const char *data, size_t len)
{
    pl_request_note_answer(self, data, len);
    if (len > 0 && !pl_exchange_write(self->exchange, data, len))
        pause_for_client(self);
}

void pl_relay_write_held(struct pl_request *self, size_t len)
{
    struct evbuffer *held = self->current->response.held;
    while (len > 0) {
        struct evbuffer_iovec piece;
        if (evbuffer_peek(held, (ev_ssize_t)len, NULL, &piece, 1) < 1)
            return;
        size_t part = PL_MIN(piece.iov_len, len);
        pl_relay_write(self, piece.iov_base, part);
        evbuffer_drain(held, part);
        len -= part;
    }
}

/* Passes on whole events, but for the one with token counts that only we have asked for. */
static void write_events(struct pl_request *self, const char *data, size_t len)
{
    struct pl_try *try = self->current;
    size_t at = 0, from = 0;
    if (!try->hides_usage || len == 0) {
        pl_relay_write(self, data, len);
        return;
    }
    if (try->hidden_ends_in_cr && data[0] == '\n')
        at = from = 1;
    try->hidden_ends_in_cr = false;
    while (at < len) {
        size_t part = pl_usage_event_length(data + at, len - at);
        if (pl_usage_event_is_extra(data + at, part)) {
            pl_relay_write(self, data + from, at - from);
            from = at + part;
            try->hidden_ends_in_cr = from == len && data[from - 1] == '\r';
        }
        at += part;
    }
    pl_relay_write(self, data + from, len - from);
}

/* The same of the first `len` held bytes. */
static void write_held_events(struct pl_request *self, size_t len)
{
    struct evbuffer *held = self->current->response.held;
    if (!self->current->hides_usage || len == 0) {
        pl_relay_write_held(self, len);
        return;
    }
    const char *data = (const char *)evbuffer_pullup(held, (ev_ssize_t)len);
    if (!data)
        abort();
    write_events(self, data, len);
    evbuffer_drain(held, len);
}

size_t pl_relay_held_bytes(const struct pl_response *response)
{
    return response->held ? evbuffer_get_length(response->held) : 0;
}

void pl_relay_drop_held(struct pl_response *response)
{
    if (response->held)
        evbuffer_free(response->held);
    response->held = NULL;
}

/* ---- unread events --------------------------------------------------------------------------- */

/* Of bytes that are too many for it the last ones are kept. */
static void add_to_tail(struct pl_response *self, const char *data, size_t len)
{
    size_t part = PL_MIN(len, (size_t)PL_TAIL_MAX_BYTES);
    size_t kept = PL_MIN((size_t)self->tail_len, PL_TAIL_MAX_BYTES - part);
    if (kept + part > self->tail_cap) {
        self->tail_cap = (uint16_t)PL_MAX(kept + part, (size_t)512);
        self->tail = pl_xrealloc(self->tail, self->tail_cap);
    }
    memmove(self->tail, self->tail + self->tail_len - kept, kept);
    memcpy(self->tail + kept, data + len - part, part);
    self->tail_is_cut |= part < len || kept < self->tail_len;
    self->tail_len = (uint16_t)(kept + part);
}

/* The last whole events: those in `data`, the first of which may have begun in what is held. */
static void keep_tail(struct pl_response *self, const char *data, size_t len)
{
    struct evbuffer_iovec piece;
    if (!self->held && len <= self->tail_cap) { /* nearly always */
        memcpy(self->tail, data, len);
        self->tail_len = (uint16_t)len;
        self->tail_is_cut = false;
        return;
    }
    self->tail_len = 0;
    self->tail_is_cut = false;
    if (self->held && evbuffer_peek(self->held, -1, NULL, &piece, 1) > 0) {
        add_to_tail(self, piece.iov_base, piece.iov_len);
        self->tail_is_cut |= piece.iov_len < evbuffer_get_length(self->held);
    }
    add_to_tail(self, data, len);
}

static void hold(struct pl_request *self, const char *data, size_t len)
{
    struct pl_response *response = &self->current->response;
    if (len > 0)
        pl_response_hold(response, data, len);
    /* an event too large to keep: from here on its bytes pass as they come */
    if (pl_relay_held_bytes(response) > PL_EVENT_MAX_BYTES)
        pl_relay_write_held(self, pl_relay_held_bytes(response));
}

/* Of `data` the first `whole` bytes end an event. */
static void pass_events(struct pl_request *self, const char *data, size_t len, size_t whole)
{
    struct pl_response *response = &self->current->response;
    if (whole > 0 && self->current->hides_usage && pl_relay_held_bytes(response) > 0) {
        pl_response_hold(response, data, whole);
        write_held_events(self, pl_relay_held_bytes(response));
        pl_relay_drop_held(response);
    } else if (whole > 0) {
        pl_relay_write_held(self, pl_relay_held_bytes(response));
        pl_relay_drop_held(response);
        write_events(self, data, whole);
    }
    if (whole < len)
        hold(self, data + whole, len - whole);
}

/* ---- events that are read -------------------------------------------------------------------- */

/* What is held, and `data` behind it, as one. Valid until something is held or dropped. */
static struct pl_str with_held(struct pl_response *response, const char *data, size_t len)
{
    if (pl_relay_held_bytes(response) == 0)
        return (struct pl_str){data, len};
    pl_response_hold(response, data, len);
    const char *all = (const char *)evbuffer_pullup(response->held, -1);
    if (!all)
        abort();
    return (struct pl_str){all, evbuffer_get_length(response->held)};
}

/* False: the stream goes no further. */
static bool take_error(struct pl_request *self, struct pl_str bytes)
{
    struct pl_relay_reader *reader = self->reader;
    if (pl_relay_can_go_on(self)) {
        reader->broke = PL_RELAY_SAYS_ERROR;
        pl_relay_keep_error(self, bytes);
        return false;
    }
    reader->has_passed_error = true;
    write_events(self, bytes.data, bytes.len);
    return true;
}

static bool take_event(struct pl_request *self, struct pl_str bytes)
{
    struct pl_relay_reader *reader = self->reader;
    const struct pl_rescue *rescue = &reader->rescue;
    switch (pl_rescue_take(&reader->rescue, pl_events_name(&reader->events),
                           pl_events_data(&reader->events))) {
    case PL_RESCUE_PASS:
        write_events(self, bytes.data, bytes.len);
        break;
    case PL_RESCUE_REPLACED:
        write_events(self, rescue->out.data, rescue->out.len);
        break;
    case PL_RESCUE_MALFORMED:
        pl_try_entry(self->current)->malformed_event_count++;
        if (!self->gate.drops_malformed)
            write_events(self, bytes.data, bytes.len);
        break;
    case PL_RESCUE_ERROR:
        return take_error(self, bytes);
    case PL_RESCUE_PARTED:
        reader->broke = PL_RELAY_PARTED;
        return false;
    }
    return true;
}

/* From here on events pass unread: there is one that is too large. */
static bool stop_reading(struct pl_request *self, const char *data, size_t len, size_t whole)
{
    struct pl_relay_reader *reader = self->reader;
    if (reader->rescue.part_count > 1) {
        reader->broke = PL_RELAY_PARTED;
        return false;
    }
    reader->reads = false;
    pl_rescue_refuse(&reader->rescue, PL_RESCUE_TOO_LONG);
    pass_events(self, data, len, whole);
    return true;
}

static bool read_events(struct pl_request *self, const char *data, size_t len, size_t whole)
{
    struct pl_relay_reader *reader = self->reader;
    struct pl_response *response = &self->current->response;
    enum pl_events_found found = PL_EVENTS_BLANK;
    size_t from = 0;
    while (from < len) {
        size_t at = from + pl_events_next(&reader->events, data + from, len - from, &found);
        if (found == PL_EVENTS_MORE)
            break;
        if (found == PL_EVENTS_TOO_LARGE)
            return stop_reading(self, data + from, len - from, whole > from ? whole - from : 0);
        struct pl_str bytes = with_held(response, data + from, at - from);
        bool goes_on = true;
        if (found == PL_EVENTS_EVENT)
            goes_on = take_event(self, bytes);
        else
            pl_relay_write(self, bytes.data, bytes.len);
        pl_relay_drop_held(response);
        if (!goes_on)
            return false;
        from = at;
    }
    hold(self, data + from, len - from);
    if (reader->keeps_request && reader->rescue.obstacle != PL_RESCUE_NO_OBSTACLE) {
        reader->keeps_request = false;
        pl_relay_release(self);
    }
    return true;
}

/* ---- bytes of the upstream ------------------------------------------------------------------- */

/* Comments and halves of events keep a connection alive, but not an answer. */
static void watch_silence(struct pl_try *self)
{
    uint32_t idle_ms = self->target->limits.idle_ms;
    if (idle_ms == 0 || self->watches_silence)
        return;
    uint64_t silent_ms = pl_last_now_ms() - self->event_ms;
    self->watches_silence = true;
    pl_timer_start_ms(&self->gate_timer, silent_ms < idle_ms ? idle_ms - silent_ms : 0);
}

void pl_try_check_silence(struct pl_try *self)
{
    struct pl_request *request = self->request;
    uint32_t idle_ms = self->target->limits.idle_ms;
    char detail[80];
    self->watches_silence = false;
    if (self->paused)
        self->event_ms = pl_last_now_ms();
    if (pl_last_now_ms() - self->event_ms < idle_ms) {
        watch_silence(self);
        return;
    }
    snprintf(detail, sizeof(detail), "no event for %u ms", idle_ms);
    pl_response_explain(&self->response, detail);
    pl_request_relay_done(request, PL_FAIL_TIMEOUT_IDLE);
}

static bool relay_events(struct pl_request *self, const char *data, size_t len)
{
    struct pl_try *try = self->current;
    struct pl_response *response = &try->response;
    uint64_t count = response->sse.event_count;
    size_t whole = pl_sse_feed(&response->sse, data, len);
    bool has_event = response->sse.event_count != count;
    if (has_event)
        try->event_ms = pl_last_now_ms();
    else
        watch_silence(try);
    if (self->reader && self->reader->reads)
        return read_events(self, data, len, whole);
    if (has_event)
        keep_tail(response, data, whole);
    pass_events(self, data, len, whole);
    return true;
}

bool pl_relay_pass_held(struct pl_request *self, size_t whole)
{
    struct pl_response *response = &self->current->response;
    self->current->event_ms = pl_last_now_ms();
    struct evbuffer *held = response->held;
    size_t len = pl_relay_held_bytes(response);
    if (len == 0)
        return true;
    const char *data = (const char *)evbuffer_pullup(held, -1);
    if (!data)
        abort();
    bool goes_on = true;
    response->held = NULL;
    if (self->reader && self->reader->reads) {
        goes_on = read_events(self, data, len, whole);
    } else {
        if (response->sse.seen_data)
            keep_tail(response, data, whole);
        pass_events(self, data, len, whole);
    }
    evbuffer_free(held);
    return goes_on;
}

static enum pl_failure failure_of_break(const struct pl_request *self)
{
    return self->reader->broke == PL_RELAY_SAYS_ERROR ? PL_FAIL_SERVER_ERROR : PL_FAIL_NONE;
}

void pl_request_relay_bytes(struct pl_request *self, const char *data, size_t len)
{
    if (!self->current->response.is_sse)
        pl_relay_write(self, data, len);
    else if (!relay_events(self, data, len))
        pl_request_relay_done(self, failure_of_break(self));
}

/* ---- the end --------------------------------------------------------------------------------- */

static bool is_timeout(enum pl_failure failure)
{
    return failure >= PL_FAIL_TIMEOUT_CONNECT && failure <= PL_FAIL_TIMEOUT_DEADLINE;
}

static void write_error_event(struct pl_request *self, const struct pl_target *target,
                              enum pl_failure failure)
{
    char message[256];
    snprintf(message, sizeof(message), "The stream from %s ended early: %s", target->name,
             pl_failure_name(failure));
    struct pl_client_error error = {.status = is_timeout(failure) ? 504 : 502,
                                    .message = pl_str_of(message),
                                    .code = pl_failure_name(failure),
                                    .request_id = self->id};
    size_t len;
    char *event =
        pl_client_error_event(self->dialect, &error, self->current->response.sse.event_count, &len);
    pl_relay_write(self, event, len);
    free(event);
}

/* The upstream's own: it is enough. */
static bool has_passed_error(const struct pl_request *self)
{
    const struct pl_relay_reader *reader = self->reader;
    return reader && reader->reads ? reader->has_passed_error
                                   : self->current->response.sse.seen_error;
}

void pl_relay_break_off(struct pl_request *self, const struct pl_target *target,
                        enum pl_failure failure)
{
    struct pl_exchange *exchange = self->exchange;
    const struct pl_response *response = &self->current->response;
    bool has_said = !self->at_seam && has_passed_error(self);
    if ((response->is_sse || self->at_seam) && !has_said)
        write_error_event(self, target, failure);
    self->broken = true;
    snprintf(self->reason, sizeof(self->reason), "%s", pl_failure_name(failure));
    self->exchange = NULL;
    pl_exchange_abort(exchange, false);
}

/* Whether the answer is whole, by what it says; `form` gets what the terminal event depends on. */
static enum pl_rescue_ending judge_ending(const struct pl_request *self, enum pl_rescue_form *form)
{
    static const char ongoing[] = "\"finish_reason\":null"; /* in an event too large for the tail */
    const struct pl_response *response = &self->current->response;
    const struct pl_relay_reader *reader = self->reader;
    if (reader && reader->reads) {
        const struct pl_rescue *rescue = &reader->rescue;
        *form = rescue->form;
        if (rescue->seen_finish || rescue->seen_terminal)
            return PL_RESCUE_ENDING_FINISHED;
        return rescue->form == PL_RESCUE_FORM_UNKNOWN ? PL_RESCUE_ENDING_UNKNOWN
                                                      : PL_RESCUE_ENDING_UNFINISHED;
    }
    struct pl_str tail = {response->tail, response->tail_len};
    enum pl_rescue_ending ending = pl_rescue_judge_ending(tail, form);
    bool goes_on = ending == PL_RESCUE_ENDING_UNKNOWN && response->tail_is_cut &&
                   memmem(tail.data, tail.len, ongoing, sizeof(ongoing) - 1);
    return goes_on ? PL_RESCUE_ENDING_UNFINISHED : ending;
}

static bool has_terminal(const struct pl_request *self)
{
    const struct pl_relay_reader *reader = self->reader;
    return reader && reader->reads ? reader->rescue.seen_terminal
                                   : self->current->response.sse.seen_terminal;
}

/* How a stream has ended, after all. `terminal` gets the event that it lacks. */
static enum pl_failure end_of_stream(const struct pl_request *self, enum pl_failure failure,
                                     struct pl_str *terminal)
{
    const struct pl_response *response = &self->current->response;
    enum pl_rescue_form form;
    if (has_passed_error(self))
        return failure != PL_FAIL_NONE ? failure : PL_FAIL_SERVER_ERROR;
    if (has_terminal(self))
        return PL_FAIL_NONE;
    enum pl_rescue_ending ending = judge_ending(self, &form);
    if (ending == PL_RESCUE_ENDING_FINISHED) {
        *terminal = pl_rescue_terminal(form);
        return PL_FAIL_NONE;
    }
    bool is_cut = ending == PL_RESCUE_ENDING_UNFINISHED || response->framing == PL_FRAMING_EOF;
    return failure == PL_FAIL_NONE && is_cut ? PL_FAIL_TRUNCATED : failure;
}

/* The last line may lack its end; what only a close has ended may have been cut in it. */
static bool pass_last_line(struct pl_request *self, enum pl_failure failure)
{
    const struct pl_response *response = &self->current->response;
    if (failure != PL_FAIL_NONE || response->framing == PL_FRAMING_EOF ||
        pl_relay_held_bytes(response) == 0)
        return true;
    return relay_events(self, "\n\n", 2);
}

static void end_well(struct pl_request *self, struct pl_str terminal)
{
    struct pl_exchange *exchange = self->exchange;
    pl_try_leave(self->current);
    pl_relay_write(self, terminal.data, terminal.len);
    self->exchange = NULL;
    pl_exchange_end(exchange);
}

static void end_badly(struct pl_request *self, enum pl_failure failure)
{
    const struct pl_response *response = &self->current->response;
    struct pl_trail_entry *entry = pl_try_entry(self->current);
    pl_try_leave(self->current);
    pl_log(PL_LOG_WARN, "request %s: answer of %s broke off: %s %s", self->id,
           self->current->target->name, pl_failure_name(failure),
           response->detail ? response->detail : "");
    entry->failure = failure;
    entry->class = pl_request_class_of(failure);
    pl_relay_break_off(self, self->current->target, failure);
}

/* An event has said that it goes no further. */
static bool is_broken_by_itself(const struct pl_request *self)
{
    return self->reader && self->reader->broke != PL_RELAY_GOES_ON;
}

void pl_relay_end(struct pl_request *self, enum pl_failure failure)
{
    struct pl_response *response = &self->current->response;
    struct pl_str terminal = PL_STR("");
    bool is_stream = response->is_sse && response->status < 400; /* an error is sent as it came */
    bool is_broken = is_broken_by_itself(self);
    if (is_stream && !is_broken && !pass_last_line(self, failure)) {
        is_broken = true;
        failure = failure_of_break(self);
    }
    pl_timer_stop(&self->current->gate_timer);
    self->current->watches_silence = false;
    if (is_broken) {
        pl_relay_open_seam(self, failure);
        return;
    }
    if (is_stream)
        failure = end_of_stream(self, failure, &terminal);
    else if (failure == PL_FAIL_NONE)
        pl_relay_write_held(self, pl_relay_held_bytes(response));
    response->failure = failure;
    if (failure == PL_FAIL_NONE)
        end_well(self, terminal);
    else if (pl_relay_can_go_on(self))
        pl_relay_open_seam(self, failure);
    else
        end_badly(self, failure);
}

void pl_relay_end_broken(struct pl_request *self)
{
    pl_relay_end(self, failure_of_break(self));
}

void pl_request_relay_done(struct pl_request *self, enum pl_failure failure)
{
    pl_try_cancel(self->current);
    pl_relay_end(self, failure);
    pl_request_wake(self, PL_WAIT_RELAY);
}
