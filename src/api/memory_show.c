#include "api/memory_show.h"

#include <stdio.h>

#include "engine/pool.h"
#include "util/json.h"
#include "util/metric.h"

#define LABEL_BYTES 768

/* X(name, value of the counts `c`) */
#define COUNTS(X)                     \
    X("heap", c.heap_bytes)           \
    X("mapped", c.mapped_bytes)       \
    X("device", c.device_bytes)       \
    X("peak", c.peak_bytes)

/* Its device, or the pool where it is on several. */
static const char *device_of(const struct model *model)
{
    if (model->pool == NULL) {
        return "cpu";
    }
    return model->replica_count == 1 ? model->pool->devices[model->replicas[0].device].name
                                     : model->pool->name;
}

void memory_show_index(const struct model *model, struct buffer *out)
{
    struct ledger_counts c;
    model_memory(model, &c);
    buffer_text(out, ",\"memory\":{\"device\":");
    json_string(out, device_of(model));
#define WRITE_COUNT(name, value)              \
    buffer_text(out, ",\"" name "_bytes\":"); \
    buffer_u64(out, value);
    COUNTS(WRITE_COUNT)
#undef WRITE_COUNT
    if (model->config->memory_group != NULL) {
        buffer_text(out, ",\"group\":");
        json_string(out, model->config->memory_group);
    }
    buffer_char(out, '}');
}

static void write_usage(struct buffer *out, const char *type, uint64_t bytes)
{
    json_comma(out);
    buffer_text(out, "{\"type\":");
    json_string(out, type);
    buffer_text(out, ",\"id\":0,\"byte_size\":");
    buffer_u64(out, bytes);
    buffer_char(out, '}');
}

void memory_show_usage(const struct model *model, struct buffer *out)
{
    struct ledger_counts c;
    model_memory(model, &c);
    buffer_text(out, ",\"memory_usage\":[");
    write_usage(out, "CPU", c.heap_bytes + c.mapped_bytes);
    if (c.device_bytes > 0) {
        write_usage(out, device_of(model), c.device_bytes);
    }
    buffer_char(out, ']');
}

void memory_show_model(struct buffer *out, const char *labels, const struct model *model)
{
    struct ledger_counts c;
    char text[LABEL_BYTES];
    model_memory(model, &c);
#define WRITE_SAMPLE(name, value)                                         \
    (void)snprintf(text, sizeof(text), "%s,source=\"" name "\"", labels); \
    metric_u64(out, MEMORY_SHOW_MODEL, text, value);
    COUNTS(WRITE_SAMPLE)
#undef WRITE_SAMPLE
}

static const char *const kinds[] = {
#define KIND_TEXT(name, text) text,
    LEDGER_KINDS(KIND_TEXT)
#undef KIND_TEXT
};

/* kind="group",budget="vision" */
static void label(const struct ledger_account *account, struct buffer *labels)
{
    buffer_clear(labels);
    metric_add_label(labels, "kind", kinds[account->kind]);
    metric_add_label(labels, "budget", account->name);
}

void memory_show_metrics(const struct catalogue *catalogue, struct buffer *out)
{
    char text[LABEL_BYTES];
    struct buffer labels = { .data = text, .capacity = sizeof text, .size_max = sizeof text };
    metric_family(out, "weir_memory_bytes",
                  "Memory by budget (everything, each device, each group) and by what holds it",
                  "gauge");
    for (uint32_t i = 0; i < catalogue->account_count; i++) {
        label(&catalogue->accounts[i], &labels);
        for (uint32_t source = 0; source < LEDGER_SOURCE_COUNT; source++) {
            char both[LABEL_BYTES + 64];
            (void)snprintf(both, sizeof both, "%s,source=\"%s\"", text,
                           ledger_source_text((enum ledger_source)source));
            metric_u64(out, "weir_memory_bytes", both, catalogue->accounts[i].bytes[source]);
        }
    }
    metric_family(out, "weir_memory_max_bytes", "Budgets of that memory; 0: no limit", "gauge");
    for (uint32_t i = 0; i < catalogue->account_count; i++) {
        label(&catalogue->accounts[i], &labels);
        metric_u64(out, "weir_memory_max_bytes", text, catalogue->accounts[i].max_bytes);
    }
    metric_family(out, "weir_memory_models", "Model versions that hold it", "gauge");
    for (uint32_t i = 0; i < catalogue->account_count; i++) {
        label(&catalogue->accounts[i], &labels);
        metric_u64(out, "weir_memory_models", text, catalogue->accounts[i].models);
    }
}
