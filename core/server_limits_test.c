/*
 * Tests of server.c: what is refused, how many connections are taken, how long each thing may last,
 * draining, and running out of descriptors.
 */
#include "server_test.h"

#include <sys/resource.h>
#include <sys/wait.h>

#define GET       "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define LARGE     (8u << 20)
#define KEPT_OPEN "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define LAST      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

static char large[LARGE];

static void answer_ok(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, "ok", 2);
    served->exchange = NULL;
}

/* ---- refusals ---- */

static void assert_refused(const char *request, const char *status, const char *code)
{
    struct net net;
    struct client client;
    char expected[64];
    net_init(&net, answer_ok);
    client_open(&client, &net);
    client_send(&client, request);
    client_await_end(&client);
    assert_false(client.reset);
    snprintf(expected, sizeof(expected), "HTTP/1.1 %s\r\n", status);
    assert_memory_equal(client.text, expected, strlen(expected));
    assert_non_null(strstr(client.text, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(client.text, "\r\nContent-Type: application/json\r\n"));
    snprintf(expected, sizeof(expected), "\"code\":\"%s\"}}", code);
    assert_string_equal(client.text + client.len - strlen(expected), expected);
    char *body = strstr(client.text, "\r\n\r\n") + 4;
    size_t length = strtoul(strstr(client.text, "Content-Length: ") + 16, NULL, 10);
    assert_int_equal(strlen(body), length);
    client_close(&client);
    await_no_connections(&net);
    assert_int_equal(net.served_count, 0);
    net_deinit(&net);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_refused("BREW / HTTP/1.1\r\n", "405 Method Not Allowed", "method_not_allowed");
    assert_refused("GET / HTTP/1.1\r\n\r\n", "400 Bad Request", "bad_request");
    assert_refused("GET / HTTP/1.1\r\nHost: a\r\nHost: \"b\r\n", "400 Bad Request", "bad_request");
    assert_refused("GET / HTTP/2.0\r\n", "505 HTTP Version Not Supported",
                   "http_version_not_supported");
    assert_refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n",
                   "413 Content Too Large", "request_too_large");
    assert_refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n",
                   "400 Bad Request", "bad_request");
}

static void test_refusal_of_large_heads(void **state)
{
    (void)state;
    char *request = pl_xmalloc(100000);
    int len = sprintf(request, "GET /");
    memset(request + len, 'x', 9000);
    strcpy(request + len + 9000, " HTTP/1.1\r\n");
    assert_refused(request, "414 URI Too Long", "uri_too_long");
    len = sprintf(request, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(request + len, 'x', 70000);
    strcpy(request + len + 70000, "\r\n\r\n");
    assert_refused(request, "431 Request Header Fields Too Large", "headers_too_large");
    free(request);
}

/** What is refused behind an answer on the same connection does not touch the answer. */
static void test_refusal_of_the_second_request(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, answer_ok);
    client_open(&client, &net);
    client_send(&client, GET);
    client_expect(&client, KEPT_OPEN);
    client_send(&client, "\r\n");
    client_await_end(&client);
    assert_false(client.reset);
    assert_memory_equal(client.text, "HTTP/1.1 400 Bad Request\r\n", 26);
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** A client that is still sending gets to read why it need not. */
static void test_refusal_while_the_client_sends(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    char head[96];
    struct pl_server_limits limits = PATIENT;
    limits.message.body_bytes = 1000;
    net_init_with(&net, &limits, NULL, answer_ok);
    for (int chunked = 0; chunked <= 1; chunked++) {
        client_open(&client, &net);
        snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nHost: a\r\n%s",
                 chunked ? "Transfer-Encoding: chunked\r\n\r\n100000\r\n"
                         : "Content-Length: 1048576\r\n\r\n");
        client_send(&client, head);
        assert_true(client_try_send(&client, large, 1 << 20));
        client_await_end(&client);
        assert_false(client.reset);
        assert_memory_equal(client.text, "HTTP/1.1 413 Content Too Large\r\n", 32);
        assert_string_equal(client.text + client.len - 2, "}}");
        client_close(&client);
        await_no_connections(&net);
    }
    assert_int_equal(net.served_count, 0);
    net_deinit(&net);
}

