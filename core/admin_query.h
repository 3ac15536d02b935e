/*
 * Query: what stands behind the '?' of an admin request. Pure.
 */
#ifndef PL_ADMIN_QUERY_H
#define PL_ADMIN_QUERY_H

#include "base.h"

#define PL_QUERY_VALUE_BYTES 512

/** The value of `key` as it stands there; false when it is not there. */
bool pl_query_find(struct pl_str query, const char *key, struct pl_str *out);
/** The decoded value of `key`; false when it is not there, broken or too long. */
bool pl_query_value(struct pl_str query, const char *key, char out[PL_QUERY_VALUE_BYTES]);
/** Whether each parameter is one of `keys` (ends with NULL), with a value, and no key comes twice.
 * If not, `*stranger` is the first that is not. */
bool pl_query_has_only(struct pl_str query, const char *const *keys, struct pl_str *stranger);
/** "250ms", "30s", "5m", "1h"; at most 1e12 ms. */
bool pl_query_duration_ms(const char *text, uint64_t *out_ms);
/** "10%", with the sign bare, as people type it, or encoded. */
bool pl_query_percent(struct pl_str text, double *out_ratio);

#endif
