/*
 * Health machine: see health_machine.h, and health.h for states and transitions. Who calls holds
 * the slot's lock; nobody is called back.
 *
 * Which outcome moves what:
 *
 *                  5xx row   gateway row   connection row   window            average
 *   OK             to 0      to 0          to 0             request           towards 1
 *   SERVER_ERROR   + 1       to 0          to 0             request, failure  towards 0
 *   GATEWAY_ERROR  + 1       + 1           to 0             request, failure  towards 0
 *   CONNECTION     + 1 (*)                 + 1              request, failure  towards 0
 *   UNHEALTHY                                               request, failure  towards 0
 *   NEUTRAL, REJECTED: nothing
 *
 * (*) not when the rules split connection failures off. As in Envoy, a 5xx shows that connecting
 * works, and a 500 is no gateway error: each breaks the row it is not part of.
 *
 * The window is the present tenth and the nine before it. The average is compared before the
 * present outcome enters it, strictly, as in agentgateway: after a good past one failure never
 * ejects by it.
 */
#include "health_machine.h"

#include <assert.h>

#define EWMA_ALPHA 0.3

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static bool is_failure(enum pl_outcome outcome)
{
    return outcome == PL_OUTCOME_SERVER_ERROR || outcome == PL_OUTCOME_GATEWAY_ERROR ||
           outcome == PL_OUTCOME_CONNECTION || outcome == PL_OUTCOME_UNHEALTHY;
}

static double ewma(double old, double sample)
{
    return EWMA_ALPHA * sample + (1 - EWMA_ALPHA) * old;
}

/* ---- rows ---- */

static void extend(uint32_t *row)
{
    if (*row < UINT32_MAX) {
        ++*row;
    }
}

static void count_in_rows(struct pl_health_machine *self, enum pl_outcome outcome)
{
    if (outcome == PL_OUTCOME_UNHEALTHY) {
        return;
    }
    if (outcome == PL_OUTCOME_OK) {
        self->consecutive_5xx = 0;
    } else if (outcome != PL_OUTCOME_CONNECTION || !self->rules.split_connection) {
        extend(&self->consecutive_5xx);
    }
    if (outcome == PL_OUTCOME_GATEWAY_ERROR) {
        extend(&self->consecutive_gateway);
    } else if (outcome != PL_OUTCOME_CONNECTION) {
        self->consecutive_gateway = 0;
    }
    if (outcome == PL_OUTCOME_CONNECTION) {
        extend(&self->consecutive_connection);
    } else {
        self->consecutive_connection = 0;
    }
}

/* ---- the sliding window ---- */

/* Empties the parts after the newest up to the one of `part`. */
static void advance(struct pl_health_window *window, uint64_t part)
{
    uint64_t stale = PL_MIN(part - window->newest_part, PL_HEALTH_WINDOW_PARTS);
    for (uint64_t i = 0; i < stale; i++) {
        size_t at = (size_t)((part - i) % PL_HEALTH_WINDOW_PARTS);
        window->parts[at].request_count = window->parts[at].failure_count = 0;
    }
    window->newest_part = part;
}

static void count_in_window(struct pl_health_window *window, uint32_t window_ms, bool failed,
                            uint64_t now_ms)
{
    /* Rounded up, so never 0. */
    uint64_t part_ms = ((uint64_t)window_ms + PL_HEALTH_WINDOW_PARTS - 1) / PL_HEALTH_WINDOW_PARTS;
    /* Another worker may have read its clock a little earlier; its outcome is as new as any. */
    uint64_t part = PL_MAX(now_ms / part_ms, window->newest_part);
    advance(window, part);
    size_t at = (size_t)(part % PL_HEALTH_WINDOW_PARTS);
    window->parts[at].request_count++;
    window->parts[at].failure_count += failed;
}

