/*
 * Log: one line, one write(2), on stderr:
 *
 *     2025-03-01T12:00:00.123Z warn  text
 *
 * Thread: any. The line is built on
 * the caller's stack and is shorter than PIPE_BUF, so the kernel never mixes two of them. A line
 * that stderr does not take at once (a full non-blocking pipe) is lost: a log may not stall a
 * worker's loop any longer than the kernel does. errno is left as it was, so that logging between a
 * failed call and its handling is safe.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048 /* line feed included; POSIX guarantees PIPE_BUF >= 512, Linux 4096 */

static const char *const LEVEL_NAMES[] = {
    [PL_LOG_ERROR] = "error",
    [PL_LOG_WARN] = "warn",
    [PL_LOG_INFO] = "info",
    [PL_LOG_DEBUG] = "debug",
};

/* Written by the main thread, at start and by a reload; read by all. It orders nothing else. */
static _Atomic int max_level = PL_LOG_INFO;

void pl_log_set_level(enum pl_log_level level)
{
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

int pl_log_level_from_name(const char *name)
{
    for (size_t i = 0; i < PL_COUNT(LEVEL_NAMES); i++) {
        if (strcmp(name, LEVEL_NAMES[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static bool is_json; /* set before there are other threads */

void pl_log_set_json(bool on)
{
    is_json = on;
}

static size_t write_prefix(char *line, enum pl_log_level level)
{
    uint64_t wall_ms = pl_now_wall_ms();
    time_t seconds = (time_t)(wall_ms / 1000u);
    struct tm utc;
    if (gmtime_r(&seconds, &utc) == NULL) {
        memset(&utc, 0, sizeof(utc));
    }
    size_t len = strftime(line, LINE_MAX_BYTES,
                          is_json ? "{\"time\":\"%Y-%m-%dT%H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(line + len, LINE_MAX_BYTES - len,
                        is_json ? ".%03uZ\",\"level\":\"%s\",\"message\":\"" : ".%03uZ %-5s ",
                        (unsigned)(wall_ms % 1000u), LEVEL_NAMES[level]);
    return len + (size_t)more;
}

static size_t sequence_bytes(unsigned char lead)
{
    return lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
}

/* A cut never leaves half a UTF-8 character: drops the last sequence when it is incomplete. */
static size_t whole_characters(const char *line, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)line[len - back];
        if ((c & 0xc0) != 0x80) {
            return sequence_bytes(c) > back ? len - back : len;
        }
    }
    return len;
}

static void replace_control_bytes(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f) {
            text[i] = '?';
        }
    }
}

static void write_line(const char *line, size_t len)
{
    ssize_t written;
    do {
        written = write(STDERR_FILENO, line, len);
    } while (written < 0 && errno == EINTR);
}

/* As the inside of a JSON string: control bytes are gone already. What is not UTF-8 becomes '?'. */
static size_t escape(char *out, const char *text, size_t len)
{
    size_t out_len = 0;
    for (size_t i = 0; i < len;) {
        size_t part = pl_utf8_bytes(text + i, len - i);
        if (text[i] == '"' || text[i] == '\\') {
            out[out_len++] = '\\';
        }
        if (part > 0) {
            memcpy(out + out_len, text + i, part);
        } else {
            out[out_len] = '?';
        }
        out_len += PL_MAX(part, (size_t)1);
        i += PL_MAX(part, (size_t)1);
    }
    return out_len;
}

static void write_json_line(const char *line, size_t prefix_len, size_t len)
{
    char json[LINE_MAX_BYTES * 2];
    memcpy(json, line, prefix_len);
    size_t json_len = prefix_len + escape(json + prefix_len, line + prefix_len, len - prefix_len);
    memcpy(json + json_len, "\"}\n", 3);
    write_line(json, json_len + 3);
}

static void (*sink)(const char *line, size_t len, void *arg);
static void *sink_arg;

void pl_log_set_sink(void (*write)(const char *line, size_t len, void *arg), void *arg)
{
    sink = write;
    sink_arg = arg;
}

void pl_log(enum pl_log_level level, const char *fmt, ...)
{
    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed)) {
        return;
    }
    int saved_errno = errno;
    char line[LINE_MAX_BYTES];
    size_t len = write_prefix(line, level);
    size_t prefix_len = len;
    size_t room = LINE_MAX_BYTES - len; /* with vsnprintf's zero, where the line feed goes later */

    va_list args;
    va_start(args, fmt);
    errno = saved_errno; /* for %m */
    int wanted = vsnprintf(line + len, room, fmt, args);
    va_end(args);

    size_t text_len = wanted < 0 ? 0 : PL_MIN((size_t)wanted, room - 1);
    replace_control_bytes(line + len, text_len);
    len += text_len;
    if (wanted > 0 && (size_t)wanted > text_len) {
        len = whole_characters(line, len);
    }
    if (sink) {
        sink(line, len, sink_arg);
    } else if (is_json) {
        write_json_line(line, prefix_len, len);
    } else {
        line[len++] = '\n';
        write_line(line, len);
    }
    errno = saved_errno;
}
