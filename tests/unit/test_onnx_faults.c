#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "backend/onnx.h"
#include "loaded.h"
#include "util/mem.h"

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

/* As an execution provider of a GPU words it. */
static void test_a_device_that_fails_is_lost(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        enum weir_status status;
        const char *text;
        bool fault; /* Maybe because of the input. */
    } cases[] = {
        { "CUDA failure 700: an illegal memory access was encountered", WEIR_EUNAVAILABLE,
          "CUDA failure 700: an illegal memory access was encountered", true },
        { "CUDA failure 719: unspecified launch failure", WEIR_EUNAVAILABLE, "launch failure",
          true },
        { "CUDA failure 214: uncorrectable ECC error encountered", WEIR_EUNAVAILABLE, "ECC",
          false },
        { "CUDA failure 100: no CUDA-capable device is detected", WEIR_EUNAVAILABLE, "no CUDA",
          false },
        { "CUDA failure 999: unknown error", WEIR_EUNAVAILABLE, "unknown", false },
        { "HIP failure 700: an illegal memory access was encountered", WEIR_EUNAVAILABLE, "HIP",
          true },
        { "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED", WEIR_EUNAVAILABLE, "CUBLAS", true },
        { "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED_CUDART", WEIR_EUNAVAILABLE, "CUDNN",
          true },
        { "CUDA failure 2: out of memory", WEIR_ENOMEM, "out of memory while running", false },
        { "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", WEIR_ENOMEM, "out of memory", false },
        { "CUDA failure 9: invalid configuration argument", WEIR_EINVAL, "failure 9: invalid",
          false },
        { "CUDA failure 7000: none of these", WEIR_EINVAL, "none of these", false },
        { "CUDNN failure 3: CUDNN_STATUS_BAD_PARAM", WEIR_EINVAL, "BAD_PARAM", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char message[1024];
        struct weir_err err = { 0 };
        (void)snprintf(message, sizeof(message),
                       "Non-zero status code returned while running Conv node. Name:'Conv_0' "
                       "Status Message: /onnxruntime_src/core/providers/cuda/cuda_call.cc:121 "
                       "std::conditional_t<THRW, void, Status> onnxruntime::CudaCall(ERRTYPE, "
                       "const char*) [with ERRTYPE = cudaError; bool THRW = true] %s ; GPU=0 ; "
                       "hostname=secret ; file=/src/x.cc ; line=448 ; expr=cudaStreamSync(a::b);",
                       cases[i].what);
        OrtStatus *failed = onnx_api->CreateStatus(ORT_FAIL, message);
        bool fault = !cases[i].fault;
        assert_int_equal(onnx_kernel_failed(failed, &fault, &err), cases[i].status);
        assert_int_equal(fault, cases[i].fault);
        if (strstr(err.text, cases[i].text) == NULL || strstr(err.text, "secret") != NULL) {
            fail_msg("'%s' of '%s'", err.text, cases[i].what);
        }
        expect_clean(err.text);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_runs_say_why_and_leave_the_context_usable),
        cmocka_unit_test(test_a_device_that_fails_is_lost),
        cmocka_unit_test(test_models_that_cannot_be_served_are_refused),
        cmocka_unit_test(test_bad_files_are_refused),
        cmocka_unit_test(test_files_above_the_limit_are_refused),
        cmocka_unit_test(test_a_run_can_be_stopped),
        cmocka_unit_test(test_loads_survive_any_failed_allocation),
        cmocka_unit_test(test_runs_survive_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, loaded_start, loaded_stop);
}
