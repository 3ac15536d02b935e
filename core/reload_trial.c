/*
 * Going back by itself: when the policies in force fail too often, and when an edition on trial
 * does worse than the one in force. See reload_internal.h. What "worse" is, is trial.h's to say.
 */
#include "log.h"
#include "reload_internal.h"
#include "trial.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define JUDGE_INTERVAL_MS 1000

/* ---- strikes ---- */

static void init_strikes(struct pl_strikes *strikes, const struct pl_config *config)
{
    /* the schema keeps the count within what strikes.h can take */
    if (pl_strikes_init(strikes, config->strikes_count, config->strikes_window_ms) != PL_OK)
        abort();
}

void pl_reload_reset_strikes(struct pl_reload *self)
{
    init_strikes(&self->strikes, self->state.current->config);
}

static void ask_rollback(struct pl_reload *self, const struct pl_edition *edition, const char *by,
                         const char *reason)
{
    struct pl_reload_request request = {
        .kind = PL_RELOAD_ROLLBACK, .by = by, .reason = reason, .number = edition->number};
    pl_reload_ask(self, &request, NULL, NULL);
}

/* Nothing to go back to: said once per window, so that a policy that fails in every request does
 * not fill the log with it. */
static void say_hopeless(struct pl_reload *self, const struct pl_edition *edition,
                         const char *reason)
{
    uint64_t now_ms = pl_now_ms();
    init_strikes(&self->strikes, edition->config);
    if (self->hopeless_ms != 0 && now_ms - self->hopeless_ms < edition->config->strikes_window_ms)
        return;
    self->hopeless_ms = now_ms;
    pl_log(PL_LOG_ERROR,
           "generation %" PRIu64 " stays in force, there is no earlier one to go back to: %s",
           edition->number, reason);
}

static void strike_out(struct pl_reload *self, const struct pl_edition *edition,
                       const struct pl_charges_view *charges)
{
    const struct pl_config *config = edition->config;
    char reason[400];
    snprintf(reason, sizeof(reason), "its policies failed %u times within %g s, last: %.300s",
             config->strikes_count, config->strikes_window_ms / 1000.0, charges->last_text);
    if (edition == self->state.current && !edition->back)
        say_hopeless(self, edition, reason);
    else
        ask_rollback(self, edition, "strikes", reason);
}

static void count_faults_of(struct pl_reload *self, struct pl_edition *edition,
                            struct pl_strikes *strikes)
{
    struct pl_charges_view charges;
    uint64_t now_ms = pl_now_ms();
    bool struck = false;
    pl_charges_take(edition->charges, &charges);
    for (uint64_t i = 0; i < PL_MIN(charges.new_count, PL_STRIKES_MAX_COUNT); i++)
        struck = pl_strikes_add(strikes, now_ms) || struck;
    if (struck)
        strike_out(self, edition, &charges);
}

void pl_reload_count_faults(struct pl_reload *self)
{
    count_faults_of(self, self->state.current, &self->strikes);
    if (self->state.canary)
        count_faults_of(self, self->state.canary, &self->canary_strikes);
}

/* ---- trials ---- */

static void judge(struct pl_reload *self, struct pl_trial_judgement *out)
{
    struct pl_figures_view canary, stable;
    struct pl_trial_rules rules = self->state.current->config->trial;
    rules.duration_ms = self->trial_ms;
    pl_figures_read(self->state.canary->figures, &canary);
    pl_figures_read(self->state.current->figures, &stable);
    pl_figures_since(&stable, self->trial_base, &stable);
    pl_trial_judge(&rules, &canary, &stable, pl_now_ms() - self->trial_start_ms, out);
}

static void arm(struct pl_reload *self)
{
    uint64_t passed_ms = pl_now_ms() - self->trial_start_ms;
    uint64_t left_ms = self->trial_ms > passed_ms ? self->trial_ms - passed_ms : 1;
    uint64_t wait_ms = PL_MIN(left_ms, JUDGE_INTERVAL_MS);
    struct timeval wait = {(time_t)(wait_ms / 1000), (suseconds_t)(wait_ms % 1000) * 1000};
    event_add(self->trial_timer, &wait);
}

static void on_judge(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_reload *self = arg;
    struct pl_trial_judgement judgement;
    struct pl_edition *canary = self->state.canary;
    judge(self, &judgement);
    snprintf(self->state.canary_reason, sizeof(self->state.canary_reason), "%s", judgement.reason);
    if (judgement.verdict == PL_TRIAL_UNDECIDED) {
        arm(self);
    } else if (judgement.verdict == PL_TRIAL_ROLL_BACK) {
        ask_rollback(self, canary, "trial", judgement.reason);
    } else {
        struct pl_reload_request request = {.kind = PL_RELOAD_PROMOTE,
                                            .by = "trial",
                                            .reason = judgement.reason,
                                            .number = canary->number};
        pl_reload_ask(self, &request, NULL, NULL);
    }
}

void pl_reload_trial_begin(struct pl_reload *self, const struct pl_reload_request *request)
{
    init_strikes(&self->canary_strikes, self->state.canary->config);
    self->trial_ms = request->canary_ms;
    self->trial_start_ms = pl_now_ms();
    self->state.canary_until_ms = self->trial_start_ms + self->trial_ms;
    self->state.canary_reason[0] = '\0';
    self->trial_base = pl_xcalloc(1, sizeof(*self->trial_base));
    pl_figures_read(self->state.current->figures, self->trial_base);
    self->trial_timer = event_new(self->base, -1, 0, on_judge, self);
    arm(self);
}

void pl_reload_trial_end(struct pl_reload *self)
{
    if (self->trial_timer)
        event_free(self->trial_timer);
    free(self->trial_base);
    self->trial_timer = NULL;
    self->trial_base = NULL;
}
