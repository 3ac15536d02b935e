/*
 * OTLP: see otlp.h. Kinds, codes and flags are those of opentelemetry/proto/trace/v1/trace.proto,
 * which its JSON form writes as numbers, and ids as hexadecimal digits.
 */
#include "otlp.h"
#include "json.h"
#include "otlp_write.h"
#include <stdlib.h>

#define KIND_SERVER  "2"
#define KIND_CLIENT  "3"
#define FLAGS_LOCAL  0x100u /* it is known whether the parent is remote: it is not */
#define FLAGS_REMOTE 0x300u /* it is */
#define FLAG_SAMPLED 0x01u
#define FLAG_RANDOM  0x02u

/* ---- what all spans have -------------------------------------------------------------------- */

static void put_time(struct pl_otlp_text *self, uint64_t wall_ms)
{
    pl_otlp_put_number(self, wall_ms);
    PL_OTLP_PUT(self, "000000\"");
}

static void put_ids(struct pl_otlp_text *self, const struct pl_trace *trace, uint64_t span_id,
                    uint64_t parent_id, unsigned flags)
{
    flags |= (trace->sampled ? FLAG_SAMPLED : 0) | (trace->random ? FLAG_RANDOM : 0);
    PL_OTLP_PUT(self, "{\"traceId\":\"");
    pl_otlp_put_hex(self, trace->id_high);
    pl_otlp_put_hex(self, trace->id_low);
    PL_OTLP_PUT(self, "\",\"spanId\":\"");
    pl_otlp_put_hex(self, span_id);
    if (parent_id != 0) {
        PL_OTLP_PUT(self, "\",\"parentSpanId\":\"");
        pl_otlp_put_hex(self, parent_id);
    }
    PL_OTLP_PUT(self, "\",\"flags\":");
    pl_otlp_put_number(self, flags);
}

static void put_times(struct pl_otlp_text *self, uint64_t start_wall_ms, uint32_t duration_ms)
{
    PL_OTLP_PUT(self, ",\"startTimeUnixNano\":\"");
    put_time(self, start_wall_ms);
    PL_OTLP_PUT(self, ",\"endTimeUnixNano\":\"");
    put_time(self, start_wall_ms + duration_ms);
    PL_OTLP_PUT(self, ",\"attributes\":[");
}

/* After the attributes; `failed` gives the status ERROR, otherwise it stays unset. */
static void put_status(struct pl_otlp_text *self, bool failed, const char *message)
{
    if (!failed)
        return;
    PL_OTLP_PUT(self, ",\"status\":{\"code\":2");
    if (message) {
        PL_OTLP_PUT(self, ",\"message\":\"");
        pl_otlp_put_escaped(self, pl_str_of(message));
        PL_OTLP_PUT(self, "\"");
    }
    PL_OTLP_PUT(self, "}");
}

/* ---- the server span ------------------------------------------------------------------------ */

/* Others are named _OTHER: clients may send any. */
static bool is_known_method(struct pl_str method)
{
    static const char *const known[] = {"POST",    "GET",   "HEAD",    "PUT",  "DELETE",
                                        "OPTIONS", "PATCH", "CONNECT", "TRACE"};
    for (size_t i = 0; i < PL_COUNT(known); i++) {
        if (pl_str_equal(method, pl_str_of(known[i])))
            return true;
    }
    return false;
}

/* "{method} {route}"; only the paths of known operations are few enough to stand in a name. */
static void put_server_name(struct pl_otlp_text *self, const struct pl_record *record)
{
    PL_OTLP_PUT(self, ",\"name\":\"");
    if (is_known_method(record->method))
        pl_otlp_put_escaped(self, record->method);
    else
        PL_OTLP_PUT(self, "HTTP");
    if (record->operation) {
        PL_OTLP_PUT(self, " ");
        pl_otlp_put_escaped(self, record->path);
    }
    PL_OTLP_PUT(self, "\",\"kind\":" KIND_SERVER);
}

/* A body that is not there has no size. */
static int64_t size_of(uint64_t bytes)
{
    return bytes > 0 ? (int64_t)bytes : -1;
}

