#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "api/infer_json.h"
#include "fake_model.h"
#include "util/mem.h"

static const struct shape row4 = { 2, { -1, 4 } };
static const struct shape open1 = { 1, { -1 } };
static const struct shape scalar = { 0 };

/* Reads `body` (its first json_size bytes are JSON; 0: all of them) against the model. */
static enum weir_status read_sized(struct fake_call *call, struct fake_model *fake,
                                   struct bytes body, size_t json_size, struct weir_err *err)
{
    fake_call_open(call, fake);
    *err = (struct weir_err){ 0 };
    return infer_json_read(&call->infer, body, json_size == 0 ? body.size : json_size, NULL, 0,
                           err);
}

static enum weir_status read_text(struct fake_call *call, struct fake_model *fake, const char *text,
                                  struct weir_err *err)
{
    return read_sized(call, fake, bytes_of(text), 0, err);
}

/* The request is refused with this status, and the sentence says all of these words. */
static void refused_as(struct fake_model *fake, const char *text, enum weir_status status,
                       const char *says, const char *says_too)
{
    struct fake_call call;
    struct weir_err err;
    const enum weir_status got = read_text(&call, fake, text, &err);
    if (got != status || strstr(err.text, says) == NULL || strstr(err.text, says_too) == NULL) {
        fail_msg("%s\n  gave %s: %s\n  expected %s with '%s' and '%s'", text, weir_status_name(got),
                 err.text, weir_status_name(status), says, says_too);
    }
    fake_call_close(&call);
}

static void refused(struct fake_model *fake, const char *text, const char *says,
                    const char *says_too)
{
    refused_as(fake, text, WEIR_EINVAL, says, says_too);
}

static void simple_model(struct fake_model *fake)
{
    fake_model_init(fake);
    fake_model_input(fake, "A", DTYPE_FP32, row4);
    fake_model_output(fake, "Y", DTYPE_FP32, row4);
    fake_model_output(fake, "Z", DTYPE_INT64, open1);
}

static void test_reads_flat_and_nested_numbers(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"inputs\":[{\"name\":\"A\",\"shape\":[2,4],\"datatype\":\"FP32\","
        "\"data\":[1,2.5,-3e2,0,5,6,7,8]}]}",
        "{\"inputs\":[{\"data\":[[1,2.5,-3e2,0],[5,6,7,8]],\"datatype\":\"FP32\",\"extra\":{},"
        "\"name\":\"A\",\"shape\":[2,4]}],\"more\":null}",
        "{\"inputs\":[{\"name\":\"A\",\"shape\":[2,4],\"datatype\":\"FP32\","
        "\"data\":[[],[[1,2.5]],[[[-3e2]]],[0,5,6],7,[8,[]]]}]}",
    };
    static const float expected[] = { 1, 2.5F, -300, 0, 5, 6, 7, 8 };
    struct fake_model fake;
    simple_model(&fake);
    for (size_t i = 0; i < 3; i++) {
        struct fake_call call;
        struct weir_err err;
        assert_int_equal(read_text(&call, &fake, texts[i], &err), WEIR_OK);
        const struct tensor *tensor = &call.infer.request.inputs[0];
        assert_int_equal(tensor->size, sizeof expected);
        assert_memory_equal(tensor->data, expected, sizeof expected);
        assert_int_equal((uintptr_t)tensor->data % MEM_ALIGN, 0);
        assert_int_equal(call.infer.output_count, 2);
        assert_true(call.infer.request.wanted[0] && call.infer.request.wanted[1]);
        fake_call_close(&call);
    }
    assert_false(fake.unleased);
}

struct range {
    enum dtype dtype;
    const char *good;   /* Two values. */
    const char *hex;    /* Their bytes. */
    const char *bad[6]; /* One value each. */
};

