/*
 * Rescue, between its own files. See rescue.h.
 */
#ifndef PL_RESCUE_INTERNAL_H
#define PL_RESCUE_INTERNAL_H

#include "json.h"
#include "rescue.h"

/** The client gets that text; it is kept as far as there is room. */
void pl_rescue_keep_text(struct pl_rescue *self, struct pl_str text);
/** Token counts that the part at hand tells. */
void pl_rescue_keep_counts(struct pl_rescue *self, const struct pl_rescue_said *said);
/** The answer's id and time of creation, once. */
void pl_rescue_keep_ids(struct pl_rescue *self, const struct pl_rescue_said *said);

/* ---- rescue_join.c ---- */

/** An event of a further part; sets `out`. */
enum pl_rescue_verdict pl_rescue_join(struct pl_rescue *self, const struct pl_rescue_said *said,
                                      struct pl_str name, struct pl_str data);

/** The edits that make a part's token counts into the client's; their digits lie in `digits`. */
void pl_rescue_edit_usage(const struct pl_rescue *self, struct pl_str usage,
                          struct pl_rescue_edits *edits, struct pl_rescue_text *digits);
/** The text as a JSON string into `literal`, which is emptied first. */
struct pl_str pl_rescue_quote(struct pl_rescue_text *literal, struct pl_str text);

/* ---- rescue_match.c: what of a part's text is new ---- */

/** Takes text of the part; `fresh` gets what of it, and of what was put aside, is to go to the
 *  client, borrowed. False: the texts part ways. */
PL_NODISCARD bool pl_rescue_match(struct pl_rescue *self, struct pl_str text,
                                  struct pl_rescue_text *fresh);
/** No more text comes before what follows; the same. */
PL_NODISCARD bool pl_rescue_match_end(struct pl_rescue *self, struct pl_rescue_text *fresh);

/* ---- rescue_messages.c: the same for messages ---- */

enum pl_rescue_verdict pl_rescue_join_message(struct pl_rescue *self,
                                              const struct pl_rescue_said *said, struct pl_str name,
                                              struct pl_str data);

#endif
