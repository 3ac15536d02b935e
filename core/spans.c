/*
 * Spans: see spans.h. A list of batches, of which the newest is being filled; all under one lock.
 */
#include "spans.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define KEPT_TEXT_BYTES 65536 /* a worker keeps no more for the next request */

struct pl_spans {
    const char *scheme;
    int wake_fd;
    pthread_mutex_t lock; /* over all below */
    size_t limit_bytes;
    struct pl_span_batch *first, *last;
    struct pl_spans_counts counts;
};

const char *pl_span_drop_name(enum pl_span_drop reason)
{
    static const char *const names[PL_SPAN_DROP_COUNT] = {
        [PL_SPAN_DROP_QUEUE_FULL] = "queue_full",
        [PL_SPAN_DROP_REJECTED] = "rejected",
        [PL_SPAN_DROP_UNREACHABLE] = "unreachable",
        [PL_SPAN_DROP_SHUTDOWN] = "shutdown",
    };
    return names[reason];
}

struct pl_spans *pl_spans_new(const char *scheme)
{
    struct pl_spans *self = pl_xcalloc(1, sizeof(*self));
    self->scheme = scheme;
    self->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->wake_fd < 0)
        abort();
    pthread_mutex_init(&self->lock, NULL);
    return self;
}

void pl_spans_free(struct pl_spans *self)
{
    if (!self)
        return;
    pl_spans_drop_all(self, PL_SPAN_DROP_SHUTDOWN);
    pthread_mutex_destroy(&self->lock);
    close(self->wake_fd);
    free(self);
}

/* ---- filling -------------------------------------------------------------------------------- */

static size_t batch_cost(const struct pl_span_batch *batch)
{
    return sizeof(*batch) + batch->block_cap * sizeof(*batch->blocks) +
           batch->block_count * PL_SPANS_BLOCK_BYTES;
}

static bool is_full(const struct pl_span_batch *batch, size_t bytes, size_t span_count)
{
    return batch->span_count + span_count > PL_SPANS_BATCH_COUNT ||
           batch->bytes + bytes > PL_SPANS_BATCH_MAX_BYTES;
}

static size_t room_in(const struct pl_span_batch *batch)
{
    return batch->block_count * PL_SPANS_BLOCK_BYTES - batch->bytes;
}

/* Blocks for so many more bytes. Below the lock: a block is a call of malloc, every so often. */
static void add_blocks(struct pl_span_batch *batch, size_t block_count)
{
    while (batch->block_cap < batch->block_count + block_count) {
        batch->block_cap = PL_MAX(batch->block_cap * 2, (size_t)8);
        batch->blocks = pl_xrealloc(batch->blocks, batch->block_cap * sizeof(*batch->blocks));
    }
    for (; block_count > 0; block_count--)
        batch->blocks[batch->block_count++] =
            (struct iovec){.iov_base = pl_xmalloc(PL_SPANS_BLOCK_BYTES)};
}

static void append(struct pl_span_batch *batch, const char *data, size_t len)
{
    while (len > 0) {
        struct iovec *block = &batch->blocks[batch->bytes / PL_SPANS_BLOCK_BYTES];
        size_t part = PL_MIN(len, PL_SPANS_BLOCK_BYTES - block->iov_len);
        memcpy((char *)block->iov_base + block->iov_len, data, part);
        block->iov_len += part;
        batch->bytes += part;
        data += part;
        len -= part;
    }
}

static struct pl_span_batch *begin_batch(struct pl_spans *self)
{
    struct pl_span_batch *batch = pl_xcalloc(1, sizeof(*batch));
    if (self->last)
        self->last->next = batch;
    else
        self->first = batch;
    self->last = batch;
    return batch;
}

/* The batch that these spans go into, with room for them; NULL: there is none. */
static struct pl_span_batch *make_room(struct pl_spans *self, size_t bytes, size_t span_count)
{
    struct pl_span_batch *batch = self->last;
    bool begins = !batch || is_full(batch, bytes, span_count);
    size_t room = begins ? 0 : room_in(batch);
    size_t block_count =
        bytes > room ? (bytes - room + PL_SPANS_BLOCK_BYTES - 1) / PL_SPANS_BLOCK_BYTES : 0;
    if (self->counts.queued_bytes + block_count * PL_SPANS_BLOCK_BYTES > self->limit_bytes)
        return NULL;
    if (begins)
        batch = begin_batch(self);
    size_t before_bytes = begins ? 0 : batch_cost(batch);
    add_blocks(batch, block_count);
    self->counts.queued_bytes += batch_cost(batch) - before_bytes;
    return batch;
}

