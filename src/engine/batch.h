/*
 * batch.h — requests that share one run: gather their rows, run, scatter the outputs.
 *
 * A batch lives in an *instance*, one of the concurrent runs a model may have, so forming one
 * allocates nothing.  Between pool_pull() and pool_settle() it belongs to the executor.
 */
#ifndef WEIR_ENGINE_BATCH_H
#define WEIR_ENGINE_BATCH_H

#include "backend/backend.h"
#include "engine/model.h"
#include "engine/sequence_plan.h"
#include "util/list.h"

struct batch {
    struct list members;  /* Of request.line: those still to run. */
    struct list ended;    /* Those with their status set. */
    struct list returned; /* Those whose device was lost, which another one may run. */
    struct weir_err lost; /* How, where there are such. */
    uint32_t count;
    uint64_t rows;
    uint64_t shape_key;
    uint32_t span;    /* Sequences in rows of their own: rows of the run, holes and all; else 0. */
    uint32_t wanting; /* Members whose client still waits.  Guarded by the pool's lock. */
    bool clean;       /* One successful run carried all. */
    bool canary;      /* Nobody asked for it: it is not learned from. */
    bool held;        /* More rows waited, and a blocking budget let no more ride. */
    bool dependent;   /* Outputs have not one row per row: the model is no batching one. */
    /* A single request's run of so many rows is short: it need not be cut; 0: not known. */
    uint64_t rows_short;
    uint64_t rows_cap;      /* Runs of more rows are known not to fit in memory; 0: not known. */
    uint64_t rows_too_many; /* A run of so many rows was out of memory; 0: none. */
    uint64_t learn_rows;    /* Runs of so many rows took learn_ns; 0: nothing to learn. */
    uint64_t learn_ns;
    bool overdue;               /* Asked to stop at its model's run_limit. */
    bool written_off;           /* Did not; guarded by the pool's lock, as is the one before, */
    bool lost_loop;             /* and this: a loop hangs in it, no executor. */
    struct list_node run;       /* In pool.runs. */
    uint64_t predicted_ns;      /* What the profile said when it was taken; 0: nothing. */
    uint64_t lasts_ns;          /* What it should take; guarded by the pool's lock, as are */
    uint64_t expected_ns;       /* when it should be over, */
    uint64_t sway_ns;           /* give or take so much. */
    struct order_client *payer; /* Of all members; NULL: of several, or of several classes. */
    uint32_t class;             /* That led it, */
    bool owed;                  /* out of turn. */
    uint32_t rivals;            /* Bit per class that could have run instead. */
    uint64_t charged_ns;        /* Device time that was charged when it was taken; 0: none. */
    uint64_t taken_ns;
    uint64_t gathered_ns; /* Of the last run. */
    uint64_t part_ns;     /* The last part of a streamed answer, or the start of its run. */
    uint64_t prepared_ns; /* Of the last run: then it waited for the device, */
    uint64_t waited_ns;   /* so long, */
    uint64_t device_ns;   /* and held it for so long; 0: the device is not pipelined. */
    uint64_t busy_ns;     /* What all its runs took of the device. */
    uint64_t computed_ns;
    uint64_t area; /* Of the model's scaling at its start. */
    bool shared;   /* Runs of other models were on the pool when it was taken. */
    uint64_t runs; /* Executions; more than one when it was split. */
};

struct instance {
    struct instance *next; /* In model.instances_free. */
    struct model *model;
    struct replica *replica; /* Whose context it is; constant. */
    uint32_t places;         /* That its run takes on the device; 0: it is run by a loop. */
    struct backend_context *context;
    struct executor *executor; /* Who runs it; guarded by the pool's lock. */
    /* Watched models: the run under way began then; 0: none is; see pool_watch.c. */
    _Atomic uint64_t since_ns;
    struct batch batch;
    struct backend_run run;
    struct tensor *inputs; /* Signature's counts each. */
    struct tensor *outputs;
    bool *wanted;
    struct request *streaming; /* The only member of a run that may give parts. */
    struct plan_row *rows;     /* Of sequence models: what each row of the run is about, */
    struct request **riders;   /* and whose it is. */
};

struct engine;
struct executor;

/* Allocates what one concurrent run of the model needs.  WEIR_ENOMEM, WEIR_ECONFLICT. */
WEIR_MUST_USE enum weir_status instance_init(struct instance *instance, struct model *model,
                                             struct weir_err *err);
void instance_finish(struct instance *instance);

/* Executor: runs the batch to its end; every member is then in batch.ended with its status set.  A
 * run that fails is split in halves until the guilty requests are alone.  A request alone whose
 * rows are more than one run may have, or than fit in memory, runs in pieces where rows are
 * independent. */
void batch_run(struct instance *instance);

/* Bytes of `rows` of an output's `all_rows` rows, from byte `at` on. */
size_t batch_row_bytes(const struct tensor *output, uint64_t all_rows, uint64_t rows, size_t at);

/* `part` views its block's memory without holding it.  A counted view, or a copy when too much
 * memory is out.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status batch_slice(const struct engine *engine, const struct tensor *part,
                                           struct tensor *out);

#endif
