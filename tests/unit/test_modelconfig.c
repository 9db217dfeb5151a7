/*
 * modelconfig: every setting is read, every mistake is named with its line, and what /config prints
 * can be read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/backend.h"
#include "engine/effective.h"
#include "server/modelconfig.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/mem.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static const char full[] = "name: m\n"
                           "backend: sim\n"
                           "max_batch_size: 16\n"
                           "input:\n"
                           "  - { name: x, data_type: TYPE_FP32, dims: [16] }\n"
                           "output:\n"
                           "  - name: y\n"
                           "    data_type: fp32\n"
                           "    dims: [-1]\n"
                           "    label_filename: labels.txt\n"
                           "dynamic_batching:\n"
                           "  preferred_batch_size: [8, 4]\n"
                           "  max_queue_delay_microseconds: 250\n"
                           "  priority_levels: 3\n"
                           "  default_priority_level: 2\n"
                           "  default_queue_policy:\n"
                           "    timeout_action: REJECT\n"
                           "    default_timeout_microseconds: 1000\n"
                           "    allow_timeout_override: true\n"
                           "    max_queue_size: 9\n"
                           "instance_group: [{ count: 2, kind: KIND_CPU }, { name: b }]\n"
                           "version_policy: { specific: { versions: [3, 1] } }\n"
                           "model_warmup:\n"
                           "  - name: w\n"
                           "    batch_size: 2\n"
                           "    count: 3\n"
                           "    inputs:\n"
                           "      x: { data_type: TYPE_FP32, dims: [16], random_data: true }\n"
                           "parameters:\n"
                           "  tau0: 1ms\n"
                           "  seed: { string_value: \"7\" }\n"
                           "default_model_filename: other.onnx\n"
                           "batching: insist\n"
                           "device: cpu\n"
                           "intra_threads: 2\n";

static struct tensor_spec inputs[] = {
    { .name = "x", .dtype = DTYPE_FP32, .shape = { 2, { -1, 16 } } },
};
static struct tensor_spec outputs[] = {
    { .name = "y", .dtype = DTYPE_FP32, .shape = { 2, { -1, -1 } } },
};
static const struct signature signature = {
    .inputs = inputs,
    .input_count = 1,
    .outputs = outputs,
    .output_count = 1,
};

static struct model_config *parse(const char *text, bool loose, struct weir_err *err)
{
    struct model_config *config = effective_create();
    assert_non_null(config);
    if (modelconfig_parse(config, "m", "model.yaml", bytes_of(text), loose, err) == WEIR_OK) {
        return config;
    }
    config->release(config);
    return NULL;
}

/* Each row's first text is refused in words that have the second. */
static void expect_refusals(const char *const rows[][2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct weir_err err = { 0 };
        assert_null(parse(rows[i][0], false, &err));
        assert_int_equal(err.status, WEIR_EINVAL);
        if (strstr(err.text, rows[i][1]) == NULL) {
            fail_msg("'%s': found '%s', expected '%s'", rows[i][0], err.text, rows[i][1]);
        }
    }
}

static void check_full(const struct model_config *config)
{
    assert_string_equal(config->backend, "sim");
    assert_int_equal(config->max_batch_size, 16);
    assert_int_equal(config->input_count, 1);
    assert_string_equal(config->inputs[0].name, "x");
    assert_true(config->inputs[0].has_dtype && config->inputs[0].has_dims);
    assert_int_equal(config->inputs[0].dims.dims[0], 16);
    assert_string_equal(config->outputs[0].label_file, "labels.txt");
    assert_int_equal(config->outputs[0].dims.dims[0], -1);
    assert_true(config->dynamic_batching);
    assert_int_equal(config->preferred_count, 2);
    assert_int_equal(config->queue_delay_ns, 250 * NS_PER_US);
    assert_int_equal(config->queue_timeout_ns, NS_PER_MS);
    assert_true(config->timeout_override);
    assert_int_equal(config->requests_max, 9);
    assert_int_equal(config->priority_levels, 3);
    assert_int_equal(config->priority_default, 2);
    assert_int_equal(config->instances, 3);
    assert_int_equal(config->policy, VERSION_SPECIFIC);
    assert_int_equal(config->policy_count, 2);
    assert_int_equal(config->policy_versions[0], 3);
    assert_int_equal(config->warmup_count, 1);
    assert_int_equal(config->warmups[0].batch_size, 2);
    assert_int_equal(config->warmups[0].count, 3);
    assert_int_equal(config->warmups[0].inputs[0].kind, WARMUP_RANDOM);
    assert_int_equal(config->setting_count, 2);
    assert_string_equal(config->settings[0].value, "1ms");
    assert_string_equal(config->settings[1].value, "7");
    assert_string_equal(config->file_name, "other.onnx");
}

