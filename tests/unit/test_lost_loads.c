/*
 * A load in this process that does not come back is written off: others are loaded meanwhile, and
 * what comes of it later is given back.  Here the loader is held where it reads the model's
 * configuration.  So is what a loader does with a model that serves or goes: here it is held in the
 * backend.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend_impl.h"
#include "backend/sim.h"
#include "engine/model.h"
#include "engine/worker.h"
#include "model_bed.h"
#include "server/modelconfig.h"

static struct model_bed bed;

/* The loader reads a configuration once to ask for the memory that the model needs, and once to
 * load it.  Only where the first reading is held may the limit be short: a busy machine would
 * exceed it with one that is to pass. */
#define SHORT_LIMIT "load_limit: 50ms\n"
#define LIMIT "load_limit: 1s\n"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Readings of the configuration of the model "stuck" from now on: these go on, */
    uint32_t to_pass;
    uint32_t to_hold; /* and then these are held. */
    uint32_t held;
} gate = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0 };

static bool on_loader(void)
{
    char name[16] = "";
    (void)pthread_getname_np(pthread_self(), name, sizeof(name));
    return strcmp(name, "weir-loader") == 0;
}

/* The calling thread is held here until it is let go; lock held. */
static void wait_at_gate(void)
{
    gate.to_hold--;
    gate.held++;
    while (gate.held > 0) {
        pthread_cond_wait(&gate.changed, &gate.lock);
    }
}

static enum weir_status configure(void *context, const char *name, int folder_fd,
                                  const char *override, struct model_config **out,
                                  struct weir_err *err)
{
    pthread_mutex_lock(&gate.lock);
    const bool counts = strcmp(name, "stuck") == 0 && on_loader();
    if (counts && gate.to_pass > 0) {
        gate.to_pass--;
    } else if (counts && gate.to_hold > 0) {
        wait_at_gate();
    }
    pthread_mutex_unlock(&gate.lock);
    return modelconfig_read(context, name, folder_fd, override, out, err);
}

static void hold(uint32_t passes, uint32_t holds)
{
    pthread_mutex_lock(&gate.lock);
    gate.to_pass = passes;
    gate.to_hold = holds;
    pthread_mutex_unlock(&gate.lock);
}

static void let_go(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.to_pass = 0;
    gate.to_hold = 0;
    gate.held = 0;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static struct backend_ops held_ops; /* As those of the simulated device, but for these two. */

static void hold_here(void)
{
    pthread_mutex_lock(&gate.lock);
    if (gate.to_hold > 0) {
        wait_at_gate();
    }
    pthread_mutex_unlock(&gate.lock);
}

static void unload_held(struct backend_model *model)
{
    hold_here();
    sim_ops.unload(model);
}

static enum weir_status promote_held(struct backend_model *model, struct weir_err *err)
{
    hold_here();
    return sim_ops.promote(model, err);
}

static void (*note_change)(void *, const char *, uint64_t, enum model_state, const char *,
                           const struct model *);

/* The manager, before anybody else sees the model. */
static void on_change(void *context, const char *name, uint64_t version, enum model_state state,
                      const char *reason, const struct model *model)
{
    if (model != NULL && strcmp(name, "stuck") == 0) {
        model->replicas[0].backend->ops = &held_ops;
    }
    note_change(context, name, version, state, reason, model);
}

static int set_up(void **state)
{
    (void)model_bed_set_up(state);
    held_ops = sim_ops;
    held_ops.unload = unload_held;
    held_ops.promote = promote_held;
    note_change = bed.options.changed;
    bed.options.changed = on_change;
    bed.options.configure = configure;
    return 0;
}

static int tear_down(void **state)
{
    let_go();
    model_bed_await_lost(&bed, 0);
    return model_bed_tear_down(state);
}

static void put_stuck(const char *limit)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "backend: sim\nversion_policy: { all: {} }\n%s", limit);
    model_bed_put(&bed, 0, "stuck/1/", "");
    model_bed_put(&bed, 0, "stuck/model.yaml", text);
}

