/*
 * A parsed JSON array lies in memory in the order it was written, values of
 * inner arrays after the array that holds them.  So reading nested data is one
 * walk from the first value to the last, passing over the arrays themselves: no
 * recursion, and nothing to do per level.
 */
#include "api/values.h"

#include <assert.h>
#include <string.h>

/* X(DTYPE, C type, least, greatest): whole numbers. */
#define SIGNED_TYPES(X)                    \
    X(INT8, int8_t, INT8_MIN, INT8_MAX)    \
    X(INT16, int16_t, INT16_MIN, INT16_MAX) \
    X(INT32, int32_t, INT32_MIN, INT32_MAX) \
    X(INT64, int64_t, INT64_MIN, INT64_MAX)
#define UNSIGNED_TYPES(X)           \
    X(UINT8, uint8_t, UINT8_MAX)    \
    X(UINT16, uint16_t, UINT16_MAX) \
    X(UINT32, uint32_t, UINT32_MAX) \
    X(UINT64, uint64_t, UINT64_MAX)

/* The values of `data`: from `at` to before `end`, arrays between them. */
struct walk {
    yyjson_val *at;
    yyjson_val *end;
};

static struct walk walk_values(yyjson_val *data)
{
    struct walk walk = { data, unsafe_yyjson_get_next(data) };
    return walk;
}

static yyjson_val *next_value(struct walk *walk)
{
    while (walk->at < walk->end && yyjson_is_arr(walk->at)) {
        walk->at++;
    }
    return walk->at < walk->end ? walk->at++ : NULL;
}

uint64_t values_count(yyjson_val *data)
{
    struct walk walk = walk_values(data);
    uint64_t count = 0;
    while (next_value(&walk) != NULL) {
        count++;
    }
    return count;
}

static bool read_signed(yyjson_val *value, int64_t least, int64_t greatest, int64_t *out)
{
    if (yyjson_is_uint(value)) {
        *out = (int64_t)yyjson_get_uint(value);
        return yyjson_get_uint(value) <= (uint64_t)greatest;
    }
    *out = yyjson_get_sint(value);
    return yyjson_is_sint(value) && *out >= least;
}

static bool read_unsigned(yyjson_val *value, uint64_t greatest, uint64_t *out)
{
    *out = yyjson_get_uint(value);
    return yyjson_is_uint(value) && *out <= greatest;
}

/* A number beyond FP32 would silently become infinite. */
static bool read_float(yyjson_val *value, float *out)
{
    if (!yyjson_is_num(value)) {
        return false;
    }
    *out = (float)yyjson_get_num(value);
    return __builtin_isfinite(*out);
}

/* Each fills `tensor` from as many values as it has room for and returns the value that does not
 * fit, or NULL. */
#define READ_SIGNED(name, type, least, greatest)                             \
    static yyjson_val *read_##name(struct walk *walk, struct tensor *tensor) \
    {                                                                        \
        type *to = (type *)(void *)tensor->data;                             \
        for (size_t i = 0; i < tensor->size / sizeof(type); i++) {           \
            yyjson_val *value = next_value(walk);                            \
            int64_t number;                                                  \
            if (!read_signed(value, least, greatest, &number)) {             \
                return value;                                                \
            }                                                                \
            to[i] = (type)number;                                            \
        }                                                                    \
        return NULL;                                                         \
    }
SIGNED_TYPES(READ_SIGNED)

#define READ_UNSIGNED(name, type, greatest)                                  \
    static yyjson_val *read_##name(struct walk *walk, struct tensor *tensor) \
    {                                                                        \
        type *to = (type *)(void *)tensor->data;                             \
        for (size_t i = 0; i < tensor->size / sizeof(type); i++) {           \
            yyjson_val *value = next_value(walk);                            \
            uint64_t number;                                                 \
            if (!read_unsigned(value, greatest, &number)) {                  \
                return value;                                                \
            }                                                                \
            to[i] = (type)number;                                            \
        }                                                                    \
        return NULL;                                                         \
    }
UNSIGNED_TYPES(READ_UNSIGNED)

