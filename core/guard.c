/*
 * Guard: see guard.h.
 *
 * Pure, any thread. A state machine over bytes: each scan_ function handles one state, takes as
 * many bytes as belong to it and names the next state. This file has the fields and the order of
 * the parts; the request line is in guard_line.c, the body in guard_body.c. Of each field its place
 * is noted; the text of only those that frame a message (Host, Content-Length, Transfer-Encoding,
 * Expect) is kept, in `text`, and the others are looked at eight bytes at a time. Body bytes under
 * a Content-Length are passed on unseen.
 *
 * Two rules keep the verdict independent of how the input is cut: a decision is made on the byte
 * that settles it, never on what else is in sight, and the size limits are applied by cutting the
 * input (see scan_head), so that they strike at the same byte for every cut.
 *
 * What other parsers read in another way than RFC 9112 has it is refused even where the RFC allows
 * it, as such a message is worth more to a smuggler than to a client: a tab before the value of a
 * field that frames the message, a target that starts with "//" (an authority to some), chunk
 * extensions, trailers, and sizes above 63 bits.
 */
#include "guard_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_LENGTH_DIGITS 19

const uint8_t pl_guard_byte_sets[256] = {
    ['!'] = BOTH,  ['#'] = TOKEN, ['$'] = BOTH,         ['%'] = BOTH,         ['&'] = BOTH,
    ['\''] = BOTH, ['('] = HOST,  [')'] = HOST,         ['*'] = BOTH,         ['+'] = BOTH,
    ['-'] = BOTH,  ['.'] = BOTH,  [':'] = HOST,         [';'] = HOST,         ['='] = HOST,
    ['['] = HOST,  [']'] = HOST,  ['^'] = TOKEN,        ['_'] = BOTH,         ['`'] = TOKEN,
    ['|'] = TOKEN, ['~'] = BOTH,  ['0' ... '9'] = BOTH, ['A' ... 'Z'] = BOTH, ['a' ... 'z'] = BOTH,
};

void pl_guard_init(struct pl_guard *self, const struct pl_guard_limits *limits)
{
    self->limits = limits;
    pl_guard_reset(self, NULL);
}

void pl_guard_reset(struct pl_guard *self, struct pl_headers *fields)
{
    self->fields = fields;
    self->phase = PL_GUARD_IDLE;
    self->status = 0;
    self->reason = NULL;
    self->body_bytes = 0;
    self->expects_continue = false;
    self->state = METHOD;
    self->method = GET;
    self->field = FIELD_OTHER;
    self->minor_version = 0;
    self->seen_fields = 0;
    self->value_is_padded = false;
    self->text_len = 0;
    self->head_bytes = self->header_count = 0;
    self->left_bytes = self->chunk_count = 0;
    self->is_head = false;
    self->target_offset = self->target_len = 0;
    self->name_offset = self->colon_offset = 0;
}

const char *pl_guard_refuse_with(struct pl_guard *self, const char *at, int status,
                                 const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(self->text, sizeof(self->text), format, args);
    va_end(args);
    return refuse(self, at, status, self->text);
}

/* ---- fields ---- */

static const char *scan_line_start(struct pl_guard *self, const char *at)
{
    if (*at == '\r') {
        return next(self, HEAD_LF, at + 1);
    }
    if (is_space(*at)) {
        return refuse(self, at, 400,
                      "A header line starts with white space (folding is obsolete).");
    }
    if (self->header_count >= self->in_force.header_count) {
        return pl_guard_refuse_with(self, at, 431, "The request has more than %u header fields.",
                                    self->in_force.header_count);
    }
    self->header_count++;
    self->text_len = 0;
    self->name_offset = place_of(self, at);
    return next(self, NAME, at);
}

static const struct pl_str FIELD_NAMES[] = {
    [FIELD_HOST] = {"Host", 4},
    [FIELD_EXPECT] = {"Expect", 6},
    [FIELD_LENGTH] = {"Content-Length", 14},
    [FIELD_CODING] = {"Transfer-Encoding", 17},
};

static enum field find_field(const struct pl_guard *self)
{
    for (enum field field = FIELD_HOST; field <= FIELD_CODING; field++) {
        /* The length is compared here, so that most names cost no call. */
        if (self->text_len == FIELD_NAMES[field].len &&
            pl_str_equal_nocase((struct pl_str){self->text, self->text_len}, FIELD_NAMES[field])) {
            return field;
        }
    }
    return FIELD_OTHER;
}

static const char *scan_name(struct pl_guard *self, const char *start, const char *end)
{
    const char *at = skip_token(start, end);
    keep(self, start, (size_t)(at - start));
    if (at == end) {
        return at;
    }
    if (*at != ':' || self->text_len == 0) {
        return refuse_byte(self, at, "A header name is not a token followed at once by a colon.");
    }
    self->field = (uint8_t)find_field(self);
    self->colon_offset = place_of(self, at);
    self->value_is_padded = false;
    self->text_len = 0;
    return next(self, self->field == FIELD_OTHER ? VALUE : KEPT_START, at + 1);
}

