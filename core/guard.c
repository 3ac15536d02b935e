/*
 * Guard: see guard.h.
 *
 * Pure, any thread. A state machine over bytes: each scan_ function below handles one state, takes
 * as many bytes as belong to it and names the next state. Only the fields that frame a message
 * (Host, Content-Length, Transfer-Encoding, Expect) are kept, in `text`; the others are only looked
 * at, eight bytes at a time. Body bytes under a Content-Length are skipped unseen.
 *
 * Two rules keep the verdict independent of how the input is cut: a decision is made on the byte
 * that settles it, never on what else is in sight, and the size limits are applied by cutting the
 * input (see scan_head), so that they strike at the same byte for every cut.
 *
 * What evhttp (libevent 2.1.12, http.c) would read in another way than RFC 9112 has it is refused
 * even where the RFC allows it: a tab before the value of a field that frames the message (it
 * strips spaces only: evhttp_parse_headers_impl_), a target that starts with "//" (an authority to
 * it: evhttp_uri_parse_with_flags), chunk extensions (evhttp_handle_chunked_read), trailers, and
 * sizes above 63 bits, which saturate there.
 */
#include "guard.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_MAX          31 /* longest name or value that matters, with room to spare */
#define MAX_LENGTH_DIGITS 19
#define MAX_CHUNK_DIGITS  16

/* evhttp can keep a kilobyte for each chunk, however small: when a chunk's byte comes alone, the
 * whole block it was read into becomes part of the body (evbuffer_remove_buffer). So past a number
 * of chunks that may be small, they must have a fair size on average. */
#define SMALL_CHUNK_COUNT   4096
#define AVERAGE_CHUNK_BYTES 256

enum state {
    /* the request line, in order; see in_request_line */
    METHOD,
    TARGET_START,
    TARGET_ROOT, /* behind the first slash */
    TARGET,
    TARGET_STAR, /* behind the "*" of OPTIONS */
    VERSION,
    LINE_LF,
    /* the fields, in order; see in_head */
    LINE_START,
    NAME,
    VALUE,      /* of a field that does not matter */
    KEPT_START, /* spaces before the value of one that does */
    KEPT_VALUE,
    VALUE_LF,
    HEAD_LF,
    /* the body */
    BODY,
    CHUNK_SIZE,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    LAST_CR,
    LAST_LF,
    /* the end */
    WHOLE,
    REFUSED,
};

enum method { GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS };

enum field { FIELD_OTHER, FIELD_HOST, FIELD_EXPECT, FIELD_LENGTH, FIELD_CODING };

/* Sets of bytes. */
#define TOKEN 1 /* tchar, RFC 9110 5.6.2 */
#define HOST  2 /* uri-host and port, RFC 3986 3.2.2, without the comma */
#define BOTH  (TOKEN | HOST)

static const uint8_t BYTE_SETS[256] = {
    ['!'] = BOTH,  ['#'] = TOKEN, ['$'] = BOTH,         ['%'] = BOTH,         ['&'] = BOTH,
    ['\''] = BOTH, ['('] = HOST,  [')'] = HOST,         ['*'] = BOTH,         ['+'] = BOTH,
    ['-'] = BOTH,  ['.'] = BOTH,  [':'] = HOST,         [';'] = HOST,         ['='] = HOST,
    ['['] = HOST,  [']'] = HOST,  ['^'] = TOKEN,        ['_'] = BOTH,         ['`'] = TOKEN,
    ['|'] = TOKEN, ['~'] = BOTH,  ['0' ... '9'] = BOTH, ['A' ... 'Z'] = BOTH, ['a' ... 'z'] = BOTH,
};

static const char NO_LF[] = "A CR in the request head is not followed by LF.";
static const char NO_VERSION[] = "The request line does not end in an HTTP version.";

static bool is_in(uint8_t set, char byte)
{
    return (BYTE_SETS[(uint8_t)byte] & set) != 0;
}

