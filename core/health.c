/*
 * Health: the block, its slots, and their concurrency. See health.h; what a slot is and does,
 * without concurrency, is in health_machine.c.
 *
 * Thread: any, except where health.h says main thread. Owns the block: a head and slots of fixed
 * size, no pointers, nothing allocated later. Calls nobody back.
 *
 * Every change is made to `m` under the slot's lock; what is asked for each candidate is copied
 * into mirrors before the lock is left, and read from them without it. Taking the lock costs some
 * ten nanoseconds and it is held for as long again; a path without it would not be worth its
 * proofs.
 *
 * All atomics are here:
 * - lock: taken with acquire, left with release, so `m` and the mirrors have one writer at a time.
 *   Who waits spins a little, then yields: the holder may not be running.
 * - fit_at_ms: state, time and probe are folded into this one word; nothing else is read because of
 *   it, and admit decides anew under the lock. Relaxed would do.
 * - ramp_end_ms, ramp_ms: the end is written last and read first, so whoever sees an end sees its
 *   length or that of a later slow start; with either the ratio is within its bounds.
 * - success_ewma, first_token_ewma: doubles as bits. Hints; any value that was once true will do.
 * - in_flight: admit adds under the lock, so that a limit is exact; leave takes off without it,
 *   with release, and giving a slot to another key looks with acquire: its attempts are done then.
 */
#include "health.h"

#include <assert.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "health_machine.h"

#define CACHE_LINE_BYTES 64
#define SPIN_MAX_COUNT   100
#define RAMP_START_RATIO 0.1

enum slot_use { USE_NEVER, USE_TAKEN, USE_RELEASED };

struct slot {
    /* Read for every candidate, written when the state changes. */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t fit_at_ms;
    _Atomic uint64_t ramp_end_ms;
    _Atomic uint64_t ramp_ms;
    /* Main thread only. */
    uint64_t key;
    enum slot_use use;
    uint32_t user_count; /* while USE_TAKEN: slot_for less release */
    /* Written by every attempt. */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t lock;
    _Atomic uint32_t in_flight;
    _Atomic uint64_t success_ewma;
    _Atomic uint64_t first_token_ewma;
    struct pl_health_machine m; /* under the lock */
};

struct pl_health {
    uint32_t capacity;
    uint32_t used_count; /* slots from here on are USE_NEVER; main thread only */
    struct slot slots[];
};

/* ---- mirrors ---- */

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t load(const _Atomic uint64_t *mirror)
{
    return atomic_load_explicit(mirror, memory_order_acquire);
}

/* Leaves the cache line alone when there is nothing new: others read it all the time. */
static void update(_Atomic uint64_t *mirror, uint64_t value)
{
    if (atomic_load_explicit(mirror, memory_order_relaxed) != value) {
        atomic_store_explicit(mirror, value, memory_order_release);
    }
}

/* ---- the lock ---- */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void lock(struct slot *slot)
{
    unsigned spin_count = 0;
    while (atomic_exchange_explicit(&slot->lock, 1, memory_order_acquire) != 0) {
        while (atomic_load_explicit(&slot->lock, memory_order_relaxed) != 0) {
            if (++spin_count < SPIN_MAX_COUNT) {
                relax();
            } else {
                sched_yield();
            }
        }
    }
}

/* Mirrors what has changed and leaves the lock. */
static void unlock(struct slot *slot)
{
    const struct pl_health_machine *m = &slot->m;
    update(&slot->fit_at_ms, pl_health_machine_fit_at_ms(m));
    update(&slot->ramp_ms, m->ramp_ms);
    update(&slot->ramp_end_ms, m->ramp_end_ms);
    update(&slot->success_ewma, bits_of(m->success_ewma_ratio));
    update(&slot->first_token_ewma, bits_of(m->first_token_ewma_ms));
    atomic_store_explicit(&slot->lock, 0, memory_order_release);
}

/* The slot, or NULL for PL_HEALTH_NO_SLOT. Not const: looking takes the lock too. */
static struct slot *find(const struct pl_health *self, pl_health_slot index)
{
    if (index == PL_HEALTH_NO_SLOT) {
        return NULL;
    }
    assert(index < self->capacity);
    return (struct slot *)&self->slots[index];
}

