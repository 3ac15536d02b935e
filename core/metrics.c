/*
 * Metrics: see metrics.h.
 *
 * Three kinds of atomics, all of them here:
 * - A kind's names: entries are only added, under `adding`, and published by storing their pointer
 *   with release order, first in the hash table, then through the count. Readers load with acquire
 *   and take no lock.
 * - A worker's blocks of cells: made by the worker at the first count, published with release.
 * - The cells and levels themselves: one writer, who therefore adds by load and store, relaxed;
 * each stands for itself.
 */
#include "metrics.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NO_ROUTE "none" /* refused before one was found */
#define OTHER    "other"

struct entry {
    uint64_t hash;
    size_t index;
    const char *key[2]; /* behind it in the same block */
};

/* The keys of one kind: open addressing over twice as many places as there may be keys. */
struct names {
    size_t max_count, place_count;
    _Atomic(struct entry *) *places;
    struct entry **entries; /* in the order of coming; below `count` they may be read */
    _Atomic size_t count;
};

typedef _Atomic uint64_t cell;

struct shard {
    _Atomic(cell *) *blocks[PL_METRICS_KINDS]; /* by the key's index */
    _Alignas(64) _Atomic uint64_t levels[sizeof(struct pl_metrics_levels) / sizeof(uint64_t)];
};

struct pl_metrics {
    struct names names[PL_METRICS_KINDS];
    pthread_mutex_t adding;
    size_t shard_count;
    struct shard *shards;
};

static const struct {
    size_t max_count, cell_count;
} KINDS[PL_METRICS_KINDS] = {
    [PL_METRICS_REQUESTS] = {PL_METRICS_ROUTE_MODELS_MAX, PL_METRICS_REQUEST_CELLS},
    [PL_METRICS_ROUTE] = {PL_METRICS_ROUTES_MAX, PL_METRICS_ROUTE_CELLS},
    [PL_METRICS_TARGET] = {PL_METRICS_TARGETS_MAX, PL_METRICS_TARGET_CELLS},
    [PL_METRICS_ROUTE_TARGET] = {PL_METRICS_ROUTE_TARGETS_MAX, PL_METRICS_HISTOGRAM_CELLS},
    [PL_METRICS_POLICY] = {PL_METRICS_POLICIES_MAX, PL_METRICS_POLICY_CELLS},
};

const struct pl_metrics_ladder pl_metrics_durations = {
    .per_second = 1000,
    .bounds = {5, 10, 25, 50, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000, 20000, 30000,
               60000, 120000},
};

const struct pl_metrics_ladder pl_metrics_token_times = {
    .per_second = 1000000,
    .bounds = {1000, 2500, 5000, 7500, 10000, 15000, 20000, 30000, 40000, 50000, 75000, 100000,
               150000, 250000, 500000, 1000000, 2500000},
};

const char *pl_metrics_status_name(enum pl_metrics_status status)
{
    static const char *const names[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    return names[status];
}

/* ---- keys ---- */

/* A text with its hash (FNV-1a), reckoned once for all series of a request that it is a key of. */
struct word {
    const char *text;
    size_t len;
    uint64_t hash;
};

static struct word word_of(const char *text, const char *otherwise)
{
    struct word word = {.text = text ? text : otherwise, .hash = 0xcbf29ce484222325u};
    for (const char *at = word.text; *at; at++, word.len++)
        word.hash = (word.hash ^ (unsigned char)*at) * 0x100000001b3u;
    return word;
}

static const struct word NONE = {.text = ""};

static uint64_t hash_of_pair(struct word a, struct word b)
{
    uint64_t hash = (a.hash ^ (b.hash >> 29) ^ (b.hash << 31)) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 32);
}

static bool is_key(const struct entry *entry, uint64_t hash, struct word a, struct word b)
{
    return entry->hash == hash && strcmp(entry->key[0], a.text) == 0 &&
           strcmp(entry->key[1], b.text) == 0;
}

