/*
 * Metrics: what operators count: requests, tries, times, tokens, policy failures, from the records
 * of ended requests (record.h), and the few levels that each worker says of itself.
 *
 * A series is a block of cells of one kind under one key: a route, a target, a pair of them. Keys
 * come from the configuration only, never from clients, and each kind has room for a fixed number
 * of them, for the life of the process: reloads add series, and those of what was taken out of the
 * configuration stay. What comes when a kind is full is counted under "other", so that sums over
 * labels are exact in any case.
 *
 * Thread: pl_metrics_add and _publish from the worker of that index, one thread each; reading from
 * any. Each worker has cells of its own, so counting takes no lock and shares no cache line; only
 * the first sight of a new key does, once per key. What is read is not one moment's picture, but
 * counts only grow, and a histogram's count is the sum of its buckets.
 */
#ifndef PL_METRICS_H
#define PL_METRICS_H

#include "base.h"
#include "figures.h"
#include "record.h"

/** Keys per kind, "other" included. */
#define PL_METRICS_ROUTES_MAX        2048
#define PL_METRICS_ROUTE_MODELS_MAX  4096
#define PL_METRICS_TARGETS_MAX       4096
#define PL_METRICS_ROUTE_TARGETS_MAX 8192
#define PL_METRICS_POLICIES_MAX      256

/** Kinds of series, and what they are keyed by. */
enum pl_metrics_kind {
    PL_METRICS_REQUESTS,     /* route, the route's pattern of the model */
    PL_METRICS_ROUTE,        /* route */
    PL_METRICS_TARGET,       /* target */
    PL_METRICS_ROUTE_TARGET, /* route, target */
    PL_METRICS_POLICY,       /* policy */
    PL_METRICS_KINDS,
};

/* ---- histograms ---- */

/** Buckets with an upper bound; one more takes the rest, and one cell holds the sum. */
#define PL_METRICS_BOUNDS          17
#define PL_METRICS_HISTOGRAM_CELLS (PL_METRICS_BOUNDS + 2)

/** Upper bounds, inclusive, in units of 1 / per_second of a second, as the sum is. */
struct pl_metrics_ladder {
    uint32_t per_second;
    uint32_t bounds[PL_METRICS_BOUNDS];
};
/** 5 ms to 120 s: requests, tries, first tokens. */
extern const struct pl_metrics_ladder pl_metrics_durations;
/** 1 ms to 2.5 s: between two tokens. */
extern const struct pl_metrics_ladder pl_metrics_token_times;

/* ---- cells ---- */

enum pl_metrics_status {
    PL_METRICS_STATUS_NONE, /* no answer */
    PL_METRICS_1XX,
    PL_METRICS_2XX,
    PL_METRICS_3XX,
    PL_METRICS_4XX,
    PL_METRICS_5XX,
    PL_METRICS_STATUSES,
};
/** "none", "1xx", ... "5xx". */
const char *pl_metrics_status_name(enum pl_metrics_status status);

/** Of PL_METRICS_REQUESTS: requests by status and end. */
#define PL_METRICS_REQUEST_CELL(status, end) ((size_t)(status)*PL_END_COUNT + (size_t)(end))
#define PL_METRICS_REQUEST_CELLS             (PL_METRICS_STATUSES * PL_END_COUNT)

/** Of PL_METRICS_ROUTE. */
enum {
    PL_METRICS_ROUTE_DURATION = 0, /* a histogram */
    PL_METRICS_ROUTE_RETRIES = PL_METRICS_HISTOGRAM_CELLS,
    PL_METRICS_ROUTE_RETRY_SUCCESSES,
    PL_METRICS_ROUTE_FALLBACKS,
    PL_METRICS_ROUTE_RESCUES,
    PL_METRICS_ROUTE_FAILED_RESCUES,
    PL_METRICS_ROUTE_HEDGES, /* by enum pl_hedge */
    PL_METRICS_ROUTE_CELLS = PL_METRICS_ROUTE_HEDGES + PL_HEDGE_COUNT,
};

