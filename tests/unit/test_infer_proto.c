#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "api/infer_proto.h"
#include "fake_model.h"
#include "net/body.h"
#include "util/mem.h"

#define MESSAGE_BYTES 65536

static const struct shape row4 = { 2, { -1, 4 } };
static const struct shape open1 = { 1, { -1 } };

/* A message being made; parts are made in messages of their own. */
struct message {
    uint8_t bytes[MESSAGE_BYTES];
    struct protowire_out out;
};

static struct message *begin(struct message *m)
{
    m->out = (struct protowire_out){ .at = m->bytes };
    return m;
}

static struct bytes whole(const struct message *m)
{
    assert_true(m->out.size <= MESSAGE_BYTES);
    return (struct bytes){ (const char *)m->bytes, m->out.size };
}

static void put(struct message *m, uint32_t field, struct bytes bytes)
{
    protowire_put_bytes(&m->out, field, bytes);
}

static void put_text(struct message *m, uint32_t field, const char *text)
{
    put(m, field, bytes_of(text));
}

/* An input; `shape` and `contents` are encoded already, data NULL: none. */
static void put_input(struct message *m, const char *name, const char *datatype, struct bytes shape,
                      struct bytes contents)
{
    static struct message input;
    begin(&input);
    put_text(&input, 1, name);
    put_text(&input, 2, datatype);
    if (shape.data != NULL) {
        put(&input, 3, shape);
    }
    if (contents.data != NULL) {
        put(&input, 5, contents);
    }
    put(m, 5, whole(&input));
}

static void put_entry(struct message *m, uint32_t field, const char *key, struct bytes value)
{
    static struct message entry;
    begin(&entry);
    put_text(&entry, 1, key);
    put(&entry, 2, value);
    put(m, field, whole(&entry));
}

#define NOTHING ((struct bytes){ NULL, 0 })
#define WIRE(text) BYTES_LITERAL(text)

/* The same for tables. */
#define IN_TABLE(text)           \
    {                            \
        (text), sizeof(text) - 1 \
    }

/* One decoded request. */
struct decoded {
    struct fake_call call;
    struct infer_proto proto;
    struct limits limits;
    struct weir_err err;
};

static bool placing; /* What belongs to a tensor is read to its place. */

/* Reads the message in pieces, each in memory of its own. */
static enum weir_status decode(struct decoded *d, struct fake_model *fake, struct bytes message,
                               size_t piece)
{
    memset(d, 0, sizeof *d);
    limits_init(&d->limits);
    fake_call_open(&d->call, fake);
    infer_proto_begin(&d->proto, &d->call.arena, d->call.blocks, &d->limits, message.size);
    enum weir_status status = WEIR_OK;
    for (size_t at = 0, size; at < message.size && status == WEIR_OK; at += size) {
        size = message.size - at < piece ? message.size - at : piece;
        char *copy = malloc(size);
        char *to = copy;
        size_t room;
        if (placing && infer_proto_place(&d->proto, &to, &room)) {
            size = size < room ? size : room;
        }
        memcpy(to, message.data + at, size);
        status = infer_proto_read(&d->proto, (struct bytes){ to, size }, &d->err);
        free(copy);
    }
    if (status == WEIR_OK) {
        status = infer_proto_end(&d->proto, &d->err);
    }
    return status == WEIR_OK ? infer_proto_bind(&d->proto, &d->call.infer, &d->err) : status;
}

static void close_decoded(struct decoded *d)
{
    infer_proto_close(&d->proto);
    infer_proto_close(&d->proto);
    fake_call_close(&d->call); /* Fails where a block did not come back. */
    assert_int_equal(body_bytes_of_all(), 0);
}

static void refused_as(struct fake_model *fake, const struct message *m, enum weir_status status,
                       const char *says)
{
    struct decoded d;
    const size_t pieces[] = { 1, 7, MESSAGE_BYTES };
    for (size_t i = 0; i < 3; i++) {
        const enum weir_status got = decode(&d, fake, whole(m), pieces[i]);
        if (got != status || strstr(d.err.text, says) == NULL) {
            fail_msg("%s '%s', expected %s '%s'", weir_status_name(got), d.err.text,
                     weir_status_name(status), says);
        }
        close_decoded(&d);
    }
}

