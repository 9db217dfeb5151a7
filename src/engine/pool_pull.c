/*
 * Pulling: whose turn it is, and who rides.
 *
 * Everything here is a few list operations under one lock.  Three invariants
 * hold whenever the lock is free:
 *
 *  1. A model stands in `ready`, `limited` or `delayed` exactly when it has requests in
 *     line, a free instance, fewer runs than pay, and no home that promised to run them inline;
 *     and in `delayed`, besides or alone, while it has requests in line and one of its devices is lost.
 *  2. A request is in exactly one place: its model's line (WAITING), a batch
 *     (RUNNING), or on its way home (ENDED).
 *  3. An executor in `idle` sleeps or is about to look again.
 *
 * A pull walks the models that are ready, not their lines: each says at once who would lead
 * for a class.  Models of one client that want the same class compete by when they are due, but one
 * that has had LEAD_NS more of the device than another waits for it, so that a model with a long line
 * cannot keep a client's other models waiting.  Who had less saves up SAVED_NS of that at most.
 *
 * Where a delay is configured, or sequences are served, who leads is decided when the model is
 * placed: what was found to be worth leaving is what then leaves.
 */
#include <assert.h>

#include "engine/batcher.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "engine/rate.h"
#include "engine/sequence.h"

const struct seat pool_no_seat = { SEAT_ANY, SEAT_NODE_ANY };

#define INLINE_NS (40 * NS_PER_US) /* A hand-off to an idle core costs about as much. */
#define SHORT_NS (500 * NS_PER_US) /* Runs as short as that need not be cut. */
#define LEAD_NS (5 * NS_PER_MS)
#define SAVED_NS (50 * NS_PER_MS)
#define ROW_NS (100 * NS_PER_US) /* What a row is taken for while nobody knows. */
/* Less urgent riders make a run longer by one part in so many of a blocking budget, by less where its
 * leader has waited for half of one.  Were they fewer, runs that urgent requests lead would stay small,
 * and the rest wait for a large one: both take longer than two of equal size (docs/performance.md, B6). */
#define GUEST_SHARE 5
#define GUEST_SHARE_LATE 8

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
static uint64_t rows_worth(const struct puller *puller, const struct model *model, uint64_t key,
                           uint32_t takers)
{
    const struct model_config *config = model->config;
    const uint32_t configured = config->max_batch_size > 0 ? (uint32_t)config->max_batch_size : 1;
    if (config->queue_delay_ns > 0 || config->preferred_count > 0) {
        const uint32_t cap = profile_rows_cap(&model->profile, key);
        return cap > 0 ? smaller(cap, configured) : configured;
    }
    const uint64_t useful = profile_rows_useful(&model->profile, key, configured);
    const uint32_t most = smaller(puller->pool->executor_count, model->runs_max);
    const uint32_t left = model->runs_max > model->running ? model->runs_max - model->running : 1;
    const uint64_t fair = share_of(model, most);
    const uint64_t share = profile_rows_dominate(&model->profile, key, fair)
                               ? fair
                               : share_of(model, smaller(smaller(takers, most), left));
    return share < useful ? overload_share(puller, model, key, share, useful) : useful;
}

/* The most rows of a run that takes no longer than `run_ns`, both by its profile alone and as runs
 * came out against it; at least 1.  Twice the reserve: others rely on it, and lose little by a
 * smaller run. */
static uint64_t rows_in_budget(const struct model *model, uint64_t key,
                               const struct pace_cost *cost, uint64_t run_ns)
{
    struct pace_cost strict = *cost;
    strict.reserve = 2 * cost->reserve;
    const uint64_t real = pace_rows_within(&strict, run_ns);
    const bool known = profile_fit(&model->profile, key, &strict.tau0_ns, &strict.alpha_ns);
    const uint64_t said = known ? pace_rows_within(&strict, run_ns) : real;
    const uint64_t rows = said < real ? said : real;
    return rows > 0 ? rows : 1;
}

/* Classes of which the model could run something. */
static uint32_t classes_of(const struct model *model)
{
    return model->head != NULL ? 1U << model->head->class : model->line.mask;
}

/* Another model could run something as urgent: its requests would pay for less urgent riders
 * here. */
