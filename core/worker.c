/*
 * Worker: see worker.h.
 *
 * Made on the main thread, then used on its own thread only, but for the mailbox:
 * - `mail` is a set of bits, written by the main thread (fetch_or, release) before it wakes the
 *   eventfd, taken by the worker (exchange, acquire). `orders` is written before the bit is, and
 *   not again until the worker is settled.
 * - `settled` is set by the worker (release) when the orders are in force, and cleared by the main
 *   thread, which alone reads it (acquire), when it gives new ones.
 */
#include "worker.h"
#include "log.h"
#include "request.h"
#include "vm_ticker.h"
#include "worker_levels.h"
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DRAIN_POLL_MS  10
#define RETIRE_POLL_MS 10
#define STACK_BYTES    (8 * 1024 * 1024) /* what Lua's deepest recursion through C takes, twice */

struct pl_worker {
    pthread_t thread;
    struct event_base *base;
    struct pl_resolver *resolver;
    struct pl_runtime runtime;
    struct pl_watch watch;
    struct pl_server *server;
    SSL_CTX *tls;
    int listen_fd, mail_fd;
    bool started;
    _Atomic unsigned mail;
    struct pl_worker_orders orders;
    _Atomic bool settled;
    void (*notify)(void *arg);
    void *notify_arg;
    struct event *mail_event, *drain_timer, *retire_timer;
    uint64_t drain_until_ms;
    struct pl_worker_levels levels;
    struct pl_jobs jobs;
    struct pl_access_log access_log;
};

/* ---- making ---- */

static struct event_base *make_base(void)
{
    struct event_config *config = event_config_new();
    if (!config)
        abort();
    event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST | EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static void on_mail(evutil_socket_t fd, short what, void *arg);
static void on_drain_poll(evutil_socket_t fd, short what, void *arg);
static void on_retire(evutil_socket_t fd, short what, void *arg);

static int init_loop(struct pl_worker *self, char *error, size_t error_size)
{
    self->base = make_base();
    self->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!self->base || self->mail_fd < 0) {
        snprintf(error, error_size, "event loop: %s", strerror(errno));
        return PL_ERR_SYSTEM;
    }
    self->mail_event = event_new(self->base, self->mail_fd, EV_READ | EV_PERSIST, on_mail, self);
    self->drain_timer = event_new(self->base, -1, EV_PERSIST, on_drain_poll, self);
    self->retire_timer = event_new(self->base, -1, 0, on_retire, self);
    event_add(self->mail_event, NULL);
    self->resolver = pl_resolver_new(self->base);
    if (!self->resolver) {
        snprintf(error, error_size, "the system's resolver configuration cannot be read");
        return PL_ERR_SYSTEM;
    }
    return PL_OK;
}

struct pl_worker *pl_worker_new(int listen_fd, SSL_CTX *tls, bool is_simulator,
                                void (*notify)(void *arg), void *arg, char *error,
                                size_t error_size)
{
    struct pl_worker *self = pl_xcalloc(1, sizeof(*self));
    self->listen_fd = listen_fd;
    self->tls = tls;
    self->notify = notify;
    self->notify_arg = arg;
    pl_jobs_init(&self->jobs);
    int rc = init_loop(self, error, error_size);
    pl_runtime_init(&self->runtime, self->base);
    self->runtime.is_simulator = is_simulator;
    self->runtime.watch = &self->watch;
    self->runtime.retire_event = self->retire_timer;
    if (rc == PL_OK)
        return self;
    pl_worker_free(self);
    return NULL;
}

/* ---- unmaking ---- */

static void close_generations(struct pl_worker *self)
{
    struct pl_generation *generation;
    while ((generation = TAILQ_FIRST(&self->runtime.generations)))
        pl_generation_close(generation);
}

static void free_loop(struct pl_worker *self)
{
    struct event *events[] = {self->mail_event, self->drain_timer, self->retire_timer};
    for (size_t i = 0; i < PL_COUNT(events); i++) {
        if (events[i])
            event_free(events[i]);
    }
    if (self->resolver)
        pl_resolver_free(self->resolver);
    if (self->base) /* pending look-ups are released in one more turn */
        event_base_loop(self->base, EVLOOP_NONBLOCK);
    if (self->base)
        event_base_free(self->base);
    if (self->mail_fd >= 0)
        close(self->mail_fd);
    free(self);
}

