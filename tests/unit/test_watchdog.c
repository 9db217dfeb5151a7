/*
 * What is due for a run that takes longer than its model allows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>

#include "engine/engine.h"
#include "engine/watchdog.h"

#define BEGAN_NS (100 * NS_PER_S)
#define LIMIT_NS (2 * NS_PER_S)

static void expect(uint64_t after_ns, bool asked, enum watchdog_act act, uint64_t next_ns)
{
    uint64_t found_ns = 0;
    assert_int_equal(watchdog_judge(BEGAN_NS, LIMIT_NS, asked, BEGAN_NS + after_ns, &found_ns),
                     act);
    assert_int_equal(found_ns, next_ns);
}

static void test_a_run_is_stopped_then_written_off(void **state)
{
    (void)state;
    const uint64_t end_ns = LIMIT_NS + WATCHDOG_GRACE_NS;
    expect(0, false, WATCHDOG_NOTHING, BEGAN_NS + LIMIT_NS);
    expect(LIMIT_NS - 1, false, WATCHDOG_NOTHING, BEGAN_NS + LIMIT_NS);
    expect(LIMIT_NS, false, WATCHDOG_STOP, BEGAN_NS + end_ns);
    expect(LIMIT_NS + 1, true, WATCHDOG_NOTHING, BEGAN_NS + end_ns); /* Once is enough. */
    expect(end_ns - 1, true, WATCHDOG_NOTHING, BEGAN_NS + end_ns);
    expect(end_ns, true, WATCHDOG_WRITE_OFF, CLOCK_NEVER);
    expect(end_ns, false, WATCHDOG_WRITE_OFF, CLOCK_NEVER); /* The watch came late itself. */
}

static void test_a_limit_without_end_is_none(void **state)
{
    (void)state;
    uint64_t next_ns = 0;
    assert_int_equal(watchdog_judge(BEGAN_NS, CLOCK_NEVER, false, BEGAN_NS + LIMIT_NS, &next_ns),
                     WATCHDOG_NOTHING);
    assert_int_equal(next_ns, CLOCK_NEVER);
}

/* Without pools: a look finds no run, and nothing more is due. */
static struct clock real_clock;
static struct engine engine = { .clock = &real_clock };

static void test_it_looks_when_the_earliest_run_is_due(void **state)
{
    (void)state;
    struct watchdog dog;
    watchdog_init(&dog, &engine);
    watchdog_note(&dog, BEGAN_NS + 2);
    watchdog_note(&dog, BEGAN_NS + 3);
    assert_int_equal(dog.wake_ns, BEGAN_NS + 2);
    watchdog_note(&dog, BEGAN_NS + 1);
    assert_int_equal(dog.wake_ns, BEGAN_NS + 1);
    watchdog_finish(&dog);
}

/* One that it slept for does not keep it from one that is due sooner, nor from the next. */
static void test_each_note_is_looked_at(void **state)
{
    (void)state;
    struct watchdog dog;
    clock_init(&real_clock);
    watchdog_init(&dog, &engine);
    assert_int_equal(watchdog_start(&dog, NULL), WEIR_OK);
    watchdog_note(&dog, CLOCK_NEVER - 1);
    for (int i = 0; i < 100; i++) {
        watchdog_note(&dog, clock_now_ns(&real_clock));
        while (dog.wake_ns != CLOCK_NEVER) {
            sched_yield();
        }
    }
    watchdog_finish(&dog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_is_stopped_then_written_off),
        cmocka_unit_test(test_a_limit_without_end_is_none),
        cmocka_unit_test(test_it_looks_when_the_earliest_run_is_due),
        cmocka_unit_test(test_each_note_is_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
