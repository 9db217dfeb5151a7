/*
 * The way of an exchange through the api.
 *
 *   head       fields are picked out in one pass, the path finds its row in the table of routes,
 *              the row says how large the body may be and who may ask
 *   request    a compressed body is inflated (by a worker: a little text can become much),
 *              then the row's handler has the call
 *   done       counted, and written to the access log
 *
 * Each loop is a home of the engine's.  Its hook runs at the end of every turn, so that all
 * answers which came home in that turn are written together.
 */
#include "api/api.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/access.h"
#include "api/admin.h"
#include "api/call.h"
#include "api/demand.h"
#include "api/grpc_rpc.h"
#include "api/infer_json.h"
#include "api/infer_recall.h"
#include "api/kserve_grpc_job.h"
#include "api/kserve_rest.h"
#include "net/encoding.h"
#include "util/log.h"
#include "util/map.h"
#include "util/mem.h"

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

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Decodes %XX once into `out`, which has room for NAME_BYTES_MAX; false when malformed or
 * longer. */
static bool decode_percent(struct bytes text, char *out, size_t *size)
{
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '%') {
            if (text.size - i < 3 || hex_value(text.data[i + 1]) < 0 ||
                hex_value(text.data[i + 2]) < 0) {
                return false;
            }
            c = (char)(hex_value(text.data[i + 1]) * 16 + hex_value(text.data[i + 2]));
            i += 2;
        }
        if (count == NAME_BYTES_MAX) {
            return false;
        }
        out[count++] = c;
    }
    *size = count;
    return true;
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
    if (decode_percent(raw, decoded, &size) && is_model_name((struct bytes){ decoded, size })) {
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
        grpc_fail(call->x, err.status, err.text);
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
        grpc_fail(x, err.status, err.text);
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

static void handle_head(void *context, struct exchange *x)
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

/* A body that came compressed. */
struct inflation {
    struct arena_disposable release;
    struct api *api;
    enum encoding encoding;
    struct buffer out;
    uint64_t bytes; /* Counted in api.inflated_bytes. */
    struct weir_err err;
};

static void release_inflation(struct arena_disposable *disposable)
{
    struct inflation *self = (struct inflation *)(void *)disposable;
    atomic_fetch_sub_explicit(&self->api->inflated_bytes, self->bytes, memory_order_relaxed);
    buffer_finish(&self->out);
}

/* Books `wanted` bytes, or as many as are left.  What bodies become counts towards the same limit
 * as what they were, and before it is there: several may be growing at a time. */
static uint64_t book(struct api *api, uint64_t wanted)
{
    const uint64_t bytes_max = api->options.limits->bodies_bytes_max;
    uint64_t before = atomic_load_explicit(&api->inflated_bytes, memory_order_relaxed);
    uint64_t got;
    do {
        const uint64_t used = before + http_bodies_bytes();
        const uint64_t left = used < bytes_max ? bytes_max - used : 0;
        got = wanted < left ? wanted : left;
    } while (!atomic_compare_exchange_weak_explicit(&api->inflated_bytes, &before, before + got,
                                                    memory_order_relaxed, memory_order_relaxed));
    return got;
}

static void inflate_body(struct call *call)
{
    struct inflation *self = call->state;
    const struct limits *limits = call->api->options.limits;
    const struct bytes in = call->x->body;
    const size_t size_max =
        encoding_inflated_max(in.size, limits->inflate_ratio_max, (size_t)call->x->body_bytes_max);
    self->bytes = book(self->api, size_max);
    buffer_init(&self->out, (size_t)self->bytes);
    self->err.status =
        encoding_inflate(self->encoding, in, limits->inflate_ratio_max, &self->out, &self->err);
    if (self->err.status == WEIR_ETOOBIG && self->bytes < size_max) {
        (void)err_set(&self->err, WEIR_EFULL,
                      "too many bytes of bodies in flight: expected at most %" PRIu64
                      " (bodies_bytes_max)",
                      limits->bodies_bytes_max);
    }
    const uint64_t unused = self->bytes - self->out.size;
    self->bytes -= unused;
    atomic_fetch_sub_explicit(&self->api->inflated_bytes, unused, memory_order_relaxed);
}

static void handle_inflated(struct call *call)
{
    struct inflation *self = call->state;
    call->state = NULL;
    if (self->err.status != WEIR_OK) {
        call_fail_err(call, &self->err);
        return;
    }
    call->body = (struct bytes){ self->out.data, self->out.size };
    demand_handle(call);
}

static void begin_inflating(struct call *call, enum encoding encoding)
{
    struct inflation *self = call_alloc(call, sizeof *self);
    if (self == NULL) {
        return;
    }
    self->api = call->api;
    self->encoding = encoding;
    self->release.dispose = release_inflation;
    call->state = self;
    arena_dispose(&call->x->arena, &self->release);
    (void)call_run(call, inflate_body, handle_inflated);
}

static void handle_request(void *context, struct exchange *x)
{
    (void)context;
    struct call *call = x->user;
    if (call->grpc != NULL) {
        grpc_request(call->grpc);
        return;
    }
    call->body = x->body;
    if (call->fields[FIELD_CONTENT_ENCODING].size > 0 && x->body.size > 0 &&
        call->match.route->body != BODY_NONE) {
        enum encoding encoding;
        struct weir_err err;
        if (encoding_of(call->fields[FIELD_CONTENT_ENCODING], &encoding, &err) != WEIR_OK) {
            exchange_header(x, "Accept-Encoding", BYTES_LITERAL("gzip, deflate"));
            call_fail_err(call, &err);
            return;
        }
        if (encoding != ENCODING_IDENTITY) {
            begin_inflating(call, encoding);
            return;
        }
    }
    demand_handle(call);
}

static void handle_data(void *context, struct exchange *x, struct bytes bytes)
{
    (void)context;
    const struct call *call = x->user;
    grpc_data(call->grpc, bytes);
}

static bool handle_place(void *context, struct exchange *x, char **at, size_t *room)
{
    (void)context;
    const struct call *call = x->user;
    return grpc_place(call->grpc, at, room);
}

static void handle_canceled(void *context, struct exchange *x)
{
    (void)context;
    struct call *call = x->user;
    if (call != NULL && call->grpc != NULL) {
        grpc_cancel(call->grpc);
    } else if (call != NULL && call->canceled != NULL) {
        call->canceled(call);
    }
}

static void handle_drained(void *context, struct exchange *x)
{
    (void)context;
    struct call *call = x->user;
    if (call != NULL && call->grpc != NULL) {
        grpc_drained(call->grpc);
    } else if (call != NULL && call->drained != NULL) {
        call->drained(call);
    }
}

/* Only the loop writes these, so no locked instruction is needed. */
static void add(_Atomic uint64_t *counter, uint64_t amount)
{
    const uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, before + amount, memory_order_relaxed);
}

