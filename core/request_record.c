/*
 * Record of a request: see request.h. What has become of a request, as plain data, for those who
 * count (record.h).
 */
#include "redact.h"
#include "request.h"
#include <stdio.h>
#include <stdlib.h>

/* Somebody is told of it at its end; where requests are only played, nobody is. */
static bool is_told(const struct pl_request *self)
{
    const struct pl_runtime *runtime = self->runtime;
    return runtime->metrics || runtime->access_log || runtime->recent ||
           (runtime->spans && self->trace.sampled);
}

/* ---- token counts ---- */

void pl_try_forget_usage(struct pl_try *self)
{
    if (self->reads_usage)
        pl_usage_scan_deinit(&self->usage);
    self->reads_usage = false;
}

void pl_try_read_usage(struct pl_try *self)
{
    const struct pl_response *response = &self->response;
    pl_try_forget_usage(self);
    if (!is_told(self->request) || response->status >= 300)
        return;
    pl_usage_scan_init(&self->usage, response->is_sse);
    self->reads_usage = true;
}

/* ---- what does not last until the end ---- */

static struct pl_str put_copy(char **at, struct pl_str text, size_t max_bytes)
{
    size_t len = PL_MIN(text.len, max_bytes);
    struct pl_str copy = {*at, len};
    memcpy(*at, text.data, len);
    *at += len;
    return copy;
}

/* A byte more than is shown, so that it shows that there were more. */
#define METHOD_MAX_BYTES 16
#define PATH_MAX_BYTES   (PL_RECORD_STRING_MAX_BYTES + 1)
#define PEER_MAX_BYTES   64

void pl_request_note_origin(struct pl_request *self)
{
    if (!is_told(self))
        return;
    struct pl_str method = pl_exchange_method(self->exchange);
    struct pl_str path = pl_exchange_path(self->exchange);
    struct pl_str peer = pl_exchange_peer(self->exchange);
    size_t room = PL_MIN(method.len, (size_t)METHOD_MAX_BYTES) +
                  PL_MIN(path.len, (size_t)PATH_MAX_BYTES) +
                  PL_MIN(peer.len, (size_t)PEER_MAX_BYTES);
    if (room > self->origin_cap) {
        self->origin_cap = room;
        self->origin = pl_xrealloc(self->origin, room);
    }
    char *at = self->origin;
    self->method = put_copy(&at, method, METHOD_MAX_BYTES);
    self->path = put_copy(&at, path, PATH_MAX_BYTES);
    self->peer = put_copy(&at, peer, PEER_MAX_BYTES);
}

static const struct pl_access_log_rules *rules_of(const struct pl_request *self)
{
    return &self->generation->topology->access_log;
}

/* Adds bytes up to `max_bytes` in all. */
static void keep_text(char **text, size_t *text_len, const char *data, size_t len, size_t max_bytes)
{
    size_t part = PL_MIN(len, max_bytes - PL_MIN(*text_len, max_bytes));
    if (part == 0)
        return;
    *text = pl_xrealloc(*text, *text_len + part);
    memcpy(*text + *text_len, data, part);
    *text_len += part;
}

void pl_request_note_body(struct pl_request *self)
{
    if (self->runtime->access_log && self->body_kind == PL_BODY_JSON)
        keep_text(&self->request_text, &self->request_text_len, self->body.data, self->body.len,
                  rules_of(self)->request_body_bytes);
}

void pl_request_note_answer(struct pl_request *self, const char *data, size_t len)
{
    self->response_body_bytes += len;
    if (self->runtime->access_log && rules_of(self)->response_body_bytes > 0)
        keep_text(&self->response_text, &self->response_text_len, data, len,
                  rules_of(self)->response_body_bytes);
}

void pl_request_forget_notes(struct pl_request *self)
{
    for (size_t i = 0; i < self->trail_count; i++) {
        free(self->trail[i].detail);
        self->trail[i].detail = NULL;
    }
    free(self->request_text);
    free(self->response_text);
    self->request_text = self->response_text = NULL;
    self->request_text_len = self->response_text_len = 0;
    self->request_body_bytes = self->response_body_bytes = 0;
    self->method = self->path = self->peer = PL_STR("");
    self->reason[0] = '\0';
}

/* ---- what became of it ---- */

_Static_assert(PL_CLASS_DNS - PL_CLASS_RATE_LIMITED == PL_FAIL_DNS - PL_FAIL_RATE_LIMITED &&
                   PL_CLASS_EMPTY - PL_CLASS_DNS == PL_FAIL_EMPTY - PL_FAIL_DNS,
               "classes and failures in one order");

enum pl_class pl_request_class_of(enum pl_failure failure)
{
    return (enum pl_class)(PL_CLASS_DNS + (failure - PL_FAIL_DNS));
}

