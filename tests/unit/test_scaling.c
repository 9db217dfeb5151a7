#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <cmocka.h>

#include "engine/scaling.h"
#include "util/clock.h"

/* A device whose runs follow the law, with noise. */
struct device {
    double a;
    double b;
    double sway; /* Run times vary evenly by this fraction. */
    uint64_t random;
};

static double gain(const struct device *device, double n)
{
    return n / (1 + device->a * (n - 1) + device->b * n * (n - 1));
}

/* Rows per second. */
static double rate(const struct scaling *scaling, uint32_t runs)
{
    return scaling_rate(scaling, runs) * 1e9;
}

static double draw(struct device *device)
{
    device->random = device->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(device->random >> 11) * 0x1p-53;
}

/* One run of a saturated device; true: the verdict is another. */
static bool settle(struct scaling *scaling, struct device *device)
{
    const double n = scaling_cap(scaling);
    const double sway = 1 + device->sway * (2 * draw(device) - 1);
    return scaling_observe(scaling, n, 4, (uint64_t)(4e6 * n / gain(device, n) * sway), true);
}

static void settle_many(struct scaling *scaling, struct device *device, uint32_t runs)
{
    for (uint32_t i = 0; i < runs; i++) {
        (void)settle(scaling, device);
    }
}

static void test_the_law_is_found_in_what_was_measured(void **state)
{
    (void)state;
    struct device device = { .a = 0.5975, .b = 0.0671 };
    struct scaling scaling;
    struct scaling_law law;
    scaling_init(&scaling, 4, false);
    assert_false(scaling_fit(&scaling, &law));
    settle_many(&scaling, &device, 4000);
    assert_true(scaling_fit(&scaling, &law));
    assert_true(fabs(law.a - device.a) < 0.001);
    assert_true(fabs(law.b - device.b) < 0.001);
    assert_true(fabs(law.one * 1e9 - 1e3) < 1);
    assert_true(fabs(rate(&scaling, 2) - 1e3 * gain(&device, 2)) < 1);
}

static void test_the_knee_of_the_law(void **state)
{
    (void)state;
    static const struct {
        double a, b;
        uint32_t max, knee;
    } rows[] = {
        { 0.5975, 0.0671, 4, 2 }, /* N* = 2.45: a device that is held nearly all the time. */
        { 0, 0, 16, 16 },         /* They do not meet. */
        { 1, 0, 8, 1 },           /* One after the other. */
        { 1.2, 0.3, 8, 1 },       /* The second one makes it worse. */
        { 0.02, 0.0015, 64, 25 }, { 0.1, 0.012, 6, 6 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct scaling_law law = { .one = 1, .a = rows[i].a, .b = rows[i].b };
        assert_int_equal(scaling_knee(&law, rows[i].max), rows[i].knee);
    }
}

/* Where it settles, of devices of all kinds, with run times that vary by a tenth. */
static void test_as_many_runs_as_pay(void **state)
{
    (void)state;
    static const struct {
        double a, b;
        uint32_t max, least, most;
    } rows[] = {
        { 0, 0, 2, 2, 2 },           { 0, 0, 16, 16, 16 },  { 1, 0, 8, 1, 1 },
        { 0.5975, 0.0671, 3, 2, 2 }, { 0.9, 0.5, 4, 1, 1 }, { 0.02, 0.0015, 32, 16, 32 },
        { 0.05, 0.02, 12, 5, 8 },    { 0.02, 0, 8, 7, 8 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (uint64_t seed = 0; seed < 20; seed++) {
            struct device device = { rows[i].a, rows[i].b, .sway = 0.1, .random = seed };
            struct scaling scaling;
            scaling_init(&scaling, rows[i].max, false);
            assert_int_equal(scaling_cap(&scaling), rows[i].max);
            settle_many(&scaling, &device, 20000);
            assert_in_range(scaling.chosen, rows[i].least, rows[i].most);
        }
    }
}

static void test_it_notices_that_the_device_has_changed(void **state)
{
    (void)state;
    struct device device = { .a = 1, .sway = 0.05 };
    struct scaling scaling;
    scaling_init(&scaling, 2, false);
    settle_many(&scaling, &device, 1000);
    assert_int_equal(scaling.chosen, 1);
    device.a = 0;
    settle_many(&scaling, &device, 20000);
    assert_int_equal(scaling.chosen, 2);
}

static void test_trials_cost_little(void **state)
{
    (void)state;
    struct device device = { .a = 0, .sway = 0.05 };
    struct scaling scaling;
    scaling_init(&scaling, 2, false);
    uint32_t fewer = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        fewer += scaling_cap(&scaling) < 2 ? 1 : 0;
        (void)settle(&scaling, &device);
    }
    assert_int_equal(fewer, SCALING_TRIAL_RUNS); /* What it showed is remembered. */
}

/* A light load has shown that one run cannot keep up with two: that is put to the test once. */
static void test_what_is_known_is_not_tried(void **state)
{
    (void)state;
    struct device device = { .a = 0, .sway = 0.05 };
    struct scaling scaling;
    scaling_init(&scaling, 2, false);
    for (uint32_t i = 0; i < 20; i++) {
        (void)scaling_observe(&scaling, 1, 4, 4000000, false);
    }
    uint32_t fewer = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        fewer += scaling_cap(&scaling) < 2 ? 1 : 0;
        assert_true(fewer == 0 || i > 2000);
        (void)settle(&scaling, &device);
    }
    assert_int_equal(fewer, SCALING_TRIAL_RUNS);
}

