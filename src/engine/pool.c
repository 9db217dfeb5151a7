/*
 * Pulling.
 *
 * Everything here is a few list operations under one lock.  Three invariants
 * hold whenever the lock is free:
 *
 *  1. A model stands in `ready`, `limited` or `delayed` exactly when it has requests in
 *     line, a free instance, and no home that promised to run them inline.
 *  2. A request is in exactly one place: its model's line (WAITING), a batch
 *     (RUNNING), or on its way home (ENDED).
 *  3. An executor in `idle` sleeps or is about to look again.
 *
 * Waking is a chain: a kick wakes one executor, and each one that finds more
 * work than it takes wakes the next, so that nobody is woken for nothing.
 */
#include "engine/pool.h"

#include <assert.h>

#include "engine/batcher.h"
#include "engine/executor.h"
#include "engine/rate.h"
#include "engine/sequence.h"
#include "engine/stats.h"
#include "util/mem.h"

#define INLINE_NS (40 * NS_PER_US) /* A hand-off to an idle core costs about as much. */

static struct request *head_of(const struct model *model)
{
    return list_entry(list_first(&model->waiting), struct request, line);
}

/* Moves finished requests to their homes: neighbours of one home travel as one message. */
static void send_home(struct list *ended)
{
    struct list_node *node = list_pop(ended);
    while (node != NULL) {
        struct request *request = list_entry(node, struct request, line);
        struct home *home = request->home;
        struct mail *first = &request->end_mail.mail;
        struct mail *last = first;
        for (node = list_pop(ended); node != NULL; node = list_pop(ended)) {
            request = list_entry(node, struct request, line);
            if (request->home != home) {
                break;
            }
            last->next = &request->end_mail.mail;
            last = last->next;
        }
        last->next = NULL;
        home_send_chain(home, first, last);
    }
}

static const char *stop_text(enum weir_status why)
{
    switch (why) {
    case WEIR_ETIMEOUT:
        return "the deadline passed while waiting";
    case WEIR_EFULL:
        return "waited longer than the queue's time-out";
    case WEIR_ECONFLICT:
        return "an earlier request of its sequence came to nothing, the sequence is over";
    default:
        return weir_status_text(why);
    }
}

/* Lock held: WAITING -> ENDED, out of whatever line it stands in. */
static void end_one(struct pool *pool, struct request *request, enum weir_status status,
                    uint64_t now_ns, struct list *ended)
{
    struct model *model = request->model;
    assert(request->state == REQUEST_WAITING);
    list_remove(&request->line);
    model->waiting_count--;
    model->waiting_rows -= request->rows;
    model->waiting_bytes -= request->input_bytes;
    pool->waiting--;
    request->state = REQUEST_ENDED;
    request->times.ended_ns = now_ns;
    request->status = err_set(&request->err, status, "%s", stop_text(status));
    stats_count_failure(&model->stats, status, now_ns - request->times.submitted_ns);
    list_append(ended, &request->line);
}

/* Lock held: what waits behind a request of its sequence that came to nothing. */
static void end_followers(struct pool *pool, struct list *followers, uint64_t now_ns,
                          struct list *ended)
{
    for (struct list_node *n = list_first(followers); n != NULL; n = list_first(followers)) {
        end_one(pool, list_entry(n, struct request, line), WEIR_ECONFLICT, now_ns, ended);
    }
}

/* Lock held: a request in line goes, and with it what cannot run without it. */
static void end_waiting(struct pool *pool, struct request *request, enum weir_status status,
                        uint64_t now_ns, struct list *ended)
{
    struct list followers;
    list_init(&followers);
    if (request->model->sequences != NULL) {
        sequencer_withdraw(request->model->sequences, request, now_ns, &followers);
    }
    end_one(pool, request, status, now_ns, ended);
    end_followers(pool, &followers, now_ns, ended);
}

static enum weir_status lateness(const struct request *request, uint64_t now_ns)
{
    return request->deadline_ns <= now_ns ? WEIR_ETIMEOUT : WEIR_EFULL;
}

