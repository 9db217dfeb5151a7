/*
 * The way of an exchange through the api.
 *
 *   head       call_head: who handles it, and may this client ask
 *   request    a compressed body is inflated, then demand has the model loaded if need be,
 *              then the route's handler has the call
 *   done       tally: counted, and written to the access log
 *
 * What an rpc of gRPC sends and hears in between goes to grpc_rpc's call.
 */
#include "api/api.h"

#include "api/admin.h"
#include "api/call.h"
#include "api/call_head.h"
#include "api/demand.h"
#include "api/grpc_rpc.h"
#include "api/inflate.h"
#include "api/tally.h"
#include "net/encoding.h"
#include "util/map.h"
#include "util/mem.h"

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
            inflate_begin(call, encoding);
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

struct api *api_create(const struct api_options *options)
{
    struct api *api = mem_alloc(sizeof *api);
    api->options = *options;
    api->handler = (struct http_handler){
        .context = api,
        .head = call_head,
        .data = handle_data,
        .place = handle_place,
        .request = handle_request,
        .canceled = handle_canceled,
        .done = tally_exchange,
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
