/*
 * Attempt, and the dial beneath it, against a scripted upstream in the same event loop.
 */
#include "attempt_test.h"

#include <sys/resource.h>

#define SCRIPTS(...) static const struct step *const scripts[] = {__VA_ARGS__}
#define NET(net, scripts)                                                                          \
    struct net net;                                                                                \
    net_init(&(net), scripts, PL_COUNT(scripts), NULL, NULL)

#define UPLOAD_BYTES (8u << 20)
#define FLOOD_BYTES  (32u << 20)

/* ---- whole answers ---- */

struct answer_case {
    const char *name;
    const char *text;
    bool is_head, closes;
    int status;
    const char *body;
    bool kept; /* the connection goes back to the pool */
};

#define JSON_BODY "{\"id\":\"chatcmpl-1\"}"

static const struct answer_case ANSWERS[] = {
    {"length", "HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n" JSON_BODY, false, false, 200,
     JSON_BODY, true},
    {"length 0", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, false, 200, "", true},
    {"chunked",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
     "6\r\ndata: \r\n3;x=\"y;z\"\r\n1\n\n\r\n000\r\n\r\n",
     false, false, 200, "data: 1\n\n", true},
    {"chunked with trailers",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", false,
     false, 200, "a", true},
    {"until the end", "HTTP/1.1 200 OK\r\n\r\nsome bytes", false, true, 200, "some bytes", false},
    {"until the end, empty", "HTTP/1.1 200 OK\r\n\r\n", false, true, 200, "", false},
    {"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, false, 200, "ok", false},
    {"close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false, false,
     200, "ok", false},
    {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", true, false, 200, "", true},
    {"204", "HTTP/1.1 204 No Content\r\n\r\n", false, false, 204, "", true},
    {"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, false, 304, "", true},
    {"error", "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", false, false, 503, "busy",
     true},
    {"interim",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
     false, false, 200, "ok", true},
};

static void run_answer(const struct answer_case *answer, enum op op)
{
    const struct step script[] = {{OP_REQUEST, NULL, 0},
                                  {op, answer->text, 0},
                                  {answer->closes ? OP_CLOSE : OP_END, NULL, 0}};
    const struct step *const scripts[] = {script};
    NET(net, scripts);
    struct pl_attempt_request request = GET;
    request.is_head = answer->is_head;
    struct record record = {0};
    record_start(&record, &net, &request, &PATIENT);
    run_until_count(net.base, &record.done, 1);
    if (record.failure != PL_FAIL_NONE) {
        fail_msg("%s: %s, %s", answer->name, pl_failure_name(record.failure), record.stats.detail);
    }
    assert_int_equal(record.head_count, 1);
    assert_int_equal(record.status, answer->status);
    assert_string_equal(record.body, answer->body);
    assert_int_equal(record.stats.body_bytes, strlen(answer->body));
    assert_int_equal(net.pool->idle_count, answer->kept ? 1 : 0);
    assert_false(record.stats.reused);
    assert_true(record.stats.request_sent);
    net_deinit(&net);
}

static void test_whole_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < PL_COUNT(ANSWERS); i++) {
        run_answer(&ANSWERS[i], OP_SEND);
        run_answer(&ANSWERS[i], OP_TRICKLE);
    }
}

static void test_large_body(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_REQUEST, NULL, 0},
        {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n", 0},
        {OP_FLOOD, NULL, FLOOD_BYTES},
        {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct record record = {0};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_int_equal(record.body_bytes, FLOOD_BYTES);
    assert_int_equal(net.pool->idle_count, 1);
    net_deinit(&net);
}

/* ---- broken answers ---- */

struct broken_case {
    const char *text;
    enum op end;
    enum pl_failure failure;
    const char *detail; /* a part of it */
};

static const struct broken_case BROKEN[] = {
    {"", OP_CLOSE, PL_FAIL_RESET, "connection closed before the response"},
    {"", OP_RESET, PL_FAIL_RESET, "Connection reset by peer before the response"},
    {"HTTP/1.1 200 OK\r\nServer: a", OP_CLOSE, PL_FAIL_RESET, "closed within the response head"},
    {"HTTP/1.1 100 Continue\r\n\r\n", OP_CLOSE, PL_FAIL_RESET, "closed within the response head"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234", OP_CLOSE, PL_FAIL_TRUNCATED,
     "within the body, after 4 bytes"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n", OP_CLOSE,
     PL_FAIL_TRUNCATED, "within the body, after 4 bytes"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n0\r\n", OP_CLOSE,
     PL_FAIL_TRUNCATED, "within the body"},
    {"HTTP/1.1 200 OK\r\n\r\n1234", OP_RESET, PL_FAIL_TRUNCATED, "reset by peer within the body"},
    {"SSH-2.0-OpenSSH_9.2\r\n", OP_END, PL_FAIL_MALFORMED, "not HTTP/1.1"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1", OP_END,
     PL_FAIL_MALFORMED, "not HTTP/1.1"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", OP_END, PL_FAIL_MALFORMED,
     "chunked coding"},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", OP_END, PL_FAIL_MALFORMED,
     "not HTTP/1.1"},
    {"HTTP/1.1 100 a\r\n\r\nHTTP/1.1 100 a\r\n\r\nHTTP/1.1 100 a\r\n\r\nHTTP/1.1 100 a\r\n\r\n"
     "HTTP/1.1 100 a\r\n\r\nHTTP/1.1 100 a\r\n\r\nHTTP/1.1 100 a\r\n\r\nHTTP/1.1 100 a\r\n\r\n"
     "HTTP/1.1 100 a\r\n\r\n",
     OP_END, PL_FAIL_MALFORMED, "interim"},
};

static void run_broken(const struct broken_case *broken, enum op op)
{
    /* A RST overtakes nothing here: the loop has read the text before the gate opens. */
    const struct step script[] = {
        {OP_REQUEST, NULL, 0}, {op, broken->text, 0}, {OP_GATE, NULL, 0}, {broken->end, NULL, 0}};
    const struct step *const scripts[] = {script};
    NET(net, scripts);
    struct record record = {0};
    record_start(&record, &net, &GET, &PATIENT);
    run_until_count(net.base, &net.upstream.sent_bytes,
                    broken->end == OP_END ? 1 : strlen(broken->text));
    run_until_count(net.base, &net.upstream.peers[0].requests_taken, 1);
    run_until_still(net.base, &record.body_bytes);
    if (broken->end != OP_END) {
        upstream_open_gate(&net.upstream);
    }
    run_until_count(net.base, &record.done, 1);
    assert_string_equal(pl_failure_name(record.failure), pl_failure_name(broken->failure));
    if (strstr(record.stats.detail, broken->detail) == NULL) {
        fail_msg("'%s' is not in '%s'", broken->detail, record.stats.detail);
    }
    assert_non_null(strstr(record.stats.detail, "127.0.0.1:"));
    assert_int_equal(net.pool->idle_count, 0);
    net_deinit(&net);
}

static void test_broken_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < PL_COUNT(BROKEN); i++) {
        run_broken(&BROKEN[i], OP_SEND);
        run_broken(&BROKEN[i], OP_TRICKLE);
    }
}

