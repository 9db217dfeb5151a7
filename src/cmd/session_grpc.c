/*
 * ModelMetadata and ModelInfer, as far as this program needs them.  Tensors are sent from
 * where they lie and read where the answer lies.
 */
#include "cmd/session_grpc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/clock.h"
#include "util/mem.h"
#include "util/protowire.h"

#define SERVICE "/inference.GRPCInferenceService/"

static uint64_t now_ns(void)
{
    struct clock clock;
    clock_init(&clock);
    return clock_now_ns(&clock);
}

static enum weir_status bad_answer(const char *what, struct weir_err *err)
{
    return err_set(err, WEIR_EIO, "the server's answer makes no sense: %s", what);
}

/* ---- Messages that are there as a whole ------------------------------------------------------ */

struct field {
    uint32_t number;
    bool is_bytes;
    struct bytes bytes;
    uint64_t value; /* Of a number, by its bits. */
};

/* The next field of a message; false at its end, or when it is none (*bad). */
static bool next_field(struct protowire *wire, struct field *out, bool *bad)
{
    struct protowire_token token;
    if (protowire_next(wire, &token, NULL) != WEIR_OK) {
        *bad = true;
        return false;
    }
    if (token.kind == PROTOWIRE_MORE) {
        *bad = !protowire_is_done(wire);
        return false;
    }
    *out = (struct field){ .number = token.field, .value = token.number };
    if (token.kind != PROTOWIRE_BEGIN) {
        return true;
    }
    out->is_bytes = true;
    out->bytes = (struct bytes){ "", 0 };
    while (protowire_next(wire, &token, NULL) == WEIR_OK && token.kind == PROTOWIRE_BYTES) {
        out->bytes = token.bytes; /* One piece, as the message is one. */
    }
    return true;
}

static struct protowire read_message(struct bytes message)
{
    struct protowire wire;
    protowire_init(&wire, message.size);
    protowire_feed(&wire, message);
    return wire;
}

/* How often a field stands in a message. */
static size_t count_fields(struct bytes message, uint32_t number)
{
    struct protowire wire = read_message(message);
    struct field field;
    bool bad = false;
    size_t count = 0;
    while (next_field(&wire, &field, &bad)) {
        count += field.number == number;
    }
    return count;
}

static const char *copy_text(struct arena *arena, struct bytes text)
{
    return arena_try_strndup(arena, text.data, text.size);
}

static bool add_dim(struct shape *shape, uint64_t dim)
{
    if (shape->rank == TENSOR_RANK_MAX || (int64_t)dim < -1) {
        return false;
    }
    shape->dims[shape->rank++] = (int64_t)dim;
    return true;
}

static bool read_dims(struct bytes packed, struct shape *shape)
{
    const uint8_t *at = (const uint8_t *)packed.data;
    const uint8_t *end = at + packed.size;
    while (at < end) {
        struct protowire_varint number = { 0 };
        if (protowire_varint_read(&number, &at, end) != VARINT_DONE ||
            !add_dim(shape, number.value)) {
            return false;
        }
    }
    return true;
}

/* name=1, datatype=2, shape=3, which metadata and answers write alike. */
static enum weir_status read_spec(struct arena *arena, struct bytes message, struct spec *out,
                                  struct weir_err *err)
{
    struct protowire wire = read_message(message);
    struct field field;
    bool bad = false;
    bool typed = false;
    *out = (struct spec){ .name = "" };
    while (next_field(&wire, &field, &bad) && !bad) {
        if (field.number == 1 && field.is_bytes) {
            out->name = copy_text(arena, field.bytes);
        } else if (field.number == 2 && field.is_bytes) {
            typed = dtype_of(field.bytes, &out->dtype);
        } else if (field.number == 3) {
            bad = field.is_bytes ? !read_dims(field.bytes, &out->shape)
                                 : !add_dim(&out->shape, field.value);
        }
    }
    if (out->name == NULL) {
        return err_nomem(err, "a name", message.size);
    }
    return bad || !typed ? bad_answer("a tensor without name, datatype or shape", err) : WEIR_OK;
}

/* ---- What the model takes -------------------------------------------------------------------- */

enum { METADATA_NAME = 1, METADATA_VERSIONS, METADATA_PLATFORM, METADATA_INPUTS, METADATA_OUTPUTS };

