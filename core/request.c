/*
 * Request: see request.h. This file: life, body, deadline, client gone, edits, end.
 *
 * Re-entry: pl_request_wake runs Lua, which may start, drop or answer anything; after it the
 * request may be gone. So every caller wakes last and touches nothing afterwards.
 */
#include "request.h"
#include "log.h"
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the runtime --------------------------------------------------------------------------- */

void pl_runtime_init(struct pl_runtime *self, struct event_base *base)
{
    self->base = base;
    self->transport = &pl_network_transport;
    TAILQ_INIT(&self->active);
    TAILQ_INIT(&self->spare);
    TAILQ_INIT(&self->generations);
    SLIST_INIT(&self->spare_tries);
    pl_otlp_text_init(&self->span_text);
    pl_headers_init(&self->scratch);
    pl_headers_init(&self->policy_headers);
}

static void request_free(struct pl_request *self)
{
    pl_json_deinit(&self->json);
    pl_try_deinit(&self->own_try);
    free(self->edits);
    free(self->old_values);
    free(self->trail);
    free(self->origin);
    free(self->id);
    free(self);
}

static void break_off(struct pl_request *self, const char *reason)
{
    self->killed = true;
    snprintf(self->reason, sizeof(self->reason), "%s", reason);
    if (self->exchange)
        pl_request_abort(self, true);
    pl_request_end(self);
}

void pl_runtime_end_all(struct pl_runtime *self)
{
    struct pl_request *request;
    while ((request = TAILQ_FIRST(&self->active)))
        break_off(request, self->kill_reason ? self->kill_reason : "stop");
}

void pl_runtime_end_generation(struct pl_runtime *self, const struct pl_generation *generation)
{
    struct pl_request *request, *next;
    for (request = TAILQ_FIRST(&self->active); request; request = next) {
        next = TAILQ_NEXT(request, link);
        if (request->generation == generation)
            break_off(request, "reload");
    }
}

void pl_runtime_deinit(struct pl_runtime *self)
{
    struct pl_request *request;
    assert(TAILQ_EMPTY(&self->active));
    while ((request = TAILQ_FIRST(&self->spare))) {
        TAILQ_REMOVE(&self->spare, request, link);
        request_free(request);
    }
    struct pl_try *try;
    while ((try = SLIST_FIRST(&self->spare_tries))) {
        SLIST_REMOVE_HEAD(&self->spare_tries, link);
        pl_try_deinit(try);
        free(try);
    }
    pl_record_text_deinit(&self->record_text);
    pl_otlp_text_deinit(&self->span_text);
    pl_headers_deinit(&self->scratch);
    pl_headers_deinit(&self->policy_headers);
}

/* ---- begin --------------------------------------------------------------------------------- */

static void on_deadline(void *arg);
static void on_wait_timer(void *arg);

static struct pl_request *request_new(struct pl_runtime *runtime)
{
    struct pl_request *self = TAILQ_FIRST(&runtime->spare);
    if (self) {
        TAILQ_REMOVE(&runtime->spare, self, link);
    } else {
        self = pl_xcalloc(1, sizeof(*self));
        self->runtime = runtime;
        pl_json_init(&self->json);
        pl_try_init(&self->own_try, self);
        self->current = &self->own_try;
        pl_timer_init(&self->deadline_timer, runtime->base, runtime->timeline, on_deadline, self);
        pl_timer_init(&self->wait_timer, runtime->base, runtime->timeline, on_wait_timer, self);
        pl_timer_init(&self->heartbeat_timer, runtime->base, runtime->timeline,
                      pl_request_on_heartbeat, self);
    }
    TAILQ_INSERT_TAIL(&runtime->active, self, link);
    runtime->active_count++;
    self->generation = pl_generation_pin(runtime);
    self->start_ms = pl_last_now_ms();
    return self;
}

/* Where an id of that length goes; its end is written. */
static char *room_for_id(struct pl_request *self, size_t len)
{
    if (len + 1 > self->id_cap) {
        self->id_cap = len + 1;
        self->id = pl_xrealloc(self->id, self->id_cap);
    }
    self->id[len] = '\0';
    return self->id;
}

/* A client's id is kept when it is short and printable; otherwise one is made. */
static void take_id(struct pl_request *self, const struct pl_headers *headers)
{
    struct pl_str id;
    bool usable = pl_headers_get(headers, PL_STR("x-request-id"), &id) && id.len > 0 &&
                  id.len <= PL_REQUEST_ID_MAX;
    for (size_t i = 0; usable && i < id.len; i++)
        usable = id.data[i] > ' ' && id.data[i] < 127;
    if (usable) {
        memcpy(room_for_id(self, id.len), id.data, id.len);
        return;
    }
    pl_put_hex16(room_for_id(self, 32), pl_random_u64());
    pl_put_hex16(self->id + 16, pl_random_u64());
}

