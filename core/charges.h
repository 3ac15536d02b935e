/*
 * Charges: what the policies of one generation did wrong, in all workers: how often, and what was
 * said of it last.
 *
 * Thread: any; one short lock. Whoever was waiting is told once until it has taken what there is: a
 * policy that fails in every request costs a lock and a copy each, not a system call.
 */
#ifndef PL_CHARGES_H
#define PL_CHARGES_H

#include "base.h"
#include "figures.h"

#define PL_CHARGES_TEXT_BYTES 512

struct pl_charges;

/** What has come since it was last taken, and the last of all. */
struct pl_charges_view {
    uint64_t new_count, count;
    enum pl_policy_fault last_fault; /* NONE: there was none yet */
    char last_text[PL_CHARGES_TEXT_BYTES];
    uint64_t last_wall_ms;
};

/** `notify(arg)` is called on the thread of whoever charges, outside the lock. May be NULL. */
struct pl_charges *pl_charges_new(void (*notify)(void *arg), void *arg);
void pl_charges_free(struct pl_charges *self);
/** `text` is copied, cut to PL_CHARGES_TEXT_BYTES. */
void pl_charges_add(struct pl_charges *self, enum pl_policy_fault fault, const char *text);
/** Fills `out` and begins anew with new_count. */
void pl_charges_take(struct pl_charges *self, struct pl_charges_view *out);
/** The same without taking: new_count goes on. */
void pl_charges_look(struct pl_charges *self, struct pl_charges_view *out);

#endif
