#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend/backend.h"
#include "backend/sim.h"
#include "ride.h"
#include "util/mem.h"

static struct clock hand; /* Turned by the tests. */
static struct block_pool *pool;

/* A model under the manual clock, and a context of it. */
static struct backend_context *load(const struct setting *settings)
{
    return ride_context(ride_load(settings, &hand, pool, NULL));
}

static struct backend_model *model_of(struct backend_context *context)
{
    return *(struct backend_model **)context; /* Its first member; see backend_impl.h. */
}

static void unload(struct backend_context *context)
{
    struct backend_model *model = model_of(context);
    backend_context_destroy(context);
    backend_unload(model);
}

static void test_a_run_echoes_and_costs_what_it_should(void **state)
{
    (void)state;
    const struct setting settings[] = { { "tau0", "3ms" }, { "alpha", "200us" }, { 0 } };
    struct backend_context *context = load(settings);
    struct ride t = { 0 };
    clock_init_manual(&hand, 5 * NS_PER_S);
    assert_int_equal(ride_rows(&t, context, 4), WEIR_OK);
    assert_int_equal(t.run.virtual_end_ns, 5 * NS_PER_S + 3800 * NS_PER_US);
    assert_true(shape_equal(&t.output.shape, &t.input.shape));
    assert_int_equal(t.output.size, t.input.size);
    assert_memory_equal(t.output.data, t.data, t.input.size);
    tensor_release(&t.output);
    unload(context);
}

static void test_host_parts_do_not_hold_the_device(void **state)
{
    (void)state;
    const struct setting settings[] = {
        { "tau0", "2600us" }, { "prepare", "200us" }, { "finish", "200us" }, { 0 }
    };
    struct backend_context *first = load(settings);
    struct backend_context *second = NULL;
    assert_int_equal(backend_context_create(model_of(first), &second, NULL), WEIR_OK);
    struct ride a = { 0 };
    struct ride b = { 0 };
    clock_init_manual(&hand, NS_PER_S);
    assert_int_equal(ride_rows(&a, first, 1), WEIR_OK);
    assert_int_equal(ride_rows(&b, second, 1), WEIR_OK);
    assert_int_equal(a.run.virtual_end_ns, NS_PER_S + 3000 * NS_PER_US);
    /* The second prepared meanwhile, and ran as soon as the device was free. */
    assert_int_equal(b.run.virtual_end_ns, NS_PER_S + (200 + 2600 + 2600 + 200) * NS_PER_US);
    tensor_release(&a.output);
    tensor_release(&b.output);
    backend_context_destroy(second);
    unload(first);
}

static void test_runs_of_a_device_follow_each_other(void **state)
{
    (void)state;
    const struct setting settings[] = { { "tau0", "1ms" }, { 0 } };
    struct backend_context *one = load(settings);
    struct backend_context *other = load(settings); /* Another model, the same device. */
    struct ride a = { 0 };
    struct ride b = { 0 };
    clock_init_manual(&hand, NS_PER_S);
    assert_int_equal(ride_rows(&a, one, 1), WEIR_OK);
    assert_int_equal(ride_rows(&b, other, 1), WEIR_OK);
    assert_int_equal(b.run.virtual_end_ns, a.run.virtual_end_ns + NS_PER_MS);

    /* Whoever wakes late, the next run starts where the last one ended ... */
    clock_turn(&hand, a.run.virtual_end_ns + 70 * NS_PER_US);
    assert_int_equal(ride_rows(&a, one, 1), WEIR_OK);
    assert_int_equal(a.run.virtual_end_ns, b.run.virtual_end_ns + NS_PER_MS);
    /* ... unless the device was idle. */
    clock_turn(&hand, 2 * NS_PER_S);
    assert_int_equal(ride_rows(&a, one, 1), WEIR_OK);
    assert_int_equal(a.run.virtual_end_ns, 2 * NS_PER_S + NS_PER_MS);
    tensor_release(&a.output);
    tensor_release(&b.output);
    unload(one);
    unload(other);
}

