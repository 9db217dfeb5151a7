/* Sockets wait until shortly before an executor is free, and nobody waits who need not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/moderation.h"

#define NOW NS_PER_S
#define MS(n) ((n)*NS_PER_MS)

/* A run of so long that ends then, nothing answered at once. */
static uint64_t until(uint64_t run_ns, uint64_t end_ns)
{
    const struct pool_taken taken = { .until_ns = end_ns, .run_ns = run_ns };
    return moderation_until_ns(&taken, 0, NOW);
}

static void test_nothing_waits_while_a_place_is_free(void **state)
{
    (void)state;
    assert_int_equal(until(MS(4), 0), 0);
}

static void test_what_comes_is_read_before_the_run_ends(void **state)
{
    (void)state;
    assert_int_equal(until(MS(1), NOW + MS(1)), NOW + MS(1) - MS(1) / 8);
    assert_int_equal(until(MS(20), NOW + MS(2)), NOW + MS(2) - MODERATION_AHEAD_MAX_NS);
    assert_int_equal(until(MS(20), NOW + MS(20)), NOW + MODERATION_MAX_NS);
    assert_int_equal(until(MS(1), CLOCK_NEVER), NOW + MODERATION_MAX_NS);
}

static void test_a_pause_behind_the_run_is_soon_enough(void **state)
{
    (void)state;
    const struct pool_taken taken = { .until_ns = NOW + MS(1), .run_ns = MS(1), .pauses = true };
    assert_int_equal(moderation_until_ns(&taken, 0, NOW), NOW + MS(1));
    assert_int_equal(moderation_until_ns(&taken, 0, NOW + MS(1)), NOW + MS(1) + MS(1) / 8);
}

static void test_a_run_that_takes_longer_lets_them_wait_again(void **state)
{
    (void)state;
    assert_int_equal(until(MS(1), NOW - MS(3)), NOW + MS(1) / 8);
    assert_int_equal(until(MS(20), NOW - MS(3)), NOW + MODERATION_AHEAD_MAX_NS);
    assert_int_equal(until(0, NOW - MS(3)), NOW); /* Of unknown length: no longer than now. */
}

static void test_nothing_waits_behind_what_was_answered_at_once(void **state)
{
    (void)state;
    const struct pool_taken taken = { .until_ns = NOW + MS(1), .run_ns = MS(1) };
    assert_int_equal(moderation_until_ns(&taken, NOW - MODERATION_PAUSE_NS + 1, NOW), 0);
    assert_true(moderation_until_ns(&taken, NOW - MODERATION_PAUSE_NS, NOW) > NOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_waits_while_a_place_is_free),
        cmocka_unit_test(test_what_comes_is_read_before_the_run_ends),
        cmocka_unit_test(test_a_pause_behind_the_run_is_soon_enough),
        cmocka_unit_test(test_a_run_that_takes_longer_lets_them_wait_again),
        cmocka_unit_test(test_nothing_waits_behind_what_was_answered_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