static void refused(struct fake_model *fake, const struct message *m, const char *says)
{
    refused_as(fake, m, WEIR_EINVAL, says);
}

static void simple_model(struct fake_model *fake)
{
    fake_model_init(fake);
    fake_model_input(fake, "A", DTYPE_FP32, row4);
    fake_model_input(fake, "S", DTYPE_BYTES, open1);
    fake->inputs[1].optional = true;
    fake_model_output(fake, "Y", DTYPE_FP32, row4);
    fake_model_output(fake, "Z", DTYPE_INT64, open1);
}

static const float row[] = { 1, 2.5F, -300, 0.125F };

static struct bytes row_bytes(void)
{
    return (struct bytes){ (const char *)row, sizeof row };
}

/* Everything that a request can have, in the order of the fields. */
static struct message *full_request(struct message *m)
{
    begin(m);
    put_text(m, 1, "model");
    put_text(m, 2, "3");
    put_text(m, 3, "the id");
    put_entry(m, 4, "priority", WIRE("\x28\x07"));
    put_entry(m, 4, "custom", WIRE("\x1a\x02hi"));
    put_entry(m, 4, "fraction", WIRE("\x21\x00\x00\x00\x00\x00\x00\xf0\x3f"));
    put_entry(m, 4, "triton_enable_empty_final_response", WIRE("\x08\x01"));
    put_text(m, 1000, "from the future");
    put_input(m, "A", "FP32", WIRE("\x01\x04"), NOTHING);
    put_input(m, "S", "BYTES", WIRE("\x02"), NOTHING);
    put_text(m, 6, "\x0a\x01Z");
    put(m, 6,
        WIRE("\x0a\x01Y\x12\x14\x0a\x0e"
             "classification\x12\x02\x10\x02"));
    put(m, 7, row_bytes());
    put(m, 7, WIRE("\x02\x00\x00\x00hi\x00\x00\x00\x00"));
    return m;
}

static void check_full(const struct decoded *d)
{
    const struct infer_call *call = &d->call.infer;
    assert_true(bytes_equal(d->proto.model_name, bytes_of("model")));
    assert_true(bytes_equal(d->proto.model_version, bytes_of("3")));
    assert_true(bytes_equal(call->id, bytes_of("the id")));
    assert_true(d->proto.empty_final);
    assert_int_equal(call->priority, 7);
    const struct tensor *a = &call->request.inputs[0];
    assert_int_equal(a->size, sizeof row);
    assert_memory_equal(a->data, row, sizeof row);
    assert_int_equal((uintptr_t)a->data % MEM_ALIGN, 0);
    assert_int_equal(a->shape.dims[1], 4);
    const struct tensor *s = &call->request.inputs[1];
    assert_memory_equal(s->data, "\x02\x00\x00\x00hi\x00\x00\x00\x00", 10);
    assert_int_equal(call->output_count, 2);
    assert_int_equal(call->outputs[0].index, 1);
    assert_true(call->outputs[0].binary && call->outputs[1].binary);
    assert_int_equal(call->outputs[1].classes, 2);
    assert_true(call->request.wanted[0] && call->request.wanted[1]);
}

static void test_reads_a_request_wherever_it_is_cut(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    static struct decoded d;
    simple_model(&fake);
    full_request(&m);
    for (size_t piece = 1; piece <= 2 * m.out.size; piece++) {
        placing = piece > m.out.size;
        if (decode(&d, &fake, whole(&m), (piece - 1) % m.out.size + 1) != WEIR_OK) {
            fail_msg("in pieces of %zu: %s", piece, d.err.text);
        }
        check_full(&d);
        close_decoded(&d);
    }
    placing = false;
    /* And one cut at every byte. */
    for (size_t cut = 1; cut < m.out.size; cut++) {
        memset(&d, 0, sizeof d);
        limits_init(&d.limits);
        fake_call_open(&d.call, &fake);
        infer_proto_begin(&d.proto, &d.call.arena, d.call.blocks, &d.limits, m.out.size);
        const char *data = (const char *)m.bytes;
        assert_int_equal(infer_proto_read(&d.proto, (struct bytes){ data, cut }, NULL), WEIR_OK);
        assert_int_equal(infer_proto_end(&d.proto, &d.err), WEIR_EINVAL);
        assert_non_null(strstr(d.err.text, "ends too early"));
        assert_int_equal(body_bytes_of_all(), cut);
        assert_int_equal(
            infer_proto_read(&d.proto, (struct bytes){ data + cut, m.out.size - cut }, NULL),
            WEIR_OK);
        assert_int_equal(infer_proto_end(&d.proto, &d.err), WEIR_OK);
        assert_int_equal(infer_proto_bind(&d.proto, &d.call.infer, &d.err), WEIR_OK);
        check_full(&d);
        close_decoded(&d);
    }
    assert_false(fake.unleased);
}

