/*
 * Now and then what was learned about models is written down, so that little is lost when the
 * process is killed.  Unloading writes it too.
 */
#include "engine/entry.h"
#include "engine/pool.h"
#include "engine/profile_store.h"

/* Manager. */
static void saved(struct worker_job *job)
{
    struct resident *resident = list_entry(job, struct resident, save);
    struct model *model = resident->model;
    resident->entry->host->jobs--;
    resident->saving = false;
    model_release(model); /* It may have been the last lease. */
}

/* Loader. */
static void save(struct worker_job *job)
{
    struct resident *resident = list_entry(job, struct resident, save);
    profile_store_write(resident->model->profile_store, resident->model);
    job->run = saved;
    worker_send(resident->entry->host->manager, job);
}

static void save_one(struct entry_host *host, struct model *model)
{
    struct resident *resident = model->owner;
    if (resident->saving || !profile_store_is_due(model->profile_store, model)) {
        return;
    }
    model_acquire(model);
    resident->saving = true;
    resident->save.run = save;
    host->jobs++;
    worker_send(&host->loaders[model->pool->index], &resident->save);
}

void entry_save(struct entry_host *host)
{
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        for (struct slot *slot = entry_first_slot(entry); slot != NULL;
             slot = entry_next_slot(entry, slot)) {
            if (slot->model != NULL) {
                save_one(host, slot->model);
            }
        }
    }
}
