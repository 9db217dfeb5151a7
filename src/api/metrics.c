/*
 * Metrics.
 *
 * A table of what the server has; models' are in metrics_models.c.  A row is a name, a type, a help
 * text and what writes its numbers.  Dashboards made for Triton find its names with its meanings;
 * Weir's own begin with weir_.
 */
#include "api/metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/access.h"
#include "api/call.h"
#include "api/device_show.h"
#include "api/memory_show.h"
#include "api/metrics_models.h"
#include "api/shm.h"
#include "engine/cache.h"
#include "engine/outage.h"
#include "engine/quarantine.h"
#include "net/tls.h"
#include "util/metric.h"

#define LABEL_BYTES 640
#define PROC_BYTES 4096
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

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

static void write_loads_hung(const struct scrape *scrape, const char *name)
{
    metric_u64(scrape->out, name, NULL, scrape->catalogue->loads_lost);
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
    { "weir_model_loads_hung", "gauge",
      "Loads, unloads and the like that were written off and go on", write_loads_hung },
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
    { "weir_blocks_used_bytes", "gauge", "Tensor memory in use, or announced by clients",
      write_blocks_used },
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
    metrics_models(catalogue, out);
}

void metrics_get(struct call *call)
{
    call_render(call, "text/plain; version=0.0.4; charset=utf-8", write_metrics);
}
