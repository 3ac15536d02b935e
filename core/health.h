/*
 * Health: which targets and providers are fit, as one model shared by all workers.
 *
 * Thread: any; exact under concurrency. Pure: no I/O, no clock of its own (now_ms comes in), no
 * allocation after pl_health_new. One flat block without pointers, so that it could lie in shared
 * memory. A slot is closed (fit), open until a time (out), half-open (out, but one probe may pass),
 * or closed within its slow start. Each slot's transitions happen under its own short lock, made of
 * one atomic; what the choice of a target reads for every candidate (fit or not, in flight, EWMAs)
 * is mirrored in atomics that need no lock.
 *
 *            rule, decree, bad checks              time is over: next admit
 *    CLOSED -------------------------> OPEN ------------------------------> HALF_OPEN
 *       ^ ^                            |  ^                                   |  |
 *       | '---- good checks, restore --'  '-- probe bad, decree, bad checks --'  |
 *       '------------------- probe good, good checks, restore -------------------'
 *
 * - Open until t. By a rule that is base x times ejected, capped, then up to jitter_ratio longer;
 *   by decree as long as the decree says. Only restore and good checks shorten a running ejection.
 *   What lengthens it is no ejection of its own: 50 attempts that fail together count once.
 * - The multiplier stops where it reaches the cap, as in Envoy: a target that was out all night
 *   does not carry a multiplier of 100 into the day. It loses one per decay_ms in CLOSED, worked
 *   out when next needed.
 * - Half-open from t on. There are no timers: the first admit from then on is the probe, alone.
 *   Good closes, with the slow start; bad opens with the next multiplier; neutral and rejected
 *   decide nothing, and the next admit is the next probe. A probe without a report at
 *   probe_timeout_ms is given up for the next admit that comes; until one comes, its report still
 *   decides.
 * - Slow start: 10 % of the weight at first, all of it after slow_start_ms, linear between.
 * - The epoch moves with every ejection and every probe given up. A report whose ticket is of
 *   another epoch moves its total and nothing else. No decree touches attempts in flight; a drained
 *   slot (PL_REASON_DRAINED) serves them to their end.
 * - Every other report moves counters, window and EWMA. Only a closed slot is ejected for it:
 *   forced attempts that fail while the slot is out prolong nothing.
 * - Closing empties counters and window, so that no failure ejects twice; the EWMA of success
 *   stays, as in agentgateway. Restore resets that too.
 * - Active checks hold a slot out on top of all this. When a good streak ends that, an ejection
 *   goes on where it is, unless checks readmit; one by decree they never end before its time.
 *
 * Where it comes from: consecutive 5xx, gateway and local-origin counters, ejection time that grows
 * with the number of ejections and shrinks with time in health are Envoy's outlier detection;
 * Retry-After ejection, EWMAs and the unhealthy predicate are agentgateway's; the single probe is
 * the classic circuit breaker's, which neither has. Deliberately not here: how much of a pool may
 * be out (max_ejection_percent), and what to do when all of it is (panic). That takes the pool; who
 * has it asks by `forced`.
 */
#ifndef PL_HEALTH_H
#define PL_HEALTH_H

#include "base.h"

#define PL_HEALTH_WAITS_MIN_COUNT 20

/** What ejects, and for how long. Per provider in the configuration. 0 switches a rule off. */
struct pl_health_rules {
    uint32_t consecutive_5xx_count;        /* 5xx answers in a row; connection failures count too */
    uint32_t consecutive_gateway_count;    /* 502, 503, 504 in a row; a 500 breaks the row */
    uint32_t consecutive_connection_count; /* connection failures in a row; OK and 5xx break it */
    bool split_connection;                 /* connection failures do not count as 5xx */
    double failure_ratio;                  /* 0..1; failures / requests within the window ... */
    uint32_t failure_min_count;            /* ... of at least so many requests */
    uint32_t window_ms;                    /* sliding, in 10 parts */
    double success_ewma_min_ratio;         /* EWMA of success (start 1) below this ejects */
    uint32_t base_ejection_ms;             /* ejection = base x times ejected ... */
    uint32_t max_ejection_ms;              /* ... at most this ... */
    double jitter_ratio;                   /* ... plus up to this share of it, at random */
    uint32_t decay_ms;         /* each so long in health takes one off the multiplier; 0: never */
    uint32_t slow_start_ms;    /* after an ejection the share of traffic ramps up so long */
    uint32_t probe_timeout_ms; /* a probe that is not decided by then is given up */
};

