/*
 * What a pool decides, under a clock turned by hand: who rides, who waits, who is refused, and
 * what a home may run itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "asking.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "rig.h"

#define WIDTH 4
#define ROWS_MAX 8

struct call {
    struct request request;
    float values[ROWS_MAX * WIDTH];
    struct tensor inputs[2];
    struct tensor output;
    bool ended;
    bool late;
};

static const struct setting plain[] = { { "tau0", "10us" } };
static const struct setting short_lived[] = { { "tau0", "10us" },
                                              { "short_lived", "true" },
                                              { "inputs", "x:FP32[-1,4]" },
                                              { "outputs", "y:FP32[-1,4]" } };

static bool unleased;

static void on_unleased(struct model *model)
{
    (void)model;
    unleased = true;
}

/* Change the configuration or the signature, then adopt. */
static void start(struct rig *rig, const struct setting *settings, uint32_t setting_count)
{
    static const struct device_options device = { .name = "cpu", .executors = 2 };
    const struct engine_options options = { .devices = &device,
                                            .device_count = 1,
                                            .inline_runs = true };
    rig_start(rig, &options);
    rig_load(rig, settings, setting_count);
    rig->model.unleased = on_unleased;
    unleased = false;
}

static void on_end(struct request *request)
{
    struct call *call = list_entry(request, struct call, request);
    assert_false(call->ended);
    call->ended = true;
    tensor_release(&call->output);
    model_release(request->model);
}

static void on_late(struct request *request)
{
    list_entry(request, struct call, request)->late = true;
}

static void call_make(struct call *call, struct rig *rig, int64_t rows, int64_t width)
{
    memset(call, 0, sizeof(*call));
    call->inputs[0] = asking_rows(call->values, rows, width);
    asking_init(&call->request, &rig->home, &rig->model, call->inputs, &call->output);
    call->request.ended = on_end;
    call->request.late = on_late;
}

static enum weir_status call_submit(struct call *call)
{
    struct model *model = call->request.model;
    model_acquire(model);
    const enum weir_status status = engine_submit(call->request.home->engine, &call->request, NULL);
    if (status != WEIR_OK) {
        model_release(model);
    }
    return status;
}

static void submit_rows(struct call *calls, uint32_t count, struct rig *rig)
{
    for (uint32_t i = 0; i < count; i++) {
        call_make(&calls[i], rig, 1, 16);
        assert_int_equal(call_submit(&calls[i]), WEIR_OK);
    }
}

static void test_a_delay_waits_for_company(void **state)
{
    (void)state;
    struct rig rig;
    struct call calls[ROWS_MAX + 1];
    uint64_t wake_ns = 0;
    start(&rig, plain, 1);
    rig.config.queue_delay_ns = NS_PER_MS;
    rig_adopt(&rig);
    submit_rows(calls, 1, &rig);
    assert_null(pool_pull(rig.model.pool, clock_now_ns(&rig.clock), &wake_ns));
    assert_int_equal(wake_ns, clock_now_ns(&rig.clock) + NS_PER_MS);
    clock_turn(&rig.clock, wake_ns);
    struct instance *instance = rig_pull(&rig);
    assert_non_null(instance);
    assert_int_equal(instance->batch.count, 1);
    rig_finish(&rig, instance);

    submit_rows(calls, ROWS_MAX + 1, &rig); /* A full batch does not wait, what is left does. */
    instance = rig_pull(&rig);
    assert_non_null(instance);
    assert_int_equal(instance->batch.count, ROWS_MAX);
    rig_finish(&rig, instance);
    assert_null(rig_pull(&rig));
    rig_pass(&rig, NS_PER_MS);
    rig_run_all(&rig);
    assert_true(calls[ROWS_MAX].ended);
    rig_stop(&rig);
}

/* Riders of the first batch of eight requests while another executor sleeps. */
static uint32_t riders(const struct model_config *change)
{
    struct rig rig;
    struct call calls[ROWS_MAX];
    start(&rig, plain, 1);
    rig.config.instances = change->instances;
    rig.config.preferred_count = change->preferred_count;
    rig.config.preferred[0] = change->preferred[0];
    rig_adopt(&rig);
    submit_rows(calls, ROWS_MAX, &rig);
    rig.model.pool->idle_count = 1;
    struct instance *instance = rig_pull(&rig);
    rig.model.pool->idle_count = 0;
    assert_non_null(instance);
    const uint32_t count = instance->batch.count;
    rig_finish(&rig, instance);
    rig_run_all(&rig);
    rig_stop(&rig);
    return count;
}

