/*
 * Target: what the network half needs to know of providers and targets. Plain data, filled from the
 * configuration on the main thread and read-only afterwards, shared by all workers.
 */
#ifndef PL_TARGET_H
#define PL_TARGET_H

#include "access_log.h"
#include "attempt.h"
#include "base.h"
#include "gauge.h"
#include "headers.h"
#include "health.h"
#include "json.h"
#include "pool.h"

enum pl_auth {
    PL_AUTH_NONE,        /* no credential is sent */
    PL_AUTH_KEY,         /* one of the provider's keys */
    PL_AUTH_PASSTHROUGH, /* the client's own credential headers */
};

/** An active health check; path NULL: none. */
struct pl_active_check {
    char *path; /* on the provider's host, as it is */
    char *method;
    int *statuses; /* that count as good, 0-terminated */
    struct pl_headers headers;
    uint32_t interval_ms, timeout_ms;
    double jitter_ratio;
    uint32_t unhealthy_after, healthy_after;
    bool readmits; /* a good streak ends a passive ejection, too */
};

#define PL_KEYS_MAX 16

/** One of a provider's credentials. */
struct pl_key {
    char *value;         /* of the header: "Bearer ...", or the key alone */
    char *shown;         /* "sk-…4f2a": what may be seen of it */
    pl_health_slot slot; /* is it accepted? see keys.h */
};

struct pl_provider {
    char *name;
    struct pl_endpoint endpoint;
    char *base_path;   /* "/v1", "" */
    bool stream_usage; /* streams are asked for their token counts, whatever clients ask */
    char *host_header; /* "api.example.com" or "127.0.0.1:8000" */
    enum pl_auth auth;
    struct pl_key *keys; /* of PL_AUTH_KEY, otherwise none */
    size_t key_count;
    const char *key_header;     /* that they are sent in: "Authorization", "x-api-key" */
    struct pl_headers headers;  /* always sent */
    struct pl_headers defaults; /* sent where neither the client nor the target has them */
    struct pl_health_rules rules;
    pl_health_slot slot; /* is it reached at all? see admit.c */
    struct pl_active_check check;
};

struct pl_target {
    char *name; /* "primary/gpt-4"; routes may share it */
    size_t provider_index;
    char *model;      /* NULL: the client's model is kept */
    char *model_json; /* the same as a JSON string literal */
    char *route;      /* that it is a target of; those of one route lie together */
    int priority;
    bool is_fallback; /* the route has targets of a better priority */
    bool sends_once;  /* the route does not repeat work that may have been done */
    double weight;
    struct pl_headers set_headers;
    char **remove_headers;      /* lower case, NULL-terminated */
    struct pl_json_edit *edits; /* body set and unset; owned texts */
    size_t edit_count;
    bool refuses_prefix;  /* it cannot go on from an assistant's words */
    char *prefix_members; /* of the message with those words, as raw JSON: `,"prefix":true` */
    struct pl_json_edit *prefix_edits; /* of the body that has them; owned texts */
    size_t prefix_edit_count;
    struct pl_attempt_limits limits;
    pl_health_slot slot;
    uint32_t max_in_flight;  /* 0: no limit */
    uint32_t queue_count;    /* may wait for a place, all workers together */
    uint32_t queue_ms;       /* for so long */
    uint32_t context_tokens; /* how long a request may be, its answer included; 0: not known */
};

/** What requests are routed over: one per configuration, shared by all workers, never changed. */
struct pl_topology {
    struct pl_provider *providers;
    size_t provider_count;
    struct pl_target *targets;
    size_t target_count;
    bool response_headers;     /* x-perilune-* on answers */
    bool traces;               /* requests have traces of their own; else they are passed through */
    double trace_sample_ratio; /* of those that begin here */
    uint32_t log_line_count;   /* that a policy may write per request */
    struct pl_access_log_rules access_log;
    struct pl_health *health; /* shared by all workers and, as the gauge, by the admin listener */
    struct pl_gauge *gauge;
};

#endif
