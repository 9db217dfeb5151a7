/*
 * catalogue.h — what can be served at this moment: an immutable snapshot.
 *
 * The manager publishes a new snapshot after each change; homes read theirs
 * without locks.  A snapshot holds a lease on every model version in it, so a
 * version found in a snapshot can be leased safely; when the last home has
 * moved on to a newer snapshot, those leases go.
 */
#ifndef WEIR_ENGINE_CATALOGUE_H
#define WEIR_ENGINE_CATALOGUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/ledger.h"
#include "engine/model.h"
#include "util/arena.h"
#include "util/map.h"

/* X(name, text): a version's life, as the repository index shows it. */
#define MODEL_STATES(X)       \
    X(UNKNOWN, "UNKNOWN")     \
    X(LOADING, "LOADING")     \
    X(READY, "READY")         \
    X(UNLOADING, "UNLOADING") \
    X(UNAVAILABLE, "UNAVAILABLE")

enum model_state {
#define MODEL_STATE_ENUM(name, text) MODEL_##name,
    MODEL_STATES(MODEL_STATE_ENUM)
#undef MODEL_STATE_ENUM
};

const char *model_state_text(enum model_state state);

/* One version of one model, as of the snapshot. */
struct catalogue_version {
    uint64_t version;
    enum model_state state;
    const char *reason;  /* One sentence; NULL when there is nothing to say. */
    struct model *model; /* Not NULL exactly when READY; leased by the snapshot. */
    bool failed; /* UNAVAILABLE because it could not be loaded, not because it was unloaded. */
};

struct catalogue_entry {
    const char *name;
    /* Why the model as a whole could not be loaded (no folder, a bad name or configuration, two
     * repositories), or NULL.  Where it has no versions, the index shows it as UNAVAILABLE. */
    const char *reason;
    bool waits;                         /* The reason is what the load under way waits for. */
    struct catalogue_version *versions; /* Ascending; those never loaded are not here. */
    uint32_t version_count;
    struct model *latest; /* Highest READY version, or NULL. */
    bool required;        /* Counts for readiness. */
    bool on_demand; /* It is loaded when somebody asks for it, or requests wait for its reload. */
    bool loading;   /* A load is under way, also beside versions that serve. */
};

struct catalogue {
    _Atomic uint64_t holders;
    uint64_t generation;
    struct map entries;           /* Of struct catalogue_entry, by name. */
    struct catalogue_entry *list; /* The same, sorted by name in byte order. */
    uint32_t count;
    bool on_demand; /* Some of its models are loaded when somebody asks. */
    bool settled;   /* The folders were looked at, and no load or unload is under way. */
    bool ready;     /* Every required model has all the versions it should have READY. */
    struct ledger_account *accounts; /* Memory: everything, each device, each group. */
    uint32_t account_count;
    uint64_t models_max;         /* That may be in memory; 0: no limit. */
    uint64_t proportional_bytes; /* Of the process, as the system counts it; 0: not known. */
    uint64_t evictions;          /* Models unloaded to make room, or because nobody asked. */
    uint64_t refusals;           /* Loads that found no room. */
    uint64_t loads_ahead;        /* Before anybody asked. */
    uint64_t loads_lost;         /* And unloads and the like: written off, not back. */
    uint32_t capacity;           /* Of list. */
    struct arena arena;          /* Everything in it. */
};

void catalogue_acquire(struct catalogue *catalogue);
void catalogue_release(struct catalogue *catalogue); /* NULL is fine. */

const struct catalogue_entry *catalogue_find(const struct catalogue *catalogue, struct bytes name);

/* What is said of a name that catalogue_find() does not know; WEIR_ENOENT. */
enum weir_status catalogue_refuse_unknown(struct bytes name, struct weir_err *err);

/* Nothing of it is on its way: what it has is ready, or has failed. */
bool catalogue_entry_is_settled(const struct catalogue_entry *entry);

/* The version (0: the latest READY one), or NULL. */
const struct catalogue_version *catalogue_version_find(const struct catalogue_entry *entry,
                                                       uint64_t version);

/* The model is there, does not serve this version (0: any), and would be loaded for a request. */
bool catalogue_is_due(const struct catalogue *catalogue, struct bytes name, uint64_t version);

/* Leases a version (0: the latest READY one) into *out.  WEIR_ENOENT: no such model, no such
 * version, or unloaded; WEIR_ELOADING: still loading; WEIR_EUNAVAILABLE: failed, with its
 * reason. */
WEIR_MUST_USE enum weir_status catalogue_lease(const struct catalogue *catalogue, struct bytes name,
                                               uint64_t version, struct model **out,
                                               struct weir_err *err);

/*
 * Building one, for the registry: create, add entries and their versions in any order of names but
 * versions ascending, seal, then it never changes.  All copy texts and lease models; NULL and
 * WEIR_ENOMEM when memory is out, after which the half-built snapshot is given to
 * catalogue_release().
 */
WEIR_MUST_USE struct catalogue *catalogue_create(uint64_t generation, uint32_t entries_max);
WEIR_MUST_USE struct catalogue_entry *catalogue_add(struct catalogue *catalogue, const char *name,
                                                    const char *reason, uint32_t versions_max);
WEIR_MUST_USE enum weir_status catalogue_add_version(struct catalogue *catalogue,
                                                     struct catalogue_entry *entry,
                                                     const struct catalogue_version *version);
WEIR_MUST_USE enum weir_status catalogue_seal(struct catalogue *catalogue);

#endif
