/*
 * Several devices of one pool, under a clock turned by hand, by seed.
 *
 * Two to four simulated accelerators, each with a speed of its own, stand in for each other.  Clients ask again when they
 * have their answers, more of them than the devices can serve at once.  Laws:
 *
 *   - together the devices do the sum of what each does alone, whatever their speeds;
 *   - none rests: the balance of their times is near 1;
 *   - what a run takes on each is learned;
 *   - a device that is lost costs no request and no other device anything, and is used again when it is back;
 *   - a loss counts once, however many runs were under way there;
 *   - while all are lost requests wait, and are served in the end;
 *   - a device with less memory makes smaller runs, of one large request too; the others do not.
 *
 *     sim_pool [--seeds N] [--seed S]
 */
#include <math.h>

#include "asking.h"
#include "backend/backend.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "seeds.h"
#include "simulated.h"
#include "util/mem.h"

#define DEVICES_MAX 4
#define CLIENTS_MAX 128
#define FLIGHTS_MAX 64
#define WIDTH 16
#define ROWS_LARGE 4
#define ANSWERS 1500

struct world;

struct client {
    struct request request;
    struct world *world;
    struct tensor input;
    struct tensor output;
    bool asks;
    float data[ROWS_LARGE * WIDTH];
};

struct flight {
    struct instance *instance;
    uint32_t device;
    uint64_t ends_ns;
};

struct world {
    uint64_t seed;
    uint64_t random;
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct home home;
    struct pool *pool;
    struct model model;
    struct model_config config;
    uint32_t device_count;
    uint32_t executors;
    bool pipelined;
    double slowness[DEVICES_MAX];
    struct client clients[CLIENTS_MAX];
    uint32_t client_count;
    uint32_t rows; /* Of a request. */
    struct flight flights[FLIGHTS_MAX];
    uint32_t flight_count;
    uint64_t wake_ns;
    uint64_t answers;
    uint64_t rows_most[DEVICES_MAX]; /* Of a run. */
    uint64_t failed;                 /* Runs of batches that were not good at once. */
    uint64_t starved;                /* That were out of memory. */
    uint32_t advised;
    uint32_t short_of_memory; /* Times that somebody was told. */
};

static const char *const names[DEVICES_MAX] = { "gpu0", "gpu1", "gpu2", "gpu3" };

static uint64_t draw(struct world *world, uint64_t below)
{
    return dice_below(&world->random, below);
}

static void wake(void *context)
{
    (void)context;
}

static void on_advice(void *context, const struct model *model, enum log_level level,
                      const char *text)
{
    (void)level;
    struct world *world = context;
    (void)model;
    if (strstr(text, "did not fit in the memory of device 'gpu0'") != NULL) {
        world->short_of_memory++;
        return;
    }
    LAW(strstr(text, "was lost") != NULL, "it says '%s'", text);
    world->advised++;
}

static void on_end(struct request *request)
{
    struct client *client = list_entry(request, struct client, request);
    struct world *world = client->world;
    LAW(request->status == WEIR_OK, "a request failed: %s", request->err.text);
    LAW(memcmp(client->output.data, client->data, client->input.size) == 0, "a wrong answer");
    world->answers++;
    tensor_release(&client->output);
    model_release(request->model);
    client->asks = true;
}

static void ask(struct world *world, struct client *client)
{
    client->asks = false;
    for (uint32_t i = 0; i < world->rows * WIDTH; i++) {
        client->data[i] = (float)draw(world, 1000);
    }
    client->input = asking_rows(client->data, world->rows, WIDTH);
    asking_init(&client->request, &world->home, &world->model, &client->input, &client->output);
    client->request.ended = on_end;
    struct weir_err err = { 0 };
    model_acquire(&world->model);
    LAW(engine_submit(world->engine, &client->request, &err) == WEIR_OK, "refused: %s", err.text);
}

