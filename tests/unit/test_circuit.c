/*
 * When a model whose child keeps dying is not asked any more, and when it is again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/circuit.h"

#define MINUTE_NS (60 * NS_PER_S)

/* Deaths in a row, a second apart; the time after the last. */
static uint64_t die(struct circuit *circuit, uint32_t count, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        now_ns += NS_PER_S;
        circuit_died(circuit, now_ns - 1, now_ns);
    }
    return now_ns;
}

static void test_stays_closed_while_runs_complete(void **state)
{
    (void)state;
    struct circuit circuit = { 0 };
    uint64_t now_ns = MINUTE_NS;
    for (uint32_t i = 0; i < 100; i++) {
        now_ns = die(&circuit, CIRCUIT_DEATHS_MAX - 1, now_ns);
        circuit_ran(&circuit);
    }
    assert_false(circuit_refuses(&circuit, now_ns));
    assert_true(circuit_enter(&circuit, now_ns));
}

static void test_opens_at_the_last_death(void **state)
{
    (void)state;
    struct circuit circuit = { 0 };
    uint64_t now_ns = die(&circuit, CIRCUIT_DEATHS_MAX - 1, MINUTE_NS);
    assert_true(circuit_enter(&circuit, now_ns));
    now_ns = die(&circuit, 1, now_ns);
    assert_true(circuit_refuses(&circuit, now_ns));
    assert_false(circuit_enter(&circuit, now_ns));
    assert_false(circuit_enter(&circuit, now_ns + CIRCUIT_PAUSE_NS - 1));
    assert_int_equal(circuit_left_ns(&circuit, now_ns + NS_PER_S), CIRCUIT_PAUSE_NS - NS_PER_S);
    assert_int_equal(circuit_left_ns(&circuit, now_ns + CIRCUIT_PAUSE_NS), 0);
}

static void test_tries_one_run_after_the_pause(void **state)
{
    (void)state;
    struct circuit circuit = { 0 };
    uint64_t now_ns = die(&circuit, CIRCUIT_DEATHS_MAX, MINUTE_NS) + CIRCUIT_PAUSE_NS;
    assert_false(circuit_refuses(&circuit, now_ns));
    assert_true(circuit_enter(&circuit, now_ns));
    assert_false(circuit_enter(&circuit, now_ns)); /* One at a time. */
    circuit_give_up(&circuit);
    assert_true(circuit_enter(&circuit, now_ns)); /* It said nothing: another one may. */
    circuit_ran(&circuit);
    assert_true(circuit_enter(&circuit, now_ns));
    assert_true(circuit_enter(&circuit, now_ns));
}

static void test_pauses_grow_to_a_limit(void **state)
{
    (void)state;
    struct circuit circuit = { 0 };
    uint64_t now_ns = die(&circuit, CIRCUIT_DEATHS_MAX, MINUTE_NS);
    uint64_t pause_ns = CIRCUIT_PAUSE_NS;
    for (uint32_t i = 0; i < 20; i++) {
        assert_false(circuit_enter(&circuit, now_ns + pause_ns - 1));
        now_ns += pause_ns;
        assert_true(circuit_enter(&circuit, now_ns));
        circuit_died(&circuit, now_ns, now_ns);
        pause_ns = 2 * pause_ns < CIRCUIT_PAUSE_MAX_NS ? 2 * pause_ns : CIRCUIT_PAUSE_MAX_NS;
    }
    assert_int_equal(pause_ns, CIRCUIT_PAUSE_MAX_NS);
}

static void test_one_death_is_counted_once(void **state)
{
    (void)state;
    struct circuit circuit = { 0 };
    for (uint32_t i = 0; i < 3 * CIRCUIT_DEATHS_MAX; i++) {
        /* They shared a child. */
        circuit_died(&circuit, MINUTE_NS - i - 1, MINUTE_NS + i);
        assert_int_equal(circuit.deaths, 1);
    }
    assert_int_equal(circuit.deaths, 1);
    assert_true(circuit_enter(&circuit, MINUTE_NS));
}

static void test_the_back_off_grows(void **state)
{
    (void)state;
    struct circuit circuit = { 0 };
    uint64_t now_ns = die(&circuit, 1, MINUTE_NS);
    assert_true(circuit_start_ns(&circuit) <= now_ns); /* Once may happen to anybody. */
    uint64_t before_ns = 0;
    for (uint32_t i = 2; i < CIRCUIT_DEATHS_MAX; i++) {
        now_ns = die(&circuit, 1, now_ns);
        const uint64_t wait_ns = circuit_start_ns(&circuit) - now_ns;
        assert_true(wait_ns > before_ns && wait_ns < NS_PER_S);
        before_ns = wait_ns;
    }
    circuit_ran(&circuit);
    assert_int_equal(circuit_start_ns(&circuit), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stays_closed_while_runs_complete),
        cmocka_unit_test(test_opens_at_the_last_death),
        cmocka_unit_test(test_tries_one_run_after_the_pause),
        cmocka_unit_test(test_pauses_grow_to_a_limit),
        cmocka_unit_test(test_one_death_is_counted_once),
        cmocka_unit_test(test_the_back_off_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
