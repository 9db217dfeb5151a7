/*
 * What the messages of an ONNX file say.
 *
 * The same kinds of message stand in many places: a tensor is a weight, an attribute or a part of a
 * sparse one, a graph may be a branch of a loop.  Where it stands is told by the messages around
 * it, and by how far above it they are.
 */
#include "backend/onnx_message.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"
#include "util/mem.h"

#define KEY_BYTES 256 /* Longest operator name with its domain. */

static char marker; /* What sets of names map to. */

/* --- Collecting ------------------------------------------------------------------------------- */

/* Room for one more in an array that doubles; NULL when memory is out. */
static void *grow(void *array, uint32_t count, size_t each)
{
    if (count != 0 && (count & (count - 1)) != 0) {
        return array;
    }
    const size_t capacity = count == 0 ? 1 : (size_t)count * 2;
    size_t bytes;
    if (count >= UINT32_MAX / 2 || __builtin_mul_overflow(capacity, each, &bytes)) {
        bytes = SIZE_MAX;
    }
    return bytes == SIZE_MAX ? NULL : mem_try_resize(array, bytes);
}

static enum weir_status copy_text(struct onnx_reader *r, struct bytes text, const char **out)
{
    const char *copy =
        arena_try_strndup(&r->file->arena, text.size == 0 ? "" : text.data, text.size);
    if (copy == NULL) {
        return WEIR_ENOMEM; /* Said once, by onnx_file_read(). */
    }
    *out = copy;
    return WEIR_OK;
}

static enum weir_status add_external(struct onnx_reader *r, uint64_t bytes)
{
    const struct onnx_draft *t = &r->tensor;
    struct onnx_external *grown = grow(r->file->externals, r->file->external_count, sizeof(*grown));
    if (grown == NULL) {
        return WEIR_ENOMEM;
    }
    r->file->externals = grown;
    struct onnx_external *item = &grown[r->file->external_count];
    *item = (struct onnx_external){ .bytes = bytes };
    const char *what = NULL;
    if (t->location.size == 0 || memchr(t->location.data, '\0', t->location.size) != NULL) {
        what = "location";
    } else if (t->offset.data != NULL && !bytes_to_u64(t->offset, INT64_MAX, &item->offset)) {
        what = "offset";
    } else if (t->length.data != NULL && !bytes_to_u64(t->length, INT64_MAX, &item->length)) {
        what = "length";
    }
    if (what != NULL) {
        return err_set(r->err, WEIR_EINVAL, "external data of tensor '%.*s' has no valid %s",
                       onnx_quoted(t->name), t->name.data, what);
    }
    enum weir_status status = copy_text(r, t->name, &item->tensor);
    if (status == WEIR_OK) {
        status = copy_text(r, t->location, &item->location);
    }
    r->file->external_count += status == WEIR_OK;
    return status;
}

static enum weir_status add_weight(struct onnx_reader *r, uint64_t elements, uint64_t bytes)
{
    struct onnx_file *file = r->file;
    struct onnx_weight *grown = grow(file->weights, file->weight_count, sizeof(*grown));
    if (grown == NULL) {
        return WEIR_ENOMEM;
    }
    file->weights = grown;
    struct onnx_weight *item = &grown[file->weight_count];
    *item = (struct onnx_weight){
        .type = r->tensor.type,
        .shape = r->tensor.shape,
        .elements = elements,
        .bytes = bytes,
        .external = r->tensor.external,
    };
    const enum weir_status status = copy_text(r, r->tensor.name, &item->name);
    if (status != WEIR_OK) {
        return status;
    }
    file->weight_count++;
    if (__builtin_add_overflow(file->parameters, elements, &file->parameters) ||
        __builtin_add_overflow(file->parameter_bytes, bytes, &file->parameter_bytes)) {
        return err_set(r->err, WEIR_EINVAL, "the weights' sizes add up to more than can be");
    }
    return WEIR_OK;
}

/* --- Leaving a message ------------------------------------------------------------------------ */

