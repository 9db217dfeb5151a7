#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/arrivals.h"
#include "util/clock.h"

static struct arrivals make(const struct arrivals_spec *spec)
{
    struct arrivals arrivals = { 0 };
    struct weir_err err = { 0 };
    if (arrivals_make(spec, &arrivals, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    for (size_t i = 0; i < arrivals.count; i++) {
        assert_true(i == 0 || arrivals.at_ns[i - 1] <= arrivals.at_ns[i]);
        assert_true(spec->duration_ns == 0 || arrivals.at_ns[i] < spec->duration_ns);
    }
    return arrivals;
}

static void test_constant_is_evenly_spaced_and_does_not_drift(void **state)
{
    (void)state;
    const struct arrivals_spec spec = { .kind = ARRIVALS_CONSTANT,
                                        .rate = 3,
                                        .duration_ns = 1000 * NS_PER_S };
    struct arrivals arrivals = make(&spec);
    assert_int_equal(arrivals.count, 3000);
    assert_int_equal(arrivals.at_ns[0], 0);
    assert_int_equal(arrivals.at_ns[1], 333333333);
    assert_int_equal(arrivals.at_ns[2997], 999 * NS_PER_S);
    assert_null(arrivals.user);
    arrivals_finish(&arrivals);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov and Smirnov: the greatest distance between the gaps' distribution and 1 - e^-x, times
 * the root of their number; above 1.63 one time in a hundred for truly exponential gaps. */
static double distance_from_exponential(const struct arrivals *arrivals, double mean_ns)
{
    const size_t n = arrivals->count - 1;
    double *gaps = malloc(n * sizeof(*gaps));
    double worst = 0;
    assert_non_null(gaps);
    for (size_t i = 0; i < n; i++) {
        gaps[i] = (double)(arrivals->at_ns[i + 1] - arrivals->at_ns[i]) / mean_ns;
    }
    qsort(gaps, n, sizeof(*gaps), by_size);
    for (size_t i = 0; i < n; i++) {
        const double truth = -expm1(-gaps[i]);
        worst = fmax(worst, fabs(truth - (double)i / (double)n));
        worst = fmax(worst, fabs(truth - (double)(i + 1) / (double)n));
    }
    free(gaps);
    return worst * sqrt((double)n);
}

static void test_poisson_has_its_mean_and_exponential_gaps(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        const struct arrivals_spec spec = {
            .kind = ARRIVALS_POISSON, .seed = seed, .rate = 5000, .duration_ns = 20 * NS_PER_S
        };
        struct arrivals arrivals = make(&spec);
        /* 100,000 expected; four standard deviations are 1,265. */
        assert_true(fabs((double)arrivals.count - 100000) < 1265);
        assert_true(distance_from_exponential(&arrivals, 200000) < 1.63);
        assert_true(distance_from_exponential(&arrivals, 210000) > 1.63); /* It can tell. */
        arrivals_finish(&arrivals);
    }
}

static void test_a_seed_is_a_schedule(void **state)
{
    (void)state;
    struct arrivals_spec spec = {
        .kind = ARRIVALS_POISSON, .seed = 7, .rate = 1000, .duration_ns = NS_PER_S
    };
    struct arrivals first = make(&spec);
    struct arrivals again = make(&spec);
    spec.seed = 8;
    struct arrivals other = make(&spec);
    assert_int_equal(first.count, again.count);
    assert_memory_equal(first.at_ns, again.at_ns, first.count * sizeof(uint64_t));
    assert_true(first.at_ns[0] != other.at_ns[0]);
    arrivals_finish(&first);
    arrivals_finish(&again);
    arrivals_finish(&other);
}

/* 60 users, on 4 s of 15 s, 25 frames a second then: 400 requests a second. */
static struct arrivals_spec lips(bool fixed)
{
    return (struct arrivals_spec){ .kind = ARRIVALS_USERS,
                                   .seed = 3,
                                   .duration_ns = 600 * NS_PER_S,
                                   .rate = 25,
                                   .users = 60,
                                   .on_ns = 4 * NS_PER_S,
                                   .off_ns = 11 * NS_PER_S,
                                   .fixed = fixed };
}

static void test_users_are_on_their_share_of_the_time(void **state)
{
    (void)state;
    for (int fixed = 0; fixed < 2; fixed++) {
        const struct arrivals_spec spec = lips(fixed == 1);
        struct arrivals arrivals = make(&spec);
        const double expected = 400.0 * 600;
        assert_true(arrivals_rate(&spec) == 400);
        assert_true(fabs((double)arrivals.count / expected - 1) < (fixed == 1 ? 0.01 : 0.1));
        assert_int_equal(arrivals.users, 60);
        arrivals_finish(&arrivals);
    }
}

static void test_a_fixed_user_sends_bursts_and_thinks(void **state)
{
    (void)state;
    struct arrivals_spec spec = lips(true);
    spec.users = 1;
    struct arrivals arrivals = make(&spec);
    size_t thoughts = 0;
    for (size_t i = 1; i < arrivals.count; i++) {
        const uint64_t gap_ns = arrivals.at_ns[i] - arrivals.at_ns[i - 1];
        const bool near_frame = gap_ns >= 39999999 && gap_ns <= 40000001;
        const bool near_thought = gap_ns >= 11039999999 && gap_ns <= 11040000001;
        assert_true(near_frame || near_thought); /* 4 s are 100 frames, the last at 3.96 s. */
        thoughts += near_thought;
    }
    assert_true(thoughts >= 39 && thoughts <= 40);
    arrivals_finish(&arrivals);
}

static void test_users_do_not_start_together(void **state)
{
    (void)state;
    struct arrivals_spec spec = lips(true);
    spec.duration_ns = NS_PER_S;
    struct arrivals arrivals = make(&spec);
    bool seen[60] = { false };
    size_t active = 0;
    for (size_t i = 0; i < arrivals.count; i++) {
        active += !seen[arrivals.user[i]];
        seen[arrivals.user[i]] = true;
    }
    assert_true(active > 8 && active < 35); /* A third of a cycle's users, by chance. */
    arrivals_finish(&arrivals);
}

static void test_a_recording_is_replayed(void **state)
{
    (void)state;
    static const char text[] = "# seconds, user\n0 3\r\n\n0.5, 1\n1.25\t0\n9 2";
    const struct arrivals_spec spec = { .kind = ARRIVALS_RECORDED,
                                        .speed = 2,
                                        .duration_ns = 2 * NS_PER_S };
    struct arrivals arrivals;
    assert_int_equal(arrivals_read(BYTES_LITERAL(text), "t", &spec, &arrivals, NULL), WEIR_OK);
    assert_int_equal(arrivals.count, 3); /* 9 s at twice the speed lie behind the end. */
    assert_int_equal(arrivals.at_ns[1], 250 * NS_PER_MS);
    assert_int_equal(arrivals.at_ns[2], 625 * NS_PER_MS);
    assert_int_equal(arrivals.user[0], 3);
    assert_int_equal(arrivals.users, 4);
    arrivals_finish(&arrivals);
}

static void test_a_recording_comes_from_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/test_arrivals_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "0.1\n0.2\n", 8), 8);
    close(fd);
    struct arrivals_spec spec = { .kind = ARRIVALS_RECORDED, .path = path };
    struct arrivals arrivals = make(&spec);
    assert_int_equal(arrivals.count, 2);
    assert_int_equal(arrivals.at_ns[1], 200 * NS_PER_MS);
    assert_null(arrivals.user);
    arrivals_finish(&arrivals);
    unlink(path);
    struct weir_err err = { 0 };
    assert_int_equal(arrivals_make(&spec, &arrivals, &err), WEIR_ENOENT);
    assert_non_null(strstr(err.text, path));
}

