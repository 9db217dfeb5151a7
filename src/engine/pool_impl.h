/*
 * pool_impl.h — what the pool's own files share.  With the pool's lock held unless said otherwise.
 */
#ifndef WEIR_ENGINE_POOL_IMPL_H
#define WEIR_ENGINE_POOL_IMPL_H

#include "engine/pool.h"

/* Who takes a run off the pool's lines, or might, and when. */
struct puller {
    struct pool *pool;
    struct seat seat;
    uint64_t now_ns;
};

/* Nobody in particular. */
extern const struct seat pool_no_seat;

/* Restores the pool's first invariant for one model, after anything about its line has changed. */
void pool_place(struct pool *pool, struct model *model, uint64_t now_ns);

/* Puts a request in its model's line, and counts it there and with its client; its class is set.
 * One that belongs to a sequence is counted only. */
void pool_line_up(struct pool *pool, struct request *request, uint64_t now_ns);

/* `ns` of device time of a run go to its requests' clients, by rows; and to their classes if it
 * has not been charged there. */
void pool_charge(struct pool *pool, const struct batch *batch, const struct list *members,
                 int64_t ns, bool classes);

/* As pool_pull(); what ends on the way is appended to `ended`. */
struct instance *pool_pull_locked(const struct puller *puller, uint64_t *wake_ns,
                                  struct list *ended);

/* A run of so many rows may begin on a loop, and is over before an executor would have woken. */
bool pool_is_short(const struct model *model, uint64_t shape_key, uint64_t rows, uint64_t now_ns);

/* Could it take something now? */
bool pool_has_work(const struct puller *puller);

/* pool_wide.c: runs that take several of the device's places. */

/* Of a run of the model, for what it asks and the device has. */
uint32_t pool_width(const struct pool *pool, const struct model *model);

/* There are places for one more run of it. */
bool pool_wide_fits(const struct pool *pool, const struct model *model);

/* It was the model's turn, it did not fit and stands nowhere else: it waits in pool.wide. */
void pool_wide_reserve(struct pool *pool, struct model *model, const struct request *leader,
                       uint64_t now_ns);

/* The most pressing reservation's model, if it fits now; or NULL. */
struct model *pool_wide_next(const struct pool *pool);

/* That one has waited long enough: nobody else begins. */
bool pool_wide_holds(const struct puller *puller);

/* An executor's run takes its places, and gives them back. */
void pool_wide_begin(struct pool *pool, struct instance *instance);
void pool_wide_end(struct pool *pool, struct instance *instance);

/* pool_scale.c: how many runs of a model there shall be at once, and what they take. */

/* With what is configured or pays, and the depth of the pipeline: runs under way. */
uint32_t pool_runs_wanted(const struct model *model);

/* After a load, and when the model's number of instances or what pays has changed. */
void pool_set_runs(struct model *model);

/* A batch is taken, before it counts as running, and is settled, while it still does. */
void pool_scale_begin(struct pool *pool, struct model *model, struct batch *batch, uint64_t now_ns);

/* What is left to do about it without the lock. */
struct pool_scale_news {
    bool widen;             /* stage_widen() */
    bool hurts;             /* instances_reason has been set. */
    bool held;              /* engine_held_text() has something to say. */
    uint64_t rows_too_many; /* Did not fit in the memory of `device`; 0: nothing new. */
    const char *device;
};
struct pool_scale_news pool_scale_end(struct pool *pool, struct instance *instance,
                                      uint64_t now_ns);

/* Without the lock, with a lease on the model. */
void pool_scale_act(struct pool *pool, struct model *model, struct pool_scale_news news);

/* pool_watch.c: runs that do not end. */

/* Executor, without the lock: a run begins.  False: an earlier one of its batch was written off, it
 * does not. */
WEIR_MUST_USE bool pool_watch_begin(struct instance *instance);

/* It is over.  False: it was written off meanwhile; what it gave is nobody's. */
WEIR_MUST_USE bool pool_watch_end(struct instance *instance);

/* A batch that was written off is settled: what it had booked is given back. */
void pool_watch_return(struct pool *pool, struct instance *instance);

/* The longest run of the model, by a loop or an executor; 0: any. */
uint64_t pool_watch_limit_ns(const struct model *model, bool on_loop);

/* Its run is over: where a loop made it and it was slow, loops do not for a while. */
void pool_watch_slow(struct instance *instance);

/* An executor whose place another one has waits until it is needed, or the pool stops. */
void pool_park(struct pool *pool, struct executor *executor);

/* pool_wake.c: how executors sleep and wake. */
void pool_wake_init(struct pool *pool);

/* A request has come: how dense they are decides whether it pays to stay awake for the next. */
void pool_note_arrival(struct pool *pool, uint64_t now_ns);

/* Takes an executor off the idle list for the work there is, or NULL; signal its `wake` without
 * the lock. */
struct executor *pool_executor_for_work(struct pool *pool, uint64_t now_ns);

/* A request in line goes, and with it what cannot run without it: they are appended to `ended`. */
void pool_end_waiting(struct pool *pool, struct request *request, enum weir_status status,
                      uint64_t now_ns, struct list *ended);

/* Ends what has waited too long in the model's line.  True: something did. */
bool pool_expire(struct pool *pool, struct model *model, uint64_t now_ns, struct list *ended);

/* Why a request that has not run is stopped, for a person. */
const char *pool_stop_text(enum weir_status why);

/* Nobody waits for this running request any more; its run is terminated when that is true of
 * all. */
void pool_unwant(struct request *request);

/* Without the lock: moves finished requests to their homes. */
void pool_send_home(struct list *ended);

#endif
