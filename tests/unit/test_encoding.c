/* Compressed bodies: what comes back is what went in, and nothing grows beyond its limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <zlib.h>
#include <cmocka.h>

#include "net/encoding.h"

static void assert_buffer(const struct buffer *buffer, const char *text, size_t size)
{
    assert_int_equal(buffer->size, size);
    assert_memory_equal(buffer->data, text, size);
}

static struct bytes bytes_in(const struct buffer *buffer)
{
    return (struct bytes){ buffer->data, buffer->size };
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum weir_status status;
        enum encoding encoding;
    } cases[] = {
        { "", WEIR_OK, ENCODING_IDENTITY },
        { "identity", WEIR_OK, ENCODING_IDENTITY },
        { "gzip", WEIR_OK, ENCODING_GZIP },
        { "GZip", WEIR_OK, ENCODING_GZIP },
        { "x-gzip", WEIR_OK, ENCODING_GZIP },
        { "deflate", WEIR_OK, ENCODING_DEFLATE },
        { "br", WEIR_EENCODING, ENCODING_IDENTITY },
        { "gzip, gzip", WEIR_EENCODING, ENCODING_IDENTITY },
        { "gzi", WEIR_EENCODING, ENCODING_IDENTITY },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum encoding found = ENCODING_IDENTITY;
        struct weir_err err = { 0 };
        assert_int_equal(encoding_of(bytes_of(cases[i].text), &found, &err), cases[i].status);
        assert_int_equal(found, cases[i].encoding);
        if (cases[i].status != WEIR_OK) {
            assert_non_null(strstr(err.text, cases[i].text));
        }
    }
}

static void test_choice(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        enum encoding encoding;
    } cases[] = {
        { "", ENCODING_IDENTITY },
        { "gzip", ENCODING_GZIP },
        { "deflate", ENCODING_DEFLATE },
        { "gzip;q=0", ENCODING_IDENTITY },
        { "gzip;q=0.5, deflate;q=0.8", ENCODING_DEFLATE },
        { "gzip;q=1.0, identity;q=0.5", ENCODING_GZIP },
        { "gzip;q=0.5, identity", ENCODING_IDENTITY },
        { "gzip;q=0.5, identity;q=0.5", ENCODING_IDENTITY },
        { "gzip, deflate, br", ENCODING_GZIP },
        { "br, deflate, gzip", ENCODING_DEFLATE },
        { "gzip;q=0.7, deflate;q=0.7", ENCODING_GZIP },
        { "deflate;q=0.7, gzip;q=0.8", ENCODING_GZIP },
        { "br, zstd", ENCODING_IDENTITY },
        { "br;q=1, gzip;q=0.001", ENCODING_GZIP },
        { "*", ENCODING_IDENTITY },
        { "identity;q=0, *;q=0.1", ENCODING_DEFLATE },
        { " GZIP ; q=0.3 ,\tdeflate ; q=0.2", ENCODING_GZIP },
        { "gzip;q=1.001", ENCODING_IDENTITY },
        { "gzip;q=2", ENCODING_IDENTITY },
        { "gzip;q=0.12345", ENCODING_IDENTITY },
        { "gzip;level=9", ENCODING_IDENTITY },
        { ",,;,gzip,", ENCODING_GZIP },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const enum encoding found = encoding_choose(bytes_of(cases[i].accept));
        if (found != cases[i].encoding) {
            fail_msg("'%s' chose %s", cases[i].accept, encoding_text(found));
        }
    }
}

/* Neither all the same nor all random. */
static void fill(char *data, size_t size)
{
    uint32_t seed = 1;
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (char)(seed >> 24 & (i / 1000 % 2 ? 0xff : 3));
    }
}

static void test_there_and_back(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 1000, 16384, 65536, 3000001 };
    char *data = test_malloc(3000001);
    fill(data, 3000001);
    for (enum encoding e = ENCODING_DEFLATE; e <= ENCODING_GZIP; e++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            const size_t size = sizes[i];
            const struct bytes pieces[] = { { data, size / 3 },
                                            { NULL, 0 },
                                            { data + size / 3, size - size / 3 } };
            struct buffer packed;
            struct buffer back;
            struct weir_err err;
            buffer_init(&packed, 4000000);
            buffer_init(&back, 4000000);
            assert_int_equal(encoding_deflate(e, pieces, 3, &packed, &err), WEIR_OK);
            assert_int_equal(encoding_inflate(e, bytes_in(&packed), 200, &back, &err), WEIR_OK);
            assert_buffer(&back, data, size);
            buffer_finish(&packed);
            buffer_finish(&back);
        }
    }
    test_free(data);
}

