/*
 * How requests end: in line, with their run, or because nobody wants them any more.
 */
#include <assert.h>

#include "engine/bucket.h"
#include "engine/cache.h"
#include "engine/executor.h"
#include "engine/join.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "engine/rate.h"
#include "engine/sequence.h"
#include "engine/stats.h"

#define OVERDUE_TEXT "the run took longer than the model's run_limit"

/* Takes the first of the list out; NULL: it is empty. */
static struct request *next_home(struct list *ended)
{
    struct list_node *node = list_pop(ended);
    return node == NULL ? NULL : list_entry(node, struct request, line);
}

/* Moves finished requests to their homes: neighbours of one home travel as one message. */
void pool_send_home(struct list *ended)
{
    for (struct request *request = next_home(ended); request != NULL;) {
        struct home *home = request->home;
        struct mail *first = &request->end_mail.mail;
        struct mail *last = first;
        for (request = next_home(ended); request != NULL && request->home == home;
             request = next_home(ended)) {
            last->next = &request->end_mail.mail;
            last = last->next;
        }
        last->next = NULL;
        home_send_chain(home, first, last);
    }
}

const char *pool_stop_text(enum weir_status why)
{
    switch (why) {
    case WEIR_ETIMEOUT:
        return "the deadline passed while waiting";
    case WEIR_EFULL:
        return "waited longer than the queue's time-out";
    case WEIR_ECONFLICT:
        return "an earlier request of its sequence came to nothing, the sequence is over";
    case WEIR_EUNAVAILABLE:
        return "a run of its model took longer than the run_limit and does not end";
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
    if (request->leads) {
        join_hand_over(pool, request, now_ns, ended);
    }
    if (request->lane != NULL) {
        line_remove(&model->line, request);
    }
    list_remove(&request->line);
    order_leave(&pool->order, request->payer, 1, now_ns);
    model->waiting_count--;
    model->waiting_rows -= request->rows;
    model->waiting_bytes -= request->input_bytes;
    pool->waiting--;
    request->state = REQUEST_ENDED;
    request->times.ended_ns = now_ns;
    request->status = status;
    if (status != WEIR_EOVERLOAD) { /* Whoever lets a request go says why. */
        (void)err_set(&request->err, status, "%s", pool_stop_text(status));
    }
    overload_request_ended(request);
    if (!request->canary) {
        stats_count_failure(&model->stats, status, now_ns - request->times.submitted_ns);
    }
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
void pool_end_waiting(struct pool *pool, struct request *request, enum weir_status status,
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

/* Lock held: the first in line whose deadline has passed, or NULL. */
static struct request *first_late(const struct model *model, uint64_t now_ns)
{
    const struct list_node *node = list_first(&model->line.due);
    struct request *first = node == NULL ? NULL : list_entry(node, struct request, due);
    return first != NULL && first->deadline_ns <= now_ns ? first : NULL;
}

/* Lock held: ends those whose queue's time-out is over. */
static bool expire_others(struct pool *pool, struct model *model, uint64_t now_ns,
                          struct list *ended)
{
    bool some = false;
    struct request *next;
    model->leave_next_ns = CLOCK_NEVER;
    for (struct request *request = line_first(&model->line); request != NULL; request = next) {
        next = line_next(&model->line, request);
        if (request->leave_by_ns <= now_ns) {
            end_one(pool, request, WEIR_EFULL, now_ns, ended);
            some = true;
        } else if (request->leave_by_ns < request->deadline_ns) {
            model->leave_next_ns = request->leave_by_ns < model->leave_next_ns
                                       ? request->leave_by_ns
                                       : model->leave_next_ns;
        }
    }
    return some;
}

static bool expire_sequences(struct pool *pool, struct model *model, uint64_t now_ns,
                             struct list *ended)
{
    bool some = false;
    for (struct request *late = sequencer_late(model->sequences, now_ns, &model->leave_next_ns);
         late != NULL; late = sequencer_late(model->sequences, now_ns, &model->leave_next_ns)) {
        pool_end_waiting(pool, late, lateness(late, now_ns), now_ns, ended);
        some = true;
    }
    return some;
}

bool pool_expire(struct pool *pool, struct model *model, uint64_t now_ns, struct list *ended)
{
    bool some = false;
    for (struct request *late = first_late(model, now_ns); late != NULL;
         late = first_late(model, now_ns)) {
        end_one(pool, late, WEIR_ETIMEOUT, now_ns, ended);
        some = true;
    }
    if (model->leave_next_ns > now_ns) {
        return some;
    }
    return (model->sequences != NULL ? expire_sequences(pool, model, now_ns, ended)
                                     : expire_others(pool, model, now_ns, ended)) ||
           some;
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
    request->lane = NULL;
    request->batch = NULL;
    request->times.ended_ns = now_ns;
    if (request->stop != WEIR_OK) {
        const char *text = request->stop == WEIR_ETIMEOUT   ? "the deadline passed while it ran"
                           : request->stop == WEIR_EBACKEND ? OVERDUE_TEXT
                                                            : weir_status_text(request->stop);
        request->status = err_set(&request->err, request->stop, "%s", text);
    }
    overload_request_ended(request);
}

/* Lock held: the run was stopped at its limit; nobody else has canceled it. */
static void note_overdue(const struct batch *batch, struct request *request)
{
    if (batch->overdue && request->status == WEIR_ECANCELED && request->stop == WEIR_OK) {
        request->status = err_set(&request->err, WEIR_EBACKEND, "%s", OVERDUE_TEXT);
    }
}

/* What the shape is, told once: profiles outlive their keys. */
static void name_shape(struct model *model, const struct batch *batch)
{
    struct profile_dims dims = { .known = true, .count = PROFILE_DIMS_NONE };
    if (model->sequences == NULL) {
        const struct request *any =
            list_entry(list_first(&batch->ended), const struct request, line);
        bucket_describe(model, any->inputs, &dims);
    }
    profile_name(&model->profile, batch->shape_key, &dims);
}

static void learn(struct instance *instance)
{
    struct model *model = instance->model;
    const struct batch *batch = &instance->batch;
    uint64_t ns;
    if (batch->learn_rows > 0 && replica_learn(instance, &ns)) {
        profile_note_unit(&model->profile, batch->shape_key,
                          (batch->rows + batch->count - 1) / batch->count);
        profile_observe(&model->profile, batch->shape_key, batch->learn_rows, ns);
        if (profile_is_unnamed(&model->profile, batch->shape_key)) {
            name_shape(model, batch);
        }
    }
    if (batch->rows_too_many > 1 && model->replica_count > 1) {
        replica_cap(instance->replica, batch->rows_too_many / 2); /* Others may have more memory. */
    } else if (batch->rows_too_many > 0) {
        profile_cap(&model->profile, batch->shape_key, batch->rows_too_many);
    }
    if (batch->dependent) {
        model->batching_reason = "a batch of several requests gave outputs without one row each";
        model->batching = false;
    }
}

/* Lock held: what the run has taken is charged, its members are no longer here. */
static void settle_account(struct pool *pool, struct model *model, const struct batch *batch,
                           uint64_t now_ns)
{
    const uint64_t ns =
        batch->computed_ns > batch->taken_ns ? batch->computed_ns - batch->taken_ns : 0;
    const int64_t more = (int64_t)(ns * model->width) - (int64_t)batch->charged_ns;
    if (batch->charged_ns == 0) {
        order_run(&pool->order, batch->class, batch->rivals, ns * model->width);
    } else {
        order_rerun(&pool->order, batch->class, batch->rivals, more, batch->owed);
    }
    pool_charge(pool, batch, &batch->ended, more, batch->charged_ns == 0);
    model->served_ns += (uint64_t)more;
    if (batch->payer != NULL) {
        order_leave(&pool->order, batch->payer, batch->count, now_ns);
        return;
    }
    const struct list *members[] = { &batch->ended, &batch->returned };
    for (uint32_t i = 0; i < 2; i++) {
        for (struct list_node *n = list_first(members[i]); n != NULL;
             n = list_next(members[i], n)) {
            order_leave(&pool->order, list_entry(n, struct request, line)->payer, 1, now_ns);
        }
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
    pool_place(pool, model, now_ns);
    struct executor *next = pool_executor_for_work(pool, now_ns);
    pthread_mutex_unlock(&pool->lock);
    if (next != NULL) {
        pthread_cond_signal(&next->wake);
    }
    pool_send_home(&ended);
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

/* Without the lock: the answer may serve again. */
static void remember(struct model *model, const struct request *request)
{
    const struct engine *engine = model->pool->engine;
    if (!model->cached || !cache_is_on(engine->cache)) {
        return;
    }
    const uint64_t from_ns = clock_now_ns(engine->clock);
    cache_keep(engine->cache, &request->key, model->serial, request);
    atomic_fetch_add_explicit(&model->stats.cache_miss.ns, clock_now_ns(engine->clock) - from_ns,
                              memory_order_relaxed);
}

/* Lock held: the members end, and what joined them. */
static void end_members(struct pool *pool, struct batch *batch, uint64_t now_ns, struct list *ended)
{
    for (struct list_node *n = list_first(&batch->ended); n != NULL;
         n = list_next(&batch->ended, n)) {
        struct request *request = list_entry(n, struct request, line);
        note_overdue(batch, request);
        if (request->leads) {
            join_answer(pool, request, now_ns, ended);
        }
        end_running(request, now_ns);
    }
}

/* Lock held: the run's instance, places and resources are free.  True: other devices may want what it held. */
static bool give_back(struct pool *pool, struct instance *instance)
{
    struct model *model = instance->model;
    const bool claims = model->claim != NULL;
    if (claims) {
        rate_give(pool->engine->rates, model->claim);
    }
    pool->running -= instance->batch.count;
    pool->batches--;
    pool_wide_end(pool, instance);
    model->running--;
    replica_put(instance);
    return claims && model->claim->global;
}

/* Without the lock: what ended counts, and answers may serve again. */
static void count_ended(struct model *model, const struct list *ended)
{
    struct stats_tally tally = { 0 };
    for (struct list_node *n = list_first(ended); n != NULL; n = list_next(ended, n)) {
        struct request *request = list_entry(n, struct request, line);
        if (request->status != WEIR_OK) {
            release_outputs(request);
        } else if (request->keyed) {
            remember(model, request);
        }
        stats_tally_request(&tally, model, request);
    }
    stats_count_tally(model, &tally);
}

void pool_settle(struct pool *pool, struct instance *instance, uint64_t now_ns)
{
    struct model *model = instance->model;
    struct batch *batch = &instance->batch;
    struct list ended;
    struct list sequences;
    list_init(&ended);
    list_init(&sequences);
    now_ns = now_ns < batch->computed_ns ? batch->computed_ns : now_ns;

    pthread_mutex_lock(&pool->lock);
    char lost[REPLICA_WHY_BYTES];
    const bool returns = !list_empty(&batch->returned);
    const bool tell = replica_settle(instance, now_ns, lost);
    if (returns) {
        model_acquire(model); /* Another executor may end what goes back in line. */
    }
    end_members(pool, batch, now_ns, &ended);
    if (batch->written_off) {
        pool_watch_return(pool, instance);
    }
    pool_watch_slow(instance);
    settle_account(pool, model, batch, now_ns);
    if (model->sequences != NULL) {
        note_sequences(instance, &sequences);
        model_acquire(model); /* Its requests are home before its sequences are settled. */
    }
    if (!batch->canary) {
        learn(instance);
        stats_count_batch(model, batch);
    }
    const struct pool_scale_news news = pool_scale_end(pool, instance, now_ns);
    overload_run_ended(model, batch, now_ns);
    list_splice(&ended, &batch->ended);
    const bool shared = give_back(pool, instance);
    replica_requeue(pool, batch, now_ns);
    pool_place(pool, model, now_ns);
    struct executor *next = pool_executor_for_work(pool, now_ns);
    pthread_mutex_unlock(&pool->lock);

    if (tell) {
        engine_advise(pool->engine, model, LOG_WARNING, lost);
    }
    if (next != NULL) {
        pthread_cond_signal(&next->wake);
    }
    for (uint32_t i = 0; shared && i < pool->engine->pool_count; i++) {
        pool_kick(pool->engine->pools[i]);
    }
    pool_scale_act(pool, model, news);
    count_ended(model, &ended);
    pool_send_home(&ended);
    if (!list_empty(&sequences)) {
        settle_sequences(pool, model, &sequences, now_ns);
        model_release(model);
    }
    if (returns) {
        model_release(model);
    }
}

void pool_unwant(struct request *request)
{
    if (--request->batch->wanting == 0) {
        struct instance *instance = list_entry(request->batch, struct instance, batch);
        backend_terminate(instance->context);
    }
}

/* Lock held.  True when it is running and was wanted until now. */
static bool stop(struct pool *pool, struct request *request, enum weir_status why, uint64_t now_ns,
                 struct list *ended)
{
    switch (request->state) {
    case REQUEST_WAITING:
        pool_end_waiting(pool, request, why, now_ns, ended);
        pool_place(pool, request->model, now_ns);
        return false;
    case REQUEST_JOINED:
        return join_stop(pool, request, why, now_ns, ended);
    case REQUEST_RUNNING:
        break;
    default:
        return false;
    }
    const bool wanted = request->stop == WEIR_OK;
    if (wanted && why != WEIR_EFULL) {
        request->stop = why;
        if (!join_goes_on(request)) {
            pool_unwant(request);
        }
        pthread_cond_broadcast(&pool->parts);
    }
    return wanted;
}

bool pool_stop_request(struct pool *pool, struct request *request, enum weir_status why)
{
    struct list ended;
    list_init(&ended);
    const uint64_t now_ns = clock_now_ns(pool->engine->clock);
    pthread_mutex_lock(&pool->lock);
    const bool running = stop(pool, request, why, now_ns, &ended);
    /* A place that its sequence had may have gone to another one. */
    struct executor *executor =
        request->model->sequences == NULL ? NULL : pool_executor_for_work(pool, now_ns);
    pthread_mutex_unlock(&pool->lock);
    if (executor != NULL) {
        pthread_cond_signal(&executor->wake);
    }
    pool_send_home(&ended);
    return running;
}
