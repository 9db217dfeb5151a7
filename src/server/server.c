/*
 * The server's main thread only waits: for signals, and for mail to its own home,
 * whose wake-up is a signal too.  So one sigwait() hears everything, and nothing runs in a
 * signal handler.
 */
#include "server/server.h"
#include "engine/outage.h"

#include <errno.h>
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
#include "server/guard.h"
#include "server/modelconfig.h"
#include "server/notify.h"
#include "server/reload.h"
#include "server/stores.h"
#include "util/json.h"
#include "util/mem.h"

#define LISTENERS_MAX 16
#define ADDRESS_BYTES 300
#define SIGNAL_WAKE SIGUSR1 /* Mail for the main thread's home, or a loop has ended. */

/* One loop, its thread, and its listeners. */
struct front {
    struct server *server;
    pthread_t thread;
    struct loop loop;
    struct api_loop api;
    struct http_listener *listeners[LISTENERS_MAX];
    uint32_t listener_count;
    struct loop_mail drain;
    struct loop_mail pulse; /* Comes back as `beats`: the loop turns. */
    _Atomic uint64_t beats;
    uint64_t asked;          /* Pulses sent. */
    struct loop_hook ending; /* Draining: ends the loop after its last connection. */
    bool running;            /* The thread is to be joined. */
    _Atomic bool ended;      /* It is about to end. */
};

struct server {
    const struct config *config;
    enum server_mode mode;
    struct clock clock;
    struct guard guard;
    struct notify notify;
    struct reload reload;
    uint64_t pulse_ns; /* When the watchdog is to hear of us again. */
    uint64_t look_ns;  /* When the guard looks at its files again. */
    struct engine *engine;
    struct device_options *devices;
    uint32_t device_count;
    struct registry_options registry_options;
    char model_cache[PATH_MAX]; /* Its folder. */
    struct registry *registry;
    struct api_options api_options;
    struct shm *shm; /* NULL: no client shared memory. */
    struct api *api;
    uint32_t
        activated; /* Listening sockets that were handed over; they stand for those configured. */
    struct front *fronts;
    uint32_t front_count;
    pthread_t main;
    struct home home; /* The main thread's. */
    bool home_open;
    struct registry_order look; /* Carried out once the folders have been read. */
    bool looked;
    int signal; /* Came while waiting for models; 0: none. */
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
    } else if (state == MODEL_UNAVAILABLE) {
        const bool asked = reason != NULL && strncmp(reason, "unloaded", 8) == 0;
        /* Version 0: a load that came to nothing, while older versions may serve on. */
        const char *what = version == 0 ? "model not loaded" : "model unavailable";
        log_event(asked ? LOG_INFO : LOG_ERROR, asked ? "model unloaded" : what,
                  LOG_STR("model", name), LOG_U64("version", version),
                  LOG_STR("reason", reason == NULL ? "" : reason));
    }
}

/* Executor's thread. */
static void on_advice(void *context, const struct model *model, const char *text)
{
    (void)context;
    log_event(LOG_WARNING, "model configuration", LOG_STR("model", model->name),
              LOG_U64("version", model->version), LOG_STR("remark", text));
}

/* "NAME:RUNS" or "NAME:RUNS:unpipelined" */
static enum weir_status parse_device(const char *text, struct device_options *out,
                                     struct weir_err *err)
{
    const char *colon = strchr(text, ':');
    const char *more = colon == NULL ? NULL : strchr(colon + 1, ':');
    const size_t digits = colon == NULL  ? 0
                          : more == NULL ? strlen(colon + 1)
                                         : (size_t)(more - colon - 1);
    uint64_t runs = 0;
    if (colon == NULL || colon == text || digits == 0 ||
        !bytes_to_u64((struct bytes){ colon + 1, digits }, 256, &runs) || runs == 0 ||
        (more != NULL && strcmp(more, ":unpipelined") != 0)) {
        return err_set(err, WEIR_EINVAL,
                       "devices: found '%s', expected NAME:RUNS such as npu:1, with 1 to 256 runs, "
                       "or NAME:RUNS:unpipelined",
                       text);
    }
    *out = (struct device_options){ .name = mem_strdup(text),
                                    .executors = (uint32_t)runs,
                                    .pipelined = more == NULL,
                                    .first_cpu = -1 };
    ((char *)(uintptr_t)out->name)[colon - text] = '\0';
    return WEIR_OK;
}

