/*
 * Tests of exporter.c and spans.c: a queue that is full, a collector on a socket of the test's own
 * that answers as told.
 */
#include "clock_test.h"
#include "exporter.h"
#include "json.h"
#include "log.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 20000

/* ---- records -------------------------------------------------------------------------------- */

static struct pl_record record_of(const struct pl_record_attempt *attempts, size_t count)
{
    return (struct pl_record){.start_wall_ms = 1767614400123,
                              .method = PL_STR("POST"),
                              .path = PL_STR("/v1/chat/completions"),
                              .operation = "chat",
                              .status = 200,
                              .first_token_ms = PL_UNKNOWN_MS,
                              .trace = {.id_low = 1, .span_id = 5, .sampled = true},
                              .attempts = attempts,
                              .attempt_count = count};
}

static const struct pl_record_attempt ATTEMPT = {.target = "a/b", .provider = "a", .span_id = 9};

static void add(struct pl_spans *spans, size_t count)
{
    struct pl_otlp_text text;
    pl_otlp_text_init(&text);
    for (size_t i = 0; i < count; i++) {
        struct pl_record record = record_of(&ATTEMPT, 1);
        pl_spans_add(spans, &text, &record);
    }
    pl_otlp_text_deinit(&text);
}

static struct pl_spans_counts look(struct pl_spans *spans)
{
    struct pl_spans_counts counts;
    pl_spans_look(spans, &counts);
    return counts;
}

/* ---- the queue ------------------------------------------------------------------------------ */

static void test_nothing_is_taken_without_a_limit_or_unsampled(void **state)
{
    (void)state;
    struct pl_spans *spans = pl_spans_new("http");
    struct pl_record record = record_of(NULL, 0);
    struct pl_otlp_text text;
    pl_otlp_text_init(&text);
    add(spans, 3);
    pl_spans_set_limit(spans, 1 << 20);
    record.trace.sampled = false;
    pl_spans_add(spans, &text, &record);
    assert_null(pl_spans_take(spans, true));
    assert_int_equal(look(spans).queued, 0);
    assert_int_equal(look(spans).dropped[PL_SPAN_DROP_QUEUE_FULL], 0);
    pl_otlp_text_deinit(&text);
    pl_spans_free(spans);
}

/* A batch as a JSON array. */
static void assert_is_array(const struct pl_span_batch *batch)
{
    char *text = malloc(batch->bytes + 2);
    size_t len = 1;
    text[0] = '[';
    for (size_t i = 0; i < batch->block_count; i++) {
        memcpy(text + len, batch->blocks[i].iov_base, batch->blocks[i].iov_len);
        len += batch->blocks[i].iov_len;
    }
    assert_int_equal(len, batch->bytes + 1);
    text[len++] = ']';
    assert_int_equal(pl_json_validate(text, len), PL_OK);
    free(text);
}

static void test_batches_are_bounded_and_whole(void **state)
{
    (void)state;
    struct pl_spans *spans = pl_spans_new("http");
    pl_spans_set_limit(spans, 16 << 20);
    add(spans, 600); /* of two spans each */
    struct pl_span_batch *batch = pl_spans_take(spans, false);
    assert_int_equal(batch->span_count, PL_SPANS_BATCH_COUNT);
    assert_is_array(batch);
    pl_spans_settle(spans, batch, 2);
    batch = pl_spans_take(spans, false);
    assert_int_equal(batch->span_count, PL_SPANS_BATCH_COUNT);
    pl_spans_drop(spans, batch, PL_SPAN_DROP_UNREACHABLE);
    assert_null(pl_spans_take(spans, false));
    batch = pl_spans_take(spans, true);
    assert_int_equal(batch->span_count, 1200 - 2 * PL_SPANS_BATCH_COUNT);
    assert_is_array(batch);
    pl_spans_settle(spans, batch, 100000); /* no more than there are */
    struct pl_spans_counts counts = look(spans);
    assert_int_equal(counts.exported, PL_SPANS_BATCH_COUNT - 2);
    assert_int_equal(counts.dropped[PL_SPAN_DROP_UNREACHABLE], PL_SPANS_BATCH_COUNT);
    assert_int_equal(counts.dropped[PL_SPAN_DROP_REJECTED], 2 + 1200 - 2 * PL_SPANS_BATCH_COUNT);
    assert_int_equal(counts.queued, 0);
    assert_int_equal(counts.queued_bytes, 0);
    pl_spans_free(spans);
}

