/*
 * Events: see events.h.
 */
#include "events.h"
#include <stdlib.h>
#include <string.h>

#define FIRST_DATA_BYTES 512
#define WINDOW_BYTES                                                                               \
    512 /* searched for a line's end at once: streams of bare CRs are not                          \
           searched to their end for each of them */

enum { IN_FIELD, IN_DATA, IN_NAME, IN_OTHER, IN_COMMENT };

void pl_events_init(struct pl_events *self, size_t max_bytes)
{
    *self = (struct pl_events){.line_is_new = true, .max_bytes = max_bytes};
}

void pl_events_deinit(struct pl_events *self)
{
    free(self->data);
    self->data = NULL;
    self->data_len = self->data_cap = 0;
}

struct pl_str pl_events_data(const struct pl_events *self)
{
    return (struct pl_str){self->data ? self->data : "", self->data_len};
}

struct pl_str pl_events_name(const struct pl_events *self)
{
    bool is_whole = self->name_len <= sizeof(self->name);
    return (struct pl_str){self->name, is_whole ? self->name_len : 0};
}

/* ---- fields --------------------------------------------------------------------------------- */

/* False when it is too large. */
static bool add_data(struct pl_events *self, const char *data, size_t len)
{
    if (len == 0)
        return true;
    if (len > self->max_bytes - self->data_len)
        return false;
    if (self->data_len + len > self->data_cap) {
        size_t grown = PL_MAX(self->data_cap * 2, (size_t)FIRST_DATA_BYTES);
        self->data_cap = PL_MAX(grown, self->data_len + len);
        self->data = pl_xrealloc(self->data, self->data_cap);
    }
    memcpy(self->data + self->data_len, data, len);
    self->data_len += len;
    return true;
}

/* Appends to a short text of which only the beginning matters. */
static uint8_t keep(char *text, uint8_t text_len, size_t cap, const char *data, size_t len)
{
    size_t at = PL_MIN((size_t)text_len, cap);
    size_t take = PL_MIN(len, cap - at);
    memcpy(text + at, data, take);
    return (uint8_t)PL_MIN(text_len + len, cap + 1);
}

/* WHATWG HTML 9.2.5: one byte order mark may stand before the first line. */
static struct pl_str field_name(const struct pl_events *self)
{
    struct pl_str name = {self->field, self->field_len};
    if (name.len > sizeof(self->field))
        return PL_STR("?");
    if (!self->is_past_first_line && name.len >= 3 && memcmp(name.data, "\xEF\xBB\xBF", 3) == 0)
        return (struct pl_str){name.data + 3, name.len - 3};
    return name;
}

static bool is_known_field(struct pl_str name)
{
    return pl_str_equal(name, PL_STR("id")) || pl_str_equal(name, PL_STR("retry"));
}

/* The field's name is whole: its value follows, or the line ends. False when it is too large. */
static bool begin_value(struct pl_events *self)
{
    struct pl_str name = field_name(self);
    self->may_be_space = true;
    if (pl_str_equal(name, PL_STR("data"))) {
        self->state = IN_DATA;
        bool is_another = self->has_data;
        self->has_data = true;
        return !is_another || add_data(self, "\n", 1);
    }
    if (pl_str_equal(name, PL_STR("event"))) {
        self->state = IN_NAME;
        self->name_len = 0;
    } else if (name.len == 0) {
        self->state = IN_COMMENT;
    } else {
        self->state = IN_OTHER;
        self->is_foreign |= !is_known_field(name);
    }
    return true;
}

static bool take_value(struct pl_events *self, const char *data, size_t len)
{
    if (len > 0 && self->may_be_space) {
        size_t skip = *data == ' ';
        self->may_be_space = false;
        data += skip;
        len -= skip;
    }
    if (self->state == IN_DATA)
        return add_data(self, data, len);
    if (self->state == IN_NAME)
        self->name_len = keep(self->name, self->name_len, sizeof(self->name), data, len);
    return true;
}

/* ---- lines ---------------------------------------------------------------------------------- */

/* Takes bytes of a line, without its end. False when the event is too large. */
static bool take_part(struct pl_events *self, const char *data, size_t len)
{
    if (len == 0)
        return true;
    self->line_is_new = false;
    if (self->state == IN_FIELD) {
        const char *colon = memchr(data, ':', len);
        size_t part = colon ? (size_t)(colon - data) : len;
        self->field_len = keep(self->field, self->field_len, sizeof(self->field), data, part);
        if (!colon)
            return true;
        if (!begin_value(self))
            return false;
        data += part + 1;
        len -= part + 1;
    }
    return take_value(self, data, len);
}

static enum pl_events_found end_event(struct pl_events *self)
{
    self->has_data = self->is_open = false;
    self->is_given = true;
    return self->data_len > 0 ? PL_EVENTS_EVENT : PL_EVENTS_BLANK;
}

/* A comment that stands alone is passed on at once: it keeps connections alive. */
static enum pl_events_found end_line(struct pl_events *self)
{
    bool is_empty = self->line_is_new, fits = true;
    if (!is_empty && self->state == IN_FIELD)
        fits = begin_value(self); /* a field without a colon */
    bool is_comment = self->state == IN_COMMENT;
    self->is_past_first_line = true;
    self->line_is_new = true;
    self->state = IN_FIELD;
    self->field_len = 0;
    if (!fits)
        return PL_EVENTS_TOO_LARGE;
    if (is_empty)
        return end_event(self);
    self->is_open |= !is_comment;
    return self->is_open ? PL_EVENTS_MORE : PL_EVENTS_BLANK;
}

/* ---- the stream ----------------------------------------------------------------------------- */

static const char *line_end(const char *at, const char *end)
{
    while (at < end) {
        size_t part = PL_MIN((size_t)(end - at), (size_t)WINDOW_BYTES);
        const char *lf = memchr(at, '\n', part);
        const char *cr = memchr(at, '\r', lf ? (size_t)(lf - at) : part);
        if (cr || lf)
            return cr ? cr : lf;
        at += part;
    }
    return end;
}

static void begin_event(struct pl_events *self)
{
    self->is_given = false;
    self->data_len = 0;
    self->name_len = 0;
}

/* Takes a line with its end, or all that there is; the LF of a CRLF when it is there. */
static const char *take_line(struct pl_events *self, const char *at, const char *end,
                             enum pl_events_found *found)
{
    const char *stop = line_end(at, end);
    if (!take_part(self, at, (size_t)(stop - at))) {
        *found = PL_EVENTS_TOO_LARGE;
        return end;
    }
    if (stop == end)
        return end;
    bool is_cr = *stop++ == '\r';
    if (is_cr && stop < end && *stop == '\n')
        stop++;
    else
        self->last_was_cr = is_cr;
    *found = end_line(self);
    return stop;
}

size_t pl_events_next(struct pl_events *self, const char *data, size_t len,
                      enum pl_events_found *found)
{
    const char *at = data, *end = data + len;
    *found = PL_EVENTS_MORE;
    if (self->is_given && len > 0)
        begin_event(self);
    while (at < end && *found == PL_EVENTS_MORE) {
        bool completes_crlf = self->last_was_cr && *at == '\n';
        self->last_was_cr = false;
        if (!completes_crlf) {
            at = take_line(self, at, end, found);
            continue;
        }
        at++;
        if (!self->is_open && self->line_is_new)
            *found = PL_EVENTS_BLANK;
    }
    return (size_t)(at - data);
}

bool pl_events_end_is_foreign(const struct pl_events *self)
{
    return self->state == IN_FIELD && self->field_len > 0;
}
