/*
 * registry: models come, change and go while others serve, and the index says why where they do
 * not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/repository.h"
#include "model_bed.h"
#include "util/mem.h"

static struct model_bed bed;

static const char over_a[] = "platform: ensemble\n"
                             "ensemble_scheduling:\n"
                             "  step:\n"
                             "  - { model_name: a, input_map: { x: x }, output_map: { y: y } }\n";

static enum weir_status load(const char *name)
{
    return model_bed_order(&bed, REGISTRY_LOAD, name, NULL, NULL);
}

static bool ready(void)
{
    return registry_catalogue(bed.registry, &bed.home)->ready;
}

static void expect_no_index(const char *prefix)
{
    char *index = model_bed_index(&bed);
    if (strstr(index, prefix) != NULL) {
        fail_msg("'%s' is in the index:\n%s", prefix, index);
    }
    free(index);
}

/* ---- What is there --------------------------------------------------------------------------- */

static void test_all_are_loaded_and_ready(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_sim(&bed, "b", 7, "");
    model_bed_start_all(&bed);
    assert_true(ready());
    model_bed_expect(&bed, "a/1 READY", "");
    model_bed_expect(&bed, "b/7 READY", "");
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "b", 7), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "b", 1), WEIR_ENOENT);
    assert_int_equal(model_bed_infer(&bed, "c", 0), WEIR_ENOENT);
}

static void test_a_broken_model_says_why_and_leaves_others_alone(void **state)
{
    (void)state;
    model_bed_sim(&bed, "good", 1, "");
    model_bed_sim(&bed, "bad", 1, "  load_fails: the weights are torn\n");
    model_bed_put(&bed, 0, "worse/1/", "");
    model_bed_put(&bed, 0, "worse/model.yaml", "backend: sim\nmax_batch: 3\n");
    model_bed_put(&bed, 0, "empty/", "");
    model_bed_start_all(&bed);
    assert_false(ready());
    model_bed_expect(&bed, "bad/1 UNAVAILABLE", "the weights are torn");
    model_bed_expect(&bed, "worse ",
                     "model.yaml:2: unknown key 'max_batch'; allowed: name, backend");
    model_bed_expect(&bed, "empty ", "no version is available");
    assert_int_equal(model_bed_infer(&bed, "good", 0), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "bad", 0), WEIR_EUNAVAILABLE);
    assert_int_equal(model_bed_infer(&bed, "bad", 1), WEIR_EUNAVAILABLE);
    assert_int_equal(model_bed_infer(&bed, "worse", 0), WEIR_EUNAVAILABLE);
    assert_int_equal(model_bed_infer(&bed, "empty", 0), WEIR_EUNAVAILABLE);
}

static void test_wrong_names_are_shown_and_not_loaded(void **state)
{
    (void)state;
    model_bed_put(&bed, 0, "sp ace/1/", "");
    model_bed_put(&bed, 0, "\xC3\xA4/1/", "");
    model_bed_put(&bed, 0, ".hidden/1/", "");
    model_bed_put(&bed, 0, "a_file", "text");
    model_bed_sim(&bed, "A-z_0.9", 1, "");
    model_bed_start_all(&bed);
    assert_true(ready());
    model_bed_expect(&bed, "A-z_0.9/1 READY", "");
    model_bed_expect(&bed, "sp ace", "no model name");
    model_bed_expect(&bed, "\xC3\xA4", "no model name");
    expect_no_index(".hidden");
    expect_no_index("a_file");
}

