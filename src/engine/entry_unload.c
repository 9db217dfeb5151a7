/*
 * A version that is offered no more: once its last lease is gone, a loader gives its memory back.
 */
#include "engine/entry.h"
#include "util/err.h"

static void unload(struct loader_job *job)
{
    struct resident *resident = job->resident;
    lifecycle_unload(resident->entry->host->engine, resident->model, &resident->freed);
}

/* What does not go stays booked: nobody is to wait for its place. */
static void lose_unload(struct loader_job *job)
{
    ledger_stay(&job->resident->entry->host->room.ledger, &job->resident->booking);
    loader_tell_lost(job);
}

static void unloaded(struct loader_job *job)
{
    struct resident *resident = job->resident;
    struct entry *entry = resident->entry;
    struct entry_host *host = entry->host;
    struct slot *slot = entry_find_slot(entry, resident->version);
    loader_tell_back(job);
    resident->model = NULL;
    host->residents--;
    ledger_return(&host->room.ledger, &resident->booking);
    host->dirty = true;
    if (slot != NULL && slot->leaving > 0) {
        slot->leaving--;
        if (slot->leaving == 0 && slot->state == MODEL_UNLOADING) {
            slot->state = MODEL_UNAVAILABLE;
            if (!slot->failed && slot->why.text[0] == '\0') {
                (void)err_set(&slot->why, WEIR_EUNAVAILABLE, "unloaded");
            }
        }
    }
    list_append(&host->gone, &resident->node);
}

static const struct loader_ops unload_ops = {
    .what = "unloading it",
    .run = unload,
    .lost = lose_unload,
    .done = unloaded,
};

static void send_unload(struct worker_job *job)
{
    struct resident *resident = list_entry(job, struct resident, job);
    loader_send_loaded(resident, &resident->unload, &unload_ops);
}

void entry_unleased(struct model *model)
{
    struct resident *resident = model->owner;
    entry_return_job(resident->entry->host, &resident->job, send_unload);
}

void entry_let_go(struct slot *slot)
{
    struct model *model = slot->model;
    struct resident *resident = model->owner;
    struct entry_host *host = resident->entry->host;
    host->changes++;
    ledger_leave(&host->room.ledger, &resident->booking);
    slot->model = NULL;
    slot->leaving++;
    slot->state = MODEL_UNLOADING;
    slot->why = (struct weir_err){ 0 };
    engine_retire(model);
    model_release(model);
}
