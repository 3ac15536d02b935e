/*
 * Generations for the admin listener: which configurations serve, what has become of their
 * requests, and what operators do about it. See admin_internal.h and reload.h.
 *
 * A change takes several turns of the loop: its exchange waits for the answer meanwhile, and is
 * forgotten when the operator leaves. The change goes on then.
 */
#include "admin_internal.h"
#include "admin_query.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CANARY_FOR_MS     60000
#define CANARY_FOR_MIN_MS 1000
#define CANARY_FOR_MAX_MS (24 * 3600 * 1000ull)

/* ---- figures ---- */

static void put_wall_ms(struct pl_json_text *out, const char *key, uint64_t wall_ms)
{
    if (wall_ms == 0)
        pl_json_put_string(out, key, NULL);
    else
        pl_json_put_u64(out, key, wall_ms);
}

static void write_faults(struct pl_json_text *out, const struct pl_figures_view *view)
{
    pl_json_open(out, "policy_faults", '{');
    for (int fault = PL_POLICY_FAULT_NONE + 1; fault < PL_POLICY_FAULT_COUNT; fault++)
        pl_json_put_u64(out, pl_policy_fault_name((enum pl_policy_fault)fault),
                        view->policy_fault_counts[fault]);
    pl_json_close(out, '}');
}

static void write_figures(struct pl_json_text *out, const struct pl_edition *edition)
{
    struct pl_figures_view view;
    pl_figures_read(edition->figures, &view);
    pl_json_put_u64(out, "in_flight", view.in_flight_count);
    pl_json_open(out, "figures", '{');
    pl_json_put_u64(out, "requests", view.begun_count);
    pl_json_put_u64(out, "succeeded", view.success_count);
    pl_json_put_u64(out, "failed", view.failure_count);
    pl_json_put_u64(out, "client_faults", view.client_fault_count);
    pl_json_put_u64(out, "client_gone", view.client_gone_count);
    pl_json_put_u64(out, "floor", view.floor_count);
    pl_json_put_number(out, "first_token_p50_ms", pl_figures_ttft_ms(&view, 0.5));
    pl_json_put_number(out, "first_token_p90_ms", pl_figures_ttft_ms(&view, 0.9));
    write_faults(out, &view);
    pl_json_close(out, '}');
}

static void write_last_error(struct pl_json_text *out, const struct pl_edition *edition)
{
    struct pl_charges_view charges;
    pl_charges_look(edition->charges, &charges);
    if (charges.last_fault == PL_POLICY_FAULT_NONE) {
        pl_json_put_string(out, "last_policy_error", NULL);
        return;
    }
    pl_json_open(out, "last_policy_error", '{');
    pl_json_put_string(out, "kind", pl_policy_fault_name(charges.last_fault));
    pl_json_put_string(out, "text", charges.last_text);
    pl_json_put_u64(out, "wall_ms", charges.last_wall_ms);
    pl_json_close(out, '}');
}

/* ---- generations ---- */

static void write_edition(struct pl_json_text *out, const struct pl_edition *edition)
{
    pl_json_open(out, NULL, '{');
    pl_json_put_u64(out, "number", edition->number);
    pl_json_put_string(out, "state", pl_edition_state_name(edition));
    pl_json_put_string(out, "by", edition->by);
    put_wall_ms(out, "since_wall_ms", edition->since_wall_ms);
    put_wall_ms(out, "until_wall_ms", edition->until_wall_ms);
    pl_json_put_string(out, "digest", edition->digest);
    pl_json_put_u64(out, "files", edition->file_count);
    if (edition->restored_from)
        pl_json_put_u64(out, "restored_from", edition->restored_from);
    else
        pl_json_put_string(out, "restored_from", NULL);
    pl_json_put_bool(out, "can_go_back", edition->back != NULL);
    pl_json_put_string(out, "reason", edition->reason[0] ? edition->reason : NULL);
    write_figures(out, edition);
    write_last_error(out, edition);
    pl_json_close(out, '}');
}

static void write_trial(struct pl_json_text *out, const struct pl_reload_state *state)
{
    uint64_t now_ms = pl_now_ms();
    if (!state->canary) {
        pl_json_put_string(out, "canary", NULL);
        return;
    }
    pl_json_open(out, "canary", '{');
    pl_json_put_u64(out, "number", state->canary->number);
    pl_json_put_number(out, "share_ratio", state->canary_ratio);
    pl_json_put_u64(out, "left_ms",
                    state->canary_until_ms > now_ms ? state->canary_until_ms - now_ms : 0);
    pl_json_put_string(out, "standing", state->canary_reason);
    pl_json_close(out, '}');
}

