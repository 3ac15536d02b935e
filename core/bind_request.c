/*
 * A client's request as Lua sees it: its fields, and the halves of the methods that wait. See
 * bind.h.
 */
#include "bind.h"
#include "log.h"
#include <lauxlib.h>
#include <string.h>

static const char REQUEST_CLASS[] = "perilune.request";
static const char HEADERS_CLASS[] = "perilune.request.headers";

#define POLICY_HEADERS_MAX_BYTES (64 * 1024)
#define RESCUE_MAX_BYTES         (16 * 1024 * 1024)

struct box {
    struct pl_bind_box head;
    struct pl_request *request;
    uint64_t serial;
};

/* A request that has not ended. */
static struct pl_request *check_alive(lua_State *L, int index, const char *class)
{
    struct box *box = pl_bind_check_box(L, index, class);
    if (box->request->serial != box->serial)
        luaL_error(L, "this request has ended");
    return box->request;
}

/* The request that is being handled: what another one waits for is not to be disturbed. */
static struct pl_request *check(lua_State *L, int index, const char *class)
{
    struct pl_request *self = check_alive(L, index, class);
    if (self->runtime->running != self)
        luaL_error(L, "this request belongs to another run of the policy");
    return self;
}

struct pl_request *pl_bind_check_request(lua_State *L, int index)
{
    return check(L, index, REQUEST_CLASS);
}

void pl_bind_check_yieldable(lua_State *L)
{
    if (!lua_isyieldable(L))
        luaL_error(L, "what waits cannot be called within table.sort, string.gsub and the like, "
                      "nor in a module's file");
}

void pl_bind_check_wait(lua_State *L, const struct pl_request *request)
{
    pl_bind_check_yieldable(L);
    if (request->past_deadline)
        luaL_error(L, "the request's deadline has passed");
}

/* A request that can still be answered. */
static struct pl_request *check_open(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    if (!self->exchange)
        luaL_error(L, "this request has been answered");
    return self;
}

static struct pl_request *check_uncommitted(lua_State *L)
{
    struct pl_request *self = check_open(L);
    if (self->committed)
        luaL_error(L, "an answer has been begun already");
    return self;
}

/* The same, or one whose answer broke off where another target may go on with it. */
static struct pl_request *check_sendable(lua_State *L)
{
    struct pl_request *self = check_open(L);
    if (self->committed && !self->at_seam)
        luaL_error(L, "an answer has been begun already");
    return self;
}

static void push_box(lua_State *L, struct pl_request *request, const char *class)
{
    struct box *box = pl_bind_push_box(L, sizeof(*box), class);
    box->request = request;
    box->serial = request->serial;
}

/* A request has one object, however often it is asked for. */
static void push_request(lua_State *L, struct pl_request *request)
{
    const struct box *kept = pl_bind_push_kept_box(L, request);
    if (kept && kept->serial == request->serial)
        return;
    if (kept)
        lua_pop(L, 1);
    push_box(L, request, REQUEST_CLASS);
    pl_bind_keep_box(L, request);
}

/* wrap(pointer): the object of a request that begins. */
static int wrap(lua_State *L)
{
    push_request(L, lua_touserdata(L, 1));
    return 1;
}

/* The library's own code may be in between: the place is that of the policy. */
static void raise_outside(lua_State *L)
{
    char place[128];
    pl_vm_find_place(L, place, sizeof(place));
    lua_pushfstring(L, "%s%sthis can be called only while a request is handled", place,
                    place[0] ? ": " : "");
    lua_error(L);
}

struct pl_request *pl_bind_running_request(lua_State *L)
{
    /* neither is there while files are checked or loaded */
    struct pl_generation *generation = pl_bind_generation(L);
    struct pl_runtime *runtime = generation ? generation->runtime : NULL;
    struct pl_request *request = runtime ? runtime->running : NULL;
    if (!request)
        raise_outside(L);
    return request;
}

