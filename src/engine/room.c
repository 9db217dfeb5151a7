/*
 * What a load needs is asked of all budgets that it charges; where one does not hold it, only
 * models that charge the same budget can make room.
 *
 * What nobody booked is measured while nothing comes or goes: a load under way has booked its peak,
 * and would else count twice.
 */
#include "engine/room.h"

#include <assert.h>
#include <string.h>

#include "engine/ahead.h"
#include "engine/engine.h"
#include "engine/entry.h"
#include "engine/pool.h"
#include "engine/room_refuse.h"
#include "tensor/block.h"
#include "util/err.h"
#include "util/memstat.h"

/* Peak of a load against its files, before anything was measured; on demand models are converted
 * then, which takes the file, its weights and what is written of them. */
#define FIRST_LOAD_SHARE 2.3
#define CONVERT_SHARE 3.2
#define LOOK_NS (1 * NS_PER_S) /* How often idle models are looked for. */
#define CHECK_NS (10 * NS_PER_S)
#define WAIT_NS \
    (10 * NS_PER_S)           /* A load waits no longer for residents that work or came just now. */
#define MODEL_BYTES_MIN 65536 /* Books at least so much: nothing is for free. */

static const struct room_options *options_of(const struct entry_host *host)
{
    return &host->room_options;
}

static bool is_demand(const struct entry_host *host)
{
    return host->options->control == CONTROL_DEMAND;
}

/* ---- Budgets --------------------------------------------------------------------------------- */

void room_set(struct room *room, const struct room_options *options)
{
    room->kept_ns = 0;
    struct ledger *ledger = &room->ledger;
    ledger_clear_budgets(ledger);
    ledger->models_max = options->models_max;
    ledger_total(ledger)->max_bytes = options->memory_max;
    for (uint32_t i = 0; i < options->device_count; i++) {
        for (uint32_t d = 0; d < ledger->device_count; d++) {
            struct ledger_account *account = ledger_device_account(ledger, d);
            if (strcmp(account->name, options->devices[i].name) == 0) {
                account->max_bytes = options->devices[i].max_bytes;
            }
        }
    }
    for (uint32_t i = 0; i < options->group_count; i++) {
        uint32_t group;
        if (ledger_group(ledger, options->groups[i].name, &group, NULL) == WEIR_OK) {
            ledger_group_account(ledger, group)->max_bytes = options->groups[i].max_bytes;
        }
    }
}

void room_init(struct room *room, const struct engine *engine, const struct room_options *options)
{
    *room = (struct room){ 0 };
    list_init(&room->waiting);
    ledger_init(&room->ledger);
    for (uint32_t i = 0; i < engine->pool_count; i++) {
        const struct pool *pool = engine->pools[i];
        for (uint32_t d = 0; d < pool->device_count; d++) {
            ledger_device(&room->ledger, pool->devices[d].name);
        }
    }
    struct memstat now;
    memstat_read(&now);
    room->server_file = now.file_bytes;
    room_set(room, options);
}

struct ledger_need room_estimate(const struct entry_host *host, const struct slot *slot,
                                 uint64_t fingerprint, uint64_t file_bytes)
{
    if (slot->peak_fingerprint == fingerprint && slot->peak.host_bytes > 0) {
        return slot->peak;
    }
    const uint64_t guess =
        (uint64_t)((is_demand(host) ? CONVERT_SHARE : FIRST_LOAD_SHARE) * (double)file_bytes);
    return (struct ledger_need){ .host_bytes = guess > MODEL_BYTES_MIN ? guess : MODEL_BYTES_MIN };
}

/* Of all the entry's loads together that have not failed. */
static struct ledger_need need_of(const struct entry *entry)
{
    struct ledger_need sum = { .group = LEDGER_NO_GROUP };
    for (uint32_t i = 0; i < entry->load_count; i++) {
        const struct ledger_need *one = &entry->loads[i].need;
        if (entry->loads[i].resident == NULL) {
            continue;
        }
        sum.device = one->device;
        sum.also = one->also;
        sum.group = one->group;
        sum.models += one->models;
        sum.host_bytes += one->host_bytes;
        sum.device_bytes += one->device_bytes;
    }
    return sum;
}

