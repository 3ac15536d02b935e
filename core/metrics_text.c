/*
 * Metrics text: see metrics_text.h.
 */
#include "metrics_text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "perilune_"

/* ---- bytes ---- */

static char *reserve(char **data, size_t len, size_t *cap, size_t more)
{
    if (len + more > *cap) {
        *cap = PL_MAX(*cap * 2, len + more + 256);
        *data = pl_xrealloc(*data, *cap);
    }
    return *data + len;
}

static void put(struct pl_metrics_text *self, const char *data, size_t len)
{
    if (len == 0)
        return;
    memcpy(reserve(&self->data, self->len, &self->cap, len), data, len);
    self->len += len;
}

static void put_text(struct pl_metrics_text *self, const char *text)
{
    put(self, text, strlen(text));
}

static void put_decimal(struct pl_metrics_text *self, uint64_t number)
{
    self->len += pl_put_decimal(reserve(&self->data, self->len, &self->cap, PL_NUMBER_MAX), number);
}

/* number / per_second, without zeros at its end: 1500 of 1000 is "1.5", 2000 is "2". */
static void put_seconds(struct pl_metrics_text *self, uint64_t number, uint32_t per_second)
{
    uint64_t rest = number % per_second;
    put_decimal(self, number / per_second);
    if (rest > 0)
        put(self, ".", 1);
    while (rest > 0) {
        char digit = (char)('0' + rest * 10 / per_second);
        put(self, &digit, 1);
        rest = rest * 10 % per_second;
    }
}

/* ---- labels ---- */

static void put_label_bytes(struct pl_metrics_text *self, const char *data, size_t len)
{
    memcpy(reserve(&self->labels, self->labels_len, &self->labels_cap, len), data, len);
    self->labels_len += len;
}

/* Length of the UTF-8 sequence at `at` (RFC 3629), 0 when it is none. The text ends with a 0, at
 * which every comparison fails. */
static size_t utf8_len(const unsigned char *at)
{
    static const struct {
        unsigned char first, last; /* of the first byte */
        unsigned char low, high;   /* of the second */
        size_t len;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    if (at[0] < 0x80)
        return 1;
    for (size_t i = 0; i < PL_COUNT(forms); i++) {
        if (at[0] < forms[i].first || at[0] > forms[i].last)
            continue;
        bool good = at[1] >= forms[i].low && at[1] <= forms[i].high;
        for (size_t more = 2; good && more < forms[i].len; more++)
            good = (at[more] & 0xc0) == 0x80;
        return good ? forms[i].len : 0;
    }
    return 0;
}

static void put_escaped(struct pl_metrics_text *self, const char *value)
{
    while (*value) {
        size_t len = utf8_len((const unsigned char *)value);
        if (*value == '\n')
            put_label_bytes(self, "\\n", 2);
        else if (*value == '"' || *value == '\\')
            put_label_bytes(self, (const char[]){'\\', *value}, 2);
        else if (len == 0)
            put_label_bytes(self, "?", 1);
        else
            put_label_bytes(self, value, len);
        value += PL_MAX(len, 1);
    }
}

void pl_metrics_text_unlabel(struct pl_metrics_text *self)
{
    self->labels_len = 0;
}

void pl_metrics_text_label(struct pl_metrics_text *self, const char *name, const char *value)
{
    if (self->labels_len > 0)
        put_label_bytes(self, ",", 1);
    put_label_bytes(self, name, strlen(name));
    put_label_bytes(self, "=\"", 2);
    put_escaped(self, value);
    put_label_bytes(self, "\"", 1);
}

void pl_metrics_text_relabel(struct pl_metrics_text *self, size_t labels_len)
{
    self->labels_len = PL_MIN(labels_len, self->labels_len);
}

/* ---- families and samples ---- */

void pl_metrics_text_init(struct pl_metrics_text *self)
{
    *self = (struct pl_metrics_text){0};
}

void pl_metrics_text_deinit(struct pl_metrics_text *self)
{
    free(self->data);
    free(self->labels);
}

static void put_head(struct pl_metrics_text *self, const char *word, const char *text)
{
    put_text(self, word);
    put(self, PREFIX, sizeof(PREFIX) - 1);
    put(self, self->family.data, self->family.len);
    put(self, " ", 1);
    put_text(self, text);
    put(self, "\n", 1);
}

void pl_metrics_text_family(struct pl_metrics_text *self, const char *name, const char *type,
                            const char *help)
{
    self->family = pl_str_of(name);
    self->labels_len = 0;
    put_head(self, "# HELP ", help);
    put_head(self, "# TYPE ", type);
}

static void put_name(struct pl_metrics_text *self, struct pl_str suffix)
{
    put(self, PREFIX, sizeof(PREFIX) - 1);
    put(self, self->family.data, self->family.len);
    put(self, suffix.data, suffix.len);
}

/* The sample's line up to its value. */
static void begin_sample(struct pl_metrics_text *self, struct pl_str suffix)
{
    put_name(self, suffix);
    if (self->labels_len > 0) {
        put(self, "{", 1);
        put(self, self->labels, self->labels_len);
        put(self, "}", 1);
    }
    put(self, " ", 1);
}

void pl_metrics_text_count(struct pl_metrics_text *self, uint64_t value)
{
    begin_sample(self, PL_STR(""));
    put_decimal(self, value);
    put(self, "\n", 1);
}

void pl_metrics_text_seconds(struct pl_metrics_text *self, uint64_t value, uint32_t per_second)
{
    begin_sample(self, PL_STR(""));
    put_seconds(self, value, per_second);
    put(self, "\n", 1);
}

void pl_metrics_text_number(struct pl_metrics_text *self, double value)
{
    char number[64];
    int len = snprintf(number, sizeof(number), "%.6f\n", value);
    begin_sample(self, PL_STR(""));
    put(self, number, (size_t)len);
}

static void put_bucket(struct pl_metrics_text *self, const struct pl_metrics_ladder *ladder,
                       size_t bucket, uint64_t count)
{
    put_name(self, PL_STR("_bucket{"));
    put(self, self->labels, self->labels_len);
    put_text(self, self->labels_len > 0 ? ",le=\"" : "le=\"");
    if (bucket < PL_METRICS_BOUNDS)
        put_seconds(self, ladder->bounds[bucket], ladder->per_second);
    else
        put_text(self, "+Inf");
    put_text(self, "\"} ");
    put_decimal(self, count);
    put(self, "\n", 1);
}

void pl_metrics_text_histogram(struct pl_metrics_text *self, const struct pl_metrics_ladder *ladder,
                               const uint64_t cells[PL_METRICS_HISTOGRAM_CELLS])
{
    uint64_t count = 0;
    for (size_t bucket = 0; bucket <= PL_METRICS_BOUNDS; bucket++)
        put_bucket(self, ladder, bucket, count += cells[bucket]);
    begin_sample(self, PL_STR("_sum"));
    put_seconds(self, cells[PL_METRICS_BOUNDS + 1], ladder->per_second);
    put(self, "\n", 1);
    begin_sample(self, PL_STR("_count"));
    put_decimal(self, count);
    put(self, "\n", 1);
}
