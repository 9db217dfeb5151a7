/*
 * Trial runs give their memory back, which makes them slow.  So where a run is short
 * and cannot hang, further ones keep their memory and are measured: ever more rows, as long as
 * there is time for it.  Of other models the trial runs have to do.
 */
#include "engine/tryout.h"

#include <string.h>

#include "engine/bucket.h"
#include "engine/effective.h"
#include "engine/probe.h"
#include "engine/profile_store.h"
#include "engine/proof.h"
#include "engine/warmup.h"
#include "util/arena.h"
#include "util/mem.h"

#define MEASURE_NS (40 * NS_PER_MS)    /* For all measured runs of a model. */
#define MEASURE_RUN_NS (8 * NS_PER_MS) /* A single row that takes longer is not measured again. */
#define MEASURE_BYTES_MAX (UINT64_C(4) << 20) /* Of the inputs of such a run. */
#define MEASURE_ROUNDS 2

/* Why requests may not share runs, or NULL, as far as it is known without trying. */
static const char *known_obstacle(const struct tryout *tryout)
{
    const struct model_config *config = tryout->model->config;
    if (config->batching == BATCHING_OFF) {
        return "batching is off in the configuration";
    }
    if (config->max_batch_size <= 1) {
        return tryout->no_batch != NULL ? tryout->no_batch : "max_batch_size is 0 or 1";
    }
    return tryout->model->signature->streams ? "the model answers in several parts" : NULL;
}

/* Decides on batching; *ran: a trial run succeeded, so that a canary would tell nothing new.
 * `known` is what trials showed in an earlier life (profile_file.h). */
static enum weir_status decide_batching(const struct tryout *tryout, const struct probe *probe,
                                        const char *known, bool *ran, struct weir_err *err)
{
    struct model *model = tryout->model;
    model->batching_reason = known_obstacle(tryout);
    if (model->batching_reason != NULL) {
        return WEIR_OK;
    }
    if (model->config->batching == BATCHING_INSIST) {
        model->batching = true;
        return WEIR_OK;
    }
    struct weir_err why = { 0 };
    if (known[0] != '\0') {
        model->rows_tried = true;
        model->batching = strcmp(known, PROFILE_ROWS_INDEPENDENT) == 0;
        (void)err_set(&why, WEIR_ECONFLICT, "%s", known);
    } else {
        const enum weir_status status = proof_rows(probe, &why);
        model->batching = status == WEIR_OK;
        *ran = status == WEIR_OK || status == WEIR_ECONFLICT;
        model->rows_tried = *ran;
    }
    if (!model->batching) {
        model->batching_reason =
            arena_try_strndup(model->config->arena, why.text, strlen(why.text));
    }
    return !model->batching && model->batching_reason == NULL
               ? err_nomem(err, "a model's configuration", strlen(why.text))
               : WEIR_OK;
}

/* ---- Buckets --------------------------------------------------------------------------------- */

/* Buckets that bring nothing, or would bring wrong answers, go; the remark says why. */
static enum weir_status judge_buckets(const struct tryout *tryout, const struct probe *probe,
                                      struct weir_err *err)
{
    struct model *model = tryout->model;
    struct model_config *config = model->config;
    struct weir_err why = { 0 };
    if (model->buckets == NULL || (model->batching && config->batching == BATCHING_INSIST)) {
        return WEIR_OK;
    }
    const char *reason = model->batching_reason;
    if (model->batching && proof_padding(probe, model->buckets, &why) == WEIR_ECONFLICT) {
        reason = why.text;
    }
    if (reason == NULL) {
        return WEIR_OK;
    }
    bucket_plan_destroy(model->buckets);
    model->buckets = NULL;
    return effective_remark(config, err, "shape_buckets are off: %s", reason);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

static uint64_t input_bytes(const struct probe *probe, const struct probe_run *run)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < probe->signature->input_count; i++) {
        size += run->inputs[i].size;
    }
    return size;
}

/* True: so many rows ran a few times, and there is time for twice as many. */
static bool measure_size(const struct probe *probe, struct probe_run *run, int64_t rows,
                         int64_t length, enum probe_fill fill, uint64_t until_ns)
{
    const uint32_t rounds = rows == 1 ? 2 * MEASURE_ROUNDS : MEASURE_ROUNDS;
    uint64_t took_ns = 0;
    if (probe_inputs(probe, run, rows, length, fill, 1, NULL) != WEIR_OK ||
        input_bytes(probe, run) > MEASURE_BYTES_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < rounds; i++) {
        const uint64_t from_ns = clock_now_ns(probe->clock);
        if (probe_go(probe, run, rows, NULL) != WEIR_OK) {
            return false;
        }
        took_ns = clock_now_ns(probe->clock) - from_ns;
        if (took_ns > MEASURE_RUN_NS && i > 0) {
            return false;
        }
    }
    return clock_now_ns(probe->clock) + 2 * took_ns * MEASURE_ROUNDS < until_ns;
}

static void measure_length(const struct probe *probe, struct probe_run *run, int64_t length,
                           uint64_t until_ns)
{
    const struct model *model = probe->learner;
    const uint32_t safe = model->config->safe_rows;
    const int64_t batch = model->config->max_batch_size;
    const int64_t configured = safe > 0 && safe < batch ? safe : batch;
    const int64_t most = !model->batching                    ? 1
                         : configured < MODEL_BATCH_INFERRED ? configured
                                                             : MODEL_BATCH_INFERRED;
    enum probe_fill fill = PROBE_LOW;
    bool more = measure_size(probe, run, 1, length, fill, until_ns);
    if (!more && !run->outputs[0].present) {
        fill = PROBE_ZERO; /* It may not like such numbers. */
        more = measure_size(probe, run, 1, length, fill, until_ns);
    }
    for (int64_t rows = 1; more && rows < most;) {
        rows = 2 * rows < most ? 2 * rows : most;
        more = measure_size(probe, run, rows, length, fill, until_ns);
    }
}