static uint64_t received_by(const struct exchange *x)
{
    const struct call *call = x->user;
    return call != NULL && call->grpc != NULL ? call->grpc->received_bytes : x->body.size;
}

static enum weir_status grpc_status_of(const struct call *call)
{
    return call->grpc == NULL ? call->grpc_status : call->grpc->status;
}

static const char *log_text(struct exchange *x, struct bytes text)
{
    const char *copy = text.data == NULL ? "" : arena_try_strndup(&x->arena, text.data, text.size);
    return copy == NULL ? "" : copy;
}

/* Whose key it was; keys themselves are nowhere. */
static const char *key_name(const struct call *call)
{
    return call->key == NULL ? "" : call->key->name;
}

/* The last field of a line: what a call of gRPC came to.  Its HTTP status says nothing. */
static struct log_field log_grpc(const struct call *call)
{
    if (!call->is_grpc) {
        return LOG_END;
    }
    return LOG_U64("grpc_status", weir_status_grpc(grpc_status_of(call)));
}

static void write_access_log(struct exchange *x, const struct call *call)
{
    static const char *const methods[] = {
#define HTTP_METHOD_TEXT(name) #name,
        HTTP_METHODS(HTTP_METHOD_TEXT)
#undef HTTP_METHOD_TEXT
    };
    const struct bytes none = { NULL, 0 };
    const uint64_t now_ns = clock_now_ns(call->api->options.engine->clock);
    log_event(LOG_INFO, "request", LOG_STR("peer", log_text(x, x->peer)),
              LOG_STR("method", methods[x->method]), LOG_STR("target", log_text(x, x->target)),
              LOG_U64("status", (uint64_t)x->status), LOG_BYTES("received", received_by(x)),
              LOG_BYTES("sent", x->sent_bytes), LOG_MS("took_ms", now_ns - x->begun_ns),
              LOG_STR("request_id", log_text(x, call->fields[FIELD_REQUEST_ID])),
              LOG_STR("traceparent", log_text(x, call->fields[FIELD_TRACEPARENT].data == NULL
                                                     ? none
                                                     : call->fields[FIELD_TRACEPARENT])),
              LOG_STR("key", key_name(call)), LOG_STR("canceled", x->canceled ? "yes" : "no"),
              log_grpc(call));
}