enum pl_outcome {
    PL_OUTCOME_OK,            /* a good answer: resets the counters, decides a probe well */
    PL_OUTCOME_NEUTRAL,       /* the client's fault or absence: changes nothing */
    PL_OUTCOME_SERVER_ERROR,  /* 500 and the like, broken or malformed or late answers */
    PL_OUTCOME_GATEWAY_ERROR, /* 502, 503, 504 */
    PL_OUTCOME_CONNECTION,    /* dns, connect, tls, timeout_connect, reset before an answer */
    PL_OUTCOME_REJECTED,      /* 429 and the like: neither failure nor success; only Retry-After or
                                 the operator's rules eject for it */
    PL_OUTCOME_UNHEALTHY,     /* a Lua predicate said so: ejects at once */
};

enum pl_health_state { PL_HEALTH_CLOSED, PL_HEALTH_OPEN, PL_HEALTH_HALF_OPEN };

enum pl_health_reason {
    PL_REASON_NONE,
    PL_REASON_CONSECUTIVE_5XX,
    PL_REASON_CONSECUTIVE_GATEWAY,
    PL_REASON_CONSECUTIVE_CONNECTION,
    PL_REASON_FAILURE_RATIO,
    PL_REASON_SUCCESS_EWMA,
    PL_REASON_RETRY_AFTER,
    PL_REASON_UNHEALTHY,
    PL_REASON_AUTH,
    PL_REASON_ACTIVE_CHECK,
    PL_REASON_POLICY,
    PL_REASON_OPERATOR,
    PL_REASON_DRAINED,
    PL_REASON_PROBE_FAILED,
    PL_REASON_COUNT, /* how many there are, with NONE; none itself */
};
const char *pl_health_reason_name(enum pl_health_reason reason);
/** "closed", "open", "half_open". */
const char *pl_health_state_name(enum pl_health_state state);

struct pl_health;                    /* the whole block */
typedef uint32_t pl_health_slot;     /* index; PL_HEALTH_NO_SLOT when the block is full */
#define PL_HEALTH_NO_SLOT UINT32_MAX /* every function takes it, as a slot that is always fit */

/** What an admitted attempt carries to its report. */
struct pl_health_ticket {
    pl_health_slot slot;
    uint32_t epoch; /* ejections and given up probes so far; older ones move totals only */
    bool probe;     /* this is the single probe of a half-open slot */
};

/** Room for `capacity` slots; those that were never used take no memory. */
struct pl_health *pl_health_new(uint32_t capacity);
void pl_health_free(struct pl_health *self);
size_t pl_health_size_bytes(uint32_t capacity);
/** The slot of that key (name and url, hashed by pl_health_key), made if new; keeps its state when
 *  it exists, and its rules while it is in use: pl_health_set_rules changes those. Each call is one
 *  use. PL_HEALTH_NO_SLOT when the block is full. Main thread only. */
pl_health_slot pl_health_slot_for(struct pl_health *self, uint64_t key,
                                  const struct pl_health_rules *rules);
uint64_t pl_health_key(struct pl_str name, struct pl_str url);
/** `rules` are copied and hold from now on; counts and a running ejection stay. */
void pl_health_set_rules(struct pl_health *self, pl_health_slot slot,
                         const struct pl_health_rules *rules);
/** Ends one use. Slots that nobody uses any more may be given to others, once all attempts have
 *  left them. Until then the key finds its state again. Main thread only. */
void pl_health_release(struct pl_health *self, pl_health_slot slot);
/** How many slots there are. */
uint32_t pl_health_capacity(const struct pl_health *self);

/* ---- asking; lock-free ---- */

/** Closed, or open whose time is over (then a probe may pass). */
bool pl_health_is_fit(const struct pl_health *self, pl_health_slot slot, uint64_t now_ms);
/** 0..1: the share of its weight that a slot in slow start gets; 1 outside of it. */
double pl_health_ramp(const struct pl_health *self, pl_health_slot slot, uint64_t now_ms);
uint32_t pl_health_in_flight(const struct pl_health *self, pl_health_slot slot);
/** 0..1: EWMA (alpha 0.3) of good (1) and failed (0) attempts; 1 at first. */
double pl_health_success_ewma(const struct pl_health *self, pl_health_slot slot);
/** 0: none yet. */
double pl_health_first_token_ewma_ms(const struct pl_health *self, pl_health_slot slot);

/* ---- one attempt ---- */

/**
 * Admits an attempt: counts it in flight and fills the ticket. False when the slot is out, or is
 * half-open and its probe is taken. `forced` (panic, or the policy insists) admits regardless and
 * never as a probe.
 */