static void test_head_without_end(void **state)
{
    (void)state;
    static const struct step script[] = {{OP_REQUEST, NULL, 0},
                                         {OP_SEND, "HTTP/1.1 200 OK\r\nX-Long: ", 0},
                                         {OP_FLOOD, NULL, 200000},
                                         {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct record record = {0};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_MALFORMED);
    assert_non_null(strstr(record.stats.detail, "larger than"));
    net_deinit(&net);
}

/* ---- sending ---- */

static char upload_head[128];
static char upload_body[UPLOAD_BYTES];
static struct iovec upload_pieces[200];

/** A request of 8 MiB in many pieces, more than one system call takes. */
static struct pl_attempt_request upload_request(void)
{
    int len =
        snprintf(upload_head, sizeof(upload_head),
                 "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: %u\r\n\r\n", UPLOAD_BYTES);
    size_t share = UPLOAD_BYTES / (PL_COUNT(upload_pieces) - 1), used = 0;
    upload_pieces[0] = (struct iovec){upload_head, (size_t)len};
    for (size_t i = 1; i < PL_COUNT(upload_pieces); i++) {
        bool last = i + 1 == PL_COUNT(upload_pieces);
        size_t take = last ? UPLOAD_BYTES - used : share;
        upload_pieces[i] = (struct iovec){upload_body + used, take};
        used += take;
    }
    upload_pieces[100].iov_len += upload_pieces[101].iov_len;
    upload_pieces[101].iov_len = 0; /* an empty piece does no harm */
    return (struct pl_attempt_request){upload_pieces, PL_COUNT(upload_pieces), false, 1, false};
}

static void test_large_request(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_REQUEST, NULL, 0},
        {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0},
        {OP_REQUEST, NULL, 0},
        {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0},
        {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct pl_attempt_request request = upload_request();
    for (int i = 0; i < 2; i++) {
        struct record record = {0};
        record_start(&record, &net, &request, &PATIENT);
        run_until_count(net.base, &record.done, 1);
        assert_int_equal(record.failure, PL_FAIL_NONE);
        assert_string_equal(record.body, "ok");
        assert_int_equal(record.stats.reused, i == 1);
    }
    assert_int_equal(net.upstream.received_bytes, 2 * (UPLOAD_BYTES + strlen(upload_head)));
    net_deinit(&net);
}

#define TOO_LARGE "HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"

/** The refusal arrives although the upstream reads nothing more, and ends the sending. */
static void run_early_refusal(const struct step *script)
{
    const struct step *const scripts[] = {script};
    NET(net, scripts);
    struct pl_attempt_request request = upload_request();
    struct record record = {0};
    record_start(&record, &net, &request, &PATIENT);
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_int_equal(record.status, 413);
    assert_string_equal(record.body, "too large");
    assert_int_equal(net.pool->idle_count, 0);
    assert_true(net.upstream.received_bytes < UPLOAD_BYTES);
    net_deinit(&net);
}

static void test_early_refusal(void **state)
{
    (void)state;
    static const struct step stays[] = {
        {OP_HEAD, NULL, 0}, {OP_DEAF, NULL, 0}, {OP_SEND, TOO_LARGE, 0}, {OP_END, NULL, 0}};
    static const struct step leaves[] = {
        {OP_HEAD, NULL, 0}, {OP_DEAF, NULL, 0}, {OP_SEND, TOO_LARGE, 0}, {OP_CLOSE, NULL, 0}};
    run_early_refusal(stays);
    run_early_refusal(leaves);
}

/** A 2xx before the end of the request is no refusal: sending goes on. */
static void test_early_success(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_HEAD, NULL, 0},
        {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok", 0},
        {OP_REQUEST, NULL, 0},
        {OP_SEND, "ok", 0},
        {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct pl_attempt_request request = upload_request();
    struct record record = {0};
    record_start(&record, &net, &request, &PATIENT);
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_string_equal(record.body, "okok");
    assert_int_equal(net.pool->idle_count, 1);
    net_deinit(&net);
}

static void test_reset_while_sending(void **state)
{
    (void)state;
    static const struct step script[] = {{OP_HEAD, NULL, 0}, {OP_RESET, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct pl_attempt_request request = upload_request();
    struct record record = {0};
    record_start(&record, &net, &request, &PATIENT);
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_RESET);
    assert_int_equal(net.upstream.accepted_count, 1);
    assert_true(record.stats.request_sent);
    net_deinit(&net);
}

/* ---- limits ---- */

struct limit_case {
    struct pl_attempt_limits limits;
    const char *text;
    bool upload;
    enum pl_failure failure;
    const char *detail;
};

static const struct limit_case LIMITS[] = {
    {{.head_ms = 40}, "", false, PL_FAIL_TIMEOUT_HEAD, "no response head after 40 ms"},
    {{.head_ms = 40}, "HTTP/1.1 200 OK\r\n", false, PL_FAIL_TIMEOUT_HEAD, "no response head"},
    {{.head_ms = 40},
     "HTTP/1.1 103 Hints\r\n\r\n",
     false,
     PL_FAIL_TIMEOUT_HEAD,
     "no response head"},
    {{.head_ms = 40}, "", true, PL_FAIL_TIMEOUT_HEAD, "the request was not accepted for 40 ms"},
    {{.idle_ms = 40, .head_ms = 9000},
     "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1",
     false,
     PL_FAIL_TIMEOUT_IDLE,
     "no more of the body for 40 ms"},
    {{.idle_ms = 9000, .try_ms = 40},
     "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1",
     false,
     PL_FAIL_TIMEOUT_TRY,
     "not finished after 40 ms"},
    {{.head_ms = 9000, .try_ms = 40}, "", false, PL_FAIL_TIMEOUT_TRY, "not finished after 40 ms"},
};

static void run_limit(const struct limit_case *limit)
{
    const struct step script[] = {{OP_HEAD, NULL, 0},
                                  {OP_SEND, limit->text, 0},
                                  {limit->upload ? OP_DEAF : OP_END, NULL, 0},
                                  {OP_END, NULL, 0}};
    const struct step *const scripts[] = {script};
    NET(net, scripts);
    struct pl_attempt_request request = limit->upload ? upload_request() : GET;
    struct record record = {0};
    uint64_t start_ms = pl_now_ms();
    record_start(&record, &net, &request, &limit->limits);
    run_until_count(net.base, &record.done, 1);
    assert_string_equal(pl_failure_name(record.failure), pl_failure_name(limit->failure));
    assert_non_null(strstr(record.stats.detail, limit->detail));
    assert_true(pl_now_ms() - start_ms >= 20); /* libevent's clock is cached and coarse */
    assert_true(record.stats.total_ms >= 20);
    run_until_count(net.base, &net.upstream.ended_count, limit->upload ? 0 : 1);
    net_deinit(&net);
}

static void test_limits(void **state)
{
    (void)state;
    for (size_t i = 0; i < PL_COUNT(LIMITS); i++) {
        run_limit(&LIMITS[i]);
    }
}

static const struct step HANGING_STREAM[] = {
    {OP_REQUEST, NULL, 0},
    {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n123", 0},
    {OP_GATE, NULL, 0},
    {OP_SEND, "456", 0},
    {OP_END, NULL, 0}};

static void on_flag(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(size_t *)arg = 1;
}

/** Turns the loop for that time; what must not happen meanwhile is checked by the caller. */
static size_t run_for_ms(struct event_base *base, long ms)
{
    size_t fired = 0;
    struct timeval when = {ms / 1000, ms % 1000 * 1000};
    event_base_once(base, -1, EV_TIMEOUT, on_flag, &fired, &when);
    return run_until_count(base, &fired, 1);
}

/** The timer that an attempt leaves armed serves the next one in its memory: fired too early it
 * does no harm, and a limit that is due before it is kept. */
static void test_limits_of_an_attempt_that_follows(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_REQUEST, NULL, 0},
        {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", 0},
        {OP_REQUEST, NULL, 0},
        {OP_GATE, NULL, 0},
        {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2", 0},
        {OP_REQUEST, NULL, 0},
        {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct record first = {0}, second = {0}, third = {0};
    record_run(&first, &net, &(struct pl_attempt_limits){.head_ms = 40});
    assert_int_equal(first.failure, PL_FAIL_NONE);
    record_start(&second, &net, &GET, &PATIENT);
    assert_int_equal(net.pool->spare_count, 0);
    run_for_ms(net.base, 80);
    assert_int_equal(second.done, 0);
    upstream_open_gate(&net.upstream);
    run_until_count(net.base, &second.done, 1);
    assert_int_equal(second.failure, PL_FAIL_NONE);
    record_run(&third, &net, &(struct pl_attempt_limits){.head_ms = 40});
    assert_int_equal(third.failure, PL_FAIL_TIMEOUT_HEAD);
    assert_true(third.stats.total_ms >= 40 && third.stats.total_ms < PATIENT.head_ms);
    assert_int_equal(net.pool->spare_count, 1);
    net_deinit(&net);
}

/** While paused, silence is the owner's doing. */
static void test_pause_stops_idle_clock(void **state)
{
    (void)state;
    SCRIPTS(HANGING_STREAM);
    NET(net, scripts);
    struct record record = {0};
    record_start(&record, &net, &GET, &(struct pl_attempt_limits){.idle_ms = 60});
    run_until_count(net.base, &record.body_bytes, 3);
    move_own_clock_ms(50);
    pl_attempt_pause(record.attempt);
    move_own_clock_ms(120);
    run_for_ms(net.base, 120);
    assert_int_equal(record.done, 0);
    pl_attempt_resume(record.attempt);
    move_own_clock_ms(9);
    run_for_ms(net.base, 120);
    assert_int_equal(record.done, 0);
    move_own_clock_ms(1);
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_TIMEOUT_IDLE);
    assert_int_equal(record.stats.total_ms, 180);
    net_deinit(&net);
}

/** Each read starts the clock of silence again, without touching the timer. */
static void test_progress_resets_idle_clock(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_REQUEST, NULL, 0}, {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 0},
        {OP_GATE, NULL, 0},    {OP_SEND, "1", 0},
        {OP_GATE, NULL, 0},    {OP_SEND, "2", 0},
        {OP_GATE, NULL, 0},    {OP_SEND, "3", 0},
        {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct record record = {0};
    record_start(&record, &net, &GET, &(struct pl_attempt_limits){.idle_ms = 60});
    run_until_count(net.base, &record.head_count, 1);
    for (size_t i = 1; i <= 3; i++) {
        move_own_clock_ms(59);
        run_for_ms(net.base, 120);
        upstream_open_gate(&net.upstream);
        run_until_count(net.base, &record.body_bytes, i);
    }
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    net_deinit(&net);
}

/* ---- pause and resume ---- */

static const struct step FLOOD[] = {
    {OP_REQUEST, NULL, 0},
    {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n", 0},
    {OP_FLOOD, NULL, FLOOD_BYTES},
    {OP_END, NULL, 0}};

static void pause_now(struct record *self)
{
    pl_attempt_pause(self->attempt);
}

/** Paused again in every on_body: no more than one read is held, the rest stays in the kernel. */
static void test_pause_under_flood(void **state)
{
    (void)state;
    SCRIPTS(FLOOD);
    NET(net, scripts);
    struct record record = {.at_body = pause_now};
    record_start(&record, &net, &GET, &PATIENT);
    run_until_count(net.base, &record.body_calls, 1);
    run_until_still(net.base, &net.upstream.sent_bytes);
    assert_int_equal(record.body_calls, 1);
    assert_true(net.upstream.sent_bytes < FLOOD_BYTES);
    assert_true(run_for_ms(net.base, 50) < 20); /* and the loop sleeps */
    for (size_t i = 2; record.done == 0; i++) {
        pl_attempt_resume(record.attempt);
        assert_int_equal(record.body_calls, i - 1);
        if (record.body_bytes == FLOOD_BYTES) {
            break;
        }
        run_until_count(net.base, &record.body_calls, i);
    }
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_int_equal(record.body_bytes, FLOOD_BYTES);
    assert_int_equal(net.pool->idle_count, 1);
    net_deinit(&net);
}

static void test_pause_in_head(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_REQUEST, NULL, 0},
        {OP_SEND,
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", 0},
        {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct record record = {.at_head = pause_now, .at_body = pause_now};
    record_start(&record, &net, &GET, &PATIENT);
    run_until_count(net.base, &record.head_count, 1);
    for (size_t i = 0; i < 3; i++) {
        run_until_still(net.base, &record.body_calls);
        assert_int_equal(record.body_calls, i);
        assert_int_equal(record.done, 0);
        pl_attempt_resume(record.attempt);
        assert_int_equal(record.body_calls, i);
    }
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_string_equal(record.body, "ab");
    assert_int_equal(net.pool->idle_count, 1);
    net_deinit(&net);
}

static void pause_and_resume(struct record *self)
{
    pl_attempt_pause(self->attempt);
    pl_attempt_resume(self->attempt);
}

static void test_pause_and_resume_inside(void **state)
{
    (void)state;
    SCRIPTS(FLOOD);
    NET(net, scripts);
    struct record record = {.at_head = pause_and_resume, .at_body = pause_and_resume};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_int_equal(record.body_bytes, FLOOD_BYTES);
    net_deinit(&net);
}

/** Paused before anything has come: the head is told of, the body is not. */
static void test_pause_before_head(void **state)
{
    (void)state;
    SCRIPTS(FLOOD);
    NET(net, scripts);
    struct record record = {0};
    record_start(&record, &net, &GET, &PATIENT);
    pl_attempt_pause(record.attempt);
    pl_attempt_pause(record.attempt);
    run_until_count(net.base, &record.head_count, 1);
    run_until_still(net.base, &net.upstream.sent_bytes);
    assert_int_equal(record.body_calls, 0);
    pl_attempt_resume(record.attempt);
    pl_attempt_resume(record.attempt);
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.body_bytes, FLOOD_BYTES);
    net_deinit(&net);
}

static void test_try_limit_while_paused(void **state)
{
    (void)state;
    SCRIPTS(FLOOD);
    NET(net, scripts);
    struct record record = {.at_body = pause_now};
    record_start(&record, &net, &GET, &(struct pl_attempt_limits){.try_ms = 500, .idle_ms = 20});
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_TIMEOUT_TRY);
    assert_int_equal(record.body_calls, 1);
    net_deinit(&net);
}

/* ---- reuse ---- */

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static const struct step ANSWER_THRICE[] = {
    {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER, 0}, {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER, 0},
    {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER, 0}, {OP_END, NULL, 0}};

static void test_reuse_by_credential(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE, ANSWER_THRICE);
    NET(net, scripts);
    static const uint64_t tags[] = {1, 1, 2, 1, 2};
    static const bool reused[] = {false, true, false, true, true};
    for (size_t i = 0; i < PL_COUNT(tags); i++) {
        struct pl_attempt_request request = GET;
        request.credential_tag = tags[i];
        struct record record = {0};
        record_start(&record, &net, &request, &PATIENT);
        run_until_count(net.base, &record.done, 1);
        assert_int_equal(record.failure, PL_FAIL_NONE);
        assert_int_equal(record.stats.reused, reused[i]);
    }
    assert_int_equal(net.upstream.accepted_count, 2);
    net_deinit(&net);
}

static struct record follower;

static void start_follower(struct record *self)
{
    record_start(&follower, self->net, &GET, &PATIENT);
}

static void test_start_inside_done(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    memset(&follower, 0, sizeof(follower));
    struct record record = {.at_done = start_follower};
    record_run(&record, &net, &PATIENT);
    run_until_count(net.base, &follower.done, 1);
    assert_int_equal(follower.failure, PL_FAIL_NONE);
    assert_true(follower.stats.reused);
    assert_int_equal(net.upstream.accepted_count, 1);
    net_deinit(&net);
}

/** Bytes after the end of the answer: whoever sent them is not trusted with another request. */
static void test_surplus_is_not_reused(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER OK_ANSWER, 0}, {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct record record = {0};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_string_equal(record.body, "ok");
    assert_int_equal(net.pool->idle_count, 0);
    net_deinit(&net);
}

static const struct step ANSWER_THEN_RESET[] = {
    {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER, 0}, {OP_REQUEST, NULL, 0}, {OP_RESET, NULL, 0}};
static const struct step ANSWER_THEN_CLOSE[] = {
    {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER, 0}, {OP_REQUEST, NULL, 0}, {OP_CLOSE, NULL, 0}};
static const struct step ANSWER_THEN_HALF[] = {{OP_REQUEST, NULL, 0},
                                               {OP_SEND, OK_ANSWER, 0},
                                               {OP_REQUEST, NULL, 0},
                                               {OP_SEND, "HTTP/1.1 ", 0},
                                               {OP_CLOSE, NULL, 0}};
static const struct step RESET_AT_ONCE[] = {{OP_REQUEST, NULL, 0}, {OP_RESET, NULL, 0}};

/** The second of two requests; the first one was answered on the first connection. */
static void run_second(struct net *net, struct record *second)
{
    struct record first = {0};
    record_run(&first, net, &PATIENT);
    assert_int_equal(first.failure, PL_FAIL_NONE);
    record_run(second, net, &PATIENT);
}

static void run_stale_reuse(const struct step *stale)
{
    const struct step *const scripts[] = {stale, ANSWER_THRICE};
    NET(net, scripts);
    struct record record = {0};
    run_second(&net, &record);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_string_equal(record.body, "ok");
    assert_false(record.stats.reused);
    assert_int_equal(net.upstream.accepted_count, 2);
    net_deinit(&net);
}

static void test_stale_reuse_is_retried(void **state)
{
    (void)state;
    run_stale_reuse(ANSWER_THEN_RESET);
    run_stale_reuse(ANSWER_THEN_CLOSE);
}

/** The peer has closed, but the loop has not been told yet when the request is written. */
static void test_closed_under_our_feet(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE, ANSWER_THRICE);
    NET(net, scripts);
    struct record first = {0}, second = {0};
    record_run(&first, &net, &PATIENT);
    peer_reset(&net.upstream.peers[0]);
    record_run(&second, &net, &PATIENT);
    assert_int_equal(second.failure, PL_FAIL_NONE);
    assert_int_equal(net.upstream.accepted_count, 2);
    net_deinit(&net);
}

static void test_stale_reuse_is_retried_once(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THEN_RESET, RESET_AT_ONCE, ANSWER_THRICE);
    NET(net, scripts);
    struct record record = {0};
    run_second(&net, &record);
    assert_int_equal(record.failure, PL_FAIL_RESET);
    assert_int_equal(net.upstream.accepted_count, 2);
    net_deinit(&net);
}

/** Who cannot have a request served twice gets the failure, and that it was sent. */
static void test_stale_reuse_of_what_is_sent_once(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_THEN_RESET, ANSWER_THRICE};
    struct pl_attempt_request once = GET;
    once.sends_once = true;
    NET(net, scripts);
    struct record first = {0}, second = {0};
    record_run(&first, &net, &PATIENT);
    record_start(&second, &net, &once, &PATIENT);
    run_until_count(net.base, &second.done, 1);
    assert_int_equal(second.failure, PL_FAIL_RESET);
    assert_true(second.stats.request_sent);
    assert_int_equal(net.upstream.accepted_count, 1);
    net_deinit(&net);
}

/** Of a connection that takes nothing any more nobody has read anything. */
static void test_sent_once_over_a_dead_connection(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_THRICE, ANSWER_THRICE};
    struct pl_attempt_request once = GET;
    once.sends_once = true;
    NET(net, scripts);
    struct record first = {0}, second = {0};
    record_run(&first, &net, &PATIENT);
    peer_reset(&net.upstream.peers[0]);
    record_start(&second, &net, &once, &PATIENT);
    run_until_count(net.base, &second.done, 1);
    assert_int_equal(second.failure, PL_FAIL_NONE);
    assert_int_equal(net.upstream.accepted_count, 2);
    net_deinit(&net);
}

