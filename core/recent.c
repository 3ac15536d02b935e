/*
 * Recent: see recent.h.
 *
 * Atomics: `last` is counted up by the workers, each within the lock of its own ring. A reader
 * takes it first and the rings' locks afterwards: whatever has a number up to the one that it read
 * was numbered within a lock that was taken before, so it is in its ring by the time the reader
 * looks there. What has a higher one is for the next time.
 */
#include "recent.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A place keeps its memory for the next text. */
struct place {
    uint64_t number; /* 0: empty */
    char *json;
    size_t len, cap;
};

struct ring {
    pthread_mutex_t lock;
    struct place *places;
    size_t next;  /* the place to be used next */
    size_t count; /* of those before it that hold a text */
    size_t cap_bytes;
};

struct pl_recent {
    struct ring *rings;
    size_t ring_count, place_count;
    size_t ring_bytes_max;
    _Atomic uint64_t last;
};

struct pl_recent *pl_recent_new(size_t worker_count, size_t count)
{
    struct pl_recent *self = pl_xcalloc(1, sizeof(*self));
    self->rings = pl_xcalloc(worker_count + 1, sizeof(*self->rings));
    self->ring_count = worker_count;
    self->place_count = count;
    self->ring_bytes_max =
        PL_MAX(PL_RECENT_BYTES_MAX / PL_MAX(worker_count, 1), PL_RECENT_TEXT_MAX_BYTES);
    for (size_t i = 0; i < worker_count; i++) {
        pthread_mutex_init(&self->rings[i].lock, NULL);
        self->rings[i].places = pl_xcalloc(count + 1, sizeof(struct place));
    }
    return self;
}

void pl_recent_free(struct pl_recent *self)
{
    if (!self)
        return;
    for (size_t i = 0; i < self->ring_count; i++) {
        for (size_t j = 0; j < self->place_count; j++)
            free(self->rings[i].places[j].json);
        free(self->rings[i].places);
        pthread_mutex_destroy(&self->rings[i].lock);
    }
    free(self->rings);
    free(self);
}

static void release(struct ring *ring, struct place *place)
{
    ring->cap_bytes -= place->cap;
    free(place->json);
    *place = (struct place){0};
}

static void drop_oldest(struct pl_recent *self, struct ring *ring)
{
    size_t oldest = (ring->next + self->place_count - ring->count) % self->place_count;
    release(ring, &ring->places[oldest]);
    ring->count--;
}

/* The place for the next text, with room for `len` bytes: the oldest texts go when there are too
 * many, or too many bytes. */
static struct place *take_place(struct pl_recent *self, struct ring *ring, size_t len)
{
    struct place *place = &ring->places[ring->next];
    bool fits = place->cap >= len && (place->cap <= 4096 || place->cap / 4 <= len);
    if (fits && ring->count == self->place_count) {
        ring->count--;
        return place;
    }
    if (ring->count == self->place_count)
        drop_oldest(self, ring);
    while (ring->count > 0 && ring->cap_bytes + len > self->ring_bytes_max)
        drop_oldest(self, ring);
    place->json = pl_xrealloc(NULL, len);
    place->cap = len;
    ring->cap_bytes += len;
    return place;
}

void pl_recent_add(struct pl_recent *self, size_t worker_index, const char *json, size_t len)
{
    if (len == 0 || len > PL_RECENT_TEXT_MAX_BYTES || self->place_count == 0)
        return;
    struct ring *ring = &self->rings[worker_index];
    pthread_mutex_lock(&ring->lock);
    struct place *place = take_place(self, ring, len);
    memcpy(place->json, json, len);
    place->len = len;
    place->number = atomic_fetch_add_explicit(&self->last, 1, memory_order_relaxed) + 1;
    ring->next = (ring->next + 1) % self->place_count;
    ring->count++;
    pthread_mutex_unlock(&ring->lock);
}

uint64_t pl_recent_last(struct pl_recent *self)
{
    return atomic_load_explicit(&self->last, memory_order_relaxed);
}

/* ---- reading ---- */

static int by_number(const void *a, const void *b)
{
    uint64_t left = ((const struct pl_recent_item *)a)->number;
    uint64_t right = ((const struct pl_recent_item *)b)->number;
    return left < right ? -1 : left > right;
}

/* Appends a ring's numbers within (since, last]; the texts come later, when it is known which. */
static size_t list_ring(struct pl_recent *self, struct ring *ring, uint64_t since, uint64_t last,
                        struct pl_recent_item *items)
{
    size_t count = 0;
    pthread_mutex_lock(&ring->lock);
    for (size_t i = 0; i < self->place_count; i++) {
        uint64_t number = ring->places[i].number;
        if (number > since && number <= last)
            items[count++] = (struct pl_recent_item){.number = number};
    }
    pthread_mutex_unlock(&ring->lock);
    return count;
}

static struct pl_recent_item *find(struct pl_recent_item *items, size_t count, uint64_t number)
{
    struct pl_recent_item key = {.number = number};
    return number ? bsearch(&key, items, count, sizeof(*items), by_number) : NULL;
}

static void copy_ring(struct pl_recent *self, struct ring *ring, struct pl_recent_item *items,
                      size_t count)
{
    pthread_mutex_lock(&ring->lock);
    for (size_t i = 0; i < self->place_count; i++) {
        const struct place *place = &ring->places[i];
        struct pl_recent_item *item = find(items, count, place->number);
        if (!item)
            continue;
        item->json = pl_xstrndup(place->json, place->len);
        item->len = place->len;
    }
    pthread_mutex_unlock(&ring->lock);
}

/* Those that were dropped between the two looks have no text. */
static size_t drop_empty(struct pl_recent_item *items, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i].json)
            items[kept++] = items[i];
    }
    return kept;
}

struct pl_recent_item *pl_recent_read(struct pl_recent *self, uint64_t since, size_t limit,
                                      size_t *out_count, uint64_t *last)
{
    size_t count = 0;
    struct pl_recent_item *items =
        pl_xcalloc(self->ring_count * self->place_count + 1, sizeof(*items));
    *last = pl_recent_last(self);
    for (size_t i = 0; i<self->ring_count && * last> since; i++)
        count += list_ring(self, &self->rings[i], since, *last, items + count);
    qsort(items, count, sizeof(*items), by_number);
    if (count > limit) {
        memmove(items, items + (count - limit), limit * sizeof(*items));
        count = limit;
    }
    for (size_t i = 0; i < self->ring_count && count > 0; i++)
        copy_ring(self, &self->rings[i], items, count);
    *out_count = drop_empty(items, count);
    return items;
}

void pl_recent_free_items(struct pl_recent_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(items[i].json);
    free(items);
}
