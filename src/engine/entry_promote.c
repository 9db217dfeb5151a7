/*
 * Models whose weights are mapped, and which many ask for, get them packed (backend_promote()), on
 * one of their devices after the other.
 *
 * That takes the loader's time and, while it lasts, as much memory again: it waits until no other
 * work is under way and the budgets have room for it.  Nobody goes for it.
 */
#include "engine/entry.h"
#include "util/log.h"

#define LOOK_NS (1 * NS_PER_S) /* How often hot models are looked for, while some may become hot. */

/* On which of the model's devices its weights are to be packed now; NULL: on none. */
static struct backend_model *find_hot(const struct model *model)
{
    for (uint32_t i = 0; i < model->replica_count; i++) {
        if (backend_promotion(model->replicas[i].backend) > 0) {
            return model->replicas[i].backend;
        }
    }
    return NULL;
}

/* Where it fails the model serves on as it did, and is not tried again. */
static void promote(struct loader_job *job)
{
    struct resident *resident = job->resident;
    struct weir_err err = { 0 };
    const enum weir_status status = backend_promote(resident->promoted, &err);
    log_event(LOG_DEBUG, "weights packed", LOG_STR("model", resident->model->name),
              LOG_STR("reason", status == WEIR_OK ? "it is hot" : err.text));
}

static void lose_promotion(struct loader_job *job)
{
    room_keep(&job->resident->entry->host->room, &job->resident->promotion);
    loader_tell_lost(job);
}

static void promoted(struct loader_job *job)
{
    struct resident *resident = job->resident;
    struct entry_host *host = resident->entry->host;
    loader_tell_back(job);
    host->dirty = true;
    ledger_return(&host->room.ledger, &resident->promotion);
    resident->promoting = false;
    model_release(resident->model); /* It may have been the last lease. */
}

static const struct loader_ops promote_ops = {
    .what = "packing its weights",
    .run = promote,
    .lost = lose_promotion,
    .done = promoted,
};

static bool promote_one(struct entry_host *host, struct model *model, struct backend_model *hot)
{
    struct resident *resident = model->owner;
    struct ledger_need need = resident->booking.need;
    struct ledger_lack lack;
    need.models = 0;
    need.device_bytes = 0;
    need.host_bytes = backend_promotion(hot);
    if (resident->promoting || !ledger_fits(&host->room.ledger, &need, false, &lack)) {
        return false;
    }
    ledger_book(&host->room.ledger, &resident->promotion, &need);
    model_acquire(model);
    resident->promoting = true;
    resident->promoted = hot;
    loader_send_loaded(resident, &resident->promote, &promote_ops);
    return true;
}

static bool may_become_hot(const struct model *model)
{
    if (model->config->promote_after == 0 || model->config->weights != WEIGHTS_AUTO) {
        return false;
    }
    struct backend_memory memory = { 0 };
    for (uint32_t i = 0; i < model->replica_count && memory.mapped_bytes == 0; i++) {
        backend_memory(model->replicas[i].backend, &memory);
    }
    return memory.mapped_bytes > 0;
}

void entry_promote(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    bool more = false;
    bool busy = host->jobs > 0 || host->stopping;
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        for (struct slot *slot = entry_first_slot(entry); slot != NULL;
             slot = entry_next_slot(entry, slot)) {
            if (slot->model == NULL || !may_become_hot(slot->model)) {
                continue;
            }
            struct backend_model *hot = busy ? NULL : find_hot(slot->model);
            busy = busy || (hot != NULL && promote_one(host, slot->model, hot));
            more = true;
        }
    }
    const uint64_t again_ns = more ? clock_add(now_ns, LOOK_NS) : CLOCK_NEVER;
    *next_ns = again_ns < *next_ns ? again_ns : *next_ns;
}
