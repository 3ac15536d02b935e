/*
 * Bundle: the Lua library, embedded into the binary. The table is in a file that core/embed.lua
 * writes at build time from lua/perilune.
 *
 * Thread: any; constant. Files are sources, not bytecode.
 */
#ifndef PL_BUNDLE_H
#define PL_BUNDLE_H

#include <stddef.h>

struct pl_bundle_file {
    const char *name; /* module name: "perilune", "perilune.sim.options" */
    const char *data; /* zero-terminated */
    size_t len;
};

/** Sorted by name (byte order), ended by an entry whose name is NULL. */
extern const struct pl_bundle_file pl_embedded_files[];

#endif
