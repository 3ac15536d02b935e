/*
 * Trace of a request: see request.h. Where tracing is on each request has a span, and each of its
 * tries one below it; the record takes them along (record.h).
 */
#include "request.h"
#include <stdlib.h>
#include <string.h>

/* What the record shall show of the exchange, which is gone by then. */
static void keep_origin(struct pl_request *self)
{
    struct pl_request_origin *origin = &self->origin;
    struct pl_str parts[] = {pl_exchange_method(self->exchange), pl_exchange_path(self->exchange),
                             pl_exchange_peer(self->exchange)};
    size_t sum = 0;
    for (size_t i = 0; i < PL_COUNT(parts); i++) {
        origin->lens[i] = PL_MIN(parts[i].len, (size_t)PL_REQUEST_ORIGIN_MAX_BYTES);
        sum += origin->lens[i];
    }
    if (sum > origin->cap) {
        origin->cap = sum;
        origin->text = pl_xrealloc(origin->text, sum);
    }
    sum = 0;
    for (size_t i = 0; i < PL_COUNT(parts); i++) {
        memcpy(origin->text + sum, parts[i].data, origin->lens[i]);
        sum += origin->lens[i];
    }
}

void pl_request_begin_trace(struct pl_request *self)
{
    const struct pl_topology *topology = self->generation->topology;
    const struct pl_headers *headers = pl_exchange_headers(self->exchange);
    if (topology->traces) {
        pl_trace_begin(&self->trace, headers, topology->trace_sample_ratio);
        if (self->trace.sampled)
            keep_origin(self);
        return;
    }
    if (!pl_trace_from_headers(headers, &self->trace))
        self->trace = (struct pl_trace){0};
    self->trace.sampled = false; /* by others it may be, but there is no span of ours */
}

/* As gen_ai.operation.name has them. */
static const char *operation_of(struct pl_str path)
{
    static const struct {
        const char *end, *name;
    } operations[] = {
        {"/chat/completions", "chat"},
        {"/responses", "chat"},
        {"/messages", "chat"},
        {"/completions", "text_completion"},
        {"/embeddings", "embeddings"},
        {"/images/generations", "image_generation"},
        {"/audio/speech", "speech"},
        {"/audio/transcriptions", "transcription"},
        {"/audio/translations", "translation"},
        {"/moderations", "moderation"},
    };
    if (path.len < 3 || memcmp(path.data, "/v1", 3) != 0)
        return NULL;
    path.data += 3;
    path.len -= 3;
    for (size_t i = 0; i < PL_COUNT(operations); i++) {
        if (pl_str_equal(path, pl_str_of(operations[i].end)))
            return operations[i].name;
    }
    return NULL;
}

void pl_request_fill_trace(const struct pl_request *self, struct pl_record *out)
{
    const struct pl_request_origin *origin = &self->origin;
    out->trace = self->trace;
    if (!self->trace.sampled)
        return;
    const char *at = origin->text;
    out->method = (struct pl_str){at, origin->lens[0]};
    out->path = (struct pl_str){at += origin->lens[0], origin->lens[1]};
    out->peer = (struct pl_str){at + origin->lens[1], origin->lens[2]};
    out->operation = operation_of(out->path);
    out->start_wall_ms = pl_now_wall_ms() - out->duration_ms;
    out->request_body_bytes = self->body.len;
}
