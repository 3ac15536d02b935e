/*
 * Tests of timer.c.
 */
#include "timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define START_US 1000000
#define MANY     2000

struct note {
    struct pl_timer timer;
    int number;
    int *log; /* numbers in the order of firing */
    size_t *count;
};

static void on_due(void *arg)
{
    struct note *self = arg;
    self->log[(*self->count)++] = self->number;
}

struct board {
    struct pl_timeline timeline;
    struct note notes[MANY];
    int log[MANY];
    size_t count;
};

static int set_up(void **state)
{
    struct board *board = pl_xcalloc(1, sizeof(*board));
    pl_timeline_init(&board->timeline, START_US);
    for (int i = 0; i < MANY; i++) {
        struct note *note = &board->notes[i];
        note->number = i;
        note->log = board->log;
        note->count = &board->count;
        pl_timer_init(&note->timer, NULL, &board->timeline, on_due, note);
    }
    *state = board;
    return 0;
}

static int tear_down(void **state)
{
    struct board *board = *state;
    pl_timeline_deinit(&board->timeline);
    free(board);
    return 0;
}

static void run_all(struct board *board)
{
    while (pl_timeline_next_us(&board->timeline) != UINT64_MAX)
        pl_timeline_step(&board->timeline);
}

/* ---- the timeline ---- */

static void test_the_clock_jumps_to_what_is_due_next(void **state)
{
    struct board *board = *state;
    pl_timer_start_ms(&board->notes[0].timer, 30);
    pl_timer_start_ms(&board->notes[1].timer, 10);
    pl_timer_start_us(&board->notes[2].timer, 20500);
    assert_int_equal(START_US + 10000, pl_timeline_next_us(&board->timeline));
    pl_timeline_step(&board->timeline);
    assert_int_equal(START_US + 10000, board->timeline.clock.now_us);
    run_all(board);
    assert_int_equal(START_US + 30000, board->timeline.clock.now_us);
    const int wanted[] = {1, 2, 0};
    assert_int_equal(3, board->count);
    assert_memory_equal(wanted, board->log, sizeof(wanted));
}

static void test_what_is_due_together_goes_in_the_order_of_arming(void **state)
{
    struct board *board = *state;
    for (int i = MANY - 1; i >= 0; i--)
        pl_timer_start_ms(&board->notes[i].timer, (uint64_t)(i % 3));
    pl_timer_start_ms(&board->notes[3].timer, 0); /* anew: behind the others of its time */
    run_all(board);
    assert_int_equal(MANY, board->count);
    for (size_t i = 1, third = MANY / 3; i < third - 1; i++)
        assert_int_equal(board->log[i - 1] - 3, board->log[i]);
    assert_int_equal(3, board->log[(MANY + 2) / 3 - 1]);
}

static void test_a_stopped_timer_is_silent(void **state)
{
    struct board *board = *state;
    for (int i = 0; i < MANY; i++)
        pl_timer_start_ms(&board->notes[i].timer, (uint64_t)(i * 7919 % 1000));
    for (int i = 0; i < MANY; i += 2)
        pl_timer_stop(&board->notes[i].timer);
    pl_timer_stop(&board->notes[0].timer);
    run_all(board);
    assert_int_equal(MANY / 2, board->count);
    for (size_t i = 0; i < board->count; i++)
        assert_int_equal(1, board->log[i] % 2);
}

