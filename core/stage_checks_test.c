/*
 * Tests of what a stage tells its owner beside calls: the ends of clients, whose call it is, active
 * checks, and how much of the log it keeps.
 */
#include "stage_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char CONFIG[] =
    "return {\n"
    "  providers = {\n"
    "    up = { url = 'http://127.0.0.1:1/v1', health = { active = { path = '/v1/models',\n"
    "      interval = '10s', timeout = '1s', unhealthy_after = 3, healthy_after = 2 } } },\n"
    "    other = { url = 'http://127.0.0.1:1/v1' },\n"
    "  },\n"
    "  routes = { { policy = 'own', targets = { { provider = 'up' }, { provider = 'other' } } } "
    "},\n"
    "}\n";

static const char POLICY[] = "return function(req, route)\n"
                             "  req:log(req.model)\n"
                             "  if req.model == 'none' then return req:fail(400, 'no', 'no') end\n"
                             "  return req:relay(req:send(route.targets[1]))\n"
                             "end\n";

struct scene {
    struct pl_stage *stage;
    size_t check_count;
    int check_status; /* what checks find */
    uint64_t last_check_us, shortest_us, longest_us;
    uint64_t callers[8];
    size_t call_count;
    uint64_t ended[8];
    enum pl_stage_end ends[8];
    size_t end_count;
};

static struct pl_stage_answer *on_call(struct pl_stage_call *call, void *arg)
{
    struct scene *self = arg;
    self->callers[self->call_count++] = call->client_number;
    struct pl_stage_answer *answer = pl_stage_answer_new();
    answer->head_after_us = 1000;
    return answer;
}

static void on_client_end(const struct pl_stage_client *client, void *arg)
{
    struct scene *self = arg;
    self->ends[self->end_count] = client->end;
    self->ended[self->end_count++] = client->number;
}

static int on_check(const struct pl_provider *provider, uint64_t at_us, void *arg)
{
    struct scene *self = arg;
    assert_string_equal(provider->name, "up");
    if (self->check_count++ > 0) {
        uint64_t gap_us = at_us - self->last_check_us;
        self->shortest_us = PL_MIN(self->shortest_us, gap_us);
        self->longest_us = PL_MAX(self->longest_us, gap_us);
    }
    self->last_check_us = at_us;
    return self->check_status;
}

static void open_scene(struct scene *self, bool with_checks, size_t log_line_max)
{
    const struct pl_config_file files[] = {
        {.name = (char *)"gateway.lua", .data = (char *)CONFIG, .len = strlen(CONFIG)},
        {.name = (char *)"own.lua", .data = (char *)POLICY, .len = strlen(POLICY)}};
    const struct pl_config_source source = {.files = files, .file_count = 2, .offline = true};
    const struct pl_stage_ops ops = {.on_call = on_call,
                                     .on_client_end = on_client_end,
                                     .on_check = with_checks ? on_check : NULL};
    const struct pl_stage_options options = {.source = &source,
                                             .seed = 1,
                                             .start_wall_ms = 1767614400000u,
                                             .log_line_max = log_line_max,
                                             .ops = &ops,
                                             .arg = self};
    char *problems;
    *self = (struct scene){.check_status = 200, .shortest_us = UINT64_MAX};
    self->stage = pl_stage_new(&options, &problems);
    if (!self->stage)
        fail_msg("%s", problems);
}

static struct pl_stage_client *start(struct scene *self, const char *body)
{
    const struct pl_stage_request request = {.method = PL_STR("POST"),
                                             .target = PL_STR("/v1/chat/completions"),
                                             .body = pl_str_of(body),
                                             .peer = PL_STR("127.0.0.1")};
    return pl_stage_start(self->stage, &request);
}

