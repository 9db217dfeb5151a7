/*
 * Which devices a configuration means, and who may run what there.
 */
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "asking.h"
#include "built.h"
#include "engine/engine.h"
#include "engine/placement.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "faults.h"
#include "simulated.h"
#include "util/gpus.h"
#include "util/mem.h"

struct client {
    struct request request;
    struct tensor input;
    struct tensor output;
    float data[16];
    enum weir_status ended;
};

struct rig {
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct home home;
    struct model model;
    struct model_config config;
    struct client clients[3];
};

static struct numa_seat seats[2] = { { .node = 0 }, { .node = 1 } };

static void wake(void *context)
{
    (void)context;
}

/* Processors on two nodes, two GPUs, an NPU. */
static int make_rig(void **state)
{
    static const struct device_options devices[] = {
        { .name = "cpu", .executors = 2, .seats = seats, .seat_count = 2 },
        { .name = "gpu0", .pool = "gpu", .executors = 1 },
        { .name = "npu", .executors = 1 },
        { .name = "gpu1", .pool = "gpu", .executors = 1 },
    };
    struct rig *rig = mem_alloc(sizeof(*rig));
    clock_init_manual(&rig->clock, NS_PER_S);
    limits_init(&rig->limits);
    const struct engine_options options = {
        .devices = devices, .device_count = 4, .limits = &rig->limits, .clock = &rig->clock
    };
    assert_int_equal(engine_create(&options, &rig->engine, NULL), WEIR_OK);
    home_init(&rig->home, rig->engine, wake, NULL);
    rig->config = (struct model_config){ .name = "m",
                                         .backend = "sim",
                                         .device = "cpu",
                                         .max_batch_size = 1,
                                         .intra_threads = 1,
                                         .queue_timeout_ns = CLOCK_NEVER };
    *state = rig;
    return 0;
}

static int free_rig(void **state)
{
    struct rig *rig = *state;
    home_finish(&rig->home);
    engine_destroy(rig->engine);
    mem_free(rig);
    return 0;
}

