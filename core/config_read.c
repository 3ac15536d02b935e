/*
 * Config read: from the checked, normalised table that perilune.config gives to C data. See
 * config.h.
 */
#include "config_internal.h"
#include "log.h"
#include "redact.h"
#include "rescue_write.h"
#include <lauxlib.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHOLLY_MASKED_BYTES                                                                        \
    15 /* and shorter: the ends would tell too much; see config/show.lua                           \
        */

static char *get_string(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    char *value = lua_isstring(L, -1) ? pl_xstrdup(lua_tostring(L, -1)) : NULL;
    lua_pop(L, 1);
    return value;
}

static double get_number(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    double value = luaL_optnumber(L, -1, 0);
    lua_pop(L, 1);
    return value;
}

static bool get_boolean(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static uint32_t get_u32(lua_State *L, int index, const char *key)
{
    double value = get_number(L, index, key);
    return value <= 0 ? 0 : value >= UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

/* A duration that is set is at least a millisecond: 0 means none. */
static uint32_t get_ms(lua_State *L, int index, const char *key)
{
    double value = get_number(L, index, key);
    return value > 0 && value < 1 ? 1 : get_u32(L, index, key);
}

void pl_config_read_limits(struct pl_config *self, lua_State *L, int index)
{
    self->limits = (struct pl_server_limits){
        .message = {.request_line_bytes = get_u32(L, index, "request_line_bytes"),
                    .head_bytes = get_u32(L, index, "head_bytes"),
                    .header_count = get_u32(L, index, "header_count"),
                    .body_bytes = (uint64_t)get_number(L, index, "body_bytes")},
        .connections = get_u32(L, index, "connections"),
        .head_ms = get_ms(L, index, "head_ms"),
        .body_idle_ms = get_ms(L, index, "body_idle_ms"),
        .keepalive_idle_ms = get_ms(L, index, "keepalive_idle_ms"),
        .write_stall_ms = get_ms(L, index, "write_stall_ms"),
        .unsent_high_bytes = 65536};
}

static struct pl_attempt_limits read_timeouts(lua_State *L, int index)
{
    lua_getfield(L, index, "timeouts");
    int at = lua_gettop(L);
    struct pl_attempt_limits limits = {.connect_ms = get_ms(L, at, "connect_ms"),
                                       .tls_ms = get_ms(L, at, "tls_ms"),
                                       .head_ms = get_ms(L, at, "head_ms"),
                                       .first_token_ms = get_ms(L, at, "first_token_ms"),
                                       .idle_ms = get_ms(L, at, "idle_ms"),
                                       .try_ms = get_ms(L, at, "try_ms")};
    lua_pop(L, 1);
    return limits;
}

/* Strings 1 and 2 of the pair on top of the stack. */
static struct pl_str pair_item(lua_State *L, int n)
{
    struct pl_str item;
    lua_rawgeti(L, -1, n);
    item.data = lua_tolstring(L, -1, &item.len); /* the pair keeps it alive */
    lua_pop(L, 1);
    return item;
}

void pl_config_read_headers(lua_State *L, int index, const char *key, struct pl_headers *out)
{
    lua_getfield(L, index, key);
    int count = (int)lua_objlen(L, -1);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        if (pl_headers_add(out, pair_item(L, 1), pair_item(L, 2)) != PL_OK)
            luaL_error(L, "header '%s' is not valid", pair_item(L, 1).data);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

char *pl_config_host_header(const char *host, uint16_t port, bool tls)
{
    bool is_v6 = strchr(host, ':') != NULL;
    const char *open = is_v6 ? "[" : "", *close = is_v6 ? "]" : "";
    if (port == (tls ? 443 : 80))
        return pl_config_format("%s%s%s", open, host, close);
    return pl_config_format("%s%s%s:%u", open, host, close, port);
}

/* What may be seen of a credential: enough of a long one to tell two apart. */
static char *show_key(const char *key)
{
    size_t len = strlen(key);
    if (len <= WHOLLY_MASKED_BYTES)
        return pl_xstrdup("…");
    char ends[7];
    memcpy(ends, key, 3);
    memcpy(ends + 3, key + len - 4, 4);
    for (size_t i = 0; i < sizeof(ends); i++) {
        if ((unsigned char)ends[i] < 0x20 || (unsigned char)ends[i] >= 0x7f)
            ends[i] = '?';
    }
    return pl_config_format("%.3s…%.4s", ends, ends + 3);
}

static bool is_header_value(const char *text)
{
    struct pl_headers headers;
    pl_headers_init(&headers);
    int rc = pl_headers_add(&headers, PL_STR("x"), pl_str_of(text));
    if (headers.arena)
        explicit_bzero(headers.arena, headers.arena_len);
    pl_headers_deinit(&headers);
    return rc == PL_OK;
}

/* As the provider's API wants it: "Authorization: Bearer sk-..", or "x-api-key: sk-..". */
static void add_key(struct pl_provider *self, const char *key)
{
    struct pl_key *added = &self->keys[self->key_count++];
    bool is_bearer = strcmp(self->key_header, "Authorization") == 0;
    added->value = pl_config_format(is_bearer ? "Bearer %s" : "%s", key);
    added->shown = show_key(key);
}

static bool is_anthropic(lua_State *L, int index)
{
    char *api = get_string(L, index, "api");
    bool result = api && strcmp(api, "anthropic") == 0;
    free(api);
    return result;
}

/* `key`, or the list `keys`. */
static void read_keys(lua_State *L, int index, struct pl_provider *self)
{
    self->key_header = is_anthropic(L, index) ? "x-api-key" : "Authorization";
    lua_getfield(L, index, "keys");
    size_t count = lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
    self->keys = pl_xcalloc(count + 1, sizeof(*self->keys));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        add_key(self, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    char *key = get_string(L, index, "key");
    if (key) {
        add_key(self, key);
        explicit_bzero(key, strlen(key));
    }
    free(key);
}

static void read_credential(lua_State *L, int index, struct pl_provider *self)
{
    char *auth = get_string(L, index, "auth");
    self->auth = auth && strcmp(auth, "passthrough") == 0 ? PL_AUTH_PASSTHROUGH : PL_AUTH_NONE;
    free(auth);
    read_keys(L, index, self);
    if (self->key_count > 0)
        self->auth = PL_AUTH_KEY;
    for (size_t i = 0; i < self->key_count; i++) {
        if (!is_header_value(self->keys[i].value))
            luaL_error(L, "gateway.lua: providers.%s.%s: has characters that a header cannot carry",
                       self->name, self->key_count > 1 ? "keys" : "key");
    }
}

static char *in_directory(const struct pl_config *self, char *path)
{
    if (!path || path[0] == '/' || !self->directory)
        return path;
    char *full = pl_config_format("%s/%s", self->directory, path);
    free(path);
    return full;
}

void pl_config_read_tls(struct pl_config *config, lua_State *L, int index, struct pl_endpoint *self,
                        const char *key)
{
    char error[256];
    self->server_name = get_string(L, index, "tls_server_name");
    if (!self->server_name)
        self->server_name = pl_xstrdup(self->host);
    if (!get_boolean(L, index, "tls") || config->offline)
        return;
    char *ca = in_directory(config, get_string(L, index, "tls_ca"));
    struct pl_tls_client_config tls = {.ca_file = ca,
                                       .verify = get_boolean(L, index, "tls_verify")};
    if (ca)
        pl_config_add_path(config, ca);
    self->trust = pl_config_format("%s, %s, %llx", tls.verify ? "verified" : "not verified",
                                   ca ? ca : "the system's",
                                   ca ? (unsigned long long)pl_config_file_mark(ca) : 0);
    self->tls = pl_tls_client_ctx_new(&tls, error, sizeof(error));
    free(ca);
    if (!self->tls)
        luaL_error(L, "gateway.lua: %s.tls: %s", key, error);
}

/* Anthropic answers no request without a version. Those who have none get its first. */
static void set_defaults(lua_State *L, int index, struct pl_provider *self)
{
    const struct pl_str name = PL_STR("anthropic-version");
    if (is_anthropic(L, index) && pl_headers_count(&self->headers, name) == 0 &&
        pl_headers_add(&self->defaults, name, PL_STR("2023-06-01")) != PL_OK)
        abort();
}

static struct pl_health_rules read_rules(lua_State *L, int at)
{
    return (struct pl_health_rules){
        .consecutive_5xx_count = get_u32(L, at, "consecutive_5xx_count"),
        .consecutive_gateway_count = get_u32(L, at, "consecutive_gateway_count"),
        .consecutive_connection_count = get_u32(L, at, "consecutive_connection_count"),
        .split_connection = get_boolean(L, at, "split_connection"),
        .failure_ratio = get_number(L, at, "failure_ratio"),
        .failure_min_count = get_u32(L, at, "failure_min_count"),
        .window_ms = get_ms(L, at, "window_ms"),
        .success_ewma_min_ratio = get_number(L, at, "success_ewma_min_ratio"),
        .base_ejection_ms = get_ms(L, at, "base_ejection_ms"),
        .max_ejection_ms = get_ms(L, at, "max_ejection_ms"),
        .jitter_ratio = get_number(L, at, "jitter_ratio"),
        .decay_ms = get_ms(L, at, "decay_ms"),
        .slow_start_ms = get_ms(L, at, "slow_start_ms"),
        .probe_timeout_ms = get_ms(L, at, "probe_timeout_ms")};
}

static int *read_statuses(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    size_t count = lua_objlen(L, -1);
    int *statuses = pl_xcalloc(count + 1, sizeof(*statuses));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        statuses[i] = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return statuses;
}

static void read_check(lua_State *L, int health, struct pl_active_check *self)
{
    pl_headers_init(&self->headers);
    lua_getfield(L, health, "active");
    int at = lua_gettop(L);
    if (lua_istable(L, at)) {
        self->path = get_string(L, at, "path");
        self->method = get_string(L, at, "method");
        self->statuses = read_statuses(L, at, "statuses");
        self->interval_ms = get_ms(L, at, "interval_ms");
        self->timeout_ms = get_ms(L, at, "timeout_ms");
        self->jitter_ratio = get_number(L, at, "jitter_ratio");
        self->unhealthy_after = get_u32(L, at, "unhealthy_after");
        self->healthy_after = get_u32(L, at, "healthy_after");
        self->readmits = get_boolean(L, at, "readmits");
        pl_config_read_headers(L, at, "headers", &self->headers);
    }
    lua_pop(L, 1);
}

static void read_health(lua_State *L, int index, struct pl_provider *self)
{
    lua_getfield(L, index, "health");
    int at = lua_gettop(L);
    self->rules = read_rules(L, at);
    read_check(L, at, &self->check);
    lua_pop(L, 1);
}

static void read_provider(struct pl_config *config, lua_State *L, int index,
                          struct pl_provider *self)
{
    pl_headers_init(&self->headers);
    pl_headers_init(&self->defaults);
    self->name = get_string(L, index, "name");
    self->base_path = get_string(L, index, "path");
    self->endpoint.host = get_string(L, index, "host");
    self->endpoint.port = (uint16_t)get_number(L, index, "port");
    self->endpoint.max_idle = get_u32(L, index, "idle_connections");
    self->endpoint.idle_ms = get_ms(L, index, "idle_ms");
    self->stream_usage = get_boolean(L, index, "stream_usage");
    self->host_header = pl_config_host_header(self->endpoint.host, self->endpoint.port,
                                              get_boolean(L, index, "tls"));
    read_credential(L, index, self);
    pl_config_read_headers(L, index, "headers", &self->headers);
    set_defaults(L, index, self);
    read_health(L, index, self);
    char key[128];
    snprintf(key, sizeof(key), "providers.%s", self->name);
    pl_config_read_tls(config, L, index, &self->endpoint, key);
}

static char **read_strings(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    size_t count = lua_objlen(L, -1);
    char **items = pl_xcalloc(count + 1, sizeof(*items));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        items[i] = pl_xstrdup(lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return items;
}

static struct pl_str copy_str(struct pl_str text)
{
    return (struct pl_str){pl_xstrndup(text.data, text.len), text.len};
}

/* Members of an object after others, as raw JSON. */
static char *read_members(lua_State *L, int index, const char *key)
{
    struct pl_rescue_text text = {0};
    lua_getfield(L, index, key);
    for (size_t i = 0; i < lua_objlen(L, -1); i++) {
        size_t len;
        lua_rawgeti(L, -1, (int)i + 1);
        struct pl_str name = pair_item(L, 1);
        char *quoted = pl_json_encode_string(name.data, name.len, &len);
        pl_rescue_put(&text, PL_STR(","));
        pl_rescue_put(&text, (struct pl_str){quoted, len});
        pl_rescue_put(&text, PL_STR(":"));
        pl_rescue_put(&text, pair_item(L, 2));
        free(quoted);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    char *members = pl_xstrndup(text.data ? text.data : "", text.len);
    pl_rescue_text_deinit(&text);
    return members;
}

static struct pl_json_edit *read_pairs(lua_State *L, int index, const char *key, size_t room,
                                       size_t *out_count)
{
    lua_getfield(L, index, key);
    size_t count = lua_objlen(L, -1);
    struct pl_json_edit *edits = pl_xcalloc(count + room, sizeof(*edits));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        edits[i] = (struct pl_json_edit){.key = copy_str(pair_item(L, 1)),
                                         .value = copy_str(pair_item(L, 2))};
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    *out_count = count;
    return edits;
}

static void read_edits(lua_State *L, int index, struct pl_target *self)
{
    char **unset = read_strings(L, index, "unset_body");
    size_t unset_count = 0;
    while (unset[unset_count])
        unset_count++;
    self->edits = read_pairs(L, index, "set_body", unset_count + 1, &self->edit_count);
    for (size_t i = 0; i < unset_count; i++)
        self->edits[self->edit_count++] =
            (struct pl_json_edit){.key = {unset[i], strlen(unset[i])}, .value = {NULL, 0}};
    free(unset);
}

/* How a target is asked to go on from the assistant's words. */
static void read_prefix(lua_State *L, int index, struct pl_target *self)
{
    lua_getfield(L, index, "prefix");
    int at = lua_gettop(L);
    self->refuses_prefix = !lua_istable(L, at);
    if (!self->refuses_prefix) {
        self->prefix_members = read_members(L, at, "set_message");
        self->prefix_edits = read_pairs(L, at, "set_body", 1, &self->prefix_edit_count);
    }
    lua_pop(L, 1);
}

static void read_target(lua_State *L, int index, struct pl_target *self)
{
    pl_headers_init(&self->set_headers);
    self->name = get_string(L, index, "name");
    self->provider_index = (size_t)get_number(L, index, "provider") - 1;
    self->model = get_string(L, index, "model");
    if (self->model) {
        size_t len;
        self->model_json = pl_json_encode_string(self->model, strlen(self->model), &len);
    }
    self->priority = (int)get_number(L, index, "priority");
    self->context_tokens = get_u32(L, index, "context_tokens");
    self->weight = get_number(L, index, "weight");
    pl_config_read_headers(L, index, "set_headers", &self->set_headers);
    self->remove_headers = read_strings(L, index, "remove_headers");
    read_edits(L, index, self);
    read_prefix(L, index, self);
    self->limits = read_timeouts(L, index);
    lua_getfield(L, index, "limits");
    self->max_in_flight = get_u32(L, lua_gettop(L), "concurrent_count");
    self->queue_count = get_u32(L, lua_gettop(L), "queue_count");
    self->queue_ms = get_ms(L, lua_gettop(L), "queue_ms");
    lua_pop(L, 1);
}

/* A route's targets are positions in the list of all, one after the other. */
static void read_route(lua_State *L, int index, struct pl_topology *topology)
{
    lua_getfield(L, index, "targets");
    size_t count = lua_objlen(L, -1);
    lua_rawgeti(L, -1, 1);
    struct pl_target *targets = &topology->targets[lua_tointeger(L, -1) - 1];
    int best = count > 0 ? targets[0].priority : 0;
    lua_pop(L, 2);
    lua_getfield(L, index, "retry");
    bool sends_once = lua_istable(L, -1) && !get_boolean(L, lua_gettop(L), "uncertain");
    lua_pop(L, 1);
    for (size_t i = 0; i < count; i++)
        best = PL_MIN(best, targets[i].priority);
    for (size_t i = 0; i < count; i++) {
        targets[i].route = get_string(L, index, "name");
        targets[i].is_fallback = targets[i].priority > best;
        targets[i].sends_once = sends_once;
    }
}

static void read_topology(struct pl_config *self, lua_State *L, int index)
{
    struct pl_topology *topology = &self->topology;
    topology->response_headers = get_boolean(L, index, "response_headers");
    lua_getfield(L, index, "providers");
    size_t count = lua_objlen(L, -1);
    topology->providers = pl_xcalloc(count + 1, sizeof(*topology->providers));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        topology->provider_count++;
        read_provider(self, L, lua_gettop(L), &topology->providers[i]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_getfield(L, index, "targets");
    count = lua_objlen(L, -1);
    topology->targets = pl_xcalloc(count + 1, sizeof(*topology->targets));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        topology->target_count++;
        read_target(L, lua_gettop(L), &topology->targets[i]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_getfield(L, index, "routes");
    count = lua_objlen(L, -1);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        read_route(L, lua_gettop(L), topology);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void pl_config_read_shown(struct pl_config *self, lua_State *L, int index)
{
    self->shown_json = get_string(L, index, "config");
    self->shown_routes_json = get_string(L, index, "routes");
}

/* perilune.config.normalise gives a route's targets as neighbours. */
static void read_routes(struct pl_config *self, lua_State *L, int index)
{
    size_t next_target = 0;
    lua_getfield(L, index, "routes");
    size_t count = lua_objlen(L, -1);
    self->routes = pl_xcalloc(count + 1, sizeof(*self->routes));
    for (; self->route_count < count; self->route_count++) {
        struct pl_config_route *route = &self->routes[self->route_count];
        lua_rawgeti(L, -1, (int)self->route_count + 1);
        lua_getfield(L, -1, "targets");
        *route = (struct pl_config_route){.name = get_string(L, lua_gettop(L) - 1, "name"),
                                          .first_target = next_target,
                                          .target_count = lua_objlen(L, -1)};
        next_target += route->target_count;
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

void pl_config_read_listen(struct pl_config *self, lua_State *L, int index)
{
    char error[256];
    lua_getfield(L, index, "listen");
    int at = lua_gettop(L);
    self->listen_address = get_string(L, at, "address");
    self->listen_port = (uint16_t)get_number(L, at, "port");
    self->tls_cert = in_directory(self, get_string(L, at, "tls_cert"));
    self->tls_key = in_directory(self, get_string(L, at, "tls_key"));
    lua_pop(L, 1);
    if (!self->tls_cert || self->offline)
        return;
    pl_config_add_path(self, self->tls_cert);
    pl_config_add_path(self, self->tls_key);
    self->tls = pl_tls_server_ctx_new(self->tls_cert, self->tls_key, error, sizeof(error));
    if (!self->tls)
        luaL_error(L, "gateway.lua: listen.tls: %s", error);
}

static void read_admin(struct pl_config *self, lua_State *L, int index)
{
    lua_getfield(L, index, "admin");
    int at = lua_gettop(L);
    self->admin_address = get_string(L, at, "address");
    self->admin_port = (uint16_t)get_number(L, at, "port");
    self->admin_token = get_string(L, at, "token");
    self->recent_count = get_u32(L, at, "recent_count");
    self->has_metrics = get_boolean(L, at, "metrics");
    lua_pop(L, 1);
}

static char **read_redacted(lua_State *L, int index)
{
    lua_getfield(L, index, "redact");
    size_t count = lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
    char **names = pl_xcalloc(count + 1, sizeof(*names));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        names[i] = pl_redact_name(lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return names;
}

static void read_access_log(struct pl_config *self, lua_State *L, int index)
{
    lua_getfield(L, index, "access_log");
    int at = lua_gettop(L);
    char *path = get_string(L, at, "path");
    self->access_log_path = path && strcmp(path, "-") == 0 ? path : in_directory(self, path);
    self->topology.access_log =
        (struct pl_access_log_rules){.is_plain = get_boolean(L, at, "is_plain"),
                                     .request_body_bytes = get_u32(L, at, "request_body_bytes"),
                                     .response_body_bytes = get_u32(L, at, "response_body_bytes"),
                                     .redact = read_redacted(L, at)};
    lua_pop(L, 1);
}

static void read_budgets(struct pl_config *self, lua_State *L, int index)
{
    lua_getfield(L, index, "budgets");
    int at = lua_gettop(L);
    self->vm_limits =
        (struct pl_vm_limits){.memory_bytes = (size_t)get_number(L, at, "memory_bytes"),
                              .burst_us = get_ms(L, at, "burst_ms") * 1000,
                              .request_us = get_ms(L, at, "request_ms") * 1000};
    self->topology.log_line_count = get_u32(L, at, "log_line_count");
    lua_pop(L, 1);
}

static void read_reload(struct pl_config *self, lua_State *L, int index)
{
    lua_getfield(L, index, "reload");
    int at = lua_gettop(L);
    struct pl_trial_rules *rules = &self->trial;
    *rules = pl_trial_rules_default();
    rules->policy_error_margin_ratio = get_number(L, at, "policy_error_ratio");
    rules->failure_margin_ratio = get_number(L, at, "failure_ratio");
    rules->unfinished_margin_ratio = get_number(L, at, "unfinished_ratio");
    rules->client_margin_ratio = get_number(L, at, "client_fault_ratio");
    rules->ttft_max_ratio = get_number(L, at, "first_token_ratio");
    rules->ttft_margin_ms = get_ms(L, at, "first_token_margin_ms");
    rules->min_request_count = get_u32(L, at, "min_request_count");
    self->generation_drain_ms = get_ms(L, at, "drain_ms");
    self->strikes_count = get_u32(L, at, "strikes_count");
    self->strikes_window_ms = get_ms(L, at, "strikes_window_ms");
    lua_pop(L, 1);
}

void pl_config_read_parts(struct pl_config *self, lua_State *L, int index)
{
    size_t count = lua_objlen(L, index);
    self->parts = pl_xcalloc(count + 1, sizeof(*self->parts));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        struct pl_config_part *part = &self->parts[self->part_count++];
        size_t len;
        part->kind = get_string(L, lua_gettop(L), "kind");
        part->name = get_string(L, lua_gettop(L), "name");
        lua_getfield(L, -1, "text");
        const char *text = lua_tolstring(L, -1, &len);
        SHA256((const unsigned char *)text, len, part->digest);
        lua_pop(L, 2);
    }
}

void pl_config_read_all(struct pl_config *self, lua_State *L, int index)
{
    char *level = get_string(L, index, "log_level");
    self->log_level = level ? pl_log_level_from_name(level) : PL_LOG_INFO;
    free(level); /* before anything that may raise an error */
    pl_config_read_listen(self, L, index);
    read_admin(self, L, index);
    lua_getfield(L, index, "limits");
    pl_config_read_limits(self, L, lua_gettop(L));
    lua_pop(L, 1);
    self->workers = (int)get_number(L, index, "workers");
    self->drain_ms = get_ms(L, index, "drain_ms");
    read_access_log(self, L, index);
    read_budgets(self, L, index);
    read_reload(self, L, index);
    read_topology(self, L, index);
    read_routes(self, L, index);
    pl_config_read_tracing(self, L, index);
}