/* The same, with its lock taken. */
static struct slot *find_locked(const struct pl_health *self, pl_health_slot index)
{
    struct slot *slot = find(self, index);
    if (slot != NULL) {
        lock(slot);
    }
    return slot;
}

/* ---- the block and its slots ---- */

size_t pl_health_size_bytes(uint32_t capacity)
{
    return sizeof(struct pl_health) + (size_t)capacity * sizeof(struct slot);
}

struct pl_health *pl_health_new(uint32_t capacity)
{
    /* fresh pages: zero, aligned, and not there until they are touched */
    struct pl_health *self = mmap(NULL, pl_health_size_bytes(capacity), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (self == MAP_FAILED) {
        abort();
    }
    self->capacity = capacity;
    return self;
}

void pl_health_free(struct pl_health *self)
{
    if (self != NULL) {
        munmap(self, pl_health_size_bytes(self->capacity));
    }
}

uint32_t pl_health_capacity(const struct pl_health *self)
{
    return self->capacity;
}

uint64_t pl_health_key(struct pl_str name, struct pl_str url)
{
    /* FNV-1a. The zero between them cannot be in a name, so no two pairs join to the same bytes. */
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < name.len; i++) {
        hash = (hash ^ (unsigned char)name.data[i]) * 0x100000001b3u;
    }
    hash *= 0x100000001b3u;
    for (size_t i = 0; i < url.len; i++) {
        hash = (hash ^ (unsigned char)url.data[i]) * 0x100000001b3u;
    }
    return hash;
}

static pl_health_slot slot_with_key(const struct pl_health *self, uint64_t key)
{
    for (uint32_t i = 0; i < self->used_count; i++) {
        if (self->slots[i].key == key) {
            return i;
        }
    }
    return PL_HEALTH_NO_SLOT;
}

/* A slot for a new key. Released ones last, when no attempt is left in them: their own key may come
 * back for its state. */
static pl_health_slot free_slot(struct pl_health *self)
{
    if (self->used_count < self->capacity) {
        return self->used_count++;
    }
    for (uint32_t i = 0; i < self->capacity; i++) {
        const struct slot *slot = &self->slots[i];
        if (slot->use == USE_RELEASED &&
            atomic_load_explicit(&slot->in_flight, memory_order_acquire) == 0) {
            return i;
        }
    }
    return PL_HEALTH_NO_SLOT;
}

pl_health_slot pl_health_slot_for(struct pl_health *self, uint64_t key,
                                  const struct pl_health_rules *rules)
{
    pl_health_slot index = slot_with_key(self, key);
    bool is_new = index == PL_HEALTH_NO_SLOT;
    if (is_new) {
        index = free_slot(self);
    }
    struct slot *slot = find_locked(self, index);
    if (slot == NULL) {
        return PL_HEALTH_NO_SLOT;
    }
    if (is_new) {
        /* Reports that the key before held back stay late. */
        pl_health_machine_init(&slot->m, slot->m.epoch + 1);
    }
    if (slot->use != USE_TAKEN) {
        pl_health_machine_set_rules(&slot->m, rules);
        slot->user_count = 0;
    }
    unlock(slot);
    slot->key = key;
    slot->use = USE_TAKEN;
    slot->user_count++;
    return index;
}

void pl_health_set_rules(struct pl_health *self, pl_health_slot index,
                         const struct pl_health_rules *rules)
{
    struct slot *slot = find_locked(self, index);
    if (slot != NULL) {
        pl_health_machine_set_rules(&slot->m, rules);
        unlock(slot);
    }
}

void pl_health_release(struct pl_health *self, pl_health_slot index)
{
    struct slot *slot = find(self, index);
    if (slot != NULL && slot->use == USE_TAKEN && --slot->user_count == 0) {
        slot->use = USE_RELEASED;
    }
}

/* ---- asking ---- */

