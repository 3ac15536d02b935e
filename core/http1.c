/*
 * HTTP/1.1 as a client reads it: see http1.h.
 *
 * Pure, any thread, no I/O. A head is parsed in one go once its end is in sight; until then every
 * call only looks at the bytes that are new, and refuses at once what can never become a head, so
 * that a peer that speaks another protocol is not waited for. The chunked decoder is a state
 * machine over single bytes, but for body bytes, which are handed out as they lie.
 *
 * Deliberately not done: joining folded lines, guessing at a broken framing. A response that could
 * be read in two ways is refused; a wrong guess would give its rest to the next request.
 */
#include "http1.h"

#include <string.h>

#define MAX_LINE_BYTES     8192 /* of a chunk's size line, and of all trailers together */
#define MAX_SIZE_DIGITS    16
#define MAX_LENGTH_DIGITS  19
#define STATUS_LINE_PREFIX "HTTP/1."

void pl_response_head_init(struct pl_response_head *self)
{
    memset(self, 0, sizeof(*self));
    pl_headers_init(&self->headers);
}

void pl_response_head_deinit(struct pl_response_head *self)
{
    pl_headers_deinit(&self->headers);
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static struct pl_str trim(struct pl_str text)
{
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

/* ---- the end of the head ---- */

/*
 * Looks for the empty line. Returns the size of the head with it, 0 when it is not there yet, or an
 * error as soon as a line ends in a bare LF or the limit is passed.
 */
static long find_head_end(struct pl_response_head *self, const char *data, size_t len)
{
    size_t window = PL_MIN(len, (size_t)PL_HTTP1_MAX_HEAD_BYTES);
    size_t at = self->searched_bytes <= window ? self->searched_bytes : 0;
    const char *lf;
    while (at < window && (lf = memchr(data + at, '\n', window - at)) != NULL) {
        size_t index = (size_t)(lf - data);
        if (index == 0 || lf[-1] != '\r') {
            return PL_ERR_SYNTAX;
        }
        at = index + 1;
        if (index >= 3 && memcmp(lf - 3, "\r\n\r\n", 4) == 0) {
            return (long)at;
        }
    }
    self->searched_bytes = window;
    return window == PL_HTTP1_MAX_HEAD_BYTES ? PL_ERR_LIMIT : 0;
}

static bool may_be_status_line(const char *data, size_t len)
{
    return memcmp(data, STATUS_LINE_PREFIX, PL_MIN(len, sizeof(STATUS_LINE_PREFIX) - 1)) == 0;
}

/* ---- lines ---- */

/* "HTTP/1.1 200 OK". RFC 9112 4 wants the space after the code; servers that leave it out with the
 * reason are common enough, and nothing else can be meant. */
static int parse_status_line(struct pl_response_head *self, struct pl_str line)
{
    const char *at = line.data;
    if (line.len < 12 || at[7] < '0' || at[7] > '1' || at[8] != ' ' || !is_digit(at[9]) ||
        !is_digit(at[10]) || !is_digit(at[11]) || (line.len > 12 && at[12] != ' ')) {
        return PL_ERR_SYNTAX;
    }
    self->minor_version = at[7] - '0';
    self->status = (at[9] - '0') * 100 + (at[10] - '0') * 10 + (at[11] - '0');
    if (self->status < 100 || self->status > 599 || self->status == 101) {
        return PL_ERR_SYNTAX;
    }
    struct pl_str reason = {at + 12, line.len - 12};
    return pl_header_value_is_valid(reason) ? PL_OK : PL_ERR_SYNTAX;
}

static int parse_field(struct pl_response_head *self, struct pl_str line)
{
    const char *colon = memchr(line.data, ':', line.len);
    if (colon == NULL) {
        return PL_ERR_SYNTAX;
    }
    if (self->headers.count == PL_HTTP1_MAX_HEADERS) {
        return PL_ERR_LIMIT;
    }
    struct pl_str name = {line.data, (size_t)(colon - line.data)};
    struct pl_str value = {colon + 1, line.len - name.len - 1};
    /* The list takes tokens only: folded lines and spaces before the colon end here. */
    return pl_headers_add(&self->headers, name, trim(value));
}

static int parse_lines(struct pl_response_head *self, const char *data, size_t head_bytes)
{
    const char *line = data;
    const char *end = data + head_bytes - 2; /* where the empty line stands */
    while (line < end) {
        const char *lf = memchr(line, '\n', (size_t)(end - line));
        struct pl_str text = {line, (size_t)(lf - line) - 1};
        int err = line == data ? parse_status_line(self, text) : parse_field(self, text);
        if (err != PL_OK) {
            return err;
        }
        line = lf + 1;
    }
    return PL_OK;
}

/* ---- framing ---- */

/* One member of a Content-Length. Values above INT64_MAX are refused like other nonsense. */
static int parse_length(struct pl_str text, uint64_t *out_bytes)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > MAX_LENGTH_DIGITS) {
        return PL_ERR_SYNTAX;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.data[i])) {
            return PL_ERR_SYNTAX;
        }
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out_bytes = value;
    return value <= INT64_MAX ? PL_OK : PL_ERR_SYNTAX;
}

