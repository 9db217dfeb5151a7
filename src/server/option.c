#include "server/option.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "net/tls.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/near.h"
#include "util/nvml.h"

#define LIST_MAX 64

#define TEXT(name, text) text,
static const char *const control_texts[] = { MODEL_CONTROLS(TEXT) NULL };
static const char *const eviction_texts[] = { EVICTIONS(TEXT) NULL };
static const char *const level_texts[] = { LOG_LEVELS(TEXT) NULL };
static const char *const rate_texts[] = { "off", "execution_count", NULL };
static const char *const tls_client_texts[] = { TLS_CLIENTS(TEXT) NULL };
static const char *const tls_min_texts[] = { TLS_MINS(TEXT) NULL };
static const char *const format_texts[] = { "auto", "text", "json", NULL };
#undef TEXT

#define AT(field) offsetof(struct config, field)
#define COUNT_MAX UINT64_C(1000000000)
#define SIZE_BYTES_MAX (UINT64_C(1) << 50)

const struct option options[] = {
    { "repository", "models", KIND_LIST, AT(repository), 0, 0, "models", NULL,
      "folders of models, laid out NAME/VERSION/model.onnx" },
    { "model_control", "models", KIND_ENUM, AT(model_control), 0, 0, "all", control_texts,
      "load all at start, only when told to (explicit), follow the folders (poll), or load a model "
      "when it is asked for (demand)" },
    { "load_model", "models", KIND_LIST, AT(load_model), 0, 0, "", NULL,
      "explicit, demand: models to load at start; * is all" },
    { "poll_interval", "models", KIND_DURATION, AT(poll_interval_ns), 0, 0, "15s", NULL,
      "poll, demand: time between looks at the folders" },
    { "memory_max", "models", KIND_SIZE, AT(memory_max_bytes), 0, SIZE_BYTES_MAX, "0", NULL,
      "memory of the server with all loaded models; demand: others are unloaded to make room; "
      "0: no limit" },
    { "memory_devices", "models", KIND_LIST, AT(memory_devices), 0, 0, "", NULL,
      "the same for single devices, NAME:SIZE each, such as npu:2GiB; cpu is main memory" },
    { "memory_groups", "models", KIND_LIST, AT(memory_groups), 0, 0, "", NULL,
      "the same for models with a memory_group, GROUP:SIZE each" },
    { "resident_models_max", "models", KIND_COUNT, AT(resident_models_max), 0, COUNT_MAX, "0", NULL,
      "the same in models; 0: no limit" },
    { "eviction", "models", KIND_ENUM, AT(eviction), 0, 0, "cost", eviction_texts,
      "demand: who goes first: used longest ago (lru), least often (lfu), or cheapest to do "
      "without: time to load x rate of use / memory (cost)" },
    { "pinned", "models", KIND_LIST, AT(pinned), 0, 0, "", NULL,
      "demand: models that stay once they are loaded" },
    { "residency_min", "models", KIND_DURATION, AT(residency_min_ns), 0, 0, "1s", NULL,
      "demand: a model stays at least so long after it was loaded" },
    { "idle_unload", "models", KIND_DURATION, AT(idle_unload_ns), 0, 0, "0s", NULL,
      "demand: a model that nobody asks for is unloaded after so long; 0: never" },
    { "preload_next", "models", KIND_BOOL, AT(preload_next), 0, 0, "false", NULL,
      "demand: load what is usually asked for next ahead, where there is room" },
    { "canary_interval", "models", KIND_DURATION, AT(canary_interval_ns), 0, 0, "0s", NULL,
      "a model without a run for so long, 100ms at least, gets one of the server's own, on its "
      "model_warmup or zeros; one that fails makes it not ready; 0: none" },
    { "cache_bytes", "models", KIND_SIZE, AT(cache_bytes), 0, SIZE_BYTES_MAX, "64MiB", NULL,
      "answers kept for models with response_cache; 0: none" },
    { "profile_store", "models", KIND_TEXT, AT(profile_store), 0, 0, "model", NULL,
      "what runs cost is kept from start to start: beside the model (model), in a folder, or off" },
    { "model_cache", "models", KIND_TEXT, AT(model_cache), 0, 0, "auto", NULL,
      "converted models, whose weights can be mapped, are kept in this folder; auto: in the "
      "user's cache, or off" },
    { "model_cache_max", "models", KIND_SIZE, AT(model_cache_bytes_max), 0, SIZE_BYTES_MAX, "32GiB",
      NULL, "bytes of them; what was used longest ago goes" },
    { "plugin", "models", KIND_LIST, AT(plugins), 0, 0, "", NULL,
      "shared libraries with backends for other devices (weir/plugin.h)" },
    { "host", "listeners", KIND_TEXT, AT(host), 0, 0, "127.0.0.1", NULL, "address to listen on" },
    { "http_port", "listeners", KIND_COUNT, AT(http_port), 0, 65535, "8000", NULL,
      "first port; every port speaks every protocol; 0 picks a free one" },
    { "grpc_port", "listeners", KIND_COUNT, AT(grpc_port), 0, 65535, "8001", NULL,
      "second port, where Triton's gRPC clients look" },
    { "metrics_port", "listeners", KIND_COUNT, AT(metrics_port), 0, 65535, "8002", NULL,
      "third port, where Triton's dashboards look" },
    { "port", "listeners", KIND_COUNT, AT(port), 0, 65535, "0", NULL,
      "one port for everything instead of three; 0: three" },
    { "unix_socket", "listeners", KIND_TEXT, AT(unix_socket), 0, 0, "", NULL,
      "path of a Unix socket to listen on too" },
    { "allow_wide_bind", "listeners", KIND_BOOL, AT(allow_wide_bind), 0, 0, "false", NULL,
      "allow a host other than loopback without keys or client certificates" },
    { "tls_certificate", "access", KIND_TEXT, AT(tls_certificate), 0, 0, "", NULL,
      "PEM file of the server's certificate and those behind it: every TCP port speaks TLS" },
    { "tls_key", "access", KIND_TEXT, AT(tls_key), 0, 0, "", NULL,
      "PEM file of its private key, without a passphrase" },
    { "tls_client_ca", "access", KIND_TEXT, AT(tls_client_ca), 0, 0, "", NULL,
      "PEM file of who may sign clients' certificates; empty: clients need none" },
    { "tls_client", "access", KIND_ENUM, AT(tls_client), 0, 0, "required", tls_client_texts,
      "with tls_client_ca: must clients have a certificate" },
    { "tls_min_version", "access", KIND_ENUM, AT(tls_min_version), 0, 0, "1.2", tls_min_texts,
      "oldest version of TLS" },
    { "api_keys", "access", KIND_TEXT, AT(api_keys), 0, 0, "", NULL,
      "file of hashed keys, as `weir key` makes them; empty: no key is asked for" },
    { "open_groups", "access", KIND_LIST, AT(open_groups), 0, 0, "health", NULL,
      "with api_keys: groups of calls that need no key" },
    { "http_restricted_api", "access", KIND_LIST, AT(http_restricted_api), 0, 0, "", NULL,
      "as Triton has it, GROUP[,GROUP]:HEADER=VALUE: REST calls that need this header" },
    { "grpc_restricted_protocol", "access", KIND_LIST, AT(grpc_restricted_protocol), 0, 0, "", NULL,
      "the same for gRPC, with the metadata triton-grpc-protocol-HEADER" },
    { "cors_origins", "access", KIND_LIST, AT(cors_origins), 0, 0, "", NULL,
      "web pages that may call, such as https://app.example.org; * is all" },
    { "reload_interval", "access", KIND_DURATION, AT(reload_interval_ns), 0, 0, "10s", NULL,
      "time between looks at the files of certificates and keys; SIGHUP looks at once" },
    { "shared_memory", "access", KIND_TEXT, AT(shared_memory), 0, 0, "", NULL,
      "names in /dev/shm that clients may register begin with this; * is all; empty: none" },
    { "client_header", "access", KIND_TEXT, AT(client_header), 0, 0, "", NULL,
      "request field that names the client to be fair to, where no key does; empty: its address" },
    { "loops", "threads", KIND_COUNT, AT(loops), 0, 64, "0", NULL,
      "network threads; 0: one per 4 processors" },
    { "loop_spin", "threads", KIND_DURATION, AT(loop_spin_ns), 0, 0, "0s", NULL,
      "time that a network thread always looks for more before it sleeps, such as 50us: answers "
      "come sooner, for a processor that is busy between requests; 0: only where they come one "
      "close behind the other" },
    { "executors", "threads", KIND_COUNT, AT(executors), 0, 256, "0", NULL,
      "models run at once on the processor; 0: one per processor" },
    { "executor_nice", "threads", KIND_COUNT, AT(executor_nice), 0, 19, "5", NULL,
      "how much processor time executors leave to network threads on the same processor, and to "
      "others on the machine: added to their niceness" },
    { "processors", "threads", KIND_TEXT, AT(processors), 0, 0, "auto", NULL,
      "where models run: processors such as 0-7,16; auto: on all, and where there are several "
      "memory "
      "nodes each executor keeps to one; off: wherever the system likes" },
    { "pin", "threads", KIND_BOOL, AT(pin), 0, 0, "false", NULL,
      "each executor keeps to one processor" },
    { "devices", "threads", KIND_LIST, AT(devices), 0, 0, "", NULL,
      "further devices, NAME:RUNS or NAME:RUNS:unpipelined each, such as gpu0:2; those whose names "
      "differ in their number only form a pool" },
    { "gpu_library", "threads", KIND_TEXT, AT(gpu_library), 0, 0, NVML_LIBRARY, NULL,
      "NVIDIA's management library, for the metrics nv_gpu_*; empty: none are read" },
    { "class_shares", "threads", KIND_LIST, AT(class_shares), 0, 0, "10", NULL,
      "per cent of a device's time that priorities 1 to 8 are sure of while they have work, such "
      "as 20,10: the last one holds for the rest" },
    { "ageing", "threads", KIND_DURATION, AT(ageing_ns), 0, 0, "10s", NULL,
      "a request goes up one priority for each such time it waits; 0: never" },
    { "blocking_budget", "threads", KIND_DURATION, AT(blocking_budget_ns), 0, 0, "10ms", NULL,
      "a batch takes no longer while more urgent requests come; a single request always runs" },
    { "rate_limit", "threads", KIND_ENUM, AT(rate_limit), 0, 0, "off", rate_texts,
      "execution_count: runs hold their model's rate_limiter resources while they last" },
    { "rate_limit_resource", "threads", KIND_LIST, AT(rate_limit_resource), 0, 0, "", NULL,
      "how much there is of a resource, NAME:COUNT or NAME:COUNT:DEVICE each; else the most that "
      "one run needs" },
    { "inline_runs", "threads", KIND_BOOL, AT(inline_runs), 0, 0, "true", NULL,
      "run models of a few microseconds on the network thread" },
    { "name", "answers", KIND_TEXT, AT(name), 0, 0, "weir", NULL,
      "the server's name in its metadata" },
    { "timing", "answers", KIND_BOOL, AT(timing), 0, 0, "false", NULL,
      "tell every answer's time by stage in a Server-Timing header" },
    { "log_level", "logs", KIND_ENUM, AT(log_level), 0, 0, "info", level_texts,
      "least urgent events to log" },
    { "log_format", "logs", KIND_ENUM, AT(log_format), 0, 0, "auto", format_texts,
      "auto: text on a terminal, else json" },
    { "access_log", "logs", KIND_BOOL, AT(access_log), 0, 0, "false", NULL, "log every request" },
#define LIMIT_KIND_COUNT KIND_COUNT
#define LIMIT_KIND_SIZE KIND_SIZE
#define LIMIT_KIND_DURATION KIND_DURATION
/* Where 0 is the default it means something; a limit of 0 otherwise would let nothing through. */
#define LIMIT_MIN_COUNT(value) ((value) == 0 ? 0 : 1)
#define LIMIT_MIN_SIZE(value) ((value) == 0 ? 0 : 1)
#define LIMIT_MIN_DURATION(value) 0
#define LIMIT_MAX_COUNT COUNT_MAX
#define LIMIT_MAX_SIZE SIZE_BYTES_MAX
#define LIMIT_MAX_DURATION 0
#define LIMIT_OPTION(field, value, kind, text) \
    { "limits." #field,                        \
      "limits",                                \
      LIMIT_KIND_##kind,                       \
      AT(limits.field),                        \
      LIMIT_MIN_##kind(value),                 \
      LIMIT_MAX_##kind,                        \
      NULL,                                    \
      NULL,                                    \
      text },
    LIMITS(LIMIT_OPTION)
#undef LIMIT_OPTION
};

