#include "engine/stats.h"

#include "util/clock.h"

/* Without batching the leading dimension means something else, and a run counts once. */
static uint64_t rows_counted(const struct model *model, uint64_t rows)
{
    return model->config->max_batch_size > 0 ? rows : 1;
}

void stats_count_batch(struct model *model, const struct batch *batch)
{
    struct model_stats *stats = &model->stats;
    const uint64_t rows = rows_counted(model, batch->rows);
    const uint64_t input_ns = batch->gathered_ns - batch->taken_ns;
    const uint64_t infer_ns = batch->computed_ns - batch->gathered_ns;
    const size_t slot = rows <= MODEL_BATCH_SIZES_MAX ? (size_t)rows : 0;
    atomic_fetch_add_explicit(&stats->execution_count, batch->runs, memory_order_relaxed);
    duration_add(&stats->batches[slot].compute_input, input_ns);
    duration_add(&stats->batches[slot].compute_infer, infer_ns);
    duration_add(&stats->batches[slot].compute_output, 0);
    atomic_store_explicit(&stats->last_inference_ms, clock_wall_ms(), memory_order_relaxed);
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
    tally->count++;
    tally->ended_ns = t->ended_ns;
    tally->rows += rows_counted(model, request->rows);
    tally->total_ns += total_ns;
    tally->queue_ns += t->taken_ns - t->submitted_ns;
    tally->input_ns += t->gathered_ns - t->taken_ns;
    tally->infer_ns += t->computed_ns - t->gathered_ns;
    tally->output_ns += t->ended_ns - t->computed_ns;
    histogram_tally_add(&tally->queue, &stats->queue_time, t->taken_ns - t->submitted_ns);
    histogram_tally_add(&tally->gather, &stats->gather_time, t->gathered_ns - t->taken_ns);
    histogram_tally_add(&tally->compute, &stats->compute_time, t->computed_ns - t->gathered_ns);
    histogram_tally_add(&tally->total, &stats->total_time, total_ns);
}

void stats_count_tally(struct model *model, struct stats_tally *tally)
{
    struct model_stats *stats = &model->stats;
    if (tally->count == 0) {
        return;
    }
    atomic_store_explicit(&stats->succeeded_ns, tally->ended_ns, memory_order_relaxed);
    duration_add_many(&stats->success, tally->count, tally->total_ns);
    duration_add_many(&stats->queue, tally->count, tally->queue_ns);
    duration_add_many(&stats->compute_input, tally->count, tally->input_ns);
    duration_add_many(&stats->compute_infer, tally->count, tally->infer_ns);
    duration_add_many(&stats->compute_output, tally->count, tally->output_ns);
    histogram_tally_end(&tally->queue, &stats->queue_time);
    histogram_tally_end(&tally->gather, &stats->gather_time);
    histogram_tally_end(&tally->compute, &stats->compute_time);
    histogram_tally_end(&tally->total, &stats->total_time);
    atomic_fetch_add_explicit(&stats->inference_count, tally->rows, memory_order_relaxed);
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
