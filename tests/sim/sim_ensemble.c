/*
 * Random graphs of simulated models under a clock turned by hand.
 *
 * Each seed draws models, ensembles of them (and of each other), and a storm of requests with deadlines, faults
 * and cancellations.  A simulated model's i-th output is its i-th input (or its last one), so what an
 * output has to be is found by walking the configuration by name, which knows nothing of graphs and runs.
 * The laws:
 *
 *   - an accepted request ends exactly once, a refused one never;
 *   - an answer has every output that was asked for, each right, and no other; a failure has none;
 *   - a request fails only for a fault of its own: its poison, its deadline, its cancellation, a full line;
 *   - what was canceled, or told to be late, has no answer any more;
 *   - when all is done nothing is held: no memory, no place in line, no run, no lease.
 *
 * Usage: sim_ensemble [--seeds N] [--seed S]; a failing seed prints its number.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "backend/backend.h"
#include "engine/effective.h"
#include "engine/pool.h"
#include "flights.h"
#include "pipeline/graph.h"
#include "pipeline/run.h"
#include "seeds.h"
#include "util/mem.h"

#define PLAIN_MAX 5
#define ENSEMBLES_MAX 3
#define MODELS_MAX (PLAIN_MAX + ENSEMBLES_MAX)
#define STEPS_MAX 7
#define PORTS_MAX 32 /* Inputs or outputs of any model. */
#define REQUESTS_MAX 60
#define ROWS_MAX 3
#define POISON (-1.0F)
#define NOTHING UINT32_MAX

struct world;

struct sim_home {
    struct home home;
    bool woken;
};

struct sim_model {
    struct model model;
    struct setting settings[12];
    char texts[12][128];
    struct model *parts[STEPS_MAX];
    bool unleased;
};

struct sim_request {
    struct request request;
    struct world *world;
    struct tensor inputs[PORTS_MAX];
    struct tensor outputs[PORTS_MAX];
    bool wanted[PORTS_MAX];
    uint32_t expected[PORTS_MAX]; /* Which input each output is. */
    float values[PORTS_MAX][ROWS_MAX];
    uint32_t rows;
    uint32_t poisoned; /* An input, or NOTHING. */
    bool accepted;
    bool canceled;
    uint32_t ends;
    uint32_t lates;
    uint64_t arrives_ns;
    uint64_t cancels_ns;
};

struct world {
    uint64_t seed;
    uint64_t random;
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct sim_home home;
    struct sim_model models[MODELS_MAX];
    uint32_t plain_count;
    uint32_t model_count;
    bool faults; /* Some model fails now and then. */
    struct sim_request requests[REQUESTS_MAX];
    uint32_t request_count;
    struct flights flights;
    uint64_t wakes_ns[2];
    uint32_t accepted;
    uint32_t ended;
    uint32_t succeeded;
};

static uint64_t draw(struct world *world, uint64_t below)
{
    return dice_below(&world->random, below);
}

static uint32_t draw_u32(struct world *world, uint32_t below)
{
    return (uint32_t)draw(world, below);
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

/* ---- What an answer has to be ------------------------------------------------------------------ */

/* A tensor of an ensemble while it is evaluated. */
struct fact {
    const char *name;
    uint32_t origin; /* An input of the request. */
};

static void evaluate(const struct model *model, const uint32_t *inputs, uint32_t *outputs);

static bool find_fact(const struct fact *facts, uint32_t count, const char *name, uint32_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(facts[i].name, name) == 0) {
            *out = facts[i].origin;
            return true;
        }
    }
    return false;
}

static uint32_t port_of(const struct tensor_spec *specs, const char *name)
{
    uint32_t port = 0;
    while (strcmp(specs[port].name, name) != 0) {
        port++;
    }
    return port;
}

