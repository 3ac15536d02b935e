/*
 * Client error: what the gateway itself has to say when there is no answer to pass on, in the form
 * that the client's library reads: a body, or an event that ends a stream.
 *
 *   openai     {"error":{"message":..,"type":..,"param":..,"code":..}}
 *   responses  the same body; events as OpenAI's Responses API has them, with that `error` beside
 *              their own members, as it is all that some versions of OpenAI's libraries look at
 *   anthropic  {"type":"error","error":{"type":..,"message":..,"details":{"error_code":..}},
 *              "request_id":..}, and the event's name is "error"
 *
 * The type follows from the status. Pure, any thread. The only place that writes such errors: Lua
 * comes here, too (bind_request.c); what may be said in a message is cleaned there
 * (lua/perilune/errors.lua).
 */
#ifndef PL_CLIENT_ERROR_H
#define PL_CLIENT_ERROR_H

#include "base.h"
#include "headers.h"

enum pl_dialect { PL_DIALECT_OPENAI, PL_DIALECT_RESPONSES, PL_DIALECT_ANTHROPIC };

/** All texts are borrowed. */
struct pl_client_error {
    int status;             /* 400 to 599: that of the answer, or that it would have had */
    struct pl_str message;  /* for people */
    const char *code;       /* for programs; or NULL */
    const char *param;      /* the member of the request at fault; or NULL */
    const char *request_id; /* or NULL */
};

/**
 * What the client speaks: told by the path (before '?'), and where that tells nothing by an
 * `anthropic-version` among `headers`, which may be NULL.
 */
enum pl_dialect pl_client_error_dialect(struct pl_str path, const struct pl_headers *headers);
/** A new text, JSON, of `*len` bytes. */
char *pl_client_error_body(enum pl_dialect dialect, const struct pl_client_error *error,
                           size_t *len);
/** A new text: a whole event. `sequence_number`: of the next event, where events are numbered. */
char *pl_client_error_event(enum pl_dialect dialect, const struct pl_client_error *error,
                            uint64_t sequence_number, size_t *len);

#endif