static void put_http(struct pl_otlp_text *self, const struct pl_record *record, const char *scheme)
{
    PL_OTLP_PUT(self, "{\"key\":\"url.scheme\",\"value\":{\"stringValue\":\"");
    pl_otlp_put_escaped(self, pl_str_of(scheme));
    PL_OTLP_PUT(self, "\"}}");
    if (is_known_method(record->method)) {
        PL_OTLP_STR(self, "http.request.method", record->method);
    } else if (record->method.len > 0) {
        PL_OTLP_TEXT(self, "http.request.method", "_OTHER");
        PL_OTLP_STR(self, "http.request.method_original", record->method);
    }
    if (record->path.len > 0)
        PL_OTLP_STR(self, "url.path", record->path);
    if (record->operation)
        PL_OTLP_STR(self, "http.route", record->path);
    if (record->peer.len > 0)
        PL_OTLP_STR(self, "client.address", record->peer);
    if (record->status > 0)
        PL_OTLP_INT(self, "http.response.status_code", record->status);
    PL_OTLP_INT(self, "http.request.body.size", size_of(record->request_body_bytes));
    PL_OTLP_INT(self, "http.response.body.size", size_of(record->response_body_bytes));
}

static void put_answer(struct pl_otlp_text *self, const struct pl_record *record)
{
    PL_OTLP_TEXT(self, "gen_ai.response.model", record->response_model);
    PL_OTLP_INT(self, "gen_ai.usage.input_tokens", record->input_tokens);
    PL_OTLP_INT(self, "gen_ai.usage.output_tokens", record->output_tokens);
    PL_OTLP_INT(self, "gen_ai.usage.cache_read.input_tokens", record->cached_tokens);
    PL_OTLP_INT(self, "gen_ai.usage.reasoning.output_tokens", record->reasoning_tokens);
}

static void put_gen_ai(struct pl_otlp_text *self, const struct pl_record *record)
{
    PL_OTLP_TEXT(self, "gen_ai.operation.name", record->operation);
    PL_OTLP_TEXT(self, "gen_ai.provider.name", record->provider);
    if (record->model.len > 0)
        PL_OTLP_STR(self, "gen_ai.request.model", record->model);
    PL_OTLP_TRUE(self, "gen_ai.request.stream", record->stream);
    put_answer(self, record);
    if (record->first_token_ms != PL_UNKNOWN_MS)
        PL_OTLP_SECONDS(self, "gen_ai.response.time_to_first_chunk", record->first_token_ms);
}

static void put_own(struct pl_otlp_text *self, const struct pl_record *record)
{
    PL_OTLP_TEXT(self, "perilune.request_id", record->id);
    PL_OTLP_TEXT(self, "perilune.route", record->route);
    PL_OTLP_TEXT(self, "perilune.policy", record->policy);
    PL_OTLP_TEXT(self, "perilune.target", record->target);
    if (record->generation > 0)
        PL_OTLP_INT(self, "perilune.generation", record->generation);
    PL_OTLP_INT(self, "perilune.attempts", (int64_t)record->attempt_count);
    PL_OTLP_TEXT(self, "perilune.end", pl_end_name(record->end));
    PL_OTLP_TEXT(self, "perilune.reason", record->reason);
    PL_OTLP_TRUE(self, "perilune.floor", record->floor);
    PL_OTLP_TEXT(self, "perilune.policy_fault", record->policy_fault);
}

/* A client's own fault is none of the server's (HTTP conventions), nor is its leaving. */
static bool has_server_failed(const struct pl_record *record)
{
    switch (record->end) {
    case PL_END_CUT:
    case PL_END_KILLED:
        return true;
    case PL_END_CLIENT_GONE:
        return false;
    default:
        return record->status >= 500;
    }
}

static const char *server_error(const struct pl_record *record)
{
    if (record->reason)
        return record->reason;
    return record->end == PL_END_COMPLETE ? NULL : pl_end_name(record->end);
}

static void put_error_type(struct pl_otlp_text *self, const char *name, int status)
{
    char digits[PL_NUMBER_MAX];
    struct pl_str text =
        name ? pl_str_of(name) : (struct pl_str){digits, pl_put_decimal(digits, (uint64_t)status)};
    PL_OTLP_STR(self, "error.type", text);
}

static void put_server(struct pl_otlp_text *self, const struct pl_record *record,
                       const char *scheme)
{
    const struct pl_trace *trace = &record->trace;
    bool failed = has_server_failed(record);
    put_ids(self, trace, trace->span_id, trace->parent_span_id,
            trace->parent_span_id ? FLAGS_REMOTE : FLAGS_LOCAL);
    put_server_name(self, record);
    put_times(self, record->start_wall_ms, record->duration_ms);
    put_http(self, record, scheme);
    put_gen_ai(self, record);
    put_own(self, record);
    if (failed)
        put_error_type(self, server_error(record), record->status);
    PL_OTLP_PUT(self, "]");
    put_status(self, failed, server_error(record));
    PL_OTLP_PUT(self, "}");
}

/* ---- the tries ------------------------------------------------------------------------------ */

