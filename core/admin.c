/*
 * Admin: see admin.h.
 */
#include "admin.h"
#include "admin_internal.h"
#include "admin_metrics.h"
#include "admin_targets.h"
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pl_admin {
    struct pl_server *server;
    struct event_base *base;
    struct pl_reload *reload;
    struct pl_metrics *metrics; /* NULL: nothing is counted */
    const struct pl_config *config;
    const char *address; /* that it listens on */
    bool draining;
};

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

/* `allow` is the method that a 405 asks for, or NULL. */
static void reply(struct pl_exchange *exchange, int status, const char *body, const char *allow)
{
    struct pl_headers headers;
    pl_headers_init(&headers);
    if (pl_headers_add(&headers, PL_STR("Content-Type"), PL_STR("application/json")) != PL_OK ||
        pl_headers_add(&headers, PL_STR("Cache-Control"), PL_STR("no-store")) != PL_OK ||
        (status == 401 &&
         pl_headers_add(&headers, PL_STR("WWW-Authenticate"), PL_STR("Bearer")) != PL_OK) ||
        (allow &&
         pl_headers_add(&headers, PL_STR("Allow"), (struct pl_str){allow, strlen(allow)}) != PL_OK))
        abort();
    pl_exchange_reply(exchange, status, &headers, body, strlen(body));
    pl_headers_deinit(&headers);
}

void pl_admin_reply_json(struct pl_exchange *exchange, int status, const char *body)
{
    reply(exchange, status, body, NULL);
}

static void refuse_method(struct pl_exchange *exchange, const char *allow)
{
    reply(exchange, 405,
          "{\"error\":{\"message\":\"Another method is needed here.\","
          "\"code\":\"method_not_allowed\"}}",
          allow);
}

void pl_admin_refuse(struct pl_exchange *exchange, int status, const char *code,
                     const char *message)
{
    struct pl_json_text text;
    pl_json_text_init(&text);
    pl_json_open(&text, NULL, '{');
    pl_json_open(&text, "error", '{');
    pl_json_put_string(&text, "message", message);
    pl_json_put_string(&text, "code", code);
    pl_json_close(&text, '}');
    pl_json_close(&text, '}');
    pl_admin_reply_json(exchange, status, text.data);
    pl_json_text_deinit(&text);
}

/* "127.0.0.1:9901" -> "127.0.0.1"; "[::1]:9901" -> "[::1]" */
static struct pl_str without_port(struct pl_str host)
{
    const char *colon = memrchr(host.data, ':', host.len);
    const char *bracket = memrchr(host.data, ']', host.len);
    if (colon && colon > bracket)
        host.len = (size_t)(colon - host.data);
    return host;
}

/* On loopback a page of another site could reach us under a name of its own that leads here. */
static bool host_is_ours(const struct pl_admin *self, const struct pl_headers *headers)
{
    struct pl_str host, origin;
    if (pl_headers_get(headers, PL_STR("origin"), &origin))
        return false;
    if (self->config->admin_token)
        return true;
    if (!pl_headers_get(headers, PL_STR("host"), &host))
        return true; /* HTTP/1.0, not a browser */
    host = without_port(host);
    const char *address = self->address;
    return pl_str_equal_nocase(host, PL_STR("localhost")) ||
           pl_str_equal_nocase(host, PL_STR("127.0.0.1")) ||
           pl_str_equal_nocase(host, PL_STR("[::1]")) ||
           pl_str_equal_nocase(host, (struct pl_str){address, strlen(address)});
}

static bool is_authorized(const struct pl_admin *self, const struct pl_headers *headers)
{
    struct pl_str given;
    const char *token = self->config->admin_token;
    if (!token)
        return true;
    if (!pl_headers_get(headers, PL_STR("authorization"), &given) || given.len < 7 ||
        !pl_str_equal_nocase((struct pl_str){given.data, 7}, PL_STR("bearer ")))
        return false;
    return given.len - 7 == strlen(token) &&
           CRYPTO_memcmp(given.data + 7, token, strlen(token)) == 0;
}

/* ---- endpoints ---- */

static void get_healthz(struct pl_admin *self, struct pl_exchange *exchange)
{
    (void)self;
    pl_admin_reply_json(exchange, 200, "{\"status\":\"ok\"}");
}

static void get_readyz(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_reply_json(exchange, self->draining ? 503 : 200,
                        self->draining ? "{\"status\":\"draining\"}" : "{\"status\":\"ready\"}");
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
    pl_admin_get_generations(self->reload, exchange);
}

static void post_reload(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_post_reload(self->reload, exchange);
}

static void post_rollback(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_post_rollback(self->reload, exchange);
}

static void post_promote(struct pl_admin *self, struct pl_exchange *exchange)
{
    pl_admin_post_promote(self->reload, exchange);
}

static void get_metrics(struct pl_admin *self, struct pl_exchange *exchange)
{
    struct pl_admin_metrics sources = {
        .base = self->base,
        .metrics = self->metrics,
        .topology = &self->config->topology,
        .reload = self->reload,
    };
    if (self->metrics)
        pl_admin_get_metrics(&sources, exchange);
    else
        pl_admin_refuse(exchange, 404, "not_found", "A simulator counts nothing.");
}

static const struct {
    const char *method, *path;
    bool open; /* without a token */
    void (*serve)(struct pl_admin *self, struct pl_exchange *exchange);
} endpoints[] = {
    {"GET", "/healthz", true, get_healthz},
    {"GET", "/readyz", true, get_readyz},
    {"GET", "/metrics", false, get_metrics},
    {"GET", "/admin/targets", false, get_targets},
    {"POST", "/admin/targets/eject", false, post_targets},
    {"POST", "/admin/targets/drain", false, post_targets},
    {"POST", "/admin/targets/restore", false, post_targets},
    {"GET", "/admin/generations", false, get_generations},
    {"POST", "/admin/reload", false, post_reload},
    {"POST", "/admin/rollback", false, post_rollback},
    {"POST", "/admin/promote", false, post_promote},
};

static bool equals(struct pl_str text, const char *other)
{
    return pl_str_equal(text, (struct pl_str){other, strlen(other)});
}

static void on_request(struct pl_exchange *exchange, void *arg)
{
    struct pl_admin *self = arg;
    const struct pl_headers *headers = pl_exchange_headers(exchange);
    struct pl_str method = pl_exchange_method(exchange);
    bool authorized = is_authorized(self, headers);
    if (!host_is_ours(self, headers)) {
        pl_admin_refuse(exchange, 403, "wrong_host", "This address is not served to other sites.");
        return;
    }
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

struct pl_admin *pl_admin_new(struct event_base *base, int listen_fd,
                              const struct pl_config *config, struct pl_reload *reload,
                              struct pl_metrics *metrics)
{
    static const struct pl_server_ops ops = {.on_request = on_request};
    struct pl_admin *self = pl_xcalloc(1, sizeof(*self));
    self->config = config;
    self->address = config->admin_address;
    self->base = base;
    self->reload = reload;
    self->metrics = metrics;
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
    free(self);
}