/* Clients send gzip and raw streams as "deflate". */
static void test_deflate_is_recognised_by_its_bytes(void **state)
{
    (void)state;
    static const int windows[] = { 15, 31, -15 };
    for (size_t i = 0; i < 3; i++) {
        unsigned char packed[256];
        z_stream stream = { 0 };
        assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, windows[i], 8, Z_DEFAULT_STRATEGY),
                         Z_OK);
        unsigned char text[] = "hello hello hello";
        stream.next_in = text;
        stream.avail_in = sizeof(text);
        stream.next_out = packed;
        stream.avail_out = sizeof(packed);
        assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
        const struct bytes in = { (const char *)packed, stream.total_out };
        deflateEnd(&stream);
        struct buffer out;
        buffer_init(&out, 1000);
        assert_int_equal(encoding_inflate(ENCODING_DEFLATE, in, 200, &out, NULL), WEIR_OK);
        assert_buffer(&out, (const char *)text, sizeof(text));
        buffer_finish(&out);
    }
}

static void pack_zeros(struct buffer *packed, size_t size)
{
    char *zeros = test_calloc(1, size);
    const struct bytes piece = { zeros, size };
    buffer_init(packed, size + 1000);
    assert_int_equal(encoding_deflate(ENCODING_GZIP, &piece, 1, packed, NULL), WEIR_OK);
    test_free(zeros);
}

static void test_growth_is_bounded(void **state)
{
    (void)state;
    struct buffer packed;
    struct buffer out;
    struct weir_err err = { 0 };
    pack_zeros(&packed, 1000000);
    for (size_t less = 0; less < 2; less++) {
        buffer_init(&out, 1000000 - less);
        assert_int_equal(encoding_inflate(ENCODING_GZIP, bytes_in(&packed), 1000, &out, &err),
                         less == 0 ? WEIR_OK : WEIR_ETOOBIG);
        assert_int_equal(out.size, less == 0 ? 1000000 : 0);
        buffer_finish(&out);
    }
    buffer_finish(&packed);
    pack_zeros(&packed, 20000000);
    buffer_init(&out, 20000000);
    assert_int_equal(encoding_inflate(ENCODING_GZIP, bytes_in(&packed), 10, &out, &err),
                     WEIR_ETOOBIG);
    assert_null(out.data);
    buffer_finish(&packed);

    /* What is no larger than a picture may shrink as well as it likes. */
    pack_zeros(&packed, 16777216);
    buffer_init(&out, 20000000);
    assert_int_equal(encoding_inflate(ENCODING_GZIP, bytes_in(&packed), 1, &out, &err), WEIR_OK);
    buffer_finish(&out);
    buffer_finish(&packed);

    char *data = test_malloc(100000);
    fill(data, 100000);
    const struct bytes piece = { data, 100000 };
    buffer_init(&out, 100);
    assert_int_equal(encoding_deflate(ENCODING_GZIP, &piece, 1, &out, &err), WEIR_ETOOBIG);
    assert_null(out.data);
    test_free(data);
}

static void test_every_cut_and_every_tail_is_noticed(void **state)
{
    (void)state;
    const struct bytes piece = BYTES_LITERAL("a body that is short and has no zeros");
    for (enum encoding e = ENCODING_DEFLATE; e <= ENCODING_GZIP; e++) {
        struct buffer packed;
        struct buffer out;
        buffer_init(&packed, 1000);
        assert_int_equal(encoding_deflate(e, &piece, 1, &packed, NULL), WEIR_OK);
        for (size_t size = 0; size < packed.size; size++) {
            char *cut = test_malloc(size + 1); /* At its end, memory ends too. */
            memcpy(cut, packed.data, size);
            buffer_init(&out, 1000);
            assert_int_equal(encoding_inflate(e, (struct bytes){ cut, size }, 200, &out, NULL),
                             WEIR_EINVAL);
            assert_null(out.data);
            test_free(cut);
        }
        buffer_char(&packed, 'x');
        buffer_init(&out, 1000);
        assert_int_equal(encoding_inflate(e, bytes_in(&packed), 200, &out, NULL), WEIR_EINVAL);
        packed.size--;
        packed.data[packed.size / 2] ^= 0x55;
        buffer_init(&out, 1000);
        assert_int_equal(encoding_inflate(e, bytes_in(&packed), 200, &out, NULL), WEIR_EINVAL);
        buffer_finish(&packed);
    }
    struct buffer out;
    buffer_init(&out, 1000);
    assert_int_equal(encoding_inflate(ENCODING_GZIP, BYTES_LITERAL("{\"a\":1}"), 200, &out, NULL),
                     WEIR_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_deflate_is_recognised_by_its_bytes),
        cmocka_unit_test(test_growth_is_bounded),
        cmocka_unit_test(test_every_cut_and_every_tail_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
