/*
 * Generate.
 *
 * A member of the request whose name is an input's becomes that tensor, shaped
 * to fit; every other one is a parameter.  The answer has each output under its
 * name.
 *
 * A stream's parts are written while the socket takes them; beyond
 * UNSENT_BYTES_MAX they stay unread, the engine counts them, and at its bound the run
 * waits.  So a slow client slows its own run and nothing else.
 */
#include "api/generate.h"

#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/kserve_rest.h"
#include "api/values.h"
#include "util/json.h"
#include "util/list.h"

#define UNSENT_BYTES_MAX 262144
#define MEMBERS_EXTRA 3 /* id, model_name, model_version. */
#define EVENTS "text/event-stream; charset=utf-8"

/* A member of a response: a text, or a tensor. */
struct member {
    const char *name;
    struct bytes text;
    const struct tensor *tensor;
};

struct generate {
    struct infer_call infer;
    struct arena_disposable close;
    struct call *call;
    bool stream;
    bool submitted;
    bool begun;    /* A stream's head is out. */
    bool answered; /* Nothing more is to be said. */
    bool ended;
    bool rendering; /* A worker writes an event into `own`. */
    bool said_last; /* The request's own outputs are written. */
    uint32_t responses;
    struct request_part *parts; /* Unread, oldest first, through home_mail.mail.next. */
    struct request_part *parts_last;
    struct request_part *part; /* Being rendered; NULL: the request's own outputs. */
    struct member *members;    /* Room for a response's: outputs, and MEMBERS_EXTRA. */
    struct buffer own;         /* The one response of generate_once(), or a large event. */
};

static struct generate *generate_of(struct infer_call *infer)
{
    return list_entry(infer, struct generate, infer);
}

static struct bytes text_of(yyjson_val *value)
{
    return (struct bytes){ yyjson_get_str(value), yyjson_get_len(value) };
}

/* --- The request --------------------------------------------------------------------------- */

/* Fixed dimensions divide the number of values; the innermost variable one takes what is left. */
static bool fit_shape(const struct shape *spec, uint64_t count, struct shape *out)
{
    uint64_t fixed = 1;
    int open = -1;
    *out = *spec;
    for (uint32_t i = 0; i < spec->rank; i++) {
        if (spec->dims[i] < 0) {
            open = (int)i;
            out->dims[i] = 1;
        } else if (__builtin_mul_overflow(fixed, (uint64_t)spec->dims[i], &fixed)) {
            return false;
        }
    }
    if (open < 0 || fixed == 0) {
        return count == fixed;
    }
    out->dims[open] = (int64_t)(count / fixed);
    return count % fixed == 0;
}

static enum weir_status read_tensor(struct infer_call *infer, uint32_t index, yyjson_val *value,
                                    struct weir_err *err)
{
    const struct tensor_spec *spec = &infer->model->signature->inputs[index];
    struct shape open;
    struct shape shape;
    kserve_shape(infer->model, false, index, &open);
    if (!fit_shape(&open, values_count(value), &shape)) {
        char text[SHAPE_TEXT];
        return err_set(
            err, WEIR_EINVAL,
            "The schema can not convert input '%s' to tensor with proper shape: found %llu "
            "values, expected them to fill %s",
            spec->name, (unsigned long long)values_count(value), shape_format(&open, text));
    }
    struct tensor *tensor;
    const enum weir_status status = kserve_input(
        infer, bytes_of(spec->name), bytes_of(dtype_text(spec->dtype)), &shape, &tensor, err);
    return status == WEIR_OK ? values_read(infer, value, spec->name, tensor, err) : status;
}

static enum weir_status read_id(struct infer_call *infer, yyjson_val *value, struct weir_err *err)
{
    if (!yyjson_is_str(value)) {
        return err_set(err, WEIR_EINVAL, "'id': found %s, expected a string", json_kind(value));
    }
    const struct bytes id = text_of(value);
    char *copy = arena_try_strndup(infer->arena, id.data, id.size);
    if (copy == NULL) {
        return err_nomem(err, "a request id", id.size);
    }
    infer->id = (struct bytes){ copy, id.size };
    return WEIR_OK;
}

