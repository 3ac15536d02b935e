/*
 * Tests of health.c in random order and in parallel.
 *
 * The model keeps no state but a list of facts (an outcome came, the slot went out, came back, ...)
 * and works out each answer from the whole list, so it shares no idea with the machine that it is
 * compared to after every step. Its clock only goes forward; health_test.c has the other cases.
 *
 * The threads check what must hold in any order: counts add up, one probe at a time, no ejection is
 * lost, nothing stays in flight. `make tsan` watches them.
 */
#include "health.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RUN_COUNT       5000
#define STEPS_PER_RUN   200
#define UNHEALTHY_AFTER 3
#define HEALTHY_AFTER   2

static uint64_t below(uint64_t bound)
{
    return pl_random_u64() % bound;
}

/* ---- the model ---- */

enum fact_kind {
    OUTCOME,    /* of an attempt that was not late */
    OUT,        /* by a rule with the time it takes, else until 0 */
    DECREE,     /* whether it put the slot out or not */
    BACK,       /* closed; until_ms: end of the slow start */
    RESTORED,   /* by the operator */
    PROBE,      /* admitted; until_ms: when it is given up */
    PROBE_OVER, /* undecided */
    GIVEN_UP,
    CHECK,
    LATENCY,
    RESIZED, /* the window */
};

struct fact {
    enum fact_kind kind;
    uint64_t at_ms;
    uint64_t until_ms;
    struct pl_health_rules rules; /* as they were then */
    enum pl_outcome outcome;
    enum pl_health_reason reason;
    bool by_rule, grows, good;
    uint32_t first_token_ms;
};

struct model_ticket {
    struct pl_health_ticket real;
    size_t fact_count; /* when it was admitted */
    bool is_probe, has_reported;
};

static struct {
    struct fact facts[4 * STEPS_PER_RUN];
    size_t fact_count;
    struct model_ticket tickets[STEPS_PER_RUN]; /* in flight */
    size_t ticket_count;
    struct pl_health_rules rules;
    uint64_t now_ms;
    uint64_t totals[PL_OUTCOME_UNHEALTHY + 1], late_failure_total;
} model;

static struct fact *note(enum fact_kind kind)
{
    assert_true(model.fact_count < PL_COUNT(model.facts));
    struct fact *fact = &model.facts[model.fact_count++];
    *fact = (struct fact){.kind = kind, .at_ms = model.now_ms, .rules = model.rules};
    return fact;
}

static bool is_one_of(enum fact_kind kind, unsigned kinds)
{
    return (1u << kind & kinds) != 0;
}

#define SET(a)     (1u << (a))
#define SET2(a, b) (SET(a) | SET(b))
#define CAME_BACK  SET2(BACK, RESTORED)

/* How many facts there were up to the last of those kinds, which is included. */
static size_t last_of(unsigned kinds)
{
    size_t i = model.fact_count;
    while (i > 0 && !is_one_of(model.facts[i - 1].kind, kinds)) {
        i--;
    }
    return i;
}

static size_t count_since(size_t start, unsigned kinds)
{
    size_t count = 0;
    for (size_t i = start; i < model.fact_count; i++) {
        count += is_one_of(model.facts[i].kind, kinds);
    }
    return count;
}

static bool is_out(void)
{
    return last_of(SET(OUT)) > last_of(CAME_BACK);
}

static uint64_t latest_until(size_t start, unsigned kinds)
{
    uint64_t until_ms = 0;
    for (size_t i = start; i < model.fact_count; i++) {
        if (is_one_of(model.facts[i].kind, kinds)) {
            until_ms = PL_MAX(until_ms, model.facts[i].until_ms);
        }
    }
    return until_ms;
}

static uint64_t out_until(void)
{
    return latest_until(last_of(CAME_BACK), SET2(OUT, DECREE));
}

static unsigned check_row(bool good)
{
    unsigned count = 0;
    for (size_t i = last_of(SET(RESTORED)); i < model.fact_count; i++) {
        if (model.facts[i].kind == CHECK) {
            count = model.facts[i].good == good ? count + 1 : 0;
        }
    }
    return count;
}

