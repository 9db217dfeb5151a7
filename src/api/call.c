/*
 * What handlers share.
 *
 * An answer's bytes are lent to the socket, so they must live as long as the
 * exchange's arena: small ones are copied into it, large ones hang on it with
 * the buffer that holds them.
 */
#include "api/call.h"

#include "api/grpc_rpc.h"
#include "engine/outage.h"
#include "util/json.h"
#include "util/log.h"
#include "util/mem.h"

#define KEEP_COPY_BYTES 4096
#define LIVE_PATIENCE_NS (2 * NS_PER_S) /* A loop's turns take microseconds. */
#define INLINE_MODELS 8                 /* More are written about by a worker. */

struct call_work {
    struct loop_work work;
    struct call *call;
    void (*run)(struct call *call);
    void (*done)(struct call *call);
};

struct kept_buffer {
    struct arena_disposable disposable;
    struct buffer buffer;
};

void *call_alloc(struct call *call, size_t size)
{
    void *memory = arena_try_zero(&call->x->arena, 1, size);
    if (memory == NULL) {
        call_fail(call, WEIR_ENOMEM, "out of memory for this request");
    }
    return memory;
}

bool call_is_live(struct call *call)
{
    return api_is_live(call->api, call->x->loop->now_ns, LIVE_PATIENCE_NS);
}

bool call_is_ready(struct call *call)
{
    return outage_is_ready(call->api->options.engine, call_catalogue(call)) &&
           !atomic_load_explicit(&call->api->draining, memory_order_relaxed);
}

const struct catalogue *call_catalogue(struct call *call)
{
    return registry_catalogue(call->api->options.registry, &call->loop->home);
}

enum weir_status call_lease(struct call *call, struct model **out, struct weir_err *err)
{
    if (call->match.has_version && call->match.version == 0) {
        /* To the catalogue 0 means the latest; on a path it is a version that nobody has. */
        return err_set(err, WEIR_ENOENT, "Request for unknown model: '%.*s' version 0 is not found",
                       (int)call->model.size, call->model.data);
    }
    const struct catalogue *catalogue = call_catalogue(call);
    struct call_lease *leased = call->leased;
    if (leased != NULL && leased->model != NULL && leased->generation == catalogue->generation) {
        model_acquire(leased->model); /* Which the catalogue holds. */
        *out = leased->model;
        return WEIR_OK;
    }
    const enum weir_status status =
        catalogue_lease(catalogue, call->model, call->match.version, out, err);
    if (status == WEIR_OK && leased != NULL) {
        *leased = (struct call_lease){ *out, catalogue->generation };
    }
    return status;
}

