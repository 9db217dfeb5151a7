/*
 * Pictures in and out of files.
 *
 * Pictures come from strangers.  Each decoder therefore first reads the header
 * only, the sizes found there are checked against the limits, and then one
 * allocation of known size takes the pixels.  What the libraries need beyond that
 * is limited by their own switches: chunk sizes for PNG, the number of scans for
 * JPEG (a progressive file of a few KiB can otherwise keep a core busy for
 * minutes).
 *
 * A decoder delivers what is natural to the file; the conversion to the number
 * of channels that was asked for is one step behind all of them.
 */
#include "image/image.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include <spng.h>
#include <turbojpeg.h>
#include <webp/decode.h>

#include "util/mem.h"

#define PNG_CHUNK_BYTES_MAX 16777216
#define PNG_CHUNKS_BYTES_MAX 33554432
#define CMYK_CHANNELS 4

typedef enum weir_status decode_fn(struct bytes file, uint32_t channels, struct image *out,
                                   struct weir_err *err);

static decode_fn decode_png;
static decode_fn decode_jpeg;
static decode_fn decode_webp;

struct format {
    const char *name;
    struct bytes magic;
    struct bytes inner; /* A second mark, or nothing. */
    size_t inner_at;
    decode_fn *decode;
};

static const struct format formats[] = {
    { "PNG", { "\x89PNG\r\n\x1a\n", 8 }, { NULL, 0 }, 0, decode_png },
    { "JPEG", { "\xff\xd8\xff", 3 }, { NULL, 0 }, 0, decode_jpeg },
    { "WebP", { "RIFF", 4 }, { "WEBP", 4 }, 8, decode_webp },
};

static bool has_at(struct bytes file, size_t at, struct bytes mark)
{
    return at <= file.size && mark.size <= file.size - at &&
           (mark.size == 0 || memcmp(file.data + at, mark.data, mark.size) == 0);
}

static const struct format *find_format(struct bytes file)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const struct format *format = &formats[i];
        if (has_at(file, 0, format->magic) && has_at(file, format->inner_at, format->inner)) {
            return format;
        }
    }
    return NULL;
}

static size_t image_bytes(const struct image *image)
{
    return (size_t)image->width * image->height * image->channels;
}

/* Checks the sizes and allocates the pixels. */
static enum weir_status make_image(const char *what, uint64_t width, uint64_t height,
                                   uint32_t channels, struct image *out, struct weir_err *err)
{
    if (width == 0 || height == 0) {
        return err_set(err, WEIR_EINVAL, "%s: found %" PRIu64 "x%" PRIu64 " pixels, expected some",
                       what, width, height);
    }
    if (width > IMAGE_SIDE_MAX || height > IMAGE_SIDE_MAX || width * height > IMAGE_PIXELS_MAX) {
        return err_set(err, WEIR_ETOOBIG,
                       "%s: found %" PRIu64 "x%" PRIu64 " pixels, expected at most %" PRIu64
                       " in all and %d a side",
                       what, width, height, IMAGE_PIXELS_MAX, IMAGE_SIDE_MAX);
    }
    struct image image = { (uint32_t)width, (uint32_t)height, channels, NULL };
    image.pixels = mem_try_alloc(image_bytes(&image));
    if (image.pixels == NULL) {
        return err_nomem(err, "the pixels of an image", image_bytes(&image));
    }
    *out = image;
    return WEIR_OK;
}

void image_finish(struct image *image)
{
    if (image != NULL) {
        mem_free(image->pixels);
        *image = (struct image){ 0 };
    }
}

/* --- PNG -------------------------------------------------------------------------------------- */

/* libspng reports zlib's lack of memory as damaged data, and its allocator has no context. */
static _Thread_local bool png_starved;

static void *note_starved(void *memory)
{
    png_starved = png_starved || memory == NULL;
    return memory;
}

static void *png_malloc(size_t size)
{
    return note_starved(mem_try_alloc(size));
}

static void *png_realloc(void *memory, size_t size)
{
    return note_starved(mem_try_resize(memory, size));
}

static void *png_calloc(size_t count, size_t size)
{
    return note_starved(mem_try_zero(count, size));
}

