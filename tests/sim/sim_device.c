/*
 * What a device does with one, two and three runs at once, under a clock turned by hand.
 *
 * The device is an accelerator that runs one thing at a time, with host work before and after:
 * 2.6 ms on the device, 0.2 ms on the host each side.  Its limits are known exactly:
 *
 *   - without pipelining, n instances do min(n / 3.0, 1 / 2.6) runs per ms and take 3.0, 5.2, 7.8 ms;
 *   - one pipelined instance does 1 / 2.6, what the device can;
 *   - a collecting host of c beside a device of i gains (c + i) / max(c, i);
 *   - a device that takes three contexts refuses the fourth and says why;
 *   - left alone, the engine finds how many instances pay, and says when a configured number hurts;
 *   - wide runs get the executors they need, and do not starve.
 *
 * Clients are in a closed loop: each asks again when it has its answer.
 */
#include <assert.h>
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
#include "simulated.h"
#include "util/mem.h"

#define CLIENTS_MAX 16
#define WIDTH 16

#define CHECK(condition, ...)                                  \
    do {                                                       \
        if (!(condition)) {                                    \
            fprintf(stderr, "sim_device: " __VA_ARGS__);       \
            fprintf(stderr, " (%s:%d)\n", __FILE__, __LINE__); \
            exit(1);                                           \
        }                                                      \
    } while (0)

struct bed;

struct client {
    struct request request;
    struct bed *bed;
    struct model *model;
    uint64_t patience_ns; /* From asking to the deadline. */
    uint32_t priority;
    struct tensor input;
    struct tensor output;
    bool asks; /* Again, as soon as it can. */
    float data[WIDTH * 8];
};

struct bed {
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct home home;
    struct model model;
    struct model_config config;
    struct model wide; /* Beside it, in some cases. */
    struct model_config wide_config;
    double wide_ms; /* The longest that an answer of it took, from asking on. */
    uint64_t wide_answers;
    struct client clients[CLIENTS_MAX];
    uint32_t client_count;
    struct flights flights;
    uint32_t threads_most; /* Of all runs at once. */
    uint64_t answers;
    double taking_ns; /* Of all answers, from the start of their runs. */
    double mean_ms;
    char advice[MODEL_ADVICE_BYTES];
    uint32_t advised;
};

/* What a case sets. */
struct setup {
    uint32_t executors;
    bool pipelined;
    uint32_t instances; /* 0: as many as pay. */
    uint32_t rows;      /* Of each request; 0: 1. */
    const struct setting *settings;
};

static void wake(void *context)
{
    (void)context;
}

static void on_advice(void *context, const struct model *model, enum log_level level,
                      const char *text)
{
    (void)level;
    struct bed *bed = context;
    (void)model;
    bed->advised++;
    (void)snprintf(bed->advice, sizeof(bed->advice), "%s", text);
}

static void on_end(struct request *request)
{
    struct client *client = list_entry(request, struct client, request);
    CHECK(request->status == WEIR_OK, "a request failed: %s", request->err.text);
    if (client->model == &client->bed->wide) {
        const double ms =
            (double)(request->times.ended_ns - request->times.submitted_ns) / NS_PER_MS;
        client->bed->wide_ms = fmax(client->bed->wide_ms, ms);
        client->bed->wide_answers++;
    }
    client->bed->answers++;
    client->bed->taking_ns += (double)(request->times.computed_ns - request->times.taken_ns);
    tensor_release(&client->output);
    model_release(request->model);
    client->asks = true;
}

static void ask(struct bed *bed, struct client *client, uint32_t rows)
{
    client->asks = false;
    client->input = asking_rows(client->data, rows, WIDTH);
    asking_init(&client->request, &bed->home, client->model, &client->input, &client->output);
    client->request.priority = client->priority;
    client->request.deadline_ns =
        client->patience_ns == 0 ? CLOCK_NEVER : clock_now_ns(&bed->clock) + client->patience_ns;
    client->request.ended = on_end;
    struct weir_err err = { 0 };
    model_acquire(client->model);
    CHECK(engine_submit(bed->engine, &client->request, &err) == WEIR_OK, "refused: %s", err.text);
}

