/*
 * Small answers about the server and its models.
 *
 * Where the Open Inference Protocol's texts, KServe's clients and Triton
 * disagree, the answer is what satisfies all of them: health checks say with their
 * status what Triton says, and with their body what KServe's client reads.
 */
#include "api/admin.h"

#include <string.h>

#include "api/call.h"
#include "api/kserve.h"
#include "util/json.h"
#include "util/log.h"

/* X(text): what clients may count on. */
#define EXTENSIONS(X)       \
    X("classification")     \
    X("sequence")           \
    X("model_repository")   \
    X("model_configuration") \
    X("binary_tensor_data") \
    X("parameters")         \
    X("statistics")         \
    X("trace")              \
    X("logging")            \
    X("generate")

static struct buffer *begin(struct call *call)
{
    buffer_clear(&call->loop->scratch);
    return &call->loop->scratch;
}

/* --- Health -------------------------------------------------------------------------------- */

/* Somebody has to look twice, the patience apart, to see that another loop is stuck; this one is
 * not. */
void admin_live(struct call *call)
{
    if (call_is_live(call)) {
        call_reply(call, BYTES_LITERAL("{\"live\":true}"));
    } else {
        exchange_reply(call->x, weir_status_http(WEIR_EUNAVAILABLE), CALL_JSON,
                       BYTES_LITERAL("{\"live\":false}"));
    }
}

void admin_ready(struct call *call)
{
    if (call_is_ready(call)) {
        call_reply(call, BYTES_LITERAL("{\"ready\":true}"));
    } else {
        exchange_header(call->x, "Retry-After", BYTES_LITERAL("1"));
        exchange_reply(call->x, weir_status_http(WEIR_EUNAVAILABLE), CALL_JSON,
                       BYTES_LITERAL("{\"ready\":false}"));
    }
}

static void reply_ready(struct call *call, const char *name)
{
    struct buffer *out = begin(call);
    buffer_text(out, "{\"name\":");
    json_string(out, name);
    buffer_text(out, ",\"ready\":true}");
    call_reply_buffer(call, CALL_JSON, out);
}

void admin_model_ready(struct call *call)
{
    struct model *model;
    struct weir_err err;
    if (catalogue_is_due(call_catalogue(call), call->model, call->match.version)) {
        /* It will be, for whoever asks. */
        reply_ready(call, catalogue_find(call_catalogue(call), call->model)->name);
        return;
    }
    if (call_lease_ready(call, &model, &err) != WEIR_OK) {
        /* 400 whatever the reason, as clients of Triton expect. */
        (void)err_prefix(&err, "Model version not ready");
        call_fail(call, WEIR_EINVAL, err.text);
        return;
    }
    reply_ready(call, model->name);
    model_release(model);
}

/* --- Metadata ------------------------------------------------------------------------------ */

void admin_home(struct call *call)
{
    static const char *const methods[] = {
#define HTTP_METHOD_TEXT(name) #name,
        HTTP_METHODS(HTTP_METHOD_TEXT)
#undef HTTP_METHOD_TEXT
    };
    struct buffer *out = begin(call);
    buffer_printf(out,
                  "Weir %s runs machine-learning models for many clients (Open Inference "
                  "Protocol, KServe v2).\n\n",
                  call->api->options.version);
    const struct route *route;
    for (uint32_t i = 0; (route = route_at(i)) != NULL; i++) {
        buffer_printf(out, "%-4s %-58s %s\n", methods[route->method], route->pattern, route->help);
    }
    call_reply_buffer(call, "text/plain; charset=utf-8", out);
}

