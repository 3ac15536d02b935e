/*
 * Edition: one configuration as the whole process has it in force, or on trial, or in memory: its
 * number, its files, a generation for each worker, and what has become of its requests. What
 * operators call a generation is this.
 *
 * Thread: made by pl_edition_new, on any one thread; from then on the main thread's, but for its
 * generations, which are lent to the workers from orders to close.
 */
#ifndef PL_EDITION_H
#define PL_EDITION_H

#include "base.h"
#include "config.h"
#include "generation.h"
#include <sys/queue.h>

enum pl_edition_state {
    PL_EDITION_LOADED,  /* not in force yet */
    PL_EDITION_CURRENT, /* what requests begin on */
    PL_EDITION_CANARY,  /* a share of them */
    PL_EDITION_RETIRED, /* was replaced; its last requests may still be running */
    PL_EDITION_FAILED,  /* was taken back; the same */
};

struct pl_edition {
    uint64_t number; /* from 1; restoring an old one takes a new number */
    enum pl_edition_state state;
    struct pl_config *config;           /* a reference; NULL once nobody can go back to it */
    struct pl_generation **generations; /* by worker; NULL where it is closed and freed */
    size_t generation_count;
    struct pl_figures *figures;
    struct pl_charges *charges;
    char *banner; /* what the simulator says of itself, or NULL */

    struct pl_edition *back; /* what a rollback restores; NULL: there is nothing */
    uint64_t restored_from;  /* number, 0: it was read from files */
    uint64_t since_wall_ms;  /* in force or on trial */
    uint64_t until_wall_ms;  /* 0: still is */
    uint64_t fault_count;    /* of its policies, as far as they were judged */
    char digest[17];         /* of its files, as in config */
    size_t file_count;
    char by[32];      /* "start", "operator", "SIGHUP", "watch", "rollback" */
    char reason[512]; /* why it failed or was put in force, for people */
    TAILQ_ENTRY(pl_edition) link;
};

/**
 * Loads the configuration's policies into a VM per worker. Takes over a reference to `config`,
 * unless it fails: NULL with a sentence in `error`. `notify(arg)` is called, on a worker's thread,
 * when a policy has failed.
 */
struct pl_edition *pl_edition_new(struct pl_config *config, size_t worker_count,
                                  void (*notify)(void *arg), void *arg, char *error,
                                  size_t error_size);
/** Frees what workers have closed; true when no generation is left. */
bool pl_edition_collect(struct pl_edition *self);
/** Lets go of the configuration; no generation may be left. */
void pl_edition_forget(struct pl_edition *self);
/** Frees it with all that is left; the workers have ended. NULL is let pass. */
void pl_edition_free(struct pl_edition *self);
/** "loaded", "current", "canary", "draining" while requests are left, "retired", "failed". */
const char *pl_edition_state_name(const struct pl_edition *self);

#endif
