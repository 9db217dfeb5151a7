/*
 * weir: the library, as a program of somebody else's would use it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/weir.h>

#include "built.h"
#include "util/mem.h"

#define CALLERS 8
#define CALLS 150
#define UNDER_WAY 20
#define SECOND_NS UINT64_C(1000000000)

static const int64_t one_row[2] = { 1, 16 };

static const char *models_folder(void)
{
    static char path[4096];
    const char *data = getenv("WEIR_TEST_DATA");
    (void)snprintf(path, sizeof(path), "%s/models", data == NULL ? "tests/data" : data);
    return path;
}

static struct weir *open_model(const char *repository, const char *model, uint32_t executors)
{
    struct weir *weir = NULL;
    struct weir_err err = { 0 };
    const struct weir_options options = { .repository = repository,
                                          .model = model,
                                          .executors = executors };
    if (weir_open(&options, &weir, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    return weir;
}

#define HANGS "parameters: { hang_at: 2 }\n" /* Its runs end when told to, but the load's does. */

/* A repository with one simulated model, "slow". */
struct slow {
    char root[64];
    char version[96];
    char yaml[96];
    struct weir *weir;
};

static void open_slow(struct slow *slow, const char *settings)
{
    char model[80];
    (void)snprintf(slow->root, sizeof(slow->root), "/tmp/weir-library-XXXXXX");
    assert_non_null(mkdtemp(slow->root));
    (void)snprintf(model, sizeof(model), "%s/slow", slow->root);
    (void)snprintf(slow->version, sizeof(slow->version), "%s/1", model);
    (void)snprintf(slow->yaml, sizeof(slow->yaml), "%s/model.yaml", model);
    assert_int_equal(mkdir(model, 0777), 0);
    assert_int_equal(mkdir(slow->version, 0777), 0);
    FILE *file = fopen(slow->yaml, "w");
    assert_non_null(file);
    (void)fprintf(file, "backend: sim\nmax_batch_size: 0\nbatching: off\n%s", settings);
    assert_int_equal(fclose(file), 0);
    slow->weir = open_model(slow->root, "slow", 1);
}

static void close_slow(struct slow *slow)
{
    weir_close(slow->weir);
    (void)unlink(slow->yaml);
    (void)rmdir(slow->version);
    slow->version[strlen(slow->version) - 2] = '\0'; /* Without "/1". */
    (void)rmdir(slow->version);
    assert_int_equal(rmdir(slow->root), 0);
}

/* The most urgent, so that it is taken first even where the next one has a deadline. */
static struct weir_call *start_slow(struct slow *slow, const float *row, uint64_t timeout_ns)
{
    struct weir_call *call = NULL;
    struct weir_err err = { 0 };
    const struct weir_tensor input = weir_tensor_of("x", WEIR_FP32, row, 2, one_row);
    const struct weir_call_options options = { .timeout_ns = timeout_ns,
                                               .priority = timeout_ns == 0 ? 1 : 0 };
    if (weir_start(slow->weir, "slow", &input, 1, &options, &call, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    return call;
}

static enum weir_status add_sub(struct weir *weir, int32_t first, int32_t second, int32_t *sum,
                                int32_t *difference, struct weir_err *err)
{
    int32_t a[16];
    int32_t b[16];
    for (int i = 0; i < 16; i++) {
        a[i] = first + i;
        b[i] = second;
    }
    const struct weir_tensor inputs[] = { weir_tensor_of("INPUT1", WEIR_INT32, b, 2, one_row),
                                          weir_tensor_of("INPUT0", WEIR_INT32, a, 2, one_row) };
    struct weir_result *result = NULL;
    const enum weir_status status = weir_infer(weir, "add_sub", inputs, 2, NULL, &result, err);
    if (status == WEIR_OK) {
        *sum = ((const int32_t *)weir_result_output(result, "OUTPUT0")->data)[15];
        *difference = ((const int32_t *)weir_result_output(result, "OUTPUT1")->data)[15];
    }
    weir_result_free(result);
    return status;
}

static void test_answers_are_right(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "add_sub", 0);
    struct weir_err err = { 0 };
    int32_t sum = 0;
    int32_t difference = 0;
    assert_int_equal(add_sub(weir, 100, 1, &sum, &difference, &err), WEIR_OK);
    assert_int_equal(sum, 116);
    assert_int_equal(difference, 114);
    weir_close(weir);
}

static void test_a_model_says_what_it_takes(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "add_sub", 1);
    struct weir_model *model = NULL;
    assert_int_equal(weir_model_describe(weir, "add_sub", 0, &model, NULL), WEIR_OK);
    assert_string_equal(model->name, "add_sub");
    assert_int_equal(model->version, 1);
    assert_string_equal(model->platform, "onnxruntime_onnx");
    assert_int_equal(model->input_count, 2);
    assert_string_equal(model->inputs[1].name, "INPUT1");
    assert_int_equal(model->inputs[1].dtype, WEIR_INT32);
    assert_int_equal(model->inputs[1].rank, 2);
    assert_int_equal(model->inputs[1].dims[0], -1);
    assert_int_equal(model->inputs[1].dims[1], 16);
    assert_int_equal(model->output_count, 2);
    weir_model_free(model);
    struct weir_err err = { 0 };
    assert_int_equal(weir_model_describe(weir, "nobody", 0, &model, &err), WEIR_ENOENT);
    assert_non_null(strstr(err.text, "nobody"));
    weir_close(weir);
}

