/*
 * Trace: the W3C Trace Context of a request (levels 1 and 2): read from a client's headers or begun
 * here, and written for each try.
 *
 * Pure, any thread. What a client sends decides about its own trace only: what is not valid is
 * ignored as a whole, and a new trace begins. Ids are random and no secret.
 */
#ifndef PL_TRACE_H
#define PL_TRACE_H

#include "base.h"
#include "headers.h"
#include "record.h"

#define PL_TRACEPARENT_BYTES      55  /* "00-<32 digits>-<16 digits>-<2 digits>" */
#define PL_TRACESTATE_MAX_BYTES   512 /* what is passed on */
#define PL_TRACESTATE_MAX_MEMBERS 32
#define PL_TRACESTATE_LONG_MEMBER 128 /* bytes; longer ones are the first to go */
#define PL_TRACE_FLAG_SAMPLED     0x01
#define PL_TRACE_FLAG_RANDOM      0x02 /* level 2: the trace id's last 7 bytes are random */
#define PL_TRACE_ID_RANDOM_BITS   56

/**
 * Reads a traceparent: the trace's id, the sender's span as parent_span_id, the flags. Versions
 * that are not known yet are read as far as they agree with 00. False, and nothing is written, when
 * it is not valid.
 */
PL_NODISCARD bool pl_trace_parse(struct pl_str text, struct pl_trace *out);

/** The same from a request's headers; false as well when there are several, or none. */
PL_NODISCARD bool pl_trace_from_headers(const struct pl_headers *headers, struct pl_trace *out);

/**
 * The trace of a request that has just come: the client's, whose decision on sampling holds, or a
 * new one, of which `sample_ratio` (0 to 1) are sampled. It has a span of its own in either case.
 */
void pl_trace_begin(struct pl_trace *out, const struct pl_headers *headers, double sample_ratio);

/** A new id of a span; never 0. */
uint64_t pl_trace_new_span_id(void);

/** Writes the traceparent that a try gets whose span is `span_id`: PL_TRACEPARENT_BYTES. */
void pl_trace_put_parent(char *out, const struct pl_trace *self, uint64_t span_id);

/**
 * Puts all tracestate fields together as one value of at most PL_TRACESTATE_MAX_BYTES: whole
 * members only, long ones going first, then the last ones. Returns its length; 0 when there is
 * none, or when they are broken (more than PL_TRACESTATE_MAX_MEMBERS, or one that is not
 * key=value). Meant for traces that pl_trace_from_headers accepts: a state without a parent is
 * not passed on.
 */
size_t pl_trace_put_state(char out[PL_TRACESTATE_MAX_BYTES], const struct pl_headers *headers);

#endif
