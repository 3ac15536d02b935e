/*
 * Tests of server.c: requests as their owner sees them, and answers as clients get them.
 */
#include "server_test.h"

#define GET       "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define OLD_GET   "GET / HTTP/1.0\r\n\r\n"
#define LARGE     (8u << 20)
#define KEPT_OPEN "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

/* ---- answers ---- */

static void answer_ok(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, "ok", 2);
    served->exchange = NULL;
}

static void answer_in_parts(struct served *served, int64_t length_bytes)
{
    pl_exchange_start(served->exchange, 200, NULL, length_bytes);
    assert_true(pl_exchange_write(served->exchange, "one", 3));
    assert_true(pl_exchange_write(served->exchange, "", 0));
    assert_true(pl_exchange_write(served->exchange, "seventeen letters", 17));
    pl_exchange_end(served->exchange);
    served->exchange = NULL;
}

static void answer_chunked(struct served *served)
{
    answer_in_parts(served, -1);
}

static void answer_with_length(struct served *served)
{
    answer_in_parts(served, 20);
}

static void answer_nothing_chunked(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, -1);
    pl_exchange_end(served->exchange);
    served->exchange = NULL;
}

/** One request on a connection of its own. */
static void assert_answer(void (*answer)(struct served *), const char *request,
                          const char *expected, bool ends)
{
    struct net net;
    struct client client;
    net_init(&net, answer);
    client_open(&client, &net);
    client_send(&client, request);
    client_expect(&client, expected);
    if (ends) {
        client_await_end(&client);
        assert_false(client.reset);
        assert_int_equal(client.len, 0);
    } else { /* and another one follows */
        client_send(&client, request);
        client_expect(&client, expected);
        assert_false(client.ended);
    }
    client_close(&client);
    await_no_connections(&net);
    assert_int_equal(net.served[0].gone_count, 0);
    net_deinit(&net);
}

