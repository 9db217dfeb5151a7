/*
 * Each object is walked once, key by key; a table of the keys that count says
 * where each goes.  A key that comes twice is refused: two readers of the same
 * text must not see two different requests.  Other keys are ignored, as in Triton.
 *
 * What a JSON meant is remembered where it says nothing about this one request
 * (no id, deadline or priority) and all its tensors are binary.
 */
#include "api/infer_json.h"

#include <stdio.h>
#include <string.h>

#include "api/kserve_shared.h"
#include "api/values.h"
#include "util/json.h"
#include "util/mem.h"

#define WHERE_BYTES 48
#define SHOWN(text) ((text).size > 128 ? 128 : (int)(text).size), (text).data

/* A key that an object may have, and where its value goes. */
struct slot {
    struct bytes key;
    yyjson_val *value; /* NULL: absent. */
};

#define SLOT(text)                 \
    {                              \
        .key = BYTES_LITERAL(text) \
    }

/* Which object is being read: "inputs[3]".  Put into words only for a sentence. */
struct position {
    const char *array; /* NULL: the request itself. */
    size_t index;
};

static const struct position the_request = { NULL, 0 };

static const char *position_text(struct position position, char out[WHERE_BYTES])
{
    if (position.array == NULL) {
        return "the request";
    }
    (void)snprintf(out, WHERE_BYTES, "%s[%zu]", position.array, position.index);
    return out;
}

static struct bytes text_of(yyjson_val *value)
{
    return (struct bytes){ yyjson_get_str(value), yyjson_get_len(value) };
}

/* Reads the object's members into the slots of the same key. */
static enum weir_status fill_slots(yyjson_val *object, struct position where, struct slot *slots,
                                   size_t count, struct weir_err *err)
{
    char text[WHERE_BYTES];
    if (!yyjson_is_obj(object)) {
        return err_set(err, WEIR_EINVAL, "%s: found %s, expected an object",
                       position_text(where, text), json_kind(object));
    }
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *value;
    yyjson_obj_foreach(object, index, max, key, value) {
        const struct bytes name = text_of(key);
        for (size_t i = 0; i < count; i++) {
            if (!bytes_equal(name, slots[i].key)) {
                continue;
            }
            if (slots[i].value != NULL) {
                return err_set(err, WEIR_EINVAL, "%s: found '%s' twice, expected it once",
                               position_text(where, text), slots[i].key.data);
            }
            slots[i].value = value;
            break;
        }
    }
    return WEIR_OK;
}

static enum weir_status expected(struct position where, const char *key, yyjson_val *found,
                                 const char *what, struct weir_err *err)
{
    char text[WHERE_BYTES];
    return err_set(err, WEIR_EINVAL, "Unable to parse '%s' of %s: found %s, expected %s", key,
                   position_text(where, text), found == NULL ? "nothing" : json_kind(found), what);
}

static enum weir_status read_string(struct position where, const char *key, yyjson_val *value,
                                    struct bytes *out, struct weir_err *err)
{
    if (!yyjson_is_str(value)) {
        return expected(where, key, value, "a string", err);
    }
    *out = text_of(value);
    return WEIR_OK;
}

static enum weir_status read_shape(struct position where, yyjson_val *value, struct shape *out,
                                   struct weir_err *err)
{
    if (!yyjson_is_arr(value)) {
        return expected(where, "shape", value, "an array of whole numbers", err);
    }
    if (yyjson_arr_size(value) > TENSOR_RANK_MAX) {
        char text[WHERE_BYTES];
        return err_set(err, WEIR_EINVAL, "%s: found a shape of %zu dimensions, expected at most %d",
                       position_text(where, text), yyjson_arr_size(value), TENSOR_RANK_MAX);
    }
    out->rank = 0;
    size_t index;
    size_t max;
    yyjson_val *dim;
    yyjson_arr_foreach(value, index, max, dim) {
        if (!yyjson_is_uint(dim) || yyjson_get_uint(dim) > INT64_MAX) {
            return expected(where, "shape", dim, "whole numbers from 0", err);
        }
        out->dims[out->rank++] = (int64_t)yyjson_get_uint(dim);
    }
    return WEIR_OK;
}