static bool is_still(const struct room *room)
{
    const struct ledger_account *total = &room->ledger.accounts[0];
    return total->bytes[LEDGER_LOADING] == 0 && total->leaving_models == 0;
}

/* What models take changes with their runs.  The result is what of it is in processes of their
 * own. */
static struct ledger_counts measure_all(struct entry_host *host)
{
    struct ledger_counts elsewhere = { 0 };
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        for (struct slot *slot = entry_first_slot(entry); slot != NULL;
             slot = entry_next_slot(entry, slot)) {
            if (slot->model != NULL) {
                struct resident *resident = slot->model->owner;
                struct ledger_counts counts;
                model_memory(slot->model, &counts);
                ledger_measure(&host->room.ledger, &resident->booking, &counts);
                const bool isolated = slot->model->config->isolation == ISOLATE_PROCESS;
                elsewhere.heap_bytes += isolated ? counts.heap_bytes : 0;
                elsewhere.mapped_bytes += isolated ? counts.mapped_bytes : 0;
            }
        }
    }
    return elsewhere;
}

static void observe(struct entry_host *host)
{
    struct room *room = &host->room;
    if (!is_still(room)) {
        return;
    }
    const struct ledger_counts elsewhere = measure_all(host);
    room->elsewhere_bytes = elsewhere.heap_bytes + elsewhere.mapped_bytes;
    struct memstat now;
    memstat_read(&now);
    const uint64_t *booked = room->ledger.accounts[0].bytes;
    const uint64_t models = booked[LEDGER_HEAP] - elsewhere.heap_bytes;
    const uint64_t rest = now.private_bytes > models ? now.private_bytes - models : 0;
    uint64_t buffers =
        block_pool_used_bytes(host->engine->blocks) + block_pool_kept_bytes(host->engine->blocks);
    /* A tensor that was announced and has not come is address space, and takes no model's room. */
    buffers = buffers < rest || now.private_bytes == 0 ? buffers : rest;
    const uint64_t heap = rest > buffers ? rest - buffers : 0;
    const uint64_t mapped = booked[LEDGER_MAPPED] - elsewhere.mapped_bytes;
    const uint64_t files = now.file_bytes > mapped ? now.file_bytes - mapped : 0;
    const uint64_t own = heap + (files > room->server_file ? files : room->server_file);
    ledger_observe(&room->ledger, buffers, own + room->unseen_bytes);
}

/* The cross-check: what the system counts beyond all that was booked and seen counts as the
 * server's. */
static void checked(struct worker_job *job)
{
    struct room *room = list_entry(job, struct room, check);
    struct entry_host *host = list_entry(room, struct entry_host, room);
    host->jobs--;
    room->checking = false;
    room->proportional_bytes = room->check_bytes;
    room->unseen_bytes = 0;
    observe(host);
    const struct ledger_account *total = ledger_total(&room->ledger);
    const uint64_t known = total->held_bytes - total->bytes[LEDGER_DEVICE] - room->elsewhere_bytes;
    const bool more = is_still(room) && room->proportional_bytes > known;
    room->unseen_bytes = more ? room->proportional_bytes - known : 0;
    host->dirty = true;
}

/* Scanner. */
static void read_proportional(struct worker_job *job)
{
    struct room *room = list_entry(job, struct room, check);
    room->check_bytes = memstat_proportional_bytes();
    job->run = checked;
    worker_send(list_entry(room, struct entry_host, room)->manager, job);
}

/* Only after a change, so that an idle server stays idle. */
static void check_now_and_then(struct entry_host *host, uint64_t now_ns)
{
    struct room *room = &host->room;
    if (room->checking || host->stopping ||
        (room->checked_ns > 0 && now_ns - room->checked_ns < CHECK_NS)) {
        return;
    }
    room->checking = true;
    room->checked_ns = now_ns;
    room->check.run = read_proportional;
    host->jobs++;
    worker_send(host->scanner, &room->check);
}

