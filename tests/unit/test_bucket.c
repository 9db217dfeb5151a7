/* Shapes of requests: who may share a run, what is padded, and what comes out cut back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "engine/bucket.h"
#include "engine/model.h"
#include "util/mem.h"

static struct tensor_spec text_inputs[] = {
    { "ids", DTYPE_INT32, { 2, { -1, -1 } }, false, { "batch", "words" }, false },
    { "mask", DTYPE_FP16, { 2, { -1, -1 } }, false, { "batch", "words" }, false },
    { "style", DTYPE_FP32, { 2, { -1, 4 } }, false, { "batch", NULL }, false },
};
static struct tensor_spec text_outputs[] = {
    { "tags", DTYPE_UINT8, { 3, { -1, -1, 2 } }, false, { "batch", "words", NULL }, false },
    { "class", DTYPE_FP32, { 2, { -1, 3 } }, false, { "batch", NULL }, false },
};
static const struct signature text = {
    .inputs = text_inputs, .input_count = 3, .outputs = text_outputs, .output_count = 2
};

static struct tensor_spec picture_input = {
    "x", DTYPE_UINT8, { 4, { -1, -1, -1, 2 } }, false, { "n", "h", "w", NULL }, false
};
static struct tensor_spec picture_output = {
    "y", DTYPE_UINT8, { 4, { -1, -1, -1, 2 } }, false, { "n", "h", "w", NULL }, false
};
static const struct signature picture = {
    .inputs = &picture_input, .input_count = 1, .outputs = &picture_output, .output_count = 1
};

static struct bucket_config words[] = {
    { .input = "ids", .dim = 1, .sizes = { 4, 8 }, .size_count = 2, .pad = -1 },
    { .input = "mask", .dim = 1, .pad = 0.5 },
};
static struct bucket_config sides[] = {
    { .input = "x", .dim = 1, .sizes = { 3 }, .size_count = 1, .pad = 9 },
    { .input = "x", .dim = 2, .sizes = { 2, 4 }, .size_count = 2, .pad = 9 },
};

static struct bucket_plan *plan_of(struct bucket_config *buckets, uint32_t count,
                                   const struct signature *signature)
{
    const struct model_config config = { .max_batch_size = 8,
                                         .buckets = buckets,
                                         .bucket_count = count };
    struct bucket_plan *plan = NULL;
    struct weir_err err = { 0 };
    if (bucket_plan_create(&config, signature, NULL, &plan, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    return plan;
}

/* Shapes only. */
static void text_of(struct tensor inputs[3], int64_t rows, int64_t ids, int64_t mask)
{
    const int64_t lengths[] = { ids, mask, 4 };
    for (size_t i = 0; i < 3; i++) {
        inputs[i] = (struct tensor){ .dtype = text_inputs[i].dtype,
                                     .present = true,
                                     .shape = { 2, { rows, lengths[i] } } };
    }
}

static void test_lengths_of_one_bucket_have_one_key(void **state)
{
    (void)state;
    struct bucket_plan *plan = plan_of(words, 2, &text);
    const struct model padded = { .signature = &text, .buckets = plan };
    const struct model plain = { .signature = &text };
    struct tensor a[3];
    struct tensor b[3];
    text_of(a, 1, 5, 5);
    text_of(b, 7, 8, 8);
    assert_true(bucket_key(&padded, a) == bucket_key(&padded, b));
    assert_false(bucket_key(&plain, a) == bucket_key(&plain, b));
    text_of(b, 1, 4, 4); /* The bucket below. */
    assert_false(bucket_key(&padded, a) == bucket_key(&padded, b));
    text_of(a, 1, 9, 9); /* Above all of them. */
    text_of(b, 1, 10, 10);
    assert_false(bucket_key(&padded, a) == bucket_key(&padded, b));
    text_of(a, 1, 3, 4); /* The model will refuse it; nobody else shall suffer. */
    text_of(b, 1, 4, 4);
    assert_false(bucket_key(&padded, a) == bucket_key(&padded, b));
    struct bucket_lengths lengths;
    assert_false(bucket_lengths(plan, a, &lengths));
    assert_true(bucket_lengths(plan, b, &lengths));
    assert_false(lengths.padded);
    bucket_plan_destroy(plan);
}

