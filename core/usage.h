/*
 * Usage: finds the model's name and the token counts in an answer as it passes, streamed or not,
 * in the forms of OpenAI (chat, completions, embeddings, responses) and Anthropic.
 *
 * Pure, any thread. The body is not decoded: a scan follows strings and brackets, and keeps only
 * the few hundred bytes of a "usage" object, for as long as it is being read. It looks at members
 * of the top level and of "message" and "response" within it, so that what a model writes about
 * usage is never taken for the real thing. What it does not understand it passes over: bodies are
 * no less valid for it.
 */
#ifndef PL_USAGE_H
#define PL_USAGE_H

#include "base.h"

#define PL_USAGE_MODEL_MAX_BYTES  256
#define PL_USAGE_OBJECT_MAX_BYTES 4096 /* a longer one is passed over */

/** -1: not told. Later events replace what earlier ones said. */
struct pl_usage {
    int64_t input_tokens, output_tokens;
    int64_t cached_tokens;    /* of the input, read from the provider's cache */
    int64_t reasoning_tokens; /* of the output */
};

struct pl_usage_scan {
    struct pl_usage found;
    char *model;    /* of the answer; NULL: not told. Owned. */
    bool met_usage; /* a "usage" object has begun; the user may set it back */
    /* private to usage.c below */
    bool is_sse;
    uint8_t state;
    bool escaped;     /* within a string: the byte before was a backslash */
    bool line_is_new; /* of an event stream: nothing has been read of the line */
    bool last_was_cr; /* an LF that comes next belongs to the line end before it */
    uint8_t line_state;
    uint16_t depth;
    uint8_t key_len; /* one more than fits when it was cut */
    uint8_t want;    /* what the value that comes is */
    uint8_t within;  /* whether the objects down to here lead to what is wanted, a bit a depth */
    char key[16];
    char *capture; /* NULL while there is none */
    uint16_t capture_len, capture_depth;
};

void pl_usage_scan_init(struct pl_usage_scan *self, bool is_sse);
void pl_usage_scan_deinit(struct pl_usage_scan *self);
/** Takes the next bytes of the body, cut anywhere. */
void pl_usage_scan_feed(struct pl_usage_scan *self, const char *data, size_t len);

#endif