/* Of main memory: without one nobody has to know so exactly. */
static bool has_budget(const struct room *room)
{
    return room->ledger.accounts[0].max_bytes > 0 || room->ledger.accounts[1].max_bytes > 0;
}

/* ---- Who may go ------------------------------------------------------------------------------ */

static bool is_pinned(const struct entry *entry)
{
    const struct room_options *options = options_of(entry->host);
    for (uint32_t i = 0; i < options->pinned_count; i++) {
        if (strcmp(options->pinned[i], entry->name) == 0) {
            return true;
        }
    }
    return entry->required;
}

/* How many parts of it stay for its sake: those of an ensemble that serves, or is being loaded. */
static uint32_t kept_parts(const struct entry *whole)
{
    return whole->wants != NULL && (entry_serves(whole) || whole->busy) ? whole->wants->count : 0;
}

/* Notes on whom an ensemble holds a lease, or is about to.  Before each look at who may leave. */
static void mark_parts(struct entry_host *host)
{
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        entry->is_part = false;
    }
    for (struct entry *whole = entry_first(host); whole != NULL; whole = entry_next(whole)) {
        const uint32_t count = kept_parts(whole);
        for (uint32_t i = 0; i < count; i++) {
            struct entry *part = entry_find(host, whole->wants->items[i].name);
            if (part != NULL) {
                part->is_part = true;
            }
        }
    }
}

/* Notes what was asked of it since the last look; true: something is being asked now. */
static bool look_at(struct entry *entry, uint64_t now_ns)
{
    bool works = false;
    uint64_t uses = 0;
    for (const struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            uses += model_uses(slot->model);
            works = works || engine_is_working(slot->model);
        }
    }
    usage_add(&entry->usage, uses > entry->uses ? uses - entry->uses : 0, now_ns);
    entry->uses = uses;
    if (works) {
        entry->usage.used_ns = now_ns;
    }
    return works;
}

/* Whoever had it loaded has yet to come: were it to go at once, those who want each other's place
 * could go on like that for ever.  After a look at it. */
static bool is_owed(const struct entry *entry, uint64_t now_ns)
{
    return entry->uses == 0 && entry->foreseen_by == NULL &&
           now_ns < clock_add(entry->loaded_ns, options_of(entry->host)->first_use_ns);
}

enum leave { LEAVE_NOW, LEAVE_LATER, LEAVE_NEVER };

/* *when_ns: where it is LATER, when to ask again. */
static enum leave may_leave(struct entry *entry, uint64_t now_ns, uint64_t *when_ns)
{
    if (is_pinned(entry) || entry->is_part) {
        return LEAVE_NEVER;
    }
    if (entry_is_busy(entry)) {
        *when_ns = clock_add(now_ns, LOOK_NS); /* At the latest: the end of its load is an event. */
        return LEAVE_LATER;
    }
    *when_ns = clock_add(entry->loaded_ns, options_of(entry->host)->residency_ns);
    if (look_at(entry, now_ns) || is_owed(entry, now_ns)) {
        const uint64_t soon_ns = clock_add(now_ns, LOOK_NS / 100);
        *when_ns = *when_ns > soon_ns ? *when_ns : soon_ns;
        return LEAVE_LATER;
    }
    return *when_ns > now_ns ? LEAVE_LATER : LEAVE_NOW;
}

/* Does it charge the account that lacks room?  It may still be loading. */
static bool charges(const struct entry *entry, const struct ledger_account *account)
{
    const struct ledger *ledger = &entry->host->room.ledger;
    for (uint32_t i = 0; i < entry->load_count; i++) {
        const struct resident *resident = entry->loads[i].resident;
        if (resident != NULL && resident->booking.state != LEDGER_NONE &&
            ledger_charges(ledger, &resident->booking.need, account)) {
            return true;
        }
    }
    for (const struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            const struct resident *resident = slot->model->owner;
            if (ledger_charges(ledger, &resident->booking.need, account)) {
                return true;
            }
        }
    }
    return false;
}

static bool asks(const struct entry *entry)
{
    bool asks = false;
    for (uint32_t i = 0; i < entry->load_count; i++) {
        const struct resident *resident = entry->loads[i].resident;
        asks = asks || (resident != NULL && resident->booking.state == LEDGER_NONE);
    }
    return asks;
}

