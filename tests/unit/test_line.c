/*
 * line: who leads, who rides, and who goes up a class.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "engine/line.h"
#include "engine/request.h"
#include "util/clock.h"
#include "util/mem.h"

#define MOST 32
#define NOW (100 * NS_PER_S)
#define AGEING (10 * NS_PER_S)

struct rig {
    struct pool_order order;
    struct model_line line;
    struct request requests[MOST];
    uint32_t count;
};

static struct rig rig;

static int start(void **state)
{
    (void)state;
    const struct order_options options = order_defaults();
    memset(&rig, 0, sizeof(rig));
    order_init(&rig.order, &options);
    line_init(&rig.line);
    return 0;
}

/* Lanes go with the last who stand in them. */
static int stop(void **state)
{
    (void)state;
    for (struct request *r = line_first(&rig.line); r != NULL; r = line_first(&rig.line)) {
        line_remove(&rig.line, r);
    }
    return 0;
}

static struct request *add(uint32_t class_index, uint64_t client, uint64_t deadline_ns)
{
    struct request *request = &rig.requests[rig.count++];
    request_init(request);
    request->rows = 1;
    request->batchable = true;
    request->class = class_index;
    request->payer = order_client(&rig.order, client, 1);
    order_enter(&rig.order, request->payer, class_index, NOW);
    request->deadline_ns = deadline_ns;
    request->times.submitted_ns = NOW + rig.count;
    request->since_ns = request->times.submitted_ns;
    request->due_ns = deadline_ns != CLOCK_NEVER ? deadline_ns : request->since_ns + AGEING;
    line_push(&rig.line, request);
    return request;
}

static void charge(uint64_t client, int64_t ns)
{
    struct order_client *payer = order_client(&rig.order, client, 1);
    order_charge(&rig.order, payer, ns);
    line_retime(payer);
}

/* The batch that this one leads, emptied into `out`. */
static uint32_t ride(struct request *leader, uint64_t rows_max, struct request **out)
{
    const struct batch_rules rules = { .rows_max = rows_max };
    struct batcher batcher;
    batcher_begin(&batcher, &rules, leader, NOW);
    line_gather(&rig.line, &batcher, NS_PER_MS, UINT64_MAX);
    const struct batch_plan plan = batcher_end(&batcher);
    struct request *next = leader;
    for (uint32_t i = 0; i < plan.count; i++) {
        out[i] = next;
        next = next->rides;
    }
    return plan.count;
}

static void test_the_earliest_due_of_a_client_leads(void **state)
{
    (void)state;
    struct request *patient = add(3, 1, CLOCK_NEVER);
    struct request *later = add(3, 1, NOW + 2 * NS_PER_S);
    struct request *sooner = add(3, 1, NOW + NS_PER_S);
    struct request *last = add(3, 1, NOW + 60 * NS_PER_S);
    struct request *riders[MOST];
    assert_ptr_equal(line_leader(&rig.line, 3), sooner);
    assert_ptr_equal(list_entry(list_first(&rig.line.due), struct request, due), sooner);
    assert_int_equal(ride(sooner, 8, riders), 4);
    assert_ptr_equal(riders[1], later);
    assert_ptr_equal(riders[2],
                     patient); /* Before one that is due long after it would have aged. */
    assert_ptr_equal(riders[3], last);
    line_remove(&rig.line, sooner);
    assert_ptr_equal(line_leader(&rig.line, 3), later);
}

static void test_the_client_with_the_least_time_leads(void **state)
{
    (void)state;
    struct request *first = add(3, 1, CLOCK_NEVER);
    struct request *second = add(3, 2, CLOCK_NEVER);
    assert_ptr_equal(line_leader(&rig.line, 3), first);
    charge(1, NS_PER_MS);
    assert_ptr_equal(line_leader(&rig.line, 3), second);
    charge(2, 2 * NS_PER_MS);
    assert_ptr_equal(line_leader(&rig.line, 3), first);
}

/* Who comes when memory is out stands in a lane with others, and is served all the same. */
static void test_memory_may_run_out_for_a_lane(void **state)
{
    (void)state;
    struct request *riders[MOST];
    struct request *first = add(3, 1, CLOCK_NEVER);
    (void)mem_fault_arm(1);
    struct request *second = add(3, 2, CLOCK_NEVER);
    (void)mem_fault_arm(0);
    assert_ptr_equal(line_leader(&rig.line, 3), first);
    assert_int_equal(ride(first, 8, riders), 2);
    assert_ptr_equal(riders[1], second);
    line_remove(&rig.line, first);
    assert_ptr_equal(line_leader(&rig.line, 3), second);
}

