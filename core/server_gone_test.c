/*
 * Tests of server.c: connections that end early, whoever ends them. The owner hears of a client's
 * leaving exactly once, and no answer that is cut short can be taken for a whole one.
 */
#include "server_test.h"

#define GET       "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define OLD_GET   "GET / HTTP/1.0\r\n\r\n"
#define LARGE     (8u << 20)
#define KEPT_OPEN "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static char large[LARGE];

static void answer_ok(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, "ok", 2);
    served->exchange = NULL;
}

/* ---- the client leaves ---- */

static void leave_alone(struct served *served)
{
    (void)served;
}

static void start_chunked(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, -1);
}

static void start_and_write(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, -1);
    assert_true(pl_exchange_write(served->exchange, "one", 3));
}

static void start_and_write_large(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, LARGE);
    assert_false(pl_exchange_write(served->exchange, large, LARGE));
}

static void reply_large(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, large, LARGE);
    served->exchange = NULL;
}

static void reply_large_and_close(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, -1); /* HTTP/1.0: until the close */
    assert_false(pl_exchange_write(served->exchange, large, LARGE));
    pl_exchange_end(served->exchange);
    served->exchange = NULL;
}

static void abort_large(struct served *served)
{
    start_and_write_large(served);
    pl_exchange_abort(served->exchange, false);
    served->exchange = NULL;
}

struct phase {
    void (*answer)(struct served *served);
    const char *request;
    bool deaf;         /* the client reads nothing */
    size_t gone_count; /* how often the owner is to hear of it */
};

static const struct phase PHASES[] = {
    {leave_alone, GET, false, 1},
    {leave_alone, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", false, 1},
    {leave_alone,
     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false,
     1},
    {leave_alone, GET "surplus", false, 1},
    {start_chunked, GET, false, 1},
    {start_chunked, OLD_GET, false, 1},
    {start_and_write, GET, false, 1},
    {start_and_write_large, GET, true, 1},
    {answer_ok, GET, false, 0},
    {answer_ok, OLD_GET, false, 0},
    {reply_large, GET, true, 0},
    {reply_large_and_close, OLD_GET, true, 0},
    {abort_large, GET, true, 0},
};

enum leaving { BY_CLOSE, BY_RESET, BY_HALF_CLOSE, BY_SERVER_FREE, LEAVING_COUNT };

static void leave(struct client *client, enum leaving how)
{
    switch (how) {
    case BY_CLOSE:
        client_close(client);
        break;
    case BY_RESET:
        client_break(client);
        break;
    case BY_HALF_CLOSE: /* counts as leaving: nobody who waits for an answer does that */
        shutdown(client->fd, SHUT_WR);
        break;
    default:
        break;
    }
}

static void run_leaving(const struct phase *phase, enum leaving how)
{
    struct net net;
    struct client client;
    net_init(&net, phase->answer);
    client_open_with(&client, &net, phase->deaf ? 65536 : 0);
    if (phase->deaf) {
        client_deafen(&client);
    }
    client_send(&client, phase->request);
    RUN_UNTIL(&net, net.served_count == 1);
    run_for_ms(&net, 2);
    leave(&client, how);
    if (how != BY_SERVER_FREE) {
        await_no_connections(&net);
        assert_int_equal(net.served[0].gone_count, phase->gone_count);
        assert_null(net.served[0].exchange);
    }
    net_free_server(&net);
    assert_int_equal(net.served[0].gone_count, phase->gone_count);
    assert_int_equal(net.served_count, 1);
    client_close(&client);
    net_deinit(&net);
}

static void test_client_leaves_in_each_phase(void **state)
{
    (void)state;
    for (size_t i = 0; i < PL_COUNT(PHASES); i++) {
        for (int how = 0; how < LEAVING_COUNT; how++) {
            run_leaving(&PHASES[i], (enum leaving)how);
        }
    }
}

/** Before the request is whole there is nobody to tell. */
static void test_client_leaves_within_a_request(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "",
        "GE",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    };
    for (size_t i = 0; i < PL_COUNT(parts); i++) {
        for (int how = 0; how < LEAVING_COUNT; how++) {
            struct net net;
            struct client client;
            net_init(&net, answer_ok);
            client_open(&client, &net);
            client_send(&client, parts[i]);
            RUN_UNTIL(&net, pl_server_connection_count(net.server) == 1);
            run_for_ms(&net, 2);
            leave(&client, (enum leaving)how);
            if (how != BY_SERVER_FREE) {
                await_no_connections(&net);
            }
            net_free_server(&net);
            assert_int_equal(net.served_count, 0);
            client_close(&client);
            net_deinit(&net);
        }
    }
}

/** It is noticed although nothing is written, and at once: no time passes by the own clock. */
static void test_leaving_is_noticed_at_once(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    client_close(&client);
    RUN_UNTIL(&net, net.served[0].gone_count == 1);
    net_deinit(&net);
}

