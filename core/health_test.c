/*
 * Tests of health.c and of the machine behind it, one rule a test. The clock is a literal in every
 * step; what happens in random order is in health_model_test.c.
 */
#include "health.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK       PL_OUTCOME_OK
#define NEUTRAL  PL_OUTCOME_NEUTRAL
#define ERROR    PL_OUTCOME_SERVER_ERROR
#define GATEWAY  PL_OUTCOME_GATEWAY_ERROR
#define CONNECT  PL_OUTCOME_CONNECTION
#define REJECTED PL_OUTCOME_REJECTED
#define BAD      PL_OUTCOME_UNHEALTHY
#define NONE     PL_REASON_NONE
#define KEY      7u

/* Three in a row, one second times ejected, at most two and a half; a ramp of a second. */
static const struct pl_health_rules RULES = {
    .consecutive_5xx_count = 3,
    .base_ejection_ms = 1000,
    .max_ejection_ms = 2500,
    .slow_start_ms = 1000,
    .probe_timeout_ms = 500,
};

static struct pl_health *health;
static pl_health_slot slot;

/* ---- helpers ---- */

static int set_up(void **state)
{
    (void)state;
    health = pl_health_new(2);
    slot = pl_health_slot_for(health, KEY, &RULES);
    return slot == PL_HEALTH_NO_SLOT;
}

static int tear_down(void **state)
{
    (void)state;
    pl_health_free(health);
    return 0;
}

static void use_rules(struct pl_health_rules rules)
{
    pl_health_set_rules(health, slot, &rules);
}

static struct pl_health_view look(uint64_t now_ms)
{
    struct pl_health_view view;
    pl_health_look(health, slot, now_ms, &view);
    assert_int_equal(view.in_flight, pl_health_in_flight(health, slot));
    assert_true(view.success_ewma_ratio == pl_health_success_ewma(health, slot));
    return view;
}

static bool is_fit(uint64_t now_ms)
{
    return pl_health_is_fit(health, slot, now_ms);
}

static bool admit(uint64_t now_ms, struct pl_health_ticket *ticket)
{
    return pl_health_admit(health, slot, now_ms, false, ticket);
}

static struct pl_health_ticket admitted(uint64_t now_ms, bool forced, bool as_probe)
{
    struct pl_health_ticket ticket;
    assert_true(pl_health_admit(health, slot, now_ms, forced, &ticket));
    assert_int_equal(ticket.probe, as_probe);
    return ticket;
}

static enum pl_health_reason finish(struct pl_health_ticket ticket, enum pl_outcome outcome,
                                    uint64_t now_ms)
{
    enum pl_health_reason reason = pl_health_report(health, &ticket, outcome, now_ms, 0);
    pl_health_leave(health, &ticket);
    return reason;
}

/* A whole attempt on a closed slot. */
static enum pl_health_reason send(enum pl_outcome outcome, uint64_t now_ms)
{
    return finish(admitted(now_ms, false, false), outcome, now_ms);
}

static void send_each(uint64_t now_ms, size_t count, const enum pl_outcome *outcomes)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(send(outcomes[i], now_ms), NONE);
    }
}
#define SEND(now_ms, ...)                                                                          \
    send_each(now_ms, sizeof((enum pl_outcome[]){__VA_ARGS__}) / sizeof(enum pl_outcome),          \
              (enum pl_outcome[]){__VA_ARGS__})

static void assert_out(uint64_t now_ms, uint64_t until_ms, enum pl_health_reason reason)
{
    struct pl_health_view view = look(now_ms);
    struct pl_health_ticket ticket;
    assert_int_equal(view.state, PL_HEALTH_OPEN);
    assert_int_equal(view.until_ms, until_ms);
    assert_int_equal(view.reason, reason);
    assert_false(is_fit(now_ms));
    assert_false(admit(now_ms, &ticket));
}

static void assert_closed(uint64_t now_ms)
{
    assert_int_equal(look(now_ms).state, PL_HEALTH_CLOSED);
    assert_true(is_fit(now_ms));
}

/* Until 1000 by default. */
static void eject_by_unhealthy(uint64_t now_ms)
{
    assert_int_equal(send(BAD, now_ms), PL_REASON_UNHEALTHY);
}

static enum pl_health_reason probe(enum pl_outcome outcome, uint64_t now_ms)
{
    return finish(admitted(now_ms, false, true), outcome, now_ms);
}

static void check(bool good, bool readmits_passive, uint64_t now_ms)
{
    pl_health_check_result(health, slot, good, 3, 2, readmits_passive, now_ms);
}

