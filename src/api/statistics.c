/*
 * Clients index every key, so all are always there.  perf_analyzer insists that
 * the three counts of the compute stages are equal: they are counted together by
 * the engine, and read here once.
 */
#include "api/statistics.h"

#include "api/call.h"
#include "api/device_show.h"
#include "api/memory_show.h"
#include "util/clock.h"
#include "util/json.h"

static uint64_t load(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void write_counted(struct buffer *out, const char *key, uint64_t count, uint64_t ns)
{
    json_key(out, key);
    buffer_text(out, "{\"count\":");
    buffer_u64(out, count);
    buffer_text(out, ",\"ns\":");
    buffer_u64(out, ns);
    buffer_char(out, '}');
}

static void write_duration(struct buffer *out, const char *key, const struct duration *duration)
{
    write_counted(out, key, load(&duration->count), load(&duration->ns));
}

static void write_number(struct buffer *out, const char *key, uint64_t value)
{
    json_key(out, key);
    buffer_u64(out, value);
}

static void write_inference_stats(struct buffer *out, const struct model_stats *stats)
{
    const uint64_t computed = load(&stats->compute.count);
    json_key(out, "inference_stats");
    buffer_char(out, '{');
    write_duration(out, "success", &stats->success);
    write_duration(out, "fail", &stats->fail);
    write_duration(out, "queue", &stats->queue);
    write_counted(out, "compute_input", computed, load(&stats->input_ns));
    write_counted(out, "compute_infer", computed, load(&stats->compute.ns));
    write_counted(out, "compute_output", computed, load(&stats->output_ns));
    write_duration(out, "cache_hit", &stats->cache_hit);
    write_duration(out, "cache_miss", &stats->cache_miss);
    buffer_char(out, '}');
}

static void write_response_stats(struct buffer *out, const struct model_stats *stats)
{
    json_key(out, "response_stats");
    buffer_char(out, '{');
    for (uint32_t i = 0; i < MODEL_RESPONSES_MAX; i++) {
        if (load(&stats->responses[i].success.count) == 0 &&
            load(&stats->responses[i].fail.count) == 0 &&
            load(&stats->responses[i].cancel.count) == 0) {
            continue;
        }
        json_comma(out);
        buffer_char(out, '"');
        buffer_u64(out, i);
        buffer_text(out, "\":{");
        write_duration(out, "compute_infer", &stats->responses[i].compute_infer);
        write_duration(out, "compute_output", &stats->responses[i].compute_output);
        write_duration(out, "success", &stats->responses[i].success);
        write_duration(out, "fail", &stats->responses[i].fail);
        write_duration(out, "empty_response", &stats->responses[i].empty_response);
        write_duration(out, "cancel", &stats->responses[i].cancel);
        buffer_char(out, '}');
    }
    buffer_char(out, '}');
}

/* Sizes from 1; what is larger than the last is shown after it. */
static void write_batch_stats(struct buffer *out, const struct model_stats *stats)
{
    json_key(out, "batch_stats");
    buffer_char(out, '[');
    for (uint32_t i = 1; i <= MODEL_BATCH_SIZES_MAX + 1; i++) {
        const uint32_t at = i <= MODEL_BATCH_SIZES_MAX ? i : 0;
        const uint64_t runs = load(&stats->batches[at].compute.count);
        if (runs == 0) {
            continue;
        }
        json_comma(out);
        buffer_text(out, "{\"batch_size\":");
        buffer_u64(out, i);
        write_counted(out, "compute_input", runs, load(&stats->batches[at].input_ns));
        write_counted(out, "compute_infer", runs, load(&stats->batches[at].compute.ns));
        write_counted(out, "compute_output", runs, 0);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void write_double(struct buffer *out, const char *key, double value)
{
    json_key(out, key);
    json_double(out, value);
}

/* Nothing where it is above all that the histogram tells apart. */
static void write_quantile(struct buffer *out, const char *key, const struct histogram *times,
                           double q)
{
    const uint64_t ns = histogram_quantile_ns(times, q);
    if (ns != UINT64_MAX) {
        write_double(out, key, (double)ns / NS_PER_US);
    }
}

static void write_times(struct buffer *out, const char *key, const struct histogram *times)
{
    json_key(out, key);
    buffer_char(out, '{');
    write_number(out, "count", histogram_count(times));
    write_quantile(out, "p50_us", times, 0.5);
    write_quantile(out, "p99_us", times, 0.99);
    write_quantile(out, "p999_us", times, 0.999);
    write_quantile(out, "max_us", times, 1);
    buffer_char(out, '}');
}

/* Weir's own: how long requests took, stage by stage. */
static void write_latency(struct buffer *out, const struct model_stats *stats)
{
    json_key(out, "latency");
    buffer_char(out, '{');
    write_times(out, "queue", &stats->queue_time);
    write_times(out, "gather", &stats->gather_time);
    write_times(out, "compute", &stats->compute_time);
    write_times(out, "total", &stats->total_time);
    buffer_char(out, '}');
}

static void write_shape(struct buffer *out, const struct profile_shape *shape)
{
    double tau0_ns = 0;
    double alpha_ns = 0;
    const bool known = profile_shape_fit(shape, &tau0_ns, &alpha_ns);
    json_comma(out);
    buffer_char(out, '{');
    if (shape->dims.known && shape->dims.count != PROFILE_DIMS_NONE) {
        buffer_text(out, "\"dims\":[");
        for (uint32_t i = 0; i < shape->dims.count; i++) {
            json_comma(out);
            buffer_i64(out, shape->dims.dims[i]);
        }
        buffer_char(out, ']');
    }
    write_number(out, "runs", shape->runs);
    if (known) {
        write_double(out, "tau0_us", tau0_ns / 1e3);
        write_double(out, "alpha_us", alpha_ns / 1e3);
        write_double(out, "jitter", shape->jitter);
        write_double(out, "slack", shape->slack);
    }
    write_number(out, "rows_seen", shape->rows_seen);
    write_number(out, "rows_cap", shape->rows_cap);
    json_key(out, "batching_pays");
    json_bool(out, profile_shape_batches(shape));
    buffer_char(out, '}');
}

/* Weir's own: what runs are expected to take. */
static void write_profile(struct buffer *out, struct model *model)
{
    struct profile profile;
    engine_profile(model, &profile);
    json_key(out, "profile");
    buffer_char(out, '[');
    for (const struct profile_shape *shape = profile_next(&profile, NULL); shape != NULL;
         shape = profile_next(&profile, shape)) {
        write_shape(out, shape);
    }
    buffer_char(out, ']');
}

/* Weir's own: who is told no. */
static void write_overload(struct buffer *out, struct model *model)
{
    const struct model_stats *stats = &model->stats;
    json_key(out, "overload");
    buffer_char(out, '{');
    write_number(out, "refused_late", load(&stats->refused_late));
    write_number(out, "refused_limit", load(&stats->refused_limit));
    write_number(out, "dropped", load(&stats->dropped));
    write_number(out, "limit", engine_adaptive_limit(model));
    write_number(out, "retry_after_ms", engine_retry_after_ms(model));
    buffer_char(out, '}');
}

static void write_model(struct buffer *out, struct model *model)
{
    const struct model_stats *stats = &model->stats;
    json_comma(out);
    buffer_text(out, "{\"name\":");
    json_string(out, model->name);
    buffer_text(out, ",\"version\":\"");
    buffer_u64(out, model->version);
    buffer_char(out, '"');
    write_number(out, "last_inference", load(&stats->last_inference_ms));
    write_number(out, "inference_count", load(&stats->inference_count));
    write_number(out, "execution_count", load(&stats->execution_count));
    write_inference_stats(out, stats);
    write_response_stats(out, stats);
    write_batch_stats(out, stats);
    write_latency(out, stats);
    write_profile(out, model);
    write_overload(out, model);
    memory_show_usage(model, out);
    device_show_model(model, out);
    buffer_char(out, '}');
}

static void write_entry(struct buffer *out, const struct catalogue_entry *entry, uint64_t version)
{
    for (uint32_t i = 0; i < entry->version_count; i++) {
        if (entry->versions[i].model != NULL &&
            (version == 0 || entry->versions[i].version == version)) {
            write_model(out, entry->versions[i].model);
        }
    }
}

static void write_all(struct call *call, const struct catalogue *catalogue, struct buffer *out)
{
    (void)call;
    buffer_text(out, "{\"model_stats\":[");
    for (uint32_t i = 0; i < catalogue->count; i++) {
        write_entry(out, &catalogue->list[i], 0);
    }
    buffer_text(out, "]}");
}

void statistics_all(struct call *call)
{
    call_render(call, CALL_JSON, write_all);
}

void statistics_model(struct call *call)
{
    struct model *model;
    struct weir_err err;
    if (call_lease(call, &model, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return;
    }
    model_release(model); /* The home's snapshot holds it for the rest of this turn. */
    struct buffer *out = &call->loop->scratch;
    buffer_clear(out);
    buffer_text(out, "{\"model_stats\":[");
    write_entry(out, catalogue_find(call_catalogue(call), call->model), call->match.version);
    buffer_text(out, "]}");
    call_reply_buffer(call, CALL_JSON, out);
}