/* A number of bytes that may be left out. */
static enum weir_status read_bytes_number(struct position where, const char *key, yyjson_val *value,
                                          uint64_t *out, struct weir_err *err)
{
    *out = 0;
    if (value == NULL) {
        return WEIR_OK;
    }
    if (!yyjson_is_uint(value)) {
        return expected(where, key, value, "a whole number of bytes", err);
    }
    *out = yyjson_get_uint(value);
    return WEIR_OK;
}

#define SHARED_SLOTS \
    SLOT("shared_memory_region"), SLOT("shared_memory_offset"), SLOT("shared_memory_byte_size")

/* From SHARED_SLOTS; *given: the tensor lies in shared memory. */
static enum weir_status read_shared(const struct infer_call *call, struct position where,
                                    const struct slot *slots, bool *given, struct kserve_where *out,
                                    struct weir_err *err)
{
    enum weir_status status;
    *given = slots[0].value != NULL;
    if (!*given) {
        return WEIR_OK;
    }
    if (kserve_shared_allowed(call, err) != WEIR_OK) {
        char text[WHERE_BYTES];
        (void)err_prefix(err, "%s", position_text(where, text));
        return WEIR_EUNSUPPORTED;
    }
    if ((status = read_string(where, "shared_memory_region", slots[0].value, &out->region, err)) !=
            WEIR_OK ||
        (status = read_bytes_number(where, "shared_memory_offset", slots[1].value, &out->offset,
                                    err)) != WEIR_OK) {
        return status;
    }
    return read_bytes_number(where, "shared_memory_byte_size", slots[2].value, &out->size, err);
}

/* Where the binary tensors are taken from, one after the other. */
struct binary {
    const char *at;
    size_t left;
    struct infer_memory *memory; /* Being filled in; NULL: this request is not to be remembered. */
};

/* Where an input's data is, by its `parameters`. */
struct source {
    bool binary; /* Behind the JSON, `size` bytes. */
    uint64_t size;
    bool shared;
    struct kserve_where where;
};

static enum weir_status read_source(const struct infer_call *call, struct position where,
                                    yyjson_val *parameters, struct source *out,
                                    struct weir_err *err)
{
    *out = (struct source){ 0 };
    if (parameters == NULL) {
        return WEIR_OK;
    }
    struct slot slots[] = { SLOT("binary_data_size"), SHARED_SLOTS };
    enum weir_status status = fill_slots(parameters, where, slots, 4, err);
    if (status == WEIR_OK) {
        status = read_shared(call, where, slots + 1, &out->shared, &out->where, err);
    }
    if (status != WEIR_OK || slots[0].value == NULL) {
        return status;
    }
    out->binary = true;
    return read_bytes_number(where, "binary_data_size", slots[0].value, &out->size, err);
}

static void remember_input(const struct infer_call *call, const struct tensor *tensor, size_t size,
                           struct binary *binary)
{
    struct infer_memory *memory = binary->memory;
    if (memory == NULL || memory->input_count == INFER_MEMORY_TENSORS) {
        binary->memory = NULL;
        return;
    }
    memory->inputs[memory->input_count].index = (uint32_t)(tensor - call->request.inputs);
    memory->inputs[memory->input_count].size = size;
    memory->inputs[memory->input_count].shape = tensor->shape;
    memory->input_count++;
}

static enum weir_status take_binary(struct infer_call *call, struct tensor *tensor,
                                    struct bytes name, uint64_t size, struct binary *binary,
                                    struct weir_err *err)
{
    if (size > binary->left) {
        return err_set(
            err, WEIR_EINVAL,
            "unexpected size for input '%.*s', expecting %llu additional bytes for model "
            "'%s': found %llu bytes left after the JSON, expected %llu",
            SHOWN(name), (unsigned long long)(size - binary->left), call->model->name,
            (unsigned long long)binary->left, (unsigned long long)size);
    }
    const struct bytes data = { binary->at, (size_t)size };
    binary->at += size;
    binary->left -= (size_t)size;
    return kserve_lend(call, tensor, name, data, err);
}

