#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "tensor/tensor.h"

static void test_every_type_has_a_name_and_size(void **state)
{
    (void)state;
    for (int i = 0; i < DTYPE_COUNT; i++) {
        enum dtype found;
        assert_true(dtype_of(bytes_of(dtype_text((enum dtype)i)), &found));
        assert_int_equal(found, i);
    }
    enum dtype untouched = DTYPE_FP16;
    assert_false(dtype_of(BYTES_LITERAL("fp32"), &untouched));
    assert_false(dtype_of(BYTES_LITERAL("FP32 "), &untouched));
    assert_false(dtype_of(BYTES_LITERAL(""), &untouched));
    assert_int_equal(untouched, DTYPE_FP16);
    assert_int_equal(dtype_size(DTYPE_FP64), 8);
    assert_int_equal(dtype_size(DTYPE_BF16), 2);
    assert_int_equal(dtype_size(DTYPE_BYTES), 0);
}

static void test_shapes_print_and_compare(void **state)
{
    (void)state;
    char text[SHAPE_TEXT];
    const struct shape a = { 3, { 1, 16, 3 } };
    const struct shape spec = { 3, { -1, 16, -1 } };
    assert_string_equal(shape_format(&spec, text), "[-1,16,-1]");
    assert_string_equal(shape_format(&(struct shape){ 0 }, text), "[]");
    assert_true(shape_fits(&a, &spec));
    assert_false(shape_fits(&(struct shape){ 3, { 1, 15, 3 } }, &spec));
    assert_false(shape_fits(&(struct shape){ 2, { 1, 16 } }, &spec));
    assert_true(shape_equal(&a, &(struct shape){ 3, { 1, 16, 3, 99 } }));
    assert_false(shape_equal(&a, &spec));

    struct shape widest = { .rank = TENSOR_RANK_MAX };
    for (uint32_t i = 0; i < TENSOR_RANK_MAX; i++) {
        widest.dims[i] = INT64_MIN;
    }
    assert_true(strlen(shape_format(&widest, text)) < SHAPE_TEXT);
}

static void expect_refused(const struct shape *shape, const char *part)
{
    struct weir_err err = { 0 };
    uint64_t elements = 77;
    assert_int_equal(shape_elements(shape, &elements, &err), WEIR_EINVAL);
    assert_int_equal(elements, 77);
    assert_non_null(strstr(err.text, part));
}

static void test_elements_are_counted_or_refused(void **state)
{
    (void)state;
    uint64_t elements;
    assert_int_equal(shape_elements(&(struct shape){ 0 }, &elements, NULL), WEIR_OK);
    assert_int_equal(elements, 1);
    assert_int_equal(shape_elements(&(struct shape){ 2, { 3, 0 } }, &elements, NULL), WEIR_OK);
    assert_int_equal(elements, 0);
    assert_int_equal(shape_elements(&(struct shape){ 1, { INT64_C(1) << 40 } }, &elements, NULL),
                     WEIR_OK);
    assert_int_equal(elements, UINT64_C(1) << 40);
    expect_refused(&(struct shape){ 2, { 4, -1 } }, "[4,-1] has a negative");
    expect_refused(&(struct shape){ 2, { 0, INT64_MIN } }, "negative");
    expect_refused(&(struct shape){ 2, { INT64_C(1) << 21, INT64_C(1) << 20 } }, "more than");
    expect_refused(&(struct shape){ 2, { INT64_MAX, INT64_MAX } }, "more than");
    expect_refused(&(struct shape){ 2, { 0, INT64_MAX } }, "more than");
    expect_refused(&(struct shape){ .rank = TENSOR_RANK_MAX + 1 }, "13 dimensions");
}

static void test_bytes_follow_the_type(void **state)
{
    (void)state;
    size_t size;
    assert_int_equal(tensor_bytes(DTYPE_FP64, &(struct shape){ 2, { 3, 5 } }, &size, NULL),
                     WEIR_OK);
    assert_int_equal(size, 120);
    struct weir_err err = { 0 };
    assert_int_equal(tensor_bytes(DTYPE_BYTES, &(struct shape){ 0 }, &size, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "BYTES"));
    assert_int_equal(size, 120);
}

static struct tensor strings(const char *data, size_t size, int64_t count)
{
    return (struct tensor){
        .dtype = DTYPE_BYTES,
        .shape = { 1, { count } },
        .data = (uint8_t *)(uintptr_t)data,
        .size = size,
        .present = true,
    };
}

