/*
 * Tests of sink.c: real files and pipes, readers that stop, a disk that is full.
 */
#include "log.h"
#include "sink.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS        5000
#define THREAD_COUNT   8
#define LINES_A_THREAD 5000

struct folder {
    char path[64], file[96], moved[96];
};

static int set_up(void **state)
{
    struct folder *self = calloc(1, sizeof(*self));
    snprintf(self->path, sizeof(self->path), "/tmp/sink_test.XXXXXX");
    assert_non_null(mkdtemp(self->path));
    snprintf(self->file, sizeof(self->file), "%s/log", self->path);
    snprintf(self->moved, sizeof(self->moved), "%s/log.1", self->path);
    pl_log_set_level(PL_LOG_ERROR);
    *state = self;
    return 0;
}

static int tear_down(void **state)
{
    struct folder *self = *state;
    unlink(self->file);
    unlink(self->moved);
    rmdir(self->path);
    free(self);
    return 0;
}

static struct pl_sink *open_sink(const char *path)
{
    char error[256] = "";
    struct pl_sink *sink = pl_sink_new(path, error, sizeof(error));
    if (!sink)
        fail_msg("%s", error);
    return sink;
}

static char *read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "r");
    char *data = calloc(1, 16 * 1024 * 1024);
    assert_non_null(file);
    *len = fread(data, 1, 16 * 1024 * 1024 - 1, file);
    fclose(file);
    return data;
}

static size_t count_lines(const char *data)
{
    size_t count = 0;
    for (const char *at = data; (at = strchr(at, '\n')); at++)
        count++;
    return count;
}

static void test_lines_arrive_in_order(void **state)
{
    struct folder *folder = *state;
    struct pl_sink *sink = open_sink(folder->file);
    assert_true(pl_sink_write(sink, "one\n", 4));
    assert_true(pl_sink_write(sink, "two\n", 4));
    assert_int_equal(pl_sink_line_total(sink), 2);
    pl_sink_free(sink, WAIT_MS);
    size_t len;
    char *data = read_file(folder->file, &len);
    assert_string_equal(data, "one\ntwo\n");
    free(data);
    sink = open_sink(folder->file);
    pl_sink_write(sink, "three\n", 6);
    pl_sink_free(sink, WAIT_MS);
    data = read_file(folder->file, &len);
    assert_string_equal(data, "one\ntwo\nthree\n");
    free(data);
}

static void *write_many(void *arg)
{
    char line[64];
    for (int i = 0; i < LINES_A_THREAD; i++) {
        int len = snprintf(line, sizeof(line), "a line of some length, number %d\n", i);
        while (!pl_sink_write(arg, line, (size_t)len))
            usleep(1000);
    }
    return NULL;
}

static void test_threads_never_mix_or_lose_lines(void **state)
{
    struct folder *folder = *state;
    struct pl_sink *sink = open_sink(folder->file);
    pthread_t threads[THREAD_COUNT];
    for (int i = 0; i < THREAD_COUNT; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, sink), 0);
    for (int i = 0; i < THREAD_COUNT; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(pl_sink_line_total(sink), THREAD_COUNT * LINES_A_THREAD);
    pl_sink_free(sink, WAIT_MS);
    size_t len;
    char *data = read_file(folder->file, &len);
    size_t count = 0, sum = 0;
    for (char *line = strtok(data, "\n"); line; line = strtok(NULL, "\n"), count++) {
        int number;
        assert_int_equal(sscanf(line, "a line of some length, number %d", &number), 1);
        sum += (size_t)number;
    }
    assert_int_equal(count, THREAD_COUNT * LINES_A_THREAD);
    assert_int_equal(sum, THREAD_COUNT * ((size_t)LINES_A_THREAD * (LINES_A_THREAD - 1) / 2));
    free(data);
}

static void test_a_moved_file_is_opened_anew(void **state)
{
    struct folder *folder = *state;
    struct pl_sink *sink = open_sink(folder->file);
    struct stat st;
    pl_sink_write(sink, "before\n", 7);
    while (stat(folder->file, &st) != 0 || st.st_size < 7)
        usleep(1000);
    assert_int_equal(rename(folder->file, folder->moved), 0);
    pl_sink_reopen(sink);
    while (stat(folder->file, &st) != 0)
        usleep(1000);
    pl_sink_write(sink, "after\n", 6);
    pl_sink_free(sink, WAIT_MS);
    size_t len;
    char *data = read_file(folder->moved, &len);
    assert_string_equal(data, "before\n");
    free(data);
    data = read_file(folder->file, &len);
    assert_string_equal(data, "after\n");
    free(data);
}

