/*
 * Scaling.
 *
 * stb_image_resize computes in int what it will need.  With sides of at most
 * 65,535 and the limit below on its largest table, rows that wait until all of
 * what falls onto them is there, none of that can overflow.
 */
#include "image/image.h"

#include <inttypes.h>
#include <stdbool.h>

#include "util/mem.h"

static void *take_memory(size_t size)
{
    return mem_try_alloc(size);
}

#define STBIR_MALLOC(size, context) ((void)(context), take_memory(size))
#define STBIR_FREE(memory, context) ((void)(context), mem_free(memory))
#define STBIR_STATIC
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#include <stb/stb_image_resize.h>

#define WAITING_BYTES_MAX UINT64_C(268435456)

/* Rows of floats that stb_image_resize keeps: as many as one row of the result is made of, and a
 * few more. */
static uint64_t waiting_bytes(const struct image *image, uint32_t width, uint32_t height)
{
    const uint64_t rows = image->height / height + 4;
    return rows * width * image->channels * sizeof(float);
}

static stbir_filter choose_filter(uint32_t from, uint32_t to)
{
    return to > from ? STBIR_FILTER_TRIANGLE : STBIR_FILTER_BOX;
}

static enum weir_status check_sizes(const struct image *image, uint32_t width, uint32_t height,
                                    struct weir_err *err)
{
    if (width == 0 || height == 0) {
        return err_set(err, WEIR_EINVAL,
                       "image: found a target of %" PRIu32 "x%" PRIu32 " pixels, expected some",
                       width, height);
    }
    if (width > IMAGE_SIDE_MAX || height > IMAGE_SIDE_MAX || image->width > IMAGE_SIDE_MAX ||
        image->height > IMAGE_SIDE_MAX || (uint64_t)width * height > IMAGE_PIXELS_MAX ||
        waiting_bytes(image, width, height) > WAITING_BYTES_MAX) {
        return err_set(err, WEIR_ETOOBIG,
                       "image: scaling %" PRIu32 "x%" PRIu32 " to %" PRIu32 "x%" PRIu32
                       " pixels takes too much memory",
                       image->width, image->height, width, height);
    }
    return WEIR_OK;
}

enum weir_status image_resize(const struct image *image, uint32_t width, uint32_t height,
                              struct image *out, struct weir_err *err)
{
    const enum weir_status status = check_sizes(image, width, height, err);
    if (status != WEIR_OK) {
        return status;
    }
    const size_t size = (size_t)width * height * image->channels;
    struct image made = { width, height, image->channels, mem_try_alloc(size) };
    if (made.pixels == NULL) {
        return err_nomem(err, "a scaled image", size);
    }
    /* Alpha is scaled like any other channel, unweighted: it may be a mask. */
    const int done = stbir_resize(
        image->pixels, (int)image->width, (int)image->height, 0, made.pixels, (int)width,
        (int)height, 0, STBIR_TYPE_UINT8, (int)image->channels, STBIR_ALPHA_CHANNEL_NONE, 0,
        STBIR_EDGE_CLAMP, STBIR_EDGE_CLAMP, choose_filter(image->width, width),
        choose_filter(image->height, height), STBIR_COLORSPACE_LINEAR, NULL);
    if (!done) {
        mem_free(made.pixels);
        return err_nomem(err, "scaling an image", waiting_bytes(image, width, height));
    }
    *out = made;
    return WEIR_OK;
}
