/*
 * Pattern: see pattern.h.
 *
 * A pattern is a row of items; each matches one byte (a letter, a class, a set), and the repetition
 * behind it says how often. What can be decided without trying is a loop in match_items; only what
 * may have to be taken back (captures, repetitions) recurses, and no deeper than LuaJIT lets it.
 *
 * Steps are counted where a loop's length is the caller's to choose: items, repeated bytes, the
 * bytes of a set (each test reads them), places to start from.
 */
#include "pattern.h"

#define MATCH_DEPTH_MAX  200 /* LuaJIT's: what it refuses as too complex, we refuse */
#define PLAIN_PART_BYTES (64 * 1024)
#define MEMCHR_TRIES     16
#define BYTES_PER_STEP   16 /* where memcmp and the like do the work */

enum {
    ALPHA = 1,
    CONTROL = 2,
    DIGIT = 4,
    LOWER = 8,
    PUNCT = 16,
    SPACE = 32,
    UPPER = 64,
    HEX = 128,
};

/* Of ASCII alone: like LuaJIT, and unlike libc, no locale is asked. */
static const uint8_t kinds[256] = {
    [0 ... 8] = CONTROL,
    [9 ... 13] = CONTROL | SPACE,
    [14 ... 31] = CONTROL,
    [' '] = SPACE,
    ['!' ... '/'] = PUNCT,
    ['0' ... '9'] = DIGIT | HEX,
    [':' ... '@'] = PUNCT,
    ['A' ... 'F'] = ALPHA | UPPER | HEX,
    ['G' ... 'Z'] = ALPHA | UPPER,
    ['[' ... '`'] = PUNCT,
    ['a' ... 'f'] = ALPHA | LOWER | HEX,
    ['g' ... 'z'] = ALPHA | LOWER,
    ['{' ... '~'] = PUNCT,
    [127] = CONTROL,
};

/* What %a, %c, ... stand for, by letter. */
static const uint8_t class_kinds[256] = {
    ['a'] = ALPHA, ['c'] = CONTROL, ['d'] = DIGIT, ['g'] = ALPHA | DIGIT | PUNCT, ['l'] = LOWER,
    ['p'] = PUNCT, ['s'] = SPACE,   ['u'] = UPPER, ['w'] = ALPHA | DIGIT,         ['x'] = HEX,
};

static const char *match(struct pl_pattern *self, const char *s, const char *p);

static const char *give_up(struct pl_pattern *self, const char *why)
{
    self->error = why;
    return NULL;
}

static bool look(struct pl_pattern *self)
{
    if (self->budget->look(self->budget->arg))
        return true;
    give_up(self, "the budget for matching is used up");
    return false;
}

static inline bool spend(struct pl_pattern *self, int64_t step_count)
{
    self->budget->left_count -= step_count;
    return __builtin_expect(self->budget->left_count >= 0, 1) || look(self);
}

bool pl_pattern_spend(struct pl_pattern *self, size_t step_count)
{
    return spend(self, (int64_t)step_count);
}

/* ---- one byte ---- */

static bool in_class(uint8_t byte, uint8_t letter)
{
    uint8_t lower = letter | 0x20;
    bool is_letter = (kinds[letter] & ALPHA) != 0;
    if (is_letter && class_kinds[lower])
        return ((kinds[byte] & class_kinds[lower]) != 0) == (letter == lower);
    if (lower == 'z' && is_letter)
        return (byte == 0) == (letter == lower);
    return byte == letter;
}

/* `set` is at its "[", `last` at its "]". */
static bool in_set(uint8_t byte, const char *set, const char *last)
{
    bool wanted = set[1] != '^';
    for (const char *p = set + (wanted ? 1 : 2); p < last; p++) {
        if (*p == '%') {
            if (in_class(byte, (uint8_t) * ++p))
                return wanted;
        } else if (p[1] == '-' && p + 2 < last) {
            if ((uint8_t)p[0] <= byte && byte <= (uint8_t)p[2])
                return wanted;
            p += 2;
        } else if ((uint8_t)*p == byte) {
            return wanted;
        }
    }
    return !wanted;
}

