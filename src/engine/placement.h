/*
 * placement.h — which devices a model's configuration means.
 *
 * `device` names a device, or a pool and with it all of its devices; `devices` lists several of one
 * pool.  Triton's KIND_GPU means the pool "gpu" where there is one, and its `gpus` the devices
 * gpu0, gpu1 ... of it; where there is none, main processors stand in.  A model with sequences is
 * on the first device named only: their states are there.
 */
#ifndef WEIR_ENGINE_PLACEMENT_H
#define WEIR_ENGINE_PLACEMENT_H

#include "engine/replica.h"

struct engine;
struct model_config;

#define PLACEMENT_GPU_POOL "gpu"

struct placement {
    struct pool *pool;
    uint32_t devices[REPLICAS_MAX]; /* In pool.devices, each once. */
    uint32_t count;                 /* At least 1. */
    bool no_gpu;                    /* One was asked for, and there is none. */
};

/* WEIR_EINVAL: a device or a memory node is not there, they are of several pools, or there are more
 * than REPLICAS_MAX. */
WEIR_MUST_USE enum weir_status placement_find(const struct engine *engine,
                                              const struct model_config *config,
                                              struct placement *out, struct weir_err *err);

#endif
