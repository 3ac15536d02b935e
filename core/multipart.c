/*
 * Multipart: one pass over a multipart/form-data body, for the place of one field's value.
 *
 * Thread: any; pure, allocates nothing, borrows the body. The reader behind us decides by its own
 * reading of the same bytes, and readers of this format differ much; so what two of them could read
 * differently is refused, even where RFC 2046 allows it:
 *
 * - Lines end in CRLF. A delimiter after a bare LF or CR is refused, not taken as content.
 * - Nothing stands before the first delimiter or after the last, but for one CRLF; a delimiter is
 *   followed by CRLF or "--" at once, without padding.
 * - Heads have no folded lines, one Content-Disposition of type form-data with a name, no parameter
 *   twice. Escapes in names, and escaped quotes anywhere, are refused: browsers do not write them
 *   and many readers do not undo them (RFC 7578 4.2).
 * - Whether the field itself is a file, and is not encoded, must be beyond doubt.
 *
 * Deliberately not done: parts inside parts, character sets, decoding of any kind.
 */
#include "multipart.h"

#include <string.h>

#define BOUNDARY_MAX_BYTES 70
#define HEAD_MAX_BYTES     8192 /* of one part */

/* ---- grammar of header values: RFC 9110 5.6 ---- */

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static void drop(struct pl_str *rest, size_t count)
{
    rest->data += count;
    rest->len -= count;
}

static void drop_space(struct pl_str *rest)
{
    while (rest->len > 0 && is_one_of(rest->data[0], " \t")) {
        drop(rest, 1);
    }
}

static bool take_char(struct pl_str *rest, char c)
{
    if (rest->len == 0 || rest->data[0] != c) {
        return false;
    }
    drop(rest, 1);
    return true;
}

/* Empty when there is none. */
static struct pl_str take_token(struct pl_str *rest)
{
    struct pl_str token = {rest->data, 0};
    while (rest->len > 0 &&
           (is_alnum(rest->data[0]) || is_one_of(rest->data[0], "!#$%&'*+-.^_`|~"))) {
        drop(rest, 1);
        token.len++;
    }
    return token;
}

/*
 * What stands between two quotes, as written; the first one is already taken. An escaped quote is
 * refused: readers that know no escapes end the string there.
 */
static int take_quoted(struct pl_str *rest, struct pl_str *value)
{
    *value = (struct pl_str){rest->data, 0};
    while (!take_char(rest, '"')) {
        size_t count = rest->len >= 2 && rest->data[0] == '\\' ? 2 : 1;
        if (rest->len < count || (count == 2 && rest->data[1] == '"')) {
            return PL_ERR_SYNTAX;
        }
        drop(rest, count);
        value->len += count;
    }
    return PL_OK;
}

struct parameter {
    struct pl_str name, value;
};

/* The next of *( OWS ";" OWS [ parameter ] ). PL_ERR_ABSENT at the end. */
static int take_parameter(struct pl_str *rest, struct parameter *out)
{
    do {
        drop_space(rest);
        if (rest->len == 0) {
            return PL_ERR_ABSENT;
        }
        if (!take_char(rest, ';')) {
            return PL_ERR_SYNTAX;
        }
        drop_space(rest);
    } while (rest->len == 0 || rest->data[0] == ';');
    out->name = take_token(rest);
    if (out->name.len == 0 || !take_char(rest, '=')) {
        return PL_ERR_SYNTAX;
    }
    if (take_char(rest, '"')) {
        return take_quoted(rest, &out->value);
    }
    out->value = take_token(rest);
    return out->value.len > 0 ? PL_OK : PL_ERR_SYNTAX;
}

/* ---- the boundary ---- */

/* RFC 2046 5.1.1: up to 70 characters that no mail gateway mangles, the last not a space. */
static bool is_boundary(struct pl_str text)
{
    if (text.len == 0 || text.len > BOUNDARY_MAX_BYTES || text.data[text.len - 1] == ' ') {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (!is_alnum(text.data[i]) && !is_one_of(text.data[i], "'()+_,-./:=? ")) {
            return false;
        }
    }
    return true;
}

