/*
 * A bounded reader of ONNX files.
 *
 * The protobuf wire format is a list of numbered fields; a table says which fields are
 * messages worth entering, everything else is skipped by its length.  One stack of frames
 * takes the place of recursion.  Two passes: the first collects whatever lies
 * anywhere in the file, the second walks the nodes of the top graph in their order, to
 * find out whether the size of any output hangs on the value of an input.
 *
 * Parsers disagree about a singular message that is given twice: protobuf merges
 * both.  A tensor whose external data is spread over two halves would look harmless here and be none
 * there, so that form, which nobody writes, is refused.
 */
#include "backend/onnx_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/onnx_scan.h"
#include "backend/onnx_wire.h"
#include "util/err.h"
#include "util/map.h"
#include "util/mem.h"

#define TEXT_BYTES_MAX ((size_t)256 << 20) /* All names of one file. */
#define KEY_BYTES 256                      /* Longest operator name with its domain. */

enum message {
    MODEL,
    OPSET,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    SPARSE_TENSOR,
    ENTRY,
    VALUE,
    TYPE,
    TENSOR_TYPE,
    SHAPE,
    DIMENSION,
    FUNCTION,
    TRAINING,
};

/* The messages worth entering: field `number` of `in` is a `child`. */
struct child_rule {
    enum message in;
    uint32_t number;
    enum message child;
    bool repeated;
};

static const struct child_rule child_rules[] = {
    { MODEL, 7, GRAPH, false },
    { MODEL, 8, OPSET, true },
    { MODEL, 20, TRAINING, true },
    { MODEL, 25, FUNCTION, true },
    { GRAPH, 1, NODE, true },
    { GRAPH, 5, TENSOR, true },
    { GRAPH, 11, VALUE, true },
    { GRAPH, 12, VALUE, true },
    { GRAPH, 15, SPARSE_TENSOR, true },
    { NODE, 5, ATTRIBUTE, true },
    { ATTRIBUTE, 5, TENSOR, false },
    { ATTRIBUTE, 6, GRAPH, false },
    { ATTRIBUTE, 10, TENSOR, true },
    { ATTRIBUTE, 11, GRAPH, true },
    { ATTRIBUTE, 22, SPARSE_TENSOR, false },
    { ATTRIBUTE, 23, SPARSE_TENSOR, true },
    { TENSOR, 13, ENTRY, true },
    { SPARSE_TENSOR, 1, TENSOR, false },
    { SPARSE_TENSOR, 2, TENSOR, false },
    { VALUE, 2, TYPE, false },
    { TYPE, 1, TENSOR_TYPE, false },
    { TENSOR_TYPE, 2, SHAPE, false },
    { SHAPE, 1, DIMENSION, true },
    { FUNCTION, 7, NODE, true },
    { FUNCTION, 11, ATTRIBUTE, true },
    { TRAINING, 1, GRAPH, false },
    { TRAINING, 2, GRAPH, false },
};

struct frame {
    enum message message;
    uint32_t number;  /* The field of the parent that this is. */
    struct wire wire; /* What is left of it. */
    size_t size;
    uint64_t seen;         /* Singular messages met, by field number. */
    struct bytes operator; /* Of a node. */
    struct bytes domain;
};

/* The tensor being read; tensors do not nest. */
struct tensor_draft {
    struct bytes name;
    int32_t type;
    struct shape shape;
    bool deep; /* More dimensions than a shape holds. */
    bool raw;
    uint64_t raw_bytes;
    uint64_t text_bytes;
    bool external;
    struct bytes location; /* data NULL: not said. */
    struct bytes offset;
    struct bytes length;
};

struct reader {
    struct onnx_file *file;
    struct weir_err *err;
    struct frame stack[ONNX_DEPTH_MAX];
    uint32_t depth;
    struct tensor_draft tensor;
    struct bytes entry_key;
    struct bytes entry_value;
    struct onnx_value *value; /* The top graph's input or output being read, or NULL. */
    struct bytes producer;
    struct bytes producer_version;
    struct onnx_opset opset;
    struct map operators;   /* Name to index + 1. */
    struct map initialized; /* Names of the top graph's initializers. */
    bool has_graph;
    bool has_functions;
};

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

