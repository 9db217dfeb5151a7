/*
 * Whose turn it is: the real engine on a simulated device under a clock turned by hand, with
 * clients that send by themselves: closed loops that keep so many requests out, and open ones.
 *
 *   - no accepted request is lost or ends twice;
 *   - a class never falls behind its guaranteed share by more than about a run while it could run;
 *   - who waits long enough is served, however many more urgent ones come, without any share;
 *   - clients get device time by their weights;
 *   - a run of several less urgent requests is no longer than the blocking budget;
 *   - a few urgent requests beside a saturating batch load (B6): p99 at most their own time and 1.2
 *     of the longest such batch, and the load keeps 0.85 of what is left;
 *   - a model at five times its capacity does not double another one's p99 (two executors).
 *
 * Usage: sim_order [--seeds N] [--seed S]; a failing seed prints its number.
 */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "flights.h"
#include "seeds.h"
#include "simulated.h"
#include "util/mem.h"

#define MODELS_MAX 3
#define SOURCES_MAX 8
#define JOBS_MAX 4096
#define ROWS_MAX 8
#define WIDTH 2
#define LATENCIES_MAX 65536
#define NEVER CLOCK_NEVER

struct world;

struct sim_model {
    struct model model;
    struct model_config config;
    struct setting settings[5];
    char texts[4][32];
    double tau0_ns;
    double alpha_ns;
};

/* Somebody who sends. */
struct source {
    struct world *world;
    struct sim_model *to;
    uint32_t priority;
    uint64_t client;
    uint32_t weight;
    uint32_t rows;
    uint32_t out_max;     /* A closed loop of so many; 0: an open one, */
    double gap_ns;        /* with exponential gaps of this mean. */
    uint64_t deadline_ns; /* After the arrival; 0: none. */
    uint64_t next_ns;
    uint32_t out;
    uint64_t accepted;
    uint64_t ended;
    uint64_t rows_done;
    double device_ns;
    uint64_t wait_max_ns;
    uint32_t latency_count;
    uint64_t latencies[LATENCIES_MAX];
};

struct job {
    struct request request;
    struct source *source;
    struct tensor input;
    struct tensor output;
    bool wanted;
    bool out;
    struct job *next; /* Free. */
};

struct world {
    uint64_t seed;
    uint64_t random;
    struct clock clock;
    struct limits limits;
    struct order_options order;
    struct engine *engine;
    struct pool *pool;
    struct home home;
    uint32_t executors;
    struct sim_model models[MODELS_MAX];
    uint32_t model_count;
    struct source sources[SOURCES_MAX];
    uint32_t source_count;
    struct job jobs[JOBS_MAX];
    struct job *free;
    float zeros[ROWS_MAX * WIDTH];
    struct flights flights;
    uint64_t wake_ns;
    bool counting;                /* Profiles are learned. */
    double lag_ns[ORDER_CLASSES]; /* Device time that a class should have had by now. */
    double lag_max_ns[ORDER_CLASSES];
    double run_max_ns; /* The longest run so far. */
    double served_ns;  /* Device time in all. */
};

static uint64_t draw(struct world *world, uint64_t below)
{
    return dice_below(&world->random, below);
}

static uint64_t now(const struct world *world)
{
    return clock_now_ns(&world->clock);
}

static double gap(struct world *world, double mean_ns)
{
    const double uniform = ((double)draw(world, 1U << 30) + 1) / (double)(1U << 30);
    return -log(uniform) * mean_ns;
}

/* --- The world --- */

static void wake(void *context)
{
    (void)context;
}

