/*
 * A response is written once, from front to back, into a piece of the arena that is large enough
 * for any; only the sizes of inner messages are counted before.  A large tensor cuts that piece:
 * what lies before it is one piece of the answer, the tensor the next.  Small tensors are cheaper
 * to copy than to lend.  What a stream puts around a response goes in front of it at the end.
 */
#include "api/infer_proto_write.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "api/answer_memory.h"
#include "util/protowire.h"

#define LENT_BYTES_MIN 1024
#define MESSAGE_BYTES_MAX INT32_MAX
#define VERSION_DIGITS 20

/* Field numbers. */
enum { STREAM_ERROR = 1, STREAM_RESPONSE = 2 };
enum {
    RESPONSE_MODEL = 1,
    RESPONSE_VERSION = 2,
    RESPONSE_ID = 3,
    RESPONSE_PARAMETERS = 4,
    RESPONSE_OUTPUTS = 5,
    RESPONSE_RAW = 6,
};
enum { OUTPUT_NAME = 1, OUTPUT_DATATYPE = 2, OUTPUT_SHAPE = 3 };
enum { ENTRY_KEY = 1, ENTRY_VALUE = 2 };
enum { VALUE_BOOL = 1, VALUE_DOUBLE = 4 };

#define FIELD_HEAD_BYTES 11 /* A tag, which has one byte here, and a size or a number. */
#define ANSWER_BYTES 512    /* Parameters, and all that an answer has once. */

/* Writes and cuts. */
struct writer {
    struct protowire_out out;
    struct infer_proto_pieces *pieces;
    const uint8_t *begun; /* Of the piece being written. */
    uint64_t lent_bytes;
};

static const struct tensor *tensor_of(const struct infer_proto_answer *answer, uint32_t i)
{
    if (answer->tensors == NULL) {
        return NULL;
    }
    const struct tensor *tensor = &answer->tensors[answer->call->outputs[i].index];
    return tensor->present ? tensor : NULL;
}

/* Numbers are never negative here. */
static void put_dims(struct protowire_out *out, const struct shape *shape)
{
    for (uint32_t i = 0; i < shape->rank; i++) {
        protowire_put_varint(out, (uint64_t)shape->dims[i]);
    }
}

static void put_shape(struct protowire_out *out, const struct shape *shape)
{
    struct protowire_out dims = { 0 };
    put_dims(&dims, shape);
    if (shape->rank > 0) {
        protowire_put_begin(out, OUTPUT_SHAPE, dims.size);
        put_dims(out, shape);
    }
}

static void put_output_fields(struct protowire_out *out, const char *name,
                              const struct tensor *tensor)
{
    protowire_put_bytes(out, OUTPUT_NAME, bytes_of(name));
    protowire_put_bytes(out, OUTPUT_DATATYPE, bytes_of(dtype_text(tensor->dtype)));
    put_shape(out, &tensor->shape);
}

static void put_output(struct protowire_out *out, const char *name, const struct tensor *tensor)
{
    struct protowire_out fields = { 0 };
    put_output_fields(&fields, name, tensor);
    protowire_put_begin(out, RESPONSE_OUTPUTS, fields.size);
    put_output_fields(out, name, tensor);
}

static void put_bool_value(struct protowire_out *out, bool value)
{
    /* A member of a oneof is there also when it is false. */
    protowire_put_number(out, VALUE_BOOL, value);
}

/* All of a parameter but its value, of so many bytes. */
static void put_parameter(struct protowire_out *out, const char *key, uint64_t value_size)
{
    struct protowire_out size = { 0 };
    protowire_put_bytes(&size, ENTRY_KEY, bytes_of(key));
    protowire_put_begin(&size, ENTRY_VALUE, value_size);
    protowire_put_begin(out, RESPONSE_PARAMETERS, size.size + value_size);
    protowire_put_bytes(out, ENTRY_KEY, bytes_of(key));
    protowire_put_begin(out, ENTRY_VALUE, value_size);
}

static void put_flag(struct protowire_out *out, const char *key, bool value)
{
    struct protowire_out size = { 0 };
    put_bool_value(&size, value);
    put_parameter(out, key, size.size);
    put_bool_value(out, value);
}