static int current(lua_State *L)
{
    push_request(L, pl_bind_running_request(L));
    return 1;
}

static void push_str(lua_State *L, struct pl_str text)
{
    lua_pushlstring(L, text.data, text.len);
}

static int request_index(lua_State *L)
{
    const char *key = luaL_checkstring(L, 2);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1)); /* the methods */
    if (!lua_isnil(L, -1))
        return 1;
    if (strcmp(key, "id") == 0) { /* of any request: so one can see that another has ended */
        lua_pushstring(L, check_alive(L, 1, REQUEST_CLASS)->id);
        return 1;
    }
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    if (strcmp(key, "model") == 0)
        self->model ? lua_pushlstring(L, self->model, self->model_len) : lua_pushnil(L);
    else if (strcmp(key, "stream") == 0)
        lua_pushboolean(L, self->stream);
    else if (strcmp(key, "route") == 0)
        lua_pushstring(L, self->route);
    else if (strcmp(key, "last") == 0)
        pl_bind_push_response(L, self);
    else if (!self->exchange)
        return luaL_error(L, "this request has been answered: '%s' is gone", key);
    else if (strcmp(key, "path") == 0)
        push_str(L, pl_exchange_path(self->exchange));
    else if (strcmp(key, "method") == 0)
        push_str(L, pl_exchange_method(self->exchange));
    else if (strcmp(key, "query") == 0)
        push_str(L, pl_exchange_query(self->exchange));
    else if (strcmp(key, "peer") == 0)
        push_str(L, pl_exchange_peer(self->exchange));
    else if (strcmp(key, "headers") == 0)
        push_box(L, self, HEADERS_CLASS);
    else
        return luaL_error(L, "a request has no field '%s'", key);
    return 1;
}

static int read_only(lua_State *L)
{
    return luaL_error(L, "a request's fields cannot be set");
}

static int headers_index(lua_State *L)
{
    struct pl_request *self = check(L, 1, HEADERS_CLASS);
    struct pl_str name, value;
    name.data = luaL_checklstring(L, 2, &name.len);
    if (self->exchange && pl_headers_get(pl_exchange_headers(self->exchange), name, &value))
        push_str(L, value);
    else
        lua_pushnil(L);
    return 1;
}

static int body(lua_State *L)
{
    struct pl_request *self = check_open(L);
    push_str(L, self->body);
    return 1;
}