/* True when all that the step takes is known; then what it gives is, too. */
static bool evaluate_step(const struct ensemble_step *step, const struct model *part,
                          struct fact *facts, uint32_t *count)
{
    uint32_t inputs[PORTS_MAX] = { 0 };
    uint32_t outputs[PORTS_MAX];
    for (uint32_t i = 0; i < step->input_count; i++) {
        const uint32_t port = port_of(part->signature->inputs, step->inputs[i].model_tensor);
        if (!find_fact(facts, *count, step->inputs[i].ensemble_tensor, &inputs[port])) {
            return false;
        }
    }
    evaluate(part, inputs, outputs);
    for (uint32_t i = 0; i < step->output_count; i++) {
        const uint32_t port = port_of(part->signature->outputs, step->outputs[i].model_tensor);
        facts[(*count)++] = (struct fact){ step->outputs[i].ensemble_tensor, outputs[port] };
    }
    return true;
}

static void evaluate(const struct model *model, const uint32_t *inputs, uint32_t *outputs)
{
    const struct signature *signature = model->signature;
    struct fact facts[STEPS_MAX * PORTS_MAX];
    bool done[STEPS_MAX] = { false };
    uint32_t count = 0;
    uint32_t left = model->part_count;
    for (uint32_t i = 0; left == 0 && i < signature->output_count; i++) {
        const uint32_t last = signature->input_count - 1;
        outputs[i] = inputs[i < last ? i : last];
    }
    for (uint32_t i = 0; i < signature->input_count; i++) {
        facts[count++] = (struct fact){ signature->inputs[i].name, inputs[i] };
    }
    while (left > 0) {
        for (uint32_t i = 0; i < model->part_count; i++) {
            if (!done[i] &&
                evaluate_step(&model->config->ensemble.steps[i], model->parts[i], facts, &count)) {
                done[i] = true;
                left--;
            }
        }
    }
    for (uint32_t i = 0; model->part_count > 0 && i < signature->output_count; i++) {
        (void)find_fact(facts, count, signature->outputs[i].name, &outputs[i]);
    }
}

/* ---- Models ------------------------------------------------------------------------------------ */

static void set(struct sim_model *m, const char *key, const char *format, uint64_t value)
{
    const uint32_t at = m->model.config->setting_count++;
    (void)snprintf(m->texts[at], sizeof(m->texts[at]), format, (unsigned long long)value);
    m->settings[at] = (struct setting){ key, m->texts[at] };
}

static void set_ports(struct sim_model *m, const char *key, char letter, uint32_t count)
{
    const uint32_t at = m->model.config->setting_count++;
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int wrote = snprintf(m->texts[at] + size, sizeof(m->texts[at]) - size,
                                   "%s%c%u:FP32[-1,1]", i == 0 ? "" : " ", letter, i);
        size += (size_t)wrote;
    }
    m->settings[at] = (struct setting){ key, m->texts[at] };
}

static void begin_model(struct world *world, struct sim_model *m, const char *name)
{
    m->model.name = name;
    m->model.version = 1;
    m->model.config = effective_create();
    LAW(m->model.config != NULL, "no memory");
    m->model.config->name = name;
    m->model.config->settings = m->settings;
    m->model.unleased = unleased;
    model_acquire(&m->model);
}

static void adopt(struct world *world, struct sim_model *m)
{
    struct weir_err err = { 0 };
    LAW(engine_adopt(world->engine, &m->model, &err) == WEIR_OK, "not adopted: %s", err.text);
}

