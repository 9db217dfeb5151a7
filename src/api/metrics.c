/*
 * Metrics.
 *
 * Two tables: what each model has, and what the server has.  A row is a name, a type, a help
 * text and where its numbers are; the text follows from them.  Dashboards made for Triton find
 * its names with its meanings; Weir's own begin with weir_.
 */
#include "api/metrics.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/access.h"
#include "api/call.h"
#include "api/device_show.h"
#include "api/memory_show.h"
#include "api/shm.h"
#include "engine/cache.h"
#include "engine/outage.h"
#include "engine/quarantine.h"
#include "engine/sequence.h"
#include "net/tls.h"
#include "util/metric.h"

#define LABEL_BYTES 640
#define PROC_BYTES 4096

/* One reading. */
struct scrape {
    struct api *api;
    const struct catalogue *catalogue;
    struct buffer *out;
};

static uint64_t load(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static uint64_t us(const _Atomic uint64_t *ns)
{
    return load(ns) / NS_PER_US;
}

/* --- Models -------------------------------------------------------------------------------- */

/* X(symbol, name, type, help, value of model `m`) */
#define MODEL_NUMBERS(X)                                                                           \
    X(success, "nv_inference_request_success", "counter",                                          \
      "Number of successful inference requests, all batch sizes", load(&m->stats.success.count))   \
    X(count, "nv_inference_count", "counter",                                                      \
      "Number of inferences performed (does not include cached requests)",                         \
      load(&m->stats.inference_count))                                                             \
    X(exec, "nv_inference_exec_count", "counter",                                                  \
      "Number of model executions performed (does not include cached requests)",                   \
      load(&m->stats.execution_count))                                                             \
    X(request_us, "nv_inference_request_duration_us", "counter",                                   \
      "Cumulative inference request duration in microseconds", us(&m->stats.success.ns))           \
    X(queue_us, "nv_inference_queue_duration_us", "counter",                                       \
      "Cumulative inference queuing duration in microseconds", us(&m->stats.queue.ns))             \
    X(input_us, "nv_inference_compute_input_duration_us", "counter",                               \
      "Cumulative compute input duration in microseconds", us(&m->stats.input_ns))                 \
    X(infer_us, "nv_inference_compute_infer_duration_us", "counter",                               \
      "Cumulative compute inference duration in microseconds", us(&m->stats.compute.ns))           \
    X(output_us, "nv_inference_compute_output_duration_us", "counter",                             \
      "Cumulative inference compute output duration in microseconds",                              \
      us(&m->stats.output_ns))                                                                     \
    X(pending, "nv_inference_pending_request_count", "gauge",                                      \
      "Requests accepted whose execution has not started", engine_waiting_count(m))                \
    X(refused, "weir_requests_refused_total", "counter",                                           \
      "Requests refused at a limit before they were in line", load(&m->stats.refused))             \
    X(joined, "weir_requests_joined_total", "counter",                                             \
      "Requests that shared the run of an equal one", load(&m->stats.joined))                      \
    X(refused_late, "weir_requests_refused_late_total", "counter",                                 \
      "Requests refused on arrival because their deadline could not have been met",                \
      load(&m->stats.refused_late))                                                                \
    X(refused_limit, "weir_requests_refused_limit_total", "counter",                               \
      "Requests refused at the limit on requests in hand", load(&m->stats.refused_limit))          \
    X(dropped, "weir_requests_dropped_total", "counter",                                           \
      "Requests let go in line because their deadline could not be met any more",                  \
      load(&m->stats.dropped))                                                                     \
    X(limit, "weir_requests_limit", "gauge",                                                       \
      "Requests in hand beyond which more are refused", engine_adaptive_limit(m))                  \
    X(timed_out, "weir_requests_timed_out_total", "counter",                                       \
      "Requests whose deadline or queue time-out passed", load(&m->stats.timed_out))               \
    X(canceled, "weir_requests_canceled_total", "counter",                                         \
      "Requests whose client went away", load(&m->stats.canceled))                                 \
    X(loaded, "weir_model_loaded_bytes", "gauge", "Resident memory that loading the model took",   \
      m->loaded_bytes)                                                                             \
    X(batching, "weir_model_batching", "gauge", "1 where requests share runs",                     \
      m->batching ? 1 : 0)                                                                         \
    X(runs_max, "weir_model_runs_max", "gauge",                                                    \
      "Runs at once: what is configured, or found to pay", engine_runs_max(m))                     \
    X(hurts, "weir_model_instances_hurt", "gauge",                                                 \
      "1 where fewer instances than configured did more", m->instances_reason != NULL ? 1 : 0)     \
    X(inline_slow, "weir_model_inline_slow_total", "counter",                                       \
      "Runs on network threads of over 10 ms; others are made elsewhere for a while",              \
      load(&m->stats.inline_slow))                                                                 \
    X(available, "weir_model_available", "gauge",                                                  \
      "0 while its process fails again and again, or a run of it does not end",                    \
      outage_check(m, NULL) == WEIR_OK ? 1 : 0)                                                    \
    X(ready, "weir_model_ready", "gauge", "What its readiness says: 0 also while its canary fails",  \
      outage_check_ready(m, NULL) == WEIR_OK ? 1 : 0)                                              \
    X(canaries, "weir_model_canaries_total", "counter",                                            \
      "Runs that the server began by itself to see whether the model answers",                     \
      load(&m->stats.canaries))                                                                    \
    X(canaries_failed, "weir_model_canaries_failed_total", "counter",                              \
      "Those that failed or did not end in time", load(&m->stats.canaries_failed))                 \
    X(leases, "weir_model_leases", "gauge", "Users that keep the model version loaded",            \
      load(&m->leases))

#define NUMBER_GETTER(symbol, name, type, help, value) \
    static uint64_t get_##symbol(struct model *m)      \
    {                                                  \
        return value;                                  \
    }
MODEL_NUMBERS(NUMBER_GETTER)
#undef NUMBER_GETTER

/* X(symbol, has, name, type, help, value of model `m`): only of models that `has` */
#define SOME_NUMBERS(X)                                                                            \
    X(hits, m->cached, "nv_cache_num_hits_per_model", "counter",                                   \
      "Number of cache hits per model", load(&m->stats.cache_hit.count))                           \
    X(misses, m->cached, "nv_cache_num_misses_per_model", "counter",                               \
      "Number of cache misses per model", load(&m->stats.cache_miss.count))                        \
    X(hit_us, m->cached, "nv_cache_hit_duration_per_model", "counter",                             \
      "Cumulative time of look-ups that found an answer, in microseconds",                         \
      us(&m->stats.cache_hit.ns))                                                                  \
    X(miss_us, m->cached, "nv_cache_miss_duration_per_model", "counter",                           \
      "Cumulative time of look-ups that found none and of keeping it then, in microseconds",       \
      us(&m->stats.cache_miss.ns))                                                                 \
    X(runs, m->graph != NULL, "weir_ensemble_requests", "gauge",                                   \
      "Requests under way in the ensemble", load(&m->runs))                                        \
    X(processes, m->config->isolation == ISOLATE_PROCESS, "weir_model_process_bytes", "gauge",      \
      "Memory of the model's own processes, but for what they share", model_process_bytes(m))      \
    X(restarts, m->config->isolation == ISOLATE_PROCESS, "weir_model_process_restarts_total",      \
      "counter", "Processes of the model that ended and were replaced", model_process_restarts(m)) \
    X(sequences, m->sequences != NULL, "weir_sequences", "gauge",                                  \
      "Sequences that are open or wait for a place", engine_sequence_count(m))                     \
    X(started, m->sequences != NULL, "weir_sequences_started_total", "counter",                    \
      "Sequences since the load", load(&m->sequences->started))                                    \
    X(idled, m->sequences != NULL, "weir_sequences_dropped_total", "counter",                      \
      "Sequences dropped because no request came", load(&m->sequences->dropped))                   \
    X(states, m->sequences != NULL, "weir_sequence_state_bytes", "gauge",                          \
      "Bytes of states kept between requests", load(&m->sequences->state_bytes))

#define SOME_GETTER(symbol, has, name, type, help, value) \
    static bool has_##symbol(const struct model *m)       \
    {                                                     \
        return has;                                       \
    }                                                     \
    static uint64_t some_##symbol(struct model *m)        \
    {                                                     \
        return value;                                     \
    }
SOME_NUMBERS(SOME_GETTER)
#undef SOME_GETTER

/* X(name, help, member of model_stats) */
#define MODEL_HISTOGRAMS(X)                                                                   \
    X("weir_request_queue_seconds", "Time in line", queue_time)                               \
    X("weir_request_gather_seconds", "Time to put a batch together", gather_time)             \
    X("weir_request_compute_seconds", "Time in the model", compute_time)                      \
    X("weir_request_total_seconds", "Time from arrival in the engine to the end", total_time)

static const struct model_number {
    const char *name;
    const char *type;
    const char *help;
    uint64_t (*get)(struct model *model);
    bool (*has)(const struct model *model); /* NULL: every model. */
} model_numbers[] = {
#define NUMBER_ROW(symbol, name, type, help, value) { name, type, help, get_##symbol, NULL },
    MODEL_NUMBERS(NUMBER_ROW)
#undef NUMBER_ROW
#define SOME_ROW(symbol, has, name, type, help, value) \
    { name, type, help, some_##symbol, has_##symbol },
        SOME_NUMBERS(SOME_ROW)
#undef SOME_ROW
};

static const struct model_histogram {
    const char *name;
    const char *help;
    size_t offset; /* In struct model_stats. */
} model_histograms[] = {
#define HISTOGRAM_ROW(name, help, member) { name, help, offsetof(struct model_stats, member) },
    MODEL_HISTOGRAMS(HISTOGRAM_ROW)
#undef HISTOGRAM_ROW
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Calls `write` for each version that serves, with its labels. */
typedef void write_model_fn(struct buffer *out, const void *row, const char *labels,
                            struct model *model);

static void each_model(const struct scrape *scrape, write_model_fn *write, const void *row)
{
    char text[LABEL_BYTES];
    char version[21];
    struct buffer labels = { .data = text, .capacity = sizeof text, .size_max = sizeof text };
    for (uint32_t i = 0; i < scrape->catalogue->count; i++) {
        const struct catalogue_entry *entry = &scrape->catalogue->list[i];
        for (uint32_t k = 0; k < entry->version_count; k++) {
            if (entry->versions[k].model == NULL) {
                continue;
            }
            buffer_clear(&labels);
            metric_add_label(&labels, "model", entry->name);
            (void)snprintf(version, sizeof version, "%" PRIu64, entry->versions[k].version);
            metric_add_label(&labels, "version", version);
            write(scrape->out, row, text, entry->versions[k].model);
        }
    }
}

static void write_number(struct buffer *out, const void *row, const char *labels,
                         struct model *model)
{
    const struct model_number *number = row;
    if (number->has != NULL && !number->has(model)) {
        return;
    }
    metric_u64(out, number->name, labels, number->get(model));
}

static void write_histogram(struct buffer *out, const void *row, const char *labels,
                            struct model *model)
{
    const struct model_histogram *histogram = row;
    metric_histogram(
        out, histogram->name, labels,
        (const struct histogram *)(const void *)((const char *)&model->stats + histogram->offset));
}

#define FAILURES "nv_inference_request_failure"

/* All four series are there from the load on, as Triton has them; labels in order of their keys. */
static void write_failures(struct buffer *out, const void *row, const char *labels,
                           struct model *model)
{
    (void)row;
    const struct model_stats *stats = &model->stats;
    const uint64_t failed = load(&stats->fail.count);
    const uint64_t rejected = load(&stats->timed_out) + load(&stats->dropped);
    const uint64_t canceled = load(&stats->canceled);
    const uint64_t known = rejected + canceled;
    const struct {
        const char *reason;
        uint64_t value;
    } series[] = {
        { "REJECTED", rejected },
        { "CANCELED", canceled },
        { "BACKEND", failed > known ? failed - known : 0 },
        { "OTHER", 0 },
    };
    const char *version = strstr(labels, ",version=");
    for (size_t i = 0; i < COUNT_OF(series); i++) {
        char text[LABEL_BYTES + 32];
        (void)snprintf(text, sizeof text, "%.*s,reason=\"%s\"%s", (int)(version - labels), labels,
                       series[i].reason, version);
        metric_u64(out, FAILURES, text, series[i].value);
    }
}

#define DEATHS "weir_model_process_deaths_total"

/* Of models with a process of their own: how their processes ended. */
static void write_deaths(struct buffer *out, const void *row, const char *labels,
                         struct model *model)
{
    (void)row;
    if (model->config->isolation != ISOLATE_PROCESS) {
        return;
    }
    for (int i = DEATH_NONE + 1; i < DEATH_COUNT; i++) {
        char text[LABEL_BYTES + 64];
        (void)snprintf(text, sizeof text, "death=\"%s\",%s",
                       backend_death_text((enum backend_death)i), labels);
        metric_u64(out, DEATHS, text, load(&model->stats.deaths[i]));
    }
}

static void write_load_time(struct buffer *out, const void *row, const char *labels,
                            struct model *model)
{
    (void)row;
    metric_double(out, "nv_model_load_duration_secs", labels,
                  (double)model->load_ns / (double)NS_PER_S);
}

static void write_memory(struct buffer *out, const void *row, const char *labels,
                         struct model *model)
{
    (void)row;
    memory_show_model(out, labels, model);
}

static void write_models(const struct scrape *scrape)
{
    for (size_t i = 0; i < COUNT_OF(model_numbers); i++) {
        const struct model_number *row = &model_numbers[i];
        metric_family(scrape->out, row->name, row->help, row->type);
        each_model(scrape, write_number, row);
    }
    metric_family(scrape->out, FAILURES, "Number of failed inference requests, all batch sizes",
                  "counter");
    each_model(scrape, write_failures, NULL);
    metric_family(scrape->out, DEATHS, "Processes of the model that ended with a run in hand",
                  "counter");
    each_model(scrape, write_deaths, NULL);
    metric_family(scrape->out, MEMORY_SHOW_MODEL, "Memory that the model takes, by where it is",
                  "gauge");
    each_model(scrape, write_memory, NULL);
    metric_family(scrape->out, "nv_model_load_duration_secs", "Time that loading the model took",
                  "gauge");
    each_model(scrape, write_load_time, NULL);
    for (size_t i = 0; i < COUNT_OF(model_histograms); i++) {
        const struct model_histogram *row = &model_histograms[i];
        metric_family(scrape->out, row->name, row->help, "histogram");
        each_model(scrape, write_histogram, row);
    }
}

/* --- The machine --------------------------------------------------------------------------- */

/* The start of a file of /proc as text; empty when there is none. */
static void read_proc(const char *path, char out[PROC_BYTES])
{
    out[0] = '\0';
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    const ssize_t size = read(fd, out, PROC_BYTES - 1);
    out[size > 0 ? size : 0] = '\0';
    (void)close(fd);
}

/* Busy time since the last reading, as a part of all of it. */
static void write_cpu_utilization(const struct scrape *scrape, const char *name)
{
    char text[PROC_BYTES];
    uint64_t total = 0;
    uint64_t idle = 0;
    read_proc("/proc/stat", text);
    char *at = text + (strncmp(text, "cpu ", 4) == 0 ? 4 : strlen(text));
    for (int i = 0; i < 8 && *at != '\0' && *at != '\n'; i++) {
        const uint64_t ticks = strtoull(at, &at, 10);
        total += ticks;
        idle += i == 3 || i == 4 ? ticks : 0; /* idle, iowait */
    }
    const uint64_t total_before = atomic_exchange(&scrape->api->cpu_total, total);
    const uint64_t idle_before = atomic_exchange(&scrape->api->cpu_idle, idle);
    const double span = (double)(total - total_before);
    const double busy = span - (double)(idle - idle_before);
    metric_double(scrape->out, name, NULL, total > total_before && busy > 0 ? busy / span : 0.0);
}

static uint64_t meminfo_bytes(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10) * 1024;
}

static void write_memory_total(const struct scrape *scrape, const char *name)
{
    char text[PROC_BYTES];
    read_proc("/proc/meminfo", text);
    metric_u64(scrape->out, name, NULL, meminfo_bytes(text, "MemTotal:"));
}

static void write_memory_used(const struct scrape *scrape, const char *name)
{
    char text[PROC_BYTES];
    read_proc("/proc/meminfo", text);
    const uint64_t total = meminfo_bytes(text, "MemTotal:");
    const uint64_t available = meminfo_bytes(text, "MemAvailable:");
    metric_u64(scrape->out, name, NULL, total > available ? total - available : 0);
}

static void write_resident(const struct scrape *scrape, const char *name)
{
    char text[PROC_BYTES];
    read_proc("/proc/self/statm", text);
    char *end = text;
    (void)strtoull(text, &end, 10);
    metric_u64(scrape->out, name, NULL, strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE));
}

/* --- The server ---------------------------------------------------------------------------- */

static uint32_t loop_count(const struct scrape *scrape)
{
    return atomic_load_explicit(&scrape->api->loop_count, memory_order_acquire);
}

static void write_info(const struct scrape *scrape, const char *name)
{
    char labels[LABEL_BYTES];
    (void)snprintf(labels, sizeof labels, "version=\"%s\"", scrape->api->options.version);
    metric_u64(scrape->out, name, labels, 1);
}

static void write_start(const struct scrape *scrape, const char *name)
{
    metric_double(scrape->out, name, NULL, (double)scrape->api->started_ms / 1000.0);
}

static void write_ready(const struct scrape *scrape, const char *name)
{
    const bool draining = atomic_load_explicit(&scrape->api->draining, memory_order_relaxed);
    const bool ready = outage_is_ready(scrape->api->options.engine, scrape->catalogue);
    metric_u64(scrape->out, name, NULL, ready && !draining ? 1 : 0);
}

static void write_model_states(const struct scrape *scrape, const char *name)
{
    static const enum model_state states[] = {
#define MODEL_STATE_ROW(state, text) MODEL_##state,
        MODEL_STATES(MODEL_STATE_ROW)
#undef MODEL_STATE_ROW
    };
    uint64_t counts[COUNT_OF(states)] = { 0 };
    for (uint32_t i = 0; i < scrape->catalogue->count; i++) {
        const struct catalogue_entry *entry = &scrape->catalogue->list[i];
        for (uint32_t k = 0; k < entry->version_count; k++) {
            counts[entry->versions[k].state]++;
        }
    }
    for (size_t i = 0; i < COUNT_OF(states); i++) {
        char labels[LABEL_BYTES];
        (void)snprintf(labels, sizeof labels, "state=\"%s\"", model_state_text(states[i]));
        metric_u64(scrape->out, name, labels, counts[i]);
    }
}

static void write_responses(const struct scrape *scrape, const char *name)
{
    for (int code = 100; code < API_CODES; code++) {
        uint64_t count = 0;
        for (uint32_t i = 0; i < loop_count(scrape); i++) {
            count += load(&scrape->api->loops[i]->answers[code]);
        }
        if (count > 0) {
            char labels[32];
            (void)snprintf(labels, sizeof labels, "code=\"%d\"", code);
            metric_u64(scrape->out, name, labels, count);
        }
    }
}

static void write_grpc_responses(const struct scrape *scrape, const char *name)
{
    for (int code = 0; code < API_GRPC_CODES; code++) {
        uint64_t count = 0;
        for (uint32_t i = 0; i < loop_count(scrape); i++) {
            count += load(&scrape->api->loops[i]->grpc_answers[code]);
        }
        if (count > 0) {
            char labels[32];
            (void)snprintf(labels, sizeof labels, "code=\"%d\"", code);
            metric_u64(scrape->out, name, labels, count);
        }
    }
}

static void write_refused(const struct scrape *scrape, const char *name)
{
    for (int status = 0; status < WEIR_STATUS_COUNT; status++) {
        const uint64_t count = http_refused_count((enum weir_status)status);
        if (count > 0) {
            char labels[LABEL_BYTES];
            (void)snprintf(labels, sizeof labels, "status=\"%s\"",
                           weir_status_name((enum weir_status)status));
            metric_u64(scrape->out, name, labels, count);
        }
    }
}

/* One sample per name of a key. */
struct key_scrape {
    const struct scrape *scrape;
    const char *name;
    size_t offset; /* Of the number in struct key_use. */
};

/* Names have no characters that a label would have to escape. */
static void write_key(void *context, const struct key_use *use)
{
    const struct key_scrape *self = context;
    char labels[LABEL_BYTES];
    (void)snprintf(labels, sizeof labels, "key=\"%s\"", use->name);
    metric_u64(self->scrape->out, self->name, labels,
               load((const _Atomic uint64_t *)(const void *)((const char *)use + self->offset)));
}

static void write_keys(const struct scrape *scrape, const char *name, size_t offset)
{
    struct access *access = scrape->api->options.access;
    struct key_scrape self = { scrape, name, offset };
    if (access != NULL && access_keys(access) != NULL) {
        keys_each(access_keys(access), write_key, &self);
    }
}

static void write_key_calls(const struct scrape *scrape, const char *name)
{
    write_keys(scrape, name, offsetof(struct key_use, calls));
}

static void write_key_refused(const struct scrape *scrape, const char *name)
{
    write_keys(scrape, name, offsetof(struct key_use, refused));
}

static void write_handshakes(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, "result=\"ok\"", tls_handshakes());
    metric_u64(scrape->out, name, "result=\"failed\"", tls_failures());
}

