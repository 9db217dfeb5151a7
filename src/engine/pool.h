/*
 * pool.h — a device's queue, and the executors that pull from it.
 *
 * Late binding: requests wait in their model's line; an executor that becomes
 * free pulls the batch that is best at that moment.  No timer, no per-worker
 * queue, no polling.  One lock guards the lines of all models on the pool and
 * the states of its executors; it is held for a queue operation, never for work.
 *
 * Models with work to do stand in `ready` (may leave now) or in `delayed` (waits for company until
 * a configured time).  Those whose runs hold resources of the rate limiter stand in `limited`
 * instead of `ready`.
 *
 * A pull decides in this order: the class (order.h); in it the client with the least device time
 * for its weight; of that client's requests the earliest due leads, unless its model has had more
 * of the device than another one that the client waits for; then who rides with it (line.h).
 */
#ifndef WEIR_ENGINE_POOL_H
#define WEIR_ENGINE_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/balance.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/executor.h"
#include "engine/order.h"
#include "engine/request.h"
#include "util/heap.h"
#include "util/list.h"

#define POOL_SPARES_MAX 2 /* Executors that may hang before the device has fewer. */

/* One of those that share the pool's lines. */
struct pool_device {
    const char *name;
    uint32_t runs;    /* On it where it is pipelined, those handed over ahead included. */
    uint64_t left_ns; /* The latest end of one. */
    uint64_t busy_ns; /* That batches have had it, */
    uint64_t batches; /* and how many. */
};

struct pool {
    const char *name;
    struct engine *engine;
    uint32_t index;             /* In engine.pools. */
    uint32_t first_device;      /* In the order of all devices of the engine. */
    uint32_t device_count;      /* At least 1. */
    uint32_t executors_each;    /* Runs that each device carries at once. */
    uint32_t executor_count;    /* That all of them carry. */
    bool uniform;               /* Any executor can run any model. */
    uint64_t nodes;             /* Bit per memory node that executors keep to; 0: they do not. */
    uint32_t cpu_count;         /* That the process may run on. */
    uint32_t nice;              /* Of executors against the thread that starts them. */
    bool pipelined;             /* Host work of some runs passes while another is on the device. */
    struct executor *executors; /* thread_max, then POOL_SPARES_MAX spare ones. */
    uint32_t thread_max;        /* executor_count, times the deepest pipeline. */

    pthread_mutex_t lock; /* Guards the rest, and the "line" of every model on the pool. */
    struct pool_order order;
    struct list ready;   /* Of model.ready. */
    struct heap delayed; /* Of model.again, by the time to look again. */
    /* Of rate_claim.node: models that are ready if they get their resources. */
    struct list limited;
    uint64_t share;   /* Of the limited model that ran last. */
    struct list idle; /* Executors asleep, last one first. */
    uint32_t idle_count;
    uint64_t watch_ns;     /* Some sleeping executor wakes up by then; CLOCK_NEVER: none does. */
    struct list runs;      /* Of batch.run: those under way, by their expected ends. */
    uint64_t turns;        /* Runs begun and ended. */
    uint64_t run_ns;       /* That the last one took. */
    uint64_t waiting;      /* Requests in line. */
    uint64_t running;      /* Requests in batches. */
    uint64_t joined;       /* Requests that share another's run. */
    uint32_t thread_count; /* Executor threads: more than executor_count where it is pipelined. */
    uint32_t batches;      /* Under way. */
    uint32_t places_taken; /* Of executor_count, by the width of executors' runs. */
    struct list wide;      /* Of model.wide: who has reserved places, the most pressing first. */
    struct pool_device *devices;
    struct balance balance; /* Of their time. */
    pthread_cond_t device;  /* The runs of one shrank. */
    pthread_cond_t parts;   /* A part was read, or a request shall stop. */
    uint64_t arrived_ns;    /* The last request came, */
    uint64_t gap_ns;        /* on average so long after the one before. */
    bool spinning;          /* An executor that found nothing looks out for more. */
    _Atomic uint32_t calls; /* Tells it that there is. */
    struct list spares;     /* Of executor.idle: parked ones. */
    uint32_t spare_count;   /* Spare ones that were started. */
    struct list missing;    /* Of executor.idle: those that hang and that nobody replaces. */
    bool stopping;
};

const char *pool_name_of(const struct device_options *device);

/* How many devices the pool of the `first` one has.  WEIR_EINVAL: they could not stand in for each
 * other. */