static enum weir_status adopt(struct bed *bed, struct model *model, struct model_config *config,
                              const struct setting *settings, struct weir_err *err)
{
    config->backend = "sim";
    config->device = "npu";
    config->queue_timeout_ns = CLOCK_NEVER;
    config->settings = settings;
    while (settings[config->setting_count].key != NULL) {
        config->setting_count++;
    }
    simulated_load(model, config, bed->engine);
    return engine_adopt(bed->engine, model, err);
}

static enum weir_status open_bed(struct bed *bed, const struct setup *setup, struct weir_err *err)
{
    memset(bed, 0, sizeof(*bed));
    clock_init_manual(&bed->clock, NS_PER_S);
    limits_init(&bed->limits);
    const struct device_options devices[] = {
        { .name = "cpu", .executors = 1 },
        { .name = "npu", .executors = setup->executors, .pipelined = setup->pipelined },
    };
    const struct engine_options options = { .devices = devices,
                                            .device_count = 2,
                                            .limits = &bed->limits,
                                            .clock = &bed->clock,
                                            .advise = on_advice,
                                            .advise_context = bed };
    CHECK(engine_create(&options, &bed->engine, err) == WEIR_OK, "%s", err->text);
    home_init(&bed->home, bed->engine, wake, NULL);
    bed->config = (struct model_config){ .name = "m",
                                         .max_batch_size = setup->rows > 0 ? setup->rows : 1,
                                         .intra_threads = 1,
                                         .instances = setup->instances };
    return adopt(bed, &bed->model, &bed->config, setup->settings, err);
}

static void close_bed(struct bed *bed)
{
    struct model *models[] = { &bed->model, &bed->wide };
    for (int i = 0; i < 2 && models[i]->backend != NULL; i++) {
        engine_abandon(bed->engine, models[i]);
        backend_unload(models[i]->backend);
    }
    home_finish(&bed->home);
    engine_destroy(bed->engine);
}

static void pull_all(struct bed *bed)
{
    struct pool *pool = bed->model.pool;
    while (bed->flights.count < pool->thread_count) {
        uint64_t wake_ns;
        pool->idle_count = pool->thread_count - bed->flights.count - 1;
        struct instance *instance = pool_pull(pool, clock_now_ns(&bed->clock), &wake_ns);
        pool->idle_count = 0;
        if (instance == NULL) {
            return;
        }
        uint32_t width = instance->model->width;
        for (uint32_t i = 0; i < bed->flights.count; i++) {
            width += bed->flights.items[i].instance->model->width;
        }
        CHECK(pool->pipelined || width <= pool->executor_count, "runs of %u threads", width);
        bed->threads_most = width > bed->threads_most ? width : bed->threads_most;
        flights_start(&bed->flights, instance);
    }
}

/* Turns the clock to the next end of a run and lets it land. */
static void land_next(struct bed *bed)
{
    const uint64_t ends_ns = flights_next_ns(&bed->flights);
    CHECK(ends_ns != CLOCK_NEVER, "nothing runs");
    clock_turn(&bed->clock, ends_ns);
    pool_settle(bed->model.pool, flights_land(&bed->flights, ends_ns), ends_ns);
}

/* Answers per ms while `clients` ask for `answers` of them; leaves nothing under way. */
static double load(struct bed *bed, uint32_t clients, uint64_t answers)
{
    const uint32_t rows = (uint32_t)bed->config.max_batch_size;
    const uint64_t from_ns = clock_now_ns(&bed->clock);
    uint64_t until_ns = from_ns;
    bed->answers = 0;
    bed->taking_ns = 0;
    for (uint32_t i = 0; i < clients; i++) {
        bed->clients[i].bed = bed;
        bed->clients[i].model = i == 0 && bed->wide.backend != NULL ? &bed->wide : &bed->model;
        bed->clients[i].asks = true;
    }
    while (bed->answers < answers) {
        for (uint32_t i = 0; i < clients; i++) {
            if (bed->clients[i].asks) {
                ask(bed, &bed->clients[i], rows);
            }
        }
        pull_all(bed);
        land_next(bed);
        home_turn(&bed->home);
        until_ns = clock_now_ns(&bed->clock);
    }
    const double rate = (double)bed->answers / ((double)(until_ns - from_ns) / NS_PER_MS);
    bed->mean_ms = bed->taking_ns / (double)bed->answers / NS_PER_MS;
    for (pull_all(bed); bed->flights.count > 0; pull_all(bed)) {
        land_next(bed);
    }
    home_turn(&bed->home);
    return rate;
}

