/*
 * Where numbers of the pool meet the pure rules.
 *
 * An executor is expected to be free when the run on it should have ended; one that takes longer than
 * expected is counted as free now, so that a line is rather too long for a moment than refused for
 * nothing.  Runs of all models count, since they hold the executors; other models' lines do not.
 */
#include "engine/overload.h"

#include "engine/admission.h"
#include "engine/batch.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "engine/window.h"

/* Under pressure a run that is under way is expected to take so many times its usual sway longer: who is let
 * in and has to be let go after all waited in vain, and there is always somebody else.  While there is
 * room runs are taken to be as long as they are on average: a refusal is a certain loss. */
#define SWAYS 2
#define KEEPS_UP 0.9      /* Above this load a line grows. */
#define TRY_PAUSE_RUNS 10 /* Between trials of a model that seems too slow: a tenth of its time. */

#define MS(ns) ((double)(ns) / (double)NS_PER_MS)

static void count(_Atomic uint64_t *number)
{
    atomic_fetch_add_explicit(number, 1, memory_order_relaxed);
}

void overload_init(struct model *model)
{
    model->overload = (struct overload){
        .drops = model->config->overload == OVERLOAD_DROP && model->sequence_plan == NULL,
    };
    limiter_init(&model->overload.limiter, model->requests_max);
}

bool overload_cost(const struct model *model, const struct seat *seat, uint64_t shape_key,
                   struct pace_cost *out)
{
    double tau0_ns;
    double alpha_ns;
    if (!profile_fit(&model->profile, shape_key, &tau0_ns, &alpha_ns)) {
        return false;
    }
    const double pace = replica_pace(model, seat);
    *out = pace_cost(&model->overload.pace, tau0_ns * pace, alpha_ns * pace);
    return true;
}

static uint32_t rows_of_run(const struct model *model, const struct request *request)
{
    const int64_t most = model->config->max_batch_size;
    return request->batchable && most > 1
               ? profile_rows_useful(&model->profile, request->shape_key, (uint32_t)most)
               : 1;
}

/* The earliest deadline in line, or NULL. */
static struct request *head_of(const struct model *model)
{
    const struct list_node *first = list_first(&model->line.due);
    return first == NULL ? NULL : list_entry(first, struct request, due);
}

/* ---- Executors ------------------------------------------------------------------------------- */

/* The expected ends of the runs of `model`, NULL: of all, the latest `most` of them in ascending order. */
static uint32_t ends_of(const struct pool *pool, const struct model *model, uint32_t most,
                        uint64_t now_ns, uint32_t sways, uint64_t *ends)
{
    uint32_t count = 0;
    for (const struct list_node *n = pool->runs.head.prev; n != &pool->runs.head && count < most;
         n = n->prev) {
        const struct batch *batch = list_entry(n, struct batch, run);
        if (model == NULL || list_entry(batch, struct instance, batch)->model == model) {
            const uint64_t end_ns = clock_add(batch->expected_ns, sways * batch->sway_ns);
            ends[count++] = end_ns > now_ns ? end_ns : now_ns;
        }
    }
    for (uint32_t i = 0; i < count / 2; i++) {
        const uint64_t end = ends[i];
        ends[i] = ends[count - 1 - i];
        ends[count - 1 - i] = end;
    }
    return count;
}

/* Executors that may run the model at once. */
static uint32_t slots_count(const struct pool *pool, const struct model *model)
{
    const uint32_t most =
        pool->executor_count < model->runs_max ? pool->executor_count : model->runs_max;
    return most < ADMISSION_SLOTS_MAX ? most : ADMISSION_SLOTS_MAX;
}

/* When each executor may start a run of the model: it is free, and the model's own runs are fewer than may
 * be. */
static uint32_t slots_of(const struct pool *pool, const struct model *model, uint64_t now_ns,
                         uint32_t sways, uint64_t *free_ns)
{
    uint64_t busy[ADMISSION_SLOTS_MAX];
    uint64_t own[ADMISSION_SLOTS_MAX];
    const uint32_t executors =
        pool->executor_count < ADMISSION_SLOTS_MAX ? pool->executor_count : ADMISSION_SLOTS_MAX;
    const uint32_t slots = slots_count(pool, model);
    const uint32_t busy_count = ends_of(pool, NULL, executors, now_ns, sways, busy);
    const uint32_t own_count = ends_of(pool, model, slots, now_ns, sways, own);
    for (uint32_t i = 0; i < slots; i++) {
        const uint32_t idle = executors - busy_count;
        const uint32_t unused = slots - own_count;
        const uint64_t executor_ns = i < idle ? now_ns : busy[i - idle];
        const uint64_t own_ns = i < unused ? now_ns : own[i - unused];
        free_ns[i] = executor_ns > own_ns ? executor_ns : own_ns;
    }
    return slots;
}

