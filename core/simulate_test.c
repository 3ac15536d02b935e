/*
 * Tests of simulate_answer.c: what plans come to as the stage's data.
 */
#include "simulate.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static lua_State *L;
static struct pl_target target;

static int open_state(void **state)
{
    (void)state;
    target = (struct pl_target){.name = NULL};
    L = luaL_newstate();
    return L ? 0 : -1;
}

static int close_state(void **state)
{
    (void)state;
    lua_close(L);
    return 0;
}

static int make(lua_State *state)
{
    lua_pushlightuserdata(state, pl_simulate_answer(state, 1, &target));
    return 1;
}

/* The answer of a plan, written as a table of Lua; NULL when it is refused. */
static struct pl_stage_answer *answer_of(const char *plan)
{
    char chunk[512];
    snprintf(chunk, sizeof(chunk), "return %s", plan);
    lua_settop(L, 0);
    lua_pushcfunction(L, make);
    assert_int_equal(luaL_loadstring(L, chunk), 0);
    assert_int_equal(lua_pcall(L, 0, 1, 0), 0);
    if (lua_pcall(L, 1, 1, 0) != 0)
        return NULL;
    return lua_touserdata(L, -1);
}

static size_t count_events(const struct pl_stage_answer *answer, size_t piece)
{
    const struct pl_stage_piece *at = &answer->pieces[piece];
    size_t count = 0;
    for (size_t i = 0; i + 1 < at->len; i++)
        count += memcmp(answer->bytes + at->offset + i, "\n\n", 2) == 0;
    return count;
}

static struct pl_str header_of(const struct pl_stage_answer *answer, const char *name)
{
    struct pl_str value;
    assert_true(pl_headers_get(&answer->headers, pl_str_of(name), &value));
    return value;
}

static uint64_t time_us(const struct pl_stage_answer *answer)
{
    uint64_t sum_us = answer->head_after_us;
    for (size_t i = 0; i < answer->piece_count; i++)
        sum_us += answer->pieces[i].after_us;
    return sum_us;
}

static void a_stream_begins_with_one_token_and_goes_on_in_groups(void **state)
{
    (void)state;
    struct pl_stage_answer *answer =
        answer_of("{ stream = true, after_ms = 100, first_ms = 50, every_ms = 20, tokens = 60 }");
    assert_true(answer->chunked);
    assert_int_equal(answer->ending, PL_STAGE_WHOLE);
    /* 1 token, then 25 (500 ms), 25 and 9; the last event, and the mark */
    const size_t counts[] = {1, 25, 25, 9, 1, 1};
    const uint64_t after_us[] = {50000, 500000, 500000, 180000, 0, 0};
    assert_int_equal(answer->piece_count, PL_COUNT(counts));
    for (size_t i = 0; i < PL_COUNT(counts); i++) {
        assert_int_equal(count_events(answer, i), counts[i]);
        assert_int_equal(answer->pieces[i].after_us, after_us[i]);
    }
    assert_int_equal(time_us(answer), (100 + 50 + 59 * 20) * 1000);
    pl_stage_answer_unref(answer);
}

static void groups_keep_well_within_the_silence_that_is_allowed(void **state)
{
    (void)state;
    target.limits.idle_ms = 100;
    struct pl_stage_answer *answer =
        answer_of("{ stream = true, first_ms = 50, every_ms = 20, tokens = 7 }");
    for (size_t i = 1; i < answer->piece_count; i++)
        assert_true(answer->pieces[i].after_us <= 50 * 1000);
    assert_int_equal(time_us(answer), (50 + 6 * 20) * 1000);
    pl_stage_answer_unref(answer);
    /* never less than a token, and no more than are held at once */
    answer = answer_of("{ stream = true, every_ms = 300, tokens = 3 }");
    assert_int_equal(answer->piece_count, 5);
    pl_stage_answer_unref(answer);
    answer = answer_of("{ stream = true, every_ms = 0, tokens = 1000 }");
    assert_int_equal(count_events(answer, 1), 256);
    assert_int_equal(time_us(answer), 0);
    pl_stage_answer_unref(answer);
}

