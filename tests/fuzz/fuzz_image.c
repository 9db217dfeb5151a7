/*
 * Pictures: whatever is accepted has the size and channels it says, survives PNG unchanged and can
 * be scaled.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "image/image.h"

#define SMALL_PIXELS 65536 /* Larger ones are decoded, but not encoded and scaled as well. */

static size_t bytes_in(const struct image *image)
{
    return (size_t)image->width * image->height * image->channels;
}

static void check_png(const struct image *image)
{
    struct buffer file;
    buffer_init(&file, 2 * bytes_in(image) + 65536);
    enum weir_status status = image_encode_png(image, &file, NULL);
    assert(status == WEIR_OK);
    struct image back = { 0 };
    status = image_decode((struct bytes){ file.data, file.size }, 0, &back, NULL);
    assert(status == WEIR_OK);
    assert(back.width == image->width && back.height == image->height);
    assert(back.channels == image->channels);
    assert(memcmp(back.pixels, image->pixels, bytes_in(image)) == 0);
    image_finish(&back);
    buffer_finish(&file);
}

static void check_resize(const struct image *image, uint32_t width, uint32_t height)
{
    struct image scaled = { 0 };
    const enum weir_status status = image_resize(image, width, height, &scaled, NULL);
    assert(status == WEIR_OK);
    assert(scaled.width == width && scaled.height == height);
    assert(scaled.channels == image->channels);
    image_finish(&scaled);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t wanted[] = { 0, 1, 3, 4 };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct image image = { 0 };
        struct weir_err err = { 0 };
        const struct bytes file = { (const char *)data, size };
        if (image_decode(file, wanted[i], &image, &err) != WEIR_OK) {
            assert(image.pixels == NULL && err.text[0] != '\0');
            return 0;
        }
        assert(image.width > 0 && image.height > 0);
        assert((uint64_t)image.width * image.height <= IMAGE_PIXELS_MAX);
        assert(wanted[i] == 0 || image.channels == wanted[i]);
        if ((uint64_t)image.width * image.height <= SMALL_PIXELS) {
            check_png(&image);
            check_resize(&image, 1 + (uint32_t)size % 97, 1 + (uint32_t)size % 61);
        }
        image_finish(&image);
    }
    return 0;
}
