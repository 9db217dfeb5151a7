/*
 * The element types and value kinds of ONNX: their names, their sizes, and what serves them.
 */
#include "backend/onnx_file.h"

struct type_row {
    const char *text;
    uint32_t bits; /* 0: no fixed size. */
    int dtype;     /* enum dtype, or -1. */
};

static const struct type_row type_rows[] = {
    { "UNDEFINED", 0, -1 },
    { "FLOAT", 32, DTYPE_FP32 },
    { "UINT8", 8, DTYPE_UINT8 },
    { "INT8", 8, DTYPE_INT8 },
    { "UINT16", 16, DTYPE_UINT16 },
    { "INT16", 16, DTYPE_INT16 },
    { "INT32", 32, DTYPE_INT32 },
    { "INT64", 64, DTYPE_INT64 },
    { "STRING", 0, DTYPE_BYTES },
    { "BOOL", 8, DTYPE_BOOL },
    { "FLOAT16", 16, DTYPE_FP16 },
    { "DOUBLE", 64, DTYPE_FP64 },
    { "UINT32", 32, DTYPE_UINT32 },
    { "UINT64", 64, DTYPE_UINT64 },
    { "COMPLEX64", 64, -1 },
    { "COMPLEX128", 128, -1 },
    { "BFLOAT16", 16, DTYPE_BF16 },
    { "FLOAT8E4M3FN", 8, -1 },
    { "FLOAT8E4M3FNUZ", 8, -1 },
    { "FLOAT8E5M2", 8, -1 },
    { "FLOAT8E5M2FNUZ", 8, -1 },
    { "UINT4", 4, -1 },
    { "INT4", 4, -1 },
    { "FLOAT4E2M1", 4, -1 },
    { "FLOAT8E8M0", 8, -1 },
    { "UINT2", 2, -1 },
    { "INT2", 2, -1 },
};

#define TYPE_COUNT ((int32_t)(sizeof(type_rows) / sizeof(type_rows[0])))

const char *onnx_type_text(int32_t type)
{
    return type >= 0 && type < TYPE_COUNT ? type_rows[type].text : "unknown";
}

bool onnx_type_dtype(int32_t type, enum dtype *out)
{
    if (type < 0 || type >= TYPE_COUNT || type_rows[type].dtype < 0) {
        return false;
    }
    *out = (enum dtype)type_rows[type].dtype;
    return true;
}

const char *onnx_kind_text(enum onnx_kind kind)
{
    static const char *const texts[] = {
#define ONNX_KIND_TEXT(name, text) text,
        ONNX_KINDS(ONNX_KIND_TEXT)
#undef ONNX_KIND_TEXT
    };
    return (size_t)kind < sizeof(texts) / sizeof(texts[0]) ? texts[kind] : "unknown";
}

uint64_t onnx_type_bytes(int32_t type, uint64_t elements)
{
    const uint64_t bits = type >= 0 && type < TYPE_COUNT ? type_rows[type].bits : 0;
    return (elements * bits + 7) / 8; /* At most 2^40 elements of 128 bits. */
}
