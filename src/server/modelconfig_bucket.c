/*
 * Lengths that share runs.
 */
#include "server/modelconfig_tables.h"

#define SIZE_MAX_LENGTH (1 << 24)
#define PAD_MAX (INT64_C(1) << 53) /* Any number that a double holds exactly. */

static enum weir_status read_sizes(const struct field_reader *reader, const struct field *field,
                                   const struct yaml *node, void *target)
{
    static const char expected[] = "a list of 1 to 32 ascending sizes such as [64, 128, 256]";
    (void)field;
    struct bucket_config *bucket = target;
    if (node->kind != YAML_LIST || node->count < 1 || node->count > MODEL_BUCKET_SIZES_MAX) {
        return field_refuse(reader, node, expected);
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        int64_t size = 0;
        const enum weir_status status =
            yaml_i64(item, node->file, 1, SIZE_MAX_LENGTH, &size, reader->err);
        if (status != WEIR_OK) {
            return status;
        }
        if (count > 0 && (uint32_t)size <= bucket->sizes[count - 1]) {
            return field_refuse(reader, node, expected);
        }
        bucket->sizes[count++] = (uint32_t)size;
    }
    bucket->size_count = count;
    return WEIR_OK;
}

static const struct field bucket_fields[] = {
    FIELD("input", field_text, "text", "an input of the model", AT(bucket_config, input)),
    FIELD_RANGE("dim", field_u32, "number", "which of its dimensions; 0 is the batch",
                AT(bucket_config, dim), 1, TENSOR_RANK_MAX - 1),
    FIELD_FORM(FORM_LIST, "sizes", read_sizes, "list of sizes",
               "to the next of which it is padded; once for each symbolic dimension", NULL),
    FIELD_RANGE("pad", field_double, "number", "what is put behind; 0", AT(bucket_config, pad),
                -PAD_MAX, PAD_MAX),
};
const struct field_table modelconfig_bucket_table = FIELD_TABLE(bucket_fields);

static enum weir_status check(const struct field_reader *reader, const struct yaml *node,
                              const struct bucket_config *bucket)
{
    static const char expected[] = "input and dim in it";
    const enum weir_status status = field_need(reader, node, bucket->input, expected);
    return status == WEIR_OK && bucket->dim == 0 ? field_refuse(reader, node, expected) : status;
}

/* One bucket may stand without a list. */
enum weir_status modelconfig_buckets(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct model_config *config = target;
    const bool one = node->kind == YAML_MAP;
    void *memory = NULL;
    uint32_t count = 1;
    enum weir_status status;
    if (one) {
        memory = arena_try_zero(reader->arena, 1, sizeof(struct bucket_config));
        status = memory == NULL ? err_nomem(reader->err, node->file, sizeof(struct bucket_config))
                                : field_read_table(reader, field->table, node, memory);
    } else {
        status =
            field_read_items(reader, field, node, sizeof(struct bucket_config), &memory, &count);
    }
    const struct yaml *item = one ? node : node->first;
    struct bucket_config *buckets = memory;
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        status = check(reader, item, &buckets[i]);
        item = one ? NULL : item->next;
    }
    if (status == WEIR_OK && count > MODEL_BUCKETS_MAX) {
        status = field_refuse(reader, node, "at most 4 entries");
    }
    if (status == WEIR_OK) {
        config->buckets = buckets;
        config->bucket_count = count;
    }
    return status;
}
