/*
 * Goodput: the real engine on a simulated device under a clock turned by hand, offered more than
 * it can serve.
 *
 * Poisson arrivals by seed; every request has a deadline, and counts when it is answered by then.
 * Shares are of the device's offline rate: its largest batches, back to back.  The laws:
 *
 *   - every request ends exactly once, served or refused, by its deadline or with the run that it is in;
 *   - no run starts after a member's deadline;
 *   - at twice capacity at least 0.85 of it is served in time, runs varying by a tenth up and down,
 *     whatever the mix of deadlines that are at least twice the run that reaches 90 % of the offline
 *     rate;
 *   - a client that asks for less than its share has it;
 *   - after a burst, requests are served in time again within two deadlines;
 *   - the adaptive limit refuses nobody while there is no overload, and keeps the line short where the
 *     profile is wrong.
 *
 * Usage: sim_overload [--seeds N] [--seed S] [--table]; --table prints goodput for many loads instead.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "backend/backend.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "flights.h"
#include "seeds.h"
#include "simulated.h"
#include "util/mem.h"

#define SLOTS 16384
#define SLOS_MAX 4
#define MODELS_MAX 2
#define LIGHT 2                       /* A client. */
#define LEARNING_NS (500 * NS_PER_MS) /* Before it counts: profiles are learned. */

/* What is served, and how. */
struct scene {
    const char *name;
    double tau0_us;
    double alpha_us;
    uint32_t rows_max;
    uint32_t executors;
    double jitter;
    double slos_ms[SLOS_MAX]; /* Drawn evenly; 0 ends them. */
    enum overload_mode mode;
    uint32_t models; /* Equal ones, asked in turn at random; 1 or 2. */
};

struct sim_model {
    struct model model;
    struct model_config config;
    struct setting settings[8];
    char texts[8][32];
};

struct world;

struct slot {
    struct request request;
    struct world *world;
    struct slot *next;
    struct tensor input;
    struct tensor output;
    float value;
};

struct tally {
    uint64_t offered;
    uint64_t in_time;
    uint64_t light_offered; /* Of the other client. */
    uint64_t light_in_time;
    uint64_t late;    /* Answered, but after the deadline. */
    uint64_t refused; /* At arrival. */
    uint64_t dropped; /* In line, before the deadline. */
    uint64_t expired; /* In line, at the deadline. */
};

struct world {
    uint64_t seed;
    uint64_t random;
    const struct scene *scene;
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct pool *pool;
    struct home home;
    bool woken;
    struct sim_model models[MODELS_MAX];
    uint32_t model_count;
    struct slot *slots;
    struct slot *free;
    struct flights flights;
    uint64_t count_from_ns; /* Requests that arrive earlier are not tallied. */
    uint64_t late_until_ns; /* The last request that was not served in time came then. */
    struct tally tally;
    uint64_t accepted;
    uint64_t ended;
    uint32_t waiting_most;
    bool blind;   /* The profile forgets everything. */
    double light; /* Part of the load that is another client's than all the rest. */
};

static double draw(struct world *world)
{
    return dice_part(&world->random);
}

static uint64_t now_of(const struct world *world)
{
    return clock_now_ns(&world->clock);
}

static void on_end(struct request *request)
{
    struct slot *slot = list_entry(request, struct slot, request);
    struct world *world = slot->world;
    const uint64_t came_ns = request->times.submitted_ns;
    const bool counts = came_ns >= world->count_from_ns;
    const bool in_time =
        request->status == WEIR_OK && request->times.ended_ns <= request->deadline_ns;
    world->ended++;
    if (!in_time && came_ns > world->late_until_ns) {
        world->late_until_ns = came_ns;
    }
    if (counts && in_time) {
        world->tally.in_time++;
        world->tally.light_in_time += request->client == LIGHT ? 1 : 0;
    } else if (counts && request->status == WEIR_EOVERLOAD) {
        world->tally.dropped++;
        LAW(request->times.ended_ns <= request->deadline_ns, "let go after its deadline");
    } else if (counts && request->times.taken_ns > 0) {
        world->tally.late++;
    } else if (counts) {
        world->tally.expired++;
    }
    LAW(request->times.taken_ns == 0 || request->times.taken_ns < request->deadline_ns,
        "a run started after the deadline");
    tensor_release(&slot->output);
    model_release(request->model);
    slot->next = world->free;
    world->free = slot;
}

