/*
 * Loads in this process that do not come back.
 *
 * A thread that is in a backend's load cannot be taken out of it, so such a load is *written off*,
 * as a run is (pool_watch.c): it has failed, as far as anybody waits for it, and a new thread goes
 * on with the loads behind it.  The old one, and all that it reads and holds, stays: its memory
 * stays booked, and the registry cannot be taken apart.  If it does come back, what it made is
 * unloaded.
 */
#include <pthread.h>

#include "engine/entry.h"
#include "util/err.h"
#include "util/mem.h"

#define LOST_MAX 3               /* Of one model: it may have been mended meanwhile. */
#define LOOK_NS (10 * NS_PER_MS) /* How soon it is seen that a load has begun. */

enum weir_status entry_check_lost(const struct entry *entry, struct weir_err *err)
{
    return entry->lost < LOST_MAX || entry->look.load_limit_ns == 0
               ? WEIR_OK
               : err_set(err, WEIR_EUNAVAILABLE,
                         "%u loads of it took longer than their load_limit and have not ended; "
                         "with 'isolation: process' they could be ended",
                         entry->lost);
}

/* Before the step begins nobody writes the load off: what is read here stays. */
enum weir_status entry_begin_step(struct load_work *work)
{
    const struct entry *entry = work->resident->entry;
    const enum weir_status status =
        entry->host->stopping ? WEIR_EDRAINING : entry_check_lost(entry, &work->err);
    if (status == WEIR_OK) {
        step_begin(&work->step);
    }
    return status;
}

/* What it may take counts as taken: as a load under way it would keep all others from being
 * measured, perhaps for ever. */
static void keep_booked(struct room *room, struct ledger_booking *booking)
{
    if (booking->state == LEDGER_BOOKED) { /* Else it was only asking for it. */
        const struct ledger_counts counts = { .heap_bytes = booking->need.host_bytes,
                                              .device_bytes = booking->need.device_bytes,
                                              .peak_bytes = booking->need.host_bytes };
        ledger_measure(&room->ledger, booking, &counts);
    }
}

/* False: it has just come back, or there is no thread that could go on. */
static bool write_off(struct load_job *load, uint64_t limit_ns)
{
    struct entry *entry = load->entry;
    struct entry_host *host = entry->host;
    struct load_work *work = load->work;
    entry->lost++; /* Before the new thread begins with the next one. */
    if (!worker_replace(&host->loaders[entry->look.loader], &work->job, &work->hung)) {
        entry->lost--;
        return false;
    }
    keep_booked(&host->room, &load->resident->booking);
    work->load = NULL;
    load->work = NULL;
    load->resident = NULL;
    load->status =
        err_set(&load->err, WEIR_EUNAVAILABLE,
                "its load takes longer than its load_limit of %.1f s and may never end; with "
                "'isolation: process' it could be ended",
                (double)limit_ns / NS_PER_S);
    host->jobs--;
    host->lost++;
    return true;
}

/* When to look again at the load; now: it was written off, and others may have waited for it. */
static uint64_t watch_load(struct load_job *load, uint64_t limit_ns, uint64_t now_ns)
{
    if (load->work == NULL) {
        return CLOCK_NEVER;
    }
    const uint64_t began_ns = atomic_load(&load->work->step.began_ns);
    const uint64_t due_ns = clock_add(began_ns == 0 ? now_ns + LOOK_NS : began_ns, limit_ns);
    if (now_ns < due_ns) {
        return due_ns;
    }
    return write_off(load, limit_ns) ? now_ns : now_ns + LOOK_NS;
}

static void watch_entry(struct entry *entry, uint64_t now_ns, uint64_t *next_ns)
{
    const uint64_t limit_ns = entry->look.load_limit_ns;
    const uint32_t count = limit_ns == 0 ? 0 : entry->load_count;
    uint32_t lost = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t at_ns = watch_load(&entry->loads[i], limit_ns, now_ns);
        lost += at_ns == now_ns ? 1 : 0;
        *next_ns = at_ns < *next_ns ? at_ns : *next_ns;
    }
    while (lost-- > 0) {
        entry_load_over(entry); /* With the last one its loads are gone. */
    }
}

void entry_watch_loads(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        if (entry->loads_out > 0) { /* Else the scanner may have the look. */
            watch_entry(entry, now_ns, next_ns);
        }
    }
}

void entry_take_back(struct load_work *work)
{
    struct resident *resident = work->resident;
    struct entry *entry = resident->entry;
    struct entry_host *host = entry->host;
    struct slot *slot = entry_find_slot(entry, resident->version);
    pthread_join(work->hung, NULL);
    host->lost--;
    host->dirty = true;
    entry->lost--;
    if (work->model == NULL) {
        ledger_return(&host->room.ledger, &resident->booking);
        mem_free(resident);
    } else {
        host->residents++;
        entry->residents++;
        resident->model = work->model;
        ledger_leave(&host->room.ledger, &resident->booking);
        if (slot != NULL) {
            slot->leaving++;
        }
        model_release(work->model);
    }
    mem_free(work);
}