static void test_strings_are_walked(void **state)
{
    (void)state;
    static const char wire[] = "\3\0\0\0a\0b\0\0\0\0\1\0\0\0z";
    const struct tensor t = strings(wire, sizeof(wire) - 1, 3);
    assert_int_equal(tensor_check_strings(&t, NULL), WEIR_OK);
    size_t at = 0;
    struct bytes item;
    assert_true(tensor_next_string(&t, &at, &item));
    assert_true(bytes_equal(item, (struct bytes){ "a\0b", 3 }));
    assert_true(tensor_next_string(&t, &at, &item));
    assert_int_equal(item.size, 0);
    assert_true(tensor_next_string(&t, &at, &item));
    assert_true(bytes_equal(item, BYTES_LITERAL("z")));
    assert_false(tensor_next_string(&t, &at, &item));
}

static void expect_bad_strings(const char *data, size_t size, int64_t count, const char *part)
{
    struct weir_err err = { 0 };
    const struct tensor t = strings(data, size, count);
    assert_int_equal(tensor_check_strings(&t, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, part));
}

static void test_bad_strings_are_refused(void **state)
{
    (void)state;
    expect_bad_strings("\1\0\0\0a", 5, 2, "ends after 1 elements");
    expect_bad_strings("\1\0\0\0a\1\0\0", 8, 2, "ends after 1 elements");
    expect_bad_strings("\2\0\0\0a", 5, 1, "says 2 bytes, 1 are left");
    expect_bad_strings("\xff\xff\xff\xff", 4, 1, "4294967295");
    expect_bad_strings("\1\0\0\0ab", 6, 1, "1 bytes after");
    expect_bad_strings("\0\0\0\0", 4, 0, "4 bytes after");
    const struct tensor none = strings(NULL, 0, 0);
    assert_int_equal(tensor_check_strings(&none, NULL), WEIR_OK);
}

static void test_halves_survive_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= 0xffff; i++) {
        const uint16_t half = (uint16_t)i;
        const float wide = tensor_fp16_to_float(half);
        const float brain = tensor_bf16_to_float(half);
        if (isnan(wide)) {
            assert_true(isnan(tensor_fp16_to_float(tensor_float_to_fp16(wide))));
        } else {
            assert_int_equal(tensor_float_to_fp16(wide), half);
        }
        if (isnan(brain)) {
            assert_true(isnan(tensor_bf16_to_float(tensor_float_to_bf16(brain))));
        } else {
            assert_int_equal(tensor_float_to_bf16(brain), half);
        }
    }
    assert_true(tensor_fp16_to_float(0x3c00) == 1.0F);
    assert_true(tensor_fp16_to_float(0xc000) == -2.0F);
    assert_true(tensor_fp16_to_float(0x0001) == 0x1p-24F);
    assert_true(tensor_fp16_to_float(0x7bff) == 65504.0F);
    assert_true(isinf(tensor_fp16_to_float(0xfc00)));
}

/* The midpoint of two neighbouring halves goes to the even one; what is beside it, to the
 * nearer. */
static void test_halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint16_t low = 0; low < 0x7bff; low++) {
        const uint16_t high = (uint16_t)(low + 1);
        const float middle = (tensor_fp16_to_float(low) + tensor_fp16_to_float(high)) / 2.0F;
        const uint16_t even = low % 2 == 0 ? low : high;
        assert_int_equal(tensor_float_to_fp16(middle), even);
        assert_int_equal(tensor_float_to_fp16(-middle), even | 0x8000);
        assert_int_equal(tensor_float_to_fp16(nextafterf(middle, 0.0F)), low);
        assert_int_equal(tensor_float_to_fp16(nextafterf(middle, INFINITY)), high);
    }
    assert_int_equal(tensor_float_to_fp16(65519.99F), 0x7bff);
    assert_int_equal(tensor_float_to_fp16(65520.0F), 0x7c00);
    assert_int_equal(tensor_float_to_fp16(1e30F), 0x7c00);
    assert_int_equal(tensor_float_to_bf16(1.00390625F), 0x3f80); /* 1 + 2^-8: tie to even. */
    assert_int_equal(tensor_float_to_bf16(1.01171875F), 0x3f82); /* 1 + 3 * 2^-8. */
    assert_int_equal(tensor_float_to_bf16(3.4e38F), 0x7f80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_has_a_name_and_size),
        cmocka_unit_test(test_shapes_print_and_compare),
        cmocka_unit_test(test_elements_are_counted_or_refused),
        cmocka_unit_test(test_bytes_follow_the_type),
        cmocka_unit_test(test_strings_are_walked),
        cmocka_unit_test(test_bad_strings_are_refused),
        cmocka_unit_test(test_halves_survive_the_round_trip),
        cmocka_unit_test(test_halves_round_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
