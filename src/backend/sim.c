/*
 * Models on simulated devices.
 *
 * A run books its time on the device (`sim_device`) and waits for the end of what it booked.  What
 * it waits on is its context's own, so that terminating one run does not wake the others.  Faults
 * that are planned for it are in `sim_fault`.
 */
#include "backend/sim.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backend/sim_device.h"
#include "backend/sim_impl.h"
#include "util/err.h"
#include "util/mem.h"

#define SPECS_BYTES_MAX ((size_t)1 << 20)
#define SPECS_MAX 64

struct sim_context {
    struct backend_context base;
    pthread_mutex_t lock; /* Guards `stopping`, with `changed`. */
    pthread_cond_t changed;
    bool stopping;
    struct sim_lane lane;
};

static struct sim_model *model_of(const struct sim_context *context)
{
    return (struct sim_model *)context->base.model;
}

/* --- Loading ---------------------------------------------------------------------------------- */

static enum weir_status read_specs(struct sim_model *model, const char *text,
                                   struct tensor_spec **out, uint32_t *count, struct weir_err *err)
{
    struct tensor_spec *specs = arena_try_zero(&model->arena, SPECS_MAX, sizeof(*specs));
    if (specs == NULL) {
        return err_nomem(err, "the signature", SPECS_MAX * sizeof(*specs));
    }
    uint32_t found = 0;
    for (text += strspn(text, " "); *text != '\0'; text += strspn(text, " ")) {
        const struct bytes word = { text, strcspn(text, " ") };
        struct bytes name;
        if (found == SPECS_MAX) {
            return err_set(err, WEIR_EINVAL, "more than %d tensors", SPECS_MAX);
        }
        const enum weir_status status = sim_spec_read(word, &name, &specs[found], err);
        if (status != WEIR_OK) {
            return status;
        }
        specs[found].name = arena_try_strndup(&model->arena, name.data, name.size);
        if (specs[found].name == NULL) {
            return err_nomem(err, "a name", name.size);
        }
        found++;
        text += word.size;
    }
    *out = specs;
    *count = found;
    return found > 0 ? WEIR_OK : err_set(err, WEIR_EINVAL, "inputs or outputs are empty");
}

static enum weir_status make_signature(struct sim_model *model, struct weir_err *err)
{
    struct signature *signature = &model->base.signature;
    const struct sim_settings *settings = &model->settings;
    enum weir_status status =
        read_specs(model, settings->inputs, &signature->inputs, &signature->input_count, err);
    if (status == WEIR_OK) {
        status = read_specs(model, settings->outputs, &signature->outputs, &signature->output_count,
                            err);
    }
    signature->short_lived = settings->short_lived;
    signature->streams = settings->parts > 1;
    signature->queues = settings->exclusive;
    signature->timeline = true;
    signature->weights_bytes = settings->memory_per_model;
    return status;
}

/* The settings' texts belong to the caller of the load. */
static enum weir_status keep_texts(struct sim_model *model, struct weir_err *err)
{
    const char **texts[] = { &model->settings.inputs,   &model->settings.outputs,
                             &model->settings.poison,   &model->settings.load_fails,
                             &model->settings.crash_on, &model->settings.stuck_on,
                             &model->settings.lost_on,  &model->settings.oom_on,
                             &model->settings.fault_on };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        *texts[i] = arena_try_strndup(&model->arena, *texts[i], strlen(*texts[i]));
        if (*texts[i] == NULL) {
            return err_nomem(err, "a setting", 0);
        }
    }
    return WEIR_OK;
}

static enum weir_status occupy(struct sim_model *model, const char *device_name,
                               struct weir_err *err)
{
    const uint64_t bytes = model->settings.memory_per_model;
    model->device = sim_device_acquire(device_name);
    if (model->device == NULL) {
        return err_nomem(err, "a device", 0);
    }
    if (!sim_device_book_memory(model->device, bytes, model->settings.memory_max)) {
        return err_set(err, WEIR_ENOMEM,
                       "needs %" PRIu64 " bytes of device '%s', which has %" PRIu64
                       " and not enough left",
                       bytes, device_name, model->settings.memory_max);
    }
    model->booked = true;
    return WEIR_OK;
}