static void check_times(unsigned count, bool good, uint64_t now_ms)
{
    for (unsigned i = 0; i < count; i++) {
        check(good, false, now_ms);
    }
}

/* ---- the block ---- */

static void a_new_slot_is_healthy(void **state)
{
    (void)state;
    struct pl_health_view view = look(0), nothing = {.success_ewma_ratio = 1, .ramp_ratio = 1};
    assert_memory_equal(&view, &nothing, sizeof(view));
    assert_closed(0);
    assert_true(pl_health_ramp(health, slot, 0) == 1);
    assert_true(pl_health_first_token_ewma_ms(health, slot) == 0);
    assert_true(pl_health_size_bytes(2) > pl_health_size_bytes(1));
}

static void a_key_keeps_its_slot_and_state(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    pl_health_slot other = pl_health_slot_for(health, 8, &RULES);
    assert_int_not_equal(other, slot);
    assert_int_equal(pl_health_slot_for(health, 9, &RULES), PL_HEALTH_NO_SLOT);
    use_rules((struct pl_health_rules){0});
    assert_out(999, 1000, PL_REASON_UNHEALTHY);
    assert_true(pl_health_is_fit(health, other, 999));
}

static void a_key_is_made_of_both_parts(void **state)
{
    (void)state;
    uint64_t key = pl_health_key(PL_STR("ab"), PL_STR("c"));
    assert_true(key == pl_health_key(PL_STR("ab"), PL_STR("c")));
    assert_true(key != pl_health_key(PL_STR("a"), PL_STR("bc")));
    assert_true(key != pl_health_key(PL_STR("ab"), PL_STR("d")));
    assert_true(key != pl_health_key(PL_STR("abc"), PL_STR("")));
}

static void a_released_slot_is_reused_when_its_attempts_have_left(void **state)
{
    (void)state;
    struct pl_health_ticket ticket = admitted(0, false, false);
    (void)pl_health_slot_for(health, 8, &RULES);
    pl_health_add_latency(health, slot, 50, true);
    pl_health_release(health, slot);
    assert_int_equal(pl_health_slot_for(health, 9, &RULES), PL_HEALTH_NO_SLOT);
    pl_health_leave(health, &ticket);
    assert_int_equal(pl_health_slot_for(health, 9, &RULES), slot);
    assert_int_equal(pl_health_report(health, &ticket, BAD, 0, 0), NONE);
    assert_closed(0);
    assert_int_equal(look(0).unhealthy_total, 1);
    assert_true(pl_health_first_token_ewma_ms(health, slot) == 0);
}

static void a_released_slot_waits_for_its_key(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    pl_health_release(health, slot);
    assert_int_equal(pl_health_slot_for(health, KEY, &RULES), slot);
    assert_out(0, 1000, PL_REASON_UNHEALTHY);
}

/* Two configurations that both have it: the second one changes nothing by coming or leaving. */
static void a_slot_has_users(void **state)
{
    (void)state;
    struct pl_health_rules none = {0};
    assert_int_equal(pl_health_capacity(health), 2);
    assert_int_equal(pl_health_slot_for(health, KEY, &none), slot);
    (void)pl_health_slot_for(health, 8, &RULES);
    pl_health_release(health, slot);
    assert_int_equal(pl_health_slot_for(health, 9, &RULES), PL_HEALTH_NO_SLOT);
    eject_by_unhealthy(0); /* by the rules it had */
    assert_out(0, 1000, PL_REASON_UNHEALTHY);
    pl_health_release(health, slot);
    assert_int_equal(pl_health_slot_for(health, 9, &RULES), slot);
}

static void without_a_slot_all_is_well(void **state)
{
    (void)state;
    struct pl_health_ticket ticket;
    struct pl_health_view view;
    slot = PL_HEALTH_NO_SLOT;
    pl_health_eject(health, slot, PL_REASON_OPERATOR, 1000, 0);
    pl_health_check_result(health, slot, false, 1, 1, false, 0);
    pl_health_restore(health, slot, 0);
    pl_health_release(health, slot);
    pl_health_add_latency(health, slot, 1, true);
    assert_true(pl_health_admit_limited(health, slot, 0, false, 1, &ticket));
    assert_int_equal(finish(ticket, BAD, 0), NONE);
    assert_int_equal(pl_health_report_late(health, slot, BAD, 0, 0), NONE);
    pl_health_look(health, slot, 0, &view);
    assert_int_equal(view.unhealthy_total + view.in_flight, 0);
    assert_closed(0);
    assert_true(pl_health_ramp(health, slot, 0) == 1);
}

