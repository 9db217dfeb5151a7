/*
 * Execution providers: a list of names, or of maps where there is more to say.
 */
#include "server/modelconfig_tables.h"

#define PROVIDERS_MAX 8

static enum weir_status read_options(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    (void)field;
    struct backend_provider *provider = target;
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map of texts");
    }
    struct setting *options = arena_try_zero(reader->arena, node->count, sizeof(*options));
    if (options == NULL) {
        return err_nomem(reader->err, node->file, node->count * sizeof(*options));
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        if (item->kind != YAML_SCALAR) {
            return field_refuse(reader, item, "a text");
        }
        options[count++] = (struct setting){ item->key, item->text };
    }
    provider->options = options;
    provider->option_count = count;
    return WEIR_OK;
}

static const struct field provider_fields[] = {
    FIELD("name", field_text, "text", "such as cuda, tensorrt, webgpu; cpu at the end: fall back",
          AT(backend_provider, name)),
    FIELD_RANGE("device_id", field_u32, "number", "which of its devices; that of `device`, or 0",
                AT(backend_provider, device_id), 0, 1023),
    FIELD("memory_limit", field_size, "size such as 4GiB", "of the device; 0: none",
          AT(backend_provider, memory_limit)),
    FIELD_FORM(FORM_MAP, "options", read_options, "map of texts", "the provider's own settings",
               NULL),
};
const struct field_table modelconfig_provider_table = FIELD_TABLE(provider_fields);

enum weir_status modelconfig_providers(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    static const char expected[] = "a list of names such as [cuda, cpu], cpu only at its end";
    struct model_config *config = target;
    void *memory = NULL;
    if (node->kind != YAML_LIST || node->count < 1 || node->count > PROVIDERS_MAX) {
        return field_refuse(reader, node, expected);
    }
    enum weir_status status = field_items(reader, node, sizeof(struct backend_provider), &memory);
    struct backend_provider *providers = memory;
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL && status == WEIR_OK;
         item = item->next) {
        struct backend_provider *provider = &providers[count++];
        provider->device_id = BACKEND_DEVICE_NAMED;
        if (item->kind == YAML_SCALAR) {
            provider->name = item->text;
        } else {
            status = field_read_table(reader, field->table, item, provider);
        }
        status = status == WEIR_OK ? field_need(reader, item, provider->name, "a name") : status;
        if (status == WEIR_OK && strcmp(provider->name, "cpu") == 0 && item->next != NULL) {
            status = field_refuse(reader, node, expected);
        }
    }
    if (status == WEIR_OK) {
        config->providers = providers;
        config->provider_count = count;
    }
    return status;
}
