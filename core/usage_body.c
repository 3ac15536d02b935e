/*
 * Usage, of a whole body: see usage_internal.h.
 *
 * Most answers that do not stream are there in one piece, name their model at the front and their
 * usage at the end. So what lies between need not be gone through: the only `"usage"` in the body
 * is searched from the end, and what follows its object shows where it stands. If that is the end
 * of the body's own object, it is one of its members. A `"usage"` in what a model has written has
 * backslashes before its quotes.
 */
#include "usage_internal.h"
#include <stdlib.h>
#include <string.h>

#define USAGE PL_STR("\"usage\"")

/* What has been found so far, and what is left. */
struct reader {
    const char *at, *end;
    struct pl_usage found;
    struct pl_str model; /* as it is written */
};

/* ---- JSON ---- */

static inline void skip_space(struct reader *self)
{
    while (self->at < self->end &&
           (*self->at == ' ' || *self->at == '\n' || *self->at == '\r' || *self->at == '\t'))
        self->at++;
}

/* Whether that byte is next; it is taken. */
static inline bool take(struct reader *self, char byte)
{
    skip_space(self);
    if (self->at == self->end || *self->at != byte)
        return false;
    self->at++;
    return true;
}

static bool is_escaped(const char *start, const char *quote)
{
    const char *at = quote;
    while (at > start && at[-1] == '\\')
        at--;
    return (quote - at) % 2 == 1;
}

/* Takes the rest of a string whose opening quote has been taken. */
static bool take_string(struct reader *self, struct pl_str *out)
{
    const char *start = self->at, *quote = start;
    while ((quote = memchr(quote, '"', (size_t)(self->end - quote))) && is_escaped(start, quote))
        quote++;
    if (!quote)
        return false;
    *out = (struct pl_str){start, (size_t)(quote - start)};
    self->at = quote + 1;
    return true;
}

/* Takes the rest of an object or a list whose opening bracket has been taken. */
static bool skip_container(struct reader *self)
{
    static const int8_t bracket[256] = {['{'] = 1, ['['] = 1, ['}'] = -1, [']'] = -1, ['"'] = 2};
    struct pl_str ignored;
    int depth = 1;
    while (depth > 0 && depth < PL_USAGE_DEPTH_MAX - 2) {
        while (self->at < self->end && bracket[(uint8_t)*self->at] == 0)
            self->at++;
        if (self->at == self->end)
            return false;
        int8_t kind = bracket[(uint8_t)*self->at++];
        if (kind < 2)
            depth += kind;
        else if (!take_string(self, &ignored))
            return false;
    }
    return depth == 0;
}

static bool is_word_byte(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || byte == '-' ||
           byte == '+' || byte == '.' || byte == 'E';
}

/* Passes over a number, true, false or null; false when there is none. */
static bool skip_word(struct reader *self)
{
    const char *start = self->at;
    while (self->at < self->end && is_word_byte(*self->at))
        self->at++;
    return self->at > start;
}

static bool skip_value(struct reader *self)
{
    struct pl_str ignored;
    if (take(self, '"'))
        return take_string(self, &ignored);
    if (take(self, '{') || take(self, '['))
        return skip_container(self);
    return skip_word(self);
}

/* ---- members ---- */

static bool take_usage(struct reader *self)
{
    const char *text = self->at;
    if (!skip_container(self) || self->at - text > PL_USAGE_OBJECT_MAX_BYTES)
        return false;
    pl_usage_read_object(&self->found, text, (size_t)(self->at - text));
    return true;
}

/* Takes a member; false when it is not as usual. */
static bool take_member(struct reader *self)
{
    struct pl_str key;
    if (!take(self, '"') || !take_string(self, &key) || !take(self, ':'))
        return false;
    if (pl_str_equal(key, PL_STR("usage")))
        return take(self, '{') && take_usage(self);
    if (pl_str_equal(key, PL_STR("message")) || pl_str_equal(key, PL_STR("response")))
        return false; /* there might be both in it */
    return skip_value(self);
}

/* Where the first object or list begins, or the end. */
static const char *find_bracket(const char *at, const char *end)
{
    const char *brace = memchr(at, '{', (size_t)(end - at));
    end = brace ? brace : end;
    const char *bracket = memchr(at, '[', (size_t)(end - at));
    return bracket ? bracket : end;
}

/* Takes the model's name if it stands before all objects and lists: its key is one of the body's
 * own, then. A byte has been taken already. */
static bool take_model(struct reader *self)
{
    static const char rest[] = "model\"";
    const char *start = self->at, *at = start, *limit = find_bracket(start, self->end);
    for (; (at = memchr(at, 'm', (size_t)(limit - at))); at++) {
        if (at - start < 1 || limit - at < (ptrdiff_t)sizeof(rest) || at[-1] != '"' ||
            at[-2] == '\\' || memcmp(at, rest, sizeof(rest) - 1) != 0)
            continue;
        self->at = at + sizeof(rest) - 1;
        return take(self, ':') && take(self, '"') && take_string(self, &self->model);
    }
    return false;
}

/* Takes all that follows; false unless that is the end of the body. */
static bool take_rest(struct reader *self)
{
    do {
        if (!take_member(self))
            return false;
    } while (take(self, ','));
    bool is_closed = take(self, '}');
    skip_space(self);
    return is_closed && self->at == self->end;
}

/* The last `"usage"` that is a string of its own before `end`; NULL when there is none. */
static const char *find_usage(const char *start, const char *end)
{
    const char *at = end;
    while ((at = memrchr(start, 'g', (size_t)(at - start)))) {
        if (at - start > 4 && end - at > 2 && at[-5] != '\\' &&
            memcmp(at - 4, USAGE.data, USAGE.len) == 0)
            return at - 4;
    }
    return NULL;
}

bool pl_usage_read_body(struct pl_usage_scan *self, const char *data, size_t len)
{
    struct reader reader = {.at = data, .end = data + len, .found = self->found};
    const char *usage = find_usage(data, data + len);
    if (!usage || self->model || find_usage(data, usage) || !take(&reader, '{') ||
        !take_model(&reader) || reader.at > usage)
        return false;
    reader.at = usage;
    if (!take_rest(&reader) || reader.model.len > PL_USAGE_MODEL_MAX_BYTES)
        return false;
    if (reader.model.len > 0)
        self->model = pl_usage_unescaped(reader.model.data, reader.model.len);
    self->found = reader.found;
    self->met_usage = true;
    return true;
}
