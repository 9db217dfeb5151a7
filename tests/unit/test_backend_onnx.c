#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "loaded.h"
#include "util/clock.h"

/* --- Privacy comes first: the later tests may start threads. ---------------------------------- */

static unsigned count_entries(const char *path)
{
    DIR *folder = opendir(path);
    assert_non_null(folder);
    unsigned count = 0;
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(folder);
    return count;
}

/* A thread that was joined leaves the system's list a moment later.  Returns how many are there. */
static unsigned await_threads(unsigned most)
{
    const struct timespec moment = { .tv_nsec = NS_PER_MS };
    unsigned count = count_entries("/proc/self/task");
    for (unsigned looks = 0; count > most && looks < 10000; looks++) {
        (void)nanosleep(&moment, NULL);
        count = count_entries("/proc/self/task");
    }
    return count;
}

static void *count_threads(void *count)
{
    *(unsigned *)count = count_entries("/proc/self/task");
    return NULL;
}

/* Threads of this program.  One was started before: with it ThreadSanitizer starts one of its own. */
static unsigned own_threads(void)
{
    pthread_t thread;
    unsigned count;
    assert_int_equal(pthread_create(&thread, NULL, count_threads, &count), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return count - 1;
}

static void test_no_telemetry(void **state)
{
    (void)state;
    char home[] = "/tmp/weir-test-XXXXXX";
    assert_non_null(mkdtemp(home));
    static const char *const variables[] = { "HOME", "TMPDIR", "XDG_CACHE_HOME" };
    for (size_t i = 0; i < 3; i++) {
        setenv(variables[i], home, 1);
    }
    const unsigned threads = own_threads();
    struct loaded l = load("identity_fp32");
    assert_int_equal(await_threads(threads), threads);
    assert_int_equal(count_entries(home), 0);
    unload(&l);
    assert_int_equal(rmdir(home), 0);
}

/* --- Values ----------------------------------------------------------------------------------- */

static void test_every_type_comes_back_unchanged(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        enum dtype dtype;
    } cases[] = {
        { "identity_bool", DTYPE_BOOL },     { "identity_uint8", DTYPE_UINT8 },
        { "identity_uint16", DTYPE_UINT16 }, { "identity_uint32", DTYPE_UINT32 },
        { "identity_uint64", DTYPE_UINT64 }, { "identity_int8", DTYPE_INT8 },
        { "identity_int16", DTYPE_INT16 },   { "identity_int32", DTYPE_INT32 },
        { "identity_int64", DTYPE_INT64 },   { "identity_fp16", DTYPE_FP16 },
        { "identity_fp64", DTYPE_FP64 },     { "identity_bf16", DTYPE_BF16 },
    };
    _Alignas(64) uint8_t data[3 * 4 * 8];
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct loaded l = load(cases[c].model);
        assert_int_equal(l.signature->inputs[0].dtype, cases[c].dtype);
        assert_int_equal(l.signature->outputs[0].dtype, cases[c].dtype);
        for (size_t i = 0; i < sizeof(data); i++) {
            data[i] = cases[c].dtype == DTYPE_BOOL ? i % 3 == 0 : (uint8_t)(i * 37 + 11);
        }
        const struct shape shape = { 2, { 3, 4 } };
        const size_t size = 12 * dtype_size(cases[c].dtype);
        const struct tensor input = tensor_of(cases[c].dtype, shape, data, size);
        for (int round = 0; round < 3; round++) {
            struct tensor output = { 0 };
            assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
            assert_int_equal(output.dtype, cases[c].dtype);
            expect_bytes(&output, shape, data, size);
            tensor_release(&output);
        }
        unload(&l);
    }
}

