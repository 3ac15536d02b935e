/*
 * JSON: one strict pass over an object, and strings. Edits are in json_splice.c.
 *
 * Thread: any; pure, no state but the caller's. The scan borrows the text and allocates nothing but
 * the members array, which is kept between scans. The text may be hostile:
 *
 * - No recursion: open containers are a stack of bits, PL_JSON_MAX_DEPTH deep.
 * - No read past the end: `end` bounds the pass. Only decoding relies on the pass having been there
 *   before (an escape is whole, a string ends in a quote).
 * - Duplicate keys are found by comparing each pair; PL_JSON_MAX_MEMBERS and PL_JSON_MAX_KEY_BYTES
 *   bound what that can cost.
 *
 * Functions that read take the place where they start and return the place just past what they
 * read, or NULL after a failure, which the scanner then holds. Deliberately not here: numbers are
 * checked but never converted, strings are only decoded when asked for.
 */
#include "json.h"
#include "json_internal.h"

#include <stdlib.h>
#include <string.h>

typedef const unsigned char *place;

struct scanner {
    place begin, end;
    int result; /* 0 until the first failure */
    const char *error;
    place error_at;
};

static place refuse(struct scanner *s, place at, int result, const char *error)
{
    s->result = result;
    s->error = error;
    s->error_at = at;
    return NULL;
}

/* Whatever is wanted at the end of the text, it is the end that is unexpected. */
static place fail(struct scanner *s, place at, const char *error)
{
    return refuse(s, at, PL_ERR_SYNTAX, at == s->end ? "unexpected end" : error);
}

/* An empty span may have no data, and there is no arithmetic on NULL. */
static inline place begin_of(const char *text, size_t len)
{
    return (place)(len > 0 ? text : "");
}

static struct scanner scanner_of(const char *text, size_t len)
{
    place begin = begin_of(text, len);
    return (struct scanner){.begin = begin, .end = begin + len};
}

static inline place skip_space(place p, place end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }
    return p;
}

/* ---- strings ---- */

/* Four and eight bytes of text, the first in the lowest bits. Compilers make one load of each. */
static inline uint32_t load_4(place p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t load_8(place p)
{
    return load_4(p) | (uint64_t)load_4(p + 4) << 32;
}

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

/*
 * The high bit of each byte that ends a plain run: control, quote, backslash, not ASCII. A borrow
 * can only mark bytes above a true mark, so the lowest mark is exact.
 */
static inline uint64_t mark_stops(uint64_t word)
{
    uint64_t quote = word ^ EACH_BYTE('"');
    uint64_t backslash = word ^ EACH_BYTE('\\');
    uint64_t below =
        ((word - EACH_BYTE(0x20)) | (quote - EACH_BYTE(1)) | (backslash - EACH_BYTE(1)));
    return (below | word) & EACH_BYTE(0x80);
}

static inline place skip_plain(place p, place end)
{
    while (end - p >= 8) {
        uint64_t stops = mark_stops(load_8(p));
        if (stops != 0) {
            return p + (__builtin_ctzll(stops) >> 3);
        }
        p += 8;
    }
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') {
        p++;
    }
    return p;
}

static inline bool in_range(unsigned char c, unsigned char low, unsigned char high)
{
    return c >= low && c <= high;
}

/* As load_4, with zeros for what is past the end. */
static inline uint32_t load_up_to_4(place p, place end)
{
    if (end - p >= 4) {
        return load_4(p);
    }
    uint32_t word = 0;
    for (unsigned shift = 0; p < end; shift += 8) {
        word |= (uint32_t)*p++ << shift;
    }
    return word;
}

/*
 * Bytes of the well-formed character at p, which is not ASCII; 0: broken (Unicode, table 3-7). Each
 * form is known by its marker bits; what its first bytes may not hold is an overlong form, a
 * surrogate, or a code above U+10FFFF.
 */
static inline size_t utf8_bytes(place p, place end)
{
    uint32_t word = load_up_to_4(p, end);
    if ((word & 0x00c0c0f0) == 0x008080e0) {
        uint32_t high = word & 0x200f; /* the code's bits 15 to 12 and 11 */
        return high != 0 && high != 0x200d ? 3 : 0;
    }
    if ((word & 0xc0e0) == 0x80c0) {
        return (word & 0x1e) != 0 ? 2 : 0;
    }
    if ((word & 0xc0c0c0f8) == 0x808080f0) {
        uint32_t plane = (word & 0x07) << 2 | (word >> 12 & 0x03);
        return plane >= 1 && plane <= 16 ? 4 : 0;
    }
    return 0;
}

