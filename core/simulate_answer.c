/*
 * An upstream's answer to a simulated call: see simulate.h. Tokens that would come within a short
 * time come as one piece: the gateway passes them on by the bytes, whoever has written them when.
 */
#include "simulate.h"
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_MAX       256    /* tokens in one piece */
#define GROUP_US        500000 /* and how much time they may take */
#define TIME_MAX_MS     1e12
#define TOKEN_COUNT_MAX 1000000
#define EVENT           "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}]}\n\n"
#define EVENT_BYTES     (sizeof(EVENT) - 1)
#define WORD            "word "
#define BODY_START                                                                                 \
    "{\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":"                       \
    "{\"role\":\"assistant\",\"content\":\""

/* What a plan says, see perilune.simulate.faults. */
struct plan {
    const char *failure; /* NULL: an answer */
    int status;
    bool stream, done;
    uint64_t after_us, first_us, every_us;
    uint32_t tokens, stop_at; /* stop_at: after so many tokens, if `ending` is not WHOLE */
    enum pl_stage_ending ending;
    struct pl_str body; /* data NULL: tokens */
};

/* ---- reading ---- */

static double get_number(lua_State *L, int index, const char *key, double otherwise, double max)
{
    lua_getfield(L, index, key);
    double value = luaL_optnumber(L, -1, otherwise);
    if (!(value >= -1 && value <= max))
        luaL_error(L, "the plan's %s is out of range", key);
    lua_pop(L, 1);
    return value;
}

static uint64_t get_us(lua_State *L, int index, const char *key)
{
    double ms = get_number(L, index, key, 0, TIME_MAX_MS);
    return ms > 0 ? (uint64_t)(ms * 1000 + 0.5) : 0;
}

static bool get_boolean(lua_State *L, int index, const char *key, bool otherwise)
{
    lua_getfield(L, index, key);
    bool value = lua_isnil(L, -1) ? otherwise : lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static void read_ending(lua_State *L, int index, struct plan *self)
{
    double cut = get_number(L, index, "cut_after", -1, TOKEN_COUNT_MAX);
    double stall = get_number(L, index, "stall_after", -1, TOKEN_COUNT_MAX);
    self->ending = cut >= 0 ? PL_STAGE_CUT : stall >= 0 ? PL_STAGE_STALL : PL_STAGE_WHOLE;
    self->stop_at = (uint32_t)(cut >= 0 ? cut : PL_MAX(stall, 0));
}

/* Its texts stay on the stack. */
static struct plan read_plan(lua_State *L, int index)
{
    struct plan self = {.status = (int)get_number(L, index, "status", 200, 599),
                        .tokens =
                            (uint32_t)PL_MAX(get_number(L, index, "tokens", 0, TOKEN_COUNT_MAX), 0),
                        .stream = get_boolean(L, index, "stream", false),
                        .done = get_boolean(L, index, "done", true),
                        .after_us = get_us(L, index, "after_ms"),
                        .first_us = get_us(L, index, "first_ms"),
                        .every_us = get_us(L, index, "every_ms")};
    read_ending(L, index, &self);
    lua_getfield(L, index, "failure");
    self.failure = lua_tostring(L, -1);
    lua_getfield(L, index, "body");
    self.body.data = lua_tolstring(L, -1, &self.body.len);
    return self;
}

static bool read_failure(const char *name, struct pl_stage_answer *answer)
{
    answer->hangs = strcmp(name, "hang") == 0;
    for (int failure = PL_FAIL_DNS; failure <= PL_FAIL_EMPTY; failure++) {
        if (strcmp(pl_failure_name((enum pl_failure)failure), name) == 0)
            answer->failure = (enum pl_failure)failure;
    }
    return answer->hangs || answer->failure != PL_FAIL_NONE;
}

/* { name = value }; false when one is not valid. */
static bool add_headers(lua_State *L, int index, struct pl_headers *out)
{
    bool good = true;
    lua_getfield(L, index, "headers");
    if (lua_istable(L, -1)) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            struct pl_str name = {NULL, 0}, value = {NULL, 0};
            if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING) {
                name.data = lua_tolstring(L, -2, &name.len);
                value.data = lua_tolstring(L, -1, &value.len);
            }
            good = good && name.data && pl_headers_add(out, name, value) == PL_OK;
        }
    }
    lua_pop(L, 1);
    return good;
}

static void add_header(struct pl_headers *out, struct pl_str name, struct pl_str value)
{
    if (pl_headers_count(out, name) == 0 && pl_headers_add(out, name, value) != PL_OK)
        abort();
}

/* ---- streams ---- */

/* GROUP_MAX events, one after the other. */
static const char *event_text(void)
{
    static char text[GROUP_MAX * EVENT_BYTES];
    if (text[0] == '\0') {
        for (size_t i = 0; i < GROUP_MAX; i++)
            memcpy(text + i * EVENT_BYTES, EVENT, EVENT_BYTES);
    }
    return text;
}

