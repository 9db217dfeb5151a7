#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/metric.h"

#define US UINT64_C(1000)
#define S UINT64_C(1000000000)

/* Statics are zeroed again by each test that uses them. */
static struct histogram histogram;

static void clear(void)
{
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        atomic_store(&histogram.counts[i], 0);
    }
    atomic_store(&histogram.sum_ns, 0);
}

static uint64_t bound_of(uint64_t ns)
{
    clear();
    histogram_observe(&histogram, ns);
    return histogram_quantile_ns(&histogram, 1);
}

/* A bound is at or above its value, by at most a quarter. */
static void test_buckets_enclose_their_values(void **state)
{
    (void)state;
    for (uint64_t ns = 1001; ns < 60 * S; ns += ns / 37 + 1) {
        const uint64_t bound = bound_of(ns);
        assert_true(bound >= ns);
        assert_true(bound - ns <= ns / 4);
        assert_true(bound_of(bound) == bound); /* Bounds belong to their own bucket. */
        assert_true(bound_of(bound + 1) > bound);
    }
    assert_true(bound_of(0) == US);
    assert_true(bound_of(US) == US);
    assert_true(bound_of(US + 1) == 1250);
    assert_true(bound_of(64 * S) <= (US << 26));
    assert_true(bound_of(US << 26) == US << 26);
    assert_true(bound_of((US << 26) + 1) == UINT64_MAX);
    assert_true(bound_of(UINT64_MAX) == UINT64_MAX);
}

static void test_quantiles(void **state)
{
    (void)state;
    clear();
    assert_true(histogram_quantile_ns(&histogram, 0.5) == 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        histogram_observe(&histogram, i * 1000 * US);
    }
    assert_int_equal(histogram_count(&histogram), 1000);
    const double quantiles[] = { 0.001, 0.25, 0.5, 0.9, 0.99, 1 };
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        const double exact = quantiles[i] * 1e9;
        const double found = (double)histogram_quantile_ns(&histogram, quantiles[i]);
        assert_true(found >= exact);
        assert_true(found <= exact * 1.25);
    }
    assert_true(histogram_quantile_ns(&histogram, 0) == histogram_quantile_ns(&histogram, 0.001));
}

static void test_a_tally_counts_the_same(void **state)
{
    (void)state;
    struct histogram_tally tally = { 0 };
    static struct histogram one_by_one;
    clear();
    for (uint64_t i = 0; i < 200; i++) {
        const uint64_t ns = i % 50 < 40 ? 3 * US : i * 900 * US;
        histogram_observe(&one_by_one, ns);
        histogram_tally_add(&tally, &histogram, ns, 1);
        if (i % 60 == 59) {
            histogram_tally_end(&tally, &histogram);
        }
    }
    histogram_tally_end(&tally, &histogram);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        assert_true(atomic_load(&histogram.counts[i]) == atomic_load(&one_by_one.counts[i]));
    }
    assert_true(atomic_load(&histogram.sum_ns) == atomic_load(&one_by_one.sum_ns));
}

static void *observe_many(void *argument)
{
    (void)argument;
    for (uint64_t i = 0; i < 10000; i++) {
        histogram_observe(&histogram, i * US);
    }
    return NULL;
}

static void test_threads_lose_no_observation(void **state)
{
    (void)state;
    clear();
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, observe_many, NULL), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(histogram_count(&histogram), 40000);
    assert_true(atomic_load(&histogram.sum_ns) == 4 * US * (10000 * UINT64_C(9999) / 2));
}

static void test_durations_add_up(void **state)
{
    (void)state;
    static struct duration duration;
    duration_add(&duration, 5);
    duration_add(&duration, 7);
    assert_int_equal(atomic_load(&duration.count), 2);
    assert_int_equal(atomic_load(&duration.ns), 12);
}

static void terminate(struct buffer *out)
{
    buffer_char(out, '\0');
    assert_false(out->failed);
}