static void test_every_setting_is_read(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct model_config *config = parse(full, false, &err);
    assert_string_equal(err.text, "");
    check_full(config);
    assert_int_equal(config->batching, BATCHING_INSIST);
    assert_int_equal(config->intra_threads, 2);
    config->release(config);
}

static void test_nothing_set_is_all_defaults(void **state)
{
    (void)state;
    struct model_config *config = parse("", false, NULL);
    assert_int_equal(config->max_batch_size, -1);
    assert_int_equal(config->policy, VERSION_LATEST);
    assert_int_equal(config->policy_count, 1);
    assert_int_equal(config->batching, BATCHING_AUTO);
    assert_int_equal(config->queue_timeout_ns, CLOCK_NEVER);
    assert_string_equal(config->device, "cpu");
    assert_int_equal(config->intra_threads, 1);
    config->release(config);
}

static void test_instances_in_short(void **state)
{
    (void)state;
    struct model_config *config = parse("instances: 5\n", false, NULL);
    assert_int_equal(config->instances, 5);
    config->release(config);
    config = parse("instance_group: [{ count: 3 }]\ninstances: auto\n", false, NULL);
    assert_int_equal(config->instances, 0);
    config->release(config);
}

static void test_instances_on_gpus(void **state)
{
    (void)state;
    struct model_config *config = parse("instance_group: [{ kind: KIND_GPU, gpus: [0], count: 2 },"
                                        " { kind: KIND_GPU, gpus: [1], count: 3 }]\n",
                                        false, NULL);
    assert_int_equal(config->instances, 3);
    assert_int_equal(config->instances_no_gpu, 5);
    assert_int_equal(config->gpus, 3);
    assert_null(config->remark);
    /* A second file's groups are instead of the first one's. */
    const char groups[] = "instance_group: [{ count: 4 }]\n";
    assert_int_equal(modelconfig_parse(config, "m", "model.yaml", bytes_of(groups), false, NULL),
                     WEIR_OK);
    assert_false(config->on_gpu);
    assert_int_equal(config->gpus, 0);
    assert_int_equal(config->instances, 4);
    config->release(config);
    config =
        parse("instance_group: [{ kind: KIND_CPU, count: 4 }, { kind: KIND_GPU }]\n", false, NULL);
    assert_int_equal(config->instances, 1);
    assert_int_equal(config->instances_no_gpu, 5);
    assert_non_null(strstr(config->remark, "on GPUs the groups of KIND_CPU do not count"));
    config->release(config);
    config = parse("instance_group: [{ kind: KIND_GPU, count: 4 }]\ninstances: 2\n", false, NULL);
    assert_int_equal(config->instances, 2);
    assert_int_equal(config->instances_no_gpu, 2);
    config->release(config);
}

static void test_short_forms(void **state)
{
    (void)state;
    struct model_config *config = parse("version_policy: all\nqueue_delay: 2ms\nbackend: null\n"
                                        "input: [{ name: s, data_type: TYPE_STRING, dims: [] }]\n",
                                        false, NULL);
    assert_int_equal(config->policy, VERSION_ALL);
    assert_int_equal(config->queue_delay_ns, 2 * NS_PER_MS);
    assert_null(config->backend);
    assert_int_equal(config->inputs[0].dtype, DTYPE_BYTES);
    assert_int_equal(config->inputs[0].dims.rank, 0);
    config->release(config);
}