static void test_no_retry_after_first_byte(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THEN_HALF, ANSWER_THRICE);
    NET(net, scripts);
    struct record record = {0};
    run_second(&net, &record);
    assert_int_equal(record.failure, PL_FAIL_RESET);
    assert_int_equal(net.upstream.accepted_count, 1);
    net_deinit(&net);
}

/* ---- connecting ---- */

static uint16_t unused_port(void)
{
    uint16_t port = 0;
    close(listen_on("127.0.0.1", &port));
    return port;
}

static void test_refused(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    net.endpoint.port = unused_port();
    struct record record = {0};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_CONNECT);
    char expected[64];
    snprintf(expected, sizeof(expected), "connect to 127.0.0.1:%u: Connection refused",
             net.endpoint.port);
    assert_string_equal(record.stats.detail, expected);
    assert_false(record.stats.request_sent);
    net_deinit(&net);
}

/** Whatever this machine makes of IPv6, nobody listens there. */
static void test_refused_v6(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    net.endpoint.host = "::1";
    net.endpoint.port = unused_port();
    struct record record = {0};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_CONNECT);
    assert_ptr_equal(strstr(record.stats.detail, "connect to [::1]:"), record.stats.detail);
    net_deinit(&net);
}

/** No socket can be made: told from the loop like any other end. */
static void test_no_descriptors(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct record record = {0};
    record_start(&record, &net, &GET, &PATIENT);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_CONNECT);
    assert_non_null(strstr(record.stats.detail, "Too many open files"));
    net_deinit(&net);
}

