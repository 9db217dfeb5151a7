/*
 * Ensembles: steps, and which tensor of the ensemble each step's tensors are.
 */
#include "server/modelconfig_tables.h"

/* A map from a step's tensors to the ensemble's. */
static enum weir_status read_links(const struct field_reader *reader, const struct yaml *node,
                                   struct ensemble_link **out, uint32_t *out_count)
{
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map from the model's tensors to the ensemble's");
    }
    struct ensemble_link *links = arena_try_zero(reader->arena, node->count, sizeof(*links));
    if (links == NULL) {
        return err_nomem(reader->err, node->file, node->count * sizeof(*links));
    }
    const struct field row = { .key = "a tensor of the ensemble" };
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        struct ensemble_link *link = &links[count++];
        link->model_tensor = item->key;
        enum weir_status status = field_text(reader, &row, item, &link->ensemble_tensor);
        status =
            status == WEIR_OK ? field_need(reader, item, link->ensemble_tensor, "a name") : status;
        if (status != WEIR_OK) {
            return status;
        }
    }
    *out = links;
    *out_count = count;
    return WEIR_OK;
}

static enum weir_status read_input_map(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    (void)field;
    struct ensemble_step *step = target;
    return read_links(reader, node, &step->inputs, &step->input_count);
}

static enum weir_status read_output_map(const struct field_reader *reader,
                                        const struct field *field, const struct yaml *node,
                                        void *target)
{
    (void)field;
    struct ensemble_step *step = target;
    return read_links(reader, node, &step->outputs, &step->output_count);
}

/* 0 is what protobuf has for a version that nobody set. */
static enum weir_status read_version(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct ensemble_step *step = target;
    const enum weir_status status = field_i64(reader, field, node, target);
    if (status == WEIR_OK && step->version == 0) {
        step->version = -1;
    }
    return status;
}

static const struct field step_fields[] = {
    FIELD("model_name", field_text, "text", "a model of this server", AT(ensemble_step, model)),
    FIELD_RANGE("model_version", read_version, "version", "-1: the latest that is ready",
                AT(ensemble_step, version), -1, INT64_MAX),
    FIELD_FORM(FORM_MAP, "input_map", read_input_map, "map",
               "the model's inputs to the ensemble's tensors", NULL),
    FIELD_FORM(FORM_MAP, "output_map", read_output_map, "map",
               "the model's outputs to the ensemble's tensors", NULL),
    FIELD_REFUSED("model_namespace", "models have names, not namespaces"),
};
static const struct field_table step_table = FIELD_TABLE(step_fields);

static enum weir_status read_steps(const struct field_reader *reader, const struct field *field,
                                   const struct yaml *node, void *target)
{
    struct ensemble_config *ensemble = target;
    void *memory = NULL;
    uint32_t count = 0;
    enum weir_status status =
        field_read_items(reader, field, node, sizeof(struct ensemble_step), &memory, &count);
    struct ensemble_step *steps = memory;
    const struct yaml *item = node->first;
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        status = field_need(reader, item, steps[i].model, "model_name");
        steps[i].version = steps[i].version == 0 ? -1 : steps[i].version;
        item = item->next;
    }
    if (status == WEIR_OK) {
        ensemble->steps = steps;
        ensemble->step_count = count;
    }
    return status;
}

static const struct field ensemble_fields[] = {
    FIELD_FORM(FORM_LIST, "step", read_steps, "list", "the models, in any order", &step_table),
    FIELD_RANGE("max_inflight_requests", field_u32, "count",
                "requests of one step at a time; 0: no limit", AT(ensemble_config, inflight_max), 0,
                UINT32_MAX),
};
const struct field_table modelconfig_ensemble_table = FIELD_TABLE(ensemble_fields);

enum weir_status modelconfig_ensemble(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    struct ensemble_config *ensemble = &((struct model_config *)target)->ensemble;
    const enum weir_status status = field_read_table(reader, field->table, node, ensemble);
    return status == WEIR_OK && ensemble->step_count == 0
               ? field_refuse(reader, node, "at least one step")
               : status;
}
