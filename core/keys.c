/*
 * Keys: see keys.h.
 */
#include "keys.h"
#include <stdio.h>

bool pl_keys_any_fit(const struct pl_provider *provider, const struct pl_health *health,
                     uint64_t now_ms)
{
    for (size_t i = 0; i < provider->key_count; i++) {
        if (pl_health_is_fit(health, provider->keys[i].slot, now_ms))
            return true;
    }
    return provider->key_count == 0;
}

/* The key that is back first; at worst the first. */
static size_t earliest(const struct pl_provider *provider, const struct pl_health *health,
                       uint64_t now_ms, struct pl_health_view *out)
{
    size_t best = 0;
    for (size_t i = 0; i < provider->key_count; i++) {
        struct pl_health_view view;
        pl_health_look(health, provider->keys[i].slot, now_ms, &view);
        if (i == 0 || view.until_ms < out->until_ms) {
            best = i;
            *out = view;
        }
    }
    return best;
}

uint64_t pl_keys_until_ms(const struct pl_provider *provider, const struct pl_health *health,
                          uint64_t now_ms, enum pl_health_reason *out_reason)
{
    struct pl_health_view view;
    if (pl_keys_any_fit(provider, health, now_ms))
        return 0;
    (void)earliest(provider, health, now_ms, &view);
    if (out_reason)
        *out_reason = view.reason;
    return PL_MAX(view.until_ms, now_ms + 1); /* one that is being tried is back soon */
}

bool pl_keys_provider_is_fit(const struct pl_provider *provider, const struct pl_health *health,
                             uint64_t now_ms)
{
    return pl_health_is_fit(health, provider->slot, now_ms) &&
           pl_keys_any_fit(provider, health, now_ms);
}

bool pl_keys_look_at_provider(const struct pl_provider *provider, const struct pl_health *health,
                              uint64_t now_ms, struct pl_health_view *out)
{
    pl_health_look(health, provider->slot, now_ms, out);
    if (!pl_health_is_fit(health, provider->slot, now_ms))
        return false;
    uint64_t until_ms = pl_keys_until_ms(provider, health, now_ms, &out->reason);
    if (until_ms == 0)
        return true;
    out->state = PL_HEALTH_OPEN;
    out->until_ms = until_ms;
    return false;
}

size_t pl_keys_pick(const struct pl_provider *provider, const struct pl_health *health, size_t turn,
                    uint64_t now_ms)
{
    struct pl_health_view view;
    for (size_t i = 0; i < provider->key_count; i++) {
        size_t index = (turn + i) % provider->key_count;
        if (pl_health_is_fit(health, provider->keys[index].slot, now_ms))
            return index;
    }
    return earliest(provider, health, now_ms, &view);
}

bool pl_keys_admit(const struct pl_provider *provider, struct pl_health *health, uint32_t *turn,
                   uint64_t now_ms, bool forced, struct pl_health_ticket *ticket, size_t *out_index)
{
    size_t count = provider->key_count, first = count ? *turn % count : 0;
    *ticket = (struct pl_health_ticket){.slot = PL_HEALTH_NO_SLOT};
    *out_index = 0;
    if (count == 0)
        return true;
    for (size_t i = 0; i < count; i++) {
        size_t index = (first + i) % count;
        if (!pl_health_admit(health, provider->keys[index].slot, now_ms, false, ticket))
            continue;
        *turn = (uint32_t)(index + 1);
        *out_index = index;
        return true;
    }
    if (!forced)
        return false;
    *out_index = pl_keys_pick(provider, health, first, now_ms);
    return pl_health_admit(health, provider->keys[*out_index].slot, now_ms, true, ticket);
}

bool pl_keys_refuse(const struct pl_provider *provider, struct pl_health *health, size_t index,
                    uint64_t now_ms, double random_unit)
{
    const struct pl_health_rules *rules = &provider->rules;
    pl_health_slot slot = provider->keys[index].slot;
    struct pl_health_view view;
    pl_health_look(health, slot, now_ms, &view);
    if (view.state == PL_HEALTH_OPEN)
        return false;
    uint64_t grown_ms = (uint64_t)rules->base_ejection_ms * (view.ejection_count + 1);
    double duration_ms = (double)PL_MIN(grown_ms, (uint64_t)rules->max_ejection_ms);
    duration_ms *= 1 + rules->jitter_ratio * random_unit;
    pl_health_eject(health, slot, PL_REASON_AUTH, (uint64_t)duration_ms, now_ms);
    return true;
}

void pl_keys_describe(const struct pl_provider *provider, size_t index, char *out, size_t size)
{
    snprintf(out, size, "key %zu of %zu (%s)", index + 1, provider->key_count,
             provider->keys[index].shown);
}
