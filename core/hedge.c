/*
 * Hedge: a second try of a request beside a slow one, see request.h. When to begin it and which of
 * the two to take is decided in Lua (lua/perilune/hedge.lua); here is what may be done, and that
 * nothing is left behind.
 *
 * A request has the try at hand (`current`) and, once it was hedged, another (`rival`). The policy
 * only ever sees the one at hand: whichever can be judged first is turned to it. The one that loses
 * is cancelled, and neutral for its target's health: it has not failed. How long it was waited for
 * is kept, as what counts as slow is reckoned from those times.
 *
 * In the trail the loser stands before the winner, so that the last entry is the one that serves.
 *
 * Re-entry: nothing here wakes the policy.
 */
#include "request.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool is_at_work(const struct pl_try *self)
{
    return self->attempt && !self->is_judged;
}

/* ---- a second one ---- */

static struct pl_try *rival_of(struct pl_request *self)
{
    struct pl_runtime *runtime = self->runtime;
    if (self->rival)
        return self->rival;
    struct pl_try *try = SLIST_FIRST(&runtime->spare_tries);
    if (try) {
        SLIST_REMOVE_HEAD(&runtime->spare_tries, link);
        try->request = self;
    } else {
        try = pl_xcalloc(1, sizeof(*try));
        pl_try_init(try, self);
    }
    self->rival = try;
    return try;
}

struct pl_try *pl_hedge_next(struct pl_request *self)
{
    return is_at_work(self->current) ? rival_of(self) : self->current;
}

int pl_hedge_start(struct pl_request *self, const struct pl_target *target)
{
    assert(is_at_work(self->current));
    if (self->trail_count + 2 > PL_TRAIL_MAX) /* both will have an entry */
        return PL_ERR_LIMIT;
    struct pl_try *rival = rival_of(self);
    int rc = pl_try_start(rival, target);
    rival->so_far.is_hedge = true;
    self->is_hedging = rc == PL_OK;
    if (rc != PL_OK)
        pl_try_drop(rival);
    return rc;
}

/* ---- which one ---- */

void pl_hedge_turn(struct pl_request *self)
{
    struct pl_try *try = self->current;
    self->current = self->rival;
    self->rival = try;
}

bool pl_hedge_is_open(struct pl_request *self)
{
    pl_request_stop_timer(self);
    if (self->rival && self->rival->is_judged && !self->current->is_judged)
        pl_hedge_turn(self);
    return is_at_work(self->current);
}

bool pl_hedge_next_answer(struct pl_request *self)
{
    if (!self->rival || (!self->rival->attempt && !self->rival->is_judged))
        return false;
    pl_try_drop(self->current);
    pl_hedge_turn(self);
    return true;
}

/* ---- the other one ---- */

/* The entry of the one at hand stays the last. */
static void put_before(struct pl_try *loser, struct pl_try *winner)
{
    struct pl_trail_entry *first = pl_try_entry(winner), *second = pl_try_entry(loser);
    if (!first || first > second)
        return;
    struct pl_trail_entry entry = *first;
    *first = *second;
    *second = entry;
    size_t index = winner->trail_index;
    winner->trail_index = loser->trail_index;
    loser->trail_index = index;
}

/* What it has cost, as far as it has told. */
static void note_tokens(struct pl_try *self)
{
    struct pl_trail_entry *entry = pl_try_entry(self);
    if (!entry || !self->reads_usage)
        return;
    entry->input_tokens = self->usage.found.input_tokens;
    entry->output_tokens = self->usage.found.output_tokens;
}

static void note_wait(const struct pl_try *self)
{
    const struct pl_request *request = self->request;
    /* the second one is cut short too soon to say anything of its target */
    if (!self->so_far.is_hedge)
        pl_health_add_cut_wait(request->generation->topology->health, self->target->slot,
                               (uint32_t)(pl_last_now_ms() - self->start_ms), request->stream);
}

static void drop_rival(struct pl_request *self, enum pl_class class)
{
    struct pl_try *rival = self->rival;
    if (is_at_work(rival)) {
        if (class == PL_CLASS_HEDGE_LOST)
            note_wait(rival);
        pl_try_abandon(rival, class);
    }
    struct pl_trail_entry *entry = pl_try_entry(rival);
    if (class == PL_CLASS_HEDGE_LOST && entry) {
        if (entry->class == PL_CLASS_OK) /* good, too, but later than the other */
            entry->class = class;
        note_tokens(rival);
        put_before(rival, self->current);
    }
    pl_try_drop(rival);
    pl_try_forget_usage(rival);
}

void pl_hedge_decide(struct pl_request *self)
{
    if (self->rival)
        drop_rival(self, PL_CLASS_HEDGE_LOST);
}

void pl_hedge_abandon(struct pl_request *self)
{
    if (!self->rival)
        return;
    if (self->is_hedging)
        pl_hedge_count(self, PL_HEDGE_ENDED);
    drop_rival(self, PL_CLASS_NONE);
}

/* ---- the count, and the end ---- */

void pl_hedge_count(struct pl_request *self, enum pl_hedge result)
{
    self->was_hedged = true;
    self->is_hedging = false;
    if (self->hedges[result] < UINT8_MAX)
        self->hedges[result]++;
}

void pl_hedge_release(struct pl_request *self)
{
    struct pl_try *rival = self->rival;
    if (self->was_hedged)
        memset(self->hedges, 0, sizeof(self->hedges));
    self->was_hedged = self->is_hedging = self->is_hedge_share_taken = false;
    if (!rival)
        return;
    /* the record's own stays with it, and the other goes back */
    if (rival == &self->own_try)
        pl_hedge_turn(self);
    SLIST_INSERT_HEAD(&self->runtime->spare_tries, self->rival, link);
    self->rival = NULL;
}
