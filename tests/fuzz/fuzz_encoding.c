/*
 * Compressed bodies: nothing grows beyond its limit, and what was deflated inflates.
 *
 * The first byte chooses the encoding and the direction, the rest is the body.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "net/encoding.h"

#define INFLATED_MAX (32 << 20)
#define RATIO_MAX 4
#define RATIO_FREE_BYTES (16 << 20)

static void require(bool promise)
{
    if (!promise) {
        abort();
    }
}

static void inflate_any(enum encoding encoding, struct bytes in)
{
    struct buffer out;
    buffer_init(&out, INFLATED_MAX);
    if (encoding_inflate(encoding, in, RATIO_MAX, &out, NULL) == WEIR_OK) {
        require(out.size <= RATIO_MAX * in.size + RATIO_FREE_BYTES);
    } else {
        require(out.data == NULL);
    }
    buffer_finish(&out);
}

static void there_and_back(enum encoding encoding, struct bytes in)
{
    struct buffer packed;
    struct buffer back;
    buffer_init(&packed, INFLATED_MAX);
    buffer_init(&back, INFLATED_MAX);
    require(encoding_deflate(encoding, &in, 1, &packed, NULL) == WEIR_OK);
    const struct bytes middle = { packed.data, packed.size };
    require(encoding_inflate(encoding, middle, 2000, &back, NULL) == WEIR_OK);
    require(bytes_equal((struct bytes){ back.data, back.size }, in));
    buffer_finish(&packed);
    buffer_finish(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1000000) {
        return 0;
    }
    const enum encoding encoding = data[0] & 1 ? ENCODING_GZIP : ENCODING_DEFLATE;
    const struct bytes in = { (const char *)data + 1, size - 1 };
    (void)encoding_choose(in);
    if (data[0] & 2) {
        there_and_back(encoding, in);
    } else {
        inflate_any(encoding, in);
    }
    return 0;
}