static const struct range ranges[] = {
    { DTYPE_BOOL, "true,false", "0100", { "1", "0", "null", "\"true\"", "{}", NULL } },
    { DTYPE_UINT8, "0,255", "00ff", { "256", "-1", "1.0", "1e1", "true", NULL } },
    { DTYPE_INT8, "-128,127", "807f", { "128", "-129", "0.5", "\"1\"", NULL, NULL } },
    { DTYPE_UINT16, "0,65535", "0000ffff", { "65536", "-1", "1.5", NULL, NULL, NULL } },
    { DTYPE_INT16, "-32768,32767", "0080ff7f", { "32768", "-32769", NULL, NULL, NULL, NULL } },
    { DTYPE_UINT32,
      "0,4294967295",
      "00000000ffffffff",
      { "4294967296", "-1", NULL, NULL, NULL, NULL } },
    { DTYPE_INT32,
      "-2147483648,2147483647",
      "00000080ffffff7f",
      { "2147483648", "-2147483649", "18446744073709551615", NULL, NULL, NULL } },
    { DTYPE_UINT64,
      "0,18446744073709551615",
      "0000000000000000ffffffffffffffff",
      { "18446744073709551616", "-1", NULL, NULL, NULL, NULL } },
    { DTYPE_INT64,
      "-9223372036854775808,9223372036854775807",
      "0000000000000080ffffffffffffff7f",
      { "9223372036854775808", "-9223372036854775809", NULL, NULL, NULL, NULL } },
    { DTYPE_FP32, "1,-0.5", "0000803f000000bf", { "1e39", "true", "\"1\"", NULL, NULL, NULL } },
    { DTYPE_FP64,
      "1,-0.5",
      "000000000000f03f000000000000e0bf",
      { "true", "\"1\"", "null", NULL, NULL, NULL } },
    { DTYPE_BYTES,
      "\"a\\u0000b\",\"\"",
      "0300000061006200000000",
      { "1", "null", "true", NULL, NULL, NULL } },
};

static void expect_hex(const struct tensor *tensor, const char *hex)
{
    assert_int_equal(tensor->size, strlen(hex) / 2);
    for (size_t i = 0; i < tensor->size; i++) {
        const char digits[3] = { hex[2 * i], hex[2 * i + 1], '\0' };
        assert_int_equal(tensor->data[i], strtoul(digits, NULL, 16));
    }
}

static void test_every_type_and_the_ends_of_its_range(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        const struct range *range = &ranges[i];
        struct fake_model fake;
        fake_model_init(&fake);
        fake_model_input(&fake, "A", range->dtype, open1);
        char text[256];
        (void)snprintf(text, sizeof text,
                       "{\"inputs\":[{\"name\":\"A\",\"shape\":[2],\"datatype\":\"%s\","
                       "\"data\":[%s]}]}",
                       dtype_text(range->dtype), range->good);
        struct fake_call call;
        struct weir_err err;
        assert_int_equal(read_text(&call, &fake, text, &err), WEIR_OK);
        expect_hex(&call.infer.request.inputs[0], range->hex);
        fake_call_close(&call);
        for (size_t k = 0; k < 6 && range->bad[k] != NULL; k++) {
            (void)snprintf(text, sizeof text,
                           "{\"inputs\":[{\"name\":\"A\",\"shape\":[1],\"datatype\":\"%s\","
                           "\"data\":[%s]}]}",
                           dtype_text(range->dtype), range->bad[k]);
            refused(&fake, text, "", "");
        }
    }
}

static void test_halves_come_as_binary_only(void **state)
{
    (void)state;
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_input(&fake, "A", DTYPE_FP16, open1);
    fake_model_output(&fake, "Y", DTYPE_BF16, open1);
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1],\"datatype\":\"FP16\",\"data\":[1]}]}",
            "receiving FP16 data via JSON is not supported", "input A");
    static const char body[] = "{\"inputs\":[{\"name\":\"A\",\"shape\":[1],\"datatype\":\"FP16\","
                               "\"parameters\":{\"binary_data_size\":2}}]}12";
    struct fake_call call;
    struct weir_err err;
    assert_int_equal(read_sized(&call, &fake, BYTES_LITERAL(body), sizeof body - 3, &err),
                     WEIR_EINVAL);
    assert_non_null(strstr(err.text, "sending BF16 data via JSON is not supported"));
    fake_call_close(&call);
}

