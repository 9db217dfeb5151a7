/*
 * order: which class goes, what clients are charged, how long a run may keep others waiting.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/order.h"
#include "util/clock.h"

#define NOW (100 * NS_PER_S)
#define MASK(a, b) (1U << (a) | 1U << (b))

static struct pool_order order;

static void start(void)
{
    const struct order_options options = order_defaults();
    order_init(&order, &options);
}

/* A run of a millisecond of whoever's turn it is of two classes that always have work. */
static uint32_t run_next(uint32_t a, uint32_t b)
{
    const uint32_t class_index = order_class(&order, MASK(a, b));
    const bool owed = order_owed(&order, class_index);
    order_run(&order, class_index, MASK(a, b), NS_PER_MS);
    order_spend(&order, class_index, NS_PER_MS, owed);
    return class_index;
}

static void test_the_most_urgent_class_goes_but_each_gets_its_share(void **state)
{
    (void)state;
    start();
    uint32_t runs[ORDER_CLASSES] = { 0 };
    for (int i = 0; i < 1000; i++) {
        runs[run_next(1, 6)]++;
    }
    assert_in_range(runs[6], 99, 101);
    assert_int_equal(runs[1] + runs[6], 1000);
}

static void test_a_class_that_is_alone_owes_nothing_later(void **state)
{
    (void)state;
    start();
    for (int i = 0; i < 100; i++) {
        order_run(&order, 6, 1U << 6, NS_PER_MS);
        order_spend(&order, 6, NS_PER_MS, false);
    }
    uint32_t low = 0;
    for (int i = 0; i < 20; i++) {
        low += run_next(0, 6) == 6 ? 1 : 0;
    }
    assert_in_range(low, 1, 3);
}

static void test_credit_is_forgotten_without_requests(void **state)
{
    (void)state;
    start();
    struct order_client *client = order_client(&order, 1, 1);
    order_enter(&order, client, 6, NOW);
    while (!order_owed(&order, 6)) {
        (void)run_next(0, 6);
    }
    order_enter(&order, client, 6, NOW + NS_PER_S);
    assert_true(order_owed(&order, 6));
    order_enter(&order, client, 6, NOW + 3 * NS_PER_S);
    assert_false(order_owed(&order, 6));
}

/* Two runs at once: the long one takes less than was said when the short one had begun. */
static void test_a_run_that_was_shorter_takes_no_credit_from_others(void **state)
{
    (void)state;
    start();
    const uint32_t rivals = MASK(3, 4);
    order_run(&order, 3, rivals, 100 * NS_PER_MS);
    order_run(&order, 3, rivals, NS_PER_MS);
    const int64_t earned_ns = order.classes[4].credit_ns;
    assert_true(earned_ns > 0);
    order_rerun(&order, 3, rivals, -50 * (int64_t)NS_PER_MS, false);
    assert_in_range(order.classes[4].credit_ns, earned_ns / 4, earned_ns);
}

static void test_time_is_charged_by_weight(void **state)
{
    (void)state;
    start();
    struct order_client *light = order_client(&order, 1, 1);
    struct order_client *heavy = order_client(&order, 2, 4);
    order_enter(&order, light, 3, NOW);
    order_enter(&order, heavy, 3, NOW);
    order_charge(&order, light, NS_PER_MS);
    order_charge(&order, heavy, 4 * NS_PER_MS);
    assert_int_equal(light->time, heavy->time);
    order_charge(&order, heavy, -4 * (int64_t)NS_PER_MS);
    assert_int_equal(heavy->time, 0);
}

static void test_a_client_has_its_part_of_those_that_are_here(void **state)
{
    (void)state;
    start();
    struct order_client *heavy = order_client(&order, 1, 3);
    struct order_client *light = order_client(&order, 2, 1);
    order_enter(&order, heavy, 3, NOW);
    assert_true(order_part(&order, heavy) == 1);
    assert_true(order_part(&order, light) == 0.25); /* Were it here. */
    order_enter(&order, light, 3, NOW);
    order_enter(&order, light, 3, NOW);
    assert_true(order_part(&order, heavy) == 0.75);
    (void)order_client(&order, 1, 1); /* Its weight is another one from now on. */
    assert_true(order_part(&order, heavy) == 0.5);
    order_leave(&order, heavy, 1, NOW);
    order_leave(&order, heavy, 0, NOW);
    assert_true(order_part(&order, light) == 1);
}

