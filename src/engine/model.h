/*
 * model.h — one loaded version of a model: its settings, its line of requests, its numbers.
 *
 * Everything under "line" is guarded by the lock of the pool it runs on.  Statistics are atomics.
 * The rest does not change between the load and the last lease.  A model version is freed when its
 * last lease is given back.
 */
#ifndef WEIR_ENGINE_MODEL_H
#define WEIR_ENGINE_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "engine/canary.h"
#include "engine/circuit.h"
#include "engine/ledger.h"
#include "engine/line.h"
#include "engine/model_config.h"
#include "engine/overload.h"
#include "engine/profile.h"
#include "engine/replica.h"
#include "engine/scaling.h"
#include "engine/stage.h"
#include "engine/suspect.h"
#include "util/heap.h"
#include "util/list.h"
#include "util/map.h"
#include "util/metric.h"

struct bucket_plan; /* bucket.h */
struct graph;       /* pipeline/graph.h */
struct home;
struct instance; /* batch.h */
struct pool;
struct profile_store; /* profile_store.h */
struct rate_claim;    /* rate.h */
struct sequence_plan; /* sequence_plan.h */
struct sequencer;     /* sequence.h */

#define MODEL_BATCH_SIZES_MAX 64 /* Rows with batch statistics of their own: sizes 1..N. */
#define MODEL_ADVICE_BYTES 160
#define MODEL_RESPONSES_MAX 32 /* n-th responses with statistics of their own. */

/* Of the n-th response to a request. */
struct response_stats {
    struct duration compute_infer;
    struct duration compute_output;
    struct duration success;
    struct duration fail;
    struct duration empty_response;
    struct duration cancel;
};

/* Triton's statistics, and Weir's histograms by stage.  Any thread. */
struct model_stats {
    _Atomic uint64_t last_inference_ms; /* By the wall clock, a millisecond early at most. */
    _Atomic uint64_t last_inference_ns; /* By the engine's, when that was read. */
    _Atomic uint64_t succeeded_ns;      /* The engine's clock: a run did last; 0: none has. */
    /* Runs of canary.h that began, none of which is counted elsewhere, */
    _Atomic uint64_t canaries;
    _Atomic uint64_t canaries_failed; /* and those of them that came to nothing. */
    _Atomic uint64_t inference_count; /* Rows of successful requests. */
    _Atomic uint64_t execution_count; /* Runs. */
    struct duration success;
    struct duration fail;
    struct duration queue;
    struct duration compute;        /* Requests that ran, and what their runs took; */
    _Atomic uint64_t input_ns;      /* gathering before them, */
    _Atomic uint64_t output_ns;     /* what came after. */
    struct duration cache_hit;      /* Look-ups that found an answer. */
    struct duration cache_miss;     /* Those that did not, and keeping what was then computed. */
    _Atomic uint64_t inline_runs;   /* Part of execution_count: on loops, */
    _Atomic uint64_t inline_slow;   /* and those of them that were none for them (pool_watch.c). */
    _Atomic uint64_t joined;        /* Shared the run of an equal request. */
    _Atomic uint64_t refused;       /* Never accepted: queue full, deadline passed on arrival. */
    _Atomic uint64_t refused_late;  /* Part of `refused`: the deadline could not have been met, */
    _Atomic uint64_t refused_limit; /* or as many were in hand as are answered in time. */
    _Atomic uint64_t dropped;       /* Accepted, part of `fail`: let go by the early-drop window. */
    _Atomic uint64_t timed_out;     /* Accepted, part of `fail`. */
    _Atomic uint64_t canceled;      /* The same. */
    struct {
        struct duration compute;                          /* Runs, and what they took; */
        _Atomic uint64_t input_ns;                        /* gathering before them. */
    } batches[MODEL_BATCH_SIZES_MAX + 1];                 /* By rows; [0] collects larger ones. */
    struct response_stats responses[MODEL_RESPONSES_MAX]; /* Streams: n-th part. */
    _Atomic uint64_t deaths[DEATH_COUNT];                 /* Of its child, by how it ended. */
    struct histogram queue_time;
    struct histogram gather_time;
    struct histogram compute_time;
    struct histogram total_time;
};

struct model {
    const char *name;
    uint64_t version;
    struct model_config *config;   /* Owned. */
    struct backend_model *backend; /* Owned. */
    const struct backend_ops *ops;
    const struct signature *signature;         /* What clients send and get. */
    const struct sequence_plan *sequence_plan; /* What the engine adds; NULL: nothing. */
    struct bucket_plan *buckets;               /* Owned; NULL: nothing is padded. */
    _Atomic bool batching;                     /* Requests may share runs. */
    bool rows_tried;                           /* Trials decided so, now or in an earlier life. */
    _Atomic(const char *) batching_reason;     /* Why not, one sentence; NULL when on. */
    /* Why fewer instances would do more; NULL: they would not. */
    _Atomic(const char *) instances_reason;
    uint64_t loaded_bytes; /* Resident memory that loading it took, measured. */
    uint64_t load_ns;
    uint64_t serial; /* Of this load; never used twice. */
    bool joining;    /* Equal requests in flight share one run. */
    bool cached;     /* Equal requests are answered from the engine's cache. */
    struct pool *pool;