/** But not for ever: one that never stops is cut off. */
static void test_refusal_lingers_for_a_while(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, answer_ok);
    client_open(&client, &net);
    client_send(&client, "nonsense\r\n");
    uint64_t start_ms = pl_now_ms();
    while (client_try_send(&client, large, 1000)) {
        run_for_ms(&net, 10);
        assert_true(pl_now_ms() - start_ms < 10000);
    }
    assert_true(pl_now_ms() - start_ms >= 500);
    RUN_UNTIL(&net, client.ended);
    assert_non_null(strstr(client.text, "400 Bad Request"));
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** One that reads nothing cannot fill our memory with what it sends. */
static void test_refused_client_that_floods(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    struct pl_server_limits limits = PATIENT;
    limits.write_stall_ms = 300;
    net_init_with(&net, &limits, NULL, answer_ok);
    client_open(&client, &net);
    client_deafen(&client);
    client_send(&client, "nonsense\r\n");
    uint64_t start_ms = pl_now_ms();
    while (client_try_send(&client, large, 100000)) {
        assert_true(pl_now_ms() - start_ms < 10000);
    }
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/* ---- how many connections ---- */

static void test_connection_cap(void **state)
{
    (void)state;
    struct net net;
    struct client clients[3];
    struct pl_server_limits limits = PATIENT;
    limits.connections = 2;
    net_init_with(&net, &limits, NULL, answer_ok);
    for (size_t i = 0; i < 2; i++) {
        client_open(&clients[i], &net);
        client_send(&clients[i], GET);
        client_expect(&clients[i], KEPT_OPEN);
    }
    client_open(&clients[2], &net);
    client_await_end(&clients[2]);
    assert_int_equal(clients[2].len, 0);
    client_close(&clients[2]);
    for (size_t i = 0; i < 2; i++) { /* the others are as before */
        client_send(&clients[i], GET);
        client_expect(&clients[i], KEPT_OPEN);
    }
    client_close(&clients[0]);
    RUN_UNTIL(&net, pl_server_connection_count(net.server) == 1);
    client_open(&clients[2], &net);
    client_send(&clients[2], GET);
    client_expect(&clients[2], KEPT_OPEN);
    client_close(&clients[1]);
    client_close(&clients[2]);
    await_no_connections(&net);
    net_deinit(&net);
}

/** Those that come together: as many as there is room for are served, and no more. */
static void test_connection_cap_for_a_crowd(void **state)
{
    (void)state;
    struct net net;
    struct client clients[10];
    size_t refused_count = 0;
    struct pl_server_limits limits = PATIENT;
    limits.connections = 4;
    net_init_with(&net, &limits, NULL, answer_ok);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        client_open(&clients[i], &net);
    }
    RUN_UNTIL(&net, pl_server_connection_count(net.server) == 4);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        client_try_send(&clients[i], GET, strlen(GET));
    }
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        RUN_UNTIL(&net, clients[i].ended || strstr(clients[i].text, "\r\n\r\nok"));
        refused_count += clients[i].ended;
    }
    assert_int_equal(refused_count, PL_COUNT(clients) - 4);
    assert_int_equal(net.served_count, 4);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        client_close(&clients[i]);
    }
    await_no_connections(&net);
    net_deinit(&net);
}

/* ---- how long ---- */

#define SHORT_MS 300

/** Waits for the end, which must not come before `limit_ms` have passed since `start_ms`. */
static void await_end_in_time(struct client *client, uint64_t start_ms, uint64_t limit_ms)
{
    client_await_end(client);
    uint64_t took_ms = pl_now_ms() - start_ms;
    assert_true(took_ms + 5 >= limit_ms); /* both clocks are cut to milliseconds */
    assert_true(took_ms < limit_ms + 5000);
}

/** Lets time pass by the test's own clock, and the server look at it: each quarter of its limits.
 */
static void pass_ms(struct net *net, uint64_t duration_ms)
{
    move_own_clock_ms(duration_ms);
    run_for_ms(net, SHORT_MS / 2);
}

/** Waits for an end that must not come before `limit_ms` have passed since now, by the own clock.
 */
static void assert_ends_after(struct client *client, uint64_t limit_ms)
{
    pass_ms(client->net, limit_ms - 1);
    assert_false(client->ended);
    move_own_clock_ms(limit_ms); /* what was sent last may have been read only now */
    client_await_end(client);
}