/* Other programs had the machine while few runs were on their way. */
static void test_runs_that_were_held_up_deter_for_some_time_only(void **state)
{
    (void)state;
    struct device device = { .a = 0.9, .b = 0.2, .sway = 0.05 };
    struct scaling scaling;
    scaling_init(&scaling, 2, false);
    for (uint32_t i = 0; i < 20; i++) {
        (void)scaling_observe(&scaling, 1, 4, 400000000, false);
    }
    settle_many(&scaling, &device, 10000);
    assert_int_equal(scaling.chosen, 1);
}

/* One of them that was not says more than they do. */
static void test_runs_that_were_held_up_weigh_less(void **state)
{
    (void)state;
    struct device device = { .a = 0.9, .b = 0.2, .sway = 0.05 };
    struct scaling scaling;
    scaling_init(&scaling, 2, false);
    for (uint32_t i = 0; i < 40; i++) {
        const uint64_t held_up_ns = i % 4 == 0 ? 0 : 3000000;
        (void)scaling_observe(&scaling, 1, 4, 4000000 + held_up_ns, false);
    }
    settle_many(&scaling, &device, 400);
    assert_int_equal(scaling.chosen, 1);
}

/* The whole program is stopped for up to a second, every second or so: what runs then lasts as much
 * longer.  A trial of 32 runs takes less than that. */
static void test_stops_of_the_program_do_not_mislead(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct device device = { .b = 0.3, .random = seed };
        struct scaling scaling;
        scaling_init(&scaling, 4, false);
        uint32_t held = 0; /* Runs that were under way then. */
        double now_s = 0;
        double stop_s = 1;
        double stopped_s = 0;
        while (now_s < 120) {
            const uint32_t n = scaling_cap(&scaling);
            const double run_s = 0.016 * n / gain(&device, n);
            now_s += run_s / n;
            if (now_s >= stop_s) {
                stopped_s = draw(&device);
                now_s += stopped_s;
                stop_s = now_s + 2 * draw(&device);
                held = n;
            }
            const double took_s = run_s + (held > 0 ? stopped_s : 0);
            held -= held > 0;
            (void)scaling_observe(&scaling, n, 1, (uint64_t)(took_s * 1e9), true);
        }
        assert_int_equal(scaling.chosen, 2);
    }
}

static void test_a_configured_count_stays_and_is_said_to_hurt(void **state)
{
    (void)state;
    struct device device = { .a = 0.9, .b = 0.2, .sway = 0.1 };
    struct scaling scaling;
    scaling_init(&scaling, 4, true);
    uint32_t told = 0;
    for (uint32_t i = 0; i < 5000; i++) {
        const bool had = scaling.better > 0;
        (void)settle(&scaling, &device);
        told += !had && scaling.better > 0 ? 1 : 0;
    }
    assert_int_equal(scaling.chosen, 4);
    assert_int_equal(told, 1);
    assert_in_range(scaling.better, 1, 3);
    assert_true(scaling.gain > 1.05);
}

