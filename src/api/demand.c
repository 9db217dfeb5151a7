/*
 * The order to the registry outlives the call where the client does not wait so long.  So it has
 * memory of its own, which goes when the order is done and the call is over.
 *
 * A body is read by the route's handler, which needs the model; only its id is wanted before, to
 * find the call by.
 */
#include "api/demand.h"

#include <string.h>

#include "api/client.h"
#include "engine/catalogue.h"
#include "engine/registry.h"
#include "net/grpc.h"
#include "util/json.h"
#include "util/mem.h"

#define TRIES_MAX 100

struct demand {
    struct registry_order order;
    struct api_loop *loop;
    struct call *call; /* NULL: it is over. */
    struct arena_disposable detach;
    struct loop_timer timer; /* The call's deadline. */
    struct demand_wait wait;
    bool ordered; /* And not done yet. */
    uint32_t tries;
    char name[]; /* The model's. */
};

static void free_if_over(struct demand *self)
{
    if (!self->ordered && self->call == NULL) {
        self->loop->jobs--;
        mem_free(self);
    }
}

/* The exchange is over. */
static void detach(struct arena_disposable *disposable)
{
    struct demand *self = list_entry(disposable, struct demand, detach);
    loop_timer_clear(self->call->x->loop, &self->timer);
    list_remove(&self->wait.node);
    self->call = NULL;
    free_if_over(self);
}

static void handle(struct call *call)
{
    call->canceled = NULL;
    call->match.route->handle(call);
}

static bool is_due(struct call *call)
{
    return catalogue_is_due(call_catalogue(call), call->model, call->match.version);
}

static void order_load(struct demand *self);

static void loaded(struct registry_order *order)
{
    struct demand *self = list_entry(order, struct demand, order);
    struct call *call = self->call;
    self->ordered = false;
    if (call == NULL || call->state == self) {
        /* Answered already: only its end is waited for. */
        free_if_over(self);
        return;
    }
    if (order->status == WEIR_OK && is_due(call) && self->tries < TRIES_MAX) {
        order_load(self); /* It had to go again before its turn came. */
        return;
    }
    loop_timer_clear(call->x->loop, &self->timer);
    list_remove(&self->wait.node);
    handle(call);
}

/* The call is answered without its model. */
static void give_up(struct demand *self, enum weir_status status, const char *text)
{
    struct call *call = self->call;
    call->canceled = NULL;
    call->state = self;
    list_remove(&self->wait.node);
    call_fail(call, status, text);
}

static void too_late(struct loop_timer *timer)
{
    give_up(list_entry(timer, struct demand, timer), WEIR_ETIMEOUT, DEMAND_LATE);
}

static void canceled(struct call *call)
{
    struct demand *self = call->waits;
    give_up(self, WEIR_ECANCELED, DEMAND_CANCELED);
}

static void canceled_by_id(struct demand_wait *wait)
{
    give_up(list_entry(wait, struct demand, wait), WEIR_ECANCELED, DEMAND_CANCELED);
}

static uint64_t deadline_of(const struct call *call)
{
    uint64_t ms = 0;
    if (call->grpc != NULL) {
        return call->grpc->deadline_ns;
    }
    return bytes_to_u64(call->fields[FIELD_DEADLINE_MS], UINT64_MAX / NS_PER_MS, &ms) && ms > 0
               ? clock_add(call->x->received_ns, ms * NS_PER_MS)
               : CLOCK_NEVER;
}

static void order_load(struct demand *self)
{
    struct call *call = self->call;
    self->tries++;
    self->ordered = true;
    self->order = (struct registry_order){
        .home = &call->loop->home,
        .kind = REGISTRY_NEED,
        .name = self->name,
        .done = loaded,
    };
    registry_order(call->api->options.registry, &self->order);
}

/* Which part of the body may say the id; nothing where none does. */
static struct bytes json_of(const struct call *call)
{
    const struct bytes field = call->fields[FIELD_JSON_SIZE];
    const struct bytes body = call->body;
    uint64_t size = body.size;
    if (call->match.route->group != GROUP_INFERENCE ||
        (field.data != NULL && !bytes_to_u64(field, body.size, &size)) ||
        size > call->api->options.limits->json_bytes_max) {
        size = 0;
    }
    return (struct bytes){ body.data, (size_t)size };
}

/* What is wrong with the body its handler says. */
static void read_id(struct call *call)
{
    struct demand *self = call->waits;
    const struct bytes json = json_of(call);
    yyjson_doc *doc = NULL;
    struct weir_err err;
    if (json.size == 0 || json_read(json, &doc, &err) != WEIR_OK) {
        return;
    }
    yyjson_val *id = yyjson_obj_get(yyjson_doc_get_root(doc), "id");
    const size_t size = yyjson_get_len(id);
    if (yyjson_is_str(id) && size > 0) {
        char *copy = arena_try_strndup(&call->x->arena, yyjson_get_str(id), size);
        self->wait.id = (struct bytes){ copy, copy == NULL ? 0 : size };
    }
    yyjson_doc_free(doc);
}

static void begin(struct call *call)
{
    struct demand *self = call->waits;
    if (call->x->canceled) {
        handle(call);
        return;
    }
    if (self->wait.id.size > 0) {
        self->wait.model = bytes_of(self->name);
        self->wait.version = call->match.version;
        self->wait.client = client_of(call).digest;
        self->wait.cancel = canceled_by_id;
        list_append(&call->loop->unloaded, &self->wait.node);
    }
    call->canceled = canceled;
    const uint64_t at_ns = deadline_of(call);
    if (at_ns != CLOCK_NEVER) {
        loop_timer_set(call->x->loop, &self->timer, at_ns);
    }
    order_load(self);
}

static void wait_for_model(struct call *call)
{
    struct demand *self = mem_try_zero(1, sizeof(*self) + call->model.size + 1);
    if (self == NULL) {
        call_fail(call, WEIR_ENOMEM, "out of memory for this request");
        return;
    }
    memcpy(self->name, call->model.data, call->model.size);
    self->loop = call->loop;
    self->loop->jobs++;
    self->call = call;
    self->detach.dispose = detach;
    self->timer.fire = too_late;
    arena_dispose(&call->x->arena, &self->detach);
    call->waits = self;
    if (json_of(call).size > CALL_INLINE_JSON_BYTES) {
        (void)call_run(call, read_id, begin);
    } else {
        read_id(call);
        begin(call);
    }
}

void demand_handle(struct call *call)
{
    const struct route_match *match = &call->match;
    if (match->route->loads && call->model.data != NULL && !call->x->canceled && is_due(call)) {
        wait_for_model(call);
    } else {
        handle(call);
    }
}
