/*
 * limiter: healthy traffic never meets it, and a line that is too long becomes short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/limiter.h"
#include "util/clock.h"

#define MOST 1000
#define RUN_NS (4 * NS_PER_MS)

/* A run of eight requests that took `total_ns` from arrival to end. */
static void run(struct limiter *limiter, uint64_t total_ns, uint64_t allowed_ns, uint32_t in_hand)
{
    for (int i = 0; i < 8; i++) {
        limiter_ended(limiter, total_ns, allowed_ns);
    }
    limiter_turn(limiter, RUN_NS, in_hand);
}

static void test_it_starts_where_it_may_end(void **state)
{
    (void)state;
    struct limiter limiter;
    limiter_init(&limiter, MOST);
    assert_int_equal(limiter_limit(&limiter), MOST);
    limiter_init(&limiter, 1);
    assert_int_equal(limiter_limit(&limiter), LIMITER_LEAST);
}

static void test_healthy_traffic_is_not_limited(void **state)
{
    (void)state;
    struct limiter limiter;
    limiter_init(&limiter, MOST);
    for (int i = 0; i < 10000; i++) {
        run(&limiter, 2 * RUN_NS, CLOCK_NEVER, 16); /* One run before its own. */
        run(&limiter, 17 * NS_PER_MS, 20 * NS_PER_MS, 900);
        assert_int_equal(limiter_limit(&limiter), MOST);
    }
}

static void test_it_shrinks_until_requests_are_in_time(void **state)
{
    (void)state;
    struct limiter limiter;
    limiter_init(&limiter, MOST);
    for (int i = 0; i < 2000; i++) { /* Eight requests a run, first come, first served. */
        const uint32_t in_hand = limiter_limit(&limiter);
        run(&limiter, (in_hand / 8 + 1) * RUN_NS, 60 * NS_PER_MS, in_hand);
    }
    assert_in_range(limiter_limit(&limiter), 60, 130);
}

static void test_without_deadlines_the_time_of_service_tells(void **state)
{
    (void)state;
    struct limiter limiter;
    limiter_init(&limiter, MOST);
    for (int i = 0; i < 2000; i++) {
        const uint32_t in_hand = limiter_limit(&limiter);
        run(&limiter, (in_hand / 8 + 1) * RUN_NS, CLOCK_NEVER, in_hand);
    }
    assert_in_range(limiter_limit(&limiter), LIMITER_LEAST, 40);
}

static void test_it_recovers(void **state)
{
    (void)state;
    struct limiter limiter;
    limiter_init(&limiter, MOST);
    for (int i = 0; i < 1000; i++) {
        run(&limiter, NS_PER_S, 20 * NS_PER_MS, MOST);
    }
    assert_int_equal(limiter_limit(&limiter), LIMITER_LEAST);
    for (int i = 0; i < 1000; i++) {
        run(&limiter, 2 * RUN_NS, 20 * NS_PER_MS, limiter_limit(&limiter));
    }
    assert_int_equal(limiter_limit(&limiter), MOST);
}

static void test_what_nobody_uses_does_not_grow(void **state)
{
    (void)state;
    struct limiter limiter;
    limiter_init(&limiter, MOST);
    for (int i = 0; i < 1000; i++) {
        run(&limiter, NS_PER_S, 20 * NS_PER_MS, MOST);
    }
    for (int i = 0; i < 1000; i++) {
        run(&limiter, 2 * RUN_NS, 20 * NS_PER_MS, 3);
    }
    assert_in_range(limiter_limit(&limiter), LIMITER_LEAST, LIMITER_LEAST + 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_starts_where_it_may_end),
        cmocka_unit_test(test_healthy_traffic_is_not_limited),
        cmocka_unit_test(test_it_shrinks_until_requests_are_in_time),
        cmocka_unit_test(test_without_deadlines_the_time_of_service_tells),
        cmocka_unit_test(test_it_recovers),
        cmocka_unit_test(test_what_nobody_uses_does_not_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