static void test_binary_inputs_lie_where_they_came_or_are_moved(void **state)
{
    (void)state;
    static const char json[] =
        "{\"inputs\":[{\"name\":\"A\",\"shape\":[3],\"datatype\":\"UINT8\","
        "\"parameters\":{\"binary_data_size\":3}},{\"name\":\"B\",\"shape\":[1],"
        "\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":4}}]}";
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_input(&fake, "A", DTYPE_UINT8, open1);
    fake_model_input(&fake, "B", DTYPE_FP32, open1);
    const size_t json_size = sizeof json - 1;
    const float number = 1.5F;
    char *room = mem_try_aligned(json_size + 128);
    assert_non_null(room);
    char *body = room + (MEM_ALIGN - json_size % MEM_ALIGN) % MEM_ALIGN;
    memcpy(body, json, json_size);
    memcpy(body + json_size, "abc", 3);
    memcpy(body + json_size + 3, &number, sizeof number);
    struct fake_call call;
    struct weir_err err;
    assert_int_equal(
        read_sized(&call, &fake, (struct bytes){ body, json_size + 7 }, json_size, &err), WEIR_OK);
    const struct tensor *inputs = call.infer.request.inputs;
    assert_ptr_equal(inputs[0].data, body + json_size);
    assert_int_equal((uintptr_t)inputs[1].data % MEM_ALIGN, 0);
    assert_memory_equal(inputs[1].data, &number, sizeof number);
    fake_call_close(&call);

    /* One byte less, and one more. */
    assert_int_equal(
        read_sized(&call, &fake, (struct bytes){ body, json_size + 6 }, json_size, &err),
        WEIR_EINVAL);
    assert_non_null(strstr(err.text, "expecting 1 additional bytes for model 'model'"));
    fake_call_close(&call);
    assert_int_equal(
        read_sized(&call, &fake, (struct bytes){ body, json_size + 8 }, json_size, &err),
        WEIR_EINVAL);
    assert_non_null(strstr(err.text, "unexpected additional input data for model 'model'"));
    fake_call_close(&call);
    mem_free(room);
}

#define INPUT_A "{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3,4]}"

static void test_says_what_is_wrong_and_where(void **state)
{
    (void)state;
    struct fake_model fake;
    simple_model(&fake);
    refused(&fake, "", "empty body", "inputs");
    refused(&fake, "{", "failed to parse the request JSON buffer", "line 1");
    refused(&fake, "[]", "the request", "expected an object");
    refused(&fake, "{}", "'inputs'", "found nothing");
    refused(&fake, "{\"inputs\":{}}", "'inputs'", "an array");
    refused(&fake, "{\"inputs\":[]}", "missing required input(s) ['A']",
            "expected 1 inputs but got 0");
    refused(&fake, "{\"inputs\":[3]}", "inputs[0]", "expected an object");
    refused(&fake, "{\"inputs\":[" INPUT_A "],\"inputs\":[" INPUT_A "]}", "'inputs' twice", "once");
    refused(&fake, "{\"inputs\":[{\"shape\":[1]}]}", "'name' of inputs[0]", "found nothing");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"B\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[]}]}",
            "unexpected inference input 'B' for model 'model'", "'A'");
    refused(
        &fake,
        "{\"inputs\":[{\"name\":\"A\\u0000B\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[]}]}",
        "unexpected inference input", "");
    refused(&fake, "{\"inputs\":[" INPUT_A "," INPUT_A "]}", "input 'A' already exists in request",
            "");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"INT32\",\"data\":[]}]}",
            "data-type is 'INT32'", "model 'model' expects 'FP32'");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,5],\"datatype\":\"FP32\",\"data\":[]}]}",
            "unexpected shape for input 'A' for model 'model'. Expected [-1,4], got [1,5]", "");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[4],\"datatype\":\"FP32\",\"data\":[]}]}",
            "unexpected shape for input 'A'", "got [4]");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[-1,4],\"datatype\":\"FP32\",\"data\":[]}]}",
            "'shape' of inputs[0]", "the number -1");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1.0,4],\"datatype\":\"FP32\",\"data\":[]}]}",
            "'shape' of inputs[0]", "whole numbers");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[4611686018427387904,4],\"datatype\":\"FP32\","
            "\"data\":[1]}]}",
            "input 'A'", "");
}

