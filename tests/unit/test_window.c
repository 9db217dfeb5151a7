/*
 * window: who is let go, and how large a run may be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "engine/request.h"
#include "engine/window.h"
#include "util/clock.h"

#define MOST 256
#define NOW (10 * NS_PER_S)

/* A run of b rows takes 1 + b/10 ms: ten take 2 ms, ninety 10 ms. */
static const struct window_rules rules = { { 1000000, 100000, 0 }, 64 };

struct line {
    struct list waiting;
    struct request requests[MOST];
    uint32_t count;
    uint64_t rows;
};

static void line_make(struct line *line)
{
    memset(line, 0, sizeof(*line));
    list_init(&line->waiting);
}

static struct request *add(struct line *line, uint64_t left_ns, uint64_t allowed_ns)
{
    struct request *request = &line->requests[line->count++];
    request->rows = 1;
    request->batchable = true;
    request->deadline_ns = left_ns == CLOCK_NEVER ? CLOCK_NEVER : NOW + left_ns;
    request->times.submitted_ns = left_ns == CLOCK_NEVER ? NOW : NOW + left_ns - allowed_ns;
    list_append(&line->waiting, &request->due);
    line->rows++;
    return request;
}

static uint32_t gone(const struct line *line)
{
    const struct list_node *first = list_first(&line->waiting);
    const struct request *leader =
        first == NULL ? &line->requests[0] : list_entry(first, struct request, due);
    return window_skip(&line->waiting, leader, line->rows, &rules, NOW);
}

static void test_nobody_is_let_go_while_one_run_takes_all_in_time(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    assert_int_equal(gone(&line), 0);
    for (uint64_t i = 0; i < 20; i++) {
        add(&line, (3 + i) * NS_PER_MS, 25 * NS_PER_MS);
    }
    assert_int_equal(gone(&line), 0);
}

static void test_the_oldest_go_until_a_useful_run_fits(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    for (uint64_t i = 0; i < 100;
         i++) { /* Of 10 ms, one every 0.1 ms: the oldest has 0.1 ms left. */
        add(&line, (i + 1) * 100 * NS_PER_US, 10 * NS_PER_MS);
    }
    /* 10 ms allow runs of 40 rows, which take 5 ms: who has less left goes. */
    const uint32_t count = gone(&line);
    assert_int_equal(count, 49);
    assert_int_equal(window_rows(&line.requests[count], &rules, NOW), 40);
}

static void test_a_short_line_needs_no_more_than_its_own_rows(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    add(&line, 900 * NS_PER_US, 10 * NS_PER_MS);  /* Too late for any run. */
    add(&line, 1150 * NS_PER_US, 10 * NS_PER_MS); /* Alone it would do, but not for the three. */
    add(&line, 1400 * NS_PER_US, 10 * NS_PER_MS);
    add(&line, 5 * NS_PER_MS, 10 * NS_PER_MS);
    assert_int_equal(gone(&line), 2);
}

static void test_who_waits_alone_may_try(void **state)
{
    (void)state;
    const struct window_rules unsteady = { { 1000000, 100000, 0.1 }, 64 };
    struct line line;
    line_make(&line);
    struct request *request = add(&line, 1150 * NS_PER_US, 10 * NS_PER_MS);
    assert_int_equal(window_skip(&line.waiting, request, line.rows, &unsteady, NOW), 0);
    add(&line, 5 * NS_PER_MS, 10 * NS_PER_MS);
    assert_int_equal(window_skip(&line.waiting, request, line.rows, &unsteady, NOW), 1);
}

static void test_each_is_measured_by_its_own_deadline(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    /* 4 ms allow runs of 10 rows only, and there is time for one. */
    add(&line, 2100 * NS_PER_US, 4 * NS_PER_MS);
    for (uint64_t i = 0; i < 100; i++) {
        add(&line, (20 + i) * NS_PER_MS, 120 * NS_PER_MS);
    }
    assert_int_equal(gone(&line), 0);
}

static void test_who_has_no_deadline_is_never_let_go(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    add(&line, 100 * NS_PER_US, 10 * NS_PER_MS);
    for (int i = 0; i < 200; i++) {
        add(&line, CLOCK_NEVER, 0);
    }
    assert_int_equal(gone(&line), 1);
    assert_int_equal(window_rows(&line.requests[1], &rules, NOW), 64);
    list_remove(&line.requests[0].due);
    assert_int_equal(gone(&line), 0);
}

static void test_other_shapes_are_left_alone(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    add(&line, 100 * NS_PER_US, 10 * NS_PER_MS);
    add(&line, 100 * NS_PER_US, 10 * NS_PER_MS)->shape_key = 7;
    add(&line, 200 * NS_PER_US, 10 * NS_PER_MS);
    assert_int_equal(gone(&line), 2);
}

static void test_a_leader_takes_at_least_itself(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    struct request *request = add(&line, 100 * NS_PER_US, 10 * NS_PER_MS);
    request->rows = 100;
    assert_int_equal(window_rows(request, &rules, NOW), 100);
}

static void test_hopeless(void **state)
{
    (void)state;
    struct line line;
    line_make(&line);
    const struct request *request = add(&line, 2 * NS_PER_MS, 10 * NS_PER_MS);
    assert_false(window_hopeless(request, &rules.cost, NOW + 900 * NS_PER_US));
    assert_true(window_hopeless(request, &rules.cost, NOW + 901 * NS_PER_US));
    assert_false(window_hopeless(add(&line, CLOCK_NEVER, 0), &rules.cost, CLOCK_NEVER - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_is_let_go_while_one_run_takes_all_in_time),
        cmocka_unit_test(test_the_oldest_go_until_a_useful_run_fits),
        cmocka_unit_test(test_a_short_line_needs_no_more_than_its_own_rows),
        cmocka_unit_test(test_who_waits_alone_may_try),
        cmocka_unit_test(test_each_is_measured_by_its_own_deadline),
        cmocka_unit_test(test_who_has_no_deadline_is_never_let_go),
        cmocka_unit_test(test_other_shapes_are_left_alone),
        cmocka_unit_test(test_a_leader_takes_at_least_itself),
        cmocka_unit_test(test_hopeless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
