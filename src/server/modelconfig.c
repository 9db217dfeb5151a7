/*
 * One table per message of ModelConfig, innermost first, each after the functions
 * that read its odd fields.
 */
#include "server/modelconfig.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "engine/effective.h"
#include "server/field.h"
#include "util/arena.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/yaml.h"

#define INSTANCES_MAX 1024
#define VERSIONS_MAX 64

#define AT(type, member) offsetof(struct type, member)

/* Of one instance group. */
struct group {
    const char *name;
    const char *kind;
    uint32_t count;
};

/* Of one warm-up input. */
struct warmup_input {
    const char *input;
    enum dtype dtype;
    bool has_dtype;
    struct shape dims;
    bool has_dims;
    bool zero;
    bool random;
    const char *file;
};

static enum weir_status no_memory(const struct field_reader *reader)
{
    return err_nomem(reader->err, reader->file, sizeof(struct model_config));
}

static enum weir_status read_dtype(const struct field_reader *reader, const struct field *field,
                                   const struct yaml *node, void *target)
{
    static const char expected[] = "a data type such as TYPE_FP32, FP32 or TYPE_STRING";
    enum dtype *out = field_place(field, target);
    if (node->kind != YAML_SCALAR) {
        return field_refuse(reader, node, expected);
    }
    const char *text = strncasecmp(node->text, "TYPE_", 5) == 0 ? node->text + 5 : node->text;
    text = strcasecmp(text, "STRING") == 0 ? "BYTES" : text;
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcasecmp(text, dtype_text((enum dtype)i)) == 0) {
            *out = (enum dtype)i;
            *(bool *)(out + 1) = true;
            return WEIR_OK;
        }
    }
    return field_refuse(reader, node, expected);
}

static enum weir_status read_dims(const struct field_reader *reader, const struct field *field,
                                  const struct yaml *node, void *target)
{
    struct shape *out = field_place(field, target);
    if (node->kind != YAML_LIST || node->count > TENSOR_RANK_MAX) {
        return field_refuse(reader, node, "a list of at most 12 sizes, -1 for any");
    }
    struct shape shape = { 0 };
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        int64_t dim = 0;
        const enum weir_status status =
            yaml_i64(item, reader->file, -1, TENSOR_ELEMENTS_MAX, &dim, reader->err);
        if (status != WEIR_OK) {
            return status;
        }
        if (dim == 0) {
            return field_refuse(reader, item, "a size of at least 1, or -1 for any");
        }
        shape.dims[shape.rank++] = dim;
    }
    *out = shape;
    *(bool *)(out + 1) = true;
    return WEIR_OK;
}

/* An empty array of as many items as the list has; *items is NULL when memory is out. */
static enum weir_status make_items(const struct field_reader *reader, const struct yaml *node,
                                   size_t size, void **items)
{
    if (node->kind != YAML_LIST) {
        return field_refuse(reader, node, "a list");
    }
    *items = arena_try_zero(reader->arena, node->count, size);
    return *items == NULL ? no_memory(reader) : WEIR_OK;
}

static enum weir_status need_name(const struct field_reader *reader, const struct yaml *node,
                                  const char *name)
{
    return name != NULL && name[0] != '\0' ? WEIR_OK : field_refuse(reader, node, "a name in it");
}

/* read_dtype() and read_dims() write a value and the flag behind it. */
static_assert(offsetof(struct io_config, has_dtype) ==
                  offsetof(struct io_config, dtype) + sizeof(enum dtype),
              "flag behind dtype");
static_assert(offsetof(struct io_config, has_dims) ==
                  offsetof(struct io_config, dims) + sizeof(struct shape),
              "flag behind dims");
static_assert(offsetof(struct warmup_input, has_dtype) ==
                  offsetof(struct warmup_input, dtype) + sizeof(enum dtype),
              "flag behind dtype");
static_assert(offsetof(struct warmup_input, has_dims) ==
                  offsetof(struct warmup_input, dims) + sizeof(struct shape),
              "flag behind dims");

static const struct field input_fields[] = {
    FIELD("name", field_text, "text", "an input of the model", AT(io_config, name)),
    FIELD("data_type", read_dtype, "data type", "checked against the model", AT(io_config, dtype)),
    FIELD("dims", read_dims, "list of sizes",
          "without the batch dimension where max_batch_size is above 0", AT(io_config, dims)),
    FIELD("optional", field_nothing, "true or false", "no effect: the model file says it", 0),
    FIELD_UNSUPPORTED("format"),
    FIELD_UNSUPPORTED("reshape"),
    FIELD_UNSUPPORTED("is_shape_tensor"),
    FIELD_UNSUPPORTED("allow_ragged_batch"),
    FIELD_UNSUPPORTED("is_non_linear_format_io"),
};
static const struct field_table input_table = FIELD_TABLE(input_fields);

