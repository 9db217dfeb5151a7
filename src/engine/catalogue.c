/*
 * A snapshot lives in its own arena and is built by one thread; from the seal
 * on only its count of holders changes.  It leases the models it shows, and
 * gives those leases back with its memory: whoever lets go last does both.
 */
#include "engine/catalogue.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/mem.h"

const char *model_state_text(enum model_state state)
{
    static const char *const texts[] = {
#define MODEL_STATE_TEXT(name, text) [MODEL_##name] = text,
        MODEL_STATES(MODEL_STATE_TEXT)
#undef MODEL_STATE_TEXT
    };
    assert((size_t)state < sizeof(texts) / sizeof(texts[0]));
    return texts[state];
}

void catalogue_acquire(struct catalogue *catalogue)
{
    const uint64_t before = atomic_fetch_add(&catalogue->holders, 1);
    assert(before > 0);
    (void)before;
}

void catalogue_release(struct catalogue *catalogue)
{
    if (catalogue == NULL || atomic_fetch_sub(&catalogue->holders, 1) != 1) {
        return;
    }
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->list[i];
        for (uint32_t v = 0; v < entry->version_count; v++) {
            if (entry->versions[v].model != NULL) {
                model_release(entry->versions[v].model);
            }
        }
    }
    map_finish(&catalogue->entries);
    arena_finish(&catalogue->arena);
    mem_free(catalogue);
}

const struct catalogue_entry *catalogue_find(const struct catalogue *catalogue, struct bytes name)
{
    return map_get(&catalogue->entries, name);
}

const struct catalogue_version *catalogue_version_find(const struct catalogue_entry *entry,
                                                       uint64_t version)
{
    for (uint32_t i = entry->version_count; i > 0; i--) {
        const struct catalogue_version *candidate = &entry->versions[i - 1];
        const bool wanted =
            version == 0 ? candidate->state == MODEL_READY : candidate->version == version;
        if (wanted) {
            return candidate;
        }
    }
    return NULL;
}

/* Why the version that was asked for cannot be leased. */
static enum weir_status refuse_version(const char *name, uint64_t version,
                                       const struct catalogue_version *found, struct weir_err *err)
{
    if (found != NULL && found->state == MODEL_LOADING) {
        return err_set(err, WEIR_ELOADING,
                       "Request for unknown model: '%s' version %" PRIu64
                       " is not at ready state: it is loading",
                       name, version);
    }
    if (found != NULL && found->failed) {
        return err_set(err, WEIR_EUNAVAILABLE,
                       "Request for unknown model: '%s' version %" PRIu64
                       " is not at ready state: %s",
                       name, version, found->reason);
    }
    return err_set(err, WEIR_ENOENT,
                   "Request for unknown model: '%s' version %" PRIu64 " is not found", name,
                   version);
}

/* The same for any version of a model that has none READY. */
static enum weir_status refuse_model(const struct catalogue_entry *entry, struct weir_err *err)
{
    const char *reason = entry->reason;
    bool loading = entry->loading;
    for (uint32_t i = 0; i < entry->version_count; i++) {
        const struct catalogue_version *version = &entry->versions[i];
        loading = loading || version->state == MODEL_LOADING;
        reason = version->failed ? version->reason : reason;
    }
    if (loading) {
        return err_set(err, WEIR_ELOADING,
                       "Request for unknown model: '%s' has no available versions: it is loading",
                       entry->name);
    }
    if (reason != NULL || entry->on_demand) {
        reason = reason != NULL ? reason : "it was unloaded to make room";
        return err_set(err, WEIR_EUNAVAILABLE,
                       "Request for unknown model: '%s' has no available versions: %s", entry->name,
                       reason);
    }
    return err_set(err, WEIR_ENOENT, "Request for unknown model: '%s' has no available versions",
                   entry->name);
}

bool catalogue_entry_is_settled(const struct catalogue_entry *entry)
{
    bool settled = !entry->loading;
    for (uint32_t i = 0; i < entry->version_count; i++) {
        const enum model_state state = entry->versions[i].state;
        settled = settled && state != MODEL_LOADING && state != MODEL_UNKNOWN;
    }
    return settled;
}

