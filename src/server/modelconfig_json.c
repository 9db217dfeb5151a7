/*
 * ModelConfig as Triton prints it: names as in model_config.proto, every scalar
 * of a message that is there, messages that are not there left out.
 */
#include <string.h>

#include "backend/backend.h"
#include "server/modelconfig.h"
#include "tensor/tensor.h"
#include "util/clock.h"
#include "util/json.h"

static void text_member(struct buffer *out, const char *key, const char *value)
{
    json_key(out, key);
    json_string(out, value == NULL ? "" : value);
}

static void bool_member(struct buffer *out, const char *key, bool value)
{
    json_key(out, key);
    json_bool(out, value);
}

static void u64_member(struct buffer *out, const char *key, uint64_t value)
{
    json_key(out, key);
    buffer_u64(out, value);
}

static void raw_member(struct buffer *out, const char *key, const char *value)
{
    json_key(out, key);
    buffer_text(out, value);
}

static void type_member(struct buffer *out, enum dtype dtype)
{
    json_key(out, "data_type");
    buffer_printf(out, "\"TYPE_%s\"", dtype == DTYPE_BYTES ? "STRING" : dtype_text(dtype));
}

static void dims_member(struct buffer *out, const struct shape *dims)
{
    char text[SHAPE_TEXT];
    raw_member(out, "dims", shape_format(dims, text));
}

static void write_input(const struct io_config *io, bool optional, struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '{');
    text_member(out, "name", io->name);
    type_member(out, io->dtype);
    text_member(out, "format", "FORMAT_NONE");
    dims_member(out, &io->dims);
    bool_member(out, "is_shape_tensor", false);
    bool_member(out, "allow_ragged_batch", false);
    bool_member(out, "optional", optional);
    bool_member(out, "is_non_linear_format_io", false);
    buffer_char(out, '}');
}

static void write_output(const struct io_config *io, struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '{');
    text_member(out, "name", io->name);
    type_member(out, io->dtype);
    dims_member(out, &io->dims);
    text_member(out, "label_filename", io->label_file);
    bool_member(out, "is_shape_tensor", false);
    bool_member(out, "is_non_linear_format_io", false);
    buffer_char(out, '}');
}

static void write_tensors(const struct model *model, struct buffer *out)
{
    const struct model_config *config = model->config;
    json_key(out, "input");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < config->input_count; i++) {
        write_input(&config->inputs[i], model->signature->inputs[i].optional, out);
    }
    buffer_char(out, ']');
    json_key(out, "output");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < config->output_count; i++) {
        write_output(&config->outputs[i], out);
    }
    buffer_char(out, ']');
}

static void write_policy(const struct model_config *config, struct buffer *out)
{
    json_key(out, "version_policy");
    switch (config->policy) {
    case VERSION_ALL:
        buffer_text(out, "{\"all\":{}}");
        return;
    case VERSION_LATEST:
        buffer_text(out, "{\"latest\":{\"num_versions\":");
        buffer_u64(out, config->policy_count);
        buffer_text(out, "}}");
        return;
    case VERSION_SPECIFIC:
        break;
    }
    buffer_text(out, "{\"specific\":{\"versions\":[");
    for (uint32_t i = 0; i < config->policy_count; i++) {
        json_comma(out);
        buffer_i64(out, config->policy_versions[i]);
    }
    buffer_text(out, "]}}");
}

static void write_queue_policy(const struct model_config *config, struct buffer *out)
{
    const bool timed = config->queue_timeout_ns != CLOCK_NEVER;
    if (!timed && !config->timeout_override && config->requests_max == 0) {
        return;
    }
    json_key(out, "default_queue_policy");
    buffer_char(out, '{');
    text_member(out, "timeout_action", "REJECT");
    u64_member(out, "default_timeout_microseconds",
               timed ? config->queue_timeout_ns / NS_PER_US : 0);
    bool_member(out, "allow_timeout_override", config->timeout_override);
    u64_member(out, "max_queue_size", config->requests_max);
    buffer_char(out, '}');
}