/* ---- rules ---- */

static void rows_eject_when_full(void **state)
{
    (void)state;
    SEND(0, ERROR, GATEWAY);
    assert_int_equal(send(CONNECT, 5), PL_REASON_CONSECUTIVE_5XX);
    assert_out(1004, 1005, PL_REASON_CONSECUTIVE_5XX);
    assert_int_equal(look(5).ejection_total, 1);
    assert_int_equal(look(5).ejection_count, 1);
}

static void only_good_answers_empty_the_5xx_row(void **state)
{
    (void)state;
    SEND(0, ERROR, ERROR, OK, ERROR, ERROR, NEUTRAL, REJECTED);
    assert_int_equal(look(0).consecutive_5xx, 2);
    assert_int_equal(look(0).rejected_total, 1);
    assert_int_equal(look(0).neutral_total, 1);
    assert_int_equal(send(ERROR, 0), PL_REASON_CONSECUTIVE_5XX);
}

static void a_500_breaks_the_gateway_row(void **state)
{
    (void)state;
    use_rules((struct pl_health_rules){.consecutive_gateway_count = 2});
    SEND(0, GATEWAY, ERROR, GATEWAY, OK, GATEWAY, CONNECT, NEUTRAL, REJECTED);
    assert_int_equal(send(GATEWAY, 0), PL_REASON_CONSECUTIVE_GATEWAY);
}

static void an_answer_breaks_the_connection_row(void **state)
{
    (void)state;
    use_rules((struct pl_health_rules){.consecutive_connection_count = 2});
    SEND(0, CONNECT, ERROR, CONNECT, GATEWAY, CONNECT, OK, CONNECT, NEUTRAL, REJECTED);
    assert_int_equal(send(CONNECT, 0), PL_REASON_CONSECUTIVE_CONNECTION);
}

static void split_connection_failures_are_no_5xx(void **state)
{
    (void)state;
    struct pl_health_rules rules = RULES;
    rules.split_connection = true;
    use_rules(rules);
    SEND(0, CONNECT, CONNECT, CONNECT, CONNECT);
    assert_int_equal(look(0).consecutive_5xx, 0);
    assert_int_equal(look(0).consecutive_connection, 4);
    rules.consecutive_connection_count = 5;
    use_rules(rules);
    assert_int_equal(send(CONNECT, 0), PL_REASON_CONSECUTIVE_CONNECTION);
}

static void without_rules_only_a_verdict_ejects(void **state)
{
    (void)state;
    use_rules((struct pl_health_rules){.base_ejection_ms = 10});
    for (int i = 0; i < 100; i++) {
        SEND(0, ERROR, GATEWAY, CONNECT);
    }
    eject_by_unhealthy(0);
    assert_out(9, 10, PL_REASON_UNHEALTHY);
}

static void a_ratio_takes_enough_requests(void **state)
{
    (void)state;
    use_rules(
        (struct pl_health_rules){.failure_ratio = 0.3, .failure_min_count = 10, .window_ms = 1000});
    SEND(0, ERROR, CONNECT, OK, OK, OK, OK, OK, OK, OK, NEUTRAL, REJECTED);
    assert_int_equal(send(GATEWAY, 0), PL_REASON_FAILURE_RATIO); /* exactly 3 of 10 */
}

static void a_ratio_below_ejects_nobody(void **state)
{
    (void)state;
    use_rules(
        (struct pl_health_rules){.failure_ratio = 0.5, .failure_min_count = 4, .window_ms = 1000});
    SEND(0, ERROR, ERROR, ERROR, OK);                          /* good ones eject nobody */
    SEND(0, OK, OK, OK, OK, ERROR, OK, ERROR);                 /* 5 of 11 */
    assert_int_equal(send(ERROR, 0), PL_REASON_FAILURE_RATIO); /* 6 of 12 */
}

static void the_window_slides_by_tenths(void **state)
{
    (void)state;
    use_rules(
        (struct pl_health_rules){.failure_ratio = 0.9, .failure_min_count = 3, .window_ms = 1000});
    SEND(5099, ERROR, ERROR); /* part 50 */
    SEND(6000, ERROR);        /* part 60: 50 has slid out */
    SEND(5999, ERROR);        /* a clock read earlier counts as new */
    assert_int_equal(send(ERROR, 6999), PL_REASON_FAILURE_RATIO); /* part 69 still sees 60 */
    pl_health_restore(health, slot, 6999);
    SEND(7000, ERROR, ERROR);
    SEND(90000, ERROR);
}

