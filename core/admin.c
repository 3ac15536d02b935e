/*
 * Admin: see admin.h.
 */
#include "admin.h"
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pl_admin {
    struct pl_server *server;
    const struct pl_config *config;
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

static void reply_json(struct pl_exchange *exchange, int status, const char *body)
{
    struct pl_headers headers;
    pl_headers_init(&headers);
    if (pl_headers_add(&headers, PL_STR("Content-Type"), PL_STR("application/json")) != PL_OK ||
        pl_headers_add(&headers, PL_STR("Cache-Control"), PL_STR("no-store")) != PL_OK)
        abort();
    pl_exchange_reply(exchange, status, &headers, body, strlen(body));
    pl_headers_deinit(&headers);
}

static void refuse(struct pl_exchange *exchange, int status, const char *code, const char *message)
{
    char body[256];
    snprintf(body, sizeof(body), "{\"error\":{\"message\":\"%s\",\"code\":\"%s\"}}", message, code);
    reply_json(exchange, status, body);
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
    const char *address = self->config->admin_address;
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

static void on_request(struct pl_exchange *exchange, void *arg)
{
    struct pl_admin *self = arg;
    const struct pl_headers *headers = pl_exchange_headers(exchange);
    struct pl_str path = pl_exchange_path(exchange);
    struct pl_str method = pl_exchange_method(exchange);
    bool is_read = pl_str_equal(method, PL_STR("GET")) || pl_str_equal(method, PL_STR("HEAD"));
    if (!host_is_ours(self, headers))
        refuse(exchange, 403, "wrong_host", "This address is not served to other sites.");
    else if (pl_str_equal(path, PL_STR("/healthz")) && is_read)
        reply_json(exchange, 200, "{\"status\":\"ok\"}");
    else if (pl_str_equal(path, PL_STR("/readyz")) && is_read)
        reply_json(exchange, self->draining ? 503 : 200,
                   self->draining ? "{\"status\":\"draining\"}" : "{\"status\":\"ready\"}");
    else if (!is_authorized(self, headers))
        refuse(exchange, 401, "unauthorized", "A bearer token is needed.");
    else
        refuse(exchange, 404, "not_found", "There is no such admin endpoint.");
}

struct pl_admin *pl_admin_new(struct event_base *base, int listen_fd,
                              const struct pl_config *config)
{
    static const struct pl_server_ops ops = {.on_request = on_request};
    struct pl_admin *self = pl_xcalloc(1, sizeof(*self));
    self->config = config;
    self->server = pl_server_new(base, listen_fd, NULL, &limits, &ops, self);
    return self;
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
