/*
 * What the fake upstream counts, in a file that it maps and the sampling tool reads.
 *
 * One writer (the upstream's only thread), any number of readers. Relaxed atomics: each number is
 * looked at on its own, and a reader that is one request late does not matter.
 */
#ifndef BENCH_COUNTERS_H
#define BENCH_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

enum listener {
    LISTENER_OK_A,
    LISTENER_OK_B,
    LISTENER_503_A,
    LISTENER_503_B,
    LISTENER_429,
    LISTENER_COLLECTOR,
    LISTENER_COUNT
};

struct counters {
    _Atomic uint64_t requests[LISTENER_COUNT];
    _Atomic uint64_t rewritten;   /* requests that name the model the gateways rewrite to */
    _Atomic uint64_t events;      /* SSE events handed to a socket, [DONE] among them */
    _Atomic uint64_t connections; /* accepted */
    _Atomic uint64_t refused;     /* requests that the upstream could not read */
};

static inline void counter_add(_Atomic uint64_t *counter, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

static inline uint64_t counter_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
