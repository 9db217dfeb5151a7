/*
 * inspect: what its report says, and what it does without memory.  tests/wire/test_cli.py has the
 * rest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/inspect.h"
#include "util/mem.h"

static const char *model_path(const char *name)
{
    static char path[4096];
    const char *data = getenv("WEIR_TEST_DATA");
    (void)snprintf(path, sizeof(path), "%s/models/%s", data == NULL ? "tests/data" : data, name);
    return path;
}

static void assert_reports(const char *model, const char *part)
{
    struct buffer out;
    struct weir_err err = { 0 };
    buffer_init(&out, 1 << 20);
    assert_int_equal(inspect_report(model_path(model), false, &out, &err), WEIR_OK);
    buffer_char(&out, '\0');
    if (strstr(out.data, part) == NULL) {
        fail_msg("nothing about '%s' in:\n%s", part, out.data);
    }
    buffer_finish(&out);
}

static void test_the_report_says_what_is_in_the_file(void **state)
{
    (void)state;
    assert_reports("add_sub", "  takes  INPUT0  INT32 [batch,16]\n");
    assert_reports("add_sub", "  gives  OUTPUT1  INT32 [batch,16]\n");
    assert_reports("add_sub", "  nodes: 2; 1 Add, 1 Sub\n");
    assert_reports("add_sub", "  max_batch_size: 64\n");
    assert_reports("add_sub", "    - { name: INPUT0, data_type: INT32, dims: [16] }\n");
    assert_reports("external", "1 of them in other files (weights.bin)\n");
    assert_reports("any_rank", "any shape\n");
    assert_reports("loop", "can depend on the input's values\n");
    assert_reports("scalar", "  max_batch_size: 0\n");
    assert_reports("takes_sequence", "cannot be served: input 'list' is a sequence");
    assert_reports("float8", "cannot be served: input 'x' has elements of type FLOAT8E4M3FN");
}

static void test_memory_may_run_out(void **state)
{
    (void)state;
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; nth < 200 && status != WEIR_OK; nth++) {
        struct buffer out;
        struct weir_err err = { 0 };
        buffer_init(&out, 1 << 20);
        (void)mem_fault_arm(nth);
        status = inspect_report(model_path("add_sub"), true, &out, &err);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        assert_true(status == WEIR_OK || err.text[0] != '\0');
        buffer_char(&out, '\0');
        if (status == WEIR_OK && (out.failed || strstr(out.data, "\"problem\"") != NULL)) {
            status = WEIR_ENOMEM; /* Said in the report, or by the buffer. */
        }
        buffer_finish(&out);
    }
    assert_int_equal(status, WEIR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_report_says_what_is_in_the_file),
        cmocka_unit_test(test_memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