/* An ensemble that is being loaded and has no room for all of it: it holds what it has got.  Those
 * that wait for parts are none of themselves. */
static bool is_stuck(const struct entry *whole)
{
    bool stuck = asks(whole);
    for (uint32_t i = 0; i < kept_parts(whole); i++) {
        const struct entry *part = entry_find(whole->host, whole->wants->items[i].name);
        stuck = stuck || (part != NULL && (asks(part) || (part->waiting && is_stuck(part))));
    }
    return stuck && !entry_serves(whole);
}

/* Of all that goes when it goes: an ensemble lets its parts go.  Each entry is looked at once in a
 * walk, as ensembles that cannot be loaded may be steps of themselves. */
static bool walk_charges(struct entry *entry, const struct ledger_account *account)
{
    const uint32_t count = is_stuck(entry) ? 0 : kept_parts(entry);
    entry->walked = entry->host->walk;
    for (uint32_t i = 0; i < count; i++) {
        struct entry *part = entry_find(entry->host, entry->wants->items[i].name);
        if (part != NULL && part->walked != entry->host->walk && !is_pinned(part) &&
            walk_charges(part, account)) {
            return true;
        }
    }
    return charges(entry, account);
}

/* Would its going help the account that lacks room? */
static bool is_help(struct entry *entry, const struct ledger_account *account)
{
    entry->host->walk++;
    return walk_charges(entry, account);
}

/* What it would take to have it back.  First loads do more: they convert, prove and try; who has
 * not come back yet is taken to do so like those that have. */
static uint64_t reload_ns(const struct room *room, const struct slot *slot)
{
    if (slot->reload_ns > 0 || room->first_ns == 0) {
        return slot->reload_ns > 0 ? slot->reload_ns : slot->first_ns;
    }
    return (uint64_t)((double)slot->first_ns * (double)room->reload_ns / (double)room->first_ns);
}

static void note_time(struct room *room, struct slot *slot, bool first, uint64_t ns)
{
    if (first) {
        slot->first_ns = ns;
        slot->reload_ns = 0;
        return;
    }
    if (slot->reload_ns == 0) {
        room->first_ns += slot->first_ns;
        room->reload_ns += ns;
    }
    slot->reload_ns = slot->reload_ns == 0 ? ns : slot->reload_ns - slot->reload_ns / 4 + ns / 4;
}

static void weigh(const struct entry *entry, struct evict_candidate *out)
{
    *out = (struct evict_candidate){ .usage = &entry->usage };
    for (const struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            const struct resident *resident = slot->model->owner;
            out->bytes += ledger_counts_bytes(&resident->booking.counts);
            out->load_ns += reload_ns(&entry->host->room, slot);
        }
    }
}

/* Who of those that charge the account is missed least, or NULL; *when_ns: when somebody else may
 * go, at the earliest. */
static struct entry *victim(struct entry_host *host, const struct ledger_account *account,
                            uint64_t now_ns, uint64_t *when_ns)
{
    struct entry *best = NULL;
    double least = 0;
    mark_parts(host);
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        uint64_t at_ns = CLOCK_NEVER;
        const enum leave leave =
            is_help(entry, account) ? may_leave(entry, now_ns, &at_ns) : LEAVE_NEVER;
        if (leave == LEAVE_LATER) {
            *when_ns = at_ns < *when_ns ? at_ns : *when_ns;
        }
        if (leave != LEAVE_NOW) {
            continue;
        }
        struct evict_candidate candidate;
        weigh(entry, &candidate);
        const double worth = evict_worth(options_of(host)->eviction, &candidate, now_ns);
        if (best == NULL || worth < least) {
            best = entry;
            least = worth;
        }
    }
    return best;
}

static void evict(struct entry *entry, const char *why)
{
    ahead_unloaded(entry);
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            entry_let_go(slot);
            (void)err_set(&slot->why, WEIR_EUNAVAILABLE, "%s", why);
        }
    }
    entry->serving = false;
    entry->host->room.evictions++;
    entry->host->dirty = true;
}