static void begin_world(struct world *world, uint64_t seed, uint32_t executors,
                        const struct order_options *order)
{
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->random = dice_of(seed);
    world->executors = executors;
    world->order = *order;
    world->wake_ns = NEVER;
    clock_init_manual(&world->clock, NS_PER_S);
    limits_init(&world->limits);
    const struct device_options device = { .name = "cpu", .executors = executors };
    const struct engine_options options = { .devices = &device,
                                            .device_count = 1,
                                            .order = &world->order,
                                            .limits = &world->limits,
                                            .clock = &world->clock };
    LAW(engine_create(&options, &world->engine, NULL) == WEIR_OK, "no engine");
    world->pool = world->engine->pools[0];
    home_init(&world->home, world->engine, wake, world);
    for (uint32_t i = 0; i < JOBS_MAX; i++) {
        world->jobs[i].next = world->free;
        world->free = &world->jobs[i];
    }
}

static struct sim_model *add_model(struct world *world, double tau0_ns, double alpha_ns,
                                   uint32_t batch_max)
{
    static const char *const names[MODELS_MAX] = { "a", "b", "c" };
    const uint32_t index = world->model_count++;
    struct sim_model *m = &world->models[index];
    m->tau0_ns = tau0_ns;
    m->alpha_ns = alpha_ns;
    (void)snprintf(m->texts[0], sizeof(m->texts[0]), "%.0fns", tau0_ns);
    (void)snprintf(m->texts[1], sizeof(m->texts[1]), "%.0fns", alpha_ns);
    m->settings[0] = (struct setting){ "tau0", m->texts[0] };
    m->settings[1] = (struct setting){ "alpha", m->texts[1] };
    m->settings[2] = (struct setting){ "inputs", "x:FP32[-1,2]" };
    m->settings[3] = (struct setting){ "outputs", "y:FP32[-1,2]" };
    m->settings[4] = (struct setting){ "exclusive", "false" }; /* As cores are. */
    m->config = (struct model_config){ .name = names[index],
                                       .backend = "sim",
                                       .device = "cpu",
                                       .max_batch_size = (int64_t)batch_max,
                                       .queue_timeout_ns = NEVER,
                                       .settings = m->settings,
                                       .setting_count = 5 };
    simulated_adopt(&m->model, &m->config, world->engine);
    return m;
}

static struct source *add_source(struct world *world, struct sim_model *to, uint32_t priority,
                                 uint64_t client)
{
    struct source *source = &world->sources[world->source_count++];
    source->world = world;
    source->to = to;
    source->priority = priority;
    source->client = client;
    source->weight = 1;
    source->rows = 1;
    source->next_ns = now(world);
    return source;
}

static double run_ns(const struct sim_model *m, double rows)
{
    return m->tau0_ns + m->alpha_ns * rows;
}

/* --- Requests --- */

static void on_end(struct request *request)
{
    struct job *job = list_entry(request, struct job, request);
    struct source *source = job->source;
    struct world *world = source->world;
    const uint64_t took_ns = request->times.ended_ns - request->times.submitted_ns;
    LAW(job->out, "a request ended twice");
    LAW(request->status == WEIR_OK || source->deadline_ns > 0, "a request failed: %s",
        request->err.text);
    job->out = false;
    source->out--;
    source->ended++;
    if (request->status == WEIR_OK && world->counting) {
        source->rows_done += source->rows;
        source->wait_max_ns = took_ns > source->wait_max_ns ? took_ns : source->wait_max_ns;
        if (source->latency_count < LATENCIES_MAX) {
            source->latencies[source->latency_count++] = took_ns;
        }
    }
    tensor_release(&job->output);
    model_release(request->model);
    job->next = world->free;
    world->free = job;
}

static void send_one(struct world *world, struct source *source)
{
    struct job *job = world->free;
    LAW(job != NULL, "no job is free");
    struct request *request = &job->request;
    request_init(request);
    job->source = source;
    job->wanted = true;
    job->output = (struct tensor){ 0 };
    job->input = (struct tensor){ .dtype = DTYPE_FP32,
                                  .present = true,
                                  .shape = { 2, { source->rows, WIDTH } },
                                  .data = (uint8_t *)world->zeros,
                                  .size = source->rows * WIDTH * sizeof(float) };
    request->home = &world->home;
    request->model = &source->to->model;
    request->inputs = &job->input;
    request->outputs = &job->output;
    request->wanted = &job->wanted;
    request->ended = on_end;
    request->priority = source->priority;
    request->client = source->client;
    request->client_weight = source->weight;
    request->deadline_ns = source->deadline_ns > 0 ? now(world) + source->deadline_ns : NEVER;
    model_acquire(request->model);
    if (engine_submit(world->engine, request, NULL) != WEIR_OK) {
        model_release(request->model);
        return;
    }
    world->free = job->next;
    job->out = true;
    source->out++;
    source->accepted++;
}