static inline bool item_matches(uint8_t byte, const char *item, const char *item_end)
{
    switch (*item) {
    case '.':
        return true;
    case '%':
        return in_class(byte, (uint8_t)item[1]);
    case '[':
        return in_set(byte, item, item_end - 1);
    default:
        return (uint8_t)*item == byte;
    }
}

/* A "]" that comes first is one of the set. */
static const char *set_end(struct pl_pattern *self, const char *set)
{
    const char *p = set + (set[1] == '^' ? 2 : 1);
    do {
        if (*p == '%' && p[1] != '\0')
            p++;
        else if (*p == '\0')
            return give_up(self, "malformed pattern (missing ']')");
        p++;
    } while (*p != ']');
    return p + 1;
}

/* Where the item ends that begins at `item`, which is not the pattern's end. */
static inline const char *item_end_of(struct pl_pattern *self, const char *item)
{
    if (*item == '[')
        return set_end(self, item);
    if (*item != '%')
        return item + 1;
    return item[1] != '\0' ? item + 2 : give_up(self, "malformed pattern (ends with '%')");
}

/* ---- repetitions ---- */

/* How far the item repeats from `s` on: the usual loop of all patterns, so classes are looked up
 * once. NULL when the budget is over. */
static const char *repeat(struct pl_pattern *self, const char *s, const char *item,
                          const char *item_end)
{
    const char *last = s;
    if (*item == '.')
        return spend(self, (self->subject_end - s) / BYTES_PER_STEP) ? self->subject_end : NULL;
    uint8_t kind = *item == '%' ? class_kinds[(uint8_t)item[1]] : 0;
    while (last < self->subject_end && (kind ? (kinds[(uint8_t)*last] & kind) != 0
                                             : item_matches((uint8_t)*last, item, item_end))) {
        if (!spend(self, item_end - item))
            return NULL;
        last++;
    }
    return last;
}

static const char *match_most(struct pl_pattern *self, const char *s, const char *item,
                              const char *item_end)
{
    const char *last = repeat(self, s, item, item_end);
    if (last && item_end[1] == '\0' && self->depth < MATCH_DEPTH_MAX)
        return last;
    for (; last; last--) {
        const char *end = match(self, last, item_end + 1);
        if (end || self->error || last == s || !spend(self, 1))
            return end;
    }
    return NULL;
}

static const char *match_least(struct pl_pattern *self, const char *s, const char *item,
                               const char *item_end)
{
    for (;; s++) {
        const char *end = match(self, s, item_end + 1);
        if (end || self->error || s == self->subject_end ||
            !item_matches((uint8_t)*s, item, item_end) || !spend(self, item_end - item))
            return end;
    }
}

/* ---- captures ---- */

static const char *match_open(struct pl_pattern *self, const char *s, const char *p, ptrdiff_t len)
{
    if (self->capture_count == PL_PATTERN_CAPTURES_MAX)
        return give_up(self, "too many captures");
    self->captures[self->capture_count].start = s;
    self->captures[self->capture_count].len = len;
    self->capture_count++;
    const char *end = match(self, s, p);
    if (!end)
        self->capture_count--;
    return end;
}

static const char *match_close(struct pl_pattern *self, const char *s, const char *p)
{
    int index = self->capture_count - 1;
    while (index >= 0 && self->captures[index].len != PL_PATTERN_OPEN)
        index--;
    if (index < 0)
        return give_up(self, "invalid pattern capture");
    self->captures[index].len = s - self->captures[index].start;
    const char *end = match(self, s, p);
    if (!end)
        self->captures[index].len = PL_PATTERN_OPEN;
    return end;
}

/* %1: what a capture holds, once more. A position holds nothing that could come again. */
static const char *match_again(struct pl_pattern *self, const char *s, char digit)
{
    int index = digit - '1';
    if (index < 0 || index >= self->capture_count || self->captures[index].len == PL_PATTERN_OPEN)
        return give_up(self, "invalid capture index");
    ptrdiff_t len = self->captures[index].len;
    if (len == PL_PATTERN_POSITION || self->subject_end - s < len ||
        !spend(self, 1 + len / BYTES_PER_STEP) ||
        memcmp(self->captures[index].start, s, (size_t)len) != 0)
        return NULL;
    return s + len;
}