static void open_or_die(struct bed *bed, const struct setup *setup)
{
    struct weir_err err = { 0 };
    CHECK(open_bed(bed, setup, &err) == WEIR_OK, "%s", err.text);
}

static bool near(double found, double expected, double part)
{
    return fabs(found - expected) <= part * expected;
}

static const struct setting npu[] = { { "tau0", "2600us" },
                                      { "prepare", "200us" },
                                      { "finish", "200us" },
                                      { "contexts_max", "3" },
                                      { NULL, NULL } };

static void contention(struct bed *bed)
{
    static const struct {
        double rate, ms;
    } expected[] = { { 0.333, 3.0 }, { 0.385, 5.2 }, { 0.385, 7.8 } };
    for (uint32_t n = 1; n <= 3; n++) {
        open_or_die(bed, &(struct setup){ .executors = 3, .instances = n, .settings = npu });
        const double rate = load(bed, 8, 4000);
        const double ms = bed->mean_ms;
        printf("%u unpipelined: %.4f per ms, %.2f ms each\n", n, rate, ms);
        CHECK(near(rate, expected[n - 1].rate, 0.02), "%u instances do %.4f per ms", n, rate);
        CHECK(near(ms, expected[n - 1].ms, 0.02), "%u instances take %.2f ms each", n, ms);
        close_bed(bed);
    }
}

static void fourth_context(struct bed *bed)
{
    struct weir_err err = { 0 };
    const struct setup setup = { .executors = 4, .instances = 4, .settings = npu };
    CHECK(open_bed(bed, &setup, &err) == WEIR_ECONFLICT, "a fourth context was had");
    CHECK(strstr(err.text, "contexts_max is 3") != NULL, "it says '%s'", err.text);
    close_bed(bed);
}

static void pipeline(struct bed *bed)
{
    for (uint32_t instances = 0; instances <= 1; instances++) {
        open_or_die(
            bed, &(struct setup){
                     .executors = 1, .pipelined = true, .instances = instances, .settings = npu });
        const double rate = load(bed, 4, 2000);
        printf("pipelined: %.4f per ms\n", rate);
        CHECK(rate >= 0.99 / 2.6, "a pipelined instance does %.4f per ms", rate);
        CHECK(bed->model.stages.depth == 2, "depth %u", bed->model.stages.depth);
        /* Nobody waits for a pipeline that has nothing else to do. */
        (void)load(bed, 1, 10);
        CHECK(near(bed->mean_ms, 3.0, 0.01), "alone it takes %.2f ms", bed->mean_ms);
        close_bed(bed);
    }
}

static void collecting(struct bed *bed)
{
    static const struct {
        const char *host;
        double share;
    } cases[] = { { "2ms", 0.2 }, { "2500us", 0.25 }, { "4ms", 0.4 }, { "10ms", 1.0 } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct setting settings[] = {
            { "tau0", "2ms" }, { "alpha", "1ms" }, { "prepare", cases[i].host }, { NULL, NULL }
        };
        struct setup setup = { .executors = 1, .instances = 1, .rows = 8, .settings = settings };
        open_or_die(bed, &setup);
        const double alone = load(bed, 4, 500);
        close_bed(bed);
        setup.pipelined = true;
        open_or_die(bed, &setup);
        const double together = load(bed, 4, 500);
        close_bed(bed);
        const double most = (1 + cases[i].share) / fmax(1, cases[i].share);
        printf("c/i %.2f: %.3f of %.3f\n", cases[i].share, together / alone, most);
        CHECK(together / alone >= 0.95 * most, "pipelining gains %.3f", together / alone);
    }
}

/* More host than device: the pipeline gets deeper than it began. */
static void deep(struct bed *bed)
{
    static const struct setting settings[] = { { "tau0", "1ms" },
                                               { "prepare", "2500us" },
                                               { NULL, NULL } };
    open_or_die(bed, &(struct setup){ .executors = 1, .pipelined = true, .settings = settings });
    (void)load(bed, 8, 200);
    CHECK(bed->model.stages.depth == 4, "depth %u", bed->model.stages.depth);
    const double rate = load(bed, 8, 2000);
    printf("deep: %.4f per ms\n", rate);
    CHECK(rate >= 0.99, "%.4f per ms", rate);
    close_bed(bed);
}