static enum weir_status copy_text(struct reader *r, struct bytes text, const char **out)
{
    const char *copy =
        arena_try_strndup(&r->file->arena, text.size == 0 ? "" : text.data, text.size);
    if (copy == NULL) {
        return WEIR_ENOMEM; /* Said once, by onnx_file_read(). */
    }
    *out = copy;
    return WEIR_OK;
}

static int quoted(struct bytes text)
{
    return text.size > 80 ? 80 : (int)text.size;
}

static enum weir_status add_external(struct reader *r, uint64_t bytes)
{
    const struct tensor_draft *t = &r->tensor;
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
                       quoted(t->name), t->name.data, what);
    }
    enum weir_status status = copy_text(r, t->name, &item->tensor);
    if (status == WEIR_OK) {
        status = copy_text(r, t->location, &item->location);
    }
    r->file->external_count += status == WEIR_OK;
    return status;
}

static enum weir_status add_weight(struct reader *r, uint64_t elements, uint64_t bytes)
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

static struct frame *parent_of(struct reader *r, uint32_t up)
{
    return r->depth > up ? &r->stack[r->depth - 1 - up] : NULL;
}

static bool is_top_graph(const struct reader *r, const struct frame *frame)
{
    return frame == &r->stack[1] && frame->message == GRAPH && frame->number == 7;
}

/* Of a graph, or the values of a sparse one of a graph; not an attribute. */
static bool is_weight(struct reader *r)
{
    const struct frame *tensor = parent_of(r, 0);
    const struct frame *above = parent_of(r, 1);
    if (above->message == GRAPH) {
        return true;
    }
    return above->message == SPARSE_TENSOR && tensor->number == 1 &&
           parent_of(r, 2)->message == GRAPH;
}

/* The draft's elements and bytes, when they agree with what is stored. */
static enum weir_status measure_tensor(struct reader *r, uint64_t *elements, uint64_t *bytes)
{
    const struct tensor_draft *t = &r->tensor;
    const size_t stored = parent_of(r, 0)->size;
    if (t->deep) {
        return err_set(r->err, WEIR_EINVAL, "tensor '%.*s' has more than %d dimensions",
                       quoted(t->name), t->name.data, TENSOR_RANK_MAX);
    }
    const enum weir_status status = shape_elements(&t->shape, elements, r->err);
    if (status != WEIR_OK) {
        return err_prefix(r->err, "tensor '%.*s'", quoted(t->name), t->name.data);
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
                       quoted(t->name), t->name.data, shape_format(&t->shape, text),
                       onnx_type_text(t->type), *bytes, t->raw ? t->raw_bytes : (uint64_t)stored);
    }
    return WEIR_OK;
}

static enum weir_status leave_tensor(struct reader *r)
{
    uint64_t elements = 0;
    uint64_t bytes = 0;
    enum weir_status status = measure_tensor(r, &elements, &bytes);
    if (status == WEIR_OK && r->tensor.external) {
        status = add_external(r, bytes);
    }
    if (status == WEIR_OK && is_weight(r)) {
        status = add_weight(r, elements, bytes);
        if (status == WEIR_OK && is_top_graph(r, parent_of(r, 1))) {
            status = map_add(&r->initialized, r->tensor.name, &marker);
            status = status == WEIR_ECONFLICT ? WEIR_OK : status;
        }
    }
    return status;
}

static enum weir_status leave_entry(struct reader *r)
{
    static const char prepacked[] = "prepacked";
    struct tensor_draft *t = &r->tensor;
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
                       quoted(t->name), t->name.data,
                       packed ? "prepacked weights, which are not supported" : "a key twice");
    }
    if (place != NULL) {
        *place = r->entry_value;
    }
    return WEIR_OK;
}