static void test_samples_in_prometheus_text(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 65536);
    metric_family(&out, "a_total", "One \\ two\nthree \"four\".", "counter");
    metric_u64(&out, "a_total", NULL, UINT64_MAX);
    metric_u64(&out, "a_total", "model=\"m\"", 0);
    metric_double(&out, "b", "", 0.1);
    metric_double(&out, "b", NULL, 1.0 / 3);
    metric_double(&out, "b", NULL, 1e300);
    metric_double(&out, "b", NULL, (double)NAN);
    metric_double(&out, "b", NULL, -(double)INFINITY);
    terminate(&out);
    assert_string_equal(out.data, "# HELP a_total One \\\\ two\\nthree \"four\".\n"
                                  "# TYPE a_total counter\n"
                                  "a_total 18446744073709551615\n"
                                  "a_total{model=\"m\"} 0\n"
                                  "b 0.1\n"
                                  "b 0.3333333333333333\n"
                                  "b 1e+300\n"
                                  "b NaN\n"
                                  "b -Inf\n");
    buffer_finish(&out);
}

static void test_labels_stand_behind_each_other(void **state)
{
    (void)state;
    char text[64];
    struct buffer labels = { .data = text, .capacity = sizeof(text), .size_max = sizeof(text) };
    metric_add_label(&labels, "pool", "gpu");
    assert_string_equal(text, "pool=\"gpu\"");
    metric_add_label(&labels, "device", "a\"b");
    assert_string_equal(text, "pool=\"gpu\",device=\"a\\\"b\"");
}

static void test_label_values_are_escaped(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 100);
    metric_label(&out, "a\\b\"c\nd");
    terminate(&out);
    assert_string_equal(out.data, "a\\\\b\\\"c\\nd");
    buffer_finish(&out);
}

/* Reads the text back as Prometheus would: bounds rise, counts never fall, +Inf is the count. */
static void check_histogram_text(char *text)
{
    double bound_before = 0;
    unsigned long count_before = 0;
    size_t buckets = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        static const char start[] = "h_bucket{model=\"m\",le=\"";
        if (strncmp(line, start, sizeof(start) - 1) != 0) {
            continue;
        }
        char *rest;
        const double bound = strtod(line + sizeof(start) - 1, &rest);
        assert_memory_equal(rest, "\"} ", 3);
        const unsigned long count = strtoul(rest + 3, NULL, 10);
        assert_true(bound > bound_before);
        assert_true(count >= count_before);
        if (buckets > 0 && !isinf(bound)) {
            assert_true(fabs(bound / bound_before - 2) < 1e-9);
        }
        bound_before = bound;
        count_before = count;
        buckets++;
    }
    assert_int_equal(buckets, 28);
    assert_true(isinf(bound_before));
    assert_int_equal(count_before, 5);
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static void test_histogram_in_prometheus_text(void **state)
{
    (void)state;
    clear();
    const uint64_t observed[] = { 500, US, 2 * US, 2 * US + 1, 100 * S };
    for (size_t i = 0; i < 5; i++) {
        histogram_observe(&histogram, observed[i]);
    }
    struct buffer out;
    buffer_init(&out, 65536);
    metric_histogram(&out, "h", "model=\"m\"", &histogram);
    terminate(&out);
    assert_true(starts_with(out.data, "h_bucket{model=\"m\",le=\"0.000001\"} 2\n"
                                      "h_bucket{model=\"m\",le=\"0.000002\"} 3\n"
                                      "h_bucket{model=\"m\",le=\"0.000004\"} 4\n"));
    assert_non_null(strstr(out.data, "le=\"67.108864\"} 4\nh_bucket{model=\"m\",le=\"+Inf\"} 5\n"
                                     "h_sum{model=\"m\"} 100.000005501\n"
                                     "h_count{model=\"m\"} 5\n"));
    check_histogram_text(out.data);
    buffer_clear(&out);
    metric_histogram(&out, "h", NULL, &histogram);
    terminate(&out);
    assert_true(starts_with(out.data, "h_bucket{le=\"0.000001\"} 2\n"));
    assert_non_null(strstr(out.data, "\nh_sum 100.000005501\nh_count 5\n"));
    buffer_finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_enclose_their_values),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_a_tally_counts_the_same),
        cmocka_unit_test(test_threads_lose_no_observation),
        cmocka_unit_test(test_durations_add_up),
        cmocka_unit_test(test_samples_in_prometheus_text),
        cmocka_unit_test(test_labels_stand_behind_each_other),
        cmocka_unit_test(test_label_values_are_escaped),
        cmocka_unit_test(test_histogram_in_prometheus_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
