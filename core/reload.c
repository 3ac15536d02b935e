/*
 * Reload: see reload.h. This file: what is asked for, one after the other, loaded and published.
 * reload_diff.c says what a reload changed, reload_watch.c when to reload by itself, reload_trial.c
 * when to go back by itself.
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

static void step(struct pl_reload *self);

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

/* What was read is not sound: what is in force stays. */
static void fail(struct pl_reload *self, const char *text)
{
    struct pl_reload_state *state = &self->state;
    state->failed_count++;
    state->failed_wall_ms = pl_now_wall_ms();
    free(state->failed_text);
    state->failed_text = pl_xstrdup(text);
    log_lines(text);
    pl_log(PL_LOG_ERROR, "reload by %s refused: generation %llu stays in force",
           self->running->request.by, (unsigned long long)state->current->number);
    pl_reload_reset_strikes(self); /* a rollback that failed is tried again at the next strike */
    refuse(self, 422, "reload_failed", text);
}

/* ---- publishing ---- */

static void give_orders(struct pl_reload *self)
{
    const struct pl_edition *current = self->state.current, *canary = self->state.canary;
    for (size_t i = 0; i < self->worker_count; i++) {
        struct pl_worker_orders orders = {
            .current = current->generations[i],
            .canary = canary ? canary->generations[i] : NULL,
            .canary_ratio = self->state.canary_ratio,
            .limits = current->config->limits,
            .drain_ms = current->config->drain_ms,
            .generation_drain_ms = current->config->generation_drain_ms,
        };
        pl_worker_order(self->workers[i], &orders);
    }
}

static void number(struct pl_reload *self, struct pl_edition *edition, const char *by)
{
    edition->number = ++self->last_number;
    edition->since_wall_ms = pl_now_wall_ms();
    snprintf(edition->by, sizeof(edition->by), "%s", by);
    for (size_t i = 0; i < edition->generation_count; i++)
        edition->generations[i]->number = edition->number;
    TAILQ_INSERT_HEAD(&self->state.editions, edition, link);
}

static void leave_force(struct pl_edition *edition, enum pl_edition_state state, const char *reason)
{
    edition->state = state;
    edition->until_wall_ms = pl_now_wall_ms();
    if (reason)
        snprintf(edition->reason, sizeof(edition->reason), "%s", reason);
}

/* What depends on the configuration in force follows it. */
static void follow_current(struct pl_reload *self)
{
    const struct pl_config *config = self->state.current->config;
    pl_config_apply_rules(config);
    pl_log_set_level((enum pl_log_level)config->log_level);
    pl_reload_reset_strikes(self);
    if (self->ops.on_current)
        self->ops.on_current(self->ops.arg, config);
}

static void end_canary(struct pl_reload *self, enum pl_edition_state state, const char *reason)
{
    if (!self->state.canary)
        return;
    leave_force(self->state.canary, state, reason);
    self->state.canary = NULL;
    self->state.canary_ratio = 0;
    pl_reload_trial_end(self);
}

static void become_current(struct pl_reload *self, struct pl_edition *edition)
{
    edition->state = PL_EDITION_CURRENT;
    self->state.current = edition;
    follow_current(self);
}

/* The workers are told; on_notify hears when all have followed. */
static void publish(struct pl_reload *self, struct pl_edition *result)
{
    self->published = result;
    self->phase = PL_RELOAD_PUBLISHING;
    give_orders(self);
}

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

static void on_loaded(void *arg, struct pl_edition *edition, const char *problems);

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

/* A listener that others reach is not left without its token: its address stays until a restart. */
static const char *check_admin(const struct pl_reload *self, const struct pl_config *config)
{
    const struct pl_config *started = self->started;
    if (!started->admin_address || config->admin_token ||
        pl_config_is_loopback(started->admin_address))
        return NULL;
    return "gateway.lua: admin.token: is needed, because the admin listener keeps its address, "
           "which other machines can reach, until a restart";
}

static const char *check_loaded(struct pl_reload *self, struct pl_config *config)
{
    static char text[200];
    if (pl_config_bind_health(config, self->health, self->gauge) != PL_OK) {
        snprintf(text, sizeof(text),
                 "gateway.lua: more providers and targets than the %u that this process has room "
                 "for, those of earlier configurations included; a restart makes room",
                 pl_health_capacity(self->health));
        return text;
    }
    return check_admin(self, config);
}

static void log_in_force(const struct pl_reload *self, const struct pl_edition *edition)
{
    const char *reason = edition->reason[0] ? edition->reason : "reloaded";
    if (edition == self->state.canary)
        pl_log(PL_LOG_INFO, "generation %llu is on trial with %.3g%% of the requests, by %s",
               (unsigned long long)edition->number, self->state.canary_ratio * 100, edition->by);
    else
        pl_log(PL_LOG_INFO, "generation %llu is in force, by %s: %s (%zu changes)",
               (unsigned long long)edition->number, edition->by, reason, self->diff.total);
    for (size_t i = 0; self->diff.restart[i]; i++)
        pl_log(PL_LOG_WARN, "reload: %s has changed, which takes a restart", self->diff.restart[i]);
}

