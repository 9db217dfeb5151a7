#include "engine/profile_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/bucket.h"
#include "engine/model.h"
#include "util/json.h"

#define FORMAT "weir-profile"
#define FORMAT_VERSION 2
#define WEIGHT_RESTORED 10 /* So that what runs take today soon outweighs what they took. */
#define COUNT_MAX (UINT64_C(1) << 53)
#define DIGEST_TEXT 17

/* X(field, least, most): of struct profile_shape, as they are. */
#define SHAPE_NUMBERS(X)     \
    X(weight, 1, 1e3)        \
    X(rows, 1, 1e15)         \
    X(rows2, 1, 1e24)        \
    X(time, 0, 1e18)         \
    X(rows_time, 0, 1e30)    \
    X(tau0, 0, 1e18)         \
    X(alpha, 0, 1e18)        \
    X(jitter, 0, 1)          \
    X(slack, 1, 4)

/* X(field, least, most) */
#define SHAPE_COUNTS(X)              \
    X(runs, 1, COUNT_MAX)            \
    X(rows_seen, 1, COUNT_MAX)       \
    X(unit, 1, UINT32_MAX)           \
    X(rows_cap, 0, UINT32_MAX)

/* ---- Writing --------------------------------------------------------------------------------- */

static void write_digest(struct buffer *out, const char *key, uint64_t value)
{
    char text[DIGEST_TEXT];
    (void)snprintf(text, sizeof(text), "%016" PRIx64, value);
    json_key(out, key);
    json_string(out, text);
}

static void write_number(struct buffer *out, const char *key, double value)
{
    json_key(out, key);
    json_double(out, value);
}

static void write_count(struct buffer *out, const char *key, uint64_t value)
{
    json_key(out, key);
    buffer_u64(out, value);
}

static void write_sizes(struct buffer *out, const struct profile_shape *shape)
{
    json_key(out, "row_ns");
    json_doubles(out, shape->row_ns, PROFILE_SIZES);
    json_key(out, "row_runs");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < PROFILE_SIZES; i++) {
        json_comma(out);
        buffer_u64(out, shape->row_runs[i]);
    }
    buffer_char(out, ']');
}

static void write_shape(struct buffer *out, const struct profile_shape *shape)
{
    double tau0_ns = 0;
    double alpha_ns = 0;
    (void)profile_shape_fit(shape, &tau0_ns, &alpha_ns);
    json_comma(out);
    buffer_text(out, "\n    {");
    json_key(out, "dims");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < shape->dims.count; i++) {
        json_comma(out);
        buffer_i64(out, shape->dims.dims[i]);
    }
    buffer_char(out, ']');
    write_number(out, "tau0_us", tau0_ns / 1e3);
    write_number(out, "alpha_us", alpha_ns / 1e3);
#define WRITE_COUNT(field, least, most) write_count(out, #field, shape->field);
    SHAPE_COUNTS(WRITE_COUNT)
#undef WRITE_COUNT
#define WRITE_NUMBER(field, least, most) write_number(out, #field, shape->field);
    SHAPE_NUMBERS(WRITE_NUMBER)
#undef WRITE_NUMBER
    write_sizes(out, shape);
    buffer_char(out, '}');
}

void profile_file_write(const struct profile *profile, const struct profile_identity *identity,
                        const char *rows, struct buffer *out)
{
    buffer_char(out, '{');
    json_key(out, "format");
    json_string(out, FORMAT);
    write_count(out, "format_version", FORMAT_VERSION);
    json_key(out, "model");
    json_string(out, identity->model);
    write_count(out, "version", identity->version);
    write_digest(out, "files", identity->files);
    write_digest(out, "settings", identity->settings);
    json_key(out, "device");
    json_string(out, identity->device);
    json_key(out, "processor");
    json_string(out, identity->processor);
    json_key(out, "runtime");
    json_string(out, identity->runtime);
    json_key(out, "rows");
    json_string(out, rows);
    json_key(out, "shapes");
    buffer_char(out, '[');
    for (const struct profile_shape *shape = profile_next(profile, NULL); shape != NULL;
         shape = profile_next(profile, shape)) {
        if (shape->dims.known && shape->dims.count != PROFILE_DIMS_NONE && shape->runs > 0) {
            write_shape(out, shape);
        }
    }
    buffer_text(out, "\n]}\n");
}

