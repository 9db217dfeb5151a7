/*
 * Now and then what was learned about models is written down, so that little is lost when the
 * process is killed.  Unloading writes it too.
 */
#include "engine/entry.h"
#include "engine/profile_store.h"

static void save(struct loader_job *job)
{
    struct model *model = job->resident->model;
    profile_store_write(model->profile_store, model);
}

static void saved(struct loader_job *job)
{
    struct resident *resident = job->resident;
    loader_tell_back(job);
    resident->saving = false;
    model_release(resident->model); /* It may have been the last lease. */
}

static const struct loader_ops save_ops = {
    .what = "writing its profile",
    .run = save,
    .lost = loader_tell_lost,
    .done = saved,
};

static void save_one(struct model *model)
{
    struct resident *resident = model->owner;
    if (resident->saving || !profile_store_is_due(model->profile_store, model)) {
        return;
    }
    model_acquire(model);
    resident->saving = true;
    loader_send_loaded(resident, &resident->save, &save_ops);
}

void entry_save(struct entry_host *host)
{
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
        for (struct slot *slot = entry_first_slot(entry); slot != NULL;
             slot = entry_next_slot(entry, slot)) {
            if (slot->model != NULL) {
                save_one(slot->model);
            }
        }
    }
}
