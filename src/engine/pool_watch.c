/*
 * Runs that do not end.
 *
 * A thread that computes cannot be taken out of it, so such a run is *written off*: its requests
 * are answered with an error, as are those that wait for the model, a spare executor takes its
 * place, and the model takes no further requests.  The thread, its instance and all it reads stay
 * booked, as do the requests: their inputs are what it reads.  If the run comes back after all,
 * everything is given back, and its executor becomes a spare one.
 *
 * A run on a loop has a limit also where its model has none, since nobody else can serve the loop's
 * clients: the server is not ready until it is back.  Nor does a loop run a model soon again of
 * which a run was slow there.
 *
 * Who has the members of a batch is decided by instance.since_ns alone.  While a run is under way
 * its executor does not touch them; the watch takes them by changing since_ns to WRITTEN_OFF with
 * the pool's lock held, and an executor that finds that waits for the lock before it goes on.
 */
#include "engine/engine.h"
#include "engine/join.h"
#include "engine/outage.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "engine/sequence.h"

#define WRITTEN_OFF UINT64_MAX

#define INLINE_LIMIT_NS (5 * NS_PER_S) /* Of a run on a loop, where the model has no shorter one. */
#define INLINE_SLOW_NS (10 * NS_PER_MS) /* One that took longer was none for a loop: */
#define INLINE_PENALTY 100              /* others are not made there for so many times as long. */

/* A loop runs it; of runs under way. */
static bool is_inline(const struct instance *instance)
{
    return instance->places == 0;
}

uint64_t pool_watch_limit_ns(const struct model *model, bool on_loop)
{
    const uint64_t own_ns = model->config->run_limit_ns;
    if (model->config->isolation == ISOLATE_PROCESS) {
        return 0;
    }
    return on_loop && (own_ns == 0 || own_ns > INLINE_LIMIT_NS) ? INLINE_LIMIT_NS : own_ns;
}

bool pool_watch_begin(struct instance *instance)
{
    const bool on_loop = is_inline(instance);
    const uint64_t limit_ns = pool_watch_limit_ns(instance->model, on_loop);
    if (limit_ns == 0) {
        return true;
    }
    if (instance->batch.written_off) {
        return false; /* The rest of a batch of which a run was. */
    }
    struct engine *engine = instance->model->pool->engine;
    /* A loop took its batch a moment ago, and has no time to look at the clock. */
    const uint64_t now_ns = on_loop ? instance->batch.taken_ns : clock_now_ns(engine->clock);
    atomic_store(&instance->since_ns, now_ns); /* Before the note looks (watchdog.h). */
    watchdog_note(&engine->watchdog, clock_add(now_ns, limit_ns));
    return true;
}

bool pool_watch_end(struct instance *instance)
{
    struct pool *pool = instance->model->pool;
    if (atomic_load_explicit(&instance->since_ns, memory_order_relaxed) == 0 ||
        atomic_exchange(&instance->since_ns, 0) != WRITTEN_OFF) {
        return true; /* Nobody watches it, or it was in time. */
    }
    pthread_mutex_lock(&pool->lock); /* The members are its own again. */
    pthread_mutex_unlock(&pool->lock);
    return false;
}

static void tell_late(struct home_mail *mail)
{
    struct request *request = list_entry(mail, struct request, late_mail);
    if (request->late != NULL) {
        request->late_status = WEIR_EBACKEND;
        request->late(request);
    }
}

/* Lock held: the request's client need not wait any more. */
static void give_up(struct pool *pool, struct request *request, uint64_t now_ns, struct list *ended)
{
    while (request->leads && !list_empty(&request->followers)) {
        struct request *follower =
            list_entry(list_first(&request->followers), struct request, line);
        (void)join_stop(pool, follower, WEIR_EBACKEND, now_ns, ended);
    }
    if (request->stop == WEIR_OK) {
        request->stop = WEIR_EBACKEND;
        request->batch->wanting--;
        request->late_mail.deliver = tell_late;
        home_send(request->home, &request->late_mail); /* Before its end can be on its way. */
    }
}