/* A caller of its own numbers, and whether all answers were its own. */
struct caller {
    pthread_t thread;
    struct weir *weir;
    int32_t number;
    uint32_t right;
};

static void *call_often(void *argument)
{
    struct caller *caller = argument;
    for (int32_t i = 0; i < CALLS; i++) {
        int32_t sum = 0;
        int32_t difference = 0;
        const int32_t first = caller->number * 100000 + i;
        if (add_sub(caller->weir, first, i, &sum, &difference, NULL) == WEIR_OK) {
            caller->right += sum == first + 15 + i && difference == first + 15 - i ? 1 : 0;
        }
    }
    return NULL;
}

static void test_many_threads_get_their_own_answers(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "add_sub", 2);
    struct caller callers[CALLERS];
    for (int32_t i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .weir = weir, .number = i + 1 };
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
        assert_int_equal(callers[i].right, CALLS);
    }
    weir_close(weir);
}

static void test_several_calls_are_under_way_at_once(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "identity_fp32", 2);
    float rows[UNDER_WAY][16] = { { 0 } };
    struct weir_call *calls[UNDER_WAY] = { NULL };
    for (size_t i = 0; i < UNDER_WAY; i++) {
        rows[i][0] = (float)i;
        const struct weir_tensor input = weir_tensor_of("x", WEIR_FP32, rows[i], 2, one_row);
        assert_int_equal(weir_start(weir, "identity_fp32", &input, 1, NULL, &calls[i], NULL),
                         WEIR_OK);
    }
    for (size_t i = UNDER_WAY; i-- > 0;) {
        struct weir_result *result = NULL;
        assert_int_equal(weir_wait(calls[i], &result, NULL), WEIR_OK);
        assert_int_equal(weir_result_count(result), 1);
        assert_null(weir_result_at(result, 1));
        const struct weir_tensor *output = weir_result_at(result, 0);
        assert_int_equal(output->size, 64);
        assert_true(((const float *)output->data)[0] == (float)i);
        assert_true(weir_result_times(result).batch_rows >= 1);
        weir_result_free(result);
    }
    weir_close(weir);
}

static void test_a_waiting_call_can_be_canceled(void **state)
{
    (void)state;
    const float row[16] = { 0 };
    struct slow slow;
    struct weir_result *result = NULL;
    open_slow(&slow, HANGS);
    struct weir_call *running = start_slow(&slow, row, 0);
    struct weir_call *waiting = start_slow(&slow, row, 0);
    weir_cancel(waiting);
    assert_int_equal(weir_wait(waiting, &result, NULL), WEIR_ECANCELED);
    weir_cancel(running);
    assert_int_equal(weir_wait(running, &result, NULL), WEIR_ECANCELED);
    assert_null(result);
    close_slow(&slow);
}

static void test_a_call_that_waits_too_long_times_out(void **state)
{
    (void)state;
    const float row[16] = { 0 };
    struct slow slow;
    struct weir_result *result = NULL;
    struct weir_err err = { 0 };
    open_slow(&slow, HANGS);
    struct weir_call *running = start_slow(&slow, row, 0);
    struct weir_call *late = start_slow(&slow, row, SECOND_NS / 5);
    assert_int_equal(weir_wait(late, &result, &err), WEIR_ETIMEOUT);
    assert_true(err.text[0] != '\0');
    weir_cancel(running);
    assert_int_equal(weir_wait(running, &result, NULL), WEIR_ECANCELED);
    close_slow(&slow);
}

