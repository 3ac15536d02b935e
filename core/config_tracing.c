/*
 * Config: what gateway.lua says of tracing, see config_internal.h.
 */
#include "config_internal.h"
#include <lauxlib.h>
#include <stdlib.h>

/* The table's own pairs of texts are copied. */
static void read_resource(lua_State *L, int at, struct pl_tracing *self)
{
    lua_getfield(L, at, "resource");
    size_t count = lua_objlen(L, -1);
    self->resource = pl_xcalloc(count + 1, sizeof(*self->resource));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        for (int n = 1; n <= 2; n++) {
            size_t len;
            lua_rawgeti(L, -1, n);
            const char *text = lua_tolstring(L, -1, &len);
            struct pl_str copy = {pl_xstrndup(text, len), len};
            *(n == 1 ? &self->resource[i].name : &self->resource[i].value) = copy;
            lua_pop(L, 1);
        }
        self->resource_count++;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static double number(lua_State *L, int at, const char *key)
{
    lua_getfield(L, at, key);
    double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static char *text(lua_State *L, int at, const char *key)
{
    lua_getfield(L, at, key);
    char *copy = lua_isstring(L, -1) ? pl_xstrdup(lua_tostring(L, -1)) : NULL;
    lua_pop(L, 1);
    return copy;
}

void pl_config_read_tracing(struct pl_config *self, lua_State *L, int index)
{
    struct pl_tracing *tracing = self->tracing = pl_tracing_new();
    lua_getfield(L, index, "tracing");
    int at = lua_gettop(L);
    if (lua_istable(L, at)) {
        self->topology.traces = true;
        self->topology.trace_sample_ratio = number(L, at, "sample_ratio");
        tracing->endpoint.host = text(L, at, "host");
        tracing->endpoint.port = (uint16_t)number(L, at, "port");
        tracing->endpoint.max_idle = 1;
        tracing->endpoint.idle_ms = 60000;
        tracing->path = text(L, at, "path");
        tracing->timeout_ms = (uint32_t)number(L, at, "timeout_ms");
        tracing->queue_bytes = (size_t)number(L, at, "queue_bytes");
        read_resource(L, at, tracing);
        pl_config_read_headers(L, at, "headers", &tracing->headers);
        lua_getfield(L, at, "tls");
        tracing->host_header = pl_config_host_header(tracing->endpoint.host, tracing->endpoint.port,
                                                     lua_toboolean(L, -1));
        lua_pop(L, 1);
        pl_config_read_tls(self, L, at, &tracing->endpoint, "tracing");
    }
    lua_pop(L, 1);
}