/* Reads "5" or "5, 5"; every member must agree with those read before (RFC 9110 8.6). */
static int take_length(struct pl_response_head *self, struct pl_str value, bool *seen)
{
    for (;;) {
        const char *comma = value.len > 0 ? memchr(value.data, ',', value.len) : NULL;
        size_t part_len = comma != NULL ? (size_t)(comma - value.data) : value.len;
        uint64_t bytes = 0;
        int err = parse_length(trim((struct pl_str){value.data, part_len}), &bytes);
        if (err != PL_OK) {
            return err;
        }
        if (*seen && bytes != self->content_length_bytes) {
            return PL_ERR_SYNTAX;
        }
        *seen = true;
        self->content_length_bytes = bytes;
        if (comma == NULL) {
            return PL_OK;
        }
        value.data += part_len + 1;
        value.len -= part_len + 1;
    }
}

/* What the fields say about the body and the connection, whatever the status. */
struct framing_fields {
    bool has_length, has_coding;
    bool lists_close, lists_keep_alive;
};

static int take_coding(struct framing_fields *fields, struct pl_str value)
{
    if (fields->has_coding || !pl_str_equal_nocase(value, PL_STR("chunked"))) {
        return PL_ERR_SYNTAX;
    }
    fields->has_coding = true;
    return PL_OK;
}

/* Compares the lengths first, which spares most names the call. */
static bool name_is(struct pl_str name, struct pl_str expected)
{
    return name.len == expected.len && pl_str_equal_nocase(name, expected);
}

static int take_framing_field(struct pl_response_head *self, struct framing_fields *fields,
                              struct pl_str name, struct pl_str value)
{
    if (name_is(name, PL_STR("content-length"))) {
        return take_length(self, value, &fields->has_length);
    }
    if (name_is(name, PL_STR("transfer-encoding"))) {
        return take_coding(fields, value);
    }
    if (name_is(name, PL_STR("connection"))) {
        fields->lists_close |= pl_header_lists_token(value, PL_STR("close"));
        fields->lists_keep_alive |= pl_header_lists_token(value, PL_STR("keep-alive"));
    }
    return PL_OK;
}

static int find_framing_fields(struct pl_response_head *self, struct framing_fields *fields)
{
    for (size_t i = 0; i < self->headers.count; i++) {
        int err = take_framing_field(self, fields, pl_headers_name(&self->headers, i),
                                     pl_headers_value(&self->headers, i));
        if (err != PL_OK) {
            return err;
        }
    }
    /* RFC 9112 6.1: both together, or a coding in HTTP/1.0, is an attack or a fault. */
    bool contradicts = fields->has_coding && (fields->has_length || self->minor_version == 0);
    return contradicts ? PL_ERR_SYNTAX : PL_OK;
}