static void test_shape_buckets(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct model_config *config =
        parse("shape_buckets: [{ input: x, dim: 1, sizes: [8, 16], pad: -1 },\n"
              "                { input: mask, dim: 2 }]",
              false, &err);
    assert_non_null(config);
    assert_int_equal(config->bucket_count, 2);
    assert_string_equal(config->buckets[0].input, "x");
    assert_int_equal(config->buckets[0].size_count, 2);
    assert_int_equal(config->buckets[0].sizes[1], 16);
    assert_true(config->buckets[0].pad == -1);
    assert_string_equal(config->buckets[1].input, "mask");
    assert_int_equal(config->buckets[1].dim, 2);
    effective_release(config);
    config = parse("shape_buckets: { input: x, dim: 1, sizes: [8] }", false, &err);
    assert_non_null(config);
    assert_int_equal(config->bucket_count, 1);
    effective_release(config);
    static const char *const rows[][2] = {
        { "shape_buckets: { dim: 1, sizes: [8] }", "expected input and dim in it" },
        { "shape_buckets: { input: x, sizes: [8] }", "expected input and dim in it" },
        { "shape_buckets: { input: x, dim: 0 }", "dim: found '0', expected a whole number from 1" },
        { "shape_buckets: { input: x, dim: 1, sizes: [8, 8] }", "1 to 32 ascending sizes" },
        { "shape_buckets: { input: x, dim: 1, sizes: [] }", "1 to 32 ascending sizes" },
        { "shape_buckets: { input: x, dim: 1, sizes: [0] }", "from 1 to 16777216" },
        { "shape_buckets: { input: x, dim: 1, length: 3 }", "unknown key 'length'" },
    };
    expect_refusals(rows, COUNT_OF(rows));
}