static bool waits_elsewhere(const struct pool *pool, const struct model *model,
                            uint32_t class_index)
{
    const uint32_t urgent = (2U << class_index) - 1;
    for (const struct list_node *n = list_first(&pool->ready); n != NULL;
         n = list_next(&pool->ready, n)) {
        const struct model *other = list_entry(n, struct model, ready);
        if (other != model && (classes_of(other) & urgent) != 0) {
            return true;
        }
    }
    return false;
}

/* By how much less urgent riders may make a run longer that this request leads. */
static uint64_t guests_ns(const struct pool_order *order, const struct request *leader,
                          uint64_t now_ns)
{
    const uint64_t budget_ns = order->options.budget_ns;
    const bool late = now_ns > clock_add(leader->times.submitted_ns, budget_ns / 2);
    return budget_ns / (late ? GUEST_SHARE_LATE : GUEST_SHARE);
}

/* What the device of who pulls has memory for. */
static uint64_t rows_fitting(const struct puller *puller, const struct model *model, uint64_t rows)
{
    const uint64_t cap = puller->pool->uniform ? 0 : replica_rows_cap(model, &puller->seat);
    return cap > 0 && cap < rows ? cap : rows;
}

/* `takers`: executors that could take of this model's line now, the asking one included. */
static struct batch_plan plan(const struct puller *puller, struct model *model,
                              struct request *leader, uint32_t takers)
{
    const struct model_config *config = model->config;
    const struct pool_order *order = &puller->pool->order;
    const uint64_t now_ns = puller->now_ns;
    if (model->waiting_count == 1 && config->queue_delay_ns == 0) {
        return (struct batch_plan){ leader, 1, leader->rows, leader->shape_key, now_ns, false };
    }
    const uint64_t worth = rows_worth(puller, model, leader->shape_key, takers);
    struct pace_cost cost;
    struct batch_rules rules = {
        .rows_max = overload_rows(puller, leader, rows_fitting(puller, model, worth)),
        .preferred = config->preferred,
        .preferred_count = config->preferred_count,
        .delay_ns = config->queue_delay_ns,
    };
    const uint64_t run_ns = order_run_max_ns(order, leader->class, now_ns);
    const bool times_matter = run_ns != CLOCK_NEVER || !line_is_plain(&model->line);
    uint64_t row_ns = ROW_NS;
    uint64_t rows_guests = UINT64_MAX;
    if (times_matter && overload_cost(model, &puller->seat, leader->shape_key, &cost)) {
        const uint64_t rows = rows_in_budget(model, leader->shape_key, &cost, run_ns);
        rules.cost = model->overload.drops ? &cost : NULL;
        rules.rows_short = run_ns == CLOCK_NEVER ? 0 : rows;
        row_ns = cost.alpha_ns >= 1 ? (uint64_t)cost.alpha_ns : 1;
        rows_guests = guests_ns(order, leader, now_ns) / row_ns;
    }
    if (config->queue_delay_ns == 0 && model->line.mask >> leader->class > 1 &&
        waits_elsewhere(puller->pool, model, leader->class)) {
        rows_guests = 0;
    }
    struct batcher batcher;
    batcher_begin(&batcher, &rules, leader, now_ns);
    line_gather(&model->line, &batcher, row_ns, rows_guests);
    struct batch_plan riders = batcher_end(&batcher);
    riders.held = rules.rows_short > 0 && rules.rows_short < rules.rows_max && batcher.full &&
                  model->waiting_rows > riders.rows;
    return riders;
}

/* Lock held: it could be its turn, or it waits for places. */
static bool stands(const struct model *model)
{
    return list_linked(&model->ready) || list_linked(&model->wide) ||
           (model->claim != NULL && list_linked(&model->claim->node));
}

/* Lock held: the model stands nowhere. */
static void step_out(struct pool *pool, struct model *model)
{
    list_remove(&model->ready);
    list_remove(&model->wide);
    heap_remove(&pool->delayed, &model->again);
    model->holds_ns = model->waiting_count == 0 ? 0 : model->holds_ns;
    if (model->claim != NULL) {
        list_remove(&model->claim->node);
    }
    model->head = NULL;
}

