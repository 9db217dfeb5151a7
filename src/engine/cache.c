#include "engine/cache.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "engine/model.h"
#include "util/list.h"
#include "util/map.h"
#include "util/mem.h"

struct cache_entry {
    struct request_key key;
    struct list_node used; /* In cache.used, most recent last. */
    uint64_t serial;
    size_t bytes; /* What it counts for. */
    uint32_t output_count;
    struct tensor outputs[]; /* As in the signature; absent where not wanted. */
};

struct cache {
    _Atomic uint64_t bytes_max; /* 0: off. */
    pthread_mutex_t lock;       /* Guards the rest. */
    struct map entries;         /* By key. */
    struct list used;
    struct cache_stats stats;
};

static uint64_t digest_keys[2];
static pthread_once_t drawn = PTHREAD_ONCE_INIT;

static void draw_keys(void)
{
    /* map_hash() is keyed with what only this process knows, which does where the system has no
     * random bytes left. */
    if (getrandom(digest_keys, sizeof(digest_keys), 0) != (ssize_t)sizeof(digest_keys)) {
        for (uint64_t i = 0; i < 2; i++) {
            digest_keys[i] = map_hash(&i, sizeof(i));
        }
    }
}

static struct request_key digest(const void *data, size_t size)
{
    struct request_key key;
    map_hash_wide(digest_keys[0], digest_keys[1], data, size, key.words);
    return key;
}

/* Everything so far and one input, into one key. */
static struct request_key add_input(struct request_key so_far, const struct tensor *input)
{
    uint64_t words[8 + TENSOR_RANK_MAX] = { so_far.words[0], so_far.words[1], input->present };
    uint32_t count = 3;
    if (input->present) {
        const struct request_key content = digest(input->data, input->size);
        words[count++] = input->dtype;
        words[count++] = input->size;
        words[count++] = content.words[0];
        words[count++] = content.words[1];
        words[count++] = input->shape.rank;
        for (uint32_t d = 0; d < input->shape.rank; d++) {
            words[count++] = (uint64_t)input->shape.dims[d];
        }
    }
    return digest(words, count * sizeof(*words));
}

struct request_key cache_digest(const struct request *request, uint64_t serial)
{
    const struct signature *signature = request->model->signature;
    (void)pthread_once(&drawn, draw_keys);
    struct request_key key = { { serial, signature->input_count } };
    for (uint32_t i = 0; i < signature->input_count; i++) {
        key = add_input(key, &request->inputs[i]);
    }
    for (uint32_t i = 0; i < signature->output_count; i++) {
        const uint64_t words[] = { key.words[0], key.words[1], request->wanted[i] };
        key = digest(words, sizeof(words));
    }
    return key;
}

bool cache_key(const struct request *request, uint64_t serial, struct request_key *out)
{
    if (request->input_bytes > CACHE_INPUT_BYTES_MAX) {
        return false;
    }
    *out = cache_digest(request, serial);
    return true;
}

static struct bytes name_of(const struct request_key *key)
{
    return (struct bytes){ (const char *)key->words, sizeof(key->words) };
}

enum weir_status cache_create(uint64_t bytes_max, struct cache **out)
{
    struct cache *cache = mem_try_zero(1, sizeof(*cache));
    if (cache == NULL) {
        return WEIR_ENOMEM;
    }
    pthread_mutex_init(&cache->lock, NULL);
    map_init(&cache->entries);
    list_init(&cache->used);
    atomic_init(&cache->bytes_max, bytes_max);
    *out = cache;
    return WEIR_OK;
}

static void free_entry(struct cache_entry *entry)
{
    for (uint32_t i = 0; i < entry->output_count; i++) {
        tensor_release(&entry->outputs[i]);
    }
    mem_free(entry);
}

/* Lock held. */
static void drop(struct cache *cache, struct cache_entry *entry)
{
    (void)map_remove(&cache->entries, name_of(&entry->key));
    list_remove(&entry->used);
    cache->stats.bytes -= entry->bytes;
    cache->stats.entries--;
    free_entry(entry);
}

void cache_destroy(struct cache *cache)
{
    if (cache == NULL) {
        return;
    }
    for (struct list_node *n = list_first(&cache->used); n != NULL; n = list_first(&cache->used)) {
        drop(cache, list_entry(n, struct cache_entry, used));
    }
    map_finish(&cache->entries);
    pthread_mutex_destroy(&cache->lock);
    mem_free(cache);
}

bool cache_is_on(const struct cache *cache)
{
    return atomic_load_explicit(&cache->bytes_max, memory_order_relaxed) > 0;
}

