/*
 * Relay of streams: see relay.h. Passed on event by event: bytes after the last whole event are
 * kept back, so that when the upstream is cut, what the client has is well-formed and an error
 * event, or another target's events, can follow. Unread streams keep a copy of their last events,
 * from which relay_end.c tells what kind of an end theirs was.
 */
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
    bool is_plain = try->reads_usage && !try->usage.met_usage && !try->hidden_ends_in_cr;
    if (!try->hides_usage || is_plain || len == 0) {
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
        self->tail_cap = (uint16_t)PL_MIN((kept + part + 63) / 64 * 64, (size_t)PL_TAIL_MAX_BYTES);
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
    else
        self->current->usage.met_usage = false; /* its event has passed */
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
    if (whole > 0) /* how it ends is told from its last events, as that of others */
        keep_tail(&self->current->response, data, whole);
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
    if (from == len)
        self->current->usage.met_usage = false; /* its event has passed */
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

bool pl_relay_events(struct pl_request *self, const char *data, size_t len)
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

void pl_request_relay_bytes(struct pl_request *self, const char *data, size_t len)
{
    if (!self->current->response.is_sse)
        pl_relay_write(self, data, len);
    else if (!pl_relay_events(self, data, len))
        pl_request_relay_done(self, pl_relay_failure_of_break(self));
}
