/*
 * Rescue: see rescue.h. This file: what is kept of an answer, and its ends.
 */
#include "rescue.h"
#include "events.h"
#include "json_walk.h"
#include "rescue_internal.h"
#include <stdlib.h>

void pl_rescue_init(struct pl_rescue *self, size_t max_bytes)
{
    *self = (struct pl_rescue){.max_bytes = max_bytes,
                               .obstacle = max_bytes > 0 ? PL_RESCUE_NO_OBSTACLE : PL_RESCUE_OFF,
                               .part_count = 1,
                               .counts = {-1, -1, 0},
                               .first_input = -1};
}

void pl_rescue_deinit(struct pl_rescue *self)
{
    pl_rescue_text_deinit(&self->out);
    pl_rescue_text_deinit(&self->text);
    pl_rescue_text_deinit(&self->pending);
    pl_rescue_text_deinit(&self->pending_event);
    free(self->id);
    free(self->created);
    self->id = self->created = NULL;
}

void pl_rescue_refuse(struct pl_rescue *self, enum pl_rescue_obstacle obstacle)
{
    if (self->obstacle != PL_RESCUE_NO_OBSTACLE || obstacle == PL_RESCUE_NO_OBSTACLE)
        return;
    self->obstacle = obstacle;
    pl_rescue_text_deinit(&self->text);
}

void pl_rescue_heed_field(struct pl_rescue *self, struct pl_str key, struct pl_str value)
{
    pl_rescue_refuse(self, pl_rescue_obstacle_of_field(key, value));
}

enum pl_rescue_obstacle pl_rescue_obstacle_now(const struct pl_rescue *self)
{
    if (self->obstacle != PL_RESCUE_NO_OBSTACLE)
        return self->obstacle;
    return self->in_reasoning ? PL_RESCUE_REASONING : PL_RESCUE_NO_OBSTACLE;
}

bool pl_rescue_is_behind(const struct pl_rescue *self)
{
    return self->phase != PL_RESCUE_FLOWS;
}

/* ---- what is kept --------------------------------------------------------------------------- */

void pl_rescue_keep_text(struct pl_rescue *self, struct pl_str text)
{
    if (text.len == 0 || self->obstacle != PL_RESCUE_NO_OBSTACLE)
        return;
    if (text.len > self->max_bytes - PL_MIN(self->text.len, self->max_bytes)) {
        pl_rescue_refuse(self, PL_RESCUE_TOO_LONG);
        return;
    }
    self->text_event_count++;
    pl_rescue_put(&self->text, text);
}

static void keep_count(int64_t *kept, struct pl_str usage, struct pl_str name, struct pl_str other)
{
    int64_t count = pl_rescue_number(pl_json_walk_member(usage, name));
    if (count < 0)
        count = pl_rescue_number(pl_json_walk_member(usage, other));
    *kept = count >= 0 ? count : *kept;
}

void pl_rescue_keep_counts(struct pl_rescue *self, const struct pl_rescue_said *said)
{
    if (said->usage.len == 0)
        return;
    keep_count(&self->counts.input, said->usage, PL_STR("prompt_tokens"), PL_STR("input_tokens"));
    keep_count(&self->counts.output, said->usage, PL_STR("completion_tokens"),
               PL_STR("output_tokens"));
}

static void keep_value(char **kept, struct pl_str value)
{
    if (!*kept && value.len > 0)
        *kept = pl_xstrndup(value.data, value.len);
}

/* Some gateways put an event without a choice, and without a proper id, before the answer. */
void pl_rescue_keep_ids(struct pl_rescue *self, const struct pl_rescue_said *said)
{
    if (!said->has_choice)
        return;
    keep_value(&self->id, said->id);
    keep_value(&self->created, said->created);
    self->has_role |= said->role.len > 0;
}

/* ---- the first part ------------------------------------------------------------------------- */

static void keep_block(struct pl_rescue *self, const struct pl_rescue_said *said)
{
    switch (said->step) {
    case PL_RESCUE_BLOCK_START:
        self->is_block_open = true;
        self->block = (int)said->block;
        self->block_index = pl_rescue_number(said->index);
        self->next_index = self->block_index + 1;
        if (self->block_index < 0)
            pl_rescue_refuse(self, PL_RESCUE_API);
        break;
    case PL_RESCUE_BLOCK_DELTA:
        if (!self->is_block_open || pl_rescue_number(said->index) != self->block_index)
            pl_rescue_refuse(self, PL_RESCUE_API);
        break;
    case PL_RESCUE_BLOCK_STOP:
        self->is_block_open = self->in_reasoning = false;
        break;
    default:
        break;
    }
}