/* The last streak that was long enough was a bad one. */
static bool is_held_by_checks(void)
{
    unsigned bad_count = 0, good_count = 0;
    bool held = false;
    for (size_t i = last_of(SET(RESTORED)); i < model.fact_count; i++) {
        if (model.facts[i].kind == CHECK) {
            bool good = model.facts[i].good;
            bad_count = good ? 0 : bad_count + 1;
            good_count = good ? good_count + 1 : 0;
            held = good ? held && good_count < HEALTHY_AFTER : held || bad_count >= UNHEALTHY_AFTER;
        }
    }
    return held;
}

static enum pl_health_state state_now(void)
{
    if (!is_out()) {
        return PL_HEALTH_CLOSED;
    }
    bool still = is_held_by_checks() || model.now_ms < out_until();
    return still ? PL_HEALTH_OPEN : PL_HEALTH_HALF_OPEN;
}

static enum pl_health_reason last_reason(void)
{
    enum pl_health_reason reason = PL_REASON_NONE;
    uint64_t until_ms = 0;
    for (size_t i = 0; i < model.fact_count; i++) {
        const struct fact *fact = &model.facts[i];
        if (fact->kind == OUT || (fact->kind == DECREE && fact->until_ms > until_ms)) {
            reason = fact->reason;
        }
        if (is_one_of(fact->kind, SET2(OUT, DECREE))) {
            until_ms = PL_MAX(until_ms, fact->until_ms);
        } else if (is_one_of(fact->kind, CAME_BACK)) {
            until_ms = 0;
        }
    }
    return reason;
}

static uint32_t decay(uint32_t multiplier, uint64_t health_ms, uint32_t decay_ms)
{
    for (; decay_ms > 0 && multiplier > 0 && health_ms >= decay_ms; health_ms -= decay_ms) {
        multiplier--;
    }
    return multiplier;
}

static uint32_t multiplier_now(void)
{
    uint32_t multiplier = 0;
    uint64_t closed_since_ms = 0;
    bool closed = true;
    for (size_t i = 0; i < model.fact_count; i++) {
        const struct fact *fact = &model.facts[i];
        if (fact->kind == OUT) {
            if (closed) {
                multiplier = decay(multiplier, fact->at_ms - closed_since_ms, fact->rules.decay_ms);
            }
            bool at_cap = fact->rules.max_ejection_ms > 0 &&
                          multiplier * fact->rules.base_ejection_ms >= fact->rules.max_ejection_ms;
            multiplier += fact->grows && !at_cap;
            closed = false;
        } else if (is_one_of(fact->kind, CAME_BACK)) {
            multiplier = fact->kind == RESTORED ? 0 : multiplier;
            closed_since_ms = fact->at_ms;
            closed = true;
        }
    }
    return closed ? decay(multiplier, model.now_ms - closed_since_ms, model.rules.decay_ms)
                  : multiplier;
}

/* Outcomes of the first set, back to the first of the second. */
static uint32_t row(unsigned counted, unsigned breaking)
{
    uint32_t count = 0;
    for (size_t i = model.fact_count; i > last_of(CAME_BACK); i--) {
        const struct fact *fact = &model.facts[i - 1];
        if (fact->kind != OUTCOME) {
            continue;
        }
        if ((1u << fact->outcome & breaking) != 0) {
            break;
        }
        bool split = counted != SET(PL_OUTCOME_CONNECTION) && fact->rules.split_connection &&
                     fact->outcome == PL_OUTCOME_CONNECTION;
        count += (1u << fact->outcome & counted) != 0 && !split;
    }
    return count;
}

#define ANSWERED SET2(PL_OUTCOME_SERVER_ERROR, PL_OUTCOME_GATEWAY_ERROR)

static uint32_t row_5xx(void)
{
    return row(ANSWERED | SET(PL_OUTCOME_CONNECTION), SET(PL_OUTCOME_OK));
}

static uint32_t row_gateway(void)
{
    return row(SET(PL_OUTCOME_GATEWAY_ERROR), SET2(PL_OUTCOME_OK, PL_OUTCOME_SERVER_ERROR));
}

static uint32_t row_connection(void)
{
    return row(SET(PL_OUTCOME_CONNECTION), ANSWERED | SET(PL_OUTCOME_OK));
}

static bool failed(enum pl_outcome outcome)
{
    return outcome != PL_OUTCOME_OK && outcome != PL_OUTCOME_NEUTRAL &&
           outcome != PL_OUTCOME_REJECTED;
}