static void test_names(void **state)
{
    (void)state;
    char longest[REPOSITORY_NAME_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    assert_true(repository_name_ok((struct bytes){ longest, REPOSITORY_NAME_MAX }));
    assert_false(repository_name_ok((struct bytes){ longest, REPOSITORY_NAME_MAX + 1 }));
    assert_false(repository_name_ok(bytes_of("")));
    assert_false(repository_name_ok(bytes_of("..")));
    assert_false(repository_name_ok(bytes_of("a/b")));
    assert_false(repository_name_ok((struct bytes){ "a\0b", 3 }));
    uint64_t version = 0;
    assert_true(repository_version_of("9223372036854775807", &version));
    assert_int_equal(version, INT64_MAX);
    assert_false(repository_version_of("9223372036854775808", &version));
    assert_false(repository_version_of("0", &version));
    assert_false(repository_version_of("01", &version));
    assert_false(repository_version_of("1a", &version));
    assert_false(repository_version_of("-1", &version));
}

static void test_version_policies(void **state)
{
    (void)state;
    static const char *const policies[][3] = {
        { "latest", "", "3" },
        { "two", "version_policy: { latest: { num_versions: 2 } }\n", "2 3" },
        { "all", "version_policy: { all: {} }\n", "1 2 3" },
        { "some", "version_policy: { specific: { versions: [1, 9] } }\n", "1" },
    };
    for (size_t i = 0; i < 4; i++) {
        char path[64];
        char text[256];
        (void)snprintf(path, sizeof(path), "%s/model.yaml", policies[i][0]);
        (void)snprintf(text, sizeof(text), "backend: sim\n%s", policies[i][1]);
        model_bed_put(&bed, 0, path, text);
        for (const char *folder = "1230"; *folder != '\0'; folder++) {
            (void)snprintf(path, sizeof(path), "%s/%c/", policies[i][0], *folder);
            model_bed_put(&bed, 0, path, "");
        }
        (void)snprintf(path, sizeof(path), "%s/04/", policies[i][0]);
        model_bed_put(&bed, 0, path, "");
    }
    model_bed_put(&bed, 0, "none/1/", "");
    model_bed_put(&bed, 0, "none/model.yaml",
                  "backend: sim\nversion_policy: { specific: { versions: [9] } }\n");
    model_bed_start_all(&bed);
    for (size_t i = 0; i < 4; i++) {
        for (char version = '0'; version <= '4'; version++) {
            const bool wanted = strchr(policies[i][2], version) != NULL && version != '0';
            const enum weir_status expected = wanted ? WEIR_OK : WEIR_ENOENT;
            if (version != '0') {
                assert_int_equal(model_bed_infer(&bed, policies[i][0], (uint64_t)(version - '0')),
                                 expected);
            }
        }
    }
    struct model *latest = model_bed_lease(&bed, "all", 0);
    assert_int_equal(latest->version, 3);
    model_bed_release(&bed, latest);
    model_bed_expect(&bed, "none", "version_policy names none");
}

static void test_a_model_in_two_roots_is_not_loaded(void **state)
{
    (void)state;
    bed.options.root_count = 2;
    model_bed_sim(&bed, "twice", 1, "");
    model_bed_put(&bed, 1, "twice/1/", "");
    model_bed_put(&bed, 1, "once/1/", "");
    model_bed_put(&bed, 1, "once/model.yaml", "backend: sim\n");
    model_bed_start_all(&bed);
    model_bed_expect(&bed, "twice", "model appears in two or more repositories");
    assert_int_equal(model_bed_infer(&bed, "once", 0), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "twice", 0), WEIR_EUNAVAILABLE);
}

static void test_too_many_models(void **state)
{
    (void)state;
    bed.options.models_max = 2;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_sim(&bed, "b", 1, "");
    model_bed_sim(&bed, "c", 1, "");
    model_bed_sim(&bed, "d", 1, "");
    model_bed_start_all(&bed);
    model_bed_expect(&bed, "b/1 READY", "");
    model_bed_expect(&bed, "c ", "more models than models_max");
    expect_no_index("\nd");
}

static void test_a_root_must_be_there(void **state)
{
    (void)state;
    const char *const missing = "/nonexistent/models";
    bed.options.roots = &missing;
    struct registry *registry = NULL;
    struct weir_err err = { 0 };
    model_bed_put(&bed, 0, "x/", "");
    const struct device_options cpu = { .name = "cpu", .executors = 1 };
    const struct engine_options options = {
        .devices = &cpu,
        .device_count = 1,
        .limits = &bed.limits,
        .clock = &bed.clock,
    };
    struct engine *engine = NULL;
    assert_int_equal(engine_create(&options, &engine, NULL), WEIR_OK);
    assert_int_equal(registry_create(engine, &bed.options, &registry, &err), WEIR_EIO);
    assert_non_null(strstr(err.text, "/nonexistent/models"));
    engine_destroy(engine);
}