static void test_a_full_queue_drops_what_comes(void **state)
{
    (void)state;
    struct pl_spans *spans = pl_spans_new("http");
    pl_spans_set_limit(spans, 200000);
    add(spans, 1000);
    struct pl_spans_counts counts = look(spans);
    assert_true(counts.queued > 0);
    assert_int_equal(counts.queued + counts.dropped[PL_SPAN_DROP_QUEUE_FULL], 2000);
    assert_true(counts.queued_bytes <= 200000 + 4096);
    struct pl_span_batch *batch = pl_spans_take(spans, true);
    add(spans, 1000); /* what is out is counted, too */
    assert_true(look(spans).queued_bytes <= 200000 + 4096);
    pl_spans_drop(spans, batch, PL_SPAN_DROP_REJECTED);
    pl_spans_drop_all(spans, PL_SPAN_DROP_SHUTDOWN);
    assert_int_equal(look(spans).queued_bytes, 0);
    pl_spans_free(spans);
}

#define THREAD_COUNT 4
#define ADDS         2000

static void *add_many(void *arg)
{
    add(arg, ADDS);
    return NULL;
}

static void test_many_threads_add(void **state)
{
    (void)state;
    struct pl_spans *spans = pl_spans_new("http");
    pthread_t threads[THREAD_COUNT];
    size_t span_count = 0;
    pl_spans_set_limit(spans, 64 << 20);
    for (size_t i = 0; i < THREAD_COUNT; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, spans), 0);
    for (size_t i = 0; i < THREAD_COUNT; i++)
        pthread_join(threads[i], NULL);
    struct pl_span_batch *batch;
    while ((batch = pl_spans_take(spans, true))) {
        assert_true(batch->span_count <= PL_SPANS_BATCH_COUNT);
        assert_is_array(batch);
        span_count += batch->span_count;
        pl_spans_settle(spans, batch, 0);
    }
    assert_int_equal(span_count, THREAD_COUNT * ADDS * 2);
    pl_spans_free(spans);
}

/* ---- a collector ---------------------------------------------------------------------------- */

/* Accepts by itself, but answers only what the test says: NULL closes. */
struct world {
    struct event_base *base;
    struct pl_resolver *resolver;
    struct pl_spans *spans;
    struct pl_tracing *tracing;
    struct pl_exporter *exporter;
    int listener;
    struct event *accept_event;
    const char *const *answers; /* the last one for ever */
    size_t request_count;
    uint64_t request_ms[16];
};

struct session {
    struct world *world;
    struct event *event;
    char *data;
    size_t len;
};

static void session_free(struct session *self)
{
    close(event_get_fd(self->event));
    event_free(self->event);
    free(self->data);
    free(self);
}

/* Whether a whole request has been read. */
static bool is_whole(const struct session *self)
{
    const char *end = memmem(self->data, self->len, "\r\n\r\n", 4);
    const char *length = end ? memmem(self->data, self->len, "Content-Length: ", 16) : NULL;
    if (!length)
        return false;
    return self->len == (size_t)(end + 4 - self->data) + strtoul(length + 16, NULL, 10);
}

static void answer(struct session *self)
{
    struct world *world = self->world;
    if (world->request_count < PL_COUNT(world->request_ms))
        world->request_ms[world->request_count] = pl_now_ms();
    const char *text = world->answers[0];
    if (world->answers[1])
        world->answers++;
    world->request_count++;
    if (text[0] == '\0') {
        session_free(self);
        return;
    }
    assert_int_equal(write(event_get_fd(self->event), text, strlen(text)), strlen(text));
    self->len = 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct session *self = arg;
    self->data = realloc(self->data, self->len + 65536);
    ssize_t n = read(fd, self->data + self->len, 65536);
    if (n <= 0) {
        session_free(self);
        return;
    }
    self->len += (size_t)n;
    if (is_whole(self))
        answer(self);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct world *world = arg;
    struct session *self = calloc(1, sizeof(*self));
    self->world = world;
    self->event =
        event_new(world->base, accept(fd, NULL, NULL), EV_READ | EV_PERSIST, on_readable, self);
    event_add(self->event, NULL);
}

