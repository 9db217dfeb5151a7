/*
 * Routing.
 *
 * Patterns are matched as they stand, first to last: what is asked for most is
 * first, so the hot path looks at one row, and "/v2/models/stats" stands before
 * the model of that name, as in Triton.
 */
#include "api/route.h"

#include <string.h>

#include "api/admin.h"
#include "api/cancel.h"
#include "api/generate.h"
#include "api/kserve_rest.h"
#include "api/metrics.h"
#include "api/openapi.h"
#include "api/quarantine_api.h"
#include "api/repository.h"
#include "api/settings.h"
#include "api/shared_memory.h"
#include "api/statistics.h"

#define MODEL "/v2/models/{model}[/versions/{version}]"
#define REPOSITORY "/v2/repository[/{repository}]"
#define SYSTEM "/v2/systemsharedmemory[/region/{region}]"
#define CUDA "/v2/cudasharedmemory[/region/{region}]"

static const struct route routes[] = {
    { HTTP_POST, MODEL "/infer", GROUP_INFERENCE, BODY_TENSORS, kserve_rest_infer,
      "inference: JSON and binary tensors", true },
    { HTTP_POST, MODEL "/generate", GROUP_INFERENCE, BODY_JSON, generate_once,
      "inference: plain JSON in and out", true },
    { HTTP_POST, MODEL "/generate_stream", GROUP_INFERENCE, BODY_JSON, generate_stream,
      "the same, an event per part of the answer", true },
    { HTTP_POST, MODEL "/cancel", GROUP_INFERENCE, BODY_SETTINGS, cancel_post,
      "cancel inferences by their id", false },
    { HTTP_GET, "/v2/health/live", GROUP_HEALTH, BODY_NONE, admin_live, "is the process up",
      false },
    { HTTP_GET, "/v2/health/ready", GROUP_HEALTH, BODY_NONE, admin_ready,
      "are all required models ready", false },
    { HTTP_GET, MODEL "/ready", GROUP_HEALTH, BODY_NONE, admin_model_ready, "is this model ready",
      false },
    { HTTP_GET, "/", GROUP_METADATA, BODY_NONE, admin_home, "this text", false },
    { HTTP_GET, "/openapi.yaml", GROUP_METADATA, BODY_NONE, openapi_get,
      "the same for programs (OpenAPI 3.1)", false },
    { HTTP_GET, "/v2[/]", GROUP_METADATA, BODY_NONE, admin_server_metadata,
      "the server's name, version and extensions", false },
    { HTTP_GET, "/v2/models[/]", GROUP_METADATA, BODY_NONE, admin_models, "names of the models",
      false },
    { HTTP_GET, "/v2/models/stats", GROUP_STATISTICS, BODY_NONE, statistics_all,
      "statistics of all models", false },
    { HTTP_GET, MODEL, GROUP_METADATA, BODY_NONE, admin_model_metadata,
      "a model's inputs and outputs", true },
    { HTTP_GET, MODEL "/config", GROUP_MODEL_CONFIG, BODY_NONE, admin_model_config,
      "a model's configuration", true },
    { HTTP_GET, MODEL "/stats", GROUP_STATISTICS, BODY_NONE, statistics_model,
      "a model's statistics", false },
    { HTTP_POST, REPOSITORY "/index", GROUP_MODEL_REPOSITORY, BODY_SETTINGS, repository_index,
      "models and their states", false },
    { HTTP_POST, REPOSITORY "/models/{model}/load", GROUP_MODEL_REPOSITORY, BODY_JSON,
      repository_load, "load a model", false },
    { HTTP_POST, REPOSITORY "/models/{model}/unload", GROUP_MODEL_REPOSITORY, BODY_SETTINGS,
      repository_unload, "unload a model", false },
    { HTTP_GET, "/v2/quarantine", GROUP_MODEL_REPOSITORY, BODY_NONE, quarantine_show,
      "inputs refused because they crashed their model", false },
    { HTTP_POST, "/v2/quarantine/clear", GROUP_MODEL_REPOSITORY, BODY_SETTINGS, quarantine_let_go,
      "let them go, all or of one model", false },
    { HTTP_POST, "/v2/settings/reload", GROUP_MODEL_REPOSITORY, BODY_NONE, settings_reload,
      "read settings, keys, certificates and repositories again", false },
    { HTTP_GET, "/metrics[/]", GROUP_METRICS, BODY_NONE, metrics_get, "Prometheus metrics", false },
    { HTTP_GET, "/v2/logging", GROUP_LOGGING, BODY_NONE, admin_logging_get, "log settings", false },
    { HTTP_POST, "/v2/logging", GROUP_LOGGING, BODY_SETTINGS, admin_logging_set,
      "change log settings", false },
    { HTTP_GET, "/v2/trace/setting", GROUP_TRACE, BODY_NONE, admin_trace_get,
      "trace settings (always off)", false },
    { HTTP_POST, "/v2/trace/setting", GROUP_TRACE, BODY_SETTINGS, admin_trace_set,
      "accepts only trace settings that are off", false },
    { HTTP_GET, "/v2/models/{model}/trace/setting", GROUP_TRACE, BODY_NONE, admin_trace_get,
      "the same of one model", false },
    { HTTP_POST, "/v2/models/{model}/trace/setting", GROUP_TRACE, BODY_SETTINGS, admin_trace_set,
      "the same of one model", false },
    { HTTP_GET, SYSTEM "/status", GROUP_SHARED_MEMORY, BODY_NONE, shared_memory_status,
      "regions of shared memory", false },
    { HTTP_POST, "/v2/systemsharedmemory/region/{region}/register", GROUP_SHARED_MEMORY,
      BODY_SETTINGS, shared_memory_register, "make a region known", false },
    { HTTP_POST, SYSTEM "/unregister", GROUP_SHARED_MEMORY, BODY_SETTINGS, shared_memory_unregister,
      "forget a region, or all", false },
    { HTTP_GET, CUDA "/status", GROUP_SHARED_MEMORY, BODY_NONE, shared_memory_cuda_status,
      "always none", false },
    { HTTP_POST, "/v2/cudasharedmemory/region/{region}/register", GROUP_SHARED_MEMORY,
      BODY_SETTINGS, shared_memory_cuda_register, "not supported", false },
    { HTTP_POST, CUDA "/unregister", GROUP_SHARED_MEMORY, BODY_SETTINGS,
      shared_memory_cuda_unregister, "nothing to forget", false },
};