static bool fails_too_often(const struct pl_health_window *window,
                            const struct pl_health_rules *rules)
{
    uint64_t request_count = 0;
    uint64_t failure_count = 0;
    for (size_t i = 0; i < PL_HEALTH_WINDOW_PARTS; i++) {
        request_count += window->parts[i].request_count;
        failure_count += window->parts[i].failure_count;
    }
    return request_count > 0 && request_count >= rules->failure_min_count &&
           (double)failure_count / (double)request_count >= rules->failure_ratio;
}

/* ---- the rules ---- */

static bool has_window(const struct pl_health_rules *rules)
{
    return rules->failure_ratio > 0 && rules->window_ms > 0;
}

static bool has_reached(uint32_t row, uint32_t limit)
{
    return limit > 0 && row >= limit;
}

/* The rule that a failure breaks which rows and window hold already, but not the average. */
static enum pl_health_reason judge(const struct pl_health_machine *self, enum pl_outcome outcome)
{
    const struct pl_health_rules *rules = &self->rules;
    if (outcome == PL_OUTCOME_UNHEALTHY) {
        return PL_REASON_UNHEALTHY;
    }
    if (has_reached(self->consecutive_5xx, rules->consecutive_5xx_count)) {
        return PL_REASON_CONSECUTIVE_5XX;
    }
    if (has_reached(self->consecutive_gateway, rules->consecutive_gateway_count)) {
        return PL_REASON_CONSECUTIVE_GATEWAY;
    }
    if (has_reached(self->consecutive_connection, rules->consecutive_connection_count)) {
        return PL_REASON_CONSECUTIVE_CONNECTION;
    }
    if (has_window(rules) && fails_too_often(&self->window, rules)) {
        return PL_REASON_FAILURE_RATIO;
    }
    bool is_poor = self->success_ewma_ratio < rules->success_ewma_min_ratio;
    return is_poor ? PL_REASON_SUCCESS_EWMA : PL_REASON_NONE;
}

/* Returns the rule that the outcome breaks, or NONE. */
static enum pl_health_reason count(struct pl_health_machine *self, enum pl_outcome outcome,
                                   uint64_t now_ms)
{
    bool failed = is_failure(outcome);
    if (!failed && outcome != PL_OUTCOME_OK) {
        return PL_REASON_NONE;
    }
    count_in_rows(self, outcome);
    if (has_window(&self->rules)) {
        count_in_window(&self->window, self->rules.window_ms, failed, now_ms);
    }
    enum pl_health_reason reason = failed ? judge(self, outcome) : PL_REASON_NONE;
    self->success_ewma_ratio = ewma(self->success_ewma_ratio, failed ? 0 : 1);
    return reason;
}

static void forget_rows_and_window(struct pl_health_machine *self)
{
    self->consecutive_5xx = self->consecutive_gateway = self->consecutive_connection = 0;
    self->window = (struct pl_health_window){0};
}

/* ---- multiplier and duration ---- */

static uint32_t decayed_multiplier(const struct pl_health_machine *self, uint64_t now_ms)
{
    if (self->state != PL_HEALTH_CLOSED || self->rules.decay_ms == 0 ||
        now_ms <= self->closed_since_ms) {
        return self->multiplier;
    }
    uint64_t decay_count = (now_ms - self->closed_since_ms) / self->rules.decay_ms;
    return decay_count < self->multiplier ? self->multiplier - (uint32_t)decay_count : 0;
}

/* That of one more ejection. */
static uint32_t next_multiplier(const struct pl_health_machine *self, uint64_t now_ms)
{
    uint32_t multiplier = decayed_multiplier(self, now_ms);
    uint32_t max_ms = self->rules.max_ejection_ms;
    bool is_capped = max_ms > 0 && (uint64_t)self->rules.base_ejection_ms * multiplier >= max_ms;
    return is_capped || multiplier == UINT32_MAX ? multiplier : multiplier + 1;
}

