/*
 * What the parts of config share. Nobody else includes this.
 */
#ifndef PL_CONFIG_INTERNAL_H
#define PL_CONFIG_INTERNAL_H

#include "config.h"

/** As printf, into a new string. */
char *pl_config_format(const char *fmt, ...) PL_PRINTF(1, 2);

/* config_files.c */

/** Reads the directory's .lua files and those of its folders, but for `spec` and hidden ones: all
 * as they are at one moment. */
PL_NODISCARD int pl_config_read_directory(struct pl_config *self, char **problems);
/** Adds a file, or replaces the one of that name. */
PL_NODISCARD int pl_config_set_file(struct pl_config *self, const struct pl_config_file *file,
                                    char **problems);
/** A file outside of the directory's .lua files, which the configuration depends on. */
void pl_config_add_path(struct pl_config *self, const char *path);
/** Of one file: another one when it was edited or replaced. */
uint64_t pl_config_file_mark(const char *path);
/** Sets `digest`. */
void pl_config_digest(struct pl_config *self);

/** What pl_config_unref does with the last reference; also for one that was never whole. */
void pl_config_free(struct pl_config *self);

/* config_read.c; all raise Lua errors. `index` is that of a normalised table, see perilune.config.
 */

void pl_config_read_all(struct pl_config *self, lua_State *L, int index);
/** `index` is that of the list that perilune.config.parts gives. */
void pl_config_read_parts(struct pl_config *self, lua_State *L, int index);
/** `index` is that of what perilune.config.show gives. */
void pl_config_read_shown(struct pl_config *self, lua_State *L, int index);
void pl_config_read_listen(struct pl_config *self, lua_State *L, int index);
void pl_config_read_limits(struct pl_config *self, lua_State *L, int index);
/** The pairs of that field. */
void pl_config_read_headers(lua_State *L, int index, const char *key, struct pl_headers *out);
/** The options tls_*; `key` is what they belong to, for what is said of them. The host is known. */
void pl_config_read_tls(struct pl_config *config, lua_State *L, int index, struct pl_endpoint *self,
                        const char *key);
/** A new string. */
char *pl_config_host_header(const char *host, uint16_t port, bool tls);

/* config_tracing.c */

void pl_config_read_tracing(struct pl_config *self, lua_State *L, int index);

#endif
