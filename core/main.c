/*
 * Main: the command line, and the control plane's thread: it loads the configuration, opens the
 * sockets, starts the workers, waits for signals, and sees everything end.
 */
#include "admin.h"
#include "base.h"
#include "config.h"
#include "listen.h"
#include "log.h"
#include "probe.h"
#include "simulate.h"
#include "testing.h"
#include "watchdog.h"
#include "worker.h"
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define WORKERS_MAX       256 /* as in perilune.schema */
#define WATCH_INTERVAL_MS 100
#define WATCH_BURSTS      20   /* so many times its budget is a stall */
#define WATCH_MIN_MS      1000 /* but not less: a busy machine may well take a while */

enum exit_status { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char help_text[] =
    "perilune " PERILUNE_VERSION ": a Lua-scriptable gateway for LLM traffic\n"
    "\n"
    "usage:\n"
    "  perilune run [DIR]      serve with the policies in DIR (default: policies)\n"
    "      --listen ADDR:PORT  instead of listen.address (port 0 picks one)\n"
    "      --admin ADDR:PORT   instead of admin.address\n"
    "      --workers N         instead of workers (0: one per core)\n"
    "  perilune check [DIR]    check gateway.lua and its policies; exit status 1 if anything is "
    "wrong\n"
    "  perilune test [DIR]     run the specs in DIR/spec: no network, a virtual clock; exit status "
    "1\n"
    "      [-- OPTIONS]        if any fails. OPTIONS are busted's\n"
    "  perilune simulate DIR [DIR2] --scenario FILE | --log FILE\n"
    "                          what policies do in an outage, without network or waiting\n"
    "                          (perilune simulate --help)\n"
    "  perilune sim [FLAGS]    run a simulated provider (perilune sim --help)\n"
    "  perilune version\n"
    "  perilune help\n"
    "\n"
    "SIGTERM or SIGINT: stop accepting, finish what is in flight (at most `drain`), exit 0;\n"
    "a second one ends at once.\n";

struct overrides {
    const char *directory;
    char *listen_address, *admin_address;
    uint16_t listen_port, admin_port;
    int workers; /* -1: not given */
};

struct process {
    struct pl_config *config;
    struct event_base *base;
    struct pl_admin *admin;
    struct pl_worker *workers[WORKERS_MAX];
    int worker_count;
    bool draining;
    struct pl_health *health;
    struct pl_gauge *gauge;
    struct pl_resolver *resolver; /* of the active checks */
    struct pl_prober *prober;
    struct pl_watchdog *watchdog;
    struct event *watch_timer;
};

/* ---- serving ---- */

static void mail_all(struct process *self, enum pl_mail mail)
{
    for (int i = 0; i < self->worker_count; i++)
        pl_worker_mail(self->workers[i], mail);
}

static void on_stop_signal(evutil_socket_t signal_number, short what, void *arg)
{
    (void)what;
    struct process *self = arg;
    if (self->draining) {
        mail_all(self, PL_MAIL_STOP);
        return;
    }
    self->draining = true;
    pl_log(PL_LOG_INFO, "%s: draining, at most %u ms", strsignal(signal_number),
           self->config->drain_ms);
    if (self->admin)
        pl_admin_set_draining(self->admin);
    mail_all(self, PL_MAIL_DRAIN);
}

struct joiner {
    struct process *process;
    int done_fds[2];
};

/* Joins the workers off the main loop, which goes on serving signals and the admin listener. */
static void *join_workers(void *arg)
{
    struct joiner *self = arg;
    for (int i = 0; i < self->process->worker_count; i++)
        pl_worker_join(self->process->workers[i]);
    close(self->done_fds[1]);
    return NULL;
}

static void on_workers_done(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

/* Shared ports would let a second gateway in: an exclusive socket finds out whether one is there.
 */
static int check_port_is_free(const char *address, uint16_t port, char *error, size_t error_size)
{
    int fd = pl_listen(address, &port, false, error, error_size);
    if (fd < 0)
        return PL_ERR_SYSTEM;
    close(fd);
    return PL_OK;
}

static int start_workers(struct process *self)
{
    const struct pl_config *config = self->config;
    char error[1024];
    uint16_t port = config->listen_port;
    if (port != 0 &&
        check_port_is_free(config->listen_address, port, error, sizeof(error)) != PL_OK) {
        fprintf(stderr, "perilune: %s\n", error);
        return PL_ERR_SYSTEM;
    }
    for (int i = 0; i < self->worker_count; i++) {
        int fd =
            pl_listen(config->listen_address, &port, self->worker_count > 1, error, sizeof(error));
        if (fd >= 0)
            self->workers[i] = pl_worker_new(config, fd, error, sizeof(error));
        if (fd < 0 || !self->workers[i]) {
            fprintf(stderr, "perilune: %s\n", error);
            return PL_ERR_SYSTEM;
        }
    }
    self->config->listen_port = port;
    return PL_OK;
}

static void free_workers(struct process *self)
{
    for (int i = 0; i < self->worker_count; i++)
        pl_worker_free(self->workers[i]);
}

static int start_admin(struct process *self)
{
    struct pl_config *config = self->config;
    char error[256];
    if (!config->admin_address)
        return PL_OK;
    int fd = pl_listen(config->admin_address, &config->admin_port, false, error, sizeof(error));
    if (fd < 0) {
        fprintf(stderr, "perilune: admin: %s\n", error);
        return PL_ERR_SYSTEM;
    }
    self->admin = pl_admin_new(self->base, fd, config);
    return PL_OK;
}

static void print_address(const char *address, uint16_t port)
{
    printf(strchr(address, ':') ? "[%s]:%u" : "%s:%u", address, port);
}

/* The one line on standard output: what serves, and where. */
static void announce(const struct process *self)
{
    const struct pl_config *config = self->config;
    printf(config->is_simulator ? "perilune sim: listening on " : "perilune: listening on ");
    print_address(config->listen_address, config->listen_port);
    if (self->admin) {
        printf(", admin on ");
        print_address(config->admin_address, config->admin_port);
    }
    if (config->is_simulator)
        printf(" (%s)", pl_worker_banner(self->workers[0]));
    printf("\n");
    fflush(stdout);
}

static void block_stop_signals(int how)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(how, &set, NULL);
}

/* Runs until the workers have ended. */
static int run_until_done(struct process *self)
{
    struct joiner joiner = {.process = self};
    pthread_t thread;
    if (pipe(joiner.done_fds) != 0)
        return EXIT_FAILED;
    struct event *sigint = evsignal_new(self->base, SIGINT, on_stop_signal, self);
    struct event *sigterm = evsignal_new(self->base, SIGTERM, on_stop_signal, self);
    struct event *done =
        event_new(self->base, joiner.done_fds[0], EV_READ, on_workers_done, self->base);
    event_add(sigint, NULL);
    event_add(sigterm, NULL);
    event_add(done, NULL);
    block_stop_signals(SIG_BLOCK); /* the threads inherit it */
    for (int i = 0; i < self->worker_count; i++)
        pl_worker_start(self->workers[i]);
    bool joining = pthread_create(&thread, NULL, join_workers, &joiner) == 0;
    block_stop_signals(SIG_UNBLOCK);
    announce(self);
    if (joining) {
        event_base_dispatch(self->base);
        pthread_join(thread, NULL);
    } else {
        mail_all(self, PL_MAIL_STOP);
        join_workers(&joiner);
    }
    event_free(sigint);
    event_free(sigterm);
    event_free(done);
    close(joiner.done_fds[0]);
    return joining ? EXIT_OK : EXIT_FAILED;
}

static int default_worker_count(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return (int)PL_MAX(1, PL_MIN(cores, WORKERS_MAX));
}

/* The usual soft limit of 1024 is for programs that use select; two sockets a request want more. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void process_init(struct process *self, struct pl_config *config)
{
    const struct pl_topology *topology = &config->topology;
    *self = (struct process){.config = config};
    self->worker_count = config->workers > 0 ? config->workers : default_worker_count();
    self->base = event_base_new();
    if (!self->base)
        abort();
    self->health = pl_health_new((uint32_t)(topology->provider_count + topology->target_count + 1));
    self->gauge = pl_gauge_new((uint32_t)topology->target_count);
    pl_config_bind_health(config, self->health, self->gauge);
}

static int start_checks(struct process *self)
{
    self->resolver = pl_resolver_new(self->base);
    if (!self->resolver) {
        fprintf(stderr, "perilune: the system's resolver configuration cannot be read\n");
        return PL_ERR_SYSTEM;
    }
    self->prober = pl_prober_new(self->base, self->resolver, &self->config->topology);
    return PL_OK;
}

static void on_watch_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct process *self = arg;
    pl_watchdog_look(self->watchdog, pl_now_ms());
}

static void start_watchdog(struct process *self)
{
    struct timeval interval = {0, WATCH_INTERVAL_MS * 1000};
    uint32_t burst_ms = self->config->vm_limits.burst_us / 1000;
    self->watchdog = pl_watchdog_new(PL_MAX(burst_ms * WATCH_BURSTS, (uint32_t)WATCH_MIN_MS));
    for (int i = 0; i < self->worker_count; i++)
        pl_watchdog_add(self->watchdog, pl_worker_watch(self->workers[i]));
    self->watch_timer = event_new(self->base, -1, EV_PERSIST, on_watch_timer, self);
    event_add(self->watch_timer, &interval);
}

static void stop_watchdog(struct process *self)
{
    if (self->watch_timer)
        event_free(self->watch_timer);
    pl_watchdog_free(self->watchdog);
}

static void process_deinit(struct process *self)
{
    stop_watchdog(self);
    free_workers(self);
    pl_prober_free(self->prober);
    if (self->resolver)
        pl_resolver_free(self->resolver);
    pl_admin_free(self->admin);
    event_base_loop(self->base, EVLOOP_NONBLOCK); /* what was freed lets go in one more turn */
    event_base_free(self->base);
    pl_config_free(self->config);
    pl_health_free(self->health);
    pl_gauge_free(self->gauge);
}