/* ---- Reading --------------------------------------------------------------------------------- */

struct reader {
    yyjson_val *object;
    const char *where;
    size_t members; /* Read so far. */
    struct weir_err *err;
};

static enum weir_status begin(struct reader *reader, yyjson_val *object, const char *where,
                              struct weir_err *err)
{
    *reader = (struct reader){ object, where, 0, err };
    return yyjson_is_obj(object) ? json_unique(object, where, err)
                                 : err_set(err, WEIR_EINVAL, "%s: found %s, expected an object",
                                           where, json_kind(object));
}

/* All that is there was asked for: each member is required, and none is there twice. */
static enum weir_status end(const struct reader *reader)
{
    const size_t found = yyjson_obj_size(reader->object);
    return found == reader->members
               ? WEIR_OK
               : err_set(reader->err, WEIR_EINVAL, "%s: found %zu members, expected %zu",
                         reader->where, found, reader->members);
}

static enum weir_status member(struct reader *reader, const char *key, enum json_type type,
                               yyjson_val **out)
{
    reader->members++;
    return json_member(reader->object, reader->where, key, type, true, out, reader->err);
}

static enum weir_status out_of_range(const struct reader *reader, const char *key)
{
    return err_set(reader->err, WEIR_EINVAL, "%s: %s is out of its range", reader->where, key);
}

static enum weir_status read_number(struct reader *reader, const char *key, double least,
                                    double most, double *out)
{
    yyjson_val *value;
    const enum weir_status status = member(reader, key, JSON_NUMBER, &value);
    if (status != WEIR_OK) {
        return status;
    }
    const double number = yyjson_get_num(value);
    if (!isfinite(number) || number < least || number > most) {
        return out_of_range(reader, key);
    }
    *out = number;
    return WEIR_OK;
}

static enum weir_status read_count(struct reader *reader, const char *key, uint64_t least,
                                   uint64_t most, uint64_t *out)
{
    yyjson_val *value;
    const enum weir_status status = member(reader, key, JSON_UINT, &value);
    if (status != WEIR_OK) {
        return status;
    }
    const uint64_t number = yyjson_get_uint(value);
    if (number < least || number > most) {
        return out_of_range(reader, key);
    }
    *out = number;
    return WEIR_OK;
}

static enum weir_status read_array(struct reader *reader, const char *key, size_t least,
                                   size_t most, yyjson_val **out)
{
    const enum weir_status status = member(reader, key, JSON_ARRAY, out);
    if (status == WEIR_OK && (yyjson_arr_size(*out) < least || yyjson_arr_size(*out) > most)) {
        return err_set(reader->err, WEIR_EINVAL, "%s: %s has %zu items, expected %zu to %zu",
                       reader->where, key, yyjson_arr_size(*out), least, most);
    }
    return status;
}

static enum weir_status read_dims(struct reader *reader, struct profile_dims *out)
{
    yyjson_val *array;
    yyjson_val *item;
    size_t i;
    size_t count;
    const enum weir_status status = read_array(reader, "dims", 0, PROFILE_DIMS_MAX, &array);
    if (status != WEIR_OK) {
        return status;
    }
    *out = (struct profile_dims){ .known = true };
    yyjson_arr_foreach(array, i, count, item) {
        if (!yyjson_is_uint(item) || yyjson_get_uint(item) > (uint64_t)TENSOR_ELEMENTS_MAX) {
            return out_of_range(reader, "dims");
        }
        out->dims[out->count++] = (int64_t)yyjson_get_uint(item);
    }
    return WEIR_OK;
}

