/*
 * The .npy format.
 *
 * A file is a magic, a version, the length of a header, the header and the
 * elements.  The header is a Python dict literal of exactly three entries,
 *
 *     {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
 *
 * of which this reader understands just the forms that NumPy writes.  Entries
 * may come in any order, each once.
 */
#include "cmd/npy.h"

#include <inttypes.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAGIC_BYTES 6
#define PREFIX_BYTES 10 /* Magic, version and length of format 1.0. */
#define HEADER_BYTES_MAX 65536
#define HEADER_BYTES_USUAL 512 /* What this writer's headers take at most. */
#define HEADER_ALIGN 64        /* What NumPy aligns the elements to. */
#define QUOTED_BYTES_MAX 32

struct descr_row {
    const char *descr;
    enum dtype dtype;
};

static const struct descr_row descrs[] = {
    { "|b1", DTYPE_BOOL },   { "|u1", DTYPE_UINT8 },  { "|i1", DTYPE_INT8 },
    { "<u2", DTYPE_UINT16 }, { "<i2", DTYPE_INT16 },  { "<u4", DTYPE_UINT32 },
    { "<i4", DTYPE_INT32 },  { "<u8", DTYPE_UINT64 }, { "<i8", DTYPE_INT64 },
    { "<f2", DTYPE_FP16 },   { "<f4", DTYPE_FP32 },   { "<f8", DTYPE_FP64 },
};

enum field { FIELD_DESCR, FIELD_ORDER, FIELD_SHAPE, FIELD_COUNT };

static const char *const field_names[FIELD_COUNT] = {
    [FIELD_DESCR] = "descr",
    [FIELD_ORDER] = "fortran_order",
    [FIELD_SHAPE] = "shape",
};

/* The header that is being read, from `at` on. */
struct reader {
    struct bytes text;
    size_t at;
    struct weir_err *err;
};

static enum weir_status complain(struct reader *r, const char *expected)
{
    const size_t left = r->text.size - r->at;
    return err_set(r->err, WEIR_EINVAL, "npy header: found '%.*s' at byte %zu, expected %s",
                   (int)(left < QUOTED_BYTES_MAX ? left : QUOTED_BYTES_MAX), r->text.data + r->at,
                   r->at, expected);
}

static void skip_spaces(struct reader *r)
{
    while (r->at < r->text.size && (r->text.data[r->at] == ' ' || r->text.data[r->at] == '\n')) {
        r->at++;
    }
}

/* Takes `token` if it comes next, spaces before it aside. */
static bool take(struct reader *r, const char *token)
{
    skip_spaces(r);
    const size_t size = strlen(token);
    if (size > r->text.size - r->at || memcmp(r->text.data + r->at, token, size) != 0) {
        return false;
    }
    r->at += size;
    return true;
}

/* A string in single or double quotes; what NumPy writes here never needs a backslash. */
static bool take_string(struct reader *r, struct bytes *out)
{
    skip_spaces(r);
    if (r->at == r->text.size || (r->text.data[r->at] != '\'' && r->text.data[r->at] != '"')) {
        return false;
    }
    const char *first = r->text.data + r->at + 1;
    const char *end = memchr(first, first[-1], r->text.size - r->at - 1);
    if (end == NULL) {
        return false;
    }
    *out = (struct bytes){ first, (size_t)(end - first) };
    r->at += out->size + 2;
    return true;
}

static bool take_dimension(struct reader *r, int64_t *out)
{
    skip_spaces(r);
    size_t size = 0;
    while (r->at + size < r->text.size && r->text.data[r->at + size] >= '0' &&
           r->text.data[r->at + size] <= '9') {
        size++;
    }
    uint64_t value = 0;
    const struct bytes digits = { r->text.data + r->at, size };
    if (!bytes_to_u64(digits, TENSOR_ELEMENTS_MAX, &value)) {
        return false;
    }
    r->at += size;
    *out = (int64_t)value;
    return true;
}