/* ---- Orders ---------------------------------------------------------------------------------- */

static void test_load_and_unload_on_order(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    model_bed_sim(&bed, "a", 1, "");
    model_bed_sim(&bed, "bad", 1, "  load_fails: torn\n");
    model_bed_start(&bed);
    model_bed_settle(&bed);
    assert_true(ready());
    model_bed_expect(&bed, "a ", "");
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_ENOENT);

    assert_int_equal(load("a"), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);

    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "nowhere", NULL, &err), WEIR_ENOENT);
    assert_non_null(strstr(err.text, "failed to load 'nowhere'"));
    expect_no_index("nowhere");
    assert_int_equal(load("../a"), WEIR_EINVAL);
    assert_int_equal(load(""), WEIR_EINVAL);
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "bad", NULL, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "load failed for model 'bad': version 1"));
    assert_non_null(strstr(err.text, "torn"));
    assert_true(ready());

    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_ENOENT);
    const struct model_event event = model_bed_await(&bed, "a", 1, MODEL_UNAVAILABLE);
    assert_non_null(strstr(event.reason, "unloaded, "));
    assert_non_null(strstr(event.reason, "returned to the system"));
    model_bed_expect(&bed, "a/1 UNAVAILABLE", "unloaded");
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "nowhere", NULL, NULL), WEIR_OK);
    assert_int_equal(load("a"), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
}

static void test_orders_need_the_explicit_mode(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start_all(&bed);
    assert_int_equal(load("a"), WEIR_ECONFLICT);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_ECONFLICT);
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
}

static void test_an_unmodified_model_is_not_loaded_again(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    struct model *first = model_bed_lease(&bed, "a", 1);
    assert_int_equal(load("a"), WEIR_OK);
    struct model *second = model_bed_lease(&bed, "a", 1);
    assert_ptr_equal(first, second);
    model_bed_release(&bed, first);
    model_bed_release(&bed, second);

    model_bed_put(&bed, 0, "a/labels.txt", "x\n");
    assert_int_equal(load("a"), WEIR_OK);
    model_bed_await(&bed, "a", 1, MODEL_READY);
    model_bed_await(&bed, "a", 1, MODEL_READY);
    model_bed_put(&bed, 0, "a/1/weights", "x");
    assert_int_equal(load("a"), WEIR_OK);
    model_bed_await(&bed, "a", 1, MODEL_READY);
    assert_int_equal(model_bed_count(&bed, "a", MODEL_READY), 3);
}

static void test_an_override_always_loads_again(void **state)
{
    (void)state;
    static const char config[] = "{\"backend\":\"sim\",\"maxBatchSize\":7}";
    struct weir_err err = { 0 };
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "a", config, &err), WEIR_OK);
    struct model *model = model_bed_lease(&bed, "a", 0);
    assert_int_equal(model->config->max_batch_size, 7);
    assert_string_equal(model->config->json, config);
    model_bed_release(&bed, model);
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "a", config, &err), WEIR_OK);
    assert_int_equal(model_bed_count(&bed, "a", MODEL_READY), 3);

    /* A broken one changes nothing. */
    assert_int_equal(
        model_bed_order(&bed, REGISTRY_LOAD, "a", "{\"backend\":\"sim\",\"input\":[{}]}", &err),
        WEIR_EINVAL);
    assert_non_null(strstr(err.text, "config override:1: "));
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "a",
                                     "{\"backend\":\"sim\",\"parameters\":{\"load_fails\":"
                                     "{\"string_value\":\"torn\"}}}",
                                     &err),
                     WEIR_EINVAL);
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
    model_bed_expect(&bed, "a/1 READY", "the last reload failed");
    model = model_bed_lease(&bed, "a", 0);
    assert_int_equal(model->config->max_batch_size, 7);
    model_bed_release(&bed, model);

    /* Without it the file holds again. */
    assert_int_equal(load("a"), WEIR_OK);
    model = model_bed_lease(&bed, "a", 0);
    assert_int_equal(model->config->max_batch_size, MODEL_BATCH_INFERRED);
    model_bed_release(&bed, model);
    char *index = model_bed_index(&bed);
    assert_string_equal(index, "a/1 READY \n");
    free(index);
}

