/*
 * The client's side of a stage: see stage.h and exchange.h. It reads at once whatever is written,
 * and keeps it.
 */
#include "reply.h"
#include "stage_internal.h"
#include <stdlib.h>
#include <string.h>

static struct pl_stage_client *of(struct pl_exchange *exchange)
{
    return (struct pl_stage_client *)exchange; /* it is at its head */
}

static void client_free(struct pl_stage_client *self)
{
    pl_headers_deinit(&self->exchange.headers);
    pl_headers_deinit(&self->headers);
    free(self->method);
    free(self->target);
    free(self->request_body);
    free(self->peer);
    free(self->body);
    free(self);
}

static void finish(struct pl_stage_client *self, enum pl_stage_end end)
{
    self->end = end;
    self->ended_us = pl_stage_now_us(self->stage);
    self->exchange.ops = NULL;
    if (self->stage->ops.on_client_end)
        self->stage->ops.on_client_end(self, self->stage->arg);
    if (self->dropped)
        client_free(self);
}

/* ---- the exchange ---- */

static struct pl_str body(struct pl_exchange *exchange)
{
    struct pl_stage_client *self = of(exchange);
    return (struct pl_str){self->request_body, self->request_body_len};
}

static struct pl_str peer(const struct pl_exchange *exchange)
{
    return pl_str_of(((const struct pl_stage_client *)exchange)->peer);
}

static void forget_request(struct pl_exchange *exchange)
{
    struct pl_stage_client *self = of(exchange);
    free(self->request_body);
    self->request_body = NULL;
    self->request_body_len = 0;
    pl_headers_clear(&exchange->headers);
}

static void add_length(struct pl_headers *headers, uint64_t bytes)
{
    char digits[PL_NUMBER_MAX];
    struct pl_str value = {digits, pl_put_decimal(digits, bytes)};
    if (pl_headers_add(headers, PL_STR("Content-Length"), value) != PL_OK)
        abort();
}

static void start(struct pl_exchange *exchange, int status, const struct pl_headers *headers,
                  int64_t content_length_bytes)
{
    struct pl_stage_client *self = of(exchange);
    self->begun = true;
    self->status = status;
    self->first_byte_us = pl_stage_now_us(self->stage);
    if (headers)
        pl_headers_copy(&self->headers, headers);
    if (content_length_bytes >= 0 && !pl_reply_is_bodiless(status))
        add_length(&self->headers, (uint64_t)content_length_bytes);
}

static bool write_body(struct pl_exchange *exchange, const char *data, size_t len)
{
    struct pl_stage_client *self = of(exchange);
    if (len == 0 || pl_reply_is_bodiless(self->status) || strcmp(exchange->method, "HEAD") == 0)
        return true;
    if (self->stage->body_max_bytes > 0)
        len = PL_MIN(len, self->stage->body_max_bytes - self->body_len);
    if (self->body_len + len > self->body_cap) {
        self->body_cap = PL_MAX(self->body_cap * 2, self->body_len + len);
        self->body = pl_xrealloc(self->body, self->body_cap);
    }
    memcpy(self->body + self->body_len, data, len);
    self->body_len += len;
    return true;
}

static void end(struct pl_exchange *exchange)
{
    finish(of(exchange), PL_STAGE_COMPLETE);
}

static void reply(struct pl_exchange *exchange, int status, const struct pl_headers *headers,
                  const char *data, size_t len)
{
    start(exchange, status, headers, (int64_t)len);
    write_body(exchange, data, len);
    end(exchange);
}

static void abort_answer(struct pl_exchange *exchange, bool at_once)
{
    (void)at_once;
    struct pl_stage_client *self = of(exchange);
    finish(self, self->begun ? PL_STAGE_BROKEN : PL_STAGE_RESET);
}

static const struct pl_exchange_class class = {.body = body,
                                               .peer = peer,
                                               .forget_request = forget_request,
                                               .reply = reply,
                                               .start = start,
                                               .write = write_body,
                                               .end = end,
                                               .abort = abort_answer};

/* ---- exported ---- */

static void fill(struct pl_stage_client *self, const struct pl_stage_request *request)
{
    struct pl_exchange *exchange = &self->exchange;
    self->method = pl_xstrndup(request->method.data, request->method.len);
    self->target = pl_xstrndup(request->target.data, request->target.len);
    self->peer = pl_xstrndup(request->peer.data, request->peer.len);
    self->request_body = pl_xstrndup(request->body.data, request->body.len);
    self->request_body_len = request->body.len;
    const char *question = strchr(self->target, '?');
    exchange->class = &class;
    exchange->method = self->method;
    exchange->path = pl_str_of(self->target);
    exchange->query = question ? pl_str_of(question + 1) : PL_STR("");
    if (question)
        exchange->path.len = (size_t)(question - self->target);
    pl_headers_init(&exchange->headers);
    pl_headers_init(&self->headers);
    if (request->headers)
        pl_headers_copy(&exchange->headers, request->headers);
}

struct pl_stage_client *pl_stage_start(struct pl_stage *self,
                                       const struct pl_stage_request *request)
{
    struct pl_stage_client *client = pl_xcalloc(1, sizeof(*client));
    client->stage = self;
    client->number = ++self->client_count;
    client->started_us = pl_stage_now_us(self);
    fill(client, request);
    pl_stage_enter(self);
    pl_request_begin(&client->exchange, &self->runtime);
    pl_stage_exit(self);
    return client;
}

void pl_stage_leave(struct pl_stage_client *self)
{
    const struct pl_exchange_ops *ops = self->exchange.ops;
    if (self->end != PL_STAGE_OPEN)
        return;
    pl_stage_enter(self->stage);
    ops->on_gone(self->exchange.ops_arg);
    pl_stage_exit(self->stage);
    finish(self, PL_STAGE_LEFT);
}

const char *pl_stage_waits_for(const struct pl_stage_client *self)
{
    if (self->end != PL_STAGE_OPEN)
        return NULL;
    const struct pl_request *request = self->exchange.ops_arg;
    return request->coroutine.waits_for;
}

void pl_stage_client_free(struct pl_stage_client *self)
{
    if (!self)
        return;
    if (self->end == PL_STAGE_OPEN)
        self->dropped = true;
    else
        client_free(self);
}
