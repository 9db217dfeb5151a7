/*
 * Sequences on the real engine, with a model that checks what it is given.
 *
 * The backend of this test keeps no state: it computes `state * 31 + x` of each row from the state
 * tensor that the engine hands in, and gives it back as the answer and as the next state (in some
 * worlds the state grows by an element per request).  Each seed draws a model, its sequences by
 * number and by text, and a storm of requests with restarts, failures, cancellations and deadlines
 * from several homes.  The laws:
 *
 *   - an answer is what the sequence's accepted requests, in order, since their START make it: no
 *     step is lost, doubled, swapped, or another sequence's;
 *   - direct: a sequence stays in one row of one instance from START to END, alone; rows of nobody
 *     are zeros with READY off;
 *   - a request is refused exactly when its sequence is not there and it does not say START;
 *   - every accepted request ends once; after one that failed nothing of its sequence succeeds;
 *   - no more sequences have a place than there are places, none waits for one that is free;
 *   - where memory runs out (in builds that can make it) a request fails, and nothing else;
 *   - what states take is what is counted, within its limit; at the end nothing is held.
 *
 * Usage: sim_sequence [--seeds N] [--seed S]; a failing seed prints its number.
 */
#include "asking.h"
#include "sequence_world.h"

static uint64_t draw(struct world *world, uint64_t below)
{
    return dice_below(&world->random, below);
}

static bool chance(struct world *world, uint32_t percent)
{
    return dice_chance(&world->random, percent);
}

static void wake(void *context)
{
    ((struct sim_home *)context)->woken = true;
}

static uint64_t number_of(uint32_t id)
{
    return 1 + id;
}

/* ---- The world ------------------------------------------------------------------------------- */

static void on_end(struct request *request)
{
    struct sim_request *r = list_entry(request, struct sim_request, request);
    struct world *world = request->user;
    const uint64_t now_ns = clock_now_ns(&world->clock);
    LAW(r->accepted && ++r->ends == 1, "request %td ended %u times", r - world->requests, r->ends);
    world->ended++;
    switch (request->status) {
    case WEIR_OK:
        LAW(r->output.present && at(&r->output, 0) == r->expected,
            "request %td of sequence %u: %" PRId64 ", expected %" PRId64, r - world->requests,
            r->id, at(&r->output, 0), r->expected);
        LAW(world->last_run[r->id] < r - world->requests, "sequence %u out of order", r->id);
        world->last_run[r->id] = r - world->requests;
        world->succeeded++;
        break;
    case WEIR_ECANCELED:
        LAW(r->canceled, "canceled by nobody");
        break;
    case WEIR_ETIMEOUT:
        LAW(request->deadline_ns <= now_ns, "timed out early");
        break;
    case WEIR_EBACKEND:
        LAW(r->x == POISON, "failed for another's fault: %s", request->err.text);
        break;
    case WEIR_EFULL:
        LAW(world->grows, "no room for a state that does not grow");
        break;
    case WEIR_ENOMEM:
        LAW(world->faults, "out of memory");
        break;
    case WEIR_ECONFLICT:
        LAW(!request->sequence_start, "a START that needed what was before it");
        break;
    default:
        LAW(false, "ended with %s", request->err.text);
    }
    tensor_release(&r->output);
    model_release(request->model);
}

static void unleased(struct model *model)
{
    list_entry(model, struct world, model)->unleased = true;
}

static void spec(struct world *world, struct tensor_spec *out, const char *name, enum dtype dtype,
                 int64_t width)
{
    *out = (struct tensor_spec){ .name = name, .dtype = dtype };
    if (world->batched) {
        out->shape.dims[out->shape.rank++] = -1;
    }
    out->shape.dims[out->shape.rank++] = width;
}