static void send_due(struct world *world)
{
    for (uint32_t i = 0; i < world->source_count; i++) {
        struct source *source = &world->sources[i];
        while (source->out_max > 0 && source->out < source->out_max &&
               source->next_ns <= now(world)) {
            const uint32_t before = source->out;
            send_one(world, source);
            if (source->out == before) {
                source->next_ns = now(world) + NS_PER_MS; /* Refused: later again. */
            }
        }
        while (source->out_max == 0 && source->next_ns <= now(world)) {
            send_one(world, source);
            source->next_ns += 1 + (uint64_t)gap(world, source->gap_ns);
        }
    }
}

/* --- Runs --- */

static bool could_run(const struct model *model)
{
    return model->waiting_count > 0 && model->instances_free != NULL &&
           model->running < model->runs_max;
}

/* Classes of which something could run now. */
static uint32_t rivals(const struct world *world)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < world->model_count; i++) {
        const struct model *model = &world->models[i].model;
        mask |= could_run(model) ? model->line.mask : 0;
    }
    return mask;
}

/* Classes of which something waits. */
static uint32_t waiting(const struct world *world)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < world->model_count; i++) {
        mask |= world->models[i].model.line.mask;
    }
    return mask;
}

/* Some class above this one has had traffic of late. */
static bool urgent_traffic(const struct world *world, uint32_t class_index)
{
    for (uint32_t i = 0; i < class_index; i++) {
        const uint64_t seen_ns = world->pool->order.classes[i].seen_ns;
        if (seen_ns > 0 && seen_ns + ORDER_RECENT_NS >= now(world)) {
            return true;
        }
    }
    return false;
}

static void check_budget(struct world *world, const struct batch *batch, double ns)
{
    const struct request *led = list_entry(list_first(&batch->ended), struct request, line);
    const bool known = world->counting && batch->predicted_ns > 0;
    if (known && batch->count > 1 && urgent_traffic(world, led->class)) {
        LAW(ns <= (double)world->order.budget_ns * 1.02,
            "a run of %u requests of class %u took %.3f ms, predicted %.3f", batch->count,
            led->class, ns / 1e6, (double)batch->predicted_ns / 1e6);
    }
}

/* Who could have run earns, who runs spends. */
static void account(struct world *world, const struct batch *batch, uint32_t mask, double ns)
{
    world->run_max_ns = ns > world->run_max_ns ? ns : world->run_max_ns;
    if (!world->counting) {
        return;
    }
    world->served_ns += ns;
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        const bool could = (mask & 1U << i) != 0;
        world->lag_ns[i] += could ? ns * world->order.shares[i] / ORDER_SHARE_ALL : 0;
        world->lag_ns[i] = could || world->lag_ns[i] < 0 ? world->lag_ns[i] : 0;
    }
    for (const struct list_node *n = list_first(&batch->ended); n != NULL;
         n = list_next(&batch->ended, n)) {
        const struct request *request = list_entry(n, struct request, line);
        const double part = ns * (double)request->rows / (double)batch->rows;
        list_entry(request, struct job, request)->source->device_ns += part;
        world->lag_ns[request->class] -= part;
    }
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        /* More than its share is not held against a class; one that wants no more is not behind. */
        const bool more = (waiting(world) & 1U << i) != 0;
        const double lag = world->lag_ns[i] < 0 || !more ? 0 : world->lag_ns[i];
        world->lag_ns[i] = lag;
        world->lag_max_ns[i] = lag > world->lag_max_ns[i] ? lag : world->lag_max_ns[i];
    }
}

