/*
 * Admin: see admin.h.
 */
#include "admin.h"
#include "admin_internal.h"
#include "admin_metrics.h"
#include "admin_targets.h"
#include "client_error.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pl_server_limits limits = {
    .message = {.request_line_bytes = 4096,
                .head_bytes = 16384,
                .header_count = 64,
                .body_bytes = 1024 * 1024},
    .connections = 256,
    .head_ms = 10000,
    .body_idle_ms = 10000,
    .keepalive_idle_ms = 75000,
    .write_stall_ms = 30000,
    .unsent_high_bytes = 65536,
};

static void put(struct pl_headers *headers, const char *name, const char *value)
{
    if (pl_headers_add(headers, pl_str_of(name), pl_str_of(value)) != PL_OK)
        abort();
}

void pl_admin_reply(struct pl_exchange *exchange, int status, struct pl_headers *headers,
                    const char *type, const char *body, size_t len)
{
    struct pl_headers own;
    pl_headers_init(&own);
    if (!headers)
        headers = &own;
    put(headers, "Content-Type", type);
    put(headers, "Cache-Control", "no-store");
    put(headers, "X-Content-Type-Options", "nosniff");
    put(headers, "Cross-Origin-Resource-Policy", "same-origin");
    if (status == 401)
        put(headers, "WWW-Authenticate", "Bearer");
    pl_exchange_reply(exchange, status, headers, body, len);
    pl_headers_deinit(&own);
}

void pl_admin_reply_json(struct pl_exchange *exchange, int status, const char *body)
{
    pl_admin_reply(exchange, status, NULL, "application/json", body, strlen(body));
}

static char *error_body(int status, const char *code, const char *message, size_t *len)
{
    struct pl_client_error error = {.status = status, .message = pl_str_of(message), .code = code};
    return pl_client_error_body(PL_DIALECT_OPENAI, &error, len);
}

static void refuse_method(struct pl_exchange *exchange, const char *allow)
{
    struct pl_headers headers;
    size_t len;
    char *body = error_body(405, "method_not_allowed", "Another method is needed here.", &len);
    pl_headers_init(&headers);
    put(&headers, "Allow", allow);
    pl_admin_reply(exchange, 405, &headers, "application/json", body, len);
    pl_headers_deinit(&headers);
    free(body);
}

void pl_admin_refuse(struct pl_exchange *exchange, int status, const char *code,
                     const char *message)
{
    size_t len;
    char *body = error_body(status, code, message, &len);
    pl_admin_reply(exchange, status, NULL, "application/json", body, len);
    free(body);
}

/* ---- endpoints ---- */

static void get_healthz(struct pl_admin *self, struct pl_exchange *exchange)
{
    (void)self;
    pl_admin_reply_json(exchange, 200, "{\"status\":\"ok\"}");
}

static void get_targets(struct pl_admin *self, struct pl_exchange *exchange)
{
    struct pl_json_text text;
    pl_json_text_init(&text);
    pl_admin_targets_write(&self->config->topology, &text);
    pl_admin_reply_json(exchange, 200, text.data);
    pl_json_text_deinit(&text);
}

static void post_targets(struct pl_admin *self, struct pl_exchange *exchange)
{
    static const char prefix[] = "/admin/targets/";
    struct pl_str path = pl_exchange_path(exchange);
    struct pl_str action = {path.data + sizeof(prefix) - 1, path.len - (sizeof(prefix) - 1)};
    char message[256];
    int status = pl_admin_targets_act(&self->config->topology, action, pl_exchange_query(exchange),
                                      message, sizeof(message));
    if (status == 200)
        get_targets(self, exchange);
    else
        pl_admin_refuse(exchange, status, status == 404 ? "not_found" : "bad_request", message);
}

static void get_generations(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_get_generations(self->parts.reload, exchange);
}

static void post_reload(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_post_reload(self->parts.reload, exchange);
}

static void post_rollback(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_post_rollback(self->parts.reload, exchange);
}

static void post_promote(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_post_promote(self->parts.reload, exchange);
}

static void get_config(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_reply_json(exchange, 200, self->config->shown_json);
}

static void get_routes(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_reply_json(exchange, 200, self->config->shown_routes_json);
}

static void post_drain(struct pl_admin *self, struct pl_exchange *exchange)
{
    struct pl_json_text text;
    self->parts.drain(self->parts.arg);
    pl_json_text_init(&text);
    pl_json_open(&text, NULL, '{');
    pl_json_put_string(&text, "status", "draining");
    pl_json_put_u64(&text, "at_most_ms", self->config->drain_ms);
    pl_json_close(&text, '}');
    pl_admin_reply_json(exchange, 202, text.data);
    pl_json_text_deinit(&text);
}