static void test_executors_share_what_waits(void **state)
{
    (void)state;
    assert_int_equal(riders(&(struct model_config){ .instances = 0 }), ROWS_MAX / 2);
    /* Nobody else may run it, or somebody wants batches of a size. */
    assert_int_equal(riders(&(struct model_config){ .instances = 1 }), ROWS_MAX);
    assert_int_equal(riders(&(struct model_config){ .preferred = { 8 }, .preferred_count = 1 }), 8);
}

static void test_bytes_in_line_are_limited_behind_a_large_request(void **state)
{
    (void)state;
    struct rig rig;
    struct call large;
    struct call small;
    start(&rig, short_lived, 4);
    rig.limits.queue_bytes_max = 100;
    rig_adopt(&rig);
    call_make(&large, &rig, ROWS_MAX, WIDTH); /* 128 bytes: alone it may. */
    call_make(&small, &rig, 1, WIDTH);
    assert_int_equal(call_submit(&large), WEIR_OK);
    assert_int_equal(call_submit(&small), WEIR_EFULL);
    rig_run_all(&rig);
    assert_int_equal(call_submit(&small), WEIR_OK);
    rig_run_all(&rig);
    rig_stop(&rig);
}

/* Teaches the model's time with runs of one row. */
static void learn(struct rig *rig)
{
    for (int i = 0; i < PROFILE_OBSERVED_MIN + 1; i++) {
        struct call call;
        call_make(&call, rig, 1, WIDTH);
        assert_int_equal(call_submit(&call), WEIR_OK);
        rig_run_all(rig);
        home_turn(&rig->home);
        assert_true(call.ended);
    }
}

static void test_when_an_executor_will_be_free_is_known(void **state)
{
    (void)state;
    struct rig rig;
    struct call calls[2];
    struct instance *runs[2];
    start(&rig, plain, 1);
    rig_adopt(&rig);
    assert_int_equal(home_taken(&rig.home).until_ns, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(home_taken(&rig.home).until_ns, 0); /* Of two, one is free. */
        submit_rows(&calls[i], 1, &rig);
        runs[i] = rig_pull(&rig);
        assert_non_null(runs[i]);
    }
    /* Nobody knows how long such runs take. */
    assert_true(home_taken(&rig.home).until_ns <= clock_now_ns(&rig.clock));
    rig_finish(&rig, runs[0]);
    assert_int_equal(home_taken(&rig.home).until_ns, 0);
    rig_finish(&rig, runs[1]);
    for (int i = 0; i < PROFILE_OBSERVED_MIN; i++) {
        submit_rows(calls, 1, &rig);
        rig_run_all(&rig);
        home_turn(&rig.home);
    }
    const uint64_t begun_ns = clock_now_ns(&rig.clock);
    for (int i = 0; i < 2; i++) {
        submit_rows(&calls[i], 1, &rig);
        runs[i] = rig_pull(&rig);
        rig_pass(&rig, i == 0 ? NS_PER_US : 0);
    }
    assert_in_range(home_taken(&rig.home).until_ns, begun_ns + 10 * NS_PER_US,
                    begun_ns + NS_PER_MS);
    rig.model.pool->cpu_count = 3;
    assert_false(pool_is_crowded(rig.model.pool, 1));
    assert_true(pool_is_crowded(rig.model.pool, 2));
    rig_finish(&rig, runs[0]);
    rig_finish(&rig, runs[1]);
    rig_stop(&rig);
}

/* What a run takes is known, and is short. */
static void start_short_lived(struct rig *rig)
{
    start(rig, short_lived, 4);
    rig_adopt(rig);
    learn(rig);
}

static void submit_row(struct call *call, struct rig *rig)
{
    call_make(call, rig, 1, WIDTH);
    assert_int_equal(call_submit(call), WEIR_OK);
}

static void test_a_home_runs_short_work_of_known_size_only(void **state)
{
    (void)state;
    struct rig rig;
    struct call call;
    start_short_lived(&rig);
    submit_row(&call, &rig);
    home_turn(&rig.home);
    assert_true(call.ended);
    assert_int_equal(call.request.status, WEIR_OK);

    call_make(&call, &rig, ROWS_MAX, WIDTH); /* Nobody knows what a row costs. */
    assert_int_equal(call_submit(&call), WEIR_OK);
    home_turn(&rig.home);
    assert_false(call.ended);
    rig_run_all(&rig);
    assert_true(call.ended);
    rig_stop(&rig);
}

