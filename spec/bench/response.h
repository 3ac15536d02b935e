/*
 * Response: reads one HTTP/1.1 answer and, on the way, the SSE events in its body.
 *
 * Pure: no I/O, no allocation. One per connection, reset for each answer. Strict about framing, so
 * that an answer which was cut can never count as a whole one.
 */
#ifndef BENCH_RESPONSE_H
#define BENCH_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESPONSE_HEAD_BYTES 8192
#define RESPONSE_LEAD_BYTES 16

enum response_state {
    RESPONSE_HEAD,
    RESPONSE_BODY_LENGTH,      /* `left` bytes to come */
    RESPONSE_BODY_UNTIL_CLOSE, /* no framing: ends with the connection */
    RESPONSE_CHUNK_SIZE,
    RESPONSE_CHUNK_DATA, /* `left` bytes to come */
    RESPONSE_CHUNK_END,
    RESPONSE_TRAILER,
    RESPONSE_WHOLE,
    RESPONSE_BROKEN
};

struct response {
    enum response_state state;
    int status;
    bool close_after;    /* the peer said that it closes the connection */
    uint64_t left;       /* bytes to come of the body or the chunk */
    size_t framing_len;  /* digits of the chunk size, or bytes of the trailer line, so far */
    uint64_t body_bytes; /* without framing */
    uint64_t events;     /* complete SSE events, [DONE] among them */
    bool done;           /* the last event was [DONE] */
    size_t sse_line_len;
    char lead[RESPONSE_LEAD_BYTES]; /* the first bytes of the event being read */
    size_t lead_len;
    size_t head_len;
    char head[RESPONSE_HEAD_BYTES + 1];
};

void response_reset(struct response *self);
/** Takes what has been read. Bytes after the end of the answer break it: none was asked for. */
void response_feed(struct response *self, const char *data, size_t len);
/** The connection has ended: makes the answer whole or broken. */
void response_close(struct response *self);

#endif
