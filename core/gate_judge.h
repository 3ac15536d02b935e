/*
 * What an event, or a whole answer, means to the client: the forms of OpenAI (chat, completions,
 * responses), Anthropic and those who imitate them.
 *
 * Pure, any thread, no allocation. An event of a form that is not known is meaningful: what an
 * unknown API says is passed on at once.
 */
#ifndef PL_GATE_JUDGE_H
#define PL_GATE_JUDGE_H

#include "base.h"

enum pl_gate_verdict {
    PL_GATE_WAIT,       /* nothing yet: a role, a ping, the frame of what is to come */
    PL_GATE_MEANINGFUL, /* what the client waits for has begun */
    PL_GATE_ERROR,      /* an error in place of an answer */
    PL_GATE_EMPTY,      /* the end, without any content before it */
    PL_GATE_MALFORMED,  /* not JSON */
};

/** What earlier events have said; all false at first. */
struct pl_gate_seen {
    bool several_choices; /* that one of them ends does not end the answer */
};

/** Judges one event. `name` may be empty; `data` is what its data lines say, not empty. */
enum pl_gate_verdict pl_gate_judge_event(struct pl_gate_seen *seen, struct pl_str name,
                                         struct pl_str data);
/** The same as far as an event says it by itself, whatever it tells of an answer: ERROR, MALFORMED,
 *  EMPTY for the end of a stream, MEANINGFUL where nobody can tell, else WAIT. */
enum pl_gate_verdict pl_gate_judge_frame(struct pl_str name, struct pl_str data);
/** Judges a whole answer that is not streamed; never WAIT. One without choices, content, output or
 *  data is empty. */
enum pl_gate_verdict pl_gate_judge_body(struct pl_str body);

#endif
