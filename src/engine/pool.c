/*
 * The pool itself, from the first executor to the last.
 */
#include "engine/pool.h"

#include <assert.h>

#include "engine/executor.h"
#include "engine/pool_impl.h"
#include "util/mem.h"

enum weir_status pool_create(struct engine *engine, const struct device_options *options,
                             uint32_t index, struct pool **out, struct weir_err *err)
{
    if (options->executors < 1) {
        return err_set(err, WEIR_EINVAL, "device '%s': executors is 0, expected at least 1",
                       options->name);
    }
    struct pool *pool = mem_alloc(sizeof(*pool));
    pool->name = options->name;
    pool->engine = engine;
    pool->index = index;
    pool->executor_count = options->executors;
    pool->pipelined = options->pipelined;
    pool_wake_init(pool);
    pool->thread_count = options->executors * (options->pipelined ? STAGE_DEPTH_FIRST : 1);
    pool->thread_max = options->executors * (options->pipelined ? STAGE_DEPTH_MAX : 1);
    const uint32_t all = pool->thread_max + POOL_SPARES_MAX;
    pool->executors = mem_alloc(all * sizeof(*pool->executors));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->device, NULL);
    pthread_cond_init(&pool->parts, NULL);
    order_init(&pool->order, &engine->order);
    list_init(&pool->ready);
    list_init(&pool->limited);
    list_init(&pool->wide);
    list_init(&pool->runs);
    list_init(&pool->spares);
    for (uint32_t i = 0; i < all; i++) {
        const bool pinned = options->first_cpu >= 0 && i < pool->thread_max;
        pool->executors[i].pool = pool;
        pool->executors[i].cpu = pinned ? options->first_cpu + (int)i : -1;
    }
    *out = pool;
    return WEIR_OK;
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
    mem_free(pool);
}