/* Lock held: what was used longest ago goes until there are at most so many. */
static void shrink(struct cache *cache, uint64_t bytes)
{
    while (cache->stats.bytes > bytes) {
        drop(cache, list_entry(list_first(&cache->used), struct cache_entry, used));
        cache->stats.evictions++;
    }
}

void cache_set(struct cache *cache, uint64_t bytes_max)
{
    pthread_mutex_lock(&cache->lock);
    atomic_store(&cache->bytes_max, bytes_max);
    shrink(cache, bytes_max);
    pthread_mutex_unlock(&cache->lock);
}

bool cache_find(struct cache *cache, const struct request_key *key, const struct request *request)
{
    pthread_mutex_lock(&cache->lock);
    struct cache_entry *entry = map_get(&cache->entries, name_of(key));
    if (entry == NULL) {
        cache->stats.misses++;
        pthread_mutex_unlock(&cache->lock);
        return false;
    }
    cache->stats.hits++;
    list_remove(&entry->used);
    list_append(&cache->used, &entry->used);
    for (uint32_t i = 0; i < entry->output_count; i++) {
        request->outputs[i] = entry->outputs[i];
        block_acquire(entry->outputs[i].block);
    }
    pthread_mutex_unlock(&cache->lock);
    return true;
}

/* What the answer would take, as far as it can be told. */
static size_t entry_bytes(const struct request *request)
{
    const uint32_t count = request->model->signature->output_count;
    size_t bytes =
        sizeof(struct cache_entry) + sizeof(struct map_slot) + count * sizeof(struct tensor);
    for (uint32_t i = 0; i < count; i++) {
        if (request->outputs[i].present) {
            bytes += sizeof(struct block) + request->outputs[i].size; /* They are in memory. */
        }
    }
    return bytes;
}

static bool copy_output(const struct tensor *from, struct tensor *out)
{
    if (!from->present) {
        return true;
    }
    struct tensor copy = *from;
    copy.block = block_create(from->size == 0 ? 1 : from->size);
    if (copy.block == NULL) {
        return false;
    }
    if (from->size > 0) {
        memcpy(copy.block->data, from->data, from->size);
    }
    copy.data = copy.block->data;
    *out = copy;
    return true;
}

static struct cache_entry *copy_answer(const struct request *request, const struct request_key *key,
                                       uint64_t serial, size_t bytes)
{
    const uint32_t count = request->model->signature->output_count;
    struct cache_entry *entry = mem_try_zero(1, sizeof(*entry) + count * sizeof(entry->outputs[0]));
    if (entry == NULL) {
        return NULL;
    }
    entry->key = *key;
    entry->serial = serial;
    entry->bytes = bytes;
    entry->output_count = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!copy_output(&request->outputs[i], &entry->outputs[i])) {
            free_entry(entry);
            return NULL;
        }
    }
    return entry;
}

void cache_keep(struct cache *cache, const struct request_key *key, uint64_t serial,
                const struct request *request)
{
    const size_t bytes = entry_bytes(request);
    if (bytes > atomic_load(&cache->bytes_max)) {
        return;
    }
    struct cache_entry *entry = copy_answer(request, key, serial, bytes);
    if (entry == NULL) {
        return;
    }
    pthread_mutex_lock(&cache->lock);
    const uint64_t bytes_max = atomic_load(&cache->bytes_max);
    if (bytes > bytes_max || map_add(&cache->entries, name_of(&entry->key), entry) != WEIR_OK) {
        pthread_mutex_unlock(&cache->lock);
        free_entry(entry);
        return;
    }
    shrink(cache, bytes_max - bytes);
    list_append(&cache->used, &entry->used);
    cache->stats.bytes += bytes;
    cache->stats.entries++;
    pthread_mutex_unlock(&cache->lock);
}

void cache_forget(struct cache *cache, uint64_t serial)
{
    pthread_mutex_lock(&cache->lock);
    struct list_node *next;
    for (struct list_node *n = list_first(&cache->used); n != NULL; n = next) {
        struct cache_entry *entry = list_entry(n, struct cache_entry, used);
        next = list_next(&cache->used, n);
        if (entry->serial == serial) {
            drop(cache, entry);
        }
    }
    pthread_mutex_unlock(&cache->lock);
}

struct cache_stats cache_stats(struct cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    struct cache_stats stats = cache->stats;
    stats.bytes_max = atomic_load(&cache->bytes_max);
    pthread_mutex_unlock(&cache->lock);
    return stats;
}