/* Devices that the model could not be had on take nothing. */
static void book_replicas(struct ledger *ledger, struct ledger_booking *booking,
                          const struct model *model)
{
    uint64_t also = 0;
    for (uint32_t i = 1; i < model->replica_count; i++) {
        also |= UINT64_C(1) << (model->pool->first_device + model->replicas[i].device);
    }
    if (model->replica_count > 0) {
        ledger_move(ledger, booking, model->pool->first_device + model->replicas[0].device, also);
    }
}

void room_measured(struct entry *entry, const struct load_job *load)
{
    struct ledger_booking *booking = &load->resident->booking;
    book_replicas(&entry->host->room.ledger, booking, load->model);
    struct slot *slot = load->slot;
    struct ledger_counts counts;
    model_memory(load->model, &counts);
    ledger_measure(&entry->host->room.ledger, booking, &counts);
    note_time(&entry->host->room, slot, slot->peak_fingerprint != load->fingerprint,
              load->model->load_ns);
    slot->peak = (struct ledger_need){ .host_bytes = counts.peak_bytes,
                                       .device_bytes = counts.device_bytes };
    slot->peak_fingerprint = load->fingerprint;
    entry->host->room.ahead += entry->ahead ? 1 : 0;
    entry->loaded_ns = clock_now_ns(entry->host->clock);
    entry->usage.used_ns = entry->loaded_ns;
    entry->uses = 0;
}

void room_keep(struct room *room, struct ledger_booking *booking)
{
    if (booking->state == LEDGER_BOOKED) { /* Else it was only asking for it. */
        const struct ledger_counts counts = { .heap_bytes = booking->need.host_bytes,
                                              .device_bytes = booking->need.device_bytes,
                                              .peak_bytes = booking->need.host_bytes };
        ledger_measure(&room->ledger, booking, &counts);
    }
}

/* ---- Who may come ---------------------------------------------------------------------------- */

static void book(struct entry *entry)
{
    for (uint32_t i = 0; i < entry->load_count; i++) {
        struct load_job *load = &entry->loads[i];
        if (load->resident != NULL) {
            ledger_book(&entry->host->room.ledger, &load->resident->booking, &load->need);
        }
    }
}

/* What serves goes before what replaces it comes. */
static bool step_aside(struct entry *entry)
{
    if (entry->look.memory.update != UPDATE_REPLACE || !entry_let_replaced_go(entry)) {
        return false;
    }
    entry->serving = false;
    entry->replacing = true;
    entry->host->dirty = true;
    return true;
}

/* Lets go who must, until there is room once they are gone.  False: *lack says what is still
 * missing, *later_ns when somebody else may go. */
static bool make_room(struct entry *entry, const struct ledger_need *need, uint64_t now_ns,
                      uint64_t *later_ns, struct ledger_lack *lack)
{
    struct entry_host *host = entry->host;
    while (!ledger_fits(&host->room.ledger, need, true, lack)) {
        if (step_aside(entry)) {
            continue;
        }
        struct entry *goes = is_demand(host) ? victim(host, lack->account, now_ns, later_ns) : NULL;
        if (goes == NULL) {
            return false;
        }
        evict(goes, "unloaded to make room for others");
    }
    return true;
}

/* Who goes may take as long as those want who hold it; only what goes to be replaced is waited for,
 * as nothing would serve without. */
static uint64_t wait_until_ns(const struct entry *entry)
{
    return entry->replacing ? CLOCK_NEVER : clock_add(entry->asked_ns, WAIT_NS);
}

/* Those that go may be held for as long as an ensemble serves that was put together of them: another
 * one goes for each second that they have not made room. */
static void let_more_go(struct entry *entry, const struct ledger_account *account, uint64_t now_ns,
                        uint64_t *later_ns)
{
    if (!is_demand(entry->host) || entry->replacing) {
        return;
    }
    struct entry *goes = entry->more_ns > 0 && now_ns >= entry->more_ns
                             ? victim(entry->host, account, now_ns, later_ns)
                             : NULL;
    if (goes != NULL) {
        evict(goes, "unloaded to make room for others");
    }
    if (now_ns >= entry->more_ns) {
        entry->more_ns = clock_add(now_ns, LOOK_NS);
    }
    *later_ns = entry->more_ns < *later_ns ? entry->more_ns : *later_ns;
}

