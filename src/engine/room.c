#include "engine/room.h"

#include <inttypes.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/entry.h"
#include "engine/pool.h"
#include "util/err.h"

#define FIRST_LOAD_SHARE 2.3   /* Peak of a load against its files, before anything was measured. */
#define LOOK_NS (1 * NS_PER_S) /* How often idle models are looked for. */
#define WAIT_NS \
    (10 * NS_PER_S)           /* A load waits no longer for residents that work or came just now. */
#define MODEL_BYTES_MIN 65536 /* Books at least so much: nothing is for free. */

void room_init(struct room *room)
{
    *room = (struct room){ 0 };
    list_init(&room->waiting);
}

uint64_t room_estimate(const struct slot *slot, uint64_t fingerprint, uint64_t file_bytes)
{
    if (slot->bytes > 0 && slot->bytes_fingerprint == fingerprint) {
        return slot->bytes;
    }
    const uint64_t guess = (uint64_t)(FIRST_LOAD_SHARE * (double)file_bytes);
    return guess > MODEL_BYTES_MIN ? guess : MODEL_BYTES_MIN;
}

static const struct room_options *options_of(const struct entry_host *host)
{
    return &host->room_options;
}

static bool is_demand(const struct entry_host *host)
{
    return host->options->control == CONTROL_DEMAND;
}

static uint64_t need_of(const struct entry *entry)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < entry->load_count; i++) {
        bytes += entry->loads[i].resident->booked_bytes;
    }
    return bytes;
}

/* Is there room, once what leaves is gone (`later`), or now? */
static bool fits(const struct entry_host *host, uint64_t bytes, uint64_t models, bool later)
{
    const struct room_options *options = options_of(host);
    const struct room *room = &host->room;
    const uint64_t held = room->booked_bytes - (later ? room->leaving_bytes : 0);
    const uint64_t count = room->booked_models - (later ? room->leaving_models : 0);
    return (options->memory_max == 0 ||
            (held <= options->memory_max && bytes <= options->memory_max - held)) &&
           (options->models_max == 0 || count + models <= options->models_max);
}

/* ---- Who may go -------------------------------------------------------------------------------- */

static bool is_pinned(const struct entry *entry)
{
    const struct room_options *options = options_of(entry->host);
    for (uint64_t i = 0; i < options->pinned_count; i++) {
        if (strcmp(options->pinned[i], entry->name) == 0) {
            return true;
        }
    }
    return entry->required;
}

/* Does an ensemble that serves hold a lease on one of its models? */
static bool is_part(const struct entry *entry)
{
    for (const struct entry *other = entry_first(entry->host); other != NULL;
         other = entry_next(other)) {
        for (uint32_t i = 0; other->wants != NULL && entry_serves(other) && i < other->wants->count;
             i++) {
            if (strcmp(other->wants->items[i].name, entry->name) == 0) {
                return true;
            }
        }
    }
    return false;
}

static uint64_t uses_of(const struct model *model)
{
    const struct model_stats *stats = &model->stats;
    return atomic_load_explicit(&stats->success.count, memory_order_relaxed) +
           atomic_load_explicit(&stats->fail.count, memory_order_relaxed);
}

