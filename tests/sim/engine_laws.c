/*
 * The laws of sim_engine.c that look at queues and batches; those about requests are where these
 * end.
 */
#include "engine_world.h"

static const char *const state_texts[] = {
#define REQUEST_STATE_TEXT(name) #name,
    REQUEST_STATES(REQUEST_STATE_TEXT)
#undef REQUEST_STATE_TEXT
};

/* No other request that is equal runs, but one that nobody wants any more. */
static void check_alone(struct world *world, const struct request *request)
{
    const struct sim_request *r = list_entry(request, struct sim_request, request);
    for (uint32_t i = 0; i < world->request_count && request->model->joining; i++) {
        const struct sim_request *other = &world->requests[i];
        LAW(other == r || other->twin != r->twin || other->request.model != request->model ||
                other->request.state != REQUEST_RUNNING || other->request.stop != WEIR_OK,
            "equal requests %td and %u run apart", r - world->requests, i);
    }
}

void check_batch(struct world *world, const struct instance *instance)
{
    const struct batch *batch = &instance->batch;
    const struct model_config *config = instance->model->config;
    const struct request *first = NULL;
    uint64_t rows = 0;
    LAW(batch->rows <= (uint64_t)config->max_batch_size, "a batch above max_batch_size");
    for (struct list_node *n = list_first(&batch->members); n != NULL;
         n = list_next(&batch->members, n)) {
        const struct request *request = list_entry(n, struct request, line);
        first = first == NULL ? request : first;
        rows += request->rows;
        LAW(request->inputs[0].shape.dims[1] == first->inputs[0].shape.dims[1],
            "a batch of different shapes");
        LAW(request->deadline_ns > clock_now_ns(&world->clock), "a batch with a passed deadline");
        check_alone(world, request);
    }
    LAW(rows == batch->rows, "a batch that miscounts its rows");
}

/* Of the longest waiting member. */
static uint64_t arrival(const struct list *members)
{
    uint64_t oldest_ns = CLOCK_NEVER;
    for (const struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        const uint64_t at_ns = list_entry(n, struct request, line)->times.submitted_ns;
        oldest_ns = at_ns < oldest_ns ? at_ns : oldest_ns;
    }
    return oldest_ns;
}

/* How much of the resource of `m` is held, and how much there is. */
static void count_resource(const struct world *world, const struct sim_model *m, uint32_t *held,
                           uint32_t *total)
{
    *held = 0;
    *total = 0;
    for (uint32_t i = 0; i < world->model_count; i++) {
        const struct sim_model *other = &world->models[i];
        if (other->model.claim == NULL || other->resource.global != m->resource.global ||
            (!m->resource.global && other->model.pool != m->model.pool)) {
            continue;
        }
        *total = other->resource.count > *total ? other->resource.count : *total;
        for (uint32_t f = 0; f < world->flights.count; f++) {
            const bool its = world->flights.items[f].instance->model == &other->model;
            *held += its ? other->resource.count : 0;
        }
    }
}

void check_resources(struct world *world)
{
    for (uint32_t i = 0; i < world->model_count; i++) {
        uint32_t held;
        uint32_t total;
        count_resource(world, &world->models[i], &held, &total);
        LAW(world->models[i].model.claim == NULL || held <= total, "%u of %u held", held, total);
    }
}

/* A model that needs resources may have to wait for its turn while somebody holds some. */
static bool may_wait(const struct world *world, const struct model *model)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < world->flights.count; i++) {
        held += world->flights.items[i].instance->model->claim != NULL ? 1 : 0;
    }
    return model->claim != NULL && held > 0;
}

/* Everybody has waited long enough for company, whoever leads. */
static bool patience_over(const struct world *world, const struct model *model)
{
    uint64_t last_ns = 0;
    for (const struct request *waits = line_first(&model->line); waits != NULL;
         waits = line_next(&model->line, waits)) {
        last_ns = waits->times.submitted_ns > last_ns ? waits->times.submitted_ns : last_ns;
    }
    return clock_add(last_ns, model->config->queue_delay_ns) <= clock_now_ns(&world->clock);
}

/* There are places for a run, and nobody who has waited for more holds them back. */
static bool has_places(const struct model *model)
{
    const struct pool *pool = model->pool;
    return pool->pipelined ||
           (pool->places_taken + model->width <= pool->executor_count && list_empty(&pool->wide));
}

