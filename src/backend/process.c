/*
 * The side of the engine.
 *
 * A context's channel belongs to one process and dies with it; the context makes a new one with its
 * next run.  All that is read from the shared memory is copied once and checked then, as the other
 * side may change it at any time.
 */
#include "backend/process.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend_impl.h"
#include "backend/plugin.h"
#include "backend/process_channel.h"
#include "backend/process_slot.h"
#include "util/err.h"
#include "util/mem.h"

#define MODEL_BYTES_MAX ((size_t)4 << 20)

struct process_model {
    struct backend_model base;
    struct arena arena; /* The signature, copies of the load's texts. */
    struct backend_isolation isolation;
    struct process_load load;
    struct process_slot *slot; /* NULL where each context has its own, once the first took this. */
    pthread_mutex_t lock;      /* Guards what follows, and `slot`. */
    struct list contexts;
    struct slot_figures figures; /* As they were when they could last be had. */
    uint64_t restarts_gone;      /* Of contexts that are no more. */
};

/* Where a context's runs go. */
struct seat {
    struct process_slot *slot;
    struct channel *channel; /* NULL: none yet, or it died. */
};

struct process_context {
    struct backend_context base;
    struct list_node node; /* In the model's list, under its lock. */
    bool own_slot;
    struct seat home;
    struct seat trial;      /* Of a run on probation: made for it, and gone with it. */
    pthread_mutex_t lock;   /* Guards what follows. */
    struct channel *active; /* Where the run is that is under way. */
    bool stopping;
};

static struct process_model *model_of(const struct process_context *context)
{
    return (struct process_model *)context->base.model;
}

/* ---- Models ---------------------------------------------------------------------------------- */

static void process_unload(struct backend_model *base)
{
    struct process_model *model = (struct process_model *)base;
    slot_release(model->slot, &model->load);
    if (model->load.how.folder_fd >= 0) {
        (void)close(model->load.how.folder_fd);
    }
    buffer_finish(&model->load.signature);
    process_inputs_close(model->load.inputs);
    pthread_mutex_destroy(&model->lock);
    arena_finish(&model->arena);
    mem_free(model);
}

static const char *copy_text(struct process_model *model, const char *text, bool *failed)
{
    if (text == NULL) {
        return NULL;
    }
    const char *copy = arena_try_strndup(&model->arena, text, strlen(text));
    *failed = *failed || copy == NULL;
    return copy;
}

static const struct setting *copy_settings(struct process_model *model,
                                           const struct setting *settings, uint32_t count,
                                           bool *failed)
{
    struct setting *copies = arena_try_zero(&model->arena, count + 1u, sizeof(*copies));
    *failed = *failed || copies == NULL;
    for (uint32_t i = 0; i < count && copies != NULL; i++) {
        copies[i].key = copy_text(model, settings[i].key, failed);
        copies[i].value = copy_text(model, settings[i].value, failed);
    }
    return copies;
}

static const struct backend_provider *copy_providers(struct process_model *model,
                                                     const struct backend_load *how, bool *failed)
{
    const uint32_t count = how->provider_count;
    struct backend_provider *copies = arena_try_zero(&model->arena, count + 1u, sizeof(*copies));
    *failed = *failed || copies == NULL;
    for (uint32_t i = 0; i < count && copies != NULL; i++) {
        const struct backend_provider *provider = &how->providers[i];
        copies[i] = *provider;
        copies[i].name = copy_text(model, provider->name, failed);
        copies[i].options = copy_settings(model, provider->options, provider->option_count, failed);
    }
    return copies;
}

/* The load is borrowed for the call, and later processes need it. */
static enum weir_status copy_load(struct process_model *model, const struct backend_ops *ops,
                                  const struct backend_load *how, struct weir_err *err)
{
    struct backend_load *copy = &model->load.how;
    bool failed = false;
    model->isolation = *how->isolation;
    model->isolation.group = copy_text(model, how->isolation->group, &failed);
    *copy = *how;
    copy->isolation = &model->isolation;
    copy->weights = NULL; /* A process reads its model's folder and nothing else: no cache. */
    copy->model_name = copy_text(model, how->model_name, &failed);
    copy->file_name = copy_text(model, how->file_name, &failed);
    copy->device = copy_text(model, how->device, &failed);
    copy->settings = copy_settings(model, how->settings, how->setting_count, &failed);
    copy->providers = copy_providers(model, how, &failed);
    model->load.backend = copy_text(model, backend_ops_name(ops), &failed);
    model->load.plugin = copy_text(model, plugin_path(ops), &failed);
    copy->folder_fd = how->folder_fd < 0 ? -1 : fcntl(how->folder_fd, F_DUPFD_CLOEXEC, 0);
    failed = failed || (how->folder_fd >= 0 && copy->folder_fd < 0);
    return failed ? err_nomem(err, "a model", MODEL_BYTES_MAX) : WEIR_OK;
}

