/*
 * The server's main thread only waits: for signals, and for mail to its own home,
 * whose wake-up is a signal too.  So one sigwait() hears everything, and nothing runs in a
 * signal handler.
 */
#include "server/server.h"
#include "engine/canary.h"
#include "engine/outage.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "api/shm.h"
#include "backend/plugin.h"
#include "pipeline/graph.h"
#include "server/activation.h"
#include "server/budget.h"
#include "server/caller.h"
#include "server/devices.h"
#include "server/front.h"
#include "server/guard.h"
#include "server/modelconfig.h"
#include "server/notify.h"
#include "server/reload.h"
#include "server/stores.h"
#include "util/descriptors.h"
#include "util/gpus.h"
#include "util/mem.h"

#define NAMES_BYTES_MAX 4096
#define FILES_BESIDES 4096  /* Than connections: models, their processes, shared memory. */
#define SIGNAL_WAKE SIGUSR1 /* Mail for the main thread's home, or a loop has ended. */

struct server {
    const struct config *config;
    struct limits limits; /* As they are now: a reload changes them while everybody reads. */
    enum server_mode mode;
    struct clock clock;
    struct guard guard;
    struct notify notify;
    struct reload reload;
    uint64_t pulse_ns; /* When the watchdog is to hear of us again. */
    uint64_t look_ns;  /* When the guard looks at its files again. */
    struct engine *engine;
    struct devices devices;
    struct registry_options registry_options;
    char model_cache[PATH_MAX]; /* Its folder. */
    struct registry *registry;
    struct api_options api_options;
    struct gpus *gpus; /* NULL: there are none. */
    struct shm *shm;   /* NULL: no client shared memory. */
    struct api *api;
    /* Listening sockets that were handed over; they stand for those configured. */
    uint32_t activated;
    struct front front;
    pthread_t main;
    struct home home; /* The main thread's. */
    bool home_open;
    struct canaries canaries;   /* Of that home. */
    uint64_t canary_ns;         /* When something is due there. */
    struct registry_order look; /* Carried out once the folders have been read. */
    bool looking;               /* It is under way. */
    bool look_again;            /* Somebody asked for another one meanwhile. */
    bool looked;                /* Once at least. */
    server_loading_fn *tell;    /* How far the models are; NULL: nobody wants to know. */
    void *tell_context;
    uint64_t tell_every_ns;
    int signal;          /* Came while waiting for models; 0: none. */
    uint64_t stop_by_ns; /* The drain time-out's end; 0: it has not begun. */
};

static sigset_t watched_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGNAL_WAKE);
    return set;
}

