/*
 * Pulling.
 *
 * Everything here is a few list operations under one lock.  Three invariants
 * hold whenever the lock is free:
 *
 *  1. A model stands in `ready`, `limited` or `delayed` exactly when it has requests in
 *     line, a free instance, fewer runs than pay, and no home that promised to run them inline.
 *  2. A request is in exactly one place: its model's line (WAITING), a batch
 *     (RUNNING), or on its way home (ENDED).
 *  3. An executor in `idle` sleeps or is about to look again.
 */
#include "engine/pool.h"

#include <assert.h>

#include "engine/batcher.h"
#include "engine/executor.h"
#include "engine/join.h"
#include "engine/pool_impl.h"
#include "engine/rate.h"
#include "engine/sequence.h"
#include "util/mem.h"

#define INLINE_NS (40 * NS_PER_US) /* A hand-off to an idle core costs about as much. */

static struct request *head_of(const struct model *model)
{
    return list_entry(list_first(&model->waiting), struct request, line);
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint64_t share_of(const struct model *model, uint32_t takers)
{
    return takers <= 1 ? model->waiting_rows : (model->waiting_rows + takers - 1) / takers;
}

/* The most rows worth taking at once.  While other executors sleep that could run this model,
 * each gets its share of what waits: a run that leaves them idle would only end later.  Where
 * even a share costs more for its rows than for the run itself, those that are busy get theirs
 * too.  Who configures a delay or preferred sizes has decided otherwise. */
static uint64_t rows_worth(const struct pool *pool, const struct model *model, uint32_t takers)
{
    const struct model_config *config = model->config;
    const uint64_t key = head_of(model)->shape_key;
    const uint32_t configured = config->max_batch_size > 0 ? (uint32_t)config->max_batch_size : 1;
    if (config->queue_delay_ns > 0 || config->preferred_count > 0) {
        const uint32_t cap = profile_rows_cap(&model->profile, key);
        return cap > 0 ? smaller(cap, configured) : configured;
    }
    const uint64_t useful = profile_rows_useful(&model->profile, key, configured);
    const uint32_t most = smaller(pool->executor_count, model->runs_max);
    const uint32_t left = model->runs_max > model->running ? model->runs_max - model->running : 1;
    const uint64_t fair = share_of(model, most);
    const uint64_t share = profile_rows_dominate(&model->profile, key, fair)
                               ? fair
                               : share_of(model, smaller(smaller(takers, most), left));
    return share < useful ? share : useful;
}

/* `takers`: executors that could take of this model's line now, the asking one included. */
static struct batch_plan plan(const struct pool *pool, const struct model *model, uint32_t takers,
                              uint64_t now_ns)
{
    const struct model_config *config = model->config;
    const struct batch_rules rules = {
        .rows_max = overload_rows(model, head_of(model), rows_worth(pool, model, takers), now_ns),
        .preferred = config->preferred,
        .preferred_count = config->preferred_count,
        .delay_ns = config->queue_delay_ns,
    };
    return batcher_plan(&model->waiting, &rules, now_ns);
}

/* Lock held: the model stands in no heap and no list. */
static void step_out(struct pool *pool, struct model *model)
{
    heap_remove(model->delayed ? &pool->delayed : &pool->ready, &model->ready);
    if (model->claim != NULL) {
        list_remove(&model->claim->node);
    }
}

/* Lock held: the model stands where its `delayed` and `ready.key` say. */
static void stand(struct pool *pool, struct model *model)
{
    struct rate_claim *claim = model->claim;
    if (claim == NULL || model->delayed) {
        heap_push(model->delayed ? &pool->delayed : &pool->ready, &model->ready);
        return;
    }
    /* Who did not want to run does not save up for later. */
    claim->share = claim->share < pool->share ? pool->share : claim->share;
    list_append(&pool->limited, &claim->node);
}

/* Lock held: invariant 1 for a model with sequences; it is looked at again also to drop idle
 * ones. */
static void place_sequences(struct pool *pool, struct model *model, uint64_t now_ns)
{
    const struct sequence_turn turn = sequencer_next(model->sequences, now_ns);
    model->delayed = !turn.ready;
    model->ready.key = turn.ready ? turn.key_ns : turn.again_ns;
    if (model->ready.key != CLOCK_NEVER) {
        stand(pool, model);
    }
}

/* Lock held: restores invariant 1 for one model. */
void pool_place(struct pool *pool, struct model *model, uint64_t now_ns)
{
    step_out(pool, model);
    if (model->sequences != NULL) {
        place_sequences(pool, model, now_ns);
        return;
    }
    if (model->waiting_count == 0 || model->instances_free == NULL ||
        model->running >= model->runs_max || model->inline_home != NULL) {
        return;
    }
    model->delayed = false;
    model->ready.key = head_of(model)->times.submitted_ns;
    if (model->config->queue_delay_ns > 0) {
        const struct batch_plan next = plan(pool, model, 1, now_ns);
        model->delayed = next.leave_ns > now_ns;
        model->ready.key = model->delayed ? next.leave_ns : model->ready.key;
    }
    stand(pool, model);
}

/* Lock held: a free instance, or that one, which is free. */
static struct instance *take_instance(struct model *model, struct instance *wanted)
{
    struct instance **link = &model->instances_free;
    while (wanted != NULL && *link != wanted) {
        link = &(*link)->next;
    }
    struct instance *instance = *link;
    *link = instance->next;
    return instance;
}

/* Lock held: WAITING -> RUNNING. */
static void ride(struct model *model, struct batch *batch, struct request *request)
{
    request->state = REQUEST_RUNNING;
    request->batch = batch;
    model->waiting_bytes -= request->input_bytes;
}

/* Lock held: the riders leave the model's line for the batch. */
static void board(struct model *model, const struct batch_plan *riders, struct batch *batch)
{
    struct list_node *node = list_first(&model->waiting);
    for (uint32_t taken = 0; taken < riders->count;) {
        struct request *request = list_entry(node, struct request, line);
        node = list_next(&model->waiting, node);
        if (taken > 0 && (!request->batchable || request->shape_key != riders->shape_key)) {
            continue;
        }
        list_remove(&request->line);
        list_append(&batch->members, &request->line);
        ride(model, batch, request);
        taken++;
    }
}

/* Lock held: the same of a lane of sequences. */
static void board_turn(struct model *model, const struct sequence_turn *turn, struct batch *batch)
{
    sequencer_take(model->sequences, turn, batch);
    for (struct list_node *n = list_first(&batch->members); n != NULL;
         n = list_next(&batch->members, n)) {
        ride(model, batch, list_entry(n, struct request, line));
    }
}

/* Lock held: the planned riders leave the line for a free instance; `turn`: of which sequences. */
static struct instance *take(struct pool *pool, struct model *model,
                             const struct batch_plan *riders, const struct sequence_turn *turn,
                             uint64_t now_ns)
{
    struct instance *instance = take_instance(model, turn == NULL ? NULL : turn->lane->instance);
    struct batch *batch = &instance->batch;
    *batch = (struct batch){ .shape_key = riders->shape_key,
                             .count = riders->count,
                             .wanting = riders->count,
                             .rows = riders->rows,
                             .rows_cap = profile_rows_cap(&model->profile, riders->shape_key),
                             .taken_ns = now_ns };
    list_init(&batch->members);
    if (turn == NULL) {
        board(model, riders, batch);
    } else {
        board_turn(model, turn, batch);
    }
    model->waiting_count -= riders->count;
    model->waiting_rows -= riders->rows;
    pool->waiting -= riders->count;
    pool->running += riders->count;
    pool_scale_begin(pool, model, batch, now_ns);
    pool->batches++;
    model->running++;
    overload_run_starts(pool, model, batch);
    backend_rearm(instance->context);
    return instance;
}

/* Lock held: the best batch of one model that has something ready, or NULL. */
static struct instance *take_best(struct pool *pool, struct model *model, uint64_t now_ns)
{
    if (model->sequences != NULL) {
        const struct sequence_turn turn = sequencer_next(model->sequences, now_ns);
        return turn.ready ? take(pool, model, &turn.riders, &turn, now_ns) : NULL;
    }
    const struct batch_plan riders = plan(pool, model, pool->idle_count + 1, now_ns);
    return take(pool, model, &riders, NULL, now_ns);
}

/* Lock held: models whose wait for company is over become ready. */
static void promote(struct pool *pool, uint64_t now_ns)
{
    for (struct heap_node *top = heap_top(&pool->delayed); top != NULL && top->key <= now_ns;
         top = heap_top(&pool->delayed)) {
        struct model *model = list_entry(top, struct model, ready);
        if (model->sequences != NULL) {
            pool_place(pool, model, now_ns);
            continue;
        }
        heap_remove(&pool->delayed, top);
        model->delayed = false;
        top->key = head_of(model)->times.submitted_ns;
        stand(pool, model);
    }
}

/* Lock held: the limited model whose turn it is, if its resources are there now. */
static struct model *next_limited(const struct pool *pool)
{
    const struct rate_claim *best = NULL;
    for (const struct list_node *n = list_first(&pool->limited); n != NULL;
         n = list_next(&pool->limited, n)) {
        const struct rate_claim *claim = list_entry(n, struct rate_claim, node);
        best = best == NULL || claim->share < best->share ? claim : best;
    }
    return best != NULL && rate_free(pool->engine->rates, best) ? best->model : NULL;
}

/* Lock held: the model that has waited longest of those that could run, or NULL. */
static inline struct model *next_model(const struct pool *pool)
{
    const struct heap_node *top = heap_top(&pool->ready);
    struct model *first = top == NULL ? NULL : list_entry(top, struct model, ready);
    if (list_empty(&pool->limited)) {
        return first;
    }
    struct model *limited = next_limited(pool);
    return first == NULL || (limited != NULL && limited->ready.key < first->ready.key) ? limited
                                                                                       : first;
}

/* Lock held: as take_best(), with the resources that the run holds. */
static struct instance *take_limited(struct pool *pool, struct model *model, uint64_t now_ns)
{
    struct rate_limiter *rates = pool->engine->rates;
    if (!rate_take(rates, model->claim)) {
        return NULL; /* Another device was quicker. */
    }
    struct instance *instance = take_best(pool, model, now_ns);
    if (instance == NULL) {
        rate_give(rates, model->claim);
        return NULL;
    }
    pool->share = model->claim->share;
    model->claim->share += model->claim->priority;
    return instance;
}

struct instance *pool_pull_locked(struct pool *pool, uint64_t now_ns, uint64_t *wake_ns,
                                  struct list *ended)
{
    promote(pool, now_ns);
    for (struct model *model = next_model(pool); model != NULL; model = next_model(pool)) {
        const uint32_t count = model->waiting_count;
        pool_expire(pool, model, now_ns, ended);
        overload_drop(pool, model, now_ns, ended);
        struct instance *instance = model->waiting_count != count ? NULL
                                    : model->claim != NULL ? take_limited(pool, model, now_ns)
                                                           : take_best(pool, model, now_ns);
        pool_place(pool, model, now_ns); /* It owed its place to requests that are gone. */
        if (instance != NULL) {
            return instance;
        }
    }
    const struct heap_node *next = heap_top(&pool->delayed);
    *wake_ns = next == NULL ? CLOCK_NEVER : next->key;
    return NULL;
}

bool pool_has_work(const struct pool *pool)
{
    return next_model(pool) != NULL;
}

struct instance *pool_pull(struct pool *pool, uint64_t now_ns, uint64_t *wake_ns)
{
    struct list ended;
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    struct instance *instance = pool_pull_locked(pool, now_ns, wake_ns, &ended);
    pthread_mutex_unlock(&pool->lock);
    pool_send_home(&ended);
    return instance;
}

struct instance *pool_pull_model(struct pool *pool, struct model *model, uint64_t now_ns)
{
    struct list ended;
    list_init(&ended);
    struct instance *instance = NULL;
    pthread_mutex_lock(&pool->lock);
    pool_expire(pool, model, now_ns, &ended);
    if (model->waiting_count > 0 && model->instances_free != NULL) {
        const struct batch_plan riders = plan(pool, model, 1, now_ns);
        uint64_t predicted_ns;
        if (profile_predict_ns(&model->profile, riders.shape_key, riders.rows, &predicted_ns) &&
            predicted_ns <= INLINE_NS) {
            instance = take(pool, model, &riders, NULL, now_ns);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    pool_send_home(&ended);
    return instance;
}

void pool_release_inline(struct pool *pool, struct model *model)
{
    pthread_mutex_lock(&pool->lock);
    model->inline_home = NULL;
    pool_place(pool, model, clock_now_ns(pool->engine->clock));
    const bool work = model->ready.in;
    pthread_mutex_unlock(&pool->lock);
    if (work) {
        pool_kick(pool);
    }
    model_release(model);
}

/* Lock held: will `home` run this request itself at the end of its turn? */
static bool runs_inline(const struct model *model, const struct request *request)
{
    uint64_t predicted_ns;
    return model->waiting_count == 0 && model->instances_free != NULL &&
           profile_predict_ns(&model->profile, request->shape_key, request->rows, &predicted_ns) &&
           predicted_ns <= INLINE_NS;
}

uint32_t pool_level(const struct model_config *config, uint32_t priority)
{
    if (config->priority_levels <= 1) {
        return 0;
    }
    return priority >= 1 && priority <= config->priority_levels ? priority
                                                                : config->priority_default;
}

/* A level has its own limit only where its policy says so; then its requests are counted. */
static enum weir_status admit_level(const struct model *model, const struct request *request,
                                    struct weir_err *err)
{
    const struct queue_policy *levels = model->config->levels;
    const uint32_t level = request->priority;
    const uint32_t most = levels != NULL ? levels[level > 0 ? level - 1 : 0].requests_max : 0;
    if (most == 0) {
        return WEIR_OK;
    }
    uint32_t count = 0;
    for (const struct list_node *n = model->waiting.head.next; n != &model->waiting.head;
         n = n->next) {
        count += list_entry(n, const struct request, line)->priority == level ? 1 : 0;
    }
    return count < most
               ? WEIR_OK
               : err_set(err, WEIR_EFULL,
                         "model '%s' has %u requests of priority %u waiting, the most it takes",
                         model->name, count, level);
}

static enum weir_status admit(const struct pool *pool, const struct model *model,
                              const struct request *request, struct weir_err *err)
{
    if (model->waiting_count >= model->requests_max) {
        return err_set(err, WEIR_EFULL, "model '%s' has %u requests waiting, the most it takes",
                       model->name, model->waiting_count);
    }
    /* A line always takes one, so what waits may be above the limit by itself. */
    const bool full = model->waiting_bytes > model->bytes_max ||
                      request->input_bytes > model->bytes_max - model->waiting_bytes;
    if (model->waiting_count > 0 && full) {
        return err_set(err, WEIR_EFULL,
                       "model '%s' has %llu bytes of inputs waiting; %llu more are above the limit "
                       "of %llu",
                       model->name, (unsigned long long)model->waiting_bytes,
                       (unsigned long long)request->input_bytes,
                       (unsigned long long)model->bytes_max);
    }
    const uint64_t held = pool->waiting + pool->running + pool->joined;
    if (held >= pool->engine->limits->requests_total_max) {
        return err_set(err, WEIR_EFULL, "device '%s' has %llu requests in hand, the most it takes",
                       pool->name, (unsigned long long)held);
    }
    return WEIR_OK;
}

void pool_line_up(struct model *model, struct request *request)
{
    struct list_node *before = &model->waiting.head;
    while (before->prev != &model->waiting.head &&
           list_entry(before->prev, struct request, line)->priority > request->priority) {
        before = before->prev;
    }
    list_insert_before(before, &request->line);
}

enum weir_status pool_push(struct pool *pool, struct request *request, bool inline_run,
                           struct weir_err *err)
{
    struct model *model = request->model;
    struct list ended;
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    const bool joins = model->joining && request->keyed;
    request->priority = pool_level(model->config, request->priority);
    enum weir_status status = admit(pool, model, request, err);
    status = status == WEIR_OK ? admit_level(model, request, err) : status;
    if (status == WEIR_OK && joins && join_attach(pool, request)) {
        pthread_mutex_unlock(&pool->lock);
        return WEIR_OK;
    }
    status = status == WEIR_OK ? overload_admit(pool, model, request, &ended, err) : status;
    if (status == WEIR_OK && model->sequences != NULL) {
        status = sequencer_push(model->sequences, request, request->times.submitted_ns, err);
    }
    if (status != WEIR_OK) {
        if (!list_empty(&ended)) {
            pool_place(pool, model, request->times.submitted_ns);
        }
        pthread_mutex_unlock(&pool->lock);
        pool_send_home(&ended);
        return status;
    }
    if (inline_run && model->inline_home == NULL && runs_inline(model, request)) {
        model->inline_home = request->home;
        model_acquire(model); /* The home looks at it when all its requests may have ended. */
        list_append(&request->home->inline_models, &model->inline_node);
    }
    pool_note_arrival(pool, request->times.submitted_ns);
    request->state = REQUEST_WAITING;
    if (model->sequences == NULL) {
        pool_line_up(model, request);
    }
    if (joins) {
        join_lead(request);
    }
    overload_request_enters(request);
    model->waiting_count++;
    model->waiting_rows += request->rows;
    model->waiting_bytes += request->input_bytes;
    model->leave_next_ns =
        request->leave_by_ns < model->leave_next_ns ? request->leave_by_ns : model->leave_next_ns;
    pool->waiting++;
    if (!model->ready.in || model->delayed || request->priority > 0 || !list_empty(&ended)) {
        pool_place(pool, model, request->times.submitted_ns);
    }
    pthread_mutex_unlock(&pool->lock);
    pool_send_home(&ended);
    return WEIR_OK;
}

enum weir_status pool_create(struct engine *engine, const struct device_options *options,
                             uint32_t index, struct pool **out, struct weir_err *err)
{
    if (options->executors < 1) {
        return err_set(err, WEIR_EINVAL, "device '%s': executors is 0, expected at least 1",
                       options->name);
    }
    struct pool *pool = mem_alloc(sizeof(*pool));
    pool->name = options->name;
    pool->engine = engine;
    pool->index = index;
    pool->executor_count = options->executors;
    pool->pipelined = options->pipelined;
    pool_wake_init(pool);
    pool->thread_count = options->executors * (options->pipelined ? STAGE_DEPTH_FIRST : 1);
    const uint32_t threads_max = options->executors * (options->pipelined ? STAGE_DEPTH_MAX : 1);
    pool->executors = mem_alloc(threads_max * sizeof(*pool->executors));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->device, NULL);
    pthread_cond_init(&pool->parts, NULL);
    list_init(&pool->limited);
    list_init(&pool->runs);
    for (uint32_t i = 0; i < threads_max; i++) {
        pool->executors[i].pool = pool;
        pool->executors[i].cpu = options->first_cpu < 0 ? -1 : options->first_cpu + (int)i;
    }
    *out = pool;
    return WEIR_OK;
}

enum weir_status pool_start(struct pool *pool, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < pool->thread_count && status == WEIR_OK; i++) {
        status = executor_start(&pool->executors[i], err);
    }
    return status;
}

void pool_forget(struct pool *pool, struct model *model)
{
    pthread_mutex_lock(&pool->lock);
    step_out(pool, model);
    pthread_mutex_unlock(&pool->lock);
}

void pool_destroy(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_mutex_unlock(&pool->lock);
    const uint32_t threads_max = pool->executor_count * (pool->pipelined ? STAGE_DEPTH_MAX : 1);
    for (uint32_t i = 0; i < threads_max; i++) { /* One may have made a later one until now. */
        executor_join(&pool->executors[i]);
    }
    assert(pool->waiting == 0 && pool->running == 0 && pool->joined == 0);
    pthread_cond_destroy(&pool->parts);
    pthread_cond_destroy(&pool->device);
    pthread_mutex_destroy(&pool->lock);
    mem_free(pool->executors);
    mem_free(pool);
}
