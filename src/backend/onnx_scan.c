/*
 * Which operators can surprise.
 *
 * A run on a loop thread must take the time it took before at this shape.  Loops and
 * branches may not; neither may an operator whose output size is the value of an input, unless that
 * value is constant or was computed from shapes alone.  So values are sorted into *known* ones
 * (initializers, constants, shapes, and what is computed from these) and the rest.
 */
#include "backend/onnx_scan.h"

#include <stdint.h>

#include "backend/onnx_wire.h"

#define ALWAYS UINT32_MAX
#define INPUT(index) (UINT32_C(1) << (index))

/* Operators that need a look: the inputs whose values make sizes, or ALWAYS. */
struct sized {
    const char *operator;
    uint32_t inputs;
};

static const struct sized sized_operators[] = {
    { "AffineGrid", INPUT(1) },
    { "BlackmanWindow", INPUT(0) },
    { "CenterCropPad", INPUT(1) },
    { "Col2Im", INPUT(1) },
    { "Compress", ALWAYS },
    { "ConstantOfShape", INPUT(0) },
    { "DFT", INPUT(1) },
    { "Expand", INPUT(1) },
    { "HammingWindow", INPUT(0) },
    { "HannWindow", INPUT(0) },
    { "If", ALWAYS },
    { "ImageDecoder", ALWAYS },
    { "Loop", ALWAYS },
    { "MaxUnpool", INPUT(2) },
    { "MelWeightMatrix", INPUT(0) },
    { "NonMaxSuppression", ALWAYS },
    { "NonZero", ALWAYS },
    { "OneHot", INPUT(1) },
    { "Pad", INPUT(1) },
    { "Range", INPUT(0) | INPUT(1) | INPUT(2) },
    { "Resize", INPUT(1) | INPUT(2) | INPUT(3) },
    { "STFT", INPUT(1) | INPUT(3) },
    { "Scan", ALWAYS },
    { "SequenceMap", ALWAYS },
    { "StringSplit", ALWAYS },
    { "Tile", INPUT(1) },
    { "Unique", ALWAYS },
    { "Upsample", INPUT(1) },
};

/* Same inputs, other outputs: never known. */
static const char *const random_operators[] = {
    "Bernoulli",     "Multinomial",       "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Dropout",
};

struct node {
    struct bytes operator;
    struct bytes domain;
    uint32_t unknown; /* Inputs whose value is not known. */
    uint32_t inputs;
};

static char marker;

static uint32_t sizes_of(struct bytes operator)
{
    for (size_t i = 0; i < sizeof(sized_operators) / sizeof(sized_operators[0]); i++) {
        if (bytes_equal(operator, bytes_of(sized_operators[i].operator))) {
            return sized_operators[i].inputs;
        }
    }
    return 0;
}

static bool is_random(struct bytes operator)
{
    for (size_t i = 0; i < sizeof(random_operators) / sizeof(random_operators[0]); i++) {
        if (bytes_equal(operator, bytes_of(random_operators[i]))) {
            return true;
        }
    }
    return false;
}

static bool is_standard(struct bytes domain)
{
    return domain.size == 0 || bytes_equal(domain, BYTES_LITERAL("ai.onnx")) ||
           bytes_equal(domain, BYTES_LITERAL("ai.onnx.ml"));
}

static struct node read_node(struct bytes data, const struct map *initialized,
                             const struct map *known)
{
    struct node node = { 0 };
    struct wire wire = wire_of(data);
    struct field f;
    while (wire_next(&wire, &f)) {
        if (f.type != WIRE_BYTES) {
            continue;
        }
        if (f.number == 1) {
            const bool is_known = f.bytes.size == 0 || map_get(initialized, f.bytes) != NULL ||
                                  map_get(known, f.bytes) != NULL;
            node.unknown |= is_known ? 0 : INPUT(node.inputs < 31 ? node.inputs : 31);
            node.inputs++;
        } else if (f.number == 4) {
            node.operator= f.bytes;
        } else if (f.number == 7) {
            node.domain = f.bytes;
        }
    }
    return node;
}

static bool is_bounded(const struct node *node)
{
    const uint32_t sizes = sizes_of(node->operator);
    return is_standard(node->domain) && sizes != ALWAYS && (sizes & node->unknown) == 0;
}

static bool makes_known(const struct node *node)
{
    if (bytes_equal(node->operator, BYTES_LITERAL("Shape")) ||
        bytes_equal(node->operator, BYTES_LITERAL("Size")) ||
        bytes_equal(node->operator, BYTES_LITERAL("Constant"))) {
        return true;
    }
    return node->inputs > 0 && node->unknown == 0 && !is_random(node->operator);
}

static enum weir_status add_outputs(struct bytes data, struct map *known, struct weir_err *err)
{
    struct wire wire = wire_of(data);
    struct field f;
    while (wire_next(&wire, &f)) {
        if (f.number != 2 || f.type != WIRE_BYTES || f.bytes.size == 0) {
            continue;
        }
        if (map_add(known, f.bytes, &marker) == WEIR_ENOMEM) {
            return err_nomem(err, "the names of constants", f.bytes.size);
        }
    }
    return WEIR_OK;
}

static enum weir_status walk_graph(struct bytes graph, const struct map *initialized,
                                   struct map *known, bool *bounded, struct weir_err *err)
{
    struct wire wire = wire_of(graph);
    struct field f;
    while (*bounded && wire_next(&wire, &f)) {
        if (f.number != 1 || f.type != WIRE_BYTES) {
            continue;
        }
        const struct node node = read_node(f.bytes, initialized, known);
        *bounded = is_bounded(&node);
        if (makes_known(&node)) {
            const enum weir_status status = add_outputs(f.bytes, known, err);
            if (status != WEIR_OK) {
                return status;
            }
        }
    }
    return WEIR_OK;
}

enum weir_status onnx_nodes_bounded(struct bytes data, const struct map *initialized, bool *out,
                                    struct weir_err *err)
{
    struct map known;
    map_init(&known);
    struct wire wire = wire_of(data);
    struct field f;
    bool bounded = true;
    enum weir_status status = WEIR_OK;
    while (status == WEIR_OK && bounded && wire_next(&wire, &f)) {
        if (f.number == 7 && f.type == WIRE_BYTES) {
            status = walk_graph(f.bytes, initialized, &known, &bounded, err);
        }
    }
    map_finish(&known);
    if (status == WEIR_OK) {
        *out = bounded;
    }
    return status;
}
