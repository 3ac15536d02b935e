/*
 * Worker: a thread that carries traffic. Has its own event loop, resolver, listening socket, and
 * the generations in force; is told things through a mailbox. The main thread makes and frees it.
 */
#ifndef PL_WORKER_H
#define PL_WORKER_H

#include "base.h"
#include "generation.h"
#include "jobs.h"
#include "metrics.h"
#include "recent.h"
#include "server.h"
#include "spans.h"
#include "watchdog.h"

enum pl_mail {
    PL_MAIL_DRAIN = 1,  /* stop accepting, finish what is in flight, then end */
    PL_MAIL_STOP = 2,   /* end now */
    PL_MAIL_ORDERS = 4, /* see pl_worker_order */
    PL_MAIL_JOBS = 8,   /* see pl_worker_ask */
};

/** What is in force from now on. */
struct pl_worker_orders {
    struct pl_generation *current; /* of this worker; new ones are opened */
    struct pl_generation *canary;  /* NULL: none is on trial */
    double canary_ratio;           /* of new requests */
    struct pl_server_limits limits;
    uint32_t drain_ms;            /* at the end of the process */
    uint32_t generation_drain_ms; /* how long those that are neither may serve their requests */
};

struct pl_worker;

/**
 * Makes a worker ready and takes `listen_fd`. `tls` may be NULL. `notify(arg)` is called on the
 * worker's thread when orders have been carried out and when a generation was closed. NULL with a
 * sentence in `error`.
 */
struct pl_worker *pl_worker_new(int listen_fd, SSL_CTX *tls, bool is_simulator,
                                void (*notify)(void *arg), void *arg, char *error,
                                size_t error_size);
/** Has it count its requests, and say how it is, as number `index` of `metrics`; both before it is
 *  started. `metrics` is borrowed. */
void pl_worker_measure(struct pl_worker *self, struct pl_metrics *metrics, size_t index);
/** Has it keep its ended requests in `recent`, which is borrowed, as its worker of that index. */
void pl_worker_keep(struct pl_worker *self, struct pl_recent *recent, size_t index);
/** Has it write a line of each request to `sink`, which is borrowed; before it is started. */
void pl_worker_log(struct pl_worker *self, struct pl_sink *sink);
/** Has it give the spans of its requests to `spans`, which is borrowed; before it is started. */
void pl_worker_trace(struct pl_worker *self, struct pl_spans *spans);
/** Starts the thread. Orders must have been given. */
void pl_worker_start(struct pl_worker *self);
/** What it shows of its policies' runs; lives as long as the worker. */
const struct pl_watch *pl_worker_watch(const struct pl_worker *self);
/** Any thread. */
void pl_worker_mail(struct pl_worker *self, enum pl_mail mail);
/** Gives orders; the ones before must have been carried out. Generations that are not in them are
 *  retired. Main thread only. */
void pl_worker_order(struct pl_worker *self, const struct pl_worker_orders *orders);
/** Whether the last orders are in force. Main thread only. */
bool pl_worker_is_settled(const struct pl_worker *self);
/** Has the worker run a job, whose context is its struct pl_runtime. False when the worker has
 * ended or was not started: then it will not run. Main thread only. */
PL_NODISCARD bool pl_worker_ask(struct pl_worker *self, struct pl_job *job);
/** Waits for the thread's end. Any thread; mail may still be sent meanwhile. */
void pl_worker_join(struct pl_worker *self);
/** Frees one that was joined or never started; generations are left to their owner. NULL is let
 *  pass. */
void pl_worker_free(struct pl_worker *self);

#endif
