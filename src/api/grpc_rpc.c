/*
 * From a path to a handler, and for whole messages from bytes to a handler's answer.
 */
#include "api/grpc_rpc.h"

#include <stdio.h>
#include <string.h>

#include "api/demand.h"
#include "api/grpc_health.h"
#include "api/grpc_json.h"
#include "api/grpc_reflection.h"
#include "api/kserve_grpc.h"
#include "health.pb-c.h"
#include "kserve.pb-c.h"
#include "net/body.h"

#define SERVICE "/inference.GRPCInferenceService/"
#define MODEL "/v2/models/{model}[/versions/{version}]"
#define REPOSITORY "/v2/repository[/{repository}]"
#define SYSTEM "/v2/systemsharedmemory"
#define CUDA "/v2/cudasharedmemory"
#define JSON_GROWTH_MAX 4     /* Of a request, */
#define JSON_FREE_BYTES 65536 /* and so many bytes in any case. */

static void server_live(struct call *call, const ProtobufCMessage *request);
static void server_ready(struct call *call, const ProtobufCMessage *request);
static void model_ready(struct call *call, const ProtobufCMessage *request);

#define MESSAGES(request, answer) \
    NULL, &inference__##request##__descriptor, &inference__##answer##__descriptor

/* What is called most is first. */
static const struct grpc_rpc rpcs[] = {
    { SERVICE "ModelInfer", GROUP_INFERENCE, &kserve_grpc_infer, NULL, NULL, NULL, { 0 } },
    { SERVICE "ModelStreamInfer", GROUP_INFERENCE, &kserve_grpc_stream, NULL, NULL, NULL, { 0 } },
    { SERVICE "ServerLive",
      GROUP_HEALTH,
      MESSAGES(server_live_request, server_live_response),
      server_live,
      { 0 } },
    { SERVICE "ServerReady",
      GROUP_HEALTH,
      MESSAGES(server_ready_request, server_ready_response),
      server_ready,
      { 0 } },
    { SERVICE "ModelReady",
      GROUP_HEALTH,
      MESSAGES(model_ready_request, model_ready_response),
      model_ready,
      { 0 } },
    { SERVICE "ServerMetadata",
      GROUP_METADATA,
      MESSAGES(server_metadata_request, server_metadata_response),
      NULL,
      { HTTP_GET, "/v2[/]", "/v2[/]", NULL, false, NULL } },
    { SERVICE "ModelMetadata",
      GROUP_METADATA,
      MESSAGES(model_metadata_request, model_metadata_response),
      NULL,
      { HTTP_GET, MODEL, NULL, "name", false, NULL } },
    { SERVICE "ModelConfig",
      GROUP_MODEL_CONFIG,
      MESSAGES(model_config_request, model_config_response),
      NULL,
      { HTTP_GET, MODEL "/config", NULL, "name", false, "config" } },
    { SERVICE "ModelStatistics",
      GROUP_STATISTICS,
      MESSAGES(model_statistics_request, model_statistics_response),
      NULL,
      { HTTP_GET, MODEL "/stats", "/v2/models/stats", "name", false, NULL } },
    { SERVICE "RepositoryIndex",
      GROUP_MODEL_REPOSITORY,
      MESSAGES(repository_index_request, repository_index_response),
      NULL,
      { HTTP_POST, REPOSITORY "/index", REPOSITORY "/index", NULL, false, "models" } },
    { SERVICE "RepositoryModelLoad",
      GROUP_MODEL_REPOSITORY,
      MESSAGES(repository_model_load_request, repository_model_load_response),
      NULL,
      { HTTP_POST, REPOSITORY "/models/{model}/load", NULL, "model_name", false, NULL } },
    { SERVICE "RepositoryModelUnload",
      GROUP_MODEL_REPOSITORY,
      MESSAGES(repository_model_unload_request, repository_model_unload_response),
      NULL,
      { HTTP_POST, REPOSITORY "/models/{model}/unload", NULL, "model_name", false, NULL } },
    { SERVICE "LogSettings",
      GROUP_LOGGING,
      MESSAGES(log_settings_request, log_settings_response),
      NULL,
      { HTTP_POST, "/v2/logging", "/v2/logging", NULL, true, "settings" } },
    { SERVICE "TraceSetting",
      GROUP_TRACE,
      MESSAGES(trace_setting_request, trace_setting_response),
      NULL,
      { HTTP_POST, "/v2/models/{model}/trace/setting", "/v2/trace/setting", "model_name", true,
        "settings" } },
    { SERVICE "SystemSharedMemoryStatus",
      GROUP_SHARED_MEMORY,
      MESSAGES(system_shared_memory_status_request, system_shared_memory_status_response),
      NULL,
      { HTTP_GET, SYSTEM "[/region/{region}]/status", SYSTEM "[/region/{region}]/status", "name",
        false, "regions" } },
    { SERVICE "SystemSharedMemoryRegister",
      GROUP_SHARED_MEMORY,
      MESSAGES(system_shared_memory_register_request, system_shared_memory_register_response),
      NULL,
      { HTTP_POST, SYSTEM "/region/{region}/register", NULL, "name", false, NULL } },
    { SERVICE "SystemSharedMemoryUnregister",
      GROUP_SHARED_MEMORY,
      MESSAGES(system_shared_memory_unregister_request, system_shared_memory_unregister_response),
      NULL,
      { HTTP_POST, SYSTEM "[/region/{region}]/unregister", SYSTEM "[/region/{region}]/unregister",
        "name", false, NULL } },
    { SERVICE "CudaSharedMemoryStatus",
      GROUP_SHARED_MEMORY,
      MESSAGES(cuda_shared_memory_status_request, cuda_shared_memory_status_response),
      NULL,
      { HTTP_GET, CUDA "[/region/{region}]/status", CUDA "[/region/{region}]/status", "name", false,
        "regions" } },
    { SERVICE "CudaSharedMemoryRegister",
      GROUP_SHARED_MEMORY,
      MESSAGES(cuda_shared_memory_register_request, cuda_shared_memory_register_response),
      NULL,
      { HTTP_POST, CUDA "/region/{region}/register", NULL, "name", false, NULL } },
    { SERVICE "CudaSharedMemoryUnregister",
      GROUP_SHARED_MEMORY,
      MESSAGES(cuda_shared_memory_unregister_request, cuda_shared_memory_unregister_response),
      NULL,
      { HTTP_POST, CUDA "[/region/{region}]/unregister", CUDA "[/region/{region}]/unregister",
        "name", false, NULL } },
    { "/grpc.health.v1.Health/Check",
      GROUP_HEALTH,
      NULL,
      &grpc__health__v1__health_check_request__descriptor,
      &grpc__health__v1__health_check_response__descriptor,
      grpc_health_check,
      { 0 } },
    { "/grpc.health.v1.Health/List",
      GROUP_HEALTH,
      NULL,
      &grpc__health__v1__health_list_request__descriptor,
      &grpc__health__v1__health_list_response__descriptor,
      grpc_health_list,
      { 0 } },
    { "/grpc.health.v1.Health/Watch", GROUP_HEALTH, &grpc_health_watch, NULL, NULL, NULL, { 0 } },
    { "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
      GROUP_METADATA,
      &grpc_reflection,
      NULL,
      NULL,
      NULL,
      { 0 } },
    { "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      GROUP_METADATA,
      &grpc_reflection,
      NULL,
      NULL,
      NULL,
      { 0 } },
};