void pool_forget(struct pool *pool, struct model *model)
{
    pthread_mutex_lock(&pool->lock);
    step_out(pool, model);
    pthread_mutex_unlock(&pool->lock);
}

/* Lock held: the model may leave now. */
static void stand_ready(struct pool *pool, struct model *model)
{
    struct rate_claim *claim = model->claim;
    if (claim == NULL) {
        list_append(&pool->ready, &model->ready);
        return;
    }
    /* Who did not want to run does not save up for later. */
    claim->share = claim->share < pool->share ? pool->share : claim->share;
    list_append(&pool->limited, &claim->node);
}

/* Lock held: the model is looked at again at `at_ns`. */
static void stand_delayed(struct pool *pool, struct model *model, uint64_t at_ns)
{
    model->again.key = at_ns;
    heap_push(&pool->delayed, &model->again);
}

/* Lock held: invariant 1 for a model with sequences; it is looked at again also to drop idle
 * ones. */
static void place_sequences(struct pool *pool, struct model *model, uint64_t now_ns)
{
    const struct sequence_turn turn = sequencer_next(model->sequences, now_ns);
    if (turn.ready && model->running < model->runs_max) {
        model->head = turn.riders.leader;
        stand_ready(pool, model);
    } else if (!turn.ready && turn.again_ns != CLOCK_NEVER) {
        stand_delayed(pool, model, turn.again_ns);
    }
}

/* Lock held: the same for one that waits for company. */
static void place_patient(const struct puller *puller, struct model *model)
{
    struct pool *pool = puller->pool;
    const uint64_t now_ns = puller->now_ns;
    line_age(&model->line, pool->order.options.ageing_ns, now_ns);
    struct request *leader = line_leader(&model->line, (uint32_t)__builtin_ctz(model->line.mask));
    const struct batch_plan next = plan(puller, model, leader, 1);
    if (next.leave_ns > now_ns) {
        stand_delayed(pool, model, next.leave_ns);
    } else {
        model->head = leader;
        stand_ready(pool, model);
    }
}

/* Lock held: whose pause is over comes back; when the next one may. */
static uint64_t revive(const struct pool *pool, struct model *model, uint64_t now_ns)
{
    return pool->uniform ? CLOCK_NEVER : replica_revive(model, now_ns);
}

/* Lock held: a device that is lost may be back then, which nobody else will notice. */
static void await_device(struct pool *pool, struct model *model, uint64_t back_ns)
{
    if (model->waiting_count > 0 && back_ns != CLOCK_NEVER && !model->again.in) {
        stand_delayed(pool, model, back_ns);
    }
}

/* Lock held: pool_place(), by who pulls. */
static void place(const struct puller *puller, struct model *model)
{
    struct pool *pool = puller->pool;
    const uint64_t now_ns = puller->now_ns;
    const uint64_t back_ns = revive(pool, model, now_ns);
    const bool has_instance =
        pool->uniform ? model->instances_free != NULL : replica_is_free(model, &pool_no_seat);
    const bool could = model->waiting_count > 0 && has_instance &&
                       model->running < model->runs_max && model->inline_home == NULL;
    const bool plain = model->sequences == NULL && model->config->queue_delay_ns == 0;
    if (plain && could) {
        heap_remove(&pool->delayed, &model->again);
        if (!stands(model)) {
            stand_ready(pool, model);
        }
    } else {
        step_out(pool, model);
        if (model->sequences != NULL) {
            place_sequences(pool, model, now_ns);
        } else if (could) {
            place_patient(puller, model);
        }
    }
    await_device(pool, model, back_ns);
}

void pool_place(struct pool *pool, struct model *model, uint64_t now_ns)
{
    const struct puller nobody = { pool, pool_no_seat, now_ns };
    place(&nobody, model);
}

/* Lock held: WAITING -> RUNNING. */
static void ride(struct model *model, struct batch *batch, struct request *request)
{
    request->state = REQUEST_RUNNING;
    request->batch = batch;
    model->waiting_bytes -= request->input_bytes;
    if (request->payer != batch->payer || request->class != batch->class) {
        batch->payer = NULL;
    }
}

