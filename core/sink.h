/*
 * Sink: lines from many threads into a file or a pipe, without ever blocking who writes them.
 *
 * A line is copied into a buffer; one thread of the sink's own writes buffers out. When the reader
 * at the other end is slow, stopped or gone, or the disk is full, the buffer fills up, and what
 * does not fit is dropped and counted: the log suffers, not the requests.
 *
 * Thread: pl_sink_write, _reopen and the counters from any thread; the rest from the one that made
 * it. A writer holds a lock for as long as copying its line takes.
 */
#ifndef PL_SINK_H
#define PL_SINK_H

#include "base.h"

#define PL_SINK_BUFFER_BYTES (4 * 1024 * 1024)

struct pl_sink;

/** Opens `path` for appending (made with mode 0640 if it is not there), or takes standard output
 *  for "-". NULL with a sentence in `error`. */
struct pl_sink *pl_sink_new(const char *path, char *error, size_t error_size);
/** Writes out what is buffered, waiting for at most `wait_ms`, and frees it. NULL is let pass. */
void pl_sink_free(struct pl_sink *self, uint32_t wait_ms);

/** Takes a copy of `line`, which includes its end. False when it was dropped. */
bool pl_sink_write(struct pl_sink *self, const char *line, size_t len);
/** Opens the path anew, soon: the file may have been moved away. What was buffered before goes into
 *  either. When the new one cannot be opened, the old one stays. */
void pl_sink_reopen(struct pl_sink *self);

/** Lines that were dropped: the buffer was full, or they could not be written. */
uint64_t pl_sink_dropped_total(struct pl_sink *self);
/** Lines that have been taken. */
uint64_t pl_sink_line_total(struct pl_sink *self);

#endif