/* Two contexts keep it busy, whatever places it has, and whether these are given out twice. */
static void left_alone(struct bed *bed)
{
    static const struct setup setups[] = {
        { .executors = 3, .settings = npu },
        { .executors = 5, .settings = npu },
        { .executors = 3, .pipelined = true, .settings = npu },
    };
    for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++) {
        open_or_die(bed, &setups[i]);
        (void)load(bed, 8, 3000);
        CHECK(bed->model.runs_max == 2, "%u runs at once", bed->model.runs_max);
        const double rate = load(bed, 8, 2000);
        printf("left alone: %u runs at once, %.4f per ms\n", bed->model.runs_max, rate);
        CHECK(near(rate, 0.385, 0.02), "%.4f per ms", rate);
        CHECK(bed->advised == 0, "advice nobody needs: %s", bed->advice);
        close_bed(bed);
    }
}

/* Runs that hold each other up: four do less than two. */
static void too_many(struct bed *bed)
{
    static const struct setting settings[] = {
        { "tau0", "1ms" }, { "exclusive", "false" }, { "contention", "0.2" }, { NULL, NULL }
    };
    open_or_die(bed, &(struct setup){ .executors = 4, .instances = 4, .settings = settings });
    (void)load(bed, 12, 6000);
    printf("%s\n", bed->advice);
    CHECK(bed->advised == 1, "told %u times", bed->advised);
    CHECK(strstr(bed->advice, "4 instances") != NULL, "it says '%s'", bed->advice);
    CHECK(bed->model.runs_max == 4, "%u runs at once", bed->model.runs_max);
    close_bed(bed);
    open_or_die(bed, &(struct setup){ .executors = 4, .settings = settings });
    (void)load(bed, 12, 6000);
    CHECK(bed->model.scaling.chosen == 2, "%u runs at once", bed->model.scaling.chosen);
    close_bed(bed);
}

/* A model with threads of its own among many small runs: they leave it its places in time, and have
 * theirs while it does not run. */
static void wide(struct bed *bed)
{
    static const struct setting small[] = { { "tau0", "1ms" },
                                            { "exclusive", "false" },
                                            { NULL, NULL } };
    static const struct setting large[] = { { "tau0", "2ms" },
                                            { "exclusive", "false" },
                                            { NULL, NULL } };
    static const struct {
        uint32_t threads;
        uint64_t patience_ns;
        uint32_t priority; /* With 1 it need not stand back for what it has had of the device. */
        double
            ms_max; /* What its turn may take, half of its patience, the others' runs, its own. */
    } cases[] = { { 4, 0, 0, 18 },
                  { 4, 8 * NS_PER_MS, 0, 8 },
                  { 4, 6 * NS_PER_MS, 1, 6 },
                  { 2, 0, 0, 18 },
                  { 9, 0, 0, 18 } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct weir_err err = { 0 };
        open_or_die(bed, &(struct setup){ .executors = 4, .settings = small });
        bed->wide_config = (struct model_config){ .name = "wide",
                                                  .max_batch_size = 1,
                                                  .intra_threads = cases[i].threads };
        CHECK(adopt(bed, &bed->wide, &bed->wide_config, large, &err) == WEIR_OK, "%s", err.text);
        CHECK(bed->wide.runs_max == 1, "%u wide runs at once", bed->wide.runs_max);
        (void)load(bed, 13, 200); /* Until its time is known. */
        bed->clients[0].patience_ns = cases[i].patience_ns;
        bed->clients[0].priority = cases[i].priority;
        bed->wide_ms = 0;
        bed->wide_answers = 0;
        const double rate = load(bed, 13, 4000);
        printf("%u threads: at most %.2f ms, %" PRIu64 " of %.2f per ms\n", cases[i].threads,
               bed->wide_ms, bed->wide_answers, rate);
        CHECK(bed->wide_ms <= cases[i].ms_max + 0.001, "a wide run took %.2f ms", bed->wide_ms);
        CHECK(bed->threads_most == 4, "%u threads at most", bed->threads_most);
        CHECK(rate > 1, "%.2f per ms", rate);
        close_bed(bed);
    }
}

int main(void)
{
    struct bed *bed = mem_alloc(sizeof(*bed));
    contention(bed);
    fourth_context(bed);
    pipeline(bed);
    collecting(bed);
    deep(bed);
    left_alone(bed);
    too_many(bed);
    wide(bed);
    mem_free(bed);
    return 0;
}
