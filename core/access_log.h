/*
 * Access log: one line per request, into a sink, never blocking who writes it.
 *
 * Thread: the worker's, which has one of its own (the line's buffer is kept); the sink behind it is
 * shared by all.
 */
#ifndef PL_ACCESS_LOG_H
#define PL_ACCESS_LOG_H

#include "record.h"
#include "record_text.h"
#include "sink.h"

/** How lines look; from the configuration, so a request keeps to those that it began with. */
struct pl_access_log_rules {
    bool is_plain;                                    /* for people, instead of JSON */
    uint32_t request_body_bytes, response_body_bytes; /* kept of either; 0: none */
    char **redact; /* names of JSON members whose values are secret, besides the usual ones, in the
                      form of pl_redact_name; NULL-terminated; NULL: none */
};

struct pl_access_log {
    struct pl_sink *sink; /* borrowed */
    struct pl_record_text text;
};

void pl_access_log_init(struct pl_access_log *self, struct pl_sink *sink);
void pl_access_log_deinit(struct pl_access_log *self);
/** Writes the record's line, or drops and counts it. The record's bodies must be fit to be shown
 *  (redact.h). */
void pl_access_log_add(struct pl_access_log *self, const struct pl_access_log_rules *rules,
                       const struct pl_record *record);

/** Writes a line that was made already: `text`, to which the line's end is added. */
void pl_access_log_take(struct pl_access_log *self, struct pl_record_text *text);

#endif
