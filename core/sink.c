/*
 * Sink: see sink.h.
 *
 * Two buffers: writers fill one, the thread writes out the other, and they change places under the
 * lock. The thread waits with poll before each write and hands the kernel no more than a pipe is
 * sure to take, so that it can be told to end while a reader does not read.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "sink.h"
#include "log.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POLL_MS     100
#define GATHER_US   5000 /* lines that come within this are written together */
#define COMPLAIN_MS 60000
#define FILE_MODE   0640
#define PIECE_BYTES PIPE_BUF     /* what a pipe that can be written takes at once */
#define BLOCK_BYTES (256 * 1024) /* the same of a file, which never has one wait */
#define FIRST_BYTES 4096

struct buffer {
    char *data;
    size_t len, cap;
    uint64_t line_count;
};

struct pl_sink {
    char *path; /* NULL: standard output */
    int fd;     /* the thread's */
    bool is_file;
    uint64_t complained_ms;
    pthread_t thread;

    pthread_mutex_t lock; /* over all below */
    pthread_cond_t wake;
    struct buffer filling;
    uint64_t line_total, dropped_total;
    bool reopen_due, ending;
    uint64_t end_by_ms; /* when ending */
};

/* ---- writers -------------------------------------------------------------------------------- */

/* Room for `len` more bytes; false when the buffer is at its bound. */
static bool make_room(struct buffer *self, size_t len)
{
    if (len > PL_SINK_BUFFER_BYTES - self->len)
        return false;
    if (self->len + len <= self->cap)
        return true;
    size_t cap = self->cap ? self->cap : FIRST_BYTES;
    while (cap < self->len + len)
        cap *= 2;
    self->data = pl_xrealloc(self->data, cap);
    self->cap = cap;
    return true;
}

bool pl_sink_write(struct pl_sink *self, const char *line, size_t len)
{
    pthread_mutex_lock(&self->lock);
    bool was_empty = self->filling.len == 0;
    bool taken = make_room(&self->filling, len);
    if (taken) {
        memcpy(self->filling.data + self->filling.len, line, len);
        self->filling.len += len;
        self->filling.line_count++;
        self->line_total++;
    } else {
        self->dropped_total++;
    }
    pthread_mutex_unlock(&self->lock);
    if (taken && was_empty)
        pthread_cond_signal(&self->wake);
    return taken;
}

void pl_sink_reopen(struct pl_sink *self)
{
    pthread_mutex_lock(&self->lock);
    self->reopen_due = true;
    pthread_mutex_unlock(&self->lock);
    pthread_cond_signal(&self->wake);
}

uint64_t pl_sink_dropped_total(struct pl_sink *self)
{
    pthread_mutex_lock(&self->lock);
    uint64_t total = self->dropped_total;
    pthread_mutex_unlock(&self->lock);
    return total;
}

uint64_t pl_sink_line_total(struct pl_sink *self)
{
    pthread_mutex_lock(&self->lock);
    uint64_t total = self->line_total;
    pthread_mutex_unlock(&self->lock);
    return total;
}

/* ---- the thread ----------------------------------------------------------------------------- */

static int open_path(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, FILE_MODE);
}