static void test_preload(void **state)
{
    (void)state;
    static const char *const names[] = { "a", "missing" };
    bed.options.preload = names;
    bed.options.preload_count = 1;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_sim(&bed, "b", 1, "  load_fails: torn\n");
    model_bed_start(&bed);
    model_bed_settle(&bed);
    assert_true(ready());
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
    model_bed_expect(&bed, "b ", "");
    model_bed_stop(&bed);

    bed.options.preload_count = 2;
    model_bed_start(&bed);
    model_bed_settle(&bed);
    assert_false(ready());
    model_bed_expect(&bed, "missing ", "no folder of that name");
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "missing", NULL, NULL), WEIR_OK);
    assert_true(ready());
    model_bed_stop(&bed);

    static const char *const everything[] = { "*" };
    bed.options.preload = everything;
    bed.options.preload_count = 1;
    model_bed_start(&bed);
    model_bed_settle(&bed);
    assert_false(ready());
    model_bed_expect(&bed, "a/1 READY", "");
    model_bed_expect(&bed, "b/1 UNAVAILABLE", "torn");
}

static void test_refresh_shows_new_folders(void **state)
{
    (void)state;
    model_bed_start(&bed);
    model_bed_settle(&bed);
    model_bed_sim(&bed, "late", 1, "");
    assert_int_equal(model_bed_order(&bed, REGISTRY_REFRESH, NULL, NULL, NULL), WEIR_OK);
    model_bed_expect(&bed, "late ", "");
    model_bed_remove(&bed, 0, "late");
    assert_int_equal(model_bed_order(&bed, REGISTRY_REFRESH, NULL, NULL, NULL), WEIR_OK);
    expect_no_index("late");
}

/* ---- Change under load ----------------------------------------------------------------------- */

static void test_a_reload_leaves_the_old_to_its_requests(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    struct model *old = model_bed_lease(&bed, "a", 0);
    assert_int_equal(
        model_bed_order(&bed, REGISTRY_LOAD, "a", "{backend: sim, max_batch_size: 2}", NULL),
        WEIR_OK);
    struct model *new = model_bed_lease(&bed, "a", 0);
    assert_ptr_not_equal(old, new);
    assert_int_equal(model_bed_infer_on(&bed, old), WEIR_OK);
    assert_int_equal(model_bed_infer_on(&bed, new), WEIR_OK);
    assert_int_equal(model_bed_count(&bed, "a", MODEL_UNAVAILABLE), 0);
    model_bed_release(&bed, old);
    const struct model_event event = model_bed_await(&bed, "a", 1, MODEL_UNAVAILABLE);
    assert_non_null(strstr(event.reason, "replaced by a newer load"));
    model_bed_expect(&bed, "a/1 READY", "");
    assert_int_equal(model_bed_infer_on(&bed, new), WEIR_OK);
    model_bed_release(&bed, new);
}

static void test_unload_waits_for_leases(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    struct model *model = model_bed_lease(&bed, "a", 0);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_OK);
    model_bed_expect(&bed, "a/1 UNLOADING", "");
    assert_int_equal(model_bed_infer(&bed, "a", 1), WEIR_ENOENT);
    assert_int_equal(model_bed_infer_on(&bed, model), WEIR_OK);
    model_bed_release(&bed, model);
    model_bed_await(&bed, "a", 1, MODEL_UNAVAILABLE);
    model_bed_expect(&bed, "a/1 UNAVAILABLE", "unloaded");
}

struct pending_load {
    struct registry_order order;
    bool done;
};

static void pending_done(struct registry_order *order)
{
    ((struct pending_load *)order)->done = true;
}

