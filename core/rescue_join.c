/*
 * Events of a further part, made into those of the first answer: see rescue.h. This file: chat and
 * completions, and token counts.
 */
#include "json_walk.h"
#include "rescue_internal.h"
#include <stdlib.h>

struct pl_str pl_rescue_quote(struct pl_rescue_text *literal, struct pl_str text)
{
    size_t len;
    char *quoted = pl_json_encode_string(text.data, text.len, &len);
    literal->len = 0;
    pl_rescue_put(literal, (struct pl_str){quoted, len});
    free(quoted);
    return (struct pl_str){literal->data, literal->len};
}

/* ---- token counts --------------------------------------------------------------------------- */

/* Of a part that continues the prompt holds the text that the client has: those tokens are counted
 * as the answer's. */
static int64_t input_for_client(const struct pl_rescue *self, int64_t told)
{
    if (self->first_input >= 0)
        return self->first_input;
    int64_t prefix = self->continues ? (int64_t)self->prefix_event_count : 0;
    return PL_MAX(told - prefix, (int64_t)0);
}

void pl_rescue_add_parts(const struct pl_rescue *self, int64_t *input, int64_t *output)
{
    bool is_told = *output >= 0;
    if (self->part_count == 1) { /* another one may have been asked since */
        *input = *input >= 0 ? *input : self->counts.input;
        *output = is_told ? *output : self->counts.output;
        return;
    }
    if (*input >= 0 || self->first_input >= 0)
        *input = input_for_client(self, *input);
    *output = self->past_output + (is_told ? *output : (int64_t)self->counts.text_events);
}

static void edit_count(struct pl_rescue_edits *edits, struct pl_rescue_text *digits,
                       struct pl_str at, int64_t count)
{
    size_t from = digits->len;
    if (at.len == 0)
        return;
    pl_rescue_put_number(digits, (uint64_t)count);
    pl_rescue_edit(edits, at, (struct pl_str){digits->data + from, digits->len - from});
}

void pl_rescue_edit_usage(const struct pl_rescue *self, struct pl_str usage,
                          struct pl_rescue_edits *edits, struct pl_rescue_text *digits)
{
    static const char *const inputs[] = {"prompt_tokens", "input_tokens"};
    static const char *const outputs[] = {"completion_tokens", "output_tokens"};
    int64_t input = 0, output = 0;
    if (usage.len == 0)
        return;
    /* no reallocation: the edits point into it */
    pl_rescue_text_reserve(digits, (2 * PL_COUNT(inputs) + 1) * PL_NUMBER_MAX);
    for (size_t i = 0; i < PL_COUNT(inputs); i++) {
        struct pl_str in = pl_json_walk_member(usage, pl_str_of(inputs[i]));
        struct pl_str out = pl_json_walk_member(usage, pl_str_of(outputs[i]));
        if (pl_rescue_number(in) >= 0)
            edit_count(edits, digits, in, input = input_for_client(self, pl_rescue_number(in)));
        if (pl_rescue_number(out) >= 0)
            edit_count(edits, digits, out, output = self->past_output + pl_rescue_number(out));
    }
    struct pl_str total = pl_json_walk_member(usage, PL_STR("total_tokens"));
    if (pl_rescue_number(total) >= 0)
        edit_count(edits, digits, total, input + output);
}

/* ---- chat, completions ---------------------------------------------------------------------- */

static struct pl_str kept(const char *value)
{
    return value ? pl_str_of(value) : PL_STR("");
}

static void edit_ids(const struct pl_rescue *self, const struct pl_rescue_said *said,
                     struct pl_rescue_edits *edits)
{
    if (self->id)
        pl_rescue_edit(edits, said->id, kept(self->id));
    if (self->created)
        pl_rescue_edit(edits, said->created, kept(self->created));
}

/* Puts an event with `text`, if it had any, in place of its own. */
static void put_choice(struct pl_rescue *self, const struct pl_rescue_said *said,
                       struct pl_str name, struct pl_str data, struct pl_str text)
{
    struct pl_rescue_edits edits = {.count = 0};
    struct pl_rescue_text literal = {0}, digits = {0};
    edit_ids(self, said, &edits);
    if (self->has_role)
        pl_rescue_edit(&edits, pl_rescue_with_comma(data, said->role), PL_STR(""));
    if (said->text.len > 0)
        pl_rescue_edit(&edits, said->text, pl_rescue_quote(&literal, text));
    pl_rescue_edit_usage(self, said->usage, &edits, &digits);
    pl_rescue_put_event(&self->out, name, data, &edits);
    pl_rescue_text_deinit(&literal);
    pl_rescue_text_deinit(&digits);
}

