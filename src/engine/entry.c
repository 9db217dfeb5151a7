/*
 * The work on one model.
 *
 * A load first has a scanner look at the folder: which versions there are, what
 * the configuration says about them.  Then the manager chooses, and one job per
 * version that is new or changed goes to the device's loader.  When all are
 * back, either the whole new set is taken over, or, where something failed and
 * something serves, nothing is.
 */
#include "engine/entry.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/ahead.h"
#include "engine/entry_parts.h"
#include "util/err.h"
#include "util/log.h"
#include "util/mem.h"

#define LOOK_BYTES_MAX (UINT64_C(4) << 20)

void entry_host_init(struct entry_host *host)
{
    map_init(&host->by_name);
    list_init(&host->entries);
    list_init(&host->answers);
    list_init(&host->gone);
    list_init(&host->out);
    room_init(&host->room, host->engine, &host->room_options);
}

void entry_host_finish(struct entry_host *host)
{
    for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_first(host)) {
        entry_remove(entry);
    }
    map_finish(&host->by_name);
}

static struct entry *create(struct entry_host *host, const char *name)
{
    struct entry *entry = mem_try_zero(1, sizeof(*entry));
    if (entry == NULL) {
        return NULL;
    }
    entry->name = mem_try_strdup(name);
    if (entry->name == NULL) {
        mem_free(entry);
        return NULL;
    }
    entry->host = host;
    list_init(&entry->slots);
    list_init(&entry->orders);
    list_init(&entry->hung);
    arena_init(&entry->arena, NULL, 0, LOOK_BYTES_MAX);
    return entry;
}

struct slot *entry_find_slot(const struct entry *entry, uint64_t version)
{
    struct slot *slot = entry_first_slot(entry);
    while (slot != NULL && slot->version != version) {
        slot = entry_next_slot(entry, slot);
    }
    return slot;
}

/* Finds or makes the slot of a version; NULL when memory is out. */
static struct slot *need_slot(struct entry *entry, uint64_t version)
{
    struct slot *after = entry_first_slot(entry);
    while (after != NULL && after->version < version) {
        after = entry_next_slot(entry, after);
    }
    if (after != NULL && after->version == version) {
        return after;
    }
    struct slot *slot = mem_try_zero(1, sizeof(*slot));
    if (slot == NULL) {
        return NULL;
    }
    slot->version = version;
    list_insert_before(after == NULL ? &entry->slots.head : &after->node, &slot->node);
    entry->slot_count++;
    return slot;
}

void entry_prune(struct entry *entry)
{
    if (entry->busy) {
        return; /* Its loads know their slots; finish() prunes. */
    }
    struct slot *slot = entry_first_slot(entry);
    while (slot != NULL) {
        struct slot *next = entry_next_slot(entry, slot);
        const bool untold = slot->state == MODEL_UNKNOWN || slot->gone || !entry->present;
        if (slot->model == NULL && slot->leaving == 0 && untold && !slot->announce) {
            list_remove(&slot->node);
            entry->slot_count--;
            mem_free(slot);
        }
        slot = next;
    }
}

static void destroy(struct entry *entry)
{
    assert(!entry->busy && entry->residents == 0 && list_empty(&entry->orders));
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_first_slot(entry)) {
        assert(slot->model == NULL);
        list_remove(&slot->node);
        mem_free(slot);
    }
    arena_finish(&entry->arena);
    mem_free(entry->wants);
    mem_free(entry->name);
    mem_free(entry);
}

struct entry *entry_find(const struct entry_host *host, const char *name)
{
    return map_get(&host->by_name, bytes_of(name));
}

struct entry *entry_need(struct entry_host *host, const char *name)
{
    struct entry *entry = entry_find(host, name);
    if (entry != NULL) {
        return entry;
    }
    entry = create(host, name);
    if (entry == NULL) {
        return NULL;
    }
    if (map_add(&host->by_name, bytes_of(entry->name), entry) != WEIR_OK) {
        destroy(entry);
        return NULL;
    }
    list_append(&host->entries, &entry->node);
    host->entry_count++;
    return entry;
}

void entry_remove(struct entry *entry)
{
    ahead_forget(entry);
    (void)map_remove(&entry->host->by_name, bytes_of(entry->name));
    list_remove(&entry->node);
    entry->host->entry_count--;
    destroy(entry);
}

void entry_return_job(struct entry_host *host, struct worker_job *job,
                      void (*run)(struct worker_job *))
{
    job->run = run;
    worker_send(host->manager, job);
}