static void test_isolation(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct model_config *config =
        parse("isolation: process\nisolation_scope: group\nisolation_group: npu\n"
              "memory_limit: 1GiB\nrun_limit: 5s",
              false, &err);
    assert_non_null(config);
    assert_int_equal(config->isolation, ISOLATE_PROCESS);
    assert_int_equal(config->isolation_scope, ISOLATION_GROUP);
    assert_string_equal(config->isolation_group, "npu");
    assert_int_equal(config->memory_limit, 1 << 30);
    assert_int_equal(config->run_limit_ns, 5 * NS_PER_S);
    effective_release(config);
    static const char *const rows[][2] = {
        { "isolation: thread", "expected none or process" },
        { "isolation: process\nisolation_group: npu", "expected isolation_scope: group" },
        { "isolation: process\nisolation_scope: group", "found no isolation_group" },
        { "memory_limit: 1GiB", "without isolation: process" },
    };
    expect_refusals(rows, COUNT_OF(rows));
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        { "max_batch: 3",
          "model.yaml:1: unknown key 'max_batch'; allowed: name, backend, platform, "
          "max_batch_size, input" },
        { "max_batch: 3", "instances, version_policy, " },
        { "max_batch: 3", ", ..." },
        { "max_batch_sise: 3", "unknown key 'max_batch_sise'; did you mean 'max_batch_size'?" },
        { "a: 1\nbackend: x", "model.yaml:1: unknown key 'a'" },
        { "input:\n  - name: x\n    shape: [1]",
          "model.yaml:3: unknown key 'shape'; allowed: name, "
          "data_type, dims" },
        { "maxBatchSize: 3", "unknown key 'maxBatchSize'" },
        { "max_batch_size: many", "model.yaml:1: max_batch_size: found 'many', expected a whole "
                                  "number from 0 to" },
        { "max_batch_size: -1", "found '-1'" },
        { "name: other", "unexpected directory name 'm' for model 'other'" },
        { "input: 3", "input: found '3', expected a list" },
        { "input: [{ dims: [1] }]", "expected a name in it" },
        { "input: [{ name: x, data_type: FP8 }]", "found 'FP8', expected a data type such as" },
        { "input: [{ name: x, dims: [0] }]", "found '0', expected a size of at least 1" },
        { "input: [{ name: x, dims: [-2] }]", "found '-2'" },
        { "batching: on", "found 'on', expected auto, insist or off" },
        { "version_policy: { latest: {}, all: {} }",
          "found all beside latest, expected one of them" },
        { "version_policy: newest", "found 'newest', expected one of latest, all, specific" },
        { "version_policy: { specific: {} }", "expected versions" },
        { "instance_group: [{ kind: KIND_NPU }]", "found 'KIND_NPU', expected KIND_AUTO" },
        { "instances: many", "found 'many'" },
        { "instances: 0", "instances" },
        { "instance_group: [{ count: 900 }, { count: 900 }]", "at most 1024 instances" },
        { "sequence_batching: { iterative_sequence: true }",
          "model.yaml:1: iterative_sequence is not supported: a request is answered by one run" },
        { "sequence_batching: {}\ndynamic_batching: {}",
          "model.yaml:2: found dynamic_batching beside sequence_batching, expected one of them" },
        { "sequence_batching: { control_input: [{ name: a, control: [{ kind: START }] }] }",
          "expected one of int32_false_true, fp32_false_true, bool_false_true" },
        { "sequence_batching: { control_input: [{ name: a, control: [{ kind: CORRID }] }] }",
          "expected data_type of the sequence's id" },
        { "sequence_batching: { state: [{ input_name: a }] }", "expected output_name" },
        { "sequence_batching: { direct: {}, oldest: {} }", "found oldest beside direct" },
        { "ensemble_scheduling: { step: [{ model_version: 1 }] }", "expected model_name" },
        { "ensemble_scheduling: {}", "expected at least one step" },
        { "input: [{ name: x, dims: [1], reshape: { shape: [] } }]\n"
          "ensemble_scheduling: { step: [{ model_name: a }] }",
          "model.yaml: found reshape in ensemble 'm'" },
        { "input: [{ name: x, allow_ragged_batch: true }]",
          "model.yaml:1: allow_ragged_batch is not supported: ragged batching joins rows" },
        { "batch_input: [{ kind: BATCH_ELEMENT_COUNT }]", "batch_input is not supported" },
        { "max_batch_size: x\njoin: 3", "max_batch_size: found 'x', expected a whole number from 0 "
                                        "to 2147483647 (and 1 more: weir inspect lists them)" },
        { "dynamic_batching: { default_queue_policy: { timeout_action: LATER } }",
          "expected REJECT or DELAY" },
        { "model_warmup: [{ inputs: { x: { data_type: FP32, dims: [1] } } }]",
          "expected data_type, dims and one of zero_data" },
        { "model_warmup: [{ inputs: { x: { data_type: FP32, dims: [-1], zero_data: true } } }]",
          "expected dims without -1" },
        { "parameters: { a: [1] }", "a: found a list, expected a text" },
        { "queue_delay: 5", "expected a duration such as" },
        { "- a", "found a list, expected a map" },
        { "text", "expected a map" },
    };
    expect_refusals(rows, COUNT_OF(rows));
}

