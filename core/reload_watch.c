/*
 * Watching the files: `perilune run --watch`. See reload_internal.h.
 *
 * What was read is looked at ten times a second: names, sizes, times, inodes. That works on every
 * mount, network and bind mounts of containers included, where the kernel's notices do not arrive;
 * and where a whole directory is put in place by moving a link, as Kubernetes does with a
 * ConfigMap.
 */
#include "log.h"
#include "reload_internal.h"
#include <stdlib.h>

#define POLL_MS   100
#define SETTLE_MS 200

static void on_poll(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_reload *self = arg;
    struct pl_reload_watch *watch = &self->watch;
    uint64_t now_ms = pl_now_ms(), seen = pl_config_fingerprint(watch->config);
    if (seen != watch->seen) {
        watch->seen = seen;
        watch->seen_ms = now_ms;
    }
    if (seen == watch->tried || now_ms - watch->seen_ms < SETTLE_MS ||
        self->phase != PL_RELOAD_IDLE || !TAILQ_EMPTY(&self->tickets) || self->state.canary)
        return;
    struct pl_reload_request request = {.kind = PL_RELOAD_LOAD, .by = "watch"};
    watch->tried = seen; /* until it is known what was read */
    pl_reload_ask(self, &request, NULL, NULL);
}

void pl_reload_watch(struct pl_reload *self)
{
    struct timeval interval = {0, POLL_MS * 1000};
    self->watch.timer = event_new(self->base, -1, EV_PERSIST, on_poll, self);
    event_add(self->watch.timer, &interval);
    pl_log(PL_LOG_INFO, "watching %s for changes", self->directory);
}

void pl_reload_watch_read(struct pl_reload *self, struct pl_config *config)
{
    struct pl_reload_watch *watch = &self->watch;
    if (!config)
        return;
    pl_config_unref(watch->config);
    watch->config = pl_config_ref(config);
    watch->tried = config->fingerprint;
}

void pl_reload_watch_end(struct pl_reload *self)
{
    if (self->watch.timer)
        event_free(self->watch.timer);
    pl_config_unref(self->watch.config);
}
