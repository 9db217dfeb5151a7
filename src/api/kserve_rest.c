/*
 * Inference over REST.
 *
 *   read ──► submit ──► (engine) ──► ended ──► render ──► answer
 *     └─ large JSON: by a worker       └─ many numbers, classification, large
 *                                         compressed answers: by a worker
 *
 * Binary tensors are lent: inputs from the body, outputs from the engine's
 * blocks, which hang on the exchange until the socket has taken the last byte.  When a
 * deadline passes while the model runs, the client has its 504 at once; the
 * exchange stays until the request is home, as its memory is in use.
 */
#include "api/kserve_rest.h"

#include <string.h>

#include "api/call.h"
#include "api/classify.h"
#include "api/infer_json.h"
#include "api/kserve_shared.h"
#include "api/values.h"
#include "net/encoding.h"
#include "util/json.h"
#include "util/list.h"

#define DEFLATE_BYTES_MIN 512 /* Smaller answers do not get smaller enough. */
#define BINARY_TYPE "application/octet-stream"

struct rest {
    struct infer_call infer;
    struct arena_disposable close;
    struct call *call;
    uint64_t generation; /* Of the catalogue that the model is from. */
    size_t json_size;
    bool raw;
    bool submitted;
    bool answered;        /* The client has its 504 already. */
    struct buffer *out;   /* What the answer's JSON is written to. */
    struct buffer own;    /* That, when a worker writes. */
    struct buffer packed; /* The compressed answer. */
    enum encoding encoding;
    uint64_t binary_bytes; /* Of all binary outputs. */
};

static struct rest *rest_of(struct infer_call *infer)
{
    return list_entry(infer, struct rest, infer);
}

enum weir_status kserve_rest_fields(const struct call *call, struct infer_call *infer,
                                    struct weir_err *err)
{
    const struct bytes text = call->fields[FIELD_DEADLINE_MS];
    if (text.data != NULL) {
        uint64_t ms;
        if (!bytes_to_u64(text, UINT64_MAX / NS_PER_MS, &ms) || ms == 0) {
            return err_set(
                err, WEIR_EINVAL,
                "Weir-Deadline-Ms: found '%.*s', expected a whole number of milliseconds "
                "from 1",
                text.size > 40 ? 40 : (int)text.size, text.data);
        }
        const uint64_t at_ns = clock_add(call->x->begun_ns, ms * NS_PER_MS);
        infer->deadline_ns = at_ns < infer->deadline_ns ? at_ns : infer->deadline_ns;
    }
    return WEIR_OK;
}

/* "0.125": milliseconds with three decimals. */
static void write_ms(struct buffer *out, uint64_t ns)
{
    const uint64_t us = ns / NS_PER_US;
    buffer_u64(out, us / 1000);
    buffer_char(out, '.');
    for (uint64_t unit = 100; unit > 0; unit /= 10) {
        buffer_char(out, (char)('0' + us / unit % 10));
    }
}

static struct infer_timing timing_of(const struct call *call, const struct infer_call *infer)
{
    return kserve_timing(infer, clock_now_ns(call->api->options.engine->clock));
}

void kserve_rest_timing(struct call *call, const struct infer_call *infer)
{
    if (!atomic_load_explicit(&call->api->timing, memory_order_relaxed) &&
        !bytes_equal(call->fields[FIELD_TIMING], BYTES_LITERAL("1"))) {
        return;
    }
    const struct infer_timing timing = timing_of(call, infer);
    struct buffer *out = &call->loop->scratch;
    buffer_clear(out);
    for (size_t i = 0; i < INFER_STAGES; i++) {
        buffer_printf(out, "%s%s;dur=", i == 0 ? "" : ", ", infer_stages[i]);
        write_ms(out, timing.ns[i]);
    }
    exchange_header(call->x, "Server-Timing", (struct bytes){ out->data, out->size });
    buffer_clear(out);
}

static void write_timing(struct buffer *out, const struct call *call,
                         const struct infer_call *infer)
{
    const struct infer_timing timing = timing_of(call, infer);
    buffer_text(out, ",\"parameters\":{");
    for (size_t i = 0; i < INFER_STAGES; i++) {
        buffer_printf(out, "%s\"%s_ms\":", i == 0 ? "" : ",", infer_stages[i]);
        write_ms(out, timing.ns[i]);
    }
    buffer_char(out, '}');
}

