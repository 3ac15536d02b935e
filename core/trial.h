/*
 * Trial: is a canary, a generation of policies that gets a share of the requests, worse than the
 * stable one? Judges by the figures of both (figures.h) since the trial began.
 *
 * Thread: any. Pure: no clock, no state, no atomics; called about once a second.
 *
 * A rule rolls back when both hold:
 *   - it matters: the difference passes a bound (a margin of rates, a ratio and a margin of times);
 *   - it is no luck: had the bad ones fallen on any request alike, the canary would get so many
 *     with at most the chance that confidence_z stands for; and there are at least three.
 * Which request goes to the canary is chosen at random, so the second is an exact test whatever the
 * upstreams do meanwhile: an outage hits both. It is not if the share is chosen by client.
 *
 * Looking each second for a minute, with five rates and two times of two cuts each, makes 540
 * chances to be wrong. confidence_z 4.2 is a chance of 1 in 75,000 each, so at most 0.7 % in all,
 * however they depend on each other; by simulation far less (trial_simulation_test.c). Trials of
 * many minutes deserve a higher one.
 *
 * Rates are per request begun, not per request ended. Failures are often quick and answers slow:
 * among the first to end, failures are too many, and only the canary has these first seconds. Of
 * requests begun, the canary's rate is at first too low, which is the safe side.
 */
#ifndef PL_TRIAL_H
#define PL_TRIAL_H

#include "base.h"
#include "figures.h"

/** Margins of rates are differences of ratios: 0.02 is two points; 1 switches a rule off. */
struct pl_trial_rules {
    uint64_t duration_ms;             /* then it is decided */
    double policy_error_margin_ratio; /* of requests whose policy failed */
    double failure_margin_ratio;      /* of requests, without the neutral ones, that failed */
    double unfinished_margin_ratio;   /* of requests that have not ended */
    double client_margin_ratio;       /* of 4xx answers, and of clients that left */
    double ttft_max_ratio;            /* p50 and p90 of the time to first token: at most so many
                                         times the stable's ... */
    uint32_t ttft_margin_ms;          /* ... or so much more, whichever is more */
    uint32_t min_request_count;       /* with fewer times to first token these are not compared;
                                         with fewer requests ended the trial ends as too small */
    double confidence_z;              /* one-sided, in standard deviations */
};

/** 60 s; 0.005, 0.02, 0.25, 0.10; 1.5 times, 100 ms; 20 requests; 4.2. */
struct pl_trial_rules pl_trial_rules_default(void);
/** What is wrong with them, for people, or NULL. Bounds: duration 1 ms to a day, margins 0 to 1,
 *  ttft_max_ratio 1 to 1000, ttft_margin_ms to 10 min, min_request_count 1 to 1,000,000,
 *  confidence_z 1 to 8. */
const char *pl_trial_rules_check(const struct pl_trial_rules *rules);

enum pl_trial_verdict { PL_TRIAL_UNDECIDED, PL_TRIAL_ROLL_BACK, PL_TRIAL_PROMOTE };
/** "undecided", "roll_back", "promote". */
const char *pl_trial_verdict_name(enum pl_trial_verdict verdict);

#define PL_TRIAL_REASON_MAX 384

struct pl_trial_judgement {
    enum pl_trial_verdict verdict;
    const char *rule;                 /* that rolled back, for metrics: "policy_errors", "failures",
                                         "unfinished", "client_faults", "client_gone", "ttft_p50",
                                         "ttft_p90", "too_small"; "none" otherwise */
    char reason[PL_TRIAL_REASON_MAX]; /* a sentence, also when undecided */
};

/**
 * Judges. Both views count from the beginning of the trial (pl_figures_since; for a new generation
 * that is its whole view). Never promotes before duration_ms; from then on always decides.
 *
 * When the time is over and either side has had fewer than min_request_count requests end, the
 * trial is too small to compare by rates. Then the canary is promoted unless one of its policies
 * failed, or it began three or more requests (not counting the client's faults and those who left)
 * and more than half of them failed or none showed a first token or a good end.
 */
void pl_trial_judge(const struct pl_trial_rules *rules, const struct pl_figures_view *canary,
                    const struct pl_figures_view *stable, uint64_t elapsed_ms,
                    struct pl_trial_judgement *out);

#endif
