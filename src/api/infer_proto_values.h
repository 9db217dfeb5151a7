/*
 * infer_proto_values.h — InferTensorContents: numbers and strings of a message become a tensor's
 * bytes as they arrive.
 *
 * Any one thread.  Memory comes as kserve_room()'s does: few bytes from the arena, more from
 * the pool, both aligned.
 */
#ifndef WEIR_API_INFER_PROTO_VALUES_H
#define WEIR_API_INFER_PROTO_VALUES_H

#include "tensor/tensor.h"
#include "util/arena.h"
#include "util/protowire.h"

struct infer_proto_memory {
    struct arena *arena;
    struct block_pool *blocks;
};

/* Bytes of one tensor. */
struct infer_proto_room {
    uint8_t *data; /* MEM_ALIGN-aligned. */
    size_t size;
    size_t capacity;
    struct block *block; /* Held; NULL: the arena's. */
};

/* Makes room for `capacity` bytes in all.  WEIR_ENOMEM: all is as it was. */
WEIR_MUST_USE enum weir_status infer_proto_room_reserve(struct infer_proto_room *room,
                                                        const struct infer_proto_memory *memory,
                                                        size_t capacity, struct weir_err *err);
void infer_proto_room_release(struct infer_proto_room *room); /* Zeroed ones are fine. */

/* Zeroed: no values yet. */
struct infer_proto_values {
    struct infer_proto_room room;
    uint32_t field;                 /* The first that had values; 0: none. */
    bool mixed;                     /* Another one had some, too; those are gone. */
    bool beyond;                    /* A number does not fit the tensor's type. */
    bool ignored;                   /* What comes now is one of them. */
    uint32_t width;                 /* Bytes per number; 0 for strings. */
    struct protowire_varint number; /* A packed one that is cut. */
};

/* A field of InferTensorContents begins, with `wire_bytes` of values at most.  `tensor_bytes` is
 * what the tensor's type and shape ask for, 0 while that is not known; `dtype` may be NULL for the
 * same reason.  A field that there is not is ignored.  WEIR_EINVAL, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status infer_proto_values_begin(struct infer_proto_values *values,
                                                        const struct infer_proto_memory *memory,
                                                        uint32_t field, uint64_t wire_bytes,
                                                        const enum dtype *dtype,
                                                        size_t tensor_bytes, struct weir_err *err);

/* Packed numbers, cut anywhere, and where they end. */
WEIR_MUST_USE enum weir_status infer_proto_values_packed(struct infer_proto_values *values,
                                                         const struct infer_proto_memory *memory,
                                                         struct bytes bytes, struct weir_err *err);
WEIR_MUST_USE enum weir_status infer_proto_values_packed_end(struct infer_proto_values *values,
                                                             struct weir_err *err);

/* A number that is not packed. */
WEIR_MUST_USE enum weir_status infer_proto_values_number(struct infer_proto_values *values,
                                                         const struct infer_proto_memory *memory,
                                                         uint64_t number, struct weir_err *err);

/* A string of `size` bytes: its bytes follow as packed ones. */
WEIR_MUST_USE enum weir_status infer_proto_values_string(struct infer_proto_values *values,
                                                         const struct infer_proto_memory *memory,
                                                         uint64_t size, struct weir_err *err);

/* The type whose numbers a field holds at their full width: what it is called in sentences. */
const char *infer_proto_values_type(uint32_t field);

/* Whether values of that field can be a tensor of that type. */
bool infer_proto_values_suit(uint32_t field, enum dtype dtype);

/* All values are there: brings them to the type's width. */
void infer_proto_values_fit(struct infer_proto_values *values, enum dtype dtype);

#endif
