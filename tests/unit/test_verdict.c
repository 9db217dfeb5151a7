#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "cmd/verdict.h"

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(1, fabs(b));
}

static void test_the_distribution_by_hand(void **state)
{
    (void)state;
    assert_true(near(verdict_cdf(0, 1, 0.25), 0.75));
    assert_true(near(verdict_cdf(1, 2, 0.5), 0.75));
    assert_true(near(verdict_cdf(5, 10, 0.5), 638.0 / 1024)); /* 1+10+45+120+210+252 */
    assert_true(near(verdict_cdf(0, 459, 0.01), pow(0.99, 459)));
    assert_true(verdict_cdf(3, 3, 0.5) == 1);
    assert_true(verdict_cdf(4, 3, 0.5) == 1);
    /* Symmetry: P(X <= t) of p is P(X >= n - t) of 1 - p. */
    assert_true(near(verdict_cdf(12, 100, 0.1), 1 - verdict_cdf(87, 100, 0.9)));
}

/* Added up term by term, as the definition has it. */
static double summed(uint64_t t, uint64_t n, double p)
{
    double term = exp((double)n * log1p(-p));
    double sum = term;
    for (uint64_t i = 1; i <= t; i++) {
        term *= (double)(n - i + 1) / (double)i * p / (1 - p);
        sum += term;
    }
    return sum;
}

static void test_the_distribution_is_the_sum_of_its_terms(void **state)
{
    (void)state;
    for (uint64_t n = 10; n <= 50000; n = n * 3 / 2) {
        for (uint64_t t = 0; t < n / 4; t = t * 2 + 1) {
            assert_true(fabs(verdict_cdf(t, n, 0.01) - summed(t, n, 0.01)) < 1e-9);
        }
    }
    /* Far out, where a million terms would be needed: half of the mass lies below the mean. */
    assert_true(fabs(verdict_cdf(1000000, 100000000, 0.01) - 0.5) < 0.001);
}

static void test_mlperf_numbers(void **state)
{
    (void)state;
    assert_int_equal(verdict_of(458, 0, 0.01, 0.01), VERDICT_OPEN);
    assert_int_equal(verdict_of(459, 0, 0.01, 0.01), VERDICT_PASSED);
    assert_int_equal(verdict_of(661, 1, 0.01, 0.01), VERDICT_OPEN);
    assert_int_equal(verdict_of(662, 1, 0.01, 0.01), VERDICT_PASSED);
    assert_int_equal(verdict_of(0, 0, 0.01, 0.01), VERDICT_OPEN);
}

static void test_failing_is_proved_as_well(void **state)
{
    (void)state;
    /* At least one in two: 1 - 0.99^2 = 0.0199; at least two in two: 0.0001. */
    assert_int_equal(verdict_of(2, 1, 0.01, 0.01), VERDICT_OPEN);
    assert_int_equal(verdict_of(2, 2, 0.01, 0.01), VERDICT_FAILED);
    /* A thousand with a mean of ten: 18 or more are likelier than 1 in 100, 19 are not. */
    assert_true(1 - summed(17, 1000, 0.01) <= 0.015 && 1 - summed(17, 1000, 0.01) > 0.01);
    assert_int_equal(verdict_of(1000, 18, 0.01, 0.01), VERDICT_OPEN);
    assert_int_equal(verdict_of(1000, 19, 0.01, 0.01), VERDICT_FAILED);
    assert_int_equal(verdict_of(1000, 1000, 0.01, 0.01), VERDICT_FAILED);
    /* Right at the bound no number of requests decides. */
    assert_int_equal(verdict_of(1000000, 10000, 0.01, 0.01), VERDICT_OPEN);
}

static double search(double start, double max, double truth, uint32_t *tries)
{
    struct verdict_search s;
    verdict_search_init(&s, start, max, 0.02);
    while (!s.done) {
        verdict_search_tell(&s, s.rate <= truth);
    }
    *tries = s.tries;
    return s.valid;
}

