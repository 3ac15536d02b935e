/*
 * Redact: takes the secrets out of the first bytes of a body, so that they may be logged.
 *
 * Pure. The bytes may be cut anywhere, may be no JSON, or events with JSON in them, or JSON in a
 * JSON string (a tool's arguments): it looks for `"name": value`, the quotes escaped or not, and
 * not at the structure. In doubt it takes out more than it must.
 */
#ifndef PL_REDACT_H
#define PL_REDACT_H

#include "base.h"

/** A name as it is compared: lower case, without '-', '_', '.' and spaces. A new string. */
char *pl_redact_name(const char *name);

/**
 * Puts "[redacted]" in place of the values of members whose names end like a credential's
 * (api_key, authorization, token, password, secret) or are one of `names` (in the form above,
 * NULL-terminated; NULL: none). A new string, and its length.
 */
char *pl_redact(struct pl_str text, char *const *names, size_t *out_len);

#endif