void admin_server_metadata(struct call *call)
{
    static const char *const extensions[] = {
#define EXTENSION_TEXT(text) text,
        EXTENSIONS(EXTENSION_TEXT)
#undef EXTENSION_TEXT
    };
    struct buffer *out = begin(call);
    buffer_text(out, "{\"name\":");
    json_string(out, call->api->options.name);
    buffer_text(out, ",\"version\":");
    json_string(out, call->api->options.version);
    buffer_text(out, ",\"extensions\":[");
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        json_comma(out);
        json_string(out, extensions[i]);
    }
    if (call->api->options.shm != NULL) {
        buffer_text(out, ",\"system_shared_memory\"");
    }
    buffer_text(out, "]}");
    call_reply_buffer(call, CALL_JSON, out);
}

static void write_models(struct call *call, const struct catalogue *catalogue, struct buffer *out)
{
    (void)call;
    buffer_text(out, "{\"models\":[");
    for (uint32_t i = 0; i < catalogue->count; i++) {
        if (catalogue->list[i].latest != NULL) {
            json_comma(out);
            json_string(out, catalogue->list[i].name);
        }
    }
    buffer_text(out, "]}");
}

void admin_models(struct call *call)
{
    call_render(call, CALL_JSON, write_models);
}

static void write_tensors(struct buffer *out, const struct model *model, bool output)
{
    const struct signature *signature = model->signature;
    const uint32_t count = output ? signature->output_count : signature->input_count;
    const struct tensor_spec *specs = output ? signature->outputs : signature->inputs;
    for (uint32_t i = 0; i < count; i++) {
        struct shape shape;
        char text[SHAPE_TEXT];
        kserve_shape(model, output, i, &shape);
        json_comma(out);
        buffer_text(out, "{\"name\":");
        json_string(out, specs[i].name);
        buffer_text(out, ",\"datatype\":\"");
        buffer_text(out, dtype_text(specs[i].dtype));
        buffer_text(out, "\",\"shape\":");
        buffer_text(out, shape_format(&shape, text));
        buffer_char(out, '}');
    }
}

static void write_versions(struct buffer *out, const struct catalogue_entry *entry,
                           uint64_t version)
{
    for (uint32_t i = 0; i < entry->version_count; i++) {
        if (entry->versions[i].model != NULL &&
            (version == 0 || version == entry->versions[i].version)) {
            json_comma(out);
            buffer_char(out, '"');
            buffer_u64(out, entry->versions[i].version);
            buffer_char(out, '"');
        }
    }
}

