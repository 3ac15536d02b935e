/*
 * OTLP writing: strings, numbers and attributes (KeyValue) as OTLP's JSON has them. A part of otlp.
 * Pure.
 *
 * A span has some forty attributes: their names are put together by the compiler, each with all
 * that stands around it.
 */
#ifndef PL_OTLP_WRITE_H
#define PL_OTLP_WRITE_H

#include "otlp.h"

/** Makes room for `len` more bytes. */
void pl_otlp_grow(struct pl_otlp_text *self, size_t len);
static inline char *pl_otlp_room(struct pl_otlp_text *self, size_t len)
{
    if (self->cap - self->len < len)
        pl_otlp_grow(self, len);
    return self->data + self->len;
}
/** Appends bytes as they are. Inline, so that literals are copied word by word. */
static inline void pl_otlp_put(struct pl_otlp_text *self, const char *data, size_t len)
{
    memcpy(pl_otlp_room(self, len), data, len);
    self->len += len;
}
#define PL_OTLP_PUT(self, literal) pl_otlp_put(self, literal, sizeof(literal) - 1)
/** Appends what stands between the quotes of a JSON string, cut to PL_OTLP_STRING_MAX_BYTES. */
void pl_otlp_put_escaped(struct pl_otlp_text *self, struct pl_str text);
void pl_otlp_put_number(struct pl_otlp_text *self, uint64_t number);
/** 16 digits. */
void pl_otlp_put_hex(struct pl_otlp_text *self, uint64_t number);
/** "1.250" */
void pl_otlp_put_seconds(struct pl_otlp_text *self, uint32_t duration_ms);

/* ---- attributes: never the first of their array, and `name` is a literal ---- */

#define PL_OTLP_KEY(self, name, type)                                                              \
    PL_OTLP_PUT(self, ",{\"key\":\"" name "\",\"value\":{\"" type "\":")

#define PL_OTLP_STR(self, name, text)                                                              \
    do {                                                                                           \
        PL_OTLP_KEY(self, name, "stringValue");                                                    \
        PL_OTLP_PUT(self, "\"");                                                                   \
        pl_otlp_put_escaped(self, text);                                                           \
        PL_OTLP_PUT(self, "\"}}");                                                                 \
    } while (0)

/** Nothing for NULL. */
#define PL_OTLP_TEXT(self, name, text)                                                             \
    do {                                                                                           \
        const char *text_ = (text);                                                                \
        if (text_)                                                                                 \
            PL_OTLP_STR(self, name, pl_str_of(text_));                                             \
    } while (0)

/** Nothing for a number below 0. 64 bits are texts in proto3's JSON. */
#define PL_OTLP_INT(self, name, number)                                                            \
    do {                                                                                           \
        int64_t number_ = (int64_t)(number);                                                       \
        if (number_ >= 0) {                                                                        \
            PL_OTLP_KEY(self, name, "intValue");                                                   \
            PL_OTLP_PUT(self, "\"");                                                               \
            pl_otlp_put_number(self, (uint64_t)number_);                                           \
            PL_OTLP_PUT(self, "\"}}");                                                             \
        }                                                                                          \
    } while (0)

/** Nothing for false. */
#define PL_OTLP_TRUE(self, name, flag)                                                             \
    do {                                                                                           \
        if (flag)                                                                                  \
            PL_OTLP_PUT(self, ",{\"key\":\"" name "\",\"value\":{\"boolValue\":true}}");           \
    } while (0)

#define PL_OTLP_SECONDS(self, name, duration_ms)                                                   \
    do {                                                                                           \
        PL_OTLP_KEY(self, name, "doubleValue");                                                    \
        pl_otlp_put_seconds(self, duration_ms);                                                    \
        PL_OTLP_PUT(self, "}}");                                                                   \
    } while (0)

#endif