static void test_a_home_keeps_the_model_it_promised_to_run(void **state)
{
    (void)state;
    struct rig rig;
    struct call call;
    start_short_lived(&rig);
    submit_row(&call, &rig);
    assert_ptr_equal(rig.model.inline_home, &rig.home);
    model_release(&rig.model); /* It is unloaded; the request's lease is the last. */
    engine_cancel(rig.engine, &call.request);
    struct mail *mail = mailbox_receive(&rig.home.mailbox);
    assert_non_null(mail);
    struct home_mail *message = list_entry(mail, struct home_mail, mail);
    message->deliver(message);
    assert_true(call.ended);
    assert_false(unleased); /* The home has not looked at its line yet. */
    home_turn(&rig.home);
    assert_true(unleased);
    assert_null(rig.model.inline_home);
    rig_stop(&rig);
}

static uint64_t inline_runs(const struct rig *rig)
{
    return atomic_load(&rig->model.stats.inline_runs);
}

static void test_runs_that_a_home_makes_are_counted(void **state)
{
    (void)state;
    struct rig rig;
    struct call call;
    start_short_lived(&rig);
    const uint64_t runs = atomic_load(&rig.model.stats.execution_count);
    const uint64_t before = inline_runs(&rig);
    assert_true(before < runs); /* An executor made those of unknown length. */
    submit_row(&call, &rig);
    home_turn(&rig.home);
    assert_true(call.ended);
    assert_int_equal(inline_runs(&rig), before + 1);
    assert_int_equal(atomic_load(&rig.model.stats.execution_count), runs + 1);
    rig_stop(&rig);
}

static void test_a_canceled_run_is_not_late(void **state)
{
    (void)state;
    struct rig rig;
    struct call call;
    start(&rig, plain, 1);
    rig_adopt(&rig);
    call_make(&call, &rig, 1, 16);
    call.request.deadline_ns = clock_now_ns(&rig.clock) + NS_PER_MS;
    assert_int_equal(call_submit(&call), WEIR_OK);
    struct instance *instance = rig_pull(&rig);
    assert_non_null(instance);
    engine_cancel(rig.engine, &call.request);
    clock_turn(&rig.clock, call.request.deadline_ns);
    home_turn(&rig.home);
    assert_false(call.late);
    rig_finish(&rig, instance);
    assert_true(call.ended);
    assert_int_equal(call.request.status, WEIR_ECANCELED);
    rig_stop(&rig);
}

static void test_requests_with_and_without_an_optional_input_ride_apart(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "inputs", "x:FP32[-1,4] n:FP32[-1]" },
                                               { "outputs", "y:FP32[-1,4]" } };
    struct rig rig;
    struct call calls[2];
    start(&rig, settings, 2);
    rig.model.signature->inputs[1].optional = true;
    rig_adopt(&rig);
    for (int i = 0; i < 2; i++) {
        call_make(&calls[i], &rig, 1, WIDTH);
    }
    calls[1].inputs[1] = (struct tensor){ .dtype = DTYPE_FP32,
                                          .present = true,
                                          .shape = { 1, { 1 } },
                                          .data = (uint8_t *)calls[1].values,
                                          .size = sizeof(float) };
    assert_int_equal(call_submit(&calls[0]), WEIR_OK);
    assert_int_equal(call_submit(&calls[1]), WEIR_OK);
    struct instance *instance = rig_pull(&rig);
    assert_non_null(instance);
    assert_int_equal(instance->batch.count, 1);
    rig_finish(&rig, instance);
    rig_run_all(&rig);
    rig_stop(&rig);
}

static void test_runs_without_batching_count_once(void **state)
{
    (void)state;
    struct rig rig;
    struct call call;
    start(&rig, short_lived, 4);
    rig.config.max_batch_size = 0;
    rig.model.batching = false;
    rig_adopt(&rig);
    call_make(&call, &rig, 5, WIDTH); /* Five of something, but one inference. */
    assert_int_equal(call_submit(&call), WEIR_OK);
    rig_run_all(&rig);
    assert_int_equal(call.request.status, WEIR_OK);
    assert_int_equal(rig.model.stats.inference_count, 1);
    assert_int_equal(rig.model.stats.batches[1].compute.count, 1);
    rig_stop(&rig);
}

