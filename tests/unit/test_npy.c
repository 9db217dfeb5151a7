/*
 * npy: files as NumPy writes them, what is refused with which sentence, and files it can read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cmd/npy.h"

/* A file of `format` ("1" or "2") with this header and these elements. */
static struct buffer make(char format, const char *header, const void *data, size_t size)
{
    struct buffer file;
    buffer_init(&file, 1 << 20);
    const size_t length = strlen(header);
    const char prefix[] = { (char)(format - '0'), 0, (char)(length & 0xff),
                            (char)(length >> 8),  0, 0 };
    buffer_text(&file, "\x93NUMPY");
    buffer_append(&file, prefix, format == '1' ? 4 : 6);
    buffer_text(&file, header);
    buffer_append(&file, data, size);
    assert_false(file.failed);
    return file;
}

static void refuse(const char *header, size_t size, const char *sentence)
{
    static const char zeros[64];
    struct buffer file = make('1', header, zeros, size);
    struct npy npy = { 0 };
    struct weir_err err = { 0 };
    assert_int_equal(npy_parse((struct bytes){ file.data, file.size }, &npy, &err), WEIR_EINVAL);
    assert_null(npy.data.data);
    if (strstr(err.text, sentence) == NULL) {
        fail_msg("found '%s', expected '%s'", err.text, sentence);
    }
    buffer_finish(&file);
}

static void expect(char format, const char *header, enum dtype dtype, const char *shape,
                   size_t size)
{
    static const char data[64] = "elements";
    struct buffer file = make(format, header, data, size);
    struct npy npy = { 0 };
    struct weir_err err = { 0 };
    const enum weir_status status = npy_parse((struct bytes){ file.data, file.size }, &npy, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    assert_int_equal(npy.dtype, dtype);
    char text[SHAPE_TEXT];
    assert_string_equal(shape_format(&npy.shape, text), shape);
    assert_int_equal(npy.data.size, size);
    assert_memory_equal(npy.data.data, data, size);
    buffer_finish(&file);
}

static void test_reads_what_numpy_writes(void **state)
{
    (void)state;
    expect('1', "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }       \n", DTYPE_FP32,
           "[3,4]", 48);
    expect('2', "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }\n", DTYPE_UINT8, "[5]",
           5);
    expect('1', "{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n", DTYPE_INT64, "[]", 8);
    expect('1', "{'descr': '|b1', 'fortran_order': False, 'shape': (0, 7), }\n", DTYPE_BOOL,
           "[0,7]", 0);
    expect('1', "{\"shape\":(1,1,2),\"fortran_order\":False,\"descr\":\"<f2\"}", DTYPE_FP16,
           "[1,1,2]", 4);
}

static void test_refuses_other_types(void **state)
{
    (void)state;
    refuse("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", 4,
           "npy header: found ''>f4', 'fortran_order': False, '' at byte 10, expected a "
           "little-endian");
    refuse("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8, "expected a little-");
    refuse("{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", 12, "expected a little-");
    refuse("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4,
           "expected a little-");
    refuse("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", 16,
           "numpy.ascontiguousarray");
}

static void test_refuses_broken_headers(void **state)
{
    (void)state;
    const char *const ok = "'descr': '<f4', 'fortran_order': False";
    char text[256];
    static const struct {
        const char *shape;
        const char *sentence;
    } shapes[] = {
        { "(3)", "a comma after the only dimension" },
        { "(-1,)", "expected a dimension" },
        { "(1.5,)", "expected a dimension" },
        { "(,)", "expected a dimension" },
        { "(1 2)", "expected a dimension" },
        { "[3]", "expected a tuple" },
        { "(99999999999999999999,)", "expected a dimension" },
        { "(1,1,1,1,1,1,1,1,1,1,1,1,1)", "at most 12 dimensions" },
        { "(1099511627776, 1099511627776)", "" },
        { "(3,", "expected a dimension" },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        (void)snprintf(text, sizeof text, "{%s, 'shape': %s, }", ok, shapes[i].shape);
        refuse(text, 4, shapes[i].sentence);
    }
    refuse("", 4, "expected {");
    refuse("{", 4, "each once");
    refuse("{'descr': '<f4", 4, "expected a little-endian");
    refuse("{'descr': '<f4', 'descr': '<f4', 'shape': ()}", 4, "each once");
    refuse("{'descr': '<f4', 'fortran_order': False}", 4, "a comma and the next entry");
    refuse("{'descr': '<f4', 'fortran_order': 0, 'shape': ()}", 4, "True or False");
    refuse("{'descr' '<f4'}", 4, "a colon");
    refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}", 4, "expected }");
    refuse("{'descr': '<f4', 'fortran_order': False, 'shape': ()} x", 4, "the end of the header");
}

static void test_refuses_wrong_sizes(void **state)
{
    (void)state;
    const char *const header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
    refuse(header, 15, "found 15 bytes of elements, expected 16 for FP32 of shape [2,2]");
    refuse(header, 17, "found 17 bytes of elements, expected 16");
}