/* "queue_ms". */
static void put_ms(struct protowire_out *out, const char *stage, uint64_t ns)
{
    const double value = (double)ns / (double)NS_PER_MS;
    struct protowire_out size = { 0 };
    char key[16];
    (void)snprintf(key, sizeof(key), "%s_ms", stage);
    protowire_put_double(&size, VALUE_DOUBLE, value);
    put_parameter(out, key, size.size);
    protowire_put_double(out, VALUE_DOUBLE, value);
}

/* Decimal; `text` has room for VERSION_DIGITS. */
static struct bytes version_text(uint64_t version, char *text)
{
    char *at = text + VERSION_DIGITS;
    do {
        *--at = (char)('0' + version % 10);
        version /= 10;
    } while (version > 0);
    return (struct bytes){ at, (size_t)(text + VERSION_DIGITS - at) };
}

static void put_model(struct protowire_out *out, const struct infer_call *call)
{
    char digits[VERSION_DIGITS];
    protowire_put_bytes(out, RESPONSE_MODEL, bytes_of(call->model->name));
    protowire_put_bytes(out, RESPONSE_VERSION, version_text(call->model->version, digits));
}

static void put_text(struct protowire_out *out, uint32_t field, struct bytes text)
{
    if (text.size > 0) {
        protowire_put_bytes(out, field, text);
    }
}

static void put_parameters(struct protowire_out *out, const struct infer_proto_answer *answer)
{
    if (answer->streamed) {
        put_flag(out, "triton_final_response", answer->final);
    }
    for (size_t i = 0; answer->timing != NULL && i < INFER_STAGES; i++) {
        put_ms(out, infer_stages[i], answer->timing->ns[i]);
    }
}

static void end_piece(struct writer *writer)
{
    if (writer->out.at != writer->begun) {
        writer->pieces->pieces[writer->pieces->count++] = (struct bytes){
            (const char *)writer->begun,
            (size_t)(writer->out.at - writer->begun),
        };
        writer->begun = writer->out.at;
    }
}

static bool is_lent(const struct tensor *tensor)
{
    return tensor->size >= LENT_BYTES_MIN;
}

static void put_tensor(struct writer *writer, const struct tensor *tensor)
{
    protowire_put_begin(&writer->out, RESPONSE_RAW, tensor->size);
    if (!is_lent(tensor)) {
        protowire_put_raw(&writer->out, tensor->data, tensor->size);
        return;
    }
    end_piece(writer);
    writer->lent_bytes += tensor->size;
    writer->pieces->pieces[writer->pieces->count++] =
        (struct bytes){ (const char *)tensor->data, tensor->size };
}

/* Everything before the tensors. */
static void put_head(struct writer *writer, const struct infer_proto_answer *answer)
{
    const struct infer_call *call = answer->call;
    put_model(&writer->out, call);
    put_text(&writer->out, RESPONSE_ID, call->id);
    put_parameters(&writer->out, answer);
    for (uint32_t i = 0; i < call->output_count; i++) {
        const struct tensor *tensor = tensor_of(answer, i);
        if (tensor != NULL) {
            const uint32_t index = call->outputs[i].index;
            put_output(&writer->out, call->model->signature->outputs[index].name, tensor);
        }
    }
}

/* The same, where it can be from memory. */
static void put_known_head(struct writer *writer, const struct infer_proto_answer *answer)
{
    const struct bytes known = answer_memory_find(answer->call);
    if (known.data != NULL) {
        protowire_put_raw(&writer->out, known.data, known.size);
        return;
    }
    put_head(writer, answer);
    answer_memory_keep(answer->call,
                       (struct bytes){ (const char *)writer->begun, writer->out.size });
}

static void put_response(struct writer *writer, const struct infer_proto_answer *answer)
{
    const struct infer_call *call = answer->call;
    if (!answer->streamed && answer->timing == NULL && answer->tensors == call->request.outputs) {
        put_known_head(writer, answer);
    } else {
        put_head(writer, answer);
    }
    for (uint32_t i = 0; i < call->output_count; i++) {
        const struct tensor *tensor = tensor_of(answer, i);
        if (tensor != NULL && call->outputs[i].shared != NULL) {
            protowire_put_bytes(&writer->out, RESPONSE_RAW, (struct bytes){ "", 0 });
        } else if (tensor != NULL) {
            put_tensor(writer, tensor);
        }
    }
}