static enum weir_status read_metadata(struct arena *arena, struct bytes message,
                                      struct interface *out, struct weir_err *err)
{
    struct protowire wire = read_message(message);
    struct field field;
    bool bad = false;
    enum weir_status status = WEIR_OK;
    out->model = out->version = out->platform = "";
    out->inputs =
        arena_try_zero(arena, count_fields(message, METADATA_INPUTS) + 1, sizeof *out->inputs);
    out->outputs =
        arena_try_zero(arena, count_fields(message, METADATA_OUTPUTS) + 1, sizeof *out->outputs);
    if (out->inputs == NULL || out->outputs == NULL) {
        return err_nomem(err, "the model's description", message.size);
    }
    while (status == WEIR_OK && next_field(&wire, &field, &bad)) {
        if (!field.is_bytes) {
            continue;
        }
        if (field.number == METADATA_NAME) {
            out->model = copy_text(arena, field.bytes);
        } else if (field.number == METADATA_VERSIONS) {
            out->version = copy_text(arena, field.bytes);
        } else if (field.number == METADATA_PLATFORM) {
            out->platform = copy_text(arena, field.bytes);
        } else if (field.number == METADATA_INPUTS) {
            status = read_spec(arena, field.bytes, &out->inputs[out->input_count++], err);
        } else if (field.number == METADATA_OUTPUTS) {
            status = read_spec(arena, field.bytes, &out->outputs[out->output_count++], err);
        }
    }
    if (out->model == NULL || out->version == NULL || out->platform == NULL) {
        return err_nomem(err, "the model's description", message.size);
    }
    return status == WEIR_OK && bad ? bad_answer("it is no protobuf message", err) : status;
}

/* Decimal; empty for 0, which is the latest. */
static struct bytes version_text(const struct session *session, char out[24])
{
    if (session->options.version == 0) {
        return (struct bytes){ "", 0 };
    }
    (void)snprintf(out, 24, "%" PRIu64, session->options.version);
    return bytes_of(out);
}

static void put_text(struct protowire_out *out, uint32_t field, struct bytes text)
{
    if (text.size > 0) {
        protowire_put_bytes(out, field, text);
    }
}

enum weir_status session_grpc_describe(struct session *session, struct arena *arena,
                                       struct interface *out, struct weir_err *err)
{
    char version[24];
    const struct bytes name = bytes_of(session->options.model);
    const struct bytes number = version_text(session, version);
    struct protowire_out count = { 0 };
    put_text(&count, 1, name);
    put_text(&count, 2, number);
    uint8_t *bytes = arena_try_aligned(arena, count.size, 1);
    if (bytes == NULL) {
        return err_nomem(err, "a request", count.size);
    }
    struct protowire_out write = { .at = bytes };
    put_text(&write, 1, name);
    put_text(&write, 2, number);
    const struct bytes piece = { (const char *)bytes, (size_t)count.size };
    struct rpc_reply reply;
    enum weir_status status =
        rpc_call(&session->rpc, SERVICE "ModelMetadata", &piece, 1, &reply, err);
    if (status == WEIR_OK) {
        status = read_metadata(arena, reply.message, out, err);
    }
    rpc_reply_finish(&reply);
    return status;
}

/* ---- Asking ---------------------------------------------------------------------------------- */

static void put_dims(struct protowire_out *out, const struct shape *shape)
{
    for (uint32_t i = 0; i < shape->rank; i++) {
        protowire_put_varint(out, (uint64_t)shape->dims[i]);
    }
}

static void put_input_fields(struct protowire_out *out, const struct value *input)
{
    struct protowire_out dims = { 0 };
    put_dims(&dims, &input->tensor.shape);
    protowire_put_bytes(out, 1, bytes_of(input->name));
    protowire_put_bytes(out, 2, bytes_of(dtype_text(input->tensor.dtype)));
    protowire_put_begin(out, 3, dims.size);
    put_dims(out, &input->tensor.shape);
}

/* Everything before the tensors' bytes. */
static void put_head(struct protowire_out *out, const struct session *session,
                     const struct value *inputs, uint32_t input_count)
{
    /* parameters: {"weir_timing": true} */
    static const struct bytes timing = { "\x0a\x0bweir_timing\x12\x02\x08\x01", 17 };
    char version[24];
    put_text(out, 1, bytes_of(session->options.model));
    put_text(out, 2, version_text(session, version));
    protowire_put_bytes(out, 4, timing);
    for (uint32_t i = 0; i < input_count; i++) {
        struct protowire_out fields = { 0 };
        put_input_fields(&fields, &inputs[i]);
        protowire_put_begin(out, 5, fields.size);
        put_input_fields(out, &inputs[i]);
    }
}

/* The pieces of a request: a head, then each tensor behind its tag and size. */
static enum weir_status write_request(const struct session *session, const struct value *inputs,
                                      uint32_t input_count, struct arena *arena,
                                      struct bytes *pieces, size_t *piece_count,
                                      struct weir_err *err)
{
    struct protowire_out count = { 0 };
    put_head(&count, session, inputs, input_count);
    const size_t head_size = (size_t)count.size;
    for (uint32_t i = 0; i < input_count; i++) {
        protowire_put_begin(&count, 7, inputs[i].tensor.size);
    }
    uint8_t *bytes = arena_try_aligned(arena, (size_t)count.size, 1);
    if (bytes == NULL) {
        return err_nomem(err, "a request", count.size);
    }
    struct protowire_out write = { .at = bytes };
    put_head(&write, session, inputs, input_count);
    pieces[(*piece_count)++] = (struct bytes){ (const char *)bytes, head_size };
    for (uint32_t i = 0; i < input_count; i++) {
        const uint8_t *begun = write.at;
        protowire_put_begin(&write, 7, inputs[i].tensor.size);
        pieces[(*piece_count)++] =
            (struct bytes){ (const char *)begun, (size_t)(write.at - begun) };
        pieces[(*piece_count)++] =
            (struct bytes){ (const char *)inputs[i].tensor.data, inputs[i].tensor.size };
    }
    return WEIR_OK;
}