/* While a load waits for room, what it takes the place of goes: the load knows nothing of that. */
static void test_an_old_version_goes_while_the_new_one_waits(void **state)
{
    (void)state;
    char too_long[128];
    (void)snprintf(too_long, sizeof(too_long), "memory_group: %080d\n", 0);
    model_bed_sim(&bed, "a", 1, "");
    model_bed_sim(&bed, "b", 1, "");
    model_bed_sim(&bed, "refused", 1, too_long);
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    assert_int_equal(load("b"), WEIR_OK);
    struct model *a = model_bed_lease(&bed, "a", 0);
    struct model *b = model_bed_lease(&bed, "b", 0);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_OK);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "b", NULL, NULL), WEIR_OK);
    bed.options.room.models_max = 1;
    registry_set(bed.registry, &bed.options.room, bed.options.poll_ns);
    model_bed_sim(&bed, "b", 2, "");
    struct pending_load pending = {
        .order = { .home = &bed.home, .kind = REGISTRY_LOAD, .name = "b", .done = pending_done }
    };
    registry_order(bed.registry, &pending.order);
    assert_int_equal(load("refused"), WEIR_EINVAL); /* It asked for room after "b" did. */
    model_bed_release(&bed, b);
    (void)model_bed_await(&bed, "b", 1, MODEL_UNAVAILABLE);
    assert_false(pending.done);
    model_bed_release(&bed, a);
    model_bed_turn_until(&bed, &pending.done);
    assert_int_equal(pending.order.status, WEIR_OK);
    model_bed_expect(&bed, "b/2 READY", "");
}

/* Who has a lease may keep it as long as he likes. */
static void test_a_load_does_not_wait_for_ever_for_those_that_go(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_sim(&bed, "b", 1, "");
    clock_init_manual(&bed.clock, clock_now_ns(&bed.clock));
    bed.options.room.models_max = 1;
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    struct model *a = model_bed_lease(&bed, "a", 0);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_OK);
    struct pending_load pending = {
        .order = { .home = &bed.home, .kind = REGISTRY_LOAD, .name = "b", .done = pending_done }
    };
    registry_order(bed.registry, &pending.order);
    assert_int_equal(load("nobody"), WEIR_ENOENT);
    assert_false(pending.done);
    clock_turn(&bed.clock, clock_now_ns(&bed.clock) + 11 * NS_PER_S);
    assert_int_equal(load("nobody"), WEIR_ENOENT); /* Lets the manager look. */
    model_bed_turn_until(&bed, &pending.done);
    assert_int_equal(pending.order.status, WEIR_ENOMEM);
    assert_non_null(strstr(pending.order.err.text, "those that go are still in use"));
    model_bed_release(&bed, a);
    (void)model_bed_await(&bed, "a", 1, MODEL_UNAVAILABLE);
    assert_int_equal(load("b"), WEIR_OK);
}

/* Also where it is a new version, and not the same one anew. */
static void test_a_new_version_may_replace_the_old_one(void **state)
{
    (void)state;
    bed.options.room.models_max = 1;
    model_bed_sim(&bed, "a", 1, "update: replace\n");
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    model_bed_put(&bed, 0, "a/2/", "");
    assert_int_equal(load("a"), WEIR_OK);
    model_bed_expect(&bed, "a/2 READY", "");
    model_bed_expect(&bed, "a/1 UNAVAILABLE", "unloaded");
}

/* Also a part of an ensemble, which holds the old one for as long as it serves. */
static void test_a_part_may_be_replaced(void **state)
{
    (void)state;
    bed.options.room.models_max = 2;
    model_bed_sim(&bed, "a", 1, "update: replace\n");
    model_bed_ensemble(&bed, "e", over_a);
    model_bed_start(&bed);
    assert_int_equal(load("e"), WEIR_OK);
    model_bed_put(&bed, 0, "a/2/", "");
    assert_int_equal(load("a"), WEIR_OK);
    model_bed_expect(&bed, "a/2 READY", "");
    (void)model_bed_await(&bed, "e", 1, MODEL_READY);
    (void)model_bed_await(&bed, "e", 1, MODEL_READY);
}

static void no_wake(void *context)
{
    (void)context;
}

static void test_an_idle_home_lets_old_snapshots_go(void **state)
{
    (void)state;
    struct home idle;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    home_init(&idle, bed.engine, no_wake, NULL);
    assert_non_null(catalogue_find(registry_catalogue(bed.registry, &idle), bytes_of("a")));
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_OK);
    model_bed_expect(&bed, "a/1 UNLOADING", "");
    home_turn(&idle);
    assert_null(idle.catalogue);
    model_bed_await(&bed, "a", 1, MODEL_UNAVAILABLE);
    home_finish(&idle);
}

