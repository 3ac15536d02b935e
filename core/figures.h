/*
 * Figures: what became of the requests of one generation of policies: how many began, how they
 * ended, what the policy did wrong, and how long the first token took.
 *
 * Thread: any; lock-free. One flat block without pointers, written by all workers, read by the main
 * thread. Counts only grow, so two views of the same figures can be subtracted (pl_figures_since).
 * A view is not one moment's picture, but never contradicts itself: what has ended, has shown a
 * first token or has met a policy error has also begun.
 *
 * Deliberately not here: the text of the last policy error, and any judgement (trial.h).
 */
#ifndef PL_FIGURES_H
#define PL_FIGURES_H

#include "base.h"

/** What an operator's policy did wrong in a request, whoever served the request in the end. */
enum pl_policy_fault {
    PL_POLICY_FAULT_NONE,
    PL_POLICY_FAULT_ERROR,     /* it raised an error */
    PL_POLICY_FAULT_CPU_BURST, /* it computed too long between two yields */
    PL_POLICY_FAULT_CPU_TOTAL, /* it computed too long in all */
    PL_POLICY_FAULT_MEMORY,    /* it wanted more memory than its VM may have */
    PL_POLICY_FAULT_NO_ANSWER, /* it returned and had answered nothing */
    PL_POLICY_FAULT_COUNT,     /* how many kinds there are, with NONE; none itself */
};
/** "none", "error", "cpu_burst", "cpu_total", "memory", "no_answer". */
const char *pl_policy_fault_name(enum pl_policy_fault fault);

/** How a request ended. */
struct pl_request_end {
    int status;  /* that the client got; 0: none was sent */
    bool broken; /* the answer began and did not reach its end, through no doing of the client */
    bool client_gone; /* the client left before the end; then status and broken say nothing */
    bool floor;       /* the built-in floor policy served it */
    enum pl_policy_fault policy_fault;
};

enum pl_request_result {
    PL_RESULT_SUCCESS,
    PL_RESULT_FAILURE,      /* the gateway's or the upstream's: 5xx, broken, or no answer */
    PL_RESULT_CLIENT_FAULT, /* 4xx */
    PL_RESULT_CLIENT_GONE,
};
enum pl_request_result pl_figures_result_of(const struct pl_request_end *end);

/*
 * Times to the first token, in buckets: 1 ms wide below 16 ms, then 8 to an octave. A value given
 * back is the middle of its bucket: exact below 16 ms, above that at most 6.25 % (1/16) off. The
 * last bucket takes everything from 10 minutes up.
 */
#define PL_FIGURES_TTFT_BUCKETS 138
#define PL_FIGURES_TTFT_MAX_MS  600000u

/** The bucket of a time. */
size_t pl_figures_ttft_bucket(uint64_t ttft_ms);
/** The middle of a bucket. */
double pl_figures_ttft_middle_ms(size_t bucket);

/** The numbers of a moment, or the difference of two. */
struct pl_figures_view {
    uint64_t begun_count;
    uint64_t
        in_flight_count; /* at the moment; also in a difference, where it is the later view's */
    uint64_t success_count, failure_count, client_fault_count, client_gone_count;
    uint64_t floor_count;
    uint64_t policy_fault_counts[PL_POLICY_FAULT_COUNT]; /* by kind; NONE stays 0 */
    uint64_t ttft_counts[PL_FIGURES_TTFT_BUCKETS];
};

struct pl_figures;

struct pl_figures *pl_figures_new(void);
void pl_figures_free(struct pl_figures *self);

/* ---- a request, in this order; each at most once, begin and end exactly once ---- */

/** A request has been given to this generation. */
void pl_figures_begin(struct pl_figures *self);
/** The first token of its answer has come, so long after the request began. At once, not at the
 *  end: a stream that runs for minutes shall count within a trial of one. */
void pl_figures_first_token(struct pl_figures *self, uint64_t ttft_ms);
void pl_figures_end(struct pl_figures *self, const struct pl_request_end *end);

/* ---- reading ---- */

void pl_figures_read(const struct pl_figures *self, struct pl_figures_view *out);
/** What has been counted from `then` to `now`, two views of the same figures. `out` may be one of
 *  them. */
void pl_figures_since(const struct pl_figures_view *now, const struct pl_figures_view *then,
                      struct pl_figures_view *out);

uint64_t pl_figures_ended_count(const struct pl_figures_view *view);
uint64_t pl_figures_policy_fault_count(const struct pl_figures_view *view);
/** How many first tokens were counted. */
uint64_t pl_figures_ttft_count(const struct pl_figures_view *view);
/** The time to first token that `quantile` (0..1) of the answers do not pass: the middle of the
 *  bucket with the value of rank ceil(quantile x count). 0 when there are none. */
double pl_figures_ttft_ms(const struct pl_figures_view *view, double quantile);

#endif
