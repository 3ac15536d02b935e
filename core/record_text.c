/*
 * Record text: see record_text.h.
 */
#include "record_text.h"
#include <stdlib.h>
#include <time.h>

#define FIRST_BYTES 2048

void pl_record_text_init(struct pl_record_text *self)
{
    *self = (struct pl_record_text){0};
}

void pl_record_text_deinit(struct pl_record_text *self)
{
    free(self->data);
    self->data = NULL;
}

/* ---- bytes, numbers, strings --------------------------------------------------------------- */

static void grow(struct pl_record_text *self, size_t len)
{
    self->cap = PL_MAX(PL_MAX(self->cap * 2, self->len + len), (size_t)FIRST_BYTES);
    self->data = pl_xrealloc(self->data, self->cap);
}

/* Room for `len` more bytes. */
static inline char *reserve(struct pl_record_text *self, size_t len)
{
    if (len > self->cap - self->len)
        grow(self, len);
    return self->data + self->len;
}

static inline void put(struct pl_record_text *self, const char *data, size_t len)
{
    memcpy(reserve(self, len), data, len);
    self->len += len;
}

#define PUT(self, literal) put(self, literal, sizeof(literal) - 1)

void pl_record_put(struct pl_record_text *self, const char *data, size_t len)
{
    put(self, data, len);
}

static void put_text(struct pl_record_text *self, const char *text)
{
    put(self, text, strlen(text));
}

static void put_number(struct pl_record_text *self, uint64_t number)
{
    if (number < 10) { /* most are times of a request that was quick */
        *reserve(self, 1) = (char)('0' + number);
        self->len++;
        return;
    }
    self->len += pl_put_decimal(reserve(self, PL_NUMBER_MAX), number);
}

static void put_hex16(struct pl_record_text *self, uint64_t number)
{
    pl_put_hex16(reserve(self, 16), number);
    self->len += 16;
}

