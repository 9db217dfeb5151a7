/*
 * npy.h — NumPy's .npy files as tensors' bytes, and back.
 *
 * Only what means the same in both worlds: booleans, integers and floats of fixed size,
 * little-endian, in row order.  Files of strings or Python objects are refused.  Any thread.
 */
#ifndef WEIR_CMD_NPY_H
#define WEIR_CMD_NPY_H

#include "util/bytes.h"
#include "util/err.h"
#include "weir/weir.h"

/* Formats 1.0 and 2.0.  The tensor has no name; its data lies inside `file`, aligned to nothing.
 * WEIR_EINVAL says what was found and what was expected. */
WEIR_MUST_USE enum weir_status npy_parse(struct bytes file, struct weir_tensor *out,
                                         struct weir_err *err);

/* Appends a file of format 1.0 to `out`.  NumPy has no BF16: it is written as float32, which holds
 * the same values.  WEIR_EINVAL when the tensor's size is not what its type and shape need,
 * WEIR_EUNSUPPORTED for BYTES; WEIR_ETOOBIG or WEIR_ENOMEM when `out` has no room. */
WEIR_MUST_USE enum weir_status npy_write(struct buffer *out, const struct weir_tensor *tensor,
                                         struct weir_err *err);

#endif