static void test_fields_may_come_in_any_order(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    static struct decoded d;
    simple_model(&fake);
    begin(&m);
    put(&m, 7, row_bytes());
    /* Contents of an input before its type and shape; the later of two names counts. */
    put_text(&m, 3, "old");
    put(&m, 5,
        WIRE("\x18\x01\x18\x04\x12\x04"
             "FP32\x0a\x01"
             "B\x0a\x01"
             "A"));
    put_text(&m, 3, "new");
    put_text(&m, 1, "model");
    assert_int_equal(decode(&d, &fake, whole(&m), 3), WEIR_OK);
    assert_memory_equal(d.call.infer.request.inputs[0].data, row, sizeof row);
    assert_true(bytes_equal(d.call.infer.id, bytes_of("new")));
    close_decoded(&d);
}

/* Two values of each type, packed and one by one, and a value of a field that is not the type's. */
static const struct {
    enum dtype dtype;
    struct bytes packed;
    struct bytes single;
    struct bytes expected;
    struct bytes wrong;
    const char *wrong_type;
} typed[] = {
    { DTYPE_BOOL, IN_TABLE("\x0a\x03\x00\x80\x01"), IN_TABLE("\x08\x00\x08\x05"),
      IN_TABLE("\x00\x01"), IN_TABLE("\x10\x01"), "INT32" },
    { DTYPE_INT8, IN_TABLE("\x12\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x7f"),
      IN_TABLE("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x7f"), IN_TABLE("\xff\x7f"),
      IN_TABLE("\x18\x01"), "INT64" },
    { DTYPE_INT16, IN_TABLE("\x12\x03\x80\x02\x01"), IN_TABLE("\x10\x80\x02\x10\x01"),
      IN_TABLE("\x00\x01\x01\x00"), IN_TABLE("\x20\x01"), "UINT32" },
    { DTYPE_INT32, IN_TABLE("\x12\x0b\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"),
      IN_TABLE("\x10\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x02"),
      IN_TABLE("\xfe\xff\xff\xff\x02\x00\x00\x00"), IN_TABLE("\x35\x01\x00\x00\x00"), "FP32" },
    { DTYPE_INT64, IN_TABLE("\x1a\x0b\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"),
      IN_TABLE("\x18\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x18\x02"),
      IN_TABLE("\xfe\xff\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x00\x00\x00"),
      IN_TABLE("\x28\x01"), "UINT64" },
    { DTYPE_UINT8, IN_TABLE("\x22\x03\xff\x01\x02"), IN_TABLE("\x20\xff\x01\x20\x02"),
      IN_TABLE("\xff\x02"), IN_TABLE("\x10\x01"), "INT32" },
    { DTYPE_UINT16, IN_TABLE("\x22\x03\x80\x02\x02"), IN_TABLE("\x20\x80\x02\x20\x02"),
      IN_TABLE("\x00\x01\x02\x00"), IN_TABLE("\x08\x01"), "BOOL" },
    { DTYPE_UINT32, IN_TABLE("\x22\x06\xff\xff\xff\xff\x0f\x02"),
      IN_TABLE("\x20\xff\xff\xff\xff\x0f\x20\x02"), IN_TABLE("\xff\xff\xff\xff\x02\x00\x00\x00"),
      IN_TABLE("\x42\x01x"), "BYTES" },
    { DTYPE_UINT64, IN_TABLE("\x2a\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"),
      IN_TABLE("\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x28\x02"),
      IN_TABLE("\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x00\x00\x00"),
      IN_TABLE("\x20\x01"), "UINT32" },
    { DTYPE_FP32, IN_TABLE("\x32\x08\x00\x00\x80\x3f\x00\x00\x00\xbf"),
      IN_TABLE("\x35\x00\x00\x80\x3f\x35\x00\x00\x00\xbf"),
      IN_TABLE("\x00\x00\x80\x3f\x00\x00\x00\xbf"),
      IN_TABLE("\x39\x00\x00\x00\x00\x00\x00\xf0\x3f"), "FP64" },
    { DTYPE_FP64,
      IN_TABLE("\x3a\x10\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\xe0\xbf"),
      IN_TABLE("\x39\x00\x00\x00\x00\x00\x00\xf0\x3f\x39\x00\x00\x00\x00\x00\x00\xe0\xbf"),
      IN_TABLE("\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\xe0\xbf"),
      IN_TABLE("\x35\x00\x00\x80\x3f"), "FP32" },
    { DTYPE_BYTES, IN_TABLE("\x42\x02hi\x42\x00"), IN_TABLE("\x42\x02hi\x42\x00"),
      IN_TABLE("\x02\x00\x00\x00hi\x00\x00\x00\x00"), IN_TABLE("\x08\x01"), "BOOL" },
    { DTYPE_FP16, { NULL, 0 }, { NULL, 0 }, { NULL, 0 }, IN_TABLE("\x35\x00\x00\x80\x3f"), "FP32" },
    { DTYPE_BF16, { NULL, 0 }, { NULL, 0 }, { NULL, 0 }, IN_TABLE("\x35\x00\x00\x80\x3f"), "FP32" },
};