static void test_strings_keep_nul_and_length(void **state)
{
    (void)state;
    /* The last string has 9 bytes, the literal's own NUL among them. */
    static const char wire[] = "\3\0\0\0a\0b"
                               "\0\0\0\0"
                               "\1\0\0\0\0"
                               "\11\0\0\0\xff\xfe long\n";
    struct loaded l = load("identity_bytes");
    const struct shape shape = { 2, { 1, 4 } };
    const struct tensor input = tensor_of(DTYPE_BYTES, shape, wire, sizeof(wire));
    struct tensor output = { 0 };
    assert_int_equal(tensor_check_strings(&input, NULL), WEIR_OK);
    assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
    expect_bytes(&output, shape, wire, input.size);
    tensor_release(&output);

    const struct shape none = { 2, { 0, 4 } };
    const struct tensor empty = tensor_of(DTYPE_BYTES, none, NULL, 0);
    assert_int_equal(run(&l, &empty, &output, NULL), WEIR_OK);
    assert_true(shape_equal(&output.shape, &none));
    assert_int_equal(output.size, 0);
    tensor_release(&output);
    unload(&l);
}

static void test_rank_zero_stays_rank_zero(void **state)
{
    (void)state;
    struct loaded l = load("scalar");
    assert_int_equal(l.signature->inputs[0].shape.rank, 0);
    assert_false(l.signature->inputs[0].any_rank);
    const float x = 41.5F;
    const float expected = 42.5F;
    const struct tensor input = tensor_of(DTYPE_FP32, (struct shape){ 0 }, &x, sizeof(x));
    for (int round = 0; round < 3; round++) {
        struct tensor output = { 0 };
        assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
        expect_bytes(&output, (struct shape){ 0 }, &expected, sizeof(expected));
        tensor_release(&output);
    }
    unload(&l);
}

static void test_a_file_may_leave_the_rank_open(void **state)
{
    (void)state;
    struct loaded l = load("any_rank");
    assert_true(l.signature->inputs[0].any_rank);
    assert_true(l.signature->outputs[0].any_rank);
    static const float x[4] = { -1, 2, -3, 4 };
    static const float expected[4] = { 0, 2, 0, 4 };
    static const struct shape shapes[] = { { 1, { 4 } }, { 3, { 2, 1, 2 } }, { 2, { 1, 4 } } };
    for (size_t i = 0; i < 3; i++) {
        const struct tensor input = tensor_of(DTYPE_FP32, shapes[i], x, sizeof(x));
        struct tensor output = { 0 };
        assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
        expect_bytes(&output, shapes[i], expected, sizeof(expected));
        tensor_release(&output);
    }
    unload(&l);
}

static void test_no_rows_is_a_number_of_rows(void **state)
{
    (void)state;
    struct loaded l = load("identity_fp32");
    const struct shape none = { 2, { 0, 16 } };
    const struct tensor input = tensor_of(DTYPE_FP32, none, NULL, 0);
    for (int round = 0; round < 3; round++) {
        struct tensor output = { 0 };
        assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
        assert_true(shape_equal(&output.shape, &none));
        tensor_release(&output);
    }
    unload(&l);
}

static void test_unwanted_outputs_stay_absent(void **state)
{
    (void)state;
    struct loaded l = load("add_sub");
    int32_t a[16];
    int32_t b[16];
    int32_t difference[16];
    for (int32_t i = 0; i < 16; i++) {
        a[i] = 100 * i;
        b[i] = i;
        difference[i] = 99 * i;
    }
    const struct shape shape = { 2, { 1, 16 } };
    const struct tensor inputs[] = { tensor_of(DTYPE_INT32, shape, a, sizeof(a)),
                                     tensor_of(DTYPE_INT32, shape, b, sizeof(b)) };
    const bool wanted[] = { false, true };
    for (int round = 0; round < 3; round++) {
        struct tensor outputs[2] = { 0 };
        struct backend_run r = {
            .rows = 1, .inputs = inputs, .outputs = outputs, .wanted = wanted
        };
        assert_int_equal(backend_run(l.context, &r, NULL), WEIR_OK);
        assert_false(outputs[0].present);
        expect_bytes(&outputs[1], shape, difference, sizeof(difference));
        tensor_release(&outputs[1]);
    }
    unload(&l);
}

/* Runs with several numbers of rows in turn, so that every guess about shapes is put to the
 * test. */