void entry_drop(struct entry *entry)
{
    entry_announce(entry); /* What no snapshot will show: a load that failed in this turn. */
    ahead_unloaded(entry);
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            entry_let_go(slot);
        } else if (slot->state == MODEL_UNAVAILABLE) {
            slot->failed = false;
            (void)err_set(&slot->why, WEIR_EUNAVAILABLE, "unloaded");
        } else if (slot->failed) {
            slot->failed = false; /* What a part's unloading had begun. */
            slot->why = (struct weir_err){ 0 };
        }
    }
    entry->lacking = false;
    entry->required = false;
    entry->counts = REQUIRED_AUTO;
    entry->serving = false;
    entry->overridden = false;
    if (!entry->barred) {
        entry->why = (struct weir_err){ 0 };
    }
    entry->host->dirty = true;
    entry_prune(entry);
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* Whoever failed without saying why: nobody is left with an empty reason. */
static void explain(struct weir_err *err, enum weir_status status)
{
    if (err->text[0] != '\0') {
        return;
    }
    if (status == WEIR_EDRAINING) {
        (void)err_set(err, status, "the server is shutting down");
    } else {
        (void)err_set(err, status, "no reason was given (%s)", weir_status_text(status));
    }
}

void entry_answer(struct entry_host *host, struct registry_order *order, enum weir_status status,
                  const struct weir_err *err)
{
    order->status = status;
    order->err = err == NULL ? (struct weir_err){ .status = status } : *err;
    if (status != WEIR_OK) {
        explain(&order->err, status);
    }
    list_append(&host->answers, &order->node);
    host->dirty = true;
}

/* The work is over, well or not. */
static void finish(struct entry *entry, enum weir_status status, const struct weir_err *err)
{
    const bool demand = entry->active != NULL && entry->active->kind == REGISTRY_NEED;
    if (demand) {
        entry_note_demand(entry, status);
    }
    if (entry->active != NULL) {
        entry_answer(entry->host, entry->active, status, err);
        entry->active = NULL;
    }
    entry->loads = NULL;
    entry->load_count = 0;
    entry->target = NULL;
    entry->retrying = false;
    entry->replacing = false;
    entry->ahead = false;
    entry->waiting = false;
    entry_parts_release(entry);
    arena_reset(&entry->arena);
    entry->busy = false;
    entry->host->dirty = true;
    if (entry->host->stopping) {
        entry_drop(entry);
    }
    entry_parts_end(entry, status);
    entry_prune(entry);
    entry_advance(entry);
    if (demand && status == WEIR_OK) {
        ahead_loaded(entry);
    }
}

/* Nothing could be tried. */
void entry_fail(struct entry *entry, enum weir_status status, const struct weir_err *err)
{
    struct weir_err why = *err;
    explain(&why, status);
    const bool news = !entry->retrying || strcmp(entry->why.text, why.text) != 0;
    if (news && (entry->present || entry->required)) {
        entry->why = why;
        entry->announce = true;
    }
    finish(entry, status, &why);
}

/* A broken model is the asker's problem, whatever the backend calls it; running out is not. */
static enum weir_status outcome(enum weir_status status)
{
    const bool kept = status == WEIR_OK || status == WEIR_ENOMEM || status == WEIR_ECONFLICT ||
                      status == WEIR_EDRAINING;
    return kept ? status : WEIR_EINVAL;
}

bool entry_serves(const struct entry *entry)
{
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            return true;
        }
    }
    return false;
}

static const struct load_job *first_failure(const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->load_count; i++) {
        if (entry->loads[i].status != WEIR_OK) {
            return &entry->loads[i];
        }
    }
    return NULL;
}

void entry_set_remark(struct slot *slot)
{
    const struct model *model = slot->model;
    const struct model_config *config = model->config;
    slot->why = (struct weir_err){ 0 };
    const char *remark = config->remark != NULL ? config->remark : config->note;
    if (remark != NULL) {
        (void)err_set(&slot->why, WEIR_OK, "%s", remark);
    } else if (config->batching == BATCHING_AUTO && config->max_batch_size > 1 &&
               model->batching_reason != NULL) {
        (void)err_set(&slot->why, WEIR_OK, "batching is off: %s", model->batching_reason);
    }
}

static void take_over(struct load_job *load)
{
    struct slot *slot = load->slot;
    if (slot->model != NULL) {
        entry_let_go(slot);
    }
    slot->model = load->model;
    slot->state = MODEL_READY;
    slot->fingerprint = load->fingerprint;
    slot->failed = false;
    slot->gone = false;
    slot->announce = true;
    entry_set_remark(slot);
    load->entry->lacking = false;
    load->entry->host->changes++;
}