static void write_counters(struct pl_json_text *out, const struct pl_reload_state *state)
{
    pl_json_open(out, "reloads", '{');
    pl_json_put_u64(out, "good", state->good_count);
    pl_json_put_u64(out, "failed", state->failed_count);
    pl_json_put_u64(out, "promoted", state->promoted_count);
    pl_json_open(out, "rolled_back", '{');
    for (int cause = 0; cause < PL_ROLLBACK_CAUSES; cause++)
        pl_json_put_u64(out, pl_rollback_cause_name((enum pl_rollback_cause)cause),
                        state->rollback_counts[cause]);
    pl_json_close(out, '}');
    put_wall_ms(out, "last_failed_wall_ms", state->failed_wall_ms);
    pl_json_put_string(out, "last_failed", state->failed_text);
    pl_json_close(out, '}');
}

void pl_admin_get_generations(struct pl_reload *reload, struct pl_exchange *exchange)
{
    const struct pl_reload_state *state = pl_reload_look(reload);
    const struct pl_edition *edition;
    struct pl_json_text text;
    pl_json_text_init(&text);
    pl_json_open(&text, NULL, '{');
    pl_json_put_u64(&text, "current", state->current->number);
    write_trial(&text, state);
    write_counters(&text, state);
    pl_json_open(&text, "generations", '[');
    for (edition = TAILQ_FIRST(&state->editions); edition; edition = TAILQ_NEXT(edition, link))
        write_edition(&text, edition);
    pl_json_close(&text, ']');
    pl_json_close(&text, '}');
    pl_admin_reply_json(exchange, 200, text.data);
    pl_json_text_deinit(&text);
}

/* ---- changes ---- */

struct waiter {
    struct pl_exchange *exchange;
    struct pl_reload_ticket *ticket;
};

static void on_gone(void *arg)
{
    struct waiter *self = arg;
    pl_reload_forget(self->ticket);
    free(self);
}

static void on_writable(void *arg)
{
    (void)arg;
}

static const struct pl_exchange_ops waiter_ops = {.on_gone = on_gone, .on_writable = on_writable};

static void write_kind(struct pl_json_text *out, const struct pl_reload_result *result,
                       const char *key, const char *kind)
{
    static const char *const actions[] = {"added", "changed", "removed"};
    pl_json_open(out, key, '{');
    for (size_t i = 0; i < PL_COUNT(actions); i++) {
        pl_json_open(out, actions[i], '[');
        for (size_t j = 0; j < result->change_count; j++) {
            if (strcmp(result->changes[j].kind, kind) == 0 &&
                strcmp(result->changes[j].action, actions[i]) == 0)
                pl_json_put_string(out, NULL, result->changes[j].name);
        }
        pl_json_close(out, ']');
    }
    pl_json_close(out, '}');
}

static void write_result(struct pl_json_text *out, const struct pl_reload_result *result)
{
    const struct pl_edition *edition = result->edition;
    pl_json_open(out, NULL, '{');
    pl_json_put_u64(out, "generation", edition->number);
    pl_json_put_string(out, "state", pl_edition_state_name(edition));
    pl_json_put_string(out, "digest", edition->digest);
    if (edition->restored_from)
        pl_json_put_u64(out, "restored_from", edition->restored_from);
    pl_json_open(out, "changes", '{');
    write_kind(out, result, "files", "file");
    write_kind(out, result, "providers", "provider");
    write_kind(out, result, "targets", "target");
    write_kind(out, result, "routes", "route");
    write_kind(out, result, "settings", "setting");
    pl_json_close(out, '}');
    pl_json_put_u64(out, "change_count", result->change_total);
    pl_json_open(out, "needs_restart", '[');
    for (size_t i = 0; result->restart[i]; i++)
        pl_json_put_string(out, NULL, result->restart[i]);
    pl_json_close(out, ']');
    pl_json_close(out, '}');
}

/* "gateway.lua:12: routes[1].policy: there is no ..." -> file, line, key, reason. What is not there
 * is null; a policy's error has no key. */
static void write_problem(struct pl_json_text *out, const char *text, size_t len)
{
    char line[2048], file[256] = "", key[256] = "";
    unsigned number = 0;
    int used = 0, more = 0;
    snprintf(line, sizeof(line), "%.*s", (int)PL_MIN(len, sizeof(line) - 1), text);
    pl_json_open(out, NULL, '{');
    pl_json_put_string(out, "text", line);
    const char *rest = line;
    if (sscanf(rest, "%255[^: ]:%u:%n", file, &number, &used) == 2 && used > 0)
        rest += used;
    else if (used = 0, number = 0,
             sscanf(rest, "%255[^: ]:%n", file, &used) == 1 && used > 0 && strstr(file, ".lua"))
        rest += used;
    else
        file[0] = '\0';
    rest += strspn(rest, " ");
    bool has_key = strcmp(file, "gateway.lua") == 0 &&
                   sscanf(rest, "%255[^: ]:%n", key, &more) == 1 && more > 0;
    if (has_key)
        rest += more + strspn(rest + more, " ");
    pl_json_put_string(out, "file", file[0] ? file : NULL);
    if (number > 0)
        pl_json_put_u64(out, "line", number);
    else
        pl_json_put_string(out, "line", NULL);
    pl_json_put_string(out, "key", has_key ? key : NULL);
    pl_json_put_string(out, "reason", rest);
    pl_json_close(out, '}');
}

