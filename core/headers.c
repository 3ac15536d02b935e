/*
 * Headers: see headers.h.
 *
 * Pure, any thread. A list owns one arena with the bytes of all names and values, and an array of
 * offsets into it, so an add costs no allocation once both have grown. Removing a field leaves its
 * bytes in the arena until the list is cleared: lists live as long as one message, no longer.
 */
#include "headers.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ARENA_BYTES 1024
#define FIRST_ITEM_COUNT  16

/* PL_STR for static tables, which may not hold compound literals. */
#define NAME(literal)                                                                              \
    {                                                                                              \
        (literal), sizeof(literal) - 1                                                             \
    }

/* tchar, RFC 9110 5.6.2. */
static const bool IS_TOKEN_BYTE[256] = {
    ['!'] = true,         ['#'] = true,         ['$'] = true,         ['%'] = true, ['&'] = true,
    ['\''] = true,        ['*'] = true,         ['+'] = true,         ['-'] = true, ['.'] = true,
    ['^'] = true,         ['_'] = true,         ['`'] = true,         ['|'] = true, ['~'] = true,
    ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true,
};

void pl_headers_init(struct pl_headers *self)
{
    memset(self, 0, sizeof(*self));
}

void pl_headers_deinit(struct pl_headers *self)
{
    free(self->arena);
    free(self->items);
    pl_headers_init(self);
}

void pl_headers_clear(struct pl_headers *self)
{
    self->arena_len = 0;
    self->count = 0;
}

bool pl_header_name_is_valid(struct pl_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (!IS_TOKEN_BYTE[(uint8_t)name.data[i]]) {
            return false;
        }
    }
    return name.len > 0;
}

/* True when one of eight bytes is a control byte (HTAB too) or DEL. May also be true when none is,
 * which costs a closer look; is never false when one is. */
static bool may_hold_control(const char *at)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    uint64_t del = word ^ (ones * 0x7f);
    uint64_t found = ((word - ones * 0x20) & ~word) | ((del - ones) & ~del);
    return (found & (ones * 0x80)) != 0;
}

bool pl_header_value_is_valid(struct pl_str value)
{
    size_t i = 0;
    while (value.len - i >= sizeof(uint64_t) && !may_hold_control(value.data + i)) {
        i += sizeof(uint64_t);
    }
    for (; i < value.len; i++) {
        uint8_t byte = (uint8_t)value.data[i];
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
            return false;
        }
    }
    return true;
}

/* Makes room for `extra_bytes` more. Returns the arena that was outgrown, for the caller to free
 * once it has copied: the bytes being added may lie in it. */
static char *grow_arena(struct pl_headers *self, size_t extra_bytes)
{
    size_t need = self->arena_len + extra_bytes;
    if (need <= self->arena_cap) {
        return NULL;
    }
    char *outgrown = self->arena;
    size_t cap = PL_MAX(PL_MAX(self->arena_cap * 2, need), (size_t)FIRST_ARENA_BYTES);
    self->arena = pl_xmalloc(cap);
    self->arena_cap = cap;
    if (self->arena_len > 0) {
        memcpy(self->arena, outgrown, self->arena_len);
    }
    return outgrown;
}

static uint32_t append(struct pl_headers *self, struct pl_str bytes)
{
    size_t offset = self->arena_len;
    if (bytes.len > 0) {
        memcpy(self->arena + offset, bytes.data, bytes.len);
    }
    self->arena_len += bytes.len;
    return (uint32_t)offset;
}

void pl_headers_keep_bytes(struct pl_headers *self, const char *data, size_t len)
{
    char *outgrown = grow_arena(self, len);
    (void)append(self, (struct pl_str){data, len});
    free(outgrown);
}

void pl_headers_add_place(struct pl_headers *self, struct pl_header place)
{
    if (self->count == self->cap) {
        self->cap = PL_MAX(self->cap * 2, (size_t)FIRST_ITEM_COUNT);
        self->items = pl_xrealloc(self->items, self->cap * sizeof(*self->items));
    }
    self->items[self->count++] = place;
}

int pl_headers_add(struct pl_headers *self, struct pl_str name, struct pl_str value)
{
    if (!pl_header_name_is_valid(name) || !pl_header_value_is_valid(value)) {
        return PL_ERR_SYNTAX;
    }
    /* Offsets are 32 bits wide. */
    size_t room = UINT32_MAX - self->arena_len;
    if (name.len > room || value.len > room - name.len) {
        return PL_ERR_LIMIT;
    }
    char *outgrown = grow_arena(self, name.len + value.len);
    struct pl_header place = {.name_len = (uint32_t)name.len, .value_len = (uint32_t)value.len};
    place.name_offset = append(self, name);
    place.value_offset = append(self, value);
    free(outgrown);
    pl_headers_add_place(self, place);
    return PL_OK;
}

struct pl_str pl_headers_name(const struct pl_headers *self, size_t index)
{
    const struct pl_header *item = &self->items[index];
    return (struct pl_str){self->arena + item->name_offset, item->name_len};
}

struct pl_str pl_headers_value(const struct pl_headers *self, size_t index)
{
    const struct pl_header *item = &self->items[index];
    return (struct pl_str){self->arena + item->value_offset, item->value_len};
}

