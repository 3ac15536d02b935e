/*
 * Events written anew: an event's JSON with some of its parts replaced, byte for byte as it was
 * elsewhere. Pure, any thread.
 */
#ifndef PL_RESCUE_WRITE_H
#define PL_RESCUE_WRITE_H

#include "base.h"

#define PL_RESCUE_EDITS_MAX 10

/** A part of a text, and what stands there instead. */
struct pl_rescue_edit {
    struct pl_str at; /* lies in the text */
    struct pl_str by; /* borrowed */
};

/** Edits of one text, in the order of their places. */
struct pl_rescue_edits {
    struct pl_rescue_edit list[PL_RESCUE_EDITS_MAX];
    size_t count;
};

/** Bytes to be sent. All 0: none. */
struct pl_rescue_text {
    char *data;
    size_t len, cap;
};

void pl_rescue_put(struct pl_rescue_text *self, struct pl_str text);
void pl_rescue_put_number(struct pl_rescue_text *self, uint64_t number);
/** Makes room for so many bytes in all, so that until then nothing moves. */
void pl_rescue_text_reserve(struct pl_rescue_text *self, size_t bytes);
/** Frees it; it may be used again. */
void pl_rescue_text_deinit(struct pl_rescue_text *self);
/** Adds an edit where its place is; of an empty `at` none. They must not overlap. */
void pl_rescue_edit(struct pl_rescue_edits *self, struct pl_str at, struct pl_str by);
/** Puts a text with its edits. */
void pl_rescue_put_edited(struct pl_rescue_text *self, struct pl_str text,
                          const struct pl_rescue_edits *edits);
/** Puts an event; `name` may be empty, line ends in `data` become spaces. */
void pl_rescue_put_event(struct pl_rescue_text *self, struct pl_str name, struct pl_str data,
                         const struct pl_rescue_edits *edits);
/** The span of an object's member, from the key's quote to its value's end, with the comma that has
 *  no more use without it. `object` is all of the text that it stands in. */
struct pl_str pl_rescue_with_comma(struct pl_str object, struct pl_str member);

#endif