static void make_signature(struct world *world)
{
    const int64_t width = world->grows ? -1 : 2;
    spec(world, &world->inputs[IN_X], "x", DTYPE_INT64, 1);
    spec(world, &world->inputs[IN_START], "start", DTYPE_INT32, 1);
    spec(world, &world->inputs[IN_READY], "ready", DTYPE_INT32, 1);
    spec(world, &world->inputs[IN_END], "end", DTYPE_INT32, 1);
    spec(world, &world->inputs[IN_ID], "id", DTYPE_BYTES, 1);
    spec(world, &world->inputs[IN_STATE], "state", DTYPE_INT64, width);
    spec(world, &world->outputs[OUT_Y], "y", DTYPE_INT64, 1);
    spec(world, &world->outputs[OUT_STATE], "state_out", DTYPE_INT64, width);
    world->backend = (struct backend_model){
        .ops = &keeper,
        .signature = { .inputs = world->inputs,
                       .input_count = IN_COUNT,
                       .outputs = world->outputs,
                       .output_count = OUT_COUNT },
    };
}

static void make_config(struct world *world)
{
    static struct sequence_control controls[] = {
        { "start", SEQUENCE_START, DTYPE_INT32, { 0, 1 } },
        { "ready", SEQUENCE_READY, DTYPE_INT32, { 0, 1 } },
        { "end", SEQUENCE_END, DTYPE_INT32, { 0, 1 } },
        { "id", SEQUENCE_CORRID, DTYPE_BYTES, { 0, 0 } },
    };
    static struct sequence_state states[] = {
        { .input = "state", .output = "state_out", .dtype = DTYPE_INT64 },
    };
    struct model_config *config = effective_create();
    LAW(config != NULL, "the test is out of memory");
    config->name = "keeper";
    config->max_batch_size = world->batched ? (int64_t)(1 + draw(world, ROWS_MAX)) : 0;
    config->instances = 1 + (uint32_t)draw(world, INSTANCES_MAX);
    config->requests_max = chance(world, 30) ? 4 + (uint32_t)draw(world, 20) : 0;
    struct sequence_config *sequence = &config->sequence;
    sequence->strategy = chance(world, 50) ? SEQUENCE_DIRECT : SEQUENCE_OLDEST;
    sequence->idle_ns = chance(world, 50) ? NS_PER_MS * (1 + draw(world, 30)) : NS_PER_S;
    sequence->controls = controls;
    sequence->control_count = 4;
    sequence->states = states;
    sequence->state_count = 1;
    sequence->queue_delay_ns = chance(world, 40) ? draw(world, 3 * NS_PER_MS) : 0;
    sequence->slot_utilization_min = chance(world, 50) ? (double)draw(world, 101) / 100 : 0;
    sequence->candidates_max = chance(world, 60) ? 1 + (uint32_t)draw(world, 6) : 0;
    if (world->batched && chance(world, 40)) {
        sequence->preferred[0] = 1 + (uint32_t)draw(world, (uint64_t)config->max_batch_size);
        sequence->preferred_count = 1;
    }
    world->config = config;
}

static void make_model(struct world *world)
{
    struct weir_err err = { 0 };
    struct model *model = &world->model;
    struct sequence_plan *plan;
    const char *why_not;
    enum weir_status status =
        sequence_plan_create(world->config, &world->backend.signature, &plan, &err);
    LAW(status == WEIR_OK, "no plan: %s", err.text);
    LAW(plan->shown.input_count == 1 && plan->shown.output_count == 1, "hidden tensors are shown");
    status = effective_complete(world->config, &plan->shown, &why_not, &err);
    status = status == WEIR_OK ? sequence_plan_complete(plan, world->config, -1, &err) : status;
    LAW(status == WEIR_OK, "no configuration: %s", err.text);
    model->name = "keeper";
    model->version = 1;
    model->config = world->config;
    model->backend = &world->backend;
    model->ops = &keeper;
    model->signature = &plan->shown;
    model->sequence_plan = plan;
    model->batching = world->config->max_batch_size > 1;
    model->unleased = unleased;
    model_acquire(model);
    keeper_load(world);
    status = engine_adopt(world->engine, model, &err);
    LAW(status == WEIR_OK, "the model is not adopted: %s", err.text);
}