static spng_ctx *make_png(int flags)
{
    png_starved = false;
    struct spng_alloc alloc = { png_malloc, png_realloc, png_calloc, mem_free };
    return spng_ctx_new2(&alloc, flags);
}

static enum weir_status complain_png(int code, struct weir_err *err)
{
    if (png_starved) {
        return err_nomem(err, "a PNG file", 0);
    }
    if (code == SPNG_EUSER_WIDTH || code == SPNG_EUSER_HEIGHT) {
        return err_set(err, WEIR_ETOOBIG,
                       "PNG: found a side of more than %d pixels, expected at most that",
                       IMAGE_SIDE_MAX);
    }
    return err_set(err, WEIR_EINVAL, "PNG: %s", spng_strerror(code));
}

/* How libspng is to deliver a file: its format, channels and flags. */
struct png_layout {
    int format;
    uint32_t channels;
    int flags;
};

static struct png_layout choose_png_layout(const struct spng_ihdr *header, bool transparent)
{
    const bool alpha = header->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA ||
                       header->color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
    if (alpha || transparent) {
        return (struct png_layout){ SPNG_FMT_RGBA8, 4, transparent ? SPNG_DECODE_TRNS : 0 };
    }
    /* libspng has no way from 16 bits of grey to 8; those go through RGB. */
    if (header->color_type == SPNG_COLOR_TYPE_GRAYSCALE && header->bit_depth <= 8) {
        return (struct png_layout){ SPNG_FMT_G8, 1, 0 };
    }
    return (struct png_layout){ SPNG_FMT_RGB8, 3, 0 };
}

static enum weir_status convert(struct image *image, uint32_t channels, struct weir_err *err);

static enum weir_status decode_png_with(spng_ctx *png, struct bytes file, struct image *out,
                                        struct weir_err *err)
{
    struct spng_ihdr header;
    int code = spng_set_image_limits(png, IMAGE_SIDE_MAX, IMAGE_SIDE_MAX);
    code = code != 0 ? code : spng_set_chunk_limits(png, PNG_CHUNK_BYTES_MAX, PNG_CHUNKS_BYTES_MAX);
    code = code != 0 ? code : spng_set_png_buffer(png, file.data, file.size);
    code = code != 0 ? code : spng_get_ihdr(png, &header);
    if (code != 0) {
        return complain_png(code, err);
    }
    struct spng_trns transparency;
    code = spng_get_trns(png, &transparency);
    if (code != 0 && code != SPNG_ECHUNKAVAIL) {
        return complain_png(code, err);
    }
    const struct png_layout layout = choose_png_layout(&header, code == 0);
    struct image image = { 0 };
    enum weir_status status =
        make_image("PNG", header.width, header.height, layout.channels, &image, err);
    if (status != WEIR_OK) {
        return status;
    }
    code = spng_decode_image(png, image.pixels, image_bytes(&image), layout.format, layout.flags);
    status = code == 0 ? WEIR_OK : complain_png(code, err);
    if (status == WEIR_OK && header.color_type == SPNG_COLOR_TYPE_GRAYSCALE &&
        layout.channels == 3) {
        status = convert(&image, 1, err);
    }
    if (status != WEIR_OK) {
        image_finish(&image);
        return status;
    }
    *out = image;
    return WEIR_OK;
}

static enum weir_status decode_png(struct bytes file, uint32_t channels, struct image *out,
                                   struct weir_err *err)
{
    (void)channels;
    spng_ctx *png = make_png(0);
    if (png == NULL) {
        return err_nomem(err, "a PNG file", file.size);
    }
    const enum weir_status status = decode_png_with(png, file, out, err);
    spng_ctx_free(png);
    return status;
}

/* Of a buffer that took no more. */
static enum weir_status complain_full(const char *what, const struct buffer *out,
                                      struct weir_err *err)
{
    if (!out->full) {
        return err_nomem(err, what, out->size);
    }
    return err_set(err, WEIR_ETOOBIG, "%s: found more than %zu bytes, expected at most that", what,
                   out->size_max);
}

static int write_png(spng_ctx *png, void *user, void *data, size_t size)
{
    (void)png;
    buffer_append(user, data, size);
    return ((struct buffer *)user)->failed ? SPNG_IO_ERROR : 0;
}