static uint64_t ejection_ms(const struct pl_health_machine *self, double random_unit)
{
    uint64_t length_ms = (uint64_t)self->rules.base_ejection_ms * self->multiplier;
    if (self->rules.max_ejection_ms > 0) {
        length_ms = PL_MIN(length_ms, self->rules.max_ejection_ms);
    }
    double jitter_ms = (double)length_ms * self->rules.jitter_ratio * random_unit;
    /* So written that not-a-number is none, and that the cast is in range. */
    return jitter_ms >= 1 ? add_saturating(length_ms, (uint64_t)PL_MIN(jitter_ms, 0x1p62))
                          : length_ms;
}

/* ---- states ---- */

/* The only place where the state changes. */
static void move_to(struct pl_health_machine *self, enum pl_health_state next)
{
    static const bool legal[][PL_HEALTH_HALF_OPEN + 1] = {
        [PL_HEALTH_CLOSED] = {[PL_HEALTH_OPEN] = true},
        [PL_HEALTH_OPEN] = {[PL_HEALTH_HALF_OPEN] = true, [PL_HEALTH_CLOSED] = true},
        [PL_HEALTH_HALF_OPEN] = {[PL_HEALTH_OPEN] = true, [PL_HEALTH_CLOSED] = true},
    };
    assert(legal[self->state][next]);
    self->state = next;
    self->probe_in_flight = false;
}

static void go_out(struct pl_health_machine *self, enum pl_health_reason reason, uint64_t until_ms)
{
    move_to(self, PL_HEALTH_OPEN);
    self->reason = reason;
    self->until_ms = until_ms;
    self->ramp_end_ms = 0;
    self->epoch++;
    self->ejection_totals[reason]++;
}

static void come_back(struct pl_health_machine *self, uint32_t slow_start_ms, uint64_t now_ms)
{
    move_to(self, PL_HEALTH_CLOSED);
    self->must_prove = false;
    self->closed_since_ms = now_ms;
    self->ramp_ms = slow_start_ms;
    self->ramp_end_ms = slow_start_ms > 0 ? add_saturating(now_ms, slow_start_ms) : 0;
    forget_rows_and_window(self);
}

static bool is_time_over(const struct pl_health_machine *self, uint64_t now_ms)
{
    return self->state == PL_HEALTH_OPEN && !self->check_failed && now_ms >= self->until_ms;
}

/* Makes the step that the clock alone has brought. */
static void catch_up(struct pl_health_machine *self, uint64_t now_ms)
{
    if (is_time_over(self, now_ms)) {
        move_to(self, PL_HEALTH_HALF_OPEN);
    }
}

static void eject_by_rule(struct pl_health_machine *self, enum pl_health_reason reason,
                          uint64_t now_ms, double random_unit)
{
    self->multiplier = next_multiplier(self, now_ms);
    self->must_prove = true;
    go_out(self, reason, add_saturating(now_ms, ejection_ms(self, random_unit)));
}

void pl_health_machine_init(struct pl_health_machine *self, uint32_t epoch)
{
    *self = (struct pl_health_machine){.epoch = epoch, .success_ewma_ratio = 1};
}

void pl_health_machine_set_rules(struct pl_health_machine *self,
                                 const struct pl_health_rules *rules)
{
    if (self->rules.window_ms != rules->window_ms) {
        self->window = (struct pl_health_window){0}; /* its parts are of another length */
    }
    self->rules = *rules;
}

/* ---- attempts ---- */

uint64_t pl_health_machine_fit_at_ms(const struct pl_health_machine *self)
{
    if (self->check_failed) {
        return UINT64_MAX;
    }
    switch (self->state) {
    case PL_HEALTH_OPEN:
        return self->until_ms;
    case PL_HEALTH_HALF_OPEN:
        return self->probe_in_flight ? self->probe_deadline_ms : 0;
    case PL_HEALTH_CLOSED:
        break;
    }
    return 0;
}