static void wake(void *context)
{
    ((struct world *)context)->woken = true;
}

static void set(struct sim_model *m, const char *key, const char *format, double value)
{
    const uint32_t at = m->config.setting_count++;
    (void)snprintf(m->texts[at], sizeof(m->texts[at]), format, value);
    m->settings[at] = (struct setting){ key, m->texts[at] };
}

static void set_text(struct sim_model *m, const char *key, const char *text)
{
    m->settings[m->config.setting_count++] = (struct setting){ key, text };
}

static void make_model(struct world *world, struct sim_model *m)
{
    const struct scene *scene = world->scene;
    m->config = (struct model_config){ .name = "m",
                                       .backend = "sim",
                                       .device = "cpu",
                                       .max_batch_size = scene->rows_max,
                                       .queue_timeout_ns = CLOCK_NEVER,
                                       .overload = scene->mode,
                                       .instances = scene->executors,
                                       .deadline_ns = NS_PER_S, /* All bring their own. */
                                       .settings = m->settings };
    set(m, "tau0", "%.0fns", scene->tau0_us * 1000);
    set(m, "alpha", "%.0fns", scene->alpha_us * 1000);
    set(m, "jitter", "%g", scene->jitter);
    set(m, "seed", "%.0f", (double)world->seed);
    set_text(m, "exclusive", "false");
    set_text(m, "inputs", "x:FP32[-1,1]");
    set_text(m, "outputs", "y:FP32[-1,1]");
    struct model *model = &m->model;
    simulated_adopt(model, &m->config, world->engine);
    world->pool = model->pool;
    model->scaling.runs_max = 0; /* Trials with fewer runs are a test of their own. */
}

static struct world *world_create(const struct scene *scene, uint64_t seed)
{
    struct world *world = mem_alloc(sizeof(*world));
    world->seed = seed;
    world->random = dice_of(seed);
    world->scene = scene;
    clock_init_manual(&world->clock, NS_PER_S);
    limits_init(&world->limits);
    world->limits.requests_max = SLOTS / 2;
    const struct device_options device = { .name = "cpu", .executors = scene->executors };
    const struct engine_options options = {
        .devices = &device, .device_count = 1, .limits = &world->limits, .clock = &world->clock
    };
    struct weir_err err = { 0 };
    LAW(engine_create(&options, &world->engine, &err) == WEIR_OK, "%s", err.text);
    home_init(&world->home, world->engine, wake, world);
    world->model_count = scene->models;
    for (uint32_t i = 0; i < world->model_count; i++) {
        make_model(world, &world->models[i]);
    }
    world->slots = mem_alloc(SLOTS * sizeof(*world->slots));
    for (uint32_t i = 0; i < SLOTS; i++) {
        world->slots[i].next = world->free;
        world->free = &world->slots[i];
    }
    return world;
}

static void world_destroy(struct world *world)
{
    LAW(world->ended == world->accepted, "%" PRIu64 " accepted, %" PRIu64 " ended", world->accepted,
        world->ended);
    LAW(block_pool_used_bytes(world->engine->blocks) == 0, "outputs are still held");
    for (uint32_t i = 0; i < world->model_count; i++) {
        model_release(&world->models[i].model);
        engine_abandon(world->engine, &world->models[i].model);
        backend_unload(world->models[i].model.backend);
    }
    home_finish(&world->home);
    engine_destroy(world->engine);
    mem_free(world->slots);
    mem_free(world);
}

static double slo_ms(struct world *world)
{
    uint32_t count = 0;
    while (count < SLOS_MAX && world->scene->slos_ms[count] > 0) {
        count++;
    }
    return world->scene->slos_ms[(uint32_t)(draw(world) * count)];
}

