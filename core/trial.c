/*
 * Trial: see trial.h. Each rule is a function that says whether it rolls back, and writes why.
 */
#include "trial.h"

#include "trial_odds.h"
#include <math.h>
#include <stdio.h>

/* With a stable of millions of good requests, one bad one alone would already be no luck. */
#define BAD_MIN_COUNT 3

#define DAY_MS (24u * 60 * 60 * 1000)

struct pl_trial_rules pl_trial_rules_default(void)
{
    return (struct pl_trial_rules){
        .duration_ms = 60000,
        .policy_error_margin_ratio = 0.005,
        .failure_margin_ratio = 0.02,
        .unfinished_margin_ratio = 0.25,
        .client_margin_ratio = 0.10,
        .ttft_max_ratio = 1.5,
        .ttft_margin_ms = 100,
        .min_request_count = 20,
        .confidence_z = 4.2,
    };
}

/* False for what is no number, too. */
static bool is_within(double value, double min, double max)
{
    return value >= min && value <= max;
}

const char *pl_trial_rules_check(const struct pl_trial_rules *rules)
{
    const struct {
        double value, min, max;
        const char *problem;
    } checks[] = {
        {(double)rules->duration_ms, 1, DAY_MS, "duration_ms must be from 1 to 86400000"},
        {rules->policy_error_margin_ratio, 0, 1, "policy_error_margin_ratio must be from 0 to 1"},
        {rules->failure_margin_ratio, 0, 1, "failure_margin_ratio must be from 0 to 1"},
        {rules->unfinished_margin_ratio, 0, 1, "unfinished_margin_ratio must be from 0 to 1"},
        {rules->client_margin_ratio, 0, 1, "client_margin_ratio must be from 0 to 1"},
        {rules->ttft_max_ratio, 1, 1000, "ttft_max_ratio must be from 1 to 1000"},
        {rules->ttft_margin_ms, 0, PL_FIGURES_TTFT_MAX_MS,
         "ttft_margin_ms must be from 0 to 600000"},
        {rules->min_request_count, 1, 1e6, "min_request_count must be from 1 to 1000000"},
        {rules->confidence_z, 1, 8, "confidence_z must be from 1 to 8"},
    };
    for (size_t i = 0; i < PL_COUNT(checks); i++) {
        if (!is_within(checks[i].value, checks[i].min, checks[i].max)) {
            return checks[i].problem;
        }
    }
    return NULL;
}

const char *pl_trial_verdict_name(enum pl_trial_verdict verdict)
{
    static const char *const names[] = {"undecided", "roll_back", "promote"};
    return names[verdict];
}

/* ---- rates ---- */

/*
 * Of requests begun, see trial.h. What the stable generation began before the trial and ends in it
 * only ever makes its own rate look higher; were it counted among `begun_count`, its rate would
 * look too low right after a large share has gone to the canary.
 */
static struct pl_trial_share share_of(uint64_t bad_count, uint64_t begun_count)
{
    return (struct pl_trial_share){bad_count, PL_MAX(begun_count, bad_count)};
}

static struct pl_trial_share policy_errors(const struct pl_figures_view *view)
{
    return share_of(pl_figures_policy_fault_count(view), view->begun_count);
}

static struct pl_trial_share failures(const struct pl_figures_view *view)
{
    uint64_t neutral_count =
        PL_MIN(view->client_fault_count + view->client_gone_count, view->begun_count);
    return share_of(view->failure_count, view->begun_count - neutral_count);
}

static struct pl_trial_share unfinished(const struct pl_figures_view *view)
{
    return share_of(view->in_flight_count, view->begun_count);
}

static struct pl_trial_share client_faults(const struct pl_figures_view *view)
{
    return share_of(view->client_fault_count, view->begun_count);
}

static struct pl_trial_share clients_gone(const struct pl_figures_view *view)
{
    return share_of(view->client_gone_count, view->begun_count);
}

static bool is_no_luck(const struct pl_trial_rules *rules, struct pl_trial_share canary,
                       struct pl_trial_share stable)
{
    return canary.bad_count >= BAD_MIN_COUNT &&
           pl_trial_chance(canary, stable) <= pl_trial_chance_of_z(rules->confidence_z);
}

static bool is_worse(const struct pl_trial_rules *rules, struct pl_trial_share canary,
                     struct pl_trial_share stable, double margin_ratio)
{
    double difference = pl_trial_share_ratio(canary) - pl_trial_share_ratio(stable);
    return difference > margin_ratio && is_no_luck(rules, canary, stable);
}

