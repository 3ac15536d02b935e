/*
 * Relay: the answer to the client, see request.h. Everything that commits a request goes through
 * here: the upstream's answer passed on, an answer made by the policy, an error.
 *
 * A stream of events is passed on event by event: bytes after the last whole event are kept back,
 * so that when the upstream is cut, what the client has is well-formed and an error event can
 * follow. An answer that is not whole is never ended as if it were.
 */
#include "relay.h"
#include "log.h"
#include "request.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRAIL_VALUE_MAX_BYTES   4096
#define TRAIL_ENTRY_EXTRA_BYTES 128 /* more than all of an entry but its name, and a fault */

/* ---- headers of every answer ----------------------------------------------------------------- */

static void add_header(struct pl_headers *headers, struct pl_str name, struct pl_str value)
{
    if (pl_headers_add(headers, name, value) != PL_OK)
        pl_log(PL_LOG_WARN, "answer header %.*s has an invalid value; left out", (int)name.len,
               name.data);
}

struct line {
    char text[TRAIL_VALUE_MAX_BYTES];
    size_t len;
};

static void put(struct line *self, const char *data, size_t len)
{
    if (self->len + len <= sizeof(self->text)) {
        memcpy(self->text + self->len, data, len);
        self->len += len;
    }
}

static void put_word(struct line *self, const char *word)
{
    put(self, word, strlen(word));
}

static void put_number(struct line *self, uint64_t number)
{
    char digits[PL_NUMBER_MAX];
    put(self, digits, pl_put_decimal(digits, number));
}

static void put_entry(struct line *self, const struct pl_trail_entry *entry)
{
    put_word(self, entry->target->name);
    put(self, ";", 1);
    if (entry->status)
        put_number(self, (uint64_t)entry->status);
    else
        put_word(self, entry->failure != PL_FAIL_NONE ? pl_failure_name(entry->failure)
                                                      : pl_class_name(entry->class));
    put(self, ";", 1);
    put_number(self, entry->duration_ms);
    put(self, "ms", 2);
}

/* "policy;error;3ms": here the operator's policy was left for the floor policy. */
static void put_fault(struct line *self, const struct pl_request *request)
{
    put(self, "policy;", 7);
    put_word(self, pl_policy_fault_name(request->policy_fault));
    put(self, ";", 1);
    put_number(self, request->fault_ms);
    put(self, "ms", 2);
}

/* "primary/gpt-4;503;12ms, fallback/gpt-4;200;30ms" */
static void put_trail(struct line *self, const struct pl_request *request)
{
    self->len = 0; /* the text is long, and need not be cleared */
    for (size_t i = 0; i < request->trail_count; i++) {
        if (i > 0)
            put(self, ", ", 2);
        if (request->floor && i == request->fault_trail_index) {
            put_fault(self, request);
            put(self, ", ", 2);
        }
        if (self->len + strlen(request->trail[i].target->name) + TRAIL_ENTRY_EXTRA_BYTES >
            sizeof(self->text)) {
            put(self, "...", 3);
            break;
        }
        put_entry(self, &request->trail[i]);
    }
}

static void add_trail_header(struct pl_request *self, struct pl_headers *headers)
{
    struct line line;
    put_trail(&line, self);
    add_header(headers, PL_STR("x-perilune-trail"), (struct pl_str){line.text, line.len});
}

/* "floor; reason=error" */
static void add_policy_header(struct pl_request *self, struct pl_headers *headers)
{
    char value[64];
    int len = snprintf(value, sizeof(value), "floor; reason=%s",
                       pl_policy_fault_name(self->policy_fault));
    add_header(headers, PL_STR("x-perilune-policy"), (struct pl_str){value, (size_t)len});
}