#define RPC_COUNT (sizeof rpcs / sizeof rpcs[0])

const struct grpc_rpc *grpc_rpc_at(uint32_t index)
{
    return index < RPC_COUNT ? &rpcs[index] : NULL;
}

bool grpc_rpc_is(const struct exchange *x)
{
    static const char *const services[] = { SERVICE, "/grpc." };
    if (x->method != HTTP_POST) {
        return false;
    }
    if (x->version == HTTP_2 && grpc_is_type(exchange_field(x, "content-type"))) {
        return true;
    }
    for (size_t i = 0; i < sizeof services / sizeof services[0]; i++) {
        const size_t size = strlen(services[i]);
        if (x->path.size > size && memcmp(x->path.data, services[i], size) == 0) {
            return true;
        }
    }
    return false;
}

const struct grpc_rpc *grpc_rpc_find(struct bytes path)
{
    for (size_t i = 0; i < RPC_COUNT; i++) {
        if (bytes_equal(path, bytes_of(rpcs[i].path))) {
            return &rpcs[i];
        }
    }
    return NULL;
}

/* --- Whole messages --- */

struct whole {
    struct call *call;
    struct buffer message;
    struct buffer json;  /* The body of the REST request that says the same. */
    uint64_t held_bytes; /* Counted with the bodies. */
    const ProtobufCMessage *request;
    struct arena_disposable close;
    bool answering;
};

static void close_whole(struct arena_disposable *disposable)
{
    struct whole *self = list_entry(disposable, struct whole, close);
    body_let_go(self->held_bytes);
    buffer_finish(&self->message);
    buffer_finish(&self->json);
}

static void begin(struct grpc_call *grpc, uint64_t size)
{
    struct whole *self = arena_try_zero(&grpc->x->arena, 1, sizeof *self);
    if (self == NULL) {
        grpc_finish(grpc, WEIR_ENOMEM, "out of memory for this request");
        return;
    }
    self->call = grpc->x->user;
    self->close.dispose = close_whole;
    buffer_init(&self->message, size);
    buffer_init(&self->json, JSON_FREE_BYTES + JSON_GROWTH_MAX * size);
    arena_dispose(&grpc->x->arena, &self->close);
    grpc->user = self;
}