static void test_destroy_while_models_load(void **state)
{
    (void)state;
    model_bed_sim(&bed, "first", 1, "  load: 20ms\n");
    model_bed_sim(&bed, "slow", 1, "  load: 200ms\n");
    model_bed_sim(&bed, "waits", 1, "  load: 200ms\n");
    bed.options.control = CONTROL_ALL;
    model_bed_start(&bed);
    model_bed_await(&bed, "first", 1, MODEL_READY);
    model_bed_stop(&bed);

    /* Nor may anything be under way yet. */
    model_bed_start(&bed);
    model_bed_stop(&bed);
}

/* ---- Poll ------------------------------------------------------------------------------------ */

static void refresh(void)
{
    assert_int_equal(model_bed_order(&bed, REGISTRY_REFRESH, NULL, NULL, NULL), WEIR_OK);
}

static void test_poll_follows_the_folders(void **state)
{
    (void)state;
    bed.options.control = CONTROL_POLL;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    model_bed_settle(&bed);
    assert_true(ready());

    model_bed_sim(&bed, "b", 1, "");
    refresh();
    model_bed_expect(&bed, "b/1 READY", "");

    /* A new version takes the place of the old one. */
    model_bed_put(&bed, 0, "a/2/", "");
    refresh();
    model_bed_expect(&bed, "a/2 READY", "");
    model_bed_await(&bed, "a", 1, MODEL_UNAVAILABLE);
    model_bed_expect(&bed, "a/1 UNAVAILABLE", "unloaded");
    assert_int_equal(model_bed_infer(&bed, "a", 2), WEIR_OK);

    /* The newest goes: the one before it comes back. */
    model_bed_remove(&bed, 0, "a/2");
    refresh();
    model_bed_expect(&bed, "a/1 READY", "");
    model_bed_await(&bed, "a", 2, MODEL_UNAVAILABLE);
    refresh();
    expect_no_index("a/2");

    /* Nothing changed: nothing is loaded. */
    const uint32_t loads = model_bed_count(&bed, "a", MODEL_READY);
    refresh();
    assert_int_equal(model_bed_count(&bed, "a", MODEL_READY), loads);

    model_bed_remove(&bed, 0, "b");
    refresh();
    model_bed_await(&bed, "b", 1, MODEL_UNAVAILABLE);
    refresh();
    expect_no_index("b");
    assert_true(ready());
}

/* Its failure is the last thing that happens. */
static void test_a_refresh_ends_with_an_ensemble_that_lacks_a_part(void **state)
{
    (void)state;
    bed.options.control = CONTROL_POLL;
    model_bed_start(&bed);
    model_bed_settle(&bed);
    model_bed_ensemble(&bed, "e", over_a);
    refresh();
    model_bed_expect(&bed, "e", "step 1 needs model 'a'");
}

static void test_poll_tries_a_half_copied_model_again(void **state)
{
    (void)state;
    bed.options.control = CONTROL_POLL;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    model_bed_settle(&bed);

    model_bed_sim(&bed, "a", 1, "  load_fails: half of it is missing\n");
    refresh();
    model_bed_expect(&bed, "a/1 READY", "half of it is missing");
    assert_true(ready());
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
    const uint32_t failures = model_bed_count(&bed, "a", MODEL_UNAVAILABLE);
    refresh();
    assert_int_equal(model_bed_count(&bed, "a", MODEL_UNAVAILABLE), failures);

    model_bed_sim(&bed, "a", 1, "  alpha: 1us\n");
    refresh();
    char *index = model_bed_index(&bed);
    assert_string_equal(index, "a/1 READY \n");
    free(index);
}

static void test_a_broken_new_version_leaves_the_old_ones(void **state)
{
    (void)state;
    bed.options.control = CONTROL_POLL;
    model_bed_put(&bed, 0, "m/1/", "");
    model_bed_put(&bed, 0, "m/model.yaml", "platform: onnx\nversion_policy: { all: {} }\n");
    model_bed_start(&bed);
    model_bed_settle(&bed);
    model_bed_expect(&bed, "m/1 UNAVAILABLE", "model.onnx");
    assert_false(ready());
    model_bed_sim(&bed, "m", 1, "");
    refresh();
    assert_true(ready());
    model_bed_expect(&bed, "m/1 READY", "");
    model_bed_put(&bed, 0, "m/model.yaml", "platform: onnx\n");
    model_bed_put(&bed, 0, "m/2/", "");
    refresh();
    model_bed_expect(&bed, "m/2 UNAVAILABLE", "model.onnx");
    model_bed_expect(&bed, "m/1 READY", "");
    assert_int_equal(model_bed_infer(&bed, "m", 0), WEIR_OK);
    assert_true(ready());
}

