/*
 * Tests of log.c: what comes out of stderr.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PREFIX_BYTES   31 /* "2025-03-01T12:00:00.123Z warn  " */
#define LINE_MAX_BYTES 2048

/* stderr is a pipe while a capture lasts */
struct capture {
    int real_stderr, read_fd;
    char text[1 << 16];
    size_t len;
};

static void capture_start(struct capture *self)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    self->read_fd = ends[0];
    self->len = 0;
    self->real_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
}

static void capture_stop(struct capture *self)
{
    dup2(self->real_stderr, STDERR_FILENO);
    close(self->real_stderr);
    size_t room = sizeof(self->text) - 1;
    ssize_t got;
    while ((got = read(self->read_fd, self->text + self->len, room - self->len)) > 0) {
        self->len += (size_t)got;
    }
    self->text[self->len] = '\0';
    close(self->read_fd);
}

static int set_up(void **state)
{
    *state = calloc(1, sizeof(struct capture));
    pl_log_set_level(PL_LOG_DEBUG);
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int rc = regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    if (rc != 0) {
        fail_msg("\"%s\" does not match %s", text, pattern);
    }
}

#define TIME "^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z "

static void test_a_line(void **state)
{
    struct capture *capture = *state;
    capture_start(capture);
    pl_log(PL_LOG_WARN, "target %s suffered %d times", "a/b", 3);
    capture_stop(capture);
    assert_matches(capture->text, TIME "warn  target a/b suffered 3 times\n$");
}

static void test_level_names_line_up(void **state)
{
    static const struct {
        enum pl_log_level level;
        const char *pattern;
    } cases[] = {{PL_LOG_ERROR, TIME "error x\n$"},
                 {PL_LOG_WARN, TIME "warn  x\n$"},
                 {PL_LOG_INFO, TIME "info  x\n$"},
                 {PL_LOG_DEBUG, TIME "debug x\n$"}};
    struct capture *capture = *state;
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        capture_start(capture);
        pl_log(cases[i].level, "x");
        capture_stop(capture);
        assert_matches(capture->text, cases[i].pattern);
    }
}

static void test_levels_above_the_set_one_are_dropped(void **state)
{
    struct capture *capture = *state;
    capture_start(capture);
    pl_log_set_level(PL_LOG_WARN);
    pl_log(PL_LOG_INFO, "not seen");
    pl_log(PL_LOG_DEBUG, "not seen");
    pl_log(PL_LOG_WARN, "seen");
    pl_log_set_level(PL_LOG_ERROR);
    pl_log(PL_LOG_WARN, "not seen");
    capture_stop(capture);
    assert_matches(capture->text, TIME "warn  seen\n$");
}

static void test_level_from_name(void **state)
{
    (void)state;
    assert_int_equal(pl_log_level_from_name("error"), PL_LOG_ERROR);
    assert_int_equal(pl_log_level_from_name("warn"), PL_LOG_WARN);
    assert_int_equal(pl_log_level_from_name("info"), PL_LOG_INFO);
    assert_int_equal(pl_log_level_from_name("debug"), PL_LOG_DEBUG);
    assert_int_equal(pl_log_level_from_name("warning"), -1);
    assert_int_equal(pl_log_level_from_name("INFO"), -1);
    assert_int_equal(pl_log_level_from_name(""), -1);
}

/** No text can begin a line of its own, or speak to a terminal. */
static void test_control_bytes_are_replaced(void **state)
{
    struct capture *capture = *state;
    capture_start(capture);
    pl_log(PL_LOG_INFO, "%s", "a\nb\rc\td\033[31me\177f\001");
    capture_stop(capture);
    assert_string_equal(capture->text + PREFIX_BYTES, "a?b?c?d?[31me?f?\n");
}

static void test_other_alphabets_stay(void **state)
{
    struct capture *capture = *state;
    capture_start(capture);
    pl_log(PL_LOG_INFO, "%s", "\xc3\xa9t\xc3\xa9 \xe6\x9c\x88 \xf0\x9f\x8c\x95");
    capture_stop(capture);
    assert_string_equal(capture->text + PREFIX_BYTES,
                        "\xc3\xa9t\xc3\xa9 \xe6\x9c\x88 \xf0\x9f\x8c\x95\n");
}

/** Logs so many letters, then the character `end` over and over; returns the line's length. */
static size_t log_long(struct capture *capture, size_t letter_count, const char *end)
{
    char text[4096] = "";
    memset(text, 'x', letter_count);
    for (size_t len = letter_count; len + 5 < sizeof(text); len += strlen(end)) {
        strcpy(text + len, end);
    }
    capture_start(capture);
    pl_log(PL_LOG_INFO, "%s", text);
    capture_stop(capture);
    assert_int_equal(capture->text[capture->len - 1], '\n');
    assert_true(strchr(capture->text, '\n') == capture->text + capture->len - 1);
    return capture->len;
}

static void test_long_lines_are_cut(void **state)
{
    struct capture *capture = *state;
    assert_int_equal(log_long(capture, 4000, "x"), LINE_MAX_BYTES);
}

