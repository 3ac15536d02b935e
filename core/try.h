/*
 * Try: one try of a request, from the place that is reserved for it to the end of its answer. What
 * belongs to the try and not to the request is here: the upstream's request, the attempt, what came
 * back, the place at the target and the line in the trail.
 *
 * Thread: one worker. A try is a part of its request's record, and used again by the next one: what
 * it holds for another try (room for the upstream's request, for headers) stays. The callbacks of
 * its attempt get the try; what they find out wakes the request's policy, after which request and
 * try may be gone.
 *
 *   admit.c    a place at a target, and what its health learns
 *   forward.c  the upstream's request
 *   send.c     start, gate and verdict
 *   hedge.c    two of them at once
 *   relay.c    its answer to the client
 *   request_record.c  token counts
 */
#ifndef PL_TRY_H
#define PL_TRY_H

#include "attempt.h"
#include "base.h"
#include "gate.h"
#include "headers.h"
#include "health.h"
#include "json.h"
#include "record.h"
#include "rescue_write.h"
#include "sse.h"
#include "target.h"
#include "timer.h"
#include "usage.h"
#include <event2/buffer.h>
#include <sys/queue.h>

#define PL_TRAIL_MAX         64
#define PL_HELD_MAX_BYTES    65536
#define PL_COLLECT_MAX_BYTES (1024 * 1024)
#define PL_EVENT_MAX_BYTES   (1024 * 1024)
#define PL_TAIL_MAX_BYTES    4096

#define PL_TRY_MIN_MS 100 /* less than that is not left to a try by what is kept for others */

#define PL_NO_TRAIL_ENTRY SIZE_MAX

struct pl_request;

/** Where the bytes of the upstream's answer go. */
enum pl_intake {
    PL_INTAKE_GATED,      /* held until the first event that means something */
    PL_INTAKE_CHECKED,    /* held whole, up to PL_COLLECT_MAX_BYTES, before the policy sees it */
    PL_INTAKE_HELD,       /* held until the policy decides; reading stops at PL_HELD_MAX_BYTES */
    PL_INTAKE_COLLECTING, /* held whole for the policy, up to PL_COLLECT_MAX_BYTES */
    PL_INTAKE_RELAYING,   /* to the client */
};

/** How a try goes on with an answer that broke off: see rescue.h. */
enum pl_resume { PL_RESUME_NONE, PL_RESUME_CONTINUE, PL_RESUME_RESTART };

/** "continue", "restart"; NULL for NONE. */
const char *pl_resume_name(enum pl_resume resume);

struct pl_trail_entry {
    const struct pl_target *target;
    int status; /* 0: no answer, see failure */
    enum pl_failure failure;
    uint32_t duration_ms; /* until it could be judged */
    enum pl_class class;
    uint32_t start_ms; /* since the request's start; from here on, since the try's */
    uint32_t connect_ms, head_ms, first_token_ms; /* PL_UNKNOWN_MS: it did not come to that */
    uint32_t total_ms;
    uint64_t body_bytes;
    bool reused;
    enum pl_resume resume;
    bool parted;                    /* it did not go on from what was said before */
    uint32_t malformed_event_count; /* that were seen */
    bool sent;                      /* something of the request */
    uint8_t key;                    /* of its provider's keys it had this one, from 1 on; 0: none */
    enum pl_work work;
    char *detail;     /* why it failed, for people; NULL: nothing to say. Owned. */
    bool is_hedge;    /* asked while another was still at work */
    uint64_t span_id; /* 0: none */
    /* of a try whose answer was dropped for another's; -1: not told */
    int64_t input_tokens, output_tokens;
};

/** The upstream's answer to a try, as long as the next try has not dropped it. */
struct pl_response {
    uint32_t serial; /* no other answer of the request has it: stale Lua objects are recognised */
    int status;
    struct pl_headers headers;
    enum pl_framing framing;
    int64_t content_length_bytes; /* < 0: not declared */
    bool live, is_sse;
    bool complete;           /* the body has been read to its end */
    enum pl_failure failure; /* how it ended after the head; NONE while it lasts */
    char *detail;            /* of the failure, before or after the head; NULL: none. Owned. */
    uint32_t head_ms;
    enum pl_intake intake;
    struct evbuffer *held;   /* bytes not passed on yet; NULL while none were */
    size_t held_whole_bytes; /* of these, up to the end of the last whole event */
    struct pl_sse sse;
    struct pl_gate gate;
    char *tail; /* the last events that were passed on unread; NULL: none. Owned. */
    uint16_t tail_len, tail_cap;
    bool tail_is_cut;    /* they were longer than that */
    struct pl_str error; /* what it says in place of an answer; empty: nothing, or it was settled */
};

/** A place at a target: reserved by admit, taken over by the next send to it. */
struct pl_place {
    const struct pl_target *of;                    /* NULL: none */
    struct pl_health_ticket target, provider, key; /* key: of no slot where there are none */
    size_t key_index;
    bool good; /* a good answer has begun; how it ends is the outcome */
    bool reported;
};

enum pl_admission { PL_ADMIT_OK, PL_ADMIT_OUT, PL_ADMIT_BUSY };