static void make_world(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->random = dice_of(seed);
    clock_init_manual(&world->clock, NS_PER_S);
    limits_init(&world->limits);
    world->batched = chance(world, 75);
    world->grows = chance(world, 40);
    world->limits.batch_bytes_max = chance(world, 30) ? 64 : 1 << 20;
    world->limits.sequences_max = chance(world, 30) ? 1 + draw(world, IDS) : 100;
    world->limits.sequence_bytes_max =
        world->grows && chance(world, 50) ? 64 + draw(world, 200) : 1 << 20;
    const struct device_options device = { .name = "cpu",
                                           .executors = 1 + (uint32_t)draw(world, 3) };
    const struct engine_options options = { .devices = &device,
                                            .device_count = 1,
                                            .limits = &world->limits,
                                            .clock = &world->clock,
                                            .inline_runs = true };
    struct weir_err err = { 0 };
    LAW(engine_create(&options, &world->engine, &err) == WEIR_OK, "%s", err.text);
    world->pool = world->engine->pools[0];
    world->cost_ns = 1 + draw(world, 2 * NS_PER_MS);
    world->lag_ns = chance(world, 50) ? draw(world, NS_PER_MS) : 0;
    world->home_count = 1 + (uint32_t)draw(world, HOMES_MAX);
    for (uint32_t i = 0; i < world->home_count; i++) {
        home_init(&world->homes[i].home, world->engine, wake, &world->homes[i]);
    }
    for (uint32_t i = 0; i < IDS; i++) {
        world->last_run[i] = -1;
    }
    make_signature(world);
    make_config(world);
    make_model(world);
#ifdef WEIR_ALLOC_FAULT
    world->faults = chance(world, 40);
#endif
}

static void make_request(struct world *world, uint64_t arrives_ns)
{
    struct sim_request *r = &world->requests[world->request_count++];
    r->id = (uint32_t)draw(world, IDS);
    r->arrives_ns = arrives_ns;
    r->x = chance(world, 3) ? POISON : 1 + (int64_t)draw(world, 1000);
    r->cancels_ns = chance(world, 5) ? arrives_ns + draw(world, 10 * NS_PER_MS) : CLOCK_NEVER;
    r->input = (struct tensor){ .dtype = DTYPE_INT64,
                                .present = true,
                                .shape = { world->batched ? 2 : 1, { 1, 1 } },
                                .data = (uint8_t *)&r->x,
                                .size = sizeof(r->x) };
    asking_init(&r->request, &world->homes[draw(world, world->home_count)].home, &world->model,
                &r->input, &r->output);
    r->request.deadline_ns =
        chance(world, 10) ? arrives_ns + draw(world, 20 * NS_PER_MS) : CLOCK_NEVER;
    r->request.ended = on_end;
    r->request.user = world;
    if (r->id < TEXT_IDS) {
        r->request.sequence_id.text = bytes_of(text_of(r->id));
    } else {
        r->request.sequence_id.number = number_of(r->id);
    }
}

static bool is_over(const struct sim_request *r)
{
    return r->ends > 0 || r->request.state == REQUEST_ENDED;
}

/* Does the engine know this sequence, as far as anybody can tell from outside? */
static bool expected_open(const struct world *world, uint32_t id)
{
    const struct shadow *shadow = &world->shadows[id];
    uint64_t used_ns = 0;
    bool busy = false;
    for (uint32_t i = 0; i < world->request_count && shadow->open; i++) {
        const struct sim_request *r = &world->requests[i];
        if (!r->accepted || r->id != id || r->generation != shadow->generation) {
            continue;
        }
        if (is_over(r) && r->request.status != WEIR_OK) {
            return false;
        }
        busy = busy || !is_over(r);
        used_ns = r->request.times.ended_ns > used_ns ? r->request.times.ended_ns : used_ns;
    }
    return shadow->open &&
           (busy || used_ns + world->config->sequence.idle_ns > clock_now_ns(&world->clock));
}

static void submit(struct world *world, struct sim_request *r)
{
    struct weir_err err = { 0 };
    struct shadow *shadow = &world->shadows[r->id];
    const bool open = expected_open(world, r->id);
    r->request.sequence_start = chance(world, open ? 7 : 85);
    r->request.sequence_end = chance(world, 12);
    model_acquire(&world->model);
    const enum weir_status status = engine_submit(world->engine, &r->request, &err);
    r->accepted = status == WEIR_OK;
    if (!r->accepted) {
        LAW(status != WEIR_EINVAL || (!r->request.sequence_start && !open), "refused: %s",
            err.text);
        LAW(status == WEIR_EINVAL || status == WEIR_EFULL || status == WEIR_ETIMEOUT ||
                (status == WEIR_ENOMEM && world->faults),
            "refused with %s", err.text);
        model_release(&world->model);
        return;
    }
    LAW(r->request.sequence_start || open, "sequence %u went on without being there", r->id);
    world->accepted++;
    if (r->request.sequence_start) {
        shadow->generation++;
        shadow->value = 0;
    }
    shadow->open = !r->request.sequence_end;
    shadow->value = step(shadow->value, r->x);
    r->generation = shadow->generation;
    r->expected = shadow->value;
}

