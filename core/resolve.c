/*
 * Resolve: see resolve.h.
 *
 * Thread: one worker. The resolver owns lookups, one per name; a lookup that has its answer is the
 * cache entry of that name. Queries are what callers hold: they wait on a lookup, or on the loop
 * when a failure is already known. So a name is asked for once, however many wait for it, and a
 * cancelled query never touches what evdns is doing: the lookup goes on and fills the cache.
 *
 * libevent 2.1.12 reads evdns's base in the callback of a cancelled evdns_getaddrinfo
 * (evdns.c:4487) even when that base has been freed since; it is safe only for requests that
 * evdns_base_free ends itself. Therefore nothing here calls evdns_getaddrinfo_cancel, and a lookup
 * that outlives its resolver frees itself in that last callback.
 */
#include "resolve.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/event_struct.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_CACHED_NAMES 64
#define ANSWER_KEPT_MS   30000
#define FAILURE_KEPT_MS  1000

enum lookup_state { LOOKUP_PENDING, LOOKUP_READY, LOOKUP_FAILED };

struct lookup {
    struct pl_resolver *resolver; /* NULL once that is gone */
    struct lookup *next;
    enum lookup_state state;
    bool telling; /* its callbacks are running: it must stay, whatever they start */
    uint64_t expires_ms;
    struct pl_resolve_query *waiting; /* in any order; only while pending */
    struct pl_address *addresses;     /* with port 0 */
    size_t address_count;
    const char *error; /* static text */
    char name[];
};

struct pl_resolve_query {
    struct pl_resolve_query **home; /* the list it is in */
    struct pl_resolve_query *next;
    uint16_t port;
    const char *error;     /* for `deferred` */
    struct event deferred; /* tells of a failure that was known at once */
    pl_resolve_cb cb;
    void *arg;
};

struct pl_resolver {
    struct event_base *base;
    struct evdns_base *dns;
    struct lookup *lookups; /* newest first */
    size_t lookup_count;
    struct pl_resolve_query *deferred; /* queries that wait for the loop only */
};

/* ---- addresses ---- */

static void set_port(struct pl_address *address, uint16_t port)
{
    if (address->storage.ss_family == AF_INET) {
        ((struct sockaddr_in *)&address->storage)->sin_port = htons(port);
    } else {
        ((struct sockaddr_in6 *)&address->storage)->sin6_port = htons(port);
    }
}

static bool parse_numeric(const char *host, struct pl_address *out)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&out->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->storage;
    memset(&out->storage, 0, sizeof(out->storage));
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        out->len = sizeof(*in);
        return true;
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        out->len = sizeof(*in6);
        return true;
    }
    return false;
}

static void copy_addresses(const struct lookup *lookup, uint16_t port, struct pl_addresses *out)
{
    out->count = lookup->address_count;
    for (size_t i = 0; i < out->count; i++) {
        out->items[i] = lookup->addresses[i];
        set_port(&out->items[i], port);
    }
}

static bool is_usable(const struct evutil_addrinfo *info)
{
    return (info->ai_family == AF_INET || info->ai_family == AF_INET6) &&
           info->ai_addrlen <= sizeof(struct sockaddr_storage);
}

static void keep_addresses(struct lookup *self, const struct evutil_addrinfo *answer)
{
    self->addresses = pl_xcalloc(PL_RESOLVE_MAX_ADDRESSES, sizeof(*self->addresses));
    for (const struct evutil_addrinfo *at = answer; at != NULL; at = at->ai_next) {
        if (self->address_count < PL_RESOLVE_MAX_ADDRESSES && is_usable(at)) {
            struct pl_address *address = &self->addresses[self->address_count++];
            memcpy(&address->storage, at->ai_addr, at->ai_addrlen);
            address->len = (socklen_t)at->ai_addrlen;
        }
    }
    size_t count = PL_MAX(self->address_count, 1);
    self->addresses = pl_xrealloc(self->addresses, count * sizeof(*self->addresses));
}

/* ---- queries ---- */

static struct pl_resolve_query *query_new(struct pl_resolve_query **home, uint16_t port,
                                          pl_resolve_cb cb, void *arg)
{
    struct pl_resolve_query *self = pl_xcalloc(1, sizeof(*self));
    self->home = home;
    self->port = port;
    self->cb = cb;
    self->arg = arg;
    self->next = *home;
    *home = self;
    return self;
}

static void query_unlink(struct pl_resolve_query *self)
{
    struct pl_resolve_query **link = self->home;
    while (*link != self) {
        link = &(*link)->next;
    }
    *link = self->next;
}

void pl_resolve_cancel(struct pl_resolve_query *query)
{
    query_unlink(query);
    if (query->error != NULL) {
        event_del(&query->deferred);
    }
    free(query);
}

static void on_deferred(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_resolve_query *self = arg;
    query_unlink(self);
    self->cb(self->arg, NULL, self->error);
    free(self);
}

static struct pl_resolve_query *defer_failure(struct pl_resolver *resolver, const char *error,
                                              pl_resolve_cb cb, void *arg)
{
    struct pl_resolve_query *self = query_new(&resolver->deferred, 0, cb, arg);
    self->error = error;
    event_assign(&self->deferred, resolver->base, -1, 0, on_deferred, self);
    event_active(&self->deferred, EV_TIMEOUT, 0);
    return self;
}

static void drop_queries(struct pl_resolve_query **home)
{
    while (*home != NULL) {
        pl_resolve_cancel(*home);
    }
}