/* The place of that key, or the free one where it belongs. Half of them are always free. */
static size_t place_of(const struct names *self, uint64_t hash, struct word a, struct word b)
{
    size_t place = hash & (self->place_count - 1);
    struct entry *entry;
    while ((entry = atomic_load_explicit(&self->places[place], memory_order_acquire)) &&
           !is_key(entry, hash, a, b))
        place = (place + 1) & (self->place_count - 1);
    return place;
}

static struct entry *make_entry(uint64_t hash, size_t index, struct word a, struct word b)
{
    struct entry *entry = pl_xmalloc(sizeof(*entry) + a.len + b.len + 2);
    char *text = (char *)(entry + 1);
    *entry = (struct entry){hash, index, {text, text + a.len + 1}};
    memcpy(text, a.text, a.len + 1);
    memcpy(text + a.len + 1, b.text, b.len + 1);
    return entry;
}

/* Under `adding`. The index of a key that was not there a moment ago; 0 when there is no room. */
static size_t add_key(struct names *self, uint64_t hash, struct word a, struct word b)
{
    size_t place = place_of(self, hash, a, b);
    struct entry *entry = atomic_load_explicit(&self->places[place], memory_order_relaxed);
    size_t count = atomic_load_explicit(&self->count, memory_order_relaxed);
    if (entry)
        return entry->index;
    if (count == self->max_count)
        return 0;
    entry = self->entries[count] = make_entry(hash, count, a, b);
    atomic_store_explicit(&self->places[place], entry, memory_order_release);
    atomic_store_explicit(&self->count, count + 1, memory_order_release);
    return count;
}

/* The index of a key, which is made if it is new and there is room; otherwise 0, "other". */
static size_t index_of(struct pl_metrics *self, enum pl_metrics_kind kind, struct word a,
                       struct word b)
{
    struct names *names = &self->names[kind];
    uint64_t hash = hash_of_pair(a, b);
    size_t place = place_of(names, hash, a, b);
    struct entry *entry = atomic_load_explicit(&names->places[place], memory_order_acquire);
    if (entry)
        return entry->index;
    if (atomic_load_explicit(&names->count, memory_order_relaxed) == names->max_count)
        return 0;
    pthread_mutex_lock(&self->adding);
    size_t index = add_key(names, hash, a, b);
    pthread_mutex_unlock(&self->adding);
    return index;
}

static void names_init(struct names *self, size_t max_count)
{
    self->max_count = max_count;
    for (self->place_count = 1; self->place_count < 2 * max_count;)
        self->place_count *= 2;
    self->places = pl_xcalloc(self->place_count, sizeof(*self->places));
    self->entries = pl_xcalloc(max_count, sizeof(struct entry *));
}

static void names_deinit(struct names *self)
{
    for (size_t i = 0; i < atomic_load(&self->count); i++)
        free(self->entries[i]);
    free(self->entries);
    free(self->places);
}

/* ---- life ---- */

static bool has_two_keys(enum pl_metrics_kind kind)
{
    return kind == PL_METRICS_REQUESTS || kind == PL_METRICS_ROUTE_TARGET;
}

static void shard_init(struct shard *self)
{
    for (size_t kind = 0; kind < PL_METRICS_KINDS; kind++)
        self->blocks[kind] = pl_xcalloc(KINDS[kind].max_count, sizeof(*self->blocks[kind]));
}

static void shard_deinit(struct shard *self)
{
    for (size_t kind = 0; kind < PL_METRICS_KINDS; kind++) {
        for (size_t i = 0; i < KINDS[kind].max_count; i++)
            free((void *)atomic_load(&self->blocks[kind][i]));
        free(self->blocks[kind]);
    }
}

struct pl_metrics *pl_metrics_new(size_t worker_count)
{
    struct pl_metrics *self = pl_xcalloc(1, sizeof(*self));
    struct word other = word_of(OTHER, NULL);
    pthread_mutex_init(&self->adding, NULL);
    for (size_t kind = 0; kind < PL_METRICS_KINDS; kind++) {
        names_init(&self->names[kind], KINDS[kind].max_count);
        (void)index_of(self, (enum pl_metrics_kind)kind, other,
                       has_two_keys((enum pl_metrics_kind)kind) ? other : NONE);
    }
    self->shard_count = worker_count;
    if (posix_memalign((void **)&self->shards, 64, (worker_count + 1) * sizeof(*self->shards)) != 0)
        abort();
    memset((void *)self->shards, 0, (worker_count + 1) * sizeof(*self->shards));
    for (size_t i = 0; i < worker_count; i++)
        shard_init(&self->shards[i]);
    return self;
}

