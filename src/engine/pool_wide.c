/*
 * Runs that take several cores.
 *
 * A run with k threads of its own takes k of the places that the device has for runs, so that all
 * runs together have no more threads than there are cores.  It waits until k are free, and
 * meanwhile smaller runs go on: a place that is left empty is lost.  But they would go on for ever,
 * so the wait is a reservation: when half of the time has passed that its first request can wait,
 * nothing else starts until it has its places.  Smaller runs that find no
 * place reserve one just so: a wide model that is never idle does not keep them away either.
 */
#include "engine/pool.h"
#include "engine/pool_impl.h"

#define PATIENCE_NS (10 * NS_PER_MS) /* Of a request without a deadline, and the most of any. */

uint32_t pool_width(const struct pool *pool, const struct model *model)
{
    const uint32_t threads = model->config->intra_threads;
    const uint32_t most = pool->pipelined ? 1 : pool->executor_count;
    return threads < 1 ? 1 : threads < most ? threads : most;
}

bool pool_wide_fits(const struct pool *pool, const struct model *model)
{
    return pool->pipelined || pool->places_taken + model->width <= pool->executor_count;
}

/* How long the request can wait for places without harm. */
static uint64_t patience_ns(const struct model *model, const struct request *leader,
                            uint64_t now_ns)
{
    uint64_t run_ns = 0;
    if (leader->deadline_ns == CLOCK_NEVER ||
        !profile_predict_ns(&model->profile, leader->shape_key, leader->rows, &run_ns)) {
        return PATIENCE_NS;
    }
    const uint64_t end_ns = clock_add(now_ns, run_ns);
    const uint64_t margin_ns =
        leader->deadline_ns > end_ns ? (leader->deadline_ns - end_ns) / 2 : 0;
    return margin_ns < PATIENCE_NS ? margin_ns : PATIENCE_NS;
}

void pool_wide_reserve(struct pool *pool, struct model *model, const struct request *leader,
                       uint64_t now_ns)
{
    if (model->holds_ns == 0) { /* Else it has reserved before, and others went first. */
        model->holds_ns = clock_add(now_ns, patience_ns(model, leader, now_ns));
    }
    struct list_node *before = &pool->wide.head;
    while (before->prev != &pool->wide.head &&
           list_entry(before->prev, struct model, wide)->holds_ns > model->holds_ns) {
        before = before->prev;
    }
    list_insert_before(before, &model->wide);
}

static struct model *first_of(const struct pool *pool)
{
    const struct list_node *first = list_first(&pool->wide);
    return first == NULL ? NULL : list_entry(first, struct model, wide);
}

struct model *pool_wide_next(const struct pool *pool)
{
    struct model *model = first_of(pool);
    return model != NULL && pool_wide_fits(pool, model) ? model : NULL;
}

/* Lock held: who pulls could run it, or somebody could who sleeps or is busy. */
static bool can_be_taken(const struct puller *puller, const struct model *model)
{
    const struct pool *pool = puller->pool;
    if (replica_is_free(model, &puller->seat)) {
        return true;
    }
    for (const struct list_node *n = list_first(&pool->idle); n != NULL;
         n = list_next(&pool->idle, n)) {
        if (replica_is_free(model, &list_entry(n, struct executor, idle)->seat)) {
            return true;
        }
    }
    for (const struct list_node *n = list_first(&pool->runs); n != NULL;
         n = list_next(&pool->runs, n)) {
        const struct batch *run = list_entry(n, struct batch, run);
        const struct instance *instance = list_entry(run, struct instance, batch);
        const struct executor *executor = instance->places > 0 ? instance->executor : NULL;
        if (executor != NULL && replica_is_free(model, &executor->seat)) {
            return true;
        }
    }
    return false;
}

bool pool_wide_holds(const struct puller *puller)
{
    const struct pool *pool = puller->pool;
    const struct model *model = first_of(pool);
    return model != NULL && model->holds_ns <= puller->now_ns &&
           (list_empty(&pool->missing) ||
            can_be_taken(puller, model)); /* Not if all of them hang. */
}

void pool_wide_begin(struct pool *pool, struct instance *instance)
{
    instance->model->holds_ns = 0;
    instance->places = instance->model->width;
    pool->places_taken += instance->places;
}

void pool_wide_end(struct pool *pool, struct instance *instance)
{
    pool->places_taken -= instance->places;
    instance->places = 0;
}