static void make_plain(struct world *world, const char *name)
{
    struct sim_model *m = &world->models[world->model_count++];
    struct weir_err err = { 0 };
    begin_model(world, m, name);
    struct model_config *config = m->model.config;
    config->backend = "sim";
    config->device = chance(world, 50) ? "cpu" : "npu";
    config->max_batch_size = 1 + (int64_t)draw(world, 8);
    config->max_batch_inferred = true;
    config->instances = chance(world, 40) ? 1 + draw_u32(world, 3) : 0;
    config->requests_max = chance(world, 30) ? 1 + draw_u32(world, 12) : 0;
    config->join = chance(world, 30);
    config->queue_timeout_ns = chance(world, 20) ? (1 + draw(world, 20)) * NS_PER_MS : CLOCK_NEVER;
    const bool tiny = chance(world, 30); /* Short enough to run inline. */
    set(m, "tau0", "%lluus", draw(world, tiny ? 10 : 3000));
    set(m, "alpha", "%lluus", draw(world, tiny ? 2 : 300));
    set(m, "poison", "-%llu", 1);
    m->settings[config->setting_count++] =
        (struct setting){ "short_lived", chance(world, 50) ? "true" : "false" };
    if (chance(world, 15)) {
        world->faults = true;
        set(m, "fail_at", "%llu", 1 + draw(world, 30));
    }
    set_ports(m, "inputs", 'i', 1 + draw_u32(world, 3));
    set_ports(m, "outputs", 'o', 1 + draw_u32(world, 3));
    const struct backend_load how = {
        .model_name = name,
        .version = 1,
        .folder_fd = -1,
        .device = config->device,
        .intra_threads = 1,
        .contexts_max = 8,
        .settings = m->settings,
        .setting_count = config->setting_count,
        .clock = &world->clock,
        .blocks = world->engine->blocks,
    };
    m->model.ops = backend_find("sim");
    LAW(backend_load(m->model.ops, &how, &m->model.backend, &err) == WEIR_OK, "no model: %s",
        err.text);
    m->model.signature = backend_signature(m->model.backend);
    m->model.batching = chance(world, 70);
    adopt(world, m);
}

static const char *text(struct world *world, struct arena *arena, char letter, uint32_t number)
{
    const char *made = arena_try_printf(arena, "%c%u", letter, number);
    LAW(made != NULL, "no memory");
    return made;
}

/* A step that takes tensors that are there, and gives `*given` new ones. */
static void make_step(struct world *world, struct arena *arena, struct ensemble_step *step,
                      const struct model *part, uint32_t clients, uint32_t *given)
{
    const struct signature *signature = part->signature;
    const uint32_t there = *given;
    *step = (struct ensemble_step){ .model = part->name, .version = -1 };
    step->inputs = arena_try_zero(arena, PORTS_MAX, sizeof(*step->inputs));
    step->outputs = arena_try_zero(arena, PORTS_MAX, sizeof(*step->outputs));
    LAW(step->inputs != NULL && step->outputs != NULL, "no memory");
    for (uint32_t i = 0; i < signature->input_count; i++) {
        const uint32_t from = draw_u32(world, clients + there);
        step->inputs[step->input_count++] = (struct ensemble_link){
            signature->inputs[i].name,
            from < clients ? text(world, arena, 'c', from)
                           : text(world, arena, 't', from - clients),
        };
    }
    const uint32_t sure = draw_u32(world, signature->output_count);
    for (uint32_t i = 0; i < signature->output_count; i++) {
        if (i == sure || chance(world, 60)) {
            step->outputs[step->output_count++] =
                (struct ensemble_link){ signature->outputs[i].name,
                                        text(world, arena, 't', (*given)++) };
        }
    }
}

static void swap_steps(struct sim_model *m, uint32_t a, uint32_t b)
{
    struct ensemble_step *steps = m->model.config->ensemble.steps;
    const struct ensemble_step step = steps[a];
    struct model *part = m->parts[a];
    steps[a] = steps[b];
    m->parts[a] = m->parts[b];
    steps[b] = step;
    m->parts[b] = part;
}

static void make_ensemble(struct world *world, const char *name)
{
    const uint32_t others = world->model_count;
    struct sim_model *m = &world->models[world->model_count++];
    struct weir_err err = { 0 };
    begin_model(world, m, name);
    struct model_config *config = m->model.config;
    const uint32_t clients = 1 + draw_u32(world, 3);
    const uint32_t count = 1 + draw_u32(world, STEPS_MAX);
    uint32_t given = 0;
    config->ensemble.steps = arena_try_zero(config->arena, count, sizeof(struct ensemble_step));
    LAW(config->ensemble.steps != NULL, "no memory");
    for (uint32_t i = 0; i < count && given < 12; i++) {
        struct model *part = &world->models[draw(world, others)].model;
        make_step(world, config->arena, &config->ensemble.steps[i], part, clients, &given);
        m->parts[i] = part;
        config->ensemble.step_count++;
    }
    for (uint32_t i = config->ensemble.step_count; i > 1; i--) {
        swap_steps(m, i - 1, draw_u32(world, i));
    }
    m->model.parts = m->parts;
    m->model.part_count = config->ensemble.step_count;
    for (uint32_t i = 0; i < m->model.part_count; i++) {
        model_acquire(m->parts[i]);
    }
    LAW(graph_compose(&m->model, &err) == WEIR_OK, "no graph: %s", err.text);
    LAW(m->model.signature->output_count <= PORTS_MAX, "too many outputs");
    adopt(world, m);
}