static enum weir_status start_engine(struct server *server, struct weir_err *err)
{
    const struct config *config = server->config;
    server->devices = mem_alloc((config->devices.count + 1) * sizeof(*server->devices));
    server->devices[0] = (struct device_options){ .name = mem_strdup("cpu"),
                                                  .executors = (uint32_t)config->executors,
                                                  .first_cpu = config->pin ? 0 : -1 };
    server->device_count = 1;
    for (uint64_t i = 0; i < config->devices.count; i++) {
        const enum weir_status status =
            parse_device(config->devices.items[i], &server->devices[server->device_count], err);
        if (status != WEIR_OK) {
            return status;
        }
        server->device_count++;
    }
    const struct engine_options options = { .devices = server->devices,
                                            .device_count = server->device_count,
                                            .limits = &config->limits,
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
    const enum weir_status usable =
        stores ? stores_check_profiles(config->profile_store, err) : WEIR_OK;
    if (usable != WEIR_OK) {
        return usable;
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
    enum weir_status status = budget_read(config, &server->registry_options.room, err);
    if (status == WEIR_OK) {
        status = registry_create(server->engine, &server->registry_options, &server->registry, err);
    }
    if (status == WEIR_OK) {
        home_init(&server->home, server->engine, wake_main, server);
        server->home_open = true;
    }
    return status;
}

static enum weir_status listen_on(struct front *front, const char *address, struct weir_err *err)
{
    const uint32_t index = front->listener_count;
    const enum weir_status status =
        http_listen(&front->loop, address, index, api_handler(front->server->api),
                    &front->listeners[index], err);
    if (status != WEIR_OK) {
        return status;
    }
    /* Who can open a Unix socket is on this machine, and was let in by its mode. */
    if (front->server->guard.tls != NULL && http_listener_port(front->listeners[index]) != 0) {
        http_listener_secure(front->listeners[index], front->server->guard.tls);
    }
    front->listener_count++;
    return WEIR_OK;
}

/* All loops take clients from the sockets that were handed over. */
static enum weir_status listen_activated(struct front *front, struct weir_err *err)
{
    if (front->server->activated > LISTENERS_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "LISTEN_FDS: found %u sockets that were handed over, expected at most %d",
                       (unsigned)front->server->activated, LISTENERS_MAX);
    }
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < front->server->activated && status == WEIR_OK; i++) {
        status = http_listen_fd(&front->loop, ACTIVATION_FIRST + (int)i, i,
                                api_handler(front->server->api), &front->listeners[i], err);
        front->listener_count += status == WEIR_OK ? 1 : 0;
    }
    return status;
}

/* A later loop listens where the first one does, also when that chose its port. */
static uint64_t port_of(const struct front *front, uint32_t index, uint64_t configured)
{
    const struct front *first = &front->server->fronts[0];
    return front == first ? configured : http_listener_port(first->listeners[index]);
}

