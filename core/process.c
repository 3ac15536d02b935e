/*
 * Process: see process.h. The main thread's: it opens the sockets, starts the workers, waits for
 * signals, and sees everything end.
 */
#include "process.h"
#include "admin.h"
#include "exporter.h"
#include "listen.h"
#include "log.h"
#include "probe.h"
#include "reload.h"
#include "sink.h"
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
#define FLUSH_MS          1000 /* for the last spans, and for the last lines of the access log */
#define EXIT_FAILED       1

struct process {
    const struct pl_process_options *options;
    struct pl_config *config; /* what it was started with: a reference */
    struct event_base *base;
    struct pl_reload *reload;
    struct pl_admin *admin;
    struct pl_worker *workers[WORKERS_MAX];
    int worker_count;
    uint16_t listen_port, admin_port; /* real ones, where 0 was asked for */
    bool draining;
    struct pl_resolver *resolver; /* of the active checks */
    struct pl_prober *prober;
    struct pl_watchdog *watchdog;
    struct event *watch_timer;
    struct pl_metrics *metrics; /* NULL: nothing is counted */
    struct pl_recent *recent;   /* NULL: a simulator */
    struct pl_sink *access_log; /* NULL: there is none */
    struct pl_spans *spans;     /* NULL as well */
    struct pl_exporter *exporter;
};

/* ---- signals ---- */

static void mail_all(struct process *self, enum pl_mail mail)
{
    for (int i = 0; i < self->worker_count; i++)
        pl_worker_mail(self->workers[i], mail);
}

static void drain(struct process *self, const char *why)
{
    if (self->draining)
        return;
    self->draining = true;
    pl_log(PL_LOG_INFO, "%s: draining, at most %u ms", why,
           pl_reload_config(self->reload)->drain_ms);
    pl_reload_set_draining(self->reload);
    if (self->admin)
        pl_admin_set_draining(self->admin);
    mail_all(self, PL_MAIL_DRAIN);
}

static void on_stop_signal(evutil_socket_t signal_number, short what, void *arg)
{
    (void)what;
    struct process *self = arg;
    if (self->draining)
        mail_all(self, PL_MAIL_STOP);
    else
        drain(self, strsignal(signal_number));
}

static void on_drain_asked(void *arg)
{
    drain(arg, "asked for by the operator");
}

static void on_hangup(evutil_socket_t signal_number, short what, void *arg)
{
    (void)signal_number;
    (void)what;
    struct process *self = arg;
    struct pl_reload_request request = {.kind = PL_RELOAD_LOAD, .by = "SIGHUP"};
    pl_reload_ask(self->reload, &request, NULL, NULL);
}

static void on_reopen_signal(evutil_socket_t signal_number, short what, void *arg)
{
    (void)signal_number;
    (void)what;
    struct process *self = arg;
    if (self->access_log)
        pl_sink_reopen(self->access_log);
}

/* ---- the end ---- */

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

/* ---- the start ---- */

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
            self->workers[i] = pl_worker_new(fd, config->tls, config->is_simulator,
                                             pl_reload_notify, self->reload, error, sizeof(error));
        if (fd < 0 || !self->workers[i]) {
            fprintf(stderr, "perilune: %s\n", error);
            return PL_ERR_SYSTEM;
        }
        if (self->metrics)
            pl_worker_measure(self->workers[i], self->metrics, (size_t)i);
        if (config->recent_count > 0)
            pl_worker_keep(self->workers[i], self->recent, (size_t)i);
        if (self->access_log)
            pl_worker_log(self->workers[i], self->access_log);
        pl_worker_trace(self->workers[i], self->spans);
        pl_reload_add_worker(self->reload, self->workers[i]);
    }
    self->listen_port = port;
    return PL_OK;
}

static void free_workers(struct process *self)
{
    for (int i = 0; i < self->worker_count; i++)
        pl_worker_free(self->workers[i]);
}