static void get_metrics(struct pl_admin *self, struct pl_exchange *exchange)
{
    struct pl_admin_metrics sources = {
        .base = self->base,
        .metrics = self->parts.metrics,
        .topology = &self->config->topology,
        .reload = self->parts.reload,
        .access_log = self->parts.access_log,
        .spans = self->parts.spans,
    };
    if (self->parts.metrics)
        pl_admin_get_metrics(&sources, exchange);
    else
        pl_admin_refuse(exchange, 404, "not_found", "Nothing is counted: admin.metrics is false.");
}

static const struct {
    const char *method, *path;
    bool open; /* without a token */
    void (*serve)(struct pl_admin *self, struct pl_exchange *exchange);
} endpoints[] = {
    {"GET", "/", true, pl_admin_get_dashboard},
    {"GET", "/dashboard.css", true, pl_admin_get_dashboard},
    {"GET", "/dashboard.js", true, pl_admin_get_dashboard},
    {"GET", "/healthz", true, get_healthz},
    {"GET", "/readyz", true, pl_admin_get_readyz},
    {"GET", "/metrics", false, get_metrics},
    {"GET", "/admin/summary", false, pl_admin_get_summary},
    {"GET", "/admin/targets", false, get_targets},
    {"POST", "/admin/targets/eject", false, post_targets},
    {"POST", "/admin/targets/drain", false, post_targets},
    {"POST", "/admin/targets/restore", false, post_targets},
    {"GET", "/admin/routes", false, get_routes},
    {"GET", "/admin/config", false, get_config},
    {"GET", "/admin/requests", false, pl_admin_get_requests},
    {"GET", "/admin/requests/recent", false, pl_admin_get_recent},
    {"POST", "/admin/explain", false, pl_admin_post_explain},
    {"GET", "/admin/generations", false, get_generations},
    {"POST", "/admin/reload", false, post_reload},
    {"POST", "/admin/rollback", false, post_rollback},
    {"POST", "/admin/promote", false, post_promote},
    {"POST", "/admin/drain", false, post_drain},
};

static bool equals(struct pl_str text, const char *other)
{
    return pl_str_equal(text, pl_str_of(other));
}

static void on_request(struct pl_exchange *exchange, void *arg)
{
    struct pl_admin *self = arg;
    struct pl_str method = pl_exchange_method(exchange);
    if (!pl_admin_let_in(self, exchange))
        return;
    bool authorized = pl_admin_is_authorized(self, pl_exchange_headers(exchange));
    for (size_t i = 0; i < PL_COUNT(endpoints); i++) {
        if (!equals(pl_exchange_path(exchange), endpoints[i].path) ||
            !(authorized || endpoints[i].open))
            continue;
        if (equals(method, endpoints[i].method) ||
            (equals(method, "HEAD") && equals(PL_STR("GET"), endpoints[i].method)))
            endpoints[i].serve(self, exchange);
        else
            refuse_method(exchange, endpoints[i].method);
        return;
    }
    if (!authorized)
        pl_admin_refuse(exchange, 401, "unauthorized", "A bearer token is needed.");
    else
        pl_admin_refuse(exchange, 404, "not_found", "There is no such admin endpoint.");
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_admin *self = arg;
    pl_rates_tick(&self->rates, pl_reload_look(self->parts.reload), pl_now_ms());
}

struct pl_admin *pl_admin_new(struct event_base *base, int listen_fd,
                              const struct pl_config *config, const struct pl_admin_parts *parts)
{
    static const struct pl_server_ops ops = {.on_request = on_request};
    struct timeval second = {1, 0};
    struct pl_admin *self = pl_xcalloc(1, sizeof(*self));
    self->base = base;
    self->config = config;
    self->address = config->admin_address;
    self->parts = *parts;
    self->start_ms = pl_now_ms();
    pl_admin_requests_init(self);
    self->second_timer = event_new(base, -1, EV_PERSIST, on_second, self);
    event_add(self->second_timer, &second);
    self->server = pl_server_new(base, listen_fd, NULL, &limits, &ops, self);
    return self;
}

void pl_admin_set_config(struct pl_admin *self, const struct pl_config *config)
{
    self->config = config;
}

void pl_admin_set_draining(struct pl_admin *self)
{
    self->draining = true;
}

void pl_admin_free(struct pl_admin *self)
{
    if (!self)
        return;
    pl_server_free(self->server);
    event_free(self->second_timer);
    pl_rates_deinit(&self->rates);
    pl_admin_requests_deinit(self);
    free(self);
}
