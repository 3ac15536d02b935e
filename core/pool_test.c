/*
 * Pool: which idle connection is taken, and when one is dropped.
 */
#include "attempt_test.h"

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define NET(net, scripts)                                                                          \
    struct net net;                                                                                \
    net_init(&(net), scripts, PL_COUNT(scripts), NULL, NULL)

static const struct step ANSWER_ONCE[] = {
    {OP_REQUEST, NULL, 0}, {OP_SEND, ANSWER, 0}, {OP_END, NULL, 0}};
static const struct step ANSWER_THEN_CLOSE[] = {
    {OP_REQUEST, NULL, 0}, {OP_SEND, ANSWER, 0}, {OP_GATE, NULL, 0}, {OP_CLOSE, NULL, 0}};
static const struct step ANSWER_THEN_SPEAK[] = {{OP_REQUEST, NULL, 0},
                                                {OP_SEND, ANSWER, 0},
                                                {OP_GATE, NULL, 0},
                                                {OP_SEND, ANSWER, 0},
                                                {OP_END, NULL, 0}};

/** Makes `count` idle connections at once, with tags 1, 2, ... in the order of their end. */
static void fill(struct net *net, size_t count)
{
    struct record records[MAX_PEERS];
    memset(records, 0, sizeof(records));
    for (size_t i = 0; i < count; i++) {
        struct pl_attempt_request request = GET;
        request.credential_tag = i + 1;
        record_start(&records[i], net, &request, &PATIENT);
        run_until_count(net->base, &records[i].done, 1);
        assert_int_equal(records[i].failure, PL_FAIL_NONE);
    }
}

static void test_take_by_tag(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_ONCE, ANSWER_ONCE, ANSWER_ONCE};
    NET(net, scripts);
    fill(&net, 3);
    assert_int_equal(net.pool->idle_count, 3);
    assert_null(pl_pool_take(net.pool, 4));
    struct pl_connection *second = pl_pool_take(net.pool, 2);
    assert_int_equal(second->credential_tag, 2);
    assert_true(second->reused);
    assert_null(pl_pool_take(net.pool, 2));
    assert_int_equal(net.pool->idle_count, 2);
    pl_connection_close(second);
    net_deinit(&net);
}

static void test_newest_first(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_ONCE, ANSWER_ONCE};
    NET(net, scripts);
    fill(&net, 2);
    struct pl_connection *one = pl_pool_take(net.pool, 1), *two = pl_pool_take(net.pool, 2);
    two->credential_tag = 1;
    pl_pool_give(net.pool, two);
    pl_pool_give(net.pool, one);
    assert_ptr_equal(pl_pool_take(net.pool, 1), one);
    assert_ptr_equal(pl_pool_take(net.pool, 1), two);
    pl_connection_close(one);
    pl_connection_close(two);
    net_deinit(&net);
}

static void run_dropped(const struct step *script)
{
    const struct step *const scripts[] = {script};
    NET(net, scripts);
    fill(&net, 1);
    assert_int_equal(net.pool->idle_count, 1);
    upstream_open_gate(&net.upstream);
    for (int turns = 0; net.pool->idle_count > 0; turns++) {
        assert_true(turns < 100);
        event_base_loop(net.base, EVLOOP_ONCE);
    }
    assert_null(pl_pool_take(net.pool, 1));
    net_deinit(&net);
}

static void test_dropped_when_peer_closes_or_speaks(void **state)
{
    (void)state;
    run_dropped(ANSWER_THEN_CLOSE);
    run_dropped(ANSWER_THEN_SPEAK);
}

/** What has arrived counts although the loop has not told of it: an answer to no question must not
 *  be taken for the answer to the next one. */
static void run_taken_too_late(const struct step *script)
{
    const struct step *const scripts[] = {script};
    NET(net, scripts);
    fill(&net, 1);
    upstream_open_gate(&net.upstream);
    assert_int_equal(net.pool->idle_count, 1);
    assert_null(pl_pool_take(net.pool, 1));
    assert_int_equal(net.pool->idle_count, 0);
    net_deinit(&net);
}

static void test_stale_before_the_loop_knows(void **state)
{
    (void)state;
    run_taken_too_late(ANSWER_THEN_CLOSE);
    run_taken_too_late(ANSWER_THEN_SPEAK);
}