static enum weir_status listen_all(struct front *front, struct weir_err *err)
{
    const struct config *config = front->server->config;
    const uint64_t three[] = { config->http_port, config->grpc_port, config->metrics_port };
    const uint64_t *ports = config->port > 0 ? &config->port : three;
    const uint32_t count = config->port > 0 ? 1 : 3;
    const bool bracket = strchr(config->host, ':') != NULL;
    enum weir_status status = WEIR_OK;
    if (front->server->activated > 0) {
        return listen_activated(front, err);
    }
    for (uint32_t i = 0; i < count && status == WEIR_OK; i++) {
        char address[ADDRESS_BYTES];
        (void)snprintf(address, sizeof(address), bracket ? "[%s]:%u" : "%s:%u", config->host,
                       (unsigned)port_of(front, i, ports[i]));
        status = listen_on(front, address, err);
    }
    if (status == WEIR_OK && config->unix_socket[0] != '\0' && front == front->server->fronts) {
        char address[ADDRESS_BYTES];
        (void)snprintf(address, sizeof(address), "unix:%s", config->unix_socket);
        status = listen_on(front, address, err);
    }
    return status;
}

static enum weir_status start_front(struct server *server, struct front *front,
                                    struct weir_err *err)
{
    front->server = server;
    const enum weir_status status = loop_init(&front->loop, &server->config->limits, err);
    if (status != WEIR_OK) {
        return status;
    }
    server->front_count++;
    loop_set_spin(&front->loop, server->config->loop_spin_ns);
    api_loop_attach(&front->api, server->api, &front->loop);
    return listen_all(front, err);
}

static void *front_main(void *argument)
{
    struct front *front = argument;
    (void)pthread_setname_np(pthread_self(), "weir-loop");
    loop_run(&front->loop);
    atomic_store(&front->ended, true);
    pthread_kill(front->server->main, SIGNAL_WAKE);
    return NULL;
}

static enum weir_status start_threads(struct server *server, struct weir_err *err)
{
    for (uint32_t i = 0; i < server->front_count; i++) {
        struct front *front = &server->fronts[i];
        if (pthread_create(&front->thread, NULL, front_main, front) != 0) {
            return err_set(err, WEIR_ENOMEM, "the system has no threads left for a network loop");
        }
        front->running = true;
    }
    return WEIR_OK;
}

static void log_addresses(const struct server *server)
{
    struct buffer addresses;
    buffer_init(&addresses, 4096);
    server_addresses(server, &addresses);
    buffer_char(&addresses, '\0');
    if (!addresses.failed) {
        log_event(LOG_INFO, "listening", LOG_STR("addresses", addresses.data),
                  LOG_U64("loops", server->front_count),
                  LOG_U64("executors", server->config->executors));
    }
    buffer_finish(&addresses);
}

static const char *client_header(const struct config *config)
{
    return config->client_header[0] != '\0' ? config->client_header : NULL;
}

