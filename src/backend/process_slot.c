/*
 * A slot's lock is held while its process is made and loads, so that all who need it wait for the
 * same one.  Runs never take it.
 */
#include "backend/process_slot.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/err.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/sandbox.h"

struct process_slot {
    struct list_node node; /* In `groups`, under groups_lock, like what is marked with *. */
    char *group;           /* NULL: nobody shares it. */
    uint32_t holders;      /* * */
    uint64_t indices;      /* * Bits of those that are taken. */
    _Atomic uint64_t restarts;
    pthread_mutex_t lock; /* Guards what follows. */
    struct process *process;
    uint64_t memory_max;
};

static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list groups = { { &groups.head, &groups.head } };

/* ---- Life ------------------------------------------------------------------------------------ */

static struct process_slot *make_slot(const char *group)
{
    struct process_slot *slot = mem_try_zero(1, sizeof(*slot));
    char *copy = group == NULL ? NULL : mem_try_strdup(group);
    if (slot == NULL || (group != NULL && copy == NULL)) {
        mem_free(slot);
        mem_free(copy);
        return NULL;
    }
    slot->group = copy;
    pthread_mutex_init(&slot->lock, NULL);
    return slot;
}

/* groups_lock held. */
static struct process_slot *find_group(const char *group)
{
    for (struct list_node *n = list_first(&groups); n != NULL; n = list_next(&groups, n)) {
        struct process_slot *slot = list_entry(n, struct process_slot, node);
        if (strcmp(slot->group, group) == 0) {
            return slot;
        }
    }
    return NULL;
}

/* groups_lock held. */
static bool take_index(struct process_slot *slot, uint32_t *out)
{
    for (uint32_t i = 0; i < PROCESS_MODELS_MAX; i++) {
        if ((slot->indices & (UINT64_C(1) << i)) == 0) {
            slot->indices |= UINT64_C(1) << i;
            slot->holders++;
            *out = i;
            return true;
        }
    }
    return false;
}

enum weir_status slot_acquire(struct process_load *load, struct process_slot **out,
                              struct weir_err *err)
{
    const struct backend_isolation *isolation = load->how.isolation;
    const char *group = isolation->scope == ISOLATION_GROUP ? isolation->group : NULL;
    pthread_mutex_lock(&groups_lock);
    struct process_slot *slot = group == NULL ? NULL : find_group(group);
    if (slot == NULL) {
        slot = make_slot(group);
        if (slot != NULL && group != NULL) {
            list_append(&groups, &slot->node);
        }
    }
    const bool taken = slot != NULL && take_index(slot, &load->index);
    pthread_mutex_unlock(&groups_lock);
    if (slot == NULL) {
        return err_nomem(err, "a model's process", sizeof(*slot));
    }
    if (!taken) {
        return err_set(err, WEIR_ECONFLICT, "isolation_group '%s' has %d models, no more can join",
                       group, PROCESS_MODELS_MAX);
    }
    pthread_mutex_lock(&slot->lock);
    if (isolation->memory_max > slot->memory_max) {
        slot->memory_max = isolation->memory_max;
    }
    pthread_mutex_unlock(&slot->lock);
    *out = slot;
    return WEIR_OK;
}

/* Lock held: the model goes, others stay. */
static void unload(struct process_slot *slot, const struct process_load *load)
{
    struct process *process = slot->process;
    const uint64_t bit = UINT64_C(1) << load->index;
    if (process == NULL || (process->loaded & bit) == 0 || atomic_load(&process->dead)) {
        return;
    }
    struct message_reader reader;
    pthread_mutex_lock(&process->talk);
    buffer_clear(&process->message);
    message_u64(&process->message, MESSAGE_UNLOAD);
    message_u64(&process->message, load->index);
    (void)!process_ask(process, NULL, 0, load->how.isolation->load_limit_ns, &reader, NULL);
    pthread_mutex_unlock(&process->talk);
    process->loaded &= ~bit;
}

void slot_release(struct process_slot *slot, const struct process_load *load)
{
    if (slot == NULL) {
        return;
    }
    pthread_mutex_lock(&slot->lock);
    unload(slot, load);
    pthread_mutex_unlock(&slot->lock);
    pthread_mutex_lock(&groups_lock);
    slot->indices &= ~(UINT64_C(1) << load->index);
    const bool last = --slot->holders == 0;
    if (last) {
        list_remove(&slot->node);
    }
    pthread_mutex_unlock(&groups_lock);
    if (last) {
        process_release(slot->process);
        pthread_mutex_destroy(&slot->lock);
        mem_free(slot->group);
        mem_free(slot);
    }
}

/* ---- Getting a process ----------------------------------------------------------------------- */

