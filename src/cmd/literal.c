#include "cmd/literal.h"

#include <string.h>

#include "cmd/scalar.h"

#define QUOTED_BYTES_MAX 40

/* ---- Shapes ---------------------------------------------------------------------------------- */

/* `given` with 1s before it until it has the rank of `spec`; false when it is longer. */
static bool prepend_ones(const struct shape *given, uint32_t rank, struct shape *out)
{
    if (given->rank > rank) {
        return false;
    }
    const uint32_t extra = rank - given->rank;
    out->rank = rank;
    for (uint32_t i = 0; i < rank; i++) {
        out->dims[i] = i < extra ? 1 : given->dims[i - extra];
    }
    return true;
}

/* Divides the elements by the fixed dimensions; the first variable one takes the rest, others
 * are 1. */
static bool fill_variable(const struct shape *spec, uint64_t elements, struct shape *out)
{
    uint64_t fixed = 1;
    int variable = -1;
    *out = *spec;
    for (uint32_t i = 0; i < spec->rank; i++) {
        if (spec->dims[i] >= 0) {
            if (__builtin_mul_overflow(fixed, (uint64_t)spec->dims[i], &fixed)) {
                return false;
            }
        } else {
            out->dims[i] = 1;
            variable = variable < 0 ? (int)i : variable;
        }
    }
    if (variable < 0 || fixed == 0) {
        return fixed == elements;
    }
    out->dims[variable] = (int64_t)(elements / fixed);
    return elements % fixed == 0 && elements > 0;
}

enum weir_status literal_fit(const struct spec *spec, const struct shape *given, uint64_t elements,
                             struct shape *out, struct weir_err *err)
{
    struct shape shape = *given;
    if (given->rank > 0 && shape_fits(&shape, &spec->shape)) {
        *out = shape;
        return WEIR_OK;
    }
    if (given->rank > 0 && prepend_ones(given, spec->shape.rank, &shape) &&
        shape_fits(&shape, &spec->shape)) {
        *out = shape;
        return WEIR_OK;
    }
    if (given->rank <= 1 && fill_variable(&spec->shape, elements, &shape)) {
        *out = shape;
        return WEIR_OK;
    }
    char found[SHAPE_TEXT];
    char expected[SHAPE_TEXT];
    if (given->rank <= 1) {
        return err_set(err, WEIR_EINVAL, "input '%s': found %llu value%s, expected shape %s",
                       spec->name, (unsigned long long)elements, elements == 1 ? "" : "s",
                       shape_format(&spec->shape, expected));
    }
    return err_set(err, WEIR_EINVAL, "input '%s': found shape %s, expected %s", spec->name,
                   shape_format(given, found), shape_format(&spec->shape, expected));
}

/* ---- Elements -------------------------------------------------------------------------------- */

/* Walks nested arrays leaf by leaf. */
struct walk {
    const struct spec *spec;
    void *data;           /* Where numbers go. */
    struct buffer *texts; /* Where BYTES go. */
    uint64_t count;       /* Leaves so far. */
    struct shape shape;   /* From the first arrays at each depth. */
    bool ragged;
};

static enum weir_status bad_value(const struct spec *spec, yyjson_val *found, const char *expected,
                                  struct weir_err *err)
{
    return err_set(err, WEIR_EINVAL, "input '%s': found %s, expected %s", spec->name,
                   json_kind(found), expected);
}

static enum weir_status take_text(struct walk *walk, yyjson_val *leaf, struct weir_err *err)
{
    if (!yyjson_is_str(leaf)) {
        return bad_value(walk->spec, leaf, "strings, as the datatype is BYTES", err);
    }
    const uint32_t size = (uint32_t)yyjson_get_len(leaf);
    buffer_append(walk->texts, &size, sizeof(size));
    buffer_append(walk->texts, yyjson_get_str(leaf), size);
    return WEIR_OK;
}

static enum weir_status take_number(struct walk *walk, yyjson_val *leaf, struct weir_err *err)
{
    const enum dtype dtype = walk->spec->dtype;
    const size_t at = (size_t)walk->count;
    bool good = false;
    if (yyjson_is_bool(leaf)) {
        good = dtype == DTYPE_BOOL &&
               scalar_set_unsigned(dtype, walk->data, at, yyjson_get_bool(leaf) ? 1 : 0);
    } else if (yyjson_is_uint(leaf)) {
        good = scalar_set_unsigned(dtype, walk->data, at, yyjson_get_uint(leaf));
    } else if (yyjson_is_sint(leaf)) {
        good = scalar_set_signed(dtype, walk->data, at, yyjson_get_sint(leaf));
    } else if (yyjson_is_real(leaf) && scalar_is_float(dtype)) {
        scalar_set(dtype, walk->data, at, yyjson_get_real(leaf));
        good = true;
    }
    return good ? WEIR_OK : bad_value(walk->spec, leaf, dtype_text(dtype), err);
}

/* Counts leaves and learns the shape; recursion is bounded by JSON_DEPTH_MAX. */
static void survey(struct walk *walk, yyjson_val *value, uint32_t depth)
{
    if (!yyjson_is_arr(value)) {
        walk->ragged = walk->ragged || depth != walk->shape.rank;
        walk->count++;
        return;
    }
    const int64_t size = (int64_t)yyjson_arr_size(value);
    if (depth >= TENSOR_RANK_MAX) {
        walk->ragged = true;
        return;
    }
    if (walk->count == 0 && depth == walk->shape.rank) {
        walk->shape.dims[walk->shape.rank++] = size;
    }
    walk->ragged = walk->ragged || walk->shape.dims[depth] != size;
    yyjson_val *item;
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    while ((item = yyjson_arr_iter_next(&iter)) != NULL) {
        survey(walk, item, depth + 1);
    }
}