void pl_worker_free(struct pl_worker *self)
{
    if (!self)
        return;
    if (!self->started) /* else the server has closed it */
        close(self->listen_fd);
    pl_runtime_deinit(&self->runtime);
    pl_jobs_deinit(&self->jobs);
    pl_access_log_deinit(&self->access_log);
    free_loop(self);
}

const struct pl_watch *pl_worker_watch(const struct pl_worker *self)
{
    return &self->watch;
}

/* ---- generations ---- */

/* Neither the current nor the canary: its requests have from now on until the drain time is up. */
static void retire(struct pl_worker *self, struct pl_generation *generation)
{
    generation->retired = true;
    generation->end_at_ms = pl_now_ms() + self->orders.generation_drain_ms;
    pl_generation_inherit(self->runtime.current, generation);
}

static void open_if_new(struct pl_worker *self, struct pl_generation *generation)
{
    if (generation && !generation->runtime)
        pl_generation_open(generation, &self->runtime, self->base, self->resolver);
}

static void carry_out_orders(struct pl_worker *self)
{
    const struct pl_worker_orders *orders = &self->orders;
    struct pl_runtime *runtime = &self->runtime;
    struct pl_generation *generation;
    open_if_new(self, orders->current);
    open_if_new(self, orders->canary);
    runtime->current = orders->current;
    runtime->canary = orders->canary;
    runtime->canary_ratio = orders->canary_ratio;
    TAILQ_FOREACH(generation, &runtime->generations, link)
    {
        if (generation != runtime->current && generation != runtime->canary && !generation->retired)
            retire(self, generation);
    }
    if (self->server)
        pl_server_set_limits(self->server, &orders->limits);
    event_active(self->retire_timer, EV_TIMEOUT, 0);
    atomic_store_explicit(&self->settled, true, memory_order_release);
}

/* Milliseconds until a retired one must be looked at again; UINT64_MAX: its requests will tell. */
static uint64_t attend_to(struct pl_worker *self, struct pl_generation *generation, uint64_t now_ms)
{
    if (generation->request_count > 0 && now_ms >= generation->end_at_ms) {
        pl_log(PL_LOG_WARN,
               "generation %llu: %zu requests cut off, its time to finish them is over",
               (unsigned long long)generation->number, generation->request_count);
        pl_runtime_end_generation(&self->runtime, generation);
    }
    if (generation->request_count > 0)
        return generation->end_at_ms - now_ms;
    if (!pl_generation_is_idle(generation)) /* an attempt that has just been ended unwinds */
        return RETIRE_POLL_MS;
    pl_generation_inherit(self->runtime.current, generation);
    pl_generation_close(generation);
    self->notify(self->notify_arg);
    return UINT64_MAX;
}

/* In a turn of its own: nothing of what is closed here is at work. */
static void on_retire(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_worker *self = arg;
    struct pl_generation *generation, *next;
    uint64_t now_ms = pl_now_ms(), wait_ms = UINT64_MAX;
    for (generation = TAILQ_FIRST(&self->runtime.generations); generation; generation = next) {
        next = TAILQ_NEXT(generation, link);
        if (!generation->retired)
            continue;
        uint64_t again_ms = attend_to(self, generation, now_ms);
        wait_ms = PL_MIN(wait_ms, again_ms);
    }
    if (wait_ms == UINT64_MAX)
        return;
    struct timeval wait = {(time_t)(wait_ms / 1000), (suseconds_t)(wait_ms % 1000) * 1000};
    event_add(self->retire_timer, &wait);
}

/* ---- the thread ---- */

static void *run(void *arg)
{
    static const struct pl_server_ops ops = {.on_request = pl_request_begin,
                                             .on_refused = pl_request_refused};
    struct pl_worker *self = arg;
    self->server = pl_server_new(self->base, self->listen_fd, self->tls, &self->orders.limits, &ops,
                                 &self->runtime);
    if (pl_vm_ticker_start() != PL_OK)
        pl_log(PL_LOG_WARN, "worker: no timer on the thread's CPU clock: %s", strerror(errno));
    pl_worker_levels_start(&self->levels, self->server);
    atomic_store_explicit(&self->settled, true, memory_order_release);
    self->notify(self->notify_arg);
    event_base_loop(self->base, EVLOOP_NO_EXIT_ON_EMPTY);
    pl_vm_ticker_stop();
    pl_worker_levels_stop(&self->levels);
    pl_runtime_end_all(&self->runtime);
    pl_server_free(self->server);
    pl_jobs_close(&self->jobs, &self->runtime);
    close_generations(self);
    return NULL;
}