static void test_a_configured_count_that_does_not_hurt_is_not_accused(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct device device = { .a = 1, .sway = 0.1, .random = seed }; /* As much, no more. */
        struct scaling scaling;
        scaling_init(&scaling, 3, true);
        settle_many(&scaling, &device, 10000);
        assert_int_equal(scaling.better, 0);
    }
}

/* One trial alone may have met with something else on the machine. */
static void test_two_trials_in_a_row_accuse_and_one_acquits(void **state)
{
    (void)state;
    struct device hurt = { .a = 0.9, .b = 0.5 };
    struct device free = { .a = 0 };
    struct scaling scaling;
    scaling_init(&scaling, 2, true);
    while (scaling.trial == 0) {
        assert_false(settle(&scaling, &hurt) && scaling.trial == 0);
    }
    while (scaling.trial > 0) {
        (void)settle(&scaling, &hurt);
    }
    assert_int_equal(scaling.better, 0);
    while (scaling.trial == 0) {
        (void)settle(&scaling, &hurt);
    }
    bool told = false;
    while (scaling.trial > 0) {
        told = settle(&scaling, &hurt);
    }
    assert_int_equal(scaling.better, 1);
    assert_true(told); /* Whoever shows it is told to look. */
    assert_int_equal(scaling.chosen, 2);
    settle_many(&scaling, &free, 200000); /* What is known of one run at a time grows old. */
    assert_int_equal(scaling.better, 0);
}

/* Whoever limits the runs is told whenever their number changes. */
static void test_each_change_is_told(void **state)
{
    (void)state;
    struct device device = { .a = 1, .sway = 0.05 };
    struct scaling scaling;
    scaling_init(&scaling, 4, false);
    uint32_t told = 0;
    uint32_t cap = scaling_cap(&scaling);
    for (uint32_t i = 0; i < 5000; i++) {
        const bool changed = settle(&scaling, &device);
        assert_true(changed == (scaling_cap(&scaling) != cap));
        cap = scaling_cap(&scaling);
        told += changed ? 1 : 0;
    }
    assert_true(told > 1);
}

/* Runs that overlap by halves belong to no count, and those at another one than the cap's not to
 * its. */
static void test_only_runs_at_the_cap_count_for_it(void **state)
{
    (void)state;
    struct scaling scaling;
    scaling_init(&scaling, 4, false);
    for (uint32_t i = 0; i < 1000; i++) {
        (void)scaling_observe(&scaling, 3.5, 1, 1000000, true);
        (void)scaling_observe(&scaling, 2, 1, 1000000, true);
    }
    for (uint32_t runs = 1; runs <= 4; runs++) {
        assert_true(rate(&scaling, runs) <= 0);
    }
    assert_int_equal(scaling_cap(&scaling), 4);
    assert_true(rate(&scaling, 0) <= 0 && rate(&scaling, 5) <= 0);
}

/* What has no rows or took no time by the clock tells nothing. */
static void test_runs_of_nothing_are_left_out(void **state)
{
    (void)state;
    struct device device = { .a = 0 };
    struct scaling scaling;
    scaling_init(&scaling, 2, false);
    for (uint32_t i = 0; i < 500; i++) {
        assert_false(scaling_observe(&scaling, 2, 0, 1000000, true));
        assert_false(scaling_observe(&scaling, 2, 4, 0, true));
    }
    assert_true(rate(&scaling, 2) <= 0);
    assert_int_equal(scaling_cap(&scaling), 2);
    settle_many(&scaling, &device, 100);
    assert_true(fabs(rate(&scaling, 2) - 2e3) < 1);
}

