/*
 * picture.h — pixels as tensors, tensors as pixels, and a mask painted over a picture.
 *
 * A tensor is like a picture when its last dimensions are channels, rows and columns, or rows,
 * columns and channels, with 1, 3 or 4 channels; batches and plain rows x columns count too.
 */
#ifndef WEIR_CMD_PICTURE_H
#define WEIR_CMD_PICTURE_H

#include <stdbool.h>

#include "cmd/session.h"
#include "image/image.h"

struct layout {
    int64_t channels;
    int64_t height; /* -1: any. */
    int64_t width;
    bool channels_last;
};

/* How a tensor of that shape holds a picture; false when it is unlike one.  Dimensions may be
 * -1. */
WEIR_MUST_USE bool picture_layout(const struct shape *shape, struct layout *out);

/* Decodes a PNG, JPEG or WebP file for an input: grey or colour, size and order as `spec` says;
 * 0..1 for floats, 0..255 for integers.  WEIR_EINVAL, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status picture_read(struct arena *arena, struct bytes file,
                                            const struct spec *spec, struct tensor *out,
                                            struct weir_err *err);

/* The first picture in a tensor.  Floats from 0 to 1 become 0..255; where values lie outside,
 * the least becomes 0 and the greatest 255.  WEIR_EINVAL, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status picture_of(const struct value *value, struct image *out,
                                          struct weir_err *err);

/* Paints `mask` (one channel, any size) over `picture` (RGB): colour where it is high, a line at
 * its edge. */
WEIR_MUST_USE enum weir_status picture_overlay(struct image *picture, const struct image *mask,
                                               struct weir_err *err);

/* Writes a PNG file. */
WEIR_MUST_USE enum weir_status picture_save(const struct image *image, const char *path,
                                            struct weir_err *err);

#endif
