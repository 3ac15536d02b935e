/*
 * Timer: one-shot, either an event of libevent or an entry in a virtual timeline. Where requests
 * are only played (`perilune test`, `perilune simulate`) nothing waits: the timeline's clock jumps
 * from one due time to the next.
 *
 * Thread: one. A timer is embedded in what it wakes, and arming it allocates nothing. Of the two
 * kinds of clockwork every timer has exactly one, for life.
 */
#ifndef PL_TIMER_H
#define PL_TIMER_H

#include "base.h"
#include <event2/event.h>
#include <event2/event_struct.h>

struct pl_timeline;

struct pl_timer {
    struct pl_timeline *timeline; /* NULL: libevent's */
    void (*on_due)(void *arg);
    void *arg;
    union {
        struct event event;
        struct {
            uint64_t due_us;
            uint64_t order; /* of arming: what is due at the same time goes in this order */
            size_t place;   /* in the heap, from 1 on; 0: not armed */
        } entry;
    } as;
};

/** `base`: where the timer is to be one of libevent's; `timeline` is NULL then. */
void pl_timer_init(struct pl_timer *self, struct event_base *base, struct pl_timeline *timeline,
                   void (*on_due)(void *arg), void *arg);
/** Arms it, or sets it anew: on_due is called once, from the loop, when the time has passed. */
void pl_timer_start_ms(struct pl_timer *self, uint64_t duration_ms);
void pl_timer_start_us(struct pl_timer *self, uint64_t duration_us);
/** Disarms it. Idempotent. */
void pl_timer_stop(struct pl_timer *self);
/** Has on_due called from a fresh turn of the loop, as soon as can be. */
void pl_timer_fire_soon(struct pl_timer *self);

/* ---- the virtual timeline ---- */

/** The clock stands at `clock.now_us`; the owner installs it while it lets time pass. */
struct pl_timeline {
    struct pl_clock clock;
    struct pl_timer **heap; /* from index 1 on */
    size_t count, cap;
    uint64_t armed_count; /* so far, for the order */
};

void pl_timeline_init(struct pl_timeline *self, uint64_t start_us);
/** No timer may be armed any more. */
void pl_timeline_deinit(struct pl_timeline *self);
/** When the next timer is due; UINT64_MAX: none is armed. */
uint64_t pl_timeline_next_us(const struct pl_timeline *self);
/** Moves the clock to the next due time and calls that timer. One must be armed. */
void pl_timeline_step(struct pl_timeline *self);
/** Moves the clock to `now_us`, before which nothing may be due. */
void pl_timeline_move_to(struct pl_timeline *self, uint64_t now_us);

#endif
