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

static void test_batches_grow_by_small_steps(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 64);
    for (uint64_t i = 0; i < 50; i++) {
        observe(&profile, 1, 1, TAU0, ALPHA);
        observe(&profile, 2, 1 + i % 8, TAU0, ALPHA);
    }
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 2);
    static const uint32_t steps[] = { 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 24 };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        assert_int_equal(profile_rows_useful(&profile, 2, 64), steps[i]);
        observe(&profile, 2, steps[i], TAU0, ALPHA);
    }
    for (int i = 0; i < PROFILE_OBSERVED_MIN; i++) {
        observe(&profile, 2, 50, TAU0, ALPHA);
    }
    assert_int_equal(profile_rows_useful(&profile, 2, 64), 55);
    assert_int_equal(profile_rows_useful(&profile, 2, 52), 52);
    profile_cap(&profile, 2, 90);
    assert_int_equal(profile_rows_useful(&profile, 2, 64), 45); /* Never past what is safe. */
}

static void test_batches_grow_by_whole_requests(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (int i = 0; i < 10; i++) {
        profile_note_unit(&profile, 1, 8);
        observe(&profile, 1, 8, TAU0, ALPHA);
    }
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 16);
}

static void test_the_slope_is_kept_while_sizes_are_the_same(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 200; i++) {
        observe(&profile, 1, 1 + i % 16, TAU0, ALPHA);
    }
    uint64_t ns;
    for (int i = 0; i < 1000; i++) {
        observe(&profile, 1, 1, TAU0, ALPHA);
    }
    assert_true(profile_predict_ns(&profile, 1, 16, &ns));
    assert_true((double)ns > 0.95 * (TAU0 + 16 * ALPHA) && (double)ns < 1.05 * (TAU0 + 16 * ALPHA));
    for (int i = 0; i < 1000; i++) {
        observe(&profile, 1, 1, 2 * TAU0, 2 * ALPHA); /* The machine got slower. */
    }
    assert_true(profile_predict_ns(&profile, 1, 16, &ns));
    assert_true((double)ns > 1.9 * (TAU0 + 16 * ALPHA) && (double)ns < 2.1 * (TAU0 + 16 * ALPHA));
}

static const struct profile_shape *shape_of(const struct profile *profile, uint64_t key)
{
    const struct profile_shape *shape = profile_next(profile, NULL);
    while (shape != NULL && shape->key != key) {
        shape = profile_next(profile, shape);
    }
    assert_non_null(shape);
    return shape;
}

static void test_tells_how_much_times_vary(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    observe(&profile, 1, 1, TAU0, ALPHA); /* One run tells nothing yet. */
    assert_true(shape_of(&profile, 1)->jitter == 0);
    assert_true(shape_of(&profile, 1)->slack > 1.07 && shape_of(&profile, 1)->slack < 1.09);
    for (uint64_t i = 0; i < 3000; i++) {
        const double factor = 0.9 + 0.2 * (double)(i * 7919 % 1000) / 1000; /* Even: +-10 %. */
        const uint64_t rows = 1 + i % 16;
        profile_observe(&profile, 1, rows, (uint64_t)((TAU0 + ALPHA * (double)rows) * factor));
        observe(&profile, 2, rows, TAU0, ALPHA);
    }
    assert_true(shape_of(&profile, 1)->jitter > 0.03 && shape_of(&profile, 1)->jitter < 0.07);
    assert_true(shape_of(&profile, 1)->slack > 1.05 && shape_of(&profile, 1)->slack < 1.20);
    assert_true(shape_of(&profile, 2)->jitter < 0.001);
    assert_true(shape_of(&profile, 2)->slack < 1.03);
}

static void test_outliers_change_little(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 400; i++) {
        observe(&profile, 1, 1 + i % 8, TAU0, ALPHA);
        if (i % 40 == 39) { /* Something else had the processor. */
            profile_observe(&profile, 1, 1 + i % 8, (uint64_t)(40 * TAU0));
        }
    }
    uint64_t ns;
    assert_true(profile_predict_ns(&profile, 1, 8, &ns));
    assert_true((double)ns < 1.15 * (TAU0 + 8 * ALPHA));
}

