/*
 * process_check.h — is what a model's process says of an output true, as far as the server can
 * tell?
 */
#ifndef WEIR_BACKEND_PROCESS_CHECK_H
#define WEIR_BACKEND_PROCESS_CHECK_H

#include "backend/process_shared.h"

/*
 * A tensor as the process described it, in an area of `size` bytes at `data`: type, rank,
 * dimensions, length and place are those that `spec` and the area allow, else WEIR_EBACKEND and a
 * sentence that names the output.  `said` is a private copy.  *out borrows the area; the elements
 * of BYTES are not checked yet.
 */
WEIR_MUST_USE enum weir_status process_check(const struct tensor_spec *spec,
                                             const struct process_tensor *said, uint8_t *data,
                                             size_t size, struct tensor *out, struct weir_err *err);

/* The statuses that a process may give; WEIR_EBACKEND for all others. */
enum weir_status process_check_status(uint32_t said);

#endif
