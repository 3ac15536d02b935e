/*
 * GET /metrics: see admin_metrics.h.
 */
#include "admin_metrics.h"
#include "keys.h"
#include "metrics_write.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES 65536

/* ---- the process ---- */

static void write_total(struct pl_metrics_text *out, const char *name, const char *help,
                        uint64_t value)
{
    pl_metrics_text_family(out, name, "counter", help);
    pl_metrics_text_count(out, value);
}

static void write_gauge(struct pl_metrics_text *out, const char *name, const char *help,
                        uint64_t value)
{
    pl_metrics_text_family(out, name, "gauge", help);
    pl_metrics_text_count(out, value);
}

/* A sample of the family with one label. */
static void write_one(struct pl_metrics_text *out, const char *label, const char *label_value,
                      uint64_t value)
{
    pl_metrics_text_unlabel(out);
    pl_metrics_text_label(out, label, label_value);
    pl_metrics_text_count(out, value);
}

static void write_generations(struct pl_metrics_text *out, const struct pl_reload_state *state)
{
    write_gauge(out, "generation", "Number of the configuration in force.", state->current->number);
    write_gauge(out, "canary_generation", "Number of the configuration on trial; 0: none is.",
                state->canary ? state->canary->number : 0);
    pl_metrics_text_family(out, "reloads_total", "counter",
                           "Reloads that were asked for, by what became of them.");
    write_one(out, "result", "ok", state->good_count);
    write_one(out, "result", "failed", state->failed_count);
    pl_metrics_text_family(out, "rollbacks_total", "counter",
                           "Configurations that were taken back, by who or what did it.");
    for (int cause = 0; cause < PL_ROLLBACK_CAUSES; cause++)
        write_one(out, "reason", pl_rollback_cause_name((enum pl_rollback_cause)cause),
                  state->rollback_counts[cause]);
    write_total(out, "promotions_total", "Trials of a configuration that ended well.",
                state->promoted_count);
}

static void write_spans(struct pl_metrics_text *out, struct pl_spans *spans)
{
    struct pl_spans_counts counts;
    pl_spans_look(spans, &counts);
    write_total(out, "spans_exported_total", "Spans that a collector has taken.", counts.exported);
    pl_metrics_text_family(out, "spans_dropped_total", "counter",
                           "Spans that were not exported, and why.");
    for (int reason = 0; reason < PL_SPAN_DROP_COUNT; reason++)
        write_one(out, "reason", pl_span_drop_name((enum pl_span_drop)reason),
                  counts.dropped[reason]);
    write_total(out, "span_export_failures_total",
                "Requests to the collector that did not end well.", counts.failed_exports);
    write_gauge(out, "spans_queued", "Spans that wait for the collector.", counts.queued);
    write_gauge(out, "spans_queue_bytes", "Memory that they take.", counts.queued_bytes);
}

static void write_process(struct pl_metrics_text *out, const struct pl_admin_metrics *self)
{
    pl_metrics_text_family(out, "build_info", "gauge", "Always 1; the version is in the label.");
    write_one(out, "version", PERILUNE_VERSION, 1);
    write_generations(out, pl_reload_look(self->reload));
    if (self->access_log) {
        write_total(out, "access_log_lines_total", "Lines that the access log has taken.",
                    pl_sink_line_total(self->access_log));
        write_total(out, "access_log_dropped_total",
                    "Lines that were lost: their reader was too slow, or the file took no more.",
                    pl_sink_dropped_total(self->access_log));
    }
    if (self->spans)
        write_spans(out, self->spans);
    if (!self->topology->gauge)
        return;
    write_gauge(out, "requests_in_flight", "Requests that have begun and not ended.",
                pl_gauge_requests(self->topology->gauge));
    write_gauge(out, "retries_in_flight",
                "Requests among them that hold a place in the retry budget.",
                pl_gauge_retries(self->topology->gauge));
}

/* ---- workers ---- */

static void write_worker_family(struct pl_metrics_text *out, const struct pl_metrics *metrics,
                                const char *name, const char *help, size_t offset)
{
    pl_metrics_text_family(out, name, "gauge", help);
    for (size_t i = 0; i < pl_metrics_worker_count(metrics); i++) {
        struct pl_metrics_levels levels;
        char worker[PL_NUMBER_MAX + 1];
        pl_metrics_levels_of(metrics, i, &levels);
        snprintf(worker, sizeof(worker), "%zu", i);
        write_one(out, "worker", worker, *(uint64_t *)((char *)&levels + offset));
    }
}