static int serve(struct pl_config *config)
{
    struct process process;
    int status = EXIT_FAILED;
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    pl_log_set_level((enum pl_log_level)config->log_level);
    process_init(&process, config);
    if (start_admin(&process) == PL_OK && start_checks(&process) == PL_OK &&
        start_workers(&process) == PL_OK) {
        start_watchdog(&process);
        status = run_until_done(&process);
    }
    process_deinit(&process);
    return status;
}

/* ---- commands ---- */

static int usage_error(const char *fmt, const char *word)
{
    fprintf(stderr, "perilune: ");
    fprintf(stderr, fmt, word);
    fprintf(stderr, " (see: perilune help)\n");
    return EXIT_USAGE;
}

static int parse_workers(const char *text, int *workers)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || number < 0 || number > WORKERS_MAX)
        return PL_ERR_SYNTAX;
    *workers = (int)number;
    return PL_OK;
}

/* Reads one option and its value; 0 or an exit status. */
static int parse_option(const char *name, const char *value, struct overrides *out)
{
    if (strcmp(name, "--listen") != 0 && strcmp(name, "--admin") != 0 &&
        strcmp(name, "--workers") != 0)
        return usage_error("unknown option %s", name);
    if (!value)
        return usage_error("%s needs a value", name);
    if (strcmp(name, "--workers") == 0)
        return parse_workers(value, &out->workers) == PL_OK
                   ? 0
                   : usage_error("--workers: a number within 0..256 is expected, not '%s'", value);
    bool is_listen = strcmp(name, "--listen") == 0;
    char **address = is_listen ? &out->listen_address : &out->admin_address;
    free(*address);
    *address = NULL;
    if (pl_listen_parse(value, address, is_listen ? &out->listen_port : &out->admin_port) != PL_OK)
        return usage_error("ADDR:PORT is expected, not '%s'", value);
    return 0;
}

