/*
 * Inflating what a client sent is the dangerous direction: a few bytes may become gigabytes.  So
 * output is bounded twice, by the buffer's limit and by a ratio to what came in, and grows step by
 * step; the first step beyond either ends it.
 */
#include "net/encoding.h"

#include <assert.h>
#include <limits.h>

#include <zlib.h>

#include "net/fields.h"

#define STEP_BYTES_MIN 16384
#define STEP_BYTES_MAX (4 * 1024 * 1024)
#define RATIO_FREE_BYTES 16777216 /* An empty picture compresses as well as a bomb. */
#define WINDOW_BITS 15
#define WINDOW_GZIP 16 /* Added: gzip instead of zlib. */
#define MEMORY_LEVEL 8

static const char *const names[] = {
#define ENCODING_NAME(name, text) text,
    ENCODINGS(ENCODING_NAME)
#undef ENCODING_NAME
};

#define ENCODING_COUNT (sizeof(names) / sizeof(names[0]))

const char *encoding_text(enum encoding encoding)
{
    return names[encoding];
}

static bool find(struct bytes name, enum encoding *out)
{
    for (size_t i = 0; i < ENCODING_COUNT; i++) {
        if (bytes_equal_nocase(name, bytes_of(names[i]))) {
            *out = (enum encoding)i;
            return true;
        }
    }
    if (bytes_equal_nocase(name, BYTES_LITERAL("x-gzip"))) {
        *out = ENCODING_GZIP; /* RFC 9110, section 8.4.1.3. */
        return true;
    }
    return false;
}

enum weir_status encoding_of(struct bytes value, enum encoding *out, struct weir_err *err)
{
    if (value.size == 0) {
        *out = ENCODING_IDENTITY;
        return WEIR_OK;
    }
    if (!find(value, out)) {
        return err_set(err, WEIR_EENCODING,
                       "Content-Encoding '%.*s': expected gzip, deflate or identity",
                       (int)(value.size < 64 ? value.size : 64), value.data);
    }
    return WEIR_OK;
}

/* What stands before the first `mark`; *rest is what stands behind it. */
static struct bytes cut(struct bytes text, char mark, struct bytes *rest)
{
    const char *at = text.size == 0 ? NULL : memchr(text.data, mark, text.size);
    const size_t size = at == NULL ? text.size : (size_t)(at - text.data);
    const size_t skip = at == NULL ? size : size + 1;
    *rest = (struct bytes){ text.size == 0 ? NULL : text.data + skip, text.size - skip };
    return fields_trim((struct bytes){ text.data, size });
}

/* "0", "1", "0.5", "1.000" in thousandths; -1 when it is none of these. */
static int read_weight(struct bytes text)
{
    if (text.size == 0 || text.size > 5 || (text.data[0] != '0' && text.data[0] != '1') ||
        (text.size > 1 && text.data[1] != '.')) {
        return -1;
    }
    int weight = (text.data[0] - '0') * 1000;
    int unit = 100;
    for (size_t i = 2; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return -1;
        }
        weight += (text.data[i] - '0') * unit;
        unit /= 10;
    }
    return weight <= 1000 ? weight : -1;
}

/* The weight in "name;q=0.5"; -1 when malformed. */
static int member_weight(struct bytes parameters)
{
    if (parameters.size == 0) {
        return 1000;
    }
    struct bytes text = fields_trim(parameters);
    if (text.size < 2 || (text.data[0] != 'q' && text.data[0] != 'Q') || text.data[1] != '=') {
        return -1;
    }
    text.data += 2;
    text.size -= 2;
    return read_weight(text);
}