static enum weir_status read_descr(struct reader *r, struct npy *out)
{
    struct bytes text;
    const size_t start = r->at;
    if (take_string(r, &text)) {
        for (size_t i = 0; i < sizeof descrs / sizeof descrs[0]; i++) {
            if (bytes_equal(text, bytes_of(descrs[i].descr))) {
                out->dtype = descrs[i].dtype;
                return WEIR_OK;
            }
        }
    }
    r->at = start;
    skip_spaces(r);
    return complain(r, "a little-endian boolean, integer or float type such as '<f4' or '|u1'");
}

static enum weir_status read_order(struct reader *r)
{
    if (take(r, "False")) {
        return WEIR_OK;
    }
    if (take(r, "True")) {
        return err_set(r->err, WEIR_EINVAL,
                       "npy header: found elements in column order (fortran_order), expected row "
                       "order: save numpy.ascontiguousarray(array)");
    }
    return complain(r, "True or False");
}

/* "()", "(3,)", "(3, 4)": a tuple of one needs its comma. */
static enum weir_status read_shape(struct reader *r, struct npy *out)
{
    struct shape *shape = &out->shape;
    if (!take(r, "(")) {
        return complain(r, "a tuple of dimensions");
    }
    bool comma = true;
    while (!take(r, ")")) {
        if (shape->rank == TENSOR_RANK_MAX) {
            return complain(r, "at most 12 dimensions");
        }
        if (!comma || !take_dimension(r, &shape->dims[shape->rank])) {
            return complain(r, "a dimension");
        }
        shape->rank++;
        comma = take(r, ",");
    }
    return shape->rank == 1 && !comma ? complain(r, "a comma after the only dimension") : WEIR_OK;
}

static enum weir_status read_field(struct reader *r, bool seen[FIELD_COUNT], struct npy *out)
{
    const size_t start = r->at;
    struct bytes name;
    int field = FIELD_COUNT;
    if (take_string(r, &name)) {
        for (field = 0; field < FIELD_COUNT; field++) {
            if (bytes_equal(name, bytes_of(field_names[field])) && !seen[field]) {
                break;
            }
        }
    }
    if (field == FIELD_COUNT) {
        r->at = start;
        return complain(r, "'descr', 'fortran_order' and 'shape', each once");
    }
    if (!take(r, ":")) {
        return complain(r, "a colon");
    }
    seen[field] = true;
    switch (field) {
    case FIELD_DESCR:
        return read_descr(r, out);
    case FIELD_ORDER:
        return read_order(r);
    default:
        return read_shape(r, out);
    }
}

static enum weir_status read_header(struct reader *r, struct npy *out)
{
    bool seen[FIELD_COUNT] = { false };
    if (!take(r, "{")) {
        return complain(r, "{");
    }
    for (int i = 0; i < FIELD_COUNT; i++) {
        const enum weir_status status = read_field(r, seen, out);
        if (status != WEIR_OK) {
            return status;
        }
        if (!take(r, ",") && i + 1 < FIELD_COUNT) {
            return complain(r, "a comma and the next entry");
        }
    }
    if (!take(r, "}")) {
        return complain(r, "}");
    }
    skip_spaces(r);
    return r->at == r->text.size ? WEIR_OK : complain(r, "the end of the header");
}

/* Finds the header behind the magic, the version and its own little-endian length. */
static enum weir_status find_header(struct bytes file, struct bytes *out, struct weir_err *err)
{
    const unsigned char *data = (const unsigned char *)file.data;
    if (file.size < MAGIC_BYTES + 6 || memcmp(data, MAGIC, MAGIC_BYTES) != 0) {
        return err_set(err, WEIR_EINVAL, "npy: found no NumPy file, expected one (.npy)");
    }
    const unsigned major = data[MAGIC_BYTES];
    const unsigned minor = data[MAGIC_BYTES + 1];
    if ((major != 1 && major != 2) || minor != 0) {
        return err_set(err, WEIR_EINVAL, "npy: found format %u.%u, expected 1.0 or 2.0", major,
                       minor);
    }
    const size_t length_bytes = major == 1 ? 2 : 4;
    size_t size = 0;
    for (size_t i = 0; i < length_bytes; i++) {
        size |= (size_t)data[MAGIC_BYTES + 2 + i] << (8 * i);
    }
    const size_t start = MAGIC_BYTES + 2 + length_bytes;
    if (size > HEADER_BYTES_MAX || size > file.size - start) {
        return err_set(err, WEIR_EINVAL,
                       "npy: found a header of %zu bytes, expected at most %d and no more than the "
                       "file has",
                       size, HEADER_BYTES_MAX);
    }
    *out = (struct bytes){ file.data + start, size };
    return WEIR_OK;
}