static void test_who_comes_starts_at_the_least_time(void **state)
{
    (void)state;
    start();
    struct order_client *busy = order_client(&order, 1, 1);
    order_enter(&order, busy, 3, NOW);
    order_charge(&order, busy, NS_PER_S);
    struct order_client *rare = order_client(&order, 2, 1);
    order_enter(&order, rare, 3, NOW); /* It saved nothing up before it was here. */
    assert_int_equal(rare->time, busy->time);
    order_charge(&order, rare, NS_PER_S);
    order_leave(&order, rare, 1, NOW);
    order_enter(&order, rare, 3, NOW + NS_PER_MS); /* What it had counts still, */
    assert_true(rare->time > busy->time);
    order_leave(&order, rare, 1, NOW);
    order_enter(&order, rare, 3, NOW + 2 * NS_PER_S); /* but not for ever. */
    assert_int_equal(rare->time, busy->time);
}

static void test_who_uses_little_saves_up_a_little(void **state)
{
    (void)state;
    start();
    struct order_client *busy = order_client(&order, 1, 1);
    struct order_client *heavy = order_client(&order, 2, 4);
    order_enter(&order, busy, 3, NOW);
    order_enter(&order, heavy, 3, NOW);
    order_leave(&order, heavy, 1, NOW);
    order_charge(&order, busy, NS_PER_MS);
    order_enter(&order, heavy, 3, NOW);
    assert_int_equal(heavy->time, 0);
    order_leave(&order, heavy, 1, NOW);
    order_charge(&order, busy, NS_PER_S);
    order_enter(&order, heavy, 3, NOW + 2 * NS_PER_S);
    assert_int_equal(busy->time - heavy->time, 5 * NS_PER_MS * ORDER_TIME_PER_NS);
}

static void test_accounts_are_used_again(void **state)
{
    (void)state;
    start();
    struct order_client *first = order_client(&order, 1, 1);
    order_enter(&order, first, 3, NOW);
    for (uint64_t key = 2; key <= ORDER_CLIENTS; key++) {
        order_enter(&order, order_client(&order, key, 1), 3, NOW);
    }
    struct order_client *shared = order_client(&order, 10001, 7);
    assert_ptr_equal(order_client(&order, 10002, 1), shared); /* All others hold something. */
    assert_int_equal(shared->weight, 1);
    order_enter(&order, shared, 3, NOW);
    order_leave(&order, first, 1, NOW);
    struct order_client *own = order_client(&order, 10003, 7);
    assert_ptr_equal(own, first);
    assert_int_equal(own->key, 10003);
    assert_int_equal(own->weight, 7);
    assert_ptr_equal(order_client(&order, 10003, 7), own);
    assert_ptr_equal(order_client(&order, 1, 1)->lanes.head.next,
                     &order_client(&order, 1, 1)->lanes.head);
}

static void test_runs_are_short_while_more_urgent_requests_come(void **state)
{
    (void)state;
    start();
    assert_int_equal(order_run_max_ns(&order, 5, NOW), CLOCK_NEVER);
    order_enter(&order, order_client(&order, 1, 1), 2, NOW);
    assert_int_equal(order_run_max_ns(&order, 5, NOW), 10 * NS_PER_MS);
    assert_int_equal(order_run_max_ns(&order, 2, NOW), CLOCK_NEVER);
    assert_int_equal(order_run_max_ns(&order, 5, NOW + ORDER_RECENT_NS + 1), CLOCK_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_most_urgent_class_goes_but_each_gets_its_share),
        cmocka_unit_test(test_a_class_that_is_alone_owes_nothing_later),
        cmocka_unit_test(test_credit_is_forgotten_without_requests),
        cmocka_unit_test(test_a_run_that_was_shorter_takes_no_credit_from_others),
        cmocka_unit_test(test_time_is_charged_by_weight),
        cmocka_unit_test(test_a_client_has_its_part_of_those_that_are_here),
        cmocka_unit_test(test_who_comes_starts_at_the_least_time),
        cmocka_unit_test(test_who_uses_little_saves_up_a_little),
        cmocka_unit_test(test_accounts_are_used_again),
        cmocka_unit_test(test_runs_are_short_while_more_urgent_requests_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
