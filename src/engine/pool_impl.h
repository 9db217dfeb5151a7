/*
 * pool_impl.h — what the pool's own files share.  With the pool's lock held unless said otherwise.
 */
#ifndef WEIR_ENGINE_POOL_IMPL_H
#define WEIR_ENGINE_POOL_IMPL_H

#include "engine/pool.h"

/* Restores the pool's first invariant for one model, after anything about its line has changed. */
void pool_place(struct pool *pool, struct model *model, uint64_t now_ns);

/* Puts a request in its model's line: behind those that are as urgent (priority: the level that
 * it is served at, 1 first; 0 for all where the model has none). */
void pool_line_up(struct model *model, struct request *request);

/* Takes an executor off the idle list for the work there is, or NULL; signal its `wake` without
 * the lock. */
struct executor *pool_executor_for_work(struct pool *pool);

/* A request in line goes, and with it what cannot run without it: they are appended to `ended`. */
void pool_end_waiting(struct pool *pool, struct request *request, enum weir_status status,
                      uint64_t now_ns, struct list *ended);

/* Ends what has waited too long in the model's line. */
void pool_expire(struct pool *pool, struct model *model, uint64_t now_ns, struct list *ended);

/* Why a request that has not run is stopped, for a person. */
const char *pool_stop_text(enum weir_status why);

/* Nobody waits for this running request any more; its run is terminated when that is true of
 * all. */
void pool_unwant(struct request *request);

/* Without the lock: moves finished requests to their homes. */
void pool_send_home(struct list *ended);

#endif
