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

bool pl_query_find(struct pl_str query, const char *key, struct pl_str *out)
{
    size_t key_len = strlen(key);
    while (query.len > 0) {
        const char *end = memchr(query.data, '&', query.len);
        size_t len = end ? (size_t)(end - query.data) : query.len;
        if (len > key_len && query.data[key_len] == '=' && memcmp(query.data, key, key_len) == 0) {
            *out = (struct pl_str){query.data + key_len + 1, len - key_len - 1};
            return true;
        }
        query.data += PL_MIN(len + 1, query.len);
        query.len -= PL_MIN(len + 1, query.len);
    }
    return false;
}

bool pl_query_value(struct pl_str query, const char *key, char out[PL_QUERY_VALUE_BYTES])
{
    struct pl_str text;
    return pl_query_find(query, key, &text) && decode(text, out);
}

bool pl_query_percent(struct pl_str text, double *out_ratio)
{
    char copy[32], *end;
    if (text.len == 0 || text.len >= sizeof(copy) || text.data[0] < '0' || text.data[0] > '9')
        return false;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    *out_ratio = strtod(copy, &end) / 100;
    return strcmp(end, "%") == 0 || strcmp(end, "%25") == 0;
}

bool pl_query_duration_ms(const char *text, uint64_t *out_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    double number = strtod(text, &end);
    for (size_t i = 0; i < PL_COUNT(units); i++) {
        if (strcmp(end, units[i].unit) == 0 && number * units[i].ms <= 1e12) {
            *out_ms = (uint64_t)(number * units[i].ms);
            return true;
        }
    }
    return false;
}
