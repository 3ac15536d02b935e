/*
 * Fuzz target of guard.c: whatever the bytes are and however they are cut, the same messages must
 * be found, with the same sizes, and the same one refused for the same reason.
 *
 * An input is what a client sends; it is judged under generous and under narrow limits, and seeds
 * the cuts itself. Pieces are copied into memory of their own, so that the sanitizer sees every
 * byte read beyond them.
 */
#include "guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define ALL_AT_ONCE 0

struct outcome {
    enum pl_guard_verdict verdict;
    int status;
    size_t used_bytes, field_count;
    uint64_t body_bytes;
    enum pl_guard_phase phase;
    bool expects_continue;
    char reason[128];
};

static enum pl_guard_verdict feed_copy(struct pl_guard *guard, const uint8_t *data, size_t len,
                                       size_t *used_bytes)
{
    char *copy = malloc(len);
    enum pl_guard_verdict verdict = PL_GUARD_MORE;
    REQUIRE(copy != NULL);
    memcpy(copy, data, len);
    for (size_t at = 0; verdict == PL_GUARD_MORE && at < len;) {
        size_t taken = SIZE_MAX;
        struct pl_str body = {NULL, SIZE_MAX};
        uint64_t body_bytes = guard->body_bytes;
        verdict = pl_guard_feed(guard, copy + at, len - at, &taken, &body);
        REQUIRE(taken <= len - at);
        REQUIRE(verdict != PL_GUARD_MORE || taken > 0);
        REQUIRE(body.len <= taken && body.len == guard->body_bytes - body_bytes);
        at += taken;
        *used_bytes += taken;
    }
    free(copy);
    return verdict;
}

/* One message, in pieces of up to `max_piece_bytes` whose sizes follow from `seed`. */
static struct outcome scan(const struct pl_guard_limits *limits, const uint8_t *data, size_t len,
                           size_t max_piece_bytes, uint32_t seed)
{
    struct pl_guard guard;
    struct pl_headers fields;
    struct outcome outcome = {.verdict = PL_GUARD_MORE};
    pl_headers_init(&fields);
    pl_guard_init(&guard, limits);
    pl_guard_reset(&guard, &fields);
    for (size_t at = 0; at < len && outcome.verdict == PL_GUARD_MORE;) {
        seed = seed * 1664525u + 1013904223u;
        size_t want = max_piece_bytes == ALL_AT_ONCE ? len : 1 + (seed >> 8) % max_piece_bytes;
        size_t piece_bytes = PL_MIN(want, len - at);
        outcome.verdict = feed_copy(&guard, data + at, piece_bytes, &outcome.used_bytes);
        at += piece_bytes;
    }
    for (size_t i = 0; i < fields.count; i++) {
        REQUIRE(fields.items[i].name_len > 0);
        REQUIRE(fields.items[i].value_offset + fields.items[i].value_len + 2 <= len);
    }
    outcome.field_count = fields.count;
    pl_headers_deinit(&fields);
    outcome.status = guard.status;
    outcome.body_bytes = guard.body_bytes;
    outcome.phase = guard.phase;
    outcome.expects_continue = guard.expects_continue;
    if (outcome.verdict == PL_GUARD_REFUSED) {
        REQUIRE(guard.reason != NULL && strlen(guard.reason) < sizeof(outcome.reason));
        strcpy(outcome.reason, guard.reason);
    }
    return outcome;
}

static void require_same(const struct outcome *a, const struct outcome *b)
{
    REQUIRE(a->verdict == b->verdict);
    REQUIRE(a->status == b->status);
    REQUIRE(a->used_bytes == b->used_bytes);
    REQUIRE(a->field_count == b->field_count);
    REQUIRE(a->body_bytes == b->body_bytes);
    REQUIRE(a->phase == b->phase);
    REQUIRE(a->expects_continue == b->expects_continue);
    REQUIRE(strcmp(a->reason, b->reason) == 0);
}

static void check(const struct pl_guard_limits *limits, const uint8_t *data, size_t len)
{
    uint32_t seed = (uint32_t)len;
    for (size_t i = 0; i < len; i++) {
        seed = seed * 31 + data[i];
    }
    for (size_t at = 0; at < len;) {
        struct outcome whole = scan(limits, data + at, len - at, ALL_AT_ONCE, 0);
        struct outcome bytes = scan(limits, data + at, len - at, 1, 0);
        struct outcome pieces = scan(limits, data + at, len - at, 2 + seed % 40, seed);
        require_same(&whole, &bytes);
        require_same(&whole, &pieces);
        REQUIRE(whole.body_bytes <= limits->body_bytes);
        if (whole.verdict != PL_GUARD_DONE) {
            break;
        }
        REQUIRE(whole.used_bytes > 0);
        at += whole.used_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pl_guard_limits GENEROUS = {8192, 65536, 100, 1 << 20};
    static const struct pl_guard_limits NARROW = {24, 60, 2, 9};
    check(&GENEROUS, data, size);
    check(&NARROW, data, size);
    return 0;
}
