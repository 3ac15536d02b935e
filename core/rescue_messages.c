/*
 * Events of a further part of Anthropic's messages: see rescue.h.
 *
 * The client has content blocks, the part brings its own: those of text go on in the client's block
 * as long as that is open, reasoning is dropped, others get the client's next index.
 */
#include "json_walk.h"
#include "rescue_internal.h"
#include <stdlib.h>

static void put_text(struct pl_rescue *self, const char *text)
{
    pl_rescue_put(&self->out, pl_str_of(text));
}

/* ---- the client's blocks -------------------------------------------------------------------- */

static void close_block(struct pl_rescue *self)
{
    if (!self->is_block_open)
        return;
    put_text(self, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":");
    pl_rescue_put_number(&self->out, (uint64_t)self->block_index);
    put_text(self, "}\n\n");
    self->is_block_open = false;
}

static void open_block(struct pl_rescue *self, int block)
{
    self->is_block_open = true;
    self->block = block;
    self->block_index = self->next_index++;
}

/* A text block of the client's, to which text can be added. */
static void need_text_block(struct pl_rescue *self)
{
    if (self->is_block_open)
        return;
    open_block(self, PL_RESCUE_TEXT_BLOCK);
    put_text(self,
             "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":");
    pl_rescue_put_number(&self->out, (uint64_t)self->block_index);
    put_text(self, ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
}

static void put_fresh(struct pl_rescue *self, const struct pl_rescue_text *fresh)
{
    struct pl_rescue_text literal = {0};
    if (fresh->len == 0)
        return;
    need_text_block(self);
    put_text(self,
             "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
    pl_rescue_put_number(&self->out, (uint64_t)self->block_index);
    put_text(self, ",\"delta\":{\"type\":\"text_delta\",\"text\":");
    pl_rescue_put(&self->out, pl_rescue_quote(&literal, (struct pl_str){fresh->data, fresh->len}));
    put_text(self, "}}\n\n");
    pl_rescue_keep_text(self, (struct pl_str){fresh->data, fresh->len});
    pl_rescue_text_deinit(&literal);
}

/* Puts an event with the index of the client's block. */
static void put_indexed(struct pl_rescue *self, const struct pl_rescue_said *said,
                        struct pl_str name, struct pl_str data)
{
    struct pl_rescue_edits edits = {.count = 0};
    char digits[PL_NUMBER_MAX];
    size_t len = pl_put_decimal(digits, (uint64_t)self->block_index);
    pl_rescue_edit(&edits, said->index, (struct pl_str){digits, len});
    pl_rescue_put_event(&self->out, name, data, &edits);
}

/* ---- the part's blocks ---------------------------------------------------------------------- */

/* False: the texts part ways. What was put aside goes out. */
static bool end_text(struct pl_rescue *self)
{
    struct pl_rescue_text fresh = {0};
    bool goes_on = pl_rescue_match_end(self, &fresh);
    if (goes_on)
        put_fresh(self, &fresh);
    pl_rescue_text_deinit(&fresh);
    return goes_on;
}

static bool start_block(struct pl_rescue *self, const struct pl_rescue_said *said,
                        struct pl_str name, struct pl_str data)
{
    self->is_part_block_open = true;
    self->part_block = (int)said->block;
    if (said->block != PL_RESCUE_OTHER_BLOCK)
        return said->obstacle == PL_RESCUE_NO_OBSTACLE;
    if (!end_text(self))
        return false;
    close_block(self);
    open_block(self, PL_RESCUE_OTHER_BLOCK);
    put_indexed(self, said, name, data);
    pl_rescue_refuse(self, said->obstacle);
    return true;
}

static bool add_text(struct pl_rescue *self, struct pl_str literal)
{
    struct pl_rescue_text fresh = {0};
    size_t len;
    char *text = pl_json_decode_string(literal.data, literal.len, &len);
    bool goes_on = text && pl_rescue_match(self, (struct pl_str){text, len}, &fresh);
    if (goes_on)
        put_fresh(self, &fresh);
    pl_rescue_text_deinit(&fresh);
    free(text);
    return goes_on;
}

static bool add_to_block(struct pl_rescue *self, const struct pl_rescue_said *said,
                         struct pl_str name, struct pl_str data)
{
    bool is_text = self->part_block == PL_RESCUE_TEXT_BLOCK;
    if (!self->is_part_block_open)
        return false;
    if (self->part_block == PL_RESCUE_THINKING_BLOCK)
        return true;
    if (is_text && said->obstacle == PL_RESCUE_NO_OBSTACLE)
        return said->text.len == 0 || add_text(self, said->text);
    if (is_text && !end_text(self))
        return false;
    if (is_text)
        need_text_block(self);
    put_indexed(self, said, name, data);
    pl_rescue_refuse(self, said->obstacle);
    return true;
}

/* While a text is compared the client's block stays open: more of it may come. */
static void stop_block(struct pl_rescue *self)
{
    bool is_text = self->part_block == PL_RESCUE_TEXT_BLOCK;
    bool is_known = self->phase == PL_RESCUE_FLOWS;
    if (self->is_part_block_open &&
        (self->part_block == PL_RESCUE_OTHER_BLOCK || (is_text && is_known)))
        close_block(self);
    self->is_part_block_open = false;
}

static bool end_message(struct pl_rescue *self, const struct pl_rescue_said *said,
                        struct pl_str name, struct pl_str data)
{
    struct pl_rescue_edits edits = {.count = 0};
    struct pl_rescue_text digits = {0};
    if (!end_text(self))
        return false;
    close_block(self);
    pl_rescue_edit_usage(self, said->usage, &edits, &digits);
    pl_rescue_put_event(&self->out, name, data, &edits);
    pl_rescue_text_deinit(&digits);
    return true;
}

/* An event that says nothing of the answer, or nobody knows what. */
static bool pass_other(struct pl_rescue *self, const struct pl_rescue_said *said,
                       struct pl_str name, struct pl_str data)
{
    const struct pl_rescue_edits none = {.count = 0};
    if (said->obstacle != PL_RESCUE_NO_OBSTACLE && !end_text(self))
        return false;
    pl_rescue_put_event(&self->out, name, data, &none);
    pl_rescue_refuse(self, said->obstacle);
    return true;
}

enum pl_rescue_verdict pl_rescue_join_message(struct pl_rescue *self,
                                              const struct pl_rescue_said *said, struct pl_str name,
                                              struct pl_str data)
{
    bool goes_on = true;
    switch (said->step) {
    case PL_RESCUE_MESSAGE_START: /* the client has had one */
        break;
    case PL_RESCUE_BLOCK_START:
        goes_on = start_block(self, said, name, data);
        break;
    case PL_RESCUE_BLOCK_DELTA:
        goes_on = add_to_block(self, said, name, data);
        break;
    case PL_RESCUE_BLOCK_STOP:
        stop_block(self);
        break;
    case PL_RESCUE_MESSAGE_DELTA:
    case PL_RESCUE_MESSAGE_STOP:
        goes_on = end_message(self, said, name, data);
        break;
    case PL_RESCUE_NO_STEP:
        goes_on = pass_other(self, said, name, data);
        break;
    }
    return goes_on ? PL_RESCUE_REPLACED : PL_RESCUE_PARTED;
}