/* Standard output is a pipe whose other end is `*read_fd` while the sink is made. */
static struct pl_sink *open_on_pipe(int *read_fd, int *real_stdout)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    *read_fd = ends[0];
    fflush(stdout);
    *real_stdout = dup(STDOUT_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[1]);
    return open_sink("-");
}

static void close_pipe(int real_stdout)
{
    dup2(real_stdout, STDOUT_FILENO);
    close(real_stdout);
}

static void test_a_stopped_reader_costs_lines_not_time(void **state)
{
    (void)state;
    static char line[1000];
    int read_fd, real_stdout;
    struct pl_sink *sink = open_on_pipe(&read_fd, &real_stdout);
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    size_t written_count = 20000; /* 20 MB, five times what is kept */
    uint64_t taken = 0;
    for (size_t i = 0; i < written_count; i++) /* would never end if one waited for the reader */
        taken += pl_sink_write(sink, line, sizeof(line));
    uint64_t line_total = pl_sink_line_total(sink), dropped_total = pl_sink_dropped_total(sink);
    pl_sink_free(sink, 200); /* gives up although nobody reads */
    close_pipe(real_stdout); /* before the first word of a failure */
    close(read_fd);
    assert_in_range(taken, 4000, 16000);
    assert_int_equal(taken, line_total);
    assert_int_equal(dropped_total, written_count - taken);
}

static void *read_all(void *arg)
{
    static char buffer[65536];
    size_t line_count = 0;
    ssize_t n;
    while ((n = read(*(int *)arg, buffer, sizeof(buffer) - 1)) > 0) {
        buffer[n] = '\0';
        line_count += count_lines(buffer);
    }
    return (void *)line_count;
}

static void test_a_pipe_that_is_read_gets_every_line(void **state)
{
    (void)state;
    int read_fd, real_stdout;
    pthread_t reader;
    void *line_count;
    struct pl_sink *sink = open_on_pipe(&read_fd, &real_stdout);
    assert_int_equal(pthread_create(&reader, NULL, read_all, &read_fd), 0);
    for (int i = 0; i < 20000; i++) {
        while (!pl_sink_write(sink, "a short line\n", 13))
            usleep(1000);
    }
    pl_sink_free(sink, WAIT_MS);
    close_pipe(real_stdout);
    pthread_join(reader, &line_count);
    assert_int_equal((size_t)line_count, 20000);
    close(read_fd);
}

static void test_a_full_disk_is_counted(void **state)
{
    (void)state;
    struct pl_sink *sink = open_sink("/dev/full");
    pl_sink_write(sink, "one\n", 4);
    pl_sink_write(sink, "two\n", 4);
    while (pl_sink_dropped_total(sink) < 2)
        usleep(1000);
    assert_true(pl_sink_write(sink, "three\n", 6));
    pl_sink_free(sink, WAIT_MS);
}

static void test_what_cannot_be_opened_says_why(void **state)
{
    struct folder *folder = *state;
    char error[256], path[128];
    snprintf(path, sizeof(path), "%s/no/log", folder->path);
    assert_null(pl_sink_new(path, error, sizeof(error)));
    assert_non_null(strstr(error, "no/log: No such file or directory"));
    assert_null(pl_sink_new(folder->path, error, sizeof(error)));
    assert_non_null(strstr(error, "Is a directory"));
}

static void test_a_line_above_the_bound_is_dropped(void **state)
{
    struct folder *folder = *state;
    struct pl_sink *sink = open_sink(folder->file);
    char *huge = malloc(PL_SINK_BUFFER_BYTES + 1);
    memset(huge, 'x', PL_SINK_BUFFER_BYTES + 1);
    assert_false(pl_sink_write(sink, huge, PL_SINK_BUFFER_BYTES + 1));
    assert_int_equal(pl_sink_dropped_total(sink), 1);
    free(huge);
    pl_sink_free(sink, WAIT_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines_arrive_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_threads_never_mix_or_lose_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_moved_file_is_opened_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stopped_reader_costs_lines_not_time, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_pipe_that_is_read_gets_every_line, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_opened_says_why, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_line_above_the_bound_is_dropped, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
