/*
 * onnx_file.h — reads what an ONNX file says about itself, without trusting it.
 *
 * An iterative reader over a mapping: it needs no recursion, no generated code and no memory in
 * proportion to the weights, and refuses what no exporter writes (nested deeper than
 * ONNX_DEPTH_MAX, singular messages given twice, data shorter than its shape).  It serves `weir
 * inspect`, and every load: a model's external data is checked here before ONNX Runtime sees the
 * file.  Blocking only for onnx_file_check_external().
 */
#ifndef WEIR_BACKEND_ONNX_FILE_H
#define WEIR_BACKEND_ONNX_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/tensor.h"
#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"

#define ONNX_DEPTH_MAX 100 /* Messages within messages, as protobuf's own limit. */

/* X(name, text): what an input or output can be. */
#define ONNX_KINDS(X)          \
    X(NOTHING, "untyped")      \
    X(TENSOR, "a tensor")      \
    X(SEQUENCE, "a sequence")  \
    X(MAP, "a map")            \
    X(OPTIONAL, "an optional") \
    X(SPARSE, "a sparse tensor")

enum onnx_kind {
#define ONNX_KIND_ENUM(name, text) ONNX_KIND_##name,
    ONNX_KINDS(ONNX_KIND_ENUM)
#undef ONNX_KIND_ENUM
};

/* An input or output of the top graph. */
struct onnx_value {
    const char *name;
    enum onnx_kind kind;
    int32_t type;                           /* TensorProto.DataType; see onnx_type_text(). */
    bool has_shape;                         /* False: any rank. */
    struct shape shape;                     /* -1: variable. */
    const char *dim_names[TENSOR_RANK_MAX]; /* Symbolic names, or NULL. */
};

/* A tensor stored in the graph: a weight. */
struct onnx_weight {
    const char *name;
    int32_t type;
    struct shape shape;
    uint64_t elements;
    uint64_t bytes; /* As the shape says; of a string tensor, as stored. */
    bool external;
};

/* Where a tensor's data lies outside the file.  Not checked yet. */
struct onnx_external {
    const char *tensor;   /* Its name, may be "". */
    const char *location; /* Relative to the file's folder, as the file says it. */
    uint64_t offset;
    uint64_t length; /* 0: to the end of the file. */
    uint64_t bytes;  /* Needed by the tensor's shape. */
};

struct onnx_opset {
    const char *domain; /* "": the standard operators. */
    int64_t version;
};

struct onnx_operator {
    const char *name; /* "Conv", or "com.example.Thing" outside the standard domains. */
    uint64_t count;   /* Uses, those in subgraphs and functions included. */
};

/* Everything in it lives in its arena.  One thread at a time. */
struct onnx_file {
    struct arena arena;
    int64_t ir_version;
    const char *producer; /* "pytorch 2.4.0"; "" when the file does not say. */
    const char *graph_name;
    struct onnx_opset *opsets;
    struct onnx_value *inputs; /* Without those that an initializer gives a value. */
    struct onnx_value *outputs;
    struct onnx_weight *weights; /* Initializers of all graphs. */
    struct onnx_external *externals;
    struct onnx_operator *operators; /* Most used first. */
    uint32_t opset_count;
    uint32_t input_count;
    uint32_t output_count;
    uint32_t weight_count;
    uint32_t external_count;
    uint32_t operator_count;
    uint64_t node_count;
    uint64_t parameters; /* Elements of all weights. */
    uint64_t parameter_bytes;
    /* No loop, branch or operator outside the standard, and no output size that depends on the
     * values of an input. */
    bool bounded;
};

/* Reads `data`, which is borrowed for the call.  WEIR_EINVAL: no ONNX file, or one that contradicts
 * itself; WEIR_ENOMEM.  On success the caller finishes `out`. */
WEIR_MUST_USE enum weir_status onnx_file_read(struct bytes data, struct onnx_file *out,
                                              struct weir_err *err);
void onnx_file_finish(struct onnx_file *file); /* Zeroed ones are fine. */

/* Checks each external location: relative, without "..", no link anywhere on the way, a regular
 * file with one name, beneath the folder, and long enough.  WEIR_EINVAL, WEIR_ENOENT. */
WEIR_MUST_USE enum weir_status onnx_file_check_external(const struct onnx_file *file, int folder_fd,
                                                        struct weir_err *err);

const char *onnx_kind_text(enum onnx_kind kind);

/* "FLOAT16" for 10, as onnx.proto names it; "type N" is "unknown". */
const char *onnx_type_text(int32_t type);

/* Bytes of at most TENSOR_ELEMENTS_MAX packed elements; 0 for strings and unknown types. */
uint64_t onnx_type_bytes(int32_t type, uint64_t elements);

/* The dtype that serves a TensorProto.DataType; false when none does. */
WEIR_MUST_USE bool onnx_type_dtype(int32_t type, enum dtype *out);

#endif