static yyjson_val *read_BOOL(struct walk *walk, struct tensor *tensor)
{
    for (size_t i = 0; i < tensor->size; i++) {
        yyjson_val *value = next_value(walk);
        if (!yyjson_is_bool(value)) {
            return value;
        }
        tensor->data[i] = yyjson_is_true(value);
    }
    return NULL;
}

static yyjson_val *read_FP32(struct walk *walk, struct tensor *tensor)
{
    float *to = (float *)(void *)tensor->data;
    for (size_t i = 0; i < tensor->size / sizeof *to; i++) {
        yyjson_val *value = next_value(walk);
        if (!read_float(value, &to[i])) {
            return value;
        }
    }
    return NULL;
}

static yyjson_val *read_FP64(struct walk *walk, struct tensor *tensor)
{
    double *to = (double *)(void *)tensor->data;
    for (size_t i = 0; i < tensor->size / sizeof *to; i++) {
        yyjson_val *value = next_value(walk);
        if (!yyjson_is_num(value)) {
            return value;
        }
        to[i] = yyjson_get_num(value);
    }
    return NULL;
}

static yyjson_val *read_BYTES(struct walk *walk, struct tensor *tensor)
{
    uint8_t *to = tensor->data;
    for (yyjson_val *value = next_value(walk); value != NULL; value = next_value(walk)) {
        const uint32_t size = (uint32_t)yyjson_get_len(value);
        for (unsigned shift = 0; shift < 32; shift += 8) {
            *to++ = (uint8_t)(size >> shift);
        }
        memcpy(to, yyjson_get_str(value), size);
        to += size;
    }
    return NULL;
}

static const struct {
    yyjson_val *(*read)(struct walk *walk, struct tensor *tensor);
    const char *expected;
} readers[DTYPE_COUNT] = {
    [DTYPE_BOOL] = { read_BOOL, "true or false" },
    [DTYPE_UINT8] = { read_UINT8, "a whole number from 0 to 255" },
    [DTYPE_UINT16] = { read_UINT16, "a whole number from 0 to 65535" },
    [DTYPE_UINT32] = { read_UINT32, "a whole number from 0 to 4294967295" },
    [DTYPE_UINT64] = { read_UINT64, "a whole number from 0 to 18446744073709551615" },
    [DTYPE_INT8] = { read_INT8, "a whole number from -128 to 127" },
    [DTYPE_INT16] = { read_INT16, "a whole number from -32768 to 32767" },
    [DTYPE_INT32] = { read_INT32, "a whole number from -2147483648 to 2147483647" },
    [DTYPE_INT64] = { read_INT64,
                      "a whole number from -9223372036854775808 to 9223372036854775807" },
    [DTYPE_FP32] = { read_FP32, "a number that FP32 can hold" },
    [DTYPE_FP64] = { read_FP64, "a number" },
    [DTYPE_BYTES] = { read_BYTES, "a string" },
};

static enum weir_status complain_value(const char *name, enum dtype dtype, yyjson_val *found,
                                       struct weir_err *err)
{
    return err_set(err, WEIR_EINVAL, "input '%s': found %s in 'data', expected %s for %s", name,
                   json_kind(found), readers[dtype].expected, dtype_text(dtype));
}

/* Bytes of a BYTES tensor of these strings, all values being strings. */
static enum weir_status strings_bytes(yyjson_val *data, const char *name, size_t *out,
                                      struct weir_err *err)
{
    struct walk walk = walk_values(data);
    size_t size = 0;
    for (yyjson_val *value = next_value(&walk); value != NULL; value = next_value(&walk)) {
        if (!yyjson_is_str(value)) {
            return complain_value(name, DTYPE_BYTES, value, err);
        }
        size += 4 + yyjson_get_len(value); /* Less than the text it was read from. */
    }
    *out = size;
    return WEIR_OK;
}