/* Lock held.  What it may read: its version's folder, or where the models of its group are. */
static int readable_folder(const struct process_slot *slot, const struct process_load *load)
{
    return openat(load->how.folder_fd, slot->group == NULL ? "." : "../..",
                  O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static enum weir_status greet(struct process_slot *slot, const struct process_load *load,
                              struct process *process, struct weir_err *err)
{
    const int folder = readable_folder(slot, load);
    struct message_reader reader;
    pthread_mutex_lock(&process->talk);
    buffer_clear(&process->message);
    message_u64(&process->message, MESSAGE_HELLO);
    message_u64(&process->message, log_is_json());
    message_u64(&process->message, (uint64_t)log_get_level());
    message_text(&process->message, load->plugin);
    message_u64(&process->message, slot->memory_max);
    const enum weir_status status = process_ask(process, &folder, folder < 0 ? 0 : 1,
                                                load->how.isolation->load_limit_ns, &reader, err);
    if (status == WEIR_OK) {
        char first[SANDBOX_TEXT_BYTES];
        struct arena arena;
        arena_init(&arena, first, sizeof(first), sizeof(first));
        const char *sandbox = message_get_text(&reader, &arena);
        log_event(LOG_INFO, "model process started", LOG_STR("model", process->label),
                  LOG_I64("pid", process->pid), LOG_U64("restarts", slot->restarts),
                  LOG_STR("sandbox", sandbox == NULL ? "" : sandbox));
        arena_finish(&arena);
    }
    pthread_mutex_unlock(&process->talk);
    if (folder >= 0) {
        (void)close(folder);
    }
    return status;
}

/* Lock held: the slot's process, if it has one, has died. */
static void bury(struct process_slot *slot)
{
    if (slot->process == NULL) {
        return;
    }
    process_release(slot->process);
    slot->process = NULL;
    atomic_fetch_add(&slot->restarts, 1);
}

/* Lock held. */
static enum weir_status fill(struct process_slot *slot, const struct process_load *load,
                             struct weir_err *err)
{
    struct process *process = NULL;
    enum weir_status status =
        process_start(slot->group != NULL ? slot->group : load->how.model_name, &process, err);
    if (status == WEIR_OK) {
        slot->process = process;
        status = greet(slot, load, process, err);
    }
    return status;
}

/* The answer's rest: stages and signature, the same from every process. */
static enum weir_status take_signature(struct process_load *load, struct message_reader *reader,
                                       struct weir_err *err)
{
    const uint32_t stages = (uint32_t)message_get_u64(reader);
    if (load->signature.size == 0) {
        load->stages = stages;
        buffer_append(&load->signature, reader->at, reader->left);
        return load->signature.failed ? err_nomem(err, "a model's signature", reader->left)
                                      : WEIR_OK;
    }
    const bool same = stages == load->stages && reader->left == load->signature.size &&
                      memcmp(reader->at, load->signature.data, reader->left) == 0;
    return same ? WEIR_OK
                : err_set(err, WEIR_EUNAVAILABLE,
                          "the files of model '%s' have changed since it was loaded, expected a "
                          "reload",
                          load->how.model_name);
}

/* Lock held. */
static enum weir_status load_model(struct process *process, struct process_load *load,
                                   struct weir_err *err)
{
    struct message_reader reader;
    pthread_mutex_lock(&process->talk);
    buffer_clear(&process->message);
    message_u64(&process->message, MESSAGE_LOAD);
    message_u64(&process->message, load->index);
    message_load(&process->message, load->backend, &load->how);
    const int folder = load->how.folder_fd;
    enum weir_status status = process_ask(process, &folder, folder < 0 ? 0 : 1,
                                          load->how.isolation->load_limit_ns, &reader, err);
    if (status == WEIR_OK) {
        process->loaded |= UINT64_C(1) << load->index;
        status = take_signature(load, &reader, err);
    }
    pthread_mutex_unlock(&process->talk);
    return status;
}

enum weir_status slot_enter(struct process_slot *slot, struct process_load *load,
                            struct process **out, bool *ended, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    *ended = false;
    pthread_mutex_lock(&slot->lock);
    if (slot->process == NULL || atomic_load(&slot->process->dead)) {
        bury(slot);
        status = fill(slot, load, err);
    }
    if (status == WEIR_OK && (slot->process->loaded & (UINT64_C(1) << load->index)) == 0) {
        status = load_model(slot->process, load, err);
        if (status != WEIR_OK) {
            unload(slot, load); /* It was loaded, and is not what it was. */
        }
    }
    *ended = status != WEIR_OK && slot->process != NULL && atomic_load(&slot->process->dead);
    if (status == WEIR_OK) {
        process_acquire(slot->process);
        *out = slot->process;
    } else if (slot->process != NULL && slot->process->loaded == 0) {
        if (atomic_load(&slot->process->dead)) {
            bury(slot);
        } else {
            process_release(slot->process);
            slot->process = NULL;
        }
    }
    pthread_mutex_unlock(&slot->lock);
    return status;
}

/* ---- Figures --------------------------------------------------------------------------------- */

static uint64_t read_figure(const _Atomic uint64_t *figure)
{
    return atomic_load_explicit(figure, memory_order_relaxed);
}

bool slot_look(struct process_slot *slot, const struct process_load *load, struct slot_figures *out)
{
    if (pthread_mutex_trylock(&slot->lock) != 0) {
        return false;
    }
    *out = (struct slot_figures){ .restarts = read_figure(&slot->restarts) };
    if (slot->process != NULL && !atomic_load(&slot->process->dead)) {
        const struct process_memory *said = &slot->process->page->models[load->index];
        out->memory = (struct backend_memory){
            .heap_bytes = read_figure(&said->heap_bytes),
            .heap_peak_bytes = read_figure(&said->heap_peak_bytes),
            .mapped_bytes = read_figure(&said->mapped_bytes),
            .device_bytes = read_figure(&said->device_bytes),
        };
        out->resident_bytes = read_figure(&slot->process->page->resident_bytes);
        out->pid = slot->process->pid;
    }
    pthread_mutex_unlock(&slot->lock);
    return true;
}