static int parse_arguments(int count, char **arguments, bool options, struct overrides *out)
{
    bool has_directory = false;
    *out = (struct overrides){.directory = "policies", .workers = -1};
    for (int i = 0; i < count; i++) {
        char *argument = arguments[i];
        if (strncmp(argument, "--", 2) == 0) {
            char *equals = strchr(argument, '=');
            if (!options)
                return usage_error("unknown option %s", argument);
            if (equals)
                *equals = '\0';
            const char *value = equals ? equals + 1 : i + 1 < count ? arguments[++i] : NULL;
            int status = parse_option(argument, value, out);
            if (status != 0)
                return status;
        } else if (has_directory) {
            return usage_error("only one directory can be given; unexpected '%s'", argument);
        } else {
            out->directory = argument;
            has_directory = true;
        }
    }
    return 0;
}

static bool is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0 ||
           strcmp(address, "localhost") == 0;
}

/* Moves the addresses into the configuration. */
static int apply_overrides(struct pl_config *config, struct overrides *overrides)
{
    if (overrides->listen_address) {
        free(config->listen_address);
        config->listen_address = overrides->listen_address;
        config->listen_port = overrides->listen_port;
        overrides->listen_address = NULL;
    }
    if (overrides->admin_address) {
        free(config->admin_address);
        config->admin_address = overrides->admin_address;
        config->admin_port = overrides->admin_port;
        overrides->admin_address = NULL;
    }
    if (overrides->workers >= 0)
        config->workers = overrides->workers;
    if (config->admin_address && !config->admin_token && !is_loopback(config->admin_address)) {
        usage_error("--admin %s: an address off loopback needs admin.token", config->admin_address);
        return PL_ERR_SYNTAX;
    }
    return PL_OK;
}

