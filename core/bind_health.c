/*
 * Health as library code sees it: asking, reserving, ejecting. See bind.h, health.h, admit.c.
 */
#include "bind.h"
#include "keys.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

static struct pl_health *health_of(lua_State *L)
{
    return pl_bind_generation(L)->topology->health;
}

static const struct pl_provider *provider_of(lua_State *L, const struct pl_target *target)
{
    return &pl_bind_generation(L)->topology->providers[target->provider_index];
}

static bool is_target_fit(const struct pl_topology *topology, const struct pl_target *target,
                          uint64_t now_ms)
{
    const struct pl_provider *provider = &topology->providers[target->provider_index];
    return pl_health_is_fit(topology->health, target->slot, now_ms) &&
           pl_keys_provider_is_fit(provider, topology->health, now_ms);
}

/* is_fit(target) */
static int is_fit(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    lua_pushboolean(L, is_target_fit(pl_bind_generation(L)->topology, target, pl_last_now_ms()));
    return 1;
}

/* admit(target, forced) -> true | nil, "out" | "busy" */
static int admit(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    enum pl_admission result =
        pl_try_admit(pl_hedge_next(pl_bind_running_request(L)), target, lua_toboolean(L, 2));
    if (result == PL_ADMIT_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, result == PL_ADMIT_BUSY ? "busy" : "out");
    return 2;
}

/* load(target) -> in flight, first token EWMA in ms (0: none), success EWMA, ramp */
static int load(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    struct pl_health *health = health_of(L);
    lua_pushinteger(L, pl_health_in_flight(health, target->slot));
    lua_pushnumber(L, pl_health_first_token_ewma_ms(health, target->slot));
    lua_pushnumber(L, pl_health_success_ewma(health, target->slot));
    lua_pushnumber(L, pl_health_ramp(health, target->slot, pl_last_now_ms()));
    return 4;
}

/* out_until_ms(target) -> when it may be tried again, on native.now_ms()'s clock; nil when fit */
static int out_until_ms(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    const pl_health_slot slots[] = {target->slot, provider_of(L, target)->slot};
    uint64_t now_ms = pl_now_ms();
    uint64_t until_ms = pl_keys_until_ms(provider_of(L, target), health_of(L), now_ms, NULL);
    for (size_t i = 0; i < PL_COUNT(slots); i++) {
        struct pl_health_view view;
        if (pl_health_is_fit(health_of(L), slots[i], now_ms))
            continue;
        pl_health_look(health_of(L), slots[i], now_ms, &view);
        until_ms = PL_MAX(until_ms, PL_MAX(view.until_ms, now_ms + 1));
    }
    if (until_ms == 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, (lua_Number)until_ms);
    return 1;
}

static enum pl_health_reason check_reason(lua_State *L, int index)
{
    static const struct {
        const char *name;
        enum pl_health_reason reason;
    } reasons[] = {{"retry_after", PL_REASON_RETRY_AFTER},
                   {"auth", PL_REASON_AUTH},
                   {"unhealthy", PL_REASON_UNHEALTHY}};
    const char *name = luaL_optstring(L, index, "");
    for (size_t i = 0; i < PL_COUNT(reasons); i++) {
        if (strcmp(reasons[i].name, name) == 0)
            return reasons[i].reason;
    }
    return PL_REASON_POLICY;
}

uint64_t pl_bind_check_duration_ms(lua_State *L, int index)
{
    lua_Number duration_ms = luaL_checknumber(L, index);
    luaL_argcheck(L, duration_ms >= 0 && duration_ms < 1e12, index, "out of range");
    return (uint64_t)(duration_ms + 0.999);
}

static int eject_slot(lua_State *L, pl_health_slot slot)
{
    pl_health_eject(health_of(L), slot, check_reason(L, 3), pl_bind_check_duration_ms(L, 2),
                    pl_now_ms());
    return 0;
}

/* eject(target, duration_ms, reason) */
static int eject(lua_State *L)
{
    return eject_slot(L, pl_bind_check_target(L, 1)->slot);
}

/* refuse_key(req): the upstream does not accept the key that the last try was sent with */
static int refuse_key(lua_State *L)
{
    pl_try_refuse_key(pl_bind_check_request(L, 1)->current);
    return 0;
}

/* pause_key(req, duration_ms) -> whether the key is out for so long; false where there is no other,
 * and nothing was done */
static int pause_key(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    lua_pushboolean(L, pl_try_pause_key(self->current, pl_bind_check_duration_ms(L, 2)));
    return 1;
}

/* restore(target) */
static int restore(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    pl_health_restore(health_of(L), target->slot, pl_now_ms());
    return 0;
}

