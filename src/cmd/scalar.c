#include "cmd/scalar.h"

#include <math.h>
#include <string.h>

#include "util/json.h"

/* X(dtype, C type, least, greatest): the integers. */
#define INTEGERS(X)                                \
    X(UINT8, uint8_t, 0, UINT8_MAX)                \
    X(UINT16, uint16_t, 0, UINT16_MAX)             \
    X(UINT32, uint32_t, 0, UINT32_MAX)             \
    X(UINT64, uint64_t, 0, UINT64_MAX)             \
    X(INT8, int8_t, INT8_MIN, INT8_MAX)            \
    X(INT16, int16_t, INT16_MIN, INT16_MAX)        \
    X(INT32, int32_t, INT32_MIN, INT32_MAX)        \
    X(INT64, int64_t, INT64_MIN, INT64_MAX)

bool scalar_is_float(enum dtype dtype)
{
    return dtype == DTYPE_FP16 || dtype == DTYPE_FP32 || dtype == DTYPE_FP64 || dtype == DTYPE_BF16;
}

static const uint8_t *element(enum dtype dtype, const void *data, size_t index)
{
    return (const uint8_t *)data + index * dtype_size(dtype);
}

static double get_float(enum dtype dtype, const uint8_t *at)
{
    uint16_t half;
    float single;
    double value = 0;
    switch (dtype) {
    case DTYPE_FP64:
        memcpy(&value, at, sizeof(value));
        return value;
    case DTYPE_FP32:
        memcpy(&single, at, sizeof(single));
        return (double)single;
    case DTYPE_FP16:
        memcpy(&half, at, sizeof(half));
        return (double)tensor_fp16_to_float(half);
    default:
        memcpy(&half, at, sizeof(half));
        return (double)tensor_bf16_to_float(half);
    }
}

double scalar_get(enum dtype dtype, const void *data, size_t index)
{
    const uint8_t *at = element(dtype, data, index);
    switch (dtype) {
#define GET_INTEGER(name, type, least, greatest) \
    case DTYPE_##name: {                         \
        type value;                              \
        memcpy(&value, at, sizeof(value));       \
        return (double)value;                    \
    }
        INTEGERS(GET_INTEGER)
#undef GET_INTEGER
    case DTYPE_BOOL:
        return *at != 0 ? 1.0 : 0.0;
    default:
        return get_float(dtype, at);
    }
}

static void set_float(enum dtype dtype, uint8_t *at, double value)
{
    const float single = (float)value;
    const uint16_t half =
        dtype == DTYPE_FP16 ? tensor_float_to_fp16(single) : tensor_float_to_bf16(single);
    switch (dtype) {
    case DTYPE_FP64:
        memcpy(at, &value, sizeof(value));
        return;
    case DTYPE_FP32:
        memcpy(at, &single, sizeof(single));
        return;
    default:
        memcpy(at, &half, sizeof(half));
        return;
    }
}

void scalar_set(enum dtype dtype, void *data, size_t index, double value)
{
    uint8_t *at = (uint8_t *)data + index * dtype_size(dtype);
    if (scalar_is_float(dtype)) {
        set_float(dtype, at, value);
        return;
    }
    const double whole = isnan(value) ? 0 : nearbyint(value);
    switch (dtype) {
/* Comparing with (double)greatest + 1 would overflow for none; at or above it is cut. */
#define SET_INTEGER(name, type, least, greatest)                        \
    case DTYPE_##name: {                                                \
        const type cut = whole >= (double)(greatest) ? (type)(greatest) \
                         : whole <= (double)(least)  ? (type)(least)    \
                                                     : (type)whole;      \
        memcpy(at, &cut, sizeof(cut));                                  \
        return;                                                         \
    }
        INTEGERS(SET_INTEGER)
#undef SET_INTEGER
    default:
        *at = whole != 0 ? 1 : 0;
        return;
    }
}

bool scalar_set_unsigned(enum dtype dtype, void *data, size_t index, uint64_t value)
{
    uint8_t *at = (uint8_t *)data + index * dtype_size(dtype);
    switch (dtype) {
#define SET_UNSIGNED(name, type, least, greatest) \
    case DTYPE_##name: {                          \
        const type exact = (type)value;           \
        memcpy(at, &exact, sizeof(exact));        \
        return value <= (uint64_t)(greatest);     \
    }
        INTEGERS(SET_UNSIGNED)
#undef SET_UNSIGNED
    case DTYPE_BOOL:
        *at = value != 0 ? 1 : 0;
        return value <= 1;
    default:
        set_float(dtype, at, (double)value);
        return true;
    }
}

bool scalar_set_signed(enum dtype dtype, void *data, size_t index, int64_t value)
{
    if (value >= 0) {
        return scalar_set_unsigned(dtype, data, index, (uint64_t)value);
    }
    uint8_t *at = (uint8_t *)data + index * dtype_size(dtype);
    switch (dtype) {
#define SET_SIGNED(name, type, least, greatest) \
    case DTYPE_##name: {                        \
        const type exact = (type)value;         \
        memcpy(at, &exact, sizeof(exact));      \
        return value >= (int64_t)(least);       \
    }
        INTEGERS(SET_SIGNED)
#undef SET_SIGNED
    case DTYPE_BOOL:
        return false;
    default:
        set_float(dtype, at, (double)value);
        return true;
    }
}

void scalar_write(struct buffer *out, enum dtype dtype, const void *data, size_t index)
{
    const uint8_t *at = element(dtype, data, index);
    uint64_t whole;
    int64_t signed_whole;
    switch (dtype) {
    case DTYPE_BOOL:
        json_bool(out, *at != 0);
        return;
    case DTYPE_UINT64:
        memcpy(&whole, at, sizeof(whole));
        buffer_u64(out, whole);
        return;
    case DTYPE_INT64:
        memcpy(&signed_whole, at, sizeof(signed_whole));
        buffer_i64(out, signed_whole);
        return;
    case DTYPE_FP64:
        json_double(out, scalar_get(dtype, data, index));
        return;
    case DTYPE_FP32:
    case DTYPE_FP16:
    case DTYPE_BF16:
        json_float(out, (float)scalar_get(dtype, data, index));
        return;
    default:
        buffer_i64(out, (int64_t)scalar_get(dtype, data, index));
        return;
    }
}
