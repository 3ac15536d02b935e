/*
 * Metrics write: see metrics_write.h.
 *
 * Which samples there are: of counters with a small, fixed set of label values, all, from the first
 * moment on, for a rate needs a start; of tries by class, which are many, "ok" and those that have
 * happened. A series that nothing was counted in yet ("other" above all) is left out.
 */
#include "metrics_write.h"

static void write_requests(struct pl_metrics_text *out, const uint64_t *cells)
{
    size_t key_len = out->labels_len;
    for (int status = 0; status < PL_METRICS_STATUSES; status++) {
        for (int end = 0; end < PL_END_COUNT; end++) {
            uint64_t count = cells[PL_METRICS_REQUEST_CELL(status, end)];
            bool usual =
                end == PL_END_COMPLETE && (status == PL_METRICS_2XX || status == PL_METRICS_5XX);
            if (count == 0 && !usual)
                continue;
            pl_metrics_text_relabel(out, key_len);
            pl_metrics_text_label(out, "status_class",
                                  pl_metrics_status_name((enum pl_metrics_status)status));
            pl_metrics_text_label(out, "end", pl_end_name((enum pl_end)end));
            pl_metrics_text_count(out, count);
        }
    }
}

static void write_request_duration(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_histogram(out, &pl_metrics_durations, cells + PL_METRICS_ROUTE_DURATION);
}

static void write_retries(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_count(out, cells[PL_METRICS_ROUTE_RETRIES]);
}

static void write_retry_successes(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_count(out, cells[PL_METRICS_ROUTE_RETRY_SUCCESSES]);
}

static void write_fallbacks(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_count(out, cells[PL_METRICS_ROUTE_FALLBACKS]);
}

static void write_labelled(struct pl_metrics_text *out, const char *name, const char *value,
                           uint64_t count)
{
    size_t key_len = out->labels_len;
    pl_metrics_text_label(out, name, value);
    pl_metrics_text_count(out, count);
    pl_metrics_text_relabel(out, key_len);
}

static void write_rescues(struct pl_metrics_text *out, const uint64_t *cells)
{
    write_labelled(out, "end", "complete", cells[PL_METRICS_ROUTE_RESCUES]);
    write_labelled(out, "end", "cut", cells[PL_METRICS_ROUTE_FAILED_RESCUES]);
}

static void write_malformed_events(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_count(out, cells[PL_METRICS_TARGET_MALFORMED_EVENTS]);
}

static void write_hedges(struct pl_metrics_text *out, const uint64_t *cells)
{
    for (int hedge = 0; hedge < PL_HEDGE_COUNT; hedge++)
        write_labelled(out, "result", pl_hedge_name((enum pl_hedge)hedge),
                       cells[PL_METRICS_ROUTE_HEDGES + hedge]);
}

static void write_first_token(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_histogram(out, &pl_metrics_durations, cells);
}

static void write_attempts(struct pl_metrics_text *out, const uint64_t *cells)
{
    size_t key_len = out->labels_len;
    for (int class = 0; class < PL_CLASS_COUNT; class ++) {
        uint64_t count = cells[PL_METRICS_TARGET_CLASSES + class];
        if (count == 0 && class != PL_CLASS_OK)
            continue;
        pl_metrics_text_relabel(out, key_len);
        pl_metrics_text_label(out, "class", pl_class_name((enum pl_class) class));
        pl_metrics_text_count(out, count);
    }
}

static void write_attempt_work(struct pl_metrics_text *out, const uint64_t *cells)
{
    size_t key_len = out->labels_len;
    for (int work = PL_WORK_NONE + 1; work < PL_WORK_COUNT; work++) {
        uint64_t count = cells[PL_METRICS_TARGET_WORKS + work];
        if (count == 0)
            continue;
        pl_metrics_text_relabel(out, key_len);
        pl_metrics_text_label(out, "work", pl_work_name((enum pl_work)work));
        pl_metrics_text_count(out, count);
    }
}

static void write_attempt_statuses(struct pl_metrics_text *out, const uint64_t *cells)
{
    size_t key_len = out->labels_len;
    for (int status = 0; status < PL_METRICS_STATUSES; status++) {
        uint64_t count = cells[PL_METRICS_TARGET_STATUSES + status];
        if (count == 0 && status != PL_METRICS_2XX && status != PL_METRICS_5XX)
            continue;
        pl_metrics_text_relabel(out, key_len);
        pl_metrics_text_label(out, "status_class",
                              pl_metrics_status_name((enum pl_metrics_status)status));
        pl_metrics_text_count(out, count);
    }
}

static void write_attempt_duration(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_histogram(out, &pl_metrics_durations, cells + PL_METRICS_TARGET_DURATION);
}

static void write_token_time(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_histogram(out, &pl_metrics_token_times, cells + PL_METRICS_TARGET_TOKEN_TIME);
}

static void write_connections(struct pl_metrics_text *out, const uint64_t *cells)
{
    write_labelled(out, "reused", "false", cells[PL_METRICS_TARGET_CONNECTS]);
    write_labelled(out, "reused", "true", cells[PL_METRICS_TARGET_REUSES]);
}

static void write_tokens(struct pl_metrics_text *out, const uint64_t *cells)
{
    write_labelled(out, "type", "input", cells[PL_METRICS_TARGET_INPUT_TOKENS]);
    write_labelled(out, "type", "output", cells[PL_METRICS_TARGET_OUTPUT_TOKENS]);
}

static void write_cached_tokens(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_count(out, cells[PL_METRICS_TARGET_CACHED_TOKENS]);
}

static void write_reasoning_tokens(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_count(out, cells[PL_METRICS_TARGET_REASONING_TOKENS]);
}