/* Text that was put aside goes out before an event that has none of its own. */
static void put_pending(struct pl_rescue *self, struct pl_str text)
{
    struct pl_str event = {self->pending_event.data, self->pending_event.len};
    struct pl_rescue_said said;
    pl_rescue_read(&said, PL_STR(""), event);
    said.usage = PL_STR("");
    put_choice(self, &said, PL_STR(""), event, text);
}

static void put_aside(struct pl_rescue *self, struct pl_str data)
{
    self->pending_event.len = 0;
    pl_rescue_put(&self->pending_event, data);
}

static bool match_event(struct pl_rescue *self, const struct pl_rescue_said *said,
                        struct pl_rescue_text *fresh)
{
    bool goes_on = true;
    size_t len;
    if (said->text.len > 0) {
        char *text = pl_json_decode_string(said->text.data, said->text.len, &len);
        goes_on = text && pl_rescue_match(self, (struct pl_str){text, len}, fresh);
        free(text);
    }
    if (goes_on && (said->is_finish || said->is_terminal || said->obstacle))
        goes_on = pl_rescue_match_end(self, fresh);
    return goes_on;
}

/* What it says besides its text, to the client. */
static bool says_more(const struct pl_rescue_said *said)
{
    return said->is_finish || said->is_terminal || said->obstacle ||
           (said->usage.len > 0 && !said->has_choice);
}

static void join_choice(struct pl_rescue *self, const struct pl_rescue_said *said,
                        struct pl_str name, struct pl_str data, struct pl_str fresh)
{
    bool has_text = said->text.len > 0;
    if (has_text && self->pending.len > 0)
        put_aside(self, data);
    if (!has_text && fresh.len > 0)
        put_pending(self, fresh);
    if ((has_text && fresh.len > 0) || says_more(said))
        put_choice(self, said, name, data, fresh);
    pl_rescue_keep_text(self, fresh);
    pl_rescue_refuse(self, said->obstacle);
}

/* A part of another form, or with another kind of answer, is no part of this one. */
static bool is_of_its_kind(const struct pl_rescue *self, const struct pl_rescue_said *said)
{
    if (said->obstacle == PL_RESCUE_CHOICES || said->obstacle == PL_RESCUE_LOGPROBS)
        return false;
    return said->form == PL_RESCUE_FORM_UNKNOWN || !said->has_choice || said->form == self->form;
}

static enum pl_rescue_verdict join_other(struct pl_rescue *self, const struct pl_rescue_said *said,
                                         struct pl_str name, struct pl_str data)
{
    struct pl_rescue_text fresh = {0};
    bool goes_on = match_event(self, said, &fresh);
    if (goes_on)
        join_choice(self, said, name, data, (struct pl_str){fresh.data, fresh.len});
    pl_rescue_text_deinit(&fresh);
    return goes_on ? PL_RESCUE_REPLACED : PL_RESCUE_PARTED;
}

enum pl_rescue_verdict pl_rescue_join(struct pl_rescue *self, const struct pl_rescue_said *said,
                                      struct pl_str name, struct pl_str data)
{
    bool is_messages = self->form == PL_RESCUE_FORM_MESSAGES;
    bool is_message = said->form == PL_RESCUE_FORM_MESSAGES;
    bool is_unknown = said->form == PL_RESCUE_FORM_UNKNOWN;
    self->out.len = 0;
    pl_rescue_keep_counts(self, said);
    self->counts.text_events += said->text.len > 0 || said->is_reasoning;
    if (is_messages && is_unknown && said->is_terminal) /* what follows message_stop */
        return self->seen_terminal ? PL_RESCUE_PASS : PL_RESCUE_PARTED;
    if (is_messages ? is_message || is_unknown : is_message && !said->step)
        return pl_rescue_join_message(self, said, name, data);
    if (is_messages || is_message || !is_of_its_kind(self, said))
        return PL_RESCUE_PARTED;
    return join_other(self, said, name, data);
}