static int encode_png_with(spng_ctx *png, const struct image *image, struct buffer *out)
{
    static const uint8_t color_types[] = {
        [1] = SPNG_COLOR_TYPE_GRAYSCALE,
        [3] = SPNG_COLOR_TYPE_TRUECOLOR,
        [4] = SPNG_COLOR_TYPE_TRUECOLOR_ALPHA,
    };
    struct spng_ihdr header = {
        .width = image->width,
        .height = image->height,
        .bit_depth = 8,
        .color_type = color_types[image->channels],
    };
    int code = spng_set_png_stream(png, write_png, out);
    code = code != 0 ? code : spng_set_ihdr(png, &header);
    return code != 0 ? code
                     : spng_encode_image(png, image->pixels, image_bytes(image), SPNG_FMT_PNG,
                                         SPNG_ENCODE_FINALIZE);
}

enum weir_status image_encode_png(const struct image *image, struct buffer *out,
                                  struct weir_err *err)
{
    const size_t before = out->size;
    spng_ctx *png = make_png(SPNG_CTX_ENCODER);
    if (png == NULL) {
        return err_nomem(err, "a PNG file", image_bytes(image));
    }
    const int code = encode_png_with(png, image, out);
    spng_ctx_free(png);
    if (code == 0) {
        return WEIR_OK;
    }
    const enum weir_status status =
        out->failed ? complain_full("PNG", out, err) : complain_png(code, err);
    out->size = before;
    return status;
}

/* --- JPEG ------------------------------------------------------------------------------------- */

static enum weir_status complain_jpeg(tjhandle jpeg, struct weir_err *err)
{
    return err_set(err, WEIR_EINVAL, "JPEG: %s", tjGetErrorStr2(jpeg));
}

/* Files store the inks inverted, as Adobe began it: 255 is no ink.  In place, four bytes to
 * three. */
static void cmyk_to_rgb(struct image *image)
{
    const size_t pixels = (size_t)image->width * image->height;
    uint8_t *to = image->pixels;
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *from = image->pixels + i * CMYK_CHANNELS;
        const unsigned black = from[3];
        const unsigned inks[3] = { from[0], from[1], from[2] };
        for (size_t c = 0; c < 3; c++) {
            *to++ = (uint8_t)((inks[c] * black + 127) / 255);
        }
    }
    image->channels = 3;
}

