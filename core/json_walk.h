/*
 * JSON, walked: one value after the other of an object or an array, where they lie in the text.
 *
 * Pure, any thread, no allocation. The text has been validated before (pl_json_validate): nothing
 * is checked again here, but no text whatever leads beyond its end.
 */
#ifndef PL_JSON_WALK_H
#define PL_JSON_WALK_H

#include "base.h"

struct pl_json_walk {
    const char *at, *end;
    bool in_object;
};

/** Begins before the first value. Of what is neither an object nor an array there is none. */
void pl_json_walk_init(struct pl_json_walk *self, struct pl_str container);
/**
 * Goes to the next value, as written: strings with their quotes. `key` gets the bytes between the
 * key's quotes, escapes and all; it is empty in an array, and may be NULL. False at the end.
 */
PL_NODISCARD bool pl_json_walk_next(struct pl_json_walk *self, struct pl_str *key,
                                    struct pl_str *value);
/** The value of a member of an object, the last one of that name; empty when there is none. */
struct pl_str pl_json_walk_member(struct pl_str object, struct pl_str key);
/** A value that says nothing: none at all, null, false, "", [] or {}. */
bool pl_json_is_blank(struct pl_str value);
/** What is between the quotes of a string, escapes and all; empty for any other value. */
struct pl_str pl_json_string_bytes(struct pl_str value);

#endif
