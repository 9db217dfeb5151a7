#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cmd/bench_run.h"
#include "util/clock.h"

#define US NS_PER_US
#define MS NS_PER_MS
#define S NS_PER_S

/* Ten seconds of an open loop at 100 a second, 10 ms allowed. */
static struct bench_run make(void)
{
    struct bench_run run = {
        .load = BENCH_LOAD_OPEN, .offered = 100, .duration_ns = 10 * S, .slo_ns = 10 * MS
    };
    assert_int_equal(bench_run_init(&run, NULL), WEIR_OK);
    return run;
}

/* A request that left `lag_ns` late and ended `latency_ns` after it was due. */
static void pass(struct bench_run *run, uint64_t due_ns, uint64_t lag_ns, uint64_t latency_ns,
                 enum bench_outcome outcome)
{
    bench_run_sent(run, 0, due_ns + lag_ns, lag_ns);
    bench_run_answered(run, 0, due_ns + latency_ns, latency_ns, outcome);
}

/* A thousand requests of 5 ms, `late` of them of 20 ms; each is in flight from its sending. */
static struct bench_run measured(uint64_t late)
{
    struct bench_run run = make();
    for (uint64_t i = 0; i < 1000; i++) {
        pass(&run, i * 10 * MS, 100 * US, i < late ? 20 * MS : 5 * MS, BENCH_OK);
    }
    run.elapsed_ns = 10 * S;
    run.generator_cpu = 0.2;
    run.inflight_mean = ((double)late * 19.9 + (double)(1000 - late) * 4.9) / 10000;
    return run;
}

static void test_what_counts_as_good(void **state)
{
    (void)state;
    struct bench_run run = make();
    pass(&run, 0, 0, 10 * MS, BENCH_OK);
    pass(&run, 0, 0, 10 * MS + 1, BENCH_OK);
    pass(&run, 0, 0, MS, BENCH_REFUSED);
    pass(&run, 0, 0, 12 * MS, BENCH_EXPIRED);
    pass(&run, 0, 0, MS, BENCH_FAILED);
    pass(&run, 0, 0, 9 * S, BENCH_UNANSWERED);
    run.elapsed_ns = 10 * S;
    bench_run_close(&run);
    assert_int_equal(run.sent, 6);
    assert_int_equal(run.good, 1);
    assert_int_equal(run.counts[BENCH_OK], 2);
    assert_true(run.throughput == 0.2 && run.goodput == 0.1);
    /* Latency holds what a client waited for an answer, or would still wait; a no is apart. */
    assert_int_equal(run.latency.total, 3);
    assert_int_equal(run.latency.max_ns, 9 * S);
    assert_int_equal(run.refusal.total, 2);
    assert_int_equal(run.refusal.max_ns, 12 * MS);
    bench_run_finish(&run);
}

static void test_a_run_that_holds_its_slo_passes(void **state)
{
    (void)state;
    struct bench_run run = measured(0);
    bench_run_close(&run);
    assert_int_equal(run.flaws, 0);
    assert_int_equal(run.verdict, VERDICT_PASSED);
    assert_true(bench_run_passed(&run));
    assert_true(fabs(run.little - 1) < 1e-9);
    bench_run_finish(&run);
}

static void test_misses_decide_the_verdict(void **state)
{
    (void)state;
    static const struct {
        uint64_t late;
        enum verdict verdict;
    } cases[] = {
        { 2, VERDICT_PASSED }, /* 838 requests are needed for it, */
        { 3, VERDICT_OPEN },   /* and 1001 for this. */
        { 10, VERDICT_OPEN },
        { 19, VERDICT_FAILED },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench_run run = measured(cases[i].late);
        bench_run_close(&run);
        assert_int_equal(run.verdict, cases[i].verdict);
        assert_true(bench_run_passed(&run) == (cases[i].verdict == VERDICT_PASSED));
        bench_run_finish(&run);
    }
}

static bool has(const struct bench_run *run, enum bench_flaw flaw)
{
    return run->flaws == UINT32_C(1) << flaw;
}

static void test_a_full_generator_makes_an_open_loop_invalid(void **state)
{
    (void)state;
    struct bench_run run = measured(0);
    run.generator_cpu = 0.81;
    bench_run_close(&run);
    assert_true(has(&run, BENCH_FLAW_CPU));
    assert_false(bench_run_passed(&run));
    bench_run_finish(&run);
    run = measured(0);
    run.generator_cpu = 0.99;
    run.load = BENCH_LOAD_CLOSED; /* There it is what the loop ran into, and only told. */
    bench_run_close(&run);
    assert_int_equal(run.flaws, 0);
    bench_run_finish(&run);
}

