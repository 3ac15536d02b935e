/*
 * Record: what is known of one request when it has ended, as plain data. Filled once per request,
 * whatever became of it, and shown to each of those who keep count: the access log, the metrics,
 * the traces, the ring of recent requests. Also the names that all of them use.
 *
 * Pure, any thread. All pointers are borrowed and valid during the call that hands the record over:
 * who keeps something copies it. What a client or an upstream has written (path, model, detail, id)
 * is not checked: it may hold any bytes and be long.
 *
 * Unknown is never 0: times are PL_UNKNOWN_MS, counts are -1, pointers NULL, spans empty.
 */
#ifndef PL_RECORD_H
#define PL_RECORD_H

#include "base.h"

#define PL_UNKNOWN_MS UINT32_MAX

/** How a request ended, seen from the client. */
enum pl_end {
    PL_END_COMPLETE,    /* a whole answer, whatever its status, that a target or a policy gave */
    PL_END_CUT,         /* the answer began and broke off: by the upstream, or a limit of ours */
    PL_END_CLIENT_GONE, /* the client left first */
    PL_END_REFUSED,     /* not taken up: by the edge, or because no route serves it */
    PL_END_FAILED,      /* answered with an error of ours: no target, policy error, deadline */
    PL_END_KILLED,      /* broken off at the end of a drain, by a reload's limit, by the stop */
    PL_END_COUNT,       /* how many there are; none itself */
};
/** "complete", "cut", "client_gone", "refused", "failed", "killed". */
const char *pl_end_name(enum pl_end end);

/** What came of a try; the names are the outcome classes of Lua (lua/perilune/classify.lua). */
enum pl_class {
    PL_CLASS_NONE, /* not known: the try was given up before it told */
    PL_CLASS_OK,
    PL_CLASS_RATE_LIMITED, /* from here on as in enum pl_failure, in its order */
    PL_CLASS_AUTH,
    PL_CLASS_BILLING,
    PL_CLASS_MODEL_NOT_FOUND,
    PL_CLASS_CONTEXT_LENGTH,
    PL_CLASS_CONTENT_FILTER,
    PL_CLASS_CLIENT_FAULT,
    PL_CLASS_OVERLOADED,
    PL_CLASS_SERVER_ERROR,
    PL_CLASS_DNS,
    PL_CLASS_CONNECT,
    PL_CLASS_TLS,
    PL_CLASS_RESET,
    PL_CLASS_TIMEOUT_CONNECT,
    PL_CLASS_TIMEOUT_HEAD,
    PL_CLASS_TIMEOUT_FIRST_TOKEN,
    PL_CLASS_TIMEOUT_IDLE,
    PL_CLASS_TIMEOUT_TRY,
    PL_CLASS_TIMEOUT_DEADLINE,
    PL_CLASS_TRUNCATED,
    PL_CLASS_MALFORMED,
    PL_CLASS_EMPTY,
    PL_CLASS_HEDGE_LOST, /* cancelled: the other try of a hedged request was faster */
    PL_CLASS_COUNT,      /* how many there are; none itself */
};
/** "ok", "rate_limited", ...; "abandoned" for PL_CLASS_NONE. */
const char *pl_class_name(enum pl_class class);
/** The class of that name; PL_CLASS_NONE when there is none. */
enum pl_class pl_class_from_name(struct pl_str name);
/** What a status says by itself, without the answer's body. */
enum pl_class pl_class_of_status(int status);

/** What had become of the work when a try failed: whether the upstream may bill it. */
enum pl_work {
    PL_WORK_NONE,             /* it did not fail */
    PL_WORK_NOT_SENT,         /* nothing of the request was written */
    PL_WORK_REFUSED,          /* a complete error was the answer */
    PL_WORK_UNCERTAIN,        /* sent, and no answer, a broken one, or one without content */
    PL_WORK_PARTLY_GENERATED, /* a part of the content had come */
    PL_WORK_COUNT,            /* how many there are; none itself */
};
/** "not_sent", "refused", ...; "" for NONE. */
const char *pl_work_name(enum pl_work work);

