/*
 * Process: the gateway, or the simulator, as it runs: sockets, workers, the control plane's loop,
 * signals, the end.
 */
#ifndef PL_PROCESS_H
#define PL_PROCESS_H

#include "config.h"

struct pl_process_options {
    const char *directory;                /* to reload from; NULL: nothing is reloaded */
    struct pl_config_overrides overrides; /* for what is reloaded */
    bool watch;                           /* reload when files change */
};

/** Serves until a signal ends it; takes over a reference to `config`. Returns an exit status. */
int pl_process_run(struct pl_config *config, const struct pl_process_options *options);

#endif