static void test_says_which_values_and_outputs_are_wrong(void **state)
{
    (void)state;
    struct fake_model fake;
    simple_model(&fake);
    refused(
        &fake,
        "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3]}]}",
        "found 3 values, expected 4", "Shape does not match true shape of 'data' field");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3,4,"
            "5]}]}",
            "found 5 values, expected 4", "");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":4}]}",
            "'data' of inputs[0]", "an array");
    refused(&fake, "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\"}]}",
            "Input must set only one of the following fields", "neither");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3,4],"
            "\"parameters\":{\"binary_data_size\":16}}]}",
            "Input must set only one of the following fields", "both");
    refused(&fake,
            "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3,"
            "NaN]}]}",
            "failed to parse", "column");
    refused(&fake, "{\"inputs\":[" INPUT_A "]}x", "failed to parse", "");
    refused(&fake, "{\"id\":7,\"inputs\":[" INPUT_A "]}", "'id'", "the number 7");
    refused(&fake, "{\"inputs\":[" INPUT_A "],\"outputs\":[{\"name\":\"Q\"}]}",
            "unexpected inference output 'Q' for model 'model'", "'Y','Z'");
    refused(&fake, "{\"inputs\":[" INPUT_A "],\"outputs\":[{\"name\":\"Y\"},{\"name\":\"Y\"}]}",
            "output 'Y' already exists in request", "");
    refused(&fake,
            "{\"inputs\":[" INPUT_A
            "],\"outputs\":[{\"name\":\"Y\",\"parameters\":{\"binary_data\":1}}]}",
            "'binary_data' of outputs[0]", "a boolean");
    refused(&fake,
            "{\"inputs\":[" INPUT_A
            "],\"outputs\":[{\"name\":\"Y\",\"parameters\":{\"classification\":-1}}]}",
            "'classification' of outputs[0]", "");
}

static void test_parameters(void **state)
{
    (void)state;
    struct fake_model fake;
    simple_model(&fake);
    struct fake_call call;
    struct weir_err err;
    assert_int_equal(
        read_text(&call, &fake,
                  "{\"id\":\"x\\\"\",\"inputs\":[" INPUT_A "],\"parameters\":{\"priority\":3,"
                  "\"timeout\":1500,\"binary_data_output\":true,\"sequence_id\":7,"
                  "\"sequence_start\":true,\"mine\":\"a\",\"other\":1.5,\"weir_timing\":true}}",
                  &err),
        WEIR_OK);
    assert_true(bytes_equal(call.infer.id, BYTES_LITERAL("x\"")));
    assert_int_equal(call.infer.priority, 3);
    assert_int_equal(call.infer.timeout_ns, 1500 * NS_PER_US);
    assert_true(call.infer.outputs[0].binary && call.infer.outputs[1].binary);
    assert_true(call.infer.timing);
    assert_int_equal(call.infer.request.sequence_id.number, 7);
    assert_true(call.infer.request.sequence_start && !call.infer.request.sequence_end);
    fake_call_close(&call);
#define WITH(parameter) "{\"inputs\":[" INPUT_A "],\"parameters\":{" parameter "}}"
    refused(&fake, WITH("\"priority\":-1"), "parameter 'priority'", "negative");
    refused(&fake, WITH("\"priority\":\"1\""), "parameter 'priority'", "a string");
    refused(&fake, WITH("\"timeout\":1.5"), "parameter 'timeout'", "microseconds");
    refused(&fake, WITH("\"mine\":null"), "parameter 'mine' has invalid type", "null");
    refused(&fake, WITH("\"mine\":[]"), "parameter 'mine' has invalid type", "");
    refused(&fake, WITH("\"triton_x\":1"), "parameter keys starting with 'triton_' are reserved",
            "");
    refused(&fake, WITH("\"headers\":\"\""), "reserved", "");
    refused(&fake, WITH("\"sequence_id\":-5"), "parameter 'sequence_id'", "negative");
    refused(&fake, WITH("\"sequence_end\":1"), "parameter 'sequence_end'", "a number");
    refused_as(&fake,
               "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"parameters\":"
               "{\"shared_memory_region\":\"r\"}}]}",
               WEIR_EUNSUPPORTED, "shared memory", "inputs[0]");
#undef WITH
}

