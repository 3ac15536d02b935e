/*
 * Recent: the last requests that ended, as finished JSON texts, for operators who look at what just
 * happened. A ring per worker, so that keeping one costs a copy and an uncontended lock; numbers
 * run over all of them, so that a reader can ask for what is new since it last looked.
 *
 * Thread: pl_recent_add from the worker of that index, reading from any. Memory is bounded: so many
 * texts, each at most PL_RECENT_TEXT_MAX_BYTES, and PL_RECENT_BYTES_MAX for all workers together.
 */
#ifndef PL_RECENT_H
#define PL_RECENT_H

#include "base.h"

#define PL_RECENT_TEXT_MAX_BYTES (32 * 1024)
#define PL_RECENT_BYTES_MAX      (32 * 1024 * 1024)

struct pl_recent;

/** Keeps the last `count` of all workers, at least. `count` 0: nothing is kept. */
struct pl_recent *pl_recent_new(size_t worker_count, size_t count);
void pl_recent_free(struct pl_recent *self);

/** Keeps a copy; the oldest makes room. A text that is too long is left out. Never fails. */
void pl_recent_add(struct pl_recent *self, size_t worker_index, const char *json, size_t len);

/** The number of the last one that was added; 0: none was. */
uint64_t pl_recent_last(struct pl_recent *self);

/** One of them, by its number, from 1. */
struct pl_recent_item {
    uint64_t number;
    char *json; /* owned by the list */
    size_t len;
};

/** Copies those with numbers above `since`, the oldest first, at most the `limit` newest of them.
 *  `*last` gets the number to ask from the next time: none is shown twice or missed, but for those
 *  that were dropped meanwhile. */
struct pl_recent_item *pl_recent_read(struct pl_recent *self, uint64_t since, size_t limit,
                                      size_t *out_count, uint64_t *last);
void pl_recent_free_items(struct pl_recent_item *items, size_t count);

#endif
