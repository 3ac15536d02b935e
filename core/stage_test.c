/*
 * Tests of stage.c and its parts: the transport's contract and limits, clients, and that worlds do
 * not disturb one another. What specs see of it is tested by spec/kit.
 */
#include "stage_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WALL_MS 1767614400000u

static const char CONFIG[] =
    "return {\n"
    "  providers = {\n"
    "    up = { url = 'http://127.0.0.1:1/v1', health = false,\n"
    "      timeouts = { connect = '1s', tls = '2s', head = '10s', first_token = '5s',\n"
    "        idle = '20s', try = '60s' } },\n"
    "  },\n"
    "  routes = { { policy = 'own', targets = { { provider = 'up' } }, deadline = '100s' } },\n"
    "}\n";

static const char RELAY[] = "return function(req, route)\n"
                            "  return req:relay(req:send(route.targets[1]))\n"
                            "end\n";

/* A stage, and what its upstream answers. */
struct scene {
    struct pl_stage *stage;
    struct pl_stage_answer *answer; /* to every call; NULL: hangs */
    size_t call_count, end_count, open_count;
    enum pl_stage_call_state last_state;
    enum pl_failure last_failure;
    uint64_t last_end_us;
    char body[256]; /* of the last call */
};

static struct pl_stage_answer *on_call(struct pl_stage_call *call, void *arg)
{
    struct scene *self = arg;
    size_t len = 0;
    self->call_count++;
    self->open_count++;
    assert_int_equal(self->call_count, call->number);
    assert_memory_equal("POST /v1/chat/completions", call->pieces[0].iov_base, 25);
    for (size_t i = 1; i < call->piece_count; i++) {
        size_t part = PL_MIN(call->pieces[i].iov_len, sizeof(self->body) - 1 - len);
        memcpy(self->body + len, call->pieces[i].iov_base, part);
        len += part;
    }
    self->body[len] = '\0';
    if (self->answer)
        pl_stage_answer_ref(self->answer);
    return self->answer;
}

static void on_call_end(struct pl_stage_call *call, void *arg)
{
    struct scene *self = arg;
    self->end_count++;
    self->open_count--;
    self->last_state = call->state;
    self->last_failure = call->failure;
    self->last_end_us = call->ended_us;
}

static const struct pl_stage_ops OPS = {.on_call = on_call, .on_call_end = on_call_end};

static struct pl_stage *make_stage(struct scene *scene, const char *config, const char *policy,
                                   char **problems)
{
    const struct pl_config_file files[] = {
        {.name = (char *)"gateway.lua", .data = (char *)config, .len = strlen(config)},
        {.name = (char *)"own.lua", .data = (char *)policy, .len = strlen(policy)}};
    const struct pl_config_variable none = {NULL, NULL};
    const struct pl_config_source source = {
        .files = files, .file_count = 2, .environment = &none, .offline = true};
    const struct pl_stage_options options = {
        .source = &source, .seed = 1, .start_wall_ms = WALL_MS, .ops = &OPS, .arg = scene};
    return pl_stage_new(&options, problems);
}

static void open_scene(struct scene *self, const char *policy)
{
    char *problems;
    *self = (struct scene){.answer = pl_stage_answer_new()};
    self->stage = make_stage(self, CONFIG, policy, &problems);
    if (!self->stage)
        fail_msg("%s", problems);
}

static int set_up(void **state)
{
    struct scene *self = pl_xcalloc(1, sizeof(*self));
    open_scene(self, RELAY);
    *state = self;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *self = *state;
    pl_stage_free(self->stage);
    pl_stage_answer_unref(self->answer);
    free(self);
    return 0;
}

static struct pl_stage_client *start(struct scene *self, const char *body)
{
    const struct pl_stage_request request = {.method = PL_STR("POST"),
                                             .target = PL_STR("/v1/chat/completions?a=b"),
                                             .body = pl_str_of(body),
                                             .peer = PL_STR("127.0.0.1")};
    return pl_stage_start(self->stage, &request);
}

static struct pl_stage_client *run_one(struct scene *self, const char *body)
{
    struct pl_stage_client *client = start(self, body);
    assert_int_equal(PL_STAGE_AT_END, pl_stage_run(self->stage, UINT64_MAX, client));
    return client;
}

static void add_text(struct pl_stage_answer *answer, uint64_t after_us, const char *text)
{
    pl_stage_answer_add(answer, after_us, text, strlen(text));
}

