/*
 * entry.h — one model name in the registry: its versions, and the work on them.
 *
 * Everything here is the manager's alone, but for the jobs, which a scanner or
 * a loader holds between worker_send() and their return.  One piece of work at a time per
 * entry; the rest stands in line.
 *
 *   idle ──► looking (scanner) ──► loading (loaders, one job per version) ──► idle
 *     │            └─► waiting (an ensemble, for its parts) ─┘
 *     └────────── unload: at once; the memory follows when the leases are gone
 */
#ifndef WEIR_ENGINE_ENTRY_H
#define WEIR_ENGINE_ENTRY_H

#include <stdatomic.h>

#include "engine/foresee.h"
#include "engine/lifecycle.h"
#include "engine/loader.h"
#include "engine/registry.h"
#include "engine/repository.h"
#include "engine/room.h"
#include "engine/worker.h"
#include "util/arena.h"
#include "util/list.h"
#include "util/map.h"

/* What all entries of a registry share.  Manager thread. */
struct entry_host {
    struct engine *engine;
    const struct registry_options *options;
    struct repository repository;
    struct worker *manager;
    struct worker *scanner;
    struct worker *loaders;    /* One per pool, by its index. */
    const struct clock *clock; /* The system's. */
    struct room room;
    struct room_options room_options; /* Those in force. */
    struct entry *asked_last;         /* The last request that had to wait was for it, or NULL. */
    uint64_t asked_last_ns;
    _Atomic bool stopping; /* Read by the workers too: what has not begun is left undone. */
    bool dirty;            /* There is something to publish. */
    struct map by_name;    /* Of struct entry. */
    struct list entries;   /* Of entry.node. */
    uint32_t entry_count;
    uint64_t changes;    /* Of what serves: ensembles look at their parts again. */
    uint64_t walk;       /* Number of the last walk over entries. */
    uint64_t jobs;       /* Out with other workers; those written off are not counted. */
    uint64_t lost;       /* Written off and not back. */
    struct list out;     /* Of loader_job.node: those of the loaders among them. */
    uint64_t residents;  /* Models in memory, but for those that a hung thread holds. */
    struct list answers; /* Of registry_order.node: to be sent home after the next publishing. */
    struct list gone;    /* Of resident.node: unloaded, to be announced then. */
};

/* A loaded model, from the order to load it until its memory is gone: model.owner. */
struct resident {
    struct worker_job job; /* Its last lease is gone. */
    struct loader_job unload;
    struct loader_job save; /* While `saving`: its profile is being written. */
    bool saving;
    struct loader_job promote; /* While `promoting`: its weights are being packed, */
    bool promoting;
    struct backend_model *promoted;  /* on this device, */
    struct ledger_booking promotion; /* which takes so much meanwhile. */
    uint32_t held;                   /* By so many threads that hang. */
    struct list_node node;           /* In host.gone. */
    struct entry *entry;
    struct model *model;
    uint64_t version;
    struct ledger_booking booking; /* Of the budgets. */
    struct lifecycle_freed freed;
};

struct slot {
    struct list_node node; /* In entry.slots, by version. */
    uint64_t version;
    enum model_state state;
    struct model *model;       /* READY: with a lease of the registry's. */
    uint64_t fingerprint;      /* Of the files the model was loaded from. */
    struct ledger_need peak;   /* What its last load took at most, measured; zeroed: not known. */
    uint64_t peak_fingerprint; /* Of the files that was measured with. */
    uint64_t first_ns;         /* What their first load took, */
    uint64_t reload_ns;        /* and what later ones take; 0: there was none. */
    uint32_t leaving;          /* Earlier loads of it whose leases are not gone yet. */
    bool failed;               /* The last load of it failed. */
    bool gone;                 /* Its folder is. */
    bool announce;             /* Say so in the log after the next publishing. */
    struct weir_err why;       /* The reason in the index; empty text: none. */
};

/* What a step of an ensemble names. */
struct entry_part {
    const char *name;
    uint64_t version; /* 0: the latest that is ready. */
};

struct entry_parts {
    uint32_t count;
    struct entry_part items[]; /* Their names lie behind them. */
};