static void expect_rows(const char *name, int64_t width, uint32_t output, float factor,
                        int64_t out_rows_per_row)
{
    struct loaded l = load(name);
    static const int64_t rows[] = { 2, 2, 3, 1, 3, 7, 2 };
    float data[7 * 16];
    for (size_t i = 0; i < 7 * 16; i++) {
        data[i] = 1.0F + (float)i;
    }
    for (size_t round = 0; round < sizeof(rows) / sizeof(rows[0]); round++) {
        const struct shape shape = { 2, { rows[round], width } };
        const size_t count = (size_t)(rows[round] * width);
        float lent[7 * 16];
        memcpy(lent, data, sizeof(lent));
        const struct tensor input = tensor_of(DTYPE_FP32, shape, lent, count * sizeof(float));
        struct tensor outputs[SIDE_MAX] = { 0 };
        assert_int_equal(run(&l, &input, outputs, NULL), WEIR_OK);
        memset(lent, 0, sizeof(lent)); /* Whoever lent it has it back. */
        const struct tensor *found = &outputs[output];
        assert_int_equal(found->shape.dims[0], rows[round] * out_rows_per_row);
        assert_int_equal(found->size, (int64_t)input.size * out_rows_per_row);
        for (size_t i = 0; i < found->size / sizeof(float); i++) {
            float value;
            memcpy(&value, found->data + i * sizeof(value), sizeof(value));
            assert_true(value == data[i % count] * factor);
        }
        for (uint32_t i = 0; i < l.signature->output_count; i++) {
            tensor_release(&outputs[i]);
        }
    }
    unload(&l);
}

static void test_outputs_are_right_whatever_their_shape(void **state)
{
    (void)state;
    expect_rows("identity_fp32", 16, 0, 1, 1);
    expect_rows("unnamed_batch", 16, 0, 1, 1);
    expect_rows("double_it", 4, 0, 2, 1);
    expect_rows("overridable", 4, 0, 3, 1);
    expect_rows("constant_output", 4, 0, -1, 1);
    expect_rows("input_is_output", 4, 0, 1, 1); /* The runtime writes no memory of ours. */
    expect_rows("input_is_output", 4, 1, -1, 1);
    expect_rows("lying_names", 2, 0, 1, 2); /* Twice the rows that the signature suggests. */
}

/* Every row kept is what the signature suggests; then it is not. */
static void test_a_guess_may_turn_out_wrong(void **state)
{
    (void)state;
    struct loaded l = load("select");
    static const float x[4] = { 1, 2, 3, 4 };
    static const bool keep[][2] = { { true, true },  { true, true }, { true, true },
                                    { false, true }, { true, true }, { false, false } };
    for (size_t round = 0; round < sizeof(keep) / sizeof(keep[0]); round++) {
        const struct tensor inputs[] = {
            tensor_of(DTYPE_FP32, (struct shape){ 2, { 2, 2 } }, x, sizeof(x)),
            tensor_of(DTYPE_BOOL, (struct shape){ 1, { 2 } }, keep[round], 2),
        };
        struct tensor output = { 0 };
        assert_int_equal(run(&l, inputs, &output, NULL), WEIR_OK);
        const size_t first = keep[round][0] ? 0 : 2;
        const size_t rows = (size_t)keep[round][0] + keep[round][1];
        expect_bytes(&output, (struct shape){ 2, { (int64_t)rows, 2 } }, x + first,
                     rows * 2 * sizeof(float));
        tensor_release(&output);
    }
    unload(&l);
}

static void test_data_dependent_sizes(void **state)
{
    (void)state;
    struct loaded l = load("nonzero");
    const struct shape shape = { 2, { 1, 4 } };
    for (int count = 0; count <= 4; count++) {
        float x[4] = { 0 };
        for (int i = 0; i < count; i++) {
            x[i] = 1;
        }
        const struct tensor input = tensor_of(DTYPE_FP32, shape, x, sizeof(x));
        struct tensor output = { 0 };
        assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
        assert_int_equal(output.shape.dims[1], count);
        tensor_release(&output);
    }
    unload(&l);
}

static void test_external_data_is_found(void **state)
{
    (void)state;
    struct loaded l = load("external");
    assert_int_equal(l.signature->weights_bytes, 16);
    static const float x[4] = { 1, 2, 3, 4 };
    static const float expected[4] = { 11, 22, 33, 44 };
    const struct shape shape = { 2, { 1, 4 } };
    const struct tensor input = tensor_of(DTYPE_FP32, shape, x, sizeof(x));
    struct tensor output = { 0 };
    assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
    expect_bytes(&output, shape, expected, sizeof(expected));
    tensor_release(&output);
    unload(&l);
}