enum weir_status call_lease_ready(struct call *call, struct model **out, struct weir_err *err)
{
    struct model *model;
    enum weir_status status = call_lease(call, &model, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = outage_check_ready(model, err);
    if (status != WEIR_OK) {
        model_release(model);
        return status;
    }
    *out = model;
    return WEIR_OK;
}

enum weir_status call_json(struct call *call, bool empty, struct yyjson_doc **out,
                           struct weir_err *err)
{
    if (empty && call->body.size == 0) {
        *out = NULL;
        return WEIR_OK;
    }
    return json_read(call->body, out, err);
}

static void run_work(struct loop_work *work)
{
    struct call_work *self = (struct call_work *)(void *)work;
    self->run(self->call);
}

static void work_done(struct loop_work *work)
{
    struct call_work *self = (struct call_work *)(void *)work;
    self->done(self->call);
}

enum weir_status call_prepare_run(struct call *call, struct weir_err *err)
{
    if (call->work == NULL) {
        call->work = arena_try_zero(&call->x->arena, 1, sizeof *call->work);
    }
    return call->work == NULL ? err_nomem(err, "this request", sizeof *call->work) : WEIR_OK;
}

bool call_run(struct call *call, void (*run)(struct call *call), void (*done)(struct call *call))
{
    struct weir_err err;
    if (call_prepare_run(call, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return false;
    }
    struct call_work *work = call->work;
    *work = (struct call_work){
        .work = { .run = run_work, .done = work_done },
        .call = call,
        .run = run,
        .done = done,
    };
    loop_work(call->x->loop, &work->work);
    return true;
}

/* Whoever turns an error into an answer logs it: what is the server's fault aloud, the rest for
 * those who look for it. */
static void log_failure(const struct call *call, enum weir_status status, const char *text)
{
    const enum log_level level = weir_status_http(status) == 500 ? LOG_WARNING : LOG_DEBUG;
    if (!log_enabled(level)) {
        return;
    }
    const char *path =
        arena_try_strndup(&call->x->arena, call->x->target.data, call->x->target.size);
    log_event(level, "request failed", LOG_STR("target", path == NULL ? "" : path),
              LOG_U64("status", weir_status_http(status)), LOG_STR("error", text));
}

static void fail_after(struct call *call, enum weir_status status, const char *text,
                       uint32_t retry_after_s)
{
    log_failure(call, status, text);
    if (call->failing != NULL) {
        call->failing(call);
    }
    if (call->rpc != NULL) {
        grpc_rpc_fail(call, status, text, retry_after_s);
        return;
    }
    exchange_fail(call->x, status, text, retry_after_s);
}

void call_fail(struct call *call, enum weir_status status, const char *text)
{
    call_fail_model(call, status, text, NULL);
}

void call_fail_model(struct call *call, enum weir_status status, const char *text,
                     struct model *model)
{
    uint32_t retry_after_s = 0;
    if (weir_status_http(status) == 503 && weir_status_retry(status)) {
        retry_after_s = model == NULL ? 1 : engine_retry_after_s(call->api->options.engine, model);
    }
    fail_after(call, status, text, retry_after_s);
}

void call_fail_err(struct call *call, const struct weir_err *err)
{
    call_fail(call, err->status, err->text);
}

void call_begin_late(struct call *call, const struct request *request)
{
    static const char before[] = "{\"error\":\"";
    static const char after[] = "\"}";
    const struct bytes text = bytes_of(request_late_text(request)); /* Nothing in it to escape. */
    exchange_begin(call->x, weir_status_http(request->late_status), CALL_JSON,
                   sizeof before - 1 + text.size + sizeof after - 1);
    exchange_piece(call->x, BYTES_LITERAL(before));
    exchange_piece(call->x, text);
    exchange_piece(call->x, BYTES_LITERAL(after));
}

void call_reply(struct call *call, struct bytes json)
{
    if (call->rpc != NULL) {
        grpc_rpc_reply_json(call, json);
        return;
    }
    exchange_reply(call->x, 200, CALL_JSON, json);
}

void call_reply_empty(struct call *call)
{
    if (call->rpc != NULL) {
        grpc_rpc_reply_json(call, (struct bytes){ NULL, 0 });
        return;
    }
    exchange_reply(call->x, 200, NULL, (struct bytes){ NULL, 0 });
}

/* What a worker that writes about all models needs. */
struct render {
    struct arena_disposable close;
    const char *content_type;
    call_write_fn *write;
    struct catalogue *catalogue;
    struct buffer out;
};

static void close_render(struct arena_disposable *disposable)
{
    struct render *render = (struct render *)(void *)disposable;
    catalogue_release(render->catalogue);
    buffer_finish(&render->out);
}

static void render_by_worker(struct call *call)
{
    struct render *render = call->state;
    render->write(call, render->catalogue, &render->out);
}

static void rendered_by_worker(struct call *call)
{
    struct render *render = call->state;
    call_reply_buffer(call, render->content_type, &render->out);
}

/* Reports are given while requests are refused, but not for ever to clients that do not read. */
static bool is_flooded(const struct api *api)
{
    return http_bodies_bytes() / 2 > api->options.limits->bodies_bytes_max;
}

void call_render(struct call *call, const char *content_type, call_write_fn *write)
{
    if (is_flooded(call->api)) {
        call_fail(call, WEIR_EFULL, "too many bytes of answers wait for their clients");
        return;
    }
    struct render *render = call_alloc(call, sizeof *render);
    if (render == NULL) {
        return;
    }
    render->content_type = content_type;
    render->write = write;
    render->catalogue = registry_snapshot(call->api->options.registry);
    render->close.dispose = close_render;
    buffer_init(&render->out, call->api->options.limits->response_bytes_max);
    arena_dispose(&call->x->arena, &render->close);
    call->state = render;
    if (render->catalogue->count > INLINE_MODELS) {
        (void)call_run(call, render_by_worker, rendered_by_worker);
    } else {
        render_by_worker(call);
        rendered_by_worker(call);
    }
}

static void dispose_buffer(struct arena_disposable *disposable)
{
    struct kept_buffer *kept = (struct kept_buffer *)(void *)disposable;
    buffer_finish(&kept->buffer);
}

struct bytes call_keep(struct call *call, struct buffer *out)
{
    struct arena *arena = &call->x->arena;
    struct bytes bytes = { NULL, out->size };
    if (!out->failed && out->size <= KEEP_COPY_BYTES) {
        char *copy = arena_try_alloc(arena, out->size);
        if (copy != NULL && out->size > 0) {
            memcpy(copy, out->data, out->size);
        }
        bytes.data = copy;
    } else if (!out->failed) {
        struct kept_buffer *kept = arena_try_zero(arena, 1, sizeof *kept);
        if (kept != NULL) {
            kept->buffer = *out;
            kept->disposable.dispose = dispose_buffer;
            arena_dispose(arena, &kept->disposable);
            buffer_init(out, kept->buffer.size_max);
            bytes.data = kept->buffer.data;
        }
    }
    buffer_clear(out);
    return bytes;
}

void call_reply_buffer(struct call *call, const char *content_type, struct buffer *out)
{
    const struct bytes body = call_keep(call, out);
    if (body.data == NULL) {
        call_fail(call, WEIR_ENOMEM,
                  "out of memory for the answer, or it is above "
                  "response_bytes_max");
        return;
    }
    if (call->rpc != NULL) {
        grpc_rpc_reply_json(call, body);
        return;
    }
    exchange_reply(call->x, 200, content_type, body);
}
