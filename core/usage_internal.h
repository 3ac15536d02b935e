/*
 * What the parts of usage share: usage.c goes through an answer byte by byte as it comes,
 * usage_body.c looks into one that came whole.
 */
#ifndef PL_USAGE_INTERNAL_H
#define PL_USAGE_INTERNAL_H

#include "usage.h"

#define PL_USAGE_DEPTH_MAX 1000 /* deeper is no answer of a model */

/** Takes over the counts of an object's text, whose brackets and strings match. */
void pl_usage_read_object(struct pl_usage *self, const char *text, size_t len);

/** What the inside of a JSON string says, at most PL_USAGE_MODEL_MAX_BYTES; NULL when it is not
 *  valid. The caller frees it. */
char *pl_usage_unescaped(const char *text, size_t len);

/**
 * Reads a body that is one whole JSON object; false, and nothing has changed, when it is not, or
 * anything in it is not as usual. The scan must be at its beginning. In what is valid it finds what
 * the bytewise scan would.
 */
bool pl_usage_read_body(struct pl_usage_scan *self, const char *data, size_t len);

#endif