void server_block_signals(void)
{
    const sigset_t set = watched_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void wake_main(void *context)
{
    const struct server *server = context;
    pthread_kill(server->main, SIGNAL_WAKE);
}

/* Manager's thread. */
static void on_change(void *context, const char *name, uint64_t version, enum model_state state,
                      const char *reason, const struct model *model)
{
    (void)context;
    if (state == MODEL_READY && model != NULL) {
        const char *unbatched = model->batching_reason;
        log_event(LOG_INFO, "model ready", LOG_STR("model", name), LOG_U64("version", version),
                  LOG_MS("took_ms", model->load_ns), LOG_BYTES("memory_bytes", model->loaded_bytes),
                  LOG_STR("batching", unbatched == NULL ? "on" : unbatched));
        if (model->config->remark != NULL) {
            log_event(LOG_WARNING, "model configuration", LOG_STR("model", name),
                      LOG_STR("remark", model->config->remark));
        }
        if (model->config->note != NULL) {
            log_event(LOG_INFO, "model configuration", LOG_STR("model", name),
                      LOG_STR("remark", model->config->note));
        }
    } else if (state == MODEL_UNAVAILABLE) {
        const bool asked = reason != NULL && strncmp(reason, "unloaded", 8) == 0;
        /* Version 0: a load that came to nothing, while older versions may serve on. */
        const char *what = version == 0 ? "model not loaded" : "model unavailable";
        log_event(asked ? LOG_INFO : LOG_ERROR, asked ? "model unloaded" : what,
                  LOG_STR("model", name), LOG_U64("version", version),
                  LOG_STR("reason", reason == NULL ? "" : reason));
    }
}

/* Executor's or manager's thread; main's of canaries. */
static void on_advice(void *context, const struct model *model, enum log_level level,
                      const char *text)
{
    (void)context;
    log_event(level, "model advice", LOG_STR("model", model->name),
              LOG_U64("version", model->version), LOG_STR("remark", text));
}

static enum weir_status start_engine(struct server *server, struct weir_err *err)
{
    const struct config *config = server->config;
    const enum weir_status status = devices_read(&server->devices, config, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct engine_options options = { .devices = server->devices.list,
                                            .device_count = server->devices.count,
                                            .limits = &server->limits,
                                            .clock = &server->clock,
                                            .threads = true,
                                            .inline_runs = config->inline_runs,
                                            .rate_limit = config->rate_limit == 1,
                                            .rate_limits = config->rate_limit_resource.items,
                                            .rate_limit_count = config->rate_limit_resource.count,
                                            .cache_bytes = config->cache_bytes,
                                            .order = &config->order,
                                            .advise = on_advice };
    return engine_create(&options, &server->engine, err);
}

static enum weir_status start_registry(struct server *server, struct weir_err *err)
{
    const struct config *config = server->config;
    const bool stores = server->mode == SERVER_SERVE;
    enum weir_status status = stores_check_models(config->model_cache, err);
    if (status == WEIR_OK && stores) {
        status = stores_check_profiles(config->profile_store, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    server->registry_options = (struct registry_options){
        .roots = config->repository.items,
        .root_count = (uint32_t)config->repository.count,
        .control = (enum model_control)config->model_control,
        .preload = config->load_model.items,
        .preload_count = (uint32_t)config->load_model.count,
        .poll_ns = config->poll_interval_ns,
        .models_max = config->limits.models_max,
        .model_bytes_max = config->limits.model_bytes_max,
        .configure = modelconfig_read,
        .compose = graph_compose,
        .profile_store = stores ? config->profile_store : NULL,
        .model_cache = stores_model_cache(config->model_cache, server->model_cache),
        .model_cache_bytes_max = config->model_cache_bytes_max,
        .changed = server->mode == SERVER_SERVE ? on_change : NULL,
    };
    status = budget_read(config, &server->registry_options.room, err);
    if (status == WEIR_OK) {
        status = registry_create(server->engine, &server->registry_options, &server->registry, err);
    }
    if (status == WEIR_OK) {
        home_init(&server->home, server->engine, wake_main, server);
        server->home_open = true;
        canaries_init(&server->canaries, server->engine, &server->home, config->canary_interval_ns);
    }
    return status;
}

static enum weir_status read_again(void *context, struct buffer *names, struct weir_err *err)
{
    struct server *server = context;
    return reload_settings(&server->reload, names, err);
}

static const char *client_header(const struct config *config)
{
    return config->client_header[0] != '\0' ? config->client_header : NULL;
}

/* Most machines have no such library, which is worth no word. */
static void start_gpus(struct server *server)
{
    const char *library = server->config->gpu_library;
    struct weir_err err;
    if (library[0] == '\0') {
        return;
    }
    if (gpus_create(library, GPUS_REST_NS, &server->gpus, &err) != WEIR_OK) {
        log_event(strcmp(library, NVML_LIBRARY) == 0 ? LOG_DEBUG : LOG_WARNING, "no GPU metrics",
                  LOG_STR("reason", err.text));
    }
}

/* Every client's connection is a file. */
static void allow_connections(const struct config *config)
{
    const uint64_t connections = config->limits.connections_max;
    const uint64_t allowed = descriptors_raise(connections + FILES_BESIDES);
    if (allowed < connections) {
        log_event(LOG_WARNING,
                  "the system allows fewer open files than limits.connections_max: raise its limit "
                  "(ulimit -Hn, LimitNOFILE= of systemd) or lower this one",
                  LOG_U64("open_files", allowed), LOG_U64("connections_max", connections));
    }
}

static enum weir_status start_network(struct server *server, struct weir_err *err)
{
    server->api_options = (struct api_options){ .name = server->config->name,
                                                .version = WEIR_VERSION,
                                                .engine = server->engine,
                                                .registry = server->registry,
                                                .limits = &server->limits,
                                                .config_json = modelconfig_to_json,
                                                .access = server->guard.access,
                                                .tls = server->guard.tls,
                                                .access_log = server->config->access_log,
                                                .client_header = client_header(server->config),
                                                .timing = server->config->timing,
                                                .reload = read_again,
                                                .reload_context = server };
    start_gpus(server);
    server->api_options.gpus = server->gpus;
    if (server->config->shared_memory[0] != '\0') {
        const enum weir_status made = shm_create(SHM_FOLDER, server->config->shared_memory,
                                                 &server->limits, &server->shm, err);
        if (made != WEIR_OK) {
            return made;
        }
        server->api_options.shm = server->shm;
    }
    server->api = api_create(&server->api_options);
    server->reload.api = server->api;
    const struct front_options front = {
        .config = server->config,
        .limits = &server->limits,
        .api = server->api,
        .tls = server->guard.tls,
        .activated = server->activated,
        .ended = wake_main,
        .context = server,
    };
    guard_warn(&server->guard);
    allow_connections(server->config);
    return front_start(&server->front, &front, err);
}

static enum weir_status start_all(struct server *server, struct weir_err *err)
{
    enum weir_status status = guard_init(&server->guard, server->config, err);
    for (uint64_t i = 0; i < server->config->plugins.count && status == WEIR_OK; i++) {
        status = plugin_add(server->config->plugins.items[i], err);
    }
    if (status == WEIR_OK) {
        status = start_engine(server, err);
    }
    if (status == WEIR_OK) {
        status = start_registry(server, err);
    }
    server->reload.engine = server->engine;
    server->reload.registry = server->registry;
    server->reload.canaries = &server->canaries;
    server->reload.wake = wake_main;
    server->reload.wake_context = server;
    if (status == WEIR_OK && server->mode == SERVER_SERVE) {
        status = start_network(server, err);
    }
    return status;
}

enum weir_status server_start(const struct config *config, enum server_mode mode,
                              struct server **out, struct weir_err *err)
{
    backend_start();
    if (backend_warning() != NULL) {
        log_event(LOG_WARNING, backend_warning());
    }
    struct server *server = mem_alloc(sizeof(*server));
    server->config = config;
    server->limits = config->limits;
    server->mode = mode;
    server->main = pthread_self();
    server->activated = mode == SERVER_SERVE ? activation_take() : 0;
    clock_init(&server->clock);
    notify_init(&server->notify);
    reload_init(&server->reload, config, &server->limits, &server->guard);
    server->pulse_ns = server->notify.watchdog_ns == CLOCK_NEVER ? CLOCK_NEVER : 0;
    server->canary_ns = mode == SERVER_SERVE ? 0 : CLOCK_NEVER;
    *out = server;
    return start_all(server, err);
}

static void look_at_models(struct server *server);

static void look_done(struct registry_order *order)
{
    struct server *server = list_entry(order, struct server, look);
    server->looking = false;
    server->looked = true;
    if (server->look_again) {
        look_at_models(server);
    }
}

/* One look at a time: what changes during one is seen by the next. */
static void look_at_models(struct server *server)
{
    server->look_again = server->looking;
    if (server->looking) {
        return;
    }
    server->looking = true;
    server->look = (struct registry_order){
        .home = &server->home, .kind = REGISTRY_REFRESH, .follow = true, .done = look_done
    };
    registry_order(server->registry, &server->look);
}

/* Certificates and keys are looked at now and then. */
static void look_at_files(struct server *server)
{
    const uint64_t now_ns = clock_now_ns(&server->clock);
    if (now_ns >= server->look_ns) {
        reload_look(&server->reload);
        server->look_ns = guard_watches(&server->guard)
                              ? clock_add(now_ns, server->config->reload_interval_ns)
                              : CLOCK_NEVER;
    }
}

/* SIGHUP: settings, files and repositories; systemd waits for the end of it. */
static void read_all_again(struct server *server)
{
    struct buffer names;
    struct weir_err err;
    char text[64];
    (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
                   (unsigned long long)(clock_now_ns(&server->clock) / NS_PER_US));
    notify_send(&server->notify, text);
    buffer_init(&names, NAMES_BYTES_MAX);
    if (read_again(server, &names, &err) == WEIR_OK) {
        look_at_models(server);
    }
    buffer_finish(&names);
    notify_send(&server->notify, "READY=1");
}

/* Live means that the loops turn: the watchdog hears nothing while one does not answer. */
static void feed_watchdog(struct server *server)
{
    const uint64_t now_ns = clock_now_ns(&server->clock);
    if (now_ns < server->pulse_ns) {
        return;
    }
    const uint64_t step_ns = server->notify.watchdog_ns / 2;
    if (server->api == NULL || api_is_live(server->api, now_ns, step_ns / 2)) {
        notify_send(&server->notify, "WATCHDOG=1");
    }
    server->pulse_ns = clock_add(now_ns, step_ns);
}

/* Whenever the main thread wakes: anything may have changed. */
static void look_at_canaries(struct server *server)
{
    if (server->mode == SERVER_SERVE) {
        server->canary_ns =
            canaries_look(&server->canaries, registry_catalogue(server->registry, &server->home),
                          clock_now_ns(&server->clock));
        home_rest(&server->home); /* It may sleep for long now, and keeps no model loaded. */
    }
}

static uint64_t until(const struct server *server, uint64_t at_ns)
{
    const uint64_t now_ns = clock_now_ns(&server->clock);
    return at_ns == CLOCK_NEVER ? CLOCK_NEVER : at_ns > now_ns ? at_ns - now_ns : 0;
}

/* Waits for SIGTERM or SIGINT and returns it, 0 when `timeout_ns` has passed or less, SIGNAL_WAKE
 * when the main thread is wanted, after its home has had its turn. */
static int wait_signal(struct server *server, uint64_t timeout_ns)
{
    const sigset_t set = watched_signals();
    const uint64_t look_ns = until(server, server->look_ns);
    const uint64_t pulse_ns = until(server, server->pulse_ns);
    timeout_ns = look_ns < timeout_ns ? look_ns : timeout_ns;
    const uint64_t canary_ns = until(server, server->canary_ns);
    timeout_ns = pulse_ns < timeout_ns ? pulse_ns : timeout_ns;
    timeout_ns = canary_ns < timeout_ns ? canary_ns : timeout_ns;
    const struct timespec timeout = { .tv_sec = (time_t)(timeout_ns / NS_PER_S),
                                      .tv_nsec = (long)(timeout_ns % NS_PER_S) };
    /* Interrupted where the process was stopped and goes on: the time has not begun anew. */
    const int got =
        timeout_ns == CLOCK_NEVER ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &timeout);
    look_at_files(server);
    if (got == SIGHUP) {
        read_all_again(server);
    }
    feed_watchdog(server);
    home_turn(&server->home);
    look_at_canaries(server);
    home_turn(&server->home);
    return got < 0 ? 0 : got;
}

/* Returns early with the signal when one comes, else 0. */
static int wait_until(struct server *server, uint64_t until_ns, bool (*over)(struct server *))
{
    for (;;) {
        if (over != NULL && over(server)) {
            return 0;
        }
        const uint64_t now_ns = clock_now_ns(&server->clock);
        if (now_ns >= until_ns) {
            return 0;
        }
        const int got =
            wait_signal(server, until_ns == CLOCK_NEVER ? CLOCK_NEVER : until_ns - now_ns);
        if (got == SIGTERM || got == SIGINT) {
            return got;
        }
    }
}

static uint64_t from_now(const struct server *server, uint64_t delay_ns)
{
    return clock_add(clock_now_ns(&server->clock), delay_ns);
}

void server_reload_from(struct server *server, reload_read_fn *read, void *context)
{
    reload_from(&server->reload, read, context);
}

static bool models_settled(struct server *server)
{
    return server->looked &&
           caller_models_settled(registry_catalogue(server->registry, &server->home));
}

void server_tell_loading(struct server *server, uint64_t every_ns, server_loading_fn *tell,
                         void *context)
{
    server->tell = tell;
    server->tell_context = context;
    server->tell_every_ns = every_ns;
}

bool server_wait_models(struct server *server)
{
    look_at_models(server);
    const uint64_t every_ns = server->tell == NULL ? CLOCK_NEVER : server->tell_every_ns;
    server->signal = wait_until(server, from_now(server, every_ns), models_settled);
    while (server->signal == 0 && !models_settled(server)) {
        const struct report_loading loading = report_loading(server->registry);
        server->tell(server->tell_context, &loading);
        server->signal = wait_until(server, from_now(server, every_ns), models_settled);
    }
    return server->signal == 0 &&
           outage_is_ready(server->engine, registry_catalogue(server->registry, &server->home));
}

static bool has_ended(struct server *server)
{
    return front_has_ended(&server->front) && server->home.pending == 0;
}

/* From now on the system's own way: the next signal ends the process. */
static void unblock_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void notify_ready(struct server *server)
{
    const struct report_count count = server_count_models(server);
    char text[64];
    (void)snprintf(text, sizeof(text), "READY=1\nSTATUS=%u of %u models ready", count.ready,
                   count.models);
    notify_send(&server->notify, text);
}

enum weir_status server_wait(struct server *server)
{
    const struct limits *limits = &server->limits;
    notify_ready(server);
    const int got = server->signal != 0 ? server->signal : wait_until(server, CLOCK_NEVER, NULL);
    log_event(LOG_INFO, "stopping", LOG_STR("signal", got == SIGINT ? "SIGINT" : "SIGTERM"),
              LOG_MS("grace_ms", limits->drain_grace_ns));
    notify_send(&server->notify, "STOPPING=1\nSTATUS=finishing what was accepted");
    api_drain(server->api);
    front_tell(&server->front);
    if (wait_until(server, from_now(server, limits->drain_grace_ns), NULL) != 0) {
        return WEIR_ECANCELED;
    }
    canaries_stop(&server->canaries);
    engine_drain(server->engine);
    front_drain(&server->front);
    server->stop_by_ns = from_now(server, limits->drain_timeout_ns);
    if (wait_until(server, server->stop_by_ns, has_ended) != 0) {
        return WEIR_ECANCELED;
    }
    unblock_signals();
    return has_ended(server) ? WEIR_OK : WEIR_ETIMEOUT;
}

bool server_destroy(struct server *server)
{
    if (server == NULL) {
        return true;
    }
    if (server->stop_by_ns == 0) {
        server->stop_by_ns = from_now(server, server->limits.drain_timeout_ns);
    }
    if (server->registry != NULL) {
        registry_refuse_needs(server->registry); /* They may outlive their calls. */
    }
    front_finish(&server->front);
    if (server->home_open) {
        home_rest(&server->home);
    }
    api_destroy(server->api);
    shm_destroy(server->shm);
    gpus_destroy(server->gpus);
    if (!registry_destroy(server->registry, server->stop_by_ns)) {
        return false;
    }
    if (server->home_open) {
        home_finish(&server->home); /* A signal may have come before the first look was answered. */
    }
    engine_destroy(server->engine);
    devices_finish(&server->devices);
    plugin_remove_all();
    reload_finish(&server->reload);
    guard_finish(&server->guard);
    notify_finish(&server->notify);
    mem_free(server);
    return true;
}

void server_addresses(const struct server *server, struct buffer *out)
{
    front_addresses(&server->front, out);
}

struct report_count server_count_models(struct server *server)
{
    return report_count(server->registry);
}

void server_models(struct server *server, bool json, struct buffer *out)
{
    report_models(server->registry, json, out);
}

const char *server_backends(void)
{
    return backend_versions();
}