static void test_polling_happens_by_itself(void **state)
{
    (void)state;
    bed.options.control = CONTROL_POLL;
    bed.options.poll_ns = 5 * NS_PER_MS;
    model_bed_start(&bed);
    model_bed_settle(&bed);
    model_bed_sim(&bed, "a", 1, "");
    model_bed_await(&bed, "a", 1, MODEL_READY);
}

/* ---- Running out of memory ------------------------------------------------------------------- */

/* Fails each allocation of a load in turn: the load then fails, or succeeds all the same, and the
 * next one succeeds. */
static void test_every_allocation_of_a_load_may_fail(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1,
                  "output: [{ name: y, label_filename: labels.txt }]\n"
                  "model_warmup: [{ name: w, inputs: { x: { data_type: FP32, dims: [16], "
                  "zero_data: true } } }]\n");
    model_bed_put(&bed, 0, "a/labels.txt", "cat\ndog\n");
    bed.options.profile_store = "model";
    model_bed_start(&bed);
    model_bed_settle(&bed);
    assert_int_equal(load("a"), WEIR_OK);
    (void)mem_fault_arm(1000000);
    assert_int_equal(
        model_bed_order(&bed, REGISTRY_LOAD, "a", "{backend: sim, max_batch_size: 2}", NULL),
        WEIR_OK);
    const uint64_t calls = mem_fault_arm(0);
    if (calls == 0) {
        skip(); /* This build cannot make allocations fail. */
    }
    for (uint64_t n = 1; n <= calls; n++) {
        assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_OK);
        (void)mem_fault_arm(n);
        struct weir_err err = { 0 };
        const enum weir_status status = model_bed_order(&bed, REGISTRY_LOAD, "a", NULL, &err);
        (void)mem_fault_arm(0);
        if (status != WEIR_OK && status != WEIR_ENOMEM) {
            fail_msg("allocation %u: %s: %s", (unsigned)n, weir_status_name(status), err.text);
        }
        assert_int_equal(load("a"), WEIR_OK);
        assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
    }
}

int main(void)
{
#define CASE(test) MODEL_BED_TEST(test, &bed)
    const struct CMUnitTest tests[] = {
        CASE(test_all_are_loaded_and_ready),
        CASE(test_a_broken_model_says_why_and_leaves_others_alone),
        CASE(test_wrong_names_are_shown_and_not_loaded),
        cmocka_unit_test(test_names),
        CASE(test_version_policies),
        CASE(test_a_model_in_two_roots_is_not_loaded),
        CASE(test_too_many_models),
        CASE(test_a_root_must_be_there),
        CASE(test_load_and_unload_on_order),
        CASE(test_orders_need_the_explicit_mode),
        CASE(test_an_unmodified_model_is_not_loaded_again),
        CASE(test_an_override_always_loads_again),
        CASE(test_preload),
        CASE(test_refresh_shows_new_folders),
        CASE(test_a_reload_leaves_the_old_to_its_requests),
        CASE(test_unload_waits_for_leases),
        CASE(test_an_old_version_goes_while_the_new_one_waits),
        CASE(test_a_load_does_not_wait_for_ever_for_those_that_go),
        CASE(test_a_new_version_may_replace_the_old_one),
        CASE(test_a_part_may_be_replaced),
        CASE(test_an_idle_home_lets_old_snapshots_go),
        CASE(test_destroy_while_models_load),
        CASE(test_poll_follows_the_folders),
        CASE(test_a_refresh_ends_with_an_ensemble_that_lacks_a_part),
        CASE(test_poll_tries_a_half_copied_model_again),
        CASE(test_a_broken_new_version_leaves_the_old_ones),
        CASE(test_polling_happens_by_itself),
        CASE(test_every_allocation_of_a_load_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
