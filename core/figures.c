/*
 * Figures: see figures.h.
 *
 * All atomics are here. Each is written by every worker, by adding, and read by the main thread.
 * Adding is done with release order in the order of a request's life (begun, first token, result,
 * policy fault), reading with acquire order the other way round: whoever sees a count of a later
 * step sees the earlier steps of the same requests. An addition by another worker in between does
 * not break that, for read-modify-writes continue a release sequence (C11 5.1.2.4).
 *
 * How many have ended is not a count of its own but the sum of the results, so the two cannot
 * disagree. Three additions a request cost less than the system calls of one by far; a block per
 * worker would not be worth its summing.
 */
#include "figures.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#define RESULT_COUNT (PL_RESULT_CLIENT_GONE + 1)
/* Below 2 x 8 ms a bucket is 1 ms wide; from there on each octave has 8. */
#define OCTAVE_BITS 3

struct pl_figures {
    _Atomic uint64_t begun;
    _Atomic uint64_t ttft[PL_FIGURES_TTFT_BUCKETS];
    _Atomic uint64_t results[RESULT_COUNT];
    _Atomic uint64_t floor;
    _Atomic uint64_t policy_faults[PL_POLICY_FAULT_COUNT];
};

struct pl_figures *pl_figures_new(void)
{
    return pl_xcalloc(1, sizeof(struct pl_figures));
}

void pl_figures_free(struct pl_figures *self)
{
    free(self);
}

static void add_one(_Atomic uint64_t *count)
{
    atomic_fetch_add_explicit(count, 1, memory_order_release);
}

static uint64_t load(const _Atomic uint64_t *count)
{
    return atomic_load_explicit(count, memory_order_acquire);
}

/* ---- buckets ---- */

size_t pl_figures_ttft_bucket(uint64_t ttft_ms)
{
    uint64_t value = PL_MIN(ttft_ms, PL_FIGURES_TTFT_MAX_MS);
    if (value < 1u << OCTAVE_BITS) {
        return (size_t)value;
    }
    /* The leading one and the three bits after it; what is below them is the place within. */
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - OCTAVE_BITS;
    return ((size_t)shift << OCTAVE_BITS) + (size_t)(value >> shift);
}

double pl_figures_ttft_middle_ms(size_t bucket)
{
    assert(bucket < PL_FIGURES_TTFT_BUCKETS);
    if (bucket == PL_FIGURES_TTFT_BUCKETS - 1) {
        return PL_FIGURES_TTFT_MAX_MS;
    }
    size_t octave = bucket >> OCTAVE_BITS;
    unsigned shift = octave == 0 ? 0 : (unsigned)octave - 1;
    uint64_t lowest_ms = (uint64_t)(bucket - ((size_t)shift << OCTAVE_BITS)) << shift;
    uint64_t width_ms = (uint64_t)1 << shift;
    return (double)lowest_ms + (double)(width_ms - 1) / 2;
}

/* ---- a request ---- */

enum pl_request_result pl_figures_result_of(const struct pl_request_end *end)
{
    if (end->client_gone) {
        return PL_RESULT_CLIENT_GONE;
    }
    if (end->broken || end->status <= 0 || end->status >= 500) {
        return PL_RESULT_FAILURE;
    }
    return end->status >= 400 ? PL_RESULT_CLIENT_FAULT : PL_RESULT_SUCCESS;
}

void pl_figures_begin(struct pl_figures *self)
{
    add_one(&self->begun);
}

void pl_figures_first_token(struct pl_figures *self, uint64_t ttft_ms)
{
    add_one(&self->ttft[pl_figures_ttft_bucket(ttft_ms)]);
}

void pl_figures_end(struct pl_figures *self, const struct pl_request_end *end)
{
    add_one(&self->results[pl_figures_result_of(end)]);
    if (end->floor) {
        add_one(&self->floor);
    }
    if (end->policy_fault != PL_POLICY_FAULT_NONE) {
        assert(end->policy_fault < PL_POLICY_FAULT_COUNT);
        add_one(&self->policy_faults[end->policy_fault]);
    }
}

