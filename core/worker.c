/*
 * Worker: see worker.h.
 *
 * Made on the main thread, then used on its own thread only, but for the mailbox: `mail` is a set
 * of bits, written by the main thread (fetch_or, release) before it wakes the eventfd, taken by the
 * worker (exchange, acquire).
 */
#include "worker.h"
#include "bind.h"
#include "log.h"
#include "request.h"
#include "vm_ticker.h"
#include <errno.h>
#include <event2/event.h>
#include <lauxlib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DRAIN_POLL_MS 10
#define LOAD_BURST_US (2000 * 1000)
#define STACK_BYTES   (8 * 1024 * 1024) /* what Lua's deepest recursion through C takes, twice */

struct pl_worker {
    const struct pl_config *config;
    pthread_t thread;
    struct event_base *base;
    struct pl_resolver *resolver;
    struct pl_runtime runtime;
    struct pl_watch watch;
    struct pl_server *server;
    int listen_fd, mail_fd;
    bool started;
    _Atomic unsigned mail;
    struct event *mail_event, *drain_timer;
    uint64_t drain_until_ms;
    char banner[256];
};

/* ---- making ---- */

/* Leaves nothing; the entry function goes into the registry. */
static void load_entry(lua_State *L, void *arg)
{
    struct pl_worker *self = arg;
    pl_vm_require(L, "perilune.boot");
    lua_getfield(L, -1, self->config->is_simulator ? "simulator" : "gateway");
    lua_call(L, pl_config_push_sources(L, self->config), 2);
    if (lua_isstring(L, -1))
        snprintf(self->banner, sizeof(self->banner), "%s", lua_tostring(L, -1));
    lua_pop(L, 1);
    self->runtime.current->entry_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

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

static int init_script(struct pl_worker *self, char *error, size_t error_size)
{
    struct pl_generation *generation =
        pl_generation_new(&self->config->vm_limits, &self->config->topology);
    if (!generation) {
        snprintf(error, error_size, "the script engine does not fit its memory");
        return PL_ERR_SYSTEM;
    }
    struct pl_vm *vm = generation->vm;
    pl_runtime_init(&self->runtime, self->base);
    self->runtime.is_simulator = self->config->is_simulator;
    self->runtime.watch = &self->watch;
    self->runtime.current = generation;
    pl_generation_open(generation, &self->runtime, self->base, self->resolver);
    vm->limits.burst_us = LOAD_BURST_US;
    vm->limits.request_us = 0;
    int rc = pl_vm_call(vm, load_entry, self, error, error_size);
    vm->limits = self->config->vm_limits;
    return rc;
}

static void on_mail(evutil_socket_t fd, short what, void *arg);
static void on_drain_poll(evutil_socket_t fd, short what, void *arg);

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
    event_add(self->mail_event, NULL);
    self->resolver = pl_resolver_new(self->base);
    if (!self->resolver) {
        snprintf(error, error_size, "the system's resolver configuration cannot be read");
        return PL_ERR_SYSTEM;
    }
    return PL_OK;
}

struct pl_worker *pl_worker_new(const struct pl_config *config, int listen_fd, char *error,
                                size_t error_size)
{
    struct pl_worker *self = pl_xcalloc(1, sizeof(*self));
    self->config = config;
    self->listen_fd = listen_fd;
    if (init_loop(self, error, error_size) == PL_OK &&
        init_script(self, error, error_size) == PL_OK)
        return self;
    pl_worker_free(self);
    return NULL;
}

/* ---- unmaking ---- */

static void free_script(struct pl_worker *self)
{
    if (!self->runtime.current)
        return;
    pl_runtime_deinit(&self->runtime);
    pl_generation_free(self->runtime.current);
    self->runtime.current = NULL;
}

static void free_loop(struct pl_worker *self)
{
    if (self->mail_event)
        event_free(self->mail_event);
    if (self->drain_timer)
        event_free(self->drain_timer);
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
    if (!self->started) { /* else the thread has done so */
        free_script(self);
        close(self->listen_fd);
    }
    free_loop(self);
}

const struct pl_watch *pl_worker_watch(const struct pl_worker *self)
{
    return &self->watch;
}

const char *pl_worker_banner(const struct pl_worker *self)
{
    return self->banner;
}

/* ---- the thread ---- */

static void *run(void *arg)
{
    static const struct pl_server_ops ops = {.on_request = pl_request_begin};
    struct pl_worker *self = arg;
    self->server = pl_server_new(self->base, self->listen_fd, self->config->tls,
                                 &self->config->limits, &ops, &self->runtime);
    if (pl_vm_ticker_start() != PL_OK)
        pl_log(PL_LOG_WARN, "worker: no timer on the thread's CPU clock: %s", strerror(errno));
    event_base_loop(self->base, EVLOOP_NO_EXIT_ON_EMPTY);
    pl_vm_ticker_stop();
    pl_runtime_end_all(&self->runtime);
    pl_server_free(self->server);
    free_script(self);
    return NULL;
}

void pl_worker_start(struct pl_worker *self)
{
    pthread_attr_t attributes;
    self->started = true;
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

static void on_mail(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct pl_worker *self = arg;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    unsigned mail = atomic_exchange_explicit(&self->mail, 0, memory_order_acquire);
    if (mail & PL_MAIL_STOP) {
        event_base_loopbreak(self->base);
        return;
    }
    if (mail & PL_MAIL_DRAIN) {
        struct timeval interval = {0, DRAIN_POLL_MS * 1000};
        self->drain_until_ms = pl_now_ms() + self->config->drain_ms;
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
    if (late || pl_server_is_drained(self->server))
        event_base_loopbreak(self->base);
}

void pl_worker_join(struct pl_worker *self)
{
    pthread_join(self->thread, NULL);
}