static enum weir_status read_parameter(struct infer_call *infer, struct bytes key,
                                       yyjson_val *value, struct weir_err *err)
{
    struct infer_value read = { .kind = INFER_STRING };
    if (yyjson_is_bool(value)) {
        read = (struct infer_value){ .kind = INFER_BOOL, .boolean = yyjson_is_true(value) };
    } else if (yyjson_is_uint(value)) {
        read = (struct infer_value){ .kind = INFER_UINT, .number = yyjson_get_uint(value) };
    } else if (yyjson_is_num(value)) {
        read.kind = yyjson_is_sint(value) ? INFER_INT : INFER_DOUBLE;
    } else if (yyjson_is_str(value)) {
        read.text = text_of(value);
    } else {
        return err_set(err, WEIR_EINVAL,
                       "'%.*s': found %s; no input has this name, and a parameter is a string, a "
                       "number or a boolean",
                       key.size > 128 ? 128 : (int)key.size, key.data, json_kind(value));
    }
    return kserve_parameter(infer, key, &read, err);
}

static enum weir_status read_members(struct infer_call *infer, yyjson_val *object, bool inner,
                                     struct weir_err *err);

static enum weir_status read_member(struct infer_call *infer, struct bytes key, yyjson_val *value,
                                    bool inner, struct weir_err *err)
{
    const struct signature *signature = infer->model->signature;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        if (bytes_equal(key, bytes_of(signature->inputs[i].name))) {
            return read_tensor(infer, i, value, err);
        }
    }
    if (!inner && bytes_equal(key, BYTES_LITERAL("id"))) {
        return read_id(infer, value, err);
    }
    if (!inner && bytes_equal(key, BYTES_LITERAL("parameters")) && yyjson_is_obj(value)) {
        return read_members(infer, value, true, err); /* Once: inner ones are not looked into. */
    }
    return read_parameter(infer, key, value, err);
}