static enum weir_status count_operator(struct reader *r, struct bytes name)
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

static enum weir_status leave_node(struct reader *r)
{
    const struct frame *node = parent_of(r, 0);
    char key[KEY_BYTES];
    r->file->node_count++;
    if (is_standard(node->domain)) {
        return count_operator(r, node->operator);
    }
    const int size = snprintf(key, sizeof(key), "%.*s.%.*s", quoted(node->domain),
                              node->domain.data, quoted(node->operator), node->operator.data);
    return count_operator(r, (struct bytes){ key, (size_t)size });
}

static enum weir_status leave_opset(struct reader *r)
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

static enum weir_status leave_value(struct reader *r)
{
    const struct onnx_value *value = r->value;
    r->value = NULL;
    if (value != NULL && value->name == NULL) {
        return err_set(r->err, WEIR_EINVAL, "an input or output of the graph has no name");
    }
    return WEIR_OK;
}

static enum weir_status leave(struct reader *r, const struct frame *frame)
{
    switch (frame->message) {
    case TENSOR:
        return leave_tensor(r);
    case ENTRY:
        return leave_entry(r);
    case NODE:
        return leave_node(r);
    case OPSET:
        return leave_opset(r);
    case VALUE:
        return leave_value(r);
    default:
        return WEIR_OK;
    }
}

/* --- Entering a message ----------------------------------------------------------------------- */

/* The description of a value lies at fixed depths below it: what lies deeper describes the
 * elements of a sequence or a map. */
static bool describes_value(struct reader *r, uint32_t up)
{
    const struct frame *value = parent_of(r, up);
    return r->value != NULL && value != NULL && value->message == VALUE;
}

static enum weir_status enter_value(struct reader *r)
{
    struct onnx_file *file = r->file;
    if (!is_top_graph(r, parent_of(r, 1))) {
        return WEIR_OK;
    }
    const bool input = parent_of(r, 0)->number == 11;
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

static enum weir_status enter_dimension(struct reader *r)
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

static enum weir_status enter(struct reader *r, const struct frame *frame)
{
    switch (frame->message) {
    case GRAPH:
        r->has_graph = r->has_graph || is_top_graph(r, frame);
        return WEIR_OK;
    case FUNCTION:
        r->has_functions = true;
        return WEIR_OK;
    case TENSOR:
        r->tensor = (struct tensor_draft){ .name = { "", 0 } };
        return WEIR_OK;
    case ENTRY:
        r->entry_key = (struct bytes){ 0 };
        r->entry_value = (struct bytes){ "", 0 };
        return WEIR_OK;
    case OPSET:
        r->opset = (struct onnx_opset){ 0 };
        return WEIR_OK;
    case VALUE:
        return enter_value(r);
    case SHAPE:
        if (describes_value(r, 3)) {
            r->value->has_shape = true;
        }
        return WEIR_OK;
    case DIMENSION:
        return enter_dimension(r);
    default:
        return WEIR_OK;
    }
}

/* --- Plain fields ----------------------------------------------------------------------------- */

static enum weir_status leaf_model(struct reader *r, const struct field *f)
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

static enum weir_status leaf_opset(struct reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_BYTES) {
        return copy_text(r, f->bytes, &r->opset.domain);
    }
    if (f->number == 2 && f->type == WIRE_VARINT) {
        r->opset.version = (int64_t)f->value;
    }
    return WEIR_OK;
}

static enum weir_status leaf_graph(struct reader *r, const struct field *f)
{
    if (f->number == 2 && f->type == WIRE_BYTES && is_top_graph(r, parent_of(r, 0))) {
        return copy_text(r, f->bytes, &r->file->graph_name);
    }
    return WEIR_OK;
}

static enum weir_status leaf_node(struct reader *r, const struct field *f)
{
    if (f->number == 4 && f->type == WIRE_BYTES) {
        parent_of(r, 0)->operator= f->bytes;
    } else if (f->number == 7 && f->type == WIRE_BYTES) {
        parent_of(r, 0)->domain = f->bytes;
    }
    return WEIR_OK;
}