static void write_connections(struct pl_metrics_text *out, const struct pl_metrics *metrics)
{
    struct pl_metrics_levels levels, sum = {0};
    for (size_t i = 0; i < pl_metrics_worker_count(metrics); i++) {
        pl_metrics_levels_of(metrics, i, &levels);
        sum.client_connections += levels.client_connections;
        sum.upstream_connections += levels.upstream_connections;
        sum.idle_upstream_connections += levels.idle_upstream_connections;
    }
    pl_metrics_text_family(
        out, "connections", "gauge",
        "Open connections: of clients, to upstreams for a try at work, and those "
        "kept for the next try.");
    write_one(out, "side", "client", sum.client_connections);
    write_one(out, "side", "upstream", sum.upstream_connections);
    write_one(out, "side", "upstream_idle", sum.idle_upstream_connections);
}

static void write_workers(struct pl_metrics_text *out, const struct pl_metrics *metrics)
{
    write_connections(out, metrics);
    write_worker_family(out, metrics, "worker_connections", "Open connections of clients.",
                        offsetof(struct pl_metrics_levels, client_connections));
    write_worker_family(out, metrics, "buffered_bytes",
                        "Bytes in memory that clients have sent or will be sent.",
                        offsetof(struct pl_metrics_levels, buffered_bytes));
    write_worker_family(out, metrics, "vm_memory_bytes", "Memory of the policies' Lua states.",
                        offsetof(struct pl_metrics_levels, vm_memory_bytes));
    pl_metrics_text_family(out, "loop_lag_seconds", "gauge",
                           "How late a timer of the worker fired, the worst of the last 15 s.");
    for (size_t i = 0; i < pl_metrics_worker_count(metrics); i++) {
        struct pl_metrics_levels levels;
        char worker[PL_NUMBER_MAX + 1];
        pl_metrics_levels_of(metrics, i, &levels);
        snprintf(worker, sizeof(worker), "%zu", i);
        pl_metrics_text_unlabel(out);
        pl_metrics_text_label(out, "worker", worker);
        pl_metrics_text_seconds(out, levels.loop_lag_us, 1000000);
    }
}

/* ---- health ---- */

/* A name and what is known of it at this moment. */
struct health_row {
    const char *name;
    uint32_t queued;
    struct pl_health_view view;
};

static void write_states(struct pl_metrics_text *out, const char *label,
                         const struct health_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (int state = PL_HEALTH_CLOSED; state <= PL_HEALTH_HALF_OPEN; state++) {
            pl_metrics_text_unlabel(out);
            pl_metrics_text_label(out, label, rows[i].name);
            pl_metrics_text_label(out, "state", pl_health_state_name((enum pl_health_state)state));
            pl_metrics_text_count(out, rows[i].view.state == (enum pl_health_state)state);
        }
    }
}

/* Those that have happened, and a total of 0 for the commonest: a rate needs a start. The labels
 * are those that are there. */
static void write_reasons(struct pl_metrics_text *out, const struct pl_health_view *view,
                          enum pl_health_reason commonest)
{
    size_t key_len = out->labels_len;
    for (int reason = PL_REASON_NONE + 1; reason < PL_REASON_COUNT; reason++) {
        uint64_t total = view->ejection_totals[reason];
        if (total == 0 && reason != (int)commonest)
            continue;
        pl_metrics_text_relabel(out, key_len);
        pl_metrics_text_label(out, "reason", pl_health_reason_name((enum pl_health_reason)reason));
        pl_metrics_text_count(out, total);
    }
}

static void write_ejections(struct pl_metrics_text *out, const char *label,
                            const struct health_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pl_metrics_text_unlabel(out);
        pl_metrics_text_label(out, label, rows[i].name);
        write_reasons(out, &rows[i].view, PL_REASON_CONSECUTIVE_5XX);
    }
}

static void write_targets(struct pl_metrics_text *out, const struct health_row *rows, size_t count)
{
    pl_metrics_text_family(out, "target_state", "gauge",
                           "1 for the state that the target's circuit breaker is in.");
    write_states(out, "target", rows, count);
    pl_metrics_text_family(out, "target_in_flight", "gauge", "Tries that the target works on.");
    for (size_t i = 0; i < count; i++)
        write_one(out, "target", rows[i].name, rows[i].view.in_flight);
    pl_metrics_text_family(out, "queue_length", "gauge",
                           "Requests that wait for a place at the target.");
    for (size_t i = 0; i < count; i++)
        write_one(out, "target", rows[i].name, rows[i].queued);
    pl_metrics_text_family(out, "ejections_total", "counter",
                           "Times the target went out, and why.");
    write_ejections(out, "target", rows, count);
}