static void test_pads_and_cuts_every_dimension(void **state)
{
    (void)state;
    struct bucket_plan *plan = plan_of(sides, 2, &picture);
    struct block_pool *blocks = block_pool_create(0);
    /* Two pictures of 2 by 3, 2 bytes each place. */
    uint8_t own[2 * 2 * 3 * 2];
    for (size_t i = 0; i < sizeof(own); i++) {
        own[i] = (uint8_t)(100 + i);
    }
    struct tensor input = { .dtype = DTYPE_UINT8,
                            .present = true,
                            .shape = { 4, { 2, 2, 3, 2 } },
                            .data = own,
                            .size = sizeof(own) };
    struct bucket_lengths lengths;
    assert_true(bucket_lengths(plan, &input, &lengths));
    assert_true(lengths.padded);
    uint8_t padded[2 * 3 * 4 * 2];
    const struct shape to = bucket_shape(&plan->inputs[0], &input.shape, lengths.to);
    assert_true(shape_equal(&to, &(struct shape){ 4, { 2, 3, 4, 2 } }));
    memset(padded, 0, sizeof(padded));
    bucket_pad(&plan->inputs[0], &input, &to, padded);
    static const uint8_t first[3 * 4 * 2] = {
        100, 101, 102, 103, 104, 105, 9, 9, 106, 107, 108, 109, 110, 111, 9, 9, /* Two lines, */
        9,   9,   9,   9,   9,   9,   9, 9,                                     /* one of pad. */
    };
    assert_memory_equal(padded, first, sizeof(first));
    assert_int_equal(padded[24], 112);
    const struct tensor output = {
        .dtype = DTYPE_UINT8, .present = true, .shape = to, .data = padded, .size = sizeof(padded)
    };
    struct tensor cut = { 0 };
    assert_true(bucket_cuts(&plan->outputs[0], &lengths));
    assert_int_equal(bucket_cut(&plan->outputs[0], &lengths, &output, blocks, &cut, NULL), WEIR_OK);
    assert_true(shape_equal(&cut.shape, &input.shape));
    assert_int_equal(cut.size, sizeof(own));
    assert_memory_equal(cut.data, own, sizeof(own));
    tensor_release(&cut);
    struct tensor other = output; /* Not what was promised by the names. */
    other.shape.dims[1] = 4;
    struct weir_err err = { 0 };
    assert_int_equal(bucket_cut(&plan->outputs[0], &lengths, &other, blocks, &cut, &err),
                     WEIR_EBACKEND);
    assert_non_null(strstr(err.text, "output 'y' has shape [2,4,4,2]"));
    block_pool_destroy(blocks);
    bucket_plan_destroy(plan);
}

static void test_each_input_has_its_own_padding(void **state)
{
    (void)state;
    struct bucket_plan *plan = plan_of(words, 2, &text);
    int32_t ids[3] = { 1, 2, 3 };
    int32_t padded[4];
    const struct tensor input = { .dtype = DTYPE_INT32,
                                  .present = true,
                                  .shape = { 2, { 1, 3 } },
                                  .data = (uint8_t *)ids,
                                  .size = sizeof(ids) };
    const struct shape to = { 2, { 1, 4 } };
    bucket_pad(&plan->inputs[0], &input, &to, (uint8_t *)padded);
    assert_memory_equal(padded, ((const int32_t[]){ 1, 2, 3, -1 }), sizeof(padded));
    uint16_t mask[3] = { 0x3C00, 0x3C00, 0x3C00 };
    uint16_t longer[4];
    struct tensor half = input;
    half.dtype = DTYPE_FP16;
    half.data = (uint8_t *)mask;
    half.size = sizeof(mask);
    bucket_pad(&plan->inputs[1], &half, &to, (uint8_t *)longer);
    assert_int_equal(longer[3], 0x3800); /* 0.5 */
    assert_false(plan->inputs[2].any);
    assert_true(plan->outputs[0].any);
    assert_false(plan->outputs[1].any);
    bucket_plan_destroy(plan);
}

