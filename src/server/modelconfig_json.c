/*
 * ModelConfig as Triton prints it: names as in model_config.proto, every scalar
 * of a message that is there, messages that are not there left out.
 */
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "engine/placement.h"
#include "engine/pool.h"
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

static void shape_member(struct buffer *out, const char *key, const struct shape *dims)
{
    char text[SHAPE_TEXT];
    raw_member(out, key, shape_format(dims, text));
}

static void dims_member(struct buffer *out, const struct shape *dims)
{
    shape_member(out, "dims", dims);
}

static void open_member(struct buffer *out, const char *key, char bracket)
{
    json_key(out, key);
    buffer_char(out, bracket);
}

static void open_item(struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '{');
}

static void sizes_member(struct buffer *out, const char *key, const uint32_t *sizes, uint32_t count)
{
    open_member(out, key, '[');
    for (uint32_t i = 0; i < count; i++) {
        json_comma(out);
        buffer_u64(out, sizes[i]);
    }
    buffer_char(out, ']');
}

static void reshape_member(const struct io_config *io, struct buffer *out)
{
    if (io->has_reshape) {
        open_member(out, "reshape", '{');
        shape_member(out, "shape", &io->reshape);
        buffer_char(out, '}');
    }
}

static void write_input(const struct io_config *io, bool optional, struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '{');
    text_member(out, "name", io->name);
    type_member(out, io->dtype);
    text_member(out, "format", "FORMAT_NONE");
    dims_member(out, &io->dims);
    reshape_member(io, out);
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
    reshape_member(io, out);
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
        const bool known = i < model->signature->input_count;
        write_input(&config->inputs[i], known && model->signature->inputs[i].optional, out);
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

static void write_policy_members(const struct queue_policy *policy, struct buffer *out)
{
    const bool timed = policy->timeout_ns != CLOCK_NEVER;
    text_member(out, "timeout_action", policy->timeout_delay ? "DELAY" : "REJECT");
    u64_member(out, "default_timeout_microseconds", timed ? policy->timeout_ns / NS_PER_US : 0);
    bool_member(out, "allow_timeout_override", policy->timeout_override);
    u64_member(out, "max_queue_size", policy->requests_max);
    buffer_char(out, '}');
}

static void write_queue_policies(const struct model_config *config, struct buffer *out)
{
    const struct queue_policy all = { .timeout_ns = config->queue_timeout_ns,
                                      .timeout_override = config->timeout_override,
                                      .timeout_delay = config->timeout_delay,
                                      .requests_max = config->requests_max };
    if (all.timeout_ns != CLOCK_NEVER || all.timeout_override || all.timeout_delay ||
        all.requests_max > 0) {
        open_member(out, "default_queue_policy", '{');
        write_policy_members(&all, out);
    }
    open_member(out, "priority_queue_policy", '{');
    for (uint32_t i = 0; config->levels != NULL && i < config->priority_levels; i++) {
        if (config->levels[i].set) {
            char level[16];
            (void)snprintf(level, sizeof(level), "%u", i + 1);
            open_member(out, level, '{');
            write_policy_members(&config->levels[i], out);
        }
    }
    buffer_char(out, '}');
}

static void write_batching(const struct model *model, struct buffer *out)
{
    const struct model_config *config = model->config;
    open_member(out, "dynamic_batching", '{');
    if (config->preferred_count == 0 && config->max_batch_size > 0) {
        const uint32_t largest = (uint32_t)config->max_batch_size;
        sizes_member(out, "preferred_batch_size", &largest, 1);
    } else {
        sizes_member(out, "preferred_batch_size", config->preferred, config->preferred_count);
    }
    u64_member(out, "max_queue_delay_microseconds", config->queue_delay_ns / NS_PER_US);
    bool_member(out, "preserve_ordering", false);
    u64_member(out, "priority_levels", config->priority_levels);
    u64_member(out, "default_priority_level", config->priority_default);
    write_queue_policies(config, out);
    buffer_char(out, '}');
}

