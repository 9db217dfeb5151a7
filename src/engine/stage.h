/*
 * stage.h — a run in three stages: prepare, the device, finish.
 *
 * On a pipelined device the host's stages of some runs pass while another run holds the device, so
 * that it never waits for the host.  How many runs must be under way for that follows from what
 * the stages take: with h on the host and d on the device,
 *
 *     depth = ceil((h + d) / d)
 *
 * runs keep the device busy.  Both are measured, and the depth follows them; a deeper pipeline gets
 * further instances of the model and further executors as it needs them.
 *
 * Where the device is the CPU itself there is nothing to overlap: the depth is 1.
 */
#ifndef WEIR_ENGINE_STAGE_H
#define WEIR_ENGINE_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

struct instance;
struct model;
struct pool;

#define STAGE_DEPTH_MAX 4   /* Runs under way per run on the device. */
#define STAGE_DEPTH_FIRST 2 /* Before anything is known. */

/* What the stages of a model's runs take, averaged.  Guarded by the pool's lock. */
struct stage_times {
    double host_ns;
    double device_ns;
    uint64_t runs;
    uint32_t depth; /* 1..STAGE_DEPTH_MAX */
};

void stage_init(struct stage_times *times, bool pipelined);

/* Pure: a run's stages took so long.  True: the depth is another. */
bool stage_learn(struct stage_times *times, uint64_t host_ns, uint64_t device_ns);

/* Executor: runs what the instance has gathered; waits for its turn on the device.  Status as of
 * the backend's steps.  Leaves the stages' times in the batch. */
WEIR_MUST_USE enum weir_status stage_run(struct instance *instance, struct weir_err *err);

/* Executor, without the lock, with a lease on the model: makes an instance and an executor more
 * where the depth asks for them.  What cannot be had is done without. */
void stage_widen(struct pool *pool, struct model *model);

#endif
