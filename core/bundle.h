/*
 * Bundle: the Lua library and the dashboard's files, embedded into the binary. The tables are in
 * files that core/embed.lua writes at build time from lua/perilune and core/dashboard.
 *
 * Thread: any; constant. Files are sources, not bytecode.
 */
#ifndef PL_BUNDLE_H
#define PL_BUNDLE_H

#include <stddef.h>

struct pl_bundle_file {
    const char *name; /* module name: "perilune", "perilune.sim.options"; or file name */
    const char *data; /* zero-terminated */
    size_t len;
};

/** Sorted by name (byte order), ended by an entry whose name is NULL. */
extern const struct pl_bundle_file pl_embedded_files[];
/** The same of core/dashboard, by their file names. */
extern const struct pl_bundle_file pl_embedded_assets[];

#endif