/* parameters[KEY].double_param, as the time of a stage. */
static void read_stage(struct bytes entry, struct stages *stages)
{
    struct protowire wire = read_message(entry);
    struct field field;
    struct bytes key = { NULL, 0 };
    double ms = 0;
    bool bad = false;
    while (next_field(&wire, &field, &bad)) {
        if (field.number == 1 && field.is_bytes) {
            key = field.bytes;
        } else if (field.number == 2 && field.is_bytes && field.bytes.size == 9 &&
                   field.bytes.data[0] == 0x21) {
            memcpy(&ms, field.bytes.data + 1, sizeof ms);
        }
    }
    const uint64_t ns = ms > 0 && ms < 1e12 ? (uint64_t)(ms * (double)NS_PER_MS) : 0;
    if (bytes_equal(key, BYTES_LITERAL("queue_ms"))) {
        stages->queue_ns = ns;
    } else if (bytes_equal(key, BYTES_LITERAL("gather_ms"))) {
        stages->gather_ns = ns;
    } else if (bytes_equal(key, BYTES_LITERAL("compute_ms"))) {
        stages->compute_ns = ns;
    } else if (bytes_equal(key, BYTES_LITERAL("total_ms"))) {
        stages->total_ns = ns;
        stages->known = true;
    }
}

static enum weir_status read_raw(struct value *output, struct bytes raw, struct weir_err *err)
{
    struct tensor *tensor = &output->tensor;
    tensor->data = (uint8_t *)(uintptr_t)raw.data;
    tensor->size = raw.size;
    tensor->present = true;
    if (tensor->dtype == DTYPE_BYTES) {
        return tensor_check_strings(tensor, err);
    }
    size_t expected = 0;
    const enum weir_status status = tensor_bytes(tensor->dtype, &tensor->shape, &expected, err);
    return status == WEIR_OK && expected != raw.size
               ? bad_answer("an output whose size is not that of its shape", err)
               : status;
}

enum { RESPONSE_VERSION = 2, RESPONSE_PARAMETERS = 4, RESPONSE_OUTPUTS = 5, RESPONSE_RAW = 6 };

static enum weir_status read_output(struct answer *answer, struct bytes message,
                                    struct weir_err *err)
{
    struct spec spec;
    const enum weir_status status = read_spec(&answer->arena, message, &spec, err);
    if (status == WEIR_OK) {
        answer->outputs[answer->output_count++] = (struct value){
            .name = spec.name,
            .tensor = { .dtype = spec.dtype, .shape = spec.shape },
        };
    }
    return status;
}

static enum weir_status read_response(struct answer *answer, struct bytes message,
                                      struct weir_err *err)
{
    struct protowire wire = read_message(message);
    struct field field;
    bool bad = false;
    uint32_t raws = 0;
    enum weir_status status = WEIR_OK;
    const size_t outputs = count_fields(message, RESPONSE_OUTPUTS);
    answer->version = "";
    answer->outputs = arena_try_zero(&answer->arena, outputs + 1, sizeof *answer->outputs);
    if (answer->outputs == NULL) {
        return err_nomem(err, "an answer", outputs);
    }
    while (status == WEIR_OK && next_field(&wire, &field, &bad)) {
        if (!field.is_bytes) {
            continue;
        }
        if (field.number == RESPONSE_VERSION) {
            answer->version = copy_text(&answer->arena, field.bytes);
        } else if (field.number == RESPONSE_PARAMETERS) {
            read_stage(field.bytes, &answer->stages);
        } else if (field.number == RESPONSE_OUTPUTS) {
            status = read_output(answer, field.bytes, err);
        } else if (field.number == RESPONSE_RAW && raws < answer->output_count) {
            status = read_raw(&answer->outputs[raws++], field.bytes, err);
        }
    }
    if (status == WEIR_OK && (bad || raws < answer->output_count)) {
        return bad_answer(
            bad ? "it is no protobuf message" : "an output without raw_output_contents", err);
    }
    return answer->version == NULL ? err_nomem(err, "an answer", 0) : status;
}

enum weir_status session_grpc_infer(struct session *session, const struct value *inputs,
                                    uint32_t input_count, struct answer *answer,
                                    struct weir_err *err)
{
    struct bytes pieces[CLIENT_PIECES_MAX];
    size_t piece_count = 0;
    if (2 * (size_t)input_count >= CLIENT_PIECES_MAX) {
        return err_set(err, WEIR_EINVAL, "%u inputs, expected at most %d", input_count,
                       CLIENT_PIECES_MAX / 2 - 1);
    }
    enum weir_status status =
        write_request(session, inputs, input_count, &answer->arena, pieces, &piece_count, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint64_t begun_ns = now_ns();
    status =
        rpc_call(&session->rpc, SERVICE "ModelInfer", pieces, piece_count, &answer->message, err);
    answer->latency_ns = now_ns() - begun_ns;
    return status == WEIR_OK ? read_response(answer, answer->message.message, err) : status;
}
