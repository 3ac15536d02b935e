/*
 * Loader: reads and checks a policies directory, and makes an edition of it, on a thread of its
 * own: policies that compute while they are loaded, and slow disks, hold up neither traffic nor the
 * admin listener. One load at a time.
 *
 * Thread: the main thread, which owns it and is called back.
 */
#ifndef PL_LOADER_H
#define PL_LOADER_H

#include "base.h"
#include "config.h"
#include "edition.h"
#include <event2/event.h>

struct pl_loader;

/** What a load needs; borrowed until its callback, but for `config`. */
struct pl_loader_source {
    const char *directory;    /* read and checked; or else: */
    struct pl_config *config; /* one that was in force before; a reference is taken over */
    const struct pl_config_overrides *overrides;
    size_t worker_count;
    void (*on_fault)(void *arg); /* see pl_edition_new */
    void *on_fault_arg;
};

/** `edition` is the callback's to keep; NULL: `problems` says why, a line per problem. */
typedef void (*pl_loader_cb)(void *arg, struct pl_edition *edition, const char *problems);

struct pl_loader *pl_loader_new(struct event_base *base, pl_loader_cb cb, void *arg);
/** Starts a load; the callback comes later. None may be under way. */
void pl_loader_start(struct pl_loader *self, const struct pl_loader_source *source);
/** Waits for a load that is under way, drops what it gives, calls nobody back. NULL is let pass. */
void pl_loader_free(struct pl_loader *self);

#endif
