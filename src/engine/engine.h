/*
 * engine.h — the engine's front door.
 *
 *     struct request *r = ...;            in the caller's memory
 *     request_init(r);
 *     r->home = home; r->model = lease; r->inputs = ...; r->ended = on_end;
 *     status = engine_submit(engine, r, &err);   WEIR_OK: on_end(r) will run at home, once
 *
 * Threads: one executor thread per core given to inference (the pool "cpu"), one per configured
 * simulated device slot.  See pool.h for how executors pull.
 */
#ifndef WEIR_ENGINE_ENGINE_H
#define WEIR_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/home.h"
#include "engine/model.h"
#include "engine/order.h"
#include "engine/request.h"
#include "engine/watchdog.h"
#include "util/clock.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/numa.h"

struct cache;
struct pool;
struct quarantine;
struct rate_limiter;

#define ENGINE_POOLS_MAX 64 /* And devices. */

/* A device that models can be placed on. */
struct device_options {
    const char *name;   /* "cpu" must be first. */
    const char *pool;   /* Devices that name the same one stand in for each other; NULL: its own. */
    uint32_t executors; /* Runs at once; at least 1. */
    uint32_t nice; /* Added to its executors' niceness: runs that compute, not those that wait. */
    /* Host parts of one run overlap the device part of another: for devices that are not the CPU
     * itself. */
    bool pipelined;
    const struct numa_seat *seats; /* Where executors run: i on seat i % seat_count. */
    uint32_t seat_count;           /* 0: anywhere. */
};

/* Executor's or manager's thread, or that of the canaries' home: what a person should know about a model that
 * serves. */
typedef void engine_advise_fn(void *context, const struct model *model, enum log_level level,
                              const char *text);

struct engine_options {
    const struct device_options *devices;
    uint32_t device_count;
    const struct limits *limits; /* Borrowed. */
    const struct clock *clock;   /* Borrowed. */
    bool threads;     /* false: tests pull by hand (pool_pull, batch_run, pool_settle). */
    bool inline_runs; /* Let homes run short batches themselves. */
    bool rate_limit;  /* Runs hold their model's resources while they last (rate.h). */
    const char *const *rate_limits; /* "NAME:COUNT[:DEVICE]" each. */
    uint64_t rate_limit_count;
    uint64_t cache_bytes;     /* Of answers kept for models with response_cache; 0: none. */
    engine_advise_fn *advise; /* NULL: nobody wants to know. */
    void *advise_context;
    const struct order_options *order; /* NULL: order_defaults(). */
};

struct engine {
    const struct limits *limits;
    const struct clock *clock;
    struct block_pool *blocks; /* Outputs and gathered inputs. */
    struct pool **pools;       /* At most ENGINE_POOLS_MAX. */
    uint32_t pool_count;
    uint32_t device_count; /* Of all pools. */
    bool inline_runs;
    bool threads;
    engine_advise_fn *advise; /* May be NULL. */
    void *advise_context;
    struct order_options order; /* Of every pool. */
    struct rate_limiter *rates; /* NULL: off. */
    struct cache *cache;
    struct quarantine *quarantine;
    struct watchdog watchdog;
    /* Devices whose executors hang, and that have no spare ones; loops that hang. */
    _Atomic uint32_t short_pools;
    _Atomic uint64_t serials; /* Models adopted so far. */
    pthread_mutex_t lock;     /* Guards homes. */
    struct list homes;
    _Atomic bool draining;
};

static inline void engine_advise(const struct engine *engine, const struct model *model,
                                 enum log_level level, const char *text)
{
    if (engine->advise != NULL) {
        engine->advise(engine->advise_context, model, level, text);
    }
}

/* Of the options only the devices: WEIR_EINVAL names one without runs or unlike others of its
 * pool. */
WEIR_MUST_USE enum weir_status engine_check_devices(const struct engine_options *options,
                                                    struct weir_err *err);

