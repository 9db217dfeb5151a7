/*
 * What is found out before a load: by the scanner in the folder, and, of a backend that knows
 * beforehand what a model takes, by the loader.
 */
#include <string.h>

#include "engine/effective.h"
#include "engine/entry.h"
#include "engine/entry_parts.h"
#include "engine/placement.h"
#include "engine/pool.h"
#include "util/err.h"

/* ---- The folder ------------------------------------------------------------------------------ */

/* Scanner thread. */
static enum weir_status read_memory(struct look_job *look, struct model_config *config)
{
    const struct backend_ops *ops;
    look->memory.update = config->update;
    look->memory.peak_bytes = config->peak_bytes;
    if (config->memory_group != NULL) {
        look->memory.group = arena_try_strndup(&look->entry->arena, config->memory_group,
                                               strlen(config->memory_group));
        if (look->memory.group == NULL) {
            return err_nomem(&look->err, "a model's group", strlen(config->memory_group));
        }
    }
    look->memory.asks = config->ensemble.step_count == 0 &&
                        effective_backend(config, &ops, NULL) == WEIR_OK && backend_knows(ops);
    return WEIR_OK;
}

/* Scanner thread: whose loader it is for, and in whose memory. */
static enum weir_status find_place(struct look_job *look, const struct model_config *config)
{
    struct placement place;
    const enum weir_status status =
        placement_find(look->entry->host->engine, config, &place, &look->err);
    if (status != WEIR_OK) {
        return status;
    }
    look->loader = place.pool->index;
    look->memory.device = place.pool->first_device + place.devices[0];
    for (uint32_t i = 1; i < place.count; i++) {
        look->memory.also |= UINT64_C(1) << (place.pool->first_device + place.devices[i]);
    }
    return WEIR_OK;
}

/* Scanner thread. */
static enum weir_status look_closely(struct look_job *look)
{
    struct entry *entry = look->entry;
    const struct entry_host *host = entry->host;
    enum weir_status status =
        repository_look(&host->repository, entry->name, &entry->arena, &look->look, &look->err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct lifecycle_load how = {
        .engine = host->engine,
        .options = host->options,
        .repository = host->repository,
        .name = entry->name,
        .root = look->look.root,
        .override = look->override,
    };
    struct model_config *config;
    status = lifecycle_configure(&how, &config, &look->err);
    if (status != WEIR_OK) {
        /* A folder that vanished meanwhile is no unknown model any more. */
        return status == WEIR_ENOENT ? WEIR_EINVAL : status;
    }
    look->required = config->required;
    look->limit_ns = lifecycle_limit_ns(config);
    look->run_limit_ns = config->isolation == ISOLATE_PROCESS || config->run_limit_ns == 0
                             ? 0
                             : clock_add(config->run_limit_ns, WATCHDOG_GRACE_NS);
    look->policy = config->policy;
    look->policy_count = config->policy_count;
    memcpy(look->policy_versions, config->policy_versions, sizeof(look->policy_versions));
    status = find_place(look, config);
    status = status == WEIR_OK ? entry_parts_read(look, config) : status;
    status = status == WEIR_OK ? read_memory(look, config) : status;
    config->release(config);
    return status;
}

static void run_look(struct worker_job *job)
{
    struct look_job *look = list_entry(job, struct look_job, job);
    look->status = look->entry->host->stopping ? WEIR_EDRAINING : look_closely(look);
    entry_return_job(look->entry->host, job, entry_looked);
}

void entry_start_ahead(struct entry *entry)
{
    entry->ahead = true;
    entry->retrying = true;
    entry_start(entry, NULL);
}

void entry_start(struct entry *entry, const char *override)
{
    entry->busy = true;
    entry->look = (struct look_job){
        .job = { .run = run_look },
        .entry = entry,
        .override = override,
    };
    entry->host->jobs++;
    worker_send(entry->host->scanner, &entry->look.job);
}

/* ---- The backend ----------------------------------------------------------------------------- */

/* What the configuration says holds until something was measured. */
static void add_configured(struct entry *entry)
{
    const uint64_t peak_bytes = entry->look.memory.peak_bytes;
    for (uint32_t i = 0; i < entry->load_count && peak_bytes > 0; i++) {
        struct load_job *load = &entry->loads[i];
        if (load->slot->peak_fingerprint == load->fingerprint) {
            continue;
        }
        if (entry->look.memory.device == 0) {
            load->need.host_bytes = peak_bytes;
        } else {
            load->need.device_bytes = peak_bytes;
        }
    }
}

void entry_needs_known(struct entry *entry)
{
    if (entry->host->stopping) {
        entry_refuse_loads(entry, NULL);
        return;
    }
    add_configured(entry);
    room_ask(entry);
}

static void needs_known(struct loader_job *job)
{
    struct load_work *work = list_entry(job, struct load_work, job);
    struct load_job *load = work->load;
    if (job->lost) {
        entry_take_back(work);
        return;
    }
    if (work->status == WEIR_OK) {
        const struct backend_needs *needs = &work->needs;
        load->need.host_bytes =
            needs->host_bytes > load->need.host_bytes ? needs->host_bytes : load->need.host_bytes;
        load->need.device_bytes = needs->device_bytes;
    }
    job->ops = &entry_load_ops;
    entry_load_over(load->entry);
}

/* Where it fails the load will, and say why. */
static void find_needs(struct loader_job *job)
{
    struct load_work *work = list_entry(job, struct load_work, job);
    work->status = entry_begin_load(work);
    if (work->status == WEIR_OK) {
        work->status = lifecycle_needs(&work->how, &work->needs, NULL);
    }
}

static const struct loader_ops needs_ops = {
    .what = "its load",
    .run = find_needs,
    .lost = entry_lose_load,
    .done = needs_known,
};

void entry_ask_needs(struct entry *entry)
{
    entry->asking = true;
    entry->loads_out = entry->load_count;
    for (uint32_t i = 0; i < entry->load_count; i++) {
        struct load_work *work = entry->loads[i].work;
        work->job.ops = &needs_ops;
        loader_send(entry->host, &work->job);
    }
}