static void write_shape(struct buffer *out, const struct shape *shape)
{
    buffer_char(out, '[');
    for (uint32_t i = 0; i < shape->rank; i++) {
        if (i > 0) {
            buffer_char(out, ',');
        }
        buffer_i64(out, shape->dims[i]);
    }
    buffer_char(out, ']');
}

static void write_output(struct buffer *out, const struct infer_call *infer,
                         const struct infer_output *output)
{
    const struct tensor *tensor = &infer->request.outputs[output->index];
    buffer_text(out, "{\"name\":");
    json_string(out, infer->model->signature->outputs[output->index].name);
    buffer_text(out, ",\"datatype\":\"");
    buffer_text(out, dtype_text(tensor->dtype));
    buffer_text(out, "\",\"shape\":");
    write_shape(out, &tensor->shape);
    if (output->shared != NULL) {
        buffer_char(out, '}'); /* Its reader knows where it is. */
    } else if (output->binary) {
        /* Nothing else may stand in these parameters: Triton's C++ client gives up when it does. */
        buffer_text(out, ",\"parameters\":{\"binary_data_size\":");
        buffer_u64(out, tensor->size);
        buffer_text(out, "}}");
    } else {
        buffer_text(out, ",\"data\":");
        values_write(out, tensor);
        buffer_char(out, '}');
    }
}

/* Does it follow the JSON? */
static bool is_binary(const struct infer_output *output)
{
    return output->binary && output->shared == NULL;
}

static uint64_t binary_bytes(const struct infer_call *infer)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < infer->output_count; i++) {
        bytes += is_binary(&infer->outputs[i])
                     ? infer->request.outputs[infer->outputs[i].index].size
                     : 0;
    }
    return bytes;
}

static void write_json(const struct rest *rest, struct buffer *out)
{
    const struct infer_call *infer = &rest->infer;
    buffer_char(out, '{');
    if (infer->id.size > 0) {
        buffer_text(out, "\"id\":");
        json_text(out, infer->id);
        buffer_char(out, ',');
    }
    buffer_text(out, "\"model_name\":");
    json_string(out, infer->model->name);
    buffer_text(out, ",\"model_version\":\"");
    buffer_u64(out, infer->model->version);
    buffer_char(out, '"');
    if (infer->timing) {
        write_timing(out, rest->call, infer);
    }
    buffer_text(out, ",\"outputs\":[");
    for (uint32_t i = 0; i < infer->output_count; i++) {
        if (i > 0) {
            buffer_char(out, ',');
        }
        write_output(out, infer, &infer->outputs[i]);
    }
    buffer_text(out, "]}");
}

static void write_response(struct rest *rest, struct buffer *out)
{
    const struct infer_call *infer = &rest->infer;
    const struct bytes known = answer_memory_find(infer);
    rest->binary_bytes = binary_bytes(infer);
    if (known.data != NULL) {
        buffer_append(out, known.data, known.size);
        return;
    }
    write_json(rest, out);
    if (!out->failed) {
        answer_memory_keep(infer, (struct bytes){ out->data, out->size });
    }
}

/* Compresses JSON and binary outputs in one go. */
static enum weir_status pack(struct rest *rest, struct weir_err *err)
{
    const struct infer_call *infer = &rest->infer;
    struct bytes *pieces =
        arena_try_alloc(infer->arena, (infer->output_count + 1) * sizeof *pieces);
    if (pieces == NULL) {
        return err_nomem(err, "a compressed answer", infer->output_count * sizeof *pieces);
    }
    size_t count = 0;
    pieces[count++] = (struct bytes){ rest->out->data, rest->out->size };
    for (uint32_t i = 0; i < infer->output_count; i++) {
        const struct tensor *tensor = &infer->request.outputs[infer->outputs[i].index];
        if (is_binary(&infer->outputs[i]) && tensor->size > 0) {
            pieces[count++] = (struct bytes){ (const char *)tensor->data, tensor->size };
        }
    }
    buffer_init(&rest->packed, rest->call->api->options.limits->response_bytes_max);
    return encoding_deflate(rest->encoding, pieces, count, &rest->packed, err);
}

static uint64_t answer_bytes(const struct rest *rest)
{
    return rest->out->size + rest->binary_bytes;
}

