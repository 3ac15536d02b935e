/*
 * In flight: see inflight.h.
 */
#include "inflight.h"
#include <stdio.h>
#include <stdlib.h>

#define MODEL_MAX_BYTES 256

static const char *target_of(const struct pl_request *request)
{
    return request->current->target ? request->current->target->name : "a target";
}

static void put_waits_for(const struct pl_request *request, struct pl_json_text *out)
{
    char text[512];
    const struct pl_response *response = &request->current->response;
    const char *target = target_of(request);
    switch (request->wait) {
    case PL_WAIT_ANSWER:
        snprintf(text, sizeof(text), "%s of %s",
                 !response->live    ? "the head"
                 : response->is_sse ? "the first event"
                                    : "the error",
                 target);
        break;
    case PL_WAIT_BODY:
        snprintf(text, sizeof(text), "the body of %s", target);
        break;
    case PL_WAIT_RELAY:
        snprintf(text, sizeof(text),
                 request->current->paused ? "the client, to read what %s sends"
                                          : "the end of the answer of %s",
                 target);
        break;
    case PL_WAIT_WRITABLE:
        snprintf(text, sizeof(text), "the client, to read");
        break;
    case PL_WAIT_TIMER:
        if (request->queued_at)
            snprintf(text, sizeof(text), "a place at %s", request->queued_at->name);
        else
            snprintf(text, sizeof(text), "the end of a pause between tries");
        break;
    case PL_WAIT_NONE:
        snprintf(text, sizeof(text), "its policy");
        break;
    }
    pl_json_put_string(out, "waits_for", text);
}

static void put_string(struct pl_json_text *out, const char *key, struct pl_str value)
{
    char *text = pl_xstrndup(value.data, PL_MIN(value.len, (size_t)MODEL_MAX_BYTES));
    pl_json_put_string(out, key, text);
    free(text);
}

static void put_attempts(const struct pl_request *request, struct pl_json_text *out)
{
    pl_json_open(out, "attempts", '[');
    for (size_t i = 0; i < request->trail_count; i++) {
        const struct pl_trail_entry *entry = &request->trail[i];
        pl_json_open(out, NULL, '{');
        pl_json_put_string(out, "target", entry->target->name);
        if (entry->status)
            pl_json_put_u64(out, "status", (uint64_t)entry->status);
        else
            pl_json_put_string(out, "class", pl_class_name(entry->class));
        pl_json_put_u64(out, "total_ms", entry->duration_ms);
        pl_json_close(out, '}');
    }
    pl_json_close(out, ']');
}

static void put_exchange(const struct pl_request *request, struct pl_json_text *out)
{
    if (!request->exchange)
        return;
    put_string(out, "http.request.method", pl_exchange_method(request->exchange));
    put_string(out, "url.path", pl_exchange_path(request->exchange));
    put_string(out, "client.address", pl_exchange_peer(request->exchange));
}

void pl_inflight_write(const struct pl_request *request, uint64_t now_ms, struct pl_json_text *out)
{
    pl_json_open(out, NULL, '{');
    pl_json_put_string(out, "id", request->id);
    pl_json_put_u64(out, "age_ms", now_ms > request->start_ms ? now_ms - request->start_ms : 0);
    put_waits_for(request, out);
    if (request->deadline_ms)
        pl_json_put_u64(out, "deadline_in_ms", pl_request_remaining_ms(request));
    put_exchange(request, out);
    if (request->route)
        pl_json_put_string(out, "route", request->route);
    if (request->model)
        put_string(out, "gen_ai.request.model",
                   (struct pl_str){request->model, request->model_len});
    const struct pl_try *try = request->current;
    if (try->attempt) {
        pl_json_put_string(out, "target", try->target->name);
        pl_json_put_u64(out, "target_for_ms", now_ms - try->start_ms);
    }
    const struct pl_try *rival = request->rival;
    if (rival && rival->attempt) {
        pl_json_put_string(out, "second_target", rival->target->name);
        pl_json_put_u64(out, "second_target_for_ms", now_ms - rival->start_ms);
    }
    pl_json_put_bool(out, "stream", request->stream);
    pl_json_put_bool(out, "answering", request->committed);
    if (request->status)
        pl_json_put_u64(out, "http.response.status_code", (uint64_t)request->status);
    pl_json_put_u64(out, "generation", request->generation->number);
    put_attempts(request, out);
    pl_json_close(out, '}');
}
