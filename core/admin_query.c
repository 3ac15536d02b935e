/*
 * Query: see admin_query.h.
 */
#include "admin_query.h"
#include <stdlib.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes into `out`; false when it is broken or too long. */
static bool decode(struct pl_str text, char out[PL_QUERY_VALUE_BYTES])
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (len + 1 >= PL_QUERY_VALUE_BYTES)
            return false;
        if (c == '%') {
            int high = text.len - i > 2 ? hex_digit(text.data[i + 1]) : -1;
            int low = text.len - i > 2 ? hex_digit(text.data[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        out[len++] = c;
    }
    out[len] = '\0';
    return true;
}

/* Takes the first parameter off the query, which is not empty. */
static struct pl_str take_parameter(struct pl_str *query)
{
    const char *end = memchr(query->data, '&', query->len);
    struct pl_str parameter = {query->data, end ? (size_t)(end - query->data) : query->len};
    size_t used = PL_MIN(parameter.len + 1, query->len);
    query->data += used;
    query->len -= used;
    return parameter;
}

static bool has_key(struct pl_str parameter, const char *key)
{
    size_t len = strlen(key);
    return parameter.len > len && parameter.data[len] == '=' &&
           memcmp(parameter.data, key, len) == 0;
}

bool pl_query_find(struct pl_str query, const char *key, struct pl_str *out)
{
    size_t key_len = strlen(key);
    while (query.len > 0) {
        struct pl_str parameter = take_parameter(&query);
        if (has_key(parameter, key)) {
            *out = (struct pl_str){parameter.data + key_len + 1, parameter.len - key_len - 1};
            return true;
        }
    }
    return false;
}

bool pl_query_has_only(struct pl_str query, const char *const *keys, struct pl_str *stranger)
{
    struct pl_str again;
    while (query.len > 0) {
        const char *const *key = keys;
        *stranger = take_parameter(&query);
        while (*key && !has_key(*stranger, *key))
            key++;
        if (!*key || pl_query_find(query, *key, &again))
            return false;
    }
    return true;
}

/* Digits with a fraction or without; strtod alone would take "0x10" and "1e3", too. */
static bool read_number(const char *text, double *out, const char **rest)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    *out = strtod(text, &end);
    *rest = end;
    return end <= text + strspn(text, "0123456789.");
}

bool pl_query_value(struct pl_str query, const char *key, char out[PL_QUERY_VALUE_BYTES])
{
    struct pl_str text;
    return pl_query_find(query, key, &text) && decode(text, out);
}

bool pl_query_percent(struct pl_str text, double *out_ratio)
{
    char copy[32];
    const char *sign;
    double percent;
    if (text.len >= sizeof(copy))
        return false;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    if (!read_number(copy, &percent, &sign))
        return false;
    *out_ratio = percent / 100;
    return strcmp(sign, "%") == 0 || strcmp(sign, "%25") == 0;
}

bool pl_query_duration_ms(const char *text, uint64_t *out_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    const char *unit;
    double number;
    if (!read_number(text, &number, &unit))
        return false;
    for (size_t i = 0; i < PL_COUNT(units); i++) {
        if (strcmp(unit, units[i].unit) == 0 && number * units[i].ms <= 1e12) {
            *out_ms = (uint64_t)(number * units[i].ms);
            return true;
        }
    }
    return false;
}