static void another_window_starts_empty(void **state)
{
    (void)state;
    struct pl_health_rules rules = {
        .failure_ratio = 0.9, .failure_min_count = 3, .window_ms = 1000};
    use_rules(rules);
    SEND(5000, ERROR, ERROR);
    use_rules(rules);
    rules.window_ms = 100000; /* part 50 would be of the far future now */
    use_rules(rules);
    SEND(5000, ERROR, ERROR);
    assert_int_equal(send(ERROR, 99999), PL_REASON_FAILURE_RATIO);
}

static void the_average_is_compared_before_the_outcome(void **state)
{
    (void)state;
    use_rules((struct pl_health_rules){.success_ewma_min_ratio = 0.7});
    SEND(0, ERROR);
    assert_true(fabs(look(0).success_ewma_ratio - 0.7) < 1e-12);
    SEND(0, NEUTRAL, REJECTED, CONNECT); /* 0.7 is not less than 0.7 */
    assert_true(fabs(look(0).success_ewma_ratio - 0.49) < 1e-12);
    SEND(0, OK); /* low, but a good answer ejects nobody */
    assert_true(fabs(look(0).success_ewma_ratio - 0.643) < 1e-12);
    assert_int_equal(send(GATEWAY, 0), PL_REASON_SUCCESS_EWMA);
    assert_int_equal(probe(OK, 0), NONE);
    assert_true(fabs(look(0).success_ewma_ratio - 0.61507) < 1e-12); /* closing keeps it */
    assert_int_equal(send(ERROR, 0), PL_REASON_SUCCESS_EWMA);
}

static void the_first_latency_sets_the_average(void **state)
{
    (void)state;
    pl_health_add_latency(health, slot, 100, true);
    assert_true(pl_health_first_token_ewma_ms(health, slot) == 100);
    pl_health_add_latency(health, slot, 200, true);
    assert_true(fabs(look(0).first_token_ewma_ms - 130) < 1e-9);
}

static void waits_are_known_from_twenty_answers_on(void **state)
{
    (void)state;
    for (int i = 1; i < PL_HEALTH_WAITS_MIN_COUNT; i++)
        pl_health_add_latency(health, slot, 100, true);
    assert_true(pl_health_wait_quantile_ms(health, slot, 0.9, true) == 0);
    pl_health_add_latency(health, slot, 100, true);
    double wait_ms = pl_health_wait_quantile_ms(health, slot, 0.9, true);
    assert_true(wait_ms >= 96 && wait_ms <= 104);
    /* others than streams are apart */
    assert_true(pl_health_wait_quantile_ms(health, slot, 0.9, false) == 0);
    /* those that were cut short count as at least so long, but are no answers */
    for (int i = 0; i < 5; i++)
        pl_health_add_cut_wait(health, slot, 2000, true);
    assert_true(pl_health_wait_quantile_ms(health, slot, 0.9, true) >= 1920);
    assert_true(pl_health_first_token_ewma_ms(health, slot) == 100);
    assert_true(pl_health_wait_quantile_ms(health, PL_HEALTH_NO_SLOT, 0.9, true) == 0);
    pl_health_add_cut_wait(health, PL_HEALTH_NO_SLOT, 1, true);
}

static void a_failure_after_the_report_counts(void **state)
{
    (void)state;
    SEND(0, OK, ERROR, ERROR);
    assert_int_equal(pl_health_report_late(health, slot, NEUTRAL, 0, 0), NONE);
    assert_int_equal(look(0).late_failure_total, 0);
    assert_int_equal(pl_health_report_late(health, slot, ERROR, 7, 0), PL_REASON_CONSECUTIVE_5XX);
    assert_out(7, 1007, PL_REASON_CONSECUTIVE_5XX);
    assert_int_equal(look(0).late_failure_total, 1);
    assert_int_equal(look(0).server_error_total, 3);
    assert_int_equal(pl_health_report_late(health, slot, BAD, 1500, 0), NONE); /* half-open: no */
    assert_true(is_fit(1500));
}

/* ---- ejections ---- */

static void each_ejection_is_longer_up_to_the_cap(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    assert_out(999, 1000, PL_REASON_UNHEALTHY);
    assert_int_equal(probe(ERROR, 1000), PL_REASON_PROBE_FAILED);
    assert_out(2999, 3000, PL_REASON_PROBE_FAILED);
    assert_int_equal(probe(BAD, 3000), PL_REASON_PROBE_FAILED);
    assert_out(5499, 5500, PL_REASON_PROBE_FAILED);
    assert_int_equal(probe(CONNECT, 6000), PL_REASON_PROBE_FAILED);
    assert_out(8499, 8500, PL_REASON_PROBE_FAILED);
    assert_int_equal(look(8499).ejection_count, 3); /* beyond the cap it does not grow */
    assert_int_equal(look(8499).ejection_total, 4);
}

