/*
 * Models that no file describes.  A simulated one is loaded, under a clock that stands still: its
 * settings are all that it has, and nothing foreign runs.  What a plug-in would load is known to
 * that plug-in alone.
 */
#include <stdio.h>
#include <string.h>

#include "engine/effective.h"
#include "server/inspect_impl.h"
#include "util/json.h"

bool inspect_is_plain(const struct model_config *config)
{
    const char *name =
        config->backend != NULL && config->backend[0] != '\0' ? config->backend : config->platform;
    return config->ensemble.step_count > 0 ||
           (name != NULL && name[0] != '\0' && strncmp(name, "onnx", 4) != 0);
}

static enum weir_status load(struct inspection *self, const struct backend_ops *ops,
                             struct weir_err *err)
{
    const struct model_config *config = self->config;
    clock_init_manual(&self->clock, NS_PER_S);
    self->blocks = block_pool_create(0);
    const struct backend_load how = { .model_name = self->name,
                                      .version = self->version,
                                      .folder_fd = -1,
                                      .intra_threads = 1,
                                      .contexts_max = 1,
                                      .settings = config->settings,
                                      .setting_count = config->setting_count,
                                      .clock = &self->clock,
                                      .blocks = self->blocks };
    const enum weir_status status = backend_load(ops, &how, &self->simulated, err);
    if (status == WEIR_OK) {
        self->signature = *backend_signature(self->simulated);
    }
    return status;
}

void inspect_plain_judge(struct inspection *self)
{
    const struct backend_ops *ops = NULL;
    if (self->problem.text[0] != '\0' || self->config->ensemble.step_count > 0) {
        return; /* What an ensemble's steps take and give is known where they are loaded. */
    }
    enum weir_status status = effective_backend(self->config, &ops, &self->problem);
    if (status == WEIR_OK) {
        status = load(self, ops, &self->problem);
    }
    if (status == WEIR_OK) {
        (void)!inspect_complete(self, &self->problem);
    }
}

void inspect_plain_finish(struct inspection *self)
{
    backend_unload(self->simulated);
    block_pool_destroy(self->blocks);
}

static void write_specs(struct buffer *out, const char *verb, const struct tensor_spec *specs,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char shape[SHAPE_TEXT];
        buffer_printf(out, "  %s  %s  %s %s\n", verb, specs[i].name, dtype_text(specs[i].dtype),
                      shape_format(&specs[i].shape, shape));
    }
}

void inspect_plain_text(const struct inspection *self, struct buffer *out)
{
    const struct model_config *config = self->config;
    buffer_printf(out, "%s   %s\n\n", self->folder,
                  config->ensemble.step_count > 0 ? "an ensemble"
                  : self->simulated != NULL       ? "a simulated model"
                                                  : "no ONNX model");
    write_specs(out, "takes", self->signature.inputs, self->signature.input_count);
    write_specs(out, "gives", self->signature.outputs, self->signature.output_count);
}

static void specs_json(struct buffer *out, const char *key, const struct tensor_spec *specs,
                       uint32_t count)
{
    json_key(out, key);
    buffer_char(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        char shape[SHAPE_TEXT];
        json_comma(out);
        buffer_text(out, "{\"name\":");
        json_string(out, specs[i].name);
        json_key(out, "kind");
        json_string(out, "a tensor");
        json_key(out, "datatype");
        json_string(out, dtype_text(specs[i].dtype));
        json_key(out, "shape");
        buffer_text(out, shape_format(&specs[i].shape, shape));
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

void inspect_plain_json(const struct inspection *self, struct buffer *out)
{
    specs_json(out, "inputs", self->signature.inputs, self->signature.input_count);
    specs_json(out, "outputs", self->signature.outputs, self->signature.output_count);
}