static bool is_file(int fd)
{
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

/* Once a minute at most: a full disk would fill the other log, too. */
static void complain(struct pl_sink *self, const char *what, int error)
{
    uint64_t now_ms = pl_now_ms();
    if (self->complained_ms != 0 && now_ms - self->complained_ms < COMPLAIN_MS)
        return;
    self->complained_ms = now_ms;
    pl_log(PL_LOG_ERROR, "access log %s: %s: %s", self->path ? self->path : "(standard output)",
           what, strerror(error));
}

static void reopen(struct pl_sink *self)
{
    int fd = self->path ? open_path(self->path) : -1;
    if (fd >= 0) {
        close(self->fd);
        self->fd = fd;
        self->is_file = is_file(fd);
    } else if (self->path) {
        complain(self, "cannot be opened anew", errno);
    }
}

/* Whether the time is up; otherwise waits a little for the reader. */
static bool wait_for_reader(struct pl_sink *self)
{
    struct pollfd poll_fd = {.fd = self->fd, .events = POLLOUT};
    pthread_mutex_lock(&self->lock);
    bool late = self->ending && pl_now_ms() >= self->end_by_ms;
    pthread_mutex_unlock(&self->lock);
    if (!late)
        (void)poll(&poll_fd, 1, POLL_MS);
    return late;
}

/* Writes a piece; how much went out, 0 to try again, or -1. */
static ssize_t write_piece(struct pl_sink *self, const char *data, size_t len)
{
    struct pollfd poll_fd = {.fd = self->fd, .events = POLLOUT};
    if (!self->is_file && poll(&poll_fd, 1, 0) == 0)
        return 0; /* standard output may be a blocking pipe */
    size_t max = self->is_file ? BLOCK_BYTES : PIECE_BYTES;
    ssize_t n = write(self->fd, data, PL_MIN(len, max));
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static uint64_t count_lines(const char *data, size_t len)
{
    uint64_t count = 0;
    const char *end;
    for (; (end = memchr(data, '\n', len)); count++) {
        len -= (size_t)(end + 1 - data);
        data = end + 1;
    }
    return count;
}

static void count_dropped(struct pl_sink *self, uint64_t line_count)
{
    pthread_mutex_lock(&self->lock);
    self->dropped_total += line_count;
    pthread_mutex_unlock(&self->lock);
}

static void write_out(struct pl_sink *self, const struct buffer *buffer)
{
    size_t at = 0;
    while (at < buffer->len) {
        ssize_t n = write_piece(self, buffer->data + at, buffer->len - at);
        if (n > 0) {
            at += (size_t)n;
        } else if (n < 0) {
            complain(self, "cannot be written", errno);
            break;
        } else if (wait_for_reader(self)) {
            break;
        }
    }
    if (at < buffer->len)
        count_dropped(self, count_lines(buffer->data + at, buffer->len - at));
}

/* Waits for lines; false when there are none and the sink ends. `out` gets what was filled. */
static bool take_filled(struct pl_sink *self, struct buffer *out)
{
    pthread_mutex_lock(&self->lock);
    while (self->filling.len == 0 && !self->reopen_due && !self->ending)
        pthread_cond_wait(&self->wake, &self->lock);
    bool reopen_due = self->reopen_due;
    bool more = self->filling.len > 0 || !self->ending;
    struct buffer filled = self->filling;
    self->filling = (struct buffer){.data = out->data, .cap = out->cap};
    self->reopen_due = false;
    pthread_mutex_unlock(&self->lock);
    *out = filled;
    if (reopen_due)
        reopen(self);
    return more;
}

static void *run(void *arg)
{
    struct pl_sink *self = arg;
    struct buffer buffer = {0};
    while (take_filled(self, &buffer)) {
        write_out(self, &buffer);
        buffer.len = 0;
        usleep(GATHER_US);
    }
    free(buffer.data);
    return NULL;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* Signals are the main thread's. */
static int start_thread(struct pl_sink *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&self->thread, NULL, run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void sink_free(struct pl_sink *self)
{
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->lock);
    if (self->path && self->fd >= 0)
        close(self->fd);
    free(self->filling.data);
    free(self->path);
    free(self);
}

struct pl_sink *pl_sink_new(const char *path, char *error, size_t error_size)
{
    struct pl_sink *self = pl_xcalloc(1, sizeof(*self));
    bool is_stdout = strcmp(path, "-") == 0;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->wake, NULL);
    self->path = is_stdout ? NULL : pl_xstrdup(path);
    self->fd = is_stdout ? STDOUT_FILENO : open_path(path);
    self->is_file = self->fd >= 0 && is_file(self->fd);
    int failed = self->fd < 0 ? errno : start_thread(self);
    if (failed == 0)
        return self;
    snprintf(error, error_size, "%s: %s", path, strerror(failed));
    sink_free(self);
    return NULL;
}

void pl_sink_free(struct pl_sink *self, uint32_t wait_ms)
{
    if (!self)
        return;
    pthread_mutex_lock(&self->lock);
    self->ending = true;
    self->end_by_ms = pl_now_ms() + wait_ms;
    pthread_mutex_unlock(&self->lock);
    pthread_cond_signal(&self->wake);
    pthread_join(self->thread, NULL);
    sink_free(self);
}