static void pull_all(struct world *world)
{
    world->wake_ns = NEVER;
    while (world->flights.count < world->executors) {
        const uint32_t mask = rivals(world);
        world->pool->idle_count = world->executors - world->flights.count - 1;
        struct instance *instance = pool_pull(world->pool, now(world), &world->wake_ns);
        world->pool->idle_count = 0;
        if (instance == NULL) {
            LAW(rivals(world) == 0, "work waits and an executor is free");
            return;
        }
        flights_start(&world->flights, instance);
        const struct batch *batch = &instance->batch;
        const double ns = (double)(batch->computed_ns - batch->taken_ns);
        check_budget(world, batch, ns);
        account(world, batch, mask, ns);
    }
}

static void land(struct world *world)
{
    struct instance *instance;
    while ((instance = flights_land(&world->flights, now(world))) != NULL) {
        pool_settle(world->pool, instance, now(world));
    }
}

static uint64_t next_event(const struct world *world, bool sending)
{
    uint64_t next = sooner(world->wake_ns, home_next_ns(&world->home));
    next = sooner(next, flights_next_ns(&world->flights));
    for (uint32_t i = 0; i < world->source_count && sending; i++) {
        const struct source *source = &world->sources[i];
        const bool waits = source->out_max > 0 && source->out >= source->out_max;
        next = waits ? next : sooner(next, source->next_ns);
    }
    return next;
}

static void turn(struct world *world, uint64_t until_ns, bool sending)
{
    for (uint64_t next = next_event(world, sending); next != NEVER && next <= until_ns;
         next = next_event(world, sending)) {
        if (next > now(world)) {
            clock_turn(&world->clock, next);
        }
        land(world);
        home_turn(&world->home);
        if (sending) {
            send_due(world);
        }
        pull_all(world);
        home_turn(&world->home);
    }
}

/* Learns for a moment, then counts for `ns`. */
static void live(struct world *world, uint64_t ns)
{
    turn(world, now(world) + 500 * NS_PER_MS, true);
    world->counting = true;
    turn(world, now(world) + ns, true);
}

static void end_world(struct world *world)
{
    turn(world, NEVER - 1, false);
    for (uint32_t i = 0; i < world->source_count; i++) {
        const struct source *source = &world->sources[i];
        LAW(source->accepted == source->ended, "%" PRIu64 " accepted, %" PRIu64 " ended",
            source->accepted, source->ended);
    }
    for (uint32_t i = 0; i < world->model_count; i++) {
        engine_abandon(world->engine, &world->models[i].model);
        backend_unload(world->models[i].model.backend);
    }
    home_finish(&world->home);
    engine_destroy(world->engine);
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double p99(struct source *source)
{
    qsort(source->latencies, source->latency_count, sizeof(*source->latencies), by_size);
    return source->latency_count == 0
               ? 0
               : (double)source->latencies[(uint64_t)source->latency_count * 99 / 100];
}

/* --- Scenes --- */

/* Any mix: nothing is lost, no class falls behind, no run blocks for longer than it may. */
static void any_mix(struct world *world, uint64_t seed)
{
    struct order_options order = order_defaults();
    uint64_t random = seed;
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407U;
        order.shares[i] = (uint32_t)((random >> 40) % 125);
    }
    order.budget_ns = (2 + (random >> 33) % 18) * NS_PER_MS;
    order.ageing_ns = (1 + (random >> 45) % 20) * 200 * NS_PER_MS;
    begin_world(world, seed, 1 + (uint32_t)(random >> 60) % 2, &order);
    const uint32_t models = 1 + (uint32_t)draw(world, MODELS_MAX);
    for (uint32_t i = 0; i < models; i++) {
        add_model(world, (double)(50 + draw(world, 1500)) * 1e3,
                  (double)(10 + draw(world, 300)) * 1e3, 1U << draw(world, 7));
    }
    const uint32_t sources = 2 + (uint32_t)draw(world, SOURCES_MAX - 2);
    for (uint32_t i = 0; i < sources; i++) {
        struct sim_model *m = &world->models[draw(world, models)];
        struct source *s = add_source(world, m, 1 + (uint32_t)draw(world, 8), 1 + draw(world, 4));
        s->rows = 1 + (uint32_t)draw(world, m->config.max_batch_size < ROWS_MAX
                                                ? (uint64_t)m->config.max_batch_size
                                                : ROWS_MAX);
        s->weight = 1 + (uint32_t)draw(world, 4);
        s->out_max = draw(world, 2) == 0 ? 1 + (uint32_t)draw(world, 40) : 0;
        s->gap_ns = run_ns(m, s->rows) * (double)(1 + draw(world, 10));
        s->deadline_ns = draw(world, 3) == 0 ? (20 + draw(world, 100)) * NS_PER_MS : 0;
    }
    live(world, 2 * NS_PER_S);
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        LAW(world->lag_max_ns[i] <= 3 * world->run_max_ns,
            "class %u fell %.2f ms behind its share, runs take %.2f ms", i,
            world->lag_max_ns[i] / 1e6, world->run_max_ns / 1e6);
    }
    end_world(world);
}

