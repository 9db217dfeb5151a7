/*
 * image.h — pixels in and out of files, bounded, and scaling them.
 *
 * Any thread; may take long, so never on a loop.  Only the formats of the table; the format is told
 * by the first bytes, never by a name.
 */
#ifndef WEIR_IMAGE_IMAGE_H
#define WEIR_IMAGE_IMAGE_H

#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

/* Checked before anything is decoded or scaled. */
#define IMAGE_PIXELS_MAX UINT64_C(67108864) /* 64 Mi pixels. */
#define IMAGE_SIDE_MAX 65535                /* Pixels of width or height. */

/* Rows from the top, no padding: height x width x channels bytes. */
struct image {
    uint32_t width;
    uint32_t height;
    uint32_t channels; /* 1 grey, 3 RGB, 4 RGBA */
    uint8_t *pixels;   /* mem_try_alloc'ed; owned. */
};

void image_finish(struct image *image);

/* PNG (libspng), JPEG (libjpeg-turbo, scan limit on) or WebP into 1, 3 or 4 channels; `channels` 0
 * keeps the file's own (grey+alpha becomes RGBA, palettes RGB or RGBA, 16 bits become 8).  Grey
 * from colour is ITU-R BT.601 luma; alpha is dropped, not blended.  Damaged or cut files are
 * refused also where part of the picture could be shown.  WEIR_EINVAL names the format and the
 * fault, WEIR_ETOOBIG, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status image_decode(struct bytes file, uint32_t channels, struct image *out,
                                            struct weir_err *err);

/* Appends the file to `out`.  WEIR_ETOOBIG when it does not fit there, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status image_encode_png(const struct image *image, struct buffer *out,
                                                struct weir_err *err);

/* Bilinear when enlarging, area-averaging when shrinking, each side for itself (stb_image_resize).
 * WEIR_EINVAL for a side of 0, WEIR_ETOOBIG, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status image_resize(const struct image *image, uint32_t width,
                                            uint32_t height, struct image *out,
                                            struct weir_err *err);

#endif
