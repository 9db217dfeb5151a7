/* Who holds how much memory: what is booked is within the budgets, and all of it comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ledger.h"

#define MIB ((uint64_t)1 << 20)
#define BOOKINGS 48
#define STEPS 400
#define SEEDS 200

static struct ledger ledger;

static int set_up(void **state)
{
    (void)state;
    ledger_init(&ledger);
    ledger_device(&ledger, "cpu");
    ledger_device(&ledger, "npu");
    return 0;
}

static uint32_t group_of(const char *name)
{
    uint32_t group;
    assert_int_equal(ledger_group(&ledger, name, &group, NULL), WEIR_OK);
    return group;
}

static struct ledger_need need(uint32_t device, uint64_t host, uint64_t on_device)
{
    return (struct ledger_need){ .device = device,
                                 .group = LEDGER_NO_GROUP,
                                 .models = 1,
                                 .host_bytes = host * MIB,
                                 .device_bytes = on_device * MIB };
}

static void test_a_load_books_its_peak_then_what_was_measured(void **state)
{
    (void)state;
    struct ledger_booking booking = { 0 };
    const struct ledger_need peak = need(0, 230, 0);
    const struct ledger_counts counts = { .heap_bytes = 10 * MIB,
                                          .mapped_bytes = 90 * MIB,
                                          .peak_bytes = 120 * MIB };
    ledger_book(&ledger, &booking, &peak);
    assert_int_equal(ledger_total(&ledger)->bytes[LEDGER_LOADING], 230 * MIB);
    ledger_measure(&ledger, &booking, &counts);
    assert_int_equal(ledger_total(&ledger)->bytes[LEDGER_LOADING], 0);
    assert_int_equal(ledger_device_account(&ledger, 0)->bytes[LEDGER_MAPPED], 90 * MIB);
    assert_int_equal(ledger_total(&ledger)->held_bytes, 100 * MIB);
    ledger_leave(&ledger, &booking);
    assert_int_equal(ledger_total(&ledger)->held_bytes, 100 * MIB); /* Until it is back. */
    ledger_return(&ledger, &booking);
    assert_int_equal(ledger_total(&ledger)->held_bytes, 0);
    assert_int_equal(ledger_total(&ledger)->models, 0);
}

static void test_devices_that_were_left_out_hold_nothing(void **state)
{
    (void)state;
    struct ledger_booking booking = { 0 };
    struct ledger_need both = need(0, 10, 50);
    both.also = UINT64_C(1) << 1;
    ledger_book(&ledger, &booking, &both);
    assert_int_equal(ledger_device_account(&ledger, 1)->held_bytes, 50 * MIB);
    ledger_move(&ledger, &booking, 0, 0);
    ledger_measure(&ledger, &booking, &(struct ledger_counts){ .device_bytes = 40 * MIB });
    assert_int_equal(ledger_device_account(&ledger, 0)->held_bytes, 40 * MIB);
    assert_int_equal(ledger_device_account(&ledger, 1)->held_bytes, 0);
    assert_int_equal(ledger_device_account(&ledger, 1)->models, 0);
    assert_int_equal(ledger_total(&ledger)->held_bytes, 40 * MIB);
    assert_int_equal(ledger_total(&ledger)->models, 1);
    ledger_return(&ledger, &booking);
    assert_int_equal(ledger_total(&ledger)->held_bytes, 0);
}

static void test_what_a_model_takes_is_everywhere(void **state)
{
    (void)state;
    const struct ledger_counts counts = {
        .heap_bytes = 1, .mapped_bytes = 20, .device_bytes = 300, .peak_bytes = 4000
    }; /* Which has passed. */
    assert_int_equal(ledger_counts_bytes(&counts), 321);
}