void pl_metrics_free(struct pl_metrics *self)
{
    if (!self)
        return;
    for (size_t i = 0; i < self->shard_count; i++)
        shard_deinit(&self->shards[i]);
    free(self->shards);
    for (size_t kind = 0; kind < PL_METRICS_KINDS; kind++)
        names_deinit(&self->names[kind]);
    pthread_mutex_destroy(&self->adding);
    free(self);
}

/* ---- counting ---- */

/* What one call of pl_metrics_add works with. */
struct counter {
    struct pl_metrics *metrics;
    struct shard *shard;
    const struct pl_record *record;
    struct word route;
};

static void add(cell *at, uint64_t count)
{
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + count,
                          memory_order_relaxed);
}

/* The worker's cells of a series, made at the first count. */
static cell *cells_of(const struct counter *self, enum pl_metrics_kind kind, struct word a,
                      struct word b)
{
    _Atomic(cell *) *block = &self->shard->blocks[kind][index_of(self->metrics, kind, a, b)];
    cell *cells = atomic_load_explicit(block, memory_order_relaxed);
    if (!cells) {
        cells = pl_xcalloc(KINDS[kind].cell_count, sizeof(*cells));
        atomic_store_explicit(block, cells, memory_order_release);
    }
    return cells;
}

static void observe(cell *histogram, const struct pl_metrics_ladder *ladder, uint64_t value)
{
    size_t bucket = 0;
    while (bucket < PL_METRICS_BOUNDS && value > ladder->bounds[bucket])
        bucket++;
    add(&histogram[bucket], 1);
    add(&histogram[PL_METRICS_BOUNDS + 1], value);
}

static enum pl_metrics_status status_class(int status)
{
    return status >= 100 && status < 600 ? (enum pl_metrics_status)(status / 100)
                                         : PL_METRICS_STATUS_NONE;
}

/* A target of lower priority at the very first means that the better ones are out. That a second
 * one was asked beside the first is no fallback, and no retry. */
static bool falls_back(const struct pl_record *record)
{
    const struct pl_record_attempt *first = NULL;
    for (size_t i = 0; i < record->attempt_count; i++) {
        const struct pl_record_attempt *attempt = &record->attempts[i];
        if (attempt->is_hedge)
            continue;
        if (!first)
            first = attempt;
        if (first->is_fallback || strcmp(attempt->target, first->target) != 0)
            return true;
    }
    return false;
}

static size_t count_hedges(const struct pl_record *record)
{
    size_t count = 0;
    for (size_t i = 0; i < record->attempt_count; i++)
        count += record->attempts[i].is_hedge;
    return count;
}

static void count_retries(cell *route, const struct pl_record *record)
{
    size_t try_count = record->attempt_count - count_hedges(record);
    if (falls_back(record))
        add(&route[PL_METRICS_ROUTE_FALLBACKS], 1);
    if (try_count < 2)
        return;
    add(&route[PL_METRICS_ROUTE_RETRIES], try_count - 1);
    if (record->end == PL_END_COMPLETE &&
        record->attempts[record->attempt_count - 1].class == PL_CLASS_OK)
        add(&route[PL_METRICS_ROUTE_RETRY_SUCCESSES], 1);
}

/* Answers that broke off and that another target was asked to go on with. */
static void count_rescue(cell *route, const struct pl_record *record)
{
    size_t resumed = 0;
    while (resumed < record->attempt_count && !record->attempts[resumed].resumes)
        resumed++;
    if (resumed == record->attempt_count)
        return;
    bool is_whole = record->end == PL_END_COMPLETE;
    add(&route[is_whole ? PL_METRICS_ROUTE_RESCUES : PL_METRICS_ROUTE_FAILED_RESCUES], 1);
}

