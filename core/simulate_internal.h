/*
 * What the parts of simulate share. Nobody else includes this.
 */
#ifndef PL_SIMULATE_INTERNAL_H
#define PL_SIMULATE_INTERNAL_H

#include "json.h"
#include "simulate.h"
#include <sys/queue.h>

struct pl_simulate_patience;
LIST_HEAD(pl_simulate_patience_list, pl_simulate_patience);

/** A stage and the functions of Lua that it is played with. */
struct pl_simulate_world {
    struct pl_stage *stage;
    lua_State *L; /* while it is entered: whose stack has the table of functions at `table` */
    int table;
    bool failed; /* one of them has raised an error, which is in the table */
    struct pl_headers headers;
    struct pl_json json;
    char *body; /* of the call at hand, in one piece */
    size_t body_cap;
    struct pl_simulate_patience_list waiting; /* clients that will not wait for ever */
};

/* simulate_events.c */

/** What the stage tells, as calls of Lua. Their argument is the world. */
extern const struct pl_stage_ops pl_simulate_ops;
/** The client leaves after that time, if it is still there. */
void pl_simulate_leave_after(struct pl_simulate_world *self, struct pl_stage_client *client,
                             double patience_ms);
/** No client leaves any more. */
void pl_simulate_forget_patience(struct pl_simulate_world *self);

#endif