static enum weir_status read_members(struct infer_call *infer, yyjson_val *object, bool inner,
                                     struct weir_err *err)
{
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *value;
    yyjson_obj_foreach(object, index, max, key, value) {
        const enum weir_status status = read_member(infer, text_of(key), value, inner, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static enum weir_status read_body(struct generate *self, struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    enum weir_status status = call_json(self->call, false, &doc, err);
    if (status != WEIR_OK) {
        return status;
    }
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (!yyjson_is_obj(root)) {
        status = err_set(err, WEIR_EINVAL, "found %s, expected an object", json_kind(root));
    } else {
        status = read_members(&self->infer, root, false, err);
    }
    yyjson_doc_free(doc);
    if (status == WEIR_OK) {
        self->infer.binary_default = false; /* There is nowhere to put binary data. */
        status = kserve_complete(&self->infer, err);
    }
    return status;
}

/* --- The answer ---------------------------------------------------------------------------- */

static int compare_members(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->name, ((const struct member *)b)->name);
}

/* Appends one response, keys in order of their names. */
static void write_response(const struct generate *self, const struct tensor *tensors,
                           struct buffer *out)
{
    const struct infer_call *infer = &self->infer;
    const struct signature *signature = infer->model->signature;
    char digits[24];
    struct buffer version = { .data = digits,
                              .capacity = sizeof digits,
                              .size_max = sizeof digits };
    buffer_u64(&version, infer->model->version);
    struct member *members = self->members;
    size_t count = 0;
    members[count++] =
        (struct member){ .name = "model_name", .text = bytes_of(infer->model->name) };
    members[count++] =
        (struct member){ .name = "model_version", .text = { version.data, version.size } };
    if (infer->id.size > 0) {
        members[count++] = (struct member){ .name = "id", .text = infer->id };
    }
    for (uint32_t i = 0; i < signature->output_count; i++) {
        if (tensors[i].present) {
            members[count++] =
                (struct member){ .name = signature->outputs[i].name, .tensor = &tensors[i] };
        }
    }
    qsort(members, count, sizeof *members, compare_members);
    buffer_char(out, '{');
    for (size_t i = 0; i < count; i++) {
        json_key(out, members[i].name);
        if (members[i].tensor == NULL) {
            json_text(out, members[i].text);
        } else {
            values_write_bare(out, members[i].tensor);
        }
    }
    buffer_char(out, '}');
}

static bool has_outputs(const struct generate *self)
{
    const struct signature *signature = self->infer.model->signature;
    for (uint32_t i = 0; i < signature->output_count; i++) {
        if (self->infer.request.outputs[i].present) {
            return true;
        }
    }
    return false;
}

/* More than a loop should write at a time. */
static bool is_much_to_render(const struct generate *self, const struct tensor *tensors)
{
    const struct signature *signature = self->infer.model->signature;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < signature->output_count; i++) {
        bytes += tensors[i].size;
    }
    return bytes / sizeof(float) > CALL_INLINE_ELEMENTS;
}

static void begin_stream(struct generate *self)
{
    if (!self->begun) {
        self->begun = true;
        exchange_header(self->call->x, "Cache-Control", BYTES_LITERAL("no-cache"));
        exchange_begin(self->call->x, 200, EVENTS, HTTP_STREAM);
    }
}

static void end_event(struct buffer *event)
{
    if (event->failed) {
        buffer_clear(event);
        buffer_text(event, "data: {\"error\":\"out of memory for this part of the answer\"}");
    }
    buffer_text(event, "\n\n");
}

static void send_event(struct generate *self, struct buffer *event)
{
    end_event(event);
    exchange_copy(self->call->x, (struct bytes){ event->data, event->size });
    buffer_clear(event);
}

static void write_event(struct generate *self, const struct tensor *tensors, struct buffer *out)
{
    buffer_text(out, "data: ");
    write_response(self, tensors, out);
}

static void send_error(struct generate *self, const char *text)
{
    struct buffer *out = &self->call->loop->scratch;
    buffer_clear(out);
    buffer_text(out, "data: {\"error\":");
    json_string(out, text);
    buffer_char(out, '}');
    send_event(self, out);
}

static struct request_part *pop_part(struct generate *self)
{
    struct request_part *part = self->parts;
    if (part != NULL) {
        struct mail *next = part->home_mail.mail.next;
        self->parts = next == NULL ? NULL : list_entry(next, struct request_part, home_mail.mail);
    }
    return part;
}

static void push_part(struct generate *self, struct request_part *part)
{
    part->home_mail.mail.next = NULL;
    if (self->parts == NULL) {
        self->parts = part;
        self->parts_last = part;
        return;
    }
    self->parts_last->home_mail.mail.next = &part->home_mail.mail;
    self->parts_last = part;
}

static void release_parts(struct generate *self)
{
    for (struct request_part *part = pop_part(self); part != NULL; part = pop_part(self)) {
        request_part_release(part);
    }
}

static void pump(struct generate *self);

static const struct tensor *tensors_of(const struct generate *self, const struct request_part *part)
{
    return part == NULL ? self->infer.request.outputs : part->outputs;
}

static void event_by_worker(struct call *call)
{
    struct generate *self = call->state;
    buffer_init(&self->own, call->api->options.limits->response_bytes_max);
    write_event(self, tensors_of(self, self->part), &self->own);
}

static void event_written(struct call *call)
{
    struct generate *self = call->state;
    self->rendering = false;
    const bool heard = !self->answered && !call->x->canceled;
    if (heard) {
        begin_stream(self);
    }
    if (self->part == NULL) {
        /* The last one is not copied; `own` stays until the exchange is over. */
        end_event(&self->own);
        if (heard) {
            exchange_piece(call->x, (struct bytes){ self->own.data, self->own.size });
        }
    } else {
        if (heard) {
            send_event(self, &self->own);
        }
        buffer_finish(&self->own);
        request_part_release(self->part);
    }
    pump(self);
}

/* Sends a part, which it takes, or with NULL the request's own outputs: a small one at once, a
 * large one when a worker has written it. */
static void send_part(struct generate *self, struct request_part *part)
{
    const struct tensor *tensors = tensors_of(self, part);
    if (is_much_to_render(self, tensors)) {
        self->part = part;
        self->rendering = true;
        (void)call_run(self->call, event_by_worker, event_written); /* It is prepared. */
        return;
    }
    struct buffer *out = &self->call->loop->scratch;
    buffer_clear(out);
    write_event(self, tensors, out);
    begin_stream(self);
    send_event(self, out);
    if (part != NULL) {
        request_part_release(part);
    }
}

/* The last word of a stream, once everything before it is written. */
static void end_stream(struct generate *self)
{
    struct call *call = self->call;
    const struct request *request = &self->infer.request;
    const bool heard = !self->answered && !call->x->canceled;
    if (heard && request->status == WEIR_OK && !self->said_last && has_outputs(self)) {
        self->said_last = true;
        send_part(self, NULL);
        if (self->rendering) {
            return; /* event_written() comes back here. */
        }
    }
    call->canceled = NULL;
    call->drained = NULL;
    if (!heard) {
        kserve_written(&self->infer);
        exchange_finish(call->x);
        return;
    }
    if (request->status != WEIR_OK && !self->begun) {
        kserve_rest_fail(call, &self->infer);
        return;
    }
    if (request->status != WEIR_OK) {
        send_error(self, request->err.text);
    }
    begin_stream(self);
    kserve_written(&self->infer);
    exchange_finish(call->x);
}

/* Writes parts while the socket takes them. */
static void pump(struct generate *self)
{
    if (self->answered || self->call->x->canceled) {
        release_parts(self);
    }
    while (self->parts != NULL && !self->rendering &&
           self->call->x->unsent_bytes < UNSENT_BYTES_MAX) {
        send_part(self, pop_part(self));
    }
    if (self->ended && self->parts == NULL && !self->rendering) {
        end_stream(self);
    }
}

static void drained(struct call *call)
{
    pump(call->state);
}

/* generate_once() keeps the first response's text and counts the others. */
static void keep_response(struct generate *self, const struct tensor *tensors)
{
    if (self->responses++ == 0) {
        buffer_init(&self->own, self->call->api->options.limits->response_bytes_max);
        write_response(self, tensors, &self->own);
    }
}

static void part_came(struct infer_call *infer, struct request_part *part)
{
    struct generate *self = generate_of(infer);
    if (self->stream) {
        push_part(self, part);
        pump(self);
    } else {
        keep_response(self, part->outputs);
        request_part_release(part);
    }
}

static void reply_once(struct generate *self)
{
    struct call *call = self->call;
    if (self->responses == 1) {
        kserve_rest_timing(call, &self->infer);
        kserve_written(&self->infer);
        call_reply_buffer(call, CALL_JSON, &self->own);
    } else {
        call_fail(call, WEIR_EINVAL,
                  "generate expects model to produce exactly 1 response, use generate stream for "
                  "model that generates various number of responses");
    }
}

static void render_by_worker(struct call *call)
{
    struct generate *self = call->state;
    keep_response(self, self->infer.request.outputs);
}

static void rendered_by_worker(struct call *call)
{
    reply_once(call->state);
}

static void end_once(struct generate *self)
{
    struct call *call = self->call;
    call->canceled = NULL;
    if (self->answered || call->x->canceled) {
        kserve_written(&self->infer);
        exchange_finish(call->x);
    } else if (self->infer.request.status != WEIR_OK) {
        kserve_rest_fail(call, &self->infer);
    } else if (!has_outputs(self)) {
        reply_once(self);
    } else if (is_much_to_render(self, self->infer.request.outputs)) {
        (void)call_run(call, render_by_worker, rendered_by_worker);
    } else {
        keep_response(self, self->infer.request.outputs);
        reply_once(self);
    }
}

static void ended(struct infer_call *infer)
{
    struct generate *self = generate_of(infer);
    self->ended = true;
    if (self->stream) {
        pump(self);
    } else {
        end_once(self);
    }
}

static void late(struct infer_call *infer)
{
    struct generate *self = generate_of(infer);
    struct exchange *x = self->call->x;
    if (self->answered || x->canceled) {
        return;
    }
    self->answered = true;
    if (self->begun) {
        send_error(self, request_late_text(&infer->request));
    } else {
        call_begin_late(self->call, &infer->request);
    }
}

static void failing(struct call *call)
{
    struct generate *self = call->state;
    kserve_written(&self->infer);
}

static void canceled(struct call *call)
{
    struct generate *self = call->state;
    if (self->submitted && !self->ended) {
        kserve_cancel(&self->infer);
    }
    pump(self); /* Lets unread parts go, and ends the exchange where the request has come home. */
}

static void submit(struct generate *self)
{
    struct call *call = self->call;
    if (call->x->canceled) {
        exchange_finish(call->x);
        return;
    }
    struct weir_err err;
    self->infer.ended = ended;
    self->infer.late = late;
    self->infer.part = part_came;
    call->canceled = canceled;
    call->drained = self->stream ? drained : NULL;
    const enum weir_status status = kserve_submit(&self->infer, call->loop, &err);
    if (status != WEIR_OK) {
        call->canceled = NULL;
        call->drained = NULL;
        call_fail_model(call, status, err.text, self->infer.model);
        return;
    }
    self->submitted = true;
}

static void read_by_worker(struct call *call)
{
    struct generate *self = call->state;
    self->infer.request.err.status = read_body(self, &self->infer.request.err);
}

static void read_done(struct call *call)
{
    struct generate *self = call->state;
    if (self->infer.request.err.status != WEIR_OK) {
        call_fail_err(call, &self->infer.request.err);
    } else {
        submit(self);
    }
}

static void close_generate(struct arena_disposable *disposable)
{
    struct generate *self = list_entry(disposable, struct generate, close);
    kserve_close(&self->infer);
    buffer_finish(&self->own);
}

static enum weir_status open_generate(struct generate *self, struct weir_err *err)
{
    struct call *call = self->call;
    struct model *model;
    enum weir_status status = call_lease(call, &model, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = kserve_open(&self->infer, model, &call->x->arena, call->api->options.engine->blocks,
                         call->x->received_ns, err);
    if (status != WEIR_OK) {
        model_release(model);
        return status;
    }
    self->infer.client = client_of(call);
    self->close.dispose = close_generate;
    call->failing = failing;
    arena_dispose(&call->x->arena, &self->close);
    self->members = arena_try_zero(&call->x->arena, model->signature->output_count + MEMBERS_EXTRA,
                                   sizeof *self->members);
    if (self->members == NULL) {
        return err_nomem(err, "a response", model->signature->output_count);
    }
    status = self->stream ? call_prepare_run(call, err) : WEIR_OK;
    return status == WEIR_OK ? kserve_rest_fields(call, &self->infer, err) : status;
}

static void begin(struct call *call, bool stream)
{
    struct generate *self = call_alloc(call, sizeof *self);
    if (self == NULL) {
        return;
    }
    self->call = call;
    self->stream = stream;
    call->state = self;
    struct weir_err err;
    if (open_generate(self, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    if (call->body.size > CALL_INLINE_JSON_BYTES) {
        (void)call_run(call, read_by_worker, read_done);
        return;
    }
    if (read_body(self, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    submit(self);
}

void generate_once(struct call *call)
{
    begin(call, false);
}

void generate_stream(struct call *call)
{
    begin(call, true);
}
