/*
 * Tests of base.c.
 */
#include "base.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct pl_str NOTHING = {NULL, 0};

/* ---- byte spans ---- */

static void test_equal_compares_bytes(void **state)
{
    (void)state;
    assert_true(pl_str_equal(PL_STR("a\0b"), PL_STR("a\0b")));
    assert_false(pl_str_equal(PL_STR("a\0b"), PL_STR("a\0c")));
    assert_false(pl_str_equal(PL_STR("ab"), PL_STR("abc")));
    assert_false(pl_str_equal(PL_STR("ab"), PL_STR("aB")));
}

static void test_empty_spans_may_have_no_data(void **state)
{
    (void)state;
    assert_true(pl_str_equal(NOTHING, NOTHING));
    assert_true(pl_str_equal(NOTHING, PL_STR("")));
    assert_true(pl_str_equal_nocase(NOTHING, PL_STR("")));
    assert_false(pl_str_equal(NOTHING, PL_STR("a")));
    assert_false(pl_str_equal_nocase(NOTHING, PL_STR("a")));
}

/** Bytes beside the letters, and letters of other alphabets, have no case. */
static void test_nocase_folds_ascii_letters_only(void **state)
{
    (void)state;
    assert_true(pl_str_equal_nocase(PL_STR("Content-LENGTH"), PL_STR("content-length")));
    assert_true(pl_str_equal_nocase(PL_STR("AZaz09"), PL_STR("azAZ09")));
    assert_false(pl_str_equal_nocase(PL_STR("@"), PL_STR("`")));
    assert_false(pl_str_equal_nocase(PL_STR("["), PL_STR("{")));
    assert_false(pl_str_equal_nocase(PL_STR("\xc3\x84"), PL_STR("\xc3\xa4")));
    assert_false(pl_str_equal_nocase(PL_STR("\x0d"), PL_STR("-")));
    assert_false(pl_str_equal_nocase(PL_STR("ab"), PL_STR("abc")));
}

/* ---- clocks ---- */

static void test_an_installed_clock_stands_where_it_is_put(void **state)
{
    (void)state;
    struct pl_clock clock = {.now_us = 5000700, .ahead_ms = 1000000}, other = {.now_us = 1};
    uint64_t real_us = pl_now_us(), cpu_us = pl_thread_cpu_us();
    assert_null(pl_clock_install(&clock));
    assert_int_equal(5000700, pl_now_us());
    assert_int_equal(5000, pl_now_ms());
    assert_int_equal(1005000, pl_now_wall_ms());
    clock.now_us += 300;
    assert_int_equal(5001, pl_now_ms());
    clock.now_us += 1000;
    assert_int_equal(5002, pl_last_now_ms());
    assert_ptr_equal(&clock, pl_clock_install(&other));
    assert_ptr_equal(&other, pl_clock_install(NULL));
    assert_true(pl_now_us() >= real_us);
    assert_true(pl_thread_cpu_us() >= cpu_us);
}

static void test_last_now_is_what_now_said(void **state)
{
    (void)state;
    uint64_t now_ms = pl_now_ms();
    while (pl_now_us() / 1000 == now_ms) {
    }
    assert_int_equal(pl_last_now_ms(), now_ms);
    now_ms = pl_now_ms();
    assert_int_equal(pl_last_now_ms(), now_ms);
}

static void test_clocks_go_forward(void **state)
{
    (void)state;
    uint64_t us = pl_now_us(), ms = pl_now_ms();
    assert_true(ms >= us / 1000 && ms <= us / 1000 + 1000);
    for (int i = 0; i < 1000; i++) {
        uint64_t later_us = pl_now_us();
        assert_true(later_us >= us);
        us = later_us;
    }
    assert_true(pl_now_wall_ms() > UINT64_C(1577836800000)); /* 2020 */
}

static void test_cpu_clock_counts_work(void **state)
{
    (void)state;
    uint64_t start_us = pl_thread_cpu_us();
    uint64_t give_up_ms = pl_now_ms() + 20000;
    while (pl_thread_cpu_us() < start_us + 2000) {
        assert_true(pl_now_ms() < give_up_ms);
    }
}

