/*
 * registry.h — which models there are, and which of them are loaded.
 *
 * The registry runs on its own threads: the *manager* decides (and never
 * blocks), one *loader* per device loads, proves, warms and unloads.  Every
 * other thread sees models through catalogue snapshots, and asks for changes with
 * registry_load(), registry_unload() and registry_refresh(), whose answers come home by mail.
 *
 * A version's life:
 *
 *   UNKNOWN ──► LOADING ──► READY ──► UNLOADING ──► UNAVAILABLE ("unloaded")
 *                  │                                     ▲
 *                  └──────► UNAVAILABLE (why it failed) ─┘ (load again: LOADING)
 *
 * Reload: the new version is loaded, proved and warmed beside the old one; then
 * one snapshot shows the new and no longer the old; the old unloads when its
 * last lease is gone.  A reload that fails leaves the old one serving.
 */
#ifndef WEIR_ENGINE_REGISTRY_H
#define WEIR_ENGINE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/catalogue.h"
#include "engine/home.h"

struct engine;
struct registry;

/* X(name, text) */
#define MODEL_CONTROLS(X) X(ALL, "all") X(EXPLICIT, "explicit") X(POLL, "poll")

enum model_control {
#define MODEL_CONTROL_ENUM(name, text) CONTROL_##name,
    MODEL_CONTROLS(MODEL_CONTROL_ENUM)
#undef MODEL_CONTROL_ENUM
};

/* Reads a model's configuration (server/modelconfig.c): `folder_fd` is the model's folder, `override` the
 * text given at load, or NULL.  Called on a loader thread. */
typedef enum weir_status registry_configure_fn(void *context, const char *name, int folder_fd,
                                               const char *override, struct model_config **out,
                                               struct weir_err *err);

struct registry_options {
    const char *const *roots;     /* Repository folders. */
    uint32_t root_count;
    enum model_control control;
    const char *const *preload;   /* EXPLICIT: names to load at start ("*": all). */
    uint32_t preload_count;
    uint64_t poll_ns;             /* POLL: how often to look. */
    uint64_t models_max;
    uint64_t model_bytes_max;
    registry_configure_fn *configure;
    void *configure_context;
    /* Called on the manager's thread when a version became READY or UNAVAILABLE; for logs. */
    void (*changed)(void *context, const char *name, uint64_t version, enum model_state state,
                    const char *reason, const struct model *model);
};

/* Starts the threads and the initial loads.  `options` is borrowed for the registry's life.  WEIR_EIO when
 * a root cannot be opened. */
WEIR_MUST_USE enum weir_status registry_create(struct engine *engine,
                                               const struct registry_options *options,
                                               struct registry **out, struct weir_err *err);

/* Unloads everything and joins the threads; every home must be finished. */
void registry_destroy(struct registry *registry);

/* The current snapshot, held for the caller: catalogue_release().  Any thread. */
struct catalogue *registry_snapshot(struct registry *registry);

/* The snapshot this home reads now: refreshes home->catalogue when there is a newer one (one atomic
 * load when not).  Home thread.  Valid until the home's next turn. */
const struct catalogue *registry_catalogue(struct registry *registry, struct home *home);

/* An order to the manager; the caller's memory until `done` runs at home. */
struct registry_order {
    struct home_mail home_mail;
    struct mail mail;
    struct home *home;
    enum { REGISTRY_LOAD, REGISTRY_UNLOAD, REGISTRY_REFRESH } kind;
    const char *name;
    const char *override;    /* LOAD: configuration text (JSON or YAML), or NULL. */
    enum weir_status status;
    struct weir_err err;
    void (*done)(struct registry_order *self);
};

/* Home thread.  LOAD is done when the model is READY or has failed: WEIR_ENOENT no such folder, WEIR_EINVAL the
 * model or its configuration is broken, WEIR_ECONFLICT outside EXPLICIT mode.  UNLOAD is done when the
 * versions are no longer offered; in-flight requests finish; an unknown model is fine. */
void registry_order(struct registry *registry, struct registry_order *order);

#endif