/* WEIR_EINVAL names the device; WEIR_ENOMEM: the system has no thread left. */
WEIR_MUST_USE enum weir_status engine_create(const struct engine_options *options,
                                             struct engine **out, struct weir_err *err);
void engine_destroy(struct engine *engine); /* Nothing may be pending; joins the executors. */

/* Any thread: from now on the cache keeps at most so many bytes; 0: none. */
void engine_set_cache(struct engine *engine, uint64_t bytes_max);

/* Any thread: from now on this is the order of every pool. */
void engine_set_order(struct engine *engine, const struct order_options *order);

/* The pool of that name, or NULL. */
struct pool *engine_pool(const struct engine *engine, const char *name);

/*
 * Checks the request against its model (types, shapes, batch size), then puts it in line or refuses
 * on the spot; called on the request's home's thread.  WEIR_OK: it will end exactly once, at home,
 * with request.status.  WEIR_EINVAL, WEIR_EFULL, WEIR_EOVERLOAD (the deadline could not be met),
 * WEIR_ETIMEOUT (it has passed), WEIR_EDRAINING, WEIR_EUNAVAILABLE: it was never accepted and
 * `ended` is not called; the lease is still the caller's.
 */
WEIR_MUST_USE enum weir_status engine_submit(struct engine *engine, struct request *request,
                                             struct weir_err *err);

/* What engine_submit() checks first, for those who submit to an ensemble (pipeline/run.h):
 * WEIR_EINVAL names the input.  Fills in rows and input_bytes. */
WEIR_MUST_USE enum weir_status engine_check(struct request *request, struct weir_err *err);

/* A request that comes at `now_ns` without a deadline has its model's, if that gives one. */
void engine_set_deadline(struct request *request, uint64_t now_ns);

/* Home thread: the client does not want it any more.  It still ends, with WEIR_ECANCELED unless
 * it was done already.  Does nothing when it has ended, but needs the model: the lease is still
 * held. */
void engine_cancel(struct engine *engine, struct request *request);

/* Seconds after which trying again makes sense for this model, from the measured rate of service
 * and its circuit's pause: 1..60. */
uint32_t engine_retry_after_s(const struct engine *engine, struct model *model);

/* The same in milliseconds: 1..60000. */
uint64_t engine_retry_after_ms(struct model *model);

/* The most requests of this model that are taken in hand now (limiter.h); any thread. */
uint32_t engine_adaptive_limit(struct model *model);

/* What was learned about the model's runs; any thread that holds a lease.  Empty for ensembles. */
void engine_profile(struct model *model, struct profile *out);

/* Requests in line for this model now; any thread. */
uint32_t engine_waiting_count(struct model *model);

/* Why its batches are smaller than would be cheapest, if that is so the device's other requests wait
 * less; false: they are not.  Any thread that holds a lease. */
bool engine_held_text(struct model *model, char out[MODEL_ADVICE_BYTES]);

/* Runs of this model that there may be at once now; any thread. */
uint32_t engine_runs_max(struct model *model);

/* Requests of this model wait or run, or its sequences are open; any thread. */
bool engine_is_working(struct model *model);

/* Sequences that are open or wait for a place; any thread. */
uint32_t engine_sequence_count(struct model *model);

/* The model is offered no more, what was accepted still runs; any thread with a lease. */
void engine_retire(struct model *model);

/* Refuses further submits with WEIR_EDRAINING; what was accepted goes on. */
void engine_drain(struct engine *engine);

/* Prepares a freshly loaded version for service on its pool: queue, instances with their contexts,
 * limits.  Loader thread.  WEIR_ENOMEM, WEIR_ECONFLICT (device contexts). */
WEIR_MUST_USE enum weir_status engine_adopt(struct engine *engine, struct model *model,
                                            struct weir_err *err);

/* The reverse, when the last lease is gone: frees instances and what engine_adopt() made. */
void engine_abandon(struct engine *engine, struct model *model);

#endif