static void put_escaped(struct pl_record_text *self, unsigned char byte)
{
    static const char short_forms[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                       ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
    char form = byte < sizeof(short_forms) ? short_forms[byte] : 0;
    char text[6] = {'\\',
                    form ? form : 'u',
                    '0',
                    '0',
                    "0123456789abcdef"[byte >> 4],
                    "0123456789abcdef"[byte & 15]};
    put(self, text, form ? 2 : 6);
}

/* One character that does not stand for itself, or a run of them that does; how long it is.
 * `*left_bytes` is what may still be said, without escapes: it ends the text when it runs out. */
static size_t put_run(struct pl_record_text *self, const unsigned char *at, size_t left,
                      size_t *left_bytes)
{
    size_t said, len = pl_plain_bytes((const char *)at, PL_MIN(left, *left_bytes));
    if (len > 0) {
        put(self, (const char *)at, len);
        *left_bytes -= len;
        return len;
    }
    len = pl_utf8_bytes((const char *)at, left);
    said = len > 0 ? len : 3; /* of U+FFFD */
    if (said > *left_bytes) {
        *left_bytes = 0;
        return 0;
    }
    *left_bytes -= said;
    if (len == 1)
        put_escaped(self, at[0]);
    else if (len > 0)
        put(self, (const char *)at, len);
    else
        PUT(self, "\xEF\xBF\xBD");
    return PL_MAX(len, (size_t)1);
}

static void put_quoted(struct pl_record_text *self, struct pl_str text)
{
    char *at = reserve(self, text.len + 2);
    at[0] = at[text.len + 1] = '"';
    memcpy(at + 1, text.data, text.len);
    self->len += text.len + 2;
}

void pl_record_put_string(struct pl_record_text *self, struct pl_str text, size_t max_bytes)
{
    if (text.len <= max_bytes && pl_plain_bytes(text.data, text.len) == text.len) {
        put_quoted(self, text);
        return;
    }
    const unsigned char *at = (const unsigned char *)text.data;
    size_t done = 0, left_bytes = max_bytes;
    PUT(self, "\"");
    while (done < text.len && left_bytes > 0)
        done += put_run(self, at + done, text.len - done, &left_bytes);
    if (done < text.len)
        PUT(self, "\xE2\x80\xA6");
    PUT(self, "\"");
}

static void put_string(struct pl_record_text *self, struct pl_str text)
{
    pl_record_put_string(self, text, PL_RECORD_STRING_MAX_BYTES);
}

/* ---- the date ------------------------------------------------------------------------------ */

static void write_date(struct pl_record_text *self, uint64_t wall_s)
{
    time_t seconds = (time_t)wall_s;
    struct tm utc = {.tm_mday = 1};
    char text[sizeof(self->date) + 1];
    (void)gmtime_r(&seconds, &utc);
    if (strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.", &utc) != sizeof(self->date))
        memcpy(text, "0000-00-00T00:00:00.", sizeof(self->date)); /* a year of five digits */
    memcpy(self->date, text, sizeof(self->date));
    self->dated_s = wall_s;
}

static void put_time(struct pl_record_text *self, uint64_t wall_ms)
{
    unsigned ms = (unsigned)(wall_ms % 1000);
    if (wall_ms / 1000 != self->dated_s)
        write_date(self, wall_ms / 1000);
    put(self, self->date, sizeof(self->date));
    char rest[] = {(char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z'};
    put(self, rest, sizeof(rest));
}

static uint64_t end_wall_ms(const struct pl_record *record)
{
    return record->start_wall_ms + record->duration_ms;
}

/* ---- JSON ---------------------------------------------------------------------------------- */

/* Members that may be left out; `KEY` is a literal. The first member is written by hand. */
#define JSON_TEXT(self, KEY, value)                                                                \
    do {                                                                                           \
        if (value) {                                                                               \
            PUT(self, ",\"" KEY "\":");                                                            \
            put_string(self, pl_str_of(value));                                                    \
        }                                                                                          \
    } while (0)
#define JSON_SPAN(self, KEY, value)                                                                \
    do {                                                                                           \
        if ((value).len > 0) {                                                                     \
            PUT(self, ",\"" KEY "\":");                                                            \
            put_string(self, value);                                                               \
        }                                                                                          \
    } while (0)
#define JSON_NUMBER(self, KEY, is_known, value)                                                    \
    do {                                                                                           \
        if (is_known) {                                                                            \
            PUT(self, ",\"" KEY "\":");                                                            \
            put_number(self, (uint64_t)(value));                                                   \
        }                                                                                          \
    } while (0)
#define JSON_MS(self, KEY, value)    JSON_NUMBER(self, KEY, (value) != PL_UNKNOWN_MS, value)
#define JSON_COUNT(self, KEY, value) JSON_NUMBER(self, KEY, (value) >= 0, value)

/* By consequence: a request suffered, or not. */
static bool has_suffered(const struct pl_record *record)
{
    return record->end == PL_END_CUT || record->end == PL_END_FAILED ||
           record->end == PL_END_KILLED || record->status >= 500;
}

static void put_http(struct pl_record_text *self, const struct pl_record *record)
{
    JSON_TEXT(self, "id", record->id);
    JSON_SPAN(self, "http.request.method", record->method);
    JSON_SPAN(self, "url.path", record->path);
    JSON_SPAN(self, "client.address", record->peer);
    JSON_NUMBER(self, "http.response.status_code", record->status > 0, record->status);
    PUT(self, ",\"end\":\"");
    put_text(self, pl_end_name(record->end));
    PUT(self, "\"");
    JSON_TEXT(self, "reason", record->reason);
    JSON_NUMBER(self, "duration_ms", true, record->duration_ms);
    JSON_MS(self, "first_token_ms", record->first_token_ms);
    JSON_NUMBER(self, "http.request.body.size", true, record->request_body_bytes);
    JSON_NUMBER(self, "http.response.body.size", true, record->response_body_bytes);
}

static void put_endpoint(struct pl_record_text *self, const struct pl_record *record)
{
    if (!record->endpoint_host)
        return;
    PUT(self, ",\"endpoint\":");
    put_string(self, pl_str_of(record->endpoint_host));
    self->len--; /* the closing quote */
    PUT(self, ":");
    put_number(self, record->endpoint_port);
    PUT(self, "\"");
}

static void put_service(struct pl_record_text *self, const struct pl_record *record)
{
    JSON_TEXT(self, "route", record->route);
    JSON_TEXT(self, "policy", record->policy);
    JSON_TEXT(self, "target", record->target);
    put_endpoint(self, record);
    JSON_NUMBER(self, "generation", record->generation > 0, record->generation);
    if (record->stream)
        PUT(self, ",\"stream\":true");
    if (record->floor)
        PUT(self, ",\"floor\":true");
    JSON_TEXT(self, "policy_fault", record->policy_fault);
}

static void put_gen_ai(struct pl_record_text *self, const struct pl_record *record)
{
    JSON_TEXT(self, "gen_ai.operation.name", record->operation);
    JSON_TEXT(self, "gen_ai.provider.name", record->provider);
    JSON_SPAN(self, "gen_ai.request.model", record->model);
    JSON_TEXT(self, "gen_ai.response.model", record->response_model);
    JSON_COUNT(self, "gen_ai.usage.input_tokens", record->input_tokens);
    JSON_COUNT(self, "gen_ai.usage.output_tokens", record->output_tokens);
    JSON_COUNT(self, "gen_ai.usage.cache_read.input_tokens", record->cached_tokens);
    JSON_COUNT(self, "gen_ai.usage.reasoning.output_tokens", record->reasoning_tokens);
}

static void put_trace(struct pl_record_text *self, const struct pl_trace *trace)
{
    if (trace->id_high == 0 && trace->id_low == 0)
        return;
    PUT(self, ",\"trace_id\":\"");
    put_hex16(self, trace->id_high);
    put_hex16(self, trace->id_low);
    if (trace->span_id != 0) {
        PUT(self, "\",\"span_id\":\"");
        put_hex16(self, trace->span_id);
    }
    PUT(self, "\"");
}

static void put_attempt(struct pl_record_text *self, const struct pl_record_attempt *attempt)
{
    PUT(self, "{\"target\":");
    put_string(self, pl_str_of(attempt->target));
    JSON_TEXT(self, "provider", attempt->provider);
    JSON_NUMBER(self, "status", attempt->status > 0, attempt->status);
    PUT(self, ",\"class\":\"");
    put_text(self, pl_class_name(attempt->class));
    PUT(self, "\"");
    JSON_NUMBER(self, "key", attempt->key > 0, attempt->key);
    JSON_TEXT(self, "work", attempt->work ? pl_work_name(attempt->work) : NULL);
    PUT(self, ",\"start_ms\":");
    put_number(self, attempt->start_ms);
    JSON_MS(self, "wait_ms", attempt->wait_ms);
    JSON_MS(self, "connect_ms", attempt->connect_ms);
    JSON_MS(self, "head_ms", attempt->head_ms);
    JSON_MS(self, "first_token_ms", attempt->first_token_ms);
    JSON_MS(self, "total_ms", attempt->total_ms);
    if (attempt->reused)
        PUT(self, ",\"reused\":true");
    else
        PUT(self, ",\"reused\":false");
    JSON_TEXT(self, "resumes", attempt->resumes);
    if (attempt->parted)
        PUT(self, ",\"parted\":true");
    JSON_NUMBER(self, "malformed_events", attempt->malformed_event_count > 0,
                attempt->malformed_event_count);
    if (attempt->is_hedge)
        PUT(self, ",\"hedge\":true");
    if (attempt->class == PL_CLASS_HEDGE_LOST) {
        JSON_COUNT(self, "input_tokens", attempt->input_tokens);
        JSON_COUNT(self, "output_tokens", attempt->output_tokens);
    }
    JSON_TEXT(self, "detail", attempt->detail);
    PUT(self, "}");
}

static void put_attempts(struct pl_record_text *self, const struct pl_record *record)
{
    PUT(self, ",\"attempts\":[");
    for (size_t i = 0; i < record->attempt_count; i++) {
        if (i > 0)
            PUT(self, ",");
        put_attempt(self, &record->attempts[i]);
    }
    PUT(self, "]");
}

static void put_bodies(struct pl_record_text *self, const struct pl_record *record)
{
    if (record->request_body.len > 0) {
        PUT(self, ",\"request_body\":");
        pl_record_put_string(self, record->request_body, SIZE_MAX);
    }
    if (record->response_body.len > 0) {
        PUT(self, ",\"response_body\":");
        pl_record_put_string(self, record->response_body, SIZE_MAX);
    }
}

void pl_record_put_json(struct pl_record_text *self, const struct pl_record *record)
{
    PUT(self, "{\"time\":\"");
    put_time(self, end_wall_ms(record));
    if (has_suffered(record))
        PUT(self, "\",\"level\":\"warn\",\"scope\":\"request\"");
    else
        PUT(self, "\",\"level\":\"info\",\"scope\":\"request\"");
    put_http(self, record);
    put_service(self, record);
    put_gen_ai(self, record);
    put_trace(self, &record->trace);
    put_attempts(self, record);
    put_bodies(self, record);
    PUT(self, "}");
}

/* ---- for people ---------------------------------------------------------------------------- */

/* As it is when it is a plain word, quoted otherwise. */
static void put_word(struct pl_record_text *self, struct pl_str text)
{
    if (text.len > 0 && text.len <= PL_RECORD_STRING_MAX_BYTES &&
        pl_plain_bytes(text.data, text.len) == text.len && !memchr(text.data, ' ', text.len))
        put(self, text.data, text.len);
    else
        put_string(self, text);
}

static void put_count(struct pl_record_text *self, struct pl_str name, int64_t count)
{
    if (count < 0)
        return;
    put(self, name.data, name.len);
    put_number(self, (uint64_t)count);
}

/* "a/gpt-4;connect;3ms,b/gpt-4;200;40ms", as in the header x-perilune-trail */
static void put_trail(struct pl_record_text *self, const struct pl_record *record)
{
    for (size_t i = 0; i < record->attempt_count; i++) {
        const struct pl_record_attempt *attempt = &record->attempts[i];
        put_text(self, i > 0 ? "," : " tries=");
        put_word(self, pl_str_of(attempt->target));
        PUT(self, ";");
        if (attempt->class == PL_CLASS_OK || attempt->status >= 300)
            put_number(self, (uint64_t)attempt->status);
        else
            put_text(self, pl_class_name(attempt->class));
        PUT(self, ";");
        put_number(self, attempt->total_ms);
        PUT(self, "ms");
    }
}

static void put_plain_head(struct pl_record_text *self, const struct pl_record *record)
{
    put_time(self, end_wall_ms(record));
    PUT(self, " ");
    if (record->status > 0)
        put_number(self, (uint64_t)record->status);
    else
        PUT(self, "-");
    PUT(self, " ");
    put_text(self, pl_end_name(record->end));
    PUT(self, " ");
    put_number(self, record->duration_ms);
    PUT(self, "ms ");
    put_word(self, record->method.len > 0 ? record->method : PL_STR("-"));
    PUT(self, " ");
    put_word(self, record->path.len > 0 ? record->path : PL_STR("-"));
}

static void put_named(struct pl_record_text *self, const char *name, struct pl_str value)
{
    if (value.len == 0)
        return;
    put_text(self, name);
    put_word(self, value);
}

static struct pl_str str_or_none(const char *text)
{
    return text ? pl_str_of(text) : PL_STR("");
}

void pl_record_put_plain(struct pl_record_text *self, const struct pl_record *record)
{
    put_plain_head(self, record);
    put_named(self, " ", record->model);
    put_named(self, " -> ", str_or_none(record->target));
    put_named(self, " reason=", str_or_none(record->reason));
    if (record->first_token_ms != PL_UNKNOWN_MS) {
        PUT(self, " first_token=");
        put_number(self, record->first_token_ms);
        PUT(self, "ms");
    }
    put_count(self, PL_STR(" input_tokens="), record->input_tokens);
    put_count(self, PL_STR(" output_tokens="), record->output_tokens);
    if (record->attempt_count > 1 || record->end != PL_END_COMPLETE)
        put_trail(self, record);
    put_named(self, " policy_fault=", str_or_none(record->policy_fault));
    put_named(self, " client=", record->peer);
    put_named(self, " id=", str_or_none(record->id));
    put_named(self, " request_body=", record->request_body);
    put_named(self, " response_body=", record->response_body);
}
