#include "engine/quarantine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "util/clock.h"
#include "util/list.h"
#include "util/map.h"
#include "util/mem.h"

struct held {
    struct list_node node; /* In quarantine.ages. */
    struct quarantine_entry entry;
};

struct quarantine {
    uint64_t entries_max; /* Constant. */
    uint64_t keep_ns;     /* Constant. */
    _Atomic uint32_t count;
    pthread_mutex_t lock; /* Guards the rest. */
    struct map by_key;
    struct list ages; /* The oldest first. */
    uint64_t convicted;
    uint64_t refused;
};

static struct bytes name_of(const struct request_key *key)
{
    return (struct bytes){ (const char *)key->words, sizeof(key->words) };
}

static struct held *first(const struct list *ages)
{
    struct list_node *node = list_first(ages);
    return node == NULL ? NULL : list_entry(node, struct held, node);
}

static struct held *after(const struct list *ages, const struct held *held)
{
    struct list_node *node = list_next(ages, &held->node);
    return node == NULL ? NULL : list_entry(node, struct held, node);
}

/* Lock held. */
static void drop(struct quarantine *quarantine, struct held *held)
{
    (void)map_remove(&quarantine->by_key, name_of(&held->entry.key));
    list_remove(&held->node);
    mem_free(held);
    atomic_fetch_sub_explicit(&quarantine->count, 1, memory_order_relaxed);
}

/* Lock held. */
static void expire(struct quarantine *quarantine, uint64_t now_ns)
{
    for (struct held *held = first(&quarantine->ages);
         held != NULL && clock_add(held->entry.since_ns, quarantine->keep_ns) <= now_ns;
         held = first(&quarantine->ages)) {
        drop(quarantine, held);
    }
}

enum weir_status quarantine_create(uint64_t entries_max, uint64_t keep_ns, struct quarantine **out)
{
    struct quarantine *quarantine = mem_try_zero(1, sizeof(*quarantine));
    if (quarantine == NULL) {
        return WEIR_ENOMEM;
    }
    quarantine->entries_max = entries_max > 0 ? entries_max : 1;
    quarantine->keep_ns = keep_ns;
    pthread_mutex_init(&quarantine->lock, NULL);
    map_init(&quarantine->by_key);
    list_init(&quarantine->ages);
    *out = quarantine;
    return WEIR_OK;
}

void quarantine_destroy(struct quarantine *quarantine)
{
    if (quarantine == NULL) {
        return;
    }
    (void)quarantine_clear(quarantine, NULL, 0);
    map_finish(&quarantine->by_key);
    pthread_mutex_destroy(&quarantine->lock);
    mem_free(quarantine);
}

uint32_t quarantine_count(const struct quarantine *quarantine)
{
    return atomic_load_explicit(&quarantine->count, memory_order_relaxed);
}

void quarantine_add(struct quarantine *quarantine, const struct quarantine_entry *entry,
                    uint64_t now_ns)
{
    struct held *held = mem_try_zero(1, sizeof(*held));
    pthread_mutex_lock(&quarantine->lock);
    quarantine->convicted++;
    expire(quarantine, now_ns);
    struct held *before = map_get(&quarantine->by_key, name_of(&entry->key));
    if (before != NULL) {
        drop(quarantine, before);
    }
    while (quarantine->count >= quarantine->entries_max) {
        drop(quarantine, first(&quarantine->ages));
    }
    if (held != NULL) {
        held->entry = *entry;
        held->entry.since_ns = now_ns;
        held->entry.refused = 0;
        if (map_add(&quarantine->by_key, name_of(&held->entry.key), held) == WEIR_OK) {
            list_append(&quarantine->ages, &held->node);
            atomic_fetch_add_explicit(&quarantine->count, 1, memory_order_relaxed);
            held = NULL;
        }
    }
    pthread_mutex_unlock(&quarantine->lock);
    mem_free(held);
}

bool quarantine_refuses(struct quarantine *quarantine, const struct request_key *key,
                        uint64_t now_ns)
{
    pthread_mutex_lock(&quarantine->lock);
    expire(quarantine, now_ns);
    struct held *held = map_get(&quarantine->by_key, name_of(key));
    if (held != NULL) {
        held->entry.refused++;
        quarantine->refused++;
    }
    pthread_mutex_unlock(&quarantine->lock);
    return held != NULL;
}

void quarantine_forget(struct quarantine *quarantine, uint64_t serial)
{
    if (quarantine_count(quarantine) == 0) {
        return;
    }
    pthread_mutex_lock(&quarantine->lock);
    struct held *next;
    for (struct held *held = first(&quarantine->ages); held != NULL; held = next) {
        next = after(&quarantine->ages, held);
        if (held->entry.serial == serial) {
            drop(quarantine, held);
        }
    }
    pthread_mutex_unlock(&quarantine->lock);
}

uint64_t quarantine_clear(struct quarantine *quarantine, const char *model, uint64_t now_ns)
{
    uint64_t count = 0;
    pthread_mutex_lock(&quarantine->lock);
    expire(quarantine, now_ns);
    struct held *next;
    for (struct held *held = first(&quarantine->ages); held != NULL; held = next) {
        next = after(&quarantine->ages, held);
        if (model == NULL || strcmp(held->entry.model, model) == 0) {
            drop(quarantine, held);
            count++;
        }
    }
    pthread_mutex_unlock(&quarantine->lock);
    return count;
}

bool quarantine_at(struct quarantine *quarantine, uint64_t index, uint64_t now_ns,
                   struct quarantine_entry *out)
{
    pthread_mutex_lock(&quarantine->lock);
    expire(quarantine, now_ns);
    const struct held *held = first(&quarantine->ages);
    for (; held != NULL && index > 0; index--) {
        held = after(&quarantine->ages, held);
    }
    if (held != NULL) {
        *out = held->entry;
    }
    pthread_mutex_unlock(&quarantine->lock);
    return held != NULL;
}

uint64_t quarantine_left_ns(const struct quarantine *quarantine, uint64_t since_ns, uint64_t now_ns)
{
    const uint64_t until_ns = clock_add(since_ns, quarantine->keep_ns);
    return until_ns > now_ns ? until_ns - now_ns : 0;
}

struct quarantine_stats quarantine_stats(struct quarantine *quarantine, uint64_t now_ns)
{
    pthread_mutex_lock(&quarantine->lock);
    expire(quarantine, now_ns);
    const struct quarantine_stats stats = { .entries = quarantine->count,
                                            .convicted = quarantine->convicted,
                                            .refused = quarantine->refused };
    pthread_mutex_unlock(&quarantine->lock);
    return stats;
}
