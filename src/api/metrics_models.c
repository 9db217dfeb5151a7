/*
 * What each model has.
 *
 * Tables of numbers and histograms: a row is a name, a type, a help text and the value, which is
 * written for each version that serves, with its labels.
 */
#include "api/metrics_models.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/memory_show.h"
#include "engine/engine.h"
#include "engine/outage.h"
#include "engine/sequence.h"
#include "util/metric.h"

#define LABEL_BYTES 640
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t load(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static uint64_t us(const _Atomic uint64_t *ns)
{
    return load(ns) / NS_PER_US;
}

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
    X(inline_runs, "weir_model_inline_runs_total", "counter",                                      \
      "Model executions on network threads", load(&m->stats.inline_runs))                          \
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

/* Calls `write` for each version that serves, with its labels. */
typedef void write_model_fn(struct buffer *out, const void *row, const char *labels,
                            struct model *model);

static void each_model(const struct catalogue *catalogue, struct buffer *out, write_model_fn *write,
                       const void *row)
{
    char text[LABEL_BYTES];
    char version[21];
    struct buffer labels = { .data = text, .capacity = sizeof text, .size_max = sizeof text };
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->list[i];
        for (uint32_t k = 0; k < entry->version_count; k++) {
            if (entry->versions[k].model == NULL) {
                continue;
            }
            buffer_clear(&labels);
            metric_add_label(&labels, "model", entry->name);
            (void)snprintf(version, sizeof version, "%" PRIu64, entry->versions[k].version);
            metric_add_label(&labels, "version", version);
            write(out, row, text, entry->versions[k].model);
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

void metrics_models(const struct catalogue *catalogue, struct buffer *out)
{
    for (size_t i = 0; i < COUNT_OF(model_numbers); i++) {
        const struct model_number *row = &model_numbers[i];
        metric_family(out, row->name, row->help, row->type);
        each_model(catalogue, out, write_number, row);
    }
    metric_family(out, FAILURES, "Number of failed inference requests, all batch sizes", "counter");
    each_model(catalogue, out, write_failures, NULL);
    metric_family(out, DEATHS, "Processes of the model that ended with a run in hand", "counter");
    each_model(catalogue, out, write_deaths, NULL);
    metric_family(out, MEMORY_SHOW_MODEL, "Memory that the model takes, by where it is", "gauge");
    each_model(catalogue, out, write_memory, NULL);
    metric_family(out, "nv_model_load_duration_secs", "Time that loading the model took", "gauge");
    each_model(catalogue, out, write_load_time, NULL);
    for (size_t i = 0; i < COUNT_OF(model_histograms); i++) {
        const struct model_histogram *row = &model_histograms[i];
        metric_family(out, row->name, row->help, "histogram");
        each_model(catalogue, out, write_histogram, row);
    }
}