static void submit(struct world *world)
{
    struct slot *slot = world->free;
    LAW(slot != NULL, "more than %d requests in hand", SLOTS);
    const uint64_t deadline_ns = now_of(world) + (uint64_t)(slo_ms(world) * 1e6);
    const bool counts = now_of(world) >= world->count_from_ns;
    struct model *model =
        &world->models[world->model_count == 1 ? 0 : (draw(world) < 0.5 ? 0 : 1)].model;
    slot->world = world;
    slot->input = asking_rows(&slot->value, 1, 1);
    asking_init(&slot->request, &world->home, model, &slot->input, &slot->output);
    slot->request.deadline_ns = deadline_ns;
    slot->request.client = world->light > 0 && draw(world) < world->light ? LIGHT : 1;
    slot->request.ended = on_end;
    model_acquire(model);
    const enum weir_status status = engine_submit(world->engine, &slot->request, NULL);
    world->tally.offered += counts ? 1 : 0;
    world->tally.light_offered += counts && slot->request.client == LIGHT ? 1 : 0;
    if (status == WEIR_OK) {
        world->free = slot->next;
        world->accepted++;
        world->waiting_most =
            model->waiting_count > world->waiting_most ? model->waiting_count : world->waiting_most;
        return;
    }
    LAW(status == WEIR_EOVERLOAD || status == WEIR_EFULL, "refused with %s",
        weir_status_name(status));
    world->tally.refused += counts ? 1 : 0;
    world->late_until_ns = now_of(world);
    model_release(model);
}

static void pull(struct world *world)
{
    uint64_t wake_ns;
    while (world->flights.count < world->scene->executors) {
        world->pool->idle_count = world->scene->executors - world->flights.count - 1;
        struct instance *instance = pool_pull(world->pool, now_of(world), &wake_ns);
        world->pool->idle_count = 0;
        if (instance == NULL) {
            return;
        }
        flights_start(&world->flights, instance);
    }
}

static void land(struct world *world)
{
    struct instance *instance;
    while ((instance = flights_land(&world->flights, now_of(world))) != NULL) {
        pool_settle(world->pool, instance, now_of(world));
        for (uint32_t k = 0; world->blind && k < world->model_count; k++) {
            memset(&world->models[k].model.profile, 0, sizeof(struct profile));
        }
    }
}

static uint64_t next_event(const struct world *world, uint64_t arrival_ns)
{
    const uint64_t next = sooner(arrival_ns, flights_next_ns(&world->flights));
    const uint64_t due_ns = home_next_ns(&world->home);
    return world->woken ? now_of(world) : sooner(due_ns, next);
}

static void turn(struct world *world, uint64_t to_ns)
{
    if (to_ns > now_of(world)) {
        clock_turn(&world->clock, to_ns);
    }
    land(world);
    pull(world);
    if (world->woken || home_next_ns(&world->home) <= now_of(world)) {
        world->woken = false;
        home_turn(&world->home);
    }
}

/* Poisson arrivals at `per_s` for `ns`. */
static void offer(struct world *world, double per_s, uint64_t ns)
{
    const uint64_t until_ns = now_of(world) + ns;
    uint64_t arrival_ns = now_of(world);
    for (;;) {
        arrival_ns += (uint64_t)(-log(1 - draw(world)) * 1e9 / per_s);
        const uint64_t stop_ns = arrival_ns < until_ns ? arrival_ns : until_ns;
        for (uint64_t at_ns = next_event(world, stop_ns); at_ns < stop_ns;
             at_ns = next_event(world, stop_ns)) {
            turn(world, at_ns);
        }
        turn(world, stop_ns);
        if (arrival_ns >= until_ns) {
            return;
        }
        submit(world);
        pull(world);
    }
}

/* Until nothing is in hand. */
static void rest(struct world *world)
{
    while (world->home.pending > 0) {
        turn(world, next_event(world, CLOCK_NEVER));
    }
}