static bool is_top_graph(const struct onnx_reader *r, const struct onnx_frame *frame)
{
    return frame == &r->stack[1] && frame->message == MESSAGE_GRAPH && frame->number == 7;
}

/* Of a graph, or the values of a sparse one of a graph; not an attribute. */
static bool is_weight(struct onnx_reader *r)
{
    const struct onnx_frame *tensor = onnx_frame_of(r, 0);
    const struct onnx_frame *above = onnx_frame_of(r, 1);
    if (above->message == MESSAGE_GRAPH) {
        return true;
    }
    return above->message == MESSAGE_SPARSE_TENSOR && tensor->number == 1 &&
           onnx_frame_of(r, 2)->message == MESSAGE_GRAPH;
}

/* The draft's elements and bytes, when they agree with what is stored. */
static enum weir_status measure_tensor(struct onnx_reader *r, uint64_t *elements, uint64_t *bytes)
{
    const struct onnx_draft *t = &r->tensor;
    const size_t stored = onnx_frame_of(r, 0)->size;
    if (t->deep) {
        return err_set(r->err, WEIR_EINVAL, "tensor '%.*s' has more than %d dimensions",
                       onnx_quoted(t->name), t->name.data, TENSOR_RANK_MAX);
    }
    const enum weir_status status = shape_elements(&t->shape, elements, r->err);
    if (status != WEIR_OK) {
        return err_prefix(r->err, "tensor '%.*s'", onnx_quoted(t->name), t->name.data);
    }
    *bytes = t->type == 8 ? t->text_bytes : onnx_type_bytes(t->type, *elements);
    if (t->external) {
        return WEIR_OK;
    }
    /* The smallest element, two bits of a packed number, still takes a quarter of a byte. */
    if ((t->raw && t->type != 8 && t->raw_bytes != *bytes) || *elements / 4 > stored) {
        char text[SHAPE_TEXT];
        return err_set(r->err, WEIR_EINVAL,
                       "tensor '%.*s' of shape %s and type %s needs %" PRIu64
                       " bytes, the file has %" PRIu64,
                       onnx_quoted(t->name), t->name.data, shape_format(&t->shape, text),
                       onnx_type_text(t->type), *bytes, t->raw ? t->raw_bytes : (uint64_t)stored);
    }
    return WEIR_OK;
}

static enum weir_status leave_tensor(struct onnx_reader *r)
{
    uint64_t elements = 0;
    uint64_t bytes = 0;
    enum weir_status status = measure_tensor(r, &elements, &bytes);
    if (status == WEIR_OK && r->tensor.external) {
        status = add_external(r, bytes);
    }
    if (status == WEIR_OK && is_weight(r)) {
        status = add_weight(r, elements, bytes);
        if (status == WEIR_OK && is_top_graph(r, onnx_frame_of(r, 1))) {
            status = map_add(&r->initialized, r->tensor.name, &marker);
            status = status == WEIR_ECONFLICT ? WEIR_OK : status;
        }
    }
    return status;
}

static enum weir_status leave_entry(struct onnx_reader *r)
{
    static const char prepacked[] = "prepacked";
    struct onnx_draft *t = &r->tensor;
    t->external = true;
    struct bytes *place = NULL;
    if (bytes_equal(r->entry_key, BYTES_LITERAL("location"))) {
        place = &t->location;
    } else if (bytes_equal(r->entry_key, BYTES_LITERAL("offset"))) {
        place = &t->offset;
    } else if (bytes_equal(r->entry_key, BYTES_LITERAL("length"))) {
        place = &t->length;
    }
    const bool packed = r->entry_key.size >= sizeof(prepacked) - 1 &&
                        memcmp(r->entry_key.data, prepacked, sizeof(prepacked) - 1) == 0;
    if (packed || (place != NULL && place->data != NULL)) {
        return err_set(r->err, WEIR_EINVAL, "external data of tensor '%.*s' has %s",
                       onnx_quoted(t->name), t->name.data,
                       packed ? "prepacked weights, which are not supported" : "a key twice");
    }
    if (place != NULL) {
        *place = r->entry_value;
    }
    return WEIR_OK;
}

