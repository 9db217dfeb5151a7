#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/clock.h"

static void test_manual_time_moves_only_by_hand(void **state)
{
    (void)state;
    struct clock clock;
    clock_init_manual(&clock, 100);
    assert_int_equal(clock_now_ns(&clock), 100);
    clock_turn(&clock, 100);
    clock_turn(&clock, 5000);
    assert_int_equal(clock_now_ns(&clock), 5000);
    clock_sleep_until(&clock, CLOCK_NEVER); /* Returns: a hand-turned clock does not sleep. */
    assert_int_equal(clock_now_ns(&clock), 5000);
}

static void test_real_time_passes(void **state)
{
    (void)state;
    struct clock clock;
    clock_init(&clock);
    const uint64_t start = clock_now_ns(&clock);
    const uint64_t until = start + 2 * NS_PER_MS;
    clock_sleep_until(&clock, until);
    assert_true(clock_now_ns(&clock) >= until);
    clock_sleep_until(&clock, 0);
    /* Later than when this was written, in milliseconds and not in any other unit. */
    assert_in_range(clock_wall_ms(), UINT64_C(1700000000000), UINT64_C(99999999999999));
}

static void test_adding_does_not_wrap(void **state)
{
    (void)state;
    assert_true(clock_add(1, 2) == 3);
    assert_true(clock_add(CLOCK_NEVER - 5, 5) == CLOCK_NEVER);
    assert_true(clock_add(CLOCK_NEVER - 5, 6) == CLOCK_NEVER);
    assert_true(clock_add(CLOCK_NEVER, CLOCK_NEVER) == CLOCK_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manual_time_moves_only_by_hand),
        cmocka_unit_test(test_real_time_passes),
        cmocka_unit_test(test_adding_does_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