bool pl_health_is_fit(const struct pl_health *self, pl_health_slot index, uint64_t now_ms)
{
    const struct slot *slot = find(self, index);
    return slot == NULL || now_ms >= load(&slot->fit_at_ms);
}

double pl_health_ramp(const struct pl_health *self, pl_health_slot index, uint64_t now_ms)
{
    const struct slot *slot = find(self, index);
    uint64_t end_ms = slot == NULL ? 0 : load(&slot->ramp_end_ms);
    uint64_t length_ms = slot == NULL ? 0 : load(&slot->ramp_ms);
    if (now_ms >= end_ms || length_ms == 0) {
        return 1;
    }
    uint64_t left_ms = PL_MIN(end_ms - now_ms, length_ms);
    double done_ratio = (double)(length_ms - left_ms) / (double)length_ms;
    return RAMP_START_RATIO + (1 - RAMP_START_RATIO) * done_ratio;
}

uint32_t pl_health_in_flight(const struct pl_health *self, pl_health_slot index)
{
    const struct slot *slot = find(self, index);
    return slot == NULL ? 0 : atomic_load_explicit(&slot->in_flight, memory_order_relaxed);
}

double pl_health_success_ewma(const struct pl_health *self, pl_health_slot index)
{
    const struct slot *slot = find(self, index);
    return slot == NULL ? 1 : double_of(load(&slot->success_ewma));
}

double pl_health_first_token_ewma_ms(const struct pl_health *self, pl_health_slot index)
{
    const struct slot *slot = find(self, index);
    return slot == NULL ? 0 : double_of(load(&slot->first_token_ewma));
}

/* ---- one attempt ---- */

bool pl_health_admit(struct pl_health *self, pl_health_slot index, uint64_t now_ms, bool forced,
                     struct pl_health_ticket *ticket)
{
    return pl_health_admit_limited(self, index, now_ms, forced, 0, ticket);
}

/* Under the lock nothing is added meanwhile; that something leaves does not matter. */
static bool has_room(const struct slot *slot, uint32_t max_in_flight)
{
    return max_in_flight == 0 ||
           atomic_load_explicit(&slot->in_flight, memory_order_relaxed) < max_in_flight;
}

bool pl_health_admit_limited(struct pl_health *self, pl_health_slot index, uint64_t now_ms,
                             bool forced, uint32_t max_in_flight, struct pl_health_ticket *ticket)
{
    *ticket = (struct pl_health_ticket){.slot = index};
    struct slot *slot = find_locked(self, index);
    if (slot == NULL) {
        return true;
    }
    bool admitted =
        has_room(slot, max_in_flight) && pl_health_machine_admit(&slot->m, now_ms, forced, ticket);
    if (admitted) {
        atomic_fetch_add_explicit(&slot->in_flight, 1, memory_order_relaxed);
    }
    unlock(slot);
    return admitted;
}

enum pl_health_reason pl_health_report(struct pl_health *self,
                                       const struct pl_health_ticket *ticket,
                                       enum pl_outcome outcome, uint64_t now_ms, double random_unit)
{
    struct slot *slot = find_locked(self, ticket->slot);
    if (slot == NULL) {
        return PL_REASON_NONE;
    }
    enum pl_health_reason reason =
        pl_health_machine_report(&slot->m, ticket, outcome, now_ms, random_unit);
    unlock(slot);
    return reason;
}

enum pl_health_reason pl_health_report_late(struct pl_health *self, pl_health_slot index,
                                            enum pl_outcome outcome, uint64_t now_ms,
                                            double random_unit)
{
    struct slot *slot = find_locked(self, index);
    if (slot == NULL) {
        return PL_REASON_NONE;
    }
    enum pl_health_reason reason =
        pl_health_machine_report_late(&slot->m, outcome, now_ms, random_unit);
    unlock(slot);
    return reason;
}

void pl_health_leave(struct pl_health *self, const struct pl_health_ticket *ticket)
{
    struct slot *slot = find(self, ticket->slot);
    if (slot != NULL) {
        uint32_t before = atomic_fetch_sub_explicit(&slot->in_flight, 1, memory_order_release);
        assert(before > 0);
        (void)before;
    }
}

