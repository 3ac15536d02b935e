/*
 * Usage: see usage.h.
 *
 * A small machine over the bytes. Outside of strings it counts brackets and notes which key a value
 * belongs to; within strings it jumps from quote to quote by memchr, which is where nearly all
 * bytes of an answer are. In an event stream only "data:" lines are looked at, and the end of an
 * event sets everything back, so that one broken event does not hide the next.
 */
#include "usage.h"
#include "json.h"
#include "usage_internal.h"
#include <stdlib.h>
#include <string.h>

enum state {
    BETWEEN,   /* outside of strings */
    IN_KEY,    /* a string that may be a key: kept */
    IN_STRING, /* any other string: skipped */
    IN_MODEL,  /* the value of "model": kept */
};

enum line_state { LINE_START, LINE_OTHER, LINE_DATA };

enum want { WANT_NOTHING, WANT_USAGE, WANT_MODEL, WANT_INSIDE };

#define DEPTH_MAX    PL_USAGE_DEPTH_MAX
#define KEY_MAX      ((uint8_t)sizeof(((struct pl_usage_scan *)0)->key))
#define INSIDE_DEPTH 2 /* of the members of "message" and "response" */

void pl_usage_scan_init(struct pl_usage_scan *self, bool is_sse)
{
    *self = (struct pl_usage_scan){
        .is_sse = is_sse, .found = {-1, -1, -1, -1}, .line_state = is_sse ? LINE_START : LINE_DATA};
}

void pl_usage_scan_deinit(struct pl_usage_scan *self)
{
    free(self->model);
    free(self->capture);
    self->model = self->capture = NULL;
}

/* ---- a usage object -------------------------------------------------------------------------- */

/* Where a count of that name goes; NULL when it is none of ours. The names are told apart whatever
 * they stand in: those of the details occur in no other place. */
static int64_t *count_named(struct pl_usage *self, struct pl_str name)
{
    static const struct {
        struct pl_str name;
        size_t offset;
    } counts[] = {{PL_STR("prompt_tokens"), offsetof(struct pl_usage, input_tokens)},
                  {PL_STR("completion_tokens"), offsetof(struct pl_usage, output_tokens)},
                  {PL_STR("input_tokens"), offsetof(struct pl_usage, input_tokens)},
                  {PL_STR("output_tokens"), offsetof(struct pl_usage, output_tokens)},
                  {PL_STR("cached_tokens"), offsetof(struct pl_usage, cached_tokens)},
                  {PL_STR("cache_read_input_tokens"), offsetof(struct pl_usage, cached_tokens)},
                  {PL_STR("reasoning_tokens"), offsetof(struct pl_usage, reasoning_tokens)}};
    for (size_t i = 0; i < PL_COUNT(counts); i++) {
        if (pl_str_equal(counts[i].name, name))
            return (int64_t *)((char *)self + counts[i].offset);
    }
    return NULL;
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at;
}

/* Reads a whole number that is a value of its own; -1 when there is none. */
static int64_t read_count(const char *at, const char *end)
{
    const char *start = at;
    int64_t number = 0;
    while (at < end && *at >= '0' && *at <= '9' && at - start < 16)
        number = number * 10 + (*at++ - '0');
    bool is_whole = at > start && at - start < 16 && at < end;
    at = skip_space(at, end);
    return is_whole && at < end && (*at == ',' || *at == '}') ? number : -1;
}

void pl_usage_read_object(struct pl_usage *self, const char *text, size_t len)
{
    const char *at = text, *end = text + len;
    while ((at = memchr(at, '"', (size_t)(end - at)))) {
        const char *name = at + 1;
        const char *quote = memchr(name, '"', (size_t)(end - name));
        if (!quote)
            return;
        at = skip_space(quote + 1, end);
        if (at == end || *at != ':')
            continue;
        int64_t count = read_count(skip_space(at + 1, end), end);
        int64_t *known =
            count < 0 ? NULL : count_named(self, (struct pl_str){name, (size_t)(quote - name)});
        if (known)
            *known = count;
    }
}

/* ---- captures: a usage object, a model's name ------------------------------------------------ */

static void drop_capture(struct pl_usage_scan *self)
{
    free(self->capture);
    self->capture = NULL;
    self->capture_len = 0;
}