/* ---- reading ---- */

static void load_all(const _Atomic uint64_t *counts, size_t count, uint64_t *out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = load(&counts[i]);
    }
}

void pl_figures_read(const struct pl_figures *self, struct pl_figures_view *out)
{
    uint64_t results[RESULT_COUNT];
    load_all(self->policy_faults, PL_POLICY_FAULT_COUNT, out->policy_fault_counts);
    out->floor_count = load(&self->floor);
    load_all(self->results, RESULT_COUNT, results);
    load_all(self->ttft, PL_FIGURES_TTFT_BUCKETS, out->ttft_counts);
    out->begun_count = load(&self->begun);
    out->success_count = results[PL_RESULT_SUCCESS];
    out->failure_count = results[PL_RESULT_FAILURE];
    out->client_fault_count = results[PL_RESULT_CLIENT_FAULT];
    out->client_gone_count = results[PL_RESULT_CLIENT_GONE];
    out->in_flight_count = out->begun_count - pl_figures_ended_count(out);
}

void pl_figures_since(const struct pl_figures_view *now, const struct pl_figures_view *then,
                      struct pl_figures_view *out)
{
    struct pl_figures_view since = *now;
    since.begun_count -= then->begun_count;
    since.success_count -= then->success_count;
    since.failure_count -= then->failure_count;
    since.client_fault_count -= then->client_fault_count;
    since.client_gone_count -= then->client_gone_count;
    since.floor_count -= then->floor_count;
    for (size_t i = 0; i < PL_POLICY_FAULT_COUNT; i++) {
        since.policy_fault_counts[i] -= then->policy_fault_counts[i];
    }
    for (size_t i = 0; i < PL_FIGURES_TTFT_BUCKETS; i++) {
        since.ttft_counts[i] -= then->ttft_counts[i];
    }
    *out = since;
}

static uint64_t sum(const uint64_t *counts, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += counts[i];
    }
    return total;
}

uint64_t pl_figures_ended_count(const struct pl_figures_view *view)
{
    return view->success_count + view->failure_count + view->client_fault_count +
           view->client_gone_count;
}

uint64_t pl_figures_policy_fault_count(const struct pl_figures_view *view)
{
    return sum(view->policy_fault_counts, PL_POLICY_FAULT_COUNT);
}

uint64_t pl_figures_ttft_count(const struct pl_figures_view *view)
{
    return sum(view->ttft_counts, PL_FIGURES_TTFT_BUCKETS);
}

double pl_figures_ttft_ms(const struct pl_figures_view *view, double quantile)
{
    uint64_t count = pl_figures_ttft_count(view);
    if (count == 0) {
        return 0;
    }
    double rank = PL_MAX(ceil(quantile * (double)count), 1);
    uint64_t below = 0;
    size_t bucket = 0;
    while (bucket < PL_FIGURES_TTFT_BUCKETS - 1) {
        below += view->ttft_counts[bucket];
        if ((double)below >= rank) {
            break;
        }
        bucket++;
    }
    return pl_figures_ttft_middle_ms(bucket);
}

const char *pl_policy_fault_name(enum pl_policy_fault fault)
{
    static const char *const names[PL_POLICY_FAULT_COUNT] = {
        [PL_POLICY_FAULT_NONE] = "none",           [PL_POLICY_FAULT_ERROR] = "error",
        [PL_POLICY_FAULT_CPU_BURST] = "cpu_burst", [PL_POLICY_FAULT_CPU_TOTAL] = "cpu_total",
        [PL_POLICY_FAULT_MEMORY] = "memory",       [PL_POLICY_FAULT_NO_ANSWER] = "no_answer",
    };
    return names[fault];
}
