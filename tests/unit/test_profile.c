/* The learned cost of a run: predictions a scheduler can rely upon, and when it must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/profile.h"

#define TAU0 1880000.0 /* ns: a 64 MiB perceptron's fixed cost, and per row. */
#define ALPHA 143800.0

static void observe(struct profile *profile, uint64_t key, uint64_t rows, double tau0, double alpha)
{
    profile_observe(profile, key, rows, (uint64_t)(tau0 + alpha * (double)rows));
}

static void test_nothing_is_predicted_from_nothing(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    uint64_t ns = 42;
    assert_false(profile_predict_ns(&profile, 1, 1, &ns));
    observe(&profile, 1, 1, TAU0, ALPHA);
    assert_false(profile_predict_ns(&profile, 1, 1, &ns));
    assert_false(profile_predict_ns(&profile, 2, 1, &ns));
    assert_int_equal(ns, 42);
}

static void test_learns_both_numbers(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 200; i++) {
        observe(&profile, 1, 1 + i % 16, TAU0, ALPHA);
    }
    double tau0;
    double alpha;
    assert_true(profile_fit(&profile, 1, &tau0, &alpha));
    assert_true(tau0 > TAU0 * 0.99 && tau0 < TAU0 * 1.01);
    assert_true(alpha > ALPHA * 0.99 && alpha < ALPHA * 1.01);
    uint64_t ns;
    assert_true(profile_predict_ns(&profile, 1, 32, &ns));
    assert_in_range(ns, (uint64_t)((TAU0 + 32 * ALPHA) * 0.99),
                    (uint64_t)((TAU0 + 32 * ALPHA) * 1.01));
    assert_false(profile_predict_ns(&profile, 1, 34, &ns)); /* Too far from anything seen. */
}

static void test_forgets_a_faster_past(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 500; i++) {
        observe(&profile, 1, 1 + i % 8, TAU0, ALPHA);
    }
    for (uint64_t i = 0; i < 500; i++) {
        observe(&profile, 1, 1 + i % 8, 3 * TAU0, 3 * ALPHA);
    }
    uint64_t ns;
    assert_true(profile_predict_ns(&profile, 1, 8, &ns));
    assert_true((double)ns > 2.9 * (TAU0 + 8 * ALPHA));
}

static void test_batches_grow_while_the_slope_is_unknown(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 64);
    for (int i = 0; i < 50; i++) {
        observe(&profile, 1, 1, 0, 930000);
    }
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 2);
    observe(&profile, 1, 2, 900000, 30000);
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 64);
}

static void test_rows_dominate_where_each_costs_more_than_the_run(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    assert_false(profile_rows_dominate(&profile, 1, 64));
    for (uint64_t i = 0; i < 50; i++) {
        observe(&profile, 1, 1 + i % 8, TAU0, ALPHA);
    }
    assert_false(profile_rows_dominate(&profile, 1, 8));
    assert_true(profile_rows_dominate(&profile, 1, 16));
}

static void test_stops_batching_what_gains_nothing(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 50; i++) {
        observe(&profile, 1, 1 + i % 8, 20000, 930000); /* A convolution on a CPU. */
        observe(&profile, 2, 1 + i % 8, TAU0, ALPHA);
    }
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 1);
    assert_int_equal(profile_rows_useful(&profile, 2, 64), 64);
}

/* Time per row of a convolution whose batches leave the cache, by the size's logarithm. */
static const uint64_t dearer_row_ns[] = { 24000000, 25600000, 26500000, 27000000 };

static uint64_t dearer_ns(uint32_t size)
{
    return dearer_row_ns[size] << size;
}

static void test_stops_where_rows_get_dearer(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 200; i++) {
        const uint32_t size = (uint32_t)(i % 4);
        const uint64_t noise = i % 3 == 0 ? 0 : dearer_ns(size) * (1 + i % 5) / 4;
        profile_observe(&profile, 1, 1U << size, dearer_ns(size) + noise);
    }
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 1);
    for (int i = 0; i < 500; i++) { /* It stays so while there are no other sizes. */
        profile_observe(&profile, 1, 1, dearer_ns(0) + (i % 5 == 0 ? 0 : 30000000));
        assert_int_equal(profile_rows_useful(&profile, 1, 64), 1);
    }
    for (int i = 0; i < 20; i++) { /* The machine has changed: single rows are no longer cheap. */
        profile_observe(&profile, 1, 1, 2 * dearer_ns(0));
    }
    assert_true(profile_rows_useful(&profile, 1, 64) > 1);
}

static void test_tries_smaller_sizes_while_rows_get_cheaper(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 50; i++) {
        const uint32_t size = 2 + (uint32_t)(i % 2);
        profile_observe(&profile, 1, 1U << size, dearer_ns(size));
        observe(&profile, 2, 1U << size, TAU0, ALPHA);
    }
    assert_int_equal(profile_rows_useful(&profile, 2, 64), 64); /* Fours are dearer than eights. */
    for (uint32_t size = 2; size-- > 0;) {
        assert_int_equal(profile_rows_useful(&profile, 1, 64), 1U << size);
        for (int i = 0; i < PROFILE_OBSERVED_MIN; i++) {
            profile_observe(&profile, 1, 1U << size, dearer_ns(size));
        }
    }
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 1);
}

static void test_remembers_the_safe_cap(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    assert_int_equal(profile_rows_cap(&profile, 1), 0);
    profile_cap(&profile, 1, 32);
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 16);
    profile_cap(&profile, 1, 40); /* A larger failure says nothing new. */
    assert_int_equal(profile_rows_cap(&profile, 1), 16);
    profile_cap(&profile, 1, 1);
    assert_int_equal(profile_rows_cap(&profile, 1), 1);
    assert_int_equal(profile_rows_useful(&profile, 2, 64), 64);
}

static void test_the_least_used_shape_makes_room(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    uint64_t ns;
    for (uint64_t key = 1; key <= PROFILE_SHAPES; key++) {
        for (int i = 0; i < 10; i++) {
            observe(&profile, key, 1, TAU0, ALPHA);
        }
    }
    for (int i = 0; i < 10; i++) {
        observe(&profile, 1, 1, TAU0, ALPHA); /* Used again: stays. */
        observe(&profile, 100, 1, TAU0, ALPHA);
    }
    assert_true(profile_predict_ns(&profile, 1, 1, &ns));
    assert_true(profile_predict_ns(&profile, 100, 1, &ns));
    assert_false(profile_predict_ns(&profile, 2, 1, &ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_predicted_from_nothing),
        cmocka_unit_test(test_learns_both_numbers),
        cmocka_unit_test(test_forgets_a_faster_past),
        cmocka_unit_test(test_batches_grow_while_the_slope_is_unknown),
        cmocka_unit_test(test_rows_dominate_where_each_costs_more_than_the_run),
        cmocka_unit_test(test_stops_batching_what_gains_nothing),
        cmocka_unit_test(test_stops_where_rows_get_dearer),
        cmocka_unit_test(test_tries_smaller_sizes_while_rows_get_cheaper),
        cmocka_unit_test(test_remembers_the_safe_cap),
        cmocka_unit_test(test_the_least_used_shape_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