/** A listener whose queue is full: the kernel drops further SYNs, as a black hole would. */
struct black_hole {
    int fd, fillers[8];
    uint16_t port;
};

static void black_hole_init(struct black_hole *self, const char *address, uint16_t port)
{
    self->port = port;
    self->fd = listen_on(address, &self->port);
    assert_int_equal(listen(self->fd, 0), 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(self->port)};
    inet_pton(AF_INET, address, &in.sin_addr);
    for (size_t i = 0; i < PL_COUNT(self->fillers); i++) {
        self->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(self->fillers[i], (struct sockaddr *)&in, sizeof(in));
    }
}

static void black_hole_deinit(struct black_hole *self)
{
    close(self->fd);
    for (size_t i = 0; i < PL_COUNT(self->fillers); i++) {
        close(self->fillers[i]);
    }
}

static void test_connect_timeout(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    struct black_hole hole;
    black_hole_init(&hole, "127.0.0.1", 0);
    net.endpoint.port = hole.port;
    struct record record = {0};
    record_run(&record, &net, &(struct pl_attempt_limits){.connect_ms = 50});
    assert_int_equal(record.failure, PL_FAIL_TIMEOUT_CONNECT);
    assert_non_null(strstr(record.stats.detail, "no answer"));
    black_hole_deinit(&hole);
    net_deinit(&net);
}

