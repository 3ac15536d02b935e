/*
 * JSON writing: see json_write.h.
 */
#include "json_write.h"
#include "json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pl_json_text_init(struct pl_json_text *self)
{
    *self = (struct pl_json_text){0};
}

void pl_json_text_deinit(struct pl_json_text *self)
{
    free(self->data);
}

static void put(struct pl_json_text *self, const char *data, size_t len)
{
    if (self->len + len + 1 > self->cap) {
        self->cap = PL_MAX(self->cap * 2, self->len + len + 256);
        self->data = pl_xrealloc(self->data, self->cap);
    }
    memcpy(self->data + self->len, data, len);
    self->len += len;
    self->data[self->len] = '\0';
}

static void put_quoted(struct pl_json_text *self, const char *text)
{
    size_t len;
    char *quoted = pl_json_encode_string(text, strlen(text), &len);
    put(self, quoted, len);
    free(quoted);
}

/* The comma before, and the key. */
static void begin(struct pl_json_text *self, const char *key)
{
    if (self->needs_comma)
        put(self, ",", 1);
    self->needs_comma = true;
    if (key) {
        put_quoted(self, key);
        put(self, ":", 1);
    }
}

void pl_json_open(struct pl_json_text *self, const char *key, char bracket)
{
    begin(self, key);
    put(self, &bracket, 1);
    self->needs_comma = false;
}

void pl_json_close(struct pl_json_text *self, char bracket)
{
    put(self, &bracket, 1);
    self->needs_comma = true;
}

void pl_json_put_string(struct pl_json_text *self, const char *key, const char *value)
{
    begin(self, key);
    if (value)
        put_quoted(self, value);
    else
        put(self, "null", 4);
}

void pl_json_put_bool(struct pl_json_text *self, const char *key, bool value)
{
    begin(self, key);
    put(self, value ? "true" : "false", value ? 4 : 5);
}

void pl_json_put_u64(struct pl_json_text *self, const char *key, uint64_t value)
{
    char digits[PL_NUMBER_MAX];
    size_t len = pl_put_decimal(digits, value);
    begin(self, key);
    put(self, digits, len);
}

void pl_json_put_number(struct pl_json_text *self, const char *key, double value)
{
    char text[64];
    int len = snprintf(text, sizeof(text), "%.3f", value);
    begin(self, key);
    put(self, text, (size_t)len);
}

void pl_json_put_raw(struct pl_json_text *self, const char *key, const char *json, size_t len)
{
    begin(self, key);
    put(self, json, len);
}
