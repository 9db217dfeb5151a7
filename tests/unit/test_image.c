/*
 * image: pixels as other programs wrote them, limits before decoding, round trips, scaling.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "util/file.h"
#include "util/mem.h"

/* The picture in rgb.png and its like: 4 x 3 pixels. */
static const uint8_t rgb_pixels[] = {
    255, 0, 0,   0,   255, 0,   0,   0,   255, 255, 255, 255, /* */
    0,   0, 0,   128, 128, 128, 255, 255, 0,   0,   255, 255, /* */
    255, 0, 255, 10,  20,  30,  200, 100, 50,  1,   2,   3,
};

static struct buffer load(const char *name)
{
    const char *root = getenv("WEIR_SOURCE_ROOT");
    char path[512];
    (void)snprintf(path, sizeof path, "%s/tests/fuzz/corpus/image/%s", root == NULL ? "." : root,
                   name);
    struct buffer file;
    struct weir_err err = { 0 };
    if (file_read(AT_FDCWD, path, 1 << 20, &file, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    return file;
}

static struct image decode(const char *name, uint32_t channels)
{
    struct buffer file = load(name);
    struct image image = { 0 };
    struct weir_err err = { 0 };
    const enum weir_status status =
        image_decode((struct bytes){ file.data, file.size }, channels, &image, &err);
    buffer_finish(&file);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    return image;
}

static void expect_size(const struct image *image, uint32_t width, uint32_t height,
                        uint32_t channels)
{
    assert_int_equal(image->width, width);
    assert_int_equal(image->height, height);
    assert_int_equal(image->channels, channels);
}

static void expect_rgb(const char *name, uint32_t channels)
{
    struct image image = decode(name, channels);
    expect_size(&image, 4, 3, 3);
    assert_memory_equal(image.pixels, rgb_pixels, sizeof rgb_pixels);
    image_finish(&image);
    assert_null(image.pixels);
}

static void test_lossless_colour(void **state)
{
    (void)state;
    expect_rgb("rgb.png", 0);
    expect_rgb("palette.png", 0);
    expect_rgb("rgb.webp", 0);
    expect_rgb("rgba.png", 3);
    expect_rgb("rgba.webp", 3);
}

static void test_alpha(void **state)
{
    (void)state;
    const char *const names[] = { "rgba.png", "rgba.webp" };
    for (size_t n = 0; n < 2; n++) {
        struct image image = decode(names[n], 0);
        expect_size(&image, 4, 3, 4);
        for (size_t i = 0; i < 12; i++) {
            assert_memory_equal(image.pixels + 4 * i, rgb_pixels + 3 * i, 3);
            assert_int_equal(image.pixels[4 * i + 3], 20 * i);
        }
        image_finish(&image);
    }
    struct image opaque = decode("rgb.png", 4);
    expect_size(&opaque, 4, 3, 4);
    assert_int_equal(opaque.pixels[4 * 5 + 1], 128);
    assert_int_equal(opaque.pixels[4 * 5 + 3], 255);
    image_finish(&opaque);
    struct image palette = decode("palette-transparent.png", 0);
    expect_size(&palette, 4, 3, 4);
    size_t transparent = 0;
    for (size_t i = 0; i < 12; i++) {
        transparent += palette.pixels[4 * i + 3] == 0;
    }
    assert_int_equal(transparent, 1);
    image_finish(&palette);
}

static void test_grey(void **state)
{
    (void)state;
    const char *const names[] = { "grey.png", "grey16.png" };
    for (size_t n = 0; n < 2; n++) {
        struct image image = decode(names[n], 0);
        expect_size(&image, 4, 3, 1);
        for (size_t i = 0; i < 12; i++) {
            assert_int_equal(image.pixels[i], 20 * i);
        }
        image_finish(&image);
    }
    struct image wide = decode("grey.png", 3);
    expect_size(&wide, 4, 3, 3);
    assert_memory_equal(wide.pixels + 9, "\x3c\x3c\x3c", 3);
    image_finish(&wide);
    struct image bits = decode("bits.png", 0);
    expect_size(&bits, 4, 3, 1);
    assert_int_equal(bits.pixels[5], 0);
    assert_int_equal(bits.pixels[6], 255);
    image_finish(&bits);
    struct image blended = decode("grey-alpha.png", 0);
    expect_size(&blended, 4, 3, 4);
    assert_memory_equal(blended.pixels + 4, "\x14\x14\x14\xeb", 4);
    image_finish(&blended);
    struct image again = decode("grey-alpha.png", 1);
    assert_int_equal(again.pixels[11], 220);
    image_finish(&again);
}

static void test_grey_of_colour_is_luma(void **state)
{
    (void)state;
    struct image image = decode("rgb.png", 1);
    expect_size(&image, 4, 3, 1);
    const uint8_t expected[] = { 76, 150, 29, 255, 0, 128, 226, 179, 105, 18, 124, 2 };
    assert_memory_equal(image.pixels, expected, sizeof expected);
    image_finish(&image);
}

/* The JPEG files show red = 16 x, green = 16 y, blue = 128, all of it `dark` times. */
static void expect_slopes(const char *name, double dark, double tolerance)
{
    struct image image = decode(name, 3);
    expect_size(&image, 16, 16, 3);
    for (int y = 0; y < 16; y++) {
        for (int x = 0; x < 16; x++) {
            const uint8_t *pixel = image.pixels + (y * 16 + x) * 3;
            assert_true(fabs(pixel[0] - 16 * x * dark) <= tolerance);
            assert_true(fabs(pixel[1] - 16 * y * dark) <= tolerance);
            assert_true(fabs(pixel[2] - 128 * dark) <= tolerance);
        }
    }
    image_finish(&image);
}

static void test_jpeg(void **state)
{
    (void)state;
    expect_slopes("progressive.jpg", 1.0, 16);
    expect_slopes("baseline.jpg", 1.0, 40);
    expect_slopes("cmyk.jpg", 0.5, 10); /* Half black. */
    struct image own = decode("grey.jpg", 0);
    expect_size(&own, 16, 16, 1);
    image_finish(&own);
    struct image grey = decode("progressive.jpg", 1);
    expect_size(&grey, 16, 16, 1);
    /* 0.299 * 128 + 0.587 * 128 + 0.114 * 128 */
    assert_in_range(grey.pixels[8 * 16 + 8], 120, 136);
    image_finish(&grey);
}

static void refuse(struct bytes file, enum weir_status expected, const char *sentence)
{
    struct image image = { 0 };
    struct weir_err err = { 0 };
    assert_int_equal(image_decode(file, 0, &image, &err), expected);
    assert_null(image.pixels);
    if (strstr(err.text, sentence) == NULL) {
        fail_msg("found '%s', expected '%s'", err.text, sentence);
    }
}

static void refuse_file(const char *name, enum weir_status expected, const char *sentence)
{
    struct buffer file = load(name);
    refuse((struct bytes){ file.data, file.size }, expected, sentence);
    buffer_finish(&file);
}

static void test_limits_before_decoding(void **state)
{
    (void)state;
    refuse_file("huge.png", WEIR_ETOOBIG, "PNG: found 60000x60000 pixels");
    refuse_file("long.png", WEIR_ETOOBIG, "PNG: found a side of more than 65535 pixels");
    refuse_file("huge.jpg", WEIR_ETOOBIG, "JPEG: found 65500x65500 pixels");
}

static void test_refuses_damaged_files(void **state)
{
    (void)state;
    refuse((struct bytes){ NULL, 0 }, WEIR_EINVAL, "neither PNG, JPEG nor WebP");
    refuse(BYTES_LITERAL("GIF89a"), WEIR_EINVAL, "neither PNG, JPEG nor WebP");
    refuse(BYTES_LITERAL("RIFF\4\0\0\0WEBP"), WEIR_EINVAL, "WebP: ");
    refuse_file("animated.webp", WEIR_EINVAL, "WebP: found an animation");
    const char *const names[] = { "rgb.png", "baseline.jpg", "progressive.jpg", "rgba.webp" };
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        struct buffer file = load(names[n]);
        refuse((struct bytes){ file.data, file.size / 2 }, WEIR_EINVAL,
               n == 0   ? "PNG: "
               : n == 3 ? "WebP: "
                        : "JPEG: ");
        buffer_finish(&file);
    }
    struct buffer file = load("rgb.png");
    file.data[file.size - 20] ^= 1;
    refuse((struct bytes){ file.data, file.size }, WEIR_EINVAL, "PNG: ");
    buffer_finish(&file);
}

/* A picture of `channels` in which every byte differs from its neighbours. */
static struct image make(uint32_t width, uint32_t height, uint32_t channels)
{
    struct image image = { width, height, channels, NULL };
    const size_t size = (size_t)width * height * channels;
    image.pixels = mem_alloc(size);
    for (size_t i = 0; i < size; i++) {
        image.pixels[i] = (uint8_t)(i * 37 + i / 11);
    }
    return image;
}

static void test_png_round_trip(void **state)
{
    (void)state;
    const uint32_t channels[] = { 1, 3, 4 };
    for (size_t n = 0; n < 3; n++) {
        struct image image = make(33, 17, channels[n]);
        struct buffer file;
        buffer_init(&file, 1 << 20);
        buffer_text(&file, "before");
        assert_int_equal(image_encode_png(&image, &file, NULL), WEIR_OK);
        assert_memory_equal(file.data, "before\x89PNG", 10);
        struct image back = { 0 };
        const struct bytes png = { file.data + 6, file.size - 6 };
        assert_int_equal(image_decode(png, 0, &back, NULL), WEIR_OK);
        expect_size(&back, 33, 17, channels[n]);
        assert_memory_equal(back.pixels, image.pixels, (size_t)33 * 17 * channels[n]);
        image_finish(&back);
        image_finish(&image);
        buffer_finish(&file);
    }
}

static void test_encoding_stops_at_the_limit(void **state)
{
    (void)state;
    struct image image = make(64, 64, 3);
    struct buffer file;
    buffer_init(&file, 200);
    buffer_text(&file, "before");
    assert_int_equal(image_encode_png(&image, &file, NULL), WEIR_ETOOBIG);
    assert_int_equal(file.size, 6);
    buffer_finish(&file);
    image_finish(&image);
}

static struct image resize(const struct image *image, uint32_t width, uint32_t height)
{
    struct image out = { 0 };
    struct weir_err err = { 0 };
    const enum weir_status status = image_resize(image, width, height, &out, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    expect_size(&out, width, height, image->channels);
    return out;
}

static void test_shrinking_averages_areas(void **state)
{
    (void)state;
    uint8_t pixels[] = { 0, 100, 10, 10, 200, 100, 30, 30 };
    const struct image image = { 4, 2, 1, pixels };
    struct image half = resize(&image, 2, 1);
    assert_int_equal(half.pixels[0], 100);
    assert_int_equal(half.pixels[1], 20);
    image_finish(&half);
    struct image large = make(300, 200, 3);
    memset(large.pixels, 91, (size_t)300 * 200 * 3);
    struct image small = resize(&large, 7, 11);
    for (size_t i = 0; i < (size_t)7 * 11 * 3; i++) {
        assert_int_equal(small.pixels[i], 91);
    }
    image_finish(&small);
    image_finish(&large);
}

static void test_enlarging_is_bilinear(void **state)
{
    (void)state;
    uint8_t pixels[] = { 0, 200 };
    const struct image image = { 2, 1, 1, pixels };
    struct image wide = resize(&image, 8, 1);
    const uint8_t expected[] = { 0, 0, 25, 75, 125, 175, 200, 200 };
    for (size_t i = 0; i < 8; i++) {
        assert_in_range(wide.pixels[i] + 1, expected[i], expected[i] + 2);
    }
    image_finish(&wide);
}

static void test_same_size_is_the_same_picture(void **state)
{
    (void)state;
    struct image image = make(31, 19, 4);
    struct image same = resize(&image, 31, 19);
    assert_memory_equal(same.pixels, image.pixels, (size_t)31 * 19 * 4);
    image_finish(&same);
    image_finish(&image);
}

static void test_resize_limits(void **state)
{
    (void)state;
    struct image image = make(8, 8, 3);
    struct image out = { 0 };
    struct weir_err err;
    assert_int_equal(image_resize(&image, 0, 8, &out, NULL), WEIR_EINVAL);
    assert_int_equal(image_resize(&image, 65536, 1, &out, NULL), WEIR_ETOOBIG);
    assert_int_equal(image_resize(&image, 10000, 10000, &out, &err), WEIR_ETOOBIG);
    assert_string_equal(err.text, "image: scaling 8x8 to 10000x10000 pixels takes too much memory");
    image_finish(&image);
    struct image tall = make(1, 65535, 1);
    assert_int_equal(image_resize(&tall, 65535, 1, &out, NULL), WEIR_ETOOBIG);
    assert_null(out.pixels);
    struct image one = resize(&tall, 1, 1);
    image_finish(&one);
    image_finish(&tall);
}

/* Without fault injection the first round already succeeds. */
static void test_out_of_memory_is_said(void **state)
{
    (void)state;
    struct buffer file = load("rgba.png");
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; status != WEIR_OK; nth++) {
        struct image image = { 0 };
        struct image small = { 0 };
        struct buffer out;
        buffer_init(&out, 1 << 20);
        (void)mem_fault_arm(nth);
        status = image_decode((struct bytes){ file.data, file.size }, 1, &image, NULL);
        if (status == WEIR_OK) {
            status = image_resize(&image, 2, 2, &small, NULL);
        }
        if (status == WEIR_OK) {
            status = image_encode_png(&small, &out, NULL);
        }
        (void)mem_fault_arm(0);
        if (status != WEIR_OK) {
            assert_int_equal(status, WEIR_ENOMEM);
        }
        buffer_finish(&out);
        image_finish(&small);
        image_finish(&image);
    }
    buffer_finish(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossless_colour),
        cmocka_unit_test(test_alpha),
        cmocka_unit_test(test_grey),
        cmocka_unit_test(test_grey_of_colour_is_luma),
        cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_limits_before_decoding),
        cmocka_unit_test(test_refuses_damaged_files),
        cmocka_unit_test(test_png_round_trip),
        cmocka_unit_test(test_encoding_stops_at_the_limit),
        cmocka_unit_test(test_shrinking_averages_areas),
        cmocka_unit_test(test_enlarging_is_bilinear),
        cmocka_unit_test(test_same_size_is_the_same_picture),
        cmocka_unit_test(test_resize_limits),
        cmocka_unit_test(test_out_of_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
