/*
 * The real engine on simulated devices under a clock turned by hand.
 *
 * Each seed draws devices, models with their limits and faults, homes, and a
 * storm of requests with deadlines and cancellations.  After every event the
 * laws are checked:
 *
 *   - an accepted request ends exactly once, on its own home, a refused one never;
 *   - an answer carries the request's own rows;
 *   - no batch has more rows than its model allows, nor mixes shapes, nor leaves before its time
 *     but for a reason;
 *   - nobody overtakes: who leads is of the most urgent class or one that is owed, in it of the
 *     client that has had the least, and of that client's requests the earliest due, but for models
 *     that have had more; nothing that could go waits while an executor is free;
 *   - parts come in order and before the end, all of them;
 *   - nothing starts after its deadline, no line is longer than its limit;
 *   - a request that fails does so for a fault of its own, not its neighbour's;
 *   - runs never hold more of a resource than there is, and one that could have its resources goes;
 *   - equal requests to a model that joins them share one run, each with its own deadline;
 *   - when all is done nothing is held: no memory, no place in line, no lease.
 *
 * Usage: sim_engine [--seeds N] [--seed S]; a failing seed prints its number.
 */
#include "asking.h"
#include "engine_world.h"
#include "simulated.h"

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

static void unleased(struct model *model)
{
    list_entry(model, struct sim_model, model)->unleased = true;
}

static float value_of(const struct sim_request *r, uint32_t row)
{
    return r->poisoned && row == 0 ? POISON : (float)r->twin * 64 + (float)row;
}

static void check_answer(const struct sim_request *r, const struct tensor *output)
{
    struct world *world = r->world;
    LAW(output->present && output->shape.dims[0] == r->rows, "an answer with other rows");
    const float *values = (const float *)(const void *)output->data;
    for (uint32_t i = 0; i < r->rows * r->width; i++) {
        LAW(values[i] == value_of(r, i / r->width), "request %td got the row of another",
            r - world->requests);
    }
}

static void read_parts(struct sim_request *r)
{
    for (uint32_t i = 0; i < PARTS_MAX; i++) {
        if (r->unread[i] != NULL) {
            check_answer(r, &r->unread[i]->outputs[0]);
            request_part_release(r->unread[i]);
            r->unread[i] = NULL;
        }
    }
}

static void on_part(struct request *request, struct request_part *part)
{
    struct sim_request *r = list_entry(request, struct sim_request, request);
    struct world *world = r->world;
    LAW(r->ends == 0, "a part after the end");
    LAW(r->parts < list_entry(request->model, struct sim_model, model)->parts, "too many parts");
    r->unread[r->parts++] = part;
    if (chance(world, 50)) {
        read_parts(r);
    }
}

static void on_end(struct request *request)
{
    struct sim_request *r = list_entry(request, struct sim_request, request);
    struct world *world = r->world;
    const struct sim_model *m = list_entry(request->model, struct sim_model, model);
    const uint64_t now_ns = clock_now_ns(&world->clock);
    LAW(r->accepted, "a refused request ended");
    LAW(++r->ends == 1, "request %td ended %u times", r - world->requests, r->ends);
    world->ended++;
    switch (request->status) {
    case WEIR_OK:
        LAW(!r->poisoned, "a poisoned request succeeded");
        LAW(!r->unwanted, "an answer that nobody wanted any more");
        LAW(request->times.taken_ns >= request->times.submitted_ns &&
                request->times.gathered_ns >= request->times.taken_ns &&
                request->times.computed_ns >= request->times.gathered_ns &&
                request->times.ended_ns >= request->times.computed_ns,
            "times run backwards");
        LAW(request->times.taken_ns < request->deadline_ns, "work began after its deadline");
        if (m->parts > 1) {
            LAW(r->parts == m->parts, "%u of %u parts came", r->parts, m->parts);
        } else {
            check_answer(r, &r->output);
        }
        break;
    case WEIR_ECANCELED:
        LAW(r->canceled, "canceled by nobody");
        break;
    case WEIR_ETIMEOUT:
        LAW(request->deadline_ns <= now_ns, "timed out before its deadline");
        LAW(r->lates > 0 || now_ns <= request->deadline_ns + world->lag_ns,
            "told %" PRIu64 " ns late that it timed out", now_ns - request->deadline_ns);
        break;
    case WEIR_EOVERLOAD:
        LAW(request->times.ended_ns < request->deadline_ns, "let go after its deadline");
        break;
    case WEIR_EFULL:
        LAW(clock_add(request->times.submitted_ns, m->config.queue_timeout_ns) <= now_ns,
            "a queue time-out too early");
        LAW(now_ns <= request->leave_by_ns + world->lag_ns, "told late that the queue timed out");
        break;
    case WEIR_ENOMEM:
        LAW(r->rows > m->rows_in_memory, "out of memory for %u rows", r->rows);
        break;
    default:
        LAW(r->poisoned || m->fails_at_random, "request %td failed without fault of its own: %s",
            r - world->requests, request->err.text);
    }
    read_parts(r);
    tensor_release(&r->output);
    model_release(request->model);
}

