/*
 * Pattern: Lua 5.1's string patterns over byte spans, as LuaJIT reads them, with a step counter.
 *
 * Thread: any. Owns nothing, allocates nothing: subject, pattern and counter are the caller's and
 * must stay while the matcher is used. Recursion is bounded by MATCH_DEPTH_MAX of pattern.c, time
 * by the counter: a pattern of a few bytes can otherwise take years.
 */
#ifndef PL_PATTERN_H
#define PL_PATTERN_H

#include "base.h"

#define PL_PATTERN_CAPTURES_MAX 32

/** What stands for the length of a capture that has none. */
enum {
    PL_PATTERN_OPEN = -1,     /* "(" without its ")" yet */
    PL_PATTERN_POSITION = -2, /* "()" */
};

/**
 * What may be spent. A step is about the work of comparing one byte. When `left_count` falls below
 * zero `look` is called: it refills the counter and returns true, or returns false to have the
 * match given up. It may also leave by longjmp. It is not called for less.
 */
struct pl_pattern_budget {
    int64_t left_count;
    bool (*look)(void *arg);
    void *arg;
};

struct pl_pattern {
    const char *subject;
    const char *subject_end;
    struct pl_pattern_budget *budget;
    const char *error; /* static text: why the last call gave up; NULL: it did not */
    int depth;
    int capture_count; /* after a match */
    struct {
        const char *start;
        ptrdiff_t len; /* or one of the above */
    } captures[PL_PATTERN_CAPTURES_MAX];
};

/** Whether a text has any character that means something in a pattern. */
bool pl_pattern_has_magic(struct pl_str text);

/** Prepares to match within `subject`. */
void pl_pattern_init(struct pl_pattern *self, struct pl_str subject,
                     struct pl_pattern_budget *budget);

/**
 * Matches `pattern` at `start` exactly and returns where the match ends. NULL when it does not
 * match, or with `error` set when the pattern is malformed, too complex or over the budget.
 * `pattern` ends with its first NUL, as everywhere in Lua 5.1 (%z stands for one); a leading ^ is
 * the caller's.
 */
const char *pl_pattern_match(struct pl_pattern *self, const char *start, const char *pattern);

/** The first match at `start` or after it: sets `*start` and returns its end, or NULL as above. */
const char *pl_pattern_search(struct pl_pattern *self, const char **start, const char *pattern);

/**
 * Where `needle` first occurs in the subject at `start` or after it, taken literally, or NULL as
 * above.
 */
const char *pl_pattern_find_plain(struct pl_pattern *self, const char *start, struct pl_str needle);

/** Takes steps from the budget for work done elsewhere; false, with `error` set, when it is over.
 */
bool pl_pattern_spend(struct pl_pattern *self, size_t step_count);

#endif
