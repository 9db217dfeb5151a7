#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "api/classify.h"
#include "fake_model.h"

static void set_output(struct fake_call *call, enum dtype dtype, struct shape shape, void *data,
                       size_t size)
{
    call->infer.request.outputs[0] = (struct tensor){
        .dtype = dtype,
        .shape = shape,
        .data = data,
        .size = size,
        .present = true,
    };
}

static void expect_classes(struct fake_call *call, const char *shape, const char *const *texts)
{
    const struct tensor *tensor = &call->infer.request.outputs[0];
    char text[SHAPE_TEXT];
    assert_int_equal(tensor->dtype, DTYPE_BYTES);
    assert_string_equal(shape_format(&tensor->shape, text), shape);
    assert_int_equal(tensor_check_strings(tensor, NULL), WEIR_OK);
    size_t at = 0;
    struct bytes found;
    for (; *texts != NULL; texts++) {
        assert_true(tensor_next_string(tensor, &at, &found));
        assert_int_equal(found.size, strlen(*texts));
        assert_memory_equal(found.data, *texts, found.size);
    }
    assert_false(tensor_next_string(tensor, &at, &found));
}

static void classify(struct fake_call *call, uint32_t classes)
{
    const struct infer_output output = { .index = 0, .classes = classes };
    struct weir_err err;
    assert_int_equal(classify_output(&call->infer, &output, &err), WEIR_OK);
}

static void test_best_first_with_labels(void **state)
{
    (void)state;
    float scores[] = { 0.25F, 0.9273F, -1, 0.9273F };
    const char *labels[] = { "cat", "dog" };
    struct io_config config = { .name = "Y", .labels = labels, .label_count = 2 };
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_output(&fake, "Y", DTYPE_FP32, (struct shape){ 1, { 4 } });
    fake.config.outputs = &config;
    fake.config.output_count = 1;
    struct fake_call call;
    fake_call_open(&call, &fake);
    set_output(&call, DTYPE_FP32, (struct shape){ 1, { 4 } }, scores, sizeof scores);
    classify(&call, 3);
    expect_classes(&call, "[3]",
                   (const char *const[]){ "0.927300:1:dog", "0.927300:3", "0.250000:0:cat", NULL });
    fake_call_close(&call);
}

static void test_batches_keep_their_rows(void **state)
{
    (void)state;
    int32_t scores[] = { 1, 2, 3, 9, -8, 7 };
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_output(&fake, "Y", DTYPE_INT32, (struct shape){ 2, { -1, 3 } });
    fake.config.max_batch_size = 4;
    struct fake_call call;
    fake_call_open(&call, &fake);
    set_output(&call, DTYPE_INT32, (struct shape){ 2, { 2, 3 } }, scores, sizeof scores);
    classify(&call, 9);
    expect_classes(&call, "[2,3]",
                   (const char *const[]){ "3:2", "2:1", "1:0", "9:0", "7:2", "-8:1", NULL });
    fake_call_close(&call);
}

static void test_nan_is_worse_than_any_number(void **state)
{
    (void)state;
    double scores[] = { NAN, -1e300, 5 };
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_output(&fake, "Y", DTYPE_FP64, (struct shape){ 1, { 3 } });
    struct fake_call call;
    fake_call_open(&call, &fake);
    set_output(&call, DTYPE_FP64, (struct shape){ 1, { 3 } }, scores, sizeof scores);
    classify(&call, 1);
    expect_classes(&call, "[1]", (const char *const[]){ "5.000000:2", NULL });
    fake_call_close(&call);
}

static void test_against_sorting(void **state)
{
    (void)state;
    uint64_t scores[257];
    uint64_t seed = 7;
    for (size_t i = 0; i < 257; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        scores[i] = seed >> 58; /* Many are equal. */
    }
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_output(&fake, "Y", DTYPE_UINT64, (struct shape){ 1, { 257 } });
    struct fake_call call;
    fake_call_open(&call, &fake);
    set_output(&call, DTYPE_UINT64, (struct shape){ 1, { 257 } }, scores, sizeof scores);
    classify(&call, 100);
    size_t at = 0;
    bool used[257] = { false };
    for (size_t rank = 0; rank < 100; rank++) {
        size_t best = 257;
        for (size_t i = 0; i < 257; i++) {
            if (!used[i] && (best == 257 || scores[i] > scores[best])) {
                best = i;
            }
        }
        used[best] = true;
        char text[64];
        struct bytes found;
        (void)snprintf(text, sizeof text, "%llu:%zu", (unsigned long long)scores[best], best);
        assert_true(tensor_next_string(&call.infer.request.outputs[0], &at, &found));
        assert_int_equal(found.size, strlen(text));
        assert_memory_equal(found.data, text, found.size);
    }
    fake_call_close(&call);
}

static void test_too_many_elements(void **state)
{
    (void)state;
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_output(&fake, "Y", DTYPE_INT8, (struct shape){ 1, { -1 } });
    struct fake_call call;
    fake_call_open(&call, &fake);
    static int8_t scores[1000001];
    set_output(&call, DTYPE_INT8, (struct shape){ 1, { 1000001 } }, scores, sizeof scores);
    const struct infer_output output = { .index = 0, .classes = 1 };
    struct weir_err err;
    assert_int_equal(classify_output(&call.infer, &output, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "1000001"));
    fake_call_close(&call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_first_with_labels),
        cmocka_unit_test(test_batches_keep_their_rows),
        cmocka_unit_test(test_nan_is_worse_than_any_number),
        cmocka_unit_test(test_against_sorting),
        cmocka_unit_test(test_too_many_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