/* Against sorting: any mixture of arming, arming anew and stopping. */
static void test_order_is_that_of_a_sorted_list(void **state)
{
    struct board *board = *state;
    uint64_t due_us[MANY], order[MANY];
    uint64_t armed = 0;
    pl_random_seed(7);
    for (int i = 0; i < MANY; i++)
        due_us[i] = UINT64_MAX;
    for (int step = 0; step < MANY * 5; step++) {
        int i = (int)(pl_random_u64() % MANY);
        if (pl_random_u64() % 4 == 0) {
            pl_timer_stop(&board->notes[i].timer);
            due_us[i] = UINT64_MAX;
        } else {
            due_us[i] = pl_random_u64() % 500;
            order[i] = armed++;
            pl_timer_start_us(&board->notes[i].timer, due_us[i]);
        }
    }
    run_all(board);
    for (size_t i = 1; i < board->count; i++) {
        int before = board->log[i - 1], after = board->log[i];
        assert_true(due_us[before] < due_us[after] ||
                    (due_us[before] == due_us[after] && order[before] < order[after]));
    }
    for (int i = 0; i < MANY; i++)
        board->count -= due_us[i] != UINT64_MAX;
    assert_int_equal(0, board->count);
}

static void arm_again(void *arg)
{
    struct note *self = arg;
    on_due(self);
    if (*self->count < 5)
        pl_timer_start_ms(&self->timer, 100);
}

static void test_a_timer_may_be_armed_from_its_callback(void **state)
{
    struct board *board = *state;
    struct note *note = &board->notes[0];
    pl_timer_init(&note->timer, NULL, &board->timeline, arm_again, note);
    pl_timer_fire_soon(&note->timer);
    run_all(board);
    assert_int_equal(5, board->count);
    assert_int_equal(START_US + 400000, board->timeline.clock.now_us);
}

static void test_the_clock_may_be_moved_between_events(void **state)
{
    struct board *board = *state;
    pl_timer_start_ms(&board->notes[0].timer, 30);
    pl_timeline_move_to(&board->timeline, START_US + 25000);
    pl_timer_start_ms(&board->notes[1].timer, 4);
    run_all(board);
    assert_int_equal(1, board->log[0]);
    assert_int_equal(START_US + 30000, board->timeline.clock.now_us);
}

static void test_a_time_beyond_all_is_never_reached_by_overflow(void **state)
{
    struct board *board = *state;
    pl_timer_start_us(&board->notes[0].timer, UINT64_MAX);
    pl_timer_start_us(&board->notes[1].timer, 1);
    pl_timeline_step(&board->timeline);
    assert_int_equal(1, board->log[0]);
    pl_timer_stop(&board->notes[0].timer);
}

/* ---- libevent ---- */

static void test_real_ones_fire_once(void **state)
{
    (void)state;
    int log[8];
    size_t count = 0;
    struct event_base *base = event_base_new();
    struct note notes[4];
    for (int i = 0; i < 4; i++) {
        notes[i] = (struct note){.number = i, .log = log, .count = &count};
        pl_timer_init(&notes[i].timer, base, NULL, on_due, &notes[i]);
    }
    uint64_t start_ms = pl_now_ms();
    pl_timer_start_ms(&notes[0].timer, 20);
    pl_timer_start_ms(&notes[1].timer, 1);
    pl_timer_start_us(&notes[1].timer, 40000); /* anew */
    pl_timer_start_ms(&notes[2].timer, 5);
    pl_timer_stop(&notes[2].timer);
    pl_timer_stop(&notes[2].timer);
    pl_timer_fire_soon(&notes[3].timer);
    event_base_dispatch(base);
    const int wanted[] = {3, 0, 1};
    assert_int_equal(3, count);
    assert_memory_equal(wanted, log, sizeof(wanted));
    assert_true(pl_now_ms() - start_ms >= 25); /* libevent's clock is cached and coarse */
    event_base_free(base);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_clock_jumps_to_what_is_due_next),
        TEST(test_what_is_due_together_goes_in_the_order_of_arming),
        TEST(test_a_stopped_timer_is_silent),
        TEST(test_order_is_that_of_a_sorted_list),
        TEST(test_a_timer_may_be_armed_from_its_callback),
        TEST(test_the_clock_may_be_moved_between_events),
        TEST(test_a_time_beyond_all_is_never_reached_by_overflow),
        cmocka_unit_test(test_real_ones_fire_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