/* With one run, or more than can be told apart, there is nothing to find. */
static void test_counts_that_are_not_learned(void **state)
{
    (void)state;
    static const uint32_t counts[] = { 1, SCALING_RUNS_MAX + 1 };
    for (size_t i = 0; i < 2; i++) {
        struct scaling scaling;
        scaling_init(&scaling, counts[i], false);
        for (uint32_t k = 0; k < 2000; k++) {
            assert_false(scaling_observe(&scaling, counts[i], 4, 1000000, true));
        }
        assert_int_equal(scaling_cap(&scaling), counts[i]);
    }
}

/* Rates are those of late, not of ever. */
static void test_old_rates_fade(void **state)
{
    (void)state;
    struct device slow = { .a = 1 };
    struct scaling scaling;
    scaling_init(&scaling, 2, true);
    settle_many(&scaling, &slow, 100);
    assert_true(fabs(rate(&scaling, 2) - 1e3) < 1);
    for (uint32_t i = 0; i < 100; i++) {
        (void)scaling_observe(&scaling, 2, 4, 4000000, true); /* Twice as quick now. */
    }
    assert_true(rate(&scaling, 2) > 1.7e3);
}

static void test_nothing_is_learned_where_nobody_waits(void **state)
{
    (void)state;
    struct scaling scaling;
    scaling_init(&scaling, 4, false);
    for (uint32_t i = 0; i < 5000; i++) {
        assert_false(scaling_observe(&scaling, 4, 1, 1000000, false));
    }
    assert_int_equal(scaling_cap(&scaling), 4);
    assert_true(rate(&scaling, 4) <= 0);
}

/* A trial that the load left alone ends. */
static void test_a_trial_does_not_outlive_the_load(void **state)
{
    (void)state;
    struct device device = { .a = 0 };
    struct scaling scaling;
    scaling_init(&scaling, 2, false);
    while (scaling.trial == 0) {
        (void)settle(&scaling, &device);
    }
    for (uint32_t i = 0; i < 8 * SCALING_TRIAL_RUNS; i++) {
        (void)scaling_observe(&scaling, 1, 1, 1000000, false);
    }
    assert_int_equal(scaling_cap(&scaling), 2);
}

static void test_what_ran_beside_a_run(void **state)
{
    (void)state;
    struct scaling scaling;
    scaling_init(&scaling, 4, false);
    scaling_pass(&scaling, 0, 100);
    const uint64_t before = scaling.area; /* It begins, */
    scaling_pass(&scaling, 1, 200);       /* is joined, */
    scaling_pass(&scaling, 2, 500);       /* and alone again, */
    scaling_pass(&scaling, 1, 600);       /* to its end. */
    assert_int_equal(scaling.area - before, 100 + 600 + 100);
    scaling_pass(&scaling, 3, 550); /* Clocks of two threads may be read in any order. */
    assert_int_equal(scaling.area - before, 800);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_law_is_found_in_what_was_measured),
        cmocka_unit_test(test_the_knee_of_the_law),
        cmocka_unit_test(test_as_many_runs_as_pay),
        cmocka_unit_test(test_it_notices_that_the_device_has_changed),
        cmocka_unit_test(test_trials_cost_little),
        cmocka_unit_test(test_what_is_known_is_not_tried),
        cmocka_unit_test(test_runs_that_were_held_up_deter_for_some_time_only),
        cmocka_unit_test(test_runs_that_were_held_up_weigh_less),
        cmocka_unit_test(test_stops_of_the_program_do_not_mislead),
        cmocka_unit_test(test_a_configured_count_stays_and_is_said_to_hurt),
        cmocka_unit_test(test_a_configured_count_that_does_not_hurt_is_not_accused),
        cmocka_unit_test(test_two_trials_in_a_row_accuse_and_one_acquits),
        cmocka_unit_test(test_each_change_is_told),
        cmocka_unit_test(test_only_runs_at_the_cap_count_for_it),
        cmocka_unit_test(test_runs_of_nothing_are_left_out),
        cmocka_unit_test(test_counts_that_are_not_learned),
        cmocka_unit_test(test_old_rates_fade),
        cmocka_unit_test(test_nothing_is_learned_where_nobody_waits),
        cmocka_unit_test(test_a_trial_does_not_outlive_the_load),
        cmocka_unit_test(test_what_ran_beside_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