/* Lock held: drops what has waited too long. */
static void expire(struct pool *pool, struct model *model, uint64_t now_ns, struct list *ended)
{
    if (model->leave_next_ns > now_ns) {
        return;
    }
    if (model->sequences != NULL) {
        for (struct request *late = sequencer_late(model->sequences, now_ns, &model->leave_next_ns);
             late != NULL; late = sequencer_late(model->sequences, now_ns, &model->leave_next_ns)) {
            end_waiting(pool, late, lateness(late, now_ns), now_ns, ended);
        }
        return;
    }
    model->leave_next_ns = CLOCK_NEVER;
    struct list_node *next;
    for (struct list_node *n = list_first(&model->waiting); n != NULL; n = next) {
        struct request *request = list_entry(n, struct request, line);
        next = list_next(&model->waiting, n);
        if (request->leave_by_ns > now_ns) {
            model->leave_next_ns = request->leave_by_ns < model->leave_next_ns
                                       ? request->leave_by_ns
                                       : model->leave_next_ns;
        } else {
            end_one(pool, request, lateness(request, now_ns), now_ns, ended);
        }
    }
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint64_t share_of(const struct model *model, uint32_t takers)
{
    return takers <= 1 ? model->waiting_rows : (model->waiting_rows + takers - 1) / takers;
}

/* The most rows worth taking at once.  While other executors sleep that could run this model, each gets
 * its share of what waits: a run that leaves them idle would only end later.  Where even a share costs
 * more for its rows than for the run itself, those that are busy get theirs too.  Who configures a
 * delay or preferred sizes has decided otherwise. */
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
    const uint64_t fair = share_of(model, smaller(pool->executor_count, model->instance_count));
    const uint64_t share =
        profile_rows_dominate(&model->profile, key, fair)
            ? fair
            : share_of(model, smaller(takers, model->instance_count - model->running));
    return share < useful ? share : useful;
}

