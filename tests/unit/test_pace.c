/*
 * pace: how far predictions are trusted, and what the measured rate says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/pace.h"
#include "util/clock.h"

static void test_runs_that_take_longer_than_predicted_are_expected_to(void **state)
{
    (void)state;
    struct pace pace = { 0 };
    for (int i = 0; i < 100; i++) {
        pace_ran(&pace, 1000, 1500);
    }
    const struct pace_cost cost = pace_cost(&pace, 1000, 100);
    assert_in_range(pace_run_ns(&cost, 10), 2990, 3010);
}

static void test_a_run_that_nobody_predicted_changes_nothing(void **state)
{
    (void)state;
    struct pace pace = { 0 };
    pace_ran(&pace, 0, 5000);
    const struct pace_cost cost = pace_cost(&pace, 1000, 0);
    assert_int_equal(pace_run_ns(&cost, 1), 1000);
}

static void test_the_reserve_follows_the_spread(void **state)
{
    (void)state;
    struct pace steady = { 0 };
    struct pace shaky = { 0 };
    struct pace wild = { 0 };
    for (uint64_t i = 0; i < 400; i++) {
        pace_ran(&steady, 1000, 1000);
        pace_ran(&shaky, 1000, 900 + (i * 37) % 200);
        pace_ran(&wild, 1000, i % 10 == 0 ? 9000 : 100);
    }
    const struct pace_cost least = pace_cost(&steady, 1000, 100);
    const struct pace_cost some = pace_cost(&shaky, 1000, 100);
    const struct pace_cost most = pace_cost(&wild, 1000, 100);
    assert_true(least.reserve < 0.03);
    assert_true(some.reserve > 0.06 && some.reserve < 0.11);
    assert_true(most.reserve <= 0.25);
    assert_int_equal(pace_rows_within(&least, 3060), 20);
    assert_in_range(pace_rows_within(&some, 3060), 17, 19);
}

static void test_rows_within_a_time(void **state)
{
    (void)state;
    const struct pace_cost cost = { 1000, 100, 0 };
    const struct pace_cost flat = { 1000, 0, 0 };
    assert_int_equal(pace_rows_within(&cost, 999), 0);
    assert_int_equal(pace_rows_within(&cost, 1100), 1);
    assert_int_equal(pace_rows_within(&cost, 2050), 10);
    assert_int_equal(pace_rows_within(&flat, 999), 0);
    assert_true(pace_rows_within(&flat, 1000) > 1000000);
}

/* A request waits for one run and rides in the next: each may take half of what is allowed. */
static void test_the_useful_batch_takes_half_of_what_is_allowed(void **state)
{
    (void)state;
    const struct pace_cost cost = { 1300000, 171000, 0.08 };
    assert_int_equal(pace_rows_useful(&cost, 15 * NS_PER_MS), 36);
    assert_int_equal(pace_rows_useful(&cost, 30 * NS_PER_MS), 80);
    assert_int_equal(pace_rows_useful(&cost, NS_PER_MS), 1);
}

static void test_the_rate_is_measured_while_there_is_work(void **state)
{
    (void)state;
    struct pace pace = { 0 };
    assert_true(pace_serve_ns(&pace, 1) == CLOCK_NEVER);
    uint64_t now_ns = NS_PER_S;
    for (int i = 0; i < 50; i++) {
        const uint64_t since_ns = now_ns;
        now_ns += 4 * NS_PER_MS;
        pace_served(&pace, 8, since_ns, now_ns);
        now_ns += NS_PER_S; /* Nothing to do: no sign of slowness. */
    }
    assert_in_range(pace_serve_ns(&pace, 16), 8 * NS_PER_MS - 1000, 8 * NS_PER_MS + 1000);
}

static void test_runs_side_by_side_add_up(void **state)
{
    (void)state;
    struct pace pace = { 0 };
    for (uint64_t i = 1; i < 100; i++) { /* Two at a time of 4 ms each, all there from the start. */
        pace_served(&pace, 8, 1, NS_PER_S + i * 2 * NS_PER_MS);
    }
    assert_in_range(pace_serve_ns(&pace, 8), 2 * NS_PER_MS - 1000, 30 * NS_PER_MS);
}

static void test_what_others_take_is_noticed_and_forgotten(void **state)
{
    (void)state;
    struct pace pace = { 0 };
    assert_true(pace_share(&pace) == 1);
    uint64_t now_ns = NS_PER_S;
    for (int i = 0; i < 100; i++) { /* Every other run is somebody else's, and some always wait. */
        now_ns += 8 * NS_PER_MS;
        pace_shared(&pace, 4 * NS_PER_MS, 1, 1, now_ns);
        pace_served(&pace, 8, 1, now_ns);
    }
    assert_true(pace_share(&pace) > 0.45 && pace_share(&pace) < 0.55);
    for (int i = 0; i < 200; i++) {
        now_ns += 100 * NS_PER_MS;
        pace_shared(&pace, 4 * NS_PER_MS, 1, now_ns - 5 * NS_PER_MS, now_ns);
        pace_served(&pace, 8, now_ns - 5 * NS_PER_MS, now_ns);
    }
    assert_true(pace_share(&pace) > 0.95);
}

static void test_the_rate_of_arrivals(void **state)
{
    (void)state;
    struct pace pace = { 0 };
    uint64_t now_ns = NS_PER_S;
    for (int i = 0; i < 10000; i++) {
        now_ns += 100 * NS_PER_US;
        pace_arrived(&pace, 2, now_ns);
    }
    const double per_s = pace.arriving * (double)NS_PER_S;
    assert_true(per_s > 19000 && per_s < 21000);
}

/* A run that took next to no time, or a model that hardly gets any, does not set all hopes to
 * nothing. */
static void test_what_is_told_stays_within_bounds(void **state)
{
    (void)state;
    struct pace quick = { 0 };
    struct pace slow = { 0 };
    struct pace crowded = { 0 };
    for (uint64_t i = 1; i < 200; i++) {
        pace_ran(&quick, NS_PER_S, 1);
        pace_ran(&slow, 1, NS_PER_S);
        pace_shared(&crowded, 1, 64, 1, i * NS_PER_S);
        pace_served(&crowded, 1, 1, i * NS_PER_S);
    }
    const double least = pace_cost(&quick, 1000, 0).tau0_ns;
    const double most = pace_cost(&slow, 1000, 0).tau0_ns;
    assert_true(least > 50 && least < 200);
    assert_true(most > 5000 && most < 20000);
    assert_true(pace_share(&crowded) > 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_that_take_longer_than_predicted_are_expected_to),
        cmocka_unit_test(test_a_run_that_nobody_predicted_changes_nothing),
        cmocka_unit_test(test_the_reserve_follows_the_spread),
        cmocka_unit_test(test_rows_within_a_time),
        cmocka_unit_test(test_the_useful_batch_takes_half_of_what_is_allowed),
        cmocka_unit_test(test_the_rate_is_measured_while_there_is_work),
        cmocka_unit_test(test_runs_side_by_side_add_up),
        cmocka_unit_test(test_what_others_take_is_noticed_and_forgotten),
        cmocka_unit_test(test_what_is_told_stays_within_bounds),
        cmocka_unit_test(test_the_rate_of_arrivals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