const size_t option_count = sizeof(options) / sizeof(*options);

static void *field_of(struct config *config, const struct option *option)
{
    return (char *)config + option->offset;
}

/* Counts, sizes, durations and choices take eight bytes; those of limits are atomic, which C's
 * pointers tell apart. */
_Static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t),
               "limits are read as other settings are");

static uint64_t number_of(const void *value)
{
    uint64_t number;
    memcpy(&number, value, sizeof(number));
    return number;
}

static const void *value_of(const struct config *config, const struct option *option)
{
    return (const char *)config + option->offset;
}

/* The key as people write it: limits.idle_timeout_ns is a duration, so its unit is not in its
 * name. */
void option_key(const struct option *option, char *out)
{
    (void)snprintf(out, OPTION_WORD_BYTES, "%s", option->key);
    char *unit = strstr(out, "_ns");
    if (unit != NULL && unit[3] == '\0') {
        *unit = '\0';
    }
}

void option_flag(const struct option *option, char *out)
{
    char key[OPTION_WORD_BYTES];
    option_key(option, key);
    (void)snprintf(out, OPTION_WORD_BYTES, "--%.*s", OPTION_WORD_BYTES - 3, key);
    for (char *at = out; *at != '\0'; at++) {
        *at = *at == '_' ? '-' : *at;
    }
}