static void test_reply(void **state)
{
    (void)state;
    assert_answer(answer_ok, GET, KEPT_OPEN, false);
    assert_answer(answer_ok, "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
                  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", true);
}

static void test_reply_to_an_old_client(void **state)
{
    (void)state;
    assert_answer(answer_ok, OLD_GET,
                  "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", true);
    assert_answer(answer_ok, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                  "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
                  false);
}

static void reply_with_headers(struct served *served)
{
    struct pl_headers headers;
    pl_headers_init(&headers);
    assert_int_equal(pl_headers_add(&headers, PL_STR("X-A"), PL_STR("1")), PL_OK);
    assert_int_equal(pl_headers_add(&headers, PL_STR("X-A"), PL_STR("2")), PL_OK);
    pl_exchange_reply(served->exchange, 503, &headers, NULL, 0);
    pl_headers_deinit(&headers);
}

static void test_reply_with_headers(void **state)
{
    (void)state;
    assert_answer(reply_with_headers, GET,
                  "HTTP/1.1 503 Service Unavailable\r\nX-A: 1\r\nX-A: 2\r\n"
                  "Content-Length: 0\r\n\r\n",
                  false);
}

static void reply_204(struct served *served)
{
    pl_exchange_reply(served->exchange, 204, NULL, "never sent", 10);
}

static void start_304(struct served *served)
{
    pl_exchange_start(served->exchange, 304, NULL, -1);
    assert_true(pl_exchange_write(served->exchange, "never sent", 10));
    pl_exchange_end(served->exchange);
}

static void test_answers_without_a_body(void **state)
{
    (void)state;
    static const char head[] = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_answer(answer_ok, head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false);
    assert_answer(answer_with_length, head, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", false);
    assert_answer(answer_chunked, head, "HTTP/1.1 200 OK\r\n\r\n", false);
    assert_answer(reply_204, GET, "HTTP/1.1 204 No Content\r\n\r\n", false);
    assert_answer(start_304, GET, "HTTP/1.1 304 Not Modified\r\n\r\n", false);
}

static void test_streamed(void **state)
{
    (void)state;
    assert_answer(answer_chunked, GET,
                  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\none\r\n11\r\nseventeen letters\r\n0\r\n\r\n",
                  false);
    assert_answer(answer_with_length, GET,
                  "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\noneseventeen letters", false);
    assert_answer(answer_nothing_chunked, GET,
                  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false);
}

/** An old client knows no chunks: the end of the connection ends the answer. */
static void test_streamed_to_an_old_client(void **state)
{
    (void)state;
    assert_answer(answer_chunked, OLD_GET,
                  "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\noneseventeen letters", true);
    assert_answer(answer_chunked, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                  "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\noneseventeen letters", true);
    assert_answer(answer_with_length, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                  "HTTP/1.0 200 OK\r\nContent-Length: 20\r\nConnection: keep-alive\r\n\r\n"
                  "oneseventeen letters",
                  false);
}

/** However a client says what it wants of the connection: nobody may be hurt by it. */
static void test_unusual_connection_fields(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "GET / HTTP/1.0\r\nConnection: x, keep-alive\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: x\r\nConnection: keep-alive\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive-not\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n",
    };
    for (size_t i = 0; i < PL_COUNT(requests); i++) {
        struct net net;
        struct client client;
        net_init(&net, answer_ok);
        client_open(&client, &net);
        client_send(&client, requests[i]);
        client_await(&client, "\r\n\r\nok");
        client_close(&client);
        await_no_connections(&net);
        net_deinit(&net);
    }
}

/* ---- answers that come later ---- */

static void test_answer_from_outside(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    for (size_t i = 1; i <= 3; i++) {
        client_send(&client, GET);
        RUN_UNTIL(&net, net.served_count == i);
        run_for_ms(&net, 5);
        assert_int_equal(client.len, 0);
        answer_ok(last_served(&net));
        client_expect(&client, KEPT_OPEN);
    }
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** The head and each part are sent when they are made, not at the end. */
static void test_parts_are_sent_at_once(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    struct pl_exchange *exchange = net.served[0].exchange;
    pl_exchange_start(exchange, 200, NULL, -1);
    client_expect(&client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        assert_true(pl_exchange_write(exchange, "event", 5));
        client_expect(&client, "5\r\nevent\r\n");
    }
    /* several in one turn of the loop */
    for (int i = 0; i < 3; i++) {
        assert_true(pl_exchange_write(exchange, "e", 1));
    }
    client_expect(&client, "1\r\ne\r\n1\r\ne\r\n1\r\ne\r\n");
    pl_exchange_end(exchange);
    client_expect(&client, "0\r\n\r\n");
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** Many answers at once, each to its own client. */
static void test_many_clients(void **state)
{
    (void)state;
    struct net net;
    struct client clients[30];
    net_init(&net, NULL);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        char request[80];
        client_open(&clients[i], &net);
        snprintf(request, sizeof(request), "GET /%zu HTTP/1.1\r\nHost: a\r\n\r\n", i);
        client_send(&clients[i], request);
    }
    RUN_UNTIL(&net, net.served_count == PL_COUNT(clients));
    assert_int_equal(pl_server_connection_count(net.server), PL_COUNT(clients));
    assert_int_equal(pl_server_exchange_count(net.server), PL_COUNT(clients));
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        struct pl_str path = pl_exchange_path(net.served[i].exchange);
        pl_exchange_reply(net.served[i].exchange, 200, NULL, path.data, path.len);
    }
    assert_int_equal(pl_server_exchange_count(net.server), 0);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        char body[16];
        snprintf(body, sizeof(body), "\r\n\r\n/%zu", i);
        client_await(&clients[i], body);
        client_close(&clients[i]);
    }
    await_no_connections(&net);
    net_deinit(&net);
}

