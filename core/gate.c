/*
 * Gate: see gate.h. This file: lines, fields and events.
 */
#include "gate.h"
#include <stdlib.h>
#include <string.h>

#define FIRST_DATA_BYTES 512

enum { IN_FIELD, IN_DATA, IN_NAME, IN_OTHER };

void pl_gate_init(struct pl_gate *self)
{
    *self = (struct pl_gate){.line_is_new = true};
}

void pl_gate_deinit(struct pl_gate *self)
{
    free(self->data);
    self->data = NULL;
    self->data_len = self->data_cap = 0;
}

struct pl_str pl_gate_data(const struct pl_gate *self)
{
    return (struct pl_str){self->data ? self->data : "", self->data_len};
}

/* ---- one event ------------------------------------------------------------------------------ */

static void add_data(struct pl_gate *self, const char *data, size_t len)
{
    if (len == 0)
        return;
    if (len > PL_GATE_EVENT_MAX_BYTES - self->data_len) {
        self->verdict = PL_GATE_MEANINGFUL;
        return;
    }
    if (self->data_len + len > self->data_cap) {
        size_t grown = PL_MAX(self->data_cap * 2, (size_t)FIRST_DATA_BYTES);
        self->data_cap = PL_MAX(grown, self->data_len + len);
        self->data = pl_xrealloc(self->data, self->data_cap);
    }
    memcpy(self->data + self->data_len, data, len);
    self->data_len += len;
}

/* Appends to a short text of which only the beginning matters. */
static uint8_t keep(char *text, uint8_t text_len, size_t cap, const char *data, size_t len)
{
    size_t at = PL_MIN((size_t)text_len, cap);
    size_t take = PL_MIN(len, cap - at);
    memcpy(text + at, data, take);
    return (uint8_t)PL_MIN(text_len + len, cap + 1);
}

static struct pl_str event_name(const struct pl_gate *self)
{
    bool is_whole = self->name_len <= sizeof(self->name);
    return (struct pl_str){self->name, is_whole ? self->name_len : 0};
}

static void end_event(struct pl_gate *self)
{
    if (self->data_len > 0) {
        self->has_events = true;
        self->verdict = pl_gate_judge_event(&self->seen, event_name(self), pl_gate_data(self));
    }
    self->has_data = false;
    self->name_len = 0;
    if (self->verdict == PL_GATE_WAIT)
        self->data_len = 0;
}

/* ---- one line ------------------------------------------------------------------------------- */

/* WHATWG HTML 9.2.5: one byte order mark may stand before the first line. */
static struct pl_str field_name(const struct pl_gate *self)
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
    return name.len == 0 || pl_str_equal(name, PL_STR("id")) || pl_str_equal(name, PL_STR("retry"));
}

/* The field's name is whole: its value follows, or the line ends. */
static void begin_value(struct pl_gate *self)
{
    struct pl_str name = field_name(self);
    self->may_be_space = true;
    if (pl_str_equal(name, PL_STR("data"))) {
        self->state = IN_DATA;
        if (self->has_data)
            add_data(self, "\n", 1);
        self->has_data = true;
    } else if (pl_str_equal(name, PL_STR("event"))) {
        self->state = IN_NAME;
        self->name_len = 0;
    } else {
        self->state = IN_OTHER;
        self->is_foreign |= !is_known_field(name);
    }
}

static void take_value(struct pl_gate *self, const char *data, size_t len)
{
    if (len > 0 && self->may_be_space) {
        size_t skip = *data == ' ';
        self->may_be_space = false;
        data += skip;
        len -= skip;
    }
    if (self->state == IN_DATA)
        add_data(self, data, len);
    else if (self->state == IN_NAME)
        self->name_len = keep(self->name, self->name_len, sizeof(self->name), data, len);
}

/* Takes bytes of a line, without its end. */
static void take_part(struct pl_gate *self, const char *data, size_t len)
{
    if (len == 0)
        return;
    self->line_is_new = false;
    if (self->state == IN_FIELD) {
        const char *colon = memchr(data, ':', len);
        size_t part = colon ? (size_t)(colon - data) : len;
        self->field_len = keep(self->field, self->field_len, sizeof(self->field), data, part);
        if (!colon)
            return;
        begin_value(self);
        data += part + 1;
        len -= part + 1;
    }
    take_value(self, data, len);
}

static void end_line(struct pl_gate *self)
{
    bool is_empty = self->line_is_new;
    if (!is_empty && self->state == IN_FIELD)
        begin_value(self); /* a field without a colon */
    self->is_past_first_line = true;
    self->line_is_new = true;
    self->state = IN_FIELD;
    self->field_len = 0;
    if (is_empty && self->verdict == PL_GATE_WAIT)
        end_event(self);
}

/* ---- the stream ----------------------------------------------------------------------------- */

static const char *find(const char *at, const char *end, char byte)
{
    const char *found = memchr(at, byte, (size_t)(end - at));
    return found ? found : end;
}

enum pl_gate_verdict pl_gate_feed(struct pl_gate *self, const char *data, size_t len)
{
    const char *at = data, *end = data + len;
    const char *lf = NULL; /* the first one at or behind `at`: not searched for every bare CR */
    while (at < end && self->verdict == PL_GATE_WAIT) {
        bool completes_crlf = self->last_was_cr && *at == '\n';
        self->last_was_cr = false;
        if (completes_crlf) {
            at++;
            continue;
        }
        if (!lf || lf < at)
            lf = find(at, end, '\n');
        const char *line_end = find(at, lf, '\r');
        take_part(self, at, (size_t)(line_end - at));
        at = line_end;
        if (at < end) {
            self->last_was_cr = *at++ == '\r';
            end_line(self);
        }
    }
    return self->verdict;
}

enum pl_gate_verdict pl_gate_end(struct pl_gate *self)
{
    bool is_foreign = self->is_foreign || (self->state == IN_FIELD && self->field_len > 0);
    if (self->verdict == PL_GATE_WAIT)
        self->verdict = is_foreign && !self->has_events ? PL_GATE_MALFORMED : PL_GATE_EMPTY;
    return self->verdict;
}