static void test_listed_outputs_do_not_inherit_the_default(void **state)
{
    (void)state;
    struct fake_model fake;
    simple_model(&fake);
    struct fake_call call;
    struct weir_err err;
    assert_int_equal(
        read_text(&call, &fake,
                  "{\"inputs\":[" INPUT_A "],\"parameters\":{\"binary_data_output\":true},"
                  "\"outputs\":[{\"name\":\"Z\",\"parameters\":{\"classification\":2}}]}",
                  &err),
        WEIR_OK);
    assert_int_equal(call.infer.output_count, 1);
    assert_int_equal(call.infer.outputs[0].index, 1);
    assert_int_equal(call.infer.outputs[0].classes, 2);
    assert_false(call.infer.outputs[0].binary);
    assert_false(call.infer.request.wanted[0]);
    assert_true(call.infer.request.wanted[1]);
    fake_call_close(&call);
}

static void test_strings_are_checked(void **state)
{
    (void)state;
    static const char body[] = "{\"inputs\":[{\"name\":\"S\",\"shape\":[1],\"datatype\":\"BYTES\","
                               "\"parameters\":{\"binary_data_size\":5}}]}\x02\0\0\0a";
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_input(&fake, "S", DTYPE_BYTES, open1);
    struct fake_call call;
    struct weir_err err;
    assert_int_equal(read_sized(&call, &fake, BYTES_LITERAL(body), sizeof body - 6, &err),
                     WEIR_EINVAL);
    assert_non_null(strstr(err.text, "input 'S'"));
    fake_call_close(&call);
}

static void test_scalars_and_empty_tensors(void **state)
{
    (void)state;
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_input(&fake, "A", DTYPE_INT32, scalar);
    fake_model_input(&fake, "B", DTYPE_FP32, open1);
    struct fake_call call;
    struct weir_err err;
    assert_int_equal(read_text(&call, &fake,
                               "{\"inputs\":[{\"name\":\"A\",\"shape\":[],\"datatype\":\"INT32\","
                               "\"data\":[-7]},{\"name\":\"B\",\"shape\":[0],\"datatype\":\"FP32\","
                               "\"data\":[]}]}",
                               &err),
                     WEIR_OK);
    expect_hex(&call.infer.request.inputs[0], "f9ffffff");
    assert_true(call.infer.request.inputs[1].present);
    assert_int_equal(call.infer.request.inputs[1].size, 0);
    fake_call_close(&call);
    assert_int_equal(read_text(&call, &fake,
                               "{\"inputs\":[{\"name\":\"A\",\"shape\":[],\"datatype\":\"INT32\","
                               "\"data\":[1]},{\"name\":\"B\",\"shape\":[0],\"datatype\":\"FP32\","
                               "\"parameters\":{\"binary_data_size\":0}}]}",
                               &err),
                     WEIR_OK);
    fake_call_close(&call);
}

