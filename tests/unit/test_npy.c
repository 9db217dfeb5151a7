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
    struct weir_tensor npy = { 0 };
    struct weir_err err = { 0 };
    assert_int_equal(npy_parse((struct bytes){ file.data, file.size }, &npy, &err), WEIR_EINVAL);
    assert_null(npy.data);
    if (strstr(err.text, sentence) == NULL) {
        fail_msg("found '%s', expected '%s'", err.text, sentence);
    }
    buffer_finish(&file);
}

static void expect(char format, const char *header, enum weir_dtype dtype, uint32_t rank,
                   const int64_t *dims, size_t size)
{
    static const char data[64] = "elements";
    struct buffer file = make(format, header, data, size);
    struct weir_tensor npy = { 0 };
    struct weir_err err = { 0 };
    const enum weir_status status = npy_parse((struct bytes){ file.data, file.size }, &npy, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    assert_int_equal(npy.dtype, dtype);
    assert_int_equal(npy.rank, rank);
    for (uint32_t i = 0; i < rank; i++) {
        assert_int_equal(npy.dims[i], dims[i]);
    }
    assert_null(npy.name);
    assert_int_equal(npy.size, size);
    assert_memory_equal(npy.data, data, size);
    buffer_finish(&file);
}

static void test_reads_what_numpy_writes(void **state)
{
    (void)state;
    expect('1', "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }       \n", WEIR_FP32,
           2, (const int64_t[]){ 3, 4 }, 48);
    expect('2', "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }\n", WEIR_UINT8, 1,
           (const int64_t[]){ 5 }, 5);
    expect('1', "{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n", WEIR_INT64, 0, NULL,
           8);
    expect('1', "{'descr': '|b1', 'fortran_order': False, 'shape': (0, 7), }\n", WEIR_BOOL, 2,
           (const int64_t[]){ 0, 7 }, 0);
    expect('1', "{\"shape\":(1,1,2),\"fortran_order\":False,\"descr\":\"<f2\"}", WEIR_FP16, 3,
           (const int64_t[]){ 1, 1, 2 }, 4);
}

static void test_refuses_other_types(void **state)
{
    (void)state;
    refuse("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", 4,
           "npy header: found type '>f4', expected a little-endian");
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
    refuse(header, 15, "found 15 bytes of elements, expected 16 for the type '<f4' and the shape");
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
        struct weir_tensor npy;
        struct weir_err err = { 0 };
        assert_int_equal(npy_parse(files[i].file, &npy, &err), WEIR_EINVAL);
        if (strstr(err.text, files[i].sentence) == NULL) {
            fail_msg("found '%s', expected '%s'", err.text, files[i].sentence);
        }
    }
}

/* Writes a tensor of two elements. */
static enum weir_status write_pair(struct buffer *file, enum weir_dtype dtype, const char *data,
                                   struct weir_err *err)
{
    const struct weir_tensor tensor = {
        .dtype = dtype,
        .rank = 1,
        .dims = { 2 },
        .data = data,
        .size = strlen(data),
    };
    return npy_write(file, &tensor, err);
}

static void test_writes_what_it_reads(void **state)
{
    (void)state;
    static const char data[24] = "0123456789abcdefghijklm";
    static const size_t bytes[] = {
        [WEIR_BOOL] = 1,   [WEIR_UINT8] = 1, [WEIR_UINT16] = 2, [WEIR_UINT32] = 4,
        [WEIR_UINT64] = 8, [WEIR_INT8] = 1,  [WEIR_INT16] = 2,  [WEIR_INT32] = 4,
        [WEIR_INT64] = 8,  [WEIR_FP16] = 2,  [WEIR_FP32] = 4,   [WEIR_FP64] = 8,
    };
    for (size_t dtype = 0; dtype < sizeof bytes / sizeof bytes[0]; dtype++) {
        for (uint32_t rank = 0; rank <= WEIR_RANK_MAX; rank++) {
            struct weir_tensor tensor = { .dtype = (enum weir_dtype)dtype, .rank = rank };
            for (uint32_t i = 0; i < rank; i++) {
                tensor.dims[i] = i == rank / 2 ? 3 : 1;
            }
            tensor.data = data;
            tensor.size = (rank == 0 ? 1 : 3) * bytes[dtype];
            struct buffer file;
            buffer_init(&file, 1 << 16);
            assert_int_equal(npy_write(&file, &tensor, NULL), WEIR_OK);
            assert_int_equal((file.size - tensor.size) % 64, 0);
            struct weir_tensor npy;
            assert_int_equal(npy_parse((struct bytes){ file.data, file.size }, &npy, NULL),
                             WEIR_OK);
            assert_int_equal(npy.dtype, dtype);
            assert_int_equal(npy.rank, rank);
            assert_memory_equal(npy.dims, tensor.dims, sizeof npy.dims);
            assert_int_equal(npy.size, tensor.size);
            assert_memory_equal(npy.data, data, npy.size);
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
    assert_int_equal(write_pair(&file, WEIR_INT16, "abcd", NULL), WEIR_OK);
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
    assert_int_equal(write_pair(&file, WEIR_BF16, "\x80\x3f\x40\xc0", NULL), WEIR_OK);
    struct weir_tensor npy;
    assert_int_equal(npy_parse((struct bytes){ file.data, file.size }, &npy, NULL), WEIR_OK);
    assert_int_equal(npy.dtype, WEIR_FP32);
    float values[2];
    assert_int_equal(npy.size, sizeof values);
    memcpy(values, npy.data, sizeof values);
    assert_true(values[0] == 1.0f && values[1] == -3.0f);
    buffer_finish(&file);
}

static void test_writing_refuses(void **state)
{
    (void)state;
    struct buffer file;
    buffer_init(&file, 100);
    buffer_text(&file, "before");
    struct weir_err err;
    assert_int_equal(write_pair(&file, WEIR_BYTES, "abcd", &err), WEIR_EUNSUPPORTED);
    assert_string_equal(err.text, "npy: found strings (BYTES), expected numbers or booleans");
    assert_int_equal(write_pair(&file, WEIR_INT16, "abc", &err), WEIR_EINVAL);
    assert_int_equal(write_pair(&file, WEIR_INT16, "abcd", &err), WEIR_ETOOBIG);
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