static bool is_measurable(const struct probe *probe, const struct model *model)
{
    if (!model->signature->short_lived || model->sequence_plan != NULL ||
        (model->buckets == NULL && !model->rows_fixed)) {
        return false;
    }
    const struct profile_shape *tried = profile_next(&model->profile, NULL);
    return probe->signature->input_count > 0 && probe->signature->output_count > 0 &&
           (tried == NULL || tried->row_ns[0] <= (double)MEASURE_RUN_NS);
}

static void measure(const struct probe *trial, struct model *model)
{
    if (!is_measurable(trial, model)) {
        return;
    }
    struct probe probe = *trial;
    struct probe_run run = { 0 };
    const uint64_t share_ns =
        MEASURE_NS / (model->buckets == NULL ? 1 : model->buckets->groups[0].size_count);
    if (probe_run_init(&probe, &run, NULL) != WEIR_OK) {
        return;
    }
    probe.learner = model;
    probe.keep = true;
    model->profile = (struct profile){ .rows_cap_start = model->config->safe_rows };
    if (model->buckets == NULL) {
        measure_length(&probe, &run, 1, clock_now_ns(probe.clock) + share_ns);
    } else {
        for (uint32_t i = 0; i < model->buckets->groups[0].size_count && i < PROFILE_SHAPES; i++) {
            measure_length(&probe, &run, model->buckets->groups[0].sizes[i],
                           clock_now_ns(probe.clock) + share_ns);
        }
    }
    probe.learner = NULL;
    probe.keep = false; /* One more run gives the memory back. */
    bool ran = probe_inputs(&probe, &run, 1, 1, PROBE_ZERO, 0, NULL) == WEIR_OK;
    ran = ran && probe_go(&probe, &run, 1, NULL) == WEIR_OK;
    (void)ran;
    probe_run_finish(&probe, &run);
}

/* What was learned in an earlier life, where it can be read; else the remark says why not.  That of
 * another model came with a copied folder, or stayed when the model changed: nothing is wrong. */
static enum weir_status read_profile(struct model *model, char rows[PROFILE_ROWS_BYTES],
                                     struct weir_err *err)
{
    struct weir_err why = { 0 };
    if (model->profile_store == NULL) {
        return WEIR_OK;
    }
    const enum weir_status status = profile_store_read(model->profile_store, model, rows, &why);
    if (status == WEIR_OK || status == WEIR_ENOENT) {
        return WEIR_OK;
    }
    static const char text[] = "the stored profile is not used: %s";
    if (status != WEIR_ECONFLICT) {
        return effective_remark(model->config, err, text, why.text);
    }
    model->config->note = arena_try_printf(model->config->arena, text, why.text);
    return model->config->note != NULL ? WEIR_OK : err_nomem(err, "a model's configuration", 0);
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* True when nothing is left to be tried: what it was asked for would only come later. */
static bool knows_all(const struct model *model, const char *rows)
{
    const struct model_config *config = model->config;
    const bool rows_known =
        rows[0] != '\0' || config->max_batch_size <= 1 || config->batching != BATCHING_AUTO;
    return model->profile.tick > 0 && rows_known && model->buckets == NULL &&
           config->warmup_count == 0;
}

enum weir_status tryout_run(const struct tryout *tryout, struct weir_err *err)
{
    struct model *model = tryout->model;
    struct backend_context *context;
    enum backend_death death = DEATH_NONE;
    char rows[PROFILE_ROWS_BYTES] = "";
    enum weir_status status =
        bucket_plan_create(model->config, model->signature, tryout->no_batch, &model->buckets, err);
    status = status == WEIR_OK ? read_profile(model, rows, err) : status;
    const bool learned = model->profile.tick > 0; /* In an earlier life. */
    if (status == WEIR_OK && tryout->awaited && knows_all(model, rows)) {
        bool ran;
        return decide_batching(tryout, NULL, rows, &ran, err);
    }
    status = status == WEIR_OK ? backend_context_create(model->backend, &context, err) : status;
    if (status != WEIR_OK) {
        return status;
    }
    struct probe probe = {
        .context = context,
        .signature = model->signature,
        .plan = model->sequence_plan,
        .config = model->config,
        .blocks = tryout->engine->blocks,
        .clock = tryout->engine->clock,
        .step = tryout->step,
        .learner = learned || !model->rows_fixed ? NULL : model,
        .death = &death,
    };
    bool ran = false;
    status = decide_batching(tryout, &probe, rows, &ran, err);
    status = status == WEIR_OK ? judge_buckets(tryout, &probe, err) : status;
    if (status == WEIR_OK && !learned) {
        if (!tryout->awaited) { /* Else requests will teach it. */
            measure(&probe, model);
        }
        probe.learner = model;
    }
    if (status == WEIR_OK && model->config->warmup_count > 0) {
        status = warmup_run(&probe, tryout->model_fd, err);
        if (status == WEIR_OK && model->config->canary_interval_ns > 0) {
            status = canary_keep(&probe, tryout->model_fd, &model->canary, err);
        }
    } else if (status == WEIR_OK && !ran) {
        probe.learner = probe.learner != NULL && model->rows_fixed ? model : NULL;
        model->canary.proved = warmup_canary(&probe, &model->canary.size);
    }
    backend_context_destroy(context);
    block_pool_trim(probe.blocks);
    mem_trim();
    if (status == WEIR_OK && backend_death_suspects(death)) {
        status = err_set(err, WEIR_EBACKEND, "the model's process %s in a trial run",
                         backend_death_text(death));
    }
    return status;
}