static void make_stream(struct pl_stage_answer *answer)
{
    answer->chunked = true;
    assert_int_equal(PL_OK, pl_headers_add(&answer->headers, PL_STR("content-type"),
                                           PL_STR("text/event-stream")));
}

static const char PLAIN[] = "{\"model\":\"m\"}";
static const char STREAM[] = "{\"model\":\"m\",\"stream\":true}";

/* ---- whole answers ---- */

static void test_an_answer_takes_its_time_and_is_whole(void **state)
{
    struct scene *self = *state;
    self->answer->head_after_us = 120000;
    add_text(self->answer, 30000, "hello ");
    add_text(self->answer, 50000, "world");
    self->answer->end_after_us = 1000;
    struct pl_stage_client *client = run_one(self, PLAIN);
    assert_int_equal(PL_STAGE_COMPLETE, client->end);
    assert_int_equal(200, client->status);
    assert_int_equal(11, client->body_len);
    assert_memory_equal("hello world", client->body, 11);
    assert_int_equal(120000, client->first_byte_us);
    assert_int_equal(201000, client->ended_us);
    assert_string_equal(PLAIN, self->body);
    assert_int_equal(PL_STAGE_CALL_ENDED, self->last_state);
    assert_int_equal(PL_FAIL_NONE, self->last_failure);
    struct pl_str length;
    assert_true(pl_headers_get(&client->headers, PL_STR("content-length"), &length));
    assert_true(pl_str_equal(length, PL_STR("11")));
    pl_stage_client_free(client);
}

static void test_the_log_and_dates_are_of_the_virtual_clock(void **state)
{
    struct scene *self = *state;
    uint64_t real_ms = pl_now_wall_ms();
    self->answer->ending = PL_STAGE_CUT;
    self->answer->length_bytes = 10;
    self->answer->head_after_us = 1500000;
    pl_stage_client_free(run_one(self, PLAIN));
    size_t count;
    const char *const *lines = pl_stage_log(self->stage, &count);
    assert_int_equal(1, count);
    assert_memory_equal("2026-01-05T12:00:01.500Z warn  request ", lines[0], 39);
    assert_true(pl_now_wall_ms() - real_ms < 60000);
}

/* ---- limits ---- */

static void check_failure(struct scene *self, const char *body, enum pl_failure failure,
                          uint64_t at_us)
{
    struct pl_stage_client *client = run_one(self, body);
    assert_int_equal(PL_STAGE_CALL_ENDED, self->last_state);
    assert_string_equal(pl_failure_name(failure), pl_failure_name(self->last_failure));
    assert_int_equal(at_us, self->last_end_us);
    pl_stage_client_free(client);
}

static void test_silence_before_the_head_ends_at_the_head_limit(void **state)
{
    struct scene *self = *state;
    self->answer->hangs = true;
    check_failure(self, PLAIN, PL_FAIL_TIMEOUT_HEAD, 10000000);
    self->answer->hangs = false;
    self->answer->head_after_us = 10000000; /* at the limit is too late */
    check_failure(self, PLAIN, PL_FAIL_TIMEOUT_HEAD, 20000000);
    self->answer->head_after_us = 9999999;
    check_failure(self, PLAIN, PL_FAIL_NONE, 29999999);
}

static void test_connecting_and_handshakes_have_limits_of_their_own(void **state)
{
    struct scene *self = *state;
    self->answer->failure = PL_FAIL_CONNECT;
    check_failure(self, PLAIN, PL_FAIL_CONNECT, 0);
    self->answer->head_after_us = 5000000;
    check_failure(self, PLAIN, PL_FAIL_TIMEOUT_CONNECT, 1000000);
    self->answer->failure = PL_FAIL_TLS;
    check_failure(self, PLAIN, PL_FAIL_TIMEOUT_CONNECT, 3000000);
    self->answer->failure = PL_FAIL_RESET;
    check_failure(self, PLAIN, PL_FAIL_RESET, 8000000);
}

static void test_silence_within_the_body_ends_at_the_idle_limit(void **state)
{
    struct scene *self = *state;
    add_text(self->answer, 19000000, "slowly ");
    add_text(self->answer, 19000000, "but steadily");
    self->answer->ending = PL_STAGE_STALL;
    struct pl_stage_client *client = run_one(self, PLAIN);
    assert_int_equal(PL_STAGE_BROKEN, client->end);
    assert_int_equal(19, client->body_len);
    assert_int_equal(PL_FAIL_TIMEOUT_IDLE, self->last_failure);
    assert_int_equal(58000000, client->ended_us);
    pl_stage_client_free(client);
}

