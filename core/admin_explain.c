/*
 * Admin explain: what would become of a request, for POST /admin/explain. See admin_internal.h.
 *
 * The answer is the library's (perilune.explain), from a VM of its own that is made of the
 * configuration in force and thrown away: it shares nothing with requests but the health block,
 * which it only looks at. It is asked by people, so what the VM costs does not matter.
 */
#include "admin_internal.h"
#include "generation.h"
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pl_vm_limits explain_limits = {.memory_bytes = 64u * 1024 * 1024,
                                                   .burst_us = 2000 * 1000};

/* What is asked about, and the answer. */
struct question {
    const struct pl_config *config;
    char *method, *path, *model;
    struct pl_str body, headers; /* raw JSON within the request; empty: none */
    bool stream;
    char *answer;
};

/* ---- reading ---- */

/* A string member, or `otherwise`; false when it is there and no string, or too long. */
static bool read_string(const struct pl_json *json, struct pl_str text, struct pl_str key,
                        const char *otherwise, char **out)
{
    size_t len;
    const struct pl_json_member *member = pl_json_find(json, key);
    if (!member) {
        *out = otherwise ? pl_xstrdup(otherwise) : NULL;
        return true;
    }
    if (member->type != PL_JSON_STRING || member->value_len > 4096)
        return false;
    *out = pl_json_decode_string(text.data + member->value_start, member->value_len, &len);
    return *out && strlen(*out) == len;
}

static bool read_object(const struct pl_json *json, struct pl_str text, struct pl_str key,
                        struct pl_str *out)
{
    const struct pl_json_member *member = pl_json_find(json, key);
    if (!member)
        return true;
    *out = (struct pl_str){text.data + member->value_start, member->value_len};
    return member->type == PL_JSON_OBJECT;
}

static bool is_known(struct pl_str key)
{
    static const char *const known[] = {"method", "path", "headers", "body", "model", "stream"};
    for (size_t i = 0; i < PL_COUNT(known); i++) {
        if (pl_str_equal(key, pl_str_of(known[i])))
            return true;
    }
    return false;
}

/* `model` and `stream` are those of the body, when it has them, as for any request. */
static const char *read_body(struct question *self)
{
    const char *problem = NULL;
    struct pl_json json;
    pl_json_init(&json);
    if (pl_json_scan(&json, self->body.data, self->body.len) != PL_OK) {
        problem = "body: a JSON object is expected";
    } else if (pl_json_find(&json, PL_STR("model"))) {
        free(self->model);
        self->model = NULL;
        if (!read_string(&json, self->body, PL_STR("model"), NULL, &self->model))
            problem = "body.model: a string is expected";
    }
    const struct pl_json_member *stream = problem ? NULL : pl_json_find(&json, PL_STR("stream"));
    if (stream)
        self->stream = stream->type == PL_JSON_TRUE;
    pl_json_deinit(&json);
    return problem;
}

static const char *read_members(struct question *self, const struct pl_json *json,
                                struct pl_str text)
{
    for (size_t i = 0; i < json->count; i++) {
        const struct pl_json_member *member = &json->members[i];
        struct pl_str key = {text.data + member->key_start, member->key_len};
        if (!is_known(key))
            return "only method, path, headers, body, model and stream are known";
    }
    if (!read_string(json, text, PL_STR("method"), "POST", &self->method))
        return "method: a string is expected";
    if (!read_string(json, text, PL_STR("path"), "/v1/chat/completions", &self->path) ||
        self->path[0] != '/')
        return "path: a string that begins with / is expected";
    if (!read_string(json, text, PL_STR("model"), NULL, &self->model))
        return "model: a string is expected";
    if (!read_object(json, text, PL_STR("headers"), &self->headers))
        return "headers: an object is expected";
    if (!read_object(json, text, PL_STR("body"), &self->body))
        return "body: an object is expected";
    const struct pl_json_member *stream = pl_json_find(json, PL_STR("stream"));
    self->stream = stream && stream->type == PL_JSON_TRUE;
    return self->body.len > 0 ? read_body(self) : NULL;
}

/* NULL, or what is wrong with the request. */
static const char *read_question(struct question *self, struct pl_str text)
{
    struct pl_json json;
    const char *problem = "a JSON object is expected, such as {\"model\":\"gpt-4\"}";
    pl_json_init(&json);
    if (pl_json_scan(&json, text.data, text.len) == PL_OK)
        problem = read_members(self, &json, text);
    pl_json_deinit(&json);
    return problem;
}

/* ---- asking ---- */

static void put_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

static void put_str(lua_State *L, const char *key, struct pl_str value)
{
    lua_pushlstring(L, value.data, value.len);
    lua_setfield(L, -2, key);
}

static void ask(lua_State *L, void *arg)
{
    struct question *self = arg;
    pl_vm_require(L, "perilune.boot");
    lua_getfield(L, -1, "explain");
    int count = pl_config_push_sources(L, self->config);
    lua_newtable(L);
    put_string(L, "method", self->method);
    put_string(L, "path", self->path);
    put_string(L, "model", self->model);
    put_str(L, "body", self->body);
    put_str(L, "headers_json", self->headers);
    lua_pushboolean(L, self->stream);
    lua_setfield(L, -2, "stream");
    lua_call(L, count + 1, 1);
    self->answer = pl_xstrdup(lua_tostring(L, -1));
}

static void answer(struct question *self, struct pl_exchange *exchange)
{
    char error[1024];
    struct pl_generation *generation = pl_generation_new(&explain_limits, &self->config->topology);
    if (!generation)
        abort();
    if (pl_vm_call(generation->vm, ask, self, error, sizeof(error)) == PL_OK)
        pl_admin_reply_json(exchange, 200, self->answer);
    else
        pl_admin_refuse(exchange, 500, "explain_failed", error);
    pl_generation_free(generation);
}

void pl_admin_post_explain(struct pl_admin *self, struct pl_exchange *exchange)
{
    struct question question = {.config = self->config, .body = PL_STR(""), .headers = PL_STR("")};
    const char *problem = read_question(&question, pl_exchange_body(exchange));
    if (self->config->is_simulator)
        pl_admin_refuse(exchange, 404, "not_found", "A simulator has no routes.");
    else if (problem)
        pl_admin_refuse(exchange, 400, "bad_request", problem);
    else
        answer(&question, exchange);
    free(question.method);
    free(question.path);
    free(question.model);
    free(question.answer);
}
