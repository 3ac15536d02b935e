/*
 * Send: one try of a request, see request.h. Builds the upstream's request from the client's, and
 * keeps the answer until the policy has judged it.
 *
 * What goes upstream: the client's end-to-end headers without its credentials (unless the provider
 * says passthrough), the target's own changes, the provider's headers last; the body as it came,
 * spliced. Nothing of one target's credential can reach another: the head is built anew each time.
 */
#include "log.h"
#include "request.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the upstream's request ----------------------------------------------------------------- */

static void put(struct pl_request *self, const char *data, size_t len)
{
    if (self->head_len + len > self->head_cap) {
        self->head_cap = PL_MAX(self->head_cap * 2, self->head_len + len + 1024);
        self->head = pl_xrealloc(self->head, self->head_cap);
    }
    memcpy(self->head + self->head_len, data, len);
    self->head_len += len;
}

static void put_str(struct pl_request *self, struct pl_str text)
{
    put(self, text.data, text.len);
}

static void put_text(struct pl_request *self, const char *text)
{
    put(self, text, strlen(text));
}

static void put_header(struct pl_request *self, struct pl_str name, struct pl_str value)
{
    put_str(self, name);
    put(self, ": ", 2);
    put_str(self, value);
    put(self, "\r\n", 2);
}

static void put_headers(struct pl_request *self, const struct pl_headers *headers)
{
    for (size_t i = 0; i < headers->count; i++)
        put_header(self, pl_headers_name(headers, i), pl_headers_value(headers, i));
}

static void put_request_line(struct pl_request *self, const struct pl_provider *provider)
{
    struct pl_str path = pl_exchange_path(self->exchange);
    struct pl_str query = pl_exchange_query(self->exchange);
    if (path.len >= 3 && memcmp(path.data, "/v1", 3) == 0 &&
        (path.len == 3 || path.data[3] == '/')) {
        path.data += 3;
        path.len -= 3;
    }
    put_str(self, pl_exchange_method(self->exchange));
    put(self, " ", 1);
    put_text(self, provider->base_path);
    if (path.len == 0 && provider->base_path[0] == '\0')
        put(self, "/", 1);
    put_str(self, path);
    if (query.len > 0) {
        put(self, "?", 1);
        put_str(self, query);
    }
    put_text(self, " HTTP/1.1\r\nHost: ");
    put_text(self, provider->host_header);
    put(self, "\r\n", 2);
}

/* Ours to write: framing, coding, host, and what the gateway itself adds. */
static bool is_rewritten(struct pl_str name)
{
    return pl_str_equal_nocase(name, PL_STR("host")) ||
           pl_str_equal_nocase(name, PL_STR("content-length")) ||
           pl_str_equal_nocase(name, PL_STR("accept-encoding")) ||
           pl_str_equal_nocase(name, PL_STR("expect")) ||
           pl_str_equal_nocase(name, PL_STR("x-request-id"));
}

static bool is_removed(const struct pl_target *target, struct pl_str name)
{
    for (char **at = target->remove_headers; at && *at; at++) {
        if (pl_str_equal_nocase(name, (struct pl_str){*at, strlen(*at)}))
            return true;
    }
    return pl_headers_count(&target->set_headers, name) > 0;
}

static void put_client_headers(struct pl_request *self, const struct pl_target *target,
                               const struct pl_provider *provider)
{
    const struct pl_headers *headers = pl_exchange_headers(self->exchange);
    bool has_connection = pl_headers_count(headers, PL_STR("connection")) > 0;
    for (size_t i = 0; i < headers->count; i++) {
        struct pl_str name = pl_headers_name(headers, i);
        if (pl_header_is_hop_by_hop(name) || is_rewritten(name) || is_removed(target, name))
            continue;
        if (pl_header_is_credential(name) && provider->auth != PL_AUTH_PASSTHROUGH)
            continue;
        if (has_connection && pl_headers_list_token(headers, PL_STR("connection"), name))
            continue;
        if (pl_headers_count(&provider->headers, name) > 0)
            continue;
        put_header(self, name, pl_headers_value(headers, i));
    }
}

/* An empty body is announced, too: RFC 9110 8.6. */
static bool expects_body(struct pl_str method)
{
    return pl_str_equal(method, PL_STR("POST")) || pl_str_equal(method, PL_STR("PUT")) ||
           pl_str_equal(method, PL_STR("PATCH"));
}