enum pl_failure pl_request_failure_of(enum pl_class class)
{
    return (enum pl_failure)(PL_FAIL_DNS + (class - PL_CLASS_DNS));
}

static enum pl_end end_of(const struct pl_request *self)
{
    if (self->killed)
        return PL_END_KILLED;
    if (self->client_gone)
        return PL_END_CLIENT_GONE;
    if (self->broken)
        return PL_END_CUT;
    if (!self->route && self->status >= 400)
        return PL_END_REFUSED;
    return self->failed ? PL_END_FAILED : PL_END_COMPLETE;
}

static void fill_attempt(struct pl_record_attempt *out, const struct pl_trail_entry *entry,
                         const struct pl_topology *topology)
{
    const struct pl_provider *provider = &topology->providers[entry->target->provider_index];
    *out = (struct pl_record_attempt){
        .target = entry->target->name,
        .provider = provider->name,
        .model = entry->target->model,
        .endpoint_host = provider->endpoint.host,
        .endpoint_port = provider->endpoint.port,
        .target_index = (size_t)(entry->target - topology->targets),
        .is_fallback = entry->target->is_fallback,
        .status = entry->status,
        .class = entry->class,
        .start_ms = entry->start_ms,
        .connect_ms = entry->connect_ms,
        .head_ms = entry->head_ms,
        .first_token_ms = entry->first_token_ms,
        .total_ms = entry->total_ms,
        .body_bytes = entry->body_bytes,
        .reused = entry->reused,
        .resumes = pl_resume_name(entry->resume),
        .parted = entry->parted,
        .malformed_event_count = entry->malformed_event_count,
        .work = entry->work,
        .key = provider->key_count > 1 ? entry->key : 0,
        .is_hedge = entry->is_hedge,
        .input_tokens = entry->input_tokens,
        .output_tokens = entry->output_tokens,
        .detail = entry->detail,
        .span_id = entry->span_id,
    };
}

static const struct pl_target *served_by(const struct pl_request *self)
{
    return self->served_by;
}

static void fill_tokens(struct pl_record *out, const struct pl_request *self)
{
    static const struct pl_usage unknown = {-1, -1, -1, -1};
    const struct pl_try *try = self->current;
    struct pl_usage sum = try->reads_usage ? try->usage.found : unknown;
    const struct pl_usage *usage = &sum;
    if (self->reader)
        pl_request_add_parts(self, &sum.input_tokens, &sum.output_tokens);
    out->input_tokens = usage->input_tokens;
    out->output_tokens = usage->output_tokens;
    out->cached_tokens = usage->cached_tokens;
    out->reasoning_tokens = usage->reasoning_tokens;
    out->response_model = try->reads_usage ? try->usage.model : NULL;
}

/* As gen_ai.operation.name has them. */
static const char *operation_of(struct pl_str path)
{
    static const struct {
        const char *end, *name;
    } operations[] = {
        {"/chat/completions", "chat"},
        {"/responses", "chat"},
        {"/messages", "chat"},
        {"/completions", "text_completion"},
        {"/embeddings", "embeddings"},
        {"/images/generations", "image_generation"},
        {"/audio/speech", "speech"},
        {"/audio/transcriptions", "transcription"},
        {"/audio/translations", "translation"},
        {"/moderations", "moderation"},
    };
    if (path.len < 3 || memcmp(path.data, "/v1", 3) != 0)
        return NULL;
    path.data += 3;
    path.len -= 3;
    for (size_t i = 0; i < PL_COUNT(operations); i++) {
        if (pl_str_equal(path, pl_str_of(operations[i].end)))
            return operations[i].name;
    }
    return NULL;
}

static const char *reason_of(const struct pl_request *self, enum pl_end end)
{
    if (end == PL_END_COMPLETE)
        return NULL;
    if (end == PL_END_CLIENT_GONE)
        return "client_gone";
    if (self->reason[0] != '\0')
        return self->reason;
    if (self->past_deadline)
        return "timeout_deadline";
    return self->policy_fault != PL_POLICY_FAULT_NONE ? "policy_error" : "policy";
}

/* The waits between tries: back-offs, queues, the policy's own time. The second of two at once has
 * waited for nothing. */
static void fill_attempts(struct pl_record_attempt *out, const struct pl_request *self)
{
    uint32_t free_ms = 0;
    for (size_t i = 0; i < self->trail_count; i++) {
        fill_attempt(&out[i], &self->trail[i], self->generation->topology);
        if (out[i].is_hedge)
            free_ms = PL_MAX(free_ms, out[i].start_ms);
        out[i].wait_ms = out[i].start_ms - PL_MIN(free_ms, out[i].start_ms);
        if (out[i].total_ms != PL_UNKNOWN_MS)
            free_ms = out[i].start_ms + out[i].total_ms;
    }
}

