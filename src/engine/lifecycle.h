/*
 * lifecycle.h — how one model version gets into memory and out of it again.
 *
 * A loader thread's work: open the folder, read the configuration, load, complete and check the
 * configuration against the model, prove that rows are independent, warm up, hand over to the
 * engine.  It blocks, and knows nothing of other models.
 */
#ifndef WEIR_ENGINE_LIFECYCLE_H
#define WEIR_ENGINE_LIFECYCLE_H

#include "engine/engine.h"
#include "engine/model.h"
#include "engine/registry.h"
#include "engine/repository.h"
#include "engine/step.h"

struct lifecycle_load {
    struct engine *engine;
    const struct registry_options *options;
    struct repository repository;
    const char *name;
    uint32_t root;
    uint64_t version;
    const char *override;       /* Configuration text, or NULL. */
    struct model *const *parts; /* Of an ensemble: one leased model per step.  Borrowed. */
    uint32_t part_count;
    bool awaited;      /* Somebody waits for it: what was tried before is not tried again. */
    struct step *step; /* That it is at: each device, each trial run; NULL: nobody watches. */
    void (*unleased)(struct model *model);
    void *owner; /* Becomes model.owner. */
};

/* Reads the configuration of the model and nothing else; release it with effective_release().  For
 * the version policy and the device. */
WEIR_MUST_USE enum weir_status lifecycle_configure(const struct lifecycle_load *how,
                                                   struct model_config **out, struct weir_err *err);

/* Longest step of a loader's work on the model that is waited for; 0: however long it takes, as in
 * a process of its own, which is ended by itself, or where there is nothing that could hang. */
uint64_t lifecycle_limit_ns(const struct model_config *config);

/* What the load will take at its peak, as far as its backend knows.  As lifecycle_load(). */
WEIR_MUST_USE enum weir_status lifecycle_needs(const struct lifecycle_load *how,
                                               struct backend_needs *out, struct weir_err *err);

/* *out is ready to serve and has one lease, the caller's.  WEIR_EINVAL, WEIR_ENOENT, WEIR_EBACKEND,
 * WEIR_EIO: something is wrong with the model, its files or its configuration; WEIR_ENOMEM;
 * WEIR_ECONFLICT: its device has no room for the instances. */
WEIR_MUST_USE enum weir_status lifecycle_load(const struct lifecycle_load *how, struct model **out,
                                              struct weir_err *err);

/* Resident memory of the process around an unload; approximate: other threads allocate
 * meanwhile. */
struct lifecycle_freed {
    uint64_t before;
    uint64_t after;
    uint64_t bytes; /* What came back. */
};

/* The last lease is gone: frees everything and returns the memory to the system. */
void lifecycle_unload(struct engine *engine, struct model *model, struct lifecycle_freed *out);

#endif