static void test_refuses_other_files(void **state)
{
    (void)state;
    static const struct {
        struct bytes file;
        const char *sentence;
    } files[] = {
        { { NULL, 0 }, "found no NumPy file" },
        { { "\x93NUMPY\1\0\1", 9 }, "found no NumPy file" },
        { { "PK\3\4 and more of a .npz file", 28 }, "found no NumPy file" },
        { { "\x93NUMPY\3\0\2\0\0\0{}", 14 }, "found format 3.0, expected 1.0 or 2.0" },
        { { "\x93NUMPY\1\0\3\0{}", 12 }, "found a header of 3 bytes" },
        { { "\x93NUMPY\2\0\xff\xff\xff\xff{}", 14 }, "found a header of 4294967295 bytes" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct npy npy;
        struct weir_err err = { 0 };
        assert_int_equal(npy_parse(files[i].file, &npy, &err), WEIR_EINVAL);
        if (strstr(err.text, files[i].sentence) == NULL) {
            fail_msg("found '%s', expected '%s'", err.text, files[i].sentence);
        }
    }
}

static void test_writes_what_it_reads(void **state)
{
    (void)state;
    static const char data[24] = "0123456789abcdefghijklm";
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        const size_t element = dtype_size((enum dtype)dtype);
        if (element == 0 || dtype == DTYPE_BF16) {
            continue;
        }
        for (uint32_t rank = 0; rank <= TENSOR_RANK_MAX; rank++) {
            struct shape shape = { .rank = rank };
            for (uint32_t i = 0; i < rank; i++) {
                shape.dims[i] = i == rank / 2 ? 3 : 1;
            }
            const struct bytes bytes = { data, rank == 0 ? element : 3 * element };
            struct buffer file;
            buffer_init(&file, 1 << 16);
            assert_int_equal(npy_write(&file, (enum dtype)dtype, &shape, bytes, NULL), WEIR_OK);
            assert_int_equal((file.size - bytes.size) % 64, 0);
            struct npy npy;
            assert_int_equal(npy_parse((struct bytes){ file.data, file.size }, &npy, NULL),
                             WEIR_OK);
            assert_int_equal(npy.dtype, dtype);
            assert_true(shape_equal(&npy.shape, &shape));
            assert_true(bytes_equal(npy.data, bytes));
            buffer_finish(&file);
        }
    }
}

static void test_writes_numpys_own_bytes(void **state)
{
    (void)state;
    static const char expected[] = "\x93NUMPY\1\0v\0{'descr': '<i2', 'fortran_order': False, "
                                   "'shape': (2,), }";
    struct buffer file;
    buffer_init(&file, 1 << 16);
    const struct shape shape = { 1, { 2 } };
    assert_int_equal(npy_write(&file, DTYPE_INT16, &shape, BYTES_LITERAL("abcd"), NULL), WEIR_OK);
    assert_int_equal(file.size, 128 + 4);
    assert_memory_equal(file.data, expected, sizeof expected - 1);
    for (size_t i = sizeof expected - 1; i < 127; i++) {
        assert_int_equal(file.data[i], ' ');
    }
    assert_memory_equal(file.data + 127, "\nabcd", 5);
    buffer_finish(&file);
}

static void test_bf16_becomes_float(void **state)
{
    (void)state;
    struct buffer file;
    buffer_init(&file, 1 << 16);
    const struct shape shape = { 1, { 2 } };
    assert_int_equal(npy_write(&file, DTYPE_BF16, &shape, BYTES_LITERAL("\x80\x3f\x40\xc0"), NULL),
                     WEIR_OK);
    struct npy npy;
    assert_int_equal(npy_parse((struct bytes){ file.data, file.size }, &npy, NULL), WEIR_OK);
    assert_int_equal(npy.dtype, DTYPE_FP32);
    float values[2];
    assert_int_equal(npy.data.size, sizeof values);
    memcpy(values, npy.data.data, sizeof values);
    assert_true(values[0] == 1.0f && values[1] == -3.0f);
    buffer_finish(&file);
}

static void test_writing_refuses(void **state)
{
    (void)state;
    struct buffer file;
    buffer_init(&file, 100);
    buffer_text(&file, "before");
    const struct shape shape = { 1, { 2 } };
    struct weir_err err;
    assert_int_equal(npy_write(&file, DTYPE_BYTES, &shape, BYTES_LITERAL("abcd"), &err),
                     WEIR_EUNSUPPORTED);
    assert_string_equal(err.text, "npy: found BYTES elements, expected numbers or booleans");
    assert_int_equal(npy_write(&file, DTYPE_INT16, &shape, BYTES_LITERAL("abc"), &err),
                     WEIR_EINVAL);
    assert_int_equal(npy_write(&file, DTYPE_INT16, &shape, BYTES_LITERAL("abcd"), &err),
                     WEIR_ETOOBIG);
    assert_int_equal(file.size, 6);
    buffer_finish(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_numpy_writes), cmocka_unit_test(test_refuses_other_types),
        cmocka_unit_test(test_refuses_broken_headers),  cmocka_unit_test(test_refuses_wrong_sizes),
        cmocka_unit_test(test_refuses_other_files),     cmocka_unit_test(test_writes_what_it_reads),
        cmocka_unit_test(test_writes_numpys_own_bytes), cmocka_unit_test(test_bf16_becomes_float),
        cmocka_unit_test(test_writing_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