/* Where it waits the account that it waits for is blocked. */
enum settled { SETTLED_WAITS, SETTLED_LOADS, SETTLED_REFUSED };

static enum settled settle(struct entry *entry, uint64_t now_ns, uint64_t *when_ns)
{
    struct entry_host *host = entry->host;
    const struct ledger_need need = need_of(entry);
    struct ledger_lack lack;
    if (ledger_fits(&host->room.ledger, &need, false, &lack)) {
        book(entry);
        entry_send_loads(entry);
        return SETTLED_LOADS;
    }
    if (entry->ahead) {
        room_refuse(entry, &lack); /* Nobody goes for what nobody has asked for. */
        return SETTLED_REFUSED;
    }
    struct ledger_account *waits_for = lack.account;
    uint64_t later_ns = CLOCK_NEVER;
    const bool goes = make_room(entry, &need, now_ns, &later_ns, &lack);
    const uint64_t until_ns = wait_until_ns(entry);
    if ((!goes && later_ns == CLOCK_NEVER) || now_ns >= until_ns) {
        room_refuse(entry, &lack);
        return SETTLED_REFUSED;
    }
    room_tell_wait(entry, &lack, goes);
    if (goes) {
        let_more_go(entry, waits_for, now_ns, &later_ns);
    }
    later_ns = later_ns < until_ns ? later_ns : until_ns;
    *when_ns = later_ns < *when_ns ? later_ns : *when_ns;
    waits_for->blocked = true;
    return SETTLED_WAITS;
}

/* Somebody before it waits for a budget that it would charge, too. */
static bool stands_behind(const struct entry *entry)
{
    const struct ledger *ledger = &entry->host->room.ledger;
    const struct ledger_need need = need_of(entry);
    for (uint32_t i = 0; i < ledger->account_count; i++) {
        if (ledger->accounts[i].blocked && ledger_charges(ledger, &need, &ledger->accounts[i])) {
            return true;
        }
    }
    return false;
}

/* Nobody stands behind for longer than it would wait in front: who waits there may do so for ever. */
static bool stands_back(struct entry *entry, uint64_t now_ns, uint64_t *when_ns)
{
    const uint64_t until_ns = wait_until_ns(entry);
    if (now_ns >= until_ns || !stands_behind(entry)) {
        return false;
    }
    *when_ns = until_ns < *when_ns ? until_ns : *when_ns;
    room_tell_wait(entry, NULL, false);
    return true;
}

void room_ask(struct entry *entry)
{
    struct room *room = &entry->host->room;
    uint32_t group = LEDGER_NO_GROUP;
    struct weir_err err = { 0 };
    if (entry->look.memory.group != NULL &&
        ledger_group(&room->ledger, entry->look.memory.group, &group, &err) != WEIR_OK) {
        entry_refuse_loads(entry, &err);
        return;
    }
    for (uint32_t i = 0; i < entry->load_count; i++) {
        struct ledger_need *need = &entry->loads[i].need;
        need->device = entry->look.memory.device;
        need->also = entry->look.memory.also;
        need->group = group;
        need->models = 1;
    }
    entry->asked_ns = clock_now_ns(entry->host->clock);
    entry->more_ns = 0;
    entry->waits = (struct weir_err){ 0 };
    list_append(&room->waiting, &entry->room);
    entry->host->dirty = true; /* Settled in this turn. */
}

static void let_idle_go(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    const uint64_t idle_ns = options_of(host)->idle_ns;
    if (idle_ns == 0) {
        return;
    }
    mark_parts(host);
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        uint64_t when_ns = CLOCK_NEVER;
        if (entry_serves(entry) && may_leave(entry, now_ns, &when_ns) == LEAVE_NOW &&
            now_ns - entry->usage.used_ns >= idle_ns) {
            evict(entry, "unloaded: nobody asked for it");
        }
    }
    const uint64_t again_ns = clock_add(now_ns, idle_ns < LOOK_NS ? idle_ns : LOOK_NS);
    *next_ns = again_ns < *next_ns ? again_ns : *next_ns;
}