static enum weir_status count_operator(struct onnx_reader *r, struct bytes name)
{
    struct onnx_file *file = r->file;
    const uintptr_t known = (uintptr_t)map_get(&r->operators, name);
    if (known != 0) {
        file->operators[known - 1].count++;
        return WEIR_OK;
    }
    struct onnx_operator *grown = grow(file->operators, file->operator_count, sizeof(*grown));
    if (grown == NULL) {
        return WEIR_ENOMEM;
    }
    file->operators = grown;
    struct onnx_operator *item = &grown[file->operator_count];
    item->count = 1;
    enum weir_status status = copy_text(r, name, &item->name);
    if (status == WEIR_OK) {
        const uintptr_t index = file->operator_count + (uintptr_t)1;
        status = map_add(&r->operators, (struct bytes){ item->name, name.size }, (void *)index);
    }
    file->operator_count += status == WEIR_OK;
    return status;
}

static bool is_standard(struct bytes domain)
{
    return domain.size == 0 || bytes_equal(domain, BYTES_LITERAL("ai.onnx"));
}

static enum weir_status leave_node(struct onnx_reader *r)
{
    const struct onnx_frame *node = onnx_frame_of(r, 0);
    char key[KEY_BYTES];
    r->file->node_count++;
    if (is_standard(node->domain)) {
        return count_operator(r, node->operator);
    }
    const int size = snprintf(key, sizeof(key), "%.*s.%.*s", onnx_quoted(node->domain),
                              node->domain.data, onnx_quoted(node->operator), node->operator.data);
    return count_operator(r, (struct bytes){ key, (size_t)size });
}

static enum weir_status leave_opset(struct onnx_reader *r)
{
    struct onnx_file *file = r->file;
    struct onnx_opset *grown = grow(file->opsets, file->opset_count, sizeof(*grown));
    if (grown == NULL) {
        return WEIR_ENOMEM;
    }
    file->opsets = grown;
    if (r->opset.domain == NULL) {
        r->opset.domain = "";
    }
    grown[file->opset_count++] = r->opset;
    return WEIR_OK;
}

static enum weir_status leave_value(struct onnx_reader *r)
{
    const struct onnx_value *value = r->value;
    r->value = NULL;
    if (value != NULL && value->name == NULL) {
        return err_set(r->err, WEIR_EINVAL, "an input or output of the graph has no name");
    }
    return WEIR_OK;
}

enum weir_status onnx_message_leave(struct onnx_reader *r)
{
    switch (onnx_frame_of(r, 0)->message) {
    case MESSAGE_TENSOR:
        return leave_tensor(r);
    case MESSAGE_ENTRY:
        return leave_entry(r);
    case MESSAGE_NODE:
        return leave_node(r);
    case MESSAGE_OPSET:
        return leave_opset(r);
    case MESSAGE_VALUE:
        return leave_value(r);
    default:
        return WEIR_OK;
    }
}

/* --- Entering a message ----------------------------------------------------------------------- */

/* The description of a value lies at fixed depths below it: what lies deeper describes the
 * elements of a sequence or a map. */
static bool describes_value(struct onnx_reader *r, uint32_t up)
{
    const struct onnx_frame *value = onnx_frame_of(r, up);
    return r->value != NULL && value != NULL && value->message == MESSAGE_VALUE;
}

static enum weir_status enter_value(struct onnx_reader *r)
{
    struct onnx_file *file = r->file;
    if (!is_top_graph(r, onnx_frame_of(r, 1))) {
        return WEIR_OK;
    }
    const bool input = onnx_frame_of(r, 0)->number == 11;
    struct onnx_value **array = input ? &file->inputs : &file->outputs;
    uint32_t *count = input ? &file->input_count : &file->output_count;
    struct onnx_value *grown = grow(*array, *count, sizeof(*grown));
    if (grown == NULL) {
        return WEIR_ENOMEM;
    }
    *array = grown;
    r->value = &grown[(*count)++];
    *r->value = (struct onnx_value){ 0 };
    return WEIR_OK;
}