/* edit(req, key, raw JSON | nil) -> true | nil, "not_json" | "too_many" | "too_large" */
static int edit(lua_State *L)
{
    struct pl_request *self = check_sendable(L);
    const char *key = luaL_checkstring(L, 2), *value = luaL_optstring(L, 3, NULL);
    const char *failed = "not_json";
    if (self->body_kind == PL_BODY_JSON) {
        int rc = pl_request_edit(self, key, value);
        failed = rc == PL_ERR_LIMIT ? "too_many" : rc != PL_OK ? "too_large" : NULL;
    }
    if (failed) {
        lua_pushnil(L);
        lua_pushstring(L, failed);
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int wait_for(lua_State *L, struct pl_request *self, enum pl_wait wait, const char *label)
{
    self->wait = wait;
    return pl_coroutine_yield(&self->coroutine, L, label);
}

struct pl_request *pl_bind_check_send(lua_State *L)
{
    struct pl_request *self = check_sendable(L);
    const struct pl_target *target = pl_bind_check_target(L, 2);
    pl_bind_check_yieldable(L);
    if (self->past_deadline || pl_request_remaining_ms(self) == 0) {
        pl_request_drop_answer(self);
        self->current->target = target;
        self->current->response.failure = PL_FAIL_TIMEOUT_DEADLINE;
        pl_response_explain(&self->current->response, "the request's deadline has passed");
        return NULL;
    }
    int rc = pl_request_send(self, target);
    if (rc == PL_ERR_LIMIT)
        luaL_error(L, "no more than %d tries can be made for a request", PL_TRAIL_MAX);
    if (rc != PL_OK)
        luaL_error(L, "the body cannot be changed as the target asks");
    return self;
}

/* send_begin(req, target, resume): yields until there is an answer to judge, or a failure. Where an
 * answer has broken off, `resume` "restart": the target is not asked to continue. */
static int send_begin(lua_State *L)
{
    static const char *const resumes[] = {"continue", "restart", NULL};
    struct pl_request *asking = check_sendable(L);
    asking->resumes_afresh = luaL_checkoption(L, 3, "continue", resumes) == 1;
    struct pl_request *self = pl_bind_check_send(L);
    asking->resumes_afresh = false;
    if (!self)
        return 0;
    return wait_for(L, self, PL_WAIT_ANSWER, "the answer of an upstream");
}

/* send_result(req) -> res | nil, class, detail, target, work, error; `error`, when there is one:
 * what the target said in place of an answer, to be settled. */
static int send_result(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    struct pl_response *response = &self->current->response;
    pl_bind_push_response(L, self);
    if (response->live)
        return 1;
    lua_pushstring(L, pl_failure_name(response->failure));
    lua_pushstring(L, response->detail ? response->detail : "");
    pl_bind_push_target(L, self->generation, self->current->target);
    const struct pl_trail_entry *entry = pl_try_entry(self->current);
    lua_pushstring(L, pl_work_name(entry ? entry->work : PL_WORK_NOT_SENT));
    if (response->error.len == 0)
        return 5;
    push_str(L, response->error);
    return 6;
}

/* settle_error(req, class): tells of which class that error was. */
static int settle_error(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    const char *class = luaL_checkstring(L, 2);
    enum pl_failure failure = PL_FAIL_RATE_LIMITED;
    while (failure < PL_FAIL_SERVER_ERROR && strcmp(pl_failure_name(failure), class) != 0)
        failure++;
    pl_request_settle_error(self, failure);
    return 0;
}

/* settle_class(req, class): of which class the try at hand is, where the route has its own. */
static int settle_class(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    size_t len;
    const char *name = luaL_checklstring(L, 2, &len);
    pl_request_settle_class(self, pl_class_from_name((struct pl_str){name, len}));
    return 0;
}

/* { mode, max_bytes } of perilune.config.normalise, or nil. */
static struct pl_rescue_options check_rescue(lua_State *L, int index)
{
    static const char *const modes[] = {"continue", "restart", NULL};
    struct pl_rescue_options options = {0};
    if (lua_isnoneornil(L, index))
        return options;
    luaL_checktype(L, index, LUA_TTABLE);
    lua_getfield(L, index, "mode");
    lua_getfield(L, index, "max_bytes");
    options.continues = luaL_checkoption(L, -2, NULL, modes) == 0;
    lua_Number max_bytes = luaL_checknumber(L, -1);
    if (!(max_bytes >= 1 && max_bytes <= RESCUE_MAX_BYTES))
        luaL_error(L, "rescue: max_bytes must be within 1..%d", RESCUE_MAX_BYTES);
    options.max_bytes = (size_t)max_bytes;
    lua_pop(L, 2);
    return options;
}

/* relay_begin(req, res, rescue): commits, or goes on at a seam; yields until the answer has ended.
 */
static int relay_begin(lua_State *L)
{
    struct pl_request *self = check_sendable(L);
    pl_bind_check_response(L, 2, self);
    if (self->at_seam && self->current->response.intake == PL_INTAKE_RELAYING)
        return luaL_error(L, "this answer has been relayed, and broke off");
    if (!self->committed)
        self->rescue = check_rescue(L, 3);
    if (self->current->attempt)
        pl_bind_check_wait(L, self);
    if (pl_request_relay(self))
        return 0;
    return wait_for(L, self, PL_WAIT_RELAY, "the end of a relayed answer");
}

/* end_at_seam(req): if an answer has broken off, the client's ends in an error; whether that is so.
 */
static int end_at_seam(lua_State *L)
{
    struct pl_request *self = check_sendable(L);
    bool is_at_seam = self->at_seam;
    if (is_at_seam)
        pl_request_give_up(self);
    lua_pushboolean(L, is_at_seam);
    return 1;
}

/* resumes(req) -> "continue" | "restart" | nil: how the last try was asked to go on. */
static int resumes(lua_State *L)
{
    const struct pl_request *self = check(L, 1, REQUEST_CLASS);
    const char *name = pl_resume_name(self->current->resume);
    name ? lua_pushstring(L, name) : lua_pushnil(L);
    return 1;
}

/* At a seam: nil, class, true, error; the class is "parted" for another text than the client has.
 */
static int push_seam(lua_State *L, struct pl_request *self)
{
    const struct pl_response *response = &self->current->response;
    lua_pushnil(L);
    lua_pushstring(L, pl_request_is_parted(self) ? "parted" : pl_failure_name(response->failure));
    lua_pushboolean(L, 1);
    if (response->error.len == 0)
        return 3;
    push_str(L, response->error);
    return 4;
}

/* relay_result(req) -> true | nil, class, is_open, error; is_open: another target may go on, and
 * `error` is what this one said in place of an event, to be settled */
static int relay_result(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    enum pl_failure failure = self->current->response.failure;
    if (self->at_seam)
        return push_seam(L, self);
    if (failure == PL_FAIL_NONE) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, pl_failure_name(failure));
    return 2;
}

void pl_bind_check_headers(lua_State *L, int index, struct pl_headers *out)
{
    size_t sum_bytes = 0;
    pl_headers_clear(out);
    if (lua_isnoneornil(L, index))
        return;
    luaL_checktype(L, index, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        struct pl_str name, value;
        if (lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1))
            luaL_error(L, "headers must be a table of name = value, both strings");
        name.data = lua_tolstring(L, -2, &name.len);
        value.data = lua_tolstring(L, -1, &value.len);
        sum_bytes += name.len + value.len + 4; /* ": " and the line's end */
        if (sum_bytes > POLICY_HEADERS_MAX_BYTES)
            luaL_error(L, "headers: more than %d KiB in all", POLICY_HEADERS_MAX_BYTES / 1024);
        if (pl_headers_add(out, name, value) != PL_OK)
            luaL_error(L, "the header '%s' has an invalid name or value", name.data);
        lua_pop(L, 1);
    }
}