static void test_the_whole_try_has_a_limit(void **state)
{
    struct scene *self = *state;
    for (int i = 0; i < 10; i++)
        add_text(self->answer, 10000000, "x");
    check_failure(self, PLAIN, PL_FAIL_TIMEOUT_TRY, 60000000);
}

static void test_the_first_event_has_a_limit_that_the_request_keeps(void **state)
{
    struct scene *self = *state;
    make_stream(self->answer);
    add_text(self->answer, 6000000, "data: 17\n\n");
    struct pl_stage_client *client = run_one(self, STREAM);
    assert_int_equal(504, client->status);
    assert_int_equal(5000000, client->ended_us);
    assert_int_equal(PL_STAGE_CALL_CANCELLED, self->last_state);
    pl_stage_client_free(client);
}

static void test_a_cut_stream_ends_in_an_error_event(void **state)
{
    struct scene *self = *state;
    make_stream(self->answer);
    add_text(self->answer, 0, "data: 111\n\n");
    add_text(self->answer, 1000, "data: half");
    self->answer->ending = PL_STAGE_CUT;
    struct pl_stage_client *client = run_one(self, STREAM);
    assert_int_equal(PL_STAGE_BROKEN, client->end);
    assert_memory_equal("data: 111\n\ndata: {\"error\":", client->body, 25);
    assert_int_equal(PL_FAIL_TRUNCATED, self->last_failure);
    pl_stage_client_free(client);
}

/* ---- the transport's contract ---- */

/* An owner of an attempt, as the request is. */
struct owner {
    struct pl_stage *stage;
    struct pl_attempt *attempt;
    int head_count, body_count, done_count;
    enum pl_failure failure;
    char bytes[64];
    size_t byte_count;
    bool pauses_at_head, cancels_at_head, cancels_at_body;
};

static void on_head(struct pl_attempt *attempt, void *arg)
{
    struct owner *self = arg;
    self->head_count++;
    assert_true(pl_stage_transport.is_sent(attempt));
    assert_int_equal(200, pl_stage_transport.head(attempt)->status);
    if (self->pauses_at_head)
        pl_stage_transport.pause(attempt);
    if (self->cancels_at_head)
        pl_stage_transport.cancel(attempt);
}

static void on_body(struct pl_attempt *attempt, const char *data, size_t len, void *arg)
{
    struct owner *self = arg;
    self->body_count++;
    assert_true(self->byte_count + len <= sizeof(self->bytes));
    memcpy(self->bytes + self->byte_count, data, len);
    self->byte_count += len;
    if (self->cancels_at_body)
        pl_stage_transport.cancel(attempt);
}

static void on_done(struct pl_attempt *attempt, enum pl_failure failure, void *arg)
{
    struct owner *self = arg;
    self->done_count++;
    self->failure = failure;
    pl_stage_transport.cancel(attempt); /* harmless here */
}

static void start_attempt(struct owner *self, struct scene *scene)
{
    static const struct pl_attempt_ops ops = {on_head, on_body, on_done};
    static const struct iovec piece = {(void *)"POST /v1/chat/completions HTTP/1.1\r\n\r\n", 38};
    const struct pl_attempt_request request = {.pieces = &piece, .piece_count = 1};
    const struct pl_transport *transport = &scene->stage->transport;
    self->stage = scene->stage;
    self->attempt = transport->start(transport, NULL, &pl_stage_topology(scene->stage)->targets[0],
                                     &request, &ops, self);
    assert_int_equal(0, self->head_count + self->done_count);
}

static void run_to_ms(struct scene *scene, uint64_t ms)
{
    pl_stage_run(scene->stage, ms * 1000, NULL);
}

static void test_nothing_comes_from_inside_start_or_resume(void **state)
{
    struct scene *scene = *state;
    struct owner owner = {.pauses_at_head = true};
    add_text(scene->answer, 0, "abc");
    start_attempt(&owner, scene);
    run_to_ms(scene, 0);
    assert_int_equal(1, owner.head_count);
    assert_int_equal(0, owner.body_count);
    pl_stage_transport.resume(owner.attempt);
    assert_int_equal(0, owner.body_count);
    run_to_ms(scene, 0);
    assert_int_equal(1, owner.body_count);
    assert_int_equal(1, owner.done_count);
    assert_int_equal(PL_FAIL_NONE, owner.failure);
}

