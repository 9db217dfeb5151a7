/*
 * tryout.h — what a load finds out by running the model before anybody uses it.
 *
 * May requests share runs, does padding change nothing, do the configured warm-ups succeed, and
 * what does a row cost: the model's profile is begun here, so that a fresh server need not learn it
 * from its clients.  Loader thread; the model is not adopted yet.
 */
#ifndef WEIR_ENGINE_TRYOUT_H
#define WEIR_ENGINE_TRYOUT_H

#include "engine/engine.h"
#include "engine/model.h"
#include "engine/step.h"
#include "util/err.h"

struct tryout {
    struct engine *engine;
    struct model *model;  /* Loaded, its configuration completed. */
    int model_fd;         /* Its folder. */
    const char *no_batch; /* Why it was found to be no batching one, or NULL. */
    bool awaited;         /* Trials are left out whose outcome is known, or that only measure. */
    struct step *step;    /* Each run is one; NULL: nobody watches. */
};

/* Sets the model's batching, its reason, and its buckets; adds to its profile where that is empty
 * and to its remark.  WEIR_EINVAL: buckets or a warm-up do not fit the model; WEIR_ENOMEM,
 * WEIR_EBACKEND, WEIR_ECONFLICT: a configured warm-up failed, or there is no room for a context. */
WEIR_MUST_USE enum weir_status tryout_run(const struct tryout *tryout, struct weir_err *err);

#endif