static void assert_place(const struct rig *rig, const char *pool, uint32_t count, uint32_t first)
{
    struct placement place;
    struct weir_err err = { 0 };
    if (placement_find(rig->engine, &rig->config, &place, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(place.pool->name, pool);
    assert_int_equal(place.count, count);
    assert_int_equal(place.devices[0], first);
}

static void assert_no_place(const struct rig *rig, const char *why)
{
    struct placement place;
    struct weir_err err = { 0 };
    assert_int_equal(placement_find(rig->engine, &rig->config, &place, &err), WEIR_EINVAL);
    if (strstr(err.text, why) == NULL) {
        fail_msg("it says '%s', expected '%s'", err.text, why);
    }
}

static void test_devices_and_pools_by_name(void **state)
{
    struct rig *rig = *state;
    const char *both[] = { "gpu1", "gpu0", "gpu1" };
    assert_int_equal(rig->engine->pool_count, 3);
    assert_int_equal(rig->engine->device_count, 4);
    assert_place(rig, "cpu", 1, 0);
    rig->config.device = "gpu";
    assert_place(rig, "gpu", 2, 0);
    rig->config.device = "gpu1";
    assert_place(rig, "gpu", 1, 1);
    rig->config.devices = both;
    rig->config.device_count = 3;
    assert_place(rig, "gpu", 2, 1);
    both[1] = "npu";
    assert_no_place(rig, "devices: found 'npu' beside 'gpu1', expected devices of one pool");
    both[1] = "gpu2";
    assert_no_place(rig, "device 'gpu2' is not configured");
}

static void test_gpus_in_tritons_words(void **state)
{
    struct rig *rig = *state;
    rig->config.on_gpu = true;
    assert_place(rig, "gpu", 2, 0);
    rig->config.gpus = 2;
    assert_place(rig, "gpu", 1, 1);
    rig->config.gpus = 4;
    assert_no_place(rig, "device 'gpu2' is not configured");
    rig->config.device = "npu"; /* Weir's own word goes before. */
    assert_place(rig, "npu", 1, 0);
}

static void test_sequences_stay_on_one_device(void **state)
{
    struct rig *rig = *state;
    rig->config.device = "gpu";
    rig->config.sequence.strategy = SEQUENCE_OLDEST;
    assert_place(rig, "gpu", 1, 0);
}

static void on_end(struct request *request)
{
    struct client *client = list_entry(request, struct client, request);
    client->ended = request->status;
    tensor_release(&client->output);
    model_release(request->model);
}

static void ask(struct rig *rig, struct client *client, struct model *model)
{
    client->input = asking_rows(client->data, 1, 16);
    client->ended = WEIR_EBACKEND;
    asking_init(&client->request, &rig->home, model, &client->input, &client->output);
    client->request.ended = on_end;
    model_acquire(model);
    assert_int_equal(engine_submit(rig->engine, &client->request, NULL), WEIR_OK);
}

static struct instance *pull_at(struct rig *rig, struct pool *pool, int32_t node)
{
    const struct seat seat = { 0, node };
    uint64_t wake_ns;
    return pool_pull_at(pool, &seat, clock_now_ns(&rig->clock), &wake_ns);
}

static struct instance *pull_on(struct rig *rig, uint32_t device)
{
    const struct seat seat = { device, SEAT_NODE_ANY };
    uint64_t wake_ns;
    return pool_pull_at(rig->model.pool, &seat, clock_now_ns(&rig->clock), &wake_ns);
}

static void finish(struct rig *rig, struct instance *instance)
{
    assert_non_null(instance);
    batch_run(instance);
    pool_settle(instance->model->pool, instance, clock_now_ns(&rig->clock));
    home_turn(&rig->home);
}

static void abandon(struct rig *rig, struct model *model)
{
    engine_abandon(rig->engine, model);
    backend_unload(model->backend);
}

static void test_a_model_keeps_to_its_memory_node(void **state)
{
    struct rig *rig = *state;
    rig->config.numa_nodes = 1U << 3;
    assert_no_place(rig, "numa_node: found 3");
    rig->config.numa_nodes = 1U << 1;
    simulated_adopt(&rig->model, &rig->config, rig->engine);
    struct pool *pool = rig->model.pool;
    ask(rig, &rig->clients[0], &rig->model);
    assert_null(pull_at(rig, pool, 0));
    finish(rig, pull_at(rig, pool, 1));
    assert_int_equal(rig->clients[0].ended, WEIR_OK);
    abandon(rig, &rig->model);
}

/* On both GPUs; the first one is lost at the first run there. */
static void spread(struct rig *rig)
{
    static const struct setting settings[] = { { "lost_on", "gpu0" },
                                               { "lost_at", "1" },
                                               { "lost_runs", "1" } };
    rig->config.device = "gpu";
    rig->config.settings = settings;
    rig->config.setting_count = 3;
    simulated_spread(&rig->model, &rig->config, rig->engine);
}

static void withdraw(struct rig *rig)
{
    engine_abandon(rig->engine, &rig->model);
    backend_unload(rig->model.replicas[0].backend);
    backend_unload(rig->model.replicas[1].backend);
}

/* Nobody but its own executor asks meanwhile. */
static void test_a_device_that_is_back_is_used_at_once(void **state)
{
    struct rig *rig = *state;
    const struct seat seat = { 0, SEAT_NODE_ANY };
    uint64_t wake_ns;
    spread(rig);
    ask(rig, &rig->clients[0], &rig->model);
    finish(rig, pull_on(rig, 0));
    assert_null(pool_pull_at(rig->model.pool, &seat, clock_now_ns(&rig->clock), &wake_ns));
    assert_int_equal(wake_ns, rig->model.replicas[0].until_ns);
    clock_turn(&rig->clock, wake_ns);
    finish(rig, pull_on(rig, 0));
    assert_int_equal(rig->clients[0].ended, WEIR_OK);
    withdraw(rig);
}

/* The run of that executor does not end in time. */
static void hang(struct rig *rig, struct instance *instance, struct executor *executor)
{
    assert_non_null(instance);
    instance->executor = executor;
    assert_true(pool_watch_begin(instance));
    clock_turn(&rig->clock, clock_now_ns(&rig->clock) + 60 * NS_PER_S);
    (void)pool_watch(rig->model.pool, clock_now_ns(&rig->clock));
}

static void test_an_executor_that_is_back_sits_where_one_is_missing(void **state)
{
    struct rig *rig = *state;
    rig->config.device = "gpu";
    rig->config.run_limit_ns = NS_PER_MS;
    simulated_spread(&rig->model, &rig->config, rig->engine);
    struct pool *pool = rig->model.pool;
    struct executor *spare = &pool->executors[pool->thread_max];
    spare->parked = true;
    list_append(&pool->spares, &spare->idle);
    struct instance *runs[2];
    for (uint32_t i = 0; i < 2; i++) {
        ask(rig, &rig->clients[i], &rig->model);
        runs[i] = pull_on(rig, i);
    }
    hang(rig, runs[0], &pool->executors[0]);
    hang(rig, runs[1], &pool->executors[1]);
    assert_false(spare->parked); /* On the first device; nobody is left for the second one. */
    assert_int_equal(spare->seat.device, 0);
    assert_int_equal(atomic_load(&rig->engine->short_pools), 1);
    finish(rig, runs[0]);
    assert_false(pool->executors[0].parked);
    assert_int_equal(pool->executors[0].seat.device, 1);
    assert_int_equal(atomic_load(&rig->engine->short_pools), 0);
    finish(rig, runs[1]);
    assert_true(pool->executors[1].parked);
    withdraw(rig);
}

/* A wide model that keeps to the second memory node, and two others: one whose runs may hang, and one
 * whose runs do not. */
struct trio {
    struct model_config configs[2];
    struct model wide;
    struct model other;
};

static struct pool *adopt_trio(struct rig *rig, struct trio *trio)
{
    *trio = (struct trio){ .configs = { rig->config, rig->config } };
    trio->configs[0].numa_nodes = 1U << 1;
    trio->configs[0].intra_threads = 2;
    rig->config.run_limit_ns = NS_PER_MS;
    simulated_adopt(&trio->wide, &trio->configs[0], rig->engine);
    simulated_adopt(&trio->other, &trio->configs[1], rig->engine);
    simulated_adopt(&rig->model, &rig->config, rig->engine);
    return rig->model.pool;
}

static void abandon_trio(struct rig *rig, struct trio *trio)
{
    abandon(rig, &rig->model);
    abandon(rig, &trio->wide);
    abandon(rig, &trio->other);
}

/* The only executor of the wide model's node hangs after the model has reserved its places. */
static void test_a_reservation_that_nobody_can_take_holds_nobody_up(void **state)
{
    struct rig *rig = *state;
    struct trio trio;
    struct pool *pool = adopt_trio(rig, &trio);
    ask(rig, &rig->clients[0], &trio.other);
    struct instance *first = pull_at(rig, pool, 0);
    ask(rig, &rig->clients[1], &trio.wide);
    assert_null(pull_at(rig, pool, 1)); /* One of its two places is taken. */
    ask(rig, &rig->clients[2], &rig->model);
    struct instance *hung = pull_at(rig, pool, 1);
    hang(rig, hung, &pool->executors[1]);
    finish(rig, first);
    ask(rig, &rig->clients[0], &trio.other);
    finish(rig, pull_at(rig, pool, 0));
    assert_int_equal(rig->clients[0].ended, WEIR_OK);
    finish(rig, hung);
    finish(rig, pull_at(rig, pool, 1));
    assert_int_equal(rig->clients[1].ended, WEIR_OK);
    abandon_trio(rig, &trio);
}

/* An executor of the other memory node hangs: those that could run the wide model are awaited even so. */
static void test_a_reservation_outlives_an_executor_that_could_not_take_it(void **state)
{
    struct rig *rig = *state;
    struct trio trio;
    struct pool *pool = adopt_trio(rig, &trio);
    ask(rig, &rig->clients[0], &rig->model);
    struct instance *hung = pull_at(rig, pool, 0);
    hang(rig, hung, &pool->executors[0]);
    ask(rig, &rig->clients[1], &trio.other);
    struct instance *first = pull_at(rig, pool, 1);
    first->executor = &pool->executors[1];
    ask(rig, &rig->clients[2], &trio.wide);
    assert_null(pull_at(rig, pool, 1)); /* One of its two places is taken. */
    clock_turn(&rig->clock, clock_now_ns(&rig->clock) + NS_PER_S);
    finish(rig, first);
    ask(rig, &rig->clients[1], &trio.other);
    list_append(&pool->idle, &pool->executors[1].idle);
    assert_null(pull_at(rig, pool, 0)); /* The one that sleeps has it. */
    list_remove(&pool->executors[1].idle);
    finish(rig, pull_at(rig, pool, 1));
    assert_int_equal(rig->clients[2].ended, WEIR_OK);
    finish(rig, pull_at(rig, pool, 0));
    assert_int_equal(rig->clients[1].ended, WEIR_OK);
    finish(rig, hung);
    abandon_trio(rig, &trio);
}

static void test_who_shares_a_run_is_served_by_another_device(void **state)
{
    struct rig *rig = *state;
    rig->config.join = true;
    spread(rig);
    ask(rig, &rig->clients[0], &rig->model);
    ask(rig, &rig->clients[1], &rig->model);
    assert_int_equal(rig->clients[1].request.state, REQUEST_JOINED);
    struct instance *instance = pull_on(rig, 0);
    engine_cancel(rig->engine, &rig->clients[0].request);
    finish(rig, instance);
    finish(rig, pull_on(rig, 1));
    assert_int_equal(rig->clients[0].ended, WEIR_ECANCELED);
    assert_int_equal(rig->clients[1].ended, WEIR_OK);
    withdraw(rig);
}

/* There are seats on both nodes, and an executor on the first one only. */
static void test_a_node_without_an_executor_is_refused(void **state)
{
    (void)state;
    static const struct device_options device = {
        .name = "cpu", .executors = 1, .seats = seats, .seat_count = 2
    };
    struct rig rig = { .config = { .name = "m", .device = "cpu", .numa_nodes = 1U << 1 } };
    clock_init_manual(&rig.clock, NS_PER_S);
    limits_init(&rig.limits);
    const struct engine_options options = {
        .devices = &device, .device_count = 1, .limits = &rig.limits, .clock = &rig.clock
    };
    assert_int_equal(engine_create(&options, &rig.engine, NULL), WEIR_OK);
    assert_no_place(&rig, "numa_node: found 1");
    rig.config.numa_nodes = 1U << 0;
    assert_place(&rig, "cpu", 1, 0);
    engine_destroy(rig.engine);
}

static bool is_woken(struct pool *pool, struct executor *executor, uint64_t now_ns)
{
    list_append(&pool->idle, &executor->idle);
    pool->idle_count = 1;
    const bool woken = pool_executor_for_work(pool, now_ns) == executor;
    list_remove(&executor->idle);
    pool->idle_count = 0;
    return woken;
}

/* A run of two threads waits for its places, and smaller ones with it. */
static void test_places_are_kept_for_the_node_that_reserved_them(void **state)
{
    struct rig *rig = *state;
    struct model wide = { 0 };
    struct model_config config = rig->config;
    config.name = "wide";
    config.intra_threads = 2;
    config.numa_nodes = 1U << 1;
    simulated_adopt(&rig->model, &rig->config, rig->engine);
    simulated_adopt(&wide, &config, rig->engine);
    struct pool *pool = wide.pool;
    ask(rig, &rig->clients[0], &rig->model);
    struct instance *narrow = pull_at(rig, pool, 0);
    assert_non_null(narrow);
    ask(rig, &rig->clients[1], &wide);
    assert_null(pull_at(rig, pool, 1)); /* There is one place: it reserves. */
    clock_turn(&rig->clock, clock_now_ns(&rig->clock) + NS_PER_S);
    ask(rig, &rig->clients[2], &rig->model);
    assert_null(pull_at(rig, pool, 1));
    const uint64_t now_ns = clock_now_ns(&rig->clock);
    assert_false(is_woken(pool, &pool->executors[0], now_ns)); /* There is nothing for anybody. */
    assert_false(is_woken(pool, &pool->executors[1], now_ns));
    finish(rig, narrow);
    assert_null(pull_at(rig, pool, 0));
    assert_null(pull_at(rig, pool, 0));
    assert_false(is_woken(pool, &pool->executors[0], now_ns));
    assert_true(is_woken(pool, &pool->executors[1], now_ns));
    finish(rig, pull_at(rig, pool, 1));
    assert_int_equal(rig->clients[1].ended, WEIR_OK);
    finish(rig, pull_at(rig, pool, 0));
    assert_int_equal(rig->clients[2].ended, WEIR_OK);
    abandon(rig, &wide);
    abandon(rig, &rig->model);
}

static void test_pools_of_unlike_devices_are_refused(void **state)
{
    (void)state;
    static const struct device_options devices[] = {
        { .name = "cpu", .executors = 1 },
        { .name = "gpu0", .pool = "gpu", .executors = 1 },
        { .name = "gpu1", .pool = "gpu", .executors = 2 },
    };
    struct clock clock;
    struct limits limits;
    struct engine *engine = NULL;
    struct weir_err err = { 0 };
    clock_init_manual(&clock, NS_PER_S);
    limits_init(&limits);
    const struct engine_options options = {
        .devices = devices, .device_count = 3, .limits = &limits, .clock = &clock
    };
    assert_int_equal(engine_create(&options, &engine, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "device 'gpu1': found 2 runs"));
}

static void test_gpus_of_machines_without_any(void **state)
{
    (void)state;
    struct gpus *gpus = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(gpus_create("libno-such-library.so.1", 0, &gpus, &err), WEIR_ENOENT);
    assert_non_null(strstr(err.text, "libno-such-library"));
    assert_int_equal(gpus_create("libm.so.6", 0, &gpus, &err), WEIR_EUNAVAILABLE);
    assert_non_null(strstr(err.text, "has no nvmlInit_v2"));
    gpus_destroy(gpus);
}

/* The build made a library with two GPUs. */
static void test_figures_of_gpus_are_read_anew_after_a_rest(void **state)
{
    (void)state;
    struct gpus *gpus = NULL;
    struct nvml_gpu seen[NVML_GPUS_MAX];
    char path[512];
    built_path("tests/unit/fake_nvml.so", path, sizeof(path));
    assert_int_equal(gpus_create(path, 50 * NS_PER_MS, &gpus, NULL), WEIR_OK);
    (void)usleep(60000);
    assert_int_equal(gpus_look(gpus, seen), 0); /* Those of the start are old. */
    while (gpus_look(gpus, seen) < 2) {
        (void)usleep(1000);
    }
    gpus_destroy(gpus);
}

static void test_memory_may_run_out_for_gpus(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    char path[512];
    built_path("tests/unit/fake_nvml.so", path, sizeof(path));
    enum weir_status status = WEIR_ENOMEM;
    uint64_t nth = 1;
    for (; nth < 10 && status != WEIR_OK; nth++) {
        struct gpus *gpus = NULL;
        struct weir_err err = { 0 };
        (void)mem_fault_arm(nth);
        status = gpus_create(path, 0, &gpus, &err);
        (void)mem_fault_arm(0);
        if (status != WEIR_OK && strstr(err.text, "out of memory") == NULL) {
            fail_msg("%s", err.text);
        }
        gpus_destroy(gpus);
    }
    assert_int_equal(status, WEIR_OK);
    assert_true(nth > 3);
}

#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, make_rig, free_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RIG(test_devices_and_pools_by_name),
        WITH_RIG(test_gpus_in_tritons_words),
        WITH_RIG(test_sequences_stay_on_one_device),
        WITH_RIG(test_a_model_keeps_to_its_memory_node),
        WITH_RIG(test_places_are_kept_for_the_node_that_reserved_them),
        WITH_RIG(test_a_device_that_is_back_is_used_at_once),
        WITH_RIG(test_an_executor_that_is_back_sits_where_one_is_missing),
        WITH_RIG(test_a_reservation_that_nobody_can_take_holds_nobody_up),
        WITH_RIG(test_a_reservation_outlives_an_executor_that_could_not_take_it),
        WITH_RIG(test_who_shares_a_run_is_served_by_another_device),
        cmocka_unit_test(test_a_node_without_an_executor_is_refused),
        cmocka_unit_test(test_pools_of_unlike_devices_are_refused),
        cmocka_unit_test(test_gpus_of_machines_without_any),
        cmocka_unit_test(test_figures_of_gpus_are_read_anew_after_a_rest),
        cmocka_unit_test(test_memory_may_run_out_for_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