int pl_multipart_boundary(struct pl_str content_type, char out[71], size_t *out_len)
{
    struct pl_str rest = content_type;
    drop_space(&rest);
    struct pl_str type = take_token(&rest);
    if (!take_char(&rest, '/') || !pl_str_equal_nocase(type, PL_STR("multipart")) ||
        !pl_str_equal_nocase(take_token(&rest), PL_STR("form-data"))) {
        return PL_ERR_ABSENT;
    }
    struct pl_str boundary = {NULL, 0};
    struct parameter parameter;
    int result;
    while ((result = take_parameter(&rest, &parameter)) == PL_OK) {
        if (!pl_str_equal_nocase(parameter.name, PL_STR("boundary"))) {
            continue;
        }
        if (boundary.data != NULL) {
            return PL_ERR_SYNTAX;
        }
        boundary = parameter.value;
    }
    if (result != PL_ERR_ABSENT || !is_boundary(boundary)) {
        return PL_ERR_SYNTAX;
    }
    memcpy(out, boundary.data, boundary.len);
    out[boundary.len] = '\0';
    *out_len = boundary.len;
    return PL_OK;
}

/* ---- the head of a part ---- */

struct form {
    const char *body, *end;
    const char *p;                              /* what is before it has been read */
    char dash_boundary[2 + BOUNDARY_MAX_BYTES]; /* a delimiter without its line feed */
    size_t dash_boundary_len;
    const char *error;
};

struct part {
    struct pl_str name, filename; /* data is NULL when absent */
    bool has_disposition;
    bool has_extended_filename; /* filename*: read by some, passed over by others */
    bool is_encoded;
    size_t value_start, value_len;
};

static int refuse(struct form *form, int result, const char *error)
{
    form->error = error;
    return result;
}

static int set_once(struct form *form, struct pl_str *slot, struct pl_str value)
{
    if (slot->data != NULL) {
        return refuse(form, PL_ERR_SYNTAX, "a part has a parameter twice");
    }
    *slot = value;
    return PL_OK;
}

static int read_disposition_parameter(struct form *form, struct part *part,
                                      const struct parameter *parameter)
{
    if (pl_str_equal_nocase(parameter->name, PL_STR("name"))) {
        if (memchr(parameter->value.data, '\\', parameter->value.len) != NULL) {
            return refuse(form, PL_ERR_SYNTAX, "a part's name has an escape");
        }
        return set_once(form, &part->name, parameter->value);
    }
    if (pl_str_equal_nocase(parameter->name, PL_STR("filename"))) {
        return set_once(form, &part->filename, parameter->value);
    }
    if (pl_str_equal_nocase(parameter->name, PL_STR("filename*"))) {
        part->has_extended_filename = true;
    } else if (memchr(parameter->name.data, '*', parameter->name.len) != NULL) {
        return refuse(form, PL_ERR_SYNTAX, "a part has an extended parameter"); /* RFC 2231 */
    }
    return PL_OK;
}

static int read_disposition(struct form *form, struct part *part, struct pl_str value)
{
    if (part->has_disposition) {
        return refuse(form, PL_ERR_SYNTAX, "a part has two Content-Disposition fields");
    }
    part->has_disposition = true;
    if (!pl_str_equal_nocase(take_token(&value), PL_STR("form-data"))) {
        return refuse(form, PL_ERR_SYNTAX, "a part's disposition is not form-data");
    }
    struct parameter parameter;
    int result;
    while ((result = take_parameter(&value, &parameter)) == PL_OK) {
        result = read_disposition_parameter(form, part, &parameter);
        if (result != PL_OK) {
            return result;
        }
    }
    return result == PL_ERR_ABSENT
               ? PL_OK
               : refuse(form, PL_ERR_SYNTAX, "a part's Content-Disposition is broken");
}

static bool is_identity_encoding(struct pl_str value)
{
    return pl_str_equal_nocase(value, PL_STR("7bit")) ||
           pl_str_equal_nocase(value, PL_STR("8bit")) ||
           pl_str_equal_nocase(value, PL_STR("binary"));
}

