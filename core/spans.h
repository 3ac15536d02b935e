/*
 * Spans: the queue between the workers, whose requests make spans, and the exporter, which sends
 * them to a collector in batches.
 *
 * What does not fit is dropped and counted: the traces suffer, not the requests. The bound is on
 * the memory that the queue has, batches being sent included; it is taken in blocks, so that
 * nothing large is ever copied while others wait.
 *
 * Thread: pl_spans_add and the counts from any; the rest is the exporter's. A writer holds a lock
 * for as long as copying its spans takes.
 */
#ifndef PL_SPANS_H
#define PL_SPANS_H

#include "base.h"
#include "otlp.h"
#include <sys/uio.h>

#define PL_SPANS_BATCH_COUNT     512 /* spans in a batch, at most */
#define PL_SPANS_BATCH_MAX_BYTES (2 * 1024 * 1024)
#define PL_SPANS_BLOCK_BYTES     32768

/** Why spans were not exported. */
enum pl_span_drop {
    PL_SPAN_DROP_QUEUE_FULL,
    PL_SPAN_DROP_REJECTED,    /* by the collector: this batch, or some of it */
    PL_SPAN_DROP_UNREACHABLE, /* it could not be reached, or was not ready, for too long */
    PL_SPAN_DROP_SHUTDOWN,    /* there was no time left, or tracing was turned off */
    PL_SPAN_DROP_COUNT,
};
/** "queue_full", "rejected", "unreachable", "shutdown". */
const char *pl_span_drop_name(enum pl_span_drop reason);

struct pl_spans_counts {
    uint64_t exported;                    /* spans that a collector has taken */
    uint64_t dropped[PL_SPAN_DROP_COUNT]; /* spans */
    uint64_t failed_exports;              /* requests to the collector that did not end well */
    uint64_t queued;                      /* spans, those being sent included */
    size_t queued_bytes;                  /* memory */
};

struct pl_spans;

/** `scheme`: of the listener, a constant. Nothing is taken before there is a limit. */
struct pl_spans *pl_spans_new(const char *scheme);
/** NULL is let pass. No batch may be out. */
void pl_spans_free(struct pl_spans *self);

/**
 * Takes a request's spans, if its trace is sampled. `text` is the caller's, its own, and only
 * spares making one each time.
 */
void pl_spans_add(struct pl_spans *self, struct pl_otlp_text *text, const struct pl_record *record);
void pl_spans_look(struct pl_spans *self, struct pl_spans_counts *out);

/* ---- for the exporter ---- */

/** Spans to be sent together, with commas between them. */
struct pl_span_batch {
    struct pl_span_batch *next;
    struct iovec *blocks; /* each of PL_SPANS_BLOCK_BYTES, full but for the last */
    size_t block_count, block_cap;
    size_t bytes, span_count;
};

/** How much memory the queue may have; 0: nothing is taken. What is in it stays. */
void pl_spans_set_limit(struct pl_spans *self, size_t limit_bytes);
/** Becomes readable when a batch is full; reading it is the exporter's. */
int pl_spans_wake_fd(const struct pl_spans *self);
/** The oldest batch, or NULL; `is_partial_too`: one that is not full, too. It is out until it is
 *  settled. */
struct pl_span_batch *pl_spans_take(struct pl_spans *self, bool is_partial_too);
/** A collector has taken all of it but `rejected_count` spans. Frees it. */
void pl_spans_settle(struct pl_spans *self, struct pl_span_batch *batch, uint64_t rejected_count);
/** It will not be sent. Frees it. */
void pl_spans_drop(struct pl_spans *self, struct pl_span_batch *batch, enum pl_span_drop reason);
/** Drops all that are not out. */
void pl_spans_drop_all(struct pl_spans *self, enum pl_span_drop reason);
void pl_spans_count_failure(struct pl_spans *self);

#endif
