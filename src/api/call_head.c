/*
 * What a header comes to.
 *
 * The fields that matter are picked out in one pass, the path finds its row in the table of routes
 * (or of rpcs), the row says who may ask and how large the body may be.
 *
 * Clients send the same header again and again.  What net remembers of a connection's headers has
 * room for what one came to: the next equal one is only authorised.
 */
#include "api/call_head.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/access.h"
#include "api/call.h"
#include "api/grpc_rpc.h"
#include "api/kserve_rest.h"

#define IGNORED_BODY_BYTES 65536 /* Tolerated where no body is wanted. */
#define NAME_BYTES_MAX 128       /* Of a model. */
#define REQUEST_ID_BYTES_MAX 128
#define TRACEPARENT_BYTES 55

static const struct bytes field_names[] = {
#define CALL_FIELD_NAME(name, field) { field, sizeof(field) - 1 },
    CALL_FIELDS(CALL_FIELD_NAME)
#undef CALL_FIELD_NAME
};

static void read_fields(struct call *call)
{
    const struct exchange *x = call->x;
    for (uint32_t i = 0; i < x->field_count; i++) {
        const struct http_field *field = &x->fields[i];
        for (int k = 0; k < FIELD_COUNT; k++) {
            if (field->name.size == field_names[k].size && call->fields[k].data == NULL &&
                bytes_equal_nocase(field->name, field_names[k])) {
                call->fields[k] = field->value;
                break;
            }
        }
    }
}

/* An id that may be repeated in a header and in a log. */
static bool is_request_id(struct bytes text)
{
    if (text.size == 0 || text.size > REQUEST_ID_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] <= ' ' || text.data[i] > '~') {
            return false;
        }
    }
    return true;
}

/* W3C trace context, version 00: "00-<32 hex>-<16 hex>-<2 hex>". */
static bool is_traceparent(struct bytes text)
{
    if (text.size != TRACEPARENT_BYTES) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        const char c = text.data[i];
        const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (i == 2 || i == 35 || i == 52 ? c != '-' : !hex) {
            return false;
        }
    }
    return true;
}

/* What ties this answer to its client's and the server's logs. */
static void name_request(struct call *call)
{
    struct bytes *id = &call->fields[FIELD_REQUEST_ID];
    struct bytes *trace = &call->fields[FIELD_TRACEPARENT];
    if (!is_request_id(*id)) {
        *id = (struct bytes){ NULL, 0 };
        if (atomic_load_explicit(&call->api->access_log, memory_order_relaxed)) {
            char *made = arena_try_alloc(&call->x->arena, 33);
            if (made != NULL) {
                (void)snprintf(made, 33, "%016" PRIx64 "%016" PRIx64,
                               call->api->request_salt + (uint64_t)(uintptr_t)call->loop,
                               ++call->loop->request_number);
                *id = (struct bytes){ made, 32 };
            }
        }
    }
    if (id->data != NULL) {
        exchange_header(call->x, "X-Request-Id", *id);
    }
    if (!is_traceparent(*trace)) {
        *trace = (struct bytes){ NULL, 0 };
    }
    if (trace->data != NULL) {
        exchange_header(call->x, "traceparent", *trace);
    }
}

static bool is_model_name(struct bytes name)
{
    if (name.size == 0 || name.size > NAME_BYTES_MAX || name.data[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        const char c = name.data[i];
        const char lower = (char)(c | 0x20);
        if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_' &&
            c != '-') {
            return false;
        }
    }
    return true;
}

static enum route_group group_of(const struct call *call)
{
    return call->rpc != NULL ? call->rpc->group : call->match.route->group;
}

static enum weir_status unknown_model(const struct call *call, struct bytes raw,
                                      struct weir_err *err)
{
    const bool load = group_of(call) == GROUP_MODEL_REPOSITORY;
    return err_set(err, load ? WEIR_EINVAL : WEIR_ENOENT,
                   "Request for unknown model: '%.*s' is not found: names have 1 to 128 of the "
                   "characters A-Z a-z 0-9 . _ - and no leading dot",
                   raw.size > 160 ? 160 : (int)raw.size, raw.data);
}

/* A name that breaks the rule names no model; a path may spell its letters in percent. */
static enum weir_status read_model_name(struct call *call, struct weir_err *err)
{
    const struct bytes raw = call->match.model;
    call->model = raw;
    if (raw.data == NULL || is_model_name(raw)) {
        return WEIR_OK;
    }
    char decoded[NAME_BYTES_MAX];
    size_t size = 0;
    if (bytes_decode_percent(raw, decoded, sizeof(decoded), &size) &&
        is_model_name((struct bytes){ decoded, size })) {
        char *copy = arena_try_strndup(&call->x->arena, decoded, size);
        if (copy == NULL) {
            return err_nomem(err, "a model name", size);
        }
        call->model = (struct bytes){ copy, size };
        return WEIR_OK;
    }
    return unknown_model(call, raw, err);
}

enum weir_status call_take_model(struct call *call, struct bytes name, struct weir_err *err)
{
    call->model = name;
    return is_model_name(name) ? WEIR_OK : unknown_model(call, name, err);
}

static enum weir_status authorise(struct call *call, struct weir_err *err)
{
    return access_enter(call->api->options.access, call, group_of(call), err);
}

/* Where in the body the first tensor begins, when the client says so. */
static uint64_t json_size(const struct call *call)
{
    uint64_t size = 0;
    return bytes_to_u64(call->fields[FIELD_JSON_SIZE], SIZE_MAX / 2, &size) ? size : 0;
}

