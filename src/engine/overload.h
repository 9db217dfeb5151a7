/*
 * overload.h — what a model's line does when more comes than can be served.
 *
 * The pool asks here at four moments: a request comes (limiter.h, admission.h), a line is pulled
 * from (window.h), a run starts and a run ends (pace.h).  All calls with the pool's lock held.
 * Requests without deadlines are only ever refused by the limit, lines of sequences by nothing
 * here.
 */
#ifndef WEIR_ENGINE_OVERLOAD_H
#define WEIR_ENGINE_OVERLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/admission.h"
#include "engine/limiter.h"
#include "engine/pace.h"
#include "util/err.h"
#include "util/list.h"

struct batch;
struct model;
struct pool;
struct puller;
struct request;
struct seat;

/* Of one model; guarded by the pool's lock. */
struct overload {
    struct pace pace;
    struct limiter limiter;
    struct admission_tail tail;
    uint64_t tail_turns; /* pool.turns when it was laid out. */
    uint64_t try_ns;     /* Not before: a request that should be late is let in all the same. */
    uint32_t in_hand;    /* Requests waiting and running that the limit is about. */
    bool drops;          /* Deadlines that cannot be met are answered early. */
};

/* Where the model is adopted, its limits known. */
void overload_init(struct model *model);

/* A request comes.  WEIR_EOVERLOAD, in words with the predicted wait and the deadline: it is
 * refused.  Who in line has become hopeless is appended to `ended`. */
WEIR_MUST_USE enum weir_status overload_admit(struct pool *pool, struct model *model,
                                              struct request *request, struct list *ended,
                                              struct weir_err *err);

/* What a run of that shape costs at that seat; false: nobody knows yet. */
bool overload_cost(const struct model *model, const struct seat *seat, uint64_t shape_key,
                   struct pace_cost *out);

/* A run that `leader` leads may start: those whom the window lets go end and are appended to
 * `ended`.  True: somebody did, it may be the leader. */
bool overload_drop(const struct puller *puller, const struct request *leader, struct list *ended);

/* A run of `share` rows leaves something for other executors; `useful` is returned instead where
 * runs so small would not keep up with what comes. */
uint64_t overload_share(const struct puller *puller, const struct model *model, uint64_t shape_key,
                        uint64_t share, uint64_t useful);

/* The most rows of a run that starts now and that `leader` leads, of `rows_max` at most. */
uint64_t overload_rows(const struct puller *puller, const struct request *leader,
                       uint64_t rows_max);

/* A run of the model starts, its batch complete, or has ended, its times known. */
void overload_run_starts(struct pool *pool, struct model *model, struct batch *batch);
void overload_run_ended(struct model *model, struct batch *batch, uint64_t now_ns);

/* A request is in line; it has ended, its status set. */
void overload_request_enters(struct request *request);
void overload_request_ended(struct request *request);

/* Time until as much as waits now is served at the measured rate; CLOCK_NEVER: not known. */
uint64_t overload_drain_ns(const struct model *model);

#endif