/* As many tokens as come within a short time, and within half of the silence that is allowed. */
static uint32_t group_size(const struct plan *self, const struct pl_target *target)
{
    uint64_t span_us = GROUP_US;
    if (self->every_us == 0)
        return GROUP_MAX;
    if (target->limits.idle_ms > 0)
        span_us = PL_MIN(span_us, (uint64_t)target->limits.idle_ms * 500);
    return (uint32_t)PL_MIN(PL_MAX(span_us / self->every_us, 1), GROUP_MAX);
}

/* All pieces of tokens are the beginning of the first one's bytes, so that thousands of long
 * answers under way take little memory. */
static void add_events(struct pl_stage_answer *answer, uint64_t after_us, uint32_t count)
{
    pl_stage_answer_add(answer, after_us, NULL, 0);
    struct pl_stage_piece *piece = &answer->pieces[answer->piece_count - 1];
    piece->offset = 0;
    piece->len = count * EVENT_BYTES;
}

static void add_tokens(const struct plan *self, const struct pl_target *target,
                       struct pl_stage_answer *answer)
{
    uint32_t left =
        self->ending == PL_STAGE_WHOLE ? self->tokens : PL_MIN(self->tokens, self->stop_at);
    uint32_t group = group_size(self, target);
    if (left == 0)
        return;
    pl_stage_answer_add(answer, self->first_us, event_text(), PL_MIN(left, group) * EVENT_BYTES);
    answer->pieces[0].len = EVENT_BYTES; /* the first token comes alone */
    for (left--; left > 0;) {
        uint32_t count = PL_MIN(left, group);
        add_events(answer, self->every_us * count, count);
        left -= count;
    }
}

static void add_stream_end(const struct plan *self, struct pl_stage_answer *answer)
{
    static const char last[] =
        "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":"
        "0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    static const char mark[] = "data: [DONE]\n\n";
    pl_stage_answer_add(answer, self->tokens > 0 ? 0 : self->first_us, last, sizeof(last) - 1);
    if (self->done)
        pl_stage_answer_add(answer, 0, mark, sizeof(mark) - 1);
}

static void make_stream(const struct plan *self, const struct pl_target *target,
                        struct pl_stage_answer *answer)
{
    answer->chunked = true;
    add_header(&answer->headers, PL_STR("Content-Type"), PL_STR("text/event-stream"));
    add_tokens(self, target, answer);
    if (self->ending == PL_STAGE_WHOLE)
        add_stream_end(self, answer);
    answer->ending = self->ending;
    answer->end_after_us = self->ending == PL_STAGE_CUT ? self->every_us : 0;
}

/* ---- answers in one piece ---- */

static char *completion_text(const struct plan *self, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    if (!out)
        abort();
    fputs(BODY_START, out);
    for (uint32_t i = 0; i < self->tokens; i++)
        fputs(WORD, out);
    fprintf(out,
            "\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":0,"
            "\"completion_tokens\":%u,\"total_tokens\":%u}}",
            self->tokens, self->tokens);
    if (fclose(out) != 0)
        abort();
    return text;
}

/* Breaks off in its middle, if it does: what it says of its length is more than comes. */
static void add_body(const struct plan *self, const char *text, size_t len,
                     struct pl_stage_answer *answer)
{
    answer->ending = self->ending;
    if (self->ending != PL_STAGE_WHOLE) {
        char digits[PL_NUMBER_MAX];
        add_header(&answer->headers, PL_STR("Content-Length"),
                   (struct pl_str){digits, pl_put_decimal(digits, len)});
        len /= 2;
    }
    if (len > 0)
        pl_stage_answer_add(answer, 0, text, len);
}

/* Made when all of its tokens are there. */
static void make_completion(const struct plan *self, struct pl_stage_answer *answer)
{
    size_t len;
    char *text = completion_text(self, &len);
    answer->head_after_us += self->first_us;
    if (self->tokens > 1)
        answer->head_after_us += self->every_us * (self->tokens - 1);
    add_header(&answer->headers, PL_STR("Content-Type"), PL_STR("application/json"));
    add_body(self, text, len, answer);
    free(text);
}

static void make_given(const struct plan *self, struct pl_stage_answer *answer)
{
    bool is_stream = self->stream && self->status < 300;
    add_header(&answer->headers, PL_STR("Content-Type"),
               is_stream ? PL_STR("text/event-stream") : PL_STR("application/json"));
    answer->chunked = is_stream;
    add_body(self, self->body.data, self->body.len, answer);
}

struct pl_stage_answer *pl_simulate_answer(lua_State *L, int index, const struct pl_target *target)
{
    struct plan plan = read_plan(L, index);
    struct pl_stage_answer *answer = pl_stage_answer_new();
    bool good = add_headers(L, index, &answer->headers);
    answer->status = plan.status;
    answer->head_after_us = plan.after_us;
    if (plan.failure)
        good = good && read_failure(plan.failure, answer);
    else if (plan.body.data)
        make_given(&plan, answer);
    else if (plan.stream)
        make_stream(&plan, target, answer);
    else
        make_completion(&plan, answer);
    if (good)
        return answer;
    pl_stage_answer_unref(answer);
    luaL_error(L, "a plan has a failure or a header that is not valid");
    return NULL;
}
