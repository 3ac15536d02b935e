/* Answers: every byte that the fake upstream sends, made in advance. */
#ifndef BENCH_ANSWERS_H
#define BENCH_ANSWERS_H

#include "counters.h"
#include <stddef.h>

#define ANSWERS_EVENTS_PER_WRITE 64

struct bytes {
    char *data;
    size_t len;
};

struct answers {
    struct bytes whole[LISTENER_COUNT]; /* to a plain request */
    struct bytes unreadable;            /* to a request that cannot be read */
    struct bytes opening;               /* of a stream: head, role event, first content event */
    struct bytes content;               /* ANSWERS_EVENTS_PER_WRITE content events of one length */
    struct bytes closing;               /* finish event, [DONE], last chunk */
};

void answers_make(struct answers *self);

#endif