static void test_an_override_may_be_protobufs_json(void **state)
{
    (void)state;
    static const char json[] =
        "{\"name\":\"m\",\"maxBatchSize\":4,\"input\":[{\"name\":\"x\",\"dataType\":\"TYPE_FP32\","
        "\"dims\":[16],\"allowRaggedBatch\":false,\"format\":\"FORMAT_NONE\"}],"
        "\"dynamicBatching\":{\"maxQueueDelayMicroseconds\":7,\"preserveOrdering\":false},"
        "\"parameters\":{\"k\":{\"stringValue\":\"v\"}},\"sequence_batching\":null,"
        "\"optimization\":{\"input_pinned_memory\":{\"enable\":true},\"priority\":"
        "\"PRIORITY_DEFAULT\"},\"versionPolicy\":"
        "{\"latest\":{\"numVersions\":2}}}";
    struct weir_err err = { 0 };
    struct model_config *config = parse(json, true, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(config->max_batch_size, 4);
    assert_int_equal(config->inputs[0].dtype, DTYPE_FP32);
    assert_int_equal(config->queue_delay_ns, 7 * NS_PER_US);
    assert_string_equal(config->settings[0].value, "v");
    assert_int_equal(config->policy_count, 2);
    config->release(config);
}

static void write_json(struct model_config *config, struct buffer *out)
{
    const char *why_not = NULL;
    struct weir_err err = { 0 };
    const struct backend_ops *ops = NULL;
    struct model *model = mem_alloc(sizeof(*model));
    assert_int_equal(effective_backend(config, &ops, &err), WEIR_OK);
    assert_int_equal(effective_complete(config, &signature, &why_not, &err), WEIR_OK);
    model->name = "m";
    model->config = config;
    model->signature = &signature;
    model->instance_count = 2;
    modelconfig_to_json(model, out);
    assert_false(out->failed);
    mem_free(model);
}

static void test_what_is_printed_can_be_read_back(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct buffer first;
    struct buffer second;
    buffer_init(&first, 65536);
    buffer_init(&second, 65536);
    struct model_config *config = parse(full, false, &err);
    write_json(config, &first);
    config->release(config);
    buffer_char(&first, '\0');
    yyjson_doc *doc = NULL;
    assert_int_equal(json_read((struct bytes){ first.data, first.size - 1 }, &doc, &err), WEIR_OK);
    yyjson_doc_free(doc);
    config = parse(first.data, true, &err);
    assert_string_equal(err.text, "");
    check_full(config);
    write_json(config, &second);
    config->release(config);
    buffer_char(&second, '\0');
    assert_string_equal(first.data, second.data);
    buffer_finish(&first);
    buffer_finish(&second);
}

static void test_tritons_names_and_numbers(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 65536);
    struct model_config *config = parse("backend: onnx\n", false, NULL);
    write_json(config, &out);
    config->release(config);
    buffer_char(&out, '\0');
    static const char *const parts[] = {
        "{\"name\":\"m\",\"platform\":\"onnxruntime_onnx\",\"backend\":\"onnxruntime\"",
        "\"version_policy\":{\"latest\":{\"num_versions\":1}}",
        "\"max_batch_size\":64",
        "\"input\":[{\"name\":\"x\",\"data_type\":\"TYPE_FP32\",\"format\":\"FORMAT_NONE\","
        "\"dims\":[16],\"is_shape_tensor\":false,\"allow_ragged_batch\":false,\"optional\":false",
        "\"output\":[{\"name\":\"y\",\"data_type\":\"TYPE_FP32\",\"dims\":[-1],"
        "\"label_filename\":\"\"",
        "\"instance_group\":[{\"name\":\"m\",\"kind\":\"KIND_CPU\",\"count\":2,\"gpus\":[]",
        "\"default_model_filename\":\"model.onnx\"",
        "\"parameters\":{}",
    };
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        if (strstr(out.data, parts[i]) == NULL) {
            fail_msg("%s is not in %s", parts[i], out.data);
        }
    }
    assert_null(strstr(out.data, "dynamic_batching"));
    buffer_finish(&out);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void test_the_folder_is_read(void **state)
{
    (void)state;
    char folder[] = "/tmp/weir-test-modelconfig-XXXXXX";
    assert_non_null(mkdtemp(folder));
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct model_config *config = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(modelconfig_read(NULL, "m", fd, NULL, &config, &err), WEIR_OK);
    assert_null(config->remark);
    config->release(config);

    put(folder, "config.pbtxt",
        "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 2, 4 ] }\n"
        "input { name: \"a\" data_type: TYPE_FP32 dims: 3 }\n"
        "parameters { key: \"k\" value { string_value: \"v\" } }\n");
    assert_int_equal(modelconfig_read(NULL, "m", fd, NULL, &config, &err), WEIR_OK);
    assert_null(config->remark);
    assert_int_equal(config->max_batch_size, 4);
    assert_true(config->proto);
    config->release(config);

    put(folder, "model.yaml",
        "max_batch_size: 5\n"
        "dynamic_batching: { max_queue_delay_microseconds: 7 }\n"
        "input: [{ name: a, dims: [4, 5] }, { name: b }]\n"
        "parameters: { l: w }\n");
    assert_int_equal(modelconfig_read(NULL, "m", fd, NULL, &config, &err), WEIR_OK);
    assert_int_equal(config->max_batch_size, 5);
    assert_null(config->remark);
    assert_int_equal(config->preferred_count, 2);
    assert_int_equal(config->queue_delay_ns, 7 * NS_PER_US);
    assert_int_equal(config->input_count, 2);
    assert_int_equal(config->inputs[0].dtype, DTYPE_FP32);
    assert_int_equal(config->inputs[0].dims.rank, 2);
    assert_int_equal(config->setting_count, 2);
    config->release(config);

    assert_int_equal(modelconfig_read(NULL, "m", fd, "{\"backend\":\"sim\"}", &config, &err),
                     WEIR_OK);
    assert_int_equal(config->max_batch_size, -1);
    assert_string_equal(config->json, "{\"backend\":\"sim\"}");
    config->release(config);

    assert_int_equal(modelconfig_read(NULL, "m", fd, "{\"x\":1}", &config, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "config override:1: unknown key 'x'"));
    (void)close(fd);
    static const char *const names[] = { "model.yaml", "config.pbtxt", "" };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        assert_int_equal(remove(path), 0);
    }
}

