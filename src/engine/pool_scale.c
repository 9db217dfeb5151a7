/*
 * How many runs of a model there are at once.
 *
 * Two things say so: what scaling found to pay on the device, and the depth of the pipeline that
 * keeps a device busy (stage.h).  A configured number of instances is kept to; where fewer were
 * measured to do more, that is said once.
 *
 * A run tells about scaling only when no other model's runs shared its time: what those cost is not
 * the model's doing.
 */
#include <stdio.h>

#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "util/bytes.h"

#define HELD_BATCHES 16 /* Fewer may be chance. */

uint32_t pool_runs_wanted(const struct model *model)
{
    const uint32_t runs = scaling_cap(&model->scaling);
    if (!scaling_learns(&model->scaling)) {
        return (runs > 0 ? runs : model->instance_count) * model->stages.depth;
    }
    /* Where the device has too few contexts for the depth, they are shared out: fewer runs that
     * made use of all of them would tell nothing. */
    const uint32_t counts = model->scaling.runs_max;
    const uint32_t share = (model->slots_max * runs + counts - 1) / counts;
    return runs * model->stages.depth < share ? runs * model->stages.depth : share;
}

void pool_set_runs(struct model *model)
{
    const uint32_t wanted = pool_runs_wanted(model);
    model->runs_max = wanted < model->slot_count ? wanted : model->slot_count;
}

void pool_scale_begin(struct pool *pool, struct model *model, struct batch *batch, uint64_t now_ns)
{
    if (scaling_learns(&model->scaling)) {
        scaling_pass(&model->scaling, model->running, now_ns);
        batch->area = model->scaling.area;
        batch->shared = pool->batches > model->running;
    }
}

static uint64_t since(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? to_ns - from_ns : 0;
}

static bool learn_stages(struct model *model, const struct batch *batch)
{
    if (!batch->clean || batch->canary || batch->device_ns == 0) {
        return false;
    }
    const uint64_t all_ns = since(batch->taken_ns, batch->computed_ns);
    const uint64_t other_ns = batch->waited_ns + batch->device_ns;
    return stage_learn(&model->stages, since(other_ns, all_ns), batch->device_ns);
}

static bool learn_scaling(const struct pool *pool, struct model *model, const struct batch *batch,
                          uint64_t now_ns)
{
    if (!scaling_learns(&model->scaling)) {
        return false;
    }
    const uint64_t ns = since(batch->taken_ns, now_ns);
    scaling_pass(&model->scaling, model->running, now_ns);
    if (!batch->clean || batch->canary || batch->shared || pool->batches > model->running ||
        ns == 0) {
        return false;
    }
    const double under_way = (double)(model->scaling.area - batch->area) / (double)ns;
    const double each = (double)pool_runs_wanted(model) / scaling_cap(&model->scaling);
    return scaling_observe(&model->scaling, under_way / each, batch->rows, ns,
                           model->waiting_count > 0);
}

/* True the first time that fewer instances than configured did more. */
static bool accuse(struct model *model)
{
    const struct scaling *scaling = &model->scaling;
    if (scaling->better == 0 || model->instances_reason != NULL) {
        return false;
    }
    (void)snprintf(model->instances_text, sizeof(model->instances_text),
                   "%u instances do less than fewer would: with %u runs at once it did %.2f times "
                   "as much",
                   model->config->instances, scaling->better, scaling->gain);
    model->instances_reason = model->instances_text;
    return true;
}

/* True once it is clear that a blocking budget keeps the model's batches small; again when that is
 * another one. */
static bool note_held(const struct pool *pool, struct model *model, const struct batch *batch)
{
    const uint64_t budget_ns = pool->order.options.budget_ns;
    if (!batch->held || model->held_budget_ns == budget_ns || ++model->held_count < HELD_BATCHES) {
        return false;
    }
    model->held_count = 0;
    model->held_rows = batch->rows;
    model->held_budget_ns = budget_ns;
    return true;
}

bool engine_held_text(struct model *model, char out[MODEL_ADVICE_BYTES])
{
    struct pool *pool = model->pool;
    char budget[32];
    pthread_mutex_lock(&pool->lock);
    const uint64_t rows = model->held_rows;
    const uint64_t budget_ns = pool->order.options.budget_ns;
    const bool held = rows > 0 && model->held_budget_ns == budget_ns;
    pthread_mutex_unlock(&pool->lock);
    if (held) {
        (void)snprintf(
            out, MODEL_ADVICE_BYTES,
            "batches are held at %llu row%s while more urgent requests come, which would "
            "else wait longer than blocking_budget (%s); raise it for larger ones",
            (unsigned long long)rows, rows == 1 ? "" : "s",
            bytes_format_duration(budget_ns, budget));
    }
    return held;
}

/* Each time fewer rows are too many: a few times in all. */
static uint64_t note_memory(struct model *model, const struct batch *batch)
{
    const uint64_t rows = batch->canary ? 0 : batch->rows_too_many;
    if (rows == 0 || (model->rows_too_many > 0 && rows >= model->rows_too_many)) {
        return 0;
    }
    model->rows_too_many = rows;
    return rows;
}

static void tell_memory(struct pool *pool, struct model *model, struct pool_scale_news news)
{
    char text[MODEL_ADVICE_BYTES];
    (void)snprintf(
        text, sizeof(text),
        "a run of %llu rows did not fit in the memory of device '%.32s'; batches have at most "
        "%llu from now on",
        (unsigned long long)news.rows_too_many, news.device,
        (unsigned long long)news.rows_too_many / 2);
    engine_advise(pool->engine, model, LOG_WARNING, text);
}

struct pool_scale_news pool_scale_end(struct pool *pool, struct instance *instance, uint64_t now_ns)
{
    struct model *model = instance->model;
    const struct batch *batch = &instance->batch;
    struct pool_scale_news news = { .held = note_held(pool, model, batch),
                                    .rows_too_many = note_memory(model, batch),
                                    .device = pool->devices[instance->replica->device].name };
    const bool deeper = learn_stages(model, batch);
    const bool other = learn_scaling(pool, model, batch, now_ns);
    if (deeper || other) {
        pool_set_runs(model);
        news.hurts = accuse(model);
        news.widen = deeper;
    }
    return news;
}

void pool_scale_act(struct pool *pool, struct model *model, struct pool_scale_news news)
{
    char text[MODEL_ADVICE_BYTES];
    if (news.hurts) {
        engine_advise(pool->engine, model, LOG_WARNING, model->instances_text);
    }
    if (news.rows_too_many > 0) {
        tell_memory(pool, model, news);
    }
    if (news.held && engine_held_text(model, text)) {
        engine_advise(pool->engine, model, LOG_INFO, text);
    }
    if (news.widen) {
        stage_widen(pool, model);
    }
}