static void on_late(struct request *request)
{
    struct sim_request *r = list_entry(request, struct sim_request, request);
    struct world *world = r->world;
    LAW(++r->lates == 1 && r->ends == 0, "late more than once, or after the end");
    r->unwanted = true;
}

static void set(struct sim_model *m, const char *key, const char *format, uint64_t value)
{
    const uint32_t at = m->config.setting_count++;
    (void)snprintf(m->texts[at], sizeof(m->texts[at]), format, (unsigned long long)value);
    m->settings[at] = (struct setting){ key, m->texts[at] };
}

static void set_text(struct sim_model *m, const char *key, const char *value)
{
    m->settings[m->config.setting_count++] = (struct setting){ key, value };
}

static void make_settings(struct world *world, struct sim_model *m)
{
    const bool tiny = chance(world, 30); /* Short enough to run inline. */
    set(m, "tau0", "%lluus", draw(world, tiny ? 10 : 3000));
    set(m, "alpha", "%lluus", 1 + draw(world, tiny ? 2 : 500));
    set_text(m, "inputs", "x:FP32[-1,-1]");
    set_text(m, "outputs", "y:FP32[-1,-1]");
    set_text(m, "poison", "-1");
    set_text(m, "exclusive", chance(world, 50) ? "true" : "false");
    set_text(m, "short_lived", chance(world, 50) ? "true" : "false");
    m->parts = chance(world, 20) ? 2 + (uint32_t)draw(world, PARTS_MAX - 1) : 1;
    set(m, "parts", "%llu", m->parts);
    set(m, "prepare", "%lluus", chance(world, 40) ? draw(world, 300) : 0);
    set(m, "finish", "%lluus", chance(world, 40) ? draw(world, 300) : 0);
    m->rows_in_memory = UINT32_MAX;
    if (chance(world, 30)) {
        m->rows_in_memory = 4 + (uint32_t)draw(world, 12);
        set(m, "oom_above_rows", "%llu", m->rows_in_memory);
    }
    if (chance(world, 20)) {
        set(m, "fail_at", "%llu", 1 + draw(world, 20));
        m->fails_at_random = true;
    }
}

static void make_config(struct world *world, struct sim_model *m, const char *name,
                        const char *device)
{
    struct model_config *config = &m->config;
    *config = (struct model_config){
        .name = name,
        .backend = "sim",
        .device = device,
        .max_batch_size = (int64_t)(1 + draw(world, 16)),
        .queue_delay_ns = chance(world, 40) ? draw(world, 4) * NS_PER_MS : 0,
        .queue_timeout_ns = chance(world, 30) ? (1 + draw(world, 20)) * NS_PER_MS : CLOCK_NEVER,
        .requests_max = chance(world, 40) ? (uint32_t)(1 + draw(world, 30)) : 0,
        .instances = chance(world, 40) ? (uint32_t)(1 + draw(world, 3)) : 0,
        .join = chance(world, 40),
        .intra_threads = chance(world, 20) ? 2 + (uint32_t)draw(world, 3) : 1,
        .settings = m->settings,
    };
    if (chance(world, 40)) {
        for (uint32_t size = 1 + (uint32_t)draw(world, 3);
             size <= (uint32_t)config->max_batch_size && config->preferred_count < 3; size *= 2) {
            config->preferred[config->preferred_count++] = size;
        }
    }
    if (chance(world, 40)) {
        config->priority_levels = 2 + (uint32_t)draw(world, 3);
        config->priority_default = 1 + (uint32_t)draw(world, config->priority_levels);
    }
    if (chance(world, 50)) {
        m->resource =
            (struct rate_resource){ "r", 1 + (uint32_t)draw(world, 3), chance(world, 50) };
        config->resources = &m->resource;
        config->resource_count = 1;
        config->rate_priority = (uint32_t)draw(world, 4);
    }
    make_settings(world, m);
}

