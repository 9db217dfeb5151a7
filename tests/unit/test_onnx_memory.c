#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "loaded.h"
#include "util/mem.h"

#define LARGE_ELEMENTS (1 << 20)

static struct backend_memory memory_of(const struct loaded *l)
{
    struct backend_memory memory;
    backend_memory(l->model, &memory);
    return memory;
}

/* Runs `count` elements; the output stays with the caller. */
static struct tensor run_fp32(struct loaded *l, struct shape shape, const float *data, bool trim)
{
    size_t size;
    assert_int_equal(tensor_bytes(DTYPE_FP32, &shape, &size, NULL), WEIR_OK);
    struct tensor inputs[2] = { tensor_of(DTYPE_FP32, shape, data, size) };
    inputs[1] = inputs[0];
    struct tensor outputs[SIDE_MAX] = { 0 };
    struct backend_run r = {
        .rows = 1, .inputs = inputs, .outputs = outputs, .wanted = all_wanted, .trim = trim
    };
    struct weir_err err = { 0 };
    if (backend_run(l->context, &r, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    tensor_release(&outputs[1]);
    return outputs[0];
}

static void test_what_a_run_keeps_is_counted_and_given_back(void **state)
{
    (void)state;
    float *data = mem_try_zero(LARGE_ELEMENTS, sizeof(*data));
    assert_non_null(data);
    struct loaded l = load("any_rank");
    const struct backend_memory before = memory_of(&l);
    const struct shape shape = { 2, { 1, LARGE_ELEMENTS } };
    struct tensor out = run_fp32(&l, shape, data, false);
    const struct backend_memory held = memory_of(&l);
    assert_true(held.heap_bytes >= before.heap_bytes + LARGE_ELEMENTS * sizeof(float));
    assert_true(held.heap_peak_bytes >= held.heap_bytes);
    tensor_release(&out);
    out = run_fp32(&l, shape, data, false);
    assert_int_equal(memory_of(&l).heap_bytes, held.heap_bytes); /* No more for the second. */
    tensor_release(&out);
    out = run_fp32(&l, (struct shape){ 2, { 1, 2 } }, data, true);
    tensor_release(&out);
    const struct backend_memory after = memory_of(&l);
    assert_true(after.heap_bytes < before.heap_bytes + LARGE_ELEMENTS);
    assert_true(after.heap_peak_bytes >= held.heap_bytes);
    unload(&l);
    mem_free(data);
}

/* Each shape is new; together they would be 50 times the largest. */
static void test_changing_shapes_do_not_pile_up(void **state)
{
    (void)state;
    float *data = mem_try_zero(LARGE_ELEMENTS, sizeof(*data));
    assert_non_null(data);
    struct loaded l = load("any_rank");
    const uint64_t before = memory_of(&l).heap_bytes;
    for (int64_t i = 0; i < 100; i++) {
        const int64_t elements = LARGE_ELEMENTS - (i * 37 % 100) * 10000;
        struct tensor out = run_fp32(&l, (struct shape){ 2, { 1, elements } }, data, false);
        tensor_release(&out);
    }
    const uint64_t most = 2 * LARGE_ELEMENTS * sizeof(float);
    assert_true(memory_of(&l).heap_peak_bytes < before + most);
    unload(&l);
    mem_free(data);
}

/* The caller's output is the runtime's memory, and may outlive the model. */
static void test_outputs_outlive_the_model(void **state)
{
    (void)state;
    float *data = mem_try_zero(LARGE_ELEMENTS, sizeof(*data));
    assert_non_null(data);
    data[LARGE_ELEMENTS - 1] = 7;
    struct loaded l = load("any_rank");
    struct tensor out = run_fp32(&l, (struct shape){ 1, { LARGE_ELEMENTS } }, data, false);
    unload(&l);
    assert_true(((const float *)(const void *)out.data)[LARGE_ELEMENTS - 1] > 6);
    tensor_release(&out);
    mem_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_run_keeps_is_counted_and_given_back),
        cmocka_unit_test(test_changing_shapes_do_not_pile_up),
        cmocka_unit_test(test_outputs_outlive_the_model),
    };
    return cmocka_run_group_tests(tests, loaded_start, loaded_stop);
}