static uint64_t first_free_ns(const struct pool *pool, const struct model *model, uint64_t now_ns)
{
    uint64_t free_ns[ADMISSION_SLOTS_MAX];
    return slots_of(pool, model, now_ns, 0, free_ns) > 0 ? free_ns[0] : now_ns;
}

/* ---- Letting go ------------------------------------------------------------------------------ */

static void let_go(struct pool *pool, struct request *request, uint64_t now_ns, struct list *ended)
{
    struct model *model = request->model;
    if (request->deadline_ns <= now_ns) {
        pool_end_waiting(pool, request, WEIR_ETIMEOUT, now_ns, ended);
        return;
    }
    count(&model->stats.dropped);
    (void)err_set(
        &request->err, WEIR_EOVERLOAD,
        "model '%s' is overloaded: after %.1f ms in line the deadline in %.1f ms leaves no "
        "time for a run",
        model->name, MS(now_ns - request->times.submitted_ns), MS(request->deadline_ns - now_ns));
    pool_end_waiting(pool, request, WEIR_EOVERLOAD, now_ns, ended);
}

bool overload_drop(const struct puller *puller, const struct request *leader, struct list *ended)
{
    struct model *model = leader->model;
    const struct list *due = &model->line.due;
    struct window_rules rules;
    if (!model->overload.drops || leader->deadline_ns == CLOCK_NEVER || leader->trial ||
        leader->lane == NULL ||
        !overload_cost(model, &puller->seat, leader->shape_key, &rules.cost)) {
        return false;
    }
    rules.rows_max = rows_of_run(model, leader);
    const uint32_t count = window_skip(due, leader, model->waiting_rows, &rules, puller->now_ns);
    const uint64_t key = leader->shape_key; /* It may go itself. */
    const uint32_t class_index = leader->class;
    const bool batchable = leader->batchable;
    uint32_t skip = count;
    for (struct list_node *n = list_first(due); skip > 0 && n != NULL;) {
        struct request *request = list_entry(n, struct request, due);
        n = list_next(due, n);
        const bool rides = batchable && request->batchable && request->shape_key == key;
        if (request->class >= class_index && (request == leader || rides)) {
            let_go(puller->pool, request, puller->now_ns, ended);
            skip--;
        }
    }
    return count > 0;
}

/* While all executors are busy nobody pulls; who cannot be served any more is told now. */
static void let_hopeless_go(struct pool *pool, struct model *model, uint64_t now_ns,
                            struct list *ended)
{
    struct pace_cost cost;
    for (struct request *head = head_of(model); head != NULL; head = head_of(model)) {
        if (head->trial || !overload_cost(model, &pool_no_seat, head->shape_key, &cost) ||
            !window_hopeless(head, &cost, first_free_ns(pool, model, now_ns))) {
            return;
        }
        let_go(pool, head, now_ns, ended);
    }
}

/* ---- Letting in ------------------------------------------------------------------------------ */

/* The limit is about this request. */
static bool limited(const struct model *model, const struct request *request)
{
    const enum limit_mode mode = model->config->adaptive_limit;
    return model->overload.drops &&
           (mode == LIMIT_ALL || (mode == LIMIT_AUTO && request->deadline_ns != CLOCK_NEVER));
}

static enum weir_status admit_limit(struct model *model, const struct request *request,
                                    struct weir_err *err)
{
    const uint32_t in_hand = model->overload.in_hand;
    if (!limited(model, request) || in_hand < limiter_limit(&model->overload.limiter)) {
        return WEIR_OK;
    }
    count(&model->stats.refused_limit);
    return err_set(
        err, WEIR_EOVERLOAD,
        "model '%s' is overloaded: %u requests are in hand, as many as it answers in time",
        model->name, in_hand);
}

/* More comes than the largest runs could serve. */
static bool pressed(const struct pool *pool, const struct model *model,
                    const struct admission *admission)
{
    const double run_ns = (double)pace_run_ns(&admission->cost, admission->rows_max);
    return admission->arriving * run_ns > (double)admission->rows_max * slots_count(pool, model);
}

/* Device time that whoever has used least has yet to use before it is this client's turn. */
static uint64_t ahead_ns(const struct order_client *payer, const struct heap_node *least)
{
    const struct order_client *first = list_entry(least, const struct order_client, active);
    return payer->held == 0 || payer->time <= least->key
               ? 0
               : (payer->time - least->key) / ORDER_TIME_PER_NS * first->weight;
}

