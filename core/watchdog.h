/*
 * Watchdog: notices a worker that does not come back from a policy. The hooks of a VM stop whatever
 * runs in Lua; a single call into C that takes very long is out of their reach. Such a worker is
 * reported, once per stall, and left alone: nothing is killed.
 *
 * Thread: a watch is written by its worker alone, read by the main thread; everything else is the
 * main thread's. What a worker writes costs a few plain stores per resume and no look at a clock:
 * time is told by the reader, which sees whether anything has moved since it looked last.
 */
#ifndef PL_WATCHDOG_H
#define PL_WATCHDOG_H

#include "base.h"
#include <stdatomic.h>

#define PL_WATCH_ID_WORDS 16 /* of 8 bytes; longer ids are cut */

/** What a worker shows of itself. All zero to begin with. */
struct pl_watch {
    _Atomic uint64_t step; /* odd while inside a policy; grows with each way in and out */
    _Atomic uint64_t id[PL_WATCH_ID_WORDS];
};

/** Before a policy is resumed, and after that. `id`: the request's. */
void pl_watch_enter(struct pl_watch *self, const char *id);
void pl_watch_leave(struct pl_watch *self);

struct pl_watchdog;

/** Reports what stays inside for `limit_ms` or longer, as far as looks can tell. */
struct pl_watchdog *pl_watchdog_new(uint32_t limit_ms);
void pl_watchdog_free(struct pl_watchdog *self);
void pl_watchdog_set_limit(struct pl_watchdog *self, uint32_t limit_ms);
/** Borrows the watch until the watchdog is freed. Its worker has the number of watches before it.
 */
void pl_watchdog_add(struct pl_watchdog *self, const struct pl_watch *watch);
/** Looks at all of them, and logs those that have stalled since, and those that go on again. */
void pl_watchdog_look(struct pl_watchdog *self, uint64_t now_ms);
/** Stalls reported so far, and workers that are in one at the last look. */
uint64_t pl_watchdog_stall_count(const struct pl_watchdog *self);
size_t pl_watchdog_stalled_now(const struct pl_watchdog *self);

#endif