static void make_world(struct world *world, uint64_t seed)
{
    static const char *const plain[PLAIN_MAX] = { "a", "b", "c", "d", "e" };
    static const char *const ensembles[ENSEMBLES_MAX] = { "x", "y", "z" };
    struct weir_err err = { 0 };
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->random = dice_of(seed);
    clock_init_manual(&world->clock, NS_PER_S);
    limits_init(&world->limits);
    world->limits.requests_total_max = 20 + draw(world, 200);
    world->limits.ensemble_runs_max = 2 + draw(world, 40);
    const struct device_options devices[] = {
        { .name = "cpu", .executors = 1 + draw_u32(world, 3) },
        { .name = "npu", .executors = 1, .pipelined = chance(world, 50) },
    };
    const struct engine_options options = { .devices = devices,
                                            .device_count = 2,
                                            .limits = &world->limits,
                                            .clock = &world->clock,
                                            .inline_runs = chance(world, 50) };
    LAW(engine_create(&options, &world->engine, &err) == WEIR_OK, "%s", err.text);
    home_init(&world->home.home, world->engine, wake, &world->home);
    world->plain_count = 1 + draw_u32(world, PLAIN_MAX);
    for (uint32_t i = 0; i < world->plain_count; i++) {
        make_plain(world, plain[i]);
    }
    const uint32_t count = 1 + draw_u32(world, ENSEMBLES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        make_ensemble(world, ensembles[i]);
    }
    world->wakes_ns[0] = CLOCK_NEVER;
    world->wakes_ns[1] = CLOCK_NEVER;
}

/* ---- Requests ---------------------------------------------------------------------------------- */

static void check_answer(const struct sim_request *r)
{
    struct world *world = r->world;
    for (uint32_t i = 0; i < r->request.model->signature->output_count; i++) {
        const struct tensor *output = &r->outputs[i];
        LAW(output->present == r->wanted[i], "output %u is %s", i,
            r->wanted[i] ? "missing" : "there though nobody asked for it");
        if (r->wanted[i]) {
            LAW(r->expected[i] != r->poisoned, "an output came through poison");
            LAW(output->shape.dims[0] == r->rows &&
                    memcmp(output->data, r->values[r->expected[i]], output->size) == 0,
                "output %u is not input %u", i, r->expected[i]);
        }
    }
}

static void on_end(struct request *request)
{
    struct sim_request *r = list_entry(request, struct sim_request, request);
    struct world *world = r->world;
    const uint64_t now_ns = clock_now_ns(&world->clock);
    LAW(r->accepted, "a refused request ended");
    LAW(++r->ends == 1, "ended %u times", r->ends);
    world->ended++;
    const enum weir_status status = request->status;
    if (status == WEIR_OK) {
        LAW(!r->canceled && r->lates == 0, "an answer that nobody wanted any more");
        LAW(request->times.taken_ns >= request->times.submitted_ns &&
                request->times.gathered_ns >= request->times.taken_ns &&
                request->times.computed_ns >= request->times.gathered_ns &&
                request->times.ended_ns >= request->times.computed_ns,
            "times run backwards");
        LAW(now_ns <= request->deadline_ns, "an answer after its deadline");
        check_answer(r);
        world->succeeded++;
    } else {
        LAW(status != WEIR_ECANCELED || r->canceled, "canceled by nobody");
        LAW(status != WEIR_ETIMEOUT || request->deadline_ns <= now_ns, "timed out too early");
        LAW(status == WEIR_ECANCELED || request->model->graph == NULL ||
                strncmp(request->err.text, "step ", 5) == 0,
            "no step is named: %s", request->err.text);
        LAW(status == WEIR_ECANCELED || status == WEIR_ETIMEOUT || status == WEIR_EFULL ||
                status == WEIR_EOVERLOAD || r->poisoned != NOTHING || world->faults,
            "failed without fault: %s", request->err.text);
        for (uint32_t i = 0; i < PORTS_MAX; i++) {
            LAW(!r->outputs[i].present, "a failure has outputs");
        }
    }
    for (uint32_t i = 0; i < PORTS_MAX; i++) {
        tensor_release(&r->outputs[i]);
    }
    model_release(request->model);
}

