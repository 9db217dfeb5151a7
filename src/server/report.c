#include "server/report.h"

#include <stdio.h>

#include "engine/registry.h"
#include "util/json.h"

struct report_count report_count(struct registry *registry)
{
    struct catalogue *catalogue = registry_snapshot(registry);
    struct report_count count = { .models = catalogue->count };
    for (uint32_t i = 0; i < catalogue->count; i++) {
        count.ready += catalogue->list[i].latest != NULL ? 1 : 0;
    }
    catalogue_release(catalogue);
    return count;
}

static bool is_loading(const struct catalogue_entry *entry)
{
    bool loading = false;
    for (uint32_t i = 0; i < entry->version_count; i++) {
        loading = loading || entry->versions[i].state == MODEL_LOADING;
    }
    return loading;
}

struct report_loading report_loading(struct registry *registry)
{
    struct catalogue *catalogue = registry_snapshot(registry);
    struct report_loading loading = { .models = catalogue->count };
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->list[i];
        loading.settled += catalogue_entry_is_settled(entry) ? 1 : 0;
        if (loading.name[0] == '\0' && is_loading(entry)) {
            (void)snprintf(loading.name, sizeof(loading.name), "%s", entry->name);
        }
    }
    catalogue_release(catalogue);
    return loading;
}

/* One line of the models' table; version 0 is about the whole model. */
struct row {
    const char *name;
    uint64_t version;
    const char *state;
    const char *reason; /* NULL: nothing to say. */
};

static void row_json(struct buffer *out, const struct row *row)
{
    json_comma(out);
    buffer_char(out, '{');
    json_key(out, "name");
    json_string(out, row->name);
    if (row->version > 0) {
        json_key(out, "version");
        buffer_u64(out, row->version);
    }
    json_key(out, "state");
    json_string(out, row->state);
    json_key(out, "reason");
    json_string(out, row->reason == NULL ? "" : row->reason);
    buffer_char(out, '}');
}

static void row_text(struct buffer *out, const struct row *row)
{
    char version[24] = "-";
    if (row->version > 0) {
        (void)snprintf(version, sizeof(version), "%llu", (unsigned long long)row->version);
    }
    const bool reason = row->reason != NULL && row->reason[0] != '\0';
    buffer_printf(out, "%-24s %7s  ", row->name, version);
    buffer_printf(out, reason ? "%-11s  %s\n" : "%s%s\n", row->state, reason ? row->reason : "");
}

static void add_row(struct buffer *out, bool json, const struct row *row)
{
    if (json) {
        row_json(out, row);
    } else {
        row_text(out, row);
    }
}

static void add_entry(struct buffer *out, bool json, const struct catalogue_entry *entry)
{
    if (entry->version_count == 0) {
        const struct row row = { entry->name, 0, model_state_text(MODEL_UNAVAILABLE),
                                 entry->reason };
        add_row(out, json, &row);
    }
    for (uint32_t i = 0; i < entry->version_count; i++) {
        const struct catalogue_version *version = &entry->versions[i];
        const struct row row = { entry->name, version->version, model_state_text(version->state),
                                 version->reason };
        add_row(out, json, &row);
    }
}

void report_models(struct registry *registry, bool json, struct buffer *out)
{
    struct catalogue *catalogue = registry_snapshot(registry);
    buffer_text(out, json ? "[" : "MODEL                    VERSION  STATE        REASON\n");
    for (uint32_t i = 0; i < catalogue->count; i++) {
        add_entry(out, json, &catalogue->list[i]);
    }
    buffer_text(out, json ? "]\n" : "");
    catalogue_release(catalogue);
}