/* Of each route how many targets can be tried now, and how many are out; a target counts once per
 * mention. */
static void write_routes(struct pl_metrics_text *out, const struct pl_topology *topology,
                         uint64_t now_ms)
{
    const struct pl_target *targets = topology->targets;
    pl_metrics_text_family(out, "route_targets", "gauge",
                           "Targets of the route that may be tried, and those that are out.");
    for (size_t i = 0, end; i < topology->target_count; i = end) {
        uint64_t fit_count = 0;
        for (end = i;
             end < topology->target_count && strcmp(targets[end].route, targets[i].route) == 0;
             end++) {
            const struct pl_provider *provider = &topology->providers[targets[end].provider_index];
            fit_count += pl_health_is_fit(topology->health, targets[end].slot, now_ms) &&
                         pl_keys_provider_is_fit(provider, topology->health, now_ms);
        }
        pl_metrics_text_unlabel(out);
        pl_metrics_text_label(out, "route", targets[i].route);
        size_t key_len = out->labels_len;
        pl_metrics_text_label(out, "state", "fit");
        pl_metrics_text_count(out, fit_count);
        pl_metrics_text_relabel(out, key_len);
        pl_metrics_text_label(out, "state", "out");
        pl_metrics_text_count(out, end - i - fit_count);
    }
}

static void write_providers(struct pl_metrics_text *out, const struct health_row *rows,
                            size_t count)
{
    pl_metrics_text_family(out, "provider_state", "gauge",
                           "1 for the state that the provider's circuit breaker is in.");
    write_states(out, "provider", rows, count);
    pl_metrics_text_family(out, "provider_ejections_total", "counter",
                           "Times the provider went out with all of its targets, and why.");
    write_ejections(out, "provider", rows, count);
}

/* By their places in the list; what they are nobody sees. */
static void write_keys(struct pl_metrics_text *out, const struct pl_topology *topology,
                       uint64_t now_ms)
{
    pl_metrics_text_family(out, "key_out", "gauge",
                           "1 while the provider's key is out: refused, or told to wait.");
    for (size_t i = 0; i < topology->provider_count; i++) {
        const struct pl_provider *provider = &topology->providers[i];
        for (size_t j = 0; j < provider->key_count; j++) {
            char number[PL_NUMBER_MAX + 1];
            number[pl_put_decimal(number, j + 1)] = '\0';
            pl_metrics_text_unlabel(out);
            pl_metrics_text_label(out, "provider", provider->name);
            pl_metrics_text_label(out, "key", number);
            pl_metrics_text_count(
                out, !pl_health_is_fit(topology->health, provider->keys[j].slot, now_ms));
        }
    }
}

static void write_key_ejections(struct pl_metrics_text *out, const struct pl_topology *topology,
                                uint64_t now_ms)
{
    pl_metrics_text_family(out, "key_ejections_total", "counter",
                           "Times the provider's key went out, and why.");
    for (size_t i = 0; i < topology->provider_count; i++) {
        const struct pl_provider *provider = &topology->providers[i];
        for (size_t j = 0; j < provider->key_count; j++) {
            struct pl_health_view view;
            char number[PL_NUMBER_MAX + 1];
            number[pl_put_decimal(number, j + 1)] = '\0';
            pl_health_look(topology->health, provider->keys[j].slot, now_ms, &view);
            pl_metrics_text_unlabel(out);
            pl_metrics_text_label(out, "provider", provider->name);
            pl_metrics_text_label(out, "key", number);
            write_reasons(out, &view, PL_REASON_AUTH);
        }
    }
}

static void look(struct health_row *row, const struct pl_topology *topology, const char *name,
                 pl_health_slot slot, uint64_t now_ms)
{
    row->name = name;
    row->queued = pl_gauge_queued(topology->gauge, slot);
    pl_health_look(topology->health, slot, now_ms, &row->view);
}

/* Routes that share a target have it once each, with the same name and the same slot: it is shown
 * once. One without a slot (there was no room) is never out and has nothing to show. */