static void add_own_headers(struct pl_request *self, struct pl_headers *headers)
{
    char count[PL_NUMBER_MAX];
    if (self->runtime->is_simulator)
        return;
    add_header(headers, PL_STR("x-request-id"), pl_str_of(self->id));
    if (!self->generation->topology->response_headers)
        return;
    if (self->give_up_code[0] != '\0')
        add_header(headers, PL_STR("x-perilune-reason"), pl_str_of(self->give_up_code));
    if (self->floor)
        add_policy_header(self, headers);
    if (self->trail_count == 0)
        return;
    const struct pl_trail_entry *entry = pl_try_entry(self->current);
    if (!entry) /* an answer of ours, after all of them */
        entry = &self->trail[self->trail_count - 1];
    add_header(headers, PL_STR("x-perilune-target"), pl_str_of(entry->target->name));
    size_t len = pl_put_decimal(count, self->trail_count);
    add_header(headers, PL_STR("x-perilune-attempts"), (struct pl_str){count, len});
    add_trail_header(self, headers);
}

/* Written here or by the server, whatever the upstream or a policy says. */
static bool is_own_header(struct pl_str name)
{
    static const char prefix[] = "x-perilune-";
    if (pl_str_equal_nocase(name, PL_STR("x-request-id")))
        return true;
    return name.len >= sizeof(prefix) - 1 &&
           pl_str_equal_nocase((struct pl_str){name.data, sizeof(prefix) - 1},
                               (struct pl_str){prefix, sizeof(prefix) - 1});
}

static bool is_framing(struct pl_str name)
{
    return pl_str_equal_nocase(name, PL_STR("content-length")) ||
           pl_str_equal_nocase(name, PL_STR("date"));
}

/* The upstream's end-to-end headers, then ours. */
static const struct pl_headers *answer_headers(struct pl_request *self,
                                               const struct pl_headers *from)
{
    struct pl_headers *headers = &self->runtime->scratch;
    bool has_connection = from && pl_headers_count(from, PL_STR("connection")) > 0;
    pl_headers_clear(headers);
    for (size_t i = 0; from && i < from->count; i++) {
        struct pl_str name = pl_headers_name(from, i);
        if (pl_header_is_hop_by_hop(name) || is_framing(name) ||
            (is_own_header(name) && !self->runtime->is_simulator) ||
            (has_connection && pl_headers_list_token(from, PL_STR("connection"), name)))
            continue;
        add_header(headers, name, pl_headers_value(from, i));
    }
    add_own_headers(self, headers);
    return headers;
}

/* ---- a stream that heartbeats open ---- */

void pl_request_open_stream(struct pl_request *self, const struct pl_headers *headers)
{
    pl_exchange_start(self->exchange, 200, answer_headers(self, headers), -1);
    self->stream_is_open = true;
}

void pl_request_tell_trail(struct pl_request *self)
{
    struct line line;
    if (self->trail_count == 0 || !self->generation->topology->response_headers)
        return;
    put_trail(&line, self);
    pl_request_say(self, ": x-perilune-trail: ", 20);
    pl_request_say(self, line.text, line.len);
    pl_request_say(self, "\n\n", 2);
}

/* ---- the upstream's answer ---- */

/* A good answer's head goes out with its first event, or with what there is of its body. */
static void count_first_token(struct pl_request *self, int status)
{
    if (self->first_token || status >= 300)
        return;
    self->first_token = true;
    self->first_token_ms = (uint32_t)(pl_last_now_ms() - self->start_ms);
    if (self->generation->figures)
        pl_figures_first_token(self->generation->figures, self->first_token_ms);
}

/* What is declared to the client; an error whose body broke off is sent as far as it came. Of a
 * stream nothing is: it may end in an event of ours, which must not fill up the missing bytes. */
static int64_t declared_length(const struct pl_response *response)
{
    if (response->is_sse)
        return -1;
    if (response->status >= 400 && response->failure != PL_FAIL_NONE)
        return (int64_t)pl_relay_held_bytes(response);
    if (response->complete && response->framing != PL_FRAMING_NONE)
        return (int64_t)pl_relay_held_bytes(response);
    return response->content_length_bytes;
}