static int check_status(lua_State *L, int index)
{
    int status = luaL_checkint(L, index);
    luaL_argcheck(L, status >= 200 && status <= 599, index, "a status is within 200..599");
    return status;
}

/* respond(req, status, body, headers) */
static int respond(lua_State *L)
{
    struct pl_request *self = check_uncommitted(L);
    int status = check_status(L, 2);
    size_t len;
    const char *text = luaL_checklstring(L, 3, &len);
    struct pl_headers *headers = &self->runtime->policy_headers;
    pl_bind_check_headers(L, 4, headers);
    if (self->stream_is_open)
        return luaL_error(L, "a stream of events has begun");
    pl_request_drop_answer(self);
    pl_request_respond(self, status, headers, text, len);
    lua_pushboolean(L, 1);
    return 1;
}

/* fail(req, status, code | nil, message, param | nil, headers | nil, is_own): an error, in the form
 * that the client's library reads. Own: of the gateway, not of the policy. */
static int fail(lua_State *L)
{
    struct pl_request *self = check_uncommitted(L);
    struct pl_client_error error = {.status = check_status(L, 2),
                                    .code = luaL_optstring(L, 3, NULL),
                                    .param = luaL_optstring(L, 5, NULL)};
    error.message.data = luaL_checklstring(L, 4, &error.message.len);
    struct pl_headers *headers = &self->runtime->policy_headers;
    pl_bind_check_headers(L, 6, headers);
    if (lua_toboolean(L, 7))
        pl_request_note_failure(self, error.code);
    pl_request_drop_answer(self);
    pl_request_fail_with(self, &error, headers);
    lua_pushboolean(L, 1);
    return 1;
}

