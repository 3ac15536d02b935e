/*
 * Trial odds: see trial_odds.h.
 */
#include "trial_odds.h"

#include <assert.h>
#include <math.h>

double pl_trial_share_ratio(struct pl_trial_share share)
{
    return share.of_count == 0 ? 0 : (double)share.bad_count / (double)share.of_count;
}

static double log_factorial(double n)
{
    int sign;
    return lgamma_r(n + 1, &sign); /* lgamma keeps the sign in a global */
}

static double log_choose(double n, double k)
{
    return log_factorial(n) - log_factorial(k) - log_factorial(n - k);
}

/*
 * Of `all` requests `bad` are bad, `drawn` of them are the canary's: the chance of `got` or more
 * bad ones among these. The first term by logarithms, the others each from the one before. `got` is
 * above the mean, so they only shrink.
 */
static double hypergeometric_tail(double all, double bad, double drawn, double got)
{
    double term =
        exp(log_choose(bad, got) + log_choose(all - bad, drawn - got) - log_choose(all, drawn));
    double total = 0;
    double last = fmin(bad, drawn);
    for (double k = got; k <= last && term > total * 1e-12; k++) {
        total += term;
        term *= (bad - k) / (k + 1) * (drawn - k) / (all - bad - drawn + k + 1);
    }
    return fmin(total, 1);
}

double pl_trial_chance(struct pl_trial_share canary, struct pl_trial_share stable)
{
    assert(canary.bad_count <= canary.of_count && stable.bad_count <= stable.of_count);
    if (pl_trial_share_ratio(canary) <= pl_trial_share_ratio(stable) || stable.of_count == 0) {
        return 1; /* not worse; the exact figure would be about a half or more */
    }
    return hypergeometric_tail((double)canary.of_count + (double)stable.of_count,
                               (double)canary.bad_count + (double)stable.bad_count,
                               (double)canary.of_count, (double)canary.bad_count);
}

double pl_trial_chance_of_z(double z)
{
    return 0.5 * erfc(z / sqrt(2));
}