static bool is_visible(char byte)
{
    return byte > ' ' && byte < 0x7f;
}

/* Of a field value: HTAB, space, visible ASCII, and what lies above ASCII. */
static bool is_text(char byte)
{
    return ((uint8_t)byte >= ' ' && byte != 0x7f) || byte == '\t';
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t';
}

void pl_guard_init(struct pl_guard *self, const struct pl_guard_limits *limits)
{
    self->limits = limits;
    pl_guard_reset(self);
}

void pl_guard_reset(struct pl_guard *self)
{
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
}

/* ---- refusals ---- */

/* Ends the message; `at` is the byte that was one too many. */
static const char *refuse(struct pl_guard *self, const char *at, int status, const char *reason)
{
    self->state = REFUSED;
    self->status = status;
    self->reason = reason;
    return at;
}

/* As refuse, for reasons with a name or a number: written over `text`, which has no more use. */
static const char *PL_PRINTF(4, 5)
    refuse_with(struct pl_guard *self, const char *at, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(self->text, sizeof(self->text), format, args);
    va_end(args);
    return refuse(self, at, status, self->text);
}

/* For a byte that may not stand where it stands. */
static const char *refuse_byte(struct pl_guard *self, const char *at, const char *reason)
{
    if (*at == '\n') {
        reason = "A line of the request head ends in LF without CR.";
    } else if (*at == '\0') {
        reason = "The request head contains a NUL byte.";
    }
    return refuse(self, at, 400, reason);
}

/* ---- what is remembered ---- */

/* Appends to `text`; what does not fit only leaves a mark, as nothing that long can match. */
static void keep(struct pl_guard *self, const char *data, size_t len)
{
    if (len > TEXT_MAX || self->text_len + len > TEXT_MAX) {
        self->text_len = TEXT_MAX + 1;
        return;
    }
    memcpy(self->text + self->text_len, data, len);
    self->text_len = (uint8_t)(self->text_len + len);
}

static bool text_is(const struct pl_guard *self, struct pl_str expected)
{
    return self->text_len == expected.len && memcmp(self->text, expected.data, expected.len) == 0;
}

static const char *next(struct pl_guard *self, enum state state, const char *at)
{
    self->state = (uint8_t)state;
    return at;
}

/* ---- the request line ---- */

static bool find_method(struct pl_guard *self)
{
    static const char *const NAMES[] = {
        [GET] = "GET",     [HEAD] = "HEAD",     [POST] = "POST",       [PUT] = "PUT",
        [PATCH] = "PATCH", [DELETE] = "DELETE", [OPTIONS] = "OPTIONS",
    };
    for (size_t i = 0; i < PL_COUNT(NAMES); i++) {
        if (text_is(self, (struct pl_str){NAMES[i], strlen(NAMES[i])})) {
            self->method = (uint8_t)i;
            return true;
        }
    }
    return false;
}

static const char *skip_token(const char *at, const char *end)
{
    while (at < end && is_in(TOKEN, *at)) {
        at++;
    }
    return at;
}

static const char *scan_method(struct pl_guard *self, const char *start, const char *end)
{
    const char *at = skip_token(start, end);
    keep(self, start, (size_t)(at - start));
    if (at == end) {
        return at;
    }
    if (*at != ' ' || self->text_len == 0) {
        return refuse_byte(self, at, "The request line does not start with a method and a space.");
    }
    if (!find_method(self)) {
        return refuse(self, at, 405, "The request method is not supported.");
    }
    return next(self, TARGET_START, at + 1);
}

static const char *scan_target_start(struct pl_guard *self, const char *at)
{
    if (*at == '/') {
        return next(self, TARGET_ROOT, at + 1);
    }
    if (*at == '*' && self->method == OPTIONS) {
        return next(self, TARGET_STAR, at + 1);
    }
    return refuse_byte(self, at, "The request target does not start with a slash.");
}

static const char *scan_target_root(struct pl_guard *self, const char *at)
{
    if (*at == '/') {
        return refuse(self, at, 400, "The request target starts with two slashes.");
    }
    return next(self, TARGET, at);
}

