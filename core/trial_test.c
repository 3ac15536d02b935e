/*
 * Tests of trial.c and trial_odds.c: the odds against counting all draws, each rule at its edges,
 * what happens at the end of the trial, and the sentences. How often it errs, and how soon it sees,
 * is in trial_simulation_test.c.
 */
#include "trial.h"

#include "trial_odds.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define END_MS 60000u

static struct pl_trial_rules rules;
static struct pl_figures_view canary, stable;
static struct pl_trial_judgement judgement;

static int set_up(void **state)
{
    (void)state;
    rules = pl_trial_rules_default();
    memset(&canary, 0, sizeof(canary));
    memset(&stable, 0, sizeof(stable));
    return 0;
}

static void serve(struct pl_figures_view *view, uint64_t success_count, uint64_t failure_count)
{
    view->begun_count += success_count + failure_count;
    view->success_count += success_count;
    view->failure_count += failure_count;
}

static void show_tokens(struct pl_figures_view *view, uint64_t count, uint64_t ttft_ms)
{
    view->ttft_counts[pl_figures_ttft_bucket(ttft_ms)] += count;
}

static void judge_at(uint64_t elapsed_ms)
{
    pl_trial_judge(&rules, &canary, &stable, elapsed_ms, &judgement);
    assert_true(strlen(judgement.reason) > 0);
    assert_true(strlen(judgement.reason) < PL_TRIAL_REASON_MAX - 1);
}

static void assert_verdict(uint64_t elapsed_ms, enum pl_trial_verdict verdict, const char *rule)
{
    judge_at(elapsed_ms);
    assert_string_equal(pl_trial_verdict_name(judgement.verdict), pl_trial_verdict_name(verdict));
    assert_string_equal(judgement.rule, rule);
}

static void assert_rolls_back(const char *rule, const char *reason)
{
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, rule);
    assert_string_equal(judgement.reason, reason);
    assert_verdict(END_MS, PL_TRIAL_ROLL_BACK, rule);
}

static void assert_goes_on(void)
{
    assert_verdict(END_MS - 1, PL_TRIAL_UNDECIDED, "none");
}

static void assert_promotes(void)
{
    assert_goes_on();
    assert_verdict(END_MS, PL_TRIAL_PROMOTE, "none");
}

/* ---- odds ---- */

static double choose(unsigned n, unsigned k)
{
    double ways = 1;
    for (unsigned i = 0; i < k; i++) {
        ways = ways * (n - i) / (i + 1);
    }
    return k > n ? 0 : ways;
}

static double counted_chance(unsigned bad, unsigned of, unsigned stable_bad, unsigned stable_of)
{
    unsigned all_bad = bad + stable_bad, all = of + stable_of;
    double ways = 0;
    for (unsigned k = bad; k <= PL_MIN(all_bad, of); k++) {
        ways += choose(all_bad, k) * choose(all - all_bad, of - k);
    }
    return ways / choose(all, of);
}

static double chance(uint64_t bad, uint64_t of, uint64_t stable_bad, uint64_t stable_of)
{
    return pl_trial_chance((struct pl_trial_share){bad, of},
                           (struct pl_trial_share){stable_bad, stable_of});
}

/* All tables of up to 12 canary and 15 stable requests. */
static void test_chance_is_what_counting_gives(void **state)
{
    (void)state;
    for (unsigned of = 1; of <= 12; of++) {
        for (unsigned bad = 0; bad <= of; bad++) {
            for (unsigned i = 0; i < 15 * 16; i++) {
                unsigned stable_of = 1 + i / 16, stable_bad = i % 16;
                if (stable_bad > stable_of) {
                    continue;
                }
                double got = chance(bad, of, stable_bad, stable_of);
                if (bad * stable_of <= stable_bad * of) {
                    assert_true(got == 1);
                } else {
                    double expected = counted_chance(bad, of, stable_bad, stable_of);
                    assert_true(fabs(got - expected) <= 1e-9 * expected);
                }
            }
        }
    }
}