static void put_in_force(struct pl_reload *self, struct pl_edition *edition)
{
    struct pl_edition *before = self->state.current;
    end_canary(self, PL_EDITION_RETIRED, "replaced by another reload");
    edition->back = before;
    leave_force(before, PL_EDITION_RETIRED, NULL);
    become_current(self, edition);
}

static void put_on_trial(struct pl_reload *self, struct pl_edition *edition)
{
    const struct pl_reload_request *request = &self->running->request;
    end_canary(self, PL_EDITION_RETIRED, "replaced by another reload");
    edition->state = PL_EDITION_CANARY;
    edition->back = self->state.current;
    self->state.canary = edition;
    self->state.canary_ratio = request->canary_ratio;
    pl_reload_trial_begin(self, request);
}

static void take_loaded(struct pl_reload *self, struct pl_edition *edition)
{
    const struct pl_reload_request *request = &self->running->request;
    const char *problem = check_loaded(self, edition->config);
    if (problem) {
        pl_edition_free(edition);
        fail(self, problem);
        return;
    }
    pl_reload_watch_read(self, edition->config);
    pl_reload_compare(&self->diff, self->state.current->config, edition->config, self->started);
    number(self, edition, request->by);
    self->state.good_count++;
    if (request->canary_ratio > 0)
        put_on_trial(self, edition);
    else
        put_in_force(self, edition);
    log_in_force(self, edition);
    publish(self, edition);
}

/* ---- going back ---- */

static enum pl_rollback_cause cause_of(const struct pl_reload_request *request)
{
    if (strcmp(request->by, "strikes") == 0)
        return PL_ROLLBACK_STRIKES;
    return strcmp(request->by, "trial") == 0 ? PL_ROLLBACK_TRIAL : PL_ROLLBACK_OPERATOR;
}

static const char *reason_of(const struct pl_reload_ticket *ticket)
{
    return ticket->reason ? ticket->reason : "asked for";
}

/* The current edition has been taken back: `edition` was made from the one before. */
static void take_restored(struct pl_reload *self, struct pl_edition *edition)
{
    struct pl_edition *failed = self->state.current, *from = failed->back;
    edition->restored_from = from->number;
    edition->back = from->back;
    pl_reload_compare(&self->diff, failed->config, edition->config, self->started);
    number(self, edition, self->running->request.by);
    snprintf(edition->reason, sizeof(edition->reason), "restored from %llu instead of %llu: %s",
             (unsigned long long)from->number, (unsigned long long)failed->number,
             reason_of(self->running));
    self->state.rollback_counts[cause_of(&self->running->request)]++;
    end_canary(self, PL_EDITION_RETIRED, "the generation it was compared with was taken back");
    leave_force(failed, PL_EDITION_FAILED, reason_of(self->running));
    become_current(self, edition);
    pl_log(PL_LOG_WARN, "generation %llu is taken back, by %s: %s",
           (unsigned long long)failed->number, edition->by, reason_of(self->running));
    log_in_force(self, edition);
    publish(self, edition);
}

static void on_loaded(void *arg, struct pl_edition *edition, const char *problems)
{
    struct pl_reload *self = arg;
    bool restores = self->running->request.kind == PL_RELOAD_ROLLBACK;
    if (!edition) {
        fail(self, problems);
    } else if (self->draining) {
        pl_edition_free(edition);
        refuse(self, 503, "draining", "The gateway is draining.");
    } else if (restores) {
        take_restored(self, edition);
    } else {
        take_loaded(self, edition);
    }
}

static void drop_canary(struct pl_reload *self)
{
    struct pl_edition *failed = self->state.canary;
    self->state.rollback_counts[cause_of(&self->running->request)]++;
    pl_log(PL_LOG_WARN, "generation %llu, on trial, is taken back, by %s: %s",
           (unsigned long long)failed->number, self->running->request.by, reason_of(self->running));
    end_canary(self, PL_EDITION_FAILED, reason_of(self->running));
    publish(self, self->state.current);
}

static void promote_canary(struct pl_reload *self)
{
    struct pl_edition *edition = self->state.canary, *before = self->state.current;
    self->state.canary = NULL;
    self->state.canary_ratio = 0;
    self->state.promoted_count++;
    pl_reload_trial_end(self);
    snprintf(edition->reason, sizeof(edition->reason), "promoted: %s", reason_of(self->running));
    leave_force(before, PL_EDITION_RETIRED, NULL);
    become_current(self, edition);
    log_in_force(self, edition);
    publish(self, edition);
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
        drop_canary(self);
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
        promote_canary(self);
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
    const struct pl_topology *topology = &config->topology;
    size_t need = topology->provider_count + topology->target_count;
    uint32_t slot_count = PL_MAX(SLOTS_MIN_COUNT, (uint32_t)need * 4);
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
    number(self, edition, "start");
    become_current(self, edition);
    return PL_OK;
}

void pl_reload_add_worker(struct pl_reload *self, struct pl_worker *worker)
{
    self->workers[self->worker_count++] = worker;
    if (self->worker_count == self->worker_target_count)
        give_orders(self);
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