static void bytes(struct grpc_call *grpc, struct bytes part)
{
    struct whole *self = grpc->user;
    struct weir_err err;
    if (body_try_hold(part.size, grpc->x->loop->limits, &err) != WEIR_OK) {
        grpc_finish(grpc, err.status, err.text);
        return;
    }
    self->held_bytes += part.size;
    buffer_append(&self->message, part.data, part.size);
    if (self->message.failed) {
        grpc_finish(grpc, WEIR_ENOMEM, "out of memory for this request");
    }
}

static const struct route *find_route(enum http_method method, const char *pattern)
{
    const struct route *route;
    for (uint32_t i = 0; (route = route_at(i)) != NULL; i++) {
        if (route->method == method && strcmp(route->pattern, pattern) == 0) {
            return route;
        }
    }
    return NULL;
}

static enum weir_status read_version(struct call *call, struct bytes version, struct weir_err *err)
{
    if (version.size == 0) {
        return WEIR_OK;
    }
    call->match.has_version = true;
    if (!bytes_to_u64(version, INT64_MAX, &call->match.version) || call->match.version == 0) {
        return err_set(
            err, WEIR_EINVAL,
            "failed to get model version from specified version string '%.*s': version should be "
            "an integral value > 0",
            version.size > 40 ? 40 : (int)version.size, version.data);
    }
    return WEIR_OK;
}

/* Settings are asked for by setting none. */
static bool asks_only(const struct grpc_route *route, const ProtobufCMessage *request)
{
    return route->settings && grpc_message_count(request, "settings") == 0;
}

/* Fills in what a path would have said. */
static enum weir_status read_names(struct call *call, const ProtobufCMessage *request,
                                   struct weir_err *err)
{
    const struct grpc_route *route = &call->rpc->route;
    const struct bytes repository = grpc_message_string(request, "repository_name");
    struct bytes name =
        route->name == NULL ? BYTES_LITERAL("") : grpc_message_string(request, route->name);
    if (name.size == 0 && strcmp(route->name == NULL ? "" : route->name, "model_name") == 0 &&
        repository.size > 0) {
        name = repository; /* KServe's own layout of this message. */
    } else if (repository.size > 0) {
        call->match.name = repository;
    }
    const bool bare = name.size == 0 && route->bare != NULL;
    call->match.route = find_route(asks_only(route, request) ? HTTP_GET : route->method,
                                   bare ? route->bare : route->pattern);
    if (name.size == 0) {
        if (bare) {
            return WEIR_OK;
        }
        return err_set(err, WEIR_EINVAL, "%s: found nothing, expected a name", route->name);
    }
    if (call->rpc->group == GROUP_SHARED_MEMORY) {
        call->match.name = name;
        return WEIR_OK;
    }
    call->match.model = name;
    const enum weir_status status = call_take_model(call, name, err);
    return status != WEIR_OK ? status
                             : read_version(call, grpc_message_string(request, "version"), err);
}

