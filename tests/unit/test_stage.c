#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/stage.h"
#include "util/clock.h"

static uint32_t depth_of(uint64_t host_us, uint64_t device_us)
{
    struct stage_times times;
    stage_init(&times, true);
    for (int i = 0; i < 100; i++) {
        (void)stage_learn(&times, host_us * NS_PER_US, device_us * NS_PER_US);
    }
    return times.depth;
}

static void test_as_deep_as_the_stages_ask(void **state)
{
    (void)state;
    assert_int_equal(depth_of(400, 2600), 2);
    assert_int_equal(depth_of(10000, 10000), 2);
    assert_int_equal(depth_of(2100, 1000), 4);
    assert_int_equal(depth_of(1500, 1000), 3);
    assert_int_equal(depth_of(50000, 1000), STAGE_DEPTH_MAX);
    assert_int_equal(depth_of(5, 1000), 1); /* So little is not worth a further run. */
    assert_int_equal(depth_of(0, 0), 1);
}

static void test_where_nothing_overlaps_it_is_one(void **state)
{
    (void)state;
    struct stage_times times;
    stage_init(&times, false);
    assert_int_equal(times.depth, 1);
}

static void test_a_single_run_changes_nothing(void **state)
{
    (void)state;
    struct stage_times times;
    stage_init(&times, true);
    assert_false(stage_learn(&times, 9 * NS_PER_MS, NS_PER_MS));
    assert_int_equal(times.depth, STAGE_DEPTH_FIRST);
}

/* At the border between two depths it stays where it is. */
static void test_it_does_not_swing(void **state)
{
    (void)state;
    struct stage_times times;
    stage_init(&times, true);
    uint32_t changes = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        const uint64_t host_us = 1000 + (i * 7919 % 21) * 5; /* 1.00 to 1.10 of the device */
        changes += stage_learn(&times, host_us * NS_PER_US, NS_PER_MS) ? 1 : 0;
    }
    assert_in_range(changes, 0, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_deep_as_the_stages_ask),
        cmocka_unit_test(test_where_nothing_overlaps_it_is_one),
        cmocka_unit_test(test_a_single_run_changes_nothing),
        cmocka_unit_test(test_it_does_not_swing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