/* Without any share, behind a load that never ends, one request after the other of the last class. */
static void nobody_starves(struct world *world, uint64_t seed)
{
    struct order_options order = order_defaults();
    memset(order.shares, 0, sizeof(order.shares));
    order.ageing_ns = 100 * NS_PER_MS;
    begin_world(world, seed, 1, &order);
    struct sim_model *flooded = add_model(world, 1e6, 2e5, 8);
    struct sim_model *other = add_model(world, 1e6, 2e5, 8);
    add_source(world, flooded, 1, 1)->out_max = 40;
    add_source(world, flooded, 3, 2)->out_max = 20;
    struct source *last = add_source(world, draw(world, 2) == 0 ? flooded : other, 8, 3);
    last->out_max = 1 + (uint32_t)draw(world, 3);
    live(world, 5 * NS_PER_S);
    LAW(last->latency_count >= 4, "%u requests of the last class were served", last->latency_count);
    LAW(last->wait_max_ns <= 10 * order.ageing_ns, "one waited %.1f ms",
        (double)last->wait_max_ns / 1e6);
    end_world(world);
}

/* Saturating clients of one model, or of several, get time by their weights. */
static void weights_hold(struct world *world, uint64_t seed)
{
    const struct order_options order = order_defaults();
    begin_world(world, seed, 1 + (uint32_t)(seed % 2), &order);
    for (uint32_t i = 0; i < 2; i++) {
        add_model(world, (double)(100 + draw(world, 1000)) * 1e3,
                  (double)(20 + draw(world, 200)) * 1e3, 1U << draw(world, 6));
    }
    const uint32_t clients = 2 + (uint32_t)draw(world, 4);
    uint32_t weights = 0;
    for (uint32_t i = 0; i < clients; i++) {
        /* Of two executors each model may get one, whatever the weights. */
        struct sim_model *m = &world->models[draw(world, world->executors == 1 ? 2 : 1)];
        struct source *s = add_source(world, m, 4, i + 1);
        s->weight = 1 + (uint32_t)draw(world, 8);
        s->out_max = 150 + (uint32_t)draw(world, 100);
        s->rows = 1 + (uint32_t)draw(world, m->config.max_batch_size > 1 ? 2 : 1);
        weights += s->weight;
    }
    live(world, 4 * NS_PER_S);
    for (uint32_t i = 0; i < clients; i++) {
        const struct source *s = &world->sources[i];
        const double wanted_ns = world->served_ns * s->weight / weights;
        const double off_ns = fabs(s->device_ns - wanted_ns);
        LAW(off_ns <= 4 * world->run_max_ns + 0.03 * wanted_ns,
            "client %u of weight %u in %u had %.1f ms, not %.1f; runs take %.2f ms", i + 1,
            s->weight, weights, s->device_ns / 1e6, wanted_ns / 1e6, world->run_max_ns / 1e6);
    }
    end_world(world);
}