static void write_batching(const struct model *model, struct buffer *out)
{
    const struct model_config *config = model->config;
    if (!config->dynamic_batching && !model->batching) {
        return;
    }
    json_key(out, "dynamic_batching");
    buffer_char(out, '{');
    json_key(out, "preferred_batch_size");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < config->preferred_count; i++) {
        json_comma(out);
        buffer_u64(out, config->preferred[i]);
    }
    if (config->preferred_count == 0 && config->max_batch_size > 0) {
        buffer_i64(out, config->max_batch_size);
    }
    buffer_char(out, ']');
    u64_member(out, "max_queue_delay_microseconds", config->queue_delay_ns / NS_PER_US);
    bool_member(out, "preserve_ordering", false);
    u64_member(out, "priority_levels", config->priority_levels);
    u64_member(out, "default_priority_level", config->priority_default);
    write_queue_policy(config, out);
    raw_member(out, "priority_queue_policy", "{}");
    buffer_char(out, '}');
}

static void write_instances(const struct model *model, struct buffer *out)
{
    json_key(out, "instance_group");
    buffer_text(out, "[{");
    text_member(out, "name", model->name);
    text_member(out, "kind", "KIND_CPU");
    u64_member(out, "count",
               model->config->instances > 0 ? model->config->instances : model->instance_count);
    raw_member(out, "gpus", "[]");
    raw_member(out, "secondary_devices", "[]");
    raw_member(out, "profile", "[]");
    bool_member(out, "passive", false);
    text_member(out, "host_policy", "");
    buffer_text(out, "}]");
}

static void write_parameters(const struct model_config *config, struct buffer *out)
{
    json_key(out, "parameters");
    buffer_char(out, '{');
    for (uint32_t i = 0; i < config->setting_count; i++) {
        json_comma(out);
        json_string(out, config->settings[i].key);
        buffer_text(out, ":{\"string_value\":");
        json_string(out, config->settings[i].value);
        buffer_char(out, '}');
    }
    buffer_char(out, '}');
}

static void write_warmup(const struct warmup_config *warmup, struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '{');
    text_member(out, "name", warmup->name);
    u64_member(out, "batch_size", warmup->batch_size);
    json_key(out, "inputs");
    buffer_char(out, '{');
    for (uint32_t i = 0; i < warmup->input_count; i++) {
        json_comma(out);
        json_string(out, warmup->inputs[i].input);
        buffer_text(out, ":{");
        type_member(out, warmup->inputs[i].dtype);
        dims_member(out, &warmup->inputs[i].dims);
        if (warmup->inputs[i].kind == WARMUP_FILE) {
            text_member(out, "input_data_file", warmup->inputs[i].file);
        } else {
            bool_member(out, warmup->inputs[i].kind == WARMUP_RANDOM ? "random_data" : "zero_data",
                        true);
        }
        buffer_char(out, '}');
    }
    buffer_char(out, '}');
    u64_member(out, "count", warmup->count);
    buffer_char(out, '}');
}

static void write_warmups(const struct model_config *config, struct buffer *out)
{
    json_key(out, "model_warmup");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < config->warmup_count; i++) {
        write_warmup(&config->warmups[i], out);
    }
    buffer_char(out, ']');
}

static const char *file_name(const struct model_config *config)
{
    const bool onnx = config->backend != NULL && strcmp(config->backend, "onnxruntime") == 0;
    return config->file_name != NULL ? config->file_name : onnx ? "model.onnx" : "";
}

void modelconfig_to_json(const struct model *model, struct buffer *out)
{
    const struct model_config *config = model->config;
    buffer_char(out, '{');
    text_member(out, "name", model->name);
    text_member(out, "platform", config->platform);
    text_member(out, "backend", config->backend);
    text_member(out, "runtime", "");
    write_policy(config, out);
    json_key(out, "max_batch_size");
    buffer_i64(out, config->max_batch_size);
    write_tensors(model, out);
    raw_member(out, "batch_input", "[]");
    raw_member(out, "batch_output", "[]");
    write_batching(model, out);
    write_instances(model, out);
    text_member(out, "default_model_filename", file_name(config));
    raw_member(out, "cc_model_filenames", "{}");
    raw_member(out, "metric_tags", "{}");
    write_parameters(config, out);
    write_warmups(config, out);
    if (model->signature->streams) {
        raw_member(out, "model_transaction_policy", "{\"decoupled\":true}");
    }
    buffer_char(out, '}');
}