/* ---- what the owner does when told ---- */

static struct served *victim;

static void abort_victim(struct served *served)
{
    (void)served;
    pl_exchange_abort(victim->exchange, true);
    victim->exchange = NULL;
}

static void answer_victim(struct served *served)
{
    (void)served;
    answer_ok(victim);
}

static void write_to_victim(struct served *served)
{
    (void)served;
    pl_exchange_start(victim->exchange, 200, NULL, -1);
    (void)pl_exchange_write(victim->exchange, large, LARGE);
}

/** One client's leaving makes the owner do something to another's exchange. */
static void run_told(void (*at_gone)(struct served *))
{
    struct net net;
    struct client one, two;
    net_init(&net, NULL);
    client_open(&one, &net);
    client_send(&one, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    client_open(&two, &net);
    client_send(&two, GET);
    RUN_UNTIL(&net, net.served_count == 2);
    net.served[0].at_gone = at_gone;
    victim = &net.served[1];
    client_close(&one);
    RUN_UNTIL(&net, net.served[0].gone_count == 1);
    client_close(&two);
    await_no_connections(&net);
    assert_int_equal(net.served[0].gone_count, 1);
    net_deinit(&net);
}

static void test_owner_touches_another_exchange(void **state)
{
    (void)state;
    run_told(abort_victim);
    run_told(answer_victim);
    run_told(write_to_victim);
}

/* ---- aborting ---- */

static struct {
    int64_t length_bytes;
    bool start, write, at_once;
    bool wait; /* and abort from a later turn */
} plan;

static void abort_now(struct served *served)
{
    pl_exchange_abort(served->exchange, plan.at_once);
    served->exchange = NULL;
}

static void answer_by_plan(struct served *served)
{
    if (plan.start) {
        pl_exchange_start(served->exchange, 200, NULL, plan.length_bytes);
    }
    if (plan.write) {
        (void)pl_exchange_write(served->exchange, "one", 3);
    }
    if (!plan.wait) {
        abort_now(served);
    }
}

/** Runs the plan with a request; `expected` is what comes before the end. */
static void assert_aborted(const char *request, const char *expected, bool reset)
{
    for (int wait = 0; wait <= 1; wait++) {
        struct net net;
        struct client client;
        plan.wait = wait;
        net_init(&net, answer_by_plan);
        client_open(&client, &net);
        client_send(&client, request);
        RUN_UNTIL(&net, net.served_count == 1);
        if (plan.wait) {
            run_for_ms(&net, 2);
            abort_now(&net.served[0]);
        }
        client_await_end(&client);
        assert_int_equal(client.reset, reset);
        if (!reset) { /* a reset may overtake what was written */
            assert_received(&client, expected);
        }
        await_no_connections(&net);
        assert_int_equal(net.served[0].gone_count, 0);
        client_close(&client);
        net_deinit(&net);
    }
}

static void test_abort_of_a_chunked_answer(void **state)
{
    (void)state;
    plan.start = plan.write = true;
    plan.length_bytes = -1;
    plan.at_once = false;
    assert_aborted(GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n", false);
    plan.write = false;
    assert_aborted(GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false);
}

static void test_abort_of_an_answer_with_length(void **state)
{
    (void)state;
    plan.start = plan.write = true;
    plan.length_bytes = 4;
    plan.at_once = false;
    assert_aborted(GET, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\none", false);
    assert_aborted("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                   "HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\none",
                   false);
}

/** Where a close would mean the end, only a reset can mean the opposite. */
static void test_abort_of_an_answer_until_close(void **state)
{
    (void)state;
    plan.start = plan.write = true;
    plan.length_bytes = -1;
    plan.at_once = false;
    assert_aborted(OLD_GET, NULL, true);
}

static void test_abort_before_the_answer(void **state)
{
    (void)state;
    plan.start = plan.write = plan.at_once = false;
    assert_aborted(GET, NULL, true);
    assert_aborted(OLD_GET, NULL, true);
}

static void test_abort_at_once(void **state)
{
    (void)state;
    plan.at_once = true;
    for (int i = 0; i < 3; i++) {
        plan.start = i > 0;
        plan.write = i > 1;
        plan.length_bytes = -1;
        assert_aborted(GET, NULL, true);
        assert_aborted(OLD_GET, NULL, true);
        plan.length_bytes = 10;
        assert_aborted(GET, NULL, true);
    }
}

/** What waits for a slow client is flushed, then the connection breaks without the last chunk. */
static void test_abort_flushes_to_a_slow_client(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, start_chunked);
    client_open_with(&client, &net, 65536);
    client_deafen(&client);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    assert_false(pl_exchange_write(net.served[0].exchange, large, LARGE));
    pl_exchange_abort(net.served[0].exchange, false);
    run_for_ms(&net, 5);
    client_listen(&client);
    client_await_end(&client);
    assert_false(client.reset);
    static const char CHUNK_HEAD[] = "\r\n\r\n800000\r\n";
    char *body = strstr(client.text, CHUNK_HEAD);
    assert_non_null(body);
    body += sizeof(CHUNK_HEAD) - 1;
    assert_int_equal(client.len - (size_t)(body - client.text), LARGE + 2);
    await_no_connections(&net);
    client_close(&client);
    net_deinit(&net);
}

/** The same with a reset: the client gets less than all, and an error. */
static void test_abort_at_once_drops_what_waits(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, start_and_write_large);
    client_open_with(&client, &net, 65536);
    client_deafen(&client);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    pl_exchange_abort(net.served[0].exchange, true);
    await_no_connections(&net);
    client_listen(&client);
    client_await_end(&client);
    assert_true(client.reset);
    assert_true(client.len < LARGE);
    client_close(&client);
    net_deinit(&net);
}

/* ---- from inside on_writable ---- */

static void end_now(struct served *served)
{
    pl_exchange_end(served->exchange);
    served->exchange = NULL;
}

static void write_more(struct served *served)
{
    (void)pl_exchange_write(served->exchange, "more", 4);
}

static void abort_flushed(struct served *served)
{
    pl_exchange_abort(served->exchange, false);
    served->exchange = NULL;
}

static void abort_at_once(struct served *served)
{
    pl_exchange_abort(served->exchange, true);
    served->exchange = NULL;
}

static void run_writable(void (*at_writable)(struct served *), const char *request)
{
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open_with(&client, &net, 65536);
    client_send(&client, request);
    RUN_UNTIL(&net, net.served_count == 1);
    net.served[0].at_writable = at_writable;
    pl_exchange_start(net.served[0].exchange, 200, NULL, -1);
    assert_false(pl_exchange_write(net.served[0].exchange, large, LARGE));
    RUN_UNTIL(&net, net.served[0].writable_count > 0);
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

static void test_anything_may_be_done_when_writable(void **state)
{
    (void)state;
    static void (*const acts[])(struct served *) = {leave_alone, end_now, write_more, abort_flushed,
                                                    abort_at_once};
    for (size_t i = 0; i < PL_COUNT(acts); i++) {
        run_writable(acts[i], GET);
        run_writable(acts[i], OLD_GET);
    }
}

/* ---- freeing ---- */

static void test_free_with_everything_going_on(void **state)
{
    (void)state;
    struct net net;
    struct client clients[PL_COUNT(PHASES) + 2];
    net_init(&net, NULL);
    for (size_t i = 0; i < PL_COUNT(PHASES); i++) {
        net.answer = PHASES[i].answer;
        client_open_with(&clients[i], &net, PHASES[i].deaf ? 65536 : 0);
        if (PHASES[i].deaf) {
            client_deafen(&clients[i]);
        }
        client_send(&clients[i], PHASES[i].request);
        RUN_UNTIL(&net, net.served_count == i + 1);
    }
    client_open(&clients[PL_COUNT(PHASES)], &net);
    client_send(&clients[PL_COUNT(PHASES)], " GET / HTTP/1.1\r\n");
    client_await(&clients[PL_COUNT(PHASES)], "400 Bad Request");
    client_open(&clients[PL_COUNT(PHASES) + 1], &net); /* not accepted yet */
    net_free_server(&net);
    for (size_t i = 0; i < PL_COUNT(PHASES); i++) {
        assert_int_equal(net.served[i].gone_count, PHASES[i].gone_count);
    }
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        client_close(&clients[i]);
    }
    net_deinit(&net);
}

static void test_free_unused(void **state)
{
    (void)state;
    struct net net;
    net_init(&net, NULL);
    net_deinit(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_leaves_in_each_phase),
        cmocka_unit_test(test_client_leaves_within_a_request),
        TEST_BY_OWN_CLOCK(test_leaving_is_noticed_at_once),
        cmocka_unit_test(test_owner_touches_another_exchange),
        cmocka_unit_test(test_abort_of_a_chunked_answer),
        cmocka_unit_test(test_abort_of_an_answer_with_length),
        cmocka_unit_test(test_abort_of_an_answer_until_close),
        cmocka_unit_test(test_abort_before_the_answer),
        cmocka_unit_test(test_abort_at_once),
        cmocka_unit_test(test_abort_flushes_to_a_slow_client),
        cmocka_unit_test(test_abort_at_once_drops_what_waits),
        cmocka_unit_test(test_anything_may_be_done_when_writable),
        cmocka_unit_test(test_free_with_everything_going_on),
        cmocka_unit_test(test_free_unused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