static void test_contexts_run_side_by_side_when_not_exclusive(void **state)
{
    (void)state;
    const struct setting settings[] = { { "tau0", "1ms" }, { "exclusive", "false" }, { 0 } };
    struct backend_context *one = load(settings);
    struct backend_context *other = load(settings);
    struct ride a = { 0 };
    struct ride b = { 0 };
    clock_init_manual(&hand, NS_PER_S);
    assert_int_equal(ride_rows(&a, one, 1), WEIR_OK);
    assert_int_equal(ride_rows(&b, other, 1), WEIR_OK);
    assert_int_equal(a.run.virtual_end_ns, NS_PER_S + NS_PER_MS);
    assert_int_equal(b.run.virtual_end_ns, NS_PER_S + NS_PER_MS);
    tensor_release(&a.output);
    tensor_release(&b.output);
    unload(one);
    unload(other);
}

static void test_jitter_is_bounded_and_repeatable(void **state)
{
    (void)state;
    const struct setting settings[] = {
        { "tau0", "1ms" }, { "jitter", "0.25" }, { "seed", "7" }, { 0 }
    };
    uint64_t costs[2][200];
    uint64_t lowest = UINT64_MAX;
    uint64_t highest = 0;
    for (size_t round = 0; round < 2; round++) {
        struct backend_context *context = load(settings);
        struct ride t = { 0 };
        clock_init_manual(&hand, NS_PER_S);
        uint64_t before = NS_PER_S;
        for (size_t i = 0; i < 200; i++) {
            assert_int_equal(ride_rows(&t, context, 1), WEIR_OK);
            costs[round][i] = t.run.virtual_end_ns - before;
            before = t.run.virtual_end_ns;
            lowest = costs[round][i] < lowest ? costs[round][i] : lowest;
            highest = costs[round][i] > highest ? costs[round][i] : highest;
        }
        tensor_release(&t.output);
        unload(context);
    }
    assert_memory_equal(costs[0], costs[1], sizeof(costs[0]));
    assert_true(lowest >= 750 * NS_PER_US && lowest < 800 * NS_PER_US);
    assert_true(highest <= 1250 * NS_PER_US && highest > 1200 * NS_PER_US);
}

static void test_signatures_are_what_is_declared(void **state)
{
    (void)state;
    const struct setting settings[] = {
        { "inputs", "a:FP32[-1,2] b:BYTES[-1] c:INT64[]" },
        { "outputs", " same:FP32[-1,2]  text:BYTES[-1] other:FP16[-1,3] " },
        { "short_lived", "true" },
        { "memory_per_model", "1MiB" },
        { 0 },
    };
    struct backend_context *context = load(settings);
    const struct signature *signature = backend_signature(model_of(context));
    assert_int_equal(signature->input_count, 3);
    assert_int_equal(signature->output_count, 3);
    assert_string_equal(signature->inputs[1].name, "b");
    assert_int_equal(signature->inputs[2].shape.rank, 0);
    assert_true(shape_equal(&signature->outputs[2].shape, &(struct shape){ 2, { -1, 3 } }));
    assert_true(signature->short_lived);
    assert_false(signature->streams);
    assert_int_equal(signature->weights_bytes, 1 << 20);

    float a[4] = { 1, 2, 3, 4 };
    static const char text[] = "\1\0\0\0x\0\0\0\0";
    int64_t c = 9;
    const struct tensor inputs[] = {
        { .dtype = DTYPE_FP32,
          .shape = { 2, { 2, 2 } },
          .data = (uint8_t *)a,
          .size = sizeof(a),
          .present = true },
        { .dtype = DTYPE_BYTES,
          .shape = { 1, { 2 } },
          .data = (uint8_t *)(uintptr_t)text,
          .size = sizeof(text) - 1,
          .present = true },
        { .dtype = DTYPE_INT64, .data = (uint8_t *)&c, .size = sizeof(c), .present = true },
    };
    struct tensor outputs[3] = { 0 };
    struct backend_run run = {
        .rows = 2, .inputs = inputs, .outputs = outputs, .wanted = ride_wanted
    };
    assert_int_equal(backend_run(context, &run, NULL), WEIR_OK);
    assert_memory_equal(outputs[0].data, a, sizeof(a));
    assert_int_equal(outputs[1].size, sizeof(text) - 1);
    assert_memory_equal(outputs[1].data, text, sizeof(text) - 1);
    assert_int_equal(outputs[2].dtype, DTYPE_FP16);
    for (size_t i = 0; i < 3; i++) {
        tensor_release(&outputs[i]);
    }
    unload(context);
}

