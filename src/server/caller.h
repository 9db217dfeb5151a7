/*
 * caller.h — a home for a thread that waits: it sleeps until there is mail or a deadline.
 *
 * The library uses one per call under way.  One thread at a time owns a caller; only its wake-up
 * comes from others.  An executor may still be about to wake it when its last answer has been read,
 * so the memory stays until the engine is gone: caller_finish(), engine_destroy(),
 * caller_destroy().
 */
#ifndef WEIR_SERVER_CALLER_H
#define WEIR_SERVER_CALLER_H

#include <pthread.h>
#include <stdbool.h>

#include "engine/home.h"
#include "engine/registry.h"

struct caller {
    struct caller *next; /* The owner's, for a list of those not in use. */
    struct home home;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool mail; /* Guarded by lock. */
};

WEIR_MUST_USE struct caller *caller_create(struct engine *engine); /* NULL: memory is out. */
void caller_finish(struct caller *caller);  /* Nothing is pending: leaves the engine. */
void caller_destroy(struct caller *caller); /* After engine_destroy(). */

/* Sleeps until there is mail or the next deadline is reached, then takes the home's turn. */
void caller_wait(struct caller *caller);

/* Gives an order to the registry (`model` is NULL for REGISTRY_REFRESH) and waits until it is
 * carried out; returns its outcome. */
WEIR_MUST_USE enum weir_status caller_order(struct caller *caller, struct registry *registry,
                                            enum registry_order_kind kind, const char *model,
                                            struct weir_err *err);

/* True when the registry has looked at its folders and no model is on its way. */
bool caller_models_settled(const struct catalogue *catalogue);

#endif