static const struct field output_fields[] = {
    FIELD("name", field_text, "text", "an output of the model", AT(io_config, name)),
    FIELD("data_type", read_dtype, "data type", "checked against the model", AT(io_config, dtype)),
    FIELD("dims", read_dims, "list of sizes",
          "without the batch dimension where max_batch_size is above 0", AT(io_config, dims)),
    FIELD("label_filename", field_text, "file",
          "labels of the classes, one per line, in the model's folder", AT(io_config, label_file)),
    FIELD_UNSUPPORTED("reshape"),
    FIELD_UNSUPPORTED("is_shape_tensor"),
    FIELD_UNSUPPORTED("is_non_linear_format_io"),
};
static const struct field_table output_table = FIELD_TABLE(output_fields);

static enum weir_status read_ios(const struct field_reader *reader, const struct field *field,
                                 const struct yaml *node, struct io_config **out,
                                 uint32_t *out_count)
{
    void *memory = NULL;
    enum weir_status status = make_items(reader, node, sizeof(struct io_config), &memory);
    struct io_config *items = memory;
    uint32_t count = 0;
    for (const struct yaml *item = node->first; status == WEIR_OK && item != NULL;
         item = item->next) {
        status = field_read_table(reader, field->table, item, &items[count]);
        status = status == WEIR_OK ? need_name(reader, item, items[count].name) : status;
        count++;
    }
    if (status == WEIR_OK) {
        *out = items;
        *out_count = count;
    }
    return status;
}

static enum weir_status read_inputs(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    struct model_config *config = target;
    return read_ios(reader, field, node, &config->inputs, &config->input_count);
}

static enum weir_status read_outputs(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct model_config *config = target;
    return read_ios(reader, field, node, &config->outputs, &config->output_count);
}

static enum weir_status read_action(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    (void)field;
    (void)target;
    if (node->kind == YAML_SCALAR && strcasecmp(node->text, "REJECT") == 0) {
        return WEIR_OK;
    }
    return field_refuse(reader, node, "REJECT (DELAY is not supported)");
}

static const struct field queue_fields[] = {
    FIELD("timeout_action", read_action, "REJECT", "what happens to a request that waited too long",
          0),
    FIELD_RANGE("default_timeout_microseconds", field_timeout, "microseconds",
                "longest wait in line; 0: no limit", AT(model_config, queue_timeout_ns), 0,
                INT64_MAX / 1000),
    FIELD("allow_timeout_override", field_bool, "true or false", "requests may set a shorter one",
          AT(model_config, timeout_override)),
    FIELD_RANGE("max_queue_size", field_u32, "count",
                "requests that may wait; 0: the server's limit", AT(model_config, requests_max), 0,
                UINT32_MAX),
};
static const struct field_table queue_table = FIELD_TABLE(queue_fields);

static enum weir_status read_preferred(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    (void)field;
    struct model_config *config = target;
    if (node->kind != YAML_LIST || node->count > MODEL_PREFERRED_MAX) {
        return field_refuse(reader, node, "a list of at most 16 batch sizes");
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        int64_t size = 0;
        const enum weir_status status =
            yaml_i64(item, reader->file, 1, INT32_MAX, &size, reader->err);
        if (status != WEIR_OK) {
            return status;
        }
        config->preferred[count++] = (uint32_t)size;
    }
    config->preferred_count = count;
    return WEIR_OK;
}

static const struct field dynamic_fields[] = {
    FIELD("preferred_batch_size", read_preferred, "list of batch sizes",
          "a batch stops at the largest of them it can fill", 0),
    FIELD_RANGE("max_queue_delay_microseconds", field_microseconds, "microseconds",
                "longest wait of a request for company", AT(model_config, queue_delay_ns), 0,
                INT64_MAX / 1000),
    FIELD_RANGE("priority_levels", field_u32, "count", "levels of priority; 1 is the most urgent",
                AT(model_config, priority_levels), 0, 64),
    FIELD_RANGE("default_priority_level", field_u32, "level", "of requests that name none",
                AT(model_config, priority_default), 0, 64),
    FIELD_NESTED("default_queue_policy", field_message, "map", "how long and how many may wait",
                 &queue_table),
    FIELD_UNSUPPORTED("preserve_ordering"),
    FIELD_UNSUPPORTED("priority_queue_policy"),
};
static const struct field_table dynamic_table = FIELD_TABLE(dynamic_fields);