static int load_and_serve(struct overrides *overrides)
{
    char *problems;
    struct pl_config *config = pl_config_load(overrides->directory, &problems);
    if (!config) {
        fprintf(stderr, "%s\n", problems);
        free(problems);
        return EXIT_FAILED;
    }
    if (apply_overrides(config, overrides) != PL_OK) {
        pl_config_free(config);
        return EXIT_USAGE;
    }
    return serve(config);
}

static int command_run(int count, char **arguments)
{
    struct overrides overrides;
    int status = parse_arguments(count, arguments, true, &overrides);
    if (status == 0)
        status = load_and_serve(&overrides);
    free(overrides.listen_address);
    free(overrides.admin_address);
    return status;
}

static int command_check(int count, char **arguments)
{
    struct overrides overrides;
    char *problems;
    int status = parse_arguments(count, arguments, false, &overrides);
    if (status != 0)
        return status;
    struct pl_config *config = pl_config_load(overrides.directory, &problems);
    if (!config) {
        fprintf(stderr, "%s\n", problems);
        free(problems);
        return EXIT_FAILED;
    }
    printf("%s: ok (%zu providers, %zu targets)\n", overrides.directory,
           config->topology.provider_count, config->topology.target_count);
    pl_config_free(config);
    return EXIT_OK;
}

static int command_sim(int count, char **arguments)
{
    char *problems;
    int status = EXIT_FAILED;
    struct pl_config *config = pl_config_load_simulator(count, arguments, &problems, &status);
    if (!config) {
        fprintf(status == EXIT_OK ? stdout : stderr, "%s\n", problems);
        free(problems);
        return status;
    }
    return serve(config);
}

int main(int argc, char **argv)
{
    /* libevent then clears by hand what it would calloc, see pl_xcalloc */
    event_set_mem_functions(malloc, realloc, free);
    const char *command = argc > 1 ? argv[1] : "help";
    if (strcmp(command, "run") == 0)
        return command_run(argc - 2, argv + 2);
    if (strcmp(command, "check") == 0)
        return command_check(argc - 2, argv + 2);
    if (strcmp(command, "sim") == 0)
        return command_sim(argc - 2, argv + 2);
    if (strcmp(command, "simulate") == 0)
        return pl_simulate_main(argc - 2, argv + 2);
    if (strcmp(command, "test") == 0)
        return pl_testing_main(argc - 2, argv + 2);
    if (strcmp(command, "version") == 0 || strcmp(command, "--version") == 0) {
        printf("perilune %s\n", PERILUNE_VERSION);
        return EXIT_OK;
    }
    if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0) {
        fputs(help_text, stdout);
        return argc > 1 ? EXIT_OK : EXIT_USAGE;
    }
    return usage_error("unknown command '%s'", command);
}