static void note_failure(struct load_job *load)
{
    struct slot *slot = load->slot;
    slot->failed = true;
    slot->announce = true;
    slot->why = load->err;
    if (slot->model == NULL) {
        slot->state = MODEL_UNAVAILABLE;
    } else {
        (void)err_prefix(&slot->why, "the last reload failed, what was loaded before serves on");
    }
}

/* A load that went well beside one that did not. */
static void discard(struct load_job *load, uint64_t failed_version)
{
    struct slot *slot = load->slot;
    slot->leaving++;
    ledger_leave(&load->entry->host->room.ledger, &load->resident->booking);
    model_release(load->model);
    if (slot->model == NULL) {
        slot->failed = true;
        slot->announce = true;
        slot->state = MODEL_UNAVAILABLE;
        (void)err_set(&slot->why, WEIR_EUNAVAILABLE,
                      "not taken into service because version %" PRIu64 " failed to load",
                      failed_version);
    }
}

static bool is_target(const struct entry *entry, uint64_t version, bool *exists)
{
    const struct repository_look *look = &entry->look.look;
    for (uint32_t i = 0; i < look->version_count; i++) {
        if (look->versions[i].version == version) {
            *exists = true;
            return entry->target[i];
        }
    }
    *exists = false;
    return false;
}

/* Drops what the new set has no more; what it has is well. */
static void drop_others(struct entry *entry)
{
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        bool exists;
        if (is_target(entry, slot->version, &exists)) {
            slot->failed = false;
            entry_set_remark(slot);
            continue;
        }
        slot->gone = !exists;
        if (slot->model != NULL) {
            entry_let_go(slot);
        } else if (slot->failed) {
            slot->failed = false;
            (void)err_set(&slot->why, WEIR_EUNAVAILABLE, "unloaded");
        }
    }
}

static bool is_loaded_anew(const struct entry *entry, const struct slot *slot)
{
    for (uint32_t i = 0; i < entry->load_count; i++) {
        if (entry->loads[i].slot == slot) {
            return true;
        }
    }
    return false;
}

bool entry_let_replaced_go(struct entry *entry)
{
    bool any = false;
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        bool exists;
        const bool stays = is_target(entry, slot->version, &exists) && !is_loaded_anew(entry, slot);
        if (slot->model != NULL && !stays) {
            entry_let_go(slot);
            any = true;
        }
    }
    return any;
}

static void take_over_all(struct entry *entry)
{
    for (uint32_t i = 0; i < entry->load_count; i++) {
        struct load_job *load = &entry->loads[i];
        if (load->status == WEIR_OK) {
            take_over(load);
        } else {
            note_failure(load);
        }
    }
    entry->config_fingerprint = entry->look.look.config_fingerprint;
    entry->overridden = entry->look.override != NULL;
}

static void discard_all(struct entry *entry, uint64_t failed_version)
{
    for (uint32_t i = 0; i < entry->load_count; i++) {
        struct load_job *load = &entry->loads[i];
        if (load->status == WEIR_OK) {
            discard(load, failed_version);
        } else {
            note_failure(load);
        }
    }
}

/* All jobs are back: the new set is taken over or not. */
static void end_load(struct entry *entry)
{
    const struct load_job *failure = first_failure(entry);
    entry_announce(entry); /* Where the failure before was not published. */
    entry->why = (struct weir_err){ 0 };
    if (entry->host->stopping) {
        discard_all(entry, 0);
        finish(entry, WEIR_EDRAINING, NULL);
        return;
    }
    if (failure != NULL && entry_serves(entry)) {
        discard_all(entry, failure->slot->version);
    } else {
        take_over_all(entry);
        entry->serving = failure == NULL;
    }
    if (failure == NULL) {
        drop_others(entry);
        finish(entry, WEIR_OK, NULL);
        return;
    }
    struct weir_err err = failure->err;
    (void)err_prefix(&err, "load failed for model '%s': version %" PRIu64, entry->name,
                     failure->slot->version);
    finish(entry, outcome(failure->status), &err);
}

/* Whose asking hung have failed. */
static bool any_goes_on(const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->load_count; i++) {
        if (entry->loads[i].work != NULL) {
            return true;
        }
    }
    return false;
}

void entry_load_over(struct entry *entry)
{
    if (--entry->loads_out > 0) {
        return;
    }
    if (!entry->asking) {
        end_load(entry);
        return;
    }
    entry->asking = false;
    if (any_goes_on(entry)) {
        entry_needs_known(entry);
    } else {
        const struct weir_err err = entry->loads[0].err; /* It goes with the loads. */
        entry_refuse_loads(entry, &err);
    }
}