static enum weir_status read_dynamic(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    ((struct model_config *)target)->dynamic_batching = true;
    return field_read_table(reader, field->table, node, target);
}

static enum weir_status read_kind(const struct field_reader *reader, const struct field *field,
                                  const struct yaml *node, void *target)
{
    static const char *const kinds[] = { "AUTO", "CPU", "MODEL" };
    if (node->kind == YAML_SCALAR) {
        const char *text = strncasecmp(node->text, "KIND_", 5) == 0 ? node->text + 5 : node->text;
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
            if (strcasecmp(text, kinds[i]) == 0) {
                *(const char **)field_place(field, target) = kinds[i];
                return WEIR_OK;
            }
        }
    }
    return field_refuse(reader, node, "KIND_AUTO, KIND_CPU or KIND_MODEL (there is no GPU device)");
}

static const struct field group_fields[] = {
    FIELD("name", field_text, "text", "any", AT(group, name)),
    FIELD("kind", read_kind, "KIND_AUTO, KIND_CPU", "where it runs", AT(group, kind)),
    FIELD_RANGE("count", field_u32, "count", "runs at once; a cap, not copies of the weights",
                AT(group, count), 0, INSTANCES_MAX),
    FIELD_UNSUPPORTED("gpus"),
    FIELD_UNSUPPORTED("secondary_devices"),
    FIELD_UNSUPPORTED("profile"),
    FIELD_UNSUPPORTED("passive"),
    FIELD_UNSUPPORTED("rate_limiter"),
    FIELD_UNSUPPORTED("host_policy"),
};
static const struct field_table group_table = FIELD_TABLE(group_fields);

static enum weir_status read_groups(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    struct model_config *config = target;
    if (node->kind != YAML_LIST) {
        return field_refuse(reader, node, "a list of groups such as [{ count: 2 }]");
    }
    uint32_t total = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        struct group group = { 0 };
        const enum weir_status status = field_read_table(reader, field->table, item, &group);
        if (status != WEIR_OK) {
            return status;
        }
        total += group.count == 0 ? 1 : group.count;
        if (total > INSTANCES_MAX) {
            return field_refuse(reader, node, "at most 1024 instances in all");
        }
    }
    config->instances = total;
    return WEIR_OK;
}

static const struct field latest_fields[] = {
    FIELD_RANGE("num_versions", field_u32, "count", "how many of the highest are served",
                AT(model_config, policy_count), 1, UINT32_MAX),
};
static const struct field_table latest_table = FIELD_TABLE(latest_fields);

static enum weir_status read_latest(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    struct model_config *config = target;
    config->policy = VERSION_LATEST;
    config->policy_count = 1;
    return field_read_table(reader, field->table, node, target);
}

static enum weir_status read_all(const struct field_reader *reader, const struct field *field,
                                 const struct yaml *node, void *target)
{
    static const struct field_table nothing = { NULL, 0 };
    (void)field;
    ((struct model_config *)target)->policy = VERSION_ALL;
    return field_read_table(reader, &nothing, node, target);
}