static void test_late_sending_makes_an_open_loop_invalid(void **state)
{
    (void)state;
    for (uint64_t late = 9; late <= 11; late += 2) { /* Of a thousand: below and above the p99. */
        struct bench_run run = make();
        for (uint64_t i = 0; i < 1000; i++) {
            pass(&run, i * 10 * MS, i < late ? 600 * US : 20 * US, 5 * MS, BENCH_OK);
        }
        run.elapsed_ns = 10 * S;
        bench_run_close(&run);
        assert_true(late < 10 ? run.flaws == 0 : has(&run, BENCH_FLAW_LAG));
        bench_run_finish(&run);
    }
}

static void test_other_flaws(void **state)
{
    (void)state;
    struct bench_run run = measured(0);
    run.inflight_mean *= 1.2; /* Somebody counts wrongly. */
    bench_run_close(&run);
    assert_true(has(&run, BENCH_FLAW_LITTLE));
    bench_run_finish(&run);

    run = make(); /* The last second was one long stall, which the totals do not have. */
    pass(&run, 0, 0, S, BENCH_OK);
    pass(&run, S, 0, S, BENCH_OK);
    for (int i = 0; i < 998; i++) {
        pass(&run, 0, 0, MS, BENCH_OK);
    }
    run.elapsed_ns = 10 * S;
    run.inflight_mean = 0.35; /* Of which 0.3 is in the totals. */
    bench_run_close(&run);
    assert_true((run.flaws & UINT32_C(1) << BENCH_FLAW_LITTLE) == 0);
    bench_run_finish(&run);

    run = measured(0);
    run.away_ns = run.elapsed_ns / 100; /* Reconnecting takes a moment, */
    bench_run_close(&run);
    assert_int_equal(run.flaws, 0);
    bench_run_finish(&run);
    run = measured(0);
    run.away_ns = run.elapsed_ns / 50; /* a server that is gone takes longer. */
    bench_run_close(&run);
    assert_true(has(&run, BENCH_FLAW_AWAY));
    bench_run_finish(&run);

    run = measured(0);
    run.stopped = true;
    bench_run_close(&run);
    assert_true(has(&run, BENCH_FLAW_STOPPED));
    bench_run_finish(&run);

    run = measured(0);
    run.inflight_mean = 0;
    for (int i = 0; i < 11; i++) {
        pass(&run, 0, 0, MS, BENCH_FAILED);
    }
    bench_run_close(&run);
    assert_true(has(&run, BENCH_FLAW_ERRORS));
    bench_run_finish(&run);

    for (uint64_t given_up = 10; given_up <= 11; given_up++) { /* Of a thousand. */
        run = measured(0);
        run.inflight_mean = 0;
        run.load = BENCH_LOAD_CLOSED;
        for (uint64_t i = 0; i < given_up; i++) {
            pass(&run, 0, 0, S, BENCH_UNANSWERED);
        }
        bench_run_close(&run);
        assert_true(given_up == 10 ? run.flaws == 0 : has(&run, BENCH_FLAW_UNANSWERED));
        bench_run_finish(&run);
    }

    run = make();
    run.elapsed_ns = 10 * S;
    bench_run_close(&run); /* Nothing at all was answered. */
    assert_true(has(&run, BENCH_FLAW_SHORT));
    assert_false(bench_run_passed(&run));
    bench_run_finish(&run);
}

/* Few requests are enough when all of them are late. */
static void test_few_requests_may_decide(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct bench_run run = make();
        for (uint64_t i = 0; i < 20; i++) {
            pass(&run, i * 10 * MS, 0, late == 1 ? 20 * MS : MS, BENCH_OK);
        }
        run.elapsed_ns = NS_PER_S;
        bench_run_close(&run);
        assert_int_equal(run.verdict, late == 1 ? VERDICT_FAILED : VERDICT_OPEN);
        assert_true(late == 1 ? run.flaws == 0 : has(&run, BENCH_FLAW_SHORT));
        bench_run_finish(&run);
    }
}

