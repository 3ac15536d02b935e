/*
 * Stage: a gateway that is played. The request code, the policies' VM and the health engine are
 * those of production; the clock is virtual, the upstreams follow a script, the clients are
 * recorded. Nothing is sent and nothing waits: the clock jumps to what is due next. The same seed
 * and the same script give the same run.
 *
 * Thread: one. Several stages may stand side by side, and one may be run from inside another's
 * on_call; the process's clock, random numbers and log are a stage's own only while it runs.
 *
 *   stage.c           life, and letting time pass
 *   stage_upstream.c  the transport: a try, as the script says
 *   stage_client.c    the exchange: what a client sends, and what it has got
 *   stage_answer.c    an upstream's answer as data
 *   stage_checks.c    active checks, as the owner says
 *   stage_lua.c       the same for specs
 *
 * Not played: the listener with its limits, connections and their pools, TLS; active health checks
 * only where ops.on_check is given (then something will always happen: it is never idle).
 */
#ifndef PL_STAGE_H
#define PL_STAGE_H

#include "attempt.h"
#include "base.h"
#include "config.h"
#include "exchange.h"
#include "figures.h"
#include "headers.h"
#include "target.h"
#include "timer.h"

struct pl_stage;
struct pl_stage_client;

/* ---- an upstream's answer ---- */

enum pl_stage_ending {
    PL_STAGE_WHOLE, /* ends as it should */
    PL_STAGE_CUT,   /* the connection breaks */
    PL_STAGE_STALL, /* nothing more comes */
};

struct pl_stage_piece {
    uint64_t after_us; /* since the piece before, or since the head */
    size_t offset, len;
};

/**
 * What an upstream does with a call; immutable once it is in use, so that many calls may share it.
 * Either `hangs`, or `failure`, or a head with pieces of a body.
 */
struct pl_stage_answer {
    uint32_t reference_count;
    bool hangs;              /* takes the request and says nothing */
    enum pl_failure failure; /* instead of a head */
    uint64_t head_after_us;  /* since the call; of the failure, too */
    int status;
    bool chunked;          /* the body's length is not told */
    uint64_t length_bytes; /* that is told; 0: that of all pieces */
    struct pl_headers headers;
    struct pl_stage_piece *pieces;
    size_t piece_count, piece_cap;
    char *bytes; /* of all pieces, one after the other */
    size_t byte_count, byte_cap;
    enum pl_stage_ending ending;
    uint64_t end_after_us; /* since the last piece */
};

/** A good, empty answer with one reference. */
struct pl_stage_answer *pl_stage_answer_new(void);
void pl_stage_answer_ref(struct pl_stage_answer *self);
/** NULL is let pass. */
void pl_stage_answer_unref(struct pl_stage_answer *self);
/** Appends a copy. An empty piece only takes time. */
void pl_stage_answer_add(struct pl_stage_answer *self, uint64_t after_us, const char *data,
                         size_t len);

/* ---- a call ---- */

enum pl_stage_call_state {
    PL_STAGE_CALL_OPEN,
    PL_STAGE_CALL_ENDED,     /* see `failure` */
    PL_STAGE_CALL_CANCELLED, /* by the gateway: a limit of the request, or the client has left */
};

/** One try, as its upstream sees it. */
struct pl_stage_call {
    uint64_t number; /* from 1 on, over all upstreams */
    const struct pl_target *target;
    const struct pl_provider *provider;
    uint64_t at_us, ended_us;   /* since the stage began */
    const struct iovec *pieces; /* the request, head first; only within on_call */
    size_t piece_count;
    enum pl_stage_call_state state;
    enum pl_failure failure; /* NONE: a whole answer */
    uint64_t client_number;  /* whose request it is for; 0: one that has its answer already */
    void *user;              /* the owner's */
};

struct pl_stage_ops {
    /**
     * An upstream is called: what it answers, as a reference that is taken; NULL: it hangs. The
     * stage may not be touched from inside, but for pl_stage_stop.
     */
    struct pl_stage_answer *(*on_call)(struct pl_stage_call *call, void *arg);
    /** The try is over; the call is gone when this returns. From inside anything; touches nothing.
     */
    void (*on_call_end)(struct pl_stage_call *call, void *arg);
    /** A client's answer has ended, or the client has left. From inside anything; touches nothing.
     */
    void (*on_client_end)(const struct pl_stage_client *client, void *arg);
    /** An active check of a provider: the status of its answer, 0 when none came in time. Touches
     *  nothing. NULL: no checks are played. */
    int (*on_check)(const struct pl_provider *provider, uint64_t at_us, void *arg);
};