static enum weir_status read_versions(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    (void)field;
    struct model_config *config = target;
    if (node->kind != YAML_LIST || node->count < 1 || node->count > VERSIONS_MAX) {
        return field_refuse(reader, node, "a list of 1 to 64 versions");
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        const enum weir_status status = yaml_i64(item, reader->file, 1, INT64_MAX,
                                                 &config->policy_versions[count++], reader->err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    config->policy_count = count;
    return WEIR_OK;
}

static const struct field specific_fields[] = {
    FIELD("versions", read_versions, "list of versions", "those that are served", 0),
};
static const struct field_table specific_table = FIELD_TABLE(specific_fields);

static enum weir_status read_specific(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    struct model_config *config = target;
    config->policy = VERSION_SPECIFIC;
    config->policy_count = 0;
    const enum weir_status status = field_read_table(reader, field->table, node, target);
    return status == WEIR_OK && config->policy_count == 0
               ? field_refuse(reader, node, "versions: a list of versions")
               : status;
}

static const struct field policy_fields[] = {
    FIELD_NESTED("latest", read_latest, "map",
                 "the highest versions (the default, with num_versions: 1)", &latest_table),
    FIELD("all", read_all, "{}", "every version", 0),
    FIELD_NESTED("specific", read_specific, "map", "the versions named", &specific_table),
};
static const struct field_table policy_table = FIELD_TABLE(policy_fields);

static enum weir_status read_policy(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    static const char expected[] = "one of latest, all, specific";
    struct model_config *config = target;
    if (node->kind == YAML_SCALAR) {
        const bool all = strcmp(node->text, "all") == 0;
        if (!all && strcmp(node->text, "latest") != 0) {
            return field_refuse(reader, node, expected);
        }
        config->policy = all ? VERSION_ALL : VERSION_LATEST;
        config->policy_count = 1;
        return WEIR_OK;
    }
    return node->kind == YAML_MAP && node->count > 1
               ? field_refuse(reader, node, expected)
               : field_read_table(reader, field->table, node, target);
}

static const struct field warmup_input_fields[] = {
    FIELD("data_type", read_dtype, "data type", "as the model has it", AT(warmup_input, dtype)),
    FIELD("dims", read_dims, "list of sizes", "of one row, without -1", AT(warmup_input, dims)),
    FIELD("zero_data", field_bool, "true", "zeros", AT(warmup_input, zero)),
    FIELD("random_data", field_bool, "true", "made-up numbers", AT(warmup_input, random)),
    FIELD("input_data_file", field_text, "file", "one row's bytes, in the model's folder warmup",
          AT(warmup_input, file)),
};
static const struct field_table warmup_input_table = FIELD_TABLE(warmup_input_fields);

static enum weir_status check_warmup_input(const struct field_reader *reader,
                                           const struct yaml *node,
                                           const struct warmup_input *input)
{
    const int sources = (input->zero ? 1 : 0) + (input->random ? 1 : 0) +
                        (input->file != NULL && input->file[0] != '\0' ? 1 : 0);
    if (!input->has_dtype || !input->has_dims || sources != 1) {
        return field_refuse(reader, node,
                            "data_type, dims and one of zero_data, random_data, input_data_file");
    }
    for (uint32_t i = 0; i < input->dims.rank; i++) {
        if (input->dims.dims[i] < 1) {
            return field_refuse(reader, node, "dims without -1");
        }
    }
    return WEIR_OK;
}

/* A map from the input's name to what it gets. */
static enum weir_status read_warmup_inputs(const struct field_reader *reader,
                                           const struct field *field, const struct yaml *node,
                                           void *target)
{
    struct warmup_config *warmup = target;
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map from input names to their data");
    }
    warmup->inputs = arena_try_zero(reader->arena, node->count, sizeof(*warmup->inputs));
    if (warmup->inputs == NULL) {
        return no_memory(reader);
    }
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        struct warmup_input input = { .input = item->key };
        enum weir_status status = field_read_table(reader, field->table, item, &input);
        status = status == WEIR_OK ? check_warmup_input(reader, item, &input) : status;
        if (status != WEIR_OK) {
            return status;
        }
        warmup->inputs[warmup->input_count].input = input.input;
        warmup->inputs[warmup->input_count].dtype = input.dtype;
        warmup->inputs[warmup->input_count].dims = input.dims;
        warmup->inputs[warmup->input_count].file = input.file;
        warmup->inputs[warmup->input_count].kind = input.zero     ? WARMUP_ZERO
                                                   : input.random ? WARMUP_RANDOM
                                                                  : WARMUP_FILE;
        warmup->input_count++;
    }
    return WEIR_OK;
}

static const struct field warmup_fields[] = {
    FIELD("name", field_text, "text", "any, for messages", AT(warmup_config, name)),
    FIELD_RANGE("batch_size", field_u32, "rows", "of the run, where the model batches",
                AT(warmup_config, batch_size), 0, 65536),
    FIELD_RANGE("count", field_u32, "count", "how often; 0: once", AT(warmup_config, count), 0,
                1000),
    FIELD_NESTED("inputs", read_warmup_inputs, "map by input name", "the data",
                 &warmup_input_table),
};
static const struct field_table warmup_table = FIELD_TABLE(warmup_fields);

static enum weir_status read_warmups(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct model_config *config = target;
    void *memory = NULL;
    enum weir_status status = make_items(reader, node, sizeof(struct warmup_config), &memory);
    struct warmup_config *items = memory;
    uint32_t count = 0;
    for (const struct yaml *item = node->first; status == WEIR_OK && item != NULL;
         item = item->next) {
        status = field_read_table(reader, field->table, item, &items[count++]);
    }
    if (status == WEIR_OK) {
        config->warmups = items;
        config->warmup_count = count;
    }
    return status;
}