static void give_up_all(struct pool *pool, const struct list *members, uint64_t now_ns,
                        struct list *ended)
{
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        give_up(pool, list_entry(n, struct request, line), now_ns, ended);
    }
}

/* Lock held: anything of the model that waits, or NULL. */
static struct request *any_waiting(const struct model *model)
{
    uint64_t next_ns;
    return model->sequences == NULL ? line_first(&model->line)
                                    : sequencer_late(model->sequences, CLOCK_NEVER, &next_ns);
}

/* Lock held: nothing of the model runs before that run is back, so nothing waits for it. */
static void refuse_waiting(struct pool *pool, struct model *model, uint64_t now_ns,
                           struct list *ended)
{
    for (struct request *request = any_waiting(model); request != NULL;
         request = any_waiting(model)) {
        pool_end_waiting(pool, request, WEIR_EUNAVAILABLE, now_ns, ended);
    }
    pool_place(pool, model, now_ns);
}

static void take_seat(struct executor *executor, const struct executor *hung)
{
    executor->seat = hung->seat;
    executor->pinned = hung->pinned;
}

/* Lock held: somebody takes the place of an executor.  NULL, or one that is to be started. */
static struct executor *replace_executor(struct pool *pool, struct executor *hung)
{
    struct list_node *node = list_pop(&pool->spares);
    if (node != NULL) {
        struct executor *spare = list_entry(node, struct executor, idle);
        spare->parked = false;
        take_seat(spare, hung);
        pthread_cond_signal(&spare->wake);
        return NULL;
    }
    if (pool->spare_count < POOL_SPARES_MAX && pool->engine->threads) {
        struct executor *spare = &pool->executors[pool->thread_max + pool->spare_count++];
        take_seat(spare, hung);
        return spare;
    }
    if (list_empty(&pool->missing)) {
        atomic_fetch_add(&pool->engine->short_pools, 1);
    }
    list_append(&pool->missing, &hung->idle);
    return NULL;
}

/* Lock held. */
static struct executor *write_off(struct pool *pool, struct instance *instance, uint64_t now_ns,
                                  struct list *ended)
{
    struct batch *batch = &instance->batch;
    uint64_t began_ns = atomic_load(&instance->since_ns);
    if (began_ns == 0 ||
        !atomic_compare_exchange_strong(&instance->since_ns, &began_ns, WRITTEN_OFF)) {
        return NULL; /* It has just come back. */
    }
    batch->written_off = true;
    batch->lost_loop = is_inline(instance);
    list_remove(&batch->run);
    instance->model->written_off++;
    outage_note(instance->model);
    give_up_all(pool, &batch->members, now_ns, ended);
    give_up_all(pool, &batch->ended, now_ns, ended);
    refuse_waiting(pool, instance->model, now_ns, ended);
    pthread_cond_broadcast(&pool->parts);
    pool_wide_end(pool, instance);
    if (batch->lost_loop) { /* Nobody can take its place: its clients wait until it is back. */
        instance->model->lost_loops++;
        atomic_fetch_add(&pool->engine->short_pools, 1);
        return NULL;
    }
    return replace_executor(pool, instance->executor);
}

/* Lock held: what is due for one run.  True: it was written off; then *spare may have to be
 * started. */
static bool watch_one(struct pool *pool, struct batch *batch, uint64_t now_ns, uint64_t *next_ns,
                      struct list *ended, struct executor **spare)
{
    struct instance *instance = list_entry(batch, struct instance, batch);
    const uint64_t began_ns = atomic_load(&instance->since_ns);
    if (began_ns == 0) {
        return false; /* None is under way. */
    }
    const uint64_t limit_ns = pool_watch_limit_ns(instance->model, is_inline(instance));
    uint64_t due_ns;
    const enum watchdog_act act =
        watchdog_judge(began_ns, limit_ns, batch->overdue, now_ns, &due_ns);
    *next_ns = due_ns < *next_ns ? due_ns : *next_ns;
    if (act == WATCHDOG_STOP) {
        batch->overdue = true;
        backend_terminate(instance->context);
    }
    if (act != WATCHDOG_WRITE_OFF) {
        return false;
    }
    *spare = write_off(pool, instance, now_ns, ended);
    return batch->written_off;
}

