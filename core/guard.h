/*
 * Guard: a strict, incremental scanner of HTTP/1 requests, placed in front of the server's own
 * parser, which is too lenient at the edge (it takes two Content-Lengths, bare LF, folded lines,
 * spaces before the colon, NUL bytes, bodies on HEAD, unknown codings).
 *
 * Pure, any thread, no I/O, no allocation. It sees each byte once, copies nothing but the few names
 * and numbers it must compare, and says when a message is whole or why it is refused. The verdict,
 * the status and the reason do not depend on how the bytes are cut into pieces.
 */
#ifndef PL_GUARD_H
#define PL_GUARD_H

#include "base.h"

struct pl_guard_limits {
    uint32_t request_line_bytes; /* with its line end; more: 414 */
    uint32_t head_bytes;         /* request line, all fields, the empty line; more: 431 */
    uint32_t header_count;       /* more: 431 */
    uint64_t body_bytes;         /* declared or counted, without chunk framing; more: 413 */
};

enum pl_guard_verdict {
    PL_GUARD_MORE,    /* all bytes were taken, the message is not whole */
    PL_GUARD_DONE,    /* the message is whole; bytes after it were not taken */
    PL_GUARD_REFUSED, /* see status and reason; the connection must end */
};

enum pl_guard_phase { PL_GUARD_IDLE, PL_GUARD_IN_HEAD, PL_GUARD_IN_BODY, PL_GUARD_COMPLETE };

struct pl_guard {
    const struct pl_guard_limits *limits; /* borrowed */
    enum pl_guard_phase phase;            /* IDLE: no byte of a message yet; for the timers */
    int status;                           /* when refused: 400, 405, 413, 414, 417, 431, 501, 505 */
    const char *reason;    /* when refused: a sentence for the client, valid until reset */
    uint64_t body_bytes;   /* body bytes taken so far, without chunk framing */
    bool expects_continue; /* HTTP/1.1, and the head asked for 100-continue; known once in body */
    /* private to guard*.c below */
    uint8_t state, method, field;
    uint8_t minor_version;
    uint8_t seen_fields;  /* bits by field */
    bool value_is_padded; /* white space has come behind the value */
    uint8_t text_len;     /* of `text`; one more than fits when it was cut */
    uint32_t head_bytes, header_count;
    uint64_t left_bytes;  /* of the body, or of the chunk being read */
    uint64_t chunk_count; /* so far; bounded, see guard.c */
    char text[104];       /* the name or value being read; the reason once refused */
};

/** Borrows `limits`, which may be shared by many guards. */
void pl_guard_init(struct pl_guard *self, const struct pl_guard_limits *limits);
/** Ready for the next message on the same connection. */
void pl_guard_reset(struct pl_guard *self);
/**
 * Feeds bytes. `*consumed_bytes` says how many belong to this message; when refused, how many were
 * in order. Once whole or refused, the verdict stays and nothing is taken until the reset.
 */
PL_NODISCARD enum pl_guard_verdict pl_guard_feed(struct pl_guard *self, const char *data,
                                                 size_t len, size_t *consumed_bytes);
/**
 * Takes up to `len` bytes within a body or a chunk without a look at them, but never the last one,
 * which `feed` must judge. Returns how many; spares the caller to find them in its buffers.
 */
size_t pl_guard_skip(struct pl_guard *self, size_t len);

#endif
