/*
 * Config: a policies directory as checked data. Read and evaluated once, on the main thread, in a
 * VM of its own; the workers' VMs are then made from the same bytes and the same answers of env,
 * secret and file, so that all of them hold what was checked.
 *
 * Immutable once it is loaded, overridden and bound; shared by all threads. References are counted
 * by the main thread.
 */
#ifndef PL_CONFIG_H
#define PL_CONFIG_H

#include "base.h"
#include "exporter.h"
#include "server.h"
#include "target.h"
#include "trial.h"
#include "vm.h"
#include <lua.h>

#define PL_CONFIG_MAX_FILE_BYTES (1024 * 1024)
#define PL_CONFIG_MAX_FILES      256
#define PL_CONFIG_MAX_FOLDERS    256
#define PL_CONFIG_MAX_DEPTH      4 /* folders within folders */

struct pl_config_file {
    char *name; /* "gateway.lua", "fallback.lua", "lib/tenants.lua" */
    char *data;
    size_t len;
};

/** What a helper (env, secret, file) has answered, so that it answers the same ever after. */
struct pl_config_value {
    const char *helper;
    char *name;
    char *value;   /* NULL: there is none */
    char *problem; /* why, or NULL */
};

/** One variable of an environment. */
struct pl_config_variable {
    const char *name, *value;
};

/** Where a configuration comes from, other than a directory alone. All is borrowed for the call. */
struct pl_config_source {
    const char *directory;              /* whose files come first, or NULL */
    const struct pl_config_file *files; /* further ones, which replace those of the same name */
    size_t file_count;
    const struct pl_config_variable *environment; /* instead of the process's, for env and secret;
                                                     NULL: the process's */
    size_t variable_count;
    bool offline; /* nothing will be listened on or connected to: no certificate is read */
};

/** A piece of the configuration, to tell what differs from another one. */
struct pl_config_part {
    char *kind; /* "provider", "target", "route", "setting" */
    char *name;
    uint8_t digest[32]; /* of all it says; credentials are in it */
};

/** What the admin listener needs of a route; its targets are neighbours in the topology. */
struct pl_config_route {
    char *name;
    size_t first_target, target_count;
};

/** What the command line says instead of gateway.lua. */
struct pl_config_overrides {
    char *listen_address, *admin_address; /* NULL: not given */
    uint16_t listen_port, admin_port;
    int workers;    /* -1: not given */
    int log_format; /* 0: json, 1: text, of the access log and of the log; -1: not given */
};

struct pl_config {
    unsigned ref_count; /* main thread only */
    bool is_simulator;
    bool offline;
    char *directory;
    struct pl_config_file *files;
    size_t file_count;
    struct pl_config_value *values;
    size_t value_count;
    bool recording;                        /* helpers may still look outside */
    const struct pl_config_source *source; /* while recording, if not a directory alone */
    char **paths;                          /* of what else was read: by helpers, certificates */
    size_t path_count;
    uint64_t fingerprint; /* of all that was read, taken before it was; see below */
    char digest[17];      /* of names and bytes of the files and of what helpers answered, hex */
    struct pl_config_route *routes;
    size_t route_count;
    char *warnings; /* what looks like a mistake, a line each; NULL for a simulator */
    char *shown_json, *shown_routes_json; /* for operators: no secrets; NULL for a simulator */
    struct pl_config_part *parts;
    size_t part_count;
    char **arguments; /* the simulator's command line; borrowed */
    int argument_count;

    char *listen_address;
    uint16_t listen_port;
    char *tls_cert, *tls_key; /* NULL: plain */
    SSL_CTX *tls;
    char *admin_address; /* or "unix:/path"; NULL: no admin listener */
    uint16_t admin_port;
    char *admin_token;     /* NULL: none asked for */
    uint32_t recent_count; /* records of ended requests that are kept */
    bool has_metrics;      /* requests are counted */
    int workers;           /* 0: one per core */
    uint32_t drain_ms;
    uint32_t generation_drain_ms; /* how long an old generation may serve its last requests */
    uint32_t strikes_count, strikes_window_ms; /* so many policy failures: back; 0: never */
    struct pl_trial_rules trial; /* how much worse a canary may do; its duration is asked for */
    int log_level;
    char *access_log_path; /* "-": standard output; NULL: none */
    struct pl_server_limits limits;
    struct pl_vm_limits vm_limits; /* of each worker's VM */
    struct pl_tracing *tracing;    /* where spans go; NULL until it is read */
    struct pl_topology topology;
};

/**
 * Loads and checks a directory. NULL when anything is wrong: `problems` then has a new string, a
 * problem per line, each "file:line: key: message".
 */
struct pl_config *pl_config_load(const char *directory, char **problems);
/** The same from `source`. */
struct pl_config *pl_config_load_from(const struct pl_config_source *source, char **problems);
/** The same for the simulator's command line. `exit_status`: 0 for --help. */
struct pl_config *pl_config_load_simulator(int argument_count, char **arguments, char **problems,
                                           int *exit_status);
/** One more reference; a new configuration has one. Main thread only. */
struct pl_config *pl_config_ref(struct pl_config *self);
/** Frees it with the last reference, and its health slots then. Main thread only; NULL is let pass.
 */
void pl_config_unref(struct pl_config *self);

/**
 * Puts what the command line says in its place. PL_ERR_SYNTAX with a sentence when the two do not
 * go together. Before it is bound.
 */
PL_NODISCARD int pl_config_override(struct pl_config *self,
                                    const struct pl_config_overrides *overrides, char *error,
                                    size_t error_size);

/** Logs `warnings`. */
void pl_config_log_warnings(const struct pl_config *self);

/** Whether only this machine reaches the address. */
bool pl_config_is_loopback(const char *address);

/** How many slots its providers, their keys and its targets take. */
size_t pl_config_slot_count(const struct pl_config *self);
/** Gives each provider, key and target its slot in `health`, and the workers the gauge. Both are
 * borrowed and outlive the configuration. PL_ERR_LIMIT when there are not slots enough. */
PL_NODISCARD int pl_config_bind_health(struct pl_config *self, struct pl_health *health,
                                       struct pl_gauge *gauge);
/** Its rules hold for its slots from here on. */
void pl_config_apply_rules(const struct pl_config *self);

/** Names, sizes, times and inodes of what is there now of all that this configuration was read
 *  from: differs from `fingerprint` when something was edited, added, removed or put in place. */
uint64_t pl_config_fingerprint(const struct pl_config *self);

/** Pushes the arguments that perilune.boot's functions take: sources, helpers or the command line.
 */
int pl_config_push_sources(lua_State *L, const struct pl_config *self);

#endif