static void test_clients_take_turns_in_a_batch(void **state)
{
    (void)state;
    struct request *riders[MOST];
    for (int i = 0; i < 6; i++) {
        add(3, 1, CLOCK_NEVER);
    }
    struct request *other = add(3, 2, CLOCK_NEVER);
    struct request *another = add(3, 2, CLOCK_NEVER);
    assert_int_equal(ride(line_leader(&rig.line, 3), 4, riders), 4);
    assert_ptr_equal(riders[1], other);
    assert_ptr_equal(riders[3], another);
    /* Asking has changed nothing. */
    assert_int_equal(ride(line_leader(&rig.line, 3), 4, riders), 4);
    assert_ptr_equal(line_leader(&rig.line, 3), &rig.requests[0]);
}

static void test_the_leaders_class_rides_first_then_the_most_urgent(void **state)
{
    (void)state;
    struct request *low = add(5, 1, CLOCK_NEVER);
    struct request *lower = add(7, 1, CLOCK_NEVER);
    struct request *high = add(0, 1, CLOCK_NEVER);
    struct request *same = add(5, 2, CLOCK_NEVER);
    struct request *riders[MOST];
    assert_int_equal(ride(low, 8, riders), 4);
    assert_ptr_equal(riders[1], same);
    assert_ptr_equal(riders[2], high);
    assert_ptr_equal(riders[3], lower);
}

static void test_a_row_is_taken_at_once(void **state)
{
    (void)state;
    struct list taken;
    list_init(&taken);
    struct request *first = add(3, 1, CLOCK_NEVER);
    struct request *second = add(3, 1, CLOCK_NEVER);
    struct request *third = add(3, 1, CLOCK_NEVER);
    assert_false(line_take_row(&rig.line, second, third, &taken));
    assert_true(line_take_row(&rig.line, first, second, &taken));
    assert_ptr_equal(taken.head.next, &first->line);
    assert_ptr_equal(taken.head.prev, &second->line);
    assert_ptr_equal(line_first(&rig.line), third);
    assert_true(line_take_row(&rig.line, third, third, &taken));
    assert_int_equal(rig.line.mask, 0);
    assert_null(line_first(&rig.line));
}

static void test_who_waits_goes_up(void **state)
{
    (void)state;
    struct request *old = add(4, 1, CLOCK_NEVER);
    struct request *older = add(6, 2, CLOCK_NEVER);
    struct request *young = add(4, 1, CLOCK_NEVER);
    young->since_ns += NS_PER_S;
    line_age(&rig.line, AGEING, NOW);
    assert_int_equal(old->class, 4);
    line_age(&rig.line, AGEING, NOW + AGEING + NS_PER_MS);
    assert_int_equal(old->class, 3);
    assert_int_equal(older->class, 5);
    assert_int_equal(young->class, 4);
    assert_ptr_equal(line_leader(&rig.line, 3), old);
    line_age(&rig.line, AGEING, NOW + AGEING + 2 * NS_PER_S);
    assert_int_equal(young->class, 3);
    for (uint64_t i = 2; i < 12; i++) {
        line_age(&rig.line, AGEING, NOW + i * (AGEING + 2 * NS_PER_S));
    }
    assert_int_equal(rig.line.mask, 1);
    uint32_t count = 0;
    for (const struct request *r = line_first(&rig.line); r != NULL; r = line_next(&rig.line, r)) {
        count++;
    }
    assert_int_equal(count, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_earliest_due_of_a_client_leads, start, stop),
        cmocka_unit_test_setup_teardown(test_the_client_with_the_least_time_leads, start, stop),
        cmocka_unit_test_setup_teardown(test_memory_may_run_out_for_a_lane, start, stop),
        cmocka_unit_test_setup_teardown(test_clients_take_turns_in_a_batch, start, stop),
        cmocka_unit_test_setup_teardown(test_the_leaders_class_rides_first_then_the_most_urgent,
                                        start, stop),
        cmocka_unit_test_setup_teardown(test_a_row_is_taken_at_once, start, stop),
        cmocka_unit_test_setup_teardown(test_who_waits_goes_up, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
