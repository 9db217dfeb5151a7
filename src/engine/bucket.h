/*
 * bucket.h — which requests may share a run: keys of their shapes, and lengths that are padded.
 *
 * Requests whose inputs have the same dimensions but for the first can be put one behind the other.
 * Where a model has shape buckets, the dimensions they name are padded to the next of their sizes
 * before a run, so that texts of 90 and of 120 tokens share one of 128; outputs that have a
 * dimension of the same symbolic name are cut back to the request's own length.  A dimension above
 * the largest size stays as it is.
 *
 * Plans are made on a loader thread and do not change; the rest is pure but for the memory of what
 * is cut.
 */
#ifndef WEIR_ENGINE_BUCKET_H
#define WEIR_ENGINE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "engine/model_config.h"
#include "engine/profile.h"
#include "tensor/tensor.h"
#include "util/err.h"

struct model;

/* Dimensions that are padded together: those of one symbolic name. */
struct bucket_group {
    const char *symbol;    /* NULL: only the one dimension that was named. */
    const uint32_t *sizes; /* Ascending. */
    uint32_t size_count;
};

/* Of one input or output. */
struct bucket_tensor {
    const char *name;
    bool any;                       /* Some dimension is in a group. */
    uint8_t group[TENSOR_RANK_MAX]; /* 1 + index of the dimension's group; 0: none. */
    uint8_t pad[8];                 /* One element of an input. */
};

struct bucket_plan {
    const struct signature *signature;
    struct bucket_group groups[MODEL_BUCKETS_MAX];
    uint32_t group_count;
    struct bucket_tensor *inputs;
    struct bucket_tensor *outputs;
};

/* Per group, what a request brings and what it is padded to; -1: none of its inputs is there. */
struct bucket_lengths {
    bool padded; /* They differ somewhere. */
    int64_t own[MODEL_BUCKETS_MAX];
    int64_t to[MODEL_BUCKETS_MAX];
};

/* From the completed configuration, which outlives it; NULL where that has no buckets.  `no_batch`:
 * why the model was found to have no batch dimension, or NULL.  WEIR_EINVAL: the buckets do not fit
 * the model; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status bucket_plan_create(const struct model_config *config,
                                                  const struct signature *signature,
                                                  const char *no_batch, struct bucket_plan **out,
                                                  struct weir_err *err);
void bucket_plan_destroy(struct bucket_plan *plan); /* NULL is fine. */

/* All dimensions of the inputs but the first are fixed, so that all requests have one key. */
bool bucket_rows_fixed(const struct signature *signature);

/* The leading dimension that all inputs share; 0 when they do not. */
uint64_t bucket_rows(const struct signature *signature, const struct tensor *inputs);

/* Inputs with equal keys can share a run.  The key means nothing in another process. */
uint64_t bucket_key(const struct model *model, const struct tensor *inputs);

/* The same shape for people and files, and back to a key.  False: they are not of this model. */
void bucket_describe(const struct model *model, const struct tensor *inputs,
                     struct profile_dims *out);
WEIR_MUST_USE bool bucket_key_of(const struct model *model, const struct profile_dims *dims,
                                 uint64_t *out);

/* False: `lengths` contradict each other, the inputs stay as they are. */
WEIR_MUST_USE bool bucket_lengths(const struct bucket_plan *plan, const struct tensor *inputs,
                                  struct bucket_lengths *out);

/* The tensor's shape with its groups' dimensions replaced. */
struct shape bucket_shape(const struct bucket_tensor *tensor, const struct shape *shape,
                          const int64_t *lengths);

/* The tensor is longer in a run than the request's own. */
bool bucket_cuts(const struct bucket_tensor *tensor, const struct bucket_lengths *lengths);

/* Writes the tensor, padded to `to`, which is nowhere smaller. */
void bucket_pad(const struct bucket_tensor *tensor, const struct tensor *from,
                const struct shape *to, uint8_t *out);

/* A copy of the tensor cut from the padded lengths to the request's own.  WEIR_EBACKEND: it has
 * other ones, the sentence says which; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status bucket_cut(const struct bucket_tensor *tensor,
                                          const struct bucket_lengths *lengths,
                                          const struct tensor *from, struct block_pool *blocks,
                                          struct tensor *out, struct weir_err *err);

#endif