/* start(req, status, headers) */
static int start(lua_State *L)
{
    struct pl_request *self = check_uncommitted(L);
    int status = check_status(L, 2);
    struct pl_headers *headers = &self->runtime->policy_headers;
    pl_bind_check_headers(L, 3, headers);
    if (self->stream_is_open && (status >= 300 || !pl_headers_say_events(headers)))
        return luaL_error(L,
                          "heartbeats have begun a stream of events: no other answer can follow");
    pl_request_drop_answer(self);
    pl_request_start_answer(self, status, headers);
    return 0;
}

static struct pl_request *check_started(lua_State *L)
{
    struct pl_request *self = check_open(L);
    if (!self->committed)
        luaL_error(L, "start an answer first");
    if (self->at_seam) /* what is written, or ended, is not the policy's own answer */
        luaL_error(L, "a relayed answer has broken off: send again, or relay(nil, err) to give up");
    return self;
}

/* write(req, bytes): yields while the client is slow to read. */
static int write_bytes(lua_State *L)
{
    struct pl_request *self = check_started(L);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    pl_bind_check_wait(L, self);
    pl_request_note_answer(self, data, len);
    if (pl_exchange_write(self->exchange, data, len))
        return 0;
    return wait_for(L, self, PL_WAIT_WRITABLE, "the client to read");
}

static int finish(lua_State *L)
{
    struct pl_request *self = check_started(L);
    struct pl_exchange *exchange = self->exchange;
    self->exchange = NULL;
    pl_exchange_end(exchange);
    return 0;
}

/* abort(req, flush): breaks the client's connection, at once or after what was written. */
static int abort_request(lua_State *L)
{
    struct pl_request *self = check_open(L);
    pl_request_drop_answer(self);
    pl_request_abort(self, !lua_toboolean(L, 2));
    return 0;
}

static int remaining_ms(lua_State *L)
{
    uint64_t left_ms = pl_request_remaining_ms(check(L, 1, REQUEST_CLASS));
    if (left_ms == UINT64_MAX)
        lua_pushnumber(L, 1e15);
    else
        lua_pushnumber(L, (lua_Number)left_ms);
    return 1;
}

/* elapsed_ms(req): since it began */
static int elapsed_ms(lua_State *L)
{
    const struct pl_request *self = check(L, 1, REQUEST_CLASS);
    lua_pushnumber(L, (lua_Number)(pl_last_now_ms() - self->start_ms));
    return 1;
}

/* set_deadline_ms(req, ms): the first one is the route's; a policy can only set a shorter one. */
static int set_deadline_ms(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    uint64_t duration_ms = pl_bind_check_duration_ms(L, 2);
    if (self->route_deadline_ms == 0)
        self->route_deadline_ms = duration_ms;
    pl_request_set_deadline(self, PL_MIN(duration_ms, self->route_deadline_ms));
    return 0;
}

/* The options of a table { on, max_bytes, check_body, heartbeat_ms }. */
static struct pl_gate_options check_gate(lua_State *L, int index)
{
    static const char *const names[] = {"content", "event", "head", NULL};
    struct pl_gate_options gate = {0};
    luaL_checktype(L, index, LUA_TTABLE);
    lua_getfield(L, index, "on");
    lua_getfield(L, index, "max_bytes");
    lua_getfield(L, index, "check_body");
    lua_getfield(L, index, "drops_malformed");
    lua_getfield(L, index, "settles");
    lua_getfield(L, index, "heartbeat_ms");
    gate.on = (enum pl_gate_on)luaL_checkoption(L, -6, NULL, names);
    gate.max_bytes = (uint32_t)luaL_checkint(L, -5);
    gate.check_body = lua_toboolean(L, -4);
    gate.drops_malformed = lua_toboolean(L, -3);
    gate.settles = lua_toboolean(L, -2);
    gate.heartbeat_ms = (uint32_t)luaL_optint(L, -1, 0);
    lua_pop(L, 6);
    return gate;
}

