/*
 * Client error: see client_error.h.
 */
#include "client_error.h"
#include "json.h"
#include "json_write.h"
#include <stdlib.h>

/* ---- dialects ------------------------------------------------------------------------------- */

static bool ends_with(struct pl_str text, struct pl_str end)
{
    return text.len >= end.len && memcmp(text.data + text.len - end.len, end.data, end.len) == 0;
}

static bool contains(struct pl_str text, struct pl_str part)
{
    return text.len >= part.len && memmem(text.data, text.len, part.data, part.len) != NULL;
}

/* /v1/messages, /v1/messages/count_tokens, /v1/messages/batches/..; OpenAI's threads and stored
 * completions have messages, too. */
static bool is_messages(struct pl_str path)
{
    if (contains(path, PL_STR("/threads/")) || contains(path, PL_STR("/completions/")))
        return false;
    return ends_with(path, PL_STR("/messages")) || contains(path, PL_STR("/v1/messages/"));
}

enum pl_dialect pl_client_error_dialect(struct pl_str path, const struct pl_headers *headers)
{
    if (ends_with(path, PL_STR("/completions")) || ends_with(path, PL_STR("/embeddings")))
        return PL_DIALECT_OPENAI;
    if (ends_with(path, PL_STR("/responses")))
        return PL_DIALECT_RESPONSES;
    bool is_anthropic = is_messages(path) ||
                        (headers && pl_headers_count(headers, PL_STR("anthropic-version")) > 0);
    return is_anthropic ? PL_DIALECT_ANTHROPIC : PL_DIALECT_OPENAI;
}

/* ---- types ---------------------------------------------------------------------------------- */

/* 501 and 505 are said of requests that no client's library makes: their doing, not ours. */

static const char *openai_type(int status)
{
    switch (status) {
    case 408:
    case 504:
        return "timeout_error";
    case 429:
        return "rate_limit_error";
    case 502:
        return "upstream_error";
    case 501:
    case 505:
        return "invalid_request_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* 503 is said when all targets are busy or out of service for now, which Anthropic says by 529. */
static const char *anthropic_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 402:
        return "billing_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 408:
    case 504:
        return "timeout_error";
    case 503:
    case 529:
        return "overloaded_error";
    case 501:
    case 505:
        return "invalid_request_error";
    default:
        return status >= 500 ? "api_error" : "invalid_request_error";
    }
}

/* ---- texts ---------------------------------------------------------------------------------- */

static void put_message(struct pl_json_text *out, struct pl_str message)
{
    size_t len;
    char *quoted = pl_json_encode_string(message.data, message.len, &len);
    pl_json_put_raw(out, "message", quoted, len);
    free(quoted);
}

static void put_openai_error(struct pl_json_text *out, const struct pl_client_error *error)
{
    pl_json_open(out, "error", '{');
    put_message(out, error->message);
    pl_json_put_string(out, "type", openai_type(error->status));
    pl_json_put_string(out, "param", error->param);
    pl_json_put_string(out, "code", error->code);
    pl_json_close(out, '}');
}

static void put_anthropic(struct pl_json_text *out, const struct pl_client_error *error)
{
    pl_json_put_string(out, "type", "error");
    pl_json_open(out, "error", '{');
    pl_json_put_string(out, "type", anthropic_type(error->status));
    put_message(out, error->message);
    if (error->code) {
        pl_json_open(out, "details", '{');
        pl_json_put_string(out, "error_code", error->code);
        pl_json_close(out, '}');
    }
    pl_json_close(out, '}');
    pl_json_put_string(out, "request_id", error->request_id);
}

static void put_responses_event(struct pl_json_text *out, const struct pl_client_error *error,
                                uint64_t sequence_number)
{
    pl_json_put_string(out, "type", "error");
    pl_json_put_string(out, "code", error->code);
    put_message(out, error->message);
    pl_json_put_string(out, "param", error->param);
    pl_json_put_u64(out, "sequence_number", sequence_number);
    put_openai_error(out, error);
}

char *pl_client_error_body(enum pl_dialect dialect, const struct pl_client_error *error,
                           size_t *len)
{
    struct pl_json_text text;
    pl_json_text_init(&text);
    pl_json_open(&text, NULL, '{');
    if (dialect == PL_DIALECT_ANTHROPIC)
        put_anthropic(&text, error);
    else
        put_openai_error(&text, error);
    pl_json_close(&text, '}');
    *len = text.len;
    return text.data;
}

char *pl_client_error_event(enum pl_dialect dialect, const struct pl_client_error *error,
                            uint64_t sequence_number, size_t *len)
{
    static const char *const begins[] = {[PL_DIALECT_OPENAI] = "data: ",
                                         [PL_DIALECT_RESPONSES] = "event: error\ndata: ",
                                         [PL_DIALECT_ANTHROPIC] = "event: error\ndata: "};
    struct pl_json_text text;
    const char *begin = begins[dialect];
    pl_json_text_init(&text);
    pl_json_put_raw(&text, NULL, begin, strlen(begin));
    text.needs_comma = false;
    pl_json_open(&text, NULL, '{');
    if (dialect == PL_DIALECT_ANTHROPIC)
        put_anthropic(&text, error);
    else if (dialect == PL_DIALECT_RESPONSES)
        put_responses_event(&text, error, sequence_number);
    else
        put_openai_error(&text, error);
    pl_json_close(&text, '}');
    text.needs_comma = false;
    pl_json_put_raw(&text, NULL, "\n\n", 2);
    *len = text.len;
    return text.data;
}