/* `key: value`, or as protobuf's JSON has it `key: { string_value: value }`. */
static enum weir_status read_parameters(const struct field_reader *reader,
                                        const struct field *field, const struct yaml *node,
                                        void *target)
{
    (void)field;
    struct model_config *config = target;
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map of texts");
    }
    struct setting *settings = arena_try_zero(reader->arena, node->count, sizeof(*settings));
    if (settings == NULL) {
        return no_memory(reader);
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        const struct yaml *value = item;
        if (item->kind == YAML_MAP && item->count == 1) {
            value = yaml_get(item, "string_value");
            value = value == NULL && reader->loose ? yaml_get(item, "stringValue") : value;
        }
        if (value == NULL || value->kind != YAML_SCALAR) {
            return field_refuse(reader, item, "a text, or { string_value: TEXT }");
        }
        settings[count++] = (struct setting){ item->key, value->text };
    }
    config->settings = settings;
    config->setting_count = count;
    return WEIR_OK;
}

static enum weir_status read_batching(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    static const char *const modes[] = {
#define MODE_TEXT(name, text) [BATCHING_##name] = text,
        BATCHING_MODES(MODE_TEXT)
#undef MODE_TEXT
    };
    for (size_t i = 0; node->kind == YAML_SCALAR && i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(node->text, modes[i]) == 0) {
            *(enum batching_mode *)field_place(field, target) = (enum batching_mode)i;
            return WEIR_OK;
        }
    }
    return field_refuse(reader, node, "auto, insist or off");
}

static enum weir_status read_name(const struct field_reader *reader, const struct field *field,
                                  const struct yaml *node, void *target)
{
    const char *name = NULL;
    const enum weir_status status = yaml_string(node, reader->file, &name, reader->err);
    if (status != WEIR_OK) {
        return status;
    }
    if (name[0] != '\0' && strcmp(name, reader->subject) != 0) {
        return err_set(reader->err, WEIR_EINVAL,
                       "%s:%" PRIu32 ": unexpected directory name '%s' for model '%s', directory "
                       "name must equal model name",
                       reader->file, node->line, reader->subject, name);
    }
    *(const char **)field_place(field, target) = name;
    return WEIR_OK;
}

static const struct field pinned_fields[] = {
    FIELD("input_pinned_memory", field_nothing, "map", "no effect on a CPU", 0),
    FIELD("output_pinned_memory", field_nothing, "map", "no effect on a CPU", 0),
    FIELD_UNSUPPORTED("graph"),
    FIELD_UNSUPPORTED("priority"),
    FIELD_UNSUPPORTED("cuda"),
    FIELD_UNSUPPORTED("execution_accelerators"),
    FIELD_UNSUPPORTED("gather_kernel_buffer_threshold"),
    FIELD_UNSUPPORTED("eager_batching"),
};
static const struct field_table pinned_table = FIELD_TABLE(pinned_fields);