static void test_slow_head(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    struct pl_server_limits limits = PATIENT;
    limits.head_ms = SHORT_MS;
    net_init_with(&net, &limits, NULL, answer_ok);
    client_open(&client, &net);
    run_for_ms(&net, 2 * SHORT_MS); /* not before the first byte */
    assert_false(client.ended);
    uint64_t start_ms = pl_now_ms();
    while (!client.ended) { /* progress does not help */
        client_try_send(&client, "G", 1);
        run_for_ms(&net, 10);
        assert_true(pl_now_ms() - start_ms < 10000);
    }
    client_close(&client);

    client_open(&client, &net);
    start_ms = pl_now_ms();
    client_send(&client, "GET / HTTP/1.1\r\nHost: a\r\n");
    await_end_in_time(&client, start_ms, SHORT_MS);
    assert_false(client.reset);
    assert_memory_equal(client.text, "HTTP/1.1 408 Request Timeout\r\n", 30);
    assert_non_null(strstr(client.text, "\"code\":\"request_timeout\""));
    client_close(&client);
    await_no_connections(&net);
    assert_int_equal(net.served_count, 0);
    net_deinit(&net);
}

static void test_stalled_body(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    struct pl_server_limits limits = PATIENT;
    limits.body_idle_ms = SHORT_MS;
    net_init_with(&net, &limits, NULL, answer_ok);
    client_open(&client, &net);
    client_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    for (int i = 0; i < 6; i++) { /* slow, but going on: longer than the limit in all */
        pass_ms(&net, SHORT_MS / 3);
        client_send(&client, "x");
    }
    client_expect(&client, KEPT_OPEN);
    client_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nabc");
    assert_ends_after(&client, SHORT_MS);
    assert_memory_equal(client.text, "HTTP/1.1 408 Request Timeout\r\n", 30);
    client_close(&client);
    await_no_connections(&net);
    assert_int_equal(net.served_count, 1);
    net_deinit(&net);
}

static void test_idle_connection(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    struct pl_server_limits limits = PATIENT;
    limits.keepalive_idle_ms = SHORT_MS;
    net_init_with(&net, &limits, NULL, answer_ok);
    client_open(&client, &net);
    assert_ends_after(&client, SHORT_MS);
    assert_int_equal(client.len, 0);
    assert_false(client.reset);
    client_close(&client);
    client_open(&client, &net);
    for (int i = 0; i < 4; i++) { /* each answer starts the time anew */
        pass_ms(&net, SHORT_MS - 1);
        client_send(&client, GET);
        client_expect(&client, KEPT_OPEN);
    }
    assert_ends_after(&client, SHORT_MS);
    assert_int_equal(client.len, 0);
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/** The time that an answer takes to make is not the client's. */
static void test_no_limit_while_the_answer_is_made(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    struct pl_server_limits limits = PATIENT;
    limits.keepalive_idle_ms = limits.head_ms = limits.body_idle_ms = limits.write_stall_ms = 50;
    net_init_with(&net, &limits, NULL, NULL);
    client_open(&client, &net);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    run_for_ms(&net, 200);
    pl_exchange_start(net.served[0].exchange, 200, NULL, 2);
    run_for_ms(&net, 200);
    assert_true(pl_exchange_write(net.served[0].exchange, "o", 1));
    run_for_ms(&net, 200);
    assert_true(pl_exchange_write(net.served[0].exchange, "k", 1));
    pl_exchange_end(net.served[0].exchange);
    client_expect(&client, KEPT_OPEN);
    client_close(&client);
    await_no_connections(&net);
    assert_int_equal(net.served[0].gone_count, 0);
    net_deinit(&net);
}

static void start_large(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, LARGE);
    (void)pl_exchange_write(served->exchange, large, LARGE);
}

static void reply_large(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, large, LARGE);
    served->exchange = NULL;
}

static void abort_large(struct served *served)
{
    start_large(served);
    pl_exchange_abort(served->exchange, false);
    served->exchange = NULL;
}

