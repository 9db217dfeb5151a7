/*
 * process_inputs.h — memory that a model's inputs arrive in, and that its processes read.
 *
 * One memory file per isolated model.  The server alone can write to it: it is sealed against any
 * other writable mapping, so that what was checked stays as it was.  Requests are read from the
 * socket, and batches gathered, straight into it, and a run's inputs need not be copied once more.
 *
 * In front of each block lies a page of the server's own, for what a request says before its
 * tensors: the processes do not see it.
 */
#ifndef WEIR_BACKEND_PROCESS_INPUTS_H
#define WEIR_BACKEND_PROCESS_INPUTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/block.h"
#include "util/err.h"

struct process_inputs;

/* WEIR_ENOMEM, WEIR_EIO: the system has no such memory; inputs are copied then. */
WEIR_MUST_USE enum weir_status process_inputs_create(struct process_inputs **out,
                                                     struct weir_err *err);

/* No more are taken; what is out stays good until it is released.  NULL is fine. */
void process_inputs_close(struct process_inputs *inputs);

/* Any thread.  A held block of `size` bytes, page-aligned, with `front` bytes before its data
 * that are its holder's, too.  NULL: other memory is as good or there is no more.  `inputs` may
 * be NULL. */
WEIR_MUST_USE struct block *process_inputs_take(struct process_inputs *inputs, size_t front,
                                                size_t size);

/* Where in the file they are; false: elsewhere.  `inputs` may be NULL. */
WEIR_MUST_USE bool process_inputs_find(const struct process_inputs *inputs, const void *data,
                                       size_t size, uint64_t *offset);

int process_inputs_fd(const struct process_inputs *inputs);
size_t process_inputs_size(const struct process_inputs *inputs);    /* Of the file. */
uint64_t process_inputs_bytes(const struct process_inputs *inputs); /* In use, or kept. */

#endif
