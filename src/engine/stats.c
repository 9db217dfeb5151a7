#include "engine/stats.h"

#include "util/clock.h"

/* Without batching the leading dimension means something else, and a run counts once. */
static uint64_t rows_counted(const struct model *model, uint64_t rows)
{
    return model->config->max_batch_size > 0 ? rows : 1;
}

static void add(_Atomic uint64_t *number, uint64_t more)
{
    atomic_fetch_add_explicit(number, more, memory_order_relaxed);
}

/* The wall clock is not read for every run of a few microseconds. */
static void note_inference(struct model_stats *stats, uint64_t now_ns)
{
    const uint64_t last_ns = atomic_load_explicit(&stats->last_inference_ns, memory_order_relaxed);
    if (last_ns == 0 || now_ns >= last_ns + NS_PER_MS) {
        atomic_store_explicit(&stats->last_inference_ns, now_ns, memory_order_relaxed);
        atomic_store_explicit(&stats->last_inference_ms, clock_wall_ms(), memory_order_relaxed);
    }
}

void stats_count_batch(struct model *model, const struct batch *batch)
{
    struct model_stats *stats = &model->stats;
    const uint64_t rows = rows_counted(model, batch->rows);
    const uint64_t input_ns = batch->gathered_ns - batch->taken_ns;
    const uint64_t infer_ns = batch->computed_ns - batch->gathered_ns;
    const size_t slot = rows <= MODEL_BATCH_SIZES_MAX ? (size_t)rows : 0;
    add(&stats->execution_count, batch->runs);
    duration_add(&stats->batches[slot].compute, infer_ns);
    add(&stats->batches[slot].input_ns, input_ns);
    note_inference(stats, batch->computed_ns);
}

void stats_count_failure(struct model_stats *stats, enum weir_status status, uint64_t ns)
{
    duration_add(&stats->fail, ns);
    if (status == WEIR_ECANCELED) {
        atomic_fetch_add_explicit(&stats->canceled, 1, memory_order_relaxed);
    } else if (status == WEIR_ETIMEOUT || status == WEIR_EFULL) {
        atomic_fetch_add_explicit(&stats->timed_out, 1, memory_order_relaxed);
    }
}

void stats_count_part(struct model *model, const struct request *request, uint64_t ns)
{
    if (request->parts_sent > MODEL_RESPONSES_MAX || request->canary) {
        return;
    }
    struct response_stats *response = &model->stats.responses[request->parts_sent - 1];
    duration_add(&response->compute_infer, ns);
    duration_add(&response->compute_output, 0);
    duration_add(&response->success, ns);
}

/* The response that did not come. */
static void count_missing_part(struct model *model, const struct request *request, uint64_t ns)
{
    if (model->signature->streams && request->parts_sent < MODEL_RESPONSES_MAX) {
        struct response_stats *response = &model->stats.responses[request->parts_sent];
        duration_add(request->status == WEIR_ECANCELED ? &response->cancel : &response->fail, ns);
    }
}

static void end_run(struct stats_tally *tally, struct model_stats *stats)
{
    const uint64_t count = tally->run.count;
    if (count > 0) {
        histogram_tally_add(&tally->gather, &stats->gather_time, tally->run.input_ns, count);
        histogram_tally_add(&tally->compute, &stats->compute_time, tally->run.infer_ns, count);
        tally->output_ns += tally->run.output_ns * count;
        tally->run.count = 0;
    }
}

void stats_tally_request(struct stats_tally *tally, struct model *model,
                         const struct request *request)
{
    struct model_stats *stats = &model->stats;
    const struct request_times *t = &request->times;
    const uint64_t total_ns = t->ended_ns - t->submitted_ns;
    if (request->canary) {
        return;
    }
    if (request->status != WEIR_OK) {
        stats_count_failure(stats, request->status, total_ns);
        count_missing_part(model, request, t->ended_ns - t->taken_ns);
        return;
    }
    const uint64_t input_ns = t->gathered_ns - t->taken_ns;
    const uint64_t infer_ns = t->computed_ns - t->gathered_ns;
    const uint64_t output_ns = t->ended_ns - t->computed_ns;
    if (input_ns != tally->run.input_ns || infer_ns != tally->run.infer_ns ||
        output_ns != tally->run.output_ns) {
        end_run(tally, stats);
        tally->run.input_ns = input_ns;
        tally->run.infer_ns = infer_ns;
        tally->run.output_ns = output_ns;
    }
    tally->run.count++;
    tally->count++;
    tally->ended_ns = t->ended_ns;
    tally->rows += rows_counted(model, request->rows);
    histogram_tally_add(&tally->queue, &stats->queue_time, t->taken_ns - t->submitted_ns, 1);
    histogram_tally_add(&tally->total, &stats->total_time, total_ns, 1);
}

void stats_count_tally(struct model *model, struct stats_tally *tally)
{
    struct model_stats *stats = &model->stats;
    if (tally->count == 0) {
        return;
    }
    end_run(tally, stats);
    atomic_store_explicit(&stats->succeeded_ns, tally->ended_ns, memory_order_relaxed);
    duration_add_many(&stats->success, tally->count, tally->total.sum_ns);
    duration_add_many(&stats->queue, tally->count, tally->queue.sum_ns);
    duration_add_many(&stats->compute, tally->count, tally->compute.sum_ns);
    add(&stats->input_ns, tally->gather.sum_ns);
    add(&stats->output_ns, tally->output_ns);
    histogram_tally_end(&tally->queue, &stats->queue_time);
    histogram_tally_end(&tally->gather, &stats->gather_time);
    histogram_tally_end(&tally->compute, &stats->compute_time);
    histogram_tally_end(&tally->total, &stats->total_time);
    add(&stats->inference_count, tally->rows);
}

void stats_count_request(struct model *model, const struct request *request)
{
    struct stats_tally tally = { 0 };
    stats_tally_request(&tally, model, request);
    stats_count_tally(model, &tally);
}

void stats_count_hit(struct model *model, const struct request *request)
{
    struct model_stats *stats = &model->stats;
    const uint64_t total_ns = request->times.ended_ns - request->times.submitted_ns;
    duration_add(&stats->success, total_ns);
    duration_add(&stats->queue, 0);
    histogram_observe(&stats->total_time, total_ns);
}