static void test_unknown_name(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    net.endpoint.host = "";
    struct record record = {0};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_DNS);
    assert_non_null(strstr(record.stats.detail, "lookup of"));
    net_deinit(&net);
}

/** The first address refuses, the second is silent, the third answers. */
static void test_addresses_in_turn(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    struct black_hole hole;
    black_hole_init(&hole, "127.0.0.3", net.endpoint.port);
    struct name_server names = {.addresses = {"127.0.0.2", "127.0.0.3", "127.0.0.1"},
                                .address_count = 3};
    name_server_init(&names, &net);
    struct record record = {0};
    record_run(&record, &net, &(struct pl_attempt_limits){.connect_ms = 5000});
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_true(record.stats.connect_ms >= 2000 && record.stats.connect_ms < 5000);
    name_server_deinit(&names);
    net_deinit(&net);
    black_hole_deinit(&hole);
}

static void test_lookup_timeout(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    struct name_server names = {.silent = true};
    name_server_init(&names, &net);
    struct record record = {0};
    record_run(&record, &net, &(struct pl_attempt_limits){.connect_ms = 50});
    assert_int_equal(record.failure, PL_FAIL_TIMEOUT_CONNECT);
    assert_string_equal(record.stats.detail, "lookup of upstream.test: no answer after 50 ms");
    name_server_deinit(&names);
    net_deinit(&net);
}

