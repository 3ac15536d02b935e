/*
 * Strikes: see strikes.h.
 *
 * How many times must be kept so that none that matters is dropped: until it is struck, no interval
 * as long as the window holds more than max_count - 1 failures, so the two windows before the
 * newest failure hold at most 2 x (max_count - 1). A late one, at most a window old, can only be
 * part of a strike with failures of these two windows.
 */
#include "strikes.h"

int pl_strikes_init(struct pl_strikes *self, uint32_t max_count, uint64_t window_ms)
{
    bool fits = max_count <= PL_STRIKES_MAX_COUNT;
    *self = (struct pl_strikes){.window_ms = window_ms, .max_count = fits ? max_count : 0};
    return fits ? 0 : PL_ERR_LIMIT;
}

/* Newest minus this is no underflow: what is older than the newest by more than that is too late.
 */
static bool is_too_late(const struct pl_strikes *self, uint64_t at_ms)
{
    if (self->kept_count == 0) {
        return false;
    }
    uint64_t newest_ms = self->times_ms[self->kept_count - 1];
    return at_ms < newest_ms && newest_ms - at_ms > self->window_ms;
}

static void drop_oldest(struct pl_strikes *self)
{
    self->kept_count--;
    memmove(self->times_ms, self->times_ms + 1, self->kept_count * sizeof(self->times_ms[0]));
}

/* Behind those of the same time; returns where. There is room. */
static uint32_t insert(struct pl_strikes *self, uint64_t at_ms)
{
    uint32_t place = self->kept_count++;
    while (place > 0 && self->times_ms[place - 1] > at_ms) {
        self->times_ms[place] = self->times_ms[place - 1];
        place--;
    }
    self->times_ms[place] = at_ms;
    return place;
}

/* Whether max_count neighbours, the one at `place` among them, lie within the window. */
static bool completes(const struct pl_strikes *self, uint32_t place)
{
    uint32_t span = self->max_count - 1;
    uint32_t first = place > span ? place - span : 0;
    for (; first <= place && first + span < self->kept_count; first++) {
        if (self->times_ms[first + span] - self->times_ms[first] <= self->window_ms) {
            return true;
        }
    }
    return false;
}

bool pl_strikes_add(struct pl_strikes *self, uint64_t at_ms)
{
    if (self->max_count == 0 || is_too_late(self, at_ms)) {
        return false;
    }
    uint32_t place = insert(self, at_ms);
    bool struck_now = !self->struck && completes(self, place);
    self->struck |= struck_now;
    if (self->kept_count >= 2 * self->max_count) {
        drop_oldest(self);
    }
    return struck_now;
}

bool pl_strikes_is_struck(const struct pl_strikes *self)
{
    return self->struck;
}

uint32_t pl_strikes_recent_count(const struct pl_strikes *self, uint64_t now_ms)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < self->kept_count; i++) {
        uint64_t at_ms = self->times_ms[i];
        count += at_ms <= now_ms && now_ms - at_ms <= self->window_ms;
    }
    return count;
}
