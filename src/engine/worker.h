/*
 * worker.h — a thread that runs the jobs sent to it, one after the other.
 *
 * The registry's manager and loaders are workers.  A job is embedded in what it is about; it goes
 * from worker to worker by setting `run` anew and sending it on.
 */
#ifndef WEIR_ENGINE_WORKER_H
#define WEIR_ENGINE_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"
#include "util/mailbox.h"

struct worker_job {
    struct mail mail;
    void (*run)(struct worker_job *self); /* On the worker's thread; may free the job. */
};

/* Called after each round of jobs and when *next_ns is reached, which it sets to the monotonic time
 * at which it is due at the latest (CLOCK_NEVER at entry).  False: a stop must wait. */
typedef bool worker_turn_fn(void *context, uint64_t *next_ns);

struct worker {
    pthread_t thread;
    struct mailbox mailbox; /* Of struct worker_job. */
    worker_turn_fn *turn;   /* May be NULL. */
    void *context;
    const char *name;
    pthread_mutex_t lock; /* Guards the rest, and `thread`. */
    pthread_cond_t wake;
    struct mail *round;               /* Jobs received and not begun. */
    const struct worker_job *running; /* NULL: none. */
    bool woken;
    bool stopping;
};

/* `name` (at most 15 bytes, borrowed) is what the system's tools show.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status worker_start(struct worker *worker, const char *name,
                                            worker_turn_fn *turn, void *context,
                                            struct weir_err *err);

/* Any thread. */
void worker_send(struct worker *worker, struct worker_job *job);

/* Another thread: `job` does not return.  A new thread goes on with the jobs behind it, and the old
 * one ends when it does return: only then *hung is to be joined.  False: another job runs, or the
 * system has no thread left. */
WEIR_MUST_USE bool worker_replace(struct worker *worker, const struct worker_job *job,
                                  pthread_t *hung);

/* Waits until all jobs are run and `turn` agrees, then joins the thread. */
void worker_stop(struct worker *worker);

/* After worker_stop() and after the last sender has returned from worker_send(), which may be later
 * than its job ran: workers that send each other jobs are all stopped before one is finished. */
void worker_finish(struct worker *worker);

#endif
