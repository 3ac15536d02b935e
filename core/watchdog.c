/*
 * Watchdog: see watchdog.h.
 *
 * Memory order: the id is written before the step that goes with it, and after the one before that
 * (release, both); it is read between two reads of the step (acquire). Whoever sees a word of a new
 * id then sees that the step has moved, too: when it has not, the id is whole.
 */
#include "watchdog.h"
#include "log.h"
#include <stdlib.h>
#include <string.h>

struct seen {
    const struct pl_watch *watch;
    uint64_t step;
    uint64_t since_ms; /* when that step was first seen */
    bool reported;
};

struct pl_watchdog {
    uint32_t limit_ms;
    struct seen *workers;
    size_t count;
    uint64_t stall_count;
};

/* ---- the worker's side ---- */

static void bump(struct pl_watch *self)
{
    uint64_t step = atomic_load_explicit(&self->step, memory_order_relaxed); /* we alone write it */
    atomic_store_explicit(&self->step, step + 1, memory_order_release);
}

void pl_watch_enter(struct pl_watch *self, const char *id)
{
    size_t len = strnlen(id, sizeof(uint64_t) * PL_WATCH_ID_WORDS - 1) + 1; /* with its end */
    for (size_t i = 0; i * sizeof(uint64_t) < len; i++) {
        uint64_t word = 0;
        memcpy(&word, id + i * sizeof(word), PL_MIN(sizeof(word), len - i * sizeof(word)));
        atomic_store_explicit(&self->id[i], word, memory_order_release);
    }
    bump(self);
}

void pl_watch_leave(struct pl_watch *self)
{
    bump(self);
}

/* ---- the main thread's ---- */

struct pl_watchdog *pl_watchdog_new(uint32_t limit_ms)
{
    struct pl_watchdog *self = pl_xcalloc(1, sizeof(*self));
    self->limit_ms = limit_ms;
    return self;
}

void pl_watchdog_free(struct pl_watchdog *self)
{
    if (!self)
        return;
    free(self->workers);
    free(self);
}

void pl_watchdog_set_limit(struct pl_watchdog *self, uint32_t limit_ms)
{
    self->limit_ms = limit_ms;
}

void pl_watchdog_add(struct pl_watchdog *self, const struct pl_watch *watch)
{
    self->workers = pl_xrealloc(self->workers, (self->count + 1) * sizeof(*self->workers));
    self->workers[self->count++] = (struct seen){.watch = watch};
}

/* The id that goes with `step`; "" when the worker has moved on meanwhile. */
static void read_id(const struct pl_watch *watch, uint64_t step, char *out)
{
    for (size_t i = 0; i < PL_WATCH_ID_WORDS; i++) {
        uint64_t word = atomic_load_explicit(&watch->id[i], memory_order_acquire);
        memcpy(out + i * sizeof(word), &word, sizeof(word));
    }
    out[sizeof(uint64_t) * PL_WATCH_ID_WORDS - 1] = '\0';
    if (atomic_load_explicit(&watch->step, memory_order_relaxed) != step)
        out[0] = '\0';
}

static void report(struct pl_watchdog *self, struct seen *seen, size_t index, uint64_t now_ms)
{
    char id[sizeof(uint64_t) * PL_WATCH_ID_WORDS];
    read_id(seen->watch, seen->step, id);
    if (id[0] == '\0')
        return;
    seen->reported = true;
    self->stall_count++;
    pl_log(
        PL_LOG_ERROR,
        "request %s: its policy has kept worker %zu for %llu ms without a pause, in one call that "
        "no budget can stop; the worker serves nobody meanwhile",
        id, index, (unsigned long long)(now_ms - seen->since_ms));
}

static void look_at(struct pl_watchdog *self, size_t index, uint64_t now_ms)
{
    struct seen *seen = &self->workers[index];
    uint64_t step = atomic_load_explicit(&seen->watch->step, memory_order_acquire);
    if (step != seen->step) {
        if (seen->reported)
            pl_log(PL_LOG_WARN, "worker %zu goes on, after about %llu ms", index,
                   (unsigned long long)(now_ms - seen->since_ms));
        *seen = (struct seen){.watch = seen->watch, .step = step, .since_ms = now_ms};
        return;
    }
    bool inside = step % 2 == 1;
    if (inside && !seen->reported && now_ms - seen->since_ms >= self->limit_ms)
        report(self, seen, index, now_ms);
}

void pl_watchdog_look(struct pl_watchdog *self, uint64_t now_ms)
{
    for (size_t i = 0; i < self->count; i++)
        look_at(self, i, now_ms);
}

uint64_t pl_watchdog_stall_count(const struct pl_watchdog *self)
{
    return self->stall_count;
}

size_t pl_watchdog_stalled_now(const struct pl_watchdog *self)
{
    size_t count = 0;
    for (size_t i = 0; i < self->count; i++)
        count += self->workers[i].reported;
    return count;
}
