/*
 * loader.h — work on one loaded model, or one to be loaded, that a loader thread does.
 *
 * A thread that is in a backend cannot be taken out of it.  So work of which a step takes longer
 * than its limit is *written off*, as a run is (pool_watch.c): nobody waits for it any more, and a
 * new thread goes on with the work behind it.  The old thread, and all that it reads and holds,
 * stays, its memory booked; the registry cannot be taken apart before it is back.
 *
 *   idle ──send──► out ──done──► idle
 *                   └──lost──► written off ──done──► idle
 *
 * Manager thread, but for run().
 */
#ifndef WEIR_ENGINE_LOADER_H
#define WEIR_ENGINE_LOADER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/step.h"
#include "engine/worker.h"
#include "util/err.h"
#include "util/list.h"

struct entry_host;
struct loader_job;
struct resident;

struct loader_ops {
    const char *what;                      /* "its load" */
    void (*run)(struct loader_job *self);  /* Loader thread. */
    void (*lost)(struct loader_job *self); /* It was written off, */
    void (*done)(struct loader_job *self); /* or has come back, be it late (self->lost). */
};

/* Zeroed but for the first five, which are set before loader_send(). */
struct loader_job {
    const struct loader_ops *ops;
    struct resident *resident;
    uint32_t loader;       /* Index of the one that does it. */
    uint64_t limit_ns;     /* Of each step; 0: none. */
    uint64_t run_limit_ns; /* Of one that is a run; 0: as of the others. */
    struct step step;      /* The one it is at. */
    struct worker_job job;
    struct list_node node; /* In host.out, while it is and somebody waits for it. */
    bool lost;
    pthread_t hung; /* The thread that is at it then. */
};

void loader_send(struct entry_host *host, struct loader_job *job);

/* The same where the model is loaded: `job`, which the resident has, is made work of this kind. */
void loader_send_loaded(struct resident *resident, struct loader_job *job,
                        const struct loader_ops *ops);

/* Once per turn: writes off what takes too long.  *next_ns is when to look again, at the latest. */
void loader_watch(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns);

/* Why it was written off, and what could be done about it; WEIR_EUNAVAILABLE. */
enum weir_status loader_explain(const struct loader_job *job, struct weir_err *err);

/* What may serve as lost() and begin done() where the model is loaded: the index says why, and that
 * it is over. */
void loader_tell_lost(struct loader_job *job);
void loader_tell_back(const struct loader_job *job);

#endif
