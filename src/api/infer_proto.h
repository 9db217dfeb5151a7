/*
 * infer_proto.h — ModelInferRequest, decoded while it arrives.
 *
 *     infer_proto_begin(&proto, &arena, blocks, limits, message_size)
 *     infer_proto_read(&proto, chunk)...      of any sizes
 *     infer_proto_end(&proto)                 all of it was there
 *     kserve_open(&call, model named by proto.model_name and proto.model_version)
 *     infer_proto_bind(&proto, &call)         parameters, inputs, outputs; completes the call
 *     infer_proto_close(&proto)               after the call's end, or at any time before
 *
 * The message itself is never kept: each tensor's bytes are copied once at most, from the chunk to
 * where the model reads them.  What is kept counts against limits->bodies_bytes_max until the
 * close, and nothing that a client says reserves more than its bytes can fill.
 *
 * Any one thread at a time.  Must not move between begin and close.
 */
#ifndef WEIR_API_INFER_PROTO_H
#define WEIR_API_INFER_PROTO_H

#include "api/infer_proto_values.h"
#include "api/kserve.h"
#include "util/limits.h"

#define INFER_PROTO_TENSORS_MAX 1024    /* Inputs, outputs and raw contents of a message, each. */
#define INFER_PROTO_PARAMETERS_MAX 1024 /* Of a message. */
#define INFER_PROTO_TEXT_MAX 65536      /* Bytes of a name, an id or a parameter. */

struct infer_proto_parameter {
    struct infer_proto_parameter *next;
    struct bytes key;
    bool has_value;
    struct infer_value value;
};

/* What parameters say of shared memory; keys empty: nothing. */
struct infer_proto_shared {
    struct infer_proto_parameter region;
    struct infer_proto_parameter offset;
    struct infer_proto_parameter size;
};

struct infer_proto_input {
    struct infer_proto_input *next;
    struct bytes name;
    struct bytes datatype;
    struct shape shape;
    bool typed; /* It has `contents`. */
    struct infer_proto_shared shared;
    struct infer_proto_values values;
};

struct infer_proto_output {
    struct infer_proto_output *next;
    struct bytes name;
    struct infer_proto_shared shared;
    bool classified;
    struct infer_proto_parameter classes;
};

/* An entry of raw_input_contents. */
struct infer_proto_raw {
    struct infer_proto_raw *next;
    struct infer_proto_room room;
};

struct infer_proto {
    /* What was read; texts are the arena's, and empty where there were none. */
    struct bytes model_name;
    struct bytes model_version;
    struct bytes id;
    bool empty_final; /* triton_enable_empty_final_response, known after infer_proto_bind(). */

    /* The decoder's. */
    struct infer_proto_memory memory;
    const struct limits *limits;
    struct protowire wire;
    struct infer_proto_input *inputs;
    struct infer_proto_input *input; /* The latest; so with the others. */
    struct infer_proto_output *outputs;
    struct infer_proto_output *output;
    struct infer_proto_parameter *parameters;
    struct infer_proto_parameter *parameter;
    struct infer_proto_raw *raws;
    struct infer_proto_raw *raw;
    struct infer_proto_parameter entry; /* The one being read, of whatever it belongs to. */
    uint32_t input_count;
    uint32_t output_count;
    uint32_t parameter_count;
    uint32_t raw_count;
    uint8_t open;                /* Which message is open, */
    uint8_t owner;               /* and which one the entry belongs to, */
    uint8_t sink;                /* and where the bytes of a field go: */
    struct bytes *text;          /* A string's place, */
    char *text_at;               /* its memory, */
    size_t text_size;            /* and how much there is. */
    struct protowire_varint dim; /* A dimension that is cut. */
    size_t values_bytes;         /* Bytes that typed contents have become. */
    uint64_t held_bytes;
};

/* `limits` is borrowed until the close. */
void infer_proto_begin(struct infer_proto *proto, struct arena *arena, struct block_pool *blocks,
                       const struct limits *limits, uint64_t message_size);

/* WEIR_EINVAL: no such message; WEIR_ETOOBIG: too many tensors, too long a text; WEIR_EFULL;
 * WEIR_ENOMEM.  After a failure only the close may follow. */
WEIR_MUST_USE enum weir_status infer_proto_read(struct infer_proto *proto, struct bytes chunk,
                                                struct weir_err *err);

/* Between chunks: where the next bytes belong, and how many, while they are a tensor's.  A chunk
 * that lies there is not copied.  False: nowhere yet. */
bool infer_proto_place(const struct infer_proto *proto, char **at, size_t *room);

/* WEIR_EINVAL: the message ends too early. */
WEIR_MUST_USE enum weir_status infer_proto_end(struct infer_proto *proto, struct weir_err *err);

/* Fills in an open call and completes it.  Takes tensors' memory.  As kserve's calls. */
WEIR_MUST_USE enum weir_status infer_proto_bind(struct infer_proto *proto, struct infer_call *call,
                                                struct weir_err *err);

/* Bytes of strings that infer_proto_bind() has to check, and of numbers that it has to narrow: what
 * is much is for a worker. */
uint64_t infer_proto_bind_bytes(const struct infer_proto *proto);

void infer_proto_close(struct infer_proto *proto); /* Zeroed, and twice, is fine. */

#endif