void pl_bind_push_health(lua_State *L, const struct pl_topology *topology,
                         const struct pl_target *target)
{
    const struct pl_health *health = topology->health;
    struct pl_health_view seen;
    uint64_t now_ms = pl_now_ms();
    pl_health_look(health, target->slot, now_ms, &seen);
    lua_createtable(L, 0, 8);
    lua_pushstring(L, pl_health_state_name(seen.state));
    lua_setfield(L, -2, "state");
    lua_pushstring(L, pl_health_reason_name(seen.reason));
    lua_setfield(L, -2, "reason");
    lua_pushnumber(L, seen.until_ms > now_ms ? (lua_Number)(seen.until_ms - now_ms) : 0);
    lua_setfield(L, -2, "out_for_ms");
    lua_pushnumber(L, seen.in_flight);
    lua_setfield(L, -2, "in_flight");
    lua_pushnumber(L, seen.ejection_count);
    lua_setfield(L, -2, "ejections");
    lua_pushnumber(L, seen.success_ewma_ratio);
    lua_setfield(L, -2, "success_ratio");
    lua_pushnumber(L, seen.first_token_ewma_ms);
    lua_setfield(L, -2, "first_token_ms");
    lua_pushboolean(L, is_target_fit(topology, target, now_ms));
    lua_setfield(L, -2, "fit");
}

/* view(target) -> table */
static int view(lua_State *L)
{
    pl_bind_push_health(L, pl_bind_generation(L)->topology, pl_bind_check_target(L, 1));
    return 1;
}

/* retry_allowed(ratio, min_count): once allowed, allowed to this request's end */
static int retry_allowed(lua_State *L)
{
    struct pl_request *self = pl_bind_running_request(L);
    double ratio = luaL_checknumber(L, 1);
    uint32_t min_count = (uint32_t)luaL_checkinteger(L, 2);
    if (!self->retrying)
        self->retrying = pl_gauge_retry_begin(self->generation->topology->gauge, ratio, min_count);
    lua_pushboolean(L, self->retrying);
    return 1;
}

/* queue_limits(target) -> how many may wait, how long in ms */
static int queue_limits(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    lua_pushnumber(L, target->queue_count);
    lua_pushnumber(L, target->queue_ms);
    return 2;
}

/* queue_enter(target, max_count) -> boolean */
static int queue_enter(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    lua_pushboolean(L, pl_request_enter_queue(pl_bind_running_request(L), target,
                                              (uint32_t)luaL_checkinteger(L, 2)));
    return 1;
}

/* queue_leave(target) */
static int queue_leave(lua_State *L)
{
    pl_request_leave_queue(pl_bind_running_request(L));
    return 0;
}

/* keep_ms(ms): how much of the time the next try must leave for others */
static int keep_ms(lua_State *L)
{
    pl_bind_running_request(L)->keep_ms = pl_bind_check_duration_ms(L, 1);
    return 0;
}

/* within_ms(ms): how soon the answer to the next try must begin */
static int within_ms(lua_State *L)
{
    pl_bind_running_request(L)->within_ms = pl_bind_check_duration_ms(L, 1);
    return 0;
}

/* give_up(code, retry_after_ms | nil): why there is no further target, for the answer. What is out
 * until it is restored has no time to come again. */
static int give_up(lua_State *L)
{
    struct pl_request *self = pl_bind_running_request(L);
    lua_Number retry_ms = luaL_optnumber(L, 2, 0);
    snprintf(self->give_up_code, sizeof(self->give_up_code), "%s", luaL_checkstring(L, 1));
    self->give_up_retry_ms = retry_ms > 0 && retry_ms < 1e12 ? (uint64_t)(retry_ms + 0.999) : 0;
    return 0;
}

/* given_up(req) -> code, retry_after_ms | nil */
static int given_up(lua_State *L)
{
    const struct pl_request *self = pl_bind_check_request(L, 1);
    if (self->give_up_code[0] == '\0')
        return 0;
    lua_pushstring(L, self->give_up_code);
    lua_pushnumber(L, (lua_Number)self->give_up_retry_ms);
    return 2;
}

static struct pl_str check_str(lua_State *L, int index)
{
    struct pl_str text;
    text.data = luaL_checklstring(L, index, &text.len);
    return text;
}

/* change_response_header(req, name, value | nil, add): sets, adds or removes one before it is
 * judged */
static int change_response_header(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    struct pl_headers *headers = &self->current->response.headers;
    struct pl_str name = check_str(L, 2);
    if (!lua_toboolean(L, 4))
        pl_headers_remove(headers, name);
    if (!lua_isnoneornil(L, 3) && pl_headers_add(headers, name, check_str(L, 3)) != PL_OK)
        return luaL_error(L, "the header '%s' has an invalid name or value", name.data);
    return 0;
}

void pl_bind_health(lua_State *L)
{
    static const luaL_Reg functions[] = {{"is_fit", is_fit},
                                         {"admit", admit},
                                         {"load", load},
                                         {"out_until_ms", out_until_ms},
                                         {"eject", eject},
                                         {"refuse_key", refuse_key},
                                         {"pause_key", pause_key},
                                         {"restore", restore},
                                         {"view", view},
                                         {"retry_allowed", retry_allowed},
                                         {"queue_limits", queue_limits},
                                         {"queue_enter", queue_enter},
                                         {"queue_leave", queue_leave},
                                         {"keep_ms", keep_ms},
                                         {"within_ms", within_ms},
                                         {"give_up", give_up},
                                         {"given_up", given_up},
                                         {"change_response_header", change_response_header},
                                         {NULL, NULL}};
    luaL_register(L, NULL, functions);
}
