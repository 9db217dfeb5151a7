/*
 * Canaries are ordinary requests of the server's own, so that they meet what clients' requests
 * meet: the line, an executor, the model's process and whoever watches over it.  What is different
 * is decided where they come in (engine_submit()) and where they are counted (stats.c), by
 * request.canary.
 *
 * When a model last completed a run is noted with its statistics, so that clients' requests pay one
 * store for canaries, and nothing where there are none.
 */
#include "engine/canary.h"

#include <stdio.h>

#include "engine/catalogue.h"
#include "engine/engine.h"
#include "engine/outage.h"
#include "engine/pool.h"
#include "engine/probe.h"
#include "engine/warmup.h"
#include "util/mem.h"

struct canary_run {
    struct request request;
    struct canaries *canaries;
    struct list_node node; /* In canaries.under_way. */
    struct probe_run tensors;
    uint64_t late_ns;
    bool judged; /* What its end says does not count any more. */
};

static uint64_t succeeded_ns(const struct model *model)
{
    return atomic_load_explicit(&model->stats.succeeded_ns, memory_order_relaxed);
}

bool canary_has_failed(const struct model *model)
{
    return model->canary.failed_ns > 0 && model->canary.failed_ns >= succeeded_ns(model);
}

static void note_failure(struct model *model, const char *why)
{
    struct canary *canary = &model->canary;
    atomic_fetch_add_explicit(&model->stats.canaries_failed, 1, memory_order_relaxed);
    if (!canary->proved) {
        canary->size = (canary->size + 1) % PROBE_SIZE_COUNT;
        return;
    }
    pthread_mutex_lock(&model->pool->lock);
    const bool news = !canary_has_failed(model);
    canary->failed_ns = clock_now_ns(model->pool->engine->clock);
    (void)snprintf(canary->text, sizeof(canary->text), "its canary run failed: %s", why);
    outage_note(model);
    pthread_mutex_unlock(&model->pool->lock);
    if (news) {
        engine_advise(model->pool->engine, model, LOG_WARNING,
                      canary->text); /* Nobody else writes it. */
    }
}

/* A run has succeeded since, or nobody wants to know any more. */
static void forgive(struct model *model)
{
    pthread_mutex_lock(&model->pool->lock);
    const bool news = model->canary.failed_ns > 0;
    model->canary.failed_ns = 0;
    outage_note(model);
    pthread_mutex_unlock(&model->pool->lock);
    if (news) {
        engine_advise(model->pool->engine, model, LOG_INFO,
                      "it is ready again: a run has succeeded, or it gets no canary any more");
    }
}

static void destroy(struct canary_run *run)
{
    struct model *model = run->request.model;
    const struct probe probe = { .signature = model->signature };
    model->canary.run = NULL;
    list_remove(&run->node);
    probe_run_finish(&probe, &run->tensors);
    mem_free(run);
    model_release(model);
}

static void on_end(struct request *request)
{
    struct canary_run *run = request->user;
    struct model *model = request->model;
    const bool began = request->times.taken_ns > 0;
    if (request->status == WEIR_OK) {
        model->canary.proved = true;
        forgive(model);
    } else if (began && !run->judged) {
        note_failure(model, request->err.text);
    }
    destroy(run);
}

/* Its run was written off. */
static void on_late(struct request *request)
{
    struct canary_run *run = request->user;
    if (!run->judged) {
        run->judged = true;
        note_failure(request->model, request_late_text(request));
    }
}

static void on_part(struct request *request, struct request_part *part)
{
    (void)request;
    request_part_release(part);
}

/* True: it was under way, and is told to end. */
static bool give_up(struct canary_run *run)
{
    run->judged = true;
    return pool_stop_request(run->request.model->pool, &run->request, WEIR_ECANCELED);
}

/* Gives up a canary that takes too long; when the next one does. */
static uint64_t look_at_runs(struct canaries *canaries, uint64_t now_ns)
{
    uint64_t next_ns = CLOCK_NEVER;
    for (struct list_node *n = list_first(&canaries->under_way); n != NULL;
         n = list_next(&canaries->under_way, n)) {
        struct canary_run *run = list_entry(n, struct canary_run, node);
        if (run->judged) {
            continue;
        }
        if (now_ns < run->late_ns) {
            next_ns = run->late_ns < next_ns ? run->late_ns : next_ns;
        } else if (give_up(run)) {
            note_failure(run->request.model, "it did not end in time");
        }
    }
    return next_ns;
}

/* The inputs are the sample's, borrowed, or made. */
static enum weir_status fill_in(const struct model *model, struct probe_run *tensors)
{
    static const int64_t sizes[PROBE_SIZE_COUNT] = PROBE_SIZES;
    const struct probe probe = { .signature = model->signature,
                                 .config = model->config,
                                 .blocks = model->pool->engine->blocks };
    const enum weir_status status = probe_run_init(&probe, tensors, NULL);
    const struct tensor *sample = model->canary.inputs;
    if (status != WEIR_OK || sample == NULL) {
        return status == WEIR_OK ? probe_inputs(&probe, tensors, 1, sizes[model->canary.size],
                                                PROBE_ZERO, 0, NULL)
                                 : status;
    }
    for (uint32_t i = 0; i < model->signature->input_count; i++) {
        tensors->inputs[i] = sample[i];
        tensors->inputs[i].block = NULL;
    }
    return WEIR_OK;
}