/* ---- random numbers ---- */

static void test_generators_can_be_put_aside(void **state)
{
    (void)state;
    struct pl_random other = {.seeded = false};
    pl_random_seed(1);
    uint64_t first = pl_random_u64();
    pl_random_swap(&other);
    pl_random_seed(1);
    assert_int_equal(first, pl_random_u64());
    uint64_t second = pl_random_u64();
    pl_random_swap(&other);
    assert_int_equal(second, pl_random_u64());
    struct pl_random fresh = {.seeded = false};
    pl_random_swap(&fresh); /* the kernel seeds it */
    assert_int_not_equal(pl_random_u64(), first);
}

/** Of xoshiro256** behind splitmix64, computed apart from this code. */
static void test_random_is_the_known_generator(void **state)
{
    (void)state;
    static const uint64_t EXPECTED[] = {UINT64_C(0x15780b2e0c2ec716), UINT64_C(0x6104d9866d113a7e),
                                        UINT64_C(0xae17533239e499a1), UINT64_C(0xecb8ad4703b360a1)};
    pl_random_seed(42);
    for (size_t i = 0; i < PL_COUNT(EXPECTED); i++) {
        assert_true(pl_random_u64() == EXPECTED[i]);
    }
}

static void test_seed_repeats(void **state)
{
    (void)state;
    pl_random_seed(0);
    uint64_t first = pl_random_u64(), second = pl_random_u64();
    assert_true(first != second);
    pl_random_seed(0);
    assert_true(pl_random_u64() == first);
    assert_true(pl_random_u64() == second);
}

static void test_unit_is_below_one_and_spread(void **state)
{
    (void)state;
    size_t low_count = 0;
    pl_random_seed(7);
    for (int i = 0; i < 10000; i++) {
        double unit = pl_random_unit();
        assert_true(unit >= 0 && unit < 1);
        low_count += unit < 0.5;
    }
    assert_in_range(low_count, 4700, 5300);
}

static void *draw(void *number)
{
    *(uint64_t *)number = pl_random_u64();
    return NULL;
}

/** Each thread is seeded by the kernel, whatever another one was seeded with. */
static void test_threads_have_their_own_generators(void **state)
{
    (void)state;
    uint64_t drawn[2];
    pl_random_seed(1);
    uint64_t mine = pl_random_u64();
    pl_random_seed(1);
    for (size_t i = 0; i < PL_COUNT(drawn); i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, draw, &drawn[i]), 0);
        pthread_join(thread, NULL);
    }
    assert_true(drawn[0] != drawn[1] && drawn[0] != mine && drawn[1] != mine);
    assert_true(pl_random_u64() == mine);
}

/* ---- numbers as text ---- */

static void assert_put(size_t (*put)(char *, uint64_t), uint64_t number, const char *expected)
{
    char text[PL_NUMBER_MAX + 1];
    memset(text, '#', sizeof(text));
    size_t len = put(text, number);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(text, expected, len);
    assert_int_equal(text[len], '#');
}

static void test_put_decimal(void **state)
{
    (void)state;
    assert_put(pl_put_decimal, 0, "0");
    assert_put(pl_put_decimal, 9, "9");
    assert_put(pl_put_decimal, 10, "10");
    assert_put(pl_put_decimal, 1234567890, "1234567890");
    assert_put(pl_put_decimal, UINT64_MAX, "18446744073709551615");
}

static void test_plain_bytes(void **state)
{
    (void)state;
    char text[40];
    for (size_t len = 0; len < sizeof(text); len++) {
        memset(text, 'a', sizeof(text));
        assert_int_equal(pl_plain_bytes(text, len), len);
        for (size_t at = 0; at < len; at++) {
            for (const char *odd = "\"\\\x7f\x1f\n\x80\xff"; *odd; odd++) {
                text[at] = *odd;
                assert_int_equal(pl_plain_bytes(text, len), at);
            }
            text[at] = at % 2 ? '~' : ' ';
        }
    }
}