static void write_failure(struct pl_json_text *out, const struct pl_reload_result *result)
{
    pl_json_open(out, NULL, '{');
    pl_json_open(out, "error", '{');
    pl_json_put_string(out, "message", result->text);
    pl_json_put_string(out, "code", result->code);
    if (result->status == 422) {
        pl_json_open(out, "problems", '[');
        for (const char *at = result->text; *at;) {
            size_t len = strcspn(at, "\n");
            write_problem(out, at, len);
            at += len + (at[len] == '\n');
        }
        pl_json_close(out, ']');
    }
    pl_json_close(out, '}');
    pl_json_close(out, '}');
}

static void on_result(void *arg, const struct pl_reload_result *result)
{
    struct waiter *self = arg;
    struct pl_json_text text;
    pl_json_text_init(&text);
    if (result->edition)
        write_result(&text, result);
    else
        write_failure(&text, result);
    pl_admin_reply_json(self->exchange, result->status, text.data);
    pl_json_text_deinit(&text);
    free(self);
}

static void ask(struct pl_reload *reload, struct pl_exchange *exchange,
                const struct pl_reload_request *request)
{
    if (pl_reload_is_full(reload)) {
        pl_admin_refuse(exchange, 503, "too_many_changes", "Too many changes wait already.");
        return;
    }
    struct waiter *self = pl_xcalloc(1, sizeof(*self));
    self->exchange = exchange;
    self->ticket = pl_reload_ask(reload, request, on_result, self);
    pl_exchange_set_ops(exchange, &waiter_ops, self);
}

/* NULL, or what is wrong with the query. A key that is not known is refused: to be let pass, a
 * mistyped canary would put the files in force for all. */
static const char *read_canary(struct pl_str query, struct pl_reload_request *out)
{
    static const char *const keys[] = {"canary", "for", "replace", NULL};
    char text[PL_QUERY_VALUE_BYTES] = "false";
    struct pl_str share;
    out->canary_ms = CANARY_FOR_MS;
    if (!pl_query_has_only(query, keys, &share))
        return "the query can have canary, for and replace, each once and with a value";
    (void)pl_query_value(query, "replace", text);
    out->replace = strcmp(text, "true") == 0;
    if (!out->replace && strcmp(text, "false") != 0)
        return "replace: true or false is expected";
    if (!pl_query_find(query, "canary", &share))
        return pl_query_find(query, "for", &share) ? "for: is for a canary; canary=10% is missing"
                                                   : NULL;
    if (!pl_query_percent(share, &out->canary_ratio) || out->canary_ratio < 0.0001 ||
        out->canary_ratio > 0.99)
        return "canary: a share of the requests such as 10% is expected, within 0.01% and 99%";
    if (!pl_query_find(query, "for", &share))
        return NULL;
    if (!pl_query_value(query, "for", text) || !pl_query_duration_ms(text, &out->canary_ms) ||
        out->canary_ms < CANARY_FOR_MIN_MS || out->canary_ms > CANARY_FOR_MAX_MS)
        return "for: a duration such as 60s is expected, within 1s and 24h";
    return NULL;
}

void pl_admin_post_reload(struct pl_reload *reload, struct pl_exchange *exchange)
{
    struct pl_reload_request request = {.kind = PL_RELOAD_LOAD, .by = "operator"};
    const char *problem = read_canary(pl_exchange_query(exchange), &request);
    if (problem)
        pl_admin_refuse(exchange, 400, "bad_request", problem);
    else
        ask(reload, exchange, &request);
}

void pl_admin_post_rollback(struct pl_reload *reload, struct pl_exchange *exchange)
{
    struct pl_reload_request request = {
        .kind = PL_RELOAD_ROLLBACK, .by = "operator", .reason = "asked for by the operator"};
    ask(reload, exchange, &request);
}

void pl_admin_post_promote(struct pl_reload *reload, struct pl_exchange *exchange)
{
    struct pl_reload_request request = {
        .kind = PL_RELOAD_PROMOTE, .by = "operator", .reason = "asked for by the operator"};
    ask(reload, exchange, &request);
}
