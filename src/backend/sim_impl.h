/*
 * sim_impl.h — a simulated model, to the files of its backend.
 */
#ifndef WEIR_BACKEND_SIM_IMPL_H
#define WEIR_BACKEND_SIM_IMPL_H

#include "backend/backend_impl.h"
#include "backend/sim.h"
#include "util/arena.h"

struct sim_device;

struct sim_model {
    struct backend_model base;
    struct arena arena;
    struct sim_settings settings;
    struct sim_device *device;
    double slowness; /* Of the device, by `slower`. */
    const struct clock *clock;
    struct block_pool *blocks;
    bool booked; /* memory_per_model is on the device. */
    uint64_t promote_runs;
    _Atomic bool packed; /* What was mapped. */
    _Atomic uint64_t runs;
};

/* Lets so much time pass on the model's clock. */
void sim_pass(const struct sim_model *model, uint64_t ns);

/* How the run ends that is the model's `index`-th, by the faults that its settings plan.  May not
 * come back (`crash_at`, `crash_on`), or late (`stuck_on`). */
WEIR_MUST_USE enum weir_status sim_fault(const struct sim_model *model, struct backend_run *run,
                                         uint64_t index, struct weir_err *err);

#endif
