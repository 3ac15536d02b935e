/*
 * What the parts of reload share. Nobody else includes this.
 */
#ifndef PL_RELOAD_INTERNAL_H
#define PL_RELOAD_INTERNAL_H

#include "loader.h"
#include "reload.h"
#include "strikes.h"

#define PL_RELOAD_WORKERS_MAX 256 /* as in perilune.schema */

enum pl_reload_phase { PL_RELOAD_IDLE, PL_RELOAD_LOADING, PL_RELOAD_PUBLISHING };

struct pl_reload_ticket {
    struct pl_reload_request request;
    char *reason;
    pl_reload_cb cb;
    void *arg;
    TAILQ_ENTRY(pl_reload_ticket) link;
};

/** What differs between two configurations; texts are copies. */
struct pl_reload_diff {
    struct pl_reload_change *changes;
    size_t count, total;
    const char *restart[8];
};

/** When the files that were read last differ from what is there. */
struct pl_reload_watch {
    struct event *timer;      /* NULL: nobody watches */
    struct pl_config *config; /* what was read last; a reference */
    uint64_t tried;           /* fingerprint of what was loaded, or refused */
    uint64_t seen, seen_ms;   /* the last other one, and since when it is that */
};

struct pl_reload {
    struct pl_reload_state state;
    struct event_base *base;
    const char *directory;
    struct pl_config_overrides overrides;
    struct pl_reload_ops ops;
    struct pl_worker *workers[PL_RELOAD_WORKERS_MAX];
    size_t worker_count; /* that were added */
    size_t worker_target_count;
    struct pl_health *health;
    struct pl_gauge *gauge;
    struct pl_config *started; /* what the process began with: a reference */
    uint64_t last_number;
    bool draining;

    struct pl_loader *loader;
    int notify_fd;
    struct event *notify_event, *step_event;
    TAILQ_HEAD(, pl_reload_ticket) tickets;
    struct pl_reload_ticket *running; /* may have been forgotten: its cb is NULL then */
    enum pl_reload_phase phase;
    struct pl_edition *published; /* what the running ticket put in force */
    struct pl_reload_diff diff;

    struct pl_strikes strikes, canary_strikes;
    uint64_t hopeless_ms; /* when it was last said that there is nothing to go back to */
    struct pl_reload_watch watch;
    struct event *trial_timer;
    uint64_t trial_start_ms, trial_ms;
    struct pl_figures_view *trial_base; /* the stable edition's when the trial began */
};

/* reload.c */

/** What was read is not sound: what is in force stays, and whoever asked is told. */
void pl_reload_fail(struct pl_reload *self, const char *text);

/* reload_force.c */

/** Gives the edition its number and its place in the memory. */
void pl_reload_number(struct pl_reload *self, struct pl_edition *edition, const char *by);
/** It is current; what depends on the configuration follows. The workers do by their orders. */
void pl_reload_become_current(struct pl_reload *self, struct pl_edition *edition);
void pl_reload_give_orders(struct pl_reload *self);
/** What the running ticket does, each to its end or until the workers have followed. */
void pl_reload_take_loaded(struct pl_reload *self, struct pl_edition *edition);
/** The current edition is taken back: `edition` was made from the one before. */
void pl_reload_take_restored(struct pl_reload *self, struct pl_edition *edition);
void pl_reload_drop_canary(struct pl_reload *self);
void pl_reload_promote_canary(struct pl_reload *self);

/* reload_diff.c */

/** Fills an empty `out`. `started` is what the process began with. */
void pl_reload_compare(struct pl_reload_diff *out, const struct pl_config *before,
                       const struct pl_config *after, const struct pl_config *started);
void pl_reload_diff_clear(struct pl_reload_diff *self);

/* reload_watch.c */

/** `config` was read, or (NULL) what is there was refused: nothing to do until it changes again. */
void pl_reload_watch_read(struct pl_reload *self, struct pl_config *config);
void pl_reload_watch_end(struct pl_reload *self);

/* reload_trial.c */

void pl_reload_trial_begin(struct pl_reload *self, const struct pl_reload_request *request);
void pl_reload_trial_end(struct pl_reload *self);
/** Policy failures of the editions that serve, since the last look. */
void pl_reload_count_faults(struct pl_reload *self);
/** A new edition is current: its failures are counted from none. */
void pl_reload_reset_strikes(struct pl_reload *self);

#endif