static void check_lane(struct world *world, const struct sequence_lane *lane)
{
    const struct sequencer *s = world->model.sequences;
    uint32_t held = 0;
    uint32_t ready = 0;
    for (struct list_node *n = list_first(&s->all); n != NULL; n = list_next(&s->all, n)) {
        const struct sequence *sequence = list_entry(n, struct sequence, all);
        held += sequence->lane == lane ? 1 : 0;
        ready += sequence->lane == lane && sequence->head != NULL ? 1 : 0;
        LAW(sequence->lane != lane || lane->rows == NULL || lane->rows[sequence->row] == sequence,
            "a sequence without its row");
    }
    LAW(held == lane->held && held <= lane->places, "%u sequences in %u places", held,
        lane->places);
    LAW(ready == lane->ready_count, "a lane miscounts what is ready");
    LAW(held == lane->places || list_empty(&s->backlog),
        "a sequence waits for a place that is free");
}

static void check_sequences(struct world *world)
{
    const struct sequencer *s = world->model.sequences;
    uint64_t bytes = 0;
    uint32_t count = 0;
    uint32_t waiting = 0;
    for (struct list_node *n = list_first(&s->all); n != NULL; n = list_next(&s->all, n)) {
        const struct sequence *sequence = list_entry(n, struct sequence, all);
        bytes += sequence->states[0].present ? sequence->states[0].size : 0;
        waiting += sequence->head != NULL ? 1 : 0;
        LAW(sequence->head == NULL || !sequence->running, "two heads");
        count++;
        LAW(sequence->head != NULL || sequence->running || sequence->lane == NULL ||
                list_empty(&sequence->fifo),
            "a sequence with a place and no head");
        for (struct list_node *f = list_first(&sequence->fifo); f != NULL;
             f = list_next(&sequence->fifo, f)) {
            waiting++;
        }
    }
    for (uint32_t i = 0; i < s->lane_count; i++) {
        check_lane(world, &s->lanes[i]);
    }
    LAW(count == s->count && count <= world->limits.sequences_max, "%u sequences, %u counted",
        count, s->count);
    LAW(bytes == s->state_bytes && bytes <= world->limits.sequence_bytes_max,
        "%" PRIu64 " bytes of states, %" PRIu64 " counted", bytes, s->state_bytes);
    LAW(waiting == world->model.waiting_count, "%u wait, %u counted", waiting,
        world->model.waiting_count);
}

static void pull_all(struct world *world)
{
    world->wake_ns = CLOCK_NEVER;
    while (world->flights.count < world->pool->executor_count) {
        struct instance *instance =
            pool_pull(world->pool, clock_now_ns(&world->clock), &world->wake_ns);
        if (instance == NULL) {
            const struct sequence_turn turn =
                sequencer_next(world->model.sequences, clock_now_ns(&world->clock));
            LAW(!turn.ready, "work waits and an executor is free");
            return;
        }
        flights_start(&world->flights, instance);
    }
}

static void land(struct world *world)
{
    struct instance *instance;
    while ((instance = flights_land(&world->flights, clock_now_ns(&world->clock))) != NULL) {
        pool_settle(world->pool, instance, clock_now_ns(&world->clock));
        check_sequences(world);
    }
}

static uint64_t home_due_ns(const struct world *world, const struct sim_home *h)
{
    return h->woken ? 0 : clock_add(home_next_ns(&h->home), world->lag_ns);
}

static void turn_homes(struct world *world)
{
    for (uint32_t i = 0; i < world->home_count; i++) {
        if (home_due_ns(world, &world->homes[i]) <= clock_now_ns(&world->clock)) {
            world->homes[i].woken = false;
            home_turn(&world->homes[i].home);
        }
    }
}