static void expect_values(struct fake_model *fake, const struct message *m, struct bytes expected)
{
    static struct decoded d;
    for (size_t piece = 1; piece <= m->out.size; piece++) {
        if (decode(&d, fake, whole(m), piece) != WEIR_OK) {
            fail_msg("%s in pieces of %zu: %s", dtype_text(fake->inputs[0].dtype), piece,
                     d.err.text);
        }
        const struct tensor *tensor = &d.call.infer.request.inputs[0];
        assert_int_equal(tensor->size, expected.size);
        assert_memory_equal(tensor->data, expected.data, expected.size);
        assert_int_equal((uintptr_t)tensor->data % MEM_ALIGN, 0);
        close_decoded(&d);
    }
}

static void test_typed_values_of_every_type(void **state)
{
    (void)state;
    static struct message m;
    for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++) {
        struct fake_model fake;
        fake_model_init(&fake);
        fake_model_input(&fake, "A", typed[i].dtype, open1);
        fake_model_output(&fake, "Y", DTYPE_FP32, open1);
        const char *datatype = dtype_text(typed[i].dtype);
        const struct bytes forms[] = { typed[i].packed, typed[i].single };
        for (int k = 0; k < 2 && forms[k].data != NULL; k++) {
            begin(&m);
            put_input(&m, "A", datatype, WIRE("\x02"), forms[k]);
            expect_values(&fake, &m, typed[i].expected);
            /* Values first, then the type and the shape. */
            static struct message input;
            begin(&input);
            put(&input, 5, forms[k]);
            put(&input, 3, WIRE("\x02"));
            put_text(&input, 2, datatype);
            put_text(&input, 1, "A");
            put(begin(&m), 5, whole(&input));
            expect_values(&fake, &m, typed[i].expected);
        }
        begin(&m);
        put_input(&m, "A", datatype, WIRE("\x01"), typed[i].wrong);
        char says[160];
        (void)snprintf(says, sizeof says,
                       "unexpected explicit tensor data for input tensor 'A' for model 'model' of "
                       "type '%s', expected datatype '%s'",
                       typed[i].wrong_type, datatype);
        refused(&fake, &m, says);
    }
}