enum encoding encoding_choose(struct bytes accept)
{
    int weights[ENCODING_COUNT];
    size_t places[ENCODING_COUNT]; /* Behind all of the others where not named. */
    for (size_t i = 0; i < ENCODING_COUNT; i++) {
        weights[i] = -1; /* Not named. */
        places[i] = SIZE_MAX;
    }
    int any = -1;
    while (accept.size > 0) {
        struct bytes parameters;
        const struct bytes name = cut(cut(accept, ',', &accept), ';', &parameters);
        const int weight = member_weight(parameters);
        enum encoding encoding = ENCODING_IDENTITY;
        if (weight < 0) {
            continue;
        }
        if (bytes_equal(name, BYTES_LITERAL("*"))) {
            any = weight;
        } else if (find(name, &encoding)) {
            weights[encoding] = weight;
            places[encoding] = SIZE_MAX - 1 - accept.size;
        }
    }
    if (any >= 0) {
        for (size_t i = 0; i < ENCODING_COUNT; i++) {
            weights[i] = weights[i] < 0 ? any : weights[i];
        }
    }
    /* Identity is what is sent unless something else is wanted more; unnamed it counts for nothing.
     * */
    size_t best = ENCODING_IDENTITY;
    int weight = weights[ENCODING_IDENTITY] < 0 ? 0 : weights[ENCODING_IDENTITY];
    for (size_t i = ENCODING_IDENTITY + 1; i < ENCODING_COUNT; i++) {
        const bool sooner = best != ENCODING_IDENTITY && places[i] < places[best];
        if (weights[i] > weight || (weights[i] == weight && sooner)) {
            best = i;
            weight = weights[i];
        }
    }
    return (enum encoding)best;
}

/* gzip by its magic, zlib by its header's checksum (RFC 1950, section 2.2), else raw. */
static int window_bits(struct bytes in)
{
    const unsigned first = in.size > 0 ? (unsigned char)in.data[0] : 0;
    const unsigned second = in.size > 1 ? (unsigned char)in.data[1] : 0;
    if (first == 0x1f && second == 0x8b) {
        return WINDOW_BITS + WINDOW_GZIP;
    }
    if ((first & 0xf) == Z_DEFLATED && (first << 8 | second) % 31 == 0) {
        return WINDOW_BITS;
    }
    return -WINDOW_BITS;
}

size_t encoding_inflated_max(size_t in_size, uint64_t ratio_max, size_t size_max)
{
    uint64_t bytes_max = 0;
    if (__builtin_mul_overflow((uint64_t)in_size, ratio_max, &bytes_max) ||
        __builtin_add_overflow(bytes_max, (uint64_t)RATIO_FREE_BYTES, &bytes_max)) {
        bytes_max = UINT64_MAX;
    }
    return bytes_max < size_max ? (size_t)bytes_max : size_max;
}

/* Room for the next step: as much again as there is, within bounds.  The one byte beyond
 * `bytes_max` is what tells "exactly full" from "too much". */
static size_t step_bytes(const struct buffer *out, size_t bytes_max)
{
    size_t step = out->size < STEP_BYTES_MIN ? STEP_BYTES_MIN : out->size;
    step = step > STEP_BYTES_MAX ? STEP_BYTES_MAX : step;
    const size_t left = bytes_max - out->size;
    return step < left ? step : left;
}

static unsigned chunk(size_t left)
{
    return left > UINT_MAX ? UINT_MAX : (unsigned)left;
}

static enum weir_status too_big(struct weir_err *err, enum encoding encoding, size_t in_size,
                                size_t bytes_max)
{
    return err_set(err, WEIR_ETOOBIG, "%s body: %zu bytes become more than %zu",
                   encoding_text(encoding), in_size, bytes_max);
}

