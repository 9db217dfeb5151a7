/*
 * A registry with more models than memory, on simulated devices, by seed: requests, loads and
 * unloads come in any order and many at a time, some models fail to load, budgets change.
 *
 * Laws, in every snapshot: no budget is exceeded, an account's sources add up to what it holds,
 * what serves is booked.  At the end: every order was answered, and everything booked is back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model_bed.h"
#include "seeds.h"

#define MODELS 12
#define ORDERS 8 /* At a time. */
#define STEPS 40
#define UNIT_BYTES (UINT64_C(1) << 30) /* Simulated memory costs nothing. */

struct
try {
    struct registry_order order;
    bool done;
};

struct world {
    uint64_t seed;
    uint64_t random;
    struct model_bed bed;
    struct room_options room;
    char names[MODELS][8];
    struct try tries[ORDERS];
    uint64_t loads;
};

static uint64_t below(struct world *world, uint64_t most)
{
    return dice_below(&world->random, most);
}

static void add_model(struct world *world, uint32_t i)
{
    char text[256];
    const char *fails = below(world, 10) == 0 ? "  load_fails: by seed\n" : "";
    const char *group = below(world, 3) == 0 ? "memory_group: g\n" : "";
    (void)snprintf(world->names[i], sizeof(world->names[i]), "m%" PRIu32, i);
    (void)snprintf(text, sizeof(text),
                   "  memory_per_model: %" PRIu64 "GiB\n  load: %" PRIu64 "us\n%s%s",
                   1 + below(world, 5), below(world, 500), fails, group);
    model_bed_sim(&world->bed, world->names[i], 1, text);
}

static void set_up(struct world *world, uint64_t seed)
{
    *world = (struct world){ .seed = seed, .random = dice_of(seed) };
    model_bed_init(&world->bed);
    for (uint32_t i = 0; i < MODELS; i++) {
        add_model(world, i);
    }
    world->room = (struct room_options){
        .memory_max = (8 + below(world, 8)) * UNIT_BYTES,
        .models_max = below(world, 2) == 0 ? 0 : 2 + below(world, 5),
        .eviction = (enum eviction)below(world, 3),
        .preload_next = below(world, 2) == 0,
        .first_use_ns = below(world, 4) == 0 ? NS_PER_MS : 0,
        .group_count = 1,
        .groups = { { "g", 7 * UNIT_BYTES } },
    };
    world->bed.options.control = CONTROL_DEMAND;
    world->bed.options.room = world->room;
    model_bed_start(&world->bed);
    model_bed_settle(&world->bed);
}

static void check_account(const struct world *world, const struct ledger_account *account)
{
    uint64_t sum = 0;
    for (uint32_t source = 0; source < LEDGER_SOURCE_COUNT; source++) {
        sum += account->bytes[source];
    }
    LAW(sum == account->held_bytes, "%s holds %" PRIu64 ", its sources are %" PRIu64, account->name,
        account->held_bytes, sum);
    LAW(account->max_bytes == 0 || account->held_bytes <= account->max_bytes,
        "%s holds %" PRIu64 " of %" PRIu64, account->name, account->held_bytes, account->max_bytes);
}

static void check_laws(struct world *world)
{
    const struct catalogue *catalogue = registry_catalogue(world->bed.registry, &world->bed.home);
    uint64_t serving = 0;
    for (uint32_t i = 0; i < catalogue->account_count; i++) {
        check_account(world, &catalogue->accounts[i]);
    }
    for (uint32_t i = 0; i < catalogue->count; i++) {
        if (catalogue->list[i].latest != NULL) {
            struct ledger_counts counts;
            model_memory(catalogue->list[i].latest, &counts);
            serving += counts.device_bytes;
        }
    }
    LAW(serving <= catalogue->accounts[0].bytes[LEDGER_DEVICE],
        "%" PRIu64 " bytes serve, %" PRIu64 " are booked", serving,
        catalogue->accounts[0].bytes[LEDGER_DEVICE]);
    LAW(catalogue->models_max == 0 || catalogue->accounts[0].models <= catalogue->models_max,
        "%" PRIu64 " models of %" PRIu64, catalogue->accounts[0].models, catalogue->models_max);
}

static void ended(struct registry_order *order)
{
    struct try *try = (struct try *)(void *)order;
    try->done = true;
}

static enum registry_order_kind draw_kind(struct world *world)
{
    const uint64_t dice = below(world, 10);
    return dice < 7 ? REGISTRY_NEED : dice < 8 ? REGISTRY_LOAD : REGISTRY_UNLOAD;
}

/* Some orders at once, each answered in the end. */
static void give_orders(struct world *world)
{
    const uint64_t count = 1 + below(world, ORDERS);
    for (uint64_t i = 0; i < count; i++) {
        struct try *try = &world->tries[i];
        *try = (struct try){ .order = { .home = &world->bed.home,
                                        .kind = draw_kind(world),
                                        .name = world->names[below(world, MODELS)],
                                        .done = ended } };
        registry_order(world->bed.registry, &try->order);
    }
    for (uint64_t i = 0; i < count; i++) {
        model_bed_turn_until(&world->bed, &world->tries[i].done);
        check_laws(world);
        const enum weir_status status = world->tries[i].order.status;
        world->loads += status == WEIR_OK ? 1 : 0;
        LAW(status == WEIR_OK || world->tries[i].order.err.text[0] != '\0', "no reason for %s",
            weir_status_text(status));
    }
}

/* Never below what is held: that budget would be exceeded until somebody goes. */
static void raise_budget(struct world *world)
{
    world->room.memory_max += UNIT_BYTES;
    registry_set(world->bed.registry, &world->room, world->bed.options.poll_ns);
}

static void step(struct world *world)
{
    switch (below(world, 8)) {
    case 0:
        raise_budget(world);
        break;
    case 1:
    case 2:
        (void)model_bed_infer(&world->bed, world->names[below(world, MODELS)], 0);
        break;
    default:
        give_orders(world);
    }
    check_laws(world);
}

static bool is_back(struct world *world)
{
    const struct ledger_account *all =
        registry_catalogue(world->bed.registry, &world->bed.home)->accounts;
    return all->bytes[LEDGER_DEVICE] == 0 && all->bytes[LEDGER_LOADING] == 0 &&
           all->bytes[LEDGER_HEAP] == 0 && all->models == 0 && all->leaving_bytes == 0;
}

static uint64_t run_seed(struct world *world, uint64_t seed)
{
    set_up(world, seed);
    for (uint32_t i = 0; i < STEPS; i++) {
        step(world);
    }
    for (uint32_t i = 0; i < MODELS; i++) {
        const enum weir_status status =
            model_bed_order(&world->bed, REGISTRY_UNLOAD, world->names[i], NULL, NULL);
        LAW(status == WEIR_OK, "unloading: %s", weir_status_text(status));
    }
    for (uint32_t i = 0; !is_back(world); i++) {
        LAW(i < 1000, "memory is still booked after everything was unloaded");
        const enum weir_status status =
            model_bed_order(&world->bed, REGISTRY_REFRESH, "", NULL, NULL);
        LAW(status == WEIR_OK, "refreshing: %s", weir_status_text(status));
    }
    model_bed_finish(&world->bed);
    return world->loads;
}

int main(int argc, char **argv)
{
    const struct seeds seeds = seeds_asked(argc, argv, 40);
    static struct world world;
    uint64_t loads = 0;
    for (uint64_t seed = seeds.first; seed < seeds.end; seed++) {
        loads += run_seed(&world, seed);
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " orders carried out, every law held\n",
           seeds.end - seeds.first, loads);
    return 0;
}