static void count_request(const struct counter *self)
{
    const struct pl_record *record = self->record;
    struct word model = word_of(record->model_match, OTHER);
    cell *requests = cells_of(self, PL_METRICS_REQUESTS, self->route, model);
    add(&requests[PL_METRICS_REQUEST_CELL(status_class(record->status), record->end)], 1);
    cell *route = cells_of(self, PL_METRICS_ROUTE, self->route, NONE);
    observe(&route[PL_METRICS_ROUTE_DURATION], &pl_metrics_durations, record->duration_ms);
    count_retries(route, record);
    count_rescue(route, record);
    for (size_t hedge = 0; record->hedges && hedge < PL_HEDGE_COUNT; hedge++)
        add(&route[PL_METRICS_ROUTE_HEDGES + hedge], record->hedges[hedge]);
}

static cell *count_attempt(const struct counter *self, const struct pl_record_attempt *attempt)
{
    cell *target = cells_of(self, PL_METRICS_TARGET, word_of(attempt->target, OTHER), NONE);
    add(&target[PL_METRICS_TARGET_CLASSES + attempt->class], 1);
    if (attempt->work != PL_WORK_NONE)
        add(&target[PL_METRICS_TARGET_WORKS + attempt->work], 1);
    add(&target[PL_METRICS_TARGET_STATUSES + status_class(attempt->status)], 1);
    if (attempt->total_ms != PL_UNKNOWN_MS)
        observe(&target[PL_METRICS_TARGET_DURATION], &pl_metrics_durations, attempt->total_ms);
    if (attempt->reused)
        add(&target[PL_METRICS_TARGET_REUSES], 1);
    else if (attempt->connect_ms != PL_UNKNOWN_MS)
        add(&target[PL_METRICS_TARGET_CONNECTS], 1);
    add(&target[PL_METRICS_TARGET_MALFORMED_EVENTS], attempt->malformed_event_count);
    if (attempt->class == PL_CLASS_HEDGE_LOST) {
        add(&target[PL_METRICS_TARGET_INPUT_TOKENS], (uint64_t)PL_MAX(attempt->input_tokens, 0));
        add(&target[PL_METRICS_TARGET_OUTPUT_TOKENS], (uint64_t)PL_MAX(attempt->output_tokens, 0));
    }
    return target;
}

static void count_tokens(cell *target, const struct pl_record *record)
{
    add(&target[PL_METRICS_TARGET_INPUT_TOKENS], (uint64_t)PL_MAX(record->input_tokens, 0));
    add(&target[PL_METRICS_TARGET_OUTPUT_TOKENS], (uint64_t)PL_MAX(record->output_tokens, 0));
    add(&target[PL_METRICS_TARGET_CACHED_TOKENS], (uint64_t)PL_MAX(record->cached_tokens, 0));
    add(&target[PL_METRICS_TARGET_REASONING_TOKENS], (uint64_t)PL_MAX(record->reasoning_tokens, 0));
}

/* Between the first token and the last; of streams only, for others come in one piece. */
static void count_token_time(cell *target, const struct pl_record *record,
                             const struct pl_record_attempt *served)
{
    if (!record->stream || record->end != PL_END_COMPLETE || record->output_tokens < 2 ||
        served->first_token_ms == PL_UNKNOWN_MS || served->total_ms == PL_UNKNOWN_MS ||
        served->total_ms < served->first_token_ms || served->resumes)
        return;
    uint64_t span_us = (uint64_t)(served->total_ms - served->first_token_ms) * 1000;
    observe(&target[PL_METRICS_TARGET_TOKEN_TIME], &pl_metrics_token_times,
            span_us / (uint64_t)(record->output_tokens - 1));
}

/* What the target that served the answer has brought; it was the last one tried. */
static void count_served(const struct counter *self, cell *target)
{
    const struct pl_record *record = self->record;
    const struct pl_record_attempt *served = &record->attempts[record->attempt_count - 1];
    if (!record->target || strcmp(record->target, served->target) != 0)
        return;
    count_tokens(target, record);
    count_token_time(target, record, served);
    if (record->stream && record->first_token_ms != PL_UNKNOWN_MS)
        observe(
            cells_of(self, PL_METRICS_ROUTE_TARGET, self->route, word_of(record->target, OTHER)),
            &pl_metrics_durations, record->first_token_ms);
}

