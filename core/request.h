/*
 * Request: one client request from arrival to end: its body as data, its policy run, its tries, its
 * answer. The only place where the network half and the script half meet.
 *
 * Thread: one worker. A request owns its exchange (until answered), its coroutine and its try.
 * Records are recycled, never given back while the runtime lives, and carry a serial number, so
 * that what Lua still holds of an ended request is recognised as such.
 *
 *   request.c  life: begin, deadline, client gone, edits, end
 *   request_policy.c  its policy: run, wake, and the floor policy when it fails
 *   try.h      one try of it: what it holds, and what can be done with it
 *   admit.c    a place at a target, and what its health learns
 *   forward.c  the upstream's request
 *   send.c     one try: its start, and what its answer does before the commit
 *   hedge.c    a second try beside a slow one
 *   relay.c    the commit: the answer to the client; relay_stream.c, relay_end.c: streams
 *   relay_seam.c  a stream that breaks off, and goes on from another target
 *   request_heartbeat.c  what a client hears before
 *   request_record.c  what is told of it at its end
 *   request_trace.c  its trace
 */
#ifndef PL_REQUEST_H
#define PL_REQUEST_H

#include "access_log.h"
#include "base.h"
#include "client_error.h"
#include "coroutine.h"
#include "deadline.h"
#include "generation.h"
#include "json.h"
#include "metrics.h"
#include "multipart.h"
#include "recent.h"
#include "record.h"
#include "record_text.h"
#include "server.h"
#include "spans.h"
#include "target.h"
#include "timer.h"
#include "trace.h"
#include "transport.h"
#include "try.h"
#include "usage_event.h"
#include "watchdog.h"
#include <sys/queue.h>

#define PL_REQUEST_ID_MAX          128
#define PL_REQUEST_EDITS_MAX       64
#define PL_REQUEST_EDITS_MAX_BYTES (16u * 1024 * 1024)

/** What the policy of a request waits for. */
enum pl_wait {
    PL_WAIT_NONE,
    PL_WAIT_ANSWER,   /* head (or first content, or error body) of the upstream's answer */
    PL_WAIT_BODY,     /* the rest of an answer that the policy wants to read */
    PL_WAIT_RELAY,    /* the end of the answer that is being relayed */
    PL_WAIT_WRITABLE, /* the client to take what the policy has written */
    PL_WAIT_TIMER,    /* a sleep */
};

/** When an answer that streams is one, and what of others is looked into; from the route. */
struct pl_gate_options {
    enum pl_gate_on { PL_GATE_ON_CONTENT, PL_GATE_ON_EVENT, PL_GATE_ON_HEAD } on;
    uint32_t max_bytes;    /* held without a verdict, then it is passed on; 0: PL_HELD_MAX_BYTES */
    bool check_body;       /* a good answer that does not stream is judged by its body */
    bool drops_malformed;  /* events that are no JSON do not go to the client */
    uint32_t heartbeat_ms; /* how often a client that waits for a stream is told so; 0: never */
    bool settles;          /* the route has classes of its own: health waits until Lua has told */
};

/** Whether another target may go on with a relayed stream that breaks off; as the policy says. */
struct pl_rescue_options {
    size_t max_bytes; /* of text, for which that is so; 0: none may */
    bool continues;   /* it is asked for what follows, if it can be */
};

struct pl_relay_reader;

enum pl_body_kind { PL_BODY_NONE, PL_BODY_JSON, PL_BODY_MULTIPART, PL_BODY_OPAQUE };

struct pl_request_edit {
    char *key, *value; /* value is raw JSON; NULL: unset */
};

struct pl_runtime;

struct pl_request {
    struct pl_runtime *runtime;
    struct pl_generation *generation; /* the one it began on */
    uint64_t serial;
    struct pl_exchange *exchange; /* NULL once answered or gone */
    struct pl_coroutine coroutine;
    enum pl_wait wait;
    char *id; /* nearly all are a quarter of PL_REQUEST_ID_MAX */
    size_t id_cap;
    enum pl_dialect dialect;      /* of errors of ours */
    char *route;                  /* for the log */
    const char *policy;           /* its name, a string of the VM; NULL before there is a route */
    const char *model_match;      /* the route's pattern, the same; NULL: it has none */
    const char *deadline_headers; /* see deadline.h, the same */

