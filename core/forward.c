/*
 * Forward: the upstream's request, built from the client's for one target. See request.h.
 *
 * What goes upstream: the client's end-to-end headers without its credentials (unless the provider
 * says passthrough), the target's own changes, the provider's headers last; the body as it came,
 * spliced. Nothing of one target's credential can reach another: the head is built anew each time.
 */
#include "request.h"
#include "rescue.h"
#include <stdlib.h>
#include <string.h>

/* ---- the upstream's request ----------------------------------------------------------------- */

static void put(struct pl_try *self, const char *data, size_t len)
{
    if (self->head_len + len > self->head_cap) {
        self->head_cap = PL_MAX(self->head_cap * 2, self->head_len + len + 1024);
        self->head = pl_xrealloc(self->head, self->head_cap);
    }
    memcpy(self->head + self->head_len, data, len);
    self->head_len += len;
}

static void put_str(struct pl_try *self, struct pl_str text)
{
    put(self, text.data, text.len);
}

static void put_text(struct pl_try *self, const char *text)
{
    put(self, text, strlen(text));
}

static void put_header(struct pl_try *self, struct pl_str name, struct pl_str value)
{
    put_str(self, name);
    put(self, ": ", 2);
    put_str(self, value);
    put(self, "\r\n", 2);
}

static void put_headers(struct pl_try *self, const struct pl_headers *headers)
{
    for (size_t i = 0; i < headers->count; i++)
        put_header(self, pl_headers_name(headers, i), pl_headers_value(headers, i));
}

struct pl_str pl_forward_path(struct pl_str path)
{
    if (path.len >= 3 && memcmp(path.data, "/v1", 3) == 0 &&
        (path.len == 3 || path.data[3] == '/')) {
        path.data += 3;
        path.len -= 3;
    }
    return path;
}