struct pl_try {
    struct pl_request *request; /* of a spare one: the last */
    const struct pl_target *target;
    uint64_t start_ms;
    struct pl_attempt *attempt; /* NULL: not at work */
    uint64_t answer_by_ms;      /* until when its answer must have begun; 0: no such limit */
    struct pl_timer gate_timer; /* of that limit, and of the wait for a stream's first content; and
                                   later, while bytes come but no event */
    uint64_t event_ms;          /* when the last event was passed on */
    bool watches_silence;
    enum pl_resume resume;
    struct pl_rescue_text prefix; /* of a body that asks for what follows: messages, the prompt */
    char token_limits[2][PL_NUMBER_MAX]; /* the same */
    char *head;                          /* of the upstream's request */
    size_t head_len, head_cap;
    struct pl_json_splice splice;
    struct iovec *pieces;
    size_t piece_cap;
    struct pl_response response;
    struct pl_place place;
    struct pl_trail_entry so_far; /* what is known of it, before it has an entry of its own */
    size_t trail_index;           /* of its entry, or PL_NO_TRAIL_ENTRY */
    struct pl_usage_scan usage;   /* of the answer at hand, if `reads_usage` */
    bool is_judged;               /* its policy can judge it: there is an answer, or none will be */
    bool trail_is_open;           /* it has its entry, and is still at work */
    bool paused;                  /* the attempt waits for the client to read */
    bool timer_cuts;              /* what the timer runs for is answer_by_ms ... */
    bool cut;                     /* ... and it has come */
    bool reads_usage;
    bool is_unsettled;        /* its health has not heard of it: see pl_request_settle_class */
    bool key_is_marked;       /* what came of it took its key out */
    bool hides_usage;         /* the answer's usage event is ours: the client does not get it */
    bool hidden_ends_in_cr;   /* an LF that comes next belongs to it */
    char *stream_options;     /* what is sent in place of the client's, which asks for no usage, or
                                 NULL */
    SLIST_ENTRY(pl_try) link; /* in runtime->spare_tries */
};

SLIST_HEAD(pl_try_list, pl_try);

/* ---- send.c ---- */

void pl_try_init(struct pl_try *self, struct pl_request *request);
/** Frees what is kept for the next one. It must have been dropped. */
void pl_try_deinit(struct pl_try *self);
/** Starts it. PL_ERR_LIMIT: the trail is full. PL_ERR_SYNTAX: the body cannot be changed as the
 *  target and the policy ask. */
PL_NODISCARD int pl_try_start(struct pl_try *self, const struct pl_target *target);
/** Ends the attempt, if any; the try's entry in the trail says for how long it went on. */
void pl_try_cancel(struct pl_try *self);
/** Ends the attempt, if any, without a trace, gives back the place and drops the answer. */
void pl_try_drop(struct pl_try *self);
/** Bytes have come, but no event: ends the try if that has lasted too long. */
void pl_try_check_silence(struct pl_try *self);
/** Writes down a try that is given up before it could be judged, as what. */
void pl_try_abandon(struct pl_try *self, enum pl_class class);
/** Ends it as failed, without waking the policy. It must not have been judged. */
void pl_try_fail_quietly(struct pl_try *self, enum pl_failure failure, const char *detail);
/** Its answer, good at first, was not whole: for its entry in the trail. */
void pl_try_note_cut(struct pl_try *self);
/** Its entry in the trail, until the trail grows; NULL: it has none yet. */
struct pl_trail_entry *pl_try_entry(const struct pl_try *self);
/** Keeps bytes of the answer that cannot be passed on yet. */
void pl_response_hold(struct pl_response *self, const char *data, size_t len);
/** Says why it failed; `detail` is copied, the first one stays. */
void pl_response_explain(struct pl_response *self, const char *detail);

/* ---- admit.c ---- */

/**
 * Reserves a place at a target, giving back any other. OUT: it or its provider is ejected, or the
 * single probe is taken; BUSY: its limit of concurrent requests is reached. `forced` admits to
 * ejected ones, too.
 */
enum pl_admission pl_try_admit(struct pl_try *self, const struct pl_target *target, bool forced);
/**
 * Gives the place back. Without a report before: the outcome of a good answer is how it ended
 * (response.failure), otherwise it is neutral. Idempotent.
 */
void pl_try_leave(struct pl_try *self);
/** Its outcome, once: a status, or a failure. That it was cut, or the deadline has come, counts
 * only when it has had the time that the route thinks is a chance. */
void pl_try_report_status(struct pl_try *self, int status, uint32_t first_token_ms);
void pl_try_report_failure(struct pl_try *self, enum pl_failure failure);
/** The same of an answer, or a failure, that is of another class than it says itself. */
void pl_try_report_class(struct pl_try *self, enum pl_class class, bool answered);

/** Its key was refused: out for a while, for all requests. Nothing without a key. */
void pl_try_refuse_key(struct pl_try *self);
/** The upstream wants to hear no more of its key for so long. Returns false, and does nothing, when
 *  its provider has no other key: then that is said of the target. */
bool pl_try_pause_key(struct pl_try *self, uint64_t duration_ms);

/* ---- forward.c ---- */

/** Lays out the upstream's request in `pieces`. */
PL_NODISCARD int pl_try_build(struct pl_try *self, size_t *out_count);

/* ---- request_record.c ---- */

/** The answer's body is to be looked through for token counts, if it is a good one. */
void pl_try_read_usage(struct pl_try *self);
/** What was read of an answer is forgotten. */
void pl_try_forget_usage(struct pl_try *self);

#endif
