/*
 * Trial odds: how likely luck alone would have been so hard on the canary.
 *
 * Thread: any. Pure, no state.
 */
#ifndef PL_TRIAL_ODDS_H
#define PL_TRIAL_ODDS_H

#include "base.h"

/** So many bad ones of so many; bad_count <= of_count. */
struct pl_trial_share {
    uint64_t bad_count, of_count;
};

/** bad / of; 0 of none is 0. */
double pl_trial_share_ratio(struct pl_trial_share share);
/**
 * The chance that the canary gets as many of all the bad ones as it has, or more, when each bad one
 * falls on any request alike: Fisher's exact test, one-sided. 1 when either has no requests.
 */
double pl_trial_chance(struct pl_trial_share canary, struct pl_trial_share stable);
/** The chance that a normal variable lies more than z deviations above its mean. */
double pl_trial_chance_of_z(double z);

#endif