/* RFC 9112 6.3. */
static enum pl_framing choose_framing(const struct pl_response_head *self,
                                      const struct framing_fields *fields, bool is_head_request)
{
    if (is_head_request || self->status < 200 || self->status == 204 || self->status == 304) {
        return PL_FRAMING_NONE;
    }
    if (fields->has_coding) {
        return PL_FRAMING_CHUNKED;
    }
    return fields->has_length ? PL_FRAMING_LENGTH : PL_FRAMING_EOF;
}

static bool may_keep_alive(const struct pl_response_head *self, const struct framing_fields *fields)
{
    if (fields->lists_close || self->framing == PL_FRAMING_EOF) {
        return false;
    }
    /* A server that announces a body where none may be could well send it. */
    bool never_has_body = self->status < 200 || self->status == 204;
    if (never_has_body && (fields->has_coding || self->content_length_bytes > 0)) {
        return false;
    }
    return self->minor_version == 1 || fields->lists_keep_alive;
}

static int decide_framing(struct pl_response_head *self, bool is_head_request)
{
    struct framing_fields fields = {false, false, false, false};
    int err = find_framing_fields(self, &fields);
    if (err == PL_OK) {
        self->framing = choose_framing(self, &fields, is_head_request);
        self->keep_alive = may_keep_alive(self, &fields);
    }
    return err;
}

static long parse_whole(struct pl_response_head *self, const char *data, size_t head_bytes,
                        bool is_head_request)
{
    pl_headers_clear(&self->headers);
    self->content_length_bytes = 0;
    int err = parse_lines(self, data, head_bytes);
    if (err == PL_OK) {
        err = decide_framing(self, is_head_request);
    }
    return err == PL_OK ? (long)head_bytes : err;
}

long pl_response_head_parse(struct pl_response_head *self, const char *data, size_t len,
                            bool is_head_request)
{
    if (len == 0) {
        return 0;
    }
    long result = PL_ERR_SYNTAX;
    if (may_be_status_line(data, len)) {
        result = find_head_end(self, data, len);
        if (result > 0) {
            result = parse_whole(self, data, (size_t)result, is_head_request);
        }
    }
    if (result != 0) {
        self->searched_bytes = 0;
    }
    return result;
}

/* ---- the chunked coding ---- */

enum chunked_state {
    CHUNK_SIZE,       /* the digits */
    CHUNK_SPACE,      /* white space behind them */
    CHUNK_EXTENSION,  /* from ';' to the end of the line */
    CHUNK_SIZE_LF,    /* the LF of the size line */
    CHUNK_DATA,       /* body bytes */
    CHUNK_DATA_CR,    /* the line end behind the body bytes */
    CHUNK_DATA_LF,    /* its LF */
    TRAILER_START,    /* first byte of a trailer line, or of the empty line */
    TRAILER_NAME,     /* second byte of a name, up to the colon */
    TRAILER_VALUE,    /* up to the CR */
    TRAILER_VALUE_LF, /* its LF */
    LAST_LF,          /* the LF of the empty line */
};

void pl_chunked_init(struct pl_chunked *self)
{
    memset(self, 0, sizeof(*self));
}