static void start_probe(struct pl_health_machine *self, uint64_t now_ms)
{
    if (self->probe_in_flight) {
        self->epoch++; /* that one is given up, its report will be late */
    }
    uint32_t timeout_ms = self->rules.probe_timeout_ms;
    self->probe_deadline_ms = timeout_ms > 0 ? add_saturating(now_ms, timeout_ms) : UINT64_MAX;
    self->probe_in_flight = true;
    self->probe_total++;
}

bool pl_health_machine_admit(struct pl_health_machine *self, uint64_t now_ms, bool forced,
                             struct pl_health_ticket *ticket)
{
    if (!forced && now_ms < pl_health_machine_fit_at_ms(self)) {
        return false;
    }
    catch_up(self, now_ms);
    ticket->probe = !forced && self->state == PL_HEALTH_HALF_OPEN;
    if (ticket->probe) {
        start_probe(self, now_ms);
    }
    ticket->epoch = self->epoch;
    return true;
}

static enum pl_health_reason settle_probe(struct pl_health_machine *self, enum pl_outcome outcome,
                                          uint64_t now_ms, double random_unit)
{
    if (is_failure(outcome)) {
        eject_by_rule(self, PL_REASON_PROBE_FAILED, now_ms, random_unit);
        return PL_REASON_PROBE_FAILED;
    }
    if (outcome == PL_OUTCOME_OK) {
        come_back(self, self->rules.slow_start_ms, now_ms);
    }
    self->probe_in_flight = false;
    return PL_REASON_NONE;
}

static enum pl_health_reason take(struct pl_health_machine *self, enum pl_outcome outcome,
                                  bool is_probe, uint64_t now_ms, double random_unit)
{
    enum pl_health_reason reason = count(self, outcome, now_ms);
    if (is_probe && self->state == PL_HEALTH_HALF_OPEN) {
        return settle_probe(self, outcome, now_ms, random_unit);
    }
    if (reason == PL_REASON_NONE || self->state != PL_HEALTH_CLOSED) {
        return PL_REASON_NONE;
    }
    eject_by_rule(self, reason, now_ms, random_unit);
    return reason;
}

enum pl_health_reason pl_health_machine_report(struct pl_health_machine *self,
                                               const struct pl_health_ticket *ticket,
                                               enum pl_outcome outcome, uint64_t now_ms,
                                               double random_unit)
{
    self->outcome_totals[outcome]++;
    if (ticket->epoch != self->epoch) {
        return PL_REASON_NONE;
    }
    return take(self, outcome, ticket->probe, now_ms, random_unit);
}

enum pl_health_reason pl_health_machine_report_late(struct pl_health_machine *self,
                                                    enum pl_outcome outcome, uint64_t now_ms,
                                                    double random_unit)
{
    self->outcome_totals[outcome]++;
    self->late_failure_total += is_failure(outcome);
    return take(self, outcome, false, now_ms, random_unit);
}

void pl_health_machine_add_latency(struct pl_health_machine *self, uint32_t first_token_ms,
                                   bool streams)
{
    double old_ms = self->first_token_ewma_ms;
    self->first_token_ewma_ms = old_ms == 0 ? first_token_ms : ewma(old_ms, first_token_ms);
    pl_tail_add(&self->waits[streams], first_token_ms);
}

/* ---- decrees and checks ---- */

static bool grows_multiplier(enum pl_health_reason reason)
{
    return reason != PL_REASON_OPERATOR && reason != PL_REASON_POLICY &&
           reason != PL_REASON_RETRY_AFTER && reason != PL_REASON_DRAINED;
}

void pl_health_machine_eject(struct pl_health_machine *self, enum pl_health_reason reason,
                             uint64_t duration_ms, uint64_t now_ms)
{
    uint64_t until_ms = add_saturating(now_ms, duration_ms);
    catch_up(self, now_ms);
    self->must_prove = true;
    self->decreed_until_ms = PL_MAX(self->decreed_until_ms, until_ms);
    if (self->state != PL_HEALTH_OPEN) {
        self->multiplier = grows_multiplier(reason) ? next_multiplier(self, now_ms)
                                                    : decayed_multiplier(self, now_ms);
        go_out(self, reason, until_ms);
    } else if (until_ms > self->until_ms) {
        self->reason = reason;
        self->until_ms = until_ms;
    }
}