static enum weir_status enter_dimension(struct onnx_reader *r)
{
    if (!describes_value(r, 4)) {
        return WEIR_OK;
    }
    struct shape *shape = &r->value->shape;
    if (shape->rank == TENSOR_RANK_MAX) {
        return err_set(r->err, WEIR_EINVAL, "'%s' has more than %d dimensions",
                       r->value->name == NULL ? "" : r->value->name, TENSOR_RANK_MAX);
    }
    shape->dims[shape->rank++] = -1;
    return WEIR_OK;
}

enum weir_status onnx_message_enter(struct onnx_reader *r)
{
    switch (onnx_frame_of(r, 0)->message) {
    case MESSAGE_GRAPH:
        r->has_graph = r->has_graph || is_top_graph(r, onnx_frame_of(r, 0));
        return WEIR_OK;
    case MESSAGE_FUNCTION:
        r->has_functions = true;
        return WEIR_OK;
    case MESSAGE_TENSOR:
        r->tensor = (struct onnx_draft){ .name = { "", 0 } };
        return WEIR_OK;
    case MESSAGE_ENTRY:
        r->entry_key = (struct bytes){ 0 };
        r->entry_value = (struct bytes){ "", 0 };
        return WEIR_OK;
    case MESSAGE_OPSET:
        r->opset = (struct onnx_opset){ 0 };
        return WEIR_OK;
    case MESSAGE_VALUE:
        return enter_value(r);
    case MESSAGE_SHAPE:
        if (describes_value(r, 3)) {
            r->value->has_shape = true;
        }
        return WEIR_OK;
    case MESSAGE_DIMENSION:
        return enter_dimension(r);
    default:
        return WEIR_OK;
    }
}

/* --- Plain fields ----------------------------------------------------------------------------- */

static enum weir_status leaf_model(struct onnx_reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_VARINT) {
        r->file->ir_version = (int64_t)f->value;
    } else if (f->number == 2 && f->type == WIRE_BYTES) {
        r->producer = f->bytes;
    } else if (f->number == 3 && f->type == WIRE_BYTES) {
        r->producer_version = f->bytes;
    }
    return WEIR_OK;
}

static enum weir_status leaf_opset(struct onnx_reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_BYTES) {
        return copy_text(r, f->bytes, &r->opset.domain);
    }
    if (f->number == 2 && f->type == WIRE_VARINT) {
        r->opset.version = (int64_t)f->value;
    }
    return WEIR_OK;
}

static enum weir_status leaf_graph(struct onnx_reader *r, const struct field *f)
{
    if (f->number == 2 && f->type == WIRE_BYTES && is_top_graph(r, onnx_frame_of(r, 0))) {
        return copy_text(r, f->bytes, &r->file->graph_name);
    }
    return WEIR_OK;
}

static enum weir_status leaf_node(struct onnx_reader *r, const struct field *f)
{
    if (f->number == 4 && f->type == WIRE_BYTES) {
        onnx_frame_of(r, 0)->operator= f->bytes;
    } else if (f->number == 7 && f->type == WIRE_BYTES) {
        onnx_frame_of(r, 0)->domain = f->bytes;
    }
    return WEIR_OK;
}

static void add_dimension(struct onnx_draft *t, uint64_t value)
{
    if (t->shape.rank == TENSOR_RANK_MAX) {
        t->deep = true;
    } else {
        t->shape.dims[t->shape.rank++] = (int64_t)value;
    }
}

