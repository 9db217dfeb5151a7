/* Which loaded model is missed least. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/evict.h"
#include "util/clock.h"

static double worth(enum eviction eviction, const struct usage *usage, uint64_t load_ns,
                    uint64_t bytes, uint64_t now_ns)
{
    const struct evict_candidate candidate = { .usage = usage, .load_ns = load_ns, .bytes = bytes };
    return evict_worth(eviction, &candidate, now_ns);
}

static void test_a_rate_is_learned_and_forgotten(void **state)
{
    (void)state;
    struct usage usage = { 0 };
    for (uint64_t s = 1; s <= 1200; s++) {
        usage_add(&usage, 10, s * NS_PER_S);
    }
    assert_true(fabs(usage_rate(&usage, 1200 * NS_PER_S) - 10) < 0.1);
    assert_true(fabs(usage_rate(&usage, 1200 * NS_PER_S + EVICT_MEMORY_NS) - 3.679) < 0.1);
    assert_int_equal(usage.used_ns, 1200 * NS_PER_S);
    usage_add(&usage, 0, 1300 * NS_PER_S);
    assert_int_equal(usage.used_ns, 1200 * NS_PER_S); /* Nobody asked since. */
}

static void test_each_policy_lets_another_go(void **state)
{
    (void)state;
    const uint64_t now_ns = 1000 * NS_PER_S;
    const struct usage often_but_long_ago = { .rate = 50, .at_ns = now_ns, .used_ns = 1 };
    const struct usage once_just_now = { .rate = 0.1, .at_ns = now_ns, .used_ns = now_ns };
    const struct usage sometimes = { .rate = 1, .at_ns = now_ns, .used_ns = now_ns - 5 };
    /* Loading takes 1 ms of 1 MB, and 100 ms of 1 GB. */
    const uint64_t quick_ns = NS_PER_MS;
    const uint64_t slow_ns = 100 * NS_PER_MS;
    const uint64_t small = 1000000;
    const uint64_t large = 1000000000;
    assert_true(worth(EVICTION_LRU, &often_but_long_ago, quick_ns, small, now_ns) <
                worth(EVICTION_LRU, &sometimes, quick_ns, small, now_ns));
    assert_true(worth(EVICTION_LRU, &sometimes, quick_ns, small, now_ns) <
                worth(EVICTION_LRU, &once_just_now, quick_ns, small, now_ns));
    assert_true(worth(EVICTION_LFU, &once_just_now, quick_ns, small, now_ns) <
                worth(EVICTION_LFU, &sometimes, quick_ns, small, now_ns));
    assert_true(worth(EVICTION_LFU, &sometimes, quick_ns, small, now_ns) <
                worth(EVICTION_LFU, &often_but_long_ago, quick_ns, small, now_ns));
    /* The large one gives back more for what it costs. */
    assert_true(worth(EVICTION_COST, &sometimes, slow_ns, large, now_ns) <
                worth(EVICTION_COST, &sometimes, quick_ns, small, now_ns));
    assert_true(worth(EVICTION_COST, &sometimes, quick_ns, small, now_ns) <
                worth(EVICTION_COST, &sometimes, slow_ns, small, now_ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_rate_is_learned_and_forgotten),
        cmocka_unit_test(test_each_policy_lets_another_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