/** A client that takes nothing is given up, with a reset, in whatever state its answer is. */
static void run_stall(void (*answer)(struct served *), size_t gone_count)
{
    struct net net;
    struct client client;
    struct pl_server_limits limits = PATIENT;
    limits.write_stall_ms = SHORT_MS;
    net_init_with(&net, &limits, NULL, answer);
    client_open_with(&client, &net, 65536);
    client_deafen(&client);
    uint64_t start_ms = pl_now_ms();
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    await_no_connections(&net);
    assert_true(pl_now_ms() - start_ms + 5 >= SHORT_MS);
    assert_int_equal(net.served[0].gone_count, gone_count);
    client_listen(&client);
    client_await_end(&client);
    assert_true(client.reset);
    assert_true(client.len < LARGE);
    client_close(&client);
    net_deinit(&net);
}

static void test_write_stall(void **state)
{
    (void)state;
    run_stall(start_large, 1);
    run_stall(reply_large, 0);
    run_stall(abort_large, 0);
}

/** Slow reading is no stall: longer than the limit in all, but never without progress. */
static void test_slow_reader(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    static char taken[65536];
    struct pl_server_limits limits = PATIENT;
    limits.write_stall_ms = 2 * SHORT_MS;
    net_init_with(&net, &limits, NULL, reply_large);
    client_open_with(&client, &net, 65536);
    client_deafen(&client);
    client_send(&client, GET);
    size_t taken_bytes = 0;
    for (int i = 0; i < 12; i++) {
        ssize_t got = recv(client.fd, taken, sizeof(taken), 0);
        assert_true(got > 0 || errno == EAGAIN);
        taken_bytes += got > 0 ? (size_t)got : 0;
        pass_ms(&net, SHORT_MS / 2);
    }
    assert_true(taken_bytes < LARGE);
    client_listen(&client);
    RUN_UNTIL(&net, client.ended || taken_bytes + client.len > LARGE + 80);
    assert_false(client.ended);
    client_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/* ---- draining ---- */

/** Whether a new connection is taken, or refused. */
static bool can_connect(const struct net *net)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(net->port)};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0;
    close(fd);
    return connected;
}

static void test_drain(void **state)
{
    (void)state;
    struct net net;
    struct client idle, reading, waiting, streaming, fresh;
    net_init(&net, NULL);
    client_open(&idle, &net);
    client_send(&idle, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    answer_ok(&net.served[0]);
    client_expect(&idle, KEPT_OPEN);
    client_open(&waiting, &net);
    client_send(&waiting, GET);
    RUN_UNTIL(&net, net.served_count == 2);
    client_open(&streaming, &net);
    client_send(&streaming, GET);
    RUN_UNTIL(&net, net.served_count == 3);
    pl_exchange_start(net.served[2].exchange, 200, NULL, -1);
    client_expect(&streaming, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client_open(&reading, &net);
    client_send(&reading, "GET / HTTP/1.1\r\n");
    RUN_UNTIL(&net, pl_server_connection_count(net.server) == 4);
    run_for_ms(&net, 2);
    client_open(&fresh, &net); /* still in the kernel's queue, its request with it */
    assert_true(send(fresh.fd, GET, strlen(GET), MSG_NOSIGNAL) > 0);

    pl_server_drain(net.server);
    pl_server_drain(net.server);
    client_await_end(&idle);
    assert_int_equal(idle.len, 0);
    assert_false(can_connect(&net));

    RUN_UNTIL(&net, net.served_count == 4);
    answer_ok(&net.served[3]);
    client_expect(&fresh, LAST);
    client_await_end(&fresh);
    answer_ok(&net.served[1]);
    client_expect(&waiting, LAST);
    client_await_end(&waiting);
    client_send(&reading, "Host: a\r\n\r\n");
    RUN_UNTIL(&net, net.served_count == 5);
    answer_ok(&net.served[4]);
    client_expect(&reading, LAST);
    client_await_end(&reading);
    assert_int_equal(pl_server_connection_count(net.server), 1);
    assert_true(pl_exchange_write(net.served[2].exchange, "late", 4));
    client_expect(&streaming, "4\r\nlate\r\n");
    pl_exchange_end(net.served[2].exchange);
    client_expect(&streaming, "0\r\n\r\n");
    client_await_end(&streaming);
    await_no_connections(&net);
    struct client *all[] = {&idle, &reading, &waiting, &streaming, &fresh};
    for (size_t i = 0; i < PL_COUNT(all); i++) {
        assert_false(all[i]->reset);
        client_close(all[i]);
    }
    net_deinit(&net);
}

/** One that is connected but asks for nothing does not hold the drain up. */
static void test_drain_of_a_silent_client(void **state)
{
    (void)state;
    struct net net;
    struct client early, late;
    net_init(&net, answer_ok);
    client_open(&early, &net);
    RUN_UNTIL(&net, pl_server_connection_count(net.server) == 1);
    client_open(&late, &net);
    uint64_t start_ms = pl_now_ms();
    pl_server_drain(net.server);
    await_no_connections(&net);
    assert_true(pl_now_ms() - start_ms < 5000);
    client_await_end(&early);
    client_await_end(&late);
    client_close(&early);
    client_close(&late);
    net_deinit(&net);
}

static void test_free_while_draining(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    net_init(&net, NULL);
    client_open(&client, &net);
    client_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    pl_server_drain(net.server);
    run_for_ms(&net, 2);
    net_free_server(&net);
    assert_int_equal(net.served[0].gone_count, 1);
    client_close(&client);
    net_deinit(&net);
}

/* ---- out of descriptors: in a process of its own ---- */

static size_t count_lines(int fd)
{
    char buffer[4096];
    size_t count = 0;
    ssize_t got;
    while ((got = read(fd, buffer, sizeof(buffer))) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            count += buffer[i] == '\n';
        }
    }
    return count;
}

static void set_descriptor_limit(rlim_t limit)
{
    struct rlimit descriptors;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &descriptors), 0);
    descriptors.rlim_cur = limit;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &descriptors), 0);
}

