/*
 * The rate limiter: runs that hold resources, under a clock turned by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "asking.h"
#include "backend/backend.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/rate.h"
#include "simulated.h"

#define MODELS 2
#define CALLS 12

struct rig {
    struct limits limits;
    struct clock clock;
    struct engine *engine;
    struct home home;
    struct rate_resource resources[MODELS];
    struct model_config configs[MODELS];
    struct model models[MODELS];
};

struct call {
    struct request request;
    float values[16];
    struct tensor input;
    struct tensor output;
    bool ended;
};

static void rig_start(struct rig *rig, bool on, const char *limit)
{
    static const struct device_options devices[] = {
        { .name = "cpu", .executors = 2 },
        { .name = "npu", .executors = 2 },
    };
    memset(rig, 0, sizeof(*rig));
    limits_init(&rig->limits);
    clock_init_manual(&rig->clock, NS_PER_S);
    const struct engine_options options = { .devices = devices,
                                            .device_count = 2,
                                            .limits = &rig->limits,
                                            .clock = &rig->clock,
                                            .rate_limit = on,
                                            .rate_limits = &limit,
                                            .rate_limit_count = limit == NULL ? 0 : 1 };
    assert_int_equal(engine_create(&options, &rig->engine, NULL), WEIR_OK);
    home_init(&rig->home, rig->engine, NULL, NULL);
}

static enum weir_status add(struct rig *rig, uint32_t index, const char *device,
                            struct rate_resource need, uint32_t priority, struct weir_err *err)
{
    static const struct setting settings[] = { { "tau0", "10us" } };
    struct model *model = &rig->models[index];
    rig->resources[index] = need;
    rig->configs[index] = (struct model_config){ .name = "m",
                                                 .device = device,
                                                 .max_batch_size = 1,
                                                 .queue_timeout_ns = CLOCK_NEVER,
                                                 .resources = &rig->resources[index],
                                                 .resource_count = 1,
                                                 .rate_priority = priority,
                                                 .settings = settings,
                                                 .setting_count = 1 };
    simulated_load(model, &rig->configs[index], rig->engine);
    return engine_adopt(rig->engine, model, err);
}

/* Its runs need so much of "r". */
static void add_on_cpu(struct rig *rig, uint32_t index, uint32_t count)
{
    const struct rate_resource need = { "r", count, false };
    assert_int_equal(add(rig, index, "cpu", need, 0, NULL), WEIR_OK);
}

static void rig_stop(struct rig *rig)
{
    home_finish(&rig->home);
    for (uint32_t i = 0; i < MODELS; i++) {
        if (rig->models[i].backend != NULL) {
            engine_abandon(rig->engine, &rig->models[i]);
            backend_unload(rig->models[i].backend);
        }
    }
    engine_destroy(rig->engine);
}

static void on_end(struct request *request)
{
    struct call *call = list_entry(request, struct call, request);
    assert_int_equal(request->status, WEIR_OK);
    call->ended = true;
    tensor_release(&call->output);
}

static void submit(struct rig *rig, struct call *call, struct model *model)
{
    memset(call, 0, sizeof(*call));
    call->input = asking_rows(call->values, 1, 16);
    asking_init(&call->request, &rig->home, model, &call->input, &call->output);
    call->request.ended = on_end;
    assert_int_equal(engine_submit(rig->engine, &call->request, NULL), WEIR_OK);
}

static struct instance *pull(struct rig *rig, uint32_t pool)
{
    uint64_t wake_ns;
    return pool_pull(rig->engine->pools[pool], clock_now_ns(&rig->clock), &wake_ns);
}

static void finish(struct rig *rig, struct instance *instance)
{
    struct pool *pool = instance->model->pool;
    batch_run(instance);
    pool_settle(pool, instance, clock_now_ns(&rig->clock));
    home_turn(&rig->home);
}

static void test_one_at_a_time(void **state)
{
    (void)state;
    struct rig rig;
    struct call calls[2];
    rig_start(&rig, true, NULL);
    add_on_cpu(&rig, 0, 2);
    add_on_cpu(&rig, 1, 1);
    submit(&rig, &calls[0], &rig.models[0]);
    submit(&rig, &calls[1], &rig.models[1]);
    struct instance *first = pull(&rig, 0);
    assert_ptr_equal(first->model, &rig.models[0]); /* There are two, as its need is. */
    assert_null(pull(&rig, 0));
    finish(&rig, first);
    struct instance *second = pull(&rig, 0);
    assert_ptr_equal(second->model, &rig.models[1]);
    finish(&rig, second);
    assert_true(calls[0].ended && calls[1].ended);
    rig_stop(&rig);
}

