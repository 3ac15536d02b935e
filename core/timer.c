/*
 * Timer: see timer.h. The timeline is a binary heap by due time and order of arming; each timer
 * knows its place in it, so that stopping one costs no search.
 */
#include "timer.h"
#include <assert.h>
#include <stdlib.h>

/* ---- the heap ---- */

static bool is_before(const struct pl_timer *a, const struct pl_timer *b)
{
    if (a->as.entry.due_us != b->as.entry.due_us)
        return a->as.entry.due_us < b->as.entry.due_us;
    return a->as.entry.order < b->as.entry.order;
}

static void put_at(struct pl_timeline *self, size_t place, struct pl_timer *timer)
{
    self->heap[place] = timer;
    timer->as.entry.place = place;
}

static void sift_up(struct pl_timeline *self, size_t place, struct pl_timer *timer)
{
    while (place > 1 && is_before(timer, self->heap[place / 2])) {
        put_at(self, place, self->heap[place / 2]);
        place /= 2;
    }
    put_at(self, place, timer);
}

static void sift_down(struct pl_timeline *self, size_t place, struct pl_timer *timer)
{
    for (;;) {
        size_t child = place * 2;
        if (child > self->count)
            break;
        if (child < self->count && is_before(self->heap[child + 1], self->heap[child]))
            child++;
        if (!is_before(self->heap[child], timer))
            break;
        put_at(self, place, self->heap[child]);
        place = child;
    }
    put_at(self, place, timer);
}

static void add(struct pl_timeline *self, struct pl_timer *timer)
{
    if (self->count + 1 >= self->cap) {
        self->cap = self->cap ? self->cap * 2 : 16;
        self->heap = pl_xrealloc(self->heap, self->cap * sizeof(struct pl_timer *));
    }
    timer->as.entry.order = self->armed_count++;
    sift_up(self, ++self->count, timer);
}

static void take_out(struct pl_timeline *self, struct pl_timer *timer)
{
    size_t place = timer->as.entry.place;
    struct pl_timer *last = self->heap[self->count--];
    timer->as.entry.place = 0;
    if (last == timer)
        return;
    if (place > 1 && is_before(last, self->heap[place / 2]))
        sift_up(self, place, last);
    else
        sift_down(self, place, last);
}

void pl_timeline_init(struct pl_timeline *self, uint64_t start_us)
{
    *self = (struct pl_timeline){.clock = {.now_us = start_us}};
}

void pl_timeline_deinit(struct pl_timeline *self)
{
    assert(self->count == 0);
    free(self->heap);
}

uint64_t pl_timeline_next_us(const struct pl_timeline *self)
{
    return self->count > 0 ? self->heap[1]->as.entry.due_us : UINT64_MAX;
}

void pl_timeline_step(struct pl_timeline *self)
{
    assert(self->count > 0);
    struct pl_timer *timer = self->heap[1];
    take_out(self, timer);
    self->clock.now_us = timer->as.entry.due_us;
    timer->on_due(timer->arg);
}

void pl_timeline_move_to(struct pl_timeline *self, uint64_t now_us)
{
    assert(now_us >= self->clock.now_us && now_us <= pl_timeline_next_us(self));
    self->clock.now_us = now_us;
}

/* ---- timers ---- */

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_timer *self = arg;
    self->on_due(self->arg);
}

void pl_timer_init(struct pl_timer *self, struct event_base *base, struct pl_timeline *timeline,
                   void (*on_due)(void *arg), void *arg)
{
    *self = (struct pl_timer){.timeline = timeline, .on_due = on_due, .arg = arg};
    if (!timeline)
        event_assign(&self->as.event, base, -1, 0, on_event, self);
}

void pl_timer_start_us(struct pl_timer *self, uint64_t duration_us)
{
    struct pl_timeline *timeline = self->timeline;
    if (timeline) {
        uint64_t now_us = timeline->clock.now_us;
        pl_timer_stop(self);
        self->as.entry.due_us =
            duration_us < UINT64_MAX - now_us ? now_us + duration_us : UINT64_MAX;
        add(timeline, self);
        return;
    }
    struct timeval tv = {(time_t)(duration_us / 1000000), (suseconds_t)(duration_us % 1000000)};
    event_add(&self->as.event, &tv);
}

void pl_timer_start_ms(struct pl_timer *self, uint64_t duration_ms)
{
    pl_timer_start_us(self, duration_ms * 1000);
}

void pl_timer_stop(struct pl_timer *self)
{
    if (!self->timeline)
        event_del(&self->as.event);
    else if (self->as.entry.place > 0)
        take_out(self->timeline, self);
}

void pl_timer_fire_soon(struct pl_timer *self)
{
    if (self->timeline)
        pl_timer_start_us(self, 0);
    else
        event_active(&self->as.event, EV_TIMEOUT, 0);
}
