#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"
#include "util/mem.h"

#define SIDE_MAX 4

/* One loaded model with one context. */
struct loaded {
    struct backend_model *model;
    struct backend_context *context;
    const struct signature *signature;
};

static struct clock real_clock;
static struct block_pool *pool;

static int open_folder(const char *name)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/models/%s/1", getenv("WEIR_TEST_DATA"), name);
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static struct backend_load how_for(const char *name, int folder_fd)
{
    return (struct backend_load){
        .model_name = name,
        .version = 1,
        .folder_fd = folder_fd,
        .intra_threads = 1,
        .contexts_max = 1,
        .file_bytes_max = 1 << 30,
        .clock = &real_clock,
        .blocks = pool,
    };
}

static enum weir_status try_load(const char *name, struct backend_model **out, struct weir_err *err)
{
    const int folder_fd = open_folder(name);
    const struct backend_load how = how_for(name, folder_fd);
    const enum weir_status status = backend_load(backend_find("onnxruntime"), &how, out, err);
    close(folder_fd);
    return status;
}

static struct loaded load(const char *name)
{
    struct loaded l = { 0 };
    struct weir_err err = { 0 };
    if (try_load(name, &l.model, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(backend_context_create(l.model, &l.context, &err), WEIR_OK);
    l.signature = backend_signature(l.model);
    return l;
}

static void unload(struct loaded *l)
{
    backend_context_destroy(l->context);
    backend_unload(l->model);
}

static struct tensor tensor_of(enum dtype dtype, struct shape shape, const void *data, size_t size)
{
    return (struct tensor){
        .dtype = dtype,
        .shape = shape,
        .data = (uint8_t *)(uintptr_t)data,
        .size = size,
        .present = true,
    };
}

static const bool all_wanted[SIDE_MAX] = { true, true, true, true };

static enum weir_status run(struct loaded *l, const struct tensor *inputs, struct tensor *outputs,
                            struct weir_err *err)
{
    struct backend_run r = {
        .rows = 1,
        .inputs = inputs,
        .outputs = outputs,
        .wanted = all_wanted,
    };
    return backend_run(l->context, &r, err);
}

static void expect_bytes(const struct tensor *tensor, struct shape shape, const void *data,
                         size_t size)
{
    assert_true(tensor->present);
    assert_non_null(tensor->block);
    assert_true(shape_equal(&tensor->shape, &shape));
    assert_int_equal(tensor->size, size);
    assert_memory_equal(tensor->data, data, size);
}

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

static void test_no_telemetry(void **state)
{
    (void)state;
    char home[] = "/tmp/weir-test-XXXXXX";
    assert_non_null(mkdtemp(home));
    static const char *const variables[] = { "HOME", "TMPDIR", "XDG_CACHE_HOME" };
    for (size_t i = 0; i < 3; i++) {
        setenv(variables[i], home, 1);
    }
    const unsigned threads = count_entries("/proc/self/task");
    struct loaded l = load("identity_fp32");
    assert_int_equal(count_entries("/proc/self/task"), threads);
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
        struct backend_run r = { 1, inputs, outputs, wanted, NULL, 0 };
        assert_int_equal(backend_run(l.context, &r, NULL), WEIR_OK);
        assert_false(outputs[0].present);
        expect_bytes(&outputs[1], shape, difference, sizeof(difference));
        tensor_release(&outputs[1]);
    }
    unload(&l);
}

/* Runs with several numbers of rows in turn, so that every guess about shapes is put to the test. */
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
        const struct tensor input = tensor_of(DTYPE_FP32, shape, data, count * sizeof(float));
        struct tensor outputs[SIDE_MAX] = { 0 };
        assert_int_equal(run(&l, &input, outputs, NULL), WEIR_OK);
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
        { "identity_fp32", true }, { "add_sub", true }, { "upscale", true },  { "loop", false },
        { "fill", false },         { "expand", false }, { "nonzero", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct loaded l = load(cases[i].model);
        assert_int_equal(l.signature->short_lived, cases[i].short_lived);
        unload(&l);
    }
}

