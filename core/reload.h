/*
 * Reload: which editions of the configuration are in force, and how that changes: by reloads,
 * trials (canaries) and rollbacks.
 *
 * Thread: the main thread. One change at a time, in the order in which they are asked for; a change
 * goes on over several turns of the loop:
 *
 *     asked -> loading (loader.h) -> publishing -> done
 *                 |                      every worker has carried out its orders
 *                 '-> refused: nothing has changed
 *
 * So all workers are ready for what is published, or nothing is: each edition's VMs are complete
 * before the first worker hears of it.
 */
#ifndef PL_RELOAD_H
#define PL_RELOAD_H

#include "base.h"
#include "config.h"
#include "edition.h"
#include "worker.h"
#include <event2/event.h>

#define PL_RELOAD_CHANGES_MAX 1024 /* named in one answer */

struct pl_reload;

enum pl_reload_kind {
    PL_RELOAD_LOAD,     /* read the directory anew */
    PL_RELOAD_ROLLBACK, /* end the trial; without one, restore what was in force before */
    PL_RELOAD_PROMOTE,  /* end the trial: its edition becomes current */
};

/** What is asked for. */
struct pl_reload_request {
    enum pl_reload_kind kind;
    const char *by;      /* "operator", "SIGHUP", "watch", "strikes", "trial"; static */
    const char *reason;  /* NULL, or a sentence; copied */
    double canary_ratio; /* of requests to try it with; 0: no trial */
    uint64_t canary_ms;  /* how long */
    bool replace;        /* a running trial is ended by it; otherwise it is in the way */
    uint64_t number;     /* of a rollback: what to take back, if it still serves; 0: see above */
};

struct pl_reload_change {
    const char *kind;   /* "file", "provider", "target", "route", "setting" */
    const char *action; /* "added", "changed", "removed" */
    const char *name;
};

/** What became of it; valid during the callback. */
struct pl_reload_result {
    int status;       /* as of HTTP: 200, 409 (not now), 422 (what was read is not sound), 503 */
    const char *code; /* of a failure: "reload_failed", ... */
    const char *text; /* of a failure: a problem per line */
    const struct pl_edition *edition; /* that is in force or on trial now; NULL when it failed */
    const struct pl_reload_change *changes;
    size_t change_count, change_total; /* the total may be more than are named */
    const char *restart[8];            /* settings that wait for a restart; NULL-terminated */
};

typedef void (*pl_reload_cb)(void *arg, const struct pl_reload_result *result);

/** What a reload acts on; all borrowed until pl_reload_free. */
struct pl_reload_ops {
    /** The edition in force has changed: what else depends on it may follow. */
    void (*on_current)(void *arg, const struct pl_config *config);
    void *arg;
};

struct pl_reload *pl_reload_new(struct event_base *base, const char *directory,
                                const struct pl_config_overrides *overrides,
                                const struct pl_reload_ops *ops);
/** The first edition: takes over a reference to `config`. PL_ERR_SYNTAX with a sentence when it
 *  does not load. */
PL_NODISCARD int pl_reload_begin(struct pl_reload *self, struct pl_config *config,
                                 size_t worker_count, char *error, size_t error_size);
/** A worker that serves from now on, before it is started. */
void pl_reload_add_worker(struct pl_reload *self, struct pl_worker *worker);
/** The workers have ended, or never began: frees all editions. NULL is let pass. */
void pl_reload_free(struct pl_reload *self);
/** What workers call, on their threads, when something has happened to a generation. */
void pl_reload_notify(void *reload);

/** Reloads when what was read has changed and has been quiet for 200 ms. */
void pl_reload_watch(struct pl_reload *self);
/** From here on nothing is reloaded any more. */
void pl_reload_set_draining(struct pl_reload *self);
/** The configuration in force. */
const struct pl_config *pl_reload_config(const struct pl_reload *self);

struct pl_reload_ticket;
/** Asks for a change. `cb`, which may be NULL, is called once, later, never from inside. */
struct pl_reload_ticket *pl_reload_ask(struct pl_reload *self,
                                       const struct pl_reload_request *request, pl_reload_cb cb,
                                       void *arg);
/** Whether so many changes wait that nobody from outside may ask for another. */
bool pl_reload_is_full(const struct pl_reload *self);
/** The callback will not come; the change may. Only while it is still awaited. */
void pl_reload_forget(struct pl_reload_ticket *ticket);

/* ---- looking ---- */

TAILQ_HEAD(pl_edition_list, pl_edition);

/** Why editions were taken back. */
enum pl_rollback_cause {
    PL_ROLLBACK_OPERATOR,
    PL_ROLLBACK_STRIKES,
    PL_ROLLBACK_TRIAL,
    PL_ROLLBACK_CAUSES,
};
const char *pl_rollback_cause_name(enum pl_rollback_cause cause);

struct pl_reload_state {
    struct pl_edition_list editions; /* the newest first */
    struct pl_edition *current, *canary;
    double canary_ratio;
    uint64_t canary_until_ms;          /* monotonic */
    char canary_reason[512];           /* how it stands */
    uint64_t good_count, failed_count; /* reloads */
    uint64_t promoted_count;           /* trials that ended well */
    uint64_t rollback_counts[PL_ROLLBACK_CAUSES];
    uint64_t failed_wall_ms; /* of the last one that failed; 0: none */
    char *failed_text;       /* what was wrong with it */
};

const struct pl_reload_state *pl_reload_look(const struct pl_reload *self);

#endif