/* Could some executor take of this model's line now? */
static bool could_go(const struct world *world, const struct model *model)
{
    return model->waiting_count > 0 && model->instances_free != NULL &&
           model->running < model->runs_max && model->inline_home == NULL && has_places(model) &&
           !may_wait(world, model) && patience_over(world, model);
}

/* Runs of several threads count for several: there are never more than the device carries. */
void check_places(struct world *world, const struct pool *pool)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < world->flights.count; i++) {
        taken += world->flights.items[i].instance->model->pool == pool
                     ? world->flights.items[i].instance->model->width
                     : 0;
    }
    LAW(pool->pipelined || taken <= pool->executor_count, "runs of %u threads on '%s'", taken,
        pool->name);
}

void note_turn(struct world *world, const struct pool *pool)
{
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        world->credit_ns[i] = pool->order.classes[i].credit_ns;
    }
    for (uint32_t i = 0; i <= ORDER_CLIENTS; i++) {
        world->times[i] = pool->order.clients[i].time;
    }
    world->reserved = !list_empty(&pool->wide);
    for (uint32_t i = 0; i < world->model_count; i++) {
        world->served_ns[i] = world->models[i].model.served_ns;
    }
}

static uint64_t time_of(const struct world *world, const struct request *request)
{
    const struct order_client *clients = request->model->pool->order.clients;
    return world->times[request->payer - clients];
}

static uint64_t served(const struct world *world, const struct request *request)
{
    return world->served_ns[list_entry(request->model, struct sim_model, model) - world->models];
}

/* Another client stood at the head of the model's line, with as little time: which of them it is
 * does not matter. */
static bool is_tied(const struct world *world, const struct model *model, const struct request *led)
{
    for (const struct request *waits = line_first(&model->line); waits != NULL;
         waits = line_next(&model->line, waits)) {
        if (waits->class == led->class && waits->payer != led->payer &&
            time_of(world, waits) == time_of(world, led)) {
            return true;
        }
    }
    return false;
}

/* Neither of the two may lead before its time. */
static void check_pair(struct world *world, const struct request *led, const struct request *waits)
{
    if (waits->since_ns == clock_now_ns(&world->clock) && waits->model == led->model) {
        return; /* It may have gone up a class after the pull, */
    }
    if (list_entry(waits, struct sim_request, request)->joined) {
        return; /* or have come into line with it. */
    }
    LAW(led->class <= waits->class || world->credit_ns[led->class] > 0,
        "class %u led before class %u without being owed", led->class, waits->class);
    if (led->class != waits->class || led->model->config->queue_delay_ns > 0) {
        return; /* With a delay, who leads was decided when company was found. */
    }
    LAW(time_of(world, led) <= time_of(world, waits), "a client led that has had more");
    if (led->payer == waits->payer && led->due_ns > waits->due_ns) {
        LAW(led->model != waits->model, "'%s' serves out of turn", led->model->name);
        LAW(served(world, led) < served(world, waits) || is_tied(world, waits->model, led),
            "'%s' overtook '%s'", led->model->name, waits->model->name);
    }
}

/* Who leads comes before everybody else who could. */
void check_order(struct world *world, const struct instance *instance)
{
    const struct request *led =
        list_entry(list_first(&instance->batch.members), struct request, line);
    const bool by_turn = led->model->claim == NULL && !world->reserved;
    for (uint32_t i = 0; i < world->model_count && by_turn; i++) {
        const struct model *model = &world->models[i].model;
        const bool could = model == led->model || could_go(world, model);
        if (model->claim != NULL || model->pool != led->model->pool || !could) {
            continue; /* Shares count for more. */
        }
        if (model != led->model && model->config->queue_delay_ns > 0) {
            if (model->head != NULL) {
                check_pair(world, led, model->head);
            }
            continue;
        }
        for (const struct request *waits = line_first(&model->line); waits != NULL;
             waits = line_next(&model->line, waits)) {
            check_pair(world, led, waits);
        }
    }
}

static bool is_preferred(const struct model_config *config, uint64_t rows)
{
    for (uint32_t i = 0; i < config->preferred_count; i++) {
        if (config->preferred[i] == rows) {
            return true;
        }
    }
    return false;
}

