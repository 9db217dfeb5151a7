/*
 * The order goes round: from loop to loop, each of which looks through its own requests, and back
 * to where it came from.  So no list is locked, and nothing is allocated on the way.
 */
#include "api/cancel.h"

#include "api/call.h"
#include "api/client.h"
#include "api/demand.h"
#include "api/kserve.h"
#include "engine/home.h"
#include "util/json.h"

struct cancel {
    struct home_mail mail;
    struct call *call;
    struct api_loop *at; /* Whose mail this is. */
    uint32_t next;       /* The loop to try next. */
    uint64_t client;     /* Only this client's requests; 0: all. */
    uint64_t canceled;   /* So far. */
    struct bytes id;     /* In the call's arena. */
};

/* `version` 0: it is not known yet. */
static bool is_meant(const struct cancel *self, struct bytes id, uint64_t client,
                     struct bytes model, uint64_t version)
{
    const struct call *call = self->call;
    return bytes_equal(id, self->id) && (self->client == 0 || client == self->client) &&
           bytes_equal(model, call->model) &&
           (!call->match.has_version || version == 0 || call->match.version == version);
}

/* These end at once, and with one any other may go: so they are picked out first. */
static void look_through_unloaded(struct cancel *self, struct api_loop *loop)
{
    struct list meant;
    list_init(&meant);
    struct list_node *next;
    for (struct list_node *node = list_first(&loop->unloaded); node != NULL; node = next) {
        const struct demand_wait *wait = list_entry(node, struct demand_wait, node);
        next = list_next(&loop->unloaded, node);
        if (is_meant(self, wait->id, wait->client, wait->model, wait->version)) {
            list_remove(node);
            list_append(&meant, node);
        }
    }
    for (struct list_node *node = list_pop(&meant); node != NULL; node = list_pop(&meant)) {
        struct demand_wait *wait = list_entry(node, struct demand_wait, node);
        self->canceled++;
        wait->cancel(wait);
    }
}

/* Ends come by way of the home's mail, so the list stays as it is meanwhile. */
static void look_through(struct cancel *self, struct api_loop *loop)
{
    for (const struct list_node *node = list_first(&loop->named); node != NULL;
         node = list_next(&loop->named, node)) {
        struct infer_call *infer = list_entry(node, struct infer_call, named);
        const struct model *model = infer->request.model;
        if (is_meant(self, infer->id, infer->client.digest, bytes_of(model->name),
                     model->version)) {
            self->canceled++;
            kserve_cancel(infer);
        }
    }
    look_through_unloaded(self, loop);
}

/* Of a version that is going requests may be left; of a model that nobody knows there cannot be
 * any. */
static void answer(struct cancel *self)
{
    struct call *call = self->call;
    if (self->canceled == 0 && catalogue_find(call_catalogue(call), call->model) == NULL) {
        struct weir_err err;
        (void)catalogue_refuse_unknown(call->model, &err);
        call_fail_err(call, &err);
        return;
    }
    struct buffer *out = &call->loop->scratch;
    buffer_clear(out);
    buffer_text(out, "{\"canceled\":");
    buffer_u64(out, self->canceled);
    buffer_char(out, '}');
    call_reply_buffer(call, CALL_JSON, out);
}

static void arrive(struct home_mail *mail);

/* To the next loop that still turns, last to the first one: a loop that is gone has no requests. */
static void send_on(struct cancel *self)
{
    struct call *call = self->call;
    struct api *api = call->api;
    struct engine *engine = api->options.engine;
    const uint32_t count = atomic_load_explicit(&api->loop_count, memory_order_acquire);
    self->mail.deliver = arrive;
    self->at = call->loop;
    pthread_mutex_lock(&engine->lock); /* Homes leave the engine's list under it. */
    while (self->next < count && self->at == call->loop) {
        struct api_loop *loop = api->loops[self->next++];
        self->at = list_linked(&loop->home.node) ? loop : call->loop;
    }
    home_send(&self->at->home, &self->mail);
    pthread_mutex_unlock(&engine->lock);
}

static void arrive(struct home_mail *mail)
{
    struct cancel *self = list_entry(mail, struct cancel, mail);
    if (self->at == self->call->loop) {
        answer(self);
        return;
    }
    look_through(self, self->at);
    send_on(self);
}

static enum weir_status read_id(struct call *call, struct bytes *out, struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    yyjson_val *id = NULL;
    enum weir_status status = call_json(call, false, &doc, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = json_member(yyjson_doc_get_root(doc), NULL, "id", JSON_STRING, true, &id, err);
    if (status == WEIR_OK) {
        const size_t size = yyjson_get_len(id);
        char *copy =
            size == 0 ? NULL : arena_try_strndup(&call->x->arena, yyjson_get_str(id), size);
        *out = (struct bytes){ copy, size };
        status = size == 0 ? err_set(err, WEIR_EINVAL, "'id' is empty, expected that of a request")
                 : copy == NULL ? err_nomem(err, "an id", size)
                                : WEIR_OK;
    }
    yyjson_doc_free(doc);
    return status;
}

/* 0: no keys are asked for, or this one looks after the server: anybody's requests. */
static uint64_t whose(const struct call *call)
{
    const bool any =
        call->grant.use == NULL || (call->grant.groups >> GROUP_MODEL_REPOSITORY & 1) != 0;
    return any ? 0 : client_of(call).digest;
}

void cancel_post(struct call *call)
{
    struct bytes id;
    struct weir_err err;
    if (read_id(call, &id, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    struct cancel *self = call_alloc(call, sizeof *self);
    if (self == NULL) {
        return;
    }
    self->call = call;
    self->id = id;
    self->client = whose(call);
    look_through(self, call->loop);
    send_on(self);
}