static void jitter_comes_on_top(void **state)
{
    (void)state;
    struct pl_health_rules rules = {
        .base_ejection_ms = 1000, .max_ejection_ms = 800, .jitter_ratio = 0.5};
    use_rules(rules);
    struct pl_health_ticket ticket = admitted(100, false, false);
    assert_int_equal(pl_health_report(health, &ticket, BAD, 100, 0.5), PL_REASON_UNHEALTHY);
    assert_out(1099, 1100, PL_REASON_UNHEALTHY); /* 800 + 0.5 * 0.5 * 800 */
    pl_health_leave(health, &ticket);
}

static void no_numbers_are_too_large(void **state)
{
    (void)state;
    struct pl_health_rules rules = {
        .base_ejection_ms = UINT32_MAX, .jitter_ratio = INFINITY, .slow_start_ms = UINT32_MAX};
    use_rules(rules);
    struct pl_health_ticket ticket = admitted(UINT64_MAX - 9, false, false);
    assert_int_equal(pl_health_report(health, &ticket, BAD, UINT64_MAX - 9, 0.99), //
                     PL_REASON_UNHEALTHY);
    assert_out(UINT64_MAX - 8, UINT64_MAX, PL_REASON_UNHEALTHY);
    pl_health_restore(health, slot, 0);
    rules.jitter_ratio = NAN;
    use_rules(rules);
    eject_by_unhealthy(5);
    assert_out(6, UINT32_MAX + (uint64_t)5, PL_REASON_UNHEALTHY);
    pl_health_eject(health, slot, PL_REASON_OPERATOR, UINT64_MAX, 6);
    assert_out(UINT64_MAX - 1, UINT64_MAX, PL_REASON_OPERATOR);
    pl_health_leave(health, &ticket);
}

static void health_takes_off_the_multiplier(void **state)
{
    (void)state;
    struct pl_health_rules rules = {.base_ejection_ms = 100, .decay_ms = 1000};
    use_rules(rules);
    eject_by_unhealthy(0);
    (void)probe(ERROR, 100);
    (void)probe(ERROR, 300);
    (void)probe(ERROR, 600);
    assert_int_equal(look(50000).ejection_count, 4); /* no health, no decay */
    (void)probe(OK, 60000);
    assert_int_equal(look(60999).ejection_count, 4);
    assert_int_equal(look(61000).ejection_count, 3);
    assert_int_equal(look(59000).ejection_count, 4); /* a clock read earlier */
    assert_int_equal(look(62999).ejection_count, 2);
    eject_by_unhealthy(62999);
    assert_out(63298, 63299, PL_REASON_UNHEALTHY); /* 2 + 1 times 100 */
    (void)probe(OK, 64000);
    assert_int_equal(look(99999).ejection_count, 0);
    rules.decay_ms = 0;
    use_rules(rules);
    assert_int_equal(look(99999).ejection_count, 3);
}

static void late_reports_move_totals_only(void **state)
{
    (void)state;
    struct pl_health_ticket first = admitted(0, false, false), second = admitted(0, false, false);
    eject_by_unhealthy(0);
    double before_ratio = look(0).success_ewma_ratio;
    assert_int_equal(finish(first, BAD, 900), NONE);
    (void)probe(OK, 1000);
    assert_int_equal(finish(second, ERROR, 1001), NONE);
    assert_int_equal(look(1001).consecutive_5xx, 0);
    assert_int_equal(look(1001).server_error_total, 1);
    assert_int_equal(look(1001).unhealthy_total, 2);
    assert_true(look(1001).success_ewma_ratio > before_ratio);
    assert_int_equal(look(1001).in_flight, 0);
}

/* ---- probes ---- */

static void one_probe_passes_and_closes(void **state)
{
    (void)state;
    struct pl_health_ticket ticket;
    eject_by_unhealthy(0);
    assert_false(admit(999, &ticket));
    assert_true(is_fit(1000));
    assert_int_equal(look(1000).state, PL_HEALTH_HALF_OPEN);
    assert_int_equal(look(1000).until_ms, 0);
    struct pl_health_ticket the_probe = admitted(1000, false, true);
    assert_true(look(1000).probe_in_flight);
    assert_false(is_fit(1001));
    assert_false(admit(1001, &ticket));
    assert_int_equal(finish(the_probe, OK, 1100), NONE);
    assert_closed(1100);
    assert_int_equal(look(1100).probe_total, 1);
    assert_int_equal(look(1100).in_flight, 0);
    SEND(1100, OK);
}