/* ---- cancel ---- */

static void cancel_now(struct record *self)
{
    pl_attempt_cancel(self->attempt);
}

static void test_cancel_at_once(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE, ANSWER_THRICE);
    NET(net, scripts);
    struct record connecting = {0}, first = {0}, reusing = {0};
    record_start(&connecting, &net, &GET, &PATIENT);
    cancel_now(&connecting);
    record_run(&first, &net, &PATIENT);
    record_start(&reusing, &net, &GET, &PATIENT);
    cancel_now(&reusing);
    run_until_still(net.base, &net.upstream.received_bytes);
    assert_int_equal(connecting.done + reusing.done + reusing.head_count, 0);
    net_deinit(&net);
}

static void test_cancel_during_lookup(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    struct name_server names = {.silent = true};
    name_server_init(&names, &net);
    struct record record = {0};
    record_start(&record, &net, &GET, &PATIENT);
    run_until_count(net.base, &names.question_count, 1);
    cancel_now(&record);
    run_until_still(net.base, &names.question_count);
    assert_int_equal(record.done, 0);
    name_server_deinit(&names);
    net_deinit(&net);
}

static void test_cancel_during_connect(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    struct black_hole hole;
    black_hole_init(&hole, "127.0.0.1", 0);
    net.endpoint.port = hole.port;
    struct record record = {0};
    record_start(&record, &net, &GET, &PATIENT);
    run_for_ms(net.base, 10);
    cancel_now(&record);
    run_until_still(net.base, &record.done);
    assert_int_equal(record.done, 0);
    black_hole_deinit(&hole);
    net_deinit(&net);
}

