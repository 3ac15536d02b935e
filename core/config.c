/*
 * Config: see config.h. Checking is Lua's work (perilune.config); here its result becomes C data.
 */
#include "config.h"
#include "bind.h"
#include "log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const struct pl_vm_limits pl_config_vm_limits = {.memory_bytes = 256u * 1024 * 1024,
                                                 .burst_us = 50 * 1000};
/* Loading may take longer than a request's burst. */
static const struct pl_vm_limits load_limits = {.memory_bytes = 64u * 1024 * 1024,
                                                .burst_us = 2000 * 1000};

/* ---- files ----------------------------------------------------------------------------------- */

static char *format_text(const char *fmt, ...) PL_PRINTF(1, 2);

static char *format_text(const char *fmt, ...)
{
    char *out = NULL;
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&out, fmt, args) < 0)
        abort();
    va_end(args);
    return out;
}

/* Reads a regular file of at most `max_bytes`; NULL with `*problem` set. */
static char *read_file(const char *path, size_t max_bytes, size_t *len, char **problem)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    char *data = NULL;
    if (!file || fstat(fd, &st) != 0) {
        *problem = pl_xstrdup(strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        *problem = pl_xstrdup("is not a regular file");
    } else if ((size_t)st.st_size > max_bytes) {
        *problem = format_text("is larger than %zu bytes", max_bytes);
    } else {
        data = pl_xmalloc((size_t)st.st_size + 1);
        *len = fread(data, 1, (size_t)st.st_size, file);
        data[*len] = '\0';
    }
    if (file)
        fclose(file);
    return data;
}

static bool is_lua_file(const char *name)
{
    size_t len = strlen(name);
    return name[0] != '.' && len > 4 && strcmp(name + len - 4, ".lua") == 0;
}

static int add_file(struct pl_config *self, const char *name, char **problems)
{
    char *problem = NULL, *path = format_text("%s/%s", self->directory, name);
    size_t len;
    char *data = NULL;
    if (self->file_count == PL_CONFIG_MAX_FILES)
        problem = format_text("more than %d .lua files in the directory", PL_CONFIG_MAX_FILES);
    else
        data = read_file(path, PL_CONFIG_MAX_FILE_BYTES, &len, &problem);
    free(path);
    if (!data) {
        *problems = format_text("%s: %s", name, problem);
        free(problem);
        return PL_ERR_SYSTEM;
    }
    self->files = pl_xrealloc(self->files, (self->file_count + 1) * sizeof(*self->files));
    self->files[self->file_count++] = (struct pl_config_file){pl_xstrdup(name), data, len};
    return PL_OK;
}

