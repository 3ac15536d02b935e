/*
 * JSON writing: objects and arrays appended to a growing text, for the admin listener. Pure.
 *
 * Commas and quotes are put where they belong; nesting is the caller's to keep balanced. A key of
 * NULL is for values that stand in an array.
 */
#ifndef PL_JSON_WRITE_H
#define PL_JSON_WRITE_H

#include "base.h"

struct pl_json_text {
    char *data; /* zero-terminated once anything was written */
    size_t len, cap;
    bool needs_comma;
};

void pl_json_text_init(struct pl_json_text *self);
void pl_json_text_deinit(struct pl_json_text *self);
/** `bracket` is '{' or '['. */
void pl_json_open(struct pl_json_text *self, const char *key, char bracket);
/** `bracket` is '}' or ']'. */
void pl_json_close(struct pl_json_text *self, char bracket);
/** NULL writes null. */
void pl_json_put_string(struct pl_json_text *self, const char *key, const char *value);
void pl_json_put_bool(struct pl_json_text *self, const char *key, bool value);
void pl_json_put_u64(struct pl_json_text *self, const char *key, uint64_t value);
/** JSON as it is. */
void pl_json_put_raw(struct pl_json_text *self, const char *key, const char *json, size_t len);
/** With three decimals. */
void pl_json_put_number(struct pl_json_text *self, const char *key, double value);

#endif