static void keep_event(struct pl_rescue *self, const struct pl_rescue_said *said)
{
    char *text;
    size_t len;
    if (said->form != PL_RESCUE_FORM_UNKNOWN)
        self->form = said->form;
    pl_rescue_refuse(self, said->obstacle);
    if (self->obstacle != PL_RESCUE_NO_OBSTACLE)
        return;
    pl_rescue_keep_ids(self, said);
    pl_rescue_keep_counts(self, said);
    self->counts.text_events += said->text.len > 0 || said->is_reasoning;
    if (said->is_reasoning)
        self->in_reasoning = true;
    if (said->form == PL_RESCUE_FORM_MESSAGES)
        keep_block(self, said);
    if (said->text.len == 0)
        return;
    self->in_reasoning = false;
    text = pl_json_decode_string(said->text.data, said->text.len, &len);
    if (text)
        pl_rescue_keep_text(self, (struct pl_str){text, len});
    else
        pl_rescue_refuse(self, PL_RESCUE_CONTENT); /* half a character */
    free(text);
}

/* ---- all parts ------------------------------------------------------------------------------ */

enum pl_rescue_verdict pl_rescue_take(struct pl_rescue *self, struct pl_str name,
                                      struct pl_str data)
{
    struct pl_rescue_said said;
    enum pl_rescue_verdict verdict = PL_RESCUE_PASS;
    pl_rescue_read(&said, name, data);
    if (said.is_malformed)
        return PL_RESCUE_MALFORMED;
    if (said.is_error)
        return PL_RESCUE_ERROR;
    if (self->part_count == 1)
        keep_event(self, &said);
    else
        verdict = pl_rescue_join(self, &said, name, data);
    self->seen_finish |= said.is_finish && verdict != PL_RESCUE_PARTED;
    self->seen_terminal |= said.is_terminal && verdict != PL_RESCUE_PARTED;
    return verdict;
}

struct pl_str pl_rescue_terminal(enum pl_rescue_form form)
{
    switch (form) {
    case PL_RESCUE_FORM_CHAT:
    case PL_RESCUE_FORM_COMPLETION:
        return PL_STR("data: [DONE]\n\n");
    case PL_RESCUE_FORM_MESSAGES:
        return PL_STR("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    case PL_RESCUE_FORM_RESPONSES:
    case PL_RESCUE_FORM_UNKNOWN:
        break;
    }
    return PL_STR("");
}

/* ---- how a stream has ended ----------------------------------------------------------------- */

/* What comes without a choice comes before the answer or, with its token counts, behind it. */
static enum pl_rescue_ending ending_of(const struct pl_rescue_said *said)
{
    if (said->is_finish || said->is_terminal)
        return PL_RESCUE_ENDING_FINISHED;
    switch (said->form) {
    case PL_RESCUE_FORM_CHAT:
    case PL_RESCUE_FORM_COMPLETION:
        return said->has_choice ? PL_RESCUE_ENDING_UNFINISHED : PL_RESCUE_ENDING_FINISHED;
    case PL_RESCUE_FORM_MESSAGES:
    case PL_RESCUE_FORM_RESPONSES:
        return PL_RESCUE_ENDING_UNFINISHED;
    case PL_RESCUE_FORM_UNKNOWN:
        break;
    }
    return PL_RESCUE_ENDING_UNKNOWN;
}

enum pl_rescue_ending pl_rescue_judge_ending(struct pl_str events, enum pl_rescue_form *form)
{
    struct pl_events splitter;
    struct pl_rescue_said said;
    enum pl_rescue_ending ending = PL_RESCUE_ENDING_UNKNOWN;
    enum pl_events_found found;
    pl_events_init(&splitter, PL_RESCUE_EVENT_MAX_BYTES);
    *form = PL_RESCUE_FORM_UNKNOWN;
    for (size_t at = 0; at < events.len;) {
        at += pl_events_next(&splitter, events.data + at, events.len - at, &found);
        if (found == PL_EVENTS_TOO_LARGE)
            break;
        if (found != PL_EVENTS_EVENT)
            continue;
        pl_rescue_read(&said, pl_events_name(&splitter), pl_events_data(&splitter));
        ending = said.is_malformed || said.is_error ? ending : ending_of(&said);
        *form = said.form;
    }
    pl_events_deinit(&splitter);
    return ending;
}
