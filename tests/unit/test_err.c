/* Error sentences: one line of valid UTF-8, whatever goes in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "util/bytes.h"
#include "util/err.h"

static bool is_utf8(const char *text)
{
    struct bytes left = bytes_of(text);
    while (left.size > 0) {
        const size_t step = bytes_utf8_size(left);
        if (step == 0) {
            return false;
        }
        left.data += step;
        left.size -= step;
    }
    return true;
}

static void test_sets_sentence_and_returns_status(void **state)
{
    (void)state;
    struct weir_err err;
    assert_int_equal(err_set(&err, WEIR_ENOENT, "no model '%s'", "a"), WEIR_ENOENT);
    assert_int_equal(err.status, WEIR_ENOENT);
    assert_string_equal(err.text, "no model 'a'");
    assert_int_equal(err_set(NULL, WEIR_EIO, "nobody reads this"), WEIR_EIO);
}

static void test_prefixes(void **state)
{
    (void)state;
    struct weir_err err;
    err_set(&err, WEIR_EINVAL, "no rows");
    assert_int_equal(err_prefix(&err, "model '%s'", "a"), WEIR_EINVAL);
    assert_string_equal(err.text, "model 'a': no rows");
    assert_int_not_equal(err_prefix(NULL, "model"), WEIR_OK);
}

static void test_names_the_missing_memory(void **state)
{
    (void)state;
    struct weir_err err;
    assert_int_equal(err_nomem(&err, "the body", 42), WEIR_ENOMEM);
    assert_string_equal(err.text, "out of memory for the body (42 bytes)");
}

static void test_may_quote_its_own_text(void **state)
{
    (void)state;
    struct weir_err err;
    err_set(&err, WEIR_EIO, "inner");
    err_set(&err, WEIR_EINVAL, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
}

static void test_control_and_broken_bytes_become_question_marks(void **state)
{
    (void)state;
    struct weir_err err;
    err_set(&err, WEIR_EINVAL, "a%sb", "\r\n\t\x1b\x7f");
    assert_string_equal(err.text, "a?????b");
    err_set(&err, WEIR_EINVAL, "%s",
            "\xff|\xc3(|\xc2\x9b|\xe2\x82|\xed\xa0\x80|gr\xc3\xbc\xc3\x9f");
    assert_string_equal(err.text, "?|?(|??|??|???|gr\xc3\xbc\xc3\x9f");
}

/* Whatever the number of bytes before it, a character at the cut is whole or gone. */
static void test_cuts_at_a_character(void **state)
{
    (void)state;
    for (size_t lead = 0; lead < 8; lead++) {
        char text[1024];
        memset(text, 'x', lead);
        size_t size = lead;
        while (size + 4 < sizeof(text)) {
            memcpy(text + size, "\xf0\x9f\x90\x9f", 4);
            size += 4;
        }
        text[size] = '\0';
        struct weir_err err;
        err_set(&err, WEIR_EINVAL, "%s", text);
        const size_t length = strlen(err.text);
        assert_in_range(length, sizeof(err.text) - 5, sizeof(err.text) - 1);
        assert_string_equal(err.text + length - 3, "...");
        assert_true(is_utf8(err.text));
        assert_null(strchr(err.text, '?'));
        assert_memory_equal(err.text, text, length - 3);
    }
}

static void test_the_longest_sentence_that_fits_is_not_cut(void **state)
{
    (void)state;
    struct weir_err err;
    char text[sizeof(err.text) + 1];
    memset(text, 'x', sizeof(text));
    text[sizeof(err.text) - 1] = '\0';
    err_set(&err, WEIR_EINVAL, "%s", text);
    assert_string_equal(err.text, text);
    err_prefix(&err, "p");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "p: xxx", 6);
    assert_string_equal(err.text + sizeof(err.text) - 4, "...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets_sentence_and_returns_status),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_names_the_missing_memory),
        cmocka_unit_test(test_may_quote_its_own_text),
        cmocka_unit_test(test_control_and_broken_bytes_become_question_marks),
        cmocka_unit_test(test_cuts_at_a_character),
        cmocka_unit_test(test_the_longest_sentence_that_fits_is_not_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