static bool contains_nocase(struct pl_str text, const char *word)
{
    size_t len = strlen(word);
    for (size_t i = 0; i + len <= text.len; i++) {
        if (pl_str_equal_nocase((struct pl_str){text.data + i, len}, (struct pl_str){word, len}))
            return true;
    }
    return false;
}

/* curl sends -d as a form unless told otherwise: what is no form or file is read as JSON. */
static enum pl_body_kind body_kind(struct pl_str body, const struct pl_headers *headers)
{
    struct pl_str type;
    if (body.len == 0)
        return PL_BODY_NONE;
    if (!pl_headers_get(headers, PL_STR("content-type"), &type) || contains_nocase(type, "json") ||
        contains_nocase(type, "x-www-form-urlencoded") || contains_nocase(type, "text/plain"))
        return PL_BODY_JSON;
    if (contains_nocase(type, "multipart/form-data"))
        return PL_BODY_MULTIPART;
    return PL_BODY_OPAQUE;
}

static void take_model(struct pl_request *self, const char *data, size_t len)
{
    self->model = pl_xstrndup(data, len);
    self->model_len = len;
}

/* Reads model and stream from the top level. `error` gets a sentence when the body is refused. */
static int read_json(struct pl_request *self, char *error, size_t error_size)
{
    if (pl_json_scan(&self->json, self->body.data, self->body.len) != PL_OK) {
        snprintf(error, error_size, "The request body is not usable JSON: %s at byte %zu.",
                 self->json.error, self->json.error_offset);
        return PL_ERR_SYNTAX;
    }
    const struct pl_json_member *model = pl_json_find(&self->json, PL_STR("model"));
    if (model && model->type != PL_JSON_STRING) {
        snprintf(error, error_size, "'model' must be a string.");
        return PL_ERR_SYNTAX;
    }
    if (model) {
        self->model = pl_json_decode_string(self->body.data + model->value_start, model->value_len,
                                            &self->model_len);
        if (!self->model) {
            snprintf(error, error_size, "'model' is not a valid string.");
            return PL_ERR_SYNTAX;
        }
    }
    const struct pl_json_member *stream = pl_json_find(&self->json, PL_STR("stream"));
    self->stream = stream && stream->type == PL_JSON_TRUE;
    return PL_OK;
}

static int read_multipart(struct pl_request *self, char *error, size_t error_size)
{
    struct pl_str type;
    char boundary[71];
    size_t boundary_len;
    const char *why = "the boundary parameter is missing or broken";
    if (!pl_headers_get(pl_exchange_headers(self->exchange), PL_STR("content-type"), &type) ||
        pl_multipart_boundary(type, boundary, &boundary_len) != PL_OK ||
        pl_multipart_find(self->body.data, self->body.len, (struct pl_str){boundary, boundary_len},
                          PL_STR("model"), &self->model_field, &why) != PL_OK) {
        snprintf(error, error_size, "The multipart body is not usable: %s.", why);
        return PL_ERR_SYNTAX;
    }
    if (self->model_field.found)
        take_model(self, self->body.data + self->model_field.value_start,
                   self->model_field.value_len);
    return PL_OK;
}

static int read_body(struct pl_request *self, char *error, size_t error_size)
{
    self->body = pl_exchange_body(self->exchange);
    self->request_body_bytes = self->body.len;
    if (self->runtime->is_simulator)
        return PL_OK;
    self->body_kind = body_kind(self->body, pl_exchange_headers(self->exchange));
    if (self->body_kind == PL_BODY_JSON)
        return read_json(self, error, error_size);
    if (self->body_kind == PL_BODY_MULTIPART)
        return read_multipart(self, error, error_size);
    return PL_OK;
}

/* The byte at `i`, unescaped if it is one that segments are told by; `*width` is what it takes. */
static char path_byte(struct pl_str path, size_t i, size_t *width)
{
    *width = 1;
    if (path.data[i] != '%' || path.len - i < 3)
        return path.data[i];
    char high = path.data[i + 1], low = (char)(path.data[i + 2] | 32), byte = '%';
    if (high == '2' && (low == 'e' || low == 'f'))
        byte = low == 'e' ? '.' : '/';
    else if (high == '5' && low == 'c')
        byte = '\\';
    *width = byte == '%' ? 1 : 3;
    return byte;
}

/* "." and ".." segments, escaped ones too, could lead an upstream out of its API's path. */
static bool has_dot_segment(struct pl_str path)
{
    size_t dots = 0, others = 0, width;
    for (size_t i = 0; i < path.len; i += width) {
        char byte = path_byte(path, i, &width);
        if (byte == '/' || byte == '\\') {
            if (others == 0 && (dots == 1 || dots == 2))
                return true;
            dots = others = 0;
        } else if (byte == '.') {
            dots++;
        } else {
            others++;
        }
    }
    return others == 0 && (dots == 1 || dots == 2);
}