/* False: the stream goes no further, and was ended. */
static bool pass_what_is_there(struct pl_request *self)
{
    struct pl_response *response = &self->current->response;
    if (!response->is_sse) {
        pl_relay_write_held(self, pl_relay_held_bytes(response));
        pl_relay_drop_held(response);
        return true;
    }
    pl_relay_open_reader(self);
    bool goes_on = pl_relay_pass_held(self, response->held_whole_bytes);
    pl_relay_release(self);
    return goes_on;
}

bool pl_request_relay(struct pl_request *self)
{
    pl_hedge_decide(self);
    struct pl_try *try = self->current;
    struct pl_response *response = &try->response;
    if (self->past_deadline && try->attempt) /* there is no timer left that would end it */
        pl_request_expire_answer(self);
    if (self->at_seam)
        return pl_relay_join(self);
    assert(response->live && !self->committed);
    assert(!self->stream_is_open || (response->is_sse && response->status < 300));
    bool is_broken_error = response->status >= 400 && response->failure != PL_FAIL_NONE;
    self->committed = true;
    self->served_by = try->target;
    self->status = response->status;
    response->intake = PL_INTAKE_RELAYING;
    count_first_token(self, response->status);
    if (self->stream_is_open)
        pl_request_join_stream(self);
    else
        pl_exchange_start(self->exchange, response->status,
                          answer_headers(self, &response->headers), declared_length(response));
    if (!pass_what_is_there(self)) {
        pl_try_cancel(try);
        pl_relay_end_broken(self);
        return true;
    }
    if (try->attempt) {
        if (!try->paused)
            self->runtime->transport->resume(try->attempt);
        return false;
    }
    pl_relay_end(self, is_broken_error ? PL_FAIL_NONE : response->failure);
    return true;
}

/* ---- answers made here ---- */

void pl_request_respond(struct pl_request *self, int status, const struct pl_headers *headers,
                        const char *body, size_t len)
{
    struct pl_exchange *exchange = self->exchange;
    assert(!self->committed && !self->stream_is_open);
    self->committed = true;
    self->status = status;
    self->exchange = NULL;
    pl_request_note_answer(self, body, len);
    pl_exchange_reply(exchange, status, answer_headers(self, headers), body, len);
}

void pl_request_note_failure(struct pl_request *self, const char *code)
{
    self->failed = true;
    snprintf(self->reason, sizeof(self->reason), "%s", code ? code : "");
}

void pl_request_fail_with(struct pl_request *self, struct pl_client_error *error,
                          const struct pl_headers *headers)
{
    struct pl_headers all;
    size_t len;
    error->request_id = self->id;
    if (self->stream_is_open) {
        pl_request_fail_stream(self, error);
        return;
    }
    char *body = pl_client_error_body(self->dialect, error, &len);
    pl_headers_init(&all);
    if (headers)
        pl_headers_copy(&all, headers);
    if (pl_headers_count(&all, PL_STR("Content-Type")) == 0)
        add_header(&all, PL_STR("Content-Type"), PL_STR("application/json"));
    if (self->dialect == PL_DIALECT_ANTHROPIC)
        add_header(&all, PL_STR("request-id"), pl_str_of(self->id));
    pl_request_respond(self, error->status, &all, body, len);
    pl_headers_deinit(&all);
    free(body);
}

void pl_request_fail(struct pl_request *self, int status, const char *code, const char *message)
{
    struct pl_client_error error = {.status = status, .message = pl_str_of(message), .code = code};
    pl_request_note_failure(self, code);
    pl_request_fail_with(self, &error, NULL);
}

void pl_request_start_answer(struct pl_request *self, int status, const struct pl_headers *headers)
{
    assert(!self->committed);
    self->committed = true;
    self->status = status;
    if (!self->stream_is_open)
        pl_exchange_start(self->exchange, status, answer_headers(self, headers), -1);
}

void pl_request_abort(struct pl_request *self, bool at_once)
{
    struct pl_exchange *exchange = self->exchange;
    self->exchange = NULL;
    self->committed = self->broken = true;
    pl_exchange_abort(exchange, at_once);
}