void pl_health_add_latency(struct pl_health *self, pl_health_slot index, uint32_t first_token_ms,
                           bool streams)
{
    struct slot *slot = find_locked(self, index);
    if (slot != NULL) {
        pl_health_machine_add_latency(&slot->m, first_token_ms, streams);
        unlock(slot);
    }
}

void pl_health_add_cut_wait(struct pl_health *self, pl_health_slot index, uint32_t waited_ms,
                            bool streams)
{
    struct slot *slot = find_locked(self, index);
    if (slot != NULL) {
        pl_tail_add(&slot->m.waits[streams], waited_ms);
        unlock(slot);
    }
}

double pl_health_wait_quantile_ms(struct pl_health *self, pl_health_slot index, double ratio,
                                  bool streams)
{
    struct slot *slot = find_locked(self, index);
    double wait_ms = 0;
    if (slot != NULL) {
        wait_ms = pl_tail_quantile_ms(&slot->m.waits[streams], ratio, PL_HEALTH_WAITS_MIN_COUNT);
        unlock(slot);
    }
    return wait_ms;
}

/* ---- by decree ---- */

void pl_health_eject(struct pl_health *self, pl_health_slot index, enum pl_health_reason reason,
                     uint64_t duration_ms, uint64_t now_ms)
{
    struct slot *slot = find_locked(self, index);
    if (slot != NULL) {
        pl_health_machine_eject(&slot->m, reason, duration_ms, now_ms);
        unlock(slot);
    }
}

void pl_health_restore(struct pl_health *self, pl_health_slot index, uint64_t now_ms)
{
    struct slot *slot = find_locked(self, index);
    if (slot != NULL) {
        pl_health_machine_restore(&slot->m, now_ms);
        unlock(slot);
    }
}

void pl_health_check_result(struct pl_health *self, pl_health_slot index, bool good,
                            uint32_t unhealthy_after, uint32_t healthy_after, bool readmits_passive,
                            uint64_t now_ms)
{
    struct slot *slot = find_locked(self, index);
    if (slot != NULL) {
        pl_health_machine_check_result(&slot->m, good, unhealthy_after, healthy_after,
                                       readmits_passive, now_ms);
        unlock(slot);
    }
}

/* ---- to look at ---- */

void pl_health_look(const struct pl_health *self, pl_health_slot index, uint64_t now_ms,
                    struct pl_health_view *out)
{
    struct slot *slot = find_locked(self, index);
    if (slot == NULL) {
        *out = (struct pl_health_view){.success_ewma_ratio = 1, .ramp_ratio = 1};
        return;
    }
    pl_health_machine_look(&slot->m, now_ms, out);
    out->in_flight = pl_health_in_flight(self, index);
    out->ramp_ratio = pl_health_ramp(self, index, now_ms);
    unlock(slot);
}

const char *pl_health_state_name(enum pl_health_state state)
{
    static const char *const names[] = {"closed", "open", "half_open"};
    return names[state];
}

const char *pl_health_reason_name(enum pl_health_reason reason)
{
    static const char *const names[] = {
        [PL_REASON_NONE] = "none",
        [PL_REASON_CONSECUTIVE_5XX] = "consecutive_5xx",
        [PL_REASON_CONSECUTIVE_GATEWAY] = "consecutive_gateway",
        [PL_REASON_CONSECUTIVE_CONNECTION] = "consecutive_connection",
        [PL_REASON_FAILURE_RATIO] = "failure_ratio",
        [PL_REASON_SUCCESS_EWMA] = "success_ewma",
        [PL_REASON_RETRY_AFTER] = "retry_after",
        [PL_REASON_UNHEALTHY] = "unhealthy",
        [PL_REASON_AUTH] = "auth",
        [PL_REASON_ACTIVE_CHECK] = "active_check",
        [PL_REASON_POLICY] = "policy",
        [PL_REASON_OPERATOR] = "operator",
        [PL_REASON_DRAINED] = "drained",
        [PL_REASON_PROBE_FAILED] = "probe_failed",
    };
    return names[reason];
}
