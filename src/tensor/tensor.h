/*
 * tensor.h — type, shape, place and counted bytes; and the one checked size routine.
 *
 * Elements are row-major, little-endian, without padding, as on the wire.  A BYTES tensor is a
 * run of elements, each a uint32 little-endian length and that many bytes (KServe's binary
 * layout); its size is not told by its shape.
 */
#ifndef WEIR_TENSOR_TENSOR_H
#define WEIR_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/block.h"
#include "util/bytes.h"
#include "util/err.h"

#define TENSOR_RANK_MAX 12
#define TENSOR_ELEMENTS_MAX (INT64_C(1) << 40)

/* X(name, KServe name, bytes per element; 0: variable) */
#define DTYPES(X)          \
    X(BOOL, "BOOL", 1)     \
    X(UINT8, "UINT8", 1)   \
    X(UINT16, "UINT16", 2) \
    X(UINT32, "UINT32", 4) \
    X(UINT64, "UINT64", 8) \
    X(INT8, "INT8", 1)     \
    X(INT16, "INT16", 2)   \
    X(INT32, "INT32", 4)   \
    X(INT64, "INT64", 8)   \
    X(FP16, "FP16", 2)     \
    X(FP32, "FP32", 4)     \
    X(FP64, "FP64", 8)     \
    X(BF16, "BF16", 2)     \
    X(BYTES, "BYTES", 0)

enum dtype {
#define DTYPE_ENUM(name, text, size) DTYPE_##name,
    DTYPES(DTYPE_ENUM)
#undef DTYPE_ENUM
    DTYPE_COUNT
};

const char *dtype_text(enum dtype dtype);
size_t dtype_size(enum dtype dtype); /* 0 for BYTES. */
WEIR_MUST_USE bool dtype_of(struct bytes text, enum dtype *out);

/* In signatures a dimension of -1 is variable; in tensors none is negative. */
struct shape {
    uint32_t rank; /* 0..TENSOR_RANK_MAX; rank 0 is one element. */
    int64_t dims[TENSOR_RANK_MAX];
};

bool shape_equal(const struct shape *a, const struct shape *b);

/* True when `shape` is one that `spec`, which may have dimensions of -1, allows. */
bool shape_fits(const struct shape *shape, const struct shape *spec);

/* "[-1,3,224,224]" into `out` of at least SHAPE_TEXT bytes; returns `out`. */
#define SHAPE_TEXT (TENSOR_RANK_MAX * 21 + 3)
char *shape_format(const struct shape *shape, char *out);

/* Number of elements.  WEIR_EINVAL when a dimension is negative or the product is above
 * TENSOR_ELEMENTS_MAX.  Every size in Weir comes through here or tensor_bytes(). */
WEIR_MUST_USE enum weir_status shape_elements(const struct shape *shape, uint64_t *out,
                                              struct weir_err *err);

/* Bytes of a tensor of fixed-size elements; WEIR_EINVAL for BYTES. */
WEIR_MUST_USE enum weir_status tensor_bytes(enum dtype dtype, const struct shape *shape,
                                            size_t *out, struct weir_err *err);

/* Where the bytes are. */
enum place { PLACE_HOST };

/* A view of counted memory.  Zeroed is "absent": data NULL, block NULL. */
struct tensor {
    enum dtype dtype;
    enum place place;
    struct shape shape;
    uint8_t *data; /* MEM_ALIGN-aligned only where the maker says so. */
    size_t size;   /* Bytes. */
    bool present;
    struct block *block; /* Held; NULL when the memory is borrowed. */
};

void tensor_release(struct tensor *tensor); /* Lets the block go; leaves it absent. */

/* Checks a BYTES tensor: exactly as many whole elements as its shape says.  WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status tensor_check_strings(const struct tensor *tensor,
                                                    struct weir_err *err);

/* Steps through the elements of a checked BYTES tensor: start with *at = 0; false at the end. */
bool tensor_next_string(const struct tensor *tensor, size_t *at, struct bytes *out);

/* The half-precision conversions, IEEE 754 round to nearest even. */
float tensor_fp16_to_float(uint16_t half);
float tensor_bf16_to_float(uint16_t half);
uint16_t tensor_float_to_fp16(float value);
uint16_t tensor_float_to_bf16(float value);

#endif
