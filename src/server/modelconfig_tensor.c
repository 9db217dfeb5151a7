/*
 * Tensors as a configuration declares them, and the data of warm-up runs.
 */
#include <assert.h>
#include <string.h>
#include <strings.h>

#include "server/modelconfig_tables.h"
#include "tensor/tensor.h"

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

/* modelconfig_dtype() and modelconfig_dims() write a value and the flag behind it. */
static_assert(offsetof(struct io_config, has_dtype) ==
                  offsetof(struct io_config, dtype) + sizeof(enum dtype),
              "flag behind dtype");
static_assert(offsetof(struct io_config, has_dims) ==
                  offsetof(struct io_config, dims) + sizeof(struct shape),
              "flag behind dims");
static_assert(offsetof(struct io_config, has_reshape) ==
                  offsetof(struct io_config, reshape) + sizeof(struct shape),
              "flag behind reshape");
static_assert(offsetof(struct warmup_input, has_dtype) ==
                  offsetof(struct warmup_input, dtype) + sizeof(enum dtype),
              "flag behind dtype");
static_assert(offsetof(struct warmup_input, has_dims) ==
                  offsetof(struct warmup_input, dims) + sizeof(struct shape),
              "flag behind dims");

/* In the order of protobuf's numbers. */
static const char *const dtype_words[] = {
    NULL,    "BOOL",  "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
    "INT32", "INT64", "FP16",  "FP32",   "FP64",   "STRING", "BF16", "BYTES",
};
static const struct field_words dtypes = {
    "TYPE_",
    dtype_words,
    sizeof(dtype_words) / sizeof(dtype_words[0]),
    "a data type such as TYPE_FP32, FP32 or TYPE_STRING",
};

enum weir_status modelconfig_dtype(const struct field_reader *reader, const struct field *field,
                                   const struct yaml *node, void *target)
{
    const struct field row = { .key = field->key, .words = &dtypes };
    unsigned number = 0;
    const enum weir_status status = field_enum(reader, &row, node, &number);
    if (status != WEIR_OK) {
        return status;
    }
    const char *word = strcmp(dtype_words[number], "STRING") == 0 ? "BYTES" : dtype_words[number];
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(word, dtype_text((enum dtype)i)) == 0) {
            enum dtype *out = field_place(field, target);
            *out = (enum dtype)i;
            *(bool *)(out + 1) = true;
        }
    }
    return WEIR_OK;
}

enum weir_status modelconfig_dims(const struct field_reader *reader, const struct field *field,
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
            yaml_i64(item, node->file, -1, TENSOR_ELEMENTS_MAX, &dim, reader->err);
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

static const struct field reshape_fields[] = {
    FIELD_FORM_AT(FORM_LIST, "shape", modelconfig_dims, "list of sizes",
                  "what the model has where clients see dims", AT(io_config, reshape)),
};
static const struct field_table reshape_table = FIELD_TABLE(reshape_fields);

/* A reshape without `shape` is one to a scalar. */
static enum weir_status read_reshape(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct io_config *io = target;
    io->reshape = (struct shape){ 0 };
    io->has_reshape = true;
    return field_read_table(reader, field->table, node, target);
}

#define NAME_FIELD(what) FIELD("name", field_text, "text", what, AT(io_config, name))
#define TYPE_FIELD                                                                  \
    FIELD("data_type", modelconfig_dtype, "data type", "checked against the model", \
          AT(io_config, dtype))
#define DIMS_FIELD                                                                               \
    FIELD_FORM_AT(FORM_LIST, "dims", modelconfig_dims, "list of sizes",                          \
                  "without the batch dimension where max_batch_size is above 0; clients see it", \
                  AT(io_config, dims))
#define RESHAPE_FIELD                                                                       \
    FIELD_NESTED("reshape", read_reshape, "map", "the model sees the tensor in this shape", \
                 &reshape_table)
#define SHAPE_TENSOR_FIELD                                                                       \
    FIELD_REFUSED("is_shape_tensor", "only TensorRT has shape tensors; the ONNX file says what " \
                                     "each input is")
#define NON_LINEAR_FIELD                                                                         \
    FIELD_REFUSED("is_non_linear_format_io", "only TensorRT has such layouts; the ONNX runtime " \
                                             "takes rows in order")

static const struct field input_fields[] = {
    NAME_FIELD("an input of the model"),
    TYPE_FIELD,
    DIMS_FIELD,
    RESHAPE_FIELD,
    FIELD_NOTHING("optional", "true or false", "no effect: the model file says it"),
    FIELD_NOTHING("format", "FORMAT_NCHW ...", "no effect: a note for people"),
    FIELD_REFUSED("allow_ragged_batch",
                  "ragged batching joins rows of different lengths, which Weir does not; without "
                  "it, only requests of equal shape share a run"),
    SHAPE_TENSOR_FIELD,
    NON_LINEAR_FIELD,
};
const struct field_table modelconfig_input_table = FIELD_TABLE(input_fields);

static const struct field output_fields[] = {
    NAME_FIELD("an output of the model"),
    TYPE_FIELD,
    DIMS_FIELD,
    RESHAPE_FIELD,
    FIELD("label_filename", field_text, "file",
          "labels of the classes, one per line, in the model's folder", AT(io_config, label_file)),
    SHAPE_TENSOR_FIELD,
    NON_LINEAR_FIELD,
};
const struct field_table modelconfig_output_table = FIELD_TABLE(output_fields);

static enum weir_status read_ios(const struct field_reader *reader, const struct field *field,
                                 const struct yaml *node, struct io_config **out,
                                 uint32_t *out_count)
{
    void *memory = NULL;
    uint32_t count = 0;
    enum weir_status status =
        field_read_items(reader, field, node, sizeof(struct io_config), &memory, &count);
    struct io_config *items = memory;
    const struct yaml *item = node->first;
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        status = field_need(reader, item, items[i].name, "a name in it");
        item = item->next;
    }
    if (status == WEIR_OK) {
        *out = items;
        *out_count = count;
    }
    return status;
}