void pl_worker_measure(struct pl_worker *self, struct pl_metrics *metrics, size_t index)
{
    self->runtime.metrics = metrics;
    self->runtime.worker_index = index;
    pl_worker_levels_init(&self->levels, &self->runtime);
}

void pl_worker_keep(struct pl_worker *self, struct pl_recent *recent, size_t index)
{
    self->runtime.worker_index = index;
    self->runtime.recent = recent;
}

void pl_worker_log(struct pl_worker *self, struct pl_sink *sink)
{
    pl_access_log_init(&self->access_log, sink);
    self->runtime.access_log = &self->access_log;
}

void pl_worker_trace(struct pl_worker *self, struct pl_spans *spans)
{
    self->runtime.spans = spans;
}

void pl_worker_start(struct pl_worker *self)
{
    pthread_attr_t attributes;
    self->started = true;
    atomic_store_explicit(&self->settled, false, memory_order_relaxed); /* it reads its orders */
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int rc = pthread_create(&self->thread, &attributes, run, self);
    pthread_attr_destroy(&attributes);
    if (rc != 0) {
        pl_log(PL_LOG_ERROR, "worker: pthread_create: %s", strerror(rc));
        exit(1);
    }
}

void pl_worker_mail(struct pl_worker *self, enum pl_mail mail)
{
    uint64_t one = 1;
    atomic_fetch_or_explicit(&self->mail, (unsigned)mail, memory_order_release);
    if (write(self->mail_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        pl_log(PL_LOG_ERROR, "worker: mailbox: %s", strerror(errno));
}

void pl_worker_order(struct pl_worker *self, const struct pl_worker_orders *orders)
{
    self->orders = *orders;
    if (!self->started) { /* nobody else is there yet */
        carry_out_orders(self);
        return;
    }
    atomic_store_explicit(&self->settled, false, memory_order_relaxed);
    pl_worker_mail(self, PL_MAIL_ORDERS);
}

bool pl_worker_is_settled(const struct pl_worker *self)
{
    return atomic_load_explicit(&self->settled, memory_order_acquire);
}

bool pl_worker_ask(struct pl_worker *self, struct pl_job *job)
{
    if (!self->started || !pl_jobs_add(&self->jobs, job))
        return false;
    pl_worker_mail(self, PL_MAIL_JOBS);
    return true;
}

static void on_mail(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct pl_worker *self = arg;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    unsigned mail = atomic_exchange_explicit(&self->mail, 0, memory_order_acquire);
    if (mail & PL_MAIL_ORDERS) {
        carry_out_orders(self);
        self->notify(self->notify_arg);
    }
    if (mail & PL_MAIL_JOBS)
        pl_jobs_run(&self->jobs, &self->runtime);
    if (mail & PL_MAIL_STOP) {
        event_base_loopbreak(self->base);
        return;
    }
    if (mail & PL_MAIL_DRAIN) {
        struct timeval interval = {0, DRAIN_POLL_MS * 1000};
        self->drain_until_ms = pl_now_ms() + self->orders.drain_ms;
        pl_server_drain(self->server);
        event_add(self->drain_timer, &interval);
    }
}

/* Ends the loop when the last answer is out, or when the time for it is up. */
static void on_drain_poll(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_worker *self = arg;
    bool late = pl_now_ms() >= self->drain_until_ms;
    if (late && self->runtime.active_count > 0)
        pl_log(PL_LOG_WARN, "worker: %zu requests cut off at the end of the drain time",
               self->runtime.active_count);
    if (late)
        self->runtime.kill_reason = "drain";
    if (late || pl_server_is_drained(self->server))
        event_base_loopbreak(self->base);
}

void pl_worker_join(struct pl_worker *self)
{
    pthread_join(self->thread, NULL);
}