enum weir_status values_read(struct infer_call *call, yyjson_val *data, const char *name,
                             struct tensor *tensor, struct weir_err *err)
{
    const enum dtype dtype = tensor->dtype;
    if (readers[dtype].read == NULL) {
        return err_set(err, WEIR_EINVAL,
                       "receiving %s data via JSON is not supported. Please use the binary data "
                       "format for input %s",
                       dtype_text(dtype), name);
    }
    uint64_t elements;
    size_t size;
    enum weir_status status = shape_elements(&tensor->shape, &elements, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint64_t found = values_count(data);
    if (found != elements) {
        char shape[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL,
                       "Unable to parse 'data' of input '%s': Shape does not match true shape of "
                       "'data' field: found %llu values, expected %llu for shape %s",
                       name, (unsigned long long)found, (unsigned long long)elements,
                       shape_format(&tensor->shape, shape));
    }
    status = dtype == DTYPE_BYTES ? strings_bytes(data, name, &size, err)
                                  : tensor_bytes(dtype, &tensor->shape, &size, err);
    if (status == WEIR_OK) {
        status = kserve_room(call, tensor, size, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    struct walk walk = walk_values(data);
    yyjson_val *wrong = readers[dtype].read(&walk, tensor);
    return wrong == NULL ? WEIR_OK : complain_value(name, dtype, wrong, err);
}

#define WRITE_NUMBERS(name, type, append)                                     \
    static void write_##name(struct buffer *out, const struct tensor *tensor) \
    {                                                                         \
        for (size_t at = 0; at < tensor->size; at += sizeof(type)) {          \
            type value;                                                       \
            memcpy(&value, tensor->data + at, sizeof value);                  \
            if (at > 0) {                                                     \
                buffer_char(out, ',');                                        \
            }                                                                 \
            append(out, value);                                               \
        }                                                                     \
    }
#define WRITE_SIGNED(name, type, least, greatest) WRITE_NUMBERS(name, type, buffer_i64)
#define WRITE_UNSIGNED(name, type, greatest) WRITE_NUMBERS(name, type, buffer_u64)
SIGNED_TYPES(WRITE_SIGNED)
UNSIGNED_TYPES(WRITE_UNSIGNED)
WRITE_NUMBERS(FP32, float, json_float)
WRITE_NUMBERS(FP64, double, json_double)

static void write_BOOL(struct buffer *out, const struct tensor *tensor)
{
    for (size_t at = 0; at < tensor->size; at++) {
        if (at > 0) {
            buffer_char(out, ',');
        }
        json_bool(out, tensor->data[at] != 0);
    }
}

static void write_BYTES(struct buffer *out, const struct tensor *tensor)
{
    size_t at = 0;
    struct bytes text;
    for (bool first = true; tensor_next_string(tensor, &at, &text); first = false) {
        if (!first) {
            buffer_char(out, ',');
        }
        json_text(out, text);
    }
}

static void (*const writers[DTYPE_COUNT])(struct buffer *out, const struct tensor *tensor) = {
    [DTYPE_BOOL] = write_BOOL,     [DTYPE_UINT8] = write_UINT8,   [DTYPE_UINT16] = write_UINT16,
    [DTYPE_UINT32] = write_UINT32, [DTYPE_UINT64] = write_UINT64, [DTYPE_INT8] = write_INT8,
    [DTYPE_INT16] = write_INT16,   [DTYPE_INT32] = write_INT32,   [DTYPE_INT64] = write_INT64,
    [DTYPE_FP32] = write_FP32,     [DTYPE_FP64] = write_FP64,     [DTYPE_BYTES] = write_BYTES,
};

void values_write(struct buffer *out, const struct tensor *tensor)
{
    assert(writers[tensor->dtype] != NULL);
    buffer_char(out, '[');
    writers[tensor->dtype](out, tensor);
    buffer_char(out, ']');
}

void values_write_bare(struct buffer *out, const struct tensor *tensor)
{
    uint64_t elements = 0;
    if (shape_elements(&tensor->shape, &elements, NULL) == WEIR_OK && elements == 1) {
        assert(writers[tensor->dtype] != NULL);
        writers[tensor->dtype](out, tensor);
        return;
    }
    values_write(out, tensor);
}
