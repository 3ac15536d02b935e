/*
 * SSE: see sse.h.
 *
 * Pure, any thread. Each byte is looked at once for LF and once for CR, by memchr; of each line
 * only the first bytes are kept, enough to tell a data line, a comment and the terminal events
 * apart. So a line may be as long as it likes, and how the stream is cut makes no difference.
 */
#include "sse.h"

#include <string.h>

#define LINE_MAX_BYTES                                                                             \
    39 /* a byte order mark and the longest line compared as a whole fit well                      \
        */

void pl_sse_init(struct pl_sse *self)
{
    memset(self, 0, sizeof(*self));
}

static bool line_is(const struct pl_sse *self, struct pl_str expected)
{
    return self->line_len == expected.len && memcmp(self->line, expected.data, expected.len) == 0;
}

static bool line_starts_with(const struct pl_sse *self, struct pl_str start)
{
    return self->line_len >= start.len && memcmp(self->line, start.data, start.len) == 0;
}

/* The line is a field of that name, given with its colon; its value, without the one space that may
 * stand before it, is `value`. */
static bool field_is(const struct pl_sse *self, struct pl_str name, struct pl_str value)
{
    if (self->line_len > LINE_MAX_BYTES || !line_starts_with(self, name)) {
        return false;
    }
    struct pl_str rest = {self->line + name.len, self->line_len - name.len};
    if (rest.len > 0 && rest.data[0] == ' ') {
        rest.data++;
        rest.len--;
    }
    return pl_str_equal(rest, value);
}

static bool names_terminal_event(const struct pl_sse *self)
{
    const struct pl_str event = PL_STR("event:");
    return field_is(self, event, PL_STR("message_stop")) ||
           field_is(self, event, PL_STR("response.completed")) ||
           field_is(self, event, PL_STR("response.failed")) ||
           field_is(self, event, PL_STR("response.incomplete"));
}

static void end_event(struct pl_sse *self)
{
    if (self->event_has_data) {
        self->event_count++;
        self->seen_data = true;
        self->seen_error |= self->event_is_error;
    }
    self->seen_terminal |= self->event_is_terminal;
    self->event_is_open = self->event_has_data = false;
    self->event_is_terminal = self->event_is_error = false;
}

/* The line is data that begins with an error, as far as its first bytes tell. Others write their
 * members in another order, or "error":null into every event. */
static bool begins_with_error(const struct pl_sse *self)
{
    static const struct pl_str starts[] = {{"{\"error\":", 9}, {"{\"type\":\"error\"", 15}};
    const char *at = self->line + 5, *end = self->line + PL_MIN(self->line_len, LINE_MAX_BYTES);
    at += at < end && *at == ' ';
    if (end - at < 3 || (at[2] != 'e' && at[2] != 't')) /* nearly always */
        return false;
    for (size_t i = 0; i < PL_COUNT(starts); i++) {
        if ((size_t)(end - at) > starts[i].len && memcmp(at, starts[i].data, starts[i].len) == 0) {
            at += starts[i].len;
            at += *at == ' ' && at + 1 < end;
            return *at != 'n';
        }
    }
    return false;
}

static void take_field(struct pl_sse *self)
{
    const struct pl_str data = PL_STR("data:");
    self->event_is_open = true;
    if (line_starts_with(self, data)) {
        self->event_has_data = true;
        self->event_is_terminal |= field_is(self, data, PL_STR("[DONE]"));
        self->event_is_error |= begins_with_error(self);
    } else if (line_is(self, PL_STR("data"))) {
        self->event_has_data = true;
    } else if (line_starts_with(self, PL_STR("event:"))) {
        self->event_is_terminal |= names_terminal_event(self);
        self->event_is_error |= field_is(self, PL_STR("event:"), PL_STR("error"));
    }
}

/* WHATWG HTML 9.2.5: one byte order mark may stand before the first line. */
static void drop_byte_order_mark(struct pl_sse *self)
{
    const struct pl_str mark = PL_STR("\xEF\xBB\xBF");
    if (!self->is_past_first_line && line_starts_with(self, mark)) {
        memmove(self->line, self->line + mark.len, LINE_MAX_BYTES - mark.len);
        bool was_cut = self->line_len > LINE_MAX_BYTES;
        self->line_len = was_cut ? self->line_len : (uint8_t)(self->line_len - mark.len);
    }
    self->is_past_first_line = true;
}

static void end_line(struct pl_sse *self)
{
    drop_byte_order_mark(self);
    if (self->line_len == 0) {
        end_event(self);
    } else if (self->line[0] != ':') {
        take_field(self);
    }
    self->line_len = 0;
}

static void keep_line_start(struct pl_sse *self, const char *data, size_t len)
{
    if (self->line_len > LINE_MAX_BYTES) {
        return;
    }
    size_t take = PL_MIN(len, (size_t)LINE_MAX_BYTES - self->line_len);
    memcpy(self->line + self->line_len, data, take);
    self->line_len = (uint8_t)(self->line_len + take + (take < len));
}

static const char *find(const char *at, const char *end, char byte)
{
    const char *found = memchr(at, byte, (size_t)(end - at));
    return found != NULL ? found : end;
}

/* Takes the rest of a line with its line end, or all that there is. `*lf` is the first LF at or
 * behind `at`, or `end`; it is only searched anew once it is passed, so that a stream of bare CRs
 * is not searched again for every one of them. */
static const char *take_line(struct pl_sse *self, const char *at, const char *end, const char **lf)
{
    if (*lf == NULL || *lf < at) {
        *lf = find(at, end, '\n');
    }
    const char *line_end = find(at, *lf, '\r');
    keep_line_start(self, at, (size_t)(line_end - at));
    if (line_end == end) {
        return end;
    }
    self->last_was_cr = *line_end == '\r';
    end_line(self);
    return line_end + 1;
}

size_t pl_sse_feed(struct pl_sse *self, const char *data, size_t len)
{
    if (len == 0) {
        return 0;
    }
    const char *at = data;
    const char *end = data + len;
    const char *boundary = data;
    const char *lf = NULL;
    while (at < end) {
        bool completes_crlf = self->last_was_cr && *at == '\n';
        self->last_was_cr = false;
        at = completes_crlf ? at + 1 : take_line(self, at, end, &lf);
        self->in_event = self->event_is_open || self->line_len > 0;
        if (!self->in_event) {
            boundary = at;
        }
    }
    return (size_t)(boundary - data);
}
