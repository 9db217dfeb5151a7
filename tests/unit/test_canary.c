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
#include "engine/canary.h"
#include "engine/catalogue.h"
#include "engine/engine.h"
#include "engine/outage.h"
#include "faults.h"
#include "rig.h"

#define INTERVAL_NS (30 * NS_PER_S)
#define WIDTH 16

struct bed {
    struct rig rig;
    struct io_config input;
    struct canaries canaries;
    struct catalogue *catalogue;
    uint32_t advised;
};

static void on_advice(void *context, const struct model *model, enum log_level level,
                      const char *text)
{
    (void)level;
    (void)model;
    (void)text;
    ((struct bed *)context)->advised++;
}

static void make_catalogue(struct bed *bed)
{
    bed->catalogue = catalogue_create(1, 1);
    assert_non_null(bed->catalogue);
    struct catalogue_entry *entry = catalogue_add(bed->catalogue, "m", NULL, 2);
    assert_non_null(entry);
    const struct catalogue_version versions[] = {
        { .version = 1, .state = MODEL_READY, .model = &bed->rig.model },
        { .version = 2, .state = MODEL_UNAVAILABLE, .reason = "unloaded" },
    };
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(catalogue_add_version(bed->catalogue, entry, &versions[i]), WEIR_OK);
    }
    entry->required = true;
    bed->catalogue->ready = true;
    assert_int_equal(catalogue_seal(bed->catalogue), WEIR_OK);
}

static void start(struct bed *bed, const struct setting *settings, uint32_t setting_count)
{
    memset(bed, 0, sizeof(*bed));
    const struct engine_options options = { .inline_runs = true,
                                            .advise = on_advice,
                                            .advise_context = bed };
    rig_start(&bed->rig, &options);
    bed->input = (struct io_config){ .name = "x", .dims = { 1, { WIDTH } }, .has_dims = true };
    bed->rig.config.canary_interval_ns = CANARY_INTERVAL_SERVER;
    bed->rig.config.inputs = &bed->input;
    bed->rig.config.input_count = 1;
    rig_load(&bed->rig, settings, setting_count);
    rig_adopt(&bed->rig);
    bed->rig.model.canary.proved = true; /* As its load has found. */
    canaries_init(&bed->canaries, bed->rig.engine, &bed->rig.home, INTERVAL_NS);
    make_catalogue(bed);
}

static void stop(struct bed *bed)
{
    catalogue_release(bed->catalogue);
    assert_int_equal(atomic_load(&bed->rig.model.leases), 1);
    rig_stop(&bed->rig);
}

static uint64_t look(struct bed *bed)
{
    const uint64_t next_ns =
        canaries_look(&bed->canaries, bed->catalogue, clock_now_ns(&bed->rig.clock));
    home_turn(&bed->rig.home);
    return next_ns;
}

static bool is_ready(struct bed *bed)
{
    const bool model = outage_check_ready(&bed->rig.model, NULL) == WEIR_OK;
    assert_int_equal(outage_is_ready(bed->rig.engine, bed->catalogue), model);
    return model;
}

/* A model that was just loaded has not been asked for an interval: its first canary begins. */
static void begin_first(struct bed *bed)
{
    look(bed);
    rig_pass(&bed->rig, INTERVAL_NS);
    look(bed);
}

/* And fails. */
static void fail_first(struct bed *bed)
{
    begin_first(bed);
    assert_int_equal(rig_run_all(&bed->rig), 1);
    assert_false(is_ready(bed));
}

static uint64_t canaries(const struct bed *bed)
{
    return atomic_load(&bed->rig.model.stats.canaries);
}