static void test_cancel_while_sending(void **state)
{
    (void)state;
    static const struct step script[] = {{OP_HEAD, NULL, 0}, {OP_DEAF, NULL, 0}, {OP_END, NULL, 0}};
    SCRIPTS(script);
    NET(net, scripts);
    struct pl_attempt_request request = upload_request();
    struct record record = {0};
    record_start(&record, &net, &request, &PATIENT);
    run_until_count(net.base, &net.upstream.received_bytes, 1);
    run_until_still(net.base, &net.upstream.received_bytes);
    cancel_now(&record);
    run_until_still(net.base, &record.done);
    assert_int_equal(record.done + record.head_count, 0);
    net_deinit(&net);
}

static void run_cancel_inside(struct record *record)
{
    SCRIPTS(FLOOD);
    NET(net, scripts);
    record_start(record, &net, &GET, &PATIENT);
    run_until_count(net.base, &net.upstream.ended_count, 1);
    assert_int_equal(record->done, 0);
    assert_int_equal(record->head_count, 1);
    net_deinit(&net);
}

static void test_cancel_inside_callbacks(void **state)
{
    (void)state;
    struct record in_head = {.at_head = cancel_now}, in_body = {.at_body = cancel_now};
    run_cancel_inside(&in_head);
    assert_int_equal(in_head.body_calls, 0);
    run_cancel_inside(&in_body);
    assert_int_equal(in_body.body_calls, 1);
}