static void on_late(struct request *request)
{
    struct sim_request *r = list_entry(request, struct sim_request, request);
    struct world *world = r->world;
    LAW(++r->lates == 1 && r->ends == 0, "late more than once, or after the end");
    LAW(request->deadline_ns <= clock_now_ns(&world->clock), "late before the deadline");
}

static void make_request(struct world *world, uint64_t arrives_ns)
{
    struct sim_request *r = &world->requests[world->request_count++];
    const bool plain = chance(world, 15);
    const uint32_t ensembles = world->model_count - world->plain_count;
    const uint32_t at = plain ? draw_u32(world, world->plain_count)
                              : world->plain_count + draw_u32(world, ensembles);
    struct model *model = &world->models[at].model;
    const struct signature *signature = model->signature;
    uint32_t origins[PORTS_MAX];
    r->world = world;
    r->arrives_ns = arrives_ns;
    r->rows = 1 + draw_u32(world, ROWS_MAX);
    r->poisoned = chance(world, 8) ? draw_u32(world, signature->input_count) : NOTHING;
    r->cancels_ns = chance(world, 15) ? arrives_ns + draw(world, 10 * NS_PER_MS) : CLOCK_NEVER;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        origins[i] = i;
        for (uint32_t k = 0; k < r->rows; k++) {
            r->values[i][k] = i == r->poisoned && k == 0
                                  ? POISON
                                  : (float)(world->request_count * 64 + i * 8 + k);
        }
        r->inputs[i] = asking_rows(r->values[i], r->rows, 1);
    }
    evaluate(model, origins, r->expected);
    const uint32_t sure = draw_u32(world, signature->output_count);
    for (uint32_t i = 0; i < signature->output_count; i++) {
        r->wanted[i] = i == sure || chance(world, 60);
    }
    asking_init(&r->request, &world->home.home, model, r->inputs, r->outputs);
    r->request.wanted = r->wanted;
    r->request.deadline_ns =
        chance(world, 30) ? arrives_ns + draw(world, 30 * NS_PER_MS) : CLOCK_NEVER;
    r->request.ended = on_end;
    r->request.late = on_late;
}

static void submit(struct world *world, struct sim_request *r)
{
    struct weir_err err = { 0 };
    struct model *model = r->request.model;
    model_acquire(model);
    const enum weir_status status = pipeline_submit(world->engine, &r->request, &err);
    r->accepted = status == WEIR_OK;
    if (r->accepted) {
        LAW(model->graph == NULL || model->runs <= world->limits.ensemble_runs_max,
            "more runs than the limit");
        world->accepted++;
        return;
    }
    LAW(status == WEIR_EFULL || status == WEIR_ETIMEOUT || status == WEIR_EOVERLOAD,
        "refused with %s: %s", weir_status_name(status), err.text);
    model_release(model);
}

static void cancel_due(struct world *world)
{
    for (uint32_t i = 0; i < world->request_count; i++) {
        struct sim_request *r = &world->requests[i];
        if (r->accepted && r->ends == 0 && !r->canceled &&
            r->cancels_ns <= clock_now_ns(&world->clock)) {
            r->canceled = true;
            /* An end that is on its way already stays what it is. */
            const bool over = r->request.state == REQUEST_ENDED;
            pipeline_cancel(world->engine, &r->request);
            r->canceled = !over;
            r->cancels_ns = CLOCK_NEVER;
        }
    }
}

