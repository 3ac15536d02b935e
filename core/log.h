/*
 * Log: lines on stderr, one write(2) each, so that threads never mix.
 *
 * Levels by consequence: error, someone must act; warn, a request or a target suffered; info, a
 * state changed; debug, the rest. Nothing secret may be passed in.
 */
#ifndef PL_LOG_H
#define PL_LOG_H

#include "base.h"

enum pl_log_level { PL_LOG_ERROR, PL_LOG_WARN, PL_LOG_INFO, PL_LOG_DEBUG };

/** Lines above this level are dropped, from now on. Default: info. */
void pl_log_set_level(enum pl_log_level level);
/** Level from its name ("error", "warn", "info", "debug"); -1 when unknown. */
int pl_log_level_from_name(const char *name);
/** From now on lines are JSON objects with time, level, message, or, as at first, text. At start.
 */
void pl_log_set_json(bool on);
/** From now on lines (without line feed) go to `write` instead of stderr; NULL: to stderr. For
 *  commands that play requests on one thread. */
void pl_log_set_sink(void (*write)(const char *line, size_t len, void *arg), void *arg);
/** Writes one line. Lines over 2 KB are cut; control bytes are replaced by '?'. */
void pl_log(enum pl_log_level level, const char *fmt, ...) PL_PRINTF(2, 3);

#endif
