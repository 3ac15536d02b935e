/*
 * Transport: see transport.h. The network's.
 */
#include "transport.h"

static struct pl_attempt *start(const struct pl_transport *self, struct pl_pool *pool,
                                const struct pl_target *target,
                                const struct pl_attempt_request *request,
                                const struct pl_attempt_ops *ops, void *arg)
{
    (void)self;
    return pl_attempt_start(pool, request, &target->limits, ops, arg);
}

const struct pl_transport pl_network_transport = {.start = start,
                                                  .cancel = pl_attempt_cancel,
                                                  .pause = pl_attempt_pause,
                                                  .resume = pl_attempt_resume,
                                                  .is_sent = pl_attempt_is_sent,
                                                  .head = pl_attempt_head,
                                                  .stats = pl_attempt_stats};
