/*
 * stores.h — the folders that the server writes to: learned profiles, converted models.
 *
 * Main thread, at the start.
 */
#ifndef WEIR_SERVER_STORES_H
#define WEIR_SERVER_STORES_H

#include <limits.h>

#include "server/config.h"
#include "util/err.h"

/* WEIR_ENOENT, WEIR_EINVAL: profile_store names a folder that is not there or cannot be written
 * to. */
WEIR_MUST_USE enum weir_status stores_check_profiles(const char *store, struct weir_err *err);

/* WEIR_EINVAL: model_cache names something that is no folder and cannot become one. */
WEIR_MUST_USE enum weir_status stores_check_models(const char *cache, struct weir_err *err);

/* Where converted models are kept, as model_cache says it: `out`, or NULL where it says nowhere,
 * or nobody said where such things belong: $CACHE_DIRECTORY (systemd), $XDG_CACHE_HOME,
 * $HOME/.cache. */
const char *stores_model_cache(const char *cache, char out[PATH_MAX]);

#endif