/* Notes what was asked of it since the last look; true: something is being asked now. */
static bool look_at(struct entry *entry, uint64_t now_ns)
{
    bool works = false;
    uint64_t uses = 0;
    for (const struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            uses += uses_of(slot->model);
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

enum leave { LEAVE_NOW, LEAVE_LATER, LEAVE_NEVER };

/* *when_ns: where it is LATER, when to ask again. */
static enum leave may_leave(struct entry *entry, uint64_t now_ns, uint64_t *when_ns)
{
    if (!entry_serves(entry) || entry_is_busy(entry) || is_pinned(entry) || is_part(entry)) {
        return LEAVE_NEVER;
    }
    *when_ns = clock_add(entry->loaded_ns, options_of(entry->host)->residency_ns);
    if (look_at(entry, now_ns)) {
        const uint64_t soon_ns = clock_add(now_ns, LOOK_NS / 100);
        *when_ns = *when_ns > soon_ns ? *when_ns : soon_ns;
        return LEAVE_LATER;
    }
    return *when_ns > now_ns ? LEAVE_LATER : LEAVE_NOW;
}

static void weigh(const struct entry *entry, struct evict_candidate *out)
{
    *out = (struct evict_candidate){ .usage = &entry->usage };
    for (const struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            const struct resident *resident = slot->model->owner;
            out->bytes += resident->booked_bytes;
            out->load_ns += slot->model->load_ns;
        }
    }
}

/* Who is missed least, or NULL; *when_ns: when somebody else may go, at the earliest. */
static struct entry *victim(struct entry_host *host, uint64_t now_ns, uint64_t *when_ns)
{
    struct entry *best = NULL;
    double least = 0;
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        uint64_t at_ns = CLOCK_NEVER;
        const enum leave leave = may_leave(entry, now_ns, &at_ns);
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

void room_measured(struct entry *entry, const struct load_job *load)
{
    struct room *room = &entry->host->room;
    const struct model *model = load->model;
    uint64_t bytes = model->signature == NULL ? 0 : model->signature->weights_bytes;
    bytes = bytes > model->loaded_bytes ? bytes : model->loaded_bytes;
    bytes = bytes > MODEL_BYTES_MIN ? bytes : MODEL_BYTES_MIN;
    room->booked_bytes += bytes - load->resident->booked_bytes; /* May wrap, and wraps back. */
    load->resident->booked_bytes = bytes;
    load->slot->bytes = bytes;
    load->slot->bytes_fingerprint = load->fingerprint;
    entry->loaded_ns = clock_now_ns(entry->host->clock);
    entry->usage.used_ns = entry->loaded_ns;
    entry->uses = 0;
}

void room_cancel(struct room *room, uint64_t bytes)
{
    room->booked_bytes -= bytes;
    room->booked_models--;
}

void room_leave(struct room *room, uint64_t bytes)
{
    room->leaving_bytes += bytes;
    room->leaving_models++;
}

void room_return(struct room *room, uint64_t bytes)
{
    room_cancel(room, bytes);
    room->leaving_bytes -= bytes;
    room->leaving_models--;
}

/* ---- Who may come ------------------------------------------------------------------------------ */

static void book(struct entry *entry)
{
    struct room *room = &entry->host->room;
    room->booked_bytes += need_of(entry);
    room->booked_models += entry->load_count;
}

static void refuse(struct entry *entry)
{
    const struct room_options *options = options_of(entry->host);
    const struct room *room = &entry->host->room;
    struct weir_err err = { 0 };
    entry->host->room.refusals++;
    if (options->memory_max > 0 && !fits(entry->host, need_of(entry), 0, true)) {
        char need[32];
        char held[32];
        char most[32];
        (void)err_set(&err, WEIR_ENOMEM,
                      "no room for model '%s': it needs about %s, models hold %s of the %s that "
                      "memory_max allows, and none of them can go",
                      entry->name, bytes_format_size(need_of(entry), need),
                      bytes_format_size(room->booked_bytes, held),
                      bytes_format_size(options->memory_max, most));
    } else {
        (void)err_set(&err, WEIR_ENOMEM,
                      "no room for model '%s': %" PRIu64 " models are loaded, resident_models_max "
                      "allows %" PRIu64 ", and none of them can go",
                      entry->name, room->booked_models, options->models_max);
    }
    entry_refuse_loads(entry, &err);
}

/* True: it does not wait any more, for better or worse. */
static bool settle(struct entry *entry, uint64_t now_ns, uint64_t *when_ns)
{
    struct entry_host *host = entry->host;
    const uint64_t bytes = need_of(entry);
    if (fits(host, bytes, entry->load_count, false)) {
        book(entry);
        entry_send_loads(entry);
        return true;
    }
    uint64_t later_ns = CLOCK_NEVER;
    while (is_demand(host) && !fits(host, bytes, entry->load_count, true)) {
        struct entry *goes = victim(host, now_ns, &later_ns);
        if (goes == NULL) {
            break;
        }
        evict(goes, "unloaded to make room for others");
    }
    const uint64_t until_ns = clock_add(entry->asked_ns, WAIT_NS);
    if (!fits(host, bytes, entry->load_count, true) &&
        (later_ns == CLOCK_NEVER || now_ns >= until_ns)) {
        refuse(entry);
        return true;
    }
    later_ns = later_ns < until_ns ? later_ns : until_ns;
    *when_ns = later_ns < *when_ns ? later_ns : *when_ns;
    return false;
}

void room_ask(struct entry *entry)
{
    struct room *room = &entry->host->room;
    entry->asked_ns = clock_now_ns(entry->host->clock);
    list_append(&room->waiting, &entry->room);
    entry->host->dirty = true; /* Settled in this turn. */
}

static void let_idle_go(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    const uint64_t idle_ns = options_of(host)->idle_ns;
    for (struct entry *entry = entry_first(host); idle_ns > 0 && entry != NULL;
         entry = entry_next(entry)) {
        uint64_t when_ns = CLOCK_NEVER;
        if (may_leave(entry, now_ns, &when_ns) == LEAVE_NOW &&
            now_ns - entry->usage.used_ns >= idle_ns) {
            evict(entry, "unloaded: nobody asked for it");
        }
    }
    if (idle_ns > 0) {
        const uint64_t again_ns = clock_add(now_ns, idle_ns < LOOK_NS ? idle_ns : LOOK_NS);
        *next_ns = again_ns < *next_ns ? again_ns : *next_ns;
    }
}

void room_turn(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    if (host->stopping) {
        return;
    }
    struct list_node *node = list_first(&host->room.waiting);
    while (node != NULL) {
        struct entry *entry = list_entry(node, struct entry, room);
        struct list_node *next = list_next(&host->room.waiting, node);
        list_remove(node);
        if (!settle(entry, now_ns, next_ns)) {
            list_insert_before(next == NULL ? &host->room.waiting.head : next, node);
            return; /* First come first served: a large one is not overtaken for ever. */
        }
        node = list_first(&host->room.waiting);
    }
    if (is_demand(host)) {
        let_idle_go(host, now_ns, next_ns);
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
