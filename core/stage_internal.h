/*
 * What the parts of stage share. Nobody else includes this.
 */
#ifndef PL_STAGE_INTERNAL_H
#define PL_STAGE_INTERNAL_H

#include "edition.h"
#include "request.h"
#include "stage.h"
#include "transport.h"

struct pl_stage_check;

struct pl_stage {
    struct pl_transport transport; /* at the head: it finds its stage by it */
    struct pl_timeline timeline;
    struct pl_random random; /* the stage's while it is left, the process's while it runs */
    struct pl_config *config;
    struct pl_edition *edition; /* of `config`; NULL when that could not be loaded */
    struct pl_health *health;
    struct pl_gauge *gauge;
    struct pl_runtime runtime;
    struct pl_stage_ops ops;
    void *arg;
    uint64_t call_count, client_count;
    struct pl_stage_check *checks; /* one per provider */
    char **lines;
    size_t line_count, line_cap, line_max; /* line_max 0: no limit */
    size_t body_max_bytes;                 /* 0: no limit */
    uint32_t depth;                        /* how often it has been entered */
    bool stopped;
    const struct pl_clock *outer_clock;
    struct pl_stage *outer; /* that runs meanwhile */
};

/** Between the two, clock, random numbers and log are the stage's. They nest. */
void pl_stage_enter(struct pl_stage *self);
void pl_stage_exit(struct pl_stage *self);

/** Begins with the active checks of the configuration. Entered. */
void pl_stage_checks_start(struct pl_stage *self);
/** Idempotent. */
void pl_stage_checks_stop(struct pl_stage *self);

/** The scripted transport's functions. */
extern const struct pl_transport pl_stage_transport;

#endif