static struct pl_str model_of(const struct pl_record *record,
                              const struct pl_record_attempt *attempt)
{
    return attempt->model ? pl_str_of(attempt->model) : record->model;
}

/* "{operation} {model}", as the conventions have it. A client's own model is not in the name: it
 * may be any text. */
static void put_client_name(struct pl_otlp_text *self, const struct pl_record *record,
                            const struct pl_record_attempt *attempt)
{
    PL_OTLP_PUT(self, ",\"name\":\"");
    pl_otlp_put_escaped(self, pl_str_of(record->operation ? record->operation : "request"));
    PL_OTLP_PUT(self, " ");
    pl_otlp_put_escaped(self, pl_str_of(attempt->model ? attempt->model : attempt->target));
    PL_OTLP_PUT(self, "\",\"kind\":" KIND_CLIENT);
}

static int64_t known_ms(uint32_t duration_ms)
{
    return duration_ms == PL_UNKNOWN_MS ? -1 : (int64_t)duration_ms;
}

static void put_try(struct pl_otlp_text *self, const struct pl_record *record, size_t index)
{
    const struct pl_record_attempt *attempt = &record->attempts[index];
    struct pl_str model = model_of(record, attempt);
    PL_OTLP_PUT(self, "{\"key\":\"perilune.target\",\"value\":{\"stringValue\":\"");
    pl_otlp_put_escaped(self, pl_str_of(attempt->target));
    PL_OTLP_PUT(self, "\"}}");
    PL_OTLP_TEXT(self, "gen_ai.operation.name", record->operation);
    PL_OTLP_TEXT(self, "gen_ai.provider.name", attempt->provider);
    if (model.len > 0)
        PL_OTLP_STR(self, "gen_ai.request.model", model);
    PL_OTLP_TRUE(self, "gen_ai.request.stream", record->stream);
    PL_OTLP_TEXT(self, "server.address", attempt->endpoint_host);
    if (attempt->endpoint_port > 0)
        PL_OTLP_INT(self, "server.port", attempt->endpoint_port);
    if (record->method.len > 0 && is_known_method(record->method))
        PL_OTLP_STR(self, "http.request.method", record->method);
    if (attempt->status > 0)
        PL_OTLP_INT(self, "http.response.status_code", attempt->status);
    if (index > 0)
        PL_OTLP_INT(self, "http.request.resend_count", (int64_t)index);
    PL_OTLP_INT(self, "http.response.body.size", size_of(attempt->body_bytes));
    PL_OTLP_TEXT(self, "perilune.class", pl_class_name(attempt->class));
    if (attempt->key > 0)
        PL_OTLP_INT(self, "perilune.key", attempt->key);
    PL_OTLP_TEXT(self, "perilune.work", attempt->work ? pl_work_name(attempt->work) : NULL);
    PL_OTLP_TRUE(self, "perilune.connection.reused", attempt->reused);
    PL_OTLP_TEXT(self, "perilune.resumes", attempt->resumes);
    PL_OTLP_TRUE(self, "perilune.parted", attempt->parted);
    PL_OTLP_TRUE(self, "perilune.hedge", attempt->is_hedge);
    if (attempt->class == PL_CLASS_HEDGE_LOST) {
        PL_OTLP_INT(self, "gen_ai.usage.input_tokens", attempt->input_tokens);
        PL_OTLP_INT(self, "gen_ai.usage.output_tokens", attempt->output_tokens);
    }
    PL_OTLP_INT(self, "perilune.wait_ms", known_ms(attempt->wait_ms));
    PL_OTLP_INT(self, "perilune.connect_ms", known_ms(attempt->connect_ms));
    PL_OTLP_INT(self, "perilune.head_ms", known_ms(attempt->head_ms));
}

static void put_first_token(struct pl_otlp_text *self, uint64_t start_wall_ms,
                            const struct pl_record_attempt *attempt)
{
    if (attempt->first_token_ms == PL_UNKNOWN_MS)
        return;
    PL_OTLP_PUT(self, ",\"events\":[{\"timeUnixNano\":\"");
    put_time(self, start_wall_ms + attempt->first_token_ms);
    PL_OTLP_PUT(self, ",\"name\":\"perilune.first_token\"}]");
}

/* A try that was given up before it told anything has not failed. */
static bool has_try_failed(const struct pl_record_attempt *attempt)
{
    return attempt->class != PL_CLASS_OK && attempt->class != PL_CLASS_NONE &&
           attempt->class != PL_CLASS_HEDGE_LOST;
}