static void test_the_table_documents_itself(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 65536);
    modelconfig_document(&out);
    buffer_char(&out, '\0');
    assert_non_null(strstr(out.data, "max_batch_size"));
    assert_non_null(strstr(out.data, "  max_queue_delay_microseconds"));
    assert_non_null(strstr(out.data, "max_candidate_sequences"));
    assert_non_null(strstr(out.data, "(refused)"));
    buffer_finish(&out);
}

/* What /config shows of a model without any tensor of its own kind of scheduling. */
static void check_read_back(const char *text)
{
    struct weir_err err = { 0 };
    struct buffer json[2];
    struct model_config *config = parse(text, false, &err);
    assert_string_equal(err.text, "");
    for (int i = 0; i < 2; i++) {
        struct model *model = mem_alloc(sizeof(*model));
        buffer_init(&json[i], 65536);
        model->name = "m";
        model->config = config;
        model->signature = &signature;
        model->instance_count = 1;
        modelconfig_to_json(model, &json[i]);
        buffer_char(&json[i], '\0');
        mem_free(model);
        config->release(config);
        config = i == 0 ? parse(json[0].data, true, &err) : NULL;
        assert_string_equal(err.text, "");
    }
    assert_string_equal(json[0].data, json[1].data);
    buffer_finish(&json[0]);
    buffer_finish(&json[1]);
}

static void test_all_that_is_printed_can_be_read_back(void **state)
{
    (void)state;
    check_read_back(
        "max_batch_size: 4\n"
        "sequence_batching:\n"
        "  control_input:\n"
        "    - { name: S, control: [{ kind: START, int32_false_true: [0, 1] }] }\n"
        "    - { name: R, control: [{ kind: READY, bool_false_true: [false, true] }] }\n"
        "    - { name: E, control: [{ kind: END, fp32_false_true: [0.5, 1] }] }\n"
        "    - { name: C, control: [{ kind: CORRID, data_type: TYPE_STRING }] }\n"
        "  state: [{ input_name: i, output_name: o, data_type: FP32, dims: [-1],\n"
        "            initial_state: [{ dims: [2], data_file: f }] }]\n"
        "  direct: { minimum_slot_utilization: 0.5 }\n");
    check_read_back("max_batch_size: 4\nsequence_batching:\n"
                    "  oldest: { max_candidate_sequences: 4, preferred_batch_size: [2, 4] }\n");
    check_read_back("max_batch_size: 0\nplatform: ensemble\nensemble_scheduling:\n"
                    "  step: [{ model_name: a, input_map: { x: y }, output_map: { y: z } }]\n");
    check_read_back(
        "max_batch_size: 2\nresponse_cache: { enable: true }\n"
        "model_transaction_policy: { decoupled: true }\n"
        "input: [{ name: x, data_type: FP32, dims: [16], reshape: { shape: [4, 4] } }]\n"
        "instance_group: [{ count: 2, rate_limiter: { priority: 3, resources:\n"
        "  [{ name: R, global: true, count: 2 }] } }]\n");
}