    enum pl_body_kind body_kind;
    struct pl_str body;
    struct pl_json json;
    struct pl_multipart_field model_field;
    char *model; /* decoded; NULL when the body has none */
    size_t model_len;
    bool stream;
    struct pl_request_edit *edits; /* PL_REQUEST_EDITS_MAX of them once one is made */
    size_t edit_count;
    char **old_values; /* of edits made anew, as long as a try may be sending them */
    size_t old_value_count, old_value_cap;

    bool retrying;                     /* holds a place in the retry budget */
    const struct pl_target *queued_at; /* holds a place in that target's queue */
    struct pl_try *current;            /* the try at hand, or the one that comes next */
    struct pl_try *rival;              /* the other one while it is hedged, and after; or NULL */
    struct pl_try own_try;             /* one of the two */
    uint8_t hedges[PL_HEDGE_COUNT];    /* what came of hedging, how often */
    bool was_hedged;                   /* one was counted */
    bool is_hedging;                   /* a second one was asked, and nothing has come of it yet */
    bool is_hedge_share_taken;         /* it has added its share to the route's hedging budget */
    struct pl_trail_entry *trail;      /* grown by need, up to PL_TRAIL_MAX */
    size_t trail_count, trail_cap;
    struct pl_trace trace; /* all 0: none */

    uint64_t start_ms, deadline_ms; /* deadline_ms 0: none */
    uint64_t route_deadline_ms;     /* as the route says, from the start on; 0: no route yet */
    uint64_t keep_ms, within_ms;    /* for the next try: what it leaves for others of the time, and
                                       how soon its answer must begin; 0: nothing was said */
    uint64_t chance_ms; /* with so much time and no answer a try counts for its target; 0: never */
    struct pl_timer deadline_timer, wait_timer, heartbeat_timer;
    bool committed;      /* an answer has been begun */
    bool stream_is_open; /* by heartbeats: whatever is the answer is a part of that stream */
    bool client_gone;
    bool past_deadline;
    struct pl_gate_options gate;
    struct pl_rescue_options rescue;
    struct pl_relay_reader *reader; /* of the events of the answer; NULL: they pass unread */
    bool at_seam;                   /* the answer broke off, and another target may go on with it */
    bool resumes_afresh;            /* the next try at the seam is to restart, whatever it could */
    const struct pl_target *served_by; /* who wrote the answer, the last part of it */
    char give_up_code[32];     /* why candidates gave none: "queue_full", ... ; "" otherwise */
    uint64_t give_up_retry_ms; /* and when to come again; 0: unknown */
    int status;                /* of the answer, or of an open stream; 0: none was begun */
    bool broken;               /* the answer began and was broken off here */
    bool floor;                /* the floor policy serves it */
    bool first_token;          /* the first token of a good answer has gone to the client ... */
    uint32_t first_token_ms;   /* ... so long after the request's start */
    bool failed;               /* it got an error of ours */
    bool killed;               /* it was ended from outside */
    char reason[32];           /* why it has no whole answer, a code; "": not told */
    char *origin;              /* copies of method, path and peer, which outlive the exchange */
    size_t origin_cap;
    struct pl_str method, path, peer;
    uint64_t request_body_bytes, response_body_bytes;
    char *request_text, *response_text; /* first bytes of the bodies, for the access log, or NULL */
    size_t request_text_len, response_text_len;
    enum pl_policy_fault policy_fault; /* the first that its policy did, or NONE */
    uint32_t fault_ms;                 /* how long after the request's start that was */
    size_t fault_trail_index;          /* and after how many tries */
    uint32_t answer_serial;            /* of the last answer that was begun or dropped */
    bool refuses_floor;                /* on_policy_error = "fail" */
    uint32_t log_line_count;           /* by its policy */