/* ---- lookups ---- */

static void lookup_free(struct lookup *self)
{
    free(self->addresses);
    free(self);
}

static void tell_waiting(struct lookup *self)
{
    struct pl_addresses addresses;
    self->telling = true;
    while (self->waiting != NULL) {
        struct pl_resolve_query *query = self->waiting;
        self->waiting = query->next;
        if (self->state == LOOKUP_READY) {
            copy_addresses(self, query->port, &addresses);
            query->cb(query->arg, &addresses, NULL);
        } else {
            query->cb(query->arg, NULL, self->error);
        }
        free(query);
    }
    self->telling = false;
}

/** evdns's callback; it may come from inside evdns_getaddrinfo (hosts file), when none waits yet.
 */
static void on_answer(int error, struct evutil_addrinfo *answer, void *arg)
{
    struct lookup *self = arg;
    if (self->resolver == NULL) {
        lookup_free(self);
        return;
    }
    if (error == 0) {
        keep_addresses(self, answer);
        evutil_freeaddrinfo(answer);
    }
    if (self->address_count > 0) {
        self->state = LOOKUP_READY;
        self->expires_ms = pl_now_ms() + ANSWER_KEPT_MS;
    } else {
        self->state = LOOKUP_FAILED;
        self->expires_ms = pl_now_ms() + FAILURE_KEPT_MS;
        self->error = error != 0 ? evutil_gai_strerror(error) : "the name has no address";
    }
    tell_waiting(self);
}

static bool is_busy(const struct lookup *self)
{
    return self->state == LOOKUP_PENDING || self->telling;
}

static void forget(struct pl_resolver *self, struct lookup **link)
{
    struct lookup *lookup = *link;
    *link = lookup->next;
    self->lookup_count--;
    lookup_free(lookup);
}

/** The lookup of that name, unless it has expired. */
static struct lookup *find_lookup(struct pl_resolver *self, const char *name)
{
    for (struct lookup **link = &self->lookups; *link != NULL; link = &(*link)->next) {
        if (strcasecmp((*link)->name, name) != 0) {
            continue;
        }
        if (is_busy(*link) || pl_now_ms() < (*link)->expires_ms) {
            return *link;
        }
        forget(self, link);
        return NULL;
    }
    return NULL;
}

/** Makes room for one more; lookups under way stay, and are bounded by the configured names. */
static void evict_oldest(struct pl_resolver *self)
{
    struct lookup **oldest = NULL;
    for (struct lookup **link = &self->lookups; *link != NULL; link = &(*link)->next) {
        if (!is_busy(*link)) {
            oldest = link;
        }
    }
    if (oldest != NULL) {
        forget(self, oldest);
    }
}

static struct lookup *begin_lookup(struct pl_resolver *self, const char *name)
{
    if (self->lookup_count >= MAX_CACHED_NAMES) {
        evict_oldest(self);
    }
    size_t name_size = strlen(name) + 1;
    struct lookup *lookup = pl_xcalloc(1, sizeof(*lookup) + name_size);
    memcpy(lookup->name, name, name_size);
    lookup->resolver = self;
    lookup->next = self->lookups;
    self->lookups = lookup;
    self->lookup_count++;
    struct evutil_addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    evdns_getaddrinfo(self->dns, name, NULL, &hints, on_answer, lookup);
    return lookup;
}

struct pl_resolve_query *pl_resolve_start(struct pl_resolver *self, const char *host, uint16_t port,
                                          struct pl_addresses *out, pl_resolve_cb cb, void *arg)
{
    if (parse_numeric(host, &out->items[0])) {
        set_port(&out->items[0], port);
        out->count = 1;
        return NULL;
    }
    struct lookup *lookup = find_lookup(self, host);
    if (lookup == NULL) {
        lookup = begin_lookup(self, host);
    }
    switch (lookup->state) {
    case LOOKUP_READY:
        copy_addresses(lookup, port, out);
        return NULL;
    case LOOKUP_FAILED:
        return defer_failure(self, lookup->error, cb, arg);
    case LOOKUP_PENDING:
        break;
    }
    return query_new(&lookup->waiting, port, cb, arg);
}

/* ---- resolver ---- */

struct pl_resolver *pl_resolver_new_from(struct event_base *base, const char *resolv_conf_file)
{
    struct evdns_base *dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (dns == NULL) {
        return NULL;
    }
    /* A silent first name server must not use up the whole connect_ms. The file may say otherwise.
     * A file that cannot be read means, as everywhere, a name server on this machine. */
    evdns_base_set_option(dns, "timeout:", "2");
    (void)evdns_base_resolv_conf_parse(dns, DNS_OPTIONS_ALL, resolv_conf_file);
    struct pl_resolver *self = pl_xcalloc(1, sizeof(*self));
    self->base = base;
    self->dns = dns;
    return self;
}

struct pl_resolver *pl_resolver_new(struct event_base *base)
{
    return pl_resolver_new_from(base, "/etc/resolv.conf");
}

void pl_resolver_free(struct pl_resolver *self)
{
    if (self == NULL) {
        return;
    }
    drop_queries(&self->deferred);
    for (struct lookup *at = self->lookups, *next; at != NULL; at = next) {
        next = at->next;
        drop_queries(&at->waiting);
        at->resolver = NULL;
        if (at->state != LOOKUP_PENDING) {
            lookup_free(at);
        }
    }
    evdns_base_free(self->dns, 1);
    free(self);
}
