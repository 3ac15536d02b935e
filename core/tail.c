/*
 * Tail: see tail.h. Bucket n below 8 is n ms; from there on eight buckets to each power of two. The
 * last one takes all that is longer than two minutes or so.
 */
#include "tail.h"

#define PARTS 8 /* of each doubling */

/* The highest bit of a number that is not 0. */
static unsigned highest_bit(uint32_t number)
{
    return 31u - (unsigned)__builtin_clz(number);
}

static size_t bucket_of(uint32_t duration_ms)
{
    if (duration_ms < PARTS)
        return duration_ms;
    unsigned bit = highest_bit(duration_ms); /* 3 or more */
    size_t bucket = (size_t)(bit - 2) * PARTS + ((duration_ms >> (bit - 3)) & (PARTS - 1));
    return PL_MIN(bucket, (size_t)PL_TAIL_BUCKETS - 1);
}

/* The least duration of a bucket. */
static double start_ms_of(size_t bucket)
{
    if (bucket < PARTS)
        return (double)bucket;
    return (double)((uint64_t)(PARTS + bucket % PARTS) << (bucket / PARTS - 1));
}

static void halve(struct pl_tail *self)
{
    self->sum_count = 0;
    for (size_t i = 0; i < PL_TAIL_BUCKETS; i++) {
        self->counts[i] = (uint16_t)((self->counts[i] + 1) / 2); /* a rare one is not lost */
        self->sum_count = (uint16_t)(self->sum_count + self->counts[i]);
    }
}

void pl_tail_add(struct pl_tail *self, uint32_t duration_ms)
{
    if (self->sum_count >= PL_TAIL_MAX_COUNT)
        halve(self);
    self->counts[bucket_of(duration_ms)]++;
    self->sum_count++;
}

double pl_tail_quantile_ms(const struct pl_tail *self, double ratio, uint32_t min_count)
{
    double rank = ratio * self->sum_count, below = 0;
    if (self->sum_count == 0 || self->sum_count < min_count)
        return 0;
    size_t bucket = 0, last = 0;
    for (; bucket < PL_TAIL_BUCKETS; bucket++) {
        if (self->counts[bucket] == 0)
            continue;
        last = bucket;
        if (below + self->counts[bucket] >= rank)
            break;
        below += self->counts[bucket];
    }
    double start_ms = start_ms_of(last), width_ms = start_ms_of(last + 1) - start_ms;
    return start_ms + width_ms * PL_MIN((rank - below) / self->counts[last], 1.0);
}