/** Descriptors for one of three clients; then for all. */
static void run_out_of_descriptors(void **state)
{
    (void)state;
    struct net net;
    struct client clients[3];
    struct rlimit before;
    int log[2];
    assert_int_equal(pipe2(log, O_NONBLOCK), 0);
    dup2(log[1], STDERR_FILENO);
    getrlimit(RLIMIT_NOFILE, &before);
    net_init(&net, answer_ok);
    run_for_ms(&net, 1);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        client_open(&clients[i], &net);
    }
    int next = dup(0);
    close(next);
    set_descriptor_limit((rlim_t)next + 1);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        client_send(&clients[i], GET);
    }
    net.turns = 0;
    run_for_ms(&net, 500);
    assert_int_equal(net.served_count, 1);
    /* at most one try in each pause of 50 ms, and no spinning in between */
    size_t tries = count_lines(log[0]);
    assert_in_range(tries, 1, 11);
    assert_true(net.turns < 200);
    set_descriptor_limit(before.rlim_cur);
    RUN_UNTIL(&net, net.served_count == 3);
    for (size_t i = 0; i < PL_COUNT(clients); i++) {
        client_expect(&clients[i], KEPT_OPEN);
        client_close(&clients[i]);
    }
    await_no_connections(&net);
    net_deinit(&net);
}

static void test_out_of_descriptors(void **state)
{
    (void)state;
    const char *preloaded = getenv("LD_PRELOAD");
    if (preloaded != NULL && strstr(preloaded, "vgpreload") != NULL) {
        return; /* valgrind lets the kernel accept, and then closes what is over the limit */
    }
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        assert_non_null(freopen("/dev/null", "w", stdout));
        /* a failed assertion would go on with the other tests here, too: it has to run as one */
        const struct CMUnitTest alone[] = {cmocka_unit_test(run_out_of_descriptors)};
        _exit(cmocka_run_group_tests(alone, NULL, NULL));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refusal_of_large_heads),
        cmocka_unit_test(test_refusal_of_the_second_request),
        cmocka_unit_test(test_refusal_while_the_client_sends),
        cmocka_unit_test(test_refusal_lingers_for_a_while),
        cmocka_unit_test(test_refused_client_that_floods),
        cmocka_unit_test(test_connection_cap),
        cmocka_unit_test(test_connection_cap_for_a_crowd),
        cmocka_unit_test(test_slow_head),
        TEST_BY_OWN_CLOCK(test_stalled_body),
        TEST_BY_OWN_CLOCK(test_idle_connection),
        cmocka_unit_test(test_no_limit_while_the_answer_is_made),
        cmocka_unit_test(test_write_stall),
        TEST_BY_OWN_CLOCK(test_slow_reader),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_of_a_silent_client),
        cmocka_unit_test(test_free_while_draining),
        cmocka_unit_test(test_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