static void write_policy_errors(struct pl_metrics_text *out, const uint64_t *cells)
{
    for (int fault = PL_POLICY_FAULT_NONE + 1; fault < PL_POLICY_FAULT_COUNT; fault++)
        write_labelled(out, "kind", pl_policy_fault_name((enum pl_policy_fault)fault),
                       cells[PL_METRICS_POLICY_FAULTS + fault]);
    if (cells[PL_METRICS_POLICY_OTHER_FAULTS] > 0)
        write_labelled(out, "kind", "other", cells[PL_METRICS_POLICY_OTHER_FAULTS]);
}

static void write_floor(struct pl_metrics_text *out, const uint64_t *cells)
{
    pl_metrics_text_count(out, cells[PL_METRICS_POLICY_FLOOR]);
}

static const struct {
    const char *name, *type, *help;
    enum pl_metrics_kind kind;
    const char *labels[2]; /* the names of the key's parts */
    void (*write)(struct pl_metrics_text *out, const uint64_t *cells);
} FAMILIES[] = {
    {"requests_total",
     "counter",
     "Requests that have ended, whatever became of them.",
     PL_METRICS_REQUESTS,
     {"route", "model"},
     write_requests},
    {"request_duration_seconds",
     "histogram",
     "From a request's arrival to the end of its answer.",
     PL_METRICS_ROUTE,
     {"route", NULL},
     write_request_duration},
    {"retries_total",
     "counter",
     "Tries beyond the first one of their request.",
     PL_METRICS_ROUTE,
     {"route", NULL},
     write_retries},
    {"retry_success_total",
     "counter",
     "Requests that more than one try was made for, and the last one was good.",
     PL_METRICS_ROUTE,
     {"route", NULL},
     write_retry_successes},
    {"fallbacks_total",
     "counter",
     "Requests that were not left to a target of the first choice.",
     PL_METRICS_ROUTE,
     {"route", NULL},
     write_fallbacks},
    {"rescues_total",
     "counter",
     "Streams that broke off and that another target was asked to go on with, by how they ended.",
     PL_METRICS_ROUTE,
     {"route", NULL},
     write_rescues},
    {"hedges_total",
     "counter",
     "Times a target was slow enough for a second one to be asked, by what came of that.",
     PL_METRICS_ROUTE,
     {"route", NULL},
     write_hedges},
    {"time_to_first_token_seconds",
     "histogram",
     "Streams: from a request's arrival to the first event of its answer, failed tries included.",
     PL_METRICS_ROUTE_TARGET,
     {"route", "target"},
     write_first_token},
    {"attempts_total",
     "counter",
     "Tries, by what came of them.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_attempts},
    {"attempt_work_total",
     "counter",
     "Tries that failed, by what had become of the work: whether the target may bill it.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_attempt_work},
    {"attempt_responses_total",
     "counter",
     "Tries, by the status that the target answered with.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_attempt_statuses},
    {"attempt_duration_seconds",
     "histogram",
     "From a try's start to its end.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_attempt_duration},
    {"attempt_connections_total",
     "counter",
     "Tries that had a connection, by whether it had served before.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_connections},
    {"time_per_output_token_seconds",
     "histogram",
     "Streams: mean time between two tokens of an answer.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_token_time},
    {"tokens_total",
     "counter",
     "Tokens, as the target's answers count them.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_tokens},
    {"cached_tokens_total",
     "counter",
     "Input tokens that the target had in its cache.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_cached_tokens},
    {"malformed_events_total",
     "counter",
     "Events of streams that were no JSON, as far as events are read.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_malformed_events},
    {"reasoning_tokens_total",
     "counter",
     "Output tokens that the target spent on reasoning.",
     PL_METRICS_TARGET,
     {"target", NULL},
     write_reasoning_tokens},
    {"policy_errors_total",
     "counter",
     "Requests whose policy failed, by how.",
     PL_METRICS_POLICY,
     {"policy", NULL},
     write_policy_errors},
    {"policy_floor_total",
     "counter",
     "Requests that the floor policy served in place of their own.",
     PL_METRICS_POLICY,
     {"policy", NULL},
     write_floor},
};

static void write_series(const struct pl_metrics *self, size_t family, size_t series,
                         struct pl_metrics_text *out)
{
    uint64_t cells[PL_METRICS_CELLS_MAX];
    const char *key[2];
    enum pl_metrics_kind kind = FAMILIES[family].kind;
    if (!pl_metrics_read(self, kind, series, cells))
        return;
    pl_metrics_key(self, kind, series, key);
    pl_metrics_text_unlabel(out);
    for (size_t i = 0; i < 2 && FAMILIES[family].labels[i]; i++)
        pl_metrics_text_label(out, FAMILIES[family].labels[i], key[i]);
    FAMILIES[family].write(out, cells);
}

bool pl_metrics_write(const struct pl_metrics *self, struct pl_metrics_cursor *cursor,
                      size_t max_bytes, struct pl_metrics_text *out)
{
    size_t until = out->len + max_bytes;
    while (cursor->family < PL_COUNT(FAMILIES) && out->len < until) {
        size_t family = cursor->family;
        if (cursor->series == 0)
            pl_metrics_text_family(out, FAMILIES[family].name, FAMILIES[family].type,
                                   FAMILIES[family].help);
        write_series(self, family, cursor->series++, out);
        if (cursor->series >= pl_metrics_series_count(self, FAMILIES[family].kind))
            *cursor = (struct pl_metrics_cursor){.family = family + 1};
    }
    return cursor->family < PL_COUNT(FAMILIES);
}