static bool ratio_is_reached(void)
{
    const struct pl_health_rules *rules = &model.rules;
    uint64_t part_ms = (uint64_t)ceil(rules->window_ms / 10.0);
    double request_count = 0, failure_count = 0;
    for (size_t i = last_of(CAME_BACK | SET(RESIZED)); i < model.fact_count; i++) {
        const struct fact *fact = &model.facts[i];
        bool within = fact->kind == OUTCOME && fact->rules.failure_ratio > 0 &&
                      fact->at_ms / part_ms + 10 > model.now_ms / part_ms;
        request_count += within;
        failure_count += within && failed(fact->outcome);
    }
    return request_count >= rules->failure_min_count &&
           failure_count / request_count >= rules->failure_ratio;
}

static double success_ewma(void)
{
    double ratio = 1;
    for (size_t i = last_of(SET(RESTORED)); i < model.fact_count; i++) {
        if (model.facts[i].kind == OUTCOME) {
            ratio = 0.3 * !failed(model.facts[i].outcome) + 0.7 * ratio;
        }
    }
    return ratio;
}

static double first_token_ewma(void)
{
    double average_ms = 0;
    for (size_t i = 0; i < model.fact_count; i++) {
        double sample_ms = model.facts[i].first_token_ms;
        if (model.facts[i].kind == LATENCY) {
            average_ms = average_ms == 0 ? sample_ms : 0.3 * sample_ms + 0.7 * average_ms;
        }
    }
    return average_ms;
}

/* The probe in flight, or NULL. */
static const struct fact *probe_now(void)
{
    size_t start = last_of(SET(PROBE));
    bool over = start == 0 || count_since(start, CAME_BACK | SET2(OUT, PROBE_OVER)) > 0;
    return over ? NULL : &model.facts[start - 1];
}

static bool is_fit_now(void)
{
    const struct fact *probe = probe_now();
    enum pl_health_state state = state_now();
    return state == PL_HEALTH_CLOSED ||
           (state == PL_HEALTH_HALF_OPEN && (probe == NULL || model.now_ms >= probe->until_ms));
}

static double ramp_now(void)
{
    size_t back = last_of(CAME_BACK);
    if (is_out() || back == 0 || model.now_ms >= model.facts[back - 1].until_ms) {
        return 1;
    }
    double length_ms = (double)(model.facts[back - 1].until_ms - model.facts[back - 1].at_ms);
    return 0.1 + 0.9 * (double)(model.now_ms - model.facts[back - 1].at_ms) / length_ms;
}

static bool reaches(uint32_t count, uint32_t limit)
{
    return limit != 0 && count >= limit;
}

/* What the rules say to the outcome that was just noted. */
static enum pl_health_reason verdict(enum pl_outcome outcome, double ewma_before)
{
    const struct pl_health_rules *rules = &model.rules;
    return !failed(outcome)                                   ? PL_REASON_NONE
           : outcome == PL_OUTCOME_UNHEALTHY                  ? PL_REASON_UNHEALTHY
           : reaches(row_5xx(), rules->consecutive_5xx_count) ? PL_REASON_CONSECUTIVE_5XX
           : reaches(row_gateway(), rules->consecutive_gateway_count)
               ? PL_REASON_CONSECUTIVE_GATEWAY
           : reaches(row_connection(), rules->consecutive_connection_count)
               ? PL_REASON_CONSECUTIVE_CONNECTION
           : rules->failure_ratio > 0 && ratio_is_reached() ? PL_REASON_FAILURE_RATIO
           : ewma_before < rules->success_ewma_min_ratio    ? PL_REASON_SUCCESS_EWMA
                                                            : PL_REASON_NONE;
}

static void model_goes_out(enum pl_health_reason reason, bool by_rule, bool grows)
{
    struct fact *fact = note(OUT);
    fact->reason = reason;
    fact->by_rule = by_rule;
    fact->grows = grows;
}

static void model_ejects(enum pl_health_reason reason, double random_unit)
{
    model_goes_out(reason, true, true);
    double length_ms = (double)multiplier_now() * model.rules.base_ejection_ms;
    if (model.rules.max_ejection_ms > 0) {
        length_ms = fmin(length_ms, model.rules.max_ejection_ms);
    }
    length_ms += floor(length_ms * model.rules.jitter_ratio * random_unit);
    model.facts[model.fact_count - 1].until_ms = model.now_ms + (uint64_t)length_ms;
}

static void model_comes_back(void)
{
    note(BACK)->until_ms = model.now_ms + model.rules.slow_start_ms;
}