    TAILQ_ENTRY(pl_request) link; /* in runtime->active, or runtime->spare */
};

TAILQ_HEAD(pl_request_list, pl_request);

/** What the requests of one worker share. */
struct pl_runtime {
    struct event_base *base;               /* NULL where a timeline stands for it */
    struct pl_timeline *timeline;          /* NULL: timers are those of the loop */
    const struct pl_transport *transport;  /* how tries reach upstreams */
    struct pl_generation *current;         /* what new requests begin on ... */
    struct pl_generation *canary;          /* ... but for a share; NULL: none is on trial */
    double canary_ratio;                   /* of new requests */
    struct pl_generation_list generations; /* all that are open, the oldest first */
    struct event *retire_event;            /* the owner's: a retired one may be idle now */
    struct pl_request_list active, spare;
    struct pl_try_list spare_tries; /* of those that were hedged */
    size_t active_count;
    struct pl_metrics *metrics;        /* where ended requests are counted, or NULL ... */
    size_t worker_index;               /* ... and as whose */
    struct pl_recent *recent;          /* where they are kept for a while, or NULL */
    struct pl_record_text record_text; /* the one at hand */
    struct pl_access_log *access_log;  /* that of this worker, or NULL */
    const char *kill_reason;           /* why all are broken off, if not by a stop at once */
    struct pl_spans *spans;            /* where the spans of sampled ones go, or NULL */
    struct pl_otlp_text span_text;     /* in which they are written */
    bool is_mute;                      /* no heartbeats */
    bool is_simulator;                 /* bodies are its own to check, answers its own to label */
    struct pl_request *running;        /* whose policy runs right now */
    struct pl_watch *watch;            /* where that is shown; NULL where nobody watches */
    struct pl_headers scratch;         /* of the answer being begun */
    struct pl_headers policy_headers;  /* as a policy gives them */
};

/** Readies the runtime, which has no generation yet, for the network. Where requests are played
 *  `base` is NULL, and `timeline` and `transport` are set by the owner before the first one. */
void pl_runtime_init(struct pl_runtime *self, struct event_base *base);
/** Ends every request; their clients are reset. */
void pl_runtime_end_all(struct pl_runtime *self);
/** Ends every request of one generation in the same way. */
void pl_runtime_end_generation(struct pl_runtime *self, const struct pl_generation *generation);
/** Frees the records, when no request is left; the generations are freed after it. */
void pl_runtime_deinit(struct pl_runtime *self);

/* ---- request.c ---- */

/** Takes a whole request from the server and runs its policy. */
void pl_request_begin(struct pl_exchange *exchange, void *runtime);
/** Sets the deadline, counted from the request's start. */
void pl_request_set_deadline(struct pl_request *self, uint64_t duration_ms);
/** Milliseconds left; UINT64_MAX without a deadline. */
uint64_t pl_request_remaining_ms(const struct pl_request *self);
/** Arms the timer that PL_WAIT_TIMER and the gate use. */
void pl_request_arm_timer(struct pl_request *self, uint64_t duration_ms);
void pl_request_stop_timer(struct pl_request *self);
/**
 * Adds, replaces or (value NULL) removes a top-level member of the body sent upstream.
 * PL_ERR_LIMIT: there are PL_REQUEST_EDITS_MAX; PL_ERR_SYSTEM: they would be too long together.
 */
PL_NODISCARD int pl_request_edit(struct pl_request *self, const char *key, const char *value_json);
/** Frees values that were replaced. No try may be at work. */
void pl_request_free_old_edits(struct pl_request *self);
/** Forgets all of them: the client's own body goes out. No try may be at work. */
void pl_request_drop_edits(struct pl_request *self);
/** Releases everything and recycles the record. The exchange has been answered or is gone. */
void pl_request_end(struct pl_request *self);

/* ---- request_policy.c ---- */

/** Runs the policy of a request that has just begun. The request may be gone afterwards. */
void pl_request_run_policy(struct pl_request *self);
/** Goes on with the policy, if it waits for `wait`. The request may be gone afterwards. */
void pl_request_wake(struct pl_request *self, enum pl_wait wait);