static const char *end_target(struct pl_guard *self, const char *at)
{
    if (*at != ' ') {
        return refuse_byte(self, at,
                           *at == '\r' ? NO_VERSION : "The request target has a byte not allowed.");
    }
    self->text_len = 0;
    return next(self, VERSION, at + 1);
}

static const char *scan_target(struct pl_guard *self, const char *at, const char *end)
{
    while (at < end && is_visible(*at) && *at != '#') {
        at++;
    }
    return at < end ? end_target(self, at) : at;
}

static const char *end_version(struct pl_guard *self, const char *at)
{
    if (text_is(self, PL_STR("HTTP/1.1")) || text_is(self, PL_STR("HTTP/1.0"))) {
        self->minor_version = (uint8_t)(self->text[7] - '0');
        return next(self, LINE_LF, at + 1);
    }
    bool is_other = self->text_len == 8 && memcmp(self->text, "HTTP/", 5) == 0 &&
                    self->text[5] >= '0' && self->text[5] <= '9' && self->text[6] == '.' &&
                    self->text[7] >= '0' && self->text[7] <= '9';
    if (is_other) {
        return refuse(self, at, 505, "The HTTP version is neither 1.0 nor 1.1.");
    }
    return refuse(self, at, 400, NO_VERSION);
}

static const char *scan_version(struct pl_guard *self, const char *start, const char *end)
{
    const char *at = start;
    while (at < end && is_visible(*at)) {
        at++;
    }
    keep(self, start, (size_t)(at - start));
    if (at == end) {
        return at;
    }
    return *at == '\r' ? end_version(self, at) : refuse_byte(self, at, NO_VERSION);
}

/* ---- fields ---- */

static const char *scan_lf(struct pl_guard *self, const char *at)
{
    if (*at != '\n') {
        return refuse(self, at, 400, NO_LF);
    }
    return next(self, LINE_START, at + 1);
}

static const char *scan_line_start(struct pl_guard *self, const char *at)
{
    if (*at == '\r') {
        return next(self, HEAD_LF, at + 1);
    }
    if (is_space(*at)) {
        return refuse(self, at, 400,
                      "A header line starts with white space (folding is obsolete).");
    }
    if (self->header_count == self->limits->header_count) {
        return refuse_with(self, at, 431, "The request has more than %u header fields.",
                           self->limits->header_count);
    }
    self->header_count++;
    self->text_len = 0;
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
        return refuse_with(self, at, 400, "The request has more than one %s field.", name);
    }
    if (self->text_len == 0) {
        return refuse_with(self, at, 400, "The %s field is empty.", name);
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

static const char *finish(struct pl_guard *self, const char *at)
{
    self->phase = PL_GUARD_COMPLETE;
    return next(self, WHOLE, at);
}

static const char *start_body(struct pl_guard *self, enum state state, const char *at)
{
    self->phase = PL_GUARD_IN_BODY;
    self->text_len = 0;
    return next(self, state, at);
}

/* evhttp counts in signed 64 bit, whatever the configured limit is. */
static uint64_t body_limit_bytes(const struct pl_guard *self)
{
    return PL_MIN(self->limits->body_bytes, (uint64_t)INT64_MAX);
}

static const char *refuse_body_size(struct pl_guard *self, const char *at)
{
    return refuse_with(self, at, 413, "The request body is larger than %llu bytes.",
                       (unsigned long long)body_limit_bytes(self));
}

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
    /* To evhttp the body of a HEAD is the next request (evhttp_method_may_have_body). */
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
    if (self->left_bytes > body_limit_bytes(self)) {
        return refuse_body_size(self, at);
    }
    if (has_seen(self, FIELD_CODING)) {
        return start_body(self, CHUNK_SIZE, at + 1);
    }
    return self->left_bytes > 0 ? start_body(self, BODY, at + 1) : finish(self, at + 1);
}

