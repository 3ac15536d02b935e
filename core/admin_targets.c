/*
 * Targets for the admin listener: see admin_targets.h.
 */
#include "admin_targets.h"
#include "admin_query.h"
#include "keys.h"
#include "log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- as JSON ---- */

static void write_counters(struct pl_json_text *out, const struct pl_health_view *view)
{
    pl_json_open(out, "counters", '{');
    pl_json_put_u64(out, "ok", view->ok_total);
    pl_json_put_u64(out, "neutral", view->neutral_total);
    pl_json_put_u64(out, "server_error", view->server_error_total);
    pl_json_put_u64(out, "gateway_error", view->gateway_error_total);
    pl_json_put_u64(out, "connection", view->connection_total);
    pl_json_put_u64(out, "rejected", view->rejected_total);
    pl_json_put_u64(out, "unhealthy", view->unhealthy_total);
    pl_json_put_u64(out, "late_failure", view->late_failure_total);
    pl_json_put_u64(out, "ejections", view->ejection_total);
    pl_json_put_u64(out, "probes", view->probe_total);
    pl_json_close(out, '}');
    pl_json_open(out, "consecutive", '{');
    pl_json_put_u64(out, "5xx", view->consecutive_5xx);
    pl_json_put_u64(out, "gateway", view->consecutive_gateway);
    pl_json_put_u64(out, "connection", view->consecutive_connection);
    pl_json_close(out, '}');
}

/* Times on the monotonic clock mean nothing outside: as time left, and as a date in ms. */
static void write_until(struct pl_json_text *out, uint64_t until_ms, uint64_t now_ms)
{
    if (until_ms == UINT64_MAX || until_ms <= now_ms) {
        pl_json_put_string(out, "out_for_ms", NULL);
        pl_json_put_string(out, "until_wall_ms", NULL);
        return;
    }
    pl_json_put_u64(out, "out_for_ms", until_ms - now_ms);
    pl_json_put_u64(out, "until_wall_ms", pl_now_wall_ms() + (until_ms - now_ms));
}

static void write_state(struct pl_json_text *out, const struct pl_health_view *view, bool fit,
                        uint64_t now_ms)
{
    pl_json_put_bool(out, "fit", fit);
    pl_json_put_string(out, "state", pl_health_state_name(view->state));
    pl_json_put_string(out, "why", fit ? NULL : pl_health_reason_name(view->reason));
    write_until(out, fit ? 0 : view->until_ms, now_ms);
    pl_json_put_u64(out, "ejection_multiplier", view->ejection_count);
}

static void write_slot(struct pl_json_text *out, const struct pl_health_view *view, bool fit,
                       uint64_t now_ms)
{
    write_state(out, view, fit, now_ms);
    pl_json_put_bool(out, "check_failed", view->check_failed);
    pl_json_put_bool(out, "probe_in_flight", view->probe_in_flight);
    pl_json_put_u64(out, "in_flight", view->in_flight);
    pl_json_put_number(out, "success_ewma_ratio", view->success_ewma_ratio);
    pl_json_put_number(out, "first_token_ewma_ms", view->first_token_ewma_ms);
    pl_json_put_number(out, "ramp_ratio", view->ramp_ratio);
    write_counters(out, view);
}

/* The first target with that slot stands for all that share it. */
static bool is_first_of_slot(const struct pl_topology *topology, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (topology->targets[i].slot == topology->targets[index].slot)
            return false;
    }
    return true;
}

static void write_target(struct pl_json_text *out, const struct pl_topology *topology, size_t index)
{
    const struct pl_target *target = &topology->targets[index];
    struct pl_health_view view;
    uint64_t now_ms = pl_now_ms();
    pl_health_look(topology->health, target->slot, now_ms, &view);
    pl_json_open(out, NULL, '{');
    pl_json_put_string(out, "name", target->name);
    pl_json_put_string(out, "provider", topology->providers[target->provider_index].name);
    pl_json_put_string(out, "model", target->model);
    pl_json_put_u64(out, "queued", pl_gauge_queued(topology->gauge, target->slot));
    write_slot(out, &view, pl_health_is_fit(topology->health, target->slot, now_ms), now_ms);
    pl_json_close(out, '}');
}

static void write_keys(struct pl_json_text *out, const struct pl_topology *topology,
                       const struct pl_provider *provider)
{
    uint64_t now_ms = pl_now_ms();
    pl_json_open(out, "keys", '[');
    for (size_t i = 0; i < provider->key_count; i++) {
        char name[160];
        struct pl_health_view view;
        pl_health_slot slot = provider->keys[i].slot;
        bool fit = pl_health_is_fit(topology->health, slot, now_ms);
        pl_health_look(topology->health, slot, now_ms, &view);
        pl_keys_describe(provider, i, name, sizeof(name));
        pl_json_open(out, NULL, '{');
        pl_json_put_string(out, "name", name);
        write_state(out, &view, fit, now_ms);
        pl_json_put_u64(out, "in_flight", view.in_flight);
        pl_json_put_u64(out, "ejections", view.ejection_total);
        pl_json_close(out, '}');
    }
    pl_json_close(out, ']');
}

