/*
 * For tests of what is limited in time: a clock that only the test moves. A machine that stalls
 * then makes no silence that was not meant.
 *
 * libevent's timers stay real, so a limit's timer may come due too early by this clock, and has to
 * find that out.
 */
#ifndef PL_CLOCK_TEST_H
#define PL_CLOCK_TEST_H

#include "base.h"

#include <time.h>

#define CLOCK_TEST_UNUSED __attribute__((unused))

static struct pl_clock own_clock;

/** To set up a test with, and to tear it down. */
static CLOCK_TEST_UNUSED int install_own_clock(void **state)
{
    (void)state;
    own_clock = (struct pl_clock){.now_us = 5000000};
    pl_clock_install(&own_clock);
    return 0;
}

static CLOCK_TEST_UNUSED int remove_own_clock(void **state)
{
    (void)state;
    pl_clock_install(NULL);
    return 0;
}

static CLOCK_TEST_UNUSED void move_own_clock_ms(uint64_t ms)
{
    own_clock.now_us += ms * 1000;
}

/** The real time, whatever the clocks show. */
static CLOCK_TEST_UNUSED uint64_t real_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#define TEST_BY_OWN_CLOCK(test)                                                                    \
    cmocka_unit_test_setup_teardown(test, install_own_clock, remove_own_clock)

#endif