static void test_an_attempt_may_be_cancelled_at_any_time(void **state)
{
    struct scene *scene = *state;
    add_text(scene->answer, 1000, "abc");
    add_text(scene->answer, 1000, "def");
    struct owner at_once = {0}, at_head = {.cancels_at_head = true},
                 at_body = {.cancels_at_body = true}, between = {0};
    start_attempt(&at_once, scene);
    pl_stage_transport.cancel(at_once.attempt);
    assert_int_equal(0, scene->call_count); /* nobody has heard of it */
    start_attempt(&at_head, scene);
    start_attempt(&at_body, scene);
    start_attempt(&between, scene);
    run_to_ms(scene, 1);
    pl_stage_transport.cancel(between.attempt);
    run_to_ms(scene, 1000);
    assert_int_equal(0, at_once.head_count + at_head.body_count);
    assert_int_equal(1, at_head.head_count);
    assert_int_equal(1, at_body.body_count);
    assert_int_equal(1, between.body_count);
    assert_int_equal(0, at_head.done_count + at_body.done_count + between.done_count);
    assert_int_equal(3, scene->end_count);
}

static void test_while_paused_nothing_comes_and_idle_stands_still(void **state)
{
    struct scene *scene = *state;
    struct owner owner = {.pauses_at_head = true};
    add_text(scene->answer, 1000000, "abc");
    add_text(scene->answer, 1000000, "def");
    scene->answer->ending = PL_STAGE_STALL;
    start_attempt(&owner, scene);
    run_to_ms(scene, 30000); /* longer than the idle limit */
    assert_int_equal(0, owner.body_count + owner.done_count);
    pl_stage_transport.resume(owner.attempt);
    run_to_ms(scene, 30000);
    assert_int_equal(2, owner.body_count); /* both have come meanwhile */
    run_to_ms(scene, 49999);
    assert_int_equal(0, owner.done_count);
    run_to_ms(scene, 50000);
    assert_int_equal(1, owner.done_count);
    assert_int_equal(PL_FAIL_TIMEOUT_IDLE, owner.failure);
}

static void test_the_try_goes_on_while_paused(void **state)
{
    struct scene *scene = *state;
    struct owner owner = {.pauses_at_head = true};
    add_text(scene->answer, 0, "abc");
    start_attempt(&owner, scene);
    run_to_ms(scene, 60000);
    assert_int_equal(1, owner.done_count);
    assert_int_equal(PL_FAIL_TIMEOUT_TRY, owner.failure);
}

static void test_a_head_request_and_204_have_no_body(void **state)
{
    struct scene *scene = *state;
    add_text(scene->answer, 0, "never seen");
    scene->answer->status = 204;
    struct pl_stage_client *client = run_one(scene, PLAIN);
    assert_int_equal(204, client->status);
    assert_int_equal(0, client->body_len);
    pl_stage_client_free(client);
}

/* ---- clients and worlds ---- */

static void test_a_client_that_leaves_ends_the_call(void **state)
{
    struct scene *self = *state;
    self->answer->hangs = true;
    struct pl_stage_client *client = start(self, PLAIN);
    run_to_ms(self, 3000);
    assert_string_equal("the answer of an upstream", pl_stage_waits_for(client));
    pl_stage_leave(client);
    assert_int_equal(PL_STAGE_LEFT, client->end);
    assert_null(pl_stage_waits_for(client));
    assert_int_equal(PL_STAGE_CALL_CANCELLED, self->last_state);
    assert_int_equal(0, pl_stage_active_count(self->stage));
    assert_int_equal(PL_STAGE_IDLE, pl_stage_run(self->stage, UINT64_MAX, NULL));
    pl_stage_client_free(client);
}

static void test_open_requests_end_with_their_stage(void **state)
{
    struct scene *self = *state;
    self->answer->hangs = true;
    struct pl_stage_client *kept = start(self, PLAIN);
    pl_stage_client_free(start(self, PLAIN)); /* goes on unseen */
    run_to_ms(self, 1);
    assert_int_equal(2, pl_stage_active_count(self->stage));
    pl_stage_free(self->stage);
    self->stage = NULL;
    assert_int_equal(PL_STAGE_RESET, kept->end);
    pl_stage_client_free(kept);
}

static void test_broken_requests_are_refused_at_once(void **state)
{
    struct scene *self = *state;
    struct pl_stage_client *client = start(self, "{");
    assert_int_equal(PL_STAGE_COMPLETE, client->end);
    assert_int_equal(400, client->status);
    pl_stage_leave(client); /* harmless */
    assert_int_equal(PL_STAGE_COMPLETE, client->end);
    pl_stage_client_free(client);
}

