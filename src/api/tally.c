/*
 * Counts, and a line in the access log.
 */
#include "api/tally.h"

#include "api/call.h"
#include "api/keys.h"
#include "net/grpc.h"
#include "util/log.h"

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
    return call->grant.use == NULL ? "" : call->grant.use->name;
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
    const uint64_t now_ns = clock_now_ns(call->api->options.engine->clock);
    log_event(LOG_INFO, "request", LOG_STR("peer", log_text(x, x->peer)),
              LOG_STR("method", methods[x->method]), LOG_STR("target", log_text(x, x->target)),
              LOG_U64("status", (uint64_t)x->status), LOG_BYTES("received", received_by(x)),
              LOG_BYTES("sent", x->sent_bytes), LOG_MS("took_ms", now_ns - x->begun_ns),
              LOG_STR("request_id", log_text(x, call->fields[FIELD_REQUEST_ID])),
              LOG_STR("traceparent", log_text(x, call->fields[FIELD_TRACEPARENT])),
              LOG_STR("key", key_name(call)), LOG_STR("canceled", x->canceled ? "yes" : "no"),
              log_grpc(call));
}

void tally_exchange(void *context, struct exchange *x)
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