static void test_oldest_makes_room(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_ONCE, ANSWER_ONCE, ANSWER_ONCE};
    NET(net, scripts);
    net.endpoint.max_idle = 2;
    fill(&net, 3);
    assert_int_equal(net.pool->idle_count, 2);
    assert_null(pl_pool_take(net.pool, 1));
    run_until_count(net.base, &net.upstream.ended_count, 1);
    net_deinit(&net);
}

static void test_nothing_kept(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_ONCE};
    NET(net, scripts);
    net.endpoint.max_idle = 0;
    fill(&net, 1);
    assert_int_equal(net.pool->idle_count, 0);
    net_deinit(&net);
}

static void test_sweep(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_ONCE, ANSWER_ONCE, ANSWER_ONCE};
    NET(net, scripts);
    net.endpoint.idle_ms = 30;
    fill(&net, 2);
    run_until_count(net.base, &net.upstream.ended_count, 2);
    assert_int_equal(net.pool->idle_count, 0);
    struct record record = {0};
    record_run(&record, &net, &PATIENT); /* and the sweep starts again */
    run_until_count(net.base, &net.upstream.ended_count, 3);
    assert_int_equal(net.pool->idle_count, 0);
    net_deinit(&net);
}

/** The younger one stays when the older one has to go. */
static void test_sweep_takes_the_old_only(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_ONCE, ANSWER_ONCE};
    NET(net, scripts);
    net.endpoint.idle_ms = 2000;
    fill(&net, 2);
    net.pool->idle->next->idle_since_ms -= 2000;
    event_active(net.pool->sweep_timer, EV_TIMEOUT, 0);
    run_until_count(net.base, &net.upstream.ended_count, 1);
    assert_int_equal(net.pool->idle_count, 1);
    assert_int_equal(net.pool->idle->credential_tag, 2);
    assert_true(event_pending(net.pool->sweep_timer, EV_TIMEOUT, NULL));
    net_deinit(&net);
}

static void test_free_nothing(void **state)
{
    (void)state;
    pl_pool_free(NULL);
}

/* ---- moving ---- */

static void test_move_idle(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_ONCE, ANSWER_ONCE, ANSWER_ONCE};
    NET(net, scripts);
    fill(&net, 3);
    struct pl_endpoint endpoint = *net.pool->endpoint;
    endpoint.max_idle = 2;
    struct pl_pool *other = pl_pool_new(net.base, net.pool->resolver, &endpoint);
    assert_true(pl_pool_is_quiet(other));
    net.pool->idle->idle_since_ms = 5;
    pl_pool_move_idle(other, net.pool);
    assert_int_equal(net.pool->idle_count, 0);
    assert_int_equal(other->idle_count, 2); /* the oldest had no room */
    assert_null(pl_pool_take(other, 1));
    struct pl_connection *newest = pl_pool_take(other, 3);
    assert_ptr_equal(newest->pool, other);
    assert_int_equal(newest->idle_since_ms, 5);
    assert_true(newest->reused);
    pl_pool_give(other, newest);
    pl_pool_move_idle(other, net.pool); /* nothing to move */
    assert_int_equal(other->idle_count, 2);
    pl_pool_free(other);
    net_deinit(&net);
}

static void test_endpoints_that_are_equal(void **state)
{
    (void)state;
    struct pl_endpoint one = {.host = "a", .port = 1, .server_name = "a"}, same = one;
    assert_true(pl_endpoint_equal(&one, &same));
    same.host = (char[]){"a"};
    same.server_name = "b"; /* no matter without TLS */
    same.max_idle = 9;
    assert_true(pl_endpoint_equal(&one, &same));
    same.port = 2;
    assert_false(pl_endpoint_equal(&one, &same));
    same = one;
    same.trust = "verified";
    assert_false(pl_endpoint_equal(&one, &same));
    same = one;
    same.host = "b";
    assert_false(pl_endpoint_equal(&one, &same));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_move_idle),
        cmocka_unit_test(test_endpoints_that_are_equal),
        cmocka_unit_test(test_take_by_tag),
        cmocka_unit_test(test_newest_first),
        cmocka_unit_test(test_dropped_when_peer_closes_or_speaks),
        cmocka_unit_test(test_stale_before_the_loop_knows),
        cmocka_unit_test(test_oldest_makes_room),
        cmocka_unit_test(test_nothing_kept),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_sweep_takes_the_old_only),
        cmocka_unit_test(test_free_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