static int hex_value(char byte)
{
    if (is_digit(byte)) {
        return byte - '0';
    }
    char lower = (char)(byte | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static int go(struct pl_chunked *self, enum chunked_state state)
{
    self->state = (int)state;
    return PL_OK;
}

/* White space behind the size is not in the grammar, but old servers pad with it. */
static int end_of_size(struct pl_chunked *self, char byte)
{
    if (self->digit_count == 0) {
        return PL_ERR_SYNTAX;
    }
    switch (byte) {
    case '\r':
        return go(self, CHUNK_SIZE_LF);
    case ';':
        return go(self, CHUNK_EXTENSION);
    case ' ':
    case '\t':
        return go(self, CHUNK_SPACE);
    default:
        return PL_ERR_SYNTAX;
    }
}

static int take_size(struct pl_chunked *self, char byte)
{
    int digit = hex_value(byte);
    if (digit < 0) {
        return end_of_size(self, byte);
    }
    if (self->digit_count == MAX_SIZE_DIGITS) {
        return PL_ERR_SYNTAX;
    }
    self->digit_count++;
    self->left_bytes = self->left_bytes * 16 + (uint64_t)digit;
    return self->left_bytes <= INT64_MAX ? PL_OK : PL_ERR_LIMIT;
}

/* Text up to a CR: an extension or a trailer's value. */
static int take_text(struct pl_chunked *self, char byte, enum chunked_state after)
{
    if (byte == '\r') {
        return go(self, after);
    }
    return pl_header_value_is_valid((struct pl_str){&byte, 1}) ? PL_OK : PL_ERR_SYNTAX;
}

static int take_name(struct pl_chunked *self, char byte)
{
    if (byte == ':' && self->state == TRAILER_NAME) {
        return go(self, TRAILER_VALUE);
    }
    bool fits = pl_header_name_is_valid((struct pl_str){&byte, 1});
    return fits ? go(self, TRAILER_NAME) : PL_ERR_SYNTAX;
}

static int start_chunk(struct pl_chunked *self)
{
    self->line_bytes = 0;
    return go(self, self->left_bytes > 0 ? CHUNK_DATA : TRAILER_START);
}

static int end_chunk(struct pl_chunked *self)
{
    pl_chunked_init(self);
    return PL_OK;
}

static int finish(struct pl_chunked *self)
{
    self->done = true;
    return PL_OK;
}

/* One byte of framing. */
static int take_framing(struct pl_chunked *self, char byte)
{
    if (++self->line_bytes > MAX_LINE_BYTES) {
        return PL_ERR_LIMIT;
    }
    switch ((enum chunked_state)self->state) {
    case CHUNK_SIZE:
        return take_size(self, byte);
    case CHUNK_SPACE:
        return end_of_size(self, byte);
    case CHUNK_EXTENSION:
        return take_text(self, byte, CHUNK_SIZE_LF);
    case CHUNK_SIZE_LF:
        return byte == '\n' ? start_chunk(self) : PL_ERR_SYNTAX;
    case CHUNK_DATA_CR:
        return byte == '\r' ? go(self, CHUNK_DATA_LF) : PL_ERR_SYNTAX;
    case CHUNK_DATA_LF:
        return byte == '\n' ? end_chunk(self) : PL_ERR_SYNTAX;
    case TRAILER_START:
        return byte == '\r' ? go(self, LAST_LF) : take_name(self, byte);
    case TRAILER_NAME:
        return take_name(self, byte);
    case TRAILER_VALUE:
        return take_text(self, byte, TRAILER_VALUE_LF);
    case TRAILER_VALUE_LF:
        return byte == '\n' ? go(self, TRAILER_START) : PL_ERR_SYNTAX;
    default: /* LAST_LF; the caller takes CHUNK_DATA itself */
        return byte == '\n' ? finish(self) : PL_ERR_SYNTAX;
    }
}

long pl_chunked_next(struct pl_chunked *self, const char *data, size_t len, struct pl_str *body)
{
    size_t used = 0;
    *body = (struct pl_str){data, 0};
    while (used < len && !self->done && self->state != CHUNK_DATA) {
        int err = take_framing(self, data[used]);
        if (err != PL_OK) {
            return err;
        }
        used++;
    }
    if (used < len && !self->done) {
        size_t take = PL_MIN(self->left_bytes, len - used);
        *body = (struct pl_str){data + used, take};
        used += take;
        self->left_bytes -= take;
        if (self->left_bytes == 0) {
            go(self, CHUNK_DATA_CR);
        }
    }
    return (long)used;
}