static void put_client(struct pl_otlp_text *self, const struct pl_record *record, size_t index)
{
    const struct pl_record_attempt *attempt = &record->attempts[index];
    uint64_t start_wall_ms = record->start_wall_ms + attempt->start_ms;
    bool failed = has_try_failed(attempt);
    bool serves = record->target && index + 1 == record->attempt_count &&
                  strcmp(record->target, attempt->target) == 0;
    put_ids(self, &record->trace, attempt->span_id, record->trace.span_id, FLAGS_LOCAL);
    put_client_name(self, record, attempt);
    put_times(self, start_wall_ms, attempt->total_ms == PL_UNKNOWN_MS ? 0 : attempt->total_ms);
    put_try(self, record, index);
    if (serves)
        put_answer(self, record);
    if (failed)
        put_error_type(self, pl_class_name(attempt->class), 0);
    PL_OTLP_PUT(self, "]");
    put_first_token(self, start_wall_ms, attempt);
    put_status(self, failed, attempt->detail && attempt->detail[0] ? attempt->detail : NULL);
    PL_OTLP_PUT(self, "}");
}

size_t pl_otlp_put_spans(struct pl_otlp_text *self, const struct pl_record *record,
                         const char *scheme)
{
    put_server(self, record, scheme);
    for (size_t i = 0; i < record->attempt_count; i++) {
        PL_OTLP_PUT(self, ",");
        put_client(self, record, i);
    }
    return 1 + record->attempt_count;
}

/* ---- the request ---------------------------------------------------------------------------- */

static void put_resource(struct pl_otlp_text *self, const struct pl_otlp_attribute *attribute)
{
    PL_OTLP_PUT(self, "{\"key\":\"");
    pl_otlp_put_escaped(self, attribute->name);
    PL_OTLP_PUT(self, "\",\"value\":{\"stringValue\":\"");
    pl_otlp_put_escaped(self, attribute->value);
    PL_OTLP_PUT(self, "\"}}");
}

void pl_otlp_put_head(struct pl_otlp_text *self, const struct pl_otlp_attribute *resource,
                      size_t count)
{
    PL_OTLP_PUT(self, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            PL_OTLP_PUT(self, ",");
        put_resource(self, &resource[i]);
    }
    PL_OTLP_PUT(
        self, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"perilune\",\"version\":\"" PERILUNE_VERSION
              "\"},\"spans\":[");
}

void pl_otlp_put_tail(struct pl_otlp_text *self)
{
    PL_OTLP_PUT(self, "]}]}]}");
}

/* ---- the answer ----------------------------------------------------------------------------- */

/* A 64-bit number of proto3's JSON: as a text, or as a number. */
static uint64_t read_u64(struct pl_str raw)
{
    uint64_t number = 0;
    for (size_t i = 0; i < raw.len; i++) {
        if (raw.data[i] == '"')
            continue;
        if (raw.data[i] < '0' || raw.data[i] > '9' || number > UINT64_MAX / 10 - 1)
            return 0;
        number = number * 10 + (uint64_t)(raw.data[i] - '0');
    }
    return number;
}

static struct pl_str value_of(const struct pl_json *json, const char *key)
{
    const struct pl_json_member *member = pl_json_find(json, pl_str_of(key));
    if (!member)
        return (struct pl_str){"", 0};
    return (struct pl_str){json->text + member->value_start, member->value_len};
}

/* For the log: one line of printable characters. */
static void read_message(struct pl_str raw, char *out, size_t out_size)
{
    size_t len, count = 0;
    char *text = raw.len > 0 ? pl_json_decode_string(raw.data, raw.len, &len) : NULL;
    for (size_t i = 0; text && i < len && count + 1 < out_size; i++) {
        unsigned char byte = (unsigned char)text[i];
        out[count++] = byte >= ' ' && byte < 127 ? (char)byte : '?';
    }
    out[count] = '\0';
    free(text);
}

uint64_t pl_otlp_read_rejected(const char *answer, size_t len, char *why, size_t why_size)
{
    struct pl_json whole, part;
    uint64_t count = 0;
    why[0] = '\0';
    pl_json_init(&whole);
    pl_json_init(&part);
    if (pl_json_scan(&whole, answer, len) == PL_OK) {
        struct pl_str partial = value_of(&whole, "partialSuccess");
        if (pl_json_scan(&part, partial.data, partial.len) == PL_OK) {
            count = read_u64(value_of(&part, "rejectedSpans"));
            struct pl_str message = value_of(&part, "errorMessage");
            if (message.len > 0 && message.data[0] == '"')
                read_message(message, why, why_size);
        }
    }
    pl_json_deinit(&whole);
    pl_json_deinit(&part);
    return count;
}