static void write_provider(struct pl_json_text *out, const struct pl_topology *topology,
                           const struct pl_provider *provider)
{
    struct pl_health_view view;
    uint64_t now_ms = pl_now_ms();
    bool fit = pl_keys_look_at_provider(provider, topology->health, now_ms, &view);
    pl_json_open(out, NULL, '{');
    pl_json_put_string(out, "name", provider->name);
    write_slot(out, &view, fit, now_ms);
    write_keys(out, topology, provider);
    pl_json_close(out, '}');
}

void pl_admin_targets_write(const struct pl_topology *topology, struct pl_json_text *out)
{
    pl_json_open(out, NULL, '{');
    pl_json_open(out, "targets", '[');
    for (size_t i = 0; i < topology->target_count; i++) {
        if (is_first_of_slot(topology, i))
            write_target(out, topology, i);
    }
    pl_json_close(out, ']');
    pl_json_open(out, "providers", '[');
    for (size_t i = 0; i < topology->provider_count; i++)
        write_provider(out, topology, &topology->providers[i]);
    pl_json_close(out, ']');
    pl_json_close(out, '}');
}

/* ---- what operators do
 * ---------------------------------------------------------------------------- */

static pl_health_slot find_slot(const struct pl_topology *topology, struct pl_str query,
                                char name[PL_QUERY_VALUE_BYTES])
{
    if (pl_query_value(query, "target", name)) {
        for (size_t i = 0; i < topology->target_count; i++) {
            if (strcmp(topology->targets[i].name, name) == 0)
                return topology->targets[i].slot;
        }
    } else if (pl_query_value(query, "provider", name)) {
        for (size_t i = 0; i < topology->provider_count; i++) {
            if (strcmp(topology->providers[i].name, name) == 0)
                return topology->providers[i].slot;
        }
    } else {
        name[0] = '\0';
    }
    return PL_HEALTH_NO_SLOT;
}

static void act(struct pl_health *health, struct pl_str action, pl_health_slot slot,
                uint64_t duration_ms)
{
    uint64_t now_ms = pl_now_ms();
    if (pl_str_equal(action, PL_STR("restore")))
        pl_health_restore(health, slot, now_ms);
    else
        pl_health_eject(health, slot,
                        pl_str_equal(action, PL_STR("drain")) ? PL_REASON_DRAINED
                                                              : PL_REASON_OPERATOR,
                        duration_ms, now_ms);
}

/* Who puts a provider in service again has mended its keys, too. */
static void restore_keys(const struct pl_topology *topology, pl_health_slot slot)
{
    for (size_t i = 0; i < topology->provider_count; i++) {
        const struct pl_provider *provider = &topology->providers[i];
        for (size_t j = 0; provider->slot == slot && j < provider->key_count; j++)
            pl_health_restore(topology->health, provider->keys[j].slot, pl_now_ms());
    }
}

int pl_admin_targets_act(const struct pl_topology *topology, struct pl_str action,
                         struct pl_str query, char *message, size_t message_size)
{
    static const char *const keys[] = {"target", "provider", "for", NULL};
    char name[PL_QUERY_VALUE_BYTES], duration[PL_QUERY_VALUE_BYTES];
    uint64_t duration_ms = UINT64_MAX;
    struct pl_str stranger;
    if (!pl_query_has_only(query, keys, &stranger)) { /* a mistyped "for" would mean for ever */
        snprintf(message, message_size,
                 "the query can have target or provider, and for, each once and with a value");
        return 400;
    }
    pl_health_slot slot = find_slot(topology, query, name);
    if (name[0] == '\0') {
        snprintf(message, message_size, "target=NAME or provider=NAME is needed");
        return 400;
    }
    if (slot == PL_HEALTH_NO_SLOT) {
        snprintf(message, message_size, "there is no such target or provider: %.100s", name);
        return 404;
    }
    if (pl_query_value(query, "for", duration) && !pl_query_duration_ms(duration, &duration_ms)) {
        snprintf(message, message_size, "for: a duration such as 30s or 5m is expected");
        return 400;
    }
    act(topology->health, action, slot, duration_ms);
    if (pl_str_equal(action, PL_STR("restore")))
        restore_keys(topology, slot);
    pl_log(PL_LOG_INFO, "%.*s %s by the operator", (int)action.len, action.data, name);
    snprintf(message, message_size, "done: %.*s %.100s", (int)action.len, action.data, name);
    return 200;
}