static void the_ends_of_clients_are_told_also_of_those_that_nobody_keeps(void **state)
{
    (void)state;
    struct scene scene;
    open_scene(&scene, false, 0);
    pl_stage_client_free(start(&scene, "{\"model\":\"none\"}")); /* answered at once */
    assert_int_equal(scene.end_count, 1);
    pl_stage_client_free(start(&scene, "{\"model\":\"a\"}"));
    struct pl_stage_client *leaving = start(&scene, "{\"model\":\"b\"}");
    pl_stage_leave(leaving);
    pl_stage_client_free(leaving);
    struct pl_stage_client *open = start(&scene, "{\"model\":\"c\"}");
    assert_int_equal(pl_stage_run(scene.stage, UINT64_MAX, NULL), PL_STAGE_IDLE);
    const uint64_t ended[] = {1, 3, 2, 4};
    const enum pl_stage_end ends[] = {PL_STAGE_COMPLETE, PL_STAGE_LEFT, PL_STAGE_COMPLETE,
                                      PL_STAGE_COMPLETE};
    assert_int_equal(scene.end_count, 4);
    assert_memory_equal(scene.ended, ended, sizeof(ended));
    assert_memory_equal(scene.ends, ends, sizeof(ends));
    const uint64_t callers[] = {2, 4}; /* the third had left before its call was heard of */
    assert_int_equal(scene.call_count, 2);
    assert_memory_equal(scene.callers, callers, sizeof(callers));
    pl_stage_client_free(open);
    pl_stage_free(scene.stage);
}

static void run_until_checked(struct scene *self, size_t count)
{
    while (self->check_count < count)
        assert_int_equal(pl_stage_run(self->stage, pl_stage_now_us(self->stage) + 1000000, NULL),
                         PL_STAGE_AT_TIME);
}

static void checks_come_at_their_interval_and_take_the_provider_out_and_back(void **state)
{
    (void)state;
    struct scene scene;
    struct pl_health_view view;
    open_scene(&scene, true, 0);
    pl_health_slot slot = pl_stage_topology(scene.stage)->providers[1].slot;
    if (strcmp(pl_stage_topology(scene.stage)->providers[0].name, "up") == 0)
        slot = pl_stage_topology(scene.stage)->providers[0].slot;
    scene.check_status = 503;
    run_until_checked(&scene, 2);
    pl_stage_look(scene.stage, slot, &view);
    assert_false(view.check_failed);
    run_until_checked(&scene, 3);
    pl_stage_look(scene.stage, slot, &view);
    assert_true(view.check_failed);
    assert_int_equal(view.ejection_total, 1);
    scene.check_status = 200;
    run_until_checked(&scene, 100);
    pl_stage_look(scene.stage, slot, &view);
    assert_false(view.check_failed);
    /* jittered, and never far from ten seconds */
    assert_true(scene.shortest_us >= 5000000 && scene.shortest_us < 10000000);
    assert_true(scene.longest_us <= 15000000 && scene.longest_us > 10000000);
    pl_stage_free(scene.stage);
}

static void no_checks_are_played_where_nobody_says_what_they_find(void **state)
{
    (void)state;
    struct scene scene;
    open_scene(&scene, false, 0);
    assert_int_equal(pl_stage_run(scene.stage, UINT64_MAX, NULL), PL_STAGE_IDLE);
    assert_int_equal(scene.check_count, 0);
    pl_stage_free(scene.stage);
}

static void no_more_of_the_log_is_kept_than_asked(void **state)
{
    (void)state;
    struct scene scene;
    size_t counts[2];
    const size_t limits[] = {0, 3};
    for (size_t i = 0; i < PL_COUNT(limits); i++) {
        open_scene(&scene, false, limits[i]);
        for (int request = 0; request < 5; request++)
            pl_stage_client_free(start(&scene, "{\"model\":\"none\"}"));
        const char *const *lines = pl_stage_log(scene.stage, &counts[i]);
        assert_non_null(strstr(lines[0], "none"));
        pl_stage_free(scene.stage);
    }
    assert_true(counts[0] >= 5);
    assert_int_equal(counts[1], 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ends_of_clients_are_told_also_of_those_that_nobody_keeps),
        cmocka_unit_test(checks_come_at_their_interval_and_take_the_provider_out_and_back),
        cmocka_unit_test(no_checks_are_played_where_nobody_says_what_they_find),
        cmocka_unit_test(no_more_of_the_log_is_kept_than_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