/* True when one of eight bytes is a control byte (HTAB too) or DEL; may also be true for bytes
 * above 0x80 beside one, never false when there is one. */
static bool has_control(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t highs = 0x8080808080808080u;
    uint64_t del = word ^ (ones * 0x7f);
    return (((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & highs;
}

static const char *skip_value(const char *at, const char *end)
{
    uint64_t word;
    for (;;) {
        while ((size_t)(end - at) >= sizeof(word)) {
            memcpy(&word, at, sizeof(word));
            if (has_control(word)) {
                break;
            }
            at += sizeof(word);
        }
        const char *stop = (size_t)(end - at) > sizeof(word) ? at + sizeof(word) : end;
        while (at < stop && is_text(*at)) {
            at++;
        }
        if (at < stop || at == end) {
            return at;
        }
    }
}

static const char *scan_value(struct pl_guard *self, const char *at, const char *end)
{
    at = skip_value(at, end);
    if (at == end) {
        return at;
    }
    if (*at == '\r') {
        return next(self, VALUE_LF, at + 1);
    }
    return refuse_byte(self, at, "A header value contains a control byte.");
}

/* The LF that ends a field, one byte behind its value. */
static const char *end_field(struct pl_guard *self, const char *at)
{
    uint32_t value_offset = self->colon_offset + 1;
    if (*at == '\n' && self->fields != NULL) {
        pl_headers_add_place(
            self->fields,
            (struct pl_header){self->name_offset, self->colon_offset - self->name_offset,
                               value_offset, place_of(self, at) - 1 - value_offset});
    }
    return scan_lf(self, at);
}

/* ---- fields that matter ---- */

static const char *end_length(struct pl_guard *self, const char *at)
{
    bool is_number = self->text_len <= MAX_LENGTH_DIGITS;
    for (size_t i = 0; is_number && i < self->text_len; i++) {
        is_number = self->text[i] >= '0' && self->text[i] <= '9';
        self->left_bytes = self->left_bytes * 10 + (uint64_t)(self->text[i] - '0');
    }
    if (!is_number) {
        return refuse(self, at, 400, "Content-Length is not a number of at most 19 digits.");
    }
    return next(self, VALUE_LF, at + 1);
}

static const char *end_coding(struct pl_guard *self, const char *at)
{
    const struct pl_str chunked = PL_STR("chunked");
    struct pl_str start = {self->text, PL_MIN(self->text_len, chunked.len)};
    if (!pl_str_equal_nocase(start, chunked)) {
        return refuse(self, at, 501, "Transfer-Encoding is something other than \"chunked\".");
    }
    if (self->text_len > chunked.len) {
        return refuse(self, at, 400, "Transfer-Encoding has something behind \"chunked\".");
    }
    return next(self, VALUE_LF, at + 1);
}

static const char *end_expect(struct pl_guard *self, const char *at)
{
    if (!pl_str_equal_nocase((struct pl_str){self->text, self->text_len}, PL_STR("100-continue"))) {
        return refuse(self, at, 417, "Expect is something other than \"100-continue\".");
    }
    /* RFC 9110 10.1.1: of no meaning in HTTP/1.0. */
    self->expects_continue = self->minor_version == 1;
    return next(self, VALUE_LF, at + 1);
}

static bool has_seen(const struct pl_guard *self, enum field field)
{
    return (self->seen_fields & (1u << field)) != 0;
}

static const char *end_kept_value(struct pl_guard *self, const char *at)
{
    const char *name = FIELD_NAMES[self->field].data;
    if (has_seen(self, self->field)) {
        return pl_guard_refuse_with(self, at, 400, "The request has more than one %s field.", name);
    }
    if (self->text_len == 0) {
        return pl_guard_refuse_with(self, at, 400, "The %s field is empty.", name);
    }
    self->seen_fields |= (uint8_t)(1u << self->field);
    switch ((enum field)self->field) {
    case FIELD_LENGTH:
        return end_length(self, at);
    case FIELD_CODING:
        return end_coding(self, at);
    case FIELD_EXPECT:
        return end_expect(self, at);
    default: /* FIELD_HOST, checked byte by byte */
        return next(self, VALUE_LF, at + 1);
    }
}

static const char *scan_kept_start(struct pl_guard *self, const char *at, const char *end)
{
    while (at < end && *at == ' ') {
        at++;
    }
    return at < end ? next(self, KEPT_VALUE, at) : at;
}

/* One byte of a value. White space behind it is dropped; within it, it is kept as one space, so
 * that the value matches nothing. */
static const char *take_kept_byte(struct pl_guard *self, const char *at)
{
    bool is_host = self->field == FIELD_HOST;
    if (!is_text(*at)) {
        return refuse_byte(self, at, "A header value contains a control byte.");
    }
    if (is_space(*at) && self->text_len > 0) {
        self->value_is_padded = true;
        return at + 1;
    }
    if (is_host && (self->value_is_padded || !is_in(HOST, *at))) {
        return refuse(self, at, 400, "The Host field is not a host name with an optional port.");
    }
    if (self->value_is_padded) {
        self->value_is_padded = false;
        keep(self, " ", 1);
    }
    keep(self, at, 1);
    return at + 1;
}

static const char *scan_kept_value(struct pl_guard *self, const char *at, const char *end)
{
    while (at < end && *at != '\r' && self->state == KEPT_VALUE) {
        at = take_kept_byte(self, at);
    }
    return at < end && self->state == KEPT_VALUE ? end_kept_value(self, at) : at;
}

/* ---- the end of the head ---- */

/* What no single field can tell. Returns the reason why the head is refused, or NULL. */
static const char *find_contradiction(const struct pl_guard *self)
{
    if (!has_seen(self, FIELD_HOST) && self->minor_version == 1) {
        return "An HTTP/1.1 request has no Host field.";
    }
    if (has_seen(self, FIELD_CODING) && has_seen(self, FIELD_LENGTH)) {
        return "The request has both Content-Length and Transfer-Encoding.";
    }
    if (has_seen(self, FIELD_CODING) && self->minor_version == 0) {
        return "An HTTP/1.0 request has a Transfer-Encoding.";
    }
    /* Some servers would read it as the next request. */
    if (self->method == HEAD && (has_seen(self, FIELD_CODING) || self->left_bytes > 0)) {
        return "A HEAD request has a body.";
    }
    return NULL;
}

static const char *scan_head_lf(struct pl_guard *self, const char *at)
{
    const char *reason = *at == '\n' ? find_contradiction(self) : NO_LF;
    if (reason != NULL) {
        return refuse(self, at, 400, reason);
    }
    return pl_guard_start_body(self, has_seen(self, FIELD_CODING), at);
}

static const char *scan_field_state(struct pl_guard *self, const char *at, const char *end)
{
    switch ((enum state)self->state) {
    case LINE_START:
        return scan_line_start(self, at);
    case NAME:
        return scan_name(self, at, end);
    case VALUE:
        return scan_value(self, at, end);
    case KEPT_START:
        return scan_kept_start(self, at, end);
    case KEPT_VALUE:
        return scan_kept_value(self, at, end);
    case VALUE_LF:
        return end_field(self, at);
    default: /* HEAD_LF; scan_fields lets no other state in */
        return scan_head_lf(self, at);
    }
}

static const char *scan_fields(struct pl_guard *self, const char *at, const char *end)
{
    while (at < end && self->state <= HEAD_LF) {
        at = scan_field_state(self, at, end);
    }
    return at;
}

/* ---- the whole message ---- */

/* Scans the rest of the request line, or of the fields, but not past the limit that holds there:
 * the bytes behind it must not decide anything. */
static const char *scan_head(struct pl_guard *self, const char *at, const char *end)
{
    const struct pl_guard_limits *limits = &self->in_force;
    bool is_line = self->state <= LINE_LF;
    uint32_t limit_bytes =
        is_line ? PL_MIN(limits->request_line_bytes, limits->head_bytes) : limits->head_bytes;
    if (self->head_bytes >= limit_bytes) {
        return pl_guard_refuse_with(self, at, is_line ? 414 : 431,
                                    "The request %s is larger than %u bytes.",
                                    is_line ? "line" : "head", limit_bytes);
    }
    size_t room = limit_bytes - self->head_bytes;
    self->piece = at;
    const char *stop = (size_t)(end - at) > room ? at + room : end;
    at = is_line ? pl_guard_scan_line(self, at, stop) : scan_fields(self, at, stop);
    self->head_bytes += (uint32_t)(at - self->piece);
    return at;
}

enum pl_guard_verdict pl_guard_feed(struct pl_guard *self, const char *data, size_t len,
                                    size_t *consumed_bytes, struct pl_str *body)
{
    const char *at = data;
    *body = (struct pl_str){data, 0};
    const char *end = len > 0 ? data + len : data; /* no arithmetic on an empty span's NULL */
    if (at < end && self->phase == PL_GUARD_IDLE) {
        self->phase = PL_GUARD_IN_HEAD;
        self->in_force = *self->limits;
    }
    if (self->state > HEAD_LF) {
        at = pl_guard_scan_body(self, at, end, body);
    }
    while (at < end && self->state <= HEAD_LF) {
        at = scan_head(self, at, end);
    }
    *consumed_bytes = (size_t)(at - data);
    if (self->state == REFUSED) {
        return PL_GUARD_REFUSED;
    }
    return self->state == WHOLE ? PL_GUARD_DONE : PL_GUARD_MORE;
}