bool pl_json_is_utf8(const char *data, size_t len)
{
    place p = begin_of(data, len);
    place end = p + len;
    while (p < end) {
        size_t bytes = *p < 0x80 ? 1 : utf8_bytes(p, end);
        if (bytes == 0) {
            return false;
        }
        p += bytes;
    }
    return true;
}

static inline place skip_utf8(struct scanner *s, place p)
{
    do {
        size_t bytes = utf8_bytes(p, s->end);
        if (bytes == 0) {
            return fail(s, p, "invalid UTF-8");
        }
        p += bytes;
    } while (p < s->end && *p >= 0x80);
    return p;
}

/* The value of a hexadecimal digit; 16 for any other byte. */
static unsigned hex_value(unsigned char c)
{
    if (in_range(c, '0', '9')) {
        return c - '0';
    }
    c |= 0x20;
    return in_range(c, 'a', 'f') ? c - 'a' + 10u : 16u;
}

static place skip_unicode_escape(struct scanner *s, place p)
{
    for (place stop = p + 4; p < stop; p++) {
        if (p == s->end || hex_value(*p) > 15) {
            return fail(s, p, "invalid \\u escape");
        }
    }
    return p;
}

/* What a backslash and this character stand for; 0: nothing, or \u. */
static const unsigned char ESCAPES[128] = {
    ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
    ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t',
};

static place skip_escape(struct scanner *s, place backslash)
{
    place p = backslash + 1;
    if (p < s->end && *p == 'u') {
        return skip_unicode_escape(s, p + 1);
    }
    if (p == s->end || *p >= 0x80 || ESCAPES[*p] == 0) {
        return fail(s, p, "invalid escape");
    }
    return p + 1;
}

/* `p` is at the opening quote. */
static place skip_string(struct scanner *s, place p)
{
    p++;
    for (;;) {
        p = skip_plain(p, s->end);
        if (p < s->end && *p == '"') {
            return p + 1;
        }
        if (p < s->end && *p == '\\') {
            p = skip_escape(s, p);
        } else if (p < s->end && *p >= 0x80) {
            p = skip_utf8(s, p);
        } else {
            return fail(s, p, "control character in a string");
        }
        if (p == NULL) {
            return NULL;
        }
    }
}

/* ---- other values ---- */

/* One digit or more. */
static inline place skip_digits(struct scanner *s, place p)
{
    if (p == s->end || !in_range(*p, '0', '9')) {
        return fail(s, p, "invalid number");
    }
    do {
        p++;
    } while (p < s->end && in_range(*p, '0', '9'));
    return p;
}

static place skip_number(struct scanner *s, place p)
{
    p += *p == '-';
    /* After a leading zero the integer ends; a digit there is met as text after the value. */
    p = p < s->end && *p == '0' ? p + 1 : skip_digits(s, p);
    if (p != NULL && p < s->end && *p == '.') {
        p = skip_digits(s, p + 1);
    }
    if (p != NULL && p < s->end && (*p | 0x20) == 'e') {
        p++;
        p += p < s->end && (*p == '+' || *p == '-');
        p = skip_digits(s, p);
    }
    return p;
}

static place skip_word(struct scanner *s, place p, const char *word)
{
    for (; *word != '\0'; word++, p++) {
        if (p == s->end || *p != (unsigned char)*word) {
            return fail(s, p, "invalid literal");
        }
    }
    return p;
}

static inline place skip_scalar(struct scanner *s, place p)
{
    switch (*p) {
    case '"':
        return skip_string(s, p);
    case 't':
        return skip_word(s, p, "true");
    case 'f':
        return skip_word(s, p, "false");
    case 'n':
        return skip_word(s, p, "null");
    default:
        if (*p == '-' || in_range(*p, '0', '9')) {
            return skip_number(s, p);
        }
        return fail(s, p, "expected a value");
    }
}

/* ---- containers ---- */

/* The open containers: one bit each, set for an object. */
struct nesting {
    uint64_t objects[PL_JSON_MAX_DEPTH / 64];
    unsigned depth;
};