static void make_model(struct world *world, uint32_t index, const char *device)
{
    static const char *const names[MODELS_MAX] = { "a", "b", "c", "d" };
    struct sim_model *m = &world->models[index];
    make_config(world, m, names[index], device);
    struct model *model = &m->model;
    simulated_load(model, &m->config, world->engine);
    model->unleased = unleased;
    struct weir_err err = { 0 };
    const enum weir_status status = engine_adopt(world->engine, model, &err);
    LAW(status == WEIR_OK, "the model is not adopted: %s", err.text);
}

static void make_world(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->random = dice_of(seed);
    clock_init_manual(&world->clock, NS_PER_S);
    limits_init(&world->limits);
    world->limits.requests_total_max = 20 + draw(world, 200);
    world->limits.parts_max = PARTS_MAX; /* The bound would block the only thread there is. */
    world->limits.batch_bytes_max = chance(world, 30) ? 64 : 1 << 20;
    const struct device_options devices[] = {
        { .name = "cpu", .executors = 1 + (uint32_t)draw(world, 3) },
        { .name = "npu", .executors = 1, .pipelined = chance(world, 50) },
    };
    world->order = order_defaults();
    world->order.ageing_ns = chance(world, 50) ? (1 + draw(world, 20)) * NS_PER_MS : NS_PER_S;
    world->order.budget_ns = draw(world, 4) * NS_PER_MS;
    const struct engine_options options = { .devices = devices,
                                            .order = &world->order,
                                            .device_count = 2,
                                            .limits = &world->limits,
                                            .clock = &world->clock,
                                            .inline_runs = chance(world, 50),
                                            .rate_limit = chance(world, 30) };
    struct weir_err err = { 0 };
    LAW(engine_create(&options, &world->engine, &err) == WEIR_OK, "%s", err.text);
    world->lag_ns = chance(world, 50) ? draw(world, NS_PER_MS) : 0;
    world->home_count = 1 + (uint32_t)draw(world, HOMES_MAX);
    for (uint32_t i = 0; i < world->home_count; i++) {
        world->homes[i].world = world;
        home_init(&world->homes[i].home, world->engine, wake, &world->homes[i]);
    }
    world->model_count = 1 + (uint32_t)draw(world, MODELS_MAX);
    for (uint32_t i = 0; i < world->model_count; i++) {
        make_model(world, i, devices[draw(world, 2)].name);
    }
    for (uint32_t i = 0; i < world->engine->pool_count; i++) {
        world->wakes_ns[i] = CLOCK_NEVER;
    }
}