static size_t fault_cell(const char *name)
{
    for (size_t fault = PL_POLICY_FAULT_NONE + 1; fault < PL_POLICY_FAULT_COUNT; fault++) {
        if (strcmp(name, pl_policy_fault_name((enum pl_policy_fault)fault)) == 0)
            return PL_METRICS_POLICY_FAULTS + fault;
    }
    return PL_METRICS_POLICY_OTHER_FAULTS;
}

/* Each request leaves a series behind, with or without a failure: a rate needs a start. */
static void count_policy(const struct counter *self)
{
    const struct pl_record *record = self->record;
    if (!record->policy && !record->floor && !record->policy_fault)
        return;
    cell *policy = cells_of(self, PL_METRICS_POLICY, word_of(record->policy, OTHER), NONE);
    if (record->floor)
        add(&policy[PL_METRICS_POLICY_FLOOR], 1);
    if (record->policy_fault)
        add(&policy[fault_cell(record->policy_fault)], 1);
}

void pl_metrics_add(struct pl_metrics *self, size_t worker_index, const struct pl_record *record)
{
    struct counter counter = {
        .metrics = self,
        .shard = &self->shards[worker_index],
        .record = record,
        .route = word_of(record->route, NO_ROUTE),
    };
    cell *target = NULL;
    count_request(&counter);
    for (size_t i = 0; i < record->attempt_count; i++)
        target = count_attempt(&counter, &record->attempts[i]);
    if (target)
        count_served(&counter, target);
    count_policy(&counter);
}

/* ---- levels ---- */

void pl_metrics_publish(struct pl_metrics *self, size_t worker_index,
                        const struct pl_metrics_levels *levels)
{
    uint64_t values[sizeof(*levels) / sizeof(uint64_t)];
    memcpy(values, levels, sizeof(values));
    for (size_t i = 0; i < PL_COUNT(values); i++)
        atomic_store_explicit(&self->shards[worker_index].levels[i], values[i],
                              memory_order_relaxed);
}

void pl_metrics_levels_of(const struct pl_metrics *self, size_t worker_index,
                          struct pl_metrics_levels *out)
{
    uint64_t values[sizeof(*out) / sizeof(uint64_t)];
    for (size_t i = 0; i < PL_COUNT(values); i++)
        values[i] =
            atomic_load_explicit(&self->shards[worker_index].levels[i], memory_order_relaxed);
    memcpy(out, values, sizeof(values));
}

/* ---- reading ---- */

size_t pl_metrics_worker_count(const struct pl_metrics *self)
{
    return self->shard_count;
}

size_t pl_metrics_series_count(const struct pl_metrics *self, enum pl_metrics_kind kind)
{
    return atomic_load_explicit(&self->names[kind].count, memory_order_acquire);
}

size_t pl_metrics_cell_count(enum pl_metrics_kind kind)
{
    return KINDS[kind].cell_count;
}

void pl_metrics_key(const struct pl_metrics *self, enum pl_metrics_kind kind, size_t index,
                    const char *key[2])
{
    const struct entry *entry = self->names[kind].entries[index];
    key[0] = entry->key[0];
    key[1] = entry->key[1];
}

bool pl_metrics_read(const struct pl_metrics *self, enum pl_metrics_kind kind, size_t index,
                     uint64_t cells[PL_METRICS_CELLS_MAX])
{
    bool found = false;
    memset(cells, 0, KINDS[kind].cell_count * sizeof(*cells));
    for (size_t i = 0; i < self->shard_count; i++) {
        cell *block =
            atomic_load_explicit(&self->shards[i].blocks[kind][index], memory_order_acquire);
        for (size_t at = 0; block && at < KINDS[kind].cell_count; at++)
            cells[at] += atomic_load_explicit(&block[at], memory_order_relaxed);
        found = found || block;
    }
    return found;
}