static enum weir_status read_sizes(struct reader *reader, struct profile_shape *out)
{
    yyjson_val *times;
    yyjson_val *runs;
    enum weir_status status = read_array(reader, "row_ns", PROFILE_SIZES, PROFILE_SIZES, &times);
    if (status == WEIR_OK) {
        status = read_array(reader, "row_runs", PROFILE_SIZES, PROFILE_SIZES, &runs);
    }
    for (size_t i = 0; i < PROFILE_SIZES && status == WEIR_OK; i++) {
        yyjson_val *time = yyjson_arr_get(times, i);
        yyjson_val *run = yyjson_arr_get(runs, i);
        const double row_ns = yyjson_is_num(time) ? yyjson_get_num(time) : -1;
        if (!isfinite(row_ns) || row_ns < 0 || row_ns > 1e18 || !yyjson_is_uint(run) ||
            yyjson_get_uint(run) > UINT32_MAX) {
            return out_of_range(reader, "row_ns or row_runs");
        }
        out->row_ns[i] = row_ns;
        out->row_runs[i] = (uint32_t)yyjson_get_uint(run);
    }
    return status;
}

/* The sums are those of runs that could have been. */
static bool is_sound(const struct profile_shape *shape)
{
    const double nearly = 1 - 1e-6;
    return shape->rows >= shape->weight * nearly &&
           shape->rows2 * shape->weight >= shape->rows * shape->rows * nearly &&
           shape->rows_time >= shape->time * nearly;
}

static void fade(struct profile_shape *shape)
{
    const double share = shape->weight > WEIGHT_RESTORED ? WEIGHT_RESTORED / shape->weight : 1;
    shape->weight *= share;
    shape->rows *= share;
    shape->rows2 *= share;
    shape->time *= share;
    shape->rows_time *= share;
}