/* Devices, speeds and executors are drawn; the model is on all devices. */
static void open_world(struct world *world, uint64_t seed, const struct setting *settings,
                       uint32_t rows_max)
{
    static char slower[64];
    static struct setting all[16];
    struct device_options devices[1 + DEVICES_MAX] = { { .name = "cpu", .executors = 1 } };
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->random = dice_of(seed);
    world->rows = 1;
    world->device_count = 2 + (uint32_t)draw(world, DEVICES_MAX - 1);
    world->executors = 1 + (uint32_t)draw(world, 2);
    world->pipelined = draw(world, 2) == 0;
    size_t size = 0;
    for (uint32_t i = 0; i < world->device_count; i++) {
        world->slowness[i] = 1 + (double)draw(world, 2) * (double)draw(world, 7) * 0.5;
        size += (size_t)snprintf(slower + size, sizeof(slower) - size, "%s:%.1f ", names[i],
                                 world->slowness[i]);
        devices[1 + i] = (struct device_options){ .name = names[i],
                                                  .pool = "gpu",
                                                  .executors = world->executors,
                                                  .pipelined = world->pipelined };
    }
    clock_init_manual(&world->clock, NS_PER_S);
    limits_init(&world->limits);
    const struct engine_options options = { .devices = devices,
                                            .device_count = 1 + world->device_count,
                                            .limits = &world->limits,
                                            .clock = &world->clock,
                                            .advise = on_advice,
                                            .advise_context = world };
    struct weir_err err = { 0 };
    LAW(engine_create(&options, &world->engine, &err) == WEIR_OK, "%s", err.text);
    home_init(&world->home, world->engine, wake, NULL);
    uint32_t count = 0;
    all[count++] = (struct setting){ "slower", slower };
    for (; settings != NULL && settings[count - 1].key != NULL; count++) {
        all[count] = settings[count - 1];
    }
    world->config = (struct model_config){ .name = "m",
                                           .backend = "sim",
                                           .device = "gpu",
                                           .max_batch_size = rows_max,
                                           .intra_threads = 1,
                                           .queue_timeout_ns = CLOCK_NEVER,
                                           .settings = all,
                                           .setting_count = count };
    simulated_spread(&world->model, &world->config, world->engine);
    world->pool = world->model.pool;
    LAW(world->model.replica_count == world->device_count, "%u replicas",
        world->model.replica_count);
    world->client_count = 4 * world->device_count * world->executors * rows_max;
    for (uint32_t i = 0; i < world->client_count; i++) {
        world->clients[i].world = world;
        world->clients[i].asks = true;
    }
}

static void close_world(struct world *world)
{
    engine_abandon(world->engine, &world->model);
    for (uint32_t i = 0; i < world->device_count; i++) {
        backend_unload(world->model.replicas[i].backend);
    }
    home_finish(&world->home);
    engine_destroy(world->engine);
}

static uint32_t flights_on(const struct world *world, uint32_t device)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->flight_count; i++) {
        count += world->flights[i].device == device ? 1 : 0;
    }
    return count;
}

static bool pull_on(struct world *world, uint32_t device)
{
    const struct seat seat = { device, SEAT_NODE_ANY };
    uint64_t wake_ns;
    if (flights_on(world, device) >= world->pool->thread_count / world->device_count) {
        return false;
    }
    struct instance *instance =
        pool_pull_at(world->pool, &seat, clock_now_ns(&world->clock), &wake_ns);
    if (instance == NULL) {
        world->wake_ns = wake_ns < world->wake_ns ? wake_ns : world->wake_ns;
        return false;
    }
    LAW(instance->replica->device == device, "device %u took a run of device %u", device,
        instance->replica->device);
    LAW(!instance->replica->out, "a lost device was given a run");
    const uint64_t rows = instance->batch.rows;
    batch_run(instance);
    world->failed += instance->batch.clean ? 0 : 1;
    world->starved += instance->batch.rows_too_many > 0 ? 1 : 0;
    if (instance->batch.clean && rows > world->rows_most[device]) {
        world->rows_most[device] = rows;
    }
    world->flights[world->flight_count++] =
        (struct flight){ instance, device, instance->batch.computed_ns };
    return true;
}

static void pull_all(struct world *world)
{
    bool some = true;
    world->wake_ns = CLOCK_NEVER;
    while (some) {
        some = false;
        for (uint32_t i = 0; i < world->device_count; i++) {
            some = pull_on(world, i) || some;
        }
    }
}

/* The next run ends, or the pool asked to be looked at. */
static void go_on(struct world *world)
{
    uint32_t next = 0;
    for (uint32_t i = 1; i < world->flight_count; i++) {
        next = world->flights[i].ends_ns < world->flights[next].ends_ns ? i : next;
    }
    if (world->flight_count == 0 || world->wake_ns < world->flights[next].ends_ns) {
        LAW(world->wake_ns != CLOCK_NEVER, "nothing runs, and nobody will look again");
        clock_turn(&world->clock, world->wake_ns);
        return;
    }
    const struct flight flight = world->flights[next];
    world->flights[next] = world->flights[--world->flight_count];
    clock_turn(&world->clock, flight.ends_ns);
    const struct replica *replica = flight.instance->replica;
    const bool was_out = replica->out;
    const uint32_t losses = replica->losses;
    pool_settle(world->pool, flight.instance, flight.ends_ns);
    LAW(!was_out || replica->losses == losses, "a run from before a loss changed %u losses to %u",
        losses, replica->losses);
}

/* Answers per ms. */
static double serve(struct world *world, uint64_t answers)
{
    const uint64_t from_ns = clock_now_ns(&world->clock);
    world->answers = 0;
    while (world->answers < answers) {
        for (uint32_t i = 0; i < world->client_count; i++) {
            if (world->clients[i].asks) {
                ask(world, &world->clients[i]);
            }
        }
        pull_all(world);
        go_on(world);
        home_turn(&world->home);
    }
    return (double)world->answers / ((double)(clock_now_ns(&world->clock) - from_ns) / NS_PER_MS);
}