static void test_chance_of_none_and_of_very_many(void **state)
{
    (void)state;
    assert_true(chance(0, 0, 0, 0) == 1);
    assert_true(chance(0, 0, 3, 10) == 1);
    assert_true(chance(10, 10, 0, 0) == 1);
    /* 4 million of 40, against 36 of 360 and a few more: as the normal approximation says. */
    double got = chance(4006000, 40000000, 36000000, 360000000);
    double ratio = 40006000.0 / 400000000;
    double deviation = sqrt(40000000.0 * ratio * (1 - ratio) * 0.9);
    double expected = pl_trial_chance_of_z((4006000 - 40000000 * ratio) / deviation);
    assert_true(fabs(got - expected) < 0.01 * expected);
    assert_true(chance(1000000, 1000000, 0, 1000000) < 1e-300);
}

static void test_chance_of_z(void **state)
{
    (void)state;
    assert_true(pl_trial_chance_of_z(0) == 0.5);
    assert_true(fabs(pl_trial_chance_of_z(1.6449) - 0.05) < 1e-5);
    assert_true(fabs(pl_trial_chance_of_z(4.2) - 1.3346e-5) < 1e-9);
}

static void test_the_default_keeps_its_bound_over_a_minute(void **state)
{
    (void)state;
    assert_true(60 * (5 + 2 * 2) * pl_trial_chance_of_z(rules.confidence_z) < 0.0075);
}

/* ---- rates ---- */

static void test_sentence_of_failures(void **state)
{
    (void)state;
    serve(&canary, 175, 25);
    serve(&stable, 1780, 20);
    assert_rolls_back("failures", "failure rate 12.5 % (25 of 200) against 1.1 % (20 of 1800)");
}

static void test_equal_ones_are_promoted(void **state)
{
    (void)state;
    serve(&canary, 196, 4);
    serve(&stable, 1764, 36);
    show_tokens(&canary, 196, 400);
    show_tokens(&stable, 1764, 400);
    assert_promotes();
    assert_string_equal(judgement.reason,
                        "not worse: failure rate 2.0 % (4 of 200) against 2.0 % (36 of 1800), "
                        "policy errors 0.0 % (0 of 200) against 0.0 % (0 of 1800), time to first "
                        "token p50 400 ms against 400 ms, p90 400 ms against 400 ms");
    assert_verdict(0, PL_TRIAL_UNDECIDED, "none");
    assert_memory_equal(judgement.reason, "not worse so far: ", 18);
}

static void test_a_better_one_is_promoted(void **state)
{
    (void)state;
    serve(&canary, 200, 0);
    serve(&stable, 900, 900);
    stable.policy_fault_counts[PL_POLICY_FAULT_ERROR] = 900;
    show_tokens(&canary, 200, 100);
    show_tokens(&stable, 900, 9000);
    assert_promotes();
}

static void test_one_unlucky_failure_of_twenty(void **state)
{
    (void)state;
    serve(&canary, 19, 1);
    serve(&stable, 180, 0);
    assert_promotes();
    serve(&stable, 100 * 1000 * 1000, 0);
    assert_promotes();
    serve(&canary, 0, 1);
    assert_promotes();
    serve(&canary, 0, 1);
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, "failures");
}

static void test_all_failing_is_seen_after_a_handful(void **state)
{
    (void)state;
    serve(&canary, 0, 3);
    serve(&stable, 27, 0);
    assert_goes_on();
    serve(&canary, 0, 1);
    serve(&stable, 9, 0);
    assert_rolls_back("failures", "failure rate 100.0 % (4 of 4) against 0.0 % (0 of 36)");
}

static void test_a_sure_but_small_difference_does_not_matter(void **state)
{
    (void)state;
    serve(&canary, 96100, 3900);
    serve(&stable, 980000, 20000);
    assert_promotes();
    serve(&canary, 0, 200);
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, "failures");
    rules.failure_margin_ratio = 0.05;
    assert_promotes();
}

static void test_an_outage_of_all_is_nobodys_fault(void **state)
{
    (void)state;
    serve(&canary, 0, 200);
    serve(&stable, 0, 1800);
    assert_promotes();
}

