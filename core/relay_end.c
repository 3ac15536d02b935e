/*
 * Relay, how an answer ends: see relay.h. How a stream has ended is up to what it says. It is whole
 * with its terminal event, or when the answer in it is finished: then the terminal event is added.
 * Without either it was cut, however cleanly its connection ended. Where its API is not known, the
 * connection decides.
 */
#include "log.h"
#include "relay.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum pl_failure pl_relay_failure_of_break(const struct pl_request *self)
{
    return self->reader->broke == PL_RELAY_SAYS_ERROR ? PL_FAIL_SERVER_ERROR : PL_FAIL_NONE;
}

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
    return pl_relay_events(self, "\n\n", 2);
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
    pl_try_note_cut(self->current);
    pl_relay_break_off(self, self->current->target, failure);
}

/* It parts ways, and nobody could be asked to go on: the client hears of the break before. */
static void end_parted(struct pl_request *self)
{
    const struct pl_relay_reader *reader = self->reader;
    pl_relay_note_break(self, PL_FAIL_NONE);
    pl_try_leave(self->current); /* it has not failed */
    self->current->response.failure = reader->seam_failure;
    pl_relay_break_off(self, reader->seam_target, reader->seam_failure);
}

static void end_broken(struct pl_request *self, enum pl_failure failure)
{
    if (failure == PL_FAIL_NONE && !pl_relay_can_go_on(self))
        end_parted(self);
    else
        pl_relay_open_seam(self, failure);
}

/* False: an event has said that it goes no further. */
static bool goes_on(const struct pl_request *self)
{
    return !self->reader || self->reader->broke == PL_RELAY_GOES_ON;
}

/* What parts ways behind a finished answer does not matter any more. */
static bool is_broken_by_itself(const struct pl_request *self)
{
    const struct pl_relay_reader *reader = self->reader;
    return !goes_on(self) && !(reader->broke == PL_RELAY_PARTED && reader->rescue.seen_finish);
}

void pl_relay_end(struct pl_request *self, enum pl_failure failure)
{
    struct pl_response *response = &self->current->response;
    struct pl_str terminal = PL_STR("");
    bool is_stream = response->is_sse && response->status < 400; /* an error is sent as it came */
    if (is_stream && goes_on(self) && !pass_last_line(self, failure))
        failure = pl_relay_failure_of_break(self);
    pl_timer_stop(&self->current->gate_timer);
    self->current->watches_silence = false;
    if (is_broken_by_itself(self)) {
        end_broken(self, failure);
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
    pl_relay_end(self, pl_relay_failure_of_break(self));
}

void pl_request_relay_done(struct pl_request *self, enum pl_failure failure)
{
    pl_try_cancel(self->current);
    pl_relay_end(self, failure);
    pl_request_wake(self, PL_WAIT_RELAY);
}
