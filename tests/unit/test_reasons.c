/*
 * What the index, the log and whoever gave an order are told of a model that is not there: always
 * why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "model_bed.h"
#include "server/modelconfig.h"

static struct model_bed bed;

struct pending {
    struct registry_order order;
    bool done;
};

static void pending_done(struct registry_order *order)
{
    ((struct pending *)order)->done = true;
}

static void give(struct pending *pending, enum registry_order_kind kind, const char *name)
{
    *pending = (struct pending){ .order = { .home = &bed.home, .done = pending_done } };
    pending->order.kind = kind;
    pending->order.name = name;
    registry_order(bed.registry, &pending->order);
}

/* Whoever reads a configuration waits while the test holds this. */
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;

static enum weir_status configure_held(void *context, const char *name, int folder_fd,
                                       const char *override, struct model_config **out,
                                       struct weir_err *err)
{
    pthread_mutex_lock(&reading);
    pthread_mutex_unlock(&reading);
    return modelconfig_read(context, name, folder_fd, override, out, err);
}

/* The unload is in line before the load fails: no snapshot shows why it did. */
static void fail_and_unload(const char *name, uint64_t version, const char *why)
{
    static struct pending load;
    static struct pending unload;
    pthread_mutex_lock(&reading);
    give(&load, REGISTRY_LOAD, name);
    give(&unload, REGISTRY_UNLOAD, name);
    pthread_mutex_unlock(&reading);
    model_bed_turn_until(&bed, &load.done);
    model_bed_turn_until(&bed, &unload.done);
    assert_non_null(strstr(load.order.err.text, why));
    assert_int_equal(unload.order.status, WEIR_OK);
    const struct model_event event = model_bed_await(&bed, name, version, MODEL_UNAVAILABLE);
    assert_non_null(strstr(event.reason, why));
}

static void test_a_failed_load_says_why_though_it_is_unloaded_at_once(void **state)
{
    (void)state;
    bed.options.configure = configure_held;
    model_bed_put(&bed, 0, "bad/1/", "");
    model_bed_put(&bed, 0, "bad/model.yaml", "backend: sim\nmax_batch: 3\n");
    model_bed_sim(&bed, "worse", 1, "  load_fails: torn\n");
    model_bed_start(&bed);
    model_bed_settle(&bed);
    fail_and_unload("bad", 0, "unknown key 'max_batch'");
    fail_and_unload("worse", 1, "torn");
}

static enum weir_status fail_without_a_word(void *context, const char *name, int folder_fd,
                                            const char *override, struct model_config **out,
                                            struct weir_err *err)
{
    char thread[16] = "";
    (void)pthread_getname_np(pthread_self(), thread, sizeof(thread));
    const bool fails = strcmp(thread, "weir-scanner") == 0 ? strcmp(name, "scanned") == 0 : true;
    return fails ? WEIR_EBACKEND : modelconfig_read(context, name, folder_fd, override, out, err);
}

static void test_nobody_is_left_without_a_reason(void **state)
{
    (void)state;
    static const char expected[] = "no reason was given (backend failed)";
    struct weir_err err = { 0 };
    bed.options.configure = fail_without_a_word;
    model_bed_sim(&bed, "scanned", 1, "");
    model_bed_sim(&bed, "loaded", 1, "");
    model_bed_start(&bed);
    model_bed_settle(&bed);
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "scanned", NULL, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "no reason was given"));
    model_bed_expect(&bed, "scanned ", "no reason was given");
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "loaded", NULL, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, expected));
    model_bed_expect(&bed, "loaded/1 UNAVAILABLE", expected);
}

static void test_who_waits_for_a_model_is_told_of_the_end(void **state)
{
    (void)state;
    bed.options.control = CONTROL_DEMAND;
    bed.options.configure = configure_held;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_start(&bed);
    model_bed_settle(&bed);
    static struct pending orders[2]; /* One is worked on, the other stands in line. */
    pthread_mutex_lock(&reading);
    give(&orders[0], REGISTRY_NEED, "a");
    give(&orders[1], REGISTRY_NEED, "a");
    registry_refuse_needs(bed.registry);
    model_bed_turn_until(&bed, &orders[0].done);
    model_bed_turn_until(&bed, &orders[1].done);
    pthread_mutex_unlock(&reading);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(orders[i].order.status, WEIR_EDRAINING);
        assert_string_equal(orders[i].order.err.text, "the server is shutting down");
    }
}