static void add_dimension(struct tensor_draft *t, uint64_t value)
{
    if (t->shape.rank == TENSOR_RANK_MAX) {
        t->deep = true;
    } else {
        t->shape.dims[t->shape.rank++] = (int64_t)value;
    }
}

static enum weir_status leaf_tensor(struct reader *r, const struct field *f)
{
    struct tensor_draft *t = &r->tensor;
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

static enum weir_status leaf_entry(struct reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_BYTES) {
        r->entry_key = f->bytes;
    } else if (f->number == 2 && f->type == WIRE_BYTES) {
        r->entry_value = f->bytes;
    }
    return WEIR_OK;
}

static enum weir_status leaf_value(struct reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_BYTES && describes_value(r, 0)) {
        return copy_text(r, f->bytes, &r->value->name);
    }
    return WEIR_OK;
}

static enum weir_status leaf_type(struct reader *r, const struct field *f)
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

static enum weir_status leaf_tensor_type(struct reader *r, const struct field *f)
{
    if (f->number == 1 && f->type == WIRE_VARINT && describes_value(r, 2)) {
        r->value->kind = ONNX_KIND_TENSOR;
        r->value->type = f->value <= INT32_MAX ? (int32_t)f->value : -1;
    }
    return WEIR_OK;
}

static enum weir_status leaf_dimension(struct reader *r, const struct field *f)
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

typedef enum weir_status leaf_fn(struct reader *r, const struct field *f);

static leaf_fn *const leaves[] = {
    [MODEL] = leaf_model,         [OPSET] = leaf_opset,   [GRAPH] = leaf_graph,
    [NODE] = leaf_node,           [TENSOR] = leaf_tensor, [ENTRY] = leaf_entry,
    [VALUE] = leaf_value,         [TYPE] = leaf_type,     [TENSOR_TYPE] = leaf_tensor_type,
    [DIMENSION] = leaf_dimension, [TRAINING] = NULL,
};

/* --- The walk --------------------------------------------------------------------------------- */

static const struct child_rule *find_child(enum message in, const struct field *f)
{
    for (size_t i = 0; i < sizeof(child_rules) / sizeof(child_rules[0]); i++) {
        const struct child_rule *rule = &child_rules[i];
        if (rule->in == in && rule->number == f->number && f->type == WIRE_BYTES) {
            return rule;
        }
    }
    return NULL;
}

static enum weir_status push(struct reader *r, const struct child_rule *rule, const struct field *f)
{
    if (rule != NULL && !rule->repeated) {
        struct frame *top = parent_of(r, 0);
        const uint64_t bit = UINT64_C(1) << rule->number;
        if ((top->seen & bit) != 0) {
            return err_set(r->err, WEIR_EINVAL, "malformed: field %" PRIu32 " is given twice",
                           rule->number);
        }
        top->seen |= bit;
    }
    if (r->depth == ONNX_DEPTH_MAX) {
        return err_set(r->err, WEIR_EINVAL, "nested deeper than %d messages", ONNX_DEPTH_MAX);
    }
    struct frame *frame = &r->stack[r->depth++];
    *frame = (struct frame){
        .message = rule == NULL ? MODEL : rule->child,
        .number = f->number,
        .wire = wire_of(f->bytes),
        .size = f->bytes.size,
        .operator= { "", 0 },
        .domain = { "", 0 },
    };
    return enter(r, frame);
}

static enum weir_status step(struct reader *r)
{
    struct frame *top = parent_of(r, 0);
    struct field f;
    if (top->wire.at == top->wire.end) {
        const enum weir_status status = leave(r, top);
        r->depth--;
        return status;
    }
    if (!wire_next(&top->wire, &f)) {
        return err_set(r->err, WEIR_EINVAL, "not an ONNX model, or damaged: malformed protobuf");
    }
    const struct child_rule *rule = find_child(top->message, &f);
    if (top->message == TYPE && rule == NULL) {
        return leaf_type(r, &f);
    }
    if (rule != NULL) {
        return push(r, rule, &f);
    }
    leaf_fn *leaf = leaves[top->message];
    return leaf == NULL ? WEIR_OK : leaf(r, &f);
}

