/*
 * The model repository over REST.
 *
 * An order to load goes on though its client may have left: it changes the
 * server, and the next one who asks wants to find it done.
 */
#include "api/repository.h"

#include <string.h>

#include "api/call.h"
#include "api/device_show.h"
#include "api/memory_show.h"
#include "engine/outage.h"
#include "util/json.h"
#include "util/list.h"

struct order {
    struct registry_order order;
    struct call *call;
};

/* A body of `load`, which may be large, while it is read. */
struct load {
    const char *override;
    enum weir_status status;
    struct weir_err err;
};

/* --- Index --------------------------------------------------------------------------------- */

/* What serves may have something to say, too: why the latest configuration was not taken over. */
static const char *reason_of(const struct catalogue_entry *entry,
                             const struct catalogue_version *version, char held[MODEL_ADVICE_BYTES])
{
    struct model *model = version->model;
    const bool waits = entry->waits && model == NULL;
    const char *reason = waits || version->reason == NULL ? entry->reason : version->reason;
    if (reason == NULL && model != NULL) {
        reason = model->instances_reason;
    }
    if (reason == NULL && model != NULL && model->pool != NULL && engine_held_text(model, held)) {
        reason = held;
    }
    return reason == NULL ? "" : reason;
}

/* One that is loaded and cannot be asked now is unavailable to whoever looks. */
static enum model_state state_of(const struct catalogue_version *version, struct weir_err *out)
{
    const bool out_of_service =
        version->model != NULL && outage_check_ready(version->model, out) != WEIR_OK;
    return out_of_service ? MODEL_UNAVAILABLE : version->state;
}

static void write_version(struct buffer *out, const struct catalogue_entry *entry,
                          const struct catalogue_version *version)
{
    struct weir_err outage = { WEIR_OK, "" };
    char held[MODEL_ADVICE_BYTES];
    json_comma(out);
    buffer_text(out, "{\"name\":");
    json_string(out, entry->name);
    if (version != NULL) {
        buffer_text(out, ",\"version\":\"");
        buffer_u64(out, version->version);
        buffer_text(out, "\",\"state\":\"");
        buffer_text(out, model_state_text(state_of(version, &outage)));
        buffer_text(out, "\",\"reason\":");
        json_string(out, outage.status != WEIR_OK ? outage.text : reason_of(entry, version, held));
        if (version->model != NULL) {
            memory_show_index(version->model, out);
            device_show_model(version->model, out);
        }
    } else if (entry->reason != NULL) {
        buffer_text(out, ",\"state\":\"");
        buffer_text(out, model_state_text(entry->waits ? MODEL_LOADING : MODEL_UNAVAILABLE));
        buffer_text(out, "\",\"reason\":");
        json_string(out, entry->reason);
    }
    buffer_char(out, '}');
}

static void write_entries(const struct catalogue *catalogue, bool ready_only, struct buffer *out)
{
    buffer_char(out, '[');
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->list[i];
        for (uint32_t k = 0; k < entry->version_count; k++) {
            struct weir_err outage;
            if (!ready_only || state_of(&entry->versions[k], &outage) == MODEL_READY) {
                write_version(out, entry, &entry->versions[k]);
            }
        }
        if (entry->version_count == 0 && !ready_only) {
            write_version(out, entry, NULL);
        }
    }
    buffer_char(out, ']');
}

static void write_index(struct call *call, const struct catalogue *catalogue, struct buffer *out)
{
    (void)call;
    write_entries(catalogue, false, out);
}

static void write_ready_index(struct call *call, const struct catalogue *catalogue,
                              struct buffer *out)
{
    (void)call;
    write_entries(catalogue, true, out);
}

static enum weir_status read_index(struct call *call, bool *ready_only, struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    yyjson_val *ready = NULL;
    enum weir_status status = call_json(call, true, &doc, err);
    if (status == WEIR_OK && doc != NULL) {
        status =
            json_member(yyjson_doc_get_root(doc), NULL, "ready", JSON_BOOL, false, &ready, err);
        *ready_only = status == WEIR_OK && yyjson_is_true(ready);
        yyjson_doc_free(doc);
    }
    return status;
}

static bool refuse_named(struct call *call)
{
    if (call->match.name.data == NULL) {
        return false;
    }
    struct weir_err err;
    (void)err_set(
        &err, WEIR_EUNSUPPORTED,
        "repository '%.*s': named repositories are not supported; use /v2/repository/models",
        call->match.name.size > 128 ? 128 : (int)call->match.name.size, call->match.name.data);
    call_fail_err(call, &err);
    return true;
}

