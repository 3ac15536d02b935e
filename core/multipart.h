/*
 * Multipart: finds one form field in a multipart/form-data body (RFC 7578), for the endpoints whose
 * model is a form field (audio, image edits). Pure, any thread; borrows the body, copies nothing.
 */
#ifndef PL_MULTIPART_H
#define PL_MULTIPART_H

#include "base.h"

#define PL_MULTIPART_MAX_PARTS 256

/** Where a field's value lies in the body. */
struct pl_multipart_field {
    size_t value_start, value_len;
    bool found;
};

/**
 * The boundary parameter of a Content-Type value, unquoted, into `out` (at most 70 bytes, RFC 2046
 * 5.1.1). PL_ERR_ABSENT when the type is not multipart/form-data, PL_ERR_SYNTAX when the boundary
 * is missing or broken.
 */
PL_NODISCARD int pl_multipart_boundary(struct pl_str content_type, char out[71], size_t *out_len);
/**
 * Finds the field `name` (a part without a filename). The whole body is checked: PL_ERR_SYNTAX when
 * a delimiter or a part head is broken, the closing delimiter is missing, or the field stands
 * twice; PL_ERR_LIMIT past PL_MULTIPART_MAX_PARTS or when a part's head is over 8 KiB. What readers
 * could take differently (bare LF, padding, escapes, a field that may be a file) is a syntax error
 * too. `error` gets a static sentence, NULL on success.
 */
PL_NODISCARD int pl_multipart_find(const char *body, size_t len, struct pl_str boundary,
                                   struct pl_str name, struct pl_multipart_field *out,
                                   const char **error);

#endif
