/*
 * Exporter: where spans go, see exporter.h: its making and its end.
 */
#include "exporter.h"
#include <stdlib.h>

struct pl_tracing *pl_tracing_new(void)
{
    struct pl_tracing *self = pl_xcalloc(1, sizeof(*self));
    self->ref_count = 1;
    pl_headers_init(&self->headers);
    return self;
}

struct pl_tracing *pl_tracing_ref(struct pl_tracing *self)
{
    self->ref_count++;
    return self;
}

static void free_attribute(struct pl_otlp_attribute *attribute)
{
    free((char *)attribute->name.data);
    free((char *)attribute->value.data);
}

void pl_tracing_unref(struct pl_tracing *self)
{
    if (!self || --self->ref_count > 0)
        return;
    for (size_t i = 0; i < self->resource_count; i++)
        free_attribute(&self->resource[i]);
    free(self->resource);
    if (self->endpoint.tls)
        SSL_CTX_free(self->endpoint.tls);
    free(self->endpoint.host);
    free(self->endpoint.server_name);
    free(self->endpoint.trust);
    free(self->path);
    free(self->host_header);
    pl_headers_deinit(&self->headers);
    free(self);
}