void admin_model_metadata(struct call *call)
{
    struct model *model;
    struct weir_err err;
    if (call_lease(call, &model, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    const struct model_config *config = model->config;
    const bool named = config->platform != NULL && config->platform[0] != '\0';
    struct buffer *out = begin(call);
    buffer_text(out, "{\"name\":");
    json_string(out, model->name);
    buffer_text(out, ",\"versions\":[");
    write_versions(out, catalogue_find(call_catalogue(call), call->model), call->match.version);
    buffer_text(out, "],\"platform\":");
    json_string(out, named ? config->platform : config->backend);
    buffer_text(out, ",\"inputs\":[");
    write_tensors(out, model, false);
    buffer_text(out, "],\"outputs\":[");
    write_tensors(out, model, true);
    buffer_text(out, "]}");
    model_release(model);
    call_reply_buffer(call, CALL_JSON, out);
}

void admin_model_config(struct call *call)
{
    struct model *model;
    struct weir_err err;
    if (call_lease(call, &model, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    struct buffer *out = begin(call);
    call->api->options.config_json(model, out);
    model_release(model);
    call_reply_buffer(call, CALL_JSON, out);
}

/* --- Logging ------------------------------------------------------------------------------- */

/* X(name, key, level): what Triton's settings switch.  Weir has one level, from which they
 * follow; what was set is remembered so that it reads back. */
#define LOG_SETTINGS(X)                    \
    X(INFO, "log_info", LOG_INFO)          \
    X(WARNING, "log_warning", LOG_WARNING) \
    X(ERROR, "log_error", LOG_ERROR)

enum log_setting {
#define LOG_SETTING_ENUM(name, key, level) SETTING_##name,
    LOG_SETTINGS(LOG_SETTING_ENUM)
#undef LOG_SETTING_ENUM
    SETTING_COUNT
};

static const struct {
    const char *key;
    enum log_level level;
} log_settings[] = {
#define LOG_SETTING_ROW(name, key, level) { key, level },
    LOG_SETTINGS(LOG_SETTING_ROW)
#undef LOG_SETTING_ROW
};

#define SETTING_ISO8601 (UINT32_C(1) << SETTING_COUNT)
#define SETTING_VERBOSE_SHIFT 8 /* The verbose level, to its top 24 bits. */
#define VERBOSE_MAX 0xFFFFFF

void admin_logging_init(struct api *api)
{
    const enum log_level level = log_get_level();
    uint32_t settings = level == LOG_DEBUG ? UINT32_C(1) << SETTING_VERBOSE_SHIFT : 0;
    for (int i = 0; i < SETTING_COUNT; i++) {
        settings |= (log_settings[i].level <= level ? UINT32_C(1) : 0) << i;
    }
    atomic_store_explicit(&api->log_settings, settings, memory_order_relaxed);
}

/* Errors are always logged: there would be nobody left to say why. */
static enum log_level level_of(uint32_t settings)
{
    if (settings >> SETTING_VERBOSE_SHIFT != 0) {
        return LOG_DEBUG;
    }
    for (int i = 0; i < SETTING_COUNT; i++) {
        if ((settings >> i & 1) != 0) {
            return log_settings[i].level;
        }
    }
    return LOG_ERROR;
}

/* What was set, unless a reload of the settings has changed the level since. */
static uint32_t logging_settings(struct api *api)
{
    const uint32_t settings = atomic_load_explicit(&api->log_settings, memory_order_relaxed);
    if (level_of(settings) == log_get_level()) {
        return settings;
    }
    admin_logging_init(api);
    return atomic_load_explicit(&api->log_settings, memory_order_relaxed);
}

void admin_logging_get(struct call *call)
{
    const uint32_t settings = logging_settings(call->api);
    struct buffer *out = begin(call);
    buffer_text(out, "{\"log_file\":\"\"");
    for (int i = 0; i < SETTING_COUNT; i++) {
        json_key(out, log_settings[i].key);
        json_bool(out, (settings >> i & 1) != 0);
    }
    buffer_text(out, ",\"log_verbose_level\":");
    buffer_u64(out, settings >> SETTING_VERBOSE_SHIFT);
    buffer_text(out, (settings & SETTING_ISO8601) != 0 ? ",\"log_format\":\"ISO8601\"}"
                                                       : ",\"log_format\":\"default\"}");
    call_reply_buffer(call, CALL_JSON, out);
}

static enum weir_status set_format(yyjson_val *value, uint32_t *settings, struct weir_err *err)
{
    if (yyjson_equals_str(value, "default")) {
        *settings &= ~SETTING_ISO8601;
    } else if (yyjson_equals_str(value, "ISO8601")) {
        *settings |= SETTING_ISO8601;
    } else {
        return err_set(err, WEIR_EINVAL, "log_format: found %s, expected 'default' or 'ISO8601'",
                       json_kind(value));
    }
    return WEIR_OK;
}

static enum weir_status set_switch(const char *key, yyjson_val *value, uint32_t *settings,
                                   struct weir_err *err)
{
    for (int i = 0; i < SETTING_COUNT; i++) {
        if (strcmp(key, log_settings[i].key) != 0) {
            continue;
        }
        if (!yyjson_is_bool(value)) {
            return err_set(err, WEIR_EINVAL, "%s: found %s, expected a boolean", key,
                           json_kind(value));
        }
        *settings &= ~(UINT32_C(1) << i);
        *settings |= (yyjson_is_true(value) ? UINT32_C(1) : 0) << i;
        return WEIR_OK;
    }
    return err_set(err, WEIR_EINVAL,
                   "'%.64s' is not known here: expected log_info, log_warning, log_error, "
                   "log_verbose_level or log_format",
                   key);
}

static enum weir_status set_logging(const char *key, yyjson_val *value, uint32_t *settings,
                                    struct weir_err *err)
{
    if (yyjson_is_null(value)) {
        return WEIR_OK;
    }
    if (strcmp(key, "log_file") == 0) {
        return err_set(err, WEIR_EUNSUPPORTED,
                       "log_file: setting a file over the network is not supported");
    }
    if (strcmp(key, "log_format") == 0) {
        return set_format(value, settings, err);
    }
    if (strcmp(key, "log_verbose_level") != 0) {
        return set_switch(key, value, settings, err);
    }
    if (!yyjson_is_uint(value) || yyjson_get_uint(value) > VERBOSE_MAX) {
        return err_set(err, WEIR_EINVAL, "%s: found %s, expected a whole number up to %d", key,
                       json_kind(value), VERBOSE_MAX);
    }
    *settings &= (UINT32_C(1) << SETTING_VERBOSE_SHIFT) - 1;
    *settings |= (uint32_t)yyjson_get_uint(value) << SETTING_VERBOSE_SHIFT;
    return WEIR_OK;
}

/* Calls `set` for every member of the body's object; all are right, or nothing changes. */
typedef enum weir_status set_fn(const char *key, yyjson_val *value, uint32_t *settings,
                                struct weir_err *err);

static enum weir_status set_all(struct call *call, set_fn *set, uint32_t *settings,
                                struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    enum weir_status status = call_json(call, true, &doc, err);
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (status != WEIR_OK || doc == NULL) {
        return status;
    }
    if (!yyjson_is_obj(root)) {
        status = err_set(err, WEIR_EINVAL, "found %s, expected an object", json_kind(root));
    }
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *value;
    yyjson_obj_foreach(root, index, max, key, value) {
        if (status == WEIR_OK) {
            status = set(yyjson_get_str(key), value, settings, err);
        }
    }
    yyjson_doc_free(doc);
    return status;
}

void admin_logging_set(struct call *call)
{
    uint32_t settings = logging_settings(call->api);
    struct weir_err err;
    if (set_all(call, set_logging, &settings, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    atomic_store_explicit(&call->api->log_settings, settings, memory_order_relaxed);
    log_set_level(level_of(settings));
    admin_logging_get(call);
}

/* --- Trace --------------------------------------------------------------------------------- */

static bool find_traced(struct call *call)
{
    struct model *model;
    struct weir_err err;
    if (call->model.data == NULL) {
        return true;
    }
    if (call_lease(call, &model, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return false;
    }
    model_release(model);
    return true;
}

static void reply_trace(struct call *call)
{
    call_reply(call, BYTES_LITERAL("{\"trace_level\":[\"OFF\"],\"trace_rate\":\"1000\","
                                   "\"trace_count\":\"-1\",\"log_frequency\":\"0\","
                                   "\"trace_file\":\"\",\"trace_mode\":\"triton\"}"));
}

void admin_trace_get(struct call *call)
{
    if (find_traced(call)) {
        reply_trace(call);
    }
}

static bool is_off(yyjson_val *value)
{
    return yyjson_is_arr(value) && yyjson_arr_size(value) == 1 &&
           yyjson_equals_str(yyjson_arr_get_first(value), "OFF");
}

static enum weir_status set_trace(const char *key, yyjson_val *value, uint32_t *settings,
                                  struct weir_err *err)
{
    (void)settings;
    if (yyjson_is_null(value) || (strcmp(key, "trace_level") == 0 && is_off(value))) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EUNSUPPORTED,
                   "%.64s: tracing is not supported; only trace_level [\"OFF\"] can be set", key);
}

void admin_trace_set(struct call *call)
{
    uint32_t unused = 0;
    struct weir_err err;
    if (!find_traced(call)) {
        return;
    }
    if (set_all(call, set_trace, &unused, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    reply_trace(call);
}