static void read_raw(struct fake_model *fake, struct bytes body, enum weir_status expected,
                     const char *hex, const char *shape, const char *says)
{
    struct fake_call call;
    struct weir_err err = { 0 };
    fake_call_open(&call, fake);
    assert_int_equal(infer_json_read_raw(&call.infer, body, &err), expected);
    if (expected == WEIR_OK) {
        char text[SHAPE_TEXT];
        expect_hex(&call.infer.request.inputs[0], hex);
        assert_string_equal(shape_format(&call.infer.request.inputs[0].shape, text), shape);
    } else {
        assert_non_null(strstr(err.text, says));
    }
    fake_call_close(&call);
}

static void test_raw_bodies(void **state)
{
    (void)state;
    struct fake_model fake;
    fake_model_init(&fake);
    fake_model_input(&fake, "A", DTYPE_UINT8, (struct shape){ 2, { 2, -1 } });
    fake_model_output(&fake, "Y", DTYPE_FP16, open1);
    read_raw(&fake, BYTES_LITERAL("abcdef"), WEIR_OK, "616263646566", "[2,3]", NULL);
    read_raw(&fake, BYTES_LITERAL("abc"), WEIR_EINVAL, NULL, NULL, "byte size mismatch");
    fake_model_init(&fake);
    fake_model_input(&fake, "A", DTYPE_UINT8, (struct shape){ 2, { -1, -1 } });
    read_raw(&fake, BYTES_LITERAL("ab"), WEIR_EINVAL, NULL, NULL, "at most one variable dimension");
    fake.config.max_batch_size = 8;
    read_raw(&fake, BYTES_LITERAL("ab"), WEIR_OK, "6162", "[1,2]", NULL);
    fake_model_init(&fake);
    fake_model_input(&fake, "S", DTYPE_BYTES, open1);
    read_raw(&fake, BYTES_LITERAL("a\0b"), WEIR_OK, "03000000610062", "[1]", NULL);
    read_raw(&fake, BYTES_LITERAL(""), WEIR_OK, "00000000", "[1]", NULL);
    fake_model_input(&fake, "T", DTYPE_BYTES, open1);
    read_raw(&fake, BYTES_LITERAL("a"), WEIR_EINVAL, NULL, NULL, "one input");
}

#define BINARY_JSON                                                                      \
    "{\"inputs\":[{\"name\":\"A\",\"shape\":[1,4],\"datatype\":\"FP32\",\"parameters\":" \
    "{\"binary_data_size\":16}}],\"outputs\":[{\"name\":\"Z\",\"parameters\":"           \
    "{\"binary_data\":true}}]}"

static enum weir_status read_remembering(struct fake_model *fake, const char *json,
                                         const float *values, size_t size, uint64_t generation,
                                         struct infer_memory *memory)
{
    char body[512];
    const size_t json_size = strlen(json);
    memcpy(body, json, json_size);
    memcpy(body + json_size, values, size);
    struct fake_call call;
    fake_call_open(&call, fake);
    const enum weir_status status = infer_json_read(
        &call.infer, (struct bytes){ body, json_size + size }, json_size, memory, generation, NULL);
    if (status == WEIR_OK) {
        assert_memory_equal(call.infer.request.inputs[0].data, values, 16);
        assert_int_equal(call.infer.request.inputs[0].shape.rank, 2);
        assert_int_equal(call.infer.output_count, 1);
        assert_int_equal(call.infer.outputs[0].index, 1);
        assert_true(call.infer.outputs[0].binary);
        assert_false(call.infer.request.wanted[0]);
        assert_true(call.infer.request.wanted[1]);
    }
    fake_call_close(&call);
    return status;
}