static void cancel_due(struct world *world)
{
    for (uint32_t i = 0; i < world->request_count; i++) {
        struct sim_request *r = &world->requests[i];
        if (r->accepted && r->ends == 0 && !r->canceled &&
            r->cancels_ns <= clock_now_ns(&world->clock)) {
            r->canceled = true;
            engine_cancel(world->engine, &r->request);
            check_sequences(world);
        }
    }
}

/* Idle sequences alone are no reason to go on. */
static uint64_t next_event(const struct world *world, uint32_t submitted)
{
    uint64_t next = CLOCK_NEVER;
    if (submitted < world->request_count) {
        next = world->requests[submitted].arrives_ns;
    }
    for (uint32_t i = 0; i < submitted; i++) {
        const struct sim_request *r = &world->requests[i];
        next = r->accepted && r->ends == 0 && !r->canceled ? sooner(next, r->cancels_ns) : next;
    }
    next = sooner(next, flights_next_ns(&world->flights));
    for (uint32_t i = 0; i < world->home_count; i++) {
        next = sooner(next, home_due_ns(world, &world->homes[i]));
    }
    return world->ended < world->accepted || submitted < world->request_count
               ? sooner(next, world->wake_ns)
               : next;
}

static void end_world(struct world *world)
{
    LAW(world->ended == world->accepted, "%u accepted, %u ended", world->accepted, world->ended);
    LAW(world->pool->waiting == 0 && world->pool->running == 0, "the pool still holds requests");
    /* Everything idles away, without a request to remind anybody. */
    clock_turn(&world->clock, clock_now_ns(&world->clock) + world->config->sequence.idle_ns);
    for (struct list_node *n = list_first(&world->model.sequences->all); n != NULL;
         n = list_next(&world->model.sequences->all, n)) {
        LAW(world->model.again.in, "idle sequences that nobody will look at");
    }
    if (chance(world, 50)) {
        pull_all(world);
        LAW(world->model.sequences->count == 0, "sequences that do not idle away");
        LAW(!world->model.again.in, "a model without sequences is still looked at");
    }
    LAW(atomic_load(&world->model.leases) == 1, "a lease was not given back");
    model_release(&world->model);
    engine_abandon(world->engine, &world->model);
    LAW(block_pool_used_bytes(world->engine->blocks) == 0, "memory is still out");
    effective_release(world->config);
    for (uint32_t i = 0; i < world->home_count; i++) {
        home_finish(&world->homes[i].home);
    }
    engine_destroy(world->engine);
}

static uint64_t run_seed(struct world *world, uint64_t seed)
{
    make_world(world, seed);
    const uint32_t count = 20 + (uint32_t)draw(world, REQUESTS_MAX - 20);
    const uint64_t gap_ns = 1 + draw(world, 4 * NS_PER_MS);
    uint64_t at_ns = clock_now_ns(&world->clock);
    for (uint32_t i = 0; i < count; i++) {
        at_ns += chance(world, 40) ? 0 : draw(world, gap_ns);
        make_request(world, at_ns);
    }
    uint32_t submitted = 0;
    for (uint64_t next = next_event(world, submitted); next != CLOCK_NEVER;
         next = next_event(world, submitted)) {
        if (next > clock_now_ns(&world->clock)) {
            clock_turn(&world->clock, next);
        }
        (void)mem_fault_arm(world->faults ? 1 + draw(world, 30) : 0);
        land(world);
        while (submitted < world->request_count &&
               world->requests[submitted].arrives_ns <= clock_now_ns(&world->clock)) {
            submit(world, &world->requests[submitted++]);
            check_sequences(world);
        }
        cancel_due(world);
        pull_all(world);
        turn_homes(world);
        pull_all(world);
        check_sequences(world);
    }
    (void)mem_fault_arm(0);
    end_world(world);
    return world->succeeded;
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 3000);
    struct world *world = mem_alloc(sizeof(*world));
    uint64_t succeeded = 0;
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        succeeded += run_seed(world, seed);
    }
    mem_free(world);
    printf("%" PRIu64 " seeds, %" PRIu64 " requests succeeded, every law held\n",
           seeds.end - seeds.first, succeeded);
    return 0;
}