static const char *entry_reason(const char *name)
{
    const struct catalogue *catalogue = registry_catalogue(bed.registry, &bed.home);
    const struct catalogue_entry *entry = catalogue_find(catalogue, bytes_of(name));
    return entry == NULL || entry->reason == NULL ? "" : entry->reason;
}

/* Asks again until the index says so; each time the manager has a turn. */
static void await_reason(const char *name, const char *reason)
{
    const uint64_t until_ns = clock_add(clock_now_ns(&bed.clock), 120 * NS_PER_S);
    while (strcmp(entry_reason(name), reason) != 0) {
        assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "nobody", NULL, NULL), WEIR_ENOENT);
        if (clock_now_ns(&bed.clock) > until_ns) {
            fail_msg("of '%s' the index says '%s'", name, entry_reason(name));
        }
    }
}

/* There is room for one model, which is "a", in use; "b" is there, too. */
static struct model *start_with_room_for_one(const char *settings_of_a)
{
    bed.options.room.models_max = 1;
    model_bed_sim(&bed, "a", 1, settings_of_a);
    model_bed_sim(&bed, "b", 1, "");
    model_bed_start(&bed);
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "a", NULL, NULL), WEIR_OK);
    return model_bed_lease(&bed, "a", 0);
}

static void test_the_index_says_what_a_load_waits_for(void **state)
{
    (void)state;
    struct model *model = start_with_room_for_one("update: replace\n");
    model_bed_put(&bed, 0, "a/2/", "");
    static struct pending replacing;
    static struct pending behind;
    give(&replacing, REGISTRY_LOAD, "a");
    give(&behind, REGISTRY_LOAD, "b");
    await_reason("a", "the load under way waits for version 1, which it replaces and which is "
                      "still in use");
    await_reason("b", "the load under way waits for room behind another one");
    model_bed_release(&bed, model);
    model_bed_turn_until(&bed, &replacing.done);
    assert_int_equal(replacing.order.status, WEIR_OK);
    assert_string_equal(entry_reason("a"), "");
    model_bed_turn_until(&bed, &behind.done);
    assert_int_equal(behind.order.status, WEIR_ENOMEM);
    assert_non_null(strstr(entry_reason("b"), "no room for model 'b'"));
}

static void test_also_that_others_go_for_it(void **state)
{
    (void)state;
    struct model *model = start_with_room_for_one("");
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "a", NULL, NULL), WEIR_OK);
    static struct pending waiting;
    give(&waiting, REGISTRY_LOAD, "b");
    await_reason("b", "the load under way waits for room (resident_models_max): those that go are "
                      "still in use");
    model_bed_release(&bed, model);
    model_bed_turn_until(&bed, &waiting.done);
    assert_int_equal(waiting.order.status, WEIR_OK);
}

/* An ensemble that waits for a part holds, while it serves, the one that is to go first. */
static void test_a_part_is_replaced_while_its_ensemble_waits_for_it(void **state)
{
    (void)state;
    bed.options.configure = configure_held;
    bed.options.room.models_max = 2;
    model_bed_sim(&bed, "a", 1, "update: replace\n");
    model_bed_ensemble(&bed, "e",
                       "platform: ensemble\n"
                       "ensemble_scheduling:\n"
                       "  step:\n"
                       "  - { model_name: a, input_map: { x: x }, output_map: { y: y } }\n");
    model_bed_start(&bed);
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "e", NULL, NULL), WEIR_OK);
    model_bed_put(&bed, 0, "a/2/", "");
    static struct pending part;
    static struct pending whole;
    pthread_mutex_lock(&reading);
    give(&part, REGISTRY_LOAD, "a");
    give(&whole, REGISTRY_LOAD, "e");
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "nobody", NULL, NULL), WEIR_OK);
    pthread_mutex_unlock(&reading);
    model_bed_turn_until(&bed, &part.done);
    assert_int_equal(part.order.status, WEIR_OK);
    model_bed_turn_until(&bed, &whole.done);
    assert_int_equal(whole.order.status, WEIR_OK);
    model_bed_expect(&bed, "e/1 READY", "");
}

int main(void)
{
#define CASE(test) MODEL_BED_TEST(test, &bed)
    const struct CMUnitTest tests[] = {
        CASE(test_a_failed_load_says_why_though_it_is_unloaded_at_once),
        CASE(test_nobody_is_left_without_a_reason),
        CASE(test_who_waits_for_a_model_is_told_of_the_end),
        CASE(test_the_index_says_what_a_load_waits_for),
        CASE(test_also_that_others_go_for_it),
        CASE(test_a_part_is_replaced_while_its_ensemble_waits_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
