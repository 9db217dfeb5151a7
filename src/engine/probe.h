/*
 * probe.h — runs that a loader makes up: inputs by rule, one run, its outputs.
 *
 * For the proof that rows are independent and for warm-up.  Loader thread; calls the backend,
 * nothing else.
 */
#ifndef WEIR_ENGINE_PROBE_H
#define WEIR_ENGINE_PROBE_H

#include "backend/backend.h"
#include "engine/model.h"
#include "engine/sequence_plan.h"
#include "engine/step.h"
#include "tensor/block.h"
#include "tensor/tensor.h"
#include "util/err.h"

/* What all probes of one model have in common. */
struct probe {
    struct backend_context *context;
    const struct signature *signature;
    const struct sequence_plan *plan;  /* What the engine adds to the inputs; NULL: nothing. */
    const struct model_config *config; /* After effective_complete(). */
    struct block_pool *blocks;
    const struct clock *clock;
    struct step *step;     /* Each run is one; NULL: nobody watches. */
    struct model *learner; /* Its profile learns from the runs; NULL: none does. */
    bool keep;             /* Runs keep their scratch memory. */
    /* How the process of a run ended, the last one that did; NULL: nobody asks. */
    enum backend_death *death;
};

/* Whole numbers are small: FILL_LOW 0 and 1, FILL_HIGH 1 and 2; floats are in 0..1; strings are
 * such numbers as text. */
enum probe_fill { PROBE_ZERO, PROBE_LOW, PROBE_HIGH };

/* Sizes worth trying for dimensions that may have any, most likely first. */
#define PROBE_SIZES          \
    {                        \
        8, 32, 1, 64, 3, 224 \
    }
#define PROBE_SIZE_COUNT 6

/* Bytes one made-up tensor may have. */
#define PROBE_BYTES_MAX (UINT64_C(256) << 20)

/* One run's tensors: as many as the signature has. */
struct probe_run {
    struct tensor *inputs;
    struct tensor *outputs;
    bool *wanted;
};

/* WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status probe_run_init(const struct probe *probe, struct probe_run *run,
                                              struct weir_err *err);
void probe_run_finish(const struct probe *probe, struct probe_run *run); /* Zeroed is fine. */

/* The full shape of input `index` with `rows` rows, every other variable dimension being `size`. */
struct shape probe_shape(const struct probe *probe, uint32_t index, int64_t rows, int64_t size);

/* True when some input has a variable dimension besides that of the batch. */
bool probe_has_sizes(const struct probe *probe);

/* A tensor of made-up content; equal seeds make equal content.  WEIR_EINVAL: larger than
 * PROBE_BYTES_MAX; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status probe_tensor(const struct probe *probe, enum dtype dtype,
                                            const struct shape *shape, enum probe_fill fill,
                                            uint64_t seed, struct tensor *out,
                                            struct weir_err *err);

/* Fills in all inputs but optional ones, which stay absent. */
WEIR_MUST_USE enum weir_status probe_inputs(const struct probe *probe, struct probe_run *run,
                                            int64_t rows, int64_t size, enum probe_fill fill,
                                            uint64_t seed, struct weir_err *err);

/* Prepares, runs and finishes once; outputs are then present.  Parts of a stream are dropped. */
WEIR_MUST_USE enum weir_status probe_go(const struct probe *probe, struct probe_run *run,
                                        int64_t rows, struct weir_err *err);

#endif