/* More values than the arena takes, in both orders of type and values. */
static void test_many_typed_values(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    static struct message contents;
    static struct message input;
    static struct decoded d;
    fake_model_init(&fake);
    fake_model_input(&fake, "A", DTYPE_INT16, open1);
    fake_model_output(&fake, "Y", DTYPE_FP32, open1);
    static char packed[12000];
    for (size_t i = 0; i < sizeof packed; i++) {
        packed[i] = (char)(i % 100);
    }
    for (int order = 0; order < 2; order++) {
        begin(&contents);
        begin(&input);
        put(&contents, 2, (struct bytes){ packed, sizeof packed });
        put_text(&input, 1, "A");
        if (order == 0) {
            put_text(&input, 2, "INT16");
            put(&input, 3, WIRE("\xe0\x5d"));
        }
        put(&input, 5, whole(&contents));
        if (order == 1) {
            put(&input, 3, WIRE("\xe0\x5d"));
            put_text(&input, 2, "INT16");
        }
        put(begin(&m), 5, whole(&input));
        assert_int_equal(decode(&d, &fake, whole(&m), 997), WEIR_OK);
        const struct tensor *tensor = &d.call.infer.request.inputs[0];
        assert_int_equal(tensor->size, 2 * sizeof packed);
        for (size_t i = 0; i < sizeof packed; i++) {
            assert_int_equal(tensor->data[2 * i], i % 100);
            assert_int_equal(tensor->data[2 * i + 1], 0);
        }
        /* What the values became counts, not only what came. */
        assert_true(body_bytes_of_all() >= 2 * sizeof packed);
        close_decoded(&d);
    }
}

static void test_what_inputs_get_refused_for(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    simple_model(&fake);
    put_input(begin(&m), "A", "FP32", WIRE("\x01\x04"), NOTHING);
    refused(&fake, &m, "unable to find data for input tensor 'A' for model 'model' in request.");
    put_input(begin(&m), "A", "FP32", WIRE("\x01\x04"), WIRE("\x35\x00\x00\x80\x3f"));
    refused(&fake, &m, "input byte size mismatch for input 'A' for model 'model'. Expected 16");
    put(&m, 7, row_bytes());
    refused(&fake, &m,
            "contents field must not be specified when using raw_input_contents for 'A' for model "
            "'model'");
    put_input(begin(&m), "A", "FP32", WIRE("\x01\x04"), WIRE("\x35\x00\x00\x80\x3f\x08\x01"));
    refused(&fake, &m,
            "unexpected explicit tensor data for input tensor 'A' for model 'model', binary data "
            "was already supplied.");
    put_input(begin(&m), "A", "INT32", WIRE("\x01\x04"), NOTHING);
    refused(&fake, &m, "data-type is 'INT32'");
    put_input(begin(&m), "B", "FP32", WIRE("\x01\x04"), NOTHING);
    refused(&fake, &m, "unexpected inference input 'B'");
    put_input(begin(&m), "A", "FP32", WIRE("\x01\x05"), NOTHING);
    refused(&fake, &m, "unexpected shape for input 'A'");
    put_input(begin(&m), "A", "FP32", WIRE("\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"),
              NOTHING);
    refused(&fake, &m, "more than 12 dimensions");
    put_input(begin(&m), "A", "FP32", WIRE("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x04"),
              NOTHING);
    put(&m, 7, row_bytes());
    refused(&fake, &m, "");
    begin(&m);
    refused(&fake, &m, "missing required input(s)");
    put_input(begin(&m), "A", "FP32", WIRE("\x01\x04"), NOTHING);
    put_input(&m, "S", "BYTES", WIRE("\x01"), NOTHING);
    put(&m, 7, row_bytes());
    put(&m, 7, WIRE("\x03\x00\x00\x00hi"));
    refused(&fake, &m, "element 0 of BYTES data says 3 bytes, 2 are left");
    put(begin(&m), 5,
        WIRE("\x0a\x01"
             "A\x22\x1c\x0a\x14shared_memory_region\x12\x04\x1a\x02r1"));
    refused_as(&fake, &m, WEIR_EUNSUPPORTED, "shared memory is not supported");
}

