/*
 * Fuzz target of sse.c (libFuzzer): a plain reader, which keeps the whole stream and goes through
 * its lines as WHATWG HTML 9.2.6 has them, must find the same; and how the stream is cut must make
 * no difference.
 *
 * The first two bytes of the input say how it is cut.
 */
#include "sse.h"
#include <stdlib.h>

struct found {
    size_t boundary; /* where the last whole event ends */
    uint64_t event_count;
    bool seen_terminal, in_event;
    bool seen_error; /* only told by pl_sse */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the plain reader ----------------------------------------------------------------------- */

struct reader {
    struct pl_str stream;
    struct found found;
    bool is_open, has_data, is_terminal; /* of the event at hand */
};

static bool begins(struct pl_str line, struct pl_str start)
{
    return line.len >= start.len && memcmp(line.data, start.data, start.len) == 0;
}

/* The line is "name: value", or without the space. */
static bool is_field(struct pl_str line, struct pl_str name, struct pl_str value)
{
    if (!begins(line, name))
        return false;
    struct pl_str rest = {line.data + name.len, line.len - name.len};
    if (pl_str_equal(rest, value))
        return true;
    return rest.len > 0 && rest.data[0] == ' ' &&
           pl_str_equal((struct pl_str){rest.data + 1, rest.len - 1}, value);
}

static bool is_terminal(struct pl_str line)
{
    static const struct pl_str names[] = {PL_STR("message_stop"), PL_STR("response.completed"),
                                          PL_STR("response.failed"), PL_STR("response.incomplete")};
    for (size_t i = 0; i < PL_COUNT(names); i++) {
        if (is_field(line, PL_STR("event:"), names[i]))
            return true;
    }
    return is_field(line, PL_STR("data:"), PL_STR("[DONE]"));
}

static void read_line(struct reader *self, struct pl_str line, size_t end)
{
    if (line.len == 0) {
        self->found.event_count += self->has_data;
        self->found.seen_terminal |= self->is_terminal;
        self->is_open = self->has_data = self->is_terminal = false;
    } else if (line.data[0] != ':') {
        self->is_open = true;
        self->has_data |= begins(line, PL_STR("data:")) || pl_str_equal(line, PL_STR("data"));
        self->is_terminal |= is_terminal(line);
    }
    if (!self->is_open)
        self->found.boundary = end;
}

/* The length of the line end at `at`, 0 when there is none. */
static size_t line_end_at(struct pl_str stream, size_t at)
{
    if (stream.data[at] == '\n')
        return 1;
    if (stream.data[at] != '\r')
        return 0;
    return at + 1 < stream.len && stream.data[at + 1] == '\n' ? 2 : 1;
}

static struct found read_plainly(struct pl_str stream)
{
    struct reader self = {.stream = stream};
    size_t start = 0;
    bool is_first = true;
    for (size_t at = 0; at < stream.len;) {
        size_t width = line_end_at(stream, at);
        if (width == 0) {
            at++;
            continue;
        }
        struct pl_str line = {stream.data + start, at - start};
        if (is_first && begins(line, PL_STR("\xEF\xBB\xBF")))
            line = (struct pl_str){line.data + 3, line.len - 3};
        is_first = false;
        at += width;
        start = at;
        read_line(&self, line, at);
    }
    self.found.in_event = self.is_open || start < stream.len;
    return self.found;
}

/* ---- the one that is tested ----------------------------------------------------------------- */

static struct found feed(struct pl_str stream, size_t first_bytes, size_t step_bytes)
{
    struct pl_sse sse;
    struct found found = {0};
    pl_sse_init(&sse);
    for (size_t at = 0; at < stream.len;) {
        size_t want = at == 0 && first_bytes > 0 ? first_bytes : step_bytes;
        size_t len = PL_MIN(want, stream.len - at);
        /* memory of its own, so that a sanitizer sees every byte read beyond it */
        char *copy = malloc(len);
        if (!copy)
            abort();
        memcpy(copy, stream.data + at, len);
        size_t boundary = pl_sse_feed(&sse, copy, len);
        free(copy);
        if (boundary > len || sse.in_event != (boundary < len))
            abort();
        if (boundary > 0)
            found.boundary = at + boundary;
        at += len;
    }
    if (sse.seen_data != (sse.event_count > 0))
        abort();
    found.event_count = sse.event_count;
    found.seen_terminal = sse.seen_terminal;
    found.in_event = sse.in_event;
    found.seen_error = sse.seen_error;
    return found;
}

static void compare(struct found a, struct found b)
{
    if (a.boundary != b.boundary || a.event_count != b.event_count ||
        a.seen_terminal != b.seen_terminal || a.in_event != b.in_event ||
        a.seen_error != b.seen_error)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct pl_str stream = {(const char *)data + 2, size - 2};
    struct found expected = read_plainly(stream);
    expected.seen_error = feed(stream, 0, size).seen_error;
    compare(expected, feed(stream, 0, size));
    compare(expected, feed(stream, 0, 1));
    compare(expected, feed(stream, stream.len * data[0] / 255, size));
    compare(expected, feed(stream, 0, 1 + (size_t)data[1]));
    return 0;
}