static void build_head(struct pl_request *self, const struct pl_target *target, size_t body_bytes)
{
    const struct pl_provider *provider =
        &self->runtime->topology->providers[target->provider_index];
    char length[PL_NUMBER_MAX];
    self->head_len = 0;
    put_request_line(self, provider);
    put_client_headers(self, target, provider);
    put_headers(self, &provider->headers);
    put_headers(self, &target->set_headers);
    put_text(self, "Accept-Encoding: identity\r\nx-request-id: ");
    put_text(self, self->id);
    put(self, "\r\n", 2);
    if (self->body_kind != PL_BODY_NONE || expects_body(pl_exchange_method(self->exchange))) {
        put_text(self, "Content-Length: ");
        put(self, length, pl_put_decimal(length, body_bytes));
        put(self, "\r\n", 2);
    }
    put(self, "\r\n", 2);
}

/* ---- its body ------------------------------------------------------------------------------- */

/* A later edit of the same key wins: the policy's, then what this target needs, then its model. */
static size_t gather_edits(struct pl_request *self, const struct pl_target *target,
                           struct pl_json_edit *edits)
{
    size_t count = 0;
    for (size_t i = 0; i < self->edit_count; i++) {
        const struct pl_request_edit *edit = &self->edits[i];
        edits[count++] =
            (struct pl_json_edit){.key = {edit->key, strlen(edit->key)},
                                  .value = {edit->value, edit->value ? strlen(edit->value) : 0}};
    }
    for (size_t i = 0; i < target->edit_count; i++)
        edits[count++] = target->edits[i];
    if (target->model)
        edits[count++] = (struct pl_json_edit){
            .key = PL_STR("model"), .value = {target->model_json, strlen(target->model_json)}};
    return count;
}

static int splice_json(struct pl_request *self, const struct pl_target *target)
{
    struct pl_json_edit stack[16], *edits = stack;
    size_t room = target->edit_count + self->edit_count + 1;
    if (room > PL_COUNT(stack))
        edits = pl_xcalloc(room, sizeof(*edits));
    size_t count = gather_edits(self, target, edits);
    int rc = pl_json_splice_make(&self->splice, &self->json, edits, count);
    if (edits != stack)
        free(edits);
    return rc;
}

static void add_piece(struct pl_request *self, size_t *count, const void *data, size_t len)
{
    if (len > 0)
        self->pieces[(*count)++] = (struct iovec){(void *)data, len};
}

static void reserve_pieces(struct pl_request *self, size_t count)
{
    if (count > self->piece_cap) {
        self->piece_cap = count + 4;
        self->pieces = pl_xrealloc(self->pieces, self->piece_cap * sizeof(*self->pieces));
    }
}

/* Lays out head and body; the head's place is filled once the body's length is known. */
static int build_pieces(struct pl_request *self, const struct pl_target *target, size_t *out_count)
{
    size_t count = 1, body_bytes = self->body.len;
    const struct pl_multipart_field *field = &self->model_field;
    bool spliced = self->body_kind == PL_BODY_JSON &&
                   (target->model || target->edit_count || self->edit_count);
    if (spliced) {
        int rc = splice_json(self, target);
        if (rc != PL_OK)
            return rc;
        reserve_pieces(self, self->splice.count + 1);
        for (size_t i = 0; i < self->splice.count; i++)
            add_piece(self, &count, self->splice.pieces[i].iov_base,
                      self->splice.pieces[i].iov_len);
        body_bytes = self->splice.total_bytes;
    } else if (self->body_kind == PL_BODY_MULTIPART && field->found && target->model) {
        size_t after = field->value_start + field->value_len;
        size_t model_len = strlen(target->model);
        reserve_pieces(self, 4);
        add_piece(self, &count, self->body.data, field->value_start);
        add_piece(self, &count, target->model, model_len);
        add_piece(self, &count, self->body.data + after, self->body.len - after);
        body_bytes = self->body.len - field->value_len + model_len;
    } else {
        reserve_pieces(self, 2);
        add_piece(self, &count, self->body.data, self->body.len);
    }
    build_head(self, target, body_bytes);
    self->pieces[0] = (struct iovec){self->head, self->head_len};
    *out_count = count;
    return PL_OK;
}

/* Passed-through credentials of different clients must not share a connection. */
static uint64_t credential_tag(const struct pl_request *self, const struct pl_provider *provider)
{
    if (provider->auth != PL_AUTH_PASSTHROUGH)
        return 0;
    const struct pl_headers *headers = pl_exchange_headers(self->exchange);
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < headers->count; i++) {
        if (!pl_header_is_credential(pl_headers_name(headers, i)))
            continue;
        struct pl_str value = pl_headers_value(headers, i);
        for (size_t j = 0; j < value.len; j++)
            hash = (hash ^ (unsigned char)value.data[j]) * 0x100000001b3u;
        hash = (hash ^ 0xff) * 0x100000001b3u;
    }
    return hash;
}

/* ---- the trail ------------------------------------------------------------------------------ */