static enum weir_status check_left(const struct infer_call *call, const struct binary *binary,
                                   struct weir_err *err)
{
    if (binary->left == 0) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EINVAL,
                   "unexpected additional input data for model '%s': found %zu bytes after the "
                   "last input, expected none",
                   call->model->name, binary->left);
}

static enum weir_status read_input(struct infer_call *call, yyjson_val *object,
                                   struct position where, struct binary *binary,
                                   struct weir_err *err)
{
    struct slot slots[] = { SLOT("name"), SLOT("shape"), SLOT("datatype"), SLOT("parameters"),
                            SLOT("data") };
    struct bytes name;
    struct bytes datatype;
    struct shape shape;
    struct tensor *tensor;
    struct source source;
    enum weir_status status;
    if ((status = fill_slots(object, where, slots, 5, err)) != WEIR_OK ||
        (status = read_string(where, "name", slots[0].value, &name, err)) != WEIR_OK ||
        (status = read_shape(where, slots[1].value, &shape, err)) != WEIR_OK ||
        (status = read_string(where, "datatype", slots[2].value, &datatype, err)) != WEIR_OK ||
        (status = read_source(call, where, slots[3].value, &source, err)) != WEIR_OK ||
        (status = kserve_input(call, name, datatype, &shape, &tensor, err)) != WEIR_OK) {
        return status;
    }
    yyjson_val *data = slots[4].value;
    const int sources = (data != NULL) + source.binary + source.shared;
    if (sources != 1) {
        return err_set(err, WEIR_EINVAL,
                       "Input must set only one of the following fields: 'data', "
                       "'binary_data_size' in 'parameters', 'shared_memory_region' in "
                       "'parameters'. Input '%.*s' has %s",
                       SHOWN(name), sources == 0 ? "neither" : "both");
    }
    if (source.binary) {
        remember_input(call, tensor, (size_t)source.size, binary);
        return take_binary(call, tensor, name, source.size, binary, err);
    }
    binary->memory = NULL;
    if (source.shared) {
        return kserve_share_input(call, tensor, name, &source.where, err);
    }
    if (!yyjson_is_arr(data)) {
        return expected(where, "data", data, "an array", err);
    }
    return values_read(call, data, text_of(slots[0].value).data, tensor, err);
}