#define ROUTE_COUNT (sizeof routes / sizeof routes[0])

static const char *const group_texts[] = {
#define ROUTE_GROUP_TEXT(name, text) text,
    ROUTE_GROUPS(ROUTE_GROUP_TEXT)
#undef ROUTE_GROUP_TEXT
};

static const char *const method_texts[] = {
#define HTTP_METHOD_TEXT(name) #name,
    HTTP_METHODS(HTTP_METHOD_TEXT)
#undef HTTP_METHOD_TEXT
};

/* Takes one segment from the path for the word in braces. */
static bool take(const char *word, struct bytes *path, struct route_match *out)
{
    const char *slash = memchr(path->data, '/', path->size);
    const struct bytes segment = {
        path->data,
        slash == NULL ? path->size : (size_t)(slash - path->data),
    };
    if (segment.size == 0) {
        return false;
    }
    if (word[1] == 'v') {
        out->has_version = true;
        if (!bytes_to_u64(segment, UINT64_MAX, &out->version)) {
            return false;
        }
    } else if (word[1] == 'm') {
        out->model = segment;
    } else {
        out->name = segment;
    }
    path->data += segment.size;
    path->size -= segment.size;
    return true;
}

static const char *after(const char *pattern, char end)
{
    while (*pattern++ != end) {
    }
    return pattern;
}

/* Recurses once per optional part, of which a pattern has at most one. */
static bool match(const char *pattern, struct bytes path, struct route_match *out)
{
    while (*pattern != '\0') {
        if (*pattern == '[') {
            const struct route_match before = *out;
            if (match(pattern + 1, path, out)) {
                return true;
            }
            *out = before;
            pattern = after(pattern, ']');
        } else if (*pattern == ']') {
            pattern++;
        } else if (*pattern == '{') {
            if (!take(pattern, &path, out)) {
                return false;
            }
            pattern = after(pattern, '}');
        } else if (path.size > 0 && path.data[0] == *pattern) {
            pattern++;
            path.data++;
            path.size--;
        } else {
            return false;
        }
    }
    return path.size == 0;
}

const char *route_group_text(enum route_group group)
{
    return group_texts[group];
}

enum weir_status route_find(enum http_method method, struct bytes path, struct route_match *out,
                            uint32_t *allow)
{
    const enum http_method wanted = method == HTTP_HEAD ? HTTP_GET : method;
    uint32_t methods = 0;
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        struct route_match found = { .route = &routes[i] };
        if (!match(routes[i].pattern, path, &found)) {
            continue;
        }
        if (routes[i].method == wanted) {
            *out = found;
            return WEIR_OK;
        }
        methods |= UINT32_C(1) << routes[i].method;
        methods |= routes[i].method == HTTP_GET ? UINT32_C(1) << HTTP_HEAD : 0;
    }
    if (methods == 0) {
        return WEIR_ENOENT;
    }
    *allow = methods;
    return WEIR_EMETHOD;
}

char *route_allow_format(uint32_t allow, char *out)
{
    char *at = out;
    for (size_t i = 0; i < sizeof method_texts / sizeof method_texts[0]; i++) {
        if ((allow >> i & 1) == 0) {
            continue;
        }
        const size_t size = strlen(method_texts[i]);
        if (at != out) {
            memcpy(at, ", ", 2);
            at += 2;
        }
        memcpy(at, method_texts[i], size);
        at += size;
    }
    *at = '\0';
    return out;
}

const struct route *route_at(uint32_t index)
{
    return index < ROUTE_COUNT ? &routes[index] : NULL;
}
