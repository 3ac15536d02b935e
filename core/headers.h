/*
 * Headers: an ordered list of HTTP header fields that owns its bytes, and the rules a proxy keeps.
 *
 * Pure, any thread. Names keep the spelling they came in and are compared without case. Values that
 * could break a message apart (CR, LF, NUL) cannot be stored.
 */
#ifndef PL_HEADERS_H
#define PL_HEADERS_H

#include "base.h"

struct pl_header {
    uint32_t name_offset, name_len;
    uint32_t value_offset, value_len;
};

struct pl_headers {
    char *arena; /* the bytes of all names and values */
    size_t arena_len, arena_cap;
    struct pl_header *items;
    size_t count, cap;
};

void pl_headers_init(struct pl_headers *self);
void pl_headers_deinit(struct pl_headers *self);
/** Empties the list and keeps its memory. */
void pl_headers_clear(struct pl_headers *self);

/**
 * Appends a copy. PL_ERR_SYNTAX when the name is not a token (RFC 9110 5.6.2) or the value holds
 * CR, LF, NUL or another control byte but tab.
 */
PL_NODISCARD int pl_headers_add(struct pl_headers *self, struct pl_str name, struct pl_str value);
/**
 * For the head of a message that its reader has checked already: keep_bytes appends to the arena,
 * which is the head then, and add_place a field that lies there (or will); trim takes the white
 * space off all values once the arena is whole.
 */
void pl_headers_keep_bytes(struct pl_headers *self, const char *data, size_t len);
void pl_headers_add_place(struct pl_headers *self, struct pl_header place);
void pl_headers_trim(struct pl_headers *self);
/** Drops all fields, and of the arena all but its first bytes; gives the memory back. */
void pl_headers_cut(struct pl_headers *self, size_t arena_bytes);
/** Makes `self` a copy of `from`. */
void pl_headers_copy(struct pl_headers *self, const struct pl_headers *from);
/** Removes every field of that name; returns how many. */
size_t pl_headers_remove(struct pl_headers *self, struct pl_str name);
/** First field of that name. False when there is none. `out` is valid until the next add. */
bool pl_headers_get(const struct pl_headers *self, struct pl_str name, struct pl_str *out);
/** How many fields have that name. */
size_t pl_headers_count(const struct pl_headers *self, struct pl_str name);
/** True when one of the fields of that name lists `token`, see pl_header_lists_token. */
bool pl_headers_list_token(const struct pl_headers *self, struct pl_str name, struct pl_str token);

/** Whether the message's body is a stream of events, by its Content-Type. */
bool pl_headers_say_events(const struct pl_headers *self);

struct pl_str pl_headers_name(const struct pl_headers *self, size_t index);
struct pl_str pl_headers_value(const struct pl_headers *self, size_t index);

/** Connection, Keep-Alive, Transfer-Encoding, TE, Trailer, Upgrade, Proxy-*: RFC 9110 7.6.1. */
bool pl_header_is_hop_by_hop(struct pl_str name);
/** Fields that carry a client's credential: Authorization, x-api-key, api-key, Cookie, ... */
bool pl_header_is_credential(struct pl_str name);
/** True when a comma-separated value (such as Connection's) lists `token`, without case. */
bool pl_header_lists_token(struct pl_str value, struct pl_str token);
bool pl_header_name_is_valid(struct pl_str name);
bool pl_header_value_is_valid(struct pl_str value);

#endif
