/*
 * Config: see config.h. Checking is Lua's work (perilune.config); here its result becomes C data.
 */
#include "bind.h"
#include "config_internal.h"
#include "log.h"
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The simulator's: it runs our own code, which may have large bodies to count. */
static const struct pl_vm_limits simulator_limits = {.memory_bytes = 256u * 1024 * 1024,
                                                     .burst_us = 2000 * 1000};
/* Loading may take longer than a request's burst. */
static const struct pl_vm_limits load_limits = {.memory_bytes = 64u * 1024 * 1024,
                                                .burst_us = 2000 * 1000};

/* ---- loading ---- */

static void check_directory(lua_State *L, void *arg)
{
    struct pl_config *self = arg;
    pl_vm_require(L, "perilune.boot");
    lua_getfield(L, -1, "check");
    lua_call(L, pl_config_push_sources(L, self), 4);
    self->warnings = pl_xstrdup(lua_tostring(L, -1));
    lua_pop(L, 1);
    pl_config_read_all(self, L, lua_gettop(L) - 2);
    pl_config_read_parts(self, L, lua_gettop(L) - 1);
    pl_config_read_shown(self, L, lua_gettop(L));
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
    if (rc == PL_OK) {
        pl_config_digest(self);
        return self;
    }
    if (!*problems)
        *problems = pl_xstrdup(error);
    pl_config_free(self);
    return NULL;
}

static int read_source(struct pl_config *self, const struct pl_config_source *source,
                       char **problems)
{
    int rc = PL_OK;
    if (source->directory) {
        self->directory = pl_xstrdup(source->directory);
        rc = pl_config_read_directory(self, problems);
    }
    for (size_t i = 0; i < source->file_count && rc == PL_OK; i++)
        rc = pl_config_set_file(self, &source->files[i], problems);
    return rc;
}

struct pl_config *pl_config_load_from(const struct pl_config_source *source, char **problems)
{
    struct pl_config *self = pl_xcalloc(1, sizeof(*self));
    *problems = NULL;
    self->ref_count = 1;
    self->offline = source->offline;
    if (read_source(self, source, problems) != PL_OK) {
        pl_config_free(self);
        return NULL;
    }
    self->source = source;
    self = load(self, check_directory, problems);
    if (self)
        self->source = NULL;
    return self;
}