/* Says what is wrong, and the next call is served. */
static void assert_call_refused(struct weir *weir, const struct weir_tensor *input,
                                const struct weir_call_options *options, const char *part)
{
    struct weir_result *result = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(weir_infer(weir, "identity_fp32", input, 1, options, &result, &err),
                     WEIR_EINVAL);
    assert_null(result);
    if (strstr(err.text, part) == NULL) {
        fail_msg("'%s' says nothing about '%s'", err.text, part);
    }
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "identity_fp32", 1);
    float row[16] = { 0 };
    struct weir_tensor input = weir_tensor_of("z", WEIR_FP32, row, 2, one_row);
    assert_call_refused(weir, &input, NULL, "'z'");
    input = weir_tensor_of("x", WEIR_INT32, row, 2, one_row);
    assert_call_refused(weir, &input, NULL, "INT32");
    input = weir_tensor_of("x", WEIR_FP32, row, 2, (const int64_t[]){ 1, 15 });
    assert_call_refused(weir, &input, NULL, "[1,15]");
    input = weir_tensor_of("x", WEIR_FP32, row, 2, one_row);
    input.size = 60;
    assert_call_refused(weir, &input, NULL, "60");
    input = weir_tensor_of("x", WEIR_FP32, row, 13, one_row);
    assert_call_refused(weir, &input, NULL, "rank 13");
    input = weir_tensor_of("x", WEIR_FP32, row, 2, (const int64_t[]){ -1, 16 });
    assert_call_refused(weir, &input, NULL, "-1");
    input = weir_tensor_of("x", WEIR_FP32, row, 2, one_row);
    const char *const wanted[] = { "w" };
    const struct weir_call_options options = { .outputs = wanted, .output_count = 1 };
    assert_call_refused(weir, &input, &options, "'w'");
    const struct weir_tensor twice[] = { input, input };
    struct weir_result *result = NULL;
    assert_int_equal(weir_infer(weir, "identity_fp32", twice, 2, NULL, &result, NULL), WEIR_EINVAL);
    assert_int_equal(weir_infer(weir, "identity_fp32", NULL, 0, NULL, &result, NULL), WEIR_EINVAL);
    assert_int_equal(weir_infer(weir, "nobody", &input, 1, NULL, &result, NULL), WEIR_ENOENT);
    const struct weir_call_options second = { .version = 2 };
    assert_int_equal(weir_infer(weir, "identity_fp32", &input, 1, &second, &result, NULL),
                     WEIR_ENOENT);
    assert_int_equal(weir_infer(weir, "identity_fp32", &input, 1, NULL, &result, NULL), WEIR_OK);
    weir_result_free(result);
    weir_close(weir);
}

static void test_only_wanted_outputs_come_back(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "add_sub", 1);
    const int32_t row[16] = { 5 };
    const struct weir_tensor inputs[] = { weir_tensor_of("INPUT0", WEIR_INT32, row, 2, one_row),
                                          weir_tensor_of("INPUT1", WEIR_INT32, row, 2, one_row) };
    const char *const wanted[] = { "OUTPUT1" };
    const struct weir_call_options options = { .outputs = wanted, .output_count = 1 };
    struct weir_result *result = NULL;
    assert_int_equal(weir_infer(weir, "add_sub", inputs, 2, &options, &result, NULL), WEIR_OK);
    assert_int_equal(weir_result_count(result), 1);
    assert_string_equal(weir_result_at(result, 0)->name, "OUTPUT1");
    assert_null(weir_result_output(result, "OUTPUT0"));
    weir_result_free(result);
    weir_close(weir);
}