static bool is_header_value(struct pl_str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

/* One line without its CRLF. A folded line has no name; one that begins like a delimiter is none.
 */
static int read_header(struct form *form, struct part *part, struct pl_str line)
{
    bool dashes = line.len >= 2 && memcmp(line.data, "--", 2) == 0;
    struct pl_str name = take_token(&line);
    if (dashes || name.len == 0 || !take_char(&line, ':') || !is_header_value(line)) {
        return refuse(form, PL_ERR_SYNTAX, "a part's head has a broken line");
    }
    drop_space(&line);
    while (line.len > 0 && is_one_of(line.data[line.len - 1], " \t")) {
        line.len--;
    }
    if (pl_str_equal_nocase(name, PL_STR("content-disposition"))) {
        return read_disposition(form, part, line);
    }
    if (pl_str_equal_nocase(name, PL_STR("content-transfer-encoding"))) {
        part->is_encoded = part->is_encoded || !is_identity_encoding(line);
    }
    return PL_OK;
}

static int take_line(struct form *form, const char *head_end, struct pl_str *line)
{
    const char *feed = memchr(form->p, '\n', (size_t)(head_end - form->p));
    if (feed == NULL) {
        return head_end < form->end ? refuse(form, PL_ERR_LIMIT, "a part's head is too long")
                                    : refuse(form, PL_ERR_SYNTAX, "a part's head does not end");
    }
    if (feed == form->p || feed[-1] != '\r') {
        return refuse(form, PL_ERR_SYNTAX, "a part's head has a line that does not end in CRLF");
    }
    *line = (struct pl_str){form->p, (size_t)(feed - form->p) - 1};
    form->p = feed + 1;
    return PL_OK;
}

static int read_head(struct form *form, struct part *part)
{
    size_t left = (size_t)(form->end - form->p);
    const char *head_end = form->p + PL_MIN(left, (size_t)HEAD_MAX_BYTES);
    struct pl_str line;
    int result;
    while ((result = take_line(form, head_end, &line)) == PL_OK && line.len > 0) {
        result = read_header(form, part, line);
        if (result != PL_OK) {
            return result;
        }
    }
    if (result == PL_OK && part->name.data == NULL) {
        return refuse(form, PL_ERR_SYNTAX, "a part has no name");
    }
    return result;
}

/* ---- delimiters and parts ---- */

static bool starts_with(const struct form *form, const char *prefix, size_t len)
{
    return (size_t)(form->end - form->p) >= len && memcmp(form->p, prefix, len) == 0;
}

static bool at_dash_boundary(const struct form *form)
{
    return starts_with(form, form->dash_boundary, form->dash_boundary_len);
}

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

/* Eight bytes, the first in the lowest bits. */
static inline uint64_t load_8(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The high bit of each byte that is `c`, and no other. */
static inline uint64_t mark_equal(uint64_t word, unsigned char c)
{
    uint64_t zeroed = word ^ EACH_BYTE(c);
    return ~(((zeroed & EACH_BYTE(0x7f)) + EACH_BYTE(0x7f)) | zeroed) & EACH_BYTE(0x80);
}

/* The line ends among the eight places from `p` that two dashes follow; reads ten bytes. */
static inline uint64_t mark_candidates(const char *p)
{
    uint64_t word = load_8(p);
    return (mark_equal(word, '\n') | mark_equal(word, '\r')) & mark_equal(load_8(p + 1), '-') &
           mark_equal(load_8(p + 2), '-');
}

/* Whether some reader could see a delimiter in the line end at `p` and what follows. */
static inline bool is_delimiter(const struct form *form, const char *p)
{
    return (*p == '\n' || *p == '\r') && (size_t)(form->end - p) > form->dash_boundary_len &&
           memcmp(p + 1, form->dash_boundary, form->dash_boundary_len) == 0;
}

/*
 * The first of those in the rest of the body, or NULL. Eight places at once and no memmem: that one
 * is fast too, but twenty times slower when the peer chooses body and boundary with care.
 */
static const char *find_delimiter(const struct form *form)
{
    const char *p = form->p;
    for (; form->end - p >= 10; p += 8) {
        for (uint64_t marks = mark_candidates(p); marks != 0; marks &= marks - 1) {
            const char *candidate = p + (__builtin_ctzll(marks) >> 3);
            if (is_delimiter(form, candidate)) {
                return candidate;
            }
        }
    }
    for (; p < form->end; p++) {
        if (is_delimiter(form, p)) {
            return p;
        }
    }
    return NULL;
}

/* What follows a boundary: CRLF and another part, or "--" and the end of the body. */
static int end_delimiter(struct form *form, bool *closing)
{
    *closing = starts_with(form, "--", 2);
    if (!*closing && !starts_with(form, "\r\n", 2)) {
        return refuse(form, PL_ERR_SYNTAX, "a delimiter is broken");
    }
    form->p += 2;
    size_t left = (size_t)(form->end - form->p);
    if (*closing && left > 0 && (left != 2 || memcmp(form->p, "\r\n", 2) != 0)) {
        return refuse(form, PL_ERR_SYNTAX, "something follows the closing delimiter");
    }
    return PL_OK;
}

static int read_first_delimiter(struct form *form, bool *closing)
{
    if (starts_with(form, "\r\n", 2)) {
        form->p += 2;
    }
    if (!at_dash_boundary(form)) {
        return refuse(form, PL_ERR_SYNTAX, "the body does not begin with a delimiter");
    }
    form->p += form->dash_boundary_len;
    return end_delimiter(form, closing);
}

/* Everything up to the next delimiter. */
static int read_value(struct form *form, struct part *part)
{
    if (at_dash_boundary(form)) {
        /* The empty line's CRLF could be the delimiter's: a part without content, or content? */
        return refuse(form, PL_ERR_SYNTAX, "a part has no content");
    }
    const char *line_end = find_delimiter(form);
    if (line_end == NULL) {
        return refuse(form, PL_ERR_SYNTAX, "the closing delimiter is missing");
    }
    if (line_end == form->p || line_end[0] != '\n' || line_end[-1] != '\r') {
        return refuse(form, PL_ERR_SYNTAX, "a delimiter follows a bare CR or LF");
    }
    part->value_start = (size_t)(form->p - form->body);
    part->value_len = (size_t)(line_end - form->p) - 1;
    form->p = line_end + 1 + form->dash_boundary_len;
    return PL_OK;
}

/* Takes the part as the field, if it is. */
static int match(struct form *form, const struct part *part, struct pl_str name,
                 struct pl_multipart_field *out)
{
    if (!pl_str_equal(part->name, name) || part->filename.len > 0) {
        return PL_OK;
    }
    if (part->filename.data != NULL || part->has_extended_filename) {
        return refuse(form, PL_ERR_SYNTAX, "the field may or may not be a file");
    }
    if (part->is_encoded) {
        return refuse(form, PL_ERR_SYNTAX, "the field has a Content-Transfer-Encoding");
    }
    if (out->found) {
        return refuse(form, PL_ERR_SYNTAX, "the field stands twice");
    }
    *out = (struct pl_multipart_field){part->value_start, part->value_len, true};
    return PL_OK;
}

static int read_part(struct form *form, struct pl_str name, struct pl_multipart_field *out)
{
    struct part part = {0};
    int result = read_head(form, &part);
    if (result == PL_OK) {
        result = read_value(form, &part);
    }
    return result == PL_OK ? match(form, &part, name, out) : result;
}

static int read_parts(struct form *form, struct pl_str name, struct pl_multipart_field *out)
{
    bool closing;
    int result = read_first_delimiter(form, &closing);
    for (size_t count = 0; result == PL_OK && !closing; count++) {
        if (count == PL_MULTIPART_MAX_PARTS) {
            return refuse(form, PL_ERR_LIMIT, "there are too many parts");
        }
        result = read_part(form, name, out);
        if (result == PL_OK) {
            result = end_delimiter(form, &closing);
        }
    }
    return result;
}

int pl_multipart_find(const char *body, size_t len, struct pl_str boundary, struct pl_str name,
                      struct pl_multipart_field *out, const char **error)
{
    *out = (struct pl_multipart_field){0};
    *error = NULL;
    if (!is_boundary(boundary)) {
        *error = "the boundary is broken";
        return PL_ERR_SYNTAX;
    }
    const char *start = len > 0 ? body : "";
    struct form form = {.body = start, .p = start, .end = start + len};
    memcpy(form.dash_boundary, "--", 2);
    memcpy(form.dash_boundary + 2, boundary.data, boundary.len);
    form.dash_boundary_len = 2 + boundary.len;
    int result = read_parts(&form, name, out);
    if (result != PL_OK) {
        *out = (struct pl_multipart_field){0};
        *error = form.error;
    }
    return result;
}