static void test_sequences(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct model_config *config = parse(
        "sequence_batching:\n"
        "  max_sequence_idle_microseconds: 5\n"
        "  control_input:\n"
        "    - { name: S, control: [{ kind: CONTROL_SEQUENCE_START, int32_false_true: [0, 1] }] }\n"
        "    - { name: E, control: [{ kind: END, fp32_false_true: [-1.5, 2] }] }\n"
        "    - { name: R, control: [{ kind: READY, bool_false_true: [true, false] }] }\n"
        "    - { name: C, control: [{ kind: CORRID, data_type: TYPE_UINT64 }] }\n"
        "  state:\n"
        "    - { input_name: i, output_name: o, data_type: FP32, dims: [-1, 3],\n"
        "        initial_state: [{ name: s, data_type: FP32, dims: [2, 3], data_file: f }] }\n"
        "  oldest: { max_candidate_sequences: 4, preferred_batch_size: [2],\n"
        "            max_queue_delay_microseconds: 9 }\n",
        false, &err);
    assert_string_equal(err.text, "");
    const struct sequence_config *sequence = &config->sequence;
    assert_int_equal(sequence->strategy, SEQUENCE_OLDEST);
    assert_int_equal(sequence->idle_ns, 5 * NS_PER_US);
    assert_int_equal(sequence->control_count, 4);
    assert_int_equal(sequence->controls[0].kind, SEQUENCE_START);
    assert_int_equal(sequence->controls[0].dtype, DTYPE_INT32);
    assert_true(sequence->controls[0].false_true[1] == 1);
    assert_true(sequence->controls[1].false_true[0] == -1.5);
    assert_int_equal(sequence->controls[2].dtype, DTYPE_BOOL);
    assert_true(sequence->controls[2].false_true[0] == 1 &&
                sequence->controls[2].false_true[1] == 0);
    assert_int_equal(sequence->controls[3].kind, SEQUENCE_CORRID);
    assert_int_equal(sequence->controls[3].dtype, DTYPE_UINT64);
    assert_int_equal(sequence->state_count, 1);
    assert_string_equal(sequence->states[0].initial_file, "f");
    assert_int_equal(sequence->states[0].initial_dims.dims[0], 2);
    assert_int_equal(sequence->candidates_max, 4);
    assert_int_equal(sequence->preferred[0], 2);
    assert_int_equal(sequence->queue_delay_ns, 9 * NS_PER_US);
    config->release(config);

    config = parse("sequence_batching: {}\n", false, &err);
    assert_int_equal(config->sequence.strategy, SEQUENCE_DIRECT);
    assert_int_equal(config->sequence.idle_ns, NS_PER_S);
    config->release(config);
}