/* --- Failures --------------------------------------------------------------------------------- */

struct bad_run {
    const char *model;
    enum dtype dtype;
    struct shape shape;
    int64_t value; /* Of every element of every input. */
    enum weir_status status;
    const char *part;
};

static void fill_with(void *data, enum dtype dtype, size_t count, int64_t value)
{
    for (size_t i = 0; i < count; i++) {
        if (dtype == DTYPE_INT64) {
            ((int64_t *)data)[i] = value;
        } else if (dtype == DTYPE_INT32) {
            ((int32_t *)data)[i] = (int32_t)value;
        } else {
            ((float *)data)[i] = (float)value;
        }
    }
}

/* Sanitizers end the process where `new` runs out of memory. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NEW_CAN_FAIL false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NEW_CAN_FAIL false
#endif
#endif
#ifndef NEW_CAN_FAIL
#define NEW_CAN_FAIL true
#endif

/* What a client must not read: source places, paths, names of C++. */
static void expect_clean(const char *text)
{
    static const char *const parts[] = { ".cc", "onnxruntime", "::", "/", "\n", "Status Message" };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (strstr(text, parts[i]) != NULL) {
            fail_msg("'%s' has '%s'", text, parts[i]);
        }
    }
}

static void test_failed_runs_say_why_and_leave_the_context_usable(void **state)
{
    (void)state;
    static const struct bad_run cases[] = {
        { "gather", DTYPE_INT64, { 1, { 2 } }, 99, WEIR_EINVAL, "idx=99" },
        { "gather", DTYPE_INT64, { 1, { 2 } }, INT64_MIN, WEIR_EINVAL, "Gather" },
        { "div", DTYPE_INT32, { 1, { 2 } }, 0, WEIR_EINVAL, "ivision by zero" },
        { "fill", DTYPE_INT64, { 1, { 1 } }, 1000000000000, WEIR_ENOMEM, "out of memory" },
        { "fill", DTYPE_INT64, { 1, { 1 } }, INT64_MAX, WEIR_EINVAL, "overflow" },
        { "expand", DTYPE_INT64, { 1, { 1 } }, 100000000000000, WEIR_ENOMEM, "out of memory" },
        { "expand", DTYPE_INT64, { 1, { 1 } }, -5, WEIR_EINVAL, "Expand" },
        { "identity_fp32", DTYPE_FP32, { 2, { 1, 15 } }, 0, WEIR_EINVAL, "Expected: 16" },
        { "identity_fp32", DTYPE_FP32, { 3, { 1, 16, 1 } }, 0, WEIR_EINVAL, "rank" },
    };
    int64_t data[32];
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        if (cases[c].status == WEIR_ENOMEM && !NEW_CAN_FAIL) {
            continue;
        }
        struct loaded l = load(cases[c].model);
        uint64_t count;
        size_t size;
        assert_int_equal(shape_elements(&cases[c].shape, &count, NULL), WEIR_OK);
        assert_int_equal(tensor_bytes(cases[c].dtype, &cases[c].shape, &size, NULL), WEIR_OK);
        struct tensor inputs[2];
        for (int round = 0; round < 4; round++) {
            /* In between good runs, which prove what may then be guessed. */
            const bool good = round % 2 == 0 && strcmp(cases[c].model, "identity_fp32") != 0;
            fill_with(data, cases[c].dtype, count, good ? 1 : cases[c].value);
            inputs[0] = tensor_of(cases[c].dtype, cases[c].shape, data, size);
            inputs[1] = inputs[0];
            struct tensor outputs[SIDE_MAX] = { 0 };
            struct weir_err err = { 0 };
            const enum weir_status status = run(&l, inputs, outputs, &err);
            assert_int_equal(status, good ? WEIR_OK : cases[c].status);
            assert_int_equal(outputs[0].present, good);
            if (!good) {
                if (strstr(err.text, cases[c].part) == NULL) {
                    fail_msg("%s: '%s' lacks '%s'", cases[c].model, err.text, cases[c].part);
                }
                expect_clean(err.text);
            }
            tensor_release(&outputs[0]);
        }
        unload(&l);
    }
}