static void write_expiry(const struct scrape *scrape, const char *name)
{
    if (scrape->api->options.tls != NULL) {
        const struct tls_facts facts = tls_facts(scrape->api->options.tls);
        metric_u64(scrape->out, name, NULL, facts.expires_s < 0 ? 0 : (uint64_t)facts.expires_s);
    }
}

static uint64_t sum_loops(const struct scrape *scrape, size_t offset)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < loop_count(scrape); i++) {
        sum += load(
            (const _Atomic uint64_t *)(const void *)((const char *)scrape->api->loops[i] + offset));
    }
    return sum;
}

static void write_connections(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, sum_loops(scrape, offsetof(struct api_loop, connections)));
}

static void write_received(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL,
               sum_loops(scrape, offsetof(struct api_loop, received_bytes)));
}

static void write_sent(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, sum_loops(scrape, offsetof(struct api_loop, sent_bytes)));
}

static void write_bodies(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, http_bodies_bytes());
}

static void write_blocks_used(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, block_pool_used_bytes(scrape->api->options.engine->blocks));
}

static void write_blocks_kept(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, block_pool_kept_bytes(scrape->api->options.engine->blocks));
}

static struct cache_stats cache_of(const struct scrape *scrape)
{
    return cache_stats(scrape->api->options.engine->cache);
}