static void a_stream_breaks_off_or_falls_silent_at_its_token(void **state)
{
    (void)state;
    struct pl_stage_answer *answer =
        answer_of("{ stream = true, every_ms = 300, tokens = 9, cut_after = 3 }");
    assert_int_equal(answer->ending, PL_STAGE_CUT);
    assert_int_equal(answer->piece_count, 3);
    assert_int_equal(answer->end_after_us, 300 * 1000);
    pl_stage_answer_unref(answer);
    answer = answer_of("{ stream = true, every_ms = 300, tokens = 9, stall_after = 0 }");
    assert_int_equal(answer->ending, PL_STAGE_STALL);
    assert_int_equal(answer->piece_count, 0);
    pl_stage_answer_unref(answer);
    answer = answer_of("{ stream = true, tokens = 2, done = false }");
    assert_null(memmem(answer->bytes, answer->byte_count, "[DONE]", 6));
    pl_stage_answer_unref(answer);
}

static void an_answer_in_one_piece_comes_when_its_tokens_are_there(void **state)
{
    (void)state;
    struct pl_stage_answer *answer =
        answer_of("{ after_ms = 100, first_ms = 50, every_ms = 20, tokens = 4 }");
    assert_false(answer->chunked);
    assert_int_equal(answer->head_after_us, (100 + 50 + 3 * 20) * 1000);
    assert_int_equal(answer->piece_count, 1);
    assert_int_equal(pl_json_validate(answer->bytes, answer->byte_count), PL_OK);
    assert_non_null(memmem(answer->bytes, answer->byte_count, "\"completion_tokens\":4", 21));
    size_t whole_bytes = answer->byte_count;
    pl_stage_answer_unref(answer);
    answer = answer_of("{ tokens = 4, cut_after = 2 }");
    assert_int_equal(answer->ending, PL_STAGE_CUT);
    assert_int_equal(answer->byte_count, whole_bytes / 2);
    struct pl_str length = header_of(answer, "content-length");
    char digits[PL_NUMBER_MAX];
    assert_int_equal(length.len, pl_put_decimal(digits, whole_bytes));
    assert_memory_equal(length.data, digits, length.len);
    pl_stage_answer_unref(answer);
}

static void an_error_has_its_body_and_headers(void **state)
{
    (void)state;
    struct pl_stage_answer *answer = answer_of(
        "{ status = 429, after_ms = 5, stream = true, body = '{}', tokens = 9, first_ms = 7,"
        " headers = { ['retry-after'] = '2', ['content-type'] = 'text/plain' } }");
    assert_int_equal(answer->status, 429);
    assert_int_equal(answer->head_after_us, 5000);
    assert_int_equal(answer->byte_count, 2);
    assert_false(answer->chunked);
    assert_true(pl_str_equal(header_of(answer, "retry-after"), PL_STR("2")));
    assert_int_equal(pl_headers_count(&answer->headers, PL_STR("content-type")), 1);
    pl_stage_answer_unref(answer);
    answer = answer_of("{ status = 200, body = '' }");
    assert_int_equal(answer->piece_count, 0);
    pl_stage_answer_unref(answer);
}

static void failures_have_names(void **state)
{
    (void)state;
    struct pl_stage_answer *answer = answer_of("{ failure = 'connect', after_ms = 3 }");
    assert_int_equal(answer->failure, PL_FAIL_CONNECT);
    assert_int_equal(answer->head_after_us, 3000);
    pl_stage_answer_unref(answer);
    answer = answer_of("{ failure = 'hang' }");
    assert_true(answer->hangs);
    pl_stage_answer_unref(answer);
}

static void what_is_no_plan_is_refused(void **state)
{
    (void)state;
    assert_null(answer_of("{ failure = 'gone' }"));
    assert_null(answer_of("{ failure = 'ok' }"));
    assert_null(answer_of("{ headers = { ['a b'] = 'c' } }"));
    assert_null(answer_of("{ headers = { a = {} } }"));
    assert_null(answer_of("{ headers = { 'a' } }"));
    assert_null(answer_of("{ tokens = 1e9 }"));
    assert_null(answer_of("{ tokens = -2 }"));
    assert_null(answer_of("{ after_ms = 1e13 }"));
    assert_null(answer_of("{ every_ms = 0 / 0 }"));
    assert_null(answer_of("{ status = 'many' }"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_state, close_state)
    const struct CMUnitTest tests[] = {
        TEST(a_stream_begins_with_one_token_and_goes_on_in_groups),
        TEST(groups_keep_well_within_the_silence_that_is_allowed),
        TEST(a_stream_breaks_off_or_falls_silent_at_its_token),
        TEST(an_answer_in_one_piece_comes_when_its_tokens_are_there),
        TEST(an_error_has_its_body_and_headers),
        TEST(failures_have_names),
        TEST(what_is_no_plan_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