static void test_what_is_in_flight_dilutes(void **state)
{
    (void)state;
    /* The first to end are quick failures; 50 more are in flight. */
    serve(&canary, 0, 4);
    canary.begun_count += 50;
    canary.in_flight_count = 50;
    serve(&stable, 400, 20);
    stable.begun_count += 100;
    stable.in_flight_count = 450;
    assert_goes_on();
    canary.begun_count = 4;
    canary.in_flight_count = 0;
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, "failures");
}

static void test_neutral_ones_do_not_dilute(void **state)
{
    (void)state;
    serve(&canary, 10, 10);
    serve(&stable, 200, 2);
    canary.begun_count += 60;
    canary.client_fault_count = 30;
    canary.client_gone_count = 30;
    stable.begun_count += 600;
    stable.client_fault_count = 300;
    stable.client_gone_count = 300;
    assert_rolls_back("failures", "failure rate 50.0 % (10 of 20) against 1.0 % (2 of 202)");
}

static void test_policy_errors_of_all_kinds_count(void **state)
{
    (void)state;
    for (int kind = 1; kind < PL_POLICY_FAULT_COUNT; kind++) {
        set_up(NULL);
        serve(&canary, 50, 0);
        serve(&stable, 450, 0);
        canary.policy_fault_counts[kind] = 4;
        assert_goes_on();
        canary.policy_fault_counts[kind] = 6;
        assert_rolls_back("policy_errors",
                          "policy errors 12.0 % (6 of 50) against 0.0 % (0 of 450)");
        rules.policy_error_margin_ratio = 0.12;
        assert_promotes();
    }
}

static void test_4xx_are_neutral_until_they_are_many(void **state)
{
    (void)state;
    serve(&canary, 191, 0);
    serve(&stable, 1800, 0);
    canary.begun_count += 19;
    canary.client_fault_count = 19;
    assert_promotes();
    canary.begun_count += 10;
    canary.client_fault_count += 10;
    assert_rolls_back("client_faults", "4xx answers 13.2 % (29 of 220) against 0.0 % (0 of 1800)");
    rules.client_margin_ratio = 1;
    assert_promotes();
}

static void test_clients_that_leave_only_the_canary(void **state)
{
    (void)state;
    serve(&canary, 150, 0);
    serve(&stable, 1800, 0);
    canary.begun_count += 50;
    canary.client_gone_count = 50;
    assert_rolls_back("client_gone", "clients that left 25.0 % (50 of 200) against 0.0 % "
                                     "(0 of 1800)");
}

static void test_a_canary_that_hangs(void **state)
{
    (void)state;
    canary.begun_count = canary.in_flight_count = 30;
    serve(&stable, 270, 0);
    stable.in_flight_count = 20;
    assert_rolls_back("unfinished",
                      "requests without an end 100.0 % (30 of 30) against 7.4 % (20 of 270)");
    /* Unless that is how long requests take. */
    stable.in_flight_count = 5000;
    assert_goes_on();
}

static void test_a_margin_of_one_switches_off(void **state)
{
    (void)state;
    serve(&canary, 0, 1000);
    serve(&stable, 9000, 0);
    rules.failure_margin_ratio = 1;
    assert_promotes();
}

/* ---- times to first token ---- */

static void tokens_of_equal_loads(void)
{
    serve(&canary, 200, 0);
    serve(&stable, 1800, 0);
}

static void test_slower_by_half(void **state)
{
    (void)state;
    tokens_of_equal_loads();
    show_tokens(&canary, 200, 820);
    show_tokens(&stable, 1800, 400);
    assert_rolls_back("ttft_p50", "time to first token p50 800 ms (200 answers) against 400 ms "
                                  "(1800)");
}

static void test_ratio_and_margin_must_both_be_passed(void **state)
{
    (void)state;
    tokens_of_equal_loads();
    show_tokens(&canary, 200, 90);
    show_tokens(&stable, 1800, 10);
    assert_promotes(); /* nine times, but 80 ms */
    rules.ttft_margin_ms = 50;
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, "ttft_p50");
    set_up(NULL);
    tokens_of_equal_loads();
    show_tokens(&canary, 200, 2800);
    show_tokens(&stable, 1800, 2000);
    assert_promotes(); /* 800 ms, but 1.4 times */
    rules.ttft_max_ratio = 1.2;
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, "ttft_p50");
}