static const struct pl_exporter_times QUICK = {.batch_ms = 5,
                                               .backoff_ms = 20,
                                               .max_backoff_ms = 80,
                                               .max_retry_after_ms = 200,
                                               .give_up_ms = WAIT_MS};

static struct pl_tracing *tracing_to(uint16_t port)
{
    struct pl_tracing *self = pl_tracing_new();
    self->endpoint.host = pl_xstrdup("127.0.0.1");
    self->endpoint.port = port;
    self->endpoint.max_idle = 1;
    self->path = pl_xstrdup("/v1/traces");
    self->host_header = pl_xstrdup("127.0.0.1");
    self->timeout_ms = WAIT_MS;
    self->queue_bytes = 4 << 20;
    return self;
}

static void world_open(struct world *self, const char *const *answers)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    *self = (struct world){.answers = answers};
    pl_log_set_level(PL_LOG_ERROR);
    self->base = event_base_new();
    self->resolver = pl_resolver_new(self->base);
    self->spans = pl_spans_new("http");
    self->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(self->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(self->listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(self->listener, 8), 0);
    self->accept_event =
        event_new(self->base, self->listener, EV_READ | EV_PERSIST, on_accept, self);
    event_add(self->accept_event, NULL);
    self->tracing = tracing_to(ntohs(address.sin_port));
    self->exporter =
        pl_exporter_new(self->base, self->resolver, self->spans, self->tracing, &QUICK);
}

static void world_close(struct world *self)
{
    pl_exporter_free(self->exporter);
    pl_tracing_unref(self->tracing);
    event_base_loop(self->base, EVLOOP_NONBLOCK); /* what is left of sessions */
    event_base_loop(self->base, EVLOOP_NONBLOCK);
    pl_resolver_free(self->resolver);
    event_free(self->accept_event);
    close(self->listener);
    pl_spans_free(self->spans);
    event_base_free(self->base);
}

static void run_until_requests(struct world *self, size_t count)
{
    while (self->request_count < count)
        event_base_loop(self->base, EVLOOP_ONCE);
}

/* Runs the loop until nothing is queued any more. */
static struct pl_spans_counts run_until_empty(struct world *self)
{
    uint64_t end_ms = real_now_ms() + WAIT_MS;
    while (look(self->spans).queued > 0) {
        if (real_now_ms() > end_ms)
            fail_msg("still queued");
        event_base_loop(self->base, EVLOOP_ONCE);
    }
    return look(self->spans);
}

#define OK       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
#define BUSY     "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
#define BUSY_DAY "HTTP/1.1 429 Busy\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n"
#define BAD      "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"
#define SILENCE  "HTTP/1.1 "

#define ANSWERS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_spans_arrive(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(OK));
    add(world.spans, 600);
    struct pl_spans_counts counts = run_until_empty(&world);
    assert_int_equal(counts.exported, 1200);
    assert_int_equal(counts.failed_exports, 0);
    assert_int_equal(world.request_count, 3);
    world_close(&world);
}

static void test_a_collector_that_is_not_ready_is_asked_again(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS("", BUSY, OK));
    add(world.spans, 1);
    struct pl_spans_counts counts = run_until_empty(&world);
    assert_int_equal(counts.exported, 2);
    assert_int_equal(counts.failed_exports, 2);
    assert_int_equal(world.request_count, 3);
    world_close(&world);
}

static void test_what_is_refused_is_dropped_at_once(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(BAD, OK));
    add(world.spans, 1);
    struct pl_spans_counts counts = run_until_empty(&world);
    assert_int_equal(counts.dropped[PL_SPAN_DROP_REJECTED], 2);
    assert_int_equal(world.request_count, 1);
    world_close(&world);
}

static void test_in_the_end_a_batch_is_given_up(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(BUSY));
    add(world.spans, 1);
    move_own_clock_ms(QUICK.give_up_ms - QUICK.max_backoff_ms);
    run_until_requests(&world, 4);
    assert_int_equal(look(world.spans).dropped[PL_SPAN_DROP_UNREACHABLE], 0);
    move_own_clock_ms(QUICK.give_up_ms);
    struct pl_spans_counts counts = run_until_empty(&world);
    assert_int_equal(counts.dropped[PL_SPAN_DROP_UNREACHABLE], 2);
    assert_int_equal(counts.failed_exports, world.request_count);
    world_close(&world);
}