static void test_what_outputs_get_refused_for(void **state)
{
    (void)state;
    static const struct {
        struct bytes output;
        enum weir_status status;
        const char *says;
    } rows[] = {
        { IN_TABLE("\x0a\x01Q"), WEIR_EINVAL, "unexpected inference output 'Q'" },
        { IN_TABLE("\x0a\x01Y\x12\x14\x0a\x0e"
                   "classification\x12\x02\x10\x00"),
          WEIR_EINVAL, "'classification'" },
        { IN_TABLE("\x0a\x01Y\x12\x12\x0a\x0e"
                   "classification\x12\x00"),
          WEIR_EINVAL, "'classification'" },
        { IN_TABLE("\x0a\x01Y\x12\x16\x0a\x0e"
                   "classification\x12\x04\x1a\x02"
                   "10"),
          WEIR_EINVAL, "'classification'" },
        { IN_TABLE("\x12\x1c\x0a\x14shared_memory_region\x12\x04\x1a\x02r1\x0a\x01Y"),
          WEIR_EUNSUPPORTED, "shared memory is not supported" },
    };
    struct fake_model fake;
    static struct message m;
    simple_model(&fake);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        put_input(begin(&m), "A", "FP32", WIRE("\x01\x04"), NOTHING);
        put(&m, 6, rows[i].output);
        put(&m, 7, row_bytes());
        refused_as(&fake, &m, rows[i].status, rows[i].says);
    }
    put_input(begin(&m), "A", "FP32", WIRE("\x01\x04"), NOTHING);
    put(&m, 6,
        WIRE("\x0a\x01Y\x12\x14\x0a\x0e"
             "classification\x12\x02\x10\x03"));
    put(&m, 7, row_bytes());
    static struct decoded d;
    assert_int_equal(decode(&d, &fake, whole(&m), 5), WEIR_OK);
    assert_int_equal(d.call.infer.outputs[0].classes, 3);
    close_decoded(&d);
}