static enum weir_status start_network(struct server *server, struct weir_err *err)
{
    server->api_options = (struct api_options){ .name = server->config->name,
                                                .version = WEIR_VERSION,
                                                .engine = server->engine,
                                                .registry = server->registry,
                                                .limits = &server->config->limits,
                                                .config_json = modelconfig_to_json,
                                                .access = server->guard.access,
                                                .tls = server->guard.tls,
                                                .access_log = server->config->access_log,
                                                .client_header = client_header(server->config),
                                                .timing = server->config->timing };
    if (server->config->shared_memory[0] != '\0') {
        const enum weir_status made = shm_create(SHM_FOLDER, server->config->shared_memory,
                                                 &server->config->limits, &server->shm, err);
        if (made != WEIR_OK) {
            return made;
        }
        server->api_options.shm = server->shm;
    }
    server->api = api_create(&server->api_options);
    server->fronts = mem_alloc(server->config->loops * sizeof(*server->fronts));
    enum weir_status status = WEIR_OK;
    for (uint64_t i = 0; i < server->config->loops && status == WEIR_OK; i++) {
        status = start_front(server, &server->fronts[i], err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    log_addresses(server);
    guard_warn(&server->guard);
    return start_threads(server, err);
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
    server->mode = mode;
    server->main = pthread_self();
    server->activated = mode == SERVER_SERVE ? activation_take() : 0;
    clock_init(&server->clock);
    notify_init(&server->notify);
    server->pulse_ns = server->notify.watchdog_ns == CLOCK_NEVER ? CLOCK_NEVER : 0;
    const enum weir_status status = start_all(server, err);
    if (status != WEIR_OK) {
        server_destroy(server);
        return status;
    }
    *out = server;
    return WEIR_OK;
}

static void on_loop_turn(struct loop_hook *hook)
{
    struct front *front = list_entry(hook, struct front, ending);
    if (front->loop.connection_count == 0 && front->api.home.pending == 0) {
        loop_stop(&front->loop);
    }
}

static void on_drain(struct loop_mail *mail)
{
    struct front *front = list_entry(mail, struct front, drain);
    for (uint32_t i = 0; i < front->listener_count; i++) {
        http_listener_close(front->listeners[i]);
    }
    front->listener_count = 0;
    front->ending.turn = on_loop_turn;
    loop_hook_add(&front->loop, &front->ending);
    http_drain(&front->loop);
    api_loop_drain(&front->api);
}

/* Certificates and keys are looked at now and then, and when somebody says SIGHUP. */
static void look_at_files(struct server *server, bool asked)
{
    const uint64_t now_ns = clock_now_ns(&server->clock);
    if (asked || now_ns >= server->look_ns) {
        guard_look(&server->guard, asked);
        server->look_ns = guard_watches(&server->guard)
                              ? clock_add(now_ns, server->config->reload_interval_ns)
                              : CLOCK_NEVER;
    }
}

static void on_pulse(struct loop_mail *mail)
{
    atomic_fetch_add(&list_entry(mail, struct front, pulse)->beats, 1);
}

/* Live means that the loops turn: the watchdog hears nothing while one does not answer. */
static void feed_watchdog(struct server *server)
{
    const uint64_t now_ns = clock_now_ns(&server->clock);
    if (now_ns < server->pulse_ns) {
        return;
    }
    bool live = true;
    for (uint32_t i = 0; i < server->front_count; i++) {
        struct front *front = &server->fronts[i];
        const bool answered = atomic_load(&front->beats) == front->asked;
        live = live && (answered || atomic_load(&front->ended));
        if (answered && front->running && !atomic_load(&front->ended)) {
            front->asked++;
            front->pulse.receive = on_pulse;
            loop_send(&front->loop, &front->pulse);
        }
    }
    if (live) {
        notify_send(&server->notify, "WATCHDOG=1");
    }
    server->pulse_ns = clock_add(now_ns, server->notify.watchdog_ns / 2);
}

static uint64_t until(const struct server *server, uint64_t at_ns)
{
    const uint64_t now_ns = clock_now_ns(&server->clock);
    return at_ns == CLOCK_NEVER ? CLOCK_NEVER : at_ns > now_ns ? at_ns - now_ns : 0;
}

/* Waits for SIGTERM or SIGINT and returns it, 0 when `timeout_ns` has passed or less, SIGNAL_WAKE when
 * the main thread is wanted, after its home has had its turn. */
static int wait_signal(struct server *server, uint64_t timeout_ns)
{
    const sigset_t set = watched_signals();
    const uint64_t look_ns = until(server, server->look_ns);
    const uint64_t pulse_ns = until(server, server->pulse_ns);
    timeout_ns = look_ns < timeout_ns ? look_ns : timeout_ns;
    timeout_ns = pulse_ns < timeout_ns ? pulse_ns : timeout_ns;
    const struct timespec timeout = { .tv_sec = (time_t)(timeout_ns / NS_PER_S),
                                      .tv_nsec = (long)(timeout_ns % NS_PER_S) };
    int got;
    do {
        got = timeout_ns == CLOCK_NEVER ? sigwaitinfo(&set, NULL)
                                        : sigtimedwait(&set, NULL, &timeout);
    } while (got < 0 && errno == EINTR);
    look_at_files(server, got == SIGHUP);
    if (got == SIGHUP) {
        notify_send(&server->notify, "RELOADING=1");
        reload_settings(&server->reload);
        notify_send(&server->notify, "READY=1");
    }
    feed_watchdog(server);
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

void server_reload_from(struct server *server, reload_read_fn *read, void *context)
{
    server->reload = (struct reload){
        .current = server->config,
        .read = read,
        .context = context,
        .engine = server->engine,
        .registry = server->registry,
    };
}

static void look_done(struct registry_order *order)
{
    list_entry(order, struct server, look)->looked = true;
}

static bool models_settled(struct server *server)
{
    return server->looked &&
           caller_models_settled(registry_catalogue(server->registry, &server->home));
}

bool server_wait_models(struct server *server)
{
    server->look = (struct registry_order){ .home = &server->home,
                                            .kind = REGISTRY_REFRESH,
                                            .done = look_done };
    registry_order(server->registry, &server->look);
    server->signal = wait_until(server, CLOCK_NEVER, models_settled);
    return server->signal == 0 &&
           outage_is_ready(server->engine, registry_catalogue(server->registry, &server->home));
}

static bool loops_ended(struct server *server)
{
    for (uint32_t i = 0; i < server->front_count; i++) {
        if (!atomic_load(&server->fronts[i].ended)) {
            return false;
        }
    }
    return true;
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

static uint64_t from_now(const struct server *server, uint64_t delay_ns)
{
    return clock_add(clock_now_ns(&server->clock), delay_ns);
}

static void notify_ready(struct server *server)
{
    const struct server_count count = server_count_models(server);
    char text[64];
    (void)snprintf(text, sizeof(text), "READY=1\nSTATUS=%u of %u models ready", count.ready,
                   count.models);
    notify_send(&server->notify, text);
}

enum weir_status server_wait(struct server *server)
{
    const struct limits *limits = &server->config->limits;
    notify_ready(server);
    const int got = server->signal != 0 ? server->signal : wait_until(server, CLOCK_NEVER, NULL);
    log_event(LOG_INFO, "stopping", LOG_STR("signal", got == SIGINT ? "SIGINT" : "SIGTERM"),
              LOG_MS("grace_ms", limits->drain_grace_ns));
    notify_send(&server->notify, "STOPPING=1\nSTATUS=finishing what was accepted");
    api_drain(server->api);
    if (wait_until(server, from_now(server, limits->drain_grace_ns), NULL) != 0) {
        return WEIR_ECANCELED;
    }
    engine_drain(server->engine);
    for (uint32_t i = 0; i < server->front_count; i++) {
        server->fronts[i].drain.receive = on_drain;
        loop_send(&server->fronts[i].loop, &server->fronts[i].drain);
    }
    if (wait_until(server, from_now(server, limits->drain_timeout_ns), loops_ended) != 0) {
        return WEIR_ECANCELED;
    }
    unblock_signals();
    return loops_ended(server) ? WEIR_OK : WEIR_ETIMEOUT;
}

static void stop_fronts(struct server *server)
{
    for (uint32_t i = 0; i < server->front_count; i++) {
        struct front *front = &server->fronts[i];
        if (front->running) {
            loop_stop(&front->loop);
            pthread_join(front->thread, NULL);
        }
        for (uint32_t l = 0; l < front->listener_count; l++) {
            http_listener_close(front->listeners[l]);
        }
        loop_close(&front->loop);
        api_loop_detach(&front->api);
        loop_finish(&front->loop);
    }
}

void server_destroy(struct server *server)
{
    if (server == NULL) {
        return;
    }
    stop_fronts(server);
    if (server->home_open) {
        home_rest(&server->home);
    }
    api_destroy(server->api);
    shm_destroy(server->shm);
    registry_destroy(server->registry);
    if (server->home_open) {
        home_finish(&server->home); /* A signal may have come before the first look was answered. */
    }
    engine_destroy(server->engine);
    for (uint32_t i = 0; i < server->device_count; i++) {
        mem_free((void *)(uintptr_t)server->devices[i].name);
    }
    mem_free(server->devices);
    plugin_remove_all();
    reload_finish(&server->reload);
    guard_finish(&server->guard);
    notify_finish(&server->notify);
    mem_free(server->fronts);
    mem_free(server);
}

void server_addresses(const struct server *server, struct buffer *out)
{
    const struct config *config = server->config;
    const struct front *first = &server->fronts[0];
    const bool bracket = strchr(config->host, ':') != NULL;
    for (uint32_t i = 0; i < first->listener_count; i++) {
        const unsigned port = http_listener_port(first->listeners[i]);
        buffer_text(out, i == 0 ? "" : " ");
        if (server->activated > 0) {
            char name[HTTP_LISTENER_NAME_BYTES];
            http_listener_name(first->listeners[i], name);
            buffer_printf(out, port == 0 ? "%s" : "http://%s", name);
        } else if (port == 0) {
            buffer_printf(out, "unix:%s", config->unix_socket);
        } else {
            buffer_printf(out, bracket ? "%s://[%s]:%u" : "%s://%s:%u",
                          server->guard.tls == NULL ? "http" : "https", config->host, port);
        }
    }
}

struct server_count server_count_models(struct server *server)
{
    struct catalogue *catalogue = registry_snapshot(server->registry);
    struct server_count count = { .models = catalogue->count };
    for (uint32_t i = 0; i < catalogue->count; i++) {
        count.ready += catalogue->list[i].latest != NULL ? 1 : 0;
    }
    catalogue_release(catalogue);
    return count;
}

const char *server_backends(void)
{
    return backend_versions();
}

/* One line of the models' table; version 0 is about the whole model. */
struct row {
    const char *name;
    uint64_t version;
    const char *state;
    const char *reason; /* NULL: nothing to say. */
};

static void row_json(struct buffer *out, const struct row *row)
{
    json_comma(out);
    buffer_char(out, '{');
    json_key(out, "name");
    json_string(out, row->name);
    if (row->version > 0) {
        json_key(out, "version");
        buffer_u64(out, row->version);
    }
    json_key(out, "state");
    json_string(out, row->state);
    json_key(out, "reason");
    json_string(out, row->reason == NULL ? "" : row->reason);
    buffer_char(out, '}');
}

static void row_text(struct buffer *out, const struct row *row)
{
    char version[24] = "-";
    if (row->version > 0) {
        (void)snprintf(version, sizeof(version), "%llu", (unsigned long long)row->version);
    }
    const bool reason = row->reason != NULL && row->reason[0] != '\0';
    buffer_printf(out, "%-24s %7s  ", row->name, version);
    buffer_printf(out, reason ? "%-11s  %s\n" : "%s%s\n", row->state, reason ? row->reason : "");
}

static void add_row(struct buffer *out, bool json, const struct row *row)
{
    if (json) {
        row_json(out, row);
    } else {
        row_text(out, row);
    }
}

static void add_entry(struct buffer *out, bool json, const struct catalogue_entry *entry)
{
    if (entry->version_count == 0) {
        const struct row row = { entry->name, 0, model_state_text(MODEL_UNAVAILABLE),
                                 entry->reason };
        add_row(out, json, &row);
    }
    for (uint32_t i = 0; i < entry->version_count; i++) {
        const struct catalogue_version *version = &entry->versions[i];
        const struct row row = { entry->name, version->version, model_state_text(version->state),
                                 version->reason };
        add_row(out, json, &row);
    }
}

void server_models(struct server *server, bool json, struct buffer *out)
{
    struct catalogue *catalogue = registry_snapshot(server->registry);
    buffer_text(out, json ? "[" : "MODEL                    VERSION  STATE        REASON\n");
    for (uint32_t i = 0; i < catalogue->count; i++) {
        add_entry(out, json, &catalogue->list[i]);
    }
    buffer_text(out, json ? "]\n" : "");
    catalogue_release(catalogue);
}
