/*
 * demand.h — models that are loaded when somebody asks for them.
 *
 * A route whose row says so is not handled before its model is there.  However many ask, the model
 * is loaded once; each waits no longer than its own deadline.
 */
#ifndef WEIR_API_DEMAND_H
#define WEIR_API_DEMAND_H

#include "api/call.h"

/* Runs the route's handler: now, or when the model it names has been loaded, or could not be: the
 * handler then finds out why. */
void demand_handle(struct call *call);

#endif
