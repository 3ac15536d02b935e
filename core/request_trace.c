/*
 * Trace of a request: see request.h. Where tracing is on each request has a span, and each of its
 * tries one below it; the record takes them along (record.h).
 */
#include "request.h"

void pl_request_begin_trace(struct pl_request *self)
{
    const struct pl_topology *topology = self->generation->topology;
    const struct pl_headers *headers = pl_exchange_headers(self->exchange);
    if (topology->traces) {
        pl_trace_begin(&self->trace, headers, topology->trace_sample_ratio);
        return;
    }
    if (!pl_trace_from_headers(headers, &self->trace))
        self->trace = (struct pl_trace){0};
    self->trace.sampled = false; /* by others it may be, but there is no span of ours */
}
