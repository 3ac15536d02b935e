/*
 * OTLP writing: see otlp_write.h.
 */
#include "otlp_write.h"
#include <stdlib.h>

#define FIRST_BYTES      4096
#define ESCAPE_MAX_BYTES 6 /* "\u001f" */

void pl_otlp_text_init(struct pl_otlp_text *self)
{
    *self = (struct pl_otlp_text){0};
}

void pl_otlp_text_deinit(struct pl_otlp_text *self)
{
    free(self->data);
}

static char *room(struct pl_otlp_text *self, size_t len)
{
    if (self->cap - self->len < len) {
        self->cap = PL_MAX(PL_MAX(self->cap * 2, self->len + len), (size_t)FIRST_BYTES);
        self->data = pl_xrealloc(self->data, self->cap);
    }
    return self->data + self->len;
}

void pl_otlp_put(struct pl_otlp_text *self, const char *data, size_t len)
{
    memcpy(room(self, len), data, len);
    self->len += len;
}

/* ---- strings -------------------------------------------------------------------------------- */

/* The length of the UTF-8 sequence at `data` (RFC 3629), or 0 when it is none. */
static size_t sequence_len(const unsigned char *data, size_t len)
{
    static const struct {
        unsigned char first, last, low, high, len; /* bounds of the first byte, of the second */
    } shapes[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < PL_COUNT(shapes); i++) {
        if (data[0] < shapes[i].first || data[0] > shapes[i].last)
            continue;
        if (len < shapes[i].len || data[1] < shapes[i].low || data[1] > shapes[i].high)
            return 0;
        for (size_t j = 2; j < shapes[i].len; j++) {
            if ((data[j] & 0xc0) != 0x80)
                return 0;
        }
        return shapes[i].len;
    }
    return 0;
}

static char *put_control(char *out, unsigned char byte)
{
    memcpy(out, "\\u00", 4);
    out[4] = "0123456789abcdef"[byte >> 4];
    out[5] = "0123456789abcdef"[byte & 15];
    return out + 6;
}

static bool is_plain(unsigned char byte)
{
    return byte >= ' ' && byte < 127 && byte != '"' && byte != '\\';
}

/* What is not plain ASCII, from `*at` on. */
static char *put_special(char *out, const unsigned char *data, size_t len, size_t *at)
{
    unsigned char byte = data[*at];
    size_t width = 1;
    if (byte == '"' || byte == '\\') {
        *out++ = '\\';
        *out++ = (char)byte;
    } else if (byte < 128) {
        out = put_control(out, byte);
    } else if ((width = sequence_len(data + *at, len - *at)) > 0) {
        memcpy(out, data + *at, width);
        out += width;
    } else {
        memcpy(out, "\xef\xbf\xbd", 3);
        out += 3;
        width = 1;
    }
    *at += width;
    return out;
}

/* A cut may go through a character: what is left of it is dropped. */
static size_t cut(struct pl_str text, size_t max_bytes)
{
    size_t len = max_bytes;
    for (int i = 0; i < 3 && len > 0 && ((unsigned char)text.data[len] & 0xc0) == 0x80; i++)
        len--;
    return len;
}

void pl_otlp_put_escaped(struct pl_otlp_text *self, struct pl_str text)
{
    const unsigned char *data = (const unsigned char *)text.data;
    size_t len = text.len;
    if (len > PL_OTLP_STRING_MAX_BYTES)
        len = cut(text, PL_OTLP_STRING_MAX_BYTES);
    char *start = room(self, len * ESCAPE_MAX_BYTES), *out = start;
    for (size_t at = 0; at < len;) {
        if (is_plain(data[at]))
            *out++ = (char)data[at++];
        else
            out = put_special(out, data, len, &at);
    }
    self->len += (size_t)(out - start);
}

/* ---- numbers and attributes ----------------------------------------------------------------- */

void pl_otlp_put_number(struct pl_otlp_text *self, uint64_t number)
{
    self->len += pl_put_decimal(room(self, PL_NUMBER_MAX), number);
}

void pl_otlp_put_hex(struct pl_otlp_text *self, uint64_t number)
{
    char *out = room(self, 16);
    for (size_t i = 16; i-- > 0; number >>= 4)
        out[i] = "0123456789abcdef"[number & 15];
    self->len += 16;
}

static void begin_attribute(struct pl_otlp_text *self, const char *name, size_t name_len)
{
    if (self->len > 0 && self->data[self->len - 1] != '[')
        pl_otlp_put(self, ",", 1);
    pl_otlp_put(self, "{\"key\":\"", 8);
    pl_otlp_put(self, name, name_len);
}

void pl_otlp_put_str(struct pl_otlp_text *self, const char *name, struct pl_str value)
{
    begin_attribute(self, name, strlen(name));
    PL_OTLP_PUT(self, "\",\"value\":{\"stringValue\":\"");
    pl_otlp_put_escaped(self, value);
    PL_OTLP_PUT(self, "\"}}");
}

void pl_otlp_put_text(struct pl_otlp_text *self, const char *name, const char *value)
{
    if (value)
        pl_otlp_put_str(self, name, pl_str_of(value));
}

void pl_otlp_put_int(struct pl_otlp_text *self, const char *name, int64_t value)
{
    if (value < 0)
        return;
    begin_attribute(self, name, strlen(name));
    PL_OTLP_PUT(self, "\",\"value\":{\"intValue\":\""); /* 64 bits are texts in proto3's JSON */
    pl_otlp_put_number(self, (uint64_t)value);
    PL_OTLP_PUT(self, "\"}}");
}

void pl_otlp_put_true(struct pl_otlp_text *self, const char *name, bool value)
{
    if (!value)
        return;
    begin_attribute(self, name, strlen(name));
    PL_OTLP_PUT(self, "\",\"value\":{\"boolValue\":true}}");
}

void pl_otlp_put_seconds(struct pl_otlp_text *self, const char *name, uint32_t duration_ms)
{
    char fraction[4] = {'.', (char)('0' + duration_ms % 1000 / 100),
                        (char)('0' + duration_ms % 100 / 10), (char)('0' + duration_ms % 10)};
    begin_attribute(self, name, strlen(name));
    PL_OTLP_PUT(self, "\",\"value\":{\"doubleValue\":");
    pl_otlp_put_number(self, duration_ms / 1000);
    pl_otlp_put(self, fraction, sizeof(fraction));
    PL_OTLP_PUT(self, "}}");
}

void pl_otlp_put_resource(struct pl_otlp_text *self, struct pl_str name, struct pl_str value)
{
    begin_attribute(self, "", 0);
    pl_otlp_put_escaped(self, name);
    PL_OTLP_PUT(self, "\",\"value\":{\"stringValue\":\"");
    pl_otlp_put_escaped(self, value);
    PL_OTLP_PUT(self, "\"}}");
}
