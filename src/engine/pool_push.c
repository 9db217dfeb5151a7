/*
 * Getting in line: limits, classes, and what a home promises to run itself.
 */
#include "engine/join.h"
#include "engine/outage.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "engine/sequence.h"

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

uint32_t pool_level(const struct model_config *config, const struct request *request)
{
    const uint32_t levels = config->priority_levels;
    if (levels <= 1) {
        return 0;
    }
    const bool known = request->priority >= 1 && request->priority <= levels;
    const uint32_t best = request->priority_best < levels ? request->priority_best : levels;
    return larger(known ? request->priority : config->priority_default, best);
}

/* How urgent a request is against those of other models. */
static uint32_t class_of(const struct model_config *config, uint32_t level,
                         const struct request *request)
{
    const uint32_t asked = config->proto ? 0 : request->priority;
    const uint32_t preset = config->priority_default;
    uint32_t priority = ORDER_CLASS_DEFAULT + 1;
    if (level > 0) {
        priority = level;
    } else if (asked >= 1 && asked <= ORDER_CLASSES) {
        priority = asked;
    } else if (preset >= 1 && preset <= ORDER_CLASSES) {
        priority = preset;
    }
    priority = larger(priority, request->priority_best);
    return (priority < ORDER_CLASSES ? priority : ORDER_CLASSES) - 1;
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
    for (const struct request *waits = line_first(&model->line); waits != NULL;
         waits = line_next(&model->line, waits)) {
        count += waits->priority == level ? 1 : 0;
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
    if (model->written_off > 0) { /* Since the submit looked: what waited has just been let go. */
        return outage_check_locked(model, err);
    }
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

void pool_line_up(struct pool *pool, struct request *request, uint64_t now_ns)
{
    struct model *model = request->model;
    struct pool_order *order = &pool->order;
    const bool timed = request->deadline_ns != CLOCK_NEVER;
    request->payer = order_client(order, request->client, request->client_weight);
    order_enter(order, request->payer, request->class, now_ns);
    request->since_ns = request->times.submitted_ns;
    request->due_ns =
        timed ? request->deadline_ns : clock_add(request->since_ns, order->options.ageing_ns);
    request->state = REQUEST_WAITING;
    if (model->sequences == NULL) {
        line_push(&model->line, request);
    }
    overload_request_enters(request);
    model->waiting_count++;
    model->waiting_rows += request->rows;
    model->waiting_bytes += request->input_bytes;
    if (request->leave_by_ns < request->deadline_ns || model->sequences != NULL) {
        model->leave_next_ns = request->leave_by_ns < model->leave_next_ns ? request->leave_by_ns
                                                                           : model->leave_next_ns;
    }
    pool->waiting++;
}

/* Lock held: will `home` run this request itself at the end of its turn? */
static bool runs_inline(const struct model *model, const struct request *request)
{
    return model->waiting_count == 0 &&
           pool_is_short(model, request->shape_key, request->rows, request->times.submitted_ns);
}

/* Lock held: what has just come changes nothing about when the model may leave. */
static bool stays_ready(const struct model *model)
{
    return list_linked(&model->ready) && model->sequences == NULL &&
           model->config->queue_delay_ns == 0;
}

enum weir_status pool_push(struct pool *pool, struct request *request, bool inline_run,
                           struct weir_err *err)
{
    struct model *model = request->model;
    struct list ended;
    list_init(&ended);
    const uint32_t level = pool_level(model->config, request);
    request->class = class_of(model->config, level, request);
    request->priority = level;
    pthread_mutex_lock(&pool->lock);
    const bool joins = model->joining && request->keyed;
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
    if (model->inline_home !=
        request->home) { /* Else what the home leaves is kicked for by itself. */
        request->home->kick |= UINT64_C(1) << pool->index;
    }
    pool_note_arrival(pool, request->times.submitted_ns);
    pool_line_up(pool, request, request->times.submitted_ns);
    if (joins) {
        join_lead(request);
    }
    if (!stays_ready(model)) {
        pool_place(pool, model, request->times.submitted_ns);
    }
    pthread_mutex_unlock(&pool->lock);
    if (!list_empty(&ended)) {
        pool_send_home(&ended);
    }
    return WEIR_OK;
}

void pool_release_inline(struct pool *pool, struct model *model, uint64_t now_ns)
{
    pthread_mutex_lock(&pool->lock);
    model->inline_home = NULL;
    pool_place(pool, model, now_ns);
    const bool work = model->waiting_count > 0;
    pthread_mutex_unlock(&pool->lock);
    if (work) {
        pool_kick(pool);
    }
    model_release(model);
}
