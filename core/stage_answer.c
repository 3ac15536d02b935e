/*
 * An upstream's answer as data: see stage.h.
 */
#include "stage.h"
#include <stdlib.h>
#include <string.h>

struct pl_stage_answer *pl_stage_answer_new(void)
{
    struct pl_stage_answer *self = pl_xcalloc(1, sizeof(*self));
    self->reference_count = 1;
    self->status = 200;
    pl_headers_init(&self->headers);
    return self;
}

void pl_stage_answer_ref(struct pl_stage_answer *self)
{
    self->reference_count++;
}

void pl_stage_answer_unref(struct pl_stage_answer *self)
{
    if (!self || --self->reference_count > 0)
        return;
    pl_headers_deinit(&self->headers);
    free(self->pieces);
    free(self->bytes);
    free(self);
}

void pl_stage_answer_add(struct pl_stage_answer *self, uint64_t after_us, const char *data,
                         size_t len)
{
    if (self->piece_count == self->piece_cap) {
        self->piece_cap = self->piece_cap ? self->piece_cap * 2 : 4;
        self->pieces = pl_xrealloc(self->pieces, self->piece_cap * sizeof(*self->pieces));
    }
    if (self->byte_count + len > self->byte_cap) {
        self->byte_cap = PL_MAX(self->byte_cap * 2, self->byte_count + len);
        self->bytes = pl_xrealloc(self->bytes, self->byte_cap);
    }
    if (len > 0)
        memcpy(self->bytes + self->byte_count, data, len);
    self->pieces[self->piece_count++] =
        (struct pl_stage_piece){.after_us = after_us, .offset = self->byte_count, .len = len};
    self->byte_count += len;
}
