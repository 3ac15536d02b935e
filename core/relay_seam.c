/*
 * Seams: see relay.h. A relayed stream that breaks off leaves the client's answer open when another
 * target may go on with it. The policy hears of it and sends again; the answer of that try passes
 * the gate as any other, and its events are joined to those that the client has (rescue.h). When
 * the policy gives up, fails, or ends, the client's stream ends in an error.
 *
 * What that costs: the client's request is kept in memory as long as its answer may be rescued, and
 * so is the answer's text.
 */
#include "log.h"
#include "relay.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the reader ------------------------------------------------------------------------------ */

static void heed_request(const struct pl_request *self, struct pl_rescue *rescue)
{
    const struct pl_target *target = self->current->target;
    const struct pl_json *json = &self->json;
    for (size_t i = 0; i < json->count; i++) {
        const struct pl_json_member *member = &json->members[i];
        pl_rescue_heed_field(rescue,
                             (struct pl_str){json->text + member->key_start, member->key_len},
                             (struct pl_str){json->text + member->value_start, member->value_len});
    }
    for (size_t i = 0; i < self->edit_count; i++) {
        if (self->edits[i].value)
            pl_rescue_heed_field(rescue, pl_str_of(self->edits[i].key),
                                 pl_str_of(self->edits[i].value));
    }
    for (size_t i = 0; i < target->edit_count; i++) {
        if (target->edits[i].value.data)
            pl_rescue_heed_field(rescue, target->edits[i].key, target->edits[i].value);
    }
}

void pl_relay_open_reader(struct pl_request *self)
{
    const struct pl_rescue_options *wanted = &self->rescue;
    bool rescues = wanted->max_bytes > 0 && self->body_kind == PL_BODY_JSON &&
                   self->current->response.status == 200;
    if (!rescues && !self->gate.drops_malformed)
        return;
    struct pl_relay_reader *reader = pl_xcalloc(1, sizeof(*reader));
    self->reader = reader;
    reader->reads = true;
    reader->rescues = rescues;
    reader->continues = wanted->continues;
    pl_events_init(&reader->events, PL_RESCUE_EVENT_MAX_BYTES);
    pl_rescue_init(&reader->rescue, rescues ? wanted->max_bytes : 0);
    if (rescues)
        heed_request(self, &reader->rescue);
    reader->keeps_request = pl_rescue_obstacle_now(&reader->rescue) == PL_RESCUE_NO_OBSTACLE;
}

void pl_relay_release(struct pl_request *self)
{
    struct pl_try *try = self->current;
    if (!try->attempt || !self->runtime->transport->is_sent(try->attempt))
        return;
    pl_json_splice_deinit(&try->splice);
    pl_json_splice_init(&try->splice);
    pl_rescue_text_deinit(&try->prefix);
    free(try->head);
    free(try->pieces);
    free(try->stream_options);
    try->stream_options = NULL;
    try->head = NULL;
    try->pieces = NULL;
    try->head_len = try->head_cap = try->piece_cap = 0;
    if (self->reader && self->reader->keeps_request)
        return;
    pl_exchange_forget_request(self->exchange);
    self->body = PL_STR("");
    pl_json_deinit(&self->json);
    pl_json_init(&self->json);
}

static void forget_error(struct pl_relay_reader *self)
{
    free(self->error);
    self->error = NULL;
    self->error_len = 0;
}

void pl_request_add_parts(const struct pl_request *self, int64_t *input, int64_t *output)
{
    pl_rescue_add_parts(&self->reader->rescue, input, output);
}

void pl_request_close_reader(struct pl_request *self)
{
    struct pl_relay_reader *reader = self->reader;
    if (!reader)
        return;
    forget_error(reader);
    pl_events_deinit(&reader->events);
    pl_rescue_deinit(&reader->rescue);
    free(reader);
    self->reader = NULL;
}

void pl_relay_keep_error(struct pl_request *self, struct pl_str event)
{
    struct pl_relay_reader *reader = self->reader;
    forget_error(reader);
    reader->error = pl_xstrndup(event.data, event.len);
    reader->error_len = event.len;
    self->current->response.error = pl_events_data(&reader->events);
}

/* ---- breaking off ---------------------------------------------------------------------------- */

bool pl_relay_can_go_on(const struct pl_request *self)
{
    const struct pl_relay_reader *reader = self->reader;
    return reader && reader->reads && reader->rescues && !self->past_deadline &&
           self->current->response.is_sse && !reader->rescue.seen_finish &&
           !reader->rescue.seen_terminal && !reader->has_passed_error &&
           pl_rescue_obstacle_now(&reader->rescue) == PL_RESCUE_NO_OBSTACLE;
}

void pl_relay_note_break(struct pl_request *self, enum pl_failure failure)
{
    const struct pl_response *response = &self->current->response;
    struct pl_trail_entry *entry = pl_try_entry(self->current);
    if (failure == PL_FAIL_NONE) {
        entry->parted = true;
        pl_log(PL_LOG_WARN, "request %s: %s does not go on from what was said before: left",
               self->id, self->current->target->name);
        return;
    }
    entry->failure = failure;
    entry->class = pl_request_class_of(failure);
    pl_try_note_cut(self->current);
    pl_log(PL_LOG_WARN, "request %s: answer of %s broke off: %s %s, to be rescued", self->id,
           self->current->target->name, pl_failure_name(failure),
           response->detail ? response->detail : "");
}