static inline void push(struct nesting *nest, bool object)
{
    uint64_t bit = UINT64_C(1) << (nest->depth % 64);
    uint64_t *word = &nest->objects[nest->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    nest->depth++;
}

static inline bool in_object(const struct nesting *nest)
{
    unsigned top = nest->depth - 1;
    return (nest->objects[top / 64] >> (top % 64) & 1) != 0;
}

/* A key and its colon. `*key_end` gets the place just past the key's closing quote. */
static inline place skip_key(struct scanner *s, place p, place *key_end)
{
    if (p == s->end || *p != '"') {
        return fail(s, p, "expected a key");
    }
    p = skip_string(s, p);
    if (p == NULL) {
        return NULL;
    }
    *key_end = p;
    p = skip_space(p, s->end);
    return p < s->end && *p == ':' ? p + 1 : fail(s, p, "expected ':'");
}

/* Opens the container at p. Ends at its first value or, when it is empty, at its end. */
static place enter(struct scanner *s, place p, struct nesting *nest, bool *empty)
{
    if (nest->depth == PL_JSON_MAX_DEPTH) {
        return refuse(s, p, PL_ERR_LIMIT, "nested too deeply");
    }
    bool object = *p == '{';
    push(nest, object);
    p = skip_space(p + 1, s->end);
    *empty = p < s->end && *p == (object ? '}' : ']');
    place key_end;
    return object && !*empty ? skip_key(s, p, &key_end) : p;
}

/* After a value: closes what ends here, down to `floor` open containers, or goes to the next value.
 */
static place leave(struct scanner *s, place p, struct nesting *nest, unsigned floor)
{
    while (nest->depth > floor) {
        bool object = in_object(nest);
        p = skip_space(p, s->end);
        if (p < s->end && *p == ',') {
            place key_end;
            return object ? skip_key(s, skip_space(p + 1, s->end), &key_end) : p + 1;
        }
        if (p == s->end || *p != (object ? '}' : ']')) {
            return fail(s, p, object ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        p++;
        nest->depth--;
    }
    return p;
}

/* A value of any type, `depth` containers being open around it; white space may precede it. */
static place skip_value(struct scanner *s, place p, unsigned depth)
{
    struct nesting nest = {.depth = depth};
    do {
        bool empty = true; /* no value follows inside */
        p = skip_space(p, s->end);
        if (p < s->end && (*p == '{' || *p == '[')) {
            p = enter(s, p, &nest, &empty);
        } else {
            p = p < s->end ? skip_scalar(s, p) : fail(s, p, NULL);
        }
        if (p != NULL && empty) {
            p = leave(s, p, &nest, depth);
        }
    } while (p != NULL && nest.depth > depth);
    return p;
}

static place skip_trailing_space(struct scanner *s, place p)
{
    p = skip_space(p, s->end);
    return p == s->end ? p : fail(s, p, "text after the value");
}

int pl_json_validate_inside(const char *text, size_t len, unsigned depth)
{
    struct scanner s = scanner_of(text, len);
    place p = skip_value(&s, s.begin, depth);
    if (p != NULL) {
        p = skip_trailing_space(&s, p);
    }
    return s.result;
}

int pl_json_validate(const char *text, size_t len)
{
    return pl_json_validate_inside(text, len, 0);
}

/* ---- decoding and encoding of strings ---- */

static uint32_t hex4(place p)
{
    return hex_value(p[0]) << 12 | hex_value(p[1]) << 8 | hex_value(p[2]) << 4 | hex_value(p[3]);
}

static bool is_surrogate(uint32_t code)
{
    return code >= 0xd800 && code <= 0xdfff;
}

/* The \u escape at p, or the pair of them. A lone surrogate comes out as itself. */
static place decode_unicode(place p, uint32_t *code)
{
    *code = hex4(p + 2);
    p += 6;
    /* p[0] exists: at least the closing quote is there. */
    if (*code >= 0xd800 && *code < 0xdc00 && p[0] == '\\' && p[1] == 'u') {
        uint32_t low = hex4(p + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
    }
    return p;
}

static place decode_escape(place p, uint32_t *code)
{
    if (p[1] == 'u') {
        return decode_unicode(p, code);
    }
    *code = ESCAPES[p[1]];
    return p + 2;
}

static size_t put_utf8(uint32_t code, unsigned char out[4])
{
    if (code < 0x80) {
        out[0] = (unsigned char)code;
        return 1;
    }
    size_t bytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i > 0; i--, code >>= 6) {
        out[i] = (unsigned char)(0x80 | (code & 0x3f));
    }
    static const unsigned char LEADS[] = {[2] = 0xc0, [3] = 0xe0, [4] = 0xf0};
    out[0] = (unsigned char)(LEADS[bytes] | code);
    return bytes;
}

/*
 * Decodes what stands between two quotes, and has been scanned, into `out`, which has room for as
 * many bytes: no escape is shorter than what it stands for. False at a lone surrogate.
 */
static bool decode_into(char *out, place p, place end, size_t *len)
{
    char *start = out;
    while (p < end) {
        place backslash = memchr(p, '\\', (size_t)(end - p));
        size_t run = (size_t)((backslash != NULL ? backslash : end) - p);
        memcpy(out, p, run);
        out += run;
        p += run;
        if (p < end) {
            uint32_t code;
            p = decode_escape(p, &code);
            if (is_surrogate(code)) {
                return false;
            }
            out += put_utf8(code, (unsigned char *)out);
        }
    }
    *len = (size_t)(out - start);
    return true;
}

char *pl_json_decode_string(const char *literal, size_t literal_len, size_t *len)
{
    struct scanner s = scanner_of(literal, literal_len);
    if (literal_len == 0 || *literal != '"' || skip_string(&s, s.begin) != s.end) {
        return NULL;
    }
    char *decoded = pl_xmalloc(literal_len);
    if (!decode_into(decoded, s.begin + 1, s.end - 1, len)) {
        free(decoded);
        return NULL;
    }
    decoded[*len] = '\0';
    return decoded;
}

/* The escape of one control byte, quote or backslash, into `out`. */
static size_t put_escape(unsigned char c, char out[6])
{
    static const char SHORT[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                 ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
    static const char DIGITS[] = "0123456789abcdef";
    out[0] = '\\';
    if (SHORT[c] != '\0') {
        out[1] = SHORT[c];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = DIGITS[c >> 4];
    out[5] = DIGITS[c & 15];
    return 6;
}

size_t pl_json_encode_into(char *out, const char *data, size_t len)
{
    place p = begin_of(data, len);
    place end = p + len;
    size_t used = 0;
    out[used++] = '"';
    while (p < end) {
        place run = p;
        p = skip_plain(p, end);
        size_t bytes = 0;
        while (p < end && *p >= 0x80 && (bytes = utf8_bytes(p, end)) > 0) {
            p += bytes;
        }
        memcpy(out + used, run, (size_t)(p - run));
        used += (size_t)(p - run);
        if (p < end && *p >= 0x80) {
            memcpy(out + used, "\xef\xbf\xbd", 3); /* U+FFFD, one for each byte that fits nowhere */
            used += 3;
            p++;
        } else if (p < end && (*p < 0x20 || *p == '"' || *p == '\\')) {
            used += put_escape(*p++, out + used);
        }
    }
    out[used++] = '"';
    return used;
}

char *pl_json_encode_string(const char *data, size_t data_len, size_t *len)
{
    char *literal = pl_xmalloc(PL_JSON_ENCODED_MAX(data_len) + 1);
    *len = pl_json_encode_into(literal, data, data_len);
    literal[*len] = '\0';
    return pl_xrealloc(literal, *len + 1);
}

/* ---- keys ---- */

/* Decodes the key into `buffer`, unless it stands decoded in the text. False at a lone surrogate.
 */
static inline bool decode_key(const char *text, const struct pl_json_member *member,
                              char buffer[PL_JSON_MAX_KEY_BYTES], struct pl_str *key)
{
    *key = (struct pl_str){text + member->key_start, member->key_len};
    if (!member->key_has_escape) {
        return true;
    }
    place raw = (place)key->data;
    key->data = buffer;
    return decode_into(buffer, raw, raw + member->key_len, &key->len);
}

const struct pl_json_member *pl_json_find(const struct pl_json *self, struct pl_str key)
{
    char buffer[PL_JSON_MAX_KEY_BYTES];
    for (size_t i = 0; i < self->count; i++) {
        const struct pl_json_member *member = &self->members[i];
        struct pl_str decoded;
        if (decode_key(self->text, member, buffer, &decoded) && decoded.len == key.len &&
            pl_str_equal(decoded, key)) {
            return member;
        }
    }
    return NULL;
}

/* ---- the scan ---- */

void pl_json_init(struct pl_json *self)
{
    *self = (struct pl_json){0};
}

void pl_json_deinit(struct pl_json *self)
{
    free(self->members);
    pl_json_init(self);
}

static enum pl_json_type type_of(unsigned char first)
{
    static const char FIRSTS[] = {
        [PL_JSON_NULL] = 'n',   [PL_JSON_FALSE] = 'f',  [PL_JSON_TRUE] = 't',
        [PL_JSON_NUMBER] = '-', [PL_JSON_STRING] = '"', [PL_JSON_ARRAY] = '[',
        [PL_JSON_OBJECT] = '{',
    };
    const char *at = memchr(FIRSTS, first, sizeof(FIRSTS));
    return at != NULL ? (enum pl_json_type)(at - FIRSTS) : PL_JSON_NUMBER;
}

static struct pl_json_member *add_member(struct pl_json *self)
{
    if (self->count == self->cap) {
        self->cap = self->cap == 0 ? 16 : 2 * self->cap;
        self->members = pl_xrealloc(self->members, self->cap * sizeof(self->members[0]));
    }
    return &self->members[self->count];
}

/* Whether the key of `added`, the member after the last, can be told from all others. */
static bool check_key(const struct pl_json *self, struct scanner *s, struct pl_json_member *added)
{
    place at = s->begin + added->key_start;
    char buffer[PL_JSON_MAX_KEY_BYTES];
    struct pl_str key;
    if (added->key_len > PL_JSON_MAX_KEY_BYTES) {
        return refuse(s, at, PL_ERR_LIMIT, "key too long") != NULL;
    }
    added->key_has_escape = memchr(at, '\\', added->key_len) != NULL;
    if (!decode_key(self->text, added, buffer, &key)) {
        return fail(s, at, "lone surrogate in a key") != NULL;
    }
    if (pl_json_find(self, key) != NULL) {
        return fail(s, at, "duplicate key") != NULL;
    }
    return true;
}

/* One member; p is at its key. */
static place scan_member(struct pl_json *self, struct scanner *s, place p)
{
    if (self->count == PL_JSON_MAX_MEMBERS) {
        return refuse(s, p, PL_ERR_LIMIT, "too many members");
    }
    struct pl_json_member *member = add_member(self);
    place key_end;
    place value = skip_key(s, p, &key_end);
    if (value == NULL) {
        return NULL;
    }
    member->start = (size_t)(p - s->begin);
    member->key_start = member->start + 1;
    member->key_len = (size_t)(key_end - p) - 2;
    if (!check_key(self, s, member)) {
        return NULL;
    }
    value = skip_space(value, s->end);
    place end = skip_value(s, value, 1);
    if (end == NULL) {
        return NULL;
    }
    member->value_start = (size_t)(value - s->begin);
    member->value_len = (size_t)(end - value);
    member->end = (size_t)(end - s->begin);
    member->type = type_of(*value);
    self->count++;
    return end;
}

/* The members and the closing brace; p is just past the opening one. */
static place scan_members(struct pl_json *self, struct scanner *s, place p)
{
    p = skip_space(p, s->end);
    if (p < s->end && *p == '}') {
        return p + 1;
    }
    for (;;) {
        p = scan_member(self, s, p);
        if (p == NULL) {
            return NULL;
        }
        p = skip_space(p, s->end);
        if (p < s->end && *p == '}') {
            return p + 1;
        }
        if (p == s->end || *p != ',') {
            return fail(s, p, "expected ',' or '}'");
        }
        p = skip_space(p + 1, s->end);
    }
}

static place scan_object(struct pl_json *self, struct scanner *s)
{
    place p = skip_space(s->begin, s->end);
    if (p == s->end || *p != '{') {
        return fail(s, p, "expected an object");
    }
    self->open = (size_t)(p - s->begin);
    p = scan_members(self, s, p + 1);
    if (p == NULL) {
        return NULL;
    }
    self->close = (size_t)(p - s->begin) - 1;
    return skip_trailing_space(s, p);
}

int pl_json_scan(struct pl_json *self, const char *text, size_t len)
{
    struct scanner s = scanner_of(text, len);
    *self =
        (struct pl_json){.text = text, .text_len = len, .members = self->members, .cap = self->cap};
    if (scan_object(self, &s) == NULL) {
        self->count = 0; /* nothing of a broken text is to be found */
        self->error = s.error;
        self->error_offset = (size_t)(s.error_at - s.begin);
    }
    return s.result;
}
