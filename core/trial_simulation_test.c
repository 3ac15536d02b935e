/*
 * Tests of trial.c by simulation: how often it rolls back a canary that is no worse, with a look
 * each second, and how soon it sees one that is. Seeds are fixed, so each run is the same.
 *
 * Time goes in seconds. Requests arrive evenly; each goes to the canary by its share, at random.
 * What becomes of it is drawn at once and counted in the second in which it happens, so that
 * requests last, and the stable generation is in full swing when the trial begins.
 */
#include "trial.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define WARM_UP_S   40
#define TRIAL_MAX_S 300
#define SPAN_S      (WARM_UP_S + TRIAL_MAX_S)

/* How the requests of a generation do. */
struct behaviour {
    double failure_ratio;
    double policy_error_ratio; /* of these, half fail and half are served by the floor policy */
    double client_fault_ratio;
    double ttft_median_ms, ttft_spread; /* log-normal; spread 0.5: p90 is 1.9 times the median */
    double slow_ratio;                  /* so many take ten times as long to the first token */
    double good_s, failure_s;           /* how long requests last, at most; evenly from 0 */
};

struct scene {
    unsigned rate_per_s;
    double canary_share_ratio;
    struct behaviour of_stable, of_canary;
    unsigned outage_from_s, outage_to_s; /* of the trial: half of all requests fail */
};

enum { STABLE, CANARY, SIDES };

/* What happens in each second. One count of each view per event. */
static struct pl_figures_view seconds[SIDES][SPAN_S];

static const struct behaviour USUAL = {
    .failure_ratio = 0.02,
    .client_fault_ratio = 0.05,
    .ttft_median_ms = 400,
    .ttft_spread = 0.5,
    .good_s = 4,
    .failure_s = 4,
};

static struct scene usual_scene(void)
{
    return (struct scene){
        .rate_per_s = 50, .canary_share_ratio = 0.1, .of_stable = USUAL, .of_canary = USUAL};
}

/* ---- the simulation ---- */

/* Box and Muller. */
static double random_normal(void)
{
    return sqrt(-2 * log(1 - pl_random_unit())) * cos(2 * acos(-1) * pl_random_unit());
}

static double random_ttft_ms(const struct behaviour *of)
{
    double ttft_ms = of->ttft_median_ms * exp(of->ttft_spread * random_normal());
    return pl_random_unit() < of->slow_ratio ? 10 * ttft_ms : ttft_ms;
}

/* Where what happens then is counted; NULL when that is after the end. */
static struct pl_figures_view *second_at(int side, double at_s)
{
    return at_s < SPAN_S ? &seconds[side][(size_t)at_s] : NULL;
}

static void count_good(const struct behaviour *of, int side, double at_s)
{
    double ttft_ms = random_ttft_ms(of);
    struct pl_figures_view *shown = second_at(side, at_s + ttft_ms / 1000);
    struct pl_figures_view *ended =
        second_at(side, at_s + fmax(ttft_ms / 1000, of->good_s * pl_random_unit()));
    if (shown != NULL) {
        shown->ttft_counts[pl_figures_ttft_bucket((uint64_t)ttft_ms)]++;
    }
    if (ended != NULL) {
        ended->success_count++;
    }
}

static void count_failure(const struct behaviour *of, int side, double at_s, bool by_policy)
{
    struct pl_figures_view *ended = second_at(side, at_s + of->failure_s * pl_random_unit());
    if (ended != NULL) {
        ended->failure_count++;
        ended->policy_fault_counts[PL_POLICY_FAULT_ERROR] += by_policy;
    }
}

static void simulate_request(const struct scene *scene, double at_s)
{
    bool in_trial = at_s >= WARM_UP_S;
    int side = in_trial && pl_random_unit() < scene->canary_share_ratio ? CANARY : STABLE;
    const struct behaviour *of = side == CANARY ? &scene->of_canary : &scene->of_stable;
    bool outage = at_s >= WARM_UP_S + scene->outage_from_s && at_s < WARM_UP_S + scene->outage_to_s;
    seconds[side][(size_t)at_s].begun_count++;
    bool by_policy = pl_random_unit() < of->policy_error_ratio;
    if (by_policy ? pl_random_unit() < 0.5
                  : pl_random_unit() < (outage ? 0.5 : of->failure_ratio)) {
        count_failure(of, side, at_s, by_policy);
    } else if (pl_random_unit() < of->client_fault_ratio) {
        seconds[side][(size_t)at_s].client_fault_count++;
    } else {
        seconds[side][(size_t)at_s].policy_fault_counts[PL_POLICY_FAULT_ERROR] += by_policy;
        count_good(of, side, at_s);
    }
}

