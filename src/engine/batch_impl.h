/*
 * batch_impl.h — the steps of batch_run(), for those who repeat some of them (trial.c).
 *
 * Executor's thread.  `members` is a list of request.line of this instance's batch.
 */
#ifndef WEIR_ENGINE_BATCH_IMPL_H
#define WEIR_ENGINE_BATCH_IMPL_H

#include "engine/batch.h"

/* Runs the members together once.  instance->run.death says whether the child died with it. */
enum weir_status batch_attempt(struct instance *instance, const struct list *members,
                               struct weir_err *err);

/* What follows an attempt that nobody died of: the members end, or run again in halves. */
void batch_conclude(struct instance *instance, struct list *members, enum weir_status status,
                    const struct weir_err *err);

/* Runs the members to their ends, whatever happens. */
void batch_carry(struct instance *instance, struct list *members);

/* A member ends: it moves to batch.ended. */
void batch_end(struct batch *batch, struct request *request, enum weir_status status,
               const struct weir_err *err);

/* The same for all of `members`. */
void batch_end_all(struct batch *batch, struct list *members, enum weir_status status,
                   const struct weir_err *err);

#endif