static void test_what_parameters_get_refused_for(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    simple_model(&fake);
    put_entry(begin(&m), 4, "priority", WIRE("\x08\x01"));
    refused(&fake, &m, "parameter 'priority': found a boolean");
    put_entry(begin(&m), 4, "priority", WIRE("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
    refused(&fake, &m, "found a negative number");
    put_entry(begin(&m), 4, "timeout", WIRE("\x1a\x01x"));
    refused(&fake, &m, "parameter 'timeout': found a string");
    put_entry(begin(&m), 4, "any", WIRE(""));
    refused(&fake, &m, "parameter 'any' has no value");
    put_entry(begin(&m), 4, "triton_secret", WIRE("\x08\x01"));
    refused(&fake, &m, "reserved for Triton usage");
    put_entry(begin(&m), 4, "triton_enable_empty_final_response", WIRE("\x10\x01"));
    refused(&fake, &m, "expected bool_param");
}

static void test_refuses_what_is_no_request(void **state)
{
    (void)state;
    static const struct {
        struct bytes message;
        const char *says;
    } rows[] = {
        { IN_TABLE("\x0a\x02m"), "beyond the message" },
        { IN_TABLE("\x0a\x01\xff"), "not UTF-8" },
        { IN_TABLE("\x2a\x05\x32\x03\x00\x00\x80"), "" },
        { IN_TABLE("\x2a\x07\x2a\x05\x32\x03\x00\x00\x80"), "packed numbers end within a number" },
        { IN_TABLE("\x2a\x05\x2a\x03\x12\x01\x80"), "packed numbers end within a number" },
        { IN_TABLE("\x2a\x03\x1a\x01\x80"), "a shape ends within a number" },
        { IN_TABLE("\x2a\x0f\x2a\x0d\x12\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
          "more than 64 bits" },
        { IN_TABLE("\x3a\x7f"), "beyond the message" },
        { IN_TABLE("\x08\x01\x0b"), "ends within a group" },
    };
    struct fake_model fake;
    static struct message m;
    simple_model(&fake);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(&m);
        protowire_put_raw(&m.out, rows[i].message.data, rows[i].message.size);
        refused(&fake, &m, rows[i].says);
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    static struct decoded d;
    simple_model(&fake);
    const uint32_t fields[] = { 4, 5, 6, 7 };
    for (size_t k = 0; k < 4; k++) {
        begin(&m);
        for (int i = 0; i <= INFER_PROTO_TENSORS_MAX; i++) {
            put(&m, fields[k], WIRE(""));
        }
        refused_as(&fake, &m, WEIR_ETOOBIG, "found more than 1024");
    }
    begin(&m);
    protowire_put_begin(&m.out, 3, INFER_PROTO_TEXT_MAX + 1);
    memset(&d, 0, sizeof d);
    limits_init(&d.limits);
    fake_call_open(&d.call, &fake);
    infer_proto_begin(&d.proto, &d.call.arena, d.call.blocks, &d.limits, 1 << 20);
    assert_int_equal(infer_proto_read(&d.proto, whole(&m), &d.err), WEIR_ETOOBIG);
    close_decoded(&d);
    /* What is kept counts like any body, and one above the limit is refused. */
    full_request(&m);
    memset(&d, 0, sizeof d);
    limits_init(&d.limits);
    d.limits.bodies_bytes_max = m.out.size - 1;
    fake_call_open(&d.call, &fake);
    infer_proto_begin(&d.proto, &d.call.arena, d.call.blocks, &d.limits, m.out.size);
    assert_int_equal(infer_proto_read(&d.proto, whole(&m), &d.err), WEIR_EFULL);
    close_decoded(&d);
}

/* Raw tensors of the pool and of the arena, texts and parameters: whichever allocation fails, the
 * message is refused for that, and nothing is left.  (Only where built with alloc_fault.) */
static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    static struct decoded d;
    static char values[20000];
    fake_model_init(&fake);
    fake_model_input(&fake, "A", DTYPE_UINT8, open1);
    fake_model_input(&fake, "B", DTYPE_UINT8, open1);
    fake_model_output(&fake, "Y", DTYPE_FP32, open1);
    begin(&m);
    put_text(&m, 1, "model");
    put_entry(&m, 4, "custom", WIRE("\x1a\x02hi"));
    put_input(&m, "A", "UINT8", WIRE("\xa0\x9c\x01"), NOTHING);
    put_input(&m, "B", "UINT8", WIRE("\x02"), NOTHING);
    put(&m, 7, (struct bytes){ values, sizeof values });
    put(&m, 7, WIRE("ab"));
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t n = 1; status != WEIR_OK; n++) {
        memset(&d, 0, sizeof d);
        limits_init(&d.limits);
        fake_call_open(&d.call, &fake);
        infer_proto_begin(&d.proto, &d.call.arena, d.call.blocks, &d.limits, m.out.size);
        mem_fault_arm(n);
        status = infer_proto_read(&d.proto, whole(&m), &d.err);
        if (status == WEIR_OK) {
            status = infer_proto_bind(&d.proto, &d.call.infer, &d.err);
        }
        mem_fault_arm(0);
        if (status != WEIR_OK) {
            assert_int_equal(status, WEIR_ENOMEM);
            assert_non_null(strstr(d.err.text, "out of memory for"));
        }
        close_decoded(&d);
    }
}

/* A raw tensor of a declared size that never comes costs what came. */
static void test_what_is_only_promised_does_not_count(void **state)
{
    (void)state;
    struct fake_model fake;
    static struct message m;
    static struct decoded d;
    simple_model(&fake);
    begin(&m);
    protowire_put_begin(&m.out, 7, 1 << 30);
    memset(&d, 0, sizeof d);
    limits_init(&d.limits);
    fake_call_open(&d.call, &fake);
    infer_proto_begin(&d.proto, &d.call.arena, d.call.blocks, &d.limits, (1 << 30) + 100);
    assert_int_equal(infer_proto_read(&d.proto, whole(&m), &d.err), WEIR_OK);
    assert_int_equal(body_bytes_of_all(), m.out.size);
    close_decoded(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_request_wherever_it_is_cut),
        cmocka_unit_test(test_fields_may_come_in_any_order),
        cmocka_unit_test(test_typed_values_of_every_type),
        cmocka_unit_test(test_many_typed_values),
        cmocka_unit_test(test_what_inputs_get_refused_for),
        cmocka_unit_test(test_what_outputs_get_refused_for),
        cmocka_unit_test(test_what_parameters_get_refused_for),
        cmocka_unit_test(test_refuses_what_is_no_request),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_what_is_only_promised_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