void pl_health_machine_restore(struct pl_health_machine *self, uint64_t now_ms)
{
    if (self->state != PL_HEALTH_CLOSED) {
        come_back(self, 0, now_ms);
    }
    forget_rows_and_window(self);
    self->success_ewma_ratio = 1;
    self->multiplier = 0;
    self->ramp_end_ms = 0;
    self->decreed_until_ms = 0;
    self->check_failed = false;
    self->good_check_count = self->bad_check_count = 0;
}

/* Once more changes nothing. */
static void hold_out(struct pl_health_machine *self, uint64_t now_ms)
{
    catch_up(self, now_ms);
    self->multiplier = decayed_multiplier(self, now_ms);
    if (self->state != PL_HEALTH_OPEN) {
        /* A half-open one still owes its probe; its time stays over. */
        go_out(self, PL_REASON_ACTIVE_CHECK, self->must_prove ? self->until_ms : 0);
    }
    self->check_failed = true;
}

static void let_back(struct pl_health_machine *self, bool readmits_passive, uint64_t now_ms)
{
    bool may_close = !self->must_prove || (readmits_passive && now_ms >= self->decreed_until_ms);
    self->check_failed = false;
    if (self->state != PL_HEALTH_CLOSED && may_close) {
        come_back(self, self->rules.slow_start_ms, now_ms);
    }
}

void pl_health_machine_check_result(struct pl_health_machine *self, bool good,
                                    uint32_t unhealthy_after, uint32_t healthy_after,
                                    bool readmits_passive, uint64_t now_ms)
{
    if (good) {
        self->bad_check_count = 0;
        extend(&self->good_check_count);
    } else {
        self->good_check_count = 0;
        extend(&self->bad_check_count);
    }
    if (good && self->good_check_count >= healthy_after) {
        let_back(self, readmits_passive, now_ms);
    } else if (!good && self->bad_check_count >= unhealthy_after) {
        hold_out(self, now_ms);
    }
}

void pl_health_machine_look(const struct pl_health_machine *self, uint64_t now_ms,
                            struct pl_health_view *out)
{
    *out = (struct pl_health_view){
        .state = is_time_over(self, now_ms) ? PL_HEALTH_HALF_OPEN : self->state,
        .reason = self->reason,
        .ejection_count = decayed_multiplier(self, now_ms),
        .probe_in_flight = self->probe_in_flight,
        .check_failed = self->check_failed,
        .consecutive_5xx = self->consecutive_5xx,
        .consecutive_gateway = self->consecutive_gateway,
        .consecutive_connection = self->consecutive_connection,
        .ok_total = self->outcome_totals[PL_OUTCOME_OK],
        .neutral_total = self->outcome_totals[PL_OUTCOME_NEUTRAL],
        .server_error_total = self->outcome_totals[PL_OUTCOME_SERVER_ERROR],
        .gateway_error_total = self->outcome_totals[PL_OUTCOME_GATEWAY_ERROR],
        .connection_total = self->outcome_totals[PL_OUTCOME_CONNECTION],
        .rejected_total = self->outcome_totals[PL_OUTCOME_REJECTED],
        .unhealthy_total = self->outcome_totals[PL_OUTCOME_UNHEALTHY],
        .probe_total = self->probe_total,
        .late_failure_total = self->late_failure_total,
        .success_ewma_ratio = self->success_ewma_ratio,
        .first_token_ewma_ms = self->first_token_ewma_ms,
    };
    out->until_ms = out->state == PL_HEALTH_OPEN ? self->until_ms : 0;
    for (size_t reason = 0; reason < PL_REASON_COUNT; reason++) {
        out->ejection_totals[reason] = self->ejection_totals[reason];
        out->ejection_total += self->ejection_totals[reason];
    }
}