static enum weir_status take(struct walk *walk, yyjson_val *value, struct weir_err *err)
{
    if (!yyjson_is_arr(value)) {
        const enum weir_status status = walk->spec->dtype == DTYPE_BYTES
                                            ? take_text(walk, value, err)
                                            : take_number(walk, value, err);
        walk->count++;
        return status;
    }
    enum weir_status status = WEIR_OK;
    yyjson_val *item;
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    while (status == WEIR_OK && (item = yyjson_arr_iter_next(&iter)) != NULL) {
        status = take(walk, item, err);
    }
    return status;
}

static enum weir_status take_texts(struct arena *arena, struct walk *walk, yyjson_val *data,
                                   struct tensor *out, struct weir_err *err)
{
    struct buffer texts;
    buffer_init(&texts, SIZE_MAX / 2);
    walk->texts = &texts;
    enum weir_status status = take(walk, data, err);
    if (status == WEIR_OK) {
        out->size = texts.size;
        out->data = arena_try_alloc(arena, texts.size + 1);
        status =
            texts.failed || out->data == NULL ? err_nomem(err, "an input", texts.size) : WEIR_OK;
    }
    if (status == WEIR_OK && texts.size > 0) {
        memcpy(out->data, texts.data, texts.size);
    }
    buffer_finish(&texts);
    return status;
}

enum weir_status literal_read_json(struct arena *arena, yyjson_val *data, const struct spec *spec,
                                   struct tensor *out, struct weir_err *err)
{
    struct walk walk = { .spec = spec };
    survey(&walk, data, 0);
    if (walk.ragged) {
        return err_set(err, WEIR_EINVAL,
                       "input '%s': its lists differ in length, expected rows of equal length",
                       spec->name);
    }
    struct tensor tensor = { .dtype = spec->dtype, .present = true };
    enum weir_status status = literal_fit(spec, &walk.shape, walk.count, &tensor.shape, err);
    if (status != WEIR_OK) {
        return status;
    }
    walk.count = 0;
    if (spec->dtype == DTYPE_BYTES) {
        status = take_texts(arena, &walk, data, &tensor, err);
    } else {
        status = tensor_bytes(spec->dtype, &tensor.shape, &tensor.size, err);
        if (status == WEIR_OK) {
            tensor.data = arena_try_aligned(arena, tensor.size + 1, 64);
            walk.data = tensor.data;
            status = tensor.data == NULL ? err_nomem(err, "an input", tensor.size)
                                         : take(&walk, data, err);
        }
    }
    if (status == WEIR_OK) {
        *out = tensor;
    }
    return status;
}

enum weir_status literal_bytes(struct arena *arena, struct bytes text, const struct spec *spec,
                               struct tensor *out, struct weir_err *err)
{
    struct tensor tensor = { .dtype = DTYPE_BYTES, .present = true };
    const struct shape one = { .rank = 1, .dims = { 1 } };
    const enum weir_status status = literal_fit(spec, &one, 1, &tensor.shape, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint32_t size = (uint32_t)text.size;
    tensor.size = text.size + sizeof(size);
    tensor.data = text.size > UINT32_MAX ? NULL : arena_try_alloc(arena, tensor.size);
    if (tensor.data == NULL) {
        return err_nomem(err, "an input", text.size);
    }
    memcpy(tensor.data, &size, sizeof(size));
    memcpy(tensor.data + sizeof(size), text.data, text.size);
    *out = tensor;
    return WEIR_OK;
}

static bool begins_with(struct bytes text, char c)
{
    size_t at = 0;
    while (at < text.size && strchr(" \t\r\n", text.data[at]) != NULL) {
        at++;
    }
    return at < text.size && text.data[at] == c;
}

enum weir_status literal_read(struct arena *arena, struct bytes text, const struct spec *spec,
                              struct tensor *out, struct weir_err *err)
{
    const bool array = begins_with(text, '[');
    if (spec->dtype == DTYPE_BYTES && !array) {
        return literal_bytes(arena, text, spec, out, err);
    }
    struct buffer json;
    buffer_init(&json, SIZE_MAX / 2);
    buffer_text(&json, array ? "" : "[");
    buffer_append(&json, text.data, text.size);
    buffer_text(&json, array ? "" : "]");
    yyjson_doc *doc = NULL;
    enum weir_status status = json.failed
                                  ? err_nomem(err, "an input", text.size)
                                  : json_read((struct bytes){ json.data, json.size }, &doc, err);
    if (status == WEIR_EINVAL && !array) {
        (void)err_set(
            err, status,
            "input '%s': found '%.*s', expected numbers such as 1,2,3 or [[1,2],[3,4]]", spec->name,
            (int)(text.size < QUOTED_BYTES_MAX ? text.size : QUOTED_BYTES_MAX), text.data);
    } else if (status != WEIR_OK) {
        (void)err_prefix(err, "input '%s'", spec->name);
    } else {
        status = literal_read_json(arena, yyjson_doc_get_root(doc), spec, out, err);
    }
    yyjson_doc_free(doc);
    buffer_finish(&json);
    return status;
}