static enum pl_health_reason model_takes(enum pl_outcome outcome, bool is_probe, double random_unit)
{
    if (outcome != PL_OUTCOME_NEUTRAL && outcome != PL_OUTCOME_REJECTED) {
        double ewma_before = success_ewma();
        note(OUTCOME)->outcome = outcome;
        enum pl_health_reason reason = verdict(outcome, ewma_before);
        if (state_now() == PL_HEALTH_CLOSED && reason != PL_REASON_NONE) {
            model_ejects(reason, random_unit);
            return reason;
        }
    }
    if (!is_probe || state_now() != PL_HEALTH_HALF_OPEN) {
        return PL_REASON_NONE;
    }
    if (failed(outcome)) {
        model_ejects(PL_REASON_PROBE_FAILED, random_unit);
        return PL_REASON_PROBE_FAILED;
    }
    if (outcome == PL_OUTCOME_OK) {
        model_comes_back();
    } else {
        (void)note(PROBE_OVER);
    }
    return PL_REASON_NONE;
}

static void model_checks(bool good, bool readmits)
{
    enum pl_health_state before = state_now();
    bool was_held = is_held_by_checks();
    note(CHECK)->good = good;
    if (!good && !was_held && is_held_by_checks() && before != PL_HEALTH_OPEN) {
        model_goes_out(PL_REASON_ACTIVE_CHECK, false, false);
    }
    bool passive = false;
    for (size_t i = last_of(CAME_BACK); i < model.fact_count; i++) {
        passive |= model.facts[i].by_rule || model.facts[i].kind == DECREE;
    }
    uint64_t decreed_ms = latest_until(last_of(SET(RESTORED)), SET(DECREE));
    if (is_out() && good && check_row(true) >= HEALTHY_AFTER &&
        (!passive || (readmits && model.now_ms >= decreed_ms))) {
        model_comes_back();
    }
}

/* ---- random steps, on both ---- */

static struct pl_health *health;
static pl_health_slot slot;

static void step_admit(void)
{
    bool forced = below(6) == 0;
    uint32_t max_in_flight = below(3) == 0 ? (uint32_t)below(6) : 0;
    bool expected =
        (max_in_flight == 0 || model.ticket_count < max_in_flight) && (forced || is_fit_now());
    struct model_ticket ticket = {.has_reported = false};
    assert_int_equal(
        pl_health_admit_limited(health, slot, model.now_ms, forced, max_in_flight, &ticket.real),
        expected);
    if (!expected) {
        return;
    }
    ticket.is_probe = !forced && state_now() == PL_HEALTH_HALF_OPEN;
    assert_int_equal(ticket.real.probe, ticket.is_probe);
    if (ticket.is_probe) {
        if (probe_now() != NULL) {
            (void)note(GIVEN_UP);
        }
        uint32_t timeout_ms = model.rules.probe_timeout_ms;
        note(PROBE)->until_ms = timeout_ms > 0 ? model.now_ms + timeout_ms : UINT64_MAX;
    }
    ticket.fact_count = model.fact_count;
    model.tickets[model.ticket_count++] = ticket;
}

static enum pl_outcome random_outcome(void)
{
    return below(3) == 0 ? PL_OUTCOME_OK : (enum pl_outcome)below(PL_OUTCOME_UNHEALTHY + 1);
}

/* Reports, or leaves when it has reported. */
static void step_ticket(void)
{
    if (model.ticket_count == 0) {
        return;
    }
    struct model_ticket *ticket = &model.tickets[below(model.ticket_count)];
    if (ticket->has_reported) {
        pl_health_leave(health, &ticket->real);
        *ticket = model.tickets[--model.ticket_count];
        return;
    }
    enum pl_outcome outcome = random_outcome();
    double random_unit = pl_random_unit();
    bool late = count_since(ticket->fact_count, SET2(OUT, GIVEN_UP)) > 0;
    enum pl_health_reason expected =
        late ? PL_REASON_NONE : model_takes(outcome, ticket->is_probe, random_unit);
    model.totals[outcome]++;
    ticket->has_reported = true;
    assert_int_equal(pl_health_report(health, &ticket->real, outcome, model.now_ms, random_unit),
                     expected);
}

