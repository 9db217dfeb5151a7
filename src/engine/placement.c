#include "engine/placement.h"

#include <stdio.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/pool.h"

#define NAME_BYTES 32

static enum weir_status complain_missing(const struct engine *engine, const char *name,
                                         struct weir_err *err)
{
    return err_set(err, WEIR_EINVAL,
                   "device '%s' is not configured, the first one is '%s'; `devices` of the server "
                   "declares further ones",
                   name, engine->pools[0]->name);
}

static enum weir_status add_device(struct placement *place, struct pool *pool, uint32_t device,
                                   struct weir_err *err)
{
    if (place->pool != NULL && place->pool != pool) {
        return err_set(err, WEIR_EINVAL,
                       "devices: found '%s' beside '%s', expected devices of one pool",
                       pool->devices[device].name, place->pool->devices[place->devices[0]].name);
    }
    for (uint32_t i = 0; i < place->count; i++) {
        if (place->devices[i] == device) {
            return WEIR_OK;
        }
    }
    if (place->count == REPLICAS_MAX) {
        return err_set(err, WEIR_EINVAL, "devices: found more than %d, expected no more of a model",
                       REPLICAS_MAX);
    }
    place->pool = pool;
    place->devices[place->count++] = device;
    return WEIR_OK;
}

static enum weir_status add_pool(struct placement *place, struct pool *pool, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < pool->device_count && status == WEIR_OK; i++) {
        status = add_device(place, pool, i, err);
    }
    return status;
}

/* A device's name goes before that of a pool. */
static enum weir_status add_named(const struct engine *engine, const char *name,
                                  struct placement *place, struct weir_err *err)
{
    for (uint32_t p = 0; p < engine->pool_count; p++) {
        struct pool *pool = engine->pools[p];
        for (uint32_t i = 0; i < pool->device_count; i++) {
            if (strcmp(pool->devices[i].name, name) == 0) {
                return add_device(place, pool, i, err);
            }
        }
    }
    struct pool *pool = engine_pool(engine, name);
    return pool != NULL ? add_pool(place, pool, err) : complain_missing(engine, name, err);
}

static enum weir_status add_gpus(const struct engine *engine, const struct model_config *config,
                                 struct placement *place, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    if (config->gpus == 0) {
        return add_named(engine, PLACEMENT_GPU_POOL, place, err);
    }
    for (uint64_t left = config->gpus; left != 0 && status == WEIR_OK; left &= left - 1) {
        char name[NAME_BYTES];
        (void)snprintf(name, sizeof(name), PLACEMENT_GPU_POOL "%d", __builtin_ctzll(left));
        status = add_named(engine, name, place, err);
    }
    return status;
}

enum weir_status placement_find(const struct engine *engine, const struct model_config *config,
                                struct placement *out, struct weir_err *err)
{
    struct placement place = { 0 };
    enum weir_status status = WEIR_OK;
    const bool free_to_choose = config->device_count == 0 && strcmp(config->device, "cpu") == 0;
    const bool gpu = config->on_gpu && free_to_choose;
    if (gpu && engine_pool(engine, PLACEMENT_GPU_POOL) != NULL) {
        status = add_gpus(engine, config, &place, err);
    } else if (config->device_count == 0) {
        status = add_named(engine, config->device, &place, err);
        place.no_gpu = gpu;
    }
    for (uint32_t i = 0; i < config->device_count && status == WEIR_OK; i++) {
        status = add_named(engine, config->devices[i], &place, err);
    }
    if (status == WEIR_OK && config->numa_nodes != 0 && place.pool->nodes != 0 &&
        (config->numa_nodes & place.pool->nodes) == 0) {
        status = err_set(err, WEIR_EINVAL,
                         "numa_node: found %d, expected a node that executors of '%s' keep to",
                         __builtin_ctzll(config->numa_nodes), place.pool->name);
    }
    if (status == WEIR_OK) {
        place.count = config->sequence.strategy == SEQUENCE_NONE ? place.count : 1;
        *out = place;
    }
    return status;
}
