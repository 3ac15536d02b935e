/*
 * Guard, between its own files: the states, and what all of them use. See guard.h and guard.c.
 *
 * Pure, any thread. A function that scans takes the place where it starts and `end`, and returns
 * the place of the first byte it did not take; it has then named the next state. The helpers are
 * inline, because the scan calls them for each part of each field.
 */
#ifndef PL_GUARD_INTERNAL_H
#define PL_GUARD_INTERNAL_H

#include "guard.h"

#include <string.h>

#define TEXT_MAX 31 /* longest name or value that matters, with room to spare */

enum state {
    /* the request line, in order; up to LINE_LF */
    METHOD,
    TARGET_START,
    TARGET_ROOT, /* behind the first slash */
    TARGET,
    TARGET_STAR, /* behind the "*" of OPTIONS */
    VERSION,
    LINE_LF,
    /* the fields, in order; up to HEAD_LF */
    LINE_START,
    NAME,
    VALUE,      /* of a field that does not matter */
    KEPT_START, /* spaces before the value of one that does */
    KEPT_VALUE,
    VALUE_LF,
    HEAD_LF,
    /* the body */
    BODY,
    CHUNK_SIZE,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    LAST_CR,
    LAST_LF,
    /* the end */
    WHOLE,
    REFUSED,
};

enum method { GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS };

enum field { FIELD_OTHER, FIELD_HOST, FIELD_EXPECT, FIELD_LENGTH, FIELD_CODING };

/* Sets of bytes. */
#define TOKEN 1 /* tchar, RFC 9110 5.6.2 */
#define HOST  2 /* uri-host and port, RFC 3986 3.2.2, without the comma */
#define BOTH  (TOKEN | HOST)

extern const uint8_t pl_guard_byte_sets[256]; /* in guard.c */

#define NO_LF "A CR in the request head is not followed by LF."

static inline bool is_in(uint8_t set, char byte)
{
    return (pl_guard_byte_sets[(uint8_t)byte] & set) != 0;
}

static inline bool is_visible(char byte)
{
    return byte > ' ' && byte < 0x7f;
}

/** Of a field value: HTAB, space, visible ASCII, and what lies above ASCII. */
static inline bool is_text(char byte)
{
    return ((uint8_t)byte >= ' ' && byte != 0x7f) || byte == '\t';
}

static inline bool is_space(char byte)
{
    return byte == ' ' || byte == '\t';
}

static inline const char *skip_token(const char *at, const char *end)
{
    while (at < end && is_in(TOKEN, *at)) {
        at++;
    }
    return at;
}

/* ---- states and refusals ---- */

static inline const char *next(struct pl_guard *self, enum state state, const char *at)
{
    self->state = (uint8_t)state;
    return at;
}

/** Ends the message; `at` is the byte that was one too many. */
static inline const char *refuse(struct pl_guard *self, const char *at, int status,
                                 const char *reason)
{
    self->state = REFUSED;
    self->status = status;
    self->reason = reason;
    return at;
}

/** As refuse, for reasons with a name or a number: written over `text`, which has no more use. */
const char *pl_guard_refuse_with(struct pl_guard *self, const char *at, int status,
                                 const char *format, ...) PL_PRINTF(4, 5);

/** For a byte that may not stand where it stands. */
static inline const char *refuse_byte(struct pl_guard *self, const char *at, const char *reason)
{
    if (*at == '\n') {
        reason = "A line of the request head ends in LF without CR.";
    } else if (*at == '\0') {
        reason = "The request head contains a NUL byte.";
    }
    return refuse(self, at, 400, reason);
}

/** Takes the LF at the end of any line of the head but the last. */
static inline const char *scan_lf(struct pl_guard *self, const char *at)
{
    if (*at != '\n') {
        return refuse(self, at, 400, NO_LF);
    }
    return next(self, LINE_START, at + 1);
}

/* ---- what is remembered ---- */

/** Where a byte of the head lies, counted from the message's first. */
static inline uint32_t place_of(const struct pl_guard *self, const char *at)
{
    return self->head_bytes + (uint32_t)(at - self->piece);
}

/** Appends to `text`; what does not fit only leaves a mark, as nothing that long can match. */
static inline void keep(struct pl_guard *self, const char *data, size_t len)
{
    if (len > TEXT_MAX || self->text_len + len > TEXT_MAX) {
        self->text_len = TEXT_MAX + 1;
        return;
    }
    memcpy(self->text + self->text_len, data, len);
    self->text_len = (uint8_t)(self->text_len + len);
}

static inline bool text_is(const struct pl_guard *self, struct pl_str expected)
{
    return self->text_len == expected.len && memcmp(self->text, expected.data, expected.len) == 0;
}

/* ---- the parts ---- */

/** Takes what belongs to the request line (guard_line.c). */
const char *pl_guard_scan_line(struct pl_guard *self, const char *at, const char *end);
/**
 * Takes the head's last byte, at `at`: then the message is whole, or its body follows. `left_bytes`
 * holds the Content-Length (guard_body.c).
 */
const char *pl_guard_start_body(struct pl_guard *self, bool is_chunked, const char *at);
/** Takes what belongs to the body, up to the end of its next run of bytes, which it puts in
 *  `body`. */
const char *pl_guard_scan_body(struct pl_guard *self, const char *at, const char *end,
                               struct pl_str *body);

#endif