static struct shm_totals shared_of(const struct scrape *scrape)
{
    struct shm *shm = scrape->api->options.shm;
    return shm == NULL ? (struct shm_totals){ 0 } : shm_total(shm);
}

static void write_shared_regions(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, shared_of(scrape).regions);
}

static void write_shared_bytes(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, shared_of(scrape).bytes);
}

static void write_shared_copied(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, shared_of(scrape).booked);
}

static void write_cache_bytes(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, cache_of(scrape).bytes);
}

static void write_cache_entries(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, cache_of(scrape).entries);
}

static void write_cache_evictions(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, cache_of(scrape).evictions);
}

static struct quarantine_stats quarantine_of(const struct scrape *scrape)
{
    const struct engine *engine = scrape->api->options.engine;
    return quarantine_stats(engine->quarantine, clock_now_ns(engine->clock));
}

static void write_quarantine_entries(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, quarantine_of(scrape).entries);
}

static void write_quarantine_convicted(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, quarantine_of(scrape).convicted);
}

static void write_quarantine_refused(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, quarantine_of(scrape).refused);
}

static void write_turns(const struct scrape *scrape, const char *name)
{
    for (uint32_t i = 0; i < loop_count(scrape); i++) {
        char labels[32];
        (void)snprintf(labels, sizeof labels, "loop=\"%u\"", i);
        metric_histogram(scrape->out, name, labels, &scrape->api->loops[i]->turn_time);
    }
}

