/*
 * Canaries, under a clock turned by hand: who gets one and when, what its end says of the model,
 * and that nobody else sees it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "asking.h"
#include "backend/backend.h"
#include "engine/canary.h"
#include "engine/catalogue.h"
#include "engine/engine.h"
#include "engine/outage.h"
#include "engine/pool.h"
#include "faults.h"
#include "simulated.h"

#define INTERVAL_NS (30 * NS_PER_S)
#define WIDTH 16

struct rig {
    struct limits limits;
    struct clock clock;
    struct engine *engine;
    struct io_config input;
    struct model_config config;
    struct model model;
    struct home home;
    struct canaries canaries;
    struct catalogue *catalogue;
    uint32_t advised;
};

static void on_advice(void *context, const struct model *model, const char *text)
{
    (void)model;
    (void)text;
    ((struct rig *)context)->advised++;
}

static void make_catalogue(struct rig *rig)
{
    rig->catalogue = catalogue_create(1, 1);
    assert_non_null(rig->catalogue);
    struct catalogue_entry *entry = catalogue_add(rig->catalogue, "m", NULL, 2);
    assert_non_null(entry);
    const struct catalogue_version versions[] = {
        { .version = 1, .state = MODEL_READY, .model = &rig->model },
        { .version = 2, .state = MODEL_UNAVAILABLE, .reason = "unloaded" },
    };
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(catalogue_add_version(rig->catalogue, entry, &versions[i]), WEIR_OK);
    }
    entry->required = true;
    rig->catalogue->ready = true;
    assert_int_equal(catalogue_seal(rig->catalogue), WEIR_OK);
}

/* Executors are pulled by hand. */
static void rig_start(struct rig *rig, const struct setting *settings, uint32_t setting_count)
{
    static const struct device_options device = { .name = "cpu", .executors = 1 };
    memset(rig, 0, sizeof(*rig));
    limits_init(&rig->limits);
    clock_init_manual(&rig->clock, NS_PER_S);
    const struct engine_options options = { .devices = &device,
                                            .device_count = 1,
                                            .limits = &rig->limits,
                                            .clock = &rig->clock,
                                            .inline_runs = true,
                                            .advise = on_advice,
                                            .advise_context = rig };
    assert_int_equal(engine_create(&options, &rig->engine, NULL), WEIR_OK);
    rig->input = (struct io_config){ .name = "x", .dims = { 1, { WIDTH } }, .has_dims = true };
    rig->config = (struct model_config){ .name = "m",
                                         .device = "cpu",
                                         .max_batch_size = 8,
                                         .queue_timeout_ns = CLOCK_NEVER,
                                         .canary_interval_ns = CANARY_INTERVAL_SERVER,
                                         .inputs = &rig->input,
                                         .input_count = 1,
                                         .settings = settings,
                                         .setting_count = setting_count };
    simulated_adopt(&rig->model, &rig->config, rig->engine);
    rig->model.canary.proved = true; /* As its load has found. */
    home_init(&rig->home, rig->engine, NULL, NULL);
    canaries_init(&rig->canaries, rig->engine, &rig->home, INTERVAL_NS);
    make_catalogue(rig);
}

static void rig_stop(struct rig *rig)
{
    home_finish(&rig->home);
    catalogue_release(rig->catalogue);
    assert_int_equal(block_pool_used_bytes(rig->engine->blocks), 0);
    assert_int_equal(atomic_load(&rig->model.leases), 1);
    engine_abandon(rig->engine, &rig->model);
    backend_unload(rig->model.backend);
    engine_destroy(rig->engine);
}

static uint64_t look(struct rig *rig)
{
    const uint64_t next_ns =
        canaries_look(&rig->canaries, rig->catalogue, clock_now_ns(&rig->clock));
    home_turn(&rig->home);
    return next_ns;
}

/* Time passes. */
static void turn(struct rig *rig, uint64_t ns)
{
    clock_turn(&rig->clock, clock_now_ns(&rig->clock) + ns);
}