static enum weir_status read_inputs(struct infer_call *call, yyjson_val *inputs,
                                    struct binary *binary, struct weir_err *err)
{
    if (!yyjson_is_arr(inputs)) {
        return expected(the_request, "inputs", inputs, "an array", err);
    }
    size_t index;
    size_t max;
    yyjson_val *input;
    yyjson_arr_foreach(inputs, index, max, input) {
        const struct position where = { "inputs", index };
        const enum weir_status status = read_input(call, input, where, binary, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return check_left(call, binary, err);
}

static enum weir_status read_output_parameters(struct infer_call *call, struct infer_output *output,
                                               struct position where, yyjson_val *parameters,
                                               struct weir_err *err)
{
    struct slot slots[] = { SLOT("binary_data"), SLOT("classification"), SHARED_SLOTS };
    struct kserve_where place;
    bool shared = false;
    enum weir_status status = fill_slots(parameters, where, slots, 5, err);
    status = status == WEIR_OK ? read_shared(call, where, slots + 2, &shared, &place, err) : status;
    if (status != WEIR_OK) {
        return status;
    }
    if (slots[0].value != NULL) {
        if (!yyjson_is_bool(slots[0].value)) {
            return expected(where, "binary_data", slots[0].value, "a boolean", err);
        }
        output->binary = yyjson_is_true(slots[0].value);
    }
    if (slots[1].value != NULL) {
        if (!yyjson_is_uint(slots[1].value) || yyjson_get_uint(slots[1].value) > UINT32_MAX) {
            return expected(where, "classification", slots[1].value, "a whole number of classes",
                            err);
        }
        output->classes = (uint32_t)yyjson_get_uint(slots[1].value);
    }
    if (shared && output->binary) {
        char text[WHERE_BYTES];
        return err_set(err, WEIR_EINVAL,
                       "%s: 'binary_data' and 'shared_memory_region' were asked for, expected one "
                       "of them",
                       position_text(where, text));
    }
    return shared ? kserve_share_output(call, output, &place, err) : WEIR_OK;
}

static enum weir_status read_outputs(struct infer_call *call, yyjson_val *outputs,
                                     struct weir_err *err)
{
    if (outputs == NULL) {
        return WEIR_OK;
    }
    if (!yyjson_is_arr(outputs)) {
        return expected(the_request, "outputs", outputs, "an array", err);
    }
    size_t index;
    size_t max;
    yyjson_val *object;
    yyjson_arr_foreach(outputs, index, max, object) {
        const struct position where = { "outputs", index };
        struct slot slots[] = { SLOT("name"), SLOT("parameters") };
        struct bytes name;
        struct infer_output *output;
        enum weir_status status;
        if ((status = fill_slots(object, where, slots, 2, err)) != WEIR_OK ||
            (status = read_string(where, "name", slots[0].value, &name, err)) != WEIR_OK ||
            (status = kserve_output(call, name, &output, err)) != WEIR_OK) {
            return status;
        }
        if (slots[1].value != NULL) {
            status = read_output_parameters(call, output, where, slots[1].value, err);
            if (status != WEIR_OK) {
                return status;
            }
        }
    }
    return WEIR_OK;
}

static bool value_of(yyjson_val *value, struct infer_value *out)
{
    switch (yyjson_get_tag(value)) {
    case YYJSON_TYPE_BOOL | YYJSON_SUBTYPE_TRUE:
    case YYJSON_TYPE_BOOL | YYJSON_SUBTYPE_FALSE:
        *out = (struct infer_value){ .kind = INFER_BOOL, .boolean = yyjson_is_true(value) };
        return true;
    case YYJSON_TYPE_NUM | YYJSON_SUBTYPE_UINT:
        *out = (struct infer_value){ .kind = INFER_UINT, .number = yyjson_get_uint(value) };
        return true;
    case YYJSON_TYPE_NUM | YYJSON_SUBTYPE_SINT:
        *out = (struct infer_value){ .kind = INFER_INT };
        return true;
    case YYJSON_TYPE_NUM | YYJSON_SUBTYPE_REAL:
        *out = (struct infer_value){ .kind = INFER_DOUBLE };
        return true;
    default:
        *out = (struct infer_value){ .kind = INFER_STRING, .text = text_of(value) };
        return yyjson_is_str(value);
    }
}

static enum weir_status read_parameters(struct infer_call *call, yyjson_val *parameters,
                                        struct weir_err *err)
{
    if (parameters == NULL) {
        return WEIR_OK;
    }
    if (!yyjson_is_obj(parameters)) {
        return expected(the_request, "parameters", parameters, "an object", err);
    }
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *value;
    yyjson_obj_foreach(parameters, index, max, key, value) {
        const struct bytes name = text_of(key);
        struct infer_value read;
        if (!value_of(value, &read)) {
            return err_set(err, WEIR_EINVAL,
                           "parameter '%.*s' has invalid type. It should be either 'int', 'bool', "
                           "or 'string': found %s",
                           SHOWN(name), json_kind(value));
        }
        const enum weir_status status = kserve_parameter(call, name, &read, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static enum weir_status read_id(struct infer_call *call, yyjson_val *value, struct weir_err *err)
{
    if (value == NULL) {
        return WEIR_OK;
    }
    struct bytes id = { NULL, 0 };
    const enum weir_status status = read_string(the_request, "id", value, &id, err);
    if (status != WEIR_OK || id.size == 0) {
        return status;
    }
    char *copy = arena_try_strndup(call->arena, id.data, id.size);
    if (copy == NULL) {
        return err_nomem(err, "a request id", id.size);
    }
    call->id = (struct bytes){ copy, id.size };
    return WEIR_OK;
}

static enum weir_status read_request(struct infer_call *call, yyjson_val *root,
                                     struct binary *binary, struct weir_err *err)
{
    struct slot slots[] = { SLOT("id"), SLOT("parameters"), SLOT("inputs"), SLOT("outputs") };
    enum weir_status status;
    if ((status = fill_slots(root, the_request, slots, 4, err)) != WEIR_OK ||
        (status = read_id(call, slots[0].value, err)) != WEIR_OK ||
        (status = read_parameters(call, slots[1].value, err)) != WEIR_OK ||
        (status = read_inputs(call, slots[2].value, binary, err)) != WEIR_OK ||
        (status = read_outputs(call, slots[3].value, err)) != WEIR_OK) {
        return status;
    }
    return kserve_complete(call, err);
}

static bool is_remembered(const struct infer_memory *memory, const struct infer_call *call,
                          struct bytes json, uint64_t generation)
{
    return memory != NULL && memory->model == call->model && memory->generation == generation &&
           memory->json_size == json.size && memcmp(memory->json, json.data, json.size) == 0;
}

/* What read_request() did for the same JSON; only the binary tensors are other ones. */
static enum weir_status recall(struct infer_memory *memory, struct infer_call *call,
                               struct binary *binary, struct weir_err *err)
{
    answer_memory_join(&memory->answer, call);
    const struct signature *signature = call->model->signature;
    for (uint32_t i = 0; i < memory->input_count; i++) {
        const uint32_t index = memory->inputs[i].index;
        struct tensor *tensor = &call->request.inputs[index];
        tensor->dtype = signature->inputs[index].dtype;
        tensor->place = PLACE_HOST;
        tensor->shape = memory->inputs[i].shape;
        tensor->present = true;
        const enum weir_status status =
            take_binary(call, tensor, bytes_of(signature->inputs[index].name),
                        memory->inputs[i].size, binary, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    memcpy(call->outputs, memory->outputs, memory->output_count * sizeof *call->outputs);
    call->output_count = memory->output_count;
    kserve_want(call);
    return check_left(call, binary, err);
}

/* Begins to remember; `model` is set only when all went well. */
static struct infer_memory *begin_memory(struct infer_memory *memory, struct bytes json)
{
    if (memory == NULL || json.size > INFER_MEMORY_BYTES) {
        return NULL;
    }
    memory->model = NULL;
    memory->input_count = 0;
    answer_memory_begin(&memory->answer);
    return memory;
}

static void end_memory(struct infer_memory *memory, struct infer_call *call, struct bytes json,
                       uint64_t generation)
{
    if (memory == NULL || !kserve_is_plain(call) || call->deadline_ns != CLOCK_NEVER ||
        call->output_count > INFER_MEMORY_TENSORS) {
        return;
    }
    memcpy(memory->outputs, call->outputs, call->output_count * sizeof *call->outputs);
    memcpy(memory->json, json.data, json.size);
    memory->output_count = call->output_count;
    memory->json_size = json.size;
    memory->generation = generation;
    memory->model = call->model;
    answer_memory_join(&memory->answer, call);
}

enum weir_status infer_json_read(struct infer_call *call, struct bytes body, size_t json_size,
                                 struct infer_memory *memory, uint64_t generation,
                                 struct weir_err *err)
{
    if (body.size == 0) {
        return err_set(err, WEIR_EINVAL,
                       "found an empty body, expected a JSON object with 'inputs' (a raw binary "
                       "request has Inference-Header-Content-Length: 0)");
    }
    const struct bytes json = { body.data, json_size };
    struct binary binary = { body.data + json_size, body.size - json_size, NULL };
    if (is_remembered(memory, call, json, generation)) {
        return recall(memory, call, &binary, err);
    }
    yyjson_doc *doc = NULL;
    enum weir_status status = json_read(json, &doc, err);
    if (status != WEIR_OK) {
        (void)err_prefix(err, "failed to parse the request JSON buffer");
        return status;
    }
    binary.memory = begin_memory(memory, json);
    status = read_request(call, yyjson_doc_get_root(doc), &binary, err);
    if (status == WEIR_OK) {
        end_memory(binary.memory, call, json, generation);
    }
    yyjson_doc_free(doc);
    return status;
}

/* The dimension that the body's size decides: at most one may be open. */
static enum weir_status raw_shape(const struct infer_call *call, size_t size, struct shape *out,
                                  struct weir_err *err)
{
    const struct tensor_spec *spec = &call->model->signature->inputs[0];
    *out = spec->shape;
    int open = -1;
    for (uint32_t i = 0; i < out->rank; i++) {
        if (out->dims[i] >= 0) {
            continue;
        }
        if (i == 0 && call->model->config->max_batch_size > 0) {
            out->dims[i] = 1;
            continue;
        }
        if (open >= 0) {
            return err_set(err, WEIR_EINVAL,
                           "a raw binary request needs an input with at most one variable "
                           "dimension; input '%s' has more",
                           spec->name);
        }
        open = (int)i;
        out->dims[i] = 1;
    }
    if (open < 0 || spec->dtype == DTYPE_BYTES) {
        return WEIR_OK;
    }
    size_t row;
    const enum weir_status status = tensor_bytes(spec->dtype, out, &row, err);
    if (status == WEIR_OK && row > 0 && size % row == 0) {
        out->dims[open] = (int64_t)(size / row);
    }
    return status; /* A size that does not divide is found by the check of all sizes. */
}

/* One element of the body's bytes, with the length that a raw request leaves out. */
static enum weir_status raw_string(struct infer_call *call, struct bytes body, struct bytes *out,
                                   struct weir_err *err)
{
    struct tensor whole = { .dtype = DTYPE_BYTES };
    if (body.size > UINT32_MAX) {
        return err_set(err, WEIR_EINVAL, "found %zu bytes, expected at most %u in one element",
                       body.size, UINT32_MAX);
    }
    const enum weir_status status = kserve_room(call, &whole, body.size + 4, err);
    if (status != WEIR_OK) {
        return status;
    }
    for (unsigned i = 0; i < 4; i++) {
        whole.data[i] = (uint8_t)(body.size >> (8 * i));
    }
    if (body.size > 0) {
        memcpy(whole.data + 4, body.data, body.size);
    }
    call->request.inputs[0].block = whole.block;
    *out = (struct bytes){ (const char *)whole.data, whole.size };
    return WEIR_OK;
}

enum weir_status infer_json_read_raw(struct infer_call *call, struct bytes body,
                                     struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    if (signature->input_count != 1) {
        return err_set(
            err, WEIR_EINVAL,
            "a raw binary request (Inference-Header-Content-Length: 0) needs a model with "
            "one input; model '%s' has %u",
            call->model->name, signature->input_count);
    }
    const struct tensor_spec *spec = &signature->inputs[0];
    const struct bytes name = bytes_of(spec->name);
    struct shape shape;
    struct tensor *tensor;
    enum weir_status status;
    if ((status = raw_shape(call, body.size, &shape, err)) != WEIR_OK ||
        (status = kserve_input(call, name, bytes_of(dtype_text(spec->dtype)), &shape, &tensor,
                               err)) != WEIR_OK) {
        return status;
    }
    if (spec->dtype == DTYPE_BYTES) {
        status = raw_string(call, body, &body, err);
    }
    if (status == WEIR_OK) {
        status = kserve_lend(call, tensor, name, body, err);
    }
    call->binary_default = true;
    return status == WEIR_OK ? kserve_complete(call, err) : status;
}
