/*
 * values.h — tensors as JSON numbers, booleans and strings, both ways.
 *
 * Any thread; nothing is kept.  `name` is the tensor's, for sentences.
 */
#ifndef WEIR_API_VALUES_H
#define WEIR_API_VALUES_H

#include <stdint.h>

#include "api/kserve.h"
#include "util/json.h"

/* Reads `data`, an array (nested at will, only the number of its values counts) or one value,
 * into an input whose type and shape are set.  WEIR_EINVAL: another number of values than the
 * shape's, a value of another kind or out of the type's range, FP16 or BF16; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status values_read(struct infer_call *call, yyjson_val *data,
                                           const char *name, struct tensor *tensor,
                                           struct weir_err *err);

/* How many values, at any depth, there are in `data`. */
uint64_t values_count(yyjson_val *data);

/* A flat array in brackets; not for FP16 and BF16.  BYTES tensors must have been checked. */
void values_write(struct buffer *out, const struct tensor *tensor);

/* The same without brackets when there is exactly one value. */
void values_write_bare(struct buffer *out, const struct tensor *tensor);

#endif