PL_NODISCARD bool pl_health_admit(struct pl_health *self, pl_health_slot slot, uint64_t now_ms,
                                  bool forced, struct pl_health_ticket *ticket);
/** As admit, but only if fewer than `max_in_flight` (0: no limit) are in flight. */
PL_NODISCARD bool pl_health_admit_limited(struct pl_health *self, pl_health_slot slot,
                                          uint64_t now_ms, bool forced, uint32_t max_in_flight,
                                          struct pl_health_ticket *ticket);
/**
 * What became of it; exactly once per ticket. `random_unit` in [0,1) is for the jitter. Returns the
 * reason when this very report ejected the slot, else NONE.
 */
enum pl_health_reason pl_health_report(struct pl_health *self,
                                       const struct pl_health_ticket *ticket,
                                       enum pl_outcome outcome, uint64_t now_ms,
                                       double random_unit);
/** The attempt is over (its body ended or was dropped): leaves "in flight". Once per ticket. */
void pl_health_leave(struct pl_health *self, const struct pl_health_ticket *ticket);
/** A failure after the good report, such as a stream that broke: counts as that failure too. */
enum pl_health_reason pl_health_report_late(struct pl_health *self, pl_health_slot slot,
                                            enum pl_outcome outcome, uint64_t now_ms,
                                            double random_unit);
/** Milliseconds to the first token of a good answer (to its head, when it does not stream): for the
 *  EWMA, which the first one sets, and for the waits below. */
void pl_health_add_latency(struct pl_health *self, pl_health_slot slot, uint32_t first_token_ms,
                           bool streams);
/** A good answer was not waited for any longer than this: without it the longest waits would be
 *  missing where those are cut short, and what counts as long would sink and sink. */
void pl_health_add_cut_wait(struct pl_health *self, pl_health_slot slot, uint32_t waited_ms,
                            bool streams);
/** How long `ratio` (0..1) of the last good answers took to their first token, of those that stream
 *  or of the others; 0 while fewer than PL_HEALTH_WAITS_MIN_COUNT are known. Takes the slot's lock.
 */
double pl_health_wait_quantile_ms(struct pl_health *self, pl_health_slot slot, double ratio,
                                  bool streams);

/* ---- by decree ---- */

/** Open until now + duration; never shortens a running ejection. Counts as an ejection unless the
 *  reason is OPERATOR, POLICY, RETRY_AFTER or DRAINED (those do not grow the multiplier). The
 *  duration is taken as it is; UINT64_MAX: until restored. */
void pl_health_eject(struct pl_health *self, pl_health_slot slot, enum pl_health_reason reason,
                     uint64_t duration_ms, uint64_t now_ms);
/** Closed at once, counters and multiplier reset, no slow start. */
void pl_health_restore(struct pl_health *self, pl_health_slot slot, uint64_t now_ms);
/** Active check: after `unhealthy_after` bad ones in a row open (until a good streak), after
 *  `healthy_after` good ones closed, with slow start; `readmits_passive`: a good streak also ends a
 *  passive ejection. */
void pl_health_check_result(struct pl_health *self, pl_health_slot slot, bool good,
                            uint32_t unhealthy_after, uint32_t healthy_after, bool readmits_passive,
                            uint64_t now_ms);

/* ---- for the admin, the metrics, policies ---- */

struct pl_health_view {
    enum pl_health_state state;   /* half-open as soon as the time is over */
    enum pl_health_reason reason; /* of the running or last ejection */
    uint64_t until_ms;            /* when open; 0 when only active checks hold it out */
    uint32_t ejection_count;      /* the multiplier */
    uint32_t in_flight;
    bool probe_in_flight;
    bool check_failed; /* held out by active checks */
    uint32_t consecutive_5xx, consecutive_gateway, consecutive_connection;
    uint64_t ok_total, neutral_total, server_error_total, gateway_error_total, connection_total,
        rejected_total, unhealthy_total;
    uint64_t ejection_total;                   /* times it went out, for any reason */
    uint64_t ejection_totals[PL_REASON_COUNT]; /* the same by reason; NONE stays 0 */
    uint64_t probe_total;                      /* admitted */
    uint64_t late_failure_total; /* from pl_health_report_late; in the totals above as well */
    double success_ewma_ratio;
    double first_token_ewma_ms; /* 0: none yet */
    double ramp_ratio;
};
/** One moment's view, taken under the slot's lock. */
void pl_health_look(const struct pl_health *self, pl_health_slot slot, uint64_t now_ms,
                    struct pl_health_view *out);

#endif