static struct instance *pull(struct rig *rig)
{
    uint64_t wake_ns;
    return pool_pull(rig->model.pool, clock_now_ns(&rig->clock), &wake_ns);
}

static void finish(struct rig *rig, struct instance *instance)
{
    batch_run(instance);
    pool_settle(rig->model.pool, instance, clock_now_ns(&rig->clock));
    home_turn(&rig->home);
}

/* Runs what waits; how many runs that were. */
static uint32_t run_all(struct rig *rig)
{
    uint32_t count = 0;
    for (struct instance *instance = pull(rig); instance != NULL; instance = pull(rig)) {
        finish(rig, instance);
        count++;
    }
    return count;
}

static bool is_ready(struct rig *rig)
{
    const bool model = outage_check_ready(&rig->model, NULL) == WEIR_OK;
    assert_int_equal(outage_is_ready(rig->engine, rig->catalogue), model);
    return model;
}

/* A model that was just loaded has not been asked for an interval: its first canary begins. */
static void begin_first(struct rig *rig)
{
    look(rig);
    turn(rig, INTERVAL_NS);
    look(rig);
}

/* And fails. */
static void fail_first(struct rig *rig)
{
    begin_first(rig);
    assert_int_equal(run_all(rig), 1);
    assert_false(is_ready(rig));
}

static uint64_t canaries(const struct rig *rig)
{
    return atomic_load(&rig->model.stats.canaries);
}

static uint64_t canaries_failed(const struct rig *rig)
{
    return atomic_load(&rig->model.stats.canaries_failed);
}

/* A client's. */
struct call {
    struct request request;
    float values[WIDTH];
    struct tensor input;
    struct tensor output;
    bool ended;
};

static void on_end(struct request *request)
{
    struct call *call = list_entry(request, struct call, request);
    call->ended = true;
    tensor_release(&call->output);
    model_release(request->model);
}

static void submit(struct rig *rig, struct call *call)
{
    memset(call, 0, sizeof(*call));
    call->input = asking_rows(call->values, 1, WIDTH);
    asking_init(&call->request, &rig->home, &rig->model, &call->input, &call->output);
    call->request.ended = on_end;
    model_acquire(&rig->model);
    assert_int_equal(engine_submit(rig->engine, &call->request, NULL), WEIR_OK);
}

static void serve(struct rig *rig)
{
    struct call call;
    submit(rig, &call);
    home_turn(&rig->home);
    assert_int_equal(run_all(rig), 1);
    assert_true(call.ended);
    assert_int_equal(call.request.status, WEIR_OK);
}

static void test_an_idle_model_gets_one_after_each_interval(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    assert_int_equal(look(&rig), NS_PER_S + INTERVAL_NS);
    turn(&rig, INTERVAL_NS - 1);
    look(&rig);
    assert_int_equal(run_all(&rig), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        turn(&rig, i == 1 ? 1 : INTERVAL_NS);
        look(&rig);
        assert_int_equal(run_all(&rig), 1);
        assert_int_equal(canaries(&rig), i);
    }
    assert_int_equal(canaries_failed(&rig), 0);
    assert_true(is_ready(&rig));
    assert_int_equal(rig.advised, 0);
    rig_stop(&rig);
}

/* Without memory for one there is none, and one after the next interval. */
static void test_memory_may_run_out_for_one(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    const bool faults = faults_are_built();
    look(&rig);
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth && faults; nth++) {
        turn(&rig, INTERVAL_NS);
        (void)mem_fault_arm(nth);
        look(&rig);
        const uint32_t ran = run_all(&rig);
        made = mem_fault_arm(0);
        assert_true(ran == 1 || made >= nth);
        turn(&rig, INTERVAL_NS);
        look(&rig);
        assert_int_equal(run_all(&rig), 1);
        assert_true(is_ready(&rig));
    }
    rig_stop(&rig);
    if (!faults) {
        skip();
    }
}

