/*
 * JSON, walked: see json_walk.h.
 */
#include "json_walk.h"
#include <string.h>

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

/* Past the closing quote of the string whose opening quote is at `at`. */
static const char *skip_string(const char *at, const char *end)
{
    at++;
    while (at < end) {
        const char *quote = memchr(at, '"', (size_t)(end - at));
        if (!quote)
            return end;
        const char *back = quote;
        while (back > at && back[-1] == '\\')
            back--;
        if ((quote - back) % 2 == 0)
            return quote + 1;
        at = quote + 1;
    }
    return end;
}

/* Past a number, true, false or null. */
static const char *skip_word(const char *at, const char *end)
{
    while (at < end && *at != ',' && *at != '}' && *at != ']' && skip_space(at, end) == at)
        at++;
    return at;
}

static const char *skip_container(const char *at, const char *end)
{
    static const int8_t kinds[256] = {['{'] = 1, ['['] = 1, ['}'] = -1, [']'] = -1, ['"'] = 2};
    size_t depth = 0;
    while (at < end) {
        int8_t kind = kinds[(uint8_t)*at];
        if (kind == 2) {
            at = skip_string(at, end);
            continue;
        }
        at++;
        depth += (size_t)kind;
        if (kind != 0 && depth == 0)
            break;
    }
    return at;
}

static const char *skip_value(const char *at, const char *end)
{
    if (at < end && *at == '"')
        return skip_string(at, end);
    if (at < end && (*at == '{' || *at == '['))
        return skip_container(at, end);
    return skip_word(at, end);
}

void pl_json_walk_init(struct pl_json_walk *self, struct pl_str container)
{
    const char *end = container.data + container.len;
    const char *at = skip_space(container.data, end);
    bool opens = at < end && (*at == '{' || *at == '[');
    self->in_object = opens && *at == '{';
    self->at = opens ? at + 1 : end;
    self->end = end;
}

bool pl_json_walk_next(struct pl_json_walk *self, struct pl_str *key, struct pl_str *value)
{
    const char *at = skip_space(self->at, self->end), *end = self->end;
    struct pl_str name = PL_STR("");
    if (at < end && *at == ',')
        at = skip_space(at + 1, end);
    if (self->in_object && at < end && *at == '"') {
        const char *after = skip_string(at, end);
        name = (struct pl_str){at + 1, (size_t)(after - at) - PL_MIN(after - at, 2)};
        at = skip_space(after, end);
        at = skip_space(at < end ? at + 1 : end, end); /* the colon */
    }
    const char *after = skip_value(at, end);
    self->at = after;
    if (after == at) {
        self->at = end;
        return false;
    }
    if (key)
        *key = name;
    *value = (struct pl_str){at, (size_t)(after - at)};
    return true;
}

struct pl_str pl_json_walk_member(struct pl_str object, struct pl_str key)
{
    struct pl_json_walk walk;
    struct pl_str name, value, found = PL_STR("");
    pl_json_walk_init(&walk, object);
    while (pl_json_walk_next(&walk, &name, &value)) {
        if (walk.in_object && pl_str_equal(name, key))
            found = value;
    }
    return found;
}

static bool is_empty_container(struct pl_str value)
{
    const char *end = value.data + value.len;
    const char *at = skip_space(value.data + 1, end);
    return at < end && (*at == '}' || *at == ']');
}

bool pl_json_is_blank(struct pl_str value)
{
    if (value.len == 0 || pl_str_equal(value, PL_STR("null")) ||
        pl_str_equal(value, PL_STR("false")) || pl_str_equal(value, PL_STR("\"\"")))
        return true;
    return (value.data[0] == '{' || value.data[0] == '[') && is_empty_container(value);
}

struct pl_str pl_json_string_bytes(struct pl_str value)
{
    if (value.len < 2 || value.data[0] != '"')
        return PL_STR("");
    return (struct pl_str){value.data + 1, value.len - 2};
}
