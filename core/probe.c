/*
 * Probe: see probe.h.
 */
#include "probe.h"
#include "attempt.h"
#include "keys.h"
#include "log.h"
#include "pool.h"
#include <event2/event_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* One provider's check. */
struct check {
    const struct pl_topology *topology;
    const struct pl_provider *provider;
    struct pl_pool *pool;
    struct pl_attempt *attempt; /* NULL between two checks */
    struct event timer;
    char *head; /* of the request, made once, without its credential and its end */
    struct iovec pieces[6];
    size_t piece_count;
    int status;          /* of the answer, 0 before its head */
    uint32_t good_count; /* in a row */
};

struct pl_prober {
    struct event_base *base;
    struct pl_resolver *resolver;
    struct check *checks;
    size_t count;
};

/* ---- the request ---- */

static char *make_head(const struct pl_provider *provider)
{
    const struct pl_active_check *rules = &provider->check;
    const struct pl_headers *lists[] = {&provider->headers, &provider->defaults, &rules->headers};
    char *head = NULL;
    size_t len;
    FILE *out = open_memstream(&head, &len);
    if (!out)
        abort();
    fprintf(out, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: perilune/%s\r\nAccept: */*\r\n",
            rules->method, rules->path, provider->host_header, PERILUNE_VERSION);
    for (size_t i = 0; i < PL_COUNT(lists); i++) {
        for (size_t j = 0; j < lists[i]->count; j++) {
            struct pl_str name = pl_headers_name(lists[i], j);
            struct pl_str value = pl_headers_value(lists[i], j);
            fprintf(out, "%.*s: %.*s\r\n", (int)name.len, name.data, (int)value.len, value.data);
        }
    }
    if (strcmp(rules->method, "POST") == 0)
        fputs("Content-Length: 0\r\n", out);
    if (fclose(out) != 0)
        abort();
    return head;
}

/* ---- one check ---- */

uint64_t pl_probe_wait_us(const struct pl_provider *provider, bool is_first)
{
    double jitter = provider->check.jitter_ratio;
    double share =
        is_first ? jitter * pl_random_unit() : 1 - jitter + 2 * jitter * pl_random_unit();
    return (uint64_t)(provider->check.interval_ms * share * 1000);
}

static void arm(struct check *self, bool is_first)
{
    uint64_t wait_us = pl_probe_wait_us(self->provider, is_first);
    struct timeval tv = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};
    event_add(&self->timer, &tv);
}

bool pl_probe_is_good(const struct pl_provider *provider, int status)
{
    for (const int *good = provider->check.statuses; *good; good++) {
        if (*good == status)
            return true;
    }
    return false;
}

/* A check shows that the provider can be reached: so it also brings back those of its targets that
 * are out and failed by that last. What else is wrong with a model it does not see. */
static void bring_back_targets(const struct pl_topology *topology,
                               const struct pl_provider *provider, uint64_t now_ms)
{
    for (size_t i = 0; i < topology->target_count; i++) {
        const struct pl_target *target = &topology->targets[i];
        struct pl_health_view view;
        if (&topology->providers[target->provider_index] != provider)
            continue;
        pl_health_look(topology->health, target->slot, now_ms, &view);
        if (view.state != PL_HEALTH_CLOSED && view.consecutive_connection > 0)
            pl_health_check_result(topology->health, target->slot, true, 1, 1, true, now_ms);
    }
}

void pl_probe_take_result(const struct pl_topology *topology, const struct pl_provider *provider,
                          bool good, const char *detail, uint32_t *good_count)
{
    const struct pl_active_check *rules = &provider->check;
    struct pl_health *health = topology->health;
    struct pl_health_view before, after;
    uint64_t now_ms = pl_now_ms();
    pl_health_look(health, provider->slot, now_ms, &before);
    pl_health_check_result(health, provider->slot, good, rules->unhealthy_after,
                           rules->healthy_after, rules->readmits, now_ms);
    pl_health_look(health, provider->slot, now_ms, &after);
    *good_count = good ? *good_count + 1 : 0;
    if (rules->readmits && *good_count >= rules->healthy_after)
        bring_back_targets(topology, provider, now_ms);
    if (after.check_failed && !before.check_failed)
        pl_log(PL_LOG_WARN, "provider %s is out: active check: %s", provider->name, detail);
    if (before.check_failed && !after.check_failed)
        pl_log(PL_LOG_INFO, "provider %s is back: active checks pass", provider->name);
}

static void on_head(struct pl_attempt *attempt, void *arg)
{
    struct check *self = arg;
    self->status = pl_attempt_head(attempt)->status;
}

static void on_body(struct pl_attempt *attempt, const char *data, size_t len, void *arg)
{
    (void)attempt;
    (void)data;
    (void)len;
    (void)arg;
}

static void on_done(struct pl_attempt *attempt, enum pl_failure failure, void *arg)
{
    struct check *self = arg;
    char detail[200];
    if (failure != PL_FAIL_NONE)
        snprintf(detail, sizeof(detail), "%s: %s", pl_failure_name(failure),
                 pl_attempt_stats(attempt)->detail);
    else
        snprintf(detail, sizeof(detail), "status %d", self->status);
    self->attempt = NULL;
    bool good = failure == PL_FAIL_NONE && pl_probe_is_good(self->provider, self->status);
    pl_probe_take_result(self->topology, self->provider, good, detail, &self->good_count);
    arm(self, false);
}

/* The head, the credential of this check, the end. Any key that is accepted will do. */
static void lay_out(struct check *self)
{
    static char colon[] = ": ", end[] = "\r\n\r\n";
    const struct pl_provider *provider = self->provider;
    size_t count = 0;
    self->pieces[count++] = (struct iovec){self->head, strlen(self->head)};
    if (provider->key_count > 0) {
        size_t key = pl_keys_pick(provider, self->topology->health, 0, pl_now_ms());
        const char *value = provider->keys[key].value;
        self->pieces[count++] =
            (struct iovec){(char *)provider->key_header, strlen(provider->key_header)};
        self->pieces[count++] = (struct iovec){colon, 2};
        self->pieces[count++] = (struct iovec){(char *)value, strlen(value)};
        self->pieces[count++] = (struct iovec){end, 2};
    }
    self->pieces[count++] = (struct iovec){end, 2};
    self->piece_count = count;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    static const struct pl_attempt_ops ops = {
        .on_head = on_head, .on_body = on_body, .on_done = on_done};
    (void)fd;
    (void)what;
    struct check *self = arg;
    uint32_t timeout_ms = self->provider->check.timeout_ms;
    lay_out(self);
    struct pl_attempt_request request = {.pieces = self->pieces,
                                         .piece_count = self->piece_count,
                                         .is_head =
                                             strcmp(self->provider->check.method, "HEAD") == 0};
    struct pl_attempt_limits limits = {
        .connect_ms = timeout_ms, .tls_ms = timeout_ms, .try_ms = timeout_ms};
    self->status = 0;
    self->attempt = pl_attempt_start(self->pool, &request, &limits, &ops, self);
}

/* ---- life ---- */

static void check_init(struct check *self, struct event_base *base, struct pl_resolver *resolver,
                       const struct pl_topology *topology, const struct pl_provider *provider)
{
    self->topology = topology;
    self->provider = provider;
    self->pool = pl_pool_new(base, resolver, &provider->endpoint);
    self->head = make_head(provider);
    event_assign(&self->timer, base, -1, 0, on_timer, self);
    arm(self, true);
}

static void check_deinit(struct check *self)
{
    if (self->attempt)
        pl_attempt_cancel(self->attempt);
    event_del(&self->timer);
    pl_pool_free(self->pool);
    free(self->head);
}

static void start_checks(struct pl_prober *self, const struct pl_topology *topology)
{
    self->count = 0;
    self->checks = pl_xcalloc(topology->provider_count + 1, sizeof(*self->checks));
    for (size_t i = 0; i < topology->provider_count; i++) {
        if (topology->providers[i].check.path)
            check_init(&self->checks[self->count++], self->base, self->resolver, topology,
                       &topology->providers[i]);
    }
}

struct pl_prober *pl_prober_new(struct event_base *base, struct pl_resolver *resolver,
                                const struct pl_topology *topology)
{
    struct pl_prober *self = pl_xcalloc(1, sizeof(*self));
    self->base = base;
    self->resolver = resolver;
    start_checks(self, topology);
    return self;
}

static bool has_same_keys(const struct pl_provider *a, const struct pl_provider *b)
{
    if (a->key_count != b->key_count)
        return false;
    for (size_t i = 0; i < a->key_count; i++) {
        if (strcmp(a->keys[i].value, b->keys[i].value) != 0)
            return false;
    }
    return true;
}

static bool is_same_check(const struct check *a, const struct check *b)
{
    const struct pl_active_check *ours = &a->provider->check, *theirs = &b->provider->check;
    return a->provider->slot == b->provider->slot && ours->interval_ms == theirs->interval_ms &&
           strcmp(a->head, b->head) == 0 && has_same_keys(a->provider, b->provider);
}

/* When it is due stays; the wait that it begins with is for those that are new. */
static void take_over(struct check *self, const struct check *from)
{
    struct timeval now, due;
    self->good_count = from->good_count;
    struct timeval wait = {0, 0};
    if (event_pending(&from->timer, EV_TIMEOUT, &due)) {
        gettimeofday(&now, NULL); /* what event_pending tells its time in */
        if (timercmp(&due, &now, >))
            timersub(&due, &now, &wait);
    }
    event_add(&self->timer, &wait);
}

void pl_prober_follow(struct pl_prober *self, const struct pl_topology *topology)
{
    struct check *old = self->checks;
    size_t old_count = self->count;
    start_checks(self, topology);
    for (size_t i = 0; i < old_count; i++) {
        for (size_t j = 0; j < self->count; j++) {
            if (is_same_check(&self->checks[j], &old[i]))
                take_over(&self->checks[j], &old[i]);
        }
        check_deinit(&old[i]);
    }
    free(old);
}

void pl_prober_free(struct pl_prober *self)
{
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        check_deinit(&self->checks[i]);
    free(self->checks);
    free(self);
}
