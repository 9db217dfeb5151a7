/*
 * lifecycle: what a load decides about a model: batching by proof, warm-up, labels, and its
 * configuration checked against what it is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "model_bed.h"

static struct model_bed bed;

static void test_batching_is_proved(void **state)
{
    (void)state;
    model_bed_sim(&bed, "mixes", 1, "  mixes_rows: true\n");
    model_bed_sim(&bed, "insists", 1, "  mixes_rows: true\nbatching: insist\n");
    model_bed_sim(&bed, "off", 1, "batching: off\n");
    model_bed_sim(&bed, "plain", 1, "");
    model_bed_sim(&bed, "cannot", 1, "  fail_above_rows: 1\n");
    model_bed_sim(&bed, "fixed", 1, "  inputs: \"x:FP32[4]\"\n  outputs: \"y:FP32[4]\"\n");
    model_bed_start_all(&bed);
    static const struct {
        const char *name;
        bool on;
        const char *reason;
    } rows[] = {
        { "mixes", false, "rows are not independent: output 'y'" },
        { "insists", true, NULL },
        { "off", false, "batching is off in the configuration" },
        { "plain", true, NULL },
        { "cannot", false, "could not be proved: " },
        { "fixed", false, "input 'x' has no variable leading dimension" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct model *model = model_bed_lease(&bed, rows[i].name, 0);
        assert_int_equal(model->batching, rows[i].on);
        if (rows[i].reason == NULL) {
            assert_null(model->batching_reason);
        } else if (strstr(model->batching_reason, rows[i].reason) == NULL) {
            fail_msg("%s: %s", rows[i].name, model->batching_reason);
        }
        model_bed_release(&bed, model);
    }
    model_bed_expect(&bed, "mixes/1 READY", "batching is off: rows are not independent");
}

static void test_warm_up_must_succeed(void **state)
{
    (void)state;
    static const char warmup[] = "model_warmup:\n"
                                 "  - name: one\n"
                                 "    batch_size: 2\n"
                                 "    inputs: { x: { data_type: TYPE_FP32, dims: [16], %s } }\n";
    char text[512];
    (void)snprintf(text, sizeof(text), warmup, "input_data_file: row");
    model_bed_sim(&bed, "file", 1, text);
    char row[65] = "";
    memset(row, 'r', 64);
    model_bed_put(&bed, 0, "file/warmup/row", row);
    model_bed_sim(&bed, "short", 1, text);
    model_bed_put(&bed, 0, "short/warmup/row", "r");
    (void)snprintf(text, sizeof(text), warmup, "random_data: true");
    model_bed_sim(&bed, "random", 1, text);
    char fails[600];
    (void)snprintf(fails, sizeof(fails), "  fail_above_rows: 1\nbatching: off\n%s", text);
    model_bed_sim(&bed, "fails", 1, fails);
    model_bed_sim(&bed, "canary", 1, "  fail_at: 1\nbatching: off\n");
    model_bed_start_all(&bed);
    model_bed_expect(&bed, "file/1 READY", "");
    model_bed_expect(&bed, "random/1 READY", "");
    model_bed_expect(&bed, "canary/1 READY", "");
    model_bed_expect(&bed, "short/1 UNAVAILABLE",
                     "model_warmup 'one': input 'x': its file has 1 bytes, "
                     "expected 64");
    model_bed_expect(&bed, "fails/1 UNAVAILABLE", "model_warmup 'one'");
}

static void test_configuration_is_checked_against_the_model(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        { "dtype", "input: [{ name: x, data_type: TYPE_INT32 }]\n",
          "the configuration expects datatype INT32 for input 'x', the model provides FP32" },
        { "name", "input: [{ name: z }]\n",
          "unexpected inference input 'z', allowed inputs are: x" },
        { "dims", "max_batch_size: 4\noutput: [{ name: y, dims: [8] }]\n",
          "output 'y': the model expects dims [16] but the configuration says [8]" },
        { "rank", "max_batch_size: 4\ninput: [{ name: x, dims: [4, 4] }]\n",
          "input 'x': the model has 2 dimensions (shape [-1,16]) but the configuration gives 2" },
        { "preferred", "max_batch_size: 4\ndynamic_batching: { preferred_batch_size: [8] }\n",
          "preferred size must be <= max batch size" },
        { "fixed",
          "max_batch_size: 4\nparameters: { inputs: \"x:FP32[1,16]\", outputs: "
          "\"y:FP32[1,16]\" }\n",
          "the first dimension must be -1; but shape expected by the model is [1,16]" },
        { "backend", "platform: nobodys_plan\n", "there is no backend 'nobodys_plan'" },
        { "platform", "platform: tensorrt_plan\n", "tensorrt_plan" },
        { "device", "device: gpu\n", "device 'gpu' is not configured" },
        { "labels", "output: [{ name: y, label_filename: none.txt }]\n",
          "label_filename of output 'y': none.txt" },
        { "escape", "output: [{ name: y, label_filename: ../../secret }]\n",
          "label_filename of output 'y'" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[64];
        char text[512];
        (void)snprintf(path, sizeof(path), "%s/1/", rows[i][0]);
        model_bed_put(&bed, 0, path, "");
        (void)snprintf(path, sizeof(path), "%s/model.yaml", rows[i][0]);
        (void)snprintf(text, sizeof(text), "%s%s",
                       strcmp(rows[i][0], "backend") == 0 ? "" : "backend: sim\n", rows[i][1]);
        model_bed_put(&bed, 0, path, text);
    }
    model_bed_start_all(&bed);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        model_bed_expect(&bed, rows[i][0], rows[i][2]);
    }
}

static void test_labels_are_read(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "output: [{ name: y, label_filename: labels.txt }]\n");
    model_bed_put(&bed, 0, "a/labels.txt", "cat\r\ndog\n\nfish");
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "a", 0);
    const struct io_config *output = model_output_config(model, "y");
    assert_int_equal(output->label_count, 4);
    assert_string_equal(output->labels[0], "cat");
    assert_string_equal(output->labels[1], "dog");
    assert_string_equal(output->labels[2], "");
    assert_string_equal(output->labels[3], "fish");
    model_bed_release(&bed, model);
}

static void test_real_models_are_judged(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool batching;
        const char *reason;
    } rows[] = {
        { "add_sub", true, NULL },
        { "double_it", true, NULL },
        { "identity_bytes", true, NULL },
        { "identity_fp16", true, NULL },
        { "identity_int64", true, NULL },
        { "center", false, "rows are not independent" },
        { "fixed", false, "no variable leading dimension" },
        { "scalar", false, "no variable leading dimension" },
    };
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/models", getenv("WEIR_TEST_DATA"));
    const char *const root = path;
    bed.options.roots = &root;
    model_bed_start_all(&bed);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct model *model = model_bed_lease(&bed, rows[i].name, 0);
        const char *reason = model->batching_reason == NULL ? "" : model->batching_reason;
        if (model->batching != rows[i].batching ||
            (rows[i].reason != NULL && strstr(reason, rows[i].reason) == NULL)) {
            fail_msg("%s: batching %s: %s", rows[i].name, model->batching ? "on" : "off", reason);
        }
        model_bed_release(&bed, model);
    }
    assert_int_equal(model_bed_infer(&bed, "double_it", 0), WEIR_OK);
}

int main(void)
{
#define CASE(test) MODEL_BED_TEST(test, &bed)
    const struct CMUnitTest tests[] = {
        CASE(test_batching_is_proved),
        CASE(test_warm_up_must_succeed),
        CASE(test_configuration_is_checked_against_the_model),
        CASE(test_labels_are_read),
        CASE(test_real_models_are_judged),
    };
    backend_start();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_stop();
    return failed;
}