static void test_a_description_leads_back_to_its_key(void **state)
{
    (void)state;
    struct bucket_plan *plan = plan_of(words, 2, &text);
    const struct model padded = { .signature = &text, .buckets = plan };
    struct tensor inputs[3];
    struct profile_dims dims;
    uint64_t key = 1;
    text_of(inputs, 3, 5, 5);
    bucket_describe(&padded, inputs, &dims);
    assert_true(dims.known);
    assert_int_equal(dims.count, 2);
    assert_int_equal(dims.dims[0], 8);
    assert_true(bucket_key_of(&padded, &dims, &key));
    assert_true(key == bucket_key(&padded, inputs));
    (void)mem_fault_arm(1);
    const bool found = bucket_key_of(&padded, &dims, &key);
    assert_true(found == (mem_fault_arm(0) == 0)); /* Not in builds where memory runs out. */
    dims.count = 1;                                /* Of another model. */
    assert_false(bucket_key_of(&padded, &dims, &key));
    dims.count = 3;
    assert_false(bucket_key_of(&padded, &dims, &key));
    dims.count = 2;
    dims.dims[1] = -5;
    assert_false(bucket_key_of(&padded, &dims, &key));
    dims.count = PROFILE_DIMS_NONE;
    assert_false(bucket_key_of(&padded, &dims, &key));
    bucket_plan_destroy(plan);
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    struct tensor_spec nameless = { "x", DTYPE_FP32, { 2, { -1, -1 } }, false, { NULL }, false };
    struct tensor_spec strings = { "x", DTYPE_BYTES, { 2, { -1, -1 } }, false, { NULL }, false };
    const struct signature unnamed = {
        .inputs = &nameless, .input_count = 1, .outputs = &nameless, .output_count = 1
    };
    const struct signature bytes = {
        .inputs = &strings, .input_count = 1, .outputs = &strings, .output_count = 1
    };
    static const struct bucket_config unknown = { "y", 1, { 4 }, 1, 0 };
    static const struct bucket_config batch = { "ids", 2, { 4 }, 1, 0 };
    static const struct bucket_config fixed = { "style", 1, { 4 }, 1, 0 };
    static const struct bucket_config sizeless = { "ids", 1, { 0 }, 0, 0 };
    static const struct bucket_config x = { "x", 1, { 4 }, 1, 0 };
    const struct {
        struct bucket_config buckets[2];
        uint32_t count;
        const struct signature *signature;
        const char *says;
    } rows[] = {
        { { unknown }, 1, &text, "the model has no input 'y'" },
        { { batch }, 1, &text, "found dim 2 of input 'ids', expected one of its shape [-1,-1]" },
        { { fixed }, 1, &text, "is fixed in its shape [-1,4]" },
        { { sizeless }, 1, &text, "found sizes nowhere" },
        { { words[0], { "mask", 1, { 4 }, 1, 0 } }, 2, &text, "found sizes again" },
        { { x }, 1, &unnamed, "no symbolic names" },
        { { x }, 1, &bytes, "holds texts" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bucket_config buckets[2] = { rows[i].buckets[0], rows[i].buckets[1] };
        const struct model_config config = { .max_batch_size = 8,
                                             .buckets = buckets,
                                             .bucket_count = rows[i].count };
        struct bucket_plan *plan = NULL;
        struct weir_err err = { 0 };
        assert_int_equal(bucket_plan_create(&config, rows[i].signature, NULL, &plan, &err),
                         WEIR_EINVAL);
        if (strstr(err.text, rows[i].says) == NULL) {
            fail_msg("'%s' does not say '%s'", err.text, rows[i].says);
        }
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
#ifndef WEIR_ALLOC_FAULT
    skip();
#else
    const struct model_config config = { .max_batch_size = 8, .buckets = words, .bucket_count = 2 };
    for (uint64_t nth = 1; nth < 10; nth++) {
        struct bucket_plan *plan = NULL;
        (void)mem_fault_arm(nth);
        const enum weir_status status = bucket_plan_create(&config, &text, NULL, &plan, NULL);
        (void)mem_fault_arm(0);
        if (status == WEIR_OK) {
            bucket_plan_destroy(plan);
            assert_true(nth > 1);
            return;
        }
        assert_int_equal(status, WEIR_ENOMEM);
        assert_null(plan);
    }
    fail();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths_of_one_bucket_have_one_key),
        cmocka_unit_test(test_pads_and_cuts_every_dimension),
        cmocka_unit_test(test_each_input_has_its_own_padding),
        cmocka_unit_test(test_a_description_leads_back_to_its_key),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