static double offline_per_s(const struct scene *scene)
{
    const double one = 1e6 / (scene->tau0_us + scene->alpha_us);
    const double all = scene->rows_max * 1e6 / (scene->tau0_us + scene->alpha_us * scene->rows_max);
    return scene->executors * (one > all ? one : all);
}

/* The device learns at moderate load, then `load` times its offline rate comes for `ns`. */
static struct tally measure(const struct scene *scene, uint64_t seed, double load, uint64_t ns)
{
    struct world *world = world_create(scene, seed);
    world->count_from_ns = CLOCK_NEVER;
    offer(world, 0.5 * offline_per_s(scene), LEARNING_NS);
    offer(world, load * offline_per_s(scene), LEARNING_NS);
    world->count_from_ns = now_of(world);
    offer(world, load * offline_per_s(scene), ns);
    rest(world);
    const struct tally tally = world->tally;
    world_destroy(world);
    return tally;
}

static double goodput(const struct scene *scene, const struct tally *tally, uint64_t ns)
{
    return (double)tally->in_time / (offline_per_s(scene) * (double)ns / 1e9);
}

static const struct scene scenes[] = {
    { "batch, 15 ms", 1300, 171, 64, 1, 0, { 15 }, OVERLOAD_DROP, 1 },
    { "batch, 15 ms, jitter", 1300, 171, 64, 1, 0.1, { 15 }, OVERLOAD_DROP, 1 },
    { "batch, 15 ms, queue", 1300, 171, 64, 1, 0, { 15 }, OVERLOAD_QUEUE, 1 },
    { "batch, 30 ms", 1300, 171, 64, 1, 0, { 30 }, OVERLOAD_DROP, 1 },
    { "batch, 30 ms, jitter", 1300, 171, 64, 1, 0.1, { 30 }, OVERLOAD_DROP, 1 },
    { "batch, 13.6..100 ms, jitter", 1300, 171, 64, 1, 0.1, { 13.6, 30, 100 }, OVERLOAD_DROP, 1 },
    { "batch, 13.6 and 60, jitter", 1300, 171, 64, 1, 0.1, { 13.6, 60 }, OVERLOAD_DROP, 1 },
    { "batch, two executors", 1300, 171, 64, 2, 0.1, { 15 }, OVERLOAD_DROP, 1 },
    { "two models, 30 ms", 1300, 171, 64, 1, 0.1, { 30 }, OVERLOAD_DROP, 2 },
    { "two models, 60 ms", 1300, 171, 64, 1, 0.1, { 60 }, OVERLOAD_DROP, 2 },
    { "two models, two executors", 1300, 171, 64, 2, 0.1, { 30 }, OVERLOAD_DROP, 2 },
    { "GPU-like, 25 ms", 5000, 200, 64, 1, 0.1, { 25 }, OVERLOAD_DROP, 1 },
    { "CNN, 15 ms", 20, 930, 64, 1, 0.1, { 15 }, OVERLOAD_DROP, 1 },
    { "single 5 ms, 100 ms", 5000, 0, 1, 1, 0.1, { 100 }, OVERLOAD_DROP, 1 },
    { "single 5 ms, queue", 5000, 0, 1, 1, 0.1, { 100 }, OVERLOAD_QUEUE, 1 },
};
#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

static void print_table(uint64_t seed, uint64_t ns)
{
    static const double loads[] = { 0.5, 0.75, 0.84, 0.9, 1.1, 1.5, 2, 4 };
    for (size_t s = 0; s < SCENES; s++) {
        for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
            const struct tally t = measure(&scenes[s], seed, loads[i], ns);
            const double n = (double)t.offered;
            printf("%-28s %5.2f  goodput %.3f  in time %.3f late %.4f refused %.3f dropped %.4f "
                   "expired %.4f\n",
                   scenes[s].name, loads[i], goodput(&scenes[s], &t, ns), (double)t.in_time / n,
                   (double)t.late / n, (double)t.refused / n, (double)t.dropped / n,
                   (double)t.expired / n);
        }
    }
}