/** What came of hedging: each time a policy could have asked a second target. */
enum pl_hedge {
    PL_HEDGE_FIRST,     /* both were asked, the first one answered */
    PL_HEDGE_SECOND,    /* both were asked, the second one answered */
    PL_HEDGE_NONE,      /* both were asked, neither gave a good answer */
    PL_HEDGE_ENDED,     /* both were asked, and the request ended before either answered */
    PL_HEDGE_NO_BUDGET, /* a second one was due, but the route's budget was used up */
    PL_HEDGE_NO_TARGET, /* a second one was due, but none was fit and free */
    PL_HEDGE_COUNT,     /* how many there are; none itself */
};
/** "first", "second", "none", "ended", "no_budget", "no_target". */
const char *pl_hedge_name(enum pl_hedge hedge);

/** Of a trace as in W3C Trace Context; all 0: none. Printed as big-endian hexadecimal digits. */
struct pl_trace {
    uint64_t id_high, id_low;
    uint64_t span_id;
    uint64_t parent_span_id; /* the client's; 0: ours is the root */
    bool sampled;
    bool random; /* the id's last 7 bytes are: a flag that is passed on */
};

/** One try of an upstream. Times but start_ms are durations since the try's start. */
struct pl_record_attempt {
    const char *target, *provider; /* names from the configuration */
    const char *model;             /* that it was asked for; NULL: the client's */
    const char *endpoint_host;     /* of the provider */
    uint16_t endpoint_port;
    size_t target_index; /* within the topology of the request's generation */
    bool is_fallback;    /* the route has targets of a better priority */
    int status;          /* 0: none */
    enum pl_class class;
    uint32_t start_ms;       /* since the request's start */
    uint32_t wait_ms;        /* from the end of the try before, or the request's start, to here:
                                back-off, queueing, and the policy's own thinking */
    uint32_t connect_ms;     /* connection ready, TLS included; unknown when one was reused */
    uint32_t head_ms;        /* the answer's head read */
    uint32_t first_token_ms; /* the first event of a stream, or the first byte of a good body */
    uint32_t total_ms;       /* the end of the body, or of the try otherwise */
    uint64_t body_bytes;     /* of the answer, as the upstream sent it */
    bool reused;             /* over a kept connection */
    const char *resumes;     /* "continue", "restart": it was to go on with an answer that broke off
                                elsewhere; NULL: it was not */
    bool parted;             /* but said something else than the client had by then */
    uint32_t malformed_event_count; /* of its stream, as far as events were read */
    enum pl_work work;              /* NONE of a good one */
    uint8_t key;   /* of the provider's keys it had this one, from 1 on; 0: no choice */
    bool is_hedge; /* the second of two at once */
    /* of one whose answer was dropped for that of the other; the record has those of the answer
       that served */
    int64_t input_tokens, output_tokens;
    const char *detail; /* why it failed, for people; NULL: nothing to say */
    uint64_t span_id;   /* 0: none */
};

struct pl_record {
    const char *id;         /* x-request-id; NULL: refused before there was one */
    uint64_t start_wall_ms; /* since the epoch */
    uint32_t duration_ms;
    struct pl_str method, path;    /* empty: not known; the path without its query */
    struct pl_str peer;            /* numeric address of the client */
    const char *operation;         /* "chat", "text_completion", "embeddings", ...; NULL: unknown */
    const char *route;             /* its name; NULL: none matched */
    const char *model_match;       /* the route's pattern that matched the model; NULL: none did.
                                      For labels: it comes from the configuration, not from clients */
    const char *policy;            /* its name */
    struct pl_str model;           /* asked for */
    const char *response_model;    /* as the answer names it */
    const char *provider, *target; /* that served the answer; NULL: none did */
    const char *endpoint_host;     /* of that provider */
    uint16_t endpoint_port;
    bool stream;
    int status; /* that the client got; 0: none was sent */
    enum pl_end end;
    const char *reason;           /* of every end but complete, a short code: "truncated",
                                     "queue_full", "invalid_body", "drain", ... */
    uint32_t first_token_ms;      /* when the first event or byte of a good answer went out */
    uint64_t request_body_bytes;  /* read from the client */
    uint64_t response_body_bytes; /* written to the client, without transfer coding */
    uint32_t generation;          /* 0: none had begun on it */
    bool floor;                   /* the built-in floor policy served it */
    const char *policy_fault;     /* what the operator's policy did wrong; NULL: nothing */
    int64_t input_tokens, output_tokens, cached_tokens, reasoning_tokens;
    struct pl_trace trace;
    const uint8_t *hedges; /* by enum pl_hedge, how often; NULL: never */
    const struct pl_record_attempt *attempts;
    size_t attempt_count;
    struct pl_str request_body, response_body; /* their first bytes, when asked for */
};

#endif
