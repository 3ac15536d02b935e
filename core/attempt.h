/*
 * Attempt: one try of one request against one upstream, over HTTP/1.1.
 *
 * Thread: one worker. Speaks HTTP/1.1 itself on a non-blocking socket (OpenSSL on top for TLS):
 * resolve, connect (all addresses in turn), handshake, send head and body in one go while reading,
 * parse strictly, hand on body bytes, and give the connection back to the pool only after a clean
 * end. Knows nothing of Lua, of policies or of the client's side.
 *
 * Life: start -> (callbacks) -> on_done, after which the attempt is gone; or cancel at any time,
 * after which no callback comes. No callback is made from inside start, cancel or resume. It may be
 * cancelled or paused from inside its own callbacks.
 *
 * A reused connection that dies before any byte of an answer is replaced once by a fresh one, when
 * nothing of the answer has been seen (the peer closed an idle connection at the same moment). In
 * theory the peer may have read the request and served it: who cannot have that says `sends_once`.
 */
#ifndef PL_ATTEMPT_H
#define PL_ATTEMPT_H

#include "base.h"
#include "http1.h"
#include "pool.h"
#include <sys/uio.h>

/** How an attempt ended, other than by a whole answer. Names are the outcome classes of Lua. */
enum pl_failure {
    PL_FAIL_NONE, /* a whole answer */
    /* up to server_error: what an error says that came under status 200. Never from an attempt,
       only from its owner, who looks into the body. */
    PL_FAIL_RATE_LIMITED,
    PL_FAIL_AUTH,
    PL_FAIL_BILLING,
    PL_FAIL_MODEL_NOT_FOUND,
    PL_FAIL_CONTEXT_LENGTH,
    PL_FAIL_CONTENT_FILTER,
    PL_FAIL_CLIENT_FAULT,
    PL_FAIL_OVERLOADED,
    PL_FAIL_SERVER_ERROR,
    PL_FAIL_DNS,             /* the name could not be resolved */
    PL_FAIL_CONNECT,         /* no address accepted a connection */
    PL_FAIL_TLS,             /* handshake or verification failed */
    PL_FAIL_RESET,           /* closed or reset before a whole response head */
    PL_FAIL_TIMEOUT_CONNECT, /* connect or handshake took too long */
    PL_FAIL_TIMEOUT_HEAD,    /* no response head in time */
    PL_FAIL_TIMEOUT_FIRST_TOKEN,
    PL_FAIL_TIMEOUT_IDLE,     /* silence within the body */
    PL_FAIL_TIMEOUT_TRY,      /* the whole attempt took too long */
    PL_FAIL_TIMEOUT_DEADLINE, /* the request's deadline passed */
    PL_FAIL_TRUNCATED,        /* the body ended early */
    PL_FAIL_MALFORMED,        /* not HTTP/1.1 as the RFC has it, or no JSON where JSON is due */
    PL_FAIL_EMPTY,            /* an answer without content */
};

/** "connect", "timeout_head", ...; "ok" for PL_FAIL_NONE. */
const char *pl_failure_name(enum pl_failure failure);

/** Limits in milliseconds; 0 means none. */
struct pl_attempt_limits {
    uint32_t connect_ms;     /* TCP connect, all addresses together, name lookup included */
    uint32_t tls_ms;         /* handshake */
    uint32_t head_ms;        /* from the request written to the response head read */
    uint32_t first_token_ms; /* enforced by the owner */
    uint32_t idle_ms;        /* between two reads of body bytes; stands still while paused */
    uint32_t try_ms;         /* from start to the end of the body */
};

struct pl_attempt;

struct pl_attempt_ops {
    /** The response head has been read (final status; 1xx are skipped). See pl_attempt_head. */
    void (*on_head)(struct pl_attempt *attempt, void *arg);
    /** Body bytes without transfer coding, borrowed for the call. Never empty. */
    void (*on_body)(struct pl_attempt *attempt, const char *data, size_t len, void *arg);
    /** The end. PL_FAIL_NONE: the body is whole. The attempt is freed when this returns. */
    void (*on_done)(struct pl_attempt *attempt, enum pl_failure failure, void *arg);
};

struct pl_attempt_request {
    const struct iovec *pieces; /* the whole request: head and body, as they lie; borrowed until
                                   on_done or cancel (the array itself, too) */
    size_t piece_count;
    bool is_head;            /* method HEAD: the answer has no body */
    uint64_t credential_tag; /* connections are shared only between equal tags */
    bool sends_once;         /* never again over a fresh connection, once a byte has gone out */
};

/** What can be told of an attempt while it lives (from on_done, too). Times are since start. */
struct pl_attempt_stats {
    uint32_t connect_ms, head_ms, total_ms;
    uint64_t body_bytes;
    bool reused;       /* served by a pooled connection */
    bool request_sent; /* any byte of the request was handed to the kernel */
    char detail[160]; /* why it failed, for people: "connect to 10.0.0.1:443: Connection refused" */
};

/** Starts. Borrows `request->pieces`, copies the rest; never fails at once, on_done tells. */
struct pl_attempt *pl_attempt_start(struct pl_pool *pool, const struct pl_attempt_request *request,
                                    const struct pl_attempt_limits *limits,
                                    const struct pl_attempt_ops *ops, void *arg);
/** Ends it without a callback and closes its connection. Idempotent only through the owner: the
 *  pointer is dead afterwards (memory is kept until its own callback has unwound). */
void pl_attempt_cancel(struct pl_attempt *attempt);
/** No on_body and no on_done for the body's end until resume. Reading stops; timers for idle stop.
 */
void pl_attempt_pause(struct pl_attempt *attempt);
void pl_attempt_resume(struct pl_attempt *attempt);
/** From on_head on: the request has been written whole, and its pieces will not be read again. */
bool pl_attempt_is_sent(const struct pl_attempt *attempt);
/** Valid from on_head until the end. */
const struct pl_response_head *pl_attempt_head(const struct pl_attempt *attempt);
const struct pl_attempt_stats *pl_attempt_stats(struct pl_attempt *attempt);

#endif
