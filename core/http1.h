/*
 * HTTP/1.1 as a client reads it: a strict response head, and the chunked coding.
 *
 * Pure, any thread, no I/O. The caller keeps the unread bytes; nothing here holds a pointer into
 * them after it has returned. Grammar: RFC 9112.
 */
#ifndef PL_HTTP1_H
#define PL_HTTP1_H

#include "base.h"
#include "headers.h"

#define PL_HTTP1_MAX_HEAD_BYTES 65536
#define PL_HTTP1_MAX_HEADERS    128

enum pl_framing {
    PL_FRAMING_NONE,    /* no body: HEAD, 204, 304 */
    PL_FRAMING_LENGTH,  /* content_length_bytes bytes */
    PL_FRAMING_CHUNKED, /* chunked coding */
    PL_FRAMING_EOF,     /* until the peer closes */
};

struct pl_response_head {
    int status;        /* 100..599 */
    int minor_version; /* 0 or 1 */
    bool keep_alive;   /* may the connection be used again after the body */
    enum pl_framing framing;
    uint64_t content_length_bytes;
    struct pl_headers headers;
    /* private to http1.c below */
    size_t searched_bytes; /* of the buffer, already searched for the end of the head */
};

void pl_response_head_init(struct pl_response_head *self);
void pl_response_head_deinit(struct pl_response_head *self);

/**
 * Parses one response head from the start of `data`. Returns the bytes used (> 0), 0 when the head
 * is not whole yet, PL_ERR_SYNTAX for anything RFC 9112 forbids (bare LF or CR, folded lines, space
 * before the colon, NUL, two Content-Lengths that differ, Content-Length with Transfer-Encoding,
 * codings other than one final "chunked", bad version, status outside 100..599) and PL_ERR_LIMIT
 * past PL_HTTP1_MAX_HEAD_BYTES or PL_HTTP1_MAX_HEADERS. `is_head_request`: no body follows whatever
 * the headers say. A 1xx status is reported like any other, with framing NONE; 101 is refused, as
 * nothing here asks for another protocol. One kindness: the space before an empty reason phrase may
 * be missing.
 *
 * After 0 call again with the same bytes and more behind them; what was searched is not searched
 * again. Before turning to another stream after 0, deinit and init. After any other result the next
 * head may follow. All fields but `headers` are only meaningful after a result > 0.
 */
PL_NODISCARD long pl_response_head_parse(struct pl_response_head *self, const char *data,
                                         size_t len, bool is_head_request);

/** Incremental decoder of the chunked coding (RFC 9112 7.1), extensions and trailers included. */
struct pl_chunked {
    int state;
    uint64_t left_bytes; /* of the chunk being read */
    uint32_t line_bytes; /* of the size line or of the trailers, to bound them (8 KB) */
    uint8_t digit_count; /* of the size being read */
    bool done;           /* the last chunk and the trailers have been read */
};

void pl_chunked_init(struct pl_chunked *self);
/**
 * Consumes bytes from `data` until it has a run of body bytes, is done, or needs more. Returns the
 * bytes consumed (>= 0), or PL_ERR_SYNTAX / PL_ERR_LIMIT. `*body` is set to the run of body bytes
 * found (a part of `data`), empty when none. Call again with the rest while the return value is > 0
 * and `done` is false. Bytes after the end of the message are not consumed.
 */
PL_NODISCARD long pl_chunked_next(struct pl_chunked *self, const char *data, size_t len,
                                  struct pl_str *body);

#endif
