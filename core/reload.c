/*
 * Reload: see reload.h. This file: what is asked for, one after the other; loading; what is
 * remembered.
 *
 *   reload_force.c  what is put in force, on trial, taken back
 *   reload_diff.c   what differs from before
 *   reload_watch.c  when to reload by itself
 *   reload_trial.c  when to go back by itself
 */
#include "log.h"
#include "reload_internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SLOTS_MIN_COUNT 16384 /* of health; those that nobody uses take no memory */
#define BACK_MAX_COUNT  4     /* editions that can be restored, one before the other */
#define HISTORY_MAX     32    /* editions that are remembered */
#define LOG_LINES_MAX   20
#define WAITING_MAX     32 /* changes asked for; those whose clients have left count, too */

/* ---- answers ---- */

static void start_step(struct pl_reload *self)
{
    event_active(self->step_event, EV_TIMEOUT, 0);
}

/* Tells whoever asked and goes on with the next in line. */
static void finish(struct pl_reload *self, const struct pl_reload_result *result)
{
    struct pl_reload_ticket *ticket = self->running;
    self->running = NULL;
    self->phase = PL_RELOAD_IDLE;
    if (ticket->cb)
        ticket->cb(ticket->arg, result);
    free(ticket->reason);
    free(ticket);
    pl_reload_diff_clear(&self->diff);
    start_step(self);
}

static void refuse(struct pl_reload *self, int status, const char *code, const char *text)
{
    struct pl_reload_result result = {.status = status, .code = code, .text = text};
    finish(self, &result);
}