static void make_request(struct world *world, uint64_t arrives_ns)
{
    struct sim_request *r = &world->requests[world->request_count++];
    struct model *model = &world->models[draw(world, world->model_count)].model;
    const int64_t most = model->config->max_batch_size;
    r->world = world;
    r->arrives_ns = arrives_ns;
    r->rows = 1 + (uint32_t)draw(world, chance(world, 80) ? 1 : (uint64_t)most);
    r->width = 1 + (uint32_t)draw(world, WIDTH_MAX);
    r->poisoned = chance(world, 3);
    r->twin = world->request_count - 1;
    if (r->twin > 0 && chance(world, 40)) {
        const struct sim_request *twin = r - 1 - draw(world, r->twin < 8 ? r->twin : 8);
        model = twin->request.model;
        r->twin = twin->twin;
        r->rows = twin->rows;
        r->width = twin->width;
        r->poisoned = twin->poisoned;
    }
    r->cancels_ns = chance(world, 10) ? arrives_ns + draw(world, 10 * NS_PER_MS) : CLOCK_NEVER;
    r->input = (struct tensor){ .dtype = DTYPE_FP32,
                                .present = true,
                                .shape = { 2, { r->rows, r->width } },
                                .size = (size_t)r->rows * r->width * sizeof(float),
                                .block = block_create(64 * sizeof(float)) };
    r->input.data = r->input.block->data;
    for (uint32_t i = 0; i < r->rows * r->width; i++) {
        ((float *)(void *)r->input.data)[i] = value_of(r, i / r->width);
    }
    asking_init(&r->request, &world->homes[draw(world, world->home_count)].home, model, &r->input,
                &r->output);
    r->request.priority = (uint32_t)draw(world, 6);
    r->request.client = draw(world, 4);
    r->request.client_weight = (uint32_t)draw(world, 4);
    r->request.deadline_ns =
        chance(world, 40) ? arrives_ns + draw(world, 20 * NS_PER_MS) : CLOCK_NEVER;
    r->request.ended = on_end;
    r->request.late = on_late;
    r->request.part = on_part;
}

static void submit(struct world *world, struct sim_request *r)
{
    struct weir_err err = { 0 };
    model_acquire(r->request.model);
    const struct model *model = r->request.model;
    const uint32_t most = model->requests_max;
    const uint32_t before = model->waiting_count;
    const enum weir_status status = engine_submit(world->engine, &r->request, &err);
    r->accepted = status == WEIR_OK;
    r->joined = r->accepted && r->request.state == REQUEST_JOINED;
    LAW(!r->joined || model->joining, "joined where nobody asked for it");
    LAW(!r->joined || r->request.leader->stop == WEIR_OK ||
            r->request.leader->followers.head.next != r->request.leader->followers.head.prev,
        "joined to a run that may have been terminated");
    if (r->accepted) {
        LAW(before < most, "a line longer than its limit");
        world->accepted++;
        return;
    }
    LAW(status == WEIR_EFULL || status == WEIR_ETIMEOUT ||
            (status == WEIR_EOVERLOAD && r->request.deadline_ns != CLOCK_NEVER),
        "refused with %s: %s", weir_status_name(status), err.text);
    LAW(status != WEIR_ETIMEOUT || r->request.deadline_ns <= clock_now_ns(&world->clock),
        "refused for a deadline that had not passed");
    model_release(r->request.model);
}

/* Lets free executors pull until they find nothing. */
static void pull_all(struct world *world)
{
    for (uint32_t p = 0; p < world->engine->pool_count; p++) {
        struct pool *pool = world->engine->pools[p];
        world->wakes_ns[p] = CLOCK_NEVER;
        while (flights_on(&world->flights, pool) < pool->thread_count) {
            pool->idle_count = pool->thread_count - flights_on(&world->flights, pool) - 1;
            note_turn(world, pool);
            struct instance *instance =
                pool_pull(pool, clock_now_ns(&world->clock), &world->wakes_ns[p]);
            pool->idle_count = 0;
            if (instance == NULL) {
                check_idle(world, pool);
                break;
            }
            check_batch(world, instance);
            check_order(world, instance);
            check_delay(world, instance);
            flights_start(&world->flights, instance);
            check_resources(world);
            check_places(world, pool);
        }
    }
}

static void land(struct world *world)
{
    struct instance *instance;
    while ((instance = flights_land(&world->flights, clock_now_ns(&world->clock))) != NULL) {
        pool_settle(instance->model->pool, instance, clock_now_ns(&world->clock));
    }
}

static uint64_t home_due_ns(const struct world *world, const struct sim_home *h)
{
    return h->woken || !list_empty(&h->home.inline_models)
               ? 0
               : clock_add(home_next_ns(&h->home), world->lag_ns);
}

/* Turns the homes that have a reason to. */
static void turn_homes(struct world *world)
{
    for (uint32_t i = 0; i < world->home_count; i++) {
        struct sim_home *h = &world->homes[i];
        if (home_due_ns(world, h) <= clock_now_ns(&world->clock)) {
            h->woken = false;
            home_turn(&h->home);
        }
    }
}