static void test_models_that_cannot_be_served_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "takes_sequence",
          "model 'takes_sequence' version 1, model.onnx: input 'list' is a sequence" },
        { "gives_optional", "output 'maybe' is an optional" },
        { "float8", "input 'x' has elements of type FLOAT8E4M3FN" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct backend_model *model = NULL;
        struct weir_err err = { 0 };
        assert_int_equal(try_load(cases[i][0], &model, &err), WEIR_EINVAL);
        assert_null(model);
        assert_non_null(strstr(err.text, cases[i][1]));
    }
}

static void test_bad_files_are_refused(void **state)
{
    (void)state;
    char path[1024];
    snprintf(path, sizeof(path), "%s/hostile", getenv("WEIR_TEST_DATA"));
    const int folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(folder_fd >= 0);
    static const char *const files[] = { "text.onnx", "truncated.onnx", "dotdot.onnx",
                                         "marker.onnx", "deep.onnx" };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct backend_load how = how_for("bad", folder_fd);
        how.file_name = files[i];
        struct backend_model *model = NULL;
        struct weir_err err = { 0 };
        assert_int_equal(backend_load(backend_find("onnx"), &how, &model, &err), WEIR_EINVAL);
        assert_non_null(strstr(err.text, files[i]));
    }
    struct backend_load how = how_for("bad", folder_fd);
    how.file_name = "none.onnx";
    struct backend_model *model = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(backend_load(backend_find("onnx"), &how, &model, &err), WEIR_ENOENT);
    assert_non_null(strstr(err.text, "none.onnx"));
    close(folder_fd);
}

static void test_files_above_the_limit_are_refused(void **state)
{
    (void)state;
    const int folder_fd = open_folder("identity_fp32");
    struct backend_load how = how_for("identity_fp32", folder_fd);
    how.file_bytes_max = 10;
    struct backend_model *model = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(backend_load(backend_find("onnx"), &how, &model, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "the limit is 10"));
    close(folder_fd);
}

/* --- Stopping --------------------------------------------------------------------------------- */

struct long_run {
    struct loaded l;
    _Atomic bool started;
    enum weir_status status;
    struct weir_err err;
};

static void *run_for_ever(void *argument)
{
    struct long_run *r = argument;
    const int64_t count = INT64_C(1) << 40;
    const struct tensor input = tensor_of(DTYPE_INT64, (struct shape){ 0 }, &count, sizeof(count));
    struct tensor output = { 0 };
    r->started = true;
    r->status = run(&r->l, &input, &output, &r->err);
    return NULL;
}

static void test_a_run_can_be_stopped(void **state)
{
    (void)state;
    struct long_run r = { .l = load("loop") };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_for_ever, &r), 0);
    while (!r.started) {
        sched_yield();
    }
    backend_terminate(r.l.context);
    pthread_join(thread, NULL);
    assert_int_equal(r.status, WEIR_ECANCELED);

    /* Still stopped until it is armed again. */
    const int64_t count = 3;
    const int64_t expected = 0 + 1 + 2;
    const struct tensor input = tensor_of(DTYPE_INT64, (struct shape){ 0 }, &count, sizeof(count));
    struct tensor output = { 0 };
    assert_int_equal(run(&r.l, &input, &output, NULL), WEIR_ECANCELED);
    assert_false(output.present);
    backend_rearm(r.l.context);
    assert_int_equal(run(&r.l, &input, &output, NULL), WEIR_OK);
    expect_bytes(&output, (struct shape){ 0 }, &expected, sizeof(expected));
    tensor_release(&output);
    unload(&r.l);
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
        struct backend_run r = { (uint64_t)rows, &input, &output, all_wanted, NULL, 0 };
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