static void loaded(struct loader_job *job)
{
    struct load_work *work = list_entry(job, struct load_work, job);
    struct load_job *load = work->load;
    if (job->lost) {
        entry_take_back(work);
        return;
    }
    struct entry *entry = load->entry;
    load->status = work->status;
    load->err = work->err;
    load->model = work->model;
    load->work = NULL;
    mem_free(work);
    if (load->status == WEIR_OK) {
        entry->host->residents++;
        entry->residents++;
        load->resident->model = load->model;
        room_measured(entry, load);
    } else {
        explain(&load->err, load->status);
        ledger_return(&entry->host->room.ledger, &load->resident->booking);
        mem_free(load->resident);
        load->resident = NULL;
    }
    entry_load_over(entry);
}

static void load_version(struct loader_job *job)
{
    struct load_work *work = list_entry(job, struct load_work, job);
    work->status = entry_begin_load(work);
    if (work->status == WEIR_OK) {
        log_event(LOG_DEBUG, "model load begins", LOG_STR("model", work->how.name),
                  LOG_U64("version", work->how.version));
        work->status = lifecycle_load(&work->how, &work->model, &work->err);
    }
}

const struct loader_ops entry_load_ops = {
    .what = "its load",
    .run = load_version,
    .lost = entry_lose_load,
    .done = loaded,
};

/* Version `index` of the look must be loaded: it is new, changed, or everything is. */
static bool must_load(const struct entry *entry, uint32_t index)
{
    const struct repository_look *look = &entry->look.look;
    const struct slot *slot = entry_find_slot(entry, look->versions[index].version);
    return slot == NULL || slot->model == NULL || entry->look.override != NULL ||
           entry->overridden || entry->config_fingerprint != look->config_fingerprint ||
           slot->fingerprint != look->versions[index].fingerprint ||
           entry_parts_differ(entry, slot->model);
}

static bool policy_wants(const struct look_job *look, uint32_t index)
{
    const uint32_t from_top = look->look.version_count - index;
    switch (look->policy) {
    case VERSION_ALL:
        return true;
    case VERSION_SPECIFIC:
        for (uint32_t i = 0; i < look->policy_count; i++) {
            if ((uint64_t)look->policy_versions[i] == look->look.versions[index].version) {
                return true;
            }
        }
        return false;
    default:
        return from_top <= look->policy_count;
    }
}

/* Counts what there is to do; 0 targets is an error. */
static enum weir_status choose(struct entry *entry, uint32_t *loads, struct weir_err *err)
{
    const struct look_job *look = &entry->look;
    uint32_t targets = 0;
    entry->target = arena_try_zero(&entry->arena, look->look.version_count, sizeof(*entry->target));
    if (entry->target == NULL) {
        return err_nomem(err, "a model's versions", look->look.version_count);
    }
    for (uint32_t i = 0; i < look->look.version_count; i++) {
        entry->target[i] = policy_wants(look, i);
        targets += entry->target[i] ? 1 : 0;
        *loads += entry->target[i] && must_load(entry, i) ? 1 : 0;
    }
    if (targets == 0) {
        return err_set(err, WEIR_EINVAL,
                       "failed to load '%s', no version is available: version_policy names none "
                       "of the folders there are",
                       entry->name);
    }
    return WEIR_OK;
}

/* With a copy of the override, which goes with its order; NULL when memory is out. */
static struct load_work *create_work(struct load_job *load, uint64_t version)
{
    struct entry *entry = load->entry;
    struct entry_host *host = entry->host;
    const char *override = entry->look.override;
    const size_t text_bytes = override == NULL ? 0 : strlen(override) + 1;
    struct load_work *work = mem_try_zero(1, sizeof(*work) + text_bytes);
    if (work == NULL) {
        return NULL;
    }
    work->job = (struct loader_job){
        .ops = &entry_load_ops,
        .resident = load->resident,
        .loader = entry->look.loader,
        .limit_ns = entry->look.limit_ns,
        .run_limit_ns = entry->look.run_limit_ns,
    };
    work->load = load;
    work->digest = entry_digest(entry, load);
    work->lost_before = entry_count_lost(entry, work->digest);
    work->how = (struct lifecycle_load){
        .engine = host->engine,
        .options = host->options,
        .repository = host->repository,
        .name = entry->name,
        .root = entry->look.look.root,
        .version = version,
        .override = override == NULL ? NULL : memcpy(work + 1, override, text_bytes),
        .parts = entry->parts,
        .part_count = entry->part_count,
        .awaited = entry->active != NULL && entry->active->kind == REGISTRY_NEED,
        .step = &work->job.step,
        .unleased = entry_unleased,
        .owner = load->resident,
    };
    return work;
}

