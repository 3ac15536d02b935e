/*
 * Deadline: how a try tells its upstream how much time there is, in the headers in which clients
 * say it. What clients say is read in Lua (lua/perilune/deadline.lua), where the units are
 * described.
 *
 * Pure, any thread.
 */
#ifndef PL_DEADLINE_H
#define PL_DEADLINE_H

#include "base.h"

enum pl_deadline_unit { PL_DEADLINE_NONE, PL_DEADLINE_MS, PL_DEADLINE_S, PL_DEADLINE_GRPC };

#define PL_DEADLINE_MAX_BYTES (PL_NUMBER_MAX + 1)

/** The unit of a header, whatever the case of its name, in a list such as "x-a-ms:ms,x-b:s"; NONE
 *  when it is not in the list, which may be NULL. */
enum pl_deadline_unit pl_deadline_unit_of(const char *list, struct pl_str name);
/** Writes a time, rounded up to the unit, as 0 would say that there is none. Returns its length. */
size_t pl_deadline_put(char out[PL_DEADLINE_MAX_BYTES], enum pl_deadline_unit unit, uint64_t ms);

#endif
