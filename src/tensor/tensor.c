/*
 * Types, shapes and sizes.
 *
 * Every size in Weir that comes from outside goes through shape_elements(), which refuses before it
 * multiplies: negative dimensions first, then a product above TENSOR_ELEMENTS_MAX.  A zero anywhere
 * makes zero elements, however large the other dimensions are, but a dimension that could not stand
 * alone is refused all the same.
 */
#include "tensor/tensor.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"

struct dtype_row {
    const char *text;
    size_t size;
};

static const struct dtype_row dtype_rows[] = {
#define DTYPE_ROW(name, text, size) { text, size },
    DTYPES(DTYPE_ROW)
#undef DTYPE_ROW
};

const char *dtype_text(enum dtype dtype)
{
    return (unsigned)dtype < DTYPE_COUNT ? dtype_rows[dtype].text : "unknown type";
}

size_t dtype_size(enum dtype dtype)
{
    return (unsigned)dtype < DTYPE_COUNT ? dtype_rows[dtype].size : 0;
}

bool dtype_of(struct bytes text, enum dtype *out)
{
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (bytes_equal(text, bytes_of(dtype_rows[i].text))) {
            *out = (enum dtype)i;
            return true;
        }
    }
    return false;
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof(a->dims[0])) == 0;
}

bool shape_fits(const struct shape *shape, const struct shape *spec)
{
    if (shape->rank != spec->rank) {
        return false;
    }
    for (uint32_t i = 0; i < shape->rank; i++) {
        if (spec->dims[i] != -1 && spec->dims[i] != shape->dims[i]) {
            return false;
        }
    }
    return true;
}

char *shape_format(const struct shape *shape, char *out)
{
    assert(shape->rank <= TENSOR_RANK_MAX);
    char *at = out;
    *at++ = '[';
    for (uint32_t i = 0; i < shape->rank; i++) {
        at += snprintf(at, 22, i == 0 ? "%" PRId64 : ",%" PRId64, shape->dims[i]);
    }
    *at++ = ']';
    *at = '\0';
    return out;
}

static enum weir_status refuse_negative(const struct shape *shape, struct weir_err *err)
{
    char text[SHAPE_TEXT];
    return err_set(err, WEIR_EINVAL, "shape %s has a negative dimension",
                   shape_format(shape, text));
}

static enum weir_status refuse_large(const struct shape *shape, struct weir_err *err)
{
    char text[SHAPE_TEXT];
    return err_set(err, WEIR_EINVAL, "shape %s has more than %" PRId64 " elements",
                   shape_format(shape, text), TENSOR_ELEMENTS_MAX);
}

enum weir_status shape_elements(const struct shape *shape, uint64_t *out, struct weir_err *err)
{
    if (shape->rank > TENSOR_RANK_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "shape has %" PRIu32 " dimensions, at most %d are possible", shape->rank,
                       TENSOR_RANK_MAX);
    }
    uint64_t product = 1;
    bool empty = false;
    for (uint32_t i = 0; i < shape->rank; i++) {
        const int64_t dim = shape->dims[i];
        if (dim < 0) {
            return refuse_negative(shape, err);
        }
        empty = empty || dim == 0;
        if (dim > TENSOR_ELEMENTS_MAX ||
            __builtin_mul_overflow(product, dim == 0 ? 1 : (uint64_t)dim, &product) ||
            product > TENSOR_ELEMENTS_MAX) {
            return refuse_large(shape, err);
        }
    }
    *out = empty ? 0 : product;
    return WEIR_OK;
}

enum weir_status tensor_bytes(enum dtype dtype, const struct shape *shape, size_t *out,
                              struct weir_err *err)
{
    const size_t each = dtype_size(dtype);
    if (each == 0) {
        return err_set(err, WEIR_EINVAL, "the shape of a %s tensor does not tell its size",
                       dtype_text(dtype));
    }
    uint64_t elements;
    const enum weir_status status = shape_elements(shape, &elements, err);
    if (status != WEIR_OK) {
        return status;
    }
    size_t size;
    if (__builtin_mul_overflow(elements, each, &size)) {
        char text[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL, "a %s tensor of shape %s is too large", dtype_text(dtype),
                       shape_format(shape, text));
    }
    *out = size;
    return WEIR_OK;
}

