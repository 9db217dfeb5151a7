/*
 * reshape: which shapes stand for each other.  tests/wire/test_triton_folders.py has the runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "backend/reshape.h"

static void test_which_shapes_fit(void **state)
{
    (void)state;
    static const struct {
        struct shape shown;
        struct shape model;
        bool fits;
    } rows[] = {
        { { 1, { 16 } }, { 2, { 4, 4 } }, true },
        { { 2, { 2, 8 } }, { 2, { 4, 4 } }, true },
        { { 1, { 1 } }, { 0 }, true },
        { { 0 }, { 0 }, true },
        { { 1, { 2 } }, { 0 }, false },
        { { 1, { 16 } }, { 2, { 4, 5 } }, false },
        { { 1, { -1 } }, { 2, { -1, 1 } }, true },
        { { 1, { -1 } }, { 2, { 1, -1 } }, true },
        { { 1, { -1 } }, { 2, { -1, 2 } }, false },
        { { 1, { -1 } }, { 2, { -1, -1 } }, false },
        { { 1, { -1 } }, { 1, { 4 } }, false },
        { { 3, { 2, -1, 6 } }, { 4, { 2, -1, 2, 3 } }, true },
        { { 3, { 2, -1, 6 } }, { 4, { 2, 2, -1, 3 } }, false },
        { { 2, { INT64_MAX, INT64_MAX } }, { 2, { INT64_MAX, INT64_MAX } }, false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(reshape_fits(&rows[i].shown, &rows[i].model), rows[i].fits);
        assert_int_equal(reshape_fits(&rows[i].model, &rows[i].shown), rows[i].fits);
    }
}

static void test_what_is_shown(void **state)
{
    (void)state;
    struct tensor_spec spec = { .name = "x",
                                .shape = { 3, { -1, 4, 4 } },
                                .dim_names = { "batch", "h" } };
    const struct reshape_rule rule = { .batched = true,
                                       .shown = { 1, { 16 } },
                                       .model = { 2, { 4, 4 } } };
    reshape_show(&rule, &spec);
    assert_int_equal(spec.shape.rank, 2);
    assert_int_equal(spec.shape.dims[0], -1);
    assert_int_equal(spec.shape.dims[1], 16);
    assert_string_equal(spec.dim_names[0], "batch");
    assert_null(spec.dim_names[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_shapes_fit),
        cmocka_unit_test(test_what_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