/* All that could ride with these are one client's. */
static bool one_client(const struct batch *batch, const struct model *model)
{
    const struct request *led = list_entry(list_first(&batch->members), struct request, line);
    for (struct list_node *n = list_first(&batch->members); n != NULL;
         n = list_next(&batch->members, n)) {
        if (list_entry(n, struct request, line)->payer != led->payer) {
            return false;
        }
    }
    for (const struct request *waits = line_first(&model->line); waits != NULL;
         waits = line_next(&model->line, waits)) {
        if (waits->payer != led->payer) {
            return false;
        }
    }
    return true;
}

/* A batch that left before its delay was over was full, of a preferred size, or had company that
 * did not fit.  What the profile makes of a shape that it knows changes from run to run; so does
 * whose turn it is of several clients, between the find that the batch may leave and the pull. */
void check_delay(struct world *world, const struct instance *instance)
{
    const struct batch *batch = &instance->batch;
    const struct model *model = instance->model;
    const uint64_t until_ns = clock_add(arrival(&batch->members), model->config->queue_delay_ns);
    double tau0;
    double alpha;
    if (clock_now_ns(&world->clock) >= until_ns || model->signature->streams ||
        profile_fit(&model->profile, batch->shape_key, &tau0, &alpha) ||
        profile_rows_cap(&model->profile, batch->shape_key) > 0) {
        return;
    }
    uint64_t next = 0;
    for (const struct request *request = line_first(&model->line); request != NULL;
         request = line_next(&model->line, request)) {
        const bool same = request->shape_key == batch->shape_key;
        next = same && request->rows > next ? request->rows : next;
    }
    LAW(!one_client(batch, model) ||
            batch->rows + next >= (uint64_t)model->config->max_batch_size ||
            is_preferred(model->config, batch->rows),
        "a batch of %" PRIu64 " rows left '%s' early", batch->rows, model->name);
}

/* Nobody is free while there is something to do. */
void check_idle(struct world *world, const struct pool *pool)
{
    for (uint32_t i = 0; i < world->model_count; i++) {
        const struct model *model = &world->models[i].model;
        LAW(model->pool != pool || !could_go(world, model), "'%s' has work and an executor is free",
            model->name);
    }
}

/* What a model counts is what stands in its line. */
void check_lines(struct world *world)
{
    for (uint32_t i = 0; i < world->model_count; i++) {
        const struct model *model = &world->models[i].model;
        uint64_t rows = 0;
        uint64_t bytes = 0;
        uint32_t count = 0;
        for (const struct request *request = line_first(&model->line); request != NULL;
             request = line_next(&model->line, request)) {
            LAW(request->state == REQUEST_WAITING, "a request in line is %s",
                state_texts[request->state]);
            rows += request->rows;
            bytes += request->input_bytes;
            count++;
        }
        LAW(count == model->waiting_count && rows == model->waiting_rows &&
                bytes == model->waiting_bytes,
            "model '%s' miscounts its line", model->name);
    }
}

/* Who is joined is joined to one that will answer. */
void check_joined(struct world *world)
{
    uint64_t joined = 0;
    uint64_t counted = 0;
    for (uint32_t i = 0; i < world->request_count; i++) {
        const struct request *request = &world->requests[i].request;
        if (request->state != REQUEST_JOINED) {
            continue;
        }
        const struct request *leader = request->leader;
        const struct sim_request *r = list_entry(leader, struct sim_request, request);
        LAW(leader->leads && (leader->state == REQUEST_WAITING || leader->state == REQUEST_RUNNING),
            "joined to one that is %s", state_texts[leader->state]);
        LAW(r->twin == world->requests[i].twin ||
                (r->poisoned && r->rows == 1 && world->requests[i].poisoned),
            "joined to another one");
        LAW(leader->state == REQUEST_WAITING || leader->batch->wanting > 0,
            "a run is terminated that somebody wants");
        joined++;
    }
    for (uint32_t i = 0; i < world->engine->pool_count; i++) {
        counted += world->engine->pools[i]->joined;
    }
    LAW(joined == counted, "%" PRIu64 " are joined, %" PRIu64 " counted", joined, counted);
}