static void simulate(const struct scene *scene, unsigned trial_s)
{
    memset(seconds, 0, sizeof(seconds));
    unsigned count = (WARM_UP_S + trial_s) * scene->rate_per_s;
    for (unsigned i = 0; i < count; i++) {
        simulate_request(scene, (double)i / scene->rate_per_s);
    }
}

static void add(struct pl_figures_view *to, const struct pl_figures_view *second)
{
    to->begun_count += second->begun_count;
    to->success_count += second->success_count;
    to->failure_count += second->failure_count;
    to->client_fault_count += second->client_fault_count;
    to->policy_fault_counts[PL_POLICY_FAULT_ERROR] +=
        second->policy_fault_counts[PL_POLICY_FAULT_ERROR];
    for (size_t i = 0; i < PL_FIGURES_TTFT_BUCKETS; i++) {
        to->ttft_counts[i] += second->ttft_counts[i];
    }
    to->in_flight_count = to->begun_count - pl_figures_ended_count(to);
}

/* Looks after each second as the control plane does; the second of the verdict. */
static unsigned look_until_decided(const struct pl_trial_rules *rules,
                                   struct pl_trial_judgement *out)
{
    static const struct pl_figures_view none;
    struct pl_figures_view now[SIDES] = {none, none}, before = none, since;
    for (unsigned s = 0; s < WARM_UP_S; s++) {
        add(&before, &seconds[STABLE][s]);
    }
    now[STABLE] = before;
    unsigned trial_s = 0;
    do {
        for (int side = 0; side < SIDES; side++) {
            add(&now[side], &seconds[side][WARM_UP_S + trial_s]);
        }
        trial_s++;
        pl_figures_since(&now[STABLE], &before, &since);
        pl_trial_judge(rules, &now[CANARY], &since, trial_s * 1000ull, out);
    } while (out->verdict == PL_TRIAL_UNDECIDED);
    return trial_s;
}

/* ---- how often it errs ---- */

static void assert_rarely_rolls_back(const struct scene *scene, unsigned trial_s,
                                     unsigned run_count, unsigned max_count)
{
    struct pl_trial_rules rules = pl_trial_rules_default();
    unsigned wrong_count = 0;
    rules.duration_ms = trial_s * 1000ull;
    pl_random_seed(20260105);
    for (unsigned i = 0; i < run_count; i++) {
        struct pl_trial_judgement judgement;
        simulate(scene, trial_s);
        unsigned end_s = look_until_decided(&rules, &judgement);
        assert_true(judgement.verdict == PL_TRIAL_ROLL_BACK || end_s == trial_s);
        if (judgement.verdict == PL_TRIAL_ROLL_BACK) {
            print_message("after %u s: %s\n", end_s, judgement.reason);
            wrong_count++;
        }
    }
    assert_in_range(wrong_count, 0, max_count);
}

static void test_equal_generations(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    assert_rarely_rolls_back(&scene, 60, 1000, 5);
    scene.canary_share_ratio = 0.5;
    assert_rarely_rolls_back(&scene, 60, 300, 2);
}

static void test_equal_generations_that_fail_a_lot(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_stable.failure_ratio = scene.of_canary.failure_ratio = 0.3;
    scene.of_stable.policy_error_ratio = scene.of_canary.policy_error_ratio = 0.05;
    scene.of_stable.slow_ratio = scene.of_canary.slow_ratio = 0.1;
    assert_rarely_rolls_back(&scene, 60, 300, 2);
}

/* Only the canary has a first second, in which the quick failures end before the slow answers. */
static void test_equal_generations_with_slow_answers_and_quick_failures(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_stable.good_s = scene.of_canary.good_s = 40;
    scene.of_stable.failure_s = scene.of_canary.failure_s = 0.1;
    scene.of_stable.failure_ratio = scene.of_canary.failure_ratio = 0.1;
    assert_rarely_rolls_back(&scene, 60, 300, 2);
    /* The stable generation goes on ending what it began when all was its own. */
    scene.canary_share_ratio = 0.5;
    assert_rarely_rolls_back(&scene, 60, 300, 2);
    scene.canary_share_ratio = 0.9;
    assert_rarely_rolls_back(&scene, 60, 300, 2);
}