/* `takers`: executors that could take of this model's line now, the asking one included. */
static struct batch_plan plan(const struct pool *pool, const struct model *model, uint32_t takers,
                              uint64_t now_ns)
{
    const struct model_config *config = model->config;
    const struct batch_rules rules = {
        .rows_max = rows_worth(pool, model, takers),
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

/* Lock held: invariant 1 for a model with sequences; it is looked at again also to drop idle ones. */
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
static void place(struct pool *pool, struct model *model, uint64_t now_ns)
{
    step_out(pool, model);
    if (model->sequences != NULL) {
        place_sequences(pool, model, now_ns);
        return;
    }
    if (model->waiting_count == 0 || model->instances_free == NULL || model->inline_home != NULL) {
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
        taken++;
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
                             .taken_ns = now_ns };
    list_init(&batch->members);
    if (turn == NULL) {
        board(model, riders, batch);
    } else {
        sequencer_take(model->sequences, turn, batch);
    }
    for (struct list_node *n = list_first(&batch->members); n != NULL;
         n = list_next(&batch->members, n)) {
        struct request *request = list_entry(n, struct request, line);
        request->state = REQUEST_RUNNING;
        request->batch = batch;
        model->waiting_bytes -= request->input_bytes;
    }
    model->waiting_count -= riders->count;
    model->waiting_rows -= riders->rows;
    pool->waiting -= riders->count;
    pool->running += riders->count;
    model->running++;
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
            place(pool, model, now_ns);
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
static struct model *next_model(const struct pool *pool)
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
    if (model->claim == NULL) {
        return take_best(pool, model, now_ns);
    }
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

static struct instance *pull(struct pool *pool, uint64_t now_ns, uint64_t *wake_ns,
                             struct list *ended)
{
    promote(pool, now_ns);
    for (struct model *model = next_model(pool); model != NULL; model = next_model(pool)) {
        const uint32_t count = model->waiting_count;
        expire(pool, model, now_ns, ended);
        struct instance *instance =
            model->waiting_count == count ? take_limited(pool, model, now_ns) : NULL;
        place(pool, model, now_ns); /* It owed its place to requests that are gone. */
        if (instance != NULL) {
            return instance;
        }
    }
    const struct heap_node *next = heap_top(&pool->delayed);
    *wake_ns = next == NULL ? CLOCK_NEVER : next->key;
    return NULL;
}

struct instance *pool_pull(struct pool *pool, uint64_t now_ns, uint64_t *wake_ns)
{
    struct list ended;
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    struct instance *instance = pull(pool, now_ns, wake_ns, &ended);
    pthread_mutex_unlock(&pool->lock);
    send_home(&ended);
    return instance;
}

struct instance *pool_pull_model(struct pool *pool, struct model *model, uint64_t now_ns)
{
    struct list ended;
    list_init(&ended);
    struct instance *instance = NULL;
    pthread_mutex_lock(&pool->lock);
    expire(pool, model, now_ns, &ended);
    if (model->waiting_count > 0 && model->instances_free != NULL) {
        const struct batch_plan riders = plan(pool, model, 1, now_ns);
        uint64_t predicted_ns;
        if (profile_predict_ns(&model->profile, riders.shape_key, riders.rows, &predicted_ns) &&
            predicted_ns <= INLINE_NS) {
            instance = take(pool, model, &riders, NULL, now_ns);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    send_home(&ended);
    return instance;
}

void pool_release_inline(struct pool *pool, struct model *model)
{
    pthread_mutex_lock(&pool->lock);
    model->inline_home = NULL;
    place(pool, model, clock_now_ns(pool->engine->clock));
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
    const uint64_t held = pool->waiting + pool->running;
    if (held >= pool->engine->limits->requests_total_max) {
        return err_set(err, WEIR_EFULL, "device '%s' has %llu requests in hand, the most it takes",
                       pool->name, (unsigned long long)held);
    }
    return WEIR_OK;
}

enum weir_status pool_push(struct pool *pool, struct request *request, bool inline_run,
                           struct weir_err *err)
{
    struct model *model = request->model;
    pthread_mutex_lock(&pool->lock);
    enum weir_status status = admit(pool, model, request, err);
    if (status == WEIR_OK && model->sequences != NULL) {
        status = sequencer_push(model->sequences, request, request->times.submitted_ns, err);
    }
    if (status != WEIR_OK) {
        pthread_mutex_unlock(&pool->lock);
        return status;
    }
    if (inline_run && model->inline_home == NULL && runs_inline(model, request)) {
        model->inline_home = request->home;
        model_acquire(model); /* The home looks at it when all its requests may have ended. */
        list_append(&request->home->inline_models, &model->inline_node);
    }
    request->state = REQUEST_WAITING;
    if (model->sequences == NULL) {
        list_append(&model->waiting, &request->line);
    }
    model->waiting_count++;
    model->waiting_rows += request->rows;
    model->waiting_bytes += request->input_bytes;
    model->leave_next_ns =
        request->leave_by_ns < model->leave_next_ns ? request->leave_by_ns : model->leave_next_ns;
    pool->waiting++;
    if (!model->ready.in || model->delayed) {
        place(pool, model, request->times.submitted_ns);
    }
    pthread_mutex_unlock(&pool->lock);
    return WEIR_OK;
}

/* Lock held: an executor to wake for the work there is, or NULL. */
static struct executor *executor_for_work(struct pool *pool)
{
    const struct heap_node *later = heap_top(&pool->delayed);
    if (next_model(pool) == NULL && (later == NULL || later->key >= pool->watch_ns)) {
        return NULL; /* What is delayed has somebody who wakes up for it. */
    }
    struct list_node *node = list_pop(&pool->idle);
    if (node == NULL) {
        return NULL;
    }
    pool->idle_count--;
    return list_entry(node, struct executor, idle);
}

void pool_kick(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct executor *executor = executor_for_work(pool);
    pthread_mutex_unlock(&pool->lock);
    if (executor != NULL) {
        pthread_cond_signal(&executor->wake);
    }
}

static void release_outputs(struct request *request)
{
    for (uint32_t i = 0; i < request->model->signature->output_count; i++) {
        tensor_release(&request->outputs[i]);
    }
}

/* Lock held: RUNNING -> ENDED.  A request that was asked to stop has no answer any more. */
static void end_running(struct request *request, uint64_t now_ns)
{
    assert(request->state == REQUEST_RUNNING);
    request->state = REQUEST_ENDED;
    request->batch = NULL;
    request->times.ended_ns = now_ns;
    if (request->stop != WEIR_OK) {
        request->status =
            err_set(&request->err, request->stop, "%s",
                    request->stop == WEIR_ETIMEOUT ? "the deadline passed while it ran"
                                                   : weir_status_text(request->stop));
    }
}

static void learn(struct model *model, const struct batch *batch)
{
    if (batch->clean) {
        profile_observe(&model->profile, batch->shape_key, batch->rows,
                        batch->computed_ns - batch->gathered_ns);
    }
    if (batch->rows_too_many > 0) {
        profile_cap(&model->profile, batch->shape_key, batch->rows_too_many);
    }
    if (batch->dependent) {
        model->batching_reason = "a batch of several requests gave outputs without one row each";
        model->batching = false;
    }
}

/* The members of a run are on their way home: their sequences go on, or are over. */
static void settle_sequences(struct pool *pool, struct model *model, struct list *sequences,
                             uint64_t now_ns)
{
    struct list followers;
    struct list ended;
    list_init(&followers);
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    sequencer_settle(model->sequences, sequences, now_ns, &followers);
    end_followers(pool, &followers, now_ns, &ended);
    place(pool, model, now_ns);
    struct executor *next = executor_for_work(pool);
    pthread_mutex_unlock(&pool->lock);
    if (next != NULL) {
        pthread_cond_signal(&next->wake);
    }
    send_home(&ended);
}

/* Lock held: what the members' ends mean for their sequences. */
static void note_sequences(struct instance *instance, struct list *sequences)
{
    sequencer_release(instance->model->sequences, instance);
    for (struct list_node *n = list_first(&instance->batch.ended); n != NULL;
         n = list_next(&instance->batch.ended, n)) {
        sequencer_note(list_entry(n, struct request, line), sequences);
    }
}

void pool_settle(struct pool *pool, struct instance *instance, uint64_t now_ns)
{
    struct model *model = instance->model;
    struct batch *batch = &instance->batch;
    struct list ended;
    struct list sequences;
    bool shared = false; /* Other devices may want what the run held. */
    list_init(&ended);
    list_init(&sequences);
    now_ns = now_ns < batch->computed_ns ? batch->computed_ns : now_ns;

    pthread_mutex_lock(&pool->lock);
    for (struct list_node *n = list_first(&batch->ended); n != NULL;
         n = list_next(&batch->ended, n)) {
        end_running(list_entry(n, struct request, line), now_ns);
    }
    if (model->claim != NULL) {
        rate_give(pool->engine->rates, model->claim);
        shared = model->claim->global;
    }
    if (model->sequences != NULL) {
        note_sequences(instance, &sequences);
        model_acquire(model); /* Its requests are home before its sequences are settled. */
    }
    learn(model, batch);
    pool->running -= batch->count;
    model->running--;
    list_splice(&ended, &batch->ended);
    const struct batch counted = *batch;
    instance->next = model->instances_free;
    model->instances_free = instance;
    place(pool, model, now_ns);
    struct executor *next = executor_for_work(pool);
    pthread_mutex_unlock(&pool->lock);

    if (next != NULL) {
        pthread_cond_signal(&next->wake);
    }
    for (uint32_t i = 0; shared && i < pool->engine->pool_count; i++) {
        pool_kick(pool->engine->pools[i]);
    }
    stats_count_batch(model, &counted);
    for (struct list_node *n = list_first(&ended); n != NULL; n = list_next(&ended, n)) {
        struct request *request = list_entry(n, struct request, line);
        if (request->status != WEIR_OK) {
            release_outputs(request);
        }
        stats_count_request(model, request);
    }
    send_home(&ended);
    if (!list_empty(&sequences)) {
        settle_sequences(pool, model, &sequences, now_ns);
        model_release(model);
    }
}

bool pool_stop_request(struct pool *pool, struct request *request, enum weir_status why)
{
    struct list ended;
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    const bool running = request->state == REQUEST_RUNNING && request->stop == WEIR_OK;
    struct executor *executor = NULL;
    if (request->state == REQUEST_WAITING) {
        end_waiting(pool, request, why, clock_now_ns(pool->engine->clock), &ended);
        place(pool, request->model, clock_now_ns(pool->engine->clock));
        /* A place that its sequence had may have gone to another one. */
        executor = request->model->sequences == NULL ? NULL : executor_for_work(pool);
    } else if (running && why != WEIR_EFULL) {
        request->stop = why;
        if (--request->batch->wanting == 0) {
            struct instance *instance = list_entry(request->batch, struct instance, batch);
            backend_terminate(instance->context);
        }
        pthread_cond_broadcast(&pool->parts);
    }
    pthread_mutex_unlock(&pool->lock);
    if (executor != NULL) {
        pthread_cond_signal(&executor->wake);
    }
    send_home(&ended);
    return running;
}

/* Lock held: sleeps until woken, or until `wake_ns`. */
static void sleep_idle(struct pool *pool, struct executor *executor, uint64_t wake_ns)
{
    list_prepend(&pool->idle, &executor->idle);
    pool->idle_count++;
    if (wake_ns == CLOCK_NEVER) {
        pthread_cond_wait(&executor->wake, &pool->lock);
    } else {
        const struct timespec at = {
            .tv_sec = (time_t)(wake_ns / NS_PER_S),
            .tv_nsec = (long)(wake_ns % NS_PER_S),
        };
        pool->watch_ns = wake_ns < pool->watch_ns ? wake_ns : pool->watch_ns;
        (void)pthread_cond_timedwait(&executor->wake, &pool->lock, &at);
        if (pool->watch_ns == wake_ns) {
            pool->watch_ns = CLOCK_NEVER; /* Who sleeps longer is woken for nothing at most. */
        }
    }
    if (list_linked(&executor->idle)) { /* Nobody woke it: the time did. */
        list_remove(&executor->idle);
        pool->idle_count--;
    }
}

struct instance *pool_next(struct pool *pool, struct executor *executor)
{
    struct instance *instance = NULL;
    struct list ended;
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    while (!pool->stopping && instance == NULL) {
        uint64_t wake_ns = CLOCK_NEVER;
        instance = pull(pool, clock_now_ns(pool->engine->clock), &wake_ns, &ended);
        if (!list_empty(&ended)) {
            pthread_mutex_unlock(&pool->lock);
            send_home(&ended);
            pthread_mutex_lock(&pool->lock);
        } else if (instance == NULL) {
            sleep_idle(pool, executor, wake_ns);
        }
    }
    struct executor *more = instance == NULL ? NULL : executor_for_work(pool);
    pthread_mutex_unlock(&pool->lock);
    if (more != NULL) {
        pthread_cond_signal(&more->wake);
    }
    return instance;
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
    pool->thread_count = options->executors * (options->pipelined ? 2 : 1);
    pool->device_free = options->executors;
    pool->watch_ns = CLOCK_NEVER;
    pool->executors = mem_alloc(pool->thread_count * sizeof(*pool->executors));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->device, NULL);
    pthread_cond_init(&pool->parts, NULL);
    list_init(&pool->idle);
    list_init(&pool->limited);
    for (uint32_t i = 0; i < pool->thread_count; i++) {
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
    for (uint32_t i = 0; i < pool->thread_count; i++) {
        executor_join(&pool->executors[i]);
    }
    assert(pool->waiting == 0 && pool->running == 0);
    pthread_cond_destroy(&pool->parts);
    pthread_cond_destroy(&pool->device);
    pthread_mutex_destroy(&pool->lock);
    mem_free(pool->executors);
    mem_free(pool);
}
