/*
 * fake_model.h — a model version that cannot run, for tests of what surrounds one.
 */
#ifndef WEIR_TESTS_FAKE_MODEL_H
#define WEIR_TESTS_FAKE_MODEL_H

#include "api/kserve.h"
#include "engine/model.h"

#define FAKE_TENSORS_MAX 16

struct fake_model {
    struct model model;
    struct model_config config;
    struct signature signature;
    struct tensor_spec inputs[FAKE_TENSORS_MAX];
    struct tensor_spec outputs[FAKE_TENSORS_MAX];
    bool unleased;
};

/* "model" version 3, without inputs or outputs; max_batch_size 0; one lease. */
void fake_model_init(struct fake_model *fake);
void fake_model_input(struct fake_model *fake, const char *name, enum dtype dtype,
                      struct shape shape);
void fake_model_output(struct fake_model *fake, const char *name, enum dtype dtype,
                       struct shape shape);

/* An open call on it, with an arena and a pool of its own. */
struct fake_call {
    struct infer_call infer;
    struct arena arena;
    struct block_pool *blocks;
};
void fake_call_open(struct fake_call *call, struct fake_model *fake);
void fake_call_close(struct fake_call *call); /* Gives the lease back. */

#endif