/* ---- Time -------------------------------------------------------------------------------------- */

static void pull_all(struct world *world)
{
    for (uint32_t p = 0; p < world->engine->pool_count; p++) {
        struct pool *pool = world->engine->pools[p];
        world->wakes_ns[p] = CLOCK_NEVER;
        while (flights_on(&world->flights, pool) < pool->thread_count) {
            struct instance *instance =
                pool_pull(pool, clock_now_ns(&world->clock), &world->wakes_ns[p]);
            if (instance == NULL) {
                break;
            }
            flights_start(&world->flights, instance);
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

static uint64_t home_due_ns(const struct world *world)
{
    const struct sim_home *h = &world->home;
    return h->woken || !list_empty(&h->home.inline_models) ? 0 : home_next_ns(&h->home);
}

static uint64_t next_event(const struct world *world, uint32_t submitted)
{
    uint64_t next = home_due_ns(world);
    if (submitted < world->request_count) {
        next = sooner(next, world->requests[submitted].arrives_ns);
    }
    for (uint32_t i = 0; i < submitted; i++) {
        const struct sim_request *r = &world->requests[i];
        next = r->accepted && r->ends == 0 ? sooner(next, r->cancels_ns) : next;
    }
    next = sooner(next, flights_next_ns(&world->flights));
    return sooner(next, sooner(world->wakes_ns[0], world->wakes_ns[1]));
}

static void check_rest(struct world *world)
{
    LAW(world->ended == world->accepted, "%u accepted, %u ended", world->accepted, world->ended);
    for (uint32_t i = 0; i < world->engine->pool_count; i++) {
        const struct pool *pool = world->engine->pools[i];
        LAW(pool->waiting == 0 && pool->running == 0 && pool->joined == 0, "'%s' holds requests",
            pool->name);
    }
    for (uint32_t i = 0; i < world->model_count; i++) {
        LAW(world->models[i].model.runs == 0, "a run is left");
    }
    LAW(world->home.home.pending == 0, "the home still waits");
    LAW(block_pool_used_bytes(world->engine->blocks) == 0, "%" PRIu64 " bytes still out",
        block_pool_used_bytes(world->engine->blocks));
}

static void end_world(struct world *world)
{
    for (uint32_t i = world->model_count; i > 0; i--) {
        struct sim_model *m = &world->models[i - 1];
        LAW(atomic_load(&m->model.leases) == 1, "a lease was not given back");
        model_release(&m->model);
        LAW(m->unleased, "the last lease did not tell");
        engine_abandon(world->engine, &m->model);
        backend_unload(m->model.backend);
        if (m->model.graph != NULL) {
            m->model.graph_free(m->model.graph);
        }
        for (uint32_t k = 0; k < m->model.part_count; k++) {
            model_release(m->parts[k]);
        }
        m->model.config->release(m->model.config);
    }
    home_finish(&world->home.home);
    engine_destroy(world->engine);
}

static void run_seed(struct world *world, uint64_t seed)
{
    make_world(world, seed);
    const uint32_t count = 5 + draw_u32(world, REQUESTS_MAX - 5);
    uint64_t at_ns = clock_now_ns(&world->clock);
    for (uint32_t i = 0; i < count; i++) {
        at_ns += chance(world, 40) ? 0 : draw(world, 4 * NS_PER_MS);
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
        if (home_due_ns(world) <= clock_now_ns(&world->clock)) {
            world->home.woken = false;
            home_turn(&world->home.home);
        }
        pull_all(world);
    }
    check_rest(world);
    end_world(world);
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 3000);
    struct world *world = mem_alloc(sizeof(*world));
    uint64_t ended = 0;
    uint64_t succeeded = 0;
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        run_seed(world, seed);
        ended += world->ended;
        succeeded += world->succeeded;
    }
    mem_free(world);
    printf("%" PRIu64 " seeds, %" PRIu64 " requests ended, %" PRIu64 " well, every law held\n",
           seeds.end - seeds.first, ended, succeeded);
    return 0;
}
