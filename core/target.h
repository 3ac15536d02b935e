/*
 * Target: what the network half needs to know of providers and targets. Plain data, filled from the
 * configuration on the main thread and read-only afterwards, shared by all workers.
 */
#ifndef PL_TARGET_H
#define PL_TARGET_H

#include "attempt.h"
#include "base.h"
#include "headers.h"
#include "json.h"
#include "pool.h"

enum pl_auth {
    PL_AUTH_NONE,        /* no credential is sent */
    PL_AUTH_KEY,         /* Authorization: Bearer <key> */
    PL_AUTH_PASSTHROUGH, /* the client's own credential headers */
};

struct pl_provider {
    char *name;
    struct pl_endpoint endpoint;
    char *base_path;   /* "/v1", "" */
    char *host_header; /* "api.example.com" or "127.0.0.1:8000" */
    enum pl_auth auth;
    struct pl_headers headers; /* always sent, the credential of PL_AUTH_KEY included */
};

struct pl_target {
    char *name; /* "primary/gpt-4"; routes may share it */
    size_t provider_index;
    char *model;      /* NULL: the client's model is kept */
    char *model_json; /* the same as a JSON string literal */
    int priority;
    double weight;
    struct pl_headers set_headers;
    char **remove_headers;      /* lower case, NULL-terminated */
    struct pl_json_edit *edits; /* body set and unset; owned texts */
    size_t edit_count;
    struct pl_attempt_limits limits;
};

/** What requests are routed over: one per configuration, shared by all workers, never changed. */
struct pl_topology {
    struct pl_provider *providers;
    size_t provider_count;
    struct pl_target *targets;
    size_t target_count;
    bool response_headers; /* x-perilune-* on answers */
};

#endif
