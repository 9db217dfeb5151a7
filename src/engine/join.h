/*
 * join.h — equal requests in flight share one run.
 *
 * Of requests with equal keys (cache.h) the first is put in line and *leads*; those that come until
 * its run has ended are JOINED to it and get its answer, each a counted view.  Every one keeps
 * its own deadline and may be canceled by itself:
 *
 *   - a leader that goes while it waits leaves its class to its first follower, which stands in line
 *     then by its own deadline and arrival;
 *   - one that goes while it runs leaves the run to its followers, which is terminated when the
 *     last of them has gone, too;
 *   - a follower that goes ends at once.
 *
 * A leader that waits is as urgent as the most urgent of those joined to it.
 *
 * A run that fails fails for all: they asked for the same.  All calls with the pool's lock held.
 */
#ifndef WEIR_ENGINE_JOIN_H
#define WEIR_ENGINE_JOIN_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/pool.h"

/* True: somebody leads already, and the request is JOINED.  False: put it in line, then
 * join_lead(). */
WEIR_MUST_USE bool join_attach(struct pool *pool, struct request *request);

/* A request that was put in line may be joined from now on. */
void join_lead(struct request *request);

/* A leader goes that waits.  Its first follower stands in line afterwards; those that are late
 * themselves are appended to `ended`. */
void join_hand_over(struct pool *pool, struct request *leader, uint64_t now_ns, struct list *ended);

/* A leader's run has ended, its status and outputs are the run's: followers are appended to
 * `ended`, not counted in the model's statistics yet. */
void join_answer(struct pool *pool, struct request *leader, uint64_t now_ns, struct list *ended);

/* A running leader goes.  True: somebody wants its answer still. */
WEIR_MUST_USE bool join_goes_on(struct request *leader);

/* A JOINED request goes, for `why` as pool_stop_request() has it.  True: it stays, since a queue's
 * time-out means nothing when the run has begun. */
bool join_stop(struct pool *pool, struct request *request, enum weir_status why, uint64_t now_ns,
               struct list *ended);

#endif
