/*
 * What a simulated stage tells, as calls of Lua: see simulate_stage.c, which says what each of them
 * gets. What they raise is kept in the world, and ends the run.
 */
#include "simulate_internal.h"
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS_EXPECTED 1000000000.0

struct pl_simulate_patience {
    struct pl_timer timer;
    struct pl_stage_client *client;
    LIST_ENTRY(pl_simulate_patience) link;
};

/* ---- calling Lua ---- */

static void keep_failure(struct pl_simulate_world *self)
{
    self->failed = true;
    lua_setfield(self->L, self->table, "failure");
    pl_stage_stop(self->stage);
}

/* Leaves the function `name` of the world. */
static lua_State *push_function(struct pl_simulate_world *self, const char *name)
{
    lua_getfield(self->L, self->table, name);
    return self->L;
}

static void push_ms(lua_State *L, uint64_t us)
{
    lua_pushnumber(L, (lua_Number)us / 1000);
}

/* ---- calls ---- */

/* The pieces after the head, in one. */
static struct pl_str join_body(struct pl_simulate_world *self, const struct pl_stage_call *call)
{
    size_t len = 0;
    for (size_t i = 1; i < call->piece_count; i++)
        len += call->pieces[i].iov_len;
    if (len > self->body_cap) {
        self->body_cap = len;
        self->body = pl_xrealloc(self->body, len);
    }
    char *end = self->body;
    for (size_t i = 1; i < call->piece_count; i++) {
        memcpy(end, call->pieces[i].iov_base, call->pieces[i].iov_len);
        end += call->pieces[i].iov_len;
    }
    return (struct pl_str){self->body, len};
}

static double number_of(const struct pl_json *json, const char *key)
{
    const struct pl_json_member *member = pl_json_find(json, pl_str_of(key));
    char digits[32];
    if (!member || member->type != PL_JSON_NUMBER || member->value_len >= sizeof(digits))
        return -1;
    memcpy(digits, json->text + member->value_start, member->value_len);
    digits[member->value_len] = '\0';
    return strtod(digits, NULL);
}

/* The limit on the answer's tokens that the upstream is given, or nil. */
static void push_max_tokens(struct pl_simulate_world *self, const struct pl_stage_call *call)
{
    struct pl_str body = join_body(self, call);
    double count = -1;
    if (pl_json_scan(&self->json, body.data, body.len) == PL_OK) {
        count = number_of(&self->json, "max_completion_tokens");
        count = count >= 0 ? count : number_of(&self->json, "max_tokens");
    }
    if (count >= 1 && count <= MAX_TOKENS_EXPECTED)
        lua_pushnumber(self->L, (lua_Number)(uint64_t)count);
    else
        lua_pushnil(self->L);
}

/* make(plan, target): leaves the answer as light userdata. */
static int make(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushlightuserdata(L, pl_simulate_answer(L, 1, lua_touserdata(L, 2)));
    return 1;
}

static struct pl_stage_answer *on_call(struct pl_stage_call *call, void *arg)
{
    struct pl_simulate_world *self = arg;
    lua_State *L = push_function(self, "on_call");
    lua_pushnumber(L, (lua_Number)call->number);
    lua_pushnumber(L, (lua_Number)call->client_number);
    lua_pushstring(L, call->target->name);
    lua_pushstring(L, call->provider->name);
    push_ms(L, call->at_us);
    push_max_tokens(self, call);
    bool good = lua_pcall(L, 6, 1, 0) == 0;
    if (good) {
        lua_pushcfunction(L, make);
        lua_insert(L, -2);
        lua_pushlightuserdata(L, (void *)call->target);
        good = lua_pcall(L, 2, 1, 0) == 0;
    }
    if (!good) {
        keep_failure(self);
        return NULL;
    }
    struct pl_stage_answer *answer = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return answer;
}

static void on_call_end(struct pl_stage_call *call, void *arg)
{
    struct pl_simulate_world *self = arg;
    lua_State *L = push_function(self, "on_call_end");
    lua_pushnumber(L, (lua_Number)call->number);
    push_ms(L, call->ended_us);
    lua_pushstring(L, call->state == PL_STAGE_CALL_CANCELLED ? "cancelled"
                                                             : pl_failure_name(call->failure));
    if (lua_pcall(L, 3, 0, 0) != 0)
        keep_failure(self);
}

static int on_check(const struct pl_provider *provider, uint64_t at_us, void *arg)
{
    struct pl_simulate_world *self = arg;
    lua_State *L = push_function(self, "on_check");
    lua_pushstring(L, provider->name);
    push_ms(L, at_us);
    lua_pushnumber(L, provider->check.timeout_ms);
    if (lua_pcall(L, 3, 1, 0) != 0) {
        keep_failure(self);
        return 0;
    }
    int status = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return status;
}

/* ---- clients ---- */

static void patience_free(struct pl_simulate_patience *self)
{
    pl_timer_stop(&self->timer);
    LIST_REMOVE(self, link);
    free(self);
}

static void on_patience_over(void *arg)
{
    struct pl_simulate_patience *self = arg;
    pl_stage_leave(self->client); /* ends in on_client_end, which frees `self` */
}

static void on_client_end(const struct pl_stage_client *client, void *arg)
{
    static const char *const ends[] = {[PL_STAGE_OPEN] = "open",
                                       [PL_STAGE_COMPLETE] = "complete",
                                       [PL_STAGE_BROKEN] = "cut",
                                       [PL_STAGE_RESET] = "reset",
                                       [PL_STAGE_LEFT] = "left"};
    struct pl_simulate_world *self = arg;
    if (client->user)
        patience_free(client->user);
    lua_State *L = push_function(self, "on_client_end");
    lua_pushnumber(L, (lua_Number)client->number);
    lua_pushstring(L, ends[client->end]);
    lua_pushinteger(L, client->status);
    if (client->begun)
        push_ms(L, client->first_byte_us);
    else
        lua_pushnil(L);
    push_ms(L, client->ended_us);
    if (client->status >= 400 && client->body)
        lua_pushlstring(L, client->body, client->body_len);
    else
        lua_pushnil(L);
    if (lua_pcall(L, 6, 0, 0) != 0)
        keep_failure(self);
}

void pl_simulate_leave_after(struct pl_simulate_world *self, struct pl_stage_client *client,
                             double patience_ms)
{
    struct pl_simulate_patience *patience = pl_xcalloc(1, sizeof(*patience));
    patience->client = client;
    client->user = patience;
    LIST_INSERT_HEAD(&self->waiting, patience, link);
    pl_timer_init(&patience->timer, NULL, pl_stage_timeline(self->stage), on_patience_over,
                  patience);
    pl_timer_start_us(&patience->timer, (uint64_t)(patience_ms * 1000 + 0.5));
}

void pl_simulate_forget_patience(struct pl_simulate_world *self)
{
    while (!LIST_EMPTY(&self->waiting))
        patience_free(LIST_FIRST(&self->waiting));
}

const struct pl_stage_ops pl_simulate_ops = {.on_call = on_call,
                                             .on_call_end = on_call_end,
                                             .on_client_end = on_client_end,
                                             .on_check = on_check};