static enum weir_status load(const char *name, struct weir_err *err)
{
    return model_bed_order(&bed, REGISTRY_LOAD, name, NULL, err);
}

/* It holds its place, but is no load under way and does not leave: while there is one that does,
 * nobody is measured. */
static void expect_booked(uint64_t models)
{
    const struct ledger_account *total = &registry_catalogue(bed.registry, &bed.home)->accounts[0];
    assert_int_equal(total->models, models);
    assert_int_equal(total->leaving_models, 0);
    assert_int_equal(total->bytes[LEDGER_LOADING], 0);
}

static void test_others_are_loaded_meanwhile(void **state)
{
    (void)state;
    struct weir_err err;
    put_stuck(LIMIT);
    model_bed_sim(&bed, "other", 1, "");
    hold(1, 1);
    model_bed_start(&bed);
    assert_int_equal(load("stuck", &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "load_limit of 1.0 s"));
    model_bed_expect(&bed, "stuck/1 UNAVAILABLE", "'isolation: process'");
    (void)model_bed_await(&bed, "stuck", 1, MODEL_UNAVAILABLE);
    expect_booked(1);
    assert_int_equal(load("other", NULL), WEIR_OK);
    expect_booked(2);
    assert_int_equal(model_bed_infer(&bed, "other", 0), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_EUNAVAILABLE);
    put_stuck("");
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
    let_go();
    model_bed_await_lost(&bed, 0);
    const struct model_event event = model_bed_await(&bed, "stuck", 1, MODEL_UNAVAILABLE);
    assert_non_null(strstr(event.reason, "unloaded, replaced by a newer load"));
    expect_booked(2);
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
}

static void test_what_was_loaded_before_serves_on(void **state)
{
    (void)state;
    struct weir_err err;
    put_stuck("");
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    put_stuck(LIMIT);
    hold(1, 1);
    assert_int_equal(load("stuck", &err), WEIR_EINVAL);
    model_bed_expect(&bed, "stuck/1 READY", "load_limit of 1.0 s");
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
}

static void test_the_other_version_comes_up(void **state)
{
    (void)state;
    put_stuck("load_limit: 2s\n"); /* Which the other one must not need. */
    model_bed_put(&bed, 0, "stuck/2/", "");
    hold(2, 1);
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_EINVAL);
    model_bed_expect(&bed, "stuck/1 UNAVAILABLE", "load_limit of 2.0 s");
    model_bed_expect(&bed, "stuck/2 READY", "");
    assert_int_equal(model_bed_infer(&bed, "stuck", 2), WEIR_OK);
}

/* No less where it is the asking that hangs. */
static void test_nor_does_its_asking_hold_up_the_other_version(void **state)
{
    (void)state;
    put_stuck(LIMIT);
    model_bed_put(&bed, 0, "stuck/2/", "");
    hold(0, 1);
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_EINVAL);
    model_bed_expect(&bed, "stuck/1 UNAVAILABLE", "load_limit of 1.0 s");
    assert_int_equal(model_bed_infer(&bed, "stuck", 2), WEIR_OK);
    expect_booked(1);
}

static void test_a_model_does_not_take_ever_more_threads(void **state)
{
    (void)state;
    struct weir_err err;
    put_stuck(SHORT_LIMIT);
    hold(0, UINT32_MAX);
    model_bed_start(&bed);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(load("stuck", &err), WEIR_EINVAL);
        assert_non_null(strstr(err.text, "takes longer"));
    }
    assert_int_equal(load("stuck", &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "3 loads of the same files and settings"));
    assert_int_equal(registry_catalogue(bed.registry, &bed.home)->loads_lost, 3);
    let_go();
    model_bed_await_lost(&bed, 0);
    put_stuck("");
    assert_int_equal(load("stuck", NULL), WEIR_OK);
}

/* What hangs is none of the files and settings that are there now. */
static void test_one_that_was_mended_is_loaded_beside_those_that_hang(void **state)
{
    (void)state;
    put_stuck(SHORT_LIMIT);
    hold(0, 3);
    model_bed_start(&bed);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(load("stuck", NULL), WEIR_EINVAL);
    }
    put_stuck("");
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
    assert_int_equal(registry_catalogue(bed.registry, &bed.home)->loads_lost, 3);
}

