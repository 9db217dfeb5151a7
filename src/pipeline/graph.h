/*
 * graph.h — an ensemble, checked and laid out for running.
 *
 * Its *steps* are models; its *tensors* are what flows between them, each given
 * by one step or by the ensemble's client.  A graph is made at load out of the
 * configuration and the models that its steps name; afterwards it does not change.  What the
 * configuration leaves open is inferred: inputs are the tensors that no step gives, outputs
 * those that no step takes, types and shapes are the steps'.
 */
#ifndef WEIR_PIPELINE_GRAPH_H
#define WEIR_PIPELINE_GRAPH_H

#include "engine/model.h"
#include "util/arena.h"
#include "util/err.h"

#define GRAPH_STEPS_MAX 256
#define GRAPH_TENSORS_MAX 4096
#define GRAPH_DEPTH_MAX 8 /* Ensembles within ensembles. */

#define GRAPH_CLIENT UINT32_MAX /* As the giver of a tensor. */

/* A tensor at a step: which one, and which input or output of the model's signature. */
struct graph_link {
    uint32_t tensor;
    uint32_t port;
};

struct graph_step {
    struct model *model; /* The ensemble's lease. */
    uint32_t number;     /* As in the configuration, from 1: for sentences. */
    struct graph_link *inputs;
    uint32_t input_count;
    struct graph_link *outputs;
    uint32_t output_count;
};

struct graph_tensor {
    const char *name;
    uint32_t step;  /* Index of the step that gives it, or GRAPH_CLIENT. */
    uint32_t port;  /* Of that step's outputs, or of the ensemble's inputs. */
    uint32_t takes; /* Links that take it. */
};

struct graph {
    struct signature signature; /* The ensemble's. */
    struct graph_step *steps;   /* Each after those whose outputs it takes. */
    uint32_t step_count;
    struct graph_tensor *tensors;
    uint32_t tensor_count;
    uint32_t *inputs;  /* Tensor of each input of the signature. */
    uint32_t *outputs; /* Tensor of each output. */
    uint32_t depth;    /* 1, or 1 more than its deepest step's. */
    struct arena arena;
};

/* A registry_compose_fn.  WEIR_EINVAL: the sentence names the step, the tensor and what does not
 * fit. */
WEIR_MUST_USE enum weir_status graph_compose(struct model *model, struct weir_err *err);

#endif