/* ---- what is no single byte ---- */

/* %bxy */
static const char *match_balanced(struct pl_pattern *self, const char *s, const char *pair)
{
    if (pair[0] == '\0' || pair[1] == '\0')
        return give_up(self, "unbalanced pattern");
    if (s == self->subject_end || *s != pair[0])
        return NULL;
    size_t open_count = 1;
    for (s++; s < self->subject_end; s++) {
        if (!spend(self, 1))
            return NULL;
        if (*s == pair[1]) {
            if (--open_count == 0)
                return s + 1;
        } else if (*s == pair[0]) {
            open_count++;
        }
    }
    return NULL;
}

/* %f[set]: between a byte that is not in the set and one that is; outside there are zeros. */
static bool at_frontier(struct pl_pattern *self, const char *s, const char *set,
                        const char *after_set)
{
    uint8_t before = s == self->subject ? 0 : (uint8_t)s[-1];
    uint8_t here = s == self->subject_end ? 0 : (uint8_t)*s;
    return spend(self, after_set - set) && !in_set(before, set, after_set - 1) &&
           in_set(here, set, after_set - 1);
}

/* %b, %f and %1 at `*p`, which is moved behind it. Returns where to go on in the subject. */
static const char *match_special(struct pl_pattern *self, const char *s, const char **p)
{
    const char *at = *p;
    if (at[1] == 'b') {
        *p += 4;
        return match_balanced(self, s, at + 2);
    }
    if (at[1] != 'f') {
        *p += 2;
        return match_again(self, s, at[1]);
    }
    if (at[2] != '[')
        return give_up(self, "missing '[' after '%f' in pattern");
    *p = set_end(self, at + 2);
    return *p && at_frontier(self, s, at + 2, *p) ? s : NULL;
}

static inline bool is_special(char letter)
{
    return letter == 'b' || letter == 'f' || (kinds[(uint8_t)letter] & DIGIT) != 0;
}

/* ---- the row of items ---- */

/* An item and its repetition. Returns true to go on at `*s` and `*p`, else the result is `*s`. */
static inline bool match_item(struct pl_pattern *self, const char **s, const char **p)
{
    const char *item = *p, *at = *s, *end;
    const char *item_end = item_end_of(self, item);
    *s = NULL;
    if (!item_end || !spend(self, item_end - item))
        return false;
    bool here = at < self->subject_end && item_matches((uint8_t)*at, item, item_end);
    switch (*item_end) {
    case '*':
        *s = match_most(self, at, item, item_end);
        return false;
    case '+':
        *s = here ? match_most(self, at + 1, item, item_end) : NULL;
        return false;
    case '-':
        *s = match_least(self, at, item, item_end);
        return false;
    case '?':
        end = here ? match(self, at + 1, item_end + 1) : NULL;
        *s = end || self->error ? end : at;
        *p = item_end + 1;
        return !end && !self->error;
    default:
        *s = here ? at + 1 : NULL;
        *p = item_end;
        return here;
    }
}

static const char *match_items(struct pl_pattern *self, const char *s, const char *p)
{
    for (;;) {
        switch (*p) {
        case '\0':
            return s;
        case '(':
            return p[1] == ')' ? match_open(self, s, p + 2, PL_PATTERN_POSITION)
                               : match_open(self, s, p + 1, PL_PATTERN_OPEN);
        case ')':
            return match_close(self, s, p + 1);
        case '$':
            if (p[1] == '\0')
                return s == self->subject_end ? s : NULL;
            break;
        case '%':
            if (!is_special(p[1]))
                break;
            s = match_special(self, s, &p);
            if (!s)
                return NULL;
            continue;
        default:
            break;
        }
        if (!match_item(self, &s, &p))
            return s;
    }
}

static const char *match(struct pl_pattern *self, const char *s, const char *p)
{
    if (self->depth == MATCH_DEPTH_MAX)
        return give_up(self, "pattern too complex");
    self->depth++;
    const char *end = match_items(self, s, p);
    self->depth--;
    return end;
}