static enum weir_status build(struct process_model *model, const struct backend_ops *ops,
                              const struct backend_load *how, struct weir_err *err)
{
    enum weir_status status = copy_load(model, ops, how, err);
    if (process_inputs_create(&model->load.inputs, NULL) != WEIR_OK) {
        model->load.inputs = NULL; /* They are copied. */
    }
    status = status == WEIR_OK ? slot_acquire(&model->load, &model->slot, err) : status;
    struct process *process = NULL;
    bool ended;
    status =
        status == WEIR_OK ? slot_enter(model->slot, &model->load, &process, &ended, err) : status;
    if (status != WEIR_OK) {
        return status;
    }
    process_release(process);
    struct message_reader reader = message_read(&model->load.signature);
    return message_get_signature(&reader, &model->arena, &model->base.signature, err);
}

static const struct backend_ops process_ops;

enum weir_status process_load(const struct backend_ops *ops, const struct backend_load *how,
                              struct backend_model **out, struct weir_err *err)
{
    struct process_model *model = mem_try_zero(1, sizeof(*model));
    if (model == NULL) {
        return err_nomem(err, "a model", sizeof(*model));
    }
    arena_init(&model->arena, NULL, 0, MODEL_BYTES_MAX);
    model->base.ops = &process_ops;
    model->load.how.folder_fd = -1;
    buffer_init(&model->load.signature, PROCESS_MESSAGE_MAX);
    pthread_mutex_init(&model->lock, NULL);
    list_init(&model->contexts);
    const enum weir_status status = build(model, ops, how, err);
    if (status != WEIR_OK) {
        process_unload(&model->base);
        return status;
    }
    *out = &model->base;
    return WEIR_OK;
}

/* ---- Seats ----------------------------------------------------------------------------------- */

static void leave(struct seat *seat)
{
    channel_destroy(seat->channel);
    seat->channel = NULL;
}

/* A live channel for `run`, NULL: for none.  A process that ends before the run has reached it takes
 * the run with it and says nothing of it. */
static enum weir_status sit_down(struct process_model *model, struct seat *seat,
                                 struct backend_run *run, struct weir_err *err)
{
    if (seat->channel != NULL && !channel_is_dead(seat->channel)) {
        return WEIR_OK;
    }
    leave(seat);
    struct process *process = NULL;
    bool ended;
    enum backend_death told = DEATH_KILLED;
    enum weir_status status = slot_enter(seat->slot, &model->load, &process, &ended, err);
    if (status == WEIR_OK) {
        process_acquire(process);
        status = channel_create(process, &model->load, &model->base.signature, &seat->channel, err);
        ended = status != WEIR_OK && atomic_load(&process->dead);
        told = ended ? process_tell(process, model->load.index, DEATH_KILLED) : DEATH_NONE;
        process_release(process);
    }
    if (ended && run != NULL) {
        run->death = DEATH_KILLED;
        run->told = told;
    }
    return status;
}

