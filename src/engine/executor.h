/*
 * executor.h — a thread that pulls batches from its pool and runs them.
 *
 * `wake` and `idle` are guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_EXECUTOR_H
#define WEIR_ENGINE_EXECUTOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/replica.h"
#include "util/err.h"
#include "util/list.h"

struct pool;

struct executor {
    struct pool *pool;
    struct seat seat; /* Of one that replaces another: that one's. */
    pthread_t thread;
    bool started;
    pthread_cond_t wake;
    struct list_node idle; /* In pool.idle (asleep), pool.spares (parked) or pool.missing. */
    bool parked;           /* Another one has its place: it waits until it is needed. */
    const struct numa_seat *pinned; /* NULL: to nothing. */
    uint64_t free_ns; /* When its last run ended, if it was a simulated one; its own. */
};

/* WEIR_ENOMEM: the system has no thread left. */
WEIR_MUST_USE enum weir_status executor_start(struct executor *executor, struct weir_err *err);

/* Its own thread: takes the name of its seat's device, and keeps to its processors. */
void executor_settle_in(const struct executor *executor);

/* The pool is stopping: wakes the thread and waits for its end; nothing when it was never
 * started. */
void executor_join(struct executor *executor);

#endif