static void test_a_slow_tail(void **state)
{
    (void)state;
    tokens_of_equal_loads();
    show_tokens(&canary, 160, 400);
    show_tokens(&canary, 40, 4000);
    show_tokens(&stable, 1720, 400);
    show_tokens(&stable, 80, 4000);
    judge_at(1000);
    assert_rolls_back("ttft_p90", judgement.reason);
    assert_non_null(strstr(judgement.reason, "p90 39"));
}

/* In a canary with most of the requests, the common quantile is its own. */
static void test_slower_at_any_share(void **state)
{
    (void)state;
    for (uint64_t count = 30; count <= 270; count += 30) {
        set_up(NULL);
        serve(&canary, count, 0);
        serve(&stable, 300 - count, 0);
        show_tokens(&canary, count, 900);
        show_tokens(&stable, 300 - count, 400);
        assert_verdict(1000, PL_TRIAL_ROLL_BACK, "ttft_p50");
    }
}

/* Four that are all slow, each in its own way: seen at the quantile of both together, while at the
 * canary's own median only three of them would be beyond the cut. */
static void test_the_cut_is_that_of_both(void **state)
{
    (void)state;
    rules.min_request_count = 4;
    serve(&canary, 4, 0);
    serve(&stable, 36, 0);
    show_tokens(&stable, 36, 400);
    for (uint64_t ttft_ms = 700; ttft_ms <= 1300; ttft_ms += 200) {
        show_tokens(&canary, 1, ttft_ms);
    }
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, "ttft_p50");
}

static void test_few_times_are_not_compared(void **state)
{
    (void)state;
    tokens_of_equal_loads();
    show_tokens(&canary, 19, 9000);
    show_tokens(&stable, 1800, 100);
    assert_promotes();
    show_tokens(&canary, 1, 9000);
    assert_verdict(1000, PL_TRIAL_ROLL_BACK, "ttft_p50");
    memset(stable.ttft_counts, 0, sizeof(stable.ttft_counts));
    show_tokens(&stable, 19, 100);
    assert_promotes();
}

/* ---- the end ---- */

static void test_without_any_request(void **state)
{
    (void)state;
    assert_promotes();
    assert_memory_equal(judgement.reason,
                        "nothing bad seen; too few requests ended to compare "
                        "(0 against 0, 20 needed): ",
                        75);
}

static void test_enough_begins_at_the_minimum(void **state)
{
    (void)state;
    serve(&canary, 19, 0);
    serve(&stable, 500, 0);
    canary.policy_fault_counts[PL_POLICY_FAULT_MEMORY] = 1;
    assert_goes_on();
    assert_verdict(END_MS, PL_TRIAL_ROLL_BACK, "too_small");
    assert_memory_equal(judgement.reason,
                        "a policy failed; too few requests ended to compare "
                        "(19 against 500, 20 needed): ",
                        78);
    serve(&canary, 1, 0);
    assert_promotes();
    stable.begun_count = stable.success_count = 19;
    assert_verdict(END_MS, PL_TRIAL_ROLL_BACK, "too_small");
}

static void assert_few(uint64_t success_count, uint64_t failure_count, bool promotes)
{
    set_up(NULL);
    serve(&canary, success_count, failure_count);
    assert_goes_on();
    assert_verdict(END_MS, promotes ? PL_TRIAL_PROMOTE : PL_TRIAL_ROLL_BACK,
                   promotes ? "none" : "too_small");
}

static void test_few_and_most_of_them_failed(void **state)
{
    (void)state;
    assert_few(1, 0, true);
    assert_few(0, 2, true);
    assert_few(0, 3, false);
    assert_few(1, 2, false);
    assert_few(2, 2, true);
    assert_few(8, 9, false);
    assert_few(0, 500, false); /* with nothing to compare to */
}