struct pl_config *pl_config_load(const char *directory, char **problems)
{
    return pl_config_load_from(&(struct pl_config_source){.directory = directory}, problems);
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
    pl_config_read_listen(self, L, at);
    lua_getfield(L, at, "limits");
    pl_config_read_limits(self, L, lua_gettop(L));
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
    self->ref_count = 1;
    self->is_simulator = true;
    self->vm_limits = simulator_limits;
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

/* ---- the command line ---- */

bool pl_config_is_loopback(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 || strncmp(address, "127.", 4) == 0 ||
           strcmp(address, "::1") == 0 || strcmp(address, "localhost") == 0;
}

static void replace(char **text, const char *with)
{
    free(*text);
    *text = pl_xstrdup(with);
}

int pl_config_override(struct pl_config *self, const struct pl_config_overrides *overrides,
                       char *error, size_t error_size)
{
    if (overrides->listen_address) {
        replace(&self->listen_address, overrides->listen_address);
        self->listen_port = overrides->listen_port;
    }
    if (overrides->admin_address) {
        replace(&self->admin_address, overrides->admin_address);
        self->admin_port = overrides->admin_port;
    }
    if (overrides->workers >= 0)
        self->workers = overrides->workers;
    if (overrides->log_format >= 0)
        self->topology.access_log.is_plain = overrides->log_format == 1;
    if (self->admin_address && !self->admin_token && !pl_config_is_loopback(self->admin_address)) {
        snprintf(error, error_size, "--admin %.100s: an address off loopback needs admin.token",
                 self->admin_address);
        return PL_ERR_SYNTAX;
    }
    return PL_OK;
}

/* ---- health ---- */

/* What a slot is kept under: the same name at the same address is the same thing. */
static uint64_t slot_key(const char *name, const struct pl_provider *provider)
{
    char *url = pl_config_format("%s://%s%s", provider->endpoint.tls ? "https" : "http",
                                 provider->host_header, provider->base_path);
    uint64_t key = pl_health_key(pl_str_of(name), pl_str_of(url));
    free(url);
    return key;
}

static char *slot_name(const struct pl_config *self, const struct pl_target *target)
{
    return pl_config_format("%s/%s", self->topology.providers[target->provider_index].name,
                            target->model ? target->model : "");
}

static pl_health_slot take_slot(struct pl_config *self, const char *name,
                                const struct pl_provider *provider)
{
    return pl_health_slot_for(self->topology.health, slot_key(name, provider), &provider->rules);
}

/* A key is found again by what it is, whatever its place in the list; the salt keeps what is stored
 * from telling anything of it. Main thread only, as all that binds. */
static pl_health_slot take_key_slot(struct pl_config *self, const struct pl_provider *provider,
                                    const struct pl_key *key)
{
    static uint64_t salt;
    struct pl_health_rules rules = {.base_ejection_ms = provider->rules.base_ejection_ms,
                                    .max_ejection_ms = provider->rules.max_ejection_ms,
                                    .jitter_ratio = provider->rules.jitter_ratio,
                                    .decay_ms = provider->rules.decay_ms,
                                    .probe_timeout_ms = provider->rules.probe_timeout_ms};
    /* not pl_random_u64: a played gateway's comes from its seed */
    while (salt == 0 && getrandom(&salt, sizeof(salt), 0) < 0)
        continue;
    char *name =
        pl_config_format("%s key %016llx %s", provider->name, (unsigned long long)salt, key->value);
    pl_health_slot slot =
        pl_health_slot_for(self->topology.health, slot_key(name, provider), &rules);
    explicit_bzero(name, strlen(name));
    free(name);
    return slot;
}

static bool bind_keys(struct pl_config *self, struct pl_provider *provider)
{
    bool complete = true;
    for (size_t i = 0; i < provider->key_count; i++) {
        provider->keys[i].slot = take_key_slot(self, provider, &provider->keys[i]);
        complete = complete && provider->keys[i].slot != PL_HEALTH_NO_SLOT;
    }
    return complete;
}

size_t pl_config_slot_count(const struct pl_config *self)
{
    const struct pl_topology *topology = &self->topology;
    size_t count = topology->provider_count + topology->target_count;
    for (size_t i = 0; i < topology->provider_count; i++)
        count += topology->providers[i].key_count;
    return count;
}

int pl_config_bind_health(struct pl_config *self, struct pl_health *health, struct pl_gauge *gauge)
{
    struct pl_topology *topology = &self->topology;
    bool complete = true;
    topology->health = health;
    topology->gauge = gauge;
    for (size_t i = 0; i < topology->provider_count; i++) {
        struct pl_provider *provider = &topology->providers[i];
        provider->slot = take_slot(self, provider->name, provider);
        complete = bind_keys(self, provider) && complete && provider->slot != PL_HEALTH_NO_SLOT;
    }
    for (size_t i = 0; i < topology->target_count; i++) {
        struct pl_target *target = &topology->targets[i];
        char *name = slot_name(self, target);
        target->slot = take_slot(self, name, &topology->providers[target->provider_index]);
        complete = complete && target->slot != PL_HEALTH_NO_SLOT;
        free(name);
    }
    return complete ? PL_OK : PL_ERR_LIMIT;
}

void pl_config_apply_rules(const struct pl_config *self)
{
    const struct pl_topology *topology = &self->topology;
    for (size_t i = 0; i < topology->provider_count; i++)
        pl_health_set_rules(topology->health, topology->providers[i].slot,
                            &topology->providers[i].rules);
    for (size_t i = 0; i < topology->target_count; i++)
        pl_health_set_rules(topology->health, topology->targets[i].slot,
                            &topology->providers[topology->targets[i].provider_index].rules);
}

static void release_health(struct pl_config *self)
{
    struct pl_topology *topology = &self->topology;
    if (!topology->health)
        return;
    for (size_t i = 0; i < topology->provider_count; i++) {
        const struct pl_provider *provider = &topology->providers[i];
        pl_health_release(topology->health, provider->slot);
        for (size_t j = 0; j < provider->key_count; j++)
            pl_health_release(topology->health, provider->keys[j].slot);
    }
    for (size_t i = 0; i < topology->target_count; i++)
        pl_health_release(topology->health, topology->targets[i].slot);
}

void pl_config_log_warnings(const struct pl_config *self)
{
    for (const char *line = self->warnings; line && *line != '\0';) {
        size_t len = strcspn(line, "\n");
        pl_log(PL_LOG_WARN, "%.*s", (int)len, line);
        line += len + (line[len] == '\n');
    }
}

/* ---- freeing ---- */

static void free_keys(struct pl_provider *self)
{
    for (size_t i = 0; i < self->key_count; i++) {
        explicit_bzero(self->keys[i].value, strlen(self->keys[i].value));
        free(self->keys[i].value);
        free(self->keys[i].shown);
    }
    free(self->keys);
}

static void provider_deinit(struct pl_provider *self)
{
    free_keys(self);
    free(self->name);
    free(self->base_path);
    free(self->host_header);
    free(self->endpoint.host);
    free(self->endpoint.server_name);
    free(self->endpoint.trust);
    SSL_CTX_free(self->endpoint.tls);
    pl_headers_deinit(&self->headers);
    pl_headers_deinit(&self->defaults);
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
    free(self->route);
    free(self->model);
    free(self->model_json);
    free(self->prefix_members);
    for (size_t i = 0; i < self->prefix_edit_count; i++) {
        free((char *)self->prefix_edits[i].key.data);
        free((char *)self->prefix_edits[i].value.data);
    }
    free(self->prefix_edits);
    pl_headers_deinit(&self->set_headers);
}

struct pl_config *pl_config_ref(struct pl_config *self)
{
    self->ref_count++;
    return self;
}

void pl_config_unref(struct pl_config *self)
{
    if (self && --self->ref_count == 0)
        pl_config_free(self);
}

void pl_config_free(struct pl_config *self)
{
    if (!self)
        return;
    release_health(self);
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
    for (size_t i = 0; i < self->path_count; i++)
        free(self->paths[i]);
    for (size_t i = 0; i < self->part_count; i++) {
        free(self->parts[i].kind);
        free(self->parts[i].name);
    }
    for (size_t i = 0; i < self->route_count; i++)
        free(self->routes[i].name);
    SSL_CTX_free(self->tls);
    free(self->routes);
    free(self->warnings);
    free(self->shown_json);
    free(self->shown_routes_json);
    pl_tracing_unref(self->tracing);
    free(self->paths);
    free(self->parts);
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
    free(self->access_log_path);
    for (char **at = self->topology.access_log.redact; at && *at; at++)
        free(*at);
    free(self->topology.access_log.redact);
    free(self);
}