static void expect_refused(const char *key, const char *value, const char *part)
{
    const struct setting settings[] = { { key, value }, { 0 } };
    struct backend_model *model = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(ride_try_load(settings, &hand, pool, NULL, &model, &err), WEIR_EINVAL);
    if (strstr(err.text, part) == NULL) {
        fail_msg("'%s' lacks '%s'", err.text, part);
    }
    assert_non_null(strstr(err.text, "model 's' version 3"));
}

static void test_wrong_settings_are_named(void **state)
{
    (void)state;
    expect_refused("tao0", "1ms", "unknown setting 'tao0'; a simulated model has: tau0, alpha");
    expect_refused("tau0", "1", "setting 'tau0' is '1', expected a duration");
    expect_refused("jitter", "1.5", "setting 'jitter' is '1.5', expected a number from 0 to 1");
    expect_refused("jitter", "nan", "expected a number");
    expect_refused("parts", "-1", "expected a whole number");
    expect_refused("exclusive", "yes", "expected true or false");
    expect_refused("memory_max", "lots", "expected a size");
    expect_refused("inputs", "x:FP33[1]", "'x:FP33[1]' is no tensor");
    expect_refused("inputs", "x", "is no tensor");
    expect_refused("inputs", ":FP32[1]", "is no tensor");
    expect_refused("inputs", "x:FP32[1,]", "is no tensor");
    expect_refused("inputs", "x:FP32[-2]", "is no tensor");
    expect_refused("inputs", "x:FP32[1]y", "is no tensor");
    expect_refused("outputs", "", "empty");
    expect_refused("load_fails", "weights are for another chip", "weights are for another chip");
}

static void test_contexts_are_limited_per_device(void **state)
{
    (void)state;
    const struct setting settings[] = { { "contexts_max", "2" }, { 0 } };
    struct backend_context *one = load(settings);
    struct backend_context *other = load(settings);
    struct backend_context *third = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(backend_context_create(model_of(one), &third, &err), WEIR_ECONFLICT);
    assert_non_null(strstr(err.text, "device 'npu0' has no context left: contexts_max is 2"));
    assert_null(third);
    unload(other);
    assert_int_equal(backend_context_create(model_of(one), &third, NULL), WEIR_OK);
    backend_context_destroy(third);
    unload(one);
}

static void test_memory_is_limited_per_device(void **state)
{
    (void)state;
    const struct setting settings[] = { { "memory_max", "100MiB" },
                                        { "memory_per_model", "40MiB" },
                                        { "memory_per_row", "1MiB" },
                                        { 0 } };
    struct backend_context *one = load(settings);
    struct backend_context *other = load(settings);
    struct backend_model *third = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(ride_try_load(settings, &hand, pool, NULL, &third, &err), WEIR_ENOMEM);
    assert_non_null(strstr(err.text, "device 'npu0'"));
    struct ride t = { 0 };
    assert_int_equal(ride_rows(&t, one, 20), WEIR_OK);
    assert_int_equal(ride_rows(&t, one, 21), WEIR_ENOMEM);
    assert_int_equal(ride_rows(&t, one, 20), WEIR_OK);
    unload(other);
    assert_int_equal(ride_rows(&t, one, 21), WEIR_OK);
    tensor_release(&t.output);
    unload(one);
}

