/*
 * entry.h — one model name in the registry: its versions, and the work on them.
 *
 * Everything here is the manager's alone, but for the jobs, which a scanner or
 * a loader holds between worker_send() and their return.  One piece of work at a time per
 * entry; the rest stands in line.
 *
 *   idle ──► looking (scanner) ──► loading (loaders, one job per version) ──► idle
 *     └────────── unload: at once; the memory follows when the leases are gone
 */
#ifndef WEIR_ENGINE_ENTRY_H
#define WEIR_ENGINE_ENTRY_H

#include <stdatomic.h>

#include "engine/lifecycle.h"
#include "engine/registry.h"
#include "engine/repository.h"
#include "engine/worker.h"
#include "util/arena.h"
#include "util/list.h"

/* What all entries of a registry share.  Manager thread. */
struct entry_host {
    struct engine *engine;
    const struct registry_options *options;
    struct repository repository;
    struct worker *manager;
    struct worker *scanner;
    struct worker *loaders; /* One per pool, by its index. */
    _Atomic bool stopping;  /* Read by the workers too: what has not begun is left undone. */
    bool dirty;             /* There is something to publish. */
    uint64_t jobs;          /* Out with other workers. */
    uint64_t residents;     /* Models in memory. */
    struct list answers;    /* Of registry_order.node: to be sent home after the next publishing. */
    struct list gone;       /* Of resident.node: unloaded, to be announced then. */
};

/* A loaded model, from the order to load it until its memory is gone: model.owner. */
struct resident {
    struct worker_job job;
    struct list_node node; /* In host.gone. */
    struct entry *entry;
    struct model *model;
    uint64_t version;
    uint64_t freed_bytes;
};

struct slot {
    struct list_node node; /* In entry.slots, by version. */
    uint64_t version;
    enum model_state state;
    struct model *model;  /* READY: with a lease of the registry's. */
    uint64_t fingerprint; /* Of the files the model was loaded from. */
    uint32_t leaving;     /* Earlier loads of it whose leases are not gone yet. */
    bool failed;          /* The last load of it failed. */
    bool gone;            /* Its folder is. */
    bool announce;        /* Say so in the log after the next publishing. */
    struct weir_err why;  /* The reason in the index; empty text: none. */
};

/* What a scanner finds out before a load. */
struct look_job {
    struct worker_job job;
    struct entry *entry;
    const char *override;
    struct repository_look look; /* In entry.arena. */
    enum version_policy policy;
    uint32_t policy_count;
    int64_t policy_versions[64];
    uint32_t loader; /* Index of the device's. */
    enum weir_status status;
    struct weir_err err;
};

/* One version to be loaded. */
struct load_job {
    struct worker_job job;
    struct entry *entry;
    struct slot *slot;
    struct resident *resident;
    struct lifecycle_load how;
    uint64_t fingerprint;
    struct model *model; /* The result. */
    enum weir_status status;
    struct weir_err err;
};

struct entry {
    struct entry_host *host;
    struct list_node node; /* In the registry's. */
    char *name;
    struct list slots;
    uint32_t slot_count;
    bool present; /* Its folder was there at the last look. */
    bool barred;  /* It can be no model: `why`. */
    bool required;
    bool serving; /* All versions it should have are READY. */
    bool announce;
    bool overridden;             /* Loaded with an override. */
    uint64_t config_fingerprint; /* Of what it was loaded with. */
    uint64_t seen_fingerprint;   /* POLL: of the folder that was last tried. */
    uint64_t scan;               /* Number of the last scan that saw it. */
    uint64_t residents;
    struct weir_err why; /* Why nothing could be tried; empty text: none. */

    bool busy;
    bool want_load;
    bool want_unload;
    struct list orders;            /* Of registry_order.node. */
    struct registry_order *active; /* The order being worked on, or NULL. */
    struct arena arena;            /* Of the work being done. */
    struct look_job look;
    struct load_job *loads;
    uint32_t load_count;
    uint32_t loads_out;
    bool *target; /* Per version of the look: to be served. */
};

/* NULL when memory is out. */
WEIR_MUST_USE struct entry *entry_create(struct entry_host *host, const char *name);
void entry_destroy(struct entry *entry); /* Idle, without models. */

/* Takes up the next piece of work, if it is idle. */
void entry_advance(struct entry *entry);

/* Puts an order in line and takes it up if it can. */
void entry_order(struct entry *entry, struct registry_order *order);

/* Stopping: answers what is in line and offers nothing any more. */
void entry_stop(struct entry *entry);

/* Bars the entry for good reason; the versions that serve go on. */
void entry_bar(struct entry *entry, const char *why);

/* True while there is work on it or in line. */
bool entry_is_busy(const struct entry *entry);

/* True when nothing is known of it that the index should show. */
bool entry_is_empty(const struct entry *entry);

/* The versions of an entry, ascending; NULL at the end. */
static inline struct slot *entry_first_slot(const struct entry *entry)
{
    struct list_node *node = list_first(&entry->slots);
    return node == NULL ? NULL : list_entry(node, struct slot, node);
}

static inline struct slot *entry_next_slot(const struct entry *entry, const struct slot *slot)
{
    struct list_node *node = list_next(&entry->slots, &slot->node);
    return node == NULL ? NULL : list_entry(node, struct slot, node);
}

struct slot *entry_find_slot(const struct entry *entry, uint64_t version); /* NULL: none. */

/* Forgets versions of which there is nothing left to tell. */
void entry_prune(struct entry *entry);

/* Adds it to a snapshot being built.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status entry_show(const struct entry *entry, struct catalogue *catalogue);

/* After publishing: tells options.changed what happened. */
void entry_announce(struct entry *entry);
void entry_announce_gone(struct entry_host *host);

/* Records the outcome of an order; it goes home after the next publishing. */
void entry_answer(struct entry_host *host, struct registry_order *order, enum weir_status status,
                  const struct weir_err *err);

#endif
