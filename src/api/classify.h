/*
 * classify.h — the classification extension: the best k of a tensor, by name.
 *
 * Any one thread.
 */
#ifndef WEIR_API_CLASSIFY_H
#define WEIR_API_CLASSIFY_H

#include "api/kserve.h"

/* Replaces the tensor of an output that asked for classes by one of strings
 * "value:index[:label]", best first, of shape [min(k, n)], or [batch, min(k, n)] where the model
 * batches.  WEIR_EINVAL: more than 1,000,000 elements per row; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status
classify_output(struct infer_call *call, const struct infer_output *output, struct weir_err *err);

#endif