static void traffic_comes_back_slowly(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    assert_true(pl_health_ramp(health, slot, 500) == 1);
    (void)probe(OK, 2000);
    assert_true(fabs(pl_health_ramp(health, slot, 1900) - 0.1) < 1e-12); /* an earlier clock */
    assert_true(fabs(pl_health_ramp(health, slot, 2000) - 0.1) < 1e-12);
    assert_true(fabs(look(2500).ramp_ratio - 0.55) < 1e-12);
    assert_true(fabs(pl_health_ramp(health, slot, 2999) - 0.9991) < 1e-12);
    assert_true(pl_health_ramp(health, slot, 3000) == 1);
    eject_by_unhealthy(2500);
    assert_true(pl_health_ramp(health, slot, 2501) == 1);
    use_rules((struct pl_health_rules){0});
    (void)probe(OK, 9000);
    assert_true(pl_health_ramp(health, slot, 9000) == 1);
}

static void neutral_and_rejected_decide_nothing(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    assert_int_equal(probe(NEUTRAL, 1000), NONE);
    assert_int_equal(look(1000).state, PL_HEALTH_HALF_OPEN);
    assert_true(is_fit(1000));
    assert_int_equal(probe(REJECTED, 1001), NONE);
    assert_int_equal(probe(OK, 1002), NONE);
    assert_closed(1002);
    assert_int_equal(look(1002).probe_total, 3);
}

static void a_silent_probe_is_given_up(void **state)
{
    (void)state;
    struct pl_health_ticket ticket;
    eject_by_unhealthy(0);
    struct pl_health_ticket silent = admitted(1000, false, true);
    assert_false(admit(1499, &ticket));
    assert_true(is_fit(1500));
    struct pl_health_ticket next = admitted(1500, false, true);
    assert_int_equal(finish(silent, BAD, 1501), NONE);
    assert_false(admit(1501, &ticket));
    assert_int_equal(finish(next, OK, 1502), NONE);
    assert_closed(1502);
    assert_int_equal(look(1502).ejection_count, 1);
}

static void a_silent_probe_decides_as_long_as_none_follows(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    struct pl_health_ticket silent = admitted(1000, false, true);
    assert_int_equal(finish(silent, ERROR, 7000), PL_REASON_PROBE_FAILED);
    assert_out(8999, 9000, PL_REASON_PROBE_FAILED);
    use_rules((struct pl_health_rules){0});
    silent = admitted(9000, false, true);
    assert_false(is_fit(UINT64_MAX - 1)); /* no time-out, no other probe */
    assert_int_equal(finish(silent, OK, 9000000), NONE);
    assert_closed(9000000);
}

static void forced_attempts_decide_nothing(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    assert_int_equal(finish(admitted(1, true, false), BAD, 2), NONE);
    assert_int_equal(finish(admitted(1, true, false), OK, 2), NONE);
    assert_out(999, 1000, PL_REASON_UNHEALTHY);
    struct pl_health_ticket forced = admitted(1000, true, false);
    struct pl_health_ticket the_probe = admitted(1000, false, true);
    assert_int_equal(finish(admitted(1000, true, false), OK, 1000), NONE);
    assert_int_equal(finish(forced, BAD, 1000), NONE);
    assert_int_equal(look(1000).state, PL_HEALTH_HALF_OPEN);
    assert_int_equal(finish(the_probe, OK, 1001), NONE);
    assert_closed(1001);
}

static void limits_hold_for_all(void **state)
{
    (void)state;
    struct pl_health_ticket a, b, c;
    assert_true(pl_health_admit_limited(health, slot, 0, false, 2, &a));
    assert_true(pl_health_admit_limited(health, slot, 0, false, 2, &b));
    assert_false(pl_health_admit_limited(health, slot, 0, false, 2, &c));
    assert_false(pl_health_admit_limited(health, slot, 0, true, 2, &c));
    assert_int_equal(pl_health_in_flight(health, slot), 2);
    assert_int_equal(finish(a, BAD, 0), PL_REASON_UNHEALTHY);
    assert_false(pl_health_admit_limited(health, slot, 1000, false, 1, &c)); /* takes no probe */
    assert_true(pl_health_admit_limited(health, slot, 1000, false, 2, &c));
    assert_true(c.probe);
    (void)finish(b, OK, 1000);
    (void)finish(c, OK, 1000);
    assert_int_equal(pl_health_in_flight(health, slot), 0);
}

