/*
 * JSON, between its own files: what splicing needs of scanning and encoding. See json.h.
 *
 * Pure, any thread.
 */
#ifndef PL_JSON_INTERNAL_H
#define PL_JSON_INTERNAL_H

#include "base.h"

/** Bytes that so many encoded bytes may need: each as an escape, and the quotes. */
#define PL_JSON_ENCODED_MAX(data_len) (6 * (data_len) + 2)

/** As pl_json_validate, for a value that is to stand inside `depth` containers. */
PL_NODISCARD int pl_json_validate_inside(const char *text, size_t len, unsigned depth);
/** Encodes into `out`, which holds PL_JSON_ENCODED_MAX bytes. Returns how many were written. */
size_t pl_json_encode_into(char *out, const char *data, size_t len);
bool pl_json_is_utf8(const char *data, size_t len);

#endif