static void test_ensembles_caches_and_limiters(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct model_config *config =
        parse("platform: ensemble\n"
              "ensemble_scheduling:\n"
              "  max_inflight_requests: 2\n"
              "  step:\n"
              "    - { model_name: a, model_version: -1, input_map: { X: in, Y: in },\n"
              "        output_map: { Z: mid } }\n"
              "    - { model_name: b, model_version: 3, input_map: { X: mid } }\n"
              "response_cache: { enable: true }\n"
              "join: true\n"
              "model_transaction_policy: { decoupled: true }\n"
              "instance_group:\n"
              "  - { count: 2, rate_limiter: { resources: [{ name: R1, count: 4 },\n"
              "      { name: R2, global: true, count: 1 }], priority: 2 } }\n"
              "  - { rate_limiter: { resources: [{ name: R1, count: 6 }] } }\n"
              "output: [{ name: z, dims: [1] }]\n",
              false, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(config->ensemble.step_count, 2);
    assert_int_equal(config->ensemble.inflight_max, 2);
    assert_string_equal(config->ensemble.steps[0].inputs[1].model_tensor, "Y");
    assert_string_equal(config->ensemble.steps[0].inputs[1].ensemble_tensor, "in");
    assert_int_equal(config->ensemble.steps[0].version, -1);
    assert_int_equal(config->ensemble.steps[1].version, 3);
    assert_true(config->response_cache && config->join && config->decoupled);
    assert_int_equal(config->resource_count, 2);
    assert_int_equal(config->resources[0].count, 6);
    assert_true(config->resources[1].global);
    assert_int_equal(config->rate_priority, 2);
    assert_int_equal(config->instances, 3);
    config->release(config);
    config = parse("output: [{ name: z, dims: [1], reshape: { shape: [] } }]\n", false, &err);
    assert_true(config->outputs[0].has_reshape);
    assert_int_equal(config->outputs[0].reshape.rank, 0);
    config->release(config);
}

static void test_what_has_no_effect_is_said(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        { "optimization: { cuda: { graphs: true } }", "model.yaml:1: cuda: no effect" },
        { "optimization: { graph: { level: 1 } }", "level: no effect" },
        { "parameters: { gpu_mem_limit: '1000000' }",
          "gpu_mem_limit: no effect: see memory_limit of execution_providers" },
        { "dynamic_batching: { preserve_ordering: true }", "preserve_ordering: no effect" },
        { "dynamic_batching: { default_queue_policy: { timeout_action: DELAY } }",
          "timeout_action: DELAY: a request whose time has passed keeps its place" },
        { "metric_tags: { a: b }", "metric_tags: no effect" },
        { "cc_model_filenames: { '7.5': a.onnx }", "cc_model_filenames: no effect" },
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct weir_err err = { 0 };
        struct model_config *config = parse(rows[i][0], false, &err);
        assert_string_equal(err.text, "");
        if (config->remark == NULL || strstr(config->remark, rows[i][1]) == NULL) {
            fail_msg("'%s': found '%s', expected '%s'", rows[i][0], config->remark, rows[i][1]);
        }
        config->release(config);
    }
    struct model_config *config = parse("optimization: { cuda: { graphs: false } }", false, NULL);
    assert_null(config->remark);
    config->release(config);
}

static void fail_each_allocation(const char *text)
{
    (void)mem_fault_arm(1000000);
    struct model_config *config = parse(text, false, NULL);
    config->release(config);
    const uint64_t calls = mem_fault_arm(0);
    for (uint64_t n = 1; n <= calls; n++) {
        config = effective_create();
        assert_non_null(config);
        struct weir_err err = { 0 };
        (void)mem_fault_arm(n);
        const enum weir_status status =
            modelconfig_parse(config, "m", "model.yaml", bytes_of(text), false, &err);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        assert_true(status == WEIR_OK || strstr(err.text, "memory") != NULL);
        config->release(config);
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    fail_each_allocation(full);
    fail_each_allocation("devices: [cpu, gpu0]\n"
                         "shape_buckets: { input: x, dim: 1, sizes: [8, 16] }\n"
                         "execution_providers: [{ name: cuda, options: { a: b } }, cpu]\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_setting_is_read),
        cmocka_unit_test(test_nothing_set_is_all_defaults),
        cmocka_unit_test(test_instances_in_short),
        cmocka_unit_test(test_instances_on_gpus),
        cmocka_unit_test(test_short_forms),
        cmocka_unit_test(test_shape_buckets),
        cmocka_unit_test(test_isolation),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_an_override_may_be_protobufs_json),
        cmocka_unit_test(test_what_is_printed_can_be_read_back),
        cmocka_unit_test(test_tritons_names_and_numbers),
        cmocka_unit_test(test_the_folder_is_read),
        cmocka_unit_test(test_the_table_documents_itself),
        cmocka_unit_test(test_all_that_is_printed_can_be_read_back),
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_ensembles_caches_and_limiters),
        cmocka_unit_test(test_what_has_no_effect_is_said),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