static void step_report_late(void)
{
    enum pl_outcome outcome = random_outcome();
    double random_unit = pl_random_unit();
    model.totals[outcome]++;
    model.late_failure_total += failed(outcome);
    enum pl_health_reason expected = model_takes(outcome, false, random_unit);
    assert_int_equal(pl_health_report_late(health, slot, outcome, model.now_ms, random_unit),
                     expected);
}

static void step_eject(void)
{
    enum pl_health_reason reason = (enum pl_health_reason)(1 + below(PL_REASON_PROBE_FAILED));
    uint64_t duration_ms = below(300);
    if (state_now() != PL_HEALTH_OPEN) {
        model_goes_out(reason, false,
                       reason != PL_REASON_OPERATOR && reason != PL_REASON_POLICY &&
                           reason != PL_REASON_RETRY_AFTER && reason != PL_REASON_DRAINED);
    }
    struct fact *fact = note(DECREE);
    fact->reason = reason;
    fact->until_ms = model.now_ms + duration_ms;
    pl_health_eject(health, slot, reason, duration_ms, model.now_ms);
}

static struct pl_health_rules random_rules(void)
{
    return (struct pl_health_rules){
        .consecutive_5xx_count = (uint32_t)below(5),
        .consecutive_gateway_count = (uint32_t)below(4),
        .consecutive_connection_count = (uint32_t)below(4),
        .split_connection = below(2) == 0,
        .failure_ratio = below(2) == 0 ? 0 : (double)(1 + below(10)) / 10,
        .failure_min_count = (uint32_t)below(12),
        .window_ms = (uint32_t)(1 + below(2) * 95 + below(3) * 250),
        .success_ewma_min_ratio = below(2) == 0 ? 0 : pl_random_unit(),
        .base_ejection_ms = (uint32_t)below(100),
        .max_ejection_ms = (uint32_t)(below(2) * (50 + below(300))),
        .jitter_ratio = below(2) == 0 ? 0 : pl_random_unit(),
        .decay_ms = (uint32_t)(below(3) * 60),
        .slow_start_ms = (uint32_t)(below(3) * 100),
        .probe_timeout_ms = (uint32_t)(below(3) * 40),
    };
}

static void step_rules(void)
{
    uint32_t old_window_ms = model.rules.window_ms;
    model.rules = random_rules();
    if (model.rules.window_ms != old_window_ms) {
        (void)note(RESIZED);
    }
    pl_health_set_rules(health, slot, &model.rules);
}

static void step_rare(void)
{
    uint32_t first_token_ms = (uint32_t)below(1000);
    switch (below(8)) {
    case 0:
        (void)note(RESTORED);
        pl_health_restore(health, slot, model.now_ms);
        break;
    case 1:
        step_rules();
        break;
    case 2:
        note(LATENCY)->first_token_ms = first_token_ms;
        pl_health_add_latency(health, slot, first_token_ms, true);
        break;
    case 3:
    case 4:
        step_eject();
        break;
    default:
        step_report_late();
        break;
    }
}

static void step_check(void)
{
    bool good = below(2) == 0, readmits = below(2) == 0;
    model_checks(good, readmits);
    pl_health_check_result(health, slot, good, UNHEALTHY_AFTER, HEALTHY_AFTER, readmits,
                           model.now_ms);
}

static void compare_totals(const struct pl_health_view *view)
{
    const uint64_t *totals = model.totals;
    assert_int_equal(view->ok_total, totals[PL_OUTCOME_OK]);
    assert_int_equal(view->neutral_total, totals[PL_OUTCOME_NEUTRAL]);
    assert_int_equal(view->server_error_total, totals[PL_OUTCOME_SERVER_ERROR]);
    assert_int_equal(view->gateway_error_total, totals[PL_OUTCOME_GATEWAY_ERROR]);
    assert_int_equal(view->connection_total, totals[PL_OUTCOME_CONNECTION]);
    assert_int_equal(view->rejected_total, totals[PL_OUTCOME_REJECTED]);
    assert_int_equal(view->unhealthy_total, totals[PL_OUTCOME_UNHEALTHY]);
    assert_int_equal(view->late_failure_total, model.late_failure_total);
    assert_int_equal(view->ejection_total, count_since(0, SET(OUT)));
    assert_int_equal(view->probe_total, count_since(0, SET(PROBE)));
}

