/*
 * JSON: one strict scan of an object's top-level members, and edits made by splicing.
 *
 * Pure, any thread. Bodies are never decoded and encoded again here: that would reorder keys, turn
 * [] into {} and lose integers above 2^53. The scan validates the whole text (RFC 8259, UTF-8
 * included, nesting bounded), so that what it accepts every other parser reads the same way;
 * duplicate top-level keys are refused, because two readers could take different ones.
 */
#ifndef PL_JSON_H
#define PL_JSON_H

#include "base.h"
#include <sys/uio.h>

#define PL_JSON_MAX_DEPTH     128
#define PL_JSON_MAX_MEMBERS   256 /* top level */
#define PL_JSON_MAX_KEY_BYTES 256 /* top level, as written; bounds the search for duplicates */

enum pl_json_type {
    PL_JSON_NULL,
    PL_JSON_FALSE,
    PL_JSON_TRUE,
    PL_JSON_NUMBER,
    PL_JSON_STRING,
    PL_JSON_ARRAY,
    PL_JSON_OBJECT,
};

struct pl_json_member {
    size_t start;                  /* offset of the key's opening quote */
    size_t key_start, key_len;     /* the key's raw bytes between the quotes */
    size_t value_start, value_len; /* raw value text, quotes included for strings */
    size_t end;                    /* offset just past the value */
    enum pl_json_type type;
    bool key_has_escape; /* compare decoded, see pl_json_find */
};

/** The scan of one object. Holds offsets only; `text` is borrowed and must stay as it was. */
struct pl_json {
    const char *text;
    size_t text_len;
    size_t open, close; /* offsets of '{' and of its '}' */
    struct pl_json_member *members;
    size_t count, cap;
    size_t error_offset; /* when the scan fails */
    const char *error;   /* static text, such as "duplicate key" or "unexpected end" */
};

void pl_json_init(struct pl_json *self);
void pl_json_deinit(struct pl_json *self);
/**
 * Scans `text`, which must be one JSON object with nothing but white space around it. 0,
 * PL_ERR_SYNTAX or PL_ERR_LIMIT (depth, member count, key length); then error and error_offset are
 * set and no member is found.
 */
PL_NODISCARD int pl_json_scan(struct pl_json *self, const char *text, size_t len);
/** The member of that (decoded) key, or NULL. */
const struct pl_json_member *pl_json_find(const struct pl_json *self, struct pl_str key);
/**
 * Decodes a JSON string literal (quotes included) into a new zero-terminated string; `*len` gets
 * its length, as it may hold NUL. NULL when the literal is broken (lone surrogates included).
 */
char *pl_json_decode_string(const char *literal, size_t literal_len, size_t *len);
/** Encodes bytes as a JSON string literal, quotes included: a new string, invalid UTF-8 replaced.
 */
char *pl_json_encode_string(const char *data, size_t data_len, size_t *len);
/** 0 when `text` is exactly one valid JSON value of any type, else PL_ERR_SYNTAX or PL_ERR_LIMIT.
 */
PL_NODISCARD int pl_json_validate(const char *text, size_t len);

/** One change to a top-level member: set (value is raw JSON text) or, with value.data NULL, unset.
 */
struct pl_json_edit {
    struct pl_str key;   /* decoded key */
    struct pl_str value; /* raw JSON text, borrowed, or data NULL */
};

/** The edited text as pieces: runs of the original text, of the edits' values, and of `glue`. */
struct pl_json_splice {
    struct iovec *pieces;
    size_t count, cap;
    size_t total_bytes;
    char *glue; /* separators and encoded keys of inserted members */
};

void pl_json_splice_init(struct pl_json_splice *self);
void pl_json_splice_deinit(struct pl_json_splice *self);
/**
 * Applies `edits` (at most one per key; a later one wins) to the scanned object. A set replaces the
 * value where it stands or appends a member before the closing brace; an unset of a key that is not
 * there does nothing. The pieces borrow the scanned text and the edits' values.
 *
 * PL_ERR_SYNTAX when a value is not exactly one JSON value or a key is not UTF-8, PL_ERR_LIMIT when
 * the result would break a limit: whatever is made, the scan accepts.
 */
PL_NODISCARD int pl_json_splice_make(struct pl_json_splice *self, const struct pl_json *json,
                                     const struct pl_json_edit *edits, size_t edit_count);

#endif