WEIR_MUST_USE enum weir_status pool_count_devices(const struct engine_options *options,
                                                  uint32_t first, uint32_t *count,
                                                  struct weir_err *err);

/* Of the devices among the engine's that name the same pool as the `first` one: WEIR_EINVAL where
 * they differ. */
WEIR_MUST_USE enum weir_status pool_create(struct engine *engine,
                                           const struct engine_options *options, uint32_t first,
                                           struct pool **out, struct weir_err *err);
/* Starts the executor threads.  WEIR_ENOMEM: the system has no thread left. */
WEIR_MUST_USE enum weir_status pool_start(struct pool *pool, struct weir_err *err);
void pool_destroy(struct pool *pool); /* Stops and joins them. */

struct model_config;

/* The level that a request is served at: that of its priority where the model has it, else the
 * model's default, but no more urgent than it may have; 0 for all where there is one. */
uint32_t pool_level(const struct model_config *config, const struct request *request);

/* Puts a checked request in line.  Executors asleep are not woken: where they are to run it, the
 * home's turn ends with a pool_kick(), once for all that it brought.  WEIR_EFULL names the
 * limit. */
WEIR_MUST_USE enum weir_status pool_push(struct pool *pool, struct request *request,
                                         bool inline_run, struct weir_err *err);
void pool_kick(struct pool *pool);

/* Takes the best batch that may leave at `now_ns`, or returns NULL with *wake_ns the time to
 * look again (CLOCK_NEVER: only when something changes).  Requests found expired end on the way. */
struct instance *pool_pull(struct pool *pool, uint64_t now_ns, uint64_t *wake_ns);

/* The same for who sits there. */
struct instance *pool_pull_at(struct pool *pool, const struct seat *seat, uint64_t now_ns,
                              uint64_t *wake_ns);

/* What a device has been busy for against the others of late: balance.h.  Any thread. */
double pool_balance(struct pool *pool);

struct pool_device_look {
    uint64_t busy_ns;
    uint64_t batches;
};
struct pool_device_look pool_look(struct pool *pool, uint32_t device); /* Any thread. */

/* Where all places are taken, or will be in a moment: when the first of the runs is expected to end,
 * by the profile or the run before, and how long it will have taken. */
struct pool_taken {
    uint64_t until_ns; /* 0: a place is free. */
    uint64_t run_ns;
    bool pauses; /* As pool_pauses(). */
};
struct pool_taken pool_taken(struct pool *pool); /* Any thread. */

/* Executors and loops have one processor: an executor lets the loops go between two runs, and what they
 * read then rides in the next one.  Any thread. */
bool pool_pauses(const struct pool *pool);

/* The executors and so many other threads are more than the processors.  Any thread. */
bool pool_is_crowded(const struct pool *pool, uint64_t others);

/* Executor's thread: the next batch, however long it takes; NULL: the pool is stopping. */
struct instance *pool_next(struct pool *pool, struct executor *executor);

/* Like pool_pull(), of one model only: for inline runs. */
struct instance *pool_pull_model(struct pool *pool, struct model *model, uint64_t now_ns);

/* After batch_run(): counts, learns, gives the instance back and sends the members home. */
void pool_settle(struct pool *pool, struct instance *instance, uint64_t now_ns);

/* The watchdog's look at the runs under way; when the next one is due.  Their requests end, or are
 * told, and models whose runs do not end become unavailable. */
uint64_t pool_watch(struct pool *pool, uint64_t now_ns);

/* Wishes a request to stop, for `why` WEIR_ECANCELED, WEIR_ETIMEOUT (its deadline) or WEIR_EFULL
 * (the queue's time-out).  Waiting: it ends now.  Running: the run is terminated once none of
 * its members is wanted; a queue's time-out means nothing any more.  True when it was running
 * and wanted until now. */
bool pool_stop_request(struct pool *pool, struct request *request, enum weir_status why);

/* The home runs no more of the model's line inline: what is left is the executors'.  Gives back
 * the lease that the promise held. */
void pool_release_inline(struct pool *pool, struct model *model, uint64_t now_ns);

/* A model without requests leaves the heaps: idle sequences may have kept it there. */
void pool_forget(struct pool *pool, struct model *model);

/* Executor: sends a part home; takes the outputs' blocks.  Waits while too many are unread.
 * WEIR_ECANCELED, WEIR_ETIMEOUT: nobody wants it any more; WEIR_ENOMEM. */
enum weir_status pool_part(struct pool *pool, struct request *request, struct tensor *outputs,
                           uint32_t output_count);

#endif