static void test_threads_are_as_many_as_configured(void **state)
{
    (void)state;
    const unsigned before = count_entries("/proc/self/task");
    const int folder_fd = open_folder("double_it");
    struct backend_load how = how_for("double_it", folder_fd);
    how.intra_threads = 3;
    struct backend_model *model = NULL;
    assert_int_equal(backend_load(backend_find("onnx"), &how, &model, NULL), WEIR_OK);
    assert_int_equal(count_entries("/proc/self/task"), before + 2);
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

/* --- Memory ----------------------------------------------------------------------------------- */

static void test_loads_survive_any_failed_allocation(void **state)
{
    (void)state;
#ifdef WEIR_ALLOC_FAULT
    static const char *const models[] = { "add_sub", "external", "constant_output" };
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        enum weir_status status = WEIR_ENOMEM;
        for (uint64_t nth = 1; status != WEIR_OK; nth++) {
            struct loaded l = { 0 };
            mem_fault_arm(nth);
            status = try_load(models[i], &l.model, NULL);
            if (status == WEIR_OK) {
                status = backend_context_create(l.model, &l.context, NULL);
                backend_context_destroy(l.context);
                backend_unload(l.model);
            }
            mem_fault_arm(0);
            assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
            assert_true(nth < 1000);
        }
    }
#else
    skip();
#endif
}

static void test_runs_survive_any_failed_allocation(void **state)
{
    (void)state;
#ifdef WEIR_ALLOC_FAULT
    static const char wire[] = "\1\0\0\0a\1\0\0\0b\1\0\0\0c\1\0\0\0d";
    const struct tensor text =
        tensor_of(DTYPE_BYTES, (struct shape){ 2, { 1, 4 } }, wire, sizeof(wire) - 1);
    const float x[4] = { 1, 2, 3, 4 };
    const struct tensor numbers =
        tensor_of(DTYPE_FP32, (struct shape){ 2, { 1, 4 } }, x, sizeof(x));
    static const char *const models[] = { "identity_bytes", "double_it", "nonzero" };
    for (size_t i = 0; i < 3; i++) {
        struct loaded l = load(models[i]);
        enum weir_status status = WEIR_ENOMEM;
        for (uint64_t nth = 1; status != WEIR_OK; nth++) {
            struct tensor output = { 0 };
            mem_fault_arm(nth);
            status = run(&l, i == 0 ? &text : &numbers, &output, NULL);
            mem_fault_arm(0);
            assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
            assert_int_equal(output.present, status == WEIR_OK);
            tensor_release(&output);
            assert_true(nth < 100);
        }
        unload(&l);
    }
    assert_int_equal(block_pool_used_bytes(pool), 0);
#else
    skip();
#endif
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

static int set_up(void **state)
{
    (void)state;
    backend_start();
    clock_init(&real_clock);
    pool = block_pool_create(1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backend_stop();
    block_pool_destroy(pool); /* Asserts that every block is back. */
    return 0;
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
        cmocka_unit_test(test_failed_runs_say_why_and_leave_the_context_usable),
        cmocka_unit_test(test_models_that_cannot_be_served_are_refused),
        cmocka_unit_test(test_bad_files_are_refused),
        cmocka_unit_test(test_files_above_the_limit_are_refused),
        cmocka_unit_test(test_a_run_can_be_stopped),
        cmocka_unit_test(test_contexts_share_a_session),
        cmocka_unit_test(test_threads_are_as_many_as_configured),
        cmocka_unit_test(test_denormals_are_off_in_runs_only),
        cmocka_unit_test(test_loads_survive_any_failed_allocation),
        cmocka_unit_test(test_runs_survive_any_failed_allocation),
        cmocka_unit_test(test_the_table_of_backends),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
