/*
 * Exporter: sends spans to a collector, by OTLP over HTTP, in JSON.
 *
 * Thread: the main thread, on its loop. One batch at a time: each second what there is, full ones
 * at once. A batch that the collector is not ready for (429, 502, 503, 504, or no answer) is tried
 * again, later each time, or when its Retry-After says; after a minute, or when it is refused, it
 * is dropped and counted, and the log says so once a minute. Whatever the collector does, no more
 * memory is used than the queue has, and no request waits.
 */
#ifndef PL_EXPORTER_H
#define PL_EXPORTER_H

#include "base.h"
#include "headers.h"
#include "otlp.h"
#include "pool.h"
#include "resolve.h"
#include "spans.h"
#include <event2/event.h>

/** Where spans go, and how. Immutable but for the references, which are counted by the main
 *  thread. */
struct pl_tracing {
    unsigned ref_count;
    struct pl_endpoint endpoint; /* host NULL: nothing is exported */
    char *path;                  /* "/v1/traces" */
    char *host_header;
    struct pl_headers headers; /* credentials may be among them */
    struct pl_otlp_attribute *resource;
    size_t resource_count;
    uint32_t timeout_ms; /* of one request */
    size_t queue_bytes;
};

/** A new one, with one reference and all else zero. */
struct pl_tracing *pl_tracing_new(void);
struct pl_tracing *pl_tracing_ref(struct pl_tracing *self);
/** NULL is let pass. */
void pl_tracing_unref(struct pl_tracing *self);

struct pl_exporter_times {
    uint32_t batch_ms;           /* between two looks at the queue */
    uint32_t backoff_ms;         /* before the second try; doubled for each further one ... */
    uint32_t max_backoff_ms;     /* ... up to this */
    uint32_t max_retry_after_ms; /* a collector may ask for no more */
    uint32_t give_up_ms;         /* since a batch's first try */
};
/** 1 s, 1 s, 30 s, 60 s, 60 s. */
extern const struct pl_exporter_times pl_exporter_usual_times;

struct pl_exporter;

/** Starts exporting. Borrows all but `tracing`, of which it takes a reference. */
struct pl_exporter *pl_exporter_new(struct event_base *base, struct pl_resolver *resolver,
                                    struct pl_spans *spans, struct pl_tracing *tracing,
                                    const struct pl_exporter_times *times);
/** Goes on with another destination, after the request under way. */
void pl_exporter_follow(struct pl_exporter *self, struct pl_tracing *tracing);
/** Sends what is left, each batch once, running the loop for at most `max_ms`; what does not get
 *  out is dropped. Nothing is exported afterwards. */
void pl_exporter_flush(struct pl_exporter *self, uint32_t max_ms);
/** NULL is let pass. */
void pl_exporter_free(struct pl_exporter *self);

#endif