static void test_cancel_inside_done(void **state)
{
    (void)state;
    SCRIPTS(ANSWER_THRICE);
    NET(net, scripts);
    struct record record = {.at_done = cancel_now};
    record_run(&record, &net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_int_equal(net.pool->idle_count, 1);
    net_deinit(&net);
}

static void test_cancel_while_paused(void **state)
{
    (void)state;
    SCRIPTS(FLOOD);
    NET(net, scripts);
    struct record record = {.at_head = pause_now};
    record_start(&record, &net, &GET, &PATIENT);
    run_until_count(net.base, &record.head_count, 1);
    run_until_still(net.base, &net.upstream.sent_bytes);
    pl_attempt_resume(record.attempt); /* the delivery is on its way, and must not arrive */
    cancel_now(&record);
    run_until_still(net.base, &record.body_calls);
    assert_int_equal(record.body_calls, 0);
    net_deinit(&net);
}

/** The pool goes first, as when the configuration is replaced. */
static void test_pool_freed_first(void **state)
{
    (void)state;
    SCRIPTS(HANGING_STREAM);
    NET(net, scripts);
    struct record record = {0};
    record_start(&record, &net, &GET, &PATIENT);
    run_until_count(net.base, &record.body_bytes, 3);
    pl_pool_free(net.pool);
    net.pool = NULL;
    upstream_open_gate(&net.upstream);
    run_until_count(net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    run_until_count(net.base, &net.upstream.ended_count, 1);
    net_deinit(&net);
}

static void test_failure_names(void **state)
{
    (void)state;
    assert_string_equal(pl_failure_name(PL_FAIL_NONE), "ok");
    assert_string_equal(pl_failure_name(PL_FAIL_TIMEOUT_FIRST_TOKEN), "timeout_first_token");
    assert_string_equal(pl_failure_name(PL_FAIL_EMPTY), "empty");
    assert_string_equal(pl_failure_name((enum pl_failure)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_answers),
        cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_broken_answers),
        cmocka_unit_test(test_head_without_end),
        cmocka_unit_test(test_large_request),
        cmocka_unit_test(test_early_refusal),
        cmocka_unit_test(test_early_success),
        cmocka_unit_test(test_reset_while_sending),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limits_of_an_attempt_that_follows),
        TEST_BY_OWN_CLOCK(test_pause_stops_idle_clock),
        TEST_BY_OWN_CLOCK(test_progress_resets_idle_clock),
        cmocka_unit_test(test_pause_under_flood),
        cmocka_unit_test(test_pause_in_head),
        cmocka_unit_test(test_pause_and_resume_inside),
        cmocka_unit_test(test_pause_before_head),
        cmocka_unit_test(test_try_limit_while_paused),
        cmocka_unit_test(test_reuse_by_credential),
        cmocka_unit_test(test_start_inside_done),
        cmocka_unit_test(test_surplus_is_not_reused),
        cmocka_unit_test(test_stale_reuse_is_retried),
        cmocka_unit_test(test_closed_under_our_feet),
        cmocka_unit_test(test_stale_reuse_is_retried_once),
        cmocka_unit_test(test_stale_reuse_of_what_is_sent_once),
        cmocka_unit_test(test_sent_once_over_a_dead_connection),
        cmocka_unit_test(test_no_retry_after_first_byte),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_v6),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_unknown_name),
        cmocka_unit_test(test_addresses_in_turn),
        cmocka_unit_test(test_lookup_timeout),
        cmocka_unit_test(test_cancel_at_once),
        cmocka_unit_test(test_cancel_during_lookup),
        cmocka_unit_test(test_cancel_during_connect),
        cmocka_unit_test(test_cancel_while_sending),
        cmocka_unit_test(test_cancel_inside_callbacks),
        cmocka_unit_test(test_cancel_inside_done),
        cmocka_unit_test(test_cancel_while_paused),
        cmocka_unit_test(test_pool_freed_first),
        cmocka_unit_test(test_failure_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