static enum weir_status walk(struct reader *r, struct bytes data)
{
    const struct field whole = { .type = WIRE_BYTES, .bytes = data };
    enum weir_status status = push(r, NULL, &whole);
    while (status == WEIR_OK && r->depth > 0) {
        status = step(r);
    }
    return status;
}

/* --- The result ------------------------------------------------------------------------------- */

/* Since IR version 4 an input may be listed with an initializer as its default, before it
 * had to be: either way nobody needs to send it. */
static void drop_initialized_inputs(struct reader *r)
{
    struct onnx_file *file = r->file;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < file->input_count; i++) {
        if (map_get(&r->initialized, bytes_of(file->inputs[i].name)) == NULL) {
            file->inputs[kept++] = file->inputs[i];
        }
    }
    file->input_count = kept;
}

static int by_count(const void *a, const void *b)
{
    const struct onnx_operator *left = a;
    const struct onnx_operator *right = b;
    if (left->count != right->count) {
        return left->count > right->count ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static enum weir_status name_producer(struct reader *r)
{
    const char *space = r->producer.size > 0 && r->producer_version.size > 0 ? " " : "";
    r->file->producer =
        arena_try_printf(&r->file->arena, "%.*s%s%.*s", quoted(r->producer), r->producer.data,
                         space, quoted(r->producer_version), r->producer_version.data);
    return r->file->producer == NULL ? err_nomem(r->err, "the producer's name", 0) : WEIR_OK;
}

static enum weir_status conclude(struct reader *r, struct bytes data)
{
    struct onnx_file *file = r->file;
    if (!r->has_graph) {
        return err_set(r->err, WEIR_EINVAL, "not an ONNX model: it has no graph");
    }
    drop_initialized_inputs(r);
    if (file->operator_count > 1) {
        qsort(file->operators, file->operator_count, sizeof(*file->operators), by_count);
    }
    if (file->graph_name == NULL) {
        file->graph_name = "";
    }
    const enum weir_status status = name_producer(r);
    if (status != WEIR_OK) {
        return status;
    }
    file->bounded = false;
    return r->has_functions ? WEIR_OK
                            : onnx_nodes_bounded(data, &r->initialized, &file->bounded, r->err);
}

enum weir_status onnx_file_read(struct bytes data, struct onnx_file *out, struct weir_err *err)
{
    struct onnx_file file = { 0 };
    arena_init(&file.arena, NULL, 0, TEXT_BYTES_MAX);
    struct reader *r = mem_try_zero(1, sizeof(*r));
    if (r == NULL) {
        return err_nomem(err, "the model's description", sizeof(*r));
    }
    r->file = &file;
    r->err = err;
    r->producer = (struct bytes){ "", 0 };
    r->producer_version = (struct bytes){ "", 0 };
    map_init(&r->operators);
    map_init(&r->initialized);
    enum weir_status status = walk(r, data);
    if (status == WEIR_OK) {
        status = conclude(r, data);
    }
    map_finish(&r->operators);
    map_finish(&r->initialized);
    mem_free(r);
    if (status != WEIR_OK) {
        onnx_file_finish(&file);
        return status == WEIR_ENOMEM ? err_nomem(err, "the model's description", data.size)
                                     : status;
    }
    *out = file;
    return WEIR_OK;
}

void onnx_file_finish(struct onnx_file *file)
{
    mem_free(file->opsets);
    mem_free(file->inputs);
    mem_free(file->outputs);
    mem_free(file->weights);
    mem_free(file->externals);
    mem_free(file->operators);
    arena_finish(&file->arena);
    *file = (struct onnx_file){ 0 };
}
