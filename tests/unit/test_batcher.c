/* Which requests share a run: the rules as a user of max_batch_size, preferred sizes and delay sees
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/batcher.h"
#include "engine/request.h"
#include "util/clock.h"

#define LINE_MAX_REQUESTS 16

struct line {
    struct list waiting;
    struct request requests[LINE_MAX_REQUESTS];
    uint32_t count;
};

static struct line line;

static void line_start(void)
{
    list_init(&line.waiting);
    line.count = 0;
}

static void line_add(uint64_t rows, uint64_t shape_key, uint64_t arrived_ns)
{
    struct request *request = &line.requests[line.count++];
    request_init(request);
    request->rows = rows;
    request->shape_key = shape_key;
    request->batchable = true;
    request->times.submitted_ns = arrived_ns;
    list_append(&line.waiting, &request->line);
}

static struct batch_plan plan(uint64_t rows_max, uint64_t delay_ns, uint64_t now_ns)
{
    const struct batch_rules rules = { .rows_max = rows_max, .delay_ns = delay_ns };
    return batcher_plan(&line.waiting, &rules, now_ns);
}

static void test_takes_everything_that_fits(void **state)
{
    (void)state;
    line_start();
    line_add(1, 7, 10);
    line_add(2, 7, 11);
    line_add(3, 7, 12);
    const struct batch_plan all = plan(8, 0, 100);
    assert_int_equal(all.count, 3);
    assert_int_equal(all.rows, 6);
    assert_int_equal(all.leave_ns, 100);
    const struct batch_plan some = plan(5, 0, 100);
    assert_int_equal(some.count, 2);
    assert_int_equal(some.rows, 3);
}

static void test_other_shapes_keep_their_place(void **state)
{
    (void)state;
    line_start();
    line_add(1, 7, 10);
    line_add(1, 8, 11);
    line_add(1, 7, 12);
    const struct batch_plan next = plan(8, 0, 100);
    assert_int_equal(next.count, 2);
    assert_int_equal(next.rows, 2);
    assert_int_equal(next.shape_key, 7);
}

static void test_small_ones_do_not_overtake_a_large_one(void **state)
{
    (void)state;
    line_start();
    line_add(2, 7, 10);
    line_add(3, 7, 11); /* Does not fit behind the leader. */
    line_add(1, 7, 12); /* Would fit, but waits its turn. */
    assert_int_equal(plan(4, 0, 100).count, 1);
}

static void test_a_request_above_the_limit_runs_alone(void **state)
{
    (void)state;
    line_start();
    line_add(9, 7, 10);
    line_add(1, 7, 11);
    const struct batch_plan next = plan(4, 5, 11);
    assert_int_equal(next.count, 1);
    assert_int_equal(next.rows, 9);
    assert_int_equal(next.leave_ns, 11);
}

static void test_an_unbatchable_leader_runs_alone(void **state)
{
    (void)state;
    line_start();
    line_add(1, 7, 10);
    line_add(1, 7, 11);
    line.requests[0].batchable = false;
    assert_int_equal(plan(4, 0, 100).count, 1);
    line.requests[0].batchable = true;
    line.requests[1].batchable = false;
    assert_int_equal(plan(4, 0, 100).count, 1);
}

static void test_delay_waits_for_company_but_not_when_full(void **state)
{
    (void)state;
    line_start();
    line_add(1, 7, 10);
    line_add(1, 7, 20);
    assert_int_equal(plan(4, 50, 30).leave_ns, 60);
    assert_true(plan(4, 50, 70).leave_ns <= 70);
    assert_int_equal(plan(2, 50, 30).leave_ns, 30);
}

static void test_preferred_sizes(void **state)
{
    (void)state;
    static const uint32_t preferred[] = { 2, 4 };
    const struct batch_rules rules = {
        .rows_max = 8, .preferred = preferred, .preferred_count = 2, .delay_ns = 50
    };
    line_start();
    line_add(1, 7, 10);
    assert_int_equal(batcher_plan(&line.waiting, &rules, 20).leave_ns, 60);
    line_add(1, 7, 11);
    line_add(1, 7, 12);
    const struct batch_plan two = batcher_plan(&line.waiting, &rules, 20);
    assert_int_equal(two.rows, 2);
    assert_int_equal(two.leave_ns, 20);
    line_add(1, 7, 13);
    line_add(1, 7, 14);
    const struct batch_plan four = batcher_plan(&line.waiting, &rules, 20);
    assert_int_equal(four.rows, 4);
    assert_int_equal(four.count, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_everything_that_fits),
        cmocka_unit_test(test_other_shapes_keep_their_place),
        cmocka_unit_test(test_small_ones_do_not_overtake_a_large_one),
        cmocka_unit_test(test_a_request_above_the_limit_runs_alone),
        cmocka_unit_test(test_an_unbatchable_leader_runs_alone),
        cmocka_unit_test(test_delay_waits_for_company_but_not_when_full),
        cmocka_unit_test(test_preferred_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
