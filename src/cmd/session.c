#include "cmd/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/literal.h"
#include "cmd/output.h"
#include "cmd/session_grpc.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/mem.h"

#define JSON_BYTES_MAX ((size_t)64 << 20)
#define PATH_BYTES 640

static uint64_t now_ns(void)
{
    struct clock clock;
    clock_init(&clock);
    return clock_now_ns(&clock);
}

enum weir_status session_open(struct session *session, const struct session_options *options,
                              struct weir_err *err)
{
    *session = (struct session){ .options = *options, .client = { .fd = -1 } };
    rpc_init(&session->rpc, &session->client);
    return options->local != NULL
               ? WEIR_OK
               : client_init(&session->client, options->url, options->timeout_ns, err);
}

void session_close(struct session *session)
{
    rpc_finish(&session->rpc);
    client_finish(&session->client);
}

void answer_finish(struct answer *answer)
{
    client_reply_finish(&answer->reply);
    rpc_reply_finish(&answer->message);
    weir_result_free(answer->result);
    arena_finish(&answer->arena);
    *answer = (struct answer){ 0 };
}

/* ---- Over HTTP ------------------------------------------------------------------------------- */

/* "/v2/models/NAME[/versions/N]TAIL", percent-encoded. */
static enum weir_status model_path(const struct session *session, const char *tail, char *out,
                                   struct weir_err *err)
{
    struct buffer path;
    buffer_init(&path, PATH_BYTES - 1);
    buffer_text(&path, "/v2/models/");
    for (const char *at = session->options.model; *at != '\0'; at++) {
        const bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                           (*at >= '0' && *at <= '9') || strchr("._-", *at) != NULL;
        buffer_printf(&path, plain ? "%c" : "%%%02X", (unsigned)(unsigned char)*at);
    }
    if (session->options.version > 0) {
        buffer_printf(&path, "/versions/%llu", (unsigned long long)session->options.version);
    }
    buffer_text(&path, tail);
    enum weir_status status = WEIR_OK;
    if (path.full) {
        status = err_set(err, WEIR_EINVAL, "the model's name is too long");
    } else if (path.failed) {
        status = err_nomem(err, "a path", PATH_BYTES);
    } else {
        (void)snprintf(out, PATH_BYTES, "%.*s", (int)path.size, path.data);
    }
    buffer_finish(&path);
    return status;
}

static enum weir_status bad_field(const char *where, struct weir_err *err)
{
    return err_set(err, WEIR_EIO, "the server's answer makes no sense: %s", where);
}

static enum weir_status read_json(struct bytes text, yyjson_doc **out, struct weir_err *err)
{
    const enum weir_status status = json_read(text, out, err);
    if (status == WEIR_EINVAL) {
        (void)err_prefix(err, "the server's answer makes no sense");
    }
    return status;
}

static const char *copy_string(struct arena *arena, yyjson_val *value)
{
    const char *text = yyjson_get_str(value);
    return arena_try_strndup(arena, text == NULL ? "" : text, text == NULL ? 0 : strlen(text));
}

/* name, datatype and shape, which metadata and answers write alike. */
static enum weir_status read_spec(struct arena *arena, yyjson_val *object, struct spec *out,
                                  struct weir_err *err)
{
    const char *datatype = yyjson_get_str(yyjson_obj_get(object, "datatype"));
    yyjson_val *shape = yyjson_obj_get(object, "shape");
    if (yyjson_get_str(yyjson_obj_get(object, "name")) == NULL ||
        !dtype_of(bytes_of(datatype), &out->dtype) || !yyjson_is_arr(shape) ||
        yyjson_arr_size(shape) > TENSOR_RANK_MAX) {
        return bad_field("a tensor without name, datatype or shape", err);
    }
    out->name = copy_string(arena, yyjson_obj_get(object, "name"));
    if (out->name == NULL) {
        return err_nomem(err, "a name", 0);
    }
    out->shape.rank = 0;
    yyjson_val *dim;
    yyjson_arr_iter iter = yyjson_arr_iter_with(shape);
    while ((dim = yyjson_arr_iter_next(&iter)) != NULL) {
        if (!yyjson_is_int(dim) || yyjson_get_sint(dim) < -1) {
            return bad_field("a shape that is no list of whole numbers", err);
        }
        out->shape.dims[out->shape.rank++] = yyjson_get_sint(dim);
    }
    return WEIR_OK;
}