static enum weir_status decode_jpeg_with(tjhandle jpeg, struct bytes file, uint32_t channels,
                                         struct image *out, struct weir_err *err)
{
    const unsigned char *data = (const unsigned char *)file.data;
    int width = 0;
    int height = 0;
    int subsampling = 0;
    int space = 0;
    if (tjDecompressHeader3(jpeg, data, file.size, &width, &height, &subsampling, &space) != 0) {
        return complain_jpeg(jpeg, err);
    }
    const bool cmyk = space == TJCS_CMYK || space == TJCS_YCCK;
    const bool grey = space == TJCS_GRAY || (channels == 1 && space == TJCS_YCbCr);
    const int format = cmyk ? TJPF_CMYK : grey ? TJPF_GRAY : TJPF_RGB;
    struct image image = { 0 };
    const enum weir_status status =
        make_image("JPEG", width < 0 ? 0 : (uint64_t)width, height < 0 ? 0 : (uint64_t)height,
                   (uint32_t)tjPixelSize[format], &image, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (tjDecompress2(jpeg, data, file.size, image.pixels, width, 0, height, format,
                      TJFLAG_LIMITSCANS | TJFLAG_ACCURATEDCT) != 0) {
        image_finish(&image);
        return complain_jpeg(jpeg, err);
    }
    if (cmyk) {
        cmyk_to_rgb(&image);
    }
    *out = image;
    return WEIR_OK;
}

static enum weir_status decode_jpeg(struct bytes file, uint32_t channels, struct image *out,
                                    struct weir_err *err)
{
    tjhandle jpeg = tjInitDecompress();
    if (jpeg == NULL) {
        return err_nomem(err, "a JPEG file", file.size);
    }
    const enum weir_status status = decode_jpeg_with(jpeg, file, channels, out, err);
    (void)tjDestroy(jpeg);
    return status;
}

/* --- WebP ------------------------------------------------------------------------------------- */

static enum weir_status complain_webp(VP8StatusCode code, struct weir_err *err)
{
    static const char *const faults[] = {
        [VP8_STATUS_INVALID_PARAM] = "invalid parameter",
        [VP8_STATUS_BITSTREAM_ERROR] = "the data is damaged",
        [VP8_STATUS_UNSUPPORTED_FEATURE] = "it uses a feature that is not supported",
        [VP8_STATUS_SUSPENDED] = "the data ends too early",
        [VP8_STATUS_USER_ABORT] = "decoding was stopped",
        [VP8_STATUS_NOT_ENOUGH_DATA] = "the data ends too early",
    };
    if (code == VP8_STATUS_OUT_OF_MEMORY) {
        return err_nomem(err, "a WebP file", 0);
    }
    return err_set(err, WEIR_EINVAL, "WebP: %s", faults[code]);
}

static enum weir_status decode_webp(struct bytes file, uint32_t channels, struct image *out,
                                    struct weir_err *err)
{
    (void)channels;
    const uint8_t *data = (const uint8_t *)file.data;
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) {
        return err_set(err, WEIR_EUNSUPPORTED, "WebP: the library is of another version");
    }
    VP8StatusCode code = WebPGetFeatures(data, file.size, &config.input);
    if (code != VP8_STATUS_OK) {
        return complain_webp(code, err);
    }
    if (config.input.has_animation) {
        return err_set(err, WEIR_EINVAL, "WebP: found an animation, expected a single picture");
    }
    struct image image = { 0 };
    const bool alpha = config.input.has_alpha != 0;
    const enum weir_status status =
        make_image("WebP", (uint64_t)config.input.width, (uint64_t)config.input.height,
                   alpha ? 4 : 3, &image, err);
    if (status != WEIR_OK) {
        return status;
    }
    config.output.colorspace = alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = image.pixels;
    config.output.u.RGBA.stride = (int)(image.width * image.channels);
    config.output.u.RGBA.size = image_bytes(&image);
    code = WebPDecode(data, file.size, &config);
    WebPFreeDecBuffer(&config.output);
    if (code != VP8_STATUS_OK) {
        image_finish(&image);
        return complain_webp(code, err);
    }
    *out = image;
    return WEIR_OK;
}

/* --- Channels --------------------------------------------------------------------------------- */

/* 0.299 R + 0.587 G + 0.114 B; the factors add up to 2^16, so that grey stays what it is. */
static uint8_t luma(const uint8_t *rgb)
{
    return (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 32768u) >> 16);
}

/* Between different numbers of channels only, so that alpha is dropped or made, never kept. */
static void convert_pixel(const uint8_t *from, uint32_t from_channels, uint8_t *to,
                          uint32_t to_channels)
{
    const bool grey = from_channels == 1;
    if (to_channels == 1) {
        to[0] = grey ? from[0] : luma(from);
        return;
    }
    to[0] = from[0];
    to[1] = grey ? from[0] : from[1];
    to[2] = grey ? from[0] : from[2];
    if (to_channels == 4) {
        to[3] = 255;
    }
}

static enum weir_status convert(struct image *image, uint32_t channels, struct weir_err *err)
{
    struct image made = { 0 };
    const enum weir_status status =
        make_image("image", image->width, image->height, channels, &made, err);
    if (status != WEIR_OK) {
        return status;
    }
    const size_t pixels = (size_t)image->width * image->height;
    for (size_t i = 0; i < pixels; i++) {
        convert_pixel(image->pixels + i * image->channels, image->channels,
                      made.pixels + i * channels, channels);
    }
    image_finish(image);
    *image = made;
    return WEIR_OK;
}

enum weir_status image_decode(struct bytes file, uint32_t channels, struct image *out,
                              struct weir_err *err)
{
    assert(channels == 0 || channels == 1 || channels == 3 || channels == 4);
    const struct format *format = find_format(file);
    if (format == NULL) {
        return err_set(err, WEIR_EINVAL,
                       "image: found neither PNG, JPEG nor WebP in its first bytes");
    }
    struct image image = { 0 };
    enum weir_status status = format->decode(file, channels, &image, err);
    if (status == WEIR_OK && channels != 0 && channels != image.channels) {
        status = convert(&image, channels, err);
    }
    if (status != WEIR_OK) {
        image_finish(&image);
        return status;
    }
    *out = image;
    return WEIR_OK;
}
