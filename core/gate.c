/*
 * Gate: see gate.h.
 */
#include "gate.h"

void pl_gate_init(struct pl_gate *self)
{
    *self = (struct pl_gate){.verdict = PL_GATE_WAIT};
    pl_events_init(&self->events, PL_GATE_EVENT_MAX_BYTES);
}

void pl_gate_deinit(struct pl_gate *self)
{
    pl_events_deinit(&self->events);
}

struct pl_str pl_gate_data(const struct pl_gate *self)
{
    return self->decided ? pl_events_data(&self->events) : PL_STR("");
}

static void judge(struct pl_gate *self)
{
    self->has_events = true;
    self->verdict = pl_gate_judge_event(&self->seen, pl_events_name(&self->events),
                                        pl_events_data(&self->events));
    self->decided = self->verdict != PL_GATE_WAIT;
}

enum pl_gate_verdict pl_gate_feed(struct pl_gate *self, const char *data, size_t len)
{
    enum pl_events_found found;
    for (size_t at = 0; at < len && self->verdict == PL_GATE_WAIT;) {
        at += pl_events_next(&self->events, data + at, len - at, &found);
        if (found == PL_EVENTS_EVENT)
            judge(self);
        else if (found == PL_EVENTS_TOO_LARGE)
            self->verdict = PL_GATE_MEANINGFUL;
    }
    return self->verdict;
}

enum pl_gate_verdict pl_gate_end(struct pl_gate *self)
{
    bool is_foreign = self->events.is_foreign || pl_events_end_is_foreign(&self->events);
    if (self->verdict == PL_GATE_WAIT)
        self->verdict = is_foreign && !self->has_events ? PL_GATE_MALFORMED : PL_GATE_EMPTY;
    return self->verdict;
}