static uint64_t next_event(const struct world *world, uint32_t submitted)
{
    uint64_t next = CLOCK_NEVER;
    if (submitted < world->request_count) {
        next = world->requests[submitted].arrives_ns;
    }
    for (uint32_t i = 0; i < submitted; i++) {
        const struct sim_request *r = &world->requests[i];
        if (r->accepted && r->ends == 0 && !r->canceled) {
            next = sooner(next, r->cancels_ns);
        }
    }
    next = sooner(next, flights_next_ns(&world->flights));
    for (uint32_t i = 0; i < world->home_count; i++) {
        next = sooner(next, home_due_ns(world, &world->homes[i]));
    }
    for (uint32_t i = 0; i < world->engine->pool_count; i++) {
        next = sooner(next, world->wakes_ns[i]);
    }
    return next;
}

static void cancel_due(struct world *world)
{
    for (uint32_t i = 0; i < world->request_count; i++) {
        struct sim_request *r = &world->requests[i];
        if (r->accepted && r->ends == 0 && !r->canceled &&
            r->cancels_ns <= clock_now_ns(&world->clock)) {
            r->canceled = true;
            r->unwanted = r->unwanted || r->request.state == REQUEST_RUNNING;
            engine_cancel(world->engine, &r->request);
        }
    }
}

static void check_rest(struct world *world)
{
    LAW(world->ended == world->accepted, "%u accepted, %u ended", world->accepted, world->ended);
    for (uint32_t i = 0; i < world->engine->pool_count; i++) {
        const struct pool *pool = world->engine->pools[i];
        LAW(pool->waiting == 0 && pool->running == 0 && pool->joined == 0,
            "pool '%s' still holds requests", pool->name);
    }
    for (uint32_t i = 0; i < world->home_count; i++) {
        LAW(world->homes[i].home.pending == 0, "a home still waits");
    }
    LAW(block_pool_used_bytes(world->engine->blocks) == 0, "%" PRIu64 " bytes still out",
        block_pool_used_bytes(world->engine->blocks));
}

static void end_world(struct world *world)
{
    for (uint32_t i = 0; i < world->request_count; i++) {
        tensor_release(&world->requests[i].input);
    }
    for (uint32_t i = 0; i < world->model_count; i++) {
        struct sim_model *m = &world->models[i];
        LAW(atomic_load(&m->model.leases) == 1, "a lease was not given back");
        model_release(&m->model);
        LAW(m->unleased, "the last lease did not tell");
        engine_abandon(world->engine, &m->model);
        backend_unload(m->model.backend);
    }
    for (uint32_t i = 0; i < world->home_count; i++) {
        home_finish(&world->homes[i].home);
    }
    engine_destroy(world->engine);
}

static uint32_t run_seed(struct world *world, uint64_t seed)
{
    make_world(world, seed);
    const uint32_t count = 20 + (uint32_t)draw(world, REQUESTS_MAX - 20);
    uint64_t at_ns = clock_now_ns(&world->clock);
    for (uint32_t i = 0; i < count; i++) {
        at_ns += chance(world, 40) ? 0 : draw(world, 2 * NS_PER_MS);
        make_request(world, at_ns);
    }
    uint32_t submitted = 0;
    for (uint64_t next = next_event(world, submitted); next != CLOCK_NEVER;
         next = next_event(world, submitted)) {
        if (next > clock_now_ns(&world->clock)) {
            clock_turn(&world->clock, next);
        }
        land(world);
        while (submitted < world->request_count &&
               world->requests[submitted].arrives_ns <= clock_now_ns(&world->clock)) {
            submit(world, &world->requests[submitted++]);
        }
        cancel_due(world);
        pull_all(world);
        turn_homes(world);
        pull_all(world);
        check_lines(world);
        check_joined(world);
    }
    check_rest(world);
    const uint32_t ended = world->ended;
    end_world(world);
    return ended;
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 2000);
    struct world *world = mem_alloc(sizeof(*world));
    uint64_t ended = 0;
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        ended += run_seed(world, seed);
    }
    mem_free(world);
    printf("%" PRIu64 " seeds, %" PRIu64 " requests ended, every law held\n",
           seeds.end - seeds.first, ended);
    return 0;
}
