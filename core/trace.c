/*
 * Trace: see trace.h.
 */
#include "trace.h"

/* ---- traceparent ---------------------------------------------------------------------------- */

/* Lower case only: W3C Trace Context 3.2.2. -1: no digit. */
static int digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static bool read_hex(const char *text, size_t count, uint64_t *out)
{
    uint64_t number = 0;
    for (size_t i = 0; i < count; i++) {
        int value = digit(text[i]);
        if (value < 0)
            return false;
        number = number << 4 | (uint64_t)value;
    }
    *out = number;
    return true;
}

/* Versions to come may be longer, after another dash; 00 may not, and ff is none. */
static bool has_known_shape(struct pl_str text, uint64_t version)
{
    if (version == 0xff || (version == 0 && text.len != PL_TRACEPARENT_BYTES))
        return false;
    return text.len == PL_TRACEPARENT_BYTES || text.data[PL_TRACEPARENT_BYTES] == '-';
}

bool pl_trace_parse(struct pl_str text, struct pl_trace *out)
{
    uint64_t version, high, low, parent, flags;
    if (text.len < PL_TRACEPARENT_BYTES || text.data[2] != '-' || text.data[35] != '-' ||
        text.data[52] != '-')
        return false;
    if (!read_hex(text.data, 2, &version) || !has_known_shape(text, version) ||
        !read_hex(text.data + 3, 16, &high) || !read_hex(text.data + 19, 16, &low) ||
        !read_hex(text.data + 36, 16, &parent) || !read_hex(text.data + 53, 2, &flags))
        return false;
    if ((high | low) == 0 || parent == 0)
        return false;
    *out = (struct pl_trace){.id_high = high,
                             .id_low = low,
                             .parent_span_id = parent,
                             .sampled = (flags & PL_TRACE_FLAG_SAMPLED) != 0,
                             .random = (flags & PL_TRACE_FLAG_RANDOM) != 0};
    return true;
}

bool pl_trace_from_headers(const struct pl_headers *headers, struct pl_trace *out)
{
    struct pl_str text;
    return pl_headers_get(headers, PL_STR("traceparent"), &text) && pl_trace_parse(text, out) &&
           pl_headers_count(headers, PL_STR("traceparent")) == 1;
}

void pl_trace_put_parent(char *out, const struct pl_trace *self, uint64_t span_id)
{
    memcpy(out, "00-", 3);
    pl_put_hex16(out + 3, self->id_high);
    pl_put_hex16(out + 19, self->id_low);
    out[35] = '-';
    pl_put_hex16(out + 36, span_id);
    out[52] = '-';
    out[53] = '0';
    out[54] = (char)('0' + (self->sampled ? PL_TRACE_FLAG_SAMPLED : 0) +
                     (self->random ? PL_TRACE_FLAG_RANDOM : 0));
}

/* ---- ids and sampling ----------------------------------------------------------------------- */

uint64_t pl_trace_new_span_id(void)
{
    uint64_t id;
    do {
        id = pl_random_u64();
    } while (id == 0);
    return id;
}

/* By the id itself, so that all who sample by the same rule keep the same traces: the random bits,
 * read as a number, are among the `ratio` highest. */
static bool is_sampled(uint64_t id_low, double ratio)
{
    const double all = (double)((uint64_t)1 << PL_TRACE_ID_RANDOM_BITS);
    uint64_t bits = id_low & (((uint64_t)1 << PL_TRACE_ID_RANDOM_BITS) - 1);
    return ratio > 0 && (double)bits >= (1 - ratio) * all;
}

void pl_trace_begin(struct pl_trace *out, const struct pl_headers *headers, double sample_ratio)
{
    if (!pl_trace_from_headers(headers, out)) {
        *out = (struct pl_trace){
            .id_high = pl_random_u64(), .id_low = pl_trace_new_span_id(), .random = true};
        out->sampled = is_sampled(out->id_low, sample_ratio);
    }
    out->span_id = pl_trace_new_span_id();
}

/* ---- tracestate ----------------------------------------------------------------------------- */

struct members {
    struct pl_str items[PL_TRACESTATE_MAX_MEMBERS];
    size_t count, bytes; /* commas included, one for each */
};

static struct pl_str trimmed(struct pl_str text)
{
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
        text.len--;
    return text;
}

/* key=value of printable characters; more is the business of those whose members they are. */
static bool is_member(struct pl_str text)
{
    const char *equals = memchr(text.data, '=', text.len);
    if (!equals || equals == text.data)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < ' ' || text.data[i] > '~')
            return false;
    }
    return true;
}

/* Empty members are allowed, and left out. */
static bool add_members(struct members *self, struct pl_str field)
{
    while (field.len > 0) {
        const char *comma = memchr(field.data, ',', field.len);
        size_t len = comma ? (size_t)(comma - field.data) : field.len;
        struct pl_str member = trimmed((struct pl_str){field.data, len});
        if (member.len > 0) {
            if (self->count == PL_TRACESTATE_MAX_MEMBERS || !is_member(member))
                return false;
            self->items[self->count++] = member;
            self->bytes += member.len + 1;
        }
        len += comma ? 1 : 0;
        field.data += len;
        field.len -= len;
    }
    return true;
}

static bool gather(struct members *self, const struct pl_headers *headers)
{
    self->count = self->bytes = 0;
    for (size_t i = 0; i < headers->count; i++) {
        if (pl_str_equal_nocase(pl_headers_name(headers, i), PL_STR("tracestate")) &&
            !add_members(self, pl_headers_value(headers, i)))
            return false;
    }
    return true;
}

static void drop(struct members *self, size_t index)
{
    self->bytes -= self->items[index].len + 1;
    self->count--;
    memmove(&self->items[index], &self->items[index + 1],
            (self->count - index) * sizeof(self->items[0]));
}

/* W3C Trace Context 3.3.1.5: long members first, then from the end. */
static void shorten(struct members *self)
{
    for (size_t i = self->count; i-- > 0 && self->bytes > PL_TRACESTATE_MAX_BYTES + 1;) {
        if (self->items[i].len > PL_TRACESTATE_LONG_MEMBER)
            drop(self, i);
    }
    while (self->count > 0 && self->bytes > PL_TRACESTATE_MAX_BYTES + 1)
        drop(self, self->count - 1);
}

size_t pl_trace_put_state(char out[PL_TRACESTATE_MAX_BYTES], const struct pl_headers *headers)
{
    struct members members;
    size_t len = 0;
    if (!gather(&members, headers))
        return 0;
    shorten(&members);
    for (size_t i = 0; i < members.count; i++) {
        if (i > 0)
            out[len++] = ',';
        memcpy(out + len, members.items[i].data, members.items[i].len);
        len += members.items[i].len;
    }
    return len;
}