/* Others have the rest of each run or, where its part of one would not hold the request, of the runs. */
static void leave_others_theirs(struct admission *admission, const struct request *request,
                                double part)
{
    const uint64_t all = admission->rows_max > request->rows ? admission->rows_max : request->rows;
    const double rows = (double)all * part;
    admission->rows_max = rows > (double)request->rows ? (uint64_t)rows : request->rows;
    const double its_rows = (double)admission->rows_max;
    admission->share *= rows < its_rows ? rows / its_rows : 1;
    admission->cost.alpha_ns *= (double)all / its_rows;
    admission->arriving *= part;
}

/* Clients take turns.  Who has not used up its part goes before those that hold the line: all that it waits
 * for are its own requests, at its part of the device, and the others until they have had as much.
 * Whoever has most in line will be let go for it. */
static bool fits_share(struct pool *pool, struct model *model, struct request *request,
                       struct admission *admission)
{
    struct pool_order *order = &pool->order;
    request->payer = order_client(order, request->client, request->client_weight);
    const struct order_client *payer = request->payer;
    const struct heap_node *least = heap_top(&order->active);
    const bool others = payer->held < pool->waiting + pool->running;
    if (!others || least == NULL) {
        return false;
    }
    uint64_t end_ns;
    const uint64_t wait_ns = ahead_ns(payer, least);
    admission->own = true;
    leave_others_theirs(admission, request, order_part(order, payer));
    admission->slots = slots_of(pool, model, admission->now_ns, 0, admission->free_ns);
    for (uint32_t i = 0; i < admission->slots; i++) {
        admission->free_ns[i] = clock_add(admission->free_ns[i], wait_ns);
    }
    return admission_check(&model->line.due, model->waiting_rows, request, admission,
                           &model->overload.tail, &end_ns) == ADMISSION_FITS;
}

/* A profile that promises too little would never be corrected if nothing ran: a model that has been idle for
 * long tries a request that should be late. */
static bool may_try(const struct model *model, struct request *request)
{
    const uint64_t now_ns = request->times.submitted_ns;
    if (model->waiting_count > 0 || model->running > 0 || now_ns < model->overload.try_ns) {
        return false;
    }
    request->trial = true;
    return true;
}

static enum weir_status admit_deadline(struct pool *pool, struct model *model,
                                       struct request *request, struct weir_err *err)
{
    struct admission admission = {
        .rows_max = rows_of_run(model, request),
        .now_ns = request->times.submitted_ns,
        .share = pace_share(&model->overload.pace),
        .arriving = model->overload.pace.arriving,
        .outranked = (model->line.mask & ((UINT32_C(1) << request->class) - 1)) != 0,
    };
    uint64_t end_ns;
    if (!overload_cost(model, &pool_no_seat, request->shape_key, &admission.cost)) {
        return WEIR_OK;
    }
    const bool scarce = pressed(pool, model, &admission);
    admission.cost.reserve = scarce ? admission.cost.reserve : 0;
    admission.slots =
        slots_of(pool, model, admission.now_ns, scarce ? SWAYS : 0, admission.free_ns);
    if (admission.slots == 0) {
        return WEIR_OK;
    }
    struct overload *overload = &model->overload;
    if (overload->tail_turns != pool->turns) {
        overload->tail.until_ns = 0;
        overload->tail_turns = pool->turns;
    }
    const enum admission_verdict verdict = admission_check(
        &model->line.due, model->waiting_rows, request, &admission, &overload->tail, &end_ns);
    if (verdict != ADMISSION_FITS && fits_share(pool, model, request, &admission)) {
        return WEIR_OK;
    }
    if (verdict == ADMISSION_FITS || may_try(model, request)) {
        return WEIR_OK;
    }
    count(&model->stats.refused_late);
    return err_set(err, WEIR_EOVERLOAD,
                   "model '%s' is overloaded: an answer is expected in %.1f ms, the deadline is in "
                   "%.1f ms%s",
                   model->name, MS(end_ns - admission.now_ns),
                   MS(request->deadline_ns - admission.now_ns),
                   verdict == ADMISSION_CROWDS ? ", and others in line would be late for it" : "");
}

enum weir_status overload_admit(struct pool *pool, struct model *model, struct request *request,
                                struct list *ended, struct weir_err *err)
{
    const uint64_t now_ns = request->times.submitted_ns;
    const bool timed = request->deadline_ns != CLOCK_NEVER;
    request->trial = false;
    if (!model->overload.drops || (!timed && model->config->adaptive_limit != LIMIT_ALL)) {
        return WEIR_OK;
    }
    if (timed) {
        pace_arrived(&model->overload.pace, request->rows, now_ns);
        let_hopeless_go(pool, model, now_ns, ended);
    }
    enum weir_status status = admit_limit(model, request, err);
    if (status == WEIR_OK && timed) {
        status = admit_deadline(pool, model, request, err);
    }
    return status;
}