static enum weir_status prepare_load(struct entry *entry, uint32_t index, struct load_job *load,
                                     struct weir_err *err)
{
    const struct repository_version *version = &entry->look.look.versions[index];
    struct slot *slot = need_slot(entry, version->version);
    struct resident *resident = mem_try_zero(1, sizeof(*resident));
    *load = (struct load_job){
        .entry = entry,
        .slot = slot,
        .resident = resident,
        .fingerprint = version->fingerprint,
    };
    load->work = slot == NULL || resident == NULL ? NULL : create_work(load, version->version);
    if (load->work == NULL) {
        mem_free(resident);
        return err_nomem(err, "a model's version", sizeof(*slot));
    }
    load->need = room_estimate(entry->host, slot, version->fingerprint, version->bytes);
    resident->entry = entry;
    resident->version = version->version;
    return WEIR_OK;
}

static void drop_loads(struct entry *entry)
{
    while (entry->load_count > 0) {
        const struct load_job *load = &entry->loads[--entry->load_count];
        mem_free(load->resident);
        mem_free(load->work);
    }
}

/* Makes all jobs before any is sent, so that running out of memory leaves nothing half done. */
static enum weir_status prepare_loads(struct entry *entry, uint32_t count, struct weir_err *err)
{
    entry->loads = arena_try_zero(&entry->arena, count, sizeof(*entry->loads));
    if (entry->loads == NULL) {
        return err_nomem(err, "a model's versions", count * sizeof(*entry->loads));
    }
    for (uint32_t i = 0; i < entry->look.look.version_count; i++) {
        if (!entry->target[i] || !must_load(entry, i)) {
            continue;
        }
        const enum weir_status status =
            prepare_load(entry, i, &entry->loads[entry->load_count], err);
        if (status != WEIR_OK) {
            return status;
        }
        entry->load_count++;
    }
    return WEIR_OK;
}

void entry_start_loads(struct entry *entry)
{
    uint32_t count = 0;
    struct weir_err err = { 0 };
    enum weir_status status = choose(entry, &count, &err);
    status = status == WEIR_OK ? prepare_loads(entry, count, &err) : status;
    status = status == WEIR_OK ? entry_check_loads(entry, &err) : status;
    if (status != WEIR_OK) {
        drop_loads(entry);
        entry_fail(entry, outcome(status), &err);
        return;
    }
    if (entry->load_count == 0) {
        end_load(entry);
    } else if (entry->look.memory.asks) {
        entry_ask_needs(entry);
    } else {
        entry_needs_known(entry);
    }
}

void entry_send_loads(struct entry *entry)
{
    entry->host->dirty = true;
    for (uint32_t i = 0; i < entry->load_count; i++) {
        struct load_job *job = &entry->loads[i];
        if (job->work == NULL) {
            continue;
        }
        entry->loads_out++;
        if (job->slot->model == NULL) {
            job->slot->state = MODEL_LOADING;
            job->slot->failed = false;
            job->slot->why = (struct weir_err){ 0 };
        }
        loader_send(entry->host, &job->work->job);
    }
}

void entry_refuse_loads(struct entry *entry, const struct weir_err *err)
{
    drop_loads(entry);
    if (entry->host->stopping) {
        finish(entry, WEIR_EDRAINING, NULL);
    } else if (entry->ahead) {
        finish(entry, err->status, err); /* Nobody has asked for it. */
    } else {
        entry_fail(entry, outcome(err->status), err);
    }
}

void entry_looked(struct worker_job *job)
{
    struct look_job *look = list_entry(job, struct look_job, job);
    struct entry *entry = look->entry;
    entry->host->jobs--;
    if (entry->host->stopping) {
        mem_free(look->parts);
        finish(entry, WEIR_EDRAINING, NULL);
    } else if (look->status == WEIR_OK) {
        entry->present = true;
        entry->counts = look->required;
        if (look->parts != NULL) {
            entry_parts_await(entry);
        } else {
            mem_free(entry->wants);
            entry->wants = NULL;
            entry_start_loads(entry);
        }
    } else {
        entry->present = entry->present && look->status != WEIR_ENOENT;
        entry_fail(entry, look->status == WEIR_ENOENT ? WEIR_ENOENT : outcome(look->status),
                   &look->err);
    }
}
