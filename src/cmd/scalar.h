/*
 * scalar.h — one element of a tensor as a number, both ways.
 *
 * Not for BYTES.  Elements need not be aligned.  Any thread.
 */
#ifndef WEIR_CMD_SCALAR_H
#define WEIR_CMD_SCALAR_H

#include <stdbool.h>
#include <stddef.h>

#include "tensor/tensor.h"
#include "util/bytes.h"

bool scalar_is_float(enum dtype dtype); /* FP16, FP32, FP64, BF16 */

/* The element as a number; 64-bit integers beyond 2^53 are rounded. */
double scalar_get(enum dtype dtype, const void *data, size_t index);

/* Rounds to what the type holds; integers and BOOL are cut to their range. */
void scalar_set(enum dtype dtype, void *data, size_t index, double value);

/* For whole numbers: exact.  False when the type cannot hold the value. */
WEIR_MUST_USE bool scalar_set_unsigned(enum dtype dtype, void *data, size_t index, uint64_t value);
WEIR_MUST_USE bool scalar_set_signed(enum dtype dtype, void *data, size_t index, int64_t value);

/* Appends the element as JSON would have it: exact, shortest. */
void scalar_write(struct buffer *out, enum dtype dtype, const void *data, size_t index);

#endif
