/*
 * Tests of watchdog.c: what it says, by a clock of the test's own.
 */
#include "log.h"
#include "watchdog.h"
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LIMIT_MS 1000

struct fixture {
    struct pl_watchdog *watchdog;
    struct pl_watch watches[2];
    int real_stderr, read_fd;
    char text[1 << 14];
};

static int set_up(void **state)
{
    struct fixture *self = calloc(1, sizeof(*self));
    int ends[2];
    self->watchdog = pl_watchdog_new(LIMIT_MS);
    pl_watchdog_add(self->watchdog, &self->watches[0]);
    pl_watchdog_add(self->watchdog, &self->watches[1]);
    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    self->read_fd = ends[0];
    self->real_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    *state = self;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *self = *state;
    dup2(self->real_stderr, STDERR_FILENO);
    close(self->real_stderr);
    close(self->read_fd);
    pl_watchdog_free(self->watchdog);
    free(self);
    return 0;
}

/* What has been logged since the last call. */
static const char *logged(struct fixture *self)
{
    ssize_t len = read(self->read_fd, self->text, sizeof(self->text) - 1);
    self->text[len > 0 ? len : 0] = '\0';
    return self->text;
}

static void test_reports_a_stall_once(void **state)
{
    struct fixture *self = *state;
    pl_watch_enter(&self->watches[1], "request-7");
    pl_watchdog_look(self->watchdog, 5000);
    pl_watchdog_look(self->watchdog, 5000 + LIMIT_MS - 1);
    assert_string_equal(logged(self), "");
    pl_watchdog_look(self->watchdog, 5000 + LIMIT_MS);
    const char *line = logged(self);
    assert_non_null(
        strstr(line, " error request request-7: its policy has kept worker 1 for 1000 ms"));
    assert_int_equal(pl_watchdog_stalled_now(self->watchdog), 1);
    pl_watchdog_look(self->watchdog, 5000 + 9 * LIMIT_MS);
    assert_string_equal(logged(self), "");
    assert_int_equal(pl_watchdog_stall_count(self->watchdog), 1);
}

static void test_says_when_it_goes_on(void **state)
{
    struct fixture *self = *state;
    pl_watch_enter(&self->watches[0], "a");
    pl_watchdog_look(self->watchdog, 100);
    pl_watchdog_look(self->watchdog, 100 + LIMIT_MS);
    logged(self);
    pl_watch_leave(&self->watches[0]);
    pl_watchdog_look(self->watchdog, 100 + 2 * LIMIT_MS);
    assert_non_null(strstr(logged(self), "worker 0 goes on, after about 2000 ms"));
    assert_int_equal(pl_watchdog_stalled_now(self->watchdog), 0);
    pl_watch_enter(&self->watches[0], "b");
    pl_watchdog_look(self->watchdog, 10000);
    pl_watchdog_look(self->watchdog, 10000 + LIMIT_MS);
    assert_non_null(strstr(logged(self), "request b:"));
    assert_int_equal(pl_watchdog_stall_count(self->watchdog), 2);
}

static void test_lets_what_moves_pass(void **state)
{
    struct fixture *self = *state;
    for (uint64_t now_ms = 0; now_ms < 20 * LIMIT_MS; now_ms += LIMIT_MS / 2) {
        pl_watch_enter(&self->watches[0], "busy");
        pl_watchdog_look(self->watchdog, now_ms);
        pl_watch_leave(&self->watches[0]);
    }
    /* idle is no stall either, however long */
    pl_watchdog_look(self->watchdog, 100 * LIMIT_MS);
    pl_watchdog_look(self->watchdog, 200 * LIMIT_MS);
    assert_string_equal(logged(self), "");
    assert_int_equal(pl_watchdog_stall_count(self->watchdog), 0);
}

static void test_shows_a_shorter_id_after_a_longer_one(void **state)
{
    struct fixture *self = *state;
    char longest[256];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    pl_watch_enter(&self->watches[0], longest);
    pl_watchdog_look(self->watchdog, 0);
    pl_watchdog_look(self->watchdog, LIMIT_MS);
    assert_non_null(strstr(logged(self), "request xxxxxxxx"));
    pl_watch_leave(&self->watches[0]);
    pl_watch_enter(&self->watches[0], "12345678");
    pl_watchdog_look(self->watchdog, 2 * LIMIT_MS);
    pl_watchdog_look(self->watchdog, 3 * LIMIT_MS);
    assert_non_null(strstr(logged(self), "request 12345678:"));
}

static void test_heeds_a_new_limit(void **state)
{
    struct fixture *self = *state;
    pl_watchdog_set_limit(self->watchdog, 3 * LIMIT_MS);
    pl_watch_enter(&self->watches[0], "a");
    pl_watchdog_look(self->watchdog, 0);
    pl_watchdog_look(self->watchdog, 2 * LIMIT_MS);
    assert_string_equal(logged(self), "");
    pl_watchdog_look(self->watchdog, 3 * LIMIT_MS);
    assert_non_null(strstr(logged(self), "request a:"));
}

static void *go_in_and_out(void *arg)
{
    struct pl_watch *watch = arg;
    for (int i = 0; i < 200000; i++) {
        pl_watch_enter(watch, i % 2 ? "one" : "another-id");
        pl_watch_leave(watch);
    }
    pl_watch_enter(watch, "the-last");
    return NULL;
}

/* For the thread sanitizer; and what moves is never taken for a stall. */
static void test_looks_while_the_worker_moves(void **state)
{
    struct fixture *self = *state;
    pthread_t thread;
    uint64_t now_ms = 0;
    assert_int_equal(pthread_create(&thread, NULL, go_in_and_out, &self->watches[0]), 0);
    for (int i = 0; i < 1000; i++)
        pl_watchdog_look(self->watchdog, now_ms);
    pthread_join(thread, NULL);
    pl_watchdog_look(self->watchdog, now_ms);
    assert_string_equal(logged(self), "");
    pl_watchdog_look(self->watchdog, LIMIT_MS);
    assert_non_null(strstr(logged(self), "request the-last:"));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_reports_a_stall_once), TEST(test_says_when_it_goes_on),
        TEST(test_lets_what_moves_pass), TEST(test_shows_a_shorter_id_after_a_longer_one),
        TEST(test_heeds_a_new_limit),    TEST(test_looks_while_the_worker_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