/* True: one run was written off; there may be more. */
static bool watch_pool(struct pool *pool, uint64_t now_ns, uint64_t *next_ns)
{
    struct list ended;
    struct executor *spare = NULL;
    struct model *lost = NULL;
    enum weir_status outage = WEIR_OK;
    struct weir_err err;
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    *next_ns = CLOCK_NEVER;
    for (struct list_node *n = list_first(&pool->runs); n != NULL && lost == NULL;
         n = list_next(&pool->runs, n)) {
        struct batch *batch = list_entry(n, struct batch, run);
        if (watch_one(pool, batch, now_ns, next_ns, &ended, &spare)) {
            lost = list_entry(batch, struct instance, batch)->model;
            model_acquire(lost);
            outage = outage_check_locked(lost, &err);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    pool_send_home(&ended);
    if (spare != NULL && executor_start(spare, NULL) != WEIR_OK) {
        pthread_mutex_lock(&pool->lock);
        pool->spare_count = POOL_SPARES_MAX; /* There will be none. */
        (void)replace_executor(pool, spare);
        pthread_mutex_unlock(&pool->lock);
    }
    if (lost == NULL) {
        return false;
    }
    if (outage != WEIR_OK) {
        engine_advise(pool->engine, lost, LOG_WARNING, err.text);
    }
    pool_kick(pool);
    model_release(lost);
    return true;
}

uint64_t pool_watch(struct pool *pool, uint64_t now_ns)
{
    uint64_t next_ns;
    while (watch_pool(pool, now_ns, &next_ns)) {
    }
    return next_ns;
}

/* Lock held, its own thread: an executor goes on where it was, or where another one is missing;
 * else it is a spare one. */
static void come_back(struct pool *pool, struct executor *executor)
{
    if (list_empty(&pool->missing)) {
        executor->parked = true;
        return;
    }
    if (list_linked(&executor->idle)) {
        list_remove(&executor->idle);
    } else {
        take_seat(executor, list_entry(list_pop(&pool->missing), struct executor, idle));
        executor_settle_in(executor);
    }
    if (list_empty(&pool->missing)) {
        atomic_fetch_sub(&pool->engine->short_pools, 1);
    }
}

void pool_watch_return(struct pool *pool, struct instance *instance)
{
    struct batch *batch = &instance->batch;
    struct model *model = instance->model;
    const uint64_t most_ns = clock_add(
        batch->gathered_ns, pool_watch_limit_ns(model, batch->lost_loop) + WATCHDOG_GRACE_NS);
    batch->computed_ns = batch->computed_ns < most_ns ? batch->computed_ns : most_ns;
    model->written_off--;
    outage_note(model);
    if (batch->lost_loop) {
        model->lost_loops--;
        atomic_fetch_sub(&pool->engine->short_pools, 1);
    } else {
        come_back(pool, instance->executor);
    }
}

void pool_watch_slow(struct instance *instance)
{
    const struct batch *batch = &instance->batch;
    struct model *model = instance->model;
    const uint64_t took_ns =
        batch->computed_ns > batch->taken_ns ? batch->computed_ns - batch->taken_ns : 0;
    const bool on_loop = batch->written_off ? batch->lost_loop : is_inline(instance);
    if (on_loop && took_ns > INLINE_SLOW_NS) {
        model->inline_after_ns = clock_add(batch->computed_ns, took_ns * INLINE_PENALTY);
        atomic_fetch_add_explicit(&model->stats.inline_slow, 1, memory_order_relaxed);
    }
}

void pool_park(struct pool *pool, struct executor *executor)
{
    if (!executor->parked) {
        return;
    }
    list_append(&pool->spares, &executor->idle);
    while (executor->parked && !pool->stopping) {
        pthread_cond_wait(&executor->wake, &pool->lock);
    }
    list_remove(&executor->idle);
    executor_settle_in(executor);
}
