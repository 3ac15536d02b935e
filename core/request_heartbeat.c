/*
 * Request, heartbeats: see request.h. While a client waits for a stream, it is told from time to
 * time that somebody is at work, where its route wants that: through gates, back-offs and queues,
 * until there is an answer to pass on; and again while one that broke off waits to go on.
 *
 * The first heartbeat commits the client to a stream of events with status 200. From then on the
 * request has an open stream, whose end can only be an event of it: what becomes of the request is
 * still as open as before (`committed` is about the answer), but relay.c joins a good stream to it,
 * and any error, whoever says it, comes here. A stream that ends in an error event is whole: it
 * says so itself, and libraries raise.
 *
 * Heartbeats are comments, which no library shows to anybody.
 */
#include "request.h"
#include <stdlib.h>
#include <string.h>

static const char BEAT[] = ": perilune waiting\n\n";

static void put(struct pl_headers *headers, struct pl_str name, struct pl_str value)
{
    if (pl_headers_add(headers, name, value) != PL_OK)
        abort();
}

void pl_request_say(struct pl_request *self, const char *data, size_t len)
{
    pl_request_note_answer(self, data, len);
    (void)pl_exchange_write(self->exchange, data, len); /* too little to wait for the client */
}

static void open_stream(struct pl_request *self)
{
    struct pl_headers headers;
    pl_headers_init(&headers);
    put(&headers, PL_STR("Content-Type"), PL_STR("text/event-stream; charset=utf-8"));
    put(&headers, PL_STR("Cache-Control"), PL_STR("no-cache"));
    pl_request_open_stream(self, &headers);
    self->status = 200; /* as far as the client knows */
    pl_headers_deinit(&headers);
}

void pl_request_on_heartbeat(void *arg)
{
    (void)pl_now_ms();
    struct pl_request *self = arg;
    if (!self->exchange || (self->committed && !pl_request_waits_to_go_on(self)))
        return;
    if (!self->stream_is_open && !self->committed)
        open_stream(self);
    pl_request_say(self, BEAT, sizeof(BEAT) - 1);
    pl_timer_start_ms(&self->heartbeat_timer, self->gate.heartbeat_ms);
}

void pl_request_start_heartbeats(struct pl_request *self)
{
    if (self->stream && self->gate.heartbeat_ms > 0 && !self->runtime->is_mute)
        pl_timer_start_ms(&self->heartbeat_timer, self->gate.heartbeat_ms);
}

/* A byte order mark is one only at the start of what the client gets. */
static void drop_mark(struct pl_response *response)
{
    char start[3];
    if (!response->held || evbuffer_copyout(response->held, start, 3) != 3 ||
        memcmp(start, "\xEF\xBB\xBF", 3) != 0)
        return;
    evbuffer_drain(response->held, 3);
    response->held_whole_bytes -= PL_MIN((size_t)3, response->held_whole_bytes);
}

void pl_request_join_stream(struct pl_request *self)
{
    pl_request_tell_trail(self);
    drop_mark(&self->current->response);
}

void pl_request_end_stream(struct pl_request *self, int status, const char *data, size_t len)
{
    struct pl_exchange *exchange = self->exchange;
    self->committed = true;
    self->status = status;
    pl_request_tell_trail(self);
    pl_request_say(self, data, len);
    self->exchange = NULL;
    pl_exchange_end(exchange);
}

void pl_request_fail_stream(struct pl_request *self, const struct pl_client_error *error)
{
    size_t len;
    char *event = pl_client_error_event(self->dialect, error, 0, &len);
    pl_request_end_stream(self, error->status, event, len);
    free(event);
}