/* Inflates all of it; stream->total_out is what it became. */
static enum weir_status inflate_all(z_stream *stream, enum encoding encoding, struct bytes in,
                                    uint64_t ratio_max, struct buffer *out, struct weir_err *err)
{
    const size_t bytes_max = encoding_inflated_max(in.size, ratio_max, out->size_max);
    size_t taken = 0;
    int result = Z_OK;
    while (result != Z_STREAM_END) {
        char spare;
        const size_t room = step_bytes(out, bytes_max);
        if (room > 0 && !buffer_reserve(out, room)) {
            return err_nomem(err, "a decompressed body", out->size + room);
        }
        stream->next_in = (unsigned char *)(uintptr_t)(in.data + taken);
        stream->avail_in = chunk(in.size - taken);
        stream->next_out = (unsigned char *)(room > 0 ? out->data + out->size : &spare);
        const unsigned offered = room > 0 ? chunk(room) : 1;
        stream->avail_out = offered;
        const unsigned given = stream->avail_in;
        result = inflate(stream, Z_NO_FLUSH);
        taken += given - stream->avail_in;
        const unsigned made = offered - stream->avail_out;
        if (room == 0 && made > 0) {
            return too_big(err, encoding, in.size, bytes_max);
        }
        out->size += made;
        if (result == Z_MEM_ERROR) {
            return err_nomem(err, "zlib", 0);
        }
        const bool stuck = result == Z_BUF_ERROR || (made == 0 && given == stream->avail_in);
        if (result != Z_STREAM_END && (stuck || result != Z_OK)) {
            return err_set(err, WEIR_EINVAL, "%s body: %s at byte %zu of %zu",
                           encoding_text(encoding),
                           stuck && taken == in.size ? "cut short" : "malformed", taken, in.size);
        }
    }
    if (taken != in.size) {
        return err_set(err, WEIR_EINVAL, "%s body: %zu bytes behind its end",
                       encoding_text(encoding), in.size - taken);
    }
    return WEIR_OK;
}

enum weir_status encoding_inflate(enum encoding encoding, struct bytes in, uint64_t ratio_max,
                                  struct buffer *out, struct weir_err *err)
{
    assert(encoding != ENCODING_IDENTITY);
    z_stream stream = { 0 };
    in.data = in.size > 0 ? in.data : ""; /* An offset of 0 needs an object, too. */
    const int bits = encoding == ENCODING_GZIP ? WINDOW_BITS + WINDOW_GZIP : window_bits(in);
    enum weir_status status = WEIR_OK;
    if (inflateInit2(&stream, bits) != Z_OK) {
        status = err_nomem(err, "zlib", 0);
    } else {
        status = inflate_all(&stream, encoding, in, ratio_max, out, err);
        inflateEnd(&stream);
    }
    if (status != WEIR_OK) {
        buffer_finish(out);
    }
    return status;
}

/* Feeds one piece; with Z_FINISH until everything is out. */
static enum weir_status deflate_piece(z_stream *stream, struct bytes piece, int flush,
                                      struct buffer *out, struct weir_err *err)
{
    size_t taken = 0;
    int result = Z_OK;
    do {
        const size_t room = step_bytes(out, out->size_max);
        if (room == 0) {
            return err_set(err, WEIR_ETOOBIG, "compressed body: more than %zu bytes",
                           out->size_max);
        }
        if (!buffer_reserve(out, room)) {
            return err_nomem(err, "a compressed body", out->size + room);
        }
        stream->next_in = (unsigned char *)(uintptr_t)(piece.data + taken);
        stream->avail_in = chunk(piece.size - taken);
        stream->next_out = (unsigned char *)(out->data + out->size);
        stream->avail_out = chunk(room);
        const unsigned given = stream->avail_in;
        const unsigned offered = stream->avail_out;
        const bool all = given == piece.size - taken;
        result = deflate(stream, all ? flush : Z_NO_FLUSH);
        assert(result != Z_STREAM_ERROR);
        taken += given - stream->avail_in;
        out->size += offered - stream->avail_out;
    } while (taken < piece.size || (flush == Z_FINISH && result != Z_STREAM_END));
    return WEIR_OK;
}

enum weir_status encoding_deflate(enum encoding encoding, const struct bytes *pieces, size_t count,
                                  struct buffer *out, struct weir_err *err)
{
    assert(encoding != ENCODING_IDENTITY);
    z_stream stream = { 0 };
    const int bits = WINDOW_BITS + (encoding == ENCODING_GZIP ? WINDOW_GZIP : 0);
    if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, bits, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) !=
        Z_OK) {
        buffer_finish(out);
        return err_nomem(err, "zlib", 0);
    }
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < count && status == WEIR_OK; i++) {
        if (pieces[i].size > 0) {
            status = deflate_piece(&stream, pieces[i], Z_NO_FLUSH, out, err);
        }
    }
    if (status == WEIR_OK) {
        status = deflate_piece(&stream, BYTES_LITERAL(""), Z_FINISH, out, err);
    }
    deflateEnd(&stream);
    if (status != WEIR_OK) {
        buffer_finish(out);
    }
    return status;
}