void pl_request_add_trail(struct pl_request *self, int status, enum pl_failure failure)
{
    if (self->trail_count == self->trail_cap) {
        self->trail_cap = self->trail_cap ? self->trail_cap * 2 : 4;
        self->trail = pl_xrealloc(self->trail, self->trail_cap * sizeof(*self->trail));
    }
    self->trail[self->trail_count++] =
        (struct pl_trail_entry){.target = self->attempt_target,
                                .status = status,
                                .failure = failure,
                                .duration_ms = (uint32_t)(pl_now_ms() - self->attempt_start_ms)};
}

/* ---- the answer ----------------------------------------------------------------------------- */

static void response_reset(struct pl_response *self)
{
    if (self->held)
        evbuffer_free(self->held);
    self->held = NULL;
    self->held_whole_bytes = 0;
    self->live = false;
    self->status = 0;
    self->complete = false;
    self->failure = PL_FAIL_NONE;
    self->detail[0] = '\0';
    self->serial++;
}

void pl_request_drop_answer(struct pl_request *self)
{
    if (self->attempt) {
        pl_attempt_cancel(self->attempt);
        self->attempt = NULL;
    }
    self->paused = false;
    response_reset(&self->response);
}

/* The try ended without an answer that could be judged. */
static void fail_answer(struct pl_request *self, enum pl_failure failure, const char *detail)
{
    struct pl_response *response = &self->response;
    pl_request_add_trail(self, 0, failure);
    response->live = false;
    response->failure = failure;
    snprintf(response->detail, sizeof(response->detail), "%s", detail);
    event_del(&self->wait_timer);
    pl_request_wake(self, PL_WAIT_ANSWER);
}

/* There is an answer to judge. */
static void have_answer(struct pl_request *self)
{
    struct pl_response *response = &self->response;
    if (response->intake == PL_INTAKE_GATED) {
        event_del(&self->wait_timer);
        response->intake = PL_INTAKE_HELD;
    }
    pl_request_add_trail(self, response->status, PL_FAIL_NONE);
    pl_request_wake(self, PL_WAIT_ANSWER);
}

static void cancel_and_fail(struct pl_request *self, enum pl_failure failure, const char *detail)
{
    if (self->attempt) {
        pl_attempt_cancel(self->attempt);
        self->attempt = NULL;
    }
    fail_answer(self, failure, detail);
}

void pl_request_gate_timeout(struct pl_request *self)
{
    char detail[80];
    snprintf(detail, sizeof(detail), "no event within %u ms",
             self->response.target->limits.first_token_ms);
    cancel_and_fail(self, PL_FAIL_TIMEOUT_FIRST_TOKEN, detail);
}

void pl_request_expire_answer(struct pl_request *self)
{
    static const char detail[] = "the request's deadline has passed";
    if (self->wait == PL_WAIT_ANSWER) {
        cancel_and_fail(self, PL_FAIL_TIMEOUT_DEADLINE, detail);
        return;
    }
    if (self->attempt) {
        pl_attempt_cancel(self->attempt);
        self->attempt = NULL;
    }
    self->response.failure = PL_FAIL_TIMEOUT_DEADLINE;
    snprintf(self->response.detail, sizeof(self->response.detail), "%s", detail);
    pl_request_wake(self, PL_WAIT_BODY);
}

static void copy_head(struct pl_response *self, const struct pl_response_head *head)
{
    struct pl_str type;
    pl_headers_copy(&self->headers, &head->headers);
    self->live = true;
    self->status = head->status;
    self->framing = head->framing;
    /* without a body, too: an answer to HEAD tells the length of the one to GET */
    bool has_length = pl_headers_count(&head->headers, PL_STR("content-length")) > 0;
    self->content_length_bytes = has_length ? (int64_t)head->content_length_bytes : -1;
    self->is_sse = head->framing != PL_FRAMING_NONE &&
                   pl_headers_get(&self->headers, PL_STR("content-type"), &type) &&
                   type.len >= 17 &&
                   pl_str_equal_nocase((struct pl_str){type.data, 17}, PL_STR("text/event-stream"));
    pl_sse_init(&self->sse);
}

static void on_head(struct pl_attempt *attempt, void *arg)
{
    struct pl_request *self = arg;
    struct pl_response *response = &self->response;
    copy_head(response, pl_attempt_head(attempt));
    response->head_ms = (uint32_t)(pl_now_ms() - self->attempt_start_ms);
    bool good = response->status < 300;
    bool is_empty = response->framing == PL_FRAMING_NONE ||
                    (response->framing == PL_FRAMING_LENGTH && response->content_length_bytes == 0);
    if (good && self->stream && is_empty) {
        cancel_and_fail(self, PL_FAIL_EMPTY, "a stream was asked for, the answer has no body");
        return;
    }
    if (good && response->is_sse) {
        response->intake = PL_INTAKE_GATED;
        if (response->target->limits.first_token_ms > 0)
            pl_request_arm_timer(self, response->target->limits.first_token_ms);
        return;
    }
    response->intake = PL_INTAKE_HELD;
    if (response->status < 400 || response->framing == PL_FRAMING_NONE)
        have_answer(self);
    /* an error's body is read first, so that it can be judged by what it says: on_done, on_body */
}

