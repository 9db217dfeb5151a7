/*
 * Which devices a configuration means, and who may run what there.
 */
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/engine.h"
#include "engine/placement.h"
#include "engine/pool.h"
#include "simulated.h"
#include "util/gpus.h"
#include "util/mem.h"

struct rig {
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct home home;
    struct model model;
    struct model_config config;
    struct request request;
    struct tensor input;
    struct tensor output;
    bool wanted;
    float data[16];
    enum weir_status ended;
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
    struct rig *rig = list_entry(request, struct rig, request);
    rig->ended = request->status;
    tensor_release(&rig->output);
    model_release(request->model);
}

static void ask(struct rig *rig)
{
    rig->input = (struct tensor){ .dtype = DTYPE_FP32,
                                  .present = true,
                                  .shape = { 2, { 1, 16 } },
                                  .data = (uint8_t *)rig->data,
                                  .size = sizeof(rig->data) };
    rig->wanted = true;
    rig->ended = WEIR_EBACKEND;
    request_init(&rig->request);
    rig->request.home = &rig->home;
    rig->request.model = &rig->model;
    rig->request.deadline_ns = CLOCK_NEVER;
    rig->request.queue_timeout_ns = CLOCK_NEVER;
    rig->request.inputs = &rig->input;
    rig->request.outputs = &rig->output;
    rig->request.wanted = &rig->wanted;
    rig->request.ended = on_end;
    model_acquire(&rig->model);
    assert_int_equal(engine_submit(rig->engine, &rig->request, NULL), WEIR_OK);
}

static void test_a_model_keeps_to_its_memory_node(void **state)
{
    struct rig *rig = *state;
    const struct seat far = { 0, 0 };
    const struct seat near = { 0, 1 };
    uint64_t wake_ns;
    rig->config.numa_nodes = 1U << 3;
    assert_no_place(rig, "numa_node: found 3");
    rig->config.numa_nodes = 1U << 1;
    simulated_adopt(&rig->model, &rig->config, rig->engine);
    struct pool *pool = rig->model.pool;
    ask(rig);
    assert_null(pool_pull_at(pool, &far, clock_now_ns(&rig->clock), &wake_ns));
    struct instance *instance = pool_pull_at(pool, &near, clock_now_ns(&rig->clock), &wake_ns);
    assert_non_null(instance);
    batch_run(instance);
    pool_settle(pool, instance, clock_now_ns(&rig->clock));
    home_turn(&rig->home);
    assert_int_equal(rig->ended, WEIR_OK);
    engine_abandon(rig->engine, &rig->model);
    backend_unload(rig->model.backend);
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
    assert_int_equal(gpus_create("libno-such-library.so.1", &gpus, &err), WEIR_ENOENT);
    assert_non_null(strstr(err.text, "libno-such-library"));
    assert_int_equal(gpus_create("libm.so.6", &gpus, &err), WEIR_EUNAVAILABLE);
    assert_non_null(strstr(err.text, "has no nvmlInit_v2"));
    gpus_destroy(gpus);
}

#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, make_rig, free_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RIG(test_devices_and_pools_by_name),
        WITH_RIG(test_gpus_in_tritons_words),
        WITH_RIG(test_sequences_stay_on_one_device),
        WITH_RIG(test_a_model_keeps_to_its_memory_node),
        cmocka_unit_test(test_pools_of_unlike_devices_are_refused),
        cmocka_unit_test(test_gpus_of_machines_without_any),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