static void test_no_statistics_know_of_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    begin_first(&rig);
    assert_int_equal(run_all(&rig), 1);
    const struct model_stats *stats = &rig.model.stats;
    assert_int_equal(atomic_load(&stats->inference_count), 0);
    assert_int_equal(atomic_load(&stats->execution_count), 0);
    assert_int_equal(atomic_load(&stats->success.count), 0);
    assert_int_equal(atomic_load(&stats->last_inference_ms), 0);
    assert_int_equal(model_uses(&rig.model), 0);
    assert_int_equal(rig.model.profile.tick, 0);
    assert_int_equal(rig.model.overload.pace.settled_ns, 0); /* Nor what else learns of runs. */
    assert_int_equal(rig.model.overload.try_ns, 0);
    rig_stop(&rig);
}

static void test_a_model_that_serves_gets_none(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    look(&rig);
    for (uint32_t i = 0; i < 5; i++) {
        turn(&rig, INTERVAL_NS - 1);
        serve(&rig);
        look(&rig);
    }
    assert_int_equal(canaries(&rig), 0);
    struct call call; /* One that runs for longer than the interval. */
    submit(&rig, &call);
    home_turn(&rig.home);
    struct instance *instance = pull(&rig);
    assert_non_null(instance);
    turn(&rig, 2 * INTERVAL_NS);
    look(&rig);
    assert_int_equal(canaries(&rig), 0);
    finish(&rig, instance);
    assert_true(call.ended);
    rig_stop(&rig);
}

static void test_a_failing_one_makes_the_model_not_ready_until_one_succeeds(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "fail_at", "2" }, { "fail_to", "3" } };
    struct rig rig;
    rig_start(&rig, settings, 2);
    look(&rig);
    static const bool ready[] = { true, false, false, true };
    for (size_t i = 0; i < sizeof(ready) / sizeof(*ready); i++) {
        turn(&rig, INTERVAL_NS);
        look(&rig);
        assert_int_equal(run_all(&rig), 1);
        assert_int_equal(is_ready(&rig), ready[i]);
        struct weir_err err = { 0 };
        if (!ready[i]) {
            assert_int_equal(outage_check_ready(&rig.model, &err), WEIR_EUNAVAILABLE);
            assert_non_null(strstr(err.text, "canary"));
            assert_non_null(strstr(err.text, "simulated failure"));
            assert_int_equal(outage_check(&rig.model, NULL), WEIR_OK); /* Clients may try. */
        }
    }
    assert_int_equal(canaries_failed(&rig), 2);
    assert_int_equal(rig.advised, 2); /* When it began and when it was over. */
    rig_stop(&rig);
}

static void test_a_clients_success_is_proof_enough(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "fail_at", "1" } };
    struct rig rig;
    rig_start(&rig, settings, 1);
    fail_first(&rig);
    turn(&rig, 1);
    serve(&rig);
    assert_true(is_ready(&rig));
    look(&rig);
    assert_int_equal(rig.advised, 2);
    rig_stop(&rig);
}

static void test_zeros_that_were_never_accepted_tell_nothing(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "poison", "0" } };
    struct rig rig;
    rig_start(&rig, settings, 1);
    rig.model.canary.proved = false;
    look(&rig);
    for (uint32_t i = 0; i < 3; i++) {
        turn(&rig, INTERVAL_NS);
        look(&rig);
        assert_int_equal(run_all(&rig), 1);
        assert_true(is_ready(&rig));
    }
    assert_int_equal(canaries_failed(&rig), 3);
    assert_int_equal(rig.advised, 0);
    rig_stop(&rig);
}

