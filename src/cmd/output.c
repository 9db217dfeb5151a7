#include "cmd/output.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "cmd/npy.h"
#include "cmd/picture.h"
#include "cmd/scalar.h"
#include "cmd/term.h"
#include "image/image.h"
#include "util/file.h"
#include "util/json.h"

#define SHOWN_VALUES 8
#define SHOWN_TEXT_BYTES 60
#define SHOWN_CLASSES 5
#define CLASSES_MAX 100000
#define FILE_BYTES_MAX ((size_t)8 << 30)

static size_t count_of(const struct tensor *tensor)
{
    uint64_t count = 0;
    (void)!shape_elements(&tensor->shape, &count, NULL);
    return (size_t)count;
}

static void write_range(struct buffer *out, const struct tensor *tensor, size_t count)
{
    double least = INFINITY;
    double greatest = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const double value = scalar_get(tensor->dtype, tensor->data, i);
        least = value < least ? value : least;
        greatest = value > greatest ? value : greatest;
        sum += value;
    }
    buffer_printf(out, "   min %.6g, max %.6g, mean %.6g", least, greatest, sum / (double)count);
}

static void write_values(struct buffer *out, const struct tensor *tensor, size_t count)
{
    const size_t shown = count < SHOWN_VALUES ? count : SHOWN_VALUES;
    buffer_text(out, "     ");
    for (size_t i = 0; i < shown; i++) {
        buffer_char(out, ' ');
        if (scalar_is_float(tensor->dtype)) {
            buffer_printf(out, "%.6g", scalar_get(tensor->dtype, tensor->data, i));
        } else {
            scalar_write(out, tensor->dtype, tensor->data, i);
        }
    }
    buffer_text(out, shown < count ? " ...\n" : "\n");
}

static void write_texts(struct buffer *out, const struct tensor *tensor, size_t count)
{
    size_t at = 0;
    struct bytes text;
    buffer_text(out, "     ");
    for (size_t i = 0; i < SHOWN_VALUES && tensor_next_string(tensor, &at, &text); i++) {
        const bool cut = text.size > SHOWN_TEXT_BYTES;
        text.size = cut ? SHOWN_TEXT_BYTES : text.size;
        buffer_char(out, ' ');
        json_text(out, text);
        buffer_text(out, cut ? "..." : "");
    }
    buffer_text(out, count > SHOWN_VALUES ? " ...\n" : "\n");
}

/* One row of floats in which a place means a class. */
static bool are_scores(const struct tensor *tensor, size_t count)
{
    const struct shape *shape = &tensor->shape;
    return scalar_is_float(tensor->dtype) && count >= 3 && count <= CLASSES_MAX &&
           (shape->rank == 1 || (shape->rank == 2 && shape->dims[0] == 1));
}

static void write_best(struct buffer *out, const struct tensor *tensor, size_t count, bool color)
{
    double last = INFINITY;
    size_t last_index = 0;
    buffer_printf(out, "      %sbest:%s", term_bold(color), term_plain(color));
    for (size_t n = 0; n < SHOWN_CLASSES && n < count; n++) {
        size_t best = SIZE_MAX;
        double best_value = -INFINITY;
        for (size_t i = 0; i < count; i++) {
            const double value = scalar_get(tensor->dtype, tensor->data, i);
            const bool left = value < last || (value == last && i > last_index);
            if (left && value > best_value) {
                best = i;
                best_value = value;
            }
        }
        if (best == SIZE_MAX) {
            break;
        }
        buffer_printf(out, "%s %zu (%.4g)", n == 0 ? "" : ",", best, best_value);
        last = best_value;
        last_index = best;
    }
    buffer_char(out, '\n');
}

static void summarize(struct buffer *out, const struct value *output, bool color)
{
    char shape[SHAPE_TEXT];
    const struct tensor *tensor = &output->tensor;
    const size_t count = count_of(tensor);
    buffer_printf(out, "  %s%s%s  %s %s", term_bold(color), output->name, term_plain(color),
                  dtype_text(tensor->dtype), shape_format(&tensor->shape, shape));
    if (count == 0) {
        buffer_text(out, "   empty\n");
        return;
    }
    if (tensor->dtype == DTYPE_BYTES) {
        buffer_char(out, '\n');
        write_texts(out, tensor, count);
        return;
    }
    if (count > 1) {
        write_range(out, tensor, count);
    }
    buffer_char(out, '\n');
    write_values(out, tensor, count);
    if (are_scores(tensor, count)) {
        write_best(out, tensor, count, color);
    }
}

void output_summary(struct buffer *out, const struct answer *answer, bool color)
{
    for (uint32_t i = 0; i < answer->output_count; i++) {
        summarize(out, &answer->outputs[i], color);
    }
}

void output_data(struct buffer *out, const struct tensor *tensor)
{
    size_t at = 0;
    struct bytes text;
    const size_t count = count_of(tensor);
    buffer_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            buffer_char(out, ',');
        }
        if (tensor->dtype != DTYPE_BYTES) {
            scalar_write(out, tensor->dtype, tensor->data, i);
        } else if (tensor_next_string(tensor, &at, &text)) {
            json_text(out, text);
        }
    }
    buffer_char(out, ']');
}

void output_describe(struct buffer *out, const char *name, enum dtype dtype,
                     const struct shape *shape)
{
    char text[SHAPE_TEXT];
    buffer_char(out, '{');
    json_key(out, "name");
    json_string(out, name);
    json_key(out, "datatype");
    json_string(out, dtype_text(dtype));
    json_key(out, "shape");
    buffer_text(out, shape_format(shape, text));
}

void output_json(struct buffer *out, const struct answer *answer)
{
    buffer_char(out, '[');
    for (uint32_t i = 0; i < answer->output_count; i++) {
        const struct value *output = &answer->outputs[i];
        json_comma(out);
        output_describe(out, output->name, output->tensor.dtype, &output->tensor.shape);
        json_key(out, "data");
        output_data(out, &output->tensor);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static bool ends_with(const char *path, const char *ending)
{
    const size_t size = strlen(path);
    return size > strlen(ending) && strcmp(path + size - strlen(ending), ending) == 0;
}

static enum weir_status save_npy(const struct value *output, const char *path, struct weir_err *err)
{
    struct buffer file;
    buffer_init(&file, FILE_BYTES_MAX);
    const struct weir_tensor tensor = tensor_to_public(output->name, &output->tensor);
    enum weir_status status = npy_write(&file, &tensor, err);
    if (status == WEIR_OK) {
        status = file_write(path, file.data, file.size, err);
    }
    buffer_finish(&file);
    return status;
}

enum weir_status output_save(const struct value *output, const char *path, struct weir_err *err)
{
    if (ends_with(path, ".npy")) {
        return save_npy(output, path, err);
    }
    if (!ends_with(path, ".png")) {
        return err_set(err, WEIR_EINVAL,
                       "--output: found '%s', expected a name that ends in .npy "
                       "or .png",
                       path);
    }
    struct image image = { 0 };
    enum weir_status status = picture_of(output, &image, err);
    if (status == WEIR_OK) {
        status = picture_save(&image, path, err);
    }
    image_finish(&image);
    return status;
}