/* Everything of the answer but sending it; on the loop or on a worker. */
static enum weir_status render(struct rest *rest, struct weir_err *err)
{
    const struct infer_call *infer = &rest->infer;
    for (uint32_t i = 0; i < infer->output_count; i++) {
        if (infer->outputs[i].classes > 0) {
            const enum weir_status status = classify_output(&rest->infer, &infer->outputs[i], err);
            if (status != WEIR_OK) {
                return status;
            }
        }
    }
    const enum weir_status status = kserve_write_shared(&rest->infer, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint64_t bytes_max = rest->call->api->options.limits->response_bytes_max;
    write_response(rest, rest->out);
    if (rest->out->failed || answer_bytes(rest) > bytes_max) {
        return err_set(err, WEIR_ENOMEM,
                       "the answer does not fit into memory or is above response_bytes_max (%llu)",
                       (unsigned long long)bytes_max);
    }
    if (rest->encoding != ENCODING_IDENTITY && answer_bytes(rest) < DEFLATE_BYTES_MIN) {
        rest->encoding = ENCODING_IDENTITY;
    }
    return rest->encoding == ENCODING_IDENTITY ? WEIR_OK : pack(rest, err);
}

static void send_pieces(struct rest *rest, struct bytes json)
{
    struct exchange *x = rest->call->x;
    const struct infer_call *infer = &rest->infer;
    if (rest->binary_bytes == 0) {
        exchange_reply(x, 200, CALL_JSON, json);
        return;
    }
    exchange_begin(x, 200, BINARY_TYPE, json.size + rest->binary_bytes);
    exchange_piece(x, json);
    for (uint32_t i = 0; i < infer->output_count; i++) {
        const struct tensor *tensor = &infer->request.outputs[infer->outputs[i].index];
        if (is_binary(&infer->outputs[i]) && tensor->size > 0) {
            exchange_piece(x, (struct bytes){ (const char *)tensor->data, tensor->size });
        }
    }
    exchange_finish(x);
}

static void send_json_size(struct exchange *x, size_t size)
{
    char digits[20];
    char *at = digits + sizeof digits;
    do {
        *--at = (char)('0' + size % 10);
        size /= 10;
    } while (size > 0);
    exchange_header(x, "Inference-Header-Content-Length",
                    (struct bytes){ at, (size_t)(digits + sizeof digits - at) });
}

static void answer(struct rest *rest)
{
    struct call *call = rest->call;
    const bool packed = rest->encoding != ENCODING_IDENTITY;
    const size_t json_size = rest->out->size;
    const struct bytes body = call_keep(call, packed ? &rest->packed : rest->out);
    buffer_clear(rest->out);
    if (body.data == NULL) {
        call_fail(call, WEIR_ENOMEM, "out of memory for the answer");
        return;
    }
    kserve_rest_timing(call, &rest->infer);
    kserve_written(&rest->infer);
    if (rest->binary_bytes > 0) {
        send_json_size(call->x, json_size);
    }
    if (packed) {
        exchange_header(call->x, "Content-Encoding", bytes_of(encoding_text(rest->encoding)));
        exchange_reply(call->x, 200, rest->binary_bytes > 0 ? BINARY_TYPE : CALL_JSON, body);
    } else {
        send_pieces(rest, body);
    }
}

static void render_by_worker(struct call *call)
{
    struct rest *rest = call->state;
    rest->infer.request.err.status = render(rest, &rest->infer.request.err);
}

static void rendered_by_worker(struct call *call)
{
    struct rest *rest = call->state;
    if (rest->infer.request.err.status != WEIR_OK) {
        call_fail_err(call, &rest->infer.request.err);
    } else {
        answer(rest);
    }
}

/* More than a loop should do at a time. */
static bool is_much_to_render(const struct rest *rest)
{
    const struct infer_call *infer = &rest->infer;
    uint64_t written = 0;
    uint64_t lent_bytes = 0;
    for (uint32_t i = 0; i < infer->output_count; i++) {
        const struct tensor *tensor = &infer->request.outputs[infer->outputs[i].index];
        const size_t element = dtype_size(tensor->dtype);
        if (!infer->outputs[i].binary || infer->outputs[i].classes > 0) {
            written += element == 0 ? tensor->size / 4 : tensor->size / element;
        }
        lent_bytes += tensor->size;
    }
    return written > CALL_INLINE_ELEMENTS || kserve_shares_outputs(infer) ||
           (rest->encoding != ENCODING_IDENTITY && lent_bytes > CALL_INLINE_DEFLATE_BYTES);
}

static void succeed(struct rest *rest)
{
    struct call *call = rest->call;
    rest->encoding = encoding_choose(call->fields[FIELD_ACCEPT_ENCODING]);
    if (is_much_to_render(rest)) {
        buffer_init(&rest->own, call->api->options.limits->response_bytes_max);
        rest->out = &rest->own;
        rest->infer.answer = NULL; /* The loop's. */
        (void)call_run(call, render_by_worker, rendered_by_worker);
        return;
    }
    rest->out = &call->loop->scratch;
    buffer_clear(rest->out);
    struct weir_err err;
    const enum weir_status status = render(rest, &err);
    if (status != WEIR_OK) {
        buffer_clear(rest->out);
        call_fail_err(call, &err);
        return;
    }
    answer(rest);
}

void kserve_rest_fail(struct call *call, const struct infer_call *infer)
{
    call_fail_model(call, infer->request.status, infer->request.err.text, infer->model);
}

static void ended(struct infer_call *infer)
{
    struct rest *rest = rest_of(infer);
    struct call *call = rest->call;
    call->canceled = NULL;
    if (rest->answered || call->x->canceled) {
        kserve_written(infer);
        exchange_finish(call->x);
    } else if (infer->request.status != WEIR_OK) {
        kserve_rest_fail(call, infer);
    } else {
        succeed(rest);
    }
}

/* The whole answer goes out now; only finishing it waits. */
static void late(struct infer_call *infer)
{
    struct rest *rest = rest_of(infer);
    if (!rest->answered && !rest->call->x->canceled) {
        rest->answered = true;
        call_begin_late(rest->call, &infer->request);
    }
}

static void failing(struct call *call)
{
    struct rest *rest = call->state;
    kserve_written(&rest->infer);
}

static void canceled(struct call *call)
{
    struct rest *rest = call->state;
    if (rest->submitted) {
        kserve_cancel(&rest->infer);
    }
}

static void submit(struct rest *rest)
{
    struct call *call = rest->call;
    if (call->x->canceled) {
        exchange_finish(call->x);
        return;
    }
    struct weir_err err;
    rest->infer.ended = ended;
    rest->infer.late = late;
    rest->infer.part = NULL;
    call->canceled = canceled;
    const enum weir_status status = kserve_submit(&rest->infer, call->loop, &err);
    if (status != WEIR_OK) {
        call->canceled = NULL;
        call_fail_model(call, status, err.text, rest->infer.model);
        return;
    }
    rest->submitted = true;
}

/* A body in a model's own memory. */
struct received {
    struct arena_disposable release;
    struct block *block;
};

static void release_received(struct arena_disposable *disposable)
{
    block_release(list_entry(disposable, struct received, release)->block);
}

/* exchange.body_room */
static char *find_room(struct exchange *x)
{
    struct call *call = x->user;
    const size_t json_bytes = x->body_align_at;
    struct model *model;
    if (call_lease(call, &model, NULL) != WEIR_OK) {
        return NULL;
    }
    struct block *block =
        model->backend == NULL /* An ensemble has none. */
            ? NULL
            : backend_input_block(model->backend, json_bytes, (size_t)x->body_size - json_bytes);
    model_release(model);
    struct received *received =
        block == NULL ? NULL : arena_try_alloc(&x->arena, sizeof(*received));
    if (received == NULL) {
        block_release(block);
        return NULL;
    }
    received->block = block;
    received->release.dispose = release_received;
    arena_dispose(&x->arena, &received->release);
    return (char *)block->data - json_bytes;
}

void kserve_rest_receive(struct call *call)
{
    struct exchange *x = call->x;
    const size_t json_bytes = x->body_align_at;
    const bool lends = json_bytes > 0 && json_bytes < x->body_size &&
                       x->body_size <= x->body_bytes_max &&
                       x->body_size - json_bytes >= BACKEND_INPUT_BYTES_MIN &&
                       call->fields[FIELD_CONTENT_ENCODING].size == 0;
    x->body_room = lends ? find_room : NULL;
}

static enum weir_status read_body(struct rest *rest, struct infer_memory *memory,
                                  struct weir_err *err)
{
    const struct bytes body = rest->call->body;
    return rest->raw ? infer_json_read_raw(&rest->infer, body, err)
                     : infer_json_read(&rest->infer, body, rest->json_size, memory,
                                       rest->generation, err);
}

/* Where this loop remembers what the model's last JSON meant. */
static struct infer_memory *memory_of(const struct rest *rest)
{
    /* Fibonacci hashing: the addresses of large objects differ in few bits. */
    const uint64_t mixed = (uint64_t)(uintptr_t)rest->infer.model * UINT64_C(0x9E3779B97F4A7C15);
    return &rest->call->loop->memories[(mixed >> 32) % API_MEMORIES];
}

static void read_by_worker(struct call *call)
{
    struct rest *rest = call->state;
    rest->infer.request.err.status = read_body(rest, NULL, &rest->infer.request.err);
}

static void read_done(struct call *call)
{
    struct rest *rest = call->state;
    if (rest->infer.request.err.status != WEIR_OK) {
        call_fail_err(call, &rest->infer.request.err);
    } else {
        submit(rest);
    }
}

static void close_rest(struct arena_disposable *disposable)
{
    struct rest *rest = list_entry(disposable, struct rest, close);
    kserve_close(&rest->infer);
    buffer_finish(&rest->own);
    buffer_finish(&rest->packed);
}

/* Which part of the body is JSON. */
static enum weir_status read_json_size(struct rest *rest, struct weir_err *err)
{
    const struct call *call = rest->call;
    const struct bytes field = call->fields[FIELD_JSON_SIZE];
    const struct limits *limits = call->api->options.limits;
    rest->json_size = call->body.size;
    if (field.data == NULL) {
        return WEIR_OK;
    }
    uint64_t size;
    if (!bytes_to_u64(field, UINT64_MAX, &size) || size > call->body.size) {
        return err_set(err, WEIR_EINVAL,
                       "Inference-Header-Content-Length: inference header size should be in range "
                       "(0, %zu), got: %.*s",
                       call->body.size, field.size > 40 ? 40 : (int)field.size, field.data);
    }
    if (size > limits->json_bytes_max) {
        return err_set(err, WEIR_ETOOBIG,
                       "found %llu bytes of JSON, expected at most %llu (json_bytes_max)",
                       (unsigned long long)size, (unsigned long long)limits->json_bytes_max);
    }
    rest->json_size = (size_t)size;
    rest->raw = size == 0;
    return WEIR_OK;
}

static enum weir_status check_streams(const struct model *model, struct weir_err *err)
{
    if (!model->signature->streams) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EINVAL,
                   "model '%s' gives several responses per request, which infer cannot carry: use "
                   "/v2/models/%s/generate_stream",
                   model->name, model->name);
}

