/*
 * OTLP writing: strings, numbers and attributes (KeyValue) as OTLP's JSON has them. A part of otlp.
 * Pure.
 *
 * Attributes stand in an array; the comma before one is put where it belongs. `name` is plain text
 * of the program's own.
 */
#ifndef PL_OTLP_WRITE_H
#define PL_OTLP_WRITE_H

#include "otlp.h"

/** Appends bytes as they are. */
void pl_otlp_put(struct pl_otlp_text *self, const char *data, size_t len);
#define PL_OTLP_PUT(self, literal) pl_otlp_put(self, literal, sizeof(literal) - 1)
/** Appends what stands between the quotes of a JSON string, cut to PL_OTLP_STRING_MAX_BYTES. */
void pl_otlp_put_escaped(struct pl_otlp_text *self, struct pl_str text);
void pl_otlp_put_number(struct pl_otlp_text *self, uint64_t number);
/** 16 digits. */
void pl_otlp_put_hex(struct pl_otlp_text *self, uint64_t number);

/* ---- attributes ---- */

void pl_otlp_put_str(struct pl_otlp_text *self, const char *name, struct pl_str value);
/** Nothing for NULL. */
void pl_otlp_put_text(struct pl_otlp_text *self, const char *name, const char *value);
/** Nothing for a number below 0. */
void pl_otlp_put_int(struct pl_otlp_text *self, const char *name, int64_t value);
/** Nothing for false. */
void pl_otlp_put_true(struct pl_otlp_text *self, const char *name, bool value);
void pl_otlp_put_seconds(struct pl_otlp_text *self, const char *name, uint32_t duration_ms);
/** One whose name is the operator's. */
void pl_otlp_put_resource(struct pl_otlp_text *self, struct pl_str name, struct pl_str value);

#endif