static void test_texts_may_hold_anything(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "identity_bytes", 1);
    static const char texts[] = "\3\0\0\0a\0b\0\0\0\0\1\0\0\0\xff\2\0\0\0yz";
    struct weir_tensor input = weir_tensor_of("x", WEIR_BYTES, texts, 2, (const int64_t[]){ 1, 4 });
    input.size = sizeof(texts) - 1;
    struct weir_result *result = NULL;
    assert_int_equal(weir_infer(weir, "identity_bytes", &input, 1, NULL, &result, NULL), WEIR_OK);
    const struct weir_tensor *output = weir_result_at(result, 0);
    assert_int_equal(output->dtype, WEIR_BYTES);
    assert_int_equal(output->size, input.size);
    assert_memory_equal(output->data, texts, input.size);
    weir_result_free(result);
    input.size--; /* The last text is cut. */
    assert_int_equal(weir_infer(weir, "identity_bytes", &input, 1, NULL, &result, NULL),
                     WEIR_EINVAL);
    weir_close(weir);
}

static void test_a_folder_or_model_that_does_not_open_says_why(void **state)
{
    (void)state;
    struct weir *weir = NULL;
    struct weir_err err = { 0 };
    struct weir_options options = { .repository = NULL };
    assert_int_equal(weir_open(&options, &weir, &err), WEIR_EINVAL);
    options.repository = "/no/such/folder";
    assert_int_equal(weir_open(&options, &weir, &err), WEIR_EIO);
    assert_non_null(strstr(err.text, "/no/such/folder"));
    options.repository = models_folder();
    options.model = "nobody";
    assert_int_equal(weir_open(&options, &weir, &err), WEIR_ENOENT);
    options.model = "takes_sequence";
    assert_int_equal(weir_open(&options, &weir, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "is a sequence"));
    assert_null(weir);
}

static void test_a_broken_model_leaves_the_others_alone(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), NULL, 1);
    struct weir_err err = { 0 };
    struct weir_model *model = NULL;
    int32_t sum = 0;
    int32_t difference = 0;
    assert_int_equal(add_sub(weir, 1, 2, &sum, &difference, &err), WEIR_OK);
    assert_int_equal(weir_model_describe(weir, "takes_sequence", 0, &model, &err),
                     WEIR_EUNAVAILABLE);
    assert_non_null(strstr(err.text, "is a sequence"));
    weir_close(weir);
}

/* Whichever allocation of a call fails: it says so, nothing leaks, and the next call is served. */
static void test_memory_may_run_out_in_a_call(void **state)
{
    (void)state;
    struct weir *weir = open_model(models_folder(), "add_sub", 1);
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; nth < 100 && status != WEIR_OK; nth++) {
        struct weir_err err = { 0 };
        int32_t sum = 0;
        int32_t difference = 0;
        (void)mem_fault_arm(nth);
        status = add_sub(weir, 7, 3, &sum, &difference, &err);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        assert_true(status == WEIR_OK || err.text[0] != '\0');
        assert_true(status != WEIR_OK || sum == 25);
        assert_int_equal(add_sub(weir, 7, 3, &sum, &difference, &err), WEIR_OK);
    }
    assert_int_equal(status, WEIR_OK);
    weir_close(weir);
}

/* The same while a folder is opened: it fails whole, or all is there. */
static void test_memory_may_run_out_while_opening(void **state)
{
    (void)state;
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; nth < 2000 && status != WEIR_OK; nth++) {
        struct weir *weir = NULL;
        struct weir_err err = { 0 };
        const struct weir_options options = { .repository = models_folder(),
                                              .model = "scalar",
                                              .executors = 1 };
        (void)mem_fault_arm(nth);
        status = weir_open(&options, &weir, &err);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || err.text[0] != '\0');
        assert_true((status == WEIR_OK) == (weir != NULL));
        weir_close(weir);
    }
    assert_int_equal(status, WEIR_OK);
}

static void test_sizes_are_computed(void **state)
{
    (void)state;
    const int64_t dims[] = { 3, 5 };
    assert_int_equal(weir_tensor_of("x", WEIR_FP64, NULL, 2, dims).size, 120);
    assert_int_equal(weir_tensor_of("x", WEIR_FP16, NULL, 0, dims).size, 2);
    assert_int_equal(weir_tensor_of("x", WEIR_BYTES, NULL, 2, dims).size, 0);
    const int64_t huge[] = { INT64_MAX, INT64_MAX };
    assert_int_equal(weir_tensor_of("x", WEIR_FP64, NULL, 2, huge).size, 0);
    assert_string_equal(weir_dtype_text(WEIR_BF16), "BF16");
    assert_string_equal(weir_dtype_text((enum weir_dtype)99), "unknown");
    assert_string_equal(weir_version(), WEIR_VERSION);
}