void pl_relay_open_seam(struct pl_request *self, enum pl_failure failure)
{
    struct pl_relay_reader *reader = self->reader;
    struct pl_response *response = &self->current->response;
    response->failure = failure;
    if (response->error.len == 0) /* else when its class is told */
        pl_try_leave(self->current);
    pl_relay_note_break(self, failure);
    pl_relay_drop_held(response);
    if (failure != PL_FAIL_NONE) {
        reader->seam_target = self->current->target;
        reader->seam_failure = failure;
        if (reader->broke != PL_RELAY_SAYS_ERROR)
            forget_error(reader);
    }
    self->at_seam = true;
    pl_request_start_heartbeats(self);
}

void pl_request_learn_of_break(struct pl_request *self, enum pl_failure failure)
{
    /* else it is that of a target which was asked to go on, and did not begin */
    if (self->at_seam && self->current->response.intake == PL_INTAKE_RELAYING)
        self->reader->seam_failure = failure;
}

struct pl_str pl_request_prefix(const struct pl_request *self, uint32_t *token_count)
{
    const struct pl_rescue *rescue = &self->reader->rescue;
    bool can = self->reader->continues && rescue->form != PL_RESCUE_FORM_UNKNOWN;
    *token_count = rescue->text_event_count;
    return can ? pl_rescue_prefix(rescue) : PL_STR("");
}

bool pl_request_waits_to_go_on(const struct pl_request *self)
{
    const struct pl_relay_reader *reader = self->reader;
    return self->at_seam || (reader && reader->reads && pl_rescue_is_behind(&reader->rescue));
}

bool pl_request_is_parted(const struct pl_request *self)
{
    return self->at_seam && self->reader->broke == PL_RELAY_PARTED;
}

/* ---- going on -------------------------------------------------------------------------------- */

/* What no target's answer can be joined to: it was asked for a stream, and streams nothing. */
static bool refuse_answer(struct pl_request *self)
{
    static const char detail[] = "the answer is no stream that could go on";
    struct pl_try *try = self->current;
    struct pl_trail_entry *entry = pl_try_entry(try);
    pl_try_cancel(try);
    try->response.failure = PL_FAIL_MALFORMED;
    entry->failure = PL_FAIL_MALFORMED;
    entry->class = pl_request_class_of(PL_FAIL_MALFORMED);
    if (!entry->detail)
        entry->detail = pl_xstrdup(detail);
    pl_try_leave(try);
    self->reader->broke = PL_RELAY_GOES_ON;
    return true;
}

const char *pl_resume_name(enum pl_resume resume)
{
    static const char *const names[] = {NULL, "continue", "restart"};
    return names[resume];
}

/* Comments are skipped by every client, and show where to look. */
static void write_mark(struct pl_request *self)
{
    const struct pl_try *try = self->current;
    const struct pl_relay_reader *reader = self->reader;
    char mark[1024];
    pl_log(PL_LOG_INFO, "request %s: %s goes on where %s broke off (%s)", self->id,
           try->target->name, reader->seam_target->name, pl_resume_name(try->resume));
    if (!self->generation->topology->response_headers || self->runtime->is_simulator)
        return;
    int len = snprintf(mark, sizeof(mark), ": perilune resumed by %s after cut of %s (%s; %s)\n\n",
                       try->target->name, reader->seam_target->name,
                       pl_failure_name(reader->seam_failure), pl_resume_name(try->resume));
    if (len > 0 && (size_t)len < sizeof(mark))
        pl_relay_write(self, mark, (size_t)len);
}

bool pl_relay_join(struct pl_request *self)
{
    struct pl_try *try = self->current;
    struct pl_response *response = &try->response;
    struct pl_relay_reader *reader = self->reader;
    assert(self->at_seam && response->live);
    if (!response->is_sse || response->status != 200)
        return refuse_answer(self);
    self->at_seam = false;
    self->served_by = try->target;
    reader->broke = PL_RELAY_GOES_ON;
    response->intake = PL_INTAKE_RELAYING;
    pl_events_deinit(&reader->events);
    pl_events_init(&reader->events, PL_RESCUE_EVENT_MAX_BYTES);
    pl_rescue_begin_part(&reader->rescue, try->resume == PL_RESUME_CONTINUE);
    write_mark(self);
    if (!pl_relay_pass_held(self, response->held_whole_bytes)) {
        pl_try_cancel(try);
        pl_relay_end_broken(self);
        return true;
    }
    if (try->attempt) {
        if (!try->paused)
            self->runtime->transport->resume(try->attempt);
        return false;
    }
    pl_relay_end(self, response->failure);
    return true;
}

/* ---- giving up ------------------------------------------------------------------------------- */

void pl_request_give_up(struct pl_request *self)
{
    const struct pl_relay_reader *reader = self->reader;
    struct pl_exchange *exchange = self->exchange;
    enum pl_failure failure = self->past_deadline ? PL_FAIL_TIMEOUT_DEADLINE : reader->seam_failure;
    assert(self->at_seam);
    pl_request_drop_answer(self);
    pl_log(PL_LOG_WARN, "request %s: nobody goes on where %s broke off: %s", self->id,
           reader->seam_target->name, pl_failure_name(failure));
    if (reader->error && !self->past_deadline) {
        pl_relay_write(self, reader->error, reader->error_len);
        self->broken = true;
        snprintf(self->reason, sizeof(self->reason), "%s", pl_failure_name(failure));
        self->exchange = NULL;
        pl_exchange_abort(exchange, false);
    } else {
        pl_relay_break_off(self, reader->seam_target, failure);
    }
    self->at_seam = false;
}