static void test_put_hex(void **state)
{
    (void)state;
    assert_put(pl_put_hex, 0, "0");
    assert_put(pl_put_hex, 15, "f");
    assert_put(pl_put_hex, 16, "10");
    assert_put(pl_put_hex, UINT64_MAX, "ffffffffffffffff");
    char digits[17] = "";
    pl_put_hex16(digits, 0);
    assert_string_equal(digits, "0000000000000000");
    pl_put_hex16(digits, 0x0123456789abcdefu);
    assert_string_equal(digits, "0123456789abcdef");
    pl_put_hex16(digits, UINT64_MAX - 9);
    assert_string_equal(digits, "fffffffffffffff6");
}

/* ---- allocation ---- */

static void test_nothing_is_still_a_block(void **state)
{
    (void)state;
    void *blocks[] = {pl_xmalloc(0), pl_xcalloc(0, 8), pl_xcalloc(8, 0), pl_xrealloc(NULL, 0)};
    for (size_t i = 0; i < PL_COUNT(blocks); i++) {
        assert_non_null(blocks[i]);
        free(blocks[i]);
    }
}

static void test_calloc_is_zeroed_and_realloc_keeps(void **state)
{
    (void)state;
    char *block = pl_xcalloc(16, 4);
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(block[i], 0);
    }
    memcpy(block, "kept", 5);
    block = pl_xrealloc(block, 4096);
    assert_string_equal(block, "kept");
    block = pl_xrealloc(block, 0);
    assert_non_null(block);
    free(block);
}

static void test_copies_are_terminated(void **state)
{
    (void)state;
    char *copies[] = {pl_xstrdup("text"), pl_xstrndup("te\0xt!", 5), pl_xstrndup(NULL, 0)};
    assert_string_equal(copies[0], "text");
    assert_memory_equal(copies[1], "te\0xt", 6);
    assert_string_equal(copies[2], "");
    for (size_t i = 0; i < PL_COUNT(copies); i++) {
        free(copies[i]);
    }
}

static void ask_for_too_much(void)
{
    volatile size_t too_much = SIZE_MAX / 4;
    free(pl_xmalloc(too_much));
}

static void ask_for_a_copy_of_everything(void)
{
    volatile size_t everything = SIZE_MAX;
    free(pl_xstrndup("x", everything));
}

/** Runs it in a process of its own, whose stderr goes into `text`. Returns how it ended. */
static int run_apart(void (*run)(void), char *text, size_t text_size)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL); /* cmocka catches it */
        run();
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    ssize_t got;
    while (len + 1 < text_size && (got = read(ends[0], text + len, text_size - 1 - len)) > 0) {
        len += (size_t)got;
    }
    text[len] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_out_of_memory_ends_the_process(void **state)
{
    (void)state;
    char text[65536];
    int status = run_apart(ask_for_a_copy_of_everything, text, sizeof(text));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(text, "perilune: out of memory\n"));
    /* a sanitizer's malloc may end the process itself */
    status = run_apart(ask_for_too_much, text, sizeof(text));
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_compares_bytes),
        cmocka_unit_test(test_empty_spans_may_have_no_data),
        cmocka_unit_test(test_nocase_folds_ascii_letters_only),
        cmocka_unit_test(test_clocks_go_forward),
        cmocka_unit_test(test_last_now_is_what_now_said),
        cmocka_unit_test(test_cpu_clock_counts_work),
        cmocka_unit_test(test_random_is_the_known_generator),
        cmocka_unit_test(test_seed_repeats),
        cmocka_unit_test(test_unit_is_below_one_and_spread),
        cmocka_unit_test(test_threads_have_their_own_generators),
        cmocka_unit_test(test_put_decimal),
        cmocka_unit_test(test_put_hex),
        cmocka_unit_test(test_plain_bytes),
        cmocka_unit_test(test_an_installed_clock_stands_where_it_is_put),
        cmocka_unit_test(test_generators_can_be_put_aside),
        cmocka_unit_test(test_nothing_is_still_a_block),
        cmocka_unit_test(test_calloc_is_zeroed_and_realloc_keeps),
        cmocka_unit_test(test_copies_are_terminated),
        cmocka_unit_test(test_out_of_memory_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