/** Wherever the cut falls, half a character is not left. */
static void test_a_cut_leaves_whole_characters(void **state)
{
    static const char *const characters[] = {"\xc3\xa9", "\xe6\x9c\x88", "\xf0\x9f\x8c\x95"};
    struct capture *capture = *state;
    for (size_t i = 0; i < PL_COUNT(characters); i++) {
        size_t width = strlen(characters[i]);
        for (size_t shift = 0; shift < width; shift++) {
            size_t len = log_long(capture, 100 + shift, characters[i]);
            assert_in_range(len, LINE_MAX_BYTES - width + 1, LINE_MAX_BYTES);
            assert_int_equal((len - 1 - PREFIX_BYTES - 100 - shift) % width, 0);
        }
    }
}

/** A text of the largest length that fits is not touched. */
static void test_a_line_that_just_fits(void **state)
{
    struct capture *capture = *state;
    char text[LINE_MAX_BYTES - PREFIX_BYTES];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    capture_start(capture);
    pl_log(PL_LOG_INFO, "%s", text);
    capture_stop(capture);
    assert_int_equal(capture->len, LINE_MAX_BYTES);
    assert_memory_equal(capture->text + PREFIX_BYTES, text, sizeof(text) - 1);
}

static void test_errno_is_kept_and_can_be_shown(void **state)
{
    struct capture *capture = *state;
    capture_start(capture);
    errno = ENOENT;
    pl_log(PL_LOG_INFO, "open: %m");
    assert_int_equal(errno, ENOENT);
    capture_stop(capture);
    assert_string_equal(capture->text + PREFIX_BYTES, "open: No such file or directory\n");
}

/** A pipe that nobody empties: lines are lost, the caller goes on, errno stays. */
static void test_a_full_pipe_stalls_nobody(void **state)
{
    struct capture *capture = *state;
    char text[2048];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    capture_start(capture);
    while (write(STDERR_FILENO, text, sizeof(text)) > 0) {
    }
    errno = 0;
    pl_log(PL_LOG_ERROR, "lost");
    assert_int_equal(errno, 0);
    while (read(capture->read_fd, text, sizeof(text)) > 0) {
    }
    pl_log(PL_LOG_ERROR, "not lost");
    capture_stop(capture);
    assert_matches(capture->text, TIME "error not lost\n$");
}

static void *log_many(void *letter)
{
    char text[201];
    memset(text, *(char *)letter, 200);
    text[200] = '\0';
    for (int i = 0; i < 50; i++) {
        pl_log(PL_LOG_INFO, "%s", text);
    }
    return NULL;
}

static void test_threads_do_not_mix(void **state)
{
    struct capture *capture = *state;
    char letters[] = "abcd";
    pthread_t threads[4];
    capture_start(capture);
    for (size_t i = 0; i < PL_COUNT(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, &letters[i]), 0);
    }
    for (size_t i = 0; i < PL_COUNT(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    capture_stop(capture);
    assert_int_equal(capture->len, 200 * (PREFIX_BYTES + 201));
    for (size_t at = 0; at < capture->len; at += PREFIX_BYTES + 201) {
        const char *line = capture->text + at + PREFIX_BYTES;
        assert_int_equal(strspn(line, (char[]){line[0], '\0'}), 200);
        assert_int_equal(line[200], '\n');
    }
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static void keep_line(const char *line, size_t len, void *arg)
{
    char *kept = arg;
    memcpy(kept, line, len);
    kept[len] = '\0';
}

static void test_a_sink_gets_lines_instead_of_stderr(void **state)
{
    (void)state;
    char kept[2048] = "";
    struct pl_clock clock = {.now_us = 1000};
    pl_clock_install(&clock);
    pl_log_set_sink(keep_line, kept);
    pl_log(PL_LOG_WARN, "one %d\n", 1);
    pl_log_set_sink(NULL, NULL);
    pl_clock_install(NULL);
    assert_string_equal("1970-01-01T00:00:00.001Z warn  one 1?", kept);
}

static void test_lines_in_json(void **state)
{
    struct capture *capture = *state;
    char long_text[3000];
    memset(long_text, '"', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    pl_log_set_json(true);
    capture_start(capture);
    pl_log(PL_LOG_WARN, "a \"b\" \\ \n \xff \xc3\xa9");
    capture_stop(capture);
    assert_matches(capture->text,
                   "^[{]\"time\":\"[-0-9]{10}T[0-9:.]{12}Z\",\"level\":\"warn\","
                   "\"message\":\"a \\\\\"b\\\\\" \\\\\\\\ [?] [?] \xc3\xa9\"[}]\n$");
    capture_start(capture);
    pl_log(PL_LOG_WARN, "%s", long_text);
    capture_stop(capture);
    pl_log_set_json(false);
    assert_matches(capture->text, "\\\\\"\"[}]\n$"); /* the last one is escaped, then the end */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_sink_gets_lines_instead_of_stderr),
        TEST(test_a_line),
        TEST(test_lines_in_json),
        TEST(test_level_names_line_up),
        TEST(test_levels_above_the_set_one_are_dropped),
        TEST(test_level_from_name),
        TEST(test_control_bytes_are_replaced),
        TEST(test_other_alphabets_stay),
        TEST(test_long_lines_are_cut),
        TEST(test_a_cut_leaves_whole_characters),
        TEST(test_a_line_that_just_fits),
        TEST(test_errno_is_kept_and_can_be_shown),
        TEST(test_a_full_pipe_stalls_nobody),
        TEST(test_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
