/*
 * What of a further part's text is new: see rescue.h.
 *
 * Bytes are compared, whatever characters they belong to: the text that the client has ends where a
 * character does, so what follows begins where one does. White space at the very beginning is left
 * aside, as models begin with it or not.
 */
#include "rescue_internal.h"

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

/* Where the text begins, but for white space. */
static size_t start_of(const struct pl_rescue *self)
{
    size_t start = 0;
    while (start < self->text.len && is_space(self->text.data[start]))
        start++;
    return start;
}

struct pl_str pl_rescue_prefix(const struct pl_rescue *self)
{
    size_t len = self->text.len;
    while (len > 0 && is_space(self->text.data[len - 1]))
        len--;
    return (struct pl_str){len > 0 ? self->text.data : "", len};
}

static void end_counts(struct pl_rescue *self)
{
    struct pl_rescue_counts *counts = &self->counts;
    if (self->part_count == 1)
        self->first_input = counts->input;
    self->past_output += PL_MAX(counts->output, (int64_t)counts->text_events);
    *counts = (struct pl_rescue_counts){-1, -1, 0};
}

void pl_rescue_begin_part(struct pl_rescue *self, bool continues)
{
    self->seen_finish = self->seen_terminal = false;
    self->in_reasoning = false;
    self->is_part_block_open = self->is_part_block_passed = false;
    self->pending.len = self->pending_event.len = 0;
    self->prefix_event_count = self->text_event_count;
    end_counts(self);
    if (self->form == PL_RESCUE_FORM_UNKNOWN)
        return; /* nothing has been said: it is as good as the first */
    self->part_count++;
    self->continues = continues && pl_rescue_prefix(self).len > 0;
    self->matched = start_of(self);
    self->phase = self->matched == self->text.len ? PL_RESCUE_FLOWS : PL_RESCUE_MATCHES;
    if (self->continues) {
        self->matched = pl_rescue_prefix(self).len;
        self->phase = PL_RESCUE_SKIPS_SPACE;
    }
}

/* ---- comparing ------------------------------------------------------------------------------ */

/* Goes on in the text as far as it says the same; what is left is other text, or comes after it. */
static struct pl_str compare(struct pl_rescue *self, struct pl_str text)
{
    size_t at = 0;
    while (at < text.len && self->matched < self->text.len &&
           text.data[at] == self->text.data[self->matched]) {
        at++;
        self->matched++;
    }
    return (struct pl_str){text.data + at, text.len - at};
}

static struct pl_str compare_from_start(struct pl_rescue *self, struct pl_str text)
{
    bool is_at_start = self->matched == start_of(self);
    while (is_at_start && text.len > 0 && is_space(text.data[0]))
        text = (struct pl_str){text.data + 1, text.len - 1};
    return compare(self, text);
}

/* As white space at the text's end was no part of the prefix, it may come again. */
static struct pl_str skip_space(struct pl_rescue *self, struct pl_str text)
{
    struct pl_str rest = compare(self, text);
    if (rest.len > 0 || self->matched == self->text.len) {
        self->phase = PL_RESCUE_PROBES;
        self->matched = start_of(self);
    }
    return rest;
}

static bool is_repetition(const struct pl_rescue *self)
{
    return self->matched - start_of(self) >= PL_RESCUE_REPEAT_MIN_BYTES;
}

/* It was no repetition: what was put aside is new. */
static void flow(struct pl_rescue *self, struct pl_rescue_text *fresh)
{
    pl_rescue_put(fresh, (struct pl_str){self->pending.data, self->pending.len});
    self->pending.len = 0;
    self->phase = PL_RESCUE_FLOWS;
}

static bool probe(struct pl_rescue *self, struct pl_str text, struct pl_rescue_text *fresh)
{
    pl_rescue_put(&self->pending, text);
    struct pl_str rest = compare_from_start(self, text);
    bool is_whole = self->matched == self->text.len;
    if (rest.len == 0 && !is_whole)
        return true;
    if (!is_repetition(self)) {
        flow(self, fresh);
        return true;
    }
    self->pending.len = 0;
    self->phase = PL_RESCUE_FLOWS;
    pl_rescue_put(fresh, rest);
    return is_whole;
}

static bool restart(struct pl_rescue *self, struct pl_str text, struct pl_rescue_text *fresh)
{
    struct pl_str rest = compare_from_start(self, text);
    if (self->matched < self->text.len)
        return rest.len == 0;
    self->phase = PL_RESCUE_FLOWS;
    pl_rescue_put(fresh, rest);
    return true;
}

bool pl_rescue_match(struct pl_rescue *self, struct pl_str text, struct pl_rescue_text *fresh)
{
    if (self->phase == PL_RESCUE_SKIPS_SPACE)
        text = skip_space(self, text);
    if (text.len == 0)
        return true;
    switch (self->phase) {
    case PL_RESCUE_PROBES:
        return probe(self, text, fresh);
    case PL_RESCUE_MATCHES:
        return restart(self, text, fresh);
    case PL_RESCUE_SKIPS_SPACE:
    case PL_RESCUE_FLOWS:
        break;
    }
    pl_rescue_put(fresh, text);
    return true;
}

bool pl_rescue_match_end(struct pl_rescue *self, struct pl_rescue_text *fresh)
{
    if (self->phase == PL_RESCUE_MATCHES)
        return false;
    if (self->phase == PL_RESCUE_PROBES && is_repetition(self))
        return false;
    flow(self, fresh);
    return true;
}