/* B6.  Returns the urgent p99 over its bound, and the load's part of what is left. */
static void urgent_beside_load(struct world *world, uint64_t seed, bool same_model,
                               double *p99_part, double *load_part)
{
    const struct order_options order = order_defaults();
    double alone = 0;
    for (int with = 0; with < 2; with++) {
        begin_world(world, seed, 1, &order);
        struct sim_model *batch = add_model(world, 1.30e6, 0.171e6, 64);
        struct sim_model *fast = same_model ? batch : add_model(world, 0.5e6, 0.3e6, 64);
        struct source *low = add_source(world, batch, 5, 1);
        low->out_max = 32;
        struct source *high = add_source(world, fast, 1, 2);
        high->gap_ns = with ? run_ns(fast, 1) / 0.1 : 1e15;
        live(world, 20 * NS_PER_S);
        const double rate = (double)low->rows_done;
        const double limit_ns = run_ns(batch, 32);
        if (with == 0) {
            alone = rate;
        } else {
            *p99_part = p99(high) / (run_ns(fast, 1) + 1.2 * limit_ns);
            *load_part = rate / (0.9 * alone);
        }
        end_world(world);
    }
    LAW(*p99_part <= 1, "the urgent p99 is %.2f of its bound", *p99_part);
    LAW(*load_part >= 0.85, "the load keeps %.2f of what is left", *load_part);
}

/* A model at five times its capacity beside another one, of the same client or of another. */
static double noise(struct world *world, uint64_t seed, bool deadlines, uint64_t client)
{
    const struct order_options order = order_defaults();
    double solo = 0;
    double beside = 0;
    for (int with = 0; with < 2; with++) {
        begin_world(world, seed, 2, &order);
        struct sim_model *quiet = add_model(world, 1.5e6, 0.5e6, 1);
        struct sim_model *noisy = add_model(world, 1.0e6, 0.05e6, 16);
        struct source *own = add_source(world, quiet, 0, 1);
        own->gap_ns = run_ns(quiet, 1) / 0.4;
        struct source *other = add_source(world, noisy, 0, client);
        other->gap_ns = with ? run_ns(noisy, 16) / 16 / 2 / 5 : 1e15;
        other->deadline_ns = deadlines ? 25 * NS_PER_MS : 0;
        live(world, 10 * NS_PER_S);
        *(with ? &beside : &solo) = p99(own);
        end_world(world);
    }
    LAW(beside <= 2 * solo, "p99 beside a noisy model is %.2f ms, alone %.2f", beside / 1e6,
        solo / 1e6);
    return beside / solo;
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 60);
    struct world *world = mem_alloc(sizeof(*world));
    double p99_part = 0;
    double load_part = 10;
    double noise_part = 0;
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        any_mix(world, seed);
        nobody_starves(world, seed);
        weights_hold(world, seed);
        if (seed % 10 == 1) {
            double p99_here = 0;
            double load_here = 0;
            urgent_beside_load(world, seed, seed % 20 == 1, &p99_here, &load_here);
            p99_part = fmax(p99_part, p99_here);
            load_part = fmin(load_part, load_here);
            noise_part = fmax(noise_part, noise(world, seed, seed % 20 == 1, 1));
            noise_part = fmax(noise_part, noise(world, seed, seed % 20 == 1, 2));
        }
    }
    mem_free(world);
    printf("%" PRIu64 " seeds, every law held; urgent p99 %.2f of its bound, load %.2f of what is "
           "left, p99 beside noise %.2f of solo\n",
           seeds.end - seeds.first, p99_part, load_part, noise_part);
    return 0;
}
