/*
 * Health machine: one slot without its concurrency. What it remembers of its outcomes (rows, a
 * sliding window, moving averages), the rules that judge them, and its states.
 *
 * Thread: any, one at a time; the slot's lock sees to that (health.c). Pure: no clock, no I/O, no
 * atomics, and no pointers, for it lies inside the slot. The functions are those of health.h, which
 * says what they do; health_machine.c says in which cases.
 */
#ifndef PL_HEALTH_MACHINE_H
#define PL_HEALTH_MACHINE_H

#include "health.h"
#include "tail.h"

#define PL_HEALTH_WINDOW_PARTS  10
#define PL_HEALTH_OUTCOME_COUNT (PL_OUTCOME_UNHEALTHY + 1)

/** The requests of the present part of the window and of those before it. */
struct pl_health_window {
    uint64_t newest_part; /* time divided by the length of a part, of the part counted in last */
    struct {
        uint32_t request_count;
        uint32_t failure_count;
    } parts[PL_HEALTH_WINDOW_PARTS]; /* part n lies at n modulo their number */
};

struct pl_health_machine {
    struct pl_health_rules rules;
    enum pl_health_state state;
    enum pl_health_reason reason; /* of the running or last ejection */
    uint32_t epoch;               /* ejections and probes given up */
    uint32_t multiplier;          /* in CLOSED as of closed_since_ms */
    uint64_t closed_since_ms;     /* end of the last ejection */
    uint64_t until_ms;            /* when open */
    uint64_t decreed_until_ms;    /* checks do not readmit before */
    uint64_t probe_deadline_ms;   /* when a probe is in flight */
    bool probe_in_flight;
    bool must_prove;           /* out by a rule or a decree: closing takes a probe */
    bool check_failed;         /* held out by active checks */
    uint32_t good_check_count; /* in a row */
    uint32_t bad_check_count;  /* in a row */
    uint64_t ramp_end_ms;      /* of the slow start; 0: none */
    uint32_t ramp_ms;          /* its length */
    uint32_t consecutive_5xx;
    uint32_t consecutive_gateway;
    uint32_t consecutive_connection;
    struct pl_health_window window;
    double success_ewma_ratio;
    double first_token_ewma_ms; /* 0: none yet */
    struct pl_tail waits[2];    /* for good answers: those that do not stream, those that do */
    uint64_t outcome_totals[PL_HEALTH_OUTCOME_COUNT];
    uint64_t ejection_totals[PL_REASON_COUNT];
    uint64_t probe_total;
    uint64_t late_failure_total;
};

/** Closed, without a past; tickets of older epochs are late. */
void pl_health_machine_init(struct pl_health_machine *self, uint32_t epoch);
void pl_health_machine_set_rules(struct pl_health_machine *self,
                                 const struct pl_health_rules *rules);

/** When an admit that is not forced passes again: 0 if closed, UINT64_MAX if only something else
 *  than time can help. */
uint64_t pl_health_machine_fit_at_ms(const struct pl_health_machine *self);
/** Fills the ticket but for its slot. */
PL_NODISCARD bool pl_health_machine_admit(struct pl_health_machine *self, uint64_t now_ms,
                                          bool forced, struct pl_health_ticket *ticket);
enum pl_health_reason pl_health_machine_report(struct pl_health_machine *self,
                                               const struct pl_health_ticket *ticket,
                                               enum pl_outcome outcome, uint64_t now_ms,
                                               double random_unit);
enum pl_health_reason pl_health_machine_report_late(struct pl_health_machine *self,
                                                    enum pl_outcome outcome, uint64_t now_ms,
                                                    double random_unit);
void pl_health_machine_add_latency(struct pl_health_machine *self, uint32_t first_token_ms,
                                   bool streams);

void pl_health_machine_eject(struct pl_health_machine *self, enum pl_health_reason reason,
                             uint64_t duration_ms, uint64_t now_ms);
void pl_health_machine_restore(struct pl_health_machine *self, uint64_t now_ms);
void pl_health_machine_check_result(struct pl_health_machine *self, bool good,
                                    uint32_t unhealthy_after, uint32_t healthy_after,
                                    bool readmits_passive, uint64_t now_ms);
/** All but in_flight and ramp_ratio. */
void pl_health_machine_look(const struct pl_health_machine *self, uint64_t now_ms,
                            struct pl_health_view *out);

#endif