static void hold(struct pl_response *self, const char *data, size_t len)
{
    if (!self->held)
        self->held = evbuffer_new();
    if (!self->held || evbuffer_add(self->held, data, len) != 0)
        abort();
}

static void hold_events(struct pl_response *self, const char *data, size_t len)
{
    size_t before = self->held ? evbuffer_get_length(self->held) : 0;
    size_t whole = pl_sse_feed(&self->sse, data, len);
    hold(self, data, len);
    if (whole > 0)
        self->held_whole_bytes = before + whole;
}

static void on_body(struct pl_attempt *attempt, const char *data, size_t len, void *arg)
{
    struct pl_request *self = arg;
    struct pl_response *response = &self->response;
    if (response->intake == PL_INTAKE_RELAYING) {
        pl_request_relay_bytes(self, data, len);
        return;
    }
    if (response->is_sse)
        hold_events(response, data, len);
    else
        hold(response, data, len);
    size_t held_bytes = evbuffer_get_length(response->held);
    switch (response->intake) {
    case PL_INTAKE_GATED:
        if (response->sse.seen_data || held_bytes >= PL_HELD_MAX_BYTES)
            have_answer(self);
        break;
    case PL_INTAKE_HELD:
        if (held_bytes < PL_HELD_MAX_BYTES)
            break;
        pl_attempt_pause(attempt);
        if (self->wait == PL_WAIT_ANSWER)
            have_answer(self);
        break;
    case PL_INTAKE_COLLECTING:
        if (held_bytes > PL_COLLECT_MAX_BYTES) {
            pl_attempt_pause(attempt);
            response->intake = PL_INTAKE_HELD;
            pl_request_wake(self, PL_WAIT_BODY);
        }
        break;
    case PL_INTAKE_RELAYING:
        break;
    }
}

static void on_done(struct pl_attempt *attempt, enum pl_failure failure, void *arg)
{
    struct pl_request *self = arg;
    struct pl_response *response = &self->response;
    char detail[sizeof(response->detail)];
    snprintf(detail, sizeof(detail), "%s", pl_attempt_stats(attempt)->detail);
    self->attempt = NULL;
    if (!response->live) {
        fail_answer(self, failure, detail);
        return;
    }
    if (response->intake == PL_INTAKE_GATED) {
        if (failure == PL_FAIL_NONE)
            fail_answer(self, PL_FAIL_EMPTY, "the stream ended without an event");
        else
            fail_answer(self, failure, detail);
        return;
    }
    response->complete = failure == PL_FAIL_NONE;
    response->failure = failure;
    snprintf(response->detail, sizeof(response->detail), "%s", detail);
    if (response->intake == PL_INTAKE_RELAYING) {
        pl_request_relay_done(self, failure);
        return;
    }
    if (self->wait == PL_WAIT_ANSWER)
        have_answer(self);
    else
        pl_request_wake(self, PL_WAIT_BODY);
}

static const struct pl_attempt_ops attempt_ops = {
    .on_head = on_head, .on_body = on_body, .on_done = on_done};

int pl_request_send(struct pl_request *self, const struct pl_target *target)
{
    const struct pl_provider *provider =
        &self->runtime->topology->providers[target->provider_index];
    struct pl_attempt_request request = {
        .is_head = pl_str_equal(pl_exchange_method(self->exchange), PL_STR("HEAD")),
        .credential_tag = credential_tag(self, provider)};
    if (self->trail_count >= PL_TRAIL_MAX)
        return PL_ERR_LIMIT;
    pl_request_drop_answer(self);
    self->attempt_target = self->response.target = target;
    self->attempt_start_ms = pl_now_ms();
    if (build_pieces(self, target, &request.piece_count) != PL_OK)
        return PL_ERR_LIMIT;
    request.pieces = self->pieces;
    self->attempt = pl_attempt_start(self->runtime->pools[target->provider_index], &request,
                                     &target->limits, &attempt_ops, self);
    return PL_OK;
}

bool pl_request_collect(struct pl_request *self)
{
    struct pl_response *response = &self->response;
    if (self->past_deadline && self->attempt) /* there is no timer left that would end it */
        pl_request_expire_answer(self);
    if (!self->attempt)
        return true;
    if (response->held && evbuffer_get_length(response->held) > PL_COLLECT_MAX_BYTES)
        return true;
    response->intake = PL_INTAKE_COLLECTING;
    pl_attempt_resume(self->attempt);
    return false;
}
