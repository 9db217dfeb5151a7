#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/limits.h"

static void test_defaults_are_those_of_the_table(void **state)
{
    (void)state;
    struct limits limits;
    limits_init(&limits);
    assert_int_equal(limits.header_bytes_max, 64 * 1024);
    assert_int_equal(limits.requests_max, 1024);
    assert_true(limits.body_bytes_max == UINT64_C(1) << 30);
    assert_true(limits.response_bytes_max == UINT64_C(1) << 31);
    assert_true(limits.header_timeout_ns == UINT64_C(10000000000));
}

static void test_bodies_may_take_a_quarter_of_the_memory(void **state)
{
    (void)state;
    struct limits limits;
    limits_init(&limits);
    const uint64_t memory = limits_memory_bytes();
    assert_in_range(memory, UINT64_C(1) << 24, UINT64_C(1) << 48);
    assert_true(limits.bodies_bytes_max == memory / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_those_of_the_table),
        cmocka_unit_test(test_bodies_may_take_a_quarter_of_the_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
