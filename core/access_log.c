/*
 * Access log: see access_log.h.
 */
#include "access_log.h"
#include <stdlib.h>

#define KEPT_BYTES 65536 /* a longer buffer, of a line with bodies, is given back */

void pl_access_log_init(struct pl_access_log *self, struct pl_sink *sink)
{
    self->sink = sink;
    pl_record_text_init(&self->text);
}

void pl_access_log_deinit(struct pl_access_log *self)
{
    pl_record_text_deinit(&self->text);
}

void pl_access_log_add(struct pl_access_log *self, const struct pl_access_log_rules *rules,
                       const struct pl_record *record)
{
    struct pl_record_text *text = &self->text;
    text->len = 0;
    if (rules->is_plain)
        pl_record_put_plain(text, record);
    else
        pl_record_put_json(text, record);
    pl_record_put(text, "\n", 1);
    (void)pl_sink_write(self->sink, text->data, text->len);
    if (text->cap > KEPT_BYTES) {
        pl_record_text_deinit(text);
        pl_record_text_init(text);
    }
}

void pl_access_log_take(struct pl_access_log *self, struct pl_record_text *text)
{
    pl_record_put(text, "\n", 1);
    (void)pl_sink_write(self->sink, text->data, text->len);
}