static void begin(struct canaries *canaries, struct model *model, uint64_t late_ns)
{
    struct canary_run *run = mem_try_zero(1, sizeof(*run));
    if (run == NULL) {
        return; /* The next one will tell. */
    }
    run->canaries = canaries;
    run->late_ns = late_ns;
    request_init(&run->request);
    run->request.model = model;
    model_acquire(model);
    model->canary.run = run;
    list_append(&canaries->under_way, &run->node);
    if (fill_in(model, &run->tensors) != WEIR_OK) {
        destroy(run);
        return;
    }
    run->request.home = canaries->home;
    run->request.inputs = run->tensors.inputs;
    run->request.outputs = run->tensors.outputs;
    run->request.wanted = run->tensors.wanted;
    run->request.priority_best = UINT32_MAX;
    run->request.deadline_ns = CLOCK_NEVER;
    run->request.queue_timeout_ns = CLOCK_NEVER;
    run->request.canary = true;
    run->request.ended = on_end;
    run->request.part = on_part;
    run->request.late = on_late;
    run->request.user = run;
    if (engine_submit(canaries->engine, &run->request, NULL) != WEIR_OK) {
        destroy(run); /* It cannot be asked at all, which outage.h says. */
        return;
    }
    atomic_fetch_add_explicit(&model->stats.canaries, 1, memory_order_relaxed);
}

static uint64_t interval_of(const struct canaries *canaries, const struct model *model)
{
    const uint64_t own_ns = model->config->canary_interval_ns;
    const uint64_t ns = own_ns != CANARY_INTERVAL_SERVER
                            ? own_ns
                            : atomic_load_explicit(&canaries->interval_ns, memory_order_relaxed);
    return ns > 0 && ns < CANARY_INTERVAL_MIN_NS ? CANARY_INTERVAL_MIN_NS : ns;
}

/* Begins the model's canary where it is due; when it will be. */
static uint64_t look_at_model(struct canaries *canaries, struct model *model, uint64_t now_ns)
{
    struct canary *canary = &model->canary;
    if (model->graph != NULL || model->sequence_plan != NULL) {
        return CLOCK_NEVER;
    }
    const uint64_t interval_ns = interval_of(canaries, model);
    const uint64_t served_ns = succeeded_ns(model);
    if (canary->failed_ns > 0 && (interval_ns == 0 || served_ns > canary->failed_ns)) {
        forgive(model);
    }
    if (interval_ns == 0 || canary->run != NULL) {
        return CLOCK_NEVER;
    }
    if (canary->since_ns == 0) {
        canary->since_ns = now_ns; /* Its load was its canary. */
    }
    const uint64_t due_ns =
        clock_add(served_ns > canary->since_ns ? served_ns : canary->since_ns, interval_ns);
    if (now_ns < due_ns) {
        return due_ns;
    }
    const uint64_t next_ns = clock_add(now_ns, interval_ns);
    canary->since_ns = now_ns;
    if (!engine_is_working(model)) {
        begin(
            canaries, model,
            clock_add(now_ns, interval_ns > CANARY_PATIENCE_NS ? interval_ns : CANARY_PATIENCE_NS));
    }
    return next_ns;
}

uint64_t canaries_look(struct canaries *canaries, const struct catalogue *catalogue,
                       uint64_t now_ns)
{
    if (canaries->stopped) {
        return CLOCK_NEVER;
    }
    uint64_t next_ns = look_at_runs(canaries, now_ns);
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->list[i];
        for (uint32_t v = 0; v < entry->version_count; v++) {
            struct model *model = entry->versions[v].model;
            const uint64_t due_ns =
                model == NULL ? CLOCK_NEVER : look_at_model(canaries, model, now_ns);
            next_ns = due_ns < next_ns ? due_ns : next_ns;
        }
    }
    return next_ns;
}

void canaries_init(struct canaries *canaries, struct engine *engine, struct home *home,
                   uint64_t interval_ns)
{
    *canaries = (struct canaries){ .engine = engine, .home = home };
    atomic_init(&canaries->interval_ns, interval_ns);
    list_init(&canaries->under_way);
}

void canaries_stop(struct canaries *canaries)
{
    canaries->stopped = true;
    for (struct list_node *n = list_first(&canaries->under_way); n != NULL;
         n = list_next(&canaries->under_way, n)) {
        (void)give_up(list_entry(n, struct canary_run, node));
    }
}

enum weir_status canary_keep(const struct probe *probe, int folder_fd, struct canary *canary,
                             struct weir_err *err)
{
    const enum weir_status status = warmup_sample(probe, folder_fd, &canary->inputs, err);
    canary->proved = status == WEIR_OK; /* It has just run. */
    return status;
}

void canary_finish(struct canary *canary, uint32_t input_count)
{
    for (uint32_t i = 0; canary->inputs != NULL && i < input_count; i++) {
        tensor_release(&canary->inputs[i]);
    }
    mem_free(canary->inputs);
    canary->inputs = NULL;
}