static void test_mistakes_in_a_recording_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *sentence;
    } cases[] = {
        { "0.1\nsoon\n", "t, line 2: found 'soon', expected seconds" },
        { "-1\n", "found '-1'" },
        { "1e400\n", "found '1e400'" },
        { "nan\n", "found 'nan'" },
        { "0.1 x\n", "found '0.1 x'" },
        { "0.2\n0.1\n", "t, line 2: 0.1 s lies before the line above" },
        { "0.1 1\n0.2\n", "t, line 2: either all lines name a user or none does" },
        { "# nothing\n", "t: found no arrival times, expected one in each line, in seconds" },
    };
    const struct arrivals_spec spec = { .kind = ARRIVALS_RECORDED };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arrivals arrivals;
        struct weir_err err = { 0 };
        assert_int_equal(arrivals_read(bytes_of(cases[i].text), "t", &spec, &arrivals, &err),
                         WEIR_EINVAL);
        if (strstr(err.text, cases[i].sentence) == NULL) {
            fail_msg("'%s' does not say '%s'", err.text, cases[i].sentence);
        }
    }
}

static void test_mistakes_in_a_specification_are_named(void **state)
{
    (void)state;
    const struct arrivals_spec specs[] = {
        { .kind = ARRIVALS_POISSON, .rate = 0, .duration_ns = NS_PER_S },
        { .kind = ARRIVALS_POISSON, .rate = NAN, .duration_ns = NS_PER_S },
        { .kind = ARRIVALS_CONSTANT, .rate = 1 },
        { .kind = ARRIVALS_CONSTANT, .rate = 1e9, .duration_ns = 3600 * NS_PER_S },
        { .kind = ARRIVALS_USERS, .rate = 1, .duration_ns = NS_PER_S, .on_ns = 1 },
        { .kind = ARRIVALS_USERS, .rate = 1, .duration_ns = NS_PER_S, .users = 1 },
    };
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        struct arrivals arrivals;
        struct weir_err err = { 0 };
        assert_int_equal(arrivals_make(&specs[i], &arrivals, &err), WEIR_EINVAL);
        assert_true(err.text[0] != '\0');
    }
}

static void test_words(void **state)
{
    (void)state;
    enum arrivals_kind kind;
    assert_true(arrivals_kind_of(BYTES_LITERAL("poisson"), &kind));
    assert_int_equal(kind, ARRIVALS_POISSON);
    assert_false(arrivals_kind_of(BYTES_LITERAL("poissons"), &kind));
    assert_string_equal(arrivals_word(ARRIVALS_USERS), "users");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constant_is_evenly_spaced_and_does_not_drift),
        cmocka_unit_test(test_poisson_has_its_mean_and_exponential_gaps),
        cmocka_unit_test(test_a_seed_is_a_schedule),
        cmocka_unit_test(test_users_are_on_their_share_of_the_time),
        cmocka_unit_test(test_a_fixed_user_sends_bursts_and_thinks),
        cmocka_unit_test(test_users_do_not_start_together),
        cmocka_unit_test(test_a_recording_is_replayed),
        cmocka_unit_test(test_a_recording_comes_from_a_file),
        cmocka_unit_test(test_mistakes_in_a_recording_are_named),
        cmocka_unit_test(test_mistakes_in_a_specification_are_named),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
