/*
 * A bounded reader of ONNX files.
 *
 * The protobuf wire format is a list of numbered fields; a table says which fields are
 * messages worth entering (what these say is onnx_message.c's), everything else is skipped by its
 * length.  One stack of frames takes the place of recursion.  Two passes: the first collects
 * whatever lies anywhere in the file, the second walks the nodes of the top graph in their order,
 * to find out whether the size of any output hangs on the value of an input.
 *
 * Parsers disagree about a singular message that is given twice: protobuf merges both.  A tensor
 * whose external data is spread over two halves would look harmless here and be none there, so that
 * form, which nobody writes, is refused.
 */
#include "backend/onnx_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/onnx_message.h"
#include "backend/onnx_scan.h"
#include "util/err.h"
#include "util/map.h"
#include "util/mem.h"

#define TEXT_BYTES_MAX ((size_t)256 << 20) /* All names of one file. */

/* The messages worth entering: field `number` of `in` is a `child`. */
struct child_rule {
    enum onnx_message in;
    uint32_t number;
    enum onnx_message child;
    bool repeated;
};

static const struct child_rule child_rules[] = {
    { MESSAGE_MODEL, 7, MESSAGE_GRAPH, false },
    { MESSAGE_MODEL, 8, MESSAGE_OPSET, true },
    { MESSAGE_MODEL, 20, MESSAGE_TRAINING, true },
    { MESSAGE_MODEL, 25, MESSAGE_FUNCTION, true },
    { MESSAGE_GRAPH, 1, MESSAGE_NODE, true },
    { MESSAGE_GRAPH, 5, MESSAGE_TENSOR, true },
    { MESSAGE_GRAPH, 11, MESSAGE_VALUE, true },
    { MESSAGE_GRAPH, 12, MESSAGE_VALUE, true },
    { MESSAGE_GRAPH, 15, MESSAGE_SPARSE_TENSOR, true },
    { MESSAGE_NODE, 5, MESSAGE_ATTRIBUTE, true },
    { MESSAGE_ATTRIBUTE, 5, MESSAGE_TENSOR, false },
    { MESSAGE_ATTRIBUTE, 6, MESSAGE_GRAPH, false },
    { MESSAGE_ATTRIBUTE, 10, MESSAGE_TENSOR, true },
    { MESSAGE_ATTRIBUTE, 11, MESSAGE_GRAPH, true },
    { MESSAGE_ATTRIBUTE, 22, MESSAGE_SPARSE_TENSOR, false },
    { MESSAGE_ATTRIBUTE, 23, MESSAGE_SPARSE_TENSOR, true },
    { MESSAGE_TENSOR, 13, MESSAGE_ENTRY, true },
    { MESSAGE_SPARSE_TENSOR, 1, MESSAGE_TENSOR, false },
    { MESSAGE_SPARSE_TENSOR, 2, MESSAGE_TENSOR, false },
    { MESSAGE_VALUE, 2, MESSAGE_TYPE, false },
    { MESSAGE_TYPE, 1, MESSAGE_TENSOR_TYPE, false },
    { MESSAGE_TENSOR_TYPE, 2, MESSAGE_SHAPE, false },
    { MESSAGE_SHAPE, 1, MESSAGE_DIMENSION, true },
    { MESSAGE_FUNCTION, 7, MESSAGE_NODE, true },
    { MESSAGE_FUNCTION, 11, MESSAGE_ATTRIBUTE, true },
    { MESSAGE_TRAINING, 1, MESSAGE_GRAPH, false },
    { MESSAGE_TRAINING, 2, MESSAGE_GRAPH, false },
};

/* --- The walk --------------------------------------------------------------------------------- */

static const struct child_rule *find_child(enum onnx_message in, const struct field *f)
{
    for (size_t i = 0; i < sizeof(child_rules) / sizeof(child_rules[0]); i++) {
        const struct child_rule *rule = &child_rules[i];
        if (rule->in == in && rule->number == f->number && f->type == WIRE_BYTES) {
            return rule;
        }
    }
    return NULL;
}

static enum weir_status push(struct onnx_reader *r, const struct child_rule *rule,
                             const struct field *f)
{
    if (rule != NULL && !rule->repeated) {
        struct onnx_frame *top = onnx_frame_of(r, 0);
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
    struct onnx_frame *frame = &r->stack[r->depth++];
    *frame = (struct onnx_frame){
        .message = rule == NULL ? MESSAGE_MODEL : rule->child,
        .number = f->number,
        .wire = wire_of(f->bytes),
        .size = f->bytes.size,
        .operator= { "", 0 },
        .domain = { "", 0 },
    };
    return onnx_message_enter(r);
}

static enum weir_status step(struct onnx_reader *r)
{
    struct onnx_frame *top = onnx_frame_of(r, 0);
    struct field f;
    if (top->wire.at == top->wire.end) {
        const enum weir_status status = onnx_message_leave(r);
        r->depth--;
        return status;
    }
    if (!wire_next(&top->wire, &f)) {
        return err_set(r->err, WEIR_EINVAL, "not an ONNX model, or damaged: malformed protobuf");
    }
    const struct child_rule *rule = find_child(top->message, &f);
    return rule != NULL ? push(r, rule, &f) : onnx_message_field(r, &f);
}

static enum weir_status walk(struct onnx_reader *r, struct bytes data)
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
static void drop_initialized_inputs(struct onnx_reader *r)
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

static enum weir_status name_producer(struct onnx_reader *r)
{
    const char *space = r->producer.size > 0 && r->producer_version.size > 0 ? " " : "";
    r->file->producer =
        arena_try_printf(&r->file->arena, "%.*s%s%.*s", onnx_quoted(r->producer), r->producer.data,
                         space, onnx_quoted(r->producer_version), r->producer_version.data);
    return r->file->producer == NULL ? err_nomem(r->err, "the producer's name", 0) : WEIR_OK;
}

static enum weir_status conclude(struct onnx_reader *r, struct bytes data)
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
    struct onnx_reader *r = mem_try_zero(1, sizeof(*r));
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