/** The record of an answered request serves the next one. */
static void test_exchanges_are_used_again(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    const struct pl_exchange *first = NULL;
    for (size_t i = 1; i <= 20; i++) {
        client_send(&client, GET);
        RUN_UNTIL(&net, net.served_count == i);
        struct served *served = last_served(&net);
        first = i == 1 ? served->exchange : first;
        assert_ptr_equal(served->exchange, first);
        assert_int_equal(pl_exchange_headers(served->exchange)->count, 1);
        (i % 2 == 0 ? answer_chunked : answer_with_length)(served);
        client_await(&client, i % 2 == 0 ? "0\r\n\r\n" : "letters");
        client_forget(&client);
    }
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/* ---- requests ---- */

static void assert_str(struct pl_str actual, const char *expected)
{
    assert_int_equal(actual.len, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.len);
}

static void test_request_as_the_owner_sees_it(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    client_send(&client, "PATCH /v1/a%2Fb?x=1&y=?2 HTTP/1.1\r\nHost: a.test:80\r\n"
                         "X-Tab:\t tabbed\t \r\nx-empty:\r\nX-Twice: 1\r\nx-twice: 2\r\n"
                         "Content-Length: 7\r\n\r\n{\"a\":1}");
    RUN_UNTIL(&net, net.served_count == 1);
    struct pl_exchange *exchange = net.served[0].exchange;
    assert_str(pl_exchange_method(exchange), "PATCH");
    assert_str(pl_exchange_path(exchange), "/v1/a%2Fb");
    assert_str(pl_exchange_query(exchange), "x=1&y=?2");
    assert_str(pl_exchange_peer(exchange), "127.0.0.1");
    assert_str(pl_exchange_body(exchange), "{\"a\":1}");
    const struct pl_headers *headers = pl_exchange_headers(exchange);
    static const char *const expected[][2] = {{"Host", "a.test:80"}, {"X-Tab", "tabbed"},
                                              {"x-empty", ""},       {"X-Twice", "1"},
                                              {"x-twice", "2"},      {"Content-Length", "7"}};
    assert_int_equal(headers->count, PL_COUNT(expected));
    for (size_t i = 0; i < PL_COUNT(expected); i++) {
        assert_str(pl_headers_name(headers, i), expected[i][0]);
        assert_str(pl_headers_value(headers, i), expected[i][1]);
    }
    pl_exchange_forget_request(exchange);
    assert_int_equal(pl_exchange_body(exchange).len, 0);
    answer_ok(&net.served[0]);
    client_expect(&client, KEPT_OPEN);
    client_close(&client);
    net_deinit(&net);
}

static void answer_method(struct served *served)
{
    struct pl_str method = pl_exchange_method(served->exchange);
    assert_str(pl_exchange_query(served->exchange), "");
    pl_exchange_reply(served->exchange, 200, NULL, method.data, method.len);
}

static void test_methods(void **state)
{
    (void)state;
    static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < PL_COUNT(methods); i++) {
        char request[80], expected[120];
        snprintf(request, sizeof(request), "%s / HTTP/1.1\r\nHost: a\r\n\r\n", methods[i]);
        snprintf(expected, sizeof(expected), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                 strlen(methods[i]), methods[i]);
        assert_answer(answer_method, request, expected, false);
    }
}

static void answer_body(struct served *served)
{
    struct pl_str body = pl_exchange_body(served->exchange);
    pl_exchange_reply(served->exchange, 200, NULL, body.data, body.len);
}

static void test_chunked_request(void **state)
{
    (void)state;
    assert_answer(answer_body,
                  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nabc\r\n005\r\ndefgh\r\n0\r\n\r\n",
                  "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh", false);
}

/** To each kind of request body each kind of answer, on one connection: nothing may be left over of
 *  one for the next. */
static void test_all_framings_in_turn(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        GET,
    };
    static void (*const answers[])(struct served *) = {answer_ok, answer_chunked,
                                                       answer_with_length, answer_nothing_chunked};
    static const char *const expected[] = {
        KEPT_OPEN,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\none\r\n11\r\nseventeen letters\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\noneseventeen letters",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"};
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    for (size_t i = 0; i < PL_COUNT(requests) * PL_COUNT(answers); i++) {
        net.answer = answers[i / PL_COUNT(requests)];
        client_send(&client, requests[i % PL_COUNT(requests)]);
        client_expect(&client, expected[i / PL_COUNT(requests)]);
    }
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** Byte by byte, so that every state meets the end of a read. */
static void test_slow_requests(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "1\r\nb\r\n3\r\nody\r\n0\r\n\r\n"};
    struct net net;
    struct client client;
    net_init(&net, answer_body);
    client_open(&client, &net);
    for (size_t i = 0; i < PL_COUNT(requests); i++) {
        for (const char *at = requests[i]; *at != '\0'; at++) {
            assert_int_equal(client.len, 0);
            assert_true(client_try_send(&client, at, 1));
            event_base_loop(net.base, EVLOOP_NONBLOCK);
        }
        client_expect(&client, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody");
    }
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** What the guard lets pass is handed on: evhttp's own answers are pages for people. */
static void test_any_path_and_field_reaches_the_owner(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "/%",     "/%zz",   "/:80", "/a:b@c/d", "/[::1]",       "/?", "/??",
        "/a//b/", "/..%2f", "/?//", "/;a=b,c",  "/?x=http://a", "/@", "/~!$&'()*+,;=",
    };
    struct net net;
    struct client client;
    char request[256];
    net_init(&net, answer_ok);
    client_open(&client, &net);
    for (size_t i = 0; i < PL_COUNT(paths); i++) {
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i]);
        client_send(&client, request);
        client_expect(&client, KEPT_OPEN);
        net.served_count = 0;
    }
    for (int byte = '!'; byte < 0x7f; byte++) {
        if (byte == '#') {
            continue;
        }
        snprintf(request, sizeof(request),
                 "GET /a%cb%c?%c HTTP/1.1\r\nHost: a\r\nX: %c a%c\r\n\r\n", byte, byte, byte, byte,
                 byte);
        client_send(&client, request);
        client_expect(&client, KEPT_OPEN);
        net.served_count = 0;
    }
    for (int byte = 0x80; byte <= 0xff; byte++) {
        snprintf(request, sizeof(request), "GET / HTTP/1.1\r\nHost: a\r\nX:%c\r\nY: a\t%c\r\n\r\n",
                 byte, byte);
        client_send(&client, request);
        client_expect(&client, KEPT_OPEN);
        net.served_count = 0;
    }
    client_send(&client, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect(&client, KEPT_OPEN);
    client_close(&client);
    net_deinit(&net);
}

