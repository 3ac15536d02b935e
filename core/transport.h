/*
 * Transport: how a request's tries reach an upstream. Over the network it is attempt.c; where
 * requests are only played, a script (stage_upstream.c). The contract of every function is that of
 * its namesake in attempt.h: above all, no callback from inside start, cancel, pause or resume.
 *
 * Thread: one worker. What an attempt is, only its transport knows.
 */
#ifndef PL_TRANSPORT_H
#define PL_TRANSPORT_H

#include "attempt.h"
#include "target.h"

struct pl_transport {
    /** Starts a try within `target->limits`. `pool`: of its provider; NULL off the network. */
    struct pl_attempt *(*start)(const struct pl_transport *self, struct pl_pool *pool,
                                const struct pl_target *target,
                                const struct pl_attempt_request *request,
                                const struct pl_attempt_ops *ops, void *arg);
    void (*cancel)(struct pl_attempt *attempt);
    void (*pause)(struct pl_attempt *attempt);
    void (*resume)(struct pl_attempt *attempt);
    bool (*is_sent)(const struct pl_attempt *attempt);
    const struct pl_response_head *(*head)(const struct pl_attempt *attempt);
    const struct pl_attempt_stats *(*stats)(struct pl_attempt *attempt);
};

/** The real one. */
extern const struct pl_transport pl_network_transport;

#endif
