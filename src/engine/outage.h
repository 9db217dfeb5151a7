/*
 * outage.h — why a loaded model cannot be asked now.
 */
#ifndef WEIR_ENGINE_OUTAGE_H
#define WEIR_ENGINE_OUTAGE_H

#include "engine/catalogue.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "util/err.h"

/* Any thread that holds a lease.  WEIR_OK, or WEIR_EUNAVAILABLE with the reason and, where there is
 * one, the advice.  One atomic load while nothing is wrong. */
WEIR_MUST_USE enum weir_status outage_check(struct model *model, struct weir_err *err);

/* The same with the pool's lock held. */
WEIR_MUST_USE enum weir_status outage_check_locked(const struct model *model, struct weir_err *err);

/* The same, and its last run was no canary that failed (canary.h): what "ready" says.  Requests are
 * taken by outage_check() alone. */
WEIR_MUST_USE enum weir_status outage_check_ready(struct model *model, struct weir_err *err);

/* The catalogue is ready, every required model's process has answered since it last failed for
 * good, as has the model its last canary, and every device has executors left. */
bool outage_is_ready(const struct engine *engine, const struct catalogue *catalogue);

/* Pool's lock held: after a change of what makes an outage. */
void outage_note(struct model *model);

#endif