static enum weir_status open_rest(struct rest *rest, struct weir_err *err)
{
    struct call *call = rest->call;
    struct model *model;
    enum weir_status status = read_json_size(rest, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = call_lease(call, &model, err);
    if (status != WEIR_OK) {
        return status;
    }
    rest->generation = call->loop->home.catalogue_generation;
    status = check_streams(model, err);
    if (status == WEIR_OK) {
        status = kserve_open(&rest->infer, model, &call->x->arena,
                             call->api->options.engine->blocks, call->x->received_ns, err);
    }
    if (status != WEIR_OK) {
        model_release(model);
        return status;
    }
    rest->infer.shm = call->api->options.shm;
    rest->infer.client = client_of(call);
    rest->close.dispose = close_rest;
    call->failing = failing;
    arena_dispose(&call->x->arena, &rest->close);
    return kserve_rest_fields(call, &rest->infer, err);
}

/* How much is to be copied is known when it is looked up; a worker does that. */
static bool names_shared_memory(const struct rest *rest)
{
    static const char word[] = "shared_memory_region";
    return rest->infer.shm != NULL && rest->json_size > 0 &&
           memmem(rest->call->body.data, rest->json_size, word, sizeof word - 1) != NULL;
}

/* More than a loop should do at a time: large JSON, strings to be checked, tensors to be moved. */
static bool is_much_to_read(const struct rest *rest)
{
    const struct call *call = rest->call;
    const struct signature *signature = rest->infer.model->signature;
    if (rest->json_size > CALL_INLINE_JSON_BYTES || names_shared_memory(rest)) {
        return true;
    }
    if (call->body.size - rest->json_size <= CALL_INLINE_BINARY_BYTES) {
        return false;
    }
    return signature->input_count > 1 || call->body.data != call->x->body.data ||
           (signature->input_count == 1 && signature->inputs[0].dtype == DTYPE_BYTES);
}

void kserve_rest_infer(struct call *call)
{
    struct rest *rest = call_alloc(call, sizeof *rest);
    if (rest == NULL) {
        return;
    }
    rest->call = call;
    call->state = rest;
    struct weir_err err;
    if (open_rest(rest, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    if (is_much_to_read(rest)) {
        (void)call_run(call, read_by_worker, read_done);
        return;
    }
    if (read_body(rest, memory_of(rest), &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    submit(rest);
}
