/*
 * A world in which children die: some inputs crash, hang or fill the memory of whatever runs them, and now
 * and then somebody kills a child that has done nothing.
 *
 * The engine is the real one, the backend one of its own that only says how its child ended.  There is one
 * thread: while a run is under way the world goes on inside it, so that other executors pull, crash and
 * wait for verdicts in between.
 *
 * Laws: each accepted request ends exactly once; an answer is the request's own; who is innocent succeeds unless
 * the model is out; who is guilty is found after two deaths, and one more for each other executor that had it
 * in hand already; from the conviction on nothing dies of it any more; nothing is left in hand at the end.
 */
#include <assert.h>

#include "asking.h"
#include "backend/backend_impl.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/quarantine.h"
#include "seeds.h"
#include "util/mem.h"

#define REQUESTS_MAX 120
#define VALUES 24 /* Different inputs. */
#define GUILTY 4  /* The first ones of them are, in worlds with guilt. */
#define ROWS_MAX 3

struct mortal_model {
    struct backend_model base;
    struct world *world;
};

struct mortal_context {
    struct backend_context base;
    bool stopped;
};

struct trial_request {
    struct request request;
    struct world *world;
    struct tensor input;
    struct tensor output;
    float rows[ROWS_MAX];
    bool canceled;
    uint32_t value;
    uint32_t ends;
};

struct world {
    uint64_t seed;
    uint64_t random;
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct home home;
    struct model model;
    struct model_config config;
    struct mortal_model mortal;
    struct tensor_spec specs[2];
    struct trial_request requests[REQUESTS_MAX];
    uint32_t submitted;
    uint32_t accepted;
    uint32_t ended;
    uint32_t executors;
    uint32_t busy;
    uint32_t guilty;      /* Values below it kill. */
    uint32_t kill_chance; /* Percent of runs. */
    uint32_t crashes[VALUES];
    uint32_t spared[VALUES]; /* Trials of it that may have been terminated, or put off. */
    bool convicted[VALUES];
    bool out; /* The circuit was open at some time. */
};

static uint64_t draw(struct world *world, uint64_t below)
{
    return dice_below(&world->random, below);
}

static bool chance(struct world *world, uint32_t percent)
{
    return dice_chance(&world->random, percent);
}

static void step(struct world *world);

/* ---- A backend whose child dies ---------------------------------------------------------------- */

static enum weir_status mortal_context_create(struct backend_model *model,
                                              struct backend_context **out, struct weir_err *err)
{
    (void)err;
    struct mortal_context *context = mem_alloc(sizeof(*context));
    context->base.model = model;
    *out = &context->base;
    return WEIR_OK;
}

static void mortal_context_destroy(struct backend_context *context)
{
    mem_free(context);
}

static void mortal_unload(struct backend_model *model)
{
    (void)model;
}

static void mortal_terminate(struct backend_context *context, bool stop)
{
    ((struct mortal_context *)context)->stopped = stop;
}

static uint32_t value_of(float row)
{
    return (uint32_t)row / ROWS_MAX;
}

static enum backend_death death_of(struct world *world, const struct backend_run *run)
{
    static const enum backend_death guilty[] = { DEATH_FAULT, DEATH_HUNG, DEATH_MEMORY };
    const float *rows = (const float *)(const void *)run->inputs[0].data;
    enum backend_death death = DEATH_NONE;
    bool counted[VALUES] = { false };
    for (uint64_t i = 0; i < run->rows; i++) {
        const uint32_t value = value_of(rows[i]);
        if (value < world->guilty && !counted[value]) {
            LAW(!world->convicted[value], "input %u is convicted and killed again", value);
            counted[value] = true;
            world->crashes[value]++;
            death = guilty[value % 3];
        }
    }
    if (death == DEATH_NONE && chance(world, world->kill_chance)) {
        death = chance(world, 50) ? DEATH_KILLED : DEATH_FROZEN;
    }
    const uint32_t deaths = world->model.circuit.deaths + (death != DEATH_NONE ? 1 : 0);
    world->out = world->out || deaths >= CIRCUIT_DEATHS_MAX;
    return death;
}

/* A run that was terminated before it could die of what it had. */
static void note_spared(struct world *world, const struct backend_run *run)
{
    const float *rows = (const float *)(const void *)run->inputs[0].data;
    for (uint64_t i = 0; i < run->rows; i++) {
        world->spared[value_of(rows[i])]++;
    }
}

