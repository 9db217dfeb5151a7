/*
 * registry.h — which models there are, and which of them are loaded.
 *
 * The registry runs on its own threads: the *manager* decides (and never blocks), one *loader* per
 * device loads, proves, warms and unloads; one that does not come back is replaced (loader.h).  Every other thread sees models through catalogue snapshots, and asks for changes
 * with registry_load(), registry_unload() and registry_refresh(), whose answers come home by mail.
 *
 * A version's life:
 *
 *   UNKNOWN ──► LOADING ──► READY ──► UNLOADING ──► UNAVAILABLE ("unloaded")
 *                  │                                     ▲
 *                  └──────► UNAVAILABLE (why it failed) ─┘ (load again: LOADING)
 *
 * Reload: the new version is loaded, proved and warmed beside the old one; then
 * one snapshot shows the new and no longer the old; the old unloads when its
 * last lease is gone.  A reload of which any version fails changes nothing: what was
 * serving goes on, and its entry in the index says why.  The very first load of a model keeps the
 * versions that came up beside those that did not.
 *
 * A model is loaded again only when something about it changed: its version's files, its
 * configuration, or an override that is there now or was there before.
 */
#ifndef WEIR_ENGINE_REGISTRY_H
#define WEIR_ENGINE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/catalogue.h"
#include "engine/home.h"
#include "engine/room.h"
#include "engine/worker.h"
#include "util/list.h"

struct engine;
struct registry;

/* X(name, text) */
#define MODEL_CONTROLS(X) X(ALL, "all") X(EXPLICIT, "explicit") X(POLL, "poll") X(DEMAND, "demand")

enum model_control {
#define MODEL_CONTROL_ENUM(name, text) CONTROL_##name,
    MODEL_CONTROLS(MODEL_CONTROL_ENUM)
#undef MODEL_CONTROL_ENUM
};

/* Reads a model's configuration (server/modelconfig.c): `folder_fd` is the model's folder,
 * `override` the text given at load, or NULL.  *out comes from effective_create() (effective.h).
 * Called on a loader thread. */
typedef enum weir_status registry_configure_fn(void *context, const char *name, int folder_fd,
                                               const char *override, struct model_config **out,
                                               struct weir_err *err);

/* Makes an ensemble out of its configuration and its parts (pipeline/graph.c): sets the model's
 * graph, graph_free and signature and completes its configuration.  WEIR_EINVAL: they do not fit
 * together; WEIR_ENOMEM.  Called on a loader thread. */
typedef enum weir_status registry_compose_fn(struct model *model, struct weir_err *err);

struct registry_options {
    const char *const *roots; /* Repository folders. */
    uint32_t root_count;
    enum model_control control;
    const char *const *preload; /* EXPLICIT, DEMAND: names to load at start ("*": all). */
    uint32_t preload_count;
    uint64_t poll_ns; /* POLL, DEMAND: how often to look. */
    struct room_options room;
    uint64_t models_max;
    uint64_t model_bytes_max;
    const char *profile_store; /* Where profiles are kept (profile_store.h); NULL: nowhere. */
    uint64_t profile_save_ns;  /* Time between looks for those to be written; 0: a minute. */
    const char *model_cache;   /* Folder of converted models (backend.h); NULL: none. */
    uint64_t model_cache_bytes_max;
    registry_configure_fn *configure;
    void *configure_context;
    registry_compose_fn *compose; /* NULL: ensembles cannot be loaded. */
    void *changed_context;
    /* May be NULL.  Called on the manager's thread, after the snapshot that shows it (or without
     * one, where it was over at once: a load that fails and is then unloaded), for logs: a version
     * became READY (`reason` is a remark or NULL, `model` the model), could not be loaded or was
     * unloaded (UNAVAILABLE; `model` NULL; the reason of an unload says how much memory came back).
     * Version 0: about the whole model; with an empty name and UNKNOWN, once: the folders have been
     * looked at for the first time. */
    void (*changed)(void *context, const char *name, uint64_t version, enum model_state state,
                    const char *reason, const struct model *model);
};

/* Starts the threads and the initial loads.  `options` is borrowed for the registry's life.
 * WEIR_EIO when a root cannot be opened. */
WEIR_MUST_USE enum weir_status registry_create(struct engine *engine,
                                               const struct registry_options *options,
                                               struct registry **out, struct weir_err *err);

/* Any thread, once, before the homes that gave orders of REGISTRY_NEED are finished: those are answered
 * now, WEIR_EDRAINING, and from now on at once.  What they have begun goes on. */
void registry_refuse_needs(struct registry *registry);

/* Unloads everything, answers the orders that are left and joins the threads.  No home may hold a
 * snapshot any more (home_rest()); those with orders are finished afterwards, as their answers come
 * by mail.  NULL is fine.  False: work of a loader that was written off, or was not over at
 * `until_ns` of the system's clock, goes on; what it may use must stay, the engine and the options
 * among it, and the process best ends by _exit(). */
bool registry_destroy(struct registry *registry, uint64_t until_ns);

/* The current snapshot, held for the caller: catalogue_release().  Any thread. */
struct catalogue *registry_snapshot(struct registry *registry);

/* The snapshot this home reads now: refreshes home->catalogue when there is a newer one (one atomic
 * load when not).  Home thread.  Valid until the next call for this home, or its next turn. */
const struct catalogue *registry_catalogue(struct registry *registry, struct home *home);

/* Any thread: budgets, rules and the time between looks at the folders from now on. */
void registry_set(struct registry *registry, const struct room_options *room, uint64_t poll_ns);

enum registry_order_kind { REGISTRY_LOAD, REGISTRY_UNLOAD, REGISTRY_REFRESH, REGISTRY_NEED };

/* An order to the manager; zeroed and filled in by the caller, whose memory it is until `done` runs
 * at home. */
struct registry_order {
    struct home_mail home_mail; /* The registry's, as are the next three. */
    struct worker_job job;
    struct registry *registry;
    struct list_node node;
    struct home *home;
    enum registry_order_kind kind;
    const char *name;
    const char *override; /* LOAD: configuration text (JSON or YAML), or NULL. */
    /* REFRESH in ALL mode: what has changed since the start is loaded or unloaded, as in POLL
     * mode. */
    bool follow;
    bool dependents; /* UNLOAD of an ensemble: its parts, too, where nobody else uses them. */
    enum weir_status status;
    struct weir_err err;
    void (*done)(struct registry_order *self);
};

/* Home thread.  LOAD is done when the model is READY or has failed: WEIR_ENOENT no such folder,
 * WEIR_EINVAL the model, its name or its configuration is broken, WEIR_ENOMEM, WEIR_ECONFLICT
 * outside EXPLICIT mode or where the device has no room for its instances.  UNLOAD is done when the
 * versions are no longer offered; in-flight requests finish; an unknown model is fine.  REFRESH
 * looks at the repositories now: the index then shows what is there; outside EXPLICIT mode it is
 * done when all that is to be loaded or unloaded is.  NEED, in DEMAND mode: as LOAD, but done at
 * once where the model serves, or where its last load has just failed. */
void registry_order(struct registry *registry, struct registry_order *order);

#endif
