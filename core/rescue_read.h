/*
 * What an event of a stream says, as far as it matters when another target is to go on with the
 * answer: its text, and what stands in the way. The forms of OpenAI (chat, completions) and
 * Anthropic (messages); of others only whether they have ended.
 *
 * Pure, any thread, no allocation: what is found lies in the event's data.
 */
#ifndef PL_RESCUE_READ_H
#define PL_RESCUE_READ_H

#include "base.h"

enum pl_rescue_form {
    PL_RESCUE_FORM_UNKNOWN,
    PL_RESCUE_FORM_CHAT,
    PL_RESCUE_FORM_COMPLETION,
    PL_RESCUE_FORM_MESSAGES,
    PL_RESCUE_FORM_RESPONSES,
};

/** Why no other target can go on with an answer. */
enum pl_rescue_obstacle {
    PL_RESCUE_NO_OBSTACLE,
    PL_RESCUE_OFF,        /* nobody wants it */
    PL_RESCUE_TOOL_CALL,  /* a tool is being called */
    PL_RESCUE_STRUCTURED, /* the answer has a grammar */
    PL_RESCUE_REASONING,  /* it breaks off within its reasoning */
    PL_RESCUE_CHOICES,    /* there are several answers in one */
    PL_RESCUE_LOGPROBS,   /* each token has its probability */
    PL_RESCUE_CONTENT,    /* something other than text */
    PL_RESCUE_TOO_LONG,   /* more text than is kept */
    PL_RESCUE_API,        /* an API, or an event, that is not known */
};

/** The events of messages. */
enum pl_rescue_step {
    PL_RESCUE_NO_STEP,
    PL_RESCUE_MESSAGE_START,
    PL_RESCUE_BLOCK_START,
    PL_RESCUE_BLOCK_DELTA,
    PL_RESCUE_BLOCK_STOP,
    PL_RESCUE_MESSAGE_DELTA,
    PL_RESCUE_MESSAGE_STOP,
};

/** Texts are empty where there is none. */
struct pl_rescue_said {
    enum pl_rescue_form form;
    enum pl_rescue_obstacle obstacle; /* what is in it that another target cannot take up */
    bool is_malformed, is_error;
    bool is_finish;   /* the answer says that it is complete */
    bool is_terminal; /* the end of the stream */
    bool is_reasoning;
    bool has_choice;    /* of chat and completions: something is said of the answer itself */
    struct pl_str text; /* a string as it is written, quotes and all */
    struct pl_str id, created, usage; /* values as they are written */
    struct pl_str role;               /* the member, from the key's quote to its value's end */
    enum pl_rescue_step step;
    enum { PL_RESCUE_TEXT_BLOCK, PL_RESCUE_THINKING_BLOCK, PL_RESCUE_OTHER_BLOCK } block;
    struct pl_str index; /* of the block */
};

/** Reads one event. `name` may be empty; `data` is not. */
void pl_rescue_read(struct pl_rescue_said *self, struct pl_str name, struct pl_str data);
/** A whole number as it is written; -1 for anything else. */
int64_t pl_rescue_number(struct pl_str value);
/** What a field of the request's body stands in the way of. */
enum pl_rescue_obstacle pl_rescue_obstacle_of_field(struct pl_str key, struct pl_str value);
/** A name for the log: "tool_call"; of NO_OBSTACLE "none". */
const char *pl_rescue_obstacle_name(enum pl_rescue_obstacle obstacle);

#endif