void repository_index(struct call *call)
{
    struct weir_err err;
    bool ready_only = false;
    if (refuse_named(call)) {
        return;
    }
    if (read_index(call, &ready_only, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    call_render(call, CALL_JSON, ready_only ? write_ready_index : write_index);
}

/* --- Load and unload ----------------------------------------------------------------------- */

/* The member `parameters` of a body that may be empty; *out NULL: none. */
static enum weir_status read_parameters(struct call *call, yyjson_doc **doc, yyjson_val **out,
                                        struct weir_err *err)
{
    *out = NULL;
    const enum weir_status status = call_json(call, true, doc, err);
    if (status != WEIR_OK || *doc == NULL) {
        return status;
    }
    return json_member(yyjson_doc_get_root(*doc), NULL, "parameters", JSON_OBJECT, false, out, err);
}

static enum weir_status read_load_parameter(struct call *call, struct bytes key, yyjson_val *value,
                                            const char **override, struct weir_err *err)
{
    if (key.size >= 5 && memcmp(key.data, "file:", 5) == 0) {
        return err_set(
            err, WEIR_EUNSUPPORTED,
            "parameter '%.*s': model files in the request ('file:') are not supported; put "
            "them into the repository",
            key.size > 128 ? 128 : (int)key.size, key.data);
    }
    if (!bytes_equal(key, BYTES_LITERAL("config"))) {
        return err_set(err, WEIR_EINVAL, "parameter '%.*s' is not known here: expected 'config'",
                       key.size > 128 ? 128 : (int)key.size, key.data);
    }
    if (!yyjson_is_str(value)) {
        return err_set(err, WEIR_EINVAL,
                       "parameter 'config': found %s, expected the configuration as a string",
                       json_kind(value));
    }
    if (memchr(yyjson_get_str(value), '\0', yyjson_get_len(value)) != NULL) {
        return err_set(err, WEIR_EINVAL, "parameter 'config': found a NUL in it");
    }
    *override = arena_try_strndup(&call->x->arena, yyjson_get_str(value), yyjson_get_len(value));
    return *override == NULL ? err_nomem(err, "a configuration", yyjson_get_len(value)) : WEIR_OK;
}

static enum weir_status read_load(struct call *call, const char **override, struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    yyjson_val *parameters;
    enum weir_status status = read_parameters(call, &doc, &parameters, err);
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *value;
    if (status == WEIR_OK && parameters != NULL) {
        yyjson_obj_foreach(parameters, index, max, key, value) {
            const struct bytes name = { yyjson_get_str(key), yyjson_get_len(key) };
            status = read_load_parameter(call, name, value, override, err);
            if (status != WEIR_OK) {
                break;
            }
        }
    }
    yyjson_doc_free(doc);
    return status;
}

/* *dependents: an ensemble's parts shall go with it. */
static enum weir_status read_unload(struct call *call, bool *dependents, struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    yyjson_val *parameters;
    yyjson_val *found = NULL;
    enum weir_status status = read_parameters(call, &doc, &parameters, err);
    if (status == WEIR_OK && parameters != NULL) {
        status = json_member(parameters, "parameters", "unload_dependents", JSON_BOOL, false,
                             &found, err);
    }
    *dependents = status == WEIR_OK && yyjson_is_true(found);
    yyjson_doc_free(doc);
    return status;
}

static void order_done(struct registry_order *done)
{
    struct order *order = list_entry(done, struct order, order);
    if (order->order.status != WEIR_OK) {
        call_fail(order->call, order->order.status, order->order.err.text);
    } else {
        call_reply_empty(order->call);
    }
}

static void give_order(struct call *call, bool load, const char *override, bool dependents)
{
    struct order *order = call_alloc(call, sizeof *order);
    if (order == NULL) {
        return;
    }
    const char *name = arena_try_strndup(&call->x->arena, call->model.data, call->model.size);
    if (name == NULL) {
        call_fail(call, WEIR_ENOMEM, "out of memory for this request");
        return;
    }
    order->call = call;
    order->order.home = &call->loop->home;
    order->order.kind = load ? REGISTRY_LOAD : REGISTRY_UNLOAD;
    order->order.name = name;
    order->order.override = override;
    order->order.dependents = dependents;
    order->order.done = order_done;
    registry_order(call->api->options.registry, &order->order);
}

static void read_load_by_worker(struct call *call)
{
    struct load *load = call->state;
    load->status = read_load(call, &load->override, &load->err);
}

static void load_read(struct call *call)
{
    const struct load *load = call->state;
    if (load->status != WEIR_OK) {
        call_fail_err(call, &load->err);
    } else {
        give_order(call, true, load->override, false);
    }
}

void repository_load(struct call *call)
{
    if (refuse_named(call)) {
        return;
    }
    struct load *load = call_alloc(call, sizeof *load);
    if (load == NULL) {
        return;
    }
    call->state = load;
    if (call->body.size > CALL_INLINE_JSON_BYTES) {
        (void)call_run(call, read_load_by_worker, load_read);
    } else {
        read_load_by_worker(call);
        load_read(call);
    }
}

void repository_unload(struct call *call)
{
    struct weir_err err;
    bool dependents = false;
    if (refuse_named(call)) {
        return;
    }
    if (read_unload(call, &dependents, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    give_order(call, false, NULL, dependents);
}
