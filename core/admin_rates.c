/*
 * Admin rates: see admin_rates.h.
 */
#include "admin_rates.h"
#include <stdlib.h>
#include <string.h>

void pl_rates_deinit(struct pl_rates *self)
{
    free(self->seen);
    self->seen = NULL;
}

static void add(struct pl_figures_view *sum, const struct pl_figures_view *view)
{
    sum->begun_count += view->begun_count;
    sum->success_count += view->success_count;
    sum->failure_count += view->failure_count;
    sum->client_fault_count += view->client_fault_count;
    sum->client_gone_count += view->client_gone_count;
    sum->floor_count += view->floor_count;
    for (size_t i = 0; i < PL_POLICY_FAULT_COUNT; i++)
        sum->policy_fault_counts[i] += view->policy_fault_counts[i];
    for (size_t i = 0; i < PL_FIGURES_TTFT_BUCKETS; i++)
        sum->ttft_counts[i] += view->ttft_counts[i];
}

static const struct pl_figures_view *find_seen(const struct pl_rates *self, uint64_t number)
{
    static const struct pl_figures_view nothing;
    for (size_t i = 0; i < self->seen_count; i++) {
        if (self->seen[i].number == number)
            return &self->seen[i].view;
    }
    return &nothing;
}

/* An edition that is forgotten has had its last requests long before. */
void pl_rates_tick(struct pl_rates *self, const struct pl_reload_state *state, uint64_t now_ms)
{
    const struct pl_edition *edition;
    struct pl_figures_view *second = &self->seconds[self->next], since;
    size_t count = 0;
    memset(second, 0, sizeof(*second));
    TAILQ_FOREACH(edition, &state->editions, link)
    {
        count++;
    }
    struct pl_rates_seen *seen = pl_xcalloc(count + 1, sizeof(*seen));
    count = 0;
    TAILQ_FOREACH(edition, &state->editions, link)
    {
        seen[count].number = edition->number;
        pl_figures_read(edition->figures, &seen[count].view);
        pl_figures_since(&seen[count].view, find_seen(self, edition->number), &since);
        add(second, &since);
        count++;
    }
    free(self->seen);
    self->seen = seen;
    self->seen_count = count;
    self->lengths_ms[self->next] = self->ticked_ms ? PL_MAX(now_ms - self->ticked_ms, 1) : 1000;
    self->ticked_ms = now_ms;
    self->next = (self->next + 1) % PL_RATES_SECONDS;
}

static size_t place_of(const struct pl_rates *self, size_t ago)
{
    return (self->next + 2 * PL_RATES_SECONDS - 1 - ago) % PL_RATES_SECONDS;
}

const struct pl_figures_view *pl_rates_second(const struct pl_rates *self, size_t ago)
{
    size_t place = place_of(self, ago);
    return self->lengths_ms[place] ? &self->seconds[place] : NULL;
}

void pl_rates_sum(const struct pl_rates *self, size_t count, struct pl_figures_view *out,
                  uint64_t *length_ms)
{
    memset(out, 0, sizeof(*out));
    *length_ms = 0;
    for (size_t ago = 0; ago < count; ago++) {
        const struct pl_figures_view *second = pl_rates_second(self, ago);
        if (!second)
            break;
        add(out, second);
        *length_ms += self->lengths_ms[place_of(self, ago)];
    }
}
