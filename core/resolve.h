/*
 * Resolve: host names to addresses, off the event loop, with a small cache per worker.
 *
 * Thread: one worker; not shared. Uses libevent's evdns (hosts file included), A and AAAA. Answers
 * are kept for 30 s, failures for 1 s (evdns tells no TTL). Numeric addresses never wait.
 */
#ifndef PL_RESOLVE_H
#define PL_RESOLVE_H

#include "base.h"
#include <event2/event.h>
#include <sys/socket.h>

#define PL_RESOLVE_MAX_ADDRESSES 16

struct pl_address {
    struct sockaddr_storage storage;
    socklen_t len;
};

struct pl_addresses {
    struct pl_address items[PL_RESOLVE_MAX_ADDRESSES];
    size_t count;
};

struct pl_resolver;
struct pl_resolve_query;

/** `error` is NULL on success. `addresses` is borrowed for the call. */
typedef void (*pl_resolve_cb)(void *arg, const struct pl_addresses *addresses, const char *error);

/** NULL when the system's resolver configuration cannot be read at all. */
struct pl_resolver *pl_resolver_new(struct event_base *base);
/** The same with another file than /etc/resolv.conf. */
struct pl_resolver *pl_resolver_new_from(struct event_base *base, const char *resolv_conf_file);
/** Queries end without a callback. Lookups under way give their memory back in the next turn of the
 *  loop. */
void pl_resolver_free(struct pl_resolver *self);
/**
 * Looks `host` up. When the answer is at hand (numeric, cached) it is stored in `*out` and NULL is
 * returned without a callback; otherwise the callback comes later, never from inside. A failure at
 * hand also comes later.
 */
struct pl_resolve_query *pl_resolve_start(struct pl_resolver *self, const char *host, uint16_t port,
                                          struct pl_addresses *out, pl_resolve_cb cb, void *arg);
/** No callback will come. Safe while a lookup is under way; not from its own callback, when it is
 *  already gone. */
void pl_resolve_cancel(struct pl_resolve_query *query);

#endif
