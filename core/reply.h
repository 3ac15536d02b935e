/*
 * Reply: the bytes of a response head. Pure, any thread.
 */
#ifndef PL_REPLY_H
#define PL_REPLY_H

#include "base.h"
#include "headers.h"
#include <event2/buffer.h>

struct pl_reply {
    int status;
    int minor_version;                /* of the answer: 0 for HTTP/1.0 clients */
    const struct pl_headers *headers; /* or NULL; holds no framing, connection or Date fields */
    int64_t content_length_bytes;     /* < 0: none is sent */
    bool chunked;
    bool close; /* adds Connection: close */
};

/** Appends the head to `out`. The reason phrase is always the standard one for the status. */
void pl_reply_write_head(struct evbuffer *out, const struct pl_reply *reply);
/** Standard reason phrase; "Unknown" for a status without one. */
const char *pl_reply_phrase(int status);
/** True when an answer of that status has no body (1xx, 204, 304). */
bool pl_reply_is_bodiless(int status);

#endif