static void test_faults_happen_where_planned(void **state)
{
    (void)state;
    const struct setting settings[] = {
        { "fail_at", "2" },
        { "fail_above_rows", "16" },
        { "oom_above_rows", "8" },
        { "poison", "37" },
        { 0 },
    };
    struct backend_context *context = load(settings);
    struct ride t = { 0 };
    assert_int_equal(ride_rows(&t, context, 1), WEIR_OK);
    assert_int_equal(ride_rows(&t, context, 1), WEIR_EBACKEND);
    assert_non_null(strstr(t.err.text, "run 2"));
    assert_int_equal(ride_rows(&t, context, 1), WEIR_OK);
    assert_int_equal(ride_rows(&t, context, 9), WEIR_ENOMEM);
    assert_int_equal(ride_rows(&t, context, 17), WEIR_EBACKEND);
    assert_int_equal(ride_rows(&t, context, 2), WEIR_OK);     /* Numbers up to 31. */
    assert_int_equal(ride_rows(&t, context, 3), WEIR_EINVAL); /* 37 is in the third row. */
    tensor_release(&t.output);
    unload(context);
}

static void test_rows_can_be_made_to_depend_on_each_other(void **state)
{
    (void)state;
    const struct setting settings[] = { { "mixes_rows", "true" }, { 0 } };
    struct backend_context *context = load(settings);
    struct ride t = { 0 };
    float first[2];
    for (uint64_t rows = 1; rows <= 2; rows++) {
        assert_int_equal(ride_rows(&t, context, rows), WEIR_OK);
        memcpy(&first[rows - 1], t.output.data, sizeof(float));
    }
    assert_true(first[0] != first[1]);
    tensor_release(&t.output);
    unload(context);
}

/* --- Parts ------------------------------------------------------------------------------------ */

static unsigned parts_seen;
static unsigned parts_wanted;
static uint64_t part_ends_ns[8];

static enum weir_status take_part(struct backend_run *run)
{
    assert_true(run->outputs[0].present);
    part_ends_ns[parts_seen++] = run->virtual_end_ns;
    tensor_release(&run->outputs[0]);
    return parts_seen == parts_wanted ? WEIR_ECANCELED : WEIR_OK;
}

static void test_parts_stream_until_nobody_listens(void **state)
{
    (void)state;
    const struct setting settings[] = { { "tau0", "4ms" }, { "parts", "4" }, { 0 } };
    struct backend_context *context = load(settings);
    assert_true(backend_signature(model_of(context))->streams);
    float data[RIDE_WIDTH] = { 1 };
    const struct tensor input = { .dtype = DTYPE_FP32,
                                  .shape = { 2, { 1, RIDE_WIDTH } },
                                  .data = (uint8_t *)data,
                                  .size = sizeof(data),
                                  .present = true };
    struct tensor output = { 0 };
    struct backend_run run = {
        .rows = 1, .inputs = &input, .outputs = &output, .wanted = ride_wanted, .part = take_part
    };
    clock_init_manual(&hand, NS_PER_S);
    parts_seen = 0;
    parts_wanted = 0;
    assert_int_equal(backend_run(context, &run, NULL), WEIR_OK);
    assert_int_equal(parts_seen, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(part_ends_ns[i], NS_PER_S + (i + 1) * NS_PER_MS);
    }
    assert_false(output.present);

    parts_seen = 0;
    parts_wanted = 2;
    assert_int_equal(backend_run(context, &run, NULL), WEIR_ECANCELED);
    assert_int_equal(parts_seen, 2);
    unload(context);
}

/* --- Waiting, on a real clock ----------------------------------------------------------------- */

struct waiter {
    struct backend_context *context;
    struct ride t;
    enum weir_status status;
};

static void *wait_for_run(void *argument)
{
    struct waiter *w = argument;
    w->status = ride_rows(&w->t, w->context, 1);
    return NULL;
}

/* The device has time for another model. */
static void expect_free(const struct clock *real)
{
    const struct setting settings[] = { { "tau0", "1us" }, { 0 } };
    struct backend_model *model = NULL;
    struct backend_context *context = NULL;
    struct ride t = { 0 };
    assert_int_equal(ride_try_load(settings, real, pool, NULL, &model, NULL), WEIR_OK);
    assert_int_equal(backend_context_create(model, &context, NULL), WEIR_OK);
    assert_int_equal(ride_rows(&t, context, 1), WEIR_OK);
    tensor_release(&t.output);
    unload(context);
}