uint64_t overload_share(const struct puller *puller, const struct model *model, uint64_t shape_key,
                        uint64_t share, uint64_t useful)
{
    struct pace_cost cost;
    if (!model->overload.drops || !overload_cost(model, &puller->seat, shape_key, &cost)) {
        return share;
    }
    const double served =
        (double)share / (double)pace_run_ns(&cost, share) * slots_count(puller->pool, model);
    return model->overload.pace.arriving > KEEPS_UP * served ? useful : share;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

uint64_t overload_rows(const struct puller *puller, const struct request *leader, uint64_t rows_max)
{
    const struct model *model = leader->model;
    struct window_rules rules = { .rows_max = rows_max };
    return model->overload.drops && leader->deadline_ns != CLOCK_NEVER && !leader->trial &&
                   overload_cost(model, &puller->seat, leader->shape_key, &rules.cost)
               ? window_rows(leader, &rules, puller->now_ns)
               : rows_max;
}

void overload_run_starts(struct pool *pool, struct model *model, struct batch *batch)
{
    struct pace_cost cost;
    double tau0_ns;
    double alpha_ns;
    batch->predicted_ns = 0;
    batch->lasts_ns = 0;
    batch->sway_ns = 0;
    if (profile_fit(&model->profile, batch->shape_key, &tau0_ns, &alpha_ns)) {
        const struct instance *instance = list_entry(batch, const struct instance, batch);
        const struct seat seat = { instance->replica->device, SEAT_NODE_ANY };
        const double pace = replica_pace(model, &seat);
        tau0_ns *= pace;
        alpha_ns *= pace;
        cost = pace_cost(&model->overload.pace, tau0_ns, alpha_ns);
        batch->predicted_ns = (uint64_t)(tau0_ns + alpha_ns * (double)batch->rows);
        batch->lasts_ns = pace_run_ns(&cost, batch->rows);
        batch->sway_ns = (uint64_t)(cost.reserve * (double)batch->lasts_ns);
    }
    batch->expected_ns = clock_add(batch->taken_ns, batch->lasts_ns);
    struct list_node *before = &pool->runs.head;
    while (before->prev != &pool->runs.head &&
           list_entry(before->prev, struct batch, run)->expected_ns > batch->expected_ns) {
        before = before->prev;
    }
    list_insert_before(before, &batch->run);
    pool->turns++;
}

void overload_run_ended(struct model *model, struct batch *batch, uint64_t now_ns)
{
    struct overload *overload = &model->overload;
    const struct list_node *first = list_first(&batch->ended);
    const uint64_t run_ns = now_ns - batch->taken_ns;
    list_remove(&batch->run);
    model->pool->turns++;
    model->pool->run_ns = run_ns;
    if (batch->canary) {
        return;
    }
    overload->try_ns = clock_add(now_ns, run_ns * TRY_PAUSE_RUNS);
    if (first != NULL) {
        const uint64_t since_ns = list_entry(first, struct request, line)->times.submitted_ns;
        pace_shared(&overload->pace, now_ns - batch->taken_ns, slots_count(model->pool, model),
                    since_ns, now_ns);
        pace_served(&overload->pace, batch->rows, since_ns, now_ns);
    }
    if (batch->clean) {
        pace_ran(&overload->pace, batch->predicted_ns, now_ns - batch->taken_ns);
    }
    limiter_turn(&overload->limiter, now_ns - batch->taken_ns, overload->in_hand + batch->count);
}

void overload_request_enters(struct request *request)
{
    struct model *model = request->model;
    request->limited = limited(model, request);
    model->overload.in_hand += request->limited ? 1 : 0;
}

void overload_request_ended(struct request *request)
{
    struct overload *overload = &request->model->overload;
    overload->tail.until_ns = 0;
    if (!request->limited) {
        return;
    }
    request->limited = false;
    overload->in_hand--;
    if (request->status == WEIR_OK || request->status == WEIR_ETIMEOUT) {
        const uint64_t came_ns = request->times.submitted_ns;
        limiter_ended(&overload->limiter, request->times.ended_ns - came_ns,
                      request->deadline_ns == CLOCK_NEVER ? CLOCK_NEVER
                                                          : request->deadline_ns - came_ns);
    }
}

uint64_t overload_drain_ns(const struct model *model)
{
    return pace_serve_ns(&model->overload.pace, model->waiting_rows);
}