static enum weir_status read_shape(yyjson_val *object, const char *where,
                                   struct profile_file_shape *out, struct weir_err *err)
{
    struct reader reader;
    struct profile_shape *shape = &out->shape;
    *out = (struct profile_file_shape){ 0 };
    enum weir_status status = begin(&reader, object, where, err);
    status = status == WEIR_OK ? read_dims(&reader, &shape->dims) : status;
    status = status == WEIR_OK ? read_number(&reader, "tau0_us", 0, 1e15, &out->tau0_us) : status;
    status = status == WEIR_OK ? read_number(&reader, "alpha_us", 0, 1e15, &out->alpha_us) : status;
#define READ_COUNT(field, least, most)                             \
    uint64_t field = 0;                                            \
    if (status == WEIR_OK) {                                       \
        status = read_count(&reader, #field, least, most, &field); \
    }
    SHAPE_COUNTS(READ_COUNT)
#undef READ_COUNT
#define READ_NUMBER(field, least, most)                                    \
    if (status == WEIR_OK) {                                               \
        status = read_number(&reader, #field, least, most, &shape->field); \
    }
    SHAPE_NUMBERS(READ_NUMBER)
#undef READ_NUMBER
    status = status == WEIR_OK ? read_sizes(&reader, shape) : status;
    status = status == WEIR_OK ? end(&reader) : status;
    if (status == WEIR_OK && !is_sound(shape)) {
        status = err_set(err, WEIR_EINVAL, "%s: its sums contradict each other", where);
    }
    shape->runs = runs;
    shape->rows_seen = rows_seen;
    shape->unit = (uint32_t)unit;
    shape->rows_cap = (uint32_t)rows_cap;
    fade(shape);
    return status;
}

static enum weir_status expect_text(struct reader *reader, const char *key, const char *expected)
{
    yyjson_val *value;
    const enum weir_status status = member(reader, key, JSON_STRING, &value);
    if (status != WEIR_OK || expected == NULL ||
        bytes_equal((struct bytes){ yyjson_get_str(value), yyjson_get_len(value) },
                    bytes_of(expected))) {
        return status;
    }
    return err_set(reader->err, WEIR_ECONFLICT, "it is about %s '%.80s', expected '%.80s'", key,
                   yyjson_get_str(value), expected);
}

static enum weir_status expect_digest(struct reader *reader, const char *key,
                                      const uint64_t *expected)
{
    char text[DIGEST_TEXT];
    if (expected == NULL) {
        return expect_text(reader, key, NULL);
    }
    (void)snprintf(text, sizeof(text), "%016" PRIx64, *expected);
    const enum weir_status status = expect_text(reader, key, text);
    return status != WEIR_ECONFLICT
               ? status
               : err_set(reader->err, status, "it is about other %s than the model has now", key);
}

static enum weir_status check_identity(struct reader *reader,
                                       const struct profile_identity *identity)
{
    const bool any = identity == NULL;
    uint64_t number = 0;
    enum weir_status status = expect_text(reader, "model", any ? NULL : identity->model);
    status = status == WEIR_OK ? read_count(reader, "version", 1, INT64_MAX, &number) : status;
    if (status == WEIR_OK && !any && number != identity->version) {
        return err_set(reader->err, WEIR_ECONFLICT,
                       "it is about version %" PRIu64 ", expected %" PRIu64, number,
                       identity->version);
    }
    status =
        status == WEIR_OK ? expect_digest(reader, "files", any ? NULL : &identity->files) : status;
    status = status == WEIR_OK ? expect_digest(reader, "settings", any ? NULL : &identity->settings)
                               : status;
    status =
        status == WEIR_OK ? expect_text(reader, "device", any ? NULL : identity->device) : status;
    status = status == WEIR_OK ? expect_text(reader, "processor", any ? NULL : identity->processor)
                               : status;
    return status == WEIR_OK ? expect_text(reader, "runtime", any ? NULL : identity->runtime)
                             : status;
}

static enum weir_status read_format(struct reader *reader)
{
    yyjson_val *value = NULL;
    uint64_t number = 0;
    enum weir_status status = member(reader, "format", JSON_STRING, &value);
    if (status == WEIR_OK && strcmp(yyjson_get_str(value), FORMAT) != 0) {
        return err_set(reader->err, WEIR_EINVAL, "found format '%.40s', expected '" FORMAT "'",
                       yyjson_get_str(value));
    }
    status = status == WEIR_OK ? read_count(reader, "format_version", 1, 1000, &number) : status;
    if (status == WEIR_OK && number != FORMAT_VERSION) {
        return err_set(reader->err, WEIR_ECONFLICT,
                       "it has format version %" PRIu64 ", expected %d", number, FORMAT_VERSION);
    }
    return status;
}

static enum weir_status read_rows(struct reader *reader, struct profile_file *out)
{
    yyjson_val *value = NULL;
    const enum weir_status status = member(reader, "rows", JSON_STRING, &value);
    if (status == WEIR_OK && yyjson_get_len(value) >= sizeof(out->rows)) {
        return out_of_range(reader, "rows");
    }
    if (status == WEIR_OK) {
        (void)snprintf(out->rows, sizeof(out->rows), "%s", yyjson_get_str(value));
    }
    return status;
}

static enum weir_status read_shapes(struct reader *reader, struct profile_file *out)
{
    yyjson_val *array;
    yyjson_val *item;
    size_t i;
    size_t count;
    enum weir_status status = read_array(reader, "shapes", 0, PROFILE_SHAPES, &array);
    if (status != WEIR_OK) {
        return status;
    }
    yyjson_arr_foreach(array, i, count, item) {
        char where[40];
        (void)snprintf(where, sizeof(where), "shapes[%zu]", i);
        status = read_shape(item, where, &out->shapes[out->count], reader->err);
        if (status != WEIR_OK) {
            return status;
        }
        out->count++;
    }
    return WEIR_OK;
}

enum weir_status profile_file_read(struct bytes text, const struct profile_identity *identity,
                                   struct profile_file *out, struct weir_err *err)
{
    yyjson_doc *doc;
    struct reader reader;
    struct profile_file file = { .count = 0 };
    enum weir_status status = json_read(text, &doc, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = begin(&reader, yyjson_doc_get_root(doc), "the document", err);
    status = status == WEIR_OK ? read_format(&reader) : status;
    status = status == WEIR_OK ? check_identity(&reader, identity) : status;
    status = status == WEIR_OK ? read_rows(&reader, &file) : status;
    status = status == WEIR_OK ? read_shapes(&reader, &file) : status;
    status = status == WEIR_OK ? end(&reader) : status;
    yyjson_doc_free(doc);
    if (status == WEIR_OK) {
        *out = file;
    }
    return status;
}

void profile_file_apply(const struct profile_file *file, struct model *model)
{
    for (uint32_t i = 0; i < file->count; i++) {
        struct profile_shape shape = file->shapes[i].shape;
        if (bucket_key_of(model, &shape.dims, &shape.key)) {
            profile_restore(&model->profile, &shape);
        }
    }
}