static void pair_member(struct buffer *out, const struct sequence_control *control,
                        enum dtype dtype, const char *key)
{
    open_member(out, key, '[');
    for (int i = 0; i < 2 && control->kind != SEQUENCE_CORRID && control->dtype == dtype; i++) {
        json_comma(out);
        if (dtype == DTYPE_BOOL) {
            json_bool(out, control->false_true[i] != 0);
        } else if (dtype == DTYPE_INT32) {
            buffer_i64(out, (int64_t)control->false_true[i]);
        } else {
            json_double(out, control->false_true[i]);
        }
    }
    buffer_char(out, ']');
}

static void write_control(const struct sequence_control *control, struct buffer *out)
{
    static const char *const kinds[] = {
#define KIND_TEXT(name, text) "CONTROL_SEQUENCE_" text,
        SEQUENCE_CONTROLS(KIND_TEXT)
#undef KIND_TEXT
    };
    open_item(out);
    text_member(out, "name", control->input);
    open_member(out, "control", '[');
    open_item(out);
    text_member(out, "kind", kinds[control->kind]);
    pair_member(out, control, DTYPE_INT32, "int32_false_true");
    pair_member(out, control, DTYPE_FP32, "fp32_false_true");
    pair_member(out, control, DTYPE_BOOL, "bool_false_true");
    if (control->kind == SEQUENCE_CORRID) {
        type_member(out, control->dtype);
    } else {
        text_member(out, "data_type", "TYPE_INVALID");
    }
    buffer_text(out, "}]}");
}