static void test_outputs_outlive_the_model(void **state)
{
    (void)state;
    struct loaded l = load("unnamed_batch");
    float x[16] = { 7 };
    const struct shape shape = { 2, { 1, 16 } };
    const struct tensor input = tensor_of(DTYPE_FP32, shape, x, sizeof(x));
    struct tensor outputs[3] = { 0 };
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(run(&l, &input, &outputs[i], NULL), WEIR_OK);
    }
    unload(&l);
    for (size_t i = 0; i < 3; i++) {
        expect_bytes(&outputs[i], shape, x, sizeof(x));
        tensor_release(&outputs[i]);
    }
    assert_int_equal(block_pool_used_bytes(pool), 0);
}

/* --- Signatures ------------------------------------------------------------------------------- */

static void test_signatures_say_what_the_file_says(void **state)
{
    (void)state;
    struct loaded l = load("dynamic");
    const struct tensor_spec *x = &l.signature->inputs[0];
    assert_string_equal(x->name, "x");
    assert_true(shape_equal(&x->shape, &(struct shape){ 3, { -1, -1, -1 } }));
    assert_string_equal(x->dim_names[0], "batch");
    assert_string_equal(x->dim_names[2], "width");
    unload(&l);

    l = load("overridable");
    assert_int_equal(l.signature->input_count, 1);
    assert_int_equal(l.signature->weights_bytes, 4);
    unload(&l);
}

static void test_only_bounded_models_may_run_inline(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        bool short_lived;
    } cases[] = {
        { "identity_fp32", true }, { "add_sub", true },         { "upscale", true },
        { "loop", false },         { "fill", false },           { "expand", false },
        { "nonzero", false },      { "identity_bytes", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct loaded l = load(cases[i].model);
        assert_int_equal(l.signature->short_lived, cases[i].short_lived);
        unload(&l);
    }
}

/* --- Threads ---------------------------------------------------------------------------------- */

struct worker {
    struct backend_context *context;
    float base;
    bool right;
};

static void *run_many(void *argument)
{
    struct worker *w = argument;
    w->right = true;
    for (int round = 0; round < 500; round++) {
        float x[3 * 4];
        const int64_t rows = 1 + round % 3;
        for (size_t i = 0; i < 12; i++) {
            x[i] = w->base + (float)round + (float)i;
        }
        const struct tensor input =
            tensor_of(DTYPE_FP32, (struct shape){ 2, { rows, 4 } }, x, (size_t)rows * 16);
        struct tensor output = { 0 };
        struct backend_run r = {
            .rows = (uint64_t)rows, .inputs = &input, .outputs = &output, .wanted = all_wanted
        };
        if (backend_run(w->context, &r, NULL) != WEIR_OK || output.size != input.size) {
            w->right = false;
            return NULL;
        }
        const float *y = (const float *)(const void *)output.data;
        for (size_t i = 0; i < (size_t)rows * 4; i++) {
            w->right = w->right && y[i] == 2 * x[i];
        }
        tensor_release(&output);
    }
    return NULL;
}

static void test_contexts_share_a_session(void **state)
{
    (void)state;
    struct loaded l = load("double_it");
    struct backend_context *second = NULL;
    assert_int_equal(backend_context_create(l.model, &second, NULL), WEIR_OK);
    struct worker workers[] = { { l.context, 1000, false }, { second, 50000, false } };
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_many, &workers[i]), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_true(workers[i].right);
    }
    backend_context_destroy(second);
    unload(&l);
}

#define THREADS_MAX 64

/* This program's threads, by their ids.  Those that were joined may be among them for a moment. */
static size_t list_threads(unsigned long ids[THREADS_MAX])
{
    DIR *folder = opendir("/proc/self/task");
    assert_non_null(folder);
    size_t count = 0;
    for (struct dirent *e = readdir(folder); e != NULL && count < THREADS_MAX;
         e = readdir(folder)) {
        const unsigned long id = strtoul(e->d_name, NULL, 10);
        if (id != 0) { /* Not "." and "..". */
            ids[count++] = id;
        }
    }
    closedir(folder);
    assert_true(count < THREADS_MAX);
    return count;
}

