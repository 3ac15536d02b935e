/*
 * Usage event: the event that a stream of chat completions has in addition when
 * `stream_options.include_usage` is set: no choices, only token counts. For gateways that ask for
 * it where the client has not.
 *
 * Pure, any thread.
 */
#ifndef PL_USAGE_EVENT_H
#define PL_USAGE_EVENT_H

#include "base.h"
#include "json.h"

/** What the client's body says of it. */
enum pl_usage_wish {
    PL_USAGE_UNASKED, /* nothing, or false */
    PL_USAGE_ASKED,
    PL_USAGE_BROKEN, /* `stream_options` is of another type: the upstream's to refuse */
};

/** Whether `body`, which was scanned, asks for the event. If it does not, `*options` is set to a
 *  new text for `stream_options` that does and keeps its other members. */
enum pl_usage_wish pl_usage_ask(const struct pl_json *body, char **options);

/** The length of the first event of `len` bytes (at least 1), its blank line included; all of them
 *  when it has no end. */
size_t pl_usage_event_length(const char *data, size_t len);
/** Whether an event is the one described above. */
bool pl_usage_event_is_extra(const char *data, size_t len);

#endif
