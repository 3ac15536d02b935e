/*
 * Worker: a thread that carries traffic. Has its own event loop, resolver, pools, VM and listening
 * socket; is told things through a mailbox. The main thread makes and frees it.
 */
#ifndef PL_WORKER_H
#define PL_WORKER_H

#include "base.h"
#include "config.h"
#include "watchdog.h"

enum pl_mail {
    PL_MAIL_DRAIN = 1, /* stop accepting, finish what is in flight, then end */
    PL_MAIL_STOP = 2,  /* end now */
};

struct pl_worker;

/**
 * Makes a worker ready, VM and all, and takes `listen_fd`. NULL with a sentence in `error`. The
 * thread starts with pl_worker_start.
 */
struct pl_worker *pl_worker_new(const struct pl_config *config, int listen_fd, char *error,
                                size_t error_size);
void pl_worker_start(struct pl_worker *self);
/** What it shows of its policies' runs; lives as long as the worker. */
const struct pl_watch *pl_worker_watch(const struct pl_worker *self);
/** Any thread. */
void pl_worker_mail(struct pl_worker *self, enum pl_mail mail);
/** What the simulator says of itself; "" for the gateway. */
const char *pl_worker_banner(const struct pl_worker *self);
/** Waits for the thread's end. Any thread; mail may still be sent meanwhile. */
void pl_worker_join(struct pl_worker *self);
/** Frees one that was joined or never started; NULL is let pass. */
void pl_worker_free(struct pl_worker *self);

#endif