/* The path of "unix:/path"; NULL for any other address. */
static const char *unix_path(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

static int start_admin(struct process *self)
{
    const struct pl_config *config = self->config;
    char error[256];
    if (!config->admin_address)
        return PL_OK;
    self->admin_port = config->admin_port;
    const char *path = unix_path(config->admin_address);
    int fd = path
                 ? pl_listen_unix(path, error, sizeof(error))
                 : pl_listen(config->admin_address, &self->admin_port, false, error, sizeof(error));
    if (fd < 0) {
        fprintf(stderr, "perilune: admin: %s\n", error);
        return PL_ERR_SYSTEM;
    }
    struct pl_admin_parts parts = {.reload = self->reload,
                                   .recent = self->recent,
                                   .metrics = self->metrics,
                                   .access_log = self->access_log,
                                   .spans = self->spans,
                                   .workers = self->workers,
                                   .worker_count = (size_t)self->worker_count,
                                   .drain = on_drain_asked,
                                   .arg = self};
    self->admin = pl_admin_new(self->base, fd, config, &parts);
    return PL_OK;
}

static void print_address(const char *address, uint16_t port)
{
    if (unix_path(address)) {
        printf("%s", address);
        return;
    }
    printf(strchr(address, ':') ? "[%s]:%u" : "%s:%u", address, port);
}

/* The one line on standard output: what serves, and where. */
static void announce(const struct process *self)
{
    const struct pl_config *config = self->config;
    printf(config->is_simulator ? "perilune sim: listening on " : "perilune: listening on ");
    print_address(config->listen_address, self->listen_port);
    if (self->admin) {
        printf(", admin on ");
        print_address(config->admin_address, self->admin_port);
    }
    if (config->is_simulator)
        printf(" (%s)", pl_reload_look(self->reload)->current->banner);
    printf("\n");
    fflush(stdout);
}

static void block_stop_signals(int how)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
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
    struct event *sighup = evsignal_new(self->base, SIGHUP, on_hangup, self);
    struct event *sigusr1 = evsignal_new(self->base, SIGUSR1, on_reopen_signal, self);
    struct event *done =
        event_new(self->base, joiner.done_fds[0], EV_READ, on_workers_done, self->base);
    event_add(sigint, NULL);
    event_add(sigterm, NULL);
    if (self->options->directory) /* else it ends a simulator, as it does any program */
        event_add(sighup, NULL);
    if (self->options->directory)
        event_add(sigusr1, NULL);
    if (self->options->watch)
        pl_reload_watch(self->reload);
    event_add(done, NULL);
    announce(self); /* before anyone else writes to standard output; the sockets listen already */
    block_stop_signals(SIG_BLOCK); /* the threads inherit it */
    for (int i = 0; i < self->worker_count; i++)
        pl_worker_start(self->workers[i]);
    bool joining = pthread_create(&thread, NULL, join_workers, &joiner) == 0;
    block_stop_signals(SIG_UNBLOCK);
    if (joining) {
        event_base_dispatch(self->base);
        pthread_join(thread, NULL);
    } else {
        mail_all(self, PL_MAIL_STOP);
        join_workers(&joiner);
    }
    event_free(sigint);
    event_free(sigterm);
    event_free(sighup);
    event_free(sigusr1);
    event_free(done);
    close(joiner.done_fds[0]);
    return joining ? 0 : EXIT_FAILED;
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

/* How long a worker may not come back from Lua. */
static uint32_t watch_limit_ms(const struct pl_config *config)
{
    return PL_MAX(config->vm_limits.burst_us / 1000 * WATCH_BURSTS, (uint32_t)WATCH_MIN_MS);
}

/* The edition in force has changed. */
static void on_current(void *arg, const struct pl_config *config)
{
    struct process *self = arg;
    if (self->admin)
        pl_admin_set_config(self->admin, config);
    if (self->prober)
        pl_prober_follow(self->prober, &config->topology);
    if (self->exporter)
        pl_exporter_follow(self->exporter, config->tracing);
    if (self->watchdog)
        pl_watchdog_set_limit(self->watchdog, watch_limit_ms(config));
}

static int process_init(struct process *self, struct pl_config *config,
                        const struct pl_process_options *options)
{
    char error[1024];
    *self = (struct process){.options = options, .config = pl_config_ref(config)};
    struct pl_reload_ops ops = {.on_current = on_current, .arg = self};
    self->worker_count = config->workers > 0 ? config->workers : default_worker_count();
    if (config->has_metrics)
        self->metrics = pl_metrics_new((size_t)self->worker_count);
    if (!config->is_simulator)
        self->recent = pl_recent_new((size_t)self->worker_count, config->recent_count);
    if (!config->is_simulator)
        self->spans = pl_spans_new(config->tls ? "https" : "http");
    self->base = event_base_new();
    if (!self->base)
        abort();
    self->reload = pl_reload_new(self->base, options->directory, &options->overrides, &ops);
    if (pl_reload_begin(self->reload, config, (size_t)self->worker_count, error, sizeof(error)) ==
        PL_OK)
        return PL_OK;
    fprintf(stderr, "perilune: %s\n", error);
    return PL_ERR_SYNTAX;
}

static int open_access_log(struct process *self)
{
    const char *path = self->config->access_log_path;
    char error[512];
    if (self->config->is_simulator || !path)
        return PL_OK;
    self->access_log = pl_sink_new(path, error, sizeof(error));
    if (self->access_log)
        return PL_OK;
    fprintf(stderr, "perilune: access_log.path: %s\n", error);
    return PL_ERR_SYSTEM;
}

static int start_checks(struct process *self)
{
    self->resolver = pl_resolver_new(self->base);
    if (!self->resolver) {
        fprintf(stderr, "perilune: the system's resolver configuration cannot be read\n");
        return PL_ERR_SYSTEM;
    }
    self->prober = pl_prober_new(self->base, self->resolver, &self->config->topology);
    if (self->spans)
        self->exporter = pl_exporter_new(self->base, self->resolver, self->spans,
                                         self->config->tracing, &pl_exporter_usual_times);
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
    self->watchdog = pl_watchdog_new(watch_limit_ms(self->config));
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
    self->watchdog = NULL;
}

/* Generations that no worker has closed hold on to its loop, and configurations on to the health
 * that reload has: they go first. */
static void process_deinit(struct process *self)
{
    stop_watchdog(self);
    if (self->exporter)
        pl_exporter_flush(self->exporter, FLUSH_MS);
    pl_exporter_free(self->exporter);
    pl_prober_free(self->prober);
    if (self->resolver)
        pl_resolver_free(self->resolver);
    if (self->admin && unix_path(self->config->admin_address))
        unlink(unix_path(self->config->admin_address));
    pl_admin_free(self->admin);
    pl_config_unref(self->config);
    pl_reload_free(self->reload);
    free_workers(self);
    pl_sink_free(self->access_log, FLUSH_MS);
    event_base_loop(self->base, EVLOOP_NONBLOCK); /* what was freed lets go in one more turn */
    event_base_free(self->base);
    pl_metrics_free(self->metrics);
    pl_recent_free(self->recent);
    pl_spans_free(self->spans);
}

int pl_process_run(struct pl_config *config, const struct pl_process_options *options)
{
    struct process process;
    int status = EXIT_FAILED;
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    pl_log_set_level((enum pl_log_level)config->log_level);
    pl_log_set_json(options->overrides.log_format == 0);
    if (process_init(&process, config, options) == PL_OK && open_access_log(&process) == PL_OK &&
        start_admin(&process) == PL_OK && start_checks(&process) == PL_OK &&
        start_workers(&process) == PL_OK) {
        start_watchdog(&process);
        status = run_until_done(&process);
    }
    process_deinit(&process);
    return status;
}