static uint64_t canaries_failed(const struct bed *bed)
{
    return atomic_load(&bed->rig.model.stats.canaries_failed);
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

static void submit(struct bed *bed, struct call *call)
{
    memset(call, 0, sizeof(*call));
    call->input = asking_rows(call->values, 1, WIDTH);
    asking_init(&call->request, &bed->rig.home, &bed->rig.model, &call->input, &call->output);
    call->request.ended = on_end;
    model_acquire(&bed->rig.model);
    assert_int_equal(engine_submit(bed->rig.engine, &call->request, NULL), WEIR_OK);
}

static void serve(struct bed *bed)
{
    struct call call;
    submit(bed, &call);
    home_turn(&bed->rig.home);
    assert_int_equal(rig_run_all(&bed->rig), 1);
    assert_true(call.ended);
    assert_int_equal(call.request.status, WEIR_OK);
}

static void test_an_idle_model_gets_one_after_each_interval(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    assert_int_equal(look(&bed), NS_PER_S + INTERVAL_NS);
    rig_pass(&bed.rig, INTERVAL_NS - 1);
    look(&bed);
    assert_int_equal(rig_run_all(&bed.rig), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        rig_pass(&bed.rig, i == 1 ? 1 : INTERVAL_NS);
        look(&bed);
        assert_int_equal(rig_run_all(&bed.rig), 1);
        assert_int_equal(canaries(&bed), i);
    }
    assert_int_equal(canaries_failed(&bed), 0);
    assert_true(is_ready(&bed));
    assert_int_equal(bed.advised, 0);
    stop(&bed);
}

/* Without memory for one there is none, and one after the next interval. */
static void test_memory_may_run_out_for_one(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    const bool faults = faults_are_built();
    look(&bed);
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth && faults; nth++) {
        rig_pass(&bed.rig, INTERVAL_NS);
        (void)mem_fault_arm(nth);
        look(&bed);
        const uint32_t ran = rig_run_all(&bed.rig);
        made = mem_fault_arm(0);
        assert_true(ran == 1 || made >= nth);
        rig_pass(&bed.rig, INTERVAL_NS);
        look(&bed);
        assert_int_equal(rig_run_all(&bed.rig), 1);
        assert_true(is_ready(&bed));
    }
    stop(&bed);
    if (!faults) {
        skip();
    }
}

static void test_no_statistics_know_of_it(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    begin_first(&bed);
    assert_int_equal(rig_run_all(&bed.rig), 1);
    const struct model_stats *stats = &bed.rig.model.stats;
    assert_int_equal(atomic_load(&stats->inference_count), 0);
    assert_int_equal(atomic_load(&stats->execution_count), 0);
    assert_int_equal(atomic_load(&stats->success.count), 0);
    assert_int_equal(atomic_load(&stats->last_inference_ms), 0);
    assert_int_equal(model_uses(&bed.rig.model), 0);
    assert_int_equal(bed.rig.model.profile.tick, 0);
    assert_int_equal(bed.rig.model.overload.pace.settled_ns, 0); /* Nor what else learns of runs. */
    assert_int_equal(bed.rig.model.overload.try_ns, 0);
    stop(&bed);
}

static void test_a_model_that_serves_gets_none(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    look(&bed);
    for (uint32_t i = 0; i < 5; i++) {
        rig_pass(&bed.rig, INTERVAL_NS - 1);
        serve(&bed);
        look(&bed);
    }
    assert_int_equal(canaries(&bed), 0);
    struct call call; /* One that runs for longer than the interval. */
    submit(&bed, &call);
    home_turn(&bed.rig.home);
    struct instance *instance = rig_pull(&bed.rig);
    assert_non_null(instance);
    rig_pass(&bed.rig, 2 * INTERVAL_NS);
    look(&bed);
    assert_int_equal(canaries(&bed), 0);
    rig_finish(&bed.rig, instance);
    assert_true(call.ended);
    stop(&bed);
}

static void test_a_failing_one_makes_the_model_not_ready_until_one_succeeds(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "fail_at", "2" }, { "fail_to", "3" } };
    struct bed bed;
    start(&bed, settings, 2);
    look(&bed);
    static const bool ready[] = { true, false, false, true };
    for (size_t i = 0; i < sizeof(ready) / sizeof(*ready); i++) {
        rig_pass(&bed.rig, INTERVAL_NS);
        look(&bed);
        assert_int_equal(rig_run_all(&bed.rig), 1);
        assert_int_equal(is_ready(&bed), ready[i]);
        struct weir_err err = { 0 };
        if (!ready[i]) {
            assert_int_equal(outage_check_ready(&bed.rig.model, &err), WEIR_EUNAVAILABLE);
            assert_non_null(strstr(err.text, "canary"));
            assert_non_null(strstr(err.text, "simulated failure"));
            assert_int_equal(outage_check(&bed.rig.model, NULL), WEIR_OK); /* Clients may try. */
        }
    }
    assert_int_equal(canaries_failed(&bed), 2);
    assert_int_equal(bed.advised, 2); /* When it began and when it was over. */
    stop(&bed);
}

static void test_a_clients_success_is_proof_enough(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "fail_at", "1" } };
    struct bed bed;
    start(&bed, settings, 1);
    fail_first(&bed);
    rig_pass(&bed.rig, 1);
    serve(&bed);
    assert_true(is_ready(&bed));
    look(&bed);
    assert_int_equal(bed.advised, 2);
    stop(&bed);
}