/* ---- the stage ---- */

struct pl_stage_options {
    const struct pl_config_source *source;
    uint64_t seed;          /* of random numbers and request ids */
    uint64_t start_wall_ms; /* what the wall clock shows at first */
    size_t log_line_max;    /* how much of the log is kept; 0: all */
    size_t body_max_bytes;  /* how much of an answer its client keeps; 0: all */
    bool is_mute;           /* clients that wait get no heartbeats, which would look like answers */
    const struct pl_stage_ops *ops;
    void *arg;
};

/** Loads as `perilune run` does. NULL when anything is wrong: `problems` then has a new string. */
struct pl_stage *pl_stage_new(const struct pl_stage_options *options, char **problems);
/** Breaks off what is open; its clients stay with their owners. Not while it runs. NULL is let
 *  pass. No on_call_end comes any more. */
void pl_stage_free(struct pl_stage *self);

enum pl_stage_pause {
    PL_STAGE_AT_TIME, /* the time asked for has come */
    PL_STAGE_AT_END,  /* the client asked for has its answer, or has left */
    PL_STAGE_IDLE,    /* nothing will happen any more */
    PL_STAGE_STUCK,   /* more and more happens, but no time passes */
    PL_STAGE_STOPPED, /* by pl_stage_stop */
};

/**
 * Lets time pass: all that is due until `until_us` (UINT64_MAX: for ever) happens in order, or only
 * until `client` (NULL: nobody) has ended. Where that time is reached the clock stands at it.
 */
enum pl_stage_pause pl_stage_run(struct pl_stage *self, uint64_t until_us,
                                 const struct pl_stage_client *client);
/** Has the running pl_stage_run return as soon as it can. */
void pl_stage_stop(struct pl_stage *self);
/** Whether it runs right now: then only on_call may be on the stack above. */
bool pl_stage_is_running(const struct pl_stage *self);

/** Microseconds since the stage began. */
uint64_t pl_stage_now_us(const struct pl_stage *self);
/** For events of the owner's own. */
struct pl_timeline *pl_stage_timeline(struct pl_stage *self);
const struct pl_topology *pl_stage_topology(const struct pl_stage *self);
size_t pl_stage_active_count(const struct pl_stage *self);
/** What became of its requests so far. */
void pl_stage_read_figures(const struct pl_stage *self, struct pl_figures_view *out);
/** The log so far; each line is terminated, without a line feed. */
const char *const *pl_stage_log(const struct pl_stage *self, size_t *count);
/** As an operator does: ejects a slot for that long (UINT64_MAX: until restored), or restores it.
 */
void pl_stage_eject(struct pl_stage *self, pl_health_slot slot, uint64_t duration_ms);
void pl_stage_restore(struct pl_stage *self, pl_health_slot slot);
void pl_stage_look(struct pl_stage *self, pl_health_slot slot, struct pl_health_view *out);

/* ---- clients ---- */

struct pl_stage_request {
    struct pl_str method, target;     /* target: path and query */
    const struct pl_headers *headers; /* or NULL */
    struct pl_str body, peer;
};

enum pl_stage_end {
    PL_STAGE_OPEN,
    PL_STAGE_COMPLETE, /* a whole answer */
    PL_STAGE_BROKEN,   /* broken off after a part of it */
    PL_STAGE_RESET,    /* broken off without any */
    PL_STAGE_LEFT,     /* the client has left */
};

/** A request and what its client has got so far; read-only for the owner. */
struct pl_stage_client {
    struct pl_exchange exchange; /* at the head, see stage_client.c */
    struct pl_stage *stage;
    uint64_t number; /* from 1 on */
    char *method, *target, *request_body, *peer;
    size_t request_body_len;
    enum pl_stage_end end;
    int status; /* 0: no head yet */
    struct pl_headers headers;
    char *body;
    size_t body_len, body_cap;
    uint64_t started_us, first_byte_us,
        ended_us; /* since the stage began; first byte: of the head */
    bool begun, dropped;
    void *user; /* the owner's */
};

/** A request arrives now; its policy runs at once, up to where it waits. Copies all of it. */
struct pl_stage_client *pl_stage_start(struct pl_stage *self,
                                       const struct pl_stage_request *request);
/** The client leaves, if its answer is not whole. */
void pl_stage_leave(struct pl_stage_client *self);
/** What its policy waits for, as a few words; NULL when it has ended. */
const char *pl_stage_waits_for(const struct pl_stage_client *self);
/** The owner needs it no more; an open one goes on unseen. NULL is let pass. */
void pl_stage_client_free(struct pl_stage_client *self);

#endif
