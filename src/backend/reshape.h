/*
 * reshape.h — a loaded model whose tensors are shown in other shapes than it has them.
 *
 * To everyone above it is one more model: its signature has the shapes that clients see.  Bytes are
 * never touched, since tensors are rows in order whatever their shape.  Promises as in backend.h.
 */
#ifndef WEIR_BACKEND_RESHAPE_H
#define WEIR_BACKEND_RESHAPE_H

#include "backend/backend.h"

/* One tensor: where its shape is `model`, clients see `shown`; both without the batch dimension.
 * Each -1 of one is the -1 of the same place in the other's order. */
struct reshape_rule {
    bool output; /* Of the outputs, else of the inputs. */
    uint32_t index;
    bool batched; /* A batch dimension stands before both. */
    struct shape shown;
    struct shape model;
};

/* "the same number of elements": equal products between equally many -1s. */
bool reshape_fits(const struct shape *shown, const struct shape *model);

/* What clients see of the tensor that the model's file says is `spec`. */
void reshape_show(const struct reshape_rule *rule, struct tensor_spec *spec);

/* Takes `inner` on WEIR_OK.  `rules` fit the signature and are copied.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status reshape_wrap(struct backend_model *inner,
                                            const struct reshape_rule *rules, uint32_t count,
                                            struct backend_model **out, struct weir_err *err);

#endif
