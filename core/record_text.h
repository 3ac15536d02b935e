/*
 * Record text: a record as one line, for the access log and whoever shows the same: as JSON, or for
 * people.
 *
 * Pure, one thread at a time per buffer. Nothing of a record is trusted: what clients and upstreams
 * have written is escaped, cut to a bound, and what is not UTF-8 in it is replaced by U+FFFD, so a
 * line is always one line and valid JSON. Runs for every request: no printf, and the buffer is
 * kept.
 */
#ifndef PL_RECORD_TEXT_H
#define PL_RECORD_TEXT_H

#include "record.h"

#define PL_RECORD_STRING_MAX_BYTES                                                                 \
    1024 /* of a path, a model, ...: the rest is cut, marked by "…" */

/** A text that grows, and the date that stands at its front, which is made once a second. */
struct pl_record_text {
    char *data; /* owned; not terminated */
    size_t len, cap;
    uint64_t dated_s; /* what `date` says, since the epoch; 0: nothing yet */
    char date[20];    /* "2025-03-01T12:00:00." */
};

void pl_record_text_init(struct pl_record_text *self);
void pl_record_text_deinit(struct pl_record_text *self);

/** Appends the record as a JSON object, without a line end. Its time is that of the request's end.
 *  What is unknown is left out. */
void pl_record_put_json(struct pl_record_text *self, const struct pl_record *record);
/** The same for people, in one line: "TIME STATUS END DURATION METHOD PATH model -> target ...". */
void pl_record_put_plain(struct pl_record_text *self, const struct pl_record *record);

/** Appends bytes as they are. */
void pl_record_put(struct pl_record_text *self, const char *data, size_t len);
/** Appends a JSON string that says at most `max_bytes` of `text`, and then "…". */
void pl_record_put_string(struct pl_record_text *self, struct pl_str text, size_t max_bytes);

#endif