static void look_again(const struct room *room, uint64_t *next_ns)
{
    const uint64_t again_ns = has_budget(room) ? clock_add(room->kept_ns, LOOK_NS) : CLOCK_NEVER;
    *next_ns = again_ns < *next_ns ? again_ns : *next_ns;
}

/* Models grow with their runs, and budgets may have become smaller. */
static void keep_within(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    struct room *room = &host->room;
    if (room->kept_ns > 0 && now_ns - room->kept_ns < LOOK_NS) {
        look_again(room, next_ns);
        return;
    }
    room->kept_ns = now_ns;
    observe(host);
    for (uint32_t i = 0; i < room->ledger.account_count; i++) {
        const struct ledger_account *account = &room->ledger.accounts[i];
        struct entry *goes = NULL;
        while (ledger_is_over(&room->ledger, account) &&
               (goes = victim(host, account, now_ns, next_ns)) != NULL) {
            evict(goes, "unloaded to make room for others");
        }
    }
    look_again(room, next_ns);
}

/* First come first served, by budget: a large one is not overtaken for ever.  Whoever is refused may
 * have been waited for by an ensemble, which ends before the next turn and lets its other parts go:
 * nobody else is refused before that, or two that hold what the other one needs would both be. */
static void settle_waiting(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    struct room *room = &host->room;
    struct list turn;
    struct list rest;
    list_init(&turn);
    list_init(&rest);
    for (uint32_t i = 0; i < room->ledger.account_count; i++) {
        room->ledger.accounts[i].blocked = false;
    }
    list_splice(&turn, &room->waiting);
    bool ends = false;
    for (struct list_node *node = list_pop(&turn); node != NULL; node = list_pop(&turn)) {
        struct entry *entry = list_entry(node, struct entry, room);
        const enum settled settled = ends || stands_back(entry, now_ns, next_ns)
                                         ? SETTLED_WAITS
                                         : settle(entry, now_ns, next_ns);
        if (settled == SETTLED_WAITS) {
            list_append(&rest, node);
        } else if (settled == SETTLED_REFUSED) {
            *next_ns = now_ns;
            ends = entry->is_part;
        }
    }
    list_splice(&rest, &room->waiting); /* Who came meanwhile. */
    list_splice(&room->waiting, &rest);
}

void room_turn(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    if (host->stopping) {
        return;
    }
    if (!list_empty(&host->room.waiting)) {
        observe(host);
        settle_waiting(host, now_ns, next_ns);
    }
    if (is_demand(host)) {
        let_idle_go(host, now_ns, next_ns);
        keep_within(host, now_ns, next_ns);
    }
    if (host->dirty && has_budget(&host->room)) {
        check_now_and_then(host, now_ns);
    }
}

void room_stop(struct entry_host *host)
{
    for (struct list_node *node = list_pop(&host->room.waiting); node != NULL;
         node = list_pop(&host->room.waiting)) {
        struct weir_err err = { 0 };
        (void)err_set(&err, WEIR_EDRAINING, "the server is shutting down");
        entry_refuse_loads(list_entry(node, struct entry, room), &err);
    }
}

enum weir_status room_show(struct entry_host *host, struct catalogue *catalogue)
{
    const struct ledger *ledger = &host->room.ledger;
    observe(host);
    catalogue->accounts =
        arena_try_alloc(&catalogue->arena, ledger->account_count * sizeof(*ledger->accounts));
    if (catalogue->accounts == NULL) {
        return WEIR_ENOMEM;
    }
    memcpy(catalogue->accounts, ledger->accounts,
           ledger->account_count * sizeof(*ledger->accounts));
    catalogue->account_count = ledger->account_count;
    catalogue->models_max = ledger->models_max;
    catalogue->proportional_bytes = host->room.proportional_bytes;
    catalogue->evictions = host->room.evictions;
    catalogue->refusals = host->room.refusals;
    catalogue->loads_ahead = host->room.ahead;
    return WEIR_OK;
}
