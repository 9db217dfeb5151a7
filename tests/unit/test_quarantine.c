/*
 * Which inputs are refused, for how long, and how they are let go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "engine/quarantine.h"
#include "faults.h"
#include "util/clock.h"

#define ENTRIES_MAX 3
#define KEEP_NS (10 * NS_PER_S)

static struct quarantine *make(void)
{
    struct quarantine *quarantine;
    assert_int_equal(quarantine_create(ENTRIES_MAX, KEEP_NS, &quarantine), WEIR_OK);
    return quarantine;
}

static struct request_key key_of(uint64_t number)
{
    return (struct request_key){ { number, ~number } };
}

static void add(struct quarantine *quarantine, uint64_t number, const char *model, uint64_t now_ns)
{
    struct quarantine_entry entry = { .key = key_of(number), .serial = number, .version = 1 };
    (void)snprintf(entry.model, sizeof(entry.model), "%s", model);
    quarantine_add(quarantine, &entry, now_ns);
}

static bool refuses(struct quarantine *quarantine, uint64_t number, uint64_t now_ns)
{
    const struct request_key key = key_of(number);
    return quarantine_refuses(quarantine, &key, now_ns);
}

static void test_refuses_who_was_added(void **state)
{
    (void)state;
    struct quarantine *quarantine = make();
    add(quarantine, 1, "a", NS_PER_S);
    assert_true(refuses(quarantine, 1, NS_PER_S));
    assert_true(refuses(quarantine, 1, NS_PER_S));
    assert_false(refuses(quarantine, 2, NS_PER_S));
    struct quarantine_entry entry;
    assert_true(quarantine_at(quarantine, 0, NS_PER_S, &entry));
    assert_string_equal(entry.model, "a");
    assert_int_equal(entry.refused, 2);
    assert_false(quarantine_at(quarantine, 1, NS_PER_S, &entry));
    quarantine_destroy(quarantine);
}

static void test_entries_expire(void **state)
{
    (void)state;
    struct quarantine *quarantine = make();
    add(quarantine, 1, "a", NS_PER_S);
    assert_true(refuses(quarantine, 1, NS_PER_S + KEEP_NS - 1));
    assert_int_equal(quarantine_left_ns(quarantine, NS_PER_S, NS_PER_S + KEEP_NS - 1), 1);
    assert_false(refuses(quarantine, 1, NS_PER_S + KEEP_NS));
    assert_int_equal(quarantine_count(quarantine), 0);
    quarantine_destroy(quarantine);
}

static void test_a_second_conviction_counts_anew(void **state)
{
    (void)state;
    struct quarantine *quarantine = make();
    add(quarantine, 1, "a", NS_PER_S);
    add(quarantine, 1, "a", 5 * NS_PER_S);
    assert_int_equal(quarantine_count(quarantine), 1);
    assert_true(refuses(quarantine, 1, NS_PER_S + KEEP_NS));
    quarantine_destroy(quarantine);
}

static void test_the_oldest_makes_room(void **state)
{
    (void)state;
    struct quarantine *quarantine = make();
    for (uint64_t i = 1; i <= ENTRIES_MAX + 1; i++) {
        add(quarantine, i, "a", i);
    }
    assert_int_equal(quarantine_count(quarantine), ENTRIES_MAX);
    assert_false(refuses(quarantine, 1, NS_PER_S));
    assert_true(refuses(quarantine, 2, NS_PER_S));
    assert_true(refuses(quarantine, ENTRIES_MAX + 1, NS_PER_S));
    quarantine_destroy(quarantine);
}

static void test_clears_one_model_or_all(void **state)
{
    (void)state;
    struct quarantine *quarantine = make();
    add(quarantine, 1, "a", NS_PER_S);
    add(quarantine, 2, "b", NS_PER_S);
    add(quarantine, 3, "b", NS_PER_S);
    assert_int_equal(quarantine_clear(quarantine, "a", NS_PER_S), 1);
    assert_false(refuses(quarantine, 1, NS_PER_S));
    assert_true(refuses(quarantine, 2, NS_PER_S));
    assert_int_equal(quarantine_clear(quarantine, NULL, NS_PER_S), 2);
    assert_false(refuses(quarantine, 3, NS_PER_S));
    const struct quarantine_stats stats = quarantine_stats(quarantine, NS_PER_S);
    assert_int_equal(stats.entries, 0);
    assert_int_equal(stats.convicted, 3);
    assert_int_equal(stats.refused, 1);
    quarantine_destroy(quarantine);
}

static void test_an_unload_forgets_its_own(void **state)
{
    (void)state;
    struct quarantine *quarantine = make();
    add(quarantine, 1, "a", NS_PER_S);
    add(quarantine, 2, "a", NS_PER_S);
    quarantine_forget(quarantine, 1); /* The serial number of the load. */
    assert_false(refuses(quarantine, 1, NS_PER_S));
    assert_true(refuses(quarantine, 2, NS_PER_S));
    quarantine_destroy(quarantine);
}

/* Without memory for it an input is not refused; the next conviction is heeded. */
static void test_memory_may_run_out(void **state)
{
    (void)state;
    struct quarantine *quarantine = make();
    if (!faults_are_built()) {
        quarantine_destroy(quarantine);
        skip();
    }
    uint64_t made = 0;
    uint64_t nth = 1;
    for (; made + 1 >= nth; nth++) {
        (void)mem_fault_arm(nth);
        add(quarantine, nth, "a", NS_PER_S);
        made = mem_fault_arm(0);
        assert_int_equal(refuses(quarantine, nth, NS_PER_S), made < nth);
        add(quarantine, nth, "a", NS_PER_S);
        assert_true(refuses(quarantine, nth, NS_PER_S));
    }
    assert_true(nth > 2);
    quarantine_destroy(quarantine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_who_was_added),
        cmocka_unit_test(test_entries_expire),
        cmocka_unit_test(test_a_second_conviction_counts_anew),
        cmocka_unit_test(test_the_oldest_makes_room),
        cmocka_unit_test(test_clears_one_model_or_all),
        cmocka_unit_test(test_an_unload_forgets_its_own),
        cmocka_unit_test(test_memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
