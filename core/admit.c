/*
 * Admit: a request's place at a target, see request.h. Before a try there is a reservation, in the
 * slots of the target and of its provider; the try takes it over, reports its outcome once, and
 * leaves at its end.
 *
 * What counts where: a target's slot gets every outcome. A provider's slot is about reaching it at
 * all: any HTTP answer is a good one there, a connection failure a bad one, the rest neutral; so
 * one model that fails does not take its provider's other models with it. A key's slot is about
 * whether it is accepted: a good answer says so, a refusal takes it out, nothing else counts.
 */
#include "keys.h"
#include "log.h"
#include "request.h"

static struct pl_health *health_of(const struct pl_try *self)
{
    return self->request->generation->topology->health;
}

static const struct pl_provider *provider_of(const struct pl_try *self,
                                             const struct pl_target *target)
{
    return &self->request->generation->topology->providers[target->provider_index];
}

static bool admit_key(struct pl_try *self, const struct pl_target *target, bool forced)
{
    struct pl_place *place = &self->place;
    uint32_t *turns = self->request->generation->key_turns;
    return pl_keys_admit(provider_of(self, target), health_of(self), &turns[target->provider_index],
                         pl_last_now_ms(), forced, &place->key, &place->key_index);
}

/* Gives a ticket back that was of no use. */
static void give_back(struct pl_try *self, const struct pl_health_ticket *ticket)
{
    pl_health_report(health_of(self), ticket, PL_OUTCOME_NEUTRAL, pl_last_now_ms(), 0);
    pl_health_leave(health_of(self), ticket);
}

enum pl_admission pl_try_admit(struct pl_try *self, const struct pl_target *target, bool forced)
{
    struct pl_health *health = health_of(self);
    struct pl_place *place = &self->place;
    uint64_t now_ms = pl_last_now_ms();
    pl_try_leave(self);
    if (!pl_health_admit(health, provider_of(self, target)->slot, now_ms, forced, &place->provider))
        return PL_ADMIT_OUT;
    if (!admit_key(self, target, forced)) {
        give_back(self, &place->provider);
        return PL_ADMIT_OUT;
    }
    if (!pl_health_admit_limited(health, target->slot, now_ms, forced, target->max_in_flight,
                                 &place->target)) {
        give_back(self, &place->provider);
        give_back(self, &place->key);
        bool full = target->max_in_flight > 0 &&
                    pl_health_in_flight(health, target->slot) >= target->max_in_flight;
        return full ? PL_ADMIT_BUSY : PL_ADMIT_OUT;
    }
    place->of = target;
    place->good = place->reported = false;
    return PL_ADMIT_OK;
}

static enum pl_outcome outcome_for_provider(enum pl_outcome outcome, bool answered)
{
    if (answered)
        return PL_OUTCOME_OK;
    return outcome == PL_OUTCOME_CONNECTION ? PL_OUTCOME_CONNECTION : PL_OUTCOME_NEUTRAL;
}

static enum pl_outcome outcome_for_key(enum pl_outcome outcome, bool answered)
{
    return answered && outcome == PL_OUTCOME_OK ? PL_OUTCOME_OK : PL_OUTCOME_NEUTRAL;
}

static void log_ejection(const struct pl_try *self, const char *what, const char *name,
                         enum pl_health_reason reason)
{
    if (reason != PL_REASON_NONE)
        pl_log(PL_LOG_WARN, "%s %s is out: %s (request %s)", what, name,
               pl_health_reason_name(reason), self->request->id);
}

/* One report, and what it has changed is told. */
static void report_to(const struct pl_try *self, const struct pl_health_ticket *ticket,
                      enum pl_outcome outcome, const char *what, const char *name)
{
    struct pl_health *health = health_of(self);
    uint64_t now_ms = pl_last_now_ms();
    log_ejection(self, what, name,
                 pl_health_report(health, ticket, outcome, now_ms, pl_random_unit()));
    if (ticket->probe && outcome == PL_OUTCOME_OK && pl_health_is_fit(health, ticket->slot, now_ms))
        pl_log(PL_LOG_INFO, "%s %s is back: it has answered its probe (request %s)", what, name,
               self->request->id);
}