static void handle_done(void *context, struct exchange *x)
{
    const struct api *api = context;
    struct api_loop *loop = x->loop->user;
    add(&loop->answers[x->status > 0 && x->status < API_CODES ? x->status : 0], 1);
    add(&loop->received_bytes, received_by(x));
    add(&loop->sent_bytes, x->sent_bytes);
    struct call *call = x->user;
    if (call == NULL) {
        return;
    }
    if (call->is_grpc) {
        add(&loop->grpc_answers[weir_status_grpc(grpc_status_of(call))], 1);
        list_remove(&call->stream);
    }
    if (atomic_load_explicit(&api->access_log, memory_order_relaxed)) {
        write_access_log(x, call);
    }
}

struct api *api_create(const struct api_options *options)
{
    struct api *api = mem_alloc(sizeof *api);
    api->options = *options;
    api->handler = (struct http_handler){
        .context = api,
        .head = handle_head,
        .data = handle_data,
        .place = handle_place,
        .request = handle_request,
        .canceled = handle_canceled,
        .done = handle_done,
        .drained = handle_drained,
    };
    api->started_ms = clock_wall_ms();
    /* The map's hash is keyed anew at each start, which makes ids differ from start to start. */
    api->request_salt = map_hash(&api->started_ms, sizeof api->started_ms);
    api_set_answers(api, options->access_log, options->timing);
    admin_logging_init(api);
    return api;
}

void api_set_answers(struct api *api, bool access_log, bool timing)
{
    atomic_store(&api->access_log, access_log);
    atomic_store(&api->timing, timing);
}

void api_destroy(struct api *api)
{
    mem_free(api);
}

static void receive_wake(struct loop_mail *mail)
{
    struct api_loop *self =
        (struct api_loop *)(void *)((char *)mail - offsetof(struct api_loop, wake));
    /* Before the hook looks, so that what is sent from here on wakes again. */
    atomic_store_explicit(&self->woken, false, memory_order_release);
}

/* Any thread: the home has mail. */
static void wake_loop(void *context)
{
    struct api_loop *self = context;
    if (!atomic_exchange_explicit(&self->woken, true, memory_order_acq_rel)) {
        loop_send(self->loop, &self->wake);
    }
}

static void fire_timer(struct loop_timer *timer)
{
    struct api_loop *self =
        (struct api_loop *)(void *)((char *)timer - offsetof(struct api_loop, timer));
    self->timer_ns = CLOCK_NEVER; /* The hook at the end of this turn does the rest. */
}

static void set_timer(struct api_loop *self)
{
    const uint64_t next_ns = home_next_ns(&self->home);
    if (next_ns == self->timer_ns) {
        return;
    }
    self->timer_ns = next_ns;
    if (next_ns == CLOCK_NEVER) {
        loop_timer_clear(self->loop, &self->timer);
    } else {
        loop_timer_set(self->loop, &self->timer, next_ns);
    }
}