static void on_gone(void *arg)
{
    struct pl_request *self = arg;
    self->exchange = NULL;
    self->client_gone = true;
    assert(self->coroutine.state != PL_COROUTINE_RUNNING);
    pl_request_end(self);
}

static void on_writable(void *arg)
{
    struct pl_request *self = arg;
    struct pl_try *try = self->current;
    if (try->paused) {
        try->paused = false;
        try->event_ms = pl_last_now_ms();
        if (try->attempt)
            self->runtime->transport->resume(try->attempt);
    }
    if (self->wait == PL_WAIT_WRITABLE) /* from a fresh turn: we are inside the client's buffer */
        pl_timer_fire_soon(&self->wait_timer);
}

static const struct pl_exchange_ops exchange_ops = {.on_gone = on_gone, .on_writable = on_writable};

void pl_request_begin(struct pl_exchange *exchange, void *runtime)
{
    struct pl_request *self = request_new(runtime);
    char error[256];
    self->exchange = exchange;
    take_id(self, pl_exchange_headers(exchange));
    self->dialect =
        pl_client_error_dialect(pl_exchange_path(exchange), pl_exchange_headers(exchange));
    pl_request_begin_trace(self);
    pl_request_note_origin(self);
    if (has_dot_segment(pl_exchange_path(exchange))) {
        pl_request_fail(self, 400, "invalid_path", "The path has '.' or '..' segments.");
    } else if (read_body(self, error, sizeof(error)) != PL_OK) {
        pl_request_fail(self, 400, "invalid_body", error);
    } else {
        pl_exchange_set_ops(exchange, &exchange_ops, self);
        pl_request_note_body(self);
        pl_request_run_policy(self);
        return;
    }
    pl_request_end(self);
}

/* ---- time ---------------------------------------------------------------------------------- */

void pl_request_set_deadline(struct pl_request *self, uint64_t duration_ms)
{
    self->deadline_ms = self->start_ms + duration_ms;
    pl_timer_start_ms(&self->deadline_timer, pl_request_remaining_ms(self));
}

uint64_t pl_request_remaining_ms(const struct pl_request *self)
{
    uint64_t now_ms = pl_last_now_ms();
    if (self->deadline_ms == 0)
        return UINT64_MAX;
    if (self->past_deadline) /* the timer may be early by a part of a millisecond */
        return 0;
    return self->deadline_ms > now_ms ? self->deadline_ms - now_ms : 0;
}

void pl_request_arm_timer(struct pl_request *self, uint64_t duration_ms)
{
    pl_timer_start_ms(&self->wait_timer, duration_ms);
}

void pl_request_stop_timer(struct pl_request *self)
{
    pl_timer_stop(&self->wait_timer);
}

static void on_wait_timer(void *arg)
{
    (void)pl_now_ms();
    struct pl_request *self = arg;
    switch (self->wait) {
    case PL_WAIT_ANSWER: /* it could be hedged now */
    case PL_WAIT_TIMER:
    case PL_WAIT_WRITABLE:
        pl_request_wake(self, self->wait);
        break;
    default:
        break;
    }
}

/* Whatever the policy waits for ends now; from here on every send fails at once. */
static void on_deadline(void *arg)
{
    (void)pl_now_ms();
    struct pl_request *self = arg;
    self->past_deadline = true;
    switch (self->wait) {
    case PL_WAIT_ANSWER:
    case PL_WAIT_BODY:
        pl_request_expire_answer(self);
        break;
    case PL_WAIT_RELAY:
        pl_request_relay_done(self, PL_FAIL_TIMEOUT_DEADLINE);
        break;
    case PL_WAIT_WRITABLE:
        pl_request_abort(self, false);
        pl_request_wake(self, PL_WAIT_WRITABLE);
        break;
    case PL_WAIT_TIMER:
        pl_timer_stop(&self->wait_timer);
        pl_request_wake(self, PL_WAIT_TIMER);
        break;
    case PL_WAIT_NONE:
        break;
    }
}

/* ---- edits --------------------------------------------------------------------------------- */

static size_t edit_bytes(const struct pl_request_edit *edit)
{
    return strlen(edit->key) + (edit->value ? strlen(edit->value) : 0);
}

/* They are kept outside of the VM, whose limit does not know of them. */
static bool edit_fits(const struct pl_request *self, const struct pl_request_edit *replaced,
                      size_t bytes)
{
    size_t sum_bytes = bytes;
    for (size_t i = 0; i < self->old_value_count; i++)
        sum_bytes += strlen(self->old_values[i]);
    for (size_t i = 0; i < self->edit_count; i++) {
        if (&self->edits[i] != replaced)
            sum_bytes += edit_bytes(&self->edits[i]);
    }
    return sum_bytes <= PL_REQUEST_EDITS_MAX_BYTES;
}