void sim_pass(const struct sim_model *model, uint64_t ns)
{
    if (ns > 0) {
        clock_sleep_until(model->clock, clock_add(clock_now_ns(model->clock), ns));
    }
}

static void sim_unload(struct backend_model *base)
{
    struct sim_model *model = (struct sim_model *)base;
    if (model->booked) {
        sim_pass(model, model->settings.unload);
        sim_device_unbook_memory(model->device, model->settings.memory_per_model);
    }
    sim_device_release(model->device);
    arena_finish(&model->arena);
    mem_free(model);
}

static void sim_memory(const struct backend_model *base, struct backend_memory *out)
{
    const struct sim_model *model = (const struct sim_model *)base;
    out->device_bytes = model->settings.memory_per_model;
    out->mapped_bytes = model->packed ? 0 : model->settings.mapped;
    out->heap_bytes = model->packed ? model->settings.mapped : 0;
}

static uint64_t sim_promotion(const struct backend_model *base)
{
    const struct sim_model *model = (const struct sim_model *)base;
    const bool due =
        model->promote_runs > 0 && model->runs >= model->promote_runs && !model->packed;
    return due ? model->settings.mapped : 0;
}

static enum weir_status sim_promote(struct backend_model *base, struct weir_err *err)
{
    (void)err;
    struct sim_model *model = (struct sim_model *)base;
    sim_pass(model, model->settings.pack);
    model->packed = true;
    return WEIR_OK;
}

static enum weir_status sim_needs(const struct backend_ops *ops, const struct backend_load *how,
                                  struct backend_needs *out, struct weir_err *err)
{
    (void)ops;
    struct sim_settings settings;
    const enum weir_status status =
        sim_settings_read(&settings, how->settings, how->setting_count, err);
    out->device_bytes = status == WEIR_OK ? settings.memory_per_model : 0;
    return status;
}

static enum weir_status build(struct sim_model *model, const struct backend_load *how,
                              struct weir_err *err)
{
    enum weir_status status =
        sim_settings_read(&model->settings, how->settings, how->setting_count, err);
    if (status == WEIR_OK) {
        status = keep_texts(model, err);
    }
    if (status == WEIR_OK) {
        status = make_signature(model, err);
    }
    if (status == WEIR_OK) {
        sim_pass(model, model->settings.load);
    }
    if (status == WEIR_OK && model->settings.load_fails[0] != '\0') {
        status = err_set(err, WEIR_EINVAL, "%s", model->settings.load_fails);
    }
    const char *device = how->device == NULL ? "sim" : how->device;
    if (status == WEIR_OK) {
        status = sim_slowness_read(model->settings.slower, device, &model->slowness, err);
        model->settings.slower = ""; /* The caller's text. */
    }
    if (status == WEIR_OK) {
        status = occupy(model, device, err);
    }
    return status;
}

static enum weir_status sim_load(const struct backend_ops *ops, const struct backend_load *how,
                                 struct backend_model **out, struct weir_err *err)
{
    struct sim_model *model = mem_try_zero(1, sizeof(*model));
    if (model == NULL) {
        return err_nomem(err, "a model", sizeof(*model));
    }
    arena_init(&model->arena, NULL, 0, SPECS_BYTES_MAX);
    model->base.ops = ops;
    model->clock = how->clock;
    model->blocks = how->blocks;
    const bool may_pack = how->weights != NULL && how->weights->mode == WEIGHTS_AUTO;
    model->promote_runs = may_pack ? how->weights->promote_runs : 0;
    const enum weir_status status = build(model, how, err);
    if (status != WEIR_OK) {
        sim_unload(&model->base);
        err_prefix(err, "model '%s' version %" PRIu64, how->model_name, how->version);
        return status;
    }
    *out = &model->base;
    return WEIR_OK;
}