/* Lock held: the riders leave the model's line for the batch. */
static void board(struct model *model, const struct batch_plan *riders, struct batch *batch)
{
    struct request *last = riders->leader;
    bool in_row = true;
    ride(model, batch, last);
    for (uint32_t taken = 1; taken < riders->count; taken++) {
        struct request *next = last->rides;
        in_row = in_row && next->line.prev == &last->line;
        ride(model, batch, next);
        last = next;
    }
    if (in_row && line_take_row(&model->line, riders->leader, last, &batch->members)) {
        return;
    }
    struct request *request = riders->leader;
    for (uint32_t taken = 0; taken < riders->count; taken++) {
        line_remove(&model->line, request);
        list_append(&batch->members, &request->line);
        request = request->rides;
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

void pool_charge(struct pool *pool, const struct batch *batch, const struct list *members,
                 int64_t ns, bool classes)
{
    if (batch->payer != NULL) {
        order_charge(&pool->order, batch->payer, ns);
        line_retime(batch->payer);
        if (classes) {
            order_spend(&pool->order, batch->class, (uint64_t)ns, batch->owed);
        }
        return;
    }
    int64_t spent[ORDER_CLASSES] = { 0 };
    uint32_t mask = 0;
    for (struct list_node *n = list_first(members); n != NULL;) {
        const struct request *first = list_entry(n, struct request, line);
        const struct request *request = first;
        uint64_t rows = 0;
        while (n != NULL && request->payer == first->payer && request->class == first->class) {
            rows += request->rows;
            n = list_next(members, n);
            request = n == NULL ? NULL : list_entry(n, struct request, line);
        }
        const double part = (double)rows / (double)batch->rows;
        const int64_t its_ns = rows == batch->rows ? ns : (int64_t)((double)ns * part);
        order_charge(&pool->order, first->payer, its_ns);
        line_retime(first->payer);
        spent[first->class] += its_ns;
        mask |= 1U << first->class;
    }
    for (; classes && mask != 0; mask &= mask - 1) {
        const uint32_t i = (uint32_t)__builtin_ctz(mask);
        order_spend(&pool->order, i, (uint64_t)spent[i], batch->owed && i == batch->class);
    }
}

/* Lock held: what the run will take is charged now, so that the next pull knows of it. */
static void charge_expected(struct pool *pool, struct model *model, struct batch *batch)
{
    if (pool->waiting == 0 || batch->predicted_ns == 0) {
        return; /* Nobody compares, or nobody knows. */
    }
    batch->charged_ns = batch->predicted_ns * model->width;
    order_run(&pool->order, batch->class, batch->rivals, batch->charged_ns);
    pool_charge(pool, batch, &batch->members, (int64_t)batch->charged_ns, true);
    model->served_ns += batch->charged_ns;
}

/* Rows of a single large request that are known to run together in a short time; 0: nobody knows.
 * A little more than was ever seen is known, too; so they grow from run to run. */
static uint64_t rows_short(const struct model *model, const struct batch_plan *riders)
{
    const uint64_t usual =
        model->config->max_batch_size > 0 ? (uint64_t)model->config->max_batch_size : 1;
    uint64_t rows = usual;
    while (riders->count == 1 && rows < riders->rows) {
        const uint64_t more = rows + rows / 4 + 1;
        const uint64_t next = more < riders->rows ? more : riders->rows;
        uint64_t ns;
        if (!profile_predict_ns(&model->profile, riders->shape_key, next, &ns) || ns > SHORT_NS) {
            break;
        }
        rows = next;
    }
    return rows > usual ? rows : 0;
}

/* Rows that are known to fit in memory, of the shape and on the device; 0: nobody knows. */
static uint64_t rows_cap(const struct model *model, const struct replica *replica, uint64_t key)
{
    const uint64_t shape = profile_rows_cap(&model->profile, key);
    const uint64_t device = replica->rows_cap;
    return shape == 0 || (device > 0 && device < shape) ? device : shape;
}

/* Lock held: the planned riders leave the line for a free instance; `turn`: of which sequences,
 * `rivals`: classes that could have run instead. */
static struct instance *take(const struct puller *puller, struct model *model,
                             const struct batch_plan *riders, const struct sequence_turn *turn,
                             uint32_t rivals)
{
    struct pool *pool = puller->pool;
    struct instance *instance =
        replica_take(model, &puller->seat, turn == NULL ? NULL : turn->lane->instance);
    struct batch *batch = &instance->batch;
    *batch = (struct batch){ .shape_key = riders->shape_key,
                             .count = riders->count,
                             .wanting = riders->count,
                             .rows = riders->rows,
                             .rows_cap = rows_cap(model, instance->replica, riders->shape_key),
                             .payer = riders->leader->payer,
                             .rows_short = rows_short(model, riders),
                             .held = riders->held,
                             .class = riders->leader->class,
                             .owed = order_owed(&pool->order, riders->leader->class),
                             .rivals = rivals,
                             .taken_ns = puller->now_ns };
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
    pool_scale_begin(pool, model, batch, puller->now_ns);
    pool->batches++;
    model->running++;
    overload_run_starts(pool, model, batch);
    charge_expected(pool, model, batch);
    backend_rearm(instance->context);
    return instance;
}

/* What is to run next, and the classes that could have run instead. */
struct choice {
    struct request *leader; /* NULL: nothing. */
    uint32_t rivals;
};

/* Lock held: the best batch that this request leads, or NULL. */
static struct instance *take_best(const struct puller *puller, struct model *model,
                                  const struct choice *choice)
{
    if (model->sequences != NULL) {
        const struct sequence_turn turn = sequencer_next(model->sequences, puller->now_ns);
        return turn.ready ? take(puller, model, &turn.riders, &turn, choice->rivals) : NULL;
    }
    const struct batch_plan riders =
        plan(puller, model, choice->leader, puller->pool->idle_count + 1);
    return take(puller, model, &riders, NULL, choice->rivals);
}

/* Lock held: models whose wait for company is over are looked at again. */
static void promote(const struct puller *puller)
{
    const struct heap *delayed = &puller->pool->delayed;
    for (struct heap_node *top = heap_top(delayed); top != NULL && top->key <= puller->now_ns;
         top = heap_top(delayed)) {
        place(puller, list_entry(top, struct model, again));
    }
}

/* Lock held: who pulls now can run it. */
static bool runs_here(const struct puller *puller, const struct model *model)
{
    return puller->pool->uniform || replica_is_free(model, &puller->seat);
}

/* Lock held: the limited model whose turn it is, if its resources are there now. */
static struct model *next_limited(const struct puller *puller)
{
    const struct pool *pool = puller->pool;
    const struct rate_claim *best = NULL;
    for (const struct list_node *n = list_first(&pool->limited); n != NULL;
         n = list_next(&pool->limited, n)) {
        const struct rate_claim *claim = list_entry(n, struct rate_claim, node);
        if (runs_here(puller, claim->model)) {
            best = best == NULL || claim->share < best->share ? claim : best;
        }
    }
    return best != NULL && rate_free(pool->engine->rates, best) ? best->model : NULL;
}

/* A model's place among those that could run: all that are ready, then the limited one. */
static struct model *next_model(const struct puller *puller, struct model *limited,
                                const struct model *model)
{
    const struct list *ready = &puller->pool->ready;
    if (model != NULL && model == limited) {
        return NULL;
    }
    const struct list_node *node =
        model == NULL ? list_first(ready) : list_next(ready, &model->ready);
    while (node != NULL && !runs_here(puller, list_entry(node, struct model, ready))) {
        node = list_next(ready, node);
    }
    return node != NULL ? list_entry(node, struct model, ready) : limited;
}

bool pool_has_work(const struct puller *puller)
{
    const struct pool *pool = puller->pool;
    const struct model *wide = pool_wide_next(pool);
    if (wide != NULL && runs_here(puller, wide)) {
        return true;
    }
    return !pool_wide_holds(puller) &&
           (next_model(puller, NULL, NULL) != NULL ||
            (!list_empty(&pool->limited) && next_limited(puller) != NULL));
}

/* Who would lead for that class; NULL: the model has nobody in it. */
static struct request *leader_of(const struct model *model, uint32_t class_index)
{
    if ((classes_of(model) & 1U << class_index) == 0) {
        return NULL;
    }
    return model->head != NULL ? model->head : line_leader(&model->line, class_index);
}

/* Lock held: the client with the least time in that class, and the range of what its models have
 * had. */
static const struct order_client *next_client(const struct puller *puller, struct model *limited,
                                              uint32_t class_index, uint64_t *least_ns)
{
    const struct order_client *best = NULL;
    uint64_t most_ns = 0;
    for (const struct model *m = next_model(puller, limited, NULL); m != NULL;
         m = next_model(puller, limited, m)) {
        const struct request *leader = leader_of(m, class_index);
        if (leader == NULL || (best != NULL && leader->payer->time > best->time) ||
            (best != NULL && leader->payer->time == best->time && leader->payer != best)) {
            continue;
        }
        if (leader->payer != best) {
            best = leader->payer;
            most_ns = m->served_ns;
            *least_ns = m->served_ns;
        }
        most_ns = m->served_ns > most_ns ? m->served_ns : most_ns;
        *least_ns = m->served_ns < *least_ns ? m->served_ns : *least_ns;
    }
    *least_ns =
        most_ns > SAVED_NS && *least_ns < most_ns - SAVED_NS ? most_ns - SAVED_NS : *least_ns;
    return best;
}

static bool due_before(const struct request *a, const struct request *b)
{
    return b == NULL || a->due_ns < b->due_ns;
}

/* Lock held: who leads of several models' requests of that class. */
static struct request *choose_leader(const struct puller *puller, struct model *limited,
                                     uint32_t class_index)
{
    uint64_t least_ns = 0;
    const struct order_client *client = next_client(puller, limited, class_index, &least_ns);
    struct request *best = NULL;
    for (struct model *m = next_model(puller, limited, NULL); m != NULL;
         m = next_model(puller, limited, m)) {
        struct request *leader = leader_of(m, class_index);
        if (leader == NULL || leader->payer != client) {
            continue;
        }
        m->served_ns = m->served_ns < least_ns ? least_ns : m->served_ns;
        if (m->served_ns - least_ns < LEAD_NS && due_before(leader, best)) {
            best = leader;
        }
    }
    return best;
}

/* Lock held: who has waited long goes up a class; of sequences the one that would lead. */
static void age(struct model *model, uint64_t ageing_ns, uint64_t now_ns)
{
    struct request *head = model->head;
    if (head == NULL) {
        line_age(&model->line, ageing_ns, now_ns);
    } else if (model->sequences != NULL && head->class > 0 &&
               clock_add(head->since_ns, ageing_ns) <= now_ns) {
        head->class --;
        head->since_ns = now_ns;
    }
}

/* Lock held: the same where who leads was decided when the model was placed: it is placed anew. */
static void age_patient(const struct puller *puller)
{
    const struct list *ready = &puller->pool->ready;
    struct list_node *next;
    for (struct list_node *n = list_first(ready); n != NULL; n = next) {
        struct model *model = list_entry(n, struct model, ready);
        next = list_next(ready, n);
        if (model->head != NULL && model->sequences == NULL &&
            puller->now_ns >= model->line.age_next_ns) {
            place(puller, model);
        }
    }
}

/* Lock held: what is to run next. */
static struct choice choose(const struct puller *puller)
{
    struct pool *pool = puller->pool;
    struct model *limited = list_empty(&pool->limited) ? NULL : next_limited(puller);
    struct model *first = next_model(puller, limited, NULL);
    struct choice choice = { 0 };
    for (struct model *m = first; m != NULL; m = next_model(puller, limited, m)) {
        age(m, pool->order.options.ageing_ns, puller->now_ns);
        choice.rivals |= classes_of(m);
    }
    if (first == NULL) {
        return choice;
    }
    const uint32_t class_index = order_class(&pool->order, choice.rivals);
    const bool only = next_model(puller, limited, first) == NULL;
    choice.leader =
        only ? leader_of(first, class_index) : choose_leader(puller, limited, class_index);
    return choice;
}

/* Lock held: as choose(), but for those who wait for places: who has waited for them long enough is
 * next, or nobody is. */
static struct choice choose_by_places(const struct puller *puller)
{
    const bool holds = pool_wide_holds(puller);
    struct model *model = pool_wide_next(puller->pool);
    if (model == NULL || !runs_here(puller, model)) { /* Its places are kept for who can run it. */
        return holds ? (struct choice){ 0 } : choose(puller);
    }
    list_remove(&model->wide);
    place(puller, model);
    if (!holds || !list_linked(&model->ready)) {
        return choose(puller);
    }
    const uint32_t mask = classes_of(model);
    return (struct choice){ leader_of(model, (uint32_t)__builtin_ctz(mask)), mask };
}

/* Lock held: as take_best(), with the resources that the run holds. */
static struct instance *take_limited(const struct puller *puller, struct model *model,
                                     const struct choice *choice)
{
    struct pool *pool = puller->pool;
    struct rate_limiter *rates = pool->engine->rates;
    if (!rate_take(rates, model->claim)) {
        return NULL; /* Another device was quicker. */
    }
    struct instance *instance = take_best(puller, model, choice);
    if (instance == NULL) {
        rate_give(rates, model->claim);
        return NULL;
    }
    pool->share = model->claim->share;
    model->claim->share += model->claim->priority;
    return instance;
}

struct instance *pool_pull_locked(const struct puller *puller, uint64_t *wake_ns,
                                  struct list *ended)
{
    struct pool *pool = puller->pool;
    const uint64_t now_ns = puller->now_ns;
    promote(puller);
    age_patient(puller);
    for (struct choice choice = choose_by_places(puller); choice.leader != NULL;
         choice = choose_by_places(puller)) {
        struct model *model = choice.leader->model;
        if (!pool_wide_fits(pool, model)) {
            step_out(pool, model);
            pool_wide_reserve(pool, model, choice.leader, now_ns);
            await_device(pool, model, revive(pool, model, now_ns));
            continue;
        }
        const bool some =
            pool_expire(pool, model, now_ns, ended) || overload_drop(puller, choice.leader, ended);
        struct instance *instance = some                   ? NULL
                                    : model->claim != NULL ? take_limited(puller, model, &choice)
                                                           : take_best(puller, model, &choice);
        place(puller, model); /* It owed its place to requests that are gone. */
        if (instance != NULL) {
            pool_wide_begin(pool, instance);
            return instance;
        }
    }
    const struct heap_node *next = heap_top(&pool->delayed);
    *wake_ns = next == NULL ? CLOCK_NEVER : next->key;
    return NULL;
}

struct instance *pool_pull_at(struct pool *pool, const struct seat *seat, uint64_t now_ns,
                              uint64_t *wake_ns)
{
    struct list ended;
    list_init(&ended);
    const struct puller puller = { pool, *seat, now_ns };
    pthread_mutex_lock(&pool->lock);
    struct instance *instance = pool_pull_locked(&puller, wake_ns, &ended);
    pthread_mutex_unlock(&pool->lock);
    pool_send_home(&ended);
    return instance;
}

struct instance *pool_pull(struct pool *pool, uint64_t now_ns, uint64_t *wake_ns)
{
    return pool_pull_at(pool, &pool_no_seat, now_ns, wake_ns);
}

bool pool_is_short(const struct model *model, uint64_t shape_key, uint64_t rows, uint64_t now_ns)
{
    uint64_t predicted_ns;
    return model->instances_free != NULL && now_ns >= model->inline_after_ns &&
           profile_predict_ns(&model->profile, shape_key, rows, &predicted_ns) &&
           predicted_ns <= INLINE_NS;
}

struct instance *pool_pull_model(struct pool *pool, struct model *model, uint64_t now_ns)
{
    struct list ended;
    list_init(&ended);
    struct instance *instance = NULL;
    const struct puller nobody = { pool, pool_no_seat, now_ns };
    pthread_mutex_lock(&pool->lock);
    (void)pool_expire(pool, model, now_ns, &ended);
    if (model->waiting_count > 0 && model->instances_free != NULL) {
        struct request *leader =
            line_leader(&model->line, (uint32_t)__builtin_ctz(model->line.mask));
        const struct batch_plan riders = plan(&nobody, model, leader, 1);
        if (pool_is_short(model, riders.shape_key, riders.rows, now_ns)) {
            instance = take(&nobody, model, &riders, NULL, 0);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    pool_send_home(&ended);
    return instance;
}