static void begin_capture(struct pl_usage_scan *self, size_t size_bytes)
{
    drop_capture(self);
    self->capture = pl_xmalloc(size_bytes);
    self->capture_depth = self->depth;
}

static void keep(struct pl_usage_scan *self, const char *data, size_t len, size_t size_bytes)
{
    if (!self->capture)
        return;
    if (len > size_bytes - self->capture_len) {
        drop_capture(self);
        return;
    }
    memcpy(self->capture + self->capture_len, data, len);
    self->capture_len = (uint16_t)(self->capture_len + len);
}

static void end_usage(struct pl_usage_scan *self)
{
    pl_usage_read_object(&self->found, self->capture, self->capture_len);
    drop_capture(self);
}

char *pl_usage_unescaped(const char *text, size_t len)
{
    size_t decoded_len;
    char quoted[PL_USAGE_MODEL_MAX_BYTES + 2];
    if (!memchr(text, '\\', len))
        return pl_xstrndup(text, len);
    quoted[0] = quoted[len + 1] = '"';
    memcpy(quoted + 1, text, len);
    return pl_json_decode_string(quoted, len + 2, &decoded_len);
}

static void end_model(struct pl_usage_scan *self)
{
    if (self->capture && self->capture_len > 0) {
        free(self->model);
        self->model = pl_usage_unescaped(self->capture, self->capture_len);
    }
    drop_capture(self);
}

/* ---- the scan ---------------------------------------------------------------------------------
 */

static void reset(struct pl_usage_scan *self)
{
    drop_capture(self);
    self->state = BETWEEN;
    self->escaped = false;
    self->depth = 0;
    self->want = WANT_NOTHING;
    self->within = 0;
}

/* Whether members of the object that is open now are of interest. */
static bool is_wanted_object(const struct pl_usage_scan *self)
{
    return self->depth == 1 || (self->depth == INSIDE_DEPTH && self->within);
}

static bool key_is(const struct pl_usage_scan *self, struct pl_str name)
{
    return self->key_len == name.len && memcmp(self->key, name.data, name.len) == 0;
}

static enum want wanted_by_key(const struct pl_usage_scan *self)
{
    if (key_is(self, PL_STR("usage")))
        return WANT_USAGE;
    if (key_is(self, PL_STR("model")))
        return WANT_MODEL;
    if (self->depth == 1 && (key_is(self, PL_STR("message")) || key_is(self, PL_STR("response"))))
        return WANT_INSIDE;
    return WANT_NOTHING;
}

static void open_bracket(struct pl_usage_scan *self, char bracket)
{
    if (self->want == WANT_INSIDE)
        self->within = bracket == '{';
    if (self->want == WANT_USAGE && bracket == '{' && !self->capture) {
        begin_capture(self, PL_USAGE_OBJECT_MAX_BYTES);
        self->met_usage = true;
    }
    self->want = WANT_NOTHING;
    if (self->depth < DEPTH_MAX)
        self->depth++;
    else
        reset(self);
}

static void close_bracket(struct pl_usage_scan *self)
{
    if (self->depth > 0)
        self->depth--;
    if (self->depth < INSIDE_DEPTH)
        self->within = 0;
    self->want = WANT_NOTHING;
    self->key_len = 0;
}

static void open_string(struct pl_usage_scan *self)
{
    if (self->want == WANT_MODEL && !self->capture && !self->model) {
        begin_capture(self, PL_USAGE_MODEL_MAX_BYTES);
        self->state = IN_MODEL;
    } else if (self->want == WANT_NOTHING && is_wanted_object(self) && !self->capture) {
        self->key_len = 0;
        self->state = IN_KEY;
    } else {
        self->state = IN_STRING;
    }
    self->want = WANT_NOTHING;
}

/* One byte outside of strings, within a line that is looked at. */
static void take_byte(struct pl_usage_scan *self, char byte)
{
    switch (byte) {
    case '"':
        open_string(self);
        break;
    case '{':
    case '[':
        open_bracket(self, byte);
        break;
    case '}':
    case ']':
        close_bracket(self);
        break;
    case ':':
        if (self->key_len > 0 && is_wanted_object(self))
            self->want = wanted_by_key(self);
        self->key_len = 0;
        break;
    case ',':
        self->want = WANT_NOTHING;
        self->key_len = 0;
        break;
    default:
        break;
    }
}

