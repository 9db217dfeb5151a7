/*
 * process_channel.h — the server's side of a channel: one context in one process.
 */
#ifndef WEIR_BACKEND_PROCESS_CHANNEL_H
#define WEIR_BACKEND_PROCESS_CHANNEL_H

#include "backend/process_slot.h"

struct channel;

/* Opens a context of the loaded model; takes the hold on `process` in any case.  As
 * backend_context_create(), WEIR_EBACKEND when the process dies. */
WEIR_MUST_USE enum weir_status channel_create(struct process *process,
                                              const struct process_load *load,
                                              const struct signature *signature,
                                              struct channel **out, struct weir_err *err);
void channel_destroy(struct channel *channel); /* NULL is fine. */

bool channel_is_dead(const struct channel *channel);

/* The next run: its inputs are copied.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status channel_begin(struct channel *channel, const struct backend_run *run,
                                             struct weir_err *err);

/* One step of it, as backend.h has them; the last one brings the outputs. */
WEIR_MUST_USE enum weir_status channel_step(struct channel *channel, struct backend_run *run,
                                            enum process_step step, struct weir_err *err);

/* Any thread while the channel lives: stops the run that was begun last. */
void channel_terminate(struct channel *channel);

#endif
