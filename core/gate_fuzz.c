/*
 * Fuzz target of gate.c: however the stream is cut, the verdict and the event that made it are the
 * same, and memory stays bounded.
 */
#include "gate.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each piece from memory of its own, so that a sanitizer sees every byte read beyond it. */
static void feed(struct pl_gate *self, const char *data, size_t len)
{
    char *copy = malloc(len + 1);
    if (!copy)
        abort();
    memcpy(copy, data, len);
    pl_gate_feed(self, copy, len);
    free(copy);
    if (self->events.data_len > PL_GATE_EVENT_MAX_BYTES)
        abort();
}

static void compare(const struct pl_gate *a, const struct pl_gate *b)
{
    if (a->verdict != b->verdict || !pl_str_equal(pl_gate_data(a), pl_gate_data(b)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pl_gate whole, halves, bytes;
    if (size < 1)
        return 0;
    const char *text = (const char *)data + 1;
    size_t len = size - 1, cut = len * data[0] / 255;
    pl_gate_init(&whole);
    pl_gate_init(&halves);
    pl_gate_init(&bytes);
    feed(&whole, text, len);
    feed(&halves, text, cut);
    feed(&halves, text + cut, len - cut);
    for (size_t i = 0; i < len; i++)
        feed(&bytes, text + i, 1);
    compare(&whole, &halves);
    compare(&whole, &bytes);
    pl_gate_end(&whole);
    pl_gate_end(&bytes);
    if (whole.verdict == PL_GATE_WAIT || whole.verdict != bytes.verdict)
        abort();
    (void)pl_gate_judge_body((struct pl_str){text, len});
    pl_gate_deinit(&whole);
    pl_gate_deinit(&halves);
    pl_gate_deinit(&bytes);
    return 0;
}
