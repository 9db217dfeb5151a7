/*
 * What a process does besides running its models is little, so that little can go wrong: it
 * believes the server, takes nothing from anybody else, and where anything fails that is no model's
 * fault it ends, which the server sees.
 */
#include "backend/process_child.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "backend/plugin.h"
#include "backend/process_memory.h"
#include "backend/process_message.h"
#include "backend/process_serve.h"
#include "util/err.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/sandbox.h"

#define LOAD_BYTES_MAX ((size_t)4 << 20)
#define KEPT_BYTES ((uint64_t)64 << 20) /* Of outputs, from run to run. */
#define WATCH_STACK_BYTES ((size_t)256 << 10)

static struct {
    int control;
    struct process_page *page;
    pid_t parent;
    int statm; /* Opened before the sandbox would refuse it. */
    struct clock clock;
    struct block_pool *blocks;
    struct buffer message;
    pthread_mutex_t lock; /* Guards what follows. */
    struct backend_model *models[PROCESS_MODELS_MAX];
    struct list channels;
} child;

/* ---- The beat -------------------------------------------------------------------------------- */

/* What it takes, but for what it shares with others. */
static uint64_t resident_bytes(void)
{
    char text[128];
    const ssize_t size = pread(child.statm, text, sizeof(text) - 1, 0);
    text[size < 0 ? 0 : size] = '\0';
    uint64_t resident = 0;
    uint64_t shared = 0;
    const int found = sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared);
    return found == 2 && resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE)
                                           : 0;
}

/* Lock held. */
static void tell_memory(void)
{
    for (uint32_t i = 0; i < PROCESS_MODELS_MAX; i++) {
        struct process_memory *out = &child.page->models[i];
        struct backend_memory memory = { 0 };
        if (child.models[i] != NULL) {
            backend_memory(child.models[i], &memory);
        }
        atomic_store_explicit(&out->heap_bytes, memory.heap_bytes, memory_order_relaxed);
        atomic_store_explicit(&out->heap_peak_bytes, memory.heap_peak_bytes, memory_order_relaxed);
        atomic_store_explicit(&out->mapped_bytes, memory.mapped_bytes, memory_order_relaxed);
        atomic_store_explicit(&out->device_bytes, memory.device_bytes, memory_order_relaxed);
    }
    atomic_store_explicit(&child.page->resident_bytes, resident_bytes(), memory_order_relaxed);
}

static void *watch(void *unused)
{
    (void)unused;
    for (;;) {
        const uint32_t bell = atomic_load(&child.page->bell);
        pthread_mutex_lock(&child.lock);
        for (struct list_node *n = list_first(&child.channels); n != NULL;
             n = list_next(&child.channels, n)) {
            serve_stop(list_entry(n, struct served, node));
        }
        tell_memory();
        pthread_mutex_unlock(&child.lock);
        atomic_fetch_add(&child.page->beats, 1);
        process_sleep(&child.page->bell, bell, PROCESS_BEAT_NS);
    }
    return NULL;
}

/* ---- Requests -------------------------------------------------------------------------------- */

static void answer(enum weir_status status, const struct weir_err *err)
{
    struct buffer *out = &child.message;
    buffer_clear(out);
    message_u64(out, MESSAGE_DONE);
    message_u64(out, status);
    message_text(out, status == WEIR_OK ? "" : err->text);
}

static enum weir_status enter_sandbox(struct message_reader *reader, int folder, const char *plugin,
                                      struct sandbox_report *report, struct weir_err *err)
{
    const struct sandbox sandbox = {
        .readable = &folder,
        .readable_count = folder >= 0 ? 1 : 0,
        .memory_max = message_get_u64(reader),
        .parent = child.parent,
        .libraries = plugin != NULL,
        .devices = plugin != NULL,
    };
    return sandbox_enter(&sandbox, report, err);
}

/* The limits, before anything that came with a model is looked at. */
static void on_hello(struct message_reader *reader, struct arena *arena, int fds[PROCESS_FDS_MAX])
{
    struct weir_err err = { 0 };
    struct sandbox_report report = { 0 };
    char text[SANDBOX_TEXT_BYTES];
    log_setup(message_get_bounded(reader, 1) != 0);
    log_set_level((enum log_level)message_get_bounded(reader, LOG_DEBUG));
    const char *plugin = message_get_text(reader, arena);
    backend_start();
    enum weir_status status = plugin == NULL ? WEIR_OK : plugin_add(plugin, &err);
    status = status == WEIR_OK ? enter_sandbox(reader, fds[0], plugin, &report, &err) : status;
    if (status == WEIR_OK) {
        pthread_attr_t attributes;
        pthread_t thread;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, WATCH_STACK_BYTES);
        atomic_store(&child.page->beats, 1); /* Who answers can be found frozen. */
        status = pthread_create(&thread, &attributes, watch, NULL) == 0
                     ? WEIR_OK
                     : err_set(&err, WEIR_ENOMEM, "no thread for a model's process");
        pthread_attr_destroy(&attributes);
    }
    answer(status, &err);
    message_text(&child.message, sandbox_describe(&report, text, sizeof(text)));
}

/* Which slot a model is in: the server's choice. */
static uint32_t get_index(struct message_reader *reader)
{
    return (uint32_t)message_get_bounded(reader, PROCESS_MODELS_MAX - 1);
}

