/*
 * catalogue: a snapshot leases what it shows for as long as somebody reads it, and says why where
 * it cannot.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "engine/catalogue.h"
#include "fake_model.h"

static struct fake_model fakes[2];

static void add(struct catalogue *catalogue, struct catalogue_entry *entry, uint64_t version,
                enum model_state state, const char *reason, struct model *model)
{
    (void)catalogue;
    const struct catalogue_version added = {
        .version = version,
        .state = state,
        .reason = reason,
        .model = model,
        .failed = state == MODEL_UNAVAILABLE && strcmp(reason, "unloaded") != 0,
    };
    assert_int_equal(catalogue_add_version(catalogue, entry, &added), WEIR_OK);
}

static struct catalogue_entry *entry_of(struct catalogue *catalogue, const char *name,
                                        const char *reason)
{
    struct catalogue_entry *entry = catalogue_add(catalogue, name, reason, 4);
    assert_non_null(entry);
    return entry;
}

static struct catalogue *make(void)
{
    for (size_t i = 0; i < 2; i++) {
        fake_model_init(&fakes[i]);
    }
    struct catalogue *catalogue = catalogue_create(5, 8);
    assert_non_null(catalogue);
    struct catalogue_entry *entry = entry_of(catalogue, "served", NULL);
    add(catalogue, entry, 1, MODEL_READY, NULL, &fakes[0].model);
    add(catalogue, entry, 2, MODEL_READY, NULL, &fakes[1].model);
    add(catalogue, entry, 3, MODEL_UNAVAILABLE, "torn", NULL);
    entry = entry_of(catalogue, "failed", NULL);
    add(catalogue, entry, 1, MODEL_UNAVAILABLE, "torn", NULL);
    entry = entry_of(catalogue, "unloaded", NULL);
    add(catalogue, entry, 1, MODEL_UNAVAILABLE, "unloaded", NULL);
    entry = entry_of(catalogue, "going", NULL);
    add(catalogue, entry, 1, MODEL_UNLOADING, NULL, NULL);
    entry = entry_of(catalogue, "coming", NULL);
    add(catalogue, entry, 1, MODEL_LOADING, NULL, NULL);
    entry_of(catalogue, "barred", "no good name");
    entry_of(catalogue, "looking", NULL)->loading = true;
    entry_of(catalogue, "known", NULL);
    assert_int_equal(catalogue_seal(catalogue), WEIR_OK);
    return catalogue;
}

static void test_the_highest_version_is_leased(void **state)
{
    (void)state;
    struct catalogue *catalogue = make();
    struct model *model = NULL;
    assert_int_equal(catalogue_lease(catalogue, bytes_of("served"), 0, &model, NULL), WEIR_OK);
    assert_ptr_equal(model, &fakes[1].model);
    model_release(model);
    assert_int_equal(catalogue_lease(catalogue, bytes_of("served"), 1, &model, NULL), WEIR_OK);
    assert_ptr_equal(model, &fakes[0].model);
    model_release(model);
    assert_ptr_equal(catalogue_find(catalogue, bytes_of("served"))->latest, &fakes[1].model);
    catalogue_release(catalogue);
}

static void test_refusals_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t version;
        enum weir_status status;
        const char *text;
    } rows[] = {
        { "nothing", 0, WEIR_ENOENT, "Request for unknown model: 'nothing' is not found" },
        { "served", 9, WEIR_ENOENT, "'served' version 9 is not found" },
        { "served", 3, WEIR_EUNAVAILABLE, "'served' version 3 is not at ready state: torn" },
        { "failed", 0, WEIR_EUNAVAILABLE, "'failed' has no available versions: torn" },
        { "unloaded", 0, WEIR_ENOENT, "'unloaded' has no available versions" },
        { "unloaded", 1, WEIR_ENOENT, "version 1 is not found" },
        { "going", 0, WEIR_ENOENT, "has no available versions" },
        { "coming", 0, WEIR_ELOADING, "it is loading" },
        { "coming", 1, WEIR_ELOADING, "it is loading" },
        { "barred", 0, WEIR_EUNAVAILABLE, "no good name" },
        { "barred", 1, WEIR_EUNAVAILABLE, "no good name" },
        { "looking", 0, WEIR_ELOADING, "it is loading" },
        { "known", 0, WEIR_ENOENT, "has no available versions" },
    };
    struct catalogue *catalogue = make();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct model *model = NULL;
        struct weir_err err = { 0 };
        assert_int_equal(
            catalogue_lease(catalogue, bytes_of(rows[i].name), rows[i].version, &model, &err),
            rows[i].status);
        assert_null(model);
        if (strstr(err.text, rows[i].text) == NULL) {
            fail_msg("found '%s', expected '%s'", err.text, rows[i].text);
        }
    }
    catalogue_release(catalogue);
}

static void test_the_last_holder_gives_the_leases_back(void **state)
{
    (void)state;
    struct catalogue *catalogue = make();
    for (size_t i = 0; i < 2; i++) {
        model_release(&fakes[i].model); /* The registry's own. */
    }
    catalogue_acquire(catalogue);
    catalogue_release(catalogue);
    assert_false(fakes[0].unleased);
    struct model *model = NULL;
    assert_int_equal(catalogue_lease(catalogue, bytes_of("served"), 1, &model, NULL), WEIR_OK);
    catalogue_release(catalogue);
    assert_false(fakes[0].unleased);
    assert_true(fakes[1].unleased);
    model_release(model);
    assert_true(fakes[0].unleased);
}

static void test_entries_are_sorted_by_name(void **state)
{
    (void)state;
    struct catalogue *catalogue = make();
    for (uint32_t i = 1; i < catalogue->count; i++) {
        assert_true(strcmp(catalogue->list[i - 1].name, catalogue->list[i].name) < 0);
    }
    assert_int_equal(catalogue->count, 8);
    catalogue_release(catalogue);
    catalogue_release(NULL);
}

static void test_states_have_the_index_names(void **state)
{
    (void)state;
    assert_string_equal(model_state_text(MODEL_READY), "READY");
    assert_string_equal(model_state_text(MODEL_UNAVAILABLE), "UNAVAILABLE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_highest_version_is_leased),
        cmocka_unit_test(test_refusals_say_why),
        cmocka_unit_test(test_the_last_holder_gives_the_leases_back),
        cmocka_unit_test(test_entries_are_sorted_by_name),
        cmocka_unit_test(test_states_have_the_index_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
