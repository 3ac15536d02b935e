/*
 * Admin ready: whether requests should come here. See admin_internal.h.
 *
 * One route without a fit target is no reason to send the requests of all others away: only when no
 * route has one, another gateway may do better. Panic (see perilune.candidates) does not count as
 * fit. Who wants to know of one route asks for it: /readyz?route=NAME.
 */
#include "admin_internal.h"
#include "admin_query.h"
#include "keys.h"
#include <string.h>

static bool is_fit(const struct pl_topology *topology, size_t index, uint64_t now_ms)
{
    const struct pl_target *target = &topology->targets[index];
    return pl_health_is_fit(topology->health, target->slot, now_ms) &&
           pl_keys_provider_is_fit(&topology->providers[target->provider_index], topology->health,
                                   now_ms);
}

static bool can_serve(const struct pl_config *config, const struct pl_config_route *route)
{
    uint64_t now_ms = pl_now_ms();
    for (size_t i = 0; i < route->target_count; i++) {
        if (is_fit(&config->topology, route->first_target + i, now_ms))
            return true;
    }
    return false;
}

bool pl_admin_is_ready(const struct pl_admin *self)
{
    const struct pl_config *config = self->config;
    for (size_t i = 0; i < config->route_count && !self->draining; i++) {
        if (can_serve(config, &config->routes[i]))
            return true;
    }
    return config->route_count == 0 && !self->draining; /* a simulator */
}

static const struct pl_config_route *find_route(const struct pl_config *config, const char *name)
{
    for (size_t i = 0; i < config->route_count; i++) {
        if (strcmp(config->routes[i].name, name) == 0)
            return &config->routes[i];
    }
    return NULL;
}

static void reply(const struct pl_admin *self, struct pl_exchange *exchange, bool ready)
{
    const struct pl_config *config = self->config;
    struct pl_json_text text;
    pl_json_text_init(&text);
    pl_json_open(&text, NULL, '{');
    pl_json_put_string(&text, "status",
                       self->draining ? "draining"
                       : ready        ? "ready"
                                      : "no_usable_target");
    pl_json_open(&text, "routes_without_target", '[');
    for (size_t i = 0; i < config->route_count; i++) {
        if (!can_serve(config, &config->routes[i]))
            pl_json_put_string(&text, NULL, config->routes[i].name);
    }
    pl_json_close(&text, ']');
    pl_json_close(&text, '}');
    pl_admin_reply_json(exchange, ready ? 200 : 503, text.data);
    pl_json_text_deinit(&text);
}

void pl_admin_get_readyz(struct pl_admin *self, struct pl_exchange *exchange)
{
    char name[PL_QUERY_VALUE_BYTES];
    if (!pl_query_value(pl_exchange_query(exchange), "route", name)) {
        reply(self, exchange, pl_admin_is_ready(self));
        return;
    }
    const struct pl_config_route *route = find_route(self->config, name);
    if (route)
        reply(self, exchange, !self->draining && can_serve(self->config, route));
    else
        pl_admin_refuse(exchange, 404, "not_found", "There is no such route.");
}