/* What a configuration says about memory. */
struct look_memory {
    enum update_mode update;
    uint32_t device;     /* The first one, in the order of the ledger's, */
    uint64_t also;       /* and a bit per further one. */
    uint64_t peak_bytes; /* peak_memory; 0: not said. */
    const char *group;   /* In entry.arena; NULL: none. */
    bool asks;           /* The backend knows before the load what that needs. */
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
    enum required_mode required;
    uint64_t limit_ns;     /* Of a loader's work on it (lifecycle_limit_ns()), */
    uint64_t run_limit_ns; /* and of a trial run, with the grace that runs have; 0: the same. */
    struct look_memory memory;
    struct entry_parts *parts; /* Of an ensemble, one per step; the entry takes them. */
    enum weir_status status;
    struct weir_err err;
};

/* What a loader has of a load.  It outlives the load_job where it is written off (entry_lost.c). */
struct load_work {
    struct loader_job job;
    struct load_job *load;     /* The manager's; NULL: it was written off, */
    struct list_node hung;     /* and is in entry.hung. */
    uint64_t digest;           /* Of what is loaded and how. */
    uint32_t lost_before;      /* Loads of the same that hung when it was prepared. */
    struct lifecycle_load how; /* Its override lies behind this struct. */
    struct backend_needs needs;
    struct model *model; /* The result. */
    enum weir_status status;
    struct weir_err err;
};

/* One version to be loaded. */
struct load_job {
    struct entry *entry;
    struct slot *slot;
    struct resident *resident; /* NULL: it failed. */
    struct load_work *work;    /* NULL: it is over. */
    struct ledger_need need;   /* At its peak. */
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
    bool present;              /* Its folder was there at the last look. */
    bool barred;               /* It can be no model: `why`. */
    bool required;             /* Loaded at start. */
    enum required_mode counts; /* As its settings said when they were last read. */
    bool serving;              /* All versions it should have are READY. */
    bool announce;
    bool overridden;             /* Loaded with an override. */
    uint64_t config_fingerprint; /* Of what it was loaded with. */
    uint64_t seen_fingerprint;   /* Of the folder that was last tried. */
    uint64_t scan;               /* Number of the last scan that saw it. */
    uint64_t residents;
    _Atomic uint32_t lost; /* Loaders' work on it that was written off and has not come back. */
    struct list hung;      /* The loads among it: of load_work.hung. */
    struct weir_err why;   /* Why nothing could be tried; empty text: none. */

    bool busy;
    bool waiting;          /* An ensemble, between the look and the load: for its parts. */
    bool lacking;          /* An ensemble that does not serve for want of a part. */
    bool retrying;         /* The load under way is nobody's order: it loads no parts. */
    bool replacing;        /* What served has gone for the load under way: requests wait for it. */
    bool want_ahead;       /* Somebody will probably ask for it. */
    bool ahead;            /* The load under way is for them. */
    struct list_node room; /* In host.room.waiting: for memory. */
    struct weir_err waits; /* What for, while it is there; empty text: it is not known yet. */
    struct foresight next; /* Who is asked for after it. */
    /* It was loaded ahead after this one, and not asked for yet; or NULL. */
    struct entry *foreseen_by;
    uint64_t asked_ns; /* Since when. */
    uint64_t more_ns;  /* When more than those that go already have to; 0: not known yet. */
    struct usage usage;
    uint64_t uses;             /* Of its models at the last look. */
    uint64_t loaded_ns;        /* Its last load came up then. */
    uint32_t failures;         /* Loads on demand that failed, one after the other. */
    uint64_t retry_ns;         /* No further one before. */
    uint64_t judged;           /* host.changes when its parts were last looked at. */
    uint64_t tried;            /* Digest of the parts of the last attempt. */
    struct entry_parts *wants; /* An ensemble's, as of the last look; owned. */
    struct entry *brought_by;  /* It is loaded only for this ensemble's load under way; or NULL. */
    uint64_t walked;           /* The last walk that came by. */
    bool is_part;              /* Of an ensemble that serves or loads; only while room looks. */
    struct model **parts;      /* What its steps get, leased while it loads; in arena. */
    uint32_t part_count;
    bool want_load;
    bool want_unload;
    struct list orders;            /* Of registry_order.node. */
    struct registry_order *active; /* The order being worked on, or NULL. */
    struct arena arena;            /* Of the work being done. */
    struct look_job look;
    struct load_job *loads;
    uint32_t load_count;
    uint32_t loads_out;
    bool asking;  /* They are out to learn what they need. */
    bool *target; /* Per version of the look: to be served. */
};

void entry_host_init(struct entry_host *host);
void entry_host_finish(struct entry_host *host); /* Destroys all entries. */

struct entry *entry_find(const struct entry_host *host, const char *name); /* NULL: none. */