static void compare(void)
{
    struct pl_health_view view;
    pl_health_look(health, slot, model.now_ms, &view);
    assert_int_equal(view.state, state_now());
    assert_int_equal(view.reason, last_reason());
    assert_int_equal(view.until_ms, view.state == PL_HEALTH_OPEN ? out_until() : 0);
    assert_int_equal(view.ejection_count, multiplier_now());
    assert_int_equal(view.in_flight, model.ticket_count);
    assert_int_equal(view.probe_in_flight, probe_now() != NULL);
    assert_int_equal(view.check_failed, is_held_by_checks());
    assert_int_equal(view.consecutive_5xx, row_5xx());
    assert_int_equal(view.consecutive_gateway, row_gateway());
    assert_int_equal(view.consecutive_connection, row_connection());
    assert_true(fabs(view.success_ewma_ratio - success_ewma()) < 1e-9);
    assert_true(fabs(view.first_token_ewma_ms - first_token_ewma()) < 1e-6);
    assert_true(fabs(view.ramp_ratio - ramp_now()) < 1e-9);
    assert_true(view.ramp_ratio == pl_health_ramp(health, slot, model.now_ms));
    assert_true(view.success_ewma_ratio == pl_health_success_ewma(health, slot));
    assert_int_equal(pl_health_is_fit(health, slot, model.now_ms), is_fit_now());
    compare_totals(&view);
}

static void run(unsigned check_share)
{
    memset(&model, 0, sizeof(model));
    model.rules = random_rules();
    model.now_ms = below(1000);
    health = pl_health_new(1);
    slot = pl_health_slot_for(health, 1, &model.rules);
    for (unsigned i = 0; i < STEPS_PER_RUN; i++) {
        uint64_t dice = below(100);
        model.now_ms += below(3) == 0 ? below(60) : below(4) == 0;
        if (dice < check_share) {
            step_check();
        } else if (dice < check_share + 8) {
            step_rare();
        } else if (dice < check_share + 38) {
            step_admit();
        } else {
            step_ticket();
        }
        compare();
    }
    pl_health_free(health);
}

static void the_machine_does_as_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= RUN_COUNT; seed++) {
        pl_random_seed(seed);
        run(seed % 3 == 0 ? 15 : 0);
    }
}

/* ---- threads ---- */

#define THREAD_COUNT        8
#define ATTEMPTS_PER_THREAD 20000
#define MAX_IN_FLIGHT       5

static _Atomic uint64_t clock_ms;
static _Atomic uint64_t reported[PL_OUTCOME_UNHEALTHY + 1], ejected_count, probe_count;
static _Atomic uint32_t probes_at_once, worst_probes_at_once, inside, worst_inside;

static void raise_to(_Atomic uint32_t *maximum, uint32_t value)
{
    uint32_t seen = atomic_load(maximum);
    while (seen < value && !atomic_compare_exchange_weak(maximum, &seen, value)) {
    }
}

static void attempt(bool forced)
{
    struct pl_health_ticket ticket;
    uint64_t now_ms = atomic_fetch_add(&clock_ms, 1);
    if (!pl_health_admit_limited(health, slot, now_ms, forced, MAX_IN_FLIGHT, &ticket)) {
        return;
    }
    raise_to(&worst_inside, atomic_fetch_add(&inside, 1) + 1);
    if (ticket.probe) {
        atomic_fetch_add(&probe_count, 1);
        raise_to(&worst_probes_at_once, atomic_fetch_add(&probes_at_once, 1) + 1);
    }
    enum pl_outcome outcome = random_outcome();
    double ramp_ratio = pl_health_ramp(health, slot, now_ms);
    assert(ramp_ratio >= 0.1 - 1e-9 && ramp_ratio <= 1);
    pl_health_add_latency(health, slot, 100, true);
    if (ticket.probe) {
        atomic_fetch_sub(&probes_at_once, 1); /* reporting it lets in the next one */
    }
    atomic_fetch_add(&reported[outcome], 1);
    if (pl_health_report(health, &ticket, outcome, now_ms, 0.5) != PL_REASON_NONE) {
        atomic_fetch_add(&ejected_count, 1);
    }
    atomic_fetch_sub(&inside, 1);
    pl_health_leave(health, &ticket);
}

/* The thread's number is its seed. */
static void *attempt_often(void *seed)
{
    pl_random_seed((uint64_t)(uintptr_t)seed);
    for (unsigned i = 0; i < ATTEMPTS_PER_THREAD; i++) {
        attempt(below(4) == 0);
    }
    return NULL;
}