/* --- Contexts --------------------------------------------------------------------------------- */

static enum weir_status sim_context_create(struct backend_model *base, struct backend_context **out,
                                           struct weir_err *err)
{
    struct sim_model *model = (struct sim_model *)base;
    const uint64_t limit = model->settings.contexts_max;
    struct sim_context *context = mem_try_zero(1, sizeof(*context));
    if (context == NULL) {
        return err_nomem(err, "a context", sizeof(*context));
    }
    if (!sim_device_enter(model->device, limit)) {
        mem_free(context);
        return err_set(err, WEIR_ECONFLICT,
                       "device '%s' has no context left: contexts_max is %" PRIu64,
                       sim_device_name(model->device), limit);
    }
    context->lane = (struct sim_lane){ .exclusive = model->settings.exclusive,
                                       .contention = model->settings.contention };
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&context->lock, NULL);
    pthread_cond_init(&context->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    context->base.model = base;
    *out = &context->base;
    return WEIR_OK;
}

static void sim_context_destroy(struct backend_context *base)
{
    struct sim_context *context = (struct sim_context *)base;
    sim_device_leave(model_of(context)->device);
    pthread_cond_destroy(&context->changed);
    pthread_mutex_destroy(&context->lock);
    mem_free(context);
}

static void sim_terminate(struct backend_context *base, bool stop)
{
    struct sim_context *context = (struct sim_context *)base;
    pthread_mutex_lock(&context->lock);
    context->stopping = stop;
    pthread_cond_broadcast(&context->changed);
    pthread_mutex_unlock(&context->lock);
}

/* --- Time ------------------------------------------------------------------------------------- */

