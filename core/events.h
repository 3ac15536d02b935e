/*
 * Events: splits a stream of server-sent events into its events, with what their data lines say.
 *
 * Pure, any thread. It is fed the stream's bytes, cut anywhere, and stops behind each event; how
 * the bytes are cut makes no difference. It keeps one event's data at a time, at most `max_bytes`.
 * Whoever only needs the places where events end takes sse.h, which keeps nothing.
 *
 * Lines end in LF, CRLF or CR; comments, unknown fields and events without data say nothing (WHATWG
 * HTML 9.2.6).
 */
#ifndef PL_EVENTS_H
#define PL_EVENTS_H

#include "base.h"

enum pl_events_found {
    PL_EVENTS_MORE,      /* all bytes were taken, and no event is whole */
    PL_EVENTS_EVENT,     /* an event with data is whole */
    PL_EVENTS_BLANK,     /* what came says nothing: a comment, an event without data */
    PL_EVENTS_TOO_LARGE, /* the event's data would exceed max_bytes; nothing more can be fed */
};

struct pl_events {
    bool is_foreign; /* a line was no field of an event stream */
    /* private to events.c below */
    bool line_is_new; /* nothing of this line has been read */
    bool last_was_cr; /* an LF that comes next belongs to the line end before it */
    bool is_past_first_line;
    bool is_open;      /* a line other than a comment has been read since the last boundary */
    bool has_data;     /* a data line of this event has begun */
    bool may_be_space; /* the next byte is the value's first */
    bool is_given;     /* the event has been told of: the next byte begins another */
    uint8_t state;
    uint8_t field_len; /* one more than fits when it was cut */
    uint8_t name_len;  /* the same */
    char field[8];     /* the name of the field: a byte order mark and "event" fit */
    char name[24];     /* of the event */
    char *data;        /* NULL while there is none */
    size_t data_len, data_cap, max_bytes;
};

void pl_events_init(struct pl_events *self, size_t max_bytes);
/** Idempotent. */
void pl_events_deinit(struct pl_events *self);
/**
 * Takes bytes up to the end of what becomes whole first, or all. Returns how many were taken, of
 * any bytes at least one; `found` says what has become whole behind the last of them.
 */
PL_NODISCARD size_t pl_events_next(struct pl_events *self, const char *data, size_t len,
                                   enum pl_events_found *found);
/** The stream has ended; says whether its last line, which has no end, is foreign. */
bool pl_events_end_is_foreign(const struct pl_events *self);
/** Of the event that was found last, until the next call: its data, which is not empty, and its
 *  name; empty when it has none, or one that is longer than any of interest. */
struct pl_str pl_events_data(const struct pl_events *self);
struct pl_str pl_events_name(const struct pl_events *self);

#endif