/* The seat of this run.  A process that cannot be had is nobody's fault. */
static enum weir_status find_seat(struct process_context *context, struct backend_run *run,
                                  struct seat **out, struct weir_err *err)
{
    struct process_model *model = model_of(context);
    struct seat *seat = run->probation ? &context->trial : &context->home;
    if (run->probation && seat->slot == NULL) {
        struct backend_isolation alone = model->isolation;
        alone.scope = ISOLATION_INSTANCE;
        struct process_load load = model->load;
        load.how.isolation = &alone;
        const enum weir_status status = slot_acquire(&load, &seat->slot, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    *out = seat;
    if (sit_down(model, seat, run, err) == WEIR_OK) {
        return WEIR_OK;
    }
    return run->death != DEATH_NONE ? WEIR_EBACKEND : WEIR_EUNAVAILABLE;
}

static void end_trial(struct process_context *context)
{
    leave(&context->trial);
    slot_release(context->trial.slot, &model_of(context)->load);
    context->trial.slot = NULL;
}

/* ---- Contexts -------------------------------------------------------------------------------- */

/* One slot of a model whose contexts have their own is kept for the next of them. */
static void leave_slot(struct process_model *model, struct process_context *context)
{
    struct process_slot *slot = context->own_slot ? context->home.slot : NULL;
    struct slot_figures figures;
    pthread_mutex_lock(&model->lock);
    list_remove(&context->node);
    if (slot != NULL && model->slot == NULL) {
        model->slot = slot;
        slot = NULL;
    } else if (slot != NULL && slot_look(slot, &model->load, &figures)) {
        model->restarts_gone += figures.restarts;
    }
    pthread_mutex_unlock(&model->lock);
    slot_release(slot, &model->load);
}

static void process_context_destroy(struct backend_context *base)
{
    struct process_context *context = (struct process_context *)base;
    end_trial(context);
    leave(&context->home);
    leave_slot(model_of(context), context);
    pthread_mutex_destroy(&context->lock);
    mem_free(context);
}

/* The first context of a model whose contexts have their own takes the one that the load made. */
static enum weir_status find_slot(struct process_model *model, struct process_context *context,
                                  struct weir_err *err)
{
    context->own_slot = model->isolation.scope == ISOLATION_INSTANCE;
    pthread_mutex_lock(&model->lock);
    context->home.slot = model->slot;
    if (context->own_slot) {
        model->slot = NULL;
    }
    pthread_mutex_unlock(&model->lock);
    return context->home.slot != NULL ? WEIR_OK
                                      : slot_acquire(&model->load, &context->home.slot, err);
}

static enum weir_status process_context_create(struct backend_model *base,
                                               struct backend_context **out, struct weir_err *err)
{
    struct process_model *model = (struct process_model *)base;
    struct process_context *context = mem_try_zero(1, sizeof(*context));
    if (context == NULL) {
        return err_nomem(err, "a context", sizeof(*context));
    }
    context->base.model = base;
    pthread_mutex_init(&context->lock, NULL);
    enum weir_status status = find_slot(model, context, err);
    status = status == WEIR_OK ? sit_down(model, &context->home, NULL, err) : status;
    if (status != WEIR_OK) {
        process_context_destroy(&context->base);
        return status;
    }
    pthread_mutex_lock(&model->lock);
    list_append(&model->contexts, &context->node);
    pthread_mutex_unlock(&model->lock);
    *out = &context->base;
    return WEIR_OK;
}

static void process_terminate(struct backend_context *base, bool stop)
{
    struct process_context *context = (struct process_context *)base;
    pthread_mutex_lock(&context->lock);
    context->stopping = stop;
    if (stop && context->active != NULL) {
        channel_terminate(context->active);
    }
    pthread_mutex_unlock(&context->lock);
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static void drop_outputs(const struct process_model *model, struct backend_run *run)
{
    for (uint32_t i = 0; i < model->base.signature.output_count; i++) {
        tensor_release(&run->outputs[i]);
    }
}

static void set_active(struct process_context *context, struct channel *channel)
{
    pthread_mutex_lock(&context->lock);
    context->active = channel;
    if (channel != NULL && context->stopping) {
        channel_terminate(channel);
    }
    pthread_mutex_unlock(&context->lock);
}

static bool is_last(const struct process_model *model, enum process_step step)
{
    return step == STEP_FINISH ||
           (step == STEP_RUN && (model->load.stages & BACKEND_FINISHES) == 0);
}

static enum weir_status take_step(struct process_context *context, struct backend_run *run,
                                  enum process_step step, bool first, struct weir_err *err)
{
    struct process_model *model = model_of(context);
    struct seat *seat = run->probation ? &context->trial : &context->home;
    run->death = DEATH_NONE;
    run->told = DEATH_NONE;
    enum weir_status status = WEIR_OK;
    if (first) {
        status = find_seat(context, run, &seat, err);
        status = status == WEIR_OK ? channel_begin(seat->channel, run, err) : status;
    }
    if (status == WEIR_OK) {
        set_active(context, seat->channel);
        status = channel_step(seat->channel, run, step, err);
        set_active(context, NULL);
    }
    if (status != WEIR_OK) {
        drop_outputs(model, run);
    }
    if (run->probation && (is_last(model, step) || status != WEIR_OK)) {
        end_trial(context);
    }
    return status;
}

static enum weir_status process_prepare(struct backend_context *base, struct backend_run *run,
                                        struct weir_err *err)
{
    const struct process_model *model = (const struct process_model *)base->model;
    return (model->load.stages & BACKEND_PREPARES) == 0
               ? WEIR_OK
               : take_step((struct process_context *)base, run, STEP_PREPARE, true, err);
}

static enum weir_status process_run(struct backend_context *base, struct backend_run *run,
                                    struct weir_err *err)
{
    const struct process_model *model = (const struct process_model *)base->model;
    return take_step((struct process_context *)base, run, STEP_RUN,
                     (model->load.stages & BACKEND_PREPARES) == 0, err);
}

static enum weir_status process_finish(struct backend_context *base, struct backend_run *run,
                                       struct weir_err *err)
{
    const struct process_model *model = (const struct process_model *)base->model;
    return (model->load.stages & BACKEND_FINISHES) == 0
               ? WEIR_OK
               : take_step((struct process_context *)base, run, STEP_FINISH, false, err);
}

/* ---- Figures --------------------------------------------------------------------------------- */

static void add_figures(struct slot_figures *sum, const struct slot_figures *more)
{
    sum->memory.heap_bytes += more->memory.heap_bytes;
    sum->memory.heap_peak_bytes += more->memory.heap_peak_bytes;
    sum->memory.mapped_bytes += more->memory.mapped_bytes;
    sum->memory.device_bytes += more->memory.device_bytes;
    sum->resident_bytes += more->resident_bytes;
    sum->restarts += more->restarts;
}

/* Lock held.  False: a slot is busy. */
static bool sum_up(struct process_model *model, struct slot_figures *sum)
{
    struct slot_figures one;
    *sum = (struct slot_figures){ .restarts = model->restarts_gone };
    if (model->slot != NULL) {
        if (!slot_look(model->slot, &model->load, &one)) {
            return false;
        }
        add_figures(sum, &one);
    }
    for (struct list_node *n = list_first(&model->contexts); n != NULL;
         n = list_next(&model->contexts, n)) {
        const struct process_context *context = list_entry(n, struct process_context, node);
        if (context->own_slot) {
            if (!slot_look(context->home.slot, &model->load, &one)) {
                return false;
            }
            add_figures(sum, &one);
        }
    }
    return true;
}

/* What a process that is the model's alone takes is the model's, whatever its backend counts. */
static void process_memory(const struct backend_model *base, struct backend_memory *out)
{
    struct process_model *model = (struct process_model *)(uintptr_t)base;
    pthread_mutex_lock(&model->lock);
    struct slot_figures sum;
    if (sum_up(model, &sum)) {
        model->figures = sum;
    }
    *out = model->figures.memory;
    out->restarts = model->figures.restarts;
    out->process_bytes = model->figures.resident_bytes;
    pthread_mutex_unlock(&model->lock);
    if (model->isolation.scope != ISOLATION_GROUP && out->process_bytes > out->heap_bytes) {
        out->heap_bytes = out->process_bytes;
        out->heap_peak_bytes =
            out->heap_peak_bytes > out->heap_bytes ? out->heap_peak_bytes : out->heap_bytes;
    }
    const uint64_t inputs_bytes = process_inputs_bytes(model->load.inputs);
    out->heap_bytes += inputs_bytes;
    out->heap_peak_bytes += inputs_bytes;
}

static struct block *process_input_block(struct backend_model *base, size_t front, size_t size)
{
    return process_inputs_take(((struct process_model *)base)->load.inputs, front, size);
}

static const struct backend_ops process_ops = {
    .name = "process",
    .platform = "",
    .unload = process_unload,
    .context_create = process_context_create,
    .context_destroy = process_context_destroy,
    .prepare = process_prepare,
    .run = process_run,
    .finish = process_finish,
    .terminate = process_terminate,
    .memory = process_memory,
    .input_block = process_input_block,
};