static void test_the_timeline_says_when(void **state)
{
    (void)state;
    struct bench_run run = make();
    assert_int_equal(run.slice_ns, 100 * MS);
    assert_int_equal(run.slice_count, 100);
    pass(&run, 50 * MS, 0, 2 * MS, BENCH_OK);
    pass(&run, 99 * MS, 0, 8 * MS, BENCH_OK); /* Leaves in the first slice, ends in the second. */
    pass(&run, 120 * MS, 0, MS, BENCH_REFUSED);
    pass(&run, 9990 * MS, 0, 30 * MS, BENCH_OK); /* Ends behind the last. */
    run.elapsed_ns = 10 * S;
    bench_run_close(&run);
    assert_int_equal(run.slices[0].sent, 2);
    assert_int_equal(run.slices[0].counts[BENCH_OK], 1);
    assert_int_equal(run.slices[0].max_ns, 2 * MS);
    assert_int_equal(run.slices[1].counts[BENCH_OK], 1);
    assert_int_equal(run.slices[1].counts[BENCH_REFUSED], 1);
    assert_true(run.slices[1].p99_ns >= 8 * MS && run.slices[1].p99_ns <= 8 * MS * 101 / 100);
    assert_int_equal(run.slices[99].counts[BENCH_OK], 0);
    assert_int_equal(run.counts[BENCH_OK], 3);
    bench_run_finish(&run);
}

static void test_slices_suit_the_length(void **state)
{
    (void)state;
    static const struct {
        uint64_t duration_ns;
        uint64_t slice_ns;
        uint32_t count;
    } cases[] = {
        { 100 * MS, 50 * MS, 2 },    { 6 * S, 50 * MS, 120 }, { 6 * S + 1, 100 * MS, 61 },
        { 60 * S, 500 * MS, 120 },   { 61 * S, 1 * S, 61 },   { 3600 * S, 60 * S, 60 },
        { 86400 * S, 3600 * S, 24 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench_run run = { .duration_ns = cases[i].duration_ns };
        assert_int_equal(bench_run_init(&run, NULL), WEIR_OK);
        assert_int_equal(run.slice_ns, cases[i].slice_ns);
        assert_int_equal(run.slice_count, cases[i].count);
        bench_run_finish(&run);
    }
}

static void test_codes_have_an_end(void **state)
{
    (void)state;
    struct bench_run run = make();
    for (int i = 0; i < 40; i++) {
        char code[64];
        (void)snprintf(code, sizeof(code), "%d, which is far too long to be kept", 500 + i);
        bench_run_code(&run, code);
        bench_run_code(&run, code);
    }
    assert_int_equal(run.code_count, BENCH_CODES_MAX);
    assert_int_equal(run.codes[0].count, 2);
    assert_string_equal(run.codes[BENCH_CODES_MAX - 1].name, "others");
    assert_int_equal(run.codes[BENCH_CODES_MAX - 1].count, 58);
    bench_run_finish(&run);
}

static void test_answers_are_sorted_by_code(void **state)
{
    (void)state;
    assert_int_equal(bench_outcome_of_http(200), BENCH_OK);
    assert_int_equal(bench_outcome_of_http(429), BENCH_REFUSED);
    assert_int_equal(bench_outcome_of_http(503), BENCH_REFUSED);
    assert_int_equal(bench_outcome_of_http(504), BENCH_EXPIRED);
    assert_int_equal(bench_outcome_of_http(500), BENCH_FAILED);
    assert_int_equal(bench_outcome_of_grpc(0), BENCH_OK);
    assert_int_equal(bench_outcome_of_grpc(14), BENCH_REFUSED);
    assert_int_equal(bench_outcome_of_grpc(8), BENCH_REFUSED);
    assert_int_equal(bench_outcome_of_grpc(4), BENCH_EXPIRED);
    assert_int_equal(bench_outcome_of_grpc(13), BENCH_FAILED);
}

static void test_settings_out_of_range(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct bench_run run = { .duration_ns = 0 };
    assert_int_equal(bench_run_init(&run, &err), WEIR_EINVAL);
    run = (struct bench_run){ .duration_ns = S, .class_count = BENCH_CLASSES_MAX + 1 };
    assert_int_equal(bench_run_init(&run, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "17 classes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_counts_as_good),
        cmocka_unit_test(test_a_run_that_holds_its_slo_passes),
        cmocka_unit_test(test_misses_decide_the_verdict),
        cmocka_unit_test(test_a_full_generator_makes_an_open_loop_invalid),
        cmocka_unit_test(test_late_sending_makes_an_open_loop_invalid),
        cmocka_unit_test(test_other_flaws),
        cmocka_unit_test(test_few_requests_may_decide),
        cmocka_unit_test(test_the_timeline_says_when),
        cmocka_unit_test(test_slices_suit_the_length),
        cmocka_unit_test(test_codes_have_an_end),
        cmocka_unit_test(test_answers_are_sorted_by_code),
        cmocka_unit_test(test_settings_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