static void test_requests_of_one_run_count_each(void **state)
{
    (void)state;
    struct rig rig;
    struct call calls[4];
    const struct model_stats *stats = &rig.model.stats;
    start(&rig, plain, 1);
    rig_adopt(&rig);
    for (uint32_t i = 0; i < 4; i++) { /* A millisecond after each other. */
        submit_rows(&calls[i], 1, &rig);
        rig_pass(&rig, NS_PER_MS);
    }
    rig_run_all(&rig);
    const uint64_t run_ns = calls[0].request.times.computed_ns - calls[0].request.times.taken_ns;
    assert_int_equal(stats->batches[4].compute.count, 1);
    assert_int_equal(stats->batches[4].compute.ns, run_ns);
    assert_int_equal(stats->inference_count, 4);
    assert_int_equal(stats->compute.count, 4);
    assert_int_equal(stats->compute.ns, 4 * run_ns);
    assert_int_equal(stats->queue.ns, (4 + 3 + 2 + 1) * NS_PER_MS);
    assert_int_equal(stats->success.count, 4);
    assert_int_equal(stats->success.ns, stats->queue.ns + stats->compute.ns);
    assert_int_equal(histogram_count(&stats->queue_time), 4);
    assert_int_equal(histogram_count(&stats->gather_time), 4);
    assert_int_equal(histogram_count(&stats->compute_time), 4);
    assert_int_equal(histogram_count(&stats->total_time), 4);
    rig_stop(&rig);
}

static void test_who_takes_no_parts_is_refused_by_a_model_that_streams(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "parts", "3" } };
    struct rig rig;
    struct call call;
    start(&rig, settings, 1);
    rig_adopt(&rig);
    call_make(&call, &rig, 1, 16);
    assert_int_equal(call_submit(&call), WEIR_EINVAL);
    rig_stop(&rig);
}

static void test_who_wants_no_output_is_refused(void **state)
{
    (void)state;
    static const bool none = false;
    struct rig rig;
    struct call call;
    start(&rig, plain, 1);
    rig_adopt(&rig);
    call_make(&call, &rig, 1, 16);
    call.request.wanted = &none;
    assert_int_equal(call_submit(&call), WEIR_EINVAL);
    rig_stop(&rig);
}

static void test_the_configuration_may_allow_less_than_the_model(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "inputs", "x:FP32[-1,-1]" },
                                               { "outputs", "y:FP32[-1,-1]" } };
    struct io_config input = { .name = "x", .dims = { 1, { WIDTH } }, .has_dims = true };
    struct weir_err err = { 0 };
    struct rig rig;
    struct call call;
    start(&rig, settings, 2);
    rig.config.inputs = &input;
    rig.config.input_count = 1;
    rig_adopt(&rig);
    call_make(&call, &rig, 1, WIDTH + 1);
    assert_int_equal(engine_submit(rig.engine, &call.request, &err), WEIR_EINVAL);
    assert_string_equal(err.text,
                        "input 'x' has shape [1,5], expected [-1,4] by its configuration");
    call_make(&call, &rig, 2, WIDTH);
    assert_int_equal(call_submit(&call), WEIR_OK);
    rig_run_all(&rig);
    assert_true(call.ended);
    rig_stop(&rig);
}

/* Level 1 first, then in order of arrival; what names no level of the model has its default. */
static void test_levels(void **state)
{
    (void)state;
    static const uint32_t asked[] = { 3, 0, 1, 2, 99, 1 };
    static const uint32_t order[] = { 2, 5, 1, 3, 4, 0 };
    struct rig rig;
    struct call calls[6];
    start(&rig, plain, 1);
    rig.config.max_batch_size = 1;
    rig.config.priority_levels = 3;
    rig.config.priority_default = 2;
    rig_adopt(&rig);
    for (size_t i = 0; i < 6; i++) {
        call_make(&calls[i], &rig, 1, 16);
        calls[i].request.priority = asked[i];
        assert_int_equal(call_submit(&calls[i]), WEIR_OK);
    }
    for (size_t i = 0; i < 6; i++) {
        struct instance *instance = rig_pull(&rig);
        assert_ptr_equal(list_first(&instance->batch.members), &calls[order[i]].request.line);
        rig_finish(&rig, instance);
    }
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_delay_waits_for_company),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_executors_share_what_waits),
        cmocka_unit_test(test_bytes_in_line_are_limited_behind_a_large_request),
        cmocka_unit_test(test_when_an_executor_will_be_free_is_known),
        cmocka_unit_test(test_a_home_runs_short_work_of_known_size_only),
        cmocka_unit_test(test_a_home_keeps_the_model_it_promised_to_run),
        cmocka_unit_test(test_runs_that_a_home_makes_are_counted),
        cmocka_unit_test(test_a_canceled_run_is_not_late),
        cmocka_unit_test(test_requests_with_and_without_an_optional_input_ride_apart),
        cmocka_unit_test(test_runs_without_batching_count_once),
        cmocka_unit_test(test_requests_of_one_run_count_each),
        cmocka_unit_test(test_who_wants_no_output_is_refused),
        cmocka_unit_test(test_the_configuration_may_allow_less_than_the_model),
        cmocka_unit_test(test_who_takes_no_parts_is_refused_by_a_model_that_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
