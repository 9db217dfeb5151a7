/*
 * run.h — a request to any model, ensembles included.
 *
 * To whoever submits there is no difference: the promises are those of engine_submit() and
 * engine_cancel() (engine.h), for every model.  An ensemble's request becomes a *run*: each step is
 * an ordinary request to its model, submitted as soon as its inputs are there, with the client's
 * priority, sequence and deadline.  Steps that do not lead to an output that is asked for are left
 * out.  Tensors go from step to step without being copied and are let go when the last step that
 * takes them has ended.  The first step that fails decides the status of the whole, its sentence
 * begins with the step's name, and what runs beside it is canceled.
 *
 * Home thread: a run and all that is in it belongs to the request's home.
 */
#ifndef WEIR_PIPELINE_RUN_H
#define WEIR_PIPELINE_RUN_H

#include "engine/engine.h"

/* As engine_submit().  WEIR_EFULL also where an ensemble has limits->ensemble_runs_max requests
 * under way. */
WEIR_MUST_USE enum weir_status pipeline_submit(struct engine *engine, struct request *request,
                                               struct weir_err *err);

/* As engine_cancel(). */
void pipeline_cancel(struct engine *engine, struct request *request);

#endif