static bool is_at_work(const struct pl_try *try)
{
    return try && try->attempt;
}

/* A try sends values from where they lie: one that is at work may not be through with it. */
static void let_go(struct pl_request *self, char *value)
{
    if (!value || (!is_at_work(self->current) && !is_at_work(self->rival))) {
        free(value);
        return;
    }
    if (self->old_value_count == self->old_value_cap) {
        self->old_value_cap = self->old_value_cap ? 2 * self->old_value_cap : 4;
        self->old_values =
            pl_xrealloc(self->old_values, self->old_value_cap * sizeof(*self->old_values));
    }
    self->old_values[self->old_value_count++] = value;
}

void pl_request_free_old_edits(struct pl_request *self)
{
    for (size_t i = 0; i < self->old_value_count; i++)
        free(self->old_values[i]);
    self->old_value_count = 0;
}

int pl_request_edit(struct pl_request *self, const char *key, const char *value_json)
{
    struct pl_request_edit *edit = NULL;
    for (size_t i = 0; i < self->edit_count && !edit; i++) {
        if (strcmp(self->edits[i].key, key) == 0)
            edit = &self->edits[i];
    }
    if (!edit_fits(self, edit, strlen(key) + (value_json ? strlen(value_json) : 0)))
        return PL_ERR_SYSTEM;
    if (!edit) {
        if (self->edit_count == PL_REQUEST_EDITS_MAX)
            return PL_ERR_LIMIT;
        if (!self->edits)
            self->edits = pl_xcalloc(PL_REQUEST_EDITS_MAX, sizeof(*self->edits));
        edit = &self->edits[self->edit_count++];
        *edit = (struct pl_request_edit){.key = pl_xstrdup(key)};
    }
    let_go(self, edit->value);
    edit->value = value_json ? pl_xstrdup(value_json) : NULL;
    return PL_OK;
}

void pl_request_drop_edits(struct pl_request *self)
{
    for (size_t i = 0; i < self->edit_count; i++) {
        free(self->edits[i].key);
        free(self->edits[i].value);
    }
    self->edit_count = 0;
    pl_request_free_old_edits(self);
}

/* ---- end ----------------------------------------------------------------------------------- */

static void count_end(const struct pl_request *self)
{
    struct pl_request_end end = {.status = self->status,
                                 .broken = self->broken,
                                 .client_gone = self->client_gone,
                                 .floor = self->floor,
                                 .policy_fault = self->policy_fault};
    if (self->generation->figures)
        pl_figures_end(self->generation->figures, &end);
}

/* What the next request must not find in the record. */
static void forget(struct pl_request *self)
{
    pl_request_forget_notes(self);
    free(self->model);
    free(self->route);
    self->model = self->route = NULL;
    self->model_len = self->trail_count = 0;
    self->model_field = (struct pl_multipart_field){0};
    self->stream = self->committed = self->client_gone = self->stream_is_open = false;
    self->past_deadline = self->broken = self->floor = self->first_token = false;
    self->refuses_floor = false;
    self->gate = (struct pl_gate_options){0};
    self->rescue = (struct pl_rescue_options){0};
    self->at_seam = self->resumes_afresh = false;
    self->served_by = NULL;
    self->log_line_count = 0;
    self->policy_fault = PL_POLICY_FAULT_NONE;
    self->failed = self->killed = false;
    self->policy = self->model_match = self->deadline_headers = NULL;
    self->give_up_code[0] = '\0';
    self->give_up_retry_ms = 0;
    self->wait = PL_WAIT_NONE;
    self->deadline_ms = self->route_deadline_ms = self->chance_ms = 0;
    self->keep_ms = self->within_ms = 0;
    self->status = 0;
    self->body = PL_STR("");
    self->serial++;
}

/* Releases everything and recycles the record. The exchange has been answered or is gone. */
void pl_request_end(struct pl_request *self)
{
    struct pl_runtime *runtime = self->runtime;
    assert(!self->exchange);
    count_end(self);
    pl_request_drop_answer(self);
    pl_request_count(self);
    pl_request_close_reader(self);
    pl_hedge_release(self);
    pl_request_leave_queue(self);
    pl_request_leave_retries(self);
    pl_timer_stop(&self->deadline_timer);
    pl_timer_stop(&self->wait_timer);
    pl_timer_stop(&self->heartbeat_timer);
    pl_coroutine_close(&self->coroutine);
    pl_request_drop_edits(self);
    forget(self);
    pl_generation_unpin(self->generation);
    self->generation = NULL;
    TAILQ_REMOVE(&runtime->active, self, link);
    runtime->active_count--;
    TAILQ_INSERT_HEAD(&runtime->spare, self, link);
}