static void test_a_pair_is_tried_where_batching_is_off(void **state)
{
    (void)state;
    struct profile profile = { 0 };
    for (uint64_t i = 0; i < 50; i++) { /* A bad day: rows seemed to cost all there is. */
        observe(&profile, 1, 1 + i % 2, 20000, 930000);
    }
    uint32_t pairs = 0;
    for (int i = 0; i < 20000 && profile_rows_useful(&profile, 1, 64) < 3; i++) {
        const bool pair = profile_rows_useful(&profile, 1, 64) == 2;
        pairs += pair ? 1 : 0;
        observe(&profile, 1, pair ? 2 : 1, 900000, 50000);
    }
    assert_true(profile_rows_useful(&profile, 1, 64) > 2);
    assert_in_range(pairs, 1, 20);
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
    assert_int_equal(profile_rows_useful(&profile, 2, 64), 9);
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
    uint32_t looks = 0;
    for (int i = 0; i < 500; i++) { /* It stays so, but for a look at pairs now and then. */
        const uint32_t rows = profile_rows_useful(&profile, 1, 64);
        assert_true(rows == 1 || rows == 2);
        looks += rows - 1;
        profile_observe(&profile, 1, 1, dearer_ns(0) + (i % 5 == 0 ? 0 : 30000000));
    }
    assert_true(looks >= 1 && looks <= 8);
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
    assert_int_equal(profile_rows_useful(&profile, 2, 64), 9); /* Fours are dearer than eights. */
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

static void test_a_configured_cap_holds_until_a_smaller_one_is_found(void **state)
{
    (void)state;
    struct profile profile = { .rows_cap_start = 24 };
    assert_int_equal(profile_rows_useful(&profile, 1, 64), 24);
    profile_cap(&profile, 1, 60); /* Contradicts nothing. */
    assert_int_equal(profile_rows_cap(&profile, 1), 24);
    profile_cap(&profile, 1, 24);
    assert_int_equal(profile_rows_cap(&profile, 1), 12);
    assert_int_equal(profile_rows_cap(&profile, 2), 24);
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

/* A curve that was learned while the machine did other things: 4 rows seemed dearer than 2. */
static void test_larger_batches_are_tried_again(void **state)
{
    (void)state;
    static struct profile profile;
    profile = (struct profile){ 0 };
    for (uint32_t i = 0; i < 40; i++) {
        profile_observe(&profile, 1, 1, 1500000);
        profile_observe(&profile, 1, 2, 1600000);
        profile_observe(&profile, 1, 4, i < 20 ? 9000000 : 4000000);
    }
    uint32_t rows = 0;
    for (uint32_t i = 0; i < 6000; i++) {
        rows = profile_rows_useful(&profile, 1, 32);
        profile_observe(&profile, 1, rows, 1400000 + rows * 100000);
    }
    assert_true(profile_rows_useful(&profile, 1, 32) > 16 || rows > 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_predicted_from_nothing),
        cmocka_unit_test(test_learns_both_numbers),
        cmocka_unit_test(test_forgets_a_faster_past),
        cmocka_unit_test(test_batches_grow_by_small_steps),
        cmocka_unit_test(test_batches_grow_by_whole_requests),
        cmocka_unit_test(test_the_slope_is_kept_while_sizes_are_the_same),
        cmocka_unit_test(test_tells_how_much_times_vary),
        cmocka_unit_test(test_outliers_change_little),
        cmocka_unit_test(test_a_pair_is_tried_where_batching_is_off),
        cmocka_unit_test(test_rows_dominate_where_each_costs_more_than_the_run),
        cmocka_unit_test(test_stops_batching_what_gains_nothing),
        cmocka_unit_test(test_stops_where_rows_get_dearer),
        cmocka_unit_test(test_tries_smaller_sizes_while_rows_get_cheaper),
        cmocka_unit_test(test_remembers_the_safe_cap),
        cmocka_unit_test(test_a_configured_cap_holds_until_a_smaller_one_is_found),
        cmocka_unit_test(test_the_least_used_shape_makes_room),
        cmocka_unit_test(test_larger_batches_are_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