static void put_request_line(struct pl_try *self, const struct pl_provider *provider)
{
    struct pl_str path = pl_forward_path(pl_exchange_path(self->request->exchange));
    struct pl_str query = pl_exchange_query(self->request->exchange);
    put_str(self, pl_exchange_method(self->request->exchange));
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

static bool is_trace(struct pl_str name)
{
    return pl_str_equal_nocase(name, PL_STR("traceparent")) ||
           pl_str_equal_nocase(name, PL_STR("tracestate"));
}

/* The try's own span is what the upstream sees as its parent. A state without the client's parent
 * would belong to another trace. */
static void put_trace(struct pl_try *self)
{
    char parent[PL_TRACEPARENT_BYTES], state[PL_TRACESTATE_MAX_BYTES];
    pl_trace_put_parent(parent, &self->request->trace, self->so_far.span_id);
    put_header(self, PL_STR("traceparent"), (struct pl_str){parent, sizeof(parent)});
    if (self->request->trace.parent_span_id == 0)
        return;
    size_t len = pl_trace_put_state(state, pl_exchange_headers(self->request->exchange));
    if (len > 0)
        put_header(self, PL_STR("tracestate"), (struct pl_str){state, len});
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

/* What a client says of its time is passed on with what is left of it: after tries and waits its
 * own words would promise too much. */
static void put_deadline(struct pl_try *self, struct pl_str name, enum pl_deadline_unit unit)
{
    char text[PL_DEADLINE_MAX_BYTES];
    size_t len = pl_deadline_put(text, unit, pl_request_remaining_ms(self->request));
    put_header(self, name, (struct pl_str){text, len});
}

static void put_client_headers(struct pl_try *self, const struct pl_target *target,
                               const struct pl_provider *provider)
{
    const struct pl_headers *headers = pl_exchange_headers(self->request->exchange);
    bool has_connection = pl_headers_count(headers, PL_STR("connection")) > 0;
    bool traces = self->request->generation->topology->traces;
    for (size_t i = 0; i < headers->count; i++) {
        struct pl_str name = pl_headers_name(headers, i);
        if (traces && is_trace(name))
            continue;
        if (pl_header_is_hop_by_hop(name) || is_rewritten(name) || is_removed(target, name))
            continue;
        if (pl_header_is_credential(name) && provider->auth != PL_AUTH_PASSTHROUGH)
            continue;
        if (has_connection && pl_headers_list_token(headers, PL_STR("connection"), name))
            continue;
        if (pl_headers_count(&provider->headers, name) > 0)
            continue;
        enum pl_deadline_unit unit = pl_deadline_unit_of(self->request->deadline_headers, name);
        if (unit != PL_DEADLINE_NONE)
            put_deadline(self, name, unit);
        else
            put_header(self, name, pl_headers_value(headers, i));
    }
}

static void put_defaults(struct pl_try *self, const struct pl_target *target,
                         const struct pl_headers *defaults)
{
    for (size_t i = 0; i < defaults->count; i++) {
        struct pl_str name = pl_headers_name(defaults, i);
        if (!is_removed(target, name) &&
            pl_headers_count(pl_exchange_headers(self->request->exchange), name) == 0)
            put_header(self, name, pl_headers_value(defaults, i));
    }
}

/* An empty body is announced, too: RFC 9110 8.6. */
static bool expects_body(struct pl_str method)
{
    return pl_str_equal(method, PL_STR("POST")) || pl_str_equal(method, PL_STR("PUT")) ||
           pl_str_equal(method, PL_STR("PATCH"));
}

static void build_head(struct pl_try *self, const struct pl_target *target, size_t body_bytes)
{
    const struct pl_provider *provider =
        &self->request->generation->topology->providers[target->provider_index];
    char length[PL_NUMBER_MAX];
    self->head_len = 0;
    put_request_line(self, provider);
    put_client_headers(self, target, provider);
    put_headers(self, &provider->headers);
    put_defaults(self, target, &provider->defaults);
    if (self->so_far.key > 0)
        put_header(self, pl_str_of(provider->key_header),
                   pl_str_of(provider->keys[self->so_far.key - 1].value));
    put_headers(self, &target->set_headers);
    if (self->request->generation->topology->traces)
        put_trace(self);
    put_text(self, "Accept-Encoding: identity\r\nx-request-id: ");
    put_text(self, self->request->id);
    put(self, "\r\n", 2);
    if (self->request->body_kind != PL_BODY_NONE ||
        expects_body(pl_exchange_method(self->request->exchange))) {
        put_text(self, "Content-Length: ");
        put(self, length, pl_put_decimal(length, body_bytes));
        put(self, "\r\n", 2);
    }
    put(self, "\r\n", 2);
}

/* ---- its body ------------------------------------------------------------------------------- */

size_t pl_forward_edits(const struct pl_target *target, struct pl_json_edit *edits)
{
    size_t count = 0;
    for (size_t i = 0; i < target->edit_count; i++)
        edits[count++] = target->edits[i];
    if (target->model)
        edits[count++] = (struct pl_json_edit){
            .key = PL_STR("model"), .value = {target->model_json, strlen(target->model_json)}};
    return count;
}

static bool is_edited(const struct pl_request *self, const struct pl_target *target,
                      struct pl_str key)
{
    for (size_t i = 0; i < self->edit_count; i++) {
        if (pl_str_equal(pl_str_of(self->edits[i].key), key))
            return true;
    }
    for (size_t i = 0; i < target->edit_count; i++) {
        if (pl_str_equal(target->edits[i].key, key))
            return true;
    }
    return false;
}

static bool ends_with(struct pl_str text, struct pl_str end)
{
    return text.len >= end.len && memcmp(text.data + text.len - end.len, end.data, end.len) == 0;
}

/* Where the provider is to tell token counts of streams and the client has not asked for them.
 * Whoever has changed `stream_options` on purpose is left alone. */
static void ask_for_usage(struct pl_try *self)
{
    struct pl_request *request = self->request;
    const struct pl_target *target = self->target;
    const struct pl_provider *provider =
        &request->generation->topology->providers[target->provider_index];
    free(self->stream_options);
    self->stream_options = NULL;
    self->hides_usage = self->hidden_ends_in_cr = false;
    if (!provider->stream_usage || !request->stream || request->body_kind != PL_BODY_JSON ||
        is_edited(request, target, PL_STR("stream_options")) ||
        !ends_with(pl_exchange_path(request->exchange), PL_STR("/chat/completions")))
        return;
    self->hides_usage = pl_usage_ask(&request->json, &self->stream_options) == PL_USAGE_UNASKED;
}

/* A later edit of the same key wins: the policy's, then what this target needs, then its model. */
static size_t gather_edits(const struct pl_try *self, struct pl_json_edit *edits)
{
    const struct pl_request *request = self->request;
    size_t count = 0;
    for (size_t i = 0; i < request->edit_count; i++) {
        const struct pl_request_edit *edit = &request->edits[i];
        edits[count++] =
            (struct pl_json_edit){.key = {edit->key, strlen(edit->key)},
                                  .value = {edit->value, edit->value ? strlen(edit->value) : 0}};
    }
    if (self->stream_options)
        edits[count++] = (struct pl_json_edit){.key = PL_STR("stream_options"),
                                               .value = pl_str_of(self->stream_options)};
    return count + pl_forward_edits(self->target, edits + count);
}

/* What an earlier edit, or else the client, says of a field; empty: nothing. */
static struct pl_str value_so_far(const struct pl_request *request,
                                  const struct pl_json_edit *edits, size_t count, struct pl_str key)
{
    for (size_t i = count; i > 0; i--) {
        if (pl_str_equal(edits[i - 1].key, key))
            return edits[i - 1].value.data ? edits[i - 1].value : PL_STR("");
    }
    const struct pl_json_member *member = pl_json_find(&request->json, key);
    return member ? (struct pl_str){request->json.text + member->value_start, member->value_len}
                  : PL_STR("");
}

/* What has been written already is taken off what the answer may have in all. */
static size_t lower_limits(struct pl_try *self, struct pl_json_edit *edits, size_t count,
                           uint32_t token_count)
{
    static const struct pl_str keys[] = {{"max_tokens", 10}, {"max_completion_tokens", 21}};
    size_t added = 0;
    for (size_t i = 0; i < PL_COUNT(keys); i++) {
        struct pl_str limit = value_so_far(self->request, edits, count, keys[i]);
        int64_t left = pl_rescue_tokens_left(limit, token_count);
        if (left < 0)
            continue;
        size_t len = pl_put_decimal(self->token_limits[i], (uint64_t)left);
        edits[count + added++] =
            (struct pl_json_edit){.key = keys[i], .value = {self->token_limits[i], len}};
    }
    return added;
}

/* At a seam: the words that the client has become those of the assistant, and the target is asked
 * for what follows. Where the body leaves no room for them it is asked afresh. */
static size_t add_prefix(struct pl_try *self, struct pl_json_edit *edits, size_t count)
{
    const struct pl_request *request = self->request;
    const struct pl_target *target = self->target;
    uint32_t token_count;
    size_t before = count;
    struct pl_str prefix = pl_request_prefix(request, &token_count), key = PL_STR("messages");
    struct pl_str messages = value_so_far(request, edits, count, key);
    self->prefix.len = 0;
    bool made = prefix.len > 0 && pl_rescue_put_messages(&self->prefix, messages, prefix,
                                                         pl_str_of(target->prefix_members));
    if (!made && prefix.len > 0 && messages.len == 0) {
        key = PL_STR("prompt");
        made =
            pl_rescue_put_prompt(&self->prefix, value_so_far(request, edits, count, key), prefix);
    }
    if (!made) {
        self->resume = PL_RESUME_RESTART;
        return 0;
    }
    count += lower_limits(self, edits, count, token_count);
    edits[count++] =
        (struct pl_json_edit){.key = key, .value = {self->prefix.data, self->prefix.len}};
    for (size_t i = 0; i < target->prefix_edit_count; i++)
        edits[count++] = target->prefix_edits[i];
    return count - before;
}

static int splice_json(struct pl_try *self)
{
    struct pl_request *request = self->request;
    struct pl_json_edit stack[16], *edits = stack;
    size_t room = self->target->edit_count + request->edit_count + 2;
    if (self->resume == PL_RESUME_CONTINUE)
        room += self->target->prefix_edit_count + 3;
    if (room > PL_COUNT(stack))
        edits = pl_xcalloc(room, sizeof(*edits));
    size_t count = gather_edits(self, edits);
    if (self->resume == PL_RESUME_CONTINUE)
        count += add_prefix(self, edits, count);
    int rc = pl_json_splice_make(&self->splice, &request->json, edits, count);
    if (edits != stack)
        free(edits);
    return rc;
}

static void add_piece(struct pl_try *self, size_t *count, const void *data, size_t len)
{
    if (len > 0)
        self->pieces[(*count)++] = (struct iovec){(void *)data, len};
}

static void reserve_pieces(struct pl_try *self, size_t count)
{
    if (count > self->piece_cap) {
        self->piece_cap = count + 4;
        self->pieces = pl_xrealloc(self->pieces, self->piece_cap * sizeof(*self->pieces));
    }
}

/* Lays out head and body; the head's place is filled once the body's length is known. */
int pl_try_build(struct pl_try *self, size_t *out_count)
{
    const struct pl_request *request = self->request;
    const struct pl_target *target = self->target;
    struct pl_str body = request->body;
    size_t count = 1, body_bytes = body.len;
    const struct pl_multipart_field *field = &request->model_field;
    ask_for_usage(self);
    bool spliced = request->body_kind == PL_BODY_JSON &&
                   (target->model || target->edit_count || request->edit_count ||
                    self->stream_options || self->resume == PL_RESUME_CONTINUE);
    if (spliced) {
        int rc = splice_json(self);
        if (rc != PL_OK)
            return rc;
        reserve_pieces(self, self->splice.count + 1);
        for (size_t i = 0; i < self->splice.count; i++)
            add_piece(self, &count, self->splice.pieces[i].iov_base,
                      self->splice.pieces[i].iov_len);
        body_bytes = self->splice.total_bytes;
    } else if (self->request->body_kind == PL_BODY_MULTIPART && field->found && target->model) {
        size_t after = field->value_start + field->value_len;
        size_t model_len = strlen(target->model);
        reserve_pieces(self, 4);
        add_piece(self, &count, body.data, field->value_start);
        add_piece(self, &count, target->model, model_len);
        add_piece(self, &count, body.data + after, body.len - after);
        body_bytes = body.len - field->value_len + model_len;
    } else {
        reserve_pieces(self, 2);
        add_piece(self, &count, body.data, body.len);
    }
    build_head(self, target, body_bytes);
    self->pieces[0] = (struct iovec){self->head, self->head_len};
    *out_count = count;
    return PL_OK;
}

/* Passed-through credentials of different clients must not share a connection. A provider's own
 * keys do: each request carries the one that it is sent with, and none is bound to a connection. */
uint64_t pl_request_credential_tag(const struct pl_request *self,
                                   const struct pl_provider *provider)
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
