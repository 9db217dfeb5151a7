/*
 * The gate of a device.
 *
 * A device carries so many runs at once, a model at most as many as it has instances.  Where runs
 * queue inside the device, as they do in the drivers of most accelerators, each place is given
 * out twice: the next run is handed over while one still holds the device, and starts without
 * waiting for a thread to wake up.
 *
 * What a run holds the device for is counted from the end of the one before, where it was handed
 * over ahead: else waiting would look like work, and the pipeline would never be deep enough.
 */
#include "engine/stage.h"

#include <math.h>

#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/executor.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"

#define RUNS_MEANT 20 /* Runs that the averages go back to. */
#define LEARN_RUNS_MIN 8
#define NEARLY 0.02 /* Of a run on the device that may be left idle. */

/* --- Depth ------------------------------------------------------------------------------------ */

void stage_init(struct stage_times *times, bool pipelined)
{
    *times = (struct stage_times){ .depth = pipelined ? STAGE_DEPTH_FIRST : 1 };
}

bool stage_learn(struct stage_times *times, uint64_t host_ns, uint64_t device_ns)
{
    times->runs++;
    const double weight = 1.0 / (double)(times->runs < RUNS_MEANT ? times->runs : RUNS_MEANT);
    times->host_ns += weight * ((double)host_ns - times->host_ns);
    times->device_ns += weight * ((double)device_ns - times->device_ns);
    if (times->runs < LEARN_RUNS_MIN) {
        return false;
    }
    const double ratio = times->host_ns / (times->device_ns > 1 ? times->device_ns : 1);
    const double wanted = ceil(1 + ratio - NEARLY);
    const double fewer = ceil(1 + ratio - NEARLY / 2); /* Noise does not make it swing. */
    const uint32_t before = times->depth;
    if (wanted > before) {
        times->depth = wanted < STAGE_DEPTH_MAX ? (uint32_t)wanted : STAGE_DEPTH_MAX;
    } else if (fewer < before) {
        times->depth = (uint32_t)fewer;
    }
    return times->depth != before;
}

/* --- The gate --------------------------------------------------------------------------------- */

/* Where the run stands: on its own timeline when it is simulated. */
static uint64_t reached_ns(const struct instance *instance)
{
    return instance->run.virtual_end_ns > 0 ? instance->run.virtual_end_ns
                                            : clock_now_ns(instance->model->pool->engine->clock);
}

/* Lock held. */
static bool may_enter(const struct pool *pool, const struct instance *instance)
{
    const struct model *model = instance->model;
    const uint32_t ahead = model->signature->queues ? 2 : 1;
    const uint32_t instances = model->instance_count / model->replica_count;
    return pool->devices[instance->replica->device].runs < pool->executors_each * ahead &&
           instance->replica->device_runs < instances * ahead;
}

static void enter(struct pool *pool, struct instance *instance)
{
    struct pool_device *device = &pool->devices[instance->replica->device];
    pthread_mutex_lock(&pool->lock);
    bool waited = false;
    while (!may_enter(pool, instance)) {
        waited = true;
        pthread_cond_wait(&pool->device, &pool->lock);
    }
    device->runs++;
    instance->replica->device_runs++;
    if (waited && instance->run.virtual_end_ns > 0 &&
        instance->run.virtual_end_ns < device->left_ns) {
        instance->run.virtual_end_ns = device->left_ns;
    }
    pthread_mutex_unlock(&pool->lock);
}

/* Since when the run has had the device: it was handed over at `entered_ns`. */
static uint64_t leave(struct pool *pool, struct instance *instance, uint64_t entered_ns,
                      uint64_t left_ns)
{
    struct pool_device *device = &pool->devices[instance->replica->device];
    pthread_mutex_lock(&pool->lock);
    device->runs--;
    instance->replica->device_runs--;
    const bool followed =
        pool->executors_each == 1 && device->left_ns > entered_ns && device->left_ns < left_ns;
    const uint64_t began_ns = followed ? device->left_ns : entered_ns;
    if (left_ns > device->left_ns) {
        device->left_ns = left_ns;
    }
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_broadcast(&pool->device);
    return began_ns;
}

static enum weir_status on_device(struct pool *pool, struct instance *instance,
                                  struct weir_err *err)
{
    if (!pool->pipelined) { /* As many threads as the device carries runs. */
        return backend_run(instance->context, &instance->run, err);
    }
    struct batch *batch = &instance->batch;
    batch->prepared_ns = reached_ns(instance);
    enter(pool, instance);
    const uint64_t entered_ns = reached_ns(instance);
    const enum weir_status status = backend_run(instance->context, &instance->run, err);
    const uint64_t left_ns = reached_ns(instance);
    const uint64_t began_ns = leave(pool, instance, entered_ns, left_ns);
    batch->waited_ns = began_ns - batch->prepared_ns;
    batch->device_ns = left_ns - began_ns;
    return status;
}

enum weir_status stage_run(struct instance *instance, struct weir_err *err)
{
    enum weir_status status = backend_prepare(instance->context, &instance->run, err);
    if (status == WEIR_OK) {
        status = on_device(instance->model->pool, instance, err);
    }
    if (status == WEIR_OK) {
        status = backend_finish(instance->context, &instance->run, err);
    }
    return status;
}

/* --- Getting deeper --------------------------------------------------------------------------- */

static bool wants_instance(const struct pool *pool, const struct model *model)
{
    return !pool->stopping && !model->widening && model->slot_count < model->slots_max &&
           model->slot_count < pool_runs_wanted(model);
}

/* Makes one instance; false: there is none to make. */
static bool widen_model(struct pool *pool, struct model *model)
{
    pthread_mutex_lock(&pool->lock);
    const bool wanted = wants_instance(pool, model);
    struct instance *instance = &model->instances[model->slot_count];
    model->widening = model->widening || wanted;
    pthread_mutex_unlock(&pool->lock);
    if (!wanted) {
        return false;
    }
    const enum weir_status status = instance_init(instance, model, NULL);
    pthread_mutex_lock(&pool->lock);
    model->widening = false;
    if (status == WEIR_OK) {
        model->slot_count++;
        replica_put(instance);
    } else {
        model->slots_max = model->slot_count; /* The device has no more. */
    }
    pool_set_runs(model);
    pool_place(pool, model, clock_now_ns(pool->engine->clock));
    pthread_mutex_unlock(&pool->lock);
    return true;
}

/* Starts one executor.  Who starts it is joined before it, so a pool that stops waits for this. */
static bool widen_pool(struct pool *pool, const struct model *model)
{
    pthread_mutex_lock(&pool->lock);
    const bool wanted =
        !pool->stopping && pool->thread_count < pool->executor_count * model->stages.depth;
    struct executor *executor = &pool->executors[pool->thread_count];
    pool->thread_count += wanted ? 1 : 0;
    pthread_mutex_unlock(&pool->lock);
    return wanted && (!pool->engine->threads || executor_start(executor, NULL) == WEIR_OK);
}

void stage_widen(struct pool *pool, struct model *model)
{
    while (widen_model(pool, model)) {
    }
    while (widen_pool(pool, model)) {
    }
    pool_kick(pool);
}