/* ---- decrees ---- */

static void a_decree_never_shortens(void **state)
{
    (void)state;
    pl_health_eject(health, slot, PL_REASON_RETRY_AFTER, 5000, 0);
    pl_health_eject(health, slot, PL_REASON_AUTH, 1000, 10);
    assert_out(4999, 5000, PL_REASON_RETRY_AFTER);
    pl_health_eject(health, slot, PL_REASON_AUTH, 6000, 10);
    assert_out(6009, 6010, PL_REASON_AUTH);
    assert_int_equal(look(10).ejection_total, 1); /* it was out all the time */
    assert_int_equal(look(10).ejection_count, 0);
}

static void some_decrees_grow_the_multiplier(void **state)
{
    (void)state;
    for (int reason = PL_REASON_CONSECUTIVE_5XX; reason <= PL_REASON_PROBE_FAILED; reason++) {
        bool grows = reason != PL_REASON_OPERATOR && reason != PL_REASON_POLICY &&
                     reason != PL_REASON_RETRY_AFTER && reason != PL_REASON_DRAINED;
        pl_health_restore(health, slot, 0);
        pl_health_eject(health, slot, (enum pl_health_reason)reason, 50, 0);
        assert_out(49, 50, (enum pl_health_reason)reason);
        assert_int_equal(look(0).ejection_count, grows);
        assert_true(strlen(pl_health_reason_name((enum pl_health_reason)reason)) > 0);
    }
    assert_string_equal(pl_health_reason_name(NONE), "none");
    assert_string_equal(pl_health_reason_name(PL_REASON_PROBE_FAILED), "probe_failed");
}

static void a_decree_takes_the_decision_from_the_probe(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    struct pl_health_ticket the_probe = admitted(1000, false, true);
    pl_health_eject(health, slot, PL_REASON_RETRY_AFTER, 300, 1001);
    assert_int_equal(finish(the_probe, OK, 1002), NONE);
    assert_out(1300, 1301, PL_REASON_RETRY_AFTER);
    pl_health_eject(health, slot, PL_REASON_AUTH, 100, 2000); /* its time was over: a new one */
    assert_int_equal(look(2000).ejection_total, 3);
    assert_int_equal(look(2000).ejection_totals[PL_REASON_UNHEALTHY], 1);
    assert_int_equal(look(2000).ejection_totals[PL_REASON_RETRY_AFTER], 1);
    assert_int_equal(look(2000).ejection_totals[PL_REASON_AUTH], 1);
    assert_int_equal(look(2000).ejection_totals[PL_REASON_OPERATOR], 0);
    assert_int_equal(look(2000).ejection_count, 2);
}

static void a_drained_slot_ends_what_it_began(void **state)
{
    (void)state;
    struct pl_health_ticket ticket = admitted(0, false, false);
    pl_health_eject(health, slot, PL_REASON_DRAINED, UINT64_MAX, 1);
    assert_out(1u << 30, UINT64_MAX, PL_REASON_DRAINED);
    assert_int_equal(pl_health_in_flight(health, slot), 1);
    assert_int_equal(finish(ticket, OK, 5000), NONE);
    assert_int_equal(look(5000).ok_total, 1);
    assert_int_equal(pl_health_in_flight(health, slot), 0);
    pl_health_restore(health, slot, 6000);
    SEND(6000, OK);
}

static void restore_forgets(void **state)
{
    (void)state;
    SEND(0, ERROR, ERROR);
    pl_health_restore(health, slot, 0);
    SEND(0, ERROR, ERROR);
    assert_int_equal(send(ERROR, 0), PL_REASON_CONSECUTIVE_5XX);
    (void)probe(OK, 1000);
    pl_health_restore(health, slot, 1001); /* within the slow start */
    assert_true(pl_health_ramp(health, slot, 1001) == 1);
    eject_by_unhealthy(1001);
    struct pl_health_ticket the_probe = admitted(2001, false, true);
    check_times(3, false, 2002);
    pl_health_restore(health, slot, 2003);
    assert_closed(2003);
    struct pl_health_view view = look(2003);
    assert_true(view.success_ewma_ratio == 1 && view.ramp_ratio == 1);
    assert_int_equal(view.ejection_count + view.probe_in_flight + view.check_failed, 0);
    assert_int_equal(finish(the_probe, BAD, 2004), NONE);
    check_times(2, false, 2005);
    assert_closed(2005);
}

