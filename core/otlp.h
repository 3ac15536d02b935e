/*
 * OTLP: a record as spans in OTLP's JSON form, and what stands around them in a request to a
 * collector (ExportTraceServiceRequest). Of each request one server span, and below it one client
 * span per try.
 *
 * Names are those of OpenTelemetry's semantic conventions, for HTTP (server spans) and for
 * generative AI (client spans); what is the gateway's own begins with "perilune.".
 *
 * Pure, one thread at a time per text. Runs for every sampled request: no printf, and the memory is
 * kept. Nothing of a record is trusted: what clients and upstreams have written is escaped and cut,
 * and what is not UTF-8 in it is replaced by U+FFFD.
 */
#ifndef PL_OTLP_H
#define PL_OTLP_H

#include "base.h"
#include "record.h"

#define PL_OTLP_STRING_MAX_BYTES 512 /* of a value that clients or upstreams have written */

/** A text that grows. */
struct pl_otlp_text {
    char *data; /* owned; not terminated */
    size_t len, cap;
};

void pl_otlp_text_init(struct pl_otlp_text *self);
void pl_otlp_text_deinit(struct pl_otlp_text *self);

/**
 * Appends the spans of a record, with commas between them; returns how many. `scheme` is that of
 * the listener, "http" or "https".
 */
size_t pl_otlp_put_spans(struct pl_otlp_text *self, const struct pl_record *record,
                         const char *scheme);

/** A resource attribute. */
struct pl_otlp_attribute {
    struct pl_str name, value;
};
/** Appends what comes before the spans: the resource with these attributes, and the scope. */
void pl_otlp_put_head(struct pl_otlp_text *self, const struct pl_otlp_attribute *resource,
                      size_t count);
/** Appends what comes after them. */
void pl_otlp_put_tail(struct pl_otlp_text *self);

/**
 * How many spans a collector says in its answer to have refused (partialSuccess); 0 when it says
 * nothing, or nothing that can be read. `why` gets its message, cut to fit, or "".
 */
uint64_t pl_otlp_read_rejected(const char *answer, size_t len, char *why, size_t why_size);

#endif
