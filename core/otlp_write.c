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

void pl_otlp_grow(struct pl_otlp_text *self, size_t len)
{
    self->cap = PL_MAX(PL_MAX(self->cap * 2, self->len + len), (size_t)FIRST_BYTES);
    self->data = pl_xrealloc(self->data, self->cap);
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
    char *start = pl_otlp_room(self, len * ESCAPE_MAX_BYTES), *out = start;
    for (size_t at = 0; at < len;) {
        size_t plain = pl_plain_bytes(text.data + at, len - at);
        memcpy(out, data + at, plain);
        out += plain;
        at += plain;
        if (at < len)
            out = put_special(out, data, len, &at);
    }
    self->len += (size_t)(out - start);
}

/* ---- numbers -------------------------------------------------------------------------------- */

void pl_otlp_put_number(struct pl_otlp_text *self, uint64_t number)
{
    self->len += pl_put_decimal(pl_otlp_room(self, PL_NUMBER_MAX), number);
}

void pl_otlp_put_hex(struct pl_otlp_text *self, uint64_t number)
{
    pl_put_hex16(pl_otlp_room(self, 16), number);
    self->len += 16;
}

void pl_otlp_put_seconds(struct pl_otlp_text *self, uint32_t duration_ms)
{
    char fraction[4] = {'.', (char)('0' + duration_ms % 1000 / 100),
                        (char)('0' + duration_ms % 100 / 10), (char)('0' + duration_ms % 10)};
    pl_otlp_put_number(self, duration_ms / 1000);
    pl_otlp_put(self, fraction, sizeof(fraction));
}