static void report(struct pl_try *self, enum pl_outcome outcome, bool answered)
{
    struct pl_place *place = &self->place;
    if (!place->of || place->reported)
        return;
    place->reported = true;
    report_to(self, &place->target, outcome, "target", place->of->name);
    report_to(self, &place->provider, outcome_for_provider(outcome, answered), "provider",
              provider_of(self, place->of)->name);
    if (place->key.slot != PL_HEALTH_NO_SLOT)
        report_to(self, &place->key, outcome_for_key(outcome, answered), "a key of provider",
                  provider_of(self, place->of)->name);
}

static enum pl_outcome outcome_of_failure(enum pl_failure failure)
{
    switch (failure) {
    case PL_FAIL_NONE:
        return PL_OUTCOME_OK;
    case PL_FAIL_DNS:
    case PL_FAIL_CONNECT:
    case PL_FAIL_TLS:
    case PL_FAIL_TIMEOUT_CONNECT:
    case PL_FAIL_RESET:
        return PL_OUTCOME_CONNECTION;
    case PL_FAIL_RATE_LIMITED:
        return PL_OUTCOME_REJECTED;
    case PL_FAIL_OVERLOADED:
        return PL_OUTCOME_GATEWAY_ERROR;
    case PL_FAIL_SERVER_ERROR:
    case PL_FAIL_TIMEOUT_HEAD:
    case PL_FAIL_TIMEOUT_FIRST_TOKEN:
    case PL_FAIL_TIMEOUT_IDLE:
    case PL_FAIL_TIMEOUT_TRY:
    case PL_FAIL_TRUNCATED:
    case PL_FAIL_MALFORMED:
    case PL_FAIL_EMPTY:
        return PL_OUTCOME_SERVER_ERROR;
    case PL_FAIL_AUTH: /* as the statuses that say the same */
    case PL_FAIL_BILLING:
    case PL_FAIL_MODEL_NOT_FOUND:
    case PL_FAIL_CONTEXT_LENGTH:
    case PL_FAIL_CONTENT_FILTER:
    case PL_FAIL_CLIENT_FAULT:
    case PL_FAIL_TIMEOUT_DEADLINE: /* but see outcome_of_short_time */
        return PL_OUTCOME_NEUTRAL;
    }
    return PL_OUTCOME_NEUTRAL;
}

/* Of an answer that began well: how it ended. A connection that was lost is the target's failure by
 * now, not the provider's. */
static enum pl_outcome outcome_of_end(enum pl_failure failure)
{
    enum pl_outcome outcome = outcome_of_failure(failure);
    return outcome == PL_OUTCOME_CONNECTION ? PL_OUTCOME_SERVER_ERROR : outcome;
}

/* A probe was reported when its answer began: what went wrong since is told, too. */
static void report_late(struct pl_try *self)
{
    const struct pl_target *target = self->place.of;
    enum pl_outcome outcome = outcome_of_end(self->response.failure);
    if (outcome != PL_OUTCOME_OK && outcome != PL_OUTCOME_NEUTRAL)
        log_ejection(self, "target", target->name,
                     pl_health_report_late(health_of(self), target->slot, outcome, pl_last_now_ms(),
                                           pl_random_unit()));
}

void pl_try_leave(struct pl_try *self)
{
    struct pl_place *place = &self->place;
    if (!place->of)
        return;
    if (!place->good)
        report(self, PL_OUTCOME_NEUTRAL, false);
    else if (place->reported)
        report_late(self);
    else
        report(self, outcome_of_end(self->response.failure), true);
    pl_health_leave(health_of(self), &place->target);
    pl_health_leave(health_of(self), &place->provider);
    pl_health_leave(health_of(self), &place->key);
    place->of = NULL;
}

static enum pl_outcome outcome_of_status(int status)
{
    if (status == 429)
        return PL_OUTCOME_REJECTED;
    if (status == 502 || status == 503 || status == 504)
        return PL_OUTCOME_GATEWAY_ERROR;
    if (status >= 500)
        return PL_OUTCOME_SERVER_ERROR;
    return status < 400 ? PL_OUTCOME_OK : PL_OUTCOME_NEUTRAL;
}

