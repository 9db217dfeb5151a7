/* The table of outcomes is what clients see: its codes against the protocols' numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "weir/status.h"

static void test_the_table_answers_for_each_status(void **state)
{
    (void)state;
    assert_string_equal(weir_status_name(WEIR_ETIMEOUT), "ETIMEOUT");
    assert_string_equal(weir_status_text(WEIR_ETIMEOUT), "deadline passed");
    assert_int_equal(weir_status_http(WEIR_ETIMEOUT), 504);
    assert_int_equal(weir_status_grpc(WEIR_ETIMEOUT), 4);
    assert_true(weir_status_retry(WEIR_ETIMEOUT));
    assert_int_equal(weir_status_http(WEIR_OK), 200);
    assert_int_equal(weir_status_grpc(WEIR_OK), 0);
    assert_false(weir_status_retry(WEIR_EINVAL));
}

static void test_codes_are_in_range_and_only_trouble_of_ours_is_5xx(void **state)
{
    (void)state;
    for (int i = 1; i < WEIR_STATUS_COUNT; i++) {
        const enum weir_status status = (enum weir_status)i;
        assert_in_range(weir_status_http(status), 400, 599);
        assert_in_range(weir_status_grpc(status), 1, 16);
        assert_true(weir_status_text(status)[0] != '\0');
        assert_int_equal(weir_status_name(status)[0], 'E');
        if (weir_status_http(status) == 503) {
            assert_true(weir_status_retry(status));
        }
    }
}

static void test_a_number_outside_the_table_is_an_unknown_failure(void **state)
{
    (void)state;
    const int outside[] = { WEIR_STATUS_COUNT, -1, 1000000 };
    for (size_t i = 0; i < 3; i++) {
        const enum weir_status status = (enum weir_status)outside[i];
        assert_string_equal(weir_status_text(status), "unknown status");
        assert_int_equal(weir_status_http(status), 500);
        assert_int_equal(weir_status_grpc(status), 2);
        assert_false(weir_status_retry(status));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table_answers_for_each_status),
        cmocka_unit_test(test_codes_are_in_range_and_only_trouble_of_ours_is_5xx),
        cmocka_unit_test(test_a_number_outside_the_table_is_an_unknown_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