static void test_equal_generations_in_an_outage(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.outage_from_s = 10;
    scene.outage_to_s = 25;
    assert_rarely_rolls_back(&scene, 60, 300, 2);
}

static void test_equal_generations_with_little_traffic(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.rate_per_s = 4;
    assert_rarely_rolls_back(&scene, 60, 1000, 5);
}

static void test_equal_generations_over_five_minutes(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    assert_rarely_rolls_back(&scene, 300, 150, 1);
}

/* A canary within the bounds is no reason either, however long one looks. */
static void test_slightly_worse_within_the_bounds(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.failure_ratio = 0.03;
    scene.of_canary.ttft_median_ms = 460;
    assert_rarely_rolls_back(&scene, 60, 300, 2);
}

/* ---- how soon it sees ---- */

static int compare(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

/* In 95 of 100 runs it is rolled back within p95_s, in half of them within p50_s, and nearly always
 * by that rule, or by one whose name begins so. */
static void assert_rolls_back_within(const struct scene *scene, const char *rule, unsigned p50_s,
                                     unsigned p95_s)
{
    struct pl_trial_rules rules = pl_trial_rules_default();
    unsigned seen_s[100], wrong_rule_count = 0;
    pl_random_seed(4711);
    for (size_t i = 0; i < PL_COUNT(seen_s); i++) {
        struct pl_trial_judgement judgement;
        simulate(scene, 60);
        seen_s[i] = look_until_decided(&rules, &judgement);
        if (judgement.verdict != PL_TRIAL_ROLL_BACK) {
            seen_s[i] = UINT32_MAX;
        } else {
            wrong_rule_count += strncmp(judgement.rule, rule, strlen(rule)) != 0;
        }
    }
    qsort(seen_s, PL_COUNT(seen_s), sizeof(seen_s[0]), compare);
    print_message("%s: p50 %u s, p95 %u s, last %u s\n", rule, seen_s[49], seen_s[94], seen_s[99]);
    assert_in_range(seen_s[49], 1, p50_s);
    assert_in_range(seen_s[94], 1, p95_s);
    assert_in_range(wrong_rule_count, 0, 5);
}

static void test_every_request_fails(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.failure_ratio = 1;
    scene.of_canary.failure_s = 0.1;
    assert_rolls_back_within(&scene, "failures", 1, 2);
}

static void test_the_policy_fails_every_time(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.policy_error_ratio = 1;
    scene.of_canary.good_s = scene.of_canary.failure_s = 0.1;
    assert_rolls_back_within(&scene, "policy_errors", 1, 3);
}

static void test_ten_points_more_failures(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.failure_ratio = 0.12;
    assert_rolls_back_within(&scene, "failures", 30, 60);
}

static void test_five_of_a_hundred_policies_fail(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.policy_error_ratio = 0.05;
    assert_rolls_back_within(&scene, "policy_errors", 30, 60);
}

static void test_first_token_takes_twice_as_long(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.ttft_median_ms = 800;
    assert_rolls_back_within(&scene, "ttft", 10, 20);
}

static void test_a_quarter_takes_ten_times_as_long(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.slow_ratio = 0.25;
    assert_rolls_back_within(&scene, "ttft_p90", 30, 60);
}

static void test_every_request_is_refused(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.client_fault_ratio = 1;
    assert_rolls_back_within(&scene, "client_faults", 2, 3);
}

static void test_no_request_ends(void **state)
{
    (void)state;
    struct scene scene = usual_scene();
    scene.of_canary.good_s = scene.of_canary.failure_s = 1e6;
    assert_rolls_back_within(&scene, "unfinished", 10, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_generations),
        cmocka_unit_test(test_equal_generations_that_fail_a_lot),
        cmocka_unit_test(test_equal_generations_with_slow_answers_and_quick_failures),
        cmocka_unit_test(test_equal_generations_in_an_outage),
        cmocka_unit_test(test_equal_generations_with_little_traffic),
        cmocka_unit_test(test_equal_generations_over_five_minutes),
        cmocka_unit_test(test_slightly_worse_within_the_bounds),
        cmocka_unit_test(test_every_request_fails),
        cmocka_unit_test(test_the_policy_fails_every_time),
        cmocka_unit_test(test_ten_points_more_failures),
        cmocka_unit_test(test_five_of_a_hundred_policies_fail),
        cmocka_unit_test(test_first_token_takes_twice_as_long),
        cmocka_unit_test(test_a_quarter_takes_ten_times_as_long),
        cmocka_unit_test(test_every_request_is_refused),
        cmocka_unit_test(test_no_request_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