/* The time of the batch that reaches 90 % of the offline rate. */
static double useful_ms(const struct scene *scene)
{
    for (uint32_t rows = 1; rows < scene->rows_max; rows++) {
        const double us = scene->tau0_us + scene->alpha_us * rows;
        if (scene->executors * rows * 1e6 / us >= 0.9 * offline_per_s(scene)) {
            return us / 1000;
        }
    }
    return (scene->tau0_us + scene->alpha_us * scene->rows_max) / 1000;
}

/* Any device, and any mix of deadlines that are long enough. */
static struct scene draw_scene(struct world *dice)
{
    struct scene scene = { .name = "drawn", .jitter = 0.1, .mode = OVERLOAD_DROP };
    scene.rows_max = 1 + (uint32_t)(draw(dice) * 128);
    scene.executors = 1 + (uint32_t)(draw(dice) * 2);
    scene.tau0_us = 200 + draw(dice) * 5000;
    scene.alpha_us = draw(dice) < 0.2 ? 1000 : 10 + draw(dice) * 300;
    scene.models = draw(dice) < 0.2 ? 2 : 1; /* They wait for each other's runs, too. */
    const uint32_t slos = 1 + (uint32_t)(draw(dice) * SLOS_MAX);
    for (uint32_t i = 0; i < slos; i++) {
        scene.slos_ms[i] = useful_ms(&scene) * scene.models * (2 + (i == 0 ? 0 : draw(dice) * 10));
    }
    return scene;
}

static struct scene scene_of(struct world *dice, uint64_t seed)
{
    *dice = (struct world){ .random = seed * UINT64_C(0x9FB21C651E98DF25), .seed = seed };
    return draw_scene(dice);
}

static double check_goodput(uint64_t seed)
{
    struct world dice;
    struct world *world = &dice;
    const struct scene scene = scene_of(world, seed);
    const uint64_t ns = 2 * NS_PER_S;
    const struct tally t = measure(&scene, seed, 2, ns);
    const double share = goodput(&scene, &t, ns);
    LAW(t.in_time + t.late + t.refused + t.dropped + t.expired == t.offered,
        "requests are missing");
    LAW(share >= 0.85, "goodput is %.3f: %u x (%.3f + %.3f b) ms, b <= %u, deadlines from %.1f ms",
        share, scene.executors, scene.tau0_us / 1000, scene.alpha_us / 1000, scene.rows_max,
        scene.slos_ms[0]);
    LAW((double)t.late <= 0.01 * (double)t.offered, "%" PRIu64 " of %" PRIu64 " are late", t.late,
        t.offered);
    return share;
}

/* Twice the capacity comes, a tenth of it from another client: that one is hardly refused. */
static void check_fairness(uint64_t seed)
{
    struct world dice;
    struct scene scene = scene_of(&dice, seed);
    scene.slos_ms[0] *= 2; /* As there. */
    scene.slos_ms[1] = 0;
    scene.models = 1;
    struct world *world = world_create(&scene, seed);
    world->light = 0.1;
    offer(world, 0.5 * offline_per_s(&scene), LEARNING_NS);
    offer(world, 2 * offline_per_s(&scene), LEARNING_NS);
    world->count_from_ns = now_of(world);
    world->tally = (struct tally){ 0 };
    offer(world, 2 * offline_per_s(&scene), NS_PER_S);
    rest(world);
    const struct tally *t = &world->tally;
    LAW(goodput(&scene, t, NS_PER_S) >= 0.85, "goodput is %.3f", goodput(&scene, t, NS_PER_S));
    LAW((double)t->light_in_time >= 0.85 * (double)t->light_offered,
        "of a client with a tenth of the load %" PRIu64 " of %" PRIu64 " are served in time",
        t->light_in_time, t->light_offered);
    world_destroy(world);
}

