/*
 * Answers as messages of gRPC, byte by byte; reading requests is test_infer_proto.c's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "api/infer_proto_write.h"
#include "fake_model.h"

#define MESSAGE_BYTES 65536

static void make_model(struct fake_model *fake)
{
    fake_model_init(fake);
    fake_model_output(fake, "Y", DTYPE_FP32, (struct shape){ 2, { -1, 4 } });
    fake_model_output(fake, "Z", DTYPE_INT64, (struct shape){ 1, { -1 } });
}

/* As they lie behind each other on the wire; until the next call. */
static struct bytes join(const struct infer_proto_pieces *pieces)
{
    static char message[MESSAGE_BYTES];
    size_t size = 0;
    for (uint32_t i = 0; i < pieces->count; i++) {
        assert_true(pieces->pieces[i].size <= sizeof(message) - size);
        memcpy(message + size, pieces->pieces[i].data, pieces->pieces[i].size);
        size += pieces->pieces[i].size;
    }
    assert_int_equal(size, pieces->size);
    return (struct bytes){ message, size };
}

static void expect_message(const struct infer_proto_pieces *pieces, struct bytes expected)
{
    const struct bytes message = join(pieces);
    assert_int_equal(message.size, expected.size);
    assert_memory_equal(message.data, expected.data, expected.size);
}

static void test_writes_responses(void **state)
{
    (void)state;
    struct fake_model fake;
    struct fake_call call;
    make_model(&fake);
    fake_call_open(&call, &fake);
    struct infer_call *infer = &call.infer;
    infer->id = bytes_of("7");
    infer->outputs[0] = (struct infer_output){ .index = 1, .binary = true };
    infer->outputs[1] = (struct infer_output){ .index = 0, .binary = true };
    infer->output_count = 2;
    uint8_t zeros[8] = { 5 };
    struct tensor tensors[2] = {
        { .dtype = DTYPE_FP32, .shape = { 2, { 0, 4 } }, .data = zeros, .present = true },
        { .dtype = DTYPE_INT64, .shape = { 1, { 1 } }, .data = zeros, .size = 8, .present = true },
    };
    struct infer_proto_answer answer = { .call = infer, .tensors = tensors };
    struct infer_proto_pieces pieces;
    assert_int_equal(infer_proto_write(&answer, &call.arena, &pieces, NULL), WEIR_OK);
#define OUTPUTS                                  \
    "\x2a\x0d\x0a\x01Z\x12\x05INT64\x1a\x01\x01" \
    "\x2a\x0d\x0a\x01Y\x12\x04"                  \
    "FP32\x1a\x02\x00\x04"                       \
    "\x32\x08\x05\x00\x00\x00\x00\x00\x00\x00\x32\x00"
    expect_message(&pieces, BYTES_LITERAL("\x0a\x05model\x12\x01"
                                          "3\x1a\x01"
                                          "7" OUTPUTS));
    /* In a stream: wrapped, and with the flag. */
    answer.streamed = true;
    answer.final = true;
    infer->id = (struct bytes){ NULL, 0 };
    assert_int_equal(infer_proto_write(&answer, &call.arena, &pieces, NULL), WEIR_OK);
    expect_message(&pieces,
                   BYTES_LITERAL("\x12\x51\x0a\x05model\x12\x01"
                                 "3\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01" OUTPUTS));
    /* The empty last one. */
    answer.tensors = NULL;
    assert_int_equal(infer_proto_write(&answer, &call.arena, &pieces, NULL), WEIR_OK);
    expect_message(&pieces,
                   BYTES_LITERAL("\x12\x27\x0a\x05model\x12\x01"
                                 "3\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"));
    fake_call_close(&call);
}

static void test_large_tensors_are_lent(void **state)
{
    (void)state;
    struct fake_model fake;
    struct fake_call call;
    static uint8_t data[40000];
    make_model(&fake);
    fake_call_open(&call, &fake);
    struct infer_call *infer = &call.infer;
    infer->outputs[0] = (struct infer_output){ .index = 0, .binary = true };
    infer->outputs[1] = (struct infer_output){ .index = 1, .binary = true };
    infer->output_count = 2;
    struct tensor tensors[2] = {
        { .dtype = DTYPE_FP32,
          .shape = { 2, { 2500, 4 } },
          .data = data,
          .size = sizeof data,
          .present = true },
        { .dtype = DTYPE_INT64, .shape = { 1, { 1 } }, .data = data, .size = 8, .present = true },
    };
    struct infer_timing timing = { { NS_PER_MS, 2 * NS_PER_MS, 3 * NS_PER_MS, 4 * NS_PER_MS } };
    struct infer_proto_answer answer = { .call = infer, .tensors = tensors, .timing = &timing };
    struct infer_proto_pieces pieces;
    assert_int_equal(infer_proto_write(&answer, &call.arena, &pieces, NULL), WEIR_OK);
    assert_int_equal(pieces.count, 3);
    assert_ptr_equal(pieces.pieces[1].data, data);
    const struct bytes message = join(&pieces);
    assert_non_null(memmem(message.data, message.size,
                           "\x22\x15\x0a\x08queue_ms\x12\x09\x21\x00\x00\x00\x00\x00\x00\xf0\x3f",
                           23));
    fake_call_close(&call);
}

static void test_writes_errors_of_a_stream(void **state)
{
    (void)state;
    struct fake_model fake;
    struct fake_call call;
    struct bytes out;
    make_model(&fake);
    fake_call_open(&call, &fake);
    assert_int_equal(infer_proto_write_error(bytes_of("7"), "no", NULL, &call.arena, &out, NULL),
                     WEIR_OK);
    assert_true(bytes_equal(out, BYTES_LITERAL("\x0a\x02no\x12\x03\x1a\x01"
                                               "7")));
    assert_int_equal(
        infer_proto_write_error(bytes_of("7"), "no", &call.infer, &call.arena, &out, NULL),
        WEIR_OK);
    assert_true(
        bytes_equal(out, BYTES_LITERAL("\x0a\x02no\x12\x2a\x0a\x05model\x12\x01"
                                       "3\x1a\x01"
                                       "7\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01")));
    fake_call_close(&call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes_responses),
        cmocka_unit_test(test_large_tensors_are_lent),
        cmocka_unit_test(test_writes_errors_of_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