/* Whether a batch has become full by it, and the exporter should know. */
static bool add(struct pl_spans *self, const char *data, size_t len, size_t span_count)
{
    struct pl_span_batch *before = self->last;
    struct pl_span_batch *batch = make_room(self, len + 1, span_count);
    if (!batch) {
        self->counts.dropped[PL_SPAN_DROP_QUEUE_FULL] += span_count;
        return false;
    }
    if (batch->bytes > 0)
        append(batch, ",", 1);
    append(batch, data, len);
    batch->span_count += span_count;
    self->counts.queued += span_count;
    return before && batch != before;
}

void pl_spans_add(struct pl_spans *self, struct pl_otlp_text *text, const struct pl_record *record)
{
    if (!record->trace.sampled)
        return;
    text->len = 0;
    size_t span_count = pl_otlp_put_spans(text, record, self->scheme);
    pthread_mutex_lock(&self->lock);
    bool wakes = self->limit_bytes > 0 && add(self, text->data, text->len, span_count);
    pthread_mutex_unlock(&self->lock);
    if (wakes)
        (void)!eventfd_write(self->wake_fd, 1);
    if (text->cap > KEPT_TEXT_BYTES) {
        pl_otlp_text_deinit(text);
        pl_otlp_text_init(text);
    }
}

/* ---- emptying ------------------------------------------------------------------------------- */

static void batch_free(struct pl_span_batch *batch)
{
    for (size_t i = 0; i < batch->block_count; i++)
        free(batch->blocks[i].iov_base);
    free(batch->blocks);
    free(batch);
}

int pl_spans_wake_fd(const struct pl_spans *self)
{
    return self->wake_fd;
}

void pl_spans_set_limit(struct pl_spans *self, size_t limit_bytes)
{
    pthread_mutex_lock(&self->lock);
    self->limit_bytes = limit_bytes;
    pthread_mutex_unlock(&self->lock);
}

struct pl_span_batch *pl_spans_take(struct pl_spans *self, bool is_partial_too)
{
    pthread_mutex_lock(&self->lock);
    struct pl_span_batch *batch = self->first;
    if (batch && (is_partial_too || batch != self->last)) {
        self->first = batch->next;
        if (!self->first)
            self->last = NULL;
        batch->next = NULL;
    } else {
        batch = NULL;
    }
    pthread_mutex_unlock(&self->lock);
    return batch;
}

static void release(struct pl_spans *self, struct pl_span_batch *batch)
{
    self->counts.queued -= batch->span_count;
    self->counts.queued_bytes -= batch_cost(batch);
}

void pl_spans_settle(struct pl_spans *self, struct pl_span_batch *batch, uint64_t rejected_count)
{
    rejected_count = PL_MIN(rejected_count, batch->span_count);
    pthread_mutex_lock(&self->lock);
    self->counts.exported += batch->span_count - rejected_count;
    self->counts.dropped[PL_SPAN_DROP_REJECTED] += rejected_count;
    release(self, batch);
    pthread_mutex_unlock(&self->lock);
    batch_free(batch);
}

void pl_spans_drop(struct pl_spans *self, struct pl_span_batch *batch, enum pl_span_drop reason)
{
    pthread_mutex_lock(&self->lock);
    self->counts.dropped[reason] += batch->span_count;
    release(self, batch);
    pthread_mutex_unlock(&self->lock);
    batch_free(batch);
}

void pl_spans_drop_all(struct pl_spans *self, enum pl_span_drop reason)
{
    struct pl_span_batch *batch;
    while ((batch = pl_spans_take(self, true)))
        pl_spans_drop(self, batch, reason);
}

/* ---- counts --------------------------------------------------------------------------------- */

void pl_spans_count_failure(struct pl_spans *self)
{
    pthread_mutex_lock(&self->lock);
    self->counts.failed_exports++;
    pthread_mutex_unlock(&self->lock);
}

void pl_spans_look(struct pl_spans *self, struct pl_spans_counts *out)
{
    pthread_mutex_lock(&self->lock);
    *out = self->counts;
    pthread_mutex_unlock(&self->lock);
}
