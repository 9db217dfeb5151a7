/* A loop looks for more where requests come one at a time, and gives up where that is in vain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/look.h"

/* Requests of which each is the only one, until the next look. */
static unsigned requests_until_look(struct look *look)
{
    unsigned count = 1;
    while (look_for_ns(look, 1, 0) == 0) {
        count++;
        assert_in_range(count, 1, 2 * LOOK_NAPS_MAX);
    }
    return count;
}

static void test_one_request_at_a_time_is_looked_for(void **state)
{
    (void)state;
    struct look look;
    look_init(&look);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(look_for_ns(&look, 1, 0), LOOK_AHEAD_NS);
        look_over(&look, true);
    }
}

static void test_nothing_is_looked_for_beside_others(void **state)
{
    (void)state;
    struct look look;
    look_init(&look);
    assert_int_equal(look_for_ns(&look, 0, 0), 0); /* A timer. */
    assert_int_equal(look_for_ns(&look, 1, 1), 0); /* An executor may need the processor. */
    assert_int_equal(requests_until_look(&look), 1);
    assert_int_equal(look_for_ns(&look, 2, 0), 0); /* They share the sleep. */
    assert_int_equal(requests_until_look(&look), LOOK_NAPS_MIN + 1);
}

static void test_looks_in_vain_become_rare(void **state)
{
    (void)state;
    struct look look;
    look_init(&look);
    unsigned expected = LOOK_NAPS_MIN;
    assert_int_equal(requests_until_look(&look), 1);
    for (unsigned i = 0; i < 20; i++) {
        look_over(&look, false);
        assert_int_equal(requests_until_look(&look), expected + 1);
        expected = 2 * expected < LOOK_NAPS_MAX ? 2 * expected : LOOK_NAPS_MAX;
    }
}

static void test_one_that_finds_something_makes_up_for_them(void **state)
{
    (void)state;
    struct look look;
    look_init(&look);
    for (unsigned i = 0; i < 5; i++) {
        look_over(&look, false);
        (void)requests_until_look(&look);
    }
    look_over(&look, true);
    assert_int_equal(requests_until_look(&look), 1);
    look_over(&look, false);
    assert_int_equal(requests_until_look(&look), LOOK_NAPS_MIN + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_request_at_a_time_is_looked_for),
        cmocka_unit_test(test_nothing_is_looked_for_beside_others),
        cmocka_unit_test(test_looks_in_vain_become_rare),
        cmocka_unit_test(test_one_that_finds_something_makes_up_for_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