static enum weir_status read_specs(struct arena *arena, yyjson_val *list, struct spec **out,
                                   uint32_t *count, struct weir_err *err)
{
    struct spec *specs = arena_try_zero(arena, yyjson_arr_size(list) + 1, sizeof(*specs));
    if (specs == NULL) {
        return err_nomem(err, "the model's description", yyjson_arr_size(list));
    }
    uint32_t filled = 0;
    yyjson_val *item;
    yyjson_arr_iter iter = yyjson_arr_iter_with(list);
    while ((item = yyjson_arr_iter_next(&iter)) != NULL) {
        const enum weir_status status = read_spec(arena, item, &specs[filled++], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    *out = specs;
    *count = filled;
    return WEIR_OK;
}

static enum weir_status read_metadata(struct arena *arena, yyjson_val *root, struct interface *out,
                                      struct weir_err *err)
{
    yyjson_val *versions = yyjson_obj_get(root, "versions");
    if (!yyjson_is_str(yyjson_obj_get(root, "name"))) {
        return bad_field("a model without a name", err);
    }
    out->model = copy_string(arena, yyjson_obj_get(root, "name"));
    out->version = copy_string(arena, yyjson_arr_get_last(versions));
    out->platform = copy_string(arena, yyjson_obj_get(root, "platform"));
    if (out->model == NULL || out->version == NULL || out->platform == NULL) {
        return err_nomem(err, "the model's description", 0);
    }
    const enum weir_status status =
        read_specs(arena, yyjson_obj_get(root, "inputs"), &out->inputs, &out->input_count, err);
    return status != WEIR_OK ? status
                             : read_specs(arena, yyjson_obj_get(root, "outputs"), &out->outputs,
                                          &out->output_count, err);
}

static enum weir_status describe_remote(struct session *session, struct arena *arena,
                                        struct interface *out, struct weir_err *err)
{
    char path[PATH_BYTES];
    enum weir_status status = model_path(session, "", path, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct client_request request = { .method = "GET", .path = path };
    struct client_reply reply;
    status = client_call(&session->client, &request, &reply, err);
    if (status == WEIR_OK && reply.status != 200) {
        status = client_refusal(&reply, err);
    } else if (status == WEIR_OK) {
        yyjson_doc *doc = NULL;
        status = read_json(reply.body, &doc, err);
        if (status == WEIR_OK) {
            status = read_metadata(arena, yyjson_doc_get_root(doc), out, err);
        }
        yyjson_doc_free(doc);
    }
    client_reply_finish(&reply);
    return status;
}

static void write_input(struct buffer *out, const struct value *input)
{
    json_comma(out);
    output_describe(out, input->name, input->tensor.dtype, &input->tensor.shape);
    json_key(out, "parameters");
    buffer_printf(out, "{\"binary_data_size\":%zu}}", input->tensor.size);
}

static void write_header(struct buffer *out, const struct value *inputs, uint32_t count)
{
    buffer_text(out, "{\"parameters\":{\"binary_data_output\":true},\"inputs\":[");
    for (uint32_t i = 0; i < count; i++) {
        write_input(out, &inputs[i]);
    }
    buffer_text(out, "]}");
}

/* One output: the next `*left` bytes of the binary part, or `data` in the JSON. */
static enum weir_status read_output(struct answer *answer, yyjson_val *object, struct bytes *left,
                                    struct value *out, struct weir_err *err)
{
    struct spec spec = { 0 };
    const enum weir_status status = read_spec(&answer->arena, object, &spec, err);
    if (status != WEIR_OK) {
        return status;
    }
    out->name = spec.name;
    yyjson_val *size = yyjson_obj_get(yyjson_obj_get(object, "parameters"), "binary_data_size");
    if (size == NULL) {
        return literal_read_json(&answer->arena, yyjson_obj_get(object, "data"), &spec,
                                 &out->tensor, err);
    }
    const uint64_t bytes = yyjson_get_uint(size);
    if (!yyjson_is_uint(size) || bytes > left->size) {
        return bad_field("an output with more binary data than there is", err);
    }
    out->tensor = (struct tensor){ .dtype = spec.dtype,
                                   .present = true,
                                   .shape = spec.shape,
                                   .data = (uint8_t *)(uintptr_t)left->data,
                                   .size = (size_t)bytes };
    left->data += bytes;
    left->size -= (size_t)bytes;
    if (spec.dtype == DTYPE_BYTES) {
        return tensor_check_strings(&out->tensor, err);
    }
    size_t expected = 0;
    const enum weir_status sized = tensor_bytes(spec.dtype, &spec.shape, &expected, err);
    return sized != WEIR_OK    ? sized
           : expected != bytes ? bad_field("an output whose size is not that of its shape", err)
                               : WEIR_OK;
}

static enum weir_status read_outputs(struct answer *answer, yyjson_val *root, struct bytes binary,
                                     struct weir_err *err)
{
    yyjson_val *list = yyjson_obj_get(root, "outputs");
    if (!yyjson_is_arr(list)) {
        return bad_field("no list of outputs", err);
    }
    answer->version = copy_string(&answer->arena, yyjson_obj_get(root, "model_version"));
    answer->outputs =
        arena_try_zero(&answer->arena, yyjson_arr_size(list) + 1, sizeof(*answer->outputs));
    if (answer->outputs == NULL || answer->version == NULL) {
        return err_nomem(err, "an answer", yyjson_arr_size(list));
    }
    enum weir_status status = WEIR_OK;
    yyjson_val *item;
    yyjson_arr_iter iter = yyjson_arr_iter_with(list);
    while (status == WEIR_OK && (item = yyjson_arr_iter_next(&iter)) != NULL) {
        status = read_output(answer, item, &binary, &answer->outputs[answer->output_count], err);
        answer->output_count += status == WEIR_OK ? 1 : 0;
    }
    return status;
}

/* "queue;dur=0.125" in a Server-Timing value, in ns. */
static bool read_stage(const char *text, const char *name, uint64_t *out)
{
    const char *at = strstr(text, name);
    if (at == NULL) {
        return false;
    }
    const double ms = strtod(at + strlen(name), NULL);
    *out = ms > 0 && ms < 1e12 ? (uint64_t)(ms * (double)NS_PER_MS) : 0;
    return true;
}

static void read_stages(struct answer *answer)
{
    char text[256];
    struct stages *stages = &answer->stages;
    (void)snprintf(text, sizeof(text), "%.*s", (int)answer->reply.timing.size,
                   answer->reply.timing.data == NULL ? "" : answer->reply.timing.data);
    stages->known = read_stage(text, "queue;dur=", &stages->queue_ns) &&
                    read_stage(text, "compute;dur=", &stages->compute_ns) &&
                    read_stage(text, "total;dur=", &stages->total_ns);
    (void)read_stage(text, "gather;dur=", &stages->gather_ns);
}

static enum weir_status read_answer(struct answer *answer, struct weir_err *err)
{
    const struct client_reply *reply = &answer->reply;
    if (reply->status != 200) {
        return client_refusal(reply, err);
    }
    if (reply->json_size != SIZE_MAX && reply->json_size > reply->body.size) {
        return bad_field("its header is longer than its body", err);
    }
    const size_t json_size = reply->json_size == SIZE_MAX ? reply->body.size : reply->json_size;
    const struct bytes binary = { reply->body.data + json_size, reply->body.size - json_size };
    yyjson_doc *doc = NULL;
    enum weir_status status = read_json((struct bytes){ reply->body.data, json_size }, &doc, err);
    if (status == WEIR_OK) {
        status = read_outputs(answer, yyjson_doc_get_root(doc), binary, err);
    }
    yyjson_doc_free(doc);
    read_stages(answer);
    return status;
}

static enum weir_status exchange(struct session *session, const struct buffer *json,
                                 const struct value *inputs, uint32_t input_count,
                                 struct answer *answer, struct weir_err *err)
{
    char path[PATH_BYTES];
    char fields[192];
    struct bytes pieces[CLIENT_PIECES_MAX];
    if (input_count >= CLIENT_PIECES_MAX) {
        return err_set(err, WEIR_EINVAL, "%u inputs, expected at most %d", input_count,
                       CLIENT_PIECES_MAX - 1);
    }
    pieces[0] = (struct bytes){ json->data, json->size };
    for (uint32_t i = 0; i < input_count; i++) {
        pieces[i + 1] =
            (struct bytes){ (const char *)inputs[i].tensor.data, inputs[i].tensor.size };
    }
    (void)snprintf(fields, sizeof(fields),
                   "Content-Type: application/octet-stream\r\nWeir-Timing: 1\r\n"
                   "Inference-Header-Content-Length: %zu\r\n",
                   json->size);
    const struct client_request request = { "POST", path, fields, pieces, input_count + 1 };
    enum weir_status status = model_path(session, "/infer", path, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint64_t begun_ns = now_ns();
    status = client_call(&session->client, &request, &answer->reply, err);
    answer->latency_ns = now_ns() - begun_ns;
    return status == WEIR_OK ? read_answer(answer, err) : status;
}

static enum weir_status infer_remote(struct session *session, const struct value *inputs,
                                     uint32_t input_count, struct answer *answer,
                                     struct weir_err *err)
{
    struct buffer json;
    buffer_init(&json, JSON_BYTES_MAX);
    write_header(&json, inputs, input_count);
    const enum weir_status status =
        json.failed ? err_nomem(err, "a request", json.size)
                    : exchange(session, &json, inputs, input_count, answer, err);
    buffer_finish(&json);
    return status;
}

/* ---- Right here ------------------------------------------------------------------------------ */

static enum dtype dtype_from_public(enum weir_dtype dtype)
{
    enum dtype found = DTYPE_BYTES;
    (void)!dtype_of(bytes_of(weir_dtype_text(dtype)), &found);
    return found;
}

static enum weir_dtype dtype_to_public(enum dtype dtype)
{
    for (enum weir_dtype at = WEIR_BOOL; at < WEIR_BYTES; at++) {
        if (strcmp(weir_dtype_text(at), dtype_text(dtype)) == 0) {
            return at;
        }
    }
    return WEIR_BYTES;
}

struct tensor tensor_from_public(const struct weir_tensor *from)
{
    struct tensor to = { .dtype = dtype_from_public(from->dtype),
                         .present = true,
                         .shape = { .rank = from->rank },
                         .data = (uint8_t *)(uintptr_t)from->data,
                         .size = from->size };
    memcpy(to.shape.dims, from->dims, from->rank * sizeof(int64_t));
    return to;
}

struct weir_tensor tensor_to_public(const char *name, const struct tensor *from)
{
    struct weir_tensor to = { .name = name,
                              .dtype = dtype_to_public(from->dtype),
                              .rank = from->shape.rank,
                              .data = from->data,
                              .size = from->size };
    memcpy(to.dims, from->shape.dims, from->shape.rank * sizeof(int64_t));
    return to;
}

static struct spec *copy_specs(struct arena *arena, const struct weir_tensor *tensors,
                               uint32_t count)
{
    struct spec *specs = arena_try_zero(arena, count + 1u, sizeof(*specs));
    for (uint32_t i = 0; specs != NULL && i < count; i++) {
        specs[i].name = arena_try_strndup(arena, tensors[i].name, strlen(tensors[i].name));
        specs[i].dtype = dtype_from_public(tensors[i].dtype);
        specs[i].shape = tensor_from_public(&tensors[i]).shape;
        if (specs[i].name == NULL) {
            return NULL;
        }
    }
    return specs;
}

static enum weir_status describe_local(struct session *session, struct arena *arena,
                                       struct interface *out, struct weir_err *err)
{
    struct weir_model *model = NULL;
    const enum weir_status status = weir_model_describe(
        session->options.local, session->options.model, session->options.version, &model, err);
    if (status != WEIR_OK) {
        return status;
    }
    *out = (struct interface){
        .model = session->options.model,
        .version = arena_try_printf(arena, "%llu", (unsigned long long)model->version),
        .platform = arena_try_strndup(arena, model->platform, strlen(model->platform)),
        .inputs = copy_specs(arena, model->inputs, model->input_count),
        .outputs = copy_specs(arena, model->outputs, model->output_count),
        .input_count = model->input_count,
        .output_count = model->output_count,
    };
    weir_model_free(model);
    return out->version != NULL && out->platform != NULL && out->inputs != NULL &&
                   out->outputs != NULL
               ? WEIR_OK
               : err_nomem(err, "the model's description", 0);
}

static enum weir_status take_result(struct answer *answer, struct weir_err *err)
{
    const uint32_t count = weir_result_count(answer->result);
    const struct weir_times times = weir_result_times(answer->result);
    answer->outputs = arena_try_zero(&answer->arena, count + 1u, sizeof(*answer->outputs));
    if (answer->outputs == NULL) {
        return err_nomem(err, "an answer", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct weir_tensor *from = weir_result_at(answer->result, i);
        answer->outputs[i] = (struct value){ from->name, tensor_from_public(from) };
    }
    answer->output_count = count;
    answer->stages =
        (struct stages){ times.queue_ns, times.gather_ns, times.compute_ns, times.total_ns, true };
    return WEIR_OK;
}

static enum weir_status infer_local(struct session *session, const struct value *inputs,
                                    uint32_t input_count, struct answer *answer,
                                    struct weir_err *err)
{
    struct weir_tensor *tensors =
        arena_try_zero(&answer->arena, input_count + 1u, sizeof(*tensors));
    if (tensors == NULL) {
        return err_nomem(err, "a request", input_count);
    }
    for (uint32_t i = 0; i < input_count; i++) {
        tensors[i] = tensor_to_public(inputs[i].name, &inputs[i].tensor);
    }
    const struct weir_call_options options = { .version = session->options.version,
                                               .timeout_ns = session->options.timeout_ns };
    const uint64_t begun_ns = now_ns();
    const enum weir_status status =
        weir_infer(session->options.local, session->options.model, tensors, input_count, &options,
                   &answer->result, err);
    answer->latency_ns = now_ns() - begun_ns;
    return status == WEIR_OK ? take_result(answer, err) : status;
}

/* ---- Any of them ----------------------------------------------------------------------------- */

enum weir_status session_describe(struct session *session, struct arena *arena,
                                  struct interface *out, struct weir_err *err)
{
    *out = (struct interface){ 0 };
    if (session->options.local != NULL) {
        return describe_local(session, arena, out, err);
    }
    return session->options.grpc ? session_grpc_describe(session, arena, out, err)
                                 : describe_remote(session, arena, out, err);
}

enum weir_status session_infer(struct session *session, const struct value *inputs,
                               uint32_t input_count, struct answer *out, struct weir_err *err)
{
    enum weir_status status;
    *out = (struct answer){ 0 };
    arena_init(&out->arena, NULL, 0, 0);
    if (session->options.local != NULL) {
        status = infer_local(session, inputs, input_count, out, err);
    } else if (session->options.grpc) {
        status = session_grpc_infer(session, inputs, input_count, out, err);
    } else {
        status = infer_remote(session, inputs, input_count, out, err);
    }
    if (status != WEIR_OK) {
        answer_finish(out);
    }
    return status;
}