static void transcode(struct call *call, struct whole *self)
{
    struct weir_err err;
    if (read_names(call, self->request, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    if (self->json.failed) {
        call_fail(call, WEIR_ENOMEM, "the request takes too much memory");
        return;
    }
    call->body = (struct bytes){ self->json.data, self->json.size };
    demand_handle(call);
}

/* Perhaps on a worker's thread. */
static void read_request(struct call *call)
{
    struct whole *self = call->grpc->user;
    const struct grpc_rpc *rpc = call->rpc;
    const struct bytes message = { self->message.data, self->message.size };
    self->request = grpc_message_read(rpc->request, message, &call->x->arena);
    if (self->request != NULL && rpc->handle == NULL && rpc->route.method == HTTP_POST &&
        !asks_only(&rpc->route, self->request)) {
        grpc_json_write(self->request, rpc->route.settings ? "settings" : NULL, &self->json);
    }
}

static void handle_request(struct call *call)
{
    struct whole *self = call->grpc->user;
    if (self->request == NULL) {
        call_fail(call, WEIR_EINVAL, "the request is no message of this call");
    } else if (call->x->loop->now_ns >= call->grpc->deadline_ns) {
        call_fail(call, WEIR_ETIMEOUT, "the deadline passed before the request had arrived");
    } else if (call->rpc->handle != NULL) {
        call->rpc->handle(call, self->request);
    } else {
        transcode(call, self);
    }
}

static void end(struct grpc_call *grpc)
{
    struct whole *self = grpc->user;
    self->answering = true;
    if (self->message.size > CALL_INLINE_JSON_BYTES) {
        (void)call_run(self->call, read_request, handle_request);
    } else {
        read_request(self->call);
        handle_request(self->call);
    }
}

/* A handler that has the request answers in its own time, though nobody waits any more. */
static void canceled(struct grpc_call *grpc)
{
    struct whole *self = grpc->user;
    if (self == NULL || !self->answering) {
        grpc_finish(grpc, WEIR_ECANCELED, NULL);
    } else if (self->call->canceled != NULL) {
        self->call->canceled(self->call);
    }
}

static const struct grpc_reader whole_reader = {
    .unary = true,
    .begin = begin,
    .bytes = bytes,
    .end = end,
    .canceled = canceled,
};

/* --- Answers --- */

void grpc_rpc_reply(struct call *call, const ProtobufCMessage *message)
{
    const struct bytes packed = grpc_message_write(message, &call->x->arena);
    if (packed.data == NULL) {
        grpc_finish(call->grpc, WEIR_ENOMEM, "out of memory for the answer");
        return;
    }
    grpc_send(call->grpc, &packed, 1);
    grpc_finish(call->grpc, WEIR_OK, NULL);
}

void grpc_rpc_reply_json(struct call *call, struct bytes json)
{
    struct weir_err err;
    yyjson_doc *doc = NULL;
    ProtobufCMessage *message = grpc_message_create(call->rpc->answer, &call->x->arena);
    enum weir_status status = message == NULL
                                  ? err_nomem(&err, "the answer", call->rpc->answer->sizeof_message)
                                  : WEIR_OK;
    if (status == WEIR_OK && json.size > 0) {
        status = json_read(json, &doc, &err);
    }
    if (status == WEIR_OK && doc != NULL) {
        status = grpc_json_read(yyjson_doc_get_root(doc), call->rpc->route.wrap, message,
                                &call->x->arena, &err);
    }
    yyjson_doc_free(doc);
    if (status != WEIR_OK) {
        grpc_finish(call->grpc, status, err.text);
        return;
    }
    grpc_rpc_reply(call, message);
}

void grpc_rpc_fail(struct call *call, enum weir_status status, const char *text,
                   uint32_t retry_after_s)
{
    if (retry_after_s > 0) {
        call->grpc->pushback_ms = (uint64_t)retry_after_s * 1000;
    }
    grpc_finish(call->grpc, status, text);
}

static void server_live(struct call *call, const ProtobufCMessage *request)
{
    (void)request;
    Inference__ServerLiveResponse answer = INFERENCE__SERVER_LIVE_RESPONSE__INIT;
    answer.live = call_is_live(call);
    grpc_rpc_reply(call, &answer.base);
}

static void server_ready(struct call *call, const ProtobufCMessage *request)
{
    (void)request;
    Inference__ServerReadyResponse answer = INFERENCE__SERVER_READY_RESPONSE__INIT;
    answer.ready = call_is_ready(call);
    grpc_rpc_reply(call, &answer.base);
}

/* Like Triton's: what cannot be asked is not ready, which is an answer and no error. */
static void model_ready(struct call *call, const ProtobufCMessage *request)
{
    const Inference__ModelReadyRequest *asked =
        (const Inference__ModelReadyRequest *)(const void *)request;
    Inference__ModelReadyResponse answer = INFERENCE__MODEL_READY_RESPONSE__INIT;
    struct weir_err err;
    struct model *model = NULL;
    if (read_version(call, bytes_of(asked->version), &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    const bool known = call_take_model(call, bytes_of(asked->name), &err) == WEIR_OK;
    if (known && catalogue_is_due(call_catalogue(call), call->model, call->match.version)) {
        answer.ready = true; /* It will be, for whoever asks. */
    } else if (known && call_lease_ready(call, &model, &err) == WEIR_OK) {
        answer.ready = true;
        model_release(model);
    }
    grpc_rpc_reply(call, &answer.base);
}

/* --- The beginning --- */

void grpc_rpc_open(struct call *call, const struct grpc_rpc *rpc)
{
    const struct limits *limits = call->api->options.limits;
    const struct grpc_reader *reader = rpc->reader == NULL ? &whole_reader : rpc->reader;
    const uint64_t bytes_max = rpc->reader == NULL ? GRPC_UNARY_BYTES_MAX : limits->body_bytes_max;
    call->rpc = rpc;
    if (reader->drain != NULL && call->loop->draining) {
        call->grpc_status = WEIR_EDRAINING;
        grpc_fail(call->x, WEIR_EDRAINING, NULL, 0);
        return;
    }
    call->grpc = grpc_open(call->x, reader, bytes_max);
    if (call->grpc == NULL) {
        call->grpc_status = WEIR_EINVAL;
    } else if (reader->drain != NULL) {
        list_append(&call->loop->streams, &call->stream);
    }
}