void pl_headers_copy(struct pl_headers *self, const struct pl_headers *from)
{
    if (self->arena_cap < from->arena_len) {
        self->arena = pl_xrealloc(self->arena, from->arena_len);
        self->arena_cap = from->arena_len;
    }
    if (self->cap < from->count) {
        self->items = pl_xrealloc(self->items, from->count * sizeof(*self->items));
        self->cap = from->count;
    }
    if (from->count > 0) {
        memcpy(self->arena, from->arena, from->arena_len);
        memcpy(self->items, from->items, from->count * sizeof(*self->items));
    }
    self->arena_len = from->arena_len;
    self->count = from->count;
}

size_t pl_headers_remove(struct pl_headers *self, struct pl_str name)
{
    size_t kept = 0;
    size_t count = self->count;
    for (size_t i = 0; i < count; i++) {
        if (!pl_str_equal_nocase(pl_headers_name(self, i), name)) {
            self->items[kept++] = self->items[i];
        }
    }
    self->count = kept;
    return count - kept;
}

bool pl_headers_get(const struct pl_headers *self, struct pl_str name, struct pl_str *out)
{
    for (size_t i = 0; i < self->count; i++) {
        if (pl_str_equal_nocase(pl_headers_name(self, i), name)) {
            *out = pl_headers_value(self, i);
            return true;
        }
    }
    return false;
}

size_t pl_headers_count(const struct pl_headers *self, struct pl_str name)
{
    size_t found = 0;
    for (size_t i = 0; i < self->count; i++) {
        found += pl_str_equal_nocase(pl_headers_name(self, i), name);
    }
    return found;
}

static bool is_one_of(struct pl_str name, const struct pl_str *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (pl_str_equal_nocase(name, names[i])) {
            return true;
        }
    }
    return false;
}

bool pl_header_is_hop_by_hop(struct pl_str name)
{
    static const struct pl_str NAMES[] = {
        NAME("connection"), NAME("keep-alive"), NAME("transfer-encoding"),
        NAME("te"),         NAME("trailer"),    NAME("upgrade"),
    };
    const struct pl_str proxy = PL_STR("proxy-");
    struct pl_str start = {name.data, PL_MIN(name.len, proxy.len)};
    return pl_str_equal_nocase(start, proxy) || is_one_of(name, NAMES, PL_COUNT(NAMES));
}

bool pl_header_is_credential(struct pl_str name)
{
    /* What vendors' SDKs, clouds and the gateways in front of them authenticate with. */
    static const struct pl_str NAMES[] = {
        NAME("authorization"),
        NAME("proxy-authorization"),
        NAME("cookie"),
        NAME("x-api-key"),
        NAME("api-key"),
        NAME("apikey"),
        NAME("x-goog-api-key"),
        NAME("x-amz-security-token"),
        NAME("ocp-apim-subscription-key"),
        NAME("x-auth-token"),
        NAME("x-access-token"),
        NAME("x-forwarded-access-token"),
        NAME("cf-aig-authorization"),
        NAME("cf-access-client-secret"),
        NAME("cf-access-jwt-assertion"),
        NAME("x-portkey-api-key"),
        NAME("x-litellm-api-key"),
        NAME("helicone-auth"),
    };
    return is_one_of(name, NAMES, PL_COUNT(NAMES));
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

void pl_headers_trim(struct pl_headers *self)
{
    for (size_t i = 0; i < self->count; i++) {
        struct pl_str value = trim(pl_headers_value(self, i));
        self->items[i].value_offset = (uint32_t)(value.data - self->arena);
        self->items[i].value_len = (uint32_t)value.len;
    }
}

void pl_headers_cut(struct pl_headers *self, size_t arena_bytes)
{
    free(self->items);
    self->items = NULL;
    self->count = self->cap = 0;
    self->arena_len = self->arena_cap = PL_MIN(arena_bytes, self->arena_len);
    if (self->arena_len == 0) {
        free(self->arena);
        self->arena = NULL;
    } else {
        self->arena = pl_xrealloc(self->arena, self->arena_len);
    }
}

bool pl_header_lists_token(struct pl_str value, struct pl_str token)
{
    while (value.len > 0) {
        const char *comma = memchr(value.data, ',', value.len);
        size_t part_len = comma != NULL ? (size_t)(comma - value.data) : value.len;
        if (pl_str_equal_nocase(trim((struct pl_str){value.data, part_len}), token)) {
            return true;
        }
        size_t used = comma != NULL ? part_len + 1 : part_len;
        value.data += used;
        value.len -= used;
    }
    return false;
}

bool pl_headers_say_events(const struct pl_headers *self)
{
    static const struct pl_str events = PL_STR("text/event-stream");
    struct pl_str type;
    return pl_headers_get(self, PL_STR("content-type"), &type) && type.len >= events.len &&
           pl_str_equal_nocase((struct pl_str){type.data, events.len}, events);
}

bool pl_headers_list_token(const struct pl_headers *self, struct pl_str name, struct pl_str token)
{
    for (size_t i = 0; i < self->count; i++) {
        if (pl_str_equal_nocase(pl_headers_name(self, i), name) &&
            pl_header_lists_token(pl_headers_value(self, i), token)) {
            return true;
        }
    }
    return false;
}
