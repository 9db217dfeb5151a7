#include "cmd/picture.h"

#include <math.h>
#include <string.h>

#include "cmd/scalar.h"
#include "util/file.h"
#include "util/mem.h"

#define FILE_BYTES_MAX ((size_t)1 << 30)
#define MASK_EDGE 128   /* A mask's value from which on a pixel is inside. */
#define MASK_STRENGTH 2 /* A full mask hides one part in so many of the picture. */

static const uint8_t inside_color[3] = { 255, 70, 30 };
static const uint8_t edge_color[3] = { 255, 225, 0 };

static bool are_channels(int64_t size)
{
    return size == 1 || size == 3 || size == 4;
}

static bool are_sides(int64_t height, int64_t width)
{
    return (height == -1 || height >= 2) && (width == -1 || width >= 2);
}

bool picture_layout(const struct shape *shape, struct layout *out)
{
    const int64_t *dims = shape->dims;
    if (shape->rank == 2) {
        *out = (struct layout){ 1, dims[0], dims[1], false };
        /* [-1,64] is a batch of vectors. */
        return are_sides(dims[0], dims[1]) && (dims[0] == -1) == (dims[1] == -1);
    }
    if (shape->rank != 3 && shape->rank != 4) {
        return false;
    }
    const int64_t *last = dims + (shape->rank - 3);
    if (are_channels(last[0]) && are_sides(last[1], last[2])) {
        *out = (struct layout){ last[0], last[1], last[2], false };
        return true;
    }
    if (are_channels(last[2]) && are_sides(last[0], last[1])) {
        *out = (struct layout){ last[2], last[0], last[1], true };
        return true;
    }
    *out = (struct layout){ 1, last[1], last[2], false };
    return shape->rank == 3 && last[0] == -1 && are_sides(last[1], last[2]);
}

/* The shape of one picture in `spec`. */
static enum weir_status one_picture(const struct spec *spec, const struct layout *layout,
                                    const struct image *image, struct shape *out,
                                    struct weir_err *err)
{
    const uint32_t leading =
        spec->shape.rank == 2
            ? 0
            : spec->shape.rank -
                  (spec->shape.rank == 3 && layout->channels == 1 && spec->shape.dims[0] == -1 ? 2
                                                                                               : 3);
    *out = spec->shape;
    for (uint32_t i = 0; i < leading; i++) {
        if (out->dims[i] > 1) {
            char text[SHAPE_TEXT];
            return err_set(err, WEIR_EINVAL,
                           "input '%s': found one picture, expected %lld of them (shape %s)",
                           spec->name, (long long)out->dims[i], shape_format(&spec->shape, text));
        }
        out->dims[i] = 1;
    }
    bool rows = true; /* Of the variable sides, rows come first. */
    for (uint32_t i = leading; i < out->rank; i++) {
        if (out->dims[i] == -1) {
            const bool is_row = rows && layout->height == -1;
            out->dims[i] = is_row ? image->height : image->width;
            rows = false;
        }
    }
    return WEIR_OK;
}

static void set_pixel(enum dtype dtype, void *data, size_t index, uint8_t pixel)
{
    if (scalar_is_float(dtype)) {
        scalar_set(dtype, data, index, (double)pixel / 255.0);
    } else {
        scalar_set(dtype, data, index, dtype == DTYPE_BOOL ? pixel >= MASK_EDGE : pixel);
    }
}

static void fill(const struct image *image, const struct layout *layout, struct tensor *out)
{
    const size_t pixels = (size_t)image->width * image->height;
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < image->channels; c++) {
            const size_t at = layout->channels_last ? i * image->channels + c : c * pixels + i;
            set_pixel(out->dtype, out->data, at, image->pixels[i * image->channels + c]);
        }
    }
}

/* To the size that the model wants. */
static enum weir_status scale(struct image *image, const struct layout *layout,
                              struct weir_err *err)
{
    const uint32_t width = layout->width == -1 ? image->width : (uint32_t)layout->width;
    const uint32_t height = layout->height == -1 ? image->height : (uint32_t)layout->height;
    if (width == image->width && height == image->height) {
        return WEIR_OK;
    }
    struct image scaled = { 0 };
    const enum weir_status status = image_resize(image, width, height, &scaled, err);
    if (status == WEIR_OK) {
        image_finish(image);
        *image = scaled;
    }
    return status;
}