static enum weir_status mortal_run(struct backend_context *context, struct backend_run *run,
                                   struct weir_err *err)
{
    struct world *world = ((struct mortal_model *)context->model)->world;
    LAW(!run->probation || world->busy > 0, "a trial outside of a run");
    for (uint64_t steps = draw(world, 4); steps > 0; steps--) {
        step(world);
    }
    clock_turn(&world->clock, clock_now_ns(&world->clock) + draw(world, NS_PER_MS));
    if (((struct mortal_context *)context)->stopped) {
        note_spared(world, run);
        return WEIR_ECANCELED;
    }
    run->death = death_of(world, run);
    if (run->death != DEATH_NONE) {
        return err_set(err, WEIR_EBACKEND, "the child %s", backend_death_text(run->death));
    }
    struct tensor *output = &run->outputs[0];
    *output = run->inputs[0];
    output->block = block_pool_take(world->engine->blocks, output->size);
    LAW(output->block != NULL, "no memory");
    output->data = output->block->data;
    memcpy(output->data, run->inputs[0].data, output->size);
    return WEIR_OK;
}

static const struct backend_ops mortal_ops = {
    .name = "mortal",
    .platform = "mortal",
    .unload = mortal_unload,
    .context_create = mortal_context_create,
    .context_destroy = mortal_context_destroy,
    .run = mortal_run,
    .terminate = mortal_terminate,
};

/* ---- Requests ---------------------------------------------------------------------------------- */

static void on_end(struct request *request)
{
    struct trial_request *r = list_entry(request, struct trial_request, request);
    struct world *world = r->world;
    const bool guilty = r->value < world->guilty;
    LAW(++r->ends == 1, "request %td ended %u times", r - world->requests, r->ends);
    world->ended++;
    LAW(request->times.taken_ns >= request->times.submitted_ns || request->times.taken_ns == 0,
        "it ran before it came");
    switch (request->status) {
    case WEIR_OK:
        LAW(!guilty, "input %u is guilty and has an answer", r->value);
        LAW(r->output.size == request->rows * sizeof(float) &&
                memcmp(r->output.data, r->rows, r->output.size) == 0,
            "an answer that is not its own");
        break;
    case WEIR_EQUARANTINED:
        LAW(guilty, "input %u is innocent and convicted", r->value);
        world->convicted[r->value] = true;
        break;
    case WEIR_EUNAVAILABLE:
        LAW(world->out, "the model is never out, and says so");
        world->spared[r->value]++;
        break;
    case WEIR_ECANCELED:
        LAW(r->canceled, "canceled by nobody");
        break;
    default:
        LAW(false, "%s: %s", weir_status_name(request->status), request->err.text);
    }
    tensor_release(&r->output);
    model_release(request->model);
}

static void submit(struct world *world)
{
    struct trial_request *r = &world->requests[world->submitted++];
    const uint32_t rows = 1 + (uint32_t)draw(world, ROWS_MAX);
    r->world = world;
    r->value = (uint32_t)draw(world, chance(world, 20) ? GUILTY : VALUES);
    for (uint32_t i = 0; i < rows; i++) {
        r->rows[i] = (float)(r->value * ROWS_MAX + (r->value < GUILTY ? 0 : i));
    }
    /* One row: else the same guilty value would be different inputs. */
    const uint32_t count = r->value < GUILTY ? 1 : rows;
    r->input = asking_rows(r->rows, count, 1);
    asking_init(&r->request, &world->home, &world->model, &r->input, &r->output);
    r->request.client = draw(world, 3);
    r->request.ended = on_end;
    model_acquire(&world->model);
    struct weir_err err = { 0 };
    const enum weir_status status = engine_submit(world->engine, &r->request, &err);
    if (status == WEIR_OK) {
        world->accepted++;
        return;
    }
    LAW(status == WEIR_EUNAVAILABLE && world->out, "refused: %s", err.text);
    model_release(&world->model);
    r->ends = 1;
}

static void cancel(struct world *world)
{
    struct trial_request *r = &world->requests[draw(world, world->submitted)];
    if (r->ends == 0) {
        r->canceled = true;
        engine_cancel(world->engine, &r->request);
    }
}

/* ---- The world --------------------------------------------------------------------------------- */

/* A free executor takes a batch to its end.  False: there is none, or nothing to take. */
static bool serve(struct world *world)
{
    uint64_t wake_ns;
    struct pool *pool = world->model.pool;
    struct instance *instance = world->busy < world->executors
                                    ? pool_pull(pool, clock_now_ns(&world->clock), &wake_ns)
                                    : NULL;
    if (instance == NULL) {
        return false;
    }
    world->busy++;
    batch_run(instance);
    pool_settle(pool, instance, clock_now_ns(&world->clock));
    world->busy--;
    return true;
}

