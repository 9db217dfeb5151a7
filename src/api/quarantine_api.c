#include "api/quarantine_api.h"

#include <stdio.h>

#include "api/call.h"
#include "engine/quarantine.h"
#include "util/json.h"

static void write_entry(struct buffer *out, const struct quarantine_entry *entry, uint64_t left_ns)
{
    json_comma(out);
    buffer_text(out, "{\"model\":");
    json_string(out, entry->model);
    buffer_printf(out, ",\"version\":\"%llu\",\"digest\":\"%016llx%016llx\",\"death\":",
                  (unsigned long long)entry->version, (unsigned long long)entry->key.words[0],
                  (unsigned long long)entry->key.words[1]);
    json_string(out, backend_death_text(entry->death));
    buffer_printf(out, ",\"expires_s\":%llu,\"refused\":%llu}",
                  (unsigned long long)((left_ns + NS_PER_S - 1) / NS_PER_S),
                  (unsigned long long)entry->refused);
}

void quarantine_show(struct call *call)
{
    const struct engine *engine = call->api->options.engine;
    const uint64_t now_ns = clock_now_ns(engine->clock);
    struct buffer *out = &call->loop->scratch;
    buffer_clear(out);
    buffer_text(out, "{\"entries\":[");
    struct quarantine_entry entry;
    for (uint64_t i = 0; quarantine_at(engine->quarantine, i, now_ns, &entry); i++) {
        write_entry(out, &entry, quarantine_left_ns(engine->quarantine, entry.since_ns, now_ns));
    }
    buffer_text(out, "]}");
    call_reply_buffer(call, CALL_JSON, out);
}

/* *out NULL: all models. */
static enum weir_status read_model(struct call *call, const char **out, struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    yyjson_val *model = NULL;
    *out = NULL;
    enum weir_status status = call_json(call, true, &doc, err);
    if (status == WEIR_OK && doc != NULL) {
        status =
            json_member(yyjson_doc_get_root(doc), NULL, "model", JSON_STRING, false, &model, err);
    }
    if (status == WEIR_OK && model != NULL) {
        *out = arena_try_strndup(&call->x->arena, yyjson_get_str(model), yyjson_get_len(model));
        status = *out == NULL ? err_nomem(err, "a name", yyjson_get_len(model)) : WEIR_OK;
    }
    yyjson_doc_free(doc);
    return status;
}

void quarantine_let_go(struct call *call)
{
    const struct engine *engine = call->api->options.engine;
    struct weir_err err;
    const char *model;
    if (read_model(call, &model, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    const uint64_t count = quarantine_clear(engine->quarantine, model, clock_now_ns(engine->clock));
    if (count == 0 && model != NULL &&
        catalogue_find(call_catalogue(call), bytes_of(model)) == NULL) {
        (void)catalogue_refuse_unknown(bytes_of(model), &err);
        call_fail_err(call, &err);
        return;
    }
    struct buffer *out = &call->loop->scratch;
    buffer_clear(out);
    buffer_printf(out, "{\"cleared\":%llu}", (unsigned long long)count);
    call_reply_buffer(call, CALL_JSON, out);
}