static void turn(struct loop_hook *hook)
{
    struct api_loop *self =
        (struct api_loop *)(void *)((char *)hook - offsetof(struct api_loop, hook));
    home_turn(&self->home);
    if (!list_empty(&self->home.inline_models) || self->home.kick != 0) {
        /* Answering brought further requests; their short runs are for a next round of this
         * turn. */
        wake_loop(self);
    }
    set_timer(self);
    atomic_store_explicit(&self->connections, self->loop->connection_count, memory_order_relaxed);
    const uint64_t now_ns = clock_now_ns(self->api->options.engine->clock);
    if (now_ns > self->loop->now_ns) {
        histogram_observe(&self->turn_time, now_ns - self->loop->now_ns);
    }
}

void api_loop_attach(struct api_loop *self, struct api *api, struct loop *loop)
{
    const uint32_t index = atomic_load_explicit(&api->loop_count, memory_order_relaxed);
    assert(index < API_LOOPS_MAX);
    memset(self, 0, sizeof *self);
    self->api = api;
    self->loop = loop;
    self->wake.receive = receive_wake;
    self->hook.turn = turn;
    self->timer.fire = fire_timer;
    pulse_init(&self->pulse, loop);
    self->timer_ns = CLOCK_NEVER;
    list_init(&self->spare_jobs);
    self->memories = mem_alloc(API_MEMORIES * sizeof *self->memories);
    self->recalls = mem_alloc(API_RECALLS * sizeof *self->recalls);
    buffer_init(&self->scratch, api->options.limits->response_bytes_max);
    list_init(&self->named);
    list_init(&self->streams);
    home_init(&self->home, api->options.engine, wake_loop, self);
    loop->user = self;
    loop_hook_add(loop, &self->hook);
    api->loops[index] = self;
    atomic_store_explicit(&api->loop_count, index + 1, memory_order_release);
}

void api_loop_drain(struct api_loop *self)
{
    self->draining = true;
    /* Those that end are taken out by their done(), later or at once. */
    struct list_node *node = list_first(&self->streams);
    while (node != NULL) {
        struct call *call = list_entry(node, struct call, stream);
        node = list_next(&self->streams, node);
        call->grpc->reader->drain(call->grpc);
    }
}

static void receive_tell(struct loop_mail *mail)
{
    struct api_loop *self = list_entry(mail, struct api_loop, tell);
    for (struct list_node *node = list_first(&self->streams); node != NULL;
         node = list_next(&self->streams, node)) {
        struct grpc_call *grpc = list_entry(node, struct call, stream)->grpc;
        if (grpc->reader->tell != NULL) {
            grpc->reader->tell(grpc);
        }
    }
}

void api_loop_tell(struct api_loop *self)
{
    self->tell.receive = receive_tell;
    loop_send(self->loop, &self->tell);
}

void api_loop_detach(struct api_loop *self)
{
    while (self->jobs > 0) {
        loop_turn_once(self->loop); /* Their calls are gone; they come home all the same. */
    }
    kserve_grpc_job_finish_loop(self);
    home_finish(&self->home);
    buffer_finish(&self->scratch);
    mem_free(self->memories);
    mem_free(self->recalls);
}

const struct http_handler *api_handler(const struct api *api)
{
    return &api->handler;
}

void api_drain(struct api *api)
{
    atomic_store_explicit(&api->draining, true, memory_order_relaxed);
}

bool api_is_live(struct api *api, uint64_t now_ns, uint64_t patience_ns)
{
    const uint32_t count = atomic_load_explicit(&api->loop_count, memory_order_acquire);
    bool live = true;
    for (uint32_t i = 0; i < count; i++) {
        live = pulse_look(&api->loops[i]->pulse, now_ns, patience_ns) && live;
    }
    return live;
}