static void test_nor_do_all_its_versions(void **state)
{
    (void)state;
    struct weir_err err;
    char path[32];
    put_stuck(SHORT_LIMIT);
    for (int version = 2; version <= 18; version++) {
        (void)snprintf(path, sizeof(path), "stuck/%d/", version);
        model_bed_put(&bed, 0, path, "");
    }
    hold(0, UINT32_MAX);
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_EINVAL);
    assert_int_equal(registry_catalogue(bed.registry, &bed.home)->loads_lost, 16);
    put_stuck("");
    assert_int_equal(load("stuck", &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "16 loads or unloads of it"));
}

/* There is nothing to be loaded, so nothing is lost. */
static void test_what_serves_is_looked_at_nevertheless(void **state)
{
    (void)state;
    static const char override[] = "{\"backend\":\"sim\",\"load_limit\":\"50ms\"}";
    put_stuck("");
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    hold(0, UINT32_MAX);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "stuck", override, NULL),
                         WEIR_EINVAL);
    }
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    model_bed_expect(&bed, "stuck/1 READY", "");
}

static void test_a_hang_before_the_load_is_one_too(void **state)
{
    (void)state;
    put_stuck(SHORT_LIMIT);
    model_bed_sim(&bed, "other", 1, "");
    hold(0, UINT32_MAX);
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_EINVAL);
    model_bed_expect(&bed, "stuck ", "load_limit of 0.1 s"); /* As it is rounded. */
    assert_int_equal(load("other", NULL), WEIR_OK);
}

static void test_its_folder_may_go(void **state)
{
    (void)state;
    put_stuck(SHORT_LIMIT);
    hold(0, UINT32_MAX);
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_EINVAL);
    model_bed_remove(&bed, 0, "stuck");
    assert_int_equal(model_bed_order(&bed, REGISTRY_REFRESH, NULL, NULL, NULL), WEIR_OK);
    assert_int_equal(load("stuck", NULL), WEIR_ENOENT);
}

/* ---- After the load -------------------------------------------------------------------------- */

static void test_an_unload_that_hangs_holds_nobody_up(void **state)
{
    (void)state;
    put_stuck(LIMIT);
    model_bed_sim(&bed, "other", 1, "");
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    hold(0, 1);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "stuck", NULL, NULL), WEIR_OK);
    assert_int_equal(load("other", NULL), WEIR_OK); /* By the loader that hangs. */
    const struct model_event event = model_bed_await(&bed, "stuck", 1, MODEL_UNAVAILABLE);
    assert_non_null(strstr(event.reason, "unloading it takes longer than its load_limit of 1.0 s"));
    model_bed_expect(&bed, "stuck/1 UNLOADING", "'isolation: process'");
    expect_booked(2);
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
    expect_booked(3);
    let_go();
    model_bed_await_lost(&bed, 0);
    const struct model_event gone = model_bed_await(&bed, "stuck", 1, MODEL_UNAVAILABLE);
    assert_non_null(strstr(gone.reason, "unloaded, replaced by a newer load"));
    expect_booked(2);
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
}

/* Nobody waits for it: neither for its place nor for its end. */
static void test_one_that_comes_back_was_only_late(void **state)
{
    (void)state;
    put_stuck(LIMIT);
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    hold(0, 1);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "stuck", NULL, NULL), WEIR_OK);
    (void)model_bed_await(&bed, "stuck", 1, MODEL_UNAVAILABLE);
    assert_int_equal(registry_catalogue(bed.registry, &bed.home)->loads_lost, 1);
    expect_booked(1);
    let_go();
    (void)model_bed_await(&bed, "stuck", 1, MODEL_UNAVAILABLE);
    model_bed_expect(&bed, "stuck/1 UNAVAILABLE", "unloaded");
    expect_booked(0);
}