static void test_every_budget_holds(void **state)
{
    (void)state;
    struct ledger_lack lack = { 0 };
    struct ledger_need wanted = need(1, 10, 100);
    wanted.group = group_of("vision");
    assert_true(ledger_fits(&ledger, &wanted, false, &lack)); /* None has a limit. */
    ledger_total(&ledger)->max_bytes = 110 * MIB;
    ledger_device_account(&ledger, 0)->max_bytes = 10 * MIB;
    ledger_device_account(&ledger, 1)->max_bytes = 100 * MIB;
    ledger_group_account(&ledger, wanted.group)->max_bytes = 110 * MIB;
    assert_true(ledger_fits(&ledger, &wanted, false, &lack)); /* To the byte. */
    struct ledger_account *const each[] = { ledger_total(&ledger),
                                            ledger_device_account(&ledger, 0),
                                            ledger_device_account(&ledger, 1),
                                            ledger_group_account(&ledger, wanted.group) };
    for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
        each[i]->max_bytes -= 3 * MIB;
        assert_false(ledger_fits(&ledger, &wanted, false, &lack));
        assert_ptr_equal(lack.account, each[i]);
        assert_int_equal(lack.missing_bytes, 3 * MIB);
        each[i]->max_bytes += 3 * MIB;
    }
    wanted.group = group_of("text"); /* Another group's budget is none of its business. */
    ledger_group_account(&ledger, group_of("vision"))->max_bytes = 1;
    assert_true(ledger_fits(&ledger, &wanted, false, &lack));
}

static void test_what_leaves_makes_room_later(void **state)
{
    (void)state;
    struct ledger_lack lack = { 0 };
    struct ledger_booking booking = { 0 };
    const struct ledger_need first = need(0, 60, 0);
    ledger_total(&ledger)->max_bytes = 100 * MIB;
    ledger.models_max = 1;
    ledger_book(&ledger, &booking, &first);
    ledger_measure(&ledger, &booking, &(struct ledger_counts){ .heap_bytes = 60 * MIB });
    assert_false(ledger_fits(&ledger, &first, true, &lack));
    assert_int_equal(lack.missing_bytes, 0); /* One model too many. */
    ledger.models_max = 2;
    assert_false(ledger_fits(&ledger, &first, true, &lack));
    assert_int_equal(lack.missing_bytes, 20 * MIB);
    ledger_leave(&ledger, &booking);
    assert_false(ledger_fits(&ledger, &first, false, &lack));
    assert_true(ledger_fits(&ledger, &first, true, &lack));
    ledger_return(&ledger, &booking);
    assert_true(ledger_fits(&ledger, &first, false, &lack));
}

static void test_what_nobody_booked_counts(void **state)
{
    (void)state;
    struct ledger_lack lack = { 0 };
    const struct ledger_need wanted = need(0, 60, 0);
    const struct ledger_need elsewhere = need(1, 0, 1000);
    ledger_device_account(&ledger, 0)->max_bytes = 100 * MIB;
    ledger_observe(&ledger, 10 * MIB, 30 * MIB);
    assert_true(ledger_fits(&ledger, &wanted, false, &lack));
    ledger_observe(&ledger, 20 * MIB, 30 * MIB);
    assert_false(ledger_fits(&ledger, &wanted, false, &lack));
    assert_int_equal(lack.missing_bytes, 10 * MIB);
    assert_true(ledger_fits(&ledger, &elsewhere, false, &lack)); /* Not what is full. */
    ledger_observe(&ledger, 0, 0);
    assert_int_equal(ledger_total(&ledger)->held_bytes, 0);
}

static void test_groups_are_found_again_and_bounded(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    char name[LEDGER_NAME_BYTES + 1];
    uint32_t group;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(ledger_group(&ledger, name, &group, &err), WEIR_EINVAL);
    for (uint32_t i = 0; i < LEDGER_GROUPS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "g%u", i);
        assert_int_equal(group_of(name), i);
    }
    assert_int_equal(group_of("g7"), 7);
    assert_int_equal(ledger_group(&ledger, "more", &group, &err), WEIR_EFULL);
    assert_non_null(strstr(err.text, "more"));
}

/* ---- By seed --------------------------------------------------------------------------------- */

struct world {
    unsigned int seed;
    struct ledger_booking bookings[BOOKINGS];
    struct ledger_need peaks[BOOKINGS];
};

static uint64_t below(struct world *world, uint64_t most)
{
    return (uint64_t)rand_r(&world->seed) % most;
}