static const struct field model_fields[] = {
    FIELD("name", read_name, "text", "the folder's name, if given", AT(model_config, name)),
    FIELD("backend", field_text, "onnxruntime or sim", "what runs the model",
          AT(model_config, backend)),
    FIELD("platform", field_text, "onnxruntime_onnx", "the same in Triton's older words",
          AT(model_config, platform)),
    FIELD_RANGE("max_batch_size", field_i64, "rows",
                "of one run; 0: the model has no batch dimension; inferred: 64 or 0",
                AT(model_config, max_batch_size), 0, INT32_MAX),
    FIELD_NESTED("input", read_inputs, "list", "inputs, to check or narrow what the model says",
                 &input_table),
    FIELD_NESTED("output", read_outputs, "list", "outputs, and their labels", &output_table),
    FIELD_NESTED("dynamic_batching", read_dynamic, "map", "how requests are gathered",
                 &dynamic_table),
    FIELD_NESTED("instance_group", read_groups, "list",
                 "runs at once; as many as the device has executors", &group_table),
    FIELD_NESTED("version_policy", read_policy, "latest, all or specific",
                 "which versions are served", &policy_table),
    FIELD_NESTED("model_warmup", read_warmups, "list",
                 "runs that must succeed before the model is ready", &warmup_table),
    FIELD("parameters", read_parameters, "map of texts", "settings of the backend", 0),
    FIELD("default_model_filename", field_text, "file", "in the version's folder; model.onnx",
          AT(model_config, file_name)),
    FIELD("batching", read_batching, "auto, insist or off",
          "auto: on where a proof at load shows that rows are independent",
          AT(model_config, batching)),
    FIELD("queue_delay", field_duration, "duration such as 2ms",
          "longest wait of a request for company", AT(model_config, queue_delay_ns)),
    FIELD("device", field_text, "text", "where it runs; cpu", AT(model_config, device)),
    FIELD_RANGE("intra_threads", field_u32, "count", "threads of one run; 1",
                AT(model_config, intra_threads), 1, 1024),
    FIELD_NESTED("optimization", field_message, "map", "nothing in it has an effect",
                 &pinned_table),
    FIELD_UNSUPPORTED("runtime"),
    FIELD_UNSUPPORTED("sequence_batching"),
    FIELD_UNSUPPORTED("ensemble_scheduling"),
    FIELD_UNSUPPORTED("batch_input"),
    FIELD_UNSUPPORTED("batch_output"),
    FIELD_UNSUPPORTED("cc_model_filenames"),
    FIELD_UNSUPPORTED("metric_tags"),
    FIELD_UNSUPPORTED("model_operations"),
    FIELD_UNSUPPORTED("model_transaction_policy"),
    FIELD_UNSUPPORTED("model_repository_agents"),
    FIELD_UNSUPPORTED("response_cache"),
    FIELD_UNSUPPORTED("model_metrics"),
};
static const struct field_table model_table = FIELD_TABLE(model_fields);

/* ---- Reading ----------------------------------------------------------------------------------- */

enum weir_status modelconfig_parse(struct model_config *config, const char *name, const char *file,
                                   struct bytes text, bool loose, struct weir_err *err)
{
    const struct field_reader reader = {
        .file = file,
        .subject = name,
        .arena = config->arena,
        .err = err,
        .loose = loose,
    };
    struct yaml *root = NULL;
    const enum weir_status status = yaml_parse(config->arena, file, text, &root, err);
    return status == WEIR_OK ? field_read_table(&reader, &model_table, root, config) : status;
}

static enum weir_status read_override(struct model_config *config, const char *name,
                                      const char *override, struct weir_err *err)
{
    const size_t size = strlen(override);
    if (size > MODELCONFIG_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL, "config override: found %zu bytes, expected at most %d",
                       size, MODELCONFIG_BYTES_MAX);
    }
    config->json = arena_try_strndup(config->arena, override, size);
    if (config->json == NULL) {
        return err_nomem(err, "a config override", size);
    }
    return modelconfig_parse(config, name, "config override", bytes_of(override), true, err);
}

static enum weir_status note_pbtxt(struct model_config *config, int folder_fd)
{
    int fd;
    if (file_open_beneath(folder_fd, "config.pbtxt", false, &fd, NULL) != WEIR_OK) {
        return WEIR_OK;
    }
    (void)close(fd);
    config->remark = "config.pbtxt is there but not read yet: everything is inferred from the "
                     "model; write model.yaml to set it";
    return WEIR_OK;
}

static enum weir_status read_file(struct model_config *config, const char *name, int folder_fd,
                                  struct weir_err *err)
{
    struct buffer text = { 0 };
    enum weir_status status = file_read(folder_fd, "model.yaml", MODELCONFIG_BYTES_MAX, &text, err);
    if (status == WEIR_ENOENT) {
        status = note_pbtxt(config, folder_fd);
    } else if (status == WEIR_OK) {
        status = modelconfig_parse(config, name, "model.yaml",
                                   (struct bytes){ text.data, text.size }, false, err);
    }
    buffer_finish(&text);
    return status;
}

enum weir_status modelconfig_read(void *context, const char *name, int folder_fd,
                                  const char *override, struct model_config **out,
                                  struct weir_err *err)
{
    (void)context;
    struct model_config *config = effective_create();
    if (config == NULL) {
        return err_nomem(err, "a model's configuration", sizeof(*config));
    }
    const enum weir_status status = override != NULL ? read_override(config, name, override, err)
                                                     : read_file(config, name, folder_fd, err);
    if (status != WEIR_OK) {
        config->release(config);
        return status;
    }
    *out = config;
    return WEIR_OK;
}

void modelconfig_document(struct buffer *out)
{
    field_document(&model_table, 0, out);
}