static void keep_key(struct pl_usage_scan *self, const char *data, size_t len)
{
    size_t room = KEY_MAX - PL_MIN(self->key_len, KEY_MAX);
    size_t take = PL_MIN(len, room);
    memcpy(self->key + PL_MIN(self->key_len, KEY_MAX), data, take);
    self->key_len = (uint8_t)PL_MIN((size_t)self->key_len + take + (take < len), KEY_MAX + 1u);
}

static void keep_string(struct pl_usage_scan *self, const char *data, size_t len)
{
    if (self->state == IN_KEY)
        keep_key(self, data, len);
    else if (self->state == IN_MODEL)
        keep(self, data, len, PL_USAGE_MODEL_MAX_BYTES);
}

static void end_string(struct pl_usage_scan *self)
{
    if (self->state == IN_MODEL)
        end_model(self);
    self->state = BETWEEN;
}

/* Takes the bytes of a string up to its end, or all; how many. A line's end ends it, too: there is
 * none in a valid string. */
static size_t take_string(struct pl_usage_scan *self, const char *data, size_t len)
{
    if (self->escaped) {
        self->escaped = false;
        keep_string(self, data, 1);
        return 1;
    }
    const char *quote = memchr(data, '"', len);
    size_t part = quote ? (size_t)(quote - data) : len;
    const char *backslash = memchr(data, '\\', part);
    if (backslash) {
        part = (size_t)(backslash - data) + 1;
        self->escaped = true;
        quote = NULL;
    }
    if (self->state != IN_STRING)
        keep_string(self, data, part);
    if (!quote)
        return part;
    if (self->state == IN_STRING)
        self->state = BETWEEN;
    else
        end_string(self);
    return part + 1;
}

/* Takes a byte outside of strings that is of interest, and those before it that are not; how many.
 */
static size_t take_between(struct pl_usage_scan *self, const char *data, size_t len)
{
    static const bool means[256] = {['"'] = true, ['{'] = true, ['['] = true, ['}'] = true,
                                    [']'] = true, [':'] = true, [','] = true};
    size_t at = 0;
    while (at < len && !means[(uint8_t)data[at]])
        at++;
    if (at == len)
        return len;
    take_byte(self, data[at]);
    return at + 1;
}

/* How deep the objects are whose members are looked at, or kept. */
static uint16_t floor_depth(const struct pl_usage_scan *self)
{
    if (self->capture)
        return self->capture_depth;
    return self->within ? INSIDE_DEPTH : 1;
}

/* Takes what lies deeper than is of interest, up to the bracket that ends it, or all; how many.
 * Most of an answer is that. */
static size_t take_deep(struct pl_usage_scan *self, const char *data, size_t len)
{
    static const int8_t bracket[256] = {['{'] = 1, ['['] = 1, ['}'] = -1, [']'] = -1, ['"'] = 2};
    uint16_t floor = floor_depth(self), depth = self->depth;
    size_t at = 0;
    while (depth > floor && depth <= DEPTH_MAX) {
        while (at < len && bracket[(uint8_t)data[at]] == 0)
            at++;
        if (at == len)
            break;
        int8_t kind = bracket[(uint8_t)data[at++]];
        if (kind < 2) {
            depth = (uint16_t)(depth + kind);
            continue;
        }
        self->state = IN_STRING;
        while (at < len && self->state == IN_STRING)
            at += take_string(self, data + at, len - at);
    }
    self->depth = depth;
    if (depth > DEPTH_MAX)
        reset(self);
    if (self->depth < INSIDE_DEPTH)
        self->within = 0;
    return at;
}

static size_t take_json(struct pl_usage_scan *self, const char *data, size_t len)
{
    if (self->state != BETWEEN)
        return take_string(self, data, len);
    if (self->depth > floor_depth(self))
        return take_deep(self, data, len);
    return take_between(self, data, len);
}

/* Takes JSON bytes. */
static void feed_json(struct pl_usage_scan *self, const char *data, size_t len)
{
    size_t at = 0;
    while (at < len) {
        bool is_usage = self->capture && self->state != IN_MODEL;
        size_t part = take_json(self, data + at, len - at);
        if (is_usage)
            keep(self, data + at, part, PL_USAGE_OBJECT_MAX_BYTES);
        if (is_usage && self->capture && self->state == BETWEEN &&
            self->depth == self->capture_depth)
            end_usage(self);
        at += part;
    }
}