static void test_the_search_finds_the_largest_rate(void **state)
{
    (void)state;
    uint32_t tries = 0;
    for (double truth = 2; truth < 1e6; truth *= 1.37) {
        const double found = search(100, 1e7, truth, &tries);
        assert_true(found <= truth && found * 1.02 >= truth * (1 - 1e-12));
        assert_true(tries <= 25);
    }
    assert_true(search(100, 1e7, 0.01, &tries) == 0);
    assert_true(search(100, 5000, 1e9, &tries) == 5000);
}

/* A rate that passed by luck fails when it is run again: the answer is one that passed then. */
static void test_what_is_found_passes_twice(void **state)
{
    (void)state;
    struct verdict_search s;
    verdict_search_init(&s, 100, 1e7, 0.02);
    double confirmed = 0;
    while (!s.done) {
        const bool lucky = !s.confirming && s.rate <= 1100;
        const bool passed = lucky || s.rate <= 1000;
        confirmed = s.confirming && passed ? s.rate : confirmed;
        verdict_search_tell(&s, passed);
    }
    assert_true(s.valid == confirmed);
    assert_true(s.valid <= 1000 && s.valid > 970);
}

/* Nothing that was found passes again: then nothing is valid. */
static void test_what_never_passes_twice_is_not_valid(void **state)
{
    (void)state;
    struct verdict_search s;
    verdict_search_init(&s, 100, 1e7, 0.02);
    while (!s.done) {
        verdict_search_tell(&s, !s.confirming && s.rate <= 1000);
    }
    assert_true(s.confirming);
    assert_true(s.valid == 0);
}

/* An invalid run says nothing: one or two in a row change nothing, three end what they can. */
static void test_invalid_runs_are_tried_again(void **state)
{
    (void)state;
    struct verdict_search s;
    verdict_search_init(&s, 100, 1e7, 0.02);
    for (uint32_t i = 0; !s.done; i++) {
        const double rate = s.rate;
        if (i % 3 != 2) {
            verdict_search_void(&s);
            assert_true(s.rate == rate);
        } else {
            verdict_search_tell(&s, rate <= 1000);
        }
    }
    assert_true(s.valid > 980 && s.valid <= 1000);

    verdict_search_init(&s, 100, 1e7, 0.02);
    while (!s.done) { /* Above 1000 the generator is the limit. */
        if (s.rate > 1000) {
            verdict_search_void(&s);
        } else {
            verdict_search_tell(&s, true);
        }
    }
    assert_true(s.valid > 980 && s.valid <= 1000);

    verdict_search_init(&s, 100, 1e7, 0.02);
    for (int i = 0; i < VERDICT_VOIDS_MAX; i++) {
        assert_false(s.done);
        verdict_search_void(&s);
    }
    assert_true(s.done && s.valid == 0);
}

static void test_a_search_ends_whatever_it_is_told(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 4096; bits++) {
        struct verdict_search s;
        verdict_search_init(&s, 50, 1e5, 0.05);
        while (!s.done) {
            assert_true(s.rate > 0 && s.rate <= 1e5);
            verdict_search_tell(&s, (bits >> (s.tries % 12) & 1) != 0);
        }
        assert_true(s.tries <= VERDICT_TRIES_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_distribution_by_hand),
        cmocka_unit_test(test_the_distribution_is_the_sum_of_its_terms),
        cmocka_unit_test(test_mlperf_numbers),
        cmocka_unit_test(test_failing_is_proved_as_well),
        cmocka_unit_test(test_the_search_finds_the_largest_rate),
        cmocka_unit_test(test_what_is_found_passes_twice),
        cmocka_unit_test(test_what_never_passes_twice_is_not_valid),
        cmocka_unit_test(test_invalid_runs_are_tried_again),
        cmocka_unit_test(test_a_search_ends_whatever_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