enum weir_status npy_parse(struct bytes file, struct npy *out, struct weir_err *err)
{
    struct npy npy = { 0 };
    struct reader r = { .err = err };
    enum weir_status status = find_header(file, &r.text, err);
    if (status == WEIR_OK) {
        status = read_header(&r, &npy);
    }
    size_t size = 0;
    if (status == WEIR_OK) {
        status = tensor_bytes(npy.dtype, &npy.shape, &size, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    const size_t start = (size_t)(r.text.data - file.data) + r.text.size;
    npy.data = (struct bytes){ file.data + start, file.size - start };
    if (npy.data.size != size) {
        char shape[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL,
                       "npy: found %zu bytes of elements, expected %zu for %s of shape %s",
                       npy.data.size, size, dtype_text(npy.dtype), shape_format(&npy.shape, shape));
    }
    *out = npy;
    return WEIR_OK;
}

static const char *descr_of(enum dtype dtype)
{
    if (dtype == DTYPE_BF16) {
        return "<f4";
    }
    for (size_t i = 0; i < sizeof descrs / sizeof descrs[0]; i++) {
        if (descrs[i].dtype == dtype) {
            return descrs[i].descr;
        }
    }
    return NULL;
}

/* The length of the header is known, and filled in, once it is written. */
static void write_header(struct buffer *out, const char *descr, const struct shape *shape)
{
    const size_t start = out->size;
    buffer_append(out, MAGIC "\1\0\0\0", PREFIX_BYTES);
    buffer_printf(out, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (uint32_t i = 0; i < shape->rank; i++) {
        buffer_printf(out, i == 0 ? "%" PRId64 : ", %" PRId64, shape->dims[i]);
    }
    buffer_text(out, shape->rank == 1 ? ",), }" : "), }");
    while (!out->failed && (out->size - start + 1) % HEADER_ALIGN != 0) {
        buffer_char(out, ' ');
    }
    buffer_char(out, '\n');
    if (!out->failed) {
        const size_t length = out->size - start - PREFIX_BYTES;
        out->data[start + PREFIX_BYTES - 2] = (char)(length & 0xff);
        out->data[start + PREFIX_BYTES - 1] = (char)(length >> 8);
    }
}

/* A BF16 is the upper half of a float. */
static void write_bf16(struct buffer *out, struct bytes data)
{
    if (!buffer_reserve(out, 2 * data.size)) {
        return;
    }
    for (size_t i = 0; i < data.size; i += 2) {
        const char wide[4] = { 0, 0, data.data[i], data.data[i + 1] };
        buffer_append(out, wide, sizeof wide);
    }
}

enum weir_status npy_write(struct buffer *out, enum dtype dtype, const struct shape *shape,
                           struct bytes data, struct weir_err *err)
{
    const char *descr = descr_of(dtype);
    if (descr == NULL) {
        return err_set(err, WEIR_EUNSUPPORTED,
                       "npy: found %s elements, expected numbers or booleans", dtype_text(dtype));
    }
    size_t size = 0;
    const enum weir_status status = tensor_bytes(dtype, shape, &size, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (size != data.size) {
        return err_set(err, WEIR_EINVAL, "npy: found %zu bytes of elements, expected %zu",
                       data.size, size);
    }
    const size_t before = out->size;
    write_header(out, descr, shape);
    if (dtype == DTYPE_BF16) {
        write_bf16(out, data);
    } else {
        buffer_append(out, data.data, data.size);
    }
    if (!out->failed) {
        return WEIR_OK;
    }
    out->size = before;
    const size_t needed = (dtype == DTYPE_BF16 ? 2 : 1) * size + HEADER_BYTES_USUAL;
    if (needed <= out->size_max - before) {
        return err_nomem(err, "a NumPy file", size);
    }
    return err_set(err, WEIR_ETOOBIG, "npy: found more than %zu bytes, expected at most that",
                   out->size_max);
}
