/*
 * Hedging as library code sees it: the steps that lua/perilune/hedge.lua puts in order. See bind.h,
 * hedge.c.
 *
 * After each step that waits there is either an answer to take from the try at hand (send_result),
 * or hedge_is_open says that there is none yet.
 */
#include "bind.h"
#include <lauxlib.h>
#include <string.h>

static int wait_for_answer(lua_State *L, struct pl_request *self)
{
    self->wait = PL_WAIT_ANSWER;
    return pl_coroutine_yield(&self->coroutine, L, "the answer of an upstream");
}

/* Waits until a try can be judged, if none can be. */
static int wait_unless_judged(lua_State *L, struct pl_request *self)
{
    if (!pl_hedge_is_open(self))
        return 0;
    if (self->past_deadline) { /* there is no timer left that would end it */
        pl_request_expire_answer(self);
        return 0;
    }
    return wait_for_answer(L, self);
}

/* hedge_begin(req, target, delay_ms): as send_begin, but goes on after the delay, too. */
static int hedge_begin(lua_State *L)
{
    uint64_t delay_ms = pl_bind_check_duration_ms(L, 3);
    struct pl_request *self = pl_bind_check_send(L);
    if (!self)
        return 0;
    pl_request_arm_timer(self, delay_ms);
    return wait_for_answer(L, self);
}

/* hedge_is_open(req) -> whether nothing can be judged yet */
static int hedge_is_open(lua_State *L)
{
    lua_pushboolean(L, pl_hedge_is_open(pl_bind_check_request(L, 1)));
    return 1;
}

/* hedge_start(req, target): asks a second target, and waits until one of the two can be judged;
 * false, at once, when it cannot be asked. */
static int hedge_start(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    const struct pl_target *target = pl_bind_check_target(L, 2);
    pl_bind_check_yieldable(L);
    if (!pl_hedge_is_open(self) || pl_hedge_start(self, target) != PL_OK) {
        lua_pushboolean(L, 0);
        return 1;
    }
    return wait_unless_judged(L, self);
}

/* hedge_wait(req): waits until a try can be judged. */
static int hedge_wait(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    pl_bind_check_yieldable(L);
    return wait_unless_judged(L, self);
}

/* hedge_next(req): drops the answer at hand and waits for that of the other try; false, at once,
 * when there is no other. */
static int hedge_next(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    pl_bind_check_yieldable(L);
    if (!pl_hedge_next_answer(self)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    return wait_unless_judged(L, self);
}

/* hedge_decide(req): goes on with the try at hand. */
static int hedge_decide(lua_State *L)
{
    pl_hedge_decide(pl_bind_check_request(L, 1));
    return 0;
}

/* hedge_count(req, result): for the metrics */
static int hedge_count(lua_State *L)
{
    static const char *const names[] = {"first",     "second",    "none", "ended",
                                        "no_budget", "no_target", NULL};
    pl_hedge_count(pl_bind_check_request(L, 1), (enum pl_hedge)luaL_checkoption(L, 2, NULL, names));
    return 0;
}

/* hedge_share(req) -> whether the request has not added its share to the budget yet; now it has */
static int hedge_share(lua_State *L)
{
    struct pl_request *self = pl_bind_check_request(L, 1);
    lua_pushboolean(L, !self->is_hedge_share_taken);
    self->is_hedge_share_taken = true;
    return 1;
}

/* wait_quantile_ms(target, ratio, streams) -> number, or nil while too few answers are known */
static int wait_quantile_ms(lua_State *L)
{
    const struct pl_target *target = pl_bind_check_target(L, 1);
    double wait_ms =
        pl_health_wait_quantile_ms(pl_bind_generation(L)->topology->health, target->slot,
                                   luaL_checknumber(L, 2), lua_toboolean(L, 3));
    if (wait_ms <= 0)
        return 0;
    lua_pushnumber(L, wait_ms);
    return 1;
}

void pl_bind_hedge(lua_State *L)
{
    static const luaL_Reg functions[] = {{"hedge_begin", hedge_begin},
                                         {"hedge_is_open", hedge_is_open},
                                         {"hedge_start", hedge_start},
                                         {"hedge_wait", hedge_wait},
                                         {"hedge_next", hedge_next},
                                         {"hedge_decide", hedge_decide},
                                         {"hedge_count", hedge_count},
                                         {"hedge_share", hedge_share},
                                         {"wait_quantile_ms", wait_quantile_ms},
                                         {NULL, NULL}};
    luaL_register(L, NULL, functions);
}