static void write_state(const struct sequence_state *state, struct buffer *out)
{
    open_item(out);
    text_member(out, "input_name", state->input);
    text_member(out, "output_name", state->output);
    type_member(out, state->dtype);
    dims_member(out, &state->dims);
    open_member(out, "initial_state", '[');
    if (state->has_initial_dims || state->initial_file != NULL) {
        open_item(out);
        type_member(out, state->dtype);
        dims_member(out, state->has_initial_dims ? &state->initial_dims : &state->dims);
        if (state->initial_file != NULL) {
            text_member(out, "data_file", state->initial_file);
        } else {
            bool_member(out, "zero_data", true);
        }
        text_member(out, "name", "");
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
    bool_member(out, "use_same_buffer_for_input_output", false);
    bool_member(out, "use_growable_memory", false);
    buffer_char(out, '}');
}

static void write_strategy(const struct sequence_config *sequence, struct buffer *out)
{
    const bool direct = sequence->strategy == SEQUENCE_DIRECT;
    open_member(out, direct ? "direct" : "oldest", '{');
    if (!direct) {
        u64_member(out, "max_candidate_sequences", sequence->candidates_max);
        sizes_member(out, "preferred_batch_size", sequence->preferred, sequence->preferred_count);
    }
    u64_member(out, "max_queue_delay_microseconds", sequence->queue_delay_ns / NS_PER_US);
    if (direct) {
        json_key(out, "minimum_slot_utilization");
        json_double(out, sequence->slot_utilization_min);
    } else {
        bool_member(out, "preserve_ordering", false);
    }
    buffer_char(out, '}');
}

static void write_sequence(const struct sequence_config *sequence, struct buffer *out)
{
    open_member(out, "sequence_batching", '{');
    u64_member(out, "max_sequence_idle_microseconds", sequence->idle_ns / NS_PER_US);
    open_member(out, "control_input", '[');
    for (uint32_t i = 0; i < sequence->control_count; i++) {
        write_control(&sequence->controls[i], out);
    }
    buffer_char(out, ']');
    open_member(out, "state", '[');
    for (uint32_t i = 0; i < sequence->state_count; i++) {
        write_state(&sequence->states[i], out);
    }
    buffer_char(out, ']');
    write_strategy(sequence, out);
    bool_member(out, "iterative_sequence", false);
    buffer_char(out, '}');
}

static void links_member(struct buffer *out, const char *key, const struct ensemble_link *links,
                         uint32_t count)
{
    open_member(out, key, '{');
    for (uint32_t i = 0; i < count; i++) {
        text_member(out, links[i].model_tensor, links[i].ensemble_tensor);
    }
    buffer_char(out, '}');
}

static void write_ensemble(const struct ensemble_config *ensemble, struct buffer *out)
{
    open_member(out, "ensemble_scheduling", '{');
    open_member(out, "step", '[');
    for (uint32_t i = 0; i < ensemble->step_count; i++) {
        const struct ensemble_step *step = &ensemble->steps[i];
        open_item(out);
        text_member(out, "model_name", step->model);
        json_key(out, "model_version");
        buffer_i64(out, step->version);
        links_member(out, "input_map", step->inputs, step->input_count);
        links_member(out, "output_map", step->outputs, step->output_count);
        text_member(out, "model_namespace", "");
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
    u64_member(out, "max_inflight_requests", ensemble->inflight_max);
    buffer_char(out, '}');
}

/* At most one of them is there: what gathers requests. */
static void write_scheduling(const struct model *model, struct buffer *out)
{
    const struct model_config *config = model->config;
    if (config->ensemble.step_count > 0) {
        write_ensemble(&config->ensemble, out);
    } else if (config->sequence.strategy != SEQUENCE_NONE) {
        write_sequence(&config->sequence, out);
    } else if (config->dynamic_batching || model->batching) {
        write_batching(model, out);
    }
}

static void write_limiter(const struct model_config *config, struct buffer *out)
{
    if (config->resource_count == 0 && config->rate_priority == 0) {
        return;
    }
    open_member(out, "rate_limiter", '{');
    open_member(out, "resources", '[');
    for (uint32_t i = 0; i < config->resource_count; i++) {
        open_item(out);
        text_member(out, "name", config->resources[i].name);
        bool_member(out, "global", config->resources[i].global);
        u64_member(out, "count", config->resources[i].count);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
    u64_member(out, "priority", config->rate_priority);
    buffer_char(out, '}');
}

/* The numbers in the names of its devices. */
static void write_gpus(const struct model *model, bool gpu, struct buffer *out)
{
    json_key(out, "gpus");
    buffer_char(out, '[');
    for (uint32_t i = 0; gpu && i < model->replica_count; i++) {
        const char *name = model->pool->devices[model->replicas[i].device].name;
        size_t stem;
        json_comma(out);
        buffer_u64(out, bytes_number_at_end(bytes_of(name), &stem));
    }
    buffer_char(out, ']');
}

static void write_instances(const struct model *model, struct buffer *out)
{
    if (model->config->ensemble.step_count > 0) {
        raw_member(out, "instance_group", "[]");
        return;
    }
    json_key(out, "instance_group");
    buffer_text(out, "[{");
    text_member(out, "name", model->name);
    const bool gpu = model->pool != NULL && strcmp(model->pool->name, PLACEMENT_GPU_POOL) == 0;
    const uint32_t devices = model->replica_count > 0 ? model->replica_count : 1;
    text_member(out, "kind", gpu ? "KIND_GPU" : "KIND_CPU");
    u64_member(out, "count",
               model->config->instances > 0 ? model->config->instances
                                            : model->instance_count / devices);
    write_limiter(model->config, out);
    write_gpus(model, gpu, out);
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
    if (config->ensemble.step_count == 0) {
        raw_member(out, "optimization",
                   "{\"priority\":\"PRIORITY_DEFAULT\",\"input_pinned_memory\":{\"enable\":true},"
                   "\"output_pinned_memory\":{\"enable\":true},"
                   "\"gather_kernel_buffer_threshold\":0,\"eager_batching\":false}");
    }
    write_scheduling(model, out);
    write_instances(model, out);
    text_member(out, "default_model_filename", file_name(config));
    raw_member(out, "cc_model_filenames", "{}");
    raw_member(out, "metric_tags", "{}");
    write_parameters(config, out);
    write_warmups(config, out);
    if (model->signature->streams || config->decoupled) {
        raw_member(out, "model_transaction_policy", "{\"decoupled\":true}");
    }
    if (config->response_cache) {
        raw_member(out, "response_cache", "{\"enable\":true}");
    }
    buffer_char(out, '}');
}