static void step(struct world *world)
{
    const uint64_t what = draw(world, 10);
    if (what < 4 && world->submitted < REQUESTS_MAX) {
        submit(world);
    } else if (what < 8) {
        (void)serve(world);
    } else if (what == 8 && world->submitted > 0 && chance(world, 50)) {
        cancel(world);
    } else if (world->busy == 0) {
        home_turn(&world->home);
    }
}

static void unleased(struct model *model)
{
    (void)model;
}

static void make_model(struct world *world)
{
    world->config = (struct model_config){
        .name = "m",
        .device = "cpu",
        .max_batch_size = 1 + (int64_t)draw(world, 8) + ROWS_MAX,
        .queue_timeout_ns = CLOCK_NEVER,
        .isolation = ISOLATE_PROCESS,
        .join = chance(world, 30),
    };
    const struct tensor_spec spec = { .name = "x", .dtype = DTYPE_FP32, .shape = { 2, { -1, 1 } } };
    world->specs[0] = spec;
    world->specs[1] = spec;
    world->mortal = (struct mortal_model){
        .base = { .ops = &mortal_ops,
                  .signature = { .inputs = &world->specs[0],
                                 .input_count = 1,
                                 .outputs = &world->specs[1],
                                 .output_count = 1 } },
        .world = world,
    };
    struct model *model = &world->model;
    model->name = "m";
    model->version = 1;
    model->config = &world->config;
    model->backend = &world->mortal.base;
    model->ops = &mortal_ops;
    model->signature = &world->mortal.base.signature;
    model->batching = true;
    model->unleased = unleased;
    model_acquire(model);
    struct weir_err err = { 0 };
    LAW(engine_adopt(world->engine, model, &err) == WEIR_OK, "%s", err.text);
}

static void make_world(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->random = dice_of(seed);
    clock_init_manual(&world->clock, NS_PER_S);
    limits_init(&world->limits);
    world->executors = 1 + (uint32_t)draw(world, 3);
    world->guilty = chance(world, 80) ? (uint32_t)draw(world, GUILTY + 1) : 0;
    world->kill_chance = chance(world, 50) ? (uint32_t)draw(world, 60) : 0;
    const struct device_options device = { .name = "cpu", .executors = world->executors };
    const struct engine_options options = {
        .devices = &device, .device_count = 1, .limits = &world->limits, .clock = &world->clock
    };
    struct weir_err err = { 0 };
    LAW(engine_create(&options, &world->engine, &err) == WEIR_OK, "%s", err.text);
    home_init(&world->home, world->engine, NULL, NULL);
    make_model(world);
}

static void check_end(struct world *world)
{
    const struct pool *pool = world->model.pool;
    LAW(world->ended == world->accepted, "%u accepted, %u ended", world->accepted, world->ended);
    LAW(pool->waiting == 0 && pool->running == 0 && pool->joined == 0, "something is left in hand");
    LAW(atomic_load(&world->model.suspects.count) == 0, "a suspect without a verdict");
    LAW(block_pool_used_bytes(world->engine->blocks) == 0, "outputs are left");
    for (uint32_t i = 0; i < VALUES; i++) {
        LAW(world->crashes[i] <= world->executors + 1 + world->spared[i],
            "input %u killed %u times with %u executors", i, world->crashes[i], world->executors);
    }
    /* What breaks nothing is refused by nobody: worlds without guilt have no quarantine. */
    LAW(world->guilty > 0 || quarantine_count(world->engine->quarantine) == 0, "somebody is held");
}

/* Deaths in it that somebody was to blame for. */
static uint64_t live(uint64_t seed)
{
    static struct world worlds;
    struct world *world = &worlds;
    make_world(world, seed);
    while (world->submitted < REQUESTS_MAX) {
        step(world);
    }
    while (serve(world)) {
    }
    home_turn(&world->home);
    check_end(world);
    home_finish(&world->home);
    engine_abandon(world->engine, &world->model);
    engine_destroy(world->engine);
    uint64_t deaths = 0;
    for (uint32_t i = 0; i < VALUES; i++) {
        deaths += world->crashes[i];
    }
    return deaths;
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 2000);
    uint64_t deaths = 0;
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        deaths += live(seed);
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " deaths of guilty inputs, every law held\n",
           seeds.end - seeds.first, deaths);
    return 0;
}