static const char *scan_head_state(struct pl_guard *self, const char *at, const char *end)
{
    switch ((enum state)self->state) {
    case METHOD:
        return scan_method(self, at, end);
    case TARGET_START:
        return scan_target_start(self, at);
    case TARGET_ROOT:
        return scan_target_root(self, at);
    case TARGET:
        return scan_target(self, at, end);
    case TARGET_STAR:
        return end_target(self, at);
    case VERSION:
        return scan_version(self, at, end);
    case LINE_LF:
    case VALUE_LF:
        return scan_lf(self, at);
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
    default: /* HEAD_LF; scan_head lets no other state in */
        return scan_head_lf(self, at);
    }
}

static bool in_request_line(const struct pl_guard *self)
{
    return self->state <= LINE_LF;
}

static bool in_head(const struct pl_guard *self)
{
    return self->state <= HEAD_LF;
}

/* Scans the rest of the request line, or of the fields, but not past the limit that holds there:
 * the bytes behind it must not decide anything. */
static const char *scan_head(struct pl_guard *self, const char *at, const char *end)
{
    const struct pl_guard_limits *limits = self->limits;
    bool is_line = in_request_line(self);
    uint32_t limit_bytes =
        is_line ? PL_MIN(limits->request_line_bytes, limits->head_bytes) : limits->head_bytes;
    if (self->head_bytes >= limit_bytes) {
        return refuse_with(self, at, is_line ? 414 : 431, "The request %s is larger than %u bytes.",
                           is_line ? "line" : "head", limit_bytes);
    }
    size_t room = limit_bytes - self->head_bytes;
    const char *start = at;
    const char *stop = (size_t)(end - at) > room ? at + room : end;
    while (at < stop && in_head(self) && in_request_line(self) == is_line) {
        at = scan_head_state(self, at, stop);
    }
    self->head_bytes += (uint32_t)(at - start);
    return at;
}

/* ---- the body ---- */

static const char *take_body(struct pl_guard *self, const char *at, const char *end)
{
    size_t take = PL_MIN(self->left_bytes, (size_t)(end - at));
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
static const char *scan_chunk_size(struct pl_guard *self, const char *at)
{
    int digit = hex_value(*at);
    if (digit < 0) {
        return end_chunk_size(self, at);
    }
    if (self->text_len == MAX_CHUNK_DIGITS) {
        return refuse(self, at, 400, "A chunk size has more than 16 digits.");
    }
    self->text_len++;
    self->left_bytes = self->left_bytes * 16 + (uint64_t)digit;
    return at + 1;
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
    default: /* LAST_LF; scan_body lets no other state in */
        return finish(self, at + 1);
    }
}

static const char *scan_body(struct pl_guard *self, const char *at, const char *end)
{
    switch ((enum state)self->state) {
    case BODY:
        at = take_body(self, at, end);
        return self->left_bytes == 0 ? finish(self, at) : at;
    case CHUNK_SIZE:
        return scan_chunk_size(self, at);
    case CHUNK_DATA:
        at = take_body(self, at, end);
        return self->left_bytes == 0 ? next(self, CHUNK_DATA_CR, at) : at;
    default:
        return scan_framing(self, at);
    }
}

enum pl_guard_verdict pl_guard_feed(struct pl_guard *self, const char *data, size_t len,
                                    size_t *consumed_bytes)
{
    const char *at = data;
    const char *end = len > 0 ? data + len : data; /* no arithmetic on an empty span's NULL */
    if (at < end && self->phase == PL_GUARD_IDLE) {
        self->phase = PL_GUARD_IN_HEAD;
    }
    while (at < end && self->state < WHOLE) {
        at = in_head(self) ? scan_head(self, at, end) : scan_body(self, at, end);
    }
    *consumed_bytes = (size_t)(at - data);
    if (self->state == REFUSED) {
        return PL_GUARD_REFUSED;
    }
    return self->state == WHOLE ? PL_GUARD_DONE : PL_GUARD_MORE;
}