static void come(struct world *world, uint32_t i)
{
    struct ledger_lack lack;
    struct ledger_need *peak = &world->peaks[i];
    *peak = need((uint32_t)below(world, 2), below(world, 40), below(world, 40));
    peak->group = below(world, 2) == 0 ? LEDGER_NO_GROUP : group_of("g");
    if (ledger_fits(&ledger, peak, false, &lack)) {
        ledger_book(&ledger, &world->bookings[i], peak);
    }
}

/* What is measured is at most the peak that was booked. */
static void measure(struct world *world, uint32_t i)
{
    const struct ledger_need *peak = &world->peaks[i];
    const uint64_t heap = below(world, peak->host_bytes / MIB + 1) * MIB;
    const struct ledger_counts counts = { .heap_bytes = heap,
                                          .mapped_bytes = (peak->host_bytes - heap) / 2,
                                          .device_bytes = peak->device_bytes };
    ledger_measure(&ledger, &world->bookings[i], &counts);
}

static void check_laws(const struct world *world)
{
    uint64_t bytes = 0;
    uint64_t models = 0;
    for (uint32_t i = 0; i < BOOKINGS; i++) {
        const struct ledger_booking *booking = &world->bookings[i];
        bytes += booking->need.host_bytes + booking->need.device_bytes;
        models += booking->state == LEDGER_NONE ? 0 : 1;
    }
    assert_int_equal(ledger_total(&ledger)->held_bytes, bytes);
    assert_int_equal(ledger_total(&ledger)->models, models);
    for (uint32_t i = 0; i < ledger.account_count; i++) {
        const struct ledger_account *account = &ledger.accounts[i];
        uint64_t sum = 0;
        for (uint32_t source = 0; source < LEDGER_SOURCE_COUNT; source++) {
            sum += account->bytes[source];
        }
        assert_int_equal(account->held_bytes, sum);
        assert_true(account->held_bytes <= account->max_bytes);
        assert_true(account->leaving_bytes <= account->held_bytes);
    }
}

static void step(struct world *world)
{
    const uint32_t i = (uint32_t)below(world, BOOKINGS);
    struct ledger_booking *booking = &world->bookings[i];
    switch (booking->state) {
    case LEDGER_NONE:
        come(world, i);
        break;
    case LEDGER_BOOKED:
        if (below(world, 5) == 0) {
            ledger_return(&ledger, booking); /* It failed. */
        } else {
            measure(world, i);
        }
        break;
    case LEDGER_LOADED:
        ledger_leave(&ledger, booking);
        break;
    case LEDGER_LEAVING:
        ledger_return(&ledger, booking);
        break;
    }
}

static void test_by_seed_budgets_hold_and_nothing_leaks(void **state)
{
    for (unsigned int seed = 1; seed <= SEEDS; seed++) {
        struct world world = { .seed = seed };
        (void)set_up(state);
        ledger_total(&ledger)->max_bytes = 500 * MIB;
        ledger_device_account(&ledger, 0)->max_bytes = 300 * MIB;
        ledger_device_account(&ledger, 1)->max_bytes = 150 * MIB;
        ledger_group_account(&ledger, group_of("g"))->max_bytes = 200 * MIB;
        for (uint32_t i = 0; i < STEPS; i++) {
            step(&world);
            check_laws(&world);
        }
        for (uint32_t i = 0; i < BOOKINGS; i++) {
            ledger_return(&ledger, &world.bookings[i]);
        }
        for (uint32_t i = 0; i < ledger.account_count; i++) {
            assert_int_equal(ledger.accounts[i].held_bytes, 0);
            assert_int_equal(ledger.accounts[i].leaving_bytes, 0);
            assert_int_equal(ledger.accounts[i].models, 0);
        }
    }
}

#define CASE(test) cmocka_unit_test_setup(test, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_a_load_books_its_peak_then_what_was_measured),
        CASE(test_devices_that_were_left_out_hold_nothing),
        CASE(test_what_a_model_takes_is_everywhere),
        CASE(test_every_budget_holds),
        CASE(test_what_leaves_makes_room_later),
        CASE(test_what_nobody_booked_counts),
        CASE(test_groups_are_found_again_and_bounded),
        CASE(test_by_seed_budgets_hold_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
