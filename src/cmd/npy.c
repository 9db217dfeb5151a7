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
#define HEADER_ALIGN 64 /* What NumPy aligns the elements to. */
#define QUOTED_BYTES_MAX 32
#define ELEMENTS_MAX (UINT64_C(1) << 40)

struct descr {
    const char *text;
    enum weir_dtype dtype;
    size_t bytes; /* Of one element. */
};

static const struct descr descrs[] = {
    { "|b1", WEIR_BOOL, 1 },   { "|u1", WEIR_UINT8, 1 },  { "|i1", WEIR_INT8, 1 },
    { "<u2", WEIR_UINT16, 2 }, { "<i2", WEIR_INT16, 2 },  { "<u4", WEIR_UINT32, 4 },
    { "<i4", WEIR_INT32, 4 },  { "<u8", WEIR_UINT64, 8 }, { "<i8", WEIR_INT64, 8 },
    { "<f2", WEIR_FP16, 2 },   { "<f4", WEIR_FP32, 4 },   { "<f8", WEIR_FP64, 8 },
};

/* Not among those above, because no file has it. */
static const struct descr bf16 = { "<f4", WEIR_BF16, 2 };

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
    if (!bytes_to_u64(digits, ELEMENTS_MAX, &value)) {
        return false;
    }
    r->at += size;
    *out = (int64_t)value;
    return true;
}

static enum weir_status read_descr(struct reader *r, const struct descr **out)
{
    static const char expected[] =
        "a little-endian boolean, integer or float type such as '<f4' or '|u1'";
    struct bytes text;
    if (!take_string(r, &text)) {
        return complain(r, expected);
    }
    for (size_t i = 0; i < sizeof descrs / sizeof descrs[0]; i++) {
        if (bytes_equal(text, bytes_of(descrs[i].text))) {
            *out = &descrs[i];
            return WEIR_OK;
        }
    }
    return err_set(r->err, WEIR_EINVAL, "npy header: found type '%.*s', expected %s",
                   (int)(text.size < QUOTED_BYTES_MAX ? text.size : QUOTED_BYTES_MAX), text.data,
                   expected);
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
static enum weir_status read_shape(struct reader *r, struct weir_tensor *out)
{
    if (!take(r, "(")) {
        return complain(r, "a tuple of dimensions");
    }
    bool comma = true;
    while (!take(r, ")")) {
        if (out->rank == WEIR_RANK_MAX) {
            return complain(r, "at most 12 dimensions");
        }
        if (!comma || !take_dimension(r, &out->dims[out->rank])) {
            return complain(r, "a dimension");
        }
        out->rank++;
        comma = take(r, ",");
    }
    return out->rank == 1 && !comma ? complain(r, "a comma after the only dimension") : WEIR_OK;
}

static enum weir_status read_field(struct reader *r, bool seen[FIELD_COUNT],
                                   const struct descr **descr, struct weir_tensor *out)
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
        return read_descr(r, descr);
    case FIELD_ORDER:
        return read_order(r);
    default:
        return read_shape(r, out);
    }
}

static enum weir_status read_header(struct reader *r, const struct descr **descr,
                                    struct weir_tensor *out)
{
    bool seen[FIELD_COUNT] = { false };
    if (!take(r, "{")) {
        return complain(r, "{");
    }
    for (int i = 0; i < FIELD_COUNT; i++) {
        const enum weir_status status = read_field(r, seen, descr, out);
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

/* The bytes that a tensor of this type and shape takes. */
static enum weir_status count_bytes(const struct descr *descr, const struct weir_tensor *tensor,
                                    size_t *out, struct weir_err *err)
{
    uint64_t count = 1;
    bool possible = true;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        possible = possible && tensor->dims[i] >= 0 &&
                   !__builtin_mul_overflow(count, (uint64_t)tensor->dims[i], &count);
    }
    if (!possible || count > ELEMENTS_MAX) {
        return err_set(err, WEIR_EINVAL, "npy: found a shape of more than 2^40 elements");
    }
    *out = (size_t)count * descr->bytes;
    return WEIR_OK;
}

enum weir_status npy_parse(struct bytes file, struct weir_tensor *out, struct weir_err *err)
{
    struct weir_tensor tensor = { 0 };
    const struct descr *descr = NULL;
    struct reader r = { .err = err };
    enum weir_status status = find_header(file, &r.text, err);
    if (status == WEIR_OK) {
        status = read_header(&r, &descr, &tensor);
    }
    if (status == WEIR_OK) {
        status = count_bytes(descr, &tensor, &tensor.size, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    const size_t start = (size_t)(r.text.data - file.data) + r.text.size;
    if (tensor.size != file.size - start) {
        return err_set(err, WEIR_EINVAL,
                       "npy: found %zu bytes of elements, expected %zu for the type '%s' and the "
                       "shape in the header",
                       file.size - start, tensor.size, descr->text);
    }
    tensor.dtype = descr->dtype;
    tensor.data = file.data + start;
    *out = tensor;
    return WEIR_OK;
}

static const struct descr *find_descr(enum weir_dtype dtype)
{
    for (size_t i = 0; i < sizeof descrs / sizeof descrs[0]; i++) {
        if (descrs[i].dtype == dtype) {
            return &descrs[i];
        }
    }
    return dtype == WEIR_BF16 ? &bf16 : NULL;
}

/* The length of the header is known, and filled in, once it is written. */
static void write_header(struct buffer *out, const struct descr *descr,
                         const struct weir_tensor *tensor)
{
    const size_t start = out->size;
    buffer_append(out, MAGIC "\1\0\0\0", PREFIX_BYTES);
    buffer_printf(out, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr->text);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        buffer_printf(out, i == 0 ? "%" PRId64 : ", %" PRId64, tensor->dims[i]);
    }
    buffer_text(out, tensor->rank == 1 ? ",), }" : "), }");
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
static void write_bf16(struct buffer *out, const char *data, size_t size)
{
    if (!buffer_reserve(out, 2 * size)) {
        return;
    }
    for (size_t i = 0; i < size; i += 2) {
        const char wide[4] = { 0, 0, data[i], data[i + 1] };
        buffer_append(out, wide, sizeof wide);
    }
}

enum weir_status npy_write(struct buffer *out, const struct weir_tensor *tensor,
                           struct weir_err *err)
{
    const struct descr *descr = find_descr(tensor->dtype);
    if (descr == NULL) {
        return err_set(err, WEIR_EUNSUPPORTED,
                       "npy: found strings (BYTES), expected numbers or booleans");
    }
    size_t size = 0;
    const enum weir_status status = count_bytes(descr, tensor, &size, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (size != tensor->size) {
        return err_set(err, WEIR_EINVAL, "npy: found %zu bytes of elements, expected %zu",
                       tensor->size, size);
    }
    const size_t before = out->size;
    write_header(out, descr, tensor);
    if (descr == &bf16) {
        write_bf16(out, tensor->data, size);
    } else {
        buffer_append(out, tensor->data, size);
    }
    if (!out->failed) {
        return WEIR_OK;
    }
    out->size = before;
    if (!out->full) {
        return err_nomem(err, "a NumPy file", size);
    }
    return err_set(err, WEIR_ETOOBIG, "npy: found more than %zu bytes, expected at most that",
                   out->size_max);
}