static void fill_service(struct pl_record *out, const struct pl_request *self)
{
    const struct pl_target *served = served_by(self);
    out->route = self->route;
    out->model_match = self->model_match;
    out->policy = self->policy;
    if (!served)
        return;
    const struct pl_provider *provider =
        &self->generation->topology->providers[served->provider_index];
    out->target = served->name;
    out->provider = provider->name;
    out->endpoint_host = provider->endpoint.host;
    out->endpoint_port = provider->endpoint.port;
}

/* A line that has no bodies is that of the recent requests. */
static void write_line(struct pl_runtime *runtime, const struct pl_access_log_rules *rules,
                       const struct pl_record *record, bool has_bodies)
{
    struct pl_record_text *text = &runtime->record_text;
    bool is_shared = !rules->is_plain && !has_bodies;
    text->len = 0;
    if (runtime->recent || (runtime->access_log && is_shared))
        pl_record_put_json(text, record);
    if (runtime->recent)
        pl_recent_add(runtime->recent, runtime->worker_index, text->data, text->len);
    if (runtime->access_log && is_shared)
        pl_access_log_take(runtime->access_log, text);
    else if (runtime->access_log && !has_bodies)
        pl_access_log_add(runtime->access_log, rules, record);
}

/* Redacted copies of the bodies are in the record while it is written. */
static void write_bodies(const struct pl_request *self, struct pl_record *record)
{
    const struct pl_access_log_rules *rules = rules_of(self);
    size_t request_len = 0, response_len = 0;
    char *request = pl_redact((struct pl_str){self->request_text, self->request_text_len},
                              rules->redact, &request_len);
    char *response = pl_redact((struct pl_str){self->response_text, self->response_text_len},
                               rules->redact, &response_len);
    record->request_body = (struct pl_str){request, request_len};
    record->response_body = (struct pl_str){response, response_len};
    pl_access_log_add(self->runtime->access_log, rules, record);
    free(request);
    free(response);
}

void pl_request_count(struct pl_request *self)
{
    struct pl_record_attempt attempts[PL_TRAIL_MAX + 1];
    struct pl_runtime *runtime = self->runtime;
    enum pl_end end = end_of(self);
    if (!is_told(self))
        return;
    fill_attempts(attempts, self);
    uint32_t duration_ms = (uint32_t)(pl_last_now_ms() - self->start_ms);
    struct pl_record record = {
        .id = self->id,
        .start_wall_ms = pl_now_wall_ms() - duration_ms,
        .duration_ms = duration_ms,
        .method = self->method,
        .path = self->path,
        .peer = self->peer,
        .operation = operation_of(self->path),
        .model = {self->model, self->model_len},
        .stream = self->stream,
        .status = self->status,
        .end = end,
        .reason = reason_of(self, end),
        .first_token_ms = self->first_token ? self->first_token_ms : PL_UNKNOWN_MS,
        .request_body_bytes = self->request_body_bytes,
        .response_body_bytes = self->response_body_bytes,
        .generation = (uint32_t)self->generation->number,
        .floor = self->floor,
        .policy_fault = self->policy_fault == PL_POLICY_FAULT_NONE
                            ? NULL
                            : pl_policy_fault_name(self->policy_fault),
        .trace = self->trace,
        .hedges = self->was_hedged ? self->hedges : NULL,
        .attempts = attempts,
        .attempt_count = self->trail_count,
    };
    fill_service(&record, self);
    fill_tokens(&record, self);
    if (runtime->metrics)
        pl_metrics_add(runtime->metrics, runtime->worker_index, &record);
    if (runtime->spans)
        pl_spans_add(runtime->spans, &runtime->span_text, &record);
    bool has_bodies = self->request_text || self->response_text;
    write_line(runtime, rules_of(self), &record, has_bodies);
    if (has_bodies)
        write_bodies(self, &record);
    pl_try_forget_usage(self->current);
}

void pl_request_refused(const struct pl_refusal *refusal, void *arg)
{
    struct pl_runtime *runtime = arg;
    struct pl_record record = {
        .start_wall_ms = pl_now_wall_ms() - refusal->duration_ms,
        .duration_ms = refusal->duration_ms,
        .method = refusal->method,
        .path = refusal->path,
        .peer = refusal->peer,
        .status = refusal->status,
        .end = PL_END_REFUSED,
        .reason = refusal->code,
        .first_token_ms = PL_UNKNOWN_MS,
        .request_body_bytes = refusal->body_bytes,
        .input_tokens = -1,
        .output_tokens = -1,
        .cached_tokens = -1,
        .reasoning_tokens = -1,
    };
    if (runtime->metrics)
        pl_metrics_add(runtime->metrics, runtime->worker_index, &record);
    write_line(runtime, &runtime->current->topology->access_log, &record, false);
}
