/*
 * Gate: reads the beginning of a stream of events, up to the first one that means something to its
 * client: text, reasoning, a tool call, a refusal. Until then the stream can still be left for
 * another target's, unseen: when it says nothing, ends empty, begins with an error or with garbage.
 *
 * Pure, any thread. It is fed the stream's bytes, cut anywhere, until it has decided; how they are
 * cut makes no difference. It keeps one event's data at a time, at most PL_GATE_EVENT_MAX_BYTES; a
 * larger event is taken to be meaningful. Events are split in events.c, what they mean is in
 * gate_judge.c.
 */
#ifndef PL_GATE_H
#define PL_GATE_H

#include "base.h"
#include "events.h"
#include "gate_judge.h"

#define PL_GATE_EVENT_MAX_BYTES 65536

struct pl_gate {
    enum pl_gate_verdict verdict;
    /* private to gate.c below */
    struct pl_gate_seen seen;
    struct pl_events events;
    bool has_events; /* one has been judged */
    bool decided;    /* by the event at hand */
};

void pl_gate_init(struct pl_gate *self);
/** Idempotent; the verdict stays. */
void pl_gate_deinit(struct pl_gate *self);
/** Feeds bytes; what follows the event that decided is not looked at. Returns the verdict. */
enum pl_gate_verdict pl_gate_feed(struct pl_gate *self, const char *data, size_t len);
/** The stream has ended: never WAIT. */
enum pl_gate_verdict pl_gate_end(struct pl_gate *self);
/** The data of the event that decided, until deinit; empty when no event did. */
struct pl_str pl_gate_data(const struct pl_gate *self);

#endif
