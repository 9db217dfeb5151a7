/*
 * demand.h — models that are loaded when somebody asks for them.
 *
 * A route whose row says so is not handled before its model is there.  However many ask, the model
 * is loaded once; each waits no longer than its own deadline.
 */
#ifndef WEIR_API_DEMAND_H
#define WEIR_API_DEMAND_H

#include "api/call.h"

/* An inference that carries an id and whose model is being loaded, for those who cancel it by that.
 * Its owner takes it out of the list when it goes on. */
struct demand_wait {
    struct list_node node; /* In the loop's list. */
    struct bytes id;
    struct bytes model;
    uint64_t version;                         /* 0: the latest. */
    uint64_t client;                          /* struct client's digest. */
    void (*cancel)(struct demand_wait *self); /* It is in no list then. */
};

#define DEMAND_CANCELED "canceled while the model was being loaded"
#define DEMAND_LATE "the deadline passed while the model was being loaded"

/* Runs the route's handler: now, or when the model it names has been loaded, or could not be: the
 * handler then finds out why. */
void demand_handle(struct call *call);

#endif