static void test_one_that_does_not_end_has_failed(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    look(&rig);
    turn(&rig, INTERVAL_NS);
    assert_int_equal(look(&rig), clock_now_ns(&rig.clock) + INTERVAL_NS);
    struct instance *instance = pull(&rig);
    assert_non_null(instance);
    turn(&rig, INTERVAL_NS - 1);
    look(&rig);
    assert_true(is_ready(&rig));
    turn(&rig, 1);
    assert_int_equal(look(&rig), CLOCK_NEVER); /* It is waited for. */
    assert_false(is_ready(&rig));
    finish(&rig, instance); /* Terminated. */
    assert_false(is_ready(&rig));
    assert_int_equal(canaries_failed(&rig), 1);
    look(&rig); /* It is due at once, and the model answers again. */
    assert_int_equal(run_all(&rig), 1);
    assert_true(is_ready(&rig));
    rig_stop(&rig);
}

static void test_one_that_could_not_begin_tells_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    begin_first(&rig);
    turn(&rig, INTERVAL_NS); /* The executors had other things to do. */
    look(&rig);
    assert_true(is_ready(&rig));
    assert_int_equal(canaries_failed(&rig), 0);
    run_all(&rig);
    rig_stop(&rig);
}

static void test_clients_go_first_and_ride_without_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    begin_first(&rig);
    struct call call;
    submit(&rig, &call);
    home_turn(&rig.home);
    struct instance *first = pull(&rig);
    assert_non_null(first);
    finish(&rig, first);
    assert_true(call.ended);
    assert_int_equal(call.request.batch_rows, 1);
    assert_int_equal(rig.home.pending, 1); /* The canary still waits. */
    assert_int_equal(run_all(&rig), 1);
    rig_stop(&rig);
}

static void test_the_models_interval_counts_and_the_servers_changes(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    rig.config.canary_interval_ns = 0;
    assert_int_equal(look(&rig), CLOCK_NEVER);
    turn(&rig, 10 * INTERVAL_NS);
    assert_int_equal(look(&rig), CLOCK_NEVER);
    rig.config.canary_interval_ns = CANARY_INTERVAL_SERVER;
    atomic_store(&rig.canaries.interval_ns, 0);
    assert_int_equal(look(&rig), CLOCK_NEVER);
    atomic_store(&rig.canaries.interval_ns, 1); /* As short as they get. */
    assert_int_equal(look(&rig), clock_now_ns(&rig.clock) + CANARY_INTERVAL_MIN_NS);
    assert_int_equal(canaries(&rig), 0);
    rig_stop(&rig);
}

static void test_a_model_is_ready_once_nobody_wants_to_know(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "fail_at", "1" } };
    struct rig rig;
    rig_start(&rig, settings, 1);
    fail_first(&rig);
    atomic_store(&rig.canaries.interval_ns, 0);
    look(&rig);
    assert_true(is_ready(&rig));
    rig_stop(&rig);
}

static void test_none_is_left_after_a_stop(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, NULL, 0);
    begin_first(&rig);
    canaries_stop(&rig.canaries);
    home_turn(&rig.home);
    assert_int_equal(rig.home.pending, 0);
    turn(&rig, INTERVAL_NS);
    assert_int_equal(look(&rig), CLOCK_NEVER);
    assert_int_equal(canaries(&rig), 1);
    assert_int_equal(canaries_failed(&rig), 0);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_model_gets_one_after_each_interval),
        cmocka_unit_test(test_memory_may_run_out_for_one),
        cmocka_unit_test(test_no_statistics_know_of_it),
        cmocka_unit_test(test_a_model_that_serves_gets_none),
        cmocka_unit_test(test_a_failing_one_makes_the_model_not_ready_until_one_succeeds),
        cmocka_unit_test(test_a_clients_success_is_proof_enough),
        cmocka_unit_test(test_zeros_that_were_never_accepted_tell_nothing),
        cmocka_unit_test(test_one_that_does_not_end_has_failed),
        cmocka_unit_test(test_one_that_could_not_begin_tells_nothing),
        cmocka_unit_test(test_clients_go_first_and_ride_without_it),
        cmocka_unit_test(test_the_models_interval_counts_and_the_servers_changes),
        cmocka_unit_test(test_a_model_is_ready_once_nobody_wants_to_know),
        cmocka_unit_test(test_none_is_left_after_a_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