/* The run cannot end by itself within the test's time. */
static void expect_stopped(const char *key, const char *value)
{
    struct clock real;
    clock_init(&real);
    const struct setting settings[] = { { key, value }, { 0 } };
    struct backend_model *model = NULL;
    struct waiter *w = calloc(1, sizeof(*w));
    assert_int_equal(ride_try_load(settings, &real, pool, NULL, &model, NULL), WEIR_OK);
    assert_int_equal(backend_context_create(model, &w->context, NULL), WEIR_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_run, w), 0);
    backend_terminate(w->context);
    pthread_join(thread, NULL);
    assert_int_equal(w->status, WEIR_ECANCELED);
    backend_rearm(w->context);
    expect_free(&real);
    unload(w->context);
    free(w);
}

static void test_waiting_ends_when_terminated(void **state)
{
    (void)state;
    expect_stopped("tau0", "1000s"); /* In vain, another one would wait for its end. */
    expect_stopped("prepare", "1000s");
    expect_stopped("hang_at", "1");
}

static void test_a_real_clock_is_waited_for(void **state)
{
    (void)state;
    struct clock real;
    clock_init(&real);
    const struct setting settings[] = { { "tau0", "3ms" }, { "finish", "1ms" }, { 0 } };
    struct backend_model *model = NULL;
    struct backend_context *context = NULL;
    struct ride t = { 0 };
    assert_int_equal(ride_try_load(settings, &real, pool, NULL, &model, NULL), WEIR_OK);
    assert_int_equal(backend_context_create(model, &context, NULL), WEIR_OK);
    const uint64_t start_ns = clock_now_ns(&real);
    assert_int_equal(ride_rows(&t, context, 1), WEIR_OK);
    assert_true(clock_now_ns(&real) - start_ns >= 4 * NS_PER_MS);
    tensor_release(&t.output);
    unload(context);
}

static void test_a_crash_is_a_crash(void **state)
{
    (void)state;
    const struct setting settings[] = { { "crash_at", "2" }, { 0 } };
    struct backend_context *context = load(settings);
    struct ride t = { 0 };
    assert_int_equal(ride_rows(&t, context, 1), WEIR_OK);
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        (void)ride_rows(&t, context, 1);
        _exit(0);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT);
    tensor_release(&t.output);
    unload(context);
}

static void test_memory_running_out_is_reported(void **state)
{
    (void)state;
#ifdef WEIR_ALLOC_FAULT
    const struct setting settings[] = { { "memory_per_model", "1MiB" }, { 0 } };
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; status != WEIR_OK; nth++) {
        struct backend_model *model = NULL;
        struct backend_context *context = NULL;
        mem_fault_arm(nth);
        status = ride_try_load(settings, &hand, pool, NULL, &model, NULL);
        if (status == WEIR_OK) {
            status = backend_context_create(model, &context, NULL);
            backend_context_destroy(context);
            backend_unload(model);
        }
        mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        assert_true(nth < 100);
    }
#else
    skip();
#endif
}

static int set_up(void **state)
{
    (void)state;
    clock_init_manual(&hand, 0);
    pool = block_pool_create(1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    block_pool_destroy(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_echoes_and_costs_what_it_should),
        cmocka_unit_test(test_host_parts_do_not_hold_the_device),
        cmocka_unit_test(test_runs_of_a_device_follow_each_other),
        cmocka_unit_test(test_contexts_run_side_by_side_when_not_exclusive),
        cmocka_unit_test(test_jitter_is_bounded_and_repeatable),
        cmocka_unit_test(test_signatures_are_what_is_declared),
        cmocka_unit_test(test_wrong_settings_are_named),
        cmocka_unit_test(test_contexts_are_limited_per_device),
        cmocka_unit_test(test_memory_is_limited_per_device),
        cmocka_unit_test(test_faults_happen_where_planned),
        cmocka_unit_test(test_rows_can_be_made_to_depend_on_each_other),
        cmocka_unit_test(test_parts_stream_until_nobody_listens),
        cmocka_unit_test(test_waiting_ends_when_terminated),
        cmocka_unit_test(test_a_real_clock_is_waited_for),
        cmocka_unit_test(test_a_crash_is_a_crash),
        cmocka_unit_test(test_memory_running_out_is_reported),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
