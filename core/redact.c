/*
 * Redact: see redact.h. From colon to colon: what stands before one is its member's name, if it is
 * a string; what follows is the value.
 */
#include "redact.h"
#include <ctype.h>
#include <stdlib.h>

#define NAME_MAX_BYTES 128 /* of a member that is looked at; longer ones are no credential's */
#define MARK           "[redacted]"

struct output {
    char *data;
    size_t len, cap;
};

static void put(struct output *self, const char *data, size_t len)
{
    if (len > self->cap - self->len) {
        self->cap = PL_MAX(self->cap * 2, self->len + len);
        self->data = pl_xrealloc(self->data, self->cap);
    }
    memcpy(self->data + self->len, data, len);
    self->len += len;
}

/* ---- names ------------------------------------------------------------------------------------
 */

static bool is_passed_over(char byte)
{
    return byte == '-' || byte == '_' || byte == '.' || byte == ' ';
}

static size_t normalise(char *out, struct pl_str name)
{
    size_t len = 0;
    for (size_t i = 0; i < name.len; i++) {
        if (!is_passed_over(name.data[i]))
            out[len++] = (char)tolower((unsigned char)name.data[i]);
    }
    return len;
}

char *pl_redact_name(const char *name)
{
    char *out = pl_xmalloc(strlen(name) + 1);
    out[normalise(out, pl_str_of(name))] = '\0';
    return out;
}

static bool ends_with(struct pl_str text, const char *end)
{
    size_t len = strlen(end);
    return text.len >= len && memcmp(text.data + text.len - len, end, len) == 0;
}

static bool is_secret(struct pl_str name, char *const *names)
{
    static const char *const usual[] = {"apikey", "authorization", "token",     "password",
                                        "secret", "passwd",        "accesskey", "privatekey"};
    char text[NAME_MAX_BYTES];
    if (name.len > sizeof(text))
        return false;
    if (memchr(name.data, '\\', name.len)) /* written in a way that hides what it is */
        return true;
    struct pl_str normal = {text, normalise(text, name)};
    for (size_t i = 0; i < PL_COUNT(usual); i++) {
        if (ends_with(normal, usual[i]))
            return true;
    }
    for (; names && *names; names++) {
        if (pl_str_equal(normal, pl_str_of(*names)))
            return true;
    }
    return false;
}

/* ---- places -----------------------------------------------------------------------------------
 */

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static size_t backslashes_before(struct pl_str text, size_t at)
{
    size_t count = 0;
    while (count < at && text.data[at - count - 1] == '\\')
        count++;
    return count;
}

/* The string that ends right before the colon at `colon`; false when there is none. */
static bool find_name(struct pl_str text, size_t colon, struct pl_str *out)
{
    size_t end = colon;
    while (end > 0 && is_space(text.data[end - 1]))
        end--;
    if (end == 0 || text.data[end - 1] != '"')
        return false;
    end--;
    end -= backslashes_before(text, end);
    size_t start = end;
    while (start > 0 && text.data[start - 1] != '"' && end - start <= NAME_MAX_BYTES)
        start--;
    *out = (struct pl_str){text.data + start, end - start};
    return start > 0;
}

/* The end of the string whose first byte is at `at`. A quote that is escaped more often than the
 * one before it belongs to the string. */
static size_t string_end(struct pl_str text, size_t at, size_t escapes)
{
    while (at < text.len && (text.data[at] != '"' || backslashes_before(text, at) > escapes))
        at++;
    return at < text.len ? at - backslashes_before(text, at) : at;
}

/* The value at `at` goes; where the text goes on. */
static size_t skip_value(struct pl_str text, size_t at, struct output *out)
{
    size_t escapes = 0;
    while (at + escapes < text.len && text.data[at + escapes] == '\\')
        escapes++;
    if (at + escapes < text.len && text.data[at + escapes] == '"') {
        put(out, text.data + at, escapes + 1);
        put(out, MARK, sizeof(MARK) - 1);
        return string_end(text, at + escapes + 1, escapes);
    }
    put(out, "\"" MARK "\"", sizeof(MARK) + 1);
    if (at < text.len && (text.data[at] == '{' || text.data[at] == '['))
        return text.len; /* where it ends cannot be told for sure */
    while (at < text.len && !is_space(text.data[at]) && !memchr(",}]", text.data[at], 3))
        at++;
    return at;
}

char *pl_redact(struct pl_str text, char *const *names, size_t *out_len)
{
    struct output out = {.data = pl_xmalloc(text.len + 1), .cap = text.len + 1};
    struct pl_str name;
    size_t at = 0;
    while (at < text.len) {
        const char *found = memchr(text.data + at, ':', text.len - at);
        size_t next = found ? (size_t)(found - text.data) + 1 : text.len;
        put(&out, text.data + at, next - at);
        at = next;
        if (!found || !find_name(text, at - 1, &name) || !is_secret(name, names))
            continue;
        while (at < text.len && is_space(text.data[at]))
            put(&out, text.data + at++, 1);
        at = skip_value(text, at, &out);
    }
    *out_len = out.len;
    return out.data;
}
