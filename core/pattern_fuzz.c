/*
 * Fuzz target of pattern.c. The input is a pattern, its end (a NUL), then the subject.
 *
 * What is held: nothing is read outside the two texts; a match and its captures lie within the
 * subject; the search finds what matching at each place finds; a budget that ends anywhere ends the
 * match, and one that is refilled changes nothing; what is plain is found where memmem finds it.
 */
#include "pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 200000

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct purse {
    int64_t refill_count; /* steps per look */
    int64_t looks_left_count;
};

static bool look(void *arg);

static struct purse purse;
static struct pl_pattern_budget budget = {.look = look};

static bool look(void *arg)
{
    (void)arg;
    budget.left_count = purse.refill_count;
    return purse.looks_left_count-- > 0;
}

static void fill(int64_t refill_count, int64_t look_count)
{
    purse = (struct purse){refill_count, look_count};
    budget.left_count = refill_count;
}

/** Memory of its own, of just that size, so that the sanitizer sees every byte read beyond. */
static char *copy_of(const void *data, size_t len)
{
    char *copy = malloc(len ? len : 1);
    REQUIRE(copy != NULL);
    if (len)
        memcpy(copy, data, len);
    return copy;
}

static void require_within(const struct pl_pattern *match, const char *start, const char *end)
{
    REQUIRE(match->subject <= start && start <= end && end <= match->subject_end);
    REQUIRE(match->capture_count >= 0 && match->capture_count <= PL_PATTERN_CAPTURES_MAX);
    for (int i = 0; i < match->capture_count; i++) {
        const char *at = match->captures[i].start;
        ptrdiff_t len = match->captures[i].len;
        REQUIRE(at >= start && at <= end && len >= PL_PATTERN_POSITION);
        REQUIRE(len < 0 || len <= end - at);
    }
}

struct outcome {
    const char *start;
    const char *end;
    const char *error;
    struct pl_pattern match;
};

static struct outcome search(struct pl_str subject, const char *pattern)
{
    struct outcome out = {.start = subject.data};
    pl_pattern_init(&out.match, subject, &budget);
    out.end = pl_pattern_search(&out.match, &out.start, pattern);
    out.error = out.match.error;
    REQUIRE(out.end == NULL || out.error == NULL);
    if (out.end)
        require_within(&out.match, out.start, out.end);
    return out;
}

static void require_same(const struct outcome *a, const struct outcome *b)
{
    REQUIRE(a->end == b->end && a->error == b->error);
    REQUIRE(!a->end || a->start == b->start);
    for (int i = 0; a->end && i < a->match.capture_count; i++) {
        REQUIRE(a->match.captures[i].start == b->match.captures[i].start);
        REQUIRE(a->match.captures[i].len == b->match.captures[i].len);
    }
}

/** The search skips places; matching at each of them must not find more. */
static struct outcome search_slowly(struct pl_str subject, const char *pattern)
{
    struct outcome out = {.start = subject.data};
    pl_pattern_init(&out.match, subject, &budget);
    for (;; out.start++) {
        out.end = pl_pattern_match(&out.match, out.start, pattern);
        out.error = out.match.error;
        if (out.end || out.error || out.start == out.match.subject_end)
            return out;
    }
}

static void check_pattern(struct pl_str subject, const char *pattern, int64_t few_count)
{
    fill(STEPS_MAX, 0);
    struct outcome whole = search(subject, pattern);
    bool is_over = purse.looks_left_count < 0;
    fill(few_count, 3);
    struct outcome cut = search(subject, pattern);
    REQUIRE(purse.looks_left_count >= 0 || cut.end == NULL);
    if (is_over)
        return;
    fill(few_count, INT64_MAX);
    struct outcome refilled = search(subject, pattern);
    require_same(&whole, &refilled);
    fill(STEPS_MAX, INT64_MAX);
    struct outcome slow = search_slowly(subject, pattern);
    require_same(&whole, &slow);
}

static void check_plain(struct pl_str subject, struct pl_str needle)
{
    struct pl_pattern match;
    fill(STEPS_MAX, INT64_MAX);
    pl_pattern_init(&match, subject, &budget);
    REQUIRE(pl_pattern_find_plain(&match, subject.data, needle) ==
            memmem(subject.data, subject.len, needle.data, needle.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const uint8_t *zero = memchr(data, 0, len);
    if (!zero)
        return 0;
    size_t pattern_len = (size_t)(zero - data);
    size_t subject_len = len - pattern_len - 1;
    char *pattern = copy_of(data, pattern_len + 1);
    char *copy = copy_of(zero + 1, subject_len);
    struct pl_str subject = {copy, subject_len};
    check_pattern(subject, pattern, (int64_t)(len * 7 % 100));
    check_plain(subject, (struct pl_str){pattern, pattern_len});
    if (pattern_len > 0 && subject_len > pattern_len) /* one that is there */
        check_plain(subject, (struct pl_str){copy + subject_len - pattern_len, pattern_len});
    free(copy);
    free(pattern);
    return 0;
}