static enum weir_status to_tensor(struct arena *arena, const struct image *image,
                                  const struct spec *spec, const struct layout *layout,
                                  struct tensor *out, struct weir_err *err)
{
    struct tensor tensor = { .dtype = spec->dtype, .present = true };
    enum weir_status status = one_picture(spec, layout, image, &tensor.shape, err);
    if (status == WEIR_OK) {
        status = tensor_bytes(spec->dtype, &tensor.shape, &tensor.size, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    tensor.data = arena_try_aligned(arena, tensor.size, MEM_ALIGN);
    if (tensor.data == NULL) {
        return err_nomem(err, "an input", tensor.size);
    }
    fill(image, layout, &tensor);
    *out = tensor;
    return WEIR_OK;
}

enum weir_status picture_read(struct arena *arena, struct bytes file, const struct spec *spec,
                              struct tensor *out, struct weir_err *err)
{
    struct layout layout;
    if (!picture_layout(&spec->shape, &layout) || spec->dtype == DTYPE_BYTES) {
        char text[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL, "input '%s': found a picture, expected %s %s", spec->name,
                       dtype_text(spec->dtype), shape_format(&spec->shape, text));
    }
    struct image image = { 0 };
    enum weir_status status = image_decode(file, (uint32_t)layout.channels, &image, err);
    if (status == WEIR_OK) {
        status = scale(&image, &layout, err);
    }
    if (status == WEIR_OK) {
        status = to_tensor(arena, &image, spec, &layout, out, err);
    }
    image_finish(&image);
    return status;
}

/* How values become 0..255. */
struct range {
    double least;
    double factor;
};

static struct range range_of(const struct tensor *tensor, size_t count)
{
    const double top = scalar_is_float(tensor->dtype) || tensor->dtype == DTYPE_BOOL ? 1.0 : 255.0;
    double least = 0;
    double greatest = top;
    for (size_t i = 0; i < count; i++) {
        const double value = scalar_get(tensor->dtype, tensor->data, i);
        least = value < least ? value : least;
        greatest = value > greatest ? value : greatest;
    }
    if (least >= 0 && greatest <= top) {
        return (struct range){ 0, 255.0 / top };
    }
    least = INFINITY; /* Something lies outside: from the least that there really is. */
    greatest = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        const double value = scalar_get(tensor->dtype, tensor->data, i);
        least = isfinite(value) && value < least ? value : least;
        greatest = isfinite(value) && value > greatest ? value : greatest;
    }
    return (struct range){ least, greatest > least ? 255.0 / (greatest - least) : 0 };
}

static uint8_t to_pixel(const struct range *range, double value)
{
    const double scaled = (value - range->least) * range->factor;
    return isnan(scaled) || scaled <= 0 ? 0 : scaled >= 255 ? 255 : (uint8_t)lrint(scaled);
}

enum weir_status picture_of(const struct value *value, struct image *out, struct weir_err *err)
{
    const struct tensor *tensor = &value->tensor;
    struct layout layout;
    if (tensor->dtype == DTYPE_BYTES || !picture_layout(&tensor->shape, &layout) ||
        layout.width > IMAGE_SIDE_MAX || layout.height > IMAGE_SIDE_MAX) {
        char text[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL,
                       "output '%s' is %s %s, expected a picture: rows x columns with 1, 3 or 4 "
                       "channels",
                       value->name, dtype_text(tensor->dtype), shape_format(&tensor->shape, text));
    }
    const size_t pixels = (size_t)layout.width * (size_t)layout.height;
    const size_t channels = (size_t)layout.channels;
    struct image image = { .width = (uint32_t)layout.width,
                           .height = (uint32_t)layout.height,
                           .channels = (uint32_t)channels,
                           .pixels = mem_try_alloc(pixels * channels + 1) };
    if (image.pixels == NULL) {
        return err_nomem(err, "a picture", pixels * channels);
    }
    const struct range range = range_of(tensor, pixels * channels);
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < channels; c++) {
            const size_t at = layout.channels_last ? i * channels + c : c * pixels + i;
            image.pixels[i * channels + c] =
                to_pixel(&range, scalar_get(tensor->dtype, tensor->data, at));
        }
    }
    *out = image;
    return WEIR_OK;
}

static bool is_inside(const struct image *mask, int64_t x, int64_t y)
{
    return x >= 0 && y >= 0 && x < mask->width && y < mask->height &&
           mask->pixels[(size_t)y * mask->width + (size_t)x] >= MASK_EDGE;
}

/* Inside, and a neighbour is not. */
static bool is_edge(const struct image *mask, int64_t x, int64_t y)
{
    return is_inside(mask, x, y) && !(is_inside(mask, x - 1, y) && is_inside(mask, x + 1, y) &&
                                      is_inside(mask, x, y - 1) && is_inside(mask, x, y + 1));
}

static void paint(struct image *picture, const struct image *mask)
{
    for (uint32_t y = 0; y < picture->height; y++) {
        for (uint32_t x = 0; x < picture->width; x++) {
            const size_t at = (size_t)y * picture->width + x;
            const unsigned strength = mask->pixels[at] / MASK_STRENGTH;
            const bool edge = is_edge(mask, x, y);
            for (size_t c = 0; c < 3; c++) {
                uint8_t *pixel = &picture->pixels[at * 3 + c];
                const unsigned blended =
                    (*pixel * (255 - strength) + inside_color[c] * strength) / 255;
                *pixel = edge ? edge_color[c] : (uint8_t)blended;
            }
        }
    }
}

enum weir_status picture_overlay(struct image *picture, const struct image *mask,
                                 struct weir_err *err)
{
    if (mask->channels != 1 || picture->channels != 3) {
        return err_set(err, WEIR_EINVAL, "overlay: found a mask with %u channels, expected 1",
                       mask->channels);
    }
    struct image scaled = { 0 };
    const enum weir_status status =
        image_resize(mask, picture->width, picture->height, &scaled, err);
    if (status == WEIR_OK) {
        paint(picture, &scaled);
    }
    image_finish(&scaled);
    return status;
}

enum weir_status picture_save(const struct image *image, const char *path, struct weir_err *err)
{
    struct buffer file;
    buffer_init(&file, FILE_BYTES_MAX);
    enum weir_status status = image_encode_png(image, &file, err);
    if (status == WEIR_OK) {
        status = file_write(path, file.data, file.size, err);
    }
    buffer_finish(&file);
    return status;
}
