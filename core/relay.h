/*
 * Relay, between its own files: relay.c (heads, and answers made here), relay_stream.c (streams of
 * events), relay_end.c (how they end), relay_seam.c (a stream that breaks off, and goes on from
 * another target).
 *
 * Thread: one worker. A reader belongs to a request, from the moment at which its answer is passed
 * on to the request's end; most requests have none, and their events pass unread.
 */
#ifndef PL_RELAY_H
#define PL_RELAY_H

#include "events.h"
#include "request.h"
#include "rescue.h"

/** Why a stream goes no further, though its connection does. */
enum pl_relay_break {
    PL_RELAY_GOES_ON,
    PL_RELAY_SAYS_ERROR, /* an error in place of an event */
    PL_RELAY_PARTED,     /* it says something else than what the client has */
};

/** Reads the events that are passed on, where the route or its policy wants more than that. */
struct pl_relay_reader {
    struct pl_events events;
    struct pl_rescue rescue;
    bool reads;   /* until an event is too large */
    bool rescues; /* another target may go on */
    bool has_passed_error;
    bool continues;     /* it is to be asked for what follows, if it can be */
    bool keeps_request; /* of the client, for another try */
    enum pl_relay_break broke;
    const struct pl_target *seam_target; /* whose answer broke off ... */
    enum pl_failure seam_failure;        /* ... and why */
    char *error; /* the event that said so, for the client if nobody goes on; NULL: none */
    size_t error_len;
};

/* ---- relay_stream.c ---- */

/** Bytes on their way to the client; pauses the upstream when that is slow. */
void pl_relay_write(struct pl_request *self, const char *data, size_t len);
/** The same of the first held bytes. */
void pl_relay_write_held(struct pl_request *self, size_t len);
/** Passes on held bytes of a stream, of which the first `whole` are whole events. False: it goes no
 *  further (reader->broke), and whoever asked for it ends it. */
PL_NODISCARD bool pl_relay_pass_held(struct pl_request *self, size_t whole);
/** Passes on bytes of a stream; the same. */
PL_NODISCARD bool pl_relay_events(struct pl_request *self, const char *data, size_t len);
size_t pl_relay_held_bytes(const struct pl_response *response);
void pl_relay_drop_held(struct pl_response *response);

/* ---- relay_end.c ---- */

/** As what a stream has failed that goes no further; NONE: it has only parted. */
enum pl_failure pl_relay_failure_of_break(const struct pl_request *self);
/** The answer's end: of the exchange, too, unless a seam is left open. */
void pl_relay_end(struct pl_request *self, enum pl_failure failure);
/** The same of a stream that goes no further. */
void pl_relay_end_broken(struct pl_request *self);
/** The last event of a stream that does not end well, so that the client's library raises; then its
 *  connection is broken. */
void pl_relay_break_off(struct pl_request *self, const struct pl_target *target,
                        enum pl_failure failure);

/* ---- relay_seam.c ---- */

/** Makes the request's reader, if anything wants one. */
void pl_relay_open_reader(struct pl_request *self);
/** Whether another target may go on where the stream is now. */
bool pl_relay_can_go_on(const struct pl_request *self);
/** Writes down how the try at hand broke off; NONE: it has only parted. */
void pl_relay_note_break(struct pl_request *self, enum pl_failure failure);
/** The try ends, the client's answer stays open. */
void pl_relay_open_seam(struct pl_request *self, enum pl_failure failure);
/** The live answer goes on in the client's; as pl_request_relay. */
bool pl_relay_join(struct pl_request *self);
/** A stream may stay open for minutes: what only another try would need is given back. */
void pl_relay_release(struct pl_request *self);
/** Keeps an error event until it is known what becomes of the stream. */
void pl_relay_keep_error(struct pl_request *self, struct pl_str event);

#endif
