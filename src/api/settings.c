#include "api/settings.h"

#include <string.h>

#include "api/call.h"
#include "util/json.h"

#define NAMES_BYTES_MAX 4096

struct reloading {
    struct call *call;
    struct registry_order look;
    struct buffer names; /* Of the settings that changed, with commas. */
    enum weir_status status;
    struct weir_err err;
};

static void write_names(struct buffer *out, char *names)
{
    char *rest = NULL;
    for (char *name = strtok_r(names, ", ", &rest); name != NULL;
         name = strtok_r(NULL, ", ", &rest)) {
        json_comma(out);
        json_string(out, name);
    }
}

static void looked(struct registry_order *order)
{
    struct reloading *self = list_entry(order, struct reloading, look);
    struct call *call = self->call;
    struct buffer *out = &call->loop->scratch;
    buffer_clear(out);
    buffer_text(out, "{\"changed\":[");
    if (self->names.size > 0 && !self->names.failed) {
        write_names(out, self->names.data);
    }
    buffer_text(out, "]}");
    buffer_finish(&self->names);
    if (order->status != WEIR_OK) {
        call_fail(call, order->status, order->err.text);
    } else {
        call_reply_buffer(call, CALL_JSON, out);
    }
}

static void read_by_worker(struct call *call)
{
    struct reloading *self = call->state;
    const struct api_options *options = &call->api->options;
    self->status = options->reload(options->reload_context, &self->names, &self->err);
}

static void read_done(struct call *call)
{
    struct reloading *self = call->state;
    if (self->status != WEIR_OK) {
        buffer_finish(&self->names);
        (void)err_prefix(&self->err, "settings not reloaded");
        call_fail_err(call, &self->err);
        return;
    }
    self->look = (struct registry_order){
        .home = &call->loop->home, .kind = REGISTRY_REFRESH, .follow = true, .done = looked
    };
    registry_order(call->api->options.registry, &self->look);
}

void settings_reload(struct call *call)
{
    if (call->api->options.reload == NULL) {
        call_fail(call, WEIR_EUNSUPPORTED, "this server has no settings that could be read again");
        return;
    }
    struct reloading *self = call_alloc(call, sizeof *self);
    if (self == NULL) {
        return;
    }
    self->call = call;
    buffer_init(&self->names, NAMES_BYTES_MAX);
    call->state = self;
    (void)call_run(call, read_by_worker, read_done);
}