static void log_lines(const char *text)
{
    for (int i = 0; *text && i < LOG_LINES_MAX; i++) {
        size_t len = strcspn(text, "\n");
        pl_log(PL_LOG_ERROR, "reload: %.*s", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

void pl_reload_fail(struct pl_reload *self, const char *text)
{
    struct pl_reload_state *state = &self->state;
    state->failed_count++;
    state->failed_wall_ms = pl_now_wall_ms();
    free(state->failed_text);
    state->failed_text = pl_xstrdup(text);
    log_lines(text);
    pl_log(PL_LOG_ERROR, "reload by %s refused: generation %llu stays in force",
           self->running->request.by, (unsigned long long)state->current->number);
    if (self->running->request.kind == PL_RELOAD_ROLLBACK) /* tried again at the next strike */
        pl_reload_reset_strikes(self);
    refuse(self, 422, "reload_failed", text);
}

/* ---- all workers have followed ---- */

static bool all_settled(const struct pl_reload *self)
{
    for (size_t i = 0; i < self->worker_count; i++) {
        if (!pl_worker_is_settled(self->workers[i]))
            return false;
    }
    return true;
}

static void finish_published(struct pl_reload *self)
{
    struct pl_reload_result result = {.status = 200,
                                      .edition = self->published,
                                      .changes = self->diff.changes,
                                      .change_count = self->diff.count,
                                      .change_total = self->diff.total};
    memcpy(result.restart, self->diff.restart, sizeof(result.restart));
    self->published = NULL;
    finish(self, &result);
}

/* ---- what is remembered ---- */

static bool is_within_reach(const struct pl_reload *self, const struct pl_edition *edition)
{
    const struct pl_edition *at = self->state.current;
    for (int i = 0; at && i <= BACK_MAX_COUNT; at = at->back, i++) {
        if (at == edition)
            return true;
    }
    return edition == self->state.canary || edition == self->published;
}

static void cut_chain(struct pl_reload *self)
{
    struct pl_edition *at = self->state.current;
    for (int i = 0; at && i < BACK_MAX_COUNT; i++)
        at = at->back;
    if (at)
        at->back = NULL;
}

/* Frees what workers have let go, the configurations that nobody can go back to, and the oldest
 * memories. */
static void collect(struct pl_reload *self)
{
    struct pl_edition *edition, *next;
    size_t count = 0;
    cut_chain(self);
    for (edition = TAILQ_FIRST(&self->state.editions); edition; edition = next) {
        next = TAILQ_NEXT(edition, link);
        count++;
        if (!pl_edition_collect(edition) || is_within_reach(self, edition))
            continue;
        pl_edition_forget(edition);
        edition->back = NULL;
        if (count > HISTORY_MAX) {
            TAILQ_REMOVE(&self->state.editions, edition, link);
            pl_edition_free(edition);
        }
    }
}

static void on_notify(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct pl_reload *self = arg;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    pl_reload_count_faults(self);
    collect(self);
    if (self->phase == PL_RELOAD_PUBLISHING && all_settled(self))
        finish_published(self);
    start_step(self); /* one that waits for workers that have only just begun */
}

void pl_reload_notify(void *reload)
{
    struct pl_reload *self = reload;
    uint64_t one = 1;
    if (write(self->notify_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        pl_log(PL_LOG_ERROR, "reload: %s", strerror(errno));
}

/* ---- loading ---- */

static void load(struct pl_reload *self, struct pl_config *config)
{
    struct pl_loader_source source = {.directory = self->directory,
                                      .config = config ? pl_config_ref(config) : NULL,
                                      .overrides = &self->overrides,
                                      .worker_count = self->worker_target_count,
                                      .on_fault = pl_reload_notify,
                                      .on_fault_arg = self};
    self->phase = PL_RELOAD_LOADING;
    pl_loader_start(self->loader, &source);
}

static void on_loaded(void *arg, struct pl_edition *edition, const char *problems)
{
    struct pl_reload *self = arg;
    bool restores = self->running->request.kind == PL_RELOAD_ROLLBACK;
    if (!edition) {
        pl_reload_fail(self, problems);
    } else if (self->draining) {
        pl_edition_free(edition);
        refuse(self, 503, "draining", "The gateway is draining.");
    } else if (restores) {
        pl_reload_take_restored(self, edition);
    } else {
        pl_reload_take_loaded(self, edition);
    }
}

/* ---- what is asked for ---- */

static bool still_serves(const struct pl_reload *self, uint64_t wanted)
{
    const struct pl_reload_state *state = &self->state;
    return wanted == 0 || wanted == state->current->number ||
           (state->canary && wanted == state->canary->number);
}

static void begin_rollback(struct pl_reload *self, uint64_t wanted)
{
    const struct pl_reload_state *state = &self->state;
    if (!still_serves(self, wanted))
        refuse(self, 409, "not_in_force", "That generation is not in force any more.");
    else if (state->canary && wanted != state->current->number)
        pl_reload_drop_canary(self);
    else if (!state->current->back)
        refuse(self, 409, "nothing_to_restore", "There is no earlier generation to go back to.");
    else
        load(self, state->current->back->config);
}

static void begin(struct pl_reload *self)
{
    const struct pl_reload_request *request = &self->running->request;
    if (self->draining)
        refuse(self, 503, "draining", "The gateway is draining.");
    else if (request->kind == PL_RELOAD_ROLLBACK)
        begin_rollback(self, request->number);
    else if (request->kind == PL_RELOAD_PROMOTE && !still_serves(self, request->number))
        refuse(self, 409, "not_in_force", "That generation is not on trial any more.");
    else if (request->kind == PL_RELOAD_PROMOTE && !self->state.canary)
        refuse(self, 409, "no_canary", "No generation is on trial.");
    else if (request->kind == PL_RELOAD_PROMOTE)
        pl_reload_promote_canary(self);
    else if (self->state.canary && !request->replace)
        refuse(self, 409, "canary_running",
               "A generation is on trial; ask with replace=true to end that by this reload.");
    else
        load(self, NULL);
}

static void step(struct pl_reload *self)
{
    if (self->phase != PL_RELOAD_IDLE || self->running || TAILQ_EMPTY(&self->tickets) ||
        !all_settled(self))
        return;
    self->running = TAILQ_FIRST(&self->tickets);
    TAILQ_REMOVE(&self->tickets, self->running, link);
    begin(self);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    step(arg);
}

/* The same wish of nobody who waits for an answer, not begun yet: SIGHUP in a row. */
static struct pl_reload_ticket *find_alike(const struct pl_reload *self,
                                           const struct pl_reload_request *request)
{
    struct pl_reload_ticket *at;
    TAILQ_FOREACH(at, &self->tickets, link)
    {
        if (!at->cb && at->request.kind == request->kind && at->request.number == request->number &&
            strcmp(at->request.by, request->by) == 0)
            return at;
    }
    return NULL;
}

struct pl_reload_ticket *pl_reload_ask(struct pl_reload *self,
                                       const struct pl_reload_request *request, pl_reload_cb cb,
                                       void *arg)
{
    struct pl_reload_ticket *ticket = cb ? NULL : find_alike(self, request);
    if (ticket)
        return ticket;
    ticket = pl_xcalloc(1, sizeof(*ticket));
    ticket->request = *request;
    ticket->reason = request->reason ? pl_xstrdup(request->reason) : NULL;
    ticket->request.reason = NULL;
    ticket->cb = cb;
    ticket->arg = arg;
    TAILQ_INSERT_TAIL(&self->tickets, ticket, link);
    start_step(self);
    return ticket;
}

bool pl_reload_is_full(const struct pl_reload *self)
{
    const struct pl_reload_ticket *at;
    size_t count = 0;
    TAILQ_FOREACH(at, &self->tickets, link)
    count++;
    return count >= WAITING_MAX;
}

void pl_reload_forget(struct pl_reload_ticket *ticket)
{
    ticket->cb = NULL;
}

void pl_reload_set_draining(struct pl_reload *self)
{
    self->draining = true;
}

/* ---- life ---- */

struct pl_reload *pl_reload_new(struct event_base *base, const char *directory,
                                const struct pl_config_overrides *overrides,
                                const struct pl_reload_ops *ops)
{
    struct pl_reload *self = pl_xcalloc(1, sizeof(*self));
    self->base = base;
    self->directory = directory;
    self->overrides = *overrides;
    self->ops = *ops;
    TAILQ_INIT(&self->state.editions);
    TAILQ_INIT(&self->tickets);
    self->loader = pl_loader_new(base, on_loaded, self);
    self->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->notify_fd < 0)
        abort();
    self->notify_event = event_new(base, self->notify_fd, EV_READ | EV_PERSIST, on_notify, self);
    self->step_event = event_new(base, -1, 0, on_step, self);
    event_add(self->notify_event, NULL);
    return self;
}

static void make_health(struct pl_reload *self, struct pl_config *config)
{
    uint32_t slot_count = PL_MAX(SLOTS_MIN_COUNT, (uint32_t)pl_config_slot_count(config) * 4);
    self->health = pl_health_new(slot_count);
    self->gauge = pl_gauge_new(slot_count);
    if (pl_config_bind_health(config, self->health, self->gauge) != PL_OK)
        abort(); /* there is four times the room */
}

int pl_reload_begin(struct pl_reload *self, struct pl_config *config, size_t worker_count,
                    char *error, size_t error_size)
{
    make_health(self, config);
    self->worker_target_count = worker_count;
    struct pl_edition *edition =
        pl_edition_new(config, worker_count, pl_reload_notify, self, error, error_size);
    if (!edition) {
        pl_config_unref(config);
        return PL_ERR_SYNTAX;
    }
    self->started = pl_config_ref(config);
    pl_reload_watch_read(self, config);
    pl_reload_number(self, edition, "start");
    pl_reload_become_current(self, edition);
    return PL_OK;
}

void pl_reload_add_worker(struct pl_reload *self, struct pl_worker *worker)
{
    self->workers[self->worker_count++] = worker;
    if (self->worker_count == self->worker_target_count)
        pl_reload_give_orders(self);
}

static void free_tickets(struct pl_reload *self)
{
    struct pl_reload_ticket *ticket;
    while ((ticket = self->running ? self->running : TAILQ_FIRST(&self->tickets))) {
        if (ticket == self->running)
            self->running = NULL;
        else
            TAILQ_REMOVE(&self->tickets, ticket, link);
        free(ticket->reason);
        free(ticket);
    }
}

void pl_reload_free(struct pl_reload *self)
{
    if (!self)
        return;
    pl_loader_free(self->loader);
    free_tickets(self);
    pl_reload_watch_end(self);
    pl_reload_trial_end(self);
    struct pl_edition *edition;
    while ((edition = TAILQ_FIRST(&self->state.editions))) {
        TAILQ_REMOVE(&self->state.editions, edition, link);
        pl_edition_free(edition);
    }
    pl_config_unref(self->started);
    pl_reload_diff_clear(&self->diff);
    event_free(self->notify_event);
    event_free(self->step_event);
    close(self->notify_fd);
    pl_health_free(self->health);
    pl_gauge_free(self->gauge);
    free(self->state.failed_text);
    free(self);
}

const struct pl_config *pl_reload_config(const struct pl_reload *self)
{
    return self->state.current->config;
}

const struct pl_reload_state *pl_reload_look(const struct pl_reload *self)
{
    return &self->state;
}

const char *pl_rollback_cause_name(enum pl_rollback_cause cause)
{
    static const char *const names[] = {"operator", "strikes", "trial"};
    return names[cause];
}
