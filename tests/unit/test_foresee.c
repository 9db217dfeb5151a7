/* Which model is usually asked for after another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/foresee.h"

static void test_who_follows_often_is_foretold(void **state)
{
    (void)state;
    struct foresight self = { 0 };
    assert_null(foresee_next(&self));
    for (int i = 0; i < FORESEE_SURE; i++) {
        assert_null(foresee_next(&self));
        foresee_saw(&self, "b");
    }
    assert_string_equal(foresee_next(&self), "b");
}

static void test_who_follows_now_and_then_is_not(void **state)
{
    (void)state;
    static const char *const others[] = { "b", "c", "d" };
    struct foresight self = { 0 };
    for (int i = 0; i < 100; i++) {
        foresee_saw(&self, others[i % 3]);
        assert_null(foresee_next(&self));
    }
}

static void test_a_habit_that_changes_is_learned_anew(void **state)
{
    (void)state;
    struct foresight self = { 0 };
    for (int i = 0; i < 1000; i++) {
        foresee_saw(&self, "b");
    }
    for (int i = 0; i < FORESEE_MOST + FORESEE_SURE; i++) {
        foresee_saw(&self, "c");
    }
    assert_string_equal(foresee_next(&self), "c");
}

static void test_what_was_loaded_in_vain_is_loaded_no_more(void **state)
{
    (void)state;
    struct foresight self = { 0 };
    for (int i = 0; i < FORESEE_SURE; i++) {
        foresee_saw(&self, "b");
    }
    foresee_judge(&self, true);
    foresee_judge(&self, false);
    assert_non_null(foresee_next(&self));
    foresee_judge(&self, false);
    assert_null(foresee_next(&self));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_follows_often_is_foretold),
        cmocka_unit_test(test_who_follows_now_and_then_is_not),
        cmocka_unit_test(test_a_habit_that_changes_is_learned_anew),
        cmocka_unit_test(test_what_was_loaded_in_vain_is_loaded_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