/* Closing waits for it as long as its load_limit says, and no longer. */
static void test_an_unload_that_hangs_is_left_alone(void **state)
{
    (void)state;
    struct slow slow;
    open_slow(&slow, "load_limit: 1s\nparameters: { unload: 1h }\n");
    assert_false(weir_left_threads());
    close_slow(&slow);
    assert_true(weir_left_threads());
}

static enum weir_status open_at(const char *root, const char *device, const char *plugin,
                                struct weir **out, struct weir_err *err)
{
    const struct weir_options options = { .repository = root,
                                          .model = "twice",
                                          .executors = 1,
                                          .devices = &device,
                                          .device_count = device != NULL,
                                          .plugins = &plugin,
                                          .plugin_count = plugin != NULL };
    return weir_open(&options, out, err);
}

static float twice(struct weir *weir, float x)
{
    struct weir_result *result = NULL;
    struct weir_err err = { 0 };
    const struct weir_tensor input =
        weir_tensor_of("x", WEIR_FP32, &x, 2, (const int64_t[]){ 1, 1 });
    if (weir_infer(weir, "twice", &input, 1, NULL, &result, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    const float y = *(const float *)weir_result_output(result, "y")->data;
    weir_result_free(result);
    return y;
}

static void put_file(const char *root, const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void test_a_program_brings_devices_and_plugins(void **state)
{
    (void)state;
    char root[] = "/tmp/weir-library-XXXXXX";
    char path[128];
    char hello[512];
    struct weir *weir = NULL;
    struct weir *other = NULL;
    struct weir_err err = { 0 };
    built_path("plugins/hello.so", hello, sizeof(hello));
    assert_non_null(mkdtemp(root));
    (void)snprintf(path, sizeof(path), "%s/twice", root);
    assert_int_equal(mkdir(path, 0777), 0);
    (void)snprintf(path, sizeof(path), "%s/twice/1", root);
    assert_int_equal(mkdir(path, 0777), 0);
    put_file(root, "twice/model.yaml", "backend: hello\ndevice: npu\n");
    put_file(root, "twice/1/factor.txt", "2\n");

    assert_int_equal(open_at(root, "npu:1", NULL, &weir, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "hello"));
    assert_int_equal(open_at(root, "npu", hello, &weir, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "expected NAME:RUNS"));
    assert_int_equal(open_at(root, NULL, hello, &weir, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "npu"));
    assert_int_equal(open_at(root, "npu:1", "/no/such.so", &weir, &err), WEIR_ENOENT);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(open_at(root, "npu:1", hello, &weir, &err), WEIR_OK);
        assert_int_equal(open_at(root, "npu:1", hello, &other, &err), WEIR_OK);
        assert_true(twice(other, 1.5F) == 3);
        weir_close(other);
        assert_true(twice(weir, 2) == 4);
        assert_int_equal(open_at(root, "npu:1", "/no/such.so", &other, &err), WEIR_ECONFLICT);
        weir_close(weir);
    }
    static const char *const made[] = { "twice/1/factor.txt", "twice/model.yaml", "twice/1",
                                        "twice", "" };
    for (size_t i = 0; i < sizeof(made) / sizeof(*made); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", root, made[i]);
        assert_int_equal(remove(path), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_right),
        cmocka_unit_test(test_a_model_says_what_it_takes),
        cmocka_unit_test(test_many_threads_get_their_own_answers),
        cmocka_unit_test(test_several_calls_are_under_way_at_once),
        cmocka_unit_test(test_a_waiting_call_can_be_canceled),
        cmocka_unit_test(test_a_call_that_waits_too_long_times_out),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_only_wanted_outputs_come_back),
        cmocka_unit_test(test_texts_may_hold_anything),
        cmocka_unit_test(test_a_folder_or_model_that_does_not_open_says_why),
        cmocka_unit_test(test_a_broken_model_leaves_the_others_alone),
        cmocka_unit_test(test_memory_may_run_out_in_a_call),
        cmocka_unit_test(test_memory_may_run_out_while_opening),
        cmocka_unit_test(test_sizes_are_computed),
        cmocka_unit_test(test_a_program_brings_devices_and_plugins),
        cmocka_unit_test(test_an_unload_that_hangs_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
