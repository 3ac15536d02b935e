/*
 * Putting editions in force: what a reload, a rollback, a trial's end does to what serves. See
 * reload_internal.h. Everything here is done at once; the workers follow by their orders.
 */
#include "log.h"
#include "reload_internal.h"
#include <stdio.h>
#include <string.h>

/* ---- publishing ---- */

void pl_reload_give_orders(struct pl_reload *self)
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

void pl_reload_number(struct pl_reload *self, struct pl_edition *edition, const char *by)
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

void pl_reload_become_current(struct pl_reload *self, struct pl_edition *edition)
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
    pl_reload_give_orders(self);
}

/* ---- loading ---- */

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
    pl_reload_become_current(self, edition);
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

void pl_reload_take_loaded(struct pl_reload *self, struct pl_edition *edition)
{
    const struct pl_reload_request *request = &self->running->request;
    const char *problem = check_loaded(self, edition->config);
    if (problem) {
        pl_edition_free(edition);
        pl_reload_fail(self, problem);
        return;
    }
    pl_reload_watch_read(self, edition->config);
    pl_reload_compare(&self->diff, self->state.current->config, edition->config, self->started);
    pl_reload_number(self, edition, request->by);
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
void pl_reload_take_restored(struct pl_reload *self, struct pl_edition *edition)
{
    struct pl_edition *failed = self->state.current, *from = failed->back;
    edition->restored_from = from->number;
    edition->back = from->back;
    pl_reload_compare(&self->diff, failed->config, edition->config, self->started);
    pl_reload_number(self, edition, self->running->request.by);
    snprintf(edition->reason, sizeof(edition->reason), "restored from %llu instead of %llu: %s",
             (unsigned long long)from->number, (unsigned long long)failed->number,
             reason_of(self->running));
    self->state.rollback_counts[cause_of(&self->running->request)]++;
    end_canary(self, PL_EDITION_RETIRED, "the generation it was compared with was taken back");
    leave_force(failed, PL_EDITION_FAILED, reason_of(self->running));
    pl_reload_become_current(self, edition);
    pl_log(PL_LOG_WARN, "generation %llu is taken back, by %s: %s",
           (unsigned long long)failed->number, edition->by, reason_of(self->running));
    log_in_force(self, edition);
    publish(self, edition);
}

void pl_reload_drop_canary(struct pl_reload *self)
{
    struct pl_edition *failed = self->state.canary;
    self->state.rollback_counts[cause_of(&self->running->request)]++;
    pl_log(PL_LOG_WARN, "generation %llu, on trial, is taken back, by %s: %s",
           (unsigned long long)failed->number, self->running->request.by, reason_of(self->running));
    end_canary(self, PL_EDITION_FAILED, reason_of(self->running));
    publish(self, self->state.current);
}

void pl_reload_promote_canary(struct pl_reload *self)
{
    struct pl_edition *edition = self->state.canary, *before = self->state.current;
    self->state.canary = NULL;
    self->state.canary_ratio = 0;
    self->state.promoted_count++;
    pl_reload_trial_end(self);
    snprintf(edition->reason, sizeof(edition->reason), "promoted: %s", reason_of(self->running));
    leave_force(before, PL_EDITION_RETIRED, NULL);
    pl_reload_become_current(self, edition);
    log_in_force(self, edition);
    publish(self, edition);
}