static void write_models_bytes(const struct scrape *scrape, const char *name)
{
    const struct ledger_account *total = scrape->catalogue->accounts;
    metric_u64(scrape->out, name, NULL, total->held_bytes);
}

static void write_models_bytes_max(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, scrape->catalogue->accounts->max_bytes);
}

static void write_evictions(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, scrape->catalogue->evictions);
}

static void write_room_refusals(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, scrape->catalogue->refusals);
}

static void write_loads_ahead(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, scrape->catalogue->loads_ahead);
}

static void write_proportional(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, scrape->catalogue->proportional_bytes);
}

static const struct server_family {
    const char *name;
    const char *type;
    const char *help;
    void (*write)(const struct scrape *scrape, const char *name);
} server_families[] = {
    { "weir_info", "gauge", "Always 1", write_info },
    { "nv_cpu_utilization", "gauge", "CPU utilization rate [0.0 - 1.0]", write_cpu_utilization },
    { "nv_cpu_memory_total_bytes", "gauge", "CPU total memory (RAM), in bytes",
      write_memory_total },
    { "nv_cpu_memory_used_bytes", "gauge", "CPU used memory (RAM), in bytes", write_memory_used },
    { "process_start_time_seconds", "gauge", "Start of the process, seconds since the epoch",
      write_start },
    { "process_resident_memory_bytes", "gauge", "Resident memory", write_resident },
    { "weir_ready", "gauge", "1 while the server is ready", write_ready },
    { "weir_models", "gauge", "Model versions by state", write_model_states },
    { "weir_models_memory_bytes", "gauge",
      "Memory of the server and its models: loaded, loading or leaving", write_models_bytes },
    { "weir_models_memory_max_bytes", "gauge", "Budget of that memory; 0: no limit",
      write_models_bytes_max },
    { "weir_model_evictions_total", "counter", "Models unloaded to make room or because idle",
      write_evictions },
    { "weir_model_room_refusals_total", "counter", "Loads that found no room",
      write_room_refusals },
    { "weir_model_loads_ahead_total", "counter", "Models loaded before anybody asked",
      write_loads_ahead },
    { "weir_memory_proportional_bytes", "gauge",
      "Proportional set size of the process at the last look; 0: none, there is no budget",
      write_proportional },
    { "weir_quarantine_entries", "gauge", "Inputs that are refused", write_quarantine_entries },
    { "weir_quarantine_convicted_total", "counter", "Inputs that failed their process twice",
      write_quarantine_convicted },
    { "weir_quarantine_refused_total", "counter", "Requests refused for their input",
      write_quarantine_refused },
    { "weir_http_responses_total", "counter", "Answers by HTTP status", write_responses },
    { "weir_grpc_responses_total", "counter", "Calls of gRPC by their status",
      write_grpc_responses },
    { "weir_http_refused_total", "counter", "Requests refused before they reached a handler",
      write_refused },
    { "weir_key_calls_total", "counter", "Calls that an API key let in", write_key_calls },
    { "weir_key_refused_total", "counter", "Calls refused because their key's limit was reached",
      write_key_refused },
    { "weir_tls_handshakes_total", "counter", "TLS handshakes", write_handshakes },
    { "weir_tls_certificate_expires_seconds", "gauge",
      "End of the certificate in use, seconds since the epoch", write_expiry },
    { "weir_http_connections", "gauge", "Open client connections", write_connections },
    { "weir_http_received_bytes_total", "counter", "Bytes of request bodies", write_received },
    { "weir_http_sent_bytes_total", "counter", "Bytes of response bodies", write_sent },
    { "weir_http_bodies_bytes", "gauge",
      "Bytes of bodies held now, of requests and of unsent answers", write_bodies },
    { "weir_blocks_used_bytes", "gauge", "Tensor memory in use", write_blocks_used },
    { "weir_blocks_kept_bytes", "gauge", "Tensor memory kept for reuse", write_blocks_kept },
    { "weir_cache_bytes", "gauge", "Bytes of answers in the response cache", write_cache_bytes },
    { "weir_cache_entries", "gauge", "Answers in the response cache", write_cache_entries },
    { "weir_cache_evictions_total", "counter", "Answers that made room for others",
      write_cache_evictions },
    { "weir_shared_memory_regions", "gauge", "Regions of clients' shared memory",
      write_shared_regions },
    { "weir_shared_memory_bytes", "gauge", "Bytes of these regions", write_shared_bytes },
    { "weir_shared_memory_inputs_bytes", "gauge",
      "Bytes of inputs under way that were copied out of shared memory", write_shared_copied },
    { "weir_loop_turn_seconds", "histogram",
      "Work of one turn of a loop: what a new request may have to wait", write_turns },
};

static void write_metrics(struct call *call, const struct catalogue *catalogue, struct buffer *out)
{
    const struct scrape scrape = { call->api, catalogue, out };
    for (size_t i = 0; i < COUNT_OF(server_families); i++) {
        const struct server_family *family = &server_families[i];
        metric_family(out, family->name, family->help, family->type);
        family->write(&scrape, family->name);
    }
    memory_show_metrics(catalogue, out);
    device_show_metrics(call->api->options.engine, call->api->options.gpus, out);
    write_models(&scrape);
}

void metrics_get(struct call *call)
{
    call_render(call, "text/plain; version=0.0.4; charset=utf-8", write_metrics);
}
