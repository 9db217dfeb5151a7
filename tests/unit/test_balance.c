/*
 * How evenly devices are used, in one number.
 */
#include <math.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/balance.h"

static void assert_score(const struct balance *balance, double expected)
{
    if (fabs(balance_score(balance) - expected) > 0.001) {
        fail_msg("the score is %.4f, expected %.4f", balance_score(balance), expected);
    }
}

static void test_even_and_uneven(void **state)
{
    (void)state;
    struct balance balance;
    balance_init(&balance, 4);
    assert_score(&balance, 1); /* Nothing ran. */
    balance_note(&balance, 2, NS_PER_MS, NS_PER_S);
    assert_score(&balance, 0.25);
    balance_note(&balance, 1, NS_PER_MS, NS_PER_S);
    assert_score(&balance, 0.5);
    balance_note(&balance, 0, NS_PER_MS, NS_PER_S);
    balance_note(&balance, 3, NS_PER_MS, NS_PER_S);
    assert_score(&balance, 1);
}

static void test_three_to_one(void **state)
{
    (void)state;
    struct balance balance;
    balance_init(&balance, 2);
    balance_note(&balance, 0, 3 * NS_PER_S, NS_PER_S);
    balance_note(&balance, 1, NS_PER_S, NS_PER_S);
    assert_score(&balance, 0.8); /* 4^2 / (2 * (9 + 1)) */
}

static void test_what_was_long_ago_does_not_count(void **state)
{
    (void)state;
    struct balance balance;
    balance_init(&balance, 2);
    balance_note(&balance, 0, 100 * NS_PER_S, NS_PER_S);
    const uint64_t later_ns = 100 * BALANCE_WINDOW_NS;
    balance_note(&balance, 0, NS_PER_S, later_ns);
    balance_note(&balance, 1, NS_PER_S, later_ns);
    assert_score(&balance, 1);
    balance_note(&balance, 1, 0, later_ns + BALANCE_WINDOW_NS); /* Rest changes nothing. */
    assert_score(&balance, 1);
    balance_note(&balance, 1, 0, later_ns); /* Nor does a clock read a little earlier. */
    assert_score(&balance, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_even_and_uneven),
        cmocka_unit_test(test_three_to_one),
        cmocka_unit_test(test_what_was_long_ago_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