static char *make_large(size_t len)
{
    char *large = pl_xmalloc(len);
    for (size_t i = 0; i < len; i++) {
        large[i] = (char)('a' + i % 23);
    }
    return large;
}

static void answer_large_body_length(struct served *served)
{
    char text[32];
    struct pl_str body = pl_exchange_body(served->exchange);
    assert_int_equal(body.data[LARGE - 1], 'a' + (LARGE - 1) % 23);
    int len = snprintf(text, sizeof(text), "%zu", body.len);
    pl_exchange_reply(served->exchange, 200, NULL, text, (size_t)len);
}

static void test_large_request_bodies(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    char head[128];
    char *large = make_large(LARGE);
    net_init(&net, answer_large_body_length);
    client_open(&client, &net);
    for (int i = 0; i < 2; i++) {
        snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %u\r\n\r\n",
                 LARGE);
        client_send(&client, head);
        assert_true(client_try_send(&client, large, LARGE));
        client_expect(&client, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n8388608");
    }
    snprintf(head, sizeof(head),
             "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", LARGE);
    client_send(&client, head);
    assert_true(client_try_send(&client, large, LARGE));
    client_send(&client, "\r\n0\r\n\r\n");
    client_expect(&client, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n8388608");
    free(large);
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

static void test_expect_continue(void **state)
{
    (void)state;
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                               "Expect: 100-continue\r\n\r\n";
    struct net net;
    struct client client;
    net_init(&net, answer_body);
    client_open(&client, &net);
    for (int i = 0; i < 3; i++) {
        client_send(&client, head);
        client_expect(&client, "HTTP/1.1 100 Continue\r\n\r\n");
        client_send(&client, "body");
        client_expect(&client, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody");
    }
    /* it did not wait */
    client_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                         "Expect: 100-continue\r\n\r\nbody");
    client_await(&client, "\r\n\r\nbody");
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** Bytes that come before the answer is out are not taken for a request; the answer is whole. */
static void test_pipelined_requests_are_dropped(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, answer_ok);
    client_open(&client, &net);
    client_send(&client, GET GET GET);
    client_await_end(&client);
    assert_received(&client, KEPT_OPEN);
    client_close(&client);

    net.answer = NULL;
    client_open(&client, &net);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 2);
    client_send(&client, GET);
    run_for_ms(&net, 5);
    answer_chunked(last_served(&net));
    client_await_end(&client);
    assert_received(&client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "3\r\none\r\n11\r\nseventeen letters\r\n0\r\n\r\n");
    client_close(&client);
    await_no_connections(&net);
    assert_int_equal(net.served_count, 2);
    net_deinit(&net);
}

/** A client that floods us while its answer is being made fills a bounded buffer. */
static void test_flood_while_waiting(void **state)
{
    (void)state;
    static char flood[1 << 16];
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    size_t sent_bytes = 0;
    for (int quiet = 0; quiet < 20;) {
        ssize_t put = send(client.fd, flood, sizeof(flood), MSG_NOSIGNAL);
        quiet = put > 0 ? 0 : quiet + 1;
        sent_bytes += put > 0 ? (size_t)put : 0;
        event_base_loop(net.base, EVLOOP_NONBLOCK);
        assert_true(sent_bytes < 64u << 20);
    }
    answer_ok(&net.served[0]);
    client_await_end(&client);
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/* ---- backpressure ---- */

static char *large_text;

struct pump {
    size_t written_bytes;
    bool ready; /* the last write said so */
};

static struct pump pump;

static void pump_on(struct served *served)
{
    pump.ready = true;
    while (pump.ready && pump.written_bytes < LARGE) {
        size_t len = PL_MIN(LARGE - pump.written_bytes, 10000u);
        pump.ready = pl_exchange_write(served->exchange, large_text + pump.written_bytes, len);
        pump.written_bytes += len;
    }
}

static void pump_start(struct served *served)
{
    pump = (struct pump){0};
    served->at_writable = pump_on;
    pl_exchange_start(served->exchange, 200, NULL, LARGE);
    pump_on(served);
}

static void test_backpressure(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    large_text = make_large(LARGE);
    net_init(&net, pump_start);
    client_open_with(&client, &net, 65536);
    client_deafen(&client);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    size_t before;
    do {
        before = pump.written_bytes;
        run_for_ms(&net, 50);
    } while (pump.written_bytes > before);
    assert_false(pump.ready);
    assert_true(pump.written_bytes < LARGE);
    size_t woken_count = net.served[0].writable_count;
    client_listen(&client);
    RUN_UNTIL(&net, pump.written_bytes == LARGE);
    assert_true(net.served[0].writable_count > woken_count);
    pl_exchange_end(net.served[0].exchange);
    RUN_UNTIL(&net, client.len >= LARGE + 80);
    char *body = strstr(client.text, "\r\n\r\n") + 4;
    client_await_bytes(&client, (size_t)(body - client.text) + LARGE);
    body = strstr(client.text, "\r\n\r\n") + 4;
    assert_memory_equal(body, large_text, LARGE);
    assert_int_equal(net.served[0].gone_count, 0);
    net.answer = answer_ok;
    client_forget(&client);
    client_send(&client, GET);
    client_expect(&client, KEPT_OPEN);
    client_close(&client);
    await_no_connections(&net);
    free(large_text);
    net_deinit(&net);
}

static void reply_large(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, large_text, LARGE);
    served->exchange = NULL;
}

/** A whole answer that the kernel does not take at once, and the next request behind it. */
static void test_large_replies(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    large_text = make_large(LARGE);
    net_init(&net, reply_large);
    client_open_with(&client, &net, 65536);
    for (int i = 0; i < 3; i++) {
        client_send(&client, GET);
        client_await(&client, "\r\n\r\n");
        size_t head_bytes = (size_t)(strstr(client.text, "\r\n\r\n") + 4 - client.text);
        client_await_bytes(&client, head_bytes + LARGE);
        assert_memory_equal(client.text + head_bytes, large_text, LARGE);
        client_forget(&client);
    }
    client_send(&client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client_await_end(&client);
    assert_false(client.reset);
    assert_memory_equal(client.text + client.len - LARGE, large_text, LARGE);
    client_close(&client);
    await_no_connections(&net);
    free(large_text);
    net_deinit(&net);
}

/* ---- two servers in one loop, as the gateway and its admin listener may be ---- */

static void test_two_servers(void **state)
{
    (void)state;
    static const struct pl_server_ops OPS = {.on_request = on_served_request};
    struct net net, other;
    struct client client;
    char error[256];
    net_init(&net, answer_ok);
    memset(&other, 0, sizeof(other));
    other.base = net.base;
    other.answer = reply_204;
    int fd = pl_listen("127.0.0.1", &other.port, false, error, sizeof(error));
    other.server = pl_server_new(net.base, fd, NULL, &PATIENT, &OPS, &other);
    client_open(&client, &other);
    client_send(&client, GET);
    client_expect(&client, "HTTP/1.1 204 No Content\r\n\r\n");
    client_close(&client);
    RUN_UNTIL(&net, pl_server_connection_count(other.server) == 0);
    pl_server_free(other.server);
    client_open(&client, &net);
    client_send(&client, GET);
    client_expect(&client, KEPT_OPEN);
    client_close(&client);
    net_deinit(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reply),
        cmocka_unit_test(test_reply_to_an_old_client),
        cmocka_unit_test(test_reply_with_headers),
        cmocka_unit_test(test_answers_without_a_body),
        cmocka_unit_test(test_streamed),
        cmocka_unit_test(test_streamed_to_an_old_client),
        cmocka_unit_test(test_unusual_connection_fields),
        cmocka_unit_test(test_answer_from_outside),
        cmocka_unit_test(test_parts_are_sent_at_once),
        cmocka_unit_test(test_many_clients),
        cmocka_unit_test(test_exchanges_are_used_again),
        cmocka_unit_test(test_request_as_the_owner_sees_it),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_chunked_request),
        cmocka_unit_test(test_all_framings_in_turn),
        cmocka_unit_test(test_slow_requests),
        cmocka_unit_test(test_any_path_and_field_reaches_the_owner),
        cmocka_unit_test(test_large_request_bodies),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_pipelined_requests_are_dropped),
        cmocka_unit_test(test_flood_while_waiting),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_large_replies),
        cmocka_unit_test(test_two_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
