/*
 * What becomes of requests whose run died, and who waits for whose verdict.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/suspect.h"

static void test_fates(void **state)
{
    (void)state;
    const struct request fresh = { .deaths = 0 };
    const struct request begun = { .parts_sent = 1 };
    const struct request often = { .deaths = SUSPECT_DEATHS_MAX };
    assert_int_equal(suspect_fate(&fresh, DEATH_FAULT, false), SUSPECT_TRIAL);
    assert_int_equal(suspect_fate(&fresh, DEATH_HUNG, false), SUSPECT_TRIAL);
    assert_int_equal(suspect_fate(&fresh, DEATH_MEMORY, true), SUSPECT_CONVICT);
    /* Who was killed, or frozen, has done nothing, however often. */
    assert_int_equal(suspect_fate(&often, DEATH_KILLED, false), SUSPECT_AGAIN);
    assert_int_equal(suspect_fate(&fresh, DEATH_FROZEN, true), SUSPECT_AGAIN);
    /* The rest of another run's answer is no answer. */
    assert_int_equal(suspect_fate(&begun, DEATH_KILLED, false), SUSPECT_FAIL);
    assert_int_equal(suspect_fate(&begun, DEATH_FAULT, true), SUSPECT_FAIL);
    assert_int_equal(suspect_fate(&often, DEATH_FAULT, false), SUSPECT_FAIL);
}

static void test_waiting_for_a_verdict(void **state)
{
    (void)state;
    struct suspects suspects;
    suspects_init(&suspects);
    struct suspect one = { .key = { { 1, 2 } } };
    struct suspect two = { .key = { { 1, 3 } } };
    suspects_add(&suspects, &one);
    suspects_add(&suspects, &two);
    assert_int_equal(suspects.count, 2);
    assert_ptr_equal(suspects_find(&suspects, &(struct request_key){ { 1, 3 } }), &two);
    assert_null(suspects_find(&suspects, &(struct request_key){ { 2, 1 } }));
    struct request equal = { 0 };
    list_append(&two.waiting, &equal.line);
    struct list waited;
    list_init(&waited);
    suspects_remove(&suspects, &one, &waited);
    assert_true(list_empty(&waited));
    suspects_remove(&suspects, &two, &waited);
    assert_ptr_equal(list_first(&waited), &equal.line);
    assert_int_equal(suspects.count, 0);
    assert_null(suspects_find(&suspects, &two.key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fates),
        cmocka_unit_test(test_waiting_for_a_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
