/*
 * onnx_message.h — what the messages of an ONNX file say, for the walk through it (onnx_file.c).
 *
 * The walk keeps a stack of the messages that it is in.  Each is told here three times: when it is
 * entered, for each of its plain fields, and when it is left.  What it comes to is in the reader's
 * `file`.  WEIR_EINVAL names what is wrong with the file; WEIR_ENOMEM comes without a sentence.
 */
#ifndef WEIR_BACKEND_ONNX_MESSAGE_H
#define WEIR_BACKEND_ONNX_MESSAGE_H

#include "backend/onnx_file.h"
#include "backend/onnx_wire.h"
#include "util/map.h"

enum onnx_message {
    MESSAGE_MODEL,
    MESSAGE_OPSET,
    MESSAGE_GRAPH,
    MESSAGE_NODE,
    MESSAGE_ATTRIBUTE,
    MESSAGE_TENSOR,
    MESSAGE_SPARSE_TENSOR,
    MESSAGE_ENTRY,
    MESSAGE_VALUE,
    MESSAGE_TYPE,
    MESSAGE_TENSOR_TYPE,
    MESSAGE_SHAPE,
    MESSAGE_DIMENSION,
    MESSAGE_FUNCTION,
    MESSAGE_TRAINING,
};

struct onnx_frame {
    enum onnx_message message;
    uint32_t number;  /* The field of the parent that this is. */
    struct wire wire; /* What is left of it. */
    size_t size;
    uint64_t seen;         /* Singular messages met, by field number. */
    struct bytes operator; /* Of a node. */
    struct bytes domain;
};

/* The tensor being read; tensors do not nest. */
struct onnx_draft {
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

struct onnx_reader {
    struct onnx_file *file;
    struct weir_err *err;
    struct onnx_frame stack[ONNX_DEPTH_MAX];
    uint32_t depth;
    struct onnx_draft tensor;
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

/* The message that is being read, or the one so many levels above it; NULL: there is none. */
static inline struct onnx_frame *onnx_frame_of(struct onnx_reader *r, uint32_t up)
{
    return r->depth > up ? &r->stack[r->depth - 1 - up] : NULL;
}

/* So much of a name is repeated in a sentence. */
static inline int onnx_quoted(struct bytes text)
{
    return text.size > 80 ? 80 : (int)text.size;
}

/* The message on top of the stack has just come there. */
WEIR_MUST_USE enum weir_status onnx_message_enter(struct onnx_reader *r);

/* A field of it that is no message worth entering. */
WEIR_MUST_USE enum weir_status onnx_message_field(struct onnx_reader *r, const struct field *f);

/* All of it was read. */
WEIR_MUST_USE enum weir_status onnx_message_leave(struct onnx_reader *r);

#endif
