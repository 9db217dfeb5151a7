/*
 * effective.h — a model's configuration: its defaults, and what the model itself completes.
 *
 * Pure but for allocations from the configuration's arena.  Loader thread.
 */
#ifndef WEIR_ENGINE_EFFECTIVE_H
#define WEIR_ENGINE_EFFECTIVE_H

#include "backend/backend.h"
#include "backend/reshape.h"
#include "engine/model.h"
#include "util/err.h"

#define EFFECTIVE_CONFIG_BYTES_MAX \
    (UINT64_C(64) << 20) /* Arena of one configuration, labels included. */

/* A configuration in which nothing is set; it lives in its own arena, `release` frees both.  NULL
 * when memory is out. */
WEIR_MUST_USE struct model_config *effective_create(void);

/* The inverse, also of a half-filled one; NULL is fine. */
void effective_release(struct model_config *config);

/* Fills in `backend` and `platform` from each other.  WEIR_EINVAL names the backends there are. */
WEIR_MUST_USE enum weir_status effective_backend(struct model_config *config,
                                                 const struct backend_ops **out,
                                                 struct weir_err *err);

/* Where the configuration gives tensors other shapes than the model has, *model becomes one around
 * it that has them (backend/reshape.h).  After the load, before all else that looks at its
 * signature.  WEIR_EINVAL: the shapes do not fit; WEIR_ENOMEM; *model is then as it was. */
WEIR_MUST_USE enum weir_status
effective_reshape(struct model_config *config, struct backend_model **model, struct weir_err *err);

/* The rules by which it does so, in the configuration's arena. */
WEIR_MUST_USE enum weir_status effective_rules(struct model_config *config,
                                               const struct signature *signature,
                                               struct reshape_rule **out, uint32_t *out_count,
                                               struct weir_err *err);

/*
 * Checks what the configuration says against the model's signature and infers the rest: afterwards
 * inputs and outputs are those of the signature, in its order, dims without the batch dimension
 * when max_batch_size is above 0.  `why_not` gets the reason (in the arena) when the model was
 * found to be no batching one and nobody had said so, else NULL.  WEIR_EINVAL: they contradict each
 * other, the sentence names both; WEIR_ENOMEM.
 */
WEIR_MUST_USE enum weir_status effective_complete(struct model_config *config,
                                                  const struct signature *signature,
                                                  const char **why_not, struct weir_err *err);

/* Adds a sentence to the configuration's remark.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status effective_remark(struct model_config *config, struct weir_err *err,
                                                const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
