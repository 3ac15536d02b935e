/*
 * Admin summary: what the dashboard shows, in one answer: rates, targets, generations, and the
 * requests that have ended since it last asked. See admin_internal.h.
 *
 * Asked once a second by each open page: short names and no more than the page needs.
 */
#include "admin_internal.h"
#include "keys.h"
#include <stdlib.h>
#include <string.h>

#define RATE_SECONDS 10
#define RECENT_LIMIT 100

/* ---- rates ---- */

/* Null when there is nothing to say it of. */
static void put_ratio(struct pl_json_text *out, const char *key, uint64_t part, uint64_t whole)
{
    if (whole == 0)
        pl_json_put_string(out, key, NULL);
    else
        pl_json_put_number(out, key, (double)part / (double)whole);
}

static void put_first_token(struct pl_json_text *out, const char *key,
                            const struct pl_figures_view *view, double quantile)
{
    if (pl_figures_ttft_count(view) == 0)
        pl_json_put_string(out, key, NULL);
    else
        pl_json_put_number(out, key, pl_figures_ttft_ms(view, quantile));
}

/* Requests and failures of each second, the oldest first. */
static void put_series(const struct pl_rates *rates, struct pl_json_text *out)
{
    pl_json_open(out, "requests_by_second", '[');
    for (size_t ago = PL_RATES_SECONDS; ago-- > 0;) {
        const struct pl_figures_view *second = pl_rates_second(rates, ago);
        if (second)
            pl_json_put_u64(out, NULL, second->begun_count);
    }
    pl_json_close(out, ']');
    pl_json_open(out, "failures_by_second", '[');
    for (size_t ago = PL_RATES_SECONDS; ago-- > 0;) {
        const struct pl_figures_view *second = pl_rates_second(rates, ago);
        if (second)
            pl_json_put_u64(out, NULL, second->failure_count);
    }
    pl_json_close(out, ']');
}

/* 4xx and clients that left are neither success nor failure of the gateway. */
static void put_rates(const struct pl_admin *self, struct pl_json_text *out)
{
    struct pl_figures_view view;
    uint64_t length_ms;
    pl_rates_sum(&self->rates, RATE_SECONDS, &view, &length_ms);
    pl_json_put_number(out, "requests_per_second",
                       length_ms ? (double)view.begun_count * 1000.0 / (double)length_ms : 0);
    pl_rates_sum(&self->rates, PL_RATES_SECONDS, &view, &length_ms);
    pl_json_open(out, "last_minute", '{');
    pl_json_put_u64(out, "requests", view.begun_count);
    pl_json_put_u64(out, "succeeded", view.success_count);
    pl_json_put_u64(out, "failed", view.failure_count);
    pl_json_put_u64(out, "client_faults", view.client_fault_count);
    pl_json_put_u64(out, "client_gone", view.client_gone_count);
    put_ratio(out, "success_ratio", view.success_count, view.success_count + view.failure_count);
    put_first_token(out, "first_token_p50_ms", &view, 0.5);
    put_first_token(out, "first_token_p99_ms", &view, 0.99);
    put_series(&self->rates, out);
    pl_json_close(out, '}');
}

/* ---- targets ---- */

/* As many tries as have ended, whatever came of them: shares are told by how these grow. */
static uint64_t tries_of(const struct pl_health_view *view)
{
    return view->ok_total + view->neutral_total + view->server_error_total +
           view->gateway_error_total + view->connection_total + view->rejected_total +
           view->unhealthy_total;
}

static void put_slot(const struct pl_health_view *view, bool fit, uint64_t now_ms,
                     struct pl_json_text *out)
{
    pl_json_put_bool(out, "fit", fit);
    pl_json_put_string(out, "state", pl_health_state_name(view->state));
    pl_json_put_string(out, "why", fit ? NULL : pl_health_reason_name(view->reason));
    if (!fit && view->until_ms > now_ms && view->until_ms != UINT64_MAX)
        pl_json_put_u64(out, "out_for_ms", view->until_ms - now_ms);
    pl_json_put_u64(out, "in_flight", view->in_flight);
    pl_json_put_u64(out, "tries", tries_of(view));
    pl_json_put_u64(out, "good", view->ok_total);
    pl_json_put_u64(out, "ejections", view->ejection_total);
    if (view->first_token_ewma_ms > 0)
        pl_json_put_number(out, "first_token_ms", view->first_token_ewma_ms);
    if (view->ramp_ratio < 1)
        pl_json_put_number(out, "ramp_ratio", view->ramp_ratio);
}

static void put_providers(const struct pl_topology *topology, struct pl_json_text *out)
{
    pl_json_open(out, "providers", '[');
    for (size_t i = 0; i < topology->provider_count; i++) {
        const struct pl_provider *provider = &topology->providers[i];
        struct pl_health_view view;
        uint64_t now_ms = pl_now_ms();
        bool fit = pl_keys_look_at_provider(provider, topology->health, now_ms, &view);
        pl_json_open(out, NULL, '{');
        pl_json_put_string(out, "name", provider->name);
        put_slot(&view, fit, now_ms, out);
        pl_json_close(out, '}');
    }
    pl_json_close(out, ']');
}