static void test_few_and_none_answered(void **state)
{
    (void)state;
    canary.begun_count = canary.in_flight_count = 3;
    assert_verdict(END_MS, PL_TRIAL_ROLL_BACK, "too_small");
    assert_memory_equal(judgement.reason, "no request was answered; ", 25);
    show_tokens(&canary, 1, 100);
    assert_promotes();
    set_up(NULL);
    canary.begun_count = canary.client_fault_count = 3;
    assert_promotes();
}

/* ---- rules ---- */

static void assert_refused(const char *problem)
{
    assert_string_equal(pl_trial_rules_check(&rules), problem);
    rules = pl_trial_rules_default();
    assert_null(pl_trial_rules_check(&rules));
}

static void test_rules_have_bounds(void **state)
{
    (void)state;
    rules.duration_ms = 0;
    assert_refused("duration_ms must be from 1 to 86400000");
    rules.policy_error_margin_ratio = -0.01;
    assert_refused("policy_error_margin_ratio must be from 0 to 1");
    rules.failure_margin_ratio = (double)NAN;
    assert_refused("failure_margin_ratio must be from 0 to 1");
    rules.unfinished_margin_ratio = 1.01;
    assert_refused("unfinished_margin_ratio must be from 0 to 1");
    rules.client_margin_ratio = (double)INFINITY;
    assert_refused("client_margin_ratio must be from 0 to 1");
    rules.ttft_max_ratio = 0.99;
    assert_refused("ttft_max_ratio must be from 1 to 1000");
    rules.ttft_margin_ms = PL_FIGURES_TTFT_MAX_MS + 1;
    assert_refused("ttft_margin_ms must be from 0 to 600000");
    rules.min_request_count = 0;
    assert_refused("min_request_count must be from 1 to 1000000");
    rules.confidence_z = 0.5;
    assert_refused("confidence_z must be from 1 to 8");
}

/* The longest sentence is not cut off (judge_at looks). */
static void test_huge_numbers_fit_the_sentence(void **state)
{
    (void)state;
    serve(&canary, 19, 0);
    canary.policy_fault_counts[PL_POLICY_FAULT_ERROR] = 19;
    serve(&stable, 1000000000000, 1000000000000);
    stable.policy_fault_counts[PL_POLICY_FAULT_ERROR] = 2000000000000;
    show_tokens(&stable, 2000000000000, UINT64_MAX);
    rules.min_request_count = 1000000;
    judge_at(END_MS);
    assert_int_equal(judgement.verdict, PL_TRIAL_ROLL_BACK);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_chance_is_what_counting_gives),
        TEST(test_chance_of_none_and_of_very_many),
        TEST(test_chance_of_z),
        TEST(test_the_default_keeps_its_bound_over_a_minute),
        TEST(test_sentence_of_failures),
        TEST(test_equal_ones_are_promoted),
        TEST(test_a_better_one_is_promoted),
        TEST(test_one_unlucky_failure_of_twenty),
        TEST(test_all_failing_is_seen_after_a_handful),
        TEST(test_a_sure_but_small_difference_does_not_matter),
        TEST(test_an_outage_of_all_is_nobodys_fault),
        TEST(test_what_is_in_flight_dilutes),
        TEST(test_neutral_ones_do_not_dilute),
        TEST(test_policy_errors_of_all_kinds_count),
        TEST(test_4xx_are_neutral_until_they_are_many),
        TEST(test_clients_that_leave_only_the_canary),
        TEST(test_a_canary_that_hangs),
        TEST(test_a_margin_of_one_switches_off),
        TEST(test_slower_by_half),
        TEST(test_ratio_and_margin_must_both_be_passed),
        TEST(test_a_slow_tail),
        TEST(test_slower_at_any_share),
        TEST(test_the_cut_is_that_of_both),
        TEST(test_few_times_are_not_compared),
        TEST(test_without_any_request),
        TEST(test_enough_begins_at_the_minimum),
        TEST(test_few_and_most_of_them_failed),
        TEST(test_few_and_none_answered),
        TEST(test_rules_have_bounds),
        TEST(test_huge_numbers_fit_the_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
