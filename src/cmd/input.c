#include "cmd/input.h"

#include <fcntl.h>
#include <string.h>

#include "cmd/literal.h"
#include "cmd/npy.h"
#include "cmd/picture.h"
#include "cmd/scalar.h"
#include "util/file.h"
#include "util/mem.h"

#define FILE_BYTES_MAX ((size_t)2 << 30)

static enum weir_status find_spec(const char *assignment, size_t size,
                                  const struct interface *model, const struct spec **out,
                                  struct weir_err *err)
{
    char names[256] = "";
    for (uint32_t i = 0; i < model->input_count; i++) {
        const struct spec *spec = &model->inputs[i];
        if (strlen(spec->name) == size && strncmp(spec->name, assignment, size) == 0) {
            *out = spec;
            return WEIR_OK;
        }
        const size_t used = strlen(names);
        if (used + strlen(spec->name) + 5 < sizeof(names)) {
            (void)strcat(strcat(strcat(names, i == 0 ? "'" : ", '"), spec->name), "'");
        }
    }
    return err_set(err, WEIR_EINVAL, "model '%s' has no input '%.*s', expected %s", model->model,
                   (int)size, assignment, names);
}

/* One number in another type, if that type can hold it. */
static bool convert_one(const struct tensor *from, const struct tensor *to, size_t index)
{
    const double value = scalar_get(from->dtype, from->data, index);
    if (scalar_is_float(to->dtype)) {
        scalar_set(to->dtype, to->data, index, value);
        return true;
    }
    uint64_t whole;
    if (from->dtype == DTYPE_UINT64) {
        memcpy(&whole, from->data + index * sizeof(whole), sizeof(whole));
        return scalar_set_unsigned(to->dtype, to->data, index, whole);
    }
    int64_t signed_whole = (int64_t)value;
    if (from->dtype == DTYPE_INT64) {
        memcpy(&signed_whole, from->data + index * sizeof(signed_whole), sizeof(signed_whole));
    }
    return scalar_set_signed(to->dtype, to->data, index, signed_whole);
}

/* Whole numbers to any type that holds them, floats to floats. */
static enum weir_status convert(struct arena *arena, const struct spec *spec,
                                const struct tensor *from, struct tensor *to, struct weir_err *err)
{
    if (scalar_is_float(from->dtype) && !scalar_is_float(spec->dtype)) {
        return err_set(err, WEIR_EINVAL, "input '%s': found %s, expected %s", spec->name,
                       dtype_text(from->dtype), dtype_text(spec->dtype));
    }
    uint64_t count = 0;
    enum weir_status status = shape_elements(&from->shape, &count, err);
    to->dtype = spec->dtype;
    to->shape = from->shape;
    if (status == WEIR_OK) {
        status = tensor_bytes(to->dtype, &to->shape, &to->size, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    to->data = arena_try_aligned(arena, to->size + 1, MEM_ALIGN);
    if (to->data == NULL) {
        return err_nomem(err, "an input", to->size);
    }
    for (size_t i = 0; i < count; i++) {
        if (!convert_one(from, to, i)) {
            return err_set(err, WEIR_EINVAL,
                           "input '%s': element %zu is %.17g, which %s cannot hold", spec->name, i,
                           scalar_get(from->dtype, from->data, i), dtype_text(spec->dtype));
        }
    }
    return WEIR_OK;
}

static enum weir_status read_npy(struct arena *arena, struct bytes file, const struct spec *spec,
                                 struct tensor *out, struct weir_err *err)
{
    struct weir_tensor npy;
    enum weir_status status = npy_parse(file, &npy, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct tensor tensor = tensor_from_public(&npy);
    const struct shape given = tensor.shape;
    if (spec->dtype == DTYPE_BYTES) {
        return err_set(err, WEIR_EINVAL, "input '%s': found an array of %s, expected texts (BYTES)",
                       spec->name, dtype_text(tensor.dtype));
    }
    uint64_t count = 0;
    status = shape_elements(&given, &count, err);
    if (status == WEIR_OK) {
        status = literal_fit(spec, &given, count, &tensor.shape, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    tensor.data = arena_try_aligned(arena, npy.size + 1, MEM_ALIGN);
    if (tensor.data == NULL) {
        return err_nomem(err, "an input", npy.size);
    }
    if (npy.size > 0) {
        memcpy(tensor.data, npy.data, npy.size);
    }
    *out = tensor;
    return tensor.dtype == spec->dtype ? WEIR_OK : convert(arena, spec, &tensor, out, err);
}

static bool starts(struct bytes file, const char *magic, size_t size)
{
    return file.size >= size && memcmp(file.data, magic, size) == 0;
}

static bool is_picture(struct bytes file)
{
    return starts(file, "\x89PNG", 4) || starts(file, "\xff\xd8\xff", 3) ||
           (starts(file, "RIFF", 4) && file.size >= 12 && memcmp(file.data + 8, "WEBP", 4) == 0);
}

static bool is_text_of_numbers(struct bytes file)
{
    return file.size > 0 && strchr("[-0123456789 \n\t", file.data[0]) != NULL;
}

static enum weir_status read_content(struct arena *arena, struct bytes file, const char *path,
                                     const struct spec *spec, struct tensor *out,
                                     const char **picture, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    if (starts(file, "\x93NUMPY", 6)) {
        status = read_npy(arena, file, spec, out, err);
    } else if (spec->dtype == DTYPE_BYTES) {
        status = literal_bytes(arena, file, spec, out, err);
    } else if (is_picture(file)) {
        *picture = path;
        status = picture_read(arena, file, spec, out, err);
    } else if (is_text_of_numbers(file)) {
        status = literal_read(arena, file, spec, out, err);
    } else {
        return err_set(err, WEIR_EINVAL,
                       "%s: expected an .npy file, a picture (PNG, JPEG, WebP) or numbers as text",
                       path);
    }
    return status == WEIR_OK ? WEIR_OK : (err_prefix(err, "%s", path), status);
}

enum weir_status input_check(const char *word, struct weir_err *err)
{
    return strchr(word, '=') != NULL
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "--input: found '%s', expected NAME=VALUE or NAME=@FILE",
                         word);
}

enum weir_status input_read(struct arena *arena, const char *assignment,
                            const struct interface *model, struct value *out, const char **picture,
                            struct weir_err *err)
{
    const size_t size = strcspn(assignment, "=");
    const struct spec *spec = NULL;
    enum weir_status status = find_spec(assignment, size, model, &spec, err);
    if (status != WEIR_OK) {
        return status;
    }
    out->name = spec->name;
    const char *text = assignment + size + 1;
    if (text[0] != '@') {
        return literal_read(arena, bytes_of(text), spec, &out->tensor, err);
    }
    struct buffer file = { 0 };
    status = file_read(AT_FDCWD, text + 1, FILE_BYTES_MAX, &file, err);
    if (status == WEIR_OK) {
        status = read_content(arena, (struct bytes){ file.data, file.size }, text + 1, spec,
                              &out->tensor, picture, err);
    }
    buffer_finish(&file);
    return status;
}