static enum weir_status leaf_tensor(struct onnx_reader *r, const struct field *f)
{
    struct onnx_draft *t = &r->tensor;
    const bool bytes = f->type == WIRE_BYTES;
    if (f->number == 1 && f->type == WIRE_VARINT) {
        add_dimension(t, f->value);
    } else if (f->number == 1 && bytes) {
        struct wire packed = wire_of(f->bytes);
        uint64_t value;
        while (packed.at < packed.end) {
            if (!wire_varint(&packed, &value)) {
                return err_set(r->err, WEIR_EINVAL, "a tensor's shape is malformed");
            }
            add_dimension(t, value);
        }
    } else if (f->number == 2 && f->type == WIRE_VARINT) {
        t->type = f->value <= INT32_MAX ? (int32_t)f->value : -1;
    } else if (f->number == 6 && bytes) {
        t->text_bytes += f->bytes.size;
    } else if (f->number == 8 && bytes) {
        t->name = f->bytes;
    } else if (f->number == 9 && bytes) {
        t->raw = true;
        t->raw_bytes = f->bytes.size;
    } else if (f->number == 14 && f->type == WIRE_VARINT) {
        t->external = t->external || f->value == 1;
    }
    return WEIR_OK;
}

static enum weir_status leaf_entry(struct onnx_reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_BYTES) {
        r->entry_key = f->bytes;
    } else if (f->number == 2 && f->type == WIRE_BYTES) {
        r->entry_value = f->bytes;
    }
    return WEIR_OK;
}

static enum weir_status leaf_value(struct onnx_reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_BYTES && describes_value(r, 0)) {
        return copy_text(r, f->bytes, &r->value->name);
    }
    return WEIR_OK;
}

static enum weir_status leaf_type(struct onnx_reader *r, const struct field *f)
{
    static const enum onnx_kind kinds[] = {
        [4] = ONNX_KIND_SEQUENCE,
        [5] = ONNX_KIND_MAP,
        [8] = ONNX_KIND_SPARSE,
        [9] = ONNX_KIND_OPTIONAL,
    };
    if (f->number < sizeof(kinds) / sizeof(kinds[0]) && kinds[f->number] != ONNX_KIND_NOTHING &&
        describes_value(r, 1)) {
        r->value->kind = kinds[f->number];
    }
    return WEIR_OK;
}

static enum weir_status leaf_tensor_type(struct onnx_reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_VARINT && describes_value(r, 2)) {
        r->value->kind = ONNX_KIND_TENSOR;
        r->value->type = f->value <= INT32_MAX ? (int32_t)f->value : -1;
    }
    return WEIR_OK;
}

static enum weir_status leaf_dimension(struct onnx_reader *r, const struct field *f)
{
    if (!describes_value(r, 4)) {
        return WEIR_OK;
    }
    struct onnx_value *value = r->value;
    const uint32_t last = value->shape.rank - 1;
    if (f->number == 1 && f->type == WIRE_VARINT) {
        value->shape.dims[last] = (int64_t)f->value < 0 ? -1 : (int64_t)f->value;
    } else if (f->number == 2 && f->type == WIRE_BYTES && f->bytes.size > 0) {
        return copy_text(r, f->bytes, &value->dim_names[last]);
    }
    return WEIR_OK;
}

typedef enum weir_status leaf_fn(struct onnx_reader *r, const struct field *f);

static leaf_fn *const leaves[] = {
    [MESSAGE_MODEL] = leaf_model,
    [MESSAGE_OPSET] = leaf_opset,
    [MESSAGE_GRAPH] = leaf_graph,
    [MESSAGE_NODE] = leaf_node,
    [MESSAGE_TENSOR] = leaf_tensor,
    [MESSAGE_ENTRY] = leaf_entry,
    [MESSAGE_VALUE] = leaf_value,
    [MESSAGE_TYPE] = leaf_type,
    [MESSAGE_TENSOR_TYPE] = leaf_tensor_type,
    [MESSAGE_DIMENSION] = leaf_dimension,
    [MESSAGE_TRAINING] = NULL,
};

enum weir_status onnx_message_field(struct onnx_reader *r, const struct field *f)
{
    leaf_fn *leaf = leaves[onnx_frame_of(r, 0)->message];
    return leaf == NULL ? WEIR_OK : leaf(r, f);
}