/* Splitmix64: an even number in [0, 1) that depends on the seed and the run alone. */
static double chance(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + index * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static uint64_t run_cost_ns(const struct sim_model *model, uint64_t rows, uint64_t index)
{
    const struct sim_settings *settings = &model->settings;
    const double sway = settings->jitter * (2 * chance(settings->seed, index) - 1);
    const double cost = ((double)settings->tau0 + (double)settings->alpha * (double)rows);
    const double swayed = cost * (1 + sway) * model->slowness;
    return swayed < 0x1p63 ? (uint64_t)swayed : (uint64_t)1 << 63;
}

static struct timespec timespec_of(uint64_t at_ns)
{
    const uint64_t seconds = at_ns / NS_PER_S;
    return (struct timespec){
        .tv_sec = seconds > INT32_MAX ? INT32_MAX : (time_t)seconds,
        .tv_nsec = (long)(at_ns % NS_PER_S),
    };
}

/* Until `at_ns` on a real clock, not at all on a manual one; false when terminated. */
static bool wait_until(struct sim_context *context, uint64_t at_ns)
{
    const struct clock *clock = model_of(context)->clock;
    pthread_mutex_lock(&context->lock);
    while (!context->stopping && !clock->manual && clock_now_ns(clock) < at_ns) {
        const struct timespec at = timespec_of(at_ns);
        pthread_cond_timedwait(&context->changed, &context->lock, &at);
    }
    const bool stopped = context->stopping;
    pthread_mutex_unlock(&context->lock);
    return !stopped;
}

static void hang(struct sim_context *context)
{
    pthread_mutex_lock(&context->lock);
    while (!context->stopping) {
        pthread_cond_wait(&context->changed, &context->lock);
    }
    pthread_mutex_unlock(&context->lock);
}

/* When the run's next step begins: at the end of the one before, or when it could have. */
static uint64_t reached_ns(const struct sim_context *context, const struct backend_run *run)
{
    const uint64_t now_ns = clock_now_ns(model_of(context)->clock);
    const uint64_t due_ns = run->virtual_end_ns > 0 ? run->virtual_end_ns : run->begin_ns;
    return now_ns > clock_add(due_ns, BACKEND_LATE_NS) ? now_ns : due_ns;
}

static enum weir_status stopped(struct weir_err *err)
{
    return err_set(err, WEIR_ECANCELED, "the run was stopped");
}

/* Host time: passes beside the device's timeline. */
static enum weir_status spend(struct sim_context *context, struct backend_run *run, uint64_t ns,
                              struct weir_err *err)
{
    run->virtual_end_ns = clock_add(reached_ns(context, run), ns);
    return ns == 0 || wait_until(context, run->virtual_end_ns) ? WEIR_OK : stopped(err);
}

/* --- Outputs ---------------------------------------------------------------------------------- */

static struct shape output_shape(const struct tensor_spec *spec, const struct tensor *input)
{
    struct shape shape = spec->shape;
    for (uint32_t d = 0; d < shape.rank; d++) {
        if (shape.dims[d] < 0) {
            shape.dims[d] = d < input->shape.rank ? input->shape.dims[d] : 1;
        }
    }
    return shape;
}

static void add_rows(float *values, size_t count, uint64_t rows)
{
    for (size_t i = 0; i < count; i++) {
        values[i] += (float)rows;
    }
}

static enum weir_status echo(const struct sim_model *model, const struct backend_run *run,
                             uint32_t index, struct weir_err *err)
{
    const struct signature *signature = &model->base.signature;
    const struct tensor_spec *spec = &signature->outputs[index];
    const uint32_t from = index < signature->input_count ? index : signature->input_count - 1;
    const struct tensor *input = &run->inputs[from];
    const bool same = input->dtype == spec->dtype;
    struct tensor made = {
        .dtype = spec->dtype,
        .shape = output_shape(spec, input),
        .present = true,
    };
    made.size = input->size;
    if (spec->dtype != DTYPE_BYTES || !same) {
        const enum weir_status status = tensor_bytes(spec->dtype, &made.shape, &made.size, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    made.block = block_pool_take(model->blocks, made.size);
    if (made.block == NULL) {
        return err_nomem(err, "an output", made.size);
    }
    made.data = made.block->data;
    const size_t copied = !same ? 0 : input->size < made.size ? input->size : made.size;
    if (copied > 0) {
        memcpy(made.data, input->data, copied);
    }
    memset(made.data + copied, 0, made.size - copied);
    if (model->settings.mixes_rows && spec->dtype == DTYPE_FP32) {
        add_rows((float *)(void *)made.data, made.size / sizeof(float), run->rows);
    }
    run->outputs[index] = made;
    return WEIR_OK;
}

static void drop_outputs(const struct sim_model *model, struct backend_run *run)
{
    for (uint32_t i = 0; i < model->base.signature.output_count; i++) {
        tensor_release(&run->outputs[i]);
    }
}

static enum weir_status make_outputs(const struct sim_model *model, struct backend_run *run,
                                     struct weir_err *err)
{
    for (uint32_t i = 0; i < model->base.signature.output_count; i++) {
        const enum weir_status status = run->wanted[i] ? echo(model, run, i, err) : WEIR_OK;
        if (status != WEIR_OK) {
            drop_outputs(model, run);
            return status;
        }
    }
    return WEIR_OK;
}

/* --- The run ---------------------------------------------------------------------------------- */

static enum weir_status sim_prepare(struct backend_context *base, struct backend_run *run,
                                    struct weir_err *err)
{
    struct sim_context *context = (struct sim_context *)base;
    return spend(context, run, model_of(context)->settings.prepare, err);
}

static enum weir_status sim_finish(struct backend_context *base, struct backend_run *run,
                                   struct weir_err *err)
{
    struct sim_context *context = (struct sim_context *)base;
    const enum weir_status status = spend(context, run, model_of(context)->settings.finish, err);
    if (status != WEIR_OK) {
        drop_outputs(model_of(context), run);
    }
    return status;
}

static enum weir_status run_once(struct sim_context *context, struct backend_run *run,
                                 uint64_t cost_ns, struct weir_err *err)
{
    struct sim_model *model = model_of(context);
    run->virtual_end_ns =
        sim_device_book(model->device, &context->lane, reached_ns(context, run), cost_ns);
    if (wait_until(context, run->virtual_end_ns)) {
        return WEIR_OK;
    }
    sim_device_unbook(model->device, &context->lane, clock_now_ns(model->clock),
                      run->virtual_end_ns, cost_ns);
    return stopped(err);
}

static enum weir_status stream(struct sim_context *context, struct backend_run *run,
                               uint64_t cost_ns, struct weir_err *err)
{
    const uint64_t parts = model_of(context)->settings.parts;
    for (uint64_t i = 0; i < parts; i++) {
        enum weir_status status = run_once(context, run, cost_ns / parts, err);
        if (status == WEIR_OK) {
            status = make_outputs(model_of(context), run, err);
        }
        if (status == WEIR_OK) {
            status = run->part(run);
            drop_outputs(model_of(context), run); /* What it did not take. */
        }
        if (status != WEIR_OK) {
            return status == WEIR_ECANCELED ? stopped(err) : status;
        }
    }
    return WEIR_OK;
}

static enum weir_status run_booked(struct sim_context *context, struct backend_run *run,
                                   struct weir_err *err)
{
    struct sim_model *model = model_of(context);
    const struct sim_settings *settings = &model->settings;
    const uint64_t index = atomic_fetch_add(&model->runs, 1) + 1;
    const uint64_t cost_ns = run_cost_ns(model, run->rows, index);
    if (settings->hang_at == index) {
        hang(context);
        return stopped(err);
    }
    const enum weir_status planned = sim_fault(model, run, index, err);
    if (planned == WEIR_OK && settings->parts > 1 && run->part != NULL) {
        return stream(context, run, cost_ns, err);
    }
    const enum weir_status status = run_once(context, run, cost_ns, err);
    if (status != WEIR_OK || planned != WEIR_OK) {
        return status != WEIR_OK ? status : planned;
    }
    return make_outputs(model, run, err);
}

static enum weir_status sim_run(struct backend_context *base, struct backend_run *run,
                                struct weir_err *err)
{
    struct sim_context *context = (struct sim_context *)base;
    struct sim_model *model = model_of(context);
    uint64_t bytes;
    if (__builtin_mul_overflow(model->settings.memory_per_row, run->rows, &bytes) ||
        !sim_device_book_memory(model->device, bytes, model->settings.memory_max)) {
        return err_set(err, WEIR_ENOMEM, "%" PRIu64 " rows do not fit into device '%s'", run->rows,
                       sim_device_name(model->device));
    }
    const enum weir_status status = run_booked(context, run, err);
    sim_device_unbook_memory(model->device, bytes);
    return status;
}

static uint32_t sim_stages(const struct backend_model *base)
{
    const struct sim_settings *settings = &((const struct sim_model *)base)->settings;
    return (settings->prepare > 0 ? (uint32_t)BACKEND_PREPARES : 0) |
           (settings->finish > 0 ? (uint32_t)BACKEND_FINISHES : 0);
}

const struct backend_ops sim_ops = {
    .name = "sim",
    .platform = "sim",
    .load = sim_load,
    .needs = sim_needs,
    .unload = sim_unload,
    .context_create = sim_context_create,
    .context_destroy = sim_context_destroy,
    .prepare = sim_prepare,
    .run = sim_run,
    .finish = sim_finish,
    .stages = sim_stages,
    .terminate = sim_terminate,
    .memory = sim_memory,
    .promotion = sim_promotion,
    .promote = sim_promote,
};