/* ---- admit.c ---- */

/** A waiting place for `target`, at most `max_count` of them for all workers; one per request. */
PL_NODISCARD bool pl_request_enter_queue(struct pl_request *self, const struct pl_target *target,
                                         uint32_t max_count);
void pl_request_leave_queue(struct pl_request *self);
/** Gives back its place in the retry budget, if it has one. */
void pl_request_leave_retries(struct pl_request *self);

/* ---- forward.c ---- */

/** The edits that a target asks for, its model last, into room for edit_count + 1. */
size_t pl_forward_edits(const struct pl_target *target, struct pl_json_edit *edits);
/** What follows the base path of a provider: "/v1" is the gateway's own. */
struct pl_str pl_forward_path(struct pl_str path);
/** Passed-through credentials of different clients must not share a connection. */
uint64_t pl_request_credential_tag(const struct pl_request *self,
                                   const struct pl_provider *provider);

/* ---- send.c ---- */

/** Drops the last answer and starts a try. PL_ERR_LIMIT: the trail is full. PL_ERR_SYNTAX: the body
 *  cannot be changed as the target and the policy ask. */
PL_NODISCARD int pl_request_send(struct pl_request *self, const struct pl_target *target);
/** Ends the running try, if any, without a trace, and drops its answer. */
void pl_request_drop_answer(struct pl_request *self);
/** The deadline has passed: ends the try as timeout_deadline. */
void pl_request_expire_answer(struct pl_request *self);
/**
 * The class of response.error, which Lua tells: only now the trail and the target's health hear of
 * the try. Does nothing when there is no error that waits for it.
 */
void pl_request_settle_error(struct pl_request *self, enum pl_failure failure);
/**
 * The class of the try at hand, where the route settles them: only now the target's health hears of
 * it. Does nothing when it was settled already.
 */
void pl_request_settle_class(struct pl_request *self, enum pl_class class);
/** Reads the answer's body whole; true when it is there already, else wait for PL_WAIT_BODY. */
bool pl_request_collect(struct pl_request *self);

/* ---- hedge.c ---- */

/** The try that the next place is reserved for: the one at hand or, while that one is at work, a
 *  second one. */
struct pl_try *pl_hedge_next(struct pl_request *self);
/** Starts a second try beside the one at work. Errors as of pl_request_send. */
PL_NODISCARD int pl_hedge_start(struct pl_request *self, const struct pl_target *target);
/** Whether no try can be judged yet; else the one at hand can, or none is at work. */
bool pl_hedge_is_open(struct pl_request *self);
/** Puts the other try in the place of the one at hand. */
void pl_hedge_turn(struct pl_request *self);
/** Drops the one at hand, which has failed, and turns to the other. False when there is none. */
PL_NODISCARD bool pl_hedge_next_answer(struct pl_request *self);
/** The one at hand is what the request goes on with: the other has lost, and is cancelled. */
void pl_hedge_decide(struct pl_request *self);
/** Both were asked, and nothing of either is wanted any more. Idempotent. */
void pl_hedge_abandon(struct pl_request *self);
/** Counts what came of it. */
void pl_hedge_count(struct pl_request *self, enum pl_hedge result);
/** Gives back what a request that ends has borrowed. */
void pl_hedge_release(struct pl_request *self);

/* ---- request_record.c ---- */

/** Keeps what is told of the request at its end and does not last that long. */
void pl_request_note_origin(struct pl_request *self);
/** The same of its body, as far as the access log wants it. */
void pl_request_note_body(struct pl_request *self);
/** Bytes of the answer's body, on their way to the client. */
void pl_request_note_answer(struct pl_request *self, const char *data, size_t len);
/** Tells metrics and access log of a request that ends. Its tries must have ended. */
void pl_request_count(struct pl_request *self);
/** Lets go of what was kept for that. */
void pl_request_forget_notes(struct pl_request *self);
/** The server has refused what came in place of a request. `runtime` is the worker's. */
void pl_request_refused(const struct pl_refusal *refusal, void *runtime);
/** The outcome class of a failure, which is not NONE. */
enum pl_class pl_request_class_of(enum pl_failure failure);
/** The failure of that name, of a class from RATE_LIMITED on. */
enum pl_failure pl_request_failure_of(enum pl_class class);

