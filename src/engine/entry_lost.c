/*
 * Loads in this process that do not come back (loader.h).
 *
 * One that was written off has failed, as far as anybody waits for it.  If it does come back, what
 * it made is unloaded.
 */
#include <string.h>

#include "engine/entry.h"
#include "util/err.h"
#include "util/mem.h"

#define SAME_MAX 3  /* Of the same files and settings: what they hang on may have been mended. */
#define LOST_MAX 16 /* Of one model, whatever is done about it. */

uint64_t entry_digest(const struct entry *entry, const struct load_job *load)
{
    const char *override = entry->look.override == NULL ? "" : entry->look.override;
    const uint64_t words[] = { load->slot->version, load->fingerprint,
                               entry->look.look.config_fingerprint,
                               map_hash(override, strlen(override)) };
    return map_hash(words, sizeof(words));
}

uint32_t entry_count_lost(const struct entry *entry, uint64_t digest)
{
    uint32_t count = 0;
    for (struct list_node *node = list_first(&entry->hung); node != NULL;
         node = list_next(&entry->hung, node)) {
        count += list_entry(node, struct load_work, hung)->digest == digest ? 1 : 0;
    }
    return count;
}

/* WEIR_EUNAVAILABLE: too many of its kind were written off and still go on. */
static enum weir_status check(const struct load_work *work, struct weir_err *err)
{
    const uint32_t lost = work->job.resident->entry->lost;
    const bool same = work->lost_before >= SAME_MAX;
    const bool limited = work->job.limit_ns > 0 || work->job.run_limit_ns > 0;
    if (!limited || (!same && lost < LOST_MAX)) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EUNAVAILABLE,
                   "%u %s took longer than its limit and have not ended; with 'isolation: "
                   "process' they could be ended",
                   same ? work->lost_before : lost,
                   same ? "loads of the same files and settings" : "loads or unloads of it");
}

enum weir_status entry_check_loads(const struct entry *entry, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < entry->load_count; i++) {
        status = check(entry->loads[i].work, err);
        if (status == WEIR_OK) {
            return WEIR_OK;
        }
    }
    return status;
}

enum weir_status entry_begin_load(struct load_work *work)
{
    const struct entry_host *host = work->job.resident->entry->host;
    return host->stopping ? WEIR_EDRAINING : check(work, &work->err);
}

void entry_lose_load(struct loader_job *job)
{
    struct load_work *work = list_entry(job, struct load_work, job);
    struct load_job *load = work->load;
    room_keep(&load->entry->host->room, &load->resident->booking);
    work->load = NULL;
    load->work = NULL;
    load->resident = NULL;
    list_append(&load->entry->hung, &work->hung);
    load->status = loader_explain(job, &load->err);
    entry_load_over(load->entry);
}

void entry_take_back(struct load_work *work)
{
    struct resident *resident = work->job.resident;
    struct entry *entry = resident->entry;
    struct entry_host *host = entry->host;
    struct slot *slot = entry_find_slot(entry, resident->version);
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
    list_remove(&work->hung);
    mem_free(work);
}
