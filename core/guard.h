/*
 * Guard: a strict, incremental scanner of HTTP/1 requests. The only reader of what clients send:
 * evhttp's parser is too lenient at the edge (it takes two Content-Lengths, bare LF, folded lines,
 * spaces before the colon, NUL bytes, bodies on HEAD, unknown codings) and gets none of it.
 *
 * Pure, any thread, no I/O. It sees each byte once, copies nothing but the few names and numbers it
 * must compare, and says where the target, the fields and the body lie, when a message is whole, or
 * why it is refused. None of that depends on how the bytes are cut into pieces.
 */
#ifndef PL_GUARD_H
#define PL_GUARD_H

#include "base.h"
#include "headers.h"

struct pl_guard_limits {
    uint32_t request_line_bytes; /* with its line end; more: 414 */
    uint32_t head_bytes;         /* request line, all fields, the empty line; more: 431 */
    uint32_t header_count;       /* more: 431 */
    uint64_t body_bytes;         /* declared or counted, without chunk framing; more: 413 */
};

enum pl_guard_verdict {
    PL_GUARD_MORE,    /* the message is not whole */
    PL_GUARD_DONE,    /* the message is whole; bytes after it were not taken */
    PL_GUARD_REFUSED, /* see status and reason; the connection must end */
};

enum pl_guard_phase { PL_GUARD_IDLE, PL_GUARD_IN_HEAD, PL_GUARD_IN_BODY, PL_GUARD_COMPLETE };

struct pl_guard {
    const struct pl_guard_limits *limits; /* borrowed */
    struct pl_guard_limits in_force;      /* these, as they were when the message began */
    enum pl_guard_phase phase;            /* IDLE: no byte of a message yet; for the timers */
    int status;                           /* when refused: 400, 405, 413, 414, 417, 431, 501, 505 */
    const char *reason;    /* when refused: a sentence for the client, valid until reset */
    uint64_t body_bytes;   /* body bytes taken so far, without chunk framing */
    bool expects_continue; /* HTTP/1.1, and the head asked for 100-continue */
    /* the next three are known once the head is whole */
    uint8_t minor_version;
    bool is_head;                       /* the method is HEAD */
    uint32_t target_offset, target_len; /* from the message's first byte */
    /* private to guard*.c below */
    struct pl_headers *fields; /* borrowed; may be NULL */
    uint8_t state, method, field;
    uint8_t seen_fields;  /* bits by field */
    bool value_is_padded; /* white space has come behind the value */
    uint8_t text_len;     /* of `text`; one more than fits when it was cut */
    uint32_t head_bytes, header_count;
    const char *piece;                  /* the bytes being scanned; `head_bytes` came before them */
    uint32_t name_offset, colon_offset; /* of the field being read */
    uint64_t left_bytes;                /* of the body, or of the chunk being read */
    uint64_t chunk_count;               /* so far; bounded, see guard.c */
    char text[104];                     /* the name or value being read; the reason once refused */
};

/** Borrows `limits`, which may be shared by many guards. */
void pl_guard_init(struct pl_guard *self, const struct pl_guard_limits *limits);
/** Ready for the next message on the same connection. Its fields are added to `fields` (borrowed
 *  until the head is whole; may be NULL) as places in the head, see pl_headers_add_place. */
void pl_guard_reset(struct pl_guard *self, struct pl_headers *fields);
/**
 * Feeds bytes, until the head is whole or after a run of body bytes, whichever comes first: the
 * caller comes again with the rest. `*consumed_bytes` says how many were taken; when refused, how
 * many were in order. `*body` is what of these is body, without chunk framing: often nothing. Once
 * whole or refused, the verdict stays and nothing is taken until the reset.
 */
PL_NODISCARD enum pl_guard_verdict pl_guard_feed(struct pl_guard *self, const char *data,
                                                 size_t len, size_t *consumed_bytes,
                                                 struct pl_str *body);
/** "GET", ...; known once the head is whole. */
const char *pl_guard_method(const struct pl_guard *self);

#endif