/* set_route(req, name, policy, refuses_floor, model_match, gate, chance_ms, deadline_headers): the
 * texts are kept by the caller; gate nil: the defaults */
static int set_route(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    const char *name = luaL_checkstring(L, 2);
    if (self->route)
        return luaL_error(L, "the route is set already");
    self->route = pl_xstrdup(name);
    self->policy = luaL_optstring(L, 3, NULL);
    self->refuses_floor = lua_toboolean(L, 4);
    self->model_match = luaL_optstring(L, 5, NULL);
    if (lua_istable(L, 6))
        self->gate = check_gate(L, 6);
    pl_request_start_heartbeats(self);
    self->chance_ms = lua_isnoneornil(L, 7) ? 0 : pl_bind_check_duration_ms(L, 7);
    self->deadline_headers = luaL_optstring(L, 8, NULL);
    return 0;
}

bool pl_bind_may_log(struct pl_request *request)
{
    uint32_t max_count = request->generation->topology->log_line_count;
    if (request->runtime->is_simulator || request->log_line_count < max_count) {
        request->log_line_count++;
        return true;
    }
    if (request->log_line_count++ == max_count)
        pl_log(PL_LOG_WARN, "request %s: more than %u log lines, the rest is dropped", request->id,
               max_count);
    return false;
}

static int log_line(lua_State *L)
{
    struct pl_request *self = check(L, 1, REQUEST_CLASS);
    const char *text = luaL_checkstring(L, 2);
    if (pl_bind_may_log(self))
        pl_log(PL_LOG_INFO, "request %s: %s", self->id, text);
    return 0;
}

/* sleep_ms(ms): yields. */
static int sleep_ms(lua_State *L)
{
    struct pl_request *self = pl_bind_running_request(L);
    uint64_t duration_ms = pl_bind_check_duration_ms(L, 1);
    pl_bind_check_wait(L, self);
    pl_request_arm_timer(self, duration_ms);
    return wait_for(L, self, PL_WAIT_TIMER, "a timer");
}

static void set_class(lua_State *L, const char *name)
{
    pl_bind_push_class(L, name);
    lua_pushcfunction(L, read_only);
    lua_setfield(L, -2, "__newindex");
    lua_pushliteral(L, "locked");
    lua_setfield(L, -2, "__metatable");
}

void pl_bind_request(lua_State *L)
{
    static const luaL_Reg functions[] = {{"wrap", wrap},
                                         {"current", current},
                                         {"edit", edit},
                                         {"send_begin", send_begin},
                                         {"send_result", send_result},
                                         {"settle_error", settle_error},
                                         {"settle_class", settle_class},
                                         {"relay_begin", relay_begin},
                                         {"relay_result", relay_result},
                                         {"end_at_seam", end_at_seam},
                                         {"resumes", resumes},
                                         {"respond", respond},
                                         {"fail", fail},
                                         {"sleep_ms", sleep_ms},
                                         {NULL, NULL}};
    static const luaL_Reg methods[] = {{"body", body},
                                       {"start", start},
                                       {"write", write_bytes},
                                       {"finish", finish},
                                       {"abort", abort_request},
                                       {"elapsed_ms", elapsed_ms},
                                       {"remaining_ms", remaining_ms},
                                       {"set_deadline_ms", set_deadline_ms},
                                       {"set_route", set_route},
                                       {"log", log_line},
                                       {NULL, NULL}};
    luaL_register(L, NULL, functions);

    set_class(L, HEADERS_CLASS);
    lua_pushcfunction(L, headers_index);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);

    set_class(L, REQUEST_CLASS);
    lua_newtable(L); /* native.request_methods, completed by perilune.boot */
    luaL_register(L, NULL, methods);
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, request_index, 1);
    lua_setfield(L, -3, "__index");
    lua_setfield(L, -3, "request_methods");
    lua_pop(L, 1);
}