/* ---- from outside ---- */

bool pl_pattern_has_magic(struct pl_str text)
{
    static const bool is_magic[256] = {
        ['^'] = true, ['$'] = true, ['*'] = true, ['+'] = true, ['?'] = true,
        ['.'] = true, ['('] = true, ['['] = true, ['%'] = true, ['-'] = true};
    for (size_t i = 0; i < text.len; i++) {
        if (is_magic[(uint8_t)text.data[i]])
            return true;
    }
    return false;
}

void pl_pattern_init(struct pl_pattern *self, struct pl_str subject,
                     struct pl_pattern_budget *budget)
{
    self->subject = subject.data;
    self->subject_end = subject.data + subject.len;
    self->budget = budget;
    self->error = NULL;
}

/* At one place; `error` has been cleared. */
static inline const char *match_at(struct pl_pattern *self, const char *start, const char *pattern)
{
    self->depth = 1;
    self->capture_count = 0;
    return spend(self, 1) ? match_items(self, start, pattern) : NULL;
}

const char *pl_pattern_match(struct pl_pattern *self, const char *start, const char *pattern)
{
    self->error = NULL;
    return match_at(self, start, pattern);
}

/* The byte that any match begins with, or -1 when there are several. */
static int first_byte(const char *pattern)
{
    bool escaped = *pattern == '%' && (kinds[(uint8_t)pattern[1]] & PUNCT) != 0;
    if (!escaped && (*pattern == '\0' || strchr("().[%$", *pattern)))
        return -1;
    char repetition = pattern[escaped ? 2 : 1];
    bool may_be_absent = repetition == '*' || repetition == '?' || repetition == '-';
    return may_be_absent ? -1 : (uint8_t)pattern[escaped ? 1 : 0];
}

/* Moves to the next place with that byte; false when there is none, or no budget. */
static bool skip_to(struct pl_pattern *self, const char **start, int byte)
{
    const char *found = memchr(*start, byte, (size_t)(self->subject_end - *start));
    const char *to = found ? found : self->subject_end;
    bool may_go_on = spend(self, (to - *start) / BYTES_PER_STEP);
    *start = to;
    return found && may_go_on;
}

const char *pl_pattern_search(struct pl_pattern *self, const char **start, const char *pattern)
{
    int byte = first_byte(pattern);
    self->error = NULL;
    for (;; (*start)++) {
        if (byte >= 0 && !skip_to(self, start, byte))
            return NULL;
        const char *end = match_at(self, *start, pattern);
        if (end || self->error || *start == self->subject_end)
            return end;
    }
}

/* The two are not empty. Where the needle's first byte is rare, memchr alone is the fastest; memmem
 * takes time to prepare, but needs linear time for any text. */
static const char *find_bytes(const char *text, size_t len, struct pl_str needle)
{
    const char *last = text + len - needle.len;
    for (int i = 0; i < MEMCHR_TRIES; i++) {
        text = memchr(text, needle.data[0], (size_t)(last - text) + 1);
        if (!text || memcmp(text, needle.data, needle.len) == 0)
            return text;
        if (++text > last)
            return NULL;
    }
    return memmem(text, (size_t)(last - text) + needle.len, needle.data, needle.len);
}

const char *pl_pattern_find_plain(struct pl_pattern *self, const char *start, struct pl_str needle)
{
    self->error = NULL;
    /* parts overlap by a needle less one byte; each is searched in linear time */
    size_t part_bytes = PL_MAX((size_t)PLAIN_PART_BYTES, 2 * needle.len);
    while (needle.len > 0) {
        size_t left_bytes = (size_t)(self->subject_end - start);
        size_t now_bytes = PL_MIN(left_bytes, part_bytes);
        if (needle.len > left_bytes || !spend(self, 1 + (int64_t)(now_bytes / BYTES_PER_STEP)))
            return NULL;
        const char *found = find_bytes(start, now_bytes, needle);
        if (found || now_bytes == left_bytes)
            return found;
        start += now_bytes - needle.len + 1;
    }
    return start;
}