/* Finds or makes; NULL when memory is out. */
WEIR_MUST_USE struct entry *entry_need(struct entry_host *host, const char *name);
void entry_remove(struct entry *entry); /* Idle, without models. */

static inline struct entry *entry_first(const struct entry_host *host)
{
    struct list_node *node = list_first(&host->entries);
    return node == NULL ? NULL : list_entry(node, struct entry, node);
}

static inline struct entry *entry_next(const struct entry *entry)
{
    struct list_node *node = list_next(&entry->host->entries, &entry->node);
    return node == NULL ? NULL : list_entry(node, struct entry, node);
}

/* Takes up the next piece of work, if it is idle. */
void entry_advance(struct entry *entry);

/* Puts an order in line and takes it up if it can. */
void entry_order(struct entry *entry, struct registry_order *order);

/* Answers who only waits for it to be loaded: WEIR_EDRAINING. */
void entry_refuse_needs(struct entry *entry);

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

/* Is any version of it READY? */
bool entry_serves(const struct entry *entry);

/* For entry_parts.c: the load goes on once the parts are there; it came to nothing. */
void entry_start_loads(struct entry *entry);
void entry_fail(struct entry *entry, enum weir_status status, const struct weir_err *err);

/* entry_unload.c: gives the registry's lease back, and the version is offered no more; model.unleased
 * of all models (any thread). */
void entry_let_go(struct slot *slot);
void entry_unleased(struct model *model);

/* For entry_line.c: everything is unloaded; a load begins. */
void entry_drop(struct entry *entry);
void entry_start(struct entry *entry, const char *override);
void entry_start_ahead(struct entry *entry);

/* Between entry.c, entry_look.c and entry_lost.c: a job goes back to the manager; the scanner is
 * done; the loads are prepared, and their backend is asked what they need; that is known; one load
 * is over, or its asking; what loaders do of one. */
void entry_return_job(struct entry_host *host, struct worker_job *job,
                      void (*run)(struct worker_job *));
void entry_looked(struct worker_job *job);
void entry_ask_needs(struct entry *entry);
void entry_needs_known(struct entry *entry);
void entry_load_over(struct entry *entry);
extern const struct loader_ops entry_load_ops;

/* What a person should know about a version that serves. */
void entry_set_remark(struct slot *slot);

/* A load that a request asked for is over. */
void entry_note_demand(struct entry *entry, enum weir_status status);

/* For room.c: lets go what serves and the prepared loads take the place of; false: there is nothing
 * of that. */
bool entry_let_replaced_go(struct entry *entry);

/* For room.c: what the entry prepared goes to the loaders; or comes to nothing. */
void entry_send_loads(struct entry *entry);
void entry_refuse_loads(struct entry *entry, const struct weir_err *err);

/* Forgets versions of which there is nothing left to tell; while a load is under way, none. */
void entry_prune(struct entry *entry);

/* Does the server's readiness count on it? */
bool entry_is_required(const struct entry *entry);

/* Adds it to a snapshot being built.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status entry_show(const struct entry *entry, struct catalogue *catalogue);

/* After publishing, or before what happened is forgotten: tells options.changed of it. */
void entry_announce(struct entry *entry);
void entry_announce_gone(struct entry_host *host);

/* entry_lost.c: a load was written off; one of those has come back. */
void entry_lose_load(struct loader_job *job);
void entry_take_back(struct load_work *work);

/* Tells what is loaded, and how, from anything else; how many loads of that hang. */
uint64_t entry_digest(const struct entry *entry, const struct load_job *load);
uint32_t entry_count_lost(const struct entry *entry, uint64_t digest);

/* WEIR_EUNAVAILABLE: for each of the loads prepared, too many of its kind hang. */
WEIR_MUST_USE enum weir_status entry_check_loads(const struct entry *entry, struct weir_err *err);

/* One begins, if it is to (loader).  WEIR_EDRAINING; WEIR_EUNAVAILABLE as above. */
WEIR_MUST_USE enum weir_status entry_begin_load(struct load_work *work);

/* Records the outcome of an order; it goes home after the next publishing. */
void entry_answer(struct entry_host *host, struct registry_order *order, enum weir_status status,
                  const struct weir_err *err);

/* entry_promote.c: has the weights of a hot model packed, where there is room and nothing else to
 * do; once per turn.  *next_ns: when to look again at the latest.  Manager. */
void entry_promote(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns);

/* entry_save.c: has the profiles of all models written that learned something.  Manager. */
void entry_save(struct entry_host *host);

#endif
