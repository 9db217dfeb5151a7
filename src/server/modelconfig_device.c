/*
 * Where a model runs: devices, GPUs in Triton's words, memory nodes.
 */
#include "server/modelconfig_tables.h"

#define DEVICES_MAX 64
#define NODES_MAX 64

enum weir_status modelconfig_devices(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    (void)field;
    static const char expected[] = "a list of names such as [gpu0, gpu1]";
    struct model_config *config = target;
    if (node->kind != YAML_LIST || node->count < 1 || node->count > DEVICES_MAX) {
        return field_refuse(reader, node, expected);
    }
    const char **names = arena_try_zero(reader->arena, node->count, sizeof(*names));
    if (names == NULL) {
        return err_nomem(reader->err, "devices", node->count * sizeof(*names));
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        if (item->kind != YAML_SCALAR || item->text[0] == '\0') {
            return field_refuse(reader, item, expected);
        }
        names[count++] = item->text;
    }
    config->devices = names;
    config->device_count = count;
    return WEIR_OK;
}

enum weir_status modelconfig_gpus(const struct field_reader *reader, const struct field *field,
                                  const struct yaml *node, void *target)
{
    uint64_t *gpus = field_place(field, target);
    if (node->kind != YAML_LIST) {
        return field_refuse(reader, node, "a list of numbers such as [0, 1]");
    }
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        uint64_t number;
        if (item->kind != YAML_SCALAR ||
            !bytes_to_u64(bytes_of(item->text), DEVICES_MAX - 1, &number)) {
            return field_refuse(reader, item, "the number of a GPU, 0 to 63");
        }
        *gpus |= UINT64_C(1) << number;
    }
    return WEIR_OK;
}

enum weir_status modelconfig_numa_node(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    uint64_t number;
    if (node->kind != YAML_SCALAR || !bytes_to_u64(bytes_of(node->text), NODES_MAX - 1, &number)) {
        return field_refuse(reader, node, "the number of a memory node, 0 to 63");
    }
    *(uint64_t *)field_place(field, target) = UINT64_C(1) << number;
    return WEIR_OK;
}