/* Enough for everything but the tensors that are lent. */
static size_t head_bytes_max(const struct infer_proto_answer *answer)
{
    const struct infer_call *call = answer->call;
    size_t size = ANSWER_BYTES + strlen(call->model->name) + call->id.size;
    for (uint32_t i = 0; i < call->output_count; i++) {
        const struct tensor *tensor = tensor_of(answer, i);
        if (tensor != NULL) {
            const char *name = call->model->signature->outputs[call->outputs[i].index].name;
            size += strlen(name) + (6 + (size_t)tensor->shape.rank) * FIELD_HEAD_BYTES +
                    (is_lent(tensor) ? 0 : tensor->size);
        }
    }
    return size;
}

/* Puts the tag and the size of the response in front of it. */
static void wrap(struct infer_proto_pieces *pieces, uint64_t response_size)
{
    struct protowire_out size = { 0 };
    protowire_put_begin(&size, STREAM_RESPONSE, response_size);
    struct bytes *first = &pieces->pieces[0];
    first->data -= size.size;
    first->size += size.size;
    pieces->size += size.size;
    struct protowire_out write = { .at = (uint8_t *)(uintptr_t)first->data };
    protowire_put_begin(&write, STREAM_RESPONSE, response_size);
}

enum weir_status infer_proto_write(const struct infer_proto_answer *answer, struct arena *arena,
                                   struct infer_proto_pieces *out, struct weir_err *err)
{
    const size_t head_max = head_bytes_max(answer);
    const size_t piece_max = 2 * (size_t)answer->call->output_count + 1;
    uint8_t *bytes = arena_try_aligned(arena, FIELD_HEAD_BYTES + head_max, 1);
    struct bytes *pieces = arena_try_alloc(arena, piece_max * sizeof *pieces);
    if (bytes == NULL || pieces == NULL) {
        return err_nomem(err, "a response", head_max + piece_max * sizeof *pieces);
    }
    bytes += FIELD_HEAD_BYTES;
    *out = (struct infer_proto_pieces){ .pieces = pieces };
    struct writer writer = { .out = { .at = bytes }, .pieces = out, .begun = bytes };
    put_response(&writer, answer);
    end_piece(&writer);
    assert(writer.out.size <= head_max && out->count <= piece_max);
    out->size = writer.out.size + writer.lent_bytes;
    if (out->size > MESSAGE_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "the response has %" PRIu64 " bytes, expected at most %d in one gRPC "
                       "message",
                       out->size, MESSAGE_BYTES_MAX);
    }
    if (answer->streamed) {
        wrap(out, out->size);
    }
    return WEIR_OK;
}

static void put_failed(struct protowire_out *out, struct bytes id, const struct infer_call *call)
{
    if (call != NULL) {
        put_model(out, call);
    }
    put_text(out, RESPONSE_ID, id);
    if (call != NULL) {
        put_flag(out, "triton_final_response", true);
    }
}

enum weir_status infer_proto_write_error(struct bytes id, const char *text,
                                         const struct infer_call *call, struct arena *arena,
                                         struct bytes *out, struct weir_err *err)
{
    struct protowire_out count = { 0 };
    put_failed(&count, id, call);
    const uint64_t response = count.size;
    count = (struct protowire_out){ 0 };
    protowire_put_bytes(&count, STREAM_ERROR, bytes_of(text));
    protowire_put_begin(&count, STREAM_RESPONSE, response);
    const size_t size = (size_t)(count.size + response);
    uint8_t *bytes = arena_try_aligned(arena, size, 1);
    if (bytes == NULL) {
        return err_nomem(err, "a response", size);
    }
    struct protowire_out write = { .at = bytes };
    protowire_put_bytes(&write, STREAM_ERROR, bytes_of(text));
    protowire_put_begin(&write, STREAM_RESPONSE, response);
    put_failed(&write, id, call);
    assert(write.at == bytes + size);
    *out = (struct bytes){ (const char *)bytes, size };
    return WEIR_OK;
}