/* ---- active checks ---- */

static void bad_checks_hold_it_out_until_good_ones(void **state)
{
    (void)state;
    check_times(2, false, 0);
    check(true, false, 0);
    check_times(2, false, 0);
    assert_closed(0);
    check(false, false, 0);
    assert_out(1u << 30, 0, PL_REASON_ACTIVE_CHECK);
    assert_true(look(0).check_failed);
    assert_int_equal(look(0).ejection_count, 0);
    assert_int_equal(finish(admitted(1, true, false), OK, 1), NONE);
    check(true, false, 10);
    check(false, false, 20);
    check(true, false, 30);
    assert_out(30, 0, PL_REASON_ACTIVE_CHECK);
    check(true, false, 40);
    assert_closed(40); /* without a probe */
    assert_true(look(40).ramp_ratio < 1);
}

static void checks_leave_an_ejection_where_it_is(void **state)
{
    (void)state;
    eject_by_unhealthy(0);
    check_times(2, true, 100);
    assert_out(100, 1000, PL_REASON_UNHEALTHY);
    check_times(3, false, 200);
    assert_out(5000, 1000, PL_REASON_UNHEALTHY); /* held past its time */
    check_times(2, true, 5000);
    assert_int_equal(look(5000).state, PL_HEALTH_HALF_OPEN);
    struct pl_health_ticket the_probe = admitted(5000, false, true);
    check_times(3, false, 5001);
    assert_int_equal(finish(the_probe, OK, 5002), NONE); /* late */
    assert_out(5002, 1000, PL_REASON_ACTIVE_CHECK);
    check_times(2, true, 5003);
    assert_int_equal(probe(OK, 5004), NONE);
    assert_closed(5004);
}

static void good_checks_may_readmit(void **state)
{
    (void)state;
    check_times(2, true, 0);
    eject_by_unhealthy(0);
    check(true, true, 1);
    assert_closed(1);
    assert_true(look(1).ramp_ratio < 1);
    eject_by_unhealthy(2);
    pl_health_eject(health, slot, PL_REASON_OPERATOR, 100, 2); /* shorter, but an order */
    check(true, true, 101);
    assert_out(101, 2002, PL_REASON_UNHEALTHY);
    check(true, true, 102);
    assert_closed(102);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_slot_is_healthy),
        TEST(a_key_keeps_its_slot_and_state),
        TEST(a_key_is_made_of_both_parts),
        TEST(a_released_slot_is_reused_when_its_attempts_have_left),
        TEST(a_released_slot_waits_for_its_key),
        TEST(a_slot_has_users),
        TEST(without_a_slot_all_is_well),
        TEST(rows_eject_when_full),
        TEST(only_good_answers_empty_the_5xx_row),
        TEST(a_500_breaks_the_gateway_row),
        TEST(an_answer_breaks_the_connection_row),
        TEST(split_connection_failures_are_no_5xx),
        TEST(without_rules_only_a_verdict_ejects),
        TEST(a_ratio_takes_enough_requests),
        TEST(a_ratio_below_ejects_nobody),
        TEST(the_window_slides_by_tenths),
        TEST(another_window_starts_empty),
        TEST(the_average_is_compared_before_the_outcome),
        TEST(the_first_latency_sets_the_average),
        TEST(waits_are_known_from_twenty_answers_on),
        TEST(a_failure_after_the_report_counts),
        TEST(each_ejection_is_longer_up_to_the_cap),
        TEST(jitter_comes_on_top),
        TEST(no_numbers_are_too_large),
        TEST(health_takes_off_the_multiplier),
        TEST(late_reports_move_totals_only),
        TEST(one_probe_passes_and_closes),
        TEST(traffic_comes_back_slowly),
        TEST(neutral_and_rejected_decide_nothing),
        TEST(a_silent_probe_is_given_up),
        TEST(a_silent_probe_decides_as_long_as_none_follows),
        TEST(forced_attempts_decide_nothing),
        TEST(limits_hold_for_all),
        TEST(a_decree_never_shortens),
        TEST(some_decrees_grow_the_multiplier),
        TEST(a_decree_takes_the_decision_from_the_probe),
        TEST(a_drained_slot_ends_what_it_began),
        TEST(restore_forgets),
        TEST(bad_checks_hold_it_out_until_good_ones),
        TEST(checks_leave_an_ejection_where_it_is),
        TEST(good_checks_may_readmit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