static void put_target(const struct pl_topology *topology, const struct pl_config_route *route,
                       size_t index, struct pl_json_text *out)
{
    const struct pl_target *target = &topology->targets[index];
    pl_json_open(out, NULL, '{');
    pl_json_put_string(out, "route", route->name);
    pl_json_put_string(out, "name", target->name);
    pl_json_put_u64(out, "provider", target->provider_index);
    pl_json_put_u64(out, "priority", (uint64_t)target->priority);
    pl_json_put_number(out, "weight", target->weight);
    pl_json_put_u64(out, "queued", pl_gauge_queued(topology->gauge, (uint32_t)index));
    struct pl_health_view view;
    uint64_t now_ms = pl_now_ms();
    pl_health_look(topology->health, target->slot, now_ms, &view);
    put_slot(&view, pl_health_is_fit(topology->health, target->slot, now_ms), now_ms, out);
    pl_json_close(out, '}');
}

static void put_targets(const struct pl_config *config, struct pl_json_text *out)
{
    pl_json_open(out, "targets", '[');
    for (size_t i = 0; i < config->route_count; i++) {
        const struct pl_config_route *route = &config->routes[i];
        for (size_t j = 0; j < route->target_count; j++)
            put_target(&config->topology, route, route->first_target + j, out);
    }
    pl_json_close(out, ']');
}

/* ---- generations ---- */

static uint64_t in_flight_count(const struct pl_reload_state *state)
{
    const struct pl_edition *edition;
    struct pl_figures_view view;
    uint64_t count = 0;
    TAILQ_FOREACH(edition, &state->editions, link)
    {
        pl_figures_read(edition->figures, &view);
        count += view.in_flight_count;
    }
    return count;
}

static void put_generation(const struct pl_edition *edition, struct pl_json_text *out)
{
    pl_json_put_u64(out, "number", edition->number);
    pl_json_put_string(out, "by", edition->by);
    pl_json_put_string(out, "digest", edition->digest);
    pl_json_put_u64(out, "since_wall_ms", edition->since_wall_ms);
    pl_json_put_bool(out, "can_go_back", edition->back != NULL);
    if (edition->reason[0])
        pl_json_put_string(out, "reason", edition->reason);
}

static void put_canary(const struct pl_reload_state *state, struct pl_json_text *out)
{
    uint64_t now_ms = pl_now_ms();
    if (!state->canary)
        return;
    pl_json_open(out, "canary", '{');
    pl_json_put_u64(out, "number", state->canary->number);
    pl_json_put_number(out, "share_ratio", state->canary_ratio);
    pl_json_put_u64(out, "left_ms",
                    state->canary_until_ms > now_ms ? state->canary_until_ms - now_ms : 0);
    pl_json_put_string(out, "standing", state->canary_reason);
    pl_json_close(out, '}');
}

static void put_reloads(const struct pl_reload_state *state, struct pl_json_text *out)
{
    uint64_t rollback_count = 0;
    for (int cause = 0; cause < PL_ROLLBACK_CAUSES; cause++)
        rollback_count += state->rollback_counts[cause];
    pl_json_open(out, "reloads", '{');
    pl_json_put_u64(out, "good", state->good_count);
    pl_json_put_u64(out, "failed", state->failed_count);
    pl_json_put_u64(out, "rolled_back", rollback_count);
    if (state->failed_wall_ms) {
        pl_json_put_u64(out, "last_failed_wall_ms", state->failed_wall_ms);
        pl_json_put_string(out, "last_failed", state->failed_text);
    }
    pl_json_close(out, '}');
}

/* ---- all of it ---- */

void pl_admin_get_summary(struct pl_admin *self, struct pl_exchange *exchange)
{
    const struct pl_reload_state *state = pl_reload_look(self->parts.reload);
    struct pl_json_text text;
    pl_json_text_init(&text);
    pl_json_open(&text, NULL, '{');
    pl_json_put_string(&text, "version", PERILUNE_VERSION);
    pl_json_put_u64(&text, "now_wall_ms", pl_now_wall_ms());
    pl_json_put_u64(&text, "up_ms", pl_now_ms() - self->start_ms);
    pl_json_put_u64(&text, "workers", self->parts.worker_count);
    pl_json_put_bool(&text, "ready", pl_admin_is_ready(self));
    pl_json_put_bool(&text, "draining", self->draining);
    pl_json_put_u64(&text, "in_flight", in_flight_count(state));
    put_rates(self, &text);
    pl_json_open(&text, "generation", '{');
    put_generation(state->current, &text);
    pl_json_close(&text, '}');
    put_canary(state, &text);
    put_reloads(state, &text);
    put_providers(&self->config->topology, &text);
    put_targets(self->config, &text);
    pl_json_open(&text, "recent", '{');
    pl_admin_write_recent(self, pl_exchange_query(exchange), RECENT_LIMIT, &text);
    pl_json_close(&text, '}');
    pl_json_close(&text, '}');
    pl_admin_reply(exchange, 200, NULL, "application/json", text.data, text.len);
    pl_json_text_deinit(&text);
}
