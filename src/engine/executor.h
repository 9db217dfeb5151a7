/*
 * executor.h — a thread that pulls batches from its pool and runs them.
 *
 * `wake` and `idle` are guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_EXECUTOR_H
#define WEIR_ENGINE_EXECUTOR_H

#include <pthread.h>

#include "util/list.h"

struct pool;

struct executor {
    struct pool *pool;
    pthread_t thread;
    pthread_cond_t wake;
    struct list_node idle; /* In pool.idle while it sleeps. */
    int cpu;               /* Pinned to it; -1: not. */
};

void executor_start(struct executor *executor);

/* The pool is stopping: wakes the thread and waits for its end. */
void executor_join(struct executor *executor);

#endif
