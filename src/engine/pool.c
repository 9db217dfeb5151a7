/*
 * The pool itself, from the first executor to the last.
 */
#include "engine/pool.h"

#include <assert.h>
#include <string.h>

#include "engine/executor.h"
#include "engine/pool_impl.h"
#include "util/mem.h"

const char *pool_name_of(const struct device_options *device)
{
    return device->pool != NULL ? device->pool : device->name;
}

static bool same_pool(const struct device_options *a, const struct device_options *b)
{
    return strcmp(pool_name_of(a), pool_name_of(b)) == 0;
}

enum weir_status pool_count_devices(const struct engine_options *options, uint32_t first,
                                    uint32_t *count, struct weir_err *err)
{
    const struct device_options *model = &options->devices[first];
    *count = 0;
    if (model->executors < 1) {
        return err_set(err, WEIR_EINVAL, "device '%s': executors is 0, expected at least 1",
                       model->name);
    }
    for (uint32_t i = first; i < options->device_count; i++) {
        const struct device_options *device = &options->devices[i];
        if (!same_pool(model, device)) {
            continue;
        }
        if (device->executors != model->executors || device->pipelined != model->pipelined) {
            return err_set(err, WEIR_EINVAL,
                           "device '%s': found %u runs%s, expected %u%s as '%s' has, which is of "
                           "the same pool '%s'",
                           device->name, device->executors,
                           device->pipelined ? "" : ", unpipelined", model->executors,
                           model->pipelined ? "" : ", unpipelined", model->name,
                           pool_name_of(model));
        }
        ++*count;
    }
    return WEIR_OK;
}

static void place_devices(struct pool *pool, const struct engine_options *options, uint32_t first)
{
    uint32_t count = 0;
    pool->devices = mem_alloc(pool->device_count * sizeof(*pool->devices));
    for (uint32_t i = first; count < pool->device_count; i++) {
        if (same_pool(&options->devices[first], &options->devices[i])) {
            pool->devices[count++].name = options->devices[i].name;
        }
    }
    balance_init(&pool->balance, pool->device_count);
}

/* Which memory nodes so many executors sit on; 0: all seats are on one. */
static uint64_t nodes_of(const struct device_options *options, uint32_t executors)
{
    uint64_t all = 0;
    uint64_t taken = 0;
    for (uint32_t i = 0; i < options->seat_count; i++) {
        const uint64_t node = UINT64_C(1) << options->seats[i].node;
        all |= node;
        taken |= i < executors ? node : 0;
    }
    return (all & (all - 1)) != 0 ? taken : 0;
}

/* Executors of further stages sit where those of the first ones do, spare ones wherever they are
 * needed. */
static void place_executors(struct pool *pool, const struct device_options *options)
{
    const uint32_t all = pool->thread_max + POOL_SPARES_MAX;
    pool->executors = mem_alloc(all * sizeof(*pool->executors));
    for (uint32_t i = 0; i < all; i++) {
        const bool pinned = options->seat_count > 0 && i < pool->thread_max;
        const struct numa_seat *seat = pinned ? &options->seats[i % options->seat_count] : NULL;
        pool->executors[i].pool = pool;
        pool->executors[i].pinned = seat;
        pool->executors[i].seat = (struct seat){
            .device = i % pool->device_count,
            .node = seat != NULL && pool->nodes != 0 ? seat->node : SEAT_NODE_ANY,
        };
    }
}

enum weir_status pool_create(struct engine *engine, const struct engine_options *all,
                             uint32_t first, struct pool **out, struct weir_err *err)
{
    const struct device_options *options = &all->devices[first];
    uint32_t count;
    const enum weir_status status = pool_count_devices(all, first, &count, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct pool *pool = mem_alloc(sizeof(*pool));
    pool->name = pool_name_of(options);
    pool->engine = engine;
    pool->index = engine->pool_count;
    pool->first_device = engine->device_count;
    pool->device_count = count;
    pool->executors_each = options->executors;
    pool->executor_count = options->executors * count;
    pool->pipelined = options->pipelined;
    pool->nice = options->nice;
    pool->thread_count = pool->executor_count * (options->pipelined ? STAGE_DEPTH_FIRST : 1);
    pool->thread_max = pool->executor_count * (options->pipelined ? STAGE_DEPTH_MAX : 1);
    pool->nodes = nodes_of(options, pool->thread_count);
    pool->uniform = count == 1 && pool->nodes == 0;
    pool_wake_init(pool);
    place_devices(pool, all, first);
    place_executors(pool, options);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->device, NULL);
    pthread_cond_init(&pool->parts, NULL);
    order_init(&pool->order, &engine->order);
    list_init(&pool->ready);
    list_init(&pool->limited);
    list_init(&pool->wide);
    list_init(&pool->runs);
    list_init(&pool->spares);
    list_init(&pool->missing);
    *out = pool;
    return WEIR_OK;
}

double pool_balance(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    const double score = balance_score(&pool->balance);
    pthread_mutex_unlock(&pool->lock);
    return score;
}

struct pool_device_look pool_look(struct pool *pool, uint32_t device)
{
    pthread_mutex_lock(&pool->lock);
    const struct pool_device *seen = &pool->devices[device];
    const struct pool_device_look look = { seen->busy_ns, seen->batches };
    pthread_mutex_unlock(&pool->lock);
    return look;
}

enum weir_status pool_start(struct pool *pool, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < pool->thread_count && status == WEIR_OK; i++) {
        status = executor_start(&pool->executors[i], err);
    }
    return status;
}

void pool_destroy(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->thread_max + POOL_SPARES_MAX;
         i++) { /* One may have made a later one until now. */
        executor_join(&pool->executors[i]);
    }
    assert(pool->waiting == 0 && pool->running == 0 && pool->joined == 0);
    pthread_cond_destroy(&pool->parts);
    pthread_cond_destroy(&pool->device);
    pthread_mutex_destroy(&pool->lock);
    mem_free(pool->executors);
    mem_free(pool->devices);
    mem_free(pool);
}