bool catalogue_is_due(const struct catalogue *catalogue, struct bytes name, uint64_t version)
{
    const struct catalogue_entry *entry =
        catalogue->on_demand ? catalogue_find(catalogue, name) : NULL;
    if (entry == NULL || !entry->on_demand) {
        return false;
    }
    const struct catalogue_version *found = catalogue_version_find(entry, version);
    return entry->latest == NULL && (found == NULL || found->model == NULL);
}

enum weir_status catalogue_refuse_unknown(struct bytes name, struct weir_err *err)
{
    return err_set(err, WEIR_ENOENT, "Request for unknown model: '%.*s' is not found",
                   (int)(name.size < 256 ? name.size : 256), name.data);
}

enum weir_status catalogue_lease(const struct catalogue *catalogue, struct bytes name,
                                 uint64_t version, struct model **out, struct weir_err *err)
{
    const struct catalogue_entry *entry = catalogue_find(catalogue, name);
    if (entry == NULL) {
        return catalogue_refuse_unknown(name, err);
    }
    const struct catalogue_version *found = catalogue_version_find(entry, version);
    if (found == NULL || found->model == NULL) {
        return version == 0 || entry->version_count == 0
                   ? refuse_model(entry, err)
                   : refuse_version(entry->name, version, found, err);
    }
    model_acquire(found->model);
    *out = found->model;
    return WEIR_OK;
}

struct catalogue *catalogue_create(uint64_t generation, uint32_t entries_max)
{
    struct catalogue *catalogue = mem_try_zero(1, sizeof(*catalogue));
    if (catalogue == NULL) {
        return NULL;
    }
    atomic_init(&catalogue->holders, 1);
    catalogue->generation = generation;
    catalogue->capacity = entries_max;
    map_init(&catalogue->entries);
    arena_init(&catalogue->arena, NULL, 0, 0);
    catalogue->list = arena_try_zero(&catalogue->arena, entries_max, sizeof(*catalogue->list));
    if (catalogue->list == NULL) {
        catalogue_release(catalogue);
        return NULL;
    }
    return catalogue;
}

/* A copy of a text that may be NULL; false when memory is out. */
static bool copy_text(struct arena *arena, const char *text, const char **out)
{
    *out = text == NULL ? NULL : arena_try_strndup(arena, text, strlen(text));
    return text == NULL || *out != NULL;
}

struct catalogue_entry *catalogue_add(struct catalogue *catalogue, const char *name,
                                      const char *reason, uint32_t versions_max)
{
    assert(catalogue->count < catalogue->capacity);
    struct catalogue_entry entry = { 0 };
    entry.versions = arena_try_zero(&catalogue->arena, versions_max, sizeof(*entry.versions));
    if (entry.versions == NULL || !copy_text(&catalogue->arena, name, &entry.name) ||
        !copy_text(&catalogue->arena, reason, &entry.reason)) {
        return NULL;
    }
    catalogue->list[catalogue->count] = entry;
    return &catalogue->list[catalogue->count++];
}

enum weir_status catalogue_add_version(struct catalogue *catalogue, struct catalogue_entry *entry,
                                       const struct catalogue_version *version)
{
    assert((version->model != NULL) == (version->state == MODEL_READY));
    struct catalogue_version copy = *version;
    if (!copy_text(&catalogue->arena, version->reason, &copy.reason)) {
        return WEIR_ENOMEM;
    }
    if (copy.model != NULL) {
        model_acquire(copy.model);
        entry->latest = copy.model;
    }
    entry->versions[entry->version_count++] = copy;
    return WEIR_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct catalogue_entry *left = a;
    const struct catalogue_entry *right = b;
    return strcmp(left->name, right->name);
}

enum weir_status catalogue_seal(struct catalogue *catalogue)
{
    qsort(catalogue->list, catalogue->count, sizeof(*catalogue->list), by_name);
    for (uint32_t i = 0; i < catalogue->count; i++) {
        struct catalogue_entry *entry = &catalogue->list[i];
        const enum weir_status status = map_add(&catalogue->entries, bytes_of(entry->name), entry);
        assert(status != WEIR_ECONFLICT);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}