/* ---- request_trace.c ---- */

/** Goes on with the client's trace, or begins one. */
void pl_request_begin_trace(struct pl_request *self);

/* ---- request_heartbeat.c ---- */

/** From now on, if its route wants them and the client a stream. */
void pl_request_start_heartbeats(struct pl_request *self);
/** Of heartbeat_timer. */
void pl_request_on_heartbeat(void *arg);
/** Writes a little into the open stream. */
void pl_request_say(struct pl_request *self, const char *data, size_t len);
/** Readies the open stream and the answer, a stream that is held, for it to follow. */
void pl_request_join_stream(struct pl_request *self);
/** Ends the open stream with these bytes, whole events; `status` is what they stand for. */
void pl_request_end_stream(struct pl_request *self, int status, const char *data, size_t len);
/** Ends it with an error. */
void pl_request_fail_stream(struct pl_request *self, const struct pl_client_error *error);

/* ---- relay.c ---- */

/** Head of the stream that heartbeats open. */
void pl_request_open_stream(struct pl_request *self, const struct pl_headers *headers);
/** A comment in the open stream: which tries there were, as the head could not know. */
void pl_request_tell_trail(struct pl_request *self);

/**
 * Begins relaying the live answer, or at a seam goes on with it; true when it has already ended,
 * else wait for PL_WAIT_RELAY. Afterwards it may be at a seam. Into a stream that is open only
 * another stream can be relayed.
 */
bool pl_request_relay(struct pl_request *self);
/** Body bytes of the answer being relayed. */
void pl_request_relay_bytes(struct pl_request *self, const char *data, size_t len);
/** The end of the answer being relayed; ends the exchange, or leaves it at a seam. */
void pl_request_relay_done(struct pl_request *self, enum pl_failure failure);
/** Whole answer made here. `headers` may be NULL; x-request-id and the trail are added. */
void pl_request_respond(struct pl_request *self, int status, const struct pl_headers *headers,
                        const char *body, size_t len);
/** Error answer in the client's dialect: what went wrong in the gateway or in its policy. */
void pl_request_fail(struct pl_request *self, int status, const char *code, const char *message);
/** The error that follows is the gateway's own; `code` goes into the log. */
void pl_request_note_failure(struct pl_request *self, const char *code);
/** The same, said by a policy or by the library. request_id is filled in; `headers` may be NULL. */
void pl_request_fail_with(struct pl_request *self, struct pl_client_error *error,
                          const struct pl_headers *headers);
/** Head of a streamed answer made by the policy. */
void pl_request_start_answer(struct pl_request *self, int status, const struct pl_headers *headers);
/** Breaks the client's connection. */
void pl_request_abort(struct pl_request *self, bool at_once);

/* ---- relay_seam.c ---- */

/** Nobody goes on at the seam: the client's stream ends in an error. */
void pl_request_give_up(struct pl_request *self);
/** At a seam, or the answer behind it has said nothing yet that the client does not have. */
bool pl_request_waits_to_go_on(const struct pl_request *self);
/** The last try at the seam said something else than what the client has. */
bool pl_request_is_parted(const struct pl_request *self);
/** The class of the error that made the seam. */
void pl_request_learn_of_break(struct pl_request *self, enum pl_failure failure);
/** Token counts of an answer in several parts, from those of the last one (-1: not told). */
void pl_request_add_parts(const struct pl_request *self, int64_t *input, int64_t *output);
/** Lets go of what was read of the answer. Idempotent. */
void pl_request_close_reader(struct pl_request *self);
/** What the last try at the seam is to be asked: the answer's text so far, or nothing. */
struct pl_str pl_request_prefix(const struct pl_request *self, uint32_t *token_count);

#endif