enum weir_status modelconfig_inputs(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    struct model_config *config = target;
    return read_ios(reader, field, node, &config->inputs, &config->input_count);
}

enum weir_status modelconfig_outputs(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct model_config *config = target;
    return read_ios(reader, field, node, &config->outputs, &config->output_count);
}

/* ---- model_warmup ---------------------------------------------------------------------------- */

static const struct field warmup_input_fields[] = {
    FIELD("data_type", modelconfig_dtype, "data type", "as the model has it",
          AT(warmup_input, dtype)),
    FIELD_FORM_AT(FORM_LIST, "dims", modelconfig_dims, "list of sizes", "of one row, without -1",
                  AT(warmup_input, dims)),
    FIELD_CHOICE("zero_data", field_bool, "true", "zeros", AT(warmup_input, zero), NULL),
    FIELD_CHOICE("random_data", field_bool, "true", "made-up numbers", AT(warmup_input, random),
                 NULL),
    FIELD_CHOICE("input_data_file", field_text, "file",
                 "one row's bytes, in the model's folder warmup", AT(warmup_input, file), NULL),
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
        return err_nomem(reader->err, node->file, node->count * sizeof(*warmup->inputs));
    }
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        struct warmup_input input = { .input = item->key };
        enum weir_status status = field_read_table(reader, field->table, item, &input);
        status = status == WEIR_OK ? check_warmup_input(reader, item, &input) : status;
        if (status != WEIR_OK) {
            return status;
        }
        warmup->inputs[warmup->input_count++] = (struct warmup_data){
            .input = input.input,
            .dims = input.dims,
            .dtype = input.dtype,
            .kind = input.zero     ? WARMUP_ZERO
                    : input.random ? WARMUP_RANDOM
                                   : WARMUP_FILE,
            .file = input.file,
        };
    }
    return WEIR_OK;
}

static const struct field warmup_fields[] = {
    FIELD("name", field_text, "text", "any, for messages", AT(warmup_config, name)),
    FIELD_RANGE("batch_size", field_u32, "rows", "of the run, where the model batches",
                AT(warmup_config, batch_size), 0, 65536),
    FIELD_RANGE("count", field_u32, "count", "how often; 0: once", AT(warmup_config, count), 0,
                1000),
    FIELD_FORM(FORM_MAP, "inputs", read_warmup_inputs, "map by input name", "the data",
               &warmup_input_table),
};
const struct field_table modelconfig_warmup_table = FIELD_TABLE(warmup_fields);

enum weir_status modelconfig_warmups(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct model_config *config = target;
    void *memory = NULL;
    const enum weir_status status = field_read_items(
        reader, field, node, sizeof(struct warmup_config), &memory, &config->warmup_count);
    config->warmups = memory;
    return status;
}
