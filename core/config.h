/*
 * Config: a policies directory as checked data. Read and evaluated once, on the main thread, in a
 * VM of its own; the workers' VMs are then made from the same bytes and the same answers of env,
 * secret and file, so that all of them hold what was checked.
 *
 * Immutable after pl_config_load; shared by all threads.
 */
#ifndef PL_CONFIG_H
#define PL_CONFIG_H

#include "base.h"
#include "server.h"
#include "target.h"
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

struct pl_config {
    bool is_simulator;
    bool offline;
    char *directory;
    struct pl_config_file *files;
    size_t file_count;
    struct pl_config_value *values;
    size_t value_count;
    bool recording;                        /* helpers may still look outside */
    const struct pl_config_source *source; /* while recording, if not a directory alone */
    char **arguments;                      /* the simulator's command line; borrowed */
    int argument_count;

    char *listen_address;
    uint16_t listen_port;
    char *tls_cert, *tls_key; /* NULL: plain */
    SSL_CTX *tls;
    char *admin_address; /* NULL: no admin listener */
    uint16_t admin_port;
    char *admin_token; /* NULL: none asked for */
    int workers;       /* 0: one per core */
    uint32_t drain_ms;
    int log_level;
    struct pl_server_limits limits;
    struct pl_vm_limits vm_limits; /* of each worker's VM */
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
void pl_config_free(struct pl_config *self);

/** Gives each provider and target its slot in `health`, and the workers the gauge. Both are
 * borrowed and outlive the configuration. */
void pl_config_bind_health(struct pl_config *self, struct pl_health *health,
                           struct pl_gauge *gauge);

/** Pushes the arguments that perilune.boot's functions take: sources, helpers or the command line.
 */
int pl_config_push_sources(lua_State *L, const struct pl_config *self);

#endif