static void test_off_limits_nothing(void **state)
{
    (void)state;
    struct rig rig;
    struct call calls[2];
    rig_start(&rig, false, NULL);
    add_on_cpu(&rig, 0, 1);
    add_on_cpu(&rig, 1, 1);
    submit(&rig, &calls[0], &rig.models[0]);
    submit(&rig, &calls[1], &rig.models[1]);
    struct instance *first = pull(&rig, 0);
    struct instance *second = pull(&rig, 0);
    assert_true(first != NULL && second != NULL);
    finish(&rig, first);
    finish(&rig, second);
    rig_stop(&rig);
}

static void test_limits(void **state)
{
    (void)state;
    struct rig rig;
    struct call calls[2];
    struct weir_err err;
    rig_start(&rig, true, "r:2");
    add_on_cpu(&rig, 0, 1);
    assert_int_equal(add(&rig, 1, "cpu", (struct rate_resource){ "r", 3, false }, 0, &err),
                     WEIR_EINVAL);
    assert_non_null(strstr(err.text, "needs 3 of the resource 'r', the server has 2"));
    submit(&rig, &calls[0], &rig.models[0]);
    submit(&rig, &calls[1], &rig.models[0]);
    struct instance *first = pull(&rig, 0);
    struct instance *second = pull(&rig, 0);
    assert_true(first != NULL && second != NULL);
    finish(&rig, first);
    finish(&rig, second);
    rig_stop(&rig);
}

/* A limit of one device is none of the others'. */
static void test_limits_of_a_device(void **state)
{
    (void)state;
    struct rig rig;
    struct weir_err err;
    const struct rate_resource need = { "r", 2, false };
    rig_start(&rig, true, "r:1:cpu");
    assert_int_equal(add(&rig, 0, "npu", need, 0, NULL), WEIR_OK);
    assert_int_equal(add(&rig, 1, "cpu", need, 0, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "needs 2 of the resource 'r', the server has 1"));
    rig_stop(&rig);
}

static void test_bad_limits(void **state)
{
    (void)state;
    static const char *const bad[] = { "", "r", "r:", ":1", "r:0", "r:x", "r:1:" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rate_limiter *limiter;
        struct weir_err err;
        assert_int_equal(rate_limiter_create(&bad[i], 1, &limiter, &err), WEIR_EINVAL);
        assert_non_null(strstr(err.text, "NAME:COUNT"));
    }
}

/* A global resource is one over devices; what is not global each device has. */
static void test_devices(void **state)
{
    (void)state;
    for (int global = 0; global < 2; global++) {
        struct rig rig;
        struct call calls[2];
        const struct rate_resource need = { "r", 1, global == 1 };
        rig_start(&rig, true, NULL);
        assert_int_equal(add(&rig, 0, "cpu", need, 0, NULL), WEIR_OK);
        assert_int_equal(add(&rig, 1, "npu", need, 0, NULL), WEIR_OK);
        submit(&rig, &calls[0], &rig.models[0]);
        submit(&rig, &calls[1], &rig.models[1]);
        struct instance *first = pull(&rig, 0);
        struct instance *second = pull(&rig, 1);
        assert_int_equal(second == NULL, global);
        finish(&rig, first);
        second = second == NULL ? pull(&rig, 1) : second;
        finish(&rig, second);
        assert_true(calls[0].ended && calls[1].ended);
        rig_stop(&rig);
    }
}

/* Priority 2 gets half as many runs as priority 1. */
static void test_shares(void **state)
{
    (void)state;
    struct rig rig;
    struct call calls[2][CALLS];
    const struct rate_resource need = { "r", 1, false };
    uint32_t runs[2] = { 0, 0 };
    rig_start(&rig, true, NULL);
    assert_int_equal(add(&rig, 0, "cpu", need, 2, NULL), WEIR_OK);
    assert_int_equal(add(&rig, 1, "cpu", need, 1, NULL), WEIR_OK);
    for (int i = 0; i < CALLS; i++) {
        submit(&rig, &calls[0][i], &rig.models[0]);
        submit(&rig, &calls[1][i], &rig.models[1]);
    }
    for (int i = 0; i < 12; i++) {
        struct instance *instance = pull(&rig, 0);
        runs[instance->model == &rig.models[1]]++;
        finish(&rig, instance);
    }
    assert_int_equal(runs[0], 4);
    assert_int_equal(runs[1], 8);
    for (struct instance *next = pull(&rig, 0); next != NULL; next = pull(&rig, 0)) {
        finish(&rig, next);
    }
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_at_a_time), cmocka_unit_test(test_off_limits_nothing),
        cmocka_unit_test(test_limits),        cmocka_unit_test(test_limits_of_a_device),
        cmocka_unit_test(test_bad_limits),    cmocka_unit_test(test_devices),
        cmocka_unit_test(test_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
