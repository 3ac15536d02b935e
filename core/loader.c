/*
 * Loader: see loader.h.
 *
 * What passes between the threads, in either direction, is written before pthread_create or before
 * the write to the eventfd, and read behind them; the thread is joined before anything is used.
 */
#include "loader.h"
#include "log.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define STACK_BYTES (8 * 1024 * 1024) /* as a worker's: Lua recurses through C */

struct pl_loader {
    pl_loader_cb cb;
    void *arg;
    int done_fd;
    struct event *done_event;
    bool busy;
    bool threaded; /* there is a thread to join */
    pthread_t thread;
    struct pl_loader_source source;
    struct pl_edition *edition;
    char *problems;
};

/* NULL with a new string in `problems`. */
static struct pl_edition *load(const struct pl_loader_source *source, char **problems)
{
    char error[8192];
    struct pl_config *config = source->config;
    *problems = NULL;
    if (!config)
        config = pl_config_load(source->directory, problems);
    if (!config)
        return NULL;
    struct pl_edition *edition = NULL;
    if (source->config ||
        pl_config_override(config, source->overrides, error, sizeof(error)) == PL_OK)
        edition = pl_edition_new(config, source->worker_count, source->on_fault,
                                 source->on_fault_arg, error, sizeof(error));
    if (edition) {
        if (!source->config)
            pl_config_log_warnings(config);
        return edition;
    }
    *problems = pl_xstrdup(error);
    if (!source->config)
        pl_config_unref(config);
    return NULL;
}

static void tell_done(struct pl_loader *self)
{
    uint64_t one = 1;
    if (write(self->done_fd, &one, sizeof(one)) < 0)
        pl_log(PL_LOG_ERROR, "loader: %s", strerror(errno));
}

static void *run(void *arg)
{
    struct pl_loader *self = arg;
    self->edition = load(&self->source, &self->problems);
    tell_done(self);
    return NULL;
}

static void on_done(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct pl_loader *self = arg;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    if (self->threaded)
        pthread_join(self->thread, NULL);
    struct pl_edition *edition = self->edition;
    char *problems = self->problems;
    if (!edition)
        pl_config_unref(self->source.config);
    self->busy = false;
    self->edition = NULL;
    self->problems = NULL;
    self->cb(self->arg, edition, problems);
    free(problems);
}

struct pl_loader *pl_loader_new(struct event_base *base, pl_loader_cb cb, void *arg)
{
    struct pl_loader *self = pl_xcalloc(1, sizeof(*self));
    self->cb = cb;
    self->arg = arg;
    self->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->done_fd < 0)
        abort();
    self->done_event = event_new(base, self->done_fd, EV_READ | EV_PERSIST, on_done, self);
    event_add(self->done_event, NULL);
    return self;
}

/* The main thread's signals stay with it. */
static int start_thread(struct pl_loader *self)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&self->thread, &attributes, run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return rc;
}

void pl_loader_start(struct pl_loader *self, const struct pl_loader_source *source)
{
    self->source = *source;
    self->busy = true;
    int rc = start_thread(self);
    self->threaded = rc == 0;
    if (rc == 0)
        return;
    self->problems = pl_xstrdup(strerror(rc));
    tell_done(self);
}

void pl_loader_free(struct pl_loader *self)
{
    if (!self)
        return;
    if (self->busy) {
        if (self->threaded)
            pthread_join(self->thread, NULL);
        if (!self->edition)
            pl_config_unref(self->source.config);
        pl_edition_free(self->edition);
        free(self->problems);
    }
    event_free(self->done_event);
    close(self->done_fd);
    free(self);
}
