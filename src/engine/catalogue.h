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

#include "engine/model.h"
#include "util/map.h"

/* X(name, text): a version's life, as the repository index shows it. */
#define MODEL_STATES(X)             \
    X(UNKNOWN, "UNKNOWN")           \
    X(LOADING, "LOADING")           \
    X(READY, "READY")               \
    X(UNLOADING, "UNLOADING")       \
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
    const char *reason;      /* One sentence; NULL when READY. */
    struct model *model;     /* Not NULL exactly when READY; leased by the snapshot. */
};

struct catalogue_entry {
    const char *name;
    struct catalogue_version *versions; /* Ascending; those never loaded are not here. */
    uint32_t version_count;
    struct model *latest;    /* Highest READY version, or NULL. */
    bool required;           /* Counts for readiness. */
};

struct catalogue {
    _Atomic uint64_t holders;
    uint64_t generation;
    struct map entries;      /* Of struct catalogue_entry, by name. */
    struct catalogue_entry *list; /* The same, sorted by name. */
    uint32_t count;
    bool ready;              /* Every required model has a READY version it should have. */
};

void catalogue_acquire(struct catalogue *catalogue);
void catalogue_release(struct catalogue *catalogue); /* NULL is fine. */

const struct catalogue_entry *catalogue_find(const struct catalogue *catalogue,
                                             struct bytes name);

/* Leases a version (0: the latest READY one) into *out.  WEIR_ENOENT: no such model, no such version,
 * or unloaded; WEIR_ELOADING: still loading; WEIR_EUNAVAILABLE: failed, with its reason. */
WEIR_MUST_USE enum weir_status catalogue_lease(const struct catalogue *catalogue, struct bytes name,
                                               uint64_t version, struct model **out,
                                               struct weir_err *err);

#endif