static void test_thousands_of_requests_at_the_same_time(void **state)
{
    enum { COUNT = 5000, EVENTS = 20 };
    struct scene *self = *state;
    static struct pl_stage_client *clients[COUNT];
    make_stream(self->answer);
    for (int i = 0; i < EVENTS; i++)
        add_text(self->answer, 20000, "data: 1234\n\n");
    for (int i = 0; i < COUNT; i++) {
        clients[i] = start(self, STREAM);
        pl_stage_run(self->stage, (uint64_t)i * 50, NULL);
    }
    assert_int_equal(COUNT, pl_stage_active_count(self->stage));
    assert_int_equal(PL_STAGE_IDLE, pl_stage_run(self->stage, UINT64_MAX, NULL));
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(PL_STAGE_COMPLETE, clients[i]->end);
        assert_int_equal(EVENTS * 12, clients[i]->body_len);
        assert_int_equal(EVENTS * 20000, clients[i]->ended_us - clients[i]->started_us);
        pl_stage_client_free(clients[i]);
    }
    assert_int_equal(COUNT, self->end_count);
}

static const char RANDOM[] = "local gw = require 'perilune'\n"
                             "return function(req)\n"
                             "  return req:respond(200, req.id .. gw.random())\n"
                             "end\n";

static char *body_text(struct scene *self)
{
    struct pl_stage_client *client = run_one(self, PLAIN);
    char *text = pl_xstrndup(client->body, client->body_len);
    pl_stage_client_free(client);
    return text;
}

static void test_the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    struct scene scenes[2];
    uint64_t outside;
    for (int i = 0; i < 2; i++)
        open_scene(&scenes[i], RANDOM);
    for (int round = 0; round < 3; round++) {
        outside = pl_random_u64();
        char *first = body_text(&scenes[0]), *second = body_text(&scenes[1]);
        assert_string_equal(first, second);
        assert_int_not_equal(outside, pl_random_u64());
        free(first);
        free(second);
    }
    for (int i = 0; i < 2; i++) {
        pl_stage_free(scenes[i].stage);
        pl_stage_answer_unref(scenes[i].answer);
    }
}

static void test_what_never_ends_is_noticed(void **state)
{
    (void)state;
    struct scene scene;
    open_scene(&scene, "local gw = require 'perilune'\n"
                       "return function() while true do gw.sleep('0ms') end end\n");
    struct pl_stage_client *client = start(&scene, PLAIN);
    assert_int_equal(PL_STAGE_STUCK, pl_stage_run(scene.stage, UINT64_MAX, client));
    assert_string_equal("a timer", pl_stage_waits_for(client));
    pl_stage_free(scene.stage);
    pl_stage_client_free(client);
    pl_stage_answer_unref(scene.answer);
}

static void test_a_broken_configuration_is_told(void **state)
{
    (void)state;
    struct scene scene = {0};
    char *problems;
    assert_null(make_stage(&scene, "return { routes = {} }", RELAY, &problems));
    assert_non_null(strstr(problems, "gateway.lua:1: providers: is required"));
    free(problems);
    assert_null(make_stage(&scene, CONFIG, "return 1", &problems));
    assert_string_equal("own.lua: must return a function(req, route), got number", problems);
    free(problems);
    pl_stage_free(NULL);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_an_answer_takes_its_time_and_is_whole),
        TEST(test_the_log_and_dates_are_of_the_virtual_clock),
        TEST(test_silence_before_the_head_ends_at_the_head_limit),
        TEST(test_connecting_and_handshakes_have_limits_of_their_own),
        TEST(test_silence_within_the_body_ends_at_the_idle_limit),
        TEST(test_the_whole_try_has_a_limit),
        TEST(test_the_first_event_has_a_limit_that_the_request_keeps),
        TEST(test_a_cut_stream_ends_in_an_error_event),
        TEST(test_nothing_comes_from_inside_start_or_resume),
        TEST(test_an_attempt_may_be_cancelled_at_any_time),
        TEST(test_while_paused_nothing_comes_and_idle_stands_still),
        TEST(test_the_try_goes_on_while_paused),
        TEST(test_a_head_request_and_204_have_no_body),
        TEST(test_a_client_that_leaves_ends_the_call),
        TEST(test_open_requests_end_with_their_stage),
        TEST(test_broken_requests_are_refused_at_once),
        TEST(test_thousands_of_requests_at_the_same_time),
        cmocka_unit_test(test_the_same_seed_gives_the_same_run),
        cmocka_unit_test(test_what_never_ends_is_noticed),
        cmocka_unit_test(test_a_broken_configuration_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
