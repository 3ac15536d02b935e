/*
 * Record of a request: see request.h. What has become of a request, as plain data, for those who
 * count (record.h).
 */
#include "request.h"
#include <stdlib.h>

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
    if (!self->request->runtime->metrics || response->status >= 300)
        return;
    pl_usage_scan_init(&self->usage, response->is_sse);
    self->reads_usage = true;
}

/* ---- what became of it ---- */

_Static_assert(PL_CLASS_DNS - PL_CLASS_RATE_LIMITED == PL_FAIL_DNS - PL_FAIL_RATE_LIMITED &&
                   PL_CLASS_EMPTY - PL_CLASS_DNS == PL_FAIL_EMPTY - PL_FAIL_DNS,
               "classes and failures in one order");

enum pl_class pl_request_class_of(enum pl_failure failure)
{
    return (enum pl_class)(PL_CLASS_DNS + (failure - PL_FAIL_DNS));
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
        .work = entry->work,
        .key = provider->key_count > 1 ? entry->key : 0,
        .span_id = entry->span_id,
    };
}

static const struct pl_target *served_by(const struct pl_request *self)
{
    return self->relayed ? self->current->target : NULL;
}

static void fill_tokens(struct pl_record *out, const struct pl_request *self)
{
    static const struct pl_usage unknown = {-1, -1, -1, -1};
    const struct pl_try *try = self->current;
    const struct pl_usage *usage = try->reads_usage ? &try->usage.found : &unknown;
    out->input_tokens = usage->input_tokens;
    out->output_tokens = usage->output_tokens;
    out->cached_tokens = usage->cached_tokens;
    out->reasoning_tokens = usage->reasoning_tokens;
    out->response_model = try->reads_usage ? try->usage.model : NULL;
}

/* The waits between tries: back-offs, queues, the policy's own time. */
static void add_waits(struct pl_record_attempt *attempts, size_t count)
{
    uint32_t free_ms = 0;
    for (size_t i = 0; i < count; i++) {
        struct pl_record_attempt *attempt = &attempts[i];
        attempt->wait_ms = attempt->start_ms > free_ms ? attempt->start_ms - free_ms : 0;
        if (attempt->total_ms != PL_UNKNOWN_MS)
            free_ms = attempt->start_ms + attempt->total_ms;
    }
}

static void keep(struct pl_runtime *runtime, const struct pl_record *record)
{
    struct pl_record_text *text = &runtime->record_text;
    if (!runtime->recent)
        return;
    text->len = 0;
    pl_record_put_json(text, record);
    pl_recent_add(runtime->recent, runtime->worker_index, text->data, text->len);
}

void pl_request_count(struct pl_request *self)
{
    struct pl_record_attempt attempts[PL_TRAIL_MAX + 1];
    const struct pl_topology *topology = self->generation->topology;
    if (!self->runtime->metrics)
        return;
    for (size_t i = 0; i < self->trail_count; i++)
        fill_attempt(&attempts[i], &self->trail[i], topology);
    add_waits(attempts, self->trail_count);
    uint32_t duration_ms = (uint32_t)(pl_last_now_ms() - self->start_ms);
    const struct pl_target *served = served_by(self);
    struct pl_record record = {
        .id = self->id,
        .start_wall_ms = pl_now_wall_ms() - duration_ms,
        .duration_ms = duration_ms,
        .route = self->route,
        .model_match = self->model_match,
        .policy = self->policy,
        .model = {self->model, self->model_len},
        .target = served ? served->name : NULL,
        .provider = served ? topology->providers[served->provider_index].name : NULL,
        .stream = self->stream,
        .status = self->status,
        .end = end_of(self),
        .first_token_ms = self->first_token ? self->first_token_ms : PL_UNKNOWN_MS,
        .generation = (uint32_t)self->generation->number,
        .floor = self->floor,
        .policy_fault = self->policy_fault == PL_POLICY_FAULT_NONE
                            ? NULL
                            : pl_policy_fault_name(self->policy_fault),
        .attempts = attempts,
        .attempt_count = self->trail_count,
    };
    fill_tokens(&record, self);
    pl_request_fill_trace(self, &record);
    pl_metrics_add(self->runtime->metrics, self->runtime->worker_index, &record);
    keep(self->runtime, &record);
    if (self->runtime->spans)
        pl_spans_add(self->runtime->spans, &self->runtime->span_text, &record);
    pl_try_forget_usage(self->current);
}

void pl_request_refused(int status, const char *reason, void *runtime)
{
    struct pl_runtime *self = runtime;
    struct pl_record record = {
        .start_wall_ms = pl_now_wall_ms(),
        .status = status,
        .end = PL_END_REFUSED,
        .reason = reason,
        .first_token_ms = PL_UNKNOWN_MS,
        .input_tokens = -1,
        .output_tokens = -1,
        .cached_tokens = -1,
        .reasoning_tokens = -1,
    };
    if (self->metrics)
        pl_metrics_add(self->metrics, self->worker_index, &record);
    keep(self, &record);
}
