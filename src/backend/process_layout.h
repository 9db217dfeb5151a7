/*
 * process_layout.h — how the tensors of a run lie in shared memory: one behind the other, each
 * aligned.
 *
 * The server writes inputs so, a process outputs.  Those in `lent`, memory that both sides have
 * mapped anyway, stay where they are; NULL: there is none.
 */
#ifndef WEIR_BACKEND_PROCESS_LAYOUT_H
#define WEIR_BACKEND_PROCESS_LAYOUT_H

#include "backend/process_inputs.h"
#include "backend/process_shared.h"

/* Bytes that process_layout_write() needs.  False: more than can be said. */
WEIR_MUST_USE bool process_layout_measure(const struct tensor *tensors, uint32_t count,
                                          const struct process_inputs *lent, uint64_t *out);

/* Copies them to `area` and says where they are. */
void process_layout_write(const struct tensor *tensors, uint32_t count,
                          const struct process_inputs *lent, uint8_t *area,
                          struct process_tensor *said);

#endif