static void on_load(struct message_reader *reader, struct arena *arena, int fds[PROCESS_FDS_MAX])
{
    struct weir_err err = { 0 };
    struct backend_load how = {
        .folder_fd = fds[0],
        .clock = &child.clock,
        .blocks = child.blocks,
    };
    const char *name = NULL;
    const uint32_t index = get_index(reader);
    message_get_load(reader, arena, &name, &how);
    const struct backend_ops *ops = reader->failed || name == NULL ? NULL : backend_find(name);
    struct backend_model *model = NULL;
    const enum weir_status status =
        reader->failed ? err_nomem(&err, "what is to be loaded", child.message.size)
        : ops == NULL
            ? err_set(&err, WEIR_EBACKEND,
                      "the model's process has no backend '%s'; all models of a group have "
                      "the same",
                      name == NULL ? "" : name)
            : backend_load(ops, &how, &model, &err);
    if (status == WEIR_OK) {
        pthread_mutex_lock(&child.lock);
        child.models[index] = model;
        tell_memory();
        pthread_mutex_unlock(&child.lock);
    }
    answer(status, &err);
    if (status == WEIR_OK) {
        message_u64(&child.message, backend_stages(model));
        message_signature(&child.message, backend_signature(model));
    }
}

static void on_unload(struct message_reader *reader)
{
    const uint32_t index = get_index(reader);
    pthread_mutex_lock(&child.lock);
    struct backend_model *model = child.models[index];
    child.models[index] = NULL;
    pthread_mutex_unlock(&child.lock);
    backend_unload(model);
    mem_trim();
    answer(WEIR_OK, NULL);
}

static void on_open(struct message_reader *reader, int fds[PROCESS_FDS_MAX])
{
    struct weir_err err = { 0 };
    const uint32_t index = get_index(reader);
    const uint64_t id = message_get_u64(reader);
    const size_t lent_bytes = (size_t)message_get_u64(reader);
    struct served *channel = NULL;
    struct process_area lent = { 0 };
    enum weir_status status =
        child.models[index] == NULL
            ? err_set(&err, WEIR_EBACKEND, "the model's process has no such model")
            : WEIR_OK;
    if (status == WEIR_OK && lent_bytes > 0) {
        status = process_area_map(&lent, lent_bytes, fds[2], &err);
        fds[2] = -1; /* Taken. */
    }
    status = status == WEIR_OK
                 ? serve_open(child.models[index], id, fds[0], fds[1], &lent, &channel, &err)
                 : status;
    if (status == WEIR_OK) {
        pthread_mutex_lock(&child.lock);
        list_append(&child.channels, &channel->node);
        pthread_mutex_unlock(&child.lock);
        fds[0] = -1; /* Taken. */
        fds[1] = -1;
    } else {
        process_area_finish(&lent);
    }
    answer(status, &err);
}

static void on_close(struct message_reader *reader)
{
    const uint64_t id = message_get_u64(reader);
    struct served *found = NULL;
    pthread_mutex_lock(&child.lock);
    for (struct list_node *n = list_first(&child.channels); n != NULL;
         n = list_next(&child.channels, n)) {
        struct served *channel = list_entry(n, struct served, node);
        found = channel->id == id ? channel : found;
    }
    if (found != NULL) {
        list_remove(&found->node);
    }
    pthread_mutex_unlock(&child.lock);
    serve_close(found);
    answer(WEIR_OK, NULL);
}

static void on_message(struct message_reader *reader, struct arena *arena, int fds[PROCESS_FDS_MAX])
{
    const uint64_t kind = message_get_u64(reader);
    switch (kind) {
    case MESSAGE_HELLO:
        on_hello(reader, arena, fds);
        break;
    case MESSAGE_LOAD:
        on_load(reader, arena, fds);
        break;
    case MESSAGE_UNLOAD:
        on_unload(reader);
        break;
    case MESSAGE_OPEN:
        on_open(reader, fds);
        break;
    case MESSAGE_CLOSE:
        on_close(reader);
        break;
    default:
        _exit(EXIT_FAILURE);
    }
}

_Noreturn void process_child(int control, struct process_page *page, pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)prctl(PR_SET_NAME, "weir-model");
    if (getppid() != parent) {
        _exit(EXIT_FAILURE);
    }
    child.control = control;
    child.page = page;
    child.parent = parent;
    child.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    clock_init(&child.clock);
    child.blocks = block_pool_create(KEPT_BYTES);
    if (message_room(&child.message) != WEIR_OK) {
        _exit(EXIT_FAILURE);
    }
    pthread_mutex_init(&child.lock, NULL);
    list_init(&child.channels);
    serve_catch_faults();
    int fds[PROCESS_FDS_MAX];
    while (message_receive(control, &child.message, fds) == WEIR_OK) {
        struct arena arena;
        arena_init(&arena, NULL, 0, LOAD_BYTES_MAX);
        struct message_reader reader = message_read(&child.message);
        on_message(&reader, &arena, fds);
        message_close(fds);
        arena_finish(&arena);
        if (message_send(control, &child.message, NULL, 0) != WEIR_OK) {
            break;
        }
    }
    plugin_remove_all(); /* A device is left as it was found. */
    _exit(EXIT_SUCCESS);
}