    _Atomic bool troubled; /* outage.h has something to look at. */
    struct canary canary;

    struct profile_store *profile_store; /* Owned; NULL: its profile is not kept. */

    _Atomic uint64_t leases;
    void (*unleased)(struct model *self); /* The last lease is gone; any thread. */
    void *owner;                          /* The registry's. */

    /* Of an ensemble, which has no backend; NULL and 0: it has one. */
    struct graph *graph; /* Owned. */
    void (*graph_free)(struct graph *graph);
    struct model **parts; /* One per step, leased, in the order of config->ensemble.steps. */
    uint32_t part_count;
    _Atomic uint64_t runs; /* Requests under way. */

    struct model_stats stats;

    /* Line: guarded by the pool's lock. */
    struct model_line line;
    uint32_t waiting_count;
    uint64_t waiting_rows;
    uint64_t waiting_bytes;
    uint64_t leave_next_ns; /* No time-out of the queue ends a request before this time. */
    uint32_t requests_max;
    uint64_t bytes_max;
    struct map joins;            /* From a request's key to the one that leads. */
    struct rate_claim *claim;    /* What a run holds while the rate limiter is on, or NULL. */
    struct sequencer *sequences; /* Has the lines, `line` is empty then; NULL: no sequences. */
    uint32_t running;            /* Batches. */
    uint32_t width;              /* Places of the device that a run takes; constant. */
    struct list_node wide;       /* In pool.wide while it waits for so many. */
    uint64_t holds_ns;           /* Then nobody else begins before it; 0: it waits for none. */
    uint32_t runs_max;           /* Batches of executors at once: what scaling found to pay. */
    uint64_t served_ns;          /* Device time, against other models of a client. */
    uint32_t instance_count;     /* Concurrent runs, configured or as the devices can; constant. */
    /* Array of slots_max, of which slot_count are made: more than instance_count for the stages of
     * pipelined runs, or for loops. */
    struct instance *instances;
    uint32_t slot_count;
    uint32_t slots_max;
    bool widening; /* One is being made. */
    struct instance *instances_free;
    /* Where it is; the first one's backend is the model's. */
    struct replica replicas[REPLICAS_MAX];
    uint32_t replica_count;
    struct scaling scaling;
    char instances_text[MODEL_ADVICE_BYTES]; /* Written once, before instances_reason is set. */
    uint32_t held_count;     /* Batches that a blocking budget kept small and nobody was told of. */
    uint64_t held_rows;      /* One of those that somebody was told of; 0: none. */
    uint64_t held_budget_ns; /* Then. */
    uint64_t rows_too_many;  /* The fewest that somebody was told did not fit in memory; 0: none. */
    struct stage_times stages;
    struct profile profile;
    struct overload overload;
    struct circuit circuit;
    struct suspects suspects;
    enum backend_death last_death;
    uint64_t inline_after_ns; /* No loop runs it before, as a run on one was slow. */
    uint32_t written_off; /* Runs that nobody waits for any more, though they go on (watchdog.h). */
    uint32_t lost_loops;  /* Of these, on loops. */
    struct list_node ready;       /* In pool.ready, */
    struct heap_node again;       /* or in pool.delayed, or in none. */
    struct request *head;         /* While in one: who leads the next run; NULL: the line says. */
    struct home *inline_home;     /* Will run what waits at the end of its turn. */
    struct list_node inline_node; /* In that home's inline_models. */
    bool rows_fixed;              /* All dimensions but the leading one are fixed. */
};

/* A lease keeps the version loaded.  acquire needs another lease to exist, or the catalogue's. */
void model_acquire(struct model *model);
void model_release(struct model *model);

/* What it takes now, as its backend counts it.  Any thread with a lease. */
void model_memory(const struct model *model, struct ledger_counts *out);

/* Of its processes, where it is isolated: what they take, and how many died and were replaced. */
uint64_t model_process_bytes(const struct model *model);
uint64_t model_process_restarts(const struct model *model);

/* Requests that it has answered, well or not.  Any thread with a lease. */
uint64_t model_uses(const struct model *model);

/* The configuration's declaration of an input or output, or NULL. */
const struct io_config *model_output_config(const struct model *model, const char *name);

#endif
