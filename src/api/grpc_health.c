/*
 * Watchers look twice a second: readiness changes rarely, and nobody pays while nobody watches.
 * That the server stops is told at once.
 */
#include "api/grpc_health.h"

#include "api/grpc_json.h"
#include "api/grpc_rpc.h"
#include "health.pb-c.h"

#define LOOK_NS (500 * NS_PER_MS)
#define REQUEST_BYTES_MAX 1024
#define SERVICE "inference.GRPCInferenceService"

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

static serving_status status_if(bool good)
{
    return good ? SERVING : NOT_SERVING;
}

static serving_status status_of(struct call *call, struct bytes service)
{
    if (service.size == 0 || bytes_equal(service, BYTES_LITERAL(SERVICE))) {
        return status_if(call_is_ready(call));
    }
    const struct catalogue_entry *entry = catalogue_find(call_catalogue(call), service);
    return entry == NULL ? SERVICE_UNKNOWN : status_if(entry->latest != NULL);
}

void grpc_health_check(struct call *call, const ProtobufCMessage *request)
{
    const struct bytes service = grpc_message_string(request, "service");
    Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    answer.status = status_of(call, service);
    if (answer.status == SERVICE_UNKNOWN) {
        struct weir_err err;
        (void)err_set(&err, WEIR_ENOENT, "health of '%.*s': there is no such service or model",
                      service.size > 160 ? 160 : (int)service.size, service.data);
        call_fail_err(call, &err);
        return;
    }
    grpc_rpc_reply(call, &answer.base);
}

void grpc_health_list(struct call *call, const ProtobufCMessage *request)
{
    (void)request;
    const struct catalogue *catalogue = call_catalogue(call);
    struct buffer json;
    buffer_init(&json, call->api->options.limits->response_bytes_max);
    const char *server = call_is_ready(call) ? "SERVING" : "NOT_SERVING";
    buffer_printf(&json, "{\"statuses\":{\"\":{\"status\":\"%s\"},\"%s\":{\"status\":\"%s\"}",
                  server, SERVICE, server);
    for (uint32_t i = 0; i < catalogue->count; i++) {
        buffer_char(&json, ',');
        json_string(&json, catalogue->list[i].name);
        buffer_text(&json, catalogue->list[i].latest != NULL ? ":{\"status\":\"SERVING\"}"
                                                             : ":{\"status\":\"NOT_SERVING\"}");
    }
    buffer_text(&json, "}}");
    const struct bytes kept = call_keep(call, &json);
    buffer_finish(&json);
    if (kept.data == NULL) {
        call_fail(call, WEIR_ENOMEM, "out of memory for the answer");
        return;
    }
    grpc_rpc_reply_json(call, kept);
}

/* --- Watch --- */

/* HealthCheckResponses by their status: lent for as long as a client takes to read them. */
static const char answers[][2] = { { 8, 0 }, { 8, 1 }, { 8, 2 }, { 8, 3 } };

struct watch {
    struct grpc_call *grpc;
    struct loop_timer timer;
    struct arena_disposable close;
    char request[REQUEST_BYTES_MAX];
    size_t request_size;
    struct bytes service;
    bool told; /* `status` was said. */
    serving_status status;
};

static void close_watch(struct arena_disposable *disposable)
{
    struct watch *self = list_entry(disposable, struct watch, close);
    loop_timer_clear(self->grpc->x->loop, &self->timer);
}

static void look(struct watch *self)
{
    struct call *call = self->grpc->x->user;
    const serving_status status = status_of(call, self->service);
    loop_timer_set(call->x->loop, &self->timer, clock_add(call->x->loop->now_ns, LOOK_NS));
    if (self->told && status == self->status) {
        return;
    }
    self->told = true;
    self->status = status;
    const struct bytes answer = { answers[status], sizeof answers[status] };
    grpc_send(self->grpc, &answer, 1);
}

static void fire(struct loop_timer *timer)
{
    struct watch *self = list_entry(timer, struct watch, timer);
    if (!self->grpc->finished && !self->grpc->canceled) {
        look(self);
    }
}

static void begin(struct grpc_call *grpc, uint64_t size)
{
    struct watch *self = grpc->user;
    if (self != NULL || size > REQUEST_BYTES_MAX) {
        grpc_finish(grpc, WEIR_EINVAL,
                    self != NULL ? "this call takes one message, and a second one came"
                                 : "the name of the service is too long");
        return;
    }
    self = arena_try_zero(&grpc->x->arena, 1, sizeof *self);
    if (self == NULL) {
        grpc_finish(grpc, WEIR_ENOMEM, "out of memory for this call");
        return;
    }
    self->grpc = grpc;
    self->timer.fire = fire;
    self->close.dispose = close_watch;
    arena_dispose(&grpc->x->arena, &self->close);
    grpc->user = self;
}

static void bytes(struct grpc_call *grpc, struct bytes part)
{
    struct watch *self = grpc->user;
    memcpy(self->request + self->request_size, part.data, part.size);
    self->request_size += part.size;
}

static void end(struct grpc_call *grpc)
{
    struct watch *self = grpc->user;
    const ProtobufCMessage *request =
        grpc_message_read(&grpc__health__v1__health_check_request__descriptor,
                          (struct bytes){ self->request, self->request_size }, &grpc->x->arena);
    if (request == NULL) {
        grpc_finish(grpc, WEIR_EINVAL, "the request is no message of this call");
        return;
    }
    self->service = grpc_message_string(request, "service");
    look(self);
}

static void half_closed(struct grpc_call *grpc)
{
    if (grpc->user == NULL) {
        grpc_finish(grpc, WEIR_EINVAL, "this call takes one message, and none came");
    }
}

static void canceled(struct grpc_call *grpc)
{
    grpc_finish(grpc, WEIR_ECANCELED, NULL);
}

/* Between two looks of its own. */
static void tell(struct grpc_call *grpc)
{
    struct watch *self = grpc->user;
    if (self != NULL && self->told && !grpc->finished && !grpc->canceled) {
        look(self);
    }
}

/* The last word is that nothing is served any more. */
static void drain(struct grpc_call *grpc)
{
    struct watch *self = grpc->user;
    if (self != NULL && self->told) {
        look(self);
    }
    grpc_finish(grpc, WEIR_EDRAINING, NULL);
}

const struct grpc_reader grpc_health_watch = {
    .begin = begin,
    .bytes = bytes,
    .end = end,
    .half_closed = half_closed,
    .canceled = canceled,
    .drain = drain,
    .tell = tell,
};