/* It serves as it did, and goes once its weights are packed after all. */
static void test_a_promotion_that_hangs_holds_nobody_up(void **state)
{
    (void)state;
    put_stuck(LIMIT "promote_after: 100\nparameters: { mapped: 1MiB, tau0: 1us }\n");
    model_bed_sim(&bed, "other", 1, "");
    model_bed_start(&bed);
    assert_int_equal(load("stuck", NULL), WEIR_OK);
    hold(0, 1);
    for (int i = 0; i < 100; i++) { /* The load's own runs did not make it hot. */
        assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
    }
    model_bed_await_lost(&bed, 1);
    model_bed_expect(&bed, "stuck/1 READY", "packing its weights takes longer");
    assert_int_equal(load("other", NULL), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "stuck", 0), WEIR_OK);
    expect_booked(2);
    let_go();
    model_bed_await_lost(&bed, 0);
    char *index = model_bed_index(&bed);
    assert_null(strstr(index, "packing"));
    free(index);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "stuck", NULL, NULL), WEIR_OK);
    (void)model_bed_await(&bed, "stuck", 1, MODEL_UNAVAILABLE);
    expect_booked(1);
}

/* ---- The worker ------------------------------------------------------------------------------ */

struct job {
    struct worker_job job;
    pthread_mutex_t *lock; /* Held by the test while the job must not end. */
    bool ran;
};

static void run_job(struct worker_job *job)
{
    struct job *self = list_entry(job, struct job, job);
    pthread_mutex_lock(self->lock);
    self->ran = true;
    pthread_mutex_unlock(self->lock);
}

/* Jobs that came along with the one that hangs are no less its thread's. */
static void test_a_new_thread_goes_on_with_the_jobs_behind(void **state)
{
    (void)state;
    pthread_mutex_t hangs = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_t free = PTHREAD_MUTEX_INITIALIZER;
    struct job stuck = { .job.run = run_job, .lock = &hangs };
    struct job next[2] = { { .job.run = run_job, .lock = &free },
                           { .job.run = run_job, .lock = &free } };
    struct worker worker;
    pthread_t hung;
    pthread_mutex_lock(&hangs);
    assert_int_equal(worker_start(&worker, "weir-test", NULL, NULL, NULL), WEIR_OK);
    worker_send(&worker, &stuck.job);
    worker_send(&worker, &next[0].job);
    assert_false(worker_replace(&worker, &next[1].job, &hung)); /* It does not run. */
    while (!worker_replace(&worker, &stuck.job, &hung)) {       /* Until it does. */
        sched_yield();
    }
    worker_send(&worker, &next[1].job);
    worker_stop(&worker);
    assert_true(next[0].ran && next[1].ran);
    pthread_mutex_unlock(&hangs);
    pthread_join(hung, NULL);
    assert_true(stuck.ran);
    worker_finish(&worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_thread_goes_on_with_the_jobs_behind),
        cmocka_unit_test_prestate_setup_teardown(test_others_are_loaded_meanwhile, set_up,
                                                 tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_what_was_loaded_before_serves_on, set_up,
                                                 tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_the_other_version_comes_up, set_up, tear_down,
                                                 &bed),
        cmocka_unit_test_prestate_setup_teardown(test_a_model_does_not_take_ever_more_threads,
                                                 set_up, tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_nor_does_its_asking_hold_up_the_other_version,
                                                 set_up, tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(
            test_one_that_was_mended_is_loaded_beside_those_that_hang, set_up, tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_nor_do_all_its_versions, set_up, tear_down,
                                                 &bed),
        cmocka_unit_test_prestate_setup_teardown(test_what_serves_is_looked_at_nevertheless, set_up,
                                                 tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_a_hang_before_the_load_is_one_too, set_up,
                                                 tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_its_folder_may_go, set_up, tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_an_unload_that_hangs_holds_nobody_up, set_up,
                                                 tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_one_that_comes_back_was_only_late, set_up,
                                                 tear_down, &bed),
        cmocka_unit_test_prestate_setup_teardown(test_a_promotion_that_hangs_holds_nobody_up,
                                                 set_up, tear_down, &bed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
