/*
 * Events written anew: see rescue_write.h.
 */
#include "rescue_write.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES 256

void pl_rescue_text_reserve(struct pl_rescue_text *self, size_t bytes)
{
    if (bytes <= self->cap)
        return;
    self->cap = PL_MAX(self->cap * 2, bytes);
    self->data = pl_xrealloc(self->data, self->cap);
}

void pl_rescue_put(struct pl_rescue_text *self, struct pl_str text)
{
    if (text.len == 0)
        return;
    if (self->len + text.len > self->cap)
        pl_rescue_text_reserve(self, self->len + text.len + FIRST_BYTES);
    memcpy(self->data + self->len, text.data, text.len);
    self->len += text.len;
}

void pl_rescue_put_number(struct pl_rescue_text *self, uint64_t number)
{
    char digits[PL_NUMBER_MAX];
    pl_rescue_put(self, (struct pl_str){digits, pl_put_decimal(digits, number)});
}

void pl_rescue_text_deinit(struct pl_rescue_text *self)
{
    free(self->data);
    *self = (struct pl_rescue_text){0};
}

void pl_rescue_edit(struct pl_rescue_edits *self, struct pl_str at, struct pl_str by)
{
    if (at.len == 0)
        return;
    assert(self->count < PL_RESCUE_EDITS_MAX);
    size_t place = self->count++;
    for (; place > 0 && self->list[place - 1].at.data > at.data; place--)
        self->list[place] = self->list[place - 1];
    self->list[place] = (struct pl_rescue_edit){at, by};
}

void pl_rescue_put_edited(struct pl_rescue_text *self, struct pl_str text,
                          const struct pl_rescue_edits *edits)
{
    const char *from = text.data;
    for (size_t i = 0; i < edits->count; i++) {
        const struct pl_rescue_edit *edit = &edits->list[i];
        pl_rescue_put(self, (struct pl_str){from, (size_t)(edit->at.data - from)});
        pl_rescue_put(self, edit->by);
        from = edit->at.data + edit->at.len;
    }
    pl_rescue_put(self, (struct pl_str){from, (size_t)(text.data + text.len - from)});
}

void pl_rescue_put_event(struct pl_rescue_text *self, struct pl_str name, struct pl_str data,
                         const struct pl_rescue_edits *edits)
{
    if (name.len > 0) {
        pl_rescue_put(self, PL_STR("event: "));
        pl_rescue_put(self, name);
        pl_rescue_put(self, PL_STR("\n"));
    }
    pl_rescue_put(self, PL_STR("data: "));
    size_t start = self->len;
    pl_rescue_put_edited(self, data, edits);
    for (size_t i = start; i < self->len; i++) {
        if (self->data[i] == '\n') /* between the data lines that it came in */
            self->data[i] = ' ';
    }
    pl_rescue_put(self, PL_STR("\n\n"));
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

struct pl_str pl_rescue_with_comma(struct pl_str object, struct pl_str member)
{
    const char *from = member.data, *to = member.data + member.len;
    const char *first = object.data, *end = object.data + object.len;
    if (member.len == 0)
        return member;
    const char *at = to;
    while (at < end && is_space(*at))
        at++;
    if (at < end && *at == ',')
        return (struct pl_str){from, (size_t)(at + 1 - from)};
    for (at = from; at > first && is_space(at[-1]);)
        at--;
    if (at > first && at[-1] == ',')
        from = at - 1;
    return (struct pl_str){from, (size_t)(to - from)};
}