static void set_body_rules(struct call *call)
{
    const struct limits *limits = call->api->options.limits;
    struct exchange *x = call->x;
    switch (call->match.route->body) {
    case BODY_NONE:
        x->body_bytes_max = IGNORED_BODY_BYTES;
        break;
    case BODY_SETTINGS:
        x->body_bytes_max = limits->json_bytes_max < CALL_INLINE_JSON_BYTES
                                ? limits->json_bytes_max
                                : CALL_INLINE_JSON_BYTES;
        break;
    case BODY_JSON:
        x->body_bytes_max = limits->json_bytes_max;
        break;
    case BODY_TENSORS:
        x->body_bytes_max = call->fields[FIELD_JSON_SIZE].data == NULL ? limits->json_bytes_max
                                                                       : limits->body_bytes_max;
        x->body_align_at = (size_t)json_size(call);
        kserve_rest_receive(call);
        break;
    }
}

static void fail_method(struct call *call, uint32_t allow)
{
    char methods[ROUTE_ALLOW_BYTES];
    exchange_header(call->x, "Allow", bytes_of(route_allow_format(allow, methods)));
    struct weir_err err;
    (void)err_set(&err, WEIR_EMETHOD, "this method is not allowed here: expected %s", methods);
    call_fail_err(call, &err);
}

/* What this header came to when it was read the first time. */
struct call_memo {
    struct bytes fields[FIELD_COUNT];
    struct route_match match;
    struct bytes model;
    const struct grpc_rpc *rpc; /* NULL: REST. */
    struct call_lease leased;
};

static_assert(sizeof(struct call_memo) <= HTTP_MEMO_BYTES, "a call fits in net's memo");

static struct call_memo *memo_of(const struct http_memo *memo)
{
    return (struct call_memo *)(void *)(uintptr_t)memo->bytes;
}

/* Everything in it must live as long as the header. */
static void remember(const struct call *call, const struct bytes *fields)
{
    struct http_memo *memo = exchange_memo(call->x);
    if (memo == NULL || call->model.data != call->match.model.data) {
        return;
    }
    struct call_memo *self = memo_of(memo);
    memcpy(self->fields, fields, sizeof self->fields);
    self->match = call->match;
    self->model = call->model;
    self->rpc = call->rpc;
    memo->set = true;
}

static void enter_grpc(struct call *call)
{
    struct weir_err err;
    call->grpc_status = authorise(call, &err);
    if (call->grpc_status != WEIR_OK) {
        grpc_fail(call->x, err.status, err.text, call->retry_s * 1000);
    } else {
        grpc_rpc_open(call, call->rpc);
    }
}

static void handle_grpc_head(struct call *call, const struct bytes *fields)
{
    struct exchange *x = call->x;
    struct weir_err err;
    if (x->version != HTTP_2) {
        exchange_fail(x, WEIR_EINVAL, "gRPC is spoken over HTTP/2", 0);
        return;
    }
    if (!grpc_is_type(exchange_field(x, "content-type"))) {
        exchange_fail(x, WEIR_EENCODING, "Content-Type: expected application/grpc", 0);
        return;
    }
    call->is_grpc = true;
    call->rpc = grpc_rpc_find(x->path);
    if (call->rpc == NULL) {
        call->grpc_status = err_set(&err, WEIR_EUNSUPPORTED, "there is no call '%.*s'",
                                    x->path.size > 160 ? 160 : (int)x->path.size, x->path.data);
        grpc_fail(x, err.status, err.text, 0);
        return;
    }
    remember(call, fields);
    enter_grpc(call);
}

static void enter_rest(struct call *call)
{
    struct weir_err err;
    if (authorise(call, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    set_body_rules(call);
}

static void handle_rest_head(struct call *call, const struct bytes *fields)
{
    const struct exchange *x = call->x;
    uint32_t allow = 0;
    const enum weir_status status = route_find(x->method, x->path, &call->match, &allow);
    if (status == WEIR_EMETHOD) {
        if (!access_preflight(call->api->options.access, call, allow)) {
            fail_method(call, allow);
        }
        return;
    }
    struct weir_err err;
    if (status != WEIR_OK) {
        (void)err_set(&err, status, "Not Found: there is no '%.*s' here; GET / lists what is",
                      x->path.size > 160 ? 160 : (int)x->path.size, x->path.data);
        call_fail_err(call, &err);
        return;
    }
    if (read_model_name(call, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    remember(call, fields);
    enter_rest(call);
}

/* A header that was here before. */
static void handle_known_head(struct call *call, struct call_memo *memo)
{
    memcpy(call->fields, memo->fields, sizeof call->fields);
    call->match = memo->match;
    call->model = memo->model;
    call->rpc = memo->rpc;
    call->is_grpc = memo->rpc != NULL;
    name_request(call);
    access_share(call->api->options.access, call);
    if (call->is_grpc) {
        enter_grpc(call);
    } else {
        call->leased = &memo->leased;
        enter_rest(call);
    }
}

void call_head(void *context, struct exchange *x)
{
    struct call *call = arena_try_zero(&x->arena, 1, sizeof *call);
    if (call == NULL) {
        exchange_fail(x, WEIR_ENOMEM, "out of memory for this request", 1);
        return;
    }
    call->x = x;
    call->api = context;
    call->loop = x->loop->user;
    x->user = call;
    const struct http_memo *memo = exchange_memo(x);
    if (memo != NULL && memo->set) {
        handle_known_head(call, memo_of(memo));
        return;
    }
    read_fields(call);
    struct bytes fields[FIELD_COUNT]; /* As they came. */
    memcpy(fields, call->fields, sizeof fields);
    name_request(call);
    access_share(call->api->options.access, call);
    if (grpc_rpc_is(x)) {
        handle_grpc_head(call, fields);
    } else {
        handle_rest_head(call, fields);
    }
}
