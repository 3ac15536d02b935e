/*
 * SSE: finds the boundaries of server-sent events in a byte stream as it passes.
 *
 * Pure, any thread, no allocation. Line ends may be LF, CRLF or CR (WHATWG HTML 9.2.6). It does not
 * decode events; it says where the last whole event ends, whether an event with data has been seen,
 * and whether the stream's terminal event ("data: [DONE]", or "event: message_stop") has passed.
 */
#ifndef PL_SSE_H
#define PL_SSE_H

#include "base.h"

struct pl_sse {
    uint64_t event_count; /* whole events that had a data line */
    bool seen_data;       /* at least one whole event with data */
    bool seen_terminal;   /* a whole event with data: [DONE], or event: message_stop or */
                          /* response.completed, response.failed, response.incomplete */
    bool seen_error;      /* a whole event that is plainly an error: event: error, or data that
                             begins with {"error": or {"type":"error" */
    bool in_event;        /* bytes of an event not yet whole have been fed */
    /* private to sse.c below */
    bool event_is_open; /* a line other than a comment has been read since the last boundary */
    bool event_has_data, event_is_terminal, event_is_error;
    bool last_was_cr; /* an LF that comes next belongs to the line end before it */
    bool is_past_first_line;
    uint8_t line_len; /* of `line`; one more than fits when it was cut */
    char line[40];    /* the first bytes of the line being read, for the comparisons */
};

void pl_sse_init(struct pl_sse *self);
/**
 * Feeds bytes. Returns the offset just past the last event that became whole within `data` (0 when
 * none did), so that the bytes up to there can be passed on and the rest be kept. Lines that are
 * comments or stand outside an event (keep-alive) count as whole at their blank line, or, when a
 * comment line stands alone, at the end of that line. An LF that completes the CRLF of a boundary
 * passed in an earlier call counts as a boundary of its own.
 */
PL_NODISCARD size_t pl_sse_feed(struct pl_sse *self, const char *data, size_t len);

#endif