void tensor_release(struct tensor *tensor)
{
    block_release(tensor->block);
    *tensor = (struct tensor){ 0 };
}

static uint32_t load_le32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

enum weir_status tensor_check_strings(const struct tensor *tensor, struct weir_err *err)
{
    uint64_t elements;
    const enum weir_status status = shape_elements(&tensor->shape, &elements, err);
    if (status != WEIR_OK) {
        return status;
    }
    size_t at = 0;
    for (uint64_t i = 0; i < elements; i++) {
        const size_t left = tensor->size - at;
        if (left < 4) {
            return err_set(err, WEIR_EINVAL,
                           "BYTES data ends after %" PRIu64 " elements, the shape has %" PRIu64, i,
                           elements);
        }
        const uint32_t length = load_le32(tensor->data + at);
        if (length > left - 4) {
            return err_set(err, WEIR_EINVAL,
                           "element %" PRIu64 " of BYTES data says %" PRIu32 " bytes, %zu are left",
                           i, length, left - 4);
        }
        at += 4 + (size_t)length;
    }
    if (at != tensor->size) {
        return err_set(err, WEIR_EINVAL, "BYTES data has %zu bytes after its %" PRIu64 " elements",
                       tensor->size - at, elements);
    }
    return WEIR_OK;
}

bool tensor_next_string(const struct tensor *tensor, size_t *at, struct bytes *out)
{
    if (*at >= tensor->size) {
        return false;
    }
    assert(tensor->size - *at >= 4);
    const uint32_t length = load_le32(tensor->data + *at);
    assert(length <= tensor->size - *at - 4);
    *out = (struct bytes){ (const char *)tensor->data + *at + 4, length };
    *at += 4 + (size_t)length;
    return true;
}

static float bits_to_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint32_t float_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

float tensor_fp16_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu;
    const uint32_t fraction = half & 0x3ffu;
    if (exponent == 0) {
        /* Zero and subnormals: fraction * 2^-24 is exact in FP32. */
        const float magnitude = (float)fraction * 0x1p-24f;
        return bits_to_float(sign | float_to_bits(magnitude));
    }
    const uint32_t wide = exponent == 0x1fu ? 0xffu : exponent + 127 - 15;
    return bits_to_float(sign | wide << 23 | fraction << 13);
}

float tensor_bf16_to_float(uint16_t half)
{
    return bits_to_float((uint32_t)half << 16);
}

/* value / 2^shift rounded to nearest, ties to even; shift is 1..31. */
static uint32_t shift_rounded(uint32_t value, uint32_t shift)
{
    const uint32_t half = UINT32_C(1) << (shift - 1);
    const uint32_t odd = (value >> shift) & 1;
    return (value + half - 1 + odd) >> shift;
}

uint16_t tensor_float_to_fp16(float value)
{
    const uint32_t bits = float_to_bits(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        /* The quiet bit keeps a NaN whose payload is cut off from becoming infinity. */
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    }
    if (magnitude >= 0x47800000u) { /* 65536 and above; what lies below rounds up by itself. */
        return (uint16_t)(sign | 0x7c00u);
    }
    const uint32_t exponent = magnitude >> 23;
    if (exponent >= 113) { /* Normal: 2^-14 and above. */
        return (uint16_t)(sign | shift_rounded(magnitude - (UINT32_C(112) << 23), 13));
    }
    if (exponent < 102) { /* Below half of the smallest subnormal. */
        return (uint16_t)sign;
    }
    const uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
    return (uint16_t)(sign | shift_rounded(fraction, 126 - exponent));
}

uint16_t tensor_float_to_bf16(float value)
{
    const uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    /* The sign rides along: a carry cannot leave the exponent, infinity's is all ones already. */
    const uint32_t odd = (bits >> 16) & 1;
    return (uint16_t)((bits + 0x7fffu + odd) >> 16);
}