static int read_directory(struct pl_config *self, char **problems)
{
    struct dirent **entries;
    int count = scandir(self->directory, &entries, NULL, alphasort);
    int rc = PL_OK;
    if (count < 0) {
        *problems = format_text("%s: %s", self->directory, strerror(errno));
        return PL_ERR_SYSTEM;
    }
    for (int i = 0; i < count; i++) {
        if (rc == PL_OK && is_lua_file(entries[i]->d_name))
            rc = add_file(self, entries[i]->d_name, problems);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

/* ---- helpers: env, secret, file ----------------------------------------------------------------
 */

static struct pl_config_value look_up_env(const char *name)
{
    const char *value = getenv(name);
    return (struct pl_config_value){.value = value ? pl_xstrdup(value) : NULL};
}

static struct pl_config_value look_up_file(const char *directory, const char *name)
{
    struct pl_config_value result = {0};
    char *path =
        name[0] == '/' || !directory ? pl_xstrdup(name) : format_text("%s/%s", directory, name);
    size_t len;
    result.value = read_file(path, PL_CONFIG_MAX_FILE_BYTES, &len, &result.problem);
    free(path);
    return result;
}

static struct pl_config_value look_up_secret(const char *directory, const char *name)
{
    struct pl_config_value result = look_up_env(name);
    char *variable = format_text("%s_FILE", name);
    const char *path = getenv(variable);
    if (!result.value && path)
        result = look_up_file(directory, path);
    free(variable);
    return result;
}

static const struct pl_config_value *look_up(struct pl_config *self, const char *helper,
                                             const char *name)
{
    for (size_t i = 0; i < self->value_count; i++) {
        if (strcmp(self->values[i].helper, helper) == 0 && strcmp(self->values[i].name, name) == 0)
            return &self->values[i];
    }
    if (!self->recording)
        return NULL;
    struct pl_config_value found;
    if (strcmp(helper, "env") == 0)
        found = look_up_env(name);
    else if (strcmp(helper, "secret") == 0)
        found = look_up_secret(self->directory, name);
    else
        found = look_up_file(self->directory, name);
    found.helper = helper;
    found.name = pl_xstrdup(name);
    self->values = pl_xrealloc(self->values, (self->value_count + 1) * sizeof(*self->values));
    self->values[self->value_count] = found;
    return &self->values[self->value_count++];
}

/* helper(name) -> string | nil, problem; upvalues: the config, the helper's name */
static int call_helper(lua_State *L)
{
    struct pl_config *self = lua_touserdata(L, lua_upvalueindex(1));
    const char *helper = lua_touserdata(L, lua_upvalueindex(2));
    const struct pl_config_value *found = look_up(self, helper, luaL_checkstring(L, 1));
    lua_pushstring(L, found ? found->value : NULL);
    lua_pushstring(L, found ? found->problem : "was not asked for when the file was checked");
    return 2;
}

static void push_helpers(lua_State *L, const struct pl_config *self)
{
    static const char *const names[] = {"env", "secret", "file"};
    lua_newtable(L);
    for (size_t i = 0; i < PL_COUNT(names); i++) {
        lua_pushlightuserdata(L, (void *)self);
        lua_pushlightuserdata(L, (void *)names[i]);
        lua_pushcclosure(L, call_helper, 2);
        lua_setfield(L, -2, names[i]);
    }
}

int pl_config_push_sources(lua_State *L, const struct pl_config *self)
{
    lua_newtable(L);
    if (self->is_simulator) {
        for (int i = 0; i < self->argument_count; i++) {
            lua_pushstring(L, self->arguments[i]);
            lua_rawseti(L, -2, i + 1);
        }
        return 1;
    }
    for (size_t i = 0; i < self->file_count; i++) {
        lua_pushlstring(L, self->files[i].data, self->files[i].len);
        lua_setfield(L, -2, self->files[i].name);
    }
    push_helpers(L, self);
    return 2;
}

/* ---- from Lua's table to C ---------------------------------------------------------------------
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

static void read_limits(struct pl_config *self, lua_State *L, int index)
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

static void read_header_pairs(lua_State *L, int index, const char *key, struct pl_headers *out)
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

static char *make_host_header(const char *host, uint16_t port, bool tls)
{
    bool is_v6 = strchr(host, ':') != NULL;
    const char *open = is_v6 ? "[" : "", *close = is_v6 ? "]" : "";
    if (port == (tls ? 443 : 80))
        return format_text("%s%s%s", open, host, close);
    return format_text("%s%s%s:%u", open, host, close, port);
}

static void read_credential(lua_State *L, int index, struct pl_provider *self)
{
    char *auth = get_string(L, index, "auth"), *key = get_string(L, index, "key");
    int rc = PL_OK;
    self->auth = auth && strcmp(auth, "passthrough") == 0 ? PL_AUTH_PASSTHROUGH : PL_AUTH_NONE;
    if (key) {
        char *value = format_text("Bearer %s", key);
        self->auth = PL_AUTH_KEY;
        rc = pl_headers_add(&self->headers, PL_STR("Authorization"),
                            (struct pl_str){value, strlen(value)});
        explicit_bzero(value, strlen(value));
        explicit_bzero(key, strlen(key));
        free(value);
    }
    free(auth);
    free(key);
    if (rc != PL_OK)
        luaL_error(L, "gateway.lua: providers.%s.key: has characters that a header cannot carry",
                   self->name);
}

static char *in_directory(const struct pl_config *self, char *path)
{
    if (!path || path[0] == '/' || !self->directory)
        return path;
    char *full = format_text("%s/%s", self->directory, path);
    free(path);
    return full;
}

static void read_tls(struct pl_config *config, lua_State *L, int index, struct pl_provider *self)
{
    char error[256];
    self->endpoint.server_name = get_string(L, index, "tls_server_name");
    if (!self->endpoint.server_name)
        self->endpoint.server_name = pl_xstrdup(self->endpoint.host);
    if (!get_boolean(L, index, "tls"))
        return;
    char *ca = in_directory(config, get_string(L, index, "tls_ca"));
    struct pl_tls_client_config tls = {.ca_file = ca,
                                       .verify = get_boolean(L, index, "tls_verify")};
    self->endpoint.tls = pl_tls_client_ctx_new(&tls, error, sizeof(error));
    free(ca);
    if (!self->endpoint.tls)
        luaL_error(L, "gateway.lua: providers.%s.tls: %s", self->name, error);
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
        read_header_pairs(L, at, "headers", &self->headers);
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
    self->name = get_string(L, index, "name");
    self->base_path = get_string(L, index, "path");
    self->endpoint.host = get_string(L, index, "host");
    self->endpoint.port = (uint16_t)get_number(L, index, "port");
    self->endpoint.max_idle = get_u32(L, index, "idle_connections");
    self->endpoint.idle_ms = get_ms(L, index, "idle_ms");
    self->host_header =
        make_host_header(self->endpoint.host, self->endpoint.port, get_boolean(L, index, "tls"));
    read_credential(L, index, self);
    read_header_pairs(L, index, "headers", &self->headers);
    read_health(L, index, self);
    read_tls(config, L, index, self);
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

static void read_edits(lua_State *L, int index, struct pl_target *self)
{
    char **unset = read_strings(L, index, "unset_body");
    size_t unset_count = 0;
    while (unset[unset_count])
        unset_count++;
    lua_getfield(L, index, "set_body");
    size_t set_count = lua_objlen(L, -1);
    self->edits = pl_xcalloc(set_count + unset_count + 1, sizeof(*self->edits));
    for (size_t i = 0; i < set_count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        self->edits[self->edit_count++] = (struct pl_json_edit){.key = copy_str(pair_item(L, 1)),
                                                                .value = copy_str(pair_item(L, 2))};
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    for (size_t i = 0; i < unset_count; i++)
        self->edits[self->edit_count++] =
            (struct pl_json_edit){.key = {unset[i], strlen(unset[i])}, .value = {NULL, 0}};
    free(unset);
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
    self->weight = get_number(L, index, "weight");
    read_header_pairs(L, index, "set_headers", &self->set_headers);
    self->remove_headers = read_strings(L, index, "remove_headers");
    read_edits(L, index, self);
    self->limits = read_timeouts(L, index);
    lua_getfield(L, index, "limits");
    self->max_in_flight = get_u32(L, lua_gettop(L), "concurrent_count");
    self->queue_count = get_u32(L, lua_gettop(L), "queue_count");
    self->queue_ms = get_ms(L, lua_gettop(L), "queue_ms");
    lua_pop(L, 1);
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
}

static void read_listen(struct pl_config *self, lua_State *L, int index)
{
    char error[256];
    lua_getfield(L, index, "listen");
    int at = lua_gettop(L);
    self->listen_address = get_string(L, at, "address");
    self->listen_port = (uint16_t)get_number(L, at, "port");
    self->tls_cert = in_directory(self, get_string(L, at, "tls_cert"));
    self->tls_key = in_directory(self, get_string(L, at, "tls_key"));
    lua_pop(L, 1);
    if (!self->tls_cert)
        return;
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
    lua_pop(L, 1);
}

static void read_config(struct pl_config *self, lua_State *L, int index)
{
    char *level = get_string(L, index, "log_level");
    self->log_level = level ? pl_log_level_from_name(level) : PL_LOG_INFO;
    free(level); /* before anything that may raise an error */
    read_listen(self, L, index);
    read_admin(self, L, index);
    lua_getfield(L, index, "limits");
    read_limits(self, L, lua_gettop(L));
    lua_pop(L, 1);
    self->workers = (int)get_number(L, index, "workers");
    self->drain_ms = get_ms(L, index, "drain_ms");
    read_topology(self, L, index);
}

/* ---- loading ------------------------------------------------------------------------------------
 */

static void check_directory(lua_State *L, void *arg)
{
    struct pl_config *self = arg;
    pl_vm_require(L, "perilune.boot");
    lua_getfield(L, -1, "check");
    lua_call(L, pl_config_push_sources(L, self), 1);
    read_config(self, L, lua_gettop(L));
}

static struct pl_config *load(struct pl_config *self, void (*fn)(lua_State *, void *),
                              char **problems)
{
    char error[8192];
    struct pl_vm *vm = pl_bind_vm_new(&load_limits, NULL);
    if (!vm)
        abort();
    self->recording = true;
    int rc = pl_vm_call(vm, fn, self, error, sizeof(error));
    self->recording = false;
    pl_vm_free(vm);
    if (rc == PL_OK)
        return self;
    if (!*problems)
        *problems = pl_xstrdup(error);
    pl_config_free(self);
    return NULL;
}

struct pl_config *pl_config_load(const char *directory, char **problems)
{
    struct pl_config *self = pl_xcalloc(1, sizeof(*self));
    *problems = NULL;
    self->directory = pl_xstrdup(directory);
    if (read_directory(self, problems) != PL_OK) {
        pl_config_free(self);
        return NULL;
    }
    return load(self, check_directory, problems);
}

static void check_simulator(lua_State *L, void *arg)
{
    struct pl_config *self = arg;
    pl_vm_require(L, "perilune.boot");
    lua_getfield(L, -1, "sim_settings");
    lua_call(L, pl_config_push_sources(L, self), 3);
    if (lua_isnil(L, -3)) {
        /* a message of any length: stays on the stack as the error */
        bool is_help = strcmp(lua_tostring(L, -2), "help") == 0;
        self->workers = is_help ? -1 : 0;
        lua_error(L);
    }
    int at = lua_gettop(L) - 2;
    read_listen(self, L, at);
    lua_getfield(L, at, "limits");
    read_limits(self, L, lua_gettop(L));
    lua_pop(L, 1);
    self->workers = 1;
    self->drain_ms = 1000;
    self->log_level = PL_LOG_INFO;
}

struct pl_config *pl_config_load_simulator(int argument_count, char **arguments, char **problems,
                                           int *exit_status)
{
    char error[16384];
    struct pl_config *self = pl_xcalloc(1, sizeof(*self));
    self->is_simulator = true;
    self->argument_count = argument_count;
    self->arguments = arguments;
    *problems = NULL;
    struct pl_vm *vm = pl_bind_vm_new(&load_limits, NULL);
    if (!vm)
        abort();
    int rc = pl_vm_call(vm, check_simulator, self, error, sizeof(error));
    pl_vm_free(vm);
    if (rc == PL_OK)
        return self;
    *exit_status = self->workers == -1 ? 0 : 2;
    *problems = pl_xstrdup(error);
    pl_config_free(self);
    return NULL;
}

/* ---- health
 * -------------------------------------------------------------------------------------- */

static struct pl_str str_of(const char *text)
{
    return (struct pl_str){text, strlen(text)};
}

/* What a slot is kept under: the same name at the same address is the same thing. */
static uint64_t slot_key(const char *name, const struct pl_provider *provider)
{
    char *url = format_text("%s://%s%s", provider->endpoint.tls ? "https" : "http",
                            provider->host_header, provider->base_path);
    uint64_t key = pl_health_key(str_of(name), str_of(url));
    free(url);
    return key;
}

void pl_config_bind_health(struct pl_config *self, struct pl_health *health, struct pl_gauge *gauge)
{
    struct pl_topology *topology = &self->topology;
    topology->health = health;
    topology->gauge = gauge;
    for (size_t i = 0; i < topology->provider_count; i++) {
        struct pl_provider *provider = &topology->providers[i];
        provider->slot =
            pl_health_slot_for(health, slot_key(provider->name, provider), &provider->rules);
    }
    for (size_t i = 0; i < topology->target_count; i++) {
        struct pl_target *target = &topology->targets[i];
        const struct pl_provider *provider = &topology->providers[target->provider_index];
        char *name = format_text("%s/%s", provider->name, target->model ? target->model : "");
        target->slot = pl_health_slot_for(health, slot_key(name, provider), &provider->rules);
        free(name);
    }
}

/* ---- freeing ------------------------------------------------------------------------------------
 */

static void provider_deinit(struct pl_provider *self)
{
    free(self->name);
    free(self->base_path);
    free(self->host_header);
    free(self->endpoint.host);
    free(self->endpoint.server_name);
    SSL_CTX_free(self->endpoint.tls);
    pl_headers_deinit(&self->headers);
    free(self->check.path);
    free(self->check.method);
    free(self->check.statuses);
    pl_headers_deinit(&self->check.headers);
}

static void target_deinit(struct pl_target *self)
{
    for (char **at = self->remove_headers; at && *at; at++)
        free(*at);
    for (size_t i = 0; i < self->edit_count; i++) {
        free((char *)self->edits[i].key.data);
        free((char *)self->edits[i].value.data);
    }
    free(self->remove_headers);
    free(self->edits);
    free(self->name);
    free(self->model);
    free(self->model_json);
    pl_headers_deinit(&self->set_headers);
}

void pl_config_free(struct pl_config *self)
{
    if (!self)
        return;
    for (size_t i = 0; i < self->topology.provider_count; i++)
        provider_deinit(&self->topology.providers[i]);
    for (size_t i = 0; i < self->topology.target_count; i++)
        target_deinit(&self->topology.targets[i]);
    for (size_t i = 0; i < self->file_count; i++) {
        free(self->files[i].name);
        free(self->files[i].data);
    }
    for (size_t i = 0; i < self->value_count; i++) {
        free(self->values[i].name);
        free(self->values[i].value);
        free(self->values[i].problem);
    }
    SSL_CTX_free(self->tls);
    free(self->topology.providers);
    free(self->topology.targets);
    free(self->files);
    free(self->values);
    free(self->directory);
    free(self->listen_address);
    free(self->tls_cert);
    free(self->tls_key);
    free(self->admin_address);
    free(self->admin_token);
    free(self);
}