static void test_no_collector_makes_us_wait_for_long(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(BUSY_DAY, OK));
    add(world.spans, 1);
    struct pl_spans_counts counts = run_until_empty(&world);
    assert_int_equal(counts.exported, 2);
    uint64_t waited_ms = world.request_ms[1] - world.request_ms[0];
    /* more than any back-off; how much less than asked is up to libevent's cached, coarse clock */
    assert_true(waited_ms > QUICK.max_backoff_ms && waited_ms < WAIT_MS);
    world_close(&world);
}

static void test_a_silent_collector_times_out(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(SILENCE, OK));
    world.tracing->timeout_ms = 100;
    add(world.spans, 1);
    run_until_requests(&world, 1);
    move_own_clock_ms(100);
    struct pl_spans_counts counts = run_until_empty(&world);
    assert_int_equal(counts.exported, 2);
    assert_int_equal(counts.failed_exports, 1);
    world_close(&world);
}

static void test_another_collector_gets_what_waits(void **state)
{
    (void)state;
    struct world world, other;
    world_open(&world, ANSWERS(OK));
    world_open(&other, ANSWERS(OK));
    struct pl_tracing *nobody = tracing_to(1);
    pl_exporter_follow(world.exporter, nobody);
    add(world.spans, 1);
    while (look(world.spans).failed_exports == 0)
        event_base_loop(world.base, EVLOOP_ONCE);
    pl_exporter_follow(world.exporter, world.tracing);
    assert_int_equal(run_until_empty(&world).exported, 2);
    pl_tracing_unref(nobody);
    world_close(&other);
    world_close(&world);
}

static void test_turned_off_while_it_sends(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(SILENCE));
    world.tracing->timeout_ms = 100;
    struct pl_tracing *off = pl_tracing_new();
    add(world.spans, 600);
    run_until_requests(&world, 1);
    pl_exporter_follow(world.exporter, off);
    struct pl_spans_counts counts = run_until_empty(&world);
    assert_int_equal(counts.dropped[PL_SPAN_DROP_SHUTDOWN], 1200);
    add(world.spans, 1);
    assert_int_equal(look(world.spans).queued, 0);
    pl_tracing_unref(off);
    world_close(&world);
}

static void test_a_flush_sends_all_that_it_can(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(OK));
    add(world.spans, 600);
    pl_exporter_flush(world.exporter, WAIT_MS);
    assert_int_equal(look(world.spans).exported, 1200);
    world_close(&world);
}

static void test_a_flush_tries_once(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(BUSY));
    add(world.spans, 1);
    pl_exporter_flush(world.exporter, WAIT_MS);
    assert_int_equal(world.request_count, 1);
    assert_int_equal(look(world.spans).dropped[PL_SPAN_DROP_SHUTDOWN], 2);
    world_close(&world);
}

static void test_a_flush_ends_in_time(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, ANSWERS(SILENCE));
    add(world.spans, 600);
    uint64_t start_ms = pl_now_ms();
    pl_exporter_flush(world.exporter, 50);
    assert_true(pl_now_ms() - start_ms < WAIT_MS);
    assert_int_equal(look(world.spans).dropped[PL_SPAN_DROP_SHUTDOWN], 1200);
    assert_int_equal(look(world.spans).queued_bytes, 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_taken_without_a_limit_or_unsampled),
        cmocka_unit_test(test_batches_are_bounded_and_whole),
        cmocka_unit_test(test_a_full_queue_drops_what_comes),
        cmocka_unit_test(test_many_threads_add),
        cmocka_unit_test(test_spans_arrive),
        cmocka_unit_test(test_a_collector_that_is_not_ready_is_asked_again),
        cmocka_unit_test(test_what_is_refused_is_dropped_at_once),
        TEST_BY_OWN_CLOCK(test_in_the_end_a_batch_is_given_up),
        cmocka_unit_test(test_no_collector_makes_us_wait_for_long),
        TEST_BY_OWN_CLOCK(test_a_silent_collector_times_out),
        cmocka_unit_test(test_another_collector_gets_what_waits),
        cmocka_unit_test(test_turned_off_while_it_sends),
        cmocka_unit_test(test_a_flush_sends_all_that_it_can),
        cmocka_unit_test(test_a_flush_tries_once),
        cmocka_unit_test(test_a_flush_ends_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