void pl_try_report_status(struct pl_try *self, int status, uint32_t first_token_ms)
{
    enum pl_outcome outcome = outcome_of_status(status);
    struct pl_place *place = &self->place;
    if (outcome == PL_OUTCOME_OK && place->of) {
        pl_health_add_latency(health_of(self), place->of->slot, first_token_ms,
                              self->response.is_sse);
        place->good = true;
        /* a probe decides at once: streams are long, and others wait for it */
        if (!place->target.probe && !place->provider.probe && !place->key.probe)
            return;
    }
    report(self, outcome, true);
}

/* The time that ran out before there was an answer was not the target's own limit. It is the
 * target's failure when it was what the operator thinks is a chance; clients, whose deadlines may
 * be shorter, must not be able to take targets out. */
static enum pl_outcome outcome_of_short_time(const struct pl_try *self)
{
    uint64_t chance_ms = self->request->chance_ms;
    bool had_chance = chance_ms > 0 && pl_last_now_ms() - self->start_ms >= chance_ms;
    return had_chance ? PL_OUTCOME_SERVER_ERROR : PL_OUTCOME_NEUTRAL;
}

void pl_try_report_failure(struct pl_try *self, enum pl_failure failure)
{
    bool answered = failure >= PL_FAIL_RATE_LIMITED && failure <= PL_FAIL_SERVER_ERROR;
    bool is_short = self->cut || failure == PL_FAIL_TIMEOUT_DEADLINE;
    report(self, is_short ? outcome_of_short_time(self) : outcome_of_failure(failure), answered);
}

void pl_try_report_class(struct pl_try *self, enum pl_class class, bool answered)
{
    if (class < PL_CLASS_RATE_LIMITED || class >= PL_CLASS_COUNT)
        report(self, PL_OUTCOME_NEUTRAL, answered);
    else
        report(self, outcome_of_failure(pl_request_failure_of(class)), answered);
}

static void log_key(const struct pl_try *self, const struct pl_provider *provider, const char *why)
{
    char key[160];
    pl_keys_describe(provider, self->so_far.key - 1u, key, sizeof(key));
    pl_log(PL_LOG_WARN, "provider %s: %s is out: %s (request %s)", provider->name, key, why,
           self->request->id);
}

void pl_try_refuse_key(struct pl_try *self)
{
    const struct pl_provider *provider = provider_of(self, self->target);
    if (self->so_far.key == 0)
        return;
    self->key_is_marked = true;
    if (pl_keys_refuse(provider, health_of(self), self->so_far.key - 1u, pl_last_now_ms(),
                       pl_random_unit()))
        log_key(self, provider, "refused");
}

bool pl_try_pause_key(struct pl_try *self, uint64_t duration_ms)
{
    const struct pl_provider *provider = provider_of(self, self->target);
    if (self->so_far.key == 0 || provider->key_count < 2)
        return false;
    self->key_is_marked = true;
    pl_health_eject(health_of(self), provider->keys[self->so_far.key - 1u].slot,
                    PL_REASON_RETRY_AFTER, duration_ms, pl_last_now_ms());
    log_key(self, provider, "retry_after");
    return true;
}

bool pl_request_enter_queue(struct pl_request *self, const struct pl_target *target,
                            uint32_t max_count)
{
    pl_request_leave_queue(self);
    if (!pl_gauge_queue_enter(self->generation->topology->gauge, target->slot, max_count))
        return false;
    self->queued_at = target;
    return true;
}

void pl_request_leave_queue(struct pl_request *self)
{
    if (self->queued_at)
        pl_gauge_queue_leave(self->generation->topology->gauge, self->queued_at->slot);
    self->queued_at = NULL;
}

void pl_request_leave_retries(struct pl_request *self)
{
    if (self->retrying)
        pl_gauge_retry_end(self->generation->topology->gauge);
    self->retrying = false;
}