/* Finds out what kind of line it is; how many bytes that took. */
static size_t take_line_start(struct pl_usage_scan *self, const char *data, size_t len)
{
    static const char name[] = "data:";
    size_t at = 0;
    while (at < len && self->key_len < sizeof(name) - 1) {
        if (data[at] != name[self->key_len]) {
            self->line_state = LINE_OTHER;
            return at;
        }
        self->key_len++;
        at++;
    }
    if (self->key_len == sizeof(name) - 1) {
        self->line_state = LINE_DATA;
        self->key_len = 0;
    }
    return at;
}

static size_t line_length(const char *data, size_t len)
{
    const char *lf = memchr(data, '\n', len);
    size_t part = lf ? (size_t)(lf - data) : len;
    const char *cr = memchr(data, '\r', part);
    return cr ? (size_t)(cr - data) : part;
}

/* A line has ended: an empty one ends the event. */
static void end_line(struct pl_usage_scan *self)
{
    if (self->line_is_new)
        reset(self);
    self->line_is_new = true;
    self->line_state = LINE_START;
    self->key_len = 0;
}

static void feed_line(struct pl_usage_scan *self, const char *data, size_t len)
{
    size_t at = 0;
    if (len > 0)
        self->line_is_new = false;
    if (self->line_state == LINE_START)
        at = take_line_start(self, data, len);
    if (self->line_state == LINE_DATA)
        feed_json(self, data + at, len - at);
}

/* Whether `"usage"` stands there with a value other than null, which many send in every event. It
 * is searched by its rarest letter: memmem prepares a table for each search. */
static bool mentions_usage(const char *text, size_t len)
{
    static const char wanted[] = "\"usage\"";
    const char *end = text + len, *at = text;
    for (; (at = memchr(at, 'g', (size_t)(end - at))); at++) {
        if (at - text < 4 || end - at < 3 || memcmp(at - 4, wanted, sizeof(wanted) - 1) != 0)
            continue;
        const char *value = at + 3;
        while (value < end && (*value == ':' || *value == ' '))
            value++;
        if (value == end || *value != 'n')
            return true;
    }
    return false;
}

/* Nothing has been read of the event that is open, and the model is known. */
static bool is_between_events(const struct pl_usage_scan *self)
{
    return self->model && self->model[0] && self->line_is_new && self->line_state == LINE_START &&
           self->key_len == 0 && self->state == BETWEEN && self->depth == 0 && !self->capture &&
           self->want == WANT_NOTHING;
}

/* Whether these are whole events that can be passed over: most of a stream are a word each. */
static bool are_dull(const struct pl_usage_scan *self, const char *data, size_t len)
{
    return is_between_events(self) && len > 2 && data[len - 1] == '\n' &&
           (data[len - 2] == '\n' || (data[len - 2] == '\r' && data[len - 3] == '\n')) &&
           !mentions_usage(data, len);
}

/* The same of a line. */
static bool is_dull(const struct pl_usage_scan *self, const char *line, size_t len)
{
    return is_between_events(self) && len > 0 && line[len - 1] == '}' && !mentions_usage(line, len);
}

static void feed_sse(struct pl_usage_scan *self, const char *data, size_t len)
{
    size_t at = 0;
    if (are_dull(self, data, len)) {
        self->last_was_cr = false;
        return;
    }
    while (at < len) {
        bool completes_crlf = self->last_was_cr && data[at] == '\n';
        self->last_was_cr = false;
        if (completes_crlf) {
            at++;
            continue;
        }
        size_t part = line_length(data + at, len - at);
        if (at + part < len && is_dull(self, data + at, part))
            self->line_is_new = false;
        else
            feed_line(self, data + at, part);
        at += part;
        if (at < len) {
            self->last_was_cr = data[at] == '\r';
            end_line(self);
            at++;
        }
    }
}

static bool is_at_start(const struct pl_usage_scan *self)
{
    return self->state == BETWEEN && self->depth == 0 && !self->capture && self->key_len == 0 &&
           self->want == WANT_NOTHING;
}

void pl_usage_scan_feed(struct pl_usage_scan *self, const char *data, size_t len)
{
    if (self->is_sse)
        feed_sse(self, data, len);
    else if (!is_at_start(self) || !pl_usage_read_body(self, data, len))
        feed_json(self, data, len);
}