static void start_over(void)
{
    atomic_store(&clock_ms, 1000);
    atomic_store(&ejected_count, 0);
    atomic_store(&probe_count, 0);
    atomic_store(&worst_probes_at_once, 0);
    for (size_t i = 0; i < PL_COUNT(reported); i++) {
        atomic_store(&reported[i], 0);
    }
    health = pl_health_new(2);
    const struct pl_health_rules rules = {.consecutive_5xx_count = 3,
                                          .base_ejection_ms = 5,
                                          .max_ejection_ms = 30,
                                          .slow_start_ms = 50,
                                          .jitter_ratio = 0.5,
                                          .decay_ms = 20};
    slot = pl_health_slot_for(health, 1, &rules);
}

static void start_threads(pthread_t *threads)
{
    for (uintptr_t i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, attempt_often, (void *)(i + 1)), 0);
    }
}

static struct pl_health_view join_threads(const pthread_t *threads)
{
    struct pl_health_view view;
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    pl_health_look(health, slot, atomic_load(&clock_ms), &view);
    assert_int_equal(view.in_flight, 0);
    assert_int_equal(view.probe_total, atomic_load(&probe_count));
    assert_true(atomic_load(&worst_inside) <= MAX_IN_FLIGHT);
    for (size_t i = 0; i < PL_COUNT(reported); i++) {
        model.totals[i] = atomic_load(&reported[i]);
    }
    assert_int_equal(view.ok_total, model.totals[PL_OUTCOME_OK]);
    assert_int_equal(view.neutral_total, model.totals[PL_OUTCOME_NEUTRAL]);
    assert_int_equal(view.server_error_total, model.totals[PL_OUTCOME_SERVER_ERROR]);
    assert_int_equal(view.gateway_error_total, model.totals[PL_OUTCOME_GATEWAY_ERROR]);
    assert_int_equal(view.connection_total, model.totals[PL_OUTCOME_CONNECTION]);
    assert_int_equal(view.rejected_total, model.totals[PL_OUTCOME_REJECTED]);
    assert_int_equal(view.unhealthy_total, model.totals[PL_OUTCOME_UNHEALTHY]);
    return view;
}

static void threads_agree_on_one_probe_and_every_ejection(void **state)
{
    (void)state;
    pthread_t threads[THREAD_COUNT];
    start_over();
    start_threads(threads);
    struct pl_health_view view = join_threads(threads);
    assert_int_equal(view.ejection_total, atomic_load(&ejected_count));
    assert_true(view.ejection_total > 100 && view.probe_total > 100);
    assert_int_equal(atomic_load(&worst_probes_at_once), 1);
    pl_health_free(health);
}

/* What the main thread does meanwhile: all that is not an attempt. */
static void interfere(void)
{
    struct pl_health_view view;
    uint64_t now_ms = atomic_load(&clock_ms);
    struct pl_health_rules rules = random_rules();
    pl_health_look(health, slot, now_ms, &view);
    assert_true(view.in_flight <= MAX_IN_FLIGHT);
    assert_true(view.state == PL_HEALTH_OPEN || (view.until_ms == 0 && !view.check_failed));
    pl_health_eject(health, slot, PL_REASON_AUTH, below(10), now_ms);
    pl_health_check_result(health, slot, below(2) == 0, 1, 1, true, now_ms);
    if (below(3) == 0) {
        pl_health_restore(health, slot, now_ms);
    }
    pl_health_release(health, slot);
    assert_int_equal(pl_health_slot_for(health, 1, &rules), slot);
}

static void threads_and_decrees_leave_a_whole_slot(void **state)
{
    (void)state;
    pthread_t threads[THREAD_COUNT];
    start_over();
    pl_random_seed(1);
    start_threads(threads);
    /* Enough of them to overlap with the attempts; how many do makes no difference. */
    for (unsigned i = 0; i < ATTEMPTS_PER_THREAD; i++) {
        interfere();
    }
    (void)join_threads(threads);
    pl_health_restore(health, slot, atomic_load(&clock_ms));
    assert_true(pl_health_is_fit(health, slot, 0));
    pl_health_free(health);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_machine_does_as_the_model),
        cmocka_unit_test(threads_agree_on_one_probe_and_every_ejection),
        cmocka_unit_test(threads_and_decrees_leave_a_whole_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