static size_t look_at_targets(struct health_row *rows, const struct pl_topology *topology,
                              uint64_t now_ms)
{
    pl_health_slot max_slot = 0;
    size_t count = 0;
    for (size_t i = 0; i < topology->target_count; i++) {
        if (topology->targets[i].slot != PL_HEALTH_NO_SLOT)
            max_slot = PL_MAX(max_slot, topology->targets[i].slot);
    }
    bool *seen = pl_xcalloc((size_t)max_slot + 1, sizeof(*seen));
    for (size_t i = 0; i < topology->target_count; i++) {
        const struct pl_target *target = &topology->targets[i];
        if (target->slot == PL_HEALTH_NO_SLOT || seen[target->slot])
            continue;
        seen[target->slot] = true;
        look(&rows[count++], topology, target->name, target->slot, now_ms);
    }
    free(seen);
    return count;
}

static void write_health(struct pl_metrics_text *out, const struct pl_topology *topology)
{
    uint64_t now_ms = pl_now_ms();
    size_t max_count = PL_MAX(topology->target_count, topology->provider_count);
    struct health_row *rows = pl_xcalloc(max_count + 1, sizeof(*rows));
    write_targets(out, rows, look_at_targets(rows, topology, now_ms));
    for (size_t i = 0; i < topology->provider_count; i++) {
        const struct pl_provider *provider = &topology->providers[i];
        rows[i] = (struct health_row){.name = provider->name};
        (void)pl_keys_look_at_provider(provider, topology->health, now_ms, &rows[i].view);
    }
    write_providers(out, rows, topology->provider_count);
    write_keys(out, topology, now_ms);
    write_key_ejections(out, topology, now_ms);
    write_routes(out, topology, now_ms);
    free(rows);
}

/* ---- the answer ---- */

struct scrape {
    struct pl_exchange *exchange;
    const struct pl_metrics *metrics;
    struct event *timer;
    struct pl_metrics_cursor cursor;
    struct pl_metrics_text text;
};

static void scrape_free(struct scrape *self)
{
    event_free(self->timer);
    pl_metrics_text_deinit(&self->text);
    free(self);
}

static void on_gone(void *arg)
{
    scrape_free(arg);
}

/* In the loop's next turn, after whatever else there is to do in this one. */
static void go_on_soon(struct scrape *self)
{
    static const struct timeval none = {0, 0};
    event_add(self->timer, &none);
}

static void on_writable(void *arg)
{
    go_on_soon(arg);
}

static const struct pl_exchange_ops exchange_ops = {.on_gone = on_gone, .on_writable = on_writable};

/* Writes a piece; the next one follows when the client has taken this one. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct scrape *self = arg;
    self->text.len = 0;
    bool more = pl_metrics_write(self->metrics, &self->cursor, PIECE_BYTES, &self->text);
    bool goes_on = pl_exchange_write(self->exchange, self->text.data, self->text.len);
    if (more && goes_on)
        go_on_soon(self);
    if (more)
        return;
    pl_exchange_end(self->exchange);
    scrape_free(self);
}

static void begin_scrape(const struct pl_admin_metrics *source, struct pl_exchange *exchange,
                         const struct pl_headers *headers, struct pl_metrics_text *text,
                         const struct pl_metrics_cursor *cursor)
{
    struct scrape *self = pl_xcalloc(1, sizeof(*self));
    *self = (struct scrape){
        .exchange = exchange, .metrics = source->metrics, .cursor = *cursor, .text = *text};
    self->timer = event_new(source->base, -1, 0, on_turn, self);
    if (!self->timer)
        abort();
    pl_exchange_set_ops(exchange, &exchange_ops, self);
    pl_exchange_start(exchange, 200, headers, -1);
    if (pl_exchange_write(exchange, text->data, text->len))
        go_on_soon(self);
}

void pl_admin_get_metrics(const struct pl_admin_metrics *self, struct pl_exchange *exchange)
{
    struct pl_metrics_cursor cursor = {0};
    struct pl_metrics_text text;
    struct pl_headers headers;
    pl_headers_init(&headers);
    if (pl_headers_add(&headers, PL_STR("Content-Type"), PL_STR(PL_METRICS_CONTENT_TYPE)) !=
            PL_OK ||
        pl_headers_add(&headers, PL_STR("Cache-Control"), PL_STR("no-store")) != PL_OK)
        abort();
    pl_metrics_text_init(&text);
    write_process(&text, self);
    write_workers(&text, self->metrics);
    write_health(&text, self->topology);
    if (pl_metrics_write(self->metrics, &cursor, PIECE_BYTES, &text)) {
        begin_scrape(self, exchange, &headers, &text, &cursor);
    } else {
        pl_exchange_reply(exchange, 200, &headers, text.data, text.len);
        pl_metrics_text_deinit(&text);
    }
    pl_headers_deinit(&headers);
}