/* Who waits is served, and nothing is left behind. */
static void drain(struct world *world)
{
    for (pull_all(world); world->flight_count > 0 || world->pool->waiting > 0; pull_all(world)) {
        go_on(world);
        home_turn(&world->home);
    }
    home_turn(&world->home);
    LAW(world->pool->running == 0 && world->pool->batches == 0, "something is left");
    uint32_t free = 0;
    for (uint32_t i = 0; i < world->device_count; i++) {
        free += world->model.replicas[i].free;
        LAW(world->pool->devices[i].runs == 0, "a run is left on device %u", i);
    }
    LAW(free == world->model.slot_count, "%u of %u instances are free", free,
        world->model.slot_count);
}

static double sum_of_speeds(const struct world *world)
{
    double sum = 0;
    for (uint32_t i = 0; i < world->device_count; i++) {
        sum += 1 / world->slowness[i];
    }
    return sum;
}

static void sums_up(struct world *world, uint64_t seed)
{
    open_world(world, seed, NULL, 1);
    (void)serve(world, 200);
    const double rate = serve(world, ANSWERS);
    const double most = sum_of_speeds(world);
    const double balance = pool_balance(world->pool);
    LAW(rate >= 0.97 * most && rate <= 1.03 * most, "%u devices do %.3f per ms, expected %.3f",
        world->device_count, rate, most);
    /* Where two runs of a device are under way at once, their times overlap. */
    LAW(world->executors > 1 || balance >= 0.98, "a balance of %.3f", balance);
    for (uint32_t i = 1; i < world->device_count && world->executors == 1; i++) {
        const double pace = world->model.replicas[i].pace;
        const double real = world->slowness[i] / world->slowness[0];
        LAW(fabs(pace - real) <= 0.01 * real || world->pipelined,
            "device %u is said to take %.2f times as long, it takes %.2f", i, pace, real);
    }
    drain(world);
    close_world(world);
}

static void lost_for_good(struct world *world, uint64_t seed)
{
    static const struct setting settings[] = { { "lost_on", "gpu1" },
                                               { "lost_at", "100" },
                                               { NULL, NULL } };
    open_world(world, seed, settings, 1);
    (void)serve(world, 1000);
    const double rate = serve(world, ANSWERS);
    const double left = sum_of_speeds(world) - 1 / world->slowness[1];
    LAW(rate >= 0.95 * left && rate <= 1.03 * left, "without one device %.3f per ms, expected %.3f",
        rate, left);
    LAW(world->advised == 1, "it was told %u times", world->advised);
    struct replica_look look;
    LAW(replica_look(&world->model, 1, &look) && strstr(look.why, "gpu1") != NULL,
        "why is not told");
    drain(world);
    close_world(world);
}

static void lost_for_a_time(struct world *world, uint64_t seed)
{
    static const struct setting settings[] = {
        { "lost_on", "gpu1" }, { "lost_at", "50" }, { "lost_runs", "3" }, { NULL, NULL }
    };
    open_world(world, seed, settings, 1);
    (void)serve(world, 4000);
    const double rate = serve(world, ANSWERS);
    const double most = sum_of_speeds(world);
    LAW(rate >= 0.97 * most, "back again %.3f per ms, expected %.3f", rate, most);
    drain(world);
    close_world(world);
}

static void all_lost(struct world *world, uint64_t seed)
{
    static const struct setting settings[] = {
        { "lost_on", "*" }, { "lost_at", "20" }, { "lost_runs", "1" }, { NULL, NULL }
    };
    open_world(world, seed, settings, 1);
    (void)serve(world, ANSWERS);
    drain(world);
    close_world(world);
}

static void less_memory(struct world *world, uint64_t seed)
{
    static const struct setting settings[] = {
        { "oom_on", "gpu0" }, { "oom_above_rows", "2" }, { "alpha", "10us" }, { NULL, NULL }
    };
    open_world(world, seed, settings, 4);
    (void)serve(world, 2000);
    LAW(world->rows_most[0] <= 2, "a run of %" PRIu64 " rows on gpu0", world->rows_most[0]);
    LAW(world->short_of_memory > 0 && world->short_of_memory < 8, "told %u times",
        world->short_of_memory);
    world->failed = 0;
    (void)serve(world, 500);
    LAW(world->failed == 0, "%" PRIu64 " runs were out of memory again", world->failed);
    world->rows = ROWS_LARGE;
    world->starved = 0;
    (void)serve(world, 500);
    LAW(world->starved == 0, "%" PRIu64 " runs of one request were out of memory", world->starved);
    LAW(world->rows_most[1] > 2, "at most %" PRIu64 " rows on gpu1", world->rows_most[1]);
    drain(world);
    close_world(world);
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 60);
    struct world *world = mem_alloc(sizeof(*world));
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        sums_up(world, seed);
        lost_for_good(world, seed);
        lost_for_a_time(world, seed);
        all_lost(world, seed);
        less_memory(world, seed);
    }
    mem_free(world);
    printf("%" PRIu64 " seeds, every law held\n", seeds.end - seeds.first);
    return 0;
}
