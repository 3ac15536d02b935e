/*
 * What the parts of config share. Nobody else includes this.
 */
#ifndef PL_CONFIG_INTERNAL_H
#define PL_CONFIG_INTERNAL_H

#include "config.h"

/** As printf, into a new string. */
char *pl_config_format(const char *fmt, ...) PL_PRINTF(1, 2);

/* config_files.c */

/** Reads the directory's .lua files and those of its folders, but for `spec` and hidden ones. */
PL_NODISCARD int pl_config_read_directory(struct pl_config *self, char **problems);
/** Adds a file, or replaces the one of that name. */
PL_NODISCARD int pl_config_set_file(struct pl_config *self, const struct pl_config_file *file,
                                    char **problems);

/* config_read.c; all raise Lua errors. `index` is that of a normalised table, see perilune.config.
 */

void pl_config_read_all(struct pl_config *self, lua_State *L, int index);
void pl_config_read_listen(struct pl_config *self, lua_State *L, int index);
void pl_config_read_limits(struct pl_config *self, lua_State *L, int index);

#endif