/** Of PL_METRICS_TARGET. */
enum {
    PL_METRICS_TARGET_CLASSES = 0, /* tries, by enum pl_class */
    PL_METRICS_TARGET_STATUSES = PL_CLASS_COUNT,
    PL_METRICS_TARGET_DURATION = PL_METRICS_TARGET_STATUSES + PL_METRICS_STATUSES, /* histograms */
    PL_METRICS_TARGET_TOKEN_TIME = PL_METRICS_TARGET_DURATION + PL_METRICS_HISTOGRAM_CELLS,
    PL_METRICS_TARGET_CONNECTS = PL_METRICS_TARGET_TOKEN_TIME + PL_METRICS_HISTOGRAM_CELLS,
    PL_METRICS_TARGET_REUSES,
    PL_METRICS_TARGET_WORKS, /* tries that failed, by enum pl_work; that of NONE stays 0 */
    PL_METRICS_TARGET_INPUT_TOKENS = PL_METRICS_TARGET_WORKS + PL_WORK_COUNT,
    PL_METRICS_TARGET_OUTPUT_TOKENS,
    PL_METRICS_TARGET_CACHED_TOKENS,
    PL_METRICS_TARGET_REASONING_TOKENS,
    PL_METRICS_TARGET_MALFORMED_EVENTS,
    PL_METRICS_TARGET_CELLS,
};

/** Of PL_METRICS_POLICY: its failures by enum pl_policy_fault (NONE stays 0), those of a kind that
 *  has no number there, and the requests that the floor policy served in its place. */
enum {
    PL_METRICS_POLICY_FAULTS = 0,
    PL_METRICS_POLICY_OTHER_FAULTS = PL_POLICY_FAULT_COUNT,
    PL_METRICS_POLICY_FLOOR,
    PL_METRICS_POLICY_CELLS,
};

#define PL_METRICS_CELLS_MAX PL_METRICS_TARGET_CELLS

/* ---- counting ---- */

struct pl_metrics;

struct pl_metrics *pl_metrics_new(size_t worker_count);
void pl_metrics_free(struct pl_metrics *self);

/** Counts one ended request. Never fails, never blocks but for the first sight of a key. */
void pl_metrics_add(struct pl_metrics *self, size_t worker_index, const struct pl_record *record);

/** What a worker says of itself, every so often. */
struct pl_metrics_levels {
    uint64_t client_connections;
    uint64_t upstream_connections; /* that work on a try, or are being made for one */
    uint64_t idle_upstream_connections;
    uint64_t buffered_bytes; /* read or to be written, in memory */
    uint64_t vm_memory_bytes;
    uint64_t loop_lag_us; /* how late a timer fired, the worst of the last while */
};
void pl_metrics_publish(struct pl_metrics *self, size_t worker_index,
                        const struct pl_metrics_levels *levels);

/* ---- reading ---- */

size_t pl_metrics_worker_count(const struct pl_metrics *self);
void pl_metrics_levels_of(const struct pl_metrics *self, size_t worker_index,
                          struct pl_metrics_levels *out);

/** How many keys that kind has so far; the first is "other". */
size_t pl_metrics_series_count(const struct pl_metrics *self, enum pl_metrics_kind kind);
size_t pl_metrics_cell_count(enum pl_metrics_kind kind);
/** A series' key (the second is "" where the kind has one only), which lives as long as `self`. */
void pl_metrics_key(const struct pl_metrics *self, enum pl_metrics_kind kind, size_t index,
                    const char *key[2]);
/** The sum over all workers. False when nothing was counted yet: then `cells` are all 0. */
bool pl_metrics_read(const struct pl_metrics *self, enum pl_metrics_kind kind, size_t index,
                     uint64_t cells[PL_METRICS_CELLS_MAX]);

#endif
