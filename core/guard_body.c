/*
 * Guard: the body, and the framing of chunks. See guard_internal.h.
 */
#include "guard_internal.h"

#define MAX_CHUNK_DIGITS 16

/* The framing of a small chunk costs more to read than its bytes are worth, here and for whoever
 * reads it next. So past a number of chunks that may be small, they must have a fair size on
 * average. */
#define SMALL_CHUNK_COUNT   4096
#define AVERAGE_CHUNK_BYTES 256

/* Whatever the configured limit is: sizes are handed on as signed numbers, too. */
static uint64_t body_limit_bytes(const struct pl_guard *self)
{
    return PL_MIN(self->in_force.body_bytes, (uint64_t)INT64_MAX);
}

static const char *refuse_body_size(struct pl_guard *self, const char *at)
{
    return pl_guard_refuse_with(self, at, 413, "The request body is larger than %llu bytes.",
                                (unsigned long long)body_limit_bytes(self));
}

static const char *finish(struct pl_guard *self, const char *at)
{
    self->phase = PL_GUARD_COMPLETE;
    return next(self, WHOLE, at);
}

const char *pl_guard_start_body(struct pl_guard *self, bool is_chunked, const char *at)
{
    if (self->left_bytes > body_limit_bytes(self)) {
        return refuse_body_size(self, at);
    }
    if (!is_chunked && self->left_bytes == 0) {
        return finish(self, at + 1);
    }
    self->phase = PL_GUARD_IN_BODY;
    self->text_len = 0;
    return next(self, is_chunked ? CHUNK_SIZE : BODY, at + 1);
}

static const char *take_body(struct pl_guard *self, const char *at, const char *end,
                             struct pl_str *body)
{
    size_t take = PL_MIN(self->left_bytes, (size_t)(end - at));
    *body = (struct pl_str){at, take};
    self->left_bytes -= take;
    self->body_bytes += take;
    return at + take;
}

static int hex_value(char byte)
{
    char lower = (char)(byte | 0x20);
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static const char *end_chunk_size(struct pl_guard *self, const char *at)
{
    if (*at != '\r' || self->text_len == 0) {
        return refuse(self, at, 400, "A chunk size line is not a hexadecimal number alone.");
    }
    if (self->left_bytes > body_limit_bytes(self) - self->body_bytes) {
        return refuse_body_size(self, at);
    }
    if (++self->chunk_count > SMALL_CHUNK_COUNT + self->body_bytes / AVERAGE_CHUNK_BYTES) {
        return refuse(self, at, 400, "The request body comes in too many small chunks.");
    }
    return next(self, CHUNK_SIZE_LF, at + 1);
}

/* `text_len` counts the digits. */
static const char *scan_chunk_size(struct pl_guard *self, const char *at, const char *end)
{
    int digit;
    while (at < end && (digit = hex_value(*at)) >= 0) {
        if (self->text_len == MAX_CHUNK_DIGITS) {
            return refuse(self, at, 400, "A chunk size has more than 16 digits.");
        }
        self->text_len++;
        self->left_bytes = self->left_bytes * 16 + (uint64_t)digit;
        at++;
    }
    return at < end ? end_chunk_size(self, at) : at;
}

static const char *end_chunk(struct pl_guard *self, const char *at)
{
    self->text_len = 0;
    return next(self, CHUNK_SIZE, at + 1);
}

/* For a byte of the framing around chunks that is not the one it must be. */
static const char *refuse_framing(struct pl_guard *self, const char *at)
{
    if (self->state == LAST_CR) {
        return refuse(self, at, 400, "A chunked request has trailer fields.");
    }
    return refuse(self, at, 400, "A chunk is not followed by CR and LF.");
}

static const char *scan_framing(struct pl_guard *self, const char *at)
{
    bool wants_cr = self->state == CHUNK_DATA_CR || self->state == LAST_CR;
    if (*at != (wants_cr ? '\r' : '\n')) {
        return refuse_framing(self, at);
    }
    switch ((enum state)self->state) {
    case CHUNK_SIZE_LF:
        return next(self, self->left_bytes > 0 ? CHUNK_DATA : LAST_CR, at + 1);
    case CHUNK_DATA_CR:
        return next(self, CHUNK_DATA_LF, at + 1);
    case CHUNK_DATA_LF:
        return end_chunk(self, at);
    case LAST_CR:
        return next(self, LAST_LF, at + 1);
    default: /* LAST_LF; pl_guard_scan_body lets no other state in */
        return finish(self, at + 1);
    }
}

static const char *scan_state(struct pl_guard *self, const char *at, const char *end,
                              struct pl_str *body)
{
    switch ((enum state)self->state) {
    case BODY:
        at = take_body(self, at, end, body);
        return self->left_bytes == 0 ? finish(self, at) : at;
    case CHUNK_SIZE:
        return scan_chunk_size(self, at, end);
    case CHUNK_DATA:
        at = take_body(self, at, end, body);
        return self->left_bytes == 0 ? next(self, CHUNK_DATA_CR, at) : at;
    default:
        return scan_framing(self, at);
    }
}

const char *pl_guard_scan_body(struct pl_guard *self, const char *at, const char *end,
                               struct pl_str *body)
{
    while (at < end && self->state < WHOLE && body->len == 0) {
        at = scan_state(self, at, end, body);
    }
    return at;
}
