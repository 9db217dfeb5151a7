#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "util/hdr.h"

#define US UINT64_C(1000)
#define S UINT64_C(1000000000)

static struct hdr make(uint32_t digits)
{
    struct hdr hdr;
    assert_int_equal(hdr_init(&hdr, digits), WEIR_OK);
    return hdr;
}

/* The greatest relative error of a time that was recorded alone among smaller and larger ones. */
static double worst_error(uint32_t digits)
{
    double worst = 0;
    for (uint64_t ns = US; ns <= HDR_MAX_NS; ns += ns / 997 + 1) {
        struct hdr hdr = make(digits);
        hdr_record(&hdr, 1);
        hdr_record(&hdr, ns);
        hdr_record(&hdr, HDR_MAX_NS);
        const uint64_t found = hdr_quantile_ns(&hdr, 0.5);
        assert_true(found >= ns);
        worst = fmax(worst, (double)(found - ns) / (double)ns);
        hdr_finish(&hdr);
    }
    return worst;
}

static void test_the_error_is_that_of_the_digits(void **state)
{
    (void)state;
    assert_true(worst_error(3) < 0.001);
    assert_true(worst_error(2) < 0.01);
    assert_true(worst_error(1) < 0.1);
    assert_true(worst_error(2) > 0.001);
}

static void test_quantiles_by_hand(void **state)
{
    (void)state;
    struct hdr hdr = make(3);
    assert_int_equal(hdr_quantile_ns(&hdr, 0.99), 0);
    for (uint64_t i = 1; i <= 1000; i++) { /* Below 2048 ns each value has a bucket of its own. */
        hdr_record(&hdr, i);
    }
    assert_int_equal(hdr_quantile_ns(&hdr, 0), 1);
    assert_int_equal(hdr_quantile_ns(&hdr, 0.001), 1);
    assert_int_equal(hdr_quantile_ns(&hdr, 0.0011), 2);
    assert_int_equal(hdr_quantile_ns(&hdr, 0.5), 500);
    assert_int_equal(hdr_quantile_ns(&hdr, 0.99), 990);
    assert_int_equal(hdr_quantile_ns(&hdr, 0.999), 999);
    assert_int_equal(hdr_quantile_ns(&hdr, 1), 1000);
    assert_true(hdr_mean_ns(&hdr) == 500.5);
    assert_int_equal(hdr.min_ns, 1);
    hdr_finish(&hdr);
}

static void test_long_times_saturate_but_the_maximum_is_true(void **state)
{
    (void)state;
    struct hdr hdr = make(3);
    hdr_record(&hdr, S);
    hdr_record(&hdr, 100 * S);
    hdr_record(&hdr, UINT64_MAX / 4);
    assert_int_equal(hdr.total, 3);
    assert_int_equal(hdr.over, 2);
    assert_int_equal(hdr.max_ns, UINT64_MAX / 4);
    assert_int_equal(hdr_quantile_ns(&hdr, 1), UINT64_MAX / 4);
    const uint64_t middle = hdr_quantile_ns(&hdr, 0.6);
    assert_true(middle >= HDR_MAX_NS && middle - HDR_MAX_NS < HDR_MAX_NS / 1000);
    hdr_finish(&hdr);
}

/* Buckets come in order, touch nobody else's values, and hold everything once. */
static void test_iterating_meets_every_bucket_once(void **state)
{
    (void)state;
    struct hdr hdr = make(2);
    hdr_record_many(&hdr, 3, 5);
    hdr_record_many(&hdr, 700, 7);
    hdr_record_many(&hdr, 40 * US, 0);
    hdr_record_many(&hdr, S, 11);
    const uint64_t values[] = { 3, 700, S };
    const uint64_t counts[] = { 5, 7, 11 };
    uint32_t index = 0;
    struct hdr_bucket bucket;
    for (size_t i = 0; i < 3; i++) {
        assert_true(hdr_next(&hdr, &index, &bucket));
        assert_true(bucket.low_ns <= values[i] && values[i] <= bucket.high_ns);
        assert_int_equal(bucket.count, counts[i]);
    }
    assert_false(hdr_next(&hdr, &index, &bucket));
    hdr_finish(&hdr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_error_is_that_of_the_digits),
        cmocka_unit_test(test_quantiles_by_hand),
        cmocka_unit_test(test_long_times_saturate_but_the_maximum_is_true),
        cmocka_unit_test(test_iterating_meets_every_bucket_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
