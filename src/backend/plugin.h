/*
 * plugin.h — backends from shared libraries (the ABI is include/weir/plugin.h).
 *
 * Before any model is loaded and after all are unloaded; main thread.
 */
#ifndef WEIR_BACKEND_PLUGIN_H
#define WEIR_BACKEND_PLUGIN_H

#include "backend/backend.h"

#define PLUGINS_MAX 16

struct weir_plugin;

/* Loads the library, checks its table and starts it; its models are those with `backend: NAME`.
 * WEIR_ENOENT, WEIR_EINVAL (no plug-in, another ABI, a name that is wrong or taken), or what its
 * start() says. */
WEIR_MUST_USE enum weir_status plugin_add(const char *path, struct weir_err *err);

/* Stops and unloads all. */
void plugin_remove_all(void);

/* By name, or NULL; and by number from 0, NULL at the end. */
const struct backend_ops *plugin_find(const char *name);
const struct backend_ops *plugin_at(uint32_t index);
const char *plugin_path(const struct backend_ops *ops); /* As it was added; NULL: is none. */

/* What its needs() says about this model; zeroed where it has none. */
struct weir_plugin_needs;
WEIR_MUST_USE enum weir_status plugin_needs(const struct backend_ops *ops,
                                            const struct backend_load *how,
                                            struct weir_plugin_needs *out, struct weir_err *err);

#endif