/* How many threads there are that were not there before. */
static unsigned threads_beyond(const unsigned long before[], size_t before_count)
{
    unsigned long now[THREADS_MAX];
    const size_t now_count = list_threads(now);
    unsigned beyond = 0;
    for (size_t i = 0; i < now_count; i++) {
        bool known = false;
        for (size_t k = 0; k < before_count; k++) {
            known = known || now[i] == before[k];
        }
        beyond += !known;
    }
    return beyond;
}

static void test_threads_are_as_many_as_configured(void **state)
{
    (void)state;
    unsigned long before[THREADS_MAX];
    const size_t before_count = list_threads(before);
    const int folder_fd = open_folder("double_it");
    struct backend_load how = how_for("double_it", folder_fd);
    how.intra_threads = 3;
    struct backend_model *model = NULL;
    assert_int_equal(backend_load(backend_find("onnx"), &how, &model, NULL), WEIR_OK);
    assert_int_equal(threads_beyond(before, before_count), 2);
    backend_unload(model);
    close(folder_fd);
}

/* The smallest numbers, written so that no compiler computes them. */
static volatile float tiny = 1e-40F;
static volatile float one = 1;

static void test_denormals_are_off_in_runs_only(void **state)
{
    (void)state;
    struct loaded l = load("double_it");
    assert_true(tiny * one != 0);
    const float x[4] = { tiny, 1, 2, 3 };
    static const float expected[4] = { 0, 2, 4, 6 };
    const struct shape shape = { 2, { 1, 4 } };
    const struct tensor input = tensor_of(DTYPE_FP32, shape, x, sizeof(x));
    struct tensor output = { 0 };
    assert_int_equal(run(&l, &input, &output, NULL), WEIR_OK);
    expect_bytes(&output, shape, expected, sizeof(expected));
    assert_true(tiny * one != 0);
    tensor_release(&output);
    unload(&l);
}

static void test_the_table_of_backends(void **state)
{
    (void)state;
    assert_ptr_equal(backend_find("onnxruntime"), backend_find("onnxruntime_onnx"));
    assert_ptr_equal(backend_find("onnxruntime"), backend_find("onnx"));
    assert_string_equal(backend_ops_platform(backend_find("onnx")), "onnxruntime_onnx");
    assert_null(backend_find("tensorrt"));
    uint32_t count = 0;
    while (backend_name(count) != NULL) {
        assert_non_null(backend_find(backend_name(count)));
        count++;
    }
    assert_true(count >= 2);
    assert_non_null(strstr(backend_versions(), "ONNX Runtime"));
    assert_null(backend_warning());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_telemetry),
        cmocka_unit_test(test_every_type_comes_back_unchanged),
        cmocka_unit_test(test_strings_keep_nul_and_length),
        cmocka_unit_test(test_rank_zero_stays_rank_zero),
        cmocka_unit_test(test_a_file_may_leave_the_rank_open),
        cmocka_unit_test(test_no_rows_is_a_number_of_rows),
        cmocka_unit_test(test_unwanted_outputs_stay_absent),
        cmocka_unit_test(test_outputs_are_right_whatever_their_shape),
        cmocka_unit_test(test_a_guess_may_turn_out_wrong),
        cmocka_unit_test(test_data_dependent_sizes),
        cmocka_unit_test(test_external_data_is_found),
        cmocka_unit_test(test_outputs_outlive_the_model),
        cmocka_unit_test(test_signatures_say_what_the_file_says),
        cmocka_unit_test(test_only_bounded_models_may_run_inline),
        cmocka_unit_test(test_contexts_share_a_session),
        cmocka_unit_test(test_threads_are_as_many_as_configured),
        cmocka_unit_test(test_denormals_are_off_in_runs_only),
        cmocka_unit_test(test_the_table_of_backends),
    };
    return cmocka_run_group_tests(tests, loaded_start, loaded_stop);
}
