/*
 * Rescue: what it takes to go on with a streamed answer that broke off, from another target, so
 * that the client sees one answer.
 *
 * It hears of every event that is to go to the client. Of the first part it keeps the text, up to a
 * limit, the answer's ids and its token counts, and whether something stands in the way of going
 * on: a tool call, a grammar, reasoning, several choices. The events of every further part it makes
 * into those of the first answer: its id and time of creation, its content blocks, its token counts
 * and those of the new part together. What the client has already is dropped:
 *
 *   a part that *continues* has been asked with the text as the beginning of its answer, and
 *   brings only what follows. When it brings the text once more, that is noticed, as long as it is
 *   PL_RESCUE_REPEAT_MIN_BYTES, and treated as
 *   a part that *restarts*, which has been asked afresh: as long as it says what was said it is
 *   dropped, from there on it is passed on. Where it says something else the texts part ways, and
 *   nothing of it can be used.
 *
 * Token counts that the client sees: those of the prompt as the first part told them, else of the
 * last part, without the text that was in its prompt; those of the answer are what all parts have
 * written, each as it told or, broken off before it did, one for each of its events with text.
 *
 * Pure, any thread. One event at a time; the rest of the memory is the text and one more copy of it
 * at most, while a part is compared with it.
 */
#ifndef PL_RESCUE_H
#define PL_RESCUE_H

#include "base.h"
#include "rescue_read.h"
#include "rescue_write.h"

/** A larger event is not looked into; after it there is no rescue. */
#define PL_RESCUE_EVENT_MAX_BYTES 65536
/** As much of the same text is no accident. */
#define PL_RESCUE_REPEAT_MIN_BYTES 16

/** What is to become of an event. */
enum pl_rescue_verdict {
    PL_RESCUE_PASS,      /* it goes to the client as it is */
    PL_RESCUE_REPLACED,  /* `out` goes in its place, which may be nothing */
    PL_RESCUE_MALFORMED, /* it is no JSON: as the route says */
    PL_RESCUE_ERROR,     /* it is an error */
    PL_RESCUE_PARTED,    /* this part is of no use: it says something else than was said before */
};

/** Token counts of a part; -1: not told. */
struct pl_rescue_counts {
    int64_t input, output;
    uint32_t text_events;
};

struct pl_rescue {
    enum pl_rescue_form form;
    enum pl_rescue_obstacle obstacle; /* once there is one it stays */
    bool seen_finish, seen_terminal;  /* of the part at hand */
    uint32_t part_count;              /* begun */
    struct pl_rescue_text out;        /* see PL_RESCUE_REPLACED */
    struct pl_rescue_text text;       /* that the client has, decoded; UTF-8 */
    uint32_t text_event_count;        /* in so many events */
    uint32_t prefix_event_count;      /* of these, when the part at hand began */
    /* private to the files of rescue below */
    size_t max_bytes;
    char *id, *created; /* of the first part, as they were written; NULL: none yet */
    bool in_reasoning, has_role;
    struct pl_rescue_counts counts;   /* of the part at hand ... */
    int64_t first_input, past_output; /* ... and of those before */
    enum { PL_RESCUE_FLOWS, PL_RESCUE_SKIPS_SPACE, PL_RESCUE_PROBES, PL_RESCUE_MATCHES } phase;
    bool continues;
    size_t matched;                      /* bytes of the text that this part has said again */
    struct pl_rescue_text pending;       /* said while nobody knew whether it says it again */
    struct pl_rescue_text pending_event; /* the last one of those */
    /* of messages: content blocks, the client's and those of the part at hand */
    bool is_block_open, is_part_block_open, is_part_block_passed;
    int block, part_block; /* their kinds */
    int64_t block_index, next_index;
};

/** `max_bytes` of text are kept; 0: there will be no rescue, events are only judged. */
void pl_rescue_init(struct pl_rescue *self, size_t max_bytes);
/** Idempotent. */
void pl_rescue_deinit(struct pl_rescue *self);
/** A field of the request's body: some stand in the way. */
void pl_rescue_heed_field(struct pl_rescue *self, struct pl_str key, struct pl_str value);
/** Something else does. */
void pl_rescue_refuse(struct pl_rescue *self, enum pl_rescue_obstacle obstacle);

/** The next event of the part at hand. `name` may be empty, `data` is not. The verdict's `out`
 * lasts until the next call. */
enum pl_rescue_verdict pl_rescue_take(struct pl_rescue *self, struct pl_str name,
                                      struct pl_str data);
/** Why nobody could go on, if it broke off here. */
enum pl_rescue_obstacle pl_rescue_obstacle_now(const struct pl_rescue *self);
/** A further part begins. `continues`: it was asked with pl_rescue_prefix. */
void pl_rescue_begin_part(struct pl_rescue *self, bool continues);
/** The part at hand has not said anything new yet. */
bool pl_rescue_is_behind(const struct pl_rescue *self);
/** The text without the white space at its end: APIs refuse it there, and models write it as the
 *  beginning of their next token. Valid until the next event. */
struct pl_str pl_rescue_prefix(const struct pl_rescue *self);
/** Token counts as the client sees them, from those that the last part has told (-1: none). */
void pl_rescue_add_parts(const struct pl_rescue *self, int64_t *input, int64_t *output);
/** The event that ends a stream of that form; empty when it has none. */
struct pl_str pl_rescue_terminal(enum pl_rescue_form form);

/** How a stream of events has ended, as far as its last events tell. */
enum pl_rescue_ending {
    PL_RESCUE_ENDING_UNKNOWN,    /* its form is not known */
    PL_RESCUE_ENDING_UNFINISHED, /* in the middle */
    PL_RESCUE_ENDING_FINISHED,   /* it was complete, but for the terminal event perhaps */
};
/** Judges whole events, the last ones of a stream. `form` gets the form of the last. */
enum pl_rescue_ending pl_rescue_judge_ending(struct pl_str events, enum pl_rescue_form *form);

/* ---- rescue_ask.c: what a target is asked that is to continue ---- */

/**
 * Makes the value of "messages" that ends in the assistant's `prefix`: as the last message, or at
 * the end of the client's own when that is the assistant's. `members` are those that the message
 * has besides, as raw JSON with a comma before each: `,"prefix":true`. False when the messages
 * leave no room for it. `out` is appended to.
 */
PL_NODISCARD bool pl_rescue_put_messages(struct pl_rescue_text *out, struct pl_str messages,
                                         struct pl_str prefix, struct pl_str members);
/** The same for the value of "prompt", which must be a string. */
PL_NODISCARD bool pl_rescue_put_prompt(struct pl_rescue_text *out, struct pl_str prompt,
                                       struct pl_str prefix);
/** What is left of a limit on tokens when so many have been used, at least 1; -1: it is no limit.
 */
int64_t pl_rescue_tokens_left(struct pl_str limit, uint32_t used_count);

#endif