static void test_zeros_that_were_never_accepted_tell_nothing(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "poison", "0" } };
    struct bed bed;
    start(&bed, settings, 1);
    bed.rig.model.canary.proved = false;
    look(&bed);
    for (uint32_t i = 0; i < 3; i++) {
        rig_pass(&bed.rig, INTERVAL_NS);
        look(&bed);
        assert_int_equal(rig_run_all(&bed.rig), 1);
        assert_true(is_ready(&bed));
    }
    assert_int_equal(canaries_failed(&bed), 3);
    assert_int_equal(bed.advised, 0);
    stop(&bed);
}

static void test_one_that_does_not_end_has_failed(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    look(&bed);
    rig_pass(&bed.rig, INTERVAL_NS);
    assert_int_equal(look(&bed), clock_now_ns(&bed.rig.clock) + INTERVAL_NS);
    struct instance *instance = rig_pull(&bed.rig);
    assert_non_null(instance);
    rig_pass(&bed.rig, INTERVAL_NS - 1);
    look(&bed);
    assert_true(is_ready(&bed));
    rig_pass(&bed.rig, 1);
    assert_int_equal(look(&bed), CLOCK_NEVER); /* It is waited for. */
    assert_false(is_ready(&bed));
    rig_finish(&bed.rig, instance); /* Terminated. */
    assert_false(is_ready(&bed));
    assert_int_equal(canaries_failed(&bed), 1);
    look(&bed); /* It is due at once, and the model answers again. */
    assert_int_equal(rig_run_all(&bed.rig), 1);
    assert_true(is_ready(&bed));
    stop(&bed);
}

static void test_one_that_could_not_begin_tells_nothing(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    begin_first(&bed);
    rig_pass(&bed.rig, INTERVAL_NS); /* The executors had other things to do. */
    look(&bed);
    assert_true(is_ready(&bed));
    assert_int_equal(canaries_failed(&bed), 0);
    rig_run_all(&bed.rig);
    stop(&bed);
}

static void test_clients_go_first_and_ride_without_it(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    begin_first(&bed);
    struct call call;
    submit(&bed, &call);
    home_turn(&bed.rig.home);
    struct instance *first = rig_pull(&bed.rig);
    rig_finish(&bed.rig, first);
    assert_true(call.ended);
    assert_int_equal(call.request.batch_rows, 1);
    assert_int_equal(bed.rig.home.pending, 1); /* The canary still waits. */
    assert_int_equal(rig_run_all(&bed.rig), 1);
    stop(&bed);
}

static void test_the_models_interval_counts_and_the_servers_changes(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    bed.rig.config.canary_interval_ns = 0;
    assert_int_equal(look(&bed), CLOCK_NEVER);
    rig_pass(&bed.rig, 10 * INTERVAL_NS);
    assert_int_equal(look(&bed), CLOCK_NEVER);
    bed.rig.config.canary_interval_ns = CANARY_INTERVAL_SERVER;
    atomic_store(&bed.canaries.interval_ns, 0);
    assert_int_equal(look(&bed), CLOCK_NEVER);
    atomic_store(&bed.canaries.interval_ns, 1); /* As short as they get. */
    assert_int_equal(look(&bed), clock_now_ns(&bed.rig.clock) + CANARY_INTERVAL_MIN_NS);
    assert_int_equal(canaries(&bed), 0);
    stop(&bed);
}

static void test_a_model_is_ready_once_nobody_wants_to_know(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "fail_at", "1" } };
    struct bed bed;
    start(&bed, settings, 1);
    fail_first(&bed);
    atomic_store(&bed.canaries.interval_ns, 0);
    look(&bed);
    assert_true(is_ready(&bed));
    stop(&bed);
}

static void test_none_is_left_after_a_stop(void **state)
{
    (void)state;
    struct bed bed;
    start(&bed, NULL, 0);
    begin_first(&bed);
    canaries_stop(&bed.canaries);
    home_turn(&bed.rig.home);
    assert_int_equal(bed.rig.home.pending, 0);
    rig_pass(&bed.rig, INTERVAL_NS);
    assert_int_equal(look(&bed), CLOCK_NEVER);
    assert_int_equal(canaries(&bed), 1);
    assert_int_equal(canaries_failed(&bed), 0);
    stop(&bed);
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