/* Two deadlines after four times its capacity came for fifty, nobody is late any more. */
static void check_recovery(uint64_t seed)
{
    struct world dice;
    struct scene scene = scene_of(&dice, seed);
    scene.slos_ms[0] *= 2; /* At the least allowed, some are late also in calm times. */
    scene.slos_ms[1] = 0;
    const uint64_t slo_ns = (uint64_t)(scene.slos_ms[0] * 1e6);
    const double calm = 0.3 * offline_per_s(&scene);
    struct world *world = world_create(&scene, seed);
    offer(world, calm, LEARNING_NS);
    offer(world, 4 * offline_per_s(&scene), 50 * slo_ns);
    const uint64_t over_ns = now_of(world);
    offer(world, calm, 2 * slo_ns);
    world->count_from_ns = now_of(world);
    world->tally = (struct tally){ 0 };
    offer(world, calm, 200 * slo_ns);
    rest(world);
    LAW(world->late_until_ns > over_ns - slo_ns, "the burst harmed nobody");
    LAW((double)world->tally.in_time >= 0.99 * (double)world->tally.offered - 1,
        "after a burst only %" PRIu64 " of %" PRIu64
        " are served in time: %u x (%.3f + %.3f b) ms, "
        "b <= %u, deadlines of %.1f ms",
        world->tally.in_time, world->tally.offered, scene.executors, scene.tau0_us / 1000,
        scene.alpha_us / 1000, scene.rows_max, scene.slos_ms[0]);
    world_destroy(world);
}

/* The limit is not met by what the device can serve, nor by an overload that the window handles. */
static void check_limit_at_rest(uint64_t seed)
{
    struct world dice;
    const struct scene scene = scene_of(&dice, seed);
    struct world *world = world_create(&scene, seed);
    offer(world, 0.5 * offline_per_s(&scene), LEARNING_NS);
    offer(world, 0.85 * offline_per_s(&scene), LEARNING_NS);
    offer(world, 2 * offline_per_s(&scene), LEARNING_NS);
    rest(world);
    LAW(world->models[0].model.stats.refused_limit == 0,
        "the limit refused %" PRIu64 " of %" PRIu64, world->models[0].model.stats.refused_limit,
        world->accepted);
    world_destroy(world);
}

/* Nothing is ever known about the model: without the limit the line would grow to its end. */
static void check_limit_alone(uint64_t seed)
{
    struct world dice;
    const struct scene scene = scene_of(&dice, seed);
    double slo_ms_most = 0;
    for (uint32_t i = 0; i < SLOS_MAX; i++) {
        slo_ms_most = scene.slos_ms[i] > slo_ms_most ? scene.slos_ms[i] : slo_ms_most;
    }
    const double run_us = scene.tau0_us + scene.alpha_us * scene.rows_max;
    const uint64_t ns = NS_PER_S + (uint64_t)(400e3 * run_us / scene.executors);
    struct world *world = world_create(&scene, seed);
    world->blind = true;
    offer(world, 2 * offline_per_s(&scene), ns);
    world->waiting_most = 0;
    offer(world, 2 * offline_per_s(&scene), NS_PER_S);
    rest(world);
    const double served = offline_per_s(&scene) * slo_ms_most / 1000;
    LAW(served < LIMITER_LEAST || world->models[0].model.stats.refused_limit > 0,
        "the limit refused nobody");
    LAW(world->waiting_most <= served + scene.rows_max * scene.executors + LIMITER_LEAST,
        "%u wait where %.0f are served within the longest deadline", world->waiting_most, served);
    world_destroy(world);
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 30);
    if (argc > 1 && strcmp(argv[1], "--table") == 0) {
        print_table(seeds.first, 5 * NS_PER_S);
        return 0;
    }
    const uint64_t count = seeds.end - seeds.first;
    double least = 1;
    double sum = 0;
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        const double share = check_goodput(seed);
        least = share < least ? share : least;
        sum += share;
        check_fairness(seed);
        check_recovery(seed);
        check_limit_at_rest(seed);
        check_limit_alone(seed);
    }
    printf("%" PRIu64 " seeds, goodput at twice capacity %.3f at least, %.3f on average\n", count,
           least, sum / (double)count);
    return 0;
}