/* ---- times to first token ---- */

/* How many first tokens took longer than all of the buckets below `bucket`. */
static struct pl_trial_share from_bucket(const struct pl_figures_view *view, size_t bucket)
{
    struct pl_trial_share share = {.of_count = pl_figures_ttft_count(view)};
    for (size_t i = bucket; i < PL_FIGURES_TTFT_BUCKETS; i++) {
        share.bad_count += view->ttft_counts[i];
    }
    return share;
}

/* The bucket that the quantile of both together is in. Taken from both, as the test demands: which
 * of them a time belongs to must not move the cut. */
static size_t common_bucket(const struct pl_figures_view *canary,
                            const struct pl_figures_view *stable, double quantile)
{
    struct pl_figures_view both = *canary;
    for (size_t i = 0; i < PL_FIGURES_TTFT_BUCKETS; i++) {
        both.ttft_counts[i] += stable->ttft_counts[i];
    }
    return pl_figures_ttft_bucket((uint64_t)pl_figures_ttft_ms(&both, quantile));
}

/*
 * The quantile test (Mood's median test at 0.5): has the canary too many times beyond the quantile
 * of both? Cut below that bucket and above it: when a side has half of its times in one bucket,
 * only one of the two cuts tells them apart.
 */
static bool is_slower(const struct pl_trial_rules *rules, const struct pl_figures_view *canary,
                      const struct pl_figures_view *stable, double quantile)
{
    if (PL_MIN(pl_figures_ttft_count(canary), pl_figures_ttft_count(stable)) <
        rules->min_request_count) {
        return false;
    }
    double stable_ms = pl_figures_ttft_ms(stable, quantile);
    double limit_ms =
        fmax(stable_ms * rules->ttft_max_ratio, stable_ms + (double)rules->ttft_margin_ms);
    if (pl_figures_ttft_ms(canary, quantile) <= limit_ms) {
        return false;
    }
    size_t bucket = common_bucket(canary, stable, quantile);
    return is_no_luck(rules, from_bucket(canary, bucket), from_bucket(stable, bucket)) ||
           is_no_luck(rules, from_bucket(canary, bucket + 1), from_bucket(stable, bucket + 1));
}

/* ---- sentences ---- */

#define SHARE_FORMAT "%.1f %% (%llu of %llu)"
#define SHARE_VALUES(share)                                                                        \
    100 * pl_trial_share_ratio(share), (unsigned long long)(share).bad_count,                      \
        (unsigned long long)(share).of_count

static void put_rates(struct pl_trial_judgement *out, const char *what,
                      struct pl_trial_share canary, struct pl_trial_share stable)
{
    snprintf(out->reason, sizeof(out->reason), "%s " SHARE_FORMAT " against " SHARE_FORMAT, what,
             SHARE_VALUES(canary), SHARE_VALUES(stable));
}

static void put_times(struct pl_trial_judgement *out, const struct pl_figures_view *canary,
                      const struct pl_figures_view *stable, double quantile)
{
    snprintf(
        out->reason, sizeof(out->reason),
        "time to first token p%.0f %.0f ms (%llu answers) against %.0f ms (%llu)", 100 * quantile,
        pl_figures_ttft_ms(canary, quantile), (unsigned long long)pl_figures_ttft_count(canary),
        pl_figures_ttft_ms(stable, quantile), (unsigned long long)pl_figures_ttft_count(stable));
}

static void put_summary(struct pl_trial_judgement *out, const char *introduction,
                        const struct pl_figures_view *canary, const struct pl_figures_view *stable)
{
    struct pl_trial_share failed = failures(canary), stable_failed = failures(stable);
    struct pl_trial_share errors = policy_errors(canary), stable_errors = policy_errors(stable);
    snprintf(out->reason, sizeof(out->reason),
             "%s: failure rate " SHARE_FORMAT " against " SHARE_FORMAT
             ", policy errors " SHARE_FORMAT " against " SHARE_FORMAT
             ", time to first token p50 %.0f ms against %.0f ms, p90 %.0f ms against %.0f ms",
             introduction, SHARE_VALUES(failed), SHARE_VALUES(stable_failed), SHARE_VALUES(errors),
             SHARE_VALUES(stable_errors), pl_figures_ttft_ms(canary, 0.5),
             pl_figures_ttft_ms(stable, 0.5), pl_figures_ttft_ms(canary, 0.9),
             pl_figures_ttft_ms(stable, 0.9));
}