void option_variable(const struct option *option, char *out)
{
    char key[OPTION_WORD_BYTES];
    option_key(option, key);
    (void)snprintf(out, OPTION_WORD_BYTES, "WEIR_%.*s", OPTION_WORD_BYTES - 6, key);
    for (char *at = out; *at != '\0'; at++) {
        *at = *at == '.' ? '_' : (char)toupper((unsigned char)*at);
    }
}

const struct option *option_find(option_name_fn *name, const char *text)
{
    for (size_t i = 0; i < option_count; i++) {
        char candidate[OPTION_WORD_BYTES];
        name(&options[i], candidate);
        if (strcmp(candidate, text) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

const char *option_hint(option_name_fn *name, const char *text, char *out)
{
    struct near near;
    near_begin(&near, text);
    for (size_t i = 0; i < option_count; i++) {
        char candidate[OPTION_WORD_BYTES];
        name(&options[i], candidate);
        near_look(&near, candidate);
    }
    out[0] = '\0';
    if (near.word[0] != '\0') {
        (void)snprintf(out, OPTION_WORD_BYTES + 32, "; did you mean '%s'?", near.word);
    }
    return out;
}

static const char *expected_enum(const struct option *option, char *out)
{
    size_t at = 0;
    for (uint32_t i = 0; option->texts[i] != NULL && at < OPTION_EXPECTED_BYTES; i++) {
        const char *glue = i == 0 ? "" : option->texts[i + 1] == NULL ? " or " : ", ";
        at +=
            (size_t)snprintf(out + at, OPTION_EXPECTED_BYTES - at, "%s%s", glue, option->texts[i]);
    }
    return out;
}

const char *option_expected(const struct option *option, char *out)
{
    switch (option->kind) {
    case KIND_BOOL:
        return "true or false";
    case KIND_COUNT:
        (void)snprintf(out, OPTION_EXPECTED_BYTES, "a whole number from %llu to %llu",
                       (unsigned long long)option->min, (unsigned long long)option->max);
        return out;
    case KIND_SIZE:
        return option->min == 0 ? "a size such as 64MiB" : "a size above 0 such as 64MiB";
    case KIND_DURATION:
        return "a duration such as 30s or 500ms";
    case KIND_TEXT:
        return "a text";
    case KIND_LIST:
        return "a list";
    case KIND_ENUM:
        break;
    }
    return expected_enum(option, out);
}

static bool read_bool(const char *text, bool *out)
{
    const bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0) {
        return false;
    }
    *out = yes;
    return true;
}

static bool read_enum(const struct option *option, const char *text, uint64_t *out)
{
    for (uint32_t i = 0; option->texts[i] != NULL; i++) {
        if (strcmp(option->texts[i], text) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static enum weir_status list_add(struct config *config, struct config_list *list, struct bytes item,
                                 struct weir_err *err)
{
    if (list->items == NULL) {
        list->items = arena_try_alloc(&config->arena, LIST_MAX * sizeof(*list->items));
    }
    char *copy = arena_try_strndup(&config->arena, item.data, item.size);
    if (list->items == NULL || copy == NULL) {
        return err_nomem(err, "the configuration", item.size);
    }
    if (list->count == LIST_MAX) {
        return err_set(err, WEIR_EINVAL, "more than %d entries", LIST_MAX);
    }
    list->items[list->count++] = copy;
    return WEIR_OK;
}

/* "a,b": as the environment and the command line write lists. */
static enum weir_status read_list(struct config *config, struct config_list *list, const char *text,
                                  struct weir_err *err)
{
    for (const char *at = text; *at != '\0';) {
        const size_t size = strcspn(at, ",");
        if (size > 0) {
            const enum weir_status status = list_add(config, list, (struct bytes){ at, size }, err);
            if (status != WEIR_OK) {
                return status;
            }
        }
        at += size + (at[size] == ',' ? 1 : 0);
    }
    return WEIR_OK;
}

/* Reads one value; `where` begins the sentence. */
enum weir_status option_read(struct config *config, const struct option *option, const char *text,
                             const char *where, struct weir_err *err)
{
    void *field = field_of(config, option);
    uint64_t number = 0;
    bool good = false;
    switch (option->kind) {
    case KIND_BOOL:
        good = read_bool(text, field);
        break;
    case KIND_COUNT:
        good = bytes_to_u64(bytes_of(text), option->max, &number) && number >= option->min;
        break;
    case KIND_SIZE:
        good = bytes_to_size(bytes_of(text), &number) && number >= option->min &&
               number <= option->max;
        break;
    case KIND_DURATION:
        good = bytes_to_duration_ns(bytes_of(text), &number);
        break;
    case KIND_ENUM:
        good = read_enum(option, text, &number);
        break;
    case KIND_LIST:
        return read_list(config, field, text, err) == WEIR_OK ? WEIR_OK
                                                              : err_prefix(err, "%s", where);
    case KIND_TEXT: {
        const char *copy = arena_try_strndup(&config->arena, text, strlen(text));
        if (copy == NULL) {
            return err_nomem(err, "the configuration", strlen(text));
        }
        *(const char **)field = copy;
        return WEIR_OK;
    }
    }
    if (!good) {
        char expected[OPTION_EXPECTED_BYTES];
        return err_set(err, WEIR_EINVAL, "%s: found '%s', expected %s", where, text,
                       option_expected(option, expected));
    }
    if (option->kind != KIND_BOOL) {
        memcpy(field, &number, sizeof(number));
    }
    return WEIR_OK;
}

enum weir_status option_add(struct config *config, const struct option *option, const char *text,
                            const char *where, struct weir_err *err)
{
    return list_add(config, field_of(config, option), bytes_of(text), err) == WEIR_OK
               ? WEIR_OK
               : err_prefix(err, "%s", where);
}

void option_clear(struct config *config, const struct option *option)
{
    *(struct config_list *)field_of(config, option) = (struct config_list){ 0 };
}

void option_format(const struct config *config, const struct option *option, struct buffer *out)
{
    const void *value = value_of(config, option);
    char text[32];
    switch (option->kind) {
    case KIND_BOOL:
        buffer_text(out, *(const bool *)value ? "true" : "false");
        return;
    case KIND_COUNT:
        buffer_u64(out, number_of(value));
        return;
    case KIND_SIZE:
        buffer_text(out, bytes_format_size(number_of(value), text));
        return;
    case KIND_DURATION:
        buffer_text(out, bytes_format_duration(number_of(value), text));
        return;
    case KIND_TEXT:
        buffer_text(out, *(const char *const *)value);
        return;
    case KIND_ENUM:
        buffer_text(out, option->texts[number_of(value)]);
        return;
    case KIND_LIST:
        break;
    }
    const struct config_list *list = value;
    for (uint64_t i = 0; i < list->count; i++) {
        buffer_text(out, i == 0 ? "" : ",");
        buffer_text(out, list->items[i]);
    }
}