static void test_the_last_json_is_remembered(void **state)
{
    (void)state;
    static const float first[] = { 1, 2, 3, 4, 5 };
    static const float second[] = { 5, 6, 7, 8 };
    struct fake_model fake;
    simple_model(&fake);
    static struct infer_memory memory;
    memory.model = NULL;
    assert_int_equal(read_remembering(&fake, BINARY_JSON, first, 16, 1, &memory), WEIR_OK);
    assert_ptr_equal(memory.model, &fake.model);
    /* Renamed inputs show whether the JSON is read again. */
    fake.inputs[0].name = "B";
    assert_int_equal(read_remembering(&fake, BINARY_JSON, second, 16, 1, &memory), WEIR_OK);
    assert_int_equal(read_remembering(&fake, BINARY_JSON, first, 20, 1, &memory), WEIR_EINVAL);
    assert_int_equal(read_remembering(&fake, BINARY_JSON, first, 12, 1, &memory), WEIR_EINVAL);
    assert_int_equal(read_remembering(&fake, BINARY_JSON " ", second, 16, 1, &memory), WEIR_EINVAL);
    fake.inputs[0].name = "A";
    assert_int_equal(read_remembering(&fake, BINARY_JSON, first, 16, 1, &memory), WEIR_OK);
    fake.inputs[0].name = "B";
    assert_int_equal(read_remembering(&fake, BINARY_JSON, second, 16, 2, &memory), WEIR_EINVAL);
    assert_null(memory.model);
}

static void test_what_is_about_one_request_is_not_remembered(void **state)
{
    (void)state;
    static const char *const heads[] = {
        "{\"id\":\"1\",",
        "{\"parameters\":{\"timeout\":1000},",
        "{\"parameters\":{\"priority\":1},",
        "{\"parameters\":{\"weir_timing\":true},",
    };
    static const float values[] = { 1, 2, 3, 4 };
    struct fake_model fake;
    simple_model(&fake);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        static struct infer_memory memory;
        char json[512];
        memory.model = NULL;
        (void)snprintf(json, sizeof json, "%s%s", heads[i], &BINARY_JSON[1]);
        assert_int_equal(read_remembering(&fake, json, values, 16, 1, &memory), WEIR_OK);
        assert_null(memory.model);
    }
}

/* Memory that runs out anywhere gives WEIR_ENOMEM, and nothing is lost; one round where no
 * allocation can be made to fail. */
static void test_memory_runs_out_anywhere(void **state)
{
    (void)state;
    char text[2048] = "{\"id\":\"a\",\"inputs\":[{\"name\":\"A\",\"shape\":[200,4],"
                      "\"datatype\":\"FP32\",\"data\":[0";
    for (int i = 1; i < 800; i++) {
        (void)strcat(text, ",0");
    }
    (void)strcat(text, "]}]}");
    struct fake_model fake;
    simple_model(&fake);
    enum weir_status status;
    uint64_t nth = 0;
    do {
        struct fake_call call;
        struct weir_err err = { 0 };
        fake_call_open(&call, &fake);
        (void)mem_fault_arm(++nth);
        status = infer_json_read(&call.infer, bytes_of(text), strlen(text), NULL, 0, &err);
        (void)mem_fault_arm(0);
        if (status != WEIR_OK) {
            assert_int_equal(status, WEIR_ENOMEM);
            assert_non_null(strstr(err.text, "memory"));
        }
        fake_call_close(&call);
        assert_int_equal(atomic_load(&fake.model.leases), 1);
    } while (status != WEIR_OK && nth < 100);
    assert_int_equal(status, WEIR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_flat_and_nested_numbers),
        cmocka_unit_test(test_every_type_and_the_ends_of_its_range),
        cmocka_unit_test(test_halves_come_as_binary_only),
        cmocka_unit_test(test_binary_inputs_lie_where_they_came_or_are_moved),
        cmocka_unit_test(test_says_what_is_wrong_and_where),
        cmocka_unit_test(test_says_which_values_and_outputs_are_wrong),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_listed_outputs_do_not_inherit_the_default),
        cmocka_unit_test(test_strings_are_checked),
        cmocka_unit_test(test_scalars_and_empty_tensors),
        cmocka_unit_test(test_raw_bodies),
        cmocka_unit_test(test_the_last_json_is_remembered),
        cmocka_unit_test(test_memory_runs_out_anywhere),
        cmocka_unit_test(test_what_is_about_one_request_is_not_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