/* ---- judging ---- */

static void roll_back(struct pl_trial_judgement *out, const char *rule)
{
    out->verdict = PL_TRIAL_ROLL_BACK;
    out->rule = rule;
}

static bool rates_roll_back(const struct pl_trial_rules *rules,
                            const struct pl_figures_view *canary,
                            const struct pl_figures_view *stable, struct pl_trial_judgement *out)
{
    const struct {
        const char *rule, *what;
        struct pl_trial_share (*rate_of)(const struct pl_figures_view *view);
        double margin_ratio;
    } rates[] = {
        {"policy_errors", "policy errors", policy_errors, rules->policy_error_margin_ratio},
        {"failures", "failure rate", failures, rules->failure_margin_ratio},
        {"unfinished", "requests without an end", unfinished, rules->unfinished_margin_ratio},
        {"client_faults", "4xx answers", client_faults, rules->client_margin_ratio},
        {"client_gone", "clients that left", clients_gone, rules->client_margin_ratio},
    };
    for (size_t i = 0; i < PL_COUNT(rates); i++) {
        struct pl_trial_share of_canary = rates[i].rate_of(canary);
        struct pl_trial_share of_stable = rates[i].rate_of(stable);
        if (is_worse(rules, of_canary, of_stable, rates[i].margin_ratio)) {
            roll_back(out, rates[i].rule);
            put_rates(out, rates[i].what, of_canary, of_stable);
            return true;
        }
    }
    return false;
}

static bool times_roll_back(const struct pl_trial_rules *rules,
                            const struct pl_figures_view *canary,
                            const struct pl_figures_view *stable, struct pl_trial_judgement *out)
{
    static const struct {
        const char *rule;
        double quantile;
    } times[] = {{"ttft_p50", 0.5}, {"ttft_p90", 0.9}};
    for (size_t i = 0; i < PL_COUNT(times); i++) {
        if (is_slower(rules, canary, stable, times[i].quantile)) {
            roll_back(out, times[i].rule);
            put_times(out, canary, stable, times[i].quantile);
            return true;
        }
    }
    return false;
}

/* What a few requests can tell without a comparison, see pl_trial_judge; NULL: nothing bad. */
static const char *fault_of_few(const struct pl_figures_view *canary)
{
    struct pl_trial_share failed = failures(canary);
    if (pl_figures_policy_fault_count(canary) > 0) {
        return "a policy failed";
    }
    if (failed.of_count < BAD_MIN_COUNT) {
        return NULL;
    }
    if (failed.bad_count * 2 > failed.of_count) {
        return "most requests failed";
    }
    bool any_good = canary->success_count + pl_figures_ttft_count(canary) > 0;
    return any_good ? NULL : "no request was answered";
}

static void judge_few(const struct pl_trial_rules *rules, const struct pl_figures_view *canary,
                      const struct pl_figures_view *stable, struct pl_trial_judgement *out)
{
    const char *fault = fault_of_few(canary);
    char introduction[128];
    snprintf(introduction, sizeof(introduction),
             "%s; too few requests ended to compare (%llu against %llu, %u needed)",
             fault != NULL ? fault : "nothing bad seen",
             (unsigned long long)pl_figures_ended_count(canary),
             (unsigned long long)pl_figures_ended_count(stable), rules->min_request_count);
    if (fault != NULL) {
        roll_back(out, "too_small");
    } else {
        out->verdict = PL_TRIAL_PROMOTE;
    }
    put_summary(out, introduction, canary, stable);
}

void pl_trial_judge(const struct pl_trial_rules *rules, const struct pl_figures_view *canary,
                    const struct pl_figures_view *stable, uint64_t elapsed_ms,
                    struct pl_trial_judgement *out)
{
    *out = (struct pl_trial_judgement){.verdict = PL_TRIAL_UNDECIDED, .rule = "none"};
    if (rates_roll_back(rules, canary, stable, out) ||
        times_roll_back(rules, canary, stable, out)) {
        return;
    }
    if (elapsed_ms < rules->duration_ms) {
        put_summary(out, "not worse so far", canary, stable);
    } else if (PL_MIN(pl_figures_ended_count(canary), pl_figures_ended_count(stable)) <
               rules->min_request_count) {
        judge_few(rules, canary, stable, out);
    } else {
        out->verdict = PL_TRIAL_PROMOTE;
        put_summary(out, "not worse", canary, stable);
    }
}
